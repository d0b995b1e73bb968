"""The server's side of an HTTP/2 connection, sans-IO: bytes in, events and bytes out (RFC 9113).

The laws of this engine:

- Each frame is judged here before the h2 library sees it: its size, its place, what it costs.
  h2 keeps the states of streams, the windows and the compression of headers; the fields it never
  sees, for the grammar of requests is ours, and shared with HTTP/1.1.
- A request that breaks a rule ends its stream, never its connection, wherever RFC 9113 leaves the
  choice. What makes the two sides disagree about the connection ends it: ``ConnectionFailed`` is
  the last event, and a GOAWAY with the reason is in the output.
- Every kind of frame that costs more to take than to send has a budget (``Http2Limits``).
- ``receive`` takes so many frames and no more, counted by what they cost; ``has_unread`` says that
  ``receive(b"", now)`` goes on.
- A stream's body is acknowledged by ``consumed``, as the application takes it: what the client has
  sent and nobody has taken is bounded by the windows.
- A request that has its response before it is all there is read on for a moment, and dropped:
  a reset behind the response would overtake it in many a client.
- What is to be sent waits in the streams. ``pump`` moves it into the output, a frame of each stream
  in turn, as far as the client's windows reach and the caller has room.
- Time is a number of seconds passed in. A deadline in the past says: call ``timeout(now)`` at once.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar, NamedTuple

import hpack
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError as H2ProtocolError
from h2.settings import SettingCodes, Settings
from hpack.table import HeaderTable

from headrace.exceptions import HandshakeError
from headrace.protocols._http1_grammar import Field
from headrace.protocols._http2_grammar import (
    MalformedRequest,
    check_trailers,
    has_more_fields,
    parse_request,
)
from headrace.protocols._http2_limits import Budget, Http2Limits
from headrace.protocols._http2_stream import Http2Stream
from headrace.protocols.http1 import DEFAULT_LIMITS, Http1Limits, RequestReceived

__all__ = [
    "PREFACE",
    "ConnectionFailed",
    "DataReceived",
    "ErrorCodes",
    "Event",
    "Http2Engine",
    "Http2Limits",
    "Http2Stream",
    "RequestRefused",
    "StreamEnded",
    "StreamOpened",
    "StreamReset",
]

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS = 0, 1, 2, 3, 4
PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 5, 6, 7, 8, 9
END_STREAM = ACK = 0x1
END_HEADERS, PADDED, HAS_PRIORITY = 0x4, 0x8, 0x20

#: The largest frame that we take and send: the least that RFC 9113 §4.2 allows.
FRAME_BYTES = 16_384
LARGEST_WINDOW = 2**31 - 1
#: Frames that one call of ``receive`` takes, and how many of them a request counts for: with what
#: comes of it, it takes 200 µs, a small frame 10.
FRAMES, REQUEST_FRAMES = 128, 20
#: A request of more fields than it may have is refused; one of so many times as many is not even
#: decoded, which takes 4 µs a field.
FIELDS_TIMES = 4
#: Blocks of headers that are remembered each way, and how large one may be.
BLOCKS, BLOCK_BYTES = 16, 256
#: Ended streams that are remembered, to tell a late frame from a wrong one.
ENDED_STREAMS = 256
#: How long the rest of a request is read and dropped whose response is whole.
LINGER_S = 2.0
#: How long a client has to learn of the first GOAWAY where it does not answer the ping behind it.
LEAVING_S = 1.0
_LEAVING_PING = b"leaving\0"
_ALIVE_PING = b"alive?\0\0"
_CALM = ErrorCodes.ENHANCE_YOUR_CALM
_PROTOCOL = ErrorCodes.PROTOCOL_ERROR

# What a stream identifier must be, and the length of the payload, frame by frame (RFC 9113 §6).
_OF_FIELDS = frozenset((HEADERS, CONTINUATION))
_OF_CONNECTION = frozenset((SETTINGS, PING, GOAWAY))
_OF_STREAM = frozenset((DATA, HEADERS, PRIORITY, RST_STREAM, PUSH_PROMISE, CONTINUATION))
_LENGTHS = {RST_STREAM: 4, PING: 8, WINDOW_UPDATE: 4}
# Fields of responses whose values are seldom seen twice, or are nobody's business.
_PASSING = frozenset(
    b"age content-length content-range etag expires last-modified location set-cookie".split()
)
_SETTINGS_KNOWN = frozenset(int(code) for code in SettingCodes)


class StreamOpened(NamedTuple):
    """A request has arrived; ``protocol`` is that of an extended CONNECT (RFC 8441)."""

    stream: "Http2Stream"
    request: RequestReceived
    protocol: bytes | None


class DataReceived:
    """A part of a stream's data: all that one call of ``receive`` brought."""

    __slots__ = ("_parts", "stream")

    def __init__(self, stream: "Http2Stream") -> None:
        self.stream = stream
        self._parts: list[bytes] = []

    def add(self, part: bytes) -> None:
        """Take one more frame's."""
        self._parts.append(part)

    @property
    def data(self) -> bytes:
        """The bytes."""
        return self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)


class StreamEnded(NamedTuple):
    """The client has sent all of its side."""

    stream: "Http2Stream"


class StreamReset(NamedTuple):
    """The stream is over before its time; ``by_client``: it was the client that said so.

    ``limit`` names the limit that was passed, if one was.
    """

    stream: "Http2Stream"
    code: int
    reason: str
    by_client: bool
    limit: str | None = None


class RequestRefused(NamedTuple):
    """A request that can't be served; its answer is on the way."""

    stream: "Http2Stream"
    status: int
    reason: str


class ConnectionFailed(NamedTuple):
    """The connection is over; ``limit`` names the budget or limit that was passed, if one was."""

    code: int
    reason: str
    limit: str | None


Event = StreamOpened | DataReceived | StreamEnded | StreamReset | RequestRefused | ConnectionFailed


class _Frame(NamedTuple):
    """A frame of the client's, taken apart; ``bytes`` is all of it."""

    flags: int
    stream_id: int
    bytes: bytes


class _ConnectionError(Exception):
    """What ends the connection (RFC 9113 §5.4.1)."""

    def __init__(self, code: int, reason: str, *, limit: str | None = None) -> None:
        super().__init__(reason)
        self.code = code
        self.limit = limit


class _Decoder(hpack.Decoder):
    """Keeps the fields for the engine; h2, whose opinion of them isn't asked, gets none.

    Equal blocks mean equal fields for as long as the table stays as it is: clients that ask for
    the same again and again send such, and a second look costs a tenth of the first.
    """

    def __init__(self, limit_bytes: int, limit_fields: int) -> None:
        super().__init__(max_header_list_size=limit_bytes)
        self._limit_fields = limit_fields
        self.fields: list[Field] = []
        self._known: dict[bytes, list[Field]] = {}

    def decode(self, data: bytes, raw: bool = False) -> list[hpack.HeaderTuple]:  # noqa: ARG002
        known = self._known.get(data)
        if known is not None:
            self.fields = known
            return []
        if len(data) > self._limit_fields and has_more_fields(data, self._limit_fields):
            raise _ConnectionError(_CALM, "a request has far too many fields", limit="header_count")
        mark = _Mark(self.header_table)
        try:
            # The tuples of hpack have a class of their own; a scope's headers are plain pairs.
            self.fields = [(name, value) for name, value in super().decode(data, raw=True)]
        except hpack.OversizedHeaderListError:
            raise _ConnectionError(
                _CALM, "the fields of a request are far too large", limit="header_bytes"
            ) from None
        except hpack.HPACKError:
            # RFC 9113 §4.3: from here on the two sides would read different fields.
            raise _ConnectionError(
                ErrorCodes.COMPRESSION_ERROR, "the compressed fields can't be read"
            ) from None
        if not mark.is_true() or len(self._known) >= BLOCKS:
            self._known.clear()
        elif len(data) <= BLOCK_BYTES and len(self.fields) <= BLOCK_BYTES // 4:
            self._known[data] = self.fields
        return []


class _Encoder(hpack.Encoder):
    """Remembers blocks as the decoder does, and keeps out of the table what never comes again."""

    def __init__(self) -> None:
        super().__init__()
        self._known: dict[tuple[Field, ...], bytes] = {}

    def encode(self, headers: Iterable[Field], huffman: bool = True) -> bytes:  # type: ignore[override]
        key = tuple(headers)
        block = self._known.get(key)
        if block is not None and not self.table_size_changes:
            return block
        mark = _Mark(self.header_table)
        block = super().encode(
            [
                hpack.NeverIndexedHeaderTuple(*field) if field[0] in _PASSING else field
                for field in key
            ],
            huffman,
        )
        if not mark.is_true() or len(self._known) >= BLOCKS:
            self._known.clear()
        elif len(block) <= BLOCK_BYTES:
            self._known[key] = block
        return block


class _Mark:
    """What a table of headers was like: whether it has changed since decides what may be kept."""

    __slots__ = ("_count", "_newest", "_size", "_table")

    def __init__(self, table: HeaderTable) -> None:
        entries = table.dynamic_entries
        self._table = table
        #: Held, so that no other entry is taken for it.
        self._newest = entries[0] if entries else None
        self._count = len(entries)
        self._size = table.maxsize

    def is_true(self) -> bool:
        """Say whether the table is as it was."""
        table = self._table
        entries = table.dynamic_entries
        newest = entries[0] if entries else None
        return (
            newest is self._newest and len(entries) == self._count and table.maxsize == self._size
        )


class _H2(H2Connection):
    """h2 with the memory of a short day, and without its own opinion of too many streams."""

    MAX_CLOSED_STREAMS = ENDED_STREAMS

    @property
    def open_inbound_streams(self) -> int:
        """None: the engine refuses one stream where h2 would end the connection."""
        super().open_inbound_streams  # noqa: B018 - forgets the closed ones
        return 0


class Http2Engine:
    """One connection, from its preface to its last byte.

    Args:
        limits: What an HTTP/2 connection may cost.
        http: What a request may be, whichever version of HTTP brings it.
        now: The time.
        default_headers: As those of ``Http1Engine``.
        write_timeout_s: How long a client may take nothing of a stream.
        ping_interval_s: After so long in silence, with streams open, a ping asks who is there.
        ping_timeout_s: How long the answer may take.
    """

    def __init__(
        self,
        limits: Http2Limits,
        http: Http1Limits = DEFAULT_LIMITS,
        *,
        now: float,
        default_headers: Sequence[Field] = (),
        write_timeout_s: float = 60.0,
        ping_interval_s: float | None = None,
        ping_timeout_s: float | None = None,
    ) -> None:
        self._limits = limits
        self._http = http
        self.default_headers = default_headers
        self._write_timeout_s = write_timeout_s
        self._ping_interval_s = ping_interval_s
        self._ping_timeout_s = ping_timeout_s
        #: The connection is over: flush the output, and close.
        self.closed = False
        #: ``receive(b"", now)`` has more to give.
        self.has_unread = False
        self._buffer = bytearray()
        self._needs_preface = True
        self._needs_settings = True
        self._streams: dict[int, Http2Stream] = {}
        self._highest = 0
        #: Streams that have ended, and whether it was us who cut them off.
        self._ended: dict[int, bool] = {}
        #: Streams whose turn to send will come.
        self._queue: deque[Http2Stream] = deque()
        #: Streams whose response was whole before their request, for ``pump`` to set the time.
        self._answered: list[Http2Stream] = []
        self._output = bytearray()
        #: What the call under way will give.
        self._events: list[Event] = []
        self._arrivals: list[DataReceived] = []
        # A block of headers that is not all there.
        self._block: bytearray | None = None
        self._block_stream = 0
        self._block_ends = False
        self._block_frames = 0
        self._block_depends_on_itself = False
        # Time.
        self._now = now
        self._began = now
        self._block_began = 0.0
        self._idle_since: float | None = now
        self._heard = now
        self._pinged: float | None = None
        self._due = now + http.head_s
        # The end.
        self._last_id: int | None = None
        self._final_by: float | None = None
        self.leaving = False
        # Budgets.
        self._resets = Budget(limits.resets, now)
        self._settings_frames = Budget(limits.settings_frames, now)
        self._pings = Budget(limits.pings, now)
        self._priorities = Budget(limits.priorities, now)
        self._window_updates = Budget(limits.window_updates, now)
        self._empty_frames = Budget(limits.empty_frames, now)
        h2 = self._h2 = _H2(
            H2Configuration(
                client_side=False,
                header_encoding=None,
                validate_inbound_headers=False,
                normalize_inbound_headers=False,
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
            )
        )
        h2.encoder = _Encoder()
        self._decoder = h2.decoder = _Decoder(
            2 * http.header_bytes, FIELDS_TIMES * http.header_count
        )
        self._decoder.max_allowed_table_size = max(4096, limits.header_table_bytes)
        h2.local_settings = Settings(
            client=False,
            initial_values={
                SettingCodes.HEADER_TABLE_SIZE: limits.header_table_bytes,
                SettingCodes.MAX_CONCURRENT_STREAMS: limits.streams,
                SettingCodes.INITIAL_WINDOW_SIZE: limits.stream_window_bytes,
                SettingCodes.MAX_HEADER_LIST_SIZE: http.header_bytes,
                SettingCodes.ENABLE_CONNECT_PROTOCOL: 1,
            },
        )
        # A whole block of headers goes to h2 as one frame; what a frame may be is judged here.
        h2.max_inbound_frame_size = 2**24 - 1
        h2.initiate_connection()
        h2.receive_data(PREFACE)
        if (more := limits.connection_window_bytes - 65_535) > 0:
            h2.increment_flow_control_window(more)

    # --- what the client sends ------------------------------------------------------------------

    @property
    def streams(self) -> int:
        """How many streams are open."""
        return len(self._streams)

    @property
    def pending_bytes(self) -> int:
        """Bytes that wait in the streams."""
        return sum(stream.pending_bytes for stream in self._streams.values())

    def receive(self, data: bytes, now: float, *, frames: int = FRAMES) -> list[Event]:
        """Take bytes from the connection and give what they mean.

        ``frames``: what is taken may cost as much as so many small ones. Where it is as many as
        may be, the first is taken whatever it costs.
        """
        events = self._events = []
        if self.closed:
            return events
        self._now = now
        if data:
            self._heard = now
            self._pinged = None
            self._buffer += data
        try:
            if not self._needs_preface or self._read_preface():
                self._read_frames(frames)
        except _ConnectionError as error:
            self._fail(error.code, str(error), error.limit)
        except H2ProtocolError as error:
            # h2 has written a GOAWAY, too: ours has the reason.
            self._output += self._h2.data_to_send()[:-17]
            self._fail(error.error_code, str(error), None)
        for arrival in self._arrivals:
            arrival.stream.arrival = None
        self._arrivals.clear()
        return events

    def receive_eof(self, now: float) -> list[Event]:
        """Take note that the client is gone: HTTP/2 has no half-open connection."""
        self._now = now
        events = self._events = []
        if not self.closed:
            self._end_all(ErrorCodes.CANCEL, "the client has closed the connection")
            self._close()
        return events

    def _read_preface(self) -> bool:
        buffer = self._buffer
        if not PREFACE.startswith(buffer[: len(PREFACE)]):
            raise _ConnectionError(_PROTOCOL, "the preface of HTTP/2 is malformed")
        if len(buffer) < len(PREFACE):
            return False
        del buffer[: len(PREFACE)]
        self._needs_preface = False
        return True

    def _read_frames(self, left: int) -> None:
        buffer = self._buffer
        at, size = 0, len(buffer)
        self.has_unread = False
        try:
            while size - at >= 9 and not self.closed:
                length = int.from_bytes(buffer[at : at + 3], "big")
                if length > FRAME_BYTES:
                    # RFC 9113 §4.2: before a byte of it is kept.
                    raise _ConnectionError(
                        ErrorCodes.FRAME_SIZE_ERROR, f"a frame is longer than {FRAME_BYTES} bytes"
                    )
                end = at + 9 + length
                if end > size:
                    break
                cost, kind = 1, buffer[at + 3]
                if kind in _OF_FIELDS:
                    # A byte of a compressed field may stand for a whole one.
                    cost += length >> 7
                    if kind == HEADERS:
                        cost += REQUEST_FRAMES
                if cost > left < FRAMES:
                    self.has_unread = True
                    break
                left -= cost
                frame = bytes(buffer[at:end])
                at = end
                self._take_frame(frame)
        finally:
            del buffer[:at]

    def _take_frame(self, frame: bytes) -> None:
        kind, flags = frame[3], frame[4]
        stream_id = int.from_bytes(frame[5:9], "big") & LARGEST_WINDOW
        if self._block is not None and (kind != CONTINUATION or stream_id != self._block_stream):
            # RFC 9113 §6.2: nothing may come between.
            raise _ConnectionError(_PROTOCOL, "another frame interrupts a block of headers")
        if self._needs_settings:
            if kind != SETTINGS or flags & ACK:
                raise _ConnectionError(_PROTOCOL, "the first frame is not SETTINGS")  # §3.4
            self._needs_settings = False
        take = self._TAKE.get(kind)
        if take is None:
            self._spend(self._priorities, "priorities")  # RFC 9113 §5.5: unknown, and ignored
            return
        if kind in _OF_CONNECTION if stream_id else kind in _OF_STREAM:
            what = "stream" if stream_id else "connection"
            raise _ConnectionError(_PROTOCOL, f"a frame of type {kind} belongs to no {what}")
        if (length := _LENGTHS.get(kind)) is not None and len(frame) != 9 + length:
            raise _ConnectionError(
                ErrorCodes.FRAME_SIZE_ERROR, f"a frame of type {kind} has {length} bytes"
            )
        take(self, _Frame(flags, stream_id, frame))

    def _spend(self, budget: Budget, limit: str, count: int = 1) -> None:
        if not budget.spend(self._now, count):
            raise _ConnectionError(_CALM, f"too many {_TOO_MANY[limit]}", limit=limit)

    def _known(self, stream_id: int, what: str) -> Http2Stream | None:
        """Give the open stream, or None for one that is over; there is none that never was."""
        stream = self._streams.get(stream_id)
        if stream is None and (stream_id > self._highest or not stream_id % 2):
            # RFC 9113 §5.1: an idle stream begins with HEADERS.
            raise _ConnectionError(_PROTOCOL, f"{what} on a stream that was never opened")
        return stream

    # DATA

    def _take_data(self, frame: _Frame) -> None:
        _, stream_id, raw = frame
        ends = bool(frame.flags & END_STREAM)
        stream = self._known(stream_id, "DATA")
        if stream is None:
            if not self._ended.get(stream_id, False):
                raise _ConnectionError(
                    ErrorCodes.STREAM_CLOSED, "DATA on a stream that the client has ended"
                )
            if len(raw) == 9 and not ends:
                self._spend(self._empty_frames, "empty_frames")
            self._discard(raw)
            return
        if stream.request_ended:
            self._discard(raw)
            self._reset_faulty(
                stream, ErrorCodes.STREAM_CLOSED, "DATA behind the end of the stream"
            )
            return
        if stream.done:
            self._drop_data(stream, raw, ends=ends)
            return
        data_event = self._h2.receive_data(raw)[0]
        data: bytes = data_event.data  # type: ignore[attr-defined] # it is h2's DataReceived
        flow: int = data_event.flow_controlled_length  # type: ignore[attr-defined]
        if not data and not ends:
            self._spend(self._empty_frames, "empty_frames")
        if flow > len(data):
            self._h2.acknowledge_received_data(flow - len(data), stream_id)  # padding
        stream.received += len(data)
        stream.unconsumed += len(data)
        stream.progress = self._now
        expected = stream.expected
        if expected is not None and stream.received > expected:
            # RFC 9113 §8.1.1: the length and the data must agree.
            self._reset_faulty(stream, _PROTOCOL, "the body is longer than announced")
            return
        bounded = not (stream.is_tunnel or stream.method == "CONNECT" or stream.ends)
        if bounded and self._too_long(stream.received):
            self._refuse(stream, 413, f"the body is longer than {self._http.body_bytes} bytes")
            return
        if data:
            arrival = stream.arrival
            if arrival is None:
                arrival = stream.arrival = DataReceived(stream)
                self._arrivals.append(arrival)
                self._events.append(arrival)
            arrival.add(data)
        if ends:
            self._end_request(stream)

    def _drop_data(self, stream: Http2Stream, raw: bytes, *, ends: bool) -> None:
        """Take more of a request that has its response, and give its window back at once."""
        data_event = self._h2.receive_data(raw)[0]
        flow: int = data_event.flow_controlled_length  # type: ignore[attr-defined]
        if ends:
            stream.request_ended = True
            self._forget(stream, cut_off=False)
        elif len(raw) == 9:
            self._spend(self._empty_frames, "empty_frames")
        self._h2.acknowledge_received_data(flow, stream.id)

    def _too_long(self, size: int) -> bool:
        return 0 < self._http.body_bytes < size  # 0: there is no limit

    def _discard(self, raw: bytes) -> None:
        """Take data that nobody waits for: it counts for the window of the connection."""
        self._output += self._h2.data_to_send()
        self._h2.receive_data(raw)
        # h2 answers each with a RST_STREAM; that of the stream's end was enough.
        self._output += self._h2.data_to_send()[:-13]

    def _end_request(self, stream: Http2Stream) -> None:
        if stream.expected is not None and stream.received != stream.expected:
            self._reset_faulty(stream, _PROTOCOL, "the body is shorter than announced")
            return
        stream.request_ended = True
        stream.clock = None
        self._events.append(StreamEnded(stream))
        if stream.done:
            self._forget(stream, cut_off=False)

    # HEADERS and CONTINUATION

    def _take_headers(self, frame: _Frame) -> None:
        flags, stream_id, raw = frame
        begin, end = 9, len(raw)
        depends_on_itself = False
        if flags & PADDED:
            end -= raw[begin] if begin < end else 0
            begin += 1
        if flags & HAS_PRIORITY:
            dependency = int.from_bytes(raw[begin : begin + 4], "big") & LARGEST_WINDOW
            depends_on_itself = dependency == stream_id
            begin += 5
        if begin > len(raw):
            raise _ConnectionError(ErrorCodes.FRAME_SIZE_ERROR, "a HEADERS frame is too short")
        if begin > end:
            raise _ConnectionError(_PROTOCOL, "the padding is longer than its frame")  # §6.2
        self._block = bytearray(raw[begin:end])
        self._block_stream = stream_id
        self._block_ends = bool(flags & END_STREAM)
        self._block_frames = 0
        self._block_depends_on_itself = depends_on_itself
        if flags & END_HEADERS:
            self._end_block()
        else:
            self._block_began = self._now
            self.hasten(self._now + self._http.head_s)

    def _take_continuation(self, frame: _Frame) -> None:
        if self._block is None:
            raise _ConnectionError(_PROTOCOL, "CONTINUATION without HEADERS before it")  # §6.10
        self._block_frames += 1
        self._block += frame.bytes[9:]
        if self._block_frames > self._limits.continuations:
            raise _ConnectionError(
                _CALM, "the fields of a request come in too many frames", limit="continuations"
            )
        if len(self._block) > self._http.header_bytes:
            raise _ConnectionError(
                _CALM, "the fields of a request are far too large", limit="header_bytes"
            )
        if frame.flags & END_HEADERS:
            self._end_block()

    def _end_block(self) -> None:
        assert self._block is not None
        block, self._block = bytes(self._block), None
        stream_id = self._block_stream
        stream = self._streams.get(stream_id)
        if stream is not None:
            self._take_trailers(stream, block)
        elif stream_id % 2 and stream_id > self._highest:
            if self._last_id is not None:
                # RFC 9113 §6.8: begun after we said which stream is the last.
                self._highest = stream_id
                self._feed(stream_id, block)
                self._spend(self._resets, "resets")
                self._h2.reset_stream(stream_id, ErrorCodes.REFUSED_STREAM)
                self._remember(stream_id, cut_off=True)
            else:
                self._open(stream_id, block)
        elif self._ended.get(stream_id, False):
            self._decoder.decode(block)  # on its way while we reset the stream
        elif stream_id in self._ended:
            raise _ConnectionError(
                ErrorCodes.STREAM_CLOSED, "HEADERS on a stream that the client has ended"
            )
        else:
            raise _ConnectionError(_PROTOCOL, "a stream's identifier is not a new, odd one")

    def _feed(self, stream_id: int, block: bytes) -> list[Field]:
        """Let h2 take a block of headers as one frame, and give the fields."""
        flags = END_HEADERS | END_STREAM if self._block_ends else END_HEADERS
        self._h2.receive_data(_frame(HEADERS, flags, stream_id, block))
        return self._decoder.fields

    def _open(self, stream_id: int, block: bytes) -> None:
        now = self._now
        self._highest = stream_id
        fields = self._feed(stream_id, block)
        stream = Http2Stream(self, stream_id, ended=self._block_ends, now=now)
        self._streams[stream_id] = stream
        self._idle_since = None
        if len(self._streams) > self._limits.streams:
            self._spend(self._resets, "resets")
            self.reset(stream, ErrorCodes.REFUSED_STREAM)  # RFC 9113 §5.1.2
            return
        try:
            self._check_size(fields)
            if self._block_depends_on_itself:
                raise MalformedRequest("a stream depends on itself")
            request = parse_request(fields)
            if request.length and self._block_ends:
                raise MalformedRequest("the body is shorter than announced")
            if request.length is not None and self._too_long(request.length):
                raise HandshakeError(
                    f"the body is longer than {self._http.body_bytes} bytes", status=413
                )
        except MalformedRequest as error:
            self._reset_faulty(stream, _PROTOCOL, str(error))
            return
        except HandshakeError as error:
            # To read many fields is the work; to refuse them is none.
            self._spend(self._resets, "resets", len(fields) // 100)
            stream.method = "HEAD" if (b":method", b"HEAD") in fields else ""
            self._refuse(stream, error.status, str(error))
            return
        method, target, path, raw_path, query, headers, length, protocol, expects = request
        ended = stream.request_ended
        stream.begin(method, length, expect_continue=expects and not ended)
        if ended:
            stream.clock = None
        else:
            self.hasten(now + self._http.body_idle_s)
        if self._ping_interval_s is not None:
            self.hasten(now + self._ping_interval_s)
        received = RequestReceived(
            method, target, path, raw_path, query, "2", headers, True, None, expects
        )
        self._events.append(StreamOpened(stream, received, protocol))
        if ended:
            self._events.append(StreamEnded(stream))

    def _check_size(self, fields: list[Field]) -> None:
        limits = self._http
        if sum(name[:1] != b":" for name, _ in fields) > limits.header_count:
            raise HandshakeError(
                f"there are more than {limits.header_count} header fields", status=431
            )
        total = 0
        for name, value in fields:
            size = len(name) + len(value)
            total += size
            if name == b":path" and len(value) > limits.request_line_bytes:
                raise HandshakeError(
                    f"the path is longer than {limits.request_line_bytes} bytes", status=414
                )
            if size > limits.field_bytes:
                raise HandshakeError(
                    f"a header field is longer than {limits.field_bytes} bytes", status=431
                )
        if total > limits.header_bytes:
            raise HandshakeError(
                f"the header section is longer than {limits.header_bytes} bytes", status=431
            )

    def _take_trailers(self, stream: Http2Stream, block: bytes) -> None:
        fault = None
        if stream.request_ended:
            self._decoder.decode(block)
            self._reset_faulty(
                stream, ErrorCodes.STREAM_CLOSED, "HEADERS behind the end of the stream"
            )
            return
        if stream.method == "CONNECT":
            fault = "a tunnel carries DATA alone"  # RFC 9113 §8.5
        elif not self._block_ends:
            fault = "trailers do not end their stream"  # RFC 9113 §8.1
        elif self._block_depends_on_itself:
            fault = "a stream depends on itself"
        if fault is not None:
            self._decoder.decode(block)
            self._reset_faulty(stream, _PROTOCOL, fault)
            return
        fields = self._feed(stream.id, block)
        try:
            self._check_size(fields)
            check_trailers(fields)
        except HandshakeError as error:
            self._refuse(stream, error.status, str(error))
        except MalformedRequest as error:
            self._reset_faulty(stream, _PROTOCOL, str(error))
        else:
            self._end_request(stream)

    # The small frames

    def _take_priority(self, frame: _Frame) -> None:
        """Check, and ignore (RFC 9113 §5.3.2)."""
        self._spend(self._priorities, "priorities")
        code, fault = 0, ""
        if len(frame.bytes) != 14:
            code, fault = ErrorCodes.FRAME_SIZE_ERROR, "a PRIORITY frame has 5 bytes"
        elif int.from_bytes(frame.bytes[9:13], "big") & LARGEST_WINDOW == frame.stream_id:
            code, fault = _PROTOCOL, "a stream depends on itself"
        if code:
            stream = self._streams.get(frame.stream_id)
            if stream is None:
                raise _ConnectionError(code, fault)
            self._reset_faulty(stream, code, fault)

    def _take_reset(self, frame: _Frame) -> None:
        stream = self._known(frame.stream_id, "RST_STREAM")
        self._spend(self._resets, "resets")
        if stream is None:
            return
        self._h2.receive_data(frame.bytes)
        code = int.from_bytes(frame.bytes[9:13], "big")
        self._forget(stream, cut_off=False)
        self._events.append(StreamReset(stream, code, "the client has reset the stream", True))

    def _take_settings(self, frame: _Frame) -> None:
        flags, _, raw = frame
        size = len(raw) - 9
        if size % 6 or (flags & ACK and size):
            raise _ConnectionError(
                ErrorCodes.FRAME_SIZE_ERROR,
                "a SETTINGS frame has 6 bytes for each, an ACK has none",
            )
        if flags & ACK:
            self._spend(self._pings, "pings")
            self._decoder.max_allowed_table_size = self._limits.header_table_bytes
            self._h2.receive_data(raw)
            return
        self._spend(self._settings_frames, "settings_frames")
        if size > 6 * 64:
            raise _ConnectionError(_CALM, "too many settings", limit="settings_frames")
        payload = bytearray()
        for at in range(9, len(raw), 6):
            code = int.from_bytes(raw[at : at + 2], "big")
            value = int.from_bytes(raw[at + 2 : at + 6], "big")
            if code == SettingCodes.HEADER_TABLE_SIZE:
                # What we remember for the client is for us to bound (RFC 7541 §4.2).
                value = min(value, 4096)
            if code in _SETTINGS_KNOWN:  # RFC 9113 §6.5.2: others are ignored, and not kept
                payload += code.to_bytes(2, "big") + value.to_bytes(4, "big")
        self._h2.receive_data(_frame(SETTINGS, 0, 0, bytes(payload)))
        for stream in self._streams.values():
            self.queue(stream)

    def _take_push(self, frame: _Frame) -> None:
        del frame
        raise _ConnectionError(_PROTOCOL, "a client pushes nothing")  # RFC 9113 §8.4

    def _take_ping(self, frame: _Frame) -> None:
        self._spend(self._pings, "pings")
        if not frame.flags & ACK:
            # Without h2, which has no use for it: a ping has to cost little more than to send it.
            self._write(_frame(PING, ACK, 0, frame.bytes[9:]))
        elif frame.bytes[9:] == _LEAVING_PING:
            self._name_last()

    def _take_goaway(self, frame: _Frame) -> None:
        if len(frame.bytes) < 9 + 8:
            raise _ConnectionError(ErrorCodes.FRAME_SIZE_ERROR, "a GOAWAY frame is too short")
        # RFC 9113 §6.8: what is under way goes on. h2 would send nothing more.
        self._spend(self._pings, "pings")
        self._leave()

    def _take_window(self, frame: _Frame) -> None:
        self._spend(self._window_updates, "window_updates")
        stream_id = frame.stream_id
        increment = int.from_bytes(frame.bytes[9:13], "big") & LARGEST_WINDOW
        if not stream_id:
            if not increment:
                raise _ConnectionError(_PROTOCOL, "a WINDOW_UPDATE of 0")  # RFC 9113 §6.9
            if self._h2.outbound_flow_control_window + increment > LARGEST_WINDOW:
                raise _ConnectionError(ErrorCodes.FLOW_CONTROL_ERROR, "the window is too large")
        else:
            stream = self._known(stream_id, "WINDOW_UPDATE")
            if stream is None:
                return
            window = self._h2.streams[stream_id].outbound_flow_control_window
            if not increment:
                self._reset_faulty(stream, _PROTOCOL, "a WINDOW_UPDATE of 0")
                return
            if window + increment > LARGEST_WINDOW:  # RFC 9113 §6.9.1
                self._reset_faulty(stream, ErrorCodes.FLOW_CONTROL_ERROR, "the window is too large")
                return
        self._h2.receive_data(_frame(WINDOW_UPDATE, 0, stream_id, increment.to_bytes(4, "big")))
        if stream_id:
            self.queue(self._streams[stream_id])

    # --- what the application sends -------------------------------------------------------------

    def consumed(self, stream: Http2Stream, size: int) -> None:
        """Give the client its windows back for data that the application has taken."""
        size = min(size, stream.unconsumed)
        if size > 0 and not self.closed:
            stream.unconsumed -= size
            self._h2.acknowledge_received_data(size, stream.id)

    def send_fields(self, stream: Http2Stream, fields: list[Field], *, ends: bool) -> None:
        """Send a block of headers at once; DATA that waits is of other streams."""
        if stream.closed or self.closed:
            return
        self._h2.send_headers(stream.id, fields, end_stream=ends)
        if ends:
            stream.ends = True
            self._end_response(stream)

    def queue(self, stream: Http2Stream) -> None:
        """See to it that the stream has its turn, if it has something to send."""
        if stream.queued or stream.closed or stream.done:
            return
        if stream.pending_bytes or stream.ends:
            stream.queued = True
            self._queue.append(stream)

    def pump(self, room_bytes: int, now: float) -> list[Http2Stream]:
        """Move what waits into the output, about so many bytes; give the streams it came from."""
        moved: list[Http2Stream] = []
        queue, h2 = self._queue, self._h2
        if self.closed:
            return moved
        self._now = now
        shut: list[Http2Stream] = []
        while queue and room_bytes > 0:
            stream = queue.popleft()
            stream.queued = False
            if stream.closed:
                continue
            if stream.pending_bytes:
                window = h2.local_flow_control_window(stream.id)
                if window <= 0:
                    shut.append(stream)
                    continue
                data = stream.take(min(window, FRAME_BYTES))
                last = stream.ends and not stream.pending_bytes and not stream.has_trailers
                h2.send_data(stream.id, data, end_stream=last)
                self._window_updates.give(2)
                room_bytes -= len(data)
                stream.blocked_by = None
                moved.append(stream)
                if stream.pending_bytes:
                    self.queue(stream)
                    continue
                if last:
                    self._end_response(stream)
                    continue
            if stream.ends:
                trailers = stream.take_trailers()
                if trailers is not None:
                    h2.send_headers(stream.id, trailers, end_stream=True)
                else:
                    h2.end_stream(stream.id)
                moved.append(stream)
                self._end_response(stream)
        for stream in shut:
            self._block_stream_until_opened(stream)
        for stream in self._answered:
            stream.reset_by = now + LINGER_S
            self.hasten(stream.reset_by)
        self._answered.clear()
        if not self._streams and self._idle_since is None:
            self._idle_since = now
            self.hasten(now + self._http.keep_alive_s)
        return moved

    def _block_stream_until_opened(self, stream: Http2Stream) -> None:
        """Wait for the client's window: a client that never opens it is cut off."""
        if stream.blocked_by is None:
            stream.blocked_by = self._now + self._write_timeout_s
            self.hasten(stream.blocked_by)
        if self._h2.streams[stream.id].outbound_flow_control_window > 0:
            self.queue(stream)  # it is the connection's window that is shut

    @property
    def can_send(self) -> bool:
        """Whether ``pump`` would move something."""
        return bool(self._queue) and (
            self._h2.outbound_flow_control_window > 0
            or any(not stream.pending_bytes for stream in self._queue)
        )

    def _end_response(self, stream: Http2Stream) -> None:
        stream.done = True
        if stream.request_ended:
            self._forget(stream, cut_off=False)
        elif not stream.is_tunnel:
            stream.clock = None
            self.consumed(stream, stream.unconsumed)
            self._answered.append(stream)

    def reset(self, stream: Http2Stream, code: int) -> None:
        """End a stream before its time."""
        if not stream.closed and not self.closed:
            self._h2.reset_stream(stream.id, code)
            self._forget(stream, cut_off=True)

    def turn_away(self, stream: Http2Stream) -> list[Event]:
        """Refuse a stream that the caller has no room for; the client may try it again."""
        events = self._events = []
        try:
            if not stream.closed:
                self._spend(self._resets, "resets")
                self.reset(stream, ErrorCodes.REFUSED_STREAM)
        except _ConnectionError as error:
            self._fail(error.code, str(error), error.limit)
        return events

    def _reset_faulty(
        self, stream: Http2Stream, code: int, reason: str, *, limit: str | None = None
    ) -> None:
        """End a stream for a mistake of the client's (RFC 9113 §5.4.2)."""
        self._spend(self._resets, "resets")
        held = self._h2.streams.get(stream.id)
        if held is not None and not held.closed:
            self._h2.reset_stream(stream.id, code)
        else:
            self._write(_frame(RST_STREAM, 0, stream.id, code.to_bytes(4, "big")))
        self._forget(stream, cut_off=True)
        self._events.append(StreamReset(stream, code, reason, False, limit))

    def _refuse(self, stream: Http2Stream, status: int, reason: str) -> None:
        """Answer in place of the application."""
        self._spend(self._resets, "resets")
        stream.clock = None
        stream.refuse(status, reason)
        self._events.append(RequestRefused(stream, status, reason))

    def _forget(self, stream: Http2Stream, *, cut_off: bool) -> None:
        """Let go of a stream that is over."""
        if self._streams.pop(stream.id, None) is None:
            return
        self.consumed(stream, stream.unconsumed)
        stream.drop()
        self._remember(stream.id, cut_off=cut_off)
        if not self._streams:
            self._idle_since = None  # the time is told to the ``pump`` that follows
            if self.leaving and self._last_id is not None:
                self._close()

    def _remember(self, stream_id: int, *, cut_off: bool) -> None:
        ended = self._ended
        ended[stream_id] = cut_off
        if len(ended) > ENDED_STREAMS:
            del ended[next(iter(ended))]

    def data_to_send(self) -> bytes:
        """Take the bytes that are to be written."""
        data = self._h2.data_to_send()
        if self._output:
            data = bytes(self._output) + data
            self._output.clear()
        return data

    def _write(self, frame: bytes) -> None:
        self._output += self._h2.data_to_send()
        self._output += frame

    # --- the end --------------------------------------------------------------------------------

    def drain(self, now: float) -> None:
        """Let the connection end as soon as no stream is under way (RFC 9113 §6.8)."""
        self._now = now
        if not self.closed and self._final_by is None and self._last_id is None:
            # Requests may be on their way: which of them is the last is said after a round trip.
            self._write(_goaway(LARGEST_WINDOW, ErrorCodes.NO_ERROR, b""))
            self._write(_frame(PING, 0, 0, _LEAVING_PING))
            self.leaving = True
            self._final_by = now + LEAVING_S
            self.hasten(self._final_by)

    def _name_last(self) -> None:
        """Say which stream is the last; those that come later are not taken."""
        if self.leaving and self._last_id is None:
            self._last_id = self._highest
            self._final_by = None
            self._write(_goaway(self._highest, ErrorCodes.NO_ERROR, b""))
            if not self._streams:
                self._close()

    def _leave(self) -> None:
        """Take note that the client begins nothing new."""
        if not self.leaving:
            self.leaving = True
            self._name_last()

    def _fail(self, code: int, reason: str, limit: str | None) -> None:
        self._end_all(ErrorCodes.CANCEL, reason)
        self._write(_goaway(self._highest, code, reason.encode("ascii", "replace")[:200]))
        self._close()
        self._events.append(ConnectionFailed(code, reason, limit))

    def _end_all(self, code: int, reason: str) -> None:
        for stream in list(self._streams.values()):
            stream.drop()
            self._events.append(StreamReset(stream, code, reason, False))
        self._streams.clear()

    def _close(self) -> None:
        self.closed = True
        self.has_unread = False
        self._buffer.clear()
        self._queue.clear()

    def discard(self) -> None:
        """Let go of what refers to itself, or to us; the engine has ended, and wrote its last."""
        self._events = []
        vars(self._h2).clear()

    # --- time -----------------------------------------------------------------------------------

    def hasten(self, due: float) -> None:
        """Want to be called at that time, at the latest."""
        self._due = min(self._due, due)

    def deadline(self) -> float | None:
        """Give the time at which ``timeout(now)`` wants to be called, if there is one."""
        return None if self.closed or self._due == math.inf else self._due

    def timeout(self, now: float, *, streams: int | None = None) -> list[Event]:
        """Do what is due; but end no more than so many streams: others are still due afterwards."""
        events = self._events = []
        if self.closed or now < self._due:
            return events
        self._now = now
        self._due = math.inf
        try:
            self._look_at_connection(now)
            ended = 0
            for stream in list(self._streams.values()):
                ended += self._end_if_late(stream)
                if ended == streams:
                    self._due = now
                    break
        except _ConnectionError as error:
            self._fail(error.code, str(error), error.limit)
        return events

    def _is_due(self, deadline: float) -> bool:
        if self._now >= deadline:
            return True
        self.hasten(deadline)
        return False

    def _look_at_connection(self, now: float) -> None:
        http = self._http
        if self._needs_settings and self._is_due(self._began + http.head_s):
            raise _ConnectionError(
                ErrorCodes.SETTINGS_TIMEOUT,
                "the client takes too long to begin",
                limit="head_timeout",
            )
        if self._block is not None and self._is_due(self._block_began + http.head_s):
            raise _ConnectionError(
                _CALM, "the fields of a request take too long", limit="head_timeout"
            )
        if self._final_by is not None and self._is_due(self._final_by):
            self._name_last()
        if not self._streams:
            if self._idle_since is not None and self._is_due(self._idle_since + http.keep_alive_s):
                self._write(_goaway(self._highest, ErrorCodes.NO_ERROR, b""))
                self._close()
            return
        if self._pinged is not None and self._ping_timeout_s is not None:
            if self._is_due(self._pinged + self._ping_timeout_s):
                raise _ConnectionError(
                    ErrorCodes.NO_ERROR, "the client does not answer a ping", limit="ping_timeout"
                )
        elif self._ping_interval_s is not None and self._is_due(
            self._heard + self._ping_interval_s
        ):
            self._write(_frame(PING, 0, 0, _ALIVE_PING))
            self._pinged = now
            self.hasten(now + (self._ping_timeout_s or self._ping_interval_s))

    def _end_if_late(self, stream: Http2Stream) -> bool:
        """End a stream whose time is up; say whether it was."""
        http = self._http
        if stream.reset_by is not None and self._is_due(stream.reset_by):
            # RFC 9113 §8.1: the response is whole, the rest of the request is not wanted.
            self.reset(stream, ErrorCodes.NO_ERROR)
            return True
        if stream.clock is not None and not stream.request_ended:
            slow = min(
                stream.progress + http.body_idle_s,
                stream.clock + http.body_grace_s + stream.received / http.body_rate_bytes,
            )
            if self._is_due(slow):
                self._refuse(stream, 408, "the body of the request takes too long")
                return True
        if stream.blocked_by is not None and self._is_due(stream.blocked_by):
            self._reset_faulty(
                stream,
                ErrorCodes.CANCEL,
                f"the client has taken nothing for {self._write_timeout_s:g} s",
                limit="write_timeout",
            )
            return True
        return False

    _TAKE: ClassVar[dict[int, Callable[["Http2Engine", _Frame], None]]] = {
        DATA: _take_data,
        HEADERS: _take_headers,
        PRIORITY: _take_priority,
        RST_STREAM: _take_reset,
        SETTINGS: _take_settings,
        PUSH_PROMISE: _take_push,
        PING: _take_ping,
        GOAWAY: _take_goaway,
        WINDOW_UPDATE: _take_window,
        CONTINUATION: _take_continuation,
    }


_TOO_MANY = {
    "resets": "streams were reset or refused",
    "settings_frames": "SETTINGS frames",
    "pings": "PING frames",
    "priorities": "PRIORITY or unknown frames",
    "window_updates": "WINDOW_UPDATE frames",
    "empty_frames": "empty DATA frames",
}


def _frame(kind: int, flags: int, stream_id: int, payload: bytes) -> bytes:
    return b"%b%c%c%b%b" % (
        len(payload).to_bytes(3, "big"),
        kind,
        flags,
        stream_id.to_bytes(4, "big"),
        payload,
    )


def _goaway(last_id: int, code: int, reason: bytes) -> bytes:
    return _frame(GOAWAY, 0, 0, last_id.to_bytes(4, "big") + code.to_bytes(4, "big") + reason)
