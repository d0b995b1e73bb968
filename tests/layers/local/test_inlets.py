import asyncio
import contextlib
import errno
import socket
import threading

import pytest

from headrace.layers.local import inlets
from headrace.layers.local.directory import Directory
from headrace.layers.local.inlets import Door
from headrace.layers.local.wire import greeting, prefixed

OWN, OTHER, NUMBER = "1" * 16, "2" * 16, "3" * 16
HELLO = greeting(OTHER, NUMBER)


@pytest.fixture
def directory(tmp_path):
    directory = Directory(tmp_path / "local", with_parent=False)
    yield directory
    directory.close()


@contextlib.contextmanager
def another_loop():
    """Run a loop in a thread; give what runs a coroutine function on it."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def run(function, *args):
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(function(*args), loop))

    try:
        yield run
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def sit(door):
    door.sit(asyncio.get_running_loop())


async def turn():
    await asyncio.sleep(0)


class House:
    """What is behind the door."""

    def __init__(self):
        self.frames, self.gaps, self.refused = [], [], []
        self.news = asyncio.Event()
        self.threads = set()
        self.door = Door(
            OWN,
            longest_bytes=1000,
            take=lambda frame: self.note(self.frames, frame),
            gap=lambda reason: self.note(self.gaps, reason),
            refuse=lambda reason: self.note(self.refused, reason),
        )

    def note(self, where, what):
        self.threads.add(threading.get_ident())
        where.append(what)
        self.news.set()

    async def until(self, condition):
        async with asyncio.timeout(5):
            while not condition():
                self.news.clear()
                await self.news.wait()


@pytest.fixture
async def house(directory):
    house = House()
    house.door.open(directory)
    house.door.sit(asyncio.get_running_loop())
    yield house
    await house.door.close()


@pytest.fixture
def call(directory):
    callers = []

    def call(data=b""):
        caller = socket.socket(socket.AF_UNIX)
        callers.append(caller)
        caller.connect(directory / f"p-{OWN}")
        caller.sendall(data)
        return caller

    yield call
    for caller in callers:
        caller.close()


async def test_frames_are_taken_in_their_order(house, call):
    caller = call(HELLO + b"".join(prefixed(b"%d" % number) for number in range(100)))
    await house.until(lambda: len(house.frames) == 100)
    caller.sendall(prefixed(b"last"))
    await house.until(lambda: len(house.frames) == 101)
    assert house.frames == [*(b"%d" % number for number in range(100)), b"last"]


async def test_what_was_written_before_the_accept_is_taken_whatever_became_of_its_sender(
    house, call
):
    call(HELLO + prefixed(b"one")).close()
    await house.until(lambda: house.frames == [b"one"])
    assert not house.gaps


async def test_an_end_in_the_midst_of_a_frame_is_a_gap(house, call):
    call(HELLO + prefixed(b"frame")[:-1]).close()
    await house.until(lambda: bool(house.gaps))
    assert "before all it had sent" in house.gaps[0]


async def test_an_end_with_a_note_is_a_gap(house, call, directory):
    (directory.path / f"b-{OWN}-{NUMBER}").touch()
    call(HELLO + prefixed(b"one")).close()
    await house.until(lambda: bool(house.gaps))
    assert house.frames == [b"one"]
    assert not (directory.path / f"b-{OWN}-{NUMBER}").exists()


@pytest.mark.parametrize(
    ("data", "is_gap"), [(b"x" * 100, False), (HELLO + prefixed(b"x" * 1001), True)]
)
async def test_what_is_of_no_process_is_refused(house, call, data, is_gap):
    caller = call(data)
    await house.until(lambda: bool(house.refused))
    assert await asyncio.get_running_loop().run_in_executor(None, caller.recv, 1) == b""
    assert len(house.gaps) == is_gap


async def test_who_says_nothing_is_no_gap(house, call):
    call().close()
    call(HELLO).close()
    call(HELLO + prefixed(b"x"))
    await house.until(lambda: bool(house.frames))
    assert not house.gaps


async def test_a_connection_that_is_reset_is_at_its_end(house, call, monkeypatch):
    call(HELLO + prefixed(b"x"))
    await house.until(lambda: bool(house.frames))
    (inlet,) = house.door._inlets.values()

    class Reset:
        def __init__(self, connection):
            self.connection = connection

        def recv(self, size):
            raise ConnectionResetError

        def __getattr__(self, name):
            return getattr(self.connection, name)

    inlet.connection = Reset(inlet.connection)
    house.door._read(inlet)
    house.door._read(inlet)  # what is in the loop's list still
    assert not house.door._inlets


async def test_nothing_to_read_is_nothing(house, call):
    call(HELLO + prefixed(b"x"))
    await house.until(lambda: bool(house.frames))
    (inlet,) = house.door._inlets.values()
    house.door._read(inlet)
    assert house.door._inlets


async def test_another_user_is_refused(house, call, monkeypatch):
    def refuse(connection):
        raise PermissionError("a process of user 4711 is at the other end")

    monkeypatch.setattr(inlets, "require_same_user", refuse)
    caller = call()
    await house.until(lambda: house.refused == ["a process of user 4711 is at the other end"])
    assert await asyncio.get_running_loop().run_in_executor(None, caller.recv, 1) == b""


async def test_without_descriptors_it_waits_for_some(house, call, monkeypatch):
    monkeypatch.setattr(inlets, "_PAUSE_S", 0.01)
    listener = house.door._listener

    class Short:
        failing = True

        def accept(self):
            if self.failing:
                Short.failing = False
                raise OSError(errno.EMFILE, "too many open files")
            return listener.accept()

        def __getattr__(self, name):
            return getattr(listener, name)

    house.door._listener = Short()
    call(HELLO + prefixed(b"x"))
    await house.until(lambda: bool(house.frames))
    assert "too many open files" in house.refused[0]


async def test_one_that_is_closed_meanwhile_does_not_begin_again(house, monkeypatch):
    monkeypatch.setattr(inlets, "_PAUSE_S", 0)
    house.door._pause()
    await house.door.close()
    await asyncio.sleep(0.01)


class TestTheSeat:
    async def test_it_moves_to_another_loop_that_runs(self, house, call):
        caller = call(HELLO + prefixed(b"one"))
        await house.until(lambda: bool(house.frames))
        heard = threading.Event()
        with another_loop() as run:
            await run(sit, house.door)
            await turn()  # the old loop leaves
            await run(turn)  # the new one enters
            assert house.door.seat not in (asyncio.get_running_loop(), None)
            house.news = heard
            caller.sendall(prefixed(b"two"))
            await asyncio.to_thread(heard.wait, 5)
            assert house.frames == [b"one", b"two"]
            await house.door.close()

    def test_it_moves_from_a_loop_that_has_stopped_or_closed(self, directory, call):
        loops = [asyncio.new_event_loop() for _ in range(3)]
        caller = None

        async def begin():
            nonlocal caller
            house = House()
            house.door.open(directory)
            house.door.sit(asyncio.get_running_loop())
            caller = call(HELLO + prefixed(b"0"))
            await house.until(lambda: bool(house.frames))
            return house

        async def go_on(number):
            house.news = asyncio.Event()
            assert house.door.seat is None
            house.door.sit(asyncio.get_running_loop())
            house.door.sit(asyncio.get_running_loop())
            caller.sendall(prefixed(b"%d" % number))
            await house.until(lambda: len(house.frames) == number + 1)

        house = loops[0].run_until_complete(begin())
        loops[1].run_until_complete(go_on(1))  # the first has stopped
        loops[1].close()
        loops[2].run_until_complete(go_on(2))
        assert house.frames == [b"0", b"1", b"2"]
        house.door.shut()
        for loop in loops:
            loop.close()

    async def test_one_that_closes_on_the_way_leaves_it_where_it_was(self, house):
        here, closed = asyncio.get_running_loop(), asyncio.new_event_loop()
        closed.close()
        house.door._move(here, closed)
        assert house.door.seat is here
        house.door._move(closed, here)  # it has moved already
        assert house.door.seat is here

    async def test_the_old_one_may_close_as_it_is_asked(self, house, monkeypatch):
        closed = asyncio.new_event_loop()
        closed.close()
        monkeypatch.setattr(Door, "seat", property(lambda door: closed))
        house.door.sit(asyncio.get_running_loop())

    async def test_it_is_closed_where_it_is_read(self, directory, call):
        house = House()
        house.door.open(directory)
        with another_loop() as run:
            await run(sit, house.door)
            await house.door.close()
            assert house.door.seat is None
        await house.door.close()  # once more is nothing


class TestOpenedAgain:
    async def test_connections_stay_and_come(self, house, call, tmp_path):
        first = call(HELLO + prefixed(b"one"))
        await house.until(lambda: bool(house.frames))
        waiting = call(HELLO + prefixed(b"two"))
        second = Directory(tmp_path / "again", with_parent=False)
        house.door.open(second)
        first.sendall(prefixed(b"three"))
        with socket.socket(socket.AF_UNIX) as caller:
            caller.connect(second / f"p-{OWN}")
            caller.sendall(HELLO + prefixed(b"four"))
            await house.until(lambda: len(house.frames) == 4)
        assert sorted(house.frames) == [b"four", b"one", b"three", b"two"]
        waiting.close()
        second.close()

    def test_where_nobody_sits(self, directory, tmp_path):
        house, loop = House(), asyncio.new_event_loop()
        house.door.open(directory)

        loop.run_until_complete(sit(house.door))
        house.door.open(directory)  # it has stopped
        loop.close()
        house.door.open(directory)  # it is closed
        house.door.shut()

    async def test_what_can_not_be_opened_is_closed(self, house, directory, monkeypatch):
        inode = house.door.inode
        monkeypatch.setattr(inlets, "_BACKLOG", "many")
        with pytest.raises(TypeError):
            house.door.open(directory)
        assert house.door.inode == inode
