"""Handlers that run beside the connection's other messages, where a class asks for it.

Rules of this file:

- What ``@concurrent`` marks is found when a class is made. A connection of any other class
  pays nothing.
- Each task belongs to the ``Beside`` of its connection, which starts it, counts it, hears
  how it ended, and on the connection's end cancels it and waits for it.
- A task never ends the consumer by itself. What it failed with is raised in the consumer's own
  task, between two messages, so that no handler is interrupted for the sake of another's error.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from asgiref.sync import iscoroutinefunction

from ._lane import DISCONNECTS, Lane
from .db import aclose_old_connections, cleanup_due, track_database_use
from .exceptions import StopConsumer
from .layers.base import Event

__all__ = ["ENDED", "Beside", "concurrent", "limits_of"]

Handler = TypeVar("Handler", bound=Callable[..., Awaitable[Any]])

logger = logging.getLogger("headrace.consumer")

_MARK = "_headrace_concurrent_limit"

#: Methods that have their place in the life of a connection.
_IN_ORDER = frozenset(
    {
        "connect",
        "disconnect",
        "dispatch",
        "handle",
        "http_disconnect",
        "http_request",
        "on_error",
        "websocket_connect",
        "websocket_disconnect",
    }
)

#: Takes the consumer out of ``receive`` when a task has something to raise in it.
ENDED: Event = {"type": "headrace.ended"}


def concurrent(*, limit: int) -> Callable[[Handler], Handler]:
    """Let a handler of an asynchronous consumer run beside the connection's other messages.

    Up to ``limit`` calls of it run at a time, begun in the order of their messages. With one
    more the connection waits, and reads no further, until one of them has ended. On
    ``receive`` or ``receive_json`` it is the client's messages that run so.

    The end of the connection cancels those that run, and waits for them before
    ``disconnect()``. What one raises goes to ``on_error``, and else ends the consumer as any
    handler's error does, ``StopConsumer`` included; the message that is being handled in order
    is finished first.
    """
    if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
        raise ValueError(f"concurrent(limit=...) is a number from 1, not {limit!r}")

    def mark(handler: Handler) -> Handler:
        is_async: bool = iscoroutinefunction(handler)
        if not is_async:
            raise TypeError(f"@concurrent is for async def handlers, not {handler!r:.100}")
        setattr(handler, _MARK, limit)
        return handler

    return mark


def limits_of(consumer: type, handled_by: Mapping[str, str]) -> dict[str, int]:
    """Return the limit of each handler of the class that is concurrent, by its name.

    TypeError for a method that has its place in the life of a connection.

    Args:
        consumer: The class.
        handled_by: Methods that are no handlers themselves, each with the handler by
            which it is called.
    """
    marked: dict[str, int] = {}
    for base in reversed(consumer.__mro__):
        for name, value in vars(base).items():
            limit = getattr(value, _MARK, None)
            if limit is None:
                marked.pop(name, None)  # overridden by one that runs in order
            else:
                marked[name] = limit
    limits: dict[str, int] = {}
    for name, limit in marked.items():
        if name in _IN_ORDER:
            raise TypeError(
                f"{consumer.__name__}.{name} can't be @concurrent: it has its place in the "
                "life of a connection"
            )
        handler = handled_by.get(name, name)
        limits[handler] = min(limit, limits.get(handler, limit))
    return limits


class Beside:
    """The tasks of one connection, beside the one in which it handles messages in order.

    Args:
        limits: Calls that may run at a time, by handler.
        handle: Handles a message.
        survives: Tells whether the consumer goes on after this error of this message.
        lane: The connection.
        name: The consumer's, for the log.
    """

    def __init__(
        self,
        limits: Mapping[str, int],
        handle: Callable[[Event], Awaitable[None]],
        survives: Callable[[Exception, Event], Awaitable[bool]],
        lane: Lane,
        name: str,
    ) -> None:
        self._limits = limits
        self._handle = handle
        self._survives = survives
        self._lane = lane
        self._name = name
        self._tasks: dict[asyncio.Task[None], str] = {}
        self._running: Counter[str] = Counter()
        #: What a task ended the consumer with.
        self.outcome: BaseException | None = None
        #: Whether the consumer was cancelled while it waited for the last tasks.
        self.interrupted = False

    async def take(self, message: Event) -> bool:
        """Begin with the message; False: it is one that is handled in order, now.

        Waits for a place. Raises what a task ended the consumer with.
        """
        type_ = message.get("type")
        if type_ in DISCONNECTS:
            await self.stop()
            return False
        self._raise_outcome()
        handler = str(type_).replace(".", "_")
        limit = self._limits.get(handler)
        if limit is None:
            return False
        while self._running[handler] >= limit:
            if self._lane.over:
                await self.stop()
            else:
                await self._lane.stirred()
            self._raise_outcome()
        task = asyncio.get_running_loop().create_task(
            self._run(message), name=f"headrace {self._name}.{handler}"
        )
        self._tasks[task] = handler
        self._running[handler] += 1
        task.add_done_callback(self._ended)
        return True

    async def finish(self) -> None:
        """Wait for the tasks."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def stop(self) -> None:
        """Cancel the tasks, and wait for them."""
        self.abandon()
        if not self._tasks:
            return
        try:
            await asyncio.wait(self._tasks)
        except asyncio.CancelledError:
            self.interrupted = True
            logger.error(
                "%s: %d concurrent handlers go on although they were cancelled",
                self._name,
                len(self._tasks),
            )
            self._tasks.clear()
            raise

    def abandon(self) -> None:
        """Cancel the tasks, where nothing can be waited for."""
        for task in self._tasks:
            task.cancel()

    def raise_failure(self) -> None:
        """Raise the error that ended the consumer, if it was one."""
        if not isinstance(self.outcome, StopConsumer):
            self._raise_outcome()

    def _raise_outcome(self) -> None:
        if self.outcome is not None:
            raise self.outcome

    async def _run(self, message: Event) -> None:
        # A mark of its own: what it leaves behind in the database it clears away itself.
        track_database_use()
        try:
            await self._handle(message)
        except StopConsumer:
            raise
        except Exception as error:
            if not await self._survives(error, message):
                raise
        finally:
            if cleanup_due():
                await aclose_old_connections()

    def _ended(self, task: asyncio.Task[None]) -> None:
        handler = self._tasks.pop(task, None)
        if handler is not None:
            self._running[handler] -= 1
        if not task.cancelled() and (error := task.exception()) is not None:
            if self.outcome is None:
                self.outcome = error
                self._lane.insert(ENDED)
            elif not isinstance(error, StopConsumer):
                logger.error("%s: another handler failed too", self._name, exc_info=error)
        self._lane.note()
