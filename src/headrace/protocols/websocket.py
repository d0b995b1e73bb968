"""The WebSocket protocol, server side, once the handshake is done (RFC 6455 §5 to §8).

- A failure has one way out: ``RemoteProtocolError`` inside, ``ConnectionFailed`` outside,
  the close frame already in the output.
- Limits are checked when a frame's header announces too much, before its payload arrives.
- Text is checked the moment its bytes arrive, inside a frame too.
- What comes out depends on the bytes, never on how they were split.
- An idle connection holds no buffer: what a message needs is made when it begins.
"""

from codecs import utf_8_decode
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from headrace.exceptions import (
    CloseCode,
    ConfigurationError,
    LocalProtocolError,
    RemoteProtocolError,
)
from headrace.protocols.extensions import Extension, format_extension
from headrace.protocols.handshake import HandshakeRequest, parse_handshake

COMPILED = False
if TYPE_CHECKING:
    from headrace.protocols._frames import encode_frame, read_header, read_messages, unmask
else:
    try:
        from headrace.protocols._frames_compiled import (
            encode_frame,
            read_header,
            read_messages,
            unmask,
        )
    except ImportError:
        from headrace.protocols._frames import encode_frame, read_header, read_messages, unmask
    else:
        COMPILED = True

__all__ = [
    "COMPILED",
    "CloseReceived",
    "ConnectionFailed",
    "Event",
    "HandshakeRequest",
    "Limits",
    "PingReceived",
    "PongReceived",
    "State",
    "Timeouts",
    "WebSocketEngine",
    "encode_frame",
    "parse_handshake",
]


class State(StrEnum):  # its hash is that of a str, not a call
    """Where a connection stands (RFC 6455 §7.1)."""

    OPEN = "open"
    CLOSING = "closing"
    """Our close frame is out, the peer's is awaited; its messages are checked and dropped."""
    CLOSED = "closed"
    """Nothing comes any more: send what ``data_to_send`` still holds, then close TCP."""


class _Step(StrEnum):
    CLOSE_SENT = "close sent"
    CLOSE_RECEIVED = "close received"
    FAILED = "failed"


OPEN, CLOSING, CLOSED = State.OPEN, State.CLOSING, State.CLOSED
TRANSITIONS: dict[State, dict[_Step, State]] = {
    OPEN: {
        _Step.CLOSE_SENT: CLOSING,
        _Step.CLOSE_RECEIVED: CLOSED,
        _Step.FAILED: CLOSED,
    },
    CLOSING: {
        _Step.CLOSE_RECEIVED: CLOSED,
        _Step.FAILED: CLOSED,
    },
    CLOSED: {},
}


@dataclass(frozen=True, slots=True)
class PingReceived:
    """The peer's ping; the pong is already in the output."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class PongReceived:
    """The peer's pong, asked for or not."""

    payload: bytes


class CloseReceived(NamedTuple):  # a dataclass as frozen as this takes three times as long
    """The peer's close frame, already echoed; ``code`` is 1005 when it had none."""

    code: int
    reason: str


@dataclass(frozen=True, slots=True)
class ConnectionFailed:
    """The peer broke the protocol, a limit or the silence; where it can be told, it is.

    ``code`` is that of the close frame in the output, 1006 where there is none.
    """

    code: int
    reason: str


Event = str | bytes | PingReceived | PongReceived | CloseReceived | ConnectionFailed
"""What ``receive`` yields: a complete text message is a ``str``, a binary one ``bytes``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one client may send; the defaults suit the open internet."""

    message_bytes: int = 1024 * 1024
    """The longest message, decoded; beyond it the connection is closed with 1009."""
    frame_bytes: int = 1024 * 1024
    """The longest frame as it is on the wire."""
    fragments: int = 16_384
    """The most frames that one message comes in, empty ones included."""

    def __post_init__(self) -> None:
        for name in ("message_bytes", "frame_bytes", "fragments"):
            if getattr(self, name) < 1:
                raise ConfigurationError(f"{name} must be at least 1, not {getattr(self, name)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """How long a connection may be silent, in seconds."""

    ping_interval_s: float | None = 20.0
    """Ping a peer that was silent for so long; None: never."""
    ping_timeout_s: float | None = 20.0
    """Fail a connection that stays silent for so long after the ping; None: never."""
    close_timeout_s: float = 10.0
    """Wait so long for the peer's answer to our close frame."""
    message_timeout_s: float | None = 120.0
    """Fail a connection whose message began so long ago and is not complete; None: never."""

    def __post_init__(self) -> None:
        for name in (
            "ping_interval_s",
            "ping_timeout_s",
            "close_timeout_s",
            "message_timeout_s",
        ):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigurationError(f"{name} must be more than 0, not {value}")


# The first byte of a frame: FIN, three reserved bits, the opcode (RFC 6455 §5.2).
_FIN = 0x80
_RSV = 0x70
_OPCODE = 0x0F
_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
_OPCODES = frozenset((_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG))

# RFC 6455 §7.4 and the IANA registry: what may stand in a close frame.
_CLOSE_CODES = frozenset((*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)))

# What the application is told where there is no code. (The attribute of an enum is slow.)
_LOST, _NONE_GIVEN = int(CloseCode.ABNORMAL_CLOSURE), int(CloseCode.NO_STATUS_RECEIVED)

_UNSENT_PONGS_BYTES = 2048
# Frames that one call reads beside whole messages, a quarter of a KiB that it inflates being one:
# a read of 256 KiB may hold 40,000 frames, and stand for 256 MiB.
_FRAMES_A_CALL = 128
# What an extension is given at once: a byte may stand for a thousand, and half a MiB takes a
# millisecond. More where what came before did not grow that much.
_PIECE_BYTES, _MOST_PIECE_BYTES, _MODEST = 512, 4096, 16
_NO_LIMITS_GIVEN = Limits()
_NO_TIMEOUTS_GIVEN = Timeouts()


class _Message:
    """A message that did not arrive as one whole plain frame."""

    __slots__ = (
        "began",
        "decoders",
        "final",
        "fragments",
        "left",
        "mask",
        "payload",
        "piece_bytes",
        "tail",
        "text",
        "wire_bytes",
    )

    def __init__(self, began: float, *, text: bool, decoders: tuple[Extension, ...]) -> None:
        self.began = began
        self.text = text
        self.decoders = decoders
        self.final = False  # the present frame is the last
        self.left = 0  # bytes of its payload that are still to come
        self.mask = b""
        self.fragments = 0
        self.wire_bytes = 0
        self.payload = bytearray()
        self.piece_bytes = _PIECE_BYTES
        self.tail = b""  # the beginning of a character whose rest is still to come

    def take(self, data: bytes, *, final: bool, limit_bytes: int) -> str | bytes | None:
        """Take the next bytes of the message, and return it when they are the last."""
        payload = self.payload
        for extension in self.decoders:
            # What passes from one extension to the next isn't kept: only the last adds to it.
            kept = len(payload) if extension is self.decoders[-1] else 0
            try:
                data = extension.decode(data, limit_bytes=limit_bytes - kept, final=final)
            except RemoteProtocolError as error:
                if error.code != CloseCode.MESSAGE_TOO_BIG:
                    raise
                # It names what was left of the limit, which is another as the network cuts.
                raise _too_big("message that inflates to more", limit_bytes) from None
        if final and not payload:
            return self._decode(data) if self.text else data
        if self.text:
            self._check_text(data, final=final)
        payload += data
        if not final:
            return None
        return payload.decode() if self.text else bytes(payload)

    def _decode(self, data: bytes) -> str:
        try:
            return data.decode()
        except UnicodeDecodeError:
            raise _invalid_text() from None

    def _check_text(self, data: bytes, *, final: bool) -> None:
        # The text is decoded once more when it is complete: pieces of str would take up to
        # eighty times the memory of their bytes.
        if self.tail:
            data = self.tail + data
        try:
            _, length = utf_8_decode(data, "strict", final)
        except UnicodeDecodeError:
            raise _invalid_text() from None
        tail = data[length:]
        # RFC 3629 §3: no surrogates. The decoder waits for the third byte to say so.
        if len(tail) > 1 and tail[0] == 0xED and tail[1] > 0x9F:
            raise _invalid_text()
        self.tail = tail


def _invalid_text() -> RemoteProtocolError:
    return RemoteProtocolError("text must be UTF-8", code=CloseCode.INVALID_PAYLOAD)


def _too_big(what: str, limit: int) -> RemoteProtocolError:
    return RemoteProtocolError(f"{what}, the limit is {limit}", code=CloseCode.MESSAGE_TOO_BIG)


class WebSocketEngine:
    """One WebSocket connection, from the handshake's answer to the last byte.

    ``state``
        Where the connection stands. When it is CLOSED and the output is sent, close TCP.
    ``wire``
        Connections with an equal ``wire`` encode a message to identical bytes. None: this
        connection must encode for itself.
    ``close_code``, ``close_reason``
        Why the connection ended, as an application is told: the peer's code (1005 when its
        close frame had none), the code of our failure, 1006 when the connection was lost.
    ``has_unread``
        ``receive`` stopped before the end: call ``receive(b"", now)`` to go on.
    ``fragments``
        Frames that were read and ended no message, and as many for each KiB that was inflated as
        cost the same, four, for who counts: it sets them back to 0.
    """

    __slots__ = (
        "_asked",
        "_buffer",
        "_extensions",
        "_failure",
        "_heard",
        "_limits",
        "_message",
        "_output",
        "_plain_bytes",
        "_pongs",
        "_position",
        "_ready",
        "_timeouts",
        "close_code",
        "close_reason",
        "fragments",
        "has_unread",
        "state",
        "wire",
    )

    def __init__(
        self,
        now: float,
        *,
        limits: Limits = _NO_LIMITS_GIVEN,
        timeouts: Timeouts = _NO_TIMEOUTS_GIVEN,
        extensions: tuple[Extension, ...] = (),
    ) -> None:
        self.state = OPEN
        self.wire: str | None = _wire(extensions) if extensions else ""
        self.close_code = _LOST
        self.close_reason = ""
        self.has_unread = False
        self.fragments = 0
        self._limits = limits
        self._timeouts = timeouts
        self._extensions = extensions
        self._heard = now  # when the peer was last heard
        self._asked = now  # when it was last asked for something: the keep-alive ping, our close
        self._buffer = b""  # what receive() could not use yet, from _position on
        self._position = 0
        self._message: _Message | None = None  # begun, and not complete
        self._failure: RemoteProtocolError | None = None  # found, and not yet told
        self._output = b""
        self._pongs = b""
        # No more than this is read by the straight way, as long as the connection is ready for
        # it: open, between two messages, nothing unread.
        self._plain_bytes = min(limits.message_bytes, limits.frame_bytes)
        self._ready = True
        for extension in extensions:
            if not extension.rsv:
                self._plain_bytes = -1  # even an unmarked message must pass the extension

    # Receiving

    def receive(self, data: bytes, now: float, *, max_events: int = 64) -> list[Event]:
        """Take bytes from the peer, and return what they say, in order.

        At most ``max_events`` events are returned, and the end of the connection, be it a
        close frame or a failure, never together with what came before it, so that this can
        still be answered. ``has_unread`` says that there is more, for ``receive(b"", now)``.
        Every call counts as a sign of life: call it, if only with ``b""``, when reading goes
        on after a pause of our own. A message that is under way then has its whole time again.
        """
        self._heard = now
        events: list[Event] = []
        if self._ready:
            position = read_messages(data, 0, self._plain_bytes, events, max_events)
            if position == len(data):
                return events
        else:
            position = 0
            if self.state is CLOSED:
                return events
            if not data and self._message is not None:
                self._message.began = now
            if self._buffer:
                if data:
                    data = self._buffer[self._position :] + data
                else:
                    data = self._buffer
                    position = self._position
        self.has_unread = False
        if self._failure is None:
            try:
                position = self._read(data, position, events, max_events)
            except RemoteProtocolError as error:
                self._failure = error.with_traceback(None)
        if self._failure is not None:
            data, position = b"", 0
            self.has_unread = bool(events)
            if not events:
                events.append(self._fail(self._failure.code, str(self._failure)))
        if self.state is CLOSED:
            self._forget()
            return events
        if position < len(data) and len(events) >= max_events:
            self.has_unread = True
        if self.has_unread:
            self._buffer, self._position = data, position
        else:
            # Not `data` itself: the beginning of a header must not keep a long buffer alive.
            self._buffer, self._position = data[position:], 0
        self._ready = (
            self.state is OPEN
            and self._message is None
            and self._failure is None
            and not self._buffer
        )
        return events

    def receive_eof(self, now: float) -> list[Event]:
        """Take note that the peer sends no more; without a close frame that is a failure.

        What ``has_unread`` speaks of is lost: read it first.
        """
        self._heard = now
        if self.state is CLOSED:
            return []
        event = self._fail(CloseCode.ABNORMAL_CLOSURE, "connection lost without a close frame")
        self._forget()
        return [event]

    def _read(self, data: bytes, position: int, events: list[Event], max_events: int) -> int:
        """Read frames until events or bytes run out, and return where it stopped."""
        frames, enough = 0, self.fragments + _FRAMES_A_CALL
        while len(events) < max_events and self.state is not CLOSED:
            if self.fragments >= enough and position < len(data):
                self.has_unread = True
                break
            message = self._message
            if message is not None and message.left:
                if position == len(data):
                    break
                end = min(position + message.left, len(data))
                if message.decoders:
                    end = min(end, position + message.piece_bytes)
                self._read_payload(message, data, position, end, events)
                position = end
                continue
            if message is None and self.state is OPEN:
                room = max_events - len(events)
                position = read_messages(data, position, self._plain_bytes, events, room)
                if len(events) >= max_events:
                    break
            header = read_header(data, position)
            if header is None:
                break
            if frames == _FRAMES_A_CALL:
                self.has_unread = True
                break
            frames += 1
            head, length, mask, start = header
            if head & _OPCODE >= _CLOSE:
                self._check_control(head, length)
                end = start + length
                if end > len(data):
                    break
                if events and head & _OPCODE == _CLOSE:
                    self.has_unread = True
                    break
                payload = unmask(data, start, end, mask)
                self._read_control(head & _OPCODE, payload, events)
                position = end
            else:
                message = self._begin_frame(head, length)
                message.mask = mask
                position = start
                if not length:
                    self._read_payload(message, data, start, start, events)
        return position

    def _begin_frame(self, head: int, length: int) -> _Message:
        """Check the header of a data frame against the message it belongs to (RFC 6455 §5.4)."""
        opcode = head & _OPCODE
        rsv = head & _RSV
        message = self._message
        if opcode not in _OPCODES:
            raise RemoteProtocolError(f"unknown opcode {opcode}")
        if opcode == _CONTINUATION:
            if message is None:
                raise RemoteProtocolError("continuation frame without a message to continue")
            if rsv:
                raise RemoteProtocolError("reserved bit set in a continuation frame")
        else:
            if message is not None:
                raise RemoteProtocolError("new message inside a fragmented message")
            message = self._message = _Message(
                self._heard, text=opcode == _TEXT, decoders=self._decoders(rsv)
            )
        limits = self._limits
        message.final = bool(head & _FIN)
        message.fragments += 1
        message.wire_bytes += length
        if length > limits.frame_bytes:
            raise _too_big(f"frame of {length} bytes", limits.frame_bytes)
        # A transformed message may be a little longer than what it stands for: it gets twice
        # the room, for its own bytes aren't kept.
        if message.wire_bytes > limits.message_bytes << bool(message.decoders):
            raise _too_big(f"message of {message.wire_bytes} bytes", limits.message_bytes)
        if message.fragments > limits.fragments:
            raise _too_big(f"message in {message.fragments} fragments", limits.fragments)
        message.left = length
        if not message.final:
            self.fragments += 1
        return message

    def _decoders(self, rsv: int) -> tuple[Extension, ...]:
        """Return the extensions that a message with these reserved bits passes, in order."""
        decoders = []
        for extension in reversed(self._extensions):
            if extension.rsv & rsv or not extension.rsv:
                decoders.append(extension)
                rsv &= ~extension.rsv
        if rsv:
            # RFC 6455 §5.2: nonzero, and no extension was agreed that gives it a meaning.
            raise RemoteProtocolError("reserved bit set without an extension that claims it")
        return tuple(decoders)

    def _read_payload(
        self, message: _Message, data: bytes, start: int, end: int, events: list[Event]
    ) -> None:
        """Take a piece of the present frame's payload, and the message when that completes it."""
        length = end - start
        message.left -= length
        complete = message.final and not message.left
        had = len(message.payload)
        event = message.take(
            unmask(data, start, end, message.mask),
            final=complete,
            limit_bytes=self._limits.message_bytes,
        )
        if message.decoders:
            grown = (len(message.payload) if event is None else len(event)) - had
            self.fragments += max(0, grown) >> 8
            modest = grown <= _MODEST * length
            message.piece_bytes = (
                min(2 * message.piece_bytes, _MOST_PIECE_BYTES) if modest else _PIECE_BYTES
            )
        if event is not None:
            self._message = None
            if self.state is OPEN:
                events.append(event)
        elif length & 3:
            turned = length & 3
            message.mask = message.mask[turned:] + message.mask[:turned]

    def _check_control(self, head: int, length: int) -> None:
        """RFC 6455 §5.5: a control frame is whole and at most 125 bytes long."""
        if head & _OPCODE not in _OPCODES:
            raise RemoteProtocolError(f"unknown opcode {head & _OPCODE}")
        if head & _RSV:
            raise RemoteProtocolError("reserved bit set in a control frame")
        if not head & _FIN:
            raise RemoteProtocolError("fragmented control frame")
        if length > 125:
            raise RemoteProtocolError(f"control frame of {length} bytes, the limit is 125")

    def _read_control(self, opcode: int, payload: bytes, events: list[Event]) -> None:
        if opcode == _CLOSE:
            events.append(self._read_close(payload))
        elif self.state is not OPEN:
            pass  # RFC 6455 §5.5.2: no pong after our close frame, and nobody to tell
        elif opcode == _PING:
            # RFC 6455 §5.5.3: the most recent ping may stand for all that weren't answered yet,
            # so that a peer who pings and never reads costs a bounded amount of memory.
            pong = encode_frame(_FIN | _PONG, payload)
            if len(self._pongs) + len(pong) > _UNSENT_PONGS_BYTES:
                self._pongs = b""
            self._pongs += pong
            events.append(PingReceived(payload))
        else:
            events.append(PongReceived(payload))

    def _read_close(self, payload: bytes) -> CloseReceived:
        """RFC 6455 §5.5.1: nothing, or a code with a reason in UTF-8."""
        code = _NONE_GIVEN
        reason = ""
        if len(payload) == 1:
            raise RemoteProtocolError("close frame of one byte")
        if payload:
            code = payload[0] << 8 | payload[1]
            if code not in _CLOSE_CODES:
                raise RemoteProtocolError(f"close code {code} may not be sent")
            try:
                reason = payload[2:].decode()
            except UnicodeDecodeError:
                raise RemoteProtocolError(
                    "the reason for closing must be UTF-8", code=CloseCode.INVALID_PAYLOAD
                ) from None
        if self.state is OPEN:
            self._output += encode_frame(_FIN | _CLOSE, payload[:2])
        self._step(_Step.CLOSE_RECEIVED)
        self.close_code, self.close_reason = code, reason
        return tuple.__new__(CloseReceived, (code, reason))

    # Sending

    def encode(self, message: str | bytes) -> bytes:
        """Return a message as the one frame that carries it.

        The caller writes it; nothing is kept. Raises LocalProtocolError unless the connection
        is open, and for text that has no UTF-8 (a lone surrogate).
        """
        if self.state is not OPEN:
            raise LocalProtocolError(f"cannot send a message: state={self.state.name}")
        if isinstance(message, str):
            head = _FIN | _TEXT
            try:
                payload = message.encode()
            except UnicodeEncodeError as error:
                raise LocalProtocolError(f"cannot send text that is no UTF-8: {error}") from None
        elif isinstance(message, bytes | bytearray | memoryview):
            head = _FIN | _BINARY
            payload = bytes(message)
        else:
            raise TypeError(f"a message is str or bytes, not {type(message).__name__}")
        for extension in self._extensions:
            transformed = extension.encode(payload)
            if transformed is not None:
                payload = transformed
                head |= extension.rsv
        return encode_frame(head, payload)

    def send_close(self, code: int | None = 1000, reason: str = "", *, now: float) -> None:
        """Begin the close handshake; ``code`` None sends a close frame without a code.

        Raises LocalProtocolError unless the connection is open, for a code that no close
        frame may carry and for a reason of more than 123 bytes.
        """
        text = reason.encode(errors="replace")
        if code is None:
            if reason:
                raise LocalProtocolError("cannot send a reason without a close code")
            payload = b""
        elif code not in _CLOSE_CODES:
            raise LocalProtocolError(
                f"cannot close with code {code}: send 1000, or one of 3000 to 4999 of your own"
            )
        elif len(text) > 123:
            raise LocalProtocolError(
                f"cannot close with a reason of {len(text)} bytes, the limit is 123"
            )
        else:
            payload = code.to_bytes(2, "big") + text
        if self.state is not OPEN:
            raise LocalProtocolError(f"cannot send a close frame: state={self.state.name}")
        self._step(_Step.CLOSE_SENT)
        self._asked = now
        self._output += encode_frame(_FIN | _CLOSE, payload)

    def send_ping(self, payload: bytes = b"") -> None:
        """Put a ping of the caller's own into the output; keep-alive needs no help.

        Raises LocalProtocolError unless the connection is open, and beyond 125 bytes.
        """
        if self.state is not OPEN:
            raise LocalProtocolError(f"cannot send a ping: state={self.state.name}")
        if len(payload) > 125:
            raise LocalProtocolError(f"cannot ping with {len(payload)} bytes, the limit is 125")
        self._output += encode_frame(_FIN | _PING, payload)

    @property
    def agreed(self) -> str:
        """The extensions of this connection, as the answer to the handshake lists them; or ""."""
        return ", ".join(map(format_extension, self._extensions))

    def data_to_send(self) -> bytes:
        """Return the control frames that wait, and forget them.

        Call it when the transport can take them: while they wait here, pongs are bounded.
        """
        data = self._pongs + self._output
        if data:
            self._pongs = self._output = b""
        return data

    # Time

    def deadline(self) -> float | None:
        """Return when ``timeout`` wants to be called next, or None.

        It moves with everything that happens: receiving makes it later, closing earlier.
        """
        timeouts = self._timeouts
        if self.state is not OPEN:
            return self._asked + timeouts.close_timeout_s if self.state is CLOSING else None
        due = self._ping_due()
        if (message_timeout_s := timeouts.message_timeout_s) is not None:
            if self._message is not None:
                late = self._message.began + message_timeout_s
                due = late if due is None else min(due, late)
            elif due is None:
                # Nothing is due; it is time to see whether a message has begun since.
                due = self._heard + message_timeout_s
        return due

    def _ping_due(self) -> float | None:
        """Return when a silent peer is asked, or has not answered."""
        timeouts = self._timeouts
        if self._heard < self._asked:
            if timeouts.ping_timeout_s is not None:
                return self._asked + timeouts.ping_timeout_s
            since = self._asked
        else:
            since = self._heard
        return None if timeouts.ping_interval_s is None else since + timeouts.ping_interval_s

    def timeout(self, now: float) -> list[Event]:
        """Do what is due at ``now``: ping a silent peer, fail one that stays silent."""
        due = self.deadline()
        if due is None or now < due:
            return []
        if self.state is CLOSING:
            event = self._fail(CloseCode.ABNORMAL_CLOSURE, "close frame was not answered in time")
        elif self._is_late(now):
            event = self._fail(CloseCode.POLICY_VIOLATION, "message takes too long to arrive")
        elif self._ping_due() is None:
            # This was the look at whether a message has begun; no ping goes by what was heard.
            self._heard = now
            return []
        elif self._heard < self._asked and self._timeouts.ping_timeout_s is not None:
            event = self._fail(CloseCode.INTERNAL_ERROR, "keep-alive ping was not answered in time")
        else:
            self._output += encode_frame(_FIN | _PING, b"")
            self._asked = now
            return []
        self._forget()
        return [event]

    def _is_late(self, now: float) -> bool:
        """Say whether a message has begun too long ago."""
        timeout_s, message = self._timeouts.message_timeout_s, self._message
        return timeout_s is not None and message is not None and now >= message.began + timeout_s

    # Ending

    def _step(self, step: _Step) -> None:
        self.state = TRANSITIONS[self.state][step]
        self._ready = False

    def _fail(self, code: int, reason: str) -> ConnectionFailed:
        """RFC 6455 §7.1.7: say why, where that is still possible, and end."""
        if self.state is OPEN and code != CloseCode.ABNORMAL_CLOSURE:
            text = reason.encode()[:123].decode(errors="ignore").encode()
            self._output += encode_frame(_FIN | _CLOSE, code.to_bytes(2, "big") + text)
        self._step(_Step.FAILED)
        self.close_code, self.close_reason = int(code), reason
        return ConnectionFailed(int(code), reason)

    def _forget(self) -> None:
        """Give back what only a living connection needs."""
        self._buffer = b""
        self._position = 0
        self._message = None
        self._failure = None
        self.has_unread = False
        self._extensions = ()


def _wire(extensions: tuple[Extension, ...]) -> str | None:
    parts = []
    for extension in extensions:
        if extension.wire is None:
            return None
        parts.append(f"{extension.name}={extension.wire}")
    return ", ".join(parts)
