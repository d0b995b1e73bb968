"""Readers of named channels in this process, and how each message gets to one of them.

Rules of this file:

- A process that has readers takes one message at a time, and takes the next when a reader has
  the last in its hands. What has no reader after all goes back to the front of the queue.
- A process that found nothing stands among the readers in Redis, and is woken there. Nobody
  asks again and again; only, after long, once more, for a wake-up can be lost with a connection.
- What was taken stays in Redis under its number until the next one is taken: to take it once
  more, because the answer was lost, gives the same.
"""

import asyncio
import contextlib
import itertools
import logging
import threading
from collections import deque
from typing import Any

from ...exceptions import ChannelLayerUnavailable, InvalidChannelLayerError
from .names import Names
from .network import Network
from .orders import Call
from .scripts import GIVE_BACK, TAKE, sharded

__all__ = ["Queues", "Reader"]

logger = logging.getLogger("headrace.layers.redis")

#: How long a process stays ready for the next reader of a channel.
_LINGER_S = 1.0
#: A reader asks once more after so long, and is forgotten in Redis after twice that.
_ASK_AGAIN_S = 15.0
#: A reader's loop can stop without a word: how often to look.
_LOOK_S = 0.5


class Reader:
    """One who waits for a message of a named channel. To be made on the reader's loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._offered = self._withdrawn = False
        #: Of the reader's loop: the item, or an error.
        self.item: asyncio.Future[bytes] = self._loop.create_future()
        # Of the network's loop:
        self.gone = False
        self._decision: asyncio.Future[bool] | None = None

    # On the network's loop

    async def offer(self, item: bytes) -> bool:
        """Give the item to the reader; False if it does not want it any more."""
        decision = self._decision = asyncio.get_running_loop().create_future()
        if not self._hand_over(self.item.set_result, item):
            return False
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S):
                    return await asyncio.shield(decision)
            with self._lock:
                if not self._loop.is_running() and not self._offered:
                    # It would get the item if its loop ran again, and nobody knows when.
                    self._withdrawn = self.gone = True
                    return False

    def fail(self, error: Exception) -> None:
        """Tell the reader that there is nothing to wait for."""
        self.gone = True
        self._hand_over(self.item.set_exception, error)

    def decide(self, wanted: bool) -> None:
        """Take note of whether the reader has the item."""
        self.gone = True
        if self._decision is not None and not self._decision.done():
            self._decision.set_result(wanted)

    def _hand_over(self, settle: Any, outcome: Any) -> bool:
        try:
            self._loop.call_soon_threadsafe(self._arrive, settle, outcome)
        except RuntimeError:  # closed, and the reader with it
            self.gone = True
            return False
        return True

    # On the reader's loop

    def _arrive(self, settle: Any, outcome: Any) -> None:
        with self._lock:
            if self._withdrawn or self.item.done():
                return
            self._offered = True
        settle(outcome)


class Queues:
    """The readers of named channels in this process. All of it on the network's loop."""

    def __init__(self, network: Network, process: str) -> None:
        self._network = network
        self._process = process
        self._channels: dict[str, _Queue] = {}

    def read(self, channel: str, reader: Reader) -> None:
        """Give the reader the next message of the channel that is its turn."""
        if self._network.thread.over:
            reader.fail(ChannelLayerUnavailable("the channel layer was closed meanwhile"))
            return
        queue = self._channels.get(channel)
        if queue is None:
            queue = self._channels[channel] = _Queue(self._network, channel, self._process)
            task = self._network.supervise(queue.run, f"queue {channel}")
            task.add_done_callback(lambda _: self._ended(channel, queue))
        queue.add(reader)

    def woken(self, channel: str) -> None:
        """Look whether there is something in the queue."""
        queue = self._channels.get(channel)
        if queue is not None:
            queue.look()

    def _ended(self, channel: str, queue: "_Queue") -> None:
        if self._channels.get(channel) is queue:
            del self._channels[channel]
        queue.close()


class _Queue:
    def __init__(self, network: Network, channel: str, process: str) -> None:
        names: Names = network.plan.names
        self._network = network
        self._channel = channel
        self._process = process
        self._wake = names.wake(channel, process)
        self._prefix = names.wake(channel, "")
        self._keys = (names.queue(channel), names.readers(channel), names.taken(channel, process))
        in_cluster = network.plan.cluster is not None
        self._take_script = sharded(TAKE) if in_cluster else TAKE
        self._give_back_script = sharded(GIVE_BACK) if in_cluster else GIVE_BACK
        self._numbers = itertools.count(1)
        self._readers: deque[Reader] = deque()
        self._news = asyncio.Event()
        self._logged = False

    def add(self, reader: Reader) -> None:
        self._readers.append(reader)
        self._news.set()

    def look(self) -> None:
        self._news.set()

    def close(self) -> None:
        """Let nobody wait for what will not come."""
        for reader in self._readers:
            reader.fail(ChannelLayerUnavailable("the channel layer was closed meanwhile"))

    async def run(self) -> None:
        """Serve the readers until there is none, and a while longer."""
        network = self._network
        network.want(self._wake)
        try:
            number: int | None = None
            while True:
                self._news.clear()
                if self._reader() is None:
                    if not await self._another_reader():
                        break
                    continue
                # With the same number until there is an answer.
                number = number or next(self._numbers)
                try:
                    await self._heard()
                    item = await self._order(
                        self._take_script, number, self._process, int(2 * _ASK_AGAIN_S * 1000)
                    )
                except (ChannelLayerUnavailable, InvalidChannelLayerError) as error:
                    await self._bear(error)
                    continue
                self._logged = False
                taken, number = number, None
                if item is None:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(_ASK_AGAIN_S):
                            await self._news.wait()
                elif not await self._hand_out(item):
                    await self._give_back(taken)
            await self._give_back("")
        finally:
            network.drop(self._wake)

    async def _another_reader(self) -> bool:
        """Wait a while for a reader; False when none comes."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LINGER_S):
                await self._news.wait()
        if self._reader() is None and self._news.is_set():
            # Something has come, and nobody is here: let the next process have it.
            await self._give_back("")
            return True
        return self._reader() is not None

    def _reader(self) -> Reader | None:
        """Return whose turn it is."""
        while self._readers and self._readers[0].gone:
            self._readers.popleft()
        return self._readers[0] if self._readers else None

    async def _hand_out(self, item: bytes) -> bool:
        while (reader := self._reader()) is not None:
            self._readers.popleft()
            if await reader.offer(item):
                return True
        return False

    async def _heard(self) -> None:
        if self._wake not in self._network.heard:
            future = asyncio.get_running_loop().create_future()
            self._network.await_name(self._wake, _teller(future))
            await future

    async def _order(self, script: Any, *args: str | int) -> Any:
        future = asyncio.get_running_loop().create_future()
        order = Call(self._channel, script, self._keys, *args)
        self._network.carry_out(order, _teller(future))
        return await future

    async def _give_back(self, number: int | str) -> None:
        with contextlib.suppress(ChannelLayerUnavailable, InvalidChannelLayerError):
            await self._order(self._give_back_script, number, self._process, self._prefix)

    async def _bear(self, error: Exception) -> None:
        """Go on when Redis can't be reached: what waits in a queue waits for that, too."""
        if isinstance(error, InvalidChannelLayerError):
            for reader in self._readers:
                reader.fail(error)
            self._readers.clear()
            return
        if not self._logged:
            self._logged = True
            logger.warning("nothing is read from channel %s for now: %s", self._channel, error)
        await asyncio.sleep(_LOOK_S)


def _teller(future: asyncio.Future[Any]) -> Any:
    def tell(result: Any, error: BaseException | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)

    return tell
