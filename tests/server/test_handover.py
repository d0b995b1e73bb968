"""How long a thread may keep the interpreter, by who computes."""

import asyncio
import resource
import sys
import threading
import time
from types import SimpleNamespace

import pytest

from headrace.server import handover
from headrace.server.handover import LONG_S, PERIOD_S, SHORT_S, Handover

from .clients import until


@pytest.fixture(autouse=True)
def interval_as_it_was():
    before = sys.getswitchinterval()
    yield
    sys.setswitchinterval(before)


class Machine:
    """A clock, and a system's accounts, that go on by what is said to have been computed."""

    def __init__(self):
        self.now = self.loop_s = self.threads_s = 1000.0
        self.loop_waits = self.waits = 1000
        self.handover = Handover(clock=lambda: self.now, usage=self.usage)
        self.handover.begin()

    def usage(self, who):
        if who == resource.RUSAGE_THREAD:
            return SimpleNamespace(ru_utime=self.loop_s - 1, ru_stime=1, ru_nvcsw=self.loop_waits)
        return SimpleNamespace(
            ru_utime=self.loop_s - 1,
            ru_stime=1 + self.threads_s,
            ru_nvcsw=self.loop_waits + self.waits,
        )

    def interval_after(self, *, loop, threads, at_a_time_s=0.00005):
        """Let a period pass; the shares are those of a core."""
        self.now += PERIOD_S
        self.loop_s += loop * PERIOD_S
        self.loop_waits += 500
        self.threads_s += threads * PERIOD_S
        self.waits += round(threads * PERIOD_S / at_a_time_s)
        assert self.handover.look()
        return sys.getswitchinterval()


@pytest.fixture
def machine():
    return Machine()


def test_at_first_a_thread_that_computes_makes_way_soon(machine):
    assert sys.getswitchinterval() == pytest.approx(SHORT_S)


@pytest.mark.parametrize(
    ("loop", "threads", "interval_s"),
    [
        (0.0, 0.0, SHORT_S),  # nobody has anything to do
        (0.1, 0.02, SHORT_S),  # the loop hasn't much
        (0.05, 0.95, SHORT_S),  # threads compute
        (0.4, 0.6, SHORT_S),
        (0.6, 1.4, SHORT_S),  # without the interpreter, perhaps
        (0.7, 0.3, LONG_S),  # the loop sends requests to threads and back
        (1.0, 0.0, LONG_S),
        (0.3, 0.1, LONG_S),
    ],
)
def test_the_loop_keeps_the_interpreter_where_it_has_most_of_the_work(
    machine, loop, threads, interval_s
):
    assert machine.interval_after(loop=loop, threads=threads) == pytest.approx(interval_s)


@pytest.mark.parametrize(
    ("at_a_time_s", "interval_s"), [(0.0001, LONG_S), (0.0004, SHORT_S), (0.005, SHORT_S)]
)
def test_a_thread_that_computes_now_and_then_makes_way_soon(machine, at_a_time_s, interval_s):
    interval = machine.interval_after(loop=0.7, threads=0.2, at_a_time_s=at_a_time_s)
    assert interval == pytest.approx(interval_s)


def test_only_what_came_since_the_last_look_counts(machine):
    assert machine.interval_after(loop=0.8, threads=0.2) == pytest.approx(LONG_S)
    assert machine.interval_after(loop=0.1, threads=0.9) == pytest.approx(SHORT_S)
    assert machine.interval_after(loop=0.8, threads=0.2) == pytest.approx(LONG_S)


def test_what_the_application_sets_meanwhile_stays(machine):
    sys.setswitchinterval(0.002)
    assert not machine.handover.look()
    assert sys.getswitchinterval() == pytest.approx(0.002)


async def test_an_application_that_wants_less_has_it_so(monkeypatch):
    monkeypatch.setattr(handover, "PERIOD_S", 0.0)
    sys.setswitchinterval(0.0001)
    Handover().attend(asyncio.get_running_loop())
    for _ in range(5):
        await asyncio.sleep(0)
    assert sys.getswitchinterval() == pytest.approx(0.0001)


async def test_where_threads_have_no_account_of_their_own_it_stays_short(monkeypatch):
    monkeypatch.delattr(resource, "RUSAGE_THREAD")
    monkeypatch.setattr(handover, "PERIOD_S", 0.0)
    sys.setswitchinterval(SHORT_S)
    Handover().attend(asyncio.get_running_loop())
    for _ in range(5):
        await asyncio.sleep(0)
    assert sys.getswitchinterval() == pytest.approx(SHORT_S)


async def test_it_follows_who_computes(monkeypatch):
    monkeypatch.setattr(handover, "PERIOD_S", 0.01)
    over = threading.Event()

    def compute():
        while not over.is_set():
            sum(range(1000))

    def at_work(interval_s):
        """Look at it after a turn in which the loop has computed, too."""
        begun = time.thread_time()
        while time.thread_time() - begun < 0.002:
            pass
        return sys.getswitchinterval() == pytest.approx(interval_s)

    Handover().attend(asyncio.get_running_loop())
    await until(lambda: at_work(LONG_S))
    threads = [threading.Thread(target=compute) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        await until(lambda: sys.getswitchinterval() == pytest.approx(SHORT_S))
    finally:
        over.set()
        for thread in threads:
            thread.join()


async def test_it_leaves_an_interval_alone_that_is_no_more_its_own(monkeypatch):
    monkeypatch.setattr(handover, "PERIOD_S", 0.0)
    looks = []

    class Watched(Handover):
        def look(self):
            looks.append(super().look())
            return looks[-1]

    Watched().attend(asyncio.get_running_loop())
    await until(lambda: looks)
    sys.setswitchinterval(0.002)
    await until(lambda: not looks[-1])
    seen = len(looks)
    for _ in range(5):
        await asyncio.sleep(0)
    assert len(looks) == seen
    assert sys.getswitchinterval() == pytest.approx(0.002)
