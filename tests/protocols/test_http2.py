"""The HTTP/2 engine without sockets and clocks: pieces, time, turns, budgets, what is kept.

What RFC 9113 and RFC 7541 require is held, section by section, by
``tests/server/test_http2_conformance.py``, which talks to this engine through a server.
"""

import dataclasses

import hpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.exceptions import LocalProtocolError
from headrace.protocols._http2_grammar import has_more_fields
from headrace.protocols._http2_limits import Budget, Http2Limits
from headrace.protocols.http1 import Http1Limits
from headrace.protocols.http2 import (
    PREFACE,
    ConnectionFailed,
    DataReceived,
    ErrorCodes,
    Http2Engine,
    RequestRefused,
    StreamEnded,
    StreamOpened,
    StreamReset,
)

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
CONTINUATION = 9
ROOM = 1 << 20
REQUEST = [(":method", "GET"), (":scheme", "https"), (":authority", "here"), (":path", "/")]


def frame(kind, flags, stream, payload=b""):
    head = len(payload).to_bytes(3, "big") + bytes([kind, flags])
    return head + stream.to_bytes(4, "big") + payload


def frames(data):
    """Take what the engine sends apart: kind, flags, stream, payload."""
    found = []
    while data:
        end = 9 + int.from_bytes(data[:3], "big")
        found.append((data[3], data[4], int.from_bytes(data[5:9], "big"), data[9:end]))
        data = data[end:]
    return found


BEGINNING = PREFACE + frame(SETTINGS, 0, 0)


class Talk:
    """An engine, and what a client with one encoder says to it."""

    def __init__(self, *, now=0.0, begun=True, limits=None, **options):
        self.engine = Http2Engine(limits or Http2Limits(), now=now, **options)
        self.encoder = hpack.Encoder()
        if begun:
            assert self.say(BEGINNING) == []
            self.engine.data_to_send()

    def say(self, data, now=0.0):
        return self.engine.receive(data, now)

    def request(self, stream=1, *extra, ends=True, method="GET", now=0.0):
        fields = [(":method", method), *REQUEST[1:], *extra]
        flags = 5 if ends else 4
        return self.say(frame(HEADERS, flags, stream, self.encoder.encode(fields)), now)

    def opened(self, stream=1, *extra, **options):
        return self.request(stream, *extra, **options)[0].stream

    def sent(self, room=ROOM, now=0.0):
        self.engine.pump(room, now)
        return frames(self.engine.data_to_send())


# Pieces


def conversation():
    encoder = hpack.Encoder()
    post = [(":method", "POST"), *REQUEST[1:], ("content-length", "6")]
    block = encoder.encode(post)
    return (
        BEGINNING
        + frame(HEADERS, 0, 1, block[:5])
        + frame(CONTINUATION, 4, 1, block[5:])
        + frame(PING, 0, 0, b"12345678")
        + frame(DATA, 0, 1, b"abc")
        + frame(HEADERS, 5, 3, encoder.encode(REQUEST))
        + frame(DATA, 0, 1, b"def")
        + frame(HEADERS, 5, 1, encoder.encode([("x-sum", "7")]))
        + frame(RST_STREAM, 0, 3, b"\0\0\0\x08")
    )


def told(events):
    """Events as what they say, with the parts of a body put together."""
    said, bodies = [], {}
    for event in events:
        match event:
            case StreamOpened(stream, request, protocol):
                said.append((stream.id, request.method, request.headers, protocol))
            case DataReceived():
                bodies[event.stream.id] = bodies.get(event.stream.id, b"") + event.data
            case StreamEnded(stream):
                said.append((stream.id, "ended"))
            case StreamReset(stream, code, _, by_client):
                said.append((stream.id, code, by_client))
    return said, bodies


@pytest.mark.parametrize("size", [1, 2, 7, 9, 10, 1000])
def test_the_events_do_not_depend_on_how_the_bytes_are_cut(size):
    engine = Http2Engine(Http2Limits(), now=0.0)
    data = conversation()
    events = []
    for at in range(0, len(data), size):
        events += engine.receive(data[at : at + size], 0.0)
    said, bodies = told(events)
    host = (b"host", b"here")
    assert said == [
        (1, "POST", [host, (b"content-length", b"6")], None),
        (3, "GET", [host], None),
        (3, "ended"),
        (1, "ended"),
        (3, 8, True),
    ]
    assert bodies == {1: b"abcdef"}
    assert [kind for kind, *_ in frames(engine.data_to_send())] == [4, 8, 4, 6]


@settings(max_examples=200)
@given(st.binary(max_size=300), st.integers(0, 200))
def test_whatever_comes_is_met_with_an_error_of_the_protocol(noise, at):
    data = conversation()
    engine = Http2Engine(Http2Limits(), now=0.0)
    events = engine.receive(data[: len(BEGINNING) + at] + noise, 0.0)
    events += engine.timeout(1000.0)
    engine.pump(ROOM, 1000.0)
    assert isinstance(engine.data_to_send(), bytes)
    if engine.closed and events and isinstance(events[-1], ConnectionFailed):
        assert engine.receive(b"more", 1001.0) == []
        assert engine.deadline() is None


mutated = st.lists(st.tuples(st.integers(0, 250), st.integers(0, 255)), min_size=1, max_size=8)


@settings(max_examples=300)
@given(mutated)
def test_a_conversation_with_mistakes(mistakes):
    data = bytearray(conversation())
    for at, byte in mistakes:
        data[at % len(data)] = byte
    engine = Http2Engine(Http2Limits(), now=0.0)
    for event in engine.receive(bytes(data), 0.0):
        if isinstance(event, StreamOpened) and not event.stream.closed:
            event.stream.send_response(200, [])
            event.stream.send_body(b"body")
    engine.pump(ROOM, 0.0)
    for kind, _, stream, _ in frames(engine.data_to_send()):
        assert kind in (DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE)
        assert stream in (0, 1, 3) or stream % 2


def test_a_call_takes_so_many_frames_and_goes_on():
    talk = Talk()
    stream = talk.opened(ends=False)
    events = talk.say(frame(DATA, 0, 1, b"x") * 300)
    assert len(events) == 1
    assert events[0].data == b"x" * 128
    assert talk.engine.has_unread
    assert talk.say(b"")[0].data == b"x" * 128
    assert talk.say(b"")[0].data == b"x" * 44
    assert not talk.engine.has_unread
    assert stream.unconsumed == 300


def test_a_call_takes_no_more_than_it_is_asked_to():
    talk = Talk()
    request = frame(HEADERS, 5, 1, hpack.Encoder().encode(REQUEST))
    large = frame(
        HEADERS, 5, 3, b"\x82\x86\x84\x41\x04here" + b"\x00\x01a\x7f\xd1\x0e" + b"x" * 2000
    )
    engine = talk.engine
    assert engine.receive(request, 0.0, frames=0) == []
    assert engine.has_unread
    # One that costs more is left, be it the first.
    assert engine.receive(b"", 0.0, frames=20) == []
    [opened, _] = engine.receive(large, 0.0, frames=30)
    assert opened.stream.id == 1
    assert engine.receive(b"", 0.0, frames=30) == []
    assert engine.has_unread
    [opened, _] = engine.receive(b"", 0.0)
    assert opened.stream.id == 3
    assert not engine.has_unread


def test_half_a_frame_is_not_what_was_left_unread():
    talk = Talk()
    assert talk.engine.receive(frame(PING, 0, 0, b"12345678")[:-1], 0.0, frames=0) == []
    assert not talk.engine.has_unread


def test_a_ping_is_answered_by_what_it_says():
    talk = Talk()
    stream = talk.opened()
    stream.send_response(204)
    talk.say(frame(PING, 0, 0, b"12345678") + frame(PING, 1, 0, b"an echo."))
    assert (PING, 1, 0, b"12345678") in (sent := talk.sent())
    assert len([kind for kind, *_ in sent if kind == PING]) == 1


# How many fields there are, before any is decoded


@given(
    st.lists(
        st.tuples(
            st.sampled_from([b"x-some", b"cookie", b":method", b"accept", b"x" * 200]),
            st.binary(max_size=300),
            st.sampled_from([hpack.HeaderTuple, hpack.NeverIndexedHeaderTuple]),
        ),
        max_size=20,
    ),
    st.booleans(),
    st.sampled_from([4096, 100]),
)
def test_fields_are_counted_as_they_are_decoded(fields, huffman, table):
    encoder = hpack.Encoder()
    for _ in range(2):  # then by the table
        block = encoder.encode([each(name, value) for name, value, each in fields], huffman)
        assert not has_more_fields(block, len(fields))
        assert not fields or has_more_fields(block, len(fields) - 1)


def test_a_change_of_the_tables_size_is_a_field_too():
    assert has_more_fields(b"\x3f\xe1\x1f\x82", 1)
    assert not has_more_fields(b"\x3f\xe1\x1f\x82", 2)


@pytest.mark.parametrize(
    "broken", [b"\x40", b"\x40\x05ab", b"\x40\x7f", b"\xff", b"\x7f" + b"\x80" * 10_000]
)
def test_broken_fields_are_those_that_stand_before_the_break(broken):
    block = b"\x82" * 3 + broken
    assert has_more_fields(block, 2)
    assert not has_more_fields(block, 4)


def test_who_sends_far_too_many_fields_is_told_to_calm_down():
    http = Http1Limits(header_count=10)
    for count, limit in ((37, None), (38, "header_count")):
        talk = Talk(http=http)
        block = hpack.Encoder().encode(REQUEST[:3]) + b"\x84" + b"\0\1a\0" * (count - 1)
        [event] = talk.say(frame(HEADERS, 5, 1, block))
        assert getattr(event, "limit", None) == limit
        assert type(event) is (ConnectionFailed if limit else RequestRefused)


def test_a_call_begins_a_few_requests_for_each_is_dear():
    # A request, with what comes of it, takes as long as twenty small frames.
    talk = Talk()
    block = hpack.Encoder().encode(REQUEST)
    requests = b"".join(
        frame(HEADERS, 5, stream, block) + frame(RST_STREAM, 0, stream, b"\0\0\0\x08")
        for stream in range(1, 41, 2)
    )
    calls, events = [], talk.say(requests)
    while events:
        calls.append(sum(isinstance(event, StreamOpened) for event in events))
        events = talk.say(b"") if talk.engine.has_unread else []
    assert sum(calls) == 20
    assert max(calls) <= 7


def test_equal_requests_are_equal_however_they_were_read():
    # The first enters the table, the second is read from it, the third is known already.
    talk = Talk()
    extra = ("cookie", "a=b"), ("x-y", "z")
    requests = [talk.request(stream, *extra)[0].request for stream in (1, 3, 5, 7)]
    assert all(request == requests[0] for request in requests)
    requests[2].headers.append((b"changed", b"by its application"))
    assert talk.request(9, *extra)[0].request == requests[0]


def test_a_known_block_is_forgotten_when_the_table_changes():
    talk = Talk()
    plain = hpack.Encoder().encode(REQUEST[:2] + REQUEST[3:])
    table = b"\x40\x0a:authority\x01"
    blocks = [table[:-1] + b"\x01a", table[:-1] + b"\x01b"]
    del table
    # ":authority" of the newest entry, asked for by the same bytes again and again.
    newest = plain + b"\xbe"
    hosts = []
    stream = 1
    for block in blocks:
        talk.say(frame(HEADERS, 5, stream, plain + block))
        for _ in range(3):
            stream += 2
            [opened, _] = talk.say(frame(HEADERS, 5, stream, newest))
            hosts.append(opened.request.headers[0][1])
        stream += 2
    assert hosts == [b"a"] * 3 + [b"b"] * 3


def test_equal_responses_are_equal_however_they_were_written():
    talk = Talk(default_headers=[(b"date", b"today"), (b"server", b"headrace")])
    decoder = hpack.Decoder()
    answers = []
    for stream in range(1, 60, 2):
        opened = talk.opened(stream)
        length = b"x" * (stream % 6)
        opened.send_response(200, [(b"content-type", b"text/plain"), (b"set-cookie", length)])
        opened.send_body(length)
        for kind, _, _, payload in talk.sent():
            if kind == HEADERS:
                answers.append(dict(decoder.decode(payload, raw=True)))
    assert len(answers) == 30
    for stream, answer in zip(range(1, 60, 2), answers, strict=True):
        assert answer == {
            b":status": b"200",
            b"content-type": b"text/plain",
            b"set-cookie": b"x" * (stream % 6),
            b"date": b"today",
            b"server": b"headrace",
            b"content-length": b"%d" % (stream % 6),
        }
    # What never comes again does not push the rest out of the table.
    names = {name for name, _ in decoder.header_table.dynamic_entries}
    assert names == {b"content-type", b"date", b"server"}


# Sending


def test_streams_take_turns_frame_by_frame():
    talk = Talk()
    talk.say(frame(WINDOW_UPDATE, 0, 0, (2**30).to_bytes(4, "big")))
    for stream in (1, 3, 5):
        opened = talk.opened(stream)
        opened.send_response(200)
        opened.send_body(bytes(40_000))
    order = [stream for kind, _, stream, _ in talk.sent() if kind == DATA]
    assert order == [1, 3, 5, 1, 3, 5, 1, 3, 5]


def test_no_more_is_moved_than_there_is_room_for():
    talk = Talk()
    opened = talk.opened()
    opened.send_response(200)
    opened.send_body(bytes(60_000))
    sizes = [len(payload) for kind, *_, payload in talk.sent(room=20_000) if kind == DATA]
    assert sizes == [16_384, 16_384]
    assert talk.engine.can_send
    assert talk.engine.pending_bytes == 60_000 - 2 * 16_384
    sizes = [len(payload) for kind, *_, payload in talk.sent() if kind == DATA]
    assert sizes == [16_384, 60_000 - 3 * 16_384]
    assert not talk.engine.can_send


def test_parts_become_one_frame():
    talk = Talk()
    opened = talk.opened()
    opened.send_response(200)
    for part in (b"a" * 10_000, b"b" * 10_000, b"c" * 10, b""):
        opened.send_body(part, more=bool(part))
    data = [(flags, payload) for kind, flags, _, payload in talk.sent() if kind == DATA]
    assert [len(payload) for _, payload in data] == [16_384, 3_626]
    assert b"".join(payload for _, payload in data) == b"a" * 10_000 + b"b" * 10_000 + b"c" * 10
    assert [flags for flags, _ in data] == [0, 1]


def test_an_empty_body_ends_with_its_head():
    talk = Talk()
    opened = talk.opened()
    opened.send_response(200, [(b"content-length", b"0")])
    opened.send_body(b"")
    [(kind, flags, _, _)] = talk.sent()
    assert (kind, flags) == (HEADERS, 5)
    assert opened.closed
    assert talk.engine.streams == 0


@pytest.mark.parametrize("body", [b"", b"body"])
@pytest.mark.parametrize("trailers", [[], [(b"x-sum", b"1")]])
def test_trailers_end_a_response(body, trailers):
    talk = Talk()
    opened = talk.opened()
    opened.send_response(200, trailers=True)
    opened.send_body(body)
    opened.send_trailers(trailers)
    *_, (kind, flags, _, _) = talk.sent()
    assert (kind, flags) == ((HEADERS, 5) if trailers else (DATA, 1))
    assert opened.closed


def test_an_early_answer_asks_the_client_to_stop():
    talk = Talk()
    opened = talk.opened(method="POST", ends=False)
    opened.send_response(404)
    opened.send_body(b"no")
    assert [kind for kind, *_ in talk.sent()] == [HEADERS, DATA]
    # Behind it, not with it: a client that finds the two together forgets the response.
    assert talk.engine.timeout(talk.engine.deadline()) == []
    [(kind, _, stream, payload)] = talk.sent()
    assert (kind, stream, payload) == (RST_STREAM, 1, bytes(4))
    assert not talk.engine.streams


def test_what_comes_behind_an_early_answer_is_dropped():
    talk = Talk(limits=Http2Limits(stream_window_bytes=65_535, connection_window_bytes=65_535))
    opened = talk.opened(method="POST", ends=False)
    opened.send_response(404)
    opened.send_body(b"no")
    talk.sent()
    # Its windows open again, as often as it takes; nobody hears of it.
    for _ in range(20):
        assert talk.say(frame(DATA, 0, 1, bytes(16_384))) == []
    assert sum(kind == WINDOW_UPDATE for kind, *_ in talk.sent()) >= 8
    assert talk.say(frame(DATA, 1, 1, b"end")) == []
    assert not talk.engine.streams
    assert RST_STREAM not in [kind for kind, *_ in talk.sent()]


def test_what_was_not_consumed_of_an_ended_stream_is_given_back():
    talk = Talk(limits=Http2Limits(stream_window_bytes=65_535, connection_window_bytes=65_535))
    for stream in range(1, 21, 2):
        opened = talk.opened(stream, method="POST", ends=False)
        for _ in range(3):
            talk.say(frame(DATA, 0, stream, bytes(16_000)))
        opened.send_response(204)
        opened.send_body(b"")
        # Ten times the window of the connection in all: it was given back each time.
        assert not talk.engine.closed
        talk.sent()


@pytest.mark.parametrize(
    "call",
    [
        lambda s: s.send_body(b""),
        lambda s: s.send_trailers(),
        lambda s: s.send_informational(200),
        lambda s: s.send_informational(103, [(b"content-length", b"1")]),
        lambda s: s.send_response(100),
        lambda s: [s.send_response(200), s.send_response(200)],
        lambda s: [s.send_response(200), s.send_body("text")],
        lambda s: [s.send_response(200), s.send_body(b"", more=True), s.send_informational(103)],
        lambda s: [
            s.send_response(200, trailers=True),
            s.send_body(b""),
            s.send_trailers([(b"content-length", b"1")]),
        ],
        lambda s: s.send_response(200, [(b":status", b"200")]),
    ],
)
def test_mistakes_of_the_application(call):
    stream = Talk().opened()
    with pytest.raises(LocalProtocolError):
        call(stream)


def test_nothing_is_sent_on_a_stream_that_is_over():
    talk = Talk()
    opened = talk.opened(method="POST", ends=False)
    opened.send_response(200)
    opened.send_body(b"some", more=True)
    talk.sent()
    talk.say(frame(RST_STREAM, 0, 1, bytes(4)))
    opened.send_body(b"more", more=True)
    opened.send_continue(0.0)
    opened.refuse(500, "too late")
    opened.write(b"more")
    talk.engine.reset(opened, ErrorCodes.CANCEL)
    talk.engine.consumed(opened, 5)
    assert talk.sent() == []


def test_a_refusal_after_the_head_is_a_reset():
    talk = Talk()
    opened = talk.opened()
    opened.send_response(200)
    opened.send_body(b"some", more=True)
    opened.refuse(500, "it broke off")
    assert [kind for kind, *_ in talk.sent()] == [HEADERS, RST_STREAM]
    assert opened.closed


def test_a_refusal_before_the_head_is_an_answer():
    talk = Talk()
    opened = talk.opened()
    opened.send_response(200, [(b"x-secret", b"1")])
    opened.refuse(500, "it failed", [(b"upgrade", b"websocket"), (b"x", b"y")])
    (_, _, _, block), (_, _, _, body) = talk.sent()
    assert dict(hpack.Decoder().decode(block, raw=True)) == {
        b":status": b"500",
        b"x": b"y",
        b"content-type": b"text/plain; charset=utf-8",
        b"content-length": b"10",
    }
    assert body == b"it failed\n"
    opened.refuse(500, "once more")
    assert talk.sent() == []


def test_304_and_head_have_no_body():
    talk = Talk()
    for stream, method, status in ((1, "HEAD", 200), (3, "GET", 304)):
        opened = talk.opened(stream, method=method)
        opened.send_response(status, [(b"content-length", b"5")])
        opened.send_body(b"five!", more=True)
        opened.send_body(b"", more=False)
        assert [kind for kind, *_ in talk.sent()] == [HEADERS, DATA]
        assert opened.closed


# Time


def test_the_settings_come_in_time():
    talk = Talk(begun=False, http=Http1Limits(head_s=10.0))
    assert talk.say(PREFACE, 1.0) == []
    assert talk.engine.timeout(9.0) == []
    [failed] = talk.engine.timeout(10.0)
    assert (failed.code, failed.limit) == (ErrorCodes.SETTINGS_TIMEOUT, "head_timeout")


def test_a_block_of_headers_comes_in_time():
    talk = Talk()
    talk.say(frame(HEADERS, 0, 1, b"\x82"), 1.0)
    talk.say(frame(CONTINUATION, 0, 1, b"\x87"), 10.0)
    assert talk.engine.timeout(10.9) == []
    [failed] = talk.engine.timeout(11.1)
    assert failed.limit == "head_timeout"


def test_an_idle_connection_says_goodbye():
    talk = Talk(http=Http1Limits(keep_alive_s=20.0))
    opened = talk.opened(now=5.0)
    assert talk.engine.timeout(300.0) == []  # it isn't idle
    opened.send_response(204)
    opened.send_body(b"")
    talk.sent(now=300.0)
    assert talk.engine.deadline() <= 320.0
    assert talk.engine.timeout(319.0) == []
    assert talk.engine.timeout(320.0) == []
    assert [(kind, payload[4:8]) for kind, _, _, payload in talk.sent()] == [(GOAWAY, bytes(4))]
    assert talk.engine.closed


def test_a_body_that_nobody_takes_has_no_clock():
    http = Http1Limits(body_idle_s=30.0, body_grace_s=30.0, body_rate_bytes=500)
    talk = Talk(http=http)
    opened = talk.opened(method="POST", ends=False)
    opened.pause()
    assert talk.engine.timeout(1000.0) == []
    opened.resume(1000.0)
    talk.say(b"", 1000.0)
    events = talk.engine.timeout(1031.0)
    assert [(event.status, event.stream) for event in events] == [(408, opened)]


def test_a_body_keeps_a_pace():
    http = Http1Limits(body_idle_s=30.0, body_grace_s=30.0, body_rate_bytes=500)
    talk = Talk(http=http)
    talk.opened(method="POST", ends=False)
    events, now = [], 0.0
    while not events:
        now += 5.0
        talk.say(frame(DATA, 0, 1, b"x" * 10), now)
        events = talk.engine.timeout(now)
    assert isinstance(events[0], RequestRefused)
    assert 30.0 <= now <= 40.0


def test_a_client_that_expects_100_has_no_clock_before_it():
    talk = Talk()
    opened = talk.opened(1, ("expect", "100-continue"), method="POST", ends=False)
    opened.resume(5.0)
    assert talk.engine.timeout(100.0) == []
    opened.send_continue(100.0)
    opened.send_continue(100.0)
    [(kind, flags, _, block)] = talk.sent()
    assert (kind, flags, block) == (HEADERS, 4, hpack.Encoder().encode([(":status", "100")]))
    talk.say(b"", 100.0)
    assert isinstance(talk.engine.timeout(130.1)[0], RequestRefused)


@pytest.mark.parametrize("answers", [True, False])
def test_silence_is_asked_by_a_ping(answers):
    talk = Talk(ping_interval_s=20.0, ping_timeout_s=30.0)
    talk.opened(now=1.0)
    assert talk.engine.timeout(20.0) == []
    assert talk.sent() == []
    assert talk.engine.timeout(21.0) == []
    [(kind, flags, _, payload)] = talk.sent(now=21.0)
    assert (kind, flags) == (PING, 0)
    if answers:
        talk.say(frame(PING, 1, 0, payload), 30.0)
        assert talk.engine.timeout(51.0) == []
        assert talk.sent(now=51.0)[0][0] == PING
    else:
        reset, failed = talk.engine.timeout(51.0)
        assert isinstance(reset, StreamReset)
        assert failed.limit == "ping_timeout"


def test_a_ping_without_an_end():
    talk = Talk(ping_interval_s=20.0)
    talk.opened(now=0.0)
    for now in (20.0, 400.0, 8000.0):
        assert talk.engine.timeout(now) == []
    assert not talk.engine.closed


def test_a_closed_window_has_an_end():
    talk = Talk(write_timeout_s=60.0)
    talk.say(frame(SETTINGS, 0, 0, b"\0\4" + bytes(4)))
    opened = talk.opened()
    opened.send_response(200)
    opened.send_body(b"body")
    talk.sent(now=100.0)
    assert not talk.engine.can_send
    assert talk.engine.timeout(159.0) == []
    # A little is taken: the time begins anew.
    talk.say(frame(WINDOW_UPDATE, 0, 1, b"\0\0\0\1"), 159.0)
    assert [len(payload) for kind, *_, payload in talk.sent(now=159.0) if kind == DATA] == [1]
    talk.sent(now=159.0)
    talk.engine.queue(opened)
    talk.sent(now=159.0)
    assert talk.engine.timeout(160.5) == []
    [reset] = talk.engine.timeout(219.5)
    assert (reset.stream, reset.code) == (opened, ErrorCodes.CANCEL)


def test_a_closed_window_of_the_connection_has_an_end_too():
    talk = Talk(write_timeout_s=60.0)
    for stream in (1, 3):
        opened = talk.opened(stream)
        opened.send_response(200)
        opened.send_body(bytes(60_000))
    talk.sent(now=1.0)
    talk.sent(now=1.0)
    assert not talk.engine.can_send
    resets = talk.engine.timeout(61.5)
    assert {event.stream.id for event in resets} == {1, 3}


def test_many_windows_that_stay_shut_end_a_few_at_a_time():
    talk = Talk(write_timeout_s=60.0)
    talk.say(frame(SETTINGS, 0, 0, b"\0\4" + bytes(4)))
    for stream in (1, 3, 5):
        opened = talk.opened(stream)
        opened.send_response(200)
        opened.send_body(b"body")
    talk.sent(now=1.0)
    told = []
    while (due := talk.engine.deadline()) is not None and due <= 61.5:
        told.append([event.stream.id for event in talk.engine.timeout(61.5, streams=2)])
    assert told == [[1, 3], [5]]
    assert talk.engine.timeout(61.5, streams=2) == []


# The end


def test_a_drain_names_the_last_stream_after_a_round_trip():
    talk = Talk()
    talk.opened(1, ends=False, method="POST")
    talk.engine.drain(0.0)
    talk.engine.drain(0.0)
    (first, _, _, payload), (ping, flags, _, data) = talk.sent()
    assert (first, payload[:4]) == (GOAWAY, b"\x7f\xff\xff\xff")
    assert (ping, flags) == (PING, 0)
    talk.opened(3)
    talk.say(frame(PING, 1, 0, data))
    [(kind, _, _, payload)] = talk.sent()
    assert (kind, payload[:4]) == (GOAWAY, b"\0\0\0\3")
    assert talk.request(5, ends=False) == []
    assert talk.say(frame(DATA, 0, 5, b"late")) == []
    assert [(kind, stream) for kind, _, stream, _ in talk.sent()] == [(RST_STREAM, 5)]
    assert talk.engine.streams == 2
    for stream in (1, 3):
        talk.say(frame(RST_STREAM, 0, stream, bytes(4)))
    assert talk.engine.closed


def test_a_drain_does_not_wait_long_for_the_round_trip():
    talk = Talk()
    talk.engine.drain(10.0)
    talk.sent()
    assert talk.engine.timeout(11.1) == []
    assert [kind for kind, *_ in talk.sent()] == [GOAWAY]
    assert talk.engine.closed
    talk.engine.drain(12.0)
    assert talk.sent() == []


def test_the_end_of_the_connection_is_told_to_all_streams():
    talk = Talk()
    streams = {talk.opened(stream) for stream in (1, 3, 5)}
    events = talk.engine.receive_eof(0.0)
    assert {event.stream for event in events} == streams
    assert all(stream.closed for stream in streams)
    assert talk.engine.receive_eof(0.0) == []
    assert talk.engine.pump(ROOM, 0.0) == []


def test_a_failure_is_told_last():
    talk = Talk()
    talk.opened(1)
    *_, failed = talk.say(frame(PING, 0, 0, b"short"))
    assert failed == ConnectionFailed(
        ErrorCodes.FRAME_SIZE_ERROR, "a frame of type 6 has 8 bytes", None
    )
    assert talk.engine.timeout(1000.0) == []


def test_a_stream_that_is_turned_away():
    talk = Talk(limits=Http2Limits(resets=1))
    first, second = talk.opened(1), talk.opened(3)
    assert talk.engine.turn_away(first) == []
    assert talk.engine.turn_away(first) == []
    [(kind, _, _, payload)] = talk.sent()
    assert (kind, payload) == (RST_STREAM, b"\0\0\0\7")
    *_, failed = talk.engine.turn_away(second)
    assert failed.limit == "resets"


def test_mistakes_in_a_timeout_have_a_budget_too():
    http = Http1Limits(body_idle_s=1.0)
    talk = Talk(http=http, limits=Http2Limits(resets=1))
    for stream in (1, 3):
        talk.opened(stream, method="POST", ends=False)
    *_, failed = talk.engine.timeout(2.0)
    assert failed.limit == "resets"


def test_many_fields_cost_more_of_the_budget():
    talk = Talk(limits=Http2Limits(resets=6))
    block = hpack.Encoder().encode(REQUEST) + b"\0\1a\0" * 300
    [refused] = talk.say(frame(HEADERS, 5, 1, block))
    assert refused.status == 431
    *_, failed = talk.say(frame(HEADERS, 5, 3, block))
    assert failed.limit == "resets"


# Limits


def test_a_budget():
    budget = Budget(10, 0.0)
    assert all(budget.spend(0.0) for _ in range(10))
    assert not budget.spend(0.0)
    # A tenth of it comes back in each second.
    assert sum(budget.spend(5.0) for _ in range(10)) == 5
    budget.give(3)
    assert budget.spend(5.0)
    budget.give(1000)
    assert sum(budget.spend(5.0) for _ in range(20)) == 10
    assert Budget(10, 0.0).spend(0.0, 10)
    assert not Budget(10, 0.0).spend(0.0, 11)


def test_the_settings_say_what_the_limits_are():
    limits = Http2Limits(streams=7, stream_window_bytes=100_000, header_table_bytes=1000)
    engine = Http2Engine(limits, Http1Limits(header_bytes=5000), now=0.0)
    kind, _, _, payload = frames(engine.data_to_send())[0]
    assert kind == SETTINGS
    told = {
        int.from_bytes(payload[at : at + 2], "big"): int.from_bytes(payload[at + 2 : at + 6], "big")
        for at in range(0, len(payload), 6)
    }
    assert told[1] == 1000
    assert told[3] == 7
    assert told[4] == 100_000
    assert told[6] == 5000
    assert told[8] == 1
    assert len(dataclasses.fields(limits)) == 11


def test_a_smaller_table_is_insisted_on():
    talk = Talk(limits=Http2Limits(header_table_bytes=100))
    talk.say(frame(SETTINGS, 1, 0))
    *_, failed = talk.request(1)
    assert failed.code == ErrorCodes.COMPRESSION_ERROR
    talk = Talk(limits=Http2Limits(header_table_bytes=100))
    talk.say(frame(SETTINGS, 1, 0))
    talk.encoder.header_table_size = 100
    assert talk.opened(1).id == 1


def test_a_window_is_as_small_as_rfc9113_has_it():
    limits = Http2Limits(connection_window_bytes=65_535)
    engine = Http2Engine(limits, now=0.0)
    assert [kind for kind, *_ in frames(engine.data_to_send())] == [SETTINGS]
