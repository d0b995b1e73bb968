"""One connection that speaks HTTP/2: its streams are requests and WebSockets.

Rules of this file:

- Requests and WebSockets are those of every other connection (``Exchange``, ``WebSocketStream``):
  here is what they ask of a connection, one stream each.
- All streams write at the end of the turn, together: a frame of each in turn, in one write.
- Nothing is acknowledged that the application has not taken, and nothing is kept for a client
  beyond 64 KiB a stream: whoever sends waits.
- Of applications that go on although their client has reset the stream there are as many as
  streams may be open, and no more: who resets requests gets no further ones for it.
"""

import asyncio
import logging
from collections.abc import Callable, Hashable
from typing import Any, ClassVar, cast

from ..exceptions import HandshakeError
from ..protocols.extensions import Extension
from ..protocols.handshake import HandshakeRequest, parse_handshake
from ..protocols.http1 import RequestReceived
from ..protocols.http2 import (
    ConnectionFailed,
    DataReceived,
    ErrorCodes,
    Event,
    Http2Engine,
    Http2Stream,
    RequestRefused,
    StreamEnded,
    StreamOpened,
    StreamReset,
)
from .asgi import http_scope, websocket_scope
from .counters import reason_of
from .ending import Ending
from .http import Exchange, log_access
from .identity import Peer, peer_of
from .inbox import Inbox, breathe
from .limits import Refusal
from .outbox import HIGH_WATER_BYTES, Outbox
from .runtime import Address, Runtime
from .turn import Share
from .websocket import EXTENSION, WebSocketStream

__all__ = ["Http2Connection"]

logger = logging.getLogger("headrace.server")

#: A sender that was stopped goes on when no more than this waits.
LOW_WATER_BYTES = HIGH_WATER_BYTES // 4
#: Bytes that one turn hands to the transport before the loop has its turn again.
TURN_BYTES = 256 * 1024
#: Frames that are read as soon as they come, counted as the engine does: a request and some more.
FRAMES_AT_ONCE = 32
#: Streams that may come to their end at once, by the clock or with their client: each is work for
#: its application.
ENDS = 4
#: How long the client of a closed WebSocket has to end its side of the stream.
HALF_CLOSED_S = 1.0
#: What a WebSocket's client may send before it is accepted.
EARLY_BYTES = 64 * 1024
#: What a WebSocket that reads again is handed at once of what was kept for it.
KEPT_BYTES = 16 * 1024
#: The options that move a limit, where they are those of HTTP/1.1.
_OPTIONS = {
    "header_bytes": "--max-header-bytes",
    "header_count": "--max-headers",
    "head_timeout": "--head-timeout",
    "ping_timeout": "--ping-timeout",
}


class Http2Connection(Ending):
    """The server's end of one connection, taken over from a ``Connection``.

    Args:
        runtime: Of the server.
        transport: Whose bytes are HTTP/2 from here on.
        origin: Tells where a request came from, and by which scheme.
        client: The other end.
        server: Our own.
        number: The connection's.
        place: What its address has taken.
        tls: What ASGI's extension ``tls`` says of it.
    """

    protocol: ClassVar = "http/2"

    __slots__ = (
        "_carried",
        "_client",
        "_due",
        "_engine",
        "_goes_on",
        "_losing",
        "_noted",
        "_origin",
        "_paused",
        "_place",
        "_server",
        "_tasks",
        "_tls",
        "_waiting",
        "number",
        "received_bytes",
        "sent_bytes",
        "share",
    )

    def __init__(
        self,
        runtime: Runtime,
        transport: asyncio.Transport,
        *,
        origin: Callable[[RequestReceived], tuple[Address | None, str]],
        client: Address | None,
        server: Address | None,
        number: int,
        place: Hashable = None,
        tls: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(runtime)
        config = runtime.config
        self._transport = transport
        self._origin = origin
        self._client = client
        self._server = server
        self._place = place
        self._tls = tls
        self.number = number
        self.received_bytes = 0
        self.sent_bytes = 0
        #: Of what can wait: one for all streams.
        self.share = Share(runtime.turn)
        #: What each stream carries.
        self._carried: dict[int, _Request | _Tunnel] = {}
        #: The application's, those of streams that have ended included.
        self._tasks: set[asyncio.Task[None]] = set()
        #: Requests whose application waits in ``send``.
        self._waiting: set[_Request] = set()
        self._noted = False
        #: What was left unread will be taken later.
        self._goes_on = False
        #: The client is gone, and not everybody has been told yet.
        self._losing = False
        #: The socket takes no more.
        self._paused = False
        #: When the wheel will look at us.
        self._due: float | None = None
        self._engine = Http2Engine(
            config.http2_limits,
            config.http,
            now=runtime.loop.time(),
            default_headers=runtime.default_headers,
            write_timeout_s=config.write_timeout_s,
            ping_interval_s=config.ping_interval_s or None,
            ping_timeout_s=config.ping_timeout_s or None,
        )

    @property
    def peer(self) -> Peer:
        """The client, as the log names it."""
        return peer_of(self._client, self._runtime.worker, self.number)

    @property
    def paused(self) -> bool:
        """Whether the socket takes no more."""
        return self._paused

    @property
    def engine(self) -> Http2Engine:
        """What the bytes mean."""
        return self._engine

    @property
    def runtime(self) -> Runtime:
        """Of the server."""
        return self._runtime

    def begin(self, data: bytes) -> None:
        """Take the transport over, and what has come already."""
        runtime = self._runtime
        self.received_bytes = len(data)  # counted by who has received them
        runtime.enter(self)
        self._transport.set_protocol(cast("asyncio.BaseProtocol", self))
        if runtime.draining:
            self._engine.drain(runtime.loop.time())
        self._receive(data)

    # From the transport

    def data_received(self, data: bytes) -> None:
        """Take bytes from the client."""
        if self._lingering or self._engine.closed:
            self._pass_over()
            return
        size = len(data)
        self.received_bytes += size
        self._runtime.counters.bytes_received += size
        self._receive(data)

    def _receive(self, data: bytes) -> None:
        """Read at once what is little work; the rest when it is its turn."""
        runtime = self._runtime
        frames = FRAMES_AT_ONCE if runtime.turn.has_time() else 0
        self._take(self._engine.receive(data, runtime.loop.time(), frames=frames))

    def eof_received(self) -> bool:
        """Learn that the client sends no more: HTTP/2 has no half-open connection."""
        self._engine.receive_eof(self._runtime.loop.time())
        self._lose()
        self._take([])
        return False

    def connection_lost(self, error: Exception | None) -> None:
        """Learn that the transport is gone."""
        del error
        runtime = self._runtime
        self._lingering = True
        runtime.leave(self)
        runtime.gate.leave(self._place)
        runtime.wheel.cancel(self)
        self._engine.receive_eof(runtime.loop.time())
        self._engine.discard()
        self._lose()

    def _lose(self) -> None:
        """Tell those that wait for a client who is gone, a few at a time."""
        if not self._losing:
            self._losing = True
            self._lose_some()

    def _lose_some(self) -> None:
        for _ in range(min(ENDS, len(self._carried))):
            _, carried = self._carried.popitem()
            carried.lost(499)
        self._losing = bool(self._carried)
        if self._losing:
            self.share.later(self._lose_some)

    def pause_writing(self) -> None:
        """Learn that the socket takes no more: a client that does not read is not read."""
        self._paused = True
        self._begin_waiting()
        self._pause_reading()
        self._schedule()

    def resume_writing(self) -> None:
        """Learn that the socket takes more again."""
        self._paused = False
        self._write_by = None
        if self._lingering:
            self._finish_writing_soon()
            return
        self.flush()
        if not self._paused and not self._lingering:
            self.go_on()

    # From the engine

    def _take(self, events: list[Event]) -> None:
        self._handle(events)
        self.note()
        if self._engine.has_unread:
            # Others want the loop, too.
            self._pause_reading()
            if not self._goes_on:
                self._goes_on = True
                self._runtime.turn.later(self.go_on)
        elif self._engine.closed:
            self._pass_over()
        elif not self._paused:
            self._resume_reading()
        self._schedule()

    def _handle(self, events: list[Event]) -> None:
        carried = self._carried
        for event in events:
            match event:
                case DataReceived():
                    if (receiver := carried.get(event.stream.id)) is not None:
                        receiver.data(event.data)
                    else:
                        self._engine.consumed(event.stream, event.stream.unconsumed)
                case StreamOpened(stream, request, protocol):
                    self._runtime.refresh_date()
                    self._open(stream, request, protocol)
                case StreamEnded(stream):
                    if (receiver := carried.get(stream.id)) is not None:
                        receiver.eof()
                case StreamReset(stream, code, reason, by_client, limit):
                    if limit is not None:
                        self._runtime.refusals.count(limit)
                        what = "%s: %s: its stream is reset"
                        self._runtime.log(limit, what, self.peer, reason)
                    elif not by_client:
                        logger.debug("%s: stream reset with %d: %s", self.peer, code, reason)
                    if (receiver := carried.pop(stream.id, None)) is not None:
                        at_fault = not (by_client or limit or self._engine.closed)
                        receiver.lost(400 if at_fault else 499)
                case RequestRefused(stream, status, reason):
                    self._refused(stream, status, reason)
                case ConnectionFailed():
                    self._fail(event)

    def _refused(self, stream: Http2Stream, status: int, reason: str) -> None:
        word = reason_of(status)
        self._runtime.refusals.count(word)
        self._runtime.log(word, "%s: refused with %d: %s", self.peer, status, reason)
        if (receiver := self._carried.pop(stream.id, None)) is not None:
            receiver.lost(status)

    def _fail(self, event: ConnectionFailed) -> None:
        """End what the client misuses, or what it has lost its way in."""
        runtime = self._runtime
        if event.limit is None:
            runtime.refusals.count("http2_error")
            what = "%s: HTTP/2 failed with %d: %s"
            runtime.log("http2_error", what, self.peer, event.code, event.reason)
            return
        option = _OPTIONS.get(event.limit, f"--http2-{event.limit.replace('_', '-')}")
        runtime.refusals.note(Refusal(f"http2_{event.limit}", event.reason, option), self.peer)
        # Whoever floods us does not leave the work behind.
        for task in list(self._tasks):
            runtime.cancel(task)

    def go_on(self) -> None:
        """Read what was left unread."""
        self._goes_on = False
        if not self._lingering and not self._paused:
            self._take(self._engine.receive(b"", self._runtime.loop.time()))

    def note(self) -> None:
        """Write at the end of this turn."""
        if not self._noted:
            self._noted = True
            self._runtime.turn.write(self)

    def flush(self) -> None:
        """Write what has room."""
        self._noted = False
        if self._paused or self._transport.is_closing():
            return
        engine = self._engine
        moved = engine.pump(TURN_BYTES, self._runtime.loop.time())
        if data := engine.data_to_send():
            self.sent_bytes += len(data)
            self._runtime.counters.bytes_sent += len(data)
            self._transport.write(data)
        for stream in moved:
            if (sender := self._carried.get(stream.id)) is not None:
                sender.sent()
                if stream.closed:
                    self._carried.pop(stream.id, None)
        self._release()
        if engine.closed:
            self._linger()
        elif engine.can_send:
            self.note()
        self._schedule()

    def _release(self) -> None:
        for request in [request for request in self._waiting if not request.full]:
            request.release()

    def _schedule(self) -> None:
        """Be looked at when the engine, or a client that takes nothing, is due."""
        if self._lingering:
            return
        deadline = self._deadline()
        if deadline is not None and (
            self.tick is None or self._due is None or deadline < self._due
        ):
            self._due = deadline
            self._runtime.wheel.schedule(self, deadline)

    def _deadline(self) -> float | None:
        deadline, write_by = self._engine.deadline(), self._write_by
        if deadline is None or write_by is None:
            return write_by if deadline is None else deadline
        return min(deadline, write_by)

    # Streams

    def _open(self, stream: Http2Stream, request: RequestReceived, protocol: bytes | None) -> None:
        runtime = self._runtime
        if stream.closed:
            return  # the same bytes that asked for it have reset it
        if len(self._tasks) >= 2 * runtime.config.http2_limits.streams:
            self._handle(self._engine.turn_away(stream))
            return
        client, scheme = self._origin(request)
        if protocol is not None:
            self._open_websocket(stream, request, protocol, client, scheme)
            return
        runtime.counters.requests += 1
        place, refusal = self._enter(client)
        if refusal is not None:
            runtime.refusals.request(
                refusal, peer_of(client, runtime.worker, self.number), stream.refuse
            )
            return
        scope = http_scope(
            request,
            runtime,
            scheme=scheme,
            client=client,
            server=self._server,
            extension=EXTENSION,
        )
        if self._tls is not None:
            scope["extensions"]["tls"] = self._tls
        carrier = _Request(self, stream, place)
        exchange = carrier.exchange = Exchange(
            runtime, carrier, stream, carrier, request, client=client
        )
        self._carried[stream.id] = carrier
        self._own(exchange.start(scope))

    def _enter(self, client: Address | None) -> tuple[Hashable, Refusal | None]:
        """Take a place for a request, where a proxy says whose it is."""
        if client is self._client or client is None:
            return None, None
        return self._runtime.gate.enter(client[0])

    def _own(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _open_websocket(
        self,
        stream: Http2Stream,
        request: RequestReceived,
        protocol: bytes,
        client: Address | None,
        scheme: str,
    ) -> None:
        runtime = self._runtime
        try:
            if protocol != b"websocket":
                raise HandshakeError(
                    "the only protocol of an extended CONNECT is websocket", status=501
                )
            handshake = parse_handshake(request.method, request.http_version, request.headers)
        except HandshakeError as error:
            runtime.refusals.count("bad_handshake")
            peer = peer_of(client, runtime.worker, self.number)
            what = "%s: handshake refused with %d: %s"
            runtime.log("bad_handshake", what, peer, error.status, str(error))
            log_access(runtime, peer, request, error.status)
            if runtime.config.watcher is not None:
                runtime.config.watcher.request(peer, request, error.status, None)
            stream.refuse(error.status, str(error), error.headers)
            return
        host = None if client is None or client[1] is None else client[0]
        if (held := runtime.gate.handshake(host, runtime.loop.time())) is not None:
            refused, wait_s = held
            runtime.refusals.request(
                refused, peer_of(client, runtime.worker, self.number), stream.refuse, wait_s=wait_s
            )
            return
        place, full = self._enter(client)
        if full is not None:
            runtime.refusals.request(
                full, peer_of(client, runtime.worker, self.number), stream.refuse
            )
            return
        tunnel = _Tunnel(self, stream)
        opening = _Http2Opening(runtime, stream, handshake, tunnel, request, client)
        outbox = Outbox(
            tunnel,
            runtime.turn,
            opening,
            limit_bytes=runtime.config.outbox_limit_bytes,
            policy=runtime.config.slow_client,
        )
        websocket = WebSocketStream(runtime, tunnel, outbox, opening, client=client)
        websocket.number = opening.number
        outbox.owner = websocket
        websocket.place = place
        tunnel.websocket = websocket
        self._carried[stream.id] = tunnel
        if (watcher := runtime.config.watcher) is not None:
            watcher.websocket_opening(websocket, self.peer, request)
        scope = websocket_scope(
            request,
            runtime,
            scheme=scheme,
            client=client,
            server=self._server,
            subprotocols=handshake.subprotocols,
            extension=EXTENSION,
        )
        if self._tls is not None:
            scope["extensions"]["tls"] = self._tls
        self._own(websocket.start(scope))

    def forget(self, stream: Http2Stream) -> None:
        """Let go of a stream that carries nothing any more."""
        self._carried.pop(stream.id, None)

    def wait(self, request: "_Request") -> None:
        """Let a request know when there is room again."""
        self._waiting.add(request)

    def go_on_with(self, request: "_Request") -> None:
        """Let a request wait no more."""
        self._waiting.discard(request)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return what is known of the transport."""
        return self._transport.get_extra_info(name, default)

    # The end

    def _linger(self) -> None:
        if not self._lingering:
            self._lingering = True
            if not self._paused:
                self._finish_writing()

    @property
    def _handed_over(self) -> bool:
        return True  # what has no room there is with the engine, which is at its end

    def _expire(self, now: float) -> float | None:
        self._handle(self._engine.timeout(now, streams=ENDS))
        self.note()
        self._due = deadline = self._deadline()
        overdue = self._engine.deadline()
        if overdue is not None and overdue <= now:
            self.share.later(self._expire_more)
        return deadline

    def _expire_more(self) -> None:
        if not self._lingering:
            self._expire(self._runtime.loop.time())

    def drain(self) -> None:
        """Take nothing new, finish what is under way, and close."""
        if not self._lingering:
            self._engine.drain(self._runtime.loop.time())
            self.note()

    @property
    def task(self) -> "asyncio.Task[None] | None":
        """None: its streams have many."""
        return None

    def waiting(self) -> tuple[int, int, bool]:
        """Return what waits: see ``Drainable``."""
        waiting = self._engine.pending_bytes + self._transport.get_write_buffer_size()
        return 0, waiting, self._paused


class _Request:
    """What an exchange asks of its connection and of its outbox, for one stream."""

    __slots__ = ("_connection", "_place", "_stream", "_waiters", "exchange")

    def __init__(self, connection: Http2Connection, stream: Http2Stream, place: Hashable) -> None:
        self._connection = connection
        self._place = place
        self._stream = stream
        self._waiters: list[Inbox] = []
        self.exchange: Exchange | None = None

    @property
    def number(self) -> int:
        """That of the connection."""
        return self._connection.number

    # From the connection

    def data(self, data: bytes) -> None:
        """Take a part of the request's body."""
        assert self.exchange is not None
        self.exchange.body(data, more=True)
        if self.exchange.waiting_bytes:
            self._stream.pause()

    def eof(self) -> None:
        """Take the end of it."""
        assert self.exchange is not None
        self.exchange.body(b"", more=False)

    def sent(self) -> None:
        """Learn that something of the response has left."""

    def lost(self, status: int) -> None:
        """Learn that nobody waits for the response."""
        assert self.exchange is not None
        self._leave()
        self.exchange.disconnect(status)
        self.exchange = None  # which holds us: neither has to wait for the garbage collector
        self.release()

    def _leave(self) -> None:
        self._connection.runtime.gate.leave(self._place)
        self._place = None

    def release(self) -> None:
        """Let every waiting sender go on."""
        self._connection.go_on_with(self)
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            self._connection.share.later(waiter.resume)

    # From the exchange

    def go_on(self) -> None:
        """Give the client its window back for what the application has taken."""
        if self.exchange is None:
            return
        stream, connection = self._stream, self._connection
        connection.engine.consumed(stream, stream.unconsumed - self.exchange.waiting_bytes)
        if not self.exchange.waiting_bytes:
            stream.resume(connection.runtime.loop.time())
        connection.note()

    def account(self) -> None:
        """Count nothing: headers are compressed together with those of other requests."""

    def finished(self) -> None:
        """Let go of the stream: what is left of the response finds its way."""
        self._leave()
        self.exchange = None
        connection = self._connection
        connection.forget(self._stream)
        connection.engine.consumed(self._stream, self._stream.unconsumed)
        connection.note()

    def write(self, data: bytes) -> None:
        """Write at the end of the turn: the stream has the bytes already."""
        del data
        self._connection.note()

    @property
    def full(self) -> bool:
        """Whether a sender should wait; where the stream has ended, until it is told so."""
        stream = self._stream
        return self.exchange is not None and (
            stream.closed or stream.pending_bytes > HIGH_WATER_BYTES or self._connection.paused
        )

    async def drained(self) -> None:
        """Wait until the client takes more, if it does not."""
        connection = self._connection
        turn = connection.runtime.turn
        if self.full:
            # It is written when it is its turn; others want the loop, too.
            await breathe(turn, connection.share)
        while self.full:
            waiter = Inbox(turn)
            self._waiters.append(waiter)
            connection.wait(self)
            await waiter.stirred()


class _Tunnel(asyncio.Transport):
    """One stream as the transport of a WebSocket."""

    __slots__ = (
        "_closing",
        "_connection",
        "_ended",
        "_kept",
        "_reading_paused",
        "_stream",
        "_writing_paused",
        "websocket",
    )

    def __init__(self, connection: Http2Connection, stream: Http2Stream) -> None:
        self._connection = connection
        self._stream = stream
        #: None: it is not made yet, or the stream is gone.
        self.websocket: WebSocketStream | None = None
        #: What has come while reading pauses; its window is not given back.
        self._kept = bytearray()
        #: The client has ended its side.
        self._ended = False
        self._reading_paused = False
        self._writing_paused = False
        self._closing = False

    # From the connection

    def data(self, data: bytes) -> None:
        """Take bytes of the client."""
        if self._reading_paused or self._kept:
            self._kept += data
        else:
            self._deliver(data)

    def _deliver(self, data: bytes) -> None:
        assert self.websocket is not None
        # It counts them, too, and they have been counted with the connection's.
        self._connection.runtime.counters.bytes_received -= len(data)
        self.websocket.data_received(data)
        self._connection.engine.consumed(self._stream, len(data))
        self._connection.note()

    def eof(self) -> None:
        """Learn that the client has ended its side."""
        self._ended = True
        if not self._kept:
            self._hear_end()

    def _hear_end(self) -> None:
        if self.websocket is not None:
            self.websocket.eof_received()
            self.close()

    def sent(self) -> None:
        """Learn that bytes have left."""
        stream = self._stream
        if self._writing_paused and stream.pending_bytes <= LOW_WATER_BYTES:
            self._writing_paused = False
            assert self.websocket is not None
            self.websocket.resume_writing()
        self._lose_when_sent()

    def lost(self, status: int) -> None:
        """Learn that the stream is gone."""
        del status
        if self.websocket is not None:
            # It holds us: neither has to wait for the garbage collector.
            websocket, self.websocket = self.websocket, None
            self._closing = True
            self._kept.clear()
            websocket.connection_lost(None)
            self._connection.forget(self._stream)

    def _lose_when_sent(self) -> None:
        stream = self._stream
        if self.websocket is not None and (
            stream.closed or (self._closing and stream.ends and not stream.pending_bytes)
        ):
            if not stream.closed:
                # The client has a moment to end its side, too.
                self._connection.runtime.loop.call_later(HALF_CLOSED_S, self._reset)
            self.lost(0)

    def _reset(self) -> None:
        self._connection.engine.reset(self._stream, ErrorCodes.NO_ERROR)
        self._connection.note()

    # From the WebSocket, and its opening

    def note(self) -> None:
        """Write at the end of the turn: the stream has the bytes already."""
        self._connection.note()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send bytes, when the client's windows let them go."""
        stream = self._stream
        if self._closing:
            return
        stream.write(bytes(data))
        # The outbox counts them, too; they will be counted with the connection's.
        self._connection.runtime.counters.bytes_sent -= len(data)
        self._connection.note()
        if stream.pending_bytes > HIGH_WATER_BYTES and not self._writing_paused:
            self._writing_paused = True
            assert self.websocket is not None
            self.websocket.pause_writing()

    def can_write_eof(self) -> bool:
        """Return True: a stream has two sides."""
        return True

    def write_eof(self) -> None:
        """End our side behind all that waits."""
        self._stream.write(b"", ends=True)
        self._connection.note()

    def close(self) -> None:
        """End our side, and be gone once all has left."""
        if not self._closing:
            self._closing = True
            self._stream.write(b"", ends=True)
            self._connection.note()
            self._connection.runtime.loop.call_soon(self._lose_when_sent)

    def abort(self) -> None:
        """Be gone at once."""
        if self.websocket is not None:
            self._closing = True
            self._connection.engine.reset(self._stream, ErrorCodes.CANCEL)
            self._connection.note()
            self._connection.runtime.loop.call_soon(self.lost, 0)

    def is_closing(self) -> bool:
        """Say whether nothing more may be written."""
        return self._closing

    def get_write_buffer_size(self) -> int:
        """Return the bytes that wait."""
        return self._stream.pending_bytes

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return what is known of the connection."""
        if name == "sslcontext":
            return default  # what TLS has encrypted is not of this stream alone
        return self._connection.get_extra_info(name, default)

    def pause_reading(self) -> None:
        """Keep what comes; the client's window shuts by and by."""
        self._reading_paused = True

    def resume_reading(self) -> None:
        """Hand on what was kept."""
        self._reading_paused = False
        if self._kept or self._ended:
            self._connection.share.later(self._hand_on)

    def _hand_on(self) -> None:
        while self._kept and not self._reading_paused and self.websocket is not None:
            # At once, however small the pieces were in which it came.
            piece = bytes(self._kept[:KEPT_BYTES])
            del self._kept[:KEPT_BYTES]
            self._deliver(piece)
        if self._ended and not self._kept:
            self._hear_end()


class _Http2Opening:
    """A WebSocket's handshake over HTTP/2 (RFC 8441 §5)."""

    __slots__ = (
        "_client",
        "_early",
        "_early_bytes",
        "_handshake",
        "_request",
        "_runtime",
        "_status",
        "_stream",
        "_tunnel",
        "number",
    )

    def __init__(
        self,
        runtime: Runtime,
        stream: Http2Stream,
        handshake: HandshakeRequest,
        tunnel: _Tunnel,
        request: RequestReceived,
        client: Address | None,
    ) -> None:
        #: That of the WebSocket; it has one of its own.
        self.number = runtime.number()
        self._runtime = runtime
        self._stream = stream
        self._handshake = handshake
        self._tunnel = tunnel
        self._request = request
        self._client = client
        self._status = 0
        self._early: list[bytes] = []
        self._early_bytes = 0

    def take(self, data: bytes) -> bool:
        self._early.append(data)
        self._early_bytes += len(data)
        return self._early_bytes < EARLY_BYTES

    def accept(
        self, subprotocol: str | None, headers: list[tuple[bytes, bytes]]
    ) -> tuple[tuple[Extension, ...], bytes]:
        answer, extensions = self._handshake.accept_headers(
            subprotocol=subprotocol, headers=headers, extensions=self._runtime.config.extensions
        )
        self._stream.accept(answer)
        self._tunnel.note()
        self._log(200)
        return extensions, b"".join(self._early)

    def refuse(self, status: int, reason: str) -> None:
        self._stream.refuse(status, reason)
        self._tunnel.note()
        self._log(self._status or status)

    def respond(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self._stream.send_response(status, headers)
        self._status = status

    def body(self, data: bytes, *, more: bool) -> None:
        self._stream.send_body(data, more=more)
        self._tunnel.note()
        if not more:
            self._log(self._status)

    def _log(self, status: int) -> None:
        if self._runtime.config.access_log:
            peer = peer_of(self._client, self._runtime.worker, self.number)
            log_access(self._runtime, peer, self._request, status)

    # The outbox's owner, until there is a WebSocket.

    def overflowed(self) -> None:
        """Nothing overflows before the accept."""

    def dropped(self, messages: int) -> None:
        """Nothing is dropped before the accept."""
