"""How long handlers take, by consumer and handler.

Rules of this file:

- A class of consumers has one ``Times``, a histogram for each type of event: to time a call
  costs two looks at the clock, a look into a dictionary and two additions.
- What is measured is what the connection waits for: what a handler awaits is its time, too.
"""

import heapq
from collections.abc import Mapping
from time import perf_counter
from typing import Any

from .instruments import LABELS, SECONDS, SLOWEST, Histogram, Reading, process

__all__ = ["QUICK_S", "Times", "failed", "perf_counter"]

#: Below the first bound a call is counted without a search for its place.
QUICK_S = SECONDS[0]

_HANDLERS = process.histograms(
    "headrace_handler_seconds",
    "From the beginning of a handler to its end, what it awaits included.",
    "consumer",
    "handler",
)
_FAILURES = process.counters(
    "headrace_handler_failures_total",
    "Handlers that raised something else than StopConsumer.",
    "consumer",
    "handler",
)


class Times(dict[str, Histogram]):
    """The histograms of one class of consumers, by the type of the event."""

    __slots__ = ("consumer",)

    def __init__(self, consumer: type) -> None:
        super().__init__()
        self.consumer = f"{consumer.__module__}.{consumer.__qualname__}"

    def __missing__(self, type_: str) -> Histogram:
        if len(self) >= LABELS:
            type_ = "other"
        handler = str(type_).replace(".", "_")
        return self.setdefault(type_, _HANDLERS[self.consumer, handler])

    def note(self, message: Mapping[str, Any] | None, began: float) -> None:
        """Take into account a handler that has just ended."""
        type_ = "other" if message is None else message.get("type", "other")
        self[type_].observe(perf_counter() - began)


def failed(times: Times, message: Mapping[str, Any]) -> None:
    """Count a handler that raised an error."""
    handler = str(message.get("type", "other")).replace(".", "_")
    _FAILURES[times.consumer, handler].value += 1


def _slowest(into: Reading) -> None:
    """Name the handlers in which most of the time was spent."""
    handlers = list(_HANDLERS.items())
    for names, histogram in heapq.nlargest(SLOWEST, handlers, key=lambda item: item[1].sum):
        consumer, handler = tuple(names)
        # What was quick was not compared.
        longest_s = histogram.largest or min(QUICK_S, histogram.sum)
        into.consumers.append((consumer, handler, histogram.count, histogram.sum, longest_s))


process.source(_slowest)
