import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.server.buckets import Buckets, Places, TokenBucket

RATES = st.floats(0.01, 1e6)
BURSTS = st.floats(0.01, 100)
STEPS = st.lists(st.tuples(st.floats(0, 30), st.integers(1, 20)), max_size=60)


@given(RATES, BURSTS, STEPS, st.floats(0, 1e7))
def test_no_window_of_time_gets_more_than_its_rate_and_a_burst(rate, burst_s, steps, start):
    bucket = TokenBucket(rate, burst_s)
    now, taken = start, []
    for pause_s, attempts in steps:
        now += pause_s
        got = sum(bucket.take(now) == 0.0 for _ in range(attempts))
        taken.append((now, got))
    size = max(1.0, rate * burst_s)
    for first, last in itertools.combinations_with_replacement(range(len(taken)), 2):
        window_s = taken[last][0] - taken[first][0]
        assert sum(got for _, got in taken[first : last + 1]) <= size + rate * window_s + 0.01


@given(RATES, BURSTS, STEPS)
def test_who_waits_as_long_as_told_is_let_in(rate, burst_s, steps):
    bucket = TokenBucket(rate, burst_s)
    now = 0.0
    for pause_s, attempts in steps:
        now += pause_s
        for _ in range(attempts):
            if wait_s := bucket.take(now):
                assert 0 < wait_s <= 1 / rate * 1.001
                now += wait_s * (1 + 1e-9)
                assert bucket.take(now) == 0.0


def test_a_whole_burst_is_there_at_first_and_again_after_a_while():
    bucket = TokenBucket(10, burst_s=2)
    for now in (1000.0, 1002.0):
        assert [bucket.take(now) for _ in range(20)] == [0.0] * 20
        assert bucket.take(now) == pytest.approx(0.1)


def test_what_is_refused_costs_nothing():
    bucket = TokenBucket(1, burst_s=1)
    assert bucket.take(0.0) == 0.0
    for _ in range(100):
        assert bucket.take(0.5) == pytest.approx(0.5)
    assert bucket.take(1.0) == 0.0


def test_much_can_be_taken_at_once_but_no_more_than_there_ever_is():
    bucket = TokenBucket(100, burst_s=1)
    assert bucket.take(0.0, 100) == 0.0
    assert bucket.take(0.0, 50) == pytest.approx(0.5)
    assert bucket.take(1e6, 101) > 0


def test_a_bucket_smaller_than_one_holds_one():
    bucket = TokenBucket(0.1, burst_s=1)
    assert bucket.take(0.0) == 0.0
    assert bucket.take(9.0) == pytest.approx(1.0)
    assert bucket.take(10.0) == 0.0


@given(st.lists(st.tuples(st.floats(0, 5), st.integers(0, 5)), max_size=200))
def test_each_key_has_a_bucket_of_its_own(steps):
    buckets = Buckets(2, burst_s=3)
    alone = [TokenBucket(2, burst_s=3) for _ in range(6)]
    now = 0.0
    for pause_s, key in steps:
        now += pause_s
        assert buckets.take(key, now) == pytest.approx(alone[key].take(now))


def test_full_buckets_are_forgotten():
    buckets = Buckets(1, burst_s=2)
    for key in range(1000):
        buckets.take(key, 0.0)
    assert len(buckets) == 1000
    for key in range(1100):
        buckets.take(("later", key), 100.0 + key)
    # Two go for each that comes: what was there before is gone, and so are the first of these.
    assert len(buckets) <= 3


def test_many_addresses_take_a_bounded_memory_and_none_of_them_more_than_its_rate():
    buckets = Buckets(1, burst_s=5, most=100)
    for key in range(10_000):
        assert buckets.take(key, 0.0) == 0.0
        assert len(buckets) <= 100
    assert sum(buckets.take(9_999, 0.0) == 0.0 for _ in range(10)) == 4


def test_the_key_that_was_used_last_is_forgotten_last():
    buckets = Buckets(1, burst_s=1, most=3)
    for key in "abc":
        buckets.take(key, 0.0)
    buckets.take("a", 0.5)  # refused: that is no use
    buckets.take("b", 1.0)
    buckets.take("d", 1.0)
    assert buckets.take("b", 1.0) > 0


def test_places_are_as_many_as_there_are_and_come_back():
    places = Places(2)
    assert [places.enter("a") for _ in range(3)] == [True, True, False]
    assert places.enter("b")
    assert len(places) == 2
    places.leave("a")
    assert places.enter("a")
    for key in ("a", "a", "b"):
        places.leave(key)
    assert len(places) == 0


def test_a_place_that_nobody_took_can_not_be_given_back():
    with pytest.raises(KeyError):
        Places(1).leave("a")
