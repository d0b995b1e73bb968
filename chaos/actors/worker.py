"""A process of an application: consumers, readers of named channels, and senders, in any number.

Rules of this file:

- Consumers are real ones, run as a server runs them; each hears of gaps. Readers are cancelled
  now and then while they wait, as whoever has a deadline does.
- A sender awaits each call before the next. Some send from a thread, by the synchronous calls.
- Everything random comes from the seed: where messages go, how large they are, the pauses.
"""

import asyncio
import itertools
import logging
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import django
from django.conf import settings

from ..journal import Journal
from .directions import directions, part, say

#: A call that takes longer than this hangs.
HUNG_S = 20.0
#: How long the senders may try to get through once the faults are over.
RECOVERY_S = 20.0
#: The pause of whoever has met an error: nobody tries again at once.
PAUSE_S = 0.05
#: Sizes of what a message carries, and how often each is taken.
SIZES = {40: 80, 1_000: 15, 40_000: 4, 300_000: 1}

PART = part()
settings.configure(
    SECRET_KEY="only for chaos",
    CHANNEL_LAYERS={"default": PART["layer"]},
    INSTALLED_APPS=[],
)
django.setup()

from headrace.consumer import AsyncConsumer  # noqa: E402 - the settings come first
from headrace.exceptions import StopConsumer  # noqa: E402
from headrace.layers import get_channel_layer  # noqa: E402
from headrace.server.running import new_event_loop  # noqa: E402

NAME: str = PART["name"]
#: Messages a second of each sender.
RATE: float = PART["rate"]
journal = Journal(Path(PART["journal"]))
numbers = itertools.count(1)
#: The senders have been told to come to an end, and nobody goes or comes any more.
finishing = False
stopping = False


class Listener(AsyncConsumer):
    """A consumer that writes down what reaches it."""

    capacity = PART.get("capacity", 100_000)
    handling_s: float = PART.get("handling_s", 0)
    member = ""

    async def chaos_begin(self, event: dict[str, Any]) -> None:
        layer = self.channel_layer
        assert layer is not None
        journal.joined(self.member, f"channel:{self.channel_name}")
        for group in event["groups"]:
            while not stopping:
                try:
                    await layer.group_add(group, self.channel_name)
                except Exception:
                    logging.getLogger("chaos").exception("cannot join %s", group)
                    await asyncio.sleep(PAUSE_S)
                else:
                    journal.joined(self.member, f"group:{group}")
                    break
        event["ready"].set_result(self.channel_name)

    async def chaos_message(self, event: dict[str, Any]) -> None:
        journal.got(self.member, event["target"], event["sender"], event["number"])
        if self.handling_s:
            await asyncio.sleep(self.handling_s)

    async def layer_gap(self, event: dict[str, Any]) -> None:
        journal.gap(self.member, event.get("groups"), event["reason"])

    async def chaos_end(self, event: dict[str, Any]) -> None:
        del event
        if not stopping:
            # At the stop of all it has had time to get what was sent: nothing excuses a loss.
            journal.ended(self.member, "it was asked to")
        raise StopConsumer


class Member:
    """A consumer at work."""

    def __init__(self) -> None:
        self.name = f"{NAME}/{next(numbers)}"
        self.channel: str | None = None
        self._events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        application = Listener.as_asgi(member=self.name)
        self.task = asyncio.create_task(
            application({"type": "chaos"}, self._events.get, self._send), name=self.name
        )

    @staticmethod
    async def _send(message: dict[str, Any]) -> None:
        raise OSError(f"nobody is here to be sent {message['type']}")

    async def begin(self) -> None:
        ready = asyncio.get_running_loop().create_future()
        begin = {"type": "chaos.begin", "groups": PART["groups"], "ready": ready}
        self._events.put_nowait(begin)
        await asyncio.wait({ready, self.task}, return_when=asyncio.FIRST_COMPLETED)
        if self.task.done():
            self.task.result()
        self.channel = ready.result()
        say(channel=self.channel)

    async def end(self) -> None:
        say(gone=self.channel)
        self._events.put_nowait({"type": "chaos.end"})
        await self.task


async def read(queue: str, chance: random.Random) -> None:
    """Read a named channel, and give up waiting now and then."""
    layer = get_channel_layer()
    assert layer is not None
    target, member = f"queue:{queue}", f"{NAME}/{next(numbers)}"
    journal.joined(member, target)
    while True:
        try:
            async with asyncio.timeout(chance.uniform(0.01, 0.5)):
                event = await layer.receive(queue)
        except TimeoutError:
            continue
        except Exception:
            logging.getLogger("chaos").exception("cannot read %s", queue)
            await asyncio.sleep(PAUSE_S)
        else:
            journal.got(member, target, event["sender"], event["number"])


class Sender:
    """Sends to all targets by turns of chance, and numbers what it sends to each."""

    def __init__(self, name: str, seed: str) -> None:
        self.name = name
        self.chance = random.Random(seed)
        self.targets: list[str] = []
        self.counts: Counter[str] = Counter()
        self.finishing: list[str] | None = None
        self.closing = False  # this message is one of the last round
        self.deadline = 0.0

    def direct(self, targets: list[str]) -> None:
        self.targets = targets

    def finish(self) -> None:
        """Get through to each target once more, and end."""
        self.deadline = time.monotonic() + RECOVERY_S
        self.finishing = list(self.targets)

    def next(self) -> tuple[str, dict[str, Any]] | None:
        """Return the next message and where it goes; None: there is no more."""
        if self.finishing is not None:
            if not self.finishing or time.monotonic() > self.deadline:
                return None
            target, self.closing = self.finishing[0], True
        else:
            target = self.chance.choice(self.targets)
        self.counts[target] += 1
        size = self.chance.choices(list(SIZES), list(SIZES.values()))[0]
        number = self.counts[target]
        journal.trying(self.name, target, number)
        return target, {
            "type": "chaos.message",
            "target": target,
            "sender": self.name,
            "number": number,
            "padding": b"x" * size,
        }

    def answered(self, target: str, number: int, error: Exception | None) -> float:
        """Write down how it went; return the pause before the next."""
        if error is None:
            journal.accepted(self.name, target, number)
            if self.closing and self.finishing:
                self.finishing.pop(0)
                return 0.0
            # Bursts and pauses, with the rate that was asked for in the long run.
            return self.chance.choice((0.0, 0.0, 3.0 / RATE))
        journal.refused(self.name, target, number, f"{type(error).__name__}")
        logging.getLogger("chaos").info("%s: refused: %r", target, error)
        return PAUSE_S

    async def run(self) -> None:
        layer = get_channel_layer()
        assert layer is not None
        while (turn := self.next()) is not None:
            target, message = turn
            kind, _, name = target.partition(":")
            call = layer.group_send if kind == "group" else layer.send
            error: Exception | None = None
            try:
                async with asyncio.timeout(HUNG_S) as patience:
                    await call(name, message)
            except Exception as met:
                if patience.expired():
                    journal.hung(self.name, target, message["number"])
                error = met
            await asyncio.sleep(self.answered(target, message["number"], error))

    def run_in_thread(self) -> None:
        layer = get_channel_layer()
        assert layer is not None
        while (turn := self.next()) is not None:
            target, message = turn
            kind, _, name = target.partition(":")
            call = layer.group_send_sync if kind == "group" else layer.send_sync
            error: Exception | None = None
            began = time.monotonic()
            try:
                call(name, message)
            except Exception as met:
                error = met
            if time.monotonic() - began > HUNG_S:
                journal.hung(self.name, target, message["number"])
            time.sleep(self.answered(target, message["number"], error))


async def main() -> None:
    global finishing
    chance = random.Random(f"{PART['seed']} {NAME}")
    layer = get_channel_layer()
    assert layer is not None
    members = [Member() for _ in range(PART["members"])]
    await asyncio.gather(*(member.begin() for member in members))
    tasks = [
        asyncio.create_task(read(queue, random.Random(f"{PART['seed']} {NAME} {queue}")))
        for queue in PART["reads"]
    ]
    if PART["churn_s"] and members:
        tasks.append(asyncio.create_task(churn(members, chance)))
    senders = [
        Sender(f"{NAME}/s{index}", f"{PART['seed']} {NAME} sender {index}")
        for index in range(PART["senders"] + PART["threads"])
    ]
    sending: asyncio.Task[None] | None = None
    say(ready=True)
    async for direction in directions():
        finishing |= "finish" in direction
        for sender in senders:
            if "targets" in direction:
                sender.direct(direction["targets"])
            if "finish" in direction:
                sender.finish()
        if "targets" in direction and sending is None:
            sending = asyncio.create_task(send_all(senders))
        if "stop" in direction:
            break
        if (failed := next((task for task in tasks if task.done()), None)) is not None:
            failed.result()
    await end(members, tasks)
    if hasattr(layer, "stats"):
        journal.stats(layer.stats)
    await layer.close()
    journal.over()


async def send_all(senders: list[Sender]) -> None:
    threads = [asyncio.to_thread(sender.run_in_thread) for sender in senders[PART["senders"] :]]
    await asyncio.gather(*(sender.run() for sender in senders[: PART["senders"]]), *threads)
    say(finished=True)


async def churn(members: list[Member], chance: random.Random) -> None:
    """Let members go, and others come."""
    while True:
        await asyncio.sleep(chance.uniform(0.5, 1.5) * PART["churn_s"])
        if finishing:
            continue
        await members.pop(chance.randrange(len(members))).end()
        member = Member()
        await member.begin()
        members.append(member)


async def end(members: list[Member], tasks: list[asyncio.Task[None]]) -> None:
    global stopping
    stopping = True
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.gather(*(member.end() for member in members))


def run(body: Callable[[], Any]) -> None:
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s.%(msecs)03d %(name)s %(message)s",
        datefmt="%H:%M:%S",
    )
    threading.current_thread().name = NAME
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(body())


if __name__ == "__main__":
    run(main)
    sys.exit(0)
