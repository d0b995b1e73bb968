"""Engine events <-> ASGI: the scopes of an application, and what its messages must be.

Source: the ASGI specification 3.0, its HTTP and WebSocket message format 2.5 and its
lifespan protocol 2.0.
"""

import logging
from collections.abc import Awaitable, Coroutine, Iterable
from types import CoroutineType
from typing import Any
from urllib.parse import quote

from ..exceptions import LocalProtocolError
from ..protocols.http1 import RequestReceived
from .bounded_log import printable
from .runtime import Address, ASGIApplication, Message, Receive, Runtime, Scope, Send

__all__ = [
    "ClientDisconnected",
    "Headers",
    "as_coroutine",
    "comes_of_disconnect",
    "http_scope",
    "message_type",
    "outgoing_headers",
    "printable",
    "refusal_level",
    "refusal_status",
    "unexpected",
    "websocket_scope",
]

Headers = list[tuple[bytes, bytes]]

_VERSIONS = {"version": "3.0", "spec_version": "2.5"}
_NO_OPTIONS: dict[str, Any] = {}
_TE = (b"te", b"trailers")


class ClientDisconnected(OSError):
    """What ``send()`` raises once the connection is gone (ASGI, "Send after disconnect")."""


def http_scope(
    request: RequestReceived,
    runtime: Runtime,
    *,
    scheme: str,
    client: Address | None,
    server: Address | None,
    extension: dict[str, Any],
) -> Scope:
    """Return the scope of an HTTP request."""
    extensions: dict[str, Any] = {"http.response.early_hint": {}, "headrace": extension}
    if request.http_version == "2" or _TE in request.headers:
        # RFC 9110 §6.5.1: over HTTP/1.1 to clients that say so; HTTP/2 has a place for them.
        extensions["http.response.trailers"] = _NO_OPTIONS
    scope: Scope = {
        "type": "http",
        "asgi": _VERSIONS,
        "http_version": request.http_version,
        "method": request.method,
        "scheme": scheme,
        "path": request.path,
        "raw_path": request.raw_path,
        "query_string": request.query_string,
        "root_path": "",
        "headers": request.headers,
        "client": client,
        "server": server,
        "extensions": extensions,
    }
    if runtime.state is not None or runtime.config.root_path:
        _give_more(scope, runtime)
    return scope


def websocket_scope(
    request: RequestReceived,
    runtime: Runtime,
    *,
    scheme: str,
    client: Address | None,
    server: Address | None,
    subprotocols: list[str],
    extension: dict[str, Any],
) -> Scope:
    """Return the scope of a WebSocket."""
    scope: Scope = {
        "type": "websocket",
        "asgi": _VERSIONS,
        "http_version": request.http_version,
        "scheme": "wss" if scheme == "https" else "ws",
        "path": request.path,
        "raw_path": request.raw_path,
        "query_string": request.query_string,
        "root_path": "",
        "headers": request.headers,
        "client": client,
        "server": server,
        "subprotocols": subprotocols,
        "extensions": {"websocket.http.response": _NO_OPTIONS, "headrace": extension},
    }
    if runtime.state is not None or runtime.config.root_path:
        _give_more(scope, runtime)
    return scope


def _give_more(scope: Scope, runtime: Runtime) -> None:
    """Put in what only some servers have: a root path, and a state of the application's."""
    root_path = scope["root_path"] = runtime.config.root_path
    if root_path and scope["raw_path"].startswith(b"/"):
        # ASGI: the path begins with the root path. The option is for a proxy that takes it
        # away before it passes the request on.
        scope["path"] = root_path + scope["path"]
        scope["raw_path"] = quote(root_path).encode() + scope["raw_path"]
    if runtime.state is not None:
        scope["state"] = runtime.state.copy()


def as_coroutine(
    app: ASGIApplication, scope: Scope, receive: Receive, send: Send
) -> Coroutine[Any, Any, None]:
    """Call the application; whatever it gives or raises comes out of one coroutine."""
    try:
        awaitable = app(scope, receive, send)
    except (Exception, SystemExit) as error:
        return _raise(error)
    return awaitable if isinstance(awaitable, CoroutineType) else _wait_for(awaitable)


async def _wait_for(awaitable: Awaitable[None]) -> None:
    await awaitable


async def _raise(error: BaseException) -> None:
    raise error


def refusal_status(error: BaseException) -> int | None:
    """Return the 4xx by which an exception of the application says: the client's mistake.

    An exception's class does so by an attribute ``status``; a router's error for a path that
    nobody serves has 404. An attribute of the instance says nothing: there the libraries of
    HTTP clients note what some other server has answered.
    """
    status = getattr(type(error), "status", None)
    return status if isinstance(status, int) and 400 <= status < 500 else None


def refusal_level(error: BaseException) -> int:
    """Return the level at which such a refusal is logged: that of its class, or else INFO.

    A path that nobody serves is the client's affair; a protocol that nobody serves is a gap
    in the site's configuration, whose exception has a ``log_level`` of WARNING.
    """
    level = getattr(type(error), "log_level", logging.INFO)
    return level if isinstance(level, int) else logging.INFO


def comes_of_disconnect(error: BaseException) -> bool:
    """Say whether the application ended with this because its client was gone.

    Frameworks put exceptions of their own in the place of ours, and task groups pack them.
    """
    if isinstance(error, BaseExceptionGroup):
        return all(map(comes_of_disconnect, error.exceptions))
    if isinstance(error, ClientDisconnected):
        return True
    behind = error.__cause__ or error.__context__
    return behind is not None and comes_of_disconnect(behind)


def message_type(message: Message) -> str:
    """Return the type of what the application sent; LocalProtocolError if it has none."""
    try:
        type_ = message["type"]
    except (TypeError, KeyError):
        raise LocalProtocolError(
            f"an ASGI message is a dict with a 'type', not {message!r:.100}"
        ) from None
    if not isinstance(type_, str):
        raise LocalProtocolError(f"the 'type' of an ASGI message is a str, not {type_!r:.100}")
    return type_


def unexpected(message: Message, *, state: str, expected: str) -> LocalProtocolError:
    """Return the error for a message that this state has no use for."""
    return LocalProtocolError(
        f"cannot send {message_type(message)!r}: state={state}, expected {expected}"
    )


def outgoing_headers(message: Message) -> Headers:
    """Return the message's headers as pairs of bytes; LocalProtocolError names what is not."""
    pairs: Iterable[Any] = message.get("headers") or ()
    headers: Headers = []
    for pair in pairs:
        try:
            name, value = pair
        except (TypeError, ValueError):
            raise LocalProtocolError(f"a header is a pair of bytes, not {pair!r:.100}") from None
        if not (isinstance(name, bytes) and isinstance(value, bytes)):
            raise LocalProtocolError(f"header name and value are bytes, not {pair!r:.100}")
        headers.append((name.lower(), value))
    return headers
