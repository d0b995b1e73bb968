"""Where a server listens, and how it stops."""

import asyncio
import contextlib
import logging
import os
import socket

import pytest

from headrace.exceptions import ConfigurationError
from headrace.server.config import Config
from headrace.server.server import UNSENT_BYTES, Server

from .clients import connected, echo, hello, respond, runtime_of, serving, until


def exists(path):
    return os.path.exists(path)


# Where it listens


async def test_a_free_port_and_its_address():
    async with serving(hello) as server:
        assert server.addresses == [f"http://127.0.0.1:{server.port}"]
        async with connected(server) as client:
            assert (await client.get()).body == b"hello"
    assert server.addresses == []


@pytest.mark.skipif(
    not hasattr(socket, "TCP_NOTSENT_LOWAT"), reason="this system has no such option"
)
async def test_the_system_takes_little_for_a_client_that_reads_nothing():
    async with serving(hello) as server, connected(server):
        await until(lambda: runtime_of(server).connections)
        [connection] = runtime_of(server).connections
        sock = connection._transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT) == UNSENT_BYTES


async def test_ipv6():
    seen = []

    async def app(scope, receive, send):
        seen.append((scope["client"][0], scope["server"]))
        await respond(send)

    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this host has no IPv6")
    async with serving(app, host="::1") as server:
        assert server.addresses == [f"http://[::1]:{server.port}"]
        async with connected(("::1", server.port)) as client:
            await client.get()
        assert seen == [("::1", ("::1", server.port))]


async def test_a_unix_socket(tmp_path):
    path = str(tmp_path / "app.sock")
    scopes = []

    async def app(scope, receive, send):
        scopes.append(scope)
        await echo(scope, receive, send)

    async with serving(app, uds=path) as server:
        assert server.addresses == [f"unix:{path}"]
        async with connected(path) as client:
            assert (await client.get()).status == 200
            await client.open_websocket()
            await client.send_text("hello")
            assert await client.read_text() == "hello"
    assert not exists(path)
    for scope in scopes:
        assert scope["client"] is None
        assert scope["server"] == (path, None)


async def test_a_socket_that_a_killed_server_left_behind_is_replaced(tmp_path):
    path = str(tmp_path / "app.sock")
    left = socket.socket(socket.AF_UNIX)
    left.bind(path)
    left.close()
    async with serving(hello, uds=path), connected(path) as client:
        assert (await client.get()).status == 200


async def test_a_socket_that_answers_is_left_alone(tmp_path):
    path = str(tmp_path / "app.sock")
    async with serving(hello, uds=path):
        with pytest.raises(ConfigurationError, match="another program is there"):
            await Server(hello, Config(uds=path)).start()
        async with connected(path) as client:
            assert (await client.get()).status == 200


async def test_a_file_that_is_no_socket_is_left_alone(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("keep me")
    with pytest.raises(ConfigurationError):
        await Server(hello, Config(uds=str(path))).start()
    assert path.read_text() == "keep me"


async def test_the_socket_of_a_successor_is_left_alone(tmp_path):
    path = str(tmp_path / "app.sock")
    async with serving(hello, uds=path):
        os.rename(path, path + ".old")
        successor = socket.socket(socket.AF_UNIX)
        successor.bind(path)
    assert exists(path)
    successor.close()


async def test_a_socket_file_that_is_gone_is_no_trouble(tmp_path):
    path = str(tmp_path / "app.sock")
    async with serving(hello, uds=path):
        os.unlink(path)


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX])
async def test_an_inherited_socket(family, tmp_path):
    path = str(tmp_path / "app.sock")
    with socket.socket(family) as inherited:
        inherited.bind(path if family is socket.AF_UNIX else ("127.0.0.1", 0))
        inherited.listen()
        async with serving(hello, fd=inherited.fileno()) as server:
            target = path if family is socket.AF_UNIX else inherited.getsockname()
            async with connected(target) as client:
                assert (await client.get()).status == 200
            assert len(server.addresses) == 1
        # It is not ours: neither the socket nor its file is taken away.
        assert inherited.getsockname()
        assert exists(path) == (family is socket.AF_UNIX)


async def test_a_port_in_use():
    async with serving(hello) as server:
        port = server.port
        with pytest.raises(ConfigurationError) as caught:
            await Server(hello, Config(port=port)).start()
    text = str(caught.value)
    assert text.startswith(f"cannot listen on 127.0.0.1 port {port}: address already in use")
    assert "--port" in text


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"host": "192.0.2.1"}, "this host has no such address"),
        ({"host": "no.such.host.invalid"}, "choose another"),
        ({"fd": 9999}, "cannot listen on file descriptor 9999"),
        ({"uds": "/no/such/folder/app.sock"}, "cannot listen on /no/such/folder/app.sock"),
    ],
)
async def test_a_place_that_can_not_be_had(settings, says):
    server = Server(hello, Config(**{"port": 0} | settings))
    with pytest.raises(ConfigurationError) as caught:
        await server.start()
    assert says in str(caught.value)
    await server.stop()


async def test_a_file_descriptor_that_is_no_socket():
    reader, writer = os.pipe()
    try:
        with pytest.raises(ConfigurationError, match="the number of a socket that was inherited"):
            await Server(hello, Config(fd=reader)).start()
    finally:
        os.close(reader)
        os.close(writer)


async def test_a_start_that_fails_late_leaves_nothing(tmp_path, monkeypatch):
    path = str(tmp_path / "app.sock")
    stopped = []

    async def app(scope, receive, send):
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        stopped.append(True)
        await send({"type": "lifespan.shutdown.complete"})

    async def fail(*args, **kwargs):
        raise OSError("no listener today")

    server = Server(app, Config(uds=path))
    monkeypatch.setattr(server, "_listen", fail)
    with pytest.raises(OSError, match="today"):
        await server.start()
    assert stopped
    assert not exists(path)


async def test_a_server_starts_once_at_a_time_and_again_after_a_stop():
    server = Server(hello, Config(port=0, lifespan="off"))
    await server.start()
    with pytest.raises(AssertionError):
        await server.start()
    await server.stop()
    await server.stop()


# How it stops


async def test_a_stop_refuses_new_connections_and_ends_idle_ones():
    async with serving(hello) as server, connected(server) as idle, connected(server) as fresh:
        await idle.get()
        port = server.port
        await until(lambda: len(runtime_of(server).connections) == 2)
        await server.stop()
        assert await idle.read_to_end() == b""
        assert await fresh.read_to_end() == b""
        with pytest.raises(OSError):  # noqa: PT011 - refused, in the system's words
            await asyncio.open_connection("127.0.0.1", port)


async def test_a_stop_finishes_requests():
    gate = asyncio.Event()

    async def app(scope, receive, send):
        await gate.wait()
        await respond(send, b"finished")

    async with serving(app) as server, connected(server) as client:
        await client.send(
            b"GET / HTTP/1.1\r\nHost: here\r\n\r\nGET /2 HTTP/1.1\r\nHost: here\r\n\r\n"
        )
        await until(lambda: server.counters.requests)
        stopping = asyncio.create_task(server.stop())
        await until(lambda: runtime_of(server).draining)
        gate.set()
        response = await client.read_response()
        assert response.body == b"finished"
        assert response[b"connection"] == b"close"
        assert await client.read_to_end() == b""
        await client.close()
        await stopping


async def test_a_connection_that_was_accepted_while_stopping_is_closed():
    async with serving(hello) as server:
        runtime_of(server).draining = True
        async with connected(server) as client:
            assert await client.read_to_end() == b""
        runtime_of(server).draining = False


async def test_a_stop_has_a_deadline(caplog):
    cancelled = []

    async def app(scope, receive, send):
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(scope["type"])
            raise

    async with (
        serving(app, shutdown_timeout_s=0.2) as server,
        connected(server) as client,
        connected(server) as second,
    ):
        await client.send(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
        await second.send(
            b"GET / HTTP/1.1\r\nHost: here\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        await until(lambda: server.counters.requests and server.counters.websockets)
        await server.stop()
        assert sorted(cancelled) == ["http", "websocket"]
    assert "have not ended in 0.2 s: they are cut off" in caplog.text
    assert "was cancelled" not in caplog.text


async def test_a_second_stop_is_in_a_hurry(caplog):
    async def app(scope, receive, send):
        await asyncio.Event().wait()

    async with serving(app, shutdown_timeout_s=60) as server, connected(server) as client:
        await client.send(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
        await until(lambda: server.counters.requests)
        first = asyncio.create_task(server.stop())
        await until(lambda: runtime_of(server).draining)
        assert not server.hurried
        await server.stop()
        assert server.hurried
        await first


async def test_a_task_that_will_not_end_is_left_with_an_error(caplog, monkeypatch):
    monkeypatch.setattr("headrace.server.server.CANCELLED_S", 0.1)
    gate = asyncio.Event()

    async def app(scope, receive, send):
        while not gate.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await gate.wait()

    async with serving(app, shutdown_timeout_s=0.1) as server, connected(server) as client:
        runtime = runtime_of(server)
        await client.send(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
        await until(lambda: server.counters.requests)
        await server.stop()
        assert "1 tasks of the application go on although they were cancelled" in caplog.text
        gate.set()
        await until(lambda: not runtime.tasks)


async def test_a_stop_waits_for_work_after_the_response(caplog):
    finished = []
    gate = asyncio.Event()

    async def app(scope, receive, send):
        await respond(send)
        await gate.wait()
        finished.append(True)

    async with serving(app) as server:
        async with connected(server) as client:
            await client.get()
        stopping = asyncio.create_task(server.stop())
        await until(lambda: runtime_of(server).draining)
        assert not finished
        gate.set()
        await stopping
        assert finished
    assert caplog.records == []


async def test_counters():
    async with serving(hello) as server, connected(server) as client:
        logging.getLogger("headrace").debug("counting")
        await client.get()
        await client.get()
        counters = server.counters
        assert (counters.connections, counters.requests, counters.websockets) == (1, 2, 0)
