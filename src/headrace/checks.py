"""What ``manage.py check`` finds out about a project that uses Headrace.

Rules of this file:

- A check speaks only of what it is sure of: where an application can't be looked into, it
  is silent.
- The project's ASGI application is imported under ``check --deploy`` only; other commands
  have no use for it.
"""

from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core import checks
from django.core.checks import CheckMessage, Error, register
from django.core.exceptions import ImproperlyConfigured

from .middleware import BaseMiddleware
from .routing import ProtocolTypeRouter, URLRouter, get_default_application
from .security.websocket import OriginValidator

__all__ = ["check_application", "check_setting", "register_checks"]


def register_checks() -> None:
    """Make Django run the checks of this module."""
    register(check_setting, "headrace")
    register(check_application, "headrace", deploy=True)


def check_setting(app_configs: Sequence[AppConfig] | None, **_: Any) -> list[CheckMessage]:
    """Check the form of ``ASGI_APPLICATION``."""
    del app_configs
    name = getattr(settings, "ASGI_APPLICATION", None)
    if name is None:
        return [
            checks.Warning(
                "ASGI_APPLICATION is not set.",
                hint='Set it to the dotted path of your application: "project.asgi.application".',
                id="headrace.W001",
            )
        ]
    if not isinstance(name, str) or "." not in name:
        return [
            Error(
                f"ASGI_APPLICATION is {name!r}, which is no dotted path.",
                hint='Write it as "project.asgi.application".',
                id="headrace.E001",
            )
        ]
    return []


def check_application(app_configs: Sequence[AppConfig] | None, **_: Any) -> list[CheckMessage]:
    """Import the ASGI application, and look for WebSockets that any page may open."""
    if getattr(settings, "ASGI_APPLICATION", None) is None or check_setting(app_configs):
        return []
    try:
        application = get_default_application()
    except ImproperlyConfigured as error:
        return [Error(f"{error}.", id="headrace.E002")]
    except Exception as error:  # whatever the project's own module raises
        return [
            Error(
                f"ASGI_APPLICATION can't be imported: {type(error).__name__}: {error}.",
                id="headrace.E002",
            )
        ]
    if isinstance(application, ProtocolTypeRouter) and _is_open(
        application.application_mapping.get("websocket")
    ):
        return [
            checks.Warning(
                "Any web page may open a WebSocket to this site in the name of its visitors: "
                "the Origin header isn't checked.",
                hint='Put AllowedHostsOriginValidator around the "websocket" application.',
                id="headrace.W002",
            )
        ]
    return []


def _is_open(application: Any) -> bool:
    """Tell whether a consumer can surely be reached without a check of the origin."""
    if isinstance(application, OriginValidator):
        return False
    if isinstance(application, URLRouter):
        return any(_is_open(getattr(route, "callback", None)) for route in application.routes)
    if isinstance(application, BaseMiddleware):
        # A subclass may check the origin itself.
        ours = type(application).__module__.partition(".")[0] == __package__
        return ours and _is_open(application.inner)
    return hasattr(application, "consumer_class")
