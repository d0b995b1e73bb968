"""What has come for this process: opened, known from repetitions, and handed to the application.

Rules of this file:

- Everything is handed over once, and in the order in which it came.
- What can't be opened is counted and dropped, and never stops who reads.
- What comes in one turn of the network is one call into the application's loop. When that loop
  does not take it, there is no more ``room``: reading stops, and Redis decides how much it keeps.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import TypeAlias

from .envelopes import Envelopes

__all__ = ["Arrivals"]

#: How many bytes may be on their way to the application's loop; what a frame adds to its own.
_UNDER_WAY_BYTES, _FRAME_BYTES = 16 << 20, 256
#: So many senders are remembered.
_SENDERS = 20_000
#: A loop can stop without a word: how often to look, when it is waited for.
_LOOK_S = 0.5

#: Takes frames, on the thread on which it is called.
Take: TypeAlias = Callable[[list[bytes]], None]


class _Way:
    """The way to one loop of the application."""

    __slots__ = ("arrived", "given", "loop", "waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        #: Bytes. Each is changed by one thread only.
        self.given = 0
        self.arrived = 0
        #: Set by the network when it waits for the loop.
        self.waiting = False

    @property
    def crowded(self) -> bool:
        return self.given - self.arrived > _UNDER_WAY_BYTES


class Arrivals:
    """What has come. All of it on the network's loop.

    Args:
        envelopes: Opens what comes.
        home: Tells the loop of the application on which frames are to be taken, if there is one.
        take: Takes frames there; or here, if there is no such loop.
        undecodable: Told of what can't be opened.
    """

    def __init__(
        self,
        envelopes: Envelopes,
        *,
        home: Callable[[], asyncio.AbstractEventLoop | None],
        take: Take,
        undecodable: Callable[[str], None],
    ) -> None:
        self._envelopes = envelopes
        self._home = home
        self._take = take
        self._undecodable = undecodable
        self._loop = asyncio.get_running_loop()
        self._frames: list[bytes] = []
        self._bytes = 0
        #: The last number of each sender, those heard least recently first.
        self._numbers: dict[bytes, int] = {}
        self._way: _Way | None = None
        self._room = asyncio.Event()
        #: How many were repetitions.
        self.repeated = 0

    def add(self, data: bytes) -> None:
        """Take what was received."""
        if self._envelopes.is_own(data):
            return
        try:
            sender, number, frame = self._envelopes.open(data)
        except ValueError as error:
            self._undecodable(str(error))
            return
        last = self._numbers.pop(sender, 0)
        self._numbers[sender] = max(number, last)
        if number <= last:
            self.repeated += 1
            return
        if len(self._numbers) > _SENDERS:
            del self._numbers[next(iter(self._numbers))]
        if not self._frames:
            self._loop.call_soon(self.hand_over)
        self._frames.append(frame)
        self._bytes += len(frame) + _FRAME_BYTES

    def hand_over(self) -> None:
        """Hand over what has come so far."""
        frames, self._frames = self._frames, []
        size, self._bytes = self._bytes, 0
        if not frames:
            return
        home = self._home()
        if home is None:
            self._take(frames)
            return
        way = self._way
        if way is None or way.loop is not home:
            way = self._way = _Way(home)
        way.given += size
        # Closed: whoever was there is gone.
        with contextlib.suppress(RuntimeError):
            home.call_soon_threadsafe(self._arrive, way, frames, size)

    def _arrive(self, way: _Way, frames: list[bytes], size: int) -> None:
        try:
            self._take(frames)
        finally:
            way.arrived += size
            if way.waiting:
                with contextlib.suppress(RuntimeError):
                    self._loop.call_soon_threadsafe(self._room.set)

    @property
    def crowded(self) -> bool:
        """Whether the application has not taken enough of what has come."""
        return self._bytes > _UNDER_WAY_BYTES or (self._way is not None and self._way.crowded)

    async def room(self) -> None:
        """Return when there is room again."""
        while self.crowded:
            self.hand_over()
            way = self._way
            if way is None or not way.crowded:
                return
            if not way.loop.is_running():
                self._way = None  # what is under way arrives if the loop runs again
                return
            self._room.clear()
            way.waiting = True
            try:
                async with asyncio.timeout(_LOOK_S):
                    await self._room.wait()
            except TimeoutError:
                pass
            finally:
                way.waiting = False
