"""Talk to an ASGI application as a server would, from a test.

Rules of this file:

- A timeout is the test's affair: it never cancels the application.
- The application's exception is raised in the test, by whatever the test asks for next.
- A communicator belongs to the event loop on which its application began. When the last
  reference to it goes, its application is cancelled: the task knows nothing of it.
"""

# ruff: noqa: ASYNC109 - the timeouts are arguments, as in Channels

import asyncio
import contextlib
import contextvars
import sys
from collections.abc import Awaitable, Callable
from typing import Any, Self

from asgiref.compatibility import guarantee_single_callable
from asgiref.sync import AsyncToSync

from ..middleware import refuse_consumer_class

__all__ = ["ApplicationCommunicator"]

#: The code with which a consumer that fails closes, and how long it may take after that
#: until its error has come through the middleware around it.
_INTERNAL_ERROR = 1011
_FAILING_S = 0.2

Message = dict[str, Any]
Scope = dict[str, Any]
Application = Callable[..., Awaitable[None]]


class ApplicationCommunicator:
    """An application that runs in a task beside the test, and the two queues between them.

    The application starts with the first input or output that the test asks for, so that the
    scope can still be changed (``communicator.scope["user"] = user``).

    As an asynchronous context manager it stops the application when the block ends.

    Args:
        application: An ASGI application.
        scope: What it is called with.
    """

    _task: asyncio.Task[None] | None = None

    def __init__(self, application: Application, scope: Scope) -> None:
        refuse_consumer_class(application, type(self).__name__)
        self.application: Application = guarantee_single_callable(application)  # type: ignore[no-untyped-call]
        self.scope = scope
        self._inputs: asyncio.Queue[Message] = asyncio.Queue()
        self._outputs: asyncio.Queue[Message] = asyncio.Queue()
        # Something was sent, or the application has ended.
        self._news = asyncio.Event()

    @property
    def future(self) -> asyncio.Task[None]:
        """The application's task, which begins here if it has not yet."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(
                _run(self.application, self.scope, self._inputs, self._outputs, self._news),
                name="headrace communicator",
                context=_context(),
            )
        return self._task

    @property
    def input_queue(self) -> asyncio.Queue[Message]:
        """What the application has not fetched yet."""
        return self._inputs

    @property
    def output_queue(self) -> asyncio.Queue[Message]:
        """What the test has not fetched yet."""
        return self._outputs

    async def send_input(self, message: Message) -> None:
        """Give the application a message; raise what it failed with instead."""
        self._raise_failure()
        self._inputs.put_nowait(message)

    async def receive_output(self, timeout: float = 1) -> Message:
        """Return the application's next message, in the order in which it sent them.

        Raises the application's exception when it failed, and TimeoutError when nothing comes
        in time, or can come any more; the application goes on.
        """
        await self._until_news(timeout)
        if not self._outputs.empty():
            message = self._outputs.get_nowait()
            if message["type"] == "websocket.close":
                # A consumer that fails closes first; its error says more than the code.
                if message.get("code") == _INTERNAL_ERROR:
                    await asyncio.wait({self.future}, timeout=min(timeout, _FAILING_S))
                self._raise_failure()
            return message
        self._raise_failure()
        if self.future.done():
            raise TimeoutError("the application has ended, and sends nothing more")
        raise TimeoutError(f"the application sent nothing in {timeout} s; it is still running")

    async def receive_nothing(self, timeout: float = 0.1, interval: float = 0.01) -> bool:
        """Tell whether the application sends nothing for so long; what it sends stays queued.

        Raises what the application had failed with before, unless an output is left.
        ``interval`` is accepted and has no use: nothing is polled.
        """
        del interval
        if self._outputs.empty():
            self._raise_failure()
        await self._until_news(timeout)
        return self._outputs.empty()

    async def wait(self, timeout: float = 1) -> None:
        """Wait for the application to end by itself, and raise what it failed with.

        When it has not ended in time it is cancelled: a test is over after this.
        """
        future = self._future_here()
        await asyncio.wait({future}, timeout=timeout)
        if not future.done():
            await self._cancel()
        elif not future.cancelled():
            future.result()

    def stop(self, exceptions: bool = True) -> None:
        """Cancel the application; with ``exceptions``, raise what it had failed with before."""
        if self._task is None:
            return
        if not self._task.done():
            self._task.cancel()
        elif exceptions and not self._task.cancelled():
            self._task.result()

    async def __aenter__(self) -> Self:
        """Return the communicator; nothing has started yet."""
        return self

    async def __aexit__(self, *error: object) -> None:
        """Cancel the application if it still runs, and wait for its end."""
        if self._task is not None:
            await self._cancel()

    def __del__(self) -> None:
        """Cancel the application if it still runs."""
        with contextlib.suppress(RuntimeError):  # the loop is closed, or was never there
            self.stop(exceptions=False)

    async def _cancel(self) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait({self._task})
        if not self._task.cancelled():
            self._task.result()

    async def _until_news(self, timeout: float) -> None:
        """Wait until the application has sent something or ended, and no longer than that."""
        if self._outputs.empty() and not self._future_here().done():
            self._news.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await self._news.wait()

    def _raise_failure(self) -> None:
        future = self._future_here()
        if future.done() and not future.cancelled():
            future.result()

    def _future_here(self) -> asyncio.Task[None]:
        future = self.future
        if future.get_loop() is not asyncio.get_running_loop():
            raise RuntimeError(
                "the communicator began on another event loop: make one for each test, and use "
                "it within one coroutine, not in several calls of async_to_sync"
            )
        return future


def _context() -> contextvars.Context:
    """Return an empty context: as under a server, what the test has set is not seen.

    Only the thread that lends itself to synchronous code stays the same. In Django's test
    cases it is the test's, whose transaction is there, also for code in a thread context.
    """
    context = contextvars.Context()
    thread = getattr(AsyncToSync.executors, "current", None)
    if thread is not None:
        context.run(setattr, AsyncToSync.executors, "current", thread)
    return context


def _undisturbed(scope: Scope) -> contextlib.AbstractContextManager[None]:
    """Keep Django's requests from closing the connection of the test they are part of."""
    if scope.get("type") != "http" or "django.db" not in sys.modules:
        return contextlib.nullcontext()
    from .connections import spare_transactions

    return spare_transactions()


async def _run(
    application: Application,
    scope: Scope,
    inputs: asyncio.Queue[Message],
    outputs: asyncio.Queue[Message],
    news: asyncio.Event,
) -> None:
    async def send(message: Message) -> None:
        outputs.put_nowait(message)
        news.set()

    try:
        with _undisturbed(scope):
            await application(scope, inputs.get, send)
    finally:
        news.set()
