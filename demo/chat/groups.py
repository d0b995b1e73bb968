"""The groups of the channel layer.

==================  =========================================================
``room.<id>``       every browser that shows the room
``lobby``           every browser that shows a list of rooms
``user.<id>``       every browser of one account (see ``live.events``)
==================  =========================================================
"""

__all__ = ["LOBBY", "room_group"]

LOBBY = "lobby"


def room_group(room_id: int) -> str:
    return f"room.{room_id}"
