"""What found no room: counted, and told in the log by a line that says what to do.

Rules of this file:

- Every event that met a full channel is counted, under the policy that it met.
- The log gets one line a second at the most, for whoever is told a thing ten thousand times
  has been told nothing.
"""

import logging
import threading
import time
from collections import Counter
from collections.abc import Sequence

from .base import Event, Overflow, Sink

__all__ = ["Losses"]

logger = logging.getLogger("headrace.layers")

_WHAT_HAPPENED = {
    Overflow.DROP_NEWEST: "dropped there",
    Overflow.DROP_OLDEST: "taken there in the place of the oldest",
    Overflow.CLOSE: "the connection was closed with 1013",
}
_WHAT_TO_DO = (
    "raise capacity, send less, let the handler do less, or choose another overflow policy"
)


class Losses:
    """The account of one process, or of one channel layer in it."""

    #: At most one line of the log in so many seconds says that there was no room.
    REPORT_INTERVAL_S = 1.0

    __slots__ = ("_lock", "_next_report", "counts")

    def __init__(self) -> None:
        #: Events that found no room, by what was done about it.
        self.counts = dict.fromkeys(Overflow, 0)
        self._lock = threading.Lock()
        self._next_report = 0.0

    @property
    def total(self) -> int:
        """How many events found no room."""
        return sum(self.counts.values())

    def note(
        self,
        where: str,
        event: Event,
        outcomes: Sequence[tuple[Sink | None, bool | Overflow]],
        members: int,
    ) -> None:
        """Count an event, or several of a burst, that members had no room for.

        Args:
            where: The group or channel that it was sent to.
            event: The event, or one of them.
            outcomes: Those members, each with what it answered (see ``Sink``).
            members: How many members there were.
        """
        policies = [_policy(outcome) for _, outcome in outcomes]
        with self._lock:
            for policy in policies:
                self.counts[policy] += 1
            now = time.monotonic()
            silent = now < self._next_report
            if not silent:
                self._next_report = now + self.REPORT_INTERVAL_S
        if silent:
            return
        kinds = Counter(
            (_consumer(sink), policy) for (sink, _), policy in zip(outcomes, policies, strict=True)
        )
        (consumer, policy), _ = kinds.most_common(1)[0]
        logger.warning(
            "%s: %d of %d members had no room for an event of type %.80r%s: %s "
            "(%d events found no room so far in this process); %s",
            where,
            len(outcomes),
            members,
            event.get("type"),
            f", most of them {consumer}" if consumer else "",
            _WHAT_HAPPENED[policy],
            self.total,
            _WHAT_TO_DO,
        )


def _policy(outcome: bool | Overflow) -> Overflow:
    return outcome if isinstance(outcome, Overflow) else Overflow.DROP_NEWEST


def _consumer(sink: Sink | None) -> str | None:
    name: str | None = getattr(getattr(sink, "bounds", None), "consumer", None)
    return name
