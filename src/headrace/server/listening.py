"""Listening sockets: made, inherited, and taken away again.

Rules of this file:

- What keeps a socket from being had is a ConfigurationError that says what to do.
- The file of a Unix socket is removed by whoever made it, and only while it is still the same.
"""

import contextlib
import errno
import os
import socket
import stat

from ..exceptions import ConfigurationError
from .endpoint import Endpoint

__all__ = ["PAUSE_S", "Listening", "address_of", "is_unix"]

#: How long nobody is accepted where the system has nothing left to accept with.
PAUSE_S = 1.0


class Listening:
    """A socket that is bound to an endpoint; it does not listen yet, unless it was inherited."""

    def __init__(self, endpoint: Endpoint) -> None:
        #: Path and inode of the file that is ours to remove.
        self._file: tuple[str, int] | None = None
        self._scheme = "http" if endpoint.tls is None else "https"
        try:
            if endpoint.fd is not None:
                self.sock = socket.socket(fileno=os.dup(endpoint.fd))
            elif endpoint.uds is not None:
                self.sock = self._bind_unix(endpoint.uds, endpoint.uds_mode)
            else:
                self.sock = _bind(endpoint.host, endpoint.port)
        except OSError as error:
            hint = _HINTS.get(error.errno or 0, "choose another with --bind, --port, --uds or --fd")
            reason = (error.strerror or str(error)).lower()
            raise ConfigurationError(f"cannot listen on {endpoint}: {reason}; {hint}") from error

    @property
    def address(self) -> str:
        """Where it listens: ``https://127.0.0.1:8000`` or ``unix:/run/app.sock``."""
        return address_of(self.sock, self._scheme)

    def _bind_unix(self, path: str, mode: int | None) -> socket.socket:
        with contextlib.suppress(FileNotFoundError):
            # A socket that a killed server left behind may go; anything else may not.
            if stat.S_ISSOCK(os.stat(path).st_mode) and not _answers(path):
                os.unlink(path)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.bind(path)
            self._file = (path, os.stat(path).st_ino)
            if mode is not None:
                os.chmod(path, mode)
        except BaseException:
            sock.close()
            raise
        return sock

    def remove_file(self) -> None:
        """Let nobody find it any more: a successor may take the name."""
        if self._file is not None:
            (path, inode), self._file = self._file, None
            with contextlib.suppress(FileNotFoundError):
                # Only our own: a successor may listen under the same name by now.
                if os.stat(path).st_ino == inode:
                    os.unlink(path)

    def close(self) -> None:
        """Let go of it."""
        self.sock.close()
        self.remove_file()


def is_unix(sock: socket.socket) -> bool:
    """Say whether this is a Unix socket."""
    return sock.family == socket.AF_UNIX


def address_of(sock: socket.socket, scheme: str = "http") -> str:
    """Return where it listens: ``http://127.0.0.1:8000`` or ``unix:/run/app.sock``."""
    if is_unix(sock):
        return f"unix:{sock.getsockname()}"
    host, port = sock.getsockname()[:2]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def _bind(host: str, port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
    except BaseException:
        sock.close()
        raise
    return sock


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        return probe.connect_ex(path) == 0


_HINTS = {
    errno.EADDRINUSE: "another program is there: stop it, or choose another place with --bind, "
    "--port or --uds",
    errno.EACCES: "that takes more rights: choose a port from 1024 up with --port, or another "
    "path with --uds",
    errno.EADDRNOTAVAIL: "this host has no such address: --bind takes one of its own, or 0.0.0.0",
    errno.EBADF: "--fd takes the number of a socket that was inherited",
    errno.ENOTSOCK: "--fd takes the number of a socket that was inherited",
}
