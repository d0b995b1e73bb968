"""A small project: what several servers, a worker and a shell of it are run from."""

import os

import django
from django.conf import settings

if not settings.configured:  # once as a program, once as a module
    settings.configure(
        SECRET_KEY="tests of the local layer",
        ASGI_APPLICATION="tests.layers.local.site.application",
        INSTALLED_APPS=["headrace"],
        CHANNEL_LAYERS={
            "default": {
                "BACKEND": "headrace.layers.LocalChannelLayer",
                "CONFIG": {"directory": os.environ["LOCAL_LAYER_DIRECTORY"]},
            }
        },
    )
    django.setup()

from headrace.consumer import AsyncConsumer
from headrace.generic.websocket import AsyncJsonWebsocketConsumer
from headrace.layers import get_channel_layer
from headrace.routing import ChannelNameRouter, ProtocolTypeRouter


class Room(AsyncJsonWebsocketConsumer):
    """Tells its client what the room hears, and has work done."""

    groups = ("room",)

    async def receive_json(self, content):
        await self.channel_layer.send("work", {"type": "work.do", "number": content})

    async def room_news(self, event):
        await self.send_json(event["news"])


class Work(AsyncConsumer):
    async def work_do(self, event):
        news = {"type": "room.news", "news": {"done": event["number"], "by": os.getpid()}}
        await self.channel_layer.group_send("room", news)


application = ProtocolTypeRouter(
    {"websocket": Room.as_asgi(), "channel": ChannelNameRouter({"work": Work.as_asgi()})}
)


if __name__ == "__main__":
    import sys

    if sys.argv[1] == "shell":  # as manage.py shell, or cron
        get_channel_layer().group_send_sync("room", {"type": "room.news", "news": sys.argv[2]})
    else:
        from django.core.management import execute_from_command_line

        execute_from_command_line(sys.argv)
