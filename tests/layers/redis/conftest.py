"""Servers for the tests of the Redis layer. Those of a session are shared: use a prefix each."""

import contextlib
import itertools

import pytest

from headrace.layers.redis import RedisChannelLayer

from .servers import Cluster, RedisServer, SentinelSet

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def server():
    with RedisServer() as server:
        yield server


@pytest.fixture(scope="session")
def sentinels():
    with SentinelSet() as sentinels:
        yield sentinels


@pytest.fixture(scope="session")
def cluster():
    with Cluster() as cluster:
        yield cluster


@pytest.fixture
def own_server():
    """A server that the test may break."""
    with RedisServer() as server:
        yield server


@pytest.fixture
def own_sentinels():
    with SentinelSet() as sentinels:
        yield sentinels


@pytest.fixture
def own_cluster():
    with Cluster() as cluster:
        yield cluster


@pytest.fixture
def prefix():
    return f"test{next(_numbers)}"


@pytest.fixture
async def layer_of(prefix):
    """Make layers that are closed after the test. Two of them are two processes."""
    async with contextlib.AsyncExitStack() as stack:

        def layer_of(servers, **config):
            if servers is not None:
                found = servers.hosts if hasattr(servers, "hosts") else [servers.url]
                config.setdefault("hosts", found)
            layer = RedisChannelLayer(**{"prefix": prefix, **config})
            stack.push_async_callback(layer.close)
            return layer

        yield layer_of
