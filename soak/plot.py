"""A run as a plot: one panel for each series, with its slope."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from .judge import SERIES, Verdict

__all__ = ["plot"]

INK, LINE, FIT, QUIET = "#334155", "#2563eb", "#b45309", "#94a3b8"


def plot(
    samples: Sequence[Mapping[str, float]],
    verdicts: Sequence[Verdict],
    *,
    warm_up_s: float,
    title: str,
    path: Path,
) -> None:
    """Write it; the suffix of the path says in which format."""
    import matplotlib as mpl  # only here: the run itself does without it

    mpl.use("Agg")
    from matplotlib import pyplot

    mpl.rcParams.update({"svg.hashsalt": "headrace", "text.color": INK, "axes.edgecolor": QUIET})
    figure, panels = pyplot.subplots(
        len(SERIES) + 1, 1, sharex=True, figsize=(9, 9), layout="constrained"
    )
    figure.suptitle(title, fontsize=11)
    minutes = [sample["at_s"] / 60 for sample in samples]
    for panel, verdict in zip(panels, verdicts, strict=False):
        series = verdict.series
        panel.plot(
            minutes,
            [sample[series.key] / series.scale for sample in samples],
            color=LINE,
            linewidth=1,
        )
        begin, end = warm_up_s / 60, minutes[-1]
        half = verdict.growth / series.scale / 2
        middle = verdict.median / series.scale
        panel.plot(
            [begin, end], [middle - half, middle + half], color=FIT, linewidth=1.5, linestyle="--"
        )
        panel.axvspan(0, begin, color=QUIET, alpha=0.15)
        panel.set_ylim(bottom=0)
        panel.set_ylabel(f"{series.title}{f' ({series.unit})' if series.unit else ''}", fontsize=9)
        panel.annotate(
            f"{verdict.per_hour / series.scale:+.2f} an hour",
            (0.995, 0.06),
            xycoords="axes fraction",
            ha="right",
            fontsize=9,
            color=FIT,
        )
    last = panels[-1]
    last.plot(minutes, [sample["groups"] for sample in samples], color=LINE, linewidth=1)
    last.set_ylim(bottom=0)
    last.set_ylabel("groups", fontsize=9)
    last.set_xlabel("minutes (shaded: warm-up, not judged)", fontsize=9)
    for panel in panels:
        panel.grid(color=QUIET, alpha=0.3, linewidth=0.5)
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(labelsize=8, colors=INK)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    pyplot.close(figure)
