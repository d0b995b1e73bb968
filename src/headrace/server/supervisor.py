"""The supervisor: it holds the sockets, and sees to it that workers serve them.

Rules of this file:

- It imports nothing of the application, runs no code of it, and is never forked: a worker is a
  fresh process that runs the same command and inherits the sockets and one end of a link.
- All workers accept from the same sockets: one that dies or hangs takes no queue along, and one
  that is busy leaves the next client to the others.
- Who is to be replaced goes on until its successor serves. A successor that can't start changes
  nothing. Of several, one goes ahead: what keeps it from starting is told once.
- At the start there is nobody to go on: an application that can't start ends the command.
- What a worker has counted stays counted when it is gone.
"""

import asyncio
import contextlib
import logging
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from enum import Enum
from typing import Any, cast

from ..exceptions import CloseCode, ControlError
from ..instruments import Snapshot, remains, total
from .config import Config
from .control import ENVIRONMENT, ControlServer, Link
from .cores import usable_cores
from .desk import largest, order_of
from .listening import Listening
from .metrics import observatory, observatory_config
from .server import Server
from .systemd import Notifier
from .terminal import Terminal
from .worker_process import VARIABLE, Post

__all__ = ["Supervisor"]

logger = logging.getLogger("headrace.server")

#: So often it looks whether a worker hangs, is old or large, or has outstayed its time.
LOOK_S = 0.5
#: Where it comes to look so late, it was stopped itself.
AWAY_S = 2.0
#: A worker that ends sooner than this counts as one more failure in a row.
STABLE_S = 20.0
#: How long the first, and at most any, restart waits.
FIRST_DELAY_S, LONGEST_DELAY_S = 0.1, 30.0
#: What a worker that hangs has to show where it does.
ABORT_S = 2.0
#: What requests under way have to finish in, where somebody has saved a file and waits.
IMPATIENCE_S = 1.0
#: What a worker has beyond the time that it was given to end in.
OVERTIME_S = 5.0
#: By how much the ages at which workers are replaced differ, so that they don't leave together.
JITTER = 0.1
#: How long what a worker has said before its end may take to arrive.
LAST_WORDS_S = 0.5
#: How long a worker may take to answer what the server is asked.
ANSWER_S = 2.0

RESTARTING = (int(CloseCode.SERVICE_RESTART), "the server restarts")
RELOADING = (int(CloseCode.SERVICE_RESTART), "reloading")
STOPPING = (int(CloseCode.GOING_AWAY), "the server is stopping")


class Stage(Enum):
    """How far a worker has come."""

    STARTING = "starting"
    SERVING = "serving"
    LEAVING = "leaving"
    GONE = "gone"


class CanNotStart(Exception):
    """A worker has ended, or was ended, before it served."""

    def __init__(self, reason: str, status: int) -> None:
        super().__init__(reason)
        self.status = status


class _Worker:
    """One process, as its supervisor sees it."""

    def __init__(
        self,
        number: int,
        process: "subprocess.Popen[bytes]",
        now: float,
        on_leaving: "Callable[[_Worker], object]",
    ) -> None:
        self.number = number
        #: Called when it leaves by itself.
        self.on_leaving = on_leaving
        self.process = process
        self.stage = Stage.STARTING
        self.link: Link | None = None
        self.snapshot: Snapshot = {}
        #: Why it is not ready to take clients.
        self.unready: str | None = None
        self.started = self.heard = now
        #: When it is to be gone at the latest.
        self.due: float | None = None
        #: What of it is beyond its limits differs from worker to worker.
        self.share = 1 + random.uniform(-JITTER, JITTER)  # noqa: S311 - not a secret
        self.hangs = False
        #: Serving, or gone.
        self.settled = asyncio.Event()
        #: Its end of the link is closed.
        self.silent = asyncio.Event()
        self.reaped = False
        self.gone = asyncio.Event()

    def __str__(self) -> str:
        return f"worker {self.number} (process {self.process.pid})"

    @property
    def alive(self) -> bool:
        return self.stage is not Stage.GONE

    def told(self, notice: Mapping[str, Any]) -> None:
        """Take a notice of the worker."""
        self.heard = time.monotonic()
        if notice.get("what") == "ready" and self.stage is Stage.STARTING:
            self.stage = Stage.SERVING
            self.settled.set()
        if notice.get("what") == "leaving" and self.stage is Stage.SERVING:
            self.on_leaving(self)
        self.snapshot = notice.get("snapshot", self.snapshot)
        self.unready = notice.get("unready", self.unready)

    def hurry(self) -> None:
        """Let what is under way be cut off."""
        if self.link is not None:
            self.link.tell(what="hurry")

    def send_signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)

    def how_it_ended(self) -> str:
        """Say what ended the process, in words."""
        status = self.process.returncode
        if status is not None and status < 0:
            with contextlib.suppress(ValueError):
                return f"was ended by {signal.Signals(-status).name}"
            return f"was ended by signal {-status}"
        return f"has ended with status {status}"


class Supervisor:
    """Runs workers until it is told to stop.

    Args:
        command: What a worker's process runs.
        config: The settings.
        notifier: The service manager.
        beside: What runs beside it, for development: it starts workers by ``restart()``, which
            replaces them without patience. One that can't start ends nothing, the next may.
    """

    def __init__(
        self,
        command: Sequence[str],
        config: Config,
        *,
        notifier: Notifier | None = None,
        beside: "Callable[[Supervisor], Coroutine[Any, Any, None]] | None" = None,
    ) -> None:
        self.config = config
        self._command = list(command)
        self._settings = config.workers
        if beside is not None:
            # Where somebody holds a worker up in a debugger, it is meant to hang.
            self._settings = replace(config.workers, timeout_s=0, start_timeout_s=0)
        self._notifier = notifier if notifier is not None else Notifier({})
        self._beside = beside
        count = self._settings.count
        self.count: int = usable_cores() if count == "auto" else max(1, int(count))
        self._folder = _folder()
        self._sockets: list[Listening] = []
        self._control: ControlServer | None = None
        #: The server of the private port, for metrics and health checks.
        self._observatory: Server | None = None
        #: Who serves under each number, or did when it ended.
        self._serving: dict[int, _Worker] = {}
        self._all: set[_Worker] = set()
        self._begun: dict[int, int] = {}
        self._failures: dict[int, int] = {}
        #: Who is being replaced.
        self._replacing: dict[int, asyncio.Task[None]] = {}
        self._reloading: asyncio.Task[None] | None = None
        self._reload_again = False
        #: Whether the first workers are still to serve.
        self._beginning = beside is None
        #: Those that end a worker, or bury one.
        self._tasks: set[asyncio.Task[None]] = set()
        self._ended: Snapshot | None = None
        self._restarts: dict[str, int] = {}
        self._restarts_of: dict[int, int] = {}
        self._started = time.time()
        self._looked = time.monotonic()
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        self._terminal = Terminal()
        self._farewell = RESTARTING
        self._patient = True

    # The life of it

    async def run(self) -> int:
        """Serve until a signal; return the exit status.

        Raises ConfigurationError where the addresses or the control socket can't be had.
        """
        loop = asyncio.get_running_loop()
        status = 0
        try:
            self._open()
            for number, act in self._signals().items():
                loop.add_signal_handler(number, act)
            tasks = [
                asyncio.create_task(self._look_around()),
                asyncio.create_task(self._tell_watchdog()),
            ]
            try:
                if self._control is not None:
                    await self._control.start()
                if self._observatory is not None:
                    await self._observatory.start()
                    for address in self._observatory.addresses:
                        path = self.config.metrics_path
                        logger.info("metrics and health checks are at %s%s", address, path)
                if self._beside is None:
                    status = await self._first_workers()
                else:
                    tasks.append(asyncio.create_task(self._beside(self)))
                if not self._stop.is_set():
                    await self._serve()
            finally:
                self._notifier.stopping("stopping")
                for task in tasks[2:]:
                    task.cancel()
                await self._end()
                if self._observatory is not None:
                    await self._observatory.stop()
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks)
                for number in self._signals():
                    loop.remove_signal_handler(number)
        finally:
            self._close()
        logger.info("Headrace has stopped")
        return status

    def _open(self) -> None:
        for endpoint in self.config.endpoints():
            listening = Listening(endpoint)
            self._sockets.append(listening)
            # Nobody is refused from now on: who comes before the first worker waits for it.
            listening.sock.listen(self.config.backlog)
        self._control = ControlServer.open(self.config.control_socket, self._answer)
        if self.config.metrics_port is not None:
            app = observatory(self.snapshot, self._why_unready, path=self.config.metrics_path)
            self._observatory = Server(app, observatory_config(self.config))

    def _close(self) -> None:
        self._close_sockets()
        if self._control is not None:
            self._control.close()

    def _close_sockets(self) -> None:
        while self._sockets:
            self._sockets.pop().close()

    def _signals(self) -> dict[int, Callable[[], object]]:
        return {
            signal.SIGTERM: lambda: self._signalled(signal.SIGTERM),
            signal.SIGINT: lambda: self._signalled(signal.SIGINT),
            signal.SIGHUP: self._hung_up,
            signal.SIGCHLD: self._reap,
        }

    def _signalled(self, number: signal.Signals) -> None:
        if self._stop.is_set():
            logger.warning("%s again: ending at once", number.name)
            self._hurry.set()
            return
        logger.info("%s: stopping; once more ends it at once", number.name)
        if number == signal.SIGINT:
            self._farewell, self._patient = STOPPING, False
        self.stop()

    def _hung_up(self) -> None:
        if self._terminal.is_gone():
            logger.info("SIGHUP: the terminal is gone, stopping")
            self.stop()
        else:
            logger.info("SIGHUP: reloading")
            self.reload()

    def stop(self) -> None:
        """Let ``run`` stop gracefully."""
        self._stop.set()

    async def _first_workers(self) -> int:
        """Start the first workers; return the status with which to end where they can't."""
        try:
            for worker in await self._unless_stopped(self._start_all()):
                self._install(worker)
        except CanNotStart as error:
            if self._stop.is_set():
                return 0
            logger.error("the application can't start: %s", error)
            self._stop.set()
            return error.status
        finally:
            self._beginning = False
        return 0

    async def _serve(self) -> None:
        for listening in self._sockets:
            logger.info("Headrace listens on %s", listening.address)
        logger.info("%d worker%s", self.count, "s serve" if self.count > 1 else " serves")
        self._notifier.ready(self._status())
        if self._reload_again:
            self.reload()
        await self._stop.wait()

    async def _unless_stopped(self, starting: Any) -> Any:
        """Wait for it, but not beyond the order to stop."""
        task = asyncio.ensure_future(starting)
        stopped = asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise CanNotStart("stopped before it served", 0)
            return task.result()
        finally:
            stopped.cancel()
            if not task.done():
                task.cancel()
                await asyncio.wait({task})

    async def _end(self) -> None:
        """Let every worker end: in its own time, by the deadline, or at once."""
        self._stop.set()
        # First we let go: the last worker accepts who still waits.
        self._close_sockets()
        tasks = [*self._replacing.values(), *([self._reloading] if self._reloading else [])]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        serving = [worker for worker in self._all if worker.stage is Stage.SERVING]
        for worker in list(self._all):
            if worker.stage is Stage.STARTING:
                worker.send_signal(signal.SIGTERM)
                worker.due = time.monotonic() + OVERTIME_S
            elif worker.stage is Stage.SERVING:
                self._let_leave(worker, self._farewell, sharing=len(serving), patient=self._patient)
        hurry = asyncio.ensure_future(self._hurry.wait())
        ends = asyncio.ensure_future(self._all_gone())
        await asyncio.wait({hurry, ends}, return_when=asyncio.FIRST_COMPLETED)
        if not ends.done():
            for worker in list(self._all):
                worker.hurry()
                worker.due = time.monotonic() + OVERTIME_S
            await ends
        hurry.cancel()
        await asyncio.wait({hurry})

    async def _all_gone(self) -> None:
        while self._all:
            await next(iter(self._all)).gone.wait()

    # Workers

    async def _start(self, number: int) -> _Worker:
        """Start a worker; return it when it serves. Raises CanNotStart."""
        try:
            ours, theirs = socket.socketpair()
        except OSError as error:
            raise CanNotStart(f"worker {number} can't be started: {error}", 1) from error
        before = self._begun.get(number, 0)
        self._begun[number] = before + 1
        with ours, theirs:
            post = Post(
                number=number,
                before=before,
                supervisor=os.getpid(),
                link=theirs.fileno(),
                sockets=[listening.sock.fileno() for listening in self._sockets],
                timeout_s=self._settings.timeout_s,
            )
            environment = os.environ | {VARIABLE: post.as_text()}
            if self._control is not None:
                environment[ENVIRONMENT] = self._control.path
            if self._beside is None:
                # Two workers are one server: what one sends to a group, clients of the other hear.
                environment.setdefault("HEADRACE_DEFAULT_LAYER", "local")
            try:
                process = subprocess.Popen(  # noqa: S603, ASYNC220 - our own command; it is a moment
                    self._command,
                    env=environment,
                    cwd=self._folder,
                    # A debugger of development reads from it.
                    stdin=subprocess.DEVNULL if self._beside is None else None,
                    pass_fds=(post.link, *post.sockets),
                )
            except OSError as error:
                raise CanNotStart(f"worker {number} can't be started: {error}", 1) from error
            worker = _Worker(number, process, time.monotonic(), self._leaves_by_itself)
            self._all.add(worker)
            link = socket.socket(fileno=os.dup(ours.fileno()))
        worker.link = await Link.over(link, on_notice=worker.told, on_lost=worker.silent.set)
        timeout_s = self._settings.start_timeout_s
        try:
            async with asyncio.timeout(timeout_s or None):
                await worker.settled.wait()
        except TimeoutError:
            await self._abort(worker)
            reason = f"{worker} has not started in {timeout_s:g} s"
            raise CanNotStart(reason, 1) from None
        except asyncio.CancelledError:
            worker.send_signal(signal.SIGTERM)
            worker.due = time.monotonic() + OVERTIME_S
            raise
        if worker.stage is Stage.GONE:
            status = worker.process.returncode
            reason = f"{worker} {worker.how_it_ended()} before it served"
            raise CanNotStart(reason, status if status > 0 else 1)
        return worker

    async def _start_all(self) -> list[_Worker]:
        """Start a worker for each number; where one can't, end the others and raise CanNotStart."""
        workers = [await self._start(1)]
        tasks = [asyncio.ensure_future(self._start(n)) for n in range(2, self.count + 1)]
        try:
            if tasks:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            failed = [task for task in tasks if task.done() and task.exception() is not None]
            if failed:
                failed[0].result()
            started = workers + [task.result() for task in tasks]
            for worker in started:
                if worker.stage is not Stage.SERVING:
                    how = worker.how_it_ended() if not worker.alive else "was told to stop"
                    raise CanNotStart(f"{worker} {how} before the others served", 1)
            return started
        except BaseException:
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks)
            done = [task for task in tasks if not task.cancelled() and not task.exception()]
            for worker in workers + [task.result() for task in done]:
                self._let_leave(worker, RESTARTING)
            raise

    def _install(self, worker: _Worker) -> None:
        """Let a worker that serves take the place of the one before."""
        before = self._serving.get(worker.number)
        self._serving[worker.number] = worker
        logger.info("%s serves", worker)
        if before is not None and before.stage is Stage.SERVING:
            self._let_leave(before, RESTARTING)

    def _let_leave(
        self,
        worker: _Worker,
        farewell: tuple[int, str],
        *,
        sharing: int = 1,
        patient: bool = True,
    ) -> None:
        """Let a worker finish what is under way, and end.

        Args:
            worker: Which.
            farewell: What its WebSockets are told.
            sharing: How many leave together: they share the rate at which WebSockets are closed.
            patient: Whether clients that are about to ask are waited for.
        """
        if worker.stage is not Stage.SERVING:
            return
        config = self.config
        worker.stage = Stage.LEAVING
        grace_s = config.idle_grace_s if self._stop.is_set() else config.http.keep_alive_s
        code, reason = farewell
        assert worker.link is not None
        worker.link.tell(
            what="leave",
            code=code,
            reason=reason,
            close_rate=config.close_rate / sharing if patient else 0.0,
            idle_grace_s=grace_s if patient else 0.0,
        )
        worker.due = time.monotonic() + config.shutdown_timeout_s + OVERTIME_S

    def _leaves_by_itself(self, worker: _Worker) -> None:
        """See that a worker stops that nobody has told to: somebody has sent it SIGTERM."""
        worker.stage = Stage.LEAVING
        worker.due = time.monotonic() + self.config.shutdown_timeout_s + OVERTIME_S
        if not self._stop.is_set():
            logger.info("%s leaves, asked by somebody else", worker)
            if self._serving.get(worker.number) is worker:
                self._replace(worker.number, "left")

    def _reap(self) -> None:
        """Learn which workers have ended."""
        for worker in list(self._all):
            if not worker.reaped and worker.process.poll() is not None:
                worker.reaped = True
                self._keep(asyncio.create_task(self._bury(worker)))

    async def _bury(self, worker: _Worker) -> None:
        # What it has said before its end may still be in the link; and a child of its own may
        # hold the other end of that.
        if worker.link is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LAST_WORDS_S):
                    await worker.silent.wait()
        self._all.discard(worker)
        before, worker.stage = worker.stage, Stage.GONE
        if worker.snapshot:
            parts = [worker.snapshot] if self._ended is None else [self._ended, worker.snapshot]
            self._ended = remains(total(parts))
        if worker.link is not None:
            worker.link.close()
        worker.settled.set()
        worker.gone.set()
        if before is Stage.SERVING and not self._stop.is_set():
            reason = "hung" if worker.hangs else "died"
            logger.error("%s %s", worker, worker.how_it_ended())
            if self._beside is not None:
                logger.error("waiting for the next change")
            elif self._serving.get(worker.number) is worker:
                self._replace(worker.number, reason)
        elif before is Stage.LEAVING and worker.process.returncode:
            logger.warning("%s %s while it was leaving", worker, worker.how_it_ended())
        elif before is Stage.LEAVING:
            logger.info("%s is done", worker)

    async def _abort(self, worker: _Worker) -> None:
        """End a worker that doesn't react; its standard error stream shows where it stands."""
        worker.hangs = True
        # Should nobody wait for it any more.
        worker.due = time.monotonic() + ABORT_S + OVERTIME_S
        worker.send_signal(signal.SIGABRT)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ABORT_S):
                await worker.gone.wait()
            return
        worker.send_signal(signal.SIGKILL)
        await worker.gone.wait()

    # Replacing one

    def _replace(self, number: int, reason: str) -> None:
        """Start a worker for the place of another one."""
        if number in self._replacing or self._stop.is_set():
            return
        task = asyncio.create_task(self._replace_until_done(number, reason))
        self._replacing[number] = task
        task.add_done_callback(lambda task: self._replaced(number, task))

    def _replaced(self, number: int, task: "asyncio.Task[None]") -> None:
        if self._replacing.get(number) is task:
            del self._replacing[number]

    async def _replace_until_done(self, number: int, reason: str) -> None:
        self._restarts[reason] = self._restarts.get(reason, 0) + 1
        self._restarts_of[number] = self._restarts_of.get(number, 0) + 1
        before = self._serving.get(number)
        stable = before is not None and time.monotonic() - before.started >= STABLE_S
        if reason in ("died", "hung"):
            self._failures[number] = 0 if stable else self._failures.get(number, 0) + 1
        while True:
            failures = self._failures.get(number, 0)
            if failures:
                delay_s = backoff(failures)
                logger.info("worker %d is started again in %.1f s", number, delay_s)
                await asyncio.sleep(delay_s)
            try:
                worker = await self._start(number)
            except CanNotStart as error:
                logger.error("%s", error)
                self._failures[number] = self._failures.get(number, 0) + 1
                continue
            # Should it end in the next moment, it is replaced as any other.
            del self._replacing[number]
            self._install(worker)
            return

    # Replacing all

    def reload(self) -> None:
        """Replace all workers by new ones that load settings and code anew.

        Where these can't start, those that are there stay. Asked while it is under way, or the
        first start is, it begins again when that is done.
        """
        if self._stop.is_set():
            return
        if self._reloading is not None or self._beginning:
            self._reload_again = True
            return
        self._reloading = asyncio.create_task(self._reload())

    async def _reload(self) -> None:
        try:
            while True:
                self._reload_again = False
                self._notifier.reloading("reloading")
                try:
                    await self._replace_all()
                except CanNotStart as error:
                    logger.error("%s: nothing is reloaded, the workers that serve stay", error)
                    self._notifier.ready(f"{self._status()}; the last reload has failed: {error}")
                else:
                    self._notifier.ready(self._status())
                if not self._reload_again:
                    break
        finally:
            self._reloading = None

    async def _replace_all(self) -> None:
        workers = await self._start_all()
        while self._replacing:
            self._replacing.popitem()[1].cancel()
        self._failures.clear()
        leaving = [old for old in self._serving.values() if old.stage is Stage.SERVING]
        for worker in workers:
            self._serving[worker.number] = worker
        for old in leaving:
            self._let_leave(old, RESTARTING, sharing=len(leaving))
        self._restarts["reload"] = self._restarts.get("reload", 0) + len(workers)
        logger.info("reloaded: %d new worker%s", len(workers), "s serve" * (len(workers) > 1))

    async def restart(self) -> None:
        """Replace the workers at once: those that are there leave now, whatever is under way."""
        for worker in list(self._all):
            if worker.stage is Stage.SERVING:
                self._let_leave(worker, RELOADING, patient=False)
                worker.due = time.monotonic() + IMPATIENCE_S + OVERTIME_S
                asyncio.get_running_loop().call_later(IMPATIENCE_S, worker.hurry)
        try:
            for worker in await self._start_all():
                self._install(worker)
        except CanNotStart as error:
            logger.error("%s; waiting for the next change", error)

    # Looking after them

    async def _look_around(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                self._look()
            except Exception:
                logger.exception("the supervisor has failed to look after its workers")

    def _look(self) -> None:
        now = time.monotonic()
        late_s = now - self._looked - LOOK_S
        self._looked = now
        timeout_s = self._settings.timeout_s
        for worker in list(self._all):
            if late_s > AWAY_S:
                worker.heard += late_s  # it was us who was not there to hear
            if worker.due is not None and now >= worker.due:
                logger.warning("%s has not ended in time: it is killed", worker)
                worker.due = now + OVERTIME_S
                worker.send_signal(signal.SIGKILL)
            elif worker.hangs or worker.stage is Stage.STARTING:
                continue
            elif timeout_s and now - worker.heard > timeout_s:
                logger.error("%s has not been heard of for %g s: it is ended", worker, timeout_s)
                self._keep(asyncio.create_task(self._abort(worker)))
            elif worker.stage is Stage.SERVING and not self._replacing:
                self._recycle(worker, now)

    def _recycle(self, worker: _Worker, now: float) -> None:
        if self._stop.is_set() or self._serving.get(worker.number) is not worker:
            return
        why = self._outlived(worker, now)
        if why is not None:
            reason, words = why
            logger.info("%s is replaced: %s", worker, words)
            self._replace(worker.number, reason)

    def _keep(self, task: "asyncio.Task[None]") -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _outlived(self, worker: _Worker, now: float) -> tuple[str, str] | None:
        """Say why a worker is to be replaced: in a word, and in words. None: it is not."""
        settings, snapshot = self._settings, worker.snapshot
        age_s = now - worker.started
        if settings.max_age_s and age_s > settings.max_age_s * worker.share:
            return "age", f"it is {age_s:.0f} s old"
        requests = _count(snapshot, "headrace_requests_total") + _count(
            snapshot, "headrace_websockets_total"
        )
        if settings.max_requests and requests > settings.max_requests * worker.share:
            return "requests", f"it has served {requests:.0f} requests"
        memory = snapshot.get("rss_bytes") or 0
        if settings.max_memory_bytes and memory > settings.max_memory_bytes * worker.share:
            return "memory", f"it has {memory} bytes of memory"
        return None

    async def _tell_watchdog(self) -> None:
        interval_s = self._notifier.watchdog_interval_s
        if interval_s is None:
            return
        while True:
            if not self._why_not_well():
                self._notifier.alive()
            await asyncio.sleep(interval_s)

    def _why_not_well(self) -> str | None:
        """Say which worker is not heard of; None: all is well."""
        now, timeout_s = time.monotonic(), self._settings.timeout_s
        for worker in self._all:
            if worker.stage is not Stage.STARTING and timeout_s and now - worker.heard > timeout_s:
                return f"{worker} is not heard of"
        return None

    async def _why_unready(self) -> str | None:
        """Say why no worker is ready; None: one is."""
        if self._stop.is_set():
            return "the server is stopping"
        reason: str | None = "no worker serves"
        for worker in self._all:
            if worker.stage is Stage.SERVING:
                if worker.unready is None:
                    return None
                reason = worker.unready
        return reason

    def _status(self) -> str:
        return f"{self.count} worker{'s' * (self.count > 1)}"

    # What it is asked

    async def _answer(self, do: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        match do:
            case "snapshot":
                return await self.snapshot()
            case "connections":
                return await self._connections(arguments)
            case "close":
                return await self._close_connection(arguments)
            case "reload":
                logger.info("asked to reload")
                self.reload()
                return {}
            case "stop":
                logger.info("asked to stop")
                self.stop()
                return {}
        raise ControlError(
            f"there is no request {do!r:.50}; there are snapshot, connections, close, reload, stop"
        )

    async def snapshot(self) -> dict[str, Any]:
        """Return what all workers do, and what those have done that are gone."""
        asked = self._reachable()
        answers = await self._ask(asked, "snapshot", {})
        workers: list[Snapshot] = []
        for worker, answer in zip(asked, answers, strict=True):
            if not isinstance(answer, ControlError):
                # What was told once counts when the worker has ended, too: no sum ever falls.
                worker.snapshot = answer
            # Who has ended meanwhile is counted among those.
            if worker.alive and (latest := worker.snapshot):
                restarts = self._restarts_of.get(worker.number, 0)
                workers.append({**latest, "restarts": restarts, "stage": worker.stage.value})
        return {"server": self._own(), "workers": workers, "ended": self._ended}

    def _own(self) -> dict[str, Any]:
        """Return what the supervisor tells of itself."""
        return {
            "pid": os.getpid(),
            "started": self._started,
            "workers": self.count,
            "addresses": [listening.address for listening in self._sockets],
            "reloading": self._reloading is not None,
            "restarts": dict(self._restarts),
        }

    async def _connections(self, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        limit, order = order_of(arguments)
        answers = await self._ask(self._reachable(), "connections", arguments)
        if answers and all(isinstance(each, ControlError) for each in answers):
            raise cast("ControlError", answers[0])
        rows = [
            row
            for each in answers
            if not isinstance(each, ControlError)
            for row in each["connections"]
        ]
        found = sum(each["total"] for each in answers if not isinstance(each, ControlError))
        return {"connections": largest(rows, limit, order), "total": found}

    async def _close_connection(self, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        answers = await self._ask(self._reachable(), "close", arguments)
        error = ControlError("no worker serves")
        for answer in answers:
            if not isinstance(answer, ControlError):
                return answer
            error = answer
        raise error

    def _reachable(self) -> list[_Worker]:
        workers = [each for each in self._all if each.stage in (Stage.SERVING, Stage.LEAVING)]
        return sorted(workers, key=lambda worker: (worker.number, worker.started))

    async def _ask(
        self, workers: Sequence[_Worker], do: str, arguments: Mapping[str, Any]
    ) -> "list[dict[str, Any] | ControlError]":
        async def ask(worker: _Worker) -> "dict[str, Any] | ControlError":
            assert worker.link is not None
            try:
                return await worker.link.ask(do, timeout_s=ANSWER_S, **arguments)
            except ControlError as error:
                return error

        return list(await asyncio.gather(*map(ask, workers)))


def backoff(failures: int) -> float:
    """Return how long a restart waits after so many failures in a row."""
    longest_s = min(LONGEST_DELAY_S, FIRST_DELAY_S * 2.0 ** (failures - 1))
    return longest_s * random.uniform(0.5, 1.0)  # noqa: S311 - not a secret


def command_of(arguments: Sequence[str]) -> list[str]:
    """Return what runs ``headrace`` with these arguments as this process does."""
    flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]  # noqa: SLF001
    return [sys.executable, *flags, "-m", "headrace", *arguments]


def _folder() -> str:
    """Return the current folder by the name under which a shell or a service manager knows it.

    Where that is a symbolic link which a deploy turns to the next release, new workers start
    there.
    """
    by_name = os.environ.get("PWD", "")
    with contextlib.suppress(OSError):
        if os.path.isabs(by_name) and os.path.samefile(by_name, "."):
            return by_name
    return os.getcwd()


def _count(snapshot: Snapshot, counter: str) -> float:
    """Return the sum of a counter over its labels."""
    values: Mapping[str, float] = (snapshot.get("counters") or {}).get(counter, {})
    return sum(values.values())
