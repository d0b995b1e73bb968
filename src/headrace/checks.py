"""What ``manage.py check`` finds out about a project that uses Headrace.

========  ===========================================================================
E001      ``ASGI_APPLICATION`` is no dotted path
E002      the ASGI application can't be imported (``--deploy``)
E003      ``CHANNEL_LAYERS`` is not of the form that it has to have
E004      a channel layer's class can't be imported (``--deploy``; at once for our own)
E005      ``HEADRACE`` has an unknown key or a bad value
W001      ``ASGI_APPLICATION`` is not set
W002      any web page may open a WebSocket (``--deploy``)
W003      a channel layer is that of Channels
W004      a layer in memory, and several processes (``--deploy``)
W005      a layer in memory, and an application for workers (``--deploy``)
W006      ``CONN_MAX_AGE`` keeps connections that nothing will use again
W007      the ``runserver`` of ``django.contrib.staticfiles`` comes first
W008      the commands of Channels or Daphne are installed, too
W009      a channel layer has keys that mean nothing
========  ===========================================================================

Rules of this file:

- A check speaks only of what it is sure of: where an application can't be looked into, it
  is silent.
- What is not Headrace's own is imported under ``check --deploy`` only; other commands have no
  use for it.
- Every hint says what to write.
"""

import inspect
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from django.apps import AppConfig, apps
from django.conf import settings
from django.core import checks
from django.core.checks import CheckMessage, Error, register
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from . import as_channels, conf
from .auth import BearerTokenMiddleware
from .layers import InMemoryChannelLayer, channel_layers
from .middleware import BaseMiddleware
from .routing import ProtocolTypeRouter, URLRouter, get_default_application
from .security.websocket import OriginValidator

__all__ = [
    "check_application",
    "check_apps",
    "check_databases",
    "check_headrace",
    "check_layers",
    "check_processes",
    "check_setting",
    "register_checks",
]

_IN_MEMORY = "headrace.layers.InMemoryChannelLayer"
_LAYER_KEYS = frozenset({"BACKEND", "CONFIG", "TEST_CONFIG"})
_SHARED_LAYER = (
    "Configure a layer in CHANNEL_LAYERS that processes share: "
    "'headrace.layers.LocalChannelLayer' for those of one host, which needs nothing installed, "
    "or one that keeps its messages in Redis."
)


def register_checks() -> None:
    """Make Django run the checks of this module."""
    for check in (check_setting, check_layers, check_databases, check_apps, check_headrace):
        register(check, "headrace")
    for check in (check_application, check_processes):
        register(check, "headrace", deploy=True)


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
    if not _is_dotted(name):
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
    mapping: Mapping[str, Any] = {}
    if isinstance(application, ProtocolTypeRouter):
        mapping = application.application_mapping
    found: list[CheckMessage] = []
    if _is_open(mapping.get("websocket")):
        found.append(
            checks.Warning(
                "Any web page may open a WebSocket to this site in the name of its visitors: "
                "the Origin header isn't checked.",
                hint='Put AllowedHostsOriginValidator around the "websocket" application.',
                id="headrace.W002",
            )
        )
    if "channel" in mapping and _all_in_memory():
        found.append(
            checks.Warning(
                "The application has a part for workers, but the channel layer is in memory: "
                "nothing that the server sends reaches a worker's process.",
                hint=_SHARED_LAYER,
                id="headrace.W005",
            )
        )
    return found


def check_layers(app_configs: Sequence[AppConfig] | None, **_: Any) -> list[CheckMessage]:
    """Check the form of ``CHANNEL_LAYERS``, and look for layers of Channels in it."""
    del app_configs
    layers = _layers()
    problems = list(_layer_problems(layers))
    if problems:
        hint = f'Write CHANNEL_LAYERS = {{"default": {{"BACKEND": "{_IN_MEMORY}"}}}}.'
        return [Error(problem, hint=hint, id="headrace.E003") for problem in problems]
    found: list[CheckMessage] = []
    for alias, layer in layers.items():
        where = f"CHANNEL_LAYERS[{alias!r}]"
        instead = _instead_of(layer["BACKEND"])
        if instead is not None:
            found.append(
                checks.Warning(
                    f"{where} names {layer['BACKEND']}, which belongs to Django Channels.",
                    hint=instead,
                    id="headrace.W003",
                )
            )
        unknown = [repr(key) for key in layer if key not in _LAYER_KEYS]
        if unknown:
            found.append(
                checks.Warning(
                    f"{where} has keys that mean nothing: {', '.join(unknown)}.",
                    hint="Put the options of a layer into its CONFIG.",
                    id="headrace.W009",
                )
            )
        if _is_own(layer["BACKEND"]) and isinstance(error := _backend(alias, layer), Error):
            found.append(error)
    return found


def check_processes(app_configs: Sequence[AppConfig] | None, **_: Any) -> list[CheckMessage]:
    """Import the channel layers, and look for one in memory where there are several processes."""
    del app_configs
    layers = _layers()
    if list(_layer_problems(layers)):
        return []
    found: list[CheckMessage] = []
    processes = _processes()
    for alias, layer in layers.items():
        backend = _backend(alias, layer)
        if isinstance(backend, Error):
            if not _is_own(layer["BACKEND"]):
                found.append(backend)
            continue
        if processes is not None and _is_in_memory(backend):
            found.append(
                checks.Warning(
                    f"The channel layer {alias!r} is in memory, and {processes}: "
                    "what one process sends, the others do not hear.",
                    hint=f"{_SHARED_LAYER} Or serve with one process.",
                    id="headrace.W004",
                )
            )
    return found


def _is_dotted(path: object) -> bool:
    """Tell whether it is a path such as ``import_string`` takes: names with dots between them."""
    return isinstance(path, str) and "." in path and all(map(str.isidentifier, path.split(".")))


def _is_own(backend: str) -> bool:
    """Tell whether it is for ``check_layers``, which every command runs, to import it."""
    return backend.startswith("headrace.")


def _backend(alias: str, layer: Mapping[str, Any]) -> Any:
    """Import the class of a channel layer, or return the Error that says what is wrong with it."""
    try:
        backend = import_string(layer["BACKEND"])
    except Exception as error:  # whatever another's module raises
        return Error(
            f"CHANNEL_LAYERS[{alias!r}]: {layer['BACKEND']} can't be imported: "
            f"{type(error).__name__}: {error}.",
            hint="Install what has it, or name another class as BACKEND.",
            id="headrace.E004",
        )
    for key in ("CONFIG", "TEST_CONFIG"):
        try:
            # Only bound: a layer that is built may connect to somewhere.
            inspect.signature(backend).bind(**layer.get(key, {}))
        except TypeError as error:
            return Error(
                f"CHANNEL_LAYERS[{alias!r}] has a {key} that does not fit {layer['BACKEND']}: "
                f"{error}.",
                hint=f"It takes {', '.join(inspect.signature(backend).parameters) or 'no keys'}.",
                id="headrace.E003",
            )
        except ValueError:  # a class that doesn't say what it takes
            break
    return backend


def check_databases(app_configs: Sequence[AppConfig] | None, **_: Any) -> list[CheckMessage]:
    """Look for database connections that stay open for threads that don't come back."""
    del app_configs
    if getattr(settings, "ASGI_APPLICATION", None) is None:
        return []
    return [
        checks.Warning(
            f"DATABASES[{alias!r}] has CONN_MAX_AGE = {age!r}. Under ASGI a connection that is "
            "kept open is seldom used again, and the database runs out of them.",
            hint=f"Set CONN_MAX_AGE of {alias!r} to 0. Where opening a connection takes too long, "
            'use a pool: OPTIONS = {"pool": True} with psycopg. With a ThreadPoolMiddleware of '
            "headrace.threads around Django connections are used again: then silence this.",
            id="headrace.W006",
        )
        for alias, database in settings.DATABASES.items()
        if (age := database.get("CONN_MAX_AGE", 0)) != 0
    ]


def check_apps(app_configs: Sequence[AppConfig] | None, **_: Any) -> list[CheckMessage]:
    """Look for applications whose commands come before Headrace's, or clash with them."""
    del app_configs
    names = [config.name for config in apps.get_app_configs()]
    found: list[CheckMessage] = []
    if "headrace" not in names:
        return found
    static = "django.contrib.staticfiles"
    if static in names and names.index(static) < names.index("headrace"):
        found.append(
            checks.Warning(
                f"manage.py runserver is the one of {static}, which serves no WebSockets.",
                hint=f'Put "headrace" before "{static}" in INSTALLED_APPS.',
                id="headrace.W007",
            )
        )
    found += [
        checks.Warning(
            f"{name!r} and 'headrace' have management commands of the same names; those of the "
            "first one in INSTALLED_APPS are run.",
            hint=f'Take "{name}" out of INSTALLED_APPS. Packages that import channels work with '
            "headrace.as_channels.install().",
            id="headrace.W008",
        )
        for name in ("channels", "daphne")
        if name in names
    ]
    return found


def check_headrace(app_configs: Sequence[AppConfig] | None, **_: Any) -> list[CheckMessage]:
    """Check the setting ``HEADRACE``."""
    del app_configs
    return [
        Error(
            f"{problem}.",
            hint='Write it as HEADRACE = {"SYNC_THREADS": 16}; what is left out has its default.',
            id="headrace.E005",
        )
        for problem in conf.problems()
    ]


def _is_open(application: Any) -> bool:
    """Tell whether a consumer can surely be reached without a check of the origin."""
    if isinstance(application, OriginValidator):
        return False
    if isinstance(application, BearerTokenMiddleware) and application.required:
        # No browser sends a token by itself.
        return False
    if isinstance(application, URLRouter):
        return any(_is_open(getattr(route, "callback", None)) for route in application.routes)
    if isinstance(application, BaseMiddleware):
        # A subclass may check the origin itself.
        ours = type(application).__module__.partition(".")[0] == __package__
        return ours and _is_open(application.inner)
    return hasattr(application, "consumer_class")


def _layers() -> Any:
    """Return ``CHANNEL_LAYERS``; where it is not set, what stands for it then."""
    layers = getattr(settings, "CHANNEL_LAYERS", None)
    return channel_layers.configs if layers is None else layers


def _layer_problems(layers: Any) -> Iterator[str]:
    if not isinstance(layers, Mapping):
        yield f"CHANNEL_LAYERS is {layers!r:.100}, which is no dictionary."
        return
    for alias, layer in layers.items():
        where = f"CHANNEL_LAYERS[{alias!r}]"
        if not isinstance(layer, Mapping):
            yield f"{where} is {layer!r:.100}, which is no dictionary."
            continue
        backend = layer.get("BACKEND")
        if not _is_dotted(backend):
            yield f"{where} has {backend!r:.100} as its BACKEND, which is no dotted path."
        for key in ("CONFIG", "TEST_CONFIG"):
            if not isinstance(layer.get(key, {}), Mapping):
                yield f"{where} has a {key} that is no dictionary."


def _instead_of(backend: str) -> str | None:
    """Return what to do about a class of Channels; None where it is none, or is ours."""
    package = backend.partition(".")[0]
    if package not in ("channels", "channels_redis") or _channels_is_ours():
        return None
    if package == "channels":
        home = backend.replace("channels", "headrace", 1)
        return f'Write "{home}".' if _imports(home) is not None else None
    return (
        "It stands on Channels, and raises its errors. Call headrace.as_channels.install() at the "
        "top of the settings: then it stands on Headrace, and raises Headrace's."
    )


def _channels_is_ours() -> bool:
    """Tell whether ``import channels`` gets Headrace: see ``as_channels``."""
    try:
        spec = find_spec("channels")
    except ValueError:  # a module that somebody has made up
        return False
    return spec is not None and type(spec.loader).__module__ == as_channels.__name__


def _imports(path: str) -> Any:
    try:
        return import_string(path)
    except ImportError:
        return None


def _is_in_memory(backend: Any) -> bool:
    return isinstance(backend, type) and issubclass(backend, InMemoryChannelLayer)


def _all_in_memory() -> bool:
    layers = _layers()
    return not list(_layer_problems(layers)) and all(
        _is_in_memory(_imports(layer["BACKEND"])) for layer in layers.values()
    )


#: Environment variables by which servers are told how many processes to start.
_CONCURRENCY = ("WEB_CONCURRENCY", "UVICORN_WORKERS")
_GUNICORN_WORKERS = re.compile(r"(?:^|\s)(?:-w\s*|--workers[=\s]\s*)(\d+)\b")


def _processes() -> str | None:
    """Return what says that the site is served by several processes; None if nothing does."""
    for name in _CONCURRENCY:
        value = os.environ.get(name, "")
        if value.isdecimal() and int(value) > 1:
            return f"{name} is {value}"
    gunicorn = _GUNICORN_WORKERS.search(os.environ.get("GUNICORN_CMD_ARGS", ""))
    if gunicorn is not None and int(gunicorn[1]) > 1:
        return f"GUNICORN_CMD_ARGS asks for {gunicorn[1]} workers"
    return None
