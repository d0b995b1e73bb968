"""The HTTP/1.1 engine: what it says of requests, what it sends, its limits, its clock, its end.

What others learned from their attackers is held by a test each, here and in the neighbours:

- control characters, NEL, bare CR and LF in fields: ``test_http1_refused`` VALUES and LINES, and
  ``test_no_byte_breaks_out_of_a_value``
- bytes outside ASCII: NAMES, TARGETS, ``test_any_bytes_are_met_with_a_status``
- both lengths, lengths that are no numbers, codings, chunk terminators: LENGTHS, CODINGS, CHUNKS
- Host and path: HOSTS, TARGETS
- many headers, large heads, trailers: ``test_limit``, ``test_a_head_without_end_...``, TRAILERS
- time that grows faster than the input, tiny chunks: ``test_time_is_linear_in``
- a slow head, a slow body: ``test_a_slow_head_gets_408``, ``test_a_body_must_move``
- answers in order, a bounded pipeline: ``test_pipelined_requests_wait_for_their_turn``
- a request that sees the one before: ``test_nothing_leaks_into_the_next_request``
- response splitting: ``test_outgoing_headers_are_checked``, ``test_no_illegal_byte_goes_out``
"""

import dataclasses
from collections.abc import Iterable
from typing import Any

import pytest

from headrace.exceptions import ConfigurationError, LocalProtocolError
from headrace.protocols import _http1_grammar as grammar
from headrace.protocols.http1 import (
    BodyReceived,
    Http1Engine,
    Http1Limits,
    Http2Prefaced,
    RequestCompleted,
    RequestFailed,
    RequestReceived,
    State,
)

GET = b"GET /a?b HTTP/1.1\r\nHost: example.org\r\n\r\n"
HEAD = b"HEAD / HTTP/1.1\r\nHost: example.org\r\n\r\n"
OLD = b"GET / HTTP/1.0\r\nHost: example.org\r\n\r\n"
OLD_KEPT = b"GET / HTTP/1.0\r\nHost: example.org\r\nConnection: keep-alive\r\n\r\n"
CLOSING = b"GET / HTTP/1.1\r\nHost: example.org\r\nConnection: close\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: example.org\r\nContent-Length: 5\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: example.org\r\nTransfer-Encoding: chunked\r\n\r\n"
WAITING = (
    b"POST / HTTP/1.1\r\nHost: example.org\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
)
UPGRADE = (
    b"GET /chat HTTP/1.1\r\nHost: example.org\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
)
NOTHING = [(b"content-length", b"0")]


def engine_for(raw: bytes = b"", **options: Any) -> Http1Engine:
    """An engine that has read this."""
    options.setdefault("now", 0.0)
    engine = Http1Engine(**options)
    engine.receive(raw, 0.0)
    return engine


def limited(**limits: Any) -> Http1Engine:
    return Http1Engine(Http1Limits(**limits), now=0.0)


def names(events: Iterable[object]) -> list[str]:
    return [type(event).__name__ for event in events]


def answer(engine: Http1Engine, status: int = 200, headers: Any = (), body: bytes = b"") -> bytes:
    engine.send_response(status, headers)
    engine.send_body(body)
    return engine.data_to_send()


def split(raw: bytes) -> tuple[bytes, list[bytes], bytes]:
    """Status line, header lines, body."""
    head, _, body = raw.partition(b"\r\n\r\n")
    status, *lines = head.split(b"\r\n")
    return status, lines, body


# --- what a request says --------------------------------------------------------------------------


def test_a_request_is_taken_apart() -> None:
    engine = Http1Engine(now=0.0)
    request, completed = engine.receive(
        b"GET /caf%C3%A9?x=%20 HTTP/1.1\r\nHost: example.org\r\nX-Twice: 1\r\nx-twice: 2\r\n\r\n",
        0.0,
    )
    assert request == RequestReceived(
        method="GET",
        target=b"/caf%C3%A9?x=%20",
        path="/café",
        raw_path=b"/caf%C3%A9",
        query_string=b"x=%20",
        http_version="1.1",
        headers=[(b"host", b"example.org"), (b"x-twice", b"1"), (b"x-twice", b"2")],
        keep_alive=True,
        upgrade=None,
        expect_continue=False,
    )
    assert completed == RequestCompleted()
    assert engine.state is State.READ


def test_events_are_frozen() -> None:
    engine = Http1Engine(now=0.0)
    request, body, completed = engine.receive(POST + b"hello", 0.0)
    for event, name in ((request, "path"), (body, "data"), (completed, "trailers")):
        with pytest.raises(AttributeError):
            setattr(event, name, None)
    with pytest.raises(dataclasses.FrozenInstanceError):
        RequestFailed(400, "x").status = 500  # type: ignore[misc]


def test_a_body_that_came_in_one_piece_is_not_copied() -> None:
    engine = engine_for(POST)
    data = b"hel"
    (body,) = engine.receive(data, 0.0)
    assert isinstance(body, BodyReceived)
    assert body.data is data


def test_what_is_not_bytes_is_taken_as_bytes() -> None:
    engine = Http1Engine(now=0.0)
    assert names(engine.receive(bytearray(GET), 0.0)) == ["RequestReceived", "RequestCompleted"]


def test_chunks_at_hand_are_one_event() -> None:
    engine = engine_for(CHUNKED)
    assert engine.receive(b"1\r\na\r\n2\r\nbc\r\n3\r\nde", 0.0) == [BodyReceived(b"abcde")]
    assert engine.receive(b"f\r\n0\r\n\r\n", 0.0) == [BodyReceived(b"f"), RequestCompleted()]


def test_an_empty_line_before_a_request_does_not_begin_it() -> None:
    engine = Http1Engine(now=0.0)
    for byte in (b"\r", b"\n"):
        assert engine.receive(byte, 5.0) == []
        assert engine.state is State.IDLE
        assert engine.deadline() == Http1Limits().keep_alive_s
    assert names(engine.receive(GET, 6.0)) == ["RequestReceived", "RequestCompleted"]


def test_an_empty_line_is_forgiven_once_a_request() -> None:
    engine = Http1Engine(now=0.0)
    for _ in range(3):
        assert len(engine.receive(b"\r\n" + GET, 0.0)) == 2
        answer(engine)
    assert len(engine.receive(b"\r\n" + POST + b"hello", 0.0, max_events=1)) == 1
    answer(engine)  # which skips the body
    assert len(engine.receive(b"\r\n" + GET, 0.0)) == 2


# --- limits ---------------------------------------------------------------------------------------


def lines_of(count: int) -> bytes:
    return b"".join(b"A%d: b\r\n" % index for index in range(count))


def get(fields: bytes = b"", target: bytes = b"/") -> bytes:
    return b"GET " + target + b" HTTP/1.1\r\nHost: a\r\n" + fields + b"\r\n"


LIMITS = [
    # what is limited, the limit, a request at the limit, one beyond it, the status
    ("request_line_bytes", 100, get(target=b"/" + b"a" * 86), get(target=b"/" + b"a" * 87), 414),
    ("field_bytes", 100, get(b"A: " + b"b" * 97 + b"\r\n"), get(b"A: " + b"b" * 98 + b"\r\n"), 431),
    (
        "header_bytes",
        100,
        get(b"A: " + b"b" * 86 + b"\r\n"),
        get(b"A: " + b"b" * 87 + b"\r\n"),
        431,
    ),
    ("header_count", 10, get(lines_of(9)), get(lines_of(10)), 431),
    ("body_bytes", 5, POST + b"hello", POST.replace(b"5", b"6") + b"hello!", 413),
    (
        "body_bytes",
        5,
        CHUNKED + b"5\r\nhello\r\n0\r\n\r\n",
        CHUNKED + b"6\r\nhello!\r\n0\r\n\r\n",
        413,
    ),
    (
        "body_bytes",
        5,
        CHUNKED + b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
        CHUNKED + b"2\r\nhe\r\n4\r\nllo!\r\n0\r\n\r\n",
        413,
    ),
    (
        "chunk_line_bytes",
        10,
        CHUNKED + b"0;aaaaaaaa\r\n\r\n",
        CHUNKED + b"0;aaaaaaaaa\r\n\r\n",
        413,
    ),
    (
        "chunk_extension_bytes",
        10,
        CHUNKED + b"1;aaaa\r\nx\r\n1;bbbb\r\ny\r\n0\r\n\r\n",
        CHUNKED + b"1;aaaa\r\nx\r\n1;bbbbb\r\ny\r\n0\r\n\r\n",
        413,
    ),
    (
        "trailer_bytes",
        100,
        CHUNKED + b"0\r\nA: " + b"b" * 95 + b"\r\n\r\n",
        CHUNKED + b"0\r\nA: " + b"b" * 96 + b"\r\n\r\n",
        431,
    ),
    (
        "header_count",
        10,
        CHUNKED + b"0\r\n" + lines_of(10) + b"\r\n",
        CHUNKED + b"0\r\n" + lines_of(11) + b"\r\n",
        431,
    ),
    (
        "field_bytes",
        100,
        CHUNKED + b"0\r\nA: " + b"b" * 97 + b"\r\n\r\n",
        CHUNKED + b"0\r\nA: " + b"b" * 98 + b"\r\n\r\n",
        431,
    ),
]


@pytest.mark.parametrize("size", [1, 16, 1 << 20], ids=["byte by byte", "in pieces", "whole"])
@pytest.mark.parametrize(("name", "limit", "good", "bad", "status"), LIMITS)
def test_limit(name: str, limit: int, good: bytes, bad: bytes, status: int, size: int) -> None:
    for raw, outcome in ((good, RequestCompleted), (bad, RequestFailed)):
        engine = limited(**{name: limit})
        events: list[Any] = []
        for start in range(0, len(raw), size):
            events += engine.receive(raw[start : start + size], 0.0)
        assert isinstance(events[-1], outcome)
    assert events[-1].status == status
    assert str(limit) in events[-1].reason
    assert engine.data_to_send().startswith(b"HTTP/1.1 %d " % status)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("request_line_bytes", 0),
        ("field_bytes", 0),
        ("header_bytes", -1),
        ("header_count", 0),
        ("body_rate_bytes", 0),
        ("head_s", 0),
        ("body_idle_s", -1),
    ],
)
def test_a_limit_that_would_refuse_everything_is_refused(name: str, value: int) -> None:
    with pytest.raises(ConfigurationError, match=f"{name} must be .*, not {value}"):
        Http1Limits(**{name: value})


def test_by_default_every_size_is_limited() -> None:
    sizes = {
        field.name: getattr(Http1Limits(), field.name)
        for field in dataclasses.fields(Http1Limits)
        if field.name.endswith(("_bytes", "_count"))
    }
    assert 0 < sizes.pop("body_bytes") <= 2**30
    assert all(0 < size <= 65536 for size in sizes.values())


@pytest.mark.parametrize("start", [b"", b"GET /", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nA: "])
def test_a_head_without_end_takes_no_memory_without_end(start: bytes) -> None:
    engine = Http1Engine(now=0.0)
    taken = 0
    events = engine.receive(start, 0.0)
    while not events:
        events = engine.receive(b"a" * 1024, 0.0)
        taken += 1024
        assert taken <= 80_000
    assert isinstance(events[0], RequestFailed)
    assert events[0].status in (414, 431)


def test_a_body_too_large_is_refused_by_its_announcement() -> None:
    engine = limited(body_bytes=1000)
    (failed,) = engine.receive(POST.replace(b": 5", b": 1001"), 0.0)
    assert isinstance(failed, RequestFailed)
    assert failed.status == 413
    engine = limited(body_bytes=1000)
    request, failed = engine.receive(CHUNKED + b"3e9\r\n", 0.0)
    assert isinstance(request, RequestReceived)
    assert isinstance(failed, RequestFailed)
    assert failed.status == 413


def test_a_chunk_has_any_size_where_a_body_has() -> None:
    engine = limited(body_bytes=0)
    assert isinstance(engine.receive(CHUNKED, 0.0)[0], RequestReceived)
    assert engine.receive(b"FFFFFFFFFFFFFFFF\r\nabc", 0.0) == [BodyReceived(b"abc")]


# --- one request at a time ------------------------------------------------------------------------


def test_pipelined_requests_wait_for_their_turn() -> None:
    engine = Http1Engine(now=0.0)
    stream = b"".join(GET.replace(b"/a", b"/%d" % index) for index in range(50))
    events = engine.receive(stream, 0.0)
    for index in range(50):
        request, completed = events
        assert isinstance(request, RequestReceived)
        assert request.path == f"/{index}"
        assert completed == RequestCompleted()
        assert engine.has_unread is (index < 49)
        assert engine.receive(b"", 0.0) == []
        engine.send_response(200, [(b"x-index", b"%d" % index)])
        engine.send_body(b"")
        assert engine.has_unread is (index < 49)
        events = engine.receive(b"", 0.0)
    assert events == []
    sent = engine.data_to_send()
    assert [line for line in sent.split(b"\r\n") if line.startswith(b"x-index")] == [
        b"x-index: %d" % index for index in range(50)
    ]


def test_nothing_of_a_pipelined_request_is_judged_before_its_turn() -> None:
    engine = Http1Engine(now=0.0)
    assert len(engine.receive(GET + b"\x00", 0.0)) == 2
    assert answer(engine).startswith(b"HTTP/1.1 200 ")
    assert names(engine.receive(b"", 0.0)) == ["RequestFailed"]


def test_a_pipelined_body_waits_too() -> None:
    engine = Http1Engine(now=0.0)
    assert len(engine.receive(POST + b"hello" + POST + b"wor", 0.0)) == 3
    answer(engine)
    events = engine.receive(b"", 0.0)
    assert names(events) == ["RequestReceived", "BodyReceived"]
    assert not engine.has_unread
    assert engine.receive(b"ld", 0.0) == [BodyReceived(b"ld"), RequestCompleted()]


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


@pytest.mark.parametrize("size", [1, 5, 100])
def test_the_preface_of_http2_is_told_and_handed_over(size: int) -> None:
    engine = Http1Engine(now=0.0)
    events = []
    data = PREFACE + b"\0\0\0\4"
    at = 0
    while not events:
        events += engine.receive(data[at : at + size], 0.0)
        at += size
    assert events == [Http2Prefaced()]
    handed = engine.unread()
    assert handed + data[at:] == data
    assert engine.state is State.SWITCHED
    assert engine.data_to_send() == b""


def test_the_preface_of_http2_may_be_refused() -> None:
    engine = engine_for(PREFACE)
    engine.refuse(505, "this server speaks HTTP/1.1")
    assert engine.data_to_send().startswith(b"HTTP/1.1 505 ")
    assert engine.state is State.CLOSED


def test_the_preface_of_http2_is_the_first_of_a_connection() -> None:
    engine = engine_for(GET)
    engine.send_response(204)
    engine.send_body(b"")
    [event] = engine.receive(PREFACE, 0.0)
    assert isinstance(event, RequestFailed)
    assert event.status == 505


def test_half_a_pipelined_head_is_not_unread() -> None:
    engine = Http1Engine(now=0.0)
    engine.receive(GET + b"GET", 0.0)
    assert engine.has_unread
    answer(engine)
    assert engine.receive(b"", 3.0) == []
    assert not engine.has_unread
    assert engine.state is State.HEAD
    assert engine.deadline() == 3.0 + Http1Limits().head_s


@pytest.mark.parametrize("most", [1, 2, 3])
def test_no_more_events_than_asked_for(most: int) -> None:
    engine = Http1Engine(now=0.0)
    stream = CHUNKED + b"5\r\nhello\r\n0\r\n\r\n"
    seen = engine.receive(stream, 0.0, max_events=most)
    assert len(seen) == most
    while engine.has_unread:
        more = engine.receive(b"", 0.0, max_events=most)
        assert len(more) <= most
        seen += more
    assert names(seen) == ["RequestReceived", "BodyReceived", "RequestCompleted"]


def test_the_end_of_a_request_without_body_is_not_forgotten() -> None:
    engine = Http1Engine(now=0.0)
    assert names(engine.receive(GET, 0.0, max_events=1)) == ["RequestReceived"]
    assert engine.has_unread
    assert engine.receive(b"", 0.0) == [RequestCompleted()]
    assert not engine.has_unread


def test_nothing_leaks_into_the_next_request() -> None:
    engine = Http1Engine(now=0.0)
    engine.receive(CHUNKED + b"5;x\r\nhello\r\n0\r\nA: b\r\n\r\n", 0.0)
    engine.send_response(200, [(b"connection", b"x"), (b"x-a", b"b")], trailers=True)
    engine.send_body(b"one", more=True)
    engine.send_body(b"two")
    engine.send_trailers([(b"x-t", b"v")])
    engine.data_to_send()
    fresh = Http1Engine(now=0.0)
    for each in (engine, fresh):
        assert each.receive(GET, 9.0)[1] == RequestCompleted()
    assert answer(engine) == answer(fresh)
    for each in (engine, fresh):
        assert each.receive(b"", 9.0) == []
    different = {
        name for name in Http1Engine.__slots__ if getattr(engine, name) != getattr(fresh, name)
    }
    assert different == {"_passed", "_request_at"}  # the bytes of the connection so far


# --- responses ------------------------------------------------------------------------------------


def test_a_response_in_one_part_has_a_length() -> None:
    engine = engine_for(GET)
    assert answer(engine, 200, [(b"Content-Type", b"text/plain")], b"hello") == (
        b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 5\r\n\r\nhello"
    )
    assert engine.state is State.IDLE
    assert not engine.must_close


def test_a_response_in_several_parts_is_chunked() -> None:
    engine = engine_for(GET)
    engine.send_response(200)
    assert engine.data_to_send() == b""
    engine.send_body(b"hello", more=True)
    assert engine.data_to_send() == (
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n"
    )
    engine.send_body(b"", more=True)
    assert engine.data_to_send() == b""
    engine.send_body(b"a" * 16)
    assert engine.data_to_send() == b"10\r\n" + b"a" * 16 + b"\r\n0\r\n\r\n"
    assert engine.state is State.IDLE


def test_a_response_with_a_length_is_not_chunked() -> None:
    engine = engine_for(GET)
    engine.send_response(200, [(b"Content-Length", b"10")])
    engine.send_body(b"hello", more=True)
    engine.send_body(b"world", more=True)
    engine.send_body(b"")
    assert engine.data_to_send() == b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhelloworld"


def test_a_chunked_coding_from_the_application_is_redundant() -> None:
    engine = engine_for(GET)
    engine.send_response(200, [(b"Transfer-Encoding", b"Chunked")])
    engine.send_body(b"a", more=True)
    engine.send_body(b"")
    assert engine.data_to_send().count(b"chunked") == 1


@pytest.mark.parametrize(
    ("length", "parts"),
    [(5, [b"hello!"]), (5, [b"hell"]), (5, [b"hello", b"!"]), (5, [b"hel", b""]), (0, [b"a"])],
)
def test_a_body_is_as_long_as_announced(length: int, parts: list[bytes]) -> None:
    engine = engine_for(GET)
    engine.send_response(200, [(b"content-length", b"%d" % length)])
    *first, last = parts
    for part in first:
        engine.send_body(part, more=True)
    before = engine.data_to_send()
    with pytest.raises(LocalProtocolError, match=f"content-length={length}"):
        engine.send_body(last)
    assert engine.data_to_send() == b""
    engine.refuse(500, "the application failed")
    sent = engine.data_to_send()
    # What has begun is cut off, so that the client can tell; what hasn't is answered.
    assert (sent == b"") is bool(before)
    assert before or sent.startswith(b"HTTP/1.1 500 ")
    assert engine.state is State.CLOSED


def test_too_much_is_noticed_before_the_last_part() -> None:
    engine = engine_for(GET)
    engine.send_response(200, [(b"content-length", b"3")])
    with pytest.raises(LocalProtocolError, match="sent=4"):
        engine.send_body(b"abcd", more=True)


@pytest.mark.parametrize(
    ("headers", "body", "expected"),
    [
        ([], b"hello", [b"content-length: 5"]),
        ([], b"", []),
        ([(b"content-length", b"7")], b"", [b"content-length: 7"]),
        ([(b"content-length", b"7")], b"whatever it is", [b"content-length: 7"]),
    ],
)
def test_head_has_the_head_of_get_and_no_body(
    headers: Any, body: bytes, expected: list[bytes]
) -> None:
    engine = engine_for(HEAD)
    assert split(answer(engine, 200, headers, body)) == (b"HTTP/1.1 200 OK", expected, b"")
    assert engine.state is State.IDLE


def test_head_of_a_stream_has_no_body() -> None:
    engine = engine_for(HEAD)
    engine.send_response(200)
    engine.send_body(b"hello", more=True)
    engine.send_body(b"world")
    assert engine.data_to_send() == b"HTTP/1.1 200 OK\r\n\r\n"


def test_304_has_no_body() -> None:
    assert answer(engine_for(GET), 304, [(b"etag", b'"a"')]) == (
        b'HTTP/1.1 304 Not Modified\r\netag: "a"\r\n\r\n'
    )
    sent = answer(engine_for(GET), 304, [(b"content-length", b"7")], b"ignored")
    assert split(sent) == (b"HTTP/1.1 304 Not Modified", [b"content-length: 7"], b"")


def test_204_has_neither_length_nor_body() -> None:
    assert answer(engine_for(GET), 204) == b"HTTP/1.1 204 No Content\r\n\r\n"
    assert answer(engine_for(GET), 204, NOTHING) == b"HTTP/1.1 204 No Content\r\n\r\n"


def test_205_has_a_length_of_0() -> None:
    assert split(answer(engine_for(GET), 205))[1] == [b"content-length: 0"]


@pytest.mark.parametrize("status", [204, 205])
def test_no_content_is_no_content(status: int) -> None:
    engine = engine_for(GET)
    with pytest.raises(LocalProtocolError, match=str(status)):
        engine.send_response(status, [(b"content-length", b"1")])
    engine.send_response(status)
    with pytest.raises(LocalProtocolError, match="sent=1"):
        engine.send_body(b"x")


def test_a_status_that_nobody_registered() -> None:
    assert answer(engine_for(GET), 299).startswith(b"HTTP/1.1 299 \r\n")


@pytest.mark.parametrize("status", [0, 99, 100, 101, 103, 199, 1000, -200])
def test_a_status_that_is_none(status: int) -> None:
    with pytest.raises(LocalProtocolError, match=str(status)):
        engine_for(GET).send_response(status)


HEADERS = [
    ("x-name", (b"x-name", b"a\r\nset-cookie: b")),
    ("x-name", (b"x-name", b"a\rb")),
    ("x-name", (b"x-name", b"a\nb")),
    ("x-name", (b"x-name", b"a\x00b")),
    ("x-name", (b"x-name", b"a\x0bb")),
    ("x-name", (b"x-name", b"a\x7fb")),
    ("x-name", (b"x-name", b"\r\n")),
    ("x-name", (b"x-name", "text")),
    ("x-name", (b"x-name", None)),
    ("x-name", (b"x-name", 5)),
    ("x name", (b"x name", b"a")),
    ("x:name", (b"x:name", b"a")),
    ("x-n", (b"x-n\r\na", b"a")),
    ("x-n", (b"x-n\x00", b"a")),
    ("''", (b"", b"a")),
    ("x-name", ("x-name", b"a")),
    ("None", (None, b"a")),
    ("name", ([b"x-name"], b"a")),
]


@pytest.mark.parametrize(("name", "header"), HEADERS)
def test_outgoing_headers_are_checked(name: str, header: Any) -> None:
    """A response, a hint, trailers and a refusal: nothing of what can't go out goes out."""
    engine = engine_for(GET)
    good = (b"a", b"b")
    with pytest.raises(LocalProtocolError, match=name):
        engine.send_response(200, [good, header, good])
    with pytest.raises(LocalProtocolError, match=name):
        engine.send_informational(103, [good, header])
    with pytest.raises(LocalProtocolError, match=name):
        engine.refuse(400, "no", [header])
    assert engine.data_to_send() == b""
    engine.send_response(200, [good], trailers=True)
    engine.send_body(b"")
    engine.data_to_send()
    with pytest.raises(LocalProtocolError, match=name):
        engine.send_trailers([header])
    assert engine.data_to_send() == b""
    engine.send_trailers([good])
    assert engine.state is State.IDLE


@pytest.mark.parametrize(
    "headers",
    [
        [(b"content-length", b"+5")],
        [(b"content-length", b"")],
        [(b"content-length", b"9" * 20)],
        [(b"content-length", "5")],
        [(b"content-length", 5)],
        [(b"content-length", b"5"), (b"Content-Length", b"5")],
        [(b"transfer-encoding", b"gzip")],
        [(b"transfer-encoding", "chunked")],
        [(b"connection", b"a\r\nb")],
        [(b"connection", b"a b")],
        [(b"connection", "close")],
    ],
)
def test_outgoing_headers_that_frame_are_checked(headers: Any) -> None:
    engine = engine_for(GET)
    with pytest.raises(LocalProtocolError):
        engine.send_response(200, headers)
    assert answer(engine).startswith(b"HTTP/1.1 200 OK\r\n")


def test_what_goes_out_as_it_is() -> None:
    headers = [(b"X-A", b"\x80\xff\t b"), (b"set-cookie", b"a"), (b"set-cookie", b"b"), (b"x", b"")]
    _, lines, _ = split(answer(engine_for(GET), 200, headers))
    assert lines[:-1] == [b"x-a: \x80\xff\t b", b"set-cookie: a", b"set-cookie: b", b"x: "]


def test_default_headers_fill_what_is_missing() -> None:
    defaults = [(b"date", b"now"), (b"server", b"headrace")]
    engine = Http1Engine(now=0.0, default_headers=defaults)
    engine.receive(GET, 0.0)
    _, lines, _ = split(answer(engine, 200, [(b"Server", b"mine")]))
    assert lines == [b"server: mine", b"date: now", b"content-length: 0"]
    defaults[0] = (b"date", b"later")
    engine.receive(GET, 0.0)
    engine.refuse(503, "busy", [(b"retry-after", b"1"), (b"server", b"mine")])
    _, lines, body = split(engine.data_to_send())
    assert lines == [
        b"content-type: text/plain; charset=utf-8",
        b"retry-after: 1",
        b"server: mine",
        b"content-length: 5",
        b"connection: close",
        b"date: later",
    ]
    assert body == b"busy\n"


@pytest.mark.parametrize("body", ["text", bytearray(b"a"), memoryview(b"a"), None, 5])
def test_a_body_is_bytes(body: Any) -> None:
    engine = engine_for(GET)
    engine.send_response(200)
    with pytest.raises(LocalProtocolError, match=type(body).__name__):
        engine.send_body(body)
    engine.refuse(500, "no")
    assert engine.data_to_send().startswith(b"HTTP/1.1 500 ")


def test_trailers() -> None:
    engine = engine_for(GET)
    engine.send_response(200, [(b"trailer", b"x-sum")], trailers=True)
    engine.send_body(b"hello")
    engine.send_trailers([(b"X-Sum", b"5"), (b"x-other", b"")])
    assert engine.data_to_send() == (
        b"HTTP/1.1 200 OK\r\ntrailer: x-sum\r\ntransfer-encoding: chunked\r\n\r\n"
        b"5\r\nhello\r\n0\r\nx-sum: 5\r\nx-other: \r\n\r\n"
    )
    assert engine.state is State.IDLE


@pytest.mark.parametrize("raw", [OLD, HEAD])
def test_trailers_that_nothing_carries_are_left_out(raw: bytes) -> None:
    engine = engine_for(raw)
    engine.send_response(200, trailers=True)
    engine.send_body(b"")
    engine.send_trailers([(b"x-sum", b"5")])
    assert b"x-sum" not in engine.data_to_send()
    assert engine.must_close is (raw is OLD)


@pytest.mark.parametrize("name", [b"content-length", b"Transfer-Encoding", b"connection"])
def test_framing_is_not_for_trailers_nor_hints(name: bytes) -> None:
    engine = engine_for(GET)
    with pytest.raises(LocalProtocolError, match=name.decode().lower()):
        engine.send_informational(103, [(name, b"1")])
    engine.send_response(200, trailers=True)
    engine.send_body(b"")
    with pytest.raises(LocalProtocolError, match=name.decode().lower()):
        engine.send_trailers([(name, b"1")])


def test_calls_out_of_order() -> None:
    engine = Http1Engine(now=0.0)
    with pytest.raises(LocalProtocolError, match="no request: state=IDLE"):
        engine.send_response(200)
    with pytest.raises(LocalProtocolError, match="before a response: state=IDLE"):
        engine.send_body(b"")
    with pytest.raises(LocalProtocolError, match="before a response"):
        engine.send_trailers()
    with pytest.raises(LocalProtocolError, match="no request"):
        engine.send_informational(103)
    engine.receive(b"GET / HT", 0.0)
    with pytest.raises(LocalProtocolError, match="no request: state=HEAD"):
        engine.send_response(200)
    engine.receive(b"TP/1.1\r\n", 0.0)
    with pytest.raises(LocalProtocolError, match="no request: state=HEAD"):
        engine.send_response(200)
    engine.receive(b"Host: a\r\n\r\n", 0.0)
    with pytest.raises(LocalProtocolError, match="before a response: state=READ"):
        engine.send_body(b"")
    engine.send_response(200)
    with pytest.raises(LocalProtocolError, match="response=HELD"):
        engine.send_response(200)
    with pytest.raises(LocalProtocolError, match="response=HELD"):
        engine.send_trailers()
    engine.send_body(b"", more=True)
    with pytest.raises(LocalProtocolError, match="response=STARTED"):
        engine.send_informational(103)
    engine.send_body(b"")
    with pytest.raises(LocalProtocolError, match="state=IDLE"):
        engine.send_body(b"")


def test_a_body_after_its_end() -> None:
    engine = engine_for(GET)
    engine.send_response(200, trailers=True)
    engine.send_body(b"")
    with pytest.raises(LocalProtocolError, match="response=TRAILERS"):
        engine.send_body(b"more")


def test_nothing_is_sent_on_a_closed_connection() -> None:
    engine = engine_for(CLOSING)
    answer(engine)
    assert engine.state is State.CLOSED
    with pytest.raises(LocalProtocolError, match="state=CLOSED"):
        engine.send_response(200)
    engine.refuse(500, "too late")
    engine.drain()
    assert engine.data_to_send() == b""
    assert engine.deadline() is None


# --- refuse ---------------------------------------------------------------------------------------


def test_refuse_before_a_response() -> None:
    engine = engine_for(GET)
    engine.refuse(500, "the application failed")
    status, lines, body = split(engine.data_to_send())
    assert status == b"HTTP/1.1 500 Internal Server Error"
    assert b"connection: close" in lines
    assert body == b"the application failed\n"
    assert engine.state is State.CLOSED


def test_refuse_in_place_of_a_response_that_has_not_left() -> None:
    engine = engine_for(GET)
    engine.send_response(200, [(b"x-secret", b"1")])
    engine.refuse(500, "no")
    sent = engine.data_to_send()
    assert sent.startswith(b"HTTP/1.1 500 ")
    assert b"x-secret" not in sent


def test_refuse_after_a_part_has_left_only_ends() -> None:
    engine = engine_for(GET)
    engine.send_response(200)
    engine.send_body(b"a", more=True)
    engine.data_to_send()
    engine.refuse(500, "no")
    assert engine.data_to_send() == b""
    assert engine.state is State.CLOSED


def test_refuse_goes_behind_what_is_not_written_yet() -> None:
    engine = Http1Engine(now=0.0)
    engine.receive(GET + b"BAD\r\n", 0.0)
    engine.send_response(200)
    engine.send_body(b"first")
    engine.receive(b"", 0.0)
    first, second = engine.data_to_send().split(b"first")
    assert first.startswith(b"HTTP/1.1 200 ")
    assert second.startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("raw", [HEAD, HEAD.replace(b"Host", b"Ghost"), HEAD[:20]])
def test_a_refusal_of_head_has_no_body(raw: bytes) -> None:
    engine = Http1Engine(now=0.0)
    if engine.receive(raw, 0.0)[-1:] == [RequestCompleted()]:
        engine.refuse(400, "no")
    else:
        engine.timeout(100.0)
    status, lines, body = split(engine.data_to_send())
    assert status.split()[1] in (b"400", b"408")
    assert any(line.startswith(b"content-length: ") for line in lines)
    assert body == b""


def test_a_refusal_frames_itself() -> None:
    engine = engine_for(GET)
    engine.refuse(426, "upgrade", [(b"Upgrade", b"websocket"), (b"Connection", b"upgrade")])
    _, lines, _ = split(engine.data_to_send())
    assert b"upgrade: websocket" in lines
    assert [line for line in lines if line.startswith(b"connection")] == [
        b"connection: close, upgrade"
    ]


def test_reasons_are_text() -> None:
    engine = engine_for(GET)
    engine.refuse(400, "schlecht: böse")
    assert split(engine.data_to_send())[2].decode() == "schlecht: böse\n"


# --- the end of a connection ----------------------------------------------------------------------


def test_close_by_the_client() -> None:
    engine = engine_for(CLOSING + GET)
    assert split(answer(engine))[1] == [b"content-length: 0", b"connection: close"]
    assert engine.must_close
    assert engine.state is State.CLOSED
    assert not engine.has_unread
    assert engine.receive(GET, 0.0) == []


def test_close_by_the_application() -> None:
    engine = engine_for(GET)
    headers = [(b"Connection", b"x-option, Close"), *NOTHING]
    assert split(answer(engine, 200, headers))[1] == [
        b"content-length: 0",
        b"connection: x-option, close",
    ]
    assert engine.state is State.CLOSED


def test_keep_alive_is_not_the_applications_to_say() -> None:
    engine = engine_for(CLOSING)
    lines = split(answer(engine, 200, [(b"connection", b"keep-alive")]))[1]
    assert lines[-1] == b"connection: close"


def test_http10_ends_unless_it_asks_to_stay() -> None:
    engine = engine_for(OLD)
    assert split(answer(engine))[1] == [b"content-length: 0", b"connection: close"]
    assert engine.state is State.CLOSED
    engine = engine_for(OLD_KEPT)
    assert split(answer(engine))[1] == [b"content-length: 0", b"connection: keep-alive"]
    assert engine.state is State.IDLE


def test_http10_without_length_ends_with_the_connection() -> None:
    engine = engine_for(OLD_KEPT)
    engine.send_response(200)
    engine.send_body(b"hello", more=True)
    assert engine.must_close
    engine.send_body(b"world")
    assert engine.data_to_send() == b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nhelloworld"
    assert engine.state is State.CLOSED


def test_a_response_before_the_body_was_read_closes() -> None:
    engine = engine_for(POST)
    assert b"connection: close" in answer(engine)
    assert engine.state is State.CLOSED


@pytest.mark.parametrize("raw", [POST + b"hel", CHUNKED, CHUNKED + b"5\r\nhello\r\n0\r\n"])
def test_a_response_before_all_of_the_body_was_read_closes(raw: bytes) -> None:
    engine = engine_for(raw)
    assert b"connection: close" in answer(engine)
    assert engine.state is State.CLOSED


def test_the_rest_of_a_body_that_is_there_is_skipped() -> None:
    engine = Http1Engine(now=0.0)
    assert names(engine.receive(POST + b"hello" + GET, 0.0, max_events=1)) == ["RequestReceived"]
    assert b"connection" not in answer(engine)
    assert engine.state is State.IDLE
    request, _ = engine.receive(b"", 0.0)
    assert isinstance(request, RequestReceived)
    assert request.path == "/a"


def test_a_response_may_begin_while_the_body_comes() -> None:
    engine = engine_for(POST)
    engine.send_response(200)
    engine.send_body(b"a", more=True)
    assert b"connection: close" in engine.data_to_send()
    assert engine.receive(b"hello", 0.0) == [BodyReceived(b"hello"), RequestCompleted()]
    engine.send_body(b"b")
    assert engine.data_to_send() == b"1\r\nb\r\n0\r\n\r\n"
    assert engine.state is State.CLOSED


def test_a_body_that_fails_behind_a_response_cuts_it_off() -> None:
    engine = engine_for(CHUNKED)
    engine.send_response(200)
    engine.send_body(b"a", more=True)
    engine.data_to_send()
    assert names(engine.receive(b"x", 0.0)) == []
    assert names(engine.receive(b"\r\n", 0.0)) == ["RequestFailed"]
    assert engine.data_to_send() == b""
    assert engine.state is State.CLOSED


def test_what_arrived_before_a_failure_is_given() -> None:
    engine = engine_for(CHUNKED)
    events = engine.receive(b"5\r\nhello\r\nx\r\n", 0.0)
    assert names(events) == ["BodyReceived", "RequestFailed"]


def test_drain_ends_an_idle_connection_at_once() -> None:
    engine = engine_for(b"")
    engine.drain()
    assert engine.state is State.CLOSED
    assert engine.data_to_send() == b""


def test_drain_ends_a_busy_connection_after_its_response() -> None:
    engine = engine_for(GET + GET)
    engine.drain()
    assert engine.state is State.READ
    assert b"connection: close" in answer(engine)
    assert engine.state is State.CLOSED


def test_the_end_between_requests_is_quiet() -> None:
    for raw in (b"", b"\r", b"\r\n"):
        engine = engine_for(raw)
        assert engine.receive_eof(0.0) == []
        assert engine.state is State.CLOSED
        assert engine.data_to_send() == b""
        assert engine.receive_eof(0.0) == []


@pytest.mark.parametrize(
    ("raw", "where"), [(GET[:10], "head"), (POST, "body"), (CHUNKED + b"5\r\nhello", "body")]
)
def test_the_end_inside_a_request(raw: bytes, where: str) -> None:
    engine = engine_for(raw)
    (failed,) = engine.receive_eof(0.0)
    assert isinstance(failed, RequestFailed)
    assert failed.status == 400
    assert where in failed.reason
    assert engine.data_to_send().startswith(b"HTTP/1.1 400 ")


def test_a_request_before_the_end_is_answered() -> None:
    engine = engine_for(GET)
    assert engine.receive_eof(0.0) == []
    assert engine.state is State.READ
    assert b"connection: close" in answer(engine)
    assert engine.state is State.CLOSED


def test_all_requests_before_the_end_are_answered() -> None:
    engine = engine_for(GET + GET)
    assert engine.receive_eof(0.0) == []
    assert b"connection" not in answer(engine)
    assert len(engine.receive(b"", 0.0)) == 2
    assert b"connection: close" in answer(engine)
    assert engine.state is State.CLOSED


def test_the_end_behind_half_a_pipelined_request() -> None:
    engine = engine_for(GET + b"GET")
    engine.receive_eof(0.0)
    answer(engine)
    assert names(engine.receive(b"", 0.0)) == ["RequestFailed"]


# --- 100-continue, early hints, upgrades ----------------------------------------------------------


def test_continue_is_sent_when_the_body_is_wanted() -> None:
    engine = engine_for(WAITING)
    assert engine.data_to_send() == b""
    engine.send_continue(0.0)
    assert engine.data_to_send() == b"HTTP/1.1 100 Continue\r\n\r\n"
    engine.send_continue(0.0)
    assert engine.data_to_send() == b""
    assert engine.receive(b"hello", 0.0) == [BodyReceived(b"hello"), RequestCompleted()]
    assert b"connection" not in answer(engine)


def test_continue_is_not_sent_when_the_body_comes_anyway() -> None:
    for raw in (
        WAITING + b"h",
        WAITING.replace(b"Content-Length: 5", b"Transfer-Encoding: chunked"),
    ):
        engine = engine_for(raw)
        engine.receive(b"1\r\na\r\n", 0.0)
        engine.send_continue(0.0)
        assert engine.data_to_send() == b""


def test_continue_is_not_sent_to_who_did_not_ask() -> None:
    for raw in (b"", GET, POST, OLD):
        engine = engine_for(raw)
        engine.send_continue(0.0)
        assert engine.data_to_send() == b""


def test_continue_is_not_sent_behind_a_response() -> None:
    engine = engine_for(WAITING)
    engine.send_response(200)
    engine.send_body(b"no need", more=True)
    assert b"connection: close" in engine.data_to_send()
    engine.send_continue(0.0)
    assert engine.data_to_send() == b""


def test_continue_may_come_while_the_head_of_the_response_is_held() -> None:
    engine = engine_for(WAITING)
    engine.send_response(200)
    engine.send_continue(0.0)
    assert engine.data_to_send() == b"HTTP/1.1 100 Continue\r\n\r\n"
    engine.receive(b"hello", 0.0)
    engine.send_body(b"thanks")
    assert b"connection" not in engine.data_to_send()


def test_early_hints() -> None:
    engine = engine_for(GET)
    engine.send_informational(103, [(b"Link", b"</a.css>; rel=preload")])
    assert engine.data_to_send() == (
        b"HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\n"
    )
    engine.send_response(200)
    engine.send_informational(103)
    assert engine.data_to_send() == b"HTTP/1.1 103 Early Hints\r\n\r\n"
    engine.send_body(b"")
    assert engine.data_to_send().startswith(b"HTTP/1.1 200 ")


def test_no_hints_for_http10() -> None:
    engine = engine_for(OLD)
    engine.send_informational(103)
    assert engine.data_to_send() == b""


@pytest.mark.parametrize("status", [99, 100, 101, 200])
def test_not_every_status_informs(status: int) -> None:
    with pytest.raises(LocalProtocolError, match=str(status)):
        engine_for(GET).send_informational(status)


def test_an_upgrade_hands_over_what_follows() -> None:
    engine = Http1Engine(now=0.0)
    request, completed = engine.receive(UPGRADE + b"\x81\x80more", 0.0)
    assert isinstance(request, RequestReceived)
    assert request.upgrade == b"websocket"
    assert completed == RequestCompleted()
    assert engine.has_unread
    assert engine.unread() == b"\x81\x80more"
    assert engine.state is State.SWITCHED
    assert not engine.has_unread
    assert engine.deadline() is None
    assert engine.receive_eof(0.0) == []
    with pytest.raises(LocalProtocolError, match="another protocol"):
        engine.receive(b"x", 0.0)
    with pytest.raises(LocalProtocolError, match="SWITCHED"):
        engine.send_response(200)
    with pytest.raises(LocalProtocolError, match="SWITCHED"):
        engine.unread()
    engine.refuse(400, "no")
    assert engine.data_to_send() == b""


def test_an_upgrade_that_is_ignored_is_a_request() -> None:
    engine = engine_for(UPGRADE.replace(b"websocket", b"h2c") + GET)
    assert answer(engine, body=b"plain").endswith(b"plain")
    request, _ = engine.receive(b"", 0.0)
    assert isinstance(request, RequestReceived)
    assert request.path == "/a"


def test_an_upgrade_waits_for_its_body() -> None:
    engine = engine_for(POST.replace(b"\r\n\r\n", b"\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"))
    with pytest.raises(LocalProtocolError, match="state=BODY"):
        engine.unread()
    engine.receive(b"helloX", 0.0)
    assert engine.unread() == b"X"


def test_no_upgrade_behind_a_response() -> None:
    engine = engine_for(UPGRADE)
    engine.send_response(200)
    with pytest.raises(LocalProtocolError, match="response=HELD"):
        engine.unread()


# --- time -----------------------------------------------------------------------------------------

CLOCK = {
    "head_s": 10.0,
    "keep_alive_s": 20.0,
    "body_idle_s": 5.0,
    "body_grace_s": 8.0,
    "body_rate_bytes": 100,
}


def clocked(now: float = 0.0) -> Http1Engine:
    return Http1Engine(Http1Limits(**CLOCK), now=now)  # type: ignore[arg-type]


def test_a_connection_without_a_request_ends_in_silence() -> None:
    engine = clocked(100.0)
    assert engine.deadline() == 120.0
    assert engine.timeout(119.9) == []
    assert engine.state is State.IDLE
    assert engine.timeout(120.0) == []
    assert engine.state is State.CLOSED
    assert engine.data_to_send() == b""
    assert engine.timeout(200.0) == []


def test_a_slow_head_gets_408() -> None:
    engine = clocked()
    for second in range(10):
        engine.receive(GET[second : second + 1], 3.0 + second)
        assert engine.deadline() == 13.0
    (failed,) = engine.timeout(13.0)
    assert isinstance(failed, RequestFailed)
    assert failed.status == 408
    assert engine.data_to_send().startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    assert engine.state is State.CLOSED


def test_the_clock_of_keep_alive_starts_with_the_next_call() -> None:
    engine = clocked()
    engine.receive(GET, 1.0)
    assert engine.deadline() is None
    answer(engine)
    assert engine.deadline() == 0.0  # at once
    assert engine.timeout(50.0) == []
    assert engine.deadline() == 70.0
    engine.receive(GET, 60.0)
    answer(engine)
    assert engine.receive(b"", 100.0) == []
    assert engine.deadline() == 120.0
    assert engine.timeout(120.0) == []
    assert engine.state is State.CLOSED


def test_a_body_must_move() -> None:
    engine = clocked()
    engine.receive(POST.replace(b": 5", b": 9999"), 1.0)
    assert engine.deadline() == 6.0
    engine.receive(b"a", 4.0)
    assert engine.deadline() == 9.0
    (failed,) = engine.timeout(9.5)
    assert isinstance(failed, RequestFailed)
    assert failed.status == 408
    assert "body" in failed.reason


def test_a_body_must_be_fast_enough_on_the_whole() -> None:
    engine = clocked()
    engine.receive(POST.replace(b": 5", b": 9999"), 0.0)
    for second in range(8):
        engine.receive(b"a", float(second))
    assert engine.deadline() == 8.0 + 0.08
    engine.receive(b"a" * 92, 8.0)
    assert engine.deadline() == 8.0 + 1.0


def test_only_content_moves_a_body() -> None:
    engine = clocked()
    engine.receive(CHUNKED, 0.0)
    for second, byte in enumerate((b"5", b";", b"a", b"b")):
        engine.receive(byte, float(second))
    assert engine.deadline() == 5.0


def test_a_client_that_waits_for_us_is_not_slow() -> None:
    engine = clocked()
    engine.receive(WAITING, 0.0)
    assert engine.deadline() is None
    engine.send_continue(50.0)
    assert engine.deadline() == 55.0
    engine.pause()
    assert engine.deadline() is None
    assert engine.timeout(99.0) == []
    engine.resume()
    assert engine.deadline() == 0.0
    assert engine.timeout(100.0) == []
    assert engine.deadline() == 105.0
    engine.pause()
    engine.resume()
    assert engine.receive(b"hel", 200.0) == [BodyReceived(b"hel")]
    assert engine.deadline() == 205.0
    assert names(engine.timeout(205.0)) == ["RequestFailed"]


def test_events_that_wait_for_us_stop_the_clock() -> None:
    engine = clocked()
    engine.receive(POST + b"hel", 0.0, max_events=1)
    assert engine.deadline() is None
    engine.receive(b"", 9.0)
    assert engine.deadline() == 8.03


def test_a_pause_outlasts_a_request() -> None:
    engine = clocked()
    engine.receive(POST + b"hello", 0.0)
    engine.pause()
    answer(engine)
    assert engine.receive(b"", 1.0) == []
    assert engine.deadline() == 21.0
    engine.resume()
    assert engine.deadline() == 21.0


# --- what is kept ---------------------------------------------------------------------------------


def test_connections_share_what_they_have_in_common() -> None:
    browser = (
        b"GET /%d HTTP/1.1\r\nHost: example.org\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\n"
        b"Accept-Language: en-GB\r\nX-Own: %d\r\nCookie: session=%d\r\n\r\n"
    )
    first, second = (
        Http1Engine(now=0.0).receive(browser % (index, index, index), 0.0)[0] for index in range(2)
    )
    assert isinstance(first, RequestReceived)
    assert isinstance(second, RequestReceived)
    for ours, theirs in zip(first.headers, second.headers, strict=True):
        assert ours[0] is theirs[0]  # names, made up or not
        if ours[0] not in (b"x-own", b"cookie"):
            assert ours is theirs


def test_secrets_are_not_shared() -> None:
    raw = (
        b"GET / HTTP/1.1\r\nHost: a\r\nCookie: tell-nobody\r\nAuthorization: tell-nobody\r\n"
        b"Sec-WebSocket-Key: tell-nobody\r\nX-Token: tell-nobody\r\n\r\n"
    )
    engine_for(raw)
    engine_for(raw)
    tables = grammar._shared_fields, grammar._shared_framing_fields, grammar._shared_sections
    for table in tables:
        assert not any(b"tell-nobody" in line for line in table)


SECTIONS = {
    "a proxy": b"Host: a\r\n",
    "a browser": b"Host: a\r\nUser-Agent: Mozilla\r\nAccept: */*\r\nAccept: text/html\r\n",
    "the last request": b"Host: a\r\nConnection: close\r\n",
    "an upgrade": b"Host: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n",
}


@pytest.mark.parametrize("section", SECTIONS.values(), ids=SECTIONS)
def test_a_section_that_was_read_before_means_the_same(section: bytes) -> None:
    raw = b"GET /%d HTTP/1.1\r\n" + section + b"\r\n"
    requests = []
    for index in range(4):
        (request, *_) = Http1Engine(now=0.0).receive(raw % index, 0.0)
        assert isinstance(request, RequestReceived)
        requests.append(request)
    # Two to learn the lines and the section, two that find it.
    assert any(key.endswith(section + b"\r\n") for key in grammar._shared_sections)
    first, *others = requests
    assert [request.path for request in requests] == ["/0", "/1", "/2", "/3"]
    for request in others:
        assert request[6:] == first[6:]
        assert request.headers is not first.headers
    others[-2].headers.clear()  # an application may do as it likes with its own
    assert others[-1].headers == first.headers


def test_a_handshake_is_known_by_all_but_its_key() -> None:
    section = b"Host: a\r\nSec-WebSocket-Key: %b\r\nOrigin: http://known\r\n\r\n"
    keys = [b"%022d==" % number for number in range(4)]
    for key in keys:
        (request, *_) = Http1Engine(now=0.0).receive(b"GET / HTTP/1.1\r\n" + section % key, 0.0)
        assert isinstance(request, RequestReceived)
        assert request.headers == [
            (b"host", b"a"),
            (b"sec-websocket-key", key),
            (b"origin", b"http://known"),
        ]
    known = [kept for kept in grammar._shared_sections if b"http://known" in kept]
    assert known == [b"\r\n" + section % b""]
    # Without a key, and with one that is none, it is another request.
    for value in (b"", b"A" * 24, keys[0] + b"=", keys[0] + b"\r\nSec-WebSocket-Key: " + keys[1]):
        raw = b"GET / HTTP/1.1\r\n" + section % value
        for _ in range(2):
            (request, *_) = Http1Engine(now=0.0).receive(raw, 0.0)
            assert isinstance(request, RequestReceived)
            values = [told for name, told in request.headers if name == b"sec-websocket-key"]
            assert values == value.split(b"\r\nSec-WebSocket-Key: ")
    assert not any(key in kept for kept in grammar._shared_sections for key in (keys[0], b"A" * 24))


def test_a_request_line_without_a_query_is_read_once() -> None:
    first = grammar.parse_request_line(b"GET /known HTTP/1.1")
    assert grammar.parse_request_line(b"GET /known HTTP/1.1") is first
    grammar.parse_request_line(b"GET /known?token=tell-nobody HTTP/1.1")
    grammar.parse_request_line(b"GET /%b HTTP/1.1" % (b"x" * 1000))
    assert not any(b"tell-nobody" in line or len(line) > 500 for line in grammar._shared_lines)
    for index in range(2 * grammar._SHARED_LIMIT):
        grammar.parse_request_line(b"GET /%d HTTP/1.1" % index)
    assert len(grammar._shared_lines) <= grammar._SHARED_LIMIT


def test_a_known_section_is_judged_anew_behind_another_line() -> None:
    section = b"Host: a\r\nAccept: known\r\n\r\n"
    for _ in range(3):
        Http1Engine(now=0.0).receive(b"GET / HTTP/1.1\r\n" + section, 0.0)
    assert b"\r\n" + section in grammar._shared_sections
    old = Http1Engine(now=0.0).receive(b"GET / HTTP/1.0\r\n" + section, 0.0)[0]
    assert isinstance(old, RequestReceived)
    assert not old.keep_alive
    absolute = Http1Engine(now=0.0).receive(b"GET http://b/ HTTP/1.1\r\n" + section, 0.0)[0]
    assert isinstance(absolute, RequestReceived)
    assert (b"host", b"b") in absolute.headers
    (made_up,) = Http1Engine(now=0.0).receive(b"MADEUP / HTTP/1.1\r\n" + section, 0.0)
    assert made_up == RequestFailed(501, "the method is not implemented")
    strict = Http1Engine(Http1Limits(header_count=1), now=0.0)
    (too_many,) = strict.receive(b"GET / HTTP/1.1\r\n" + section, 0.0)
    assert isinstance(too_many, RequestFailed)
    assert too_many.status == 431


def test_no_target_changes_what_the_other_parser_says_of_the_fields() -> None:
    # Or a section that is known would hide what it has against the target.
    path = bytes(byte for byte in range(0x21, 0x7F) if byte not in b'%?#"<>\\`{}')
    query = bytes(byte for byte in range(0x21, 0x7F) if byte not in b'#"<>')
    line = b"GET /%b%%41?%b HTTP/1.1" % (path, query)
    assert grammar.parse_request_line(line).query_string == query
    head = line + b"\r\nHost: a\r\n\r\n"
    assert grammar._parse_fields(head, head.split(b"\r\n"))[2] is None


def test_what_is_shared_is_bounded() -> None:
    engine = Http1Engine(now=0.0)
    for index in range(2 * grammar._SHARED_LIMIT):
        raw = b"GET / HTTP/1.1\r\nHost: h%d\r\nUser-Agent: %d\r\n%b\r\n"
        for more in (b"X-%d: y\r\n" % index, b"", b""):
            engine.receive(raw % (index, index, more), 0.0)
            answer(engine)
            engine.receive(b"", 0.0)
    tables: tuple[Any, ...] = (grammar._shared_fields, grammar._shared_framing_fields)
    for table in (*tables, grammar._NAMES):
        assert len(table) <= grammar._SHARED_LIMIT
    assert len(grammar._shared_sections) <= grammar._SHARED_SECTIONS
    long = b"GET / HTTP/1.1\r\nHost: a\r\nUser-Agent: " + b"x" * 1000 + b"\r\n\r\n"
    engine.receive(long, 0.0)
    assert not any(b"x" * 1000 in line for line in grammar._shared_fields)


def test_an_idle_connection_keeps_nothing_of_its_requests() -> None:
    engine = Http1Engine(now=0.0)
    engine.receive(POST + b"hello", 0.0)
    answer(engine)
    engine.receive(b"", 0.0)
    assert engine._buffer == b""
    assert engine._line is None
    assert engine._response is None
    assert not hasattr(engine, "__dict__")


def test_the_states_follow_their_table() -> None:
    engine = engine_for(CLOSING)
    answer(engine)
    with pytest.raises(AssertionError, match="to IDLE: state=CLOSED"):
        engine._move(State.IDLE)


# --- what httptools may object to -----------------------------------------------------------------


def test_httptools_is_stricter_than_the_rfc_about_a_coding() -> None:
    """RFC 9110 §5.5 allows a tab behind any value; httptools refuses it behind this one."""
    request, failed = CHUNKED.replace(b"chunked", b"chunked "), CHUNKED.replace(b"d\r", b"d\t\r")
    assert names(Http1Engine(now=0.0).receive(request, 0.0)) == ["RequestReceived"]
    assert names(Http1Engine(now=0.0).receive(failed, 0.0)) == ["RequestFailed"]


@pytest.mark.parametrize(
    ("raw", "objection", "status"),
    [
        (GET, "Invalid method encountered", 501),
        (GET, "something new", 400),
        (CHUNKED + b"0\r\nA: b\r\n\r\n", "something new", 400),
    ],
)
def test_what_httptools_refuses_is_refused(
    raw: bytes, objection: str, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A later httptools may refuse more than we do: its objection stands."""

    class Parser:
        def __init__(self, protocol: object) -> None:
            pass

        def feed_data(self, data: bytes) -> None:
            if raw is GET or data.startswith(b"GET "):
                raise grammar.httptools.HttpParserError(objection)

    monkeypatch.setattr(grammar.httptools, "HttpRequestParser", Parser)
    failed = Http1Engine(now=0.0).receive(raw, 0.0)[-1]
    assert isinstance(failed, RequestFailed)
    assert failed.status == status
