"""Where a request came from, as the proxies in front of the server say.

Rules of this file:

- Anybody can send such headers. They are believed where the peer of the connection is a proxy
  of ours, and from there on to the left as long as each hop is one.
- The client is the right-most hop that is no proxy of ours: what stands left of it, it may have
  written itself.
- What can't be read is as if it were not there.
"""

import ipaddress
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TypeAlias

from ..exceptions import ConfigurationError
from .endpoint import Address

__all__ = ["LOOPBACK", "Networks", "ProxyHeaders", "is_among", "networks_of"]

_Headers: TypeAlias = Iterable[tuple[bytes, bytes]]

LOOPBACK = ("127.0.0.0/8", "::1/128")
_SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https"}
_HOP = re.compile(r'"?(?:\[(?P<bracketed>[^]]*)\]|(?P<plain>[^:]*))(?::(?P<port>\d+))?"?')
#: A header with more hops than this is read from the right, so far.
MOST_HOPS = 50


class Networks(tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]):
    """Some networks, as the key of a cache: to tell them by their values would take 10 µs."""

    __slots__ = ()
    __eq__ = object.__eq__
    __hash__ = object.__hash__


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyHeaders:
    """Which headers are read, and whose are believed.

    The peer on a Unix socket is always believed: who may connect there is a matter of its file.
    """

    #: Networks of our proxies, beside this host: ``10.0.0.0/8``, an address, or ``*``: everybody.
    trusted: Sequence[str] = ()
    #: The header with the client's address: one, or the hops from client to proxy.
    address: str = "x-forwarded-for"
    #: The header with the client's port, where the address has none.
    port: str = "x-forwarded-port"
    #: The header with the scheme that the client used.
    scheme: str = "x-forwarded-proto"
    _networks: Networks = field(init=False, repr=False, compare=False)
    _names: tuple[bytes, bytes, bytes] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_networks", networks_of((*LOOPBACK, *self.trusted)))
        names = tuple(
            name.lower().encode("ascii", "replace")
            for name in (self.address, self.port, self.scheme)
        )
        object.__setattr__(self, "_names", names)

    def believes(self, peer: Address | None) -> bool:
        """Say whether the other end of a connection is a proxy of ours, or on a Unix socket."""
        return peer is None or peer[1] is None or is_among(peer[0], self._networks)

    def origin(
        self, headers: _Headers, peer: Address | None, scheme: str = "http"
    ) -> tuple[Address | None, str]:
        """Return the client's address, and the scheme that it used: ``http`` or ``https``.

        Args:
            headers: Of the request, with names in lower case.
            peer: The other end of the connection; without a port, or None, a Unix socket.
            scheme: What the connection itself says, where no proxy says it better.
        """
        if not self.believes(peer):
            return peer, scheme
        address_name, port_name, scheme_name = self._names
        hops: list[str] = []
        schemes: list[str] = []
        port = 0
        for name, value in headers:
            if name == address_name:
                hops += _listed(value)
            elif name == scheme_name:
                schemes += _listed(value)
            elif name == port_name:
                port = _port(value.decode("latin-1"))
        client, depth = self._client(hops)
        if client is not None:
            # Daphne's, and ASGI's: a port that isn't known is 0.
            peer = (client[0], client[1] or port)
        # One scheme is that of the whole way; else each hop has one of its own.
        at = 0 if len(schemes) == 1 else len(schemes) - depth
        known = len(schemes) == 1 or (depth > 0 and len(schemes) == len(hops))
        if not known or (said := schemes[at].lower()) not in _SCHEMES:
            return peer, scheme
        return peer, _SCHEMES[said]

    def _client(self, hops: Sequence[str]) -> tuple[tuple[str, int] | None, int]:
        """Return the right-most hop that is not ours, and how many hops from the right it is."""
        client, depth = None, 0
        for hop in hops[: -MOST_HOPS - 1 : -1]:
            found = _hop(hop)
            if found is None:
                break
            client, depth = found, depth + 1
            if not is_among(found[0], self._networks):
                break
        return client, depth


def networks_of(texts: Iterable[str]) -> Networks:
    """Read networks and addresses; ``*`` is everybody. ConfigurationError for what is none."""
    networks: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = []
    for text in texts:
        try:
            everybody = ("0.0.0.0/0", "::/0") if text == "*" else (text,)
            networks += map(ipaddress.ip_network, everybody)
        except ValueError as error:
            raise ConfigurationError(
                f"a trusted proxy is an address, a network or *: {error}"
            ) from None
    return Networks(networks)


def _listed(value: bytes) -> Iterator[str]:
    return (part.strip(" \t") for part in value.decode("latin-1").split(","))


def _hop(text: str) -> tuple[str, int] | None:
    """Read an address, perhaps with a port: ``1.2.3.4``, ``1.2.3.4:5``, ``::1``, ``[::1]:5``."""
    found = _HOP.fullmatch(text)
    # What has colons and no brackets is IPv6 alone.
    host = (found["bracketed"] or found["plain"]) if found else text
    try:
        address = _unmapped(host)
    except ValueError:
        return None
    if getattr(address, "scope_id", None) is not None:
        return None  # a zone is one of the host that names it, and may hold anything
    return str(address), _port(found["port"] or "") if found else 0


def _port(text: str) -> int:
    if text.isascii() and text.isdecimal() and len(text) <= 5 and int(text) <= 65535:
        return int(text)
    return 0


@lru_cache(1024)
def is_among(host: str, networks: Networks) -> bool:
    """Say whether an address is of one of the networks."""
    try:
        address = _unmapped(host)
    except ValueError:
        return False
    return any(address in network for network in networks)


def _unmapped(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Read an address; a socket for IPv6 that takes IPv4 too has them as ``::ffff:1.2.3.4``."""
    address = ipaddress.ip_address(text)
    return getattr(address, "ipv4_mapped", None) or address
