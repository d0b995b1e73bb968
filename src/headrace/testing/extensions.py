"""The conformance suite of WebSocket extensions: what every ``Extension`` must keep.

Subclass it in your own tests, and pytest collects what it holds::

    class TestMyExtension(ExtensionConformance):
        factory = MyFactory()
        accepted = [(), (("my_parameter", "10"),)]
        declined = [(("my_parameter", "11"),)]

        def make_client(self, parameters):
            return MyClient(parameters)

The client is the other end of the wire. Build it on another implementation of the format
where there is one: two ends that share their code share its mistakes.
"""

import random
import re
import tracemalloc
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import ClassVar, Protocol

from headrace.exceptions import CloseCode, RemoteProtocolError
from headrace.protocols.extensions import (
    RSV1,
    RSV2,
    RSV3,
    Extension,
    ExtensionFactory,
    Parameters,
    format_extension,
    negotiate,
    parse_offers,
)
from headrace.protocols.websocket import ConnectionFailed, Event, Limits, WebSocketEngine

__all__ = ["Client", "ExtensionConformance"]

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_MASK = b"\x12\x34\x56\x78"


class Client(Protocol):
    """The other end of one connection, from its first message to its last."""

    def encode(self, payload: bytes) -> bytes:
        """Return what the client sends for a message of this payload."""
        ...

    def decode(self, data: bytes) -> bytes:
        """Return the payload of a message that the server transformed into ``data``."""
        ...


class ExtensionConformance:
    """What an extension must keep; see the module for how to use it."""

    factory: ClassVar[ExtensionFactory]
    """The extension under test."""

    accepted: ClassVar[Sequence[Parameters]] = [()]
    """Offers to which the factory must agree; every test runs with each of them."""

    declined: ClassVar[Sequence[Parameters]] = []
    """Offers that the factory must decline, beside those that the suite makes up."""

    largest_overhead_bytes: ClassVar[int] = 4 * 1024 * 1024
    """What decoding may take beside the message itself: windows, tables."""

    def make_client(self, parameters: Parameters) -> Client:
        """Return the client's end of a connection to which the server answered ``parameters``."""
        raise NotImplementedError

    # What the tests are made of

    def connections(self) -> Iterator[tuple[Extension, Client]]:
        """Yield a fresh connection, both its ends, for every accepted offer."""
        for parameters in self.accepted:
            yield self.connect(parameters)

    def connect(self, parameters: Parameters) -> tuple[Extension, Client]:
        """Return both ends of a fresh connection."""
        extension = self.factory.negotiate(parameters)
        assert extension is not None, f"declined, and should not be: {parameters}"
        return extension, self.make_client(extension.parameters)

    @staticmethod
    def payloads() -> list[bytes]:
        """Return messages of every kind: empty, tiny, text, noise, long."""
        noise = random.Random(7)  # noqa: S311 - the same noise in every run
        return [
            b"",
            b"x",
            b'{"type": "chat.message", "text": "hello"}',
            "Größe, 中文, 🎈".encode() * 20,
            noise.randbytes(3_000),
            b"again and again " * 4_000,
            b'{"type": "chat.message", "text": "hello again"}',
        ]

    @staticmethod
    def decode(
        extension: Extension, data: bytes, *, step: int, limit_bytes: int = 1 << 20
    ) -> bytes:
        """Decode one message that arrives ``step`` bytes at a time."""
        plain = bytearray()
        for start in range(0, max(len(data), 1), step):
            plain += extension.decode(
                data[start : start + step],
                limit_bytes=limit_bytes - len(plain),
                final=start + step >= len(data),
            )
        return bytes(plain)

    # Negotiation

    def test_the_header_can_name_it(self) -> None:
        """The name and every parameter of an answer are tokens (RFC 6455 §9.1)."""
        assert _TOKEN.fullmatch(self.factory.name)
        for extension, _client in self.connections():
            assert extension.name == self.factory.name
            (offer,) = parse_offers(format_extension(extension))
            assert offer.parameters == tuple(extension.parameters)

    def test_it_claims_one_reserved_bit_or_none(self) -> None:
        """``rsv`` is RSV1, RSV2, RSV3 or 0."""
        for extension, _client in self.connections():
            assert extension.rsv in (0, RSV1, RSV2, RSV3)

    def test_it_declines_without_an_exception(self) -> None:
        """Offers that can't be had are declined, whatever stands in them."""
        good = list(self.accepted[0])
        senseless: list[Parameters] = [
            [*good, ("x-unknown", None)],
            [*good, ("x-unknown", "1")],
            [*good, ("x-unknown", None), ("x-unknown", None)],
        ]
        for parameters in (*self.declined, *senseless):
            assert self.factory.negotiate(parameters) is None, f"accepted: {parameters}"
        for accepted in self.accepted:
            for key, value in accepted:
                for other in (None, "", "0", "-1", "+1", "1e3", "9" * 5_000, "x", "²"):
                    if other != value:
                        self.factory.negotiate([(key, other)])
                assert self.factory.negotiate([(key, value), (key, value)]) is None, (
                    f"accepted twice: {key}"
                )

    # Messages

    def test_messages_from_the_client(self) -> None:
        """Every message decodes to what the client encoded, however it was split."""
        for step in (1 << 20, 1_000, 7, 1):
            for extension, client in self.connections():
                for payload in self.payloads():
                    data = client.encode(payload)
                    assert self.decode(extension, data, step=step) == payload

    def test_a_message_that_ends_with_nothing(self) -> None:
        """The last frame of a message may be empty."""
        for extension, client in self.connections():
            for payload in self.payloads():
                plain = extension.decode(client.encode(payload), limit_bytes=1 << 20, final=False)
                plain += extension.decode(b"", limit_bytes=1 << 20, final=True)
                assert plain == payload

    def test_messages_to_the_client(self) -> None:
        """The client gets what was sent; None sends a message as it is."""
        for extension, client in self.connections():
            for payload in self.payloads():
                data = extension.encode(payload)
                if data is None:
                    assert extension.rsv, "an extension without a bit can't leave a message out"
                else:
                    assert client.decode(data) == payload

    def test_an_equal_wire_means_equal_bytes(self) -> None:
        """What ``encode`` returns depends on ``wire`` and the payload alone."""
        for parameters in self.accepted:
            first, _client = self.connect(parameters)
            second, _client = self.connect(parameters)
            assert first.wire == second.wire
            if first.wire is None:
                continue
            for payload in self.payloads():
                assert first.encode(payload) == second.encode(payload)
            for before, payload in pairwise(self.payloads()):
                third, _client = self.connect(parameters)
                third.encode(before)
                assert third.encode(payload) == first.encode(payload)

    # Limits

    def test_the_limit_is_exact(self) -> None:
        """A message as long as the limit passes, one byte more is refused with 1009."""
        for step in (1 << 20, 3):
            for parameters in self.accepted:
                for size in (1, 1_000, 70_000):
                    extension, client = self.connect(parameters)
                    payload = b"ab" * (size // 2) + b"c" * (size % 2)
                    data = client.encode(payload)
                    assert self.decode(extension, data, step=step, limit_bytes=size) == payload
                    extension, client = self.connect(parameters)
                    data = client.encode(payload)
                    error = self.refusal(extension, data, step=step, limit_bytes=size - 1)
                    assert error is not None, "more than the limit was decoded"
                    assert error.code == CloseCode.MESSAGE_TOO_BIG

    def test_a_bomb_takes_no_memory(self) -> None:
        """What would decode to 16 MB is refused with 1009, long before it is decoded."""
        for extension, client in self.connections():
            bomb = client.encode(bytes(16 * 1024 * 1024))
            tracemalloc.start()
            try:
                error = self.refusal(extension, bomb, step=len(bomb), limit_bytes=100_000)
                peak = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
            assert error is not None, "more than the limit was decoded"
            assert error.code == CloseCode.MESSAGE_TOO_BIG
            assert peak < 2 * len(bomb) + 400_000 + self.largest_overhead_bytes

    def refusal(
        self, extension: Extension, data: bytes, *, step: int, limit_bytes: int
    ) -> RemoteProtocolError | None:
        """Return the error that decoding ends in, or None when it ends well."""
        try:
            self.decode(extension, data, step=step, limit_bytes=limit_bytes)
        except RemoteProtocolError as error:
            return error
        return None

    def test_damaged_bytes_are_the_peers_fault(self) -> None:
        """Whatever arrives decodes or raises RemoteProtocolError, and nothing else."""
        noise = random.Random(8)  # noqa: S311 - the same noise in every run
        for parameters in self.accepted:
            for payload in self.payloads():
                for _ in range(30):
                    extension, client = self.connect(parameters)
                    data = bytearray(client.encode(payload))
                    for _ in range(noise.randint(1, 3)):
                        place = noise.randrange(len(data) + 1)
                        data[place : place + noise.randint(0, 2)] = noise.randbytes(1)
                    self.refusal(extension, bytes(data), step=1_000, limit_bytes=100_000)
                    extension, _client = self.connect(parameters)
                    self.refusal(extension, noise.randbytes(50), step=9, limit_bytes=100_000)

    # In the engine

    def test_a_conversation_over_the_engine(self) -> None:
        """Agreed by header, then both ways through frames, in one piece and in many."""
        for parameters in self.accepted:
            for step in (1 << 20, 5):
                extension, client = self.connect(parameters)
                (agreed,) = negotiate(parse_offers(format_extension(extension)), [self.factory])
                engine = WebSocketEngine(0.0, extensions=(agreed,))
                for number, payload in enumerate(self.payloads()):
                    data = client.encode(payload)
                    half = len(data) // 2
                    if number % 2:
                        frames = _frame(0x82 | agreed.rsv, data)
                    else:
                        frames = _frame(0x02 | agreed.rsv, data[:half]) + _frame(0x80, data[half:])
                    assert _feed(engine, frames, step=step) == [payload]
                    self.check_sent(engine.encode(payload), payload, agreed, client)

    def test_the_engine_refuses_what_is_too_long(self) -> None:
        """The engine's limit is the limit of the decoded message, over all its frames."""
        for extension, client in self.connections():
            engine = WebSocketEngine(
                0.0, limits=Limits(message_bytes=30_000), extensions=(extension,)
            )
            data = client.encode(b"again and again " * 4_000)
            frames = _frame(0x02 | extension.rsv, data[:-1]) + _frame(0x80, data[-1:])
            (event,) = _feed(engine, frames, step=len(frames))
            assert isinstance(event, ConnectionFailed)
            assert event.code == CloseCode.MESSAGE_TOO_BIG

    def check_sent(
        self, frame: bytes, payload: bytes, extension: Extension, client: Client
    ) -> None:
        """Check that the client understands a frame of the engine."""
        length = frame[1]
        start = 2 if length < 126 else 4 if length == 126 else 10
        transformed = bool(frame[0] & extension.rsv) or not extension.rsv
        data = frame[start:]
        assert (client.decode(data) if transformed else data) == payload


def _frame(head: int, payload: bytes) -> bytes:
    """Return a client's frame."""
    length = len(payload)
    if length < 126:
        header = bytes((head, 0x80 | length))
    elif length < 65536:
        header = bytes((head, 0xFE)) + length.to_bytes(2, "big")
    else:
        header = bytes((head, 0xFF)) + length.to_bytes(8, "big")
    return header + _MASK + bytes(byte ^ _MASK[i & 3] for i, byte in enumerate(payload))


def _feed(engine: WebSocketEngine, data: bytes, *, step: int) -> list[Event]:
    events: list[Event] = []
    for start in range(0, len(data), step):
        events += engine.receive(data[start : start + step], 0.0)
        while engine.has_unread:
            events += engine.receive(b"", 0.0)
    return events
