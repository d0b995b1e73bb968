"""A thread with an event loop, and the ways in and out."""

import asyncio
import sys
import threading

import pytest

from headrace.layers.redis import thread as module
from headrace.layers.redis.thread import Answer, LoopThread


class Worker:
    def __init__(self, fail=False):
        self.fail = fail
        self.calls = []
        self.cleaned = False
        self.thread = LoopThread(self.main, "a thread")

    async def main(self):
        if self.fail:
            raise RuntimeError("it can't begin")
        self.thread.take_calls()
        try:
            await asyncio.Event().wait()
        finally:
            self.cleaned = True

    def note(self, value):
        self.calls.append((value, threading.current_thread().name))

    async def end(self):
        self.thread.stop()
        async with asyncio.timeout(5):
            await asyncio.wrap_future(self.thread.ended)
        self.thread.join()


async def test_calls_are_made_in_their_order_those_from_before_the_start_too():
    worker = Worker()
    for number in range(3):
        assert worker.thread.call(worker.note, number)
    worker.thread.start()
    for number in range(3, 6):
        assert worker.thread.call(worker.note, number)
    answer = Answer(worker.thread)
    worker.thread.call(answer, None, None)
    await answer.future
    assert worker.calls == [(number, "a thread") for number in range(6)]
    await worker.end()
    assert worker.cleaned
    assert not worker.thread.alive
    assert not worker.thread.call(worker.note, 6)
    worker.thread.stop()


async def test_answers_and_errors_come_back():
    worker = Worker()
    worker.thread.start()
    answers = [Answer(worker.thread) for _ in range(4)]
    answers[2].future.cancel()
    for number, answer in enumerate(answers):
        error = ValueError("no") if number == 1 else None
        worker.thread.call(answer, number, error)
    assert await answers[0].future == 0
    with pytest.raises(ValueError, match="no"):
        await answers[1].future
    assert await answers[3].future == 3
    await worker.end()


async def test_a_caller_whose_loop_is_closed_is_not_told():
    worker = Worker()
    worker.thread.start()

    async def ask():
        return Answer(worker.thread)

    answer = await asyncio.to_thread(asyncio.run, ask())
    worker.thread.call(answer, 1, None)
    mine = Answer(worker.thread)
    worker.thread.call(mine, 2, None)
    assert await mine.future == 2
    await worker.end()


async def test_a_thread_that_fails_is_over_and_says_so(caplog):
    worker = Worker(fail=True)
    worker.thread.call(worker.note, 1)
    worker.thread.start()
    async with asyncio.timeout(5):
        await asyncio.wrap_future(worker.thread.ended)
    assert not worker.thread.alive
    assert "the thread a thread has failed" in caplog.text
    # Whoever has called sees that it is over, and can tell.
    assert worker.calls == [(1, "a thread")]


async def test_at_the_end_of_the_program_all_are_stopped():
    worker = Worker()
    worker.thread.start()
    await asyncio.to_thread(module._stop_all)
    assert worker.thread.ended.done()


def test_without_uvloop_there_is_the_loop_of_asyncio(monkeypatch):
    monkeypatch.setitem(sys.modules, "uvloop", None)
    loop = module._new_loop()
    assert type(loop).__module__.startswith("asyncio.")
    loop.close()
