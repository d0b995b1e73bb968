"""The private directory in which the processes of one project on one host meet.

Rules of this file:

- It is private, as ``headrace.private`` has it.
- Its place follows from the project alone, not from the environment of a process: what cron
  starts meets what systemd has started.
- It may be removed at any time; ``intact`` tells, and whoever finds it so makes it anew.
"""

import fcntl
import hashlib
import os
import sys
from importlib.util import find_spec
from pathlib import Path

from django.conf import settings

from ...exceptions import InvalidChannelLayerError
from ...private import NotPrivate, check, make, user_folder

__all__ = ["Directory", "default_path"]

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
    return user_folder() / name


def _place_of_settings() -> str:
    module = getattr(settings, "SETTINGS_MODULE", None)
    spec = find_spec(module) if isinstance(module, str) else None
    if spec is None or spec.origin is None:
        return ""  # settings.configure()
    return os.path.dirname(os.path.realpath(spec.origin))


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
        try:
            check(os.fstat(self._fd))
        except NotPrivate as error:
            os.close(self._fd)
            raise _refused(path, error) from None
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
    try:
        make(path)
    except NotPrivate as error:
        raise _refused(path, error) from None


def _refused(path: Path, error: NotPrivate) -> InvalidChannelLayerError:
    return InvalidChannelLayerError(
        f"directory {path} {error}: the local channel layer needs one of its own, with mode "
        "0700; remove it, or name another as 'directory' in the CONFIG of CHANNEL_LAYERS"
    )
