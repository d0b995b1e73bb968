"""One cell: start a server, put load on it, read what it cost, stop it.

- The server has one core to itself and the load generator another, where there are two.
- Every cell has a server of its own, so that nothing is left over from the cell before.
- What the server costs is read from outside, in ``/proc``: all its processes, whatever it is.
- Whatever happens in here, the processes that were started are stopped, by their pids.
"""

import contextlib
import json
import os
import random
import select
import shutil
import socket
import statistics
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from .environment import BenchmarkError

__all__ = ["Cell", "Generator", "Plan", "Server", "cores", "measure"]

TICKS = os.sysconf("SC_CLK_TCK")
START_S = 30.0  # a server must accept connections by then
STOP_S = 3.0  # and be gone by then, or it is killed


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How long and how much to measure in a cell."""

    warmup_s: float = 0.5
    seconds: float = 2.0
    idle_warm: int = 500  # connections that stay open under the measured ones
    idle: int = 5_000
    crowd: int = 15_000  # connections of one group, the ones that stay open among them
    broadcasts: int = 5  # that it is sent


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """What was found.

    ``rate`` is operations a second; or bytes of memory a connection; or the 99th percentile of the
    latency in microseconds; or the microseconds in which a message has reached the last of a crowd.
    """

    rate: float
    server_us: float | None = None  # CPU microseconds an operation, all processes
    server_cores: float | None = None
    generator_cores: float | None = None
    other_cores: float | None = None  # what else kept the machine busy
    frames_per_read: float | None = None
    resident_bytes: float | None = None  # by RSS, where ``rate`` is anonymous memory
    p50_us: float | None = None
    p99_us: float | None = None
    commands: float | None = None  # that Redis has executed for each message
    connection_bytes: float | None = None  # where ``rate`` is a time
    stall_us: float | None = None  # the longest time that the event loop was held
    stall_cpu_us: float | None = None  # and the longest that it was at work without a break

    @property
    def is_client_bound(self) -> bool:
        return (self.generator_cores or 0) > 0.9

    @property
    def is_disturbed(self) -> bool:
        return (self.other_cores or 0) > 0.15


def cores() -> tuple[int, int]:
    """Return the core of the server and that of the load generator; one machine has only one."""
    usable = sorted(os.sched_getaffinity(0))
    return usable[0], usable[-1]


class Process:
    """A subprocess on one core, stopped at the end of its ``with`` block."""

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        core: int | None,
        log: Path,
        environment: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        piped: bool = False,
    ) -> None:
        self.log = log
        with log.open("w") as errors:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE if piped else subprocess.DEVNULL,
                stdout=subprocess.PIPE if piped else errors,
                stderr=errors,
                cwd=cwd,
                env={**os.environ, **(environment or {})},
                preexec_fn=None if core is None else lambda: os.sched_setaffinity(0, {core}),
                start_new_session=True,  # Ctrl-C is for the benchmark, which then stops this
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        family = self.pids()
        with contextlib.suppress(ProcessLookupError):
            self.process.terminate()
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for pid in family[1:]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, 9)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()

    def pids(self) -> list[int]:
        """Return the process and its descendants, itself first."""
        parents = {}
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                with contextlib.suppress(OSError):
                    parents[int(entry)] = int(_stat(int(entry))[1])
        family = [self.process.pid]
        for pid in family:
            family.extend(child for child, parent in parents.items() if parent == pid)
        return family

    def cpu_s(self) -> float:
        """Return the CPU time of all its processes so far."""
        ticks = 0
        for pid in self.pids():
            with contextlib.suppress(OSError):
                fields = _stat(pid)
                ticks += int(fields[11]) + int(fields[12])  # utime, stime
        return ticks / TICKS

    def last_words(self) -> str:
        """Return the end of what the process wrote on standard error."""
        lines = [line for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        return " / ".join(line.strip() for line in lines[-2:]) or "it said nothing"


class Server(Process):
    """A server under test."""

    def wait(self, port: int) -> None:
        """Return when it accepts connections."""
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise BenchmarkError(f"the server ended: {self.last_words()}")
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return
            time.sleep(0.05)
        raise BenchmarkError(f"the server did not start in {START_S:.0f} s: {self.last_words()}")

    def memory(self) -> tuple[int, int]:
        """Return the anonymous memory and the RSS of all its processes, in bytes.

        The first is what they allocated, pages that they share among each other counted once;
        the pages of programs and libraries, which come and go with what else runs, are not in it.
        """
        found = {"Pss_Anon": 0, "Rss": 0}
        for pid in self.pids():
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                name, _, rest = line.partition(":")
                if name in found:
                    found[name] += int(rest.split()[0]) * 1024
        return found["Pss_Anon"], found["Rss"]

    def settled_memory(self) -> tuple[int, int]:
        """Return the memory once it has stopped to change, or after five seconds."""
        deadline = time.monotonic() + 5
        before = self.memory()
        while True:
            time.sleep(0.3)
            after = self.memory()
            if abs(after[0] - before[0]) < 32_768 or time.monotonic() > deadline:
                return after
            before = after


class Generator(Process):
    """The load generator, and what it says."""

    def __init__(
        self,
        program: str | Path,
        arguments: Sequence[str],
        *,
        core: int,
        log: Path,
        environment: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        super().__init__(
            [program, *arguments],
            core=core,
            log=log,
            environment=environment,
            cwd=cwd,
            piped=True,
        )
        self._unread = b""

    def ask(self, command: str) -> None:
        """Give a generator in the mode "hold" something to do."""
        assert self.process.stdin is not None
        self.process.stdin.write(command.encode() + b"\n")
        self.process.stdin.flush()

    def expect(self, event: str, *, within_s: float) -> dict[str, Any]:
        """Return the next thing it says, which must be ``event``."""
        line = self._line(time.monotonic() + within_s)
        said: dict[str, Any] = json.loads(line)
        if said.get("event") != event:
            raise BenchmarkError(f"the load generator said {line!r} instead of {event!r}")
        return said

    def _line(self, deadline: float) -> bytes:
        assert self.process.stdout is not None
        pipe = self.process.stdout.fileno()
        while b"\n" not in self._unread:
            ready, _, _ = select.select([pipe], [], [], max(0, deadline - time.monotonic()))
            if not ready:
                raise BenchmarkError("the load generator does not get on")
            data = os.read(pipe, 4096)
            if not data:
                self.process.wait()
                raise BenchmarkError(self.last_words().removeprefix("loadgen: "))
            self._unread += data
        line, _, self._unread = self._unread.partition(b"\n")
        return line


def measure(
    *,
    command: str,
    path: str,
    arguments: Sequence[str],
    plan: Plan,
    generator: Path,
    environment: Mapping[str, str],
    cwd: Path,
    scratch: Path,
    headers: Sequence[str] = (),
    all_cores: bool = False,
) -> Cell:
    """Measure one cell; raise BenchmarkError with the reason where that can't be done.

    ``command`` is the server's, with ``{port}`` in it; ``arguments`` are the load
    generator's, of which the first is its mode. ``generator`` is the folder of both generators.
    With ``all_cores`` the server has every core, the load generator's too.
    """
    server_core, generator_core = cores()
    port = _free_port()
    mode, *options = arguments
    is_crowd = mode == "crowd"
    mode = "hold" if is_crowd else mode
    if mode == "across":
        return _across(command, options, plan, environment, cwd, scratch)
    options += [word for header in headers for word in ("--header", header)]
    with Server(
        command.replace("{port}", str(port)).split(),
        core=None if all_cores else server_core,
        log=scratch / "server.log",
        environment=environment,
        cwd=cwd,
    ) as server:
        server.wait(port)
        if mode == "hold":
            size = plan.crowd if is_crowd else plan.idle_warm + plan.idle
            options += ["--connections", str(size), "--patience", "60"]
        else:
            options += ["--warmup", str(plan.warmup_s), "--seconds", str(plan.seconds)]
        with Generator(
            generator / ("httpgen" if mode.startswith("http") else "loadgen"),
            [mode, "127.0.0.1", str(port), path, *options],
            core=generator_core,
            log=scratch / "generator.log",
        ) as load:
            try:
                if is_crowd:
                    return _crowd(server, load, plan, port)
                run = _memory if mode == "hold" else _rate
                return run(server, load, plan)
            except BenchmarkError as error:
                if server.process.poll() is None:
                    raise
                raise BenchmarkError(f"{error}; the server ended: {server.last_words()}") from None


def _rate(server: Server, load: Generator, plan: Plan) -> Cell:
    load.expect("measuring", within_s=plan.warmup_s + 60)
    server_before, machine_before = server.cpu_s(), _busy_s()
    figures = load.expect("measured", within_s=plan.seconds + 60)
    server_s, machine_s = server.cpu_s() - server_before, _busy_s() - machine_before
    seconds, operations = figures["seconds"], figures["operations"]
    return Cell(
        rate=operations / seconds,
        server_us=server_s / operations * 1e6,
        server_cores=server_s / seconds,
        generator_cores=figures["cpu_s"] / seconds,
        other_cores=max(0.0, (machine_s - server_s - figures["cpu_s"]) / seconds),
        frames_per_read=figures["frames"] / figures["reads"],
    )


def _across(
    command: str,
    options: Sequence[str],
    plan: Plan,
    environment: Mapping[str, str],
    cwd: Path,
    scratch: Path,
) -> Cell:
    """Measure a channel layer: ``command`` starts what it stands on, and two processes."""
    if shutil.which("redis-server") is None and "local" not in command:
        raise BenchmarkError("redis-server is missing (Debian: apt-get install redis-server)")
    first, last = cores()
    program, *arguments = command.split()
    arguments += [*options, "--warmup", str(plan.warmup_s), "--seconds", str(plan.seconds)]
    with Generator(
        program,
        arguments,
        core=first,
        log=scratch / "across.log",
        environment={**environment, "CORES": f"{first},{last}"},
        cwd=cwd,
    ) as both:
        both.expect("measuring", within_s=plan.warmup_s + 60)
        before, machine_before = both.cpu_s(), _busy_s()
        figures = both.expect("measured", within_s=plan.seconds + 60)
        cpu_s, machine_s = both.cpu_s() - before, _busy_s() - machine_before
    seconds, operations = figures["seconds"], figures["operations"]
    return Cell(
        rate=figures["p99_us"] if "--rate" in options else operations / seconds,
        server_us=cpu_s / operations * 1e6,
        server_cores=cpu_s / seconds,
        other_cores=max(0.0, (machine_s - cpu_s) / seconds),
        p50_us=figures["p50_us"],
        p99_us=figures["p99_us"],
        commands=figures["commands"],
    )


def _memory(server: Server, load: Generator, plan: Plan) -> Cell:
    # The first ones stay: what a server frees it uses again, and that would flatter it.
    load.ask(f"open {plan.idle_warm}")
    load.expect("opened", within_s=60)
    before = server.settled_memory()
    load.ask(f"open {plan.idle}")
    load.expect("opened", within_s=240)
    after = server.settled_memory()
    anonymous, resident = ((b - a) / plan.idle for a, b in zip(before, after, strict=True))
    return Cell(rate=anonymous, resident_bytes=resident)


def _crowd(server: Server, load: Generator, plan: Plan, port: int) -> Cell:
    load.ask(f"open {plan.idle_warm}")
    load.expect("opened", within_s=60)
    before, _ = server.settled_memory()
    more = plan.crowd - plan.idle_warm
    load.ask(f"open {more}")
    load.expect("opened", within_s=240)
    after, resident = server.settled_memory()
    with _Asked(port, "/stall/") as stall:
        stall.ask()  # what was before does not count
        cpu_before, machine_before, since = server.cpu_s(), _busy_s(), time.monotonic()
        load.ask(f"send {plan.broadcasts}")
        sent = load.expect("sent", within_s=120)
        seconds = time.monotonic() - since
        cpu_s, machine_s = server.cpu_s() - cpu_before, _busy_s() - machine_before
        stall_us, stall_cpu_us = map(float, stall.ask().split())
    return Cell(
        rate=statistics.median(sent["last_us"]),
        server_us=cpu_s / (plan.broadcasts * plan.crowd) * 1e6,
        server_cores=cpu_s / seconds,
        generator_cores=None,
        other_cores=max(0.0, (machine_s - cpu_s) / seconds - 1),  # the generator's has one core
        resident_bytes=resident / plan.crowd,
        connection_bytes=(after - before) / more,
        stall_us=stall_us,
        stall_cpu_us=stall_cpu_us,
    )


class _Asked:
    """A WebSocket of the benchmark's own, which asks a server about itself."""

    def __init__(self, port: int, path: str) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), 30)
        self._socket.sendall(
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\n"
            f"Origin: http://127.0.0.1:{port}\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
            "\r\n".encode()
        )
        self._file = self._socket.makefile("rb")
        if b" 101 " not in (status := self._file.readline()):
            raise BenchmarkError(f"no WebSocket to ask: {status!r}")
        while self._file.readline() != b"\r\n":
            pass

    def ask(self) -> str:
        """Send a short message, and return the short one that answers it."""
        self._socket.sendall(b"\x81\x81\0\0\0\0?")  # a mask of zeros
        first, length = self._file.read(2)
        while first == 0x89 and length <= 125:  # on a busy machine we are asked whether we live
            pong = bytes((0x8A, 0x80 | length, 0, 0, 0, 0)) + self._file.read(length)
            self._socket.sendall(pong)
            first, length = self._file.read(2)
        if first != 0x81 or length > 125:
            raise BenchmarkError(f"no short text answered: 0x{first:02x}, {length}")
        return self._file.read(length).decode()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._file.close()
        self._socket.close()


def _stat(pid: int) -> list[str]:
    """Return the fields of ``/proc/PID/stat`` that follow the name, the state first."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _busy_s() -> float:
    """Return the CPU time that all cores together were busy, or were taken by the host."""
    user, nice, system, _idle, _wait, irq, softirq, steal = map(
        int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    )
    return (user + nice + system + irq + softirq + steal) / TICKS


def _free_port() -> int:
    """Return a port below those that the kernel hands out to clients."""
    for port in _ports():
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port
    raise BenchmarkError("no free port")


def _ports() -> Iterator[int]:
    for _ in range(100):
        yield random.randrange(20_000, 32_000)
