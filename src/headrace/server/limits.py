"""What clients may do to a server, and what happens when one does more.

Rules of this file:

- Whoever says no says it through ``Refusals``: the reason is counted, the client gets the status
  or the close code that its row has, and the log gets a line, of which there are only so many.
- Time is a number that is passed in; nothing here knows a socket or waits.
- These limits hold for one process. Where several serve one address, each keeps its own account.
"""

import ipaddress
import math
import random
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from ..exceptions import CloseCode, ConfigurationError
from .bounded_log import BoundedLog
from .buckets import Buckets, Places, TokenBucket
from .proxy import Networks

__all__ = [
    "ADDRESS",
    "ADDRESS_HANDSHAKES",
    "BYTES",
    "CONNECTIONS",
    "DESCRIPTORS",
    "FAILURES",
    "HANDSHAKES",
    "IDLE",
    "LOOK_EVERY",
    "MESSAGES",
    "REFUSING",
    "Answer",
    "ClientLimits",
    "Gate",
    "Pace",
    "Refusal",
    "Refusals",
    "address_key",
    "network_list",
]

#: What answers a request: takes the status, a sentence, and headers.
Answer = Callable[[int, str, list[tuple[bytes, bytes]]], object]
#: Whom a limit by address would hit for what others do: proxies, containers, this host.
PRIVATE = (
    "127.0.0.0/8",
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "169.254.0.0/16",
    "::1/128",
    "fc00::/7",
    "fe80::/10",
)
#: Connections that are told at once that they are too many; the next end without a word.
REFUSING = 60
#: How long nobody is let in when descriptors have run short, and how often a look is taken: at
#: one connection in so many, for a look takes as long as a small message.
SHORT_S, LOOK_EVERY = 1.0, 16
#: A client that was refused comes again after a time of its own, up to so much later than others.
SPREAD_S = 5


NO_NETWORKS = Networks()


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientLimits:
    """How many clients, and how much of each; 0 turns a limit off."""

    #: Connections at once; 0, and in any case: no more than there are descriptors for.
    connections: int = 32_768
    #: Connections of one address; of IPv6 the first 64 bits are the address.
    connections_per_address: int = 500
    #: Handshakes of WebSockets a second, of all clients.
    handshakes_per_s: float = 1000.0
    #: And of one address.
    handshakes_per_address_per_s: float = 20.0
    #: Networks whose addresses are not told apart.
    shared_networks: Sequence[str] = PRIVATE
    #: Messages and control frames a second of one WebSocket.
    messages_per_s: float = 1000.0
    #: Bytes a second of one WebSocket, as they are on the wire.
    bytes_per_s: float = 16.0 * 1024 * 1024
    #: What a rate allows at once: as much as comes in so many seconds.
    burst_s: float = 10.0
    #: A WebSocket that is held back for so long without a break is closed; 0: it never is.
    patience_s: float = 60.0
    #: Silence of a WebSocket's client, pings and pongs aside; then it is closed.
    idle_s: float = 0.0
    networks: Networks = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in (
            "connections",
            "connections_per_address",
            "handshakes_per_s",
            "handshakes_per_address_per_s",
            "messages_per_s",
            "bytes_per_s",
            "patience_s",
            "idle_s",
        ):
            if not getattr(self, name) >= 0:
                raise ConfigurationError(f"{name} must be 0 (off) or more")
        if not self.burst_s > 0:
            raise ConfigurationError(f"burst_s must be more than 0, not {self.burst_s}")
        object.__setattr__(self, "networks", network_list(self.shared_networks))


def network_list(texts: Sequence[str]) -> Networks:
    """Read networks and addresses; ConfigurationError for what is none."""
    try:
        return Networks(map(ipaddress.ip_network, texts))
    except ValueError as error:
        raise ConfigurationError(f"an entry must be an address or a network: {error}") from None


@lru_cache(4096)
def address_key(host: str, shared: Networks = NO_NETWORKS) -> Hashable:
    """Return what the limits by address take for one client; None: it has no limit of its own.

    An address of IPv4 is one; of IPv6 it is the /64 that a single customer is given.
    """
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None  # the path of a Unix socket, or what a proxy did not know
    if isinstance(address, ipaddress.IPv6Address):
        # A socket that takes both has addresses of IPv4 as ::ffff:1.2.3.4.
        address = address.ipv4_mapped or address
    if any(address in network for network in shared):
        return None
    return str(address) if address.version == 4 else int(address) >> 64


# Telling


@dataclass(frozen=True, slots=True)
class Refusal:
    """A reason to say no."""

    #: The value of the counter's label.
    reason: str
    #: What the client is told.
    says: str
    #: The setting that moves the limit, for the log; empty: there is none.
    setting: str = ""
    #: The answer to a request.
    status: int = 503
    #: How a WebSocket is closed that is open.
    code: int = CloseCode.POLICY_VIOLATION


class Refusals:
    """The one way to say no: counts, answers, and tells the log.

    Args:
        count: Takes the reason of each refusal.
        log: Where the lines go.
    """

    __slots__ = ("_log", "count")

    def __init__(self, count: Callable[[str], object], log: BoundedLog) -> None:
        #: Counts alone, where the log has its line already.
        self.count = count
        self._log = log

    def request(
        self,
        refusal: Refusal,
        peer: str,
        answer: Answer,
        *,
        wait_s: float = 0.0,
    ) -> None:
        """Answer a request with the status, and the seconds after which to come again."""
        self.note(refusal, peer)
        again_s = math.ceil(wait_s) + random.randint(1, SPREAD_S)  # noqa: S311 - not a secret
        answer(refusal.status, refusal.says, [(b"retry-after", b"%d" % again_s)])

    def close(self, refusal: Refusal, peer: str, answer: Callable[[int, str], object]) -> None:
        """Close a WebSocket with the code, or a connection of HTTP/2 with its own."""
        self.note(refusal, peer)
        answer(refusal.code, refusal.says)

    def note(self, refusal: Refusal, peer: str, says: str = "") -> None:
        """Count and log what was answered already, or what gets no answer."""
        reason = refusal.reason
        self.count(reason)
        hint = f" (see {refusal.setting})" if refusal.setting else ""
        self._log(reason, "%s: refused, %s: %s%s", peer, reason, says or refusal.says, hint)


CONNECTIONS: Final = Refusal(
    "connections", "the server has as many connections as it may: come again", "--max-connections"
)
ADDRESS: Final = Refusal(
    "connections_per_address",
    "too many connections come from this address: close some",
    "--max-connections-per-address",
    status=429,
)
DESCRIPTORS: Final = Refusal(
    "descriptors", "the server is out of file descriptors: come again", "ulimit -n"
)
HANDSHAKES: Final = Refusal(
    "handshakes", "too many WebSockets are being opened: come again", "--handshakes-per-second"
)
ADDRESS_HANDSHAKES: Final = Refusal(
    "handshakes_per_address",
    "this address opens too many WebSockets: open fewer a second",
    "--handshakes-per-second-per-address",
    status=429,
)
MESSAGES: Final = Refusal(
    "message_rate", "too many messages a second: send fewer", "--messages-per-second"
)
BYTES: Final = Refusal("byte_rate", "too many bytes a second: send fewer", "--bytes-per-second")
IDLE: Final = Refusal(
    "idle", "nothing was sent for too long", "--websocket-idle-timeout", code=CloseCode.TIMEOUT
)

#: Why a WebSocket failed, by the code that it is closed with: what the engine says no to.
FAILURES: Final[dict[int, str]] = {
    CloseCode.PROTOCOL_ERROR: "protocol_error",
    CloseCode.INVALID_PAYLOAD: "invalid_payload",
    CloseCode.POLICY_VIOLATION: "slow_message",
    CloseCode.MESSAGE_TOO_BIG: "message_too_big",
    CloseCode.INTERNAL_ERROR: "ping_timeout",
}


class Pace:
    """How fast a WebSocket's client may send: a token bucket, taken apart.

    Its state is one number of the connection, the time at which its bucket is full again; what
    a read costs is added to that, in seconds, and ``burst_s`` of them may be owed.
    """

    __slots__ = ("burst_s", "byte_s", "idle_s", "message_s", "patience_s")

    def __init__(self, limits: ClientLimits) -> None:
        #: What a message costs, and what a byte does: the dearer of the two is charged.
        self.message_s = 1 / limits.messages_per_s if limits.messages_per_s else 0.0
        self.byte_s = 1 / limits.bytes_per_s if limits.bytes_per_s else 0.0
        self.burst_s = max(limits.burst_s, self.message_s, self.byte_s)
        self.patience_s = limits.patience_s or math.inf
        self.idle_s = limits.idle_s

    @classmethod
    def of(cls, limits: ClientLimits) -> "Pace | None":
        """Return what these limits ask for; None: nothing."""
        asked = limits.messages_per_s or limits.bytes_per_s or limits.idle_s
        return cls(limits) if asked else None


# Letting in


class Gate:
    """Lets connections and handshakes in, or says what keeps them out.

    Args:
        limits: The settings.
        descriptors: How many file descriptors the process may have.
    """

    __slots__ = (
        "_handshakes",
        "_last_descriptor",
        "_of_address",
        "_places",
        "_shared",
        "_short_until",
        "most",
        "most_refusing",
        "refusing",
    )

    def __init__(self, limits: ClientLimits, descriptors: int) -> None:
        if descriptors < 0:  # as many as the system has
            descriptors = 1 << 20
        # What is left is for the refusals, for the application, and for what it opens.
        kept = max(descriptors // 10, min(descriptors // 2, 200))
        most = max(1, descriptors - kept)
        #: Connections at once.
        self.most = min(limits.connections or most, most)
        #: Refused connections that are being told so, and how many may be.
        self.refusing = 0
        self.most_refusing = min(REFUSING, kept // 4)
        #: A descriptor of this number, the lowest that was free, is one of the last.
        self._last_descriptor = descriptors - min(descriptors // 8, 32)
        self._short_until = -math.inf
        self._shared = limits.networks
        each, burst_s = limits.connections_per_address, limits.burst_s
        self._places = Places(each) if each else None
        rate = limits.handshakes_per_s
        self._handshakes = TokenBucket(rate, burst_s) if rate else None
        rate = limits.handshakes_per_address_per_s
        self._of_address = Buckets(rate, burst_s) if rate else None

    def connect(self, connections: int, now: float) -> Refusal | None:
        """Let one more connection in beside those that there are; or return why not."""
        if now < self._short_until:
            return DESCRIPTORS
        return CONNECTIONS if connections - self.refusing >= self.most else None

    def look(self, descriptor: int, now: float) -> None:
        """See by the number of a new descriptor whether the process runs out of them.

        Then nobody is let in for a while: an accept that fails can't even refuse.
        """
        if descriptor >= self._last_descriptor:
            self._short_until = now + SHORT_S

    def enter(self, host: str) -> tuple[Hashable, Refusal | None]:
        """Take a place for one more connection, or request, of this address.

        Returns what ``leave`` takes in the end, None where there is no limit; or the refusal.
        """
        if self._places is None or (key := address_key(host, self._shared)) is None:
            return None, None
        return (key, None) if self._places.enter(key) else (None, ADDRESS)

    def leave(self, key: Hashable) -> None:
        """Give the place back."""
        if self._places is not None and key is not None:
            self._places.leave(key)

    def handshake(self, host: str | None, now: float) -> tuple[Refusal, float] | None:
        """Let a WebSocket's handshake in; or return why not, and for how many seconds."""
        if self._of_address is not None and host is not None:
            key = address_key(host, self._shared)
            if key is not None and (wait_s := self._of_address.take(key, now)):
                return ADDRESS_HANDSHAKES, wait_s
        if self._handshakes is not None and (wait_s := self._handshakes.take(now)):
            return HANDSHAKES, wait_s
        return None
