"""One TCP connection that speaks HTTP/1.1, until it ends or becomes a WebSocket.

Rules of this file:

- The engine decides what the bytes mean, the exchange what the application hears of it.
- A WebSocket takes the transport over: from the handshake on, no byte passes through here.
- After an error the connection is read to its end for a moment, so that a reset does not
  overtake the answer (RFC 9112 §9.6).
- Who is one too many is told so before anything is read, and what its address has taken is given
  back whatever ends it.
- What a new connection says first is begun when this turn of the loop has time for it: of hundreds
  that begin in the same moment, some wait in line, and those that are being served do not.
- A client that does not take its responses is not read: it gets no further ones. One that takes
  nothing for ``write_timeout_s`` is cut off.
"""

import asyncio
import logging
import select
import sys
from collections.abc import Hashable
from typing import Any, ClassVar

from ..exceptions import HandshakeError
from ..protocols.extensions import Extension
from ..protocols.handshake import HandshakeRequest, parse_handshake
from ..protocols.http1 import (
    BodyReceived,
    Event,
    Http1Engine,
    Http2Prefaced,
    RequestCompleted,
    RequestFailed,
    RequestReceived,
    State,
)
from .asgi import http_scope, websocket_scope
from .counters import reason_of
from .ending import Ending
from .http import Exchange, log_access
from .identity import Peer, peer_of
from .limits import DESCRIPTORS, LOOK_EVERY, Refusal
from .outbox import Outbox
from .runtime import Address, Runtime
from .traffic import RequestTraffic
from .websocket import EXTENSION, WebSocketStream

__all__ = ["Connection", "address_of_peer"]

logger = logging.getLogger("headrace.server")

# A member of an Enum by its dotted name costs 120 ns on Python 3.11.
IDLE, READ, BODY, CLOSED = State.IDLE, State.READ, State.BODY, State.CLOSED
#: A client that has ended its side may still wait for its answer, or be gone: which of the two,
#: only bytes that we send can tell. Where none are sent for so long it is taken to be gone.
HALF_CLOSED_S = 1.0
#: What a WebSocket's client may send before it is accepted.
EARLY_BYTES = 64 * 1024


class Connection(Ending):
    """The server's end of one TCP or Unix connection."""

    protocol: ClassVar = "http/1.1"

    __slots__ = (
        "_client",
        "_engine",
        "_exchange",
        "_goes_on",
        "_gone_by",
        "_is_new",
        "_outbox",
        "_place",
        "_refused",
        "_request_place",
        "_server",
        "number",
        "received_bytes",
    )

    #: By which scheme its requests come, where no proxy says it better.
    scheme: str = "http"
    #: What ASGI's extension ``tls`` says of it; None: there is no TLS.
    tls: dict[str, Any] | None = None

    def __init__(self, runtime: Runtime) -> None:
        super().__init__(runtime)
        self._exchange: Exchange | None = None
        #: What was left unread will be taken later.
        self._goes_on = False
        #: It has said nothing yet.
        self._is_new = True
        #: When a client that has ended its side is taken to be gone.
        self._gone_by: float | None = None
        self.received_bytes = 0
        #: What the client's address has taken, and behind a proxy that of the request's client.
        self._place: Hashable = None
        self._request_place: Hashable = None
        #: It is one too many.
        self._refused = False

    @property
    def peer(self) -> Peer:
        """The client, as the log names it."""
        return peer_of(self._client, self._runtime.worker, self.number)

    # From the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        runtime = self._runtime
        config = runtime.config
        #: With that of the worker, the connection's id.
        self.number = runtime.number()
        self._transport = transport  # type: ignore[assignment] # to cast() is a call in Python
        self._client, server = self._ends(transport)
        # Connections to one listener share one address.
        self._server = runtime.addresses.setdefault(server, server)
        self._outbox = Outbox(
            self._transport,
            runtime.turn,
            self,
            limit_bytes=config.outbox_limit_bytes,
            policy=config.slow_client,
        )
        self._engine = Http1Engine(
            config.http, now=runtime.loop.time(), default_headers=runtime.default_headers
        )
        runtime.counters.connections += 1
        runtime.enter(self)
        if (refusal := self._enter()) is not None:
            self._turn_away(refusal)
            return
        if self.tls is not None and _chose_http2(transport):
            self._speak_http2(b"")
            return
        runtime.wheel.schedule(self, self._engine.deadline())
        if runtime.draining:
            self.drain()

    def _enter(self) -> Refusal | None:
        """Take a place for this connection; or return why there is none."""
        runtime, client = self._runtime, self._client
        gate = runtime.gate
        now = runtime.loop.time()
        if self.number % LOOK_EVERY == 0:
            sock = self._transport.get_extra_info("socket")
            gate.look(-1 if sock is None else sock.fileno(), now)
        # It is among the connections already.
        refusal = gate.connect(len(runtime.connections) - 1, now)
        if refusal is not None:
            return refusal
        headers = runtime.config.proxy_headers
        if (
            client is None
            or client[1] is None
            or (headers is not None and headers.believes(client))
        ):
            return None  # who it is, a proxy's headers will say of each request
        self._place, refusal = gate.enter(client[0])
        return refusal

    def _enter_request(self, client: Address | None) -> Refusal | None:
        """Take a place for a request, where a proxy says whose it is."""
        if client is self._client or client is None:
            return None
        self._request_place, refusal = self._runtime.gate.enter(client[0])
        return refusal

    def _leave_request(self) -> None:
        place, self._request_place = self._request_place, None
        self._runtime.gate.leave(place)

    def _turn_away(self, refusal: Refusal) -> None:
        """Answer before anything was asked; in a crowd, just end."""
        runtime = self._runtime
        gate = runtime.gate
        self._refused = True
        gate.refusing += 1
        speaks_http2 = self.tls is not None and _chose_http2(self._transport)
        if refusal is DESCRIPTORS or gate.refusing > gate.most_refusing or speaks_http2:
            # A client that has chosen HTTP/2 would take our answer for noise.
            runtime.refusals.note(refusal, self.peer)
            self._transport.abort()
            return
        runtime.refusals.request(refusal, self.peer, self._engine.refuse)
        self.after()

    def _ends(self, transport: asyncio.BaseTransport) -> tuple[Address | None, Address | None]:
        """Return the addresses of the client, and of the server."""
        peer, own = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
        return address_of_peer(peer), address_of_peer(own)

    def data_received(self, data: bytes) -> None:
        """Take bytes from the client."""
        if self._lingering:
            self._pass_over()
            return
        runtime = self._runtime
        size = len(data)
        self.received_bytes += size
        runtime.counters.bytes_received += size
        now = runtime.loop.time()
        if self._is_new:
            self._is_new = False
            if not runtime.turn.has_time():
                self._take(self._engine.receive(data, now, max_events=0))
                return
        self._take(self._engine.receive(data, now))

    def eof_received(self) -> bool:
        """Learn that the client sends no more; it may still read."""
        self._heard_all = True
        if not self._lingering:
            now = self._runtime.loop.time()
            self._take(self._engine.receive_eof(now))
            if not self._lingering:
                self._gone_by = now + HALF_CLOSED_S
                self._runtime.wheel.schedule(self, self._deadline())
                return True
        return not self._outbox.empty

    def connection_lost(self, error: Exception | None) -> None:
        """Learn that the transport is gone."""
        del error
        self._lingering = True
        self._runtime.leave(self)
        self._runtime.gate.leave(self._place)
        if self._refused:
            self._runtime.gate.refusing -= 1
        self._runtime.wheel.cancel(self)
        self._break_off(499)
        self._outbox.lost()

    def pause_writing(self) -> None:
        """Learn that the socket takes no more."""
        self._outbox.pause()
        self._begin_waiting()
        self._runtime.wheel.schedule(self, self._deadline())

    def resume_writing(self) -> None:
        """Learn that the socket takes more again."""
        self._write_by = None
        self._outbox.resume()
        if self._outbox.paused:
            return
        if self._lingering:
            self._finish_writing_soon()
        elif self._exchange is None:
            self.after()

    # From the engine

    def _take(self, events: list[Event]) -> None:
        for event in events:
            match event:
                case RequestReceived():
                    self._runtime.refresh_date()
                    if _wants_websocket(event):
                        self._open_websocket(event, has_body=len(events) > 2)
                        return
                    self._begin(event)
                # The application may have answered, in place, to what came before.
                case BodyReceived(data):
                    if self._exchange is not None:
                        self._exchange.body(data, more=True)
                case RequestCompleted():
                    if self._exchange is not None:
                        self._exchange.body(b"", more=False)
                case Http2Prefaced():
                    if self._runtime.config.speaks_http2:
                        self._speak_http2(self._engine.unread())
                        return
                    self._engine.refuse(505, "this server speaks HTTP/1.1 and HTTP/1.0")
                case RequestFailed(status, reason):
                    word = reason_of(status)
                    self._runtime.refusals.count(word)
                    self._runtime.log(word, "%s: refused with %d: %s", self.peer, status, reason)
                    self._break_off(status)
        self.after()

    def after(self) -> None:
        """Write what the engine has to say, and see whether to read on or to end."""
        engine = self._engine
        if data := engine.data_to_send():
            self._outbox.write(data)
        if engine.state is CLOSED:
            self._linger()
            return
        exchange = self._exchange
        full = self._crowded() if exchange is None else exchange.full
        if engine.has_unread or full:
            self._pause_reading()
        elif self._reading_paused:
            self._resume_reading()
        if exchange is None and engine.has_unread and not full:
            # The next request of a pipeline: others want the loop, too.
            if not self._goes_on:
                self._goes_on = True
                self._runtime.turn.later(self.go_on)
        elif exchange is None or engine.state is BODY:
            self._runtime.wheel.postpone(self, self._deadline())

    def _crowded(self) -> bool:
        """Say whether the client still has to take what it was sent before it may ask for more."""
        outbox = self._outbox
        if outbox.full:
            outbox.flush()
        return outbox.paused

    def go_on(self) -> None:
        """Read what was left unread while a response, or room for a body, was awaited."""
        self._goes_on = False
        if not self._lingering:
            self._take(self._engine.receive(b"", self._runtime.loop.time()))

    def _deadline(self) -> float | None:
        engine = self._engine
        if engine.state is IDLE and self._outbox.paused:
            deadline = None  # it isn't idle: it is taking its response
        else:
            deadline = engine.deadline(self._runtime.loop.time())
        if self._write_by is not None or self._gone_by is not None:
            for other in (self._write_by, self._gone_by):
                if other is not None and (deadline is None or other < deadline):
                    deadline = other
        return deadline

    # Requests

    def _begin(self, request: RequestReceived) -> None:
        runtime = self._runtime
        runtime.counters.requests += 1
        client, scheme = self._origin(request)
        if (refusal := self._enter_request(client)) is not None:
            runtime.refusals.request(
                refusal, peer_of(client, runtime.worker, self.number), self._engine.refuse
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
        if self.tls is not None:
            scope["extensions"]["tls"] = self.tls
        exchange = self._exchange = Exchange(
            runtime, self, self._engine, self._outbox, request, client=client
        )
        exchange.start(scope)

    def _origin(self, request: RequestReceived) -> tuple[Address | None, str]:
        """Return where the request came from, and by which scheme."""
        headers = self._runtime.config.proxy_headers
        if headers is None:
            return self._client, self.scheme
        return headers.origin(request.headers, self._client, self.scheme)

    def _step_aside(self) -> None:
        """Leave the transport to who takes it over, and knows of no deadline and no pause here."""
        self._runtime.wheel.cancel(self)
        self._resume_reading()
        # Nothing is left to do here: what was noted for a later turn finds that out.
        self._lingering = True

    def _speak_http2(self, data: bytes) -> None:
        """Let HTTP/2 take the transport over, with what has come of it."""
        # Where the package h2 isn't installed nobody gets here.
        from .http2 import Http2Connection

        runtime = self._runtime
        self._step_aside()
        self._outbox.lost()  # which holds us; nothing more is written here
        runtime.hand_over(self)
        connection = Http2Connection(
            runtime,
            self._transport,
            origin=self._origin,
            client=self._client,
            server=self._server,
            number=self.number,
            place=self._place,
            tls=self.tls,
        )
        connection.begin(data)

    def account(self) -> RequestTraffic:
        """Begin to count for the request at hand."""
        return RequestTraffic(self._engine, self._outbox)

    def finished(self) -> None:
        """Go on after a response that is complete, or that never will be."""
        self._exchange = None
        if self._request_place is not None:
            self._leave_request()
        if self._runtime.draining and self._engine.state is IDLE:
            self.drain()
            if self._lingering:
                return
        self.after()

    def _break_off(self, status: int) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            self._leave_request()
            exchange.disconnect(status)

    def _open_websocket(self, request: RequestReceived, *, has_body: bool) -> None:
        runtime = self._runtime
        engine = self._engine
        client, scheme = self._origin(request)
        try:
            handshake = parse_handshake(request.method, request.http_version, request.headers)
            if has_body or engine.state is not READ:
                raise HandshakeError("a WebSocket's handshake has no body: send none")
        except HandshakeError as error:
            runtime.refusals.count("bad_handshake")
            peer = peer_of(client, runtime.worker, self.number)
            what = "%s: handshake refused with %d: %s"
            runtime.log("bad_handshake", what, peer, error.status, str(error))
            log_access(runtime, peer, request, error.status)
            if runtime.config.watcher is not None:
                runtime.config.watcher.request(peer, request, error.status, None)
            engine.refuse(error.status, str(error), error.headers)
            self.after()
            return
        if self._holds_back(client):
            self.after()
            return
        opening = _Http1Opening(
            runtime, engine, handshake, self._outbox, request, client, self.number
        )
        stream = WebSocketStream(runtime, self._transport, self._outbox, opening, client=client)
        stream.number = self.number
        stream.received_bytes = engine.read_bytes
        stream.place = self._request_place if self._place is None else self._place
        self._outbox.owner = stream
        self._step_aside()
        self._transport.set_protocol(stream)  # type: ignore[arg-type] # by its methods it is one
        if (watcher := runtime.config.watcher) is not None:
            watcher.websocket_opening(stream, self.peer, request)
        scope = websocket_scope(
            request,
            runtime,
            scheme=scheme,
            client=client,
            server=self._server,
            subprotocols=handshake.subprotocols,
            extension=EXTENSION,
        )
        if self.tls is not None:
            scope["extensions"]["tls"] = self.tls
        stream.start(scope)
        runtime.leave(self)

    def _holds_back(self, client: Address | None) -> bool:
        """Refuse a handshake that is one too many."""
        runtime = self._runtime
        host = None if client is None or client[1] is None else client[0]
        held = runtime.gate.handshake(host, runtime.loop.time())
        if held is None and (refusal := self._enter_request(client)) is not None:
            held = refusal, 0.0
        if held is None:
            return False
        refusal, wait_s = held
        runtime.refusals.request(
            refusal,
            peer_of(client, runtime.worker, self.number),
            self._engine.refuse,
            wait_s=wait_s,
        )
        return True

    # The end

    def _linger(self) -> None:
        if self._lingering:
            return
        self._lingering = True
        self._outbox.flush()
        if self._outbox.empty:
            self._finish_writing()
        # Else the rest leaves when the socket takes more, or ``_write_by`` is past.

    @property
    def _handed_over(self) -> bool:
        return self._outbox.empty

    def _expire(self, now: float) -> float | None:
        if self._gone_by is not None and now >= self._gone_by:
            if not self._sends():
                self._transport.close()
                return None
            self._gone_by = now + HALF_CLOSED_S
        idle = self._engine.state is IDLE
        if idle and self._outbox.paused:
            return self._deadline()
        events = self._engine.timeout(now)
        self._heard_all = self._heard_all or (idle and self._engine.state is CLOSED)
        self._take(events)
        return None if self._lingering or self.tick is not None else self._deadline()

    def _sends(self) -> bool:
        """Say whether bytes went to the client lately: one that is gone answers with a reset."""
        exchange = self._exchange
        lately = exchange is not None and exchange.active
        if exchange is not None:
            exchange.active = False
        return lately or self._transport.get_write_buffer_size() > 0

    def drain(self) -> None:
        """Finish the request under way, and close.

        A connection that waits for a request can't be closed without a race: it may be on its
        way (RFC 9112 §9.5). So it has some time, and its answer says that it is the last.
        """
        if self._runtime.idle_until > self._runtime.loop.time() or self._is_asked():
            self._engine.announce_end()
            return
        if self._engine.state is IDLE:
            self._heard_all = True
        self._engine.drain()
        if not self._lingering:
            self.after()

    def _is_asked(self) -> bool:
        """Say whether there is in the socket what we have not read yet."""
        if self._engine.state is not IDLE or self._reading_paused or self._lingering:
            return False
        if self._engine.has_unread:
            return True
        sock = self._transport.get_extra_info("socket")
        if self._transport.is_closing() or sock is None or sock.fileno() < 0:
            return False
        poll = select.poll()
        poll.register(sock.fileno(), select.POLLIN)
        return bool(poll.poll(0))

    @property
    def sent_bytes(self) -> int:
        """How much the client was sent."""
        return self._outbox.sent_bytes

    @property
    def task(self) -> "asyncio.Task[None] | None":
        """The application's, while a request is under way."""
        return None if self._exchange is None else self._exchange.task

    def waiting(self) -> tuple[int, int, bool]:
        """Return what waits: see ``Drainable``."""
        return 0, self._transport.get_write_buffer_size(), self._outbox.paused

    def overflowed(self) -> None:
        """Nothing overflows here: a response waits for its client."""

    def dropped(self, messages: int) -> None:
        """Nothing is dropped here."""

    # Reading

    def _pause_reading(self) -> None:
        if not self._reading_paused and not self._transport.is_closing():
            super()._pause_reading()
            self._engine.pause()

    def _resume_reading(self) -> None:
        if self._reading_paused:
            super()._resume_reading()
            self._engine.resume()


class _Http1Opening:
    """A WebSocket's handshake over HTTP/1.1."""

    __slots__ = (
        "_client",
        "_early_bytes",
        "_engine",
        "_handshake",
        "_outbox",
        "_request",
        "_runtime",
        "_status",
        "number",
    )

    def __init__(
        self,
        runtime: Runtime,
        engine: Http1Engine,
        handshake: HandshakeRequest,
        outbox: Outbox,
        request: RequestReceived,
        client: Address | None,
        number: int,
    ) -> None:
        self.number = number
        self._request = request
        self._client = client
        self._status = 0
        self._runtime = runtime
        self._engine = engine
        self._handshake = handshake
        self._outbox = outbox
        self._early_bytes = 0

    def take(self, data: bytes) -> bool:
        self._engine.receive(data, self._runtime.loop.time())
        self._early_bytes += len(data)
        return self._early_bytes < EARLY_BYTES

    def accept(
        self, subprotocol: str | None, headers: list[tuple[bytes, bytes]]
    ) -> tuple[tuple[Extension, ...], bytes]:
        defaults = self._runtime.default_headers
        if headers:
            given = {name for name, _ in headers}
            headers += [pair for pair in defaults if pair[0] not in given]
        else:
            headers = defaults
        response, extensions = self._handshake.accept(
            subprotocol=subprotocol, headers=headers, extensions=self._runtime.config.extensions
        )
        self._outbox.write(response)
        self._log(101)
        return extensions, self._engine.unread()

    def refuse(self, status: int, reason: str) -> None:
        self._engine.refuse(status, reason)
        self._outbox.write(self._engine.data_to_send())
        self._log(self._status or status)

    def respond(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self._engine.send_response(status, headers)
        self._engine.drain()
        self._status = status

    def body(self, data: bytes, *, more: bool) -> None:
        self._engine.send_body(data, more=more)
        self._outbox.write(self._engine.data_to_send())
        if not more:
            self._log(self._status)

    def _log(self, status: int) -> None:
        if self._runtime.config.access_log:
            peer = peer_of(self._client, self._runtime.worker, self.number)
            log_access(self._runtime, peer, self._request, status)


def _chose_http2(transport: asyncio.BaseTransport) -> bool:
    """Say whether that is what TLS has agreed on."""
    tls = transport.get_extra_info("ssl_object")
    return tls is not None and tls.selected_alpn_protocol() == "h2"


def _wants_websocket(request: RequestReceived) -> bool:
    """Say whether this is a WebSocket's handshake, be it a good one or not."""
    upgrade = request.upgrade
    if upgrade is None:
        # Above all, a proxy that isn't set up for WebSockets drops Upgrade and Connection.
        for name, _ in request.headers:  # noqa: SIM110 - a generator costs as much as ten headers
            if name == b"sec-websocket-key":
                return True
        return False
    return upgrade == b"websocket" or b"websocket" in [
        protocol.strip(b" \t") for protocol in upgrade.split(b",")
    ]


def address_of_peer(name: object) -> Address | None:
    """Return host and port; of a Unix socket its path, if it has one, and no port."""
    if isinstance(name, tuple):
        # Behind a proxy, thousands of connections come from one host: it is kept once.
        return sys.intern(name[0]), name[1]
    return (name, None) if isinstance(name, str) and name else None
