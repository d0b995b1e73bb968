"""The site under load: rooms whose visitors hear each other, both kinds of consumers, and HTTP."""

import asyncio
import json
import os
from typing import Any

import django
from django.conf import settings

settings.configure(
    SECRET_KEY="only for a soak",
    ALLOWED_HOSTS=["127.0.0.1", "localhost"],
    CHANNEL_LAYERS={"default": {"BACKEND": "headrace.layers.local.LocalChannelLayer"}},
    INSTALLED_APPS=[],
)
django.setup()

from asgiref.sync import async_to_sync  # noqa: E402 - the settings first
from django.urls import path  # noqa: E402

from headrace.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer  # noqa: E402
from headrace.layers import get_channel_layer  # noqa: E402
from headrace.routing import ProtocolTypeRouter, URLRouter  # noqa: E402

#: So many bytes are lost for ever at each message: how the judge is shown a leak.
LEAK_BYTES = int(os.environ.get("SOAK_LEAK_BYTES", "0"))
leaked: list[bytearray] = []


class Visitor(AsyncWebsocketConsumer):
    """Says to its room what its client says; ``!`` is answered by a handler of its own."""

    async def connect(self) -> None:
        self.room = self.scope["url_route"]["kwargs"]["room"]
        await self.channel_layer.group_add(self.room, self.channel_name)
        await self.accept()

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        if LEAK_BYTES:
            leaked.append(bytearray(LEAK_BYTES))
        if bytes_data is not None:
            await self.send(bytes_data=bytes_data)
        elif text_data is not None and text_data.startswith("!"):
            await self.channel_layer.group_send(self.room, {"type": "told", "text": text_data})
        else:
            event = {"type": "websocket.send", "text": text_data}
            await self.channel_layer.group_send(self.room, event)

    async def told(self, event: dict[str, Any]) -> None:
        await self.send(event["text"])

    async def disconnect(self, code: int) -> None:
        await self.channel_layer.group_discard(self.room, self.channel_name)


class SyncVisitor(WebsocketConsumer):
    """The same in ordinary functions, which run in threads."""

    def connect(self) -> None:
        self.room = self.scope["url_route"]["kwargs"]["room"]
        async_to_sync(self.channel_layer.group_add)(self.room, self.channel_name)
        self.accept()

    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        if bytes_data is not None:
            self.send(bytes_data=bytes_data)
        else:
            event = {"type": "websocket.send", "text": text_data}
            async_to_sync(self.channel_layer.group_send)(self.room, event)

    def told(self, event: dict[str, Any]) -> None:
        self.send(event["text"])

    def disconnect(self, code: int) -> None:
        async_to_sync(self.channel_layer.group_discard)(self.room, self.channel_name)


async def http(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Give back what was sent; ``/vitals`` says what this process holds."""
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body += message.get("body", b"")
        if not message.get("more_body", False):
            break
    if scope["path"] == "/vitals":
        layer = get_channel_layer()
        body = json.dumps(
            {
                "pid": os.getpid(),
                "tasks": len(asyncio.all_tasks()),
                "groups": len(layer.groups),
                "channels": len(layer.channels),
            }
        ).encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


application = ProtocolTypeRouter(
    {
        "http": http,
        "websocket": URLRouter(
            [
                path("room/<str:room>", Visitor.as_asgi()),
                path("sync/<str:room>", SyncVisitor.as_asgi()),
            ]
        ),
    }
)
