"""One TCP connection that speaks HTTP/1.1, until it ends or becomes a WebSocket.

Rules of this file:

- The engine decides what the bytes mean, the exchange what the application hears of it.
- A WebSocket takes the transport over: from the handshake on, no byte passes through here.
- After an error the connection is read to its end for a moment, so that a reset does not
  overtake the answer (RFC 9112 §9.6).
"""

import asyncio
import logging
import sys
from typing import cast

from ..exceptions import HandshakeError
from ..protocols.extensions import Extension
from ..protocols.handshake import HandshakeRequest, parse_handshake
from ..protocols.http1 import (
    BodyReceived,
    Event,
    Http1Engine,
    RequestCompleted,
    RequestFailed,
    RequestReceived,
    State,
)
from .asgi import http_scope, peer_name, websocket_scope
from .http import Exchange
from .outbox import Outbox
from .runtime import Address, Runtime
from .websocket import WebSocketStream

__all__ = ["Connection"]

logger = logging.getLogger("headrace.server")

#: How long a connection that was closed by us is read on.
LINGER_S = 2.0
#: What a WebSocket's client may send before it is accepted.
EARLY_BYTES = 64 * 1024


class Connection(asyncio.Protocol):
    """The server's end of one TCP or Unix connection."""

    __slots__ = (
        "_client",
        "_engine",
        "_exchange",
        "_lingering",
        "_outbox",
        "_reading_paused",
        "_runtime",
        "_server",
        "_transport",
        "tick",
    )

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._exchange: Exchange | None = None
        self._reading_paused = False
        self._lingering = False
        self.tick: int | None = None

    @property
    def peer(self) -> str:
        """The client, as the log names it."""
        return peer_name(self._client)

    # From the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        runtime = self._runtime
        config = runtime.config
        self._transport = cast("asyncio.Transport", transport)
        self._client = _address(transport.get_extra_info("peername"))
        # Connections to one listener share one address.
        server = _address(transport.get_extra_info("sockname"))
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
        runtime.connections.add(self)
        runtime.wheel.schedule(self, self._engine.deadline())
        if runtime.draining:
            self.drain()

    def data_received(self, data: bytes) -> None:
        """Take bytes from the client."""
        if not self._lingering:
            self._take(self._engine.receive(data, self._runtime.loop.time()))

    def eof_received(self) -> bool:
        """Learn that the client sends no more; it may still read."""
        if self._lingering:
            return False
        self._take(self._engine.receive_eof(self._runtime.loop.time()))
        return self._engine.state is not State.CLOSED

    def connection_lost(self, error: Exception | None) -> None:
        """Learn that the transport is gone."""
        del error
        self._runtime.connections.discard(self)
        self._runtime.wheel.cancel(self)
        self._lingering = True
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.disconnect()
        self._outbox.release()

    def pause_writing(self) -> None:
        """Learn that the socket takes no more."""
        self._outbox.pause()

    def resume_writing(self) -> None:
        """Learn that the socket takes more again."""
        self._outbox.resume()

    # From the engine

    def _take(self, events: list[Event]) -> None:
        for event in events:
            match event:
                case RequestReceived():
                    self._runtime.refresh_date()
                    if event.upgrade == b"websocket":
                        self._open_websocket(event)
                        return
                    self._begin(event)
                case BodyReceived(data):
                    assert self._exchange is not None
                    self._exchange.body(data, more=True)
                case RequestCompleted():
                    if self._exchange is not None:
                        self._exchange.body(b"", more=False)
                case RequestFailed(status, reason):
                    self._runtime.counters.refused += 1
                    logger.info("%s: refused with %d: %s", self.peer, status, reason)
                    self._break_off()
        self.after()

    def after(self) -> None:
        """Write what the engine has to say, and see whether to read on or to end."""
        engine = self._engine
        self._outbox.write(engine.data_to_send())
        if engine.state is State.CLOSED:
            self._linger()
            return
        if engine.has_unread or (self._exchange is not None and self._exchange.full):
            self._pause_reading()
        else:
            self._resume_reading()
        if self._exchange is None:
            if engine.has_unread:
                # The next request of a pipeline, in a turn of its own.
                self._runtime.loop.call_soon(self.go_on)
            else:
                self._runtime.wheel.schedule(self, self._deadline())

    def go_on(self) -> None:
        """Read what was left unread while a response, or room for a body, was awaited."""
        if not self._lingering:
            self._take(self._engine.receive(b"", self._runtime.loop.time()))

    def _deadline(self) -> float | None:
        engine = self._engine
        deadline = engine.deadline()
        if deadline == 0.0:
            engine.timeout(self._runtime.loop.time())
            deadline = engine.deadline()
        return deadline

    # Requests

    def _begin(self, request: RequestReceived) -> None:
        runtime = self._runtime
        runtime.counters.requests += 1
        scope = http_scope(
            request, runtime, scheme="http", client=self._client, server=self._server
        )
        exchange = self._exchange = Exchange(runtime, self, self._engine, self._outbox, request)
        exchange.start(scope)

    def finished(self, exchange: "Exchange") -> None:
        """Go on after a response that is complete, or that never will be."""
        if self._exchange is exchange:
            self._exchange = None
            self.after()

    def _break_off(self) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.disconnect()

    def _open_websocket(self, request: RequestReceived) -> None:
        runtime = self._runtime
        engine = self._engine
        try:
            handshake = parse_handshake(request.method, request.http_version, request.headers)
            if engine.state is not State.READ:
                raise HandshakeError("a WebSocket's handshake has no body: send none")
        except HandshakeError as error:
            runtime.counters.refused += 1
            logger.info("%s: handshake refused with %d: %s", self.peer, error.status, error)
            engine.refuse(error.status, str(error), error.headers)
            self.after()
            return
        opening = _Http1Opening(runtime, engine, handshake, self._outbox)
        stream = WebSocketStream(
            runtime, self._transport, self._outbox, opening, client=self._client
        )
        self._outbox.owner = stream
        runtime.connections.discard(self)
        runtime.wheel.cancel(self)
        self._transport.set_protocol(cast("asyncio.BaseProtocol", stream))
        stream.start(
            websocket_scope(
                request,
                runtime,
                scheme="http",
                client=self._client,
                server=self._server,
                subprotocols=handshake.subprotocols,
                lane=stream,
            )
        )

    # The end

    def _linger(self) -> None:
        if self._lingering:
            return
        self._lingering = True
        self._outbox.flush()
        transport = self._transport
        if transport.is_closing():
            return
        if self._outbox.paused or not transport.can_write_eof():
            transport.close()
        else:
            self._resume_reading()
            transport.write_eof()
        self._runtime.wheel.schedule(self, self._runtime.loop.time() + LINGER_S)

    def expire(self, now: float) -> float | None:
        """Act on a deadline: a slow request, an idle connection, the end of lingering."""
        if self._lingering:
            self._transport.abort()
            return None
        self._take(self._engine.timeout(now))
        return None if self._lingering or self.tick is not None else self._deadline()

    def drain(self) -> None:
        """Finish the request under way, and close."""
        self._engine.drain()
        self.after()

    def abort(self) -> None:
        """Close at once."""
        self._transport.abort()

    def overflowed(self) -> None:
        """Nothing overflows here: a response waits for its client."""

    def dropped(self, messages: int) -> None:
        """Nothing is dropped here."""

    # Reading

    def _pause_reading(self) -> None:
        if not self._reading_paused and not self._transport.is_closing():
            self._reading_paused = True
            self._transport.pause_reading()
            self._engine.pause()

    def _resume_reading(self) -> None:
        if self._reading_paused:
            self._reading_paused = False
            if not self._transport.is_closing():
                self._transport.resume_reading()
            self._engine.resume()


class _Http1Opening:
    """A WebSocket's handshake over HTTP/1.1."""

    __slots__ = ("_early_bytes", "_engine", "_handshake", "_outbox", "_runtime")

    def __init__(
        self, runtime: Runtime, engine: Http1Engine, handshake: HandshakeRequest, outbox: Outbox
    ) -> None:
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
        given = {name for name, _ in headers}
        headers += [pair for pair in self._runtime.default_headers if pair[0] not in given]
        response, extensions = self._handshake.accept(
            subprotocol=subprotocol, headers=headers, extensions=self._runtime.config.extensions
        )
        self._outbox.write(response)
        return extensions, self._engine.unread()

    def refuse(self, status: int, reason: str) -> None:
        self._engine.refuse(status, reason)
        self._outbox.write(self._engine.data_to_send())

    def respond(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self._engine.drain()
        self._engine.send_response(status, headers)

    def body(self, data: bytes, *, more: bool) -> None:
        self._engine.send_body(data, more=more)
        self._outbox.write(self._engine.data_to_send())


def _address(name: object) -> Address | None:
    """Return host and port of a TCP address; a Unix socket has none."""
    if isinstance(name, tuple) and len(name) >= 2:
        # Behind a proxy thousands of connections come from one host.
        return sys.intern(name[0]), name[1]
    return None
