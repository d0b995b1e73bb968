"""A consumer's own inbox: what it has where our server's lane is out of reach."""

import asyncio

import pytest

from headrace._lane import OwnInbox, pulled_losses
from headrace.consumer import AsyncConsumer, Overflow
from headrace.exceptions import ChannelFull
from headrace.generic.http import AsyncHttpConsumer
from headrace.generic.websocket import AsyncWebsocketConsumer
from headrace.layers import channel_layers
from headrace.layers.base import Bounds
from headrace.testing import HttpCommunicator, WebsocketCommunicator

from .layers.plain import PlainLayer

pytestmark = pytest.mark.usefixtures("layer")


async def turns(number=20):
    for _ in range(number):
        await asyncio.sleep(0)


class Gated(AsyncWebsocketConsumer):
    groups = ("room",)
    gate = None
    seen = None

    async def receive(self, text_data=None, bytes_data=None):
        self.seen.append(text_data)
        await self.gate.wait()

    async def room_event(self, event):
        self.seen.append(event["number"])

    async def disconnect(self, code):
        self.seen.append("disconnect")


@pytest.fixture
def gated():
    return type("TestGated", (Gated,), {"gate": asyncio.Event(), "seen": []})


async def test_the_client_is_not_read_faster_than_its_messages_are_handled(gated):
    read = []
    events = [{"type": "websocket.connect"}]
    events += [{"type": "websocket.receive", "text": str(number)} for number in range(50)]
    events += [{"type": "websocket.disconnect", "code": 1000}]

    async def receive():
        read.append(events[len(read)])
        return read[-1]

    async def send(message):
        pass

    running = asyncio.ensure_future(gated.as_asgi()({"type": "websocket"}, receive, send))
    await turns(100)
    assert gated.seen == ["0"]
    assert len(read) < 10
    gated.gate.set()
    await running
    assert gated.seen == [*map(str, range(50)), "disconnect"]


async def test_a_flood_from_the_layer_does_not_hold_up_the_client(gated, layer):
    communicator = WebsocketCommunicator(gated.as_asgi(), "/")
    await communicator.connect()
    await communicator.send_to("stop here")
    await turns()
    for number in range(150):
        await layer.group_send("room", {"type": "room.event", "number": number})
    assert layer.dropped == 50
    gated.gate.set()
    await communicator.disconnect()
    assert gated.seen == ["stop here", *range(100), "disconnect"]


async def test_what_waits_for_the_client_is_bounded(layer):
    held = asyncio.Event()

    class Held(AsyncWebsocketConsumer):
        groups = ("room",)

        async def receive(self, text_data=None, bytes_data=None):
            await held.wait()

    communicator = WebsocketCommunicator(Held.as_asgi(), "/")
    await communicator.connect()
    await communicator.send_to("hold")
    await turns()
    for number in range(130):
        await layer.group_send("room", {"type": "websocket.send", "text": str(number)})
    await turns()
    assert layer.dropped == 30
    held.set()
    assert [await communicator.receive_from() for _ in range(100)] == [*map(str, range(100))]
    await communicator.disconnect()


async def test_events_for_somebody_who_is_gone_are_not_missed(layer, caplog):
    held = asyncio.Event()

    class Held(AsyncWebsocketConsumer):
        groups = ("room",)

        async def disconnect(self, code):
            for _ in range(200):
                await self.channel_layer.send(self.channel_name, {"type": "late"})
                await self.channel_layer.send(
                    self.channel_name, {"type": "websocket.send", "text": "late"}
                )

    communicator = WebsocketCommunicator(Held.as_asgi(), "/")
    await communicator.connect()
    held.set()
    await communicator.disconnect()
    assert layer.dropped == 0
    assert not caplog.records


async def test_an_event_for_the_client_may_come_too_late(layer):
    """Between the close and its arrival: it is dropped, and nobody sees an error."""

    class Closes(AsyncWebsocketConsumer):
        groups = ("room",)

        async def receive(self, text_data=None, bytes_data=None):
            await self.channel_layer.group_send("room", {"type": "websocket.send", "text": "x"})
            await self.close()

    communicator = WebsocketCommunicator(Closes.as_asgi(), "/")
    await communicator.connect()
    await communicator.send_to("go")
    assert await communicator.receive_output() == {"type": "websocket.close"}
    await communicator.disconnect()
    assert await communicator.receive_nothing(timeout=0.01)


async def test_a_server_that_fails_to_receive_fails_the_consumer():
    async def receive():
        raise ConnectionAbortedError("the server's own trouble")

    with pytest.raises(ConnectionAbortedError):
        await AsyncConsumer.as_asgi()({"type": "test"}, receive, None)


# A layer that only pulls


@pytest.fixture
def plain():
    layer = PlainLayer()
    old = channel_layers.set("default", layer)
    yield layer
    channel_layers.set("default", old)


async def test_a_layer_is_not_pulled_faster_than_its_messages_are_handled(plain, gated):
    communicator = WebsocketCommunicator(gated.as_asgi(), "/")
    await communicator.connect()
    await communicator.send_to("hold")
    await turns()
    for number in range(100):
        await plain.group_send("room", {"type": "room.event", "number": number})
    await turns(500)
    # What the consumer has not fetched waits in the layer, which knows what is too much.
    for number in range(100, 200):
        await plain.group_send("room", {"type": "room.event", "number": number})
    gated.gate.set()
    await communicator.disconnect()
    assert gated.seen[:2] == ["hold", 0]
    numbers = [entry for entry in gated.seen if isinstance(entry, int)]
    assert numbers == sorted(numbers)


async def test_a_layer_that_loses_a_cancellation_is_told_again(monkeypatch):
    monkeypatch.setattr(OwnInbox, "STOP_AGAIN_S", 0)
    lost = []

    class Deaf(PlainLayer):
        async def receive(self, channel):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                lost.append(channel)
                await asyncio.Event().wait()

    class Failing(AsyncHttpConsumer):
        async def handle(self, body):
            await turns()
            raise LookupError("no such page")

    channel_layers.set("default", Deaf())
    communicator = HttpCommunicator(Failing.as_asgi(), "GET", "/")
    with pytest.raises(LookupError):
        await communicator.get_response()
    assert len(lost) == 1


async def test_events_for_the_client_before_the_accept_of_a_pulling_layer(
    plain, caplog, monkeypatch
):
    monkeypatch.setattr(pulled_losses, "_next_report", 0.0)
    gate = asyncio.Event()
    lost = pulled_losses.total

    class Late(AsyncWebsocketConsumer):
        groups = ("room",)

        async def connect(self):
            await gate.wait()
            await self.accept()

    communicator = WebsocketCommunicator(Late.as_asgi(), "/")
    connecting = asyncio.ensure_future(communicator.connect())
    await turns()
    for number in range(40):
        await plain.group_send("room", {"type": "websocket.send", "text": str(number)})
    await turns(200)
    gate.set()
    assert (await connecting)[0]
    assert [await communicator.receive_from() for _ in range(32)] == [*map(str, range(32))]
    await communicator.disconnect()
    assert pulled_losses.total - lost == 8
    assert len(caplog.records) == 1
    assert "most of them Late: dropped there" in caplog.text


async def test_a_layer_that_fails_ends_the_consumer_aloud(plain, monkeypatch):
    """What it lost nobody knows: the client has to come again, and ask."""
    failing = asyncio.Event()

    async def receive(channel):
        await failing.wait()
        raise ConnectionResetError("the broker is away")

    monkeypatch.setattr(plain, "receive", receive)
    ends = []

    class Notes(AsyncWebsocketConsumer):
        async def disconnect(self, code):
            ends.append(code)

    communicator = WebsocketCommunicator(Notes.as_asgi(), "/")
    await communicator.connect()
    failing.set()
    with pytest.raises(ConnectionResetError):
        await communicator.receive_output()
    assert ends == [1011]


# Overflow


class Slow(AsyncWebsocketConsumer):
    """Holds the first event until it may go on."""

    groups = ("room",)
    capacity = 3
    go_on = None
    seen = None

    async def room_event(self, event):
        self.seen.append(event["number"])
        await self.go_on.wait()

    async def receive(self, text_data=None, bytes_data=None):
        self.seen.append(text_data)

    async def disconnect(self, code):
        self.seen.append("disconnect")


@pytest.fixture(params=["pushed", "pulled"])
def way(request, layer):
    """A layer that pushes, and one from which the consumer pulls."""
    if request.param == "pulled":
        channel_layers.set("default", PlainLayer())
    return request.param


@pytest.fixture
def counts(way, layer, monkeypatch):
    """How many events met each policy, since the test began."""
    monkeypatch.setattr(pulled_losses, "_next_report", 0.0)  # another test may have been told
    losses = pulled_losses if way == "pulled" else layer._hub.losses
    before = losses.counts.copy()
    return lambda: {
        str(policy): count - before[policy]
        for policy, count in losses.counts.items()
        if count - before[policy]
    }


async def overflow(policy):
    """Send it ten events, of which it begins with the first."""
    slow = type("TestSlow", (Slow,), {"overflow": policy, "go_on": asyncio.Event(), "seen": []})
    communicator = WebsocketCommunicator(slow.as_asgi(), "/")
    await communicator.connect()
    await channel_layers["default"].group_send("room", {"type": "room.event", "number": 0})
    while not slow.seen:  # noqa: ASYNC110 - it is a consumer without an event to wait for
        await asyncio.sleep(0)
    await communicator.send_to("hello")
    await turns()
    for number in range(1, 10):
        await channel_layers["default"].group_send("room", {"type": "room.event", "number": number})
        await turns(5)
    return slow, communicator


async def test_drop_oldest_keeps_the_last(way, counts, caplog):
    slow, communicator = await overflow("drop-oldest")
    slow.go_on.set()
    await communicator.disconnect()
    assert slow.seen == [0, "hello", 7, 8, 9, "disconnect"]
    assert counts() == {"drop-oldest": 6}
    [record] = caplog.records
    assert "most of them TestSlow: taken there in the place of the oldest" in record.getMessage()


async def test_close_ends_it_with_1013(way, counts, caplog):
    slow, communicator = await overflow(Overflow.CLOSE)
    assert await communicator.receive_output() == {
        "type": "websocket.close",
        "code": 1013,
        "reason": "too many events are waiting",
    }
    slow.go_on.set()
    await communicator.disconnect(1013)
    assert slow.seen[:2] == [0, "hello"]
    assert slow.seen[-1] == "disconnect"
    assert counts()["close"] >= 1
    assert "most of them TestSlow: the connection was closed with 1013" in caplog.text


async def test_drop_newest_keeps_the_first(layer, caplog):
    slow, communicator = await overflow(Overflow.DROP_NEWEST)
    slow.go_on.set()
    await communicator.disconnect()
    assert slow.seen == [0, "hello", 1, 2, 3, "disconnect"]
    assert layer.overflows == {"drop-newest": 6, "drop-oldest": 0, "close": 0}
    assert "most of them TestSlow: dropped there" in caplog.text


async def test_a_layer_that_is_pulled_keeps_what_has_no_room_yet():
    """With drop-newest: it has a bound of its own, and counts by itself."""
    channel_layers.set("default", PlainLayer())
    slow, communicator = await overflow(Overflow.DROP_NEWEST)
    slow.go_on.set()
    await turns(50)
    await communicator.disconnect()
    assert slow.seen == [0, "hello", *range(1, 10), "disconnect"]


async def test_one_that_is_not_accepted_yet_is_refused(layer):
    gate = asyncio.Event()

    class Late(AsyncWebsocketConsumer):
        groups = ("room",)
        capacity = 1
        overflow = "close"

        async def connect(self):
            await gate.wait()
            await self.accept()

    communicator = WebsocketCommunicator(Late.as_asgi(), "/")
    connecting = asyncio.ensure_future(communicator.connect())
    await turns()
    for _ in range(3):
        await layer.group_send("room", {"type": "room.event"})
    assert await connecting == (False, 1013)
    gate.set()
    await communicator.disconnect(1006)


async def test_a_stream_that_cannot_keep_up_is_cut_off(layer):
    """There is no close code for it: the consumer ends with an error."""
    begun, gate = asyncio.Event(), asyncio.Event()

    class News(AsyncHttpConsumer):
        capacity = 1
        overflow = "close"

        async def handle(self, body):
            await self.channel_layer.group_add("news", self.channel_name)
            await self.send_headers()
            await self.send_body(b"", more_body=True)
            begun.set()

        async def news_item(self, event):
            await gate.wait()

    communicator = HttpCommunicator(News.as_asgi(), "GET", "/")
    answering = asyncio.ensure_future(communicator.get_response())
    await begun.wait()
    for _ in range(2):
        await layer.group_send("news", {"type": "news.item"})
        await turns()
    await layer.group_send("news", {"type": "news.item"})
    gate.set()
    with pytest.raises(ChannelFull):
        await answering
    assert layer.overflows["close"] == 1


async def test_an_answer_that_was_begun_is_not_cut_off(layer):
    """A denial of the application's own is on its way: it ends the connection by itself."""
    sent = []

    async def receive():
        return await asyncio.Event().wait()

    async def send(message):
        sent.append(message["type"])

    inbox = OwnInbox({"type": "websocket"}, receive, send, Bounds(1, Overflow.CLOSE), bypass=True)
    assert inbox.connecting
    await inbox.send({"type": "websocket.http.response.start"})
    assert not inbox.connecting
    assert inbox.put({"type": "a"}) is True
    assert inbox.put({"type": "b"}) is Overflow.CLOSE
    await inbox.send({"type": "websocket.http.response.body", "more_body": True})
    assert not inbox.over
    await inbox.send({"type": "websocket.http.response.body"})
    assert inbox.over
    with pytest.raises(OSError, match="the WebSocket is closed"):
        await inbox.send({"type": "websocket.accept"})
    await inbox.end(1000)
    assert sent == ["websocket.http.response.start", *["websocket.http.response.body"] * 2]


async def test_a_consumer_that_handles_what_is_for_the_client_has_the_same_bounds(layer, caplog):
    go_on = asyncio.Event()

    class Own(AsyncWebsocketConsumer):
        groups = ("room",)
        capacity = 2

        async def websocket_send(self, event):
            await go_on.wait()

    communicator = WebsocketCommunicator(Own.as_asgi(), "/")
    await communicator.connect()
    for _ in range(2):
        for number in range(3):
            await layer.group_send("room", {"type": "websocket.send", "text": str(number)})
        await turns()
    assert layer.overflows["drop-newest"] == 3
    assert "most of them Own" in caplog.text
    go_on.set()
    await communicator.disconnect()
