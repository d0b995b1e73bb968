"""How long a thread may keep the interpreter from another that asks for it.

Python has one interval for all threads of a process, and they have opposite wishes. Beside threads
that compute, the event loop waits for an interval each time that it comes back from its sockets: it
should be short. Where threads only run errands for a loop that has most of the work, as behind an
asynchronous Django view with synchronous middleware, a short one has them take the interpreter from
the loop in the middle of a turn, and pay for each handover with a cold cache: it should be long.

Rules of this file:

- The interval is the process's: only who owns that may have it set here.
- It is short until the loop is seen to be busy, to have most of the work, and to have no thread
  beside it that computes for longer than an errand takes.
- The application has the last word: an interval that it has set stays.
"""

import asyncio
import resource
import sys
import time
from collections.abc import Callable

__all__ = ["LONG_S", "SHORT_S", "Handover"]

#: How long a thread that computes may keep the interpreter from the loop, which asks for it several
#: times for each request that it answers.
SHORT_S = 0.0005
#: How long the loop may keep it from threads that run its errands: Python's own interval.
LONG_S = 0.005
#: So often it is looked at who computes.
PERIOD_S = 0.25
#: The loop is busy with so much of a core, and has most of the work with so much of the process's.
BUSY, MOST = 0.25, 0.5
#: What a thread computes at most between two waits, on average, when it runs errands. It is 0.04 ms
#: behind a Django view of a line, and 1 to 3 ms where a thread renders templates now and then.
ERRAND_S = 0.0002


class Handover:
    """Sets the interval by who computes: the loop, or threads beside it.

    ``begin`` and ``look`` are called on the loop's thread.
    """

    __slots__ = ("_before", "_clock", "_set_s", "_usage")

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        usage: Callable[[int], resource.struct_rusage] = resource.getrusage,
    ) -> None:
        self._clock = clock
        self._usage = usage
        #: The time, CPU seconds of the loop and of the threads, and how often threads have waited.
        self._before = (0.0, 0.0, 0.0, 0)
        #: What was set last, as Python gives it back.
        self._set_s = 0.0

    def attend(self, loop: asyncio.AbstractEventLoop) -> None:
        """Look after it for as long as the loop runs, unless the application has set less.

        Does nothing on systems that don't tell one thread's use of the CPU from another's.
        """
        if hasattr(resource, "RUSAGE_THREAD") and sys.getswitchinterval() >= SHORT_S:
            loop.call_soon(self._begin, loop)

    def begin(self) -> None:
        """Set the short one, and begin to measure."""
        self._before = self._measured()
        self._set(SHORT_S)

    def look(self) -> bool:
        """Set it by what was computed since the last time; False: the application has set it."""
        if sys.getswitchinterval() != self._set_s:
            return False
        measured = self._measured()
        passed_s = measured[0] - self._before[0]
        loop_s = measured[1] - self._before[1]
        threads_s = measured[2] - self._before[2]
        waits = measured[3] - self._before[3]
        self._before = measured
        is_long = (
            loop_s >= BUSY * passed_s
            and loop_s >= MOST * (loop_s + threads_s)
            and threads_s <= ERRAND_S * (waits + 1)
        )
        self._set(LONG_S if is_long else SHORT_S)
        return True

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        self.begin()
        loop.call_later(PERIOD_S, self._go_on, loop)

    def _go_on(self, loop: asyncio.AbstractEventLoop) -> None:
        if self.look():
            loop.call_later(PERIOD_S, self._go_on, loop)

    def _measured(self) -> tuple[float, float, float, int]:
        loop, process = self._usage(resource.RUSAGE_THREAD), self._usage(resource.RUSAGE_SELF)
        loop_s = loop.ru_utime + loop.ru_stime
        threads_s = process.ru_utime + process.ru_stime - loop_s
        return self._clock(), loop_s, threads_s, process.ru_nvcsw - loop.ru_nvcsw

    def _set(self, interval_s: float) -> None:
        sys.setswitchinterval(interval_s)
        self._set_s = sys.getswitchinterval()
