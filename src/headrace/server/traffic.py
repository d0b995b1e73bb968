"""What has passed between us and a client for one request or one WebSocket, in bytes.

And whether it had better come to its end: both are for applications that ask.

Rules of this file:

- Bytes are those on the wire, inside TLS: request line, headers, chunks and frames included.
- Nothing is counted for who does not ask: a request's account begins at the question, with the
  head that was read before it.
"""

from typing import Any, Protocol

from .runtime import Receive, Send

__all__ = ["RequestTraffic", "Traffic", "draining_behind", "traffic_behind"]


class Traffic(Protocol):
    """An account that is always current; that of a request stays as it was at its end."""

    @property
    def received_bytes(self) -> int:
        """Bytes of the client: of this request, or of the WebSocket with its handshake."""
        ...

    @property
    def sent_bytes(self) -> int:
        """Bytes to the client, those included that wait for its socket."""
        ...

    @property
    def extensions(self) -> str:
        """What a WebSocket's handshake has agreed, as the header of the answer says it; or ""."""
        ...


class Reading(Protocol):
    """The engine that has read a request."""

    @property
    def request_bytes(self) -> int: ...


class Writing(Protocol):
    """The outbox of its connection."""

    @property
    def offered_bytes(self) -> int: ...


class RequestTraffic:
    """That of one request, on a connection that carries one at a time."""

    __slots__ = ("_engine", "_final", "_outbox", "_sent_before")

    extensions = ""

    def __init__(self, engine: Reading, outbox: Writing) -> None:
        self._engine = engine
        self._outbox = outbox
        self._sent_before = outbox.offered_bytes
        self._final: tuple[int, int] | None = None

    def settle(self) -> None:
        """Take note of where it stands: what follows belongs to the next request."""
        if self._final is None:
            self._final = self.received_bytes, self.sent_bytes

    @property
    def received_bytes(self) -> int:
        return self._engine.request_bytes if self._final is None else self._final[0]

    @property
    def sent_bytes(self) -> int:
        if self._final is not None:
            return self._final[1]
        return self._outbox.offered_bytes - self._sent_before


def traffic_behind(receive: Receive, send: Send) -> Traffic | None:
    """Return the account of the request or WebSocket whose own ``receive`` and ``send`` these are.

    To be asked for before the response begins. None where a middleware has put something else in
    the place of one of the two, and for a request over HTTP/2, whose headers are compressed
    together with those of others. A WebSocket over HTTP/2 has its frames counted, and nothing
    else.
    """
    owner = _owner(receive, send)
    return None if owner is None else owner.traffic


def draining_behind(receive: Receive, send: Send) -> bool:
    """Say whether the server that these are of has begun to stop, or this worker to be replaced.

    It waits for responses that are under way. One without an end, such as an event stream, comes
    to it when the application asks now and then, and ends it; its client comes again.
    """
    owner = _owner(receive, send)
    return owner is not None and owner.draining


class _Owner(Protocol):
    """A request or a WebSocket, whose methods an application was given."""

    @property
    def traffic(self) -> Traffic | None: ...

    @property
    def draining(self) -> bool: ...


def _owner(receive: Receive, send: Send) -> _Owner | None:
    owner: Any = getattr(send, "__self__", None)
    if not hasattr(owner, "draining") or owner.send != send or owner.receive != receive:
        return None
    whose: _Owner = owner
    return whose
