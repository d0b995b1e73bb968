"""``manage.py runserver``: Django's development server, with WebSockets.

Rules of this file:

- It is Django's command with another server: addresses, checks, the autoreloader, the texts and
  the static files are Django's own.
- Whatever ends the process, its clients hear of it: the main thread, which the autoreloader
  lives in, ends the server on its way out.
"""

import logging
import os
import sys
import threading
import traceback
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from django.apps import apps
from django.conf import settings
from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler
from django.contrib.staticfiles.management.commands.runserver import Command as DjangoCommand
from django.core.management.base import CommandError, CommandParser
from django.utils import autoreload

from ... import __version__
from ...routing import get_default_application
from ..development import DevelopmentServer, under_prefix

__all__ = ["Command"]

#: The exit status by which Django's autoreloader asks its parent process to start another one.
_RELOAD = 3


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
        parser.add_argument(
            "--http_timeout",
            "--http-timeout",
            type=float,
            metavar="S",
            help="Seconds that a client may take nothing of its response.",
        )
        parser.add_argument(
            "--websocket_handshake_timeout",
            "--websocket-handshake-timeout",
            type=float,
            metavar="S",
            help="Seconds that the application may take to accept a WebSocket.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Refuse to start without an application to serve."""
        if options["use_asgi"] and not getattr(settings, "ASGI_APPLICATION", None):
            raise CommandError(
                "You have not set ASGI_APPLICATION, which is needed to run the server. Write "
                'ASGI_APPLICATION = "project.asgi.application" in the settings, or pass --noasgi '
                "for HTTP alone."
            )
        super().handle(*args, **options)

    def run(self, **options: Any) -> None:
        """Run the server, and end it when the main thread ends, for whatever reason."""
        status: Any = 0
        autoreload.autoreload_started.connect(self._reloader_started)
        try:
            super().run(**options)
        except SystemExit as exit_:
            status = exit_.code
            raise
        finally:
            if self._server is not None and not self._server.end(restarting=status == _RELOAD):
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
            application = ASGIStaticFilesHandler(application)
        return under_prefix(application, settings.FORCE_SCRIPT_NAME or "")

    def on_bind(self, server_port: int) -> None:
        """Say what is served, and where."""
        if self._server is not None:
            path = getattr(settings, "ASGI_APPLICATION", None)
            self.stdout.write(f"Headrace {__version__} serves {path}")
        super().on_bind(server_port)

    def _listen(
        self,
        options: dict[str, Any],
        address: tuple[str, int],
        handler_class: object,
        *,
        ipv6: bool,
    ) -> DevelopmentServer:
        del handler_class
        given = {
            "write_timeout_s": options.get("http_timeout"),
            "accept_timeout_s": options.get("websocket_handshake_timeout"),
        }
        chosen = {name: value for name, value in given.items() if value is not None}
        self._server = DevelopmentServer(address, ipv6=ipv6, **chosen)
        return self._server

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
