"""The private directory in which the processes of one project on one host meet.

Rules of this file:

- Who may enter is who owns it: mode 0700, the owner is the effective user, no symbolic link.
  Anything else there is refused, never repaired: it may be a trap.
- Its place follows from the project alone, not from the environment of a process: what cron
  starts meets what systemd has started.
- It may be removed at any time; ``intact`` tells, and whoever finds it so makes it anew.
"""

import contextlib
import fcntl
import hashlib
import os
import socket
import stat
import struct
import sys
from importlib.util import find_spec
from pathlib import Path

from django.conf import settings

from ...exceptions import InvalidChannelLayerError

__all__ = ["Directory", "default_path", "require_same_user"]

#: Where directories of all users are. Memory first: nothing in there is to survive a reboot.
#: Not ``TMPDIR``, which is another one for each way to start a process.
_ROOTS = ("/dev/shm", "/tmp")  # noqa: S108 - what is made there is private, and checked

#: The longest path of a Unix socket, without its end (sun_path: 108 bytes; macOS has 104).
_SOCKET_PATH_BYTES = 103 if sys.platform == "darwin" else 107
_LONGEST_NAME_BYTES = len("/p-") + 16


def default_path(prefix: str) -> Path:
    """Return the directory of the project whose settings are these.

    Two projects, two checkouts of one, and two prefixes have directories of their own; all
    settings modules of one project in one package and with one ``SECRET_KEY`` share one.
    """
    project = "\0".join((settings.SECRET_KEY, _place_of_settings(), prefix))
    name = hashlib.blake2b(project.encode(), digest_size=10, person=b"headrace local").hexdigest()
    root = next((root for root in _ROOTS if os.access(root, os.W_OK | os.X_OK)), _ROOTS[-1])
    return Path(root, f"headrace-{os.geteuid()}", name)


def _place_of_settings() -> str:
    module = getattr(settings, "SETTINGS_MODULE", None)
    spec = find_spec(module) if isinstance(module, str) else None
    if spec is None or spec.origin is None:
        return ""  # settings.configure()
    return os.path.dirname(os.path.realpath(spec.origin))


def require_same_user(connection: socket.socket) -> None:
    """Raise PermissionError unless the other end is a process of this user, where that is told.

    The directory lets nobody else in; this holds where somebody has changed its mode.
    """
    if hasattr(socket, "SO_PEERCRED"):
        told = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        _, user, _ = struct.unpack("3i", told)
        if user != os.geteuid():
            raise PermissionError(f"a process of user {user} is at the other end")


class Directory:
    """A directory that is ours alone, made when it is not there.

    Raises InvalidChannelLayerError for one that is not private, and OSError for one that can't
    be made.
    """

    def __init__(self, path: Path, *, with_parent: bool) -> None:
        self.path = path
        if len(os.fsencode(path)) + _LONGEST_NAME_BYTES > _SOCKET_PATH_BYTES:
            raise InvalidChannelLayerError(
                f"directory {path} is too long for a socket in it: "
                f"{_SOCKET_PATH_BYTES - _LONGEST_NAME_BYTES} bytes at most"
            )
        if with_parent:
            _make_private(path.parent)
        _make_private(path)
        self._fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        _check(path, os.fstat(self._fd))
        # What cleans up temporary files leaves a directory alone that somebody has locked
        # (systemd-tmpfiles(8)).
        fcntl.flock(self._fd, fcntl.LOCK_SH | fcntl.LOCK_NB)

    def __truediv__(self, name: str) -> str:
        return f"{self.path}/{name}"

    def intact(self, *files: tuple[str, int]) -> bool:
        """Tell whether the directory is still there, and these files (name, inode) in it."""
        try:
            own, found = os.fstat(self._fd), os.lstat(self.path)
            if (own.st_dev, own.st_ino) != (found.st_dev, found.st_ino):
                return False
            return all(os.lstat(self / name).st_ino == inode for name, inode in files)
        except FileNotFoundError:
            return False

    def close(self) -> None:
        """Let go of it. What is in it stays."""
        os.close(self._fd)


def _make_private(path: Path) -> None:
    with contextlib.suppress(FileExistsError):
        path.mkdir(0o700)
    _check(path, os.lstat(path))


def _check(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISDIR(found.st_mode):
        problem = "is no directory"
    elif found.st_uid != os.geteuid():
        problem = f"belongs to user {found.st_uid}, and this process runs as {os.geteuid()}"
    elif found.st_mode & 0o077:
        problem = f"lets others in (mode {stat.S_IMODE(found.st_mode):04o})"
    else:
        return
    raise InvalidChannelLayerError(
        f"directory {path} {problem}: the local channel layer needs one of its own, with mode "
        "0700; remove it, or name another as 'directory' in the CONFIG of CHANNEL_LAYERS"
    )
