"""What one turn of the event loop leaves to do: tasks to resume, sockets to write.

Rules of this file:

- One callback of the loop does the work of all connections: a wake-up or a write that is
  only noted here costs a list entry, not a handle and a future of its own.
- Everything that waits for one socket when its turn comes leaves in one write.
- The work is done in slices, so that the loop gets to its sockets between them.
- What one connection's work raises is reported, and the others have their turn.
"""

import asyncio
from typing import Protocol

from .counters import Counters

__all__ = ["Resumable", "Turn", "Writable"]

#: How many tasks are resumed, or sockets written, before the loop has its turn again.
#: A write to a socket costs 5 to 8 µs: about two milliseconds a slice.
SLICE = 256


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

    __slots__ = ("_resumables", "_scheduled", "_writables", "counters", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._scheduled = False
        self._resumables: list[Resumable] = []
        self._writables: list[Writable] = []
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

    def _schedule(self) -> None:
        self._scheduled = True
        self.loop.call_soon(self._run)

    def _run(self) -> None:
        try:
            # Tasks first: what they send joins the writes of this same turn.
            resumables = self._resumables
            self._resumables = resumables[SLICE:]
            remaining = iter(resumables[:SLICE])
            try:
                for resumable in remaining:
                    resumable.resume()
            finally:
                # One that raised stops neither the others nor the turns to come.
                self._resumables[:0] = remaining
            writables = self._writables
            self._writables = writables[SLICE:]
            unwritten = iter(writables[:SLICE])
            try:
                for writable in unwritten:
                    writable.flush()
            finally:
                self._writables[:0] = unwritten
        finally:
            if self._resumables or self._writables:
                self.loop.call_soon(self._run)
            else:
                self._scheduled = False
