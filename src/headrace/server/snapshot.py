"""What a server is doing now: snapshots, and the probe of its event loop.

Rules of this file:

- A snapshot looks at nothing that grows with the number of connections: what has to be asked
  of each, the probe asks on the side, a few hundred in one turn of the loop.
- A snapshot is taken on the loop's thread, and changes nothing: any number of readers may.
"""

import asyncio
import itertools
import os
import resource
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any

from ..instruments import Histogram, Reading, Snapshot, process
from .health import unready
from .runtime import Drainable, Runtime

__all__ = ["Probe", "take"]

#: The loop is asked so often whether it is late.
INTERVAL_S = 0.25
#: The longest lag is remembered for so long, and for up to twice that.
LAG_MEMORY_S = 5.0
#: So often every connection is asked how much waits, so many of them in one turn.
ROUND_S = 1.0
SLICE = 500

LAG_SECONDS = (0.005, 0.02, 0.1, 0.5, 2.0)

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Depth:
    """What waited in the inboxes and outboxes at one look at each connection."""

    __slots__ = ("inbox", "inbox_max", "outbox_bytes", "outbox_bytes_max", "slow")

    def __init__(self) -> None:
        self.inbox = 0
        self.inbox_max = 0
        self.outbox_bytes = 0
        self.outbox_bytes_max = 0
        #: Connections whose socket takes no more.
        self.slow = 0

    def look(self, connection: Drainable) -> None:
        inbox, outbox_bytes, paused = connection.waiting()
        if inbox:
            self.inbox += inbox
            self.inbox_max = max(self.inbox_max, inbox)
        if outbox_bytes:
            self.outbox_bytes += outbox_bytes
            self.outbox_bytes_max = max(self.outbox_bytes_max, outbox_bytes)
        if paused:
            self.slow += 1


class Probe:
    """Measures how late the loop is, and asks each connection how much waits."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._loop = runtime.loop
        self.lags = Histogram(LAG_SECONDS)
        # The longest of this period, and of the one before.
        self._longest = self._longest_before = 0.0
        self._period_ends = 0.0
        self._timer: asyncio.Handle | None = None
        self._due = 0.0
        #: What the last whole round found.
        self.depth = Depth()
        self._round = Depth()
        self._remaining: Iterator[Drainable] | None = None
        self._next_round = 0.0

    @property
    def lag_s(self) -> float:
        """The longest that the loop was late in the last seconds."""
        late = self._loop.time() - self._due if self._timer is not None else 0.0
        return max(self._longest, self._longest_before, late, 0.0)

    def start(self) -> None:
        """Begin."""
        self._period_ends = self._loop.time() + LAG_MEMORY_S
        self._schedule()

    def stop(self) -> None:
        """End."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._remaining = None

    def _schedule(self) -> None:
        self._due = self._loop.time() + INTERVAL_S
        self._timer = self._loop.call_at(self._due, self._look)

    def _look(self) -> None:
        now = self._loop.time()
        lag = max(0.0, now - self._due)
        self.lags.observe(lag)
        if now >= self._period_ends:
            # After a long silence neither period is of the last seconds.
            late = now - self._period_ends >= LAG_MEMORY_S
            self._longest_before = 0.0 if late else self._longest
            self._longest = 0.0
            self._period_ends = now + LAG_MEMORY_S
        self._longest = max(self._longest, lag)
        if self._remaining is None and now >= self._next_round:
            self._next_round = now + ROUND_S
            self._round = Depth()
            self._remaining = iter(list(self._runtime.connections))
            self._go_round()
        self._schedule()

    def _go_round(self) -> None:
        remaining = self._remaining
        if remaining is None:
            return
        last = None
        for last in itertools.islice(remaining, SLICE):
            self._round.look(last)
        if last is None:
            self.depth, self._remaining = self._round, None
        else:
            self._loop.call_soon(self._go_round)

    def read(self, into: Reading) -> None:
        """Add what it has found to a reading."""
        into.histogram(
            "headrace_loop_lag_seconds", "How late the event loop came to a timer.", self.lags
        )
        depth = self.depth
        for name, text, value in (
            ("inbox_events", "Events that wait for the application.", depth.inbox),
            ("inbox_events_max", "The most that wait for one connection.", depth.inbox_max),
            ("outbox_bytes", "Bytes that wait for sockets.", depth.outbox_bytes),
            ("outbox_bytes_max", "The most that wait for one.", depth.outbox_bytes_max),
            ("connections_blocked", "Connections whose socket takes no more.", depth.slow),
        ):
            into.gauge(f"headrace_{name}", text, value)


def take(runtime: Runtime, probe: Probe) -> Snapshot:
    """Return the snapshot of this process, and of this server in it."""
    reading = Reading()
    process.read(reading)
    runtime.counters.read(reading)
    probe.read(reading)
    into: Iterable[tuple[str, Any]] = reading.as_dict().items()
    return {
        "worker": runtime.worker,
        "pid": os.getpid(),
        "started": runtime.started,
        "cpu_s": time.process_time(),
        "rss_bytes": rss_bytes(),
        "descriptors": descriptors(),
        "tasks": len(runtime.tasks),
        "threads": threading.active_count(),
        "loop_lag_s": probe.lag_s,
        "unready": unready(runtime),
        **dict(into),
    }


def rss_bytes() -> int:
    """Return the memory that the process has in RAM; where the system does not say, its peak."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * _PAGE_BYTES
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def descriptors() -> int:
    """Return how many descriptors are open; 0 where the system does not say."""
    for folder in ("/proc/self/fd", "/dev/fd"):
        try:
            # Linux from 6.2 on says it without listing fifteen thousand of them.
            size = os.stat(folder).st_size if folder.startswith("/proc") else 0
            return size or len(os.listdir(folder)) - 1
        except OSError:
            continue
    return 0
