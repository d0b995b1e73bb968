"""A Django site on Channels, as its documentation would have you write it."""

import os

import django

os.environ["DJANGO_SETTINGS_MODULE"] = "site_settings"
os.environ["BENCHMARK_LAYER"] = "channels.layers.InMemoryChannelLayer"
django.setup()

from channels.auth import AuthMiddlewareStack
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from django.urls import path


class Echo(AsyncWebsocketConsumer):
    async def receive(self, text_data=None, bytes_data=None):
        await self.send(text_data)


class Room(AsyncWebsocketConsumer):
    groups = ["room"]

    async def receive(self, text_data=None, bytes_data=None):
        await self.channel_layer.group_send("room", {"type": "chat.message", "text": text_data})

    async def chat_message(self, event):
        await self.send(event["text"])


class PrivateRoom(Room):
    async def connect(self):
        if self.scope["user"].is_authenticated:
            await self.accept()
        else:
            await self.close()


application = ProtocolTypeRouter(
    {
        "websocket": URLRouter(
            [
                path("echo/", Echo.as_asgi()),
                path("room/", Room.as_asgi()),
                path("private/", AuthMiddlewareStack(PrivateRoom.as_asgi())),
            ]
        )
    }
)
