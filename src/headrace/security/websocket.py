"""Whose pages may open a WebSocket here: the Origin header against a list.

A browser lets any page open a WebSocket to any host, and sends that host's cookies along;
the Origin header, which a page can't forge, is all that tells them apart.

Rules of this file:

- What is not allowed is denied: a foreign origin, ``null``, none at all, several, or one
  that isn't a URL. Only ``"*"`` lets them pass.
- Each denial is one line in the log ``headrace.security``, bounded and escaped, since an
  attacker writes half of it.
"""

import logging
from collections.abc import Collection, Iterable
from functools import lru_cache
from typing import Any
from urllib.parse import ParseResult, urlparse

from django.conf import settings
from django.utils.http import is_same_domain

from ..exceptions import ConfigurationError
from ..instruments import process
from ..middleware import (
    ASGIApplication,
    Handover,
    Receive,
    Scope,
    Send,
    Stage,
    refuse_consumer_class,
)

__all__ = ["AllowedHostsOriginValidator", "OriginValidator", "WebsocketDenier"]

logger = logging.getLogger("headrace.security")

_refused = process.counters(
    "headrace_middleware_refusals_total", "Connections refused by a middleware.", "by"
)["origin"]

_DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}
_LOGGED_CHARACTERS = 200


class OriginValidator(Stage):
    """Lets those WebSockets through to ``application`` whose origin is allowed.

    An allowed origin is a host (``example.com``, ``example.com:8443``), a host and all below
    it (``.example.com``), either of them with scheme and, where it isn't the scheme's own,
    port (``https://example.com``, ``http://.example.com:8000``; ``:*`` is any port), or ``*``
    for any.

    Raises ConfigurationError for one that can't be read, and for a str in the place of a list.
    """

    def __init__(self, application: ASGIApplication, allowed_origins: Collection[str]) -> None:
        refuse_consumer_class(application, type(self).__name__)
        self.application = application
        self.allowed_origins = allowed_origins
        if _reads_patterns(type(self)):
            if isinstance(allowed_origins, str) and allowed_origins != "*":
                # Each of its letters would be a host, and nobody would be let in.
                raise ConfigurationError(f"allowed origins are a list: write [{allowed_origins!r}]")
            for pattern in allowed_origins:
                _parse_pattern(pattern)

    def enter(self, scope: Scope, receive: Receive, send: Send) -> Handover:
        """Hand on to the application, or to a ``WebsocketDenier``."""
        if scope["type"] != "websocket":
            raise ConfigurationError(
                f"OriginValidator got a scope of type {scope['type']!r}: put it behind the key "
                "'websocket' of the ProtocolTypeRouter"
            )
        origins = [value for name, value in scope.get("headers", ()) if name == b"origin"]
        if self.valid_origin(_parse(origins)):
            return self.application, scope, receive, send
        _refused.value += 1
        logger.warning("WebSocket %s denied: %s", _shown(scope.get("path", "")), _why(origins))
        return WebsocketDenier(), scope, receive, send

    def valid_origin(self, parsed_origin: ParseResult | None) -> bool:
        """Tell whether a connection with this origin, None for none, is let through."""
        if parsed_origin is None:
            # Decided here, so that what a subclass overrides is asked about origins only.
            return "*" in self.allowed_origins
        return self.validate_origin(parsed_origin)

    def validate_origin(self, parsed_origin: ParseResult | None) -> bool:
        """Tell whether any of the allowed origins matches."""
        return any(
            pattern == "*" or self.match_allowed_origin(parsed_origin, pattern)
            for pattern in self.allowed_origins
        )

    def match_allowed_origin(self, parsed_origin: ParseResult | None, pattern: str) -> bool:
        """Tell whether this one of the allowed origins matches; a port must match exactly."""
        if parsed_origin is None or not parsed_origin.hostname:
            return False
        allowed, any_port = _parse_pattern(pattern)
        return (
            is_same_domain(parsed_origin.hostname, allowed.hostname or pattern.lower())
            and (not allowed.scheme or parsed_origin.scheme == allowed.scheme)
            and (any_port or self.get_origin_port(parsed_origin) == self.get_origin_port(allowed))
        )

    def get_origin_port(self, origin: ParseResult) -> int | None:
        """Return the port of an origin, or of an allowed one; else that of its scheme, or None."""
        return origin.port or _DEFAULT_PORTS.get(origin.scheme)


class _AllowedHosts(OriginValidator):
    """An OriginValidator whose list is that of the settings at each handshake.

    An application is built once, and tests change ALLOWED_HOSTS after that (a live server
    adds its own).
    """

    def __init__(self, application: ASGIApplication) -> None:
        refuse_consumer_class(application, "AllowedHostsOriginValidator")
        self.application = application

    @property
    def allowed_origins(self) -> Collection[str]:  # type: ignore[override]
        hosts: Collection[str] = settings.ALLOWED_HOSTS
        if settings.DEBUG and not hosts:
            hosts = ["localhost", "127.0.0.1", "[::1]"]
        return hosts


def AllowedHostsOriginValidator(application: ASGIApplication) -> OriginValidator:  # noqa: N802 - as a class
    """Let those WebSockets through that come from a page of ``ALLOWED_HOSTS``.

    With DEBUG and no ALLOWED_HOSTS those are the local hosts, as in Django.
    """
    return _AllowedHosts(application)


class WebsocketDenier:
    """An ASGI application that refuses each WebSocket before it is accepted.

    Override ``connect`` to tell the client more: accept, and close with a code.
    """

    scope: Scope
    _send: Send

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Wait for the connection's first event, and call ``connect()``."""
        self.scope = scope
        self._send = send
        await receive()
        await self.connect()

    @classmethod
    def as_asgi(cls) -> ASGIApplication:
        """Return an ASGI application, as a consumer's ``as_asgi`` does."""

        async def deny(scope: Scope, receive: Receive, send: Send) -> None:
            await cls()(scope, receive, send)

        return deny

    async def connect(self) -> None:
        """Refuse the WebSocket: the client gets a 403."""
        await self.close()

    async def accept(
        self, subprotocol: str | None = None, headers: Iterable[tuple[bytes, bytes]] = ()
    ) -> None:
        """Accept it, for only then can the client be told a close code."""
        await self._send(
            {"type": "websocket.accept", "subprotocol": subprotocol, "headers": list(headers)}
        )

    async def close(self, code: int | None = None, reason: str | None = None) -> None:
        """Close it; before it is accepted: refuse it."""
        event: dict[str, Any] = {"type": "websocket.close"}
        if code is not None:
            event["code"] = code
        if reason:
            event["reason"] = reason
        await self._send(event)


def _parse(origins: list[bytes]) -> ParseResult | None:
    if len(origins) != 1:
        return None
    try:
        origin = urlparse(origins[0].decode("ascii"))
        origin.port  # noqa: B018 - raises ValueError for a port that can't be
    except ValueError:
        return None
    return origin


def _reads_patterns(validator: type[OriginValidator]) -> bool:
    """Tell whether the allowed origins are of our syntax, not of a subclass's own."""
    return all(
        getattr(validator, name) is getattr(OriginValidator, name)
        for name in ("match_allowed_origin", "validate_origin", "valid_origin")
    )


@lru_cache(maxsize=1024)
def _parse_pattern(pattern: str) -> tuple[ParseResult, bool]:
    """Return an allowed origin in its parts, and whether it is one of any port."""
    pattern = pattern.lower()
    fixed = pattern.removesuffix(":*")
    try:
        parsed = urlparse(fixed if "//" in fixed else f"//{fixed}")
        port = parsed.port
    except ValueError as error:
        raise ConfigurationError(f"{pattern!r} is no origin to be allowed: {error}") from None
    return parsed, fixed != pattern or (not parsed.scheme and port is None)


def _why(origins: list[bytes]) -> str:
    match [origin.decode("latin-1") for origin in origins]:
        case []:
            return "it has no Origin header"
        case [origin]:
            return f"the origin {_shown(origin)} is not allowed"
        case several:
            return f"it has {len(several)} Origin headers, the first {_shown(several[0])}"


def _shown(text: Any) -> str:
    """Return the text, quoted, printable and bounded."""
    shown = ascii(text)
    return shown if len(shown) <= _LOGGED_CHARACTERS else f"{shown[:_LOGGED_CHARACTERS]}…"
