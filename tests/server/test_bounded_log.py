import logging

import pytest

from headrace.server.bounded_log import BoundedLog, printable


class Clock:
    """Time that passes when it is told to, and timers that go off then."""

    def __init__(self):
        self.now = 0.0
        self.timers = []

    def __call__(self):
        return self.now

    def later(self, delay_s, function):
        timer = Timer(self.now + delay_s, function)
        self.timers.append(timer)
        return timer

    def pass_(self, seconds):
        self.now += seconds
        due = [timer for timer in self.timers if timer.when <= self.now]
        self.timers = [timer for timer in self.timers if timer.when > self.now]
        for timer in due:
            if not timer.cancelled:
                timer.function()


class Timer:
    def __init__(self, when, function):
        self.when = when
        self.function = function
        self.cancelled = False

    def cancel(self):
        self.cancelled = True


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def lines(caplog):
    caplog.set_level(logging.DEBUG, "tests.bounded")

    def lines():
        found = [record.getMessage() for record in caplog.records]
        caplog.clear()
        return found

    return lines


LOGGER = logging.getLogger("tests.bounded")


def test_ten_lines_are_written_and_the_others_are_counted(clock, lines):
    log = BoundedLog(LOGGER, clock=clock, later=clock.later)
    for number in range(1244):
        log("flood", "line %d", number)
    assert lines() == [f"line {number}" for number in range(10)]
    clock.pass_(10)
    assert lines() == ["flood: … and 1,234 more in 10 s"]
    clock.pass_(100)
    assert lines() == []


def test_each_kind_has_lines_of_its_own(clock, lines):
    log = BoundedLog(LOGGER, lines=1, clock=clock, later=clock.later)
    for kind in ("a", "b", "a"):
        log(kind, "%s", kind)
        clock.pass_(1)
    assert lines() == ["a", "b"]
    log("b", "b")
    clock.pass_(6.9)
    assert lines() == []
    clock.pass_(0.1)
    assert lines() == ["a: … and 1 more in 10 s"]
    clock.pass_(1)
    assert lines() == ["b: … and 1 more in 10 s"]


def test_after_a_while_there_are_lines_again(clock, lines):
    log = BoundedLog(LOGGER, lines=2, window_s=1, clock=clock, later=clock.later)
    for _ in range(5):
        log("often", "now and then")
        clock.pass_(0.6)
    assert lines() == ["now and then"] * 5


def test_without_a_timer_the_number_comes_before_the_next_line(clock, lines):
    log = BoundedLog(LOGGER, lines=1, clock=clock)
    for _ in range(3):
        log("some", "line")
    clock.pass_(10)
    log("some", "line")
    assert lines() == ["line", "some: … and 2 more in 10 s", "line"]


def test_the_end_tells_what_was_left_out(clock, lines):
    log = BoundedLog(LOGGER, lines=1, clock=clock, later=clock.later)
    for _ in range(3):
        log("some", "line")
    log("few", "line")
    log.close()
    assert lines() == ["line", "line", "some: … and 2 more in 10 s"]
    clock.pass_(100)
    assert lines() == []
    log.close()


def test_what_is_not_wanted_is_not_counted(clock, lines, caplog):
    caplog.set_level(logging.WARNING, "tests.bounded")
    log = BoundedLog(LOGGER, lines=1, clock=clock, later=clock.later)
    for _ in range(3):
        log("quiet", "line")
    log("loud", "%d", 1, level=logging.ERROR)
    clock.pass_(10)
    assert lines() == ["1"]


def test_nobody_writes_a_line_of_his_own_or_a_long_one(clock, lines):
    log = BoundedLog(LOGGER, clock=clock)
    log("odd", "%s: %s (%d)", "1.2.3.4", "a\nERROR b\x1b[2J\u2028" + "x" * 10_000, 7)
    [line] = lines()
    assert line.startswith(r"1.2.3.4: a\nERROR b\x1b[2J\u2028xxx")
    assert line.endswith("x... (7)")
    assert len(line) < 600
    assert line.isprintable()


def test_printable_cuts_and_escapes():
    assert printable("a\r\nb") == r"a\r\nb"
    assert printable("x" * 11, limit=10) == "x" * 10 + "..."
