"""The subcommand ``headrace serve MODULE:APP``: its options, and a process that serves."""

import argparse
import asyncio
import gc
import importlib
import importlib.util
import inspect
import logging
import logging.handlers
import os
import sys
import threading
from typing import Any

from ..exceptions import ConfigurationError
from ..protocols.deflate import DeflateFactory
from ..protocols.extensions import ExtensionFactory
from ..protocols.http1 import Http1Limits
from ..protocols.websocket import Limits
from .config import Config, Lifespan
from .endpoint import Endpoint
from .interface import Interface, as_asgi, interface_of
from .lifespan import LifespanFailed
from .outbox import SlowClientPolicy
from .proxy import ProxyHeaders
from .running import ending_at_once, new_event_loop
from .running import run as run_server
from .runtime import ASGIApplication
from .server import Server
from .wsgi import DEFAULT_THREADS, WsgiApplication

__all__ = ["load", "register", "run"]

logger = logging.getLogger("headrace.server")

#: The level of the log that goes with each ``--verbosity``.
_VERBOSITY = ("warning", "info", "debug", "debug")


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add ``serve`` to the subcommands of ``headrace``."""
    serve = commands.add_parser(
        "serve",
        help="serve an ASGI or a WSGI application",
        usage="headrace serve [OPTIONS] MODULE:APP  (--help lists the options)",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    _add_options(serve)
    serve.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Serve the application until a signal; return the exit status.

    That is 0 after a stop, and 1 where the application could not start. Raises
    ConfigurationError for what can't be as the options want it.
    """
    with ending_at_once():
        _configure_logging(options)
        sys.path.insert(0, os.path.abspath(options.app_dir))
        app = _application(options)
        try:
            _run(app, _config(options), debug=options.verbosity >= 3)
        except LifespanFailed as error:
            print(f"headrace: {error}", file=sys.stderr)
            return 1
    return 0


def _application(options: argparse.Namespace) -> ASGIApplication:
    """Return what the options name, as an ASGI application."""
    app, interface = _loaded(options.application, options.interface)
    if interface is not Interface.WSGI:
        if options.websockets is not None:
            raise ConfigurationError(
                f"{options.application} is an ASGI application, which takes its WebSockets "
                "itself: leave out --websockets, or say --interface wsgi"
            )
        return as_asgi(app, interface)
    websockets = None
    if options.websockets is not None:
        asgi, interface = _loaded(options.websockets, "auto")
        if interface is Interface.WSGI:
            raise ConfigurationError(
                f"--websockets {options.websockets}: that is a WSGI application, WebSockets "
                "take an ASGI one, for instance mysite.asgi:application"
            )
        websockets = as_asgi(asgi, interface)
    logger.info(
        "%s is a WSGI application, served in %d threads; WebSockets go to %s",
        options.application,
        options.wsgi_threads,
        options.websockets or "nobody (--websockets MODULE:APP)",
    )
    return WsgiApplication(app, threads=options.wsgi_threads, websockets=websockets)


def _loaded(path: str, interface: str) -> tuple[Any, Interface]:
    app = load(path)
    if not callable(app):
        raise ConfigurationError(
            f"{path!r} is no ASGI or WSGI application, it is {type(app).__name__} "
            f"{app!r:.40}: write MODULE:NAME, for instance mysite.asgi:application"
        )
    if inspect.isclass(app) and hasattr(app, "as_asgi"):
        raise ConfigurationError(
            f"{path!r} is a consumer's class: name what {app.__name__}.as_asgi() returns, or the "
            "application that leads to it"
        )
    return app, interface_of(app) if interface == "auto" else Interface(interface)


def load(path: str) -> Any:
    """Import what ``MODULE:NAME`` names; ``MODULE`` alone stands for ``MODULE:application``.

    The dotted path of Django's settings, ``MODULE.NAME``, does as well.
    Raises ConfigurationError that says which half is wrong.
    """
    module_name, colon, name = path.partition(":")
    if "/" in module_name or module_name.endswith(".py"):
        raise ConfigurationError(
            f"{path!r} is a file: write the name to import it by, "
            "for instance mysite.asgi:application"
        )
    if not colon and (dotted := _dotted(path)) is not None:
        module_name, name = dotted
    name = name or "application"
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # the module is there; something that it imports is not
        raise ConfigurationError(
            f"there is no module {error.name!r} for {path!r}: run the command where it can be "
            "imported from, or name that folder with --app-dir"
        ) from None
    except (ValueError, TypeError):
        raise ConfigurationError(
            f"{path!r} names no application: write MODULE:NAME, "
            "for instance mysite.asgi:application"
        ) from None
    try:
        found: Any = module
        for part in name.split("."):
            found = getattr(found, part)
    except AttributeError:
        raise ConfigurationError(
            f"module {module_name!r} has no {name!r}: write MODULE:NAME, "
            "for instance mysite.asgi:application"
        ) from None
    return found


def _dotted(path: str) -> tuple[str, str] | None:
    """Split ``mysite.asgi.application``; None where it is all the name of a module."""
    module_name, _, name = path.rpartition(".")
    try:
        found = importlib.util.find_spec(path)
    except ModuleNotFoundError as error:
        if error.name != path:
            return None  # not even what it would be in is there
        found = None  # what it is in is a module, not a package
    except (ImportError, ValueError):
        return None  # the name of nothing: `import_module` says why
    return (module_name, name) if module_name and found is None else None


def _run(app: ASGIApplication, config: Config, *, debug: bool) -> None:
    server = Server(app, config)
    # What was imported lives as long as the process: a full garbage collection, which stops
    # every connection, need not walk through it again and again.
    gc.collect()
    gc.freeze()
    with asyncio.Runner(debug=debug or None, loop_factory=new_event_loop) as runner:
        try:
            run_server(server, runner.get_loop())
        finally:
            if isinstance(app, WsgiApplication):
                app.close()
        if server.hurried and _threads_left():
            # Python would wait for them, and nothing can end a thread that blocks.
            logger.warning("threads of the application are still at work: the process ends")
            logging.shutdown()
            sys.stdout.flush()
            os._exit(0)


def _threads_left() -> bool:
    return any(
        not thread.daemon and thread is not threading.main_thread()
        for thread in threading.enumerate()
    )


def _configure_logging(options: argparse.Namespace) -> None:
    level = options.log_level or _VERBOSITY[options.verbosity]
    try:
        formatter = logging.Formatter(options.log_fmt)
    except ValueError as error:
        raise ConfigurationError(f"--log-fmt {options.log_fmt!r}: {error}") from None
    _log_to(logging.getLogger("headrace"), logging.StreamHandler(), formatter, level)
    if isinstance(options.access_log, str):
        # Asked for by name, it is written whatever the level of the rest.
        _log_to(
            logging.getLogger("headrace.access"), _opened(options.access_log), formatter, "info"
        )


def _log_to(
    logger: logging.Logger, handler: logging.Handler, formatter: logging.Formatter, level: str
) -> None:
    handler.setFormatter(formatter)
    logger.addHandler(handler)
    logger.setLevel(level.upper())
    # The application's own logging, Django's LOGGING say, may add to this, not repeat it.
    logger.propagate = False


def _opened(path: str) -> logging.Handler:
    """Return the handler for ``--access-log``; a file that logrotate moves is opened anew."""
    if path in ("", "-"):
        return logging.StreamHandler(sys.stdout if path else sys.stderr)
    try:
        return logging.handlers.WatchedFileHandler(path)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ConfigurationError(f"--access-log {path}: {reason}") from None


def _config(options: argparse.Namespace) -> Config:
    extensions: list[ExtensionFactory] = [_extension(path) for path in options.extension]
    if options.compression:
        extensions.append(DeflateFactory())
    first, *also = _endpoints(options)
    return Config(
        host=first.host,
        port=first.port,
        uds=first.uds,
        uds_mode=first.uds_mode,
        fd=first.fd,
        also=tuple(also),
        proxy_headers=_proxy_headers(options),
        root_path=options.root_path,
        lifespan=options.lifespan,
        access_log=options.access_log is not False,
        server_header=options.server_name,
        backlog=options.backlog,
        http=Http1Limits(
            body_bytes=options.max_body_bytes,
            head_s=options.head_timeout,
            keep_alive_s=options.keep_alive,
        ),
        websocket=Limits(
            message_bytes=options.max_message_bytes,
            frame_bytes=options.max_frame_bytes or options.max_message_bytes,
        ),
        write_timeout_s=options.write_timeout,
        http_timeout_s=options.http_timeout,
        accept_timeout_s=options.accept_timeout,
        websocket_timeout_s=options.websocket_timeout,
        application_close_timeout_s=options.application_close_timeout,
        ping_interval_s=options.ping_interval,
        ping_timeout_s=options.ping_timeout,
        close_timeout_s=options.close_timeout,
        extensions=tuple(extensions),
        outbox_limit_bytes=options.outbox_limit_bytes,
        slow_client=options.slow_client,
        inbox_limit=options.inbox_limit,
        shutdown_timeout_s=options.shutdown_timeout,
    )


def _endpoints(options: argparse.Namespace) -> list[Endpoint]:
    """Return every place that the options name, or the one that nobody needs to."""
    endpoints = []
    if options.fd is not None:
        endpoints.append(Endpoint(fd=options.fd))
    if options.uds is not None:
        endpoints.append(Endpoint(uds=options.uds, uds_mode=options.uds_mode))
    endpoints += map(Endpoint.from_twisted, options.endpoint)
    if options.bind is not None or options.port is not None or not endpoints:
        address = {"host": options.bind, "port": options.port}
        given: Any = {name: value for name, value in address.items() if value is not None}
        endpoints.insert(0, Endpoint(**given))
    return endpoints


def _proxy_headers(options: argparse.Namespace) -> ProxyHeaders | None:
    named = {
        "--proxy-headers-host": options.proxy_headers_host,
        "--proxy-headers-port": options.proxy_headers_port,
        "--trusted-proxies": options.trusted_proxies,
    }
    if not options.proxy_headers:
        for option, value in named.items():
            if value is not None:
                raise ConfigurationError(f"{option} says how --proxy-headers works: give that, too")
        return None
    defaults = ProxyHeaders()
    return ProxyHeaders(
        trusted=[text.strip() for text in (options.trusted_proxies or "").split(",") if text],
        address=options.proxy_headers_host or defaults.address,
        port=options.proxy_headers_port or defaults.port,
    )


def _extension(path: str) -> ExtensionFactory:
    found = load(path)
    factory: ExtensionFactory = found() if isinstance(found, type) else found
    if not callable(getattr(factory, "negotiate", None)):
        raise ConfigurationError(
            f"--extension {path}: an extension factory has a name and a method negotiate()"
        )
    return factory


def _add_options(serve: argparse.ArgumentParser) -> None:
    defaults = Config()
    serve.add_argument(
        "application",
        metavar="MODULE:APP",
        help="the ASGI or WSGI application, as mysite.asgi:application",
    )
    serve.add_argument("--app-dir", default=".", help="the folder to import from")

    where = serve.add_argument_group("where to listen: at each place that is named")
    where.add_argument(
        "--bind", "-b", metavar="ADDRESS", help=f"an address of this host; default: {defaults.host}"
    )
    where.add_argument("--port", "-p", type=int, help=f"0: any free one; default: {defaults.port}")
    where.add_argument("--uds", "--unix-socket", "-u", metavar="PATH", help="a Unix socket")
    where.add_argument(
        "--uds-mode",
        type=_octal,
        metavar="MODE",
        help="the rights of its file, as 660; default: those that the umask leaves",
    )
    where.add_argument("--fd", type=int, metavar="N", help="an inherited listening socket")
    where.add_argument(
        "--endpoint",
        "-e",
        action="append",
        default=[],
        metavar="STRING",
        help="one more, in Twisted's words: tcp:, unix:, fd: or systemd:; repeatable",
    )
    where.add_argument(
        "--backlog",
        type=int,
        default=defaults.backlog,
        metavar="N",
        help="connections that may wait to be accepted",
    )

    application = serve.add_argument_group("the application")
    application.add_argument(
        "--interface",
        default="auto",
        choices=["auto", "asgi", "asgi2", "wsgi"],
        help="how it is called; auto: as its signature says",
    )
    application.add_argument(
        "--websockets",
        metavar="MODULE:APP",
        help="the ASGI application that takes the WebSockets of a WSGI application",
    )
    application.add_argument(
        "--wsgi-threads",
        type=_count,
        default=DEFAULT_THREADS,
        metavar="N",
        help="requests that a WSGI application works on at once",
    )
    application.add_argument("--root-path", default="", help="the path it is mounted under")
    application.add_argument(
        "--lifespan", default=defaults.lifespan, type=Lifespan, choices=list(Lifespan)
    )
    application.add_argument(
        "--server-name",
        "-s",
        default=defaults.server_header,
        metavar="NAME",
        help="the Server header; '' leaves it out",
    )
    application.add_argument(
        "--no-server-name",
        dest="server_name",
        action="store_const",
        const="",
        default=argparse.SUPPRESS,
        help="leave the Server header out",
    )
    application.add_argument(
        "--shutdown-timeout",
        default=defaults.shutdown_timeout_s,
        type=float,
        metavar="S",
        help="seconds that a stop waits for what is under way",
    )

    log = serve.add_argument_group("the log")
    log.add_argument(
        "--log-level",
        choices=["debug", "info", "warning", "error"],
        help="default: what --verbosity says",
    )
    log.add_argument(
        "--verbosity",
        "-v",
        type=int,
        default=1,
        choices=range(len(_VERBOSITY)),
        help="0: warnings, 1: information, 2: all, 3: and the event loop in its debug mode",
    )
    log.add_argument(
        "--log-fmt",
        default="%(asctime)s %(levelname)s %(name)s %(message)s",
        metavar="FORMAT",
        help="a format of Python's logging",
    )
    log.add_argument(
        "--access-log",
        nargs="?",
        const="",
        default=True,
        metavar="FILE",
        help="a line for each request, here, on the standard output (-) or in a file; "
        "default: in the log",
    )
    log.add_argument(
        "--no-access-log",
        dest="access_log",
        action="store_const",
        const=False,
        default=argparse.SUPPRESS,
        help="no such lines",
    )

    proxy = serve.add_argument_group("behind a proxy")
    proxy.add_argument(
        "--proxy-headers",
        action="store_true",
        help="believe our proxies where a request came from: X-Forwarded-For, -Port and -Proto",
    )
    proxy.add_argument(
        "--trusted-proxies",
        metavar="NETWORK,...",
        help="our proxies, beside this host and who comes by the Unix socket; *: everybody",
    )
    proxy.add_argument(
        "--proxy-headers-host",
        metavar="HEADER",
        help="the header with the client's address; default: X-Forwarded-For",
    )
    proxy.add_argument(
        "--proxy-headers-port",
        metavar="HEADER",
        help="the header with the client's port; default: X-Forwarded-Port",
    )

    limits = serve.add_argument_group("limits (bytes and seconds)")
    limits.add_argument(
        "--max-body-bytes", type=int, metavar="N", help="of a request; default: no limit"
    )
    limits.add_argument(
        "--head-timeout",
        type=float,
        default=defaults.http.head_s,
        metavar="S",
        help="for the head of a request to arrive",
    )
    limits.add_argument(
        "--keep-alive",
        type=float,
        default=defaults.http.keep_alive_s,
        metavar="S",
        help="that a connection may wait for its next request",
    )
    limits.add_argument(
        "--write-timeout",
        type=float,
        default=defaults.write_timeout_s,
        metavar="S",
        help="that a client may take nothing of its response",
    )
    limits.add_argument(
        "--http-timeout",
        "-t",
        type=_seconds,
        default=defaults.http_timeout_s,
        metavar="S",
        help="for the application to answer a request; 0: no end",
    )
    limits.add_argument(
        "--max-message-bytes",
        "--websocket-max-message-size",
        type=_count,
        default=defaults.websocket.message_bytes,
        metavar="N",
        help="of a WebSocket",
    )
    limits.add_argument(
        "--max-frame-bytes",
        "--websocket-max-frame-size",
        type=_count,
        metavar="N",
        help="of a WebSocket; default: those of a message",
    )
    limits.add_argument(
        "--accept-timeout",
        "--websocket-connect-timeout",
        "--websocket_connect_timeout",
        type=_seconds,
        default=defaults.accept_timeout_s,
        metavar="S",
        help="for the application to accept a WebSocket; 0: no end",
    )
    limits.add_argument(
        "--websocket-timeout",
        "--websocket_timeout",
        type=_seconds,
        default=defaults.websocket_timeout_s,
        metavar="S",
        help="that a WebSocket may live; 0: no end",
    )
    limits.add_argument(
        "--application-close-timeout",
        type=_seconds,
        default=defaults.application_close_timeout_s,
        metavar="S",
        help="for the application to end once its client is gone; 0: no end",
    )
    limits.add_argument(
        "--ping-interval",
        type=_seconds,
        default=defaults.ping_interval_s,
        metavar="S",
        help="of silence before a ping; 0: never",
    )
    limits.add_argument(
        "--ping-timeout",
        type=_seconds,
        default=defaults.ping_timeout_s,
        metavar="S",
        help="for the answer to a ping; 0: no end",
    )
    limits.add_argument(
        "--close-timeout",
        type=float,
        default=defaults.close_timeout_s,
        metavar="S",
        help="for the answer to a close frame",
    )
    limits.add_argument(
        "--inbox-limit",
        type=int,
        default=defaults.inbox_limit,
        metavar="N",
        help="messages of one client that wait for the application",
    )
    limits.add_argument(
        "--outbox-limit-bytes",
        type=int,
        default=defaults.outbox_limit_bytes,
        metavar="N",
        help="that may wait for a slow client",
    )
    limits.add_argument(
        "--slow-client",
        type=SlowClientPolicy,
        choices=list(SlowClientPolicy),
        default=defaults.slow_client,
        help="what happens to messages beyond that",
    )
    limits.add_argument(
        "--compression",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="speak permessage-deflate with clients that offer it",
    )
    limits.add_argument(
        "--extension",
        action="append",
        default=[],
        metavar="MODULE:NAME",
        help="a WebSocket extension factory of your own, preferred to compression; repeatable",
    )


def _seconds(text: str) -> float:
    """Read a time; Daphne's -1, for ever, is our 0."""
    seconds = float(text)
    return 0.0 if seconds == -1 else seconds


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise ValueError
    return count


def _octal(text: str) -> int:
    return int(text, 8)


_seconds.__name__, _count.__name__, _octal.__name__ = "time", "count", "mode"
