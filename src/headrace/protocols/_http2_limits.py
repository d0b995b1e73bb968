"""What one HTTP/2 connection may cost: its limits, and the budgets that hold it to them.

Apart from the engine, so that settings can be read where the package h2 is not installed.
"""

from dataclasses import dataclass, fields

from headrace.exceptions import ConfigurationError

__all__ = ["Budget", "Http2Limits"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Http2Limits:
    """What one connection may take; the defaults suit the public internet.

    The last six are budgets: so many at once, and a tenth of that in each second that follows. A
    client that spends more is told to calm down (ENHANCE_YOUR_CALM), and its connection ends.
    """

    #: Requests and WebSockets at once.
    streams: int = 100
    #: Bytes of a body that may be on their way, and those of all bodies of the connection.
    stream_window_bytes: int = 262_144
    connection_window_bytes: int = 1_048_576
    #: What the client's compression of headers may keep in our memory (RFC 7541 §4.2).
    header_table_bytes: int = 4096
    #: Frames that the fields of one request may be spread over.
    continuations: int = 16
    #: Streams that the client resets, or that its mistakes make us reset or refuse.
    resets: int = 200
    settings_frames: int = 20
    pings: int = 100
    #: PRIORITY frames, and those of unknown types.
    priorities: int = 1000
    #: Beyond two for each frame of data that was sent.
    window_updates: int = 1000
    #: DATA frames that hold nothing, and end nothing.
    empty_frames: int = 100

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            least = 65_535 if field.name.endswith("window_bytes") else 1
            most = 2**31 - 1 if field.name.endswith("_bytes") else 2**31
            if field.name == "header_table_bytes":
                least = 0
            if not least <= value <= most:
                raise ConfigurationError(
                    f"http2.{field.name} must be from {least} to {most}, not {value}"
                )


class Budget:
    """So many at once, and a tenth of that in each second that follows."""

    __slots__ = ("_at", "_burst", "_left")

    def __init__(self, burst: int, now: float) -> None:
        self._burst = burst
        self._left = float(burst)
        self._at = now

    def spend(self, now: float, count: int = 1) -> bool:
        """Take so many; False when there are not as many left."""
        if self._left < count:
            self._left = min(self._burst, self._left + (now - self._at) * self._burst / 10)
            self._at = now
            if self._left < count:
                return False
        self._left -= count
        return True

    def give(self, count: int) -> None:
        """Give so many back, as far as there is room."""
        self._left = min(self._burst, self._left + count)
