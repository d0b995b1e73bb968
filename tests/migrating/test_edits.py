"""Spans of a text, replaced."""

import pytest

from headrace.migrating.edits import Edit, apply


def test_edits_in_any_order():
    assert apply("a b c", [Edit(4, 5, "z"), Edit(0, 1, "x")]) == "x b z"


def test_spans_count_bytes():
    assert apply("ä b", [Edit(3, 4, "ö")]) == "ä ö"


def test_the_same_edit_twice_is_one():
    assert apply("a", [Edit(0, 1, "b"), Edit(0, 1, "b")]) == "b"


def test_no_edits():
    assert apply("a\r\nb", []) == "a\r\nb"


def test_edits_that_overlap():
    with pytest.raises(AssertionError, match="overlap"):
        apply("abc", [Edit(0, 2, "x"), Edit(1, 3, "y")])
