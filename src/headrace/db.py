"""The ORM from asynchronous code: in a thread, and no old connection is left behind.

Rules of this file:

- A call through ``database_sync_to_async`` finds fresh connections and leaves none that is
  past its age: it closes old ones before and after itself, in the thread in which it runs.
- Queries that reach the database another way (``await Model.objects.aget()``,
  ``sync_to_async``) leave a mark in their context. Whoever owns the context asks
  ``cleanup_due()``, which costs a few dozen nanoseconds, and hops to a thread only then.
"""

import threading
import time
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from typing import Any, ParamSpec, TypeVar, overload

from asgiref.sync import SyncToAsync, sync_to_async
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

__all__ = [
    "DatabaseSyncToAsync",
    "aclose_old_connections",
    "cleanup_due",
    "database_sync_to_async",
    "track_database_use",
]

P = ParamSpec("P")
R = TypeVar("R")


class _SharedMark:
    """Whether a context, or a task that was started from it, used the database."""

    __slots__ = ("used",)

    def __init__(self) -> None:
        self.used = False


_mark: ContextVar[_SharedMark | bool] = ContextVar("headrace_database_used", default=False)
_this_thread = threading.local()  # .tidy is true inside a call that cleans up by itself

_expiry_lock = threading.Lock()
#: When the first of the connections that were left open is past its age.
_next_expiry: float | None = None


class DatabaseSyncToAsync(SyncToAsync[P, R]):
    """A function that uses the ORM, as a coroutine function: each call runs in a thread.

    Old connections of that thread are closed before and after the call.
    """

    def thread_handler(self, loop: Any, *args: Any, **kwargs: Any) -> Any:
        """Run the call, in its thread, between two clean-ups."""
        _close_in_this_thread()
        outermost = not getattr(_this_thread, "tidy", False)
        _this_thread.tidy = True
        try:
            return super().thread_handler(loop, *args, **kwargs)  # type: ignore[no-untyped-call]
        finally:
            if outermost:
                _this_thread.tidy = False
            _close_in_this_thread()


@overload
def database_sync_to_async(
    func: Callable[P, R], *, thread_sensitive: bool = True, executor: Any = None
) -> Callable[P, Coroutine[Any, Any, R]]: ...


@overload
def database_sync_to_async(
    *, thread_sensitive: bool = True, executor: Any = None
) -> Callable[[Callable[P, R]], Callable[P, Coroutine[Any, Any, R]]]: ...


def database_sync_to_async(
    func: Callable[..., Any] | None = None, *, thread_sensitive: bool = True, executor: Any = None
) -> Any:
    """Make a function that uses the ORM callable from asynchronous code.

    Use it as a decorator, with or without arguments, or as a call. The arguments are those
    of ``asgiref.sync.sync_to_async``: with ``thread_sensitive`` (the default) all calls share
    one thread, and with it Django's connections.
    """
    if func is None:
        return lambda func: DatabaseSyncToAsync(func, thread_sensitive, executor)
    return DatabaseSyncToAsync(func, thread_sensitive, executor)


def cleanup_due() -> bool:
    """Tell whether ``aclose_old_connections`` has anything to do for the current context.

    True when the context used the database since it was last cleaned up, and when a
    connection that was kept open (``CONN_MAX_AGE``) has passed its age since. Ask before and
    after each piece of work; no thread is involved.
    """
    mark = _mark.get()
    if mark is not False and (mark is True or mark.used):
        return True
    return _next_expiry is not None and time.monotonic() >= _next_expiry


def track_database_use() -> None:
    """Share one mark between this context and the tasks that are started from it from now on.

    Without it, a query in a child task (``asyncio.gather``, ``create_task``) marks the child's
    own context only. Queries awaited in place need no tracking.
    """
    _mark.set(_SharedMark())


async def aclose_old_connections() -> None:
    """Close the connections that are broken or past their age, in the ORM's thread."""
    global _next_expiry
    _set_mark(used=False)
    _next_expiry = None
    await sync_to_async(_close_in_this_thread)()


def close_old_connections() -> None:
    """Close this thread's connections that are broken or past their age, as Django's does.

    A database in memory is passed over: it can't be closed. So a test that may not use the
    database can run consumers, whatever tests there were before it.
    """
    for connection in connections.all(initialized_only=True):
        is_in_memory = getattr(connection, "is_in_memory_db", None)
        if is_in_memory is None or not is_in_memory():
            connection.close_if_unusable_or_obsolete()


def _close_in_this_thread() -> None:
    close_old_connections()
    global _next_expiry
    now = time.monotonic()
    for connection in connections.all(initialized_only=True):
        # Past its age and still open: inside a transaction, or in memory. Nothing to wait for.
        close_at = connection.close_at or 0.0
        if connection.connection is not None and close_at > now:
            with _expiry_lock:
                _next_expiry = min(_next_expiry or close_at, close_at)


def _set_mark(*, used: bool) -> None:
    mark = _mark.get()
    if isinstance(mark, _SharedMark):
        mark.used = used
    elif mark is not used:
        # asgiref carries what a thread sets back to the coroutine that awaits it.
        _mark.set(used)


def _mark_use(execute: Callable[..., Any], *args: Any) -> Any:
    # A query in the main thread is made at start-up or by a test. Its mark would be inherited
    # by every connection, none of which made it.
    if not getattr(_this_thread, "tidy", False) and not _in_main_thread():
        _set_mark(used=True)
    return execute(*args)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _watch(connection: BaseDatabaseWrapper, **_: Any) -> None:
    if _mark_use not in connection.execute_wrappers:
        connection.execute_wrappers.append(_mark_use)


connection_created.connect(_watch, dispatch_uid="headrace.db")
