"""WebSockets over real sockets: the handshake, the messages, the end, and the lane."""

import asyncio
import itertools
import logging
import zlib

import anyio
import pytest
import websockets

from headrace.exceptions import LocalProtocolError
from headrace.layers.base import Bounds, Overflow
from headrace.protocols.deflate import DeflateFactory
from headrace.protocols.http1 import Http1Limits
from headrace.protocols.websocket import Limits
from headrace.server import websocket as websocket_module
from headrace.server.asgi import ClientDisconnected
from headrace.server.outbox import SlowClientPolicy
from headrace.server.turn import Turn
from headrace.server.websocket import EARLY_EVENTS, EXTENSION, Phase

from .clients import (
    BINARY,
    CLOSE,
    FREE,
    PING,
    PONG,
    TEXT,
    connected,
    connection_of,
    echo,
    frame,
    handshake,
    runtime_of,
    serving,
    until,
)

MEGABYTE = 1024 * 1024
ACCEPT = {"type": "websocket.accept"}


class Session:
    """An application that a test drives by hand, for one WebSocket."""

    def __init__(self, *, accepts=True):
        self.accepts = accepts
        self.called = asyncio.Event()
        self.free = asyncio.Event()
        self.ended = asyncio.Event()
        self.cancelled = False
        self.scope = self.receive = self.send = None

    async def __call__(self, scope, receive, send):
        self.scope, self.receive, self.send = scope, receive, send
        try:
            if self.accepts:
                assert (await receive())["type"] == "websocket.connect"
                await send(ACCEPT)
            self.called.set()
            await self.free.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        finally:
            self.ended.set()

    @property
    def lane(self):
        lane_behind = self.scope["extensions"]["headrace"]["lane"]
        return lane_behind(self.receive, self.send)


@pytest.fixture
def errors(caplog):
    caplog.set_level(logging.INFO, "headrace")
    return caplog


async def test_the_scope_says_who_wants_what():
    session = Session()
    async with serving(session, root_path="/app") as server, connected(server) as client:
        await client.open_websocket("/r%C3%BCm?a=b", "Sec-WebSocket-Protocol: chat, v2", "X-A: b")
        scope = session.scope
        assert scope["extensions"].pop("headrace") == EXTENSION
        headers = dict(scope.pop("headers"))
        assert headers[b"x-a"] == b"b"
        assert scope == {
            "type": "websocket",
            "asgi": {"version": "3.0", "spec_version": "2.5"},
            "http_version": "1.1",
            "scheme": "ws",
            "path": "/app/rüm",
            "raw_path": b"/app/r%C3%BCm",
            "query_string": b"a=b",
            "root_path": "/app",
            "subprotocols": ["chat", "v2"],
            "client": client.sock.getsockname(),
            "server": ("127.0.0.1", server.port),
            "extensions": {"websocket.http.response": {}},
        }
        session.free.set()


# The handshake


async def test_accept_with_a_subprotocol_and_headers():
    async def app(scope, receive, send):
        assert await receive() == {"type": "websocket.connect"}
        await send(
            {
                "type": "websocket.accept",
                "subprotocol": "v2",
                "headers": [(b"X-Session", b"1"), (b"set-cookie", b"a=b")],
            }
        )
        await receive()

    async with serving(app) as server, connected(server) as client:
        response = await client.open_websocket("/", "Sec-WebSocket-Protocol: chat, v2")
        assert response[b"sec-websocket-accept"] == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        assert response[b"sec-websocket-protocol"] == b"v2"
        assert response[b"x-session"] == b"1"
        assert response[b"set-cookie"] == b"a=b"
        assert response[b"server"] == b"headrace"
        assert response[b"date"].endswith(b"GMT")
        assert not response.all(b"sec-websocket-extensions")


async def test_a_header_of_the_applications_own_stands_for_ours():
    async def app(scope, receive, send):
        await send({**ACCEPT, "headers": [(b"Server", b"mine")]})

    async with serving(app) as server, connected(server) as client:
        assert (await client.open_websocket())[b"server"] == b"mine"


@pytest.mark.parametrize(
    ("message", "says"),
    [
        ({**ACCEPT, "subprotocol": "other"}, "cannot accept the subprotocol 'other'"),
        ({**ACCEPT, "subprotocol": "ünïcode"}, "cannot accept the subprotocol"),
        ({**ACCEPT, "subprotocol": b"chat"}, "a subprotocol is a str"),
        ({**ACCEPT, "headers": [(b"a", b"b\r\nc: d")]}, "control character"),
        ({**ACCEPT, "headers": [(b"a b", b"c")]}, "cannot send a header named"),
        ({**ACCEPT, "headers": [(b"upgrade", b"x")]}, "the handshake writes it itself"),
        ({**ACCEPT, "headers": [("a", "b")]}, "header name and value are bytes"),
        ({"type": "websocket.send", "text": "x"}, "state=CONNECTING, expected websocket.accept"),
        ({"type": "http.response.start", "status": 200}, "state=CONNECTING"),
        ({"type": "websocket.http.response.body"}, "state=CONNECTING"),
        ({"type": "websocket.http.response.start", "status": "200"}, "a denial has a status"),
        ({"type": "websocket.http.response.start", "status": 101}, "a denial has a status"),
        ({}, "a dict with a 'type'"),
    ],
)
async def test_what_may_not_be_sent_before_the_accept(message, says, errors):
    raised = []

    async def app(scope, receive, send):
        try:
            await send(message)
        except LocalProtocolError as error:
            raised.append(str(error))
            raise

    async with serving(app) as server, connected(server) as client:
        await client.send(handshake("/", "Sec-WebSocket-Protocol: chat"))
        assert (await client.read_response()).status == 500
        assert await client.read_to_end() == b""
    assert says in raised[0]
    assert "raised LocalProtocolError on a WebSocket (connecting)" in errors.text


async def test_an_application_may_accept_after_a_refused_accept():
    async def app(scope, receive, send):
        with pytest.raises(LocalProtocolError):
            await send({**ACCEPT, "subprotocol": "other"})
        await send(ACCEPT)

    async with serving(app) as server, connected(server) as client:
        await client.open_websocket()
        assert await client.read_close() == (1000, "")


async def test_close_before_accept_refuses():
    events = []

    async def app(scope, receive, send):
        events.append(await receive())
        await send({"type": "websocket.close", "code": 4000})
        events.append(await receive())
        with pytest.raises(OSError, match="closed"):
            await send(ACCEPT)

    async with serving(app) as server, connected(server) as client:
        await client.send(handshake())
        response = await client.read_response()
        assert response.status == 403
        assert response[b"connection"] == b"close"
        assert await client.read_to_end() == b""
        assert server.counters.refused == 1
    assert events == [
        {"type": "websocket.connect"},
        {"type": "websocket.disconnect", "code": 1006, "reason": ""},
    ]


async def test_a_denial_of_the_applications_own():
    async def app(scope, receive, send):
        await send(
            {
                "type": "websocket.http.response.start",
                "status": 401,
                "headers": [(b"www-authenticate", b"Basic"), (b"content-type", b"text/html")],
            }
        )
        with pytest.raises(LocalProtocolError, match=r"expected websocket\.http\.response\.body"):
            await send(ACCEPT)
        part = {"type": "websocket.http.response.body", "body": b"who ", "more_body": True}
        await send(part)
        await send({"type": "websocket.http.response.body", "body": b"are you?"})
        with pytest.raises(ClientDisconnected):
            await send(part)
        assert (await receive())["type"] == "websocket.connect"
        assert (await receive())["type"] == "websocket.disconnect"

    async with serving(app) as server, connected(server) as client:
        await client.send(handshake())
        response = await client.read_response()
        assert response.status == 401
        assert response[b"www-authenticate"] == b"Basic"
        assert response.body == b"who are you?"
        assert response[b"connection"] == b"close"
        assert await client.read_to_end() == b""


async def test_a_long_denial_reaches_a_slow_client():
    page = b"x" * 8 * MEGABYTE

    async def app(scope, receive, send):
        await send({"type": "websocket.http.response.start", "status": 403})
        await send({"type": "websocket.http.response.body", "body": page})

    async with (
        serving(app, close_timeout_s=5) as server,
        connected(server, receive_buffer=65536) as client,
    ):
        await client.send(handshake())
        assert (await client.read_response()).body == page


@pytest.mark.parametrize("part", [False, True])
async def test_a_denial_that_is_not_finished(part):
    async def app(scope, receive, send):
        await send({"type": "websocket.http.response.start", "status": 403})
        if part:
            body = {"type": "websocket.http.response.body", "body": b"x", "more_body": True}
            await send(body)

    async with serving(app) as server, connected(server) as client:
        await client.send(handshake())
        if part:
            assert (await client.read_head()).status == 403
            assert await client.read_to_end() == b"1\r\nx\r\n"
        else:
            assert (await client.read_response()).status == 500


def without(name):
    lines = handshake().split(b"\r\n")
    return b"\r\n".join(line for line in lines if not line.startswith(name))


@pytest.mark.parametrize(
    ("request_bytes", "status", "says"),
    [
        (without(b"Sec-WebSocket-Key"), 400, b"Sec-WebSocket-Key"),
        (without(b"Sec-WebSocket-Version"), 426, b"version 13"),
        (handshake().replace(b"Version: 13", b"Version: 8"), 426, b"version 13"),
        (handshake().replace(b"dGhl", b"****"), 400, b"16 random bytes"),
        (handshake().replace(b"GET", b"PUT"), 405, b"begins with GET"),
        # What a proxy makes of it that isn't set up for WebSockets.
        (
            without(b"Upgrade").replace(b"Connection: Upgrade", b"Connection: close"),
            426,
            b"Upgrade",
        ),
        (handshake().replace(b"Connection: Upgrade", b"Connection: close"), 400, b"Connection"),
        (handshake().replace(b"HTTP/1.1", b"HTTP/1.0"), 400, b"send HTTP/1.1"),
        (handshake("/", "Sec-WebSocket-Protocol: a, a"), 400, b"repeats a name"),
        (handshake("/", "Sec-WebSocket-Protocol: caf\u00e9"), 400, b"Sec-WebSocket-Protocol"),
        (handshake("/", "Content-Length: 3") + b"abc", 400, b"no body"),
        (handshake("/", "Content-Length: 3"), 400, b"no body"),
        (handshake("/", "Host: again"), 400, b"Host"),
    ],
)
async def test_a_bad_handshake_gets_a_plain_answer(request_bytes, status, says, errors):
    session = Session()
    async with serving(session) as server, connected(server) as client:
        response = await client.request(request_bytes)
        assert response.status == status
        assert says in response.body
        assert response[b"content-type"] == b"text/plain; charset=utf-8"
        if status == 426:
            assert response[b"upgrade"] == b"websocket"
        assert await client.read_to_end() == b""
        assert server.counters.refused == 1
    assert session.scope is None
    assert "Traceback" not in errors.text


@pytest.mark.parametrize(
    "request_bytes",
    [
        handshake().replace(b"Upgrade: websocket", b"Upgrade: h2c, WebSocket"),
        handshake().replace(b"Connection: Upgrade", b"Connection: keep-alive, uPgrade"),
    ],
)
async def test_a_good_handshake_in_other_words(request_bytes):
    async with serving(echo) as server, connected(server) as client:
        await client.send(request_bytes)
        assert (await client.read_head()).status == 101


async def test_another_upgrade_is_ignored():
    async with serving(echo) as server, connected(server) as client:
        response = await client.request(
            b"GET / HTTP/1.1\r\nHost: here\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n"
        )
        assert response.status == 200


async def test_half_a_handshake_and_then_silence_gets_408():
    limits = Http1Limits(head_s=0.2)
    async with serving(echo, http=limits) as server, connected(server) as client:
        response = await client.request(handshake()[:-10])
        assert response.status == 408
        assert await client.read_to_end() == b""


async def test_a_handshake_after_a_request_on_the_same_connection():
    async with serving(echo) as server, connected(server) as client:
        await client.send(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n" + handshake())
        assert (await client.read_response()).status == 200
        assert (await client.read_head()).status == 101
        await client.send_text("hello")
        assert await client.read_text() == "hello"


async def test_a_handshake_behind_a_request_is_left_alone_by_what_waits_in_line(monkeypatch):
    """The request has noted that there is more to read; by its turn the WebSocket is open."""

    class OneAtATime(Turn):
        def __init__(self, loop):
            super().__init__(loop, clock=itertools.count().__next__)

    monkeypatch.setattr("headrace.server.server.Turn", OneAtATime)
    async with serving(echo) as server, connected(server) as client:
        early = frame(TEXT, b"hello")
        await client.send(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n" + handshake() + early)
        assert (await client.read_response()).status == 200
        assert (await client.read_head()).status == 101
        assert await client.read_text() == "hello"
        await client.send_text("and more")
        assert await client.read_text() == "and more"


async def test_an_application_that_never_answers_is_given_up_and_cancelled(errors):
    session = Session(accepts=False)
    async with serving(session, accept_timeout_s=0.2) as server, connected(server) as client:
        await client.send(handshake())
        response = await client.read_response()
        assert response.status == 503
        assert await client.read_to_end() == b""
        await session.ended.wait()
        assert session.cancelled
    assert "the application has not answered the handshake in 0.2 s: it has to" in errors.text


@pytest.mark.parametrize("part", [False, True])
async def test_a_denial_that_never_ends_is_given_up_and_cancelled(part):
    session = Session(accepts=False)

    async def app(scope, receive, send):
        await send({"type": "websocket.http.response.start", "status": 403})
        if part:
            body = {"type": "websocket.http.response.body", "body": b"x", "more_body": True}
            await send(body)
        await session(scope, receive, send)

    async with serving(app, accept_timeout_s=0.2) as server, connected(server) as client:
        await client.send(handshake())
        assert (await client.read_head()).status == (403 if part else 503)
        rest = await client.read_to_end()
        assert not part or rest == b"1\r\nx\r\n"
        await session.ended.wait()
        assert session.cancelled


async def test_an_accept_in_time_is_not_given_up():
    session = Session()
    async with serving(session, accept_timeout_s=0.1) as server, connected(server) as client:
        await client.open_websocket()
        stream = connection_of(server)
        assert stream.expire(asyncio.get_running_loop().time() + 1) is not None
        assert not session.ended.is_set()
        session.free.set()


@pytest.mark.parametrize("how", ["reset", "close"])
async def test_a_client_that_leaves_before_the_accept(how):
    session = Session(accepts=False)
    async with serving(session) as server, connected(server) as client:
        await client.send(handshake())
        await session.called.wait()
        if how == "reset":
            client.reset()
        else:
            await client.close()
        assert await session.receive() == {"type": "websocket.connect"}
        assert await session.receive() == {
            "type": "websocket.disconnect",
            "code": 1006,
            "reason": "",
        }
        with pytest.raises(ClientDisconnected):
            await session.send(ACCEPT)
        session.free.set()


class NoSuchRoom(ValueError):
    status = 404


async def test_an_exception_of_a_class_with_a_status_denies(errors):
    async def app(scope, receive, send):
        raise NoSuchRoom("no room at\n" + scope["path"])

    async with serving(app) as server, connected(server) as client:
        await client.send(handshake("/x%0Ay"))
        response = await client.read_response()
        assert (response.status, response.body) == (404, b"no room at\\n/x\\ny\n")
        assert server.counters.application_errors == 0
    [record] = [r for r in errors.records if r.name == "headrace.server"]
    assert record.exc_info is None
    assert "refused with 404" in record.getMessage()
    assert "\n" not in record.getMessage()


@pytest.mark.parametrize(
    "app_kind", ["raises", "returns", "raises when called", "gives an awaitable"]
)
async def test_an_application_that_fails_before_the_accept_is_answered_for(app_kind, errors):
    async def raises(scope, receive, send):
        raise ZeroDivisionError

    async def returns(scope, receive, send):
        pass

    def raises_when_called(scope, receive, send):
        raise ZeroDivisionError

    class Awaitable:
        def __await__(self):
            yield from asyncio.sleep(0).__await__()
            raise ZeroDivisionError

    apps = {
        "raises": raises,
        "returns": returns,
        "raises when called": raises_when_called,
        "gives an awaitable": lambda scope, receive, send: Awaitable(),
    }
    async with serving(apps[app_kind]) as server, connected(server) as client:
        await client.send(handshake())
        assert (await client.read_response()).status == 500
        assert server.counters.application_errors == 1
    assert any(record.levelno == logging.ERROR for record in errors.records)


async def test_the_access_log_has_a_line_for_each_handshake(caplog):
    caplog.set_level(logging.INFO, "headrace.access")

    async def app(scope, receive, send):
        match scope["path"]:
            case "/yes":
                await send(ACCEPT)
            case "/no":
                await send({"type": "websocket.close"})
            case "/denied":
                await send({"type": "websocket.http.response.start", "status": 401})
                await send({"type": "websocket.http.response.body"})

    async with serving(app) as server:
        for path in ("/yes", "/no", "/denied"):
            async with connected(server) as client:
                await client.request(handshake(path), bodiless=True)
        async with connected(server) as client:
            await client.request(handshake("/bad").replace(b"13", b"12"))
    lines = [record.getMessage().split(" ", 1)[1] for record in caplog.records]
    assert lines == [
        '"GET /yes HTTP/1.1" 101',
        '"GET /no HTTP/1.1" 403',
        '"GET /denied HTTP/1.1" 401',
        '"GET /bad HTTP/1.1" 426',
    ]


# Messages


async def test_text_and_bytes_both_ways_with_a_real_client():
    async with (
        serving(echo) as server,
        websockets.connect(f"ws://127.0.0.1:{server.port}/", max_size=None) as client,
    ):
        for message in ("", "héllo", b"", b"\x00\xff", "x" * (MEGABYTE - 1), b"y" * MEGABYTE):
            await client.send(message)
            assert await client.recv() == message
        await client.send(["frag", "men", "ted"])
        assert await client.recv() == "fragmented"
        pong = await client.ping(b"are you there?")
        await pong


async def test_without_compression():
    async with serving(echo, extensions=()) as server:
        address = f"ws://127.0.0.1:{server.port}/"
        async with websockets.connect(address) as client:
            assert client.protocol.extensions == []
            await client.send("x" * 10000)
            assert await client.recv() == "x" * 10000


async def test_a_compressed_message_by_hand():
    async with serving(echo) as server, connected(server) as client:
        response = await client.open_websocket(
            "/", "Sec-WebSocket-Extensions: permessage-deflate; client_no_context_takeover"
        )
        assert response[b"sec-websocket-extensions"].startswith(b"permessage-deflate")
        deflate = zlib.compressobj(wbits=-15)
        data = deflate.compress(b"hello " * 1000) + deflate.flush(zlib.Z_SYNC_FLUSH)
        await client.send_frame(0x40 | TEXT, data[:-4])
        head, payload = await client.read_frame()
        assert head == 0x40 | TEXT
        inflated = zlib.decompressobj(wbits=-15).decompress(payload + b"\x00\x00\xff\xff")
        assert inflated == b"hello " * 1000


async def test_what_may_be_sent():
    session = Session()
    async with serving(session) as server, connected(server) as client:
        await client.open_websocket()

        class Text(str):
            __slots__ = ()

        for message in (
            {"text": "a"},
            {"text": "b", "bytes": None},
            {"text": Text("c"), "bytes": None},
            {"bytes": b"d", "text": None},
            {"bytes": bytearray(b"e")},
            {"bytes": memoryview(b"f")},
        ):
            await session.send({"type": "websocket.send", **message})
        frames = [await client.read_frame() for _ in range(6)]
        assert frames == [
            (TEXT, b"a"),
            (TEXT, b"b"),
            (TEXT, b"c"),
            (BINARY, b"d"),
            (BINARY, b"e"),
            (BINARY, b"f"),
        ]
        session.free.set()


@pytest.mark.parametrize(
    ("message", "says"),
    [
        ({"type": "websocket.send"}, "carries 'text'"),
        ({"type": "websocket.send", "text": 3}, "carries 'text'"),
        ({"type": "websocket.send", "bytes": "x"}, "carries 'text'"),
        ({"type": "websocket.send", "text": "\ud800"}, "no UTF-8"),
        ({"type": "websocket.accept"}, "state=OPEN, expected websocket.send or websocket.close"),
        ({"type": "websocket.http.response.start", "status": 403}, "state=OPEN"),
        ({"type": "http.response.body"}, "state=OPEN"),
        ({"type": "websocket.close", "code": 1006}, "cannot close with code 1006"),
        ({"type": "websocket.close", "code": "1000"}, "a close code is an int"),
        ({"type": "websocket.close", "reason": b"x"}, "the reason of a close is a str"),
        ({"type": "websocket.close", "reason": "x" * 124}, "the limit is 123"),
        ({"text": "x"}, "a dict with a 'type'"),
    ],
)
async def test_what_may_not_be_sent_when_open(message, says):
    session = Session()
    async with serving(session) as server, connected(server) as client:
        await client.open_websocket()
        with pytest.raises(LocalProtocolError) as caught:
            await session.send(message)
        assert says in str(caught.value)
        # The connection is as it was.
        await session.send({"type": "websocket.send", "text": "still here"})
        assert await client.read_text() == "still here"
        session.free.set()


async def test_what_came_with_the_handshake_is_not_lost():
    async with serving(echo) as server, connected(server) as client:
        await client.send(handshake() + frame(TEXT, b"early") + frame(PING, b"p") + b"\x81")
        assert (await client.read_head()).status == 101
        assert {await client.read_frame(), await client.read_frame()} == {
            (TEXT, b"early"),
            (PONG, b"p"),
        }
        await client.send(frame(TEXT, b"rest")[1:])
        assert await client.read_text() == "rest"


async def test_what_comes_before_the_accept_is_bounded_and_not_lost():
    session = Session(accepts=False)
    count = 100_000
    async with serving(session, clients=FREE) as server, connected(server) as client:
        client.writer.write(handshake() + frame(TEXT, b"early " * 16) * count)
        await session.called.wait()
        stream = connection_of(server)
        await until(lambda: stream._reading_paused)
        assert len(stream._opening._engine._buffer) < MEGABYTE
        assert client.writer.transport.get_write_buffer_size() > 0
        assert (await session.receive())["type"] == "websocket.connect"
        await session.send(ACCEPT)
        for _ in range(count):
            assert await session.receive() == {"type": "websocket.receive", "text": "early " * 16}
        session.free.set()


async def test_a_full_inbox_pauses_reading_and_loses_nothing():
    session = Session()
    count = 100_000
    async with serving(session, clients=FREE) as server, connected(server) as client:
        await client.open_websocket()
        flood = [frame(TEXT, b"%06d%s" % (number, b"x" * 94)) for number in range(count)]
        client.writer.write(b"".join(flood))
        stream = connection_of(server)
        await until(lambda: stream._reading_paused)
        assert len(stream._events) <= 64
        assert len(stream.engine._buffer) <= MEGABYTE
        assert client.writer.transport.get_write_buffer_size() > 0
        numbers = []
        for _ in range(count):
            message = await session.receive()
            numbers.append(int(message["text"][:6]))
            assert len(stream._events) <= 64
        assert numbers == list(range(count))
        await until(lambda: not stream._reading_paused)
        session.free.set()


async def test_a_flood_of_messages_leaves_room_for_others():
    seen = 0

    async def app(scope, receive, send):
        nonlocal seen
        await receive()
        await send(ACCEPT)
        while (await receive())["type"] == "websocket.receive":
            seen += 1  # without ever giving the loop a chance

    flood = frame(TEXT, b"x") * 50_000
    async with (
        serving(app, clients=FREE) as server,
        connected(server) as flooder,
        connected(server) as other,
    ):
        await flooder.open_websocket()
        flooder.writer.write(flood)
        before = seen
        await other.open_websocket()
        await other.send_frame(PING, b"still served?")
        assert await other.read_frame() == (PONG, b"still served?")
        assert seen - before < 50_000
        await until(lambda: seen == 50_000)


async def test_the_client_is_not_taken_to_be_silent_while_we_do_not_read():
    session = Session()
    async with (
        serving(session, ping_interval_s=0.1, ping_timeout_s=0.1) as server,
        connected(server) as client,
    ):
        await client.open_websocket()
        stream = connection_of(server)
        client.writer.write(frame(TEXT, b"x") * 100)
        await until(lambda: stream._reading_paused)
        now = asyncio.get_running_loop().time()
        for seconds in range(1, 10):
            assert stream.expire(now + seconds) is not None
        for _ in range(100):
            await session.receive()
        await client.send_text("alive")
        assert (await session.receive())["text"] == "alive"
        session.free.set()


# Waiting for a message


async def test_a_wait_that_is_given_up_loses_nothing():
    session = Session()
    async with serving(session) as server, connected(server) as client:
        await client.open_websocket()
        for give_up in (
            lambda: asyncio.wait_for(session.receive(), 0.01),
            lambda: within_timeout(session.receive),
        ):
            with pytest.raises(TimeoutError):
                await give_up()
        with anyio.move_on_after(0.01) as scope:
            await session.receive()
        assert scope.cancelled_caught
        await client.send_text("here")
        assert await session.receive() == {"type": "websocket.receive", "text": "here"}
        session.free.set()


async def within_timeout(call):
    async with asyncio.timeout(0.01):
        await call()


async def test_a_cancellation_that_races_with_messages_loses_none():
    session = Session()
    received = []

    async def read():
        while True:
            received.append((await session.receive())["text"])

    async with serving(session) as server, connected(server) as client:
        await client.open_websocket()
        numbers = [str(number) for number in range(200)]
        task = asyncio.create_task(read())
        for number in numbers:
            client.writer.write(frame(TEXT, number.encode()))
            if int(number) % 3 == 0:
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            task = asyncio.create_task(read())
        await until(lambda: len(received) == 200)
        assert received == numbers
        task.cancel()
        session.free.set()


async def test_two_tasks_must_not_read_one_websocket():
    session = Session()
    async with serving(session) as server, connected(server) as client:
        await client.open_websocket()
        first = asyncio.create_task(session.receive())
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="one task at a time"):
            await session.receive()
        await client.send_text("for the first")
        assert (await first)["text"] == "for the first"
        session.free.set()


async def test_a_task_group_that_reads_and_writes():
    async def app(scope, receive, send):
        await receive()
        await send(ACCEPT)
        queue = asyncio.Queue()

        async def read():
            while (message := await receive())["type"] == "websocket.receive":
                await queue.put(message["text"].upper())
            raise ZeroDivisionError

        async def write():
            while True:
                await send({"type": "websocket.send", "text": await queue.get()})

        with pytest.raises(ExceptionGroup):  # noqa: PT012 - a group is two statements
            async with asyncio.TaskGroup() as group:
                group.create_task(read())
                group.create_task(write())

    async with serving(app) as server, connected(server) as client:
        await client.open_websocket()
        for _ in range(3):
            await client.send_text("abc")
            assert await client.read_text() == "ABC"
        await client.send_close()
        assert await client.read_close() == (1000, "")
        assert await client.read_to_end() == b""


# The end


async def collect(session):
    """What the application still hears; then it must not be told anything more."""
    events = [await session.receive()]
    while events[-1]["type"] != "websocket.disconnect":
        events.append(await session.receive())
    with pytest.raises(ClientDisconnected):
        await session.receive()
    with pytest.raises(ClientDisconnected):
        await session.send({"type": "websocket.send", "text": "late"})
    await session.send({"type": "websocket.close"})
    return events


def disconnect(code, reason=""):
    return {"type": "websocket.disconnect", "code": code, "reason": reason}


async def test_the_client_closes():
    session = Session()
    async with serving(session) as server, connected(server) as client:
        await client.open_websocket()
        await client.send_text("last")
        await client.send_close(4001, "enough")
        assert await client.read_close() == (4001, "")
        assert await client.read_to_end() == b""
        assert await collect(session) == [
            {"type": "websocket.receive", "text": "last"},
            disconnect(4001, "enough"),
        ]
        session.free.set()


async def test_the_client_closes_without_a_code():
    session = Session()
    async with serving(session) as server, connected(server) as client:
        await client.open_websocket()
        await client.send_frame(CLOSE)
        assert await client.read_frame() == (CLOSE, b"")
        assert await collect(session) == [disconnect(1005)]
        session.free.set()


@pytest.mark.parametrize("how", ["reset", "eof"])
async def test_the_client_vanishes(how):
    session = Session()
    async with serving(session) as server, connected(server) as client:
        await client.open_websocket()
        if how == "reset":
            client.reset()
        else:
            client.end()
            assert await client.read_to_end() == b""
        [event] = await collect(session)
        assert event["code"] == 1006
        session.free.set()


@pytest.mark.parametrize(
    ("message", "code", "reason"),
    [
        ({}, 1000, ""),
        ({"code": 4321, "reason": "bye"}, 4321, "bye"),
        ({"code": None, "reason": None}, 1000, ""),
    ],
)
async def test_the_application_closes(message, code, reason):
    session = Session()
    async with serving(session) as server, connected(server) as client:
        await client.open_websocket()
        await session.send({"type": "websocket.send", "text": "last"})
        await session.send({"type": "websocket.close", **message})
        # It is told at once: nothing that the client still sends would count.
        assert await collect(session) == [disconnect(code, reason)]
        assert await client.read_text() == "last"
        assert await client.read_close() == (code, reason)
        await client.send_text("ignored")
        await client.send_close(code)
        assert await client.read_to_end() == b""
        session.free.set()


async def test_a_client_that_never_answers_the_close_is_left(monkeypatch):
    monkeypatch.setattr("headrace.server.websocket.LINGER_S", 0.1)
    session = Session()
    async with serving(session, close_timeout_s=0.2) as server, connected(server) as client:
        await client.open_websocket()
        await session.send({"type": "websocket.close"})
        assert await client.read_close() == (1000, "")
        assert await client.read_to_end() == b""
        session.free.set()
        await until(lambda: not runtime_of(server).connections)


async def test_the_application_closes_while_its_inbox_is_full():
    session = Session()
    async with serving(session, close_timeout_s=10) as server, connected(server) as client:
        await client.open_websocket()
        stream = connection_of(server)
        client.writer.write(frame(TEXT, b"x") * 100_000)
        await until(lambda: stream._reading_paused)
        await session.send({"type": "websocket.close"})
        # The client's answer comes behind all that it had sent.
        client.writer.write(frame(CLOSE, b"\x03\xe8"))
        assert await client.read_close() == (1000, "")
        assert await client.read_to_end() == b""
        assert len(stream._events) <= 65
        session.free.set()


async def test_an_application_that_returns_closes_normally():
    async def app(scope, receive, send):
        await receive()
        await send(ACCEPT)
        await send({"type": "websocket.send", "text": "bye"})

    async with serving(app) as server, connected(server) as client:
        await client.open_websocket()
        assert await client.read_text() == "bye"
        assert await client.read_close() == (1000, "")


async def test_an_application_that_raises_closes_with_1011_at_once(errors):
    async def app(scope, receive, send):
        await receive()
        await send(ACCEPT)
        await receive()
        raise ZeroDivisionError("by design")

    async with serving(app) as server, connected(server) as client:
        await client.open_websocket()
        peer = "{}:{}".format(*client.sock.getsockname())
        await client.send_text("x")
        assert await client.read_close() == (1011, "the application failed")
        await client.send_close(1011)
        assert await client.read_to_end() == b""
        assert server.counters.application_errors == 1
    assert f"{peer}: the application raised ZeroDivisionError on a WebSocket (open)" in errors.text
    assert "by design" in errors.text


async def test_an_application_that_cancels_itself_closes_with_1011(errors):
    async def app(scope, receive, send):
        await receive()
        await send(ACCEPT)
        asyncio.current_task().cancel()
        await receive()

    async with serving(app) as server, connected(server) as client:
        await client.open_websocket()
        assert (await client.read_close())[0] == 1011
    assert "the application was cancelled on a WebSocket" in errors.text


async def test_sending_to_a_client_that_is_gone_is_no_error_of_the_application(errors):
    async def app(scope, receive, send):
        await receive()
        await send(ACCEPT)
        await receive()
        await send({"type": "websocket.send", "text": "too late"})

    async with serving(app) as server, connected(server) as client:
        await client.open_websocket()
        client.reset()
        await until(lambda: not runtime_of(server).tasks)
        assert server.counters.application_errors == 0
    assert all(record.levelno < logging.WARNING for record in errors.records)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x81\x01x", 1002),  # unmasked
        (frame(0x3), 1002),  # an unknown opcode
        (frame(TEXT, b"\xff"), 1007),
        (frame(TEXT, b"x" * 1001), 1009),
        (frame(CLOSE, b"\x03"), 1002),
    ],
    ids=["unmasked", "opcode", "text", "size", "close"],
)
async def test_the_client_breaks_the_protocol(data, code, errors):
    session = Session()
    limits = Limits(message_bytes=1000, frame_bytes=1000)
    async with serving(session, websocket=limits) as server, connected(server) as client:
        await client.open_websocket()
        await client.send(frame(TEXT, b"good") + data)
        sent_code, sent_reason = await client.read_close()
        assert sent_code == code
        assert sent_reason
        # What comes after is read and dropped, so that no reset overtakes the close frame.
        await client.send(frame(TEXT, b"x" * 100) * 100)
        assert await client.read_to_end() == b""
        assert await collect(session) == [
            {"type": "websocket.receive", "text": "good"},
            disconnect(code, sent_reason),
        ]
        session.free.set()
    assert f"WebSocket failed with {code}" in errors.text


async def test_a_failed_client_that_goes_on_sending_is_left(monkeypatch):
    monkeypatch.setattr("headrace.server.websocket.LINGER_S", 0.3)
    session = Session()

    async def send_on(client):
        while True:
            await client.send(frame(TEXT, b"x"))
            await asyncio.sleep(0.02)

    async with serving(session) as server, connected(server) as client:
        await client.open_websocket()
        await client.send(b"\x81\x01x")
        sender = asyncio.create_task(send_on(client))
        assert (await client.read_close())[0] == 1002
        await until(lambda: not runtime_of(server).connections)
        sender.cancel()
        await asyncio.wait([sender])
        session.free.set()


async def test_a_failed_client_that_holds_on_is_left(monkeypatch):
    monkeypatch.setattr("headrace.server.websocket.LINGER_S", 0.1)
    session = Session()
    async with serving(session) as server, connected(server) as client:
        await client.open_websocket()
        await client.send(b"\x81\x01x")
        assert (await client.read_close())[0] == 1002
        await until(lambda: not runtime_of(server).connections)
        session.free.set()


async def test_a_client_that_does_not_answer_a_ping_is_given_up():
    session = Session()
    async with (
        serving(session, ping_interval_s=0.15, ping_timeout_s=0.15) as server,
        connected(server) as client,
    ):
        await client.open_websocket()
        assert await client.read_frame() == (PING, b"")
        code, reason = await client.read_close()
        assert code == 1011
        assert await collect(session) == [disconnect(1011, reason)]
        session.free.set()


async def test_a_client_that_answers_pings_stays():
    session = Session()
    async with (
        serving(session, ping_interval_s=0.15, ping_timeout_s=0.15) as server,
        connected(server) as client,
    ):
        await client.open_websocket()
        for _ in range(4):
            assert await client.read_frame() == (PING, b"")
            await client.send_frame(PONG)
        await client.send_text("here")
        assert (await session.receive())["text"] == "here"
        session.free.set()


async def test_without_keep_alive_nothing_is_asked():
    session = Session()
    async with (
        serving(session, ping_interval_s=0, ping_timeout_s=0) as server,
        connected(server) as client,
    ):
        await client.open_websocket()
        stream = connection_of(server)
        now = asyncio.get_running_loop().time()
        assert stream.expire(now + 1000) is None
        await client.send_text("here")
        assert (await session.receive())["text"] == "here"
        session.free.set()


async def test_a_stop_closes_with_1001():
    session = Session()
    async with serving(session) as server, connected(server) as client:
        await client.open_websocket()
        await session.send({"type": "websocket.send", "text": "last"})
        stopping = asyncio.create_task(server.stop())
        assert await client.read_text() == "last"
        assert await client.read_close() == (1001, "the server is stopping")
        assert await collect(session) == [disconnect(1001, "the server is stopping")]
        await client.send_close(1001)
        session.free.set()
        await stopping


async def test_a_stop_before_the_accept_closes_after_it():
    session = Session(accepts=False)
    async with serving(session) as server, connected(server) as client:
        await client.send(handshake())
        await session.called.wait()
        stopping = asyncio.create_task(server.stop())
        await until(lambda: runtime_of(server).draining)
        await session.send(ACCEPT)
        assert (await client.read_head()).status == 101
        assert (await client.read_close())[0] == 1001
        await client.send_close(1001)
        session.free.set()
        await stopping


# Clients that do not read


def put_to_sleep(client):
    client.writer.transport.pause_reading()


async def filled(session, stream, text="x" * 1000):
    """Send by the fast lane until the socket takes no more."""
    count = 0
    while not stream.outbox.paused:
        for _ in range(100):
            assert session.lane.transmit({"type": "websocket.send", "text": text}, {})
            count += 1
        await asyncio.sleep(0)
    return count


async def test_the_applications_own_sending_waits_for_a_client_that_does_not_read():
    session = Session()
    async with serving(session) as server, connected(server, receive_buffer=65536) as client:
        await client.open_websocket()
        put_to_sleep(client)
        sent = 0

        async def send_on():
            nonlocal sent
            while True:
                await session.send({"type": "websocket.send", "text": "x" * 10_000})
                sent += 1

        sender = asyncio.create_task(send_on())
        stream = connection_of(server)
        await until(lambda: stream.outbox.paused)
        before = sent
        for _ in range(100):
            await asyncio.sleep(0)
        assert sent == before
        assert stream.transport.get_write_buffer_size() + stream.outbox.waiting_bytes < MEGABYTE
        assert server.counters.slow_clients == 0
        # It goes on where it stood when the client reads again.
        client.writer.transport.resume_reading()
        for _ in range(before + 50):
            assert await client.read_text() == "x" * 10_000
        client.reset()
        with pytest.raises(ClientDisconnected):
            await sender
        session.free.set()


async def test_a_slow_client_is_closed_with_1013(errors):
    session = Session()
    limit = 200_000
    async with (
        serving(session, outbox_limit_bytes=limit, close_timeout_s=5) as server,
        connected(server, receive_buffer=65536) as client,
    ):
        await client.open_websocket()
        put_to_sleep(client)
        stream = connection_of(server)
        await filled(session, stream)
        while stream.phase is Phase.OPEN:
            session.lane.transmit({"type": "websocket.send", "text": "x" * 1000}, {})
            assert stream.outbox.waiting_bytes <= limit
            assert stream.transport.get_write_buffer_size() < MEGABYTE
        assert server.counters.slow_clients == 1
        assert server.counters.dropped_messages > 100
        [event] = await collect(session)
        assert event["code"] == 1013
        assert "slow" in event["reason"]
        client.writer.transport.resume_reading()
        assert (await client.read_close())[0] == 1013
        await client.send_close(1013)
        assert await client.read_to_end() == b""
        session.free.set()
    assert "the client is too slow" in errors.text


async def test_a_slow_client_that_never_reads_is_left():
    session = Session()
    async with (
        serving(session, outbox_limit_bytes=100_000, close_timeout_s=0.2) as server,
        connected(server, receive_buffer=65536) as client,
    ):
        await client.open_websocket()
        put_to_sleep(client)
        stream = connection_of(server)
        await filled(session, stream)
        sender = asyncio.create_task(session.send({"type": "websocket.send", "text": "x"}))
        await asyncio.sleep(0)
        assert not sender.done()
        while stream.phase is Phase.OPEN:
            session.lane.transmit({"type": "websocket.send", "text": "x" * 1000}, {})
        with pytest.raises(ClientDisconnected):
            await sender
        await until(lambda: not runtime_of(server).connections)
        assert [event["code"] for event in await collect(session)] == [1013]
        session.free.set()


async def test_a_slow_client_loses_the_oldest():
    session = Session()
    async with (
        serving(session, outbox_limit_bytes=100_000, slow_client="drop-oldest") as server,
        connected(server, receive_buffer=65536) as client,
    ):
        await client.open_websocket()
        put_to_sleep(client)
        stream = connection_of(server)
        sent = await filled(session, stream, "-" * 1000)
        for number in range(1000):
            text = f"{number:04}".ljust(1000)
            assert session.lane.transmit({"type": "websocket.send", "text": text}, {})
            assert stream.outbox.waiting_bytes <= 100_000
        dropped = server.counters.dropped_messages
        assert dropped >= 900
        client.writer.transport.resume_reading()
        texts = [await client.read_text() for _ in range(sent + 1000 - dropped)]
        kept = [int(text[:4]) for text in texts if not text.startswith("-")]
        assert kept == list(range(1000 - len(kept), 1000))
        assert server.counters.slow_clients == 0
        session.free.set()


async def test_a_slow_client_gets_the_latest_only():
    session = Session()
    async with (
        serving(session, slow_client="latest-only") as server,
        connected(server, receive_buffer=65536) as client,
    ):
        await client.open_websocket()
        put_to_sleep(client)
        stream = connection_of(server)
        await filled(session, stream, "-" * 1000)
        for number in range(1000):
            assert session.lane.transmit({"type": "websocket.send", "text": str(number)}, {})
            assert stream.outbox.waiting_bytes < 1100
        assert server.counters.dropped_messages >= 999
        client.writer.transport.resume_reading()
        while (text := await client.read_text()).startswith("-"):
            pass
        assert text == "999"
        session.free.set()


async def test_pings_from_a_client_that_does_not_read_cost_nothing():
    session = Session()
    async with (
        serving(session, clients=FREE) as server,
        connected(server, receive_buffer=65536) as client,
    ):
        await client.open_websocket()
        put_to_sleep(client)
        stream = connection_of(server)
        await filled(session, stream)
        held = stream.transport.get_write_buffer_size()
        for _ in range(50):
            await client.send(frame(PING, b"p" * 125) * 1000)
        await client.send_text("after the pings")
        assert (await session.receive())["text"] == "after the pings"
        assert stream.transport.get_write_buffer_size() <= held
        assert len(stream.outbox._control) == 0
        assert len(stream.engine._pongs) <= 2048
        # The latest is answered when the client reads again.
        client.writer.transport.resume_reading()
        while (await client.read_frame())[0] != PONG:
            pass
        session.free.set()


async def test_a_client_that_closes_and_then_reads_gets_all_and_the_close():
    session = Session()
    async with (
        serving(session, close_timeout_s=5) as server,
        connected(server, receive_buffer=65536) as client,
    ):
        await client.open_websocket()
        put_to_sleep(client)
        stream = connection_of(server)
        sent = await filled(session, stream)
        assert session.lane.transmit({"type": "websocket.send", "text": "last"}, {})
        await client.send_close(1000)
        await until(lambda: stream.engine.state.name == "CLOSED")
        client.writer.transport.resume_reading()
        texts = [await client.read_text() for _ in range(sent + 1)]
        assert texts[-1] == "last"
        assert await client.read_close() == (1000, "")
        assert await client.read_to_end() == b""
        session.free.set()


# The lane


async def test_the_lane_is_the_applications_own_pair_of_callables():
    session = Session()
    async with serving(session) as server, connected(server) as client:
        await client.open_websocket()
        assert session.lane.send == session.send
        assert session.lane.receive == session.receive
        session.free.set()


async def test_events_of_the_layer_enter_the_one_inbox():
    session = Session()
    async with serving(session) as server, connected(server) as client:
        await client.open_websocket()
        assert session.lane.put({"type": "chat.message"}) is False, "no consumer has asked for any"
        session.lane.bounds = Bounds(3)
        waiting = asyncio.create_task(session.receive())
        await asyncio.sleep(0)
        assert session.lane.put({"type": "chat.message", "number": 0})
        assert await waiting == {"type": "chat.message", "number": 0}
        assert [session.lane.put({"type": "chat.message"}) for _ in range(4)] == [True] * 3 + [
            False
        ]
        for _ in range(3):
            await session.receive()
        await client.send_close()
        assert (await session.receive())["type"] == "websocket.disconnect"
        # Nobody is left to miss it: that is no overflow.
        assert session.lane.put({"type": "chat.message"})
        with pytest.raises(ClientDisconnected):
            await session.receive()
        session.free.set()


async def test_the_clients_messages_take_no_room_from_events():
    session = Session()
    async with serving(session) as server, connected(server) as client:
        await client.open_websocket()
        lane = session.lane
        lane.bounds = Bounds(1)
        await client.send_text("hello")
        await until(lambda: lane._events)
        assert lane.put({"type": "chat.message"}) is True
        assert lane.put({"type": "chat.message"}) is False
        session.free.set()


async def test_to_be_full_is_found_out_once_for_as_long_as_nothing_is_taken(monkeypatch):
    looks = []

    def counted(event, is_of_layer=websocket_module._is_of_layer):
        looks.append(event)
        return is_of_layer(event)

    monkeypatch.setattr(websocket_module, "_is_of_layer", counted)
    session = Session()
    async with serving(session) as server, connected(server) as client:
        await client.open_websocket()
        lane = session.lane
        lane.bounds = Bounds(3)
        outcomes = [lane.put({"type": "chat.message"}) for _ in range(10)]
        assert outcomes == [True] * 3 + [False] * 7
        assert len(looks) == 3
        await session.receive()
        await client.send_text("hello")
        await until(lambda: len(lane._events) == 3)
        assert [lane.put({"type": "chat.message"}) for _ in range(3)] == [True, False, False]
        assert len(looks) == 3 + 3 + 4
        assert lane.bounds.consumer is None
        session.free.set()


async def test_drop_oldest_drops_the_oldest_event_and_no_message():
    session = Session()
    async with serving(session) as server, connected(server) as client:
        await client.open_websocket()
        lane = session.lane
        lane.bounds = Bounds(2, Overflow.DROP_OLDEST)
        await client.send_text("hello")
        await until(lambda: lane._events)
        outcomes = [lane.put({"type": "chat.message", "number": n}) for n in range(4)]
        assert outcomes == [True, True, Overflow.DROP_OLDEST, Overflow.DROP_OLDEST]
        assert (await session.receive())["text"] == "hello"
        assert [(await session.receive())["number"] for _ in range(2)] == [2, 3]
        session.free.set()


async def test_close_for_overflow_keeps_what_the_client_said():
    session = Session()
    async with serving(session) as server, connected(server) as client:
        await client.open_websocket()
        lane = session.lane
        lane.bounds = Bounds(2, Overflow.CLOSE)
        await client.send_text("hello")
        await until(lambda: lane._events)
        outcomes = [lane.put({"type": "chat.message"}) for _ in range(4)]
        assert outcomes == [True, True, Overflow.CLOSE, True]
        assert lane.over
        assert await client.read_close() == (1013, "too many events are waiting")
        assert (await session.receive())["text"] == "hello"
        assert not lane.told
        assert (await session.receive())["code"] == 1013
        assert lane.told
        session.free.set()


async def test_an_overflow_before_the_accept_refuses():
    session = Session(accepts=False)
    async with serving(session) as server, connected(server) as client:
        await client.send(handshake())
        await session.called.wait()
        lane = session.lane
        assert lane.connecting
        lane.bounds = Bounds(1, Overflow.CLOSE)
        assert [lane.put({"type": "chat.message"}) for _ in range(2)] == [True, Overflow.CLOSE]
        assert (await client.read_response()).status == 503
        assert not lane.connecting
        session.free.set()


async def test_an_overflow_does_not_disturb_a_denial():
    session = Session(accepts=False)
    async with serving(session) as server, connected(server) as client:
        await client.send(handshake())
        await session.called.wait()
        lane = session.lane
        lane.bounds = Bounds(1, Overflow.CLOSE)
        await session.send({"type": "websocket.http.response.start", "status": 418})
        assert [lane.put({"type": "chat.message"}) for _ in range(2)] == [True, Overflow.CLOSE]
        await session.send({"type": "websocket.http.response.body", "body": b"short"})
        answer = await client.read_response()
        assert (answer.status, answer.body) == (418, b"short")
        session.free.set()


async def test_drop_oldest_with_room_for_one():
    session = Session()
    async with serving(session) as server, connected(server) as client:
        await client.open_websocket()
        session.lane.bounds = Bounds(1, Overflow.DROP_OLDEST)
        for number in range(4):
            session.lane.put({"type": "chat.message", "number": number})
        assert (await session.receive())["number"] == 3
        assert session.lane.put({"type": "chat.message", "number": 4}) is True
        session.free.set()


@pytest.mark.parametrize("overflow", Overflow)
async def test_a_capacity_of_nothing_takes_nothing(overflow):
    session = Session()
    async with serving(session) as server, connected(server) as client:
        await client.open_websocket()
        session.lane.bounds = Bounds(0, overflow)
        assert session.lane.put({"type": "chat.message"}) is False
        session.free.set()


async def test_a_broadcast_encodes_once_for_connections_of_one_kind():
    sessions = []

    async def app(scope, receive, send):
        session = Session()
        sessions.append(session)
        await session(scope, receive, send)

    offer = "Sec-WebSocket-Extensions: permessage-deflate"
    async with (
        serving(app) as server,
        connected(server) as a,
        connected(server) as b,
        connected(server) as c,
        connected(server) as d,
    ):
        for client in (a, b):
            await client.open_websocket()
        for client in (c, d):
            await client.open_websocket("/", offer)
        frames = {}
        text = "hello " * 1000
        for session in sessions:
            assert session.lane.transmit({"type": "websocket.send", "text": text}, frames)
        assert len(frames) == 2
        received = [await client.read_frame() for client in (a, b, c, d)]
        assert received[0] == received[1] == (TEXT, text.encode())
        assert received[2] == received[3]
        assert received[2][0] == 0x40 | TEXT
        for session in sessions:
            session.free.set()


async def test_a_connection_with_a_wire_of_its_own_encodes_for_itself():
    class Stateful:
        name = "x-counter"
        parameters = ()
        rsv = 0x40
        wire = None

        def __init__(self):
            self.count = 0

        def encode(self, payload):
            self.count += 1
            return b"%d:" % self.count + payload

        def decode(self, data, *, limit_bytes, final):
            return data

    class Factory:
        name = "x-counter"

        def negotiate(self, parameters):
            return Stateful()

    session = Session()
    async with serving(session, extensions=(Factory(),)) as server, connected(server) as client:
        await client.open_websocket("/", "Sec-WebSocket-Extensions: x-counter")
        frames = {}
        for _ in range(2):
            assert session.lane.transmit({"type": "websocket.send", "text": "x"}, frames)
        assert frames == {}
        assert [await client.read_frame() for _ in range(2)] == [
            (0x40 | TEXT, b"1:x"),
            (0x40 | TEXT, b"2:x"),
        ]
        session.free.set()


async def test_a_burst_is_sent_as_one_or_one_by_one():
    session = Session(accepts=False)
    events = [{"type": "websocket.send", "text": str(number)} for number in range(EARLY_EVENTS)]
    async with serving(session, outbox_limit_bytes=4000) as server, connected(server) as client:
        await client.send(handshake())
        await session.called.wait()
        bursts = {}
        assert session.lane.transmit_burst(events, bursts, False) == 0
        assert session.lane.transmit_burst(events[:2], bursts, False) == 2
        await session.send(ACCEPT)
        assert (await client.read_head()).status == 101
        stream = connection_of(server)
        for at_once in (False, True, True):
            # What waits leaves first, so at once means at once only where nothing does.
            assert session.lane.transmit_burst(events, bursts, at_once) == 0
            await until(lambda: stream.outbox.empty)
        assert len(bursts) == 1
        for _ in range(4):
            for number in range(EARLY_EVENTS):
                assert await client.read_text() == str(number)
        # To a client that takes no more they go one by one, for each may be dropped.
        stream.outbox.pause()
        stream.transmit_burst(events, bursts, True)
        assert stream.outbox.waiting_bytes == sum(len(event["text"]) + 2 for event in events)
        stream.outbox.resume()
        await client.send_close()
        while (await session.receive())["type"] != "websocket.disconnect":
            pass
        assert session.lane.transmit_burst(events, bursts, False) == 0
        session.free.set()


async def test_events_for_the_client_wait_for_the_accept():
    session = Session(accepts=False)
    async with serving(session) as server, connected(server) as client:
        await client.send(handshake())
        await session.called.wait()
        results = [
            session.lane.transmit({"type": "websocket.send", "text": str(number)}, {})
            for number in range(EARLY_EVENTS + 1)
        ]
        assert results == [True] * EARLY_EVENTS + [False]
        await session.send(ACCEPT)
        assert (await client.read_head()).status == 101
        for number in range(EARLY_EVENTS):
            assert await client.read_text() == str(number)
        session.free.set()


async def test_a_close_by_the_lane():
    session = Session()
    async with serving(session) as server, connected(server) as client:
        await client.open_websocket()
        waiting = asyncio.create_task(session.receive())
        await asyncio.sleep(0)
        close = {"type": "websocket.close", "code": 4005, "reason": "out"}
        assert session.lane.transmit(close, {})
        assert session.lane.transmit(close, {})
        assert session.lane.transmit({"type": "websocket.send", "text": "x"}, {})
        assert await waiting == disconnect(4005, "out")
        assert await client.read_close() == (4005, "out")
        session.free.set()


async def test_many_broadcasts_in_one_turn_leave_in_one_write():
    session = Session()
    async with serving(session) as server, connected(server) as client:
        await client.open_websocket()
        stream = connection_of(server)
        writes = []
        transport = stream.outbox.transport

        class Counting:
            def __getattr__(self, name):
                return getattr(transport, name)

            def write(self, data):
                writes.append(len(data))
                transport.write(data)

        stream.outbox.transport = Counting()
        for number in range(32):
            session.lane.transmit({"type": "websocket.send", "text": str(number)}, {})
        for number in range(32):
            assert await client.read_text() == str(number)
        assert len(writes) == 1
        session.free.set()


@pytest.mark.parametrize(
    ("takes_over", "policy"),
    [(False, SlowClientPolicy.DROP_OLDEST), (True, SlowClientPolicy.CLOSE)],
)
async def test_no_message_is_dropped_that_the_next_depends_on(takes_over, policy):
    session = Session()
    deflate = DeflateFactory(server_no_context_takeover=not takes_over)
    settings = {"extensions": (deflate,), "slow_client": SlowClientPolicy.DROP_OLDEST}
    async with serving(session, **settings) as server, connected(server) as client:
        await client.open_websocket("/", "Sec-WebSocket-Extensions: permessage-deflate")
        assert connection_of(server).outbox.policy is policy
        session.free.set()
