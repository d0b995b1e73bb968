"""The subcommand ``headrace serve MODULE:APP``: its options, and a process that serves."""

import argparse
import asyncio
import gc
import importlib
import logging
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
from .lifespan import LifespanFailed
from .outbox import SlowClientPolicy
from .running import new_event_loop
from .running import run as run_server
from .server import Server

__all__ = ["load", "register", "run"]

logger = logging.getLogger("headrace.server")


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add ``serve`` to the subcommands of ``headrace``."""
    serve = commands.add_parser(
        "serve",
        help="serve an ASGI application",
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
    _configure_logging(options.log_level)
    sys.path.insert(0, os.path.abspath(options.app_dir))
    app = load(options.application)
    if not callable(app):
        raise ConfigurationError(
            f"{options.application!r} is no ASGI application, it is {type(app).__name__} "
            f"{app!r:.40}: write MODULE:NAME, for instance mysite.asgi:application"
        )
    try:
        _run(Server(app, _config(options)))
    except LifespanFailed as error:
        print(f"headrace: {error}", file=sys.stderr)
        return 1
    return 0


def load(path: str) -> Any:
    """Import what ``MODULE:NAME`` names; ``MODULE`` alone stands for ``MODULE:application``.

    Raises ConfigurationError that says which half is wrong.
    """
    module_name, _, name = path.partition(":")
    name = name or "application"
    if "/" in module_name or module_name.endswith(".py"):
        raise ConfigurationError(
            f"{path!r} is a file: write the name to import it by, "
            "for instance mysite.asgi:application"
        )
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


def _run(server: Server) -> None:
    # What was imported lives as long as the process: a full garbage collection, which stops
    # every connection, need not walk through it again and again.
    gc.collect()
    gc.freeze()
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        run_server(server, runner.get_loop())
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


def _configure_logging(level: str) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    root = logging.getLogger("headrace")
    root.addHandler(handler)
    root.setLevel(level.upper())
    # The application's own logging, Django's LOGGING say, may add to this, not repeat it.
    root.propagate = False


def _config(options: argparse.Namespace) -> Config:
    extensions: list[ExtensionFactory] = [_extension(path) for path in options.extension]
    if options.compression:
        extensions.append(DeflateFactory())
    return Config(
        host=options.bind,
        port=options.port,
        uds=options.uds,
        fd=options.fd,
        root_path=options.root_path,
        lifespan=options.lifespan,
        access_log=options.access_log,
        server_header=options.server_name,
        backlog=options.backlog,
        http=Http1Limits(
            body_bytes=options.max_body_bytes,
            head_s=options.head_timeout,
            keep_alive_s=options.keep_alive,
        ),
        websocket=Limits(
            message_bytes=options.max_message_bytes, frame_bytes=options.max_message_bytes
        ),
        write_timeout_s=options.write_timeout,
        accept_timeout_s=options.accept_timeout,
        ping_interval_s=options.ping_interval,
        ping_timeout_s=options.ping_timeout,
        close_timeout_s=options.close_timeout,
        extensions=tuple(extensions),
        outbox_limit_bytes=options.outbox_limit_bytes,
        slow_client=options.slow_client,
        inbox_limit=options.inbox_limit,
        shutdown_timeout_s=options.shutdown_timeout,
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
        "application", metavar="MODULE:APP", help="the ASGI application, as mysite.asgi:application"
    )
    serve.add_argument("--app-dir", default=".", help="the folder to import from")
    serve.add_argument("--log-level", default="info", choices=["debug", "info", "warning", "error"])

    where = serve.add_argument_group("where to listen")
    where.add_argument("--bind", "-b", default=defaults.host, help="an address of this host")
    where.add_argument("--port", "-p", default=defaults.port, type=int, help="0: any free one")
    where.add_argument("--uds", "-u", metavar="PATH", help="a Unix socket instead")
    where.add_argument("--fd", type=int, metavar="N", help="an inherited listening socket instead")

    where.add_argument(
        "--backlog",
        type=int,
        default=defaults.backlog,
        metavar="N",
        help="connections that may wait to be accepted",
    )

    application = serve.add_argument_group("the application")
    application.add_argument("--root-path", default="", help="the path it is mounted under")
    application.add_argument(
        "--lifespan", default=defaults.lifespan, type=Lifespan, choices=list(Lifespan)
    )
    application.add_argument(
        "--access-log",
        action=argparse.BooleanOptionalAction,
        default=defaults.access_log,
        help="log a line for each request",
    )
    application.add_argument(
        "--server-name",
        default=defaults.server_header,
        metavar="NAME",
        help="the Server header; '' leaves it out",
    )
    application.add_argument(
        "--shutdown-timeout",
        default=defaults.shutdown_timeout_s,
        type=float,
        metavar="S",
        help="seconds that a stop waits for what is under way",
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
        "--max-message-bytes",
        type=int,
        default=defaults.websocket.message_bytes,
        metavar="N",
        help="of a WebSocket",
    )
    limits.add_argument(
        "--accept-timeout",
        type=float,
        default=defaults.accept_timeout_s,
        metavar="S",
        help="for the application to accept a WebSocket",
    )
    limits.add_argument(
        "--ping-interval",
        type=float,
        default=defaults.ping_interval_s,
        metavar="S",
        help="of silence before a ping; 0: never",
    )
    limits.add_argument(
        "--ping-timeout",
        type=float,
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
