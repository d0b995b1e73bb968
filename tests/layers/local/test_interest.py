import os

import pytest

from headrace.exceptions import InvalidChannelLayerError
from headrace.layers.local import interest
from headrace.layers.local.directory import Directory
from headrace.layers.local.interest import QUEUE, SLOTS, Interest, bucket_of

FIRST, SECOND = "1" * 16, "2" * 16


@pytest.fixture
def directory(tmp_path):
    directory = Directory(tmp_path / "local", with_parent=False)
    yield directory
    directory.close()


@pytest.fixture
def table(directory):
    return Interest(directory)


def test_what_a_process_wants_all_others_see(table, directory):
    other = Interest(directory)
    slot = table.take_slot(FIRST)
    assert other.slots_of(7) == []
    slot.set(7, wanted=True)
    assert other.slots_of(7) == []  # it does not listen yet
    slot.show()
    assert other.slots_of(7) == [slot.number]
    assert other.process_in(slot.number) == FIRST
    assert other.processes() == [FIRST]
    slot.set(7, wanted=False)
    assert other.slots_of(7) == []
    slot.release()
    assert other.processes() == []


def test_the_queues_row_is_there_for_all(table, directory):
    table.set(QUEUE, 7, wanted=True)
    assert Interest(directory).slots_of(7) == [QUEUE]
    table.clear_row(QUEUE)
    assert table.slots_of(7) == []
    assert table.process_in(QUEUE) is None


def test_slots_are_taken_from_the_first_on_and_given_back_clean(table):
    slots = [table.take_slot(name * 16) for name in "abc"]
    assert [slot.number for slot in slots] == [1, 2, 3]
    for slot in slots:
        slot.set(5, wanted=True)
        slot.show()
    assert table.slots_of(5) == [1, 2, 3]
    slots[1].release()
    assert table.slots_of(5) == [1, 3]
    again = table.take_slot("d" * 16)
    assert again.number == 2
    again.show()
    assert table.slots_of(5) == [1, 3]
    for slot in (slots[0], again, slots[2]):
        slot.release()


def test_when_all_are_taken_it_is_an_error(table, monkeypatch):
    monkeypatch.setattr(interest, "SLOTS", 3)
    slots = [table.take_slot(FIRST), table.take_slot(SECOND)]
    with pytest.raises(OSError, match="2 processes have all slots"):
        table.take_slot("3" * 16)
    for slot in slots:
        slot.release()


def test_the_dead_are_buried_and_the_living_are_not(table, directory):
    dead = table.take_slot(FIRST)
    dead.set(7, wanted=True)
    dead.show()
    for name in (f"p-{FIRST}", f"b-{FIRST}-x", f"b-{SECOND}-x"):
        open(directory / name, "w").close()
    assert not table.bury(FIRST)
    assert table.slots_of(7) == [dead.number]
    dead.abandon()  # as the kernel does it
    assert table.bury(FIRST)
    assert table.slots_of(7) == []
    assert table.processes() == []
    assert {name for name in os.listdir(directory.path) if name[1] == "-"} == {f"b-{SECOND}-x"}
    assert table.bury(FIRST)  # nothing is left to do


def test_who_comes_in_between_is_not_buried(table, monkeypatch):
    dead = table.take_slot(FIRST)
    dead.show()
    dead.abandon()
    lock = table._lock

    def take_first(number):
        """Somebody else has buried it, and a new process has come and gone."""
        monkeypatch.setattr(table, "_lock", lock)
        table.take_slot(SECOND).show()
        return lock(SLOTS)

    monkeypatch.setattr(table, "_lock", take_first)
    assert table.bury(FIRST)
    assert table.processes() == [SECOND]


def test_a_slot_that_cannot_be_cleaned_is_not_kept(table, monkeypatch):
    def no_memory(number):
        raise OSError("no space left")

    with monkeypatch.context() as context:
        context.setattr(table, "_clean", no_memory)
        with pytest.raises(OSError, match="no space left"):
            table.take_slot(FIRST)
    assert table.take_slot(FIRST).number == 1


def test_that_of_another_version_is_refused(table, directory, monkeypatch):
    monkeypatch.setattr(interest, "_MAGIC", b"headrace   2.  1")
    with pytest.raises(InvalidChannelLayerError, match="used by another version of Headrace"):
        Interest(directory)


def test_a_slot_is_not_taken_in_a_table_that_is_gone(table, directory):
    os.unlink(directory / "table")
    Interest(directory)
    with pytest.raises(FileNotFoundError, match="the table has been removed"):
        table.take_slot(FIRST)


def test_an_abandoned_table_says_so_to_all(table, directory):
    other = Interest(directory)
    assert not other.abandoned
    table.abandon()
    assert other.abandoned


def test_two_that_make_it_at_once_have_one(directory, monkeypatch):
    lexists = os.path.lexists
    monkeypatch.setattr(os.path, "lexists", lambda path: False)
    first, second = Interest(directory), Interest(directory)
    monkeypatch.setattr(os.path, "lexists", lexists)
    assert first.inode == second.inode
    assert sorted(os.listdir(directory.path)) == ["table"]


def test_a_directory_that_is_gone_does_not_hinder_the_burial(table, directory):
    slot = table.take_slot(FIRST)
    slot.show()
    for name in os.listdir(directory.path):
        os.unlink(directory / name)
    os.rmdir(directory.path)
    slot.release()


def test_buckets_are_the_same_in_every_process():
    assert bucket_of("room") == 86427
    assert len({bucket_of(f"group.{number}") for number in range(1000)}) > 980
