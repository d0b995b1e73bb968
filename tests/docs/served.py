"""``headrace serve`` as a page tells the reader to start it, on a free port."""

import asyncio
import contextlib
import re
import shlex
import signal
from collections.abc import AsyncIterator

from tests.docs.pages import BIN, Project, environment

PATIENCE_S = 20


class Served:
    """A server process. ``url`` is where it listens, and stays the same after ``restart``."""

    def __init__(self, project: Project, line: str) -> None:
        self.project = project
        self.command = shlex.split(line)
        self.port = 0
        self.log: list[str] = []
        self.expected: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        self.process = await asyncio.create_subprocess_exec(
            BIN / self.command[0],
            *self.command[1:],
            *("--port", str(self.port)),
            cwd=self.project.folder,
            env=environment(),
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(PATIENCE_S):
            while line := await self._line():
                if found := re.search(r"listens on http://127\.0\.0\.1:(\d+)", line):
                    self.port = int(found[1])
                    self._reader = asyncio.create_task(self._read())
                    return
        raise AssertionError("".join(self.log))

    async def stop(self) -> None:
        self.process.send_signal(signal.SIGINT)
        async with asyncio.timeout(PATIENCE_S):
            code = await self.process.wait()
            await self._reader
        assert code == 0, "".join(self.log)

    def expect(self, complaint: str) -> None:
        """Say that this in the log is what the test wanted to see."""
        self.expected.append(complaint)

    def complaints(self) -> list[str]:
        return [
            line
            for line in self.log
            if re.search("WARNING|ERROR|CRITICAL|Traceback", line)
            and not any(expected in line for expected in self.expected)
        ]

    async def _read(self) -> None:
        while await self._line():
            pass

    async def _line(self) -> str:
        assert self.process.stderr is not None
        line = (await self.process.stderr.readline()).decode()
        self.log.append(line)
        return line


@contextlib.asynccontextmanager
async def served(project: Project, line: str) -> AsyncIterator[Served]:
    """Serve, stop, and see that the server had nothing to complain of."""
    server = Served(project, line)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()
    log = "".join(server.log)
    assert not server.complaints(), log
    assert all(expected in log for expected in server.expected), log
