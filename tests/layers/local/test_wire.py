import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.layers.local.wire import GREETING_BYTES, FrameReader, WireError, greeting, prefixed

PROCESS, NUMBER = "0123456789abcdef", "fedcba9876543210"
HELLO = greeting(PROCESS, NUMBER)


@given(st.lists(st.binary(max_size=20), max_size=6), st.lists(st.integers(1, 30), max_size=30))
def test_frames_come_out_as_they_went_in_however_they_are_cut(frames, cuts):
    data = HELLO + b"".join(map(prefixed, frames))
    reader, received = FrameReader(100), []
    for cut in cuts:
        received += reader.receive(data[:cut])
        data = data[cut:]
    received += reader.receive(data)
    assert received == frames
    assert (reader.process, reader.connection) == (PROCESS, NUMBER)
    assert not reader.amid


def test_byte_by_byte():
    reader = FrameReader(100)
    data = HELLO + prefixed(b"one") + prefixed(b"") + prefixed(b"three")
    assert [frame for byte in data for frame in reader.receive(bytes([byte]))] == [
        b"one",
        b"",
        b"three",
    ]


def test_it_knows_whether_a_frame_has_begun():
    reader = FrameReader(100)
    reader.receive(HELLO)
    assert not reader.amid
    reader.receive(prefixed(b"frame")[:-1])
    assert reader.amid
    assert reader.receive(b"e") == [b"frame"]
    assert not reader.amid


@given(st.binary(min_size=GREETING_BYTES, max_size=200))
def test_what_is_no_greeting_is_refused(data):
    with pytest.raises(WireError):
        FrameReader(100).receive(data)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"GET / HTTP/1.1\r\n" * 4, "does not begin"),
        (HELLO[:8] + b"\x63" + HELLO[9:], "version 99 of the wire.*restart all processes"),
        (HELLO[:25] + b"no hexadecimals!", "names no connection"),
        (HELLO[:9] + b"\xff" * 32, "names no connection"),
        (HELLO + prefixed(b"x" * 101), "a frame of 101 bytes, where 100 are allowed"),
    ],
)
def test_why_it_is_refused(data, told):
    with pytest.raises(WireError, match=told):
        FrameReader(100).receive(data)
