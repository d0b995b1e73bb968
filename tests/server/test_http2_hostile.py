"""HTTP/2 under attack: every published lesson is a test, with its counter and what is left behind.

CVE-2023-44487 rapid reset; CVE-2025-8671 resets that the server is made to send; CVE-2024-27316
CONTINUATION; CVE-2019-9512 and -9515 PING and SETTINGS; CVE-2019-9513 PRIORITY; CVE-2019-9518
empty frames; CVE-2019-9511 and -9517, CVE-2026-49975 windows that stay shut (see ``test_http2``);
CVE-2016-6581 HPACK bombs; CVE-2026-21714 what a GOAWAY leaves behind; CVE-2025-57804 CR, LF and
NUL, hosts and lengths (see ``test_http2_conformance``, 8.1.1 to 8.3.1).
"""

import asyncio
import gc
import logging
import weakref

import pytest

from headrace.protocols._http2_limits import Http2Limits
from headrace.server import http2 as module
from headrace.server.turn import Turn

from .clients import Crowded, connected, echo, hello, respond, runtime_of, serving, until
from .h2_client import (
    CANCEL,
    CONTINUATION,
    DATA,
    ENHANCE_YOUR_CALM,
    GOAWAY,
    HEADERS,
    PRIORITY,
    REFUSED_STREAM,
    RST_STREAM,
    SETTINGS,
    h2,
    request,
)
from .h2_client import PING as H2_PING


async def calmed(server, client, limit):
    """The connection ends with ENHANCE_YOUR_CALM, is counted, and leaves nothing behind."""
    while (heard := await client.until(GOAWAY)).code == 0:
        pass  # it said goodbye itself
    assert heard.code == ENHANCE_YOUR_CALM, heard
    while await client.read() is not None:
        pass
    assert server.counters.refusals[f"http2_{limit}"].value == 1
    await until(lambda: not runtime_of(server).tasks)


async def waits(scope, receive, send):
    """Works on a request for as long as somebody waits for it, and some time longer."""
    running.append(scope["path"])
    try:
        while (await receive())["type"] != "http.disconnect":
            pass
        await asyncio.sleep(60)
    finally:
        running.remove(scope["path"])


running = []


async def test_rapid_reset(caplog):
    caplog.set_level(logging.INFO, "headrace.server")
    limits = Http2Limits(streams=10, resets=50)
    most = 0
    async with serving(waits, http2_limits=limits) as server, h2(server) as client:
        for stream in range(1, 4000, 2):
            client.get(stream).reset(stream)
            if stream % 40 == 1:
                await client.flush()
                await asyncio.sleep(0)
                most = max(most, len(running))
        await calmed(server, client, "resets")
        # Who resets requests gets no more of them run than who does not.
        assert most <= 2 * 10
        assert not running
    assert "too many streams were reset or refused" in caplog.text
    assert "--http2-resets" in caplog.text


async def test_resets_at_a_human_pace_are_fine():
    limits = Http2Limits(resets=5)
    async with serving(hello, http2_limits=limits) as server, h2(server) as client:
        for stream in range(1, 11, 2):
            client.post(stream).reset(stream)
        await client.alive()
        assert not server.counters.refusals.value


@pytest.mark.parametrize(
    "mistake",
    [
        lambda c, s: c.post(s).window(s, 0),
        lambda c, s: c.post(s).frame(PRIORITY, 0, s, bytes(4)),
        lambda c, s: c.get(s, "/wait").data(s, b"x"),
        lambda c, s: c.post(s, "/", ("connection", "close")),
        lambda c, s: c.post(s, "/", ("content-length", "1")).data(s, b"12"),
        lambda c, s: c.post(s).window(s, 2**31 - 1),
        lambda c, s: c.get(s, "relative"),
    ],
)
async def test_resets_that_the_server_is_made_to_send(mistake):
    limits = Http2Limits(streams=10, resets=50)
    async with serving(waits, http2_limits=limits) as server, h2(server) as client:
        for stream in range(1, 200, 2):
            mistake(client, stream)
        await calmed(server, client, "resets")
        assert not running


async def test_streams_beyond_the_limit_count():
    limits = Http2Limits(streams=2, resets=20)
    async with serving(waits, http2_limits=limits) as server, h2(server) as client:
        for stream in range(1, 7, 2):
            client.get(stream)
        heard = await client.until(RST_STREAM)
        assert (heard.stream, heard.code) == (5, REFUSED_STREAM)
        for stream in range(7, 60, 2):
            client.get(stream)
        await calmed(server, client, "resets")


async def test_what_goes_on_after_a_reset_takes_a_place():
    limits = Http2Limits(streams=3)
    async with (
        serving(waits, http2_limits=limits, application_close_timeout_s=0) as server,
        h2(server) as client,
    ):
        for stream in (1, 3, 5):
            client.get(stream)
        await client.alive()
        for stream in (1, 3, 5):
            client.reset(stream)
        for stream in (7, 9, 11):
            client.get(stream)
        await client.alive()
        assert len(running) == 6
        client.reset(7).get(13)
        heard = await client.until(RST_STREAM)
        assert (heard.stream, heard.code) == (13, REFUSED_STREAM)
        for task in list(runtime_of(server).tasks):
            task.cancel()


@pytest.mark.parametrize("payload", [b"", b"\0\1a\1b" * 10])
async def test_a_continuation_flood(payload):
    async with serving(hello) as server, h2(server) as client:
        client.frame(HEADERS, 0, 1, b"\x82")
        for _ in range(1000):
            client.frame(CONTINUATION, 0, 1, payload)
        await calmed(server, client, "continuations")


async def test_continuations_larger_than_all_headers():
    limits = Http2Limits(continuations=1000)
    async with serving(hello, http2_limits=limits) as server, h2(server) as client:
        client.frame(HEADERS, 0, 1, b"\x82")
        for _ in range(10):
            client.frame(CONTINUATION, 0, 1, bytes(16_000))
        await calmed(server, client, "header_bytes")


@pytest.mark.parametrize(
    ("bytes_", "limit"), [(50, "header_bytes"), (401, "header_count"), (16_000, "header_count")]
)
async def test_a_bomb_of_headers(bytes_, limit):
    # One large field in the table, and a byte for each time that it is meant again.
    async with serving(hello) as server, h2(server) as client:
        client.get(1, "/", ("x-large", "y" * 3000))
        await client.answer()
        client.frame(HEADERS, 5, 3, client.block(request()) + b"\xbe" * bytes_)
        await calmed(server, client, limit)


async def test_more_headers_than_are_allowed_are_answered():
    async with serving(hello) as server, h2(server) as client:
        client.get(1, "/", ("x", "y"))
        await client.answer()
        client.frame(HEADERS, 5, 3, client.block(request()) + b"\xbe" * 101)
        assert (await client.answer(3)).status == 431
        await client.alive()


async def test_a_table_of_headers_stays_small():
    async with serving(hello) as server, h2(server) as client:
        # It says that it would keep four gigabytes of ours.
        client.set(1, 2**32 - 1)
        await client.alive()
        [connection] = runtime_of(server).connections
        assert connection.engine._h2.encoder.header_table_size == 4096
        for at, stream in enumerate(range(1, 200, 2)):
            await client.get(stream, "/", (f"x-{at}", "y" * 200)).answer(stream)
        table = connection.engine._h2.decoder.header_table
        assert sum(len(name) + len(value) + 32 for name, value in table.dynamic_entries) <= 4096


async def test_settings_that_nobody_knows_are_not_kept():
    async with serving(hello) as server, h2(server) as client:
        for code in range(0x1000, 0x1000 + 600, 60):
            payload = b"".join((code + at).to_bytes(2, "big") + bytes(4) for at in range(60))
            client.frame(SETTINGS, 0, 0, payload)
        await client.alive()
        [connection] = runtime_of(server).connections
        assert len(connection.engine._h2.remote_settings) < 10


async def test_a_memory_of_ended_streams_is_short():
    async with serving(hello) as server, h2(server) as client:
        for stream in range(1, 1401, 2):
            await client.get(stream).answer(stream)
        [connection] = runtime_of(server).connections
        assert len(connection.engine._ended) <= 256
        assert len(connection.engine._h2._closed_streams) <= 256
        assert len(connection.engine._h2.streams) <= 2
        assert not connection._carried


@pytest.mark.parametrize(
    ("say", "limit"),
    [
        (lambda c: c.frame(SETTINGS, 0, 0), "settings_frames"),
        (lambda c: c.frame(SETTINGS, 1, 0), "pings"),
        (lambda c: c.frame(H2_PING, 0, 0, bytes(8)), "pings"),
        (lambda c: c.frame(H2_PING, 1, 0, bytes(8)), "pings"),
        (lambda c: c.goaway(), "pings"),
        (lambda c: c.frame(PRIORITY, 0, 99, b"\0\0\0\7\7"), "priorities"),
        (lambda c: c.frame(0xFA, 0, 0, b"?"), "priorities"),
        (lambda c: c.window(0, 1), "window_updates"),
        (lambda c: c.window(1, 1), "window_updates"),
        (lambda c: c.data(1), "empty_frames"),
        (lambda c: c.frame(DATA, 8, 1, b"\2\0\0"), "empty_frames"),
    ],
)
async def test_a_flood(say, limit):
    async with serving(waits) as server, h2(server) as client:
        client.post(1)
        for _ in range(2000):
            say(client)
        await calmed(server, client, limit)
        assert not running


async def test_one_settings_frame_with_too_many():
    async with serving(hello) as server, h2(server) as client:
        client.frame(SETTINGS, 0, 0, (b"\0\3" + bytes(4)) * 500)
        await calmed(server, client, "settings_frames")


async def test_windows_may_open_as_fast_as_data_goes():
    async def application(scope, receive, send):
        await respond(send, bytes(400_000))

    limits = Http2Limits(window_updates=20)
    async with (
        serving(application, http2_limits=limits) as server,
        h2(server) as client,
    ):
        assert len((await client.get().answer()).body) == 400_000
        await client.alive()


async def test_a_flood_keeps_nobody_else_waiting():
    async with serving(echo) as server, h2(server) as enemy, h2(server) as other:
        enemy.post(1)
        for _ in range(20_000):
            enemy.data(1, b"x")
        await enemy.flush()
        await other.get().answer()
        # It was answered between the frames of the flood, of which a turn takes so many.
        [flooded] = [c for c in runtime_of(server).connections if c.engine.streams]
        assert flooded.engine.has_unread
        enemy.data(1, ends=True)
        assert len((await enemy.answer()).body) == 20_000


async def test_where_many_begin_at_once_all_is_read_in_line(monkeypatch):
    monkeypatch.setattr("headrace.server.server.Turn", Crowded)
    seen = []

    def go_on(connection, before=module.Http2Connection.go_on):
        seen.append(connection)
        before(connection)

    monkeypatch.setattr(module.Http2Connection, "go_on", go_on)
    async with serving(hello) as server, h2(server) as client:
        for stream in (1, 3):
            before = len(seen)
            await client.get(stream).answer(stream)
            assert len(seen) > before


async def test_a_connection_that_begins_where_many_do_is_read_when_they_are_through(monkeypatch):
    class FullAtFirst(Turn):
        asked = 0

        def has_time(self):
            self.asked += 1
            return self.asked > 1

    monkeypatch.setattr("headrace.server.server.Turn", FullAtFirst)
    async with serving(hello) as server, h2(server) as client:
        for stream in (1, 3):
            assert (await client.get(stream).answer(stream)).status == 200


async def test_a_block_that_costs_much_is_read_in_line():
    async with serving(hello) as server, h2(server) as client:
        [connection] = runtime_of(server).connections
        await client.alive()
        client.frame(HEADERS, 5, 1, client.block(request()) + b"\x00\x01a\x01b" * 390)
        data, client.out = bytes(client.out), bytearray()
        connection.data_received(data)
        assert connection.engine.has_unread
        assert connection._reading_paused
        assert (await client.answer()).status == 431
        assert not connection._reading_paused


async def test_a_flood_behind_the_end_is_read_a_piece_each_turn():
    pieces = []

    class Seen(module.Http2Connection):
        __slots__ = ()

        def data_received(self, data):
            super().data_received(data)
            if self.engine.closed:
                pieces.append(self._reading_paused)

    async with serving(hello) as server:
        module.Http2Connection, before = Seen, module.Http2Connection
        try:
            async with h2(server) as client:
                for _ in range(500):
                    client.frame(H2_PING, 0, 0, bytes(8))
                await calmed(server, client, "pings")
                client.raw(bytes(3_000_000))
                await client.flush()
                await until(lambda: len(pieces) > 2)
        finally:
            module.Http2Connection = before
        # After each of them the others have their turn.
        assert all(pieces)


async def test_a_connection_that_is_calmed_is_freed():
    seen = []
    original = module.Http2Connection.__init__

    class Seen(module.Http2Connection):
        __slots__ = ("__weakref__",)

        def __init__(self, *arguments, **options):
            original(self, *arguments, **options)
            seen.append(weakref.ref(self))

    async with serving(waits) as server:
        module.Http2Connection, before = Seen, module.Http2Connection
        try:
            async with h2(server) as client:
                for stream in range(1, 41, 2):
                    client.get(stream)
                for _ in range(500):
                    client.frame(H2_PING, 0, 0, bytes(8))
                await calmed(server, client, "pings")
        finally:
            module.Http2Connection = before
        await until(lambda: not runtime_of(server).connections)
        assert len(seen) == 1
        # Within its linger, and the collector's next round.
        async with asyncio.timeout(5):
            while seen[0]() is not None:
                gc.collect()
                await asyncio.sleep(0.05)


async def test_a_preface_and_silence_has_an_end():
    async with serving(hello) as server, connected(server) as client:
        await client.send(b"PRI * HTTP/2.0\r\n\r\n")
        await until(lambda: runtime_of(server).connections)
        client.reset()
        await until(lambda: not runtime_of(server).connections)


async def test_a_reset_reaches_the_application_at_once():
    ends = []

    async def application(scope, receive, send):
        await receive()
        ends.append((await receive())["type"])
        with pytest.raises(OSError, match="the client is gone"):
            await send({"type": "http.response.start", "status": 200})
        ends.append("ended")

    async with serving(application) as server, h2(server) as client:
        client.get(1)
        await client.alive()
        client.reset(1, CANCEL)
        await client.alive()
        await until(lambda: ends == ["http.disconnect", "ended"])
