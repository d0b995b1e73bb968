"""Serve the project from the test run's own process, for browsers and other real clients.

Rules of this file:

- The server runs on an event loop of its own, in a thread of its own. What it shares with
  the test is what threads of one process share: settings, channel layers, and a database
  in memory.
- Each thread has a database connection of its own, as in production.
- The end has a deadline. A handler that does not end in time fails the test by name, and
  is not waited for.
"""

import asyncio
import concurrent.futures
import contextlib
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any, ClassVar, Self

from django.conf import settings
from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler
from django.test import TransactionTestCase, modify_settings
from django.utils.functional import classproperty

from ..routing import get_default_application
from ..server.config import Config
from ..server.server import Server
from .application import Application
from .connections import ThreadsConnections

__all__ = ["ChannelsLiveServerTestCase", "LiveServer"]

#: How long requests, WebSockets and the application have to end by themselves.
SHUTDOWN_S = 2.0
#: How long the thread may take to end: the server's own deadlines pass first.
THREAD_END_S = 8.0


class LiveServer:
    """An ASGI application on a free port of this host, until ``stop()``.

    ::

        with LiveServer("localhost", get_default_application) as server:
            urllib.request.urlopen(server.url)

    Args:
        host: The name or the address to listen on.
        get_application: Called when the server starts, on the test's thread.
        port: 0 lets the system choose a free one.
    """

    def __init__(
        self, host: str, get_application: Callable[[], Application], *, port: int = 0
    ) -> None:
        self.host = host
        self.port = port
        self._get_application = get_application
        self._connections = ThreadsConnections()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._ready = threading.Event()
        self._stopping: asyncio.Event | None = None
        self._failure: BaseException | None = None

    @property
    def url(self) -> str:
        """Where HTTP is served: ``http://localhost:40123``."""
        return f"http://{self._location}"

    @property
    def ws_url(self) -> str:
        """Where WebSockets are: ``ws://localhost:40123``."""
        return f"ws://{self._location}"

    @property
    def _location(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def start(self) -> None:
        """Return when connections are accepted; raise what made the start fail."""
        assert self._thread is None, "the live server has been started"
        application = self._get_application()
        self._stopping = self._failure = None
        self._ready.clear()
        self._connections.watch()
        # A daemon: one that is stuck must not keep the test run from ending.
        self._thread = threading.Thread(
            target=self._run, args=(application,), name="headrace live server", daemon=True
        )
        self._thread.start()
        self._ready.wait()
        if self._failure is not None:
            self.stop()

    def stop(self) -> None:
        """Stop the server, and close what it has opened.

        RuntimeError when a handler has not ended in time; its place is in the message.
        """
        thread, self._thread = self._thread, None
        if thread is None:
            return
        if self._loop is not None and self._stopping is not None:
            with contextlib.suppress(RuntimeError):  # closed: it has ended by itself
                self._loop.call_soon_threadsafe(self._stopping.set)
        thread.join(THREAD_END_S)
        if thread.is_alive():
            raise RuntimeError(
                f"the live server has not ended in {THREAD_END_S:g} s: something blocks its "
                f"event loop:\n{_stack(thread)}"
            )
        if self._failure is not None:
            raise self._failure

    def __enter__(self) -> Self:
        """Start."""
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Stop."""
        self.stop()

    # On the server's thread

    def _run(self, application: Application) -> None:
        loop = self._loop = asyncio.new_event_loop()
        executor = concurrent.futures.ThreadPoolExecutor(thread_name_prefix="headrace live")
        loop.set_default_executor(executor)
        try:
            loop.run_until_complete(self._serve(application))
            loop.run_until_complete(loop.shutdown_asyncgens())
        except BaseException as failure:  # it is raised in the test
            self._failure = failure
        finally:
            executor.shutdown(wait=False, cancel_futures=True)
            loop.close()
            self._connections.close()
            self._ready.set()

    async def _serve(self, application: Application) -> None:
        stopping = self._stopping = asyncio.Event()
        config = Config(
            host=self.host,
            port=self.port,
            access_log=False,
            close_timeout_s=SHUTDOWN_S,
            shutdown_timeout_s=SHUTDOWN_S,
        )
        async with Server(application, config) as server:
            self.port = server.port
            self._ready.set()
            await stopping.wait()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        if left:
            _, left = await asyncio.wait(left, timeout=SHUTDOWN_S)
        if left:
            raise RuntimeError(_not_ended(left))


class ChannelsLiveServerTestCase(TransactionTestCase):
    """A test case with the project's ASGI application on a free port, for its whole class.

    The server runs in a thread of the test's process: the test and the application share
    the settings, the channel layers, and the database even if that is in memory.
    """

    #: Where to listen; it is among the ALLOWED_HOSTS meanwhile.
    host: ClassVar[str] = "localhost"
    #: 0: a free one.
    port: ClassVar[int] = 0
    #: Whether static files are served as ``runserver`` does, found by the staticfiles finders.
    serve_static: ClassVar[bool] = True
    static_wrapper: ClassVar[Callable[[Any], Any]] = ASGIStaticFilesHandler
    #: What serves: called like ``LiveServer``, with its ``start``, ``stop``, ``port`` and URLs.
    ProtocolServerProcess: ClassVar[Callable[..., LiveServer]] = LiveServer

    _server_process: ClassVar[LiveServer]
    _port: ClassVar[int]

    @classproperty
    def live_server_url(cls) -> str:  # noqa: N805 - a property of the class
        """``http://localhost:40123``."""
        return cls._server_process.url

    @classproperty
    def live_server_ws_url(cls) -> str:  # noqa: N805 - a property of the class
        """``ws://localhost:40123``."""
        return cls._server_process.ws_url

    @classproperty
    def allowed_host(cls) -> str:  # noqa: N805 - a property of the class
        """What joins the ALLOWED_HOSTS; override it where ``host`` is not what clients ask for."""
        return cls.host

    @classmethod
    def get_application(cls) -> Application:
        """Return what is served: what ``ASGI_APPLICATION`` names, unless overridden."""
        return get_default_application()

    @classmethod
    def setUpClass(cls) -> None:
        """Start the server; what makes that fail is the error of the class."""
        super().setUpClass()
        cls.enterClassContext(modify_settings(ALLOWED_HOSTS={"append": cls.allowed_host}))
        server = cls._server_process = cls.ProtocolServerProcess(
            cls.host, cls._get_served, port=cls.port
        )
        server.start()
        cls.addClassCleanup(server.stop)
        cls._port = server.port

    @classmethod
    def _get_served(cls) -> Application:
        application = cls.get_application()
        return (
            with_static_files(application, cls.static_wrapper) if cls.serve_static else application
        )


def with_static_files(
    application: Application, wrapper: Callable[[Any], Any] = ASGIStaticFilesHandler
) -> Application:
    """Let the wrapper serve what is below STATIC_URL, if the project has one."""
    if not settings.STATIC_URL:
        return application
    wrapped: Application = wrapper(application)
    return wrapped


def _stack(thread: threading.Thread) -> str:
    frame = sys._current_frames().get(thread.ident or 0)  # noqa: SLF001 - documented
    return "".join(traceback.format_stack(frame)) if frame is not None else ""


def _not_ended(tasks: set[asyncio.Task[Any]]) -> str:
    """Say which tasks go on although they were cancelled, and what other threads are at."""
    places = [f"- {task!r}\n" for task in tasks]
    places += [
        f"- {thread!r}\n{_stack(thread)}"
        for thread in threading.enumerate()
        if thread not in (threading.current_thread(), threading.main_thread())
    ]
    return f"{len(tasks)} handlers go on although they were cancelled:\n{''.join(places)}"
