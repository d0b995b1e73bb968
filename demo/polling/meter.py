"""What one request, stream or WebSocket costs, measured where it happens.

- Bytes: the server's own account, headers and frames included (see docs/observing.md).
- Processor time: that of the thread, around each step of the tasks that serve it, and in the thread
  that runs the synchronous parts of Django. What the server does before and after (reading from the
  socket, parsing a request or a frame, writing) is in no task, and is not in here: see
  ``Ledger``, which tells the whole process's beside it.
"""

from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from functools import partial
from typing import Any
from uuid import UUID

from django.core.handlers.asgi import ASGIHandler

from live.limits import Refused
from polling.order import run_of
from polling.steps import Steps

__all__ = ["FRAMES", "METER", "Meter", "MeteredHandler", "metered"]

#: The meter of what this code runs for: its tasks, and the threads that they call.
METER: ContextVar["Meter | None"] = ContextVar("polling.meter", default=None)

NOTHING = {"traffic": lambda *of_whom: None, "draining": lambda *of_whom: False}
#: Frames that wait to be shown.
FRAMES = 4


class Meter:
    """One request, stream or WebSocket."""

    def __init__(self, run: UUID, way: str, traffic: Any, draining: Callable[[], bool]) -> None:
        self.run_id = run
        self.way = way
        #: The server's account; None where there is none, as over HTTP/2.
        self.traffic = traffic
        #: Whether the server has begun to stop, and waits for a response to end.
        self.draining = draining
        self.cpu_s = 0.0
        #: The last frames of a WebSocket: called, they give what the page shows of them.
        self.frames: deque[Callable[[], dict]] = deque(maxlen=FRAMES)
        self.thread_began = 0.0
        self.measuring = False

    @property
    def received_bytes(self) -> int:
        return self.traffic.received_bytes if self.traffic else 0

    @property
    def sent_bytes(self) -> int:
        return self.traffic.sent_bytes if self.traffic else 0

    async def run(self, coroutine: Coroutine) -> Any:
        """Await a coroutine, and measure what each of its steps takes."""
        return await Steps(self, coroutine)


class MeteredHandler(ASGIHandler):
    """Django, for requests that are measured: it answers each in a task of its own."""

    async def run_get_response(self, request):
        return await of_this(super().run_get_response(request))

    async def send_response(self, response, send):
        await of_this(super().send_response(response, send))


async def of_this(coroutine):
    meter = METER.get()
    return await (coroutine if meter is None else meter.run(coroutine))


def metered(way, application):
    """Wrap an ASGI application that serves one of the four ways."""
    from polling.ledger import ledger

    async def app(scope, receive, send):
        try:
            run = run_of(scope)
        except Refused:  # whoever answers says so
            await application(scope, receive, send)
            return
        # Another server knows neither what has passed nor how to say that it stops.
        extension = scope.get("extensions", {}).get("headrace") or NOTHING
        traffic = extension["traffic"](receive, send)
        draining = partial(extension["draining"], receive, send)
        with ledger.entry(Meter(run, way, traffic, draining)) as meter:
            token = METER.set(meter)
            try:
                await meter.run(application(scope, receive, send))
            finally:
                METER.reset(token)

    return app
