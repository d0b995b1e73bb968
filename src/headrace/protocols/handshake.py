"""The opening handshake of a WebSocket, server side (RFC 6455 §4.2), whichever HTTP carries it.

- One request in, one answer out: ``parse_handshake`` checks, ``HandshakeRequest.accept`` answers.
- Whatever the client sends, the only error is ``HandshakeError``; its text says what is
  wrong and what to send instead, and never repeats more of the request than is fit to print.
- What only HTTP/1.1 has is checked apart from what every version of HTTP has.
"""

import base64
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from headrace.exceptions import HandshakeError, LocalProtocolError
from headrace.protocols.extensions import (
    Extension,
    ExtensionFactory,
    Offer,
    format_extension,
    negotiate,
    parse_offers,
)

__all__ = ["HandshakeRequest", "parse_handshake"]

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_VERSION = b"13"
_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_KEY = re.compile(rb"[A-Za-z0-9+/]{22}==")  # 16 bytes in base64
_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
# What a client's request says about a WebSocket; a browser sends a dozen headers beside.
_THEIR_HEADERS = frozenset(
    (
        b"connection",
        b"host",
        b"sec-websocket-extensions",
        b"sec-websocket-key",
        b"sec-websocket-protocol",
        b"sec-websocket-version",
        b"upgrade",
    )
)
_OUR_HEADERS = frozenset(
    (
        b"connection",
        b"content-length",
        b"sec-websocket-accept",
        b"sec-websocket-extensions",
        b"sec-websocket-protocol",
        b"sec-websocket-version",
        b"transfer-encoding",
        b"upgrade",
    )
)


@dataclass(frozen=True, slots=True)
class HandshakeRequest:
    """A client's request for a WebSocket, checked; ``accept`` answers it.

    ``key`` is empty where HTTP itself says who answers whom (HTTP/2 and later).
    """

    key: bytes
    subprotocols: list[str]
    offers: list[Offer]

    def accept(
        self,
        *,
        subprotocol: str | None = None,
        headers: Iterable[tuple[bytes, bytes]] = (),
        extensions: Iterable[ExtensionFactory] = (),
    ) -> tuple[bytes, tuple[Extension, ...]]:
        """Return the complete 101 response of HTTP/1.1, and the extensions it agrees to.

        Raises LocalProtocolError where ``subprotocol`` wasn't offered by the client, and
        where ``headers`` aren't fit to be sent or are the handshake's own.
        """
        answer, agreed = self.accept_headers(
            subprotocol=subprotocol, headers=headers, extensions=extensions
        )
        accept = base64.b64encode(hashlib.sha1(self.key + _GUID, usedforsecurity=False).digest())
        response = bytearray(
            b"HTTP/1.1 101 Switching Protocols\r\n"
            b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %b\r\n" % accept
        )
        for name, value in answer:
            response += b"%b: %b\r\n" % (name, value)
        response += b"\r\n"
        return bytes(response), agreed

    def accept_headers(
        self,
        *,
        subprotocol: str | None = None,
        headers: Iterable[tuple[bytes, bytes]] = (),
        extensions: Iterable[ExtensionFactory] = (),
    ) -> tuple[list[tuple[bytes, bytes]], tuple[Extension, ...]]:
        """Return the part of the answer that is the same in every version of HTTP.

        Raises as ``accept`` does.
        """
        answer: list[tuple[bytes, bytes]] = []
        if subprotocol is not None:
            if subprotocol not in self.subprotocols:
                # What it does offer is not told: a client may have put a secret there.
                raise LocalProtocolError(
                    f"cannot accept the subprotocol {subprotocol!r}: the client offers "
                    f"{len(self.subprotocols)} others"
                )
            answer.append((b"sec-websocket-protocol", subprotocol.encode("ascii")))
        agreed = negotiate(self.offers, extensions) if self.offers else ()
        if agreed:
            listed = ", ".join(map(format_extension, agreed))
            answer.append((b"sec-websocket-extensions", listed.encode("ascii")))
        for name, value in headers:
            _check_outgoing(name, value)
            answer.append((name, value))
        return answer, agreed


def parse_handshake(
    method: str, http_version: str, headers: Iterable[tuple[bytes, bytes]]
) -> HandshakeRequest:
    """Check a client's request for a WebSocket.

    ``http_version`` is "1.1", or "2" for an extended CONNECT whose ``:protocol`` is
    websocket (RFC 8441); ``headers`` come with lower-case names, a line each.

    Raises HandshakeError, whose text says what is wrong and what to send.
    """
    lines: dict[bytes, list[bytes]] = {}
    for name, value in headers:
        if name in _THEIR_HEADERS:
            lines.setdefault(name, []).append(value)
    if http_version in ("2", "3"):
        # RFC 8441 §5: the stream takes the place of Upgrade, Connection and the key.
        if method != "CONNECT":
            raise HandshakeError(f"the method is {_shown(method)}: send an extended CONNECT")
        key = b""
    else:
        key = _check_upgrade(method, http_version, lines)
    if lines.get(b"sec-websocket-version") != [_VERSION]:
        # RFC 6455 §4.4: say which version we speak.
        raise HandshakeError(
            "this server speaks version 13 of the protocol: send Sec-WebSocket-Version: 13, once",
            status=426,
            headers=((b"upgrade", b"websocket"), (b"sec-websocket-version", _VERSION)),
        )
    subprotocols = _parse_subprotocols(lines.get(b"sec-websocket-protocol"))
    offers: list[Offer] = []
    if (values := lines.get(b"sec-websocket-extensions")) is not None:
        offers = parse_offers(b",".join(values).decode("latin-1"))
    return HandshakeRequest(key, subprotocols, offers)


def _check_upgrade(method: str, http_version: str, lines: dict[bytes, list[bytes]]) -> bytes:
    """Check what HTTP/1.1 alone has, and return the key (RFC 6455 §4.2.1, 1 to 5)."""
    if method != "GET":
        raise HandshakeError(
            f"the method is {_shown(method)}: a WebSocket begins with GET",
            status=405,
            headers=((b"allow", b"GET"),),
        )
    if http_version != "1.1":
        raise HandshakeError(f"the request is HTTP/{_shown(http_version)}: send HTTP/1.1")
    if len(lines.get(b"host", ())) != 1:
        raise HandshakeError("the Host header must stand exactly once")
    upgrade = lines.get(b"upgrade", ())
    if upgrade != [b"websocket"] and b"websocket" not in _tokens(upgrade):
        raise HandshakeError(
            "this address serves WebSockets: send Upgrade: websocket",
            status=426,
            headers=((b"upgrade", b"websocket"),),
        )
    connection = lines.get(b"connection", ())
    if connection != [b"Upgrade"] and b"upgrade" not in _tokens(connection):
        raise HandshakeError(
            "the Connection header doesn't name the Upgrade header: send Connection: Upgrade"
        )
    keys = lines.get(b"sec-websocket-key", ())
    if len(keys) != 1 or not _KEY.fullmatch(keys[0]):
        raise HandshakeError(
            "the Sec-WebSocket-Key header is missing, repeated or malformed: "
            "send it once, 16 random bytes in base64"
        )
    return keys[0]


def _tokens(values: Iterable[bytes]) -> list[bytes]:
    return [token.strip(b" \t").lower() for value in values for token in value.split(b",")]


def _parse_subprotocols(values: list[bytes] | None) -> list[str]:
    if values is None:
        return []
    # RFC 9110 §5.6.1: empty elements of a list are ignored.
    tokens = [
        token for value in values for part in value.split(b",") if (token := part.strip(b" \t"))
    ]
    if not tokens or not all(map(_TOKEN.fullmatch, tokens)):
        raise HandshakeError(
            "the Sec-WebSocket-Protocol header is malformed: "
            "send names of ASCII letters, digits and hyphens, separated by commas"
        )
    if len(set(tokens)) != len(tokens):
        raise HandshakeError("the Sec-WebSocket-Protocol header repeats a name: send each once")
    return [token.decode("ascii") for token in tokens]


def _shown(value: str) -> str:
    """Return remote input as it may stand in a response: short, printable ASCII."""
    return ascii(value[:20])[1:-1]


@lru_cache(maxsize=256)
def _check_outgoing(name: bytes, value: bytes) -> None:
    # Most answers repeat the headers of the one before, so most checks are remembered.
    if not _TOKEN.fullmatch(name):
        raise LocalProtocolError(f"cannot send a header named {name!r}")
    if not _VALUE.fullmatch(value):
        raise LocalProtocolError(
            f"cannot send the header {name!r}: its value holds a control character: {value!r}"
        )
    if name.lower() in _OUR_HEADERS:
        raise LocalProtocolError(f"cannot send the header {name!r}: the handshake writes it itself")
