import pytest

from headrace.layers import losses as losses_module
from headrace.layers.base import Overflow
from headrace.layers.losses import Losses
from headrace.testing.layers import RecordingSink


@pytest.fixture
def now(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(losses_module.time, "monotonic", lambda: now[0])
    return now


def test_all_is_counted_and_one_line_a_second_is_logged(now, caplog):
    losses = Losses()
    sinks = [(RecordingSink(), False)] * 5
    for _ in range(10):
        losses.note("group room", {"type": "news"}, sinks, 6)
    assert losses.total == 50
    [record] = caplog.records
    assert (record.name, record.levelname) == ("headrace.layers", "WARNING")
    assert record.getMessage() == (
        "group room: 5 of 6 members had no room for an event of type 'news': dropped there "
        "(5 events found no room so far in this process); raise capacity, send less, "
        "let the handler do less, or choose another overflow policy"
    )
    now[0] += 1.0
    losses.note("group room", {"type": "news"}, sinks, 6)
    assert len(caplog.records) == 2
    assert "55 events found no room so far" in caplog.text


@pytest.mark.parametrize(
    ("outcome", "policy", "said"),
    [
        (False, Overflow.DROP_NEWEST, "dropped there"),
        (Overflow.DROP_OLDEST, Overflow.DROP_OLDEST, "in the place of the oldest"),
        (Overflow.CLOSE, Overflow.CLOSE, "closed with 1013"),
    ],
)
def test_each_policy_has_a_count_and_words(caplog, outcome, policy, said):
    losses = Losses()
    losses.note("group room", {"type": "news"}, [(None, outcome)], 1)
    assert losses.counts == {**dict.fromkeys(Overflow, 0), policy: 1}
    assert said in caplog.text


def test_the_consumer_that_most_of_them_are_is_named(caplog):
    kinds = [
        (RecordingSink(consumer="Rare"), False),
        (RecordingSink(consumer="Chat"), Overflow.CLOSE),
        (RecordingSink(consumer="Chat"), Overflow.CLOSE),
    ]
    Losses().note("group room", {}, kinds, 3)
    assert "most of them Chat: the connection was closed" in caplog.text
