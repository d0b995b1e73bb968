import contextlib

import pytest
import websockets

from headrace.layers import InMemoryChannelLayer, channel_layers
from headrace.server.config import Config, Lifespan
from headrace.server.server import Server

from ..foreign import uvicorn_serves
from ..layers.plain import PlainLayer
from .probes import AsyncProbe, Diary, SyncProbe


def wraps_send(application):
    async def middleware(scope, receive, send):
        async def wrapped(message):
            await send(message)

        await application(scope, receive, wrapped)

    return middleware


def wraps_receive(application):
    async def middleware(scope, receive, send):
        async def wrapped():
            return await receive()

        await application(scope, wrapped, send)

    return middleware


@contextlib.asynccontextmanager
async def headrace_serves(application, **options):
    config = Config(port=0, access_log=False, lifespan=Lifespan.OFF, **options)
    async with Server(application, config) as server:
        yield server.port


@contextlib.asynccontextmanager
async def as_it_is(application):
    yield application


ROADS = {
    "headrace": headrace_serves,
    "headrace, send wrapped": lambda application: headrace_serves(wraps_send(application)),
    "headrace, receive wrapped": lambda application: headrace_serves(wraps_receive(application)),
    "headrace, a layer that only pulls": headrace_serves,
    "uvicorn": uvicorn_serves,
}


@pytest.fixture(params=ROADS)
def road(request):
    """A way from the client to the consumer."""
    return request.param


@pytest.fixture
def layer(request):
    """The channel layer of this test."""
    pulls = "road" in request.fixturenames and "pulls" in request.getfixturevalue("road")
    layer = PlainLayer() if pulls else InMemoryChannelLayer()
    old = channel_layers.set("default", layer)
    yield layer
    channel_layers.set("default", old)


@pytest.fixture
def serve(road, layer):
    return ROADS[road]


@pytest.fixture(params=[AsyncProbe, SyncProbe], ids=["async", "sync"])
async def probe(request):
    """A consumer class of this test's own, with a diary."""
    return type("Probe", (request.param,), {"diary": Diary()})


@pytest.fixture
def client():
    """Connect to a port as the ``websockets`` library does."""

    def connect(port, **options):
        return websockets.connect(f"ws://127.0.0.1:{port}/", open_timeout=5, **options)

    return connect
