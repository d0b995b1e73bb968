"""The simulated visitors: what they notice, and that a few of them are served well."""

import json
import shutil
import sys

import httpx
import pytest
from visitors.applications import Application, Changes, Heard, Measured, site
from visitors.ledger import Delays, Ledger
from visitors.peer import Peer
from visitors.visitor import Kept

from visitors import __main__ as program


def test_what_everyone_has_seen_is_missing_no_longer():
    ledger = Ledger()
    ledger.sent("hello", ["maya", "jonas"])
    ledger.seen("hello", "maya")
    ledger.seen("hello", "maya")  # twice is once
    ledger.seen("hello", "edith")  # nobody waits for her
    ledger.seen("what?", "maya")
    assert (ledger.missing, len(ledger.delays)) == (1, 1)
    assert ledger.unseen("jonas") == ["hello"]
    ledger.seen("hello", "jonas")
    assert (ledger.missing, len(ledger.delays)) == (0, 2)


def test_what_is_excused_is_neither_missing_nor_measured():
    ledger = Ledger()
    ledger.sent("hello", ["maya"])
    ledger.excuse("hello", "maya")
    ledger.seen("hello", "maya")
    assert (ledger.missing, len(ledger.delays), ledger.sent_in_all) == (0, 0, 1)


def test_percentiles():
    delays = Delays()
    assert delays.percentile(0.99) == 0
    for hundredth in range(100, 0, -1):
        delays.add(hundredth / 100)
    assert [delays.percentile(share) for share in (0.5, 0.99, 1)] == [0.5, 0.99, 1]


def test_a_bound_is_kept_by_99_of_100_and_not_by_nobody():
    delays = Delays()
    line = Measured("sent → seen", delays, bound_s=0.2)
    assert not program.keeps(line)
    for number in range(200):
        delays.add(5.0 if number < 2 else 0.1)
    assert program.keeps(line)
    assert not program.keeps(line, 0.05)
    delays.add(5.0)
    assert not program.keeps(line)


def test_a_gap_in_a_room_s_changes_is_noticed_until_it_is_closed():
    changes = Changes(7)
    assert changes.add(8)
    assert changes.add(6)  # told already
    assert not changes.add(10)
    assert (changes.whole, changes.add(9)) == (8, True)
    assert not changes.add(13)
    assert not changes.reach(11)
    assert changes.reach(12)
    assert changes.whole == 13


def test_numbers_of_a_feed_that_have_not_come_are_lost():
    def hear(*numbers):
        delays = Delays()
        way = Heard(delays)
        for number in numbers:
            way.take({"id": number, "born": 0.0})
        assert len(delays) == len(numbers)
        return way

    assert hear(7, 8, 9).lost(9) == 0
    assert hear(7, 8, 11).lost(9) == 2  # in between
    assert hear(7, 8).lost(11) == 3  # at the end
    assert hear().lost(9) == 1
    assert hear().lost(0) == 0  # there was nothing


def test_peers_of_a_document_take_each_step_of_the_others():
    seen = []
    one, other = Peer(lambda *step: None), Peer(lambda *step: seen.append(step))

    def tell(teller, hearer):
        while not teller._outbox.empty():
            hearer.hear(teller._outbox.get_nowait())

    one.point(0.0)
    for character in "Soup#":
        one.type(character)
    one.erase()
    tell(one, other)
    assert seen == [(one.client, step) for step in (1, 2, 3, 4, 5)]
    assert (one.text, other.text, one.steps) == ("Soup", "Soup", 5)
    # It is for the others to tell of themselves: nothing that was heard of them comes back.
    assert other._outbox.empty()
    assert other._awareness.states[one.client] == one._awareness.get_local_state()
    # Where the cursor is stays where it is, whatever is written before it.
    other.point(0.0)
    other.type("!")
    tell(other, one)
    one.type("s")
    assert one.text == "!Soups"


@pytest.mark.parametrize(
    ("control", "vary", "seconds"),
    [
        ("public, max-age=60, immutable", "", 60),
        ("max-age=60", "Accept-Language, Cookie", 60),
        ("no-cache, max-age=60", "", 0),
        ("no-cache", "", 0),
        ("", "", 0),
    ],
)
def test_a_browser_keeps_a_file_for_as_long_as_it_may(control, vary, seconds):
    headers = {"Cache-Control": control, "Vary": vary, "Last-Modified": "yesterday"}
    kept = Kept.of(httpx.Response(200, headers=headers), 100.0, {"session": "1"})
    assert kept.version == "yesterday"
    assert kept.is_good(100.0 + seconds * 0.9, {"session": "1"}) is (seconds > 0)
    assert not kept.is_good(100.0 + seconds, {"session": "1"})
    assert kept.is_good(100.0, {"session": "2"}) is (seconds > 0 and not vary)


@pytest.fixture
def visitors(monkeypatch, tmp_path, seeded):
    def run(*arguments):
        data = shutil.copytree(seeded, tmp_path / "data")
        options = ("--data", str(data), "--output", str(tmp_path), *arguments)
        monkeypatch.setattr(sys, "argv", ["visitors", *options])
        status = program.main()
        return status, json.loads((tmp_path / "report.json").read_text())

    return run


@pytest.mark.timeout(180)
def test_a_few_visitors_of_all_applications_lose_nothing(visitors):
    # A machine that does other things too is slow: that nothing is lost is asked, and no speed.
    # Of four of each application two are in the same of three rooms.
    status, report = visitors("--visitors=28", "--seconds=3", "--pace=4", "--bound=20")
    assert report["problems"] == []
    assert set(report["lost"].values()) == {0}
    assert min(line["measured"] for line in report["lines"]) > 0, report["lines"]
    assert status == 0
    assert report["passed"]


def test_what_is_lost_is_told(visitors, monkeypatch, capsys):
    class Deaf(Application):
        title = "Deaf"

        async def visit(self, visitor):
            await visitor.open("/chat/")
            async with visitor.live("/ws/lobby/", lambda event: None):
                self.ledger.sent("hello", [visitor.number])
                await visitor.run.closing.wait()

    monkeypatch.setattr(program, "PATIENCE_S", 0.5)
    monkeypatch.setattr(program, "site", lambda: (site()[0], [Deaf()]))
    status, report = visitors("--visitors=1", "--seconds=0.1", "--pace=8")
    assert status == 1
    assert report["lost"]["Deaf"] == 1
    assert "Deaf, sent → seen by another: nothing was measured" in capsys.readouterr().out
