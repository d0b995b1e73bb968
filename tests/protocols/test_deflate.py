import sys
import zlib
from random import Random
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.exceptions import NegotiationError
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.frames import Frame, Opcode

from headrace.exceptions import ConfigurationError, RemoteProtocolError
from headrace.protocols.deflate import Deflate, DeflateFactory
from headrace.protocols.extensions import negotiate, parse_offers
from headrace.protocols.websocket import CloseReceived, ConnectionFailed, Limits, WebSocketEngine
from headrace.testing.extensions import ExtensionConformance

from . import wire

TAIL = b"\x00\x00\xff\xff"
NAMES = ("server_no_context_takeover", "client_no_context_takeover")
BITS = ("server_max_window_bits", "client_max_window_bits")


def deflated(payload: bytes, bits: int = 15, **kwargs) -> bytes:
    compressor = zlib.compressobj(wbits=-bits, **kwargs)
    data = compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH)
    return data.removesuffix(TAIL)


def inflated(data: bytes, bits: int = 15) -> bytes:
    return zlib.decompressobj(-bits).decompress(data + TAIL)


def decode(extension, data: bytes, limit_bytes: int = 1 << 20) -> bytes:
    return extension.decode(data, limit_bytes=limit_bytes, final=True)


def refusal(extension, data: bytes, limit_bytes: int = 1 << 20) -> RemoteProtocolError:
    with pytest.raises(RemoteProtocolError) as caught:
        decode(extension, data, limit_bytes)
    return caught.value


def agree(offer: str = "permessage-deflate", **settings):
    (extension,) = negotiate(parse_offers(offer), [DeflateFactory(**settings)])
    return extension


def answer(offer: str, **settings) -> dict[str, str | None] | None:
    agreed = negotiate(
        parse_offers(f"permessage-deflate; {offer}".rstrip("; ")), [DeflateFactory(**settings)]
    )
    return dict(agreed[0].parameters) if agreed else None


class PeerClient:
    """The client's end: the `websockets` library's own permessage-deflate."""

    def __init__(self, offered, parameters):
        flags = {name: True for name, _ in offered if name in NAMES}
        bits = {name: (int(value) if value else True) for name, value in offered if name in BITS}
        factory = ClientPerMessageDeflateFactory(**flags, **bits)
        self.extension = factory.process_response_params(list(parameters), [])

    def encode(self, payload):
        return bytes(self.extension.encode(Frame(Opcode.BINARY, payload)).data)

    def decode(self, data):
        frame = Frame(Opcode.BINARY, data, rsv1=True)
        return bytes(self.extension.decode(frame, max_size=1 << 27).data)


class Conformance(ExtensionConformance):
    accepted = (
        (),
        (("client_max_window_bits", None),),
        (("server_no_context_takeover", None), ("client_no_context_takeover", None)),
        (("server_max_window_bits", "9"), ("client_max_window_bits", "9")),
        (("client_max_window_bits", "15"), ("server_max_window_bits", "15")),
    )
    declined = (
        (("server_max_window_bits", None),),
        (("server_max_window_bits", "8"),),
        (("server_max_window_bits", "16"),),
        (("client_max_window_bits", "7"),),
        (("client_max_window_bits", "010"),),
        (("server_no_context_takeover", "1"),),
        (("client_no_context_takeover", ""),),
    )
    largest_overhead_bytes = 300_000

    def connect(self, parameters):
        self.offered = parameters
        return super().connect(parameters)

    def make_client(self, parameters):
        return PeerClient(self.offered, parameters)


class TestDefaultSettings(Conformance):
    factory = DeflateFactory()


class TestEveryMessage(Conformance):
    factory = DeflateFactory(threshold_bytes=0)


class TestContextTakeover(Conformance):
    factory = DeflateFactory(
        server_no_context_takeover=False,
        client_no_context_takeover=False,
        server_max_window_bits=15,
        threshold_bytes=0,
    )


class TestSettings:
    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("server_max_window_bits", 8),
            ("server_max_window_bits", 16),
            ("client_max_window_bits", 7),
            ("client_max_window_bits", 16),
            ("level", 0),
            ("level", 10),
            ("memory_level", 0),
            ("memory_level", 10),
            ("threshold_bytes", -1),
        ],
    )
    def test_a_value_out_of_range_names_the_range(self, name, value):
        with pytest.raises(ConfigurationError, match=rf"{name} must be .*, not {value}"):
            DeflateFactory(**{name: value})


class TestNegotiation:
    @pytest.mark.parametrize(
        ("offer", "settings", "expected"),
        [
            ("", {}, {NAMES[0]: None, NAMES[1]: None, BITS[0]: "12"}),
            ("", {"server_max_window_bits": 15}, {NAMES[0]: None, NAMES[1]: None}),
            # A client that wants no context gets none, whatever we would have liked.
            (NAMES[0], {NAMES[0]: False, NAMES[1]: False, BITS[0]: 15}, {NAMES[0]: None}),
            (NAMES[1], {NAMES[0]: False, NAMES[1]: False, BITS[0]: 15}, {NAMES[1]: None}),
            ("", {NAMES[0]: False, NAMES[1]: False, BITS[0]: 15}, {}),
        ],
    )
    def test_context_takeover(self, offer, settings, expected):
        assert answer(offer, **settings) == expected

    @pytest.mark.parametrize(
        ("ours", "offered", "agreed"),
        [(12, "15", "12"), (12, "10", "10"), (12, "9", "9"), (15, "15", "15"), (9, "15", "9")],
    )
    def test_the_servers_window_is_the_smaller_one(self, ours, offered, agreed):
        result = answer(f"server_max_window_bits={offered}", server_max_window_bits=ours)
        assert result["server_max_window_bits"] == agreed

    @pytest.mark.parametrize(
        ("ours", "offered", "agreed"),
        [
            (15, "client_max_window_bits", None),
            (10, "client_max_window_bits", "10"),
            (8, "client_max_window_bits", "8"),
            (15, "client_max_window_bits=15", "15"),
            (15, "client_max_window_bits=8", "8"),
            (10, "client_max_window_bits=12", "10"),
            # RFC 7692 §7.1.2.2: a client that didn't mention it can't be told.
            (10, "", None),
        ],
    )
    def test_the_clients_window(self, ours, offered, agreed):
        assert answer(offered, client_max_window_bits=ours).get("client_max_window_bits") == agreed

    @pytest.mark.parametrize(
        "offer",
        [
            "x",
            "x=1",
            "server_max_window_bits",
            "server_max_window_bits=8",  # zlib can't compress so
            "server_max_window_bits=7",
            "server_max_window_bits=16",
            "server_max_window_bits=09",
            "server_max_window_bits=+9",
            "server_max_window_bits=1_0",
            "server_max_window_bits=12.0",
            "server_max_window_bits=" + "9" * 5_000,  # beyond what int() takes
            "client_max_window_bits=0",
            "client_max_window_bits=16",
            "client_max_window_bits=-8",
            "client_max_window_bits=x",
            "server_no_context_takeover=true",
            "client_no_context_takeover=1",
            "server_no_context_takeover; server_no_context_takeover",
            "client_max_window_bits; client_max_window_bits",
            "client_max_window_bits=10; client_max_window_bits=10",
            "Server_No_Context_Takeover",
        ],
    )
    def test_a_senseless_offer_is_declined_and_the_next_one_tried(self, offer):
        # undici threw on a window out of range, and took the process with it.
        assert answer(offer) is None
        offers = parse_offers(
            f"permessage-deflate; {offer}, permessage-deflate; server_max_window_bits=10"
        )
        (extension,) = negotiate(offers, [DeflateFactory()])
        assert dict(extension.parameters)["server_max_window_bits"] == "10"

    def test_a_quoted_value_is_a_value(self):
        assert answer('server_max_window_bits="10"')["server_max_window_bits"] == "10"

    @given(
        st.lists(
            st.tuples(
                st.sampled_from([*NAMES, *BITS]),
                st.one_of(
                    st.none(), st.integers(9, 16).map(str), st.text(alphabet="19x ", max_size=3)
                ),
            ),
            max_size=5,
        ),
        st.builds(
            DeflateFactory,
            server_no_context_takeover=st.booleans(),
            client_no_context_takeover=st.booleans(),
            server_max_window_bits=st.integers(9, 15),
            client_max_window_bits=st.integers(9, 15),  # the client has no 8
        ),
    )
    def test_a_real_client_accepts_every_answer(self, offer, factory):
        extension = factory.negotiate(offer)
        if extension is None:
            return
        try:
            PeerClient(offer, extension.parameters)
        except NegotiationError as refused:
            pytest.fail(f"{offer}: {refused}")


class TestEncode:
    def test_what_is_short_is_left_alone(self):
        extension = agree(threshold_bytes=100)
        assert extension.encode(b"a" * 99) is None
        assert inflated(extension.encode(b"a" * 100)) == b"a" * 100

    def test_what_does_not_get_shorter_is_left_alone(self):
        assert agree(threshold_bytes=0).encode(b"abc") is None

    def test_with_context_what_was_compressed_is_sent(self):
        extension = agree(server_no_context_takeover=False, threshold_bytes=0)
        first, second = extension.encode(b"abcdefgh"), extension.encode(b"abcdefgh")
        assert len(second) < len(first)
        peer = zlib.decompressobj(-12)
        assert peer.decompress(first + TAIL) == b"abcdefgh"
        assert peer.decompress(second + TAIL) == b"abcdefgh"

    @pytest.mark.parametrize("takeover", [False, True])
    def test_an_empty_message_is_left_alone(self, takeover):
        extension = agree(server_no_context_takeover=not takeover, threshold_bytes=0)
        assert [extension.encode(b"") for _ in range(3)] == [None] * 3

    @pytest.mark.parametrize("bits", range(9, 16))
    def test_the_agreed_window_is_kept(self, bits):
        extension = agree(f"permessage-deflate; server_max_window_bits={bits}", level=9)
        block = bytes(index * 7 % 251 for index in range(200)) + bytes(range(128)) * 320
        data = extension.encode(block + block)
        assert inflated(data, min(bits, 12)) == block + block

    def test_the_wire_tells_apart_what_differs(self):
        def wire_of(offer="permessage-deflate", **settings):
            return agree(offer, **settings).wire

        assert wire_of() == wire_of("permessage-deflate; client_max_window_bits")
        assert wire_of() == wire_of(client_no_context_takeover=False)
        wires = [
            wire_of(),
            wire_of(level=2),
            wire_of(memory_level=6),
            wire_of(threshold_bytes=1),
            wire_of("permessage-deflate; server_max_window_bits=10"),
            wire_of(server_no_context_takeover=False),
        ]
        assert len(set(wires)) == len(wires)
        assert wires[-1] is None

    def test_a_client_that_wants_no_context_shares_the_common_wire(self):
        offer = "permessage-deflate; server_no_context_takeover"
        assert agree(offer, server_no_context_takeover=False).wire == agree().wire


class TestDecode:
    def test_the_example_of_the_rfc(self):
        # RFC 7692 §7.2.3.1
        assert decode(agree(), bytes.fromhex("f248cdc9c90700")) == b"Hello"

    def test_the_window_slides_over_two_messages(self):
        # RFC 7692 §7.2.3.2
        extension = agree(client_no_context_takeover=False)
        assert decode(extension, bytes.fromhex("f248cdc9c90700")) == b"Hello"
        assert decode(extension, bytes.fromhex("f200110000")) == b"Hello"

    def test_without_context_nothing_slides(self):
        extension = agree()
        decode(extension, bytes.fromhex("f248cdc9c90700"))
        assert refusal(extension, bytes.fromhex("f200110000")).code == 1007

    def test_a_block_without_compression(self):
        # RFC 7692 §7.2.3.3
        assert decode(agree(), bytes.fromhex("000500faff48656c6c6f00")) == b"Hello"

    def test_a_final_block(self):
        # RFC 7692 §7.2.3.4
        assert decode(agree(), bytes.fromhex("f348cdc9c9070000")) == b"Hello"

    def test_a_final_block_leaves_the_next_message_alone(self):
        extension = agree(client_no_context_takeover=False)
        for _ in range(3):
            assert decode(extension, bytes.fromhex("f348cdc9c9070000")) == b"Hello"
            assert decode(extension, bytes.fromhex("f248cdc9c90700")) == b"Hello"

    def test_two_blocks(self):
        # RFC 7692 §7.2.3.5
        assert decode(agree(), bytes.fromhex("f248050000 00ffffcac9c90700")) == b"Hello"

    def test_streams_without_end_are_refused(self):
        final = b"\x03\x00"  # a whole stream that holds nothing
        assert decode(agree(), final * 60 + b"\x00") == b""
        for step in (1, 500_000):
            pieces = (final * step for _ in range(100))
            extension = agree()
            with pytest.raises(RemoteProtocolError, match="streams"):
                b"".join(extension.decode(p, limit_bytes=10, final=False) for p in pieces)

    def test_the_empty_message(self):
        assert decode(agree(), b"\x00") == b""
        assert decode(agree(client_no_context_takeover=False), b"") == b""

    def test_a_window_of_8_bits(self):
        # zlib asked for 8 bits takes 9 in its older versions, and says nothing.
        extension = agree("permessage-deflate; client_max_window_bits=8")
        payload = bytes(range(256)) * 8
        assert decode(extension, deflated(payload, bits=9)) == payload

    @pytest.mark.parametrize("data", [b"\xff\xff\xff", b"\x07", b"Hello", b"\x00\x01\x02\x03\x04"])
    def test_what_is_not_deflate_is_refused(self, data):
        assert refusal(agree(), data).code == 1007

    def test_a_limit_of_nothing_is_no_licence(self):
        # For zlib a maximum of 0 means: without one.
        assert decode(agree(), b"\x00", 0) == b""
        assert refusal(agree(), deflated(b"x"), 0).code == 1009

    def test_the_limit_holds_over_several_streams(self):
        stream = zlib.compressobj(wbits=-15)
        final = stream.compress(b"x" * 600) + stream.flush()
        assert decode(agree(), final * 2 + b"\x00", 1200) == b"x" * 1200
        assert refusal(agree(), final * 2 + b"\x00", 1199).code == 1009


class TestMemory:
    def test_a_connection_holds_nothing_before_and_between_messages(self):
        extension = agree()
        assert sys.getsizeof(extension) <= 80
        extension.encode(b"x" * 10_000)
        decode(extension, deflated(b"x" * 10_000))
        assert extension._deflater is None
        assert extension._inflater is None

    def test_connections_with_the_same_answer_share_it(self):
        assert agree()._agreed is agree()._agreed
        assert agree()._agreed is not agree(level=2)._agreed

    def test_with_context_it_is_kept_from_the_first_message_on(self):
        extension = agree(server_no_context_takeover=False, client_no_context_takeover=False)
        assert extension._deflater is None
        assert extension._inflater is None
        extension.encode(b"x" * 10_000)
        decode(extension, deflated(b"x" * 10_000))
        assert extension._deflater is not None
        assert extension._inflater is not None


class TestInTheEngine:
    def engine(self, **limits):
        return WebSocketEngine(0.0, limits=Limits(**limits), extensions=(agree(),))

    def test_a_bomb_is_told_1009(self):
        engine = self.engine(message_bytes=100_000)
        bomb = deflated(bytes(50_000_000))
        (event,) = engine.receive(wire.frame(wire.TEXT, bomb, rsv=0x40), 0.0)
        assert isinstance(event, ConnectionFailed)
        assert event.code == 1009
        assert engine.data_to_send()[:4] == b"\x88" + bytes((len(event.reason) + 2,)) + b"\x03\xf1"

    def test_the_reason_names_the_limit_however_the_message_was_cut(self):
        bomb = wire.frame(wire.TEXT, deflated(bytes(1000)), rsv=0x40)
        for step in (1, 7, len(bomb)):
            (event,) = wire.feed(self.engine(message_bytes=100), bomb, step=step)
            assert event.reason == "message that inflates to more, the limit is 100"

    def test_a_kilobyte_that_is_a_megabyte_of_work_is_counted_and_read_in_pieces(self):
        engine = self.engine()
        large = wire.frame(wire.BINARY, deflated(bytes(1 << 20)), rsv=0x40)
        read, data = [], large * 3
        while data or engine.has_unread:
            events = engine.receive(data, 0.0)
            # No call inflates more than half a MiB, and a little.
            assert 0 < engine.fragments <= 2200
            read.append((len(events), engine.fragments))
            engine.fragments, data = 0, b""
        assert sum(count for count, _ in read) == 3
        assert sum(fragments for _, fragments in read) in range(3 * 4090, 3 * 4096 + 1)

    def test_pieces_grow_where_the_message_does_not(self):
        # Text that is half as long compressed takes few calls of zlib, and one of the engine.
        engine = self.engine()
        words = Random(1).randbytes(60_000).hex().encode()
        data = deflated(words)
        assert len(data) > 50_000
        calls = []
        decode = Deflate.decode
        with mock.patch.object(
            Deflate,
            "decode",
            lambda self, data, **options: calls.append(len(data)) or decode(self, data, **options),
        ):
            events = []
            left = wire.frame(wire.BINARY, data, rsv=0x40)
            while left or engine.has_unread:
                events += engine.receive(left, 0.0)
                engine.fragments, left = 0, b""
        assert events == [words]
        assert calls[:4] == [512, 1024, 2048, 4096]
        assert max(calls) == 4096

    def test_text_is_checked_while_it_is_inflated(self):
        engine = self.engine()
        data = deflated(b"good \xff bad")
        first = wire.frame(wire.TEXT, data, rsv=0x40, announce=len(data) + 1000)
        (event,) = engine.receive(first, 0.0)
        assert event.code == 1007

    def test_a_message_may_be_longer_compressed_than_plain(self):
        engine = self.engine(message_bytes=10, frame_bytes=100)
        stored = deflated(b"0123456789", level=0)
        assert len(stored) > 10
        assert engine.receive(wire.frame(wire.TEXT, stored, rsv=0x40), 0.0) == ["0123456789"]

    def test_empty_blocks_without_end_are_refused(self):
        engine = self.engine(message_bytes=1_000)
        empty = (b"\x00" + TAIL) * 100
        engine.receive(wire.frame(wire.TEXT, empty, rsv=0x40, fin=False), 0.0)
        events = []
        for _ in range(4):
            frame = wire.frame(wire.CONTINUATION, empty, fin=False)
            events += engine.receive(frame, 0.0)
        assert [event.code for event in events] == [1009]

    def test_plain_and_compressed_messages_mix(self):
        engine = self.engine()
        frames = wire.text("plain") + wire.frame(wire.TEXT, deflated(b"packed"), rsv=0x40)
        assert wire.feed(engine, frames * 2 + wire.close(1000)) == [
            "plain",
            "packed",
            "plain",
            "packed",
            CloseReceived(1000, ""),
        ]

    def test_the_reserved_bit_stands_on_the_first_frame_only(self):
        engine = self.engine()
        data = deflated(b"Hello")
        frames = wire.frame(wire.TEXT, data[:3], rsv=0x40, fin=False)
        frames += wire.frame(wire.CONTINUATION, data[3:])
        assert engine.receive(frames, 0.0) == ["Hello"]

    def test_connections_of_one_wire_get_identical_frames(self):
        engines = [self.engine(), self.engine()]
        engines[0].encode("something else " * 100)
        frames = {engine.encode("a message " * 100) for engine in engines}
        assert len(frames) == 1
        assert engines[0].wire == engines[1].wire
