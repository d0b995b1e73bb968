"""Start and stop, as the application is told of them (ASGI lifespan protocol 2.0)."""

import asyncio
import logging
from typing import Any

from ..exceptions import ConfigurationError
from .config import Lifespan
from .runtime import ASGIApplication, Message

__all__ = ["LifespanFailed", "LifespanTask"]

logger = logging.getLogger("headrace.server")


class LifespanFailed(ConfigurationError):
    """The application said that it can't start, or does not support lifespan where it must."""


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
        self._to_application: asyncio.Queue[Message] = asyncio.Queue()
        self._from_application: asyncio.Queue[Message] = asyncio.Queue()

    async def start(self) -> None:
        """Tell the application to start, and wait until it has.

        Raises LifespanFailed when it says that it can't.
        """
        if self._mode is Lifespan.OFF:
            return
        self._task = asyncio.get_running_loop().create_task(self._run(), name="headrace lifespan")
        answer = await self._exchange("lifespan.startup")
        if answer is not None and answer["type"] == "lifespan.startup.failed":
            await asyncio.wait({self._task}, timeout=1)
            raise LifespanFailed(
                f"the application could not start: {answer.get('message') or 'it gives no reason'}"
            )
        if answer is None:
            self.state = None
            error = None if self._task.cancelled() else self._task.exception()
            self._task = None
            if self._mode is Lifespan.ON:
                raise LifespanFailed(
                    f"the application does not support lifespan: {error!r}; "
                    "serve it with --lifespan auto or off"
                ) from error
            # ASGI: an exception on a lifespan scope says that the application has no use for it.
            logger.debug("the application does not support lifespan: %r", error)

    async def stop(self, *, timeout_s: float) -> None:
        """Tell the application to stop, and wait until it has, or for so long."""
        task = self._task
        if task is None:
            return
        self._task = None
        try:
            async with asyncio.timeout(timeout_s):
                self._task = task
                answer = await self._exchange("lifespan.shutdown")
                await asyncio.wait({task})
        except TimeoutError:
            logger.error("the application has not stopped in %g s: it is cancelled", timeout_s)
            task.cancel()
            await asyncio.wait({task}, timeout=1)
            return
        finally:
            self._task = None
        if answer is not None and answer["type"] == "lifespan.shutdown.failed":
            logger.error("the application failed to stop: %s", answer.get("message", ""))
        elif not task.cancelled() and (error := task.exception()) is not None:
            logger.error("the application raised while stopping", exc_info=error)

    async def _run(self) -> None:
        scope = {
            "type": "lifespan",
            "asgi": {"version": "3.0", "spec_version": "2.0"},
            "state": self.state,
        }
        await self._app(scope, self._to_application.get, self._from_application.put)

    async def _exchange(self, type_: str) -> Message | None:
        """Send one message; return the answer, or None when the application ended without."""
        assert self._task is not None
        self._to_application.put_nowait({"type": type_})
        answer = asyncio.ensure_future(self._from_application.get())
        await asyncio.wait({answer, self._task}, return_when=asyncio.FIRST_COMPLETED)
        if answer.done():
            return answer.result()
        answer.cancel()
        return None
