"""What became of each name of Django Channels: the tables, and the answer for one dotted path.

Rules of this file:

- ``MODULES`` is the surface of Channels 4.3. All of it exists in Headrace, under the same
  path unless ``RENAMED`` says otherwise; a test imports each one.
- A name that only happens to be in a module of Channels, because that imports it, is led to
  where it is defined (``ELSEWHERE``).
- What has no successor has advice instead: a sentence that says what to do.
"""

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = [
    "ELSEWHERE",
    "LOGGERS",
    "MODULES",
    "REDIS_LAYER",
    "REDIS_LAYERS",
    "RENAMED",
    "THIRD_PARTY",
    "Missing",
    "Successor",
    "advice_for_import",
    "is_gone_backend",
    "is_module",
    "successor",
]

#: The public names of Channels 4.3, by module; the key is the path below ``channels``.
MODULES: Mapping[str, frozenset[str]] = {
    module: frozenset(names.split())
    for module, names in {
        "": "DEFAULT_CHANNEL_LAYER",
        "apps": "ChannelsConfig",
        "auth": "get_user login logout UserLazyObject AuthMiddleware AuthMiddlewareStack",
        "consumer": "get_handler_name AsyncConsumer SyncConsumer",
        "db": "DatabaseSyncToAsync database_sync_to_async aclose_old_connections",
        "exceptions": (
            "RequestAborted RequestTimeout InvalidChannelLayerError AcceptConnection "
            "DenyConnection ChannelFull MessageTooLarge StopConsumer"
        ),
        "generic": "",
        "generic.http": "AsyncHttpConsumer",
        "generic.websocket": (
            "WebsocketConsumer JsonWebsocketConsumer AsyncWebsocketConsumer "
            "AsyncJsonWebsocketConsumer"
        ),
        "layers": (
            "ChannelLayerManager BaseChannelLayer InMemoryChannelLayer get_channel_layer "
            "channel_layers"
        ),
        "management": "",
        "management.commands": "",
        "management.commands.runworker": "Command",
        "middleware": "BaseMiddleware",
        "routing": ("get_default_application ProtocolTypeRouter URLRouter ChannelNameRouter"),
        "security": "",
        "security.websocket": "OriginValidator AllowedHostsOriginValidator WebsocketDenier",
        "sessions": (
            "CookieMiddleware InstanceSessionWrapper SessionMiddleware SessionMiddlewareStack"
        ),
        "testing": (
            "ApplicationCommunicator HttpCommunicator WebsocketCommunicator "
            "ChannelsLiveServerTestCase"
        ),
        "testing.application": "ApplicationCommunicator",
        "testing.http": "HttpCommunicator",
        "testing.live": "ChannelsLiveServerTestCase",
        "testing.websocket": "WebsocketCommunicator",
        "utils": "await_many_dispatch name_that_thing",
        "worker": "Worker",
    }.items()
}

#: Names that are other ones in Headrace.
RENAMED: Mapping[str, str] = {"apps.ChannelsConfig": "apps.HeadraceConfig"}

_AUTH = "django.contrib.auth"

#: Names that modules of Channels import for themselves, and where they are defined.
ELSEWHERE: Mapping[str, str] = {
    "aclose_old_connections": "headrace.db",
    "async_to_sync": "asgiref.sync",
    "sync_to_async": "asgiref.sync",
    "await_many_dispatch": "headrace.utils",
    "database_sync_to_async": "headrace.db",
    "get_channel_layer": "headrace.layers",
    "get_default_application": "headrace.routing",
    "ApplicationCommunicator": "headrace.testing",
    "AsyncConsumer": "headrace.consumer",
    "AsyncWebsocketConsumer": "headrace.generic.websocket",
    "BaseMiddleware": "headrace.middleware",
    "CookieMiddleware": "headrace.sessions",
    "DEFAULT_CHANNEL_LAYER": "headrace",
    "SessionMiddleware": "headrace.sessions",
    "SyncConsumer": "headrace.consumer",
    **dict.fromkeys(MODULES["exceptions"], "headrace.exceptions"),
    "BACKEND_SESSION_KEY": _AUTH,
    "HASH_SESSION_KEY": _AUTH,
    "SESSION_KEY": _AUTH,
    "get_user_model": _AUTH,
    "load_backend": _AUTH,
    "user_logged_in": _AUTH,
    "user_logged_out": _AUTH,
    "ImproperlyConfigured": "django.core.exceptions",
    "LazyObject": "django.utils.functional",
    "Resolver404": "django.urls",
    "URLResolver": "django.urls",
    "close_old_connections": "django.db",
    "settings": "django.conf",
    "timezone": "django.utils",
}

_CHANNELS_1 = "is of Channels 1: write a consumer class, and route to it with as_asgi()"
_CHANNELS_2 = (
    "is of Channels 2: pages are served by get_asgi_application() of django.core.asgi, "
    'under the key "http" of the ProtocolTypeRouter'
)

#: What was in Channels before 4, by its path below ``channels``.
_GONE: Mapping[str, str] = {
    "__version__": (
        "is the version of Channels: drop the comparison, or keep it under "
        "headrace.as_channels.install()"
    ),
    "http": _CHANNELS_2,
    "handler": _CHANNELS_1,
    "staticfiles": (
        "is of Channels 3: runserver serves static files as it does with django.contrib.staticfiles"
    ),
    "management.commands.runserver": (
        "is of Channels 3: the command is in headrace.management.commands.runserver"
    ),
    "generic.websockets": (
        "is of Channels 1: use headrace.generic.websocket (without the s), and as_asgi() in routes"
    ),
    "asgi": "is of Channels 1: get_channel_layer() is in headrace.layers",
    "database_layer.DatabaseChannelLayer": (
        "is of Channels 1: CHANNEL_LAYERS takes headrace.layers.InMemoryChannelLayer"
    ),
    "generic.base": _CHANNELS_1,
    "routing.route": _CHANNELS_1,
    "routing.route_class": _CHANNELS_1,
    "routing.include": "is of Channels 1: a route may lead to another URLRouter",
    "security.websockets": "is of Channels 1: use headrace.security.websocket (without the s)",
    "tests": "is of Channels 1: the communicators of headrace.testing replace it",
    "test": "is of Channels 1: the communicators of headrace.testing replace it",
    **dict.fromkeys(
        [
            "Channel",
            "Group",
            "auth.channel_session_user",
            "auth.channel_session_user_from_http",
            "auth.http_session_user",
            "auth.transfer_user",
            "binding",
            "channel",
            "database_layer",
            "delay",
            "include",
            "message",
            "route",
            "route_class",
            "sessions.channel_and_http_session",
            "sessions.channel_session",
            "sessions.enforce_ordering",
            "sessions.http_session",
            "signals",
        ],
        _CHANNELS_1,
    ),
    **dict.fromkeys(["compat", "hacks", "log"], "is of Channels 3 and before: it has no use now"),
}

#: Names of loggers. Those of a program that is not in this table stay what they are.
LOGGERS: Mapping[str, str] = {
    "channels": "headrace",
    "django.channels": "headrace",
    "django.channels.server": "django.server",  # the lines of runserver
    "django.channels.worker": "headrace.worker",
    "daphne": "headrace.server",
    "daphne.access": "headrace.server",
    "daphne.cli": "headrace.server",
    "daphne.http_protocol": "headrace.server",
    "daphne.server": "headrace.server",
    "daphne.ws_protocol": "headrace.server",
}

REDIS_LAYER = "headrace.layers.redis.RedisChannelLayer"
#: The layers of channels_redis; both become that one.
REDIS_LAYERS = frozenset(
    {
        "channels_redis.core.RedisChannelLayer",
        "channels_redis.pubsub.RedisPubSubChannelLayer",
    }
)

_GONE_BACKENDS = frozenset(
    {
        "asgi_ipc.IPCChannelLayer",
        "asgi_rabbitmq.RabbitmqChannelLayer",
        "asgi_redis.RedisChannelLayer",
        "asgi_redis.RedisLocalChannelLayer",
        "asgi_redis.core.RedisChannelLayer",
        "asgiref.inmemory.ChannelLayer",
    }
)

#: Packages that import Channels themselves.
THIRD_PARTY = {
    "channels_api",
    "channels_graphql_ws",
    "channels_jsonrpc",
    "channels_postgres",
    "channels_presence",
    "channels_rabbitmq",
    "channels_valkey",
    "channels_yroom",
    "channelsmultiplexer",
    "django_loci",
    "django_plotly_dash",
    "django_private_chat2",
    "djangochannelsrestframework",
    "openwisp_controller",
    "openwisp_notifications",
    "strawberry.channels",
}

_DAPHNE: Mapping[str, str] = {
    "daphne.server": "Headrace's server is headrace.server.server.Server",
    "daphne.testing": "a test's live server is headrace.testing.ChannelsLiveServerTestCase",
    "daphne.management.commands.runserver": (
        "the command is in headrace.management.commands.runserver"
    ),
    "daphne.cli": "the command is headrace serve, from Python headrace.cli.main()",
}


@dataclass(frozen=True, slots=True)
class Successor:
    """Where a name of Channels is now: an absolute dotted path."""

    path: str


@dataclass(frozen=True, slots=True)
class Missing:
    """A name that has no successor; ``advice`` completes "channels.x ..."."""

    path: str
    advice: str
    #: There was such a name, in Channels before 4 or under an underscore.
    is_known: bool = True

    def __str__(self) -> str:
        return f"{self.path} {self.advice}"


def successor(path: str) -> Successor | Missing:
    """Say what became of ``channels`` or ``channels.what.ever``.

    What stands behind a public name (a method of a class) is taken along.
    """
    parts = path.split(".")[1:]
    gone = next((key for key in _prefixes(parts) if key in _GONE), None)
    if gone is not None:
        return Missing(f"channels.{gone}", _GONE[gone])
    module = next(key for key in [*_prefixes(parts), ""] if key in MODULES)
    depth = len(module.split(".")) if module else 0
    if any(part.startswith("_") and not part.endswith("__") for part in parts):
        return Missing(path, "is private: Headrace has no such name, find another way")
    if len(parts) == depth or parts[depth] in MODULES[module]:
        key = ".".join(parts[: depth + 1])
        rest = parts[depth + 1 :]
        return Successor(".".join(["headrace", *(RENAMED.get(key, key),), *rest]).rstrip("."))
    name = parts[depth]
    if name in ELSEWHERE and module:
        return Successor(".".join([ELSEWHERE[name], *parts[depth:]]))
    return Missing(
        path,
        "is no public name of Channels 4.3: import it from where it is defined",
        is_known=False,
    )


def _prefixes(parts: list[str]) -> list[str]:
    """Return the dotted prefixes, the longest first."""
    return [".".join(parts[:end]) for end in range(len(parts), 0, -1)]


def is_module(path: str) -> bool:
    """Tell whether this is Channels or one of its modules."""
    root, _, below = path.partition(".")
    return root == "channels" and below in MODULES


def advice_for_import(module: str) -> str | None:
    """Say what to do about an import of a package that belongs to Channels, but isn't it."""
    root = module.partition(".")[0]
    if root == "daphne":
        advice = next((text for key, text in _DAPHNE.items() if f"{module}.".startswith(key)), None)
        return f"{module} belongs to Daphne: {advice or 'Headrace has a server of its own'}"
    if root == "asgi_redis":
        return "asgi_redis is of Channels 1: it works with no later one"
    if root == "channels_redis":
        return f"{module}: import {REDIS_LAYER} in its place (pip install 'headrace[redis]')"
    package = next((name for name in _prefixes(module.split(".")) if name in THIRD_PARTY), None)
    if package is None:
        return None
    return (
        f"{package} imports channels itself: call headrace.as_channels.install() at the top of "
        "the settings module"
    )


def is_gone_backend(path: str) -> bool:
    """Tell whether this is a channel layer that no Channels since 2 has taken."""
    return path in _GONE_BACKENDS
