"""The soak, briefly: the judge judges, a run is clean, and a leak is found."""

import json
import random
import sys

import pytest
from soak.judge import COMPARED, SERIES, judge, slope
from soak.plot import plot

from soak import __main__ as program

MEMORY = SERIES[0]
MINUTES = [60.0 * minute for minute in range(60)]
MIB = 2**20


@pytest.fixture
def soak(monkeypatch, tmp_path):
    pytest.importorskip(
        "matplotlib", reason="the plot is a group of its own: make soak installs it"
    )

    def run(*arguments):
        monkeypatch.setattr(
            sys, "argv", ["soak", "--output", str(tmp_path), "--no-plot", *arguments]
        )
        status = program.main()
        return status, json.loads((tmp_path / "samples.json").read_text())["summary"]

    return run


def test_a_slope_is_that_of_most_pairs():
    assert slope([0, 1, 2, 3, 4], [0, 2, 4, 6, 8]) == 2
    # What happens once, however large, moves nothing.
    assert slope([0, 1, 2, 3, 4, 5, 6], [5, 5, 5, 900, 5, 5, 5]) == 0


def test_of_many_samples_some_are_compared():
    times = [float(second) for second in range(10 * COMPARED)]
    assert slope(times, [3 * time for time in times]) == pytest.approx(3)


def test_noise_is_flat():
    chance = random.Random(1)
    values = [50 * MIB + chance.uniform(-3, 3) * MIB for _ in MINUTES]
    verdict = judge(MINUTES, values, MEMORY)
    assert verdict.flat
    assert str(verdict).endswith(": flat")


def test_a_steady_growth_beneath_the_noise_is_not():
    chance = random.Random(1)
    values = [50 * MIB + i * MIB / 10 + chance.uniform(-3, 3) * MIB for i in range(60)]
    verdict = judge(MINUTES, values, MEMORY)
    assert not verdict.flat
    assert verdict.per_hour == pytest.approx(6 * MIB, rel=0.3)
    assert str(verdict).endswith(": NOT FLAT")


def test_less_and_less_is_flat():
    assert judge(MINUTES, [1000 - 10 * i for i in range(60)], SERIES[1]).flat


def test_one_descriptor_more_every_ten_minutes_is_not():
    assert not judge(MINUTES, [100 + i // 10 for i in range(60)], SERIES[1]).flat


def test_a_short_run_is_clean(soak):
    status, summary = soak("--minutes=0.08", "--every=0.1", "--visitors=30", "--warm-up=0.5")
    assert summary["failures"] == 0, summary["problems"]
    assert summary["exit_status"] == 0
    assert min(summary["said"], summary["requests"], summary["websockets"]) > 10
    flat = {each["series"]: each["flat"] for each in summary["verdicts"]}
    assert flat["descriptors"], summary
    assert flat["threads"], summary
    # In so short a time memory may not have found its level: that is not asked.
    assert status == (0 if summary["passed"] else 1)


def test_a_run_can_be_drawn(tmp_path):
    pytest.importorskip("matplotlib", reason="make soak installs it")
    samples = [
        {"at_s": at, "groups": 3, **{series.key: 10 + at % 3 for series in SERIES}}
        for at in MINUTES
    ]
    verdicts = [judge(MINUTES, [sample[s.key] for sample in samples], s) for s in SERIES]
    drawn = tmp_path / "images" / "soak.svg"
    plot(samples, verdicts, warm_up_s=600, title="a run", path=drawn)
    assert "</svg>" in drawn.read_text()


def test_a_leak_is_found(soak, monkeypatch, capsys):
    monkeypatch.setenv("SOAK_LEAK_BYTES", "300000")
    status, summary = soak("--minutes=0.06", "--every=0.1", "--visitors=30")
    assert status == 1
    assert summary["failures"] == 0, summary["problems"]
    flat = {each["series"]: each["flat"] for each in summary["verdicts"]}
    assert not flat["rss_bytes"]
    assert "resident memory" in capsys.readouterr().out


def test_too_few_samples_decide_nothing(monkeypatch, tmp_path, capsys):
    arguments = ["soak", "--output", str(tmp_path), "--minutes=0.01", "--visitors=1", "--every=0.2"]
    monkeypatch.setattr(sys, "argv", arguments)
    assert program.main() == 1
    assert "too short" in capsys.readouterr().out


def test_a_server_that_does_not_begin_is_a_failure_that_says_why(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(sys, "argv", ["soak", "--output", str(tmp_path), "--serve=--no-such"])
    assert program.main() == 1
    assert "--no-such" in capsys.readouterr().out
