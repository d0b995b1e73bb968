"""Start and stop, as the application is told of them (ASGI lifespan protocol 2.0).

Rules of this file:

- The application answers what it was asked, once; anything else is its mistake.
- An application that has no use for lifespan says so by an exception, or by its end.
- However it goes, no task is left behind, and no exception of one goes unseen.
"""

import asyncio
import logging
from typing import Any

from ..exceptions import ConfigurationError, LocalProtocolError
from .asgi import message_type
from .config import Lifespan
from .runtime import ASGIApplication, Message

__all__ = ["LifespanFailed", "LifespanTask"]

logger = logging.getLogger("headrace.server")

#: How long an application may take to end after it was cancelled, or after it has failed.
GRACE_S = 1.0


class LifespanFailed(ConfigurationError):
    """The application said that it can't start, or does not support lifespan where it must."""


class _Exited(Exception):
    """The application called ``sys.exit()``."""


class LifespanTask:
    """One run of the application with a lifespan scope, from before serving to after it.

    ``state`` is the dictionary that the application may fill; each connection gets a
    shallow copy. It is None where the application has no lifespan.
    """

    def __init__(self, app: ASGIApplication, mode: Lifespan) -> None:
        self._app = app
        self._mode = mode
        self.state: dict[str, Any] | None = None if mode is Lifespan.OFF else {}
        self._task: asyncio.Task[None] | None = None
        self._questions: asyncio.Queue[Message] = asyncio.Queue()
        self._asked = ""
        self._answer: asyncio.Future[Message] | None = None
        self._received = False

    async def start(self) -> None:
        """Tell the application to start, and wait until it has.

        Raises LifespanFailed when it says that it can't. Cancelled, it cancels the application.
        """
        if self._mode is Lifespan.OFF:
            return
        task = self._task = asyncio.get_running_loop().create_task(
            self._run(), name="headrace lifespan"
        )
        try:
            answer = await self._ask("lifespan.startup")
        except BaseException:
            await self._abandon(task)
            raise
        if answer is None:
            self.state = None
            self._task = None
            error = None if task.cancelled() else task.exception()
            if isinstance(error, _Exited):
                raise LifespanFailed(f"the application could not start: {error}")
            self._go_without(error)
        elif answer["type"] == "lifespan.startup.failed":
            # Many raise what they failed with after they have said so.
            await asyncio.wait({task}, timeout=GRACE_S)
            await self._abandon(task)
            reason = answer.get("message") or "it gives no reason"
            raise LifespanFailed(f"the application could not start: {reason}")
        else:
            task.add_done_callback(self._ended)

    def _go_without(self, error: BaseException | None) -> None:
        if self._mode is Lifespan.ON:
            raise LifespanFailed(
                f"the application does not support lifespan: {error!r}; "
                "serve it with --lifespan auto or off"
            ) from error
        # ASGI: an exception on a lifespan scope says that the application has no use for it.
        if error is None or not self._received or isinstance(error, LocalProtocolError):
            logger.debug("the application does not support lifespan: %r", error)
        else:
            logger.warning(
                "the application raised in its lifespan's startup; it is served without "
                "(--lifespan on makes this an error)",
                exc_info=error,
            )

    def _ended(self, task: asyncio.Task[None]) -> None:
        if self._asked == "lifespan.startup" and not task.cancelled() and task.exception():
            logger.error("the application's lifespan has failed", exc_info=task.exception())

    async def stop(self, *, timeout_s: float) -> None:
        """Tell the application to stop, and wait until it has, or for so long.

        Cancelled, it cancels the application.
        """
        task, self._task = self._task, None
        if task is None or task.done():
            return
        try:
            async with asyncio.timeout(timeout_s):
                self._task = task
                answer = await self._ask("lifespan.shutdown")
                await asyncio.wait({task})
        except TimeoutError:
            logger.error("the application has not stopped in %g s: it is cancelled", timeout_s)
            await self._abandon(task)
            return
        except BaseException:
            await self._abandon(task)
            raise
        self._task = None
        if answer is not None and answer["type"] == "lifespan.shutdown.failed":
            logger.error("the application failed to stop: %s", answer.get("message") or "")
        elif not task.cancelled() and (error := task.exception()) is not None:
            logger.error("the application raised while stopping", exc_info=error)

    async def _abandon(self, task: asyncio.Task[None]) -> None:
        """End the task, and see its exception."""
        self._task = None
        task.cancel()
        await asyncio.wait({task}, timeout=GRACE_S)
        if task.done() and not task.cancelled():
            logger.debug("the application's lifespan ended with %r", task.exception())

    async def _ask(self, type_: str) -> Message | None:
        """Send one message; return the answer, or None when the application ended without."""
        assert self._task is not None
        answer = self._answer = asyncio.get_running_loop().create_future()
        self._asked = type_
        self._questions.put_nowait({"type": type_})
        await asyncio.wait({answer, self._task}, return_when=asyncio.FIRST_COMPLETED)
        return answer.result() if answer.done() else None

    # The application's side

    async def _run(self) -> None:
        scope = {
            "type": "lifespan",
            "asgi": {"version": "3.0", "spec_version": "2.0"},
            "state": self.state,
        }
        try:
            await self._app(scope, self._receive, self._send)
        except SystemExit as error:
            # It would end the event loop, and nobody would know why.
            raise _Exited(f"it called sys.exit({error.code!r})") from error

    async def _receive(self) -> Message:
        message = await self._questions.get()
        self._received = True
        return message

    async def _send(self, message: Message) -> None:
        type_ = message_type(message)
        answer = self._answer
        assert answer is not None
        if answer.done() or type_ not in (f"{self._asked}.complete", f"{self._asked}.failed"):
            state = "ANSWERED" if answer.done() else self._asked
            raise LocalProtocolError(
                f"cannot send {type_!r}: state={state}, expected an answer to what receive() gave"
            )
        answer.set_result(message)
