"""Two processes: everything that is promised in one, across."""

import asyncio
import time
from typing import Any

from ...layers.base import BaseChannelLayer, Event
from ._messages import KINDS, alike
from ._suite import LayerSuite, check, layer_test, numbers_of, same
from .peer import OtherLayer

__all__ = ["Processes"]


class Processes(LayerSuite):
    """The layer in this process (here) and in another (there)."""

    async def both(self, **options: Any) -> tuple[BaseChannelLayer, OtherLayer]:
        """Return a layer here and there."""
        there = await self.other(**options)
        return await self.layer(**options), there

    async def member_there(self, there: OtherLayer, *groups: str) -> str:
        """Return a channel of the other process that is in the groups."""
        channel: str = await there.call("new_channel")
        for group in groups:
            await there.call("group_add", group, channel)
        return channel

    async def receive_there(self, there: OtherLayer, channel: str, count: int) -> list[Event]:
        """Return the channel's next messages, which must come, there."""
        heard: list[Event] = []
        try:
            for _ in range(count):
                heard.append(await there.call("receive", channel))  # noqa: PERF401 - some may come
        except TimeoutError:
            raise AssertionError(
                f"{len(heard)} messages came to channel {channel} of the other process, and no "
                f"more within {self.patience_s:g} s, where {count} had to: {heard!r:.500}"
            ) from None
        return heard

    async def numbers_there(self, there: OtherLayer, channel: str, count: int) -> list[Any]:
        """Return the numbers that they carry."""
        return numbers_of(await self.receive_there(there, channel, count))

    async def nothing_there(self, there: OtherLayer, channel: str) -> None:
        """Check that nothing waits in a channel of the other process."""
        await there.call("send", channel, {"type": "marker", "number": "marker"})
        same(await self.numbers_there(there, channel, 1), ["marker"], f"channel {channel}")

    # Two layers in this process

    @layer_test
    async def test_two_layers_of_one_process_reach_each_other(self) -> None:
        self.needs("shared")
        here, there = await self.layer(), await self.layer()
        mine, yours = await here.new_channel(), await there.new_channel()
        await here.group_add("room", mine)
        await here.group_add("room", yours)  # whoever knows a channel may add it
        await there.group_send("room", {"type": "news"})
        await self.is_next(here, mine, {"type": "news"})
        await self.is_next(there, yours, {"type": "news"})
        await here.send(yours, {"type": "direct"})
        await self.is_next(there, yours, {"type": "direct"})
        await there.group_discard("room", mine)
        await here.group_send("room", {"type": "more"})
        await self.is_next(there, yours, {"type": "more"})
        await self.nothing(here, mine)

    # Channels

    @layer_test
    async def test_two_processes_give_no_channel_twice(self) -> None:
        here, there = await self.both()
        names = [await here.new_channel() for _ in range(20)]
        names += [await there.call("new_channel") for _ in range(20)]
        check(len(set(names)) == 40, "a channel is one process's own")

    @layer_test
    async def test_a_channel_of_another_process_gets_what_is_sent_to_it_in_order(self) -> None:
        here, there = await self.both()
        mine, yours = await here.new_channel(), await self.member_there(there)
        for number in range(50):
            await here.send(yours, {"type": "count", "number": number})
        same(await self.numbers_there(there, yours, 50), range(50), "who reads there")
        await there.send_many("send", mine, "count", 50)
        same(await self.numbers(here, mine, 50), range(50), "who reads here")
        await self.nothing(here, mine)
        await self.nothing_there(there, yours)

    @layer_test
    async def test_readers_in_two_processes_share_a_named_channel(self) -> None:
        self.needs("several_readers")
        here, there = await self.both()
        # What nobody reads yet waits.
        for number in range(20):
            await here.send("work", {"type": "job", "number": number})
        jobs: list[Any] = []
        for _ in range(10):
            jobs += await self.numbers(here, "work", 1)
            jobs += await self.numbers_there(there, "work", 1)
        same(sorted(jobs), range(20), "the readers together")
        # Who waits gets what comes.
        reading = there.start("receive", "work")
        await here.send("work", {"type": "job", "number": 20})
        async with asyncio.timeout(self.patience_s):
            check((await reading)["number"] == 20, "a reader that waits there gets it")
        await self.nothing(here, "work")

    # Groups

    @layer_test
    async def test_a_group_has_members_in_both_processes_each_of_whom_hears_in_order(self) -> None:
        here, there = await self.both()
        mine = await self.members(here, 2, "room")
        yours = [await self.member_there(there, "room") for _ in range(2)]
        for number in range(30):
            await here.group_send("room", {"type": "here", "number": number})
        # A sender is heard in order; what two of them send may come mixed.
        await there.send_many("group_send", "room", "there", 30)
        for member in mine:
            self._in_order([await self.next(here, member) for _ in range(60)])
            await self.nothing(here, member)
        for member in yours:
            self._in_order(await self.receive_there(there, member, 60))
            await self.nothing_there(there, member)

    def _in_order(
        self, heard: list[Event], count: int = 30, senders: tuple[str, ...] = ("here", "there")
    ) -> None:
        for sender in senders:
            same(numbers_of(heard, sender), range(count), f"who listens to the sender {sender}")

    @layer_test
    async def test_processes_that_send_at_once_are_each_heard_in_order(self) -> None:
        here, there = await self.both()
        [mine] = await self.members(here, 1, "room")
        yours = await self.member_there(there, "room")
        sending = asyncio.ensure_future(there.send_many("group_send", "room", "there", 30))
        for number in range(30):
            await here.group_send("room", {"type": "here", "number": number})
        await sending
        self._in_order([await self.next(here, mine) for _ in range(60)])
        self._in_order(await self.receive_there(there, yours, 60))

    @layer_test
    async def test_any_process_may_add_and_discard_any_channel(self) -> None:
        here, there = await self.both()
        mine, yours = await here.new_channel(), await self.member_there(there)
        await here.group_add("room", yours)
        await there.call("group_add", "room", mine)
        await here.group_send("room", {"type": "count", "number": 1})
        same(await self.numbers(here, mine, 1), [1], "who was added by another process")
        same(await self.numbers_there(there, yours, 1), [1], "who was added by another process")
        await here.group_discard("room", yours)
        await there.call("group_discard", "room", mine)
        for sender in ("here", "there"):
            if sender == "here":
                await here.group_send("room", {"type": "late"})
            else:
                await there.call("group_send", "room", {"type": "late"})
            await self.nothing(here, mine)
            await self.nothing_there(there, yours)

    @layer_test
    async def test_who_has_joined_hears_what_another_process_sends_from_then_on(self) -> None:
        here, there = await self.both()
        for number in range(10):
            group = f"room.{number}"
            yours = await self.member_there(there, group)
            await here.group_send(group, {"type": "count", "number": number})
            same(await self.numbers_there(there, yours, 1), [number], "who has joined there")
            [mine] = await self.members(here, 1, group)
            await there.call("group_send", group, {"type": "count", "number": number})
            same(await self.numbers(here, mine, 1), [number], "who has joined here")

    @layer_test
    async def test_who_has_left_does_not_hear_what_another_process_sends_from_then_on(self) -> None:
        here, there = await self.both()
        yours = await self.member_there(there, "room")
        await here.group_send("room", {"type": "count", "number": 1})
        same(await self.numbers_there(there, yours, 1), [1], "a member")
        await there.call("group_discard", "room", yours)
        await here.group_send("room", {"type": "late"})
        await self.nothing_there(there, yours)

    @layer_test
    async def test_a_named_channel_that_is_a_member_gets_a_groups_message_once(self) -> None:
        here, there = await self.both()
        await here.group_add("room", "work")
        await there.call("group_add", "room", "work")
        await self.members(here, 1, "room")
        await self.member_there(there, "room")
        await there.call("group_send", "room", {"type": "count", "number": 1})
        await self.is_next(here, "work", {"type": "count", "number": 1})
        await self.nothing(here, "work")

    @layer_test
    async def test_a_group_send_tells_how_many_other_processes_it_reached_or_none(self) -> None:
        here, there = await self.both()
        await self.members(here, 1, "room")
        reached = await here.group_send("room", {"type": "x"})
        check(reached in (None, 0), f"nobody there is a member: None or 0, not {reached!r}")
        await self.member_there(there, "room")
        reached = await here.group_send("room", {"type": "x"})
        check(reached in (None, 1), f"the other process is reached: None or 1, not {reached!r}")

    # Messages

    @layer_test
    async def test_whatever_travels_arrives_in_another_process_as_it_went(self) -> None:
        here, there = await self.both()
        yours = await self.member_there(there, "room")
        wrong: list[str] = []
        for kind, values in KINDS.items():
            expect = self.arrives_as.get(kind, lambda value: value)
            if expect is None:
                continue
            await here.send(yours, {"type": "values", "values": values})
            await here.group_send("room", {"type": "values", "values": values})
            for message in await self.receive_there(there, yours, 2):
                arrived = message["values"]
                if not alike(arrived, [expect(value) for value in values]):
                    wrong.append(f"{kind} came as {arrived!r:.200}")
        check(not wrong, "; ".join(wrong) + " (what may change is in arrives_as)")

    @layer_test
    async def test_a_big_message_passes_from_process_to_process(self) -> None:
        here, there = await self.both()
        yours = await self.member_there(there, "room")
        big = {"type": "big", "text": "x" * self.big_message}
        await here.send(yours, big)
        await here.group_send("room", big)
        for message in await self.receive_there(there, yours, 2):
            check(message == big, "a big message arrives whole")

    # Push delivery, and synchronous code

    @layer_test
    async def test_consumers_of_another_process_are_pushed_to_in_order(self) -> None:
        there = await self.other()
        here = await self.pushing()
        yours = await self.member_there(there, "room")
        await there.attach(yours)
        for number in range(20):
            await here.group_send("room", {"type": "group", "number": number})
            await here.group_send("room", {"type": "websocket.send", "text": str(number)})
            await here.send(yours, {"type": "direct", "number": number})
        events, transmitted = await there.heard(yours, 40, 20)
        for kind in ("group", "direct"):
            same(numbers_of(events, kind), range(20), "a consumer there")
        texts = [event["text"] for event in transmitted]
        same(texts, list(map(str, range(20))), "a client there")

    @layer_test
    async def test_synchronous_code_reaches_another_process(self) -> None:
        self.needs("sync_sends")
        here, there = await self.both()
        [mine] = await self.members(here, 1, "room")
        yours = await self.member_there(there, "room")
        for number in range(10):
            message = {"type": "here", "number": number}
            await asyncio.to_thread(here.send_sync, yours, {**message, "type": "direct"})
            await asyncio.to_thread(here.group_send_sync, "room", message)
            await there.call_sync("group_send_sync", "room", {**message, "type": "there"})
        self._in_order([await self.next(here, mine) for _ in range(20)], 10)
        heard = await self.receive_there(there, yours, 30)
        self._in_order(heard, 10, ("direct", "here", "there"))

    # The end

    @layer_test
    async def test_a_process_that_is_killed_takes_nobody_with_it(self) -> None:
        third = await self.one_more()
        here, there = await self.both()
        [mine] = await self.members(here, 1, "room")
        yours = await self.member_there(there, "room")
        dead = await self.member_there(third, "room")
        await here.group_send("room", {"type": "count", "number": 0})
        same(await self.numbers_there(third, dead, 1), [0], "a member, for as long as it lives,")
        third.process.kill()
        began = time.monotonic()
        for number in range(1, 20):
            await here.group_send("room", {"type": "count", "number": number})
        same(await self.numbers(here, mine, 20), range(20), "a member here")
        same(await self.numbers_there(there, yours, 20), range(20), "a member there")
        took_s = time.monotonic() - began
        check(took_s < self.patience_s, f"nobody waits for the dead: {took_s:.1f} s")

    @layer_test
    async def test_a_send_to_the_dead_ends(self) -> None:
        third = await self.one_more()
        here = await self.layer()
        dead = await self.member_there(third)
        await here.send(dead, {"type": "x"})
        third.process.kill()
        for _ in range(3):
            try:
                async with asyncio.timeout(self.patience_s):
                    await here.send(dead, {"type": "x"})
            except TimeoutError:
                raise AssertionError("a send to a channel of a dead process hangs") from None
            except Exception:  # noqa: S110 - an error tells the sender; that is fine
                pass
        await self.nothing(here, "named")
