"""A group over two processes: one sends, both have members, and every delivery is checked.

    python across.py LAYER [--members N] [--window N | --rate N] [--warmup S] [--seconds S]

The rules of this file:
  - The same program for every layer. Its consumers are those of the project that the layer belongs
    to, ``AsyncConsumer`` with a handler, run as a server runs them but without a server: what is
    measured is the way from ``group_send`` to the handlers, in both processes.
  - Each member expects its own next number, so that a lost, repeated or reordered message ends
    the run. A message is done when all members of both processes have handled it; the other
    process says so by eight bytes on a socket.
  - ``--window``: so many messages are under way at a time. ``--rate``: so many are sent in a
    second, whatever becomes of them; latency counts from the moment when one was to be sent.
  - Each process has a core, where there are two; Redis, started here, takes what is free.
  - It says what happens as the load generator does, in lines of JSON.
"""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from array import array
from itertools import count

import uvloop

LAYERS = {
    "headrace-local": ("headrace", "headrace.layers.LocalChannelLayer"),
    "headrace-redis": ("headrace", "headrace.layers.RedisChannelLayer"),
    "channels-redis": ("channels", "channels_redis.core.RedisChannelLayer"),
    "channels-pubsub": ("channels", "channels_redis.pubsub.RedisPubSubChannelLayer"),
}
DONE = struct.Struct("!Q")
PATIENCE_S = 10.0


class Side:
    """The members of one process."""

    def __init__(self, members, done):
        self.members = members
        self.missing = {}
        self.latencies = array("q")
        self.done = done

    def received(self, event):
        self.latencies.append(time.monotonic_ns() - event["at"])
        number = event["number"]
        left = self.missing.get(number, self.members) - 1
        if left:
            self.missing[number] = left
        else:
            self.missing.pop(number, None)
            self.done(number)


def consumer_of(project):
    if project == "headrace":
        from headrace.consumer import AsyncConsumer
    else:
        from channels.consumer import AsyncConsumer

    class Member(AsyncConsumer):
        async def bench_begin(self, event):
            self.side, self.expected = event["side"], 0
            await self.channel_layer.group_add("room", self.channel_name)
            event["ready"].set_result(None)

        async def bench_message(self, event):
            if event["number"] != self.expected:
                os.write(2, f"expected {self.expected}, got {event['number']}\n".encode())
                os._exit(1)
            self.expected += 1
            self.side.received(event)

    return Member


async def join(project, side):
    """Let the members of this process join the group."""
    application = consumer_of(project).as_asgi()

    async def send(message):
        raise AssertionError(f"there is no client for {message['type']}")

    tasks = []
    for _ in range(side.members):
        events = asyncio.Queue()
        ready = asyncio.get_running_loop().create_future()
        events.put_nowait({"type": "bench.begin", "side": side, "ready": ready})
        tasks.append(asyncio.create_task(application({"type": "bench"}, events.get, send)))
        await ready
    return tasks


def configure(project, backend, port, directory):
    import django
    from django.conf import settings

    config = {"hosts": [f"redis://127.0.0.1:{port}"]} if port else {"directory": directory}
    settings.configure(
        SECRET_KEY="only for benchmarks",
        INSTALLED_APPS=[],
        CHANNEL_LAYERS={"default": {"BACKEND": backend, "CONFIG": config}},
    )
    django.setup()
    if project == "headrace":
        from headrace.layers import get_channel_layer
    else:
        from channels.layers import get_channel_layer
    return get_channel_layer()


async def other(options, project, layer, link):
    """Be the process that only receives."""
    side = Side(options.members, lambda number: link.send(DONE.pack(number)))
    tasks = await join(project, side)
    link.send(DONE.pack(0))
    loop = asyncio.get_running_loop()
    link.setblocking(False)
    while command := await loop.sock_recv(link, 1):
        if command == b"m":
            side.latencies = array("q")
        elif command == b"e":
            break
    link.setblocking(True)
    link.sendall(DONE.pack(len(side.latencies)) + side.latencies.tobytes())
    del tasks, layer


class Sender:
    """The process that sends, and has members too."""

    def __init__(self, options, layer, link):
        self.options = options
        self.layer = layer
        self.link = link
        self.side = Side(options.members, self.done)
        self.halves = {}
        self.finished = 0
        self.progress = asyncio.Event()

    def done(self, number):
        """All members of one side have a message."""
        if self.halves.pop(number, None) is None:
            self.halves[number] = True
        else:
            self.finished += 1
            self.progress.set()

    def hear(self):
        data = self.link.recv(1 << 16)
        for (number,) in DONE.iter_unpack(data):
            self.done(number)

    async def send(self, number, at):
        event = {"type": "bench.message", "number": number, "at": at, "text": "x" * 60}
        await self.layer.group_send("room", event)

    async def wait(self):
        self.progress.clear()
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self.progress.wait()
        except TimeoutError:
            sys.exit(f"across: nothing for {PATIENCE_S:.0f} s after {self.finished} messages")

    async def run(self):
        options = self.options
        numbers = count()
        asyncio.get_running_loop().add_reader(self.link, self.hear)
        await self.phase(numbers, options.warmup)
        self.link.send(b"m")
        self.side.latencies = array("q")
        say(event="measuring")
        calls = commands(options.redis)
        began, before = time.monotonic(), self.finished
        await self.phase(numbers, options.seconds)
        seconds, messages = time.monotonic() - began, self.finished - before
        calls = commands(options.redis) - calls
        asyncio.get_running_loop().remove_reader(self.link)
        self.link.send(b"e")
        (length,) = DONE.unpack(receive(self.link, DONE.size))
        theirs = array("q", receive(self.link, length * 8))
        latencies = sorted(self.side.latencies + theirs)
        say(
            event="measured",
            operations=messages * options.members * 2,
            seconds=seconds,
            p50_us=statistics.median(latencies) / 1e3,
            p99_us=latencies[len(latencies) * 99 // 100] / 1e3,
            commands=calls / messages if options.redis else None,
        )

    async def phase(self, numbers, seconds):
        """Send for so long, and wait until all has arrived."""
        until = time.monotonic() + seconds
        sent = self.finished
        due = time.monotonic()
        while time.monotonic() < until:
            if self.options.rate:
                due += 1 / self.options.rate
                # A loop's timer may be early, by its resolution.
                while (left := due - time.monotonic()) > 0:  # noqa: ASYNC110 - it waits for a time
                    await asyncio.sleep(left)
                at = int(due * 1e9)
            else:
                while sent - self.finished >= self.options.window:
                    await self.wait()
                at = time.monotonic_ns()
            await self.send(next(numbers), at)
            sent += 1
        while self.finished < sent:
            await self.wait()


def receive(link, length):
    link.setblocking(True)
    data = bytearray()
    while len(data) < length:
        piece = link.recv(length - len(data))
        if not piece:
            sys.exit("across: the other process ended")
        data += piece
    return bytes(data)


def commands(port):
    """Return how many commands the Redis server has executed, those of scripts among them."""
    if not port:
        return 0
    import redis

    with contextlib.closing(redis.Redis(port=port)) as client:
        stats = client.info("commandstats")
    own = ("info", "client|setinfo", "hello", "client|setname")
    return sum(
        stat["calls"] for name, stat in stats.items() if name.removeprefix("cmdstat_") not in own
    )


def say(**what):
    print(json.dumps(what), flush=True)


@contextlib.contextmanager
def redis_server(directory):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    server = subprocess.Popen(
        ["redis-server", *options, "--dir", directory], stdout=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.05)
        yield port
    finally:
        server.terminate()
        server.wait()


def main():
    options = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    project, backend = LAYERS[options.layer]
    cores = sorted(options.cores)
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="across-"))
        os.sched_setaffinity(0, cores)
        needs_redis = options.layer != "headrace-local"
        port = options.redis = stack.enter_context(redis_server(directory)) if needs_redis else 0
        ours, theirs = socket.socketpair()
        child = os.fork()
        if not child:
            ours.close()
            os.sched_setaffinity(0, cores[-1:])
            layer = configure(project, backend, port, f"{directory}/run")
            with contextlib.suppress(KeyboardInterrupt):
                uvloop.run(other(options, project, layer, theirs))
            os._exit(0)
        try:
            theirs.close()
            os.sched_setaffinity(0, cores[:1])
            layer = configure(project, backend, port, f"{directory}/run")
            uvloop.run(sending(options, project, layer, ours))
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


async def sending(options, project, layer, link):
    sender = Sender(options, layer, link)
    tasks = await join(project, sender.side)
    receive(link, DONE.size)  # the other one's members have joined
    await sender.run()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for close in ("close", "close_pools"):
        if hasattr(layer, close):
            await getattr(layer, close)()


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("layer", choices=LAYERS)
    parser.add_argument("--members", type=int, default=200)
    parser.add_argument("--window", type=int, default=1)
    parser.add_argument("--rate", type=float)
    parser.add_argument("--warmup", type=float, default=0.5)
    parser.add_argument("--seconds", type=float, default=2)
    options = parser.parse_args()
    options.cores = (
        os.sched_getaffinity(0)
        if "CORES" not in os.environ
        else {int(core) for core in os.environ["CORES"].split(",")}
    )
    return options


if __name__ == "__main__":
    main()
