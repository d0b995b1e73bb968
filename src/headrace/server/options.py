"""The settings of ``headrace serve``: one table for flags, environment and ``[tool.headrace]``.

Rules of this file:

- A setting is one row of ``OPTIONS``. ``max-body-bytes`` is the flag ``--max-body-bytes``, the
  variable ``HEADRACE_MAX_BODY_BYTES`` and the key ``max-body-bytes`` of the table, and its default
  is that of the field of ``Config`` it goes to.
- A flag beats the environment, the environment the table, the table the default.
- Nothing wrong is passed over: whatever can't be is an error that says where it was written, and
  what to write instead.

A new setting takes one row. With ``to=`` it arrives in ``Config`` by itself, where the field is
checked (``to="http.head_s"`` is a field of a field); without, whoever wants it asks
``settings["name"]`` in server/cli.py, and ``default=`` says what it is when nobody wrote it.
A variable of the environment that begins with ``HEADRACE_`` and is no setting of the server
belongs into ``OTHER_VARIABLES``.
"""

import argparse
import dataclasses
import difflib
import json
import math
import os
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from ..exceptions import ConfigurationError
from .config import Config, Http2Mode, Lifespan
from .logs import LogFormat
from .outbox import SlowClientPolicy
from .tls import ClientCertificates, Tls, TlsVersion
from .wsgi import DEFAULT_THREADS

__all__ = ["OPTIONS", "OTHER_VARIABLES", "Kind", "Option", "Settings", "add_options", "settings"]

PREFIX = "HEADRACE_"
TABLE = "tool.headrace"
FILE = "pyproject.toml"

#: Variables that are no settings of the server, and mean something elsewhere.
OTHER_VARIABLES = {
    "HEADRACE_CONTROL",
    "HEADRACE_DEFAULT_LAYER",
    "HEADRACE_PURE",
    "HEADRACE_WORKER",
}


# What a value may be


class Kind(NamedTuple):
    """A kind of value."""

    #: In words, after "must be".
    wanted: str
    #: Takes the text of a flag or a variable, or a value of TOML; raises ValueError.
    read: Callable[[Any], Any]
    metavar: str | None = None
    #: Gives what TOML can say, for ``--print-config``.
    write: Callable[[Any], Any] = lambda value: value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError
    return value


def _whole(value: Any, least: int | None = None) -> int:
    if not isinstance(value, int | str) or isinstance(value, bool):
        raise ValueError
    number = int(value)
    if least is not None and number < least:
        raise ValueError
    return number


def _number(value: Any) -> float:
    if not isinstance(value, int | float | str) or isinstance(value, bool):
        raise ValueError
    number = float(value)
    if not math.isfinite(number) or number < 0:
        raise ValueError
    return number


def _time(value: Any) -> float:
    # Daphne's -1, for ever, is our 0.
    return 0.0 if value in ("-1", -1) else _number(value)


_WORDS = dict.fromkeys(("true", "yes", "on", "1"), True) | dict.fromkeys(
    ("false", "no", "off", "0"), False
)


def _truth(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    word = _WORDS.get(_text(value).lower())
    if word is None:
        raise ValueError
    return word


def _mode(value: Any) -> int:
    return int(_text(value), 8)


def _list(value: Any) -> tuple[str, ...]:
    parts = value if isinstance(value, list) else _text(value).split(",")
    return tuple(part for text in parts if (part := _text(text).strip()))


def _place_of_a_log(value: Any) -> bool | str:
    if isinstance(value, bool):
        return value
    return _WORDS.get(text := _text(value), text)


TEXT = Kind("text", _text, "TEXT")
NUMBER = Kind("a whole number", _whole, "N")
COUNT = Kind("a whole number, 1 or more", lambda value: _whole(value, 1), "N")
#: 0 turns it off.
LIMIT = Kind("a whole number, 0 or more", lambda value: _whole(value, 0), "N")
RATE = Kind("a number, 0 or more", _number, "N")
TIME = Kind("a number of seconds, 0 or more", _time, "S")
TRUTH = Kind("true or false", _truth)
MODE = Kind("octal digits, as 660", _mode, "MODE", "{:o}".format)
LIST = Kind("text with commas between, or a list of text", _list)
#: In the log (true), nowhere (false), on a standard stream ('' and -), or in a file.
LOG = Kind("a file, -, true or false", _place_of_a_log, "FILE")


def _processes(value: Any) -> int | str:
    return "auto" if value == "auto" else _whole(value, 0)


PROCESSES = Kind("a whole number, 0 or more, or auto", _processes, "N")


def choice(of: type[StrEnum] | Sequence[Any], others: Mapping[str, Any] | None = None) -> Kind:
    """Return the kind of which there are just these; ``others`` are further names for them."""
    values: dict[str, Any] = {str(value): value for value in of} | dict(others or {})

    def read(value: Any) -> Any:
        if isinstance(value, bool) or str(value) not in values:
            raise ValueError
        return values[str(value)]

    def write(value: Any) -> Any:
        return str(value) if isinstance(value, StrEnum) else value

    return Kind(f"one of {', '.join(map(str, of))}", read, f"{{{','.join(map(str, of))}}}", write)


# The table


class _Nothing:
    """What was not said."""

    def __repr__(self) -> str:
        return "nothing"


NOTHING: Any = _Nothing()
_DEFAULTS = Config()
_TLS = Tls(certificate="")


@dataclass(frozen=True, slots=True)
class Option:
    """A setting of ``headrace serve``.

    Args:
        name: Of the flag without its hyphens, of the key, and of the variable.
        kind: What it may be.
        help: For ``--help``; its default is told there of itself.
        to: The field of Config that it goes to.
        default: Where nobody says anything; that of ``to``, unless given.
        flags: Further names: ``-p``, ``--unix-socket``. Long ones do as keys and variables, too.
        metavar: What stands for the value in the help.
        without: What ``--no-NAME`` stands for; False of itself where the kind is TRUTH.
        alone: What the flag stands for without a value.
        repeatable: Whether the flag may be given again; then the value is a list.
        secret: Whether the value is never shown.
    """

    name: str
    kind: Kind
    help: str
    to: str | None = None
    default: Any = NOTHING
    _: dataclasses.KW_ONLY
    flags: tuple[str, ...] = ()
    metavar: str | None = None
    without: Any = NOTHING
    alone: Any = NOTHING
    repeatable: bool = False
    secret: bool = False

    def __post_init__(self) -> None:
        if self.kind is TRUTH:
            object.__setattr__(self, "without", False)
        if self.default is NOTHING:
            object.__setattr__(self, "default", _default_of(self.to) if self.to else None)

    @property
    def dest(self) -> str:
        """The name of it among the parsed arguments."""
        return self.name.replace("-", "_")

    @property
    def keys(self) -> list[str]:
        """The names by which the table and the environment may call it, the first the best."""
        more = (flag[2:].replace("_", "-") for flag in self.flags if flag.startswith("--"))
        return list(dict.fromkeys((self.name, *more)))

    def read(self, value: Any) -> Any:
        """Return the value that this stands for; raise ValueError, saying what it must be."""
        if not self.repeatable:
            return self.read_one(value)
        if not isinstance(value, list | str):
            raise ValueError(f"must be {self.kind.wanted}, or a list of such, not {value!r}")
        parts = _list(value) if isinstance(value, str) else value
        return tuple(self.read_one(part) for part in parts)

    def read_one(self, value: Any) -> Any:
        """Do so for one of the values of what is repeatable."""
        try:
            return self.kind.read(value)
        except (ValueError, TypeError):
            shown = "what was given" if self.secret else repr(value)
            raise ValueError(f"must be {self.kind.wanted}, not {shown}") from None


def _default_of(path: str) -> Any:
    value: Any = _DEFAULTS
    for name in path.split("."):
        value = getattr(value, name)
    return value


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


def _all() -> Iterator[Option]:
    for group in OPTIONS.values():
        yield from group


# Flags


def add_options(parser: argparse.ArgumentParser) -> None:
    """Let a parser know every setting; what is given ends up in its namespace, and only that."""
    for title, options in OPTIONS.items():
        group = parser.add_argument_group(title)
        for option in options:
            if option.name == "application":
                parser.add_argument(
                    option.dest,
                    nargs="?",
                    default=argparse.SUPPRESS,
                    metavar=option.metavar,
                    help=option.help,
                )
            else:
                _add_option(group, option)


def _add_option(group: "argparse._ArgumentGroup", option: Option) -> None:
    def read(text: str) -> Any:
        try:
            return option.read_one(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    described: dict[str, Any] = {"dest": option.dest, "default": argparse.SUPPRESS}
    value: dict[str, Any] = {
        "type": read,
        "metavar": option.metavar or option.kind.metavar,
        "help": _help(option),
    }
    names = (f"--{option.name}", *option.flags)
    if option.kind is TRUTH:
        group.add_argument(
            *names, action="store_const", const=True, help=_help(option), **described
        )
    elif option.repeatable:
        group.add_argument(*names, action="append", **value, **described)
    elif option.alone is NOTHING:
        group.add_argument(*names, **value, **described)
    else:
        group.add_argument(*names, nargs="?", const=option.alone, **value, **described)
    if option.without is not NOTHING:
        group.add_argument(
            f"--no-{option.name}",
            action="store_const",
            const=option.without,
            help=f"not --{option.name}",
            **described,
        )


def _help(option: Option) -> str:
    text, default = option.help, option.default
    if "default:" not in text and default not in (None, "", ()):
        shown = _toml(option.kind.write(default)).strip('"')
        text = f"{text} (default: {shown})"
    return text.replace("%", "%%")


# What was said


class _Said(NamedTuple):
    value: Any
    #: The flag, the variable, or the key and its file, as errors name it.
    where: str


class Settings:
    """The settings of one start."""

    def __init__(self, said: Mapping[str, _Said], warnings: Sequence[str] = ()) -> None:
        self._said = said
        #: What is not wrong for sure, a sentence each.
        self.warnings = warnings

    def __getitem__(self, name: str) -> Any:
        """Return a setting's value."""
        said = self._said.get(name)
        return _BY_NAME[name].default if said is None else said.value

    def given(self, name: str) -> bool:
        """Say whether somebody set it, be it to its default."""
        return name in self._said

    def where(self, name: str) -> str:
        """Return where it was written, for an error; the flag, where nobody wrote it."""
        said = self._said.get(name)
        return f"--{name}" if said is None else said.where

    def config(self, more: Mapping[str, Any]) -> Config:
        """Return the Config of all that was said.

        Args:
            more: Values of fields, by their path (``websocket.frame_bytes``); they come first.
        """
        values = {_BY_NAME[name].to: said.value for name, said in self._said.items()}
        return _config({path: value for path, value in values.items() if path} | dict(more))

    def as_toml(self) -> str:
        """Return the table that says the same, and in comments where each value comes from."""
        lines = []
        for title, options in OPTIONS.items():
            lines.append(("", ""))
            lines.append((f"# {title}", ""))
            for option in options:
                said = self._said.get(option.name)
                value = self[option.name]
                if value is None or self._is_idle(option.name):
                    line = f"# {option.name} ="
                elif option.secret:
                    line = f"# {option.name} = (not shown)"
                else:
                    line = f"{option.name} = {_toml(option.kind.write(value))}"
                lines.append((line, "default" if said is None else said.where))
        width = min(48, max(len(line) for line, _ in lines))
        shown = (f"{line:<{width}}  # {where}" if where else line for line, where in lines)
        return "\n".join((f"[{TABLE}]", *shown)) + "\n"

    def _is_idle(self, name: str) -> bool:
        """Say whether it is a default that nothing will use: the port, where other places are."""
        others = any(map(self.given, ("uds", "fd", "endpoint")))
        return (
            name in ("bind", "port") and others and not (self.given("bind") or self.given("port"))
        )


def _config(values: Mapping[str, Any]) -> Config:
    """Return the Config with these fields, each named by its path."""
    fields: dict[str, Any] = {}
    inner: dict[str, dict[str, Any]] = {}
    for path, value in values.items():
        name, _, field = path.partition(".")
        if field:
            inner.setdefault(name, {})[field] = value
        else:
            fields[name] = value
    for name, changed in inner.items():
        fields[name] = dataclasses.replace(getattr(_DEFAULTS, name), **changed)
    return Config(**fields)


def settings(options: argparse.Namespace, environment: Mapping[str, str]) -> Settings:
    """Return the settings of these flags, this environment, and the table of the folder.

    Raises ConfigurationError for what can't be, naming where it was written.
    """
    flags = vars(options)
    said, warnings = _said_in_environment(environment)
    said |= {
        option.name: _Said(
            tuple(flags[option.dest]) if option.repeatable else flags[option.dest],
            f"--{'no-' if flags[option.dest] == option.without else ''}{option.name}",
        )
        for option in _all()
        if option.dest in flags
    }
    folder = said["app-dir"].value if "app-dir" in said else "."
    said = _said_in_table(folder) | said
    for name, (value, where) in said.items():
        path = _BY_NAME[name].to
        if path is not None and value is not None:
            try:
                _config({path: value})
            except ConfigurationError as error:
                raise ConfigurationError(f"{where}: {error}") from None
    return Settings(said, warnings)


def _said_in_environment(environment: Mapping[str, str]) -> tuple[dict[str, _Said], list[str]]:
    pairs, warnings = [], []
    for name, value in sorted(environment.items()):
        # A variable without a value is one that somebody, a compose file say, left unset.
        if not name.startswith(PREFIX) or not value or name in OTHER_VARIABLES:
            continue
        if _OF_KUBERNETES.fullmatch(f"{name}={value}"):
            continue
        key = name[len(PREFIX) :].lower().replace("_", "-")
        if key in _BY_KEY or _near(key):
            pairs.append((name, key, value))
        else:  # it may be the application's own
            warnings.append(f"{name} in the environment is no setting of the server; {_LISTED}")
    return _read(pairs, "{} in the environment", _variable), warnings


#: What it tells of a service named headrace, in each container of its namespace.
_OF_KUBERNETES = re.compile(r"HEADRACE_(SERVICE_(HOST|PORT\w*)=.*|PORT\w*=\w+://.*|PORT_\d+_.*)")


def _variable(key: str) -> str:
    return PREFIX + key.upper().replace("-", "_")


def _said_in_table(folder: str) -> dict[str, _Said]:
    """Read the table of the folder to import from, or else of the folder where this was started."""
    for path in dict.fromkeys((os.path.join(folder, FILE), FILE)):
        path = os.path.normpath(path)
        try:
            with open(path, "rb") as file:
                content = tomllib.load(file)
        except FileNotFoundError:
            continue
        except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"{path} can't be read: {error}") from None
        tool = content.get("tool")
        table = tool.get("headrace") if isinstance(tool, dict) else None
        if table is None:
            continue
        if not isinstance(table, dict):
            raise ConfigurationError(f"{path}: [{TABLE}] must be a table, not {table!r}")
        pairs = ((key, key.replace("_", "-"), value) for key, value in table.items())
        return _read(pairs, f"{path}: {{}} of [{TABLE}]", str)
    return {}


def _read(
    pairs: Iterable[tuple[str, str, Any]], place: str, spelled: Callable[[str], str]
) -> dict[str, _Said]:
    """Read what was written at one place: names as they stand there, their keys, and values."""
    said: dict[str, _Said] = {}
    for name, key, written in pairs:
        where = place.format(name)
        if key not in _BY_KEY:
            near = " or ".join(map(spelled, _near(key)))
            hint = f"did you mean {near}?" if near else _LISTED
            raise ConfigurationError(f"{where}: there is no such setting; {hint}")
        option, negated = _BY_KEY[key]
        try:
            value = _negated(option, written) if negated else option.read(written)
        except ValueError as error:
            raise ConfigurationError(f"{where}: {error}") from None
        if value is NOTHING:
            continue
        if option.name in said:
            raise ConfigurationError(
                f"{where}: {said[option.name].where} says it already: leave one of them out"
            )
        said[option.name] = _Said(value, where)
    return said


def _negated(option: Option, written: Any) -> Any:
    """Return what ``no-NAME = true`` says."""
    if _NEGATION.read(written):
        return option.without
    return True if option.kind is TRUTH else NOTHING


def _near(key: str) -> list[str]:
    return difflib.get_close_matches(key, _BY_KEY, n=3, cutoff=0.75)


_LISTED = "`headrace serve --print-config` lists them all"
_NEGATION = Option("no", TRUTH, "", default=False)
_BY_NAME = {option.name: option for option in _all()}
#: Each name in the table or the environment, and whether it says the opposite (``no-compression``).
_BY_KEY = {key: (option, False) for option in _all() for key in option.keys} | {
    f"no-{option.name}": (option, True) for option in _all() if option.without is not NOTHING
}


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return repr(value)
