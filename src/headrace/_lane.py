"""What stands between a consumer and its connection: where events come from and messages go.

Rules of this file:

- On our own server it is the connection itself (its *lane*). On any other server, behind a
  middleware that wraps ``receive`` or ``send``, and with a channel layer that can't push, it
  is an ``OwnInbox``, which behaves the same.
- Events of the client and of the channel layer enter one queue, in the order in which they
  came. Neither takes the other's room.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Generator
from enum import Enum, auto
from typing import Any, Protocol

from .exceptions import ChannelFull, CloseCode
from .layers import Sink
from .layers.base import Bounds, Event, Frames, Overflow, is_client_event
from .layers.losses import Losses

__all__ = ["DISCONNECTS", "HandledSink", "Lane", "OwnInbox", "Receive", "Send", "lane_of"]

Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]

#: The events that end a connection.
DISCONNECTS = frozenset({"websocket.disconnect", "http.disconnect"})

#: What consumers had no room for that pull from their channel layer; a layer that pushes
#: keeps an account of its own.
pulled_losses = Losses()


class Lane(Protocol):
    """A connection, as its consumer and the channel layer see it: a ``Sink``, and its reader.

    ``await lane`` gives its next event.
    """

    #: Events for handlers that may wait for the consumer.
    bounds: Bounds

    @property
    def connecting(self) -> bool:
        """Whether a WebSocket is neither accepted nor refused yet."""
        ...

    @property
    def over(self) -> bool:
        """Whether one of the two sides has ended the connection."""
        ...

    @property
    def told(self) -> bool:
        """Whether the event that ends the connection has been received already."""
        ...

    def __await__(self) -> Generator[Any, None, Event]: ...

    def put(self, event: Event, /) -> bool | Overflow: ...
    def transmit(self, event: Event, frames: Frames, /) -> bool | Overflow: ...

    def insert(self, event: Event, /) -> None:
        """Give this event, too, however much waits."""
        ...

    async def stirred(self) -> None:
        """Wait, and take nothing, until an event comes or somebody calls ``note``."""
        ...

    def note(self) -> None:
        """Wake whoever waits."""
        ...


def lane_of(scope: dict[str, Any], receive: Receive, send: Send) -> Lane | None:
    """Return the connection's lane, unless something between it and us would be bypassed."""
    extension = scope.get("extensions", {}).get("headrace")
    if extension is None:
        return None
    lane_behind: Callable[[Receive, Send], Lane | None] = extension["lane"]
    return lane_behind(receive, send)


class _ConnectionOver(OSError):
    """``send()`` after the end, in the words of the ASGI specification an OSError."""


class _Phase(Enum):
    """How far a WebSocket has come. Any other protocol is OPEN until it is CLOSED."""

    CONNECTING = auto()
    #: The application answers the handshake with an HTTP response of its own.
    DENYING = auto()
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
    #: The consumer.
    OWN = auto()


class OwnInbox:
    """The lane of a consumer whose server offers none, or whose channel layer can't push.

    Events of the client wait for room, so that a server that applies back-pressure to
    ``receive`` does. So do those that are pulled from a channel layer, where it is the newest
    that may be lost: the layer has a bound of its own, and counts. Any other event of a channel
    layer beyond the bounds meets their overflow policy.
    """

    #: Events of the client that are read ahead.
    READ_AHEAD = 4
    #: Events for the client that may wait for the accept.
    EARLY_EVENTS = 32
    #: How long a source may take to stop before it is told again.
    STOP_AGAIN_S = 0.1

    def __init__(
        self,
        scope: dict[str, Any],
        receive: Receive,
        send: Send,
        bounds: Bounds,
        *,
        bypass: bool,
    ) -> None:
        self.bounds = bounds
        self._send = send
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
        self._given_up = False
        self._tasks: list[asyncio.Task[None]] = []
        # Set while the consumer waits. A worker is not read ahead of that: what it has fetched
        # and the consumer has not begun with would end with the consumer.
        self._asked = asyncio.Event() if scope["type"] == "channel" else None
        self._start(self._read_connection(receive), "connection")

    @property
    def connecting(self) -> bool:
        return self._phase is _Phase.CONNECTING

    @property
    def over(self) -> bool:
        return self._phase in (_Phase.CLOSING, _Phase.CLOSED)

    @property
    def told(self) -> bool:
        # The task that reads the connection ends with the event that does.
        return self._phase is _Phase.CLOSED and self._tasks[0].done() and not self._events

    def pull(self, receive: Callable[[str], Awaitable[Event]], channel: str) -> None:
        """Fetch the channel's events, for a layer that can't push."""
        self._start(self._read_channel(receive, channel), channel)

    # The consumer's side

    async def receive(self) -> Event:
        """Return the next event for a handler; raise what made a source fail.

        An OSError after the event that ended the connection: there will be no other.
        """
        while True:
            while not self._events:
                if self._failure is not None:
                    raise self._failure
                if self.told:
                    raise _ConnectionOver("cannot receive: the connection is over")
                if self._asked is not None:
                    self._asked.set()
                await self.stirred()
            event, source = self._events.popleft()
            self._left(source)
            if source is not _Source.BYPASS:
                return event
            if self._phase is _Phase.OPEN:
                with contextlib.suppress(OSError):  # the disconnect is on its way
                    await self.send(event)

    def __await__(self) -> Generator[Any, None, Event]:
        return self.receive().__await__()

    async def stirred(self) -> None:
        self._reader = asyncio.get_running_loop().create_future()
        await self._reader

    def note(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def insert(self, event: Event, /) -> None:
        self._append(event, _Source.OWN)

    async def send(self, message: Event) -> None:
        """Send to the server (ASGI ``send``); an OSError once the WebSocket is closed."""
        if not self._is_websocket:
            return await self._send(message)
        type_ = message.get("type")
        if self.over:
            if type_ == "websocket.close":
                return None
            raise _ConnectionOver(f"cannot send {type_!r}: the WebSocket is closed")
        if type_ == "websocket.close":
            self._phase = _Phase.CLOSING
        await self._send(message)
        if type_ == "websocket.accept" and self._phase is _Phase.CONNECTING:
            self._phase = _Phase.OPEN
            for event in self._early:
                self._append(event, _Source.BYPASS)
            self._early.clear()
        elif type_ == "websocket.http.response.start" and self._phase is _Phase.CONNECTING:
            self._phase = _Phase.DENYING
        elif self._phase is _Phase.DENYING and not message.get("more_body"):
            self._phase = _Phase.CLOSING
        return None

    async def end(self, code: int) -> None:
        """Stop reading, and close a WebSocket that the application leaves open."""
        self.stop()
        # What a channel layer waits in may lose a cancellation, as clients of databases do while
        # they connect, and go on waiting for its messages.
        while (await asyncio.wait(self._tasks, timeout=self.STOP_AGAIN_S))[1]:
            self.stop()
        if self._phase is _Phase.OPEN and self._is_websocket:
            with contextlib.suppress(Exception):  # it is the last attempt, and no more than that
                await self.send({"type": "websocket.close", "code": code})

    def stop(self) -> None:
        """Read no more."""
        for task in self._tasks:
            task.cancel()

    # The channel layer's side

    def put(self, event: Event, /) -> bool | Overflow:
        if self._phase is _Phase.CLOSED or self._given_up:
            return True  # it is over: there is nobody to miss the event
        if self._waiting[_Source.LAYER] < self.bounds.capacity:
            self._append(event, _Source.LAYER)
            return True
        match self.bounds.overflow:
            case Overflow.DROP_NEWEST:
                return False
            case Overflow.DROP_OLDEST:
                self._drop_oldest()
                self._append(event, _Source.LAYER)
            case Overflow.CLOSE:
                self._give_up()
        return self.bounds.overflow

    def transmit(self, event: Event, frames: Frames, /) -> bool | Overflow:
        # There is no socket to write to from here: the consumer passes it on in its turn.
        del frames
        if not self._bypass:
            return self.put(event.copy())
        if self._phase is _Phase.OPEN:
            if self._waiting[_Source.BYPASS] >= self.bounds.capacity:
                return False
            self._append(event, _Source.BYPASS)
        elif self._phase is _Phase.CONNECTING:
            if len(self._early) >= self.EARLY_EVENTS:
                return False
            self._early.append(event)
        return True

    def _drop_oldest(self) -> None:
        for index, (_, source) in enumerate(self._events):
            if source is _Source.LAYER:
                del self._events[index]
                self._left(source)
                return

    def _give_up(self) -> None:
        """Close the client's connection, for its consumer can't keep up."""
        self._given_up = True
        while self._waiting[_Source.LAYER]:
            self._drop_oldest()
        if not self._is_websocket:
            self._fail(ChannelFull("too many events waited for this consumer"))
        elif self._phase in (_Phase.CONNECTING, _Phase.OPEN):
            # The consumer itself is busy, or this would not have come so far.
            self._start(self._close_for_overflow(), "close")

    async def _close_for_overflow(self) -> None:
        reason = "too many events are waiting"
        with contextlib.suppress(Exception):  # the client may be gone already
            await self.send(
                {"type": "websocket.close", "code": CloseCode.TRY_AGAIN_LATER, "reason": reason}
            )

    # The queue

    def _start(self, work: Any, name: str) -> None:
        self._tasks.append(
            asyncio.get_running_loop().create_task(work, name=f"headrace inbox {name}")
        )

    def _append(self, event: Event, source: _Source) -> None:
        self._waiting[source] += 1
        self._events.append((event, source))
        if self._asked is not None:
            self._asked.clear()
        self.note()

    def _left(self, source: _Source) -> None:
        self._waiting[source] -= 1
        if (blocked := self._blocked.pop(source, None)) is not None and not blocked.done():
            blocked.set_result(None)

    async def _read_connection(self, receive: Receive) -> None:
        try:
            while True:
                if self._asked is not None:
                    await self._asked.wait()
                event = await receive()
                over = event.get("type") in DISCONNECTS
                if over:
                    self._phase = _Phase.CLOSED
                    self.note()
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
                if direct:
                    await self._room(_Source.BYPASS, self.bounds.capacity)
                elif self.bounds.overflow is Overflow.DROP_NEWEST:
                    await self._room(_Source.LAYER, self.bounds.capacity)
                taken = self.transmit(event, {}) if direct else self.put(event)
                if taken is not True:
                    pulled_losses.note(f"channel {channel}", event, [(self, taken)], 1)
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
        self.note()


class HandledSink:
    """A lane for a consumer that handles client-bound events itself: nothing bypasses it."""

    def __init__(self, lane: Sink) -> None:
        self._lane = lane

    @property
    def bounds(self) -> Bounds | None:
        bounds: Bounds | None = getattr(self._lane, "bounds", None)
        return bounds

    def put(self, event: Event, /) -> bool | Overflow:
        return self._lane.put(event)

    def transmit(self, event: Event, frames: Frames, /) -> bool | Overflow:
        del frames
        return self._lane.put(event.copy())
