"""A process that runs out of file descriptors goes on with what it has, and comes back."""

import asyncio
import contextlib
import resource
import sys
import time
from pathlib import Path

import pytest

from .clients import connected

ROOT = Path(__file__).parents[2]


@contextlib.asynccontextmanager
async def running(loop):
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.server.short_of_descriptors", loop),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    lines = []

    async def listen():
        async for line in process.stderr:
            lines.append(line.decode())  # noqa: PERF401 - they are wanted as they come

    listening = asyncio.create_task(listen())
    try:
        async with asyncio.timeout(20):
            port = int(await process.stdout.readline())
        yield ("127.0.0.1", port), lines
    finally:
        process.terminate()
        async with asyncio.timeout(20):
            await process.wait()
        await listening


async def cpu_s(client, path="/"):
    response = await client.get(path)
    assert response.status == 200
    return float(response.body)


async def ends(address):
    """How a connection ends that asks for nothing: with an answer, or without."""
    async with connected(address) as client:
        with contextlib.suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(0.5):
                return (await client.reader.read())[:12]
        return None


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
async def test_more_connections_than_descriptors_harm_nobody(loop):
    async with running(loop) as (address, lines), connected(address) as client:
        before = await cpu_s(client)
        answers = await asyncio.gather(*(ends(address) for _ in range(700)))
        assert answers.count(b"HTTP/1.1 503") >= 10
        assert await cpu_s(client) - before < 1
    assert len([line for line in lines if "refused, connections" in line]) <= 10
    assert any("… and" in line for line in lines)
    assert not [line for line in lines if "Traceback" in line]


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
async def test_an_application_that_has_taken_all_descriptors_is_not_the_end(loop):
    async with running(loop) as (address, lines), connected(address) as client:
        before = await cpu_s(client, "/take")
        began = time.monotonic()
        # Nobody is let in: some wait in the system, some just end.
        answers = await asyncio.gather(*(ends(address) for _ in range(20)))
        assert b"HTTP/1.1 200" not in answers
        assert await cpu_s(client, "/give") - before < 0.5
        async with asyncio.timeout(10):
            while True:
                async with connected(address) as another:
                    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                        if (await another.get()).status == 200:
                            break
        assert time.monotonic() - began < 10
    # A try a second, each with a handful of lines, and not one for each try of a busy loop.
    assert len(lines) < 1000


async def test_the_command_asks_for_all_descriptors_that_it_may_have():
    command = f"ulimit -Sn 300; ulimit -Hn 3000; exec {sys.executable} -m headrace serve"
    process = await asyncio.create_subprocess_exec(
        *("sh", "-c", f"{command} tests.server.apps:hello --port 0"),
        cwd=ROOT,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(20):
            async for line in process.stderr:
                if b"listens on" in line:
                    break
        assert resource.prlimit(process.pid, resource.RLIMIT_NOFILE) == (3000, 3000)
    finally:
        process.terminate()
        await process.communicate()
