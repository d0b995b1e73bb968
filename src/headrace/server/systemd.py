"""What systemd and a service say to each other: sockets that are handed over, and notices.

Rules of this file:

- What is not meant for this process is left alone: the variables name a process.
- A notice that can't be delivered is no reason to stop: it is a line of the log, once.
- Descriptors that are taken over are closed in processes that this one starts.

See sd_listen_fds(3), sd_notify(3) and sd_watchdog_enabled(3).
"""

import logging
import os
import socket
import time
from collections.abc import MutableMapping

from ..exceptions import ConfigurationError

__all__ = ["FIRST_FD", "Notifier", "listening_fds"]

logger = logging.getLogger("headrace.server")

#: Where the sockets begin.
FIRST_FD = 3


def listening_fds(environ: MutableMapping[str, str]) -> list[tuple[str, int]]:
    """Take the listening sockets that were handed to this process: name and descriptor of each.

    The variables are removed, so that no child takes them to be its own. Raises
    ConfigurationError for what is no number.
    """
    if "LISTEN_PID" not in environ and "LISTEN_FDS" not in environ:
        return []
    try:
        process, count = int(environ.get("LISTEN_PID", "-1")), int(environ.get("LISTEN_FDS", "0"))
    except ValueError:
        raise ConfigurationError(
            "LISTEN_PID and LISTEN_FDS in the environment must be numbers, not "
            f"{environ.get('LISTEN_PID')!r} and {environ.get('LISTEN_FDS')!r}: systemd sets them "
            "for a service that has a socket unit"
        ) from None
    names = environ.get("LISTEN_FDNAMES", "")
    if process != os.getpid():
        return []
    for name in ("LISTEN_PID", "LISTEN_FDS"):  # the names alone say nothing to a child
        environ.pop(name, None)
    named = dict(enumerate(names.split(":"))) if names else {}
    descriptors = []
    for index in range(count):
        fd = FIRST_FD + index
        try:
            os.set_inheritable(fd, False)
        except OSError as error:
            raise ConfigurationError(
                f"LISTEN_FDS is {count}, but descriptor {fd} can't be had: {error.strerror}"
            ) from None
        descriptors.append((named.get(index, "unknown"), fd))
    return descriptors


class Notifier:
    """Tells the service manager how this process does; without one, nobody.

    The variables are removed from the environment: a child is not to speak for the service.
    """

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        self._address = environ.pop("NOTIFY_SOCKET", None) or None
        #: How often the watchdog wants to hear of us: half of the time that it waits. None: never.
        self.watchdog_interval_s = _watchdog_interval(environ)
        self._complained = False

    def ready(self, status: str) -> None:
        """Clients are served, for the first time or again."""
        self._send("READY=1", f"STATUS={status}", f"MAINPID={os.getpid()}")

    def reloading(self, status: str) -> None:
        """Settings and code are loaded anew; ``ready`` follows."""
        clock_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send("RELOADING=1", f"MONOTONIC_USEC={clock_us}", f"STATUS={status}")

    def stopping(self, status: str) -> None:
        """The end has begun."""
        self._send("STOPPING=1", f"STATUS={status}")

    def alive(self) -> None:
        """All is well."""
        if self.watchdog_interval_s is not None:
            self._send("WATCHDOG=1")

    def _send(self, *lines: str) -> None:
        if self._address is None:
            return
        # A name that begins with @ is one of the abstract namespace.
        address = "\0" + self._address[1:] if self._address[0] == "@" else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.settimeout(1)
                sock.connect(address)
                sock.sendall("\n".join(line.replace("\n", " ") for line in lines).encode())
        except OSError as error:
            if not self._complained:
                self._complained = True
                logger.warning("NOTIFY_SOCKET %s can't be told: %s", self._address, error)


def _watchdog_interval(environ: MutableMapping[str, str]) -> float | None:
    microseconds = environ.pop("WATCHDOG_USEC", None)
    process = environ.pop("WATCHDOG_PID", None)
    if microseconds is None or (process is not None and process != str(os.getpid())):
        return None
    try:
        interval_s = int(microseconds) / 2_000_000
    except ValueError:
        interval_s = 0.0
    if interval_s <= 0:
        logger.warning("WATCHDOG_USEC=%r is no time: the watchdog is not told", microseconds)
        return None
    return interval_s
