"""How long things took, and what never came.

Rules of this file: times are seconds of ``time.perf_counter()``. Who sends and who sees are
coroutines of one process, so that no two clocks are compared.
"""

import time
from collections.abc import Hashable, Iterable

__all__ = ["Delays", "Ledger"]


class Delays:
    """Durations of one kind, in seconds."""

    def __init__(self) -> None:
        self._all: list[float] = []

    def add(self, seconds: float) -> None:
        self._all.append(seconds)

    def clear(self) -> None:
        self._all.clear()

    def __len__(self) -> int:
        return len(self._all)

    def percentile(self, share: float) -> float:
        """Return the least of them that ``share`` (0 to 1) of all don't exceed; 0 without any."""
        if not self._all:
            return 0.0
        ordered = sorted(self._all)
        return ordered[max(0, -(-int(share * 10_000) * len(ordered) // 10_000) - 1)]


class Ledger:
    """What was sent, who has still to see it, and how long it took those who have."""

    def __init__(self) -> None:
        self.delays = Delays()
        self.sent_in_all = 0
        self._open: dict[Hashable, tuple[float, set[Hashable]]] = {}

    def sent(self, key: Hashable, audience: Iterable[Hashable]) -> None:
        """Note that something is sent now, which each of ``audience`` has to see."""
        self.sent_in_all += 1
        if waiting := set(audience):
            self._open[key] = (time.perf_counter(), waiting)

    def seen(self, key: Hashable, by: Hashable) -> None:
        """Note that ``by`` sees it now. What nobody waits for, or what comes twice, is nothing."""
        sent_at, waiting = self._open.get(key, (0.0, set()))
        if by in waiting:
            self.delays.add(time.perf_counter() - sent_at)
            self.excuse(key, by)

    def excuse(self, key: Hashable, by: Hashable) -> None:
        """Wait no longer for ``by`` to see it: it has left, or was told that it won't."""
        _, waiting = self._open.get(key, (0.0, set()))
        waiting.discard(by)
        if not waiting:
            self._open.pop(key, None)

    def unseen(self, by: Hashable) -> list[Hashable]:
        """Return what ``by`` has still to see."""
        return [key for key, (_, waiting) in self._open.items() if by in waiting]

    @property
    def missing(self) -> int:
        """How often something was not seen until now."""
        return sum(len(waiting) for _, waiting in self._open.values())
