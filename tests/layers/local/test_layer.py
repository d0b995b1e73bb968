import pytest

from headrace.layers.local import LocalChannelLayer
from headrace.testing.layers import ChannelLayerConformance


class TestConformance(ChannelLayerConformance):
    many_members = 1000

    @pytest.fixture(autouse=True)
    def _directory(self, tmp_path):
        self.directory = tmp_path / "local"

    async def make_layer(self, **options):
        return LocalChannelLayer(directory=self.directory, **options)


class TestConformanceOfTwo(TestConformance):
    shared = True
    many_members = 10
