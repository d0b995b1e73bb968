"""A task of the process that connections share: it runs while somebody holds it.

Rules of this file:

- One at a time: whoever comes while a task is still ending waits for nothing, but the next task
  waits for that end.
- It runs in a context of its own, for it outlives the connection that began it: not in that
  one's database connection, thread context or trace.
- It ends with the last holder, or by itself. One that fails says so in the log, and begins again
  for as long as it is held.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from contextvars import Context
from types import TracebackType
from typing import Any, Self

__all__ = ["SharedTask"]

logger = logging.getLogger("headrace.shared")

_LONGEST_RETRY_S = 30.0


class SharedTask:
    """Run ``function()`` once in this process for as long as somebody holds it.

    ``async with shared:`` holds it, or ``enter()`` in a consumer's ``connect`` and ``leave()`` in
    its ``disconnect``. With the first holder the task begins, with the last one it is cancelled:
    ``linger_s`` seconds later, where the next holder is likely to be on its way. A function that
    raises is logged and begun again after ``retry_s`` seconds, twice as long each time, up to 30,
    and from the start once it has run for longer than that. One that returns has ended, until
    somebody enters who finds it so.

    It belongs to one event loop. What is left of a loop that is closed is forgotten.
    """

    def __init__(
        self,
        function: Callable[[], Coroutine[Any, Any, object]],
        *,
        linger_s: float = 0.0,
        retry_s: float = 1.0,
    ) -> None:
        self._function = function
        self._linger_s = linger_s
        self._retry_s = retry_s
        self._holders = 0
        self._task: asyncio.Task[None] | None = None
        #: Those that have not ended: the task, and any that are still ending.
        self._unended: set[asyncio.Task[None]] = set()
        self._lingering: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def holders(self) -> int:
        """How many hold it."""
        return self._holders

    @property
    def running(self) -> bool:
        """Whether the task runs, waits to begin again, or lingers; one that is ending does not."""
        return self._task is not None and not self._task.done() and not self._task.cancelling()

    async def enter(self) -> None:
        """Hold the task; begin it, if it doesn't run."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._loop, self._task, self._lingering, self._holders = loop, None, None, 0
            self._unended = set()
        self._holders += 1
        if self._lingering is not None:
            self._lingering.cancel()
            self._lingering = None
        if not self.running:
            self._task = loop.create_task(self._run(set(self._unended)), context=Context())
            self._unended.add(self._task)
            self._task.add_done_callback(self._unended.discard)

    async def leave(self) -> None:
        """Let go of the task; the last one to do so ends it, and returns when it has ended.

        Raises RuntimeError where nobody holds it.
        """
        if not self._holders:
            raise RuntimeError("leave() without enter(): nobody holds this task")
        self._holders -= 1
        if self._holders:
            return
        if self._linger_s:
            assert self._loop is not None
            self._lingering = self._loop.call_later(self._linger_s, self._end)
            return
        self._end()
        if self._unended:
            await asyncio.wait(set(self._unended))

    async def __aenter__(self) -> Self:
        await self.enter()
        return self

    async def __aexit__(
        self,
        type_: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.leave()

    def _end(self) -> None:
        self._lingering = None
        if self._task is not None:
            self._task.cancel()

    async def _run(self, ending: set[asyncio.Task[None]]) -> None:
        if ending:
            await asyncio.wait(ending)
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert task is not None
        retry_s = self._retry_s
        while True:
            began = loop.time()
            try:
                await self._function()
            except (Exception, asyncio.CancelledError):
                if task.cancelling():
                    raise
                if loop.time() - began > _LONGEST_RETRY_S:
                    retry_s = self._retry_s
                name = getattr(self._function, "__qualname__", self._function)
                logger.exception("the shared task %s failed: again in %g s", name, retry_s)
            else:
                return
            await asyncio.sleep(retry_s)
            retry_s = min(2 * retry_s, _LONGEST_RETRY_S)
