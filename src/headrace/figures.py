"""What a running server's snapshots say, in the figures that people read: rates, shares, rows.

Rules of this file:

- A rate is what was counted between two snapshots by the time between them: None after the first.
- What ended workers have counted stays counted: no rate falls below zero when one ends.
- Nothing that a snapshot may lack is an error: a server of another release may tell less.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .instruments import Snapshot, labels_of, total

__all__ = ["Counted", "Figures", "Group", "Handler", "Measure", "Meter", "Now", "Worker"]

_OPEN = "headrace_connections_open"
#: Who counts these knows how many are open, where there never was one as well.
_CONNECTIONS = "headrace_connections_total"
_WEBSOCKETS = ("websocket", "ws")
#: What a rate is made of: counters whose sum it is.
_RATES = {
    "messages_in": ("headrace_messages_received_total",),
    "messages_out": ("headrace_messages_sent_total",),
    "bytes_in": ("headrace_bytes_received_total",),
    "bytes_out": ("headrace_bytes_sent_total",),
    "requests": ("headrace_requests_total",),
    "handshakes": ("headrace_websockets_total",),
    "refused": ("headrace_refusals_total", "headrace_middleware_refusals_total"),
}
_REFUSALS = ("headrace_refusals_total", "headrace_middleware_refusals_total")
#: What says that somebody did not get something.
_LOSSES = (
    "headrace_dropped_messages_total",
    "headrace_layer_overflows_total",
    "headrace_layer_gaps_total",
    "headrace_layer_undecodable_total",
    "headrace_layer_unreachable_total",
)
_THREADS = "headrace_thread"


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """A process that serves."""

    worker: int | None
    pid: int | None
    age_s: float | None
    #: Of one processor: 1.0 is all of it.
    cpu: float | None
    rss_bytes: int
    descriptors: int
    tasks: int
    threads: int
    lag_s: float
    connections: int | None
    #: What its supervisor says of it: ``serving``, ``leaving``.
    stage: str | None
    #: How often a worker in this place was started anew; None: nobody counts.
    restarts: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Now:
    """All workers together. What is named after something that happens is so many a second."""

    #: None, here as in the rates: nobody counts.
    connections: int | None
    websockets: int | None
    http: int | None
    messages_in: float | None
    messages_out: float | None
    bytes_in: float | None
    bytes_out: float | None
    requests: float | None
    handshakes: float | None
    refused: float | None
    lag_s: float
    cpu: float | None
    rss_bytes: int
    descriptors: int


@dataclass(frozen=True, slots=True)
class Counted:
    """A number that only grows, and how fast."""

    name: str
    total: float
    rate: float | None


@dataclass(frozen=True, slots=True)
class Measure:
    """A counter or a gauge as it is, for who looks for one that has no place of its own."""

    name: str
    labels: str
    value: float
    rate: float | None


@dataclass(frozen=True, slots=True)
class Group:
    """A group of the channel layer, and its members in all workers."""

    name: str
    members: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Handler:
    """A consumer's handler and the time that it took."""

    consumer: str
    handler: str
    calls: int
    seconds: float
    mean_s: float
    longest_s: float


@dataclass(frozen=True, slots=True)
class Pool:
    """A figure of the pool of threads."""

    name: str
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What there is to see of a server at one moment."""

    #: Unix time.
    at: float
    server: dict[str, Any]
    now: Now
    workers: list[Worker]
    #: Open connections by protocol.
    protocols: list[Group]
    groups: list[Group]
    handlers: list[Handler]
    refused: list[Counted]
    dropped: list[Counted]
    pool: list[Pool]
    counters: list[Measure]


class Meter:
    """Makes figures of one snapshot after the other."""

    def __init__(self) -> None:
        self._before: dict[tuple[str, str], float] = {}
        self._cpu_before: dict[int | None, float] = {}
        self._cpu_before_s: float | None = None
        self._at: float | None = None

    def take(self, answer: dict[str, Any], *, at: float, clock_s: float) -> Figures:
        """Return the figures of a server's answer to ``snapshot``.

        ``at`` is Unix time, ``clock_s`` that of a clock which is never set.
        """
        elapsed_s = None if self._at is None else clock_s - self._at
        snapshots: list[Snapshot] = list(answer.get("workers") or ())
        ended: Snapshot = answer.get("ended") or {}
        everything = total([*snapshots, ended])
        counted = {name for each in (*snapshots, ended) for name in each.get("counters") or ()}
        alive = total(snapshots)
        counters = dict(_numbers(everything["counters"]))
        rates = {
            key: _rate(value, self._before.get(key, 0.0), elapsed_s)
            for key, value in counters.items()
        }
        gauges = dict(_numbers(alive["gauges"]))
        workers = [self._worker(each, at=at, elapsed_s=elapsed_s) for each in snapshots]
        cpu_s = everything["cpu_s"]
        figures = Figures(
            at=at,
            server=dict(answer.get("server") or {}),
            now=Now(
                **{  # type: ignore[arg-type]
                    name: _sum_of_rates(rates, summed, elapsed_s) if summed[0] in counted else None
                    for name, summed in _RATES.items()
                },
                **_by_kind(gauges, known=_CONNECTIONS in counted),
                lag_s=alive["loop_lag_s"],
                cpu=_rate(cpu_s, self._cpu_before_s, elapsed_s),
                rss_bytes=alive["rss_bytes"],
                descriptors=alive["descriptors"],
            ),
            workers=workers,
            protocols=[Group(name, count) for name, count in _protocols(gauges)],
            groups=[Group(name, members) for name, members in everything["groups"]],
            handlers=[_handler(*each) for each in everything["consumers"]],
            refused=_counted(counters, rates, _REFUSALS),
            dropped=_counted(counters, rates, _LOSSES),
            pool=[
                Pool(_short(name), value)
                for (name, _), value in sorted({**counters, **gauges}.items())
                if name.startswith(_THREADS)
            ],
            counters=[
                Measure(name, labels, value, rates.get((name, labels)))
                for (name, labels), value in sorted({**counters, **gauges}.items())
            ],
        )
        self._before, self._cpu_before_s, self._at = counters, cpu_s, clock_s
        self._cpu_before = {each.get("pid"): each.get("cpu_s") or 0.0 for each in snapshots}
        return figures

    def _worker(self, snapshot: Snapshot, *, at: float, elapsed_s: float | None) -> Worker:
        started, pid = snapshot.get("started"), snapshot.get("pid")
        gauges = dict(_numbers(snapshot.get("gauges") or {}))
        return Worker(
            worker=snapshot.get("worker"),
            pid=pid,
            age_s=None if started is None else max(0.0, at - started),
            cpu=_rate(snapshot.get("cpu_s") or 0.0, self._cpu_before.get(pid), elapsed_s),
            rss_bytes=snapshot.get("rss_bytes") or 0,
            descriptors=snapshot.get("descriptors") or 0,
            tasks=snapshot.get("tasks") or 0,
            threads=snapshot.get("threads") or 0,
            lag_s=snapshot.get("loop_lag_s") or 0.0,
            connections=_by_kind(gauges, known=_CONNECTIONS in snapshot.get("counters", ()))[
                "connections"
            ],
            stage=snapshot.get("stage"),
            restarts=snapshot.get("restarts"),
        )


Numbers = dict[tuple[str, str], float]


def _numbers(kind: dict[str, dict[str, float]]) -> Iterator[tuple[tuple[str, str], float]]:
    for name, by_label in kind.items():
        for labels, value in by_label.items():
            yield (name, labels), value


def _rate(value: float, before: float | None, elapsed_s: float | None) -> float | None:
    if before is None or not elapsed_s or elapsed_s < 0:
        return None
    return max(0.0, value - before) / elapsed_s


def _sum_of_rates(
    rates: dict[tuple[str, str], float | None], summed: tuple[str, ...], elapsed_s: float | None
) -> float | None:
    if not elapsed_s:
        return None
    return sum(rate or 0.0 for (name, _), rate in rates.items() if name in summed)


def _protocols(gauges: Numbers) -> list[tuple[str, int]]:
    """Return how many connections of each protocol are open."""
    return sorted(
        (labels_of(labels).get("protocol", ""), int(value))
        for (name, labels), value in gauges.items()
        if name == _OPEN
    )


def _by_kind(gauges: Numbers, *, known: bool) -> dict[str, int | None]:
    protocols = _protocols(gauges)
    if not protocols and not known:
        return {"connections": None, "websockets": None, "http": None}
    websockets = sum(count for name, count in protocols if name.startswith(_WEBSOCKETS))
    everything = sum(count for _, count in protocols)
    return {
        "connections": everything,
        "websockets": websockets,
        "http": everything - websockets,
    }


def _counted(
    counters: Numbers, rates: dict[tuple[str, str], float | None], names: tuple[str, ...]
) -> list[Counted]:
    """Return the counters of these names, by what their labels say, the largest first."""
    found = [
        Counted(_what(name, labels), value, rates[name, labels])
        for (name, labels), value in counters.items()
        if name in names
    ]
    return sorted(found, key=lambda each: (-each.total, each.name))


def _what(name: str, labels: str) -> str:
    values = labels_of(labels).values()
    if name == _REFUSALS[0]:
        return ", ".join(values)
    return ": ".join((_short(name), *values))


def _short(name: str) -> str:
    return name.removeprefix("headrace_").removesuffix("_total").replace("_", " ")


def _handler(consumer: str, handler: str, calls: int, seconds: float, longest_s: float) -> Handler:
    return Handler(
        consumer=consumer,
        handler=handler,
        calls=calls,
        seconds=seconds,
        mean_s=seconds / calls if calls else 0.0,
        longest_s=longest_s,
    )
