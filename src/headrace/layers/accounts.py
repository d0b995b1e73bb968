"""What the channel layers of this process have counted, for a snapshot.

Rules of this file:

- It is read when a snapshot is taken, and walks no more than so many groups at a time.
- A layer need not be ours: what it does not say is left out.
"""

import heapq
import itertools
from collections.abc import Callable, Mapping
from time import perf_counter
from typing import Any
from weakref import WeakKeyDictionary

from ..instruments import LARGEST, Reading, process
from .base import BaseChannelLayer, Event

__all__ = ["Accounts", "waits"]

#: Groups that one snapshot looks at, beside those that were the largest before.
LOOKED_AT = 10_000
#: An event that waits for longer may be with something that is no consumer of ours.
FORGOTTEN_S = 60.0

_STATS = {
    "sent": "Frames to other processes and queues.",
    "received": "Frames from other processes and queues.",
    "undecodable": "What came and was no frame.",
    "unreachable": "Frames for processes that are gone.",
    "gaps": "How often consumers may have missed something.",
    "disconnects": "Lost connections of what listens to a server.",
    "reconnects": "Connections that came again.",
    "repeated": "Frames that came twice and were taken once.",
}


class _Largest:
    """The largest groups of one layer, found a piece at a time."""

    def __init__(self) -> None:
        self._names: set[str] = set()
        self._from = 0

    def look(self, groups: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, int]]:
        # One call that no other thread gets between: groups come and go on any.
        names = list(itertools.islice(groups, self._from, self._from + LOOKED_AT))
        self._from = self._from + LOOKED_AT if len(names) == LOOKED_AT else 0
        sizes = {
            name: len(members)
            for name in self._names.union(names)
            if (members := groups.get(name)) is not None
        }
        largest = heapq.nlargest(LARGEST, sizes.items(), key=lambda item: item[1])
        self._names = {name for name, _ in largest}
        return largest


class Accounts:
    """Reads the layers that this function returns, by alias."""

    def __init__(self, layers: Callable[[], Mapping[str, BaseChannelLayer]]) -> None:
        self._layers = layers
        self._largest: WeakKeyDictionary[BaseChannelLayer, _Largest] = WeakKeyDictionary()

    def __call__(self, into: Reading) -> None:
        """Add what they have counted."""
        for alias, layer in list(self._layers().items()):
            self._read(layer, alias, into)

    def _read(self, layer: BaseChannelLayer, alias: str, into: Reading) -> None:
        stats: Mapping[str, int] = getattr(layer, "stats", None) or {}
        for name, text in _STATS.items():
            if name in stats:
                into.counter(f"headrace_layer_{name}_total", text, stats[name], layer=alias)
        try:
            overflows = layer.overflows
        except (AttributeError, NotImplementedError):
            overflows = {}
        for policy, count in overflows.items():
            into.counter(
                "headrace_layer_overflows_total",
                "Events for which a consumer had no room, by what was done about it.",
                count,
                layer=alias,
                policy=str(policy),
            )
        groups = getattr(layer, "groups", None)
        channels = getattr(layer, "channels", None)
        if not isinstance(groups, dict) or not isinstance(channels, dict):
            return
        into.gauge("headrace_layer_groups", "Groups with members here.", len(groups), layer=alias)
        into.gauge("headrace_layer_channels", "Channels here.", len(channels), layer=alias)
        largest = self._largest.setdefault(layer, _Largest()).look(groups)
        into.groups += largest
        into.gauge(
            "headrace_layer_group_members_max",
            "Members of the largest group, in one process.",
            max((members for _, members in largest), default=0),
            layer=alias,
        )
        into.gauge(
            "headrace_layer_ready",
            "Processes whose channel layer can do its work, as far as it knows.",
            getattr(layer, "unready", None) is None,
            layer=alias,
        )


class Waits:
    """How long an event waits, from its delivery in this process until its handler begins.

    One event in ``ONE_IN`` is looked at, the others cost the comparison that finds it. There is
    one such event at a time; one that never reaches a handler makes room for the next.
    """

    ONE_IN = 64

    __slots__ = ("_began", "_left", "_seconds", "event")

    def __init__(self) -> None:
        self.event: Event | None = None
        self._left = self.ONE_IN
        self._began = 0.0
        self._seconds = process.histogram(
            "headrace_layer_wait_seconds",
            "From the delivery of an event to the beginning of its handler; one event in 64.",
        )

    def put(self, event: Event) -> None:
        """Learn of an event that is being put into an inbox."""
        self._left -= 1
        if not self._left:
            self._left = self.ONE_IN
            self._began = perf_counter()
            self.event = event

    def begun(self) -> None:
        """Learn that the handler of ``event`` begins."""
        self.event = None
        self._seconds.observe(perf_counter() - self._began)

    def forget(self, _: Reading) -> None:
        """Let go of an event that no handler has begun with for long."""
        if self.event is not None and perf_counter() - self._began > FORGOTTEN_S:
            self.event = None


waits = Waits()
process.source(waits.forget)
