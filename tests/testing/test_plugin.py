import asyncio
import importlib.metadata
import types

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import User
from django.core.exceptions import ImproperlyConfigured
from django.db import connection, transaction
from django.test import Client, override_settings

from headrace.generic.websocket import (
    AsyncJsonWebsocketConsumer,
    AsyncWebsocketConsumer,
    WebsocketConsumer,
)
from headrace.layers import get_channel_layer
from headrace.testing import WebsocketCommunicator, plugin
from headrace.testing.plugin import _leave


class Room(AsyncWebsocketConsumer):
    groups = ("room",)

    async def receive(self, text_data=None, bytes_data=None):
        await self.channel_layer.group_send("room", {"type": "said", "text": text_data})

    async def said(self, event):
        await self.send(event["text"])

    async def disconnect(self, code):
        if self.scope["path"] == "/fails":
            raise LookupError("at the end")


room = Room.as_asgi()


class Members(AsyncJsonWebsocketConsumer):
    async def receive_json(self, content, **kwargs):
        await User.objects.acreate(username=content)
        await self.send_json([user.username async for user in User.objects.order_by("id")])


class SyncMembers(WebsocketConsumer):
    def receive(self, text_data=None, bytes_data=None):
        with transaction.atomic():
            User.objects.create(username=text_data)
        self.send(",".join(User.objects.order_by("id").values_list("username", flat=True)))


def test_it_is_known_to_pytest():
    [entry] = importlib.metadata.entry_points(group="pytest11", name="headrace")
    assert entry.value == "headrace.testing.plugin"


# channel_layer


def test_a_fresh_layer_in_a_synchronous_test(channel_layer):
    assert get_channel_layer() is channel_layer
    async_to_sync(channel_layer.group_add)("room", "a-channel")
    async_to_sync(channel_layer.group_send)("room", {"type": "news"})
    assert async_to_sync(channel_layer.receive)("a-channel") == {"type": "news"}


async def test_a_fresh_layer_in_an_asynchronous_test(channel_layer):
    assert get_channel_layer() is channel_layer
    await channel_layer.send("a-channel", {"type": "news"})


@override_settings(
    CHANNEL_LAYERS={
        "default": {
            "BACKEND": "headrace.layers.InMemoryChannelLayer",
            "CONFIG": {"capacity": 1},
            "TEST_CONFIG": {"capacity": 2},
        }
    }
)
def test_it_is_made_of_the_test_configuration(request):
    assert request.getfixturevalue("channel_layer").capacity == 2


async def test_who_has_left_is_not(channel_layer):
    communicator = WebsocketCommunicator(room, "/")
    await communicator.connect()
    await communicator.disconnect()
    await channel_layer.send("nobody-reads-this", {"type": "news"})


# websocket_connect


async def test_a_room_of_several(websocket_connect, channel_layer):
    ada, grace = [await websocket_connect("/", room) for _ in range(2)]
    await ada.send_to("hello")
    assert [await ada.receive_from(), await grace.receive_from()] == ["hello", "hello"]


async def test_the_layer_is_asked_whether_all_have_left_when_they_have(
    websocket_connect, channel_layer
):
    await websocket_connect("/", room)


async def test_it_comes_like_a_page_of_the_site(websocket_connect):
    client = Client()
    client.cookies["a"] = "1"
    client.cookies["b"] = "2"
    socket = await websocket_connect(
        "/a?b=c", room, client=client, headers=[(b"origin", b"null")], user="ada"
    )
    assert socket.scope["user"] == "ada"
    assert socket.scope["query_string"] == b"b=c"
    assert socket.scope["headers"] == [
        (b"origin", b"null"),
        (b"cookie", b"a=1; b=2"),
        (b"host", b"testserver"),
    ]


@override_settings(ASGI_APPLICATION="tests.testing.site.application")
@pytest.mark.django_db
async def test_the_application_is_the_projects(websocket_connect):
    socket = await websocket_connect("/ws/members/")
    await socket.send_json_to("ada")
    assert await socket.receive_json_from() == ["ada"]


async def test_without_an_application(websocket_connect):
    with pytest.raises(ImproperlyConfigured, match="ASGI_APPLICATION"):
        await websocket_connect("/")


async def test_a_refusal(websocket_connect):
    class Refusing(AsyncWebsocketConsumer):
        async def connect(self):
            await self.close(4003)

    with pytest.raises(AssertionError, match="/x was refused: 4003"):
        await websocket_connect("/x", Refusing.as_asgi())


def test_an_error_at_the_end_is_the_tests_error():
    with asyncio.Runner() as runner:
        communicator = WebsocketCommunicator(room, "/fails")
        _leave(communicator)  # nothing has begun
        runner.run(communicator.connect())
        with pytest.raises(LookupError, match="at the end"):
            _leave(communicator)
        _leave(communicator)  # it has ended
        other = WebsocketCommunicator(room, "/")
        runner.run(other.connect())
    _leave(other)  # with its loop


# async_db


@pytest.mark.django_db
class TestInATransaction:
    """Each test begins with an empty database, so that what one leaves another finds."""

    @pytest.mark.parametrize("time", [1, 2])
    async def test_asynchronous_consumers(self, websocket_connect, time):
        await User.objects.acreate(username="ada")
        socket = await websocket_connect("/", Members.as_asgi())
        await socket.send_json_to("grace")
        assert await socket.receive_json_from() == ["ada", "grace"]
        assert await User.objects.acount() == 2

    @pytest.mark.parametrize("time", [1, 2])
    async def test_synchronous_consumers(self, websocket_connect, time):
        await User.objects.acreate(username="ada")
        sockets = [await websocket_connect("/", SyncMembers.as_asgi()) for _ in range(3)]
        for number, socket in enumerate(sockets):
            await socket.send_to(f"user {number}")
        heard = [await socket.receive_from() for socket in sockets]
        assert "ada,user 0,user 1,user 2" in heard

    @pytest.fixture
    def ada(self, db):
        return User.objects.create(username="ada")

    async def test_what_a_synchronous_fixture_wrote_is_seen(self, ada, async_db):
        assert await User.objects.aget() == ada

    async def test_without_a_consumer(self, async_db):
        await User.objects.acreate(username="ada")

    async def test_nothing_was_left(self, async_db):
        assert not await User.objects.aexists()

    def test_in_a_synchronous_test_it_is_nothing(self, async_db):
        User.objects.create(username="ada")
        assert connection.in_atomic_block


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("time", [1, 2])
async def test_without_a_transaction(websocket_connect, time):
    await User.objects.acreate(username="ada")
    socket = await websocket_connect("/", Members.as_asgi())
    await socket.send_json_to("grace")
    assert await socket.receive_json_from() == ["ada", "grace"]


# asgi_live_server


@pytest.fixture
def site():
    with override_settings(
        ASGI_APPLICATION="tests.testing.site.application", ROOT_URLCONF="tests.testing.site"
    ):
        yield


async def test_the_live_server(site, asgi_live_server):
    import websockets

    async with websockets.connect(
        f"{asgi_live_server.ws_url}/ws/members/", origin=asgi_live_server.url
    ) as socket:
        await socket.send('"ada"')
        assert await socket.recv() == '["ada"]'
    assert not connection.in_atomic_block


# The hook behind the test function


@pytest.fixture
def item():
    """A test that has opened a WebSocket, whose consumer fails in the end."""
    with asyncio.Runner() as runner:
        communicator = WebsocketCommunicator(room, "/fails")
        runner.run(communicator.connect())
        item = types.SimpleNamespace(stash=pytest.Stash())
        item.stash[plugin._opened] = [communicator]
        yield item


def test_a_failure_at_the_end_is_the_tests(item):
    running = plugin.pytest_runtest_call(item)
    next(running)
    with pytest.raises(LookupError, match="at the end"):
        running.send(None)


def test_the_tests_own_failure_is_told_before_any_other(item):
    running = plugin.pytest_runtest_call(item)
    next(running)
    with pytest.raises(AssertionError, match="its own"):
        running.throw(AssertionError("its own"))
    assert item.stash[plugin._opened][0].future.done()
