import threading
import time

import pytest

from headrace import DEFAULT_CHANNEL_LAYER, layers
from headrace.layers import (
    ChannelLayerManager,
    InMemoryChannelLayer,
    InvalidChannelLayerError,
    channel_layers,
    get_channel_layer,
)

MEMORY = "headrace.layers.InMemoryChannelLayer"


@pytest.fixture(autouse=True)
def _fresh():
    before = channel_layers.backends
    channel_layers.backends = {}
    yield
    channel_layers.backends = before


def test_without_a_setting_there_is_a_layer_in_memory(settings):
    assert not hasattr(settings, "CHANNEL_LAYERS")
    layer = get_channel_layer()
    assert isinstance(layer, InMemoryChannelLayer)
    assert get_channel_layer() is layer
    assert channel_layers[DEFAULT_CHANNEL_LAYER] is layer
    assert "default" in channel_layers
    assert get_channel_layer("other") is None


def test_an_empty_setting_means_none(settings):
    settings.CHANNEL_LAYERS = {}
    assert get_channel_layer() is None
    assert "default" not in channel_layers
    with pytest.raises(KeyError):
        channel_layers["default"]
    with pytest.raises(InvalidChannelLayerError, match=r"no layer 'default': it has none"):
        channel_layers["default"]


def test_the_configuration_reaches_the_layer(settings):
    settings.CHANNEL_LAYERS = {
        "default": {"BACKEND": MEMORY, "CONFIG": {"capacity": 3}, "TEST_CONFIG": {"capacity": 4}},
        "other": {"BACKEND": MEMORY},
    }
    assert channel_layers["default"].capacity == 3
    assert channel_layers.make_backend("default") is not channel_layers["default"]
    assert channel_layers.make_test_backend("default").capacity == 4
    assert channel_layers["other"] is not channel_layers["default"]
    with pytest.raises(InvalidChannelLayerError, match="has no TEST_CONFIG"):
        channel_layers.make_test_backend("other")


def test_a_changed_setting_builds_anew(settings):
    first = get_channel_layer()
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": MEMORY}}
    assert channel_layers.backends == {}
    assert get_channel_layer() is not first
    settings.DEBUG = True
    assert channel_layers.backends != {}


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({}, "has no BACKEND: name the layer's class"),
        ({"BACKEND": "nowhere.Layer"}, "'nowhere.Layer' can't be imported"),
        ({"BACKEND": "headrace.layers.NoLayer"}, "can't be imported"),
        ({"BACKEND": MEMORY, "CONFIG": {"colour": "red"}}, "CONFIG does not fit .*'colour'"),
    ],
)
def test_a_mistake_in_the_setting_says_where_it_is(settings, config, text):
    settings.CHANNEL_LAYERS = {"default": config}
    for ask in (get_channel_layer, lambda: channel_layers["default"]):
        with pytest.raises(InvalidChannelLayerError, match=text) as caught:
            ask()
        assert "CHANNEL_LAYERS['default']" in str(caught.value)


def test_another_layer_can_be_put_in_its_place():
    mine = InMemoryChannelLayer()
    assert channel_layers.set("default", mine) is None
    assert get_channel_layer() is mine
    assert channel_layers.set("default", None) is mine
    assert get_channel_layer() is not mine


def test_threads_that_ask_at_once_get_one_layer(settings):
    class Slow(InMemoryChannelLayer):
        def __init__(self):
            time.sleep(0.01)
            super().__init__()

    layers.Slow = Slow
    try:
        settings.CHANNEL_LAYERS = {"default": {"BACKEND": "headrace.layers.Slow"}}
        manager, got = ChannelLayerManager(), []
        threads = [
            threading.Thread(target=lambda: got.append(manager["default"])) for _ in range(5)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(set(map(id, got))) == 1
    finally:
        del layers.Slow
