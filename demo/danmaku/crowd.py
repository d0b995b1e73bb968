"""A crowd of a thousand comments a second, for who wants to see what a burst does.

What it says goes the way of all comments but is not kept, or it would fly again for ever.
"""

import asyncio
import random
import time
import uuid

from django.conf import settings

from danmaku.stream import Stream
from live.limits import Refused

__all__ = ["Crowd"]

SAYINGS = (
    *(
        "Ducks!",
        "Here they come",
        "Quack, quack",
        "The mill!!",
        "Encore",
        "First!",
        "Look at the moon",
    ),
    *("What a sunset", "Is that smoke?", "Round and round it goes", "❤️", "Beautiful water"),
    *("鸭子来了", "好美的夜色", "水车转啊转", "前方高能", "再看一遍", "哈哈哈哈", "晚安"),
)


class Crowd:
    """One at a time in a process, for a few seconds."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._task: asyncio.Task[None] | None = None

    def come(self, at_ms: int) -> None:
        """Begin at a moment of the film, or raise :class:`Refused`."""
        if self._task is not None and not self._task.done():
            raise Refused("crowd_busy", "The crowd is here already.")
        self._task = asyncio.create_task(self._shout(at_ms))

    async def _shout(self, at_ms: int) -> None:
        begun, said = time.monotonic(), 0
        while (since := time.monotonic() - begun) < settings.DANMAKU_CROWD_S:
            due = int(since * settings.DANMAKU_CROWD_PER_SECOND)
            moment = (at_ms + int(since * 1000)) % settings.DANMAKU_FILM_MS
            self._stream.pass_on(self._comment(moment) for _ in range(due - said))
            said = due
            await asyncio.sleep(0.02)

    @staticmethod
    def _comment(at_ms: int) -> dict:
        return {
            "client_id": str(uuid.uuid4()),
            "author": {"id": 0, "name": ""},
            "text": random.choice(SAYINGS),  # noqa: S311 - a shout needs no secrecy
            "at_ms": at_ms,
            "passing": True,
        }
