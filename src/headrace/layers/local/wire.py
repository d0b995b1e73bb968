"""Frames on a Unix stream socket: a greeting, then each frame behind its length.

Rules of this file:

- The greeting is magic, the version of the wire, and who speaks: the process, and the number
  of the connection by which its unsent frames are known (``peers.py``).
- A length that no sender would write ends the connection: behind it nothing can be trusted.
"""

import struct

__all__ = ["GREETING_BYTES", "VERSION", "FrameReader", "WireError", "greeting", "prefixed"]

VERSION = 1

_MAGIC = b"headrace"
_GREETING = struct.Struct(">8sB16s16s")
_LENGTH = struct.Struct(">I")

GREETING_BYTES = _GREETING.size


class WireError(Exception):
    """What came is not of this protocol, or of another version of it."""


def greeting(process: str, connection: str) -> bytes:
    """Return what a connection begins with."""
    return _GREETING.pack(_MAGIC, VERSION, process.encode(), connection.encode())


def prefixed(frame: bytes) -> bytes:
    """Return the frame as it is written."""
    return _LENGTH.pack(len(frame)) + frame


class FrameReader:
    """Bytes in, frames out. The results depend on the bytes alone, not on how they were cut."""

    def __init__(self, longest_bytes: int) -> None:
        self._longest = longest_bytes
        self._buffer = bytearray()
        #: What is awaited before anything is done with the buffer.
        self._needed = GREETING_BYTES
        #: The process that speaks, and its connection, once it has said so.
        self.process: str | None = None
        self.connection: str | None = None

    @property
    def amid(self) -> bool:
        """Whether a frame has begun to come."""
        return bool(self._buffer)

    def receive(self, data: bytes) -> list[bytes]:
        """Return the frames that are complete now; WireError when none will come any more."""
        buffer = self._buffer
        buffer += data
        if len(buffer) < self._needed:
            return []
        at = 0
        if self.process is None:
            self._read_greeting(bytes(buffer[:GREETING_BYTES]))
            at = GREETING_BYTES
        frames = []
        end = len(buffer)
        self._needed = _LENGTH.size
        with memoryview(buffer) as view:
            while end - at >= _LENGTH.size:
                (length,) = _LENGTH.unpack_from(view, at)
                if length > self._longest:
                    raise WireError(f"a frame of {length} bytes, where {self._longest} are allowed")
                if end - at < _LENGTH.size + length:
                    self._needed = _LENGTH.size + length
                    break
                at += _LENGTH.size
                frames.append(bytes(view[at : at + length]))
                at += length
        del buffer[:at]
        return frames

    def _read_greeting(self, data: bytes) -> None:
        magic, version, process, connection = _GREETING.unpack(data)
        if magic != _MAGIC:
            raise WireError("it does not begin as a process of Headrace does")
        if version != VERSION:
            raise WireError(
                f"version {version} of the wire, where this process speaks {VERSION}: "
                "restart all processes with one version of Headrace"
            )
        try:
            self.process, self.connection = process.decode("ascii"), connection.decode("ascii")
            int(self.connection, 16)
        except ValueError:
            raise WireError("its greeting names no connection") from None
