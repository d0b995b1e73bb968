import gc
import sys
import time
import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.frames import Opcode
from websockets.protocol import State as PeerState
from websockets.uri import parse_uri

from headrace.exceptions import ConfigurationError, LocalProtocolError
from headrace.protocols import websocket
from headrace.protocols.deflate import DeflateFactory
from headrace.protocols.websocket import (
    TRANSITIONS,
    CloseReceived,
    ConnectionFailed,
    Limits,
    PingReceived,
    PongReceived,
    State,
    Timeouts,
    WebSocketEngine,
)

from . import wire
from .test_frames import LEAVES
from .wire import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, feed, frame, server_frame

GOOD_CODES = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 4999]
BAD_CODES = [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535]


@pytest.fixture(scope="module", autouse=True, params=LEAVES, ids=lambda leaf: leaf.__name__)
def leaf(request):
    """Run everything over each build of the leaf."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("encode_frame", "read_header", "read_messages", "unmask"):
            patch.setattr(websocket, name, getattr(request.param, name))
        yield request.param


@pytest.fixture
def engine():
    return WebSocketEngine(0.0)


def failure(data: bytes, **limits) -> ConnectionFailed:
    """Return how a connection fails that gets ``data``, whole and byte by byte."""
    outcomes = []
    for step in (None, 1):
        engine = WebSocketEngine(0.0, limits=Limits(**limits))
        *before, event = feed(engine, data, step=step)
        assert isinstance(event, ConnectionFailed)
        assert engine.state is State.CLOSED
        assert (engine.close_code, engine.close_reason) == (event.code, event.reason)
        payload = event.code.to_bytes(2, "big") + event.reason.encode()
        assert engine.data_to_send().endswith(server_frame(CLOSE, payload))
        outcomes.append((before, event))
    assert outcomes[0] == outcomes[1]
    return outcomes[0][1]


class TestMessages:
    @pytest.mark.parametrize("step", [None, 1, 3])
    @pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 128, 65535, 65536])
    def test_of_every_length(self, engine, size, step):
        payload = "x" * size
        data = wire.text(payload) + frame(BINARY, payload.encode())
        events = feed(engine, data, step=None if size > 1000 else step)
        assert events == [payload, payload.encode()]

    @pytest.mark.parametrize(
        "mask", [b"\x00\x00\x00\x00", b"\xff\xff\xff\xff", b"\x01\x02\x03\x04"]
    )
    def test_under_every_mask(self, engine, mask):
        data = frame(TEXT, b"payload", mask=mask)
        assert feed(engine, data) + feed(engine, data, step=1) == ["payload", "payload"]

    def test_many_in_one_piece(self, engine):
        assert feed(engine, wire.text("a") * 1_000) == ["a"] * 1_000

    def test_an_empty_piece_changes_nothing(self, engine):
        assert engine.receive(b"", 0.0) == []
        engine.receive(wire.text("abc")[:-1], 0.0)
        assert engine.receive(b"", 0.0) == []
        assert engine.receive(wire.text("abc")[-1:], 0.0) == ["abc"]

    def test_a_frame_that_arrives_in_two_reads_and_brings_the_next(self, engine):
        data = wire.text("first") + frame(BINARY, b"second") + wire.text("third")
        assert engine.receive(data[:20], 0.0) == ["first"]
        assert engine.receive(data[20:], 0.0) == [b"second", "third"]


class TestFragments:
    @pytest.mark.parametrize("step", [None, 1])
    def test_are_joined(self, engine, step):
        data = frame(TEXT, b"one ", fin=False) + frame(CONTINUATION, b"two ", fin=False)
        data += frame(CONTINUATION, b"three") + wire.text("four")
        assert feed(engine, data, step=step) == ["one two three", "four"]

    @pytest.mark.parametrize("step", [None, 1])
    def test_may_be_empty(self, engine, step):
        data = frame(BINARY, fin=False) + frame(CONTINUATION, fin=False) + frame(CONTINUATION)
        data += frame(TEXT, b"a", fin=False) + frame(CONTINUATION)
        assert feed(engine, data, step=step) == [b"", "a"]

    @pytest.mark.parametrize("step", [None, 1])
    def test_control_frames_come_between(self, engine, step):
        data = frame(TEXT, b"one ", fin=False) + frame(PING, b"1") + frame(PONG, b"2")
        data += frame(CONTINUATION, b"two") + frame(PING)
        events = feed(engine, data, step=step)
        assert events == [PingReceived(b"1"), PongReceived(b"2"), "one two", PingReceived(b"")]
        assert engine.data_to_send() == server_frame(PONG, b"1") + server_frame(PONG)

    def test_a_close_frame_comes_between(self, engine):
        data = frame(TEXT, b"one ", fin=False) + wire.close(1000)
        assert feed(engine, data) == [CloseReceived(1000, "")]

    @pytest.mark.parametrize("opcode", [TEXT, BINARY])
    def test_no_message_begins_inside_another(self, opcode):
        event = failure(frame(TEXT, b"one", fin=False) + frame(opcode, b"two"))
        assert event.code == 1002

    @pytest.mark.parametrize("fin", [False, True])
    def test_nothing_is_continued_that_did_not_begin(self, fin):
        assert failure(frame(CONTINUATION, b"two", fin=fin)).code == 1002
        assert failure(wire.text("one") + frame(CONTINUATION, b"two", fin=fin)).code == 1002


class TestFrames:
    @pytest.mark.parametrize("rsv", [0x10, 0x20, 0x40, 0x50, 0x70])
    @pytest.mark.parametrize("opcode", [TEXT, BINARY, PING, PONG, CLOSE])
    def test_reserved_bits_are_zero(self, opcode, rsv):
        assert failure(wire.text("ok") + frame(opcode, b"", rsv=rsv)).code == 1002

    @pytest.mark.parametrize("opcode", [3, 4, 5, 6, 7, 11, 12, 13, 14, 15])
    def test_reserved_opcodes_are_refused(self, opcode):
        assert failure(frame(opcode, b"x")).reason == f"unknown opcode {opcode}"

    def test_an_unmasked_frame_is_refused(self):
        # RFC 6455 §5.1
        assert failure(frame(TEXT, b"abcdefgh", mask=None)).code == 1002

    @pytest.mark.parametrize(("size", "form"), [(5, 2), (5, 8), (200, 8)])
    def test_a_length_has_its_shortest_form(self, size, form):
        assert failure(frame(TEXT, b"x" * size, form=form)).code == 1002

    def test_the_top_bit_of_a_length_is_zero(self):
        assert failure(frame(TEXT, announce=1 << 63)).code == 1002

    @pytest.mark.parametrize("opcode", [PING, PONG, CLOSE])
    def test_a_control_frame_is_whole(self, opcode):
        assert failure(frame(opcode, b"", fin=False)).code == 1002

    @pytest.mark.parametrize("opcode", [PING, PONG, CLOSE])
    def test_a_control_frame_is_short(self, opcode):
        # Refused by its header alone.
        assert failure(frame(opcode, announce=126)).code == 1002


class TestText:
    @pytest.mark.parametrize("step", [None, 1, 2, 3])
    @pytest.mark.parametrize(
        "text", ["κόσμε", "\ud7ff\ue000\U00010000\U0010ffff\x00\x7f\x80", "\ufffe"]
    )
    def test_of_every_script(self, engine, text, step):
        data = wire.text(text)
        halves = text.encode()[:3], text.encode()[3:]
        data += frame(TEXT, halves[0], fin=False) + frame(CONTINUATION, halves[1])
        assert feed(engine, data, step=step) == [text, text]

    # The first bytes that can't be UTF-8 any more, whatever follows.
    INVALID = (
        b"\x80",
        b"\xbf",
        b"\xc0",
        b"\xc1",
        b"\xc3\x28",
        b"\xe0\x80",
        b"\xe0\x9f",
        b"\xe2\x28",
        b"\xe2\x82\x28",
        b"\xed\xa0",  # a surrogate
        b"\xed\xbf",
        b"\xf0\x80",
        b"\xf0\x8f",
        b"\xf0\x90\x28",
        b"\xf0\x90\x8d\x28",
        b"\xf4\x90",  # beyond the last code point
        b"\xf5",
        b"\xff",
    )

    @pytest.mark.parametrize("invalid", INVALID)
    def test_fails_the_moment_the_bad_byte_arrives(self, invalid):
        # Inside a frame that promises more, in whatever pieces.
        good = "κόσμε".encode()
        data = frame(TEXT, good + invalid, announce=500)
        for step in (None, 1, 2, 5):
            engine = WebSocketEngine(0.0)
            assert feed(engine, data[:-1], step=step) == []
            (event,) = feed(engine, data[-1:])
            assert event == ConnectionFailed(1007, "text must be UTF-8")

    @pytest.mark.parametrize("invalid", INVALID)
    def test_fails_over_two_fragments(self, invalid):
        first = frame(TEXT, b"good" + invalid[:-1], fin=False)
        assert failure(first + frame(CONTINUATION, invalid[-1:], announce=9)).code == 1007

    @pytest.mark.parametrize("invalid", [*INVALID, b"\xce", b"\xe2\x82", b"\xf0\x90\x8d"])
    def test_fails_whole(self, invalid):
        # The last three are the beginning of a character, which a message can't end with.
        assert failure(frame(TEXT, b"good" + invalid)).code == 1007
        last = frame(TEXT, b"good" + invalid, fin=False) + frame(CONTINUATION)
        assert failure(last).code == 1007

    def test_every_sequence_of_two_bytes(self):
        for first in range(0x80, 0x100):
            for second in range(0, 0x100, 5):
                pair = bytes((first, second))
                engine = WebSocketEngine(0.0)
                events = feed(engine, frame(TEXT, pair, announce=6))
                assert (events == []) == could_be_text(pair), pair

    def test_binary_is_not_text(self, engine):
        assert feed(engine, frame(BINARY, b"\xff\xfe"), step=1) == [b"\xff\xfe"]


def could_be_text(data: bytes) -> bool:
    """Say whether some continuation makes ``data`` UTF-8: by trying."""
    for rest in (b"", b"\x80", b"\x80\x80", b"\x80\x80\x80"):
        try:
            (data + rest).decode()
        except UnicodeDecodeError:
            continue
        return True
    return False


class TestPings:
    @pytest.mark.parametrize("step", [None, 1])
    @pytest.mark.parametrize("payload", [b"", b"hello", b"\x00\xff" * 62 + b"x"])
    def test_are_answered(self, engine, payload, step):
        assert feed(engine, frame(PING, payload), step=step) == [PingReceived(payload)]
        assert engine.data_to_send() == server_frame(PONG, payload)
        assert engine.data_to_send() == b""

    def test_ten_are_answered_ten_times(self, engine):
        pings = [b"payload-%d" % number for number in range(10)]
        feed(engine, b"".join(frame(PING, payload) for payload in pings))
        assert engine.data_to_send() == b"".join(server_frame(PONG, each) for each in pings)

    def test_of_a_client_that_never_reads_cost_bounded_memory(self, engine):
        # RFC 6455 §5.5.3 allows to answer the most recent one only. Uvicorn grew by 91 MB here.
        for number in range(100_000 // 50):
            feed(engine, frame(PING, b"%d" % number) * 50)
        output = engine.data_to_send()
        assert len(output) <= 4096
        assert output.endswith(server_frame(PONG, b"%d" % number))

    def test_pongs_are_reported_and_not_answered(self, engine):
        assert feed(engine, frame(PONG, b"x")) == [PongReceived(b"x")]
        assert engine.data_to_send() == b""

    def test_of_our_own(self, engine):
        engine.send_ping()
        engine.send_ping(b"x" * 125)
        assert engine.data_to_send() == server_frame(PING) + server_frame(PING, b"x" * 125)
        with pytest.raises(LocalProtocolError, match="126 bytes"):
            engine.send_ping(b"x" * 126)


class TestClosing:
    @pytest.mark.parametrize("step", [None, 1])
    @pytest.mark.parametrize("code", GOOD_CODES)
    def test_the_peer_closes(self, engine, code, step):
        assert feed(engine, wire.close(code, "adiós"), step=step) == [CloseReceived(code, "adiós")]
        assert engine.state is State.CLOSED
        assert (engine.close_code, engine.close_reason) == (code, "adiós")
        assert engine.data_to_send() == server_frame(CLOSE, code.to_bytes(2, "big"))

    def test_the_peer_closes_without_a_code(self, engine):
        assert feed(engine, frame(CLOSE)) == [CloseReceived(1005, "")]
        assert engine.close_code == 1005
        assert engine.data_to_send() == server_frame(CLOSE)

    def test_with_the_longest_reason(self, engine):
        reason = "x" * 123
        assert feed(engine, wire.close(1000, reason)) == [CloseReceived(1000, reason)]

    def test_one_byte_is_no_code(self):
        assert failure(frame(CLOSE, b"\x03")).code == 1002

    @pytest.mark.parametrize("code", BAD_CODES)
    def test_codes_that_may_not_be_sent(self, code):
        assert failure(wire.close(code)).code == 1002

    def test_a_reason_that_is_not_text(self):
        assert failure(frame(CLOSE, b"\x03\xe8\xff")).code == 1007

    def test_nothing_is_read_after_it(self, engine):
        assert feed(engine, wire.close(1000) + wire.text("late") + b"\xff\xff") == [
            CloseReceived(1000, "")
        ]
        assert feed(engine, wire.text("later")) == []

    def test_it_leaves_what_came_before_time_for_an_answer(self, engine):
        assert engine.receive(wire.text("a") + frame(PING) + wire.close(1000), 0.0) == [
            "a",
            PingReceived(b""),
        ]
        assert engine.has_unread
        assert engine.encode("answer")
        assert engine.receive(b"", 0.0) == [CloseReceived(1000, "")]
        assert not engine.has_unread

    def test_a_failure_leaves_it_time_too(self, engine):
        assert engine.receive(wire.text("a") + frame(3), 0.0) == ["a"]
        assert engine.has_unread
        assert engine.encode("answer")
        assert engine.receive(b"more", 0.0) == [ConnectionFailed(1002, "unknown opcode 3")]
        assert not engine.has_unread
        assert engine.receive(b"", 0.0) == []

    @pytest.mark.parametrize("code", GOOD_CODES)
    def test_we_close(self, engine, code):
        engine.send_close(code, "adiós", now=1.0)
        assert engine.state is State.CLOSING
        payload = code.to_bytes(2, "big") + "adiós".encode()
        assert engine.data_to_send() == server_frame(CLOSE, payload)
        assert feed(engine, wire.close(code)) == [CloseReceived(code, "")]
        assert engine.state is State.CLOSED
        assert engine.data_to_send() == b""

    def test_we_close_without_a_code(self, engine):
        engine.send_close(None, now=1.0)
        assert engine.data_to_send() == server_frame(CLOSE)

    @pytest.mark.parametrize("code", [*BAD_CODES, -1, 70_000])
    def test_we_send_no_code_that_may_not_be_sent(self, engine, code):
        with pytest.raises(LocalProtocolError, match="cannot close with code"):
            engine.send_close(code, now=0.0)
        assert engine.state is State.OPEN

    def test_our_reason_fits(self, engine):
        with pytest.raises(LocalProtocolError, match="124 bytes, the limit is 123"):
            engine.send_close(1000, "é" * 62, now=0.0)
        with pytest.raises(LocalProtocolError, match="without a close code"):
            engine.send_close(None, "why", now=0.0)
        engine.send_close(1000, "\ud800" + "é" * 61, now=0.0)
        assert len(engine.data_to_send()) == 127

    def test_what_arrives_after_our_close_is_checked_and_dropped(self, engine):
        feed(engine, frame(TEXT, b"begun ", fin=False))
        engine.send_close(now=1.0)
        engine.data_to_send()
        late = frame(CONTINUATION, b"late") + wire.text("later") + frame(PING) + frame(PONG)
        assert feed(engine, late) == []
        assert engine.data_to_send() == b""
        assert feed(engine, frame(TEXT, b"\xff")) == [ConnectionFailed(1007, "text must be UTF-8")]
        assert engine.data_to_send() == b""  # our close frame was the last

    def test_both_close_at_once(self, engine):
        engine.send_close(1001, now=1.0)
        assert feed(engine, wire.close(3000)) == [CloseReceived(3000, "")]
        assert engine.data_to_send() == server_frame(CLOSE, b"\x03\xe9")


class TestEndOfFile:
    @pytest.mark.parametrize("before", [b"", wire.text("abc")[:3], frame(TEXT, b"a", fin=False)])
    def test_without_a_close_frame_is_a_failure(self, engine, before):
        feed(engine, before)
        (event,) = engine.receive_eof(1.0)
        assert event.code == engine.close_code == 1006
        assert engine.state is State.CLOSED
        assert engine.data_to_send() == b""
        assert engine.receive_eof(1.0) == []

    def test_instead_of_the_answer_to_our_close(self, engine):
        engine.send_close(now=0.0)
        assert engine.receive_eof(1.0)[0].code == 1006

    def test_after_the_close_handshake_is_what_should_happen(self, engine):
        feed(engine, wire.close(1000))
        assert engine.receive_eof(1.0) == []
        assert engine.close_code == 1000


class TestStates:
    def test_every_state_has_its_row(self):
        assert set(TRANSITIONS) == set(State)

    def test_closed_is_the_end(self):
        assert TRANSITIONS[State.CLOSED] == {}
        assert all(State.OPEN not in row.values() for row in TRANSITIONS.values())

    @pytest.mark.parametrize("state", [State.CLOSING, State.CLOSED])
    def test_nothing_is_sent_once_closing_began(self, engine, state):
        engine.send_close(now=0.0)
        if state is State.CLOSED:
            feed(engine, wire.close(1000))
        engine.data_to_send()
        for send in (
            lambda: engine.encode("x"),
            lambda: engine.encode(b"x"),
            lambda: engine.send_ping(),
            lambda: engine.send_close(now=0.0),
        ):
            with pytest.raises(LocalProtocolError, match=f"state={state.name}"):
                send()
        assert engine.data_to_send() == b""


class TestEncode:
    @pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536])
    def test_one_frame_a_message(self, engine, size):
        assert engine.encode("x" * size) == server_frame(TEXT, b"x" * size)
        assert engine.encode(b"x" * size) == server_frame(BINARY, b"x" * size)

    def test_text_is_utf8(self, engine):
        assert engine.encode("κόσμε") == server_frame(TEXT, "κόσμε".encode())
        with pytest.raises(LocalProtocolError, match="no UTF-8"):
            engine.encode("\ud800")

    @pytest.mark.parametrize("kind", [bytearray, memoryview])
    def test_whatever_holds_bytes_is_bytes(self, engine, kind):
        assert engine.encode(kind(b"abc")) == server_frame(BINARY, b"abc")

    @pytest.mark.parametrize("message", [None, 5, ["a"]])
    def test_nothing_else_is_a_message(self, engine, message):
        with pytest.raises(TypeError, match="str or bytes"):
            engine.encode(message)

    def test_it_keeps_nothing(self, engine):
        engine.encode("x")
        assert engine.data_to_send() == b""

    def test_plain_connections_share_a_wire(self, engine):
        assert engine.wire == WebSocketEngine(5.0).wire
        assert engine.wire is not None


class TestLimits:
    @pytest.mark.parametrize("name", ["message_bytes", "frame_bytes", "fragments"])
    def test_are_positive(self, name):
        with pytest.raises(ConfigurationError, match=f"{name} must be at least 1, not 0"):
            Limits(**{name: 0})

    def test_a_message_of_the_limit_passes(self):
        engine = WebSocketEngine(0.0, limits=Limits(message_bytes=10))
        data = wire.text("0123456789") + frame(TEXT, b"01234", fin=False)
        assert feed(engine, data + frame(CONTINUATION, b"56789")) == ["0123456789"] * 2

    @pytest.mark.parametrize("size", [11, 126, 70_000, (1 << 63) - 1])
    def test_a_longer_one_is_refused_by_its_header(self, size):
        # Nothing of the payload has arrived, and no memory was taken for it.
        assert failure(frame(TEXT, announce=size), message_bytes=10).code == 1009
        assert failure(frame(BINARY, announce=size), frame_bytes=10).code == 1009

    def test_fragments_count_together(self):
        data = frame(TEXT, b"012345", fin=False) + frame(CONTINUATION, announce=5)
        assert failure(data, message_bytes=10).code == 1009

    def test_the_size_is_taken_when_it_arrives_not_when_it_is_announced(self):
        engine = WebSocketEngine(0.0, limits=Limits(message_bytes=1 << 30, frame_bytes=1 << 30))
        tracemalloc.start()
        try:
            feed(engine, frame(BINARY, b"x", announce=1 << 29))
            assert tracemalloc.get_traced_memory()[1] < 100_000
        finally:
            tracemalloc.stop()

    @pytest.mark.parametrize("payload", [b"", b"x"])
    def test_fragments_without_end_are_refused(self, payload):
        data = frame(TEXT, b"", fin=False) + frame(CONTINUATION, payload, fin=False) * 100
        assert failure(data, fragments=100).code == 1009
        whole = data + frame(CONTINUATION)
        assert failure(whole, fragments=101).code == 1009
        engine = WebSocketEngine(0.0, limits=Limits(fragments=102))
        assert feed(engine, whole) == [payload.decode() * 100]

    def test_each_message_counts_its_own_fragments(self):
        engine = WebSocketEngine(0.0, limits=Limits(fragments=2, message_bytes=2))
        data = frame(TEXT, b"a", fin=False) + frame(CONTINUATION, b"b")
        assert feed(engine, data * 5) == ["ab"] * 5

    def test_text_in_small_pieces_takes_the_memory_of_its_bytes(self):
        # As a list of strings it would take eighty times as much.
        engine = WebSocketEngine(0.0, limits=Limits(fragments=1 << 20))
        piece = frame(CONTINUATION, "é".encode(), fin=False)
        feed(engine, frame(TEXT, b"", fin=False))
        tracemalloc.start()
        try:
            for _ in range(20_000):
                engine.receive(piece, 0.0)
            assert tracemalloc.get_traced_memory()[0] < 100_000
        finally:
            tracemalloc.stop()


class TestMaxEvents:
    def test_stops_and_goes_on(self, engine):
        data = wire.text("a") * 5 + wire.text("b")[:3]
        assert engine.receive(data, 0.0, max_events=2) == ["a", "a"]
        assert engine.has_unread
        assert engine.receive(b"", 0.0, max_events=2) == ["a", "a"]
        assert engine.receive(wire.text("b")[3:], 0.0, max_events=2) == ["a", "b"]
        assert not engine.has_unread
        assert engine.receive(wire.text("c"), 0.0) == ["c"]

    def test_counts_every_kind_of_event(self, engine):
        data = frame(TEXT, b"a", fin=False) + frame(PING) + frame(CONTINUATION) + frame(PONG)
        events = []
        events += engine.receive(data, 0.0, max_events=1)
        while engine.has_unread:
            more = engine.receive(b"", 0.0, max_events=1)
            assert len(more) <= 1
            events += more
        assert events == [PingReceived(b""), "a", PongReceived(b"")]

    def test_none_at_all(self, engine):
        assert engine.receive(wire.text("a"), 0.0, max_events=0) == []
        assert engine.has_unread
        assert engine.receive(b"", 0.0) == ["a"]

    def test_a_large_read_is_not_copied_for_every_call(self, engine):
        data = wire.text("a") * 100_000
        engine.receive(data, 0.0)
        kept = engine._buffer
        engine.receive(b"", 0.0)
        assert engine._buffer is kept is data


class TestKeepAlive:
    @pytest.mark.parametrize("name", ["ping_interval_s", "ping_timeout_s", "close_timeout_s"])
    @pytest.mark.parametrize("value", [0, -1.0])
    def test_times_are_positive(self, name, value):
        with pytest.raises(ConfigurationError, match=f"{name} must be more than 0"):
            Timeouts(**{name: value})

    def engine(self, **times):
        times = {"ping_interval_s": 20.0, "ping_timeout_s": 5.0, "close_timeout_s": 3.0, **times}
        return WebSocketEngine(100.0, timeouts=Timeouts(**times))

    def test_a_silent_peer_is_pinged(self):
        engine = self.engine()
        assert engine.deadline() == 120.0
        assert engine.timeout(119.9) == []
        assert engine.data_to_send() == b""
        assert engine.timeout(120.0) == []
        assert engine.data_to_send() == server_frame(PING)

    def test_whatever_it_sends_puts_the_ping_off(self):
        engine = self.engine()
        for data in (wire.text("a"), wire.text("b")[:1], frame(PONG), b""):
            engine.receive(data, 110.0)
            assert engine.deadline() == 130.0
            engine = self.engine()

    def test_an_answer_is_waited_for(self):
        engine = self.engine()
        engine.timeout(120.0)
        assert engine.deadline() == 125.0
        assert engine.timeout(124.9) == []
        engine.receive(frame(PONG), 124.9)
        assert engine.deadline() == 144.9
        assert engine.timeout(125.0) == []

    def test_an_answer_in_the_same_instant_counts(self):
        engine = self.engine()
        engine.timeout(120.0)
        engine.receive(frame(PONG), 120.0)
        assert engine.deadline() == 140.0

    def test_silence_after_the_ping_ends_the_connection(self):
        engine = self.engine()
        engine.timeout(120.0)
        engine.data_to_send()
        (event,) = engine.timeout(125.0)
        assert event == ConnectionFailed(1011, "keep-alive ping was not answered in time")
        assert engine.state is State.CLOSED
        assert engine.data_to_send() == server_frame(CLOSE, b"\x03\xf3" + event.reason.encode())
        assert engine.deadline() is None
        assert engine.timeout(1000.0) == []

    def test_without_a_limit_it_is_pinged_again_and_again(self):
        engine = self.engine(ping_timeout_s=None)
        for now in (120.0, 140.0, 160.0):
            assert engine.deadline() == now
            assert engine.timeout(now) == []
            assert engine.data_to_send() == server_frame(PING)

    def test_keep_alive_can_be_off(self):
        engine = self.engine(ping_interval_s=None, message_timeout_s=None)
        assert engine.deadline() is None
        assert engine.timeout(1e9) == []

    def test_the_close_handshake_ends(self):
        engine = self.engine()
        engine.timeout(120.0)
        engine.send_close(now=121.0)
        engine.data_to_send()
        assert engine.deadline() == 124.0
        engine.receive(wire.text("not the answer"), 123.0)
        assert engine.deadline() == 124.0
        (event,) = engine.timeout(124.0)
        assert event.code == engine.close_code == 1006
        assert engine.state is State.CLOSED
        assert engine.data_to_send() == b""

    def test_a_closed_connection_waits_for_nothing(self):
        engine = self.engine()
        feed(engine, wire.close(1000))
        assert engine.deadline() is None


class TestSlowMessages:
    BEGUN = wire.text("hello")[:8]

    def engine(self, **timeouts):
        timeouts = {"message_timeout_s": 30.0, "ping_interval_s": 20.0} | timeouts
        return WebSocketEngine(100.0, timeouts=Timeouts(**timeouts))

    @pytest.mark.parametrize(
        "pieces",
        [
            # What trickles in keeps no message alive, and neither do pongs between its frames.
            [BEGUN, wire.text("hello")[8:9], wire.text("hello")[9:10]],
            [frame(TEXT, b"a", fin=False), frame(PONG), frame(CONTINUATION, fin=False)],
        ],
    )
    def test_a_message_that_begins_and_never_ends_ends_the_connection(self, pieces):
        engine = self.engine()
        for now, piece in zip((110.0, 120.0, 130.0), pieces, strict=True):
            engine.receive(piece, now)
        assert engine.timeout(139.9) == []
        assert engine.deadline() == 140.0
        (event,) = engine.timeout(140.0)
        assert event == ConnectionFailed(1008, "message takes too long to arrive")
        assert engine.state is State.CLOSED
        assert engine.data_to_send() == server_frame(CLOSE, b"\x03\xf0" + event.reason.encode())

    def test_one_that_ends_in_time_is_nothing_to_wait_for(self):
        engine = self.engine()
        data = wire.text("hello")
        engine.receive(data[:8], 110.0)
        assert engine.receive(data[8:], 139.0) == ["hello"]
        assert engine.deadline() == 159.0
        assert engine.timeout(150.0) == []

    def test_while_we_do_not_read_no_time_passes(self):
        engine = self.engine()
        data = wire.text("hello")
        engine.receive(data[:8], 110.0)
        engine.receive(b"", 200.0)
        assert engine.timeout(215.0) == []
        assert engine.receive(data[8:], 229.0) == ["hello"]

    def test_without_pings_it_is_seen_just_so(self):
        engine = self.engine(ping_interval_s=None)
        assert engine.deadline() == 130.0
        assert engine.timeout(130.0) == []
        assert engine.deadline() == 160.0
        engine.receive(self.BEGUN, 140.0)
        (event,) = engine.timeout(170.0)
        assert event.code == 1008

    def test_it_may_take_for_ever(self):
        engine = self.engine(message_timeout_s=None)
        engine.receive(self.BEGUN, 110.0)
        assert engine.deadline() == 130.0
        assert engine.timeout(130.0) == []
        assert engine.data_to_send() == server_frame(PING)


class TestTurns:
    """A flood of frames that say nothing is read in pieces, so that others have their turn."""

    FLOOD = frame(TEXT, fin=False) + frame(CONTINUATION, fin=False) * 4999 + frame(CONTINUATION)

    def test_fragments(self, engine):
        calls = 1
        events = engine.receive(self.FLOOD, 0.0)
        while engine.has_unread:
            assert events == []
            assert engine.fragments <= 128 * calls
            events = engine.receive(b"", 0.0)
            calls += 1
        assert events == [""]
        assert calls == 40
        assert engine.fragments == 5000

    def test_pings_after_our_close_frame(self, engine):
        engine.send_close(now=0.0)
        assert engine.receive(frame(PING) * 300, 0.0) == []
        assert engine.has_unread
        assert engine.receive(b"", 0.0) == []
        assert engine.has_unread
        (event,) = engine.receive(wire.close(1000), 0.0)
        assert isinstance(event, CloseReceived)

    def test_whole_messages_are_none(self, engine):
        assert engine.receive(wire.text("a") * 50, 0.0) == ["a"] * 50
        assert engine.fragments == 0


class TestCost:
    def test_an_idle_connection_is_small(self):
        engine = WebSocketEngine(0.0)
        feed(engine, wire.text("a") + frame(TEXT, b"b", fin=False) + frame(CONTINUATION), step=1)
        feed(engine, frame(PING))
        engine.data_to_send()
        engine.encode("c")
        shared = {id(value) for value in gc.get_referents(WebSocketEngine(0.0))}
        own = [value for value in gc.get_referents(engine) if id(value) not in shared]
        size = sys.getsizeof(engine) + sum(map(sys.getsizeof, own))
        assert size < 400
        assert not hasattr(engine, "__dict__")

    def test_a_closed_connection_is_smaller(self, engine):
        feed(engine, frame(TEXT, b"x" * 50_000, announce=60_000))
        engine.receive_eof(0.0)
        assert engine._message is None
        assert engine._buffer == b""

    @pytest.mark.parametrize(
        "make",
        [
            lambda n: (frame(TEXT, b"x" * n), 1),
            lambda n: (frame(BINARY, b"x" * n), 1),
            lambda n: (frame(TEXT, b"x", fin=False) + frame(CONTINUATION, b"x", fin=False) * n, 7),
            lambda n: (frame(TEXT, fin=False) + frame(CONTINUATION, fin=False) * n, 1 << 20),
            lambda n: (wire.text("") * n, 1 << 20),
            lambda n: (frame(PING) * n, 1 << 20),
            lambda n: (frame(TEXT, b"\xc3\xa9" * n), 1),
        ],
    )
    def test_the_time_is_linear(self, make):
        # Byte by byte, in tiny fragments, in thousands of frames in one read.
        def seconds(size: int) -> float:
            data, step = make(size)
            best = 1e9
            for _ in range(2):
                engine = WebSocketEngine(0.0, limits=Limits(fragments=1 << 30))
                started = time.process_time()
                feed(engine, data, step=step)
                best = min(best, time.process_time() - started)
            return best

        assert seconds(16_000) < 160 * seconds(500) + 0.01


# Frames of every kind, valid and not, for the properties.
payloads = st.one_of(st.binary(max_size=20), st.text(max_size=10).map(str.encode))
some_frames = st.lists(
    st.one_of(
        st.builds(
            frame,
            st.sampled_from([TEXT, TEXT, BINARY, CONTINUATION, CONTINUATION, PING, PONG]),
            payloads,
            fin=st.booleans(),
        ),
        st.builds(
            frame,
            st.integers(0, 15),
            payloads,
            fin=st.booleans(),
            rsv=st.sampled_from([0, 0, 0x40, 0x10]),
            mask=st.sampled_from([wire.MASK, wire.MASK, wire.MASK, None]),
        ),
        st.builds(wire.close, st.sampled_from(GOOD_CODES + BAD_CODES), st.text(max_size=5)),
        st.text(max_size=30).map(wire.text),
        st.binary(max_size=6),
    ),
    max_size=8,
).map(b"".join)


class TestProperties:
    LIMITS = Limits(message_bytes=40, frame_bytes=25, fragments=4)

    def run(self, pieces, max_events=64, limits=LIMITS):
        engine = WebSocketEngine(0.0, limits=limits)
        events = []
        for piece in pieces:
            events += feed(engine, piece, max_events=max_events)
        return events, engine.data_to_send(), engine.state, engine.close_code

    @given(data=some_frames, cuts=st.lists(st.integers(0, 200)), max_events=st.integers(1, 3))
    def test_the_events_do_not_depend_on_how_the_bytes_were_split(self, data, cuts, max_events):
        whole = self.run([data])
        edges = sorted({0, len(data), *(min(cut, len(data)) for cut in cuts)})
        assert self.run([data[a:b] for a, b in pairwise(edges)]) == whole
        assert self.run([bytes((byte,)) for byte in data]) == whole
        assert self.run([data], max_events=max_events) == whole

    @given(data=some_frames)
    def test_any_bytes_end_in_at_most_one_end(self, data):
        events, output, state, code = self.run([data])
        ends = [event for event in events if isinstance(event, CloseReceived | ConnectionFailed)]
        assert len(ends) == (state is State.CLOSED)
        assert ends == events[len(events) - len(ends) :]
        assert [event.code for event in ends] in ([], [code])
        heads = [head for head, _payload in wire.server_frames(output)]
        assert heads.count(0x80 | CLOSE) == len(ends)
        assert heads[-1:] == [0x80 | CLOSE] or not ends


messages = st.lists(st.one_of(st.text(max_size=300), st.binary(max_size=300)), max_size=6)


class TestPeer:
    """Conversations with the `websockets` library's client, as an independent opinion."""

    def connect(self, compressed):
        offers = [ClientPerMessageDeflateFactory(compress_settings={"memLevel": 5})]
        client = ClientProtocol(parse_uri("ws://localhost/"), extensions=offers)
        client.send_request(client.connect())
        lines = b"".join(client.data_to_send()).split(b"\r\n")[1:-2]
        pairs = [line.split(b": ", 1) for line in lines]
        request = websocket.parse_handshake("GET", "1.1", [(n.lower(), v) for n, v in pairs])
        factories = [DeflateFactory(threshold_bytes=20)] if compressed else []
        response, extensions = request.accept(extensions=factories)
        client.receive_data(response)
        client.events_received()
        assert client.state is PeerState.OPEN
        return client, WebSocketEngine(0.0, extensions=extensions)

    @given(messages=messages, compressed=st.booleans(), step=st.sampled_from([None, 1, 11]))
    def test_it_is_understood(self, messages, compressed, step):
        client, engine = self.connect(compressed)
        for message in messages:
            half = len(message) // 2
            if isinstance(message, str):
                client.send_text(message[:half].encode(), fin=False)
                client.send_continuation(message[half:].encode(), fin=True)
                client.send_text(message.encode())
            else:
                client.send_binary(message)
                client.send_binary(message[:half], fin=False)
                client.send_ping(b"between")
                client.send_continuation(message[half:], fin=True)
        events = feed(engine, b"".join(client.data_to_send()), step=step)
        received = [event for event in events if isinstance(event, str | bytes)]
        assert received == [message for message in messages for _ in range(2)]

    @given(messages=messages, compressed=st.booleans())
    def test_it_understands(self, messages, compressed):
        client, engine = self.connect(compressed)
        engine.send_ping(b"ping")
        client.receive_data(engine.data_to_send() + b"".join(map(engine.encode, messages)))
        ping, *frames = client.events_received()
        assert (ping.opcode, ping.data) == (Opcode.PING, b"ping")
        received = [
            each.data.decode() if each.opcode is Opcode.TEXT else bytes(each.data)
            for each in frames
        ]
        assert received == messages
        assert feed(engine, b"".join(client.data_to_send())) == [PongReceived(b"ping")]

    @given(code=st.sampled_from(GOOD_CODES), reason=st.text(max_size=30))
    def test_both_ends_close_in_peace(self, code, reason):
        client, engine = self.connect(compressed=False)
        engine.send_close(code, reason, now=0.0)
        client.receive_data(engine.data_to_send())
        assert (client.close_rcvd.code, client.close_rcvd.reason) == (code, reason)
        assert feed(engine, b"".join(client.data_to_send())) == [CloseReceived(code, reason)]

        client, engine = self.connect(compressed=False)
        client.send_close(code, reason)
        assert feed(engine, b"".join(client.data_to_send())) == [CloseReceived(code, reason)]
        client.receive_data(engine.data_to_send())
        client.receive_eof()
        assert client.close_rcvd.code == code
        assert client.state is PeerState.CLOSED
