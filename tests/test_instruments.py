"""Instruments and snapshots: what is counted adds up, over labels, threads and workers."""

import json
import sys
import threading

import msgspec
import pytest

from headrace.instruments import (
    LABELS,
    LARGEST,
    Instruments,
    Reading,
    label_text,
    labels_of,
    remains,
    total,
)


@pytest.fixture
def instruments():
    return Instruments()


def counted(instruments, name, key=""):
    return instruments.read().counters[name][key]


class TestCounters:
    def test_a_cell_counts(self, instruments):
        cell = instruments.counter("things_total", "Things.")
        cell.value += 2
        cell.value += 1
        assert counted(instruments, "things_total") == 3

    def test_a_family_counts_by_label(self, instruments):
        refusals = instruments.counters("refusals_total", "Refusals.", "reason")
        refusals["full"].value += 2
        refusals["late"].value += 1
        reading = instruments.read()
        assert reading.counters["refusals_total"] == {'reason="full"': 2, 'reason="late"': 1}
        assert reading.help["refusals_total"] == "Refusals."
        assert refusals.value == 3

    def test_several_labels(self, instruments):
        family = instruments.counters("a_total", "A.", "first", "second")
        family["x", "y"].value += 1
        assert instruments.read().counters["a_total"] == {'first="x",second="y"': 1}

    def test_a_family_that_counted_nothing_is_there(self, instruments):
        instruments.counters("a_total", "A.", "label")
        assert instruments.read().counters == {"a_total": {}}

    def test_the_values_of_a_label_are_bounded(self, instruments):
        family = instruments.counters("a_total", "A.", "who")
        for number in range(LABELS + 50):
            family[str(number)].value += 1
        assert len(family) == LABELS + 1
        assert family["other"].value == 50
        assert family.value == LABELS + 50

    def test_so_are_those_of_several(self, instruments):
        family = instruments.counters("a_total", "A.", "who", "what")
        for number in range(LABELS + 7):
            family[str(number), "x"].value += 1
        assert family["other", "other"].value == 7

    def test_a_value_for_each_label(self, instruments):
        family = instruments.counters("a_total", "A.", "who", "what")
        with pytest.raises(ValueError, match="a value for each of the labels who, what"):
            family["me"].value += 1

    def test_the_same_name_is_the_same_instrument(self, instruments):
        assert instruments.counter("a_total", "A.") is instruments.counter("a_total", "A.")

    def test_but_not_as_another_kind(self, instruments):
        instruments.counter("a_total", "A.")
        with pytest.raises(ValueError, match="another kind"):
            instruments.counters("a_total", "A.", "label")

    def test_nor_with_other_labels(self, instruments):
        instruments.counters("a_total", "A.", "label")
        with pytest.raises(ValueError, match="has the labels"):
            instruments.counters("a_total", "A.", "another")

    @pytest.mark.parametrize("name", ["a-b_total", "A_total", "1_total", 'a"_total'])
    def test_a_name_is_one_that_prometheus_takes(self, instruments, name):
        with pytest.raises(ValueError, match="have names as"):
            instruments.counter(name, "A.")

    def test_a_counter_says_total(self, instruments):
        with pytest.raises(ValueError, match="ends in _total"):
            instruments.counter("things", "Things.")
        with pytest.raises(ValueError, match="ends in _total"):
            instruments.gauge("things_total", "Things.", lambda: 1)

    def test_additions_of_several_threads_are_all_there(self, instruments):
        cell = instruments.counter("a_total", "A.")
        family = instruments.counters("b_total", "B.", "who")
        start = threading.Barrier(4)

        def count():
            start.wait()
            for _ in range(50_000):
                cell.value += 1
                family["us"].value += 1

        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        try:
            threads = [threading.Thread(target=count) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        finally:
            sys.setswitchinterval(interval)
        assert cell.value == 200_000
        assert family["us"].value == 200_000


class TestOthers:
    def test_a_gauge_is_asked_when_it_is_read(self, instruments):
        things = []
        instruments.gauge("things", "Things.", lambda: len(things))
        things += "abc"
        assert instruments.read().gauges == {"things": {"": 3}}

    def test_the_last_gauge_of_a_name_counts(self, instruments):
        instruments.gauge("things", "Things.", lambda: 1)
        instruments.gauge("things", "Things.", lambda: 2)
        assert instruments.read().gauges == {"things": {"": 2}}

    def test_a_histogram(self, instruments):
        histogram = instruments.histogram("a_seconds", "A.", bounds=(0.1, 1.0))
        for value in (0.05, 0.1, 0.5, 7.0):
            histogram.observe(value)
        [(key, data)] = instruments.read().histograms["a_seconds"].items()
        assert key == ""
        assert data == {"bounds": [0.1, 1.0], "counts": [2, 1, 1], "sum": pytest.approx(7.65)}
        assert histogram.count == 4
        assert histogram.largest == 7.0

    def test_histograms_by_label(self, instruments):
        family = instruments.histograms("a_seconds", "A.", "who", bounds=(1.0,))
        family["me"].observe(2.0)
        family["you"].observe(0.5)
        read = instruments.read().histograms["a_seconds"]
        assert {key: data["counts"] for key, data in read.items()} == {
            'who="me"': [0, 1],
            'who="you"': [1, 0],
        }

    def test_a_source_says_what_it_keeps_an_account_of(self, instruments):
        def source(reading):
            reading.counter("a_total", "A.", 3, where="here")
            reading.counter("a_total", "A.", 4, where="here")
            reading.gauge("b", "B.", 1)
            reading.groups.append(("room", 7))

        instruments.source(source)
        instruments.source(source)  # once is enough
        reading = instruments.read()
        assert reading.counters == {"a_total": {'where="here"': 7}}
        assert reading.gauges == {"b": {"": 1}}
        assert reading.groups == [("room", 7)]


@pytest.mark.parametrize("value", ["", "plain", 'a"b', "a\\b", "a\nb", 'a,b="c"', "\\n", "é"])
def test_labels_as_text(value):
    labels = {"one": value, "two": "2"}
    text = label_text(labels.items())
    assert "\n" not in text
    assert labels_of(text) == labels


def test_labels_have_one_order():
    assert label_text([("b", "2"), ("a", "1")]) == label_text([("a", "1"), ("b", "2")])


def snapshot(**given):
    return {
        "worker": 1,
        "pid": 100,
        "started": 1000.0,
        "cpu_s": 1.5,
        "rss_bytes": 10,
        "descriptors": 5,
        "tasks": 2,
        "threads": 3,
        "loop_lag_s": 0.1,
        **Reading().as_dict(),
        **given,
    }


class TestTotal:
    def test_of_nothing(self):
        assert total([])["counters"] == {}
        assert total([])["started"] is None

    def test_what_is_a_number_of_things_is_summed(self):
        result = total([snapshot(), snapshot(worker=2, started=900.0, loop_lag_s=0.4)])
        assert result["cpu_s"] == 3.0
        assert result["rss_bytes"] == 20
        assert result["descriptors"] == 10
        assert result["tasks"] == 4
        assert result["threads"] == 6
        assert result["loop_lag_s"] == 0.4
        assert result["started"] == 900.0
        assert result["worker"] is None

    def test_counters_and_gauges(self):
        one = snapshot(counters={"a_total": {"": 1, 'x="1"': 2}}, gauges={"g": {"": 5}})
        two = snapshot(counters={"a_total": {"": 10}}, gauges={"g": {"": 6}, "g_max": {"": 3}})
        three = snapshot(gauges={"g_max": {"": 2}}, help={"g": "G."})
        result = total([one, two, three])
        assert result["counters"] == {"a_total": {"": 11, 'x="1"': 2}}
        assert result["gauges"] == {"g": {"": 11}, "g_max": {"": 3}}
        assert result["help"] == {"g": "G."}

    def test_what_is_summed_is_left_as_it_was(self):
        data = {"bounds": [1.0], "counts": [1, 0], "sum": 0.5}
        one = snapshot(counters={"a_total": {"": 1}}, histograms={"h": {"": data}})
        total([one, one])
        assert one["counters"] == {"a_total": {"": 1}}
        assert data == {"bounds": [1.0], "counts": [1, 0], "sum": 0.5}

    def test_histograms(self):
        def with_counts(*counts):
            data = {"bounds": [1.0, 2.0], "counts": list(counts), "sum": 1.5}
            return snapshot(histograms={"h": {"": data}})

        result = total([with_counts(1, 2, 3), with_counts(4, 5, 6)])
        assert result["histograms"]["h"][""]["counts"] == [5, 7, 9]
        assert result["histograms"]["h"][""]["sum"] == 3.0

    def test_histograms_with_other_bounds_count_where_they_surely_belong(self):
        ours = snapshot(
            histograms={"h": {"": {"bounds": [1.0, 2.0], "counts": [0, 0, 0], "sum": 0}}}
        )
        theirs = snapshot(
            histograms={"h": {"": {"bounds": [0.5, 1.5], "counts": [1, 10, 100], "sum": 9}}}
        )
        assert total([ours, theirs])["histograms"]["h"][""]["counts"] == [1, 10, 100]

    def test_groups_of_one_name_are_one(self):
        one = snapshot(groups=[["a", 3], ["b", 2]])
        two = snapshot(groups=[["b", 4]])
        assert total([one, two])["groups"] == [["b", 6], ["a", 3]]

    def test_handlers_too(self):
        one = snapshot(consumers=[["Chat", "receive", 10, 1.0, 0.3]])
        two = snapshot(consumers=[["Chat", "receive", 5, 2.0, 0.2], ["Feed", "tick", 1, 9.0, 9.0]])
        assert total([one, two])["consumers"] == [
            ["Feed", "tick", 1, 9.0, 9.0],
            ["Chat", "receive", 15, 3.0, 0.3],
        ]

    def test_the_largest_only(self):
        reading = Reading()
        reading.groups = [(f"g{number}", number) for number in range(100)]
        assert reading.as_dict()["groups"][0] == ["g99", 99]
        assert len(reading.as_dict()["groups"]) == LARGEST

    def test_it_goes_through_messagepack_and_json(self):
        result = total([snapshot(counters={"a_total": {"": 1}}, groups=[["a", 1]])])
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(result)) == result
        assert json.loads(json.dumps(result)) == result

    def test_what_remains_of_a_worker_is_what_it_has_counted(self):
        gone = remains(
            snapshot(counters={"a_total": {"": 7}}, gauges={"g": {"": 5}}, groups=[["a", 1]])
        )
        result = total([gone, snapshot(counters={"a_total": {"": 1}}, gauges={"g": {"": 1}})])
        assert result["counters"] == {"a_total": {"": 8}}
        assert result["gauges"] == {"g": {"": 1}}
        assert result["groups"] == []
        assert result["rss_bytes"] == 10
        assert result["cpu_s"] == 3.0
