"""``manage.py runserver``: Django's development server, with WebSockets.

Rules of this file:

- It is Django's command with another server: addresses, checks, the autoreloader, what is said
  of a port that is taken, and the static files are Django's own.
- Whatever ends the process, its clients hear of it: the main thread, which the autoreloader
  lives in, ends the server on its way out.
"""

import logging
import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from django.apps import apps
from django.conf import ENVIRONMENT_VARIABLE, settings
from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler
from django.contrib.staticfiles.management.commands.runserver import Command as DjangoCommand
from django.core.exceptions import SuspiciousOperation
from django.core.handlers.exception import response_for_exception
from django.core.management.base import CommandError, CommandParser
from django.http import FileResponse, HttpRequest, HttpResponse
from django.utils import autoreload

from ... import __version__
from ...exceptions import ConfigurationError
from ...routing import get_default_application
from ...server.config import Config
from ...server.proxy import ProxyHeaders
from ...server.running import give_way
from ..development import DevelopmentServer, under_prefix

__all__ = ["Command"]

#: How long the server's process may take to end.
_GOODBYE_S = 8.0
#: The exit status by which Django's autoreloader asks its parent process to start another one.
_RELOAD = 3

#: Settings of the server, by the options that they can be given by: those of Daphne's command.
_TIMEOUTS = {
    "http_timeout_s": (
        ("--http_timeout", "--http-timeout"),
        "Seconds that a response may take (no limit).",
    ),
    "accept_timeout_s": (
        ("--websocket_handshake_timeout", "--websocket-handshake-timeout"),
        "Seconds that the application may take to accept a WebSocket (10).",
    ),
    "application_close_timeout_s": (
        ("--application-close-timeout", "--application_close_timeout"),
        "Seconds that the application may take to end once its client is gone (10).",
    ),
}


class Command(DjangoCommand):
    """Serve the ASGI application, static files too, and restart when the code changes."""

    help = (
        "Starts a development server for HTTP and WebSockets, which serves static files and "
        "restarts when the code changes."
    )

    _server: DevelopmentServer | None = None
    _reloader: autoreload.BaseReloader | None = None
    _to_watch: frozenset[Path] = frozenset()

    def add_arguments(self, parser: CommandParser) -> None:
        """Add to Django's arguments those of this server."""
        super().add_arguments(parser)
        parser.add_argument(
            "--noasgi",
            action="store_false",
            dest="use_asgi",
            help="Runs Django's own WSGI server instead, without WebSockets.",
        )
        for names, purpose in _TIMEOUTS.values():
            parser.add_argument(*names, type=float, metavar="S", help=purpose)
        parser.add_argument(
            "--proxy-headers",
            action="store_true",
            help="Believes any proxy that says where a request came from (X-Forwarded-For, "
            "-Port and -Proto).",
        )
        for name, purpose in (("host", "address"), ("port", "port")):
            parser.add_argument(
                f"--proxy-headers-{name}",
                metavar="HEADER",
                help=f"With --proxy-headers: the header that has the client's {purpose}.",
            )

    def handle(self, *args: Any, **options: Any) -> None:
        """Refuse to start without an application to serve."""
        if options["use_asgi"] and not getattr(settings, "ASGI_APPLICATION", None):
            raise CommandError(
                "You have not set ASGI_APPLICATION, which is needed to run the server. Write "
                'ASGI_APPLICATION = "project.asgi.application" in the settings, or pass --noasgi '
                "for HTTP alone."
            )
        try:
            Config(**_settings_of(options))
        except ConfigurationError as error:
            raise CommandError(f"{error}.") from None
        super().handle(*args, **options)

    def run(self, **options: Any) -> None:
        """Run the server, and end it when the main thread ends, for whatever reason."""
        if options["use_reloader"] and os.environ.get(autoreload.DJANGO_AUTORELOAD_ENV) != "true":
            sys.exit(_supervise())
        status: Any = 0
        autoreload.autoreload_started.connect(self._reloader_started)
        try:
            super().run(**options)
        except SystemExit as exit_:
            status = exit_.code
            raise
        finally:
            if self._server is not None and not self._end(status):
                _leave_at_once(status)

    def inner_run(self, *args: Any, **options: Any) -> None:
        """Check the project, load the application and serve it."""
        if options["use_asgi"]:
            # What Django calls with the address. Its threading mixin is of no use here.
            self.server_cls = partial(self._listen, options)  # type: ignore[assignment]
            options = {**options, "use_threading": False}
        super().inner_run(*args, **options)

    def get_handler(self, *args: Any, **options: Any) -> Any:
        """Return what is served: the ASGI application, behind static files where they are on."""
        has_static = apps.is_installed("django.contrib.staticfiles")
        static = options["use_static_handler"] and has_static
        if not options["use_asgi"]:
            return super().get_handler(*args, **{**options, "use_static_handler": static})
        try:
            application: Any = get_default_application()
        except Exception as error:
            self._watch(frozenset(_files_of(error)))
            raise
        if static and (settings.DEBUG or options["insecure_serving"]):
            application = _StaticFiles(application)
        return under_prefix(application, settings.FORCE_SCRIPT_NAME or "")

    def on_bind(self, server_port: int) -> None:
        """Say what is served, and where."""
        if self._server is None:
            super().on_bind(server_port)
            return
        # Django's own text, from 6.1 on, says that the server is a WSGI one.
        module = os.environ.get(ENVIRONMENT_VARIABLE)
        host: str = self.addr  # type: ignore[attr-defined]
        host = f"[{host}]" if ":" in host else {"0": "0.0.0.0"}.get(host, host)  # noqa: S104
        self.stdout.write(
            f"{datetime.now():%B %d, %Y - %X}\n"
            f"Django version {self.get_version()}, using settings {module!r}\n"
            f"Starting ASGI/Headrace version {__version__} development server at "
            f"{self.protocol}://{host}:{server_port}/\n"
            "Quit the server with CONTROL-C.\n"
        )
        if os.environ.get("DJANGO_RUNSERVER_HIDE_WARNING") != "true":
            self.stdout.write(
                self.style.WARNING(
                    "WARNING: This server is for development. In production, run the command "
                    "headrace serve."
                )
            )

    def _listen(
        self,
        options: dict[str, Any],
        address: tuple[str, int],
        handler_class: object,
        *,
        ipv6: bool,
    ) -> DevelopmentServer:
        del handler_class
        give_way()  # the application is there
        self._server = DevelopmentServer(address, ipv6=ipv6, **_settings_of(options))
        return self._server

    def _end(self, status: Any) -> bool:
        assert self._server is not None
        try:
            return self._server.end(restarting=status == _RELOAD)
        except KeyboardInterrupt:  # somebody is in a hurry
            return False

    # The autoreloader

    def _reloader_started(self, sender: autoreload.BaseReloader, **_: Any) -> None:
        self._reloader = sender
        self._watch(self._to_watch)

    def _watch(self, files: frozenset[Path]) -> None:
        """Watch the files that an import has failed in: they are no modules that Django knows."""
        self._to_watch = files
        if self._reloader is not None:
            # A new set: the reloader's thread may be walking through the old one.
            self._reloader.extra_files = self._reloader.extra_files | files


class _StaticFiles(ASGIStaticFilesHandler):
    """Django's static files; a path that climbs out of them is answered, too, and with 400."""

    def serve(self, request: HttpRequest) -> HttpResponse | FileResponse:
        """Return the file, or what Django's views answer with in its place."""
        try:
            return super().serve(request)
        except SuspiciousOperation as error:
            return response_for_exception(request, error)


def _settings_of(options: dict[str, Any]) -> dict[str, Any]:
    """Return what the options say of the server's ``Config``."""
    timeouts = {name: options.get(_attribute(flags)) for name, (flags, _) in _TIMEOUTS.items()}
    chosen: dict[str, Any] = {name: value for name, value in timeouts.items() if value is not None}
    if options.get("proxy_headers"):
        headers = {
            "address": options.get("proxy_headers_host"),
            "port": options.get("proxy_headers_port"),
        }
        named = {name: header for name, header in headers.items() if header}
        chosen["proxy_headers"] = ProxyHeaders(trusted=("*",), **named)
    return chosen


def _attribute(flags: Sequence[str]) -> str:
    """Return the name under which argparse keeps an option."""
    return flags[0].lstrip("-").replace("-", "_")


def _supervise() -> int:
    """Run this command in a child process, anew whenever that asks for it; return its status.

    Django's own loop kills the child when it is told to stop. This one lets it say goodbye.
    """
    arguments = autoreload.get_child_arguments()
    environment = {**os.environ, autoreload.DJANGO_AUTORELOAD_ENV: "true"}
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    while True:
        child = subprocess.Popen(arguments, env=environment, close_fds=False)  # noqa: S603
        try:
            status = child.wait()
        except (KeyboardInterrupt, SystemExit) as reason:
            if isinstance(reason, SystemExit):
                child.terminate()
            # Else the terminal has told the child itself; it is told once more if it lingers.
            for insist in (child.terminate, child.kill):
                try:
                    child.wait(_GOODBYE_S)
                except (subprocess.TimeoutExpired, KeyboardInterrupt, SystemExit):
                    insist()
            child.wait()
            return 0
        if status != _RELOAD:
            return status


def _files_of(error: BaseException | None) -> Iterator[Path]:
    """Yield the files of an error's traceback, and of those that it came from."""
    while error is not None:
        if isinstance(error, SyntaxError) and error.filename:
            yield Path(error.filename)
        for frame in traceback.extract_tb(error.__traceback__):
            yield Path(frame.filename)
        error = error.__cause__ or error.__context__


def _leave_at_once(status: Any) -> None:
    """End the process if something of the application would keep it from ending."""
    main = threading.main_thread()
    if any(not thread.daemon and thread is not main for thread in threading.enumerate()):
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status if isinstance(status, int) else 1)
