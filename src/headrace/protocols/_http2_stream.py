"""One stream of an HTTP/2 connection: what its application says, and what waits to be sent.

Rules of this file:

- To the application's side a stream has the face of an ``Http1Engine`` with one request.
- Nothing leaves that isn't well-formed; a mistake is a ``LocalProtocolError``.
- The head of a response waits for the first part of its body, so that an application that fails in
  between can still be answered, and an empty body ends with its head.
- Bytes wait here until the client's windows and the stream's turn let them go.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from enum import Enum, auto
from typing import Any, Final, Protocol

from h2.errors import ErrorCodes

from headrace.exceptions import LocalProtocolError
from headrace.protocols._http1_grammar import Field
from headrace.protocols._http2_grammar import outgoing_fields

__all__ = ["Http2Stream"]

_MAX_LENGTH_DIGITS = 19


class Connection(Protocol):
    """The engine, as a stream sees it."""

    default_headers: Sequence[Field]

    def send_fields(self, stream: "Http2Stream", fields: list[Field], *, ends: bool) -> None:
        """Send a block of headers."""
        ...

    def hasten(self, due: float) -> None:
        """Look at the clocks at that time, at the latest."""
        ...

    def queue(self, stream: "Http2Stream") -> None:
        """See to it that the stream has its turn."""
        ...

    def reset(self, stream: "Http2Stream", code: int) -> None:
        """End the stream before its time."""
        ...


class _Stage(Enum):
    """How far a response has come."""

    NONE = auto()
    HELD = auto()  # its head waits for the first part of the body
    STARTED = auto()
    TRAILERS = auto()
    COMPLETE = auto()  # all of it has been given, though it may still wait


NONE: Final = _Stage.NONE
HELD: Final = _Stage.HELD
STARTED: Final = _Stage.STARTED
TRAILERS: Final = _Stage.TRAILERS
COMPLETE: Final = _Stage.COMPLETE


class Http2Stream:
    """One stream: a request and its response, or the bytes of a WebSocket both ways.

    To its application's side it has the face of an ``Http1Engine`` with one request.
    """

    __slots__ = (
        "_at",
        "_engine",
        "_fields",
        "_length",
        "_pending",
        "_sent",
        "_stage",
        "_status",
        "_trailers",
        "_trailers_follow",
        "_wants_continue",
        "arrival",
        "blocked_by",
        "clock",
        "closed",
        "done",
        "ends",
        "expected",
        "id",
        "is_tunnel",
        "method",
        "pending_bytes",
        "progress",
        "queued",
        "received",
        "request_ended",
        "reset_by",
        "unconsumed",
    )

    def __init__(self, engine: Connection, stream_id: int, *, ended: bool, now: float) -> None:
        self._engine = engine
        self.id = stream_id
        self.method = ""
        #: Whether it carries a WebSocket: data of both sides, and no response that ends it.
        self.is_tunnel = False
        #: The client has sent all of its side.
        self.request_ended = ended
        #: Nothing more happens here, in either direction.
        self.closed = False
        # What comes in.
        self.expected: int | None = None
        self.received = 0
        #: Bytes that wait for the application; their windows are not given back yet.
        self.unconsumed = 0
        #: The event that takes more of the data of this call.
        self.arrival: Any = None
        #: When the body began, and when a part of it came last; None: we keep the client waiting.
        self.clock: float | None = now
        self.progress = now
        self._wants_continue = False
        # What goes out.
        self._stage = NONE
        self._status = 0
        self._fields: list[Field] = []
        self._length: int | None = None
        self._sent = 0
        self._trailers_follow = False
        self._trailers: list[Field] | None = None
        self._pending: deque[bytes] = deque()
        self._at = 0  # what has left of the first part that waits
        #: Bytes that wait for the client's windows, or for their turn.
        self.pending_bytes = 0
        #: The end of our side waits behind them, or has left.
        self.ends = False
        #: It has left.
        self.done = False
        #: When a client is told to send no more of a request that has its whole response.
        self.reset_by: float | None = None
        #: It is among those whose turn will come.
        self.queued = False
        #: When the client is cut off whose window stays closed.
        self.blocked_by: float | None = None

    # --- the face of an engine with one request -------------------------------------------------

    @property
    def has_unread(self) -> bool:
        """Whether what the application has taken is still to be acknowledged."""
        return self.unconsumed > 0

    def data_to_send(self) -> bytes:
        """Give nothing: the connection writes for all of its streams."""
        return b""

    def send_continue(self, now: float) -> None:
        """Ask for the body that the client holds back (RFC 9110 §10.1.1)."""
        if self._wants_continue and self._stage in (NONE, HELD) and not self.closed:
            self._wants_continue = False
            self.clock = self.progress = now
            self._engine.hasten(now)
            self._engine.send_fields(self, [(b":status", b"100")], ends=False)

    def send_informational(self, status: int, headers: Iterable[Field] = ()) -> None:
        """Send a 1xx response, such as 103 Early Hints."""
        if not 102 <= status <= 199:
            raise LocalProtocolError(f"not a status for an informational response: {status}")
        if self._stage not in (NONE, HELD) or self.closed:
            raise LocalProtocolError(f"cannot send a {status}: response={self._stage.name}")
        fields = outgoing_fields(headers)
        if any(name == b"content-length" for name, _ in fields):
            raise LocalProtocolError("a header that frames a message in an informational response")
        self._engine.send_fields(self, [(b":status", b"%d" % status), *fields], ends=False)

    def send_response(
        self, status: int, headers: Iterable[Field] = (), *, trailers: bool = False
    ) -> None:
        """Begin a response; its head goes out with the first ``send_body``.

        ``trailers``: ``send_trailers`` will end it.
        """
        if self._stage is not NONE:
            raise LocalProtocolError(f"cannot send a response: response={self._stage.name}")
        if not 200 <= status <= 999:
            raise LocalProtocolError(f"not a status for a final response: {status}")
        fields: list[Field] = [(b":status", b"%d" % status)]
        length: int | None = None
        given = set()
        for name, value in outgoing_fields(headers):
            if name != b"content-length":
                fields.append((name, value))
            else:
                if name in given:
                    raise LocalProtocolError("content-length is given twice")
                if not (value.isdigit() and len(value) <= _MAX_LENGTH_DIGITS):
                    raise LocalProtocolError(f"content-length is not a number: {value!r}")
                length = int(value)
            given.add(name)
        if status in (204, 205):
            if length:
                raise LocalProtocolError(f"status {status} has no content: content-length={length}")
            length = 0
        fields += [default for default in self._engine.default_headers if default[0] not in given]
        self._status = status
        self._fields = fields
        self._length = length
        self._trailers_follow = trailers
        self._stage = HELD

    def send_body(self, data: bytes, *, more: bool = False) -> None:
        """Send a part of the body; ``more=False`` ends it.

        Raises LocalProtocolError when the parts and Content-Length disagree. HEAD and 304 get no
        body, whatever is given.
        """
        if self._stage is not HELD and self._stage is not STARTED:
            raise LocalProtocolError(f"cannot send a body: response={self._stage.name}")
        if not isinstance(data, bytes):
            raise LocalProtocolError(f"a body is bytes, not {type(data).__name__}")
        bodiless = self.method == "HEAD" or self._status == 304
        if not bodiless:
            self._check_length(len(data), more=more)
        size = len(data)
        whole = not more and not self._trailers_follow
        if self._stage is HELD:
            self._send_head(size, whole=whole, bodiless=bodiless)
        self._sent += size
        self._stage = STARTED if more else TRAILERS if self._trailers_follow else COMPLETE
        if self.ends:
            return  # with its head
        self.write(b"" if bodiless else data, ends=whole)

    def _check_length(self, size: int, *, more: bool) -> None:
        if self._length is None:
            return
        total = self._sent + size
        if total > self._length or (total < self._length and not more):
            raise LocalProtocolError(
                f"the body is not as long as announced: content-length={self._length}, sent={total}"
            )

    def _send_head(self, size: int, *, whole: bool, bodiless: bool) -> None:
        length = self._length
        if length is None and whole and (size or not bodiless):
            length = size
        if length is not None and self._status != 204:
            self._fields.append((b"content-length", b"%d" % length))
        ends = whole and (bodiless or not size)
        self._engine.send_fields(self, self._fields, ends=ends)
        self._fields = []

    def send_trailers(self, headers: Iterable[Field] = ()) -> None:
        """End a response begun with ``trailers=True``."""
        if self._stage is not TRAILERS:
            raise LocalProtocolError(f"cannot send trailers: response={self._stage.name}")
        fields = outgoing_fields(headers)
        if any(name == b"content-length" for name, _ in fields):
            raise LocalProtocolError("a header that frames a message in trailers")
        self._stage = COMPLETE
        self._trailers = fields or None
        self.write(b"", ends=True)

    def refuse(self, status: int, reason: str, headers: Iterable[Field] = ()) -> None:
        """Answer with a plain error in place of the application.

        Where a response has begun to leave, the stream is reset instead: it is not whole.
        """
        if self.closed or self._stage is COMPLETE:
            return
        if self._stage in (STARTED, TRAILERS):
            self._engine.reset(self, ErrorCodes.INTERNAL_ERROR)
            return
        self._stage = NONE
        given = [(name, value) for name, value in headers if name.lower() != b"upgrade"]
        given.append((b"content-type", b"text/plain; charset=utf-8"))
        self.send_response(status, given)
        self.send_body(reason.encode("utf-8") + b"\n")

    def accept(self, headers: Iterable[Field]) -> None:
        """Answer an extended CONNECT: from here on the stream is a tunnel (RFC 8441 §5)."""
        self.send_response(200, headers)
        self._engine.send_fields(self, self._fields, ends=False)
        self._stage = STARTED
        self._fields = []
        self.is_tunnel = True
        self.clock = None

    # --- bytes ----------------------------------------------------------------------------------

    def write(self, data: bytes, *, ends: bool = False) -> None:
        """Let these bytes follow those that wait; ``ends``: nothing follows them."""
        if self.closed or self.ends:
            return
        if data:
            self._pending.append(data)
            self.pending_bytes += len(data)
        self.ends = ends
        if data or ends:
            self._engine.queue(self)

    def take(self, size: int) -> bytes:
        """Take so many of the bytes that wait, or fewer."""
        pending, at = self._pending, self._at
        if not pending:
            return b""
        part = pending[0][at : at + size]
        if at + len(part) < len(pending[0]):
            self._at = at + len(part)
        else:
            pending.popleft()
            self._at = 0
            if len(part) < size and pending:
                parts = [part]
                left = size - len(part)
                while left and pending:
                    first = pending[0]
                    if len(first) > left:
                        parts.append(first[:left])
                        self._at = left
                        break
                    parts.append(pending.popleft())
                    left -= len(first)
                part = b"".join(parts)
        self.pending_bytes -= len(part)
        return part

    def take_trailers(self) -> list[Field] | None:
        """Take the trailers, when all that stands before them has left."""
        trailers, self._trailers = self._trailers, None
        return trailers

    @property
    def has_trailers(self) -> bool:
        """Whether trailers end our side."""
        return self._trailers is not None

    def begin(self, method: str, length: int | None, *, expect_continue: bool) -> None:
        """Take note of what the request is."""
        self.method = method
        self.expected = length
        self._wants_continue = expect_continue
        if expect_continue:
            self.clock = None

    def drop(self) -> None:
        """Forget all that waits: the stream is over."""
        self.closed = True
        self._pending.clear()
        self.pending_bytes = 0
        self.blocked_by = None
        self._trailers = None

    def pause(self) -> None:
        """Take note that nobody takes the client's data: its clock stops."""
        self.clock = None

    def resume(self, now: float) -> None:
        """Take note that the data is taken again: its clock starts anew."""
        if not (self.clock is not None or self._wants_continue or self.is_tunnel):
            self.clock = self.progress = now
            self._engine.hasten(now)
