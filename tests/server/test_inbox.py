"""The inbox stands in for a Future: a task that waits for it behaves as with one."""

import asyncio
import contextvars
import gc
import sys

import anyio
import pytest

from headrace.server.http import Exchange
from headrace.server.inbox import Inbox, breathe
from headrace.server.turn import Turn
from headrace.server.websocket import WebSocketStream


@pytest.fixture
async def inbox():
    return Inbox(Turn(asyncio.get_running_loop()))


def put(inbox, event):
    """As the server does from inside a task, or a callback that wants no re-entry."""
    inbox._events.append(event)
    inbox.note()


def put_in_place(inbox, event):
    """As the server does from a callback of the loop."""
    inbox._events.append(event)
    inbox.resume()


async def waiting(inbox):
    while inbox._wake is None:  # noqa: ASYNC110 - there is no event to wait for
        await asyncio.sleep(0)


async def resumed(inbox):
    while inbox._noted:  # noqa: ASYNC110 - as above
        await asyncio.sleep(0)


async def test_gives_what_is_there_oldest_first(inbox):
    put(inbox, 1)
    put(inbox, 2)
    assert [await inbox.receive(), await inbox.receive()] == [1, 2]


async def test_can_be_awaited_itself(inbox):
    seen = []

    async def read():
        while True:
            seen.append(await inbox)

    task = asyncio.create_task(read())
    await waiting(inbox)
    put(inbox, 1)
    put(inbox, 2)
    await resumed(inbox)
    assert seen == [1, 2]
    inbox.note()  # with nothing to tell
    await resumed(inbox)
    put(inbox, 3)
    await resumed(inbox)
    assert seen == [1, 2, 3]
    with pytest.raises(RuntimeError, match="one task at a time"):
        await inbox
    task.cancel("enough")
    with pytest.raises(asyncio.CancelledError):
        await task
    put(inbox, 4)
    assert await inbox == 4


async def test_to_wait_for_it_makes_next_to_nothing_that_the_garbage_collector_sees():
    number = 100

    async def read(inbox):
        while True:
            await inbox

    turn = Turn(asyncio.get_running_loop())
    inboxes = [Inbox(turn) for _ in range(number)]
    tasks = [asyncio.create_task(read(inbox)) for inbox in inboxes]
    await waiting(inboxes[-1])
    made = asyncio.get_running_loop().create_future()

    def deliver():
        gc.collect()
        for inbox in inboxes:
            put_in_place(inbox, "event")
        made.set_result(len(gc.get_objects(generation=0)))

    gc.disable()
    try:
        asyncio.get_running_loop().call_soon(deliver)
        # By asyncio, for each: the method that wakes the task.
        assert await made < 1.5 * number
    finally:
        gc.enable()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def test_who_closes_a_coroutine_that_waits_calls_nothing_of_what_it_waits_for(inbox):
    ended = []

    async def read():
        try:
            await inbox
        finally:
            ended.append(sys.exc_info()[0])

    coroutine = read()
    assert coroutine.send(None) is inbox
    coroutine.close()
    assert ended == [GeneratorExit]
    for kind in (Inbox, Exchange, WebSocketStream):
        assert not hasattr(kind, "close")
        assert not hasattr(kind, "throw")


async def test_a_task_that_waits_is_resumed(inbox):
    task = asyncio.create_task(inbox.receive())
    await waiting(inbox)
    put(inbox, "event")
    assert await task == "event"


async def test_is_resumed_in_place_from_a_callback(inbox):
    seen = []

    async def read():
        while True:
            seen.append(await inbox.receive())

    task = asyncio.create_task(read())
    await waiting(inbox)
    order = []

    def deliver():
        put_in_place(inbox, "a")
        order.extend(seen)
        put_in_place(inbox, "b")
        order.extend(seen)

    done = asyncio.Event()
    asyncio.get_running_loop().call_soon(lambda: (deliver(), done.set()))
    await done.wait()
    assert order == ["a", "a", "b"]
    task.cancel()
    await asyncio.wait([task])


async def test_the_task_keeps_its_context(inbox):
    name = contextvars.ContextVar("name", default="outside")

    async def read():
        name.set("inside")
        await inbox.receive()
        return name.get(), asyncio.current_task()

    task = asyncio.create_task(read())
    await waiting(inbox)
    asyncio.get_running_loop().call_soon(put_in_place, inbox, 1)
    assert await task == ("inside", task)
    assert name.get() == "outside"


async def test_who_waits_to_be_stirred_takes_nothing(inbox):
    put(inbox, "old")
    task = asyncio.create_task(inbox.stirred())
    await waiting(inbox)
    assert not task.done(), "what waits already is no news"
    inbox.note()
    await task
    task = asyncio.create_task(inbox.stirred())
    await waiting(inbox)
    inbox.insert("new")
    await task
    assert [await inbox.receive(), await inbox.receive()] == ["old", "new"]
    task = asyncio.create_task(inbox.stirred())
    await waiting(inbox)
    with pytest.raises(RuntimeError, match="one task at a time"):
        await inbox.stirred()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


async def test_two_readers_are_one_too_many(inbox):
    task = asyncio.create_task(inbox.receive())
    await waiting(inbox)
    with pytest.raises(RuntimeError, match="one task at a time"):
        await inbox.receive()
    put(inbox, "first")
    assert await task == "first"
    put(inbox, "second")
    assert await inbox.receive() == "second"


async def test_cancelling_the_task_ends_its_wait(inbox):
    task = asyncio.create_task(inbox.receive())
    await waiting(inbox)
    assert task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    put(inbox, "event")
    assert await inbox.receive() == "event"


async def test_nothing_is_lost_when_an_event_races_with_a_cancellation(inbox):
    for deliver, cancel_first in [(put, True), (put, False), (put_in_place, True)]:
        task = asyncio.create_task(inbox.receive())
        await waiting(inbox)
        done = asyncio.Event()

        def race(task=task, deliver=deliver, cancel_first=cancel_first, done=done):
            if cancel_first:
                task.cancel()
            deliver(inbox, "event")
            if not cancel_first:
                task.cancel()
            done.set()

        asyncio.get_running_loop().call_soon(race)
        await done.wait()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await inbox.receive() == "event"


async def test_an_event_received_in_place_comes_before_a_cancellation(inbox):
    task = asyncio.create_task(inbox.receive())
    await waiting(inbox)

    def race():
        put_in_place(inbox, "event")
        task.cancel()

    asyncio.get_running_loop().call_soon(race)
    assert await task == "event"


async def test_a_task_cancelled_before_it_waits_never_does(inbox):
    async def read():
        asyncio.current_task().cancel()
        await inbox.receive()

    task = asyncio.create_task(read())
    with pytest.raises(asyncio.CancelledError):
        await task
    put(inbox, "event")
    assert await inbox.receive() == "event"


async def test_cancel_without_a_waiting_task_does_nothing(inbox):
    assert inbox.cancel() is False
    inbox.note()
    inbox.resume()
    put(inbox, "event")
    assert await inbox.receive() == "event"


async def test_the_message_of_a_cancellation_arrives(inbox):
    task = asyncio.create_task(inbox.receive())
    await waiting(inbox)
    task.cancel("enough")
    with pytest.raises(asyncio.CancelledError) as caught:
        await task
    assert "enough" in caught.value.args or "enough" in str(caught.value.__context__)


async def test_wait_for_gives_up_and_comes_back(inbox):
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(inbox.receive(), 0.01)
    put(inbox, "event")
    assert await asyncio.wait_for(inbox.receive(), 10) == "event"


async def test_timeout_gives_up_and_comes_back(inbox):
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await inbox.receive()
    assert asyncio.current_task().cancelling() == 0
    asyncio.get_running_loop().call_soon(put_in_place, inbox, "event")
    async with asyncio.timeout(10):
        assert await inbox.receive() == "event"


async def test_a_task_group_ends_its_reader(inbox):
    with pytest.raises(ExceptionGroup) as caught:  # noqa: PT012 - a group is two statements
        async with asyncio.TaskGroup() as group:
            reader = group.create_task(inbox.receive())
            await waiting(inbox)
            raise ZeroDivisionError
    assert caught.group_contains(ZeroDivisionError)
    assert reader.cancelled()


async def test_a_reader_among_others_in_wait(inbox):
    reader = asyncio.ensure_future(inbox.receive())
    other = asyncio.get_running_loop().create_future()
    await waiting(inbox)
    put(inbox, "event")
    done, _ = await asyncio.wait({reader, other}, return_when=asyncio.FIRST_COMPLETED)
    assert done == {reader}
    assert reader.result() == "event"


async def test_anyio_knows_its_own_cancellation(inbox):
    with anyio.move_on_after(0.01) as scope:
        await inbox.receive()
    assert scope.cancelled_caught
    async with anyio.create_task_group() as group:
        group.start_soon(inbox.receive)
        await waiting(inbox)
        group.cancel_scope.cancel()
    put(inbox, "event")
    with anyio.fail_after(10):
        assert await inbox.receive() == "event"


async def test_gather_and_shield(inbox):
    reader = asyncio.ensure_future(inbox.receive())
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(reader), 0.01)
    put(inbox, "event")
    assert await asyncio.gather(reader) == ["event"]


async def test_a_task_can_be_looked_at_while_it_waits(inbox):
    task = asyncio.create_task(inbox.receive(), name="reader")
    await waiting(inbox)
    assert task in asyncio.all_tasks()
    assert "reader" in repr(task)
    assert [frame.f_code.co_name for frame in task.get_stack()] == ["receive"]
    put(inbox, 1)
    await task


async def test_in_debug_mode():
    loop = asyncio.get_running_loop()
    loop.set_debug(True)
    inbox = Inbox(Turn(loop))
    task = asyncio.create_task(inbox.receive())
    await waiting(inbox)
    put(inbox, "event")
    assert await task == "event"


async def test_a_sender_that_breathes_goes_on_in_line():
    loop = asyncio.get_running_loop()
    turn = Turn(loop, clock=lambda: 0.0)
    log = []

    async def sender(name):
        for part in range(2):
            log.append((name, part))
            await breathe(turn)

    first, second = asyncio.create_task(sender("a")), asyncio.create_task(sender("b"))
    await asyncio.sleep(0)
    turn.later(lambda: log.append("another"))
    await asyncio.gather(first, second)
    assert log == [("a", 0), ("b", 0), ("a", 1), ("b", 1), "another"]


async def test_a_sender_can_be_cancelled_while_it_breathes():
    turn = Turn(asyncio.get_running_loop())
    task = asyncio.create_task(breathe(turn))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
