"""Requests that must be refused, each named by the rule that it breaks.

Every vector is fed whole, byte by byte and behind a request that is in order; status, sentence and
answer must be the same. Nothing of a request with a broken head may reach the application.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import h11
import pytest

from headrace import protocols
from headrace.protocols.http1 import (
    BodyReceived,
    Http1Engine,
    RequestCompleted,
    RequestFailed,
    RequestReceived,
    State,
)

HOST = b"Host: example.org\r\n"


@dataclass(frozen=True)
class Vector:
    rule: str
    raw: bytes
    status: int = 400
    body: bytes | None = None  # None: the head is refused; else what was read of the body

    def __str__(self) -> str:
        return self.rule


def line(first: bytes) -> bytes:
    """A request whose first line is at fault."""
    return first + b"\r\n" + HOST + b"\r\n"


def target(text: bytes) -> bytes:
    return line(b"GET " + text + b" HTTP/1.1")


def head(*fields: bytes, method: bytes = b"GET", version: bytes = b"1.1") -> bytes:
    """A request with a Host, and these lines after it."""
    lines = b"".join(field + b"\r\n" for field in fields)
    return method + b" / HTTP/" + version + b"\r\n" + HOST + lines + b"\r\n"


def post(*fields: bytes, body: bytes = b"hello") -> bytes:
    return head(*fields, method=b"POST") + body


def host(*values: bytes) -> bytes:
    lines = b"".join(b"Host:" + value + b"\r\n" for value in values)
    return b"GET / HTTP/1.1\r\n" + lines + b"\r\n"


def chunks(body: bytes) -> bytes:
    return post(b"Transfer-Encoding: chunked", body=body)


CONTROLS = [*range(0x09), 0x0B, 0x0C, *range(0x0E, 0x20), 0x7F]
DELIMITERS = b'"(),/:;<=>?@[\\]{}'

LINES = [
    Vector("RFC 9112 §2.2: LF alone ends the request line", b"GET / HTTP/1.1\n" + HOST + b"\r\n"),
    Vector("RFC 9112 §2.2: LF alone ends a field", b"GET / HTTP/1.1\r\nHost: a\nA: b\r\n\r\n"),
    Vector("RFC 9112 §2.2: LF alone ends the head", b"GET / HTTP/1.1\r\nHost: a\r\n\n"),
    Vector("RFC 9112 §2.2: LF alone ends every line", b"GET / HTTP/1.1\nHost: a\n\n"),
    Vector("RFC 9112 §2.2: LF alone before the request", b"\nGET / HTTP/1.1\r\n" + HOST + b"\r\n"),
    Vector("RFC 9112 §2.2: CR alone ends the request line", b"GET / HTTP/1.1\r" + HOST + b"\r\n"),
    Vector("RFC 9112 §2.2: CR alone ends a field", b"GET / HTTP/1.1\r\nHost: a\rA: b\r\n\r\n"),
    Vector("RFC 9112 §2.2: CR alone ends the head", b"GET / HTTP/1.1\r\nHost: a\r\n\rX"),
    Vector("RFC 9112 §2.2: CR inside a value", head(b"A: b\rc")),
    Vector("RFC 9112 §2.2: CR at the end of a value", head(b"A: b\r")),
    Vector("RFC 9112 §2.2: LF inside a value", head(b"A: b\nc")),
    Vector("RFC 9112 §2.2: LF at the start of a line", head(b"\nA: b")),
    Vector("RFC 9112 §2.2: CR inside a name", head(b"A\rB: c")),
    Vector("RFC 9112 §2.2: LF inside a name", head(b"A\nB: c")),
    Vector("RFC 9112 §2.2: CR inside the request line", line(b"GET /\r HTTP/1.1")),
    Vector("RFC 9112 §2.2: CR before the request", b"\rGET / HTTP/1.1\r\n" + HOST + b"\r\n"),
    Vector("RFC 9112 §2.2: LF CR ends a line", b"GET / HTTP/1.1\n\r" + HOST + b"\r\n"),
    Vector("RFC 9112 §2.2: CR CR LF ends a line", b"GET / HTTP/1.1\r\r\n" + HOST + b"\r\n"),
    Vector("RFC 9112 §2.2: two empty lines before the request", b"\r\n\r\n" + head()),
    Vector("RFC 9112 §2.2: space before the first field", b"GET / HTTP/1.1\r\n Host: a\r\n\r\n"),
    Vector("RFC 9112 §2.2: tab before the first field", b"GET / HTTP/1.1\r\n\tHost: a\r\n\r\n"),
]

REQUEST_LINES = [
    Vector("RFC 9112 §3: two spaces before the target", line(b"GET  / HTTP/1.1")),
    Vector("RFC 9112 §3: two spaces before the version", line(b"GET /  HTTP/1.1")),
    Vector("RFC 9112 §3: a tab between the parts", line(b"GET\t/ HTTP/1.1")),
    Vector("RFC 9112 §3: a tab before the version", line(b"GET /\tHTTP/1.1")),
    Vector("RFC 9112 §3: a space before the method", line(b" GET / HTTP/1.1")),
    Vector("RFC 9112 §3: a space after the version", line(b"GET / HTTP/1.1 ")),
    Vector("RFC 9112 §3: a tab after the version", line(b"GET / HTTP/1.1\t")),
    Vector("RFC 9112 §3: a fourth part", line(b"GET / HTTP/1.1 x")),
    Vector("RFC 9112 §3: a space inside the target", line(b"GET /a b HTTP/1.1")),
    Vector("RFC 9112 §3: no target", line(b"GET HTTP/1.1")),
    Vector("RFC 9112 §3: an empty target", line(b"GET  HTTP/1.1")),
    Vector("RFC 9112 §3: a method alone", line(b"GET")),
    Vector("RFC 9112 §3: no method", line(b"/ HTTP/1.1")),
    Vector("RFC 9112 §3: a version alone", line(b"HTTP/1.1")),
    Vector("RFC 9112 §3: a response", line(b"HTTP/1.1 200 OK")),
    Vector("RFC 9112 §3: a TLS greeting", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
    Vector("RFC 9112 §3: HTTP/0.9", b"GET /\r\n"),
    Vector("RFC 9112 §3: HTTP/0.9 by name", line(b"GET / HTTP/0.9"), 505),
    Vector("RFC 9110 §2.5: HTTP/2.0", line(b"GET / HTTP/2.0"), 505),
    Vector("RFC 9110 §2.5: HTTP/3.0", line(b"GET / HTTP/3.0"), 505),
    Vector("RFC 9110 §2.5: HTTP/1.2", line(b"GET / HTTP/1.2"), 505),
    Vector("RFC 9110 §2.5: HTTP/9.9", line(b"GET / HTTP/9.9"), 505),
    Vector("RFC 9113 §3.4: not the HTTP/2 preface", line(b"PRI / HTTP/2.0"), 505),
    Vector("RFC 9112 §2.3: no minor version", line(b"GET / HTTP/1")),
    Vector("RFC 9112 §2.3: no number", line(b"GET / HTTP/")),
    Vector("RFC 9112 §2.3: no slash", line(b"GET / HTTP1.1")),
    Vector("RFC 9112 §2.3: three numbers", line(b"GET / HTTP/1.1.1")),
    Vector("RFC 9112 §2.3: two digits", line(b"GET / HTTP/1.10")),
    Vector("RFC 9112 §2.3: a leading zero", line(b"GET / HTTP/01.1")),
    Vector("RFC 9112 §2.3: a sign", line(b"GET / HTTP/+1.1")),
    Vector("RFC 9112 §2.3: a comma", line(b"GET / HTTP/1,1")),
    Vector("RFC 9112 §2.3: letters for digits", line(b"GET / HTTP/x.y")),
    Vector("RFC 9112 §2.3: lower case", line(b"GET / http/1.1")),
    Vector("RFC 9112 §2.3: mixed case", line(b"GET / Http/1.1")),
    Vector("RFC 9112 §2.3: another protocol", line(b"GET / ICY/1.1")),
    Vector("RFC 9112 §2.3: HTTPS", line(b"GET / HTTPS/1.1")),
    Vector("RFC 9110 §9.1: lower case is another method", line(b"get / HTTP/1.1"), 501),
    Vector("RFC 9110 §9.1: mixed case is another method", line(b"Get / HTTP/1.1"), 501),
    Vector("RFC 9110 §9.1: a method nobody knows", line(b"BREW / HTTP/1.1"), 501),
    Vector("RFC 9110 §9.1: a method longer than any", line(b"G" * 4000 + b" / HTTP/1.1"), 501),
    Vector("RFC 9110 §9.1: a method of another protocol", line(b"SETUP / HTTP/1.1"), 501),
    *(
        Vector(f"RFC 9110 §9.1: {chr(byte)} in a method", line(b"G%cT / HTTP/1.1" % byte))
        for byte in DELIMITERS
    ),
    Vector("RFC 9110 §9.1: obs-text in a method", line(b"G\xc9T / HTTP/1.1")),
    Vector("RFC 9110 §9.1: NUL in a method", line(b"G\x00T / HTTP/1.1")),
    Vector("RFC 9110 §9.3.6: CONNECT", line(b"CONNECT example.org:443 HTTP/1.1"), 501),
    Vector("RFC 9110 §9.3.6: CONNECT to IPv6", line(b"CONNECT [::1]:443 HTTP/1.1"), 501),
    Vector("RFC 9110 §9.3.6: CONNECT without port", line(b"CONNECT example.org HTTP/1.1")),
    Vector("RFC 9110 §9.3.6: CONNECT with an empty port", line(b"CONNECT example.org: HTTP/1.1")),
    Vector("RFC 9110 §9.3.6: CONNECT to a port too high", line(b"CONNECT a:65536 HTTP/1.1")),
    Vector("RFC 9110 §9.3.6: CONNECT to a path", line(b"CONNECT / HTTP/1.1")),
    Vector("RFC 9110 §9.3.6: CONNECT to *", line(b"CONNECT * HTTP/1.1")),
    Vector("RFC 9110 §9.3.6: CONNECT to a URI", line(b"CONNECT http://a:1/ HTTP/1.1")),
    Vector("RFC 9110 §9.3.6: CONNECT with userinfo", line(b"CONNECT u@a:1 HTTP/1.1")),
]

TARGETS = [
    Vector("RFC 9112 §3.2.4: * with GET", target(b"*")),
    Vector("RFC 9112 §3.2.4: * with POST", line(b"POST * HTTP/1.1")),
    Vector("RFC 9112 §3.2.4: more than * with OPTIONS", line(b"OPTIONS ** HTTP/1.1")),
    Vector("RFC 9112 §3.2.4: a query after *", line(b"OPTIONS *?a HTTP/1.1")),
    Vector("RFC 9112 §3.2.3: authority-form with GET", target(b"example.org:80")),
    Vector("RFC 9112 §3.2: a relative path", target(b"path")),
    Vector("RFC 9112 §3.2: a query alone", target(b"?a=b")),
    Vector("RFC 9112 §3.2: a fragment", target(b"/a#b")),
    Vector("RFC 9112 §3.2: an empty fragment", target(b"/#")),
    Vector("RFC 9112 §3.2: a fragment after the query", target(b"/a?b#c")),
    Vector("RFC 9112 §3.2: a fragment in absolute-form", target(b"http://example.org/#a")),
    Vector("RFC 9112 §3.2: a fragment alone", target(b"#a")),
    Vector("RFC 9112 §3.2: a backslash for a slash", target(b"\\a")),
    Vector("RFC 3986 §3.3: a backslash in the path", target(b"/a\\b")),
    Vector("RFC 3986 §3.3: a brace in the path", target(b"/{a}")),
    Vector("RFC 3986 §3.3: a backtick in the path", target(b"/`")),
    *(
        Vector(f"RFC 3986 §2: {chr(byte)} in the {where}", target(b"/%b%c" % (prefix, byte)))
        for where, prefix in (("path", b""), ("query", b"?"))
        for byte in b'"<>'
    ),
    Vector("RFC 3986 §2: raw UTF-8 in the path", target("/é".encode())),
    Vector("RFC 3986 §2: raw UTF-8 in the query", target("/?é".encode())),
    Vector("RFC 3986 §2: raw Latin-1", target(b"/\xe9")),
    Vector("RFC 3986 §2: NEL in the path", target(b"/\x85")),
    *(
        Vector(f"RFC 3986 §2: control 0x{byte:02x} in the target", target(b"/%c" % byte))
        for byte in (0x00, 0x01, 0x08, 0x0B, 0x0C, 0x1B, 0x1C, 0x1F, 0x7F)
    ),
    Vector("RFC 3986 §2.1: % without digits", target(b"/%")),
    Vector("RFC 3986 §2.1: % with one digit", target(b"/%a")),
    Vector("RFC 3986 §2.1: % with other letters", target(b"/%zz")),
    Vector("RFC 3986 §2.1: % with a second % ", target(b"/%%20")),
    Vector("RFC 3986 §2.1: %u", target(b"/%u0041")),
    Vector("RFC 9110 §4.2.1: absolute-form without host", target(b"http:///a")),
    Vector("RFC 9110 §4.2.1: absolute-form with a port alone", target(b"http://:80/")),
    Vector("RFC 9110 §4.2.4: userinfo in absolute-form", target(b"http://user@example.org/")),
    Vector("RFC 9110 §4.2.4: password in absolute-form", target(b"http://u:p@example.org/")),
    Vector("RFC 3986 §3.2.3: a port of letters", target(b"http://example.org:http/")),
    Vector(
        "RFC 3986 §3.2.3: a port too high in absolute-form", target(b"http://example.org:65536/")
    ),
    Vector("RFC 3986 §3.2.2: an IPv6 address cut short", target(b"http://[::1/")),
    Vector("RFC 3986 §3.2.2: an IPv6 address of colons", target(b"http://[:::]/")),
    Vector("RFC 3986 §3.2.2: a malformed escape in a host", target(b"http://a%zz/")),
    Vector("RFC 9112 §3.2.2: another scheme", target(b"ftp://example.org/")),
    Vector("RFC 9112 §3.2.2: a scheme of WebSocket", target(b"ws://example.org/")),
    Vector("RFC 9112 §3.2.2: no scheme", target(b"://example.org/")),
    Vector("RFC 9112 §3.2.2: one slash", target(b"http:/example.org/")),
    Vector("RFC 9112 §3.2.2: no slashes", target(b"http:example.org")),
    Vector("RFC 9112 §3.2.2: a query with a bad character", target(b'http://example.org/?"')),
]

NAMES = [
    Vector("RFC 9112 §5: no colon", head(b"Accept")),
    Vector("RFC 9112 §5: no colon, a space", head(b"Accept x")),
    Vector("RFC 9112 §5: no name", head(b": b")),
    Vector("RFC 9112 §5: a colon alone", head(b":")),
    Vector("RFC 9112 §5.1: space before the colon", head(b"A : b")),
    Vector("RFC 9112 §5.1: tab before the colon", head(b"A\t: b")),
    Vector("RFC 9112 §5.1: space before the colon of Host", b"GET / HTTP/1.1\r\nHost : a\r\n\r\n"),
    Vector("RFC 9112 §5.1: space before a length", post(b"Content-Length : 5")),
    Vector("RFC 9112 §5.1: space before a coding", chunks(b"").replace(b"g:", b"g :")),
    Vector("RFC 9112 §5.1: space inside a name", head(b"A B: c")),
    Vector("RFC 9112 §5.2: obs-fold with a space", head(b"A: b", b" c")),
    Vector("RFC 9112 §5.2: obs-fold with a tab", head(b"A: b", b"\tc")),
    Vector("RFC 9112 §5.2: obs-fold that looks like a field", head(b"A: b", b" C: d")),
    Vector("RFC 9112 §5.2: obs-fold of nothing", head(b"A: b", b" ")),
    Vector("RFC 9112 §5.2: obs-fold after an empty value", head(b"A:", b" b")),
    Vector("RFC 9112 §5.2: a folded Host", head(b" b")),
    Vector("RFC 9112 §5.2: a folded coding", post(b"Transfer-Encoding:", b" chunked", body=b"")),
    Vector("RFC 9112 §5.2: a folded length", post(b"Content-Length:", b"\t5")),
    *(
        Vector(f"RFC 9110 §5.6.2: {chr(byte)} in a name", head(b"A%cB: c" % byte))
        for byte in DELIMITERS.replace(b":", b"")
    ),
    *(
        Vector(f"RFC 9110 §5.6.2: byte 0x{byte:02x} in a name", head(b"A%cB: c" % byte))
        for byte in (0x00, 0x01, 0x0B, 0x0C, 0x1C, 0x7F, 0x80, 0x85, 0xA0, 0xC3, 0xFF)
    ),
    Vector("RFC 9110 §5.6.2: UTF-8 in a name", head("Ä: b".encode())),
    Vector("RFC 9110 §5.6.2: a byte order mark", line(b"\xef\xbb\xbfGET / HTTP/1.1")),
]

VALUES = [
    Vector(f"RFC 9110 §5.5: control 0x{byte:02x} in a value", head(b"A: b%cc" % byte))
    for byte in CONTROLS
] + [
    Vector("RFC 9110 §5.5: VT for a space before a value", head(b"A:\x0bb")),
    Vector("RFC 9110 §5.5: FF after a value", head(b"A: b\x0c")),
    Vector("RFC 9110 §5.5: NUL in Host", host(b" exa\x00mple")),
    Vector("RFC 9110 §5.5: VT in a coding", chunks(b"").replace(b" chunked", b"\x0bchunked")),
    Vector("RFC 9110 §5.5: NUL in a length", post(b"Content-Length: 5\x00")),
]

HOSTS = [
    Vector("RFC 9112 §3.2: no Host", b"GET / HTTP/1.1\r\n\r\n"),
    Vector("RFC 9112 §3.2: no Host among fields", b"GET / HTTP/1.1\r\nA: b\r\n\r\n"),
    Vector("RFC 9112 §3.2: no Host with absolute-form", b"GET http://a/ HTTP/1.1\r\n\r\n"),
    Vector("RFC 9112 §3.2: no Host with *", b"OPTIONS * HTTP/1.1\r\n\r\n"),
    Vector("RFC 9112 §3.2: two Hosts", host(b" a", b" b")),
    Vector("RFC 9112 §3.2: the same Host twice", host(b" a", b" a")),
    Vector("RFC 9112 §3.2: Host twice in two cases", head(b"HOST: example.org")),
    Vector("RFC 9112 §3.2: an empty Host", host(b"")),
    Vector("RFC 9112 §3.2: a Host of spaces", host(b"  \t ")),
    Vector("RFC 9112 §3.2: a Host of a list", host(b" a, b")),
    Vector(
        "RFC 9112 §3.2: a bad Host with absolute-form",
        b"GET http://a/ HTTP/1.1\r\nHost: a b\r\n\r\n",
    ),
    Vector("RFC 9112 §3.2: a bad Host in HTTP/1.0", b"GET / HTTP/1.0\r\nHost: a/b\r\n\r\n"),
    Vector("RFC 9112 §3.2: two Hosts in HTTP/1.0", b"GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n"),
    Vector("RFC 9110 §7.2: userinfo in Host", host(b" user@example.org")),
    Vector("RFC 9110 §7.2: a password in Host", host(b" user:pw@example.org")),
    Vector("RFC 9110 §7.2: @ alone in Host", host(b" @example.org")),
    Vector("RFC 9110 §7.2: a path in Host", host(b" example.org/path")),
    Vector("RFC 9110 §7.2: a slash after Host", host(b" example.org/")),
    Vector("RFC 9110 §7.2: a query in Host", host(b" example.org?a")),
    Vector("RFC 9110 §7.2: a fragment in Host", host(b" example.org#a")),
    Vector("RFC 9110 §7.2: a URI in Host", host(b" http://example.org")),
    Vector("RFC 9110 §7.2: a backslash in Host", host(b" example.org\\a")),
    Vector("RFC 9110 §7.2: a space in Host", host(b" exam ple.org")),
    Vector("RFC 9110 §7.2: a tab in Host", host(b" exam\tple.org")),
    Vector("RFC 9110 §7.2: quotes around Host", host(b' "example.org"')),
    Vector("RFC 9110 §7.2: raw UTF-8 in Host", host(" exämple.org".encode())),
    Vector("RFC 9110 §7.2: a bad escape in Host", host(b" exa%mple.org")),
    Vector("RFC 9110 §7.2: < in Host", host(b" <script>")),
    Vector("RFC 9110 §7.2: a brace in Host", host(b" {host}")),
    Vector("RFC 9110 §7.2: | in Host", host(b" a|b")),
    Vector("RFC 9110 §7.2: ^ in Host", host(b" a^b")),
    Vector("RFC 9110 §7.2: a port alone", host(b" :80")),
    Vector("RFC 3986 §3.2.3: letters in a port", host(b" example.org:http")),
    Vector("RFC 3986 §3.2.3: a sign in a port", host(b" example.org:+80")),
    Vector("RFC 3986 §3.2.3: a minus in a port", host(b" example.org:-80")),
    Vector("RFC 3986 §3.2.3: hexadecimal in a port", host(b" example.org:0x50")),
    Vector("RFC 3986 §3.2.3: a space in a port", host(b" example.org: 80")),
    Vector("RFC 3986 §3.2.3: two ports", host(b" example.org:80:80")),
    Vector("RFC 3986 §3.2.3: a port too high", host(b" example.org:65536")),
    Vector("RFC 3986 §3.2.3: a port too long", host(b" example.org:000080")),
    Vector("RFC 3986 §3.2.2: IPv6 without brackets", host(b" ::1")),
    Vector("RFC 3986 §3.2.2: an open bracket", host(b" [::1")),
    Vector("RFC 3986 §3.2.2: a closed bracket", host(b" ::1]")),
    Vector("RFC 3986 §3.2.2: nothing in brackets", host(b" []")),
    Vector("RFC 3986 §3.2.2: a name in brackets", host(b" [example.org]")),
    Vector("RFC 3986 §3.2.2: IPv4 in brackets", host(b" [127.0.0.1]")),
    Vector("RFC 3986 §3.2.2: too many groups", host(b" [1:2:3:4:5:6:7:8:9]")),
    Vector("RFC 3986 §3.2.2: a zone", host(b" [fe80::1%25eth0]")),
    Vector("RFC 3986 §3.2.2: more after the bracket", host(b" [::1]a")),
    Vector("RFC 3986 §3.2.2: a future address without address", host(b" [v1.]")),
]

LENGTHS = [
    Vector(
        "RFC 9112 §6.3: both lengths", post(b"Content-Length: 5", b"Transfer-Encoding: chunked")
    ),
    Vector(
        "RFC 9112 §6.3: both, reversed", post(b"Transfer-Encoding: chunked", b"Content-Length: 5")
    ),
    Vector(
        "RFC 9112 §6.3: both, one zero", post(b"Transfer-Encoding: chunked", b"content-length: 0")
    ),
    Vector("RFC 9112 §6.3: conflicting lengths", post(b"Content-Length: 5", b"Content-Length: 6")),
    Vector("RFC 9112 §6.3: lengths that agree", post(b"Content-Length: 5", b"Content-Length: 5")),
    Vector("RFC 9112 §6.3: lengths in two cases", post(b"content-length: 5", b"CONTENT-LENGTH: 6")),
    Vector("RFC 9112 §6.3: a list of lengths", post(b"Content-Length: 5, 5")),
    Vector("RFC 9112 §6.3: a list of lengths without space", post(b"Content-Length: 5,5")),
    Vector("RFC 9112 §6.3: a list that conflicts", post(b"Content-Length: 5, 6")),
    Vector("RFC 9112 §6.3: a length and a comma", post(b"Content-Length: 5,")),
    *(
        Vector(f"RFC 9110 §8.6: a length of {value!r}", post(b"Content-Length: " + value))
        for value in (
            b"",
            b"+5",
            b"-5",
            b"-0",
            b"+0",
            b"0x5",
            b"0X5",
            b"5h",
            b"6_0",
            b"5.0",
            b"5e0",
            b"5 0",
            b"5;",
            b'"5"',
            b"'5'",
            b"five",
            b"0b1",
            b"0o5",
            b"1,000",
            b"\xb2",
            b"\xd9\xa5",
            b"NaN",
            b"5\t5",
            b"$5",
            b"05 5",
            b"*",
        )
    ),
    Vector(
        "RFC 9110 §8.6: an empty length beside another",
        post(b"Content-Length:", b"Content-Length: 5"),
    ),
    Vector(
        "RFC 9110 §8.6: a length beyond 64 bits", post(b"Content-Length: 18446744073709551616"), 413
    ),
    Vector(
        "RFC 9110 §8.6: a length that wraps to 5",
        post(b"Content-Length: 18446744073709551621"),
        413,
    ),
    Vector("RFC 9110 §8.6: a length of 5,000 digits", post(b"Content-Length: " + b"9" * 5000), 413),
    Vector("RFC 9110 §8.6: zeros without end", post(b"Content-Length: " + b"0" * 5000 + b"5"), 413),
    Vector("RFC 9110 §8.6: a length with GET", head(b"Content-Length: x")),
    Vector("RFC 9110 §8.6: a bad length in HTTP/1.0", head(b"Content-Length: +5", version=b"1.0")),
]

CODINGS = [
    Vector(
        "RFC 9112 §6.1: Transfer-Encoding in HTTP/1.0",
        head(b"Transfer-Encoding: chunked", version=b"1.0"),
    ),
    Vector(
        "RFC 9112 §6.1: both lengths in HTTP/1.0",
        head(b"Transfer-Encoding: chunked", b"Content-Length: 5", version=b"1.0"),
    ),
    Vector("RFC 9112 §6.1: chunked twice", post(b"Transfer-Encoding: chunked, chunked")),
    Vector(
        "RFC 9112 §6.1: chunked on two lines",
        post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
    ),
    Vector("RFC 9112 §6.1: gzip before chunked", post(b"Transfer-Encoding: gzip, chunked"), 501),
    Vector(
        "RFC 9112 §6.1: gzip on a line before",
        post(b"Transfer-Encoding: gzip", b"Transfer-Encoding: chunked"),
        501,
    ),
    Vector("RFC 9112 §6.1: an unknown coding", post(b"Transfer-Encoding: foo;q=1, chunked"), 501),
    Vector(
        "RFC 9112 §6.1: identity before chunked", post(b"Transfer-Encoding: identity, chunked"), 501
    ),
    Vector("RFC 9112 §6.1: an empty member", post(b"Transfer-Encoding: , chunked")),
    Vector("RFC 9112 §6.1: a member that is no token", post(b"Transfer-Encoding: g[]zip, chunked")),
    Vector(
        "RFC 9112 §6.1: identity on a line after",
        post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity"),
    ),
    *(
        Vector(f"RFC 9112 §6.3: a final coding of {value!r}", post(b"Transfer-Encoding: " + value))
        for value in (
            b"",
            b"xchunked",
            b"chunkedx",
            b"chunked, identity",
            b"chunked, gzip",
            b"gzip",
            b"identity",
            b"chunked;foo=bar",
            b"chunked;",
            b"chunked,",
            b"chunked ,",
            b'"chunked"',
            b"'chunked'",
            b"chu nked",
            b"chunke",
            b"x chunked",
            b"chunked x",
            b"[chunked]",
            b"chunked\xa0",
            b"\x85chunked",
            b"c\xc4\xb0hunked",
            b"chun\xe2\x84\xaaed",
            b"deflate",
            b"trailers",
            b"chunked/1",
            b"chunked=1",
            b"chunked, x=chunked",
        )
    ),
    Vector("RFC 9110 §10.1.1: an unknown expectation", post(b"Expect: 200-ok"), 417),
    Vector(
        "RFC 9110 §10.1.1: an expectation with a parameter", post(b"Expect: 100-continue;a=b"), 417
    ),
    Vector("RFC 9110 §10.1.1: two expectations", post(b"Expect: 100-continue, x"), 417),
]

CHUNKS = [
    *(
        Vector(
            f"RFC 9112 §7.1: a size of {size!r}", chunks(size + b"\r\nhello\r\n0\r\n\r\n"), body=b""
        )
        for size in (
            b"",
            b"0x5",
            b"0X5",
            b"+5",
            b"-5",
            b" 5",
            b"\t5",
            b"5 ",
            b"5\t",
            b"5_0",
            b"5h",
            b"g",
            b"5,",
            b"5.0",
            b"5 5",
            b'"5"',
            b"\xb5",
            b"5\x00",
            b"5\x0b",
            b"\x005",
            b"5 a",
            b"5;\x01",
            b"FFFFFFFFFFFFFFFFF",
            b"00000000000000005",
            b"10000000000000005",
        )
    ),
    *(
        Vector(
            f"RFC 9112 §7.1.1: an extension of {ext!r}",
            chunks(b"5" + ext + b"\r\nhello\r\n0\r\n\r\n"),
            body=b"",
        )
        for ext in (
            b";",
            b";;a",
            b";=",
            b";a=",
            b';a="',
            b';a="b',
            b';a="b"c',
            b";a b",
            b";a=b c",
            b";a,b",
            b";[a]",
            b";a=(b)",
            b';"a"',
            b";a=b=c",
            b';a="\\',
            b"a=b",
            b";a\x00",
            b";a=\x80",
            b";a=b ",
            b"; ",
        )
    ),
    Vector("RFC 9112 §7.1: LF alone after the size", chunks(b"5\nhello\r\n0\r\n\r\n"), body=b""),
    Vector("RFC 9112 §7.1: CR alone after the size", chunks(b"5\rhello\r\n0\r\n\r\n"), body=b""),
    Vector(
        "RFC 9112 §7.1: CR CR LF after the size", chunks(b"5\r\r\nhello\r\n0\r\n\r\n"), body=b""
    ),
    Vector(
        "RFC 9112 §7.1: LF inside an extension", chunks(b"5;a\nb\r\nhello\r\n0\r\n\r\n"), body=b""
    ),
    Vector(
        "RFC 9112 §7.1: CR inside an extension", chunks(b"5;a\rb\r\nhello\r\n0\r\n\r\n"), body=b""
    ),
    Vector(
        "RFC 9112 §7.1: LF inside a quoted extension", chunks(b'5;a="\n"\r\nhello\r\n'), body=b""
    ),
    Vector(
        "RFC 9112 §7.1: LF alone after the data", chunks(b"5\r\nhello\n0\r\n\r\n"), body=b"hello"
    ),
    Vector(
        "RFC 9112 §7.1: CR alone after the data", chunks(b"5\r\nhello\r0\r\n\r\n"), body=b"hello"
    ),
    Vector("RFC 9112 §7.1: nothing after the data", chunks(b"5\r\nhello0\r\n\r\n"), body=b"hello"),
    Vector(
        "RFC 9112 §7.1: other bytes after the data", chunks(b"5\r\nhelloXX0\r\n\r\n"), body=b"hello"
    ),
    Vector("RFC 9112 §7.1: one byte too many", chunks(b"5\r\nhello!\r\n0\r\n\r\n"), body=b"hello"),
    Vector("RFC 9112 §7.1: one byte too few", chunks(b"6\r\nhello\r\n0\r\n\r\n"), body=b"hello\r"),
    Vector(
        "RFC 9112 §7.1: an empty line between chunks",
        chunks(b"5\r\nhello\r\n\r\n0\r\n\r\n"),
        body=b"hello",
    ),
    Vector(
        "RFC 9112 §7.1: a space before the second size",
        chunks(b"5\r\nhello\r\n 0\r\n\r\n"),
        body=b"hello",
    ),
    Vector(
        "RFC 9112 §7.1: the last size is no number",
        chunks(b"5\r\nhello\r\n-0\r\n\r\n"),
        body=b"hello",
    ),
    Vector("RFC 9112 §7.1: LF alone after the last size", chunks(b"0\n\r\n"), body=b""),
    Vector("RFC 9112 §7.1: LF alone at the end", chunks(b"0\r\n\n"), body=b""),
    Vector("RFC 9112 §7.1: CR alone at the end", chunks(b"0\r\n\rX"), body=b""),
]

TRAILERS = [
    Vector("RFC 9112 §7.1.2: LF alone ends a trailer", chunks(b"0\r\nA: b\n\r\n"), body=b""),
    Vector("RFC 9112 §7.1.2: CR inside a trailer", chunks(b"0\r\nA: b\rc\r\n\r\n"), body=b""),
    Vector("RFC 9112 §7.1.2: NUL in a trailer", chunks(b"0\r\nA: b\x00\r\n\r\n"), body=b""),
    Vector("RFC 9112 §7.1.2: VT in a trailer", chunks(b"0\r\nA: b\x0bc\r\n\r\n"), body=b""),
    Vector("RFC 9112 §7.1.2: a trailer without colon", chunks(b"0\r\nA\r\n\r\n"), body=b""),
    Vector("RFC 9112 §7.1.2: a trailer without name", chunks(b"0\r\n: b\r\n\r\n"), body=b""),
    Vector("RFC 9112 §7.1.2: space before the colon", chunks(b"0\r\nA : b\r\n\r\n"), body=b""),
    Vector("RFC 9112 §7.1.2: a folded trailer", chunks(b"0\r\nA: b\r\n c\r\n\r\n"), body=b""),
    Vector(
        "RFC 9112 §7.1.2: a trailer name that is no token", chunks(b"0\r\nA(: b\r\n\r\n"), body=b""
    ),
    Vector(
        "RFC 9112 §7.1.2: a request for a trailer", chunks(b"0\r\nGET / HTTP/1.1\r\n\r\n"), body=b""
    ),
    Vector(
        "RFC 9110 §6.5.1: Content-Length as a trailer",
        chunks(b"0\r\nContent-Length: 5\r\n\r\n"),
        body=b"",
    ),
    Vector(
        "RFC 9110 §6.5.1: a coding as a trailer",
        chunks(b"0\r\nTransfer-Encoding: chunked\r\n\r\n"),
        body=b"",
    ),
    Vector(
        "RFC 9110 §6.5.1: both lengths as trailers",
        chunks(b"0\r\nTransfer-Encoding: x\r\nContent-Length: 5\r\n\r\n"),
        body=b"",
    ),
    Vector("RFC 9110 §6.5.1: Host as a trailer", chunks(b"0\r\nHost: evil\r\n\r\n"), body=b""),
    Vector(
        "RFC 9110 §6.5.1: Connection as a trailer",
        chunks(b"0\r\nConnection: close\r\n\r\n"),
        body=b"",
    ),
]

VECTORS = [
    *LINES,
    *REQUEST_LINES,
    *TARGETS,
    *NAMES,
    *VALUES,
    *HOSTS,
    *LENGTHS,
    *CODINGS,
    *CHUNKS,
    *TRAILERS,
]

GOOD = b"GET /first HTTP/1.1\r\n" + HOST + b"\r\n"


def outcome(engine: Http1Engine, pieces: list[bytes]) -> tuple[list[object], bytes, bytes]:
    """What comes of a request: its events but for the body, the body, and what is sent."""
    events: list[object] = []
    for piece in pieces:
        events += engine.receive(piece, 0.0)
    body = b"".join(event.data for event in events if isinstance(event, BodyReceived))
    rest = [event for event in events if not isinstance(event, BodyReceived)]
    return rest, body, engine.data_to_send()


def each_byte(raw: bytes) -> list[bytes]:
    return [raw[index : index + 1] for index in range(len(raw))]


def read_response(raw: bytes) -> tuple[h11.Response, bytes]:
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/", headers=[("host", "a")]))
    client.send(h11.EndOfMessage())
    client.receive_data(raw)
    response = client.next_event()
    assert isinstance(response, h11.Response)
    body = b""
    while isinstance(event := client.next_event(), h11.Data):
        body += event.data
    assert isinstance(event, h11.EndOfMessage)
    assert client.trailing_data == (b"", False)
    return response, body


def test_the_table_is_as_long_as_it_claims() -> None:
    assert len(VECTORS) >= 180
    assert len({vector.rule for vector in VECTORS}) == len(VECTORS)
    assert len({vector.raw for vector in VECTORS}) == len(VECTORS)


@pytest.mark.parametrize("vector", VECTORS, ids=str)
def test_refused(vector: Vector) -> None:
    whole = outcome(Http1Engine(now=0.0), [vector.raw])
    events, body, sent = whole

    failed = events.pop()
    assert isinstance(failed, RequestFailed)
    assert failed.status == vector.status
    if vector.body is None:
        assert events == []
    else:
        assert [type(event) for event in events] == [RequestReceived]
        assert body == vector.body

    response, text = read_response(sent)
    assert response.status_code == vector.status
    assert text.decode().strip() == failed.reason
    assert (b"connection", b"close") in response.headers

    engine = Http1Engine(now=0.0)
    again = outcome(engine, each_byte(vector.raw))
    assert again == ([*events, failed], body, sent)
    assert engine.state is State.CLOSED
    assert engine.must_close
    assert engine.receive(GOOD, 0.0) == []  # RFC 9112 §9.6: nothing that follows is read


@pytest.mark.parametrize("vector", VECTORS, ids=str)
@pytest.mark.parametrize("size", [3, 1 << 20], ids=["in pieces", "whole"])
def test_refused_on_a_connection_in_use(vector: Vector, size: int) -> None:
    engine = Http1Engine(now=0.0)
    stream = GOOD + vector.raw
    events: list[object] = []
    for start in range(0, len(stream), size):
        events += engine.receive(stream[start : start + size], 0.0)
        if RequestCompleted() in events and len(events) == 2 and engine.state is State.READ:
            engine.send_response(200)
            engine.send_body(b"first")
            events += engine.receive(b"", 0.0)
    failed = events[-1]
    assert isinstance(failed, RequestFailed)
    assert failed.status == vector.status
    first, _, second = engine.data_to_send().partition(b"first")
    assert first.startswith(b"HTTP/1.1 200 ")
    response, _ = read_response(second)
    assert response.status_code == vector.status


@pytest.mark.parametrize(
    "source", sorted(Path(protocols.__file__).parent.glob("*.py")), ids=lambda source: source.name
)
def test_no_group_is_repeated_possessively(source: Path) -> None:
    """Python before 3.11.5 takes half of what does not match (gh-106052)."""
    without_classes = re.sub(r"\[(?:\\.|[^\]\\])+\]", "x", source.read_text())
    assert not re.search(r"\)[*+?]\+", without_classes)
