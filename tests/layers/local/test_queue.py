import sqlite3

import pytest

from headrace.layers.local.queue import Busy, Queue


@pytest.fixture
def queue(tmp_path):
    queue = Queue(str(tmp_path / "queue"))
    yield queue
    queue.close()


@pytest.fixture
def another(tmp_path, queue):
    another = Queue(str(tmp_path / "queue"))
    yield another
    another.close()


def nothing():
    """Mark nothing."""


def put(queue, channel, data, capacity=10, now=0.0, until=60.0):
    return queue.put(channel, data, capacity=capacity, now=now, until=until)


def test_first_in_first_out_whoever_puts_and_gets(queue, another):
    for number in range(4):
        assert put((queue, another)[number % 2], "work", b"%d" % number)
    assert [each.get("work", now=1) for each in (queue, another, another, queue)] == [
        b"0",
        b"1",
        b"2",
        b"3",
    ]
    assert queue.get("work", now=1) is None


def test_a_full_channel_takes_no_more_and_does_not_fill_another(queue):
    assert put(queue, "work", b"a", capacity=1)
    assert not put(queue, "work", b"b", capacity=1)
    assert put(queue, "other", b"c", capacity=1)
    assert queue.get("work", now=1) == b"a"
    assert put(queue, "work", b"d", capacity=1)


def test_what_has_expired_is_not_delivered_and_leaves_room(queue):
    put(queue, "work", b"old", until=5.0)
    assert queue.get("work", now=5) is None
    assert put(queue, "work", b"new", capacity=1, now=5.0)
    assert queue.get("work", now=6) == b"new"


def test_it_outlives_whoever_has_it_open(tmp_path):
    first = Queue(str(tmp_path / "queue"))
    put(first, "work", b"a")
    first.close()
    second = Queue(str(tmp_path / "queue"))
    assert second.get("work", now=1) == b"a"
    second.close()


def test_members_are_those_who_joined_until_they_leave_or_time_is_up(queue, another):
    marked = []
    queue.join("room", "work", bucket=7, until=10, mark=lambda: marked.append(7))
    queue.join("room", "work", bucket=7, until=20, mark=lambda: marked.append(7))
    queue.join("room", "more", bucket=7, until=5, mark=nothing)
    assert marked == [7, 7]
    assert sorted(another.members("room", now=1)) == ["more", "work"]
    assert another.members("room", now=15) == ["work"]
    assert another.buckets() == [7]
    queue.leave("room", "nobody", bucket=7, now=1, unmark=lambda: marked.append("gone"))
    assert marked == [7, 7]
    queue.leave("room", "work", bucket=7, now=6, unmark=lambda: marked.append("gone"))
    assert marked == [7, 7, "gone"]
    assert queue.members("room", now=1) == []


def test_it_can_be_cleared(queue):
    cleared = []
    put(queue, "work", b"a")
    queue.join("room", "work", bucket=7, until=10, mark=nothing)
    queue.clear(unmark=lambda: cleared.append(True))
    assert cleared
    assert queue.get("work", now=1) is None
    assert queue.members("room", now=1) == []


def test_while_another_changes_it_it_is_busy_and_nothing_waits(queue, another):
    put(queue, "work", b"a")
    with queue._transaction():
        with pytest.raises(Busy):
            put(another, "work", b"b")
        with pytest.raises(Busy):
            another.get("work", now=1)
        assert another.get("other", now=1) is None  # to look is no change
    assert another.get("work", now=1) == b"a"


def test_somebody_else_may_take_what_was_seen(queue, another, monkeypatch):
    put(queue, "work", b"a")
    transaction = queue._transaction

    def late():
        assert another.get("work", now=1) == b"a"
        return transaction()

    monkeypatch.setattr(queue, "_transaction", late)
    assert queue.get("work", now=1) is None


def test_a_change_that_fails_is_none(queue):
    def fail():
        raise LookupError

    with pytest.raises(LookupError):
        queue.join("room", "work", bucket=7, until=10, mark=fail)
    assert queue.members("room", now=1) == []
    put(queue, "work", b"a")


def test_an_error_that_is_not_for_being_busy_is_told(queue):
    with pytest.raises(sqlite3.OperationalError, match="no such table"), queue._trying():
        queue._sqlite.execute("SELECT * FROM nowhere")


def test_what_is_no_queue_is_an_error(tmp_path):
    (tmp_path / "queue").write_bytes(b"no database, but long enough to be taken for one " * 100)
    with pytest.raises(sqlite3.DatabaseError):
        Queue(str(tmp_path / "queue"))
