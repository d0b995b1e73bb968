"""A thread with an event loop of its own, and the ways in and out of it.

Rules of this file:

- Loops of the application come and go, run one after the other or side by side, and block. This
  one stays until it is stopped.
- Whoever calls in returns at once; many calls in a row wake the thread once.
- An answer goes back to the loop that asked, together with all others for that loop. Nobody is
  told whose loop is closed.
- A forked child has none of it: what it has inherited is the parent's, and stays untouched.
"""

import asyncio
import atexit
import concurrent.futures
import contextlib
import logging
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias

__all__ = ["Answer", "LoopThread", "Tell"]

logger = logging.getLogger("headrace.layers.redis")

#: Takes a result or an error, once.
Tell: TypeAlias = Callable[[Any, BaseException | None], None]

_STOP_S = 2.0


class LoopThread:
    """A thread that runs a coroutine until it is stopped.

    Args:
        main: Calls ``take_calls`` when it is ready for them. It is cancelled by ``stop``.
        name: The thread's.
    """

    def __init__(self, main: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
        self._main = main
        self._incoming: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._awake = True  # until it is ready
        self._answers: dict[asyncio.AbstractEventLoop, list[Any]] = {}
        self._task: asyncio.Task[None] | None = None
        self.loop = _new_loop()
        self._pid = os.getpid()
        #: Whether ``main`` has ended: calls are still made, and may see that.
        self.over = False
        #: Settled when the thread has done its work.
        self.ended: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin. Calls that came before are made then."""
        _threads.add(self)
        self._thread.start()

    def _run(self) -> None:
        loop = self.loop
        asyncio.set_event_loop(loop)
        try:
            self._task = loop.create_task(self._main())
            with contextlib.suppress(asyncio.CancelledError):
                loop.run_until_complete(self._task)
        except Exception:
            logger.exception("the thread %s has failed", self._thread.name)
        finally:
            self.over = True
            self.take_calls()
            self._send_answers()
            # Connections are closed in the next turn.
            loop.run_until_complete(asyncio.sleep(0))
            loop.run_until_complete(loop.shutdown_asyncgens())
            asyncio.set_event_loop(None)
            loop.close()
            self.ended.set_result(None)

    def join(self) -> None:
        """Wait for the thread to be gone, once it has ``ended``: that takes no time."""
        self._thread.join(_STOP_S)

    def call(self, function: Callable[..., None], *args: Any) -> bool:
        """Make a call on the loop, soon, and in the order of the calls. Any thread.

        False: it has ended, and makes no more calls.
        """
        self._incoming.append((function, args))
        if not self._awake:
            self._awake = True
            try:
                self.loop.call_soon_threadsafe(self.take_calls)
            except RuntimeError:  # it is closed
                return False
        return True

    def take_calls(self) -> None:
        """Make the calls that wait."""
        self._awake = False
        incoming = self._incoming
        while incoming:
            function, args = incoming.popleft()
            function(*args)

    def answer(
        self,
        loop: asyncio.AbstractEventLoop,
        future: asyncio.Future[Any],
        result: Any,
        error: BaseException | None,
    ) -> None:
        """Give a caller on another loop its answer, at the end of this turn."""
        if not self._answers:
            self.loop.call_soon(self._send_answers)
        self._answers.setdefault(loop, []).append((future, result, error))

    def _send_answers(self) -> None:
        answers, self._answers = self._answers, {}
        for loop, several in answers.items():
            with contextlib.suppress(RuntimeError):  # closed
                loop.call_soon_threadsafe(_settle, several)

    @property
    def alive(self) -> bool:
        """Whether it runs, in this process."""
        return not self.over and self._pid == os.getpid()

    def stop(self) -> None:
        """End it, soon. Any thread."""
        if self.alive:
            with contextlib.suppress(RuntimeError):
                self.loop.call_soon_threadsafe(self._cancel)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()


class Answer:
    """What a caller awaits while the thread works for it. To be made on the caller's loop."""

    __slots__ = ("_loop", "_thread", "future")

    def __init__(self, thread: LoopThread) -> None:
        self._thread = thread
        self._loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Any] = self._loop.create_future()

    def __call__(self, result: Any, error: BaseException | None) -> None:
        """Give it. To be called on the thread's loop."""
        self._thread.answer(self._loop, self.future, result, error)


def _settle(answers: list[tuple[asyncio.Future[Any], Any, BaseException | None]]) -> None:
    for future, result, error in answers:
        if future.done():
            continue
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


_threads: "weakref.WeakSet[LoopThread]" = weakref.WeakSet()


def _stop_all() -> None:
    """Close connections before the interpreter goes, which warns of what is open."""
    running = [thread for thread in list(_threads) if thread.alive]
    for thread in running:
        thread.stop()
    concurrent.futures.wait([thread.ended for thread in running], _STOP_S)


atexit.register(_stop_all)
