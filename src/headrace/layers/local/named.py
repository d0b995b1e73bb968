"""Named channels: what waits for them, and who waits.

Rules of this file:

- A reader says that it waits before it looks, and a sender looks who waits after it has put:
  one of the two sees the other.
- All who wait for a channel are woken for each message, and one of them gets it. So none is
  lost with a reader that was woken and is gone.
- The queue may be busy for as long as a change takes. A call comes again then, and gives up when
  it has to be taken that whoever holds the queue has been stopped.
"""

import asyncio
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import ParamSpec, TypeVar

from .interest import QUEUE, Interest, bucket_of
from .peers import new_waiter
from .queue import Busy, Queue

__all__ = ["NamedChannels"]

P = ParamSpec("P")
T = TypeVar("T")


class NamedChannels:
    """The named channels as this process sees them.

    Args:
        files: Returns the queue and the table that are to be used now.
        want: Says whether this process wants to hear of a name.
        nudge: Tells the other processes that want to hear of a channel to look.
    """

    #: How long the queue may be busy.
    BUSY_S = 5.0

    def __init__(
        self,
        files: Callable[[], tuple[Queue, Interest]],
        *,
        want: Callable[[str, bool], None],
        nudge: Callable[[str], None],
    ) -> None:
        self._files = files
        self._want = want
        self._nudge = nudge
        self._lock = threading.Lock()
        self._waiters: dict[str, set[Future[None]]] = {}

    @staticmethod
    def bucket_of(channel: str) -> int:
        """Return the bucket in which those are who wait for the channel."""
        return bucket_of(_name(channel))

    def put(self, channel: str, data: bytes, *, capacity: int, expiry_s: float) -> bool:
        """Add to the channel's queue; False when it is full. Busy when it can't be told now."""
        queue, _ = self._files()
        now = time.time()
        if not queue.put(channel, data, capacity=capacity, now=now, until=now + expiry_s):
            return False
        self.wake(channel)
        self._nudge(channel)
        return True

    async def get(self, channel: str) -> bytes:
        """Wait for what is oldest in the channel's queue, and take it out."""
        self._want(_name(channel), True)
        try:
            while True:
                waiter = new_waiter()
                with self._lock:
                    self._waiters.setdefault(channel, set()).add(waiter)
                try:
                    data = await self.patiently(self._take, channel)
                    if data is not None:
                        return data
                    await asyncio.wrap_future(waiter)
                finally:
                    self._stop_waiting(channel, waiter)
        finally:
            self._want(_name(channel), False)

    def wake(self, channel: str | None = None) -> None:
        """Let all who wait here for the channel look; None: for any channel."""
        with self._lock:
            channels = list(self._waiters) if channel is None else [channel]
            woken = [waiter for name in channels for waiter in self._waiters.get(name, ())]
        for waiter in woken:
            _finish(waiter)

    def join(self, group: str, channel: str, *, expiry_s: float) -> None:
        """Make the channel a member of the group."""
        queue, table = self._files()
        bucket = bucket_of(group)
        queue.join(
            group,
            channel,
            bucket=bucket,
            until=time.time() + expiry_s,
            mark=lambda: table.set(QUEUE, bucket, wanted=True),
        )

    def leave(self, group: str, channel: str) -> None:
        """Take the channel out of the group."""
        queue, table = self._files()
        bucket = bucket_of(group)
        queue.leave(
            group,
            channel,
            bucket=bucket,
            now=time.time(),
            unmark=lambda: table.set(QUEUE, bucket, wanted=False),
        )

    def members(self, group: str) -> list[str]:
        """Return the named channels in the group."""
        return self._files()[0].members(group, now=time.time())

    def clear(self) -> None:
        """Forget all that waits, and all memberships."""
        queue, table = self._files()
        queue.clear(unmark=lambda: table.clear_row(QUEUE))

    async def patiently(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Make a call of these, again and again while the queue is busy; TimeoutError at last."""
        for pause_s in self._pauses():
            try:
                return call(*args, **kwargs)
            except Busy:
                await asyncio.sleep(pause_s)
        raise self._too_busy()

    def patiently_sync(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do what ``patiently`` does, without an event loop."""
        for pause_s in self._pauses():
            try:
                return call(*args, **kwargs)
            except Busy:
                time.sleep(pause_s)
        raise self._too_busy()

    def _take(self, channel: str) -> bytes | None:
        return self._files()[0].get(channel, now=time.time())

    def _stop_waiting(self, channel: str, waiter: "Future[None]") -> None:
        with self._lock:
            waiters = self._waiters[channel]
            waiters.discard(waiter)
            if not waiters:
                del self._waiters[channel]

    def _pauses(self) -> Iterator[float]:
        """Yield the pauses between attempts, until it is enough."""
        until, pause_s = time.monotonic() + self.BUSY_S, 0.001
        while True:
            # Not all at once again.
            yield pause_s * random.uniform(0.5, 1.5)  # noqa: S311
            if time.monotonic() > until:
                return
            pause_s = min(pause_s * 1.5, 0.05)

    def _too_busy(self) -> TimeoutError:
        return TimeoutError(
            f"the queue of named channels is busy since {self.BUSY_S:g} s: a process may have "
            "been stopped while it changed it"
        )


def _name(channel: str) -> str:
    """Return the name that stands for those who wait: no group has such a one."""
    return channel + "!"


def _finish(waiter: "Future[None]") -> None:
    if not waiter.done():
        waiter.set_result(None)
