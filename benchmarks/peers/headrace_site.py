"""The same Django site on Headrace, and a room that uses the fast lane."""

import os

import django

os.environ["DJANGO_SETTINGS_MODULE"] = "site_settings"
os.environ["BENCHMARK_LAYER"] = "headrace.layers.InMemoryChannelLayer"
django.setup()

from django.urls import path
from stall import Stall

from headrace.auth import AuthMiddlewareStack
from headrace.generic.websocket import AsyncWebsocketConsumer
from headrace.routing import ProtocolTypeRouter, URLRouter


class Echo(AsyncWebsocketConsumer):
    async def receive(self, text_data=None, bytes_data=None):
        await self.send(text_data)


class Room(AsyncWebsocketConsumer):
    groups = ["room"]

    async def receive(self, text_data=None, bytes_data=None):
        await self.channel_layer.group_send("room", {"type": "chat.message", "text": text_data})

    async def chat_message(self, event):
        await self.send(event["text"])


class FastRoom(AsyncWebsocketConsumer):
    groups = ["room"]

    async def receive(self, text_data=None, bytes_data=None):
        await self.channel_layer.group_send("room", {"type": "websocket.send", "text": text_data})


class PrivateRoom(Room):
    async def connect(self):
        if self.scope["user"].is_authenticated:
            await self.accept()
        else:
            await self.close()


class StallTeller(AsyncWebsocketConsumer):
    async def connect(self):
        self.stall = Stall()
        await self.accept()

    async def receive(self, text_data=None, bytes_data=None):
        await self.send(self.stall.asked())

    async def disconnect(self, code):
        self.stall.end()


application = ProtocolTypeRouter(
    {
        "websocket": URLRouter(
            [
                path("echo/", Echo.as_asgi()),
                path("room/", Room.as_asgi()),
                path("fast/", FastRoom.as_asgi()),
                path("stall/", StallTeller.as_asgi()),
                path("private/", AuthMiddlewareStack(PrivateRoom.as_asgi())),
            ]
        )
    }
)
