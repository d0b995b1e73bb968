"""Where the fuzzer begins: a few good and bad examples for each target, and words of its language.

The corpus in ``fuzz/corpus`` is what coverage has made of them.
"""

from headrace.codecs import encode_event
from headrace.layers.local.wire import greeting, prefixed
from headrace.server.control import encode

from .targets import PLAIN, SEALED, deflate

__all__ = ["SEEDS", "WORDS"]

GET = b"GET /a%20b?c=d HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
BODY = b"5;a=b\r\nhello\r\n1\r\n!\r\n0\r\nX: y\r\n\r\n"
MASK = b"\x00\x00\x00\x00"
TEXT = b"\x81\x85" + MASK + b"hello"
CLOSE = b"\x88\x82" + MASK + b"\x03\xe8"
PING = b"\x89\x81" + MASK + b"p"
FRAGMENTS = b"\x01\x82" + MASK + b"\xc3\xa4" + b"\x80\x81" + MASK + b"!"
[_DEFLATE] = deflate()
_HELLO = _DEFLATE.encode(b"hello hello hello") or b""
COMPRESSED = bytes([0xC1, 0x80 | len(_HELLO)]) + MASK + _HELLO
V1 = b"PROXY TCP4 192.0.2.1 192.0.2.2 1000 443\r\n"
V2 = b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x01\xc0\x00\x02\x02\x10\x00\x01\xbb"
EVENT = {"type": "chat.message", "text": "ä", "n": [1, -1, 2**70, 1.5, None, True, b"\x00"]}


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """A frame of HTTP/2."""
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload


FIELDS = b"\x82\x86\x41\x01a\x84"
POSTED = b"\x83\x86\x41\x01a\x84\x0f\x0d\x015"
HTTP2 = [
    frame(1, 5, 1, FIELDS) + frame(1, 5, 3, FIELDS + b"\x40\x01x\x01y") + frame(1, 5, 5, FIELDS),
    frame(1, 4, 1, POSTED) + frame(0, 1, 1, b"hello"),
    frame(1, 4, 1, POSTED) + frame(0, 0, 1, b"he") + frame(1, 5, 1, b"\x00\x01x\x01y"),
    frame(1, 1, 1, FIELDS[:2]) + frame(9, 4, 1, FIELDS[2:]) + frame(3, 0, 1, b"\0\0\0\x08"),
    frame(4, 0, 0, b"\0\x04\0\0\0\0") + frame(4, 1, 0) + frame(6, 0, 0, b"12345678"),
    frame(8, 0, 0, b"\0\0\0\x01") + frame(2, 0, 1, b"\0\0\0\0\x10") + frame(7, 0, 0, bytes(8)),
    frame(1, 4, 1, b"\x02\x07CONNECT\x87\x41\x01a\x84\x00\x09:protocol\x09websocket"),
]

SEEDS: dict[str, list[bytes]] = {
    "http1": [GET, POST, CHUNKED + BODY, GET * 3, POST + GET, b"OPTIONS * HTTP/1.0\r\n\r\n"],
    "http1_chunks": [BODY, b"0\r\n\r\n", b"a\r\n0123456789\r\n0\r\n\r\n"],
    "http1_smuggled": [GET + POST + GET, CHUNKED + BODY + GET, POST + b"\r\n" + GET],
    "http2": HTTP2,
    "frames": [b"\x20\x00" + TEXT + TEXT, b"\x20\x00\x82\xfe\x00\x7e" + MASK + bytes(126)],
    "websocket": [TEXT + PING + FRAGMENTS + CLOSE, b"\x82\xff" + bytes(7) + b"\x05" + MASK],
    "websocket_deflate": [COMPRESSED, COMPRESSED + TEXT + CLOSE],
    "inflate": [b"\x40" + _HELLO, b"\x05" + _HELLO, b"\x40\x00"],
    "extension_header": [
        b"permessage-deflate; client_max_window_bits; server_max_window_bits=10",
        b'permessage-deflate; server_no_context_takeover, x-a; b="c\\"d"',
    ],
    "handshake": [
        b"sec-websocket-protocol: chat, v2\nsec-websocket-extensions: permessage-deflate",
        b"!upgrade: websocket\nconnection: keep-alive, Upgrade\nhost: a",
    ],
    "proxy_protocol": [V1, V2, b"PROXY UNKNOWN\r\n", V1 + GET, V2[:12] + b"\x20\x00\x00\x00"],
    "forwarded": [b"203.0.113.1, 10.0.0.1\n443\nhttps", b"[2001:db8::1]:80\n\nhttp, https"],
    "endpoint": [b"tcp:8000:interface=0.0.0.0", b"unix:/run/a.sock:mode=660", b"fd:fileno=3"],
    "local_wire": [
        greeting("0123456789abcdef", "0123456789abcdef") + prefixed(b"hello") + prefixed(b"")
    ],
    "envelopes": [
        PLAIN.put(1, 7, b"frame"),
        SEALED.put(1, 7, b"frame")[:9],
        PLAIN.put_item("a", b"data"),
    ],
    "event": [encode_event(EVENT), encode_event([{}, [], ""])],
    "json": [b'{"a": [1, -2.5e3, "\\u00e4\\ud83d\\ude00", null, true]}', b"[[[[]]]]", b'"\xff"'],
    "control": [encode({"id": 1, "do": "snapshot"}) * 2],
}

WORDS: dict[str, list[bytes]] = {
    "http1": [
        b"GET ", b"POST ", b"HEAD ", b"CONNECT ", b" HTTP/1.1\r\n", b" HTTP/1.0\r\n",
        b"Host: ", b"\r\n\r\n", b"\r\n", b"\n", b"Content-Length: ", b"Transfer-Encoding: ",
        b"chunked", b"gzip, ", b"Connection: ", b"close", b"keep-alive", b"upgrade",
        b"Upgrade: websocket", b"Expect: 100-continue", b"http://a/", b"\t", b"\x00", b"%",
    ],
    "http1_chunks": [b"\r\n", b"0\r\n", b";a=b", b';a="b"', b"X: y\r\n", b"\n", b"0x", b"+"],
    "extension_header": [
        b"permessage-deflate", b"; ", b", ", b"=", b'"', b"\\", b"client_max_window_bits",
        b"server_max_window_bits", b"server_no_context_takeover", b"client_no_context_takeover",
    ],
    "handshake": [
        b"sec-websocket-protocol: ", b"sec-websocket-extensions: ", b"sec-websocket-key: ",
        b"sec-websocket-version: ", b"connection: ", b"upgrade: ", b"host: ", b"websocket",
        b"permessage-deflate", b"\n", b", ", b"\r", b"\x85",
    ],
    "proxy_protocol": [b"PROXY ", b"TCP4 ", b"TCP6 ", b"UNKNOWN", b"\r\n", V2[:12], b"::1 "],
    "forwarded": [b"unknown", b"\n", b", ", b"[::1]", b"::ffff:10.0.0.1", b"https", b"%eth0"],
    "endpoint": [b"tcp:", b"tcp6:", b"unix:", b"fd:", b"systemd:", b"ssl:", b"haproxy:",
                 b"interface=", b"mode=", b"fileno=", b"index=", b"\\:", b"domain="],
}  # fmt: skip
WORDS["http1_smuggled"] = [*WORDS["http1"], *WORDS["http1_chunks"]]
