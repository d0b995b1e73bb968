"""Instruments: what a process counts and measures, and the snapshot that all of it is read by.

Rules of this file:

- To count is one addition: ``cell.value += 1``. No lock, no call, no lookup: who counts often
  keeps the cell.
- Such an addition may be made on any thread. CPython switches threads at calls and at backward
  jumps, and between the reading of ``value`` and its writing there is neither.
- What somebody keeps an account of already is not counted again: a *source* reads it when a
  snapshot is taken.
- The values of a label are few: beyond ``LABELS`` they are counted as ``other``. Names are those
  of Prometheus; what ends in ``_total`` never goes down.
- A snapshot is plain data, which MessagePack and JSON take, and says all there is to say of
  itself. Snapshots add up: over the workers of a server, and those that have ended.
"""

import contextvars
import heapq
import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

__all__ = [
    "LABELS",
    "LARGEST",
    "SECONDS",
    "SLOWEST",
    "Cell",
    "Conditions",
    "Family",
    "Histogram",
    "Histograms",
    "Instruments",
    "Reading",
    "Snapshot",
    "conditions",
    "connection_id",
    "current_number",
    "label_text",
    "labels_of",
    "process",
    "remains",
    "total",
]

Snapshot = dict[str, Any]
T = TypeVar("T")

#: Values that the labels of one instrument may take.
LABELS = 200
#: Groups and handlers that a snapshot names.
LARGEST = SLOWEST = 20
#: Upper bounds for times, in seconds: few, for each is a line of the output.
SECONDS = (0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10.0)

_OTHER = "other"
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_ESCAPES = {"\\": "\\\\", "\n": "\\n", '"': '\\"'}
_LABEL = re.compile(r'([a-z0-9_]+)="((?:[^"\\]|\\.)*)",?')


class Cell:
    """A number: add to its ``value``."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: float = 0


class Histogram:
    """How many observations fell below each bound, and their sum."""

    __slots__ = ("bounds", "counts", "largest", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.sum = 0.0
        self.largest = 0.0

    def observe(self, value: float) -> None:
        """Take one more into account."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value
        if value > self.largest:
            self.largest = value

    @property
    def count(self) -> int:
        """How many there were."""
        return sum(self.counts)


Key = str | tuple[str, ...]


class Family(dict[Key, Cell]):
    """The cells of one counter, by the value of its label, or a tuple of several."""

    __slots__ = ("labels",)

    def __init__(self, labels: Sequence[str]) -> None:
        super().__init__()
        self.labels = tuple(labels)

    def __missing__(self, key: Key) -> Cell:
        return self.setdefault(_bounded(self, key, self.labels), Cell())

    @property
    def value(self) -> float:
        """The sum of all cells."""
        return sum(cell.value for cell in list(self.values()))


class Histograms(dict[Key, Histogram]):
    """The histograms of one name, by the value of their label, or a tuple of several."""

    __slots__ = ("bounds", "labels")

    def __init__(self, labels: Sequence[str], bounds: Sequence[float]) -> None:
        super().__init__()
        self.labels = tuple(labels)
        self.bounds = tuple(bounds)

    def __missing__(self, key: Key) -> Histogram:
        return self.setdefault(_bounded(self, key, self.labels), Histogram(self.bounds))


def _bounded(family: dict[Key, Any], key: Key, labels: tuple[str, ...]) -> Key:
    given = 1 if isinstance(key, str) else len(key)
    if given != len(labels):
        raise ValueError(f"a value for each of the labels {', '.join(labels)}, not {key!r:.100}")
    if len(family) < LABELS:
        return key
    return _OTHER if isinstance(key, str) else (_OTHER,) * len(key)


class Reading:
    """What a source, or a set of instruments, has to say when a snapshot is taken."""

    __slots__ = ("consumers", "counters", "gauges", "groups", "help", "histograms")

    def __init__(self) -> None:
        self.counters: dict[str, dict[str, float]] = {}
        self.gauges: dict[str, dict[str, float]] = {}
        self.histograms: dict[str, dict[str, dict[str, Any]]] = {}
        self.help: dict[str, str] = {}
        #: Groups, each a name and its members here.
        self.groups: list[tuple[str, int]] = []
        #: Handlers: class, method, calls, seconds, and the longest of them.
        self.consumers: list[tuple[str, str, int, float, float]] = []

    def counter(self, name: str, help_text: str, value: float, /, **labels: str) -> None:
        """Add to a counter; its name ends in ``_total``."""
        self._add(self.counters, name, help_text, value, labels)

    def gauge(self, name: str, help_text: str, value: float, /, **labels: str) -> None:
        """Add to a gauge. One with ``_max`` in its name is the largest of those, not the sum."""
        self._add(self.gauges, name, help_text, value, labels)

    def histogram(self, name: str, help_text: str, value: Histogram, /, **labels: str) -> None:
        """Add to a histogram."""
        self.help[name] = help_text
        held = self.histograms.setdefault(name, {})
        data = {"bounds": list(value.bounds), "counts": list(value.counts), "sum": value.sum}
        _add_histogram(held, label_text(labels.items()), data)

    def _add(
        self,
        into: dict[str, dict[str, float]],
        name: str,
        help_text: str,
        value: float,
        labels: dict[str, str],
    ) -> None:
        self.help[name] = help_text
        _add_number(into.setdefault(name, {}), name, label_text(labels.items()), value)

    def as_dict(self) -> Snapshot:
        """Return it as a part of a snapshot."""
        return {
            "counters": self.counters,
            "gauges": self.gauges,
            "histograms": self.histograms,
            "help": self.help,
            "groups": _largest(self.groups),
            "consumers": _slowest(self.consumers),
        }


Source = Callable[[Reading], object]


class Instruments:
    """A set of instruments: those of a process, or of one server in it."""

    def __init__(self) -> None:
        #: The number of this process among the workers of its server; 0: it is the only one.
        self.worker = 0
        self._help: dict[str, str] = {}
        self._cells: dict[str, Cell] = {}
        self._families: dict[str, Family] = {}
        self._gauges: dict[str, Callable[[], float]] = {}
        self._histograms: dict[str, Histograms] = {}
        self._sources: list[Source] = []

    def counter(self, name: str, help_text: str) -> Cell:
        """Return the cell of a counter, whose name ends in ``_total``.

        Asked again for a name, this and its kin return what they returned before.
        """
        return self._declared(self._cells, name, help_text, Cell, counts=True)

    def counters(self, name: str, help_text: str, *labels: str) -> Family:
        """Return the cells of a counter with labels: ``refusals["too many"].value += 1``."""
        return self._declared(
            self._families, name, help_text, lambda: Family(labels), counts=True, labels=labels
        )

    def gauge(self, name: str, help_text: str, read: Callable[[], float]) -> None:
        """Let this function tell a number that goes up and down. A name has one: the last."""
        self._declared(self._gauges, name, help_text, lambda: read)
        self._gauges[name] = read

    def histograms(
        self, name: str, help_text: str, *labels: str, bounds: Sequence[float] = SECONDS
    ) -> Histograms:
        """Return the histograms of a name, by label."""
        return self._declared(
            self._histograms, name, help_text, lambda: Histograms(labels, bounds), labels=labels
        )

    def histogram(
        self, name: str, help_text: str, *, bounds: Sequence[float] = SECONDS
    ) -> Histogram:
        """Return a histogram without labels."""
        return self.histograms(name, help_text, bounds=bounds)[()]

    def source(self, read: Source) -> Source:
        """Let this function add to each reading what it keeps an account of. Returns it."""
        if read not in self._sources:
            self._sources.append(read)
        return read

    def read(self, into: Reading | None = None) -> Reading:
        """Return what all of them say now."""
        reading = Reading() if into is None else into
        for name, cell in list(self._cells.items()):
            reading.counter(name, self._help[name], cell.value)
        for name, family in list(self._families.items()):
            reading.help[name] = self._help[name]
            reading.counters.setdefault(name, {})
            for key, cell in list(family.items()):
                reading.counter(name, self._help[name], cell.value, **_named(family.labels, key))
        for name, read in list(self._gauges.items()):
            reading.gauge(name, self._help[name], read())
        for name, histograms in list(self._histograms.items()):
            for key, histogram in list(histograms.items()):
                labels = _named(histograms.labels, key)
                reading.histogram(name, self._help[name], histogram, **labels)
        for source in list(self._sources):
            source(reading)
        return reading

    def _declared(
        self,
        kind: dict[str, T],
        name: str,
        help_text: str,
        make: Callable[[], T],
        *,
        counts: bool = False,
        labels: Sequence[str] = (),
    ) -> T:
        if name not in kind:
            if name in self._help:
                raise ValueError(f"{name} is an instrument of another kind already")
            for part in (name, *labels):
                if not _NAME.fullmatch(part):
                    raise ValueError(
                        f"an instrument and its labels have names as a_b, not {part!r}"
                    )
            if counts != name.endswith("_total"):
                raise ValueError(f"the name of a counter ends in _total, no other: {name}")
            kind[name] = make()
            self._help[name] = help_text
        instrument = kind[name]
        if tuple(labels) != (known := getattr(instrument, "labels", ())):
            raise ValueError(f"{name} has the labels {known}, not {tuple(labels)}")
        return instrument


def _named(labels: tuple[str, ...], key: Key) -> dict[str, str]:
    return dict(zip(labels, (key,) if isinstance(key, str) else key, strict=True))


#: The instruments of this process: layers, consumers, threads, and those of the application.
process = Instruments()


#: The number of the connection that this code runs for: its task, and what that has started.
current_number: contextvars.ContextVar[int] = contextvars.ContextVar("headrace_connection")


def connection_id() -> str | None:
    """Return the id of the connection that this code runs for; None: for none of our server's.

    It is the id that the log, the operations page and ``headrace top`` show.
    """
    number = current_number.get(0)
    return f"{process.worker}-{number}" if number else None


class Conditions:
    """What has to hold before a process takes clients, beside that it has started."""

    def __init__(self) -> None:
        self._asked: dict[str, Callable[[], str | None]] = {}

    def require(self, name: str, ask: Callable[[], str | None]) -> None:
        """Let this function say why something is missing; None: nothing is.

        It is asked for each health check, on the event loop, and answers at once. A name has one:
        the last.
        """
        self._asked[name] = ask

    def forget(self, name: str) -> None:
        """Ask no more under this name."""
        self._asked.pop(name, None)

    def unmet(self) -> str | None:
        """Return the first reason that there is."""
        for name, ask in list(self._asked.items()):
            try:
                reason = ask()
            except Exception as error:
                reason = f"{name}: {type(error).__name__} when it was asked for"
            if reason is not None:
                return reason
        return None


#: Those of this process.
conditions = Conditions()


# Labels as text: what the keys of a snapshot are.


def label_text(labels: Iterable[tuple[str, str]]) -> str:
    """Return labels in one text, as Prometheus writes them: ``protocol="http/2",tls="yes"``."""
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in sorted(labels))


def labels_of(text: str) -> dict[str, str]:
    """Return the labels that ``label_text`` made a text of."""
    return {name: _unescaped(value) for name, value in _LABEL.findall(text)}


def _escaped(value: str) -> str:
    return re.sub(r'[\\\n"]', lambda found: _ESCAPES[found[0]], value)


def _unescaped(value: str) -> str:
    return re.sub(r"\\(.)", lambda found: "\n" if found[1] == "n" else found[1], value)


# Snapshots


def total(snapshots: Iterable[Snapshot]) -> Snapshot:
    """Add snapshots up; the sum has ``worker`` and ``pid`` None.

    What is a number of things is summed. ``loop_lag_s`` is the longest, ``started`` the first,
    and a gauge with ``_max`` in its name the largest.
    """
    result: Snapshot = {"worker": None, "pid": None, "started": None, "loop_lag_s": 0.0}
    result |= dict.fromkeys(_SUMMED, 0)
    result |= {"counters": {}, "gauges": {}, "histograms": {}, "help": {}}
    groups: dict[str, int] = {}
    consumers: dict[tuple[str, str], tuple[int, float, float]] = {}
    for each in snapshots:
        for name in _SUMMED:
            result[name] += each.get(name) or 0
        result["loop_lag_s"] = max(result["loop_lag_s"], each.get("loop_lag_s") or 0.0)
        began = [when for when in (result["started"], each.get("started")) if when is not None]
        result["started"] = min(began, default=None)
        for kind in ("counters", "gauges"):
            for name, key, value in _numbers(each.get(kind, {})):
                _add_number(result[kind].setdefault(name, {}), name, key, value)
        for name, key, data in _numbers(each.get("histograms", {})):
            _add_histogram(result["histograms"].setdefault(name, {}), key, data)
        result["help"] |= each.get("help", {})
        for group, members in each.get("groups", ()):
            groups[group] = groups.get(group, 0) + members
        for consumer, handler, calls, seconds, longest in each.get("consumers", ()):
            held = consumers.get((consumer, handler), (0, 0.0, 0.0))
            consumers[consumer, handler] = (
                held[0] + calls,
                held[1] + seconds,
                max(held[2], longest),
            )
    result["groups"] = _largest(groups.items())
    result["consumers"] = _slowest((*names, *numbers) for names, numbers in consumers.items())
    return result


def remains(snapshot: Snapshot) -> Snapshot:
    """Return what is left of a snapshot when its process has ended: what it has counted."""
    gone = dict.fromkeys(_OF_THE_LIVING, 0) | {"gauges": {}, "groups": [], "loop_lag_s": 0.0}
    return snapshot | gone


_OF_THE_LIVING = ("rss_bytes", "descriptors", "tasks", "threads")
_SUMMED = ("cpu_s", *_OF_THE_LIVING)


def _numbers(kind: dict[str, dict[str, Any]]) -> Iterator[tuple[str, str, Any]]:
    for name, by_label in kind.items():
        for key, value in by_label.items():
            yield name, key, value


def _add_number(into: dict[str, float], name: str, key: str, value: float) -> None:
    held = into.get(key)
    if held is None:
        into[key] = value
    else:
        into[key] = max(held, value) if "_max" in name else held + value


def _add_histogram(into: dict[str, dict[str, Any]], key: str, data: dict[str, Any]) -> None:
    held = into.get(key)
    if held is None:
        into[key] = {**data, "bounds": list(data["bounds"]), "counts": list(data["counts"])}
        return
    # A worker of the next release may have other bounds: what it counts goes where it is sure
    # to be, at the first bound of ours that is not below its own.
    for bound, count in zip((*data["bounds"], float("inf")), data["counts"], strict=True):
        held["counts"][bisect_left(held["bounds"], bound)] += count
    held["sum"] += data["sum"]


def _largest(groups: Iterable[tuple[str, int]]) -> list[list[Any]]:
    return [list(each) for each in heapq.nlargest(LARGEST, groups, key=lambda group: group[1])]


def _slowest(consumers: Iterable[tuple[Any, ...]]) -> list[list[Any]]:
    return [list(each) for each in heapq.nlargest(SLOWEST, consumers, key=lambda each: each[3])]
