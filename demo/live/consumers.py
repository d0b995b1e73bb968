"""What the WebSockets of this site have in common: they say why, and they bear nonsense.

Every message both ways is a JSON object with a ``type``. From the browser, ``ping`` is answered
by ``pong``, for a page that wonders if anyone is there; what else there is, a consumer names in
its ``commands``. A command that can't be done is answered by ``error``, with a ``code`` for the
page and a ``text`` for its reader.
"""

import json
import logging
import time

from django.db import DatabaseError

from headrace.exceptions import CloseCode
from headrace.generic.websocket import AsyncJsonWebsocketConsumer
from live.events import user_group
from live.limits import Allowance, Refused

__all__ = ["GONE", "LOGGED_OUT", "LiveConsumer"]

logger = logging.getLogger(__name__)

# Close codes after which a page doesn't come back; after any other it does. Headrace sends the
# first by itself when a login ends: see CLOSE_ON_LOGOUT.
LOGGED_OUT = CloseCode.LOGGED_OUT
GONE = 4404


class LiveConsumer(AsyncJsonWebsocketConsumer):
    """One page of somebody who is logged in."""

    #: The commands that a page may send, and the methods that do them.
    commands: dict[str, str] = {}
    #: Commands at once, and then a second.
    burst, per_second = 40, 10
    #: The group of all pages of this kind that one account has open.
    user_group = staticmethod(user_group)

    async def connect(self):
        # A browser shows its page neither the status nor the body of a refused handshake, so the
        # refusal is told over the open connection.
        await self.accept()
        self.allowance = Allowance(burst=self.burst, per_second=self.per_second)
        self.user = self.scope["user"]
        if not self.user.is_authenticated:
            await self.refuse(LOGGED_OUT, "not_logged_in", "You are not logged in.")
            return
        await self.channel_layer.group_add(self.user_group(self.user.pk), self.channel_name)
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
            if content["type"] == "ping":
                await self.send_json({"type": "pong"})
                return
            command = self.commands.get(content["type"])
            if command is None:
                raise Refused("unknown_command", "This is no command that is known here.")
            await getattr(self, command)(content)
        except Refused as refused:
            await self.say_error(content, refused.code, str(refused), **refused.details)
        except DatabaseError:
            logger.exception("a command of %s failed in the database", self.user)
            await self.say_error(
                content, "unavailable", "This can't be done just now.", retry_after_s=2.0
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
