"""What holds for any bytes: however they are cut, whoever speaks, however many there are."""

import gc
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import h11
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from headrace.exceptions import LocalProtocolError
from headrace.protocols.http1 import (
    BodyReceived,
    Event,
    Http1Engine,
    Http1Limits,
    RequestCompleted,
    RequestFailed,
    RequestReceived,
    State,
)

# --- any bytes ------------------------------------------------------------------------------------

PIECES = [
    b"GET / HTTP/1.1\r\n",
    b"GET /a?b HTTP/1.1\r\n",
    b"POST / HTTP/1.1\r\n",
    b"HEAD / HTTP/1.0\r\n",
    b"OPTIONS * HTTP/1.1\r\n",
    b"GET http://b/ HTTP/1.1\r\n",
    b"Host: a\r\n",
    b"Host: a, b\r\n",
    b"Content-Length: 5\r\n",
    b"Content-Length: 0\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Connection: close\r\n",
    b"Connection: keep-alive\r\n",
    b"Expect: 100-continue\r\n",
    b"A: b\r\n",
    b"A: \xff\t c \r\n",
    b" folded\r\n",
    b"\r\n",
    b"\r\n\r\n",
    b"\n",
    b"\r",
    b"\x00",
    b" ",
    b":",
    b"hello",
    b"5\r\nhello\r\n",
    b"5;a=b\r\nhello\r\n",
    b"1\r\na\r\n",
    b"0\r\n\r\n",
    b"0\r\nA: b\r\n\r\n",
    b"f" * 40,
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
]
STREAMS = st.lists(st.sampled_from(PIECES) | st.binary(max_size=8), max_size=12).map(b"".join)
SMALL = Http1Limits(
    request_line_bytes=30,
    field_bytes=20,
    header_bytes=60,
    header_count=3,
    body_bytes=8,
    chunk_line_bytes=6,
    chunk_extension_bytes=8,
    trailer_bytes=10,
)


def converse(
    engine: Http1Engine, pieces: Iterator[bytes] | list[bytes], *, most: int = 64
) -> tuple[list[object], bytes]:
    """Answer each request when it is complete; give what was said, with bodies joined, and sent."""
    said: list[object] = []

    def take(events: list[Event]) -> None:
        for event in events:
            if isinstance(event, BodyReceived) and isinstance(said[-1], bytes):
                said[-1] += event.data
            else:
                said.append(event.data if isinstance(event, BodyReceived) else event)
            if isinstance(event, RequestCompleted):
                engine.send_response(200)
                engine.send_body(b"%d" % len(said))

    for piece in pieces:
        take(engine.receive(piece, 0.0, max_events=most))
        while engine.has_unread:
            take(engine.receive(b"", 0.0, max_events=most))
    take(engine.receive_eof(0.0))
    return said, engine.data_to_send()


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:stop] for start, stop in pairwise(edges)]


@given(
    data=STREAMS,
    places=st.lists(st.integers(0, 10_000), max_size=8),
    most=st.integers(1, 4),
    limits=st.sampled_from([Http1Limits(), SMALL]),
)
@example(  # a CR alone, on the last byte that the limit allows, in front of the empty line
    data=b"GET / HTTP/1.1\r\nHost: a\r\n"
    + (b"A: " + b"b" * 15 + b"\r\n") * 2
    + b"A: bbbbb\r\r\n\r\n",
    places=[],
    most=4,
    limits=SMALL,
)
def test_events_do_not_depend_on_the_cut(
    data: bytes, places: list[int], most: int, limits: Http1Limits
) -> None:
    whole = converse(Http1Engine(limits, now=0.0), [data])
    for pieces in (cut(data, places), [data[i : i + 1] for i in range(len(data))]):
        assert converse(Http1Engine(limits, now=0.0), pieces, most=most) == whole


@given(data=STREAMS | st.binary(max_size=200))
def test_any_bytes_are_met_with_a_status(data: bytes) -> None:
    said, sent = converse(Http1Engine(now=0.0), [data])
    for event in said[:-1]:
        assert not isinstance(event, RequestFailed)
    if said and isinstance(said[-1], RequestFailed):
        assert 400 <= said[-1].status <= 505
        assert said[-1].reason.isprintable()
        assert sent


@given(data=st.binary(max_size=60))
def test_no_byte_breaks_out_of_a_value(data: bytes) -> None:
    """A value is accepted as it is, or the request is refused: no byte of it ends the line."""
    raw = b"GET / HTTP/1.1\r\nHost: a\r\nA: %b\r\nB: end\r\n\r\n" % data
    first, *_ = Http1Engine(now=0.0).receive(raw, 0.0)
    plain = not any(byte < 0x20 and byte != 0x09 for byte in data) and 0x7F not in data
    if plain:
        assert isinstance(first, RequestReceived)
        assert first.headers[1:] == [(b"a", data.strip(b" \t")), (b"b", b"end")]
    elif isinstance(first, RequestReceived):
        assert b"\r\n" in data  # lines of their own, each well-formed


# --- an independent client ------------------------------------------------------------------------

TOKENS = st.text("!#$%&'*+-.^_`|~09azAZ", min_size=1, max_size=12).map(str.encode)
TEXT = st.characters(min_codepoint=0x20, max_codepoint=0xFF, blacklist_characters="\x7f").filter(
    lambda character: not 0x7F <= ord(character) < 0xA0
)
VALUES = st.text(TEXT, max_size=20).map(lambda text: text.strip().encode("latin-1").strip(b" \t"))
FIELDS = st.lists(st.tuples(TOKENS.map(lambda name: b"x-" + name.lower()), VALUES), max_size=6)
PATHS = st.text("/abc._~!$&'()*+,;=:@-", max_size=20).map(lambda path: b"/" + path.encode())
QUERIES = st.none() | st.text("/?abc._~!$&'()*+,;=:@-", max_size=20).map(str.encode)
BODIES = st.lists(st.binary(min_size=1, max_size=50), max_size=4)


@given(
    method=st.sampled_from(["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD"]),
    path=PATHS,
    query=QUERIES,
    fields=FIELDS,
    body=BODIES,
    sized=st.booleans(),
    reply=BODIES,
    reply_fields=FIELDS,
    reply_sized=st.booleans(),
    size=st.integers(1, 100),
)
def test_round_trip_with_h11(
    method: str,
    path: bytes,
    query: bytes | None,
    fields: list[tuple[bytes, bytes]],
    body: list[bytes],
    sized: bool,
    reply: list[bytes],
    reply_fields: list[tuple[bytes, bytes]],
    reply_sized: bool,
    size: int,
) -> None:
    client = h11.Connection(h11.CLIENT)
    engine = Http1Engine(now=0.0)
    length = len(b"".join(body))
    framing = (b"content-length", b"%d" % length) if sized else (b"transfer-encoding", b"chunked")
    headers = [(b"host", b"example.org"), *fields, framing]
    target = path if query is None else path + b"?" + query
    raw = client.send(h11.Request(method=method, target=target, headers=headers)) or b""
    for part in body:
        raw += client.send(h11.Data(part)) or b""
    raw += client.send(h11.EndOfMessage()) or b""

    events: list[Any] = []
    for start in range(0, len(raw), size):
        events += engine.receive(raw[start : start + size], 0.0)
    request, *parts, completed = events
    assert isinstance(request, RequestReceived)
    assert request.method == method
    assert request.raw_path == path
    assert request.query_string == (query or b"")
    assert request.headers == headers
    assert b"".join(part.data for part in parts) == b"".join(body)
    assert completed == RequestCompleted()

    total = len(b"".join(reply))
    extra = [(b"content-length", b"%d" % total)] if reply_sized else []
    engine.send_response(200, [*reply_fields, *extra])
    for part in reply:
        engine.send_body(part, more=True)
    engine.send_body(b"")
    client.receive_data(engine.data_to_send())
    response = client.next_event()
    assert isinstance(response, h11.Response)
    assert list(response.headers)[: len(reply_fields)] == reply_fields
    received = b""
    while isinstance(event := client.next_event(), h11.Data):
        received += event.data
    assert isinstance(event, h11.EndOfMessage)
    assert received == (b"" if method == "HEAD" else b"".join(reply))
    client.start_next_cycle()
    assert engine.state is State.IDLE


@given(name=st.binary(max_size=6), value=st.binary(max_size=12))
def test_no_illegal_byte_goes_out(name: bytes, value: bytes) -> None:
    engine = Http1Engine(now=0.0)
    engine.receive(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", 0.0)
    try:
        engine.send_response(299, [(name, value)])
    except LocalProtocolError:
        return
    engine.send_body(b"", more=True)
    head = engine.data_to_send()
    assert head.split(b"\r\n")[1:] == [
        name.lower() + b": " + value,
        b"transfer-encoding: chunked",
        b"",
        b"",
    ]
    assert head.count(b"\n") == head.count(b"\r") == 4


# --- how much -------------------------------------------------------------------------------------

WIDE = Http1Limits(
    request_line_bytes=1 << 24,
    field_bytes=1 << 24,
    header_bytes=1 << 24,
    header_count=1 << 24,
    chunk_line_bytes=1 << 24,
    chunk_extension_bytes=1 << 24,
    trailer_bytes=1 << 24,
)
HOST = b"Host: a\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


def head(*fields: bytes) -> bytes:
    return b"GET / HTTP/1.1\r\n" + HOST + b"".join(field + b"\r\n" for field in fields) + b"\r\n"


def trickle(data: bytes) -> list[bytes]:
    return [data[index : index + 1] for index in range(len(data))]


MANY: dict[str, Callable[[int], list[bytes]]] = {
    "bytes of a target": lambda n: [b"GET /" + b"a" * n + b"\x80 HTTP/1.1\r\n" + HOST + b"\r\n"],
    "escapes in a target": lambda n: [b"GET /" + b"%41" * n + b'" HTTP/1.1\r\n' + HOST + b"\r\n"],
    "segments": lambda n: [b"GET " + b"/a" * n + b"#x HTTP/1.1\r\n" + HOST + b"\r\n"],
    "spaces in a request line": lambda n: [b"GET " + b" " * n + b"HTTP/1.1\r\n"],
    "header fields": lambda n: [head(*[b"A%d: b" % index for index in range(n)])],
    "Host fields": lambda n: [head(*[HOST[:-2]] * n)],
    "length fields": lambda n: [head(*[b"Content-Length: 1"] * n)],
    "labels of a host": lambda n: [head().replace(b": a", b": " + b"a." * n + b"@")],
    "escapes in a host": lambda n: [head().replace(b": a", b": " + b"%41" * n + b"/")],
    "colons in brackets": lambda n: [head().replace(b": a", b": [" + b":" * n + b"]")],
    "spaces in a value": lambda n: [head(b"A: b" + b" " * n + b"c" + b"\t " * n)],
    "Connection options": lambda n: [head(b"Connection: " + b"a, " * n + b"close")],
    "Connection commas": lambda n: [head(b"Connection: " + b" ," * n)],
    "transfer codings": lambda n: [head(b"Transfer-Encoding: " + b"a;b=c, " * n + b"chunked")],
    "coding parameters": lambda n: [head(b"Transfer-Encoding: a" + b" ;b" * n + b" @, chunked")],
    "expectations": lambda n: [head(b"Expect: " + b"a," * n)],
    "digits of a length": lambda n: [head(b"Content-Length: " + b"9" * n)],
    "folded lines": lambda n: [head(b"A: b", *[b" c"] * n)],
    "bytes of a head, one by one": lambda n: trickle(head(b"A: " + b"b" * n)),
    "fields of a head, one by one": lambda n: [
        b"GET / HTTP/1.1\r\n" + HOST,
        *[b"A: b\r\n"] * n,
        b"\r\n",
    ],
    "pipelined requests": lambda n: [head() * n],
    "pipelined requests, one by one": lambda n: trickle(head() * (n // 20)),
    "tiny chunks": lambda n: [CHUNKED, b"1\r\na\r\n" * n + b"0\r\n\r\n"],
    "tiny chunks, one by one": lambda n: [CHUNKED, *[b"1\r\na\r\n"] * n, b"0\r\n\r\n"],
    "tiny chunks in two reads": lambda n: [
        CHUNKED + b"1\r\na\r\n" * (n // 2) + b"1\r",
        b"\na\r\n" + b"1\r\na\r\n" * (n // 2) + b"0\r\n\r\n",
    ],
    "bytes of a body, one by one": lambda n: [
        head(b"Content-Length: %d" % n),
        *[b"a"] * n,
    ],
    "chunk extensions": lambda n: [CHUNKED, b"1" + b";a=b" * n + b"\r\na\r\n0\r\n\r\n"],
    "chunk extensions that break off": lambda n: [CHUNKED, b"1" + b' ;a="b\\""' * n + b";\r\n"],
    "spaces in chunk extensions": lambda n: [CHUNKED, b"1" + b" \t" * n + b"\r\n"],
    "an open quote": lambda n: [CHUNKED, b'1;a="' + b"\\a" * n + b"\r\n"],
    "trailers": lambda n: [CHUNKED, b"0\r\n" + b"A: b\r\n" * n + b"\r\n"],
    "trailers, one by one": lambda n: [CHUNKED, b"0\r\n", *[b"A: b\r\n"] * n, b"\r\n"],
}


def seconds(pieces: list[bytes], *, times: int) -> float:
    best = float("inf")
    # Collecting costs what the whole test run has allocated so far, not what the engine did.
    gc.disable()
    try:
        for _ in range(times):
            engine = Http1Engine(WIDE, now=0.0)
            begin = time.process_time()
            converse(engine, pieces)
            best = min(best, time.process_time() - begin)
    finally:
        gc.enable()
    return best


@pytest.mark.parametrize("what", MANY)
def test_time_is_linear_in(what: str) -> None:
    """32 times the input may take 32 times as long; 200 is generous, and a square were 1,024."""
    few, many = MANY[what](1000), MANY[what](32_000)
    assert seconds(many, times=2) < 200 * max(seconds(few, times=3), 0.0005)


def test_pieces_are_not_copied_again_and_again() -> None:
    """Reads that end inside a chunk leave a rest; the rest alone is carried over."""
    engine = Http1Engine(now=0.0)
    engine.receive(CHUNKED, 0.0)
    for _ in range(1000):
        engine.receive(b"1\r\na\r\n" * 100 + b"1", 0.0)
        engine.receive(b"\r\na\r\n", 0.0)
        assert len(engine._buffer) == 0
