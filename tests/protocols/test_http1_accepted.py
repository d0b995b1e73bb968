"""Requests that look odd and are legal, each named by the rule that allows it.

Every vector is fed whole, in pieces and byte by byte, twice on one connection: the events are the
same each time.
"""

from dataclasses import dataclass, field
from typing import Any

import pytest

from headrace.protocols.http1 import (
    BodyReceived,
    Http1Engine,
    RequestCompleted,
    RequestReceived,
    State,
)

HOST = b"Host: example.org\r\n"


@dataclass(frozen=True)
class Vector:
    rule: str
    raw: bytes
    body: bytes = b""
    trailers: tuple[tuple[bytes, bytes], ...] = ()
    has: dict[str, Any] = field(default_factory=dict)  # what the request must say
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)  # beside the first Host

    def __str__(self) -> str:
        return self.rule


def with_target(rule: str, text: bytes, **has: Any) -> Vector:
    return Vector(rule, b"GET " + text + b" HTTP/1.1\r\n" + HOST + b"\r\n", has=has)


def with_field(rule: str, line: bytes, name: bytes, value: bytes, **has: Any) -> Vector:
    raw = b"GET / HTTP/1.1\r\n" + HOST + line + b"\r\n\r\n"
    return Vector(rule, raw, has=has, headers=[(name, value)])


def with_host(rule: str, value: bytes) -> Vector:
    return Vector(rule, b"GET / HTTP/1.1\r\nHost:" + value + b"\r\n\r\n")


def with_chunks(
    rule: str, raw: bytes, body: bytes = b"hello", trailers: tuple[tuple[bytes, bytes], ...] = ()
) -> Vector:
    head = b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
    return Vector(rule, head + raw, body, trailers)


VECTORS = [
    Vector(
        "RFC 9112 §2.2: one empty line before the request",
        b"\r\nGET / HTTP/1.1\r\n" + HOST + b"\r\n",
    ),
    Vector(
        "RFC 9112 §3.2: HTTP/1.0 without Host",
        b"GET / HTTP/1.0\r\n\r\n",
        has={"http_version": "1.0", "headers": []},
    ),
    Vector(
        "RFC 9112 §3.2: HTTP/1.0 with Host",
        b"GET / HTTP/1.0\r\n" + HOST + b"\r\n",
        has={"http_version": "1.0"},
    ),
    # the request target
    with_target(
        "RFC 3986 §3.3: every character of a path",
        b"/-._~!$&'()*+,;=:@aZ09/",
        path="/-._~!$&'()*+,;=:@aZ09/",
    ),
    with_target(
        "RFC 3986 §3.4: every character of a query",
        b"/?/?-._~!$&'()*+,;=:@",
        query_string=b"/?-._~!$&'()*+,;=:@",
    ),
    with_target("RFC 3986 §3.3: an empty segment", b"//a//", path="//a//"),
    with_target(
        "RFC 3986 §3.3: what looks like an authority",
        b"//example.com/a",
        raw_path=b"//example.com/a",
    ),
    with_target("RFC 3986 §3.3: dots stay", b"/a/../b/./c", path="/a/../b/./c"),
    with_target("RFC 3986 §3.3: a path with a colon", b"/a:b", path="/a:b"),
    with_target("RFC 3986 §3.3: a URI inside the path", b"/http://a@b/", path="/http://a@b/"),
    with_target("RFC 3986 §2.1: a space, encoded", b"/a%20b", path="/a b", raw_path=b"/a%20b"),
    with_target(
        "RFC 3986 §2.1: UTF-8, encoded", b"/caf%C3%A9", path="/café", raw_path=b"/caf%C3%A9"
    ),
    with_target("RFC 3986 §2.1: lower-case digits", b"/caf%c3%a9", path="/café"),
    with_target("RFC 3986 §2.1: bytes that are not UTF-8", b"/%ff", path="/�", raw_path=b"/%ff"),
    with_target("RFC 3986 §2.1: an encoded slash", b"/a%2Fb", path="/a/b", raw_path=b"/a%2Fb"),
    with_target("RFC 3986 §2.1: an encoded percent sign", b"/%2525", path="/%25"),
    with_target("RFC 3986 §2.1: an encoded NUL", b"/%00", path="/\0"),
    with_target("RFC 3986 §2.1: an encoded CRLF", b"/%0d%0aA:%20b", path="/\r\nA: b"),
    with_target(
        "RFC 3986 §2.1: an encoded question mark", b"/a%3Fb?c", path="/a?b", query_string=b"c"
    ),
    with_target("RFC 3986 §3.4: an empty query", b"/?", path="/", query_string=b""),
    with_target("WHATWG URL: % alone in a query", b"/?a=10%", query_string=b"a=10%"),
    with_target("WHATWG URL: % with letters in a query", b"/?a=%gg", query_string=b"a=%gg"),
    with_target("RFC 3986 §3.4: a query is not decoded", b"/?a=%20%2B", query_string=b"a=%20%2B"),
    with_target("RFC 3986 §3.4: a second question mark", b"/?a?b", query_string=b"a?b"),
    with_target(
        "WHATWG URL: brackets in the query", b"/?filter[name]=x", query_string=b"filter[name]=x"
    ),
    with_target(
        "WHATWG URL: what browsers leave in a query", b"/?{}|\\^`", query_string=b"{}|\\^`"
    ),
    with_target("WHATWG URL: what browsers leave in a path", b"/[a]|^", path="/[a]|^"),
    with_target(
        "RFC 9112 §3.2.2: absolute-form",
        b"http://example.org/a?b",
        path="/a",
        query_string=b"b",
        raw_path=b"/a",
        target=b"http://example.org/a?b",
    ),
    with_target("RFC 9112 §3.2.2: absolute-form with https", b"https://example.org/a", path="/a"),
    with_target(
        "RFC 9112 §3.2.2: absolute-form without path",
        b"http://example.org",
        path="/",
        raw_path=b"/",
    ),
    with_target(
        "RFC 9112 §3.2.2: absolute-form with a query alone",
        b"http://example.org?a",
        path="/",
        query_string=b"a",
    ),
    with_target("RFC 9112 §3.2.2: absolute-form, decoded", b"http://example.org/%41", path="/A"),
    with_target("RFC 9110 §4.2.3: a scheme in capitals", b"HTTP://example.org/", path="/"),
    Vector(
        "RFC 9112 §3.2.2: absolute-form replaces Host",
        b"GET http://a:8000/ HTTP/1.1\r\nA: b\r\nHost: c\r\nD: e\r\n\r\n",
        has={"headers": [(b"a", b"b"), (b"host", b"a:8000"), (b"d", b"e")]},
    ),
    Vector(
        "RFC 9112 §3.2.2: absolute-form replaces an empty-handed 1.0",
        b"GET http://a/ HTTP/1.0\r\nA: b\r\n\r\n",
        has={"headers": [(b"host", b"a"), (b"a", b"b")]},
    ),
    Vector(
        "RFC 9112 §3.2.4: OPTIONS *",
        b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n",
        has={"method": "OPTIONS", "path": "*", "raw_path": b"*", "query_string": b""},
    ),
    Vector(
        "RFC 9112 §3.2.4: OPTIONS on a URI without path",
        b"OPTIONS http://example.org HTTP/1.1\r\n" + HOST + b"\r\n",
        has={"path": "*"},
    ),
    Vector(
        "RFC 9112 §3.2.4: OPTIONS on a URI with a query",
        b"OPTIONS http://example.org?a HTTP/1.1\r\n" + HOST + b"\r\n",
        has={"path": "/", "query_string": b"a"},
    ),
    Vector(
        "RFC 9112 §3.2.1: OPTIONS on a path",
        b"OPTIONS /a HTTP/1.1\r\n" + HOST + b"\r\n",
        has={"path": "/a"},
    ),
    # methods
    *(
        Vector(
            f"RFC 9110 §9, WebDAV and others: {method}",
            f"{method} /a HTTP/1.1\r\nHost: example.org\r\n\r\n".encode(),
            has={"method": method},
        )
        for method in (
            "HEAD",
            "POST",
            "PUT",
            "DELETE",
            "TRACE",
            "PATCH",
            "PROPFIND",
            "REPORT",
            "M-SEARCH",
            "MKCALENDAR",
        )
    ),
    # fields
    with_field("RFC 9112 §5: no space after the colon", b"A:b", b"a", b"b"),
    with_field("RFC 9110 §5.5: spaces and tabs around a value", b"A: \t b \t ", b"a", b"b"),
    with_field("RFC 9110 §5.5: spaces and tabs inside a value", b"A: b \t c", b"a", b"b \t c"),
    with_field("RFC 9110 §5.5: an empty value", b"A:", b"a", b""),
    with_field("RFC 9110 §5.5: a value of spaces", b"A:   ", b"a", b""),
    with_field("RFC 9110 §5.5: colons in a value", b"A: b:c::", b"a", b"b:c::"),
    with_field("RFC 9110 §5.5: obs-text", b"A: \x80\xff", b"a", b"\x80\xff"),
    with_field("RFC 9110 §5.5: UTF-8", b"A: " + "é".encode(), b"a", "é".encode()),
    with_field(
        "RFC 9110 §5.5: NEL is obs-text and ends no line", b"A: b\x85Host: c", b"a", b"b\x85Host: c"
    ),
    with_field(
        "RFC 9110 §5.5: U+2028 ends no line",
        "A: b\u2028C: d".encode(),
        b"a",
        "b\u2028C: d".encode(),
    ),
    with_field(
        "RFC 9110 §5.5: a no-break space is not stripped", b"A: \xa0b\xa0", b"a", b"\xa0b\xa0"
    ),
    with_field(
        "RFC 9110 §5.5: every visible character",
        b"A: " + bytes(range(0x21, 0x7F)),
        b"a",
        bytes(range(0x21, 0x7F)),
    ),
    with_field(
        "RFC 9110 §5.6.2: every character of a token",
        b"!#$%&'*+-.^_`|~09Az: b",
        b"!#$%&'*+-.^_`|~09az",
        b"b",
    ),
    with_field("RFC 9110 §5.6.2: a name of one character", b"~: b", b"~", b"b"),
    with_field("RFC 9110 §5.6.2: a long name", b"A" * 300 + b": b", b"a" * 300, b"b"),
    with_field(
        "RFC 9110 §5.1: names are case-insensitive", b"x-FoRwArDeD-fOr: b", b"x-forwarded-for", b"b"
    ),
    Vector(
        "RFC 9110 §5.3: a field that comes twice keeps its order",
        b"GET / HTTP/1.1\r\n" + HOST + b"A: 1\r\nB: 2\r\na: 3\r\n\r\n",
        has={"headers": [(b"host", b"example.org"), (b"a", b"1"), (b"b", b"2"), (b"a", b"3")]},
    ),
    # hosts
    with_host("RFC 9110 §7.2: a port", b" example.org:8000"),
    with_host("RFC 9110 §7.2: no space before the value", b"example.org"),
    with_host("RFC 3986 §3.2.3: an empty port", b" example.org:"),
    with_host("RFC 3986 §3.2.3: the last port", b" example.org:65535"),
    with_host("RFC 3986 §3.2.2: IPv4", b" 127.0.0.1:8000"),
    with_host("RFC 3986 §3.2.2: IPv6", b" [::1]"),
    with_host("RFC 3986 §3.2.2: IPv6 with a port", b" [2001:db8::1]:8000"),
    with_host("RFC 3986 §3.2.2: IPv4 in IPv6", b" [::ffff:192.0.2.1]"),
    with_host("RFC 3986 §3.2.2: a future address", b" [v1.a:b]:80"),
    with_host("RFC 3986 §3.2.2: an underscore", b" my_service:8000"),
    with_host("RFC 3986 §3.2.2: an escape", b" ex%41mple.org"),
    with_host("RFC 3986 §3.2.2: sub-delimiters", b" a!$&'()*+;=b"),
    with_host("RFC 3986 §3.2.2: capitals", b" EXAMPLE.org"),
    with_host("RFC 3986 §3.2.2: a dot at the end", b" example.org."),
    # the connection
    with_field("RFC 9112 §9.3: HTTP/1.1 persists", b"A: b", b"a", b"b", keep_alive=True),
    with_field(
        "RFC 9112 §9.6: close", b"Connection: close", b"connection", b"close", keep_alive=False
    ),
    with_field(
        "RFC 9112 §9.6: close in capitals, in a list",
        b"Connection: a, CLOSE",
        b"connection",
        b"a, CLOSE",
        keep_alive=False,
    ),
    with_field(
        "RFC 9112 §9.3: close beats keep-alive",
        b"Connection: keep-alive, close",
        b"connection",
        b"keep-alive, close",
        keep_alive=False,
    ),
    with_field(
        "RFC 9110 §5.6.1: empty members",
        b"Connection: ,, ,close,",
        b"connection",
        b",, ,close,",
        keep_alive=False,
    ),
    with_field(
        "RFC 9110 §7.6.1: an option that only looks like close",
        b"Connection: xclose",
        b"connection",
        b"xclose",
        keep_alive=True,
    ),
    Vector("RFC 9112 §9.3: HTTP/1.0 ends", b"GET / HTTP/1.0\r\n\r\n", has={"keep_alive": False}),
    Vector(
        "RFC 9112 §9.3: HTTP/1.0 persists on request",
        b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n",
        has={"keep_alive": True},
    ),
    with_field(
        "RFC 9110 §7.8: Upgrade without Connection",
        b"Upgrade: websocket",
        b"upgrade",
        b"websocket",
        upgrade=None,
    ),
    with_field(
        "RFC 9110 §7.8: Connection without Upgrade",
        b"Connection: upgrade",
        b"connection",
        b"upgrade",
        upgrade=None,
    ),
    Vector(
        "RFC 9110 §7.8: Upgrade in HTTP/1.0",
        b"GET / HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        has={"upgrade": None},
    ),
    Vector(
        "RFC 9110 §7.8: an empty Upgrade",
        b"GET / HTTP/1.1\r\n" + HOST + b"Connection: upgrade\r\nUpgrade:\r\n\r\n",
        has={"upgrade": None},
    ),
    Vector(
        "RFC 9110 §7.8: Upgrade",
        b"GET / HTTP/1.1\r\n"
        + HOST
        + b"Connection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n\r\n",
        has={"upgrade": b"websocket", "keep_alive": True},
    ),
    Vector(
        "RFC 9110 §7.8: Upgrade on two lines",
        b"GET / HTTP/1.1\r\n"
        + HOST
        + b"Connection: a\r\nConnection: upgrade\r\nUpgrade: h2c\r\nUpgrade: websocket\r\n\r\n",
        has={"upgrade": b"h2c, websocket"},
    ),
    Vector(
        "RFC 9110 §7.8: Upgrade of a request with a body",
        b"POST / HTTP/1.1\r\n"
        + HOST
        + b"Connection: upgrade\r\nUpgrade: x\r\nContent-Length: 5\r\n\r\nhello",
        b"hello",
        has={"upgrade": b"x"},
    ),
    # bodies
    Vector("RFC 9112 §6.3: POST without length", b"POST / HTTP/1.1\r\n" + HOST + b"\r\n"),
    Vector(
        "RFC 9112 §6.3: GET with a body",
        b"GET / HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\n\r\nhello",
        b"hello",
    ),
    Vector(
        "RFC 9110 §8.6: a length of 0", b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 0\r\n\r\n"
    ),
    Vector(
        "RFC 9110 §8.6: leading zeros",
        b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 0005\r\n\r\nhello",
        b"hello",
    ),
    Vector(
        "RFC 9110 §8.6: spaces around a length",
        b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: \t5\t \r\n\r\nhello",
        b"hello",
    ),
    Vector(
        "RFC 9110 §8.6: a length in HTTP/1.0",
        b"POST / HTTP/1.0\r\nContent-Length: 5\r\n\r\nhello",
        b"hello",
    ),
    Vector(
        "RFC 9112 §6: a body that looks like a request",
        b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 18\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
    ),
    Vector(
        "RFC 9112 §7: codings are case-insensitive",
        b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: \tChUnKeD \r\n\r\n0\r\n\r\n",
    ),
    Vector(
        "RFC 9110 §10.1.4: TE is not Transfer-Encoding",
        b"GET / HTTP/1.1\r\n" + HOST + b"TE: trailers, gzip;q=0.5\r\n\r\n",
    ),
    Vector(
        "RFC 9110 §10.1.1: 100-continue",
        b"POST / HTTP/1.1\r\n" + HOST + b"Expect: 100-Continue\r\nContent-Length: 5\r\n\r\nhello",
        b"hello",
        has={"expect_continue": True},
    ),
    Vector(
        "RFC 9110 §10.1.1: 100-continue without a body",
        b"GET / HTTP/1.1\r\n" + HOST + b"Expect: 100-continue\r\n\r\n",
        has={"expect_continue": False},
    ),
    Vector(
        "RFC 9110 §10.1.1: 100-continue in HTTP/1.0",
        b"POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello",
        b"hello",
        has={"expect_continue": False},
    ),
    Vector(
        "RFC 9110 §10.1.1: another expectation in HTTP/1.0",
        b"GET / HTTP/1.0\r\nExpect: x\r\n\r\n",
        has={"expect_continue": False},
    ),
    with_chunks("RFC 9112 §7.1: one chunk", b"5\r\nhello\r\n0\r\n\r\n"),
    with_chunks("RFC 9112 §7.1: several chunks", b"1\r\nh\r\n3\r\nell\r\n1\r\no\r\n0\r\n\r\n"),
    with_chunks("RFC 9112 §7.1: no chunk but the last", b"0\r\n\r\n", b""),
    with_chunks("RFC 9112 §7.1: a last chunk of many zeros", b"5\r\nhello\r\n0000\r\n\r\n"),
    with_chunks("RFC 9112 §7.1: leading zeros", b"0000000000000005\r\nhello\r\n0\r\n\r\n"),
    with_chunks(
        "RFC 9112 §7.1: digits in both cases",
        b"a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n",
        b"0123456789" * 2,
    ),
    with_chunks("RFC 9112 §7.1: a chunk of CRLFs", b"4\r\n\r\n\r\n\r\n0\r\n\r\n", b"\r\n\r\n"),
    with_chunks(
        "RFC 9112 §7.1: a chunk that looks like the end",
        b"5\r\n0\r\n\r\n\r\n0\r\n\r\n",
        b"0\r\n\r\n",
    ),
    with_chunks("RFC 9112 §7.1.1: an extension", b"5;a\r\nhello\r\n0\r\n\r\n"),
    with_chunks("RFC 9112 §7.1.1: an extension with a value", b"5;a=b\r\nhello\r\n0;c=d\r\n\r\n"),
    with_chunks("RFC 9112 §7.1.1: a quoted value", b'5;a="b; \\"c\\" \x80"\r\nhello\r\n0\r\n\r\n'),
    with_chunks("RFC 9112 §7.1.1: an empty quoted value", b'5;a=""\r\nhello\r\n0\r\n\r\n'),
    with_chunks("RFC 9112 §7.1.1: several extensions", b"5;a;b=c;d\r\nhello\r\n0\r\n\r\n"),
    with_chunks(
        "RFC 9110 §5.6.3: bad whitespace in extensions", b"5 ; a\t = b\r\nhello\r\n0\r\n\r\n"
    ),
    with_chunks(
        "RFC 9112 §7.1.2: a trailer", b"5\r\nhello\r\n0\r\nA: b\r\n\r\n", trailers=((b"a", b"b"),)
    ),
    with_chunks(
        "RFC 9112 §7.1.2: several trailers",
        b"0\r\nA: b\r\nA:\r\nC: d \r\n\r\n",
        b"",
        ((b"a", b"b"), (b"a", b""), (b"c", b"d")),
    ),
]


def requests(engine: Http1Engine, raw: bytes, size: int) -> list[list[Any]]:
    """Feed it twice in pieces of this size; answer each request."""
    seen: list[list[Any]] = [[]]
    for stream in (raw, raw):
        for start in range(0, len(stream), size):
            seen[-1] += engine.receive(stream[start : start + size], 0.0)
        assert not engine.has_unread
        engine.must_close = False
        engine._keep_alive = True  # ask the engine for a second look, whatever the client said
        engine.send_response(200, [(b"content-length", b"0")])
        engine.send_body(b"")
        seen[-1] += engine.receive(b"", 0.0)
        seen.append([])
    return seen[:2]


@pytest.mark.parametrize("size", [1, 7, 1 << 20], ids=["byte by byte", "in pieces", "whole"])
@pytest.mark.parametrize("vector", VECTORS, ids=str)
def test_accepted(vector: Vector, size: int) -> None:
    engine = Http1Engine(now=0.0)
    for events in requests(engine, vector.raw, size):
        request, *parts, completed = events
        assert isinstance(request, RequestReceived)
        for name, value in vector.has.items():
            assert getattr(request, name) == value
        if vector.headers:
            assert request.headers[1:] == vector.headers
        assert all(isinstance(part, BodyReceived) and part.data for part in parts)
        assert b"".join(part.data for part in parts) == vector.body
        assert completed == RequestCompleted(vector.trailers)
    assert engine.state is State.IDLE
