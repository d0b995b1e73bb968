"""Sends from synchronous code: no loop on the thread, and one somewhere else, or none at all."""

import asyncio
import contextlib
import gc
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.core.management import BaseCommand, call_command
from django.http import HttpResponse
from django.test import RequestFactory, TestCase

from headrace.exceptions import ChannelFull
from headrace.generic.websocket import AsyncWebsocketConsumer
from headrace.layers import BaseChannelLayer, InMemoryChannelLayer, Overflow, get_channel_layer
from headrace.layers import hub as hub_module
from headrace.layers.hub import Hub
from headrace.testing import WebsocketCommunicator
from headrace.testing.layers import RecordingSink

from .plain import GeneralLayer
from .test_hub import ElsewhereLoop


@pytest.fixture
def layer():
    return InMemoryChannelLayer()


async def in_thread(function, *arguments):
    """Run the function on a thread that nothing knows of."""
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(1) as executor:
        return await loop.run_in_executor(executor, function, *arguments)


async def member(layer, *groups, **options):
    channel, sink = await layer.new_channel(), RecordingSink(**options)
    layer.attach(channel, sink)
    for group in groups:
        await layer.group_add(group, channel)
    return channel, sink


# Where it is called


@pytest.mark.parametrize("layer_class", [InMemoryChannelLayer, GeneralLayer])
def test_without_any_loop(layer_class):
    layer = layer_class()
    channel = async_to_sync(layer.new_channel)()
    async_to_sync(layer.group_add)("room", channel)
    layer.send_sync(channel, {"type": "one"})
    reached = layer.group_send_sync("room", {"type": "two"})
    assert reached == (3 if layer_class is GeneralLayer else None)
    received = [async_to_sync(layer.receive)(channel) for _ in range(2)]
    assert received == [{"type": "one"}, {"type": "two"}]


@pytest.mark.parametrize("layer_class", [InMemoryChannelLayer, GeneralLayer])
@pytest.mark.parametrize("hop", [sync_to_async, lambda call: lambda *args: in_thread(call, *args)])
async def test_from_a_thread_beside_a_loop(layer_class, hop):
    layer = layer_class()
    await layer.group_add("room", "work")
    await hop(layer.send_sync)("work", {"type": "one"})
    await hop(layer.group_send_sync)("room", {"type": "two"})
    async with asyncio.timeout(5):
        assert [await layer.receive("work") for _ in range(2)] == [{"type": "one"}, {"type": "two"}]


@pytest.mark.parametrize("layer", [InMemoryChannelLayer(), GeneralLayer(), BaseChannelLayer()])
async def test_on_the_thread_of_a_loop_it_says_what_to_do(layer):
    with pytest.raises(RuntimeError, match=r"send_sync\(\) was called .* await send\(\) instead"):
        layer.send_sync("work", {"type": "x"})
    with pytest.raises(RuntimeError, match=r"group_send_sync\(\) .* await group_send\(\) instead"):
        layer.group_send_sync("room", {"type": "x"})


@pytest.mark.parametrize("layer", [InMemoryChannelLayer(), GeneralLayer()])
def test_mistakes_are_told(layer):
    for send, name in ((layer.send_sync, "work"), (layer.group_send_sync, "room")):
        with pytest.raises(TypeError):
            send("no name", {"type": "x"})
        with pytest.raises(TypeError):
            send(name, "text")


async def test_what_no_client_can_be_sent_is_told_with_and_without_consumers(layer):
    def send_all():
        for send, name in ((layer.send_sync, channel), (layer.group_send_sync, "room")):
            with pytest.raises(ValueError, match="text"):
                send(name, {"type": "websocket.send"})

    channel = "work"
    await layer.group_add("room", channel)
    await in_thread(send_all)
    channel, sink = await member(layer, "room")
    await in_thread(send_all)
    assert sink.transmitted == []


# To consumers on a loop


async def test_consumers_are_pushed_to_on_their_own_thread_and_in_order(layer):
    class Watching(RecordingSink):
        def put(self, event):
            threads.add(threading.get_ident())
            return super().put(event)

    threads = set()
    channel, sink = await layer.new_channel(), Watching()
    layer.attach(channel, sink)
    await layer.group_add("room", channel)

    def send_all():
        for n in range(100):
            layer.group_send_sync("room", {"type": "count", "n": n})
            layer.send_sync(channel, {"type": "count", "n": n})
            layer.group_send_sync("room", {"type": "websocket.send", "text": str(n)})
        return len(sink.events)

    # What is sent is there when the call returns.
    assert await in_thread(send_all) == 200
    assert [event["n"] for event in sink.events] == [n for n in range(100) for _ in range(2)]
    await sink.until(lambda: len(sink.transmitted) == 100)
    assert [event["text"] for event, _ in sink.transmitted] == [str(n) for n in range(100)]
    assert threads == {threading.get_ident()}


async def test_each_thread_is_heard_in_its_order(layer):
    channel, sink = await member(layer, "room")

    def talk(name):
        for n in range(50):
            layer.send_sync(channel, {"type": "count", "name": name, "n": n})
            layer.group_send_sync("room", {"type": "count", "name": name, "n": n + 0.5})

    await asyncio.gather(*(in_thread(talk, name) for name in range(4)))
    for name in range(4):
        heard = [event["n"] for event in sink.events if event["name"] == name]
        assert heard == [n / 2 for n in range(100)]


async def test_consumers_of_two_loops(layer):
    with ElsewhereLoop() as elsewhere:
        _, here = await member(layer, "room")
        channel, there = elsewhere.run(member(layer, "room"))

        def send_all():
            for n in range(20):
                layer.group_send_sync("room", {"type": "count", "n": n})
                layer.send_sync(channel, {"type": "alone", "n": n})

        await in_thread(send_all)
        elsewhere.run(there.until(lambda: len(there.events) == 40))
        assert len(here.events) == 20
        assert [event["n"] for event in there.events] == [n for n in range(20) for _ in range(2)]
        layer.detach(channel)


async def test_a_full_consumer_is_told_to_the_sender_as_its_policy_says(layer):
    dropping, _ = await member(layer, "room", room=1)
    closing, sink = await member(layer, "room", room=1, overflow=Overflow.CLOSE)

    def send_all():
        layer.group_send_sync("room", {"type": "x"})
        with pytest.raises(ChannelFull, match=dropping):
            layer.send_sync(dropping, {"type": "x"})
        layer.send_sync(closing, {"type": "x"})
        layer.group_send_sync("room", {"type": "x"})

    await in_thread(send_all)
    assert sink.closed
    assert layer.overflows == {
        Overflow.DROP_NEWEST: 1,
        Overflow.DROP_OLDEST: 0,
        Overflow.CLOSE: 1,
    }


async def test_what_is_for_a_client_joins_what_is_for_the_group(layer):
    channel, sink = await member(layer, "room")

    def send_all():
        layer.group_send_sync("room", {"type": "websocket.send", "text": "1"})
        layer.send_sync(channel, {"type": "websocket.send", "text": "2"})
        layer.send_sync("work", {"type": "websocket.send", "text": "3"})

    await in_thread(send_all)
    assert [event["text"] for event, _ in sink.transmitted] == ["1", "2"]
    assert (await layer.receive("work"))["text"] == "3"


def test_a_full_mailbox_is_told_to_the_sender():
    layer = InMemoryChannelLayer(capacity=2)
    for _ in range(2):
        layer.send_sync("work", {"type": "x"})
    with pytest.raises(ChannelFull):
        layer.send_sync("work", {"type": "x"})
    async_to_sync(layer.group_add)("room", "work")
    layer.group_send_sync("room", {"type": "x"})
    assert layer.dropped == 1


async def test_what_a_sender_changes_afterwards_nobody_sees(layer):
    _, sink = await member(layer, "room")
    message = {"type": "x", "tags": ["a"]}

    def send():
        layer.group_send_sync("room", message)
        message["tags"].append("b")

    await in_thread(send)
    assert sink.events == [{"type": "x", "tags": ["a"]}]


async def test_a_thread_that_sends_to_groups_does_not_wait_for_the_loop(layer):
    _, one = await member(layer, "room", "hall")
    _, other = await member(layer, "hall")

    def send_all():
        for n in range(20):
            layer.group_send_sync("room", {"type": "count", "n": n})
            layer.group_send_sync("hall", {"type": "count", "n": n + 0.5})

    thread = threading.Thread(target=send_all)
    thread.start()
    thread.join(5)  # and the loop stands still
    assert not thread.is_alive()
    assert one.events == []
    await one.until(lambda: len(one.events) == 40)
    assert [event["n"] for event in one.events] == [n / 2 for n in range(40)]
    assert [event["n"] for event in other.events] == [n + 0.5 for n in range(20)]


async def test_a_thread_waits_where_much_is_on_its_way(layer, monkeypatch):
    monkeypatch.setattr(hub_module, "AHEAD", 2)
    _, sink = await member(layer, "room")
    two = threading.Event()

    def send_all():
        for n in range(2):
            layer.group_send_sync("room", {"type": "count", "n": n})
        two.set()
        layer.group_send_sync("room", {"type": "count", "n": 2})
        return [event["n"] for event in sink.events]

    sent = asyncio.create_task(in_thread(send_all))
    await asyncio.sleep(0)
    assert two.wait(5)  # and the loop stands still
    assert sink.events == []
    assert await sent == [0, 1, 2]


async def test_what_is_for_a_mailbox_stays_behind_what_is_for_its_group(layer, monkeypatch):
    await member(layer, "room")
    await layer.group_add("room", "work")
    loop, delivers, abroad = asyncio.get_running_loop(), threading.Event(), Hub.abroad

    def watched(hub, *to):
        if to:
            delivers.set()
        return abroad(hub, *to)

    def send_all():
        loop.call_soon_threadsafe(delivers.wait, 5)  # until then the loop stands still
        layer.group_send_sync("room", {"type": "count", "n": 1})
        layer.send_sync("work", {"type": "count", "n": 2})

    monkeypatch.setattr(Hub, "abroad", watched)
    await in_thread(send_all)
    assert [(await layer.receive("work"))["n"] for _ in range(2)] == [1, 2]


async def test_what_goes_wrong_where_no_thread_waits_is_logged(layer, monkeypatch, caplog):
    def fail(*arguments):
        raise ValueError("broken")

    await member(layer, "room")
    monkeypatch.setattr(Hub, "publish", fail)
    await in_thread(layer.group_send_sync, "room", {"type": "x"})
    assert [record.getMessage() for record in caplog.records] == [
        "group room: an event was not published"
    ]
    assert layer._hub._ahead.count == 0


# Loops that come and go


def test_consumers_of_a_loop_that_pauses_hear_it_later(layer):
    loop = asyncio.new_event_loop()
    try:
        channel, sink = loop.run_until_complete(member(layer, "room"))
        layer.send_sync(channel, {"type": "one"})
        layer.group_send_sync("room", {"type": "two"})
        layer.group_send_sync("room", {"type": "websocket.send", "text": "three"})
        loop.run_until_complete(sink.until(lambda: sink.transmitted and len(sink.events) == 2))
    finally:
        loop.close()


def test_consumers_of_a_loop_that_is_closed_are_gone(layer):
    channel, sink = asyncio.run(member(layer, "room"))
    layer.group_send_sync("room", {"type": "x"})
    assert (layer.groups, layer.channels, sink.events) == ({}, {}, [])
    layer.send_sync(channel, {"type": "x"})
    assert len(layer.channels[channel]) == 1


def test_a_loop_that_stops_keeps_no_thread_waiting(layer, monkeypatch):
    """It has been handed the call, and ends without getting to it."""
    monkeypatch.setattr(hub_module, "LOOK_INTERVAL_S", 0.01)

    class Stopping:
        """A loop that runs when it is asked first, and never again."""

        asked = 0

        def is_running(self):
            self.asked += 1
            return self.asked <= 2

        def call_soon_threadsafe(self, call):
            self.handed = call

    channel, sink = asyncio.run(member(layer))
    stopping = layer._hub._home = Stopping()
    layer.send_sync(channel, {"type": "x"})
    assert stopping.asked == 3
    stopping.handed()
    assert sink.events == [{"type": "x"}]


def test_a_loop_that_is_closed_meanwhile(layer):
    class Closed:
        def is_running(self):
            return True

        def call_soon_threadsafe(self, call):
            raise RuntimeError("Event loop is closed")

    asyncio.run(member(layer, "room"))
    layer._hub._home = Closed()
    for _ in range(2 * hub_module.AHEAD):
        layer.group_send_sync("room", {"type": "x"})
    assert layer._hub._ahead.count == 0


@pytest.mark.parametrize("to", ["channel", "group"])
def test_a_consumer_that_comes_with_its_loop_at_that_moment(layer, monkeypatch, to):
    """The question was where to deliver, and the answer that there is no loop: now there is."""
    abroad = type(layer._hub).abroad
    channel, sinks = "specific.mine!1", []

    async def come():
        sink = RecordingSink()
        layer.attach(channel, sink)
        await layer.group_add("room", channel)
        sinks.append(sink)

    with ElsewhereLoop() as elsewhere:

        def late(hub, *arguments):
            home = abroad(hub, *arguments)
            if home is None and not sinks:
                elsewhere.run(come())
            return home

        monkeypatch.setattr(type(layer._hub), "abroad", late)
        if to == "channel":
            layer.send_sync(channel, {"type": "x"})
        else:
            layer.group_send_sync("room", {"type": "x"})
            elsewhere.run(sinks[0].until(lambda: sinks[0].events))
        assert sinks[0].events == [{"type": "x"}]


def test_a_channel_that_goes_at_that_moment_is_opened_again(layer, monkeypatch):
    opened = []
    open_channel = layer._open

    def open_and_lose(channel):
        sink = open_channel(channel)
        if not opened:
            layer.detach(channel)
        opened.append(channel)
        return sink

    monkeypatch.setattr(layer, "_open", open_and_lose)
    layer.send_sync("work", {"type": "x"})
    assert opened == ["work", "work"]
    assert len(layer.channels["work"]) == 1


async def test_a_channel_that_is_gone_has_nobody_to_be_told(layer):
    await member(layer, "room")
    for hub in (layer._hub, Hub()):
        assert await in_thread(hub.deliver_sync, "gone", {"type": "x"}) is False


# What is left


@pytest.mark.parametrize("with_consumer", [False, True])
def test_ten_thousand_calls_leave_nothing(layer, with_consumer):
    layer.capacity = 20_000
    with ElsewhereLoop() if with_consumer else contextlib.nullcontext() as elsewhere:
        if with_consumer:
            elsewhere.run(member(layer, "room"))
        threads, loops = set(threading.enumerate()), len(loops_of_this_process())
        for n in range(5_000):
            layer.group_send_sync("room", {"type": "x", "n": n})
            layer.send_sync("work", {"type": "x", "n": n})
        assert threads.issuperset(threading.enumerate())
        assert len(loops_of_this_process()) <= loops
        layer.flush_now()
        assert len(layer.channels) == with_consumer
        if with_consumer:
            assert not elsewhere.run(other_tasks())


def loops_of_this_process():
    gc.collect()
    return [one for one in gc.get_objects() if issubclass(type(one), asyncio.AbstractEventLoop)]


async def other_tasks():
    return asyncio.all_tasks() - {asyncio.current_task()}


def test_the_general_form_leaves_no_loop_and_no_thread():
    layer = GeneralLayer(capacity=1000)
    layer.send_sync("work", {"type": "x"})
    threads, loops = threading.active_count(), len(loops_of_this_process())
    for _ in range(100):
        layer.send_sync("work", {"type": "x"})
        layer.group_send_sync("room", {"type": "x"})
    assert threading.active_count() <= threads + 1  # the last may not quite have ended
    assert len(loops_of_this_process()) <= loops


# From the places of a project


class NewsConsumer(AsyncWebsocketConsumer):
    groups = ("news",)

    async def news_item(self, event):
        await self.send(event["title"])


def view(request):
    get_channel_layer().group_send_sync("news", {"type": "news.item", "title": request.path})
    return HttpResponse("sent")


class Announce(BaseCommand):
    def add_arguments(self, parser):
        parser.add_argument("title")

    def handle(self, title, **options):
        get_channel_layer().group_send_sync("news", {"type": "news.item", "title": title})


async def test_from_views_in_threads_as_wsgi_servers_have_them(channel_layer):
    communicator = WebsocketCommunicator(NewsConsumer.as_asgi(), "/")
    await communicator.connect()
    requests = [RequestFactory().get(f"/{n}") for n in range(20)]
    with ThreadPoolExecutor(4) as executor:
        loop = asyncio.get_running_loop()
        await asyncio.gather(*(loop.run_in_executor(executor, view, each) for each in requests))
    heard = {await communicator.receive_from() for _ in range(20)}
    assert heard == {f"/{n}" for n in range(20)}
    await communicator.disconnect()


async def test_from_a_management_command(channel_layer):
    communicator = WebsocketCommunicator(NewsConsumer.as_asgi(), "/")
    await communicator.connect()
    await sync_to_async(call_command)(Announce(), "now")
    assert await communicator.receive_from() == "now"
    await communicator.disconnect()


def test_from_a_management_command_where_nobody_listens(channel_layer):
    call_command(Announce(), "now")


@pytest.mark.django_db
class TestInATestCase(TestCase):
    async def test_of_consumers(self):
        communicator = WebsocketCommunicator(NewsConsumer.as_asgi(), "/")
        await communicator.connect()
        await sync_to_async(view)(RequestFactory().get("/page"))
        assert await communicator.receive_from() == "/page"
        await communicator.disconnect()

    def test_of_views(self):
        assert view(RequestFactory().get("/page")).content == b"sent"
