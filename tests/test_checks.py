import sys
import types

import pytest
from django.apps import apps
from django.core.checks import registry, run_checks
from django.urls import path

from headrace.auth import AuthMiddlewareStack
from headrace.generic.websocket import AsyncWebsocketConsumer
from headrace.middleware import BaseMiddleware
from headrace.routing import ProtocolTypeRouter, URLRouter
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


def found(**options):
    return [message.id for message in run_checks(tags=["headrace"], **options)]


def test_the_checks_are_registered():
    assert apps.is_installed("headrace")
    assert "headrace" in registry.registry.tags_available(deployment_checks=True)


def test_the_setting_is_missing(settings):
    settings.ASGI_APPLICATION = None
    assert found() == found(include_deployment_checks=True) == ["headrace.W001"]


@pytest.mark.parametrize("value", ["application", anything, 3])
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
