"""What stands beside a server that is a process of its own, without a supervisor.

Rules of this file:

- It can be asked what it does, by the same words as a server of many workers.
- The service manager hears of its start, its stop, and that its event loop goes on.
- SIGHUP renews certificates. Code is loaded anew by workers: it takes ``--workers``.
"""

import asyncio
import logging
import os
import signal
import time
from collections.abc import Mapping
from typing import Any

from ..exceptions import ControlError
from .control import ENVIRONMENT, ControlServer
from .desk import Desk
from .server import Server
from .systemd import Notifier
from .terminal import Terminal

__all__ = ["Single"]

logger = logging.getLogger("headrace.server")

#: So often it is noted who has come.
LOOK_S = 1.0


class Single:
    """Stands beside a server.

    The control socket is there at once, so that the application finds it in the environment
    when it is imported; it answers when the server has started.
    """

    def __init__(self, control_socket: str | None, notifier: Notifier) -> None:
        self._notifier = notifier
        self._control = ControlServer.open(control_socket, self._answer)
        if self._control is not None:
            os.environ[ENVIRONMENT] = self._control.path
        self._server: Server | None = None
        self._desk: Desk | None = None
        self._started = time.time()
        self._terminal = Terminal()
        self._tasks: list[asyncio.Task[None]] = []
        self._loop: asyncio.AbstractEventLoop | None = None

    def attend(self, server: Server, loop: asyncio.AbstractEventLoop) -> None:
        """Stand beside this server, which is going to run on the loop."""
        self._server, self._loop = server, loop
        self._desk = Desk(server, reload=self._reload, stop=self._stop)
        loop.add_signal_handler(signal.SIGHUP, self._hung_up)

    def started(self) -> None:
        """Learn that clients are served; called on the loop."""
        assert self._loop is not None
        self._notifier.ready("serving")
        self._tasks = [
            self._loop.create_task(work())
            for work in (self._tell_end, self._tell_watchdog, self._look)
        ]
        if self._control is not None:
            self._tasks.append(self._loop.create_task(self._control.start()))

    async def ended(self) -> None:
        """Leave; called on the loop when the server has stopped."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        assert self._loop is not None
        self._loop.remove_signal_handler(signal.SIGHUP)
        self.close()
        await asyncio.sleep(0)

    def close(self) -> None:
        """Let go of the control socket."""
        if self._control is not None:
            self._control.close()
            if os.environ.get(ENVIRONMENT) == self._control.path:
                del os.environ[ENVIRONMENT]
            self._control = None

    async def _tell_end(self) -> None:
        assert self._server is not None
        await self._server.until_ending()
        self._notifier.stopping("stopping")

    async def _tell_watchdog(self) -> None:
        interval_s = self._notifier.watchdog_interval_s
        while interval_s is not None:
            self._notifier.alive()
            await asyncio.sleep(interval_s)

    async def _look(self) -> None:
        assert self._desk is not None
        while True:
            self._desk.look()
            await asyncio.sleep(LOOK_S)

    def _hung_up(self) -> None:
        assert self._server is not None
        if self._terminal.is_gone():
            logger.info("SIGHUP: the terminal is gone, stopping")
            self._server.end_patiently()
            return
        self._renew_certificates()

    def _renew_certificates(self) -> None:
        assert self._server is not None
        self._notifier.reloading("renewing certificates")
        good = self._server.renew_certificates()
        logger.info(
            "SIGHUP: %s; code and settings stay, for these it takes --workers, or a restart",
            "certificates are read anew" if good else "the certificates from before stay",
        )
        self._notifier.ready("serving" if good else "serving; certificates could not be renewed")

    # What it is asked

    async def _answer(self, do: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        if self._desk is None or self._server is None:
            raise ControlError("the server has not started yet")
        answer = await self._desk.answer(do, arguments)
        if do != "snapshot":
            return answer
        own = {
            "pid": os.getpid(),
            "started": self._started,
            "workers": 0,
            "addresses": self._server.addresses,
            "reloading": False,
            "restarts": {},
        }
        return {"server": own, "workers": [answer], "ended": None}

    async def _reload(self, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        del arguments
        self._renew_certificates()
        return {}

    async def _stop(self, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        del arguments
        assert self._server is not None
        logger.info("asked to stop")
        self._server.end_patiently()
        return {}
