"""Lets in who comes from a page of this very site, as Django's protection from forgeries does.

Rules of this file:

- ``ALLOWED_HOSTS`` is not asked alone: where it is ``["*"]`` any page in the world would do, and
  what comes over this socket closes other people's connections.
- Behind a proxy the same settings hold as for forms: ``USE_X_FORWARDED_HOST`` and
  ``CSRF_TRUSTED_ORIGINS``.
"""

from urllib.parse import urlparse

from django.conf import settings
from django.http.request import validate_host

from ..middleware import ASGIApplication, Handover, Receive, Scope, Send
from ..security.websocket import OriginValidator

__all__ = ["SameOriginValidator"]


class SameOriginValidator(OriginValidator):
    """Lets those WebSockets through whose origin is the host that they were asked of."""

    def __init__(self, application: ASGIApplication) -> None:
        super().__init__(application, [])

    def enter(self, scope: Scope, receive: Receive, send: Send) -> Handover:
        """Hand on to the application, or to a ``WebsocketDenier``."""
        trusted = [pattern.replace("://*.", "://.") for pattern in settings.CSRF_TRUSTED_ORIGINS]
        validator = OriginValidator(self.application, [*_own_origins(scope), *trusted])
        return validator.enter(scope, receive, send)


def _own_origins(scope: Scope) -> list[str]:
    """Return the origins of this site's own pages, by the name that the client called it."""
    headers: dict[bytes, list[bytes]] = {}
    for name, value in scope.get("headers", ()):
        headers.setdefault(name, []).append(value)
    names = headers.get(b"host", [])
    if settings.USE_X_FORWARDED_HOST and b"x-forwarded-host" in headers:
        names = headers[b"x-forwarded-host"]
    if len(names) != 1:
        return []
    try:
        host = names[0].decode("ascii")
        parsed = urlparse(f"//{host}")
        parsed.port  # noqa: B018 - raises ValueError for a port that can't be
    except ValueError:
        return []
    if not parsed.hostname or parsed.netloc != host or "@" in host:
        return []
    allowed = settings.ALLOWED_HOSTS
    if settings.DEBUG and not allowed:
        allowed = [".localhost", "127.0.0.1", "[::1]"]
    name = f"[{parsed.hostname}]" if ":" in parsed.hostname else parsed.hostname
    if not validate_host(name, allowed):
        return []
    # A proxy may have taken the encryption away; nobody puts it on on the way.
    schemes = ["https"] if scope.get("scheme") == "wss" else ["http", "https"]
    return [f"{scheme}://{host}" for scheme in schemes]
