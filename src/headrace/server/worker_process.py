"""What a worker is beside a server: its number, its link to the supervisor, its end with it.

Rules of this file:

- A worker is a fresh process: it runs the same command as its supervisor, and finds in its
  environment that it is a worker. It takes that out again: what the application starts is none.
- It is heard of every second, from the event loop: a loop that hangs is silent.
- It ends with its supervisor, whatever ended that: the kernel says so (SIGTERM), and the link
  does. Where its own loop hangs then, a thread of the C level ends it.
- Ctrl-C in a terminal reaches the supervisor, too, which is the one to act on it.
"""

import asyncio
import contextlib
import ctypes
import dataclasses
import faulthandler
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

from ..exceptions import CloseCode, ConfigurationError
from .config import Config
from .control import Link
from .desk import Desk
from .health import unready
from .server import Server

__all__ = ["HEARTBEAT_S", "VARIABLE", "Post", "Worker"]

logger = logging.getLogger("headrace.server")

#: Where a process finds that it is a worker.
VARIABLE = "HEADRACE_WORKER"
#: A worker is heard of so often.
HEARTBEAT_S = 1.0

_PR_SET_PDEATHSIG = 1
#: Connections of successive workers with one number have numbers of their own.
_NUMBERS = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Post:
    """What a supervisor gives a worker."""

    #: From 1.
    number: int
    #: How many workers there were under this number before.
    before: int
    #: The supervisor's process.
    supervisor: int
    #: Descriptors of our end of the link, and of the listening sockets.
    link: int
    sockets: list[int]
    #: A loop that does nothing for so long hangs; 0: it is never taken to.
    timeout_s: float

    def as_text(self) -> str:
        """Return it for the environment."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def take(cls, environ: MutableMapping[str, str]) -> "Post | None":
        """Return the post of this process; None: it is no worker."""
        text = environ.pop(VARIABLE, None)
        if text is None:
            return None
        try:
            post = cls(**json.loads(text))
        except (ValueError, TypeError):
            raise ConfigurationError(
                f"{VARIABLE} in the environment is for the workers of a server, set by nobody but "
                "it: leave it out"
            ) from None
        for fd in (post.link, *post.sockets):
            os.set_inheritable(fd, False)
        return post

    def bind_fate(self) -> None:
        """End this process with its supervisor, from now on and before the loop runs."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        # SIGABRT, of a supervisor that has heard nothing for too long, shows where we are.
        faulthandler.enable()
        if sys.platform == "linux":
            with contextlib.suppress(OSError, AttributeError):
                ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != self.supervisor:
            raise SystemExit("headrace: the supervisor of this worker has ended")

    def config(self, config: Config) -> Config:
        """Return the settings of a worker: it listens on what it was given, and nowhere else."""
        endpoints = config.endpoints()
        if len(endpoints) != len(self.sockets):
            raise ConfigurationError(
                f"the settings name {len(endpoints)} places to listen now, and {len(self.sockets)} "
                "when the server started: that takes a restart"
            )
        first, *also = (
            dataclasses.replace(endpoint, fd=fd, uds=None, uds_mode=None)
            for endpoint, fd in zip(endpoints, self.sockets, strict=True)
        )
        return dataclasses.replace(
            config, fd=first.fd, uds=None, uds_mode=None, also=tuple(also), metrics_port=None
        )


class Worker:
    """Stands beside the server of a worker."""

    def __init__(self, post: Post) -> None:
        self._post = post
        self._link: Link | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    def attend(self, server: Server, loop: asyncio.AbstractEventLoop) -> None:
        """Stand beside this server, which is going to run on the loop.

        It ends at SIGTERM, be it of the supervisor, of its death, or of who stops all of us. Any
        number of these is one: it is the supervisor who hurries.
        """
        self._server = server
        self._desk = Desk(server)
        server.worker = self._post.number
        server.numbers_from = self._post.before * _NUMBERS
        loop.add_signal_handler(signal.SIGTERM, self._terminated)

    def _terminated(self) -> None:
        if not self._server.is_ending:
            logger.info("SIGTERM: this worker stops")
            if self._link is not None:
                self._link.tell(what="leaving")
            self._server.end_patiently()

    def started(self) -> None:
        """Say that clients are served; called on the loop."""
        # The server has descriptors of its own. As long as one is open clients are let in, be
        # there somebody to accept them or not.
        for fd in self._post.sockets:
            os.close(fd)
        self._task = asyncio.get_running_loop().create_task(self._begin())

    async def _begin(self) -> None:
        sock = socket.socket(fileno=self._post.link)
        self._link = await Link.over(
            sock, self._desk.answer, on_notice=self._told, on_lost=self._orphaned
        )
        self._link.tell(what="ready", addresses=self._server.addresses)
        self._beat()

    def _beat(self) -> None:
        assert self._link is not None
        if not self._server.has_started:
            return  # it has stopped, and ``ended`` says the last word
        self._desk.look()
        reason = unready(self._server.runtime)
        self._link.tell(what="alive", snapshot=self._server.snapshot(), unready=reason)
        if self._post.timeout_s:
            # Nobody else may be there to see that we hang: the supervisor acts at half of it.
            faulthandler.dump_traceback_later(2 * self._post.timeout_s + 1, exit=True)
        self._timer = asyncio.get_running_loop().call_later(HEARTBEAT_S, self._beat)

    def _told(self, notice: Mapping[str, Any]) -> None:
        """Hear of the supervisor what to do."""
        if notice["what"] == "leave":
            self._server.end_patiently(
                farewell=(notice["code"], notice["reason"]),
                close_rate=notice["close_rate"],
                idle_grace_s=notice["idle_grace_s"],
            )
        elif notice["what"] == "hurry":
            self._server.hurry()

    def _orphaned(self) -> None:
        if not self._server.is_ending:
            logger.error("the supervisor is gone: this worker ends, too")
            self._server.end_patiently(farewell=(CloseCode.SERVICE_RESTART, "the server restarts"))

    async def ended(self) -> None:
        """Say the last word; called on the loop, when the server has stopped."""
        if self._timer is not None:
            self._timer.cancel()
            faulthandler.cancel_dump_traceback_later()
        if self._task is not None:
            await self._task
        if self._link is not None:
            self._link.tell(what="alive", snapshot=self._server.snapshot())
            self._link.close()
            # The transport writes what is left, and is closed in the turns that follow.
            await asyncio.sleep(0)
