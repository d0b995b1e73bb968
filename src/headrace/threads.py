"""Where synchronous code runs: a bounded pool of threads, and a thread context per connection.

Rules of this file:

- Calls of one context run one at a time and in order, those of different contexts in
  parallel, as many at once as ``HEADRACE["SYNC_THREADS"]`` says.
- A context owns no thread: any thread of the pool may run its next call. A context that has
  nothing to do costs a few hundred bytes.
- asgiref has the first word: where a synchronous caller waits above (Django's ``TestCase``),
  or a ``ThreadSensitiveContext`` of the application is in force, code runs there.
- Threads start when there is work and end when there was none for a while, and their
  database connections with them. They are daemons: no exit waits for a handler that blocks.
"""

import asyncio
import atexit
import itertools
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, ParamSpec, TypeVar

from asgiref.sync import AsyncToSync, SyncToAsync, ThreadSensitiveContext

from . import conf
from .db import ThreadConnections, database_sync_to_async
from .instruments import Reading, process
from .middleware import ASGIApplication, Receive, Scope, Send

__all__ = [
    "PoolStats",
    "ThreadPoolMiddleware",
    "pool_stats",
    "run_in_connection_thread",
    "thread_context",
]

P = ParamSpec("P")
R = TypeVar("R")

logger = logging.getLogger("headrace.threads")

#: How long a thread waits for more work before it ends.
_IDLE_S = 60.0
#: How long a connection may wait for a thread before the log hears of it, and how often that.
_LONG_WAIT_S = 1.0
_WARNING_INTERVAL_S = 60.0
#: What calls that are still at work when the process ends may take.
_EXIT_GRACE_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolStats:
    """What the pool is doing, and what it has done since the process began."""

    #: Calls that may run at once.
    size: int
    #: Threads that exist, and those of them that run a call.
    threads: int
    busy: int
    #: Connections whose next call waits for a thread.
    waiting: int
    calls: int
    #: What connections waited for a thread; not for a call of their own before it.
    wait_s_total: float
    wait_s_longest: float


class _Call:
    """One call, and the future of its result."""

    __slots__ = ("func", "future")

    def __init__(self, func: Callable[[], Any]) -> None:
        self.func = func
        self.future: Future[Any] = Future()

    def run(self) -> tuple[BaseException | None, Any] | None:
        """Return what came out, an error or a result; None if it was cancelled before."""
        if not self.future.set_running_or_notify_cancel():
            return None
        try:
            return None, self.func()
        except BaseException as error:  # the caller's, whatever it is
            return error, None

    def deliver(self, outcome: tuple[BaseException | None, Any] | None) -> None:
        """Tell the caller."""
        future = self.future
        del self.future  # an error's traceback leads to this call, which must not lead back
        if outcome is not None:
            error, result = outcome
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)


class _Line(Executor):
    """The calls of one context, in order: what asgiref takes for the context's executor."""

    # ``calls`` is None while there are none: an idle connection pays for no queue. The
    # first one is running, or next.
    __slots__ = ("calls", "pool")

    def __init__(self, pool: "_Pool") -> None:
        self.pool = pool
        self.calls: deque[_Call] | None = None

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        call = _Call(partial(fn, *args, **kwargs))
        future = call.future  # the call may be over, and without it, before enter() returns
        self.pool.enter(self, call)
        return future


class _Worker(threading.Thread):
    """A thread of the pool."""

    _numbers = itertools.count(1)

    def __init__(self, pool: "_Pool") -> None:
        super().__init__(name=f"headrace-sync-{next(self._numbers)}", daemon=True)
        self._pool = pool
        #: True: look for work. False: end.
        self.orders: SimpleQueue[bool] = SimpleQueue()

    def run(self) -> None:
        connections = ThreadConnections()
        try:
            while self._wait(connections):
                line = self._pool.begin(self)
                while line is not None:
                    line = self._serve(line, connections)
        finally:
            connections.close()

    def _serve(self, line: _Line, connections: ThreadConnections) -> _Line | None:
        """Run the line's next call; return the line to serve after it."""
        assert line.calls is not None
        call = line.calls[0]
        outcome = call.run()
        connections.tidy()
        following = self._pool.leave(self, line)
        # Last of all: whoever gets the result finds this thread free for what comes next.
        call.deliver(outcome)
        del outcome  # an error's traceback leads to this frame, too
        return following

    def _wait(self, connections: ThreadConnections) -> bool:
        """Wait for work; False when it is time to end."""
        ends_at = time.monotonic() + _IDLE_S
        while True:
            expires_at = connections.next_expiry()
            wakes_at = ends_at if expires_at is None else min(ends_at, expires_at)
            try:
                return self.orders.get(timeout=max(0.0, wakes_at - time.monotonic()))
            except Empty:
                if wakes_at == ends_at and self._pool.dismiss(self):
                    return False
                connections.close_old()


class _Pool:
    """The threads, and the lines that wait for one.

    One thread is called up at a time, and calls up the next one where there is more to do. For
    handlers that take no time, a few threads that go on working beat many that wake at once
    and fight for the interpreter.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin without a thread: at first, and in a process that was forked off."""
        self._lock = threading.Lock()
        self._workers: set[_Worker] = set()
        #: The last one that fell idle is the first to work again, so that the others end.
        self._idle: list[_Worker] = []
        #: Lines whose next call waits for a thread, each with the time since when.
        self._due: deque[tuple[float, _Line]] = deque()
        #: Whether a thread has been called up that has not begun yet.
        self._calling = False
        self._ending = False
        self._calls = 0
        self._wait_s_total = 0.0
        self._wait_s_longest = 0.0
        self._watching_loop: asyncio.AbstractEventLoop | None = None
        self._quiet_until = 0.0

    def enter(self, line: _Line, call: _Call) -> None:
        """Run the call behind those of its line, as soon as a thread is free."""
        with self._lock:
            self._calls += 1
            if line.calls is not None:
                line.calls.append(call)
                return
            line.calls = deque((call,))
            self._due.append((time.monotonic(), line))
            try:
                self._call_up()
            except RuntimeError:  # the system gives no thread
                if not self._workers:
                    self._due.pop()
                    line.calls = None
                    raise
            waiting = self._waiting
        if waiting:
            self._watch()

    def begin(self, worker: _Worker) -> _Line | None:
        """Begin to work, called up; return a line to serve, if nobody was faster."""
        with self._lock:
            self._calling = False
            line = self._next(worker)
            with suppress(RuntimeError):  # the system gives no thread: those there are do it all
                self._call_up()
            return line

    def leave(self, worker: _Worker, line: _Line) -> _Line | None:
        """Go on after a call of this line; return the line that the worker serves next."""
        with self._lock:
            assert line.calls is not None
            line.calls.popleft()
            if line.calls:
                self._due.append((time.monotonic(), line))
            else:
                line.calls = None
            return self._next(worker)

    def dismiss(self, worker: _Worker) -> bool:
        """Let an idle worker end; False if it has just got work."""
        with self._lock:
            if worker not in self._idle:
                return False
            self._idle.remove(worker)
            self._workers.discard(worker)
            return True

    def end(self) -> None:
        """End the idle threads, and those whose calls end very soon, with their connections."""
        with self._lock:
            self._ending = True
            workers = list(self._workers)
            for worker in self._idle:
                worker.orders.put(False)
        gone_at = time.monotonic() + _EXIT_GRACE_S
        for worker in workers:
            worker.join(max(0.0, gone_at - time.monotonic()))

    def stats(self) -> PoolStats:
        with self._lock:
            return PoolStats(
                size=self._size,
                threads=len(self._workers),
                busy=self._busy,
                waiting=self._waiting,
                calls=self._calls,
                wait_s_total=self._wait_s_total,
                wait_s_longest=self._wait_s_longest,
            )

    # The following need the lock.

    @property
    def _size(self) -> int:
        return conf.settings().sync_threads or 1

    @property
    def _busy(self) -> int:
        return len(self._workers) - len(self._idle)

    @property
    def _waiting(self) -> int:
        """Lines for which no thread is on its way."""
        return max(0, len(self._due) - self._calling)

    def _call_up(self) -> None:
        if self._due and not self._calling and self._busy < self._size:
            worker = self._idle.pop() if self._idle else self._hire()
            worker.orders.put(True)
            self._calling = True

    def _next(self, worker: _Worker) -> _Line | None:
        if self._due and self._busy <= self._size:
            since, line = self._due.popleft()
            waited_s = time.monotonic() - since
            self._wait_s_total += waited_s
            self._wait_s_longest = max(self._wait_s_longest, waited_s)
            return line
        self._idle.append(worker)
        if self._ending:
            worker.orders.put(False)
        return None

    def _hire(self) -> _Worker:
        worker = _Worker(self)
        worker.start()
        self._workers.add(worker)
        return worker

    # The watch over lines that wait. It is a timer of the loop that asked for the thread: the
    # threads themselves can say nothing, all of them are busy.

    def _watch(self) -> None:
        with suppress(RuntimeError):  # not from a loop: no asynchronous caller, no watch
            loop = asyncio.get_running_loop()
            if self._watching_loop is None or self._watching_loop.is_closed():
                self._watching_loop = loop
                loop.call_later(_LONG_WAIT_S, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        now = time.monotonic()
        with self._lock:
            waiting, size = len(self._due), self._size
            waited_s = now - self._due[0][0] if self._due else 0.0
        if not waiting:
            self._watching_loop = None
            return
        if waited_s >= _LONG_WAIT_S and now >= self._quiet_until:
            self._quiet_until = now + _WARNING_INTERVAL_S
            logger.warning(
                "%d connections wait for a thread, the first for %.1f s: all %d that run "
                "synchronous handlers are busy. Raise HEADRACE['SYNC_THREADS'], or let "
                "handlers wait for less",
                waiting,
                waited_s,
                size,
            )
        loop.call_later(max(_LONG_WAIT_S - waited_s, _LONG_WAIT_S / 2), self._look, loop)


_pool = _Pool()
atexit.register(_pool.end)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.reset)


def pool_stats() -> PoolStats:
    """Return what the pool of threads is doing, for a metric."""
    return _pool.stats()


def _read(into: Reading) -> None:
    stats = pool_stats()
    for name, text, value in (
        ("threads", "Threads of synchronous handlers.", stats.threads),
        ("threads_busy", "Those that run a call.", stats.busy),
        ("thread_limit", "How many there may be.", stats.size),
        ("thread_waiting", "Connections whose next call waits for a thread.", stats.waiting),
        ("thread_wait_max_seconds", "The longest wait for a thread.", stats.wait_s_longest),
    ):
        into.gauge(f"headrace_{name}", text, value)
    into.counter("headrace_thread_calls_total", "Calls of synchronous handlers.", stats.calls)
    into.counter(
        "headrace_thread_wait_seconds_total",
        "What connections waited for a thread.",
        stats.wait_s_total,
    )


process.source(_read)


def thread_context() -> ThreadSensitiveContext:
    """Return a new thread context: what runs in it runs one call at a time and in order.

    It takes no thread until something runs in it, and ends with the last reference to it.
    """
    context = ThreadSensitiveContext()
    SyncToAsync.context_to_thread_executor[context] = _Line(_pool)
    return context


async def run_in_connection_thread(
    context: ThreadSensitiveContext, func: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs
) -> R:
    """Call a function in a thread of this context, with the database at its service.

    All thread-sensitive code below the call (``sync_to_async``, the asynchronous ORM) runs
    in the same thread. Exceptions and context variables pass as with asgiref.

    Cancelled before the function began, it never runs. Cancelled later, the function is
    left alone and its result is lost; asynchronous code that it waits for is cancelled. What
    runs in the context next waits until it has returned in any case.
    """
    call = database_sync_to_async(func)
    if _has_another_place():
        return await call(*args, **kwargs)
    token = SyncToAsync.thread_sensitive_context.set(context)
    try:
        return await call(*args, **kwargs)
    finally:
        # A coroutine that is thrown away, its loop gone, is closed in whatever context that is.
        with suppress(ValueError):
            SyncToAsync.thread_sensitive_context.reset(token)


class ThreadPoolMiddleware:
    """Has an application run its synchronous code in the pool, such as Django its views.

    Without it Django starts a thread for each request, and every thread opens its own database
    connections. Those of the pool's threads are used again: set ``CONN_MAX_AGE``.

    The calls of one request run in order, and not all in the same thread: what is kept in a
    ``threading.local()`` between two of them need not be there. A call that waits holds its
    thread, such as synchronous middleware around a view that answers late.
    """

    def __init__(self, inner: ASGIApplication) -> None:
        self.inner = inner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
        """Serve one connection (ASGI 3)."""
        if _has_another_place():
            return await self.inner(scope, receive, send)
        token = SyncToAsync.thread_sensitive_context.set(thread_context())
        try:
            return await self.inner(scope, receive, send)
        finally:
            # A coroutine that is thrown away, its loop gone, is closed in whatever context that is.
            with suppress(ValueError):
                SyncToAsync.thread_sensitive_context.reset(token)


def _has_another_place() -> bool:
    """Tell whether thread-sensitive code of this task belongs elsewhere than into the pool."""
    return (
        # Django's TestCase waits in its thread for this loop: its transaction is there.
        asyncio.get_running_loop() in AsyncToSync.loop_thread_executors
        or SyncToAsync.thread_sensitive_context.get(None) is not None
        or conf.settings().sync_threads == 0
    )
