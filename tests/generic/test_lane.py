"""What only our own server does: the fast lane, and the end of the server itself."""

import asyncio
import logging

import pytest
from websockets.exceptions import ConnectionClosed

from headrace.exceptions import ChannelFull
from headrace.generic.websocket import AsyncWebsocketConsumer
from headrace.layers.losses import Losses
from headrace.protocols import websocket

from .conftest import headrace_serves, wraps_send
from .probes import AsyncProbe, Diary

MEMBERS = 200


@pytest.fixture
def encoded(monkeypatch):
    """What was put into frames of messages."""
    payloads = []
    encode_frame = websocket.encode_frame

    def noted(head, payload):
        if head & 0x0F < 0x8:
            payloads.append(payload)
        return encode_frame(head, payload)

    monkeypatch.setattr(websocket, "encode_frame", noted)
    return payloads


async def room(port, client, members=MEMBERS):
    return await asyncio.gather(
        *(client(port, max_queue=None).__aenter__() for _ in range(members))
    )


async def test_the_fast_lane_encodes_once_and_wakes_no_consumer(layer, probe, client, encoded):
    probe.groups = ["room"]
    woken = []

    async def dispatch(self, message, dispatch=probe.dispatch):
        woken.append(message["type"])
        await dispatch(self, message)

    probe.dispatch = dispatch
    async with headrace_serves(probe.as_asgi()) as port:
        sockets = await room(port, client)
        assert woken == ["websocket.connect"] * MEMBERS
        tasks = [task for task in asyncio.all_tasks() if not task.done()]
        await layer.group_send("room", {"type": "websocket.send", "text": "to all"})
        assert [await socket.recv() for socket in sockets] == ["to all"] * MEMBERS
        assert encoded == [b"to all"]
        assert woken == ["websocket.connect"] * MEMBERS
        assert not set(asyncio.all_tasks()) - set(tasks)
        await asyncio.gather(*(socket.close() for socket in sockets))


async def test_who_closes_after_a_group_send_still_gets_it(layer, client):
    class Leaver(AsyncWebsocketConsumer):
        groups = ("room",)

        async def receive(self, text_data=None, bytes_data=None):
            await layer.group_send("room", {"type": "websocket.send", "text": "farewell"})
            await self.close()

    async with headrace_serves(Leaver.as_asgi()) as port, client(port) as socket:
        await socket.send("go")
        assert await socket.recv() == "farewell"
        with pytest.raises(ConnectionClosed):
            await socket.recv()


async def test_every_wire_has_an_encoding_of_its_own(layer, client, encoded, probe):
    probe.groups = ["room"]
    async with headrace_serves(probe.as_asgi()) as port:
        plain = [await client(port, compression=None).__aenter__() for _ in range(5)]
        compressed = [await client(port).__aenter__() for _ in range(5)]
        text = "long enough to be compressed " * 100
        await layer.group_send("room", {"type": "websocket.send", "text": text})
        for socket in plain + compressed:
            assert await socket.recv() == text
            await socket.close()
    smaller, larger = sorted(encoded, key=len)
    assert len(smaller) < 100
    assert larger == text.encode()


@pytest.mark.parametrize("members", [1, 20])
async def test_a_wrapped_send_sees_what_goes_to_the_client(layer, client, members):
    """No middleware is bypassed: there, each consumer passes the event on."""
    seen = []

    class Probe(AsyncProbe):
        groups = ("room",)

        async def connect(self):
            await self.accept()

        async def disconnect(self, code):
            pass

    def sees(application):
        async def middleware(scope, receive, send):
            async def wrapped(message):
                seen.append(message["type"])
                await send(message)

            await application(scope, receive, wrapped)

        return middleware

    async with headrace_serves(sees(Probe.as_asgi())) as port:
        sockets = await room(port, client, members)
        await layer.group_send("room", {"type": "websocket.send", "text": "to all"})
        assert [await socket.recv() for socket in sockets] == ["to all"] * members
        await asyncio.gather(*(socket.close() for socket in sockets))
    assert seen.count("websocket.send") == members


async def test_fast_lane_events_may_overtake_those_that_wait_for_a_handler(layer, client):
    """As the documentation says: the two lanes have each an order of their own."""
    entered, go_on = asyncio.Event(), asyncio.Event()

    class Slow(AsyncProbe):
        groups = ("room",)

        async def connect(self):
            await self.accept()

        async def room_event(self, event):
            entered.set()
            await go_on.wait()
            await self.send(event["text"])

        async def disconnect(self, code):
            pass

    async with headrace_serves(Slow.as_asgi()) as port, client(port) as socket:
        await layer.group_send("room", {"type": "room.event", "text": "slow 1"})
        await layer.group_send("room", {"type": "room.event", "text": "slow 2"})
        await entered.wait()
        for text in ("fast 1", "fast 2"):
            await layer.group_send("room", {"type": "websocket.send", "text": text})
        assert [await socket.recv() for _ in range(2)] == ["fast 1", "fast 2"]
        go_on.set()
        assert [await socket.recv() for _ in range(2)] == ["slow 1", "slow 2"]


async def test_a_slow_consumer_has_a_bounded_inbox(layer, client, caplog):
    go_on = asyncio.Event()

    class Slow(AsyncProbe):
        groups = ("room",)

        async def connect(self):
            await self.accept()

        async def room_event(self, event):
            await go_on.wait()
            await self.send(str(event["number"]))

        async def disconnect(self, code):
            pass

    layer.capacity = 10
    async with headrace_serves(Slow.as_asgi()) as port, client(port) as socket:
        await layer.group_send("room", {"type": "room.event", "number": 0})
        while len(caplog.records) == 0:
            await asyncio.sleep(0)
            for number in range(1, 21):
                await layer.group_send("room", {"type": "room.event", "number": number})
        go_on.set()
        assert [await socket.recv() for _ in range(3)] == ["0", "1", "2"]
    assert layer.dropped >= 9
    dropped = [r for r in caplog.records if "had no room" in r.getMessage()]
    assert len(dropped) == 1, "one line a second is enough"


@pytest.mark.parametrize("wrap", [lambda app: app, wraps_send], ids=["lane", "own inbox"])
@pytest.mark.parametrize(
    ("overflow", "expected"),
    [("drop-newest", [0, 1, 2, 3]), ("drop-oldest", [0, 7, 8, 9]), ("close", None)],
)
async def test_a_consumers_policy_is_the_same_wherever_its_events_wait(
    layer, client, wrap, overflow, expected, caplog
):
    entered, go_on = asyncio.Event(), asyncio.Event()
    policy = overflow

    class Slow(AsyncProbe):
        diary = Diary()
        groups = ("room",)
        capacity = 3
        overflow = policy

        async def room_event(self, event):
            entered.set()
            await go_on.wait()
            await self.send(str(event["number"]))

    async with headrace_serves(wrap(Slow.as_asgi())) as port, client(port) as socket:
        await layer.group_send("room", {"type": "room.event", "number": 0})
        await entered.wait()
        for number in range(1, 10):
            await layer.group_send("room", {"type": "room.event", "number": number})
        if expected is None:
            async with asyncio.timeout(5):
                await socket.wait_closed()
            assert socket.close_code == 1013
            assert layer.overflows[overflow] == 1
        go_on.set()
        if expected is not None:
            heard = [int(await socket.recv()) for _ in expected]
            assert heard == expected
            assert layer.overflows[overflow] == 6
        assert "most of them Slow" in caplog.text
    if expected is None:
        assert Slow.diary.all("disconnect") == [1013]


@pytest.mark.parametrize("wrap", [lambda app: app, wraps_send], ids=["lane", "own inbox"])
async def test_an_inbox_that_was_full_still_hears_of_a_gap(layer, client, wrap):
    entered, go_on = asyncio.Event(), asyncio.Event()

    class Slow(AsyncProbe):
        diary = Diary()
        groups = ("room",)
        capacity = 3

        async def room_event(self, event):
            entered.set()
            await go_on.wait()
            await self.send("an event")

        async def layer_gap(self, event):
            await self.send(event["reason"])

    async with headrace_serves(wrap(Slow.as_asgi())) as port, client(port) as socket:
        await layer.group_send("room", {"type": "room.event"})
        await entered.wait()
        for _ in range(5):
            await layer.group_send("room", {"type": "room.event"})
        assert layer.overflows["drop-newest"] == 2
        go_on.set()
        assert [await socket.recv() for _ in range(4)] == ["an event"] * 4
        assert layer._hub.tell_gap("a reason") == 1
        assert await socket.recv() == "a reason"


async def test_a_sender_to_one_consumer_is_told_by_its_policy(layer, client):
    channel, go_on = asyncio.get_running_loop().create_future(), asyncio.Event()

    class Slow(AsyncProbe):
        diary = Diary()
        capacity = 1

        async def connect(self):
            await self.accept()
            channel.set_result(self.channel_name)

        async def room_event(self, event):
            await go_on.wait()

    async with headrace_serves(Slow.as_asgi()) as port, client(port):
        name = await channel
        for _ in range(2):  # the first is being handled, the second waits
            await layer.send(name, {"type": "room.event"})
            await asyncio.sleep(0)
        with pytest.raises(ChannelFull, match="1 messages wait for its Slow; raise capacity"):
            await layer.send(name, {"type": "room.event"})
        assert layer.dropped == 0, "the sender knows"
        go_on.set()


@pytest.mark.parametrize("wrap", [lambda app: app, wraps_send], ids=["lane", "own inbox"])
async def test_a_flood_from_the_layer_does_not_make_the_consumer_deaf(layer, client, wrap):
    """More events than it can handle, all the time: it still hears its client, and its leaving."""

    class Flooded(AsyncProbe):
        diary = Diary()
        groups = ("room",)

        async def room_event(self, event):
            for _ in range(3):
                await asyncio.sleep(0)

    async def flood():
        while True:
            for _ in range(5):  # in a turn; a handler takes three turns for one
                await layer.group_send("room", {"type": "room.event"})
            await asyncio.sleep(0)

    async with headrace_serves(wrap(Flooded.as_asgi())) as port:
        async with client(port) as socket:
            flooding = asyncio.ensure_future(flood())
            for number in range(100):  # more than the inbox holds of the client's messages
                await socket.send(f"echo {number}")
            async with asyncio.timeout(20):
                assert [await socket.recv() for _ in range(100)] == [*map(str, range(100))]
        await Flooded.diary.until("disconnect", 1000)
        flooding.cancel()
    assert layer.dropped


async def test_a_stopping_server_tells_everyone(layer, probe, client, caplog):
    probe.groups = ["room"]
    async with headrace_serves(probe.as_asgi()) as port:
        socket = await client(port).__aenter__()
    with pytest.raises(ConnectionClosed):
        await socket.recv()
    assert socket.close_code == 1001
    assert probe.diary.all("disconnect") == [1001]
    assert not layer.groups
    assert not [r for r in caplog.records if r.levelno >= logging.ERROR]


@pytest.mark.parametrize("wrap", [lambda app: app, wraps_send], ids=["lane", "own inbox"])
async def test_a_handler_that_never_ends_is_cancelled_at_the_deadline(layer, client, wrap, caplog):
    class Probe(AsyncProbe):
        diary = Diary()
        groups = ("room",)

    async with headrace_serves(wrap(Probe.as_asgi()), shutdown_timeout_s=0.2) as port:
        socket = await client(port).__aenter__()
        await socket.send("hang")
        await Probe.diary.until("hang")
    assert Probe.diary.all("disconnect") == [1001]
    assert not layer.groups
    assert not layer.channels
    assert not [r for r in caplog.records if r.levelno >= logging.ERROR]
    await socket.close()


async def test_ten_thousand_members_or_one_line_of_the_log(layer, caplog, monkeypatch):
    from headrace.testing.layers import RecordingSink

    # There is a line a second: how many those are here is up to the machine.
    monkeypatch.setattr(Losses, "REPORT_INTERVAL_S", 3600.0)
    for _ in range(10_000):
        channel = await layer.new_channel()
        layer.attach(channel, RecordingSink(room=0))
        await layer.group_add("crowd", channel)
    for _ in range(3):
        await layer.group_send("crowd", {"type": "news"})
    async with asyncio.timeout(30):
        # The last walk goes on in the turns that follow.
        while layer.dropped < 30_000:  # noqa: ASYNC110
            await asyncio.sleep(0)
    assert len(caplog.records) == 1
    assert "10000 of 10000 members" in caplog.text
