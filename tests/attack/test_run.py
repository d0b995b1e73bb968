"""The program itself, briefly: good limits stand an attack, and none are found out."""

import json
import subprocess
import sys

import pytest
from attack.catalogue import ATTACKS
from attack.enemy import END, HELD, Attack, Field
from attack.served import Served
from attack.stage import Finding, Judge, _p99, _samples, _undeserved

from attack import __main__ as program

#: So little time, beside other tests, says little about a p99: five seconds pass.
BRIEFLY = ("--seconds", "0.5", "--quiet", "0.2", "--floor", "500", "--returns", "3")


@pytest.fixture
def attack(monkeypatch, tmp_path):
    def run(*arguments):
        report = tmp_path / "report.json"
        arguments = ("attack", "--output", str(tmp_path), "--json", str(report), *arguments)
        monkeypatch.setattr(sys, "argv", [*arguments, *BRIEFLY])
        status = program.main()
        return status, json.loads(report.read_text())

    return run


@pytest.mark.parametrize("key", ["oversized-http", "bomb", "cross-site", "header-injection"])
def test_a_server_as_it_is_stands_it(attack, key, capsys):
    status, report = attack("--only", key)
    assert status == 0, capsys.readouterr().out
    assert report["passed"]
    [finding] = report["attacks"]
    assert finding["key"] == key
    assert finding["blows"] > 0
    assert finding["samples"] > 0


def test_a_server_without_limits_is_caught(attack, capsys):
    status, report = attack("--only", "bomb", "--weak")
    assert status == 1
    assert not report["passed"]
    found = " ".join(violation for each in report["attacks"] for violation in each["violations"])
    # Beside other tests it may grow only when time is up.
    assert "memory grew by" in found or "MiB did not return" in found
    assert "VIOLATION" in capsys.readouterr().out


def test_a_server_that_does_not_begin_is_a_violation(attack, monkeypatch):
    broken = type("Broken", (ATTACKS[0],), {"key": "broken", "serve": ("--no-such-option",)})
    monkeypatch.setattr(program, "ATTACKS", (broken,))
    status, report = attack()
    assert status == 1
    assert "--no-such-option" in report["attacks"][0]["violations"][0]


def test_an_unknown_attack(attack, capsys):
    with pytest.raises(SystemExit):
        attack("--only", "boredom")
    assert "no such attack: boredom" in capsys.readouterr().err


def test_every_attack_says_what_it_is():
    keys = [each.key for each in ATTACKS]
    assert len(set(keys)) == len(keys)
    for each in ATTACKS:
        assert each.__doc__ is not Attack.__doc__
        assert each.title()
        assert each.deserves


class Mild(Attack):
    """Nothing much."""

    key = "mild"
    deserves = frozenset({"400", HELD})


def test_what_an_enemy_does_not_deserve_is_a_violation():
    assert _undeserved(Mild, {"400": 3, HELD: 1}) == []
    assert _undeserved(Mild, {"400": 3, "200": 1}) == ["1 enemies got 200, not 400 or held"]
    assert _undeserved(Mild, {END: 1})[1:] == ["no enemy got 400 or held"]
    # Time was up: whether they would have been refused nobody knows.
    strict = type("Strict", (Mild,), {"deserves": frozenset({"400"})})
    assert _undeserved(strict, {"400": 3, HELD: 1}) == []
    assert _undeserved(strict, {HELD: 1}) == ["no enemy got 400"]


def test_samples_belong_to_when_they_were_due():
    measured = {"samples": [("http", 1.0, 0.1), ("http", 2.0, 0.2), ("http", 2.5, None)]}
    assert _samples(measured, 1.5, 3.0) == [0.2]
    assert _p99([]) == 0.0
    assert _p99([0.001] * 99 + [1.0]) == 1.0
    assert _p99([0.001] * 200 + [1.0]) == 0.001


def test_a_ratio_needs_a_quiet_time():
    assert Finding("a", "b").ratio == 0.0
    assert Finding("a", "b", quiet_p99_s=0.001, attack_p99_s=0.005).ratio == 5
    assert Judge().rounds == 3


def test_what_a_server_takes_is_read_from_the_kernel(tmp_path):
    with Served("tests.server.apps:hello", "--lifespan", "off", log=tmp_path / "log") as server:
        vitals = server.vitals()
        assert vitals.processes == 1
        assert 10_000_000 < vitals.rss_bytes <= server.peak_bytes()
        assert vitals.descriptors > 3
        assert not server.ended
        assert server.stop() == 0
        assert server.ended
    assert "has stopped" in server.tail()


async def test_a_server_that_is_gone_is_noticed():
    async def nothing(enemy):
        raise AssertionError("nobody is there")

    field = Field(("127.0.0.1", 1), 0.2, "1")
    await field.crowd(2, nothing)
    assert field.outcomes.keys() == {END}


def test_the_command_of_the_bystander_fails_where_nobody_serves():
    done = subprocess.run(
        [sys.executable, "-m", "attack.bystander", "127.0.0.1", "1", "-", "/"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=True,
        timeout=30,
    )
    measured = json.loads(done.stdout)
    assert all(took is None for _, _, took in measured["samples"])
