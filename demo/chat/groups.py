"""The groups of the channel layer.

==================  =========================================================
``room.<id>``       every browser that shows the room
``lobby``           every browser that shows a list of rooms
``user.<id>``       every browser of one account (see ``live.events``)
==================  =========================================================

What concerns a conversation of two goes to its room and to the groups of these two users, and
never to the lobby.
"""

from live.events import user_group

__all__ = ["LOBBY", "list_groups", "room_group"]

LOBBY = "lobby"


def room_group(room_id: int) -> str:
    return f"room.{room_id}"


def list_groups(room) -> list[str]:
    """Return the groups of those who have the room in their lists."""
    if room.is_private:
        return [user_group(room.one_id), user_group(room.two_id)]
    return [LOBBY]
