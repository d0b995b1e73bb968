"""The life of a layer: a blank state, and an end that leaves nothing."""

import asyncio
import gc
import threading
import warnings
from unittest import SkipTest

from ...layers.base import BaseChannelLayer
from ._suite import LayerSuite, check, layer_test

__all__ = ["Life"]


class Life(LayerSuite):
    """Flush and close."""

    async def flushing(self) -> BaseChannelLayer:
        """Return a layer that can be flushed; skip the test if it can't."""
        layer = await self.layer()
        if "flush" not in layer.extensions:
            raise SkipTest("'flush' is not among the extensions of the layer")
        return layer

    @layer_test
    async def test_flush_forgets_messages_and_groups(self) -> None:
        layer = await self.flushing()
        [channel] = await self.members(layer, 1, "room")
        await layer.group_add("room", "named")
        for name in (channel, "named"):
            await layer.send(name, {"type": "old"})
        await layer.flush()
        await layer.group_send("room", {"type": "news"})
        await self.nothing(layer, channel, "named")

    @layer_test
    async def test_after_a_flush_all_goes_on(self) -> None:
        layer = await self.flushing()
        [channel] = await self.members(layer, 1, "room")
        reading = asyncio.ensure_future(self.next(layer, "named"))
        await asyncio.sleep(0)
        await layer.flush()
        await layer.group_add("room", channel)
        await layer.group_send("room", {"type": "news"})
        await self.is_next(layer, channel, {"type": "news"})
        await layer.send("named", {"type": "job"})
        check(await reading == {"type": "job"}, "a reader that waits outlives a flush")

    @layer_test
    async def test_closing_leaves_no_task_no_thread_and_nothing_open(self) -> None:
        tasks, threads = asyncio.all_tasks(), set(threading.enumerate())
        layer = await self.make_layer()
        [channel] = await self.members(layer, 1, "room")
        await layer.group_send("room", {"type": "news"})
        await layer.send("named", {"type": "job"})
        await self.is_next(layer, channel, {"type": "news"})
        await self.is_next(layer, "named", {"type": "job"})
        await layer.close()
        left = asyncio.all_tasks() - tasks
        check(not left, f"close() ends the tasks of the layer, not: {left}")
        started = set(threading.enumerate()) - threads
        for thread in started:
            thread.join(1)  # it may be on its way out
        left_over = [thread for thread in started if thread.is_alive()]
        check(not left_over, f"close() ends the threads of the layer, not: {left_over}")
        del layer
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always", ResourceWarning)
            gc.collect()
        check(not told, f"close() closes what it has opened, not: {[str(w.message) for w in told]}")

    @layer_test
    async def test_closing_once_more_is_no_error(self) -> None:
        layer = await self.layer()
        await layer.close()  # before it was used
        layer = await self.layer()
        await layer.send("named", {"type": "x"})
        await layer.close()
        await layer.close()
