"""The server: listening sockets, the application's start and stop, and a graceful end.

Rules of this file:

- ``start`` returns when connections are accepted, ``stop`` when nothing of the server is left.
- A stop: no new connections; the application hears of it (``websocket.disconnect`` 1001, then
  the lifespan's shutdown); what is under way finishes; a deadline ends what does not.
- Whoever is in a hurry waits for nothing but what was cancelled.
"""

import asyncio
import contextlib
import errno
import logging
import os
import signal
import socket
import stat
import sys
from collections.abc import Callable, Coroutine, Sequence
from types import TracebackType
from typing import Any, Self

from ..exceptions import CloseCode, ConfigurationError
from ..instruments import Snapshot
from .config import Config
from .connection import Connection
from .counters import Counters
from .endpoint import Endpoint
from .lifespan import LifespanTask
from .runtime import ASGIApplication, Runtime
from .snapshot import Probe, take
from .turn import Turn
from .wheel import Wheel

__all__ = ["Server"]

logger = logging.getLogger("headrace.server")

#: How long a task may take to end once it was cancelled.
CANCELLED_S = 2.0


class Server:
    """An ASGI server in this process, on the running event loop.

    ::

        async with Server(app, Config(port=0)) as server:
            print(server.addresses)

    Args:
        app: An ASGI 3 application.
        config: Where to listen, and every limit.
    """

    def __init__(self, app: ASGIApplication, config: Config | None = None) -> None:
        self.app = app
        self.config = config if config is not None else Config()
        #: The close code and reason that a stop sends to WebSockets.
        self.farewell: tuple[int, str] = (CloseCode.GOING_AWAY, "the server is stopping")
        self._runtime: Runtime | None = None
        self._lifespan: LifespanTask | None = None
        self._probe: Probe | None = None
        self._listeners: list[asyncio.Server] = []
        self._signal = asyncio.Event()
        self._hurry = asyncio.Event()
        self._stopped = asyncio.Event()
        self._socket_files: list[tuple[str, int]] = []

    @property
    def addresses(self) -> list[str]:
        """Where the server listens: ``http://127.0.0.1:8000`` or ``unix:/run/app.sock``."""
        return [_address(sock) for sock in self._sockets()]

    @property
    def port(self) -> int:
        """The TCP port of the first listening socket that has one."""
        for sock in self._sockets():
            if not _is_unix(sock):
                port: int = sock.getsockname()[1]
                return port
        raise RuntimeError("the server listens on no TCP port")

    @property
    def url(self) -> str:
        """Where a client of this host reaches the server: ``http://127.0.0.1:8000``."""
        return self._url("http")

    @property
    def websocket_url(self) -> str:
        """The same for WebSockets: ``ws://127.0.0.1:8000``."""
        return self._url("ws")

    def _url(self, scheme: str) -> str:
        for sock in self._sockets():
            if not _is_unix(sock):
                host, port = sock.getsockname()[:2]
                # All addresses of this host are no address that a client could ask for.
                host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
                return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
        raise RuntimeError("a server that listens on no TCP port has no URL")

    @property
    def counters(self) -> Counters:
        """What happened since the start."""
        assert self._runtime is not None, "the server has not been started"
        return self._runtime.counters

    def snapshot(self) -> Snapshot:
        """Return what the server is doing, and has done: see ``headrace.instruments``."""
        assert self._runtime is not None, "the server has not been started"
        assert self._probe is not None
        return take(self._runtime, self._probe)

    @property
    def hurried(self) -> bool:
        """Whether the stop did not wait for all that was under way."""
        return self._hurry.is_set()

    async def start(self) -> None:
        """Start the application and accept connections.

        Raises ConfigurationError, with what to do, where the address can't be had or the
        application says that it can't start.
        """
        assert self._runtime is None, "the server has been started"
        loop = asyncio.get_running_loop()
        runtime = self._runtime = Runtime(
            app=self.app, config=self.config, loop=loop, turn=Turn(loop), wheel=Wheel(loop)
        )
        sockets: list[socket.socket] = []
        lifespan = self._lifespan = LifespanTask(self.app, self.config.lifespan)
        try:
            for endpoint in self.config.endpoints():
                sockets.append(self._bind(endpoint))  # noqa: PERF401 - those bound get closed
            await lifespan.start()
            runtime.state = lifespan.state
            for sock in sockets:
                self._listeners.append(await self._listen(runtime, sock))
            self._probe = Probe(runtime)
            self._probe.start()
        except BaseException:
            for listener in self._listeners:
                listener.close()
            self._listeners.clear()
            for sock in sockets:
                sock.close()
            self._remove_socket_files()
            self._runtime = None
            await lifespan.stop(timeout_s=CANCELLED_S)
            raise

    async def _listen(self, runtime: Runtime, sock: socket.socket) -> asyncio.Server:
        loop, backlog = runtime.loop, self.config.backlog
        if not _is_unix(sock):
            return await loop.create_server(lambda: Connection(runtime), sock=sock, backlog=backlog)
        # The file of an inherited socket isn't ours to remove; from Python 3.13 on, asyncio would.
        options: dict[str, Any] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}
        return await loop.create_unix_server(
            lambda: Connection(runtime), sock=sock, backlog=backlog, **options
        )

    async def stop(self) -> None:
        """Stop gracefully; a second call, or ``hurry()``, ends it at once.

        WebSockets are closed with ``farewell``.
        """
        runtime, config = self._runtime, self.config
        if runtime is None:
            return
        if runtime.draining:
            self.hurry()
            await self._stopped.wait()
            return
        runtime.draining = True
        runtime.farewell = self.farewell
        deadline = runtime.loop.time() + config.shutdown_timeout_s
        for listener in self._listeners:
            listener.close()
        self._remove_socket_files()
        for connection in list(runtime.connections):
            connection.drain()
        runtime.check_quiet()
        if not await self._wait(runtime.quiet.wait(), config.shutdown_timeout_s):
            await self._cut_off(runtime)
        if self._lifespan is not None:
            remaining_s = max(CANCELLED_S, deadline - runtime.loop.time())
            await self._wait(self._lifespan.stop(timeout_s=remaining_s), None)
        runtime.wheel.close()
        if self._probe is not None:
            self._probe.stop()
        self._runtime = None
        self._listeners.clear()
        self._stopped.set()

    async def _cut_off(self, runtime: Runtime) -> None:
        """End every connection and task that is left."""
        if not self.hurried:
            self.hurry()
            logger.warning(
                "%d connections and %d tasks of the application have not ended in %g s: "
                "they are cut off",
                len(runtime.connections),
                len(runtime.tasks),
                self.config.shutdown_timeout_s,
            )
        for connection in list(runtime.connections):
            connection.abort()
        for task in list(runtime.tasks):
            task.cancel()
        runtime.check_quiet()
        try:
            async with asyncio.timeout(CANCELLED_S):
                await runtime.quiet.wait()
        except TimeoutError:
            logger.error(
                "%d tasks of the application go on although they were cancelled",
                len(runtime.tasks),
            )

    def hurry(self) -> None:
        """End a graceful stop at once."""
        self._hurry.set()

    async def _wait(self, what: Coroutine[Any, Any, object], timeout_s: float | None) -> bool:
        """Wait for it, but no longer than that, and only until somebody is in a hurry."""
        task = asyncio.ensure_future(what)
        hurry = asyncio.ensure_future(self._hurry.wait())
        try:
            await asyncio.wait(
                {task, hurry}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED
            )
            return task.done()
        finally:
            task.cancel()
            hurry.cancel()
            await asyncio.wait({task, hurry})
            if not task.cancelled():
                task.result()

    async def serve(
        self, *, signals: bool = True, started: Callable[[], object] | None = None
    ) -> None:
        """Start, run until SIGTERM, SIGINT or ``end()``, and stop.

        A second signal ends it at once.

        Args:
            signals: Whether the signals are heard; only the main thread can.
            started: Called when connections are accepted.
        """
        loop = asyncio.get_running_loop()
        numbers = (signal.SIGTERM, signal.SIGINT) if signals else ()
        for number in numbers:
            loop.add_signal_handler(number, self._signalled, number)
        try:
            if await self._start_unless_signalled():
                for address in self.addresses:
                    logger.info("Headrace listens on %s", address)
                if started is not None:
                    started()
                await self._signal.wait()
                await self.stop()
            logger.info("Headrace has stopped")
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)

    def end(self) -> None:
        """Let ``serve()`` stop gracefully, as a first signal does."""
        self._signal.set()

    def owns(self, error: BaseException) -> bool:
        """Say whether an application's task has just ended with this, and nothing else has.

        asyncio lets a SystemExit of any task end the loop, too. The connection is answered for as
        after any other exception; who runs the loop may go on with it.
        """
        runtime = self._runtime
        if runtime is None:
            return False
        # uvloop lets the task's callbacks run before the loop ends, asyncio does not.
        answered, runtime.exited = runtime.exited, None
        return error is answered or any(
            task.done() and not task.cancelled() and task.exception() is error
            for task in runtime.tasks
        )

    async def _start_unless_signalled(self) -> bool:
        start = asyncio.ensure_future(self.start())
        signalled = asyncio.ensure_future(self._signal.wait())
        await asyncio.wait({start, signalled}, return_when=asyncio.FIRST_COMPLETED)
        signalled.cancel()
        if not start.done():
            start.cancel()
        await asyncio.wait({start, signalled})
        if start.cancelled():
            return False
        start.result()
        return True

    async def __aenter__(self) -> Self:
        """Start."""
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop."""
        await self.stop()

    def _signalled(self, number: int) -> None:
        name = signal.Signals(number).name
        if self._signal.is_set():
            logger.warning("%s again: ending at once", name)
            self.hurry()
        else:
            logger.info("%s: stopping; once more ends it at once", name)
            self.end()

    def _sockets(self) -> Sequence[socket.socket]:
        return [sock for listener in self._listeners for sock in listener.sockets]

    def _bind(self, endpoint: Endpoint) -> socket.socket:
        try:
            if endpoint.fd is not None:
                return socket.socket(fileno=os.dup(endpoint.fd))
            if endpoint.uds is not None:
                return self._bind_unix(endpoint.uds, endpoint.uds_mode)
            family = socket.AF_INET6 if ":" in endpoint.host else socket.AF_INET
            sock = socket.socket(family, socket.SOCK_STREAM)
            try:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                sock.bind((endpoint.host, endpoint.port))
            except BaseException:
                sock.close()
                raise
        except OSError as error:
            hint = _HINTS.get(error.errno or 0, "choose another with --bind, --port, --uds or --fd")
            reason = (error.strerror or str(error)).lower()
            raise ConfigurationError(f"cannot listen on {endpoint}: {reason}; {hint}") from error
        return sock

    def _bind_unix(self, path: str, mode: int | None) -> socket.socket:
        with contextlib.suppress(FileNotFoundError):
            # A socket that a killed server left behind may go; anything else may not.
            if stat.S_ISSOCK(os.stat(path).st_mode) and not _answers(path):
                os.unlink(path)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.bind(path)
            self._socket_files.append((path, os.stat(path).st_ino))
            if mode is not None:
                os.chmod(path, mode)
        except BaseException:
            sock.close()
            raise
        return sock

    def _remove_socket_files(self) -> None:
        while self._socket_files:
            path, inode = self._socket_files.pop()
            with contextlib.suppress(FileNotFoundError):
                # Only our own: a successor may listen under the same name by now.
                if os.stat(path).st_ino == inode:
                    os.unlink(path)


_HINTS = {
    errno.EADDRINUSE: "another program is there: stop it, or choose another place with --bind, "
    "--port or --uds",
    errno.EACCES: "that takes more rights: choose a port from 1024 up with --port, or another "
    "path with --uds",
    errno.EADDRNOTAVAIL: "this host has no such address: --bind takes one of its own, or 0.0.0.0",
    errno.EBADF: "--fd takes the number of a socket that was inherited",
    errno.ENOTSOCK: "--fd takes the number of a socket that was inherited",
}


def _is_unix(sock: socket.socket) -> bool:
    return sock.family == socket.AF_UNIX


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        return probe.connect_ex(path) == 0


def _address(sock: socket.socket) -> str:
    if _is_unix(sock):
        return f"unix:{sock.getsockname()}"
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
