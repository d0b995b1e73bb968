"""What HTTP/2 requires of the fields of a request: pseudo-headers, names, values, lengths.

Rules of this file:

- Hosts, paths, lengths and names follow the one grammar of ``_http1_grammar``.
- What RFC 9113 calls malformed is a ``MalformedRequest``, and ends the stream. What is well-formed
  and can't be served is a ``HandshakeError``, and gets an answer with its status.
- Each check is linear in the size of the fields.
"""

from collections.abc import Iterable
from typing import NamedTuple

from headrace.exceptions import HandshakeError, LocalProtocolError, RemoteProtocolError
from headrace.protocols._http1_grammar import (
    Field,
    check_authority,
    check_known,
    content_length,
    encode_fields,
    field_name,
    is_plain,
    list_members,
    outgoing_name,
    parse_path,
)

__all__ = [
    "CONNECTION_SPECIFIC",
    "MalformedRequest",
    "Request",
    "check_trailers",
    "has_more_fields",
    "outgoing_fields",
    "parse_request",
]


class MalformedRequest(RemoteProtocolError):
    """A request that is malformed in the sense of RFC 9113 §8.1.1."""


class Request(NamedTuple):
    """The fields of a request, judged.

    ``length`` is None where none is given; ``protocol`` is that of an extended CONNECT.
    """

    method: str
    target: bytes
    path: str
    raw_path: bytes
    query_string: bytes
    headers: list[Field]
    length: int | None
    protocol: bytes | None
    expect_continue: bool


# RFC 9113 §8.2.2: what belongs to one connection of HTTP/1.1.
CONNECTION_SPECIFIC = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade")
)
_PSEUDO = frozenset((b":method", b":scheme", b":authority", b":path", b":protocol"))
_JUDGED = frozenset((b"content-length", b"cookie", b"expect", b"host", b"te"))


def _representation(first: int) -> tuple[int, int]:
    """Return which bits of its first byte are an index, and how many strings follow it."""
    if first & 0x80:
        return 0x7F, 0
    if first & 0x60 == 0x20:
        return 0x1F, 0  # the size of the table
    prefix = 0x3F if first & 0x40 else 0x0F
    return prefix, 1 if first & prefix else 2  # a name that the index does not name is a string


_REPRESENTATIONS = tuple(map(_representation, range(256)))
# No integer of a block that can be decoded is longer.
_INTEGER_BYTES = 10


def has_more_fields(block: bytes, most: int) -> bool:
    """Say whether a compressed block holds more fields than that, without decoding any.

    It takes a µs for each field, and looks no further than it has to. What is malformed has as many
    as stand before that; to say what is wrong with it is for the decoder.
    """
    at, size, count = 0, len(block), 0
    try:
        while at < size and count <= most:
            count += 1
            prefix, strings = _REPRESENTATIONS[block[at]]
            _, at = _integer(block, at, prefix)
            for _ in range(strings):
                length, at = _integer(block, at, 0x7F)
                at += length
    except (IndexError, MalformedRequest):
        pass
    return count > most


def _integer(block: bytes, at: int, prefix: int) -> tuple[int, int]:
    """Read an integer, and where it ends (RFC 7541 §5.1)."""
    value = block[at] & prefix
    at += 1
    if value == prefix:
        for shift in range(0, 7 * _INTEGER_BYTES, 7):
            byte = block[at]
            at += 1
            value += (byte & 0x7F) << shift
            if byte < 0x80:
                return value, at
        raise MalformedRequest("an integer of the compressed fields is too long")
    return value, at


def parse_request(fields: Iterable[Field]) -> Request:
    """Judge the fields of a request (RFC 9113 §8.3.1, RFC 8441 §4).

    Raises MalformedRequest, and HandshakeError: 400 for a path or a host, 413 for a length,
    417 for an expectation, 501 for a method or for the protocol of a CONNECT.
    """
    pseudo, regular = _divide(fields)
    headers, judged = _judge(regular)
    method = pseudo.get(b":method")
    if method is None:
        raise MalformedRequest("the request has no :method")
    if field_name(method) is None:
        raise MalformedRequest("the :method is not a token")
    length = _length(judged.get(b"content-length"))
    host = _host(pseudo.get(b":authority"), judged.get(b"host"), method)
    protocol = pseudo.get(b":protocol")
    _check_pseudo(method, pseudo)
    check_authority(host, of="the :authority of the request")
    if method == b"CONNECT" and protocol is None:
        raise HandshakeError("CONNECT is not implemented; this server is not a proxy", status=501)
    check_known(method)
    target = pseudo[b":path"]
    if target == b"*" and method == b"OPTIONS":
        path, raw_path, query = "*", target, b""
    else:
        path, raw_path, query = parse_path(target)
    expectations = judged.get(b"expect")
    if expectations is not None and list_members(expectations) != [b"100-continue"]:
        raise HandshakeError("the only expectation that is met is 100-continue", status=417)
    headers.insert(0, (b"host", host))
    if (crumbs := judged.get(b"cookie")) is not None:
        # RFC 9113 §8.2.3: what clients split up for the sake of compression is one field.
        headers.append((b"cookie", b"; ".join(crumbs)))
    return Request(
        method.decode("ascii"),
        target,
        path,
        raw_path,
        query,
        headers,
        length,
        protocol,
        expectations is not None and length != 0,
    )


def check_trailers(fields: Iterable[Field]) -> None:
    """Raise MalformedRequest for a trailer section with what belongs to none."""
    pseudo, regular = _divide(fields)
    if pseudo:
        raise MalformedRequest("a trailer section holds a pseudo-header")  # RFC 9113 §8.1
    _judge(regular)


def _divide(fields: Iterable[Field]) -> tuple[dict[bytes, bytes], list[Field]]:
    """Tell pseudo-headers from fields (RFC 9113 §8.3)."""
    pseudo: dict[bytes, bytes] = {}
    regular: list[Field] = []
    for field in fields:
        name, value = field
        if name[:1] != b":":
            regular.append(field)
            continue
        if regular:
            raise MalformedRequest("a pseudo-header stands behind a field")
        if name not in _PSEUDO:
            raise MalformedRequest("the request has an unknown pseudo-header")
        if name in pseudo:
            raise MalformedRequest(f"the request has more than one {name.decode('ascii')}")
        if not is_plain(value, lines=0):
            raise MalformedRequest(f"the {name.decode('ascii')} holds a control character")
        pseudo[name] = value
    return pseudo, regular


def _judge(regular: list[Field]) -> tuple[list[Field], dict[bytes, list[bytes]]]:
    """Check names and values (RFC 9113 §8.2), and set apart what says something about the message.

    Host and cookies are left out of the fields that are returned.
    """
    headers: list[Field] = []
    judged: dict[bytes, list[bytes]] = {}
    for name, value in regular:
        known = field_name(name)
        if known is None:
            raise MalformedRequest("a field's name is not a token")
        if known != name:
            raise MalformedRequest("a field's name has a capital letter")
        if known in CONNECTION_SPECIFIC:
            raise MalformedRequest(f"the field {known.decode('ascii')} belongs to HTTP/1.1")
        if value[:1] in (b" ", b"\t") or value[-1:] in (b" ", b"\t"):
            raise MalformedRequest("a field's value begins or ends with whitespace")
        if known in _JUDGED:
            judged.setdefault(known, []).append(value)
            if known in (b"host", b"cookie"):
                continue
        headers.append((known, value))
    if not is_plain(b"".join([value for _, value in regular]), lines=0):
        raise MalformedRequest("a field's value holds a control character")
    if list_members(judged.get(b"te", ())) not in ([], [b"trailers"]):
        raise MalformedRequest("the field te says more than trailers")
    return headers, judged


def _check_pseudo(method: bytes, pseudo: dict[bytes, bytes]) -> None:
    """Check which pseudo-headers are there (RFC 9113 §8.3.1 and §8.5, RFC 8441 §4)."""
    extended = b":protocol" in pseudo
    if extended and method != b"CONNECT":
        raise MalformedRequest("the pseudo-header :protocol belongs to CONNECT")
    if method == b"CONNECT" and not extended:
        if b":scheme" in pseudo or b":path" in pseudo:
            raise MalformedRequest("a CONNECT has neither :scheme nor :path")
        return
    if b":scheme" not in pseudo:
        raise MalformedRequest("the request has no :scheme")
    if not pseudo.get(b":path"):
        raise MalformedRequest("the request has no :path")


def _host(authority: bytes | None, hosts: list[bytes] | None, method: bytes) -> bytes:
    """Give the one host that the request is for (RFC 9113 §8.3.1)."""
    if hosts is not None and len(hosts) > 1:
        raise MalformedRequest("the request has more than one host")
    if authority is None:
        if method == b"CONNECT":
            raise MalformedRequest("a CONNECT has no :authority")  # RFC 9113 §8.5
        if hosts is None:
            raise MalformedRequest("the request has neither :authority nor host")
        return hosts[0]
    if hosts is not None and hosts[0].lower() != authority.lower():
        raise MalformedRequest("the fields :authority and host differ")
    return authority


def _length(lengths: list[bytes] | None) -> int | None:
    if lengths is None:
        return None
    try:
        return content_length(lengths)
    except HandshakeError as error:
        if error.status != 400:
            raise
        raise MalformedRequest(str(error)) from None


def outgoing_fields(headers: Iterable[Field]) -> list[Field]:
    """Give the fields of a response as HTTP/2 has them; LocalProtocolError for what can't go out.

    What only HTTP/1.1 has is left out: an application need not know which version it speaks.
    """
    fields: list[Field] = []
    for name, value in headers:
        lower = outgoing_name(name)
        if lower not in CONNECTION_SPECIFIC:
            fields.append((lower, value))
        elif lower == b"transfer-encoding" and value.lower() != b"chunked":
            raise LocalProtocolError(f"cannot apply transfer-encoding: {value!r}")
    encode_fields(fields)  # judges the values
    return [(name, value.strip(b" \t")) for name, value in fields]
