"""An event loop for a server: in this thread, or in one of its own.

Rules of this file:

- uvloop runs the server where it is installed, asyncio's own loop where it is not.
- A thread that serves is left in one way only: its server has stopped. Whoever waits for that
  waits with a deadline.
"""

import asyncio
import gc
import logging
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import TracebackType
from typing import Self

from .config import Config
from .counters import Counters
from .handover import SHORT_S
from .runtime import ASGIApplication
from .server import CANCELLED_S, Server

__all__ = ["ThreadedServer", "ending_at_once", "give_way", "new_event_loop", "run"]

logger = logging.getLogger("headrace.server")

#: The size of block that the allocator is shown; what is written at once is well below.
KEPT_BYTES = 1024 * 1024


def give_way() -> None:
    """Keep the loop of this process, which does nothing but serve, waiting as little as can be.

    Called when the application has been imported.
    """
    # What was imported lives as long as the process: a full garbage collection, which stops
    # every connection, need not walk through it again and again.
    gc.collect()
    gc.freeze()
    # glibc takes the largest block that was given back for what is usual, and keeps twice as much
    # for the next time (mallopt(3), M_TRIM_THRESHOLD). If not, the memory of a large write can go
    # back to the system with each of them, to be had again page by page.
    bytes(KEPT_BYTES)
    sys.setswitchinterval(min(sys.getswitchinterval(), SHORT_S))


@contextmanager
def ending_at_once() -> Iterator[None]:
    """Let Ctrl-C end the process where it stands, until a loop takes the signals.

    Nothing is under way before that. A KeyboardInterrupt is not to be relied on meanwhile: one
    that is raised while a module is being imported can get lost (in a callback of importlib's).
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def new_event_loop() -> asyncio.AbstractEventLoop:
    """Return an event loop of the fastest kind that there is."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


def run(
    server: Server,
    loop: asyncio.AbstractEventLoop,
    *,
    signals: bool = True,
    started: Callable[[], object] | None = None,
) -> None:
    """Serve on a loop that isn't running, until a signal or ``server.end()``.

    A ``sys.exit()`` in a handler is that handler's failure. One in a task of the application's
    own stops the server gracefully, and comes out of here then.
    """
    task = loop.create_task(server.serve(signals=signals, started=started))
    asked: SystemExit | None = None
    while not task.done():
        try:
            loop.run_until_complete(task)
        except SystemExit as error:
            if not server.owns(error):
                logger.critical("sys.exit() in a task of the application: stopping", exc_info=error)
                asked = error
                server.end()
    if asked is not None:
        raise asked


class ThreadedServer:
    """A server on an event loop and in a thread of its own, for a program that has no loop.

    ::

        with ThreadedServer(app, Config(port=0)) as server:
            print(server.url, server.websocket_url)

    Several may run at once. Each can be started again after a stop. ``stop`` does nothing where
    nothing runs.

    Args:
        app: An ASGI 3 application.
        config: Where to listen, and every limit.
        around: Called for a context manager that is entered in the thread before the
            application starts, and left after it has stopped. Context variables that it sets are
            seen by the application.
    """

    def __init__(
        self,
        app: ASGIApplication,
        config: Config | None = None,
        *,
        around: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        self.app = app
        self.config = config if config is not None else Config()
        self._around = around
        self._server: Server | None = None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._error: BaseException | None = None

    @property
    def addresses(self) -> list[str]:
        """Where the server listens, as ``Server.addresses`` has it."""
        return self._running.addresses

    @property
    def port(self) -> int:
        """The first TCP port."""
        return self._running.port

    @property
    def url(self) -> str:
        """``http://127.0.0.1:50000``: where a client of this host reaches the server."""
        return self._running.url

    @property
    def websocket_url(self) -> str:
        """The same for WebSockets: ``ws://127.0.0.1:50000``."""
        return self._running.websocket_url

    @property
    def counters(self) -> Counters:
        """What happened since the start."""
        return self._running.counters

    @property
    def _running(self) -> Server:
        if self._server is None:
            raise RuntimeError("the server is not running: start() it first")
        return self._server

    def start(self) -> None:
        """Start the server; return when it accepts connections.

        What keeps it from starting is raised here: ConfigurationError for an address that can't
        be had, or an application that says that it can't start.
        """
        if self._thread is not None:
            raise RuntimeError("the server is running: stop() it first")
        server = Server(self.app, self.config)
        runner = asyncio.Runner(loop_factory=new_event_loop)
        started: Future[None] = Future()
        self._error = None
        self._loop = runner.get_loop()
        self._server = server
        # A daemon: where the application blocks it for ever, the program can still end.
        thread = self._thread = threading.Thread(
            target=self._run, args=(runner, server, started), name="headrace server", daemon=True
        )
        thread.start()
        try:
            started.result()
        except BaseException:
            # Ctrl-C, perhaps, while the application was starting.
            self._error = None
            self.stop()
            raise

    def stop(self, timeout_s: float | None = None) -> None:
        """Stop the server; return when its thread has ended. Does nothing where none runs.

        Args:
            timeout_s: What is under way may take so long to finish, then it is cut off. Default:
                the ``shutdown_timeout_s`` of the configuration.

        Raises TimeoutError where the application keeps the thread from ending.
        """
        thread, loop, server = self._thread, self._loop, self._server
        if thread is None or loop is None or server is None:
            return
        if thread is threading.current_thread():
            raise RuntimeError("stop() waits for the server's thread: call it from another one")
        if timeout_s is None:
            timeout_s = self.config.shutdown_timeout_s
        _call(loop, server.end)
        thread.join(timeout_s)
        if thread.is_alive():
            _call(loop, server.hurry)
            thread.join(3 * CANCELLED_S)
        if thread.is_alive():
            raise TimeoutError(
                f"the server's thread has not ended in {timeout_s:g} s: something of the "
                "application blocks the event loop, or a thread that the loop waits for"
            )
        self._thread = self._loop = self._server = None
        if self._error is not None:
            raise self._error

    def _run(self, runner: asyncio.Runner, server: Server, started: "Future[None]") -> None:
        try:
            with runner, self._around():
                run(
                    server,
                    runner.get_loop(),
                    signals=False,
                    started=lambda: started.set_result(None),
                )
        except BaseException as error:
            self._error = error
        if not started.done():
            started.set_exception(self._error or asyncio.CancelledError())

    def __enter__(self) -> Self:
        """Start."""
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop."""
        self.stop()


def _call(loop: asyncio.AbstractEventLoop, function: Callable[[], object]) -> None:
    try:
        loop.call_soon_threadsafe(function)
    except RuntimeError:
        assert loop.is_closed()  # the server has ended by itself
