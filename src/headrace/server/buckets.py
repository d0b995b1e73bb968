"""Accounts of who has had how much: rates, and places that are taken and given back.

Rules of this file:

- Time is a number that is passed in; nothing here knows a socket, a loop or a log.
- What is kept for one key goes when its bucket is full again, or with its last place, and the
  buckets together have a bound: whoever has many addresses can't fill the memory.
"""

import math
from collections.abc import Hashable

__all__ = ["MOST_KEYS", "Buckets", "Places", "TokenBucket"]

#: Keys whose rate is remembered at once; the one that was seen longest ago goes first.
MOST_KEYS = 65_536
#: The part of one that may be missing all the same: the numbers are rounded.
_ROUNDING = 1e-6


class TokenBucket:
    """So much a second, and ``burst_s`` seconds' worth of it at once.

    One number tells how full it is: the time at which it will be full again.
    """

    __slots__ = ("_burst_s", "_each_s", "full_at")

    def __init__(self, per_s: float, burst_s: float) -> None:
        self._each_s = 1 / per_s
        # A bucket that could never hold one would never give one.
        self._burst_s = max(burst_s, self._each_s)
        self.full_at = -math.inf

    def take(self, now: float, amount: float = 1.0) -> float:
        """Take so much and return 0.0; or take nothing, and return the seconds until it is there.

        More than the bucket can hold is never there.
        """
        full_at = max(self.full_at, now) + amount * self._each_s
        wait_s = full_at - now - self._burst_s
        if wait_s > self._each_s * _ROUNDING:
            return wait_s
        self.full_at = full_at
        return 0.0


class Buckets:
    """A token bucket for each of many keys, kept for as long as it is not full."""

    __slots__ = ("_burst_s", "_each_s", "_full_at", "_most")

    def __init__(self, per_s: float, burst_s: float, *, most: int = MOST_KEYS) -> None:
        self._each_s = 1 / per_s
        self._burst_s = max(burst_s, self._each_s)
        self._most = most
        #: Those that were taken from latest stand last.
        self._full_at: dict[Hashable, float] = {}

    def __len__(self) -> int:
        return len(self._full_at)

    def take(self, key: Hashable, now: float) -> float:
        """Take one from the bucket of this key, as ``TokenBucket.take`` does."""
        held = self._full_at
        self._forget(now)
        full_at = max(held.get(key, now), now) + self._each_s
        wait_s = full_at - now - self._burst_s
        if wait_s > self._each_s * _ROUNDING:
            return wait_s
        held.pop(key, None)
        held[key] = full_at
        return 0.0

    def _forget(self, now: float) -> None:
        """Drop two that are full again, or the oldest where there are too many."""
        held = self._full_at
        for _ in range(2):
            oldest = next(iter(held), None)
            if oldest is None or (held[oldest] > now and len(held) < self._most):
                return
            del held[oldest]


class Places:
    """So many places for each of many keys; a key without a place is forgotten."""

    __slots__ = ("_limit", "_taken")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._taken: dict[Hashable, int] = {}

    def __len__(self) -> int:
        return len(self._taken)

    def enter(self, key: Hashable) -> bool:
        """Take a place, if there is one."""
        taken = self._taken.get(key, 0)
        if taken >= self._limit:
            return False
        self._taken[key] = taken + 1
        return True

    def leave(self, key: Hashable) -> None:
        """Give a place back."""
        taken = self._taken[key] - 1
        if taken:
            self._taken[key] = taken
        else:
            del self._taken[key]
