"""HTTP/2 on the server: who gets it, what applications see, back-pressure, WebSockets, the end."""

import asyncio
import contextlib
import logging
import shutil
import subprocess
import sys
from collections import Counter

import httpx
import pytest

from headrace.exceptions import ConfigurationError
from headrace.protocols._http2_limits import Http2Limits
from headrace.protocols.http1 import Http1Limits
from headrace.server import config as config_module
from headrace.server import turn
from headrace.server.config import Config
from headrace.server.limits import ClientLimits
from headrace.server.proxy import ProxyHeaders
from headrace.server.websocket import WebSocketStream
from headrace.server.wsgi import WsgiApplication

from .clients import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    connected,
    echo,
    frame,
    hello,
    read_body,
    respond,
    runtime_of,
    serving,
    until,
)
from .h2_client import (
    CANCEL,
    DATA,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    GOAWAY,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    INTERNAL_ERROR,
    NO_ERROR,
    REFUSED_STREAM,
    RST_STREAM,
    SETTINGS_TIMEOUT,
    h2,
    request,
    setting,
    websocket,
)
from .h2_client import PING as H2_PING

MEGABYTE = 1_000_000


def open_window(client):
    """Let the server send as much as it likes."""
    return client.window(0, 2**30).set(INITIAL_WINDOW_SIZE, 2**30)


def connection_of(server):
    [connection] = [
        connection
        for connection in runtime_of(server).connections
        if connection.protocol == "http/2"
    ]
    return connection


# Who gets HTTP/2


async def test_the_same_port_speaks_both():
    async with serving(hello) as server:
        async with connected(server) as client:
            assert (await client.get()).body == b"hello"
        async with h2(server) as client:
            assert (await client.get().answer()).body == b"hello"


async def test_a_preface_in_pieces():
    async with serving(hello) as server, h2(server, started=False) as client:
        data = bytes(client.preface().get().out)
        client.out.clear()
        for at in range(len(data)):
            await client.client.send(data[at : at + 1])
            await asyncio.sleep(0)
        assert (await client.answer()).body == b"hello"


async def test_an_upgrade_to_h2c_is_answered_by_http11():
    # RFC 9113 §3.1: it is no more; to ignore an Upgrade is as good as to follow it.
    async with serving(hello) as server, connected(server) as client:
        response = await client.get(
            "/",
            "Upgrade: h2c",
            "Connection: Upgrade, HTTP2-Settings",
            "HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA",
        )
        assert (response.status, response.body) == (200, b"hello")


@pytest.mark.parametrize("missing", [True, False])
async def test_without_it_there_is_http11(missing, monkeypatch):
    monkeypatch.setattr(config_module, "_has_h2", lambda: not missing)
    async with (
        serving(hello, http2="auto" if missing else "off") as server,
        connected(server) as client,
    ):
        await client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        assert (await client.read_response()).status == 505


def test_to_insist_on_it_takes_the_package(monkeypatch):
    monkeypatch.setattr(config_module, "_has_h2", lambda: False)
    assert not Config(http2="auto").speaks_http2
    with pytest.raises(ConfigurationError, match=r"pip install 'headrace\[http2\]'"):
        Config(http2="on")


@pytest.mark.parametrize(
    "limits",
    [{"streams": 0}, {"stream_window_bytes": 1000}, {"header_table_bytes": -1}, {"pings": 2**32}],
)
def test_limits_have_limits(limits):
    with pytest.raises(ConfigurationError, match=f"http2.{next(iter(limits))} must be from"):
        Http2Limits(**limits)


# What applications see


async def test_the_scope():
    scopes = []

    async def application(scope, receive, send):
        scopes.append(scope)
        await respond(send)

    async with serving(application) as server, h2(server) as client:
        client.get(1, "/a%20b?c=d", ("x-y", "z"))
        await client.answer()
    [scope] = scopes
    assert scope["type"] == "http"
    assert scope["http_version"] == "2"
    assert scope["method"] == "GET"
    assert scope["scheme"] == "http"
    assert (scope["path"], scope["raw_path"], scope["query_string"]) == (
        "/a b",
        b"/a%20b",
        b"c=d",
    )
    assert scope["headers"] == [(b"host", b"here"), (b"x-y", b"z")]
    assert all(type(pair) is tuple for pair in scope["headers"])
    assert scope["client"][0] == "127.0.0.1"
    assert "http.response.trailers" in scope["extensions"]
    assert "http.response.push" not in scope["extensions"]


async def test_a_body_comes_as_it_was_sent():
    async with serving(echo) as server, h2(server) as client:
        client.post()
        for _ in range(100):
            client.data(1, b"0123456789")
        client.data(1, ends=True)
        assert (await client.answer()).body == b"0123456789" * 100


async def test_a_body_larger_than_every_window():
    async with serving(echo) as server, h2(server) as client:
        body = bytes(range(256)) * 12_000
        client.post()
        sent = asyncio.create_task(_upload(client, 1, body))
        answer = await client.answer()
        await sent
        assert answer.body == body


async def _upload(client, stream, body):
    """Send a body as the windows allow; whoever reads the frames sees their updates."""
    for at in range(0, len(body), 16_384):
        size = len(body[at : at + 16_384])
        while _window(client, stream) < at + size:  # noqa: ASYNC110 - the reader has them
            await asyncio.sleep(0.001)
        await client.flush()
        client.data(stream, body[at : at + size], ends=at + size == len(body))
        await client.flush()


def _window(client, stream):
    updates = {0: 65_535, stream: client.settings.get(INITIAL_WINDOW_SIZE, 65_535)}
    for heard in client.seen:
        if heard.kind == 8 and heard.stream in updates:
            updates[heard.stream] += int.from_bytes(heard.payload, "big")
    return min(updates.values())


async def test_early_hints_and_100_continue():
    async def application(scope, receive, send):
        await send({"type": "http.response.early_hint", "links": [b"</a.css>; rel=preload"]})
        await respond(send, await read_body(receive))

    async with serving(application) as server, h2(server) as client:
        client.post(1, "/", ("expect", "100-continue"))
        heard = [dict((await client.until(HEADERS)).fields) for _ in range(2)]
        assert heard[0] == {b":status": b"103", b"link": b"</a.css>; rel=preload"}
        assert heard[1] == {b":status": b"100"}
        client.data(1, b"body", ends=True)
        assert (await client.answer()).body == b"body"


async def test_trailers_of_a_response():
    async def application(scope, receive, send):
        if "http.response.trailers" not in scope["extensions"]:
            await respond(send, b"no trailers")
            return
        await send({"type": "http.response.start", "status": 200, "trailers": True})
        await send({"type": "http.response.body", "body": b"body"})
        trailers = {"type": "http.response.trailers", "headers": [(b"x-sum", b"1")]}
        await send({**trailers, "more_trailers": True})
        await send({"type": "http.response.trailers", "headers": [(b"x-end", b"2")]})

    async with serving(application) as server:
        async with h2(server) as client:
            answer = await client.get().answer()
            assert answer.body == b"body"
            assert answer.trailers == [(b"x-sum", b"1"), (b"x-end", b"2")]
        async with connected(server) as client:
            assert (await client.get()).body == b"no trailers"
            await client.send(b"GET / HTTP/1.1\r\nHost: here\r\nTE: trailers\r\n\r\n")
            head = await client.read_head()
            assert head[b"transfer-encoding"] == b"chunked"
            assert await client.read(34) == b"4\r\nbody\r\n0\r\nx-sum: 1\r\nx-end: 2\r\n\r\n"


async def test_what_belongs_to_http11_is_left_out_of_a_response():
    async def application(scope, receive, send):
        headers = [(b"Connection", b"close"), (b"Transfer-Encoding", b"chunked"), (b"X", b" v ")]
        await respond(send, b"body", headers=headers)

    async with serving(application) as server, h2(server) as client:
        answer = await client.get().answer()
        names = [name for name, _ in answer.headers]
        assert names == [b"x", b"date", b"server", b"content-length"]
        assert answer[b"x"] == b"v"


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ({"status": 200, "headers": [(b"a b", b"")]}, "not a token"),
        ({"status": 200, "headers": [(b"x", b"a\r\nb: c")]}, "control character"),
        ({"status": 200, "headers": [(b"transfer-encoding", b"gzip")]}, "transfer-encoding"),
        ({"status": 200, "headers": [(b"content-length", b"x")]}, "not a number"),
        ({"status": 200, "headers": [(b"content-length", b"1")] * 2}, "given twice"),
        ({"status": 204, "headers": [(b"content-length", b"1")]}, "no content"),
        ({"status": 99}, "not a status"),
    ],
)
async def test_what_may_not_be_sent_is_not(message, reason, caplog):
    async def application(scope, receive, send):
        await send({"type": "http.response.start", **message})

    async with serving(application) as server, h2(server) as client:
        assert (await client.get().answer()).status == 500
        await client.alive()
    assert reason in caplog.text


@pytest.mark.parametrize("extra", [b"", b"abcdef"])
async def test_a_body_is_as_long_as_its_content_length(extra, caplog):
    async def application(scope, receive, send):
        headers = [(b"content-length", b"5")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"ab", "more_body": True})
        await send({"type": "http.response.body", "body": extra})

    async with serving(application) as server, h2(server) as client:
        client.get()
        assert (await client.until(RST_STREAM)).code == INTERNAL_ERROR
        await client.alive()
    assert "not as long as announced" in caplog.text


async def test_an_application_that_raises():
    async def application(scope, receive, send):
        if scope["path"] == "/late":
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": b"some", "more_body": True})
        raise RuntimeError("no")

    async with serving(application) as server, h2(server) as client:
        assert (await client.get(1).answer(1)).status == 500
        client.get(3, "/late")
        assert (await client.until(RST_STREAM, stream=3)).code == INTERNAL_ERROR
        await client.alive()


async def test_head_keeps_the_length():
    async def application(scope, receive, send):
        await respond(send, b"five!")

    async with serving(application) as server, h2(server) as client:
        answer = await client.headers(1, request("HEAD")).answer()
        assert (answer.body, answer[b"content-length"]) == (b"", b"5")


async def test_many_requests_at_once_are_answered_as_they_are_done():
    turn = {str(number): asyncio.Event() for number in range(20)}

    async def application(scope, receive, send):
        name = scope["path"][1:]
        await turn[name].wait()
        await respond(send, name.encode())

    async with serving(application) as server, h2(server) as client:
        for number in range(20):
            client.get(2 * number + 1, f"/{number}")
        await client.flush()
        for number in reversed(range(20)):
            turn[str(number)].set()
            assert (await client.answer(2 * number + 1)).body == str(number).encode()


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ([("x", "y" * 20_000)], 431),
        ([(f"x{n}", "y") for n in range(101)], 431),
        ([(f"x{n}", "y" * 10_000) for n in range(7)], 431),
        ([("content-length", "2000")], 413),
    ],
)
async def test_what_is_too_much_for_http11_is_too_much_here(fields, status):
    limits = Http1Limits(body_bytes=1000)
    async with serving(hello, http=limits) as server, h2(server) as client:
        block = client.block(request("POST", "/", *fields))
        pieces = [block[at : at + 16_000] for at in range(0, len(block), 16_000)]
        for at, piece in enumerate(pieces):
            flags = (at == len(pieces) - 1) * 4
            client.frame(9 if at else HEADERS, flags, 1, piece)
        assert (await client.answer()).status == status
        await client.alive()


async def test_a_path_that_is_too_long():
    async with serving(hello) as server, h2(server) as client:
        assert (await client.get(1, "/" + "a" * 9000).answer()).status == 414


async def test_a_body_that_turns_out_too_long():
    async with serving(echo, http=Http1Limits(body_bytes=1000)) as server, h2(server) as client:
        client.post(1).data(1, bytes(2000))
        assert (await client.answer()).status == 413
        await client.alive()


@pytest.mark.parametrize("announced", [(), (("content-length", "2000"),)])
async def test_a_limit_of_0_is_none(announced):
    async with serving(echo, http=Http1Limits(body_bytes=0)) as server, h2(server) as client:
        client.headers(1, request("POST", "/", *announced), ends=False)
        client.data(1, bytes(2000), ends=True)
        assert (await client.answer()).body == bytes(2000)


async def test_a_body_that_turns_out_too_long_is_refused_once(caplog):
    caplog.set_level(logging.INFO, "headrace.server")
    limits = Http2Limits(resets=2)
    async with (
        serving(echo, http=Http1Limits(body_bytes=1000), http2_limits=limits) as server,
        h2(server) as client,
    ):
        # All of it has come before the answer could leave: a mistake, and not twenty.
        client.post(1)
        for _ in range(20):
            client.data(1, bytes(500))
        assert (await client.answer(1)).status == 413
        assert (await client.get(3).answer(3)).status == 200
        assert server.counters.refused == 1
    assert caplog.text.count("the body is longer than 1000 bytes") == 1


# Back-pressure


async def test_a_response_waits_for_the_client_and_for_nothing_else():
    sent = []

    async def application(scope, receive, send):
        if scope["path"] == "/small":
            await respond(send, b"small")
            return
        await send({"type": "http.response.start", "status": 200})
        for _ in range(100):
            await send({"type": "http.response.body", "body": bytes(10_000), "more_body": True})
            sent.append(10_000)
        await send({"type": "http.response.body"})

    async with serving(application) as server, h2(server) as client:
        client.acknowledges = False
        client.window(0, 2**20)
        client.get(1, "/large")
        # One window is with the client, 64 KiB and a part wait here.
        while sum(len(f.payload) for f in client.seen if f.kind == DATA) < 65_535:
            await client.read()
        await client.alive()
        assert sum(sent) <= 65_535 + 65_536 + 10_000
        assert (await client.get(3, "/small").answer(3)).body == b"small"
        client.acknowledges = True
        client.window(1, 65_535)
        total = 65_535
        while total < 1_000_000:
            total += len((await client.until(DATA, stream=1)).payload)
        await until(lambda: len(sent) == 100)


async def test_what_the_application_does_not_take_is_not_acknowledged():
    go = asyncio.Event()

    async def application(scope, receive, send):
        await go.wait()
        await respond(send, b"%d" % len(await read_body(receive)))

    limits = Http2Limits(stream_window_bytes=65_535)
    async with serving(application, http2_limits=limits) as server, h2(server) as client:
        client.post()
        for _ in range(4):
            client.data(1, bytes(16_000))
        await client.alive()
        assert not [heard for heard in client.seen if heard.kind == 8 and heard.stream == 1]
        go.set()
        await client.until(8, stream=1)
        client.data(1, bytes(16_000), ends=True)
        assert (await client.answer()).body == b"80000"


async def test_streams_take_turns():
    async def application(scope, receive, send):
        await respond(send, bytes(200_000))

    async with serving(application) as server, h2(server) as client:
        client.acknowledges = False
        open_window(client)
        await client.alive()
        client.get(1).get(3)
        await client.flush()
        order = []
        while len(order) < 26:
            order.append((await client.until(DATA)).stream)
        # Neither waits until the other is done.
        assert {1, 3} == set(order[:3])
        assert abs(order[:20].count(1) - order[:20].count(3)) <= 2


async def test_a_stream_whose_window_stays_shut_is_cut_off(caplog):
    # CVE-2019-9511 and its kind: the client asks for much, and takes nothing.
    caplog.set_level(logging.INFO, "headrace")

    async def application(scope, receive, send):
        await respond(send, bytes(100_000))

    async with (
        serving(application, write_timeout_s=0.2) as server,
        h2(server, setting(INITIAL_WINDOW_SIZE, 0)) as client,
    ):
        client.get()
        assert (await client.until(RST_STREAM)).code == CANCEL
        await client.alive()
        assert server.counters.refused == 1
    assert "the client has taken nothing for 0.2 s: its stream is reset" in caplog.text


@pytest.mark.parametrize("waits_in", ["send", "receive"])
@pytest.mark.parametrize("end", ["by the clock", "with their client"])
async def test_streams_that_end_together_end_a_few_in_a_turn(monkeypatch, end, waits_in):
    # One piece of what can wait in each turn, however fast it is.
    monkeypatch.setattr(turn, "LATER_S", 1e-9)
    streams = range(1, 81, 2)
    turns, begun, ended = 0, 0, Counter()

    async def application(scope, receive, send):
        nonlocal begun
        begun += 1
        part = {"type": "http.response.body", "body": bytes(40_000), "more_body": True}
        await send({"type": "http.response.start", "status": 200})
        await send(part)
        assert (await receive())["type"] == "http.request"
        with contextlib.suppress(OSError):
            while waits_in == "send" or (await receive())["type"] != "http.disconnect":
                await send(part)
        ended[turns] += 1

    def count():
        nonlocal turns, counting
        turns += 1
        counting = asyncio.get_running_loop().call_soon(count)

    by_clock = end == "by the clock"
    async with serving(application, write_timeout_s=0.3 if by_clock else 60.0) as server:
        async with h2(server, setting(INITIAL_WINDOW_SIZE, 0)) as client:
            for stream in streams:
                client.get(stream)
            await client.flush()
            await until(lambda: begun == len(streams))
            counting = asyncio.get_running_loop().call_soon(count)
            if by_clock:
                await until(lambda: ended.total() == len(streams))
                await client.alive()
        await until(lambda: ended.total() == len(streams))
        counting.cancel()
    assert max(ended.values()) <= len(streams) / 10


async def test_a_client_that_reads_nothing_is_cut_off(caplog):
    caplog.set_level(logging.INFO, "headrace.server")

    async def application(scope, receive, send):
        await send({"type": "http.response.start", "status": 200})
        while True:
            await send({"type": "http.response.body", "body": bytes(60_000), "more_body": True})

    async with (
        serving(application, write_timeout_s=0.3, application_close_timeout_s=0.1) as server,
        h2(server, receive_buffer=8192) as client,
    ):
        open_window(client)
        client.get()
        await client.flush()
        connection = connection_of(server)
        await until(lambda: connection.paused)
        assert connection.engine.pending_bytes < 200_000
        await until(lambda: not runtime_of(server).connections)
    assert "has taken nothing for 0.3 s" in caplog.text


async def test_a_client_that_does_not_read_is_not_read():
    # CVE-2019-9512 and its kind: pings and settings whose answers nobody takes.
    async def application(scope, receive, send):
        await respond(send, bytes(8 * MEGABYTE))

    async with serving(application) as server, h2(server, receive_buffer=8192) as client:
        open_window(client)
        client.get()
        await client.flush()
        connection = connection_of(server)
        await until(lambda: connection.paused)
        before = connection.received_bytes
        for _ in range(20):
            client.frame(H2_PING, 0, 0, bytes(8))
        await client.flush()
        await asyncio.sleep(0.05)
        assert connection.received_bytes == before
        total = 0
        while total < 8 * MEGABYTE:
            total += len((await client.until(DATA)).payload)
        await client.alive()


# WebSockets (RFC 8441)


class WebSocket:
    """A WebSocket on one stream of a raw client."""

    def __init__(self, client, stream=1):
        self.client = client
        self.stream = stream
        self.unread = b""
        self.ended = False

    async def open(self, path="/", *extra):
        self.client.headers(self.stream, websocket(path, *extra), ends=False)
        heard = await self.client.until(HEADERS, stream=self.stream)
        return dict(heard.fields)

    def send(self, opcode, payload=b"", **options):
        data = frame(opcode, payload, **options)
        for at in range(0, len(data), 16_000):
            self.client.data(self.stream, data[at : at + 16_000])

    async def read(self):
        """The next frame of the server: opcode and payload."""
        while True:
            if len(self.unread) >= 2:
                length, at = self.unread[1], 2
                if length >= 126:
                    at = 4 if length == 126 else 10
                    length = int.from_bytes(self.unread[2:at], "big")
                if len(self.unread) >= at + length:
                    opcode, payload = self.unread[0] & 15, self.unread[at : at + length]
                    self.unread = self.unread[at + length :]
                    return opcode, payload
            if self.ended:
                return None
            heard = await self.client.until(DATA, RST_STREAM, stream=self.stream)
            assert heard.kind == DATA, heard
            self.unread += heard.payload
            self.ended = bool(heard.flags & END_STREAM)


async def test_a_websocket():
    scopes = []

    async def application(scope, receive, send):
        scopes.append(scope)
        await echo(scope, receive, send)

    async with serving(application) as server, h2(server) as client:
        ws = WebSocket(client)
        assert (await ws.open("/room?a=b", ("sec-websocket-protocol", "chat")))[
            b":status"
        ] == b"200"
        ws.send(TEXT, "grüß dich".encode())
        assert await ws.read() == (TEXT, "grüß dich".encode())
        ws.send(BINARY, bytes(200_000))
        total = await ws.read()
        assert total == (BINARY, bytes(200_000))
        ws.send(PING, b"?")
        assert await ws.read() == (PONG, b"?")
        ws.send(CLOSE, (1000).to_bytes(2, "big"))
        assert await ws.read() == (CLOSE, b"\x03\xe8")
        assert await ws.read() is None
        client.data(1, ends=True)
        await client.alive()
        await until(lambda: len(runtime_of(server).connections) == 1)
    [scope] = scopes
    assert scope["type"] == "websocket"
    assert (scope["http_version"], scope["scheme"], scope["path"]) == ("2", "ws", "/room")
    assert scope["subprotocols"] == ["chat"]
    assert scope["headers"][0] == (b"host", b"here")


async def test_many_websockets_and_requests_on_one_connection():
    async with serving(echo) as server, h2(server) as client:
        sockets = [WebSocket(client, stream) for stream in range(1, 41, 2)]
        for ws in sockets:
            assert (await ws.open())[b":status"] == b"200"
        for number, ws in enumerate(sockets):
            ws.send(TEXT, b"%d" % number)
            assert await ws.read() == (TEXT, b"%d" % number)
        client.post(101).data(101, b"body", ends=True)
        assert (await client.answer(101)).body == b"body"
        assert server.counters.websockets == 20
        # Each byte is counted once, whatever carries it.
        connection = connection_of(server)
        assert server.counters.bytes_received == connection.received_bytes
        assert server.counters.bytes_sent == connection.sent_bytes
        assert server.counters.connections == 1


async def test_compression_and_a_subprotocol_are_agreed_upon():
    async def application(scope, receive, send):
        await receive()
        await send(
            {"type": "websocket.accept", "subprotocol": "b", "headers": [(b"x-hello", b"1")]}
        )
        await receive()

    async with serving(application) as server, h2(server) as client:
        answer = await WebSocket(client).open(
            "/",
            ("sec-websocket-protocol", "a, b"),
            ("sec-websocket-extensions", "permessage-deflate"),
        )
        assert answer[b"sec-websocket-protocol"] == b"b"
        assert b"permessage-deflate" in answer[b"sec-websocket-extensions"]
        assert answer[b"x-hello"] == b"1"
        assert b"sec-websocket-accept" not in answer


async def test_what_comes_before_the_accept_is_kept():
    accept = asyncio.Event()

    async def application(scope, receive, send):
        await receive()
        await accept.wait()
        await send({"type": "websocket.accept"})
        await send({**await receive(), "type": "websocket.send"})
        await receive()

    async with serving(application) as server, h2(server) as client:
        ws = WebSocket(client)
        client.headers(1, websocket(), ends=False)
        ws.send(TEXT, b"early")
        await client.alive()
        accept.set()
        assert await ws.read() == (TEXT, b"early")


@pytest.mark.parametrize(
    ("message", "status", "body"),
    [
        ({"type": "websocket.close"}, b"403", b"the application refused this WebSocket\n"),
        ({"type": "websocket.http.response.start", "status": 401}, b"401", b"who are you?"),
    ],
)
async def test_a_websocket_that_is_refused(message, status, body):
    async def application(scope, receive, send):
        await receive()
        await send(message)
        if "status" in message:
            await send({"type": "websocket.http.response.body", "body": b"who ", "more_body": True})
            await send({"type": "websocket.http.response.body", "body": b"are you?"})

    async with serving(application) as server, h2(server) as client:
        ws = WebSocket(client)
        assert (await ws.open())[b":status"] == status
        heard = b""
        while not client.seen[-1].flags & END_STREAM or client.seen[-1].kind != DATA:
            frame = await client.until(DATA)
            heard += frame.payload
        assert heard == body
        await until(lambda: len(runtime_of(server).connections) == 1)
        await client.alive()


@pytest.mark.parametrize(
    ("extra", "status"),
    [
        ([("sec-websocket-version", "12")], b"426"),
        ([("sec-websocket-protocol", "a,,a")], b"400"),
    ],
)
async def test_a_malformed_handshake(extra, status):
    async with serving(echo) as server, h2(server) as client:
        fields = [field for field in websocket() if field[0] != extra[0][0]]
        client.headers(1, [*fields, *extra], ends=False)
        heard = await client.until(HEADERS)
        assert heard.fields[0][1] == status
        await client.alive()


async def test_a_reset_is_an_abnormal_end():
    ends = []

    async def application(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        ends.append(await receive())

    async with serving(application) as server, h2(server) as client:
        await WebSocket(client).open()
        client.reset(1, CANCEL)
        await client.alive()
        await until(lambda: ends)
        assert ends == [{"type": "websocket.disconnect", "code": 1006, "reason": ""}]


async def test_an_end_without_a_close_frame_is_abnormal_too():
    ends = []

    async def application(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        ends.append((await receive())["code"])

    async with serving(application) as server, h2(server) as client:
        await WebSocket(client).open()
        client.data(1, ends=True)
        await client.until(DATA, RST_STREAM)
        await until(lambda: ends == [1006])
        await client.alive()


async def test_a_full_inbox_shuts_the_window_of_its_stream_alone():
    take = asyncio.Event()
    taken = []

    async def application(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        if scope["path"] == "/slow":
            await take.wait()
        while (message := await receive())["type"] == "websocket.receive":
            if scope["path"] == "/slow":
                taken.append(len(message["bytes"]))
            else:
                await send({**message, "type": "websocket.send"})

    limits = Http2Limits(stream_window_bytes=65_535)
    async with (
        serving(application, http2_limits=limits, inbox_limit=2) as server,
        h2(server) as client,
    ):
        slow, quick = WebSocket(client, 1), WebSocket(client, 3)
        await slow.open("/slow")
        await quick.open("/quick")
        message = frame(BINARY, bytes(1000))
        slow.send(BINARY, bytes(1000))
        slow.send(BINARY, bytes(1000))
        await client.alive()
        for _ in range(60):
            client.data(1, message)
        await client.alive()
        updates = [heard for heard in client.seen if heard.kind == 8 and heard.stream == 1]
        assert sum(int.from_bytes(heard.payload, "big") for heard in updates) < 30_000
        quick.send(TEXT, b"still here")
        assert await quick.read() == (TEXT, b"still here")
        take.set()
        await until(lambda: len(taken) == 62)
        client.data(1, message)
        await client.alive()
        await until(lambda: len(taken) == 63)


async def test_what_was_kept_in_many_small_pieces_is_handed_on_in_few(monkeypatch):
    take = asyncio.Event()
    pieces, taken = [], []

    class Noted(WebSocketStream):
        __slots__ = ()

        def data_received(self, data):
            pieces.append(len(data))
            super().data_received(data)

    async def application(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        await take.wait()
        while (message := await receive())["type"] == "websocket.receive":
            taken.append(message["bytes"])

    monkeypatch.setattr("headrace.server.http2.WebSocketStream", Noted)
    async with serving(application, inbox_limit=1) as server, h2(server) as client:
        ws = WebSocket(client)
        await ws.open()
        ws.send(BINARY, b"first")
        ws.send(BINARY, b"second")
        await client.alive()
        pieces.clear()
        message = frame(BINARY, bytes(range(256)) * 100)
        for at in range(0, len(message), 64):
            client.data(1, message[at : at + 64])
            await client.flush()
            if not at % 1024:
                await client.alive()
        await client.alive()
        assert not pieces
        take.set()
        await until(lambda: len(taken) == 3)
        assert taken == [b"first", b"second", bytes(range(256)) * 100]
        assert len([size for size in pieces if size]) == 2
        assert sum(pieces) == len(message)


async def test_what_passes_for_one_request_can_t_be_told_and_frames_can():
    asked = []

    async def application(scope, receive, send):
        traffic = scope["extensions"]["headrace"]["traffic"](receive, send)
        if scope["type"] == "http":
            asked.append(traffic)
            await respond(send, b"done")
            return
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": (await receive())["text"]})
        asked.append((traffic.received_bytes, traffic.sent_bytes, traffic.extensions))
        await receive()

    async with serving(application) as server, h2(server) as client:
        ws = WebSocket(client)
        await ws.open()
        ws.send(TEXT, b"abcd")
        assert await ws.read() == (TEXT, b"abcd")
        assert (await client.get(3).answer(3)).body == b"done"
        assert asked == [(10, 6, ""), None]


async def test_a_slow_client_of_the_fast_lane_meets_the_policy():
    lanes = []

    async def application(scope, receive, send):
        lanes.append(scope["extensions"]["headrace"]["lane"](receive, send))
        await receive()
        await send({"type": "websocket.accept"})
        while (await receive())["type"] != "websocket.disconnect":
            pass

    async with (
        serving(application, outbox_limit_bytes=100_000) as server,
        h2(server, setting(INITIAL_WINDOW_SIZE, 1000)) as client,
    ):
        ws = WebSocket(client)
        client.acknowledges = False
        await ws.open()
        [lane] = lanes
        for _ in range(40):
            lane.transmit({"type": "websocket.send", "bytes": bytes(10_000)}, {})
            await asyncio.sleep(0)
        await until(lambda: server.counters.slow_clients == 1)
        assert server.counters.dropped_messages > 0
        client.acknowledges = True
        client.window(1, 2**20)
        while (heard := await ws.read()) is not None and heard[0] != CLOSE:
            pass
        assert heard[1][:2] == (1013).to_bytes(2, "big")
        await client.alive()


async def test_pings_and_close_timers_hold_over_http2():
    async with (
        serving(echo, ping_interval_s=0.1, ping_timeout_s=0.3, close_timeout_s=0.1) as server,
        h2(server) as client,
    ):
        ws = WebSocket(client)
        await ws.open()
        assert (await ws.read())[0] == PING
        opcode, payload = await ws.read()
        assert (opcode, payload[:2]) == (CLOSE, (1011).to_bytes(2, "big"))
        heard = await client.until(RST_STREAM, GOAWAY)
        assert heard.code in (CANCEL, NO_ERROR)


async def test_what_was_sent_before_the_end_is_heard_before_it():
    take = asyncio.Event()
    heard = []

    async def application(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        await take.wait()
        while (message := await receive())["type"] == "websocket.receive":
            heard.append(message["text"])
        heard.append(message["code"])

    async with serving(application, inbox_limit=1) as server, h2(server) as client:
        ws = WebSocket(client)
        await ws.open()
        for text in (b"1", b"2", b"3"):
            ws.send(TEXT, text)
            await client.alive()
        client.data(1, ends=True)
        await client.alive()
        take.set()
        await until(lambda: heard == ["1", "2", "3", 1006])


async def test_a_client_that_does_not_end_its_side_is_not_waited_for():
    async def application(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", "code": 4000})

    async with serving(application) as server, h2(server) as client:
        ws = WebSocket(client)
        await ws.open()
        assert await ws.read() == (CLOSE, (4000).to_bytes(2, "big"))
        ws.send(CLOSE, (4000).to_bytes(2, "big"))
        assert await ws.read() is None
        assert (await client.until(RST_STREAM)).code == NO_ERROR
        await client.alive()


# Limits, logs and whoever looks after the server


PROXY = ProxyHeaders()


async def test_behind_a_proxy_each_client_has_limits_of_its_own():
    limits = ClientLimits(connections_per_address=1, shared_networks=())
    go = asyncio.Event()

    async def application(scope, receive, send):
        if scope["type"] == "websocket":
            await echo(scope, receive, send)
        else:
            await go.wait()
            await respond(send, scope["client"][0].encode())

    async with (
        serving(application, clients=limits, proxy_headers=PROXY) as server,
        h2(server) as client,
    ):
        one, two = ("x-forwarded-for", "1.1.1.1"), ("x-forwarded-for", "2.2.2.2")
        client.get(1, "/", one).get(3, "/", two).get(5, "/", one)
        answer = await client.answer(5)
        assert (answer.status, int(answer[b"retry-after"]) > 0) == (429, True)
        assert (await WebSocket(client, 7).open("/", one))[b":status"] == b"429"
        go.set()
        assert (await client.answer(1)).body == b"1.1.1.1"
        assert (await client.answer(3)).body == b"2.2.2.2"
        assert (await WebSocket(client, 9).open("/", one))[b":status"] == b"200"
        client.reset(9)
        await client.alive()
        assert (await client.get(11, "/", one).answer(11)).body == b"1.1.1.1"
        assert server.counters.refusals["connections_per_address"].value == 2


async def test_handshakes_have_a_rate():
    limits = ClientLimits(handshakes_per_s=1, burst_s=1)
    async with serving(echo, clients=limits) as server, h2(server) as client:
        assert (await WebSocket(client, 1).open())[b":status"] == b"200"
        assert (await WebSocket(client, 3).open())[b":status"] == b"503"
        assert server.counters.refusals["handshakes"].value == 1
        await client.alive()


async def test_a_watcher_and_the_access_log_see_it(caplog):
    caplog.set_level(logging.INFO, "headrace.access")
    told = []

    class Watcher:
        def request(self, peer, request, status, duration_s):
            told.append((request.path, status))

        def websocket_opening(self, key, peer, request):
            told.append("opening")

        def websocket_accepted(self, key):
            told.append("accepted")

        def websocket_closed(self, key, code):
            told.append(code)

    async with serving(echo, watcher=Watcher()) as server, h2(server) as client:
        await client.get(1, "/a").answer(1)
        await WebSocket(client, 3).open("/ws")
        client.reset(3)
        client.headers(5, request("CONNECT", "/bad", protocol="websocket"), ends=False)
        assert dict((await client.until(HEADERS)).fields)[b":status"] == b"426"
        client.post(7, "/left").reset(7)
        await client.alive()
        client.post(9, "/left")
        await client.alive()
        client.reset(9)
        await client.alive()
        await until(lambda: len(told) == 6)
    assert told == [("/a", 200), "opening", "accepted", 1006, ("/bad", 426), ("/left", 499)]
    lines = [record.getMessage() for record in caplog.records]
    assert any('"GET /a HTTP/2" 200' in line for line in lines)
    assert any('"CONNECT /ws HTTP/2" 200' in line for line in lines)


async def test_who_looks_after_the_server_sees_and_closes_it():
    async with serving(echo) as server, h2(server) as client:
        ws = WebSocket(client)
        await ws.open()
        connection = connection_of(server)
        [websocket] = [c for c in runtime_of(server).connections if c is not connection]
        assert connection.task is None
        assert connection.waiting() == (0, 0, False)
        assert websocket.transport.get_extra_info("peername")[0] == "127.0.0.1"
        assert server.counters.open == {"http/1.1": 0, "http/2": 1, "websocket": 1}
        connection.dismiss(1000, "enough")
        while await client.read() is not None:
            pass
        await until(lambda: not runtime_of(server).connections)


async def test_a_stop_in_a_hurry_cuts_everything_off():
    async def application(scope, receive, send):
        await asyncio.Event().wait()

    async with serving(application) as server, h2(server) as client:
        client.get(1)
        client.headers(3, websocket(), ends=False)
        await client.alive()
        server.hurry()
        await server.stop()
        while await client.read() is not None:
            pass


# The end


async def test_a_drain_lets_streams_finish_and_says_goodbye():
    go = asyncio.Event()

    async def application(scope, receive, send):
        if scope["type"] == "http":
            await go.wait()
            await respond(send, b"done")
        else:
            await echo(scope, receive, send)

    async with serving(application) as server, h2(server) as client:
        ws = WebSocket(client, 1)
        await ws.open()
        client.get(3)
        await client.alive()
        stopping = asyncio.create_task(server.stop())
        first = await client.until(GOAWAY)
        assert (first.payload[:4], first.code) == (b"\x7f\xff\xff\xff", NO_ERROR)
        client.get(5)  # it was on its way
        ping = await client.until(H2_PING)
        client.frame(H2_PING, 1, 0, ping.payload)
        final = await client.until(GOAWAY)
        assert (final.payload[:4], final.code) == (b"\0\0\0\5", NO_ERROR)
        client.get(7)  # it comes too late, and is not taken
        ws.unread = b"".join(
            heard.payload for heard in client.seen if heard.kind == DATA and heard.stream == 1
        )
        opcode, payload = await ws.read()
        assert (opcode, payload[:2]) == (CLOSE, (1001).to_bytes(2, "big"))
        ws.send(CLOSE, payload[:2])
        client.data(1, ends=True)
        await client.flush()
        go.set()
        assert (await client.answer(3)).body == b"done"
        assert (await client.answer(5)).body == b"done"
        while await client.read() is not None:
            pass
        await client.client.close()
        await stopping
        [late] = [heard for heard in client.seen if heard.stream == 7]
        assert (late.kind, late.code) == (RST_STREAM, REFUSED_STREAM)


async def test_a_client_that_ignores_the_goodbye_is_left_all_the_same():
    async with serving(hello) as server, h2(server) as client:
        stopping = asyncio.create_task(server.stop())
        client.confirms = False
        while await client.read() is not None:
            pass
        await client.client.close()
        await stopping
        assert [heard.code for heard in client.seen if heard.kind == GOAWAY] == [0, 0]


async def test_an_idle_connection_ends():
    limits = Http1Limits(keep_alive_s=0.2)
    async with serving(hello, http=limits) as server, h2(server) as client:
        await client.get().answer()
        assert (await client.until(GOAWAY)).code == NO_ERROR
        assert await client.read() is None


async def test_a_connection_with_a_stream_is_not_idle():
    limits = Http1Limits(keep_alive_s=0.1)
    async with serving(echo, http=limits) as server, h2(server) as client:
        ws = WebSocket(client)
        await ws.open()
        await asyncio.sleep(0.4)
        ws.send(TEXT, b"here")
        assert await ws.read() == (TEXT, b"here")


async def test_a_client_that_vanished_is_found_by_a_ping():
    async def application(scope, receive, send):
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"one", "more_body": True})
        assert (await receive())["type"] == "http.request"
        assert (await receive())["type"] == "http.disconnect"

    async with (
        serving(application, ping_interval_s=0.2, ping_timeout_s=0.2) as server,
        h2(server) as client,
    ):
        client.get()
        ping = await client.until(H2_PING)
        client.frame(H2_PING, 1, 0, ping.payload)
        await client.until(H2_PING)
        await client.until(GOAWAY)
        assert await client.read() is None


@pytest.mark.parametrize("how", ["reset", "end"])
async def test_the_end_of_a_connection_ends_all_of_its_streams(how):
    ends = []

    async def application(scope, receive, send):
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
        else:
            await receive()
        ends.append((await receive())["type"])

    async with serving(application) as server, h2(server) as client:
        await WebSocket(client, 1).open()
        client.get(3).get(5)
        await client.alive()
        if how == "reset":
            client.client.reset()
        else:
            client.client.end()
        await until(lambda: len(ends) == 3)
        assert sorted(ends) == ["http.disconnect"] * 2 + ["websocket.disconnect"]
        await until(lambda: not runtime_of(server).tasks)


async def test_a_body_must_move():
    limits = Http1Limits(body_idle_s=0.2)
    async with serving(echo, http=limits) as server, h2(server) as client:
        client.post(1).data(1, b"half")
        assert (await client.answer()).status == 408
        await client.alive()


@pytest.mark.parametrize("what", ["the settings", "a block of headers"])
async def test_a_slow_beginning_has_an_end(what):
    limits = Http1Limits(head_s=0.2)
    async with serving(hello, http=limits) as server, h2(server, started=False) as client:
        if what == "the settings":
            client.raw(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            client.acknowledges = client.confirms = False
        else:
            await client.start()
            client.frame(HEADERS, 0, 1, b"\x82")
            await client.flush()
        heard = await client.until(GOAWAY)
        assert heard.code in (SETTINGS_TIMEOUT, ENHANCE_YOUR_CALM)
        assert await client.read() is None


# Real clients


async def test_httpx():
    async def application(scope, receive, send):
        await respond(send, b"%s %s" % (scope["http_version"].encode(), await read_body(receive)))

    async with serving(application) as server:
        transport = httpx.AsyncHTTPTransport(http1=False, http2=True)
        async with httpx.AsyncClient(transport=transport) as client:
            responses = await asyncio.gather(
                *(client.post(server.url, content=b"x" * size) for size in (0, 1, 100_000, 500_000))
            )
        assert [len(response.content) for response in responses] == [2, 3, 100_002, 500_002]
        assert {response.http_version for response in responses} == {"HTTP/2"}
    async with serving(echo, http=Http1Limits(body_bytes=1000)) as server:
        transport = httpx.AsyncHTTPTransport(http1=False, http2=True)
        async with httpx.AsyncClient(transport=transport) as client:
            # It hears nothing of an answer before it has sent all.
            response = await client.post(server.url, content=bytes(1_000_000))
            assert response.status_code == 413
        assert server.counters.connections == 1


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
async def test_curl(tmp_path):
    upload = tmp_path / "upload"
    upload.write_bytes(bytes(range(256)) * 8000)

    async def run(*arguments):
        command = ["curl", "--silent", "--fail-with-body", "--max-time", "20", *arguments]
        process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
        return (await process.communicate())[0]

    async with serving(echo) as server:
        assert await run("--http2-prior-knowledge", "-d", "a=b", server.url) == b"a=b"
        data = await run("--http2-prior-knowledge", "--data-binary", f"@{upload}", server.url)
        assert data == upload.read_bytes()
        # The upgrade of RFC 7540 §3.2, which is no more.
        assert await run("--http2", "-d", "a=b", server.url) == b"a=b"
    async with serving(echo, http=Http1Limits(body_bytes=1000)) as server:
        data = await run("--http2-prior-knowledge", "--upload-file", str(upload), server.url)
        assert data == b"the body is longer than 1000 bytes\n"


async def test_a_wsgi_application():
    def application(environ, start_response):
        start_response("200 OK", [("X-Protocol", environ["SERVER_PROTOCOL"])])
        return [environ["HTTP_HOST"].encode(), b" ", environ["wsgi.input"].read()]

    wsgi = WsgiApplication(application)
    async with serving(wsgi) as server, h2(server) as client:
        answer = await client.post().data(1, b"body", ends=True).answer()
        assert (answer.body, answer[b"x-protocol"]) == (b"here body", b"HTTP/2")
    wsgi.close()


def test_it_is_there_before_the_first_client():
    # To import it while clients wait would hold all of them up.
    script = (
        "import asyncio, sys\n"
        "from headrace.server.config import Config\n"
        "from headrace.server.server import Server\n"
        "async def main(mode):\n"
        "    async with Server(None, Config(port=0, lifespan='off', http2=mode)):\n"
        "        print('h2' in sys.modules)\n"
        "asyncio.run(main('off'))\n"
        "asyncio.run(main('on'))\n"
    )
    command = [sys.executable, "-c", script]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    assert ran.stdout.split() == ["False", "True"]
