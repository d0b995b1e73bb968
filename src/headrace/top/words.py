"""How figures are written in a terminal, and the tables that they stand in.

Rules of this file:

- A path or a name comes from anybody: what a terminal could take for a command is never written.
- What isn't known is a dash, not a zero.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ..figures import Figures, Handler, Worker

__all__ = [
    "CONNECTIONS",
    "GROUPS",
    "HANDLERS",
    "SHOWN",
    "WORKERS",
    "Column",
    "Table",
    "age",
    "clean",
    "lines",
    "named",
    "summary",
    "title",
    "with_age",
]

#: Connections that are shown.
SHOWN = 100

_NOTHING = "-"
_UNITS = ("B", "K", "M", "G", "T")
_LONGEST = 200


def clean(value: Any) -> str:
    """Return a text as one line that no terminal takes for more than text."""
    text = "".join(each if each.isprintable() else "·" for each in str(value)[: _LONGEST + 1])
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _count(value: float | None) -> str:
    return _NOTHING if value is None else f"{value:,.0f}"


def _rate(value: float | None) -> str:
    if value is None:
        return _NOTHING
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _share(value: float | None) -> str:
    return _NOTHING if value is None else f"{value:.0%}"


def _bytes(value: float | None) -> str:
    if value is None:
        return _NOTHING
    for unit in _UNITS:
        if value < 1024 or unit == _UNITS[-1]:
            break
        value /= 1024
    return f"{value:.0f}{unit}" if unit == "B" or value >= 100 else f"{value:.1f}{unit}"


def _milliseconds(value: float | None) -> str:
    if value is None:
        return _NOTHING
    return f"{value * 1000:,.0f} ms" if value >= 0.01 else f"{value * 1000:.1f} ms"


def age(seconds: float | None) -> str:
    """Return a time that has passed, in its largest unit or two: ``3h05m``."""
    if seconds is None:
        return _NOTHING
    minutes, seconds = divmod(max(0, int(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d{hours:02}h"
    if hours:
        return f"{hours}h{minutes:02}m"
    return f"{minutes}m{seconds:02}s" if minutes else f"{seconds}s"


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table: its head, and what stands in it."""

    head: str
    text: Callable[[Any], str]
    is_number: bool = True
    #: What rows can be sorted by; empty: not by this.
    order: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """A table: its name and its columns."""

    name: str
    columns: tuple[Column, ...]

    def cells(self, row: Any) -> list[str]:
        """Return what a row says."""
        return [column.text(row) for column in self.columns]


def _of(name: str, write: Callable[[Any], str]) -> Callable[[Any], str]:
    return lambda row: write(getattr(row, name))


def _in(name: str, write: Callable[[Any], str] = clean) -> Callable[[dict[str, Any]], str]:
    return lambda row: _NOTHING if row.get(name) is None else write(row[name])


def _worker_name(row: Worker) -> str:
    name = _NOTHING if row.worker is None else str(row.worker)
    return f"{name} {clean(row.stage)}" if row.stage not in (None, "serving") else name


def _handler_name(row: Handler) -> str:
    return clean(f"{row.consumer.rpartition('.')[2]}.{row.handler}")


WORKERS = Table(
    "Workers",
    (
        Column("worker", _worker_name, False),
        Column("pid", _of("pid", str)),
        Column("age", _of("age_s", age)),
        Column("conns", _of("connections", _count)),
        Column("cpu", _of("cpu", _share)),
        Column("memory", _of("rss_bytes", _bytes)),
        Column("fds", _of("descriptors", _count)),
        Column("tasks", _of("tasks", _count)),
        Column("threads", _of("threads", _count)),
        Column("lag", _of("lag_s", _milliseconds)),
        Column("restarts", _of("restarts", _count)),
    ),
)
CONNECTIONS = Table(
    "Connections",
    (
        Column("id", _in("id"), False),
        Column("protocol", _in("protocol"), False, "protocol"),
        Column("peer", _in("peer"), False, "peer"),
        Column("age", _in("age_s", age), True, "since"),
        Column("received", _in("received", _bytes), True, "received"),
        Column("sent", _in("sent", _bytes), True, "sent"),
        Column("inbox", _in("inbox", _count), True, "inbox"),
        Column("waiting", _in("outbox_bytes", _bytes), True, "outbox_bytes"),
        Column("user", _in("user"), False, "user"),
        Column("path", _in("path"), False, "path"),
    ),
)
GROUPS = Table(
    "Largest groups",
    (Column("group", _of("name", clean), False), Column("members", _of("members", _count))),
)
HANDLERS = Table(
    "Slowest handlers",
    (
        Column("handler", _handler_name, False),
        Column("calls", _of("calls", _count)),
        Column("mean", _of("mean_s", _milliseconds)),
        Column("longest", _of("longest_s", _milliseconds)),
    ),
)
_COUNTED = (
    Column("what", _of("name", clean), False),
    Column("in all", _of("total", _count)),
    Column("a second", _of("rate", _rate)),
)
_REFUSED = Table("Refused", _COUNTED)
_DROPPED = Table("Dropped and missed", _COUNTED)


def title(figures: Figures) -> str:
    """Return which server this is, and since when it runs."""
    server = figures.server
    addresses = server.get("addresses") or ()
    since = [worker.age_s for worker in figures.workers if worker.age_s is not None]
    started = server.get("started")
    up_s = figures.at - started if started is not None else max(since, default=None)
    parts = [
        "headrace",
        *(clean(each) for each in addresses),
        f"pid {server['pid']}" if server.get("pid") else "",
        f"{len(figures.workers)} worker{'s' if len(figures.workers) != 1 else ''}",
        f"up {age(up_s)}",
    ]
    return "  ".join(part for part in parts if part)


def summary(figures: Figures) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Return the figures of all workers together, each with its name: states, and rates."""
    now = figures.now
    states = [
        ("connections", _count(now.connections)),
        ("websockets", _count(now.websockets)),
        ("http", _count(now.http)),
        ("lag", _milliseconds(now.lag_s)),
        ("cpu", _share(now.cpu)),
        ("memory", _bytes(now.rss_bytes)),
    ]
    rates = [
        ("messages in/s", _rate(now.messages_in)),
        ("out/s", _rate(now.messages_out)),
        ("bytes in/s", _bytes(now.bytes_in)),
        ("out/s", _bytes(now.bytes_out)),
        ("requests/s", _rate(now.requests)),
        ("handshakes/s", _rate(now.handshakes)),
        ("refused/s", _rate(now.refused)),
    ]
    return states, rates


def named(row: Iterable[tuple[str, str]]) -> str:
    """Return figures with their names on one line."""
    return "   ".join(f"{name} {value}" for name, value in row)


def with_age(answer: dict[str, Any], now: float) -> list[dict[str, Any]]:
    """Return the connections of an answer, each with how long it has been there."""
    return [
        {**each, "age_s": None if each.get("since") is None else max(0.0, now - each["since"])}
        for each in answer.get("connections") or ()
    ]


def lines(figures: Figures, connections: Sequence[dict[str, Any]]) -> Iterable[str]:
    """Return all of it as lines of plain text."""
    yield title(figures)
    yield ""
    for row in summary(figures):
        yield named(row)
    for table, rows in (
        (WORKERS, figures.workers),
        (CONNECTIONS, connections),
        (GROUPS, figures.groups),
        (HANDLERS, figures.handlers),
        (_REFUSED, figures.refused),
        (_DROPPED, figures.dropped),
    ):
        if rows:
            yield ""
            yield table.name
            yield from _aligned(table, rows)


def _aligned(table: Table, rows: Iterable[Any]) -> Iterable[str]:
    written = [[column.head for column in table.columns], *(table.cells(row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*written, strict=True)]
    for cells in written:
        yield "  ".join(
            cell.rjust(width) if column.is_number else cell.ljust(width)
            for cell, width, column in zip(cells, widths, table.columns, strict=True)
        ).rstrip()
