"""One channel layer, kept from test to test, each of which has an event loop of its own."""

import asyncio
import gc

import pytest
from asgiref.sync import async_to_sync

from headrace.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from headrace.testing import WebsocketCommunicator


class Room(AsyncWebsocketConsumer):
    groups = ("room",)

    async def receive(self, text_data=None, bytes_data=None):
        await self.channel_layer.group_send("room", {"type": "said", "text": text_data})

    async def said(self, event):
        await self.send(event["text"])


class SyncRoom(WebsocketConsumer):
    groups = ("room",)

    def receive(self, text_data=None, bytes_data=None):
        async_to_sync(self.channel_layer.group_send)("room", {"type": "said", "text": text_data})

    def said(self, event):
        self.send(event["text"])


rooms = pytest.mark.parametrize("room", [Room.as_asgi(), SyncRoom.as_asgi()])


async def talk(layer, room):
    ada, grace = (WebsocketCommunicator(room, "/") for _ in range(2))
    for socket in (ada, grace):
        assert await socket.connect() == (True, None)
    await ada.send_to("hello")
    assert [await ada.receive_from(), await grace.receive_from()] == ["hello", "hello"]
    await layer.group_send("room", {"type": "websocket.send", "text": "direct"})
    assert [await ada.receive_from(), await grace.receive_from()] == ["direct", "direct"]
    return ada, grace


@rooms
def test_closed_loops_leave_nothing_behind(layer, room):
    for _ in range(3):
        asyncio.run(talk(layer, room))
        assert not layer.groups
        assert not layer.channels


@rooms
def test_loops_that_pause_and_go_on(layer, room):
    with asyncio.Runner() as first, asyncio.Runner() as second:
        ada, grace = first.run(talk(layer, room))
        _, joan = second.run(talk(layer, room))
        assert [first.run(ada.receive_from()) for _ in range(2)] == ["hello", "direct"]
        first.run(grace.send_to("again"))
        assert first.run(ada.receive_from()) == "again"
        assert second.run(joan.receive_from()) == "again"
        for runner, socket in ((first, ada), (first, grace), (second, joan)):
            runner.run(socket.disconnect())


def test_a_reader_of_a_loop_that_is_gone_takes_no_message(layer):
    loop = asyncio.new_event_loop()
    reading = loop.create_task(layer.receive("a-channel"))
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()

    async def test():
        await layer.send("a-channel", {"type": "news"})
        return await layer.receive("a-channel")

    assert asyncio.run(test()) == {"type": "news"}
    reading._log_destroy_pending = False
    reading.get_coro().close()


def test_synchronous_tests(layer):
    async_to_sync(layer.group_add)("room", "a-channel")
    async_to_sync(layer.group_send)("room", {"type": "news"})
    assert async_to_sync(layer.receive)("a-channel") == {"type": "news"}
    async_to_sync(talk)(layer, Room.as_asgi())
    async_to_sync(layer.flush)()
    assert not layer.channels


def test_a_communicator_belongs_to_one_loop(layer):
    socket = WebsocketCommunicator(Room.as_asgi(), "/")
    async_to_sync(socket.connect)()
    for call in (socket.receive_from, socket.disconnect, socket.receive_nothing):
        with pytest.raises(RuntimeError, match="began on another event loop"):
            async_to_sync(call)()


def complaints(caplog):
    """Return what asyncio says of tasks of ours that nobody has ended."""
    gc.collect()
    messages = [record.getMessage() for record in caplog.records]
    return [message for message in messages if "headrace communicator" in message]


async def test_who_is_forgotten_is_cancelled(layer, caplog):
    socket = WebsocketCommunicator(Room.as_asgi(), "/")
    await socket.connect()
    assert layer.groups
    del socket
    async with asyncio.timeout(5):
        while layer.groups:  # noqa: ASYNC110 - nobody is left who could tell
            await asyncio.sleep(0)
    assert complaints(caplog) == []


def test_who_is_forgotten_after_its_loop_is_no_trouble(layer, caplog):
    socket = WebsocketCommunicator(Room.as_asgi(), "/")
    asyncio.run(socket.connect())
    del socket
    assert complaints(caplog) == []
