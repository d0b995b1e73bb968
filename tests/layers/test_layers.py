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
from headrace.layers.local import LocalChannelLayer

MEMORY = "headrace.layers.InMemoryChannelLayer"
LOCAL = "headrace.layers.LocalChannelLayer"


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


def test_a_mistake_in_a_key_names_those_that_there_are(settings):
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": MEMORY, "CONFIG": {"colour": "red"}}}
    with pytest.raises(InvalidChannelLayerError, match="it takes expiry, group_expiry, capacity"):
        get_channel_layer()
    layers.without_signature = dict
    try:
        settings.CHANNEL_LAYERS = {
            "default": {"BACKEND": "headrace.layers.without_signature", "CONFIG": {1: 2}}
        }
        with pytest.raises(InvalidChannelLayerError, match=r"keywords must be strings$"):
            get_channel_layer()
    finally:
        del layers.without_signature


def test_a_value_that_the_layer_refuses_is_told_with_its_alias(settings):
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": LOCAL, "CONFIG": {"prefix": "a b"}}}
    with pytest.raises(InvalidChannelLayerError, match=r"CHANNEL_LAYERS\['default'\]: prefix is"):
        get_channel_layer()


@pytest.mark.parametrize("path", [LOCAL, "headrace.layers.local.LocalChannelLayer"])
def test_the_layer_of_one_host_has_two_names(settings, path):
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": path}}
    assert type(get_channel_layer()) is LocalChannelLayer is layers.LocalChannelLayer


def test_no_name_is_there_that_is_not():
    with pytest.raises(AttributeError, match="no attribute 'Nowhere'"):
        layers.Nowhere  # noqa: B018


def test_the_default_is_the_layer_of_one_host_where_the_environment_says_so(monkeypatch):
    monkeypatch.setenv("HEADRACE_DEFAULT_LAYER", "local")
    assert isinstance(get_channel_layer(), LocalChannelLayer)
    for memory in ("memory", ""):
        channel_layers.backends = {}
        monkeypatch.setenv("HEADRACE_DEFAULT_LAYER", memory)
        assert isinstance(get_channel_layer(), InMemoryChannelLayer)
    channel_layers.backends = {}
    monkeypatch.setenv("HEADRACE_DEFAULT_LAYER", "redis")
    with pytest.raises(InvalidChannelLayerError, match="one of memory, local, not 'redis'"):
        get_channel_layer()


def test_a_setting_counts_for_more_than_the_environment(settings, monkeypatch):
    monkeypatch.setenv("HEADRACE_DEFAULT_LAYER", "local")
    settings.CHANNEL_LAYERS = {}
    assert get_channel_layer() is None


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
