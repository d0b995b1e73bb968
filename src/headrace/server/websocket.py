"""One WebSocket: bytes <-> engine <-> ASGI events, and the lane to the channel layer.

Rules of this file:

- An inbound message takes one call: bytes, event, inbox, and the application's task runs.
- Exactly one ``websocket.disconnect`` reaches the application, whatever ended the connection.
- Reading pauses while the inbox is full; the application's ``send`` waits while the socket
  is; events of the channel layer wait for nobody and meet the outbox's policy.
- A client that sends faster than it may is read more slowly, and closed when it doesn't mind.
- What a client sends is read at once where that is little work. Where it was more, or may be, it
  is read in line with what others have sent, a bounded piece each time.
- It is written once: what carries the bytes, TCP or a stream of HTTP/2, is a transport.
"""

import asyncio
import logging
import math
from collections.abc import Hashable, Sequence
from enum import IntEnum
from typing import Any, ClassVar, Protocol

from ..exceptions import CloseCode, LocalProtocolError
from ..instruments import connection_id
from ..protocols.extensions import Extension
from ..protocols.websocket import (
    CloseReceived,
    ConnectionFailed,
    Event,
    State,
    WebSocketEngine,
)
from .asgi import (
    ClientDisconnected,
    as_coroutine,
    comes_of_disconnect,
    message_type,
    outgoing_headers,
    printable,
    refusal_status,
    unexpected,
)
from .counters import reason_of
from .http import log_refusal
from .identity import Peer, peer_of
from .inbox import Inbox
from .limits import BYTES, FAILURES, IDLE, MESSAGES, Pace
from .outbox import HIGH_WATER_BYTES, Outbox, SlowClientPolicy
from .runtime import Address, Message, Receive, Runtime, Scope, Send
from .traffic import draining_behind, traffic_behind

__all__ = ["EXTENSION", "Opening", "Phase", "WebSocketStream", "lane_behind"]

logger = logging.getLogger("headrace.server")

CANCELLED = asyncio.CancelledError()
#: How long the client has to see the end that we have written.
LINGER_S = 1.0
#: A client that is held back is heard again after so long at least, and one that comes to that
#: again within so long has not minded.
BREATH_S, RELAPSE_S = 0.05, 1.0
#: So many fragments cost as much as a message.
FRAGMENTS = 16
#: Who has just taken so many seconds of its rate is read in line: a MiB that was inflated is a
#: quarter of one.
AHEAD_S = 0.1
#: Client-bound events that may wait for the accept.
EARLY_EVENTS = 32


class Phase(IntEnum):
    """How far a WebSocket has come, as the application sees it."""

    CONNECTING = 0
    #: The application answers the handshake with an HTTP response of its own.
    DENYING = 1
    OPEN = 2
    #: It is over, and the application has been told; the close handshake may still be under way.
    CLOSED = 3


# Read on every message: a member of an Enum by its dotted name costs 120 ns on Python 3.11.
CONNECTING, DENYING, OPEN, CLOSED = Phase
ENGINE_OPEN, ENGINE_CLOSED = State.OPEN, State.CLOSED
ENDS = (CloseReceived, ConnectionFailed)


class Bounds(Protocol):
    """How many events of the channel layer may wait, and what happens to one more."""

    @property
    def capacity(self) -> int: ...

    @property
    def overflow(self) -> str:
        """``"drop-newest"``, ``"drop-oldest"`` or ``"close"``."""
        ...


class _NoRoom:
    """The bounds while there is no consumer that said what they are."""

    capacity = 0
    overflow = "drop-newest"


class _Full:
    """The bounds of an inbox that was found to be full, for as long as nothing is taken out.

    To find out takes a look at every event, which thousands of busy consumers must not cost
    again with each event that is sent to them.
    """

    __slots__ = ("_bounds", "capacity", "first")

    def __init__(self, bounds: Bounds, first: Message) -> None:
        self._bounds = bounds
        self.capacity = bounds.capacity
        #: The event that will be taken next.
        self.first: Message | None = first

    @property
    def overflow(self) -> str:
        return self._bounds.overflow

    def __getattr__(self, name: str) -> Any:
        """Return whatever else is known of the consumer."""
        return getattr(self._bounds, name)


class _Pressure:
    """What is kept of a client that sends faster than it may, or has to send something."""

    __slots__ = ("deaf", "refusal", "since", "spoke", "timer", "until")

    def __init__(self, now: float) -> None:
        #: When it spoke last.
        self.spoke = now
        #: Since when it is held back, without a break, and until when.
        self.since = now
        self.until = -math.inf
        #: Calls when it is read again; None: it is read.
        self.timer: asyncio.TimerHandle | None = None
        #: What it does too much of.
        self.refusal = MESSAGES
        #: It is heard no more.
        self.deaf = False

    def cancel(self) -> None:
        if self.timer is not None:
            self.timer.cancel()


NO_ROOM = _NoRoom()


class Opening(Protocol):
    """The HTTP side of a WebSocket, until it is accepted or refused."""

    def take(self, data: bytes) -> bool:
        """Keep what the client sends before it is accepted; False: let it wait in the socket."""
        ...

    def accept(
        self, subprotocol: str | None, headers: list[tuple[bytes, bytes]]
    ) -> tuple[tuple[Extension, ...], bytes]:
        """Answer the handshake; return the agreed extensions and what was kept."""
        ...

    def refuse(self, status: int, reason: str) -> None:
        """Answer with a plain text of one sentence, and end the connection."""
        ...

    def respond(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """Begin a response of the application's own."""
        ...

    def body(self, data: bytes, *, more: bool) -> None:
        """Send a part of its body; the last one ends the connection."""
        ...


class WebSocketStream(Inbox):
    """A WebSocket between its transport and the application's task."""

    protocol: ClassVar = "websocket"

    __slots__ = (
        "_aside",
        "_client",
        "_due",
        "_early",
        "_goes_on",
        "_opening",
        "_pressure",
        "_reading_paused",
        "_runtime",
        "_task",
        "_wire",
        "bounds",
        "engine",
        "number",
        "outbox",
        "phase",
        "place",
        "received_bytes",
        "tick",
        "transport",
    )

    def __init__(
        self,
        runtime: Runtime,
        transport: asyncio.Transport,
        outbox: Outbox,
        opening: Opening,
        *,
        client: Address | None,
    ) -> None:
        super().__init__(runtime.turn)
        self.transport = transport
        self.outbox = outbox
        self.phase = CONNECTING
        self._client = client
        self.tick: int | None = None
        #: Events of the channel layer that may wait for the application.
        self.bounds: Bounds = NO_ROOM
        self.engine: WebSocketEngine | None = None
        self._runtime = runtime
        self._opening: Opening | None = opening
        #: Events for the client that came before the accept.
        self._early: list[Message] | None = None
        self._reading_paused = False
        #: What comes is not read at once: nothing is, before the accept.
        self._aside = True
        #: What was left unread, or put aside, will be read when it is its turn.
        self._goes_on = False
        self._task: asyncio.Task[None] | None = None
        #: The wire format while we are open; otherwise nobody's.
        self._wire: Hashable = None
        #: On a connection of its own, with those of the handshake.
        self.received_bytes = 0
        #: When the bucket of this client is full again: see ``Pace``.
        self._due = 0.0
        self._pressure: _Pressure | None = None
        #: What the client's address has taken, for the gate.
        self.place: Hashable = None
        #: With that of the worker, the connection's id.
        self.number = 0

    @property
    def peer(self) -> Peer:
        """The client, as the log names it."""
        return peer_of(self._client, self._runtime.worker, self.number)

    def start(self, scope: Scope) -> asyncio.Task[None]:
        """Run the application."""
        runtime = self._runtime
        runtime.counters.websockets += 1
        self.number = self.number or runtime.number()
        runtime.enter(self)
        self._events.append({"type": "websocket.connect"})
        # The task is the application's own coroutine: a frame around it would be kept in
        # memory for as long as the connection lives.
        task = self._task = runtime.run(
            as_coroutine(runtime.app, scope, self.receive, self.send),
            self._ended,
            number=self.number,
        )
        if accept_timeout_s := runtime.config.accept_timeout_s:
            runtime.wheel.schedule(self, runtime.loop.time() + accept_timeout_s)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Learn how the application ended, and close for it what it left open."""
        runtime = self._runtime
        runtime.ended(task)
        error = CANCELLED if task.cancelled() else task.exception()
        if error is None:
            if self.phase is CONNECTING:
                runtime.counters.application_errors += 1
                logger.error("%s: the application neither accepted nor closed", self.peer)
            self._end(CloseCode.NORMAL_CLOSURE, "")
        elif self.phase is CLOSED and (error is CANCELLED or comes_of_disconnect(error)):
            logger.debug("%s: the application ended with its connection: %r", self.peer, error)
        elif error is CANCELLED:
            # Not by the server, which sees to the connection first.
            logger.error("%s: the application was cancelled on a WebSocket", self.peer)
            self._end(CloseCode.INTERNAL_ERROR, "the application was cancelled")
        elif self.phase is CONNECTING and (status := refusal_status(error)) is not None:
            log_refusal(runtime, self.peer, status, error)
            self._refuse(status, printable(str(error)))
        else:
            runtime.counters.application_errors += 1
            runtime.exited = error if isinstance(error, SystemExit) else None
            logger.error(
                "%s: the application raised %s on a WebSocket (%s)",
                self.peer,
                type(error).__name__,
                self.phase.name.lower(),
                exc_info=error,
            )
            self._end(CloseCode.INTERNAL_ERROR, "the application failed")

    def _end(self, code: int, reason: str) -> None:
        """Close for an application that has come to its end, or that can't go on."""
        if self.phase is OPEN:
            self._close(code, reason)
        elif self.phase is not CLOSED:
            self._refuse(500, "the application could not answer")

    # From the transport

    def data_received(self, data: bytes) -> None:
        """Take bytes from the client."""
        engine = self.engine
        if engine is None or self._aside:
            self._put_aside(data)
            return
        runtime = self._runtime
        size = len(data)
        self.received_bytes += size
        runtime.counters.bytes_received += size
        now = runtime.loop.time()
        events = engine.receive(data, now)
        self._take(events)
        if (pace := runtime.pace) is not None:
            cost_s = len(events) * pace.message_s
            if (bytes_s := size * pace.byte_s) > cost_s:
                cost_s = bytes_s
            due = self._due
            self._due = due = (due if due > now else now) + cost_s  # noqa: FURB136 - no call here
            if due - now > pace.burst_s or engine.fragments or self._pressure is not None:
                self._look_closer(pace, events, size, now)

    def _put_aside(self, data: bytes) -> None:
        """Keep what comes before the accept, or is to be read in line with what others sent."""
        engine, runtime = self.engine, self._runtime
        if engine is None:
            if self._opening is not None and not self._opening.take(data):
                self._pause_reading()
            return
        size = len(data)
        self.received_bytes += size
        runtime.counters.bytes_received += size
        now = runtime.loop.time()
        if runtime.pace is not None:
            self._due = max(self._due, now) + size * runtime.pace.byte_s
        self._take(engine.receive(data, now, max_events=0))
        self._pause_reading()
        self._go_on_soon()

    def eof_received(self) -> bool:
        """Learn that the client sends no more; there is no half-open WebSocket."""
        if self.engine is not None:
            self._take(self.engine.receive_eof(self._runtime.loop.time()))
        return False

    def connection_lost(self, error: Exception | None) -> None:
        """Learn that the transport is gone."""
        del error
        runtime = self._runtime
        runtime.leave(self)
        runtime.gate.leave(self.place)
        self.place = None
        if self._pressure is not None:
            self._pressure.cancel()
        runtime.wheel.cancel(self)
        if self.engine is not None and runtime.settled is not None:
            runtime.settled.gone(self.number, runtime.numbered)
        if self.engine is not None and self.engine.state is not ENGINE_CLOSED:
            self.engine.receive_eof(runtime.loop.time())
        self._disconnect()
        self.outbox.lost()
        self.resume()
        if self._task is not None and not self._task.done():
            runtime.end_in_time(self._task, self.peer)

    def pause_writing(self) -> None:
        """Learn that the socket takes no more."""
        self.outbox.pause()

    def resume_writing(self) -> None:
        """Learn that the socket takes more again."""
        self.outbox.resume()
        engine = self.engine
        if engine is not None and engine.state is ENGINE_OPEN:
            # Pongs and pings that were kept back, bounded, in the engine.
            self.outbox.write(engine.data_to_send())
        elif self.phase is CLOSED:
            self._linger()

    def _take(self, events: list[Event]) -> None:
        """Put what the client sent into the inbox, and let the application run."""
        inbox = self._events
        self._runtime.counters.messages_received += len(events)
        for event in events:
            if type(event) is str:
                inbox.append({"type": "websocket.receive", "text": event})
            elif type(event) is bytes:
                inbox.append({"type": "websocket.receive", "bytes": event})
            elif isinstance(event, ENDS):
                self._runtime.counters.messages_received -= 1
                self._closed_by_peer(event)
        engine = self.engine
        assert engine is not None
        if self.phase is CLOSED:
            # The end comes alone, behind all that the client sent before it; what it still
            # sends after that gives no events, and no delay.
            if events:
                agreed = isinstance(events[-1], CloseReceived)
                self._send_control(engine.data_to_send(), agreed=agreed)
        elif not self.outbox.paused and (control := engine.data_to_send()):
            self.outbox.write(control)
        if self._wake is not None:
            self.resume()
        if self.phase is CLOSED:
            if engine.has_unread:
                self._pause_reading()
                self._runtime.turn.later(self._hear_the_end)
        elif inbox or engine.has_unread:
            full = self._full_of_messages()
            if full or engine.has_unread:
                self._pause_reading()
            if engine.has_unread and not full:
                self._go_on_soon()

    def _closed_by_peer(self, event: CloseReceived | ConnectionFailed) -> None:
        if isinstance(event, ConnectionFailed):
            runtime = self._runtime
            if (reason := FAILURES.get(event.code)) is not None:
                runtime.refusals.count(reason)
            what = "%s: WebSocket failed with %d: %s"
            runtime.log(reason or "lost", what, self.peer, event.code, event.reason)
        self._disconnect(event.code, event.reason)

    def _send_control(self, control: bytes, *, agreed: bool = False) -> None:
        """Send the close frame, behind the messages that wait; then see to the transport.

        ``agreed``: the client's close frame has come, and nothing follows it.
        """
        engine = self.engine
        assert engine is not None
        agreed = agreed and not self.outbox.paused
        self.outbox.finish(control, at_once=agreed)
        if agreed:
            # RFC 6455 §7.1.1: the server closes first; the transport sends what it holds.
            self.transport.close()
            deadline = self._runtime.loop.time() + self._runtime.config.close_timeout_s
            self._runtime.wheel.schedule(self, deadline)
        elif engine.state is ENGINE_CLOSED:
            self._linger()
        else:
            self._runtime.wheel.schedule(self, engine.deadline())

    def _linger(self) -> None:
        """Close the transport once the close frame is out, reading on until the client has it."""
        # What the client still sends is read and dropped for a while, for a reset would
        # overtake our close frame.
        engine = self.engine
        if self.transport.is_closing() or (
            engine is not None and engine.state is not ENGINE_CLOSED
        ):
            return
        now = self._runtime.loop.time()
        self.outbox.flush()
        self._resume_reading()
        if self.outbox.paused:
            # Someone who doesn't read does not get to hold the connection for long.
            self._runtime.wheel.schedule(self, now + self._runtime.config.close_timeout_s)
        elif self.transport.can_write_eof():
            self.transport.write_eof()
            waits = self.transport.get_write_buffer_size() > 0
            linger_s = self._runtime.config.close_timeout_s if waits else LINGER_S
            self._runtime.wheel.schedule(self, now + linger_s)
        else:
            self.transport.close()

    def _pause_reading(self) -> None:
        if not self._reading_paused and not self.transport.is_closing():
            self._reading_paused = True
            self.transport.pause_reading()

    def _resume_reading(self) -> None:
        if self._reading_paused:
            self._reading_paused = False
            if not self.transport.is_closing():
                self.transport.resume_reading()

    def _go_on_soon(self) -> None:
        """Go on in line with others: once, whoever asks for it, or each time would ask twice."""
        if not self._goes_on:
            self._goes_on = True
            self._runtime.turn.later(self._go_on)

    def _go_on(self) -> None:
        """Take what was left unread: while the inbox was full, or others had their turn."""
        self._goes_on = False
        if self._held_back or self._full_of_messages():
            return
        engine = self.engine
        if engine is not None and engine.state is not ENGINE_CLOSED:
            # Even with nothing unread: it was we who did not hear the client.
            self._aside = False
            self.data_received(b"")
            self._aside = self._due - self._runtime.loop.time() > AHEAD_S
            if engine.has_unread or self._held_back or self._full_of_messages():
                return
        self._resume_reading()

    def _look_closer(self, pace: Pace, events: list[Event], size: int, now: float) -> None:
        """See to a client that sends fast, or in pieces, or has to send something at times."""
        engine, pressure = self.engine, self._pressure
        assert engine is not None
        due = self._due = max(self._due, now) + engine.fragments * pace.message_s / FRAGMENTS
        engine.fragments = 0
        self._aside = due - now > AHEAD_S
        if pressure is not None and any(type(event) in (str, bytes) for event in events):
            pressure.spoke = now
        over_s = due - now - pace.burst_s
        if over_s > 0 and self.phase is OPEN:
            if pressure is None:
                pressure = self._pressure = _Pressure(now)
            if now - pressure.until > RELAPSE_S:
                pressure.since = now
                pressure.refusal = MESSAGES
            if size * pace.byte_s > len(events) * pace.message_s:
                pressure.refusal = BYTES
            if now - pressure.since > pace.patience_s:
                self._lose_patience(pressure)
            else:
                self._slow_down(pressure, now, max(over_s, BREATH_S))

    def _slow_down(self, pressure: "_Pressure", now: float, wait_s: float) -> None:
        """Read no further for a while."""
        pressure.until = now + wait_s
        if pressure.timer is None:
            pressure.timer = self._runtime.loop.call_later(wait_s, self._speed_up)
        self._pause_reading()

    def _lose_patience(self, pressure: "_Pressure") -> None:
        """Close; and hear nothing more, for that costs what we can't afford."""
        pressure.deaf = True
        self._runtime.refusals.close(pressure.refusal, self.peer, self._close)
        self._pause_reading()

    def _speed_up(self) -> None:
        assert self._pressure is not None
        self._pressure.timer = None
        self._go_on_soon()

    @property
    def _held_back(self) -> bool:
        pressure = self._pressure
        return pressure is not None and (pressure.deaf or pressure.timer is not None)

    def _full_of_messages(self) -> bool:
        """Tell whether the client has sent enough for now.

        Events of the channel layer don't count: a flood of them must not make us deaf.
        """
        limit = self._runtime.config.inbox_limit
        return len(self._events) >= limit and sum(map(_is_message, self._events)) >= limit

    # To and from the application

    def __next__(self) -> Inbox:
        """Go on with the next event, which the ASGI ``receive`` returns.

        Raises ClientDisconnected for who waits for more than ``websocket.disconnect``.
        """
        events = self._events
        if not events:
            if self.phase is CLOSED:
                raise ClientDisconnected("cannot receive: the WebSocket is closed")
            return self.block()
        message = events.pop(0)
        if self._reading_paused and not any(map(_is_message, events)):
            self._go_on_soon()
        raise StopIteration(message)

    async def send(self, message: Message) -> None:
        """Do what the application asks (the ASGI ``send``).

        Waits while the socket takes no more. Raises LocalProtocolError for what the state or
        the message's form forbids, ClientDisconnected (an OSError) when the client is gone.
        """
        if self.phase is OPEN and message.get("type") == "websocket.send":
            engine = self.engine
            assert engine is not None
            outbox = self.outbox
            outbox.push(engine.encode(_payload(message)))
            if outbox.paused or outbox.waiting_bytes > HIGH_WATER_BYTES:
                await outbox.drained()
                if self.phase is not OPEN:
                    raise ClientDisconnected("the WebSocket was closed while the message waited")
            return
        type_ = message_type(message)
        if self.phase is CONNECTING and type_ == "websocket.accept":
            self._accept(message)
            return
        if self.phase is CLOSED:
            if type_ == "websocket.close":
                return
            raise ClientDisconnected(f"cannot send {type_!r}: the WebSocket is closed")
        match self.phase, type_:
            case Phase.CONNECTING, "websocket.close":
                self._refuse(403, "the application refused this WebSocket")
            case Phase.OPEN, "websocket.close":
                self._close(*_close_arguments(message))
            case Phase.CONNECTING, "websocket.http.response.start":
                self._begin_denial(message)
            case Phase.DENYING, "websocket.http.response.body":
                self._continue_denial(message)
                await self.outbox.drained()
            case _:
                raise unexpected(message, state=self.phase.name, expected=_EXPECTED[self.phase])

    def _accept(self, message: Message) -> None:
        runtime = self._runtime
        opening = self._opening
        assert opening is not None
        subprotocol = message.get("subprotocol")
        if subprotocol is not None and not isinstance(subprotocol, str):
            raise LocalProtocolError(f"a subprotocol is a str, not {subprotocol!r:.100}")
        extensions, data = opening.accept(subprotocol, outgoing_headers(message))
        engine = self.engine = WebSocketEngine(
            runtime.loop.time(),
            limits=runtime.config.websocket,
            timeouts=runtime.timeouts,
            extensions=extensions,
        )
        if engine.wire is None:
            # What the encoder makes of a message depends on those before it: with one of them
            # dropped the client could read none that follows.
            self.outbox.policy = SlowClientPolicy.CLOSE
        self._wire = engine.wire
        # What a kilobyte inflates to is found out in line with others.
        self._aside = bool(extensions)
        self._opening = None
        self.phase = OPEN
        runtime.counters.accepted += 1
        if runtime.settled is not None:
            runtime.settled.opened(self.number, runtime.numbered)
        config = runtime.config
        if config.watcher is not None:
            config.watcher.websocket_accepted(self)
        looks_s = config.ping_interval_s or config.message_timeout_s
        if 0 < looks_s < (config.accept_timeout_s or math.inf):
            runtime.wheel.schedule(self, engine.deadline())
        # Else the wheel looks at us when the accept was to be there; the ping is due later.
        if config.websocket_timeout_s:
            self._limit_life(config.websocket_timeout_s)
        if runtime.pace is not None and runtime.pace.idle_s:
            self._limit_silence(runtime.pace.idle_s)
        for event in self._early or ():
            self.transmit(event, {})
        self._early = None
        if runtime.draining:
            self.drain()
        if data or self._reading_paused:
            # In a turn of its own: the application's task, which accepts, is running now.
            self._pause_reading()
            runtime.loop.call_soon(self._begin_reading, data)

    def _limit_life(self, timeout_s: float) -> None:
        task = self._task
        assert task is not None
        timer = self._runtime.loop.call_later(timeout_s, self._live_no_longer)
        task.add_done_callback(lambda _: timer.cancel())

    def _live_no_longer(self) -> None:
        if self.phase is OPEN:
            self._close(CloseCode.GOING_AWAY, "this WebSocket has lived as long as one may")

    def _limit_silence(self, idle_s: float) -> None:
        task = self._task
        assert task is not None
        loop = self._runtime.loop
        pressure = self._pressure = _Pressure(loop.time())
        timer: asyncio.TimerHandle

        def look() -> None:
            nonlocal timer
            now = loop.time()
            if self._reading_paused:
                pressure.spoke = now  # who does not hear is we
            left_s = pressure.spoke + idle_s - now
            if left_s > 0:
                timer = loop.call_later(left_s, look)
            elif self.phase is OPEN:
                self._runtime.refusals.close(IDLE, self.peer, self._close)

        timer = loop.call_later(idle_s, look)
        task.add_done_callback(lambda _: timer.cancel())

    def _begin_reading(self, data: bytes) -> None:
        engine = self.engine
        assert engine is not None
        self._reading_paused = False
        self.data_received(data)
        if not self._reading_paused and not self.transport.is_closing():
            self.transport.resume_reading()

    def _begin_denial(self, message: Message) -> None:
        status = message.get("status")
        if not isinstance(status, int) or not 200 <= status <= 599:
            raise LocalProtocolError(f"a denial has a status from 200 to 599, not {status!r:.50}")
        headers = outgoing_headers(message)
        assert self._opening is not None
        self._opening.respond(status, headers)
        self.phase = DENYING
        self._told_refused(status)

    def _continue_denial(self, message: Message) -> None:
        more = bool(message.get("more_body", False))
        assert self._opening is not None
        self._opening.body(message.get("body", b""), more=more)
        if not more:
            self._runtime.counters.refuse("denied")
            self._finish_refusal()

    def _refuse(self, status: int, reason: str) -> None:
        self._runtime.counters.refuse(reason_of(status))
        assert self._opening is not None
        self._opening.refuse(status, reason)
        if self.phase is CONNECTING:
            self._told_refused(status)
        self._finish_refusal()

    def _told_refused(self, status: int) -> None:
        watcher = self._runtime.config.watcher
        if watcher is not None:
            watcher.websocket_refused(self, status)

    def _finish_refusal(self) -> None:
        self._opening = self._early = None
        self._disconnect()
        self.note()
        self._linger()

    def _close(self, code: int, reason: str) -> None:
        engine = self.engine
        assert engine is not None
        engine.send_close(code, reason, now=self._runtime.loop.time())
        # Nothing that the client sends from here on counts: the application need not wait.
        self._disconnect(code, reason)
        self.note()
        self._send_control(engine.data_to_send())
        if self._reading_paused or engine.has_unread:
            self._runtime.turn.later(self._hear_the_end)

    def _hear_the_end(self) -> None:
        """Read on for the client's close frame, however full the inbox is."""
        engine = self.engine
        assert engine is not None
        if self._pressure is not None and self._pressure.deaf:
            return
        if engine.has_unread:
            self._take(engine.receive(b"", self._runtime.loop.time()))
        if not engine.has_unread:
            self._resume_reading()

    def _disconnect(self, code: int = CloseCode.ABNORMAL_CLOSURE, reason: str = "") -> None:
        """Tell the application, once, that it is over."""
        if self.phase is not CLOSED:
            watcher = self._runtime.config.watcher
            if watcher is not None and self.phase is OPEN:
                watcher.websocket_closed(self, code)
            elif watcher is not None and self.phase is CONNECTING and self._opening is not None:
                watcher.websocket_refused(self, 499)
            if self.phase is OPEN:
                self._runtime.counters.closes[str(int(code))].value += 1
            self.phase = CLOSED
            self._wire = None
            event = {"type": "websocket.disconnect", "code": int(code), "reason": reason}
            self._events.append(event)

    # What a consumer asks of its connection

    @property
    def connecting(self) -> bool:
        """Whether it is neither accepted nor refused yet."""
        return self.phase is CONNECTING

    @property
    def over(self) -> bool:
        """Whether one of the two sides has ended it."""
        return self.phase is CLOSED

    @property
    def told(self) -> bool:
        """Whether the application has received the disconnect already."""
        return self.phase is CLOSED and not self._events

    # From the channel layer (the lane)

    def put(self, event: Message, /) -> bool | str:
        """Take an event for the consumer's handler.

        False when there is no room, the overflow policy when something else was done about it.
        """
        if self.phase is CLOSED:
            return True  # it is over: there is nobody to miss the event
        outcome: bool | str = True
        if len(self._events) >= self.bounds.capacity:
            outcome = self._make_room()
            if outcome is False or self.phase is CLOSED:
                return outcome
        self._events.append(event)
        if self._wake is not None and not self._noted:
            self.note()
        return outcome

    def _make_room(self) -> bool | str:
        """Do as the policy says if too many events of the channel layer wait."""
        events, bounds = self._events, self.bounds
        if not isinstance(bounds, _Full) or not events or events[0] is not bounds.first:
            # The client's messages take no room away from them.
            waiting = sum(map(_is_of_layer, events))
            if waiting < bounds.capacity:
                return True
            if not waiting:
                return False
            if isinstance(bounds, _Full):
                bounds.first = events[0]
            else:
                self.bounds = bounds = _Full(bounds, events[0])
        if bounds.overflow == "drop-oldest":
            del events[next(at for at, event in enumerate(events) if _is_of_layer(event))]
            bounds.first = events[0] if events else None
        elif bounds.overflow == "close":
            events[:] = [event for event in events if not _is_of_layer(event)]
            self._end_for_overflow()
        else:
            return False
        return bounds.overflow

    def _end_for_overflow(self) -> None:
        reason = "too many events are waiting"
        match self.phase:
            case Phase.CONNECTING:
                self._refuse(503, reason)
            case Phase.OPEN:
                self._close(CloseCode.TRY_AGAIN_LATER, reason)

    def transmit(self, event: Message, frames: dict[Hashable, bytes], /) -> bool:
        """Take an ASGI event for the client; False when there is no room before the accept."""
        # The straight way: somebody of the same wire has left the frame, and we are open.
        frame = frames.get(self._wire)
        if frame is None:
            return self._transmit_first(event, frames)
        self.outbox.push(frame)
        return True

    def _transmit_first(self, event: Message, frames: dict[Hashable, bytes]) -> bool:
        if self.phase is not OPEN:
            return self._transmit_early(event)
        if event["type"] != "websocket.send":
            self._close(*_close_arguments(event))
            return True
        engine = self.engine
        assert engine is not None
        frame = engine.encode(_payload(event))
        if engine.wire is not None:
            frames[engine.wire] = frame
        self.outbox.push(frame)
        return True

    def transmit_burst(
        self,
        events: Sequence[Message],
        bursts: dict[Hashable, tuple[bytes, list[bytes]]],
        at_once: bool,
        /,
    ) -> int:
        """Take messages for the client; return how many had no room before the accept."""
        burst = bursts.get(self._wire)
        if burst is None:
            engine = self.engine
            if engine is None or self._wire is None:
                return sum(not self.transmit(event, {}) for event in events)
            frames = [engine.encode(_payload(event)) for event in events]
            burst = bursts[self._wire] = (b"".join(frames), frames)
        self.outbox.push_burst(burst, at_once)
        return 0

    def _transmit_early(self, event: Message) -> bool:
        if self.phase is not CONNECTING:
            return True  # it is over: there is nobody to miss the event
        if self._early is None:
            self._early = []
        if len(self._early) >= EARLY_EVENTS:
            return False
        self._early.append(event)
        return True

    # From the outbox, the wheel and the server

    def overflowed(self) -> None:
        """Close: the client does not read what it is sent."""
        self._runtime.counters.slow_clients += 1
        self._runtime.log(
            "slow_client",
            "%s: the client is too slow, more than %d bytes wait for it: closing with 1013",
            self.peer,
            self.outbox.limit_bytes,
            level=logging.WARNING,
        )
        if self.phase is OPEN:
            self._close(CloseCode.TRY_AGAIN_LATER, "too slow: too much is waiting to be read")

    def dropped(self, messages: int) -> None:
        """Count messages that a slow client will never see."""
        self._runtime.counters.drop(self.outbox.policy, messages)

    def expire(self, now: float) -> float | None:
        """Act on a deadline: the accept, a ping, the close handshake."""
        engine = self.engine
        if engine is None:
            if self.phase in (CONNECTING, DENYING):
                logger.error(
                    "%s: the application has not answered the handshake in %g s: "
                    "it has to accept the WebSocket, or close it",
                    self.peer,
                    self._runtime.config.accept_timeout_s,
                )
                self._give_up()
            else:
                self._abort()
            return None
        if engine.state is ENGINE_CLOSED:
            self._abort()
            return None
        if self._reading_paused and engine.state is ENGINE_OPEN:
            # Who is silent here is we: look again when the client has had a chance to be heard.
            return now + (self._runtime.config.ping_timeout_s or 1.0)
        if (deadline := engine.deadline()) is not None and deadline <= now:
            self._take(engine.timeout(now))
            # Where that ended the connection, its next look is scheduled already.
            deadline = None if self.tick is not None else engine.deadline()
        interval_s = self._runtime.config.ping_interval_s
        if deadline is not None and interval_s and engine.state is ENGINE_OPEN:
            # The answer to a ping brings the next one forward, and is no reason to call the wheel.
            deadline = min(deadline, now + interval_s)
        return deadline

    def _give_up(self) -> None:
        self._refuse(503, "the application took too long to answer")
        if self._task is not None:
            self._task.cancel()

    def waiting(self) -> tuple[int, int, bool]:
        """Return what waits: see ``Drainable``."""
        outbox = self.outbox
        if not outbox.paused:
            return len(self._events), outbox.waiting_bytes, False
        buffered = self.transport.get_write_buffer_size()
        return len(self._events), outbox.waiting_bytes + buffered, True

    def drain(self) -> None:
        """Close: the server stops."""
        if self.phase is OPEN:
            self._close(*self._runtime.farewell)

    @property
    def task(self) -> "asyncio.Task[None] | None":
        """The application's."""
        return self._task

    # What an application asks of it

    @property
    def draining(self) -> bool:
        """Whether the server is about to close it, to stop."""
        return self._runtime.draining

    @property
    def traffic(self) -> "WebSocketStream":
        """This WebSocket, which keeps an account anyway."""
        return self

    @property
    def sent_bytes(self) -> int:
        """Bytes to the client, those included that wait for its socket."""
        return self.outbox.offered_bytes

    @property
    def extensions(self) -> str:
        """What the handshake has agreed, as the header of the answer says it."""
        return "" if self.engine is None else self.engine.agreed

    def dismiss(self, code: int, reason: str) -> None:
        """Close, by the wish of somebody who looks after the server."""
        if self.phase is OPEN:
            self._close(code, reason)
        else:
            self.abort()

    def abort(self) -> None:
        """Close at once, and end the application's task."""
        self._abort()
        if self._task is not None:
            self._task.cancel()

    def _abort(self) -> None:
        self.transport.abort()


def lane_behind(receive: Receive, send: Send) -> WebSocketStream | None:
    """Return the WebSocket whose own ``receive`` and ``send`` these are.

    None where a middleware has put something else in the place of one of them: the lane
    would bypass it.
    """
    stream = getattr(send, "__self__", None)
    if isinstance(stream, WebSocketStream) and stream.send == send and stream.receive == receive:
        return stream
    return None


#: ``scope["extensions"]["headrace"]``, the same for all: a dictionary of its own would cost
#: each idle connection 184 bytes.
EXTENSION: dict[str, Any] = {
    "lane": lane_behind,
    "connection_id": connection_id,
    "draining": draining_behind,
    "traffic": traffic_behind,
}

_EXPECTED = {
    Phase.CONNECTING: "websocket.accept, websocket.close or websocket.http.response.start",
    Phase.DENYING: "websocket.http.response.body",
    Phase.OPEN: "websocket.send or websocket.close",
}


#: What the client's side puts into the inbox; anything else is the channel layer's.
_FROM_CLIENT = frozenset({"websocket.connect", "websocket.receive", "websocket.disconnect"})


def _is_of_layer(event: Message) -> bool:
    return event["type"] not in _FROM_CLIENT


def _is_message(event: Message) -> bool:
    type_: str = event["type"]
    return type_ == "websocket.receive"


def _payload(message: Message) -> str | bytes:
    """Return the one thing that a ``websocket.send`` carries."""
    text: Any = message.get("text")
    if type(text) is str:
        return text
    data: Any = message.get("bytes")
    if text is None and isinstance(data, bytes | bytearray | memoryview):
        return data if type(data) is bytes else bytes(data)
    if isinstance(text, str):
        return str(text)
    raise LocalProtocolError(
        "websocket.send carries 'text' (a str) or 'bytes', "
        f"not text={text!r:.50} and bytes={data!r:.50}"
    )


def _close_arguments(message: Message) -> tuple[int, str]:
    code = message.get("code")
    reason = message.get("reason")
    if not isinstance(code, int | None):
        raise LocalProtocolError(f"a close code is an int, not {code!r:.50}")
    if not isinstance(reason, str | None):
        raise LocalProtocolError(f"the reason of a close is a str, not {reason!r:.50}")
    return (CloseCode.NORMAL_CLOSURE if code is None else code), reason or ""
