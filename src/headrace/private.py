"""Folders and sockets that belong to one user, and to nobody else.

Rules of this file:

- Private is what its owner alone may enter: mode 0700, the owner is the effective user, no
  symbolic link. What is found to be anything else is refused, never repaired: it may be a trap.
- The place follows from the user alone, not from the environment of a process: what cron starts
  meets what systemd has started.
"""

import contextlib
import os
import socket
import stat
import struct
from collections.abc import Collection
from pathlib import Path

__all__ = ["ROOTS", "NotPrivate", "check", "make", "require_same_user", "user_folder"]

#: Where folders of all users are. Memory first: nothing in there is to survive a reboot.
#: Not ``TMPDIR``, which is another one for each way to start a process.
ROOTS = ("/dev/shm", "/tmp")  # noqa: S108 - what is made there is private, and checked


class NotPrivate(Exception):
    """A folder is not what it has to be; the text says in what way, after its name."""


def user_folder() -> Path:
    """Return the folder in which all of ours is; it may not be there yet."""
    root = next((root for root in ROOTS if os.access(root, os.W_OK | os.X_OK)), ROOTS[-1])
    return Path(root, f"headrace-{os.geteuid()}")


def make(path: Path) -> None:
    """Make a folder where there is none; raise NotPrivate where what is there is not ours alone.

    Raises OSError where it can't be made.
    """
    with contextlib.suppress(FileExistsError):
        path.mkdir(0o700)
    check(os.lstat(path))


def check(found: os.stat_result) -> None:
    """Raise NotPrivate unless this is a folder of ours alone."""
    if not stat.S_ISDIR(found.st_mode):
        raise NotPrivate("is no directory")
    if found.st_uid != os.geteuid():
        raise NotPrivate(f"belongs to user {found.st_uid}, and this process runs as {os.geteuid()}")
    if found.st_mode & 0o077:
        raise NotPrivate(f"lets others in (mode {stat.S_IMODE(found.st_mode):04o})")


def require_same_user(connection: socket.socket, *, also: Collection[int] = ()) -> None:
    """Raise PermissionError unless the other end is a process of this user, where that is told.

    The folder lets nobody else in; this holds where somebody has changed its mode.

    Args:
        connection: A Unix socket.
        also: Users who may be there, too.
    """
    if hasattr(socket, "SO_PEERCRED"):
        told = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        process, user, _ = struct.unpack("3i", told)
        if user != os.geteuid() and user not in also:
            raise PermissionError(f"process {process} of user {user} is at the other end")
