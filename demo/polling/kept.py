"""What one process has of the feed: the last messages, and whether any are missing among them.

Each message comes with the number of the one before it. Numbers go up, and not always by one: who
takes the feed over after a crash leaves some out.
"""

import asyncio
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from typing import NamedTuple

__all__ = ["Kept", "Message"]


class Message(NamedTuple):
    """One message. The text is JSON, and the same in whichever way it is told."""

    number: int
    text: str


class Kept:
    """The last ``most`` messages; ``steps``: of how many messages one may be asked for."""

    def __init__(self, most: int, steps: Iterable[int]) -> None:
        self.term = 0
        #: The number of the last message; what is below ``begins`` is not kept, or was missed.
        self.last = 0
        self.begins = 1
        self.messages: deque[Message] = deque(maxlen=most)
        #: Set while nothing is missing.
        self.fresh = asyncio.Event()
        self._news = {every: asyncio.Event() for every in steps}

    def since(self, after: int, every: int) -> list[Message]:
        """Return what is kept after a number: of every 2, 5 or 10 messages one."""
        found = []
        for message in reversed(self.messages):
            if message.number <= after:
                break
            if message.number % every == 0:
                found.append(message)
        return found[::-1]

    def has_missed(self, after: int) -> bool:
        """Whether there were messages after that number which are not kept any more."""
        return after + 1 < self.begins

    async def wait(self, after: int, every: int, patience_s: float) -> list[Message]:
        """Return what there is after a number, or comes within a time; then nothing."""
        with suppress(TimeoutError):
            async with asyncio.timeout(patience_s):
                while not (found := self.since(after, every)):
                    await self._news[every].wait()
                return found
        return []

    def take(self, event: dict) -> bool:
        """Take a message in, or all of them; return False if something before it is missing."""
        if event["term"] < self.term:
            return True  # of one whose time is over
        self.term = event["term"]
        messages = [Message(*each) for each in event["messages"]]
        if event["type"] == "feed.whole":
            if event["begins"] > self.last + 1:
                self.messages.clear()
                self.begins = event["begins"]
                self.last = self.begins - 1
            self.fresh.set()
        elif not self.fresh.is_set() or event["before"] != self.last:
            if messages[-1].number <= self.last:
                return True
            self.fresh.clear()
            return False
        self.keep([message for message in messages if message.number > self.last])
        return True

    def keep(self, messages: list[Message]) -> None:
        """Take in what follows on the last message."""
        if not messages:
            return
        if len(self.messages) + len(messages) > self.messages.maxlen:
            kept = [*self.messages, *messages][-self.messages.maxlen :]
            self.begins = max(self.begins, kept[0].number)
        self.messages.extend(messages)
        self.last = messages[-1].number
        for every, news in self._news.items():
            if any(message.number % every == 0 for message in messages):
                self._news[every] = asyncio.Event()
                news.set()

    def begin_at(self, last: int, *, exact: bool) -> None:
        """Go on with what is here if that is all there was; or else with nothing, after ``last``.

        ``exact``: that is the number of the last message. Else it is beyond whatever was given.
        """
        if self.last != last if exact else not self.fresh.is_set():
            self.messages.clear()
            self.last = last
            self.begins = last + 1
        self.fresh.set()
