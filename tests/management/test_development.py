import asyncio
import contextlib
import logging
import re
import socket
import threading

import pytest
from django.utils.log import ServerFormatter

from headrace.management.development import DevelopmentServer, RequestLog, under_prefix
from headrace.server.config import Config, Watcher
from headrace.server.server import Server
from tests.server.clients import connected, echo, hello, respond


class Lines(logging.Handler):
    """What ``django.server`` is told, and what its formatter makes of that."""

    def __init__(self):
        super().__init__()
        self.records = []
        self.formatter = ServerFormatter("[{server_time}] {message}", style="{")
        self.formatter.style.HTTP_SUCCESS = "<ok {}>".format
        self.formatter.style.HTTP_INFO = "<info {}>".format
        self.formatter.style.HTTP_NOT_FOUND = "<missing {}>".format
        self.formatter.style.HTTP_BAD_REQUEST = "<bad {}>".format
        self.formatter.style.HTTP_SERVER_ERROR = "<error {}>".format

    def emit(self, record):
        text = self.format(record)
        text = re.sub(r"\[\d\d/\w{3}/\d{4} \d\d:\d\d:\d\d\] ", "", text)
        self.records.append((record.levelname, re.sub(r"127.0.0.1:\d+|0\.\d\d", "_", text)))


@pytest.fixture
def lines():
    logger = logging.getLogger("django.server")
    handlers, logger.handlers = logger.handlers, [Lines()]
    yield logger.handlers[0].records
    logger.handlers = handlers


@contextlib.asynccontextmanager
async def watched(application, **settings):
    config = Config(port=0, watcher=RequestLog(), lifespan="off", **settings)
    async with Server(application, config) as server, connected(server) as client:
        yield server, client


# The log


def test_it_is_what_the_server_asks_for():
    watcher: Watcher = RequestLog()
    assert watcher


@pytest.mark.parametrize(
    ("status", "level", "colour"),
    [
        (200, "INFO", "ok"),
        (404, "WARNING", "missing"),
        (400, "WARNING", "bad"),
        (500, "ERROR", "error"),
    ],
)
async def test_a_request_has_the_colour_of_its_status(lines, status, level, colour):
    async def application(scope, receive, send):
        await respond(send, status=status)

    async with watched(application) as (_, client):
        await client.get("/page?x=%1b")
    assert lines == [(level, f"<{colour} HTTP GET /page?x=%1b {status} [_, _]>")]


async def test_a_handshake_that_is_none(lines):
    async with watched(hello) as (_, client):
        await client.get("/", "Upgrade: websocket", "Connection: upgrade")
    assert lines == [("WARNING", "<bad HTTP GET / 400 [_, _]>")]


async def test_the_turns_of_a_websocket(lines):
    async with watched(echo) as (_, client):
        await client.open_websocket("/ws")
        assert lines == [
            ("INFO", "WebSocket HANDSHAKING /ws [_]"),
            ("INFO", "<info WebSocket CONNECT /ws [_]>"),
        ]
        lines.clear()
        await client.send_close(4000)
        await client.read_to_end()
        assert lines == [("INFO", "WebSocket DISCONNECT /ws 4000 [_]")]


async def test_a_websocket_whose_application_fails(lines):
    async def application(scope, receive, send):
        await send({"type": "websocket.accept"})
        await receive()
        raise LookupError

    async with watched(application) as (_, client):
        await client.open_websocket()
        assert (await client.read_close())[0] == 1011
    assert lines[2] == ("ERROR", "<error WebSocket DISCONNECT / 1011 [_]>")


async def refuse(send):
    await send({"type": "websocket.close"})


async def deny(send):
    await send({"type": "websocket.http.response.start", "status": 404, "headers": []})
    await send({"type": "websocket.http.response.body", "body": b"no"})


async def fail(send):
    raise LookupError


async def fail_while_denying(send):
    await send({"type": "websocket.http.response.start", "status": 404, "headers": []})
    raise LookupError


@pytest.mark.parametrize(
    ("answer", "level", "line"),
    [
        (refuse, "WARNING", "<bad WebSocket REJECT / 403 [_]>"),
        (deny, "WARNING", "<missing WebSocket REJECT / 404 [_]>"),
        (fail, "ERROR", "<error WebSocket REJECT / 500 [_]>"),
        (fail_while_denying, "WARNING", "<missing WebSocket REJECT / 404 [_]>"),
    ],
)
async def test_a_websocket_that_is_refused(lines, answer, level, line):
    async def application(scope, receive, send):
        await receive()
        await answer(send)

    async with watched(application) as (_, client):
        with contextlib.suppress(AssertionError):
            await client.open_websocket()
        await client.read_to_end()
    assert lines == [("INFO", "WebSocket HANDSHAKING / [_]"), (level, line)]


async def test_a_client_that_does_not_wait_for_its_handshake(lines):
    gone = threading.Event()

    async def application(scope, receive, send):
        assert (await receive())["type"] == "websocket.connect"
        client.reset()
        assert (await receive())["type"] == "websocket.disconnect"
        gone.set()

    async with watched(application) as (_, client):
        with contextlib.suppress(OSError, EOFError):
            await client.open_websocket()
    assert gone.is_set()
    assert lines[1:] == [("WARNING", "<bad WebSocket REJECT / 499 [_]>")]


async def test_a_stop_says_what_it_is_told_to_say():
    async with watched(echo) as (server, client):
        await client.open_websocket()
        server.farewell = (1012, "soon back")
        stopping = asyncio.create_task(server.stop())
        assert await client.read_close() == (1012, "soon back")
        await client.send_close(1012)
        await stopping


# The prefix


@pytest.mark.parametrize(
    ("path", "root_path"),
    [("/app/page", "/app"), ("/app/", "/app"), ("/app", None), ("/apple", None), ("/page", None)],
)
@pytest.mark.parametrize("prefix", ["/app", "/app/"])
async def test_routes_match_with_the_prefix_and_without(path, root_path, prefix):
    scopes = []

    async def application(scope, receive, send):
        scopes.append(scope)

    await under_prefix(application, prefix)({"type": "http", "path": path}, None, None)
    await under_prefix(application, prefix)({"type": "lifespan"}, None, None)
    assert [scope.get("root_path") for scope in scopes] == [root_path, None]


def test_without_a_prefix_the_application_is_itself():
    assert under_prefix(hello, "") is under_prefix(hello, "/") is hello


# The server


def test_it_listens_at_once():
    server = DevelopmentServer(("127.0.0.1", 0), ipv6=False)
    try:
        socket.create_connection(("127.0.0.1", server.server_port)).close()
        with pytest.raises(OSError, match="in use"):
            DevelopmentServer(("127.0.0.1", server.server_port), ipv6=False)
        assert server.end(restarting=True), "it has not begun"
    finally:
        server._socket.close()


def test_it_listens_by_ipv6():
    server = DevelopmentServer(("::1", 0), ipv6=True)
    socket.create_connection(("::1", server.server_port)).close()
    server._socket.close()


def test_it_ends_once_however_often_it_is_told():
    server = DevelopmentServer(("127.0.0.1", 0), ipv6=False, lifespan="off")
    server.set_app(hello)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    with socket.create_connection(("127.0.0.1", server.server_port)) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")
        assert client.recv(1000).startswith(b"HTTP/1.1 200")
    assert server.end(restarting=False)
    thread.join()
    assert server.end(restarting=False)


def test_who_is_told_to_end_before_it_begins_does_not_begin():
    server = DevelopmentServer(("127.0.0.1", 0), ipv6=False)
    server.set_app(hello)
    assert server.end(restarting=False)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()
