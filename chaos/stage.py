"""One run: servers and processes are started, things break, everything is stopped and judged.

Rules of this file:

- Whatever happens in here, what was started is stopped, by its process id.
- When a process was killed is written down before it is: what it was sent later nobody expects.
- Nothing is waited for without a deadline, and what does not keep it is part of the account.
"""

import contextlib
import json
import os
import queue
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from .account import Account, reconcile
from .journal import read

__all__ = ["Actor", "Part", "Stage", "StageError"]

ROOT = Path(__file__).resolve().parent.parent
#: How long an actor may take to begin, with all its members.
BEGIN_S = 20.0
#: How long one may take to end when it is asked to.
END_S = 10.0
#: Nothing came for so long: it is quiet. And for how long to wait for that.
QUIET_S, QUIET_DEADLINE_S = 0.7, 15.0
#: More than an actor takes to find out that it does not get through (``RECOVERY_S`` there).
FINISH_S = 60.0


class StageError(Exception):
    """The run could not be made; it says nothing about the layer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What a worker process is made of; the site, and its clients, take their groups from one."""

    members: int = 0
    senders: int = 0
    threads: int = 0  # senders that are threads, and call the synchronous methods
    reads: tuple[str, ...] = ()  # named channels
    groups: tuple[str, ...] = ("lobby", "stairs")  # each member joins them
    rate: float = 150.0  # messages a second of each sender
    churn_s: float = 0.0  # a member goes and another comes about so often
    capacity: int = 100_000
    handling_s: float = 0.0


class Actor:
    """A process that takes part."""

    def __init__(
        self, name: str, command: list[str], *, directory: Path, environment: Mapping[str, str]
    ) -> None:
        self.name = name
        self.journal = directory / f"{name}.journal"
        self.log = directory / f"{name}.log"
        #: Channels of members that are there now.
        self.channels: list[str] = []
        self.finished = self.ready = False
        self._said: queue.Queue[dict[str, Any] | None] = queue.Queue()
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, **environment},
                cwd=ROOT,
                text=True,
                start_new_session=True,  # Ctrl-C is for the stage, which then stops this
            )
        self._listener = threading.Thread(target=self._listen, name=f"listens to {name}")
        self._listener.start()

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def direct(self, **direction: Any) -> None:
        """Tell it something; one that has gone hears nothing."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(direction) + "\n")
            self.process.stdin.flush()

    def hear(self) -> bool:
        """Take in what it has said; tell whether its channels have changed."""
        before = list(self.channels)
        while True:
            try:
                said = self._said.get_nowait()
            except queue.Empty:
                return before != self.channels
            if said is None:
                continue
            if "channel" in said:
                self.channels.append(said["channel"])
            if "gone" in said:
                self.channels.remove(said["gone"])
            self.ready |= "ready" in said
            self.finished |= "finished" in said

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def last_words(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()
        return "\n".join(lines[-15:]) or "it said nothing"

    def release(self) -> None:
        """Stop it, whatever it is at."""
        if self.alive:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self._listener.join()
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                self._said.put(json.loads(line))
        self._said.put(None)


@dataclass(slots=True)
class Stage:
    """The processes of one run.

    Args:
        layer: The channel layer as ``CHANNEL_LAYERS["default"]`` has it.
        seed: Everything that is random comes from it.
        directory: For the journals and logs.
        seconds: How long things are broken.
    """

    layer: Mapping[str, Any]
    seed: str
    directory: Path
    seconds: float
    environment: dict[str, str] = field(default_factory=dict)
    chance: random.Random = field(init=False)
    actors: list[Actor] = field(default_factory=list)
    killed: dict[str, int] = field(default_factory=dict)
    _parts: dict[str, Part] = field(default_factory=dict)
    _lives: dict[str, int] = field(default_factory=dict)
    _sites: list[subprocess.Popen[bytes]] = field(default_factory=list)
    _port: int = 0
    _sending: bool = False
    _until: float = 0.0

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        self.directory.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for actor in self.actors:
            actor.release()
        for site in self._sites:
            if site.poll() is None:
                site.send_signal(signal.SIGKILL)
            site.wait()

    # Who takes part

    def cast(self, **parts: Part) -> list[Actor]:
        """Start a worker for each part, and let them begin."""
        actors = [self._start(role, part) for role, part in parts.items()]
        self._await_ready(actors)
        self._direct_senders()
        self._sending = True
        self.sleep(0.5)
        return actors

    def living(self, role: str = "") -> list[Actor]:
        """Return the actors of a role (of all), that live, in the order in which they began."""
        return [actor for actor in self.actors if actor.alive and actor.name.startswith(role)]

    def kill(self, actor: Actor) -> None:
        """End it as the kernel does when memory is short."""
        self.killed[actor.name] = time.monotonic_ns()
        actor.signal(signal.SIGKILL)
        actor.process.wait()
        actor.channels.clear()

    def replace(self, actor: Actor) -> Actor:
        """Start another process for the part of one that was killed."""
        role = actor.name.rpartition(".")[0]
        another = self._start(role, self._parts[role])
        self._await_ready([another])
        self._direct_senders()
        return another

    @contextlib.contextmanager
    def paused(self, actor: Actor) -> Iterator[None]:
        """Let it do nothing meanwhile, with all its connections open."""
        actor.signal(signal.SIGSTOP)
        try:
            yield
        finally:
            actor.signal(signal.SIGCONT)

    # A site, and its clients

    def serve(self) -> subprocess.Popen[bytes]:
        """Start ``headrace serve``, where it was before, and return when it listens."""
        if not self._port:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                self._port = probe.getsockname()[1]
        part = json.dumps({"layer": self.layer, "groups": Part().groups})
        command = [sys.executable, "-m", "headrace", "serve", "chaos.actors.site:application"]
        command += ["--port", str(self._port), "--no-access-log", "--no-compression"]
        log = self.directory / f"site.{len(self._sites)}.log"
        with log.open("w") as file:
            site = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env={**os.environ, **self.environment, "CHAOS_PART": part},
                cwd=ROOT,
                start_new_session=True,
            )
        self._sites.append(site)

        def listens() -> bool:
            if site.poll() is not None:
                raise StageError(f"the site did not begin:\n{log.read_text()}")
            with contextlib.suppress(OSError), socket.create_connection(self._address, 1):
                return True
            return False

        if not self._wait(BEGIN_S, listens):
            raise StageError(f"the site did not begin in time:\n{log.read_text()}")
        return site

    def visit(self, *, members: int, silent: int = 0) -> Actor:
        """Start clients of the site, some of which read nothing."""
        name = f"clients.{len(self.actors)}"
        plan = {
            "name": name,
            "journal": str(self.directory / f"{name}.journal"),
            "port": self._port,
            "members": members,
            "silent": silent,
            "groups": Part().groups,
        }
        command = [sys.executable, "-m", "chaos.actors.clients", json.dumps(plan)]
        actor = Actor(name, command, directory=self.directory, environment=self.environment)
        self.actors.append(actor)
        self._parts[name.rpartition(".")[0]] = Part(members=members)
        self._await_ready([actor])
        return actor

    @property
    def _address(self) -> tuple[str, int]:
        return "127.0.0.1", self._port

    # Time

    def sleep(self, seconds: float) -> None:
        """Let it all go on, and tell the senders meanwhile who has come and gone."""
        until = time.monotonic() + seconds
        while True:
            changed = [actor.hear() for actor in self.living()]
            if any(changed) and self._sending:
                self._direct_senders()
            left = until - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(left, 0.1))

    def acts(self) -> Iterator[int]:
        """Yield as often as there is time for another fault: once, at least."""
        self._until = time.monotonic() + self.seconds
        number = 0
        while number == 0 or time.monotonic() < self._until:
            yield number
            number += 1
            self.sleep(self.chance.uniform(0.3, 1.0))

    # The end

    def finish(self) -> Account:
        """Let each sender get through once more, wait until it is quiet, stop, and judge."""
        healed_ns = time.monotonic_ns()
        self._sending = False
        senders = [actor for actor in self.living() if self._sends(actor)]
        for actor in self.living():
            actor.direct(finish=True)
        late = self._wait(FINISH_S, lambda: all(actor.finished for actor in senders))
        self._await_quiet()
        living = self.living()
        for actor in living:
            actor.direct(stop=True)
        deadline = time.monotonic() + END_S
        for actor in living:
            with contextlib.suppress(subprocess.TimeoutExpired):
                actor.process.wait(max(0.01, deadline - time.monotonic()))
        for actor in self.actors:
            actor.release()
        journals = {actor.name: read(actor.journal) for actor in self.actors}
        account = reconcile(journals, killed=self.killed, healed_ns=healed_ns)
        if not late:
            account.fail("senders did not come to an end")
        for actor in self.actors:
            status = actor.process.returncode
            if actor.name not in self.killed and status:
                account.fail(f"{actor.name} ended with status {status}:\n{actor.last_words()}")
        return account

    def _start(self, role: str, part: Part) -> Actor:
        life = self._lives[role] = self._lives.get(role, -1) + 1
        self._parts[role] = part
        name = f"{role}.{life}"
        plan = {
            **{key: getattr(part, key) for key in Part.__slots__},
            "name": name,
            "seed": self.seed,
            "layer": self.layer,
            "journal": str(self.directory / f"{name}.journal"),
        }
        actor = Actor(
            name,
            [sys.executable, "-m", "chaos.actors.worker", json.dumps(plan)],
            directory=self.directory,
            environment=self.environment,
        )
        self.actors.append(actor)
        return actor

    def _await_ready(self, actors: list[Actor]) -> None:
        def ready() -> bool:
            gone = [actor for actor in actors if not actor.alive and actor.name not in self.killed]
            if gone:
                raise StageError(f"{gone[0].name} did not begin:\n{gone[0].last_words()}")
            return all(actor.ready for actor in actors)

        if not self._wait(BEGIN_S, ready):
            late = next(actor for actor in actors if not actor.ready)
            raise StageError(f"{late.name} did not begin in time:\n{late.last_words()}")

    def _sends(self, actor: Actor) -> bool:
        part = self._parts[actor.name.rpartition(".")[0]]
        return bool(part.senders or part.threads)

    def _direct_senders(self) -> None:
        living = self.living()
        parts = [self._parts[actor.name.rpartition(".")[0]] for actor in living]
        groups = {group for part in parts if part.members for group in part.groups}
        queues = {name for part in parts for name in part.reads}
        channels = [channel for actor in living for channel in actor.channels]
        targets = [
            *(f"group:{group}" for group in sorted(groups)),
            *(f"queue:{name}" for name in sorted(queues)),
            *(f"channel:{channel}" for channel in channels),
        ]
        for actor in living:
            if self._sends(actor):
                actor.direct(targets=targets)

    def _wait(self, seconds: float, condition: Any) -> bool:
        deadline = time.monotonic() + seconds
        while True:
            for actor in self.living():
                actor.hear()
            if condition():
                return True
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)

    def _await_quiet(self) -> None:
        deadline = time.monotonic() + QUIET_DEADLINE_S
        before, since = -1, time.monotonic()
        while time.monotonic() < deadline and time.monotonic() - since < QUIET_S:
            written = sum(actor.journal.stat().st_size for actor in self.living())
            if written != before:
                before, since = written, time.monotonic()
            time.sleep(0.05)
