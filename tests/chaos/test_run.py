"""The program itself, briefly: that it catches what is wrong, and that layers bear the faults."""

import dataclasses
import inspect
import sys
import textwrap

import pytest
from chaos.scenarios import SCENARIOS, the_server_is_killed
from chaos.stage import ROOT, Part, Stage, StageError

from chaos import __main__ as program

CALM, *_ = SCENARIOS


@pytest.fixture
def chaos(monkeypatch, tmp_path):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["chaos", "--output", str(tmp_path), *arguments])
        return program.main()

    return run


def test_a_careless_layer_is_caught(tmp_path):
    account = CALM.run(
        seed="1",
        seconds=1,
        directory=tmp_path,
        layer=lambda layer: {**layer, "BACKEND": "tests.chaos.careless.CarelessLayer"},
    )
    assert account.untold
    assert account.duplicated
    assert account.reordered
    assert not account.is_clean


@pytest.mark.parametrize("fault", ["local-kill", "redis-kill", "redis-cut"])
def test_nothing_is_lost_in_silence(chaos, fault, capsys):
    assert chaos("--only", fault, "--seconds", "1", "--seed", "7") == 0, capsys.readouterr().out
    assert fault in capsys.readouterr().out


def test_a_promise_that_is_broken_is_a_failure(chaos, monkeypatch, capsys):
    def play(stage, world):
        victim = stage.living("two")[0]
        with stage.paused(victim):
            stage.sleep(0.3)
            stage.kill(victim)

    scenario = dataclasses.replace(CALM, play=play)
    monkeypatch.setattr(program, "SCENARIOS", (scenario,))
    assert chaos("--seconds", "0") == 1
    printed = capsys.readouterr().out
    assert "where none may be" in printed
    assert "--only local-calm --seed 1" in printed


def test_a_layer_that_cannot_begin_is_a_failure_that_says_why(chaos, monkeypatch, capsys):
    class Impossible(type(CALM)):
        def run(self, **options):
            return super().run(layer=lambda _: {"BACKEND": "tests.chaos.no.Layer"}, **options)

    fields = {each.name: getattr(CALM, each.name) for each in dataclasses.fields(CALM)}
    monkeypatch.setattr(program, "SCENARIOS", (Impossible(**fields),))
    assert chaos() == 1
    assert "tests.chaos.no" in capsys.readouterr().out


def test_an_unknown_fault(chaos, capsys):
    with pytest.raises(SystemExit):
        chaos("--only", "boredom")
    assert "no such fault: boredom" in capsys.readouterr().err


def test_a_worker_that_dies_by_itself_is_a_failure(tmp_path):
    layer = {"BACKEND": "headrace.layers.InMemoryChannelLayer"}
    with Stage(layer=layer, seed="1", directory=tmp_path, seconds=0) as stage:
        (worker,) = stage.cast(only=Part(members=1, senders=1))
        worker.signal(15)
        worker.process.wait()
        account = stage.finish()
    assert any("status -15" in problem for problem in account.problems)
    assert not account.is_clean


def test_a_site_that_cannot_begin(tmp_path):
    layer = {"BACKEND": "headrace.layers.InMemoryChannelLayer"}
    broken = {"PYTHONHOME": str(tmp_path)}
    stage = Stage(layer=layer, seed="1", directory=tmp_path, seconds=0, environment=broken)
    with stage, pytest.raises(StageError, match="the site did not begin"):
        stage.serve()


def test_the_page_names_each_fault_and_shows_one():
    page = (ROOT / "docs/chaos.md").read_text()
    for scenario in SCENARIOS:
        assert f"`{scenario.key}`" in page
    shown = inspect.getsource(the_server_is_killed)
    shown = shown.replace("stage: Stage, world: World) -> None:", "stage, world):")
    assert textwrap.indent(shown, "    ") in page
