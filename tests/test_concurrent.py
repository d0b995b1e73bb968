import asyncio
import functools
import gc
import weakref

import pytest
import websockets
from django.contrib.auth.models import User

from headrace import _concurrent as concurrent_module
from headrace.consumer import AsyncConsumer, SyncConsumer, concurrent
from headrace.exceptions import StopConsumer
from headrace.generic.http import AsyncHttpConsumer
from headrace.generic.websocket import (
    AsyncJsonWebsocketConsumer,
    AsyncWebsocketConsumer,
    WebsocketConsumer,
)
from headrace.testing import HttpCommunicator, WebsocketCommunicator

from .generic.conftest import headrace_serves, wraps_send
from .generic.probes import Diary, Trouble

pytestmark = pytest.mark.usefixtures("layer")


# What may be concurrent


def test_a_limit_is_a_number_from_one():
    for wrong in (0, -1, None, "2", True, 1.5):
        with pytest.raises(ValueError, match="a number from 1"):
            concurrent(limit=wrong)


def test_an_ordinary_function_cannot_be_concurrent():
    with pytest.raises(TypeError, match="async def handlers"):

        @concurrent(limit=2)
        def chat_message(self, event): ...


@pytest.mark.parametrize("base", [SyncConsumer, WebsocketConsumer])
def test_a_synchronous_consumer_says_so_when_its_class_is_made(base):
    async def chat_message(self, event): ...

    with pytest.raises(TypeError, match="Chat is a synchronous consumer"):
        type("Chat", (base,), {"chat_message": concurrent(limit=2)(chat_message)})


@pytest.mark.parametrize(
    ("base", "name"),
    [
        (AsyncWebsocketConsumer, "connect"),
        (AsyncWebsocketConsumer, "disconnect"),
        (AsyncWebsocketConsumer, "websocket_disconnect"),
        (AsyncHttpConsumer, "handle"),
        (AsyncConsumer, "dispatch"),
        (AsyncConsumer, "on_error"),
    ],
)
def test_what_has_its_place_in_the_life_of_a_connection_keeps_it(base, name):
    async def method(self, *args): ...

    with pytest.raises(TypeError, match=rf"Chat\.{name} can't be @concurrent"):
        type("Chat", (base,), {name: concurrent(limit=2)(method)})


def test_a_class_knows_its_limits():
    class Base(AsyncJsonWebsocketConsumer):
        @concurrent(limit=3)
        async def receive_json(self, content, **kwargs): ...

        @concurrent(limit=2)
        async def chat_message(self, event): ...

    class InOrderAgain(Base):
        async def chat_message(self, event): ...

    class Both(Base):
        @concurrent(limit=5)
        async def receive(self, text_data=None, bytes_data=None): ...

    class Mixed(AsyncConsumer):
        @concurrent(limit=4)
        async def receive(self, event): ...

    assert not AsyncJsonWebsocketConsumer._hr_limits
    assert Base._hr_limits == {"websocket_receive": 3, "chat_message": 2}
    assert InOrderAgain._hr_limits == {"websocket_receive": 3}
    assert Both._hr_limits == {"websocket_receive": 3, "chat_message": 2}
    assert Mixed._hr_limits == {"receive": 4}


def test_a_decorator_above_it_does_not_hide_it():
    def logged(function):
        @functools.wraps(function)
        async def wrapper(*args, **kwargs):
            return await function(*args, **kwargs)

        return wrapper

    class Logged(AsyncWebsocketConsumer):
        @logged
        @concurrent(limit=2)
        async def receive(self, text_data=None, bytes_data=None): ...

    assert Logged._hr_limits == {"websocket_receive": 2}


# How it runs


class Gates(dict):
    """Events by name, made when they are first asked for."""

    def __missing__(self, name):
        self[name] = asyncio.Event()
        return self[name]


class Chat(AsyncWebsocketConsumer):
    """Messages run beside the others until somebody opens their gate."""

    groups = ("room",)
    diary = None
    gates = None

    @concurrent(limit=2)
    async def receive(self, text_data=None, bytes_data=None):
        self.diary.note("begin", text_data)
        try:
            await self.gates[text_data].wait()
        except asyncio.CancelledError:
            self.diary.note("cancelled", text_data)
            await self.gates["let it end"].wait()
            raise
        match text_data.split():
            case ["fail", *_]:
                raise Trouble(text_data)
            case ["stop"]:
                raise StopConsumer
            case ["close"]:
                await self.close(4001)
        await self.send(text_data)

    async def room_event(self, event):
        self.diary.note("event", event["number"])
        if "gate" in event:
            await self.gates[event["gate"]].wait()

    async def disconnect(self, code):
        self.diary.note("disconnect", code)


ROADS = {
    "lane": headrace_serves,
    "own inbox": lambda application: headrace_serves(wraps_send(application)),
}


@pytest.fixture(params=ROADS)
def serve(request):
    return ROADS[request.param]


@pytest.fixture
async def chat():
    gates = Gates()
    gates["let it end"].set()
    return type("TestChat", (Chat,), {"diary": Diary(), "gates": gates})


def connect(port):
    return websockets.connect(f"ws://127.0.0.1:{port}/", open_timeout=5)


async def turns(number=30):
    for _ in range(number):
        await asyncio.sleep(0)


async def closed(socket):
    async with asyncio.timeout(5):
        await socket.wait_closed()
    return socket.close_code


async def test_messages_run_beside_one_another_up_to_the_limit(serve, chat, layer):
    async with serve(chat.as_asgi()) as port, connect(port) as socket:
        for text in "abcd":
            await socket.send(text)
        await chat.diary.until("begin", "b")
        # What is in order is handled meanwhile, until one more than the limit is there.
        await turns()
        assert chat.diary.all("begin") == ["a", "b"]
        chat.gates["b"].set()
        assert await socket.recv() == "b"
        await chat.diary.until("begin", "c")
        assert chat.diary.all("begin") == ["a", "b", "c"]
        for text in "adc":
            chat.gates[text].set()
        assert {await socket.recv() for _ in range(3)} == {"a", "c", "d"}


async def test_events_in_order_do_not_wait_for_those_beside(serve, chat, layer):
    async with serve(chat.as_asgi()) as port, connect(port) as socket:
        await socket.send("a")
        await chat.diary.until("begin", "a")
        for number in range(3):
            await layer.group_send("room", {"type": "room.event", "number": number})
        await chat.diary.until("event", 2)
        assert chat.diary.all("event") == [0, 1, 2]


async def test_beyond_the_limit_the_connection_waits(serve, chat, layer):
    async with serve(chat.as_asgi()) as port, connect(port) as socket:
        for text in "abc":
            await socket.send(text)
        await chat.diary.until("begin", "b")
        await turns()
        await layer.group_send("room", {"type": "room.event", "number": 1})
        await turns()
        assert not chat.diary.all("event")
        chat.gates["a"].set()
        await chat.diary.until("event", 1)


@pytest.mark.parametrize("messages", ["a", "abc"], ids=["one", "more than the limit"])
async def test_a_disconnect_cancels_them_and_waits_for_them(serve, chat, layer, messages):
    chat.gates["let it end"].clear()
    async with serve(chat.as_asgi()) as port:
        async with connect(port) as socket:
            for text in messages:
                await socket.send(text)
            await chat.diary.until("begin", messages[:2][-1])
        await chat.diary.until("cancelled", "a")
        await turns()
        assert not chat.diary.all("disconnect"), "it waits"
        chat.gates["let it end"].set()
        await chat.diary.until("disconnect", 1000)
        assert chat.diary.entries[-1] == ("disconnect", 1000)
        assert chat.diary.all("disconnect") == [1000]


async def test_an_own_close_cancels_them(serve, chat, layer):
    async with serve(chat.as_asgi()) as port, connect(port) as socket:
        await socket.send("a")
        await socket.send("close")
        chat.gates["close"].set()
        assert await closed(socket) == 4001
        await chat.diary.until("disconnect", 4001)
    assert chat.diary.all("cancelled") == ["a"]


async def test_an_error_ends_the_consumer(serve, chat, layer, caplog):
    async with serve(chat.as_asgi()) as port, connect(port) as socket:
        await socket.send("a")
        await socket.send("fail")
        chat.gates["fail"].set()
        assert await closed(socket) == 1011
        await chat.diary.until("disconnect", 1011)
    assert chat.diary.all("disconnect") == [1011]
    assert chat.diary.all("cancelled") == ["a"]
    assert not layer.groups
    [record] = caplog.records
    assert record.exc_info[0] is Trouble


async def test_an_error_is_noticed_at_the_limit(serve, chat, layer, caplog):
    async with serve(chat.as_asgi()) as port, connect(port) as socket:
        for text in ("a", "fail", "c"):
            await socket.send(text)
        await chat.diary.until("begin", "fail")
        await turns()
        chat.gates["fail"].set()
        assert await closed(socket) == 1011
        await chat.diary.until("disconnect", 1011)
    assert chat.diary.all("begin") == ["a", "fail"]


async def test_what_is_handled_in_order_is_finished_before_an_error_ends_it(chat, layer):
    communicator = WebsocketCommunicator(chat.as_asgi(), "/")
    await communicator.connect()
    await communicator.send_to("fail")
    await chat.diary.until("begin", "fail")
    await layer.group_send("room", {"type": "room.event", "number": 1, "gate": "slow"})
    await layer.group_send("room", {"type": "room.event", "number": 2})
    await chat.diary.until("event", 1)
    chat.gates["fail"].set()
    await turns()
    assert not chat.diary.all("disconnect")
    chat.gates["slow"].set()
    with pytest.raises(Trouble):
        await communicator.wait()
    assert chat.diary.all("event") == [1]
    assert chat.diary.all("disconnect") == [1011]


async def test_a_second_error_is_logged(chat, layer, caplog):
    communicator = WebsocketCommunicator(chat.as_asgi(), "/")
    await communicator.connect()
    await communicator.send_to("fail 1")
    await communicator.send_to("fail 2")
    await chat.diary.until("begin", "fail 2")
    chat.gates["fail 1"].set()
    chat.gates["fail 2"].set()
    with pytest.raises(Trouble, match="fail 1"):
        await communicator.wait()
    [record] = caplog.records
    assert record.getMessage() == "TestChat: another handler failed too"
    assert str(record.exc_info[1]) == "fail 2"


async def test_an_error_at_the_disconnect_comes_out_after_it(chat, layer):
    """The handler was cancelled, and made an error of that."""

    class Fails(chat):
        @concurrent(limit=1)
        async def receive(self, text_data=None, bytes_data=None):
            try:
                await super().receive(text_data)
            finally:
                raise Trouble("while it was cancelled")

    communicator = WebsocketCommunicator(Fails.as_asgi(), "/")
    await communicator.connect()
    await communicator.send_to("a")
    await chat.diary.until("begin", "a")
    with pytest.raises(Trouble, match="while it was cancelled"):
        await communicator.disconnect(4002)
    assert chat.diary.all("disconnect") == [4002]


async def test_one_that_stops_the_consumer(serve, chat, layer, caplog):
    async with serve(chat.as_asgi()) as port, connect(port) as socket:
        await socket.send("a")
        await socket.send("stop")
        chat.gates["stop"].set()
        assert await closed(socket) == 1000
        await chat.diary.until("disconnect", 1000)
    assert chat.diary.all("cancelled") == ["a"]
    assert not caplog.records


async def test_two_that_stop_the_consumer(chat, layer, caplog):
    communicator = WebsocketCommunicator(chat.as_asgi(), "/")
    await communicator.connect()
    for _ in range(2):
        await communicator.send_to("stop")
    chat.gates["stop"].set()
    await communicator.wait()
    assert chat.diary.all("disconnect") == [1000]
    assert not caplog.records


async def test_on_error_hears_of_it_once(chat, layer):
    class Settles(chat):
        async def on_error(self, error, message):
            self.diary.note("error", str(error), message["text"])
            if "badly" in message["text"]:
                raise error

    communicator = WebsocketCommunicator(Settles.as_asgi(), "/")
    await communicator.connect()
    for text in ("fail", "fail badly"):
        chat.gates[text].set()
        await communicator.send_to(text)
        await chat.diary.until("error", text, text)
    with pytest.raises(Trouble, match="fail badly"):
        await communicator.wait()
    assert len(chat.diary.all("error")) == 2


async def test_that_the_client_is_gone_is_no_error_there_either(chat, layer, caplog):
    communicator = WebsocketCommunicator(chat.as_asgi(), "/")
    await communicator.connect()
    await communicator.send_to("a")
    await communicator.send_to("close")
    await chat.diary.until("begin", "close")
    chat.gates["close"].set()
    assert (await communicator.receive_output())["code"] == 4001
    chat.gates["a"].set()
    await turns()
    await communicator.disconnect(4001)
    assert not caplog.records


async def test_a_server_that_stops_cancels_them(chat, layer):
    async with headrace_serves(chat.as_asgi(), shutdown_timeout_s=0.2) as port:
        socket = await connect(port)
        await socket.send("a")
        await chat.diary.until("begin", "a")
    assert chat.diary.all("cancelled") == ["a"]
    assert chat.diary.all("disconnect") == [1001]
    await closed(socket)


async def test_one_that_does_not_end_is_left_at_the_deadline(chat, layer, caplog):
    """It may not keep the consumer: disconnect() runs, and the log says who stayed."""
    chat.gates["let it end"].clear()
    communicator = WebsocketCommunicator(chat.as_asgi(), "/")
    await communicator.connect()
    await communicator.send_to("a")
    await chat.diary.until("begin", "a")
    await communicator.disconnect(timeout=0.05)
    assert chat.diary.all("disconnect") == [1001]
    assert not layer.groups
    [record] = caplog.records
    assert record.getMessage() == (
        "TestChat: 1 concurrent handlers go on although they were cancelled"
    )
    chat.gates["let it end"].set()
    await turns()
    assert {task for task in asyncio.all_tasks() if not task.done()} == {asyncio.current_task()}


async def test_nothing_is_left_of_a_consumer_that_was_cancelled(chat, layer):
    events = [{"type": "websocket.connect"}, {"type": "websocket.receive", "text": "a"}]

    async def receive():
        if events:
            return events.pop(0)
        return await asyncio.Event().wait()

    async def send(message): ...

    task = asyncio.ensure_future(chat.as_asgi()({"type": "websocket"}, receive, send))
    await chat.diary.until("begin", "a")
    consumer = weakref.ref(task.get_coro().cr_frame.f_locals["self"])
    task.cancel()
    await asyncio.wait({task})
    del task
    gc.collect()
    assert consumer() is None
    assert chat.diary.all("cancelled") == ["a"]


async def test_json_is_decoded_beside_the_others_too(layer):
    class Json(AsyncJsonWebsocketConsumer):
        gate = asyncio.Event()

        @concurrent(limit=2)
        async def receive_json(self, content, **kwargs):
            if content == "wait":
                await self.gate.wait()
            await self.send_json(content)

    communicator = WebsocketCommunicator(Json.as_asgi(), "/")
    await communicator.connect()
    await communicator.send_json_to("wait")
    await communicator.send_json_to("do not")
    assert await communicator.receive_json_from() == "do not"
    Json.gate.set()
    assert await communicator.receive_json_from() == "wait"
    await communicator.disconnect()


async def test_an_overridden_dispatch_sees_every_message(chat, layer):
    class Sees(chat):
        async def dispatch(self, message):
            self.diary.note("dispatch", message["type"])
            await super().dispatch(message)

    communicator = WebsocketCommunicator(Sees.as_asgi(), "/")
    await communicator.connect()
    chat.gates["a"].set()
    await communicator.send_to("a")
    assert await communicator.receive_from() == "a"
    await communicator.disconnect()
    assert chat.diary.all("dispatch") == [
        "websocket.connect",
        "websocket.receive",
        "websocket.disconnect",
    ]


async def test_a_message_without_a_type_is_an_error_as_always(chat, layer):
    communicator = WebsocketCommunicator(chat.as_asgi(), "/")
    await communicator.send_input({"no": "type"})
    with pytest.raises(ValueError, match="needs a 'type'"):
        await communicator.wait()


async def test_events_of_a_page_run_beside_one_another(layer):
    diary, gate = Diary(), asyncio.Event()

    class News(AsyncHttpConsumer):
        async def handle(self, body):
            await self.channel_layer.group_add("news", self.channel_name)
            await self.send_headers()
            await self.send_body(b"", more_body=True)
            diary.note("begun")

        @concurrent(limit=2)
        async def news_item(self, event):
            if event["text"] == "slow":
                diary.note("slow")
                await gate.wait()
            await self.send_body(event["text"].encode(), more_body=event["text"] != "end")
            diary.note("done", event["text"])

    communicator = HttpCommunicator(News.as_asgi(), "GET", "/")
    answering = asyncio.ensure_future(communicator.get_response())
    await diary.until("begun")
    for text in ("slow", "quick", "quick"):
        await layer.group_send("news", {"type": "news.item", "text": text})
    await diary.until_true(lambda: diary.all("done") == ["quick", "quick"])
    gate.set()
    await diary.until("done", "slow")
    await layer.group_send("news", {"type": "news.item", "text": "end"})
    assert (await answering)["body"] == b"quickquickslowend"


@pytest.mark.django_db(transaction=True)
async def test_each_cleans_up_after_the_database(layer, monkeypatch):
    cleaned = []
    real = concurrent_module.aclose_old_connections

    async def counted():
        cleaned.append(asyncio.current_task().get_name())
        await real()

    monkeypatch.setattr(concurrent_module, "aclose_old_connections", counted)

    class Queries(AsyncWebsocketConsumer):
        @concurrent(limit=2)
        async def receive(self, text_data=None, bytes_data=None):
            if text_data == "query":
                await User.objects.acount()
            await self.send(text_data)

    communicator = WebsocketCommunicator(Queries.as_asgi(), "/")
    await communicator.connect()
    for text in ("query", "nothing"):
        await communicator.send_to(text)
        assert await communicator.receive_from() == text
    await communicator.disconnect()
    assert cleaned == ["headrace Queries.websocket_receive"]
