"""WebSocket views: one function that talks to one client, from its first message to its last.

Rules of this file:

- A view is a consumer with one handler, which lasts as long as the connection; so router,
  middleware, channel layers and tests treat it as one.
- Nothing is accepted before the view has asked for it: by ``accept()``, or by sending or
  receiving. Until then it may look at the user and refuse.
- A client that leaves ends the iteration; whatever else the view asks of its socket then
  raises ``Disconnected``, which is no error of the view.
"""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from enum import Enum, auto
from functools import partial, update_wrapper
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar, overload

from asgiref.sync import iscoroutinefunction
from django.http import QueryDict

from .codecs import decode_json, encode_json
from .consumer import AsyncConsumer
from .db import aclose_old_connections, cleanup_due
from .exceptions import (
    CloseCode,
    ConfigurationError,
    DenyConnection,
    InvalidChannelLayerError,
    LocalProtocolError,
    StopConsumer,
)
from .generic.websocket import denial_events
from .layers import BaseChannelLayer
from .layers.base import Event

__all__ = ["Disconnected", "Group", "WebSocket", "websocket_view"]

P = ParamSpec("P")
T = TypeVar("T")

logger = logging.getLogger("headrace.consumer")

Message = str | bytes
Headers = Iterable[tuple[bytes, bytes]]


class Disconnected(ConnectionError):
    """The WebSocket is over. A view need not catch it: it has nobody to talk to any more."""


class _State(Enum):
    """How far the WebSocket has come, as its view knows."""

    CONNECTING = auto()
    OPEN = auto()
    #: The view has closed or refused it, or the client is known to be gone.
    CLOSED = auto()


class WebSocket(AsyncConsumer):
    """A client, as its view sees it.

    ``async for message in socket`` gives what the client sends, a str or bytes for each
    message, and ends when the client has left.
    """

    #: Why it is over (RFC 6455 §7.4); None until that is known.
    close_code: int | None = None
    close_reason = ""

    #: The function behind this class.
    view: Callable[..., Awaitable[None]]

    _state = _State.CONNECTING

    # Who is there

    @property
    def user(self) -> Any:
        """The user, behind ``AuthMiddlewareStack``."""
        return self._from_scope("user", "AuthMiddlewareStack")

    @property
    def session(self) -> Any:
        """Django's session, behind ``SessionMiddlewareStack`` or ``AuthMiddlewareStack``."""
        return self._from_scope("session", "SessionMiddlewareStack")

    @property
    def query(self) -> QueryDict:
        """The query string, as Django's ``request.GET``."""
        return QueryDict(self.scope.get("query_string", b""))

    @property
    def subprotocols(self) -> list[str]:
        """The subprotocols that the client offered."""
        return list(self.scope.get("subprotocols", ()))

    def _from_scope(self, key: str, stack: str) -> Any:
        try:
            return self.scope[key]
        except KeyError:
            raise ConfigurationError(
                f"no {key} in the scope: wrap the application in {stack}"
            ) from None

    # Opening and closing

    async def accept(self, subprotocol: str | None = None, headers: Headers | None = None) -> None:
        """Accept the connection, with one of the subprotocols that the client offered.

        The first ``receive`` or ``send`` does so by itself.
        """
        await self._send(
            {"type": "websocket.accept", "subprotocol": subprotocol, "headers": list(headers or ())}
        )
        self._state = _State.OPEN

    async def close(self, code: int = CloseCode.NORMAL_CLOSURE, reason: str = "") -> None:
        """Close the connection; before it is accepted: refuse it. Once is enough."""
        if self._state is _State.CLOSED:
            return
        self._state = _State.CLOSED
        if isinstance(self.channel_layer, BaseChannelLayer):
            # What a group was sent just now comes before our own goodbye.
            self.channel_layer.settle()
        await self._send({"type": "websocket.close", "code": int(code), "reason": reason})

    async def deny(
        self, status: int = 403, body: Message = b"", headers: Headers | None = None
    ) -> None:
        """Refuse the connection with an HTTP response, in the place of ``accept()``.

        See ``AsyncWebsocketConsumer.deny``. Raises LocalProtocolError once it is accepted.
        """
        if self._state is _State.OPEN:
            raise LocalProtocolError("cannot deny: this WebSocket is accepted; close() it")
        for event in denial_events(self.scope, status, body, headers):
            await self._send(event)
        self._state = _State.CLOSED

    # Messages

    async def receive(self) -> Message:
        """Return the client's next message; Disconnected when there will be none."""
        event = await self._next_event()
        if isinstance(event, dict):
            raise ValueError(
                f"{type(self).__name__} has no use for events of type {event['type']!r}: "
                "read socket.events(), which gives those of the channel layer, too"
            )
        return event

    async def receive_json(self) -> Any:
        """Return the value that the client's next message, a text, stands for.

        A client that sends anything else is closed with 1007, and Disconnected is raised.
        """
        message = await self.receive()
        try:
            if isinstance(message, str):
                return decode_json(message)
            reason = "JSON comes in text messages, not in bytes"
        except ValueError as error:
            reason = f"not JSON: {error}"
        await self.close(CloseCode.INVALID_PAYLOAD, reason[:120])
        raise Disconnected(reason)

    async def send(self, message: Message) -> None:  # type: ignore[override]
        """Send a message: a str as text, bytes as they are. Waits while the client is slow."""
        if self._state is _State.CONNECTING:
            await self.accept()
        await self._send(_client_event(message))

    async def send_json(self, value: Any) -> None:
        """Send a value as JSON; TypeError, naming the place, for what has none."""
        await self.send(encode_json(value))

    def __aiter__(self) -> Self:
        """Give each message of the client, until it leaves."""
        return self

    async def __anext__(self) -> Message:
        """Return the client's next message."""
        return await _or_stop(self.receive)

    def json(self) -> AsyncIterator[Any]:
        """Give the value of each message of the client, as ``receive_json`` does."""
        return _Iteration(self.receive_json)

    def events(self) -> AsyncIterator[Message | Event]:
        """Give each message of the client, and as a dict each event of the channel layer.

        Events that are addressed to the client (``websocket.send``) go there by themselves.
        """
        return _Iteration(self._next_event)

    # Groups

    def group(self, name: str) -> "Group":
        """Return a group of the channel layer, to be a member of: ``async with``."""
        return Group(self, name)

    # How the connection runs

    async def websocket_connect(self, message: Event) -> None:
        """Run the view, from the connection's first event to its end."""
        del message
        route = self.scope.get("url_route", {})
        try:
            await self.view(self, *route.get("args", ()), **route.get("kwargs", {}))
            await self.close()
        except (DenyConnection, StopConsumer):
            await self.close()
        except Disconnected as error:
            logger.debug("%s: %s", type(self).__name__, error)
        raise StopConsumer

    async def _next_event(self) -> Message | Event:
        if self._state is _State.CONNECTING:
            await self.accept()
        if self.close_code is not None:
            raise self._disconnected()
        if cleanup_due():
            await aclose_old_connections()
        event = await self._hr_lane
        if event["type"] == "websocket.receive":
            text: str | None = event.get("text")
            return event["bytes"] if text is None else text
        if event["type"] == "websocket.disconnect":
            self._state = _State.CLOSED
            self.close_code = event.get("code", CloseCode.NO_STATUS_RECEIVED)
            self.close_reason = event.get("reason") or ""
            raise self._disconnected()
        return event

    async def _send(self, event: Event) -> None:
        try:
            await super().send(event)
        except OSError as error:
            raise self._disconnected() from error

    def _disconnected(self) -> Disconnected:
        code = "" if self.close_code is None else f" ({self.close_code})"
        return Disconnected(f"the WebSocket is closed{code}")


class _Iteration(Generic[T]):
    """Asks again and again, until the WebSocket is over."""

    __slots__ = ("_ask",)

    def __init__(self, ask: Callable[[], Awaitable[T]]) -> None:
        self._ask = ask

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        return await _or_stop(self._ask)


class Group:
    """A group of the channel layer that a view is a member of, within ``async with``."""

    __slots__ = ("_socket", "name")

    def __init__(self, socket: WebSocket, name: str) -> None:
        self._socket = socket
        self.name = name

    async def send(self, message: Message) -> None:
        """Send a message to the client of every member, this one's included.

        No view wakes for it: it is encoded once, and goes to the sockets.
        """
        await self.send_event(_client_event(message))

    async def send_json(self, value: Any) -> None:
        """Send a value as JSON to the client of every member."""
        await self.send(encode_json(value))

    async def send_event(self, event: Event) -> None:
        """Send an event to every member: to the handler of its type, or to ``socket.events()``."""
        await self._layer.group_send(self.name, event)

    async def __aenter__(self) -> Self:
        """Join."""
        await self._layer.group_add(self.name, self._socket.channel_name)
        return self

    async def __aexit__(self, *error: object) -> None:
        """Leave."""
        await self._layer.group_discard(self.name, self._socket.channel_name)

    @property
    def _layer(self) -> BaseChannelLayer:
        layer = self._socket.channel_layer
        if layer is None:
            raise InvalidChannelLayerError(
                f"the group {self.name!r} needs a channel layer: CHANNEL_LAYERS has none under "
                f"the alias {self._socket.channel_layer_alias!r}"
            )
        return layer


View = Callable[Concatenate[WebSocket, P], Awaitable[None]]
#: An ASGI application, in the type by which Django's ``path()`` takes it.
Application = Callable[..., Coroutine[Any, Any, Any]]


@overload
def websocket_view(view: View[P]) -> Application: ...


@overload
def websocket_view(*, channel_layer_alias: str = ...) -> Callable[[View[P]], Application]: ...


def websocket_view(view: Any = None, *, channel_layer_alias: str | None = None) -> Any:
    """Make an ASGI application of ``async def view(socket, ...)``; lead a route to it.

    What the route captures are the view's further arguments, as with Django's views. When
    the view returns, the connection is closed with 1000, or refused if nothing accepted it.

    Raises TypeError for an ordinary function: it would hold a thread for as long as its
    client stays.
    """
    if view is None:
        return partial(websocket_view, channel_layer_alias=channel_layer_alias)
    if not iscoroutinefunction(view):
        raise TypeError(
            f"a WebSocket view is an async def function, not {view!r:.100}; for ordinary "
            "functions there is headrace.generic.websocket.WebsocketConsumer"
        )
    attributes = {"view": staticmethod(view), "__module__": view.__module__}
    if channel_layer_alias is not None:
        attributes["channel_layer_alias"] = channel_layer_alias
    consumer_class: type[WebSocket] = type(view.__name__, (WebSocket,), attributes)
    return update_wrapper(consumer_class.as_asgi(), view, updated=())


async def _or_stop(ask: Callable[[], Awaitable[T]]) -> T:
    try:
        return await ask()
    except Disconnected:
        raise StopAsyncIteration from None


def _client_event(message: Message) -> Event:
    if isinstance(message, str):
        return {"type": "websocket.send", "text": message}
    if isinstance(message, bytes | bytearray | memoryview):
        return {"type": "websocket.send", "bytes": bytes(message)}
    raise TypeError(f"a message is a str or bytes, not {type(message).__name__}")
