"""How inputs and frames are put into bytes. The page has the same in ``js/wire.js``.

Everything is little-endian. From the page, an input, 7 bytes:

====== ======= ==============================================================
offset type    meaning
====== ======= ==============================================================
0      u8      1
1      u32     its number, greater than that of any before
5      i8, i8  the direction, right and down, of a length of 127 at most
====== ======= ==============================================================

To the page, a frame: all that one player can see, so that one that gets lost costs nothing, and
who comes late needs no other:

====== ======= ==============================================================
offset type    meaning
====== ======= ==============================================================
0      u8      2
1      u32     the reign: grows when another process takes the pond over
5      u32     the tick
9      u32     the number of the last input that is in this frame
13     4 x f32 the player's own duck: x, y, and its speed right and down
29     f32     the direction in which it looks, in radians
33     u32     its score
37     u16     how many other ducks follow, 10 bytes each:
               u32 whose; u16 x, u16 y (in 1/32); u8 direction (256 to the
               round); u8 1 if its player has dropped
..     u16     how many grains follow, 9 bytes each:
               u32 id; u16 x, u16 y (in 1/32); u8 worth
====== ======= ==============================================================
"""

import math
import struct

from arena.world import Duck, Grain

__all__ = ["BadFrame", "Frames", "read_input"]

INPUT, FRAME = 1, 2
_INPUT = struct.Struct("<BIbb")
_FRAME = struct.Struct("<BIIIfffffIH")
_DUCK = struct.Struct("<IHHBB")
_COUNT = struct.Struct("<H")
_GRAIN = struct.Struct("<IHHB")
FINE = 32


class BadFrame(ValueError):
    """Bytes that are no input."""


def read_input(data: bytes) -> tuple[int, float, float]:
    """Return number and direction of an input, or raise :class:`BadFrame`."""
    if len(data) != _INPUT.size or data[0] != INPUT:
        raise BadFrame(f"an input has {_INPUT.size} bytes and begins with {INPUT}")
    _, number, dx, dy = _INPUT.unpack(data)
    return number, dx / 127, dy / 127


class Frames:
    """What the players see in one tick. What several of them see is packed once."""

    def __init__(self, reign: int, tick: int) -> None:
        self._reign = reign
        self._tick = tick
        self._ducks: dict[int, bytes] = {}
        self._grains: dict[int, bytes] = {}

    def of(self, duck: Duck, others: list[Duck], grains: list[Grain]) -> bytes:
        """Return what one player sees."""
        parts = [
            _FRAME.pack(
                FRAME,
                self._reign,
                self._tick,
                duck.taken,
                duck.x,
                duck.y,
                duck.vx,
                duck.vy,
                duck.angle,
                duck.score,
                len(others),
            )
        ]
        known = self._ducks
        parts += [known.get(each.id) or self._pack_duck(each) for each in others]
        parts.append(_COUNT.pack(len(grains)))
        known = self._grains
        parts += [known.get(each.id) or self._pack_grain(each) for each in grains]
        return b"".join(parts)

    def _pack_duck(self, duck: Duck) -> bytes:
        packed = self._ducks[duck.id] = _DUCK.pack(
            duck.id,
            int(duck.x * FINE),
            int(duck.y * FINE),
            round(duck.angle / math.tau * 256) % 256,
            bool(duck.away),
        )
        return packed

    def _pack_grain(self, grain: Grain) -> bytes:
        packed = self._grains[grain.id] = _GRAIN.pack(
            grain.id, int(grain.x * FINE), int(grain.y * FINE), grain.worth
        )
        return packed
