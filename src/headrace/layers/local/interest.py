"""Who wants to hear of what: a table in memory that all processes of the host share.

Rules of this file:

- A process that receives owns a *slot*: a lock on a file, which the kernel takes back however
  the process ends, and a row of bytes. No other process writes in that row.
- A name falls into a *bucket*, the same in every process. The owner sets the bucket's byte
  in its row while it wants to hear of any name in it: whoever sends looks at one byte of each
  row, without a system call, and sees at once what has been set.
- Two names may share a bucket. A process is then sent what it has no use for, and drops it.
- The row of slot 0 belongs to nobody: what is set there is about the queue of named channels.
- No lock is waited for. What a dead process has left is cleaned by whoever finds it.
"""

import contextlib
import fcntl
import mmap
import os
import tempfile
import zlib

from ...exceptions import InvalidChannelLayerError
from . import wire
from .directory import Directory

__all__ = ["QUEUE", "SLOTS", "Interest", "Slot", "bucket_of"]

SLOTS = 256
_BUCKETS = 1 << 17

# magic (16 bytes) | abandoned | 256 states | 256 ids of 16 bytes | 256 rows, of which those in use
# are written
_LAYOUT = 1
_MAGIC = b"headrace %3d.%3d" % (_LAYOUT, wire.VERSION)
_ABANDONED = 16
_STATES = 256
_IDS = 4096
_ROWS = 8192
_SIZE = _ROWS + SLOTS * _BUCKETS
_ID_BYTES = 16

#: The row of what is about named channels.
QUEUE = 0


def bucket_of(name: str) -> int:
    """Return the bucket of a group's name, or another's."""
    return zlib.crc32(name.encode()) & (_BUCKETS - 1)


class Interest:
    """The table. Any number of processes have it open."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        with contextlib.suppress(FileExistsError):
            self._make()
        fd = os.open(directory / "table", os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            self.inode = os.fstat(fd).st_ino
            self._map = mmap.mmap(fd, _SIZE)
            if self._map[: len(_MAGIC)] != _MAGIC:
                raise InvalidChannelLayerError(
                    f"directory {directory.path} is used by another version of Headrace: restart "
                    "all processes with one version, or name another 'directory' in the CONFIG of "
                    "CHANNEL_LAYERS"
                )
        finally:
            os.close(fd)

    def _make(self) -> None:
        """Make the file in one piece; FileExistsError when another was first."""
        if os.path.lexists(self._directory / "table"):
            return
        fd, name = tempfile.mkstemp(prefix="new-", dir=self._directory.path)
        try:
            os.ftruncate(fd, _SIZE)
            # Written, not only sized: where there is no memory for it, it is an error here and
            # not a signal later.
            os.pwrite(fd, _MAGIC + bytes(_ROWS + _BUCKETS - len(_MAGIC)), 0)
            os.link(name, self._directory / "table")
        finally:
            os.close(fd)
            os.unlink(name)

    # Senders

    def slots_of(self, bucket: int) -> list[int]:
        """Return the slots that want to hear of the bucket; QUEUE may be among them."""
        table = self._map
        used = table[_STATES : _STATES + SLOTS].rfind(1) + 1 or 1
        column = table[_ROWS + bucket : _ROWS + used * _BUCKETS : _BUCKETS]
        slots = []
        slot = column.find(1)
        while slot >= 0:
            slots.append(slot)
            slot = column.find(1, slot + 1)
        return slots

    @property
    def abandoned(self) -> bool:
        """Whether somebody has found that the file is not in its place any more."""
        return self._map[_ABANDONED] != 0

    def abandon(self) -> None:
        """Tell all who have the table that there is another in its place."""
        self._map[_ABANDONED] = 1

    def process_in(self, slot: int) -> str | None:
        """Return the process that has the slot."""
        at = _IDS + slot * _ID_BYTES
        process = self._map[at : at + _ID_BYTES]
        return process.decode("ascii", "replace") if process[0] else None

    def processes(self) -> list[str]:
        """Return all processes that have slots, dead ones included that nobody has found yet."""
        return [process for slot in range(1, SLOTS) if (process := self.process_in(slot))]

    # Owners

    def take_slot(self, process: str) -> "Slot":
        """Take the first free slot; OSError when all are taken."""
        for number in range(1, SLOTS):
            lock = self._lock(number)
            if lock is not None:
                try:
                    self._allocate(number)
                    self._clean(number)
                except BaseException:
                    os.close(lock)
                    raise
                return Slot(self, number, lock, process)
        raise OSError(f"{self._directory.path}: {SLOTS - 1} processes have all slots")

    def bury(self, process: str) -> bool:
        """Clean up after a process, if it is dead; tell whether it was."""
        for number in range(1, SLOTS):
            if self.process_in(number) == process:
                lock = self._lock(number)
                if lock is None:
                    return False
                try:
                    if self.process_in(number) == process:
                        self._clean(number)
                finally:
                    os.close(lock)
        return True

    def set(self, slot: int, bucket: int, *, wanted: bool) -> None:
        """Write the byte of one bucket in one row."""
        self._map[_ROWS + slot * _BUCKETS + bucket] = wanted

    def clear_row(self, slot: int) -> None:
        """Forget what is set in a row."""
        at = _ROWS + slot * _BUCKETS
        self._map[at : at + _BUCKETS] = bytes(_BUCKETS)

    def _allocate(self, slot: int) -> None:
        """See to it that there is memory for a row, as in ``_make``."""
        fd = os.open(self._directory / "table", os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if os.fstat(fd).st_ino != self.inode:
                raise FileNotFoundError(f"{self._directory.path}: the table has been removed")
            os.pwrite(fd, bytes(_BUCKETS), _ROWS + slot * _BUCKETS)
        finally:
            os.close(fd)

    def _lock(self, number: int) -> int | None:
        """Return the locked file of a slot, or None if a living process has it."""
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(self._directory / f"slot-{number}", flags, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return None
        return fd

    def _clean(self, number: int) -> None:
        """Forget the last owner of a slot whose lock is ours."""
        process = self.process_in(number)
        self.clear_row(number)
        self._name(number, bytes(_ID_BYTES), alive=False)
        if process is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._directory / f"p-{process}")
            with contextlib.suppress(FileNotFoundError):
                for name in os.listdir(self._directory.path):
                    if name.startswith(f"b-{process}-"):
                        os.unlink(self._directory / name)

    def _name(self, number: int, process: bytes, *, alive: bool) -> None:
        at = _IDS + number * _ID_BYTES
        self._map[at : at + _ID_BYTES] = process
        self._map[_STATES + number] = alive


class Slot:
    """A process's own slot."""

    def __init__(self, table: Interest, number: int, lock: int, process: str) -> None:
        self._table = table
        self._lock = lock
        self._process = process
        self.number = number

    def show(self) -> None:
        """Let others find the process: it listens now."""
        self._table._name(self.number, self._process.encode(), alive=True)  # noqa: SLF001

    def set(self, bucket: int, *, wanted: bool) -> None:
        """Say whether this process wants to hear of the bucket."""
        self._table.set(self.number, bucket, wanted=wanted)

    def release(self) -> None:
        """Give the slot back, clean."""
        self._table._clean(self.number)  # noqa: SLF001
        os.close(self._lock)

    def abandon(self) -> None:
        """Let go in a forked child: the slot is the parent's."""
        os.close(self._lock)
