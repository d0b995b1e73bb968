"""The way to one server: orders go out in their order, many at once, and each gets its answer.

Rules of this file:

- One connection. What is asked for while a batch is under way is the next batch, so that a
  hundred senders share a round trip and one is not kept waiting.
- The connection is made when there is something to send, and made again when it breaks. An order
  waits for that as long as its sender does, and no longer.
- Nothing is sent twice that may have been done, except in the same words (see ``orders``).
"""

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable, Iterator

from ...exceptions import InvalidChannelLayerError
from .client import Command, Refusal, Unreachable, Wire
from .orders import Order, Redirection, Sender, Verdict, failure, judge, unavailable

__all__ = ["Lane", "delays"]

#: How many orders, and about how many bytes, go out together.
_BATCH, _BATCH_BYTES = 128, 1 << 20
#: How much longer an answer may take for each byte that is sent: a slow line's worth.
_BYTE_S = 1e-6
#: The pause before what a server was not ready for is asked again.
_LATER_S = (0.05, 0.2)


def delays(longest_s: float = 2.0) -> Iterator[float]:
    """Yield the pauses before attempts to connect: none, then longer ones, no two the same."""
    yield 0.0
    longest = min(0.05, longest_s)
    while True:
        # Many processes have lost the same server at the same time, and must not all come
        # back in the same moment.
        yield random.uniform(longest / 2, longest)  # noqa: S311 - nothing depends on a guess
        longest = min(2 * longest, longest_s)


class Lane:
    """The orders for one server.

    Args:
        dial: Makes a connection; raises Unreachable or InvalidChannelLayerError.
        sender: Numbers what goes out.
        reply_timeout_s: How long an answer may take.
        patience_s: How long a sender waits, for the text of its error.
        redirect: Takes an order that another node has to carry out.
        failed: Told each time that ``dial`` has failed.
    """

    def __init__(
        self,
        dial: Callable[[], Awaitable[Wire]],
        sender: Sender,
        *,
        reply_timeout_s: float,
        patience_s: float,
        redirect: Callable[[Order, Redirection], None],
        failed: Callable[[Exception], None],
    ) -> None:
        self._dial = dial
        self._sender = sender
        self._reply_timeout_s = reply_timeout_s
        self._patience_s = patience_s
        self._redirect = redirect
        self._failed = failed
        self._waiting: deque[Order] = deque()
        self._news = asyncio.Event()
        self._hurry = asyncio.Event()
        self._wire: Wire | None = None
        self._stale = False
        #: Why there is no connection, while there is none.
        self.problem: Exception | None = None

    def add(self, order: Order) -> None:
        """Carry the order out when its turn comes."""
        self._waiting.append(order)
        self._news.set()

    def take_back(self) -> list[Order]:
        """Return the orders that wait, and forget them."""
        orders = list(self._waiting)
        self._waiting.clear()
        return orders

    def hurry(self) -> None:
        """Try to connect now: the server was just seen alive."""
        self._hurry.set()

    def move(self) -> None:
        """Use another connection from the next batch on."""
        self._stale = True

    async def run(self) -> None:
        """Carry out orders until this is cancelled."""
        try:
            while True:
                self._news.clear()
                if not self._next():
                    await self._news.wait()
                    continue
                if self._stale:
                    await self._hang_up()
                if (wire := self._wire or await self._connect()) is not None:
                    await self._carry_out(wire)
        finally:
            await self._hang_up()

    # The connection

    async def _connect(self) -> Wire | None:
        """Return a connection; None when nobody waits for one any more."""
        # So that whoever waits has several attempts.
        for delay_s in delays(min(2.0, self._patience_s / 5)):
            self._hurry.clear()
            try:
                async with asyncio.timeout(delay_s):
                    await self._hurry.wait()
            except TimeoutError:
                pass
            if not self._next():
                break
            try:
                self._wire = await self._dial()
            except InvalidChannelLayerError as error:
                self.problem = error
                for order in self.take_back():
                    _fail(order, error)
                self._failed(error)
            except Unreachable as error:
                self.problem = error
                self._failed(error)
            else:
                self.problem = None
                return self._wire
        return None

    async def _hang_up(self) -> None:
        wire, self._wire, self._stale = self._wire, None, False
        if wire is not None:
            await wire.close()

    # Orders

    def _next(self) -> Order | None:
        """Return the first order that somebody still waits for."""
        waiting = self._waiting
        while waiting and waiting[0].done is None:
            waiting.popleft()
        return waiting[0] if waiting else None

    def _batch(self) -> list[Order]:
        batch: list[Order] = []
        weight = 0
        while (order := self._next()) is not None and len(batch) < _BATCH:
            weight += order.weight
            if batch and weight > _BATCH_BYTES:
                break
            batch.append(self._waiting.popleft())
        return batch

    async def _carry_out(self, wire: Wire) -> None:
        batch = deque(self._batch())
        commands: list[Command] = []
        counts: deque[int] = deque()
        for order in batch:
            each = order.commands(self._sender)
            counts.append(len(each))
            for command in each:
                if order.asking:
                    commands.append(("ASKING",))
                commands.append(command)
        timeout_s = self._reply_timeout_s + _BYTE_S * sum(order.weight for order in batch)
        wrong_server = False
        try:
            async with asyncio.timeout(timeout_s) as timeout:
                await wire.send(commands)
                while batch:
                    order, replies = batch[0], []
                    for _ in range(counts.popleft()):
                        if order.asking:
                            await wire.read()
                        replies.append(await wire.read())
                    batch.popleft()
                    wrong_server |= self._conclude(order, order.take(replies))
                    timeout.reschedule(asyncio.get_running_loop().time() + timeout_s)
        except (Unreachable, TimeoutError) as error:
            self.problem = error if isinstance(error, Unreachable) else Unreachable("no answer")
            wrong_server = True
        finally:
            # Also when this is cancelled: whoever waits hears that it is not known.
            for order in batch:
                order.uncertain = True
            self._waiting.extendleft(reversed(batch))
        if wrong_server:
            await self._hang_up()

    def _conclude(self, order: Order, refusal: Refusal | None) -> bool:
        """Tell the sender what came of an order, or try again; True to use another connection."""
        if refusal is None:
            if order.done is not None:
                order.done(order.result, None)
            return False
        if order.reword(refusal):
            self.add(order)
            return False
        verdict = judge(refusal)
        if verdict is Verdict.NO:
            _fail(order, failure(str(self._endpoint()), refusal))
        elif order.uncertain and order.once:
            # It was not done now, and perhaps before: no number is right for it any more.
            _fail(order, unavailable(order, refusal, self._patience_s))
        elif isinstance(verdict, Redirection):
            self._redirect(order, verdict)
        else:
            order.uncertain = False
            order.problem = refusal
            pause_s = random.uniform(*_LATER_S)  # noqa: S311
            asyncio.get_running_loop().call_later(pause_s, self.add, order)
        return verdict is Verdict.ELSEWHERE

    def _endpoint(self) -> object:
        return self._wire.endpoint if self._wire is not None else "Redis"


def _fail(order: Order, error: Exception) -> None:
    if order.done is not None:
        order.done(None, error)
