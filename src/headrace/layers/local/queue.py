"""What waits for named channels, and the groups that they are in: a file of SQLite.

Rules of this file:

- It outlives every process; each message goes to one reader, the oldest first.
- No call waits. Another process may be in the midst of a change, and may have been stopped
  there: then it is ``Busy``, and the caller decides how long to come again.
- What is killed in a transaction has not begun it.
"""

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["Busy", "Queue"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS waiting (
    id INTEGER PRIMARY KEY AUTOINCREMENT, channel TEXT NOT NULL, until REAL NOT NULL, data BLOB
);
CREATE INDEX IF NOT EXISTS waiting_channel ON waiting (channel, id);
CREATE INDEX IF NOT EXISTS waiting_until ON waiting (until);
CREATE TABLE IF NOT EXISTS members (
    room TEXT NOT NULL, channel TEXT NOT NULL, until REAL NOT NULL, bucket INTEGER NOT NULL,
    PRIMARY KEY (room, channel)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS members_bucket ON members (bucket);
"""


class Busy(Exception):
    """Another process is changing the queue."""


class Queue:
    """The queues of all named channels. ``now`` and ``until`` are seconds of the wall clock."""

    def __init__(self, path: str) -> None:
        self._lock = threading.Lock()
        self._sqlite = sqlite3.connect(
            path, timeout=0, isolation_level=None, check_same_thread=False
        )
        try:
            with self._trying():
                self._sqlite.execute("PRAGMA journal_mode = WAL")
                # Nothing here is to survive the host.
                self._sqlite.execute("PRAGMA synchronous = OFF")
                if not self._sqlite.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone():
                    self._sqlite.executescript("BEGIN IMMEDIATE;" + _SCHEMA + "COMMIT;")
        except BaseException:
            self._sqlite.close()
            raise

    def put(self, channel: str, data: bytes, *, capacity: int, now: float, until: float) -> bool:
        """Add to a channel's queue; False when ``capacity`` messages wait in it."""
        with self._transaction() as run:
            run("DELETE FROM waiting WHERE until <= ?", (now,))
            (waiting,) = run(
                "SELECT count(*) FROM (SELECT 1 FROM waiting WHERE channel = ? LIMIT ?)",
                (channel, capacity),
            ).fetchone()
            if waiting >= capacity:
                return False
            run(
                "INSERT INTO waiting (channel, until, data) VALUES (?, ?, ?)",
                (channel, until, data),
            )
        return True

    def get(self, channel: str, *, now: float) -> bytes | None:
        """Take out the oldest that waits for a channel, if there is any."""
        oldest = "SELECT id, data FROM waiting WHERE channel = ? AND until > ? ORDER BY id LIMIT 1"
        with self._trying():
            # To look disturbs nobody, to change does.
            if self._sqlite.execute(oldest, (channel, now)).fetchone() is None:
                return None
        with self._transaction() as run:
            found = run(oldest, (channel, now)).fetchone()
            if found is None:
                return None
            run("DELETE FROM waiting WHERE id = ?", (found[0],))
        data: bytes = found[1]
        return data

    def join(
        self, group: str, channel: str, *, bucket: int, until: float, mark: Callable[[], None]
    ) -> None:
        """Make a channel a member of a group, and ``mark`` the bucket of the group."""
        with self._transaction() as run:
            mark()
            run(
                "INSERT OR REPLACE INTO members (room, channel, until, bucket) VALUES (?, ?, ?, ?)",
                (group, channel, until, bucket),
            )

    def leave(
        self, group: str, channel: str, *, bucket: int, now: float, unmark: Callable[[], None]
    ) -> None:
        """Take a channel out of a group, and ``unmark`` the bucket if that was its last member."""
        with self._transaction() as run:
            run("DELETE FROM members WHERE room = ? AND channel = ?", (group, channel))
            run("DELETE FROM members WHERE until <= ?", (now,))
            if not run("SELECT 1 FROM members WHERE bucket = ? LIMIT 1", (bucket,)).fetchone():
                # Here, where no other process can join meanwhile.
                unmark()

    def members(self, group: str, *, now: float) -> list[str]:
        """Return the named channels in a group."""
        with self._trying():
            found = self._sqlite.execute(
                "SELECT channel FROM members WHERE room = ? AND until > ?", (group, now)
            ).fetchall()
        return [channel for (channel,) in found]

    def buckets(self) -> list[int]:
        """Return the buckets of the groups in which named channels are."""
        with self._trying():
            found = self._sqlite.execute("SELECT DISTINCT bucket FROM members").fetchall()
        return [bucket for (bucket,) in found]

    def clear(self, *, unmark: Callable[[], None]) -> None:
        """Forget everything, and ``unmark`` all buckets."""
        with self._transaction() as run:
            unmark()
            run("DELETE FROM waiting", ())
            run("DELETE FROM members", ())

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._sqlite.close()

    @contextmanager
    def _trying(self) -> Iterator[None]:
        with self._lock:
            try:
                yield
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                    raise Busy from error
                raise

    @contextmanager
    def _transaction(self) -> Iterator[Callable[..., sqlite3.Cursor]]:
        with self._trying():
            self._sqlite.execute("BEGIN IMMEDIATE")
            try:
                yield self._sqlite.execute
                self._sqlite.execute("COMMIT")
            except BaseException:
                self._sqlite.rollback()
                raise
