"""The site under attack: it does what sites do, and trusts its clients more than it should."""

import asyncio
from typing import Any
from urllib.parse import parse_qs

import django
from django.conf import settings

settings.configure(
    SECRET_KEY="only for attacks",
    ALLOWED_HOSTS=["localhost", "127.0.0.1"],
    CHANNEL_LAYERS={"default": {"BACKEND": "headrace.layers.InMemoryChannelLayer"}},
    INSTALLED_APPS=[],
)
django.setup()

from django.urls import path  # noqa: E402

from headrace.generic.websocket import AsyncWebsocketConsumer  # noqa: E402 - the settings first
from headrace.layers import get_channel_layer  # noqa: E402
from headrace.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from headrace.security.websocket import AllowedHostsOriginValidator  # noqa: E402

BIG = b"x" * 65536
#: What each member of the feed is sent, as fast as the server can.
PIECE = "news " * 800


class Echo(AsyncWebsocketConsumer):
    """Gives back what it gets."""

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.send(text_data=text_data, bytes_data=bytes_data)


class Sink(AsyncWebsocketConsumer):
    """Takes what it gets."""

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        pass


class Feed(AsyncWebsocketConsumer):
    """Is sent the news, without end."""

    groups = ("feed",)
    task: asyncio.Task[None] | None = None
    readers = 0

    async def connect(self) -> None:
        await self.accept()
        Feed.readers += 1
        if Feed.task is None:
            Feed.task = asyncio.create_task(self.broadcast())

    async def disconnect(self, code: int) -> None:
        Feed.readers -= 1

    @staticmethod
    async def broadcast() -> None:
        layer = get_channel_layer()
        while Feed.readers:
            for _ in range(16):
                await layer.group_send("feed", {"type": "websocket.send", "text": PIECE})
            await asyncio.sleep(0)  # as fast as the loop goes round
        Feed.task = None


async def naive(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Accept with the subprotocol and the header that the query string asks for."""
    wishes = parse_qs(scope["query_string"].decode())
    await receive()
    message: dict[str, Any] = {"type": "websocket.accept"}
    if "subprotocol" in wishes:
        message["subprotocol"] = wishes["subprotocol"][0]
    if "header" in wishes:
        message["headers"] = [(b"x-echo", wishes["header"][0].encode())]
    await send(message)
    await receive()


async def http(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """``/``: how many bytes were sent; ``/redirect``: where the query says; ``/big``: no end."""
    start: dict[str, Any] = {"type": "http.response.start", "status": 200, "headers": []}
    if scope["path"] == "/big":
        await send(start)
        while True:
            await send({"type": "http.response.body", "body": BIG, "more_body": True})
    if scope["path"] == "/redirect":
        wishes = parse_qs(scope["query_string"].decode())
        start |= {"status": 302, "headers": [(b"location", wishes["to"][0].encode())]}
        await send(start)
        await send({"type": "http.response.body", "body": b""})
        return
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        size += len(message.get("body", b""))
        if not message.get("more_body", False):
            break
    await send(start)
    answer = b"smuggled" if scope["path"] == "/smuggled" else b"%d bytes" % size
    await send({"type": "http.response.body", "body": answer})


application = ProtocolTypeRouter(
    {
        "http": http,
        "websocket": URLRouter(
            [
                path("echo", Echo.as_asgi()),
                path("sink", Sink.as_asgi()),
                path("feed", Feed.as_asgi()),
                path("naive", naive),
                path("private", AllowedHostsOriginValidator(Echo.as_asgi())),
            ]
        ),
    }
)
