import re
import zlib
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from websockets.exceptions import InvalidHeaderFormat
from websockets.headers import parse_extension

from headrace.exceptions import HandshakeError, LocalProtocolError, RemoteProtocolError
from headrace.protocols.extensions import (
    RSV1,
    RSV2,
    Offer,
    format_extension,
    negotiate,
    parse_offers,
)
from headrace.protocols.handshake import parse_handshake
from headrace.protocols.websocket import ConnectionFailed, WebSocketEngine
from headrace.testing.extensions import ExtensionConformance

from . import wire
from .zstd import WINDOW_LOG_MAX, ZstdFactory, zstd


class Reverse:
    """An extension for these tests: turns messages round; its factory and itself in one."""

    wire = "reversed"

    def __init__(self, name="reverse", rsv=RSV2, parameters=()):
        self.name, self.rsv, self.parameters = name, rsv, parameters
        self.asked = []
        self.held = b""

    def negotiate(self, parameters):
        self.asked.append(tuple(parameters))
        return None if dict(parameters).get("be") == "declined" else self

    def encode(self, payload):
        return payload[::-1]

    def decode(self, data, *, limit_bytes, final):
        self.held += data
        if len(self.held) > limit_bytes:
            raise RemoteProtocolError("too long", code=1009)
        if not final:
            return b""
        held, self.held = self.held, b""
        return held[::-1]


class Increment(Reverse):
    """Another, which doesn't commute with the first: adds one to the first byte."""

    wire = "incremented"

    def encode(self, payload):
        return bytes(((payload[0] + 1) % 256,)) + payload[1:]

    def decode(self, data, *, limit_bytes, final):
        held = super().decode(data, limit_bytes=limit_bytes, final=final)[::-1]
        return bytes(((held[0] - 1) % 256,)) + held[1:] if held else b""


class TestParseOffers:
    @pytest.mark.parametrize(
        ("value", "offers"),
        [
            ("a", [Offer("a")]),
            ("a,b", [Offer("a"), Offer("b")]),
            (",, a ,\t, b ,", [Offer("a"), Offer("b")]),
            ("a;x", [Offer("a", (("x", None),))]),
            ("a ; x = 1\t;y", [Offer("a", (("x", "1"), ("y", None)))]),
            ("a; x=1; x=2", [Offer("a", (("x", "1"), ("x", "2")))]),
            ('a; x="1"', [Offer("a", (("x", "1"),))]),
            (r'a; x="\1\0" ; y', [Offer("a", (("x", "10"), ("y", None)))]),
            ("a; x=1, a", [Offer("a", (("x", "1"),)), Offer("a")]),
        ],
    )
    def test_what_the_grammar_allows(self, value, offers):
        assert parse_offers(value) == offers

    @pytest.mark.parametrize(
        "value",
        [
            "",
            " ,, ",
            "a b",
            ";x",
            "a;",
            "a;;x",
            "a; x=",
            "a; =1",
            "a; x=1 2",
            'a; x="',
            'a; x=""',
            'a; x="1',
            'a; x="1\\"',
            'a; x="1"2',
            'a; x="a b"',
            'a; x="a,b"',
            "a; x='1'/",
            "a/b",
            "a\x00",
            "a\x0bb",
            "é",
            "a; x=é",
        ],
    )
    def test_what_it_does_not(self, value):
        with pytest.raises(HandshakeError) as caught:
            parse_offers(value)
        assert caught.value.status == 400
        assert "permessage-deflate; client" in str(caught.value) or "empty" in str(caught.value)

    @given(st.text(alphabet="ab1;,= \t\"\\'\u00e9", max_size=20))
    @example('a; x="\\1"')
    def test_another_parser_agrees(self, value):
        try:
            # The spaces around a header's value never get this far.
            parsed = parse_extension(value.strip(" \t"))
        except InvalidHeaderFormat:
            with pytest.raises(HandshakeError):
                parse_offers(value)
        else:
            assert parse_offers(value) == [Offer(name, tuple(pairs)) for name, pairs in parsed]


class TestNegotiate:
    def test_nothing_offered_or_nothing_to_offer(self):
        assert negotiate([], [Reverse()]) == ()
        assert negotiate([Offer("reverse")], []) == ()
        assert negotiate([Offer("other")], [Reverse()]) == ()

    def test_the_next_offer_of_the_name_is_tried(self):
        factory = Reverse()
        offers = parse_offers("reverse; be=declined, other, reverse; x, reverse; y")
        assert negotiate(offers, [factory]) == (factory,)
        assert factory.asked == [(("be", "declined"),), (("x", None),)]

    def test_the_order_is_the_servers(self):
        a, b = Reverse("a", RSV1), Reverse("b", RSV2)
        assert negotiate(parse_offers("b, a"), [a, b]) == (a, b)

    def test_a_reserved_bit_is_given_once(self):
        a, b, c = Reverse("a", RSV1), Reverse("b", RSV1), Reverse("c", 0)
        assert negotiate(parse_offers("b, a, c"), [a, b, c]) == (a, c)

    def test_an_answer_holds_tokens_only(self):
        extension = Reverse(parameters=(("x", None), ("y", "1")))
        assert format_extension(extension) == "reverse; x; y=1"
        for parameter in (("x y", None), ("x", "1,2"), ("x", ""), ("", None), ("x\r\n", None)):
            with pytest.raises(LocalProtocolError, match="tokens"):
                format_extension(Reverse(parameters=(parameter,)))
        with pytest.raises(LocalProtocolError, match="tokens"):
            format_extension(Reverse(name="a b"))

    def test_the_answer_names_what_was_agreed(self):
        lines = [
            (b"host", b"a"),
            (b"upgrade", b"websocket"),
            (b"connection", b"upgrade"),
            (b"sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ=="),
            (b"sec-websocket-version", b"13"),
            (b"sec-websocket-extensions", b"reverse; be=declined, increment"),
        ]
        request = parse_handshake("GET", "1.1", lines)
        response, agreed = request.accept(extensions=[Reverse(), Increment("increment", RSV1)])
        assert b"\r\nsec-websocket-extensions: increment\r\n" in response
        assert [extension.name for extension in agreed] == ["increment"]


class TestInTheEngine:
    def engine(self, *extensions):
        return WebSocketEngine(0.0, extensions=extensions)

    def test_out_in_order_and_in_in_reverse(self):
        # RFC 6455 §9.1: first the extension that stands first in the answer.
        engine = self.engine(Reverse(rsv=RSV2), Increment(rsv=RSV1))
        assert engine.encode(b"abc") == wire.server_frame(wire.BINARY, b"dba", rsv=RSV1 | RSV2)
        inbound = wire.frame(wire.BINARY, b"dba", rsv=RSV1 | RSV2)
        assert engine.receive(inbound, 0.0) == [b"abc"]

    def test_a_message_may_use_some_of_them(self):
        engine = self.engine(Reverse(rsv=RSV2), Increment(rsv=RSV1))
        frames = [wire.frame(wire.TEXT, b"bcd", rsv=rsv) for rsv in (0, RSV1, RSV2)]
        assert engine.receive(b"".join(frames), 0.0) == ["bcd", "acd", "dcb"]

    def test_an_extension_without_a_bit_sees_every_message(self):
        engine = self.engine(Reverse(rsv=0))
        assert engine.receive(wire.text("abc"), 0.0) == ["cba"]
        assert engine.encode("abc") == wire.server_frame(wire.TEXT, b"cba")

    def test_control_frames_are_left_alone(self):
        engine = self.engine(Reverse(rsv=0))
        engine.receive(wire.frame(wire.PING, b"abc"), 0.0)
        assert engine.data_to_send() == wire.server_frame(wire.PONG, b"abc")

    def test_fragments_are_decoded_as_they_arrive(self):
        engine = self.engine(Increment(rsv=RSV1))
        first = wire.frame(wire.TEXT, b"b", rsv=RSV1, fin=False)
        assert engine.receive(first + wire.frame(wire.PING), 0.0)[1:] == []
        assert engine.receive(wire.frame(wire.CONTINUATION, b"c"), 0.0) == ["ac"]

    @pytest.mark.parametrize("rsv", [0x40, 0x20, 0x10, 0x70])
    def test_an_unclaimed_bit_is_an_error(self, rsv):
        engine = self.engine(*([Reverse(rsv=RSV2)] if rsv != RSV2 else []))
        (event,) = engine.receive(wire.frame(wire.TEXT, b"a", rsv=rsv), 0.0)
        assert event.code == 1002

    def test_a_continuation_carries_no_bit(self):
        engine = self.engine(Reverse(rsv=RSV2))
        frames = wire.frame(wire.TEXT, b"a", rsv=RSV2, fin=False)
        frames += wire.frame(wire.CONTINUATION, b"a", rsv=RSV2)
        assert isinstance(engine.receive(frames, 0.0)[0], ConnectionFailed)

    def test_the_wire_names_every_extension(self):
        assert self.engine().wire == ""
        assert self.engine(Reverse()).wire == self.engine(Reverse()).wire
        wires = {
            self.engine(*extensions).wire
            for extensions in ([], [Reverse()], [Increment()], [Reverse(), Increment()])
        }
        assert len(wires) == 4

    def test_one_stateful_extension_leaves_no_common_wire(self):
        stateful = Reverse()
        stateful.wire = None
        assert self.engine(Increment(), stateful).wire is None


class ZstdClient:
    """The client's end, over the one-shot functions, with a window that the server takes."""

    def encode(self, payload):
        options = {zstd.CompressionParameter.window_log: WINDOW_LOG_MAX}
        return zstd.compress(payload, options=options)

    def decode(self, data):
        return zstd.decompress(data)


class TestZstd(ExtensionConformance):
    """The extension that the documentation shows is a good one."""

    factory = ZstdFactory()
    declined = ((("window", "10"),),)

    def make_client(self, parameters):
        return ZstdClient()

    @pytest.mark.parametrize(
        "data", [b"", zlib.compress(b"x"), zstd.compress(b"x")[:-1], zstd.compress(b"x") + b"x"]
    )
    def test_what_is_not_one_whole_frame_is_refused(self, data):
        for step in (1, 100):
            extension, _client = self.connect(())
            with pytest.raises(RemoteProtocolError) as caught:
                self.decode(extension, data, step=step)
            assert caught.value.code == 1007

    def test_the_window_is_limited(self):
        options = {zstd.CompressionParameter.window_log: 27}
        bomb = zstd.ZstdCompressor(options=options)
        data = bomb.compress(bytes(1000), mode=bomb.FLUSH_BLOCK)
        extension, _client = self.connect(())
        with pytest.raises(RemoteProtocolError):
            extension.decode(data, limit_bytes=10_000, final=False)


class TestDocumentation:
    def test_every_block_of_the_page_is_tested_code(self):
        root = Path(__file__).parents[2]
        page = (root / "docs" / "extensions.md").read_text()
        tested = Path(__file__).with_name("zstd.py").read_text() + Path(__file__).read_text()
        blocks = re.findall(r"```python tested\n(.*?)```", page, re.DOTALL)
        assert len(blocks) > 3
        for block in blocks:
            assert block in tested
