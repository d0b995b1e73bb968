"""What ``on_error`` may do about an error, in the asynchronous classes and in the others."""

import asyncio
import logging

import pytest
from websockets.exceptions import InvalidStatus

from headrace.exceptions import StopConsumer
from headrace.generic.http import AsyncHttpConsumer
from headrace.generic.websocket import (
    AsyncJsonWebsocketConsumer,
    AsyncWebsocketConsumer,
    WebsocketConsumer,
)
from headrace.layers import channel_layers
from headrace.testing import HttpCommunicator, WebsocketCommunicator

from .probes import AsyncProbe, Diary, SyncProbe, Trouble
from .test_roads import closed, errors, gone

ROADS = pytest.mark.parametrize("road", ["headrace", "uvicorn"])


class AsyncSettles(AsyncProbe):
    hook = "settle"

    async def on_error(self, error, message):
        self.diary.note("error", str(error), message["type"])
        match self.hook:
            case "settle":
                await self.send(f"sorry: {error}")
            case "pass":
                pass
            case "raise":
                raise error
            case "another":
                raise LookupError("in the hook")
            case "stop":
                raise StopConsumer
            case "accept":
                await self.accept()
            case "deny":
                await self.deny(418, "short and stout")


class SyncSettles(SyncProbe):
    hook = "settle"

    def on_error(self, error, message):
        self.diary.note("error", str(error), message["type"])
        match self.hook:
            case "settle":
                self.send(f"sorry: {error}")
            case "pass":
                pass
            case "raise":
                raise error
            case "another":
                raise LookupError("in the hook")
            case "stop":
                raise StopConsumer
            case "accept":
                self.accept()
            case "deny":
                self.deny(418, "short and stout")


@pytest.fixture(params=[AsyncSettles, SyncSettles], ids=["async", "sync"])
async def probe(request):
    return type("Settles", (request.param,), {"diary": Diary(), "groups": ["room"]})


def asked(probe):
    return [entry[1:] for entry in probe.diary.entries if entry[0] == "error"]


def seen(page):
    return [entry for entry in page.diary.entries if entry != ("begun",)]


@ROADS
async def test_a_settled_error_ends_nothing(serve, probe, client, layer, caplog):
    async with serve(probe.as_asgi()) as port, client(port) as socket:
        await socket.send("fail")
        assert await socket.recv() == "sorry: in receive"
        await layer.group_send("room", {"type": "chat.fail"})
        assert await socket.recv() == "sorry: in a handler"
        await socket.send("echo still here")
        assert await socket.recv() == "still here"
        await socket.close(4000)
        await probe.diary.until("disconnect", 4000)
    assert asked(probe) == [("in receive", "websocket.receive"), ("in a handler", "chat.fail")]
    assert not errors(caplog)


@ROADS
@pytest.mark.parametrize(
    ("hook", "raised"), [("raise", Trouble("in receive")), ("another", LookupError("in the hook"))]
)
async def test_what_the_hook_raises_ends_the_consumer(
    serve, probe, client, layer, caplog, hook, raised
):
    probe.hook = hook
    async with serve(probe.as_asgi()) as port, client(port) as socket:
        await socket.send("fail")
        assert await closed(socket) == 1011
        await probe.diary.until("disconnect", 1011)
    assert probe.diary.all("disconnect") == [1011]
    assert len(asked(probe)) == 1
    assert gone(layer)
    [record] = errors(caplog)
    assert repr(record.exc_info[1]) == repr(raised)


@ROADS
async def test_the_hook_may_stop_the_consumer(serve, probe, client, layer, caplog):
    probe.hook = "stop"
    async with serve(probe.as_asgi()) as port, client(port) as socket:
        await socket.send("fail")
        assert await closed(socket) == 1000
        await probe.diary.until("disconnect", 1000)
    assert not errors(caplog)


@ROADS
@pytest.mark.parametrize(("hook", "status"), [("pass", 500), ("raise", 500), ("deny", 418)])
async def test_after_an_error_in_connect_the_client_has_an_answer(
    serve, probe, client, layer, hook, status
):
    probe.connecting, probe.hook = "fail", hook
    async with serve(probe.as_asgi()) as port:
        with pytest.raises(InvalidStatus) as caught:
            await client(port).__aenter__()
        assert caught.value.response.status_code == status
        await probe.diary.until_true(lambda: probe.diary.all("disconnect"))
    assert asked(probe) == [("in connect", "websocket.connect")]
    assert probe.diary.all("disconnect") == [1006 if hook == "deny" else 1011]
    assert gone(layer)


@ROADS
async def test_the_hook_may_accept_in_spite_of_an_error(serve, probe, client):
    probe.connecting, probe.hook = "fail", "accept"
    async with serve(probe.as_asgi()) as port, client(port) as socket:
        await socket.send("echo in")
        assert await socket.recv() == "in"


@ROADS
async def test_an_error_in_disconnect_is_the_last_that_the_hook_hears(
    serve, probe, client, layer, caplog
):
    probe.disconnecting, probe.hook = "fail", "pass"
    async with serve(probe.as_asgi()) as port:
        async with client(port) as socket:
            await socket.close(4000)
        await probe.diary.until("error", "in disconnect", "websocket.disconnect")
    assert probe.diary.all("disconnect") == [4000]
    assert gone(layer)
    assert not errors(caplog)


async def test_the_hook_hears_of_a_disconnect_that_fails_at_the_end(probe, layer, caplog):
    """After another error, and after StopConsumer."""
    probe.disconnecting = "fail"
    for hook, said, expected in (
        ("raise", "fail", "in receive"),
        ("raise", "stop", "in disconnect"),
        ("pass", "stop", None),
        ("stop", "stop", None),
    ):
        probe.hook = hook
        communicator = WebsocketCommunicator(probe.as_asgi(), "/")
        await communicator.connect()
        await communicator.send_to(said)
        if expected is None:
            await communicator.wait()
        else:
            with pytest.raises(Trouble, match=expected):
                await communicator.wait()
    assert asked(probe) == [
        ("in receive", "websocket.receive"),
        *[("in disconnect", "websocket.disconnect")] * 4,
    ]
    assert len(errors(caplog)) == 1, "the second error of the first one's end"


async def test_the_hook_may_meet_that_the_client_is_gone(probe, layer):
    """The error has not been settled then: it is no secret."""
    probe.disconnecting = "fail"
    communicator = WebsocketCommunicator(probe.as_asgi(), "/")
    await communicator.connect()
    with pytest.raises(Trouble, match="in disconnect"):
        await communicator.disconnect()


async def test_what_is_no_error_is_not_asked_about(probe, layer):
    communicator = WebsocketCommunicator(probe.as_asgi(), "/")
    await communicator.connect()
    await communicator.send_to("stop")
    await communicator.wait()
    probe.connecting = "raise accept"
    communicator = WebsocketCommunicator(probe.as_asgi(), "/")
    assert (await communicator.connect())[0]
    await communicator.send_to("close 4001")
    await communicator.send_to("echo too late")
    assert (await communicator.receive_output())["code"] == 4001
    await communicator.disconnect(4001)
    assert not asked(probe)


async def test_an_error_that_is_raised_again_shows_where_it_came_from(probe, layer):
    probe.hook = "raise"
    communicator = WebsocketCommunicator(probe.as_asgi(), "/")
    await communicator.connect()
    await communicator.send_to("fail")
    with pytest.raises(Trouble) as caught:
        await communicator.wait()
    names = [entry.name for entry in caught.traceback]
    assert "receive" in names
    assert "on_error" not in names


async def test_a_layer_that_fails_is_not_the_handlers_error(probe, layer):
    class Fails(type(layer)):
        pushes = False

        async def receive(self, channel):
            raise ConnectionResetError("the broker is away")

    old = channel_layers.set("default", Fails())
    try:
        communicator = WebsocketCommunicator(probe.as_asgi(), "/")
        with pytest.raises(ConnectionResetError):
            await communicator.wait()
        assert not asked(probe)
    finally:
        channel_layers.set("default", old)


async def test_what_is_no_json_can_be_answered(layer):
    class Tolerant(AsyncJsonWebsocketConsumer):
        async def receive_json(self, content, **kwargs):
            await self.send_json({"got": content})

        async def on_error(self, error, message):
            await self.send_json({"error": type(error).__name__})

    communicator = WebsocketCommunicator(Tolerant.as_asgi(), "/")
    await communicator.connect()
    await communicator.send_to("{")
    assert await communicator.receive_json_from() == {"error": "JSONDecodeError"}
    await communicator.send_json_to(1)
    assert await communicator.receive_json_from() == {"got": 1}
    await communicator.disconnect()


@pytest.mark.parametrize("consumer_class", [AsyncWebsocketConsumer, WebsocketConsumer])
async def test_by_default_the_error_comes_out_of_the_application(consumer_class, layer):
    def fails(self, text_data=None, bytes_data=None):
        raise Trouble

    async def fails_later(self, text_data=None, bytes_data=None):
        raise Trouble

    receive = fails if consumer_class is WebsocketConsumer else fails_later
    fails_class = type("Fails", (consumer_class,), {"receive": receive})
    communicator = WebsocketCommunicator(fails_class.as_asgi(), "/")
    await communicator.connect()
    await communicator.send_to("")
    with pytest.raises(Trouble):
        await communicator.wait()


# HTTP


class Page(AsyncHttpConsumer):
    diary = None
    failing = "before"
    hook = "answer"

    async def handle(self, body):
        if self.failing == "before":
            raise Trouble("in handle")
        await self.channel_layer.group_add("news", self.channel_name)
        await self.send_headers()
        await self.send_body(b"begun", more_body=True)
        self.diary.note("begun")
        if self.failing == "after":
            raise Trouble("in handle")

    async def news_item(self, event):
        if event.get("fail"):
            raise Trouble("in a handler")
        await self.send_body(b", ended")

    async def on_error(self, error, message):
        self.diary.note("error", str(error), message["type"])
        match self.hook:
            case "answer":
                await self.send_response(503, b"later")
            case "raise":
                raise error

    async def disconnect(self):
        self.diary.note("disconnect")
        if self.failing == "disconnect":
            raise Trouble("in disconnect")


@pytest.fixture
async def page(layer):
    return type("TestPage", (Page,), {"diary": Diary()})


async def test_the_hook_may_answer_for_the_page(page):
    response = await HttpCommunicator(page.as_asgi(), "GET", "/").get_response()
    assert (response["status"], response["body"]) == (503, b"later")
    assert seen(page) == [("error", "in handle", "http.request"), ("disconnect",)]


@pytest.mark.parametrize("failing", ["before", "after"])
async def test_a_page_that_nobody_completes_is_an_error(page, failing):
    page.failing, page.hook = failing, "pass"
    with pytest.raises(Trouble, match="in handle"):
        await HttpCommunicator(page.as_asgi(), "GET", "/").get_response()
    assert seen(page) == [("error", "in handle", "http.request"), ("disconnect",)]


async def test_a_settled_error_of_an_event_does_not_end_the_stream(page, layer):
    page.failing, page.hook = "nowhere", "pass"
    communicator = HttpCommunicator(page.as_asgi(), "GET", "/")
    answering = asyncio.ensure_future(communicator.get_response())
    await page.diary.until("begun")
    await layer.group_send("news", {"type": "news.item", "fail": True})
    await layer.group_send("news", {"type": "news.item"})
    assert (await answering)["body"] == b"begun, ended"
    assert seen(page) == [("error", "in a handler", "news.item"), ("disconnect",)]


async def test_an_error_of_an_event_is_asked_about_once(page, layer):
    page.failing, page.hook = "nowhere", "raise"
    communicator = HttpCommunicator(page.as_asgi(), "GET", "/")
    answering = asyncio.ensure_future(communicator.get_response())
    await page.diary.until("begun")
    await layer.group_send("news", {"type": "news.item", "fail": True})
    with pytest.raises(Trouble, match="in a handler"):
        await answering
    assert seen(page) == [("error", "in a handler", "news.item"), ("disconnect",)]


async def test_a_stream_is_left_in_the_middle_of_an_event(page, layer, caplog):
    """Its client is gone: that is no error, whichever handler meets it first."""
    caplog.set_level(logging.WARNING)
    page.failing = "nowhere"
    gone_away = asyncio.Event()
    sent = []

    async def receive():
        if not sent:
            return {"type": "http.request"}
        await gone_away.wait()
        return {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)
        if len(sent) > 2:
            gone_away.set()
            raise OSError("gone")

    running = asyncio.ensure_future(page.as_asgi()({"type": "http"}, receive, send))
    await page.diary.until("begun")
    await layer.group_send("news", {"type": "news.item"})
    await running
    assert seen(page) == [("disconnect",)]
    assert not caplog.records


async def test_an_error_of_the_pages_disconnect_is_heard(page):
    page.failing, page.hook = "disconnect", "pass"
    communicator = HttpCommunicator(page.as_asgi(), "GET", "/")
    await communicator.send_input({"type": "http.disconnect"})
    await communicator.wait()
    assert seen(page) == [("disconnect",), ("error", "in disconnect", "http.disconnect")]
