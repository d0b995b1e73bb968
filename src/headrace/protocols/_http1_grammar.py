"""What HTTP/1.1 requires of the bytes of a message: request lines, header fields, hosts, lengths.

Rules of this file:

- There is one parser for fields, of heads and of trailers. httptools judges each section whole;
  what it lets pass and RFC 9110 or RFC 9112 forbids is refused here. Its callbacks would be slower
  than a look at the lines it has approved, most of which were read before on other connections.
- Incoming bytes surface as nothing but ``HandshakeError``, with the status of the answer and a
  sentence for whoever reads it; outgoing mistakes as nothing but ``LocalProtocolError``.
- Each check is linear: quantifiers are possessive, so no regular expression goes back.
"""

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from http import HTTPStatus
from ipaddress import AddressValueError, IPv6Address
from typing import NamedTuple, NoReturn, TypeVar
from urllib.parse import unquote_to_bytes

import httptools

from headrace.exceptions import HandshakeError, LocalProtocolError
from headrace.protocols.handshake import KEY

__all__ = [
    "Field",
    "Framing",
    "RequestLine",
    "check_authority",
    "check_bytes",
    "check_known",
    "content_length",
    "encode_fields",
    "field_name",
    "is_plain",
    "list_members",
    "match_chunk_line",
    "outgoing_name",
    "outgoing_options",
    "parse_head",
    "parse_path",
    "parse_request_line",
    "parse_trailers",
    "recall_field",
    "recall_head",
    "status_line",
]

Field = tuple[bytes, bytes]

# RFC 9110 §5.5: a value holds HTAB, SP, VCHAR and obs-text (0x80-0xFF), and nothing else.
_TEXT = bytes(byte for byte in range(256) if byte == 0x09 or (byte >= 0x20 and byte != 0x7F))

_find_forbidden = re.compile(
    rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?=[^\n])|(?<!\r)\n",
).search

# Possessive repeats ("++") are for single characters here, where they keep the time linear. A group
# that is repeated so takes half of what does not match, on Python before 3.11.5 (gh-106052); what
# these groups begin with tells them apart, so that to go back over them is linear as well.
_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
_is_token = re.compile(_TOKEN).fullmatch


# RFC 3986 §3.3 and §3.4, and what browsers send without encoding it (WHATWG URL, the path and
# query percent-encode sets): refusing "?filter[name]=x" or "?discount=10%" would refuse the
# web as it is. A query is passed on as it came; a path is decoded, so its escapes must be whole.
_PATH = rb"/(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/|^\[\]]++|%[0-9A-Fa-f]{2})*"
_QUERY = rb"[A-Za-z0-9\-._~!$&'()*+,;=:@/|^\[\]?{}`\\%]*+"
# What nearly all requests are, in one match: a path on this server, and HTTP/1.1 or 1.0.
_split_common_line = re.compile(
    rb"(%b) ((%b)(?:\?(%b))?) HTTP/1\.([01])" % (_TOKEN, _PATH, _QUERY)
).fullmatch
_split_path = re.compile(rb"(%b)(?:\?(%b))?" % (_PATH, _QUERY)).fullmatch
_split_any_line = re.compile(rb"(%b) ([!-~]++) HTTP/([0-9]\.[0-9])" % _TOKEN).fullmatch
_split_absolute_form = re.compile(
    rb"(?i:https?)://([^/?#]*+)(%b)?(?:\?(%b))?" % (_PATH, _QUERY),
).fullmatch
_has_bad_escape = re.compile(rb"%(?![0-9A-Fa-f]{2})").search

# RFC 3986 §3.2.2 without userinfo: RFC 9110 §4.2.4 has us treat that as an error.
_split_authority = re.compile(
    rb"(?:\[(?:([0-9A-Fa-f:.]++)|[vV][0-9A-Fa-f]++\.[A-Za-z0-9\-._~!$&'()*+,;=:]++)\]"
    rb"|(?:[A-Za-z0-9\-._~!$&'()*+,;=]++|%[0-9A-Fa-f]{2})+)"
    rb"(?::([0-9]{0,5}))?",
).fullmatch

_is_digits = re.compile(rb"[0-9]+").fullmatch
_LENGTH_DIGITS = 19  # as many as 2 ** 63 has


def _refuse(reason: str, *, status: int = 400) -> NoReturn:
    raise HandshakeError(reason, status=status)


def is_plain(block: bytes, *, lines: int) -> bool:
    """Say whether the block holds text and so many CRLFs: no control, no bare CR or LF."""
    return len(block.translate(None, _TEXT)) == 2 * lines


def check_bytes(block: bytes | bytearray, begin: int = 0, end: int | None = None) -> None:
    """Raise HandshakeError (400) for the first byte that no line may hold, if there is one.

    A CR that is the last byte is not judged: its LF may be still to come.
    """
    match = _find_forbidden(block, begin, len(block) if end is None else end)
    if match is None:
        return
    match match[0]:
        case b"\n":
            _refuse("a line ends in a bare LF; lines end in CRLF")
        case b"\r":
            _refuse("a CR is not followed by LF; lines end in CRLF")
        case b"\x16":  # RFC 8446 §5.1: the record of a handshake
            _refuse("the control character 0x16 is not allowed; is this TLS, to a port for HTTP?")
        case byte:
            _refuse(f"the control character 0x{byte[0]:02x} is not allowed")


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


_SHARED_LINE_BYTES = 320
_SHARED_LIMIT = 1024

_K = TypeVar("_K")
_V = TypeVar("_V")


def _share(table: dict[_K, _V], key: _K, value: _V, most: int = _SHARED_LIMIT) -> None:
    """Keep what was made of something for all who send the same.

    What is made up to fill the table makes room for what is in use.
    """
    if len(table) >= most:
        table.clear()
    table[key] = value


# A request line that was read before, without a query, which is often made for one client.
_shared_lines: dict[bytes, RequestLine] = {}


def parse_request_line(line: bytes) -> RequestLine:
    """Take the first line of a request apart (RFC 9112 §3).

    Raises HandshakeError: 400, 501 for CONNECT and for a method that isn't in capital letters,
    505 for a version that isn't 1.0 or 1.1.
    """
    known = _shared_lines.get(line)
    if known is not None:
        return known
    match = _split_common_line(line)
    if match is None:
        return _parse_uncommon_line(line)
    method, target, raw_path, query, minor = match.groups(b"")
    version = "1.1" if minor == b"1" else "1.0"
    path = raw_path.decode("ascii") if b"%" not in raw_path else _decode(raw_path)
    name = _METHODS.get(method) or _check_method(method, target)
    parsed = RequestLine(name, target, version, None, path, raw_path, query)
    if not query and len(line) <= _SHARED_LINE_BYTES:
        _share(_shared_lines, line, parsed)
    return parsed


def parse_path(target: bytes) -> tuple[str, bytes, bytes]:
    """Give decoded path, path and query string of a target that is a path on this server.

    Raises HandshakeError (400).
    """
    match = _split_path(target)
    if match is None:
        _refuse_target(target)
    raw_path, query = match.groups(b"")
    path = raw_path.decode("ascii") if b"%" not in raw_path else _decode(raw_path)
    return path, raw_path, query


def _decode(raw_path: bytes) -> str:
    # What is not UTF-8 once decoded shows as U+FFFD; raw_path has the original.
    return unquote_to_bytes(raw_path).decode("utf-8", "replace")


def _parse_uncommon_line(line: bytes) -> RequestLine:
    check_bytes(line + b"\r\n")
    match = _split_any_line(line)
    if match is None:
        _refuse_request_line(line)
    method, target, version = match.groups()
    if version not in (b"1.1", b"1.0"):
        _refuse("this server speaks HTTP/1.1 and HTTP/1.0", status=505)
    name = _check_method(method, target)
    if target == b"*" and method == b"OPTIONS":
        return RequestLine("OPTIONS", target, version.decode("ascii"), None, "*", target, b"")
    parts = _split_absolute_form(target)
    if parts is None:
        _refuse_target(target)
    authority, raw_path, query = parts.groups(b"")
    check_authority(authority, of="the request target")
    if not raw_path:
        # RFC 9112 §3.2.4: OPTIONS on a URI without path asks about the server as a whole.
        raw_path = b"*" if method == b"OPTIONS" and not query else b"/"
    path = _decode(raw_path)
    return RequestLine(name, target, version.decode("ascii"), authority, path, raw_path, query)


def _refuse_request_line(line: bytes) -> NoReturn:
    parts = line.split(b" ")
    if parts[0] == b"PROXY":
        _refuse("this is a PROXY header, and nobody reads it here: see --proxy-protocol")
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


_METHODS = {
    name.encode("ascii"): name
    for name in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "QUERY")
}


def _check_method(method: bytes, target: bytes) -> str:
    if method == b"CONNECT":
        # RFC 9110 §9.3.6: the target of CONNECT is a host and a port, and nothing else.
        match = _split_authority(target)
        if match is None or not match[2]:
            _refuse("the target of CONNECT is a host and a port")
        check_authority(target, of="the request target")
        _refuse("CONNECT is not implemented; this server is not a proxy", status=501)
    return method.decode("ascii")


@lru_cache(maxsize=128)
def check_known(method: bytes) -> None:
    """Raise HandshakeError (501) for a method that httptools doesn't know."""
    try:
        httptools.HttpRequestParser(_JUDGE).feed_data(b"%b / HTTP/1.1\r\n\r\n" % method)
    except httptools.HttpParserUpgrade:
        pass  # CONNECT
    except httptools.HttpParserError:
        _refuse("the method is not implemented", status=501)


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


def check_authority(authority: bytes, *, of: str) -> None:
    """Raise HandshakeError (400) for what is not a host with an optional port."""
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

# What decides about the host, the body and the connection.
_FRAMING_NAMES = frozenset(
    (b"connection", b"content-length", b"expect", b"host", b"transfer-encoding", b"upgrade")
)

# Fields whose values are the same for many connections, tell no secret and frame no message.
_SHARED_NAMES = frozenset(
    b"accept accept-charset accept-encoding accept-language cache-control connection content-type "
    b"dnt host origin pragma priority sec-ch-ua sec-ch-ua-mobile sec-ch-ua-platform "
    b"sec-fetch-dest sec-fetch-mode sec-fetch-site sec-fetch-user sec-gpc sec-websocket-extensions "
    b"sec-websocket-protocol sec-websocket-version te upgrade upgrade-insecure-requests "
    b"user-agent via x-forwarded-host x-forwarded-port x-forwarded-proto x-requested-with".split()
)

# A line that was read before -> the one copy of its field. 15,000 idle connections of a few kinds
# of browser hold a few copies: 480 bytes for the headers of a handshake instead of 2,300.
_shared_fields: dict[bytes, Field] = {}
_shared_framing_fields: dict[bytes, Field] = {}  # the same, for what ``_judge_framing`` must see


# A section whose every line is among those -> its fields, what they say together, and which of them
# is the key of a WebSocket (-1: none). Most clients send the same one again and again, so it is
# judged once. A handshake's is kept without its key, which says nothing about the rest.
_shared_sections: "dict[bytes, tuple[tuple[Field, ...], Framing, int]]" = {}
_SHARED_SECTION_BYTES = 1024
_SHARED_SECTIONS = 256


class _Names(dict[bytes, bytes]):
    """A name as it came -> the one lower-case copy of it; ValueError for what is no token."""

    def __missing__(self, name: bytes) -> bytes:
        if not _is_token(name):
            raise ValueError(name)
        lower = name.lower()
        lower = self.get(lower, lower)
        if len(name) <= 64:
            _share(self, name, lower)
        return lower


_NAMES = _Names()


class _Judge:
    """No callbacks for httptools: it has nothing to tell but whether it is content.

    Thirteen fields cost 0.9 µs so, and 2.4 µs with a callback for each, before it does anything.
    """

    __slots__ = ()
    on_message_begin = on_url = on_header = on_headers_complete = on_body = None
    on_message_complete = on_chunk_header = on_chunk_complete = on_status = None


_JUDGE = _Judge()


def parse_head(line: RequestLine, head: bytes, lines: list[bytes]) -> "tuple[list[Field], Framing]":
    """Give the fields of a head, and what they say together.

    The head is all there, up to its empty line, and ``lines`` is what it splits into at its CRLFs.
    Raises HandshakeError: 400, 413 for a length that no body has, 417 for an expectation, 501 for a
    method or a transfer coding.
    """
    fields, framing_fields, objection, shared = _parse_fields(head, lines)
    framing = _judge_framing(line.version, framing_fields)
    if objection is not None:
        if "method" in objection:
            _refuse("the method is not implemented", status=501)
        _refuse("the header section is malformed")
    if line.authority is not None:
        fields = _replace_host(fields, line.authority)
    elif shared and _is_common(line):
        _share_section(head[len(lines[0]) :], fields, framing)
    return fields, framing


# The key of a WebSocket, as every client sends it.
_KEY_NAME = b"sec-websocket-key"
_KEY_LINE = b"\r\nSec-WebSocket-Key: "
_KEY_BYTES = 24
_is_key = KEY.fullmatch
_is_key_line = re.compile(_KEY_LINE[2:] + KEY.pattern).fullmatch


def _take_key(section: bytes) -> tuple[bytes, bytes | None]:
    """Give the section without the key of a WebSocket, and the key; None where it has none."""
    begin = section.find(_KEY_LINE)
    if begin < 0:
        return section, None
    begin += len(_KEY_LINE)
    end = begin + _KEY_BYTES
    key = section[begin:end]
    if section[end : end + 2] != b"\r\n" or not _is_key(key):
        return section, None
    return section[:begin] + section[end:], key


def recall_head(line: RequestLine, section: bytes) -> "tuple[list[Field], Framing] | None":
    """Give what ``parse_head`` gave for a head of this line and section, if that is known.

    The section begins with the CRLF of the request line.
    """
    section, key = _take_key(section)
    known = _shared_sections.get(section)
    if known is None or not _is_common(line):
        return None
    shared, framing, place = known
    fields = list(shared)
    if key is not None:
        fields[place] = _KEY_NAME, key
    return fields, framing


def _is_common(line: RequestLine) -> bool:
    """Say whether nothing in the line bears upon the fields."""
    return line.method == "GET" and line.version == "1.1" and line.authority is None


def _share_section(section: bytes, fields: list[Field], framing: "Framing") -> None:
    if len(section) <= _SHARED_SECTION_BYTES:
        section, key = _take_key(section)
        place = -1
        if key is not None:
            place = fields.index((_KEY_NAME, key))
            fields = [*fields[:place], (_KEY_NAME, b""), *fields[place + 1 :]]
        _share(_shared_sections, section, (tuple(fields), framing, place), _SHARED_SECTIONS)


def parse_trailers(section: bytes) -> list[Field]:
    """Give the trailers of a chunked body, from the CRLF before the first to the empty line.

    Raises HandshakeError (400).
    """
    head = b"GET / HTTP/1.1" + section
    fields, framing_fields, objection, _ = _parse_fields(head, head.split(b"\r\n"))
    if framing_fields:
        _refuse("a trailer section holds a field that frames the message")  # RFC 9110 §6.5.1
    if objection is not None:
        _refuse("the trailer section is malformed")
    return fields


def _parse_fields(
    head: bytes, lines: list[bytes]
) -> tuple[list[Field], tuple[Field, ...], str | None, bool]:
    """Give the fields, in order, those of them that frame the message, and httptools' objection.

    At last, whether all of them were known as fields that many connections share, the key of a
    WebSocket aside. A line that is no field is refused here. What httptools has against lines that
    are well-formed is left to the caller, who knows better words for it.
    """
    objection = None
    try:
        httptools.HttpRequestParser(_JUDGE).feed_data(head)
    except httptools.HttpParserUpgrade:
        pass  # whether to upgrade is the caller's decision
    except httptools.HttpParserError as error:
        objection = str(error)
    fields: list[Field] = []
    framing_fields: list[Field] = []
    shared = True
    for line in lines[1:-2]:
        field = _shared_fields.get(line)
        if field is None:
            field = _shared_framing_fields.get(line)
            if field is None:
                shared = shared and _is_key_line(line) is not None
                field = _parse_line(line)
                if field is None:
                    _refuse_line(head)
            if field[0] in _FRAMING_NAMES:
                framing_fields.append(field)
        fields.append(field)
    return fields, tuple(framing_fields), objection, shared


def _parse_line(line: bytes) -> Field | None:
    """Give the one field of this line, or None."""
    name, colon, value = line.partition(b":")
    if not colon or line.translate(None, _TEXT):
        return None
    try:
        field = _NAMES[name], value.strip(b" \t")  # RFC 9110 §5.5: without what surrounds it
    except ValueError:
        return None
    if field[0] in _SHARED_NAMES and len(line) <= _SHARED_LINE_BYTES:
        shared = _shared_framing_fields if field[0] in _FRAMING_NAMES else _shared_fields
        _share(shared, line, field)
    return field


def _refuse_line(head: bytes) -> NoReturn:
    """Say what is wrong with the first line that is no field."""
    check_bytes(head)
    for line in head.split(b"\r\n")[1:-2]:
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
            break
    _refuse("a header name is not a token")


# --- what the fields say about the message ------------------------------------------------------


class Framing(NamedTuple):
    """Where the body of a request ends (``length`` is None: chunked), and what follows it."""

    length: int | None
    keep_alive: bool
    upgrade: bytes | None
    expect_continue: bool


@lru_cache(maxsize=512)
def _judge_framing(version: str, fields: tuple[Field, ...]) -> Framing:
    """Judge the fields that decide about host, body and connection (RFC 9112 §3.2, §6, §9).

    Raises HandshakeError: 400, 413 for a length that no body has, 417, 501 for a transfer coding.
    """
    found: dict[bytes, list[bytes]] = {}
    for name, value in fields:
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
        check_authority(hosts[0], of="the Host header field")
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
    return 0 if lengths is None else content_length(lengths)


def content_length(lengths: Sequence[bytes]) -> int:
    """Give the number in the Content-Length fields of a request; there is at least one.

    Raises HandshakeError: 400, 413 for a length that no body has.
    """
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


_is_coding = re.compile(rb"%b(?:[ \t]*+;[ \t]*+[!-~]++)*" % _TOKEN).fullmatch


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


# RFC 9112 §7.1: the size, extensions, CRLF. Sixteen digits are 64 bits.
match_chunk_line = re.compile(
    rb"([0-9A-Fa-f]{1,16})"
    rb"((?:[ \t]*+;[ \t]*+%b"
    rb"(?:[ \t]*+=[ \t]*+(?:%b"
    rb"|\"(?:[\t !#-\[\]-~\x80-\xff]++|\\[\t -~\x80-\xff])*\"))?)*)\r\n" % (_TOKEN, _TOKEN)
).match


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


def outgoing_options(value: bytes) -> list[bytes]:
    """Give the options of a Connection header, in lower case; LocalProtocolError for no tokens."""
    options = list_members([value]) if isinstance(value, bytes) else [b""]
    if not all(map(_is_token, options)):
        raise LocalProtocolError(f"header connection is not a list of tokens: {value!r}")
    return options


def field_name(name: bytes) -> bytes | None:
    """Give the one lower-case copy of a field's name, None for what is not a token."""
    try:
        return _NAMES[name]
    except ValueError:
        return None


# Fields of responses whose values are the same for many of them and tell no secret.
_SENT_NAMES = frozenset(
    b"accept-ranges access-control-allow-credentials access-control-allow-headers "
    b"access-control-allow-methods access-control-allow-origin allow alt-svc cache-control "
    b"content-encoding content-language content-security-policy content-type "
    b"cross-origin-opener-policy date expires pragma referrer-policy server "
    b"strict-transport-security vary x-content-type-options x-frame-options".split()
)

# A field that was sent before -> its name in lower case, and its line.
_sent_fields: dict[Field, Field] = {}

#: ``recall_field((name, value))`` gives what ``encode_field`` gave for it, or None.
recall_field = _sent_fields.get


def encode_field(name: bytes, value: bytes) -> Field:
    """Write one field: give its name in lower case and its line, checked, and keep it in mind."""
    lower = outgoing_name(name)
    line = encode_fields([(lower, value)])
    known = lower, line
    if lower in _SENT_NAMES and len(line) <= _SHARED_LINE_BYTES:
        _share(_sent_fields, (name, value), known)
    return known


def encode_fields(fields: list[Field]) -> bytes:
    """Write fields whose names were checked; LocalProtocolError for a value that can't go out."""
    try:
        block = b"".join([b"%b: %b\r\n" % field for field in fields])
        plain = is_plain(block, lines=len(fields))
    except TypeError:
        plain = False
    if not plain:
        for name, value in fields:
            if not isinstance(value, bytes):
                raise LocalProtocolError(f"header value is not bytes: {name!r}: {value!r}")
            if not is_plain(value, lines=0):
                raise LocalProtocolError(f"header value holds a control character: {name!r}")
    return block
