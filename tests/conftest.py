"""What the tests of several rooms share."""

import pytest

from headrace.layers import InMemoryChannelLayer, channel_layers


@pytest.fixture
def layer():
    """The default channel layer: a new one, in memory."""
    layer = InMemoryChannelLayer()
    old = channel_layers.set("default", layer)
    yield layer
    channel_layers.set("default", old)
