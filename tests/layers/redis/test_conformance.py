"""The conformance suite, on a single server, several, a Sentinel set and a cluster."""

import itertools

import pytest

from headrace.layers.redis import RedisChannelLayer
from headrace.testing.layers import ChannelLayerConformance

_numbers = itertools.count(1)


class RedisConformance(ChannelLayerConformance):
    @pytest.fixture(autouse=True)
    def _prefix(self):
        self.prefix = f"conformance{next(_numbers)}"

    @property
    def config(self):
        return {"hosts": self.hosts, "prefix": self.prefix}

    async def make_layer(self, **options):
        return RedisChannelLayer(**self.config, **options)

    def in_another_process(self, **options):
        return RedisChannelLayer, {**self.config, **options}


class TestSingleServer(RedisConformance):
    @pytest.fixture(autouse=True)
    def _hosts(self, server):
        self.hosts = [server.url]


class TestSentinels(RedisConformance):
    @pytest.fixture(autouse=True)
    def _hosts(self, sentinels):
        self.hosts = sentinels.hosts


class TestCluster(RedisConformance):
    @pytest.fixture(autouse=True)
    def _hosts(self, cluster):
        self.hosts = cluster.hosts
