import asyncio
import contextlib

import pytest
from django.test import SimpleTestCase, override_settings

from headrace.generic.websocket import AsyncWebsocketConsumer
from headrace.layers import get_channel_layer
from headrace.testing import LeftOpenWarning, WebsocketCommunicator, fresh_channel_layer
from tests.layers.plain import PlainLayer


class Room(AsyncWebsocketConsumer):
    groups = ("room",)


class InATestCase(SimpleTestCase):
    def setUp(self):
        self.layer = self.enterContext(fresh_channel_layer())

    async def test_it_is_the_one_that_all_use(self):
        assert get_channel_layer() is self.layer
        communicator = WebsocketCommunicator(Room.as_asgi(), "/")
        await communicator.connect()
        await self.layer.group_send("room", {"type": "websocket.send", "text": "hello"})
        assert await communicator.receive_from() == "hello"
        await communicator.disconnect()


def test_the_one_from_before_comes_back_whatever_happens():
    before = get_channel_layer()
    with contextlib.suppress(LookupError), fresh_channel_layer() as layer:
        assert get_channel_layer() is layer is not before
        raise LookupError
    assert get_channel_layer() is before


class Minimal(PlainLayer):
    extensions = ("groups",)


@override_settings(CHANNEL_LAYERS={"default": {"BACKEND": f"{__name__}.Minimal"}})
def test_a_layer_that_has_nothing_to_end():
    with fresh_channel_layer() as layer:
        assert type(layer) is Minimal


def test_another_alias():
    layers = {name: {"BACKEND": "headrace.layers.InMemoryChannelLayer"} for name in ("a", "b")}
    with override_settings(CHANNEL_LAYERS=layers), fresh_channel_layer("b") as layer:
        assert get_channel_layer("b") is layer
        assert get_channel_layer("a") is not layer


def test_who_is_left_behind_is_told_of():
    with asyncio.Runner() as runner:
        fresh = fresh_channel_layer()
        layer = fresh.__enter__()
        left = WebsocketCommunicator(Room.as_asgi(), "/")
        runner.run(left.connect())
        assert layer.groups
        with pytest.warns(LeftOpenWarning, match="1 consumers are still attached"):
            fresh.__exit__(None, None, None)
        assert not layer.groups


def test_messages_that_nobody_reads_are_no_leak(recwarn):
    async def use(layer):
        await layer.group_add("room", "a-channel")
        await layer.group_send("room", {"type": "news"})

    with fresh_channel_layer() as layer:
        asyncio.run(use(layer))
    assert not layer.channels
    assert not recwarn
