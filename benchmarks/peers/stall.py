"""How long the event loop was held: a timer that is due again and again, and its longest delay."""

import asyncio
import time

EVERY_S = 0.001


class Stall:
    """Watch the running loop: by the clock, and by the CPU time of its thread.

    The second is what the loop did itself, on however busy a machine.
    """

    def __init__(self):
        self._loop = asyncio.get_running_loop()
        self._begin()
        self._timer = self._loop.call_later(EVERY_S, self._tick)

    def _begin(self):
        self._longest = self._longest_cpu = 0.0
        self._last, self._last_cpu = time.perf_counter(), time.thread_time()

    def _tick(self):
        now, cpu = time.perf_counter(), time.thread_time()
        self._longest = max(self._longest, now - self._last - EVERY_S)
        self._longest_cpu = max(self._longest_cpu, cpu - self._last_cpu)
        self._last, self._last_cpu = now, cpu
        self._timer = self._loop.call_later(EVERY_S, self._tick)

    def asked(self):
        """Return the longest delays since this was asked last, in microseconds."""
        text = f"{self._longest * 1e6:.0f} {self._longest_cpu * 1e6:.0f}"
        self._begin()
        return text

    def end(self):
        self._timer.cancel()
