"""A connection's inbox: one bounded queue, read by the one task that runs the application.

Rules of this file:

- The reading task is resumed *in place*: by whoever puts an event in from a callback of the
  loop, without a turn of the loop, a handle or a future between the two. ``Inbox`` does what
  ``asyncio.Task`` asks of the object that it waits for (``_asyncio_future_blocking``,
  ``add_done_callback``, ``result``, ``cancel``), so the task is an ordinary one: it can be
  cancelled, timed and inspected.
- ``await inbox`` gives the next event, and makes no object: what is awaited is the inbox itself.
  Where thousands wait, and make anew with each event what they wait in, the garbage collector
  walks through all of that, and holds up everybody.
- No heir has a method ``close`` or ``throw``: who closes a coroutine calls those of what it awaits.
- In place means: not while another task runs. From inside a task, ``Turn`` resumes it.
"""

import asyncio
import contextvars
from collections.abc import Callable, Generator
from typing import Any

from .turn import Share, Turn

__all__ = ["Inbox", "breathe"]


class Inbox:
    """The events that wait for one application task."""

    __slots__ = (
        "_asyncio_future_blocking",
        "_cancelled",
        "_context",
        "_events",
        "_noted",
        "_wake",
        "turn",
    )

    def __init__(self, turn: Turn) -> None:
        self.turn = turn
        # A list, not a deque: the queue is short, and an empty deque takes 760 bytes.
        self._events: list[dict[str, Any]] = []
        self._asyncio_future_blocking = False
        self._wake: Callable[[Inbox], object] | None = None
        self._context: contextvars.Context | None = None
        #: The arguments of the CancelledError that the reading task is due.
        self._cancelled: tuple[Any, ...] | None = None
        self._noted = False

    async def receive(self) -> dict[str, Any]:
        """Return the oldest event; wait for one if there is none.

        One task reads at a time: a second that waits meanwhile gets a RuntimeError.
        """
        return await self

    async def stirred(self) -> None:
        """Wait, in place of ``receive``, until an event comes or somebody calls ``note``."""
        self.check_single_reader()  # here: what ``__await__`` raises is told as a TypeError
        await _Stirred(self)

    def insert(self, event: dict[str, Any], /) -> None:
        """Put an event behind those that wait, however many they are."""
        self._events.append(event)
        self.note()

    def check_single_reader(self) -> None:
        """Raise RuntimeError when a task waits already."""
        if self._wake is not None:
            raise RuntimeError(
                "receive() is being awaited by another task: an ASGI application "
                "reads a connection in one task at a time"
            )

    def note(self) -> None:
        """See to it that the reading task is resumed at the end of this turn."""
        if self._wake is not None and not self._noted:
            self._noted = True
            self.turn.resume(self)

    def resume(self) -> None:
        """Run the reading task, in place, until it waits again."""
        self._noted = False
        wake, context = self._wake, self._context
        if wake is not None and context is not None:
            self._wake = self._context = None
            try:
                context.run(wake, self)
            except SystemExit:
                return  # the task has ended with it: of no concern to whoever puts an event in

    # What a task asks of the object that it awaits

    def __await__(self) -> Generator["Inbox", None, dict[str, Any]]:
        return self  # type: ignore[return-value] # PEP 492 asks for an iterator

    def __next__(self) -> "Inbox":
        """Go on with the oldest event, or let the task wait for the inbox."""
        if self._events:
            raise StopIteration(self._events.pop(0))
        return self.block()

    def block(self) -> "Inbox":
        """Return what a task has to be given in order to wait for this inbox."""
        self.check_single_reader()
        self._asyncio_future_blocking = True
        return self

    def add_done_callback(
        self, wake: Callable[["Inbox"], object], *, context: contextvars.Context
    ) -> None:
        self._wake = wake
        self._context = context

    def get_loop(self) -> asyncio.AbstractEventLoop:
        return self.turn.loop  # not get_running_loop(): that asks the system whether we are a fork

    def cancel(self, msg: object = None) -> bool:
        if self._wake is None:
            return False
        # anyio tells by the message whose cancellation it is.
        self._cancelled = () if msg is None else (msg,)
        self.note()
        return True

    def result(self) -> None:
        arguments = self._cancelled
        if arguments is not None:
            self._cancelled = None
            raise asyncio.CancelledError(*arguments)


class _Stirred:
    """What a task awaits that takes nothing out of an inbox."""

    __slots__ = ("_inbox",)

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox

    def __await__(self) -> Generator[Inbox, None, None]:
        # What a generator would do with `yield self._inbox.block()`, without its frame.
        return iter((self._inbox.block(),))  # type: ignore[return-value] # as above


async def breathe(turn: Turn, line: Turn | Share | None = None) -> None:
    """Let others have the loop, and go on in line with what can wait.

    ``asyncio.sleep(0)`` gives a hundred senders all of each turn, and so nobody else any of it.
    ``line``: the share of a connection that has many of them.
    """
    breath = Inbox(turn)
    (line or turn).later(breath.resume)
    await _Stirred(breath)
