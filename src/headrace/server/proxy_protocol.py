"""Whose word is believed about where a connection comes from: the PROXY protocol.

Rules of this file:

- A place that speaks it takes connections from proxies of ours alone, and each begins with a
  header. Nobody else could be told from somebody who writes one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from .endpoint import Address
from .proxy import LOOPBACK, Networks, is_among, networks_of

__all__ = ["ProxyProtocol"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyProtocol:
    """Who may send a PROXY header, beside this host and who comes by a Unix socket.

    Raises ConfigurationError for what is no network.
    """

    #: Networks of our proxies: ``10.0.0.0/8``, an address, or ``*``: everybody.
    trusted: Sequence[str] = ()
    #: How long a connection may take to say its header.
    timeout_s: float = 5.0
    _networks: Networks = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_networks", networks_of((*LOOPBACK, *self.trusted)))

    def believes(self, peer: Address | None) -> bool:
        """Say whether the other end of a connection is a proxy of ours."""
        return peer is None or peer[1] is None or is_among(peer[0], self._networks)
