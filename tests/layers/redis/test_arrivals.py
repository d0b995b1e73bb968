"""What has come: once, in order, and no more than the application takes."""

import asyncio
import threading

import pytest

from headrace.layers.redis import arrivals as module
from headrace.layers.redis.arrivals import Arrivals
from headrace.layers.redis.envelopes import Envelopes

HERE, THERE, ELSEWHERE = "0123456789abcdef", "fedcba9876543210", "1111111111111111"


class Desk:
    def __init__(self, home=None):
        self.home = home
        self.frames = []
        self.pieces = 0
        self.threads = set()
        self.undecodable = []
        self.arrivals = Arrivals(
            Envelopes(HERE), home=lambda: self.home, take=self.take, undecodable=self.note
        )

    def take(self, frames):
        self.frames += frames
        self.pieces += 1
        self.threads.add(threading.get_ident())

    def note(self, reason):
        self.undecodable.append(reason)


async def test_a_turn_is_one_piece():
    desk, there = Desk(), Envelopes(THERE)
    for number in range(1, 4):
        desk.arrivals.add(there.put(1, number, b"%d" % number))
    assert not desk.frames
    await asyncio.sleep(0)
    assert desk.frames == [b"1", b"2", b"3"]
    assert desk.pieces == 1
    desk.arrivals.hand_over()
    assert desk.pieces == 1


async def test_repetitions_are_known_for_each_sender():
    desk, there, elsewhere = Desk(), Envelopes(THERE), Envelopes(ELSEWHERE)
    for envelope in (
        there.put(1, 1, b"a"),
        there.put(1, 3, b"b"),
        there.put(1, 3, b"b"),
        there.put(1, 2, b"late"),
        there.put(2, 1, b"c"),
        elsewhere.put(1, 1, b"d"),
        there.put(1, 4, b"e"),
        Envelopes(HERE).put(1, 9, b"own"),
    ):
        desk.arrivals.add(envelope)
    desk.arrivals.hand_over()
    assert desk.frames == [b"a", b"b", b"c", b"d", b"e"]
    assert desk.arrivals.repeated == 2
    desk.arrivals.add(b"rubbish")
    assert len(desk.undecodable) == 1


async def test_senders_are_not_remembered_for_ever(monkeypatch):
    monkeypatch.setattr(module, "_SENDERS", 3)
    desk, there = Desk(), Envelopes(THERE)
    for sender in range(10):
        desk.arrivals.add(there.put(sender, 5, b"x"))
        desk.arrivals.add(there.put(0, 6 + sender, b"y"))  # heard often, and kept
    assert len(desk.arrivals._numbers) == 3
    desk.arrivals.add(there.put(0, 15, b"again"))
    assert desk.arrivals.repeated == 1


@pytest.fixture
def home():
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield loop, thread
    if thread.is_alive():
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
    if not loop.is_closed():
        loop.close()


async def test_frames_are_taken_on_the_loop_of_the_application(home):
    loop, thread = home
    desk, there = Desk(loop), Envelopes(THERE)
    desk.arrivals.add(there.put(1, 1, b"x"))
    desk.arrivals.hand_over()
    await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop))
    assert desk.threads == {thread.ident}


async def test_there_is_room_when_the_application_has_taken_what_is_under_way(home, monkeypatch):
    monkeypatch.setattr(module, "_UNDER_WAY_BYTES", 1_000)
    loop, _ = home
    busy = threading.Event()
    loop.call_soon_threadsafe(busy.wait)
    desk, there = Desk(loop), Envelopes(THERE)
    number = 0
    while not desk.arrivals.crowded:
        number += 1
        desk.arrivals.add(there.put(1, number, b"x" * 100))
    waiting = asyncio.create_task(desk.arrivals.room())
    await asyncio.sleep(0.02)
    assert not waiting.done()
    busy.set()
    async with asyncio.timeout(5):
        await waiting
    assert not desk.arrivals.crowded
    assert len(desk.frames) == number


@pytest.mark.parametrize("closed", [False, True])
async def test_a_loop_that_stops_is_not_waited_for(home, monkeypatch, closed):
    monkeypatch.setattr(module, "_UNDER_WAY_BYTES", 100)
    monkeypatch.setattr(module, "_LOOK_S", 0.01)
    loop, thread = home
    busy = threading.Event()
    loop.call_soon_threadsafe(busy.wait)
    loop.call_soon_threadsafe(loop.stop)
    desk, there = Desk(loop), Envelopes(THERE)
    desk.arrivals.add(there.put(1, 1, b"x" * 200))
    desk.arrivals.hand_over()
    assert desk.arrivals.crowded
    waiting = asyncio.create_task(desk.arrivals.room())
    await asyncio.sleep(0.03)
    assert not waiting.done()
    busy.set()
    thread.join()
    if closed:
        loop.close()
    async with asyncio.timeout(5):
        await waiting
    # Whoever is there next gets what is next.
    desk.arrivals.add(there.put(1, 2, b"y"))
    desk.arrivals.hand_over()
    desk.home = None
    desk.arrivals.add(there.put(1, 3, b"z"))
    desk.arrivals.hand_over()
    assert desk.frames[-1] == b"z"


async def test_without_a_loop_nothing_is_under_way(monkeypatch):
    monkeypatch.setattr(module, "_UNDER_WAY_BYTES", 100)
    desk, there = Desk(), Envelopes(THERE)
    desk.arrivals.add(there.put(1, 1, b"x" * 200))
    assert desk.arrivals.crowded
    await desk.arrivals.room()
    assert desk.frames == [b"x" * 200]
