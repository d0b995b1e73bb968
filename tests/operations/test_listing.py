"""The table of connections: what may be asked for, and what comes."""

import json

import pytest

from headrace.operations.listing import ROWS, Close, Table, page_of, parse
from tests.operations.double import connection


def page(rows, *, total=None, **wanted):
    rows = list(rows)
    total = len(rows) if total is None else total
    return page_of(rows, Table(**wanted), total=total, now=rows[0]["since"] + 10 if rows else 0)


def ids(message):
    return [row["id"] for row in message["rows"]]


def test_a_page_is_as_long_as_a_screen():
    rows = [connection(number) for number in range(2 * ROWS + 1)]
    first, last = page(rows), page(rows, page=3)
    assert len(first["rows"]) == ROWS
    assert first["pages"] == 3
    assert (first["matching"], first["listed"], first["partial"]) == (51, 51, False)
    assert ids(last) == ["1-0"]  # the oldest: the youngest come first


def test_beyond_the_last_page_is_the_last_page():
    assert page([connection(1)], page=7)["page"] == 1
    assert page([], page=7) | {"search": ""} == page([])


@pytest.mark.parametrize(
    ("search", "found"),
    [("user3", ["1-3"]), ("ROOMS 4", ["1-4"]), ("40005 user5", ["1-5"]), ("nobody", [])],
)
def test_the_search_is_over_what_names_a_connection(search, found):
    rows = [connection(number) for number in range(8)]
    assert [each for each in ids(page(rows, search=search)) if each in found] == found
    assert page(rows, search="nobody")["matching"] == 0


def test_numbers_and_names_are_sorted_each_in_their_way():
    rows = [
        connection(1, received=9, user="bob"),
        connection(2, received=10, user="Anna"),
        connection(3, received=2, user=None),
    ]
    assert ids(page(rows, sort="received")) == ["1-2", "1-1", "1-3"]
    assert ids(page(rows, sort="user", descending=False)) == ["1-2", "1-1", "1-3"]
    assert ids(page(rows, sort="user", descending=True)) == ["1-1", "1-2", "1-3"]


def test_a_row_says_how_old_it_is_where_that_is_known():
    rows = [connection(1), connection(2, since=None)]
    assert [row["age_s"] for row in page(rows)["rows"]] == [10.0, None]


def test_a_part_is_said_to_be_one():
    assert page([connection(1)], total=9)["partial"]


def test_a_server_is_asked_for_the_first_of_what_it_can_order():
    assert Table(sort="sent").order == "sent"
    assert Table(sort="user").order == "since"
    assert Table(sort="since", descending=False).order == "since"
    assert Table(sort="since").order == "newest"


def test_what_a_page_asks_for_is_read():
    text = '{"type":"table","search":"x","sort":"peer","descending":false,"page":2}'
    assert parse(text) == Table(search="x", sort="peer", descending=False, page=2)
    text = '{"type":"close","connection":"1-2","code":4000,"reason":"enough"}'
    assert parse(text) == Close(connection="1-2", code=4000, reason="enough")


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("{", "can't read"),
        ("[]", "can't read"),
        ({"type": "stop"}, "stop"),
        ({"type": "table", "page": 0}, "page"),
        ({"type": "table", "sort": "password"}, "password"),
        ({"type": "table", "search": "x" * 201}, "search"),
        ({"type": "table", "more": 1}, "more"),
        ({"type": "close"}, "connection"),
        ({"type": "close", "connection": ""}, "connection"),
        ({"type": "close", "connection": "1", "code": 1005}, "1005 is no code to close with"),
        ({"type": "close", "connection": "1", "code": "1001"}, "code"),
        ({"type": "close", "connection": "1", "reason": "ä" * 62}, "123 bytes"),
    ],
)
def test_anything_else_is_refused_with_what_is_wrong(message, said):
    text = message if isinstance(message, str) else json.dumps(message)
    with pytest.raises(ValueError, match=said):
        parse(text)


def test_a_text_that_nests_without_end_is_refused():
    with pytest.raises(ValueError, match="can't read"):
        parse('{"type":' + "[" * 100_000)
