"""How events are written for the way."""

import contextlib
import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.layers.redis.formats import decode, encoder

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
events = st.lists(json_values, min_size=1) | st.dictionaries(st.text(), json_values)


@given(events)
@pytest.mark.parametrize("name", ["msgpack", "json"])
def test_each_format_is_read_by_all(name, event):
    assert decode(encoder(name)(event)) == event


@given(st.binary(max_size=50))
def test_whatever_comes_is_read_or_a_value_error(data):
    with contextlib.suppress(ValueError):
        decode(data)


@pytest.mark.parametrize("value", [b"bytes", datetime.date(2026, 1, 1), float("nan"), {1, 2}])
def test_what_json_does_not_have_is_the_senders_mistake(value):
    with pytest.raises(TypeError, match="serializer_format"):
        encoder("json")({"type": "x", "value": value})


def test_what_is_nested_too_deeply_is_an_error_on_either_side():
    deep = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(TypeError):
        encoder("json")(deep)
    with pytest.raises(ValueError, match="deep"):
        decode(b"[" * 100_000)
