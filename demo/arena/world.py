"""The pond: who swims on it, what grows on it, and how it goes on from one tick to the next.

Rules of this file: it knows no clock, no database and no socket. Time is ticks, chance is passed
in. The page has the arithmetic of :func:`swim` too (``js/world.js``), to show a player's own duck
before the server has answered; nothing that it works out is ever believed here.
"""

import math
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from operator import attrgetter
from random import Random

__all__ = [
    "AWAY_TICKS",
    "TICK_HZ",
    "Duck",
    "Grain",
    "Row",
    "World",
    "join",
    "leave",
    "near",
    "rules",
    "steer",
    "step",
    "swim",
]

TICK_HZ = 20
STEP_S = 1 / TICK_HZ
WIDTH, HEIGHT = 1600, 1100
DUCK_RADIUS = 18
GRAIN_RADIUS = 6
PUSH = 900.0  # what a duck's feet do, in units a second, each second
DRAG = 0.86  # what the water leaves of a speed after a tick
TOP_SPEED = 300.0  # however hard one is bumped
BOUNCE = 170.0  # what a bump adds

GRAINS = 70
SACK_EVERY = 12  # one in so many is a sack, which is worth more
SACK_WORTH = 5

# A player sees so far to each side, and at most so many others.
SIGHT = 480
NEAREST = 48
# Ducks begin so near to the middle of the pond, each in sight of whoever has just begun.
START = 220

AWAY_TICKS = 15 * TICK_HZ  # the place of who dropped is kept for so long
# Inputs wait for their tick: at most so many, and so many of them may be late and still be made
# up for. Over any time a duck makes no more steps than there were ticks, and these.
WAITING = 12
QUEUE = 4
LATE = 4

_X = attrgetter("x")


@dataclass(slots=True)
class Duck:
    """One player's place, by the account that logged in."""

    id: int
    name: str
    color: str
    x: float
    y: float
    vx: float = 0.0
    vy: float = 0.0
    angle: float = 0.0
    score: int = 0
    #: The connection that steers, when that was opened, and ticks since it was heard of last.
    channel: str = ""
    since: float = 0.0
    away: int = 0
    silent: int = 0
    #: The number of the last input that was taken, and what waits.
    taken: int = 0
    inputs: deque = field(default_factory=deque)
    late: int = LATE
    refused: int = 0


@dataclass(slots=True)
class Grain:
    id: int
    x: float
    y: float
    worth: int = 1


@dataclass(slots=True)
class World:
    """Everything there is. :meth:`to_json` is a snapshot from which another process goes on."""

    tick: int = 0
    ducks: dict[int, Duck] = field(default_factory=dict)
    grains: dict[int, Grain] = field(default_factory=dict)
    last_grain: int = 0

    def to_json(self) -> dict:
        # asdict() takes eight times as long, and the pond stands still meanwhile.
        ducks = [of_slots(duck) | {"inputs": []} for duck in self.ducks.values()]
        grains = [of_slots(grain) for grain in self.grains.values()]
        return {
            "tick": self.tick,
            "last_grain": self.last_grain,
            "ducks": ducks,
            "grains": grains,
        }

    @classmethod
    def from_json(cls, kept: dict, idle_ticks: int = 0) -> "World":
        """Go on from a snapshot after ``idle_ticks`` in which nobody ran the pond."""
        world = cls(tick=kept["tick"] + idle_ticks, last_grain=kept["last_grain"])
        for each in kept["ducks"]:
            duck = Duck(**each | {"inputs": deque()})
            # Who is still there will say so; until then it counts as dropped.
            duck.away += idle_ticks or 1
            if duck.away <= AWAY_TICKS:
                world.ducks[duck.id] = duck
        world.grains = {each["id"]: Grain(**each) for each in kept["grains"]}
        return world

    def playing(self) -> list[Duck]:
        return [duck for duck in self.ducks.values() if not duck.away]


def of_slots(thing) -> dict:
    return {name: getattr(thing, name) for name in thing.__slots__}


class Row:
    """Things from left to right, so that who is near is found without a look at all of them.

    A player sees more than half of the pond: squares, of which each look takes most, cost more than
    to look at everything.
    """

    def __init__(self, things: Iterable) -> None:
        self._things = sorted(things, key=_X)
        self._places = [thing.x for thing in self._things]

    def near(self, x: float, y: float, reach: float) -> list:
        """Return what is at most ``reach`` to the side, above or below."""
        begin = bisect_left(self._places, x - reach)
        end = bisect_right(self._places, x + reach)
        top, bottom = y - reach, y + reach
        return [thing for thing in self._things[begin:end] if top <= thing.y <= bottom]


def rules() -> dict:
    """Return the numbers that a page needs to reckon as the server does."""
    return {
        "tick_hz": TICK_HZ,
        "width": WIDTH,
        "height": HEIGHT,
        "duck_radius": DUCK_RADIUS,
        "push": PUSH,
        "drag": DRAG,
        "top_speed": TOP_SPEED,
        "sight": SIGHT,
    }


def swim(x, y, vx, vy, dx, dy):
    """Return place and speed after one tick of pushing towards ``dx, dy``.

    However long that direction is, it counts as 1 at most.
    """
    length = max(1.0, math.hypot(dx, dy))
    vx = (vx + dx / length * PUSH * STEP_S) * DRAG
    vy = (vy + dy / length * PUSH * STEP_S) * DRAG
    speed = math.hypot(vx, vy)
    if speed > TOP_SPEED:
        vx, vy = vx / speed * TOP_SPEED, vy / speed * TOP_SPEED
    x, y = x + vx * STEP_S, y + vy * STEP_S
    if not DUCK_RADIUS <= x <= WIDTH - DUCK_RADIUS:
        x, vx = min(max(x, DUCK_RADIUS), WIDTH - DUCK_RADIUS), 0.0
    if not DUCK_RADIUS <= y <= HEIGHT - DUCK_RADIUS:
        y, vy = min(max(y, DUCK_RADIUS), HEIGHT - DUCK_RADIUS), 0.0
    return x, y, vx, vy


def join(world: World, person: dict, channel: str, since: float, chance: Random) -> str | None:
    """Let a connection steer its user's duck; return the connection that may no longer.

    That is the one that steered until now, or this one, if a newer one of the same user does.
    """
    duck = world.ducks.get(person["id"])
    if duck is None:
        duck = world.ducks[person["id"]] = Duck(
            id=person["id"],
            name=person["name"],
            color=person["color"],
            x=chance.uniform(WIDTH / 2 - START, WIDTH / 2 + START),
            y=chance.uniform(HEIGHT / 2 - START, HEIGHT / 2 + START),
            angle=chance.uniform(-math.pi, math.pi),
        )
    elif (
        duck.channel != channel
        and not duck.away
        and (since, channel)
        < (
            duck.since,
            duck.channel,
        )
    ):
        return channel
    former = None
    if duck.channel != channel:
        if duck.channel and not duck.away:
            former = duck.channel
        # Another connection counts its inputs anew.
        duck.taken, duck.refused = 0, 0
        duck.inputs.clear()
    duck.name, duck.color = person["name"], person["color"]
    duck.channel, duck.since = channel, since
    duck.away = duck.silent = 0
    return former


def leave(world: World, user: int, channel: str) -> None:
    """Keep the place of who dropped, for a while."""
    duck = world.ducks.get(user)
    if duck is not None and duck.channel == channel and not duck.away:
        duck.away = 1
        duck.vx = duck.vy = 0.0
        duck.inputs.clear()


def steer(world: World, user: int, channel: str, number: int, dx: float, dy: float) -> bool:
    """Let an input wait for its tick; return False if it is not taken.

    Inputs of one connection have growing numbers: one that comes twice counts once.
    """
    duck = world.ducks.get(user)
    if duck is None or duck.channel != channel or duck.away:
        return False
    newest = duck.inputs[-1][0] if duck.inputs else duck.taken
    if number <= newest or len(duck.inputs) >= WAITING:
        duck.refused += 1
        return False
    duck.silent = 0
    duck.inputs.append((number, dx, dy))
    return True


def step(world: World, chance: Random) -> bool:
    """Go on by one tick; return whether the scores, or who is there, have changed."""
    world.tick += 1
    for duck in world.ducks.values():
        _move(duck)
    row = Row(world.ducks.values())
    for duck in world.ducks.values():
        for other in row.near(duck.x, duck.y, 2 * DUCK_RADIUS):
            if duck.id < other.id:
                _bump(duck, other)
    changed = _eat(world)
    while len(world.grains) < GRAINS:
        _grow(world, chance)
    return _forget(world) or changed


def _move(duck: Duck) -> None:
    if not duck.inputs:
        if duck.late < LATE and not duck.away:
            # Its next input may be on its way: the step is kept for it.
            duck.late += 1
        else:
            duck.x, duck.y, duck.vx, duck.vy = swim(duck.x, duck.y, duck.vx, duck.vy, 0, 0)
        return
    steps = 1
    if len(duck.inputs) > 2 and duck.late:
        duck.late -= 1
        steps = 2
    while len(duck.inputs) > QUEUE:
        # Nobody wants to steer half a second ago: what can't be made up for is left out.
        duck.taken = duck.inputs.popleft()[0]
    for _ in range(steps):
        number, dx, dy = duck.inputs.popleft()
        duck.x, duck.y, duck.vx, duck.vy = swim(duck.x, duck.y, duck.vx, duck.vy, dx, dy)
        duck.taken = number
        if dx or dy:
            duck.angle = math.atan2(dy, dx)


def _bump(one: Duck, other: Duck) -> None:
    """Push two ducks apart that are in one place, as boats do."""
    dx, dy = other.x - one.x, other.y - one.y
    distance = math.hypot(dx, dy)
    overlap = 2 * DUCK_RADIUS - distance
    if overlap <= 0:
        return
    nx, ny = (dx / distance, dy / distance) if distance else (1.0, 0.0)
    closing = max(0.0, (one.vx - other.vx) * nx + (one.vy - other.vy) * ny)
    # What the one has of speed towards the other changes hands, and a little on top.
    shove = closing + (BOUNCE if closing > 40 else 0)
    for duck, sign in ((one, -1), (other, 1)):
        duck.vx += sign * nx * shove
        duck.vy += sign * ny * shove
        duck.x = min(max(duck.x + sign * nx * overlap / 2, DUCK_RADIUS), WIDTH - DUCK_RADIUS)
        duck.y = min(max(duck.y + sign * ny * overlap / 2, DUCK_RADIUS), HEIGHT - DUCK_RADIUS)


def _eat(world: World) -> bool:
    row = Row(world.grains.values())
    reach = DUCK_RADIUS + GRAIN_RADIUS
    eaten = False
    for duck in world.ducks.values():
        if duck.away:
            continue
        for grain in row.near(duck.x, duck.y, reach):
            close = math.hypot(grain.x - duck.x, grain.y - duck.y) <= reach
            if close and world.grains.pop(grain.id, None):
                duck.score += grain.worth
                eaten = True
    return eaten


def _grow(world: World, chance: Random) -> None:
    world.last_grain += 1
    worth = 1 if chance.randrange(SACK_EVERY) else SACK_WORTH
    x, y = chance.uniform(30, WIDTH - 30), chance.uniform(30, HEIGHT - 30)
    world.grains[world.last_grain] = Grain(world.last_grain, x, y, worth)


def _forget(world: World) -> bool:
    """Let go of who has been away for too long."""
    for duck in world.ducks.values():
        if duck.away:
            duck.away += 1
    gone = [duck.id for duck in world.ducks.values() if duck.away > AWAY_TICKS]
    for each in gone:
        del world.ducks[each]
    return bool(gone)


def near(duck: Duck, ducks: Row, grains: Row) -> tuple[list[Duck], list[Grain]]:
    """Return the other ducks and the grains that ``duck`` can see."""
    others = [each for each in ducks.near(duck.x, duck.y, SIGHT) if each.id != duck.id]
    if len(others) > NEAREST:
        others.sort(key=lambda each: math.hypot(each.x - duck.x, each.y - duck.y))
    return others[:NEAREST], grains.near(duck.x, duck.y, SIGHT)
