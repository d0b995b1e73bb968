"""Who is connecting: Django's login sessions for connections that are no Django requests.

Rules of this file:

- Everything that may touch the session's store or the user's table runs in one hop to the
  ORM's thread; where the client sent no session, there is no hop at all.
- A session is ended because the password changed, never because SECRET_KEY was rotated:
  every key in SECRET_KEY_FALLBACKS counts.
- Hashes are compared in constant time.
"""

from typing import Any

from django.conf import settings
from django.contrib.auth import (
    BACKEND_SESSION_KEY,
    HASH_SESSION_KEY,
    SESSION_KEY,
    get_user_model,
    load_backend,
    user_logged_in,
    user_logged_out,
)
from django.contrib.sessions.backends.base import SessionBase
from django.core.exceptions import ValidationError
from django.utils.crypto import constant_time_compare
from django.utils.functional import LazyObject

from .. import conf
from ..db import database_sync_to_async
from ..exceptions import ConfigurationError
from ..middleware import ASGIApplication, BaseMiddleware, Handover, Receive, Scope, Send
from ..sessions import CookieMiddleware, SessionMiddleware
from ._identity import anonymous, auth_hash
from .bearer import (
    AuthorizationHeader,
    BearerTokenMiddleware,
    QueryString,
    Source,
    Subprotocol,
    Verify,
)
from .first_message import FirstMessage
from .per_user import ConnectionsPerUser
from .sockets import aclose_user_sockets, close_user_sockets, move, register

__all__ = [
    "AuthMiddleware",
    "AuthMiddlewareStack",
    "AuthorizationHeader",
    "BearerTokenMiddleware",
    "ConnectionsPerUser",
    "FirstMessage",
    "QueryString",
    "Source",
    "Subprotocol",
    "UserLazyObject",
    "Verify",
    "aclose_user_sockets",
    "close_user_sockets",
    "get_user",
    "login",
    "logout",
]


async def get_user(scope: Scope) -> Any:
    """Return the user whom the scope's session belongs to, or an ``AnonymousUser``.

    A session whose login is no longer valid, because the password has changed since, is
    flushed. Raises ValueError if the scope has no session.
    """
    session = _session(scope)
    if isinstance(session, SessionBase) and session.is_empty():
        return anonymous()
    return await _get_user(session)


async def login(scope: Scope, user: Any = None, backend: str | None = None) -> None:
    """Make ``user`` (or else the scope's user) the one whom the scope's session belongs to.

    ``backend``, the dotted path of an authentication backend, is needed where several are
    configured and the user didn't come from ``authenticate()``. The session gets a new key,
    and loses the data of another user. It is saved with an HTTP answer; on a WebSocket, save
    it: ``await scope["session"].asave()``.

    Raises ValueError if there is no session, no user, or no way to choose the backend.
    """
    session = _session(scope)
    if user is None:
        user = scope.get("user")
        if user is None:
            raise ValueError("login() needs a user: as its argument, or in the scope")
    await _login(session, user, _backend_path(user, backend))
    scope["user"] = user
    await move(scope)


async def logout(scope: Scope) -> None:
    """Delete the scope's session and all its data, and make its user anonymous.

    ``user_logged_out`` is sent where somebody was logged in. With
    ``HEADRACE["CLOSE_ON_LOGOUT"]`` the session's WebSockets are closed, this one too. Raises
    ValueError if the scope has no session.
    """
    session = _session(scope)
    key = session.session_key
    user = scope.get("user")
    leaving = user if getattr(user, "is_authenticated", True) else None
    await _logout(session, leaving)
    if user is not None:
        scope["user"] = anonymous()
    if leaving is not None and key and conf.settings().close_on_logout:
        await aclose_user_sockets(leaving, session_key=key)


class UserLazyObject(LazyObject):  # type: ignore[type-arg]
    """Stands in the scope for a user who isn't known yet."""

    def _setup(self) -> None:
        raise ValueError(
            "the user of this scope isn't known yet: AuthMiddleware.resolve_scope finds them"
        )


class AuthMiddleware(BaseMiddleware):
    """Puts the user into ``scope["user"]``; needs the session in the scope.

    For another kind of identity, override ``resolve_scope``.
    """

    def populate_scope(self, scope: Scope) -> None:
        """Put a placeholder for the user into the scope, unless it has one already."""
        if "session" not in scope:
            raise ConfigurationError(
                "no session in the scope: put SessionMiddleware in front of AuthMiddleware, "
                "or use AuthMiddlewareStack"
            )
        if "user" not in scope:
            scope["user"] = UserLazyObject()

    async def resolve_scope(self, scope: Scope) -> None:
        """Find out who the user is."""
        if isinstance(placeholder := scope["user"], UserLazyObject):
            placeholder._wrapped = await get_user(scope)  # noqa: SLF001 - of our own class

    async def enter(self, scope: Scope, receive: Receive, send: Send) -> Handover:
        """Resolve the user, and hand on: identity comes before the application runs."""
        self.populate_scope(scope)
        await self.resolve_scope(scope)
        register(scope)
        return self.inner, scope, receive, send


def AuthMiddlewareStack(inner: ASGIApplication) -> CookieMiddleware:  # noqa: N802 - a stack of classes
    """Put cookies, the session and the user into the scope of ``inner``."""
    return CookieMiddleware(SessionMiddleware(AuthMiddleware(inner)))


def _session(scope: Scope) -> SessionBase:
    try:
        session: SessionBase = scope["session"]
    except KeyError:
        raise ConfigurationError(
            "no session in the scope: wrap the application in SessionMiddlewareStack or "
            "AuthMiddlewareStack"
        ) from None
    return session


@database_sync_to_async
def _get_user(session: SessionBase) -> Any:
    user_id = _user_id(session)
    path: Any = session.get(BACKEND_SESSION_KEY)
    if user_id is None or path not in settings.AUTHENTICATION_BACKENDS:
        return anonymous()
    user = load_backend(path).get_user(user_id)
    if user is None:
        return anonymous()
    if not _is_valid(session, user):
        session.flush()
        return anonymous()
    return user


@database_sync_to_async
def _login(session: SessionBase, user: Any, backend: str) -> None:
    if SESSION_KEY not in session:
        session.cycle_key()
    elif _user_id(session) != user.pk or not _is_valid(session, user):
        # What another user, or an older password, put into it is not for this login.
        session.flush()
    session[SESSION_KEY] = user._meta.pk.value_to_string(user)  # noqa: SLF001 - Django's API
    session[BACKEND_SESSION_KEY] = backend
    session[HASH_SESSION_KEY] = auth_hash(user)
    user_logged_in.send(sender=user.__class__, request=None, user=user)


@database_sync_to_async
def _logout(session: SessionBase, user: Any) -> None:
    if user is not None:
        # Before the session is gone, so that receivers can find out who is leaving.
        user_logged_out.send(sender=user.__class__, request=None, user=user)
    session.flush()


def _user_id(session: SessionBase) -> Any:
    user_id = session.get(SESSION_KEY)
    if user_id is None:
        return None
    try:
        return get_user_model()._meta.pk.to_python(user_id)  # noqa: SLF001 - Django's API
    except ValidationError:
        # Written when the keys of users were of another type.
        return None


def _is_valid(session: SessionBase, user: Any) -> bool:
    """Tell whether the session was opened with the user's present password."""
    if not hasattr(user, "get_session_auth_hash"):
        return True
    known = session.get(HASH_SESSION_KEY) or ""
    if constant_time_compare(known, user.get_session_auth_hash()):
        return True
    fallbacks = getattr(user, "get_session_auth_fallback_hash", tuple)
    return any(constant_time_compare(known, hash_) for hash_ in fallbacks())


def _backend_path(user: Any, backend: str | None) -> str:
    if backend:
        if not isinstance(backend, str):
            raise TypeError(f"the backend is {backend!r}: name it by its dotted path")
        return backend
    if path := getattr(user, "backend", None):
        return str(path)
    paths = settings.AUTHENTICATION_BACKENDS
    if len(paths) != 1:
        raise ValueError(
            f"several authentication backends are configured: say which one logs the user in, "
            f"login(scope, user, backend=...), one of {list(paths)}"
        )
    return str(paths[0])
