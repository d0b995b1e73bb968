"""How long an application may take: to answer, to accept, to live, to end."""

import asyncio
import contextlib

import pytest

from .clients import PING, PONG, connected, echo, handshake, respond, runtime_of, serving, until


class Slow:
    """An application that waits for a gate, and tells how it went."""

    def __init__(self, *, start=False, deaf=False):
        self.start = start
        self.deaf = deaf
        self.gate = asyncio.Event()
        self.told = []

    async def __call__(self, scope, receive, send):
        try:
            await self._run(receive, send)
        except asyncio.CancelledError:
            self.told.append("cancelled")
            raise

    async def _run(self, receive, send):
        await receive()
        if self.start:
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        if self.deaf:
            await self.gate.wait()
        self.told.append((await receive())["type"])


GET = b"GET / HTTP/1.1\r\nHost: here\r\n\r\n"

# The answer to a request


async def test_an_answer_that_takes_too_long_is_a_503(caplog):
    app = Slow()
    async with serving(app, http_timeout_s=0.05) as server, connected(server) as client:
        response = await client.get()
        assert (response.status, response[b"connection"]) == (503, b"close")
        assert response.body == b"the application took too long to answer\n"
        await until(lambda: app.told)
    assert app.told == ["http.disconnect"]
    assert "the application has not answered GET / in 0.05 s" in caplog.text


async def test_a_response_that_takes_too_long_breaks_off(caplog):
    app = Slow(start=True)
    async with serving(app, http_timeout_s=0.05) as server, connected(server) as client:
        await client.send(GET)
        assert (await client.read_head()).status == 200
        assert await client.read_to_end() == b"5\r\nbegun\r\n"  # and no last chunk
        await until(lambda: app.told)
    assert app.told == ["http.disconnect"]


async def test_an_application_that_goes_on_after_that_is_cancelled(caplog):
    app = Slow(deaf=True)
    settings = {"http_timeout_s": 0.05, "application_close_timeout_s": 0.05}
    async with serving(app, **settings) as server, connected(server) as client:
        assert (await client.get()).status == 503
        await until(lambda: app.told)
    assert app.told == ["cancelled"]
    assert "has not ended in 0.05 s after its client: it is cancelled" in caplog.text


async def test_the_time_begins_when_the_request_is_there():
    async with serving(echo, http_timeout_s=0.05) as server, connected(server) as client:
        await client.send(b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 4\r\n\r\nha")
        await asyncio.sleep(0.1)  # nothing tells that something did not happen
        await client.send(b"lf")
        assert (await client.read_response()).body == b"half"


async def test_what_goes_on_after_the_answer_may_take_longer(caplog):
    done = []

    async def app(scope, receive, send):
        await respond(send)
        await asyncio.sleep(0.1)
        done.append(True)

    settings = {"http_timeout_s": 0.02, "application_close_timeout_s": 0.02}
    async with serving(app, **settings) as server:
        async with connected(server) as client:
            assert (await client.get()).status == 200
        await until(lambda: done)
    assert not caplog.records


# The end of the application


@pytest.mark.parametrize("kind", ["http", "websocket"])
async def test_an_application_that_does_not_end_with_its_client_is_cancelled(kind, caplog):
    app = Slow(deaf=True)
    async with serving(app, application_close_timeout_s=0.05, accept_timeout_s=0) as server:
        async with connected(server) as client:
            await client.send(GET if kind == "http" else handshake())
            await until(lambda: server.counters.requests or server.counters.websockets)
        await until(lambda: app.told)
        assert not runtime_of(server).connections
    assert app.told == ["cancelled"]
    assert "has not ended in 0.05 s after its client: it is cancelled" in caplog.text


@pytest.mark.parametrize("kind", ["http", "websocket"])
async def test_without_an_end_it_may_take_as_long_as_it_takes(kind, caplog):
    app = Slow(deaf=True)
    async with serving(app, application_close_timeout_s=0, accept_timeout_s=0) as server:
        async with connected(server) as client:
            await client.send(GET if kind == "http" else handshake())
            await until(lambda: server.counters.requests or server.counters.websockets)
        await until(lambda: not runtime_of(server).connections)
        app.gate.set()
        await until(lambda: app.told)
    assert app.told == [f"{kind}.disconnect"]
    assert not caplog.records


async def test_a_handler_of_the_disconnect_has_that_time():
    gate, told = asyncio.Event(), []

    async def app(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        assert (await receive())["type"] == "websocket.disconnect"
        await gate.wait()
        told.append("saved")

    async with serving(app, application_close_timeout_s=20) as server:
        async with connected(server) as client:
            await client.open_websocket()
        await until(lambda: not runtime_of(server).connections)
        gate.set()
        await until(lambda: told)


# The life of a WebSocket


async def test_a_websocket_has_its_time():
    async with serving(echo, websocket_timeout_s=0.05) as server, connected(server) as client:
        await client.open_websocket()
        code, reason = await client.read_close()
        assert (code, reason) == (1001, "this WebSocket has lived as long as one may")
        await client.send_close(1001)
        assert await client.read_to_end() == b""


async def test_a_websocket_that_ended_before_its_time():
    async with serving(echo, websocket_timeout_s=0.02) as server, connected(server) as client:
        await client.open_websocket()
        await client.send_close()
        assert (await client.read_close())[0] == 1000
        await client.read_to_end()
        await asyncio.sleep(0.05)


async def test_a_websocket_whose_application_goes_on_after_its_end():
    gate = asyncio.Event()

    async def app(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", "code": 4000})
        await gate.wait()

    async with serving(app, websocket_timeout_s=0.02) as server, connected(server) as client:
        await client.open_websocket()
        assert (await client.read_close())[0] == 4000
        await asyncio.sleep(0.05)
        gate.set()


async def test_without_an_end_an_accept_takes_as_long_as_it_takes():
    gate = asyncio.Event()

    async def app(scope, receive, send):
        await receive()
        await gate.wait()
        await send({"type": "websocket.accept"})
        with contextlib.suppress(OSError):
            await receive()

    settings = {"accept_timeout_s": 0, "ping_interval_s": 0.05, "ping_timeout_s": 0.05}
    async with serving(app, **settings) as server, connected(server) as client:
        await client.send(handshake())
        await until(lambda: server.counters.websockets)
        await asyncio.sleep(0.3)  # the wheel has looked at it, had it been asked to
        gate.set()
        assert (await client.read_head()).status == 101
        # And its pings come.
        assert (await client.read_close())[0] == 1011


async def test_a_quiet_client_is_asked_again_and_again():
    """However long it may take to answer: what stands between must see that the line is in use."""

    async def application(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        await receive()

    settings = {"ping_interval_s": 0.1, "ping_timeout_s": 30.0}
    async with serving(application, **settings) as server, connected(server) as client:
        await client.open_websocket()
        async with asyncio.timeout(5):
            for _ in range(3):
                opcode, payload = await client.read_frame()
                assert opcode == PING
                await client.send_frame(PONG, payload)
