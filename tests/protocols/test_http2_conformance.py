"""The cases of RFC 9113, RFC 7541 and RFC 8441, put to the bare engine: no server, no socket.

The cases, and what must come of each, are those of ``tests/server/test_http2_conformance.py``.
"""

import asyncio

import pytest

from headrace.protocols.http2 import (
    LINGER_S,
    DataReceived,
    Http2Engine,
    Http2Limits,
    StreamEnded,
    StreamOpened,
)

from ..server.h2_client import RST_STREAM, H2Client
from ..server.test_http2_conformance import CASES, STREAMS


class Wire:
    """Takes what a client sends, and lets the smallest of applications answer."""

    def __init__(self):
        self.engine = Http2Engine(Http2Limits(streams=STREAMS), now=0.0)
        self.reader = asyncio.StreamReader()
        self.requests = {}
        self.now = 0.0
        self.flush()

    async def send(self, data):
        events = self.engine.receive(data, self.now)
        self.handle(events)
        while self.engine.has_unread:
            self.handle(self.engine.receive(b"", self.now))
        self.flush()

    def linger(self):
        """Let the time pass in which an engine waits for the rest of what it has answered."""
        self.now += LINGER_S
        self.handle(self.engine.timeout(self.now))
        self.flush()

    def flush(self):
        if isinstance(self.engine, Ended):
            return
        while True:
            self.engine.pump(1 << 20, self.now)
            self.reader.feed_data(self.engine.data_to_send())
            if not self.engine.can_send:
                break
        if self.engine.closed:
            self.reader.feed_eof()
            self.engine = Ended()

    def handle(self, events):
        for event in events:
            match event:
                case StreamOpened(stream, request, protocol):
                    self.open(stream, request, protocol)
                case DataReceived():
                    path, body = self.requests.get(event.stream.id, ("", bytearray()))
                    body += event.data
                    if path != "/deaf":
                        self.engine.consumed(event.stream, len(event.data))
                case StreamEnded(stream) if not stream.is_tunnel:
                    path, body = self.requests.get(stream.id, ("/wait", b""))
                    if path not in ("/wait", "/deaf"):
                        answer(stream, 200, bytes(body) or b"hello")

    def open(self, stream, request, protocol):
        if stream.closed:
            return
        if protocol == b"websocket":
            stream.accept([])
        elif protocol is not None:
            stream.refuse(501, "what is that?")
        elif request.path == "/empty":
            answer(stream, 204)
        elif request.path == "/headers":
            answer(stream, 200, b"\n".join(b"%b: %b" % pair for pair in request.headers))
        else:
            self.requests[stream.id] = request.path, bytearray()


class Ended:
    """An engine that is done: what comes is not read."""

    has_unread = False

    def receive(self, data, now):
        return []

    def pump(self, room, now):
        return []

    def timeout(self, now):
        return []


class Client(H2Client):
    """One that waits long enough for what an engine puts off."""

    async def until(self, *kinds, **options):
        if kinds == (RST_STREAM,):
            await self.flush()
            self.client.linger()
        return await super().until(*kinds, **options)


def answer(stream, status, body=b""):
    stream.send_response(status)
    stream.send_body(body)


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_conformance(case):
    wire = Wire()
    client = Client(wire)
    if case.started:
        await client.start(*case.settings)
    if case.answered:
        client.get(1)
        assert (await client.answer(1)).status == 200
    case.say(client)
    await case.expect(client)
