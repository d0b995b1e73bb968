"""What snapshots say, in figures: rates, shares, rows."""

import pytest

from headrace.figures import Counted, Group, Meter
from tests.operations.double import snapshot


def answer(*workers, ended=None, **server):
    return {"server": server, "workers": list(workers), "ended": ended or {}}


def test_the_first_look_has_no_rates():
    figures = Meter().take(
        answer(snapshot(sockets=3, http=1, messages_received=5)), at=1.0, clock_s=0
    )
    assert (figures.now.connections, figures.now.websockets, figures.now.http) == (4, 3, 1)
    assert figures.now.messages_in is figures.now.cpu is figures.workers[0].cpu is None
    assert figures.protocols == [Group("http/1.1", 1), Group("websocket", 3)]


def test_a_rate_is_what_was_counted_by_the_time_between():
    meter = Meter()
    meter.take(answer(snapshot(messages_received=10, cpu_s=1.0)), at=1.0, clock_s=100)
    figures = meter.take(
        answer(snapshot(messages_received=30, bytes_sent=4096, cpu_s=1.5)), at=3.0, clock_s=102
    )
    assert figures.now.messages_in == 10
    assert figures.now.bytes_out == 2048
    assert figures.now.cpu == figures.workers[0].cpu == 0.25
    assert figures.now.requests == 0


def test_the_rates_of_all_workers_add_up():
    meter = Meter()
    meter.take(answer(snapshot(1, 1), snapshot(2, 2)), at=1.0, clock_s=0)
    figures = meter.take(
        answer(snapshot(1, 1, messages_sent=4), snapshot(2, 2, messages_sent=6)), at=2.0, clock_s=1
    )
    assert figures.now.messages_out == 10
    assert figures.now.rss_bytes == 2 * 50 * 1024 * 1024
    assert figures.now.lag_s == 0.002


def test_what_an_ended_worker_has_counted_stays_counted():
    meter = Meter()
    gone = snapshot(2, 2, messages_sent=100)
    meter.take(answer(snapshot(1, 1), gone), at=1.0, clock_s=0)
    figures = meter.take(answer(snapshot(1, 1), ended=gone), at=2.0, clock_s=1)
    assert figures.now.messages_out == 0
    lost = meter.take(answer(snapshot(1, 1)), at=3.0, clock_s=2)
    assert lost.now.messages_out == 0


def test_a_worker_that_began_meanwhile_has_no_share_of_the_processor_yet():
    meter = Meter()
    meter.take(answer(snapshot(1, 1)), at=1.0, clock_s=0)
    figures = meter.take(answer(snapshot(1, 1), snapshot(2, 2)), at=2.0, clock_s=1)
    assert [each.cpu for each in figures.workers] == [0.0, None]


def test_two_looks_at_one_moment_have_no_rate():
    meter = Meter()
    meter.take(answer(snapshot()), at=1.0, clock_s=5)
    assert meter.take(answer(snapshot()), at=1.0, clock_s=5).now.messages_in is None


def test_what_nobody_counts_is_not_known():
    meter = Meter()
    meter.take({"workers": [{"pid": 7}]}, at=1.0, clock_s=0)
    figures = meter.take({"workers": [{"pid": 7}]}, at=2.0, clock_s=1)
    assert figures.now.connections is figures.now.requests is figures.workers[0].age_s is None
    assert figures.workers[0].connections is None
    assert figures.server == {}


def test_who_counts_connections_knows_that_there_is_none():
    worker = snapshot(connections=0)
    worker["gauges"] = {}
    figures = Meter().take(answer(worker), at=1.0, clock_s=0)
    assert figures.now.connections == figures.workers[0].connections == 0


def test_refusals_and_losses_have_their_reasons_the_most_frequent_first():
    meter = Meter()
    looks = [
        snapshot(
            refusals={"reason": {"origin": n, "too_many": 5 * n}},
            dropped_messages={"policy": {"close": n}},
            layer_gaps=2 * n,
            middleware_refusals={"by": {"token": n}},
        )
        for n in (1, 3)
    ]
    meter.take(answer(looks[0]), at=1.0, clock_s=0)
    figures = meter.take(answer(looks[1]), at=3.0, clock_s=2)
    assert figures.refused == [
        Counted("too_many", 15, 5.0),
        Counted("middleware refusals: token", 3, 1.0),
        Counted("origin", 3, 1.0),
    ]
    assert figures.now.refused == 7
    assert figures.dropped == [
        Counted("layer gaps", 6, 2.0),
        Counted("dropped messages: close", 3, 1.0),
    ]


def test_groups_and_handlers_are_those_of_all_workers():
    workers = snapshot(1, 1), snapshot(2, 2)
    workers[0]["groups"], workers[1]["groups"] = [["a", 1], ["b", 5]], [["a", 6]]
    workers[0]["consumers"] = [["chat.Room", "receive", 4, 2.0, 1.5]]
    workers[1]["consumers"] = [["chat.Room", "receive", 6, 1.0, 0.5], ["chat.Idle", "x", 0, 0.0, 0]]
    figures = Meter().take(answer(*workers), at=1.0, clock_s=0)
    assert figures.groups == [Group("a", 7), Group("b", 5)]
    room, idle = figures.handlers
    assert (room.calls, room.seconds, room.mean_s, room.longest_s) == (10, 3.0, 0.3, 1.5)
    assert idle.mean_s == 0


def test_every_counter_and_gauge_is_there():
    figures = Meter().take(answer(snapshot(sockets=2, messages_sent=4)), at=1.0, clock_s=0)
    found = {(each.name, each.labels): (each.value, each.rate) for each in figures.counters}
    assert found["headrace_messages_sent_total", ""] == (4, None)
    assert found["headrace_connections_open", 'protocol="websocket"'] == (2, None)


@pytest.mark.parametrize("started", [None, 940.0])
def test_an_age_is_that_of_the_process(started):
    worker = snapshot()
    worker["started"] = started
    figures = Meter().take(answer(worker, pid=3), at=1000.0, clock_s=0)
    assert figures.workers[0].age_s == (None if started is None else 60.0)
    assert figures.server == {"pid": 3}
