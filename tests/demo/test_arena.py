"""The pond: its arithmetic by itself, and the served game as its players' programs meet it."""

import asyncio
import contextlib
import json
import math
import os
import shutil
import signal
import sqlite3
import struct
import sys
import time
from pathlib import Path
from random import Random
from types import SimpleNamespace

import pytest
from websockets.exceptions import ConnectionClosed

from .site import DEMO, PATIENCE_S, Site

sys.path.insert(0, str(DEMO))
from arena import wire, world
from arena.metronome import Metronome

sys.path.remove(str(DEMO))

NOBODY = {"color": "teal", "name": "Nobody"}


def pond(*places):
    """Return a world without grain, with ducks at these places."""
    made = world.World()
    for number, (x, y) in enumerate(places, 1):
        world.join(made, {"id": number, **NOBODY}, f"channel{number}", 1.0, Random(number))
        made.ducks[number].x, made.ducks[number].y = x, y
    return made


# --- The simulation ---


def test_a_duck_that_pushes_gets_fast_and_no_faster():
    made = pond((300, 500))
    duck = made.ducks[1]
    speeds = []
    for number in range(1, 61):
        assert world.steer(made, 1, "channel1", number, 1, 0)
        world.step(made, Random(1))
        speeds.append(duck.vx)
    assert speeds == sorted(speeds)
    assert 200 < speeds[-1] <= world.TOP_SPEED
    assert (duck.taken, duck.y) == (60, 500)


def test_a_longer_direction_pushes_no_harder():
    assert world.swim(500, 500, 0, 0, 1, 0) == world.swim(500, 500, 0, 0, 99, 0)


@pytest.mark.parametrize("direction", [(-1, 0), (1, 0), (0, -1), (0, 1), (0.8, 0.8)])
def test_the_banks_hold(direction):
    place = (800, 500, 0, 0)
    for _ in range(200):
        place = world.swim(*place, *direction)
    x, y, _, _ = place
    assert world.DUCK_RADIUS <= x <= world.WIDTH - world.DUCK_RADIUS
    assert world.DUCK_RADIUS <= y <= world.HEIGHT - world.DUCK_RADIUS


def test_more_inputs_than_ticks_do_not_make_a_duck_faster():
    honest, cheat = pond((300, 500)), pond((300, 500))
    number = 0
    for tick in range(1, 41):
        world.steer(honest, 1, "channel1", tick, 1, 0)
        for _ in range(50):
            number += 1
            world.steer(cheat, 1, "channel1", number, 1, 0)
        world.step(honest, Random(1))
        world.step(cheat, Random(1))
    ahead = cheat.ducks[1].x - honest.ducks[1].x
    assert ahead <= world.TOP_SPEED * world.LATE * world.STEP_S
    assert cheat.ducks[1].refused > 1000


def test_inputs_that_come_late_are_made_up_for():
    steady, late = pond((300, 500)), pond((300, 500))
    for tick in range(1, 25):
        world.steer(steady, 1, "channel1", tick, 1, 0)
        if tick not in {10, 11}:
            for number in {12: (10, 11, 12)}.get(tick, (tick,)):
                world.steer(late, 1, "channel1", number, 1, 0)
        world.step(steady, Random(1))
        world.step(late, Random(1))
    assert late.ducks[1].taken >= 22
    assert steady.ducks[1].x - late.ducks[1].x <= world.TOP_SPEED * 2 * world.STEP_S


def test_an_input_counts_once_and_only_from_who_steers():
    made = pond((300, 500))
    assert world.steer(made, 1, "channel1", 5, 1, 0)
    assert not world.steer(made, 1, "channel1", 5, 1, 0)
    assert not world.steer(made, 1, "channel1", 4, 1, 0)
    assert not world.steer(made, 1, "channel2", 6, 1, 0)
    assert not world.steer(made, 2, "channel1", 6, 1, 0)


def test_ducks_do_not_stay_in_one_another_and_a_bump_is_felt():
    made = pond((500, 500), (540, 500))
    made.ducks[1].vx = 200
    world.step(made, Random(1))
    one, other = made.ducks[1], made.ducks[2]
    assert other.vx > 0 > one.vx
    assert math.hypot(one.x - other.x, one.y - other.y) >= 2 * world.DUCK_RADIUS - 1e-6


def test_ducks_in_the_very_same_place_part():
    made = pond((500, 500), (500, 500))
    world.step(made, Random(1))
    assert made.ducks[2].x - made.ducks[1].x == pytest.approx(2 * world.DUCK_RADIUS)


def test_grain_is_eaten_once_and_grows_again():
    made = pond((500, 500))
    made.grains = {1: world.Grain(1, 505, 500), 2: world.Grain(2, 495, 500, world.SACK_WORTH)}
    made.last_grain = 2
    assert world.step(made, Random(3))
    assert made.ducks[1].score == 1 + world.SACK_WORTH
    assert len(made.grains) == world.GRAINS
    assert not {1, 2} & made.grains.keys()


def test_a_player_is_told_what_is_near_and_no_more():
    made = pond((500, 500), (500 + world.SIGHT, 500), (501 + world.SIGHT, 500))
    made.grains = {1: world.Grain(1, 100, 500), 2: world.Grain(2, 10, 500)}
    ducks, grains = world.Row(made.ducks.values()), world.Row(made.grains.values())
    others, food = world.near(made.ducks[1], ducks, grains)
    assert ([each.id for each in others], [each.id for each in food]) == ([2], [1])


def test_of_a_crowd_the_nearest_are_told():
    made = pond((500, 500), *((510 + n, 500) for n in range(80)))
    others, _ = world.near(made.ducks[1], world.Row(made.ducks.values()), world.Row([]))
    assert {each.id for each in others} == set(range(2, 2 + world.NEAREST))


def test_the_row_finds_what_looking_at_everything_finds():
    chance = Random(7)
    grains = [world.Grain(n, chance.uniform(0, 1600), chance.uniform(0, 1100)) for n in range(300)]
    row = world.Row(grains)
    for grain in grains[:40]:
        reach = chance.uniform(0, 500)
        close = {
            each.id
            for each in grains
            if abs(each.x - grain.x) <= reach and abs(each.y - grain.y) <= reach
        }
        assert {each.id for each in row.near(grain.x, grain.y, reach)} == close


def test_a_place_is_kept_for_a_while():
    made = pond((500, 500))
    made.grains = {}
    made.ducks[1].score = 7
    world.leave(made, 1, "channel1")
    for _ in range(5 * world.TICK_HZ):
        world.step(made, Random(1))
    world.join(made, {"id": 1, **NOBODY}, "another", 2.0, Random(1))
    duck = made.ducks[1]
    assert (duck.score >= 7, duck.x, duck.away, duck.channel) == (True, 500, 0, "another")
    world.leave(made, 1, "another")
    for _ in range(world.AWAY_TICKS):
        world.step(made, Random(1))
    assert made.ducks == {}


def test_the_newest_connection_of_a_player_steers():
    made = pond((500, 500))
    person = {"id": 1, **NOBODY}
    assert world.join(made, person, "newer", 2.0, Random(1)) == "channel1"
    assert world.join(made, person, "channel1", 1.0, Random(1)) == "channel1"
    assert world.join(made, person, "newer", 2.0, Random(1)) is None
    assert made.ducks[1].channel == "newer"


def test_a_snapshot_is_gone_on_from():
    made = pond((500, 500), (700, 700))
    world.steer(made, 1, "channel1", 3, 1, 0)
    world.step(made, Random(1))
    again = world.World.from_json(json.loads(json.dumps(made.to_json())), idle_ticks=30)
    assert again.tick == made.tick + 30
    assert again.grains == made.grains
    duck, former = again.ducks[1], made.ducks[1]
    assert (duck.x, duck.vx, duck.taken, duck.away) == (former.x, former.vx, 3, 30)
    assert world.World.from_json(made.to_json(), world.AWAY_TICKS + 1).ducks == {}


# --- Bytes, and the beat ---


def test_a_frame_is_as_it_is_documented():
    made = pond((500, 400), (600.5, 300.25))
    made.ducks[2].away = 1
    frames = wire.Frames(4, 9)
    in_sight = [made.ducks[2]], [world.Grain(70_000, 10.5, 20, 5)]
    seen = frames.of(made.ducks[1], *in_sight)
    assert frames.of(made.ducks[1], *in_sight) == seen, "packed once, and seen by all"
    frame = read_frame(seen)
    assert (frame.reign, frame.tick, frame.taken, frame.x, frame.y) == (4, 9, 0, 500, 400)
    assert frame.ducks == {2: (600.5, 300.25, True)}
    assert frame.grains == {70_000: (10.5, 20, 5)}
    assert len(seen) == 39 + 10 + 2 + 9


@pytest.mark.parametrize("data", [b"", b"\1", bytes(7), bytes(8), b"\2" + bytes(6), b"\1" * 9])
def test_what_is_no_input_is_refused(data):
    with pytest.raises(wire.BadFrame, match="7 bytes"):
        wire.read_input(data)


def test_the_beat_does_not_drift():
    beat = Metronome(20, start=100.0)
    now, beats = 100.0, 0
    while now < 160.0:
        beats += beat.due(now)
        now += beat.wait(now) + 0.003  # each wait ends a little late
    assert beats in {1199, 1200}
    assert beat.skipped == 0


def test_a_standstill_is_not_made_up_for():
    beat = Metronome(20, start=0.0)
    assert beat.due(10.0) == 5
    assert beat.skipped == 195
    assert beat.due(10.01) == 0
    assert beat.due(10.051) == 1


# --- The served game ---

served = pytest.mark.asyncio(loop_scope="session")


def read_frame(data):
    head = struct.unpack_from("<BIIIfffffIH", data)
    assert head[0] == wire.FRAME
    at, ducks, grains = 39, {}, {}
    for _ in range(head[10]):
        who, x, y, _, away = struct.unpack_from("<IHHBB", data, at)
        ducks[who], at = (x / 32, y / 32, bool(away)), at + 10
    (left,) = struct.unpack_from("<H", data, at)
    at += 2
    for _ in range(left):
        which, x, y, worth = struct.unpack_from("<IHHB", data, at)
        grains[which], at = (x / 32, y / 32, worth), at + 9
    assert at == len(data)
    return SimpleNamespace(
        reign=head[1],
        tick=head[2],
        taken=head[3],
        x=head[4],
        y=head[5],
        score=head[9],
        ducks=ducks,
        grains=grains,
    )


class Swimmer:
    """A player's page, without the page."""

    def __init__(self, socket):
        self.socket = socket
        self.number = 0
        self.heard = []
        self.frame = None

    async def recv(self):
        """Return the next frame, or None for what was text."""
        data = await self.socket.recv()
        if isinstance(data, str):
            self.heard.append(json.loads(data))
            return None
        self.frame = read_frame(data)
        return self.frame

    async def until(self, is_it, patience_s=PATIENCE_S):
        async with asyncio.timeout(patience_s):
            while True:
                frame = await self.recv()
                if frame and is_it(frame):
                    return frame

    async def told(self, kind, is_it=lambda event: True):
        async with asyncio.timeout(PATIENCE_S):
            while True:
                for event in self.heard:
                    if event["type"] == kind and is_it(event):
                        return event
                await self.recv()

    async def push(self, dx, dy):
        self.number += 1
        await self.socket.send(struct.pack("<BIbb", 1, self.number, dx, dy))

    async def swim(self, dx, dy, ticks):
        """Push for so many ticks, one input for each, and return the frame that has the last."""
        for _ in range(ticks):
            tick = self.frame.tick if self.frame else -1
            await self.push(dx, dy)
            await self.until(lambda frame, tick=tick: frame.tick > tick)
        return await self.until(lambda frame: frame.taken == self.number)

    async def rest(self):
        """Return the first frame in which the duck lies still: it glides on for a while."""
        since = self.frame
        while True:
            frame = await self.until(lambda frame: True)
            if math.dist((frame.x, frame.y), (since.x, since.y)) > 1:
                since = frame
            elif frame.tick - since.tick > 2 * world.LATE:
                return frame

    async def closed(self):
        async with asyncio.timeout(PATIENCE_S):
            with contextlib.suppress(ConnectionClosed):
                while True:
                    await self.recv()
        return self.socket.close_code


@contextlib.asynccontextmanager
async def swimmer(visitor):
    async with visitor.websocket("/ws/arena/") as socket:
        player = Swimmer(socket)
        await player.told("welcome")
        player.you = player.heard[0]["you"]
        await player.until(lambda frame: True)
        yield player


@served
async def test_the_page_is_there(site):
    maya = await site.visitor().log_in("maya")
    page = await maya.get("/arena/")
    assert 'id="pond"' in page.text
    assert page.text.count("/source/arena/") == 10


@served
async def test_who_is_not_logged_in_is_told(site):
    async with site.visitor().websocket("/ws/arena/") as socket:
        assert json.loads(await socket.recv())["code"] == "not_logged_in"
        assert await Swimmer(socket).closed() == 4401


@served
async def test_two_play_and_see_each_other(site):
    maya = await site.visitor().log_in("maya")
    jonas = await site.visitor().log_in("jonas")
    async with swimmer(maya) as one, swimmer(jonas) as other:
        event = await one.told("scores", lambda event: len(event["people"]) >= 2)
        names = {person["id"]: person["name"] for person in event["people"]}
        assert names[one.you] == "Maya Okafor"
        assert names[other.you] == "Jonas Lindqvist"
        before = one.frame
        after = await one.swim(-127 if before.x > 800 else 127, 0, 8)
        assert abs(after.x - before.x) > 25
        # All ducks begin in the middle, each in sight of all.
        seen = await other.until(lambda frame: frame.tick >= after.tick)
        at = (await one.until(lambda frame: frame.tick >= seen.tick)).x
        assert seen.ducks[one.you][0] == pytest.approx(at, abs=20)
        # The beat: frames come at the rate of the ticks.
        start, began = other.frame.tick, time.monotonic()
        await other.until(lambda frame: frame.tick >= start + 20)
        assert 0.6 < time.monotonic() - began < 4, "a second, and the machine may be busy"


@served
async def test_grain_counts_for_who_eats_it_and_all_are_told(site):
    maya = await site.visitor().log_in("maya")
    jonas = await site.visitor().log_in("jonas")
    async with swimmer(maya) as one, swimmer(jonas) as other:
        # A pond has no grain before its first tick.
        before = (await one.until(lambda frame: frame.grains)).score
        async with asyncio.timeout(PATIENCE_S):
            while (frame := one.frame).score == before:
                x, y, _ = min(
                    frame.grains.values(),
                    key=lambda grain: math.dist(grain[:2], (frame.x, frame.y)),
                )
                angle = math.atan2(y - frame.y, x - frame.x)
                await one.swim(round(127 * math.cos(angle)), round(127 * math.sin(angle)), 1)

        def has_it(event):
            scores = {person["id"]: person["score"] for person in event["people"]}
            return scores.get(one.you, 0) >= frame.score

        await other.told("scores", has_it)


@served
async def test_a_hundred_inputs_at_once_get_no_further_than_one_a_tick(site):
    maya = await site.visitor().log_in("maya")
    async with swimmer(maya) as one:
        before = one.frame
        away = -127 if before.x > world.WIDTH / 2 else 127
        for _ in range(100):
            await one.push(away, 0)
        after = await one.until(lambda frame: frame.tick >= before.tick + 8)
        ticks = after.tick - before.tick + world.LATE
        assert 0 < abs(after.x - before.x) <= world.TOP_SPEED * ticks * world.STEP_S
        for _ in range(250):
            await one.push(away, 0)
        assert (await one.told("error"))["code"] == "rate"
        assert await one.closed() == 4429


@served
@pytest.mark.parametrize("data", [b"", b"\1\0\0", bytes(4096), b"\1" + bytes(10)])
async def test_bytes_that_make_no_sense_are_borne_twice(site, data):
    maya = await site.visitor().log_in("maya")
    async with swimmer(maya) as one:
        for _ in range(3):
            await one.socket.send(data)
        assert await one.closed() == 4400
        errors = [event for event in one.heard if event["type"] == "error"]
        assert [error["code"] for error in errors] == ["bad_frame"] * 3
        assert "an input has 7 bytes" in errors[0]["text"]


@served
async def test_words_that_make_no_sense_are_answered(site):
    maya = await site.visitor().log_in("maya")
    async with swimmer(maya) as one:
        await one.socket.send('{"type": "swim", "user": 1, "x": 5}')
        assert (await one.told("error"))["code"] == "unknown_command"
        await one.socket.send('{"type": "ping"}')
        await one.told("pong")


@served
async def test_who_drops_comes_back_to_their_place(site):
    maya = await site.visitor().log_in("maya")
    jonas = await site.visitor().log_in("jonas")
    async with swimmer(jonas) as other:
        async with swimmer(maya) as one:
            last = await one.swim(0, 127 if one.frame.y < world.HEIGHT / 2 else -127, 10)
            one.socket.transport.abort()
        gone = await other.until(lambda frame: frame.ducks.get(one.you, (0, 0, False))[2])
        x, y, _ = gone.ducks[one.you]
        async with swimmer(maya) as one:
            assert one.frame.taken == 0
            assert math.dist((one.frame.x, one.frame.y), (x, y)) < 100
            assert one.frame.score >= last.score
            await other.until(lambda frame: not frame.ducks[one.you][2])


@served
async def test_the_tab_that_was_opened_last_steers(site):
    maya = await site.visitor().log_in("maya")
    async with swimmer(maya) as one, swimmer(maya) as other:
        assert await one.closed() == 4410
        await other.swim(127, 0, 2)


@served
async def test_nothing_runs_when_nobody_plays(own_site):
    maya = await own_site.visitor().log_in("maya")
    async with swimmer(maya) as one:
        first = one.frame
    async with asyncio.timeout(PATIENCE_S):
        while lease(own_site.data).until:  # noqa: ASYNC110 - another process gives it back
            await asyncio.sleep(0.01)
    row = lease(own_site.data)
    async with swimmer(maya) as one:
        assert one.frame.reign == row.reign + 1 == first.reign + 1
        assert one.frame.tick >= row.tick


# --- Several workers ---


def lease(data):
    with contextlib.closing(sqlite3.connect(data / "db.sqlite3", timeout=10)) as database:
        reign, holder, until, kept = database.execute(
            "SELECT reign, holder, until, world FROM arena_pond"
        ).fetchone()
    pid = int(holder.rpartition(":")[2])
    return SimpleNamespace(
        reign=reign, pid=pid, until=until, tick=kept and json.loads(kept)["tick"]
    )


def worker_of(socket):
    """Return the process at the other end of a connection on this machine, as /proc has it."""
    here, there = (socket.transport.get_extra_info(which)[1] for which in ("sockname", "peername"))
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        ports = [int(fields[column].split(":")[1], 16) for column in (1, 2)]
        if ports == [there, here]:
            name = f"socket:[{fields[9]}]"
            for path in Path("/proc").glob("[0-9]*/fd/*"):
                with contextlib.suppress(OSError):
                    if str(path.readlink()) == name:
                        return int(path.parts[2])
    raise LookupError(f"no process has the connection from port {here}")


@served
async def test_two_workers_share_a_pond_that_outlives_its_owner(seeded, tmp_path, monkeypatch):
    monkeypatch.setenv("DEMO_LAYER", "local")
    site = Site(shutil.copytree(seeded, tmp_path / "data"), "--workers", "2")
    await site.start()
    try:
        maya = await site.visitor().log_in("maya")
        jonas = await site.visitor().log_in("jonas")
        async with contextlib.AsyncExitStack() as stack:
            one = await stack.enter_async_context(swimmer(maya))
            home = worker_of(one.socket)
            for _ in range(60):
                other = await stack.enter_async_context(swimmer(jonas))
                if worker_of(other.socket) != home:
                    break
            else:
                pytest.fail("all connections went to one worker")

            # What a player of the one does, a player of the other sees.
            before = other.frame.y
            await other.swim(0, 127 if before < world.HEIGHT / 2 else -127, 6)
            there = await other.rest()
            assert abs(there.y - before) > 40
            await one.until(
                lambda frame: abs(frame.ducks.get(other.you, (0, 0, True))[1] - there.y) < 20
            )

            # The owner dies, and the other process goes on from there.
            owner = lease(site.data)
            lost, left, visitor = (one, other, maya) if owner.pid == home else (other, one, jonas)
            assert owner.pid == worker_of(lost.socket)
            last, place = await left.until(lambda frame: frame.reign == owner.reign), lost.frame
            os.kill(owner.pid, signal.SIGKILL)
            began = time.monotonic()
            after = await left.until(lambda frame: frame.reign > owner.reign)
            assert time.monotonic() - began < 8, "a second or two, and the machine may be busy"
            assert lease(site.data).pid == worker_of(left.socket)
            assert after.score >= last.score - world.SACK_WORTH
            assert math.dist((after.x, after.y), (last.x, last.y)) < 150
            await left.swim(127 if after.x < world.WIDTH / 2 else -127, 0, 4)

            # Who was with the dead one finds the place again.
            again = await stack.enter_async_context(swimmer(visitor))
            assert math.dist((again.frame.x, again.frame.y), (place.x, place.y)) < 150
            await left.until(lambda frame: frame.ducks.get(again.you, (0, 0, True))[2] is False)
    finally:
        await site.stop()
    assert "the pond stopped" not in site.log.read_text()
