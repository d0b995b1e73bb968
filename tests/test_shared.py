"""A task that connections share, and who holds it."""

import asyncio
import contextvars
import logging

import pytest

from headrace.shared import SharedTask

PATIENCE_S = 10
who = contextvars.ContextVar("who", default="nobody")


class Work:
    """What runs: it says when it begins, and ends only when it is told to."""

    def __init__(self):
        self.begun = self.ended = self.at_once = 0
        self.free = asyncio.Event()
        self.change = asyncio.Condition()
        self.errors = []
        self.slow_end = None

    async def __call__(self):
        await self._count(begun=1)
        assert self.begun - self.ended == 1, "one at a time"
        try:
            if self.errors:
                raise self.errors.pop(0)
            await self.free.wait()
        finally:
            if self.slow_end is not None:
                await self.slow_end.wait()
            await self._count(ended=1)

    async def _count(self, begun=0, ended=0):
        async with self.change:
            self.begun += begun
            self.ended += ended
            self.change.notify_all()

    async def until(self, begun, ended=0):
        async with asyncio.timeout(PATIENCE_S), self.change:
            await self.change.wait_for(lambda: (self.begun, self.ended) == (begun, ended))


async def test_it_runs_from_the_first_holder_to_the_last():
    work = Work()
    shared = SharedTask(work)
    assert not shared.running
    async with shared:
        await work.until(1)
        async with shared as same:
            assert same is shared
            assert shared.holders == 2
        assert shared.running
    # Whoever lets go last has waited for the end.
    assert (work.begun, work.ended, shared.holders, shared.running) == (1, 1, 0, False)
    async with shared:
        await work.until(2, 1)


async def test_it_is_in_nobodys_context():
    seen = []

    async def look():
        seen.append(who.get())

    who.set("maya")
    async with SharedTask(look):
        await asyncio.sleep(0)
    assert seen == ["nobody"]


async def test_whoever_comes_while_it_ends_gets_another_after_that():
    work = Work()
    work.slow_end = asyncio.Event()
    shared = SharedTask(work)
    await shared.enter()
    await work.until(1)
    leaving = asyncio.create_task(shared.leave())
    await asyncio.sleep(0)
    assert not shared.running
    await shared.enter()
    assert shared.running
    assert not leaving.done()
    work.slow_end.set()
    await leaving
    await work.until(2, 1)
    await shared.leave()
    assert work.ended == 2


async def test_one_that_is_left_before_it_has_begun_lets_nobody_past_the_one_that_ends():
    work = Work()
    work.slow_end = asyncio.Event()
    shared = SharedTask(work)
    await shared.enter()
    await work.until(1)
    leaving = [asyncio.create_task(shared.leave())]
    await asyncio.sleep(0)
    await shared.enter()
    leaving.append(asyncio.create_task(shared.leave()))
    await asyncio.sleep(0)
    await shared.enter()
    for _ in range(3):
        await asyncio.sleep(0)
    assert (work.begun, work.ended) == (1, 0)
    assert not any(task.done() for task in leaving)
    work.slow_end.set()
    await asyncio.gather(*leaving)
    await work.until(2, 1)
    await shared.leave()


async def test_one_that_lingers_is_found_by_who_comes_soon():
    work = Work()
    shared = SharedTask(work, linger_s=60)
    async with shared:
        await work.until(1)
    assert shared.running
    async with shared:
        assert work.begun == 1
    shared = SharedTask(work := Work(), linger_s=0.01)
    async with shared:
        await work.until(1)
    await work.until(1, 1)
    assert not shared.running


async def test_one_that_fails_says_so_and_begins_again(caplog):
    work = Work()
    # That something else was cancelled is no reason to end either.
    work.errors = [ValueError("the weir"), asyncio.CancelledError()]
    async with SharedTask(work, retry_s=0.01):
        await work.until(3, 2)
    assert work.ended == 3
    first, second = caplog.records
    assert first.levelno == second.levelno == logging.ERROR
    assert "the weir" in first.exc_text
    assert first.getMessage().endswith("failed: again in 0.01 s")
    assert second.getMessage().endswith("failed: again in 0.02 s")


async def test_one_that_returns_is_begun_by_the_next_who_comes():
    work = Work()
    work.free.set()
    shared = SharedTask(work)
    async with shared:
        await work.until(1, 1)
        await asyncio.sleep(0)
        assert not shared.running
        async with shared:
            await work.until(2, 2)


async def test_nobody_can_leave_who_has_not_entered():
    shared = SharedTask(Work())
    with pytest.raises(RuntimeError, match="nobody holds this task"):
        await shared.leave()


def test_what_another_loop_has_left_is_forgotten():
    async def enter():
        await shared.enter()
        assert shared.holders == 1
        assert shared.running

    async def forever():
        await asyncio.get_running_loop().create_future()

    shared = SharedTask(forever)
    for _ in range(2):
        asyncio.run(enter())
