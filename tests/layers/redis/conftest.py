"""Servers for the tests of the Redis layer. Those of a session are shared: use a prefix each."""

import itertools

import pytest

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
def prefix():
    return f"test{next(_numbers)}"
