"""What flies of a batch, and which words are found: functions without a database."""

import pytest
from demo.danmaku.moderation import first_word_of
from demo.danmaku.rule import thinned
from hypothesis import given
from hypothesis import strategies as st


@given(st.lists(st.integers(), unique=True), st.integers(1, 10))
def test_a_thinned_batch_is_evenly_spread(batch, most):
    shown = thinned(batch, most)
    assert len(shown) == min(len(batch), most)
    places = [batch.index(each) for each in shown]
    assert places == sorted(places)
    if len(batch) > most:
        steps = [two - one for one, two in zip(places, [*places[1:], len(batch)], strict=True)]
        assert max(steps) - min(steps) <= 1


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("No SPOILER please", "spoiler"),
        ("spo\u200biler!", "spoiler"),
        ("\uff53\uff50\uff4f\uff49\uff4c\uff45\uff52", "spoiler"),  # of full width
        ("spóiler", "spoiler"),
        ("spoilers spoilery", None),
        ("buy now", "buy now"),
        ("buynow", None),
        ("别剧透啊", "剧透"),
        ("A day at the pond", None),
        ("a.c (really)", "a.c"),
        ("abc", None),
    ],
)
def test_a_word_is_found_however_it_is_written(text, found):
    assert first_word_of(("spoiler", "buy now", "剧透", "a.c"), text) == found
