"""The settings of ``headrace serve``: one table for flags, environment and ``[tool.headrace]``.

Rules of this file:

- A setting is one row of ``OPTIONS``. ``max-body-bytes`` is the flag ``--max-body-bytes``, the
  variable ``HEADRACE_MAX_BODY_BYTES`` and the key ``max-body-bytes`` of the table, and its default
  is that of the field of ``Config`` it goes to.
- Nothing is done here: ``option`` says what a row may be, ``settings`` reads what was written.

A new setting takes one row. With ``to=`` it arrives in ``Config`` by itself, where the field is
checked (``to="http.head_s"`` is a field of a field); without, whoever wants it asks
``settings["name"]`` in server/cli.py, and ``default=`` says what it is when nobody wrote it.
A variable of the environment that begins with ``HEADRACE_`` and is no setting of the server
belongs into ``OTHER_VARIABLES``.
"""

from collections.abc import Mapping, Sequence

from .config import Http2Mode, Lifespan
from .logs import LogFormat
from .option import (
    COUNT,
    LIMIT,
    LIST,
    LOG,
    MODE,
    NUMBER,
    PROCESSES,
    RATE,
    TEXT,
    TIME,
    TRUTH,
    Option,
    choice,
)
from .outbox import SlowClientPolicy
from .tls import ClientCertificates, Tls, TlsVersion
from .wsgi import DEFAULT_THREADS

__all__ = ["OPTIONS", "OTHER_VARIABLES", "TLS"]

#: Variables that are no settings of the server, and mean something elsewhere.
OTHER_VARIABLES = {
    "HEADRACE_CONTROL",
    "HEADRACE_DEFAULT_LAYER",
    "HEADRACE_PURE",
    "HEADRACE_WORKER",
}

_TLS = Tls(certificate="")

APPLICATION = "the application"
WORKERS = "workers (seconds and bytes)"
DEVELOPMENT = "development"
LISTEN = "where to listen: at each place that is named"
TLS = "TLS: at --port, --uds and --fd; an --endpoint has its own (ssl:)"
LOGS = "the log"
PROXY = "behind a proxy"
OBSERVING = "metrics and health"
LIMITS = "limits (bytes and seconds)"
HTTP2 = (
    "HTTP/2: limits of one connection; those of frames are so many at once, and a tenth a second"
)

#: Every setting, by its group in the help.
OPTIONS: Mapping[str, Sequence[Option]] = {
    APPLICATION: (
        Option(
            "application",
            TEXT,
            "the ASGI or WSGI application, as mysite.asgi:application",
            metavar="MODULE:APP",
        ),
        Option("app-dir", TEXT, "the folder to import from", default=".", metavar="FOLDER"),
        Option(
            "interface",
            choice(("auto", "asgi", "asgi2", "wsgi")),
            "how it is called; auto: as its signature says",
            default="auto",
        ),
        Option(
            "websockets",
            TEXT,
            "the ASGI application that takes the WebSockets of a WSGI application",
            metavar="MODULE:APP",
        ),
        Option(
            "wsgi-threads",
            COUNT,
            "requests that a WSGI application works on at once",
            default=DEFAULT_THREADS,
        ),
        Option("root-path", TEXT, "the path it is mounted under", "root_path", metavar="PATH"),
        Option("lifespan", choice(Lifespan), "whether it hears of start and stop", "lifespan"),
        Option(
            "server-name",
            TEXT,
            "the Server header; '' leaves it out",
            "server_header",
            flags=("-s",),
            metavar="NAME",
            without="",
        ),
        Option(
            "shutdown-timeout",
            TIME,
            "seconds that a stop waits for what is under way",
            "shutdown_timeout_s",
        ),
        Option(
            "close-rate",
            RATE,
            "WebSockets that a stop closes in a second; 0: all at once",
            "close_rate",
        ),
        Option(
            "idle-grace",
            TIME,
            "seconds that a stop lets connections wait for a request that may be on its way",
            "idle_grace_s",
        ),
    ),
    WORKERS: (
        Option(
            "workers",
            PROCESSES,
            "processes that serve; auto: one for each processor; default: this one alone",
            "workers.count",
        ),
        Option(
            "worker-timeout",
            TIME,
            "that a worker may hang before it is ended; 0: for ever",
            "workers.timeout_s",
        ),
        Option(
            "worker-start-timeout",
            TIME,
            "for a worker to start; 0: no end",
            "workers.start_timeout_s",
        ),
        Option(
            "worker-max-age",
            TIME,
            "after which a worker is replaced; 0: never",
            "workers.max_age_s",
        ),
        Option(
            "worker-max-requests",
            LIMIT,
            "after which a worker is replaced; 0: never",
            "workers.max_requests",
        ),
        Option(
            "worker-max-memory-bytes",
            LIMIT,
            "of memory beyond which a worker is replaced; 0: never",
            "workers.max_memory_bytes",
        ),
        Option(
            "control-socket",
            TEXT,
            "where the server answers `headrace top`; default: in a private folder",
            "control_socket",
            metavar="PATH",
        ),
    ),
    DEVELOPMENT: (
        Option("reload", TRUTH, "start anew when a file changes", default=False),
        Option(
            "reload-dir",
            TEXT,
            "a folder to watch; repeatable; default: --app-dir",
            default=(),
            metavar="FOLDER",
            repeatable=True,
        ),
        Option(
            "reload-include",
            TEXT,
            "files to watch, beside *.py, as *.html; repeatable",
            default=(),
            metavar="PATTERN",
            repeatable=True,
        ),
        Option(
            "reload-exclude",
            TEXT,
            "files and folders to leave out, as generated/*; repeatable",
            default=(),
            metavar="PATTERN",
            repeatable=True,
        ),
    ),
    LISTEN: (
        Option("bind", TEXT, "an address of this host", "host", flags=("-b",), metavar="ADDRESS"),
        Option("port", NUMBER, "0: any free one", "port", flags=("-p",)),
        Option("uds", TEXT, "a Unix socket", "uds", flags=("--unix-socket", "-u"), metavar="PATH"),
        Option(
            "uds-mode",
            MODE,
            "the rights of its file, as 660; default: those that the umask leaves",
            "uds_mode",
        ),
        Option("fd", NUMBER, "an inherited listening socket", "fd"),
        Option(
            "endpoint",
            TEXT,
            "one more, in Twisted's words: tcp:, unix:, fd: or systemd:; repeatable",
            default=(),
            flags=("-e",),
            metavar="STRING",
            repeatable=True,
        ),
        Option("backlog", COUNT, "connections that may wait to be accepted", "backlog"),
    ),
    TLS: (
        Option(
            "tls-certificate",
            TEXT,
            "in PEM form, and after it those that lead to the root",
            flags=("--ssl-certfile",),
            metavar="FILE",
        ),
        Option(
            "tls-key",
            TEXT,
            "the certificate's; default: it is in the same file",
            flags=("--ssl-keyfile",),
            metavar="FILE",
        ),
        Option(
            "tls-password",
            TEXT,
            "of the key; others see a flag: better a variable, or --tls-password-file",
            flags=("--ssl-keyfile-password",),
            secret=True,
        ),
        Option("tls-password-file", TEXT, "the file with the key's password", metavar="FILE"),
        Option(
            "tls-client-certificates",
            choice(ClientCertificates, dict(zip("012", ClientCertificates, strict=True))),
            "whether clients show one of their own, signed by --tls-client-ca",
            default=_TLS.client_certificates,
            flags=("--ssl-cert-reqs",),
        ),
        Option(
            "tls-client-ca",
            TEXT,
            "who signs the certificates of clients",
            flags=("--ssl-ca-certs",),
            metavar="FILE",
        ),
        Option(
            "tls-minimum-version",
            choice(TlsVersion),
            "the oldest that is spoken",
            default=_TLS.minimum_version,
        ),
        Option(
            "tls-ciphers",
            TEXT,
            "for TLS 1.2, in OpenSSL's words; default: those that Python thinks good",
            flags=("--ssl-ciphers",),
            metavar="LIST",
        ),
        Option(
            "tls-handshake-timeout",
            TIME,
            "from the connection to the end of the handshake",
            default=_TLS.handshake_timeout_s,
        ),
    ),
    LOGS: (
        Option(
            "log-level",
            choice(("debug", "info", "warning", "error")),
            "default: what --verbosity says",
        ),
        Option(
            "verbosity",
            choice(range(4)),
            "0: warnings, 1: information, 2: all, 3: and the event loop in its debug mode",
            default=1,
            flags=("-v",),
        ),
        Option(
            "log-format",
            choice(LogFormat),
            "json: one object a line, of the application's records, too",
            default=LogFormat.TEXT,
        ),
        Option(
            "log-fmt",
            TEXT,
            "of text: a format of Python's logging, with %(connection)s and %(worker)s",
            default="%(asctime)s %(levelname)s %(name)s %(message)s",
            metavar="FORMAT",
        ),
        Option(
            "access-log",
            LOG,
            "a line for each request, here, on the standard output (-) or in a file; "
            "default: in the log",
            default=True,
            alone="",
            without=False,
        ),
    ),
    OBSERVING: (
        Option(
            "metrics-port",
            NUMBER,
            "a port of its own for Prometheus and health checks; 0: any free one; default: none",
            "metrics_port",
        ),
        Option(
            "metrics-bind",
            TEXT,
            "the address of that port",
            "metrics_bind",
            metavar="ADDRESS",
        ),
        Option("metrics-path", TEXT, "where metrics are there", "metrics_path", metavar="PATH"),
        Option(
            "otel",
            TRUTH,
            "make OpenTelemetry's spans; the variables OTEL_* say where they go",
            default=False,
        ),
        Option(
            "otel-events",
            TRUTH,
            "let channel-layer events carry the trace to their handlers",
            default=False,
        ),
        Option(
            "health-path",
            TEXT,
            "where the public port says whether the server is ready; default: nowhere",
            "health_path",
            metavar="PATH",
        ),
    ),
    PROXY: (
        Option(
            "proxy-headers",
            TRUTH,
            "believe our proxies where a request came from: X-Forwarded-For, -Port and -Proto",
            default=False,
        ),
        Option(
            "proxy-protocol",
            TRUTH,
            "each connection at --port, --uds and --fd begins with the header of HAProxy's PROXY "
            "protocol, version 1 or 2, and comes from a proxy of ours",
            "proxied",
        ),
        Option(
            "trusted-proxies",
            LIST,
            "our proxies, beside this host and who comes by the Unix socket; *: everybody",
            metavar="NETWORK,...",
        ),
        Option(
            "proxy-headers-host",
            TEXT,
            "the header with the client's address; default: X-Forwarded-For",
            metavar="HEADER",
        ),
        Option(
            "proxy-headers-port",
            TEXT,
            "the header with the client's port; default: X-Forwarded-Port",
            metavar="HEADER",
        ),
    ),
    HTTP2: (
        Option(
            "http2",
            choice(Http2Mode),
            "whether it is spoken; auto: where the package h2 is installed",
            "http2",
        ),
        Option("http2-streams", COUNT, "requests and WebSockets at once", "http2_limits.streams"),
        Option(
            "http2-stream-window-bytes",
            COUNT,
            "of one body that may be on their way",
            "http2_limits.stream_window_bytes",
        ),
        Option(
            "http2-connection-window-bytes",
            COUNT,
            "of all bodies that may be on their way",
            "http2_limits.connection_window_bytes",
        ),
        Option(
            "http2-header-table-bytes",
            NUMBER,
            "that the client's compression of headers may keep here",
            "http2_limits.header_table_bytes",
        ),
        Option(
            "http2-continuations",
            COUNT,
            "frames that the headers of a request may be spread over",
            "http2_limits.continuations",
        ),
        Option(
            "http2-resets",
            COUNT,
            "streams that the client resets, or its mistakes make us reset or refuse",
            "http2_limits.resets",
        ),
        Option("http2-settings-frames", COUNT, "SETTINGS frames", "http2_limits.settings_frames"),
        Option("http2-pings", COUNT, "PING frames", "http2_limits.pings"),
        Option(
            "http2-priorities",
            COUNT,
            "PRIORITY frames, and those of unknown types",
            "http2_limits.priorities",
        ),
        Option(
            "http2-window-updates",
            COUNT,
            "WINDOW_UPDATE frames beyond two for each frame of data that was sent",
            "http2_limits.window_updates",
        ),
        Option(
            "http2-empty-frames", COUNT, "DATA frames with nothing", "http2_limits.empty_frames"
        ),
    ),
    LIMITS: (
        Option(
            "max-connections", LIMIT, "at once; 0: what descriptors allow", "clients.connections"
        ),
        Option(
            "max-connections-per-address",
            LIMIT,
            "of one address, an IPv6 /64 being one; 0: no limit",
            "clients.connections_per_address",
        ),
        Option(
            "shared-networks",
            LIST,
            "networks whose addresses are many clients each; no limit by address holds for them; "
            "default: the private ones",
            "clients.shared_networks",
            metavar="NETWORK,...",
        ),
        Option(
            "handshakes-per-second",
            RATE,
            "of WebSockets, of all clients; 0: no limit",
            "clients.handshakes_per_s",
        ),
        Option(
            "handshakes-per-second-per-address",
            RATE,
            "0: no limit",
            "clients.handshakes_per_address_per_s",
        ),
        Option(
            "messages-per-second",
            RATE,
            "of one WebSocket, its pings and pongs among them; 0: no limit",
            "clients.messages_per_s",
        ),
        Option(
            "bytes-per-second",
            RATE,
            "of one WebSocket, as they are on the wire; 0: no limit",
            "clients.bytes_per_s",
        ),
        Option(
            "rate-burst",
            TIME,
            "what a rate allows at once is as much as comes in so many seconds",
            "clients.burst_s",
        ),
        Option(
            "rate-patience",
            TIME,
            "that a WebSocket may send faster without a break, and is read slowly; 0: no end",
            "clients.patience_s",
        ),
        Option("max-body-bytes", LIMIT, "of a request; 0: no limit", "http.body_bytes"),
        Option("max-target-bytes", COUNT, "of the request line", "http.request_line_bytes"),
        Option("max-header-bytes", COUNT, "of all header fields", "http.header_bytes"),
        Option("max-header-field-bytes", COUNT, "of one header field", "http.field_bytes"),
        Option("max-headers", COUNT, "header fields of a request", "http.header_count"),
        Option("head-timeout", TIME, "for the head of a request to arrive", "http.head_s"),
        Option(
            "body-idle-timeout",
            TIME,
            "that nothing of a body may arrive",
            "http.body_idle_s",
        ),
        Option(
            "min-body-rate",
            COUNT,
            "bytes a second of a body, on the whole, after its first 30 s",
            "http.body_rate_bytes",
        ),
        Option(
            "keep-alive",
            TIME,
            "that a connection may wait for its next request",
            "http.keep_alive_s",
        ),
        Option(
            "write-timeout",
            TIME,
            "that a client may take nothing of its response",
            "write_timeout_s",
        ),
        Option(
            "http-timeout",
            TIME,
            "for the application to answer a request; 0: no end",
            "http_timeout_s",
            flags=("-t",),
        ),
        Option(
            "max-message-bytes",
            COUNT,
            "of a WebSocket",
            "websocket.message_bytes",
            flags=("--websocket-max-message-size",),
        ),
        Option(
            "max-frame-bytes",
            COUNT,
            "of a WebSocket; default: those of a message",
            "websocket.frame_bytes",
            default=None,
            flags=("--websocket-max-frame-size",),
        ),
        Option("max-fragments", COUNT, "frames of one message", "websocket.fragments"),
        Option(
            "message-timeout",
            TIME,
            "from the first byte of a message to its last; 0: no end",
            "message_timeout_s",
        ),
        Option(
            "websocket-idle-timeout",
            TIME,
            "that a WebSocket's client may send no message; 0: no end",
            "clients.idle_s",
        ),
        Option(
            "accept-timeout",
            TIME,
            "for the application to accept a WebSocket; 0: no end",
            "accept_timeout_s",
            flags=("--websocket-connect-timeout", "--websocket_connect_timeout"),
        ),
        Option(
            "websocket-timeout",
            TIME,
            "that a WebSocket may live; 0: no end",
            "websocket_timeout_s",
            flags=("--websocket_timeout",),
        ),
        Option(
            "application-close-timeout",
            TIME,
            "for the application to end once its client is gone; 0: no end",
            "application_close_timeout_s",
        ),
        Option("ping-interval", TIME, "of silence before a ping; 0: never", "ping_interval_s"),
        Option("ping-timeout", TIME, "for the answer to a ping; 0: no end", "ping_timeout_s"),
        Option("close-timeout", TIME, "for the answer to a close frame", "close_timeout_s"),
        Option(
            "inbox-limit",
            COUNT,
            "messages of one client that wait for the application",
            "inbox_limit",
        ),
        Option(
            "outbox-limit-bytes", COUNT, "that may wait for a slow client", "outbox_limit_bytes"
        ),
        Option(
            "slow-client",
            choice(SlowClientPolicy),
            "what happens to messages beyond that",
            "slow_client",
        ),
        Option(
            "compression",
            TRUTH,
            "speak permessage-deflate with clients that offer it",
            default=True,
        ),
        Option(
            "extension",
            TEXT,
            "a WebSocket extension factory of your own, preferred to compression; repeatable",
            default=(),
            metavar="MODULE:NAME",
            repeatable=True,
        ),
    ),
}
