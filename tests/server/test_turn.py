import pytest

from headrace.server.turn import SLICE, Turn


class Loop:
    """As much of a loop as a turn needs."""

    def __init__(self):
        self.callbacks = []

    def call_soon(self, callback):
        self.callbacks.append(callback)

    def run_once(self):
        callbacks, self.callbacks = self.callbacks, []
        for callback in callbacks:
            callback()


class Noted:
    def __init__(self, log, name, *, also=lambda: None):
        self.log = log
        self.name = name
        self.also = also

    def resume(self):
        self.log.append(("resume", self.name))
        self.also()

    def flush(self):
        self.log.append(("flush", self.name))
        self.also()


@pytest.fixture
def loop():
    return Loop()


@pytest.fixture
def turn(loop):
    return Turn(loop)


def test_tasks_run_before_sockets_are_written(loop, turn):
    log = []
    turn.write(Noted(log, "a"))
    turn.resume(Noted(log, "b"))
    loop.run_once()
    assert log == [("resume", "b"), ("flush", "a")]


def test_what_a_task_sends_leaves_in_the_same_turn(loop, turn):
    log = []
    turn.resume(Noted(log, "task", also=lambda: turn.write(Noted(log, "socket"))))
    loop.run_once()
    assert log == [("resume", "task"), ("flush", "socket")]
    assert not loop.callbacks


def test_one_callback_serves_all(loop, turn):
    log = []
    for number in range(10):
        turn.resume(Noted(log, number))
        turn.write(Noted(log, number))
    assert len(loop.callbacks) == 1
    loop.run_once()
    assert len(log) == 20


def test_a_task_that_wakes_another_leaves_it_to_the_next_turn(loop, turn):
    log = []
    turn.resume(Noted(log, "first", also=lambda: turn.resume(Noted(log, "second"))))
    loop.run_once()
    assert log == [("resume", "first")]
    loop.run_once()
    assert log == [("resume", "first"), ("resume", "second")]
    assert not loop.callbacks


@pytest.mark.parametrize("note", ["resume", "write"])
def test_the_loop_breathes_between_slices(loop, turn, note):
    log = []
    for number in range(2 * SLICE + 1):
        getattr(turn, note)(Noted(log, number))
    seen = []
    while loop.callbacks:
        loop.run_once()
        seen.append(len(log))
    assert seen == [SLICE, 2 * SLICE, 2 * SLICE + 1]
    assert [name for _, name in log] == list(range(2 * SLICE + 1))


@pytest.mark.parametrize("note", ["resume", "write"])
def test_one_that_raises_costs_the_others_nothing(loop, turn, note):
    log = []

    def fail():
        raise ZeroDivisionError

    getattr(turn, note)(Noted(log, 1))
    getattr(turn, note)(Noted(log, 2, also=fail))
    getattr(turn, note)(Noted(log, 3))
    with pytest.raises(ZeroDivisionError):
        loop.run_once()
    loop.run_once()
    assert [name for _, name in log] == [1, 2, 3]
    turn.write(Noted(log, 4))
    loop.run_once()
    assert log[-1] == ("flush", 4)
