"""The opening handshake of a WebSocket, server side (RFC 6455 §4.2), whichever HTTP carries it.

- One request in, one answer out: ``parse_handshake`` checks, ``HandshakeRequest.accept`` answers.
- Whatever the client sends, the only error is ``HandshakeError``; its text says what is
  wrong and what to send instead, and never repeats more of the request than is fit to print.
- What only HTTP/1.1 has is checked apart from what every version of HTTP has.
"""

import hashlib
import re
from binascii import b2a_base64
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

from headrace.exceptions import HandshakeError, LocalProtocolError
from headrace.protocols.extensions import (
    Extension,
    ExtensionFactory,
    Offer,
    format_extension,
    negotiate,
    parse_offers,
)

__all__ = ["KEY", "HandshakeRequest", "parse_handshake"]

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_VERSION = b"13"
_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
KEY = re.compile(rb"[A-Za-z0-9+/]{22}==")  # 16 bytes in base64
_SOME_KEY = b"A" * 22 + b"=="
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
# Requests that say more than this are judged anew each time.
_KEPT_BYTES = 1024
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


_SWITCHING = (
    b"HTTP/1.1 101 Switching Protocols\r\n"
    b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
)


class HandshakeRequest(NamedTuple):  # a dataclass as frozen as this takes three times as long
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
        ours, agreed = self._agree(subprotocol, extensions)
        digest = hashlib.sha1(self.key + _GUID, usedforsecurity=False).digest()
        lines = [_SWITCHING, b2a_base64(digest, newline=False), b"\r\n"]
        lines += [b"%b: %b\r\n" % field for field in ours]
        lines += [_outgoing_line(name, value) for name, value in headers]
        lines.append(b"\r\n")
        return b"".join(lines), agreed

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
        answer, agreed = self._agree(subprotocol, extensions)
        for name, value in headers:
            _outgoing_line(name, value)
            answer.append((name, value))
        return answer, agreed

    def _agree(
        self, subprotocol: str | None, extensions: Iterable[ExtensionFactory]
    ) -> tuple[list[tuple[bytes, bytes]], tuple[Extension, ...]]:
        """Return what the handshake itself answers, and the extensions that it agrees to."""
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
        return answer, agreed


def parse_handshake(
    method: str, http_version: str, headers: Iterable[tuple[bytes, bytes]]
) -> HandshakeRequest:
    """Check a client's request for a WebSocket.

    ``http_version`` is "1.1", or "2" for an extended CONNECT whose ``:protocol`` is
    websocket (RFC 8441); ``headers`` come with lower-case names, a line each.

    Raises HandshakeError, whose text says what is wrong and what to send.
    """
    key = b""
    theirs: list[tuple[bytes, bytes]] = []
    size = 0
    for name, value in headers:
        if name in _THEIR_HEADERS:
            if name == b"sec-websocket-key" and KEY.fullmatch(value):
                # What stands for it is as good as any, and the same for all.
                key, value = value, _SOME_KEY
            theirs.append((name, value))
            size += len(value)
    judge = _judge if size <= _KEPT_BYTES else _judge.__wrapped__
    has_key, subprotocols, offers = judge(method, http_version, tuple(theirs))
    fields = key if has_key else b"", list(subprotocols), list(offers)
    # What the class does with these, without its function in Python.
    return tuple.__new__(HandshakeRequest, fields)


@lru_cache(maxsize=256)
def _judge(
    method: str, http_version: str, theirs: tuple[tuple[bytes, bytes], ...]
) -> tuple[bool, tuple[str, ...], tuple[Offer, ...]]:
    """Judge what a request says about a WebSocket, once for all that say the same.

    Return whether the key counts, the subprotocols, and the extensions that are offered.
    """
    lines = dict(theirs)
    if len(lines) < len(theirs):
        lines = _join_repeated(theirs)
    has_key = http_version not in ("2", "3")
    if has_key:
        _check_upgrade(method, http_version, lines)
    elif method != "CONNECT":
        # RFC 8441 §5: the stream takes the place of Upgrade, Connection and the key.
        raise HandshakeError(f"the method is {_shown(method)}: send an extended CONNECT")
    if lines.get(b"sec-websocket-version") != _VERSION:
        # RFC 6455 §4.4: say which version we speak.
        raise HandshakeError(
            "this server speaks version 13 of the protocol: send Sec-WebSocket-Version: 13, once",
            status=426,
            headers=((b"upgrade", b"websocket"), (b"sec-websocket-version", _VERSION)),
        )
    subprotocols = _parse_subprotocols(lines.get(b"sec-websocket-protocol"))
    offers: list[Offer] = []
    if (value := lines.get(b"sec-websocket-extensions")) is not None:
        offers = parse_offers(value.decode("latin-1"))
    return has_key, tuple(subprotocols), tuple(offers)


def _join_repeated(fields: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Return one line for each of their headers (RFC 9110 §5.3).

    What may stand only once is no longer what it has to be, and is refused for that.
    """
    lines: dict[bytes, list[bytes]] = {}
    for name, value in fields:
        lines.setdefault(name, []).append(value)
    return {name: b", ".join(values) for name, values in lines.items()}


def _check_upgrade(method: str, http_version: str, lines: dict[bytes, bytes]) -> None:
    """Check what HTTP/1.1 alone has (RFC 6455 §4.2.1, 1 to 5)."""
    if method != "GET":
        raise HandshakeError(
            f"the method is {_shown(method)}: a WebSocket begins with GET",
            status=405,
            headers=((b"allow", b"GET"),),
        )
    if http_version != "1.1":
        raise HandshakeError(f"the request is HTTP/{_shown(http_version)}: send HTTP/1.1")
    if b", " in lines.get(b"host", b", "):
        raise HandshakeError("the Host header must stand exactly once")
    upgrade = lines.get(b"upgrade", b"")
    if upgrade != b"websocket" and b"websocket" not in _tokens(upgrade):
        raise HandshakeError(
            "this address serves WebSockets: send Upgrade: websocket",
            status=426,
            headers=((b"upgrade", b"websocket"),),
        )
    connection = lines.get(b"connection", b"")
    if connection != b"Upgrade" and b"upgrade" not in _tokens(connection):
        raise HandshakeError(
            "the Connection header doesn't name the Upgrade header: send Connection: Upgrade"
        )
    key = lines.get(b"sec-websocket-key", b"")
    if not KEY.fullmatch(key):
        raise HandshakeError(
            "the Sec-WebSocket-Key header is missing, repeated or malformed: "
            "send it once, 16 random bytes in base64"
        )


def _tokens(value: bytes) -> list[bytes]:
    return [token.strip(b" \t").lower() for token in value.split(b",")]


def _parse_subprotocols(value: bytes | None) -> list[str]:
    if value is None:
        return []
    # RFC 9110 §5.6.1: empty elements of a list are ignored.
    tokens = [token for part in value.split(b",") if (token := part.strip(b" \t"))]
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
def _outgoing_line(name: bytes, value: bytes) -> bytes:
    # Most answers repeat the headers of the one before, so most are remembered.
    if not _TOKEN.fullmatch(name):
        raise LocalProtocolError(f"cannot send a header named {name!r}")
    if not _VALUE.fullmatch(value):
        raise LocalProtocolError(
            f"cannot send the header {name!r}: its value holds a control character: {value!r}"
        )
    if name.lower() in _OUR_HEADERS:
        raise LocalProtocolError(f"cannot send the header {name!r}: the handshake writes it itself")
    return b"%b: %b\r\n" % (name, value)
