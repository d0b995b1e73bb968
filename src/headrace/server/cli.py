"""The subcommand ``headrace serve MODULE:APP``: its options, and a process that serves."""

import argparse
import asyncio
import contextlib
import functools
import importlib
import importlib.util
import inspect
import logging
import logging.handlers
import os
import resource
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from .. import telemetry
from ..exceptions import ConfigurationError
from ..protocols.deflate import DeflateFactory
from ..protocols.extensions import ExtensionFactory
from .config import Config
from .endpoint import Endpoint
from .handover import Handover
from .interface import Interface, as_asgi, interface_of
from .lifespan import LifespanFailed
from .logs import LogFormat, formatter_for
from .options import OPTIONS, TLS
from .proxy import ProxyHeaders
from .proxy_protocol import ProxyProtocol
from .running import ending_at_once, give_way, new_event_loop
from .running import run as run_server
from .runtime import ASGIApplication
from .server import Server
from .settings import Settings, add_options, resolve
from .settled import Settled
from .single import Single
from .supervisor import Supervisor, command_of
from .systemd import Notifier, listening_fds
from .tls import Tls
from .watching import Watch, keep_current
from .worker_process import Post, Worker
from .wsgi import WsgiApplication

__all__ = ["load", "register", "run"]

T = TypeVar("T")

logger = logging.getLogger("headrace.server")

USAGE = "headrace serve [OPTIONS] MODULE:APP  (--help lists the options)"
#: The level of the log that goes with each ``--verbosity``.
_VERBOSITY = ("warning", "info", "debug", "debug")


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add ``serve`` to the subcommands of ``headrace``."""
    serve = commands.add_parser(
        "serve",
        help="serve an ASGI or a WSGI application",
        usage=USAGE,
        epilog="Each option is also a variable of the environment (HEADRACE_MAX_BODY_BYTES) and a "
        "key of the table [tool.headrace] in pyproject.toml (max-body-bytes).",
    )
    serve.add_argument(
        "--print-config",
        action="store_true",
        help="print the settings as that table, and where each comes from",
    )
    add_options(serve)
    serve.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Serve the application until a signal; return the exit status.

    That is 0 after a stop, and 1 where the application could not start. Raises
    ConfigurationError for what can't be as the options want it.
    """
    post = Post.take(os.environ)
    settings = resolve(options, os.environ)
    if settings["application"] is None and getattr(options, "access_log", None):
        # `--access-log` without a value, and in front of the application.
        options.application, options.access_log = options.access_log, ""
        settings = resolve(options, os.environ)
    if options.print_config:
        print(settings.as_toml(), end="")
        return 0
    if settings["application"] is None:
        raise ConfigurationError(
            f"no application is named, as mysite.asgi:application\nusage: {USAGE}"
        )
    with ending_at_once():
        if post is not None:
            post.bind_fate()
        _configure_logging(settings)
        if post is not None:
            return _work(settings, post)
        for warning in settings.warnings:
            logger.warning("%s", warning)
        notifier = Notifier(os.environ)
        handed = listening_fds(os.environ)
        for name, fd in handed:
            logger.debug("systemd has handed over socket %d, named %r", fd, name)
        inherited = [fd for _, fd in handed]
        config = _config(settings, inherited, imports=False)
        if settings["reload"] or config.workers.supervised:
            return _supervise(settings, config, options.arguments, notifier)
        single = Single(settings["control-socket"], notifier)
        try:
            return _serve(settings, inherited, single)
        finally:
            single.close()


def _serve(settings: Settings, inherited: Sequence[int], single: Single) -> int:
    """Serve in this process alone."""
    app = _imported(settings)
    config = _config(settings, inherited)
    return _run(Server(app, config), single, debug=settings["verbosity"] >= 3)


def _work(settings: Settings, post: Post) -> int:
    """Serve as a worker."""
    app = _imported(settings)
    server = Server(app, post.config(_config(settings, post.sockets)))
    return _run(server, Worker(post), debug=settings["verbosity"] >= 3)


def _supervise(
    settings: Settings, config: Config, arguments: Sequence[str], notifier: Notifier
) -> int:
    """See to it that workers serve."""
    beside = None
    if settings["reload"]:
        folders = settings["reload-dir"] or [settings["app-dir"]]
        watch = Watch(folders, settings["reload-include"], settings["reload-exclude"])
        beside = functools.partial(keep_current, watch=watch)
    supervisor = Supervisor(command_of(arguments), config, notifier=notifier, beside=beside)
    with asyncio.Runner() as runner:
        return runner.run(supervisor.run())


def _imported(settings: Settings) -> ASGIApplication:
    sys.path.insert(0, os.path.abspath(settings["app-dir"]))
    app = _application(settings)
    if settings["otel"]:
        # After the application, which may have set OpenTelemetry up itself.
        app = telemetry.install(events=settings["otel-events"]).traced(app)
    return app


def _application(settings: Settings) -> ASGIApplication:
    """Return what the settings name, as an ASGI application."""
    path, websockets_path = settings["application"], settings["websockets"]
    app, interface = _loaded(path, settings["interface"])
    if interface is not Interface.WSGI:
        if websockets_path is not None:
            raise ConfigurationError(
                f"{path} is an ASGI application, which takes its WebSockets itself: leave out "
                f"{settings.where('websockets')}, or say --interface wsgi"
            )
        return as_asgi(app, interface)
    websockets = None
    if websockets_path is not None:
        asgi, interface = _loaded(websockets_path, "auto")
        if interface is Interface.WSGI:
            raise ConfigurationError(
                f"{settings.where('websockets')} {websockets_path}: that is a WSGI application, "
                "WebSockets take an ASGI one, for instance mysite.asgi:application"
            )
        websockets = as_asgi(asgi, interface)
    threads = settings["wsgi-threads"]
    logger.info(
        "%s is a WSGI application, served in %d threads; WebSockets go to %s",
        path,
        threads,
        websockets_path or "nobody (--websockets MODULE:APP)",
    )
    return WsgiApplication(app, threads=threads, websockets=websockets)


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
    if not module_name or module_name.startswith("."):
        raise ConfigurationError(
            f"{path!r} names no application: write MODULE:NAME, "
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


def _run(server: Server, beside: Single | Worker, *, debug: bool) -> int:
    if server.config.speaks_http2:
        # Now, and not while the first client of HTTP/2 and all others wait for it.
        importlib.import_module("headrace.server.http2")
    give_way()
    server.settled = Settled()
    _use_all_descriptors()
    with asyncio.Runner(debug=debug or None, loop_factory=new_event_loop) as runner:
        loop = runner.get_loop()
        Handover().attend(loop)
        beside.attend(server, loop)
        try:
            run_server(server, loop, signals=isinstance(beside, Single), started=beside.started)
        except LifespanFailed as error:
            print(f"headrace: {error}", file=sys.stderr)
            return 1
        finally:
            loop.run_until_complete(beside.ended())
            if isinstance(app := inspect.unwrap(server.app), WsgiApplication):
                app.close()
        if server.hurried and _threads_left():
            # Python would wait for them, and nothing can end a thread that blocks.
            logger.warning("threads of the application are still at work: the process ends")
            logging.shutdown()
            sys.stdout.flush()
            os._exit(0)
    return 0


def _use_all_descriptors() -> None:
    """Have as many file descriptors as we may: a shell gives 1024 to programs that don't ask."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _threads_left() -> bool:
    return any(
        not thread.daemon and thread is not threading.main_thread()
        for thread in threading.enumerate()
    )


def _configure_logging(settings: Settings) -> None:
    level = settings["log-level"] or _VERBOSITY[settings["verbosity"]]
    access_log = settings["access-log"]
    try:
        formatter, filters = formatter_for(settings["log-format"], settings["log-fmt"])
    except ValueError as error:
        raise ConfigurationError(
            f"{settings.where('log-fmt')} {settings['log-fmt']!r}: {error}"
        ) from None

    def write_to(handler: logging.Handler) -> logging.Handler:
        handler.setFormatter(formatter)
        for each in filters:
            handler.addFilter(each)
        return handler

    everything = write_to(logging.StreamHandler())
    _log_to(logging.getLogger("headrace"), everything, level)
    if settings["log-format"] is LogFormat.JSON:
        # What other loggers have to say, the application's above all, would be lines of no form.
        logging.getLogger().addHandler(everything)
    if isinstance(access_log, str):
        # Asked for by name, it is written whatever the level of the rest.
        handler = _opened(access_log, settings.where("access-log"))
        _log_to(logging.getLogger("headrace.access"), write_to(handler), "info")


def _log_to(logger: logging.Logger, handler: logging.Handler, level: str) -> None:
    logger.addHandler(handler)
    logger.setLevel(level.upper())
    # The application's own logging, Django's LOGGING say, may add to this, not repeat it.
    logger.propagate = False


def _opened(path: str, where: str) -> logging.Handler:
    """Return the handler for the access log; a file that logrotate moves is opened anew."""
    if path in ("", "-"):
        return logging.StreamHandler(sys.stdout if path else sys.stderr)
    try:
        return logging.handlers.WatchedFileHandler(path)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ConfigurationError(f"{where} {path}: {reason}") from None


def _config(settings: Settings, inherited: Sequence[int] = (), *, imports: bool = True) -> Config:
    """Return what the settings say.

    Args:
        settings: These.
        inherited: Sockets to listen on where the settings name no place.
        imports: Whether what is named by a module is imported.
    """
    extensions: list[ExtensionFactory] = []
    if imports:
        extensions += [_extension(settings, path) for path in settings["extension"]]
    if settings["compression"]:
        extensions.append(DeflateFactory())
    first, *also = _endpoints(settings, inherited)
    more: dict[str, Any] = {
        "host": first.host,
        "port": first.port,
        "uds": first.uds,
        "uds_mode": first.uds_mode,
        "fd": first.fd,
        "tls": first.tls,
        "proxied": first.proxy_protocol,
        "also": tuple(also),
        "proxy_protocol": _trusted(settings, ProxyProtocol),
        "proxy_headers": _proxy_headers(settings),
        "access_log": settings["access-log"] is not False,
        "websocket.frame_bytes": settings["max-frame-bytes"] or settings["max-message-bytes"],
        "extensions": tuple(extensions),
    }
    return settings.config(more)


def _endpoints(settings: Settings, inherited: Sequence[int]) -> list[Endpoint]:
    """Return every place that the settings name, or the one that nobody needs to."""
    endpoints = []
    speaks: dict[str, Any] = {"tls": _tls(settings), "proxy_protocol": settings["proxy-protocol"]}
    if settings["fd"] is not None:
        endpoints.append(Endpoint(fd=settings["fd"], **speaks))
    if settings["uds"] is not None:
        endpoints.append(Endpoint(uds=settings["uds"], uds_mode=settings["uds-mode"], **speaks))
    for text in settings["endpoint"]:
        try:
            endpoints.append(Endpoint.from_twisted(text))
        except ConfigurationError as error:
            raise ConfigurationError(f"{settings.where('endpoint')}: {error}") from None
    nowhere = not endpoints and not settings.given("bind") and not settings.given("port")
    if nowhere and inherited:
        return [Endpoint(fd=fd, **speaks) for fd in inherited]
    if settings.given("bind") or settings.given("port") or not endpoints:
        endpoints.insert(0, Endpoint(host=settings["bind"], port=settings["port"], **speaks))
    return endpoints


def _tls(settings: Settings) -> Tls | None:
    """Return what TLS is spoken with; None where no certificate is named."""
    if settings["tls-certificate"] is None:
        for option in OPTIONS[TLS]:
            if settings.given(option.name):
                raise ConfigurationError(
                    f"{settings.where(option.name)} says how TLS is spoken: name the certificate "
                    "with --tls-certificate, too"
                )
        return None
    return Tls(
        certificate=settings["tls-certificate"],
        key=settings["tls-key"],
        password=settings["tls-password"],
        password_file=settings["tls-password-file"],
        client_certificates=settings["tls-client-certificates"],
        client_ca=settings["tls-client-ca"],
        minimum_version=settings["tls-minimum-version"],
        ciphers=settings["tls-ciphers"],
        handshake_timeout_s=settings["tls-handshake-timeout"],
    )


def _proxy_headers(settings: Settings) -> ProxyHeaders | None:
    if not settings["proxy-headers"]:
        for name in ("proxy-headers-host", "proxy-headers-port", "trusted-proxies"):
            of_both = name == "trusted-proxies" and settings["proxy-protocol"]
            if settings[name] is not None and not of_both:
                raise ConfigurationError(
                    f"{settings.where(name)} says how --proxy-headers works: give that, too"
                )
        return None
    defaults = ProxyHeaders()
    return _trusted(
        settings,
        ProxyHeaders,
        address=settings["proxy-headers-host"] or defaults.address,
        port=settings["proxy-headers-port"] or defaults.port,
    )


def _trusted(settings: Settings, of: Callable[..., T], **more: Any) -> T:
    """Make something that believes our proxies."""
    try:
        return of(trusted=settings["trusted-proxies"] or (), **more)
    except ConfigurationError as error:
        raise ConfigurationError(f"{settings.where('trusted-proxies')}: {error}") from None


def _extension(settings: Settings, path: str) -> ExtensionFactory:
    found = load(path)
    factory: ExtensionFactory = found() if isinstance(found, type) else found
    if not callable(getattr(factory, "negotiate", None)):
        raise ConfigurationError(
            f"{settings.where('extension')} {path}: an extension factory has a name and a "
            "method negotiate()"
        )
    return factory
