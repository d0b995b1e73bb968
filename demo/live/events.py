"""How an event is put for those who listen, and the group of all browsers of one user."""

import json

__all__ = ["for_browsers", "user_group"]


def user_group(user_id: int) -> str:
    """Return the group of every browser of one account."""
    return f"user.{user_id}"


def for_browsers(payload: dict) -> dict:
    """Return the event that hands ``payload`` to every browser of a group as it is.

    This is the fast lane: an event whose type is that of an ASGI message for the client goes from
    the channel layer straight to the sockets. The text is the same for everyone, so it is encoded
    once, and no consumer wakes. What differs from one reader to the next (is it mine? have I
    seen it?) is left to the page, which knows. An event that each consumer must think about has a
    type of its own (``chat.message``) and goes to a method of that name (``chat_message``).
    """
    return {"type": "websocket.send", "text": json.dumps(payload, ensure_ascii=False)}
