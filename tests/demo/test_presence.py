"""Who is in a room, as a register without any connection."""

import pytest
from demo.chat.presence import Presence
from hypothesis import given
from hypothesis import strategies as st

MAYA = {"id": 1, "name": "Maya"}
JONAS = {"id": 2, "name": "Jonas"}


def test_a_person_comes_with_the_first_tab_and_leaves_with_the_last():
    presence = Presence()
    assert presence.enter(7, MAYA, "tab 1") == 1
    assert presence.enter(7, MAYA, "tab 2") is None
    assert presence.people(7) == [MAYA]
    assert presence.leave(7, 1, "tab 1") is None
    assert presence.people(7) == [MAYA]
    assert presence.leave(7, 1, "tab 2") == 2
    assert presence.people(7) == []


def test_leaving_twice_is_leaving_once():
    presence = Presence()
    presence.enter(7, MAYA, "tab 1")
    presence.enter(7, MAYA, "tab 2")
    presence.leave(7, 1, "tab 1")
    assert presence.leave(7, 1, "tab 1") is None
    assert presence.people(7) == [MAYA]


@pytest.mark.parametrize(("room", "user"), [(7, 2), (8, 1), (8, 2)])
def test_leaving_without_having_been_there_changes_nothing(room, user):
    presence = Presence()
    presence.enter(7, MAYA, "tab 1")
    assert presence.leave(room, user, "tab 1") is None
    assert presence.people(7) == [MAYA]


def test_rooms_are_apart():
    presence = Presence()
    presence.enter(7, MAYA, "tab 1")
    presence.enter(8, JONAS, "tab 2")
    assert presence.people(7) == [MAYA]
    assert presence.people(8) == [JONAS]
    assert presence.people(9) == []


@given(
    st.lists(
        st.tuples(st.booleans(), st.integers(1, 2), st.integers(1, 3), st.integers(1, 3)),
        max_size=40,
    )
)
def test_it_agrees_with_a_set_of_connections(steps):
    presence, connections, revisions = Presence(), set(), []
    for comes, room, user, tab in steps:
        before = {(room, user) for room, user, _ in connections}
        if comes:
            revision = presence.enter(room, {"id": user}, f"{user}/{tab}")
            connections.add((room, user, tab))
        else:
            revision = presence.leave(room, user, f"{user}/{tab}")
            connections.discard((room, user, tab))
        after = {(room, user) for room, user, _ in connections}
        assert (revision is not None) == (before != after)
        if revision is not None:
            revisions.append(revision)
        for each in (1, 2):
            there = {user for room, user in after if room == each}
            assert {person["id"] for person in presence.people(each)} == there
    assert revisions == sorted(set(revisions))
