"""Threads and loops: sends from synchronous code, and a layer on several event loops."""

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ...exceptions import ChannelFull
from ...layers.base import BaseChannelLayer
from ._suite import LayerSuite, check, layer_test, numbers_of, refused, same

__all__ = ["Threads"]

_DESCRIPTORS = Path("/proc/self/fd")


def _open_descriptors() -> int:
    return len(os.listdir(_DESCRIPTORS)) if _DESCRIPTORS.is_dir() else 0


class Threads(LayerSuite):
    """Synchronous callers, and several loops."""

    async def in_thread(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """Make the call on a thread that has no event loop."""
        with ThreadPoolExecutor(1) as executor:
            work = asyncio.get_running_loop().run_in_executor(executor, call, *arguments)
            async with asyncio.timeout(self.patience_s * 2):  # it has some patience of its own
                return await work

    # From synchronous code

    @layer_test
    async def test_synchronous_code_sends_to_channels_and_groups_in_order(self) -> None:
        self.needs("sync_sends")
        layer = await self.layer()
        [channel] = await self.members(layer, 1, "room")

        def talk() -> None:
            for number in range(10):
                layer.send_sync(channel, {"type": "direct", "number": number})
                layer.group_send_sync("room", {"type": "group", "number": number})
                layer.send_sync("named", {"type": "direct", "number": number})

        await self.in_thread(talk)
        heard = [await self.next(layer, channel) for _ in range(20)]
        for kind in ("direct", "group"):
            same(numbers_of(heard, kind), range(10), "a member")
        same(await self.numbers(layer, "named", 10), range(10), "a named channel")
        await self.nothing(layer, channel, "named")

    @layer_test
    async def test_threads_that_send_at_once_are_each_heard_in_order(self) -> None:
        self.needs("sync_sends")
        layer = await self.layer()
        [channel] = await self.members(layer, 1, "room")

        def talk(sender: int) -> None:
            for number in range(20):
                layer.group_send_sync("room", {"type": "t", "sender": sender, "number": number})

        await asyncio.gather(*(self.in_thread(talk, sender) for sender in range(4)))
        heard = [await self.next(layer, channel) for _ in range(80)]
        for sender in range(4):
            numbers = [message["number"] for message in heard if message["sender"] == sender]
            same(numbers, range(20), f"who listens to thread {sender}")

    @layer_test
    async def test_synchronous_code_is_told_what_a_coroutine_would_be_told(self) -> None:
        self.needs("sync_sends")
        layer = await self.layer(capacity=1)
        [channel] = await self.members(layer, 1, "room")

        def err() -> None:
            for send, name in ((layer.send_sync, channel), (layer.group_send_sync, "room")):
                with refused(TypeError, f"a name that is none, in {send.__name__}"):
                    send("a b", {"type": "x"})
                with refused(Exception, f"a str as a message, in {send.__name__}"):
                    send(name, "text")  # type: ignore[arg-type]
            for name in (channel, "named"):
                layer.send_sync(name, {"type": "x"})
                with refused(ChannelFull, f"one more than the capacity of {name}"):
                    layer.send_sync(name, {"type": "x"})
            layer.group_send_sync("room", {"type": "x"})  # raises for no member

        await self.in_thread(err)

    @layer_test
    async def test_on_the_thread_of_a_loop_a_synchronous_send_says_what_to_do(self) -> None:
        self.needs("sync_sends")
        layer = await self.layer()
        for send, name, instead in (
            (layer.send_sync, "named", "await send"),
            (layer.group_send_sync, "room", "await group_send"),
        ):
            try:
                send(name, {"type": "x"})
            except RuntimeError as error:
                check(instead in str(error), f"the error says '{instead}()', not {error}")
            else:
                raise AssertionError(f"{send.__name__} on the thread of a loop: no RuntimeError")
        await self.nothing(layer, "named")

    @layer_test
    async def test_many_synchronous_sends_leave_nothing_behind(self) -> None:
        self.needs("sync_sends")
        layer = await self.layer(capacity=1000)

        def talk() -> None:
            for _ in range(150):
                layer.group_send_sync("room", {"type": "x"})
                layer.send_sync("named", {"type": "x"})

        await self.in_thread(talk)
        threads, descriptors = threading.active_count(), _open_descriptors()
        await self.in_thread(talk)
        # One of each may just be on its way out.
        check(threading.active_count() <= threads + 1, "a send leaves no thread behind")
        check(_open_descriptors() <= descriptors + 3, "a send leaves no connection open")

    @layer_test
    async def test_a_prepared_message_is_a_copy_and_is_checked(self) -> None:
        self.needs("sync_sends")
        layer = await self.layer()
        message = {"type": "x", "items": [1]}
        prepared = layer.prepared(message)
        message["items"].append(2)  # type: ignore[attr-defined]
        check(prepared == {"type": "x", "items": [1]}, f"it is as it was: {prepared}")
        with refused(TypeError, "a str as a message"):
            layer.prepared("text")  # type: ignore[arg-type]

    # On several loops

    def test_a_layer_works_on_one_loop_after_another(self) -> None:
        self.needs("several_loops")
        self.made = []

        async def begin() -> BaseChannelLayer:
            return await self.make_layer()

        layer = asyncio.run(begin())
        for number in range(3):
            asyncio.run(self._use(layer, f"room.{number}"))
        asyncio.run(layer.close())

    @layer_test
    async def test_a_layer_works_on_several_loops_at_once(self) -> None:
        self.needs("several_loops")
        layer = await self.layer()
        [channel] = await self.members(layer, 1, "room")

        async def talk(sender: int) -> None:
            for number in range(20):
                await layer.group_send("room", {"type": "t", "sender": sender, "number": number})
            await self._use(layer, f"own.{sender}")

        def run(work: Callable[[int], Awaitable[None]], sender: int) -> None:
            async def on_a_loop() -> None:
                await work(sender)

            asyncio.run(on_a_loop())

        await asyncio.gather(*(self.in_thread(run, talk, sender) for sender in range(3)))
        heard = [await self.next(layer, channel) for _ in range(60)]
        for sender in range(3):
            numbers = [message["number"] for message in heard if message["sender"] == sender]
            same(numbers, range(20), f"who listens to a sender on loop {sender}")
        await self.nothing(layer, channel)

    async def _use(self, layer: BaseChannelLayer, group: str) -> None:
        [channel] = await self.members(layer, 1, group)
        reading = asyncio.ensure_future(self.next(layer, channel))
        await asyncio.sleep(0)
        for number in range(5):
            await layer.group_send(group, {"type": "count", "number": number})
            await layer.send(f"named.{group}", {"type": "count", "number": number})
        heard = [(await reading)["number"], *await self.numbers(layer, channel, 4)]
        same(heard, range(5), "who is on the loop of the sender")
        heard = await self.numbers(layer, f"named.{group}", 5)
        same(heard, range(5), "who is on the loop of the sender")
        await layer.group_discard(group, channel)
