"""The command with its workers, as a service manager sees it."""

import asyncio
import contextlib
import os
import re

from headrace.server.control import BlockingClient

from .clients import until
from .test_cli import COMMAND, ROOT, Process


class Service(Process):
    """The command; all that it writes is kept, tracebacks may be among it."""

    async def workers(self, count=2):
        """Return the processes of the workers, by number, as they serve at last."""
        await until(lambda: len(self._serving()) >= count)
        return self._serving()

    def _serving(self):
        found = {}
        for line in self.log:
            if match := re.search(r"worker (\d+) \(process (\d+)\) serves", line):
                found[int(match[1])] = int(match[2])
        return found

    def count(self, text):
        return sum(text in line for line in self.log)

    async def status(self):
        await asyncio.wait(self._readers)
        return await self.process.wait()

    async def ask(self, do, **arguments):
        """Ask it over its control socket."""

        def talk():
            with BlockingClient(self.control) as client:
                return client.ask(do, **arguments)

        return await asyncio.to_thread(talk)


@contextlib.asynccontextmanager
async def service(tmp_path, *arguments, app="tests.server.deployed", folder=ROOT, **more):
    """Run ``headrace serve``; more: variables of the environment, and pass_fds."""
    pass_fds = more.pop("pass_fds", ())
    control = str(tmp_path / "control.sock")
    place = [] if {"--fd", "--uds", "--no-port"} & set(arguments) else ["--port", "0"]
    arguments = [argument for argument in arguments if argument != "--no-port"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HEADRACE")} | more
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        "serve",
        app,
        *place,
        "--control-socket",
        control,
        *arguments,
        cwd=folder,
        env=environment | {"PWD": str(folder)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        pass_fds=pass_fds,
    )
    running = Service(process)
    running.control = control
    try:
        yield running
    finally:
        if process.returncode is None:
            process.terminate()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(5):
                    await process.wait()
        if process.returncode is None:
            process.kill()
            await process.wait()
        await asyncio.wait(running._readers)


def is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):  # before it is opened, or read
        return False
