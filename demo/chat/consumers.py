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

import json
import logging
import re
import time
from urllib.parse import parse_qs

from django.conf import settings
from django.db import DatabaseError

from chat.groups import LOBBY, for_browsers, room_group, session_group, user_group
from chat.limits import Allowance, Refused, client_id_of, number_of, text_of
from chat.models import Message, ReadMark, Room
from chat.presence import Presence
from headrace.db import database_sync_to_async
from headrace.generic.websocket import AsyncJsonWebsocketConsumer

__all__ = ["LOGGED_OUT", "NO_SUCH_ROOM", "LobbyConsumer", "RoomConsumer"]

logger = logging.getLogger(__name__)

# Close codes of this application (RFC 6455 §7.4.2 leaves 4000-4999 to it). A page that gets one of
# them doesn't come back; after any other it does.
LOGGED_OUT = 4401
NO_SUCH_ROOM = 4404

presence = Presence()


class ChatConsumer(AsyncJsonWebsocketConsumer):
    """What all of this site's WebSockets have in common: they say why, and they bear nonsense."""

    commands: dict[str, str] = {"ping": "ping"}

    async def connect(self):
        # A browser shows its page neither the status nor the body of a refused handshake, so the
        # refusal is told over the open connection.
        await self.accept()
        self.allowance = Allowance(burst=40, per_second=10)
        self.user = self.scope["user"]
        if not self.user.is_authenticated:
            await self.refuse(LOGGED_OUT, "not_logged_in", "You are not logged in.")
            return
        await self.channel_layer.group_add(LOBBY, self.channel_name)
        await self.channel_layer.group_add(user_group(self.user.pk), self.channel_name)
        await self.channel_layer.group_add(
            session_group(self.scope["session"].session_key), self.channel_name
        )
        await self.enter()

    async def enter(self):
        """Begin, for a user who is known."""

    async def receive(self, text_data=None, bytes_data=None, **kwargs):
        content = {}
        try:
            wait = self.allowance.take(time.monotonic())
            content = self.read(text_data)
            if wait:
                raise Refused("rate", "Too much at once.", retry_after_s=wait)
            command = self.commands.get(content.get("type"))
            if command is None:
                raise Refused("unknown_command", "This is no command that a room knows.")
            await getattr(self, command)(content)
        except Refused as refused:
            await self.say_error(content, refused.code, str(refused), **refused.details)
        except DatabaseError:
            logger.exception("a command of %s failed in the database", self.user)
            await self.say_error(
                content, "unavailable", "The room can't be reached just now.", retry_after_s=2.0
            )

    @staticmethod
    def read(text):
        """Return a command, or raise :class:`Refused`."""
        try:
            content = json.loads(text) if text is not None else None
        except (ValueError, RecursionError):  # too deep a nesting is no JSON of ours either
            raise Refused("not_json", "This is not JSON.") from None
        if not isinstance(content, dict) or not isinstance(content.get("type"), str):
            raise Refused("not_json", "A command is a JSON object with a type.")
        return content

    async def say_error(self, content, code, text, **details):
        client_id = content.get("client_id")
        if isinstance(client_id, str) and client_id.isascii():
            details["client_id"] = client_id[:36]
        await self.send_json({"type": "error", "code": code, "text": text, **details})

    async def refuse(self, close_code, code, text):
        await self.send_json({"type": "error", "code": code, "text": text})
        await self.close(close_code)

    async def ping(self, content):
        await self.send_json({"type": "pong"})


class LobbyConsumer(ChatConsumer):
    """The list of rooms: it is only told what happens."""


class RoomConsumer(ChatConsumer):
    """One browser's place in one room."""

    commands = {
        **ChatConsumer.commands,
        "message": "post",
        "history": "history",
        "read": "mark_read",
        "typing": "typing",
    }
    room = None

    async def enter(self):
        self.posting = Allowance(burst=settings.CHAT_BURST, per_second=settings.CHAT_PER_SECOND)
        slug = self.scope["url_route"]["kwargs"]["slug"]
        self.room = await database_sync_to_async(Room.objects.with_unread(self.user).find)(slug)
        if self.room is None:
            await self.refuse(NO_SUCH_ROOM, "unknown_room", "There is no such room (any more).")
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
        text = text_of(content.get("text"))
        client_id = client_id_of(content.get("client_id"))
        if wait := self.posting.take(time.monotonic()):
            raise Refused("rate", "You write faster than anyone can read.", retry_after_s=wait)
        try:
            message, is_new = await database_sync_to_async(Message.objects.post)(
                room=self.room, author=self.user, client_id=client_id, text=text
            )
        except Room.DoesNotExist:
            await self.refuse(NO_SUCH_ROOM, "unknown_room", "There is no such room (any more).")
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
