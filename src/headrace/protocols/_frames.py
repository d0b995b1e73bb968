"""WebSocket frames as bytes: the four functions that run for every message (RFC 6455 §5).

- Plain Python, and it runs as it stands. The same source is compiled by Cython where there
  is a C compiler: ``_frames_compiled.pxd`` adds the types, ``setup.py`` builds it.
- No state: the result depends on the arguments only.
- What a function isn't sure of it leaves to its caller, the engine, which takes the careful
  way and knows the words for every error.
"""

from typing import Any

from headrace.exceptions import RemoteProtocolError

__all__ = ["encode_frame", "read_header", "read_messages", "unmask"]

FINAL_TEXT = 0x81
FINAL_BINARY = 0x82


def unmask(data: bytes, start: int, end: int, mask: bytes) -> bytes:
    """Return ``data[start:end]`` with the four bytes of ``mask`` applied (RFC 6455 §5.3)."""
    length = end - start
    key = (mask * ((length >> 2) + 1))[:length]
    plain = int.from_bytes(data[start:end], "little") ^ int.from_bytes(key, "little")
    return plain.to_bytes(length, "little")


def encode_frame(head: int, payload: bytes) -> bytes:
    """Return one unmasked frame; ``head`` is its first byte: FIN, the RSV bits, the opcode."""
    length = len(payload)
    if length < 126:
        return bytes((head, length)) + payload
    if length < 65536:
        return bytes((head, 126, length >> 8, length & 255)) + payload
    return bytes((head, 127)) + length.to_bytes(8, "big") + payload


def read_header(data: bytes, position: int) -> tuple[int, int, bytes, int] | None:
    """Read the header of the client's frame that begins at ``position``.

    Returns the first byte, the length of the payload, the mask and where the payload begins;
    None while bytes of the header are missing. A header that no client may send raises
    RemoteProtocolError, a missing mask as soon as its bit has arrived.
    """
    available = len(data) - position
    if available < 2:
        return None
    length = data[position + 1] - 128
    if length < 0:
        # RFC 6455 §5.1: a server closes upon a frame that isn't masked.
        raise RemoteProtocolError("frames from a client must be masked")
    start = position + 6
    if length == 126:
        if available < 8:
            return None
        start = position + 8
        length = data[position + 2] << 8 | data[position + 3]
        if length < 126:
            raise RemoteProtocolError("the length of a frame must use the shortest form")
    elif length == 127:
        if available < 14:
            return None
        start = position + 14
        if data[position + 2] > 127:
            raise RemoteProtocolError("the top bit of a 64-bit length must be 0")
        length = int.from_bytes(data[position + 2 : position + 10], "big")
        if length < 65536:
            raise RemoteProtocolError("the length of a frame must use the shortest form")
    elif available < 6:
        return None
    return data[position], length, data[start - 4 : start], start


def read_messages(
    data: bytes, position: int, limit_bytes: int, events: list[Any], room: int
) -> int:
    """Append to ``events`` the plain messages that stand whole at the head of ``data``.

    Returns where it stopped: at the end of ``data``, after ``room`` messages, or before the
    first frame that is anything but a complete, unfragmented and valid message of less than
    64 KB and no more than ``limit_bytes``, with no reserved bit set.
    """
    size = len(data)
    while room > 0 and size - position >= 6:
        head = data[position]
        if head != FINAL_TEXT and head != FINAL_BINARY:
            break
        length = data[position + 1] - 128
        start = position + 6
        if length == 126:
            if size - position < 8:
                break
            start = position + 8
            length = data[position + 2] << 8 | data[position + 3]
            if length < 126:
                break
        elif length == 127 or length < 0:
            break
        end = start + length
        if end > size or length > limit_bytes:
            break
        payload = unmask(data, start, end, data[start - 4 : start])
        if head == FINAL_TEXT:
            try:
                events.append(payload.decode())
            except UnicodeDecodeError:
                break
        else:
            events.append(payload)
        position = end
        room -= 1
    return position
