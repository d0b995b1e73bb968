import asyncio
import gc
import inspect
import logging
import threading
import tracemalloc

import pytest
from asgiref.sync import iscoroutinefunction
from django.contrib.auth.models import User
from django.db import connection

from headrace import consumer as consumer_module
from headrace.consumer import AsyncConsumer, SyncConsumer, get_handler_name
from headrace.db import aclose_old_connections, database_sync_to_async
from headrace.exceptions import StopConsumer
from headrace.generic.http import AsyncHttpConsumer
from headrace.generic.websocket import (
    AsyncJsonWebsocketConsumer,
    AsyncWebsocketConsumer,
    JsonWebsocketConsumer,
    WebsocketConsumer,
)
from headrace.layers import channel_layers
from headrace.server.inbox import Inbox
from headrace.server.turn import Turn
from headrace.testing import ApplicationCommunicator, WebsocketCommunicator

pytestmark = pytest.mark.usefixtures("layer")


# Names


def test_a_type_names_its_handler():
    assert get_handler_name({"type": "chat.message.new"}) == "chat_message_new"
    assert get_handler_name({"type": "plain"}) == "plain"


@pytest.mark.parametrize("message", [{}, {"type": "_private"}, {"type": ".hidden"}])
def test_no_type_and_no_private_handler(message):
    with pytest.raises(ValueError, match="type"):
        get_handler_name(message)


# Dispatch


class Echo(AsyncConsumer):
    async def test_ping(self, event):
        await self.send({"type": "test.pong", "number": event["number"]})

    async def test_stop(self, event):
        raise StopConsumer


class SyncEcho(SyncConsumer):
    def test_ping(self, event):
        assert threading.current_thread() is not threading.main_thread()
        self.send({"type": "test.pong", "number": event["number"]})

    def test_stop(self, event):
        raise StopConsumer


BOTH = pytest.mark.parametrize("consumer_class", [Echo, SyncEcho])


@BOTH
async def test_handlers_answer_in_order_until_one_stops(consumer_class, layer):
    communicator = ApplicationCommunicator(consumer_class.as_asgi(), {"type": "test"})
    for number in range(3):
        await communicator.send_input({"type": "test.ping", "number": number})
    for number in range(3):
        assert await communicator.receive_output() == {"type": "test.pong", "number": number}
    await communicator.send_input({"type": "test.stop"})
    await communicator.wait()
    assert not layer.channels


@BOTH
async def test_a_message_without_a_handler_is_an_error_that_says_what_to_define(consumer_class):
    communicator = ApplicationCommunicator(consumer_class.as_asgi(), {"type": "test"})
    await communicator.send_input({"type": "test.unknown"})
    with pytest.raises(ValueError, match=r"define a method test_unknown\(self, event\)"):
        await communicator.receive_output()


@BOTH
async def test_a_message_without_a_type_is_an_error(consumer_class):
    communicator = ApplicationCommunicator(consumer_class.as_asgi(), {"type": "test"})
    await communicator.send_input({"no": "type"})
    with pytest.raises(ValueError, match="needs a 'type'"):
        await communicator.receive_output()


@BOTH
async def test_messages_of_the_layer_come_in_between(consumer_class, layer):
    communicator = ApplicationCommunicator(consumer_class.as_asgi(), {"type": "test"})
    await communicator.send_input({"type": "test.ping", "number": 1})
    await communicator.receive_output()
    [channel] = layer.channels
    await layer.send(channel, {"type": "test.ping", "number": 2})
    assert (await communicator.receive_output())["number"] == 2
    await communicator.send_input({"type": "test.stop"})
    await communicator.wait()


async def test_a_channel_that_ends_in_disconnect_is_no_end():
    """Only a connection's disconnect is; a worker's message of that name is a message."""

    class Worker(AsyncConsumer):
        async def user_disconnect(self, event):
            await self.send({"type": "seen", "n": event["n"]})

    async with ApplicationCommunicator(Worker.as_asgi(), {"type": "channel"}) as communicator:
        for number in range(3):
            await communicator.send_input({"type": "user.disconnect", "n": number})
        for number in range(3):
            assert (await communicator.receive_output())["n"] == number


@pytest.mark.parametrize(
    "consumer_class",
    [
        AsyncConsumer,
        SyncConsumer,
        AsyncHttpConsumer,
        AsyncJsonWebsocketConsumer,
        JsonWebsocketConsumer,
    ],
)
def test_private_names_are_left_to_the_application(consumer_class):
    """Whoever moves here may have a ``_leave`` or a ``_limits`` already."""
    names = {name for base in consumer_class.__mro__[:-1] for name in vars(base)}
    private = {name for name in names if name.startswith("_") and not name.startswith("__")}
    assert {name for name in private if not name.startswith("_hr_")} == set()


# as_asgi


async def test_as_asgi_makes_an_instance_for_each_connection():
    seen = []

    class Configured(AsyncConsumer):
        colour = "red"

        async def test_ping(self, event):
            seen.append((self, self.colour, self.scope["path"]))
            raise StopConsumer

    application = Configured.as_asgi(colour="blue")
    assert application.consumer_class is Configured
    assert application.consumer_initkwargs == {"colour": "blue"}
    assert application.__name__ == "Configured"
    for path in ("/a", "/b"):
        communicator = ApplicationCommunicator(application, {"type": "test", "path": path})
        await communicator.send_input({"type": "test.ping"})
        await communicator.wait()
    assert [entry[1:] for entry in seen] == [("blue", "/a"), ("blue", "/b")]
    assert seen[0][0] is not seen[1][0]


def test_servers_see_an_asgi_3_application():
    application = Echo.as_asgi()
    assert iscoroutinefunction(application)
    assert asyncio.iscoroutinefunction(application) or inspect.iscoroutinefunction(application)


async def test_another_layer_by_its_alias(settings):
    settings.CHANNEL_LAYERS = {
        alias: {"BACKEND": "headrace.layers.InMemoryChannelLayer"} for alias in ("default", "other")
    }

    class Other(Echo):
        channel_layer_alias = "other"

    async with ApplicationCommunicator(Other.as_asgi(), {"type": "test"}) as communicator:
        await communicator.send_input({"type": "test.ping", "number": 1})
        await communicator.receive_output()
        assert channel_layers["other"].channels
        assert not channel_layers["default"].channels


async def test_a_consumer_without_a_layer(settings):
    settings.CHANNEL_LAYERS = {}
    communicator = ApplicationCommunicator(Echo.as_asgi(), {"type": "test"})
    await communicator.send_input({"type": "test.ping", "number": 1})
    assert (await communicator.receive_output())["number"] == 1
    await communicator.send_input({"type": "test.stop"})
    await communicator.wait()


async def turns(number=20):
    for _ in range(number):
        await asyncio.sleep(0)


# The database

database = pytest.mark.django_db(transaction=True)


@pytest.fixture
def clean_ups(monkeypatch):
    """When the consumer cleaned up after the database."""
    seen = []

    async def counted():
        seen.append("clean-up")
        await aclose_old_connections()

    monkeypatch.setattr(consumer_module, "aclose_old_connections", counted)
    return seen


class Queries(AsyncWebsocketConsumer):
    async def receive(self, text_data=None, bytes_data=None):
        match text_data:
            case "in place":
                await User.objects.acount()
            case "in a task":
                await asyncio.gather(User.objects.acount(), User.objects.acount())
            case "in a thread":
                await database_sync_to_async(User.objects.count)()
            case "and fail":
                await User.objects.acount()
                raise LookupError
        await self.send("done")


@database
@pytest.mark.parametrize(
    ("what", "expected"), [("nothing", 0), ("in place", 1), ("in a task", 1), ("in a thread", 0)]
)
async def test_a_consumer_cleans_up_after_the_database_if_it_used_it(clean_ups, what, expected):
    communicator = WebsocketCommunicator(Queries.as_asgi(), "/")
    await communicator.connect()
    await aclose_old_connections()
    for _ in range(3):
        await communicator.send_to(what)
        await communicator.receive_from()
    await turns(5)
    assert len(clean_ups) == 3 * expected
    await communicator.disconnect()


@database
async def test_a_consumer_that_fails_cleans_up_too(clean_ups):
    communicator = WebsocketCommunicator(Queries.as_asgi(), "/")
    await communicator.connect()
    await communicator.send_to("and fail")
    with pytest.raises(LookupError):
        await communicator.wait()
    assert clean_ups == ["clean-up"]


@database
async def test_connections_past_their_age_are_closed_before_a_handler_meets_them(
    clean_ups, monkeypatch
):
    communicator = WebsocketCommunicator(Queries.as_asgi(), "/")
    await communicator.connect()
    due = [True]
    monkeypatch.setattr(consumer_module, "cleanup_due", lambda: bool(due and due.pop()))
    await communicator.send_to("nothing")
    await communicator.receive_from()
    assert clean_ups == ["clean-up"]
    await communicator.disconnect()


@database
async def test_a_synchronous_consumer_uses_the_orm_as_it_is(clean_ups):
    class Counts(WebsocketConsumer):
        def receive(self, text_data=None, bytes_data=None):
            self.send(str(User.objects.count()))
            assert connection.connection is not None

    communicator = WebsocketCommunicator(Counts.as_asgi(), "/")
    await communicator.connect()
    await communicator.send_to("?")
    assert await communicator.receive_from() == "0"
    await communicator.disconnect()
    assert not clean_ups


# What is left


async def test_an_idle_consumer_keeps_no_message_alive():
    class Big(str):
        alive = 0
        __slots__ = ("__weakref__",)

        def __init__(self, *args):
            Big.alive += 1

        def __del__(self):
            Big.alive -= 1

    communicator = WebsocketCommunicator(AsyncWebsocketConsumer.as_asgi(), "/")
    await communicator.connect()
    await communicator.send_to(Big("x" * 1000))
    await turns()
    gc.collect()
    assert Big.alive == 0
    await communicator.disconnect()


async def test_an_idle_consumer_is_small(layer):
    """With its channel and one membership; what the server keeps is not counted here."""

    class Member(AsyncWebsocketConsumer):
        groups = ("room",)

    class Lane:
        capacity = 0

        def __call__(self, receive, send):
            return self

        def __init__(self):
            self.waiter = asyncio.get_running_loop().create_future()
            self.events = [{"type": "websocket.connect"}]

        async def receive(self):
            if not self.events:
                await self.waiter
            return self.events.pop()

        async def send(self, message):
            pass

        def put(self, event):
            return True

        def transmit(self, event, frames):
            return True

    async def waits(scope, receive, send):
        await receive()
        await receive()

    async def size(application, number=2000):
        lanes = [Lane() for _ in range(number)]
        calls = [
            (
                {"type": "websocket", "extensions": {"headrace": {"lane": lane}}},
                lane.receive,
                lane.send,
            )
            for lane in lanes
        ]
        gc.collect()
        tracemalloc.start()
        tasks = [asyncio.ensure_future(application(*call)) for call in calls]
        await turns()
        gc.collect()
        bytes_each = tracemalloc.get_traced_memory()[0] / number
        tracemalloc.stop()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        return bytes_each

    await size(Member.as_asgi(), 10)  # whatever is made once
    assert await size(Member.as_asgi()) - await size(waits) < 1200


async def test_an_application_whose_loop_is_gone_still_leaves_its_groups(layer):
    """Its coroutine is closed, not cancelled: nothing can be awaited any more."""

    class Member(AsyncWebsocketConsumer):
        groups = ("room",)

    class Connection(Inbox):
        put = transmit = lambda *args: True

        async def send(self, message): ...

    lane = Connection(Turn(asyncio.get_running_loop()))
    lane.insert({"type": "websocket.connect"})
    scope = {"type": "websocket", "extensions": {"headrace": {"lane": lambda *callables: lane}}}
    running = Member.as_asgi()(scope, lane.receive, lane.send)
    running.send(None)
    assert set(layer.groups) == {"room"}
    running.close()
    assert not layer.groups
    assert not layer.channels


async def test_an_error_outlives_a_cancellation_of_the_end_that_it_brought():
    """Whoever runs a consumer as a task, and cancels it as soon as it ends, is told why it did."""

    class Fails(AsyncWebsocketConsumer):
        async def receive(self, text_data=None, bytes_data=None):
            raise LookupError("what happened")

        async def disconnect(self, code):
            asyncio.current_task().cancel()
            await asyncio.sleep(0)

    communicator = WebsocketCommunicator(Fails.as_asgi(), "/")
    await communicator.connect()
    await communicator.send_to("go")
    with pytest.raises(LookupError, match="what happened"):
        await communicator.wait()


@pytest.mark.parametrize("consumer_class", [AsyncConsumer, SyncConsumer])
async def test_a_consumer_that_goes_on_after_the_disconnect_ends_quietly(consumer_class, caplog):
    """Its handler does not raise StopConsumer; there is nothing to wait for all the same."""
    seen = []

    class Own(consumer_class):
        if consumer_class is AsyncConsumer:

            async def websocket_disconnect(self, event):
                seen.append(event["code"])
        else:

            def websocket_disconnect(self, event):
                seen.append(event["code"])

    communicator = WebsocketCommunicator(Own.as_asgi(), "/")
    await communicator.disconnect(4003)
    assert seen == [4003]
    assert not caplog.records


async def test_base_send_is_for_the_handlers_thread():
    """As in Channels: asynchronous in the one class, a plain call in the other."""

    class Direct(AsyncConsumer):
        async def test_ping(self, event):
            await self.base_send({"type": "test.pong"})
            raise StopConsumer

    class SyncDirect(SyncConsumer):
        def test_ping(self, event):
            self.base_send({"type": "test.pong"})
            raise StopConsumer

    for consumer_class in (Direct, SyncDirect):
        communicator = ApplicationCommunicator(consumer_class.as_asgi(), {"type": "test"})
        await communicator.send_input({"type": "test.ping"})
        assert await communicator.receive_output() == {"type": "test.pong"}
        await communicator.wait()


async def test_a_synchronous_consumer_passes_on_what_is_for_the_client(layer):
    class Plain(SyncConsumer):
        def websocket_connect(self, event):
            self.send({"type": "websocket.accept"})

        def websocket_disconnect(self, event):
            raise StopConsumer

    communicator = WebsocketCommunicator(Plain.as_asgi(), "/")
    await communicator.connect()
    await communicator.send_input({"type": "websocket.send", "text": "an odd client"})
    assert await communicator.receive_from() == "an odd client"
    await communicator.disconnect()


@pytest.mark.parametrize("value", ["drop-last", "CLOSE"])
def test_an_overflow_policy_that_does_not_exist_is_an_error_of_the_class(value):
    with pytest.raises(ValueError, match=r"Chat\.overflow is one of 'drop-newest', 'drop-oldest'"):
        type("Chat", (AsyncConsumer,), {"overflow": value})


@pytest.mark.parametrize("value", [0, -1, True])
def test_a_capacity_is_a_number_from_one(value):
    with pytest.raises(ValueError, match=r"Chat\.capacity is a number of events from 1"):
        type("Chat", (AsyncConsumer,), {"capacity": value})


async def test_a_capacity_of_an_instance_is_checked_too():
    communicator = ApplicationCommunicator(Echo.as_asgi(capacity="many"), {"type": "test"})
    with pytest.raises(ValueError, match=r"Echo\.capacity"):
        await communicator.wait()


async def test_the_client_is_gone_says_the_log_if_asked(caplog):
    class Sends(AsyncWebsocketConsumer):
        async def receive(self, text_data=None, bytes_data=None):
            await self.close()
            await self.send("late")

    caplog.set_level(logging.DEBUG, "headrace.consumer")
    communicator = WebsocketCommunicator(Sends.as_asgi(), "/")
    await communicator.connect()
    await communicator.send_to("go")
    await communicator.disconnect()
    assert [record.getMessage() for record in caplog.records] == [
        "Sends: the client is gone: cannot send 'websocket.send': the WebSocket is closed"
    ]


async def test_a_consumer_says_that_it_wants_to_know_of_gaps(layer):
    class Forgetful(AsyncConsumer):
        pass

    class Careful(AsyncConsumer):
        async def layer_gap(self, event):
            """Fetch what was missed."""

    bounds = []
    for consumer_class in (Forgetful, Careful):
        consumer = consumer_class()
        consumer.scope = {"type": "test"}
        inbox = await consumer._hr_open(asyncio.Queue().get, None)
        bounds.append(layer.channels[consumer.channel_name].bounds)
        consumer._hr_leave(inbox)
    assert [each.hears_gaps for each in bounds] == [False, True]


# Mistakes


def test_an_async_def_in_a_synchronous_consumer_is_told_when_its_class_is_made(caplog):
    class Room(JsonWebsocketConsumer):
        async def connect(self): ...

        async def websocket_receive(self, message): ...

        async def dispatch(self, message): ...  # one there, too

        async def chat_message(self, event): ...  # nobody knows who calls it

        def disconnect(self, code): ...

    assert [(record.name, record.args) for record in caplog.records] == [
        ("headrace.consumer", ("Room", "connect")),
        ("headrace.consumer", ("Room", "websocket_receive")),
    ]
    assert "write def, or use an asynchronous consumer" in caplog.text
