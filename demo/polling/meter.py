"""What one request, stream or WebSocket costs, measured where it happens.

- Bytes: the server's own account, headers and frames included (see docs/observing.md).
- Processor time: that of the thread, around each step of the tasks that serve it, and in the thread
  that looks up whose request it is. What the server does before and after (reading from the
  socket, parsing a request or a frame, writing) is in no task, and is not in here: see
  ``Ledger``, which tells the whole process's beside it.
"""

from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from typing import Any
from uuid import UUID

from polling.steps import Steps

__all__ = ["METER", "Meter"]

#: The meter of what this code runs for: its tasks, and the threads that they call.
METER: ContextVar["Meter | None"] = ContextVar("polling.meter", default=None)


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
        #: The last frame of a WebSocket each way: called, it gives what the page shows of it.
        self.frames: dict[object, Callable[[], dict]] = {}
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
