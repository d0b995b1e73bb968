"""What hostile clients do, and what other servers let them.

Here are the rows that need a whole server and stand nowhere else. The requests that must be
refused are in ``tests/protocols``, as are bombs and senseless offers; slow and silent clients,
pipelines, logs and outgoing headers in ``test_http`` and ``test_websocket``; the signals in
``test_cli``.
"""

import asyncio
import resource
import zlib

import pytest

from headrace.protocols.http1 import Http1Limits
from headrace.server.config import Config
from headrace.server.http import Exchange
from headrace.server.limits import ClientLimits
from headrace.server.websocket import WebSocketStream

from .clients import (
    BINARY,
    TEXT,
    connected,
    connection_of,
    echo,
    frame,
    handshake,
    hello,
    serving,
    until,
)

MEGABYTE = 1024 * 1024
DEFLATE = "Sec-WebSocket-Extensions: permessage-deflate"


def peak_kilobytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def calls(monkeypatch, kind, name):
    """Return a list of the calls of this method, whichever connection's it is."""
    found, method = [], getattr(kind, name)

    def noted(self, *arguments):
        found.append(arguments)
        return method(self, *arguments)

    # The class itself may be a compiled one, which can't be changed.
    observed = type(kind.__name__, (kind,), {"__slots__": (), name: noted})
    monkeypatch.setattr(f"headrace.server.connection.{kind.__name__}", observed)
    return found


async def closed_with(client):
    code, _ = await client.read_close()
    return code


async def test_a_frame_that_announces_too_much_gets_1009_by_default_and_takes_no_memory():
    async with serving(echo) as server, connected(server) as client:
        await client.open_websocket()
        await client.send(b"\x82\xff" + (2**40).to_bytes(8, "big") + b"mask")
        assert await closed_with(client) == 1009


async def test_a_message_of_many_frames_gets_1009_by_default():
    limit = Config().websocket.message_bytes
    async with serving(echo) as server, connected(server) as client:
        await client.open_websocket()
        part = b"x" * 65536
        client.writer.write(frame(BINARY, part, fin=False))
        for _ in range(limit // len(part)):
            client.writer.write(frame(0, part, fin=False))
        assert await closed_with(client) == 1009


@pytest.mark.parametrize("payload", [b"", b"x"])
async def test_fragments_without_end_get_1009_by_default(payload):
    async with serving(echo) as server, connected(server) as client:
        await client.open_websocket()
        client.writer.write(frame(TEXT, payload, fin=False))
        client.writer.write(frame(0, payload, fin=False) * 50_000)
        assert await closed_with(client) == 1009


async def test_a_message_that_inflates_a_thousandfold_gets_1009_and_takes_no_memory():
    deflate = zlib.compressobj(9, wbits=-15)
    bomb = deflate.compress(b"\x00" * 64 * MEGABYTE) + deflate.flush(zlib.Z_SYNC_FLUSH)
    async with serving(echo) as server, connected(server) as client:
        await client.open_websocket("/", DEFLATE)
        before = peak_kilobytes()
        await client.send_frame(0x40 | BINARY, bomb[:-4])
        assert await closed_with(client) == 1009
        assert peak_kilobytes() - before < 16 * 1024


async def test_what_inflates_a_thousandfold_is_read_once_a_turn(monkeypatch):
    async def sink(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            if message.get("text"):
                await send({"type": "websocket.send", "text": "all"})

    turns = calls(monkeypatch, WebSocketStream, "_go_on")
    deflate = zlib.compressobj(9, wbits=-15)
    large = deflate.compress(bytes(MEGABYTE)) + deflate.flush(zlib.Z_FULL_FLUSH)
    async with serving(sink) as server, connected(server) as client:
        await client.open_websocket("/", DEFLATE)
        await client.send(frame(0x40 | BINARY, large[:-4]) * 40 + frame(TEXT, b"last"))
        assert await client.read_text() == "all"
    # Each asks for the next turn, and none of them twice: that would double with every one.
    assert 40 <= len(turns) <= 100


async def test_who_was_much_work_is_read_in_line_until_it_is_little(monkeypatch):
    aside = calls(monkeypatch, WebSocketStream, "_put_aside")
    deflate = zlib.compressobj(9, wbits=-15)
    large = deflate.compress(bytes(MEGABYTE // 2)) + deflate.flush(zlib.Z_FULL_FLUSH)
    bomb, small = frame(0x40 | BINARY, large[:-4]), frame(TEXT, b"x")
    # So few that what a bomb takes of them is more than a second, whatever holds the test up.
    limits = ClientLimits(messages_per_s=100)
    async with serving(echo, clients=limits) as server, connected(server) as client:
        await client.open_websocket("/", DEFLATE)

        async def say(message, *, waits):
            """Say it alone, and see whether it was read at once or had to wait."""
            aside.clear()
            await client.send(message)
            await client.read_frame()
            assert bool(aside) == waits

        # What a client that compresses sends may be much, and the first shows whether it is.
        await say(small, waits=True)
        await say(small, waits=False)
        await say(bomb, waits=False)
        await say(bomb, waits=True)
        await say(small, waits=True)
        stream = connection_of(server)
        stream._due = 0.0  # as in a second
        await say(small, waits=True)
        await say(small, waits=False)
        assert server.counters.messages_received == 7


async def test_tiny_chunks_are_read_once_a_turn(monkeypatch):
    turns = calls(monkeypatch, Exchange, "_go_on")
    body = b"1\r\nx\r\n" * 100_000 + b"0\r\n\r\n"
    async with serving(echo) as server, connected(server) as client:
        head = b"POST / HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n"
        response = await client.request(head + body)
        assert response.body == b"x" * 100_000
    # A read of thousands is taken in several turns, and none is asked for twice.
    assert 400 <= len(turns) <= 1200


@pytest.mark.parametrize(
    "header",
    [
        "Sec-WebSocket-Protocol: \u00ff\u00fe",
        "Sec-WebSocket-Protocol: a b",
        "X-Odd: \x0b",
        "X-Odd: \x0c",
        "X-Odd: \x1c",
        "X-Odd: \x1f",
        "X-Odd: a\rb",
        "X-Odd: \x00",
        "X-\u00ff: odd",
    ],
)
async def test_bad_bytes_in_a_header_get_400_and_kill_nothing(header):
    async with serving(echo) as server:
        async with connected(server) as client:
            response = await client.request(handshake("/", header))
            assert response.status == 400
        async with connected(server) as client:
            assert (await client.get()).status == 200


async def test_a_next_line_character_ends_no_header_line():
    headers = []

    async def app(scope, receive, send):
        headers.extend(scope["headers"])
        await hello(scope, receive, send)

    async with serving(app) as server, connected(server) as client:
        # 0x85 is a line's end to str.splitlines(), and nothing to HTTP.
        await client.request(b"GET / HTTP/1.1\r\nHost: here\r\nX-A: a\x85X-B: b\r\n\r\n")
    assert headers == [(b"host", b"here"), (b"x-a", b"a\x85X-B: b")]


@pytest.mark.parametrize(
    "offer",
    [
        "permessage-deflate; server_max_window_bits=7",
        "permessage-deflate; server_max_window_bits=16",
        "permessage-deflate; client_max_window_bits=0",
        "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
        "permessage-deflate; unknown",
        "x-unknown; a=b",
    ],
)
async def test_a_senseless_offer_is_declined_and_the_connection_works(offer):
    async with serving(echo) as server, connected(server) as client:
        response = await client.open_websocket("/", f"Sec-WebSocket-Extensions: {offer}")
        assert not response.all(b"sec-websocket-extensions")
        await client.send_text("hello")
        assert await client.read_text() == "hello"


async def test_a_handshake_that_trickles_is_given_up():
    async def trickle(client):
        for byte in handshake():
            await client.send(bytes([byte]))
            await asyncio.sleep(0.02)

    limits = Http1Limits(head_s=0.3)
    async with serving(echo, http=limits) as server, connected(server) as client:
        sender = asyncio.create_task(trickle(client))
        assert (await client.read_response()).status == 408
        sender.cancel()
        await asyncio.wait([sender])


async def test_memory_is_given_back_after_a_client_that_never_read():
    async def flood(scope, receive, send):
        await send({"type": "http.response.start", "status": 200})
        while True:
            await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})

    async with serving(flood) as server, connected(server, receive_buffer=65536) as client:
        client.writer.transport.pause_reading()
        await client.send(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
        await until(lambda: server.counters.requests)
        connection = connection_of(server)
        await until(lambda: connection._outbox.paused)
        client.reset()
        await until(lambda: not server._runtime.connections)
        assert connection._outbox.empty
        assert connection._exchange is None


async def test_many_connections_that_say_nothing_leave_room_for_others():
    async with serving(hello) as server:
        silent = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(200)]
        async with connected(server) as client:
            assert (await client.get()).status == 200
        for _, writer in silent:
            writer.close()
