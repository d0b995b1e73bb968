"""What a watcher is told, and the goodbye of a stop."""

import asyncio
import contextlib

import pytest

from .clients import connected as connected_to
from .clients import echo, hello, serving, until


class Told(list):
    def request(self, peer, request, status, duration_s):
        self.append(("request", request.method, request.target, status, duration_s is None))

    def websocket_opening(self, key, peer, request):
        self.key = key
        self.append(("opening", peer.partition(":")[0], request.target))

    def websocket_accepted(self, key):
        self.append(("accepted", key is self.key))

    def websocket_refused(self, key, status):
        self.append(("refused", key is self.key, status))

    def websocket_closed(self, key, code):
        self.append(("closed", key is self.key, code))


@pytest.fixture
def told():
    return Told()


@contextlib.asynccontextmanager
async def watched(application, told, **settings):
    async with (
        serving(application, watcher=told, access_log=False, **settings) as server,
        connected_to(server) as client,
    ):
        yield client


OPENING = ("opening", "127.0.0.1", b"/ws")


async def test_requests(told):
    async with watched(hello, told) as client:
        await client.get("/one")
        await client.get("/two", "Upgrade: websocket", "Connection: upgrade")
    assert told == [
        ("request", "GET", b"/one", 200, False),
        ("request", "GET", b"/two", 400, True),
    ]


async def test_a_request_whose_client_goes(told):
    begun = asyncio.Event()

    async def application(scope, receive, send):
        await receive()
        begun.set()
        await receive()

    async with watched(application, told) as client:
        await client.send(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
        await begun.wait()
        client.reset()
        await until(lambda: told)
    assert told == [("request", "GET", b"/", 499, False)]


async def test_a_websocket(told):
    async with watched(echo, told) as client:
        await client.open_websocket("/ws")
        await client.send_text("hello")
        await client.read_text()
        assert told == [OPENING, ("accepted", True)]
        await client.send_close(4001)
        await client.read_to_end()
    assert told[2:] == [("closed", True, 4001)]


async def test_a_websocket_whose_client_is_lost(told):
    async with watched(echo, told) as client:
        await client.open_websocket("/ws")
        client.reset()
        await until(lambda: len(told) == 3)
    assert told[2:] == [("closed", True, 1006)]


async def refuse(receive, send):
    await send({"type": "websocket.close"})


async def deny(receive, send):
    await send({"type": "websocket.http.response.start", "status": 404, "headers": []})
    await send({"type": "websocket.http.response.body", "body": b"no"})


async def deny_and_fail(receive, send):
    await send({"type": "websocket.http.response.start", "status": 410, "headers": []})
    raise LookupError


async def wait(receive, send):
    await receive()


@pytest.mark.parametrize(
    ("answer", "status"), [(refuse, 403), (deny, 404), (deny_and_fail, 410), (wait, 499)]
)
async def test_a_websocket_that_does_not_open(told, answer, status):
    async def application(scope, receive, send):
        await receive()
        if answer is wait:
            client.reset()
        await answer(receive, send)

    async with watched(application, told) as client:
        with contextlib.suppress(AssertionError, OSError, EOFError):
            await client.open_websocket("/ws")
        await until(lambda: len(told) == 2)
    assert told == [OPENING, ("refused", True, status)]


@pytest.mark.parametrize("farewell", [None, (1012, "soon back")])
async def test_the_goodbye_of_a_stop(farewell):
    async with serving(echo) as server, connected_to(server) as client:
        await client.open_websocket()
        if farewell is not None:
            server.farewell = farewell
        stopping = asyncio.create_task(server.stop())
        assert await client.read_close() == (farewell or (1001, "the server is stopping"))
        await client.send_close()
        await stopping
