"""What a server counts is what a snapshot says, under names that say what they are."""

import pytest

from headrace.instruments import Reading
from headrace.server.counters import Counters, reason_of


@pytest.fixture
def counters():
    return Counters()


def read(counters):
    reading = Reading()
    counters.read(reading)
    return reading


def test_a_new_server_has_counted_nothing_and_says_so(counters):
    found = read(counters).counters
    for name in Counters._HELP:
        assert found[f"headrace_{name}_total"] == {"": 0}
    assert found["headrace_refusals_total"] == {}
    assert set(found["headrace_responses_total"]) == {f'status="{n}xx"' for n in range(2, 6)}


def test_refusals_by_reason(counters):
    counters.refuse("too_many")
    counters.refuse("too_many")
    counters.refuse("bad_request")
    assert counters.refused == 3
    assert read(counters).counters["headrace_refusals_total"] == {
        'reason="too_many"': 2,
        'reason="bad_request"': 1,
    }


def test_dropped_messages_by_policy(counters):
    counters.drop("drop-oldest", 3)
    counters.drop("latest-only", 4)
    assert counters.dropped_messages == 7
    dropped = read(counters).counters["headrace_dropped_messages_total"]
    assert dropped == {'policy="drop-oldest"': 3, 'policy="latest-only"': 4}


def test_responses_by_class(counters):
    counters.statuses[2] += 5
    counters.statuses[1] += 1
    counters.durations.observe(0.01)
    reading = read(counters)
    assert reading.counters["headrace_responses_total"]['status="2xx"'] == 5
    assert reading.counters["headrace_responses_total"]['status="1xx"'] == 1
    [durations] = reading.histograms["headrace_response_seconds"].values()
    assert sum(durations["counts"]) == 1


def test_open_connections_by_protocol(counters):
    counters.open |= {"websocket": 3, "http/1.1": 0}
    assert read(counters).gauges["headrace_connections_open"] == {
        'protocol="websocket"': 3,
        'protocol="http/1.1"': 0,
    }


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (400, "bad_request"),
        (431, "request_header_fields_too_large"),
        (505, "http_version_not_supported"),
        (599, "status_599"),
    ],
)
def test_a_status_is_a_reason_in_words(status, reason):
    assert reason_of(status) == reason
