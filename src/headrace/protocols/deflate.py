"""permessage-deflate: WebSocket messages compressed by zlib (RFC 7692).

- Without context takeover, our default both ways, a message is compressed by itself: one
  frame serves every connection with the same window, and an idle connection holds nothing.
- Compressors exist from the first message that needs one, and no longer than they must.
- What inflates to more than the limit is refused before the memory is taken.
- What the client offers and can't be had is declined; nothing that it writes raises.
"""

import zlib
from dataclasses import dataclass
from functools import lru_cache

from headrace.exceptions import CloseCode, ConfigurationError, RemoteProtocolError
from headrace.protocols.extensions import RSV1, Parameters

__all__ = ["Deflate", "DeflateFactory"]

# RFC 7692 §7.2.1: the end of every flush, which isn't sent.
_TAIL = b"\x00\x00\xff\xff"
# RFC 7692 §7.1.2: decimal, without leading zeroes.
_WINDOW_BITS = {str(bits): bits for bits in range(8, 16)}
# RFC 7692 §7.2.3.4 lets a message hold streams that end. One a message is what senders do
# that can't flush; this many can't be an attack on the time that a new stream takes.
_STREAMS_PER_MESSAGE = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class DeflateFactory:
    """The settings of permessage-deflate; the defaults suit many connections.

    Memory of one connection, while its compressor lives: 1 << (window bits + 2) plus
    1 << (memory level + 9) bytes to compress, 1 << window bits plus 7 KB to inflate. A
    compressor lives from message to message with context takeover, otherwise for one call.
    """

    server_no_context_takeover: bool = True
    """Compress each of our messages by itself. False: smaller frames for small messages that
    resemble each other, at the price of memory per connection and of one compression per
    connection where a broadcast could do with one."""

    client_no_context_takeover: bool = True
    """Ask the client to do the same, so that we hold nothing of it between two messages."""

    server_max_window_bits: int = 12
    """How far back our messages refer, as a power of two: 9 to 15. zlib can't compress with
    a window of 8 bits, so an offer that insists on it is declined."""

    client_max_window_bits: int = 15
    """How far back the client's may, where it can be told: 8 to 15."""

    level: int = 1
    """zlib's compression level, 1 (fast) to 9 (small)."""

    memory_level: int = 5
    """zlib's memory level, 1 to 9."""

    threshold_bytes: int = 512
    """Messages shorter than this are sent as they are: one packet either way."""

    def __post_init__(self) -> None:
        for name, low, high in (
            ("server_max_window_bits", 9, 15),
            ("client_max_window_bits", 8, 15),
            ("level", 1, 9),
            ("memory_level", 1, 9),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ConfigurationError(f"{name} must be from {low} to {high}, not {value}")
        if self.threshold_bytes < 0:
            raise ConfigurationError(
                f"threshold_bytes must be 0 or more, not {self.threshold_bytes}"
            )

    @property
    def name(self) -> str:
        """The token that names the extension in the header."""
        return "permessage-deflate"

    def negotiate(self, parameters: Parameters) -> "Deflate | None":
        """Answer one offer by RFC 7692 §7.1, or decline it with None."""
        offer = dict(parameters)
        if len(offer) != len(parameters):
            return None  # a parameter stands twice
        server_takeover = not self.server_no_context_takeover
        client_takeover = not self.client_no_context_takeover
        server_bits = self.server_max_window_bits
        client_bits = 15
        name_server_bits = server_bits < 15
        name_client_bits = False
        for key, value in offer.items():
            match key, value:
                case "server_no_context_takeover", None:
                    server_takeover = False
                case "client_no_context_takeover", None:
                    client_takeover = False
                case "server_max_window_bits", str() if value in _WINDOW_BITS:
                    server_bits = min(server_bits, _WINDOW_BITS[value])
                    name_server_bits = True
                case "client_max_window_bits", None:
                    # RFC 7692 §7.1.2.2: only a client that says so can be told.
                    client_bits = self.client_max_window_bits
                    name_client_bits = client_bits < 15
                case "client_max_window_bits", str() if value in _WINDOW_BITS:
                    client_bits = min(self.client_max_window_bits, _WINDOW_BITS[value])
                    name_client_bits = True
                case _:
                    return None
        if server_bits < 9:
            return None
        return Deflate(
            _agreement(
                self,
                server_takeover=server_takeover,
                client_takeover=client_takeover,
                server_bits=server_bits,
                client_bits=client_bits,
                name_server_bits=name_server_bits,
                name_client_bits=name_client_bits,
            )
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Agreement:
    """What connections with the same answer share."""

    settings: DeflateFactory
    parameters: tuple[tuple[str, str | None], ...]
    wire: str | None
    server_takeover: bool
    client_takeover: bool
    server_bits: int
    client_bits: int


@lru_cache(maxsize=256)
def _agreement(
    settings: DeflateFactory,
    *,
    server_takeover: bool,
    client_takeover: bool,
    server_bits: int,
    client_bits: int,
    name_server_bits: bool,
    name_client_bits: bool,
) -> _Agreement:
    parameters: list[tuple[str, str | None]] = []
    if not server_takeover:
        parameters.append(("server_no_context_takeover", None))
    if not client_takeover:
        parameters.append(("client_no_context_takeover", None))
    if name_server_bits:
        parameters.append(("server_max_window_bits", str(server_bits)))
    if name_client_bits:
        parameters.append(("client_max_window_bits", str(client_bits)))
    wire = f"{server_bits}/{settings.level}/{settings.memory_level}/{settings.threshold_bytes}"
    return _Agreement(
        settings=settings,
        parameters=tuple(parameters),
        wire=None if server_takeover else wire,
        server_takeover=server_takeover,
        client_takeover=client_takeover,
        server_bits=server_bits,
        # A client whose zlib was asked for 8 bits may use 9 and not say so.
        client_bits=max(client_bits, 9),
    )


class Deflate:
    """permessage-deflate as agreed with one client."""

    __slots__ = ("_agreed", "_deflater", "_inflater", "_streams")

    name = "permessage-deflate"
    rsv = RSV1

    def __init__(self, agreed: _Agreement) -> None:
        self._agreed = agreed
        self._deflater: zlib._Compress | None = None
        self._inflater: zlib._Decompress | None = None
        self._streams = 0  # that ended inside the present message

    @property
    def parameters(self) -> Parameters:
        """The answer to the client's offer."""
        return self._agreed.parameters

    @property
    def wire(self) -> str | None:
        """Everything that a compressed message depends on; None with context takeover."""
        return self._agreed.wire

    def encode(self, payload: bytes) -> bytes | None:
        """Compress a message (RFC 7692 §7.2.1), or return None where that gains nothing."""
        agreed = self._agreed
        settings = agreed.settings
        if not payload or len(payload) < settings.threshold_bytes:
            return None
        deflater = self._deflater
        if deflater is None:
            deflater = zlib.compressobj(
                settings.level, zlib.DEFLATED, -agreed.server_bits, settings.memory_level
            )
        data = deflater.compress(payload) + deflater.flush(zlib.Z_SYNC_FLUSH)
        if agreed.server_takeover:
            # What the compressor has seen, the client must see too.
            self._deflater = deflater
        elif len(data) - len(_TAIL) >= len(payload):
            return None
        return data[: -len(_TAIL)]

    def decode(self, data: bytes, *, limit_bytes: int, final: bool) -> bytes:
        """Inflate the next bytes of a message (RFC 7692 §7.2.2)."""
        if final:
            data += _TAIL
        plain = b""
        while True:
            inflater = self._inflater
            if inflater is None:
                inflater = self._inflater = zlib.decompressobj(-self._agreed.client_bits)
            try:
                # One byte more than there is room for, since 0 would mean: without a limit.
                plain += inflater.decompress(data, limit_bytes + 1 - len(plain))
            except zlib.error:
                raise RemoteProtocolError(
                    "compressed message can't be inflated", code=CloseCode.INVALID_PAYLOAD
                ) from None
            if len(plain) > limit_bytes:
                raise RemoteProtocolError(
                    f"message inflates to more than the limit of {limit_bytes} bytes",
                    code=CloseCode.MESSAGE_TOO_BIG,
                )
            if not inflater.eof:
                break
            # RFC 7692 §7.2.3.4: a block was marked as final, and another stream may follow.
            self._inflater = None
            self._streams += 1
            if self._streams > _STREAMS_PER_MESSAGE:
                raise RemoteProtocolError(
                    f"compressed message of more than {_STREAMS_PER_MESSAGE} streams"
                )
            data = inflater.unused_data
            if not data:
                break
        if final:
            self._streams = 0
            if not self._agreed.client_takeover:
                self._inflater = None
        return plain
