"""What a server counts: plain numbers on the hot paths, and what they are called in a snapshot.

Rules of this file:

- Who counts adds to an attribute; nothing here is called for a message or for a write.
- All of it belongs to the thread of the server's loop.
"""

from http import HTTPStatus
from typing import ClassVar

from ..instruments import Family, Histogram, Reading

__all__ = ["Counters", "reason_of"]

#: Upper bounds for the time that a response takes.
RESPONSE_SECONDS = (0.005, 0.025, 0.1, 0.5, 2.5, 10.0)


class Counters:
    """What happened since the server started."""

    __slots__ = (
        "accepted",
        "application_errors",
        "bytes_received",
        "bytes_sent",
        "closes",
        "connections",
        "drops",
        "durations",
        "messages_received",
        "messages_sent",
        "open",
        "refusals",
        "requests",
        "slow_clients",
        "statuses",
        "tls_connections",
        "websockets",
    )

    _HELP: ClassVar = {
        "connections": "Connections that were accepted.",
        "tls_connections": "Connections over TLS among them.",
        "requests": "HTTP requests.",
        "websockets": "WebSocket handshakes that reached the application.",
        "accepted": "WebSockets that the application accepted.",
        "application_errors": "Failures of the application: it raised, or gave no answer.",
        "slow_clients": "WebSockets closed because their client read too slowly.",
        "messages_received": "WebSocket messages from clients.",
        "messages_sent": "WebSocket messages to clients.",
        "bytes_received": "Bytes from clients.",
        "bytes_sent": "Bytes to clients.",
    }

    def __init__(self) -> None:
        #: Transport connections; the WebSockets among them count as ``websockets``, too.
        self.connections = 0
        self.tls_connections = 0
        self.requests = 0
        self.websockets = 0
        #: Handshakes that the application accepted.
        self.accepted = 0
        self.application_errors = 0
        self.slow_clients = 0
        self.messages_received = 0
        self.bytes_received = 0
        self.messages_sent = 0
        self.bytes_sent = 0
        #: Requests, handshakes and connections that were refused, by reason; see ``refuse``.
        self.refusals = Family(("reason",))
        #: Messages for slow clients that were dropped, by policy.
        self.drops = Family(("policy",))
        #: Closed WebSockets, by the close code that the application heard.
        self.closes = Family(("code",))
        #: Responses by the first digit of their status; a client that left before has the fifth's
        #: 499.
        self.statuses = [0] * 10
        self.durations = Histogram(RESPONSE_SECONDS)
        #: Connections that are open, by protocol.
        self.open: dict[str, int] = {}

    def refuse(self, reason: str) -> None:
        """Count something that was refused; reasons are few, and words."""
        self.refusals[reason].value += 1

    def drop(self, policy: str, messages: int) -> None:
        """Count messages that were dropped."""
        self.drops[policy].value += messages

    @property
    def refused(self) -> int:
        """How much was refused in all."""
        return int(self.refusals.value)

    @property
    def dropped_messages(self) -> int:
        """How many messages were dropped because their client read too slowly."""
        return int(self.drops.value)

    def read(self, into: Reading) -> None:
        """Add all of it to a reading."""
        for name, text in self._HELP.items():
            into.counter(f"headrace_{name}_total", text, getattr(self, name))
        families = (
            (self.refusals, "reason", "headrace_refusals_total", "What was refused, by reason."),
            (
                self.drops,
                "policy",
                "headrace_dropped_messages_total",
                "Messages dropped because their client read too slowly.",
            ),
            (
                self.closes,
                "code",
                "headrace_websocket_closes_total",
                "Closed WebSockets, by close code.",
            ),
        )
        for family, label, name, text in families:
            into.help[name] = text
            into.counters.setdefault(name, {})
            for value, cell in list(family.items()):
                into.counter(name, text, cell.value, **{label: str(value)})
        for digit, count in enumerate(self.statuses):
            if count or 2 <= digit <= 5:
                into.counter(
                    "headrace_responses_total",
                    "HTTP responses, by class of status.",
                    count,
                    status=f"{digit}xx",
                )
        into.histogram(
            "headrace_response_seconds",
            "From the head of a request to the end of its response.",
            self.durations,
        )
        for protocol, count in list(self.open.items()):
            into.gauge(
                "headrace_connections_open",
                "Connections that are open.",
                count,
                protocol=protocol,
            )


#: RFC 9110 has renamed them, and Python its phrases in 3.13: a label has one name.
_REASONS = {413: "content_too_large", 414: "uri_too_long", 422: "unprocessable_content"}


def reason_of(status: int) -> str:
    """Return the word for a refusal that is known by its status: ``content_too_large``."""
    if (word := _REASONS.get(status)) is not None:
        return word
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        return f"status_{status}"
    return "_".join(phrase.lower().replace("-", " ").split())
