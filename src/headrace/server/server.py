"""The server: listening sockets, the application's start and stop, and a graceful end.

Rules of this file:

- ``start`` returns when connections are accepted, ``stop`` when nothing of the server is left.
- A stop: no new connections; the application hears of it (``websocket.disconnect`` 1001, then
  the lifespan's shutdown); what is under way finishes; a deadline ends what does not.
- A patient stop loses nobody: who waits to be accepted is, a connection that waits for its
  client's next request answers that with ``Connection: close``, and WebSockets are closed a few
  at a time.
- Whoever is in a hurry waits for nothing but what was cancelled.
"""

import asyncio
import contextlib
import logging
import select
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Sequence
from types import TracebackType
from typing import Any, Self

from ..exceptions import CloseCode
from ..instruments import Snapshot
from .arrival import Arrivals
from .config import Config
from .connection import Connection
from .counters import Counters
from .endpoint import Endpoint
from .health import unready, with_health_path
from .lifespan import LifespanTask
from .listening import Listening, address_of, is_unix
from .metrics import observatory, observatory_config
from .runtime import ASGIApplication, Drainable, Runtime
from .settled import Settled
from .snapshot import Probe, take
from .tls import Credentials
from .turn import Turn
from .websocket import WebSocketStream
from .wheel import Wheel

try:
    from .reactor import Listener, Reactor
except ModuleNotFoundError:  # it is there only where the core is compiled, on Linux
    REACTOR = None
else:
    REACTOR = Reactor

__all__ = ["Server"]

logger = logging.getLogger("headrace.server")

#: How long a task may take to end once it was cancelled.
CANCELLED_S = 2.0
#: Connections that are accepted in one turn of the loop.
ACCEPTS = 16
#: Bytes for one client that the system holds and has not sent yet; those on their way are beside.
UNSENT_BYTES = 128 * 1024
#: How long a patient stop goes on to accept who waits for it.
ACCEPT_S = 0.25
#: The part of a stop's time in which every WebSocket is closed, however many there are: the rest
#: is for their answers.
CLOSING_SHARE = 0.7
#: So often some of them are closed.
CLOSING_STEP_S = 0.02


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
        #: The number of this process among the workers; 0: it is the only one.
        self.worker = 0
        #: Connections of this process have numbers beyond this one.
        self.numbers_from = 0
        #: WebSockets that a stop closes in a second; 0: all at once.
        self.close_rate = 0.0
        #: How long a stop lets connections wait for a request that may be on its way.
        self.idle_grace_s = 0.0
        #: Who owns the process lets settled WebSockets out of its garbage collections.
        self.settled: Settled | None = None
        self._runtime: Runtime | None = None
        self._lifespan: LifespanTask | None = None
        self._probe: Probe | None = None
        #: The server of the private port, for metrics and health checks.
        self._observatory: Server | None = None
        self._listeners: list[asyncio.Server | Arrivals | Listener] = []
        self._reactor: Reactor | None = None
        self._signal = asyncio.Event()
        self._hurry = asyncio.Event()
        self._stopped = asyncio.Event()
        self._bound: list[Listening] = []
        self._last: Snapshot | None = None

    @property
    def addresses(self) -> list[str]:
        """Where the server listens: ``http://127.0.0.1:8000`` or ``unix:/run/app.sock``."""
        return [
            address_of(sock, "https" if _is_secure(listener) else "http")
            for listener in self._listeners
            for sock in listener.sockets
        ]

    @property
    def port(self) -> int:
        """The TCP port of the first listening socket that has one."""
        for sock in self._sockets():
            if not is_unix(sock):
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
        for listener in self._listeners:
            for sock in listener.sockets:
                if not is_unix(sock):
                    host, port = sock.getsockname()[:2]
                    # All addresses of this host are no address that a client could ask for.
                    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
                    host = f"[{host}]" if ":" in host else host
                    return f"{scheme}{'s' if _is_secure(listener) else ''}://{host}:{port}"
        raise RuntimeError("a server that listens on no TCP port has no URL")

    @property
    def counters(self) -> Counters:
        """What happened since the start."""
        assert self._runtime is not None, "the server has not been started"
        return self._runtime.counters

    def snapshot(self) -> Snapshot:
        """Return what the server is doing, and has done: see ``headrace.instruments``.

        After a stop that is what it had done by then.
        """
        if self._runtime is None or self._probe is None:
            assert self._last is not None, "the server has not been started"
            return self._last
        return take(self._runtime, self._probe)

    @property
    def runtime(self) -> Runtime:
        """What all connections share."""
        assert self._runtime is not None, "the server has not been started"
        return self._runtime

    @property
    def has_started(self) -> bool:
        """Whether clients are served, or were until the stop began."""
        return self._runtime is not None and self._runtime.serving

    async def until_ending(self) -> None:
        """Wait until ``serve()`` is told to stop."""
        await self._signal.wait()

    @property
    def is_ending(self) -> bool:
        """Whether ``serve()`` was told to stop."""
        return self._signal.is_set()

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
        app = self.app
        if self.config.health_path:
            app = with_health_path(app, self.config.health_path, self._why_unready)
        runtime = self._runtime = Runtime(
            app=app,
            config=self.config,
            loop=loop,
            turn=Turn(loop),
            wheel=Wheel(loop),
            worker=self.worker,
            numbered=self.numbers_from,
            settled=self.settled,
        )
        if self.config.speaks_http2:
            # Now, and not while clients wait: it takes a tenth of a second.
            from . import http2  # noqa: F401
        lifespan = self._lifespan = LifespanTask(self.app, self.config.lifespan)
        try:
            for endpoint in self.config.endpoints():
                self._bound.append(Listening(endpoint))
            await self._open_observatory()
            await lifespan.start()
            runtime.state = lifespan.state
            if REACTOR is not None:
                self._reactor = REACTOR(loop)
            for bound, endpoint in zip(self._bound, self.config.endpoints(), strict=True):
                self._listeners.append(await self._listen(runtime, bound.sock, endpoint))
            self._probe = Probe(runtime)
            self._probe.start()
            runtime.serving = True
        except BaseException:
            await self._close_observatory()
            self._stop_listening()
            self._listeners.clear()
            while self._bound:
                self._bound.pop().close()
            self._runtime = None
            await lifespan.stop(timeout_s=CANCELLED_S)
            raise

    async def _listen(
        self, runtime: Runtime, sock: socket.socket, endpoint: Endpoint
    ) -> "asyncio.Server | Arrivals | Listener":
        loop, backlog = runtime.loop, self.config.backlog
        if not is_unix(sock):
            _keep_little_unsent(sock)
        if endpoint.tls is not None or endpoint.proxy_protocol:
            protocols = ("h2", "http/1.1") if self.config.speaks_http2 else ("http/1.1",)
            credentials = None if endpoint.tls is None else Credentials(endpoint.tls, protocols)
            return Arrivals(runtime, sock, endpoint, credentials)

        def connection() -> asyncio.BaseProtocol:
            return Connection(runtime)  # type: ignore[return-value] # by its methods it is one

        if self._reactor is not None:
            sock.listen(backlog)
            return self._reactor.listen(sock, connection)
        options: dict[str, Any] = {"sock": sock, "backlog": backlog}
        if isinstance(loop, asyncio.SelectorEventLoop) and endpoint.fd is None:
            # To asyncio, the backlog is also how often it tries to accept in one turn, each with
            # an error in the log where descriptors have run out. An inherited socket has a queue.
            options["backlog"] = min(backlog, ACCEPTS)
        if not is_unix(sock):
            listener = await loop.create_server(connection, **options)
        else:
            # The file of an inherited socket isn't ours to remove; from 3.13 on, asyncio would.
            if sys.version_info >= (3, 13):
                options["cleanup_socket"] = False
            listener = await loop.create_unix_server(connection, **options)
        sock.listen(backlog)
        return listener

    def _stop_listening(self) -> None:
        for listener in self._listeners:
            listener.close()
        if self._reactor is not None:
            self._reactor.close()
            self._reactor = None

    def renew_certificates(self) -> bool:
        """Read every certificate and key anew, for connections to come.

        Those that there are go on. What can't be used is told in the log, and the old one stays;
        then this returns False.
        """
        credentials = [
            listener.credentials
            for listener in self._listeners
            if isinstance(listener, Arrivals) and listener.credentials is not None
        ]
        return not [each for each in credentials if not each.reload()]

    async def stop(self) -> None:
        """Stop gracefully; a second call, or ``hurry()``, ends it at once.

        WebSockets are closed with ``farewell``, so many a second as ``close_rate`` says. With an
        ``idle_grace_s`` the stop is patient: connections that wait for a request have so long
        until they are closed, too.
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
        now = runtime.loop.time()
        deadline = now + config.shutdown_timeout_s
        runtime.idle_until = now + self.idle_grace_s
        for bound in self._bound:
            bound.remove_file()
        if self.idle_grace_s:
            await self._accept_the_last()
        self._stop_listening()
        farewells = asyncio.ensure_future(self._say_farewell(runtime, config.shutdown_timeout_s))
        if not await self._wait(runtime.quiet.wait(), config.shutdown_timeout_s):
            await self._cut_off(runtime)
        farewells.cancel()
        await asyncio.wait({farewells})
        if self._lifespan is not None:
            remaining_s = max(CANCELLED_S, deadline - runtime.loop.time())
            await self._wait(self._lifespan.stop(timeout_s=remaining_s), None)
        runtime.wheel.close()
        runtime.log.close()
        if self._probe is not None:
            self._last = self.snapshot()
            self._probe.stop()
        self._runtime = None
        await self._close_observatory()
        self._bound.clear()
        self._listeners.clear()
        self._stopped.set()

    async def _open_observatory(self) -> None:
        """Let metrics and health be asked for, before there is anything to tell."""
        config = self.config
        if config.metrics_port is not None:
            app = observatory(self._observed, self._why_unready, path=config.metrics_path)
            self._observatory = Server(app, observatory_config(config))
            await self._observatory.start()
            for address in self._observatory.addresses:
                logger.info("metrics and health checks are at %s%s", address, config.metrics_path)

    async def _close_observatory(self) -> None:
        if self._observatory is not None:
            await self._observatory.stop()
            self._observatory = None

    async def _observed(self) -> dict[str, Any]:
        workers = [self.snapshot()] if self._probe is not None else []
        return {"server": {}, "workers": workers, "ended": None}

    async def _why_unready(self) -> str | None:
        return unready(self._runtime)

    @property
    def metrics_port(self) -> int:
        """The port for metrics and health checks."""
        if self._observatory is None:
            raise RuntimeError("the server has no port for metrics: Config(metrics_port=...)")
        return self._observatory.port

    async def _accept_the_last(self) -> None:
        """Accept who waits in the system: a socket that is closed takes its queue along."""
        poll = select.poll()
        for sock in self._sockets():
            poll.register(sock.fileno(), select.POLLIN)
        loop = asyncio.get_running_loop()
        until = loop.time() + ACCEPT_S
        while poll.poll(0) and loop.time() < until and not self.hurried:  # noqa: ASYNC110
            await asyncio.sleep(0)

    async def _say_farewell(self, runtime: Runtime, within_s: float) -> None:
        """Close each connection as its kind wants it; WebSockets so many a second."""
        websockets: list[Drainable] = []
        for connection in list(runtime.connections):
            if isinstance(connection, WebSocketStream):
                websockets.append(connection)
            else:
                connection.drain()
        runtime.check_quiet()
        grace = asyncio.ensure_future(asyncio.sleep(runtime.idle_until - runtime.loop.time()))
        try:
            await self._close_slowly(runtime, websockets, within_s * CLOSING_SHARE)
            await grace
        finally:
            grace.cancel()
        for connection in list(runtime.connections):
            # For those that it left open the first time.
            if not isinstance(connection, WebSocketStream):
                connection.drain()

    async def _close_slowly(
        self, runtime: Runtime, websockets: list[Drainable], within_s: float
    ) -> None:
        rate = self.close_rate
        if rate and len(websockets) > rate * within_s:
            logger.info(
                "%d WebSockets are closed faster than %g a second, to be done in %g s",
                len(websockets),
                rate,
                within_s,
            )
            rate = len(websockets) / within_s
        start, done = runtime.loop.time(), 0
        while done < len(websockets):
            due = len(websockets)
            if rate:
                due = min(due, int((runtime.loop.time() - start) * rate) + 1)
            for websocket in websockets[done:due]:
                if websocket in runtime.connections:
                    websocket.drain()
            done = due
            if done < len(websockets):
                await asyncio.sleep(max(CLOSING_STEP_S, 1 / rate))

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
            runtime.cancel(task)
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
                    # A supervisor says it for all of its workers.
                    level = logging.DEBUG if self.worker else logging.INFO
                    logger.log(level, "Headrace listens on %s", address)
                if started is not None:
                    started()
                await self._signal.wait()
                await self.stop()
            logger.log(logging.DEBUG if self.worker else logging.INFO, "Headrace has stopped")
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)

    def end(self) -> None:
        """Let ``serve()`` stop gracefully, as SIGINT does."""
        self._signal.set()

    def end_patiently(
        self,
        *,
        farewell: tuple[int, str] = (CloseCode.SERVICE_RESTART, "the server restarts"),
        close_rate: float | None = None,
        idle_grace_s: float | None = None,
    ) -> None:
        """Let ``serve()`` stop so that no client loses anything, as SIGTERM does.

        What is None is as the configuration has it.
        """
        config = self.config
        self.farewell = farewell
        self.close_rate = config.close_rate if close_rate is None else close_rate
        self.idle_grace_s = config.idle_grace_s if idle_grace_s is None else idle_grace_s
        self.end()

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
            if number == signal.SIGTERM:
                self.end_patiently()
            else:
                self.end()

    def _sockets(self) -> Sequence[socket.socket]:
        return [sock for listener in self._listeners for sock in listener.sockets]


def _keep_little_unsent(sock: socket.socket) -> None:
    """Let the system take no more for a client than it can soon send: who is accepted inherits it.

    By itself it takes megabytes for one that reads nothing, which are nowhere counted, and whose
    end takes it most of a millisecond.
    """
    option = getattr(socket, "TCP_NOTSENT_LOWAT", None)  # Linux, macOS, FreeBSD
    if option is not None:
        with contextlib.suppress(OSError):  # it may be a socket of another kind that was inherited
            sock.setsockopt(socket.IPPROTO_TCP, option, UNSENT_BYTES)


def _is_secure(listener: "asyncio.Server | Arrivals | Listener") -> bool:
    return isinstance(listener, Arrivals) and listener.credentials is not None
