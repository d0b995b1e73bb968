"""The database connections of a test: who shares them, and when they are closed.

Rules of this file:

- A test in a transaction shares its one connection with the threads that work for it, one
  at a time. Only that connection sees what was not committed.
- A live server's threads have connections of their own, as in production, and none outlives
  the server. To share one among threads that work at the same time mixes transactions up.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from asgiref.sync import SyncToAsync
from django.core.signals import request_finished, request_started
from django.db import close_old_connections, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

from .. import db

__all__ = ["ThreadsConnections", "share_connections", "spare_transactions"]

#: How long a thread may go on with a connection that another one wants back.
IN_USE_S = 5.0


class ThreadsConnections:
    """The connections that are opened, on any thread but the test's, until ``close()``.

    One that is left open keeps a test database from being destroyed, and threads that others
    own (asgiref's, the executor of a request) may live longer than the server.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._opened: list[tuple[threading.Thread, BaseDatabaseWrapper]] = []

    def __iter__(self) -> Iterator[BaseDatabaseWrapper]:
        """Yield those that are known to be open."""
        return iter([connection for _, connection in self._opened])

    def watch(self) -> None:
        """Begin, on the test's thread."""
        self._owner = threading.current_thread()
        connection_created.connect(self._created)

    def close(self) -> None:
        """Close them, on whatever thread."""
        connection_created.disconnect(self._created)
        with self._lock:
            opened, self._opened = self._opened, []
        for _, connection in opened:
            _close(connection)

    def _created(self, connection: BaseDatabaseWrapper, **_: Any) -> None:
        here = threading.current_thread()
        if here is self._owner:
            return
        with self._lock:
            # Django has a thread for each request: most have ended long before the server.
            gone = [each for thread, each in self._opened if not thread.is_alive()]
            self._opened = [each for each in self._opened if each[0].is_alive()]
            if (here, connection) not in self._opened:
                self._opened.append((here, connection))
        for each in gone:
            _close(each)


def _close(connection: BaseDatabaseWrapper) -> None:
    """Close a connection of another thread, which uses it no more."""
    connection.inc_thread_sharing()
    try:
        # Not its own close(), which spares a database in memory: the test keeps that alive.
        BaseDatabaseWrapper.close(connection)
    finally:
        connection.dec_thread_sharing()


_sparing = 0
_sparing_lock = threading.Lock()


@contextlib.contextmanager
def spare_transactions() -> Iterator[None]:
    """Let Django's requests close no connection whose transaction is open, for a while.

    With each request Django closes old connections, of which one with an open transaction is
    taken to be left over. In a test case, it is the test's.
    """
    global _sparing
    with _sparing_lock:
        _sparing += 1
        if _sparing == 1:
            _exchange(close_old_connections, _close_old_connections)
    try:
        yield
    finally:
        with _sparing_lock:
            _sparing -= 1
            if _sparing == 0:
                _exchange(_close_old_connections, close_old_connections)


def _exchange(old: Callable[..., None], new: Callable[..., None]) -> None:
    for signal in (request_started, request_finished):
        signal.disconnect(old)
        signal.connect(new)


def _close_old_connections(**_: Any) -> None:
    db.close_old_connections()


@contextlib.contextmanager
def share_connections() -> Iterator[None]:
    """Let every thread use this thread's connections for a while, and not its own.

    The caller sees to it that no two do so at the same time. In the end asgiref's one thread,
    which runs the ORM for asynchronous code, may still be at work for a task that was
    cancelled; TimeoutError when it does not finish in ``IN_USE_S``.
    """
    shared = connections.all()
    for connection in shared:
        connection.inc_thread_sharing()
    # The one place where Django looks them up. ``connections[alias] = ...`` would have to be
    # done, and undone, on each of the threads.
    own = connections._connections  # type: ignore[attr-defined]  # noqa: SLF001
    connections._connections = _Shared(own, shared)  # type: ignore[attr-defined]  # noqa: SLF001
    try:
        yield
    finally:
        SyncToAsync.single_thread_executor.submit(int).result(IN_USE_S)
        connections._connections = own  # type: ignore[attr-defined]  # noqa: SLF001
        for connection in shared:
            connection.dec_thread_sharing()


class _Shared:
    """Stands for the thread-local store of connections."""

    def __init__(self, own: Any, shared: Sequence[BaseDatabaseWrapper]) -> None:
        vars(self).update({connection.alias: connection for connection in shared})
        self._own = own

    def __getattr__(self, alias: str) -> Any:
        return getattr(self._own, alias)
