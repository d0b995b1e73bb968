"""``headrace serve`` in a process group of its own, and what the kernel says of it.

Rules of this file:

- What was started is stopped, whatever happens, by its process group.
- Figures are sums over all processes of the group: a supervisor and its workers are one server.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

__all__ = ["ROOT", "ServeError", "Served", "Vitals"]

ROOT = Path(__file__).resolve().parents[1]
HOST = "127.0.0.1"
#: How long a start and an end may take, on a machine that does other things too.
BEGIN_S, END_S = 60.0, 45.0
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")


class ServeError(Exception):
    """The server did not begin, or ended by itself."""


@dataclass(frozen=True, slots=True)
class Vitals:
    """What the kernel says of all processes of one server."""

    processes: int
    rss_bytes: int
    descriptors: int
    threads: int
    cpu_s: float


class Served:
    """One server, from its start to its end.

    Args:
        application: What ``headrace serve`` is told to run.
        options: More arguments.
        command: Arguments of Python instead, for another server; the word PORT in them stands
            for the port.
        log: The file that gets what it prints.
        environment: Variables beside those of this process.
    """

    def __init__(
        self,
        application: str,
        *options: str,
        log: Path,
        command: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.log = log
        self.port = free_port()
        if not command:
            command = ("-m", "headrace", "serve", application, "--port", "PORT", *options)
        port = str(self.port)
        self._command = [sys.executable, *(part.replace("PORT", port) for part in command)]
        self._environment = {**os.environ, **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> tuple[str, int]:
        return HOST, self.port

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "the server has not been started"
        return self._process

    @property
    def ended(self) -> bool:
        """Whether it has, although nobody told it to."""
        return self.process.poll() is not None

    def start(self) -> None:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as file:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env=self._environment,
                cwd=ROOT,
                start_new_session=True,
            )
        deadline = time.monotonic() + BEGIN_S
        while not self._answers():
            if self.ended:
                raise ServeError(f"the server did not begin:\n{self.tail()}")
            if time.monotonic() > deadline:
                self.stop()
                raise ServeError(f"the server did not begin in {BEGIN_S:g} s:\n{self.tail()}")
            time.sleep(0.05)

    def stop(self) -> int:
        """End it gracefully, at once if it takes too long, and return its exit status."""
        process = self.process
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            status = process.wait(END_S)
        except subprocess.TimeoutExpired:
            status = -signal.SIGKILL
        # Nobody of its group may be left, whatever became of their leader.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return status

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def pids(self) -> list[int]:
        """The processes of the group, the first one first."""
        group = self.process.pid
        found = []
        for name in os.listdir("/proc"):
            if name.isdigit():
                with contextlib.suppress(OSError, IndexError):
                    if int(_stat(int(name))[2]) == group:
                        found.append(int(name))
        return sorted(found)

    def vitals(self) -> Vitals:
        rss = descriptors = threads = processes = 0
        cpu_s = 0.0
        for pid in self.pids():
            with contextlib.suppress(OSError, IndexError):  # it may end while it is looked at
                fields = _stat(pid)
                if fields[0] == "Z":
                    continue
                files = len(os.listdir(f"/proc/{pid}/fd"))
                processes += 1
                descriptors += files
                threads += int(fields[17])
                rss += int(fields[21]) * _PAGE_BYTES
                # With those of its children that were waited for: what has ended has cost, too.
                cpu_s += sum(int(field) for field in fields[11:15]) / _TICKS
        return Vitals(processes, rss, descriptors, threads, cpu_s)

    def peak_bytes(self) -> int:
        """The most memory that its processes have had resident, each at its time."""
        total = 0
        for pid in self.pids():
            with contextlib.suppress(OSError):
                status = Path(f"/proc/{pid}/status").read_text()
                total += int(status.partition("VmHWM:")[2].split()[0]) * 1024
        return total

    def tail(self, lines: int = 20) -> str:
        """The last lines of its log."""
        with contextlib.suppress(OSError):
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
        return ""

    def _answers(self) -> bool:
        request = b"GET /ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        with contextlib.suppress(OSError), socket.create_connection(self.address, 2) as sock:
            sock.settimeout(5)
            sock.sendall(request)
            return sock.recv(12).startswith(b"HTTP/1.1 ")
        return False

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def _stat(pid: int) -> Sequence[str]:
    """The fields of /proc/PID/stat behind the name: state, parent, group, ..."""
    with open(f"/proc/{pid}/stat", encoding="latin-1") as file:
        return file.read().rpartition(")")[2].split()
