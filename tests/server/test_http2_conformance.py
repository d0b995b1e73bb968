"""The requirements of RFC 9113 (HTTP/2), RFC 7541 (HPACK) and RFC 8441, section by section.

Each case is named by its section. It says something to a server of this process by raw frames, and
what must come of it: an error of the connection, an error of one stream (the connection goes on,
as a ping proves), or an answer.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from headrace.protocols.http2 import Http2Limits

from .clients import read_body, respond, serving
from .h2_client import (
    ACK,
    COMPRESSION_ERROR,
    CONTINUATION,
    DATA,
    ENABLE_CONNECT_PROTOCOL,
    ENABLE_PUSH,
    END_HEADERS,
    END_STREAM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    GOAWAY,
    HEADER_TABLE_SIZE,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    MAX_CONCURRENT_STREAMS,
    MAX_FRAME_SIZE,
    NO_ERROR,
    PADDED,
    PING,
    PREFACE,
    PRIORITY,
    PROTOCOL_ERROR,
    PUSH_PROMISE,
    REFUSED_STREAM,
    RST_STREAM,
    SETTINGS,
    STREAM_CLOSED,
    WINDOW_UPDATE,
    h2,
    request,
    setting,
)

STREAMS = 8


async def application(scope, receive, send):
    """Answer with what was sent, "hello" or the headers; or not at all: ``/wait``, ``/deaf``."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({**message, "type": "websocket.send"})
    elif scope["path"] == "/wait":
        while (await receive())["type"] != "http.disconnect":
            pass
    elif scope["path"] == "/deaf":
        await asyncio.Event().wait()
    elif scope["path"] == "/headers":
        lines = [b"%b: %b" % pair for pair in scope["headers"]]
        await respond(send, b"\n".join(lines))
    elif scope["path"] == "/empty":
        await respond(send, status=204)
    else:
        await respond(send, await read_body(receive) or b"hello")


@dataclass
class Case:
    section: str
    name: str
    say: Callable[[Any], object]
    expect: Callable[[Any], Awaitable[None]]
    #: Said, and answered on stream 1, before.
    answered: bool = False
    settings: tuple[bytes, ...] = ()
    #: Whether the preface was said and answered before.
    started: bool = True

    def __str__(self):
        return f"{self.section} {self.name}"


CASES: list[Case] = []


def case(section, name, say, expect, **options):
    CASES.append(Case(section, name, say, expect, **options))


# What must come of it


def connection_error(*codes):
    async def expect(c):
        heard = await c.until(GOAWAY)
        assert heard.code in codes, heard
        assert heard.payload[8:], "a GOAWAY says why"
        while (late := await c.read()) is not None:
            assert late.kind in (RST_STREAM, GOAWAY), late

    return expect


def stream_error(*codes, stream=1):
    async def expect(c):
        heard = await c.until(RST_STREAM, GOAWAY)
        assert heard.kind == RST_STREAM, heard
        assert (heard.stream, heard.code in codes) == (stream, True), heard
        await c.alive()

    return expect


def answer(status=200, body=None, *, stream=1, **headers):
    async def expect(c):
        heard = await c.answer(stream)
        assert heard.status == status, heard
        if body is not None:
            assert heard.body == body
        for name, value in headers.items():
            assert heard[name.replace("_", "-").encode()] == value
        await c.alive()

    return expect


async def alive(c):
    await c.alive()


async def alive_and_serving(c):
    await c.alive()
    c.get(101)
    assert (await c.answer(101)).status == 200


def nothing(c):
    """Say nothing more."""


def padded(data, padding):
    return bytes([padding]) + data + bytes(padding)


# RFC 9113

# 3.4: the preface


async def settings_first(c):
    heard = await c.read()
    assert (heard.kind, heard.flags, heard.stream) == (SETTINGS, 0, 0)


case("3.4", "the server begins with SETTINGS", lambda c: c.preface(), settings_first, started=False)
case("3.4", "an empty SETTINGS frame will do", nothing, alive)
case(
    "3.4",
    "a malformed preface",
    lambda c: c.raw(PREFACE[:18] + b"XX\r\n\r\n"),
    connection_error(PROTOCOL_ERROR),
    started=False,
)
for kind, payload in ((PING, bytes(8)), (HEADERS, b"\x82"), (WINDOW_UPDATE, bytes(4))):
    case(
        "3.4",
        f"the first frame is of type {kind}",
        lambda c, kind=kind, payload=payload: c.raw(PREFACE).frame(kind, 4, kind == 1, payload),
        connection_error(PROTOCOL_ERROR),
        started=False,
    )
case(
    "3.4",
    "the first frame is an ACK",
    lambda c: c.raw(PREFACE).frame(SETTINGS, ACK, 0),
    connection_error(PROTOCOL_ERROR),
    started=False,
)
case(
    "3.4",
    "requests may follow the preface at once",
    lambda c: c.preface().get(),
    answer(200, b"hello"),
    started=False,
)

# 4.1: frames

case("4.1", "an unknown type is ignored", lambda c: c.frame(0x16, 0, 0, b"data"), alive)
case("4.1", "an unknown type on a stream", lambda c: c.frame(0xFE, 0xFF, 77, bytes(99)), alive)
case("4.1", "undefined flags are ignored", lambda c: c.frame(PING, 0x16, 0, bytes(8)), alive)
case(
    "4.1",
    "the reserved bit is ignored",
    lambda c: c.frame(PING, 0, 0x8000_0000, bytes(8)),
    alive,
)
case(
    "4.1",
    "the reserved bit of a request's stream",
    lambda c: c.frame(HEADERS, 5, 0x8000_0001, c.block(request())),
    answer(200),
)

# 4.2: sizes

case(
    "4.2",
    "DATA as long as may be",
    lambda c: c.post().data(1, bytes(16_384), ends=True),
    answer(200, bytes(16_384)),
)
for kind in (DATA, HEADERS, PRIORITY, SETTINGS, PING, 0x16):
    case(
        "4.2",
        f"a frame of type {kind} that is too long",
        lambda c, kind=kind: c.post().frame(kind, 0, kind < 3, bytes(16_385)),
        connection_error(FRAME_SIZE_ERROR),
    )
case(
    "4.2",
    "a frame that says it is too long, before it is there",
    lambda c: c.post().frame(DATA, 0, 1, b"", length=2**24 - 1),
    connection_error(FRAME_SIZE_ERROR),
)

# 4.3: blocks of headers

case(
    "4.3",
    "a block that can't be read",
    lambda c: c.frame(HEADERS, 5, 1, b"\xff\xff\xff\xff\xff"),
    connection_error(COMPRESSION_ERROR),
)
case(
    "4.3",
    "a block that ends too early",
    lambda c: c.frame(HEADERS, 5, 1, c.block(request())[:-2]),
    connection_error(COMPRESSION_ERROR),
)
case(
    "4.3",
    "trailers that can't be read",
    lambda c: c.post().frame(HEADERS, 5, 1, b"\xbf"),
    connection_error(COMPRESSION_ERROR),
)
case(
    "4.3",
    "PRIORITY in between",
    lambda c: c.frame(HEADERS, 1, 1, b"\x82").frame(PRIORITY, 0, 1, bytes(5)),
    connection_error(PROTOCOL_ERROR),
)
case(
    "4.3",
    "HEADERS of another stream in between",
    lambda c: c.frame(HEADERS, 1, 1, b"\x82").get(3),
    connection_error(PROTOCOL_ERROR),
)
case(
    "4.3",
    "a block in pieces of one byte",
    lambda c: [
        c.frame(
            CONTINUATION if at else HEADERS,
            (0 if at else END_STREAM) | (END_HEADERS if at == 11 else 0),
            1,
            part,
        )
        for at, part in enumerate(_in_pieces(c.block(request("GET", "/", ("a", "b"))), 12))
    ],
    answer(200),
)


def _in_pieces(block, count):
    size = -(-len(block) // count)
    pieces = [block[at : at + size] for at in range(0, len(block), size)]
    return pieces + [b""] * (count - len(pieces))


def _keeps_compressing(c):
    # A malformed request whose fields enter the table, and one that takes them from there.
    c.headers(1, request("GET", "/", ("x-kept", "in the table"), ("connection", "close")))
    c.get(3, "/headers", ("x-kept", "in the table"))


async def _kept(c):
    assert b"x-kept: in the table" in (await c.answer(3)).body


case("4.3", "a refused request's fields stay in the table", _keeps_compressing, _kept)

# 5.1: states of a stream

case("5.1", "idle: DATA", lambda c: c.data(1, b"x"), connection_error(PROTOCOL_ERROR))
case("5.1", "idle: RST_STREAM", lambda c: c.reset(1), connection_error(PROTOCOL_ERROR))
case("5.1", "idle: WINDOW_UPDATE", lambda c: c.window(1, 9), connection_error(PROTOCOL_ERROR))
case(
    "5.1",
    "idle: CONTINUATION",
    lambda c: c.frame(CONTINUATION, 4, 1, b"\x82"),
    connection_error(PROTOCOL_ERROR),
)
case("5.1", "idle: PRIORITY", lambda c: c.frame(PRIORITY, 0, 1, bytes(5)), alive_and_serving)
half = {
    "DATA": (lambda c: c.data(1, b"x"), stream_error(STREAM_CLOSED)),
    "HEADERS": (lambda c: c.get(1), stream_error(STREAM_CLOSED)),
    "CONTINUATION": (
        lambda c: c.frame(CONTINUATION, 4, 1, b"\x82"),
        connection_error(PROTOCOL_ERROR),
    ),
    "WINDOW_UPDATE": (lambda c: c.window(1, 9), alive),
    "PRIORITY": (lambda c: c.frame(PRIORITY, 0, 1, bytes(5)), alive),
    "RST_STREAM": (lambda c: c.reset(1), alive_and_serving),
}
for name, (say, expect) in half.items():
    case(
        "5.1",
        f"half-closed (remote): {name}",
        lambda c, say=say: say(c.get(1, "/wait")),
        expect,
    )
closed = {
    "DATA": (lambda c: c.data(1, b"x"), connection_error(STREAM_CLOSED)),
    "HEADERS": (lambda c: c.get(1), connection_error(STREAM_CLOSED)),
    "CONTINUATION": (
        lambda c: c.frame(CONTINUATION, 4, 1, b"\x82"),
        connection_error(PROTOCOL_ERROR),
    ),
    "WINDOW_UPDATE": (lambda c: c.window(1, 9), alive),
    "PRIORITY": (lambda c: c.frame(PRIORITY, 0, 1, bytes(5)), alive),
    "RST_STREAM": (lambda c: c.reset(1), alive),
}
for name, (say, expect) in closed.items():
    case("5.1", f"closed by both: {name}", say, expect, answered=True)
    case(
        "5.1",
        f"closed by the client's reset: {name}",
        lambda c, say=say: say(c.post(1, "/wait").reset(1)),
        expect,
    )


def _reset_by_us(c):
    return c.post(1, "/wait", ("connection", "close"))


for name in ("DATA", "HEADERS", "WINDOW_UPDATE", "PRIORITY", "RST_STREAM"):
    case(
        "5.1",
        f"closed by our reset: {name} was on its way",
        lambda c, say=closed[name][0]: say(_reset_by_us(c)),
        stream_error(PROTOCOL_ERROR),
    )
case(
    "5.1",
    "open: a second block of headers ends the request",
    lambda c: c.post(1).data(1, b"ab").headers(1, [("x-sum", "1")]),
    answer(200, b"ab"),
)

# 5.1.1: identifiers

case("5.1.1", "an even one", lambda c: c.get(2), connection_error(PROTOCOL_ERROR))
case("5.1.1", "a smaller one", lambda c: c.get(5).get(3), connection_error(PROTOCOL_ERROR))
case("5.1.1", "0", lambda c: c.get(0), connection_error(PROTOCOL_ERROR))
case("5.1.1", "one that leaves some out", lambda c: c.get(77), answer(200, stream=77))
case("5.1.1", "those left out are closed", lambda c: c.get(9).window(7, 1), alive)
case(
    "5.1.1",
    "DATA on one that was left out",
    lambda c: c.get(9).data(7, b"x"),
    connection_error(STREAM_CLOSED, PROTOCOL_ERROR),
)
case("5.1.1", "the largest", lambda c: c.get(2**31 - 1), answer(200, stream=2**31 - 1))

# 5.1.2: how many at once


def _waiting(c, count):
    for stream in range(1, 2 * count, 2):
        c.post(stream, "/wait")
    return c


case("5.1.2", "as many as may be", lambda c: _waiting(c, STREAMS), alive)
case(
    "5.1.2",
    "one more",
    lambda c: _waiting(c, STREAMS + 1),
    stream_error(REFUSED_STREAM, stream=2 * STREAMS + 1),
)


async def _told(c):
    await c.alive()
    assert c.settings[MAX_CONCURRENT_STREAMS] == STREAMS


case("5.1.2", "clients are told how many", nothing, _told)
case(
    "5.1.2",
    "one that ended makes room",
    lambda c: _waiting(c, STREAMS).reset(1).get(101),
    answer(200, stream=101),
)

# 5.3: priorities

case(
    "5.3.1",
    "HEADERS that depend on themselves",
    lambda c: c.frame(HEADERS, 0x25, 1, b"\0\0\0\1\7" + c.block(request())),
    stream_error(PROTOCOL_ERROR),
)
case(
    "5.3.1",
    "PRIORITY that depends on itself, of an open stream",
    lambda c: c.post(1, "/wait").frame(PRIORITY, 0, 1, b"\0\0\0\1\7"),
    stream_error(PROTOCOL_ERROR),
)
case(
    "5.3.1",
    "PRIORITY that depends on itself, of an idle one",
    lambda c: c.frame(PRIORITY, 0, 1, b"\0\0\0\1\7"),
    connection_error(PROTOCOL_ERROR),
)
case(
    "5.3.2",
    "HEADERS with a priority are served",
    lambda c: c.frame(HEADERS, 0x25, 3, b"\x80\0\0\1\xff" + c.block(request())),
    answer(200, stream=3),
)
case(
    "5.3.2",
    "priorities with and without streams",
    lambda c: [c.frame(PRIORITY, 0, stream, b"\0\0\0\x0b\xff") for stream in (1, 2, 3, 4, 99)],
    alive_and_serving,
)

# 5.4: errors

case(
    "5.4.1",
    "the last stream is named, and the connection ends",
    lambda c: c.get(5).frame(PING, 0, 1, bytes(8)),
    lambda c: _last_named(c, 5),
)


async def _last_named(c, last):
    heard = await c.until(GOAWAY)
    assert int.from_bytes(heard.payload[:4], "big") == last
    while await c.read() is not None:
        pass


case(
    "5.4.2",
    "the other streams go on",
    lambda c: c.post(3).post(1).data(3, b"x", ends=True),
    connection_error(PROTOCOL_ERROR),
)
case(
    "5.4.2",
    "a stream's error is the stream's",
    lambda c: c.post(1).post(3, "/", ("te", "gzip")).data(1, b"x", ends=True),
    answer(200, b"x"),
)

# 5.5: extensions

case("5.5", "an unknown frame is ignored", lambda c: c.frame(0xAA, 0, 0, b"?").get(), answer(200))
case(
    "5.5",
    "an unknown frame inside a block of headers",
    lambda c: c.frame(HEADERS, 1, 1, b"\x82").frame(0xAA, 0, 1, b"?"),
    connection_error(PROTOCOL_ERROR),
)
case("5.5", "an unknown setting is ignored", lambda c: c.set(0xFFAA, 7), alive_and_serving)
case("5.5", "ALTSVC is ignored", lambda c: c.frame(0xA, 0, 0, b"\0\1ax"), alive)
case("5.5", "PRIORITY_UPDATE is ignored", lambda c: c.frame(0x10, 0, 0, b"\0\0\0\1u=3"), alive)

# 6.1: DATA

case("6.1", "on stream 0", lambda c: c.data(0, b"x"), connection_error(PROTOCOL_ERROR))
case(
    "6.1",
    "padded",
    lambda c: c.post().data(1, padded(b"abc", 200), ends=True, flags=PADDED),
    answer(200, b"abc"),
)
case(
    "6.1",
    "padding alone",
    lambda c: c.post().data(1, padded(b"", 9), flags=PADDED).data(1, b"x", ends=True),
    answer(200, b"x"),
)
case(
    "6.1",
    "more padding than there is room for",
    lambda c: c.post().data(1, b"\x06abcde", flags=PADDED),
    connection_error(PROTOCOL_ERROR),
)
case(
    "6.1",
    "padded, and without a length",
    lambda c: c.post().data(1, b"", flags=PADDED),
    connection_error(PROTOCOL_ERROR, FRAME_SIZE_ERROR),
)
case("6.1", "an empty end", lambda c: c.post().data(1, ends=True), answer(200, b"hello"))
case(
    "6.1",
    "an empty frame in between",
    lambda c: c.post().data(1, b"a").data(1).data(1, b"b", ends=True),
    answer(200, b"ab"),
)

# 6.2: HEADERS

case(
    "6.2",
    "on stream 0",
    lambda c: c.frame(HEADERS, 5, 0, c.block(request())),
    connection_error(PROTOCOL_ERROR),
)
case(
    "6.2",
    "padded",
    lambda c: c.frame(HEADERS, 5 | PADDED, 1, padded(c.block(request()), 99)),
    answer(200),
)
case(
    "6.2",
    "padded, with a priority",
    lambda c: c.frame(HEADERS, 0x2D, 1, padded(bytes(5) + c.block(request()), 9)),
    answer(200),
)
case(
    "6.2",
    "more padding than there is room for",
    lambda c: c.frame(HEADERS, 5 | PADDED, 1, b"\xff" + c.block(request())),
    connection_error(PROTOCOL_ERROR),
)
case(
    "6.2",
    "too short for its priority",
    lambda c: c.frame(HEADERS, 0x25, 1, b"\0\0\0"),
    connection_error(FRAME_SIZE_ERROR),
)
case(
    "6.2",
    "too short for its padding",
    lambda c: c.frame(HEADERS, 5 | PADDED, 1, b""),
    connection_error(FRAME_SIZE_ERROR),
)

# 6.3: PRIORITY

case(
    "6.3",
    "on stream 0",
    lambda c: c.frame(PRIORITY, 0, 0, bytes(5)),
    connection_error(PROTOCOL_ERROR),
)
for size in (4, 6):
    case(
        "6.3",
        f"of {size} bytes, on an open stream",
        lambda c, size=size: c.post(1, "/wait").frame(PRIORITY, 0, 1, bytes(size)),
        stream_error(FRAME_SIZE_ERROR),
    )
case(
    "6.3",
    "of 4 bytes, on an idle stream",
    lambda c: c.frame(PRIORITY, 0, 1, bytes(4)),
    connection_error(FRAME_SIZE_ERROR),
)

# 6.4: RST_STREAM

case("6.4", "on stream 0", lambda c: c.reset(0), connection_error(PROTOCOL_ERROR))
for size in (0, 3, 5):
    case(
        "6.4",
        f"of {size} bytes",
        lambda c, size=size: c.post(1, "/wait").frame(RST_STREAM, 0, 1, bytes(size)),
        connection_error(FRAME_SIZE_ERROR),
    )
case("6.4", "twice", lambda c: c.post(1, "/wait").reset(1).reset(1), alive_and_serving)

# 6.5: SETTINGS

case(
    "6.5",
    "an ACK with a payload",
    lambda c: c.frame(SETTINGS, ACK, 0, setting(ENABLE_PUSH, 0)),
    connection_error(FRAME_SIZE_ERROR),
)
case(
    "6.5",
    "on a stream",
    lambda c: c.frame(SETTINGS, 0, 1, setting(ENABLE_PUSH, 0)),
    connection_error(PROTOCOL_ERROR),
)
for size in (3, 7):
    case(
        "6.5",
        f"of {size} bytes",
        lambda c, size=size: c.frame(SETTINGS, 0, 0, bytes(size)),
        connection_error(FRAME_SIZE_ERROR),
    )
case("6.5", "an ACK that nobody waits for", lambda c: c.frame(SETTINGS, ACK, 0), alive)
case("6.5.2", "ENABLE_PUSH 2", lambda c: c.set(ENABLE_PUSH, 2), connection_error(PROTOCOL_ERROR))
case("6.5.2", "ENABLE_PUSH 0", lambda c: c.set(ENABLE_PUSH, 0), alive)
case(
    "6.5.2",
    "INITIAL_WINDOW_SIZE 2^31",
    lambda c: c.set(INITIAL_WINDOW_SIZE, 2**31),
    connection_error(FLOW_CONTROL_ERROR),
)
for value in (16_383, 2**24, 0):
    case(
        "6.5.2",
        f"MAX_FRAME_SIZE {value}",
        lambda c, value=value: c.set(MAX_FRAME_SIZE, value),
        connection_error(PROTOCOL_ERROR),
    )
case("6.5.2", "MAX_FRAME_SIZE 2^24-1", lambda c: c.set(MAX_FRAME_SIZE, 2**24 - 1).get(), answer())
case("6.5.2", "HEADER_TABLE_SIZE 0", lambda c: c.set(HEADER_TABLE_SIZE, 0).get(), answer())
case("6.5.2", "HEADER_TABLE_SIZE 2^32-1", lambda c: c.set(1, 2**32 - 1).get(), answer())
case("6.5.2", "MAX_CONCURRENT_STREAMS 0", lambda c: c.set(3, 0).get(), answer())
case("6.5.2", "MAX_HEADER_LIST_SIZE 0", lambda c: c.set(6, 0).get(), answer())
case(
    "6.5.2",
    "ENABLE_CONNECT_PROTOCOL 2",
    lambda c: c.set(ENABLE_CONNECT_PROTOCOL, 2),
    connection_error(PROTOCOL_ERROR),
)


async def _acknowledged(c):
    for _ in range(2):
        heard = await c.until(SETTINGS)
        assert (heard.flags, heard.payload) == (ACK, b"")


case("6.5.3", "each is acknowledged", lambda c: c.set(2, 0).set(3, 9), _acknowledged)


def windows(*sizes):
    """Data comes in pieces of these sizes."""

    async def expect(c):
        c.acknowledges = False
        for size in sizes:
            heard = await c.until(DATA)
            assert len(heard.payload) == size, heard

    return expect


case(
    "6.5.3",
    "values are processed in their order",
    lambda c: c.frame(SETTINGS, 0, 0, setting(4, 100) + setting(4, 2)).get(),
    windows(2),
)

# 6.6: PUSH_PROMISE

case(
    "6.6",
    "clients push nothing",
    lambda c: c.post(1).frame(PUSH_PROMISE, 4, 1, b"\0\0\0\2\x82"),
    connection_error(PROTOCOL_ERROR),
)

# 6.7: PING


async def _same_data(c):
    heard = await c.until(PING)
    assert heard[:4] == (PING, ACK, 0, b"opaque!!")


case("6.7", "is answered, with the same data", lambda c: c.frame(6, 0, 0, b"opaque!!"), _same_data)


async def _no_answer(c):
    await c.alive()
    assert [f.payload for f in c.seen if f.kind == PING] == [b"are you?"]


case("6.7", "an ACK is not answered", lambda c: c.frame(PING, ACK, 0, b"opaque!!"), _no_answer)
case(
    "6.7",
    "on a stream",
    lambda c: c.frame(PING, 0, 1, bytes(8)),
    connection_error(PROTOCOL_ERROR),
)
for size in (0, 7, 9):
    case(
        "6.7",
        f"of {size} bytes",
        lambda c, size=size: c.frame(PING, 0, 0, bytes(size)),
        connection_error(FRAME_SIZE_ERROR),
    )

# 6.8: GOAWAY

case("6.8", "on a stream", lambda c: c.goaway(stream=1), connection_error(PROTOCOL_ERROR))
case(
    "6.8",
    "too short",
    lambda c: c.frame(GOAWAY, 0, 0, bytes(7)),
    connection_error(FRAME_SIZE_ERROR),
)


async def _finishes(c):
    assert (await c.answer(1)).body == b"under way"
    heard = None
    while (frame := await c.read()) is not None:
        heard = frame if frame.kind == GOAWAY else heard
    assert heard is None or heard.code == NO_ERROR


case(
    "6.8",
    "what is under way is finished",
    lambda c: c.post(1).goaway().data(1, b"under way", ends=True),
    _finishes,
)


async def _ends(c):
    while await c.read() is not None:
        pass
    assert [f.code for f in c.seen if f.kind == GOAWAY] == [NO_ERROR]


case("6.8", "with nothing under way the connection ends", lambda c: c.goaway(), _ends)

# 6.9: WINDOW_UPDATE

case("6.9", "0, of the connection", lambda c: c.window(0, 0), connection_error(PROTOCOL_ERROR))
case(
    "6.9",
    "0, of a stream",
    lambda c: c.post(1, "/wait").window(1, 0),
    stream_error(PROTOCOL_ERROR),
)
for size in (3, 5):
    case(
        "6.9",
        f"of {size} bytes",
        lambda c, size=size: c.frame(WINDOW_UPDATE, 0, 0, bytes(size)),
        connection_error(FRAME_SIZE_ERROR),
    )
case("6.9", "its reserved bit is ignored", lambda c: c.window(0, 0x8000_0001), alive)
case(
    "6.9.1",
    "no more is sent than the window lets through",
    lambda c: c.get(),
    windows(1),
    settings=(setting(INITIAL_WINDOW_SIZE, 1),),
)
case(
    "6.9.1",
    "the rest follows when it opens",
    lambda c: c.get().window(1, 2).window(1, 2),
    windows(5),
    settings=(setting(INITIAL_WINDOW_SIZE, 1),),
)
case(
    "6.9.1",
    "the connection's window holds for all streams",
    lambda c: [c.post(stream).data(stream, bytes(14_000), ends=True) for stream in range(1, 13, 2)],
    windows(14_000, 14_000, 14_000, 14_000, 9_535),
)
case(
    "6.9.1",
    "a window of the connection that is too large",
    lambda c: c.window(0, 2**31 - 1).window(0, 2**31 - 1),
    connection_error(FLOW_CONTROL_ERROR),
)
case(
    "6.9.1",
    "a window of a stream that is too large",
    lambda c: c.post(1, "/wait").window(1, 2**31 - 1).window(1, 2**31 - 1),
    stream_error(FLOW_CONTROL_ERROR),
)
case(
    "6.9.1",
    "more data than our window lets through",
    lambda c: [c.post(1, "/deaf"), *(c.data(1, bytes(16_384)) for _ in range(18))],
    connection_error(FLOW_CONTROL_ERROR),
)
case(
    "6.9.1",
    "headers need no window",
    lambda c: c.get(1, "/empty"),
    answer(204),
    settings=(setting(INITIAL_WINDOW_SIZE, 0),),
)


async def _changed(c):
    c.acknowledges = False
    await c.until(HEADERS)
    c.set(INITIAL_WINDOW_SIZE, 3)
    assert len((await c.until(DATA)).payload) == 3
    c.set(INITIAL_WINDOW_SIZE, 1)
    c.window(1, 2)  # 1 - 3 + 2: nothing yet
    await c.alive()
    assert [len(f.payload) for f in c.seen if f.kind == DATA] == [3]
    c.window(1, 1)
    assert len((await c.until(DATA)).payload) == 1


case(
    "6.9.2",
    "a window changes with the setting, and may be negative",
    lambda c: c.get(),
    _changed,
    settings=(setting(INITIAL_WINDOW_SIZE, 0),),
)
case(
    "6.9.2",
    "a setting that makes a window too large",
    lambda c: c.post(1, "/wait").window(1, 2**31 - 65_536).set(INITIAL_WINDOW_SIZE, 2**31 - 1),
    connection_error(FLOW_CONTROL_ERROR),
)
case(
    "6.9.2",
    "the setting does not move the connection's window",
    lambda c: [
        c.set(INITIAL_WINDOW_SIZE, 2**20),
        *(c.post(s).data(s, bytes(16_000), ends=True) for s in range(1, 11, 2)),
    ],
    windows(16_000, 16_000, 16_000, 16_000, 1_535),
)

# 6.10: CONTINUATION


def _block_in(c, *flags, stream=1):
    """A request in as many frames as there are flags."""
    pieces = _in_pieces(c.block(request()), len(flags))
    for at, (flag, piece) in enumerate(zip(flags, pieces, strict=True)):
        c.frame(CONTINUATION if at else HEADERS, flag, stream, piece)
    return c


case("6.10", "several", lambda c: _block_in(c, 1, 0, 0, 4), answer())
case(
    "6.10", "an empty one", lambda c: c.frame(1, 1, 1, c.block(request())).frame(9, 4, 1), answer()
)
case(
    "6.10",
    "on another stream",
    lambda c: c.frame(HEADERS, 1, 1, b"\x82").frame(CONTINUATION, 4, 3, b"\x84"),
    connection_error(PROTOCOL_ERROR),
)
case(
    "6.10",
    "on stream 0",
    lambda c: c.frame(HEADERS, 1, 1, b"\x82").frame(CONTINUATION, 4, 0, b"\x84"),
    connection_error(PROTOCOL_ERROR),
)
case(
    "6.10",
    "behind HEADERS that are whole",
    lambda c: c.post(1).frame(CONTINUATION, 4, 1, b"\x84"),
    connection_error(PROTOCOL_ERROR),
)
case(
    "6.10",
    "behind CONTINUATION that was the last",
    lambda c: _block_in(c, 0, 4).frame(CONTINUATION, 4, 1, b"\x84"),
    connection_error(PROTOCOL_ERROR),
)
case(
    "6.10",
    "behind DATA",
    lambda c: c.post(1).data(1, b"x").frame(CONTINUATION, 4, 1, b"\x84"),
    connection_error(PROTOCOL_ERROR),
)
case(
    "6.10",
    "DATA instead",
    lambda c: c.frame(HEADERS, 0, 1, b"\x82").data(1, b"x"),
    connection_error(PROTOCOL_ERROR),
)

# 7: error codes

case("7", "an unknown one in RST_STREAM", lambda c: c.post(1, "/wait").reset(1, 0xFF), alive)
case("7", "an unknown one in GOAWAY", lambda c: c.goaway(0, 0xFF), _ends)

# 8.1: messages

case(
    "8.1",
    "a second block of headers that does not end the stream",
    lambda c: c.post(1).headers(1, [("x", "y")], ends=False),
    stream_error(PROTOCOL_ERROR),
)
case("8.1", "trailers", lambda c: c.post(1).data(1, b"x").headers(1, [("x", "y")]), answer(200))
case("8.1", "HEAD has no body", lambda c: c.headers(1, request("HEAD")), answer(200, b""))
case("8.1", "204 has no body", lambda c: c.get(1, "/empty"), answer(204, b""))


async def _early(c):
    assert (await c.answer(1)).status == 204
    c.data(1, b"more")
    assert (await c.until(RST_STREAM)).code == NO_ERROR
    c.data(1, b"was on its way").headers(1, [("x", "y")])
    await c.alive()


case("8.1", "an early answer ends a request that goes on", lambda c: c.post(1, "/empty"), _early)
for name, say in {
    "less": lambda c: c.post(1, "/", ("content-length", "5")).data(1, b"four", ends=True),
    "more": lambda c: c.post(1, "/", ("content-length", "3")).data(1, b"four", ends=True),
    "more in several frames": lambda c: (
        c.post(1, "/", ("content-length", "3")).data(1, b"ab").data(1, b"cd")
    ),
    "nothing": lambda c: c.headers(1, request("POST", "/", ("content-length", "1"))),
    "less, with trailers": lambda c: (
        c.post(1, "/", ("content-length", "9")).data(1, b"ab").headers(1, [("x", "y")])
    ),
}.items():
    case("8.1.1", f"{name} than Content-Length says", say, stream_error(PROTOCOL_ERROR))
case(
    "8.1.1",
    "as much as Content-Length says",
    lambda c: (
        c.post(1, "/", ("content-length", "4")).data(1, b"fo").data(1, b"ur").data(1, ends=True)
    ),
    answer(200, b"four"),
)
for value in ("+5", "0x5", "6_0", "", "5, 5", "-1", "five", "٣"):
    case(
        "8.1.1",
        f"Content-Length {value!a}",
        lambda c, value=value: c.post(1, "/", ("content-length", value)),
        stream_error(PROTOCOL_ERROR),
    )
for values in (("5", "6"), ("5", "5")):
    case(
        "8.1.1",
        f"Content-Length {' and '.join(values)}",
        lambda c, values=values: c.post(1, "/", *(("content-length", v) for v in values)),
        stream_error(PROTOCOL_ERROR),
    )
case(
    "8.1.1",
    "Content-Length that no body has",
    lambda c: c.post(1, "/", ("content-length", "9" * 30)),
    answer(413),
)

# 8.2: fields


def field(name, value):
    """A request with a field, written as it is."""

    def say(c):
        block = c.block(request())
        for part in (name, value):
            block += (b"\0" if part is name else b"") + bytes([len(part)]) + part
        c.frame(HEADERS, 5, 1, block)

    return say


for name in (b"Upper", b"x-A", b"a b", b"a:b", b"", b"a\0", b"a\r", b"a\n", b"a\x7f", b"a\xff"):
    section = "8.2" if name.lower() != name else "8.2.1"
    case(section, f"the name {name!r}", field(name, b"v"), stream_error(PROTOCOL_ERROR))
for value in (b"a\0b", b"a\rb", b"a\nb", b"a\r\nb: c", b" a", b"a ", b"\ta", b"a\t", b"\x01"):
    case("8.2.1", f"the value {value!r}", field(b"x", value), stream_error(PROTOCOL_ERROR))
for value in (b"", b"a b", b"a\tb", b"\xc3\xa4"):
    case("8.2.1", f"the value {value!r} is fine", field(b"x", value), answer(200))
for name, value in {
    "connection": "close",
    "keep-alive": "timeout=1",
    "proxy-connection": "keep-alive",
    "transfer-encoding": "chunked",
    "upgrade": "websocket",
    "te": "gzip",
}.items():
    case(
        "8.2.2",
        f"the field {name}",
        lambda c, field=(name, value): c.get(1, "/", field),
        stream_error(PROTOCOL_ERROR),
    )
case("8.2.2", "te: trailers is fine", lambda c: c.get(1, "/", ("te", "trailers")), answer(200))
case(
    "8.2.2",
    "a field of HTTP/1.1 in trailers",
    lambda c: c.post(1).headers(1, [("connection", "close")]),
    stream_error(PROTOCOL_ERROR),
)
case(
    "8.2.3",
    "cookies are one field",
    lambda c: c.get(1, "/headers", ("cookie", "a=1"), ("x", "y"), ("cookie", "b=2; c=3")),
    answer(200, b"host: here\nx: y\ncookie: a=1; b=2; c=3"),
)

# 8.3: pseudo-headers

for name in (":unknown", ":status", ":", ":PATH"):
    case(
        "8.3",
        f"the pseudo-header {name}",
        lambda c, name=name: c.headers(1, [*request(), (name, "/")]),
        stream_error(PROTOCOL_ERROR),
    )
case(
    "8.3",
    "one in trailers",
    lambda c: c.post(1).headers(1, [(":method", "GET")]),
    stream_error(PROTOCOL_ERROR),
)
case(
    "8.3",
    "one behind a field",
    lambda c: c.headers(1, [*request(path=None), ("x", "y"), (":path", "/")]),
    stream_error(PROTOCOL_ERROR),
)
for name in ("method", "scheme", "path"):
    case(
        "8.3.1",
        f":{name} is missing",
        lambda c, name=name: c.headers(1, request(**{name: None})),
        stream_error(PROTOCOL_ERROR),
    )
for name in ("method", "scheme", "path", "authority"):
    case(
        "8.3.1",
        f":{name} stands twice",
        lambda c, name=name: c.headers(1, [(f":{name}", "x"), *request()]),
        stream_error(PROTOCOL_ERROR),
    )
case(
    "8.3.1",
    ":path is empty",
    lambda c: c.headers(1, request("GET", "")),
    stream_error(PROTOCOL_ERROR),
)
for path in ("relative", "/a b", "/a#b", "/%zz", "http://here/"):
    case("8.3.1", f":path {path}", lambda c, path=path: c.get(1, path), answer(400))
case("8.3.1", ":path * with GET", lambda c: c.get(1, "*"), answer(400))
case("8.3.1", ":path * with OPTIONS", lambda c: c.headers(1, request("OPTIONS", "*")), answer(200))
case("8.3.1", "a :method that is none", lambda c: c.headers(1, request("G T")), stream_error(1))
case("8.3.1", "a :method nobody knows", lambda c: c.headers(1, request("BREW")), answer(501))
case(
    "8.3.1",
    "neither :authority nor host",
    lambda c: c.headers(1, request(authority=None)),
    stream_error(PROTOCOL_ERROR),
)
case(
    "8.3.1",
    "host will do",
    lambda c: c.headers(1, request("GET", "/headers", ("host", "there"), authority=None)),
    answer(200, b"host: there"),
)
case(
    "8.3.1",
    ":authority and the same host",
    lambda c: c.get(1, "/headers", ("host", "here")),
    answer(200, b"host: here"),
)
case(
    "8.3.1",
    ":authority and another host",
    lambda c: c.get(1, "/", ("host", "there")),
    stream_error(PROTOCOL_ERROR),
)
case(
    "8.3.1",
    "two hosts",
    lambda c: c.get(1, "/", ("host", "here"), ("host", "here")),
    stream_error(PROTOCOL_ERROR),
)
for authority in ("user@here", "", "a/b", "here:99999", "[::zz]"):
    case(
        "8.3.1",
        f":authority {authority!r}",
        lambda c, authority=authority: c.headers(1, request(authority=authority)),
        answer(400),
    )

# 8.5: CONNECT, and RFC 8441

CONNECT = {"method": "CONNECT", "scheme": None, "path": None, "authority": "there:443"}
case("8.5", "is not served", lambda c: c.headers(1, request(**CONNECT), ends=False), answer(501))
for name in ("scheme", "path"):
    case(
        "8.5",
        f"with a :{name}",
        lambda c, name=name: c.headers(1, request(**{**CONNECT, name: "/"}), ends=False),
        stream_error(PROTOCOL_ERROR),
    )
case(
    "8.5",
    "without :authority",
    lambda c: c.headers(1, request(**{**CONNECT, "authority": None}), ends=False),
    stream_error(PROTOCOL_ERROR),
)


def websocket(*extra, **changes):
    fields = {"method": "CONNECT", "protocol": "websocket"} | changes
    method, path = fields.pop("method"), fields.pop("path", "/")
    version = ("sec-websocket-version", "13")
    return request(method, path, version, *extra, **fields)


async def _offered(c):
    await c.alive()
    assert c.settings[ENABLE_CONNECT_PROTOCOL] == 1


async def _opened(c):
    heard = await c.until(HEADERS)
    assert not heard.flags & END_STREAM
    assert (b":status", b"200") in heard.fields
    await c.alive()


case("RFC 8441 3", "extended CONNECT is offered", nothing, _offered)
case("RFC 8441 4", "opens", lambda c: c.headers(1, websocket(), ends=False), _opened)
for name in ("scheme", "path", "authority"):
    case(
        "RFC 8441 4",
        f"without :{name}",
        lambda c, name=name: c.headers(1, websocket(**{name: None}), ends=False),
        stream_error(PROTOCOL_ERROR),
    )
case(
    "RFC 8441 4",
    ":protocol with GET",
    lambda c: c.headers(1, websocket(method="GET"), ends=False),
    stream_error(PROTOCOL_ERROR),
)
case(
    "RFC 8441 4",
    "another :protocol",
    lambda c: c.headers(1, websocket(protocol="connect-udp"), ends=False),
    answer(501),
)
case(
    "RFC 8441 5",
    "HEADERS in the tunnel",
    lambda c: c.headers(1, websocket(), ends=False).headers(1, [("x", "y")]),
    stream_error(PROTOCOL_ERROR),
)

# RFC 7541 (HPACK)


def block(tail, *, head=True):
    """A request whose block of headers ends in these bytes."""
    return lambda c: c.frame(HEADERS, 5, 1, (c.block(request()) if head else b"") + tail)


unreadable = connection_error(COMPRESSION_ERROR)
case("HPACK 2.3.3", "an index beyond the tables", block(b"\xc6"), unreadable)
case("HPACK 2.3.3", "a name beyond the tables", block(b"\x7f\x39\x01v"), unreadable)
case("HPACK 4.2", "a size update behind a field", block(b"\x20"), unreadable)
case("HPACK 4.2", "a size update beyond the limit", block(b"\x3f\xe2\x1f", head=False), unreadable)
case(
    "HPACK 4.3",
    "a smaller table lets its entries go",
    lambda c: c.get(1, "/", ("x-kept", "v")).frame(HEADERS, 5, 3, b"\x20\x82\x87\x84\xbe"),
    unreadable,
)
case(
    "HPACK 4.4",
    "an entry larger than the table empties it",
    lambda c: [
        c.frame(HEADERS, 5, 1, c.block(request("GET", "/", ("x-kept", "v")))),
        c.frame(HEADERS, 5, 3, b"\x82\x86\x84\x40\x01x\x7f\x81\x1f" + b"v" * 4096 + b"\xbe"),
    ],
    unreadable,
)
case("HPACK 5.1", "a number without end", block(b"\xff" + b"\x80" * 20 + b"\x01"), unreadable)
case("HPACK 5.1", "a number that is cut off", block(b"\xff\x80"), unreadable)
case("HPACK 5.2", "a string longer than its block", block(b"\x00\x01a\x05b"), unreadable)
case("HPACK 5.2", "Huffman: padding of 8 bits", block(b"\x00\x01a\x82\x1f\xff"), unreadable)
case("HPACK 5.2", "Huffman: padding of zeros", block(b"\x00\x01a\x81\x18"), unreadable)
case("HPACK 5.2", "Huffman: EOS", block(b"\x00\x01a\x84\xff\xff\xff\xff"), unreadable)
case("HPACK 6.1", "the index 0", block(b"\x80"), unreadable)
for name, tail in {
    "that is kept": b"\x40\x01a\x01b",
    "that is not": b"\x00\x01a\x01b",
    "that nobody keeps": b"\x10\x01a\x01b",
    "with a known name": b"\x0f\x2b\x01b",
}.items():
    case("HPACK 6.2", f"a literal {name}", block(tail), answer(200))
case(
    "HPACK 6.3",
    "a smaller table, and the old one again",
    lambda c: c.frame(HEADERS, 5, 1, b"\x20\x3f\xe1\x1f" + b"\x82\x86\x84\x41\x04here"),
    answer(200),
)


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_conformance(case):
    limits = Http2Limits(streams=STREAMS)
    async with (
        serving(application, http2_limits=limits, application_close_timeout_s=0.05) as server,
        h2(server, *case.settings, started=case.started) as client,
    ):
        if case.answered:
            client.get(1)
            assert (await client.answer(1)).status == 200
        case.say(client)
        await case.expect(client)


def test_there_are_as_many_as_the_public_suite_has():
    assert len(CASES) >= 147
    assert len({str(case) for case in CASES}) == len(CASES)
