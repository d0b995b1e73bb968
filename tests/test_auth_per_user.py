import asyncio

import pytest
from django.contrib.auth.models import AnonymousUser, User

from headrace import instruments
from headrace.auth import ConnectionsPerUser
from headrace.exceptions import ConfigurationError
from tests.documented import documented
from tests.server.clients import connected, echo, handshake, runtime_of, serving, until

ADA, BOB = User(pk=1), User(pk=2)
USERS = {"/ada": ADA, "/bob": BOB, "/nobody": AnonymousUser()}


def with_user(application):
    async def identified(scope, receive, send):
        await application({**scope, "user": USERS[scope["path"]]}, receive, send)

    return identified


async def status_of(server, path):
    async with connected(server) as client:
        return (await client.request(handshake(path))).status


def refused():
    reading = instruments.process.read()
    return reading.counters["headrace_middleware_refusals_total"]['by="connections_per_user"']


async def test_a_user_has_so_many_and_no_more():
    limited = ConnectionsPerUser(echo, limit=2)
    before = refused()
    async with serving(with_user(limited)) as server:
        async with connected(server) as first, connected(server) as second:
            await first.open_websocket("/ada")
            await second.open_websocket("/ada")
            async with connected(server) as third:
                response = await third.request(handshake("/ada"))
                assert response.status == 429
                assert b"close one of them" in response.body
            assert await status_of(server, "/bob") == 101
            # Those that are there know nothing of it, and a request is no WebSocket.
            await first.send_text("here")
            assert await first.read_text() == "here"
            async with connected(server) as browser:
                assert (await browser.get("/ada")).status == 200
        await until(lambda: not runtime_of(server).tasks)
        assert len(limited._places) == 0
    assert refused() == before + 1


async def leave(client, server):
    await client.close()


async def reset(client, server):
    client.reset()


async def close(client, server):
    await client.send_close()


async def stop(client, server):
    await server.stop()


async def fail(client, server):
    await client.send_text("fail")


@pytest.mark.parametrize("end", [leave, reset, close, stop, fail])
async def test_whatever_ends_a_connection_gives_its_place_back(end):
    async def app(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        while (await receive())["type"] == "websocket.receive":
            raise RuntimeError("a bug of the application")

    limited = ConnectionsPerUser(app)
    async with serving(with_user(limited)) as server, connected(server) as client:
        await client.open_websocket("/ada")
        assert len(limited._places) == 1
        await end(client, server)
        await until(lambda: not len(limited._places))


async def test_a_handshake_that_is_refused_or_given_up_keeps_no_place():
    begun = asyncio.Event()

    async def app(scope, receive, send):
        begun.set()
        if scope["path"] == "/bob":
            await asyncio.Event().wait()
        await send({"type": "websocket.close"})

    limited = ConnectionsPerUser(app, limit=1)
    given = {"application_close_timeout_s": 0.1}
    async with serving(with_user(limited), **given) as server:
        for _ in range(3):
            assert await status_of(server, "/ada") == 403
        begun.clear()
        async with connected(server) as client:
            await client.send(handshake("/bob"))
            await begun.wait()
            assert len(limited._places) == 1
        await until(lambda: not len(limited._places))


async def test_nobody_has_no_limit():
    limited = ConnectionsPerUser(echo, limit=1)
    app = with_user(limited)
    async with serving(app) as server, connected(server) as first, connected(server) as second:
        await first.open_websocket("/nobody")
        await second.open_websocket("/nobody")
        assert len(limited._places) == 0


async def test_users_are_told_apart_in_a_way_of_ones_own():
    limited = ConnectionsPerUser(echo, limit=1, key=lambda scope: scope["query_string"])
    async with serving(limited) as server, connected(server) as client:
        await client.open_websocket("/?team=a")
        assert await status_of(server, "/?team=a") == 429
        assert await status_of(server, "/?team=b") == 101


async def test_without_a_user_it_says_what_to_do():
    with pytest.raises(ConfigurationError, match="put AuthMiddlewareStack or Bearer"):
        await ConnectionsPerUser(echo)({"type": "websocket"}, None, None)


def test_a_limit_of_none_is_no_limit():
    with pytest.raises(ConfigurationError, match="at least 1 connection, not 0"):
        ConnectionsPerUser(echo, limit=0)


async def test_the_example_is_one():
    application = documented("auth.md").application_for(echo)
    assert application.inner.inner.inner._limit == 5
