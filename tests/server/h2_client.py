"""An HTTP/2 client made of raw frames: it says whatever it is told to, right or wrong.

The framing is its own; only the compression of well-formed headers is hpack's.
"""

import asyncio
import contextlib
from typing import NamedTuple

import hpack

from .clients import TIMEOUT_S, connected

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS = 0, 1, 2, 3, 4
PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 5, 6, 7, 8, 9
END_STREAM = ACK = 0x1
END_HEADERS, PADDED, HAS_PRIORITY = 0x4, 0x8, 0x20

NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR = 0, 1, 2, 3
SETTINGS_TIMEOUT, STREAM_CLOSED, FRAME_SIZE_ERROR, REFUSED_STREAM = 4, 5, 6, 7
CANCEL, COMPRESSION_ERROR, ENHANCE_YOUR_CALM = 8, 9, 11

HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS = 1, 2, 3
INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, ENABLE_CONNECT_PROTOCOL = 4, 5, 8


class Frame(NamedTuple):
    kind: int
    flags: int
    stream: int
    payload: bytes
    #: Of HEADERS.
    fields: tuple[tuple[bytes, bytes], ...] = ()

    @property
    def code(self):
        """The error code of a RST_STREAM or a GOAWAY."""
        at = 4 if self.kind == GOAWAY else 0
        return int.from_bytes(self.payload[at : at + 4], "big")

    @property
    def settings(self):
        return {
            int.from_bytes(self.payload[at : at + 2], "big"): int.from_bytes(
                self.payload[at + 2 : at + 6], "big"
            )
            for at in range(0, len(self.payload), 6)
        }


class Answer(NamedTuple):
    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes
    trailers: list[tuple[bytes, bytes]]

    def __getitem__(self, name):
        if isinstance(name, int):
            return tuple(self)[name]
        [value] = [value for key, value in self.headers if key == name]
        return value


def frame(kind, flags, stream, payload=b"", *, length=None):
    length = len(payload) if length is None else length
    return length.to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def setting(code, value):
    return code.to_bytes(2, "big") + value.to_bytes(4, "big")


def request(method="GET", path="/", *extra, scheme="http", authority="here", **changes):
    """The fields of a request; a pseudo-header is left out where it is None."""
    pseudo = {"method": method, "scheme": scheme, "authority": authority, "path": path} | changes
    fields = [(f":{name}", value) for name, value in pseudo.items() if value is not None]
    return [*fields, *extra]


def websocket(path="/", *extra):
    """The fields of a WebSocket's handshake (RFC 8441 §5)."""
    version = ("sec-websocket-version", "13")
    return request("CONNECT", path, version, *extra, protocol="websocket")


class H2Client:
    """A connection; what is said is collected, and sent by ``flush`` or the next wait."""

    def __init__(self, client):
        self.client = client
        self.encoder = hpack.Encoder()
        self.decoder = hpack.Decoder()
        self.out = bytearray()
        #: What the server has set, and every frame that was read.
        self.settings = {}
        self.seen = []
        #: Whether windows are given back as data comes.
        self.acknowledges = True
        #: Whether the server's settings are acknowledged.
        self.confirms = True

    # What is said

    def raw(self, data):
        self.out += data
        return self

    def frame(self, kind, flags, stream, payload=b"", **options):
        return self.raw(frame(kind, flags, stream, payload, **options))

    def preface(self, *settings):
        return self.raw(PREFACE).frame(SETTINGS, 0, 0, b"".join(settings))

    def block(self, fields):
        return self.encoder.encode(fields, huffman=True)

    def headers(self, stream, fields=None, *, ends=True, flags=END_HEADERS):
        block = self.block(request() if fields is None else fields)
        return self.frame(HEADERS, flags | (END_STREAM if ends else 0), stream, block)

    def get(self, stream=1, path="/", *extra):
        return self.headers(stream, request("GET", path, *extra))

    def post(self, stream=1, path="/", *extra):
        return self.headers(stream, request("POST", path, *extra), ends=False)

    def data(self, stream, data=b"", *, ends=False, flags=0):
        return self.frame(DATA, flags | (END_STREAM if ends else 0), stream, data)

    def reset(self, stream, code=CANCEL):
        return self.frame(RST_STREAM, 0, stream, code.to_bytes(4, "big"))

    def window(self, stream, increment):
        return self.frame(WINDOW_UPDATE, 0, stream, increment.to_bytes(4, "big"))

    def set(self, code, value):
        return self.frame(SETTINGS, 0, 0, setting(code, value))

    def goaway(self, last=0, code=0, *, stream=0):
        payload = last.to_bytes(4, "big") + code.to_bytes(4, "big")
        return self.frame(GOAWAY, 0, stream, payload)

    async def flush(self):
        data, self.out = bytes(self.out), bytearray()
        if data:
            with contextlib.suppress(ConnectionError):
                await self.client.send(data)

    # What is heard

    async def read(self):
        """The next frame; None at the end of the connection."""
        await self.flush()
        try:
            async with asyncio.timeout(TIMEOUT_S):
                head = await self.client.reader.readexactly(9)
                payload = await self.client.reader.readexactly(int.from_bytes(head[:3], "big"))
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        fields = ()
        if head[3] == HEADERS:
            assert head[4] & END_HEADERS
            # Each, whoever waits for it: the next is read by what this one leaves in the table.
            fields = tuple(tuple(field) for field in self.decoder.decode(payload, raw=True))
        heard = Frame(head[3], head[4], int.from_bytes(head[5:9], "big"), payload, fields)
        self.seen.append(heard)
        if heard.kind == SETTINGS and not heard.flags & ACK:
            self.settings |= heard.settings
            if self.confirms:
                self.frame(SETTINGS, ACK, 0)
        elif heard.kind == DATA and heard.payload and self.acknowledges:
            self.window(0, len(payload)).window(heard.stream, len(payload))
        return heard

    async def until(self, *kinds, stream=None):
        """The next frame of one of these kinds."""
        while (heard := await self.read()) is not None:
            if heard.kind in kinds and stream in (None, heard.stream):
                return heard
        raise AssertionError(f"the connection ended without {kinds}: {self.seen}")

    async def start(self, *settings):
        self.preface(*settings)
        heard = await self.read()
        assert heard is not None
        assert heard.kind == SETTINGS
        assert not heard.flags & ACK
        await self.until(SETTINGS)
        return self

    async def answer(self, stream=1):
        """The whole response on a stream, those before it (1xx) left out."""
        status, headers, body, trailers = 0, [], b"", []
        while True:
            heard = await self.until(HEADERS, DATA, RST_STREAM, GOAWAY)
            if heard.kind == GOAWAY:
                assert heard.code == NO_ERROR, heard
                continue
            if heard.stream != stream:
                continue
            if heard.kind == HEADERS:
                if heard.fields[0][0] == b":status":
                    status, headers = int(heard.fields[0][1]), list(heard.fields[1:])
                else:
                    trailers = list(heard.fields)
            elif heard.kind == DATA:
                body += heard.payload
            else:
                raise AssertionError(f"stream {stream} was reset: {heard.code}")
            if heard.flags & END_STREAM:
                return Answer(status, headers, body, trailers)

    async def alive(self):
        """Whatever has been said so far, a ping is answered."""
        self.frame(PING, 0, 0, b"are you?")
        while True:
            heard = await self.until(PING, GOAWAY)
            assert heard.kind == PING, heard
            if heard.flags & ACK and heard.payload == b"are you?":
                return


@contextlib.asynccontextmanager
async def h2(server, *settings, started=True, **options):
    """A connection to a server that speaks HTTP/2."""
    async with connected(server, **options) as client:
        speaker = H2Client(client)
        if started:
            await speaker.start(*settings)
        yield speaker
