"""The header by which a proxy says whose connection it passes on, sans-IO: bytes in, addresses out.

Rules of this file:

- Nothing is guessed: what is not a whole header of version 1 or 2 is an error, at the first byte
  that says so, however the network cut it.
- Not one byte beyond the header is taken: what follows, a TLS handshake perhaps, is another's.
- An address that the proxy doesn't know, or that is not of a stream, is no address.

Source: "The PROXY protocol, versions 1 & 2", HAProxy Technologies.
"""

import ipaddress
import struct
from dataclasses import dataclass
from enum import Enum
from typing import Final

from ..exceptions import RemoteProtocolError

__all__ = ["ProxyHeader", "ProxyHeaderParser"]

#: Host and port; of a Unix socket its path, and None.
Address = tuple[str, int | None]

_V1: Final = b"PROXY "
_V2: Final = b"\r\n\r\n\x00\r\nQUIT\n"
#: Every header is at least so long: so many bytes can be taken before it is known which it is.
_LEAST: Final = 12
_V2_FIXED: Final = 16
#: A line of version 1 with its end (§2.1).
_V1_MOST: Final = 107


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """Both ends of the connection that the proxy took; None: it doesn't say."""

    source: Address | None = None
    destination: Address | None = None


class _Family(Enum):
    """The families of version 2 whose addresses are those of a stream (§2.2)."""

    INET = 0x11, "!4s4sHH"
    INET6 = 0x21, "!16s16sHH"
    UNIX = 0x31, "!108s108s"


_FAMILIES: Final = {family.value[0]: struct.Struct(family.value[1]) for family in _Family}
#: Unspecified, and datagrams: their addresses mean nothing here, and are passed over.
_OTHER_FAMILIES: Final = frozenset((0x00, 0x12, 0x22, 0x32))


class ProxyHeaderParser:
    """Reads one header."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        #: What it said, once it is complete.
        self.header: ProxyHeader | None = None

    def receive(self, data: bytes) -> int:
        """Take what is the header's, and return how many bytes those were.

        It may take less than is there, and have to be given the rest again. Raises
        RemoteProtocolError where there is no header, or a malformed one.
        """
        taken = 0
        while self.header is None and (wanted := self._wanted(data, taken)):
            self._buffer += data[taken : taken + wanted]
            taken += wanted
            self._parse()
        return taken

    def _wanted(self, data: bytes, start: int) -> int:
        """Return how many of the bytes from there on are the header's for sure."""
        there, have = len(data) - start, len(self._buffer)
        if have < _LEAST:
            return min(there, _LEAST - have)
        if self._buffer.startswith(_V2):
            whole = _V2_FIXED
            if have >= _V2_FIXED:
                whole += int.from_bytes(self._buffer[14:16], "big")
            return min(there, whole - have)
        if self._buffer.endswith(b"\r"):
            return min(there, 1)
        end = data.find(b"\r", start)
        return min(there if end < 0 else end + 1 - start, _V1_MOST - have)

    def _parse(self) -> None:
        buffer = self._buffer
        if buffer.startswith(_V2):
            self._parse_v2()
        elif buffer.startswith(_V1):
            self._parse_v1()
        elif not (_V1.startswith(buffer) or _V2.startswith(buffer)):
            raise RemoteProtocolError("the connection begins with no PROXY header")

    # Version 1 (§2.1)

    def _parse_v1(self) -> None:
        line = self._buffer
        end = 2 if line.endswith(b"\r\n") else int(line.endswith(b"\r"))
        text = line[: len(line) - end]
        if b"\r" in text or b"\n" in text:
            raise RemoteProtocolError("the line of a PROXY header ends with CR LF")
        if line.endswith(b"\r\n"):
            self.header = _read_line(bytes(line[:-2]))
        elif len(line) >= _V1_MOST:
            raise RemoteProtocolError(f"a PROXY header has more than {_V1_MOST} bytes")

    # Version 2 (§2.2)

    def _parse_v2(self) -> None:
        buffer = self._buffer
        if len(buffer) < _V2_FIXED:
            return
        version, command = buffer[12] >> 4, buffer[12] & 0xF
        family = buffer[13]
        length = int.from_bytes(buffer[14:16], "big")
        if version != 2:
            raise RemoteProtocolError(f"a PROXY header of version {version}, which isn't known")
        if command > 1:
            raise RemoteProtocolError(f"a PROXY header with the command {command}, which isn't one")
        addresses = _FAMILIES.get(family)
        if addresses is None and family not in _OTHER_FAMILIES:
            raise RemoteProtocolError(
                f"a PROXY header with the family {family:#04x}, which is none"
            )
        if command == 1 and addresses is not None and length < addresses.size:
            raise RemoteProtocolError(
                f"a PROXY header with {length} bytes of addresses, where they take {addresses.size}"
            )
        if len(buffer) < _V2_FIXED + length:
            return
        # What stands behind the addresses are further values (TLV), of no use here. LOCAL, the
        # proxy's own connection, has the addresses that it has.
        if command == 0 or addresses is None:
            self.header = ProxyHeader()
        else:
            self.header = _read_addresses(addresses.unpack_from(buffer, _V2_FIXED))


def _read_line(line: bytes) -> ProxyHeader:
    words = line.decode("latin-1").split(" ")
    kind = words[1]
    if kind == "UNKNOWN":  # and whatever follows it
        return ProxyHeader()
    if kind not in ("TCP4", "TCP6") or len(words) != 6:
        raise RemoteProtocolError(f"a PROXY header can't be read: {line!r}")
    read = ipaddress.IPv4Address if kind == "TCP4" else ipaddress.IPv6Address
    try:
        if "%" in line.decode("latin-1"):
            raise ValueError  # a zone, which means nothing on another host
        source, destination = (_host(read(word)) for word in words[2:4])
        source_port, destination_port = map(_port, words[4:])
    except ValueError:
        raise RemoteProtocolError(f"a PROXY header can't be read: {line!r}") from None
    return ProxyHeader((source, source_port), (destination, destination_port))


def _host(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    """Write an address; a proxy's socket for IPv6 has those of IPv4 as ``::ffff:1.2.3.4``."""
    return str(getattr(address, "ipv4_mapped", None) or address)


def _port(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or len(text) > 5 or int(text) > 65535:
        raise ValueError
    if text != str(int(text)):
        raise ValueError  # §2.1: no leading zero
    return int(text)


def _read_addresses(values: tuple[bytes | int, ...]) -> ProxyHeader:
    match values:
        case (bytes() as source, bytes() as destination, int() as from_port, int() as to_port):
            return ProxyHeader(
                (_host(ipaddress.ip_address(source)), from_port),
                (_host(ipaddress.ip_address(destination)), to_port),
            )
        case (bytes() as source, bytes() as destination):
            return ProxyHeader((_path(source), None), (_path(destination), None))
    raise AssertionError(values)  # pragma: no cover - the families have no other values


def _path(value: bytes) -> str:
    """Read the path of a Unix socket; the abstract ones of Linux begin with a zero byte."""
    if value.startswith(b"\0"):
        return "@" + value[1:].rstrip(b"\0").decode("utf-8", "surrogateescape")
    return value.partition(b"\0")[0].decode("utf-8", "surrogateescape")
