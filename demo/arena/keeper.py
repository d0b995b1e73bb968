"""Who runs the pond: one process of all that have players, by a lease in the database.

Every process with players has a :class:`Keeper` that looks for the lease. The one that has it
ticks, hears what players do by a channel of its own in the group ``KEEPER``, sends each its frames,
and renews the lease with a snapshot. When it ends it gives the lease back; when it dies, the lease
runs out and another goes on from the snapshot, ``LEASE_S + LOOK_S`` later at most. It stops by its
own clock before the lease has run out, and frames name their reign, so that two are never seen.

Nobody has to be told who it is. Players who joined while nobody ran the pond are called when
somebody does, and every now and then: who does not answer has dropped.
"""

import asyncio
import contextlib
import logging
import time
from random import Random

from django.db import DatabaseError

from arena import world as pond
from arena.groups import KEEPER, PLAYERS
from arena.metronome import Metronome
from arena.models import LEASE_S, Pond
from arena.wire import Frames
from headrace.db import database_sync_to_async
from headrace.exceptions import ChannelFull
from headrace.layers import get_channel_layer
from headrace.shared import SharedTask
from live.events import for_browsers

__all__ = ["ELSEWHERE", "Keeper"]

logger = logging.getLogger(__name__)

LOOK_S = 0.25
RENEW_S = 0.4
CALL_TICKS = 2 * pond.TICK_HZ
SILENT_TICKS = 3 * CALL_TICKS
SCORES_TICKS = pond.TICK_HZ // 2

#: The close code for a page whose player has opened another.
ELSEWHERE = 4410


class Keeper:
    """The pond as one process has it: run here, or elsewhere."""

    def __init__(self) -> None:
        #: The pond, or the look for it, for as long as this process has players.
        self.keeping = SharedTask(self._run)
        self._reign: Reign | None = None

    async def tell(self, event: dict) -> None:
        """Tell the one who runs the pond what a player does, wherever that is."""
        if self._reign is not None:
            await self._reign.hear(event)
        else:
            await get_channel_layer().group_send(KEEPER, event)

    async def _run(self) -> None:
        while True:
            try:
                before = asyncio.get_running_loop().time()
                taken = await database_sync_to_async(Pond.take)(time.time())
            except DatabaseError:
                logger.warning("the lease of the pond can't be asked for", exc_info=True)
                taken = None
            if taken is None:
                await asyncio.sleep(LOOK_S)
                continue
            reign = self._reign = Reign(taken, before + LEASE_S)
            try:
                await reign.last()
            except Exception:
                logger.exception("the pond stopped")
                await asyncio.sleep(LOOK_S)
            finally:
                if self._reign is reign:
                    self._reign = None


class Reign:
    """The time in which this process runs the pond."""

    def __init__(self, taken: Pond, until: float) -> None:
        self.layer = get_channel_layer()
        self.number = taken.reign
        self.until = until  # on the loop's clock
        self.chance = Random()  # noqa: S311 - where grain grows is no secret
        idle = max(0, round((time.time() - taken.saved_at) * pond.TICK_HZ))
        kept = taken.world
        self.world = pond.World.from_json(kept, idle) if kept else pond.World()
        self.scores_changed = True

    async def last(self) -> None:
        """Run the pond until the lease is lost; when cancelled, give it back."""
        channel = await self.layer.new_channel("arena")
        await self.layer.group_add(KEEPER, channel)
        try:
            async with asyncio.TaskGroup() as tasks:
                beside = [
                    tasks.create_task(self._listen(channel)),
                    tasks.create_task(self._renew()),
                ]
                await self._tick()
                logger.warning("the lease of the pond has run out")
                for task in beside:
                    task.cancel()
        finally:
            await self.layer.group_discard(KEEPER, channel)
            try:
                await database_sync_to_async(Pond.release)(
                    self.number, self.world.to_json(), time.time()
                )
            except DatabaseError:
                logger.warning("the pond could not be written", exc_info=True)

    async def _listen(self, channel: str) -> None:
        while True:
            await self.hear(await self.layer.receive(channel))

    async def hear(self, event: dict) -> None:
        """Do what a player says. Who it is, its consumer says, and not the page."""
        user, channel = event["user"], event["channel"]
        match event["type"]:
            case "arena.input":
                pond.steer(self.world, user, channel, event["number"], event["dx"], event["dy"])
            case "arena.join":
                known = self.world.ducks.get(user)
                self.scores_changed |= known is None or known.away > 0 or known.channel != channel
                person, since = event["person"], event["since"]
                former = pond.join(self.world, person, channel, since, self.chance)
                if former is not None:
                    await self._send_away(former)
            case "arena.leave":
                pond.leave(self.world, user, channel)
                self.scores_changed = True

    async def _send_away(self, channel: str) -> None:
        with contextlib.suppress(ChannelFull):
            await self.layer.send(channel, {"type": "websocket.close", "code": ELSEWHERE})

    async def _renew(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(RENEW_S)
            before = loop.time()
            try:
                if not await database_sync_to_async(Pond.keep)(
                    self.number, self.world.to_json(), time.time()
                ):
                    self.until = 0.0
                    return
            except DatabaseError:
                logger.warning("the lease of the pond could not be renewed", exc_info=True)
            else:
                self.until = before + LEASE_S

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        beat = Metronome(pond.TICK_HZ, loop.time())
        await self._call()
        while loop.time() < self.until:
            for _ in range(beat.due(loop.time())):
                self.scores_changed |= pond.step(self.world, self.chance)
                await self._housekeeping()
            await self._show()
            await asyncio.sleep(beat.wait(loop.time()))

    async def _call(self) -> None:
        await self.layer.group_send(PLAYERS, {"type": "arena.call"})

    async def _housekeeping(self) -> None:
        if self.world.tick % CALL_TICKS == 0:
            await self._call()
        for duck in self.world.playing():
            duck.silent += 1
            if duck.silent > SILENT_TICKS:
                pond.leave(self.world, duck.id, duck.channel)
                self.scores_changed = True
        if self.scores_changed and self.world.tick % SCORES_TICKS == 0:
            self.scores_changed = False
            await self.layer.group_send(PLAYERS, for_browsers(self._scores()))

    def _scores(self) -> dict:
        ducks = sorted(self.world.ducks.values(), key=lambda duck: (-duck.score, duck.id))
        people = [
            {
                "id": duck.id,
                "name": duck.name,
                "color": duck.color,
                "score": duck.score,
                "away": bool(duck.away),
            }
            for duck in ducks
        ]
        return {"type": "scores", "reign": self.number, "tick": self.world.tick, "people": people}

    async def _show(self) -> None:
        """Send each player what is near it: past the consumers, straight to the sockets."""
        world = self.world
        ducks, grains = pond.Row(world.ducks.values()), pond.Row(world.grains.values())
        frames = Frames(self.number, world.tick)
        for duck in world.playing():
            seen = frames.of(duck, *pond.near(duck, ducks, grains))
            # A frame for which there is no room is no loss: the next has all of it.
            with contextlib.suppress(ChannelFull):
                await self.layer.send(duck.channel, {"type": "websocket.send", "bytes": seen})
