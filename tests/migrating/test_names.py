"""The tables: each successor exists."""

import importlib

import pytest

from headrace.migrating import names
from headrace.migrating.names import Missing, Successor, advice_for_import, is_module, successor

#: Modules that import the project's settings or a browser's driver need nothing of either.
PUBLIC = [
    ".".join(filter(None, ["channels", module, name]))
    for module, public in names.MODULES.items()
    for name in ["", *sorted(public)]
]


def look_up(path):
    """Return what the dotted path leads to; ImportError or AttributeError if to nothing."""
    parts = path.split(".")
    found = importlib.import_module(parts[0])
    for number, part in enumerate(parts[1:], 2):
        try:
            found = getattr(found, part)
        except AttributeError:
            found = importlib.import_module(".".join(parts[:number]))
    return found


@pytest.mark.parametrize("path", PUBLIC)
def test_each_public_name_of_channels_has_a_successor_that_exists(path):
    found = successor(path)
    assert isinstance(found, Successor)
    look_up(found.path)


@pytest.mark.parametrize(("name", "home"), sorted(names.ELSEWHERE.items()))
def test_what_channels_only_imported_is_where_the_table_says(name, home):
    assert hasattr(importlib.import_module(home), name)


def test_the_redis_layer_is_there():
    module, _, name = names.REDIS_LAYER.rpartition(".")
    assert hasattr(importlib.import_module(module), name)


@pytest.mark.parametrize(
    ("path", "new"),
    [
        ("channels", "headrace"),
        ("channels.layers", "headrace.layers"),
        ("channels.layers.InMemoryChannelLayer.send", "headrace.layers.InMemoryChannelLayer.send"),
        ("channels.apps.ChannelsConfig", "headrace.apps.HeadraceConfig"),
        ("channels.consumer.StopConsumer", "headrace.exceptions.StopConsumer"),
        ("channels.auth.get_user_model", "django.contrib.auth.get_user_model"),
        (
            "channels.consumer.AsyncConsumer.__call__",
            "headrace.consumer.AsyncConsumer.__call__",
        ),
    ],
)
def test_successor(path, new):
    assert successor(path) == Successor(new)


@pytest.mark.parametrize(
    ("path", "advice"),
    [
        ("channels.layers._private", "private"),
        ("channels.layers.InMemoryChannelLayer._clean_expired", "private"),
        ("channels._private.name", "private"),
        ("channels.http.AsgiHandler", "Channels 2"),
        ("channels.handler", "Channels 1"),
        ("channels.Group", "Channels 1"),
        ("channels.generic.websockets.WebsocketConsumer", "without the s"),
        ("channels.management.commands.runserver.Command", "Channels 3"),
        ("channels.__version__", "version"),
        ("channels.db.nothing", "no public name"),
        ("channels.nothing.at.all", "no public name"),
        ("channels.StopConsumer", "no public name"),
    ],
)
def test_no_successor(path, advice):
    found = successor(path)
    assert isinstance(found, Missing)
    assert advice in str(found)
    assert path.startswith(str(found).split()[0])


def test_is_module():
    assert is_module("channels")
    assert is_module("channels.generic.websocket")
    assert not is_module("channels.layers.get_channel_layer")
    assert not is_module("headrace.layers")


@pytest.mark.parametrize(
    ("module", "advice"),
    [
        ("daphne", "Daphne"),
        ("daphne.server.Server", "headrace.server.server.Server"),
        ("daphne.testing.DaphneProcess", "ChannelsLiveServerTestCase"),
        ("daphne.ws_protocol", "a server of its own"),
        ("asgi_redis", "Channels 1"),
        ("channels_redis.core.RedisChannelLayer", "headrace[redis]"),
        ("strawberry.channels.GraphQLWSConsumer", "strawberry.channels imports channels"),
    ],
)
def test_advice_for_imports(module, advice):
    assert advice in advice_for_import(module)


@pytest.mark.parametrize("module", ["os", "strawberry", "daphnex", "channelsx"])
def test_no_advice_for_what_has_nothing_to_do_with_channels(module):
    assert advice_for_import(module) is None
