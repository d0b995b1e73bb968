"""Which connection is which: in the log, and in whatever runs for it."""

import asyncio
import logging
import threading

from headrace.instruments import connection_id
from headrace.server.identity import peer_of

from .clients import connected, connection_of, respond, runtime_of, serving


def test_a_peer_is_the_text_that_it_was():
    peer = peer_of(("10.0.0.1", 5), worker=3, number=7)
    assert peer == "10.0.0.1:5"
    assert peer.connection == "3-7"
    assert peer_of(None, 0, 1) == "unix"


async def test_the_id_is_there_in_handlers_tasks_and_threads():
    found = []

    async def application(scope, receive, send):
        def note():
            found.append(connection_id())

        async def note_later():
            note()

        note()
        await asyncio.create_task(note_later())
        await asyncio.to_thread(note)
        found.append(scope["extensions"]["headrace"]["connection_id"]())
        await receive()
        await send({"type": "websocket.close"})

    assert connection_id() is None
    async with serving(application) as server, connected(server) as client:
        await client.request(
            b"GET / HTTP/1.1\r\nHost: here\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        assert connection_id() is None
        number = runtime_of(server).numbered
    assert found == [f"0-{number}"] * 4


async def test_requests_of_one_connection_have_one_id():
    async def application(scope, receive, send):
        await respond(send, connection_id().encode())

    async with serving(application) as server:
        async with connected(server) as client:
            ids = {(await client.get()).body for _ in range(3)}
        async with connected(server) as client:
            ids.add((await client.get()).body)
        assert len(ids) == 2


async def test_a_thread_of_its_own_has_none():
    found = []

    async def application(scope, receive, send):
        thread = threading.Thread(target=lambda: found.append(connection_id()))
        thread.start()
        await asyncio.to_thread(thread.join)
        await respond(send)

    async with serving(application) as server, connected(server) as client:
        await client.get()
    assert found == [None]


async def test_the_records_of_the_server_know_the_connection(caplog):
    async def fails(scope, receive, send):
        raise RuntimeError("no")

    caplog.set_level(logging.INFO, "headrace")
    async with serving(fails) as server, connected(server) as client:
        assert (await client.get()).status == 500
        id_ = connection_of(server).peer.connection
    peers = [record.args[0] for record in caplog.records if record.levelno >= logging.ERROR]
    assert [peer.connection for peer in peers] == [id_]
