"""Groups: who hears, in which order, and who hears no more."""

import asyncio
import time

from ...layers.base import BaseChannelLayer
from ._suite import LayerSuite, check, layer_test, same

__all__ = ["Groups"]


class Groups(LayerSuite):
    """Groups of channels."""

    @layer_test
    async def test_a_group_reaches_its_members_and_nobody_else(self) -> None:
        layer = await self.layer()
        members = await self.members(layer, 3, "room")
        [stranger] = await self.members(layer, 1, "another")
        await layer.group_send("room", {"type": "news"})
        for member in members:
            await self.is_next(layer, member, {"type": "news"})
        await self.nothing(layer, stranger, *members)

    @layer_test
    async def test_a_named_channel_may_be_a_member(self) -> None:
        layer = await self.layer()
        [member] = await self.members(layer, 1, "room")
        await layer.group_add("room", "work")
        await layer.group_send("room", {"type": "news"})
        for channel in (member, "work"):
            await self.is_next(layer, channel, {"type": "news"})
        await layer.group_discard("room", "work")
        await layer.group_send("room", {"type": "more"})
        await self.is_next(layer, member, {"type": "more"})
        await self.nothing(layer, "work")

    @layer_test
    async def test_who_joins_twice_hears_once_and_leaves_once(self) -> None:
        layer = await self.layer()
        for channel in (await layer.new_channel(), "named"):
            await layer.group_add("room", channel)
            await layer.group_add("room", channel)
            await layer.group_send("room", {"type": "news"})
            await self.is_next(layer, channel, {"type": "news"})
            await self.nothing(layer, channel)
            await layer.group_discard("room", channel)
            await layer.group_send("room", {"type": "news"})
            await self.nothing(layer, channel)

    @layer_test
    async def test_who_comes_again_hears_again(self) -> None:
        layer = await self.layer()
        [channel] = await self.members(layer, 1, "room")
        for number in range(3):
            await layer.group_discard("room", channel)
            await layer.group_send("room", {"type": "count", "number": -1})
            await layer.group_add("room", channel)
            await layer.group_send("room", {"type": "count", "number": number})
        same(await self.numbers(layer, channel, 3), range(3), "a member, for as long as it is one,")
        await self.nothing(layer, channel)

    @layer_test
    async def test_nobody_to_leave_and_nobody_to_hear_is_no_error(self) -> None:
        layer = await self.layer()
        channel = await layer.new_channel()
        await layer.group_discard("room", channel)
        await layer.group_send("room", {"type": "news"})
        await layer.group_add("other", channel)
        await layer.group_discard("room", channel)
        await layer.group_send("other", {"type": "news"})
        await self.is_next(layer, channel, {"type": "news"})

    @layer_test
    async def test_a_channel_may_be_in_many_groups(self) -> None:
        layer = await self.layer()
        [channel] = await self.members(layer, 1, *(f"room.{number}" for number in range(5)))
        await layer.group_discard("room.2", channel)
        for number in range(5):
            await layer.group_send(f"room.{number}", {"type": "news", "number": number})
        same(await self.numbers(layer, channel, 4), [0, 1, 3, 4], "a member of four groups")
        await self.nothing(layer, channel)

    @layer_test
    async def test_a_sender_is_heard_in_order_by_every_member(self) -> None:
        layer = await self.layer()
        members = await self.members(layer, 5, "room")
        for number in range(30):
            await layer.group_send("room", {"type": "count", "number": number})
        for member in members:
            same(await self.numbers(layer, member, 30), range(30), "every member")
        await self.nothing(layer, *members)

    @layer_test
    async def test_many_who_send_join_and_leave_at_once_are_kept_apart(self) -> None:
        layer = await self.layer()
        members = await self.members(layer, 5, "room")
        guests = await self.members(layer, 5)

        async def talk(sender: int) -> None:
            for number in range(20):
                await layer.group_send("room", {"type": "t", "sender": sender, "number": number})
                await asyncio.sleep(0)

        async def come_and_go(guest: str) -> None:
            for _ in range(10):
                await layer.group_add("room", guest)
                await asyncio.sleep(0)
                await layer.group_discard("room", guest)

        await asyncio.gather(*map(talk, range(4)), *map(come_and_go, guests))
        for member in members:
            heard = [await self.next(layer, member) for _ in range(80)]
            for sender in range(4):
                numbers = [message["number"] for message in heard if message["sender"] == sender]
                same(numbers, range(20), f"who listens to sender {sender}")
        await self.nothing(layer, *members)

    @layer_test
    async def test_a_member_that_leaves_during_sends_disturbs_nobody(self) -> None:
        layer = await self.layer()
        members = await self.members(layer, 20, "room")

        async def talk() -> None:
            for number in range(20):
                await layer.group_send("room", {"type": "count", "number": number})
                await asyncio.sleep(0)

        async def leave() -> None:
            for member in members[10:]:
                await layer.group_discard("room", member)
                await asyncio.sleep(0)

        await asyncio.gather(talk(), leave())
        for member in members[:10]:
            same(await self.numbers(layer, member, 20), range(20), "who stays")

    @layer_test
    async def test_a_full_member_does_not_keep_a_group_from_its_message(self) -> None:
        layer = await self.layer(capacity=2)
        full, free = await self.members(layer, 2, "room")
        for _ in range(2):
            await layer.send(full, {"type": "fill"})
        await layer.group_send("room", {"type": "news"})
        await self.is_next(layer, free, {"type": "news"})
        for _ in range(2):
            await self.is_next(layer, full, {"type": "fill"})
        await self.nothing(layer, full)

    @layer_test
    async def test_a_group_may_be_big(self) -> None:
        layer = await self.layer()
        members = await self.members(layer, self.many_members, "crowd")
        await layer.group_send("crowd", {"type": "news"})
        await self._all_hear(layer, members)
        for member in members:
            await layer.group_discard("crowd", member)
        await layer.group_send("crowd", {"type": "news"})
        await self.nothing(layer, members[0], members[-1])

    async def _all_hear(self, layer: BaseChannelLayer, members: list[str]) -> None:
        heard = 0
        try:
            async with asyncio.timeout(self.patience_s + 0.001 * len(members)):
                for member in members:
                    heard += await layer.receive(member) == {"type": "news"}
        except TimeoutError:
            pass
        check(heard == len(members), f"all {len(members)} members hear, not {heard}")

    @layer_test
    async def test_memberships_expire(self) -> None:
        # A machine may be too busy for the shortest: then for one that is longer.
        for expiry_s in (self.shortest_expiry_s * times for times in (1, 10)):
            layer = await self.layer(group_expiry=expiry_s)
            group, named = f"room.{expiry_s:g}", f"named.{expiry_s:g}"
            channels = (await layer.new_channel(), named)
            began = time.monotonic()
            for channel in channels:
                await layer.group_add(group, channel)
            await layer.group_send(group, {"type": "in.time"})
            if time.monotonic() - began < expiry_s / 2:
                break
        for channel in channels:
            await self.is_next(layer, channel, {"type": "in.time"})
        await asyncio.sleep(expiry_s * 2.5)
        await layer.group_send(group, {"type": "too.late"})
        await self.nothing(layer, *channels)
