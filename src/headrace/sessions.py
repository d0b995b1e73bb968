"""Django's cookies and sessions for connections that are no Django requests.

Rules of this file:

- A session is read when somebody looks into it, not when the connection arrives.
- ``send`` is wrapped only where an answer can carry the session's cookie: for HTTP. A
  WebSocket keeps the server's own ``send``, and with it the server's fast lane; what its
  consumer changes in the session, its consumer saves.
"""

import datetime
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from typing import Any

from django.conf import settings
from django.contrib.sessions.backends.base import SessionBase, UpdateError
from django.contrib.sessions.exceptions import SessionInterrupted
from django.core.exceptions import SuspiciousOperation
from django.http import HttpResponse, parse_cookie
from django.utils.functional import LazyObject

from .db import database_sync_to_async
from .exceptions import ConfigurationError
from .middleware import ASGIApplication, BaseMiddleware, Event, Handover, Receive, Scope, Send

__all__ = [
    "CookieMiddleware",
    "InstanceSessionWrapper",
    "SessionMiddleware",
    "SessionMiddlewareStack",
]


class CookieMiddleware(BaseMiddleware):
    """Puts the request's cookies into ``scope["cookies"]``, a dict of strings."""

    def enter(self, scope: Scope, receive: Receive, send: Send) -> Handover:
        """Parse the cookies; ValueError for a scope that has no headers."""
        try:
            headers = scope["headers"]
        except KeyError:
            raise ConfigurationError(
                f"a scope of type {scope.get('type')!r} has no headers: put CookieMiddleware "
                "in front of HTTP and WebSocket applications only"
            ) from None
        # HTTP/2 may send one header for each cookie (RFC 9113 §8.2.3).
        crumbs = [value for name, value in headers if name == b"cookie"]
        scope["cookies"] = parse_cookie(b"; ".join(crumbs).decode("latin-1")) if crumbs else {}
        return self.inner, scope, receive, send

    @classmethod
    def set_cookie(
        cls,
        message: Event,
        key: str,
        value: str = "",
        max_age: int | datetime.timedelta | None = None,
        expires: str | datetime.datetime | None = None,
        path: str = "/",
        domain: str | None = None,
        secure: bool = False,
        httponly: bool = False,
        samesite: Any = "lax",  # Django's settings may say False for "no attribute"
    ) -> None:
        """Add a ``Set-Cookie`` header to an event that has headers.

        That is ``http.response.start`` or ``websocket.accept``. The arguments are those of
        Django's ``HttpResponse.set_cookie``, and so are the errors.
        """
        response = HttpResponse()
        try:
            response.set_cookie(
                key, value, max_age, expires, path, domain, secure, httponly, samesite
            )
        except ValueError as error:
            raise _CookieError(str(error)) from None
        header = (b"Set-Cookie", response.cookies[key].OutputString().encode())
        message["headers"] = [*message.get("headers", ()), header]

    @classmethod
    def delete_cookie(
        cls, message: Event, key: str, path: str = "/", domain: str | None = None
    ) -> None:
        """Add a ``Set-Cookie`` header that makes the client forget the cookie.

        ``path`` and ``domain`` must be those that it was set with.
        """
        epoch = "Thu, 01-Jan-1970 00:00:00 GMT"
        cls.set_cookie(message, key, max_age=0, expires=epoch, path=path, domain=domain)


class _SessionGoneError(SessionInterrupted, SuspiciousOperation):
    # What Django's own middleware raises, and what Channels does. Both are answered with 400,
    # by Django and, for this attribute, by Headrace's server.
    status = 400


class _CookieError(ValueError, AssertionError):
    """Of an argument: an AssertionError in Channels, a ValueError in Django."""


class InstanceSessionWrapper:
    """The session of one connection: finds it, and saves it with the answer.

    A subclass may name more events; put it into ``SessionMiddleware.wrapper_class``.
    """

    #: Events before which a modified session is saved.
    save_message_types: Sequence[str] = ["http.response.start"]
    #: Those of them whose headers can tell the client the session's key.
    cookie_response_message_types: Sequence[str] = ["http.response.start"]

    def __init__(self, scope: Scope, send: Send) -> None:
        self.cookie_name: str = settings.SESSION_COOKIE_NAME
        self.session_store = _session_store(settings.SESSION_ENGINE)
        self.scope = dict(scope)
        self.real_send = send
        #: False behind another session middleware, whose session this one leaves alone.
        self.activated = "session" not in self.scope
        if self.activated and "cookies" not in self.scope:
            raise ConfigurationError(
                "no cookies in the scope: put CookieMiddleware in front of SessionMiddleware, "
                "or use SessionMiddlewareStack"
            )
        if self.activated:
            # A subclass may fill it; ours puts the session itself in its place.
            self.scope["session"] = LazyObject()

    async def resolve_session(self) -> None:
        """Put the session into the scope; nothing is read from its store yet."""
        if self.activated:
            key = self.scope["cookies"].get(self.cookie_name)
            self.scope["session"] = self.session_store(key)

    async def send(self, message: Event) -> None:
        """Send on, after the session was saved if it has to be."""
        if (
            self.activated
            and message["type"] in self.save_message_types
            and message.get("status", 200) < 500
        ):
            session: SessionBase = self.scope["session"]
            if session.modified or settings.SESSION_SAVE_EVERY_REQUEST:
                if not session.is_empty():
                    await self.save_session()
                if message["type"] in self.cookie_response_message_types:
                    self._tell_client(message, session)
        await self.real_send(message)

    async def save_session(self) -> None:
        """Save the session.

        Raises SessionInterrupted, here a SuspiciousOperation too, if it was deleted meanwhile.
        """
        try:
            await database_sync_to_async(self.scope["session"].save)()
        except UpdateError:
            raise _SessionGoneError(
                "the session was deleted while this request was being answered: the user may "
                "have logged out in another one"
            ) from None

    def _tell_client(self, message: Event, session: SessionBase) -> None:
        path, domain = settings.SESSION_COOKIE_PATH, settings.SESSION_COOKIE_DOMAIN
        if not session.is_empty():
            lasting = not session.get_expire_at_browser_close()
            CookieMiddleware.set_cookie(
                message,
                self.cookie_name,
                session.session_key or "",
                max_age=session.get_expiry_age() if lasting else None,
                path=path,
                domain=domain,
                secure=settings.SESSION_COOKIE_SECURE,
                httponly=settings.SESSION_COOKIE_HTTPONLY,
                samesite=settings.SESSION_COOKIE_SAMESITE,
            )
        elif self.cookie_name in self.scope["cookies"]:
            CookieMiddleware.delete_cookie(message, self.cookie_name, path=path, domain=domain)


class SessionMiddleware(BaseMiddleware):
    """Puts Django's session into ``scope["session"]``; needs the cookies in the scope.

    An HTTP answer saves a modified session and sets its cookie. On a WebSocket the consumer
    saves: ``await scope["session"].asave()``.
    """

    wrapper_class: type[InstanceSessionWrapper] = InstanceSessionWrapper

    async def enter(self, scope: Scope, receive: Receive, send: Send) -> Handover:
        """Resolve the session, and wrap ``send`` if an answer of this protocol saves it."""
        wrapper = self.wrapper_class(scope, send)
        await wrapper.resolve_session()
        if _wraps(self.wrapper_class, scope["type"]):
            send = wrapper.send
        return self.inner, wrapper.scope, receive, send


def SessionMiddlewareStack(inner: ASGIApplication) -> CookieMiddleware:  # noqa: N802 - a stack of classes
    """Put cookies and the session into the scope of ``inner``."""
    return CookieMiddleware(SessionMiddleware(inner))


@cache
def _session_store(engine: str) -> type[SessionBase]:
    store: type[SessionBase] = import_module(engine).SessionStore
    return store


def _wraps(wrapper_class: type[InstanceSessionWrapper], protocol: str) -> bool:
    """Tell whether any event of this protocol concerns the session."""
    types = {*wrapper_class.save_message_types, *wrapper_class.cookie_response_message_types}
    overridden = wrapper_class.send is not InstanceSessionWrapper.send
    return overridden or any(type_.startswith(f"{protocol}.") for type_ in types)
