"""The protocol type router: which application takes a connection, by protocol, path or channel.

Rules of this file:

- What can be known when a router is built (which routes are prefixes, where a chain of
  middleware ends) is worked out then, not at each connection.
- A router is a stage (see ``middleware``): it leaves no coroutine frame behind.
- What nobody takes is a ValueError whose ``status`` is the HTTP status to answer with.
  Headrace's server honours it: a plain 404, before a WebSocket is accepted too, and one line
  in its log.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any, TypeAlias

from asgiref.compatibility import guarantee_single_callable
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.urls import Resolver404, URLPattern, URLResolver
from django.urls.resolvers import RegexPattern, RoutePattern

from .exceptions import ConfigurationError
from .middleware import (
    ASGIApplication,
    Handover,
    Receive,
    Scope,
    Send,
    Stage,
    refuse_consumer_class,
)

__all__ = [
    "ChannelNameRouter",
    "NoApplicationError",
    "NoRouteError",
    "ProtocolTypeRouter",
    "URLRouter",
    "get_default_application",
]

# How much of a path that a client made up may stand in an error's text.
_SHOWN_CHARACTERS = 200


class NoApplicationError(ConfigurationError):
    """A router has no application for this protocol type or channel name."""

    status = 404
    # Headrace's server logs it at this level: it is the site that lacks something.
    log_level = logging.WARNING


class NoRouteError(Resolver404, ValueError):
    """No route matches the path.

    A ``Resolver404``, so that an outer ``URLRouter`` goes on with its next route; and a
    ValueError, which is what the outermost one owes its caller.
    """

    status = 404


def get_default_application() -> ASGIApplication:
    """Import the application that the setting ``ASGI_APPLICATION`` names.

    Raises ImproperlyConfigured if the setting is missing, is not of the form
    ``"project.asgi.application"``, or names what is not there.
    """
    dotted = getattr(settings, "ASGI_APPLICATION", None)
    module_name, _, name = dotted.rpartition(".") if isinstance(dotted, str) else ("", "", "")
    if not module_name:
        raise ImproperlyConfigured(
            f"ASGI_APPLICATION is {dotted!r}: set it to the dotted path of your ASGI "
            'application, such as "project.asgi.application"'
        )
    try:
        module = import_module(module_name)
    except ImportError as error:
        raise ImproperlyConfigured(
            f"ASGI_APPLICATION is {dotted!r}, but its module can't be imported: {error}"
        ) from error
    try:
        application: ASGIApplication = getattr(module, name)
    except AttributeError as error:
        raise ImproperlyConfigured(
            f"ASGI_APPLICATION is {dotted!r}, but module {module_name!r} has no {name!r}"
        ) from error
    return application


class ProtocolTypeRouter(Stage):
    """Leads to an application by ``scope["type"]``: ``http``, ``websocket``, ``channel``."""

    def __init__(self, application_mapping: Mapping[str, ASGIApplication]) -> None:
        for protocol, application in application_mapping.items():
            refuse_consumer_class(application, f"the key {protocol!r} of the ProtocolTypeRouter")
        self.application_mapping = application_mapping

    def enter(self, scope: Scope, receive: Receive, send: Send) -> Handover:
        """Hand on to the application of this protocol type; ValueError if there is none."""
        try:
            return self.application_mapping[scope["type"]], scope, receive, send
        except KeyError:
            raise NoApplicationError(
                f"no application for scope type {scope['type']!r}: add the key "
                f"{scope['type']!r} to the ProtocolTypeRouter, which has "
                f"{list(self.application_mapping)}"
            ) from None


class ChannelNameRouter(Stage):
    """Leads to an application by ``scope["channel"]``, for the events that a worker reads."""

    def __init__(self, application_mapping: Mapping[str, ASGIApplication]) -> None:
        for channel, application in application_mapping.items():
            refuse_consumer_class(application, f"the key {channel!r} of the ChannelNameRouter")
        self.application_mapping = application_mapping

    def enter(self, scope: Scope, receive: Receive, send: Send) -> Handover:
        """Hand on to the application of this channel; ValueError if there is none."""
        try:
            channel = scope["channel"]
        except KeyError:
            raise ConfigurationError(
                "a ChannelNameRouter needs a scope with a 'channel': put it behind the key "
                "'channel' of the ProtocolTypeRouter"
            ) from None
        try:
            return self.application_mapping[channel], scope, receive, send
        except KeyError:
            raise NoApplicationError(
                f"no application for channel {channel!r}: add the key {channel!r} to the "
                f"ChannelNameRouter, which has {list(self.application_mapping)}"
            ) from None


class URLRouter(Stage):
    """Leads to an application by the path, with Django's ``path()`` and ``re_path()``.

    The scope gains ``path_remaining`` and ``url_route``, a dict of the ``args`` and ``kwargs``
    that the path yielded. Routes are tried in order. A route may lead to another URLRouter,
    directly or behind middleware: then it matches the beginning of the path, its captures
    are kept, and where the inner router finds nothing the next route is tried.
    """

    # Middleware of third parties asks by this name whether an application routes further.
    _path_routing = True

    def __init__(self, routes: Sequence[URLPattern | URLResolver]) -> None:
        self.routes = routes
        self._prepare()

    def _prepare(self) -> None:
        self._prepared = tuple(self.routes)
        self._routes = [_Route(route) for route in self._prepared]

    def enter(self, scope: Scope, receive: Receive, send: Send) -> Handover:
        """Hand on to the first route that takes the path; NoRouteError if none does."""
        path = _path_to_match(scope)
        url_route = scope.get("url_route", {})
        args, kwargs = url_route.get("args", ()), url_route.get("kwargs", {})
        candidates = self._candidates(path, args, kwargs)
        first = next(candidates, None)
        if first is None:
            raise _no_route(path)
        if not first[0].is_endpoint and (others := list(candidates)):
            # Here a frame has to wait: the application may turn the path down.
            return _InTurn(path, [first, *others]), scope, receive, send
        return _enter_route(scope, first), scope, receive, send

    def _candidates(
        self, path: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> "Iterator[_Candidate]":
        if len(self.routes) != len(self._prepared):
            # Routes that a list was given after its router was built count, too.
            self._prepare()
        for route in self._routes:
            match = route.match(path)
            if match is None:
                continue
            remaining, new_args, new_kwargs = match
            new_args = args + new_args
            new_kwargs = {**kwargs, **new_kwargs, **route.default_args}
            if route.router is None:
                yield route, remaining, new_args, new_kwargs
            else:
                yield from route.router._candidates(  # noqa: SLF001 - of the same class
                    remaining.lstrip("/"), new_args, new_kwargs
                )


class _Route:
    """One route, with what can be known about it before any path is seen."""

    __slots__ = ("application", "default_args", "is_endpoint", "match", "router")

    def __init__(self, route: URLPattern | URLResolver) -> None:
        callback: Any = route.callback
        if isinstance(route, URLResolver) or callback is None:
            raise ImproperlyConfigured(
                f"{route!r}: include() is not supported in URLRouter. Let the route lead to "
                "another URLRouter instead"
            )
        refuse_consumer_class(callback, route)
        innermost = _innermost(callback)
        pattern = route.pattern
        if getattr(innermost, "_path_routing", False) is True:
            pattern = _as_prefix(pattern)
        self.match = pattern.match
        self.default_args = route.default_args
        # Only a class can be told to be of ASGI 2: an ordinary function may well return an
        # awaitable, as a partial, a lambda and a mock do.
        if isinstance(callback, type):
            callback = guarantee_single_callable(callback)  # type: ignore[no-untyped-call]
        self.application: ASGIApplication = callback
        #: The router to look into at once, instead of calling it.
        self.router = callback if type(callback).__call__ is URLRouter.__call__ else None
        #: A consumer never asks for the next route: nothing has to wait for it to end.
        self.is_endpoint = hasattr(innermost, "consumer_class")


#: A route that takes the path, what it leaves of the path, and the captures so far.
_Candidate: TypeAlias = tuple[_Route, str, tuple[Any, ...], dict[str, Any]]


def _enter_route(scope: Scope, candidate: _Candidate) -> ASGIApplication:
    """Write into the scope how it came to this route, and return the route's application."""
    route, scope["path_remaining"], args, kwargs = candidate
    scope["url_route"] = {"args": args, "kwargs": kwargs}
    return route.application


class _InTurn:
    """Runs the candidates one after the other, until one doesn't turn the path down."""

    def __init__(self, path: str, candidates: "list[_Candidate]") -> None:
        self._path = path
        self._candidates = candidates

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
        for candidate in self._candidates:
            own_scope = dict(scope)
            application = _enter_route(own_scope, candidate)
            try:
                return await application(own_scope, receive, send)
            except Resolver404:
                continue
        raise _no_route(self._path)


def _path_to_match(scope: Scope) -> str:
    """Return the path that this router's routes are compared with, without leading slashes."""
    path: str | None = scope.get("path_remaining")
    if path is None:
        # The outermost router: the server's mount point is not for routes to know.
        path = scope.get("path")
        if path is None:
            raise ConfigurationError("a URLRouter needs a scope with a 'path'")
        root_path = scope.get("root_path", "")
        if root_path:
            rest = path.removeprefix(root_path)
            if rest == path or not (root_path.endswith("/") or rest[:1] in ("", "/")):
                raise _no_route(path)
            path = rest
    return path.lstrip("/")


def _no_route(path: str) -> NoRouteError:
    shown = path if len(path) <= _SHOWN_CHARACTERS else path[:_SHOWN_CHARACTERS] + "…"
    # These words are what tests of applications look for.
    return NoRouteError(f"No route found for path {shown!a}.")


def _innermost(application: Any) -> Any:
    """Follow a chain of middleware, by the names that they use, to where it ends."""
    for _ in range(32):
        for name in ("inner", "application", "app"):
            inner = getattr(application, "__dict__", {}).get(name)
            if callable(inner):
                application = inner
                break
        else:
            break
    return application


def _as_prefix(pattern: Any) -> Any:
    """Return the pattern such that it matches the beginning of a path."""
    # The private attribute, because ``str(pattern)`` would fix the language of a translated one.
    if isinstance(pattern, RoutePattern):
        return type(pattern)(pattern._route, pattern.name, is_endpoint=False)  # type: ignore[attr-defined]  # noqa: SLF001
    if isinstance(pattern, RegexPattern):
        return type(pattern)(pattern._regex, pattern.name, is_endpoint=False)  # type: ignore[attr-defined]  # noqa: SLF001
    return pattern
