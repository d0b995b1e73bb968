import asyncio
import functools

import pytest

from headrace.utils import await_many_dispatch, name_that_thing

# Names


def a_function(): ...


@functools.wraps(a_function)
def wrapped(): ...


class Thing:
    def method(self): ...

    @classmethod
    def maker(cls): ...

    @staticmethod
    def helper(): ...


@pytest.mark.parametrize(
    ("thing", "name"),
    [
        (Thing, "tests.test_utils.Thing"),
        (Thing(), "tests.test_utils.Thing"),
        (Thing().method, "tests.test_utils.Thing.method"),
        (Thing.method, "tests.test_utils.method"),
        (Thing.maker, "tests.test_utils.Thing"),
        (Thing.helper, "tests.test_utils.helper"),
        (a_function, "tests.test_utils.a_function"),
        (wrapped, "tests.test_utils.a_function"),
        (functools.partial(a_function), "functools.partial"),
        (str, "builtins.str"),
        (7, "builtins.int"),
        (None, "builtins.NoneType"),
    ],
)
def test_things_have_names(thing, name):
    assert name_that_thing(thing) == name


# Many sources


class Dispatching:
    """``await_many_dispatch`` over queues, in a task, with what it dispatched."""

    def __init__(self, *sources, handle=None):
        self.seen = []
        self.begun = asyncio.Event()
        self.handle = handle
        self.task = asyncio.create_task(await_many_dispatch(sources, self.dispatch))

    async def dispatch(self, value):
        self.seen.append(value)
        self.begun.set()
        if self.handle is not None:
            await self.handle(value)

    async def saw(self, count):
        async with asyncio.timeout(5):
            while len(self.seen) < count:
                self.begun.clear()
                await self.begun.wait()
        return self.seen

    async def stop(self):
        self.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await self.task


def only_this_task():
    return asyncio.all_tasks() == {asyncio.current_task()}


async def test_results_are_dispatched_as_they_come():
    first, second = asyncio.Queue(), asyncio.Queue()
    dispatching = Dispatching(first.get, second.get)
    second.put_nowait("b1")
    assert await dispatching.saw(1) == ["b1"]
    first.put_nowait("a1")
    first.put_nowait("a2")
    assert await dispatching.saw(3) == ["b1", "a1", "a2"]
    await dispatching.stop()
    assert only_this_task()


async def test_a_source_is_asked_again_only_after_its_result_was_dispatched():
    asked = 0
    gate = asyncio.Event()

    async def source():
        nonlocal asked
        asked += 1
        return asked

    async def handle(value):
        if value == 2:
            await gate.wait()

    dispatching = Dispatching(source, handle=handle)
    assert await dispatching.saw(2) == [1, 2]
    await asyncio.sleep(0)
    assert asked == 2
    await dispatching.stop()


@pytest.mark.parametrize("failing", ["source", "dispatch"])
async def test_an_error_ends_it_and_cancels_the_rest(failing):
    cancelled = asyncio.Event()

    async def never():
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async def source():
        await asyncio.sleep(0)
        if failing == "source":
            raise LookupError(failing)

    async def handle(value):
        raise LookupError(failing)

    dispatching = Dispatching(never, source, handle=handle)
    with pytest.raises(LookupError, match=failing):
        await dispatching.task
    assert cancelled.is_set()
    assert only_this_task()


async def test_a_source_that_can_not_even_be_called():
    async def never():
        await asyncio.Event().wait()

    def broken():
        raise LookupError("broken")

    dispatching = Dispatching(never, broken)
    with pytest.raises(LookupError):
        await dispatching.task
    assert only_this_task()


async def test_what_had_come_before_a_cancellation_is_dispatched():
    busy, queue = asyncio.Queue(), asyncio.Queue()
    gate = asyncio.Event()

    async def handle(value):
        if value == "busy":
            await gate.wait()

    dispatching = Dispatching(busy.get, queue.get, handle=handle)
    busy.put_nowait("busy")
    await dispatching.saw(1)
    queue.put_nowait("in time")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert queue.empty()
    await dispatching.stop()
    assert dispatching.seen == ["busy", "in time"], "and the interrupted one not twice"
    queue.put_nowait("too late")
    assert queue.qsize() == 1


async def test_a_source_that_fails_on_its_way_out_hides_nothing():
    async def unruly():
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise LookupError from None

    dispatching = Dispatching(unruly)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await dispatching.stop()
    assert dispatching.seen == []
