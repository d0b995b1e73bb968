"""A site as ``headrace serve`` runs it: a room whose visitors are sent what the group is sent."""

import json
import os
from typing import Any

import django
from django.conf import settings

PART = json.loads(os.environ["CHAOS_PART"])
settings.configure(
    SECRET_KEY="only for chaos",
    ALLOWED_HOSTS=["127.0.0.1"],
    CHANNEL_LAYERS={"default": PART["layer"]},
    INSTALLED_APPS=[],
)
django.setup()

from headrace.generic.websocket import AsyncWebsocketConsumer  # noqa: E402 - the settings first
from headrace.routing import ProtocolTypeRouter  # noqa: E402


class Visitor(AsyncWebsocketConsumer):
    """Passes everything on to its client, gaps among them."""

    groups = PART["groups"]
    capacity = 100_000

    async def chaos_message(self, event: dict[str, Any]) -> None:
        event["padding"] = len(event["padding"])
        await self.send(json.dumps(event))

    async def layer_gap(self, event: dict[str, Any]) -> None:
        await self.send(json.dumps(event))


application = ProtocolTypeRouter({"websocket": Visitor.as_asgi()})
