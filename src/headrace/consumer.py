"""Consumers: an application that is a class, with a method for each type of event.

Rules of this file:

- A consumer handles one event at a time. Events of the connection and of the channel
  layer enter one inbox, in the order in which they came.
- On our own server that inbox is the connection's (its *lane*); on any other server, behind
  a middleware that wraps ``receive`` or ``send``, and with a channel layer that can't push,
  the consumer has one of its own, which behaves the same.
- However the consumer ends, its channel and its memberships end with it.
- That the client is gone is no error of the application: a handler which fails because its
  ``send`` met that is given up, and what else had arrived is handled, the disconnect last.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from enum import Enum, auto
from functools import lru_cache, update_wrapper
from typing import Any, Protocol

from asgiref.sync import ThreadSensitiveContext, async_to_sync, markcoroutinefunction

from .db import (
    aclose_old_connections,
    cleanup_due,
    track_database_use,
)
from .exceptions import CloseCode, StopConsumer
from .layers import DEFAULT_CHANNEL_LAYER, BaseChannelLayer, Sink, get_channel_layer
from .layers.base import Event, Frames, Overflow, is_client_event
from .threads import run_in_connection_thread, thread_context

__all__ = ["AsyncConsumer", "SyncConsumer", "get_handler_name"]

logger = logging.getLogger("headrace.consumer")

Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]

#: For a channel layer that does not say.
_DEFAULT_CAPACITY = 100
#: Stands for the message while there is none: the consumer has begun, and waits.
_BETWEEN_EVENTS: Event = {}
_DISCONNECTS = frozenset({"websocket.disconnect", "http.disconnect"})


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
    """The connection of Headrace's own server, as a ``Sink``.

    Its events come out of the connection's own ``receive``.
    """

    #: Events of the channel layer that may wait for the consumer.
    capacity: int

    def put(self, event: Event, /) -> bool: ...
    def transmit(self, event: Event, frames: Frames, /) -> bool: ...


def _lane(scope: dict[str, Any], receive: Receive, send: Send) -> Lane | None:
    """Return the connection's lane, unless something between it and us would be bypassed."""
    extension = scope.get("extensions", {}).get("headrace")
    if extension is None:
        return None
    lane_behind: Callable[[Receive, Send], Lane | None] = extension["lane"]
    return lane_behind(receive, send)


class _ClientGone(OSError):
    """``send()`` after the end, in the words of the ASGI specification an OSError."""


class _Phase(Enum):
    """How far a WebSocket has come. Any other protocol is OPEN all the time."""

    CONNECTING = auto()
    OPEN = auto()
    #: The application has closed it, or refused it.
    CLOSING = auto()
    #: The server has said that it is over.
    CLOSED = auto()


class _Source(Enum):
    """Where an event in a consumer's own inbox came from."""

    CLIENT = auto()
    #: The channel layer, for a handler.
    LAYER = auto()
    #: The channel layer, for the client.
    BYPASS = auto()


class _Inbox:
    """The lane of a consumer whose server offers none, or whose channel layer can't push.

    Events of the client wait for room, so that a server that applies back-pressure to
    ``receive`` does; so do those that are pulled from a channel layer. Events that a channel
    layer pushes beyond ``capacity`` are refused. Neither takes the other's room.
    """

    #: Events of the client that are read ahead.
    READ_AHEAD = 4
    #: Events for the client that may wait for the accept.
    EARLY_EVENTS = 32

    def __init__(
        self,
        scope: dict[str, Any],
        receive: Receive,
        send: Send,
        capacity: int,
        *,
        bypass: bool,
    ) -> None:
        self._send = send
        self._capacity = capacity
        self._is_websocket = scope["type"] == "websocket"
        self._phase = _Phase.CONNECTING if self._is_websocket else _Phase.OPEN
        # Whether events for the client go there without a handler.
        self._bypass = bypass and self._is_websocket
        self._early: list[Event] = []
        self._events: deque[tuple[Event, _Source]] = deque()
        self._waiting = dict.fromkeys(_Source, 0)
        self._reader: asyncio.Future[None] | None = None
        self._blocked: dict[_Source, asyncio.Future[None]] = {}
        self._failure: Exception | None = None
        self._pumps: list[asyncio.Task[None]] = []
        # Set while the consumer waits. A worker is not read ahead of that: what it has fetched
        # and the consumer has not begun with would end with the consumer.
        self._asked = asyncio.Event() if scope["type"] == "channel" else None
        self._start(self._read_connection(receive), "connection")

    def pull(self, receive: Callable[[str], Awaitable[Event]], channel: str) -> None:
        """Fetch the channel's events, for a layer that can't push."""
        self._start(self._read_channel(receive, channel), channel)

    async def receive(self) -> Event:
        """Return the next event for a handler; raise what made a source fail."""
        while True:
            while not self._events:
                if self._failure is not None:
                    raise self._failure
                if self._asked is not None:
                    self._asked.set()
                self._reader = asyncio.get_running_loop().create_future()
                await self._reader
            event, source = self._events.popleft()
            self._waiting[source] -= 1
            if (blocked := self._blocked.pop(source, None)) is not None and not blocked.done():
                blocked.set_result(None)
            if source is not _Source.BYPASS:
                return event
            if self._phase is _Phase.OPEN:
                with contextlib.suppress(OSError):  # the disconnect is on its way
                    await self.send(event)

    async def send(self, message: Event) -> None:
        """Send to the server (ASGI ``send``); an OSError once the WebSocket is closed."""
        if not self._is_websocket:
            return await self._send(message)
        type_ = message.get("type")
        if self._phase in (_Phase.CLOSING, _Phase.CLOSED):
            if type_ == "websocket.close":
                return None
            raise _ClientGone(f"cannot send {type_!r}: the WebSocket is closed")
        if type_ == "websocket.close":
            self._phase = _Phase.CLOSING
        await self._send(message)
        if type_ == "websocket.accept" and self._phase is _Phase.CONNECTING:
            self._phase = _Phase.OPEN
            for event in self._early:
                self._append(event, _Source.BYPASS)
            self._early.clear()
        return None

    def put(self, event: Event, /) -> bool:
        return self._offer(event, _Source.LAYER)

    def transmit(self, event: Event, frames: Frames, /) -> bool:
        # There is no socket to write to from here: the consumer passes it on in its turn.
        del frames
        if not self._bypass:
            return self._offer(event.copy(), _Source.LAYER)
        if self._phase is _Phase.OPEN:
            return self._offer(event, _Source.BYPASS)
        if self._phase is _Phase.CONNECTING:
            if len(self._early) >= self.EARLY_EVENTS:
                return False
            self._early.append(event)
        return True

    async def end(self, code: int) -> None:
        """Stop reading, and close a WebSocket that the application leaves open."""
        self.stop()
        await asyncio.wait(self._pumps)
        if self._is_websocket and self._phase is _Phase.OPEN:
            with contextlib.suppress(Exception):  # it is the last attempt, and no more than that
                await self.send({"type": "websocket.close", "code": code})

    def stop(self) -> None:
        """Read no more."""
        for pump in self._pumps:
            pump.cancel()

    def _start(self, reading: Any, name: str) -> None:
        pump = asyncio.get_running_loop().create_task(reading, name=f"headrace inbox {name}")
        self._pumps.append(pump)

    def _offer(self, event: Event, source: _Source) -> bool:
        if self._phase is _Phase.CLOSED:
            return True  # it is over: there is nobody to miss the event
        if self._waiting[source] >= self._capacity:
            return False
        self._append(event, source)
        return True

    def _append(self, event: Event, source: _Source) -> None:
        self._waiting[source] += 1
        self._events.append((event, source))
        if self._asked is not None:
            self._asked.clear()
        self._wake()

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    async def _read_connection(self, receive: Receive) -> None:
        try:
            while True:
                if self._asked is not None:
                    await self._asked.wait()
                event = await receive()
                over = event.get("type") in _DISCONNECTS
                if over:
                    self._phase = _Phase.CLOSED
                await self._room(_Source.CLIENT, self.READ_AHEAD)
                self._append(event, _Source.CLIENT)
                if over:
                    return
                del event  # what waits for the next keeps nothing of the last
        except Exception as failure:  # handed to the consumer, which raises it
            self._fail(failure)

    async def _read_channel(self, receive: Callable[[str], Awaitable[Event]], channel: str) -> None:
        try:
            while True:
                event = await receive(channel)
                direct = self._bypass and is_client_event(event)
                await self._room(_Source.BYPASS if direct else _Source.LAYER, self._capacity)
                if not (self.transmit(event, {}) if direct else self.put(event)):
                    logger.warning("%s: an event for the client found no room", channel)
                del event
        except Exception as failure:  # handed to the consumer, which raises it
            # A layer that fails has lost messages, for all we know. To end the consumer is
            # the one way to tell the client, which comes again and asks for what it missed.
            self._fail(failure)

    async def _room(self, source: _Source, limit: int) -> None:
        while self._waiting[source] >= limit:
            blocked = self._blocked[source] = asyncio.get_running_loop().create_future()
            await blocked

    def _fail(self, failure: Exception) -> None:
        if self._failure is None:
            self._failure = failure
        self._wake()


class _HandledSink:
    """A lane for a consumer that handles client-bound events itself: nothing bypasses it."""

    def __init__(self, lane: Sink) -> None:
        self._lane = lane

    def put(self, event: Event, /) -> bool | Overflow:
        return self._lane.put(event)

    def transmit(self, event: Event, frames: Frames, /) -> bool | Overflow:
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

    # What the server raised when it was last asked to send: the client is gone. A class
    # attribute until it is needed, for thousands of idle consumers pay for each one.
    _lost: OSError | None = None

    def __init__(self, *args: Any, **initkwargs: Any) -> None:
        # Positional arguments are what a subclass passes on of its own. ``as_asgi(name=value)``:
        # an argument stands for the class attribute of its name.
        del args
        for name, value in initkwargs.items():
            setattr(self, name, value)

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Run until a handler raises, ``StopConsumer`` or anything else."""
        self.scope = scope
        inbox = await self._open(receive, send)
        receive = self.channel_receive
        track_database_use()
        # What a handler is at work on. An idle consumer keeps no event alive.
        message: Event | None = None
        try:
            while True:
                try:
                    while True:
                        message = await receive()
                        if cleanup_due():
                            await aclose_old_connections()
                        await self.dispatch(message)
                        message = _BETWEEN_EVENTS
                        if cleanup_due():
                            await aclose_old_connections()
                except OSError as error:
                    self._excuse(error)
                    if _is_disconnect(message):
                        raise StopConsumer from None
        except StopConsumer:
            await self._wind_up(inbox, message, CloseCode.NORMAL_CLOSURE)
        except asyncio.CancelledError:
            await self._wind_up(inbox, message, CloseCode.GOING_AWAY)
            raise
        except Exception:
            try:
                await self._wind_up(inbox, message, CloseCode.INTERNAL_ERROR)
            except Exception:
                logger.exception("%s: its end failed too, after the error", type(self).__name__)
            raise
        finally:
            # Nothing here awaits: it has to work where the loop is gone as well.
            self._leave(inbox)

    async def dispatch(self, message: Event) -> None:
        """Call the handler of this message; ValueError if there is none."""
        type_ = message.get("type")
        name = get_handler_name(message) if type_ is None else _handler_name(type_)
        handler = getattr(self, name, None)
        if handler is not None:
            await handler(message)
        elif is_client_event(message):
            await AsyncConsumer.send(self, message)
        else:
            raise self._no_handler(message)

    async def send(self, message: Event) -> None:
        """Send an ASGI event to the server; an OSError when the client is gone."""
        try:
            await self.base_send(message)
        except OSError as error:
            self._lost = error
            raise

    @classmethod
    def as_asgi(cls, **initkwargs: Any) -> Callable[..., Coroutine[Any, Any, Any]]:
        """Return an ASGI application that makes an instance for each connection."""

        # Not a coroutine function, but marked as one: each open connection would keep its
        # coroutine, 200 bytes that only forward.
        def app(scope: dict[str, Any], receive: Receive, send: Send) -> Coroutine[Any, Any, None]:
            return cls(**initkwargs)(scope, receive, send)

        app.consumer_class = cls  # type: ignore[attr-defined]
        app.consumer_initkwargs = initkwargs  # type: ignore[attr-defined]
        update_wrapper(app, cls, updated=())
        return markcoroutinefunction(app)

    async def _finish(self, code: int) -> None:
        """End as a disconnect would, where none will come; a class with a connection overrides."""

    async def _open(self, receive: Receive, send: Send) -> _Inbox | None:
        """Open the channel, and find out where events come from."""
        layer = self.channel_layer = get_channel_layer(self.channel_layer_alias)
        capacity = _DEFAULT_CAPACITY
        # Another's layer need not be a subclass of ours: it has what Channels asks for.
        pushes = getattr(layer, "pushes", False)
        if layer is not None:
            self.channel_name = await layer.new_channel()
            if isinstance(layer, BaseChannelLayer):
                capacity = layer.get_capacity(self.channel_name)
        handled = hasattr(self, "websocket_send") or hasattr(self, "websocket_close")
        inbox: _Inbox | None = None
        sink: Sink
        lane = _lane(self.scope, receive, send)
        if lane is None or (layer is not None and not pushes):
            inbox = sink = _Inbox(self.scope, receive, send, capacity, bypass=not handled)
            receive, send = inbox.receive, inbox.send
        else:
            sink = lane
            lane.capacity = capacity
        self.channel_receive = receive
        self.base_send = send
        if layer is not None:
            if pushes:
                layer.attach(self.channel_name, _HandledSink(sink) if handled else sink)
            elif inbox is not None:
                inbox.pull(layer.receive, self.channel_name)
        return inbox

    def _leave(self, inbox: _Inbox | None) -> None:
        """Give up the channel and everything that reads for it."""
        layer = self.channel_layer
        if layer is not None and getattr(layer, "pushes", False):
            layer.detach(self.channel_name)
        if inbox is not None:
            inbox.stop()

    def _excuse(self, error: OSError) -> None:
        """Pass over the error if it says that the client is gone; raise it if not."""
        if error is not self._lost:
            raise error
        self._lost = None
        logger.debug("%s: the client is gone: %s", type(self).__name__, error)

    async def _wind_up(self, inbox: _Inbox | None, message: Event | None, code: int) -> None:
        """End what has begun, unless it was the disconnect that ended it."""
        try:
            if message is not None and not _is_disconnect(message):
                await self._finish(code)
        except OSError as error:
            self._excuse(error)
        finally:
            if cleanup_due():
                await aclose_old_connections()
            if inbox is not None:
                await inbox.end(code)

    def _no_handler(self, message: Event) -> ValueError:
        name = get_handler_name(message)
        return ValueError(
            f"{type(self).__name__} has no handler for messages of type {message['type']!r}: "
            f"define a method {name}(self, event)"
        )


class SyncConsumer(AsyncConsumer):
    """A consumer whose handlers are ordinary functions; each call runs in a thread."""

    # Made for the first handler. What else runs for this connection runs in the same context.
    _thread_context: ThreadSensitiveContext | None = None

    async def dispatch(self, message: Event) -> None:
        """Call the handler of this message in a thread; ValueError if there is none."""
        handler = getattr(self, get_handler_name(message), None)
        if handler is not None:
            await self._call_in_thread(handler, message)
        elif is_client_event(message):
            await AsyncConsumer.send(self, message)
        else:
            raise self._no_handler(message)

    def send(self, message: Event) -> None:  # type: ignore[override]
        """Send an ASGI event to the server, from the handler's thread.

        Raises an OSError when the client is gone.
        """
        async_to_sync(AsyncConsumer.send)(self, message)

    async def _call_in_thread(self, handler: Callable[[Event], Any], message: Event) -> None:
        if self._thread_context is None:
            self._thread_context = thread_context()
        await run_in_connection_thread(self._thread_context, handler, message)


def _is_disconnect(message: Event | None) -> bool:
    return message is not None and message.get("type") in _DISCONNECTS
