"""WebSocket views on every road: our server, another's, middleware, layers that only pull."""

import asyncio
import logging

import pytest
import websockets
from django.contrib.auth.models import AnonymousUser
from django.urls import path, re_path
from websockets.exceptions import InvalidStatus

from headrace.exceptions import (
    ConfigurationError,
    DenyConnection,
    LocalProtocolError,
    StopConsumer,
)
from headrace.layers import channel_layers
from headrace.routing import URLRouter
from headrace.testing import WebsocketCommunicator
from headrace.views import Disconnected, websocket_view


@websocket_view
async def echo(socket):
    async for message in socket:
        await socket.send(message)


@websocket_view
async def chat(socket, room):
    async with socket.group(f"room.{room}") as group:
        await socket.send("welcome")
        async for message in socket:
            await group.send(message)


async def closed(socket):
    async with asyncio.timeout(5):
        await socket.wait_closed()
    return socket.close_code, socket.close_reason


# On every road


async def test_messages_go_both_ways_in_their_order_and_kind(serve, client):
    async with serve(echo) as port, client(port) as socket:
        for message in ["one", b"two", "", b"", "ünï"]:
            await socket.send(message)
        assert [await socket.recv() for _ in range(5)] == ["one", b"two", "", b"", "ünï"]


async def test_members_of_a_group_hear_each_other(serve, layer):
    application = URLRouter([path("chat/<slug:room>/", chat)])
    async with serve(application) as port:
        base = f"ws://127.0.0.1:{port}/chat"
        async with (
            websockets.connect(f"{base}/tea/") as ada,
            websockets.connect(f"{base}/tea/") as grace,
            websockets.connect(f"{base}/coffee/") as alan,
        ):
            for socket in (ada, grace, alan):
                assert await socket.recv() == "welcome"
            await ada.send("hello")
            await alan.send(b"bytes")
            assert [await ada.recv(), await grace.recv()] == ["hello", "hello"]
            assert await alan.recv() == b"bytes"


async def test_the_groups_are_left_when_the_client_leaves(serve, layer):
    left = asyncio.Event()

    @websocket_view
    async def view(socket):
        try:
            async with socket.group("room"):
                async for _ in socket:
                    pass
        finally:
            left.set()

    async with serve(view) as port:
        async with websockets.connect(f"ws://127.0.0.1:{port}") as socket:
            await socket.send("hello")
        async with asyncio.timeout(5):
            await left.wait()
    assert not any(layer.groups.values())


async def test_a_view_that_returns_closes_with_1000(serve, client):
    @websocket_view
    async def view(socket):
        await socket.send(await socket.receive())

    async with serve(view) as port, client(port) as socket:
        await socket.send("bye")
        assert await socket.recv() == "bye"
        assert await closed(socket) == (1000, "")


async def test_a_view_may_close_with_a_code_and_goes_on(serve, client):
    codes = asyncio.Queue()

    @websocket_view
    async def view(socket):
        await socket.accept()
        await socket.close(4001, "enough")
        await socket.close(4002)
        codes.put_nowait([message async for message in socket])
        codes.put_nowait(socket.close_code)

    async with serve(view) as port, client(port) as socket:
        assert await closed(socket) == (4001, "enough")
        async with asyncio.timeout(5):
            assert await codes.get() == []
            assert await codes.get() in (4001, 1005, 1006)  # each server tells its own way


@pytest.mark.parametrize("how", ["return", "close", "deny", "stop"])
async def test_who_is_not_accepted_gets_a_403(serve, client, how, caplog):
    @websocket_view
    async def view(socket):
        if how == "close":
            await socket.close()
        elif how == "deny":
            raise DenyConnection
        elif how == "stop":
            raise StopConsumer

    async with serve(view) as port:
        with pytest.raises(InvalidStatus) as refusal:
            await client(port)
        assert refusal.value.response.status_code == 403
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_a_view_may_deny_with_a_response_of_its_own(serve, client, road):
    @websocket_view
    async def view(socket):
        await socket.deny(404, "no such room", headers=[(b"x-room", b"none")])

    async with serve(view) as port:
        with pytest.raises(InvalidStatus) as refusal:
            await client(port)
    response = refusal.value.response
    assert (response.status_code, response.headers["x-room"]) == (404, "none")
    assert response.body == b"no such room"


async def test_who_is_accepted_cannot_be_denied():
    @websocket_view
    async def view(socket):
        await socket.accept()
        await socket.deny(404)

    communicator = WebsocketCommunicator(view, "/")
    await communicator.connect()
    with pytest.raises(LocalProtocolError, match="cannot deny: this WebSocket is accepted"):
        await communicator.wait()


async def test_an_error_closes_with_1011_and_is_logged(serve, client, caplog):
    @websocket_view
    async def view(socket):
        await socket.receive()
        raise RuntimeError("the view's own")

    async with serve(view) as port, client(port) as socket:
        await socket.send("go")
        assert (await closed(socket))[0] == 1011
    assert "the view's own" in caplog.text


async def test_a_client_that_leaves_is_no_error_of_the_view(serve, client, caplog):
    left = asyncio.get_running_loop().create_future()

    @websocket_view
    async def view(socket):
        try:
            while True:
                await socket.receive()
        except Disconnected as error:
            left.set_result((socket.close_code, str(error)))
            with pytest.raises(Disconnected):
                await socket.receive()
            with pytest.raises(Disconnected):
                await socket.send("anybody?")
            raise

    async with serve(view) as port:
        async with client(port) as socket:
            await socket.send("hello")
            await socket.close(4000)
        async with asyncio.timeout(5):
            assert await left == (4000, "the WebSocket is closed (4000)")
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_events_of_the_layer_come_beside_the_messages(serve, client, layer):
    @websocket_view
    async def view(socket):
        async with socket.group("news"):
            async for event in socket.events():
                if isinstance(event, dict):
                    await socket.send_json(event)
                else:
                    await layer.group_send("news", {"type": "news.item", "title": event})

    async with serve(view) as port, client(port) as socket:
        await socket.send("rain")
        assert await socket.recv() == '{"type":"news.item","title":"rain"}'


async def test_what_a_client_sent_before_it_left_is_handled(serve, client):
    received = []
    done = asyncio.Event()

    @websocket_view
    async def view(socket):
        received.extend([message async for message in socket])
        done.set()

    async with serve(view) as port:
        async with client(port) as socket:
            for number in range(100):
                await socket.send(str(number))
        async with asyncio.timeout(5):
            await done.wait()
    assert received == [str(number) for number in range(100)]


# What does not depend on the road


async def test_the_accept_chooses_subprotocol_and_headers():
    @websocket_view
    async def view(socket):
        assert socket.subprotocols == ["v1", "v2"]
        await socket.accept(subprotocol="v2", headers=[(b"x-view", b"yes")])
        await socket.receive()

    communicator = WebsocketCommunicator(view, "/", subprotocols=["v1", "v2"])
    assert await communicator.connect() == (True, "v2")
    assert communicator.response_headers == [(b"x-view", b"yes")]
    await communicator.disconnect()


async def test_what_the_route_captures_are_arguments():
    @websocket_view
    async def named(socket, room, *, number=7):
        await socket.send_json([room, number])

    @websocket_view
    async def positional(socket, year):
        await socket.send_json([year])

    application = URLRouter(
        [path("room/<slug:room>/", named), re_path(r"^year/([0-9]+)/$", positional)]
    )
    for where, expected in [("/room/tea/", ["tea", 7]), ("/year/2026/", ["2026"])]:
        communicator = WebsocketCommunicator(application, where)
        await communicator.connect()
        assert await communicator.receive_json_from() == expected
        await communicator.wait()


async def test_who_is_there():
    @websocket_view
    async def view(socket):
        await socket.send_json(
            [socket.user.is_anonymous, socket.query.getlist("tag"), socket.session["theme"]]
        )

    communicator = WebsocketCommunicator(view, "/?tag=a&tag=b")
    communicator.scope.update(user=AnonymousUser(), session={"theme": "dark"})
    await communicator.connect()
    assert await communicator.receive_json_from() == [True, ["a", "b"], "dark"]
    await communicator.wait()


@pytest.mark.parametrize(
    ("name", "stack"), [("user", "AuthMiddlewareStack"), ("session", "SessionMiddlewareStack")]
)
async def test_a_missing_middleware_is_named(name, stack):
    @websocket_view
    async def view(socket):
        getattr(socket, name)

    communicator = WebsocketCommunicator(view, "/")
    with pytest.raises(ConfigurationError, match=stack):
        await communicator.connect()


async def test_json_both_ways():
    @websocket_view
    async def view(socket):
        async for value in socket.json():
            await socket.send_json({"got": value})

    communicator = WebsocketCommunicator(view, "/")
    await communicator.connect()
    for value in [1, "two", {"three": [4]}]:
        await communicator.send_json_to(value)
        assert await communicator.receive_json_from() == {"got": value}
    await communicator.disconnect()


@pytest.mark.parametrize(
    ("message", "reason"),
    [({"text_data": "{oops"}, "not JSON: "), ({"bytes_data": b"{}"}, "not in bytes")],
)
async def test_what_is_not_json_closes_with_1007(message, reason):
    @websocket_view
    async def view(socket):
        async for _ in socket.json():
            raise AssertionError("there is no value")

    communicator = WebsocketCommunicator(view, "/")
    await communicator.connect()
    await communicator.send_to(**message)
    close = await communicator.receive_output()
    assert (close["type"], close["code"]) == ("websocket.close", 1007)
    assert reason in close["reason"]
    await communicator.wait()


async def test_an_event_that_nobody_reads_is_an_error_that_says_who_reads_it(layer):
    @websocket_view
    async def view(socket):
        async with socket.group("room") as group:
            await group.send_event({"type": "chat.message"})
            await socket.receive()

    communicator = WebsocketCommunicator(view, "/")
    await communicator.connect()
    with pytest.raises(ValueError, match=r"'chat\.message'.*socket\.events\(\)"):
        await communicator.wait()


async def test_a_reader_and_a_writer_side_by_side(layer):
    @websocket_view
    async def view(socket):
        async def push():
            while True:
                await socket.send("tick")
                await ticks.wait()
                ticks.clear()

        async with asyncio.TaskGroup() as tasks:
            pushing = tasks.create_task(push())
            async for message in socket:
                await socket.send(f"{message}!")
            pushing.cancel()

    ticks = asyncio.Event()
    communicator = WebsocketCommunicator(view, "/")
    await communicator.connect()
    assert await communicator.receive_from() == "tick"
    await communicator.send_to("hello")
    assert await communicator.receive_from() == "hello!"
    ticks.set()
    assert await communicator.receive_from() == "tick"
    await communicator.disconnect()


async def test_a_group_sends_json_to_its_clients(layer):
    @websocket_view
    async def view(socket):
        async with socket.group("room") as group:
            await socket.accept()
            await group.send_json({"n": 1})
            await socket.receive()

    communicator = WebsocketCommunicator(view, "/")
    await communicator.connect()
    assert await communicator.receive_json_from() == {"n": 1}
    await communicator.disconnect()


async def test_a_group_without_a_layer_is_an_error_that_names_the_setting(settings):
    settings.CHANNEL_LAYERS = {}
    communicator = WebsocketCommunicator(URLRouter([path("<room>/", chat)]), "/tea/")
    with pytest.raises(ValueError, match=r"'room\.tea' needs a channel layer: CHANNEL_LAYERS"):
        await communicator.connect()


async def test_another_channel_layer(settings):
    settings.CHANNEL_LAYERS = {"other": {"BACKEND": "headrace.layers.InMemoryChannelLayer"}}

    @websocket_view(channel_layer_alias="other")
    async def view(socket):
        async with socket.group("room"):
            await socket.send("in")
            await socket.receive()

    communicator = WebsocketCommunicator(view, "/")
    await communicator.connect()
    assert await communicator.receive_from() == "in"
    assert list(channel_layers["other"].groups) == ["room"]
    await communicator.disconnect()
    assert not channel_layers["other"].groups


async def test_old_database_connections_are_closed_between_messages(monkeypatch):
    closings = []

    async def close():
        closings.append(True)

    monkeypatch.setattr("headrace.views.cleanup_due", lambda: True)
    monkeypatch.setattr("headrace.views.aclose_old_connections", close)
    communicator = WebsocketCommunicator(echo, "/")
    await communicator.connect()
    await communicator.send_to("one")
    await communicator.receive_from()
    await communicator.disconnect()
    assert len(closings) == 2  # before each wait for a message


def test_a_view_keeps_its_name_and_documentation():
    @websocket_view
    async def prices(socket):
        """Send prices."""

    assert (prices.__name__, prices.__doc__) == ("prices", "Send prices.")
    assert prices.consumer_class.__name__ == "prices"


def test_an_ordinary_function_is_turned_down_with_what_to_use_instead():
    def view(socket):
        pass

    with pytest.raises(TypeError, match=r"async def function.*WebsocketConsumer"):
        websocket_view(view)


@pytest.mark.parametrize("message", [None, 7, {"a": 1}])
async def test_only_text_and_bytes_are_messages(message):
    @websocket_view
    async def view(socket):
        await socket.accept()
        await socket.send(message)

    communicator = WebsocketCommunicator(view, "/")
    await communicator.connect()
    with pytest.raises(TypeError, match=f"a str or bytes, not {type(message).__name__}"):
        await communicator.wait()
