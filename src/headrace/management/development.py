"""The server of ``runserver``: Headrace's own, with the face that Django's command knows.

Rules of this file:

- The socket listens as soon as the server is made: what keeps it from that is an OSError, which
  Django's command has words for.
- It runs in whatever thread the command puts it, and ends when another one says so.
- A request is one line of the logger ``django.server``, in the form and the colours that
  Django gives its lines; a WebSocket is a line for each of its turns.
"""

import asyncio
import contextlib
import logging
import socket
import threading
import time
from collections.abc import Awaitable
from typing import Any

from ..exceptions import CloseCode
from ..protocols.http1 import RequestReceived
from ..server.asgi import printable
from ..server.config import Config
from ..server.running import new_event_loop, run
from ..server.runtime import ASGIApplication, Receive, Scope, Send
from ..server.server import Server

__all__ = ["DevelopmentServer", "RequestLog", "under_prefix"]

logger = logging.getLogger("django.server")

#: How long a stop waits for what is under way: whoever has saved a file is waiting, too.
_PATIENCE_S = 2.0
#: And for what was cut off then.
_CUT_OFF_S = 5.0


class DevelopmentServer:
    """A server that listens at once, and serves when it is told.

    Args:
        address: Host and port; port 0 is any free one.
        ipv6: Whether the host is to be looked up as an IPv6 address.
        settings: What ``Config`` is to say.
    """

    def __init__(self, address: tuple[str, int], *, ipv6: bool, **settings: Any) -> None:
        self._socket = socket.socket(socket.AF_INET6 if ipv6 else socket.AF_INET)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.bind(address)
            self._socket.listen()
        except BaseException:
            self._socket.close()
            raise
        self.server_port: int = self._socket.getsockname()[1]
        self._settings = settings
        self._application: ASGIApplication | None = None
        self._server: Server | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._over = threading.Event()
        #: It was told to end, be it before it began.
        self._told = False

    def set_app(self, application: ASGIApplication) -> None:
        """Take the ASGI application that is to be served."""
        self._application = application

    def serve_forever(self) -> None:
        """Serve until ``end()``, or in the main thread until SIGTERM or SIGINT.

        These become a KeyboardInterrupt.
        """
        assert self._application is not None
        config = Config(
            fd=self._socket.fileno(),
            access_log=False,
            watcher=RequestLog(),
            shutdown_timeout_s=_PATIENCE_S,
            **self._settings,
        )
        in_main_thread = threading.current_thread() is threading.main_thread()
        try:
            with asyncio.Runner(loop_factory=new_event_loop) as runner:
                self._server = Server(self._application, config)
                self._loop = runner.get_loop()
                if not self._told:
                    run(self._server, self._loop, signals=in_main_thread)
        finally:
            self._socket.close()
            self._over.set()
        if in_main_thread:
            raise KeyboardInterrupt  # for Django's command, which has heard no signal

    def end(self, *, restarting: bool) -> bool:
        """End what another thread serves; False when something of the application goes on.

        Clients of WebSockets are told whether to come back at once (1012) or that the server
        goes (1001).
        """
        self._told = True
        server, loop = self._server, self._loop
        if server is None or loop is None:
            return True
        if restarting:
            server.farewell = (CloseCode.SERVICE_RESTART, "the development server restarts")
        with contextlib.suppress(RuntimeError):  # it has ended by itself
            loop.call_soon_threadsafe(server.end)
        ended = self._over.wait(_PATIENCE_S + _CUT_OFF_S)
        return ended and not server.hurried


class RequestLog:
    """What the terminal shows: see ``headrace.server.config.Watcher``."""

    def __init__(self) -> None:
        #: Path and client of each WebSocket that is open.
        self._websockets: dict[object, tuple[str, str]] = {}

    def request(
        self, peer: str, request: RequestReceived, status: int, duration_s: float | None, /
    ) -> None:
        """Show a request."""
        took = f"{duration_s or 0:.2f}"
        _show(f"HTTP {request.method} {_target(request)} {status} [{took}, {peer}]", status)

    def websocket_opening(self, key: object, peer: str, request: RequestReceived, /) -> None:
        """Show that a client asks for a WebSocket."""
        self._websockets[key] = _target(request), peer
        self._show("HANDSHAKING", key)

    def websocket_accepted(self, key: object, /) -> None:
        """Show that it is open."""
        self._show("CONNECT", key, status=101)

    def websocket_refused(self, key: object, status: int, /) -> None:
        """Show that it is not."""
        self._show("REJECT", key, status, status=status)
        del self._websockets[key]

    def websocket_closed(self, key: object, code: int, /) -> None:
        """Show that it is over."""
        failed = code == CloseCode.INTERNAL_ERROR
        self._show("DISCONNECT", key, int(code), status=500 if failed else None)
        del self._websockets[key]

    def _show(
        self, turn: str, key: object, number: int | None = None, *, status: int | None = None
    ) -> None:
        path, peer = self._websockets[key]
        what = path if number is None else f"{path} {number}"
        _show(f"WebSocket {turn} {what} [{peer}]", status)


def _target(request: RequestReceived) -> str:
    return printable(request.target.decode("latin-1"))


def _show(line: str, status: int | None) -> None:
    """Write a line; Django's formatter takes the colour from the status."""
    if status is None or status < 400:
        level = logging.INFO
    else:
        level = logging.WARNING if status < 500 else logging.ERROR
    extra: dict[str, Any] = {"server_time": time.strftime("%d/%b/%Y %H:%M:%S")}
    if status is not None:
        extra["status_code"] = status
    logger.log(level, "%s", line, extra=extra)


def under_prefix(application: ASGIApplication, prefix: str) -> ASGIApplication:
    """Return the application such that routes match with and without the prefix.

    There is no proxy in development that would take ``FORCE_SCRIPT_NAME`` off the path.
    """
    prefix = prefix.rstrip("/")

    def prefixed(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope.get("path", "").startswith(f"{prefix}/"):
            scope["root_path"] = prefix
        return application(scope, receive, send)

    return prefixed if prefix else application
