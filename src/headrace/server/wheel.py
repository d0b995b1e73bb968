"""Deadlines of many connections on one timer.

A connection's deadline moves with nearly every message, and a timer of the loop for each
would cost more than the message. So a connection sits in the bucket of the tick at which it
wants to be looked at; when that tick comes it says when to look again. Putting in, moving
and taking out are constant.

Thousands that came together are due together. They are looked at in slices, in order, and the
loop has its turn between them. Who ends at its deadline has more to do in the turn that follows,
with its socket and its application: of those a slice has a few.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

__all__ = ["Timed", "Wheel"]

#: How long looks may take at once; another is begun only before that.
SLICE_S = 0.001
#: How many may end at their deadline in one turn.
ENDS = 16


class Timed(Protocol):
    """Something with a deadline."""

    #: The bucket it sits in; None: in none. The wheel's own note.
    tick: int | None

    def expire(self, now: float) -> float | None:
        """Act on what is due; return the next deadline, if any."""
        ...


class _Bucket(set[Timed]):
    """Those that are looked at in one tick."""

    __slots__ = ("tick",)

    tick: int


class Wheel:
    """Calls ``expire`` at most ``tick_s`` seconds after a deadline, or when it is its turn then."""

    __slots__ = ("_buckets", "_clock", "_loop", "_next", "_tick_s", "_timer")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        tick_s: float = 0.1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._loop = loop
        # Not the loop's own, which stands still for a turn.
        self._clock = clock
        self._tick_s = tick_s
        self._buckets: dict[int, _Bucket] = {}
        self._timer: asyncio.Handle | None = None
        #: The first tick that somebody can still be put into.
        self._next = 0

    def schedule(self, timed: Timed, deadline: float | None) -> None:
        """Look at it when the deadline has passed, instead of when it was to be before."""
        if timed.tick is not None:
            self.cancel(timed)
        if deadline is None:
            return
        if self._timer is None:
            self._start()
        tick = max(self._next, int(deadline / self._tick_s) + 1)
        bucket = self._buckets.get(tick)
        if bucket is None:
            bucket = self._buckets[tick] = _Bucket()
            bucket.tick = tick
        # The bucket's own number, not an equal one: those are 32 bytes for each connection.
        timed.tick = bucket.tick
        bucket.add(timed)

    def postpone(self, timed: Timed, deadline: float | None) -> None:
        """Look at it no later than that; once too early costs less than to move it each time.

        ``expire`` has to say then what the deadline is.
        """
        tick = timed.tick
        if tick is None or deadline is None or tick * self._tick_s > deadline:
            self.schedule(timed, deadline)

    def cancel(self, timed: Timed) -> None:
        """Look at it no more."""
        if timed.tick is not None:
            bucket = self._buckets.get(timed.tick)
            if bucket is not None:
                bucket.discard(timed)
                if not bucket:
                    del self._buckets[timed.tick]
            timed.tick = None

    def close(self) -> None:
        """Stop the timer and forget everything."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for bucket in self._buckets.values():
            for timed in bucket:
                timed.tick = None
            bucket.clear()  # a turn that is under way has nobody left to look at
        self._buckets.clear()

    def _start(self) -> None:
        now_tick = int(self._loop.time() / self._tick_s)
        self._next = min(now_tick + 1, min(self._buckets, default=now_tick + 1))
        self._timer = self._loop.call_at(self._next * self._tick_s, self._turn)

    def _turn(self) -> None:
        loop = self._loop
        now, until = loop.time(), self._clock() + SLICE_S
        ends_left = ENDS
        current = int(now / self._tick_s)
        while self._buckets and (tick := min(self._buckets)) <= current:
            # Who wants to be looked at again is not looked at in this round.
            self._next = tick + 1
            bucket = self._buckets[tick]
            while bucket:
                timed = bucket.pop()
                timed.tick = None
                if not bucket:
                    del self._buckets[tick]
                if self._expire(timed, now) is None:
                    ends_left -= 1
                if self._clock() >= until or not ends_left:
                    self._timer = loop.call_soon(self._turn)
                    return
        self._timer = None
        if self._buckets:
            self._start()

    def _expire(self, timed: Timed, now: float) -> float | None:
        deadline = None
        try:
            deadline = timed.expire(now)
        except Exception as error:  # as the loop does with a callback: the others go on
            message = f"{timed!r} failed at its deadline"
            self._loop.call_exception_handler({"message": message, "exception": error})
        else:
            if timed.tick is None:
                self.schedule(timed, deadline)
        return deadline
