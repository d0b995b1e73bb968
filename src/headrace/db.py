"""The ORM from asynchronous code, in threads, and events that are sent after a commit.

Rules of this file:

- A call through ``database_sync_to_async`` finds fresh connections and leaves none that is
  past its age: it closes old ones before and after itself, in the thread in which it runs.
- Queries that reach the database another way (``await Model.objects.aget()``,
  ``sync_to_async``) leave a mark in their context. Whoever owns the context asks
  ``cleanup_due()``, which costs a few dozen nanoseconds, and hops to a thread only then.
- A thread that is taken care of (``ThreadConnections``) leaves no marks: its owner tidies up.
- Threads that share a database in memory wait for one another's transactions, as they
  would with a database in a file.
- An event that is sent on commit is checked and copied at the call. What goes wrong after the
  commit can't undo it: it is logged and counted, and raises nothing.
"""

import logging
import threading
import time
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from typing import Any, ParamSpec, TypeVar, overload

from asgiref.sync import SyncToAsync, async_to_sync, sync_to_async
from django.db import OperationalError, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

from .instruments import Reading, process
from .layers import DEFAULT_CHANNEL_LAYER, channel_layers
from .layers.base import BaseChannelLayer, Event, running_loop

__all__ = [
    "DatabaseSyncToAsync",
    "ThreadConnections",
    "aclose_old_connections",
    "agroup_send_on_commit",
    "asend_on_commit",
    "cleanup_due",
    "database_sync_to_async",
    "group_send_on_commit",
    "on_commit_metrics",
    "send_on_commit",
    "track_database_use",
]

P = ParamSpec("P")
R = TypeVar("R")

logger = logging.getLogger("headrace.db")


class _SharedMark:
    """Whether a context, or a task that was started from it, used the database."""

    __slots__ = ("used",)

    def __init__(self) -> None:
        self.used = False


_mark: ContextVar[_SharedMark | bool] = ContextVar("headrace_database_used", default=False)


class _ThisThread(threading.local):
    #: Inside a call that cleans up by itself.
    tidy = False
    #: Somebody takes care of this thread, and wants to know of queries outside of such calls.
    cared_for = False
    used = False


_this_thread = _ThisThread()

#: Another connection to the same memory has locked the table (sqlite.org/rescode.html).
_SQLITE_LOCKED = 6

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
        outermost = not _this_thread.tidy
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


class ThreadConnections:
    """The database connections of the thread that makes it, which takes care of them itself."""

    def __init__(self) -> None:
        _this_thread.cared_for = True

    def tidy(self) -> None:
        """Close old connections after a call that left that to its thread."""
        if _this_thread.used:
            _this_thread.used = False
            self.close_old()

    def close_old(self) -> None:
        """Close connections that are broken or past their age."""
        self._safely(close_old_connections)

    def close(self) -> None:
        """Close all connections: the thread ends."""
        for connection in connections.all(initialized_only=True):
            # A database in memory refuses to close, for the sake of those who come back to
            # it. Nobody comes back to this thread.
            self._safely(BaseDatabaseWrapper.close, connection)

    def next_expiry(self) -> float | None:
        """Return when the first of the open connections will be past its age."""
        return min(_expiries(time.monotonic()), default=None)

    def _safely(self, close: Callable[..., None], *args: Any) -> None:
        try:
            close(*args)
        except Exception:  # the thread has other work to do
            logger.exception("a database connection could not be closed")


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
    database can run consumers, whatever tests there were before it. So is a connection whose
    transaction is still open: somebody above us goes on with it, such as a test case.
    """
    for connection in connections.all(initialized_only=True):
        if not connection.in_atomic_block and not _is_in_memory(connection):
            connection.close_if_unusable_or_obsolete()


def _is_in_memory(connection: BaseDatabaseWrapper) -> bool:
    is_in_memory = getattr(connection, "is_in_memory_db", None)
    return is_in_memory is not None and is_in_memory()


def _close_in_this_thread() -> None:
    close_old_connections()
    if _this_thread.cared_for:
        return
    global _next_expiry
    for close_at in _expiries(time.monotonic()):
        with _expiry_lock:
            _next_expiry = min(_next_expiry or close_at, close_at)


def _expiries(now: float) -> list[float]:
    """Return when this thread's open connections will be past their age."""
    return [
        close_at
        for connection in connections.all(initialized_only=True)
        # Past its age and still open: inside a transaction, or in memory. Nothing to wait for.
        if connection.connection is not None and (close_at := connection.close_at or 0.0) > now
    ]


def _set_mark(*, used: bool) -> None:
    mark = _mark.get()
    if isinstance(mark, _SharedMark):
        mark.used = used
    elif mark is not used:
        # asgiref carries what a thread sets back to the coroutine that awaits it.
        _mark.set(used)


def _mark_use(execute: Callable[..., Any], *args: Any) -> Any:
    if not _this_thread.tidy:
        if _this_thread.cared_for:
            _this_thread.used = True
        # A query in the main thread is made at start-up or by a test. Its mark would be
        # inherited by every connection, none of which made it.
        elif not _in_main_thread():
            _set_mark(used=True)
    return execute(*args)


class _InTurn:
    """Makes a query wait until no other thread's transaction locks what it needs.

    SQLite waits by itself for a database in a file. In memory, where threads share the
    tables, it fails at once with "table is locked".
    """

    _INTERVAL_S = 0.002

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s

    def __call__(
        self, execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: Any
    ) -> Any:
        gives_up_at = time.monotonic() + self._timeout_s
        while True:
            try:
                return execute(sql, params, many, context)
            except OperationalError as error:
                # What was done many times may have been done in part.
                if many or not _is_locked(error) or time.monotonic() >= gives_up_at:
                    raise
            time.sleep(self._INTERVAL_S)


def _is_locked(error: OperationalError) -> bool:
    code = getattr(error.__cause__, "sqlite_errorcode", 0)
    return code & 0xFF == _SQLITE_LOCKED  # an extended code has the plain one in its low byte


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _watch(connection: BaseDatabaseWrapper, **_: Any) -> None:
    in_memory = _is_in_memory(connection)
    if in_memory:
        # sqlite.org/sharedcache.html §2.3: who only reads locks nothing. Two transactions that
        # read a table and then write to it would wait for each other.
        connection.connection.execute("PRAGMA read_uncommitted = 1").close()
    if _mark_use in connection.execute_wrappers:
        return
    connection.execute_wrappers.append(_mark_use)
    if in_memory:
        timeout_s = connection.settings_dict["OPTIONS"].get("timeout", 5.0)
        connection.execute_wrappers.append(_InTurn(timeout_s))


# Events that are sent after a commit


def group_send_on_commit(
    group: str,
    message: Event,
    *,
    using: str | None = None,
    layer: str | BaseChannelLayer = DEFAULT_CHANNEL_LAYER,
) -> None:
    """Send the message to the group once the transaction is committed.

    Not at all if it, or the savepoint around this call, is rolled back. Outside of a
    transaction it is sent at once. Messages go out in the order of the calls.

    Args:
        group: Its name.
        message: What is sent is the message as it is now.
        using: The alias of the database.
        layer: The alias of the channel layer, or the layer.

    Raises what ``group_send`` would raise for the name and the message. That the layer could
    not take it, after the commit, is logged and counted (``on_commit_metrics``).
    """
    _require_no_loop("group_send_on_commit")
    _on_commit(_Posting(layer, "group", group, message), using)


def send_on_commit(
    channel: str,
    message: Event,
    *,
    using: str | None = None,
    layer: str | BaseChannelLayer = DEFAULT_CHANNEL_LAYER,
) -> None:
    """Send the message to one channel once the transaction is committed.

    As ``group_send_on_commit`` does. That the channel is full is logged and counted, too.
    """
    _require_no_loop("send_on_commit")
    _on_commit(_Posting(layer, "channel", channel, message), using)


async def agroup_send_on_commit(
    group: str,
    message: Event,
    *,
    using: str | None = None,
    layer: str | BaseChannelLayer = DEFAULT_CHANNEL_LAYER,
) -> None:
    """Do what ``group_send_on_commit`` does, from a coroutine.

    The transaction that counts is the one in which the coroutine's own queries run: that of
    the synchronous code which called it by ``async_to_sync``, or of a test case. Django has no
    ``atomic`` for asynchronous code, so that there is none elsewhere.
    """
    posting = _Posting(layer, "group", group, message)
    await database_sync_to_async(_on_commit)(posting, using)


async def asend_on_commit(
    channel: str,
    message: Event,
    *,
    using: str | None = None,
    layer: str | BaseChannelLayer = DEFAULT_CHANNEL_LAYER,
) -> None:
    """Do what ``send_on_commit`` does, from a coroutine. See ``agroup_send_on_commit``."""
    posting = _Posting(layer, "channel", channel, message)
    await database_sync_to_async(_on_commit)(posting, using)


def on_commit_metrics() -> dict[str, int]:
    """Return how many events this process has sent on commit, and how many it could not send."""
    with _outcomes_lock:
        return _outcomes.copy()


def _read(into: Reading) -> None:
    outcomes = on_commit_metrics()
    for outcome in ("sent", "failed"):
        into.counter(
            "headrace_on_commit_total",
            "Events that were to be sent after a commit, by outcome.",
            outcomes[f"{outcome}_total"],
            outcome=outcome,
        )


process.source(_read)

_outcomes = {"sent_total": 0, "failed_total": 0}
_outcomes_lock = threading.Lock()


class _Posting:
    """A message with the group or channel that it is for: called, it sends it."""

    __slots__ = ("_kind", "_message", "_name", "_send")

    def __init__(self, layer: str | BaseChannelLayer, kind: str, name: str, message: Event) -> None:
        # A layer that derives from nothing of ours has ``send`` and ``group_send``, and less
        # than all of the rest.
        to: Any = channel_layers[layer] if isinstance(layer, str) else layer
        send = "group_send" if kind == "group" else "send"
        self._kind = kind
        self._name = name
        self._send = getattr(to, f"{send}_sync", None) or async_to_sync(getattr(to, send))
        check_name = getattr(to, f"require_valid_{kind}_name", None)
        if check_name is None:
            check_name = getattr(to, f"valid_{kind}_name", None)
        if check_name is not None:
            check_name(name)
        prepare = getattr(to, "prepared", None) or BaseChannelLayer().prepared
        self._message: Event = prepare(message)

    def __call__(self) -> None:
        outcome = "sent_total"
        try:
            self._send(self._name, self._message)
        except Exception:
            outcome = "failed_total"
            logger.exception(
                "%s %s: an event of type %.80r was not sent after the commit",
                self._kind,
                self._name,
                self._message.get("type"),
            )
        with _outcomes_lock:
            _outcomes[outcome] += 1


def _on_commit(posting: _Posting, using: str | None) -> None:
    connection = transaction.get_connection(using)
    # Asked of its own accord, ``transaction.on_commit`` connects to a database that nobody uses.
    manual = connection.connection is not None and not connection.autocommit
    if connection.in_atomic_block or manual:
        transaction.on_commit(posting, using, robust=True)
    else:
        posting()


def _require_no_loop(function: str) -> None:
    if running_loop() is not None:
        raise RuntimeError(
            f"{function}() was called on the thread of an event loop: await a{function}() instead"
        )


connection_created.connect(_watch, dispatch_uid="headrace.db")
