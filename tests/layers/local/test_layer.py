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

    def in_another_process(self, **options):
        return LocalChannelLayer, {"directory": self.directory, **options}
