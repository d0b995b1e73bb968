"""One response of an HTTP/1.1 server, framed: what the application says, and the bytes that go out.

Rules of this file:

- Nothing leaves that isn't well-formed: names, values, lengths and the order of calls are checked
  before a byte of the part at hand is given, and a mistake is a ``LocalProtocolError``.
- The framing is ours (RFC 9112 §6): Content-Length is taken from the application and held to,
  Transfer-Encoding and the persistence of the connection are decided here.
- The head waits for the first part of the body. A response in one part needs no chunks then, and an
  application that fails in between can still be answered.
"""

from collections.abc import Iterable, Sequence
from enum import Enum, auto
from typing import Final

from headrace.exceptions import LocalProtocolError
from headrace.protocols._http1_grammar import (
    Field,
    encode_field,
    encode_fields,
    outgoing_name,
    outgoing_options,
    recall_field,
    status_line,
)

__all__ = ["COMPLETE", "HELD", "Response", "Stage", "encode_informational", "encode_refusal"]


class Stage(Enum):
    """What a response waits for."""

    HELD = auto()  # the first part of its body; nothing has left yet
    STARTED = auto()  # another part
    TRAILERS = auto()
    COMPLETE = auto()  # nothing


# By these names they are compared: the attribute of an enum is looked up slowly.
HELD: Final = Stage.HELD
STARTED: Final = Stage.STARTED
TRAILERS: Final = Stage.TRAILERS
COMPLETE: Final = Stage.COMPLETE

_EMPTY = frozenset((204, 205))  # RFC 9110 §15.3.5 and §15.3.6: no content
_PERSISTENCE = frozenset((b"close", b"keep-alive"))
_FRAMING = frozenset((b"connection", b"content-length", b"transfer-encoding"))
_MAX_LENGTH_DIGITS = 19


class Response:
    """A final response, from its status to its last byte.

    ``wants_close``: the application asks for the end of the connection. ``needs_close``: once the
    head has left, only that end tells where the body ends.
    """

    __slots__ = (
        "_block",
        "_chunked",
        "_http10",
        "_length",
        "_method",
        "_options",
        "_sent",
        "_status",
        "_trailers_follow",
        "needs_close",
        "stage",
        "wants_close",
    )

    def __init__(
        self,
        status: int,
        headers: Iterable[Field],
        default_headers: Sequence[Field],
        *,
        method: str,
        version: str,
        trailers: bool,
    ) -> None:
        if not 200 <= status <= 999:
            raise LocalProtocolError(f"not a status for a final response: {status}")
        lines: list[bytes] = []
        given: set[bytes] = set()
        length: int | None = None
        options: list[bytes] = []
        for name, value in headers:
            try:
                known = recall_field((name, value))
            except TypeError:
                known = None  # no bytes: the check says so
            if known is not None:
                lower, line = known
                lines.append(line)
            elif (lower := outgoing_name(name)) not in _FRAMING:
                lines.append(encode_field(name, value)[1])
            elif lower == b"connection":
                options += outgoing_options(value)
            elif lower == b"transfer-encoding":
                # ASGI leaves chunks to the server: what says so is redundant, the rest is wrong.
                if not isinstance(value, bytes) or value.lower() != b"chunked":
                    raise LocalProtocolError(f"cannot apply transfer-encoding: {value!r}")
            else:
                if lower in given:
                    raise LocalProtocolError("content-length is given twice")
                length = _read_length(value)
            given.add(lower)
        if length and status in _EMPTY:
            raise LocalProtocolError(f"status {status} has no content: content-length={length}")
        lines += [
            (recall_field(default) or encode_field(*default))[1]
            for default in default_headers
            if default[0] not in given
        ]
        self._block = b"".join(lines)
        self._status = status
        self._length = 0 if status in _EMPTY else length
        self._options = options
        self._method = method
        self._http10 = version == "1.0"
        self._trailers_follow = trailers
        self._chunked = False
        self._sent = 0
        self.stage = HELD
        self.wants_close = b"close" in options
        self.needs_close = False

    def body(self, data: bytes, *, more: bool, close: bool) -> list[bytes]:
        """Give the bytes of this part of the body, behind the head if it is the first.

        ``close``: the connection ends after this response, and the head says so.
        """
        if self.stage is not HELD and self.stage is not STARTED:
            raise LocalProtocolError(f"cannot send a body: response={self.stage.name}")
        if not isinstance(data, bytes):
            raise LocalProtocolError(f"a body is bytes, not {type(data).__name__}")
        size = len(data)
        bodiless = self._method == "HEAD" or self._status == 304
        if self._length is not None and not bodiless:
            self._check_length(self._length, size, more=more)
        output: list[bytes] = []
        if self.stage is HELD:
            whole = not more and not self._trailers_follow
            output.append(self._head(size, whole=whole, bodiless=bodiless, close=close))
        self._sent += size
        if size and not bodiless:
            output += (b"%x\r\n" % size, data, b"\r\n") if self._chunked else (data,)
        if more:
            self.stage = STARTED
        elif self._trailers_follow:
            self.stage = TRAILERS
        else:
            self.stage = COMPLETE
            if self._chunked:
                output.append(b"0\r\n\r\n")
        return output

    def trailers(self, headers: Iterable[Field]) -> bytes:
        """Give the end of a response begun with trailers; only chunks can carry them."""
        if self.stage is not TRAILERS:
            raise LocalProtocolError(f"cannot send trailers: response={self.stage.name}")
        block = _encode_unframed(headers, "trailers")
        self.stage = COMPLETE
        return b"0\r\n%b\r\n" % block if self._chunked else b""

    def _check_length(self, length: int, size: int, *, more: bool) -> None:
        total = self._sent + size
        if total > length or (total < length and not more):
            raise LocalProtocolError(
                f"the body is not as long as announced: content-length={length}, sent={total}"
            )

    def _head(self, size: int, *, whole: bool, bodiless: bool, close: bool) -> bytes:
        head = [status_line(self._status), self._block]
        if self._length is None and whole and (size or not bodiless):
            self._length = size  # an empty part that stands for a body left out has no length
        if self._length is not None:
            if self._status != 204:  # RFC 9110 §8.6
                head.append(b"content-length: %d\r\n" % self._length)
        elif not bodiless:
            if self._http10:
                self.needs_close = True  # RFC 9112 §6.3, item 8
            else:
                self._chunked = True
                head.append(b"transfer-encoding: chunked\r\n")
        if close or self.needs_close or self._http10 or self._options:
            head.append(self._connection_line(close=close or self.needs_close))
        head.append(b"\r\n")
        return b"".join(head)

    def _connection_line(self, *, close: bool) -> bytes:
        options = [option for option in self._options if option not in _PERSISTENCE]
        if close:
            options.append(b"close")
        elif self._http10:
            options.append(b"keep-alive")
        return b"connection: %b\r\n" % b", ".join(options) if options else b""


def encode_informational(status: int, headers: Iterable[Field]) -> bytes:
    """Give a 1xx response that is neither 100 nor 101, such as 103 Early Hints."""
    if not 102 <= status <= 199:
        raise LocalProtocolError(f"not a status for an informational response: {status}")
    block = _encode_unframed(headers, "an informational response")
    return b"%b%b\r\n" % (status_line(status), block)


def encode_refusal(
    status: int,
    reason: str,
    headers: Iterable[Field],
    default_headers: Sequence[Field],
    *,
    with_body: bool,
) -> bytes:
    """Give a plain answer that says what is wrong, and ends the connection."""
    body = reason.encode("utf-8") + b"\n"
    given = {b"content-type"}
    options = [b"close"]
    fields = [(b"content-type", b"text/plain; charset=utf-8")]
    for name, value in headers:
        lower = outgoing_name(name)
        if lower == b"connection":
            options += outgoing_options(value)
        elif lower not in _FRAMING:
            fields.append((lower, value))
            given.add(lower)
    fields.append((b"content-length", b"%d" % len(body)))
    fields.append((b"connection", b", ".join(options)))
    fields += [default for default in default_headers if default[0] not in given]
    head = b"%b%b\r\n" % (status_line(status), encode_fields(fields))
    return head + body if with_body else head


def _encode_unframed(headers: Iterable[Field], where: str) -> bytes:
    fields = [(outgoing_name(name), value) for name, value in headers]
    for name, _ in fields:
        if name in _FRAMING:
            raise LocalProtocolError(f"a header that frames a message in {where}: {name!r}")
    return encode_fields(fields)


def _read_length(value: bytes) -> int:
    if not (isinstance(value, bytes) and value.isdigit() and len(value) <= _MAX_LENGTH_DIGITS):
        raise LocalProtocolError(f"content-length is not a number: {value!r}")
    return int(value)
