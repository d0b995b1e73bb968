"""The conversation: what a browser may say over its WebSocket, and what it is told.

Every message both ways is a JSON object with a ``type``.

From the browser to a room:

- ``message``: ``client_id`` (a UUID of the browser's making) and ``text``. The answer is the
  ``message`` itself, as everyone gets it, or an ``error`` with the same ``client_id``. Sent again
  with the same ``client_id``, a message is answered and not kept twice.
- ``history``: ``before`` or ``after`` a number
- ``read``: ``number``, up to which the user has read
- ``typing``: ``typing``, true or false
- ``ping``: answered by ``pong``, for a browser that wonders if anyone is there

From a room to the browser: ``welcome`` (once, first of what the consumer says), ``message``,
``history``, ``presence``, ``typing``, ``read``, ``activity`` and ``room`` (in other rooms),
``pong``, ``error``.

What goes to a group takes the fast lane and may overtake what the consumer says, ``welcome``
included. No harm comes of it: messages carry their number, and changes of presence their revision.
"""

import re
import time
from urllib.parse import parse_qs

from django.conf import settings

from chat.groups import LOBBY, room_group
from chat.models import Message, ReadMark, Room
from chat.presence import Presence
from headrace.db import database_sync_to_async
from live.consumers import GONE, LiveConsumer
from live.events import for_browsers, user_group
from live.limits import Allowance, Refused, number_of, text_of, uuid_of

__all__ = ["LobbyConsumer", "RoomConsumer"]

presence = Presence()


class LobbyConsumer(LiveConsumer):
    """The list of rooms: it is only told what happens."""

    async def enter(self):
        await self.channel_layer.group_add(LOBBY, self.channel_name)


class RoomConsumer(LiveConsumer):
    """One browser's place in one room."""

    commands = {
        "message": "post",
        "history": "history",
        "read": "mark_read",
        "typing": "typing",
    }
    room = None

    async def enter(self):
        await self.channel_layer.group_add(LOBBY, self.channel_name)
        self.posting = Allowance(burst=settings.CHAT_BURST, per_second=settings.CHAT_PER_SECOND)
        slug = self.scope["url_route"]["kwargs"]["slug"]
        self.room = await database_sync_to_async(Room.objects.with_unread(self.user).find)(slug)
        if self.room is None:
            await self.refuse(GONE, "unknown_room", "There is no such room (any more).")
            return
        self.group = room_group(self.room.pk)
        # First the group, then what was missed: nothing can fall in between.
        await self.channel_layer.group_add(self.group, self.channel_name)
        revision = presence.enter(self.room.pk, self.user.public(), self.channel_name)
        if revision is not None:
            await self.tell_presence(here=True, revision=revision)
        await self.welcome()

    async def disconnect(self, code):
        # However the connection ended, and however far it had got. All memberships leave with the
        # consumer; this one goes first, because a farewell to oneself can't be delivered.
        if self.room is None:
            return
        await self.channel_layer.group_discard(self.group, self.channel_name)
        revision = presence.leave(self.room.pk, self.user.pk, self.channel_name)
        if revision is not None:
            await self.tell_presence(here=False, revision=revision)

    async def tell_presence(self, *, here, revision):
        await self.channel_layer.group_send(
            self.group,
            for_browsers(
                {
                    "type": "presence",
                    "user": self.user.public(),
                    "here": here,
                    "revision": revision,
                }
            ),
        )

    async def welcome(self):
        """Tell a page that comes, or comes back, what it has missed since ``?seen=``."""
        messages, afresh = await database_sync_to_async(Message.objects.missed)(
            room=self.room, seen=self.seen()
        )
        await self.send_json(
            {
                "type": "welcome",
                "you": self.user.public(),
                "afresh": afresh,
                "messages": [message.public() for message in messages],
                "read": self.room.read,
                "people": presence.people(self.room.pk),
                "revision": presence.revision,
            }
        )

    def seen(self):
        """Return the number up to which the page has every message; 0 if it doesn't say."""
        query = parse_qs(self.scope["query_string"].decode("latin-1"))
        digits = query.get("seen", ["0"])[0]
        return int(digits) if re.fullmatch("[0-9]{1,15}", digits) else 0

    async def post(self, content):
        text = text_of(content.get("text"), length=settings.CHAT_MESSAGE_LENGTH)
        client_id = uuid_of(content.get("client_id"))
        if wait := self.posting.take(time.monotonic()):
            raise Refused("rate", "You write faster than anyone can read.", retry_after_s=wait)
        try:
            message, is_new = await database_sync_to_async(Message.objects.post)(
                room=self.room, author=self.user, client_id=client_id, text=text
            )
        except Room.DoesNotExist:
            await self.refuse(GONE, "unknown_room", "There is no such room (any more).")
            return
        if not is_new:
            await self.send_json({"type": "message", "message": message.public()})
            return
        await self.channel_layer.group_send(
            self.group, for_browsers({"type": "message", "message": message.public()})
        )
        await self.channel_layer.group_send(
            LOBBY,
            for_browsers(
                {
                    "type": "activity",
                    "room": self.room.slug,
                    "number": message.number,
                    "author": self.user.public(),
                    "text": text[:120],
                }
            ),
        )

    async def history(self, content):
        which = "after" if "after" in content else "before"
        number = number_of(content.get(which), which)
        messages = await database_sync_to_async(Message.objects.page)(
            room=self.room, **{which: number}
        )
        await self.send_json(
            {
                "type": "history",
                which: number,
                "messages": [message.public() for message in messages],
            }
        )

    async def mark_read(self, content):
        number = number_of(content.get("number"), "number")
        mark = await database_sync_to_async(ReadMark.objects.advance)(
            room=self.room, user=self.user, number=number
        )
        if mark is not None:
            # The same user's other tabs and devices clear their marks too.
            await self.channel_layer.group_send(
                user_group(self.user.pk),
                for_browsers({"type": "read", "room": self.room.slug, "number": mark}),
            )

    async def typing(self, content):
        await self.channel_layer.group_send(
            self.group,
            for_browsers(
                {
                    "type": "typing",
                    "user": self.user.public(),
                    "typing": content.get("typing") is True,
                }
            ),
        )
