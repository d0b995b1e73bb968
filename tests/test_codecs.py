import collections
import contextlib
import dataclasses
import datetime
import decimal
import enum
import json
import uuid
import zoneinfo

import msgspec
import pytest
from django.http import QueryDict
from django.utils.safestring import mark_safe
from hypothesis import given
from hypothesis import strategies as st

from headrace.codecs import decode_event, decode_json, encode_event, encode_json

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


# Events between processes

ADAK = datetime.timezone(datetime.timedelta(hours=-9, minutes=-30))
keys = st.none() | st.booleans() | st.integers() | st.text() | st.binary()
travellers = st.recursive(
    keys
    | st.floats(allow_nan=False)
    | st.datetimes()
    | st.datetimes(timezones=st.sampled_from([datetime.UTC, ADAK]))
    | st.dates()
    | st.times()
    | st.timedeltas()
    | st.decimals(allow_nan=False)
    | st.uuids()
    | st.sets(keys)
    | st.frozensets(keys),
    lambda inner: (
        st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(keys, inner, max_size=5)
    ),
)


def kinds(value):
    """The value and the types of all that is in it, for ``1 == True`` and ``1 == 1.0``."""
    if isinstance(value, dict):
        return [(kinds(key), kinds(item)) for key, item in value.items()]
    if isinstance(value, list | tuple):
        return [type(value), [kinds(item) for item in value]]
    return type(value), value


@given(st.dictionaries(st.text(max_size=5), travellers, max_size=3))
def test_an_event_comes_back_as_it_went(event):
    assert kinds(decode_event(encode_event(event))) == kinds(event)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Colour.RED, "red"),
        (mark_safe("<b>"), "<b>"),
        (Metres(1.5), 1.5),
        (Count(3), 3),
        (Count(2**70), 2**70),
        (bytearray(b"ab"), b"ab"),
        (memoryview(b"ab"), b"ab"),
        (Point(1, datetime.date(2026, 1, 2)), {"x": 1, "y": datetime.date(2026, 1, 2)}),
        (QueryDict("a=1&a=2"), {"a": "2"}),
        (float("inf"), float("inf")),
        ({(1, 2): 3, datetime.date(2026, 1, 2): [4]},) * 2,
    ],
)
def test_a_subclass_travels_as_what_it_is_one_of(value, expected):
    for wrapped, wanted in [(value, expected), ({"in": [value]}, {"in": [expected]})]:
        assert kinds(decode_event(encode_event(wrapped))) == kinds(wanted)


def test_a_time_zone_travels_as_its_offset():
    paris = datetime.datetime(2026, 7, 1, tzinfo=zoneinfo.ZoneInfo("Europe/Paris"))
    arrived = decode_event(encode_event(paris))
    assert arrived == paris
    assert arrived.utcoffset() == datetime.timedelta(hours=2)


@pytest.mark.parametrize(
    ("value", "path", "kind"),
    [
        (object(), r"\$", "object"),
        ({"user": {"avatar": object()}}, r"\$\.user\.avatar", "object"),
        ({"a": [1, (2, Point)]}, r"\$\.a\[1\]\[1\]", "type"),
        ({"text": "\ud800"}, r"\$\.text", "str"),
        ({"m": {object(): 3}}, r"\$\.m", "dict"),
    ],
)
def test_what_cannot_travel_is_told_with_its_path(value, path, kind):
    with pytest.raises(TypeError, match=rf"a {kind} at {path} can't travel between processes: "):
        encode_event(value)


def test_an_event_that_holds_itself_is_an_error_and_no_crash():
    endless = {}
    endless["self"] = endless
    with pytest.raises(TypeError, match="can't travel"):
        encode_event(endless)


@given(st.binary())
def test_foreign_bytes_are_a_value_or_a_value_error(data):
    with contextlib.suppress(ValueError):
        decode_event(data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"\x91" * 100_000,
        msgspec.msgpack.encode(msgspec.msgpack.Ext(77, b"")),
        msgspec.msgpack.encode(msgspec.msgpack.Ext(2, msgspec.msgpack.encode("yesterday"))),
        msgspec.msgpack.encode(msgspec.msgpack.Ext(9, msgspec.msgpack.encode([[]]))),
        msgspec.msgpack.encode(msgspec.msgpack.Ext(6, msgspec.msgpack.encode("much"))),
        msgspec.msgpack.encode({"a": 1})[:-1],
        msgspec.msgpack.encode({"a": 1}) + b"x",
    ],
)
def test_broken_bytes_are_a_value_error(data):
    with pytest.raises(ValueError, match="no event"):
        decode_event(data)
