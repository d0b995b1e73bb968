"""A connection that has ended is freed at once: nothing of it waits for a garbage collection."""

import gc

import pytest

from . import h2_client
from .clients import connected, echo, serving, until
from .h2_client import H2Client


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


async def ask_by_http2(client):
    speaker = await H2Client(client).start()
    assert (await speaker.get(1).answer(1)).status == 200
    assert (await speaker.post(3).data(3, b"body", ends=True).answer(3)).body == b"body"


async def reset_a_stream(client):
    speaker = await H2Client(client).start()
    await speaker.get(1, "/endless").until(h2_client.HEADERS)
    await speaker.reset(1).alive()


async def vanish_from_a_stream(client):
    speaker = await H2Client(client).start()
    await speaker.get(1, "/endless").until(h2_client.HEADERS)
    client.reset()


async def vanish_from_a_tunnel(client):
    speaker = await H2Client(client).start()
    await speaker.headers(1, h2_client.websocket(), ends=False).until(h2_client.HEADERS)
    client.reset()


async def leave_a_tunnel(client):
    speaker = await H2Client(client).start()
    await speaker.headers(1, h2_client.websocket(), ends=False).until(h2_client.HEADERS)
    await speaker.data(1, ends=True).until(h2_client.DATA, h2_client.RST_STREAM)
    await speaker.alive()


async def break_http2(client):
    speaker = await H2Client(client).start()
    await speaker.data(5, b"of no stream").until(h2_client.GOAWAY)


async def application(scope, receive, send):
    """An echo, or a response that has no end."""
    if scope["path"] != "/endless":
        await echo(scope, receive, send)
        return
    await send({"type": "http.response.start", "status": 200})
    while True:
        await send({"type": "http.response.body", "body": bytes(65536), "more_body": True})


@pytest.mark.parametrize(
    "visit",
    [
        ask,
        ask_for_the_last_time,
        ask_nonsense,
        shake_hands_badly,
        close,
        vanish,
        ask_by_http2,
        reset_a_stream,
        vanish_from_a_stream,
        vanish_from_a_tunnel,
        leave_a_tunnel,
        break_http2,
    ],
    ids=lambda visit: visit.__name__,
)
async def test_what_has_ended_is_freed_at_once(visit):
    async with serving(application) as server:

        async def come_and_go():
            async with connected(server) as client:
                await visit(client)
            await until(lambda: not server.runtime.connections and not server.runtime.tasks)

        await come_and_go()  # what is made once is made now
        gc.collect()
        gc.freeze()  # all that was there before: a look at it takes as long as the test
        gc.disable()
        gc.set_debug(gc.DEBUG_SAVEALL)
        try:
            await come_and_go()
            gc.collect()
            left = {type(each) for each in gc.garbage}
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.unfreeze()
            gc.enable()
    assert not [each for each in left if each.__module__.startswith("headrace")]
