"""The server's side of an HTTP/1.1 (or 1.0) connection, sans-IO: bytes in, events and bytes out.

The laws of this engine:

- One request at a time. After ``RequestCompleted`` nothing of the next request is parsed until the
  response is complete; then ``receive(b"", now)`` goes on (and starts the keep-alive clock). While
  ``has_unread`` is true the caller stops reading from the socket, so that what the engine keeps is
  bounded by the limits and one read.
- The events depend on the bytes, never on how the network cut them: a request that must be refused
  is refused at the first byte that says so, by the same status and sentence, however it arrives.
- A refused request gets a complete answer in the output (unless one has begun), and the end:
  ``RequestFailed`` is the last event of a connection.
- The head of a response leaves with its first body part, so that a response in one part needs no
  chunks and an application that fails before it can still be answered by ``refuse``.
- A response that begins before the request was read to its end closes the connection, unless the
  rest of the body has already arrived: then it is skipped.
- When ``state`` is CLOSED and the output is flushed, the caller closes the connection (and had
  better read on for a moment, so that a reset doesn't overtake the answer: RFC 9112 §9.6).
- Time is a number of seconds passed in. A deadline in the past says: call ``timeout(now)`` at once.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum, IntEnum, auto
from typing import Final, NamedTuple

from headrace.exceptions import ConfigurationError, HandshakeError, LocalProtocolError
from headrace.protocols._http1_grammar import (
    Field,
    Framing,
    RequestLine,
    check_bytes,
    is_plain,
    match_chunk_line,
    parse_head,
    parse_request_line,
    parse_trailers,
    recall_head,
)
from headrace.protocols._http1_response import (
    COMPLETE,
    HELD,
    Response,
    encode_informational,
    encode_refusal,
)

__all__ = [
    "BodyReceived",
    "Event",
    "Http1Engine",
    "Http1Limits",
    "Http2Prefaced",
    "RequestCompleted",
    "RequestFailed",
    "RequestReceived",
    "State",
]


@dataclass(frozen=True, slots=True)
class Http1Limits:
    """What one connection may take; the defaults suit the public internet.

    A body must keep two paces: something of it arrives every ``body_idle_s``, and on the whole it
    is there ``body_grace_s`` plus one second for every ``body_rate_bytes`` after it began.
    """

    request_line_bytes: int = 8192
    field_bytes: int = 16384
    header_bytes: int = 65536
    header_count: int = 100
    body_bytes: int = 100 * 1024 * 1024  # 0: no limit
    chunk_line_bytes: int = 1024
    chunk_extension_bytes: int = 16384
    trailer_bytes: int = 8192
    head_s: float = 10.0
    body_idle_s: float = 30.0
    body_grace_s: float = 30.0
    body_rate_bytes: int = 500
    keep_alive_s: float = 20.0
    small_bytes: int = field(init=False, repr=False)  # a head of this size is within all limits

    def __post_init__(self) -> None:
        for name in (
            "request_line_bytes",
            "field_bytes",
            "header_bytes",
            "header_count",
            "body_rate_bytes",
        ):
            if getattr(self, name) < 1:
                raise ConfigurationError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("head_s", "body_idle_s"):
            if not getattr(self, name) > 0:
                raise ConfigurationError(f"{name} must be more than 0, not {getattr(self, name)}")
        small = min(self.request_line_bytes, self.field_bytes, self.header_bytes)
        object.__setattr__(self, "small_bytes", small)


DEFAULT_LIMITS = Http1Limits()
# Of three to each chunk, in one event: a call gives so many events and no more, or a read of tiny
# chunks, of which 256 KiB hold 40,000, would take a turn of the loop for itself.
_CHUNK_STEPS = 9


class RequestReceived(NamedTuple):  # a dataclass as frozen as this takes three times as long
    """The head of a request.

    ``path`` is decoded as ASGI wants it, ``raw_path`` and ``query_string`` are as sent. ``headers``
    have lower-case names, in order, duplicates kept. ``upgrade`` is the Upgrade field in lower case
    where Connection names it; to ignore it is as good as to follow it (RFC 9110 §7.8).
    """

    method: str
    target: bytes
    path: str
    raw_path: bytes
    query_string: bytes
    http_version: str
    headers: list[Field]
    keep_alive: bool
    upgrade: bytes | None
    expect_continue: bool


@dataclass(frozen=True, slots=True)
class BodyReceived:
    """A part of the request's body, as much as was there."""

    data: bytes


@dataclass(frozen=True, slots=True)
class RequestCompleted:
    """The end of the request, with the trailers of a chunked body."""

    trailers: tuple[Field, ...] = ()


@dataclass(frozen=True, slots=True)
class RequestFailed:
    """The request can't be served; the answer, where one may be sent, is already in the output."""

    status: int
    reason: str


@dataclass(frozen=True, slots=True)
class Http2Prefaced:
    """The client speaks HTTP/2 (RFC 9113 §3.3): the caller switches by ``unread``, or refuses."""


Event = RequestReceived | BodyReceived | RequestCompleted | RequestFailed | Http2Prefaced

_COMPLETED = RequestCompleted()
_new = tuple.__new__


class State(IntEnum):
    """What the engine expects from the client."""

    IDLE = auto()  # a request; nothing of it is there
    HEAD = auto()  # the rest of a head
    BODY = auto()  # the rest of a body
    READ = auto()  # nothing: the request is complete, the response is not
    SWITCHED = auto()  # nothing: the connection speaks another protocol
    CLOSED = auto()  # nothing more, ever


class _Part(Enum):
    """Where in a body the engine stands."""

    SIZED = auto()  # in a body whose length was given
    CHUNK_LINE = auto()
    CHUNK_DATA = auto()
    CHUNK_END = auto()
    TRAILERS = auto()
    END = auto()


# By these names they are compared at every step: the attribute of an enum is looked up slowly.
IDLE: Final = State.IDLE
HEAD: Final = State.HEAD
BODY: Final = State.BODY
READ: Final = State.READ
SWITCHED: Final = State.SWITCHED
CLOSED: Final = State.CLOSED
SIZED: Final = _Part.SIZED
CHUNK_LINE: Final = _Part.CHUNK_LINE
CHUNK_DATA: Final = _Part.CHUNK_DATA
CHUNK_END: Final = _Part.CHUNK_END
TRAILERS: Final = _Part.TRAILERS
END: Final = _Part.END

# The preface of HTTP/2 is made to look like a request that no HTTP/1.1 server takes.
_HTTP2_LINE = b"PRI * HTTP/2.0\r\n"

# Who may follow whom; a missing entry is a mistake in this file.
_TRANSITIONS: dict[State, frozenset[State]] = {
    IDLE: frozenset({HEAD, BODY, READ, CLOSED}),
    HEAD: frozenset({BODY, READ, CLOSED}),
    BODY: frozenset({READ, CLOSED}),
    READ: frozenset({IDLE, SWITCHED, CLOSED}),
    SWITCHED: frozenset(),
    CLOSED: frozenset(),
}


class Http1Engine:
    """One connection, from its first byte to its last.

    ``default_headers`` (names in lower case) are added to a response that has none of that name;
    the sequence is read anew for each response, so all connections may share a list in which the
    caller keeps ``date`` current.
    """

    __slots__ = (
        "_at",
        "_blank_seen",
        "_buffer",
        "_clock",
        "_default_headers",
        "_eof",
        "_extension_bytes",
        "_first_line",
        "_fresh",
        "_keep_alive",
        "_left",
        "_limits",
        "_line",
        "_output",
        "_part",
        "_passed",
        "_paused",
        "_progress",
        "_received",
        "_request_at",
        "_response",
        "_scanned",
        "_trailers",
        "_wants_continue",
        "has_unread",
        "must_close",
        "state",
    )

    def __init__(
        self,
        limits: Http1Limits = DEFAULT_LIMITS,
        *,
        now: float,
        default_headers: Sequence[Field] = (),
    ) -> None:
        self._limits = limits
        self._default_headers = default_headers
        #: What the engine waits for; the caller closes the connection when it is CLOSED.
        self.state = IDLE
        #: Bytes wait in the engine that ``receive(b"", now)`` can use, now or after the response.
        self.has_unread = False
        #: The connection ends with the response under way.
        self.must_close = False
        self._buffer: bytes | bytearray = b""
        self._at = 0  # where the element begins that is read next
        self._scanned = 0  # how far _find has looked for its end
        self._passed = 0  # bytes that were read and dropped from the buffer
        self._request_at = 0  # where among all bytes the request began
        self._eof = False
        self._output: list[bytes] = []
        self._clock: float | None = now  # when the present state began; None: at the next call
        self._paused = False
        self._forget_request()
        self._fresh = True  # no request was answered yet

    def _forget_request(self) -> None:
        self._fresh = False
        self._blank_seen = False
        self._line: RequestLine | None = None
        self._first_line = b""
        self._keep_alive = True
        self._wants_continue = False
        self._part = SIZED
        self._left = 0
        self._received = 0
        self._progress = 0.0
        self._extension_bytes = 0
        self._trailers: tuple[Field, ...] = ()
        self._response: Response | None = None

    # --- what the client sends ------------------------------------------------------------------

    def receive(self, data: bytes, now: float, *, max_events: int = 64) -> list[Event]:
        """Take bytes from the connection and give what they mean.

        Stops after ``max_events`` or at the end of a request and keeps the rest, which
        ``has_unread`` says; ``receive(b"", now)`` goes on.
        """
        events: list[Event] = []
        state = self.state
        if state is CLOSED:
            return events
        if state is SWITCHED:
            raise LocalProtocolError("cannot receive: the connection speaks another protocol")
        if data:
            if self._buffer:
                if type(self._buffer) is bytes:
                    self._buffer = bytearray(self._buffer)
                self._buffer += data
            else:
                self._buffer = data if type(data) is bytes else bytes(data)
        if self._clock is None:
            self._clock = self._progress = now
        starved = False
        try:
            while len(events) < max_events and not starved:
                state = self.state
                if state is BODY:
                    starved = not self._read_body(now, events)
                elif state is IDLE or state is HEAD:
                    starved = not self._read_head(now, events)
                else:
                    break
            if starved and self._eof:
                self._read_end()
        except HandshakeError as error:
            if error.status == 505 and self._is_http2():
                self._move(READ)
                events.append(Http2Prefaced())
                return events
            events.append(self._fail(error.status, str(error)))
        self._compact()
        if self.state is READ:
            self.has_unread = self._at < len(self._buffer)
        elif self.state is not CLOSED:
            self.has_unread = not starved
        return events

    def _is_http2(self) -> bool:
        """Say whether what can't be a request is how HTTP/2 begins."""
        return self._fresh and bytes(self._buffer[: len(_HTTP2_LINE)]) == _HTTP2_LINE

    def receive_eof(self, now: float) -> list[Event]:
        """Take note that the client sends no more.

        A request that is complete is still answered, and the connection ends after it.
        """
        self._eof = True
        if self.has_unread or self.state is CLOSED or self.state is SWITCHED:
            return []  # the bytes before the end come first
        return self.receive(b"", now)

    def _read_end(self) -> None:
        """Meet the end of the stream where more of a request was wanted."""
        if self.state is IDLE:
            self._close()
        else:
            where = "head" if self.state is HEAD else "body"
            raise HandshakeError(f"the connection ended inside the {where} of the request")

    def _compact(self) -> None:
        """Drop what was read: at once when it is all, else when it is worth a copy of the rest."""
        if self._at >= len(self._buffer):
            self._passed += self._at
            self._buffer = b""
            self._at = self._scanned = 0
        elif self._at * 2 >= len(self._buffer):
            self._passed += self._at
            self._buffer = self._buffer[self._at :]
            self._scanned = max(0, self._scanned - self._at)
            self._at = 0

    def _find(self, end: bytes, limit_bytes: int, status: int, what: str) -> int:
        """Give the index of what ends the element at hand, or -1 when it isn't there yet.

        Raises HandshakeError for the first forbidden byte in it, or for its length, whichever
        comes first in the stream; every byte is looked at once.
        """
        buffer, at = self._buffer, self._at
        begin = max(at, self._scanned - len(end) + 1)
        last = at + limit_bytes
        index = buffer.find(end, begin, last + len(end))
        stop = index + len(end) if index >= 0 else min(len(buffer), last)
        begin = max(at, self._scanned - 1)
        region = bytes(buffer[begin:stop])
        if not is_plain(region, lines=region.count(b"\r\n")):
            check_bytes(buffer, begin, stop)
        if index < 0 and len(buffer) >= last + len(end):
            raise HandshakeError(f"{what} is longer than {limit_bytes} bytes", status=status)
        self._scanned = 0 if index >= 0 else stop
        return index

    def _read_head(self, now: float, events: list[Event]) -> bool:
        limits = self._limits
        if self.state is IDLE:
            buffer, at = self._buffer, self._at
            if at < len(buffer) and buffer[at] == 0x0D:
                at = self._skip_blank()
            if at >= len(buffer):
                return False
            self._clock = now
            end = buffer.find(b"\r\n\r\n", at)
            if 0 <= end - at <= limits.small_bytes and self._read_small_head(end, now, events):
                return True
            self._move(HEAD)
        if self._line is None:
            end = self._find(b"\r\n", limits.request_line_bytes, 414, "the request line")
            if end < 0:
                return False
            self._first_line = bytes(self._buffer[self._at : end])
            self._line = parse_request_line(self._first_line)
            self._at = end
        end = self._find(b"\r\n\r\n", limits.header_bytes, 431, "the header section")
        if end < 0:
            return False
        section = bytes(self._buffer[self._at : end + 4])
        self._check_section(section)
        self._at = end + 4
        head = self._first_line + section
        self._request_at = self._passed + self._at - len(head)
        fields, framing = parse_head(self._line, head, head.split(b"\r\n"))
        self._begin_request(self._line, fields, framing, now, events)
        self._first_line = b""
        return True

    def _skip_blank(self) -> int:
        """Skip one empty line before a request (RFC 9112 §2.2); give where the request begins."""
        buffer, at = self._buffer, self._at
        if self._blank_seen:
            return at
        if buffer.startswith(b"\r\n", at):
            self._blank_seen = True
            self._at = at = at + 2
        elif at + 1 == len(buffer):
            at += 1  # a CR alone begins nothing yet
        return at

    def _read_small_head(self, end: int, now: float, events: list[Event]) -> bool:
        """Read a head that is all there and far from the limits on bytes: nearly every one."""
        head = bytes(self._buffer[self._at : end + 4])
        first = head.index(b"\r\n")
        section = head[first:]
        if section.count(b"\r\n") - 2 > self._limits.header_count:
            return False
        line = self._line = parse_request_line(head[:first])  # a refusal goes by the method, too
        self._request_at = self._passed + self._at
        self._at = end + 4
        fields, framing = recall_head(line, section) or parse_head(line, head, head.split(b"\r\n"))
        self._begin_request(line, fields, framing, now, events)
        return True

    def _check_section(self, section: bytes) -> None:
        limits = self._limits
        lines = section.split(b"\r\n")[1:-2]
        if len(lines) > limits.header_count:
            raise HandshakeError(
                f"there are more than {limits.header_count} header fields", status=431
            )
        if any(len(line) > limits.field_bytes for line in lines):
            raise HandshakeError(
                f"a header field is longer than {limits.field_bytes} bytes", status=431
            )

    def _begin_request(
        self,
        line: RequestLine,
        headers: list[Field],
        framing: Framing,
        now: float,
        events: list[Event],
    ) -> None:
        length, keep_alive, upgrade, expect_continue = framing
        if length is None:
            self._part = CHUNK_LINE
        elif length:
            self._check_body(length)
            self._left = length
        self._keep_alive = keep_alive
        self._wants_continue = expect_continue
        self._clock = self._progress = now
        self._move(BODY)
        method, target, version, _, path, raw_path, query = line
        events.append(
            # What the class does with these, without its function in Python.
            _new(
                RequestReceived,
                (
                    method,
                    target,
                    path,
                    raw_path,
                    query,
                    version,
                    headers,
                    keep_alive,
                    upgrade,
                    expect_continue,
                ),
            )
        )

    def _check_body(self, size: int) -> None:
        limit = self._limits.body_bytes
        if limit and self._received + size > limit:
            raise HandshakeError(f"the body is longer than {limit} bytes", status=413)

    def _take(self) -> bytes:
        """Take what is there of the ``_left`` bytes."""
        buffer, at, left = self._buffer, self._at, self._left
        data = bytes(buffer[at : at + left])  # where that is all that came in, it is no copy
        self._at = at + len(data)
        self._left = left - len(data)
        self._received += len(data)
        return data

    def _read_body(self, now: float, events: list[Event]) -> bool:
        """Give the next event of the body; False when nothing more can be said yet."""
        if self._part is SIZED:
            if self._left:
                data = self._take()
                if data:
                    self._progress = now
                    self._wants_continue = False
                    events.append(BodyReceived(data))
                return bool(data)
        elif self._part is not END:
            return self._read_chunks(now, events)
        self._move(READ)
        self._wants_continue = False
        events.append(RequestCompleted(self._trailers) if self._trailers else _COMPLETED)
        return True

    def _read_chunks(self, now: float, events: list[Event]) -> bool:
        """Give what some chunks hold as one event, so that tiny chunks cost little each."""
        parts: list[bytes] = []
        more = True
        try:
            for _ in range(_CHUNK_STEPS):
                if not (more := self._read_chunk(parts)):
                    break
        finally:
            if parts:
                self._progress = now
                self._wants_continue = False
                events.append(BodyReceived(b"".join(parts)))
        return more or bool(parts) or self._at_end()

    def _at_end(self) -> bool:
        return self._part is END

    def _read_chunk(self, parts: list[bytes]) -> bool:
        """Read one element of a chunked body (RFC 9112 §7.1); False when it isn't there yet."""
        part = self._part
        if part is CHUNK_LINE:
            return self._read_chunk_line()
        if part is CHUNK_DATA:
            if data := self._take():
                parts.append(data)
            if self._left:
                return False
            self._part = CHUNK_END
            return True
        if part is CHUNK_END:
            return self._read_chunk_end()
        self._read_trailers()
        return False

    def _read_chunk_line(self) -> bool:
        limits = self._limits
        match = match_chunk_line(self._buffer, self._at)
        if match is None or match.end() - self._at > limits.chunk_line_bytes + 2:
            if self._find(b"\r\n", limits.chunk_line_bytes, 413, "the line before a chunk") < 0:
                return False
            raise HandshakeError("the line before a chunk is malformed")
        self._scanned = 0
        self._extension_bytes += len(match[2])
        if self._extension_bytes > limits.chunk_extension_bytes:
            raise HandshakeError(
                f"chunk extensions are longer than {limits.chunk_extension_bytes} bytes", status=413
            )
        self._left = int(match[1], 16)
        self._check_body(self._left)
        if self._left:
            self._at = match.end()
            self._part = CHUNK_DATA
        else:
            self._at = match.end() - 2  # the section begins with the CRLF of the line before it
            self._part = TRAILERS
        return True

    def _read_chunk_end(self) -> bool:
        ending = self._buffer[self._at : self._at + 2]
        if ending != b"\r\n"[: len(ending)]:
            raise HandshakeError("the data of a chunk does not end in CRLF")
        if len(ending) < 2:
            return False
        self._at += 2
        self._part = CHUNK_LINE
        return True

    def _read_trailers(self) -> None:
        end = self._find(b"\r\n\r\n", self._limits.trailer_bytes, 431, "the trailer section")
        if end < 0:
            return
        if end > self._at:
            section = bytes(self._buffer[self._at : end + 4])
            self._check_section(section)
            self._trailers = tuple(parse_trailers(section))
        self._at = end + 4
        self._part = END

    @property
    def read_bytes(self) -> int:
        """What was read of the connection so far, without what waits here unread."""
        return self._passed + self._at

    @property
    def request_bytes(self) -> int:
        """What was read so far of the request at hand, its head included."""
        return self._passed + self._at - self._request_at

    def unread(self) -> bytes:
        """Hand over the connection after an upgrade: give the bytes that belong to what follows.

        The engine is done then. What is in ``data_to_send()`` still comes first.
        """
        if self.state is not READ or self._response is not None:
            raise LocalProtocolError(f"cannot switch protocols: {self._standing()}")
        data = bytes(self._buffer[self._at :]) if self._at < len(self._buffer) else b""
        self._move(SWITCHED)
        self._drop_input()
        return data

    # --- what the application sends -------------------------------------------------------------

    def send_continue(self, now: float) -> None:
        """Ask for the body that the client holds back (RFC 9110 §10.1.1).

        To be called when the application wants to read the body; does nothing where the client
        doesn't wait, or a response has left.
        """
        if self._wants_continue and not self._has_answered():
            self._output.append(b"HTTP/1.1 100 Continue\r\n\r\n")
            self._clock = self._progress = now
            self._wants_continue = False

    def send_informational(self, status: int, headers: Iterable[Field] = ()) -> None:
        """Send a 1xx response, such as 103 Early Hints; an HTTP/1.0 client gets none."""
        line = self._request_line(f"a {status}")
        if self._has_answered():
            raise LocalProtocolError(f"cannot send a {status}: {self._standing()}")
        data = encode_informational(status, headers)
        if line.version == "1.1":
            self._output.append(data)

    def send_response(
        self, status: int, headers: Iterable[Field] = (), *, trailers: bool = False
    ) -> None:
        """Begin a response; its head goes out with the first ``send_body``.

        The engine frames the message: Content-Length is taken and held to, "Connection: close"
        is obeyed, Transfer-Encoding is ours alone. ``trailers``: ``send_trailers`` will end it.
        """
        line = self._request_line("a response")
        if self._response is not None:
            raise LocalProtocolError(f"cannot send a response: {self._standing()}")
        self._response = Response(
            status,
            headers,
            self._default_headers,
            method=line.method,
            version=line.version,
            trailers=trailers,
        )

    def send_body(self, data: bytes, *, more: bool = False) -> None:
        """Send a part of the body; ``more=False`` ends it.

        Raises LocalProtocolError when the parts and Content-Length disagree: ``data`` is not sent
        then, and ``refuse`` is what is left to do. HEAD and 304 get no body, whatever is given.
        """
        response = self._response or self._begun_response("a body")
        if response.stage is HELD and (
            not self._keep_alive or response.wants_close or not self._rest_is_here()
        ):
            self.must_close = True
        self._output += response.body(data, more=more, close=self.must_close)
        if response.needs_close:
            self.must_close = True
        if response.stage is COMPLETE:
            self._finish()

    def send_trailers(self, headers: Iterable[Field] = ()) -> None:
        """End a response begun with ``trailers=True``; they go out where chunks can carry them."""
        self._output.append(self._begun_response("trailers").trailers(headers))
        self._finish()

    def refuse(self, status: int, reason: str, headers: Iterable[Field] = ()) -> None:
        """Answer with a plain error in place of the application, and end the connection.

        Where bytes of a response have left already there is no answer, just the end, so that the
        client sees that the response is not whole.
        """
        if self.state is CLOSED or self.state is SWITCHED:
            return
        if not self._has_answered():
            is_head = self._line is not None and self._line.method == "HEAD"
            self._output.append(
                encode_refusal(
                    status, reason, headers, self._default_headers, with_body=not is_head
                )
            )
        self._close()

    def announce_end(self) -> None:
        """Let the next head of a response say that the connection ends after it.

        A response whose head has left already is not the last.
        """
        if not self._has_answered():
            self.must_close = True

    def drain(self) -> None:
        """Let the connection end as soon as no request is under way."""
        self.must_close = True
        if self.state is IDLE:
            self._close()

    def data_to_send(self) -> bytes:
        """Take the bytes that are to be written."""
        output = self._output
        if not output:
            return b""
        data = output[0] if len(output) == 1 else b"".join(output)
        output.clear()
        return data

    def _standing(self) -> str:
        response = "none" if self._response is None else self._response.stage.name
        return f"state={self.state.name}, response={response}"

    def _has_answered(self) -> bool:
        """Say whether bytes of the final response have left."""
        return self._response is not None and self._response.stage is not HELD

    def _request_line(self, what: str) -> RequestLine:
        if self._line is None or (self.state is not BODY and self.state is not READ):
            raise LocalProtocolError(f"cannot send {what}, there is no request: {self._standing()}")
        return self._line

    def _begun_response(self, what: str) -> Response:
        if self._response is None:
            raise LocalProtocolError(f"cannot send {what} before a response: {self._standing()}")
        return self._response

    def _rest_is_here(self) -> bool:
        """Say whether the request is complete, or what is left of it can be skipped."""
        if self.state is READ:
            return not self._eof or self._at < len(self._buffer)
        return self._part is SIZED and self._left <= len(self._buffer) - self._at

    def _finish(self) -> None:
        """Turn to the next request, or to the end."""
        if self.must_close:
            self._close()
            return
        if self.state is BODY:
            self._at += self._left
            self._move(READ)
        self._move(IDLE)
        self._forget_request()
        self._clock = None
        self.has_unread = self._at < len(self._buffer)

    # --- time -----------------------------------------------------------------------------------

    def deadline(self, now: float | None = None) -> float | None:
        """Give the time at which ``timeout(now)`` wants to be called, if there is one.

        With ``now``, a clock that waits for the next call starts here.
        """
        limits = self._limits
        if self.state is READ or self.state is CLOSED or self.state is SWITCHED:
            return None
        if self.state is BODY and (self._wants_continue or self._paused or self.has_unread):
            return None  # we keep the client waiting, not the client us
        if self._clock is None:
            if now is None:
                return 0.0
            self._clock = self._progress = now
        if self.state is IDLE:
            return self._clock + limits.keep_alive_s
        if self.state is HEAD:
            return self._clock + limits.head_s
        return min(
            self._progress + limits.body_idle_s,
            self._clock + limits.body_grace_s + self._received / limits.body_rate_bytes,
        )

    def timeout(self, now: float) -> list[Event]:
        """Do what is due: an idle connection ends in silence, a slow request by 408."""
        due = self.deadline()
        if due is None or now < due:
            return []
        if self._clock is None:
            self._clock = self._progress = now
            return []
        if self.state is IDLE:
            self._close()
            return []
        where = "head" if self.state is HEAD else "body"
        return [self._fail(408, f"the {where} of the request takes too long")]

    def pause(self) -> None:
        """Take note that the caller stops reading from the connection: the body's clock stops."""
        self._paused = True

    def resume(self) -> None:
        """Take note that the caller reads again: the body's clock starts anew."""
        self._paused = False
        if self.state is BODY:
            self._clock = None

    # --- the end --------------------------------------------------------------------------------

    def _move(self, state: State) -> None:
        if state not in _TRANSITIONS[self.state]:
            raise AssertionError(f"cannot move to {state.name}: state={self.state.name}")
        self.state = state

    def _fail(self, status: int, reason: str) -> RequestFailed:
        self.refuse(status, reason)
        return RequestFailed(status, reason)

    def _drop_input(self) -> None:
        self._passed += self._at
        self._buffer = b""
        self._at = self._scanned = 0
        self.has_unread = False

    def _close(self) -> None:
        self._move(CLOSED)
        self._response = None
        self.must_close = True
        self._drop_input()
