"""The conversation: what a browser may say over its WebSocket, and what it is told.

Every message both ways is a JSON object with a ``type``.

From the browser to a room:

- ``message``: ``client_id`` (a UUID of the browser's making) and ``text``. The answer is the
  ``message`` itself, as everyone gets it, or an ``error`` with the same ``client_id``. Sent again
  with the same ``client_id``, a message is answered and not kept twice. (An image comes by an
  HTTP request, with the message that it belongs to: see ``views.py``.)
- ``edit``: ``number`` of an own message and its new ``text``; ``delete``: ``number``. The answer
  is ``changed``, as everyone gets it, or an ``error`` with the same ``number``.
- ``history``: ``before`` a number, a page of what was said earlier
- ``changes``: ``after`` a number, what has changed since
- ``read``: ``number``, up to which the user has read
- ``typing``: ``typing``, true or false
- ``mute``: ``user`` and ``minutes`` (0 ends it), and ``close``: ``closed``, for staff
- ``ping``: answered by ``pong``, for a browser that wonders if anyone is there

From a room to the browser: ``welcome`` (once, first of what the consumer says), ``message``,
``changed``, ``muted``, ``closed``, ``changes``, ``history``, ``presence``, ``typing``, ``read``,
``activity`` and ``room`` (of all rooms that the user may read), ``pong``, ``error``. To a list of
rooms: ``rooms`` first, then ``activity``, ``room``, ``read``.

What goes to a group takes the fast lane and may overtake what the consumer says, ``welcome``
included. No harm comes of it: whatever changes a room carries the number of the change, and comings
and goings their revision.
"""

import re
import time
from urllib.parse import parse_qs

from django.conf import settings

from chat import actions
from chat.groups import LOBBY, room_group
from chat.marks import marks
from chat.models import Message, Room, Visit
from chat.presence import Presence
from headrace.db import database_sync_to_async
from live.consumers import GONE, LiveConsumer
from live.events import for_browsers
from live.limits import Allowance, Refused, number_of, text_of, uuid_of

__all__ = ["LobbyConsumer", "RoomConsumer"]

#: The close code for a page that may have missed something: it comes back, and asks.
COME_BACK = 4000

presence = Presence()


def rooms_of(user) -> list[dict]:
    """Return the list of rooms as a page shows it, with what is unread."""
    return [
        room.public(user)
        | {"read": room.read, "latest": actions.latest_of(room.latest) if room.latest else None}
        for room in Room.objects.list_with_latest(user)
    ]


class LobbyConsumer(LiveConsumer):
    """The list of rooms: it is only told what happens."""

    async def enter(self):
        await self.channel_layer.group_add(LOBBY, self.channel_name)
        await self.welcome()

    async def layer_gap(self, event):
        """Tell all of it again: the channel layer may have lost something for this page."""
        await self.welcome()

    async def welcome(self):
        rooms = await database_sync_to_async(rooms_of)(self.user)
        await self.send_json({"type": "rooms", "rooms": rooms})


class RoomConsumer(LiveConsumer):
    """One browser's place in one room."""

    commands = {
        "message": "post",
        "edit": "edit",
        "delete": "delete",
        "history": "history",
        "changes": "changes",
        "read": "mark_read",
        "typing": "typing",
        "mute": "mute",
        "close": "close_room",
    }
    room = None

    async def enter(self):
        await self.channel_layer.group_add(LOBBY, self.channel_name)
        self.posting = Allowance(burst=settings.CHAT_BURST, per_second=settings.CHAT_PER_SECOND)
        slug = self.scope["url_route"]["kwargs"]["slug"]
        # A conversation of two is no room at all for anybody else.
        room = await database_sync_to_async(Room.objects.with_read(self.user).find)(slug)
        if room is None:
            await self.refuse_room()
            return
        self.room = room
        self.group = room_group(room.pk)
        # First the group, then what was missed: nothing can fall in between.
        await self.channel_layer.group_add(self.group, self.channel_name)
        await presence.enter(room.pk, self.user.pk, self.channel_name)
        await self.send_json(await database_sync_to_async(self.welcome)())

    async def disconnect(self, code):
        # However the connection ended, and however far it had got. All memberships leave with the
        # consumer; this one goes first, because a farewell to oneself can't be delivered.
        if self.room is None:
            return
        await self.channel_layer.group_discard(self.group, self.channel_name)
        await marks.kept()
        await presence.leave(self.channel_name)

    async def layer_gap(self, event):
        """Let the page come back for what the channel layer may have lost for it."""
        await self.close(COME_BACK)

    async def receive(self, text_data=None, bytes_data=None, **kwargs):
        try:
            await super().receive(text_data, bytes_data, **kwargs)
        except Room.DoesNotExist:
            await self.refuse_room()

    async def refuse_room(self):
        await self.refuse(GONE, "unknown_room", "There is no such room (any more).")

    async def say_error(self, content, code, text, **details):
        # Which message a page asked to change, so that it knows what was refused.
        if type(number := content.get("number")) is int:
            details["number"] = number
        await super().say_error(content, code, text, **details)

    def welcome(self):
        """Return what a page that comes, or comes back, has missed since ``?seen=``."""
        revision = Room.objects.values_list("presence_revision", flat=True).get(pk=self.room.pk)
        return {
            **self.changed_since(self.seen()),
            "type": "welcome",
            "you": self.user.public(),
            "moderator": actions.may_moderate(self.user, self.room),
            "read": self.room.read,
            "people": Visit.objects.people(self.room),
            "revision": revision,
            "rooms": rooms_of(self.user),
        }

    def changed_since(self, change):
        """Return the messages that changed, and whatever else does: that is told as it is now."""
        last_change, messages, afresh = Message.objects.changed(room=self.room, after=change)
        room = Room.objects.get(pk=self.room.pk)
        return {
            "change": last_change,
            "afresh": afresh,
            "messages": [message.public() for message in messages],
            "closed": room.is_closed,
            "mutes": [
                {"user": mute.user_id, "seconds": mute.seconds} for mute in room.mutes.in_force()
            ],
        }

    def seen(self):
        """Return the number up to which the page has every change; 0 if it doesn't say."""
        query = parse_qs(self.scope["query_string"].decode("latin-1"))
        digits = query.get("seen", ["0"])[0]
        return int(digits) if re.fullmatch("[0-9]{1,15}", digits) else 0

    async def post(self, content):
        text = text_of(content.get("text"), length=settings.CHAT_MESSAGE_LENGTH)
        client_id = uuid_of(content.get("client_id"))
        self.take_turn()
        message, is_new = await database_sync_to_async(actions.post)(
            self.room, self.user, client_id=client_id, text=text
        )
        if not is_new:
            await self.send_json({"type": "message", "message": message.public()})

    async def edit(self, content):
        number = number_of(content.get("number"), "number")
        text = content.get("text")
        # Whether it may be empty depends on whether there is an image above it.
        if not isinstance(text, str) or text.strip():
            text = text_of(text, length=settings.CHAT_MESSAGE_LENGTH)
        self.take_turn()
        await self.change(actions.edit, number=number, text=text.strip())

    async def delete(self, content):
        await self.change(actions.delete, number=number_of(content.get("number"), "number"))

    async def change(self, action, **values):
        message, is_new = await database_sync_to_async(action)(self.room, self.user, **values)
        if not is_new:
            await self.send_json({"type": "changed", "message": message.public()})

    def take_turn(self):
        if wait := self.posting.take(time.monotonic()):
            raise Refused("rate", "You write faster than anyone can read.", retry_after_s=wait)

    async def history(self, content):
        before = number_of(content.get("before"), "before")
        messages = await database_sync_to_async(Message.objects.page)(room=self.room, before=before)
        page = [message.public() for message in messages]
        await self.send_json({"type": "history", "before": before, "messages": page})

    async def changes(self, content):
        after = number_of(content.get("after"), "after")
        changed = await database_sync_to_async(self.changed_since)(after)
        await self.send_json({"type": "changes", "after": after, **changed})

    async def mark_read(self, content):
        number = number_of(content.get("number"), "number")
        marks.note(self.room.pk, self.user.pk, number)

    async def typing(self, content):
        is_typing = content.get("typing") is True
        if is_typing:
            await database_sync_to_async(self.require_voice)()
        await self.channel_layer.group_send(
            self.group,
            for_browsers({"type": "typing", "user": self.user.public(), "typing": is_typing}),
        )

    def require_voice(self):
        actions.require_voice(Room.objects.get(pk=self.room.pk), self.user)

    async def mute(self, content):
        user_id = number_of(content.get("user"), "user")
        minutes = number_of(content.get("minutes"), "minutes", settings.CHAT_MUTE_MINUTES)
        await database_sync_to_async(actions.mute)(
            self.room, self.user, user_id=user_id, minutes=minutes
        )

    async def close_room(self, content):
        if type(closed := content.get("closed")) is not bool:
            raise Refused("bad_message", "closed is true or false.")
        await database_sync_to_async(actions.close)(self.room, self.user, closed=closed)
