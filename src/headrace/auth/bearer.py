"""Who is connecting, by a bearer token: for programs, apps and pages without a session.

Rules of this file:

- A token is looked for where the middleware was told to, and nowhere else. Two of them in one
  request are none (RFC 6750 §2).
- A token that is given and not good is refused, whoever else may pass.
- No token appears in the log, in an error or in an answer. What only served to carry it (an
  entry of the subprotocols, a part of the query string) the application does not see.
- Identity before accept: a refusal is an HTTP answer, 401 with a challenge, and the
  application behind runs only once the user is in its scope. With ``FirstMessage`` the
  handshake is over by then, and the refusal is a close code.
"""

import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from inspect import isawaitable
from typing import Any, Protocol, TypeAlias
from urllib.parse import unquote_plus

from asgiref.sync import iscoroutinefunction
from django.core.exceptions import PermissionDenied
from django.core.signing import BadSignature

from ..db import aclose_old_connections, cleanup_due, database_sync_to_async
from ..exceptions import CloseCode, ConfigurationError
from ..instruments import process
from ..middleware import ASGIApplication, BaseMiddleware, Handover, Receive, Scope, Send
from ._identity import anonymous, is_welcome
from .first_message import FirstMessage, Refused, open_with_first_message
from .sockets import register

__all__ = [
    "AuthorizationHeader",
    "BearerTokenMiddleware",
    "QueryString",
    "Source",
    "Subprotocol",
    "Verify",
]

logger = logging.getLogger("headrace.auth")

_refused = process.counters(
    "headrace_middleware_refusals_total", "Connections refused by a middleware.", "by"
)["token"]

#: Returns the user whom a token stands for, or None; an ordinary function or a coroutine's.
Verify: TypeAlias = Callable[[str], Any]

_LOGGED_CHARACTERS = 200


class Source(Protocol):
    """A place of the request where a token may be."""

    def take(self, scope: Scope, /) -> list[str]:
        """Return the tokens that are there, and hide from the application what carried them.

        ``scope`` is the application's own copy; what it refers to is not to be changed.
        """
        ...


@dataclass(frozen=True, slots=True)
class AuthorizationHeader:
    """``Authorization: Bearer <token>`` (RFC 6750 §2.1), as programs send it.

    No page can: a browser's ``WebSocket`` takes no headers. The header stays in the scope.
    """

    def take(self, scope: Scope, /) -> list[str]:
        """See ``Source``."""
        values = [value for name, value in scope["headers"] if name == b"authorization"]
        credentials = [value.decode("latin-1").partition(" ") for value in values]
        # RFC 9110 §11.1: the scheme is case-insensitive.
        return [rest.strip() for scheme, _, rest in credentials if scheme.lower() == "bearer"]


@dataclass(frozen=True, slots=True)
class Subprotocol:
    """An entry ``bearer.<token>`` of ``Sec-WebSocket-Protocol``, as pages send it.

    ``new WebSocket(url, ["chat", "bearer." + token])``. An entry is a token of HTTP (RFC 6455
    §4.1): letters, digits and ``!#$%&'*+-.^_`|~``. Base64url and dots are fine, as in a JWT;
    ``:``, ``/`` and ``=`` are not.
    """

    prefix: str = "bearer."

    def take(self, scope: Scope, /) -> list[str]:
        """See ``Source``."""
        offered: list[str] = scope.get("subprotocols") or []
        tokens = [entry.removeprefix(self.prefix) for entry in offered if self._carries(entry)]
        if tokens:
            scope["subprotocols"] = [entry for entry in offered if not self._carries(entry)]
            scope["headers"] = list(self._without_tokens(scope["headers"]))
        return tokens

    def _carries(self, entry: str) -> bool:
        return entry.startswith(self.prefix)

    def _without_tokens(
        self, headers: Iterable[tuple[bytes, bytes]]
    ) -> Iterable[tuple[bytes, bytes]]:
        for name, value in headers:
            if name != b"sec-websocket-protocol":
                yield name, value
                continue
            entries = [entry.strip() for entry in value.decode("latin-1").split(",")]
            kept = ", ".join(entry for entry in entries if entry and not self._carries(entry))
            if kept:
                yield name, kept.encode("latin-1")


@dataclass(frozen=True, slots=True)
class QueryString:
    """A parameter of the query string, for clients that have no other way.

    Servers, proxies and browsers write addresses into logs and histories, the token with
    them: let such a token be good for one connection, and for seconds.
    """

    parameter: str = "token"

    def take(self, scope: Scope, /) -> list[str]:
        """See ``Source``."""
        parts = scope.get("query_string", b"").decode("latin-1").split("&")
        named = [(unquote_plus(part.partition("=")[0]), part) for part in parts]
        tokens = [part for name, part in named if name == self.parameter]
        if tokens:
            rest = "&".join(part for name, part in named if name != self.parameter)
            scope["query_string"] = rest.encode("latin-1")
        return [unquote_plus(token.partition("=")[2]) for token in tokens]


class BearerTokenMiddleware(BaseMiddleware):
    """Puts the user whom a bearer token stands for into ``scope["user"]``.

    For HTTP as well as for WebSockets. Who is refused gets a 401 with a ``WWW-Authenticate``
    challenge; a server that lacks ASGI's extension ``websocket.http.response`` says 403.

    Args:
        inner: The application behind.
        verify: Called with the token; returns the user, or None if it is not good. An
            ordinary function runs in the ORM's thread. A user who is deactivated or anonymous
            is refused, and so is a token for which it raises ``BadSignature`` (of
            ``django.core.signing``) or ``PermissionDenied``. Any other exception is a failure
            of the application; its text is withheld, for it may quote the token.
        sources: Where to look for the token.
        required: Whether a connection without a token is refused. Otherwise it keeps the user
            it has in its scope already, or gets an ``AnonymousUser``.
        realm: Of the challenge (RFC 9110 §11.5).
    """

    def __init__(
        self,
        inner: ASGIApplication,
        verify: Verify,
        *,
        sources: Iterable[Source | FirstMessage] = (AuthorizationHeader(), Subprotocol()),
        required: bool = True,
        realm: str | None = None,
    ) -> None:
        super().__init__(inner)
        if not callable(verify):
            raise ConfigurationError(f"verify is a function of the token, not {verify!r}")
        self.required = required
        self.realm = realm
        sources = list(sources)
        self.sources = [source for source in sources if not isinstance(source, FirstMessage)]
        messages = [source for source in sources if isinstance(source, FirstMessage)]
        self.first_message = messages[0] if messages else None
        if self.first_message is not None and not required:
            raise ConfigurationError(
                "with FirstMessage a token is required: the first message of a client that "
                "has none would be taken for one"
            )
        self._verify = _in_a_coroutine(verify)

    async def enter(self, scope: Scope, receive: Receive, send: Send) -> Handover:
        """Find out who it is, and hand on to ``inner``, or to a refusal."""
        if scope["type"] not in ("http", "websocket"):
            raise ConfigurationError(
                f"BearerTokenMiddleware got a scope of type {scope['type']!r}: put it behind "
                "the keys 'http' and 'websocket' of the ProtocolTypeRouter"
            )
        # Each of them looks, so that each hides what it knows of.
        tokens = [token for source in self.sources for token in source.take(scope)]
        if len(tokens) > 1:
            return self._refuse(scope, receive, send, 400, "invalid_request")
        if tokens:
            user = await self.user_of(tokens[0])
            if user is None:
                return self._refuse(scope, receive, send, 401, "invalid_token")
            scope["user"] = user
        elif self.first_message is not None and scope["type"] == "websocket":
            try:
                scope["user"], receive, send = await open_with_first_message(
                    self.first_message, self.user_of, scope, receive, send
                )
            except Refused as refused:
                _log_refusal(scope, str(refused))
                return _over, scope, receive, send
        elif self.required:
            return self._refuse(scope, receive, send, 401, None)
        elif "user" not in scope:
            scope["user"] = anonymous()
        register(scope)
        return self.inner, scope, receive, send

    async def user_of(self, token: str) -> Any:
        """Return the user whom the token stands for, or None."""
        if not token or not token.isascii() or not token.isprintable() or " " in token:
            return None
        try:
            user = await self._verify(token)
        except (BadSignature, PermissionDenied):
            return None
        except Exception as error:
            failure = RuntimeError(
                f"verify raised {type(error).__name__}; what it said is withheld, for it may "
                "quote the token"
            ).with_traceback(error.__traceback__)
        else:
            return user if is_welcome(user) else None
        finally:
            if cleanup_due():
                await aclose_old_connections()
        # Out here the other one is not its context, and so in no log.
        raise failure

    def _refuse(
        self, scope: Scope, receive: Receive, send: Send, status: int, error: str | None
    ) -> Handover:
        _log_refusal(scope, error or "no token")
        parameters = [
            f'{name}="{_quoted(value)}"'
            for name, value in (("realm", self.realm), ("error", error))
            if value is not None
        ]
        challenge = f"Bearer {', '.join(parameters)}".rstrip().encode("latin-1")
        return _Refusal(status, challenge), scope, receive, send


class _Refusal:
    """An ASGI application that answers in the place of another."""

    def __init__(self, status: int, challenge: bytes) -> None:
        self._status = status
        self._challenge = challenge

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = "http.response"
        if scope["type"] == "websocket":
            await receive()
            kind = "websocket.http.response"
            if kind not in (scope.get("extensions") or {}):
                await send({"type": "websocket.close", "code": int(CloseCode.UNAUTHORIZED)})
                return
        text = {400: b"more than one bearer token", 401: b"a bearer token is needed"}[self._status]
        headers = [
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", str(len(text)).encode()),
            (b"www-authenticate", self._challenge),
        ]
        await send({"type": f"{kind}.start", "status": self._status, "headers": headers})
        await send({"type": f"{kind}.body", "body": text})


async def _over(scope: Scope, receive: Receive, send: Send) -> None:
    """Do nothing: the client has had its answer."""


def _in_a_coroutine(verify: Verify) -> Callable[[str], Awaitable[Any]]:
    if iscoroutinefunction(verify) or iscoroutinefunction(getattr(verify, "__call__", None)):  # noqa: B004 - an object may be one
        return verify
    in_thread = database_sync_to_async(verify)

    async def verify_in_thread(token: str) -> Any:
        user = await in_thread(token)
        # Of a function that only returns another's coroutine.
        return await user if isawaitable(user) else user

    return verify_in_thread


def _log_refusal(scope: Scope, why: str) -> None:
    _refused.value += 1
    path = ascii(scope.get("path", ""))[:_LOGGED_CHARACTERS]
    logger.info("%s %s refused: %s", scope["type"], path, why)


def _quoted(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"')
