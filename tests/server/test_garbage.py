"""A connection that has ended is freed at once: nothing of it waits for a garbage collection."""

import gc

import pytest

from .clients import connected, echo, serving, until


async def ask(client):
    await client.get()


async def ask_for_the_last_time(client):
    await client.get("/", "Connection: close")
    assert await client.read_to_end() == b""


async def ask_nonsense(client):
    assert (await client.request(b"NON SENSE\r\n\r\n")).status == 400


async def close(client):
    await client.open_websocket()
    await client.send_text("x")
    assert await client.read_text() == "x"
    await client.send_close()
    assert await client.read_close() == (1000, "")


async def vanish(client):
    await client.open_websocket()
    client.reset()


async def shake_hands_badly(client):
    assert (await client.get("/", "Upgrade: websocket", "Connection: Upgrade")).status == 400


@pytest.mark.parametrize(
    "visit",
    [ask, ask_for_the_last_time, ask_nonsense, shake_hands_badly, close, vanish],
    ids=lambda visit: visit.__name__,
)
async def test_what_has_ended_is_freed_at_once(visit):
    async with serving(echo) as server:

        async def come_and_go():
            async with connected(server) as client:
                await visit(client)
            await until(lambda: not server.runtime.connections and not server.runtime.tasks)

        await come_and_go()  # what is made once is made now
        gc.collect()
        gc.disable()
        gc.set_debug(gc.DEBUG_SAVEALL)
        try:
            await come_and_go()
            gc.collect()
            left = {type(each) for each in gc.garbage}
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()
    assert not [each for each in left if each.__module__.startswith("headrace")]
