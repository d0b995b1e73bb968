"""The end of writing, without sockets and clocks: who is waited for, and for how long."""

from types import SimpleNamespace

import pytest

from headrace.server.config import Config
from headrace.server.ending import LINGER_S, Ending
from headrace.server.runtime import Runtime
from headrace.server.turn import Turn
from headrace.server.wheel import Wheel


class Transport:
    """A socket that says how many bytes wait for its client."""

    def __init__(self, *, waits=0, half_closes=True):
        self.waits = waits
        self.half_closes = half_closes
        self.calls = []

    def get_write_buffer_size(self):
        return self.waits

    def get_extra_info(self, name):
        return None

    def is_closing(self):
        return bool({"close", "abort"} & set(self.calls))

    def can_write_eof(self):
        return self.half_closes

    def __getattr__(self, name):
        return lambda: self.calls.append(name)


class Line(Turn):
    def later(self, work):
        self.later_calls.append(work)


class Deadlines(Wheel):
    def schedule(self, timed, deadline):
        self.told.append(deadline)


class Spoken(Ending):
    """A protocol that has a deadline of its own at 99."""

    tick = None
    peer = "a client"
    _handed_over = True

    def __init__(self, *, heard_all=False, **transport):
        self.now = 0.0
        self.told = []
        self.later = []
        loop = SimpleNamespace(time=lambda: self.now, call_later=None)
        runtime = Runtime(
            app=None,
            config=Config(write_timeout_s=10.0),
            loop=loop,
            turn=Line(loop),
            wheel=Deadlines(loop),
        )
        runtime.turn.later_calls, runtime.wheel.told = self.later, self.told
        runtime.refusals = SimpleNamespace(count=self.told.append)
        runtime.log = lambda *arguments: self.told.append(arguments[0])
        super().__init__(runtime)
        self._transport = Transport(**transport)
        self._heard_all = heard_all

    def _expire(self, now):
        return 99.0

    @property
    def calls(self):
        return self._transport.calls


def test_our_side_ends_and_the_client_is_read_on_for_a_moment():
    spoken = Spoken()
    spoken._pause_reading()
    spoken._lingering = True
    spoken._finish_writing()
    assert spoken.calls == ["pause_reading", "resume_reading", "write_eof"]
    assert spoken.told == [LINGER_S]
    assert spoken.expire(LINGER_S) is None
    assert spoken.calls[-1] == "abort"


@pytest.mark.parametrize("options", [{"heard_all": True}, {"half_closes": False}])
def test_who_has_said_all_or_can_not_be_left_half_open_is_left(options):
    spoken = Spoken(**options)
    spoken._finish_writing()
    assert spoken.calls == ["close"]
    spoken._finish_writing()
    assert spoken.calls == ["close"]


def test_who_takes_bytes_has_time_and_who_takes_none_is_cut_off():
    spoken = Spoken(waits=100)
    spoken._begin_waiting()
    assert spoken.expire(5.0) == 99.0
    spoken._transport.waits = 50
    assert spoken.expire(10.0) == 99.0
    assert spoken.expire(19.9) == 99.0
    assert spoken.calls == []
    assert spoken.expire(20.0) is None
    assert spoken.calls == ["abort"]
    assert spoken.told == ["write_timeout", "write_timeout"]


def test_the_end_waits_for_who_still_takes_bytes():
    spoken = Spoken(waits=100)
    spoken._lingering = True
    spoken._begin_waiting()
    assert spoken.expire(2.0) == 2.0 + LINGER_S
    spoken._handed_over, spoken._transport.waits = False, 0
    assert spoken.expire(4.0) == 4.0 + LINGER_S
    spoken._handed_over = True
    assert spoken.expire(6.0) is None
    assert spoken.calls == ["abort"]


def test_what_comes_behind_the_end_is_dropped_in_line_with_what_others_send():
    spoken = Spoken()
    for _ in range(2):  # the transport may have had more in hand
        spoken._pass_over()
    assert spoken.calls == ["pause_reading"]
    [go_on] = spoken.later
    go_on()
    assert spoken.calls == ["pause_reading", "resume_reading"]
    spoken._pass_over()
    assert len(spoken.later) == 2
    spoken._transport.abort()
    go_on()
    assert spoken.calls == ["pause_reading", "resume_reading", "pause_reading", "abort"]


def test_nobody_has_to_say_why_to_close():
    spoken = Spoken()
    spoken.dismiss(1001, "HTTP has no word for it")
    assert spoken.calls == ["abort"]
