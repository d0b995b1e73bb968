import asyncio

import pytest

from headrace.layers.local.directory import Directory
from headrace.layers.local.interest import QUEUE, Interest, bucket_of
from headrace.layers.local.named import NamedChannels
from headrace.layers.local.queue import Queue


class Process:
    """A process with named channels."""

    def __init__(self, directory):
        self.queue, self.table = Queue(directory / "queue"), Interest(directory)
        self.wanted, self.nudged = [], []
        self.others = []
        self.named = NamedChannels(
            lambda: (self.queue, self.table),
            want=lambda *want: self.wanted.append(want),
            nudge=self.nudge,
        )

    def nudge(self, channel):
        self.nudged.append(channel)
        for other in self.others:
            other.named.wake(channel)

    def put(self, channel, data, capacity=10):
        return self.named.put(channel, data, capacity=capacity, expiry_s=60)


@pytest.fixture
def processes(tmp_path):
    directory = Directory(tmp_path / "local", with_parent=False)
    first, second = processes = [Process(directory) for _ in range(2)]
    first.others, second.others = [second], [first]
    yield processes
    for process in processes:
        process.queue.close()
    directory.close()


async def turns(count):
    for _ in range(count):
        await asyncio.sleep(0)


async def test_a_reader_that_waits_is_woken_by_its_own_process_and_by_another(processes):
    here, there = processes
    for sender in (here, there):
        reading = asyncio.create_task(here.named.get("work"))
        await turns(3)
        assert sender.put("work", b"x")
        assert await reading == b"x"
    assert here.wanted == [("work!", True), ("work!", False)] * 2
    assert there.nudged == ["work"]


async def test_of_many_readers_one_gets_it_and_the_others_wait_on(processes):
    here, _ = processes
    readings = [
        asyncio.create_task(process.named.get("work")) for process in processes for _ in range(3)
    ]
    await turns(3)
    for number in range(6):
        here.put("work", b"%d" % number)
        await asyncio.wait(readings, return_when=asyncio.FIRST_COMPLETED)
    async with asyncio.timeout(5):
        assert sorted(await asyncio.gather(*readings)) == [b"%d" % number for number in range(6)]


async def test_a_reader_that_was_woken_and_is_gone_takes_nothing(processes):
    here, _ = processes
    gone, stays = (asyncio.create_task(here.named.get("work")) for _ in range(2))
    await turns(3)
    here.put("work", b"x")
    gone.cancel()
    async with asyncio.timeout(5):
        assert await stays == b"x"
    assert gone.cancelled()
    assert not here.named._waiters


async def test_a_full_channel_is_told(processes):
    here, there = processes
    assert here.put("work", b"x", capacity=1)
    assert not there.put("work", b"x", capacity=1)
    assert there.nudged == []


async def test_all_are_woken_where_anything_may_have_changed(processes):
    here, _ = processes
    reading = asyncio.create_task(here.named.get("work"))
    await turns(3)
    here.queue.put("work", b"x", capacity=1, now=0, until=1e12)
    here.named.wake("other")
    here.named.wake()
    here.named.wake()
    assert await reading == b"x"


async def test_a_group_shows_that_it_has_named_members(processes):
    here, there = processes
    here.named.join("room", "work", expiry_s=60)
    assert there.table.slots_of(bucket_of("room")) == [QUEUE]
    assert there.named.members("room") == ["work"]
    there.named.leave("room", "work")
    assert here.table.slots_of(bucket_of("room")) == []
    here.named.join("room", "work", expiry_s=60)
    here.named.clear()
    assert here.table.slots_of(bucket_of("room")) == []
    assert there.named.members("room") == []


class TestABusyQueue:
    async def test_it_is_waited_for(self, processes):
        here, there = processes
        with there.queue._transaction():
            putting = asyncio.create_task(here.named.patiently(here.put, "work", b"x"))
            in_thread = asyncio.create_task(
                asyncio.to_thread(here.named.patiently_sync, here.put, "work", b"x")
            )
            await asyncio.wait({putting, in_thread}, timeout=0.01)
            assert not putting.done()
        assert await putting
        assert await in_thread

    async def test_but_not_for_ever(self, processes, monkeypatch):
        here, there = processes
        monkeypatch.setattr(NamedChannels, "BUSY_S", 0.01)
        with there.queue._transaction():
            with pytest.raises(TimeoutError, match=r"busy since 0\.01 s: a process may have been"):
                await here.named.patiently(here.put, "work", b"x")
            with pytest.raises(TimeoutError, match=r"busy since"):
                await asyncio.to_thread(here.named.patiently_sync, here.put, "work", b"x")
