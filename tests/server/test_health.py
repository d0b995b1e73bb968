"""Who sends clients to a server asks whether it is ready, and is told why it is not."""

import asyncio

import pytest

from headrace.exceptions import ConfigurationError
from headrace.instruments import conditions
from headrace.server.config import Config
from headrace.server.server import Server

from .clients import connected, hello, serving, until


async def ask(port, path, method="GET"):
    async with connected(("127.0.0.1", port)) as client:
        await client.send(f"{method} {path} HTTP/1.1\r\nHost: here\r\n\r\n".encode())
        response = await client.read_response(bodiless=method == "HEAD")
        return response.status, response.body.decode().strip()


@pytest.fixture
def broken_condition():
    state = {"why": "the layer has lost its server"}
    conditions.require("test", lambda: state["why"])
    yield state
    conditions.forget("test")


async def test_live_and_ready_on_the_private_port():
    async with serving(hello, metrics_port=0) as server:
        port = server.metrics_port
        assert port != server.port
        assert await ask(port, "/livez") == (200, "live")
        assert await ask(port, "/readyz") == (200, "ready")
        assert await ask(port, "/healthz") == (200, "ready")
        assert await ask(port, "/readyz", "HEAD") == (200, "")


async def test_the_public_port_says_nothing_unless_it_is_asked_to():
    async with serving(hello, metrics_port=0) as server:
        for path in ("/healthz", "/metrics", "/livez"):
            assert await ask(server.port, path) == (200, "hello")  # the application's answer


async def test_a_path_of_the_public_port():
    async with serving(hello, health_path="/up") as server:
        assert await ask(server.port, "/up") == (200, "ready")
        assert await ask(server.port, "/up/live") == (200, "live")
        assert await ask(server.port, "/upper") == (200, "hello")


async def test_the_private_port_knows_its_places_only():
    async with serving(hello, metrics_port=0) as server:
        status, text = await ask(server.metrics_port, "/")
        assert status == 404
        assert "/metrics" in text
        assert "/readyz" in text
        assert (await ask(server.metrics_port, "/metrics", "DELETE"))[0] == 405


async def test_a_condition_that_does_not_hold(broken_condition):
    async with serving(hello, metrics_port=0, health_path="/up") as server:
        port = server.metrics_port
        assert await ask(port, "/readyz") == (503, "the layer has lost its server")
        assert await ask(server.port, "/up") == (503, "the layer has lost its server")
        assert await ask(port, "/livez") == (200, "live")
        assert server.snapshot()["unready"] == "the layer has lost its server"
        broken_condition["why"] = None
        assert await ask(port, "/readyz") == (200, "ready")
        assert server.snapshot()["unready"] is None


async def test_a_condition_that_fails_is_a_reason():
    def fail():
        raise ZeroDivisionError

    conditions.require("arithmetic", fail)
    try:
        async with serving(hello, health_path="/up") as server:
            assert await ask(server.port, "/up") == (
                503,
                "arithmetic: ZeroDivisionError when it was asked for",
            )
    finally:
        conditions.forget("arithmetic")


async def test_not_ready_before_the_application_has_started_nor_while_it_stops():
    start, started, stop = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def application(scope, receive, send):
        assert scope["type"] == "lifespan"
        await receive()
        started.set()
        await start.wait()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await stop.wait()
        await send({"type": "lifespan.shutdown.complete"})

    config = Config(port=0, metrics_port=0, lifespan="on", shutdown_timeout_s=5)
    server = Server(application, config)
    starting = asyncio.ensure_future(server.start())
    await started.wait()
    port = server.metrics_port
    assert await ask(port, "/readyz") == (503, "the application has not started yet")
    assert await ask(port, "/livez") == (200, "live")
    start.set()
    await starting
    assert await ask(port, "/readyz") == (200, "ready")
    stopping = asyncio.ensure_future(server.stop())
    await asyncio.sleep(0)
    assert await ask(port, "/readyz") == (503, "the server is stopping")
    stop.set()
    await stopping
    await until(stopping.done)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)


async def test_a_start_that_fails_leaves_no_private_port():
    async def application(scope, receive, send):
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no"})

    server = Server(application, Config(port=0, metrics_port=0, lifespan="on"))
    with pytest.raises(ConfigurationError):
        await server.start()
    with pytest.raises(RuntimeError, match="no port for metrics"):
        _ = server.metrics_port


def test_paths_begin_with_a_slash():
    with pytest.raises(ConfigurationError, match="health_path must begin with '/'"):
        Config(health_path="up")
    with pytest.raises(ConfigurationError, match="metrics_path must begin with '/'"):
        Config(metrics_path="")
