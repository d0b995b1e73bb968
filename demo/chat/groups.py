"""The groups of the channel layer, and how an event is put for those who listen.

==================  =========================================================
``room.<id>``       every browser that shows the room
``lobby``           every browser that shows a list of rooms
``user.<id>``       every browser of one account
``session.<hash>``  every tab of one log-in
==================  =========================================================
"""

import hashlib
import json

__all__ = ["LOBBY", "for_browsers", "room_group", "session_group", "user_group"]

LOBBY = "lobby"


def room_group(room_id: int) -> str:
    return f"room.{room_id}"


def user_group(user_id: int) -> str:
    return f"user.{user_id}"


def session_group(session_key: str) -> str:
    # A group's name turns up in logs, where a session's key has no business.
    return f"session.{hashlib.sha256(session_key.encode()).hexdigest()[:32]}"


def for_browsers(payload: dict) -> dict:
    """Return the event that hands ``payload`` to every browser of a group as it is.

    This is the fast lane: an event whose type is that of an ASGI message for the client goes from
    the channel layer straight to the sockets. The text is the same for everyone, so it is encoded
    once, and no consumer wakes. What differs from one reader to the next (is it mine? have I
    seen it?) is left to the page, which knows. An event that each consumer must think about has a
    type of its own (``chat.message``) and goes to a method of that name (``chat_message``).
    """
    return {"type": "websocket.send", "text": json.dumps(payload, ensure_ascii=False)}
