"""WebSocket consumers on every road: our server, another's, middleware, layers that only pull.

What is promised is the same on all of them, for the asynchronous class and for the other.
"""

import asyncio
import logging

import pytest
from websockets.exceptions import InvalidStatus

from .probes import Trouble


async def closed(socket):
    """Wait for the end of the connection; return the code of the server's close frame."""
    async with asyncio.timeout(5):
        await socket.wait_closed()
    return socket.close_code


def gone(layer):
    """Whether no consumer has left anything behind."""
    return not any(getattr(layer, "groups", {}).values())


def errors(caplog):
    return [record for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.fixture
def cut_off(road):
    """The code by which this server says that there was none."""
    return 1005 if road == "uvicorn" else 1006


async def test_text_and_bytes_go_both_ways(serve, probe, client):
    async with serve(probe.as_asgi()) as port, client(port) as socket:
        await socket.send("echo hello")
        assert await socket.recv() == "hello"
        await socket.send(b"\x00\xff")
        assert await socket.recv() == b"\x00\xff"


async def test_a_subprotocol_and_headers_are_accepted(serve, probe, client):
    probe.connecting = "subprotocol"
    async with (
        serve(probe.as_asgi()) as port,
        client(port, subprotocols=["first", "second"]) as socket,
    ):
        assert socket.subprotocol == "second"
        assert socket.response.headers["x-probe"] == "yes"


async def test_groups_reach_the_handler_with_an_event_of_its_own(serve, probe, client, layer):
    probe.groups = ["room"]
    async with serve(probe.as_asgi()) as port, client(port) as first, client(port) as second:
        event = {"type": "chat.message", "text": "news", "seen": []}
        for _ in range(2):
            await layer.group_send("room", event)
        for socket in (first, second):
            assert [await socket.recv(), await socket.recv()] == ["news!", "news!"]
    assert event == {"type": "chat.message", "text": "news", "seen": []}


async def test_events_for_the_client_need_no_handler_and_keep_their_order(
    serve, probe, client, layer
):
    probe.groups = ["room"]
    async with serve(probe.as_asgi()) as port, client(port) as socket:
        for number in range(20):
            await layer.group_send("room", {"type": "websocket.send", "text": str(number)})
        await layer.group_send("room", {"type": "websocket.send", "bytes": b"last"})
        await layer.group_send("room", {"type": "websocket.close", "code": 4005})
        assert [await socket.recv() for _ in range(20)] == [str(n) for n in range(20)]
        assert await socket.recv() == b"last"
        assert await closed(socket) == 4005
        await probe.diary.until("disconnect", 4005)


async def test_events_for_the_client_wait_for_the_accept(serve, probe, client, layer):
    probe.groups = ["room"]
    probe.gate = asyncio.Event()
    async with serve(probe.as_asgi()) as port:
        connecting = asyncio.ensure_future(client(port).__aenter__())
        await probe.diary.until("connect")
        for number in range(5):
            await layer.group_send("room", {"type": "websocket.send", "text": str(number)})
        probe.gate.set()
        socket = await connecting
        await layer.group_send("room", {"type": "websocket.send", "text": "5"})
        assert [await socket.recv() for _ in range(6)] == list("012345")
        await socket.close()


@pytest.mark.parametrize("road", ["headrace", "headrace, send wrapped", "uvicorn"])
async def test_what_waits_for_the_accept_is_bounded(serve, probe, client, layer, caplog):
    probe.groups = ["room"]
    probe.gate = asyncio.Event()
    async with serve(probe.as_asgi()) as port:
        connecting = asyncio.ensure_future(client(port).__aenter__())
        await probe.diary.until("connect")
        for number in range(40):
            await layer.group_send("room", {"type": "websocket.send", "text": str(number)})
        await asyncio.sleep(0)  # what is for clients leaves at the end of the turn
        assert layer.dropped == 8
        assert len([r for r in caplog.records if "had no room" in r.message]) == 1
        probe.gate.set()
        socket = await connecting
        assert [await socket.recv() for _ in range(32)] == [str(n) for n in range(32)]
        await socket.close()


async def test_a_consumer_may_handle_what_would_go_to_the_client(serve, probe, client, layer):
    if asyncio.iscoroutinefunction(probe.receive):

        async def websocket_send(self, event):
            event["text"] += " (seen)"
            await self.base_send(event)
    else:

        def websocket_send(self, event):
            self.send(event["text"] + " (seen)")

    probe.websocket_send = websocket_send
    probe.groups = ["room"]
    async with serve(probe.as_asgi()) as port, client(port) as socket:
        await layer.group_send("room", {"type": "websocket.send", "text": "one"})
        await layer.group_send("room", {"type": "websocket.close", "code": 4006})
        assert await socket.recv() == "one (seen)"
        assert await closed(socket) == 4006


async def test_a_direct_message_is_handled(serve, probe, client, layer):
    async with serve(probe.as_asgi()) as port, client(port) as socket:
        await socket.send("echo up")
        await socket.recv()
        [consumer] = probe.diary.consumers
        await layer.send(
            consumer.channel_name, {"type": "chat.message", "text": "psst", "seen": []}
        )
        assert await socket.recv() == "psst!"


# How it ends


async def test_the_client_leaves(serve, probe, client, layer, caplog):
    probe.groups = ["room"]
    async with serve(probe.as_asgi()) as port:
        async with client(port) as socket:
            await socket.send("join another")
            await socket.recv()
            await socket.close(4000)
        await probe.diary.until("disconnect", 4000)
    assert probe.diary.all("disconnect") == [4000]
    assert not layer.groups.get("room")
    assert not errors(caplog)


async def test_the_client_is_cut_off(serve, probe, client, layer, cut_off):
    async with serve(probe.as_asgi()) as port, client(port) as socket:
        socket.transport.abort()
        await probe.diary.until("disconnect", cut_off)
    assert probe.diary.all("disconnect") == [cut_off]


async def test_the_server_closes(serve, probe, client, layer, caplog):
    async with serve(probe.as_asgi()) as port:
        async with client(port) as socket:
            await socket.send("close 4001")
            assert await closed(socket) == 4001
            assert socket.close_reason == "told to"
        await probe.diary.until("disconnect", 4001)
    assert probe.diary.all("disconnect") == [4001]
    assert not errors(caplog)


async def test_the_server_says_something_and_closes(serve, probe, client):
    async with serve(probe.as_asgi()) as port, client(port) as socket:
        await socket.send("goodbye")
        assert await socket.recv() == "goodbye"
        assert await closed(socket) == 4002
        await probe.diary.until("disconnect", 4002)


@pytest.mark.parametrize("where", ["receive", "a handler"])
async def test_a_handler_fails(serve, probe, client, layer, caplog, where):
    probe.groups = ["room"]
    async with serve(probe.as_asgi()) as port, client(port) as socket:
        if where == "receive":
            await socket.send("fail")
        else:
            await layer.group_send("room", {"type": "chat.fail"})
        assert await closed(socket) == 1011
        await probe.diary.until("disconnect", 1011)
    assert probe.diary.all("disconnect") == [1011]
    assert gone(layer)
    assert [record.exc_info[0] for record in errors(caplog)] == [Trouble]


async def test_connect_fails(serve, probe, client, layer, caplog):
    probe.connecting = "fail"
    probe.groups = ["room"]
    async with serve(probe.as_asgi()) as port:
        with pytest.raises(InvalidStatus) as caught:
            await client(port).__aenter__()
        assert caught.value.response.status_code == 500
        await probe.diary.until("disconnect", 1011)
    assert probe.diary.all("disconnect") == [1011]
    assert gone(layer)
    assert Trouble in [record.exc_info[0] for record in errors(caplog) if record.exc_info]


async def test_disconnect_fails(serve, probe, client, layer, caplog):
    probe.disconnecting = "fail"
    probe.groups = ["room"]
    async with serve(probe.as_asgi()) as port:
        async with client(port) as socket:
            await socket.close(4000)
        await probe.diary.until("disconnect", 4000)
    assert probe.diary.all("disconnect") == [4000]
    assert gone(layer)
    assert [record.exc_info[0] for record in errors(caplog)] == [Trouble]


async def test_a_handler_and_disconnect_fail(serve, probe, client, layer, caplog):
    probe.disconnecting = "fail"
    async with serve(probe.as_asgi()) as port, client(port) as socket:
        await socket.send("fail")
        assert await closed(socket) == 1011
    assert probe.diary.all("disconnect") == [1011]
    assert [str(record.exc_info[1]) for record in errors(caplog)] == ["in disconnect", "in receive"]


@pytest.mark.parametrize("how", ["raise deny", "close"])
async def test_a_connection_is_refused(serve, probe, client, layer, caplog, how):
    probe.connecting = how
    probe.groups = ["room"]
    async with serve(probe.as_asgi()) as port:
        with pytest.raises(InvalidStatus) as caught:
            await client(port).__aenter__()
        assert caught.value.response.status_code == 403
        await probe.diary.until("disconnect", 1006)
    assert probe.diary.all("disconnect") == [1006]
    assert gone(layer)
    assert not errors(caplog)


@pytest.mark.parametrize(
    ("how", "status", "body", "content_type"),
    [
        ("deny", 404, b"no such room", "text/plain; charset=utf-8"),
        ("deny with bytes", 401, b'{"room": null}', "application/json"),
        ("deny with nothing", 403, b"", "text/plain; charset=utf-8"),
    ],
)
async def test_a_connection_is_denied_in_the_consumers_own_words(
    serve, probe, client, layer, caplog, how, status, body, content_type
):
    probe.connecting = how
    probe.groups = ["room"]
    async with serve(probe.as_asgi()) as port:
        with pytest.raises(InvalidStatus) as caught:
            await client(port).__aenter__()
        response = caught.value.response
        assert (response.status_code, response.body) == (status, body)
        assert response.headers.get("content-type") == content_type
        assert response.headers["content-length"] == str(len(body))
        assert response.headers.get("x-reason") == ("room" if "bytes" in how else None)
        await probe.diary.until("disconnect", 1006)
    assert probe.diary.all("disconnect") == [1006]
    assert gone(layer)
    assert not errors(caplog)


async def test_a_denial_comes_too_late_once_it_is_accepted(serve, probe, client, caplog):
    async with serve(probe.as_asgi()) as port, client(port) as socket:
        await socket.send("deny")
        assert await closed(socket) == 1011
    [record] = errors(caplog)
    assert "deny() stands in the place of accept()" in str(record.exc_info[1])


async def test_accept_by_exception(serve, probe, client):
    probe.connecting = "raise accept"
    async with serve(probe.as_asgi()) as port, client(port) as socket:
        await socket.send("echo in")
        assert await socket.recv() == "in"


async def test_stop_consumer_in_a_handler(serve, probe, client, layer, caplog):
    probe.groups = ["room"]
    async with serve(probe.as_asgi()) as port, client(port) as socket:
        await socket.send("stop")
        assert await closed(socket) == 1000
        await probe.diary.until("disconnect", 1000)
    assert probe.diary.all("disconnect") == [1000]
    assert gone(layer)
    assert not errors(caplog)


async def test_a_handler_meets_that_the_client_is_gone(serve, probe, client, caplog, cut_off):
    """It is given up without an error; what had arrived is handled; the real code is told."""
    async with serve(probe.as_asgi()) as port:
        async with client(port) as socket:
            await socket.send("talk")
            await socket.send("note said before leaving")
            await probe.diary.until("talk")
            socket.transport.abort()
        await probe.diary.until("disconnect", cut_off)
    assert probe.diary.all("note") == ["said before leaving"]
    assert probe.diary.all("disconnect") == [cut_off]
    assert not errors(caplog)


async def test_disconnect_may_try_to_send(serve, probe, client, layer, caplog):
    probe.disconnecting = "send"
    async with serve(probe.as_asgi()) as port:
        async with client(port) as socket:
            await socket.close(4000)
        await probe.diary.until("disconnect", 4000)
    assert not errors(caplog)


async def test_nothing_is_left_of_those_who_came_and_went(serve, probe, client, layer):
    probe.groups = ["room", "other"]
    async with serve(probe.as_asgi()) as port:
        sockets = [await client(port).__aenter__() for _ in range(20)]
        for number, socket in enumerate(sockets):
            if number % 2:
                socket.transport.abort()
            else:
                await socket.close()
        await probe.diary.until_true(lambda: len(probe.diary.all("disconnect")) == 20)
    assert gone(layer)
    assert not getattr(layer, "channels", ())
