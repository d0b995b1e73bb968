"""The server's settings: every default in one place, and what a value must be.

Sizes are bytes and times are seconds; the name says which.
"""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from typing import Literal, Protocol

from ..exceptions import ConfigurationError
from ..protocols._http2_limits import Http2Limits
from ..protocols.deflate import DeflateFactory
from ..protocols.extensions import ExtensionFactory
from ..protocols.http1 import Http1Limits, RequestReceived
from ..protocols.websocket import Limits
from .endpoint import Endpoint
from .limits import ClientLimits
from .outbox import SlowClientPolicy
from .proxy import ProxyHeaders
from .proxy_protocol import ProxyProtocol
from .tls import Tls

__all__ = ["Config", "Http2Mode", "Lifespan", "Watcher", "Workers"]

#: The shortest time after which a worker may be taken to hang.
LEAST_TIMEOUT_S = 3.0


class Lifespan(StrEnum):
    """Whether the application is told of start and stop (ASGI lifespan)."""

    #: Ask, and go on without when the application does not support it.
    AUTO = "auto"
    #: The server does not start when the application does not support it.
    ON = "on"
    OFF = "off"


class Http2Mode(StrEnum):
    """Whether HTTP/2 is spoken; it takes the package h2."""

    #: Where the package is installed.
    AUTO = "auto"
    #: The server does not start without it.
    ON = "on"
    OFF = "off"


class Watcher(Protocol):
    """Is told of each request and each WebSocket, for a log of its own form.

    It is called on the event loop, and returns at once. ``key`` is hashable, and the same for
    all that is told of one WebSocket. ``peer`` is the client, as the server's log names it.
    """

    def request(
        self, peer: str, request: RequestReceived, status: int, duration_s: float | None, /
    ) -> None:
        """A response is complete, or its client is gone (499)."""
        ...

    def websocket_opening(self, key: object, peer: str, request: RequestReceived, /) -> None:
        """A client asks for a WebSocket: the application is called."""
        ...

    def websocket_accepted(self, key: object, /) -> None:
        """It is open."""
        ...

    def websocket_refused(self, key: object, status: int, /) -> None:
        """It is not; the last that is told of it."""
        ...

    def websocket_closed(self, key: object, code: int, /) -> None:
        """It is over, with the close code that the application hears; told last, and once."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Workers:
    """The processes that serve, and when one of them is replaced; for ``headrace serve``.

    A worker that is to be replaced goes on until its successor serves. Each has ages of its own,
    up to a tenth from those that are set, so that they don't leave together.
    """

    #: How many; "auto": as many as there are processors for us. 0: this process, and nobody else.
    count: int | Literal["auto"] = 0
    #: Seconds after which one is replaced; 0: never.
    max_age_s: float = 0.0
    #: Requests, WebSockets' handshakes among them, after which one is; 0: never.
    max_requests: int = 0
    #: Resident memory beyond which one is; 0: never.
    max_memory_bytes: int = 0
    #: A worker that is not heard of for so long hangs, and is ended; 0: never.
    timeout_s: float = 30.0
    #: A worker that does not serve after so long can't start; 0: it has all the time.
    start_timeout_s: float = 120.0

    def __post_init__(self) -> None:
        for name in ("max_age_s", "max_requests", "max_memory_bytes", "start_timeout_s"):
            if getattr(self, name) < 0:
                raise ConfigurationError(f"workers.{name} must be 0 (off) or more")
        if self.timeout_s and self.timeout_s < LEAST_TIMEOUT_S:
            raise ConfigurationError(
                f"workers.timeout_s must be 0 (off), or {LEAST_TIMEOUT_S:g} or more: a worker is "
                f"heard of every second, not {self.timeout_s:g}"
            )
        if self.count != "auto" and self.count < 0:
            raise ConfigurationError(f"workers.count must be 0 or more, or auto, not {self.count}")

    @property
    def supervised(self) -> bool:
        """Whether there is a supervisor: somebody wants workers, or one that is replaced."""
        return bool(self.count or self.max_age_s or self.max_requests or self.max_memory_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Settings of one server.

    It listens on ``fd``, else on ``uds``, else on ``host`` and ``port``; and on ``also``.
    """

    host: str = "127.0.0.1"
    #: 0 lets the system choose a free one; the log says which.
    port: int = 8000
    #: The path of a Unix socket.
    uds: str | None = None
    #: The rights of its file, as 0o660; None: those that the umask leaves.
    uds_mode: int | None = None
    #: A listening socket that was inherited.
    fd: int | None = None
    #: More places to listen.
    also: Sequence[Endpoint] = ()
    #: What to speak TLS with there; places of ``also`` have their own.
    tls: Tls | None = None
    #: Whether HTTP/2 is spoken: offered in TLS, and understood where a client begins with it.
    http2: Http2Mode = Http2Mode.AUTO
    http2_limits: Http2Limits = field(default_factory=Http2Limits)
    backlog: int = 2048

    #: Whether connections there begin with a PROXY header; places of ``also`` say so themselves.
    proxied: bool = False
    #: Who may send one.
    proxy_protocol: ProxyProtocol = field(default_factory=ProxyProtocol)
    #: Which headers say where a request came from; None: none does.
    proxy_headers: ProxyHeaders | None = None

    root_path: str = ""
    lifespan: Lifespan = Lifespan.AUTO
    access_log: bool = True
    watcher: Watcher | None = None
    #: The ``Server`` header; empty: none.
    server_header: str = "headrace"

    http: Http1Limits = field(default_factory=Http1Limits)
    websocket: Limits = field(default_factory=Limits)
    #: How many clients, and how much of each.
    clients: ClientLimits = field(default_factory=ClientLimits)
    #: A message of a WebSocket that began so long ago and has not ended ends it; 0: it may take
    #: for ever.
    message_timeout_s: float = 120.0
    #: A client that takes nothing of a response for so long is cut off.
    write_timeout_s: float = 60.0
    #: The longest that a response may take once the request is there; 0: as long as it takes.
    http_timeout_s: float = 0.0
    #: How long the application may take to accept or refuse a WebSocket; 0: as long as it takes.
    accept_timeout_s: float = 10.0
    #: The longest that a WebSocket may live; 0: as long as it lives.
    websocket_timeout_s: float = 0.0
    #: How long the application may take to end once its client is gone; 0: as long as it takes.
    application_close_timeout_s: float = 10.0
    #: After so long without a message a ping asks whether the client is there; 0: never.
    ping_interval_s: float = 20.0
    #: A ping that has no answer after so long ends the connection; 0: it never does.
    ping_timeout_s: float = 30.0
    #: How long the client may take to answer our close frame.
    close_timeout_s: float = 10.0
    #: Extensions that a client may use, in the order of our preference.
    extensions: Sequence[ExtensionFactory] = field(default_factory=lambda: (DeflateFactory(),))

    #: Bytes of messages that may wait for one slow client.
    outbox_limit_bytes: int = 1024 * 1024
    slow_client: SlowClientPolicy = SlowClientPolicy.CLOSE
    #: Messages of one client that wait for the application before reading pauses.
    inbox_limit: int = 32

    #: The port for metrics and health checks; 0: any free one, None: there is none.
    metrics_port: int | None = None
    metrics_bind: str = "127.0.0.1"
    metrics_path: str = "/metrics"
    #: Where the public port says whether the server is ready, as ``/healthz``; empty: nowhere.
    health_path: str = ""

    workers: Workers = field(default_factory=Workers)
    #: Where the server answers who asks what it does, as ``headrace top``; None: at a path of its
    #: own in a private folder. For ``headrace serve``.
    control_socket: str | None = None

    #: How long a stop waits for requests, WebSockets and the application.
    shutdown_timeout_s: float = 30.0
    #: WebSockets that a patient stop closes in a second, so that their clients don't all come again
    #: in one instant; 0: all at once. More of them, where it would take too long otherwise.
    close_rate: float = 500.0
    #: How long a patient stop lets connections wait for a request that may be on its way.
    idle_grace_s: float = 1.0

    def __post_init__(self) -> None:
        for name, choices in (
            ("lifespan", Lifespan),
            ("slow_client", SlowClientPolicy),
            ("http2", Http2Mode),
        ):
            try:
                object.__setattr__(self, name, choices(getattr(self, name)))
            except ValueError:
                listed = ", ".join(choices)
                raise ConfigurationError(
                    f"{name} must be one of {listed}, not {getattr(self, name)!r}"
                ) from None
        if self.http2 is Http2Mode.ON and not self.speaks_http2:
            raise ConfigurationError(
                "http2 is on, and the package h2 is not installed: pip install 'headrace[http2]'"
            )
        self.endpoints()
        for name in ("backlog", "outbox_limit_bytes", "inbox_limit"):
            if getattr(self, name) < 1:
                raise ConfigurationError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in (
            "write_timeout_s",
            "close_timeout_s",
            "shutdown_timeout_s",
        ):
            if getattr(self, name) <= 0:
                raise ConfigurationError(f"{name} must be more than 0, not {getattr(self, name)}")
        for name in (
            "http_timeout_s",
            "accept_timeout_s",
            "message_timeout_s",
            "websocket_timeout_s",
            "application_close_timeout_s",
            "ping_interval_s",
            "ping_timeout_s",
            "close_rate",
            "idle_grace_s",
        ):
            if getattr(self, name) < 0:
                raise ConfigurationError(f"{name} must be 0 (off) or more")
        for name in ("metrics_path", "health_path"):
            path = getattr(self, name)
            if not (path.startswith("/") or (name == "health_path" and not path)):
                raise ConfigurationError(f"{name} must begin with '/', not {path!r}")
        if self.root_path and (self.root_path[0] != "/" or self.root_path[-1] == "/"):
            raise ConfigurationError(
                f"root_path must begin with '/' and not end with it, not {self.root_path!r}"
            )
        if not (self.server_header.isascii() and self.server_header.isprintable()):
            raise ConfigurationError(
                f"server_header must be printable ASCII, not {self.server_header!r}"
            )

    @property
    def speaks_http2(self) -> bool:
        """Whether HTTP/2 is spoken."""
        return self.http2 is not Http2Mode.OFF and _has_h2()

    def endpoints(self) -> list[Endpoint]:
        """Return every place to listen."""
        first = Endpoint(
            host=self.host,
            port=self.port,
            uds=self.uds,
            uds_mode=self.uds_mode,
            fd=self.fd,
            tls=self.tls,
            proxy_protocol=self.proxied,
        )
        return [first, *self.also]


@cache
def _has_h2() -> bool:
    return importlib.util.find_spec("h2") is not None
