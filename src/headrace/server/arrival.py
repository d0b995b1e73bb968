"""Connections that have something to say before HTTP: a PROXY header, a TLS handshake.

Rules of this file:

- A place that speaks neither is none of this file's business, and pays nothing for it.
- The socket is looked at, not emptied, until it is clear whose the bytes are: the header is taken
  to its last byte, and what follows goes to the TLS or the HTTP that it is meant for.
- Whoever arrives counts as a connection from the first moment, has a deadline, and costs no task
  until its handshake begins.
- A connection that is turned away here has a line in the log that says why.
"""

import asyncio
import logging
import socket
import ssl
from collections.abc import Hashable
from typing import Any, ClassVar, Final, cast

from ..exceptions import RemoteProtocolError
from ..protocols.proxy_protocol import ProxyHeader, ProxyHeaderParser
from .connection import Connection, address_of_peer
from .endpoint import Address, Endpoint
from .identity import Peer, peer_of
from .limits import Refusal
from .listening import PAUSE_S
from .outbox import HIGH_WATER_BYTES
from .runtime import Runtime
from .tls import Credentials, Identity

__all__ = ["Arrivals"]

logger = logging.getLogger("headrace.server")

#: Connections that are accepted in one turn of the loop.
ACCEPTS: Final = 100
#: How much of what has arrived is looked at.
LOOK_BYTES: Final = 4096
#: The first byte of TLS: the record of a handshake (RFC 8446 §5.1).
_HANDSHAKE: Final = 22

_UNTRUSTED: Final = Refusal("proxy_untrusted", "only proxies may connect here", "--trusted-proxies")
_HEADER: Final = Refusal("proxy_header", "no PROXY header, or a bad one", "--proxy-protocol")
_PLAIN: Final = Refusal("tls_plain", "no TLS is spoken")
_TLS: Final = Refusal("tls_handshake", "the TLS handshake failed")
_LATE_HEADER: Final = Refusal(
    "arrival_timeout", "no PROXY header was said in time", "--proxy-protocol"
)
_LATE: Final = Refusal("arrival_timeout", "too little was said in time", "--tls-handshake-timeout")

_THIS_IS_TLS: Final = b"This port speaks TLS: ask for it by https:// or wss://.\n"
_ANSWER: Final = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n"
    b"Connection: close\r\n\r\n%b" % (len(_THIS_IS_TLS), _THIS_IS_TLS)
)


class Arrivals:
    """Accepts the connections of one place, as asyncio's server does for others.

    Args:
        runtime: Of the server.
        sock: Is bound, and closed by ``close``.
        endpoint: What is spoken there.
        credentials: For TLS; None: there is none.
    """

    def __init__(
        self,
        runtime: Runtime,
        sock: socket.socket,
        endpoint: Endpoint,
        credentials: Credentials | None,
    ) -> None:
        self.runtime = runtime
        self.credentials = credentials
        self.proxied = runtime.config.proxy_protocol if endpoint.proxy_protocol else None
        self._sock: socket.socket | None = sock
        self._pause: asyncio.TimerHandle | None = None
        sock.setblocking(False)
        sock.listen(runtime.config.backlog)
        runtime.loop.add_reader(sock, self._accept)

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        """The listening socket, until it is closed."""
        return () if self._sock is None else (self._sock,)

    def close(self) -> None:
        """Accept nobody any more."""
        if self._pause is not None:
            self._pause.cancel()
        if self._sock is not None:
            self.runtime.loop.remove_reader(self._sock)
            self._sock.close()
            self._sock = None

    def _accept(self) -> None:
        assert self._sock is not None
        for _ in range(ACCEPTS):
            try:
                sock, address = self._sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                # No descriptor, or no memory: nobody could be accepted by trying on.
                logger.error("cannot accept: %s; trying again in %g s", error, PAUSE_S)
                self.runtime.loop.remove_reader(self._sock)
                self._pause = self.runtime.loop.call_later(PAUSE_S, self._go_on)
                return
            self._let_in(sock, address_of_peer(address))

    def _go_on(self) -> None:
        self._pause = None
        if self._sock is not None:
            self.runtime.loop.add_reader(self._sock, self._accept)

    def _let_in(self, sock: socket.socket, peer: Address | None) -> None:
        runtime = self.runtime
        now = runtime.loop.time()
        runtime.gate.look(sock.fileno(), now)
        refusal = runtime.gate.connect(len(runtime.connections), now)
        if refusal is None and self.proxied is not None and not self.proxied.believes(peer):
            refusal = _UNTRUSTED
        place = None
        if refusal is None and self.proxied is None and peer is not None and peer[1] is not None:
            # As that of the connection, later: handshakes that are never finished are many.
            place, refusal = runtime.gate.enter(peer[0])
        if refusal is not None:
            runtime.refusals.note(refusal, peer_of(peer, runtime.worker, 0))
            sock.close()
            return
        sock.setblocking(False)
        Arrival(self, sock, peer, place)


class Arrival:
    """One connection, until it can speak HTTP."""

    __slots__ = (
        "_arrivals",
        "_parser",
        "_place",
        "_sock",
        "_task",
        "header",
        "number",
        "peer_address",
        "tick",
    )

    protocol: ClassVar[str] = "arriving"

    def __init__(
        self, arrivals: Arrivals, sock: socket.socket, peer: Address | None, place: Hashable
    ) -> None:
        runtime = arrivals.runtime
        self._arrivals = arrivals
        self._sock = sock
        self._parser = None if arrivals.proxied is None else ProxyHeaderParser()
        self._task: asyncio.Task[None] | None = None
        self.peer_address = peer
        self._place = place
        #: What the proxy said.
        self.header = ProxyHeader()
        self.number = runtime.number()
        self.tick: int | None = None
        runtime.enter(self)
        self._expect()
        runtime.loop.add_reader(sock, self._look)

    @property
    def peer(self) -> Peer:
        """The client, as the log names it."""
        return peer_of(self.peer_address, self._arrivals.runtime.worker, self.number)

    def _expect(self) -> None:
        """Wait for what comes next no longer than that may take."""
        runtime, proxied = self._arrivals.runtime, self._arrivals.proxied
        credentials = self._arrivals.credentials
        if self._parser is not None and proxied is not None:
            runtime.wheel.schedule(self, runtime.loop.time() + proxied.timeout_s)
        elif credentials is not None:
            runtime.wheel.schedule(self, runtime.loop.time() + credentials.tls.handshake_timeout_s)

    # What it says

    def _look(self) -> None:
        """See what has arrived."""
        sock = self._sock
        try:
            while self._parser is not None:
                there = sock.recv(LOOK_BYTES, socket.MSG_PEEK)
                if not there:  # a health check, which says nothing or LOCAL
                    self._end()
                    return
                self._take_header(self._parser, there)
            if self._arrivals.credentials is None:
                self._begin()
                return
            there = sock.recv(1, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            return
        except RemoteProtocolError as error:
            self._refuse(_HEADER, str(error))
            return
        except OSError:
            self._end()
            return
        if not there:
            self._end()
        elif there[0] == _HANDSHAKE:
            self._begin()
        else:
            self._answer_plain(there)

    def _take_header(self, parser: ProxyHeaderParser, there: bytes) -> None:
        self._sock.recv(parser.receive(there))
        if parser.header is not None:
            self._parser = None
            self.header = parser.header
            self.peer_address = parser.header.source or self.peer_address
            self._expect()

    def _answer_plain(self, first: bytes) -> None:
        """Tell who asks by http:// what to do; whatever else it is, is none of ours."""
        if first.isalpha():
            try:
                self._sock.recv(LOOK_BYTES)  # what is left unread would overtake the answer
                self._sock.send(_ANSWER)
                self._sock.shutdown(socket.SHUT_WR)
            except OSError:
                pass
            self._refuse(_PLAIN, "it speaks HTTP where https:// is meant")
        else:
            self._refuse(_PLAIN)

    # The handshake

    def _begin(self) -> None:
        loop = self._arrivals.runtime.loop
        loop.remove_reader(self._sock)
        self._task = loop.create_task(self._open(), name="headrace arrival")

    async def _open(self) -> None:
        """Make a connection of it; shake hands, where that is to be done first."""
        arrivals = self._arrivals
        runtime, credentials = arrivals.runtime, arrivals.credentials
        options: dict[str, Any] = {}
        identity = None
        if credentials is not None:
            identity = credentials.identity
            options = {
                "ssl": identity.context,
                # Ours ends it first.
                "ssl_handshake_timeout": credentials.tls.handshake_timeout_s + 1.0,
                # To Python, what has not been taken yet is part of that; who takes nothing at all,
                # or never answers the end, is left by the connection.
                "ssl_shutdown_timeout": 2 * runtime.config.write_timeout_s + 60.0,
            }
        try:
            await runtime.loop.connect_accepted_socket(
                lambda: cast("asyncio.BaseProtocol", ArrivedConnection(runtime, self, identity)),
                self._sock,
                **options,
            )
        except ssl.SSLError as error:
            self._refuse(_TLS, _of_handshake(error))
        except OSError as error:
            self._refuse(_TLS, f"the client is gone ({error})")
        finally:
            self._end()

    def hand_over(self) -> None:
        """Let the connection that comes of it take its place."""
        runtime = self._arrivals.runtime
        runtime.wheel.cancel(self)
        self._leave_place()
        runtime.hand_over(self)

    def _leave_place(self) -> None:
        place, self._place = self._place, None
        self._arrivals.runtime.gate.leave(place)

    # The end

    def _refuse(self, refusal: Refusal, says: str = "") -> None:
        self._arrivals.runtime.refusals.note(refusal, self.peer, says)
        self._end()

    def _end(self) -> None:
        """Let go of it; what it has become has the socket of its own."""
        runtime = self._arrivals.runtime
        if self._task is None:
            runtime.loop.remove_reader(self._sock)
            self._sock.close()
        runtime.wheel.cancel(self)
        self._leave_place()
        runtime.leave(self)

    def expire(self, now: float) -> float | None:
        """Learn that it took too long."""
        del now
        late = _LATE if self._parser is None else _LATE_HEADER
        self._arrivals.runtime.refusals.note(late, self.peer)
        self.abort()
        return None

    def waiting(self) -> tuple[int, int, bool]:
        """Return what waits: see ``Drainable``."""
        return 0, 0, False

    def drain(self) -> None:
        """End it if nothing has come of it; a handshake that has begun may be finished."""
        runtime = self._arrivals.runtime
        if self._task is None and runtime.idle_until <= runtime.loop.time():
            try:
                self._sock.recv(1, socket.MSG_PEEK)
            except OSError:
                self._end()

    def dismiss(self, code: int, reason: str) -> None:
        """End, by the wish of somebody who looks after the server."""
        del code, reason
        self.abort()

    def abort(self) -> None:
        """Close at once."""
        if self._task is None:
            self._end()
        else:
            self._task.cancel()


class ArrivedConnection(Connection):
    """A connection whose ends a proxy has named, or that TLS protects."""

    __slots__ = ("_arrival", "_identity", "scheme", "tls")

    def __init__(self, runtime: Runtime, arrival: Arrival, identity: Identity | None) -> None:
        super().__init__(runtime)
        self._arrival: Arrival | None = arrival
        self._identity = identity
        self.scheme = "http" if identity is None else "https"
        self.tls: dict[str, Any] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        assert self._arrival is not None
        self._arrival.hand_over()
        if self._identity is not None:
            self._runtime.counters.tls_connections += 1
            self.tls = self._identity.extension(transport.get_extra_info("ssl_object"))
            # TLS has room for 512 KB otherwise, beside that of the socket.
            cast("asyncio.Transport", transport).set_write_buffer_limits(HIGH_WATER_BYTES)
        super().connection_made(transport)
        self._arrival = self._identity = None

    def eof_received(self) -> bool:
        """Learn that the client sends no more; Python's TLS can't go on in one direction alone."""
        return super().eof_received() and self.tls is None

    def _ends(self, transport: asyncio.BaseTransport) -> tuple[Address | None, Address | None]:
        assert self._arrival is not None
        header = self._arrival.header
        client, server = super()._ends(transport)
        return header.source or client, header.destination or server


def _of_handshake(error: ssl.SSLError) -> str:
    reason = (error.reason or str(error)).lower().replace("_", " ")
    detail = getattr(error, "verify_message", "")
    return f"the TLS handshake failed: {reason}{f': {detail}' if detail else ''}"
