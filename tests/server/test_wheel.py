import asyncio

import pytest

from headrace.server.wheel import ENDS, SLICE_S, Wheel


class Handle:
    def __init__(self, when, callback):
        self.when = when
        self.callback = callback
        self.cancelled = False

    def cancel(self):
        self.cancelled = True


class Loop:
    """A clock that is moved by hand."""

    def __init__(self):
        self.now = 1000.0
        self.handles = []
        self.soon = []
        self.complaints = []
        #: What the looks of this turn have taken.
        self.taken = 0.0

    def time(self):
        return self.now

    def clock(self):
        return self.now + self.taken

    def call_soon(self, callback):
        handle = Handle(self.now, callback)
        self.soon.append(handle)
        return handle

    def call_at(self, when, callback):
        handle = Handle(when, callback)
        self.handles.append(handle)
        return handle

    def call_exception_handler(self, context):
        self.complaints.append(context)

    def advance(self, seconds):
        """Let time pass in the steps that the timers ask for."""
        end = self.now + seconds
        while due := [h for h in self.handles if not h.cancelled and h.when <= end]:
            handle = min(due, key=lambda h: h.when)
            self.handles.remove(handle)
            self.now = max(self.now, handle.when)
            handle.callback()
            while self.soon:
                self.turn()
        self.now = end

    def turn(self):
        """Run what was to run in the next turn."""
        soon, self.soon = self.soon, []
        for handle in soon:
            if not handle.cancelled:
                handle.callback()

    @property
    def armed(self):
        return any(not handle.cancelled for handle in self.handles)


class Timed:
    def __init__(self, loop, *answers):
        self.tick = None
        self.loop = loop
        self.looks = []
        self.answers = list(answers)

    def expire(self, now):
        self.looks.append(round(now - 1000, 1))
        answer = self.answers.pop(0) if self.answers else None
        return answer(self) if callable(answer) else answer


@pytest.fixture
def loop():
    return Loop()


@pytest.fixture
def wheel(loop):
    return Wheel(loop, tick_s=0.1, clock=loop.clock)


def test_is_looked_at_after_its_deadline_and_within_a_tick(loop, wheel):
    timed = Timed(loop)
    wheel.schedule(timed, 1001.05)
    loop.advance(1.0)
    assert timed.looks == []
    loop.advance(0.2)
    assert timed.looks == [1.1]
    assert timed.tick is None


def test_says_when_to_look_again(loop, wheel):
    timed = Timed(loop, 1002.0, 1003.0)
    wheel.schedule(timed, 1001.0)
    loop.advance(10)
    assert timed.looks == [1.1, 2.1, 3.1]


def test_a_deadline_in_the_past_is_due_with_the_next_tick(loop, wheel):
    timed = Timed(loop)
    wheel.schedule(timed, 5.0)
    loop.advance(0.1)
    assert timed.looks == [0.1]


def test_moves_both_ways(loop, wheel):
    timed = Timed(loop)
    wheel.schedule(timed, 1001.0)
    wheel.schedule(timed, 1003.0)
    loop.advance(2)
    assert timed.looks == []
    wheel.schedule(timed, 1002.5)
    loop.advance(0.7)
    assert timed.looks == [2.6]


def test_postponed_it_is_looked_at_when_it_was_to_be_before(loop, wheel):
    timed = Timed(loop)
    wheel.schedule(timed, loop.now + 1)
    tick = timed.tick
    wheel.postpone(timed, loop.now + 5)
    assert timed.tick == tick


@pytest.mark.parametrize("after_s", [0.5, None])
def test_it_can_not_be_postponed_to_an_earlier_time_or_to_none(loop, wheel, after_s):
    timed = Timed(loop)
    wheel.schedule(timed, loop.now + 5)
    wheel.postpone(timed, after_s and loop.now + after_s)
    assert (timed.tick is None) == (after_s is None)
    loop.advance(1)
    assert len(timed.looks) == (after_s is not None)


def test_postponed_from_nowhere_it_is_scheduled(loop, wheel):
    timed = Timed(loop)
    wheel.postpone(timed, loop.now + 1)
    loop.advance(2)
    assert len(timed.looks) == 1


def test_is_taken_out(loop, wheel):
    first, second = Timed(loop), Timed(loop)
    wheel.schedule(first, 1001.0)
    wheel.schedule(second, 1001.0)
    wheel.cancel(first)
    wheel.cancel(first)
    wheel.schedule(second, None)
    assert first.tick is second.tick is None
    loop.advance(5)
    assert first.looks == second.looks == []


def test_no_timer_runs_for_nobody(loop, wheel):
    assert not loop.armed
    timed = Timed(loop)
    wheel.schedule(timed, 1001.0)
    assert loop.armed
    loop.advance(5)
    assert not loop.armed
    wheel.schedule(timed, 1007.0)
    loop.advance(5)
    assert timed.looks == [1.1, 7.1]


def test_jumps_over_a_time_in_which_the_loop_was_held_up(loop, wheel):
    near, far = Timed(loop), Timed(loop)
    wheel.schedule(near, 1001.0)
    wheel.schedule(far, 1900.0)
    loop.now += 500_000
    loop.advance(0.1)
    assert len(near.looks) == len(far.looks) == 1


def test_one_that_schedules_itself_keeps_its_word(loop, wheel):
    def move(timed):
        wheel.schedule(timed, 1002.0)
        return 1009.0

    timed = Timed(loop, move)
    wheel.schedule(timed, 1001.0)
    loop.advance(3)
    assert timed.looks == [1.1, 2.1]


def test_one_that_raises_costs_the_others_nothing(loop, wheel):
    def fail(timed):
        raise ZeroDivisionError

    broken, sound = Timed(loop, fail), Timed(loop, 1002.0)
    wheel.schedule(broken, 1001.0)
    wheel.schedule(sound, 1001.0)
    loop.advance(5)
    assert sound.looks == [1.1, 2.1]
    [complaint] = loop.complaints
    assert isinstance(complaint["exception"], ZeroDivisionError)


class Crowd:
    """Many with one deadline; a look at each takes its time."""

    def __init__(self, loop, wheel, size, *, look=lambda timed: None, slow=True):
        self.loop = loop
        self.looked = []
        self.timed = [Timed(loop, self.look) for _ in range(size)]
        self.look_too = look
        self.takes_s = SLICE_S / 2.5 if slow else 0.0
        for timed in self.timed:
            wheel.schedule(timed, 1001.0)

    def look(self, timed):
        self.loop.taken += self.takes_s
        self.looked.append(timed)
        return self.look_too(timed)


def first_turn(loop):
    """Let the first of them be looked at."""
    loop.advance(1.0)
    [handle] = [handle for handle in loop.handles if not handle.cancelled]
    loop.handles.remove(handle)
    loop.now = handle.when
    handle.callback()


def test_a_crowd_is_looked_at_in_slices(loop, wheel):
    crowd = Crowd(loop, wheel, 10)
    first_turn(loop)
    seen = [len(crowd.looked)]
    while loop.soon:
        loop.turn()
        seen.append(len(crowd.looked))
    assert seen == [3, 6, 9, 10]
    assert set(crowd.looked) == set(crowd.timed)
    assert not loop.armed


def test_a_few_end_in_one_turn_however_little_it_takes(loop, wheel):
    crowd = Crowd(loop, wheel, 2 * ENDS + 1, slow=False)
    lasting = Crowd(loop, wheel, 100, slow=False, look=lambda timed: 2000.0)
    first_turn(loop)
    seen = [len(crowd.looked)]
    while loop.soon:
        loop.turn()
        seen.append(len(crowd.looked))
    # Those that go on hold nobody up: they are looked at in between.
    assert seen == [ENDS, 2 * ENDS, 2 * ENDS + 1]
    assert len(lasting.looked) == 100


def test_who_is_heard_between_two_slices_is_not_looked_at(loop, wheel):
    crowd = Crowd(loop, wheel, 10)
    first_turn(loop)
    gone, moved, *_ = set(crowd.timed) - set(crowd.looked)
    wheel.cancel(gone)
    wheel.schedule(moved, 1001.0)
    loop.turn()
    loop.turn()
    assert gone not in crowd.looked
    assert gone.tick is None
    loop.advance(1)
    assert len(moved.looks) == 1
    assert len(crowd.looked) == 9


def test_who_wants_another_look_at_once_waits_for_the_others(loop, wheel):
    crowd = Crowd(loop, wheel, 10, look=lambda timed: loop.now)
    first_turn(loop)
    while loop.soon and len(crowd.looked) < 10:
        loop.turn()
    assert set(crowd.looked) == set(crowd.timed)


def test_a_wheel_that_is_closed_between_two_slices_looks_at_nobody(loop, wheel):
    crowd = Crowd(loop, wheel, 10)
    first_turn(loop)
    wheel.close()
    while loop.soon:
        loop.turn()
    loop.advance(5)
    assert len(crowd.looked) == 3
    assert all(timed.tick is None for timed in crowd.timed)


def test_a_wheel_that_is_closed_by_a_look_looks_at_nobody_else(loop, wheel):
    crowd = Crowd(loop, wheel, 10, look=lambda timed: wheel.close())
    loop.advance(5)
    assert len(crowd.looked) == 1


def test_close_forgets_all(loop, wheel):
    wheel.close()
    timed = Timed(loop)
    wheel.schedule(timed, 1001.0)
    wheel.close()
    assert timed.tick is None
    loop.advance(5)
    assert timed.looks == []


async def test_keeps_time_on_a_real_loop():
    loop = asyncio.get_running_loop()
    wheel = Wheel(loop, tick_s=0.01)
    looked = loop.create_future()

    class Real:
        tick = None

        def expire(self, now):
            looked.set_result(now)

    due = loop.time() + 0.03
    wheel.schedule(Real(), due)
    assert due <= await looked < due + 1
    wheel.close()
