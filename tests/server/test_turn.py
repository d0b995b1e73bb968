import pytest

from headrace.server.turn import AT_ONCE_S, LATER_S, OWED, SLICE, SLICE_S, Share, Turn


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


class Clock:
    """Time that work takes, and nothing else."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def take(self, seconds):
        self.now += seconds


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def turn(loop, clock):
    return Turn(loop, clock=clock)


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


@pytest.mark.parametrize("note", ["resume", "write"])
def test_a_slice_ends_by_the_clock(loop, turn, clock, note):
    log = []
    for number in range(10):
        getattr(turn, note)(Noted(log, number, also=lambda: clock.take(SLICE_S / 2.5)))
    seen = []
    while loop.callbacks:
        loop.run_once()
        seen.append(len(log))
    assert seen == [3, 6, 9, 10]
    assert [name for _, name in log] == list(range(10))


def test_tasks_that_take_long_leave_sockets_their_time(loop, turn, clock):
    log = []
    for number in range(3):
        turn.resume(Noted(log, number, also=lambda: clock.take(1.0)))
        turn.write(Noted(log, number))
    loop.run_once()
    assert log == [("resume", 0), ("flush", 0), ("flush", 1), ("flush", 2)]


def test_what_can_wait_is_done_in_line_and_a_little_each_turn(loop, turn, clock):
    done = []

    def piece(name, pieces):
        done.append(name)
        clock.take(LATER_S * 0.6)
        if pieces > 1:
            turn.later(lambda: piece(name, pieces - 1))

    turn.later(lambda: piece("much", 4))
    turn.later(lambda: piece("little", 1))
    seen = []
    while loop.callbacks:
        assert len(loop.callbacks) == 1
        loop.run_once()
        seen.append("".join(name[0] for name in done))
    # Two pieces take longer than what can wait may; who is alone in line goes on at once.
    assert seen == ["ml", "mlmm", "mlmmm"]


def test_a_piece_that_takes_too_long_is_alone_in_its_turn(loop, turn, clock):
    done = []
    for number in range(3):
        turn.later(lambda number=number: (done.append(number), clock.take(1.0)))
    seen = []
    while loop.callbacks:
        loop.run_once()
        seen.append(len(done))
    # And some turns that follow have no other, however long it took.
    assert seen == [1] * (1 + OWED) + [2] * (1 + OWED) + [3]


def test_a_piece_of_three_turns_is_paid_for_by_the_two_that_follow(loop, turn, clock):
    done = []
    turn.later(lambda: (done.append("long"), clock.take(3.5 * LATER_S)))
    turn.later(lambda: done.append("short"))
    seen = []
    while loop.callbacks:
        log = []
        turn.resume(Noted(log, "task"))
        loop.run_once()
        assert log  # what has come meanwhile has had its turn
        seen.append(len(done))
    assert seen == [1, 1, 1, 2]


def test_what_has_just_come_is_begun_for_a_while_of_each_turn(loop, turn, clock):
    for _ in range(2):
        begun = 0
        while turn.has_time():
            clock.take(AT_ONCE_S * 0.3)
            begun += 1
        assert begun == 4
        assert not turn.has_time()
        # The end of the turn comes even where nothing else was noted.
        assert len(loop.callbacks) == 1
        loop.run_once()
        assert not loop.callbacks


def test_what_can_wait_comes_behind_tasks_and_sockets(loop, turn):
    log = []
    turn.later(lambda: log.append("later"))
    turn.write(Noted(log, "socket"))
    turn.resume(Noted(log, "task"))
    loop.run_once()
    assert log == [("resume", "task"), ("flush", "socket"), "later"]


def test_what_can_wait_and_raises_costs_the_others_nothing(loop, turn):
    done = []

    def fail():
        raise ZeroDivisionError

    turn.later(fail)
    turn.later(lambda: done.append(1))
    with pytest.raises(ZeroDivisionError):
        loop.run_once()
    loop.run_once()
    assert done == [1]
    turn.later(lambda: done.append(2))
    loop.run_once()
    assert done == [1, 2]


def test_who_has_much_gets_one_piece_in_each_round(loop, turn):
    done = []
    much, little = Share(turn), Share(turn)
    for number in range(3):
        much.later(lambda number=number: done.append(f"much {number}"))
    little.later(lambda: done.append("little"))
    turn.later(lambda: done.append("alone"))
    while loop.callbacks:
        loop.run_once()
    assert done == ["much 0", "little", "alone", "much 1", "much 2"]


def test_a_piece_of_a_share_that_notes_more_or_raises_costs_no_other(loop, turn):
    done = []
    share = Share(turn)

    def fail():
        share.later(lambda: done.append("more"))
        raise ZeroDivisionError

    share.later(fail)
    share.later(lambda: done.append("next"))
    with pytest.raises(ZeroDivisionError):
        loop.run_once()
    while loop.callbacks:
        loop.run_once()
    assert done == ["next", "more"]
