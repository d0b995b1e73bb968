"""What one turn of the event loop leaves to do: tasks to resume, sockets to write, what can wait.

Rules of this file:

- One callback of the loop does the work of all connections: a wake-up or a write that is
  only noted here costs a list entry, not a handle and a future of its own.
- Everything that waits for one socket when its turn comes leaves in one write.
- The work is done in slices, so that the loop gets to its sockets between them. A slice ends by the
  clock: what one piece of work costs is up to clients, and only bounded by who does it.
- What comes of bytes that have waited already can wait for others (``later``): one piece of it for
  each connection, in order, and for all of them together a millisecond a turn. A piece that has
  taken longer is paid for by the turns that follow. Who has many pieces notes them in a ``Share``.
- What has just come is begun at once for a millisecond of each turn (``has_time``), and so what
  hundreds ask for in the same moment is not all done in the same turn.
- What one connection's work raises is reported, and the others have their turn.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from .counters import Counters

__all__ = ["Resumable", "Share", "Turn", "Writable"]

#: How many tasks are resumed, or sockets written, before the loop has its turn again, and how long
#: that may take. A small write to a socket costs 5 to 8 µs, one of 64 KiB up to half a millisecond.
SLICE, SLICE_S = 256, 0.002
#: How long what can wait may take in one turn; another piece is begun only before that.
LATER_S = 0.001
#: A piece that takes longer is paid for by so many turns without another, at most.
OWED = 8
#: How long what has just come may be begun in one turn.
AT_ONCE_S = 0.001


class Resumable(Protocol):
    """Something whose task waits."""

    def resume(self) -> None:
        """Run the task until it waits again."""
        ...


class Writable(Protocol):
    """Something that keeps bytes for a socket."""

    def flush(self) -> None:
        """Hand the bytes to the socket."""
        ...


class Turn:
    """The work that is noted for the end of this turn of the loop."""

    __slots__ = (
        "_clock",
        "_later",
        "_owed",
        "_resumables",
        "_scheduled",
        "_until",
        "_writables",
        "counters",
        "loop",
    )

    def __init__(
        self, loop: asyncio.AbstractEventLoop, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.loop = loop
        # Not the loop's own, which stands still for a turn.
        self._clock = clock
        self._scheduled = False
        self._resumables: list[Resumable] = []
        self._writables: list[Writable] = []
        self._later: deque[Callable[[], object]] = deque()
        #: How many turns have nothing of what can wait, because one piece has taken theirs.
        self._owed = 0
        #: Until when this turn begins what has just come; None: nothing has.
        self._until: float | None = None
        #: Where whoever writes counts it.
        self.counters = Counters()

    def resume(self, resumable: Resumable) -> None:
        """Note that a task has something to do."""
        self._resumables.append(resumable)
        if not self._scheduled:
            self._schedule()

    def write(self, writable: Writable) -> None:
        """Note that bytes wait for a socket."""
        self._writables.append(writable)
        if not self._scheduled:
            self._schedule()

    def later(self, work: Callable[[], object]) -> None:
        """Note what can wait for others, be it for some turns; it must not take long itself."""
        self._later.append(work)
        if not self._scheduled:
            self._schedule()

    def has_time(self) -> bool:
        """Say whether this turn begins what has just come; if not, it is for ``later``."""
        now = self._clock()
        if self._until is None:
            self._until = now + AT_ONCE_S
            if not self._scheduled:
                self._schedule()
            return True
        return now < self._until

    def _schedule(self) -> None:
        self._scheduled = True
        self.loop.call_soon(self._run)

    def _run(self) -> None:
        clock = self._clock
        self._until = None
        try:
            # Tasks first: what they send joins the writes of this same turn.
            resumables = self._resumables
            self._resumables = resumables[SLICE:]
            remaining = iter(resumables[:SLICE])
            try:
                until = clock() + SLICE_S
                for resumable in remaining:
                    resumable.resume()
                    if clock() >= until:
                        break
            finally:
                # One that raised stops neither the others nor the turns to come.
                self._resumables[:0] = remaining
            writables = self._writables
            self._writables = writables[SLICE:]
            unwritten = iter(writables[:SLICE])
            try:
                until = clock() + SLICE_S
                for writable in unwritten:
                    writable.flush()
                    if clock() >= until:
                        break
            finally:
                self._writables[:0] = unwritten
            if self._later:
                self._do_later()
        finally:
            if self._resumables or self._writables or self._later:
                self.loop.call_soon(self._run)
            else:
                self._scheduled = False

    def _do_later(self) -> None:
        if self._owed:
            # The loop gets to its sockets as often as if the piece had been many. Where nobody
            # else has anything to do, such a turn is over at once.
            self._owed -= 1
            return
        # What is noted meanwhile joins the line: who is alone there goes on at once.
        later, clock = self._later, self._clock
        until = clock() + LATER_S
        while later:
            later.popleft()()
            if (over_s := clock() - until) >= 0:
                self._owed = min(int(over_s / LATER_S), OWED)
                break


class Share:
    """What one connection has to do that can wait: a piece of it each time that its turn comes.

    Whoever waits behind a connection with a hundred streams waits for one of them, not for all.
    """

    __slots__ = ("_pieces", "_turn")

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self._pieces: deque[Callable[[], object]] = deque()

    def later(self, work: Callable[[], object]) -> None:
        """Note what can wait, as ``Turn.later`` does."""
        self._pieces.append(work)
        if len(self._pieces) == 1:
            self._turn.later(self._do_one)

    def _do_one(self) -> None:
        work = self._pieces.popleft()
        if self._pieces:
            self._turn.later(self._do_one)
        work()
