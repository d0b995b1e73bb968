"""Attacks by WebSocket: slowness, sizes, bombs, floods, silence, and pages of other sites."""

import asyncio
import zlib
from collections.abc import Iterator

from .enemy import END, HELD, RESET, Attack, Enemy, Field, frame, handshake

__all__ = [
    "Bombs",
    "BrokenText",
    "CrossSite",
    "FragmentFlood",
    "MessageFlood",
    "NeverReads",
    "OversizedFrames",
    "PingFlood",
    "SlowFrames",
    "SmallBombs",
]

MIB = 2**20
TEXT, BINARY, CLOSE, PING = 1, 2, 8, 9
DEFLATE = "Sec-WebSocket-Extensions: permessage-deflate"
#: What a limit on messages or bytes a second says.
TOO_FAST = "close 1008"


def deflated(megabytes: int) -> bytes:
    """So many megabytes of zeroes, as permessage-deflate sends them."""
    deflate = zlib.compressobj(9, wbits=-15)
    # A full flush makes each megabyte independent of the one before.
    one = deflate.compress(bytes(MIB)) + deflate.flush(zlib.Z_FULL_FLUSH)
    return (one * megabytes)[:-4]


class WebSocketAttack(Attack):
    """What one enemy does on an open WebSocket."""

    path = "/echo"
    offer = ""
    crowd = 20
    #: Whether the same connection sends it again and again.
    reads = True

    async def assail(self, field: Field) -> None:
        async def one(enemy: Enemy) -> str | None:
            if refused := await enemy.open_websocket(self.path, *filter(None, [self.offer])):
                return refused
            sending = self._flood(enemy, field)
            if self.reads:
                return await enemy.while_sending(sending, enemy.close_code())
            await sending
            return HELD

        await field.crowd(self.crowd, one)

    async def _flood(self, enemy: Enemy, field: Field) -> None:
        for piece, blows in self.pieces(field):
            await enemy.send(piece)
            field.blows += blows

    def pieces(self, field: Field) -> Iterator[tuple[bytes, int]]:
        """What is sent, and how many blows it counts for."""
        raise NotImplementedError


class SlowFrames(WebSocketAttack):
    """Frames whose payload comes byte by byte."""

    key = "slow-frame"
    deserves = frozenset({HELD, TOO_FAST})
    crowd = 300

    async def _flood(self, enemy: Enemy, field: Field) -> None:
        field.blows += 1
        await enemy.send(b"\x82\xff" + MIB.to_bytes(8) + bytes(4))
        await enemy.drip([b"x"] * MIB, 0.1)


class OversizedFrames(WebSocketAttack):
    """Frames and messages beyond every size, and lengths that no frame can have."""

    key = "oversized-websocket"
    deserves = frozenset({"close 1009", "close 1002"})

    def pieces(self, field: Field) -> Iterator[tuple[bytes, int]]:
        announced = b"\x82\xff" + (2**62).to_bytes(8) + bytes(4)
        negative = b"\x82\xff" + (2**63 + 1).to_bytes(8) + bytes(4)
        whole = frame(TEXT, b"x" * (MIB + 1))
        part = frame(BINARY, bytes(65536), fin=False) + frame(0, bytes(65536), fin=False) * 16
        control = frame(PING, bytes(126))
        longer = b"\x82\xff" + (5).to_bytes(8) + bytes(4) + b"hello"
        yield field.chance.choice([announced, negative, whole, part, control, longer]), 1


class BrokenText(WebSocketAttack):
    """Text that is not UTF-8, whole, split, and inside a frame that never ends."""

    key = "invalid-utf-8"
    deserves = frozenset({"close 1007"})

    def pieces(self, field: Field) -> Iterator[tuple[bytes, int]]:
        bad = field.chance.choice(
            [b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x28", b"ok \x80"]
        )
        yield (
            field.chance.choice(
                [
                    frame(TEXT, bad),
                    frame(TEXT, bad[:1], fin=False) + frame(0, bad[1:] + b"\xff"),
                    # It has to fail although most of the frame is still to come.
                    b"\x81\xff" + (100_000).to_bytes(8) + bytes(4) + bad,
                    frame(CLOSE, (1000).to_bytes(2) + bad),
                ]
            ),
            1,
        )


class Bombs(WebSocketAttack):
    """A megabyte that inflates to a gigabyte."""

    key = "bomb"
    offer = DEFLATE
    deserves = frozenset({"close 1009"})
    crowd = 10
    bomb = deflated(1000)

    def pieces(self, field: Field) -> Iterator[tuple[bytes, int]]:
        yield frame(BINARY, self.bomb, rsv=0x40), 1


class SmallBombs(WebSocketAttack):
    """Message after message that inflates to just what is allowed."""

    key = "small-bombs"
    # What was sent is read slowly, and the end of the connection behind it.
    lingers_s = 90.0
    path = "/sink"
    offer = DEFLATE
    deserves = frozenset({HELD, TOO_FAST})
    crowd = 10
    bomb = deflated(1)

    def pieces(self, field: Field) -> Iterator[tuple[bytes, int]]:
        while True:
            yield frame(BINARY, self.bomb, rsv=0x40) * 10, 10


class FragmentFlood(WebSocketAttack):
    """Messages in fragments of one byte or none, without end."""

    key = "fragment-flood"
    deserves = frozenset({"close 1009", TOO_FAST})

    def pieces(self, field: Field) -> Iterator[tuple[bytes, int]]:
        payload = field.chance.choice([b"", b"x"])
        yield frame(TEXT, payload, fin=False), 1
        more = frame(0, payload, fin=False) * 1000
        while True:
            yield more, 1000


class PingFlood(WebSocketAttack):
    """Pings without end from clients that read no answer."""

    key = "ping-flood"
    deserves = frozenset({HELD, TOO_FAST, RESET})
    reads = False

    def pieces(self, field: Field) -> Iterator[tuple[bytes, int]]:
        pings = frame(PING, b"x" * 125) * 1000
        while True:
            yield pings, 1000


class MessageFlood(WebSocketAttack):
    """Small messages at full speed."""

    key = "message-flood"
    # Who is read slowly is found to be gone slowly.
    lingers_s = 90.0
    path = "/sink"
    deserves = frozenset({HELD, TOO_FAST})

    def pieces(self, field: Field) -> Iterator[tuple[bytes, int]]:
        messages = frame(TEXT, b"hello") * 1000
        while True:
            yield messages, 1000


class NeverReads(Attack):
    """Members of a group that read nothing of a broadcast at full speed."""

    key = "never-reads"
    serve = ("--close-timeout", "1")
    deserves = frozenset({RESET, END, HELD, "close 1013"})
    least_s = 4.0
    # A megabyte waits for each of them, and one write.
    memory_bytes = 30 * 2 * MIB + 48 * MIB

    async def assail(self, field: Field) -> None:
        async def one() -> None:
            while not field.over:
                async with await field.connect(receive_buffer=4096) as enemy:
                    outcome = await enemy.outcome_of(self._stare(enemy, field), field.left_s)
                    if outcome:
                        field.outcomes[outcome] += 1

        await asyncio.gather(*(one() for _ in range(30)))
        if not field.outcomes.keys() & {RESET, END, "close 1013"}:
            field.wrong("nobody was cut off")

    async def _stare(self, enemy: Enemy, field: Field) -> str:
        await enemy.send(handshake("/feed"))
        field.blows += 1
        while True:
            await asyncio.sleep(0.2)
            await enemy.send(frame(0xA))


class CrossSite(Attack):
    """WebSockets that pages of other sites open with the cookies of their visitors."""

    key = "cross-site"
    # So many handshakes a second are refused by their number, before anybody asks for an origin.
    deserves = frozenset({"403", "503"})
    origins = (
        "https://evil.example",
        "null",
        "",
        "http://localhost.evil.example",
        "http://evil-localhost",
        "http://localhost@evil.example",
        "file://",
        "http://localhost, http://evil.example",
        "http://[::1",
        "\xff",
    )

    async def assail(self, field: Field) -> None:
        async def one(enemy: Enemy) -> str | None:
            origin = field.chance.choice([None, *self.origins])
            fields = ["Cookie: sessionid=stolen"]
            if origin is not None:
                fields.append(f"Origin: {origin}")
            field.blows += 1
            status = await enemy.open_websocket("/private", *fields)
            if status is None:
                field.wrong(f"the origin {origin!r} was let in")
            return status or "101"

        await field.crowd(10, one)
