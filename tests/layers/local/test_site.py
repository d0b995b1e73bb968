"""Two servers, a worker and a shell of one project, as they are started."""

import asyncio
import contextlib
import json
import os
import re
import signal
import sys

import websockets

from .actors import ROOT

SITE = "tests.layers.local.site"


@contextlib.asynccontextmanager
async def running(directory, *arguments, until):
    """Run a program until the block ends; give what it has said when it was ready."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        *arguments,
        cwd=ROOT,
        env={**os.environ, "LOCAL_LAYER_DIRECTORY": str(directory), "PYTHONUNBUFFERED": "1"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(20):
            said = ""
            while not (found := re.search(until, said)):
                line = await process.stdout.readline()
                assert line, said
                said += line.decode()
        yield process, found
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            process.stdout._limit = 1 << 30
            await process.communicate()


async def shell(directory, text):
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        SITE,
        "shell",
        text,
        cwd=ROOT,
        env={**os.environ, "LOCAL_LAYER_DIRECTORY": str(directory)},
    )
    assert await process.wait() == 0


def serve(directory):
    arguments = ("headrace", "serve", f"{SITE}:application", "--port", "0")
    return running(directory, *arguments, until=r"listens on http://127\.0\.0\.1:(\d+)")


async def heard(client):
    async with asyncio.timeout(10):
        return json.loads(await client.recv())


async def test_servers_a_worker_and_a_shell_reach_each_other(tmp_path):
    directory = tmp_path / "local"
    async with contextlib.AsyncExitStack() as stack:
        clients = []
        for _ in range(2):
            server, found = await stack.enter_async_context(serve(directory))
            for _ in range(2):
                url = f"ws://127.0.0.1:{found[1]}/"
                clients.append(await stack.enter_async_context(websockets.connect(url)))
        await shell(directory, "hello")
        assert [await heard(client) for client in clients] == ["hello"] * 4

        # Nobody works yet: it waits.
        await clients[0].send("1")
        worker, _ = await stack.enter_async_context(
            running(directory, SITE, "runworker", "work", until="Listening")
        )
        done = [await heard(client) for client in clients]
        assert done == [{"done": 1, "by": worker.pid}] * 4
        await clients[3].send("2")
        assert [(await heard(client))["done"] for client in clients] == [2] * 4

        # A server that is killed takes its own clients with it, and nobody else.
        server.kill()
        await server.wait()
        await shell(directory, "still here")
        assert [await heard(client) for client in clients[:2]] == ["still here"] * 2
