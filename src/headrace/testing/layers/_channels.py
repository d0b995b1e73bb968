"""One channel: order, readers, capacity and expiry."""

import asyncio
import itertools
import re
from collections.abc import Callable, Coroutine, Generator
from typing import Any

from ...exceptions import ChannelFull
from ...layers.base import BaseChannelLayer, Event
from ._suite import LayerSuite, check, layer_test, refused, same

__all__ = ["Channels"]


class _CancelledAt:
    """A coroutine that is cancelled where it waits for the n-th time.

    ``woken``: not before what it waits for has come. Then the task is due to go on, and whatever
    has been put aside for it must not be lost.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, Event], at: int, *, woken: bool) -> None:
        self._coroutine = coroutine
        self._at = at
        self._woken = woken
        #: How often it has waited.
        self.waited = 0

    def __await__(self) -> Generator[Any, Any, Event]:
        task = asyncio.current_task()
        assert task is not None
        awaited = self._coroutine.__await__()
        step: Callable[[], Any] = lambda: awaited.send(None)  # noqa: E731
        while True:
            try:
                waits_for = step()
            except StopIteration as stop:
                result: Event = stop.value
                return result
            self.waited += 1
            if self.waited == self._at:
                if self._woken and asyncio.isfuture(waits_for):
                    # Ahead of the task, which is called back after us.
                    waits_for.add_done_callback(lambda _: task.cancel())
                else:
                    asyncio.get_running_loop().call_soon(task.cancel)
            try:
                yield waits_for
            except BaseException as error:
                step = lambda error=error: awaited.throw(error)  # type: ignore[misc]  # noqa: E731
            else:
                step = lambda: awaited.send(None)  # noqa: E731


class Channels(LayerSuite):
    """One channel."""

    @layer_test
    async def test_messages_come_in_the_order_in_which_they_were_sent(self) -> None:
        layer = await self.layer()
        for channel in (await layer.new_channel(), "named"):
            for number in range(50):
                await layer.send(channel, {"type": "count", "number": number})
            heard = await self.numbers(layer, channel, 50)
            same(heard, range(50), f"the reader of {channel}")
            await self.nothing(layer, channel)

    @layer_test
    async def test_each_of_several_senders_is_heard_in_its_order(self) -> None:
        layer = await self.layer()
        channel = await layer.new_channel()

        async def talk(sender: int) -> None:
            for number in range(20):
                await layer.send(channel, {"type": "t", "sender": sender, "number": number})

        await asyncio.gather(*(talk(sender) for sender in range(4)))
        heard = [await self.next(layer, channel) for _ in range(80)]
        for sender in range(4):
            numbers = [message["number"] for message in heard if message["sender"] == sender]
            same(numbers, range(20), f"who listens to sender {sender}")

    @layer_test
    async def test_a_reader_that_waits_is_woken(self) -> None:
        layer = await self.layer()
        for channel in (await layer.new_channel(), "named"):
            reading = asyncio.ensure_future(self.next(layer, channel))
            await asyncio.sleep(0)
            await layer.send(channel, {"type": "late"})
            check(await reading == {"type": "late"}, "who waits gets what is sent")

    @layer_test
    async def test_channels_do_not_hear_each_other(self) -> None:
        layer = await self.layer()
        first, second = await layer.new_channel(), await layer.new_channel()
        await layer.send(second, {"type": "for.second"})
        await layer.send(first, {"type": "for.first"})
        await self.is_next(layer, first, {"type": "for.first"})
        await self.is_next(layer, second, {"type": "for.second"})
        await self.nothing(layer, first, second)

    @layer_test
    async def test_new_channels_are_local_legal_and_different(self) -> None:
        layer = await self.layer()
        names = [await layer.new_channel() for _ in range(100)]
        check(len(set(names)) == 100, "no channel is given twice")
        for name in names:
            BaseChannelLayer().require_valid_channel_name(name)
            check("!" in name, f"a new channel is local to its process: it has a '!', not {name}")
        name = await layer.new_channel("mine")
        check(
            name.startswith("mine"), f"the name begins with the prefix that was asked for: {name}"
        )

    @layer_test
    async def test_readers_of_one_channel_share_its_messages(self) -> None:
        self.needs("several_readers")
        layer = await self.layer()

        async def read() -> list[int]:
            return await self.numbers(layer, "work", 10)

        readers = [asyncio.ensure_future(read()) for _ in range(4)]
        await asyncio.sleep(0)
        for number in range(40):
            await layer.send("work", {"type": "job", "number": number})
            await asyncio.sleep(0)
        jobs = await asyncio.gather(*readers)
        same(sorted(itertools.chain(*jobs)), range(40), "the readers together")

    # Cancelled readers

    @layer_test
    async def test_a_reader_that_is_cancelled_at_any_await_takes_no_message_with_it(self) -> None:
        layer = await self.layer()
        for channel in (await layer.new_channel(), "named"):
            for woken, sent_before in itertools.product((False, True), repeat=2):
                for at in range(1, 100):
                    waited = await self._cancel_at(layer, channel, at, woken, sent_before)
                    if waited < at:
                        break
            await self.nothing(layer, channel)

    async def _cancel_at(
        self, layer: BaseChannelLayer, channel: str, at: int, woken: bool, sent_before: bool
    ) -> int:
        message: Event = {"type": "count", "number": at}
        if sent_before:
            await layer.send(channel, message)
        reading = _CancelledAt(layer.receive(channel), at, woken=woken)

        async def read() -> Event:
            return await reading

        reader = asyncio.ensure_future(read())
        if not sent_before:
            for _ in range(3):
                await asyncio.sleep(0)
            await layer.send(channel, message)
        done, _ = await asyncio.wait({reader}, timeout=self.patience_s)
        check(done, "a reader that is cancelled ends, and one that has a message to read")
        if reader.cancelled():
            await self.is_next(layer, channel, message)
        else:
            check(reader.result() == message, "a reader gets the message that waits")
        return reading.waited

    @layer_test
    async def test_a_reader_that_is_cancelled_at_any_time_takes_no_message_with_it(self) -> None:
        layer = await self.layer()
        channel = await layer.new_channel()
        moments = itertools.product(range(4), range(5))
        for number, (steps_before, steps_after) in enumerate(moments):
            reader = asyncio.ensure_future(layer.receive(channel))
            for _ in range(steps_before):
                await asyncio.sleep(0)
            await layer.send(channel, {"type": "count", "number": number})
            for _ in range(steps_after):
                await asyncio.sleep(0)
            reader.cancel()
            await asyncio.wait({reader})
            message = await self.next(layer, channel) if reader.cancelled() else reader.result()
            check(message["number"] == number, f"message {number} is read by the next")
        await self.nothing(layer, channel)

    @layer_test
    async def test_a_cancelled_reader_gives_its_turn_to_another(self) -> None:
        self.needs("several_readers")
        layer = await self.layer()
        for steps in range(4):
            first = asyncio.ensure_future(layer.receive("work"))
            second = asyncio.ensure_future(self.next(layer, "work"))
            for _ in range(3):
                await asyncio.sleep(0)
            await layer.send("work", {"type": "job"})
            for _ in range(steps):
                await asyncio.sleep(0)
            first.cancel()
            await asyncio.wait({first})
            if not first.cancelled():  # it had it before
                await layer.send("work", {"type": "job"})
            check(await second == {"type": "job"}, "the other reader gets it")

    # Capacity

    @layer_test
    async def test_a_full_channel_says_so_to_its_sender(self) -> None:
        layer = await self.layer(capacity=3)
        for channel in (await layer.new_channel(), "named"):
            for number in range(3):
                await layer.send(channel, {"type": "count", "number": number})
            with refused(ChannelFull, f"one more than the capacity of {channel}"):
                await layer.send(channel, {"type": "count", "number": 3})
            await self.is_next(layer, channel, {"type": "count", "number": 0})
            await layer.send(channel, {"type": "count", "number": 4})
            same(await self.numbers(layer, channel, 3), [1, 2, 4], f"the reader of {channel}")

    @layer_test
    async def test_some_channels_have_capacities_of_their_own(self) -> None:
        layer = await self.layer(
            capacity=3, channel_capacity={"small": 1, "big.*": 5, re.compile(r"^re\d$"): 2}
        )
        for channel, capacity in (("small", 1), ("big.x", 5), ("re7", 2), ("other", 3)):
            for _ in range(capacity):
                await layer.send(channel, {"type": "fill"})
            with refused(ChannelFull, f"{channel} after {capacity}"):
                await layer.send(channel, {"type": "fill"})

    # Expiry

    @layer_test
    async def test_messages_that_nobody_fetches_expire(self) -> None:
        layer = await self.layer(expiry=self.shortest_expiry_s)
        channels = (await layer.new_channel(), "named")
        for channel in channels:
            await layer.send(channel, {"type": "old"})
        await asyncio.sleep(self.shortest_expiry_s * 1.5)
        await self.nothing(layer, *channels)

    @layer_test
    async def test_what_has_expired_leaves_room(self) -> None:
        layer = await self.layer(expiry=self.shortest_expiry_s, capacity=1)
        channels = (await layer.new_channel(), "named")
        for channel in channels:
            await layer.send(channel, {"type": "old"})
        await asyncio.sleep(self.shortest_expiry_s * 1.5)
        for channel in channels:
            await layer.send(channel, {"type": "new"})
            await self.is_next(layer, channel, {"type": "new"})
