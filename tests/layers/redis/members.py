"""Consumers, as far as a layer can tell."""

import asyncio

from headrace.layers.base import Bounds

PATIENCE_S = 10.0


class Member:
    """What is attached to a channel: it keeps what it is told."""

    def __init__(self, *, hears_gaps=True):
        self.bounds = Bounds(10_000, consumer="Member", hears_gaps=hears_gaps)
        self.events = []
        self.channel = None
        self._news = asyncio.Event()

    @classmethod
    async def of(cls, layer, *groups, **options):
        member = cls(**options)
        member.channel = await layer.new_channel()
        layer.attach(member.channel, member)
        for group in groups:
            await layer.group_add(group, member.channel)
        return member

    def put(self, event):
        self.events.append(event)
        self._news.set()
        return True

    def transmit(self, event, frames):
        return self.put(event)

    def of_type(self, kind):
        return [event for event in self.events if event["type"] == kind]

    @property
    def numbers(self):
        return [event["number"] for event in self.of_type("news")]

    async def until(self, condition):
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                self._news.clear()
                await self._news.wait()

    async def hears(self, number):
        await self.until(lambda: number in self.numbers)

    async def told(self):
        """Wait for a gap, and return it."""
        await self.until(lambda: self.of_type("layer.gap"))
        return self.of_type("layer.gap")[-1]


async def news(layer, number, group="room"):
    return await layer.group_send(group, {"type": "news", "number": number})


async def eventually(condition, what="it"):
    """Ask until it is so: of what tells nobody when it changes."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - nothing would set an event
            await asyncio.sleep(0.01)
