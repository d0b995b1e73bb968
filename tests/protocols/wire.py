"""What a WebSocket client puts on the wire, spelled out byte by byte.

Independent of the code under test, so that the two can't share a mistake, and able to say
what no well-behaved client library would.
"""

MASK = b"\x37\xfa\x21\x3d"

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA


def masked(payload: bytes, mask: bytes = MASK) -> bytes:
    return bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    rsv: int = 0,
    mask: bytes | None = MASK,
    announce: int | None = None,
    form: int | None = None,
) -> bytes:
    """Return one frame.

    ``announce`` is a length other than the payload's, ``form`` the number of bytes (0, 2, 8)
    that the length takes instead of the fewest.
    """
    length = len(payload) if announce is None else announce
    if form is None:
        form = 0 if length < 126 else 2 if length < 65536 else 8
    first = (0x80 if fin else 0) | rsv | opcode
    second = (0x80 if mask is not None else 0) | (length if not form else {2: 126, 8: 127}[form])
    header = bytes((first, second)) + (length.to_bytes(form, "big") if form else b"")
    return header + (payload if mask is None else mask + masked(payload, mask))


def text(value: str) -> bytes:
    return frame(TEXT, value.encode())


def close(code: int, reason: str = "") -> bytes:
    return frame(CLOSE, code.to_bytes(2, "big") + reason.encode())


def server_frame(opcode: int, payload: bytes = b"", *, rsv: int = 0) -> bytes:
    """Return a frame as the server must have sent it."""
    return frame(opcode, payload, rsv=rsv, mask=None)


def server_frames(data: bytes) -> list[tuple[int, bytes]]:
    """Take apart what the server sent, into first bytes and payloads; less than 64 KB each."""
    frames = []
    while data:
        length, start = (data[1], 2) if data[1] < 126 else (int.from_bytes(data[2:4], "big"), 4)
        assert len(data) >= start + length
        frames.append((data[0], data[start : start + length]))
        data = data[start + length :]
    return frames


def feed(engine, data: bytes, *, step: int | None = None, now: float = 0.0, **kwargs) -> list:
    """Give ``data`` to an engine, ``step`` bytes at a time, and return all its events."""
    events = []
    step = step or max(len(data), 1)
    for start in range(0, len(data), step):
        events += engine.receive(data[start : start + step], now, **kwargs)
        while engine.has_unread:
            events += engine.receive(b"", now, **kwargs)
    return events
