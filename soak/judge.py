"""Whether a series of samples is flat.

Rules of this file:

- The slope is that of Theil and Sen, the median of the slopes of all pairs: a burst, or a sample
  that was taken in an odd moment, does not move it.
- What happens while the server warms up says nothing; it is left out.
- A series is flat when, over the time that was looked at, it has grown by no more than its
  tolerance: a share of its median and a constant.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["SERIES", "Series", "Verdict", "judge", "slope"]

#: Beyond so many samples, evenly chosen ones are compared: pairs grow with the square.
COMPARED = 600


@dataclass(frozen=True, slots=True)
class Series:
    """One figure that is watched."""

    key: str
    title: str
    unit: str = ""
    scale: float = 1.0
    #: What it may grow by: so much of its median, and so much in any case.
    share: float = 0.0
    constant: float = 0.0

    def tolerance(self, median: float) -> float:
        return median * self.share + self.constant


SERIES = (
    Series("rss_bytes", "resident memory", "MiB", 2**20, share=0.02, constant=2**20),
    Series("descriptors", "descriptors", share=0.02, constant=2),
    Series("tasks", "tasks", share=0.02, constant=2),
    Series("threads", "threads", constant=2),
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found of one series."""

    series: Series
    median: float
    growth: float
    per_hour: float
    tolerance: float

    @property
    def flat(self) -> bool:
        return self.growth <= self.tolerance

    def __str__(self) -> str:
        series = self.series
        unit = f" {series.unit}" if series.unit else ""
        return (
            f"{series.title}: median {self.median / series.scale:.1f}{unit}, growth "
            f"{self.growth / series.scale:+.2f}{unit} ({self.per_hour / series.scale:+.2f} an "
            f"hour), tolerance {self.tolerance / series.scale:.2f}: "
            + ("flat" if self.flat else "NOT FLAT")
        )


def slope(times: Sequence[float], values: Sequence[float]) -> float:
    """The slope of Theil and Sen."""
    step = max(1, -(-len(times) // COMPARED))
    points = list(zip(times[::step], values[::step], strict=True))
    return statistics.median(
        (later[1] - earlier[1]) / (later[0] - earlier[0])
        for index, earlier in enumerate(points)
        for later in points[index + 1 :]
        if later[0] > earlier[0]
    )


def judge(times: Sequence[float], values: Sequence[float], series: Series) -> Verdict:
    """Judge what was sampled after the warm-up."""
    steepness = slope(times, values)
    median = statistics.median(values)
    return Verdict(
        series=series,
        median=median,
        growth=steepness * (times[-1] - times[0]),
        per_hour=steepness * 3600,
        tolerance=series.tolerance(median),
    )
