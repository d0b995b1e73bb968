"""Processes that talk to each other through a local layer, and what tests tell them.

``python -m tests.layers.local.actors <directory> <options as JSON>`` obeys the lines of its
standard input, each a call as JSON, and answers each with a line.
"""

import asyncio
import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

from django.conf import settings

from headrace.exceptions import ChannelFull
from headrace.layers.base import Bounds
from headrace.layers.local import LocalChannelLayer

ROOT = Path(__file__).parents[3]


class Actor:
    """The test's side: a process that is told what to do."""

    def __init__(self, directory, **options):
        self.process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(directory), json.dumps(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
        )
        self.pid = self.process.pid
        self.pending = b""

    def start(self, name, *args):
        """Begin a call, whose answer is waited for later."""
        self.process.stdin.write(json.dumps([name, *args]).encode() + b"\n")
        self.process.stdin.flush()

    def answer(self):
        while b"\n" not in self.pending:
            data = os.read(self.process.stdout.fileno(), 65536)
            assert data, "the actor is gone"
            self.pending += data
        line, _, self.pending = self.pending.partition(b"\n")
        return json.loads(line)

    def call(self, name, *args):
        self.start(name, *args)
        return self.answer()

    def lines(self):
        """What it has written before it was killed."""
        whole = self.pending + self.process.stdout.read()
        return [json.loads(line) for line in whole.split(b"\n")[:-1]]

    def has_written(self, within_s):
        return b"\n" in self.pending or bool(
            select.select([self.process.stdout], [], [], within_s)[0]
        )

    def signal(self, number):
        os.kill(self.pid, number)

    def kill(self):
        self.signal(signal.SIGKILL)
        self.process.wait()

    def close(self):
        if self.process.poll() is None:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


class Member:
    """A consumer of the process."""

    def __init__(self):
        self.bounds = Bounds(10**6, consumer="Member", hears_gaps=True)
        self.events = []
        self.news = asyncio.Event()

    def put(self, event):
        self.events.append(event)
        self.news.set()
        return True

    def transmit(self, event, frames):
        return self.put(dict(event))

    async def until(self, condition):
        while not condition():
            self.news.clear()
            await self.news.wait()


class Stage:
    """The process's side."""

    def __init__(self, layer):
        self.layer = layer
        self.member = Member()
        self.channel = None

    async def channel_name(self):
        if self.channel is None:
            self.channel = await self.layer.new_channel()
            self.layer.attach(self.channel, self.member)
        return self.channel

    async def join(self, *groups):
        for group in groups:
            await self.layer.group_add(group, await self.channel_name())
        return self.channel

    async def join_many(self, count):
        await self.join(*(f"many.{number}" for number in range(count)))
        return count

    async def add(self, group, channel):
        await self.layer.group_add(group, channel)

    async def send_each(self, count):
        """Send to each of many groups."""
        for number in range(count):
            await self.layer.group_send(f"many.{number}", {"type": "n", "number": number})

    async def group_send(self, group, count, size=0):
        reached = None
        for number in range(count):
            event = {"type": "n", "number": number, "from": self.layer.process, "text": "x" * size}
            reached = await self.layer.group_send(group, event)
        return reached

    async def flood(self, group, size=0):
        """Send numbers for ever; each that was accepted is told."""
        number = 0
        while True:
            event = {"type": "n", "number": number, "from": self.layer.process, "text": "x" * size}
            await self.layer.group_send(group, event)
            os.write(1, b"%d\n" % number)
            number += 1

    async def send(self, channel, count, size=0):
        full = 0
        began = time.monotonic()
        for number in range(count):
            try:
                await self.layer.send(channel, {"type": "n", "number": number, "text": "x" * size})
            except ChannelFull:
                full += 1
        return [full, time.monotonic() - began]

    async def work(self, channel):
        """Take numbers from a named channel for ever; each is told."""
        while True:
            event = await self.layer.receive(channel)
            os.write(1, b"%d\n" % event["number"])

    async def heard(self, count):
        """Return the numbers that the member has heard, once there are so many, by sender."""
        numbers = lambda: [event for event in self.member.events if event["type"] == "n"]  # noqa: E731
        await self.member.until(lambda: len(numbers()) >= count)
        heard = {}
        for event in numbers():
            heard.setdefault(event.get("from", ""), []).append(event["number"])
        return heard

    async def gaps(self, count=0):
        gaps = lambda: [event for event in self.member.events if event["type"] == "layer.gap"]  # noqa: E731
        await self.member.until(lambda: len(gaps()) >= count)
        return gaps()

    async def stats(self):
        return self.layer.stats

    async def process(self):
        return self.layer.process

    async def busy(self, seconds):
        time.sleep(seconds)  # noqa: ASYNC251 - that is what it is about

    async def close(self):
        await self.layer.close()


async def main(directory, options):
    look_interval_s = options.pop("look_interval_s", LocalChannelLayer.LOOK_INTERVAL_S)
    layer = LocalChannelLayer(directory=directory, capacity=10**6, **options)
    layer.LOOK_INTERVAL_S = look_interval_s
    stage = Stage(layer)
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    while line := await reader.readline():
        name, *args = json.loads(line)
        answer = await getattr(stage, name)(*args)
        os.write(1, json.dumps(answer).encode() + b"\n")
    await layer.close()


if __name__ == "__main__":
    settings.configure(SECRET_KEY="test")
    asyncio.run(main(sys.argv[1], json.loads(sys.argv[2])))
