"""The market without any input or output, and what a process knows of it."""

import random

import pytest
from demo.quotes.mirror import Mirror, sequence
from demo.quotes.simulation import DEPTH, Book, Simulation
from hypothesis import given
from hypothesis import strategies as st

NOW = 1_800_000_000.0


def market(seed=1, books=5, **options):
    kinds = {"opening": 2500, "volatility": 3e-4, "activity": 2.0, **options}
    return Simulation(
        [Book(pk, **kinds) for pk in range(1, books + 1)], candle_s=15, rng=random.Random(seed)
    )


def run(simulation, seconds, now=NOW):
    for step in range(seconds * 10):
        yield simulation.step(now + step / 10)


@given(st.integers(0, 2**32), st.integers(15, 100_000))
def test_orders_wait_on_both_sides_of_a_price(seed, opening):
    simulation = market(seed, opening=opening, volatility=1e-2)
    for changed in run(simulation, 3):
        for book in changed:
            assert book.bid > 0
            assert book.ask == book.bid + 1
            assert book.last in (book.bid, book.ask)
            assert len(book.bids) == len(book.asks) == DEPTH
            assert min(book.bids + book.asks) > 0


def test_as_many_trades_as_were_said_and_prices_that_move():
    simulation = market(books=50)
    for _ in run(simulation, 60):
        pass
    assert simulation.trades == pytest.approx(50 * 2 * 60, rel=0.1)
    moves = [abs(book.last / 2500 - 1) for book in simulation.books.values()]
    assert 0.0005 < sum(moves) / 50 < 0.01


def test_candles_hold_their_trades():
    simulation = market(books=1)
    volume = 0
    for changed in run(simulation, 60):
        volume = changed[0].volume if changed else volume
    closed = [candle for _, candle in simulation.closed]
    assert len(closed) >= 3
    now = simulation.books[1].candle
    assert sum(candle[5] for candle in [*closed, now]) == volume
    for time, opened, high, low, close, _ in closed:
        assert time % 15 == 0
        assert low <= min(opened, close) <= max(opened, close) <= high


def test_another_one_goes_on_from_what_was_written_down():
    simulation = market()
    list(run(simulation, 20))
    last, volume, candle = simulation.state()["3"]
    book = Book(
        3, opening=2500, volatility=3e-4, activity=2.0, last=last, volume=volume, candle=candle
    )
    successor = Simulation([book], candle_s=15, rng=random.Random(2))
    list(run(successor, 1, NOW + 20))
    assert book.volume >= volume
    assert book.last == pytest.approx(last, rel=0.01)


def test_a_market_without_instruments_is_quiet():
    assert market(books=0).step(NOW) == []


# --- What a process knows ---


def event(seq, *rows, whole=False):
    rows = [[pk, last, 100, last, last + 1, [1], [1], None] for pk, last in rows]
    return {"seq": seq, "whole": whole, "at": float(seq), "trades": seq, "rows": rows}


def mirror():
    mirror = Mirror()
    assert mirror.stale
    assert mirror.take(event(sequence(1, 5), (1, 10), (2, 20), whole=True))
    assert not mirror.stale
    return mirror


def lasts(quotes):
    return {pk: last for pk, last, *_ in quotes}


def test_what_changed_twice_is_told_once():
    known = mirror()
    since = known.seq
    assert known.take(event(since + 1, (1, 11)))
    assert known.take(event(since + 2, (1, 12)))
    assert lasts(known.changes(since)) == {1: 12}
    assert known.changes(since + 2) == []
    assert lasts(known.quotes()) == {1: 12, 2: 20}
    assert known.detail(1, since)["bid"] == 12
    assert known.detail(2, since) is None
    assert known.detail(7) is None
    assert known.detail(None) is None


def test_a_number_that_is_missing_makes_it_ask():
    known = mirror()
    seq = known.seq
    assert not known.take(event(seq + 2, (1, 12)))
    assert known.stale
    assert known.seq == seq
    # What comes meanwhile is of no use without what was missed.
    assert not known.take(event(seq + 3, (2, 22)))
    assert known.take(event(seq + 4, (1, 13), (2, 22), whole=True))
    assert not known.stale
    assert known.begins == seq + 4
    assert known.take(event(seq + 5, (1, 14)))
    assert lasts(known.changes(known.begins)) == {1: 14}


def test_a_gap_in_which_nothing_was_missed_is_none():
    known = mirror()
    begins, seq = known.begins, known.seq
    known.miss()
    assert known.take(event(seq, (1, 10), (2, 20), whole=True))
    assert not known.stale
    assert known.begins == begins


def test_who_has_missed_nothing_ignores_what_others_asked_for():
    known = mirror()
    seq = known.seq
    assert known.take(event(seq, (1, 99), whole=True))
    assert lasts(known.quotes()) == {1: 10, 2: 20}


def test_a_former_market_is_not_listened_to():
    known = mirror()
    former = known.seq
    assert known.take(event(sequence(2, 0), (1, 30), (2, 40), whole=True))
    assert known.take(event(former + 1, (1, 11)))
    assert known.take(event(former + 2, (1, 11), whole=True))
    assert not known.stale
    assert lasts(known.quotes()) == {1: 30, 2: 40}
