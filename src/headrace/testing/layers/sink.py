"""A sink that keeps what it is given, in the place of a consumer."""

import asyncio
from collections.abc import Callable

from ...layers.base import Bounds, Event, Frames, Overflow

__all__ = ["RecordingSink"]


class RecordingSink:
    """A sink that keeps what it is given.

    Args:
        room: How many events it takes.
        overflow: What it does about one more, as a consumer with that policy.
        consumer: The consumer whose sink it is, for the log.
    """

    def __init__(
        self,
        room: int = 1_000_000,
        overflow: Overflow = Overflow.DROP_NEWEST,
        consumer: str | None = None,
    ) -> None:
        self.room = room
        self.bounds = Bounds(room, overflow, consumer)
        self.closed = False
        self.events: list[Event] = []
        #: The client-bound events, each with the frames that it was transmitted with.
        self.transmitted: list[tuple[Event, Frames]] = []
        self._news = asyncio.Event()

    def put(self, event: Event, /) -> bool | Overflow:
        """Keep the event, if there is room; do as the policy says if not."""
        if self.closed:
            return True
        outcome: bool | Overflow = True
        if len(self.events) >= self.room:
            match self.bounds.overflow:
                case Overflow.DROP_NEWEST:
                    return False
                case Overflow.DROP_OLDEST:
                    del self.events[:1]
                case Overflow.CLOSE:
                    self.closed = True
            outcome = self.bounds.overflow
        self.events.append(event)
        self._news.set()
        return outcome

    def transmit(self, event: Event, frames: Frames, /) -> bool:
        """Keep the event and its frames, if there is room."""
        if len(self.transmitted) >= self.room:
            return False
        self.transmitted.append((event, frames))
        self._news.set()
        return True

    async def until(self, condition: Callable[[], bool], *, patience_s: float = 5.0) -> None:
        """Wait until the condition holds; it is tried after each event."""
        async with asyncio.timeout(patience_s):
            while not condition():
                self._news.clear()
                await self._news.wait()
