"""What HTTP/1.1 requires of the bytes of a message: request lines, header fields, hosts, lengths.

Rules of this file:

- httptools splits the fields of a request; everything that it lets pass and RFC 9110 or RFC 9112
  forbids is refused here. What either of the two refuses is refused.
- There is one parser for fields. Heads and trailers both go through ``_parse_fields``.
- Incoming bytes surface as nothing but ``HandshakeError``, with the status of the answer and a
  sentence for whoever reads it; outgoing mistakes as nothing but ``LocalProtocolError``.
- Each check is linear: quantifiers are possessive, so no regular expression goes back.
"""

import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import lru_cache
from http import HTTPStatus
from ipaddress import AddressValueError, IPv6Address
from typing import NamedTuple, NoReturn
from urllib.parse import unquote_to_bytes

import httptools

from headrace.exceptions import HandshakeError, LocalProtocolError

__all__ = [
    "FORBIDDEN_BYTE",
    "Field",
    "Framing",
    "RequestLine",
    "encode_fields",
    "explain_byte",
    "is_plain",
    "list_members",
    "outgoing_name",
    "parse_head",
    "parse_request_line",
    "parse_trailers",
    "status_line",
]

Field = tuple[bytes, bytes]

# RFC 9110 §5.5: a value holds HTAB, SP, VCHAR and obs-text (0x80-0xFF), and nothing else.
_TEXT = bytes(byte for byte in range(256) if byte == 0x09 or (byte >= 0x20 and byte != 0x7F))

# The first byte that no line of a message may hold: a control character, a CR without its LF,
# an LF without its CR. A CR that is the last byte so far is not judged yet.
FORBIDDEN_BYTE = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?=[^\n])|(?<!\r)\n")

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
_is_token = re.compile(_TOKEN).fullmatch

_split_request_line = re.compile(
    rb"(%b) ([!-~]++) HTTP/([0-9]\.[0-9])" % _TOKEN,
).fullmatch

# RFC 3986 §3.3 and §3.4, and what browsers send without encoding it (WHATWG URL, the path and
# query percent-encode sets): refusing "?filter[name]=x" would refuse the web as it is.
_PATH = rb"/(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/|^\[\]]++|%[0-9A-Fa-f]{2})*+"
_QUERY = rb"(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/|^\[\]?{}`\\]++|%[0-9A-Fa-f]{2})*+"
_split_origin_form = re.compile(rb"(%b)(?:\?(%b))?" % (_PATH, _QUERY)).fullmatch
_split_absolute_form = re.compile(
    rb"(?i:https?)://([^/?#]*+)(%b)?(?:\?(%b))?" % (_PATH, _QUERY),
).fullmatch
_has_bad_escape = re.compile(rb"%(?![0-9A-Fa-f]{2})").search

# RFC 3986 §3.2.2 without userinfo: RFC 9110 §4.2.4 has us treat that as an error.
_split_authority = re.compile(
    rb"(?:\[(?:([0-9A-Fa-f:.]++)|[vV][0-9A-Fa-f]++\.[A-Za-z0-9\-._~!$&'()*+,;=:]++)\]"
    rb"|(?:[A-Za-z0-9\-._~!$&'()*+,;=]++|%[0-9A-Fa-f]{2})++)"
    rb"(?::([0-9]{0,5}))?",
).fullmatch

_is_digits = re.compile(rb"[0-9]+").fullmatch
_LENGTH_DIGITS = 19  # as many as 2 ** 63 has


def _refuse(reason: str, *, status: int = 400) -> NoReturn:
    raise HandshakeError(reason, status=status)


def is_plain(block: bytes, *, lines: int) -> bool:
    """Say whether the block holds text and so many CRLFs: no control, no bare CR or LF."""
    return len(block.translate(None, _TEXT)) == 2 * lines


def explain_byte(byte: int) -> str:
    """Name a byte that ``FORBIDDEN_BYTE`` found."""
    match byte:
        case 0x0A:
            return "a line ends in a bare LF; lines end in CRLF"
        case 0x0D:
            return "a CR is not followed by LF; lines end in CRLF"
        case _:
            return f"the control character 0x{byte:02x} is not allowed"


# --- the request line ---------------------------------------------------------------------------


class RequestLine(NamedTuple):
    """A request line, taken apart; ``authority`` is that of an absolute-form target."""

    method: str
    target: bytes
    version: str
    authority: bytes | None
    path: str
    raw_path: bytes
    query_string: bytes


def parse_request_line(line: bytes) -> RequestLine:
    """Take the first line of a request apart (RFC 9112 §3).

    Raises HandshakeError: 400, 501 for CONNECT, 505 for a version that isn't 1.0 or 1.1.
    """
    match = _split_request_line(line)
    if match is None:
        _refuse_request_line(line)
    raw_method, target, version = match.groups()
    if version != b"1.1" and version != b"1.0":
        _refuse("this server speaks HTTP/1.1 and HTTP/1.0", status=505)
    method = raw_method.decode("ascii")
    authority = None
    if (parts := _split_origin_form(target)) is not None and method != "CONNECT":
        raw_path, query = parts.groups(b"")
    elif target == b"*" and method == "OPTIONS":
        raw_path, query = target, b""
    elif method == "CONNECT":
        _refuse_connect(target)
    elif (parts := _split_absolute_form(target)) is not None:
        authority, raw_path, query = parts.groups(b"")
        if not raw_path:
            # RFC 9112 §3.2.4: OPTIONS on a URI without path asks about the server as a whole.
            raw_path = b"*" if method == "OPTIONS" and not query else b"/"
        _check_authority(authority, of="the request target")
    else:
        _refuse_target(target)
    # What a %-sequence yields that is not UTF-8 is shown as U+FFFD: raw_path has the original.
    decoded = unquote_to_bytes(raw_path) if b"%" in raw_path else raw_path
    return RequestLine(
        method,
        target,
        version.decode("ascii"),
        authority,
        decoded.decode("utf-8", "replace"),
        raw_path,
        query,
    )


def _refuse_request_line(line: bytes) -> NoReturn:
    parts = line.split(b" ")
    if not line:
        _refuse("the request begins with more than one empty line")
    if any(byte >= 0x80 for byte in line):
        _refuse("the request line holds bytes outside ASCII; percent-encode them")
    if len(parts) <= 2 and not parts[-1].startswith(b"HTTP/"):
        _refuse("the request line has no HTTP version; HTTP/0.9 is not served")
    if len(parts) != 3 or b"" in parts or b"\t" in line:
        _refuse("a request line is a method, a target and a version, with one space between")
    if not _is_token(parts[0]):
        _refuse("the method is not a token")
    _refuse("the HTTP version is malformed; write HTTP/1.1")


def _refuse_connect(target: bytes) -> NoReturn:
    # RFC 9110 §9.3.6: the target of CONNECT is a host and a port, and nothing else.
    match = _split_authority(target)
    if match is None or not match[2]:
        _refuse("the target of CONNECT is a host and a port")
    _check_authority(target, of="the request target")
    _refuse("CONNECT is not implemented; this server is not a proxy", status=501)


def _refuse_target(target: bytes) -> NoReturn:
    if target == b"*":
        _refuse("the target * belongs to OPTIONS")
    if b"#" in target:
        _refuse("the request target holds a fragment")
    if _has_bad_escape(target):
        _refuse("the request target holds a % that two hexadecimal digits do not follow")
    if target.startswith(b"/") or target[:8].lower().startswith((b"http://", b"https://")):
        _refuse("the request target holds a character that must be percent-encoded")
    _refuse("the request target is neither a path nor an http or https URI")


# --- authorities --------------------------------------------------------------------------------


@lru_cache(maxsize=512)
def _check_authority(authority: bytes, *, of: str) -> None:
    if not authority:
        _refuse(f"{of} names no host")  # RFC 9110 §4.2.1
    match = _split_authority(authority)
    if match is None:
        what = "holds userinfo" if b"@" in authority else "is not a host with an optional port"
        _refuse(f"{of} {what}")
    ipv6, port = match.groups()
    if port and int(port) > 0xFFFF:
        _refuse(f"{of} names a port above 65535")
    if ipv6 is not None:
        try:
            IPv6Address(ipv6.decode("ascii"))
        except AddressValueError:
            _refuse(f"{of} names a malformed IPv6 address")


# --- fields -------------------------------------------------------------------------------------

# Fields whose values are the same for many connections, and tell no secret.
_SHARED_NAMES = frozenset(
    b"accept accept-charset accept-encoding accept-language cache-control connection content-type "
    b"dnt expect host origin pragma priority sec-ch-ua sec-ch-ua-mobile sec-ch-ua-platform "
    b"sec-fetch-dest sec-fetch-mode sec-fetch-site sec-fetch-user sec-gpc sec-websocket-extensions "
    b"sec-websocket-protocol sec-websocket-version te transfer-encoding upgrade "
    b"upgrade-insecure-requests user-agent via x-forwarded-host x-forwarded-port x-forwarded-proto "
    b"x-requested-with".split()
)
_SHARED_VALUE_BYTES = 256


class _Names(dict[bytes, bytes]):
    """A name as it came -> the one lower-case copy of it; what is no token isn't in here."""

    LIMIT = 1024

    def __missing__(self, name: bytes) -> bytes:
        if not _is_token(name):
            raise ValueError(name)
        lower = name.lower()
        lower = self.get(lower, lower)
        if len(name) <= 64:
            if len(self) >= self.LIMIT:
                self.clear()  # names made up to fill the table make room for those in use
            self[name] = lower
        return lower


class _Fields(dict[Field, Field]):
    """A field as httptools gives it -> the one copy that all connections share.

    15,000 idle connections of one kind of browser hold one copy of its fields.
    """

    LIMIT = 1024

    def __missing__(self, field: Field) -> Field:
        name = _NAMES[field[0]]
        value = field[1].rstrip(b" \t")  # RFC 9110 §5.5: httptools strips the left side alone
        kept = name, value
        if name in _SHARED_NAMES and len(value) <= _SHARED_VALUE_BYTES:
            if len(self) >= self.LIMIT:
                self.clear()
            self[field] = kept
        return kept


_NAMES = _Names()
_FIELDS = _Fields()


class _Collector:
    """The callbacks that httptools is given."""

    __slots__ = ("append",)

    def __init__(self, fields: list[Field]) -> None:
        self.append = fields.append

    def on_header(self, name: bytes, value: bytes) -> None:
        self.append(_FIELDS[name, value])


def parse_head(line: RequestLine, block: bytes) -> "tuple[list[Field], Framing]":
    """Give the fields of a head, and what they say about the message.

    The block is the head, from the request line to the empty line, free of controls. Raises
    HandshakeError: 501 for a method that httptools doesn't know, and as ``_parse_framing`` does.
    """
    try:
        fields = _parse_fields(block)
    except httptools.HttpParserError as error:
        _refuse_lines(block)
        if "method" in str(error):
            _refuse("the method is not implemented", status=501)
        # What remains is how fields go together: say it in our words where we know it too.
        parts = [text.partition(b":") for text in block[:-4].split(b"\r\n")[1:]]
        _parse_framing(
            line.version, [(name.lower(), value.strip(b" \t")) for name, _, value in parts]
        )
        _refuse("the header section is malformed")
    framing = _parse_framing(line.version, fields)
    if line.authority is not None:
        fields = _replace_host(fields, line.authority)
    return fields, framing


def parse_trailers(section: bytes) -> list[Field]:
    """Give the trailers of a chunked body; the section begins with the CRLF before the first."""
    block = b"GET / HTTP/1.1" + section
    try:
        fields = _parse_fields(block)
    except httptools.HttpParserError:
        _refuse_lines(block)
        _refuse("the trailer section is malformed")
    for name, _ in fields:
        if name in _FRAMING_NAMES:
            _refuse("a trailer section holds a field that frames the message")  # RFC 9110 §6.5.1
    return fields


def _parse_fields(block: bytes) -> list[Field]:
    fields: list[Field] = []
    with suppress(httptools.HttpParserUpgrade):  # whether to upgrade is the caller's decision
        httptools.HttpRequestParser(_Collector(fields)).feed_data(block)
    return fields


def _refuse_lines(block: bytes) -> None:
    """Refuse a line that is no field, if there is one."""
    for line in block[:-4].split(b"\r\n")[1:]:
        name, colon, _ = line.partition(b":")
        if line[:1] in (b" ", b"\t"):
            _refuse("a header field is folded over several lines")  # RFC 9112 §5.2
        if not colon:
            _refuse("a header line has no colon")
        if not name:
            _refuse("a header field has no name")
        if name[-1:] in (b" ", b"\t"):
            _refuse("whitespace stands between a header name and its colon")  # RFC 9112 §5.1
        if not _is_token(name):
            _refuse("a header name is not a token")


# --- what the fields say about the message ------------------------------------------------------


class Framing(NamedTuple):
    """Where the body of a request ends (``length`` is None: chunked), and what follows it."""

    length: int | None
    keep_alive: bool
    upgrade: bytes | None
    expect_continue: bool


_FRAMING_NAMES = frozenset(
    (b"connection", b"content-length", b"expect", b"host", b"transfer-encoding", b"upgrade")
)


def _parse_framing(version: str, fields: list[Field]) -> Framing:
    """Judge the fields that decide about host, body and connection (RFC 9112 §3.2, §6, §9).

    Raises HandshakeError: 400, 413 for a length that no body has, 417, 501 for a transfer coding.
    """
    found: dict[bytes, list[bytes]] = {}
    for name, value in fields:
        if name in _FRAMING_NAMES:
            found.setdefault(name, []).append(value)
    _check_host(version, found.get(b"host", ()))
    length = _body_length(version, found)
    connection = list_members(found.get(b"connection", ()))
    keep_alive = b"close" not in connection and (version == "1.1" or b"keep-alive" in connection)
    upgrade = None
    # RFC 9110 §7.8: Upgrade counts when Connection names it, and never in HTTP/1.0.
    if b"upgrade" in found and b"upgrade" in connection and version == "1.1":
        upgrade = b", ".join(found[b"upgrade"]).lower() or None
    expect_continue = False
    if b"expect" in found and version == "1.1":  # RFC 9110 §10.1.1: not for HTTP/1.0
        if list_members(found[b"expect"]) != [b"100-continue"]:
            _refuse("the only expectation that is met is 100-continue", status=417)
        expect_continue = length != 0
    return Framing(length, keep_alive, upgrade, expect_continue)


def _check_host(version: str, hosts: Sequence[bytes]) -> None:
    # RFC 9112 §3.2: exactly one Host, valid; HTTP/1.0 may leave it out.
    if len(hosts) > 1:
        _refuse("the request has more than one Host header field")
    if hosts:
        _check_authority(hosts[0], of="the Host header field")
    elif version == "1.1":
        _refuse("the request has no Host header field")


def _body_length(version: str, found: dict[bytes, list[bytes]]) -> int | None:
    lengths = found.get(b"content-length")
    codings = found.get(b"transfer-encoding")
    if codings is not None:
        if version == "1.0":
            _refuse("HTTP/1.0 has no Transfer-Encoding")  # RFC 9112 §6.1
        if lengths is not None:
            _refuse("the request has both Content-Length and Transfer-Encoding")  # §6.3, item 3
        _check_codings(codings)
        return None
    if lengths is None:
        return 0
    if len(lengths) > 1:
        _refuse("the request has more than one Content-Length header field")
    if not _is_digits(lengths[0]):
        _refuse("Content-Length is not a number")  # RFC 9110 §8.6: 1*DIGIT
    if len(lengths[0]) > _LENGTH_DIGITS:
        _refuse("Content-Length is larger than any body", status=413)
    return int(lengths[0])


def _check_codings(values: list[bytes]) -> None:
    if len(values) == 1 and values[0].lower() == b"chunked":
        return
    codings = [member.strip(b" \t").lower() for member in b",".join(values).split(b",")]
    if codings[-1] != b"chunked":
        _refuse("the final transfer coding is not chunked")  # RFC 9112 §6.3, item 4
    if b"chunked" in codings[:-1]:
        _refuse("the transfer coding chunked is applied more than once")  # RFC 9112 §6.1
    if not all(map(_is_coding, codings)):
        _refuse("Transfer-Encoding is malformed")
    _refuse("the only transfer coding understood is chunked", status=501)  # RFC 9112 §6.1


_is_coding = re.compile(rb"%b(?:[ \t]*+;[ \t]*+[!-~]++)*+" % _TOKEN).fullmatch


def _replace_host(fields: list[Field], authority: bytes) -> list[Field]:
    """Let the authority of an absolute-form target stand for Host (RFC 9112 §3.2.2)."""
    host = b"host", authority
    if not any(name == b"host" for name, _ in fields):
        return [host, *fields]
    return [host if field[0] == b"host" else field for field in fields]


def list_members(values: Iterable[bytes]) -> list[bytes]:
    """Split comma-separated values into their members, in lower case (RFC 9110 §5.6.1)."""
    members = (member.strip(b" \t") for value in values for member in value.split(b","))
    return [member.lower() for member in members if member]


# --- what we send -------------------------------------------------------------------------------

_STATUS_LINES = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode("ascii")
    for status in HTTPStatus
}


def status_line(status: int) -> bytes:
    """Give the first line of a response; an unregistered status goes without a phrase."""
    return _STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status


def outgoing_name(name: bytes) -> bytes:
    """Give a header name in lower case; LocalProtocolError for what is not a token."""
    try:
        return _NAMES[name]
    except (TypeError, ValueError):
        raise LocalProtocolError(f"header name is not a token: {name!r}") from None


def encode_fields(fields: list[Field]) -> bytes:
    """Write fields whose names were checked; LocalProtocolError for a value that can't go out."""
    try:
        block = b"".join([b"%b: %b\r\n" % field for field in fields])
        plain = is_plain(block, lines=len(fields))
    except TypeError:
        plain = False
    if not plain:
        for name, value in fields:
            if not isinstance(value, bytes | bytearray | memoryview):
                raise LocalProtocolError(f"header value is not bytes: {name!r}: {value!r}")
            if not is_plain(value, lines=0):
                raise LocalProtocolError(f"header value holds a control character: {name!r}")
    return block
