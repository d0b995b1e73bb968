import sys
import types

import pytest
from django.apps import AppConfig, apps
from django.core.checks import registry, run_checks
from django.urls import path

from headrace import as_channels
from headrace.auth import AuthMiddlewareStack, BearerTokenMiddleware
from headrace.generic.websocket import AsyncWebsocketConsumer
from headrace.middleware import BaseMiddleware
from headrace.routing import ChannelNameRouter, ProtocolTypeRouter, URLRouter
from headrace.security.websocket import AllowedHostsOriginValidator

CONSUMER = AsyncWebsocketConsumer.as_asgi()


class Mine(BaseMiddleware):
    """Who knows what it does."""


async def anything(scope, receive, send): ...


@pytest.fixture
def project(settings, monkeypatch):
    """Make this the project's ASGI application."""

    def use(application):
        module = types.ModuleType("checked_asgi")
        module.application = application
        monkeypatch.setitem(sys.modules, "checked_asgi", module)
        settings.ASGI_APPLICATION = "checked_asgi.application"

    return use


@pytest.fixture(autouse=True)
def one_process(monkeypatch):
    for name in ("WEB_CONCURRENCY", "UVICORN_WORKERS", "GUNICORN_CMD_ARGS"):
        monkeypatch.delenv(name, raising=False)


def found(**options):
    return [message.id for message in run_checks(tags=["headrace"], **options)]


def test_the_checks_are_registered():
    assert apps.is_installed("headrace")
    assert "headrace" in registry.registry.tags_available(deployment_checks=True)


def test_the_setting_is_missing(settings):
    settings.ASGI_APPLICATION = None
    assert found() == found(include_deployment_checks=True) == ["headrace.W001"]


@pytest.mark.parametrize("value", ["application", "mysite.asgi:application", anything, 3])
def test_the_setting_is_no_dotted_path(settings, value):
    settings.ASGI_APPLICATION = value
    assert found() == found(include_deployment_checks=True) == ["headrace.E001"]


@pytest.mark.parametrize("value", ["checked_asgi.missing", "no.such.module"])
def test_the_application_is_not_there(project, settings, value):
    project(anything)
    settings.ASGI_APPLICATION = value
    assert found() == [], "nothing is imported without --deploy"
    assert found(include_deployment_checks=True) == ["headrace.E002"]


def test_the_application_fails_to_import(settings, tmp_path, monkeypatch):
    (tmp_path / "failing_asgi.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    settings.ASGI_APPLICATION = "failing_asgi.application"
    (message,) = run_checks(tags=["headrace"], include_deployment_checks=True)
    assert message.id == "headrace.E002"
    assert "ZeroDivisionError" in message.msg


@pytest.mark.parametrize(
    "websocket",
    [
        CONSUMER,
        URLRouter([path("", CONSUMER)]),
        AuthMiddlewareStack(URLRouter([path("", CONSUMER)])),
        BaseMiddleware(CONSUMER),
        URLRouter([path("a/", AllowedHostsOriginValidator(CONSUMER)), path("b/", CONSUMER)]),
        BearerTokenMiddleware(CONSUMER, print, required=False),
    ],
)
def test_websockets_that_any_page_may_open(project, websocket):
    project(ProtocolTypeRouter({"websocket": websocket}))
    assert found() == []
    assert found(include_deployment_checks=True) == ["headrace.W002"]


@pytest.mark.parametrize(
    "application",
    [
        ProtocolTypeRouter({"websocket": AllowedHostsOriginValidator(URLRouter([]))}),
        ProtocolTypeRouter({"websocket": BearerTokenMiddleware(CONSUMER, print)}),
        ProtocolTypeRouter(
            {"websocket": AuthMiddlewareStack(AllowedHostsOriginValidator(CONSUMER))}
        ),
        ProtocolTypeRouter({"websocket": URLRouter([path("", Mine(CONSUMER))])}),
        ProtocolTypeRouter({"websocket": anything}),
        ProtocolTypeRouter({"http": anything}),
        anything,
    ],
)
def test_what_is_guarded_or_can_not_be_known(project, application):
    project(application)
    assert found(include_deployment_checks=True) == []


# Channel layers

IN_MEMORY = {"default": {"BACKEND": "headrace.layers.InMemoryChannelLayer"}}
SHARED = {"default": {"BACKEND": "tests.layers.plain.PlainLayer"}}


@pytest.fixture
def quiet(project):
    """Nothing but what the test is about is worth a message."""
    project(anything)


@pytest.mark.parametrize(
    "layers",
    [
        None,
        {},
        IN_MEMORY,
        SHARED,
        {"default": {**IN_MEMORY["default"], "CONFIG": {"capacity": 1}, "TEST_CONFIG": {}}},
    ],
)
def test_layers_as_they_should_be(settings, quiet, layers):
    settings.CHANNEL_LAYERS = layers
    assert found() == found(include_deployment_checks=True) == []


@pytest.mark.parametrize(
    ("layers", "problem"),
    [
        ("redis://localhost", "CHANNEL_LAYERS is 'redis://localhost', which is no dictionary."),
        ({"default": SHARED["default"]["BACKEND"]}, "CHANNEL_LAYERS['default'] is 'tests."),
        ({"default": {}}, "has None as its BACKEND"),
        ({"default": {"BACKEND": "InMemoryChannelLayer"}}, "has 'InMemoryChannelLayer' as its"),
        ({"x": {**IN_MEMORY["default"], "CONFIG": [1]}}, "CHANNEL_LAYERS['x'] has a CONFIG that"),
        ({"x": {**IN_MEMORY["default"], "TEST_CONFIG": 1}}, "has a TEST_CONFIG that is no dict"),
    ],
)
def test_layers_of_the_wrong_form(settings, quiet, layers, problem):
    settings.CHANNEL_LAYERS = layers
    (message,) = run_checks(tags=["headrace"], include_deployment_checks=True)
    assert message.id == "headrace.E003"
    assert problem in message.msg
    assert "headrace.layers.InMemoryChannelLayer" in message.hint


def test_options_beside_the_config_of_a_layer(settings, quiet):
    settings.CHANNEL_LAYERS = {"default": {**IN_MEMORY["default"], "capacity": 5}}
    (message,) = run_checks(tags=["headrace"])
    assert (message.id, "'capacity'" in message.msg) == ("headrace.W009", True)


def test_a_layer_of_channels(settings, quiet):
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
    (message,) = run_checks(tags=["headrace"])
    assert message.id == "headrace.W003"
    assert message.hint == 'Write "headrace.layers.InMemoryChannelLayer".'


def test_a_layer_of_channels_that_is_ours_under_that_name(settings, quiet):
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
    as_channels.install()
    try:
        assert found(include_deployment_checks=True) == []
    finally:
        as_channels.uninstall()


def test_a_module_that_is_called_channels_is_not_ours_for_that(settings, quiet, monkeypatch):
    monkeypatch.setitem(sys.modules, "channels", types.ModuleType("channels"))
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
    assert found() == ["headrace.W003"]


def test_a_layer_of_channels_that_there_is_no_other_for(settings, quiet):
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.Unheard"}}
    assert found() == []
    assert found(include_deployment_checks=True) == ["headrace.E004"]


def test_a_layer_that_imports_channels(settings, quiet):
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": "channels_redis.core.RedisChannelLayer"}}
    (message,) = run_checks(tags=["headrace"])
    assert message.id == "headrace.W003"
    assert "headrace.as_channels.install()" in message.hint
    as_channels.install()
    try:
        assert found() == []
    finally:
        as_channels.uninstall()


def test_a_layer_that_is_not_there(settings, quiet):
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": "no.such.Layer"}}
    assert found() == [], "nothing is imported without --deploy"
    assert found(include_deployment_checks=True) == ["headrace.E004"]


def test_a_layer_of_ours_that_is_not_there_is_found_at_once(settings, quiet):
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": "headrace.layers.InMemoryChanelLayer"}}
    (message,) = run_checks(tags=["headrace"])
    assert message.id == "headrace.E004"
    assert "InMemoryChanelLayer" in message.msg
    assert found(include_deployment_checks=True) == ["headrace.E004"], "and told once"


@pytest.mark.parametrize("key", ["CONFIG", "TEST_CONFIG"])
def test_a_layer_of_ours_with_an_option_that_it_has_not(settings, quiet, key):
    layer = {"BACKEND": "headrace.layers.InMemoryChannelLayer", key: {"capcity": 3}}
    settings.CHANNEL_LAYERS = {"default": layer}
    (message,) = run_checks(tags=["headrace"])
    assert message.id == "headrace.E003"
    assert f"has a {key} that does not fit" in message.msg
    assert "'capcity'" in message.msg
    assert "capacity" in message.hint
    assert found(include_deployment_checks=True) == ["headrace.E003"], "and told once"


def test_a_layer_that_does_not_say_what_it_takes(settings, quiet):
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": "builtins.dict", "CONFIG": {"any": 3}}}
    assert found(include_deployment_checks=True) == []


# Processes


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("WEB_CONCURRENCY", "2", "WEB_CONCURRENCY is 2"),
        ("UVICORN_WORKERS", "8", "UVICORN_WORKERS is 8"),
        ("GUNICORN_CMD_ARGS", "--bind :80 --workers=3", "asks for 3 workers"),
        ("GUNICORN_CMD_ARGS", "-w 4", "asks for 4 workers"),
    ],
)
@pytest.mark.parametrize("layers", [None, IN_MEMORY])
def test_a_layer_in_memory_and_several_processes(
    settings, quiet, monkeypatch, layers, name, value, says
):
    settings.CHANNEL_LAYERS = layers
    monkeypatch.setenv(name, value)
    assert found() == []
    (message,) = run_checks(tags=["headrace"], include_deployment_checks=True)
    assert message.id == "headrace.W004"
    assert says in message.msg


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WEB_CONCURRENCY", "1"),
        ("WEB_CONCURRENCY", "many"),
        ("GUNICORN_CMD_ARGS", "--workers 1"),
        ("GUNICORN_CMD_ARGS", "--worker-class x"),
    ],
)
def test_one_process(quiet, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    assert found(include_deployment_checks=True) == []


def test_several_processes_and_a_layer_that_they_share(settings, quiet, monkeypatch):
    settings.CHANNEL_LAYERS = SHARED
    monkeypatch.setenv("WEB_CONCURRENCY", "2")
    assert found(include_deployment_checks=True) == []


@pytest.mark.parametrize(
    ("layers", "ids"),
    [
        (None, ["headrace.W005"]),
        ({**IN_MEMORY, "other": SHARED["default"]}, []),
        (SHARED, []),
    ],
)
def test_an_application_for_workers(settings, project, layers, ids):
    settings.CHANNEL_LAYERS = layers
    project(ProtocolTypeRouter({"channel": ChannelNameRouter({"jobs": CONSUMER})}))
    assert found() == []
    assert found(include_deployment_checks=True) == ids


def test_a_default_that_processes_share_is_no_problem(settings, project, monkeypatch):
    monkeypatch.setenv("HEADRACE_DEFAULT_LAYER", "local")
    test_an_application_for_workers(settings, project, None, [])


# Databases, other applications, Headrace's own setting


@pytest.mark.parametrize(("age", "warned"), [(0, False), (60, True), (None, True)])
def test_connections_that_stay_open(settings, quiet, monkeypatch, age, warned):
    database = {**settings.DATABASES["default"], "CONN_MAX_AGE": age}
    monkeypatch.setitem(settings.DATABASES, "default", database)
    assert found() == (["headrace.W006"] if warned else [])
    settings.ASGI_APPLICATION = None
    assert "headrace.W006" not in found(), "it is no matter of ours where there is only WSGI"


def test_a_database_that_does_not_say(settings, quiet, monkeypatch):
    monkeypatch.setitem(settings.DATABASES, "default", {"ENGINE": "x"})
    assert found() == []


@pytest.mark.parametrize(
    ("names", "ids"),
    [
        (["headrace", "django.contrib.staticfiles"], []),
        (["django.contrib.staticfiles", "headrace"], ["headrace.W007"]),
        (["daphne", "headrace"], ["headrace.W008"]),
        (["headrace", "channels", "daphne"], ["headrace.W008"] * 2),
        (["channels", "django.contrib.staticfiles"], []),
    ],
)
def test_commands_of_other_applications(quiet, monkeypatch, names, ids):
    configs = [AppConfig(name, types.SimpleNamespace(__file__=__file__)) for name in names]
    monkeypatch.setattr(apps, "get_app_configs", lambda: configs)
    assert found() == ids


def test_the_setting_of_headrace(settings, quiet):
    settings.HEADRACE = {"SINK_THREADS": 3, "SYNC_THREADS": -1}
    messages = run_checks(tags=["headrace"])
    assert [message.id for message in messages] == ["headrace.E005"] * 2
    assert "SINK_THREADS" in messages[0].msg
    settings.HEADRACE = {"SYNC_THREADS": 3}
    assert found() == []
