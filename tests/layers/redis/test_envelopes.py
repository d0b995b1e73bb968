"""What a frame travels in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.exceptions import InvalidChannelLayerError
from headrace.layers.redis.envelopes import Envelopes

HERE, THERE = "0123456789abcdef", "fedcba9876543210"
KEYS = {"open": (), "sealed": (b"key",)}


@pytest.fixture(params=KEYS.values(), ids=KEYS.keys())
def keys(request):
    return request.param


@given(st.binary(max_size=200), st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1))
@pytest.mark.parametrize("keys", KEYS.values(), ids=KEYS.keys())
def test_what_goes_in_comes_out(keys, frame, sender, number):
    here, there = Envelopes(HERE, keys), Envelopes(THERE, keys)
    data = here.put(sender, number, frame)
    assert here.is_own(data)
    assert not there.is_own(data)
    opened = there.open(data)
    assert (opened.number, opened.frame) == (number, frame)
    assert opened.sender == there.open(here.put(sender, 1, b"")).sender
    assert opened.sender != there.open(here.put(sender ^ 1, number, b"")).sender
    assert opened.sender != there.open(there.put(sender, number, b"")).sender
    assert there.open_item("work", here.put_item("work", frame)) == frame


@given(st.binary(max_size=100))
@pytest.mark.parametrize("keys", KEYS.values(), ids=KEYS.keys())
def test_whatever_comes_is_an_envelope_or_a_value_error(keys, data):
    envelopes = Envelopes(HERE, keys)
    for open_it in (envelopes.open, lambda data: envelopes.open_item("work", data)):
        try:
            open_it(data)
        except ValueError:
            pass
        else:
            assert data[:1] == b"\x01"
            assert not keys


def test_each_bit_of_what_is_sealed_counts():
    here, there = Envelopes(HERE, (b"key",)), Envelopes(THERE, (b"key",))
    data = here.put(1, 2, b"frame")
    assert b"frame" not in data
    for position in range(len(data)):
        changed = bytearray(data)
        changed[position] ^= 1
        # The last characters of base64 have bits that mean nothing.
        if bytes(changed).rstrip(b"=")[:-1] != data.rstrip(b"=")[:-1]:
            with pytest.raises(ValueError, match=r"envelope|encrypted"):
                there.open(bytes(changed))


def test_what_was_sealed_for_another_queue_is_refused():
    envelopes = Envelopes(HERE, (b"key",))
    with pytest.raises(ValueError, match="another queue"):
        envelopes.open_item("play", envelopes.put_item("work", b"data"))


def test_keys_rotate():
    old, new = Envelopes(HERE, (b"old",)), Envelopes(HERE, (b"new", b"old"))
    newest = Envelopes(THERE, (b"new",))
    assert new.open(old.put(1, 1, b"x")).frame == b"x"
    assert newest.open(new.put(1, 1, b"x")).frame == b"x"
    with pytest.raises(ValueError, match="unknown key"):
        newest.open(old.put(1, 1, b"x"))


def test_what_is_too_old_is_refused(monkeypatch):
    envelopes = Envelopes(HERE, (b"key",), lifetime_s=60)
    data = envelopes.put(1, 1, b"x")
    import time

    later = time.time() + 62
    monkeypatch.setattr(time, "time", lambda: later)
    with pytest.raises(ValueError, match="too old"):
        envelopes.open(data)


def test_those_with_keys_and_those_without_say_so():
    plain, sealed = Envelopes(HERE), Envelopes(HERE, (b"key",))
    with pytest.raises(ValueError, match="there are no symmetric_encryption_keys"):
        plain.open(sealed.put(1, 1, b"x"))
    with pytest.raises(ValueError, match="not encrypted"):
        sealed.open(plain.put(1, 1, b"x"))
    with pytest.raises(ValueError, match="no symmetric_encryption_keys here"):
        plain.open_item("work", sealed.put_item("work", b"x"))
    with pytest.raises(ValueError, match="unknown kind"):
        plain.open(b"\x09" + bytes(30))
    with pytest.raises(ValueError, match="cut off"):
        plain.open(plain.put(1, 1, b"")[:-1])


def test_keys_need_a_package(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "cryptography.fernet", None)
    with pytest.raises(InvalidChannelLayerError, match=r"pip install 'headrace\[redis\]'"):
        Envelopes(HERE, (b"key",))
