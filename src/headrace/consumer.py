"""Consumers: an application that is a class, with a method for each type of event.

Rules of this file:

- A consumer handles one event at a time. Events of the connection and of the channel
  layer enter one inbox, in the order in which they came.
- On our own server that inbox is the connection's (its *lane*); on any other server, or
  behind a middleware that wraps ``receive`` or ``send``, the consumer has one of its own.
- However the consumer ends, its channel and its memberships end with it.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from functools import lru_cache, update_wrapper
from typing import Any, Protocol

from asgiref.sync import async_to_sync

from .db import aclose_old_connections, cleanup_due, database_sync_to_async
from .exceptions import StopConsumer
from .layers import DEFAULT_CHANNEL_LAYER, BaseChannelLayer, Sink, get_channel_layer
from .layers.base import Event, Frames, is_client_event

__all__ = ["AsyncConsumer", "SyncConsumer", "get_handler_name"]

logger = logging.getLogger("headrace.consumer")

Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]


@lru_cache(maxsize=1024)
def _handler_name(type_: str) -> str:
    name = type_.replace(".", "_")
    if name.startswith("_"):
        raise ValueError(f"a message type must not begin with an underscore: {type_!r}")
    return name


def get_handler_name(message: Event) -> str:
    """Return the name of the method that handles this message: dots become underscores.

    Raises ValueError for a message without a type, or with one that begins with an underscore.
    """
    try:
        type_ = message["type"]
    except KeyError:
        raise ValueError("a message needs a 'type' that names its handler") from None
    return _handler_name(type_)


class Lane(Protocol):
    """What Headrace's server offers in ``scope["extensions"]["headrace"]["lane"]``.

    It is a ``Sink`` whose events come out of the connection's own ``receive``.
    """

    receive: Receive
    send: Send
    capacity: int

    def put(self, event: Event, /) -> bool: ...
    def transmit(self, event: Event, frames: Frames, /) -> bool: ...


def _lane(scope: dict[str, Any], receive: Receive, send: Send) -> Lane | None:
    """Return the connection's lane, unless something between it and us would be bypassed."""
    extension = scope.get("extensions", {}).get("headrace")
    if extension is None:
        return None
    lane: Lane = extension["lane"]
    # Bound methods are equal when they are one function bound to one object.
    return lane if lane.receive == receive and lane.send == send else None


class _Inbox:
    """One bounded queue in front of a consumer whose server gives it no lane.

    Client events wait for room, so that a server that applies back-pressure to ``receive``
    does; events of the channel layer beyond ``capacity`` are refused.
    """

    CLIENT_EVENTS = 32

    def __init__(self, receive: Receive, capacity: int) -> None:
        self._receive = receive
        self._capacity = capacity
        self._events: deque[Event] = deque()
        self._reader: asyncio.Future[None] | None = None
        self._room = asyncio.Event()
        self._failure: BaseException | None = None
        self._pump = asyncio.get_running_loop().create_task(
            self._read_connection(), name="headrace inbox"
        )

    def put(self, event: Event, /) -> bool:
        if len(self._events) >= self._capacity:
            return False
        self._append(event)
        return True

    def transmit(self, event: Event, frames: Frames, /) -> bool:
        # No socket to write to from here: the consumer passes it on in its turn.
        del frames
        return self.put(event.copy())

    async def get(self) -> Event:
        while not self._events:
            if self._failure is not None:
                raise self._failure
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
        self._room.set()
        return self._events.popleft()

    async def close(self) -> None:
        self._pump.cancel()
        await asyncio.wait([self._pump])

    def _append(self, event: Event) -> None:
        self._events.append(event)
        self._wake()

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    async def _read_connection(self) -> None:
        try:
            while True:
                event = await self._receive()
                while len(self._events) >= self.CLIENT_EVENTS:
                    self._room.clear()
                    await self._room.wait()
                self._append(event)
                if event["type"].endswith(".disconnect"):
                    return
        except Exception as failure:  # handed to the consumer, which raises it
            self._failure = failure
            self._wake()


class _HandledSink:
    """A lane for a consumer that handles client-bound events itself: nothing bypasses it."""

    def __init__(self, lane: Sink) -> None:
        self._lane = lane

    def put(self, event: Event, /) -> bool:
        return self._lane.put(event)

    def transmit(self, event: Event, frames: Frames, /) -> bool:
        del frames
        return self._lane.put(event.copy())


class AsyncConsumer:
    """An ASGI application, one instance per connection, with a method per type of event.

    An event ``{"type": "chat.message", ...}`` is handled by ``async def chat_message(event)``.
    A handler ends the consumer by raising ``StopConsumer``.

    A channel-layer event whose type is an ASGI event for the client (``websocket.send``,
    ``websocket.close``) needs no handler and goes to the client; a consumer that defines
    such a handler gets the event instead.
    """

    channel_layer_alias = DEFAULT_CHANNEL_LAYER

    scope: dict[str, Any]
    base_send: Send
    channel_layer: BaseChannelLayer | None
    channel_name: str
    channel_receive: Receive

    def __init__(self, **initkwargs: Any) -> None:
        # ``as_asgi(name=value)``: an argument stands for the class attribute of its name.
        for name, value in initkwargs.items():
            setattr(self, name, value)

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Run until a handler raises, ``StopConsumer`` or anything else."""
        self.scope = scope
        self.base_send = send
        layer = self.channel_layer = get_channel_layer(self.channel_layer_alias)
        capacity = _Inbox.CLIENT_EVENTS
        if layer is not None:
            self.channel_name = await layer.new_channel()
            capacity = layer.get_capacity(self.channel_name)
        lane = _lane(scope, receive, send)
        inbox: _Inbox | None = None
        if lane is None:
            inbox = _Inbox(receive, capacity)
            receive = inbox.get
        else:
            lane.capacity = capacity
        self.channel_receive = receive
        if layer is not None:
            sink: Sink = inbox or lane  # type: ignore[assignment]
            if inbox is None and self._handles_client_events():
                sink = _HandledSink(sink)
            layer.attach(self.channel_name, sink)
        try:
            while True:
                await self.dispatch(await receive())
        except StopConsumer:
            pass
        except BaseException as error:
            await self._abandon(error)
            raise
        finally:
            if layer is not None:
                layer.detach(self.channel_name)
            if inbox is not None:
                await inbox.close()

    async def dispatch(self, message: Event) -> None:
        """Call the handler of this message; ValueError if there is none."""
        handler = getattr(self, get_handler_name(message), None)
        if handler is not None:
            if cleanup_due():  # a connection was kept open, and is past its age by now
                await aclose_old_connections()
            try:
                await handler(message)
            finally:
                if cleanup_due():  # this handler used the database
                    await aclose_old_connections()
        elif is_client_event(message):
            await self.base_send(message)
        else:
            raise self._no_handler(message)

    async def send(self, message: Event) -> None:
        """Send an ASGI event to the server."""
        await self.base_send(message)

    @classmethod
    def as_asgi(cls, **initkwargs: Any) -> Callable[..., Coroutine[Any, Any, Any]]:
        """Return an ASGI application that makes an instance for each connection."""

        async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
            await cls(**initkwargs)(scope, receive, send)

        app.consumer_class = cls  # type: ignore[attr-defined]
        app.consumer_initkwargs = initkwargs  # type: ignore[attr-defined]
        update_wrapper(app, cls, updated=())
        return app

    async def _abandon(self, error: BaseException) -> None:
        """Clean up after a handler raised; a subclass that has a connection overrides this."""

    def _no_handler(self, message: Event) -> ValueError:
        name = get_handler_name(message)
        return ValueError(
            f"{type(self).__name__} has no handler for messages of type {message['type']!r}: "
            f"define a method {name}(self, event)"
        )

    @classmethod
    def _handles_client_events(cls) -> bool:
        return hasattr(cls, "websocket_send") or hasattr(cls, "websocket_close")


class SyncConsumer(AsyncConsumer):
    """A consumer whose handlers are ordinary functions; each call runs in a thread."""

    async def dispatch(self, message: Event) -> None:
        """Call the handler of this message in a thread; ValueError if there is none."""
        handler = getattr(self, get_handler_name(message), None)
        if handler is not None:
            await database_sync_to_async(handler)(message)
        elif is_client_event(message):
            await self.base_send(message)
        else:
            raise self._no_handler(message)

    def send(self, message: Event) -> None:  # type: ignore[override]
        """Send an ASGI event to the server, from the handler's thread."""
        async_to_sync(self.base_send)(message)
