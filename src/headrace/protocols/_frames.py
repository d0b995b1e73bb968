"""WebSocket frames as bytes: the functions that run for every message (RFC 6455 §5).

- Plain Python, and it runs as it stands. Where there is a C compiler the same source is
  built a second time, as ``_frames_compiled``, with the types of ``_frames_compiled.pxd``;
  one branch, in ``unmask``, is only for that build.
- No state: a result depends on the arguments only. Bytes are ``bytes``, nothing like them.
- What ``read_messages`` isn't sure of it leaves to the engine, which takes the careful way.
"""

from struct import Struct
from types import SimpleNamespace
from typing import Any

from headrace.exceptions import RemoteProtocolError

try:
    import cython  # type: ignore[import-not-found, import-untyped, unused-ignore]
except ImportError:
    cython = SimpleNamespace(compiled=False)  # type: ignore[assignment, unused-ignore]

__all__ = ["encode_frame", "read_header", "read_messages", "unmask"]

_HEAD_7 = Struct("!BB").pack
_HEAD_16 = Struct("!BBH").pack
_HEAD_64 = Struct("!BBQ").pack


def unmask(data: bytes, start: int, end: int, mask: bytes, at: int = 0) -> bytes:
    """Return ``data[start:end]`` under the mask ``mask[at:at + 4]`` (RFC 6455 §5.3)."""
    if cython.compiled:
        return masked_copy(data, start, end, mask, at)  # type: ignore  # noqa: F821
    length = end - start
    key = mask[at : at + 4] * ((length >> 2) + 1)
    plain = int.from_bytes(data[start:end], "little") ^ int.from_bytes(key[:length], "little")
    return plain.to_bytes(length, "little")


def encode_frame(head: int, payload: bytes) -> bytes:
    """Return one unmasked frame; ``head`` is its first byte: FIN, the RSV bits, the opcode."""
    length = len(payload)
    if length < 126:
        return _HEAD_7(head, length) + payload
    if length < 65536:
        return _HEAD_16(head, 126, length) + payload
    return _HEAD_64(head, 127, length) + payload


def read_header(data: bytes, position: int) -> tuple[int, int, bytes, int] | None:
    """Read the header of the client's frame that begins at ``position``.

    Returns the first byte, the length of the payload, the mask and where the payload begins;
    None while bytes of the header are missing. A header that no client may send raises
    RemoteProtocolError, a missing mask as soon as its bit has arrived.
    """
    available = len(data) - position
    if available < 2:
        return None
    small = data[position + 1] - 128
    if small < 0:
        # RFC 6455 §5.1: a server closes upon a frame that isn't masked.
        raise RemoteProtocolError("frames from a client must be masked")
    if small < 126:
        if available < 6:
            return None
        start = position + 6
        return data[position], small, data[position + 2 : start], start
    # RFC 6455 §5.2: the shortest form that holds the length, and the top bit 0.
    start = position + (8 if small == 126 else 14)
    if len(data) < start:
        return None
    length = int.from_bytes(data[position + 2 : start - 4], "big")
    if length < (126 if small == 126 else 65536):
        raise RemoteProtocolError("the length of a frame must have its shortest form")
    if length >> 63:
        raise RemoteProtocolError("the top bit of a 64-bit length must be 0")
    return data[position], length, data[start - 4 : start], start


def read_messages(
    data: bytes, position: int, limit_bytes: int, events: list[Any], room: int
) -> int:
    """Append to ``events`` the plain messages that stand whole at ``position`` of ``data``.

    Returns where it stopped: at the end of ``data``, after ``room`` messages, or before the
    first frame that is anything but a complete, unfragmented and valid message of less than
    64 KB and no more than ``limit_bytes``, with no reserved bit set.
    """
    size = len(data)
    while room > 0 and size - position >= 6:
        head = data[position]
        if head != 0x81 and head != 0x82:  # FIN and text, FIN and binary
            break
        length = data[position + 1] - 128
        start = position + 6
        if length == 126:
            start = position + 8
            if size < start:
                break
            length = data[position + 2] << 8 | data[position + 3]
            if length < 126:
                break
        elif length == 127 or length < 0:
            break
        end = start + length
        if end > size or length > limit_bytes:
            break
        payload = unmask(data, start, end, data, start - 4)
        if head == 0x82:
            events.append(payload)
        else:
            try:
                events.append(payload.decode())
            except UnicodeDecodeError:
                break
        position = end
        room -= 1
    return position
