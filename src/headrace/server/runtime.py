"""What all connections of one server share."""

import asyncio
import contextvars
import email.utils
import logging
import resource
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, ClassVar, Protocol

from ..exceptions import CloseCode
from ..instruments import current_number, process
from ..protocols.websocket import Timeouts
from .bounded_log import BoundedLog
from .config import Config
from .endpoint import Address
from .identity import Peer
from .limits import Gate, Pace, Refusals
from .settled import Settled
from .turn import Turn
from .wheel import Wheel

__all__ = [
    "ASGIApplication",
    "Address",
    "Drainable",
    "Message",
    "Receive",
    "Runtime",
    "Scope",
    "Send",
]

logger = logging.getLogger("headrace.server")

Scope = dict[str, Any]
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApplication = Callable[[Scope, Receive, Send], Awaitable[None]]


class Drainable(Protocol):
    """A connection, as the server sees it when it stops, or looks at what it is doing."""

    #: What the connections that are open are counted as.
    protocol: ClassVar[str]
    #: With that of the worker, its id.
    number: int

    @property
    def peer(self) -> Peer:
        """The client, as the log names it."""
        ...

    def waiting(self) -> tuple[int, int, bool]:
        """Return events that wait for the application, bytes for the socket, and if it takes none.

        It is asked now and then, and has to cost next to nothing.
        """
        ...

    def drain(self) -> None:
        """Finish what is under way, begin nothing new, and close.

        Called again, when ``Runtime.idle_until`` is past, it closes what only waits.
        """
        ...

    def dismiss(self, code: int, reason: str) -> None:
        """End it, by the wish of somebody who looks after the server."""
        ...

    def abort(self) -> None:
        """Close at once; the application's task is cancelled."""
        ...


class Runtime:
    """The shared state of one server."""

    __slots__ = (
        "_date_second",
        "_makes_tasks",
        "addresses",
        "app",
        "config",
        "connections",
        "context",
        "counters",
        "default_headers",
        "draining",
        "exited",
        "farewell",
        "gate",
        "idle_until",
        "log",
        "loop",
        "numbered",
        "pace",
        "quiet",
        "refusals",
        "serving",
        "settled",
        "started",
        "state",
        "tasks",
        "timeouts",
        "turn",
        "wheel",
        "worker",
    )

    def __init__(
        self,
        *,
        app: ASGIApplication,
        config: Config,
        loop: asyncio.AbstractEventLoop,
        turn: Turn,
        wheel: Wheel,
        worker: int = 0,
        numbered: int = 0,
        settled: Settled | None = None,
    ) -> None:
        self.app = app
        self.config = config
        self.loop = loop
        self.turn = turn
        self.wheel = wheel
        self.counters = turn.counters
        #: The number of this process among the workers; 0: it is the only one.
        self.worker = process.worker = worker
        #: When the server started, in seconds since 1970.
        self.started = time.time()
        #: The number that was given to a connection last.
        self.numbered = numbered
        #: Leaves settled WebSockets out of garbage collections; None: the process is not ours.
        self.settled = settled
        #: Every open connection.
        self.connections: set[Drainable] = set()
        #: Every task that runs the application, so that none is lost or forgotten.
        self.tasks: set[asyncio.Task[None]] = set()
        #: The ``sys.exit()`` of a handler that has just been answered for.
        self.exited: SystemExit | None = None
        #: What the application put into the lifespan's state; None: it has no lifespan.
        self.state: dict[str, Any] | None = None
        #: Addresses of ours, so that connections share them.
        self.addresses: dict[Address | None, Address | None] = {}
        #: Whether the application has started.
        self.serving = False
        self.draining = False
        #: Until then a drain lets connections wait for a request that may be on its way.
        self.idle_until = 0.0
        #: What a stop tells the client of a WebSocket: close code and reason.
        self.farewell: tuple[int, str] = (CloseCode.GOING_AWAY, "the server is stopping")
        #: Set when a stop has no connection and no task left to wait for.
        self.quiet = asyncio.Event()
        #: Where every task of the application begins: what one sets is not seen by the next.
        self.context = contextvars.copy_context()
        #: For lines that clients can cause as often as they like.
        self.log = BoundedLog(logger, clock=loop.time, later=loop.call_later)
        #: The way to say no.
        self.refusals = Refusals(self.counters.refuse, self.log)
        self.gate = Gate(config.clients, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        #: How fast a WebSocket's client may send; None: as fast as it is read.
        self.pace = Pace.of(config.clients)
        self.timeouts = Timeouts(
            ping_interval_s=config.ping_interval_s or None,
            ping_timeout_s=config.ping_timeout_s or None,
            close_timeout_s=config.close_timeout_s,
            message_timeout_s=config.message_timeout_s or None,
        )
        #: The headers that a response has unless the application gave its own.
        self.default_headers = [(b"date", b"")]
        if config.server_header:
            self.default_headers.append((b"server", config.server_header.encode("ascii")))
        self._date_second = 0
        #: Whether a task of the loop is one of asyncio, and nothing else.
        self._makes_tasks = type(loop).__module__.partition(".")[0] in ("asyncio", "uvloop")

    def run(
        self,
        coroutine: Coroutine[Any, Any, None],
        on_end: Callable[[asyncio.Task[None]], object] | None = None,
        *,
        number: int,
    ) -> asyncio.Task[None]:
        """Run the application; ``on_end`` is called at its end.

        That, or where there is none the coroutine as its last act, has to call ``ended``.
        ``number`` is that of its connection.
        """
        context = self.context.copy()
        context.run(current_number.set, number)
        # One name for all: a numbered one is a string of its own for each connection.
        loop, name = self.loop, "headrace application"
        task: asyncio.Task[None]
        if self._makes_tasks and loop.get_task_factory() is None:
            # As these loops do themselves; uvloop has a name made first that it then replaces.
            task = asyncio.Task(coroutine, loop=loop, name=name, context=context)
        else:
            task = loop.create_task(coroutine, name=name, context=context)
        self.tasks.add(task)
        if on_end is not None:
            task.add_done_callback(on_end)
        return task

    def ended(self, task: asyncio.Task[None]) -> None:
        """Learn that a task of the application is done."""
        self.tasks.discard(task)
        if self.draining:
            self.check_quiet()

    def cancel(self, task: asyncio.Task[None]) -> None:
        """Cancel a task of the application; one that has not begun will not say that it ended."""
        task.add_done_callback(self.ended)
        task.cancel()

    def end_in_time(self, task: asyncio.Task[None], peer: str) -> None:
        """Give the application, whose client is gone, some time to end; then cancel it."""
        timeout_s = self.config.application_close_timeout_s
        if timeout_s and not task.done():
            timer = self.loop.call_later(timeout_s, self._end, task, peer)
            task.add_done_callback(lambda _: timer.cancel())

    def _end(self, task: asyncio.Task[None], peer: str) -> None:
        logger.warning(
            "%s: the application has not ended in %g s after its client: it is cancelled",
            peer,
            self.config.application_close_timeout_s,
        )
        self.cancel(task)

    def number(self) -> int:
        """Return a number that no other connection of this process has, or will have."""
        self.numbered += 1
        return self.numbered

    def enter(self, connection: Drainable) -> None:
        """Learn of a connection."""
        if connection not in self.connections:
            self.connections.add(connection)
            open_ = self.counters.open
            open_[connection.protocol] = open_.get(connection.protocol, 0) + 1

    def leave(self, connection: Drainable) -> None:
        """Learn that a connection is gone."""
        if connection in self.connections:
            self.connections.discard(connection)
            self.counters.open[connection.protocol] -= 1
        if self.draining:
            self.check_quiet()

    def hand_over(self, connection: Drainable) -> None:
        """Learn that another is about to enter in its place: a stop goes on waiting for that."""
        self.connections.discard(connection)
        self.counters.open[connection.protocol] -= 1

    def check_quiet(self) -> None:
        """Say so when a stop has nothing left to wait for."""
        if self.draining and not self.connections and not self.tasks:
            self.quiet.set()

    def refresh_date(self) -> None:
        """Keep the ``date`` of ``default_headers`` current; cheap enough for every request."""
        second = int(time.time())
        if second != self._date_second:
            self._date_second = second
            self.default_headers[0] = (
                b"date",
                email.utils.formatdate(second, usegmt=True).encode(),
            )
