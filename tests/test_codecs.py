import collections
import dataclasses
import datetime
import decimal
import enum
import json
import uuid

import pytest
from django.http import QueryDict
from django.utils.safestring import mark_safe
from hypothesis import given
from hypothesis import strategies as st

from headrace.codecs import decode_json, encode_json

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(alphabet="aé☃"), inner),
)


@given(json_values)
def test_what_json_has_comes_back_as_it_went(value):
    text = encode_json(value)
    assert json.loads(text) == value
    assert decode_json(text) == value


class Colour(enum.Enum):
    RED = "red"


class Metres(float):
    pass


class Count(int):
    pass


@dataclasses.dataclass
class Point:
    x: int
    y: int


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC), "2026-01-02T03:04:05Z"),
        (datetime.date(2026, 1, 2), "2026-01-02"),
        (datetime.time(3, 4), "03:04:00"),
        (decimal.Decimal("1.10"), "1.10"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (Colour.RED, "red"),
        (Point(1, 2), {"x": 1, "y": 2}),
        ((1, 2), [1, 2]),
        ({3}, [3]),
        (b"ab", "YWI="),
        (mark_safe("<b>"), "<b>"),
        (Metres(1.5), 1.5),
        (Count(3), 3),
        ({1: mark_safe("x")}, {"1": "x"}),
        (2**80, 2**80),
        (QueryDict("a=1&a=2&b="), {"a": "2", "b": ""}),
        (collections.OrderedDict(a=1), {"a": 1}),
        ({None: 1, True: 2, False: 3, 4: 5}, {"null": 1, "true": 2, "false": 3, "4": 5}),
    ],
)
def test_what_json_lacks_has_a_standard_form(value, expected):
    assert json.loads(encode_json(value)) == expected
    assert json.loads(encode_json({"in": [value]})) == {"in": [expected]}


@pytest.mark.parametrize(
    ("value", "path", "kind"),
    [
        (object(), r"\$", "object"),
        ({"user": {"avatar": object()}}, r"\$\.user\.avatar", "object"),
        ({"a": [1, (2, object())]}, r"\$\.a\[1\]\[1\]", "object"),
        ({"text": "\ud800"}, r"\$\.text", "str"),
        ({"m": {object(): 1}}, r"\$\.m", "dict"),
    ],
)
def test_an_error_names_the_path_of_what_has_no_json(value, path, kind):
    with pytest.raises(TypeError, match=rf"no JSON for {kind} at {path}: "):
        encode_json(value)


def test_a_value_that_holds_itself_is_an_error_and_no_crash():
    endless = []
    endless.append(endless)
    with pytest.raises(TypeError, match="no JSON for list"):
        encode_json(endless)


@pytest.mark.parametrize(
    ("text", "position"),
    [("{bad", 1), ('["é", xyz]', 6), (b'["\xc3\xa9", xyz]', 6), ("", 0), ("[1,", 3), ("NaN", 0)],
)
def test_malformed_text_is_a_decode_error_that_says_where(text, position):
    with pytest.raises(json.JSONDecodeError) as caught:
        decode_json(text)
    assert caught.value.pos == position


@pytest.mark.parametrize("text", ['"\\ud800"', "\ud800", b"\xff", "1e999"])
def test_what_is_no_unicode_and_no_number_is_a_decode_error(text):
    with pytest.raises(ValueError, match="line 1"):
        decode_json(text)


def test_deep_nesting_is_an_error_and_no_crash():
    with pytest.raises(json.JSONDecodeError, match="too deeply"):
        decode_json("[" * 200_000)
