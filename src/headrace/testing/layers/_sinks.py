"""Sinks: what a layer promises that pushes."""

from collections.abc import Callable

from ...exceptions import ChannelFull
from ...layers.base import BaseChannelLayer, Event, Overflow
from ._suite import LayerSuite, check, layer_test, numbers_of, refused, same
from .sink import RecordingSink

__all__ = ["Sinks"]


class _Leaving(RecordingSink):
    """A sink whose consumer ends, and ends others, when it hears something."""

    def __init__(self, leave: Callable[[], None]) -> None:
        super().__init__()
        self._leave = leave

    def put(self, event: Event, /) -> bool | Overflow:
        self._leave()
        return super().put(event)


class _Broken(RecordingSink):
    """A sink that breaks its promise."""

    def put(self, event: Event, /) -> bool | Overflow:
        raise ZeroDivisionError(f"a broken sink, with {event!r:.80}")


class Sinks(LayerSuite):
    """Push delivery."""

    async def sink(
        self, layer: BaseChannelLayer, *groups: str, sink: RecordingSink | None = None
    ) -> tuple[str, RecordingSink]:
        """Attach a sink to a new channel, which is in the groups."""
        channel, sink = await layer.new_channel(), sink or RecordingSink()
        layer.attach(channel, sink)
        for group in groups:
            await layer.group_add(group, channel)
        return channel, sink

    async def heard(self, sink: RecordingSink, count: int) -> list[Event]:
        """Return the sink's events once there are so many."""
        try:
            await sink.until(lambda: len(sink.events) >= count, patience_s=self.patience_s)
        except TimeoutError:
            raise AssertionError(f"a sink has got {len(sink.events)} of {count} events") from None
        return sink.events

    @layer_test
    async def test_a_sink_is_pushed_to_in_order(self) -> None:
        layer = await self.pushing()
        channel, sink = await self.sink(layer, "room")
        for number in range(10):
            await layer.group_send("room", {"type": "group", "number": number})
            await layer.send(channel, {"type": "direct", "number": number})
        heard = await self.heard(sink, 20)
        # What is sent to a group and what is sent to a channel may take different ways.
        for kind in ("group", "direct"):
            same(numbers_of(heard, kind), range(10), "a sink")

    @layer_test
    async def test_an_event_for_clients_is_one_event_with_one_set_of_frames(self) -> None:
        layer = await self.pushing()
        sinks = [(await self.sink(layer, "room"))[1] for _ in range(3)]
        event = {"type": "websocket.send", "text": "hello"}
        await layer.group_send("room", event)
        for sink in sinks:
            await sink.until(lambda sink=sink: bool(sink.transmitted))  # type: ignore[misc]
            check(not sink.events, "an event for a client goes by transmit(), not by put()")
        check([sink.transmitted[0][0] for sink in sinks] == [event] * 3, "it is the event")
        check(
            len({id(sink.transmitted[0][1]) for sink in sinks}) == 1,
            "the members of a group share the frames of an event",
        )

    @layer_test
    async def test_what_cannot_be_sent_to_a_client_is_told_to_the_sender(self) -> None:
        layer = await self.pushing()
        channel, sink = await self.sink(layer, "room")
        for wrong in (
            {"type": "websocket.send"},
            {"type": "websocket.send", "text": "x", "bytes": b"x"},
            {"type": "websocket.send", "text": 3},
            {"type": "websocket.send", "text": "\ud800"},
            {"type": "websocket.close", "code": 1005},
            {"type": "websocket.close", "reason": "x" * 124},
        ):
            for send, name in ((layer.send, channel), (layer.group_send, "room")):
                with refused((ValueError, TypeError), repr(wrong)):
                    await send(name, wrong)
        check(not sink.transmitted, "what is refused goes nowhere")

    @layer_test
    async def test_a_sink_without_room_is_a_full_channel(self) -> None:
        layer = await self.pushing()
        _, full = await self.sink(layer, "room", sink=RecordingSink(room=1))
        _, free = await self.sink(layer, "room")
        for number in range(3):
            await layer.group_send("room", {"type": "news", "number": number})
        same(numbers_of(await self.heard(free, 3)), range(3), "who has room")
        same(numbers_of(full.events), [0], "who has room for one")

    @layer_test
    async def test_the_sender_is_told_of_what_is_dropped_on_arrival_and_of_nothing_else(
        self,
    ) -> None:
        layer = await self.pushing()
        for overflow in Overflow:
            channel, sink = await self.sink(layer, sink=RecordingSink(1, overflow))
            await layer.send(channel, {"type": "first"})
            await self.heard(sink, 1)
            if overflow is Overflow.DROP_NEWEST:
                with refused(ChannelFull, f"a full channel whose consumer has {overflow}"):
                    await layer.send(channel, {"type": "second"})
                check([event["type"] for event in sink.events] == ["first"], "the newest is lost")
            else:
                await layer.send(channel, {"type": "second"})
                await sink.until(lambda sink=sink: sink.events[-1]["type"] == "second")  # type: ignore[misc]
            check(sink.closed is (overflow is Overflow.CLOSE), f"{overflow} is what happens")

    @layer_test
    async def test_a_full_member_is_counted_whatever_its_policy_and_raises_nothing(self) -> None:
        layer = await self.pushing()
        for overflow in Overflow:
            group = f"room.{overflow}"
            _, full = await self.sink(layer, group, sink=RecordingSink(1, overflow))
            _, free = await self.sink(layer, group)
            before = layer.overflows
            for _ in range(2):
                await layer.group_send(group, {"type": "news"})
            await self.heard(free, 2)
            check(full.closed is (overflow is Overflow.CLOSE), f"{overflow} is what happens")
            for policy, count in layer.overflows.items():
                expected = int(policy is overflow)
                check(
                    count - before[policy] == expected,
                    f"overflows[{policy}] grows by {expected} where one event met {overflow}",
                )

    @layer_test
    async def test_a_broken_member_keeps_nobody_from_hearing(self) -> None:
        layer = await self.pushing()
        _, before = await self.sink(layer, "room")
        await self.sink(layer, "room", sink=_Broken())
        _, behind = await self.sink(layer, "room")
        await layer.group_send("room", {"type": "news"})
        for sink in (before, behind):
            await self.heard(sink, 1)

    @layer_test
    async def test_members_that_end_during_a_send_disturb_nobody(self) -> None:
        layer = await self.pushing()
        channels: list[str] = []

        def leave() -> None:
            for channel in channels:
                layer.detach(channel)

        _, before = await self.sink(layer, "room")
        channels.append((await self.sink(layer, "room", sink=_Leaving(leave)))[0])
        channels.append((await self.sink(layer, "room"))[0])
        _, behind = await self.sink(layer, "room")
        for number in range(2):
            await layer.group_send("room", {"type": "news", "number": number})
        for sink in (before, behind):
            same(numbers_of(await self.heard(sink, 2)), [0, 1], "who stays")

    @layer_test
    async def test_what_waited_is_pushed_first(self) -> None:
        layer = await self.pushing()
        channel, sink = await layer.new_channel(), RecordingSink()
        await layer.group_add("room", channel)
        await layer.send(channel, {"type": "count", "number": 1})
        await layer.group_send("room", {"type": "count", "number": 2})
        layer.attach(channel, sink)
        await layer.group_send("room", {"type": "count", "number": 3})
        same(numbers_of(await self.heard(sink, 3)), [1, 2, 3], "a sink")

    @layer_test
    async def test_membership_leaves_with_its_channel(self) -> None:
        layer = await self.pushing()
        left, gone = await self.sink(layer, "room", "other")
        _, stays = await self.sink(layer, "room", "other")
        layer.detach(left)
        layer.detach(left)  # once more is nothing
        for group in ("room", "other"):
            await layer.group_send(group, {"type": "news"})
        await self.heard(stays, 2)
        check(not gone.events, "a channel that was detached is in no group")

    @layer_test
    async def test_who_has_just_left_hears_no_more(self) -> None:
        layer = await self.pushing()
        channel, sink = await self.sink(layer, "room")
        _, stays = await self.sink(layer, "room")
        await layer.group_send("room", {"type": "count", "number": 1})
        await layer.group_discard("room", channel)
        await layer.group_send("room", {"type": "count", "number": 2})
        await self.heard(stays, 2)
        same(numbers_of(sink.events), [1], "a member, for as long as it is one,")
