"""WebSocket extensions: how they are agreed, and the contract of one (RFC 6455 §9).

- An ``ExtensionFactory`` is a setting: it stands once in the configuration and answers offers.
  An ``Extension`` is what was agreed with one client: it turns messages into payloads and back.
- A header that breaks the grammar fails the handshake. An offer that is well formed and
  can't be accepted is declined, without an exception, and the next one is tried.
- Parsing takes one pass, whatever the client sends.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from headrace.exceptions import HandshakeError, LocalProtocolError

__all__ = [
    "RSV1",
    "RSV2",
    "RSV3",
    "Extension",
    "ExtensionFactory",
    "Offer",
    "Parameters",
    "format_extension",
    "negotiate",
    "parse_offers",
]

RSV1, RSV2, RSV3 = 0x40, 0x20, 0x10

Parameters = Sequence[tuple[str, str | None]]


@dataclass(frozen=True, slots=True)
class Offer:
    """One element of the client's list: a name, and its parameters in the order of the header."""

    name: str
    parameters: tuple[tuple[str, str | None], ...] = ()


class Extension(Protocol):
    """What was agreed with one client about one extension; one object per connection.

    A message passes the agreed extensions on its way out in the order of the answer, and in
    the reverse order on its way in (RFC 6455 §9.1).
    """

    @property
    def name(self) -> str:
        """The token that names the extension in the header."""
        ...

    @property
    def parameters(self) -> Parameters:
        """What the answer says beside the name: ``("server_max_window_bits", "12")``."""
        ...

    @property
    def rsv(self) -> int:
        """The reserved bit that marks a message as transformed: RSV1, RSV2, RSV3.

        0 is for an extension that transforms every message and marks none.
        """
        ...

    @property
    def wire(self) -> str | None:
        """Names everything that ``encode`` depends on beside the payload.

        Two connections whose extensions have an equal ``wire`` encode a message to identical
        bytes, so that a broadcast encodes it once for both. None: what ``encode`` returns
        depends on earlier messages of this connection, which must then encode for itself.
        """
        ...

    def encode(self, payload: bytes) -> bytes | None:
        """Return the transformed payload of a whole message, or None to send it as it is.

        None isn't possible where ``rsv`` is 0.
        """
        ...

    def decode(self, data: bytes, *, limit_bytes: int, final: bool) -> bytes:
        """Return what the next bytes of the client's message stand for.

        ``data`` is the part of the message that arrived now, of any length, empty included;
        ``final`` says that it is the last. The result holds ``limit_bytes`` at most: when
        there is more, raise RemoteProtocolError with code 1009 before the memory is taken.
        Bytes that can't be decoded raise RemoteProtocolError too, and nothing else is raised.
        After a final call the next message begins.
        """
        ...


class ExtensionFactory(Protocol):
    """An extension that the server is willing to speak, with its settings."""

    @property
    def name(self) -> str:
        """The token that names the extension in the header."""
        ...

    def negotiate(self, parameters: Parameters) -> Extension | None:
        """Answer one offer: what is agreed, or None to decline it.

        ``parameters`` come as the client wrote them, in order and unchecked: unknown,
        repeated and senseless ones are a reason to decline, never to raise.
        """
        ...


_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_SPACE = re.compile(r"[ \t]*")
# RFC 6455 §9.1: a quoted value must be a token once it is unquoted.
_QUOTED = re.compile(r'"((?:\\?[!#$%&\'*+\-.^_`|~0-9A-Za-z])+)"')


def parse_offers(value: str) -> list[Offer]:
    """Parse a ``Sec-WebSocket-Extensions`` header, its lines joined by commas, into offers.

    Raises HandshakeError where the header breaks the grammar of RFC 6455 §9.1.
    """
    offers: list[Offer] = []
    position, end = 0, len(value)

    def space() -> None:
        nonlocal position
        position = _SPACE.match(value, position).end()  # type: ignore[union-attr]

    def token(what: str) -> str:
        nonlocal position
        found = _TOKEN.match(value, position)
        if found is None:
            raise _malformed(f"{what} is missing", position)
        position = found.end()
        return found.group()

    def accept(separator: str) -> bool:
        nonlocal position
        space()
        if not value.startswith(separator, position):
            return False
        position += 1
        space()
        return True

    while True:
        # RFC 9110 §5.6.1: empty elements of a list are ignored.
        while accept(","):
            pass
        if position == end:
            break
        name = token("the name of an extension")
        parameters: list[tuple[str, str | None]] = []
        while accept(";"):
            key = token("the name of a parameter")
            argument = None
            if accept("="):
                if value.startswith('"', position):
                    quoted = _QUOTED.match(value, position)
                    if quoted is None:
                        raise _malformed("a quoted value must hold a token", position)
                    position = quoted.end()
                    argument = quoted.group(1).replace("\\", "")
                else:
                    argument = token("the value of a parameter")
            parameters.append((key, argument))
        offers.append(Offer(name, tuple(parameters)))
        if position != end and not value.startswith(",", position):
            raise _malformed("expected a comma or a semicolon", position)
    if not offers:
        raise HandshakeError(
            "the Sec-WebSocket-Extensions header is empty: name an extension or leave it out"
        )
    return offers


def _malformed(problem: str, position: int) -> HandshakeError:
    return HandshakeError(
        f"the Sec-WebSocket-Extensions header is malformed at character {position}: {problem}; "
        "send names with parameters, as in permessage-deflate; client_max_window_bits"
    )


def negotiate(
    offers: Sequence[Offer], factories: Iterable[ExtensionFactory]
) -> tuple[Extension, ...]:
    """Answer the client's offers: what is agreed, in the order of ``factories``.

    Each factory is asked about the client's offers of its name, in the client's order,
    until it accepts one. Two extensions never claim the same reserved bit.
    """
    agreed: list[Extension] = []
    claimed = 0
    for factory in factories:
        for offer in offers:
            if offer.name != factory.name:
                continue
            extension = factory.negotiate(offer.parameters)
            if extension is None:
                continue
            if not extension.rsv & claimed:
                claimed |= extension.rsv
                agreed.append(extension)
            break
    return tuple(agreed)


def format_extension(extension: Extension) -> str:
    """Return an extension as it stands in the server's answer."""
    tokens = [extension.name]
    words = [extension.name]
    for key, value in extension.parameters:
        tokens += [key] if value is None else [key, value]
        words.append(key if value is None else f"{key}={value}")
    answer = "; ".join(words)
    if not all(map(_TOKEN.fullmatch, tokens)):
        raise LocalProtocolError(
            f"cannot answer with an extension that isn't made of tokens: {answer!r}"
        )
    return answer
