"""From raw results to tables, verdicts and a plot.

Everything is computed from the results file alone, so that a published run can be rendered
again. A ratio is taken within a round, between neighbours in time, and only then summed up:
what slows the whole machine down for a while cancels out.
"""

# ruff: noqa: RUF001 - tables and plot are typeset: dashes and multiplication signs are meant

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

from .catalogue import REFERENCES, ROWS, TARGETS, WORKLOADS, Row, Target, Workload
from .measure import Cell

__all__ = ["Results", "Spread", "markdown", "plot"]

CLIENT_BOUND, DISTURBED = "†", "‡"
NOTES = {
    CLIENT_BOUND: "client-bound: the load generator used more than 90 % of its core "
    "in at least one round, so the server may be capable of more",
    DISTURBED: "disturbed: something else used more than 15 % of a core in at least one round",
}


_WORKLOADS = {work.key: work for work in WORKLOADS}


@dataclass(frozen=True, slots=True)
class Spread:
    """Median, least and greatest of some rounds."""

    median: float
    least: float
    greatest: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        return cls(statistics.median(values), min(values), max(values))


class Results:
    """The cells of a run, by row, workload and round."""

    def __init__(self, raw: dict[str, Any]) -> None:
        self.raw = raw
        self._cells: dict[tuple[str, str], dict[int, Cell]] = {}
        self._errors: dict[tuple[str, str], str] = {}
        for found in raw["cells"]:
            key = found["row"], found["workload"]
            if "error" in found:
                self._errors[key] = found["error"]
            else:
                self._cells.setdefault(key, {})[found["round"]] = Cell(**found["cell"])

    def cells(self, row: str, workload: str) -> dict[int, Cell]:
        """Return the cells of all rounds that succeeded, by round."""
        return self._cells.get((row, workload), {})

    def error(self, row: str, workload: str) -> str | None:
        return self._errors.get((row, workload))

    def rows(self, workload: str) -> list[Row]:
        """Return the rows that took part, in the order of the catalogue."""
        seen = {*self._cells, *self._errors}
        return [row for row in ROWS if (row.key, workload) in seen]

    def rate(self, row: str, workload: str) -> Spread | None:
        return self._spread(cell.rate for cell in self.cells(row, workload).values())

    def figure(self, row: str, workload: str, name: str) -> Spread | None:
        """Return any figure of the cells."""
        return self._spread(getattr(cell, name) for cell in self.cells(row, workload).values())

    def best(self, reference: str, workload: str) -> str | None:
        """Return the best row of a reference in this workload; a row stands for itself."""
        keys = REFERENCES.get(reference, (reference,))
        rates = {key: rate.median for key in keys if (rate := self.rate(key, workload))}
        choose = min if _WORKLOADS[workload].less_is_better else max
        return choose(rates, key=rates.__getitem__, default=None)

    def ratio(
        self,
        row: str,
        workload: str,
        beside: str,
        beside_workload: str | None = None,
        *,
        measure: Callable[[Cell], float] | None = None,
    ) -> Spread | None:
        """Return by how much a row is ahead of another, round by round."""
        beside_workload = beside_workload or workload
        if measure is None:
            measure = _speed if _WORKLOADS[workload].is_latency else attrgetter("rate")
        theirs = self.cells(self.best(beside, beside_workload) or "", beside_workload)
        return self._spread(
            measure(cell) / measure(theirs[number])
            for number, cell in self.cells(row, workload).items()
            if number in theirs
        )

    def marks(self, row: str, workload: str) -> str:
        cells = self.cells(row, workload).values()
        bound = CLIENT_BOUND if any(cell.is_client_bound for cell in cells) else ""
        return bound + (DISTURBED if any(cell.is_disturbed for cell in cells) else "")

    @staticmethod
    def _spread(values: Iterable[float]) -> Spread | None:
        found = list(values)
        return Spread.of(found) if found else None


def markdown(results: Results) -> str:
    """Render the run as Markdown that is legible on a terminal too."""
    parts = [_targets(results), _summary(results)]
    parts += [_details(results, work) for work in WORKLOADS if results.rows(work.key)]
    text = "\n\n".join(part for part in parts if part)
    notes = [f"{mark} {note}." for mark, note in NOTES.items() if mark in text]
    return "\n\n".join([text, *notes, _conditions(results)]) + "\n"


def _targets(results: Results) -> str:
    lines = [_target(results, target) for target in TARGETS if _took_part(results, target)]
    if not lines:
        return ""
    heads = ["Target", "Measured (least–greatest)", "By server CPU", "Verdict"]
    return f"### Targets\n\n{_table(heads, lines)}"


def _took_part(results: Results, target: Target) -> bool:
    return any(row.key == target.row for row in results.rows(target.workload))


def _target(results: Results, target: Target) -> list[str]:
    row, work = target.row, target.workload
    if target.beside is None:
        found = results.figure(row, work, target.figure)
        if found is None:
            return [target.text, "–", "–", "not measured"]
        reached = found.median <= target.limit
        return [target.text, _span(found, "{:,.0f}".format), "–", _verdict(reached)]
    beside = target.beside, target.beside_workload
    found = results.ratio(row, work, *beside)
    by_cpu = results.ratio(row, work, *beside, measure=_operations_per_cpu_s)
    if found is None or by_cpu is None:
        return [target.text, "–", "–", "not measured"]
    reference = results.best(target.beside, target.beside_workload or work)
    marks = results.marks(reference or "", target.beside_workload or work)
    verdict = _verdict((by_cpu if target.by_cpu else found).median >= target.limit)
    return [target.text, _span(found, _times) + marks, _span(by_cpu, _times), verdict]


def _verdict(reached: bool) -> str:
    return "reached" if reached else "**not reached**"


def _speed(cell: Cell) -> float:
    return 1 / cell.rate


def _operations_per_cpu_s(cell: Cell) -> float:
    return 1 / cell.server_us if cell.server_us else float("nan")


def _summary(results: Results) -> str:
    works = [work for work in WORKLOADS if results.rows(work.key)]
    lines = []
    for row in ROWS:
        if any(row in results.rows(work.key) for work in works):
            rates = [results.rate(row.key, work.key) for work in works]
            lines.append([row.label, *(_figure(rate.median) if rate else "–" for rate in rates)])
    heads = [f"{work.head}, {work.unit}" for work in works]
    return f"### All at a glance (medians)\n\n{_table(['', *heads], lines)}"


def _details(results: Results, work: Workload) -> str:
    if work.is_across:
        return _details_across(results, work)
    if work.is_crowd:
        return _details_crowd(results, work)
    heads = ["", f"{work.unit} (least–greatest)"]
    if work.is_memory:
        heads += ["by RSS"]
    else:
        heads += ["× bare Uvicorn", "× Channels + Uvicorn"]
        heads += ["server CPU, µs each", "server CPU", "generator CPU", "frames a read"]
    lines, missing = [], []
    for row in results.rows(work.key):
        rate = results.rate(row.key, work.key)
        if rate is None:
            missing.append(f"{row.label} was not measured: {results.error(row.key, work.key)}.")
            continue
        cells = list(results.cells(row.key, work.key).values())
        line = [row.label + results.marks(row.key, work.key), _span(rate, _figure)]
        if work.is_memory:
            line += [_median(cells, "resident_bytes", _figure)]
        else:
            for beside in ("uvicorn", "channels-uvicorn"):
                ratio = results.ratio(row.key, work.key, beside)
                line += [_span(ratio, _times) if ratio else "–"]
            line += [
                _median(cells, "server_us", _short),
                _median(cells, "server_cores", _percent),
                _median(cells, "generator_cores", _percent),
                _median(cells, "frames_per_read", _short) if work.key != "handshake" else "–",
            ]
        lines.append(line)
    paragraphs = [f"### {work.title}", _table(heads, lines), *missing]
    fastest = results.best("uvicorn", work.key)
    if fastest and not work.is_memory:
        label = next(row.label for row in ROWS if row.key == fastest)
        paragraphs.append(f"Bare Uvicorn, the reference, is the fastest of its rows here: {label}.")
    return "\n\n".join(paragraphs)


def _details_across(results: Results, work: Workload) -> str:
    unit = "99th percentile, µs" if work.is_latency else work.unit
    heads = ["", f"{unit} (least–greatest)", "× channels_redis core", "× channels_redis pub/sub"]
    heads += ["median latency, ms", "99th percentile, ms", "CPU, µs each", "Redis commands each"]
    lines, missing = [], []
    for row in results.rows(work.key):
        rate = results.rate(row.key, work.key)
        if rate is None:
            missing.append(f"{row.label} was not measured: {results.error(row.key, work.key)}.")
            continue
        cells = list(results.cells(row.key, work.key).values())
        ratios = [
            results.ratio(row.key, work.key, beside)
            for beside in ("channels-redis", "channels-pubsub")
        ]
        lines.append(
            [
                row.label + results.marks(row.key, work.key),
                _span(rate, _figure),
                *(_span(ratio, _times) if ratio else "–" for ratio in ratios),
                _median(cells, "p50_us", _milliseconds),
                _median(cells, "p99_us", _milliseconds),
                _median(cells, "server_us", _short),
                _median(cells, "commands", _short),
            ]
        )
    return "\n\n".join([f"### {work.title}", _table(heads, lines), *missing])


def _details_crowd(results: Results, work: Workload) -> str:
    heads = ["", "to the last, ms (least–greatest)", "longest stall of the loop, ms"]
    heads += ["by its CPU, ms", "bytes a connection", "server CPU, µs a delivery"]
    lines, missing = [], []
    for row in results.rows(work.key):
        rate = results.rate(row.key, work.key)
        stall = results.figure(row.key, work.key, "stall_us")
        if rate is None or stall is None:
            missing.append(f"{row.label} was not measured: {results.error(row.key, work.key)}.")
            continue
        cells = list(results.cells(row.key, work.key).values())
        lines.append(
            [
                row.label + results.marks(row.key, work.key),
                _span(rate, _milliseconds),
                _span(stall, _milliseconds),
                _median(cells, "stall_cpu_us", _milliseconds),
                _median(cells, "connection_bytes", _figure),
                _median(cells, "server_us", _short),
            ]
        )
    return "\n\n".join([f"### {work.title}", _table(heads, lines), *missing])


def _conditions(results: Results) -> str:
    raw = results.raw
    machine, plan = raw["machine"], raw["plan"]
    memory = ""
    if any(results.rows(work.key) for work in WORKLOADS if work.is_memory):
        memory = f" Memory: {plan['idle']:,} connections over {plan['idle_warm']:,} open ones."
    one_core = "" if machine["cores"] > 1 else " **Server and generator shared one core.**"
    named = ", ".join(f"{name} {version}" for name, version in raw["versions"].items())
    return (
        f"Rounds: {raw['rounds']}, each cell {plan['seconds']:g} s after {plan['warmup_s']:g} s "
        f"of warm-up.{memory} Machine: {machine['cores']} cores, {machine['architecture']}, "
        f"{machine['system']}, {machine['python']}.{one_core} Versions: {named}."
    )


def _table(heads: list[str], lines: list[list[str]]) -> str:
    """Lay out a table: the first column to the left, figures to the right."""
    widths = [max(3, *(len(line[i]) for line in [heads, *lines])) for i in range(len(heads))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    rows = [
        [line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]
        for line in [heads, rule, *lines]
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _figure(value: float) -> str:
    """Three significant digits: more would be noise."""
    digits = max(0, len(str(int(abs(value)))) - 3)
    return f"{round(value, -digits):,.0f}"


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _milliseconds(value_us: float) -> str:
    return _short(value_us / 1000)


def _times(value: float) -> str:
    return f"{_short(value)} ×"


def _percent(value: float) -> str:
    return f"{value:.0%}"


def _span(spread: Spread, show: Callable[[float], str]) -> str:
    text = show(spread.median)
    if spread.least == spread.greatest:
        return text
    least, greatest = (show(value).removesuffix(" ×") for value in (spread.least, spread.greatest))
    return f"{text} ({least}–{greatest})"


def _median(cells: Sequence[Cell], name: str, show: Callable[[float], str]) -> str:
    values = [value for cell in cells if (value := getattr(cell, name)) is not None]
    return show(statistics.median(values)) if values else "–"


def plot(results: Results, target: Path) -> None:
    """Draw one panel of bars per workload: medians, with whiskers from least to greatest."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams |= {
        "font.family": "sans-serif",
        "font.size": 9,
        "svg.hashsalt": "headrace",  # the same results give the same file
    }
    from matplotlib import pyplot

    works = [work for work in WORKLOADS if any(_bars(results, work))]
    columns = 2 if len(works) > 1 else 1
    height = [
        max(len(_bars(results, work)) for work in works[i : i + columns])
        for i in range(0, len(works), columns)
    ]
    figure, axes = pyplot.subplots(
        len(height),
        columns,
        figsize=(6.2 * columns, 0.3 + sum(0.27 * bars + 0.75 for bars in height)),
        height_ratios=[bars + 1 for bars in height],
        squeeze=False,
        layout="constrained",
        facecolor="white",
    )
    for place, work in enumerate(works):
        _panel(axes.flat[place], results, work, height[place // columns])
    for axis in axes.flat[len(works) :]:
        axis.set_visible(False)
    marks = "".join(
        results.marks(row.key, work.key) for work in works for row, _ in _bars(results, work)
    )
    notes = [f"{mark} {note}" for mark, note in NOTES.items() if mark in marks]
    if notes:
        figure.supxlabel("\n".join(notes), fontsize=8, color="#555555")
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, metadata={"Date": None})
    pyplot.close(figure)


def _bars(results: Results, work: Workload) -> list[tuple[Row, Spread]]:
    return [
        (row, rate) for row in results.rows(work.key) if (rate := results.rate(row.key, work.key))
    ]


def _panel(axis: Any, results: Results, work: Workload, places: int) -> None:
    bars = _bars(results, work)
    ends = max(rate.greatest for _, rate in bars)
    for place, (row, rate) in enumerate(bars):
        ours = row.key.startswith("headrace")
        axis.barh(place, rate.median, height=0.72, color="#1b6ca8" if ours else "#b9c2cb")
        whisker = [[rate.median - rate.least], [rate.greatest - rate.median]]
        axis.errorbar(rate.median, place, xerr=whisker, color="#333333", linewidth=0.9, capsize=2)
        axis.annotate(
            f"{_figure(rate.median)} {results.marks(row.key, work.key)}",
            (rate.greatest, place),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontweight="bold" if ours else "normal",
        )
    axis.set_yticks(range(len(bars)), [row.label for row, _ in bars])
    axis.set_ylim(places - 0.4, -0.6)  # bars of one thickness in all panels
    axis.set_xlim(0, ends * 1.22)
    better = "less is better" if work.less_is_better else "more is better"
    axis.set_title(f"{work.title}\n{work.unit}, {better}", loc="left", fontsize=10)
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axis.xaxis.set_major_locator(_ticks())
    axis.grid(axis="x", color="#e4e7ea", linewidth=0.8)
    axis.set_axisbelow(True)
    axis.tick_params(length=0)
    axis.spines[["top", "right", "bottom", "left"]].set_visible(False)


def _ticks() -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(4)
