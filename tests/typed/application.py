"""An application as a user would write it, every function typed: mypy takes it under --strict."""

from collections.abc import Iterable
from typing import Any

from asgiref.sync import async_to_sync
from django.contrib.auth.models import AbstractBaseUser
from django.urls import path, re_path

from headrace.auth import AuthMiddlewareStack, get_user, login, logout
from headrace.consumer import AsyncConsumer, SyncConsumer
from headrace.db import database_sync_to_async
from headrace.exceptions import DenyConnection, StopConsumer
from headrace.generic.http import AsyncHttpConsumer
from headrace.generic.websocket import (
    AsyncJsonWebsocketConsumer,
    AsyncWebsocketConsumer,
    JsonWebsocketConsumer,
    WebsocketConsumer,
)
from headrace.layers import BaseChannelLayer, channel_layers, get_channel_layer
from headrace.middleware import ASGIApplication, BaseMiddleware, Receive, Scope, Send
from headrace.routing import ChannelNameRouter, ProtocolTypeRouter, URLRouter
from headrace.security.websocket import AllowedHostsOriginValidator, OriginValidator
from headrace.testing import HttpCommunicator, WebsocketCommunicator
from headrace.views import WebSocket, websocket_view


class ChatConsumer(AsyncWebsocketConsumer):
    groups = ("chat",)

    async def connect(self) -> None:
        user = await get_user(self.scope)
        if user is None:
            raise DenyConnection
        await self.accept(subprotocol=None, headers=[(b"x-chat", b"1")])

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        assert self.channel_layer is not None
        if text_data == "bye":
            await self.send(text_data="bye", close=4000)
        elif text_data is not None:
            await self.channel_layer.group_send("chat", {"type": "chat.message", "text": text_data})

    async def chat_message(self, event: dict[str, Any]) -> None:
        await self.send(text_data=event["text"])

    async def disconnect(self, code: int) -> None:
        print("left with", code)


class NoticeConsumer(WebsocketConsumer):
    groups: Iterable[str] = ("notices",)

    def connect(self) -> None:
        self.accept()
        self.send(text_data="welcome")

    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        layer = self.channel_layer
        assert layer is not None
        async_to_sync(layer.group_send)("notices", {"type": "websocket.send", "text": text_data})

    def disconnect(self, code: int) -> None:
        print("left with", code)


class ClockConsumer(AsyncJsonWebsocketConsumer):
    async def receive_json(self, content: Any, **kwargs: Any) -> None:
        await self.send_json({"echo": content})

    @classmethod
    async def decode_json(cls, text_data: str) -> Any:
        return await super().decode_json(text_data)


class MemberConsumer(JsonWebsocketConsumer):
    def receive_json(self, content: Any, **kwargs: Any) -> None:
        if content == "log out":
            async_to_sync(logout)(self.scope)
        elif isinstance(user := self.scope["user"], AbstractBaseUser):
            async_to_sync(login)(self.scope, user, backend=None)
        self.send_json({"done": content})


class NewsConsumer(AsyncHttpConsumer):
    async def handle(self, body: bytes) -> None:
        await self.send_headers(status=200, headers=[(b"content-type", b"text/plain")])
        await self.send_body(b"one", more_body=True)
        await self.send_body(body)


class ResizeConsumer(AsyncConsumer):
    async def image_resize(self, event: dict[str, Any]) -> None:
        assert self.channel_layer is not None
        await self.channel_layer.send(event["reply_to"], {"type": "image.resized"})


class PrintConsumer(SyncConsumer):
    def page_print(self, event: dict[str, Any]) -> None:
        print(event["page"])
        raise StopConsumer


@websocket_view
async def echo(socket: WebSocket, room: str, limit: int = 10) -> None:
    async with socket.group(room) as group:
        async for message in socket:
            await group.send(message[:limit])


class TokenMiddleware(BaseMiddleware):
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
        scope = dict(scope)
        scope["token"] = await self.token(scope)
        return await super().__call__(scope, receive, send)

    @database_sync_to_async
    def token(self, scope: Scope) -> str:
        return "token"


class Origins(OriginValidator):
    def match_allowed_origin(self, parsed_origin: Any, pattern: str) -> bool:
        return super().match_allowed_origin(parsed_origin, pattern)


@database_sync_to_async
def double(number: int) -> int:
    return number * 2


websockets = URLRouter(
    [
        path("chat/", ChatConsumer.as_asgi()),
        path("notices/", NoticeConsumer.as_asgi()),
        path("clock/", ClockConsumer.as_asgi()),
        path("members/", MemberConsumer.as_asgi()),
        re_path(r"^echo/(?P<room>\w+)/$", echo),
    ]
)
application: ASGIApplication = ProtocolTypeRouter(
    {
        "http": URLRouter([path("news/", NewsConsumer.as_asgi())]),
        "websocket": AllowedHostsOriginValidator(
            Origins(TokenMiddleware(AuthMiddlewareStack(websockets)), ["example.com"])
        ),
        "channel": ChannelNameRouter(
            {"resize": ResizeConsumer.as_asgi(), "print": PrintConsumer.as_asgi()}
        ),
    }
)


async def check_views_and_layers() -> int:
    layer: BaseChannelLayer | None = get_channel_layer()
    assert layer is channel_layers["default"]
    doubled: int = await double(21)
    communicator = WebsocketCommunicator(URLRouter([path("<room>/", echo)]), "/tea/")
    connected, subprotocol = await communicator.connect()
    assert connected
    assert subprotocol is None
    await communicator.send_to(text_data="hello, everybody")
    answer: str = await communicator.receive_from()
    assert answer == "hello, eve"
    await communicator.disconnect()
    response = await HttpCommunicator(NewsConsumer.as_asgi(), "POST", "/", b"two").get_response()
    assert response["body"] == b"onetwo"
    return doubled
