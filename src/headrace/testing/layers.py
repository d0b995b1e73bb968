"""What every channel layer promises, as tests: subclass one class, and pytest runs them all.

::

    class TestMyLayer(ChannelLayerConformance):
        async def make_layer(self, **options):
            return MyChannelLayer(**options)

Rules of this file:

- Each test is an ordinary function that runs a loop of its own, so that no plugin is needed.
- A test waits for events. It lets time pass only where expiry is what it is about.
- What a layer need not do is an attribute of the class, with the strictest default.
"""

import asyncio
import contextlib
import datetime
import re
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Concatenate, ParamSpec

from ..exceptions import ChannelFull
from ..layers.base import BaseChannelLayer, Bounds, Event, Frames, Overflow

__all__ = ["ChannelLayerConformance", "RecordingSink"]

P = ParamSpec("P")


class RecordingSink:
    """A sink that keeps what it is given.

    Args:
        room: How many events it takes.
        overflow: What it does about one more, as a consumer with that policy.
        consumer: The consumer whose sink it is, for the log.
    """

    def __init__(
        self,
        room: int = 1_000_000,
        overflow: Overflow = Overflow.DROP_NEWEST,
        consumer: str | None = None,
    ) -> None:
        self.room = room
        self.bounds = Bounds(room, overflow, consumer)
        self.closed = False
        self.events: list[Event] = []
        #: The client-bound events, each with the frames that it was transmitted with.
        self.transmitted: list[tuple[Event, Frames]] = []
        self._news = asyncio.Event()

    def put(self, event: Event, /) -> bool | Overflow:
        """Keep the event, if there is room; do as the policy says if not."""
        if self.closed:
            return True
        outcome: bool | Overflow = True
        if len(self.events) >= self.room:
            match self.bounds.overflow:
                case Overflow.DROP_NEWEST:
                    return False
                case Overflow.DROP_OLDEST:
                    del self.events[:1]
                case Overflow.CLOSE:
                    self.closed = True
            outcome = self.bounds.overflow
        self.events.append(event)
        self._news.set()
        return outcome

    def transmit(self, event: Event, frames: Frames, /) -> bool:
        """Keep the event and its frames, if there is room."""
        if len(self.transmitted) >= self.room:
            return False
        self.transmitted.append((event, frames))
        self._news.set()
        return True

    async def until(self, condition: Callable[[], bool], *, patience_s: float = 5.0) -> None:
        """Wait until the condition holds; it is tried after each event."""
        async with asyncio.timeout(patience_s):
            while not condition():
                self._news.clear()
                await self._news.wait()


@contextlib.contextmanager
def _refused(error: type[Exception], what: str) -> Iterator[None]:
    """Check that the block raises this error."""
    try:
        yield
    except error:
        return
    raise AssertionError(f"{what}: no {error.__name__}")


def _test(
    body: Callable[Concatenate[Any, P], Awaitable[None]],
) -> Callable[Concatenate[Any, P], None]:
    """Run the test on a loop of its own, and close the layers that it made."""

    def test(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> None:
        async def run() -> None:
            self.made = []
            try:
                await body(self, *args, **kwargs)
            finally:
                for layer in self.made:
                    await layer.close()

        asyncio.run(run())

    test.__name__ = test.__qualname__ = body.__name__
    test.__doc__ = body.__doc__
    return test


class ChannelLayerConformance:
    """The suite. A subclass implements ``make_layer``, and says where its layer promises less."""

    #: How long a test waits for what must come.
    patience_s: float = 5.0
    #: Seconds of the shortest ``expiry`` and ``group_expiry`` that the layer takes.
    shortest_expiry_s: float = 0.05
    #: Whether two layers of one configuration reach each other, as two processes would.
    shared = False
    #: Whether messages may hold datetimes.
    carries_datetimes = True
    #: Whether a named channel can have several readers at a time.
    several_readers = True
    #: Whether what a reader does to a message is not seen by others.
    isolates_messages = True
    #: The size of the big group.
    many_members = 10_000

    made: list[BaseChannelLayer]

    async def make_layer(self, **options: Any) -> BaseChannelLayer:
        """Return a layer with these options: expiry, group_expiry, capacity, channel_capacity."""
        raise NotImplementedError

    async def layer(self, **options: Any) -> BaseChannelLayer:
        """Return a layer that is closed after the test."""
        layer = await self.make_layer(**options)
        self.made.append(layer)
        return layer

    async def next(self, layer: BaseChannelLayer, channel: str) -> Event:
        """Return the channel's next message, which must come."""
        async with asyncio.timeout(self.patience_s):
            return await layer.receive(channel)

    async def nothing(self, layer: BaseChannelLayer, *channels: str) -> None:
        """Check that nothing waits in the channels: what is sent now comes first."""
        for channel in channels:
            await layer.send(channel, {"type": "marker"})
            assert (await self.next(layer, channel))["type"] == "marker"

    # One channel

    @_test
    async def test_messages_come_in_the_order_in_which_they_were_sent(self) -> None:
        layer = await self.layer()
        channel = await layer.new_channel()
        for number in range(50):
            await layer.send(channel, {"type": "count", "number": number})
        received = [(await self.next(layer, channel))["number"] for _ in range(50)]
        assert received == list(range(50))

    @_test
    async def test_each_of_several_senders_is_heard_in_its_order(self) -> None:
        layer = await self.layer()
        channel = await layer.new_channel()

        async def talk(sender: int) -> None:
            for number in range(20):
                await layer.send(channel, {"type": "t", "sender": sender, "number": number})

        await asyncio.gather(*(talk(sender) for sender in range(4)))
        heard: dict[int, list[int]] = {sender: [] for sender in range(4)}
        for _ in range(80):
            message = await self.next(layer, channel)
            heard[message["sender"]].append(message["number"])
        assert heard == {sender: list(range(20)) for sender in range(4)}

    @_test
    async def test_a_reader_that_waits_is_woken(self) -> None:
        layer = await self.layer()
        channel = await layer.new_channel()
        reading = asyncio.ensure_future(self.next(layer, channel))
        await asyncio.sleep(0)
        await layer.send(channel, {"type": "late"})
        assert await reading == {"type": "late"}

    @_test
    async def test_channels_do_not_hear_each_other(self) -> None:
        layer = await self.layer()
        first, second = await layer.new_channel(), await layer.new_channel()
        await layer.send(second, {"type": "for.second"})
        await layer.send(first, {"type": "for.first"})
        assert await self.next(layer, first) == {"type": "for.first"}
        assert await self.next(layer, second) == {"type": "for.second"}
        await self.nothing(layer, first, second)

    @_test
    async def test_new_channels_are_local_legal_and_different(self) -> None:
        layer = await self.layer()
        names = [await layer.new_channel() for _ in range(100)]
        assert len(set(names)) == 100
        for name in names:
            assert BaseChannelLayer().require_valid_channel_name(name)
            assert "!" in name
        assert (await layer.new_channel("mine")).startswith("mine")

    @_test
    async def test_a_named_channel_works_like_a_new_one(self) -> None:
        layer = await self.layer()
        await layer.send("work.named-1_x", {"type": "job"})
        assert await self.next(layer, "work.named-1_x") == {"type": "job"}

    @_test
    async def test_readers_of_one_channel_share_its_messages(self) -> None:
        if not self.several_readers:
            return
        layer = await self.layer()

        async def read() -> list[int]:
            return [(await self.next(layer, "work"))["number"] for _ in range(10)]

        readers = [asyncio.ensure_future(read()) for _ in range(4)]
        await asyncio.sleep(0)
        for number in range(40):
            await layer.send("work", {"type": "job", "number": number})
            await asyncio.sleep(0)
        jobs = await asyncio.gather(*readers)
        assert sorted(job for done in jobs for job in done) == list(range(40))

    @_test
    async def test_a_cancelled_reader_takes_no_message_with_it(self) -> None:
        """Wherever it waits, whenever it is cancelled: its message is read by the next."""
        layer = await self.layer()
        channel = await layer.new_channel()
        number = 0
        for steps_before in range(4):
            for steps_after in range(5):
                number += 1
                reader = asyncio.ensure_future(layer.receive(channel))
                for _ in range(steps_before):
                    await asyncio.sleep(0)
                await layer.send(channel, {"type": "count", "number": number})
                for _ in range(steps_after):
                    await asyncio.sleep(0)
                reader.cancel()
                await asyncio.wait({reader})
                message = await self.next(layer, channel) if reader.cancelled() else reader.result()
                assert message["number"] == number
        await self.nothing(layer, channel)

    @_test
    async def test_a_cancelled_reader_gives_its_turn_to_another(self) -> None:
        if not self.several_readers:
            return
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
            assert await second == {"type": "job"}

    # Capacity

    @_test
    async def test_a_full_channel_says_so_to_its_sender(self) -> None:
        layer = await self.layer(capacity=3)
        for number in range(3):
            await layer.send("full", {"type": "count", "number": number})
        with _refused(ChannelFull, "one more than the capacity"):
            await layer.send("full", {"type": "count", "number": 3})
        assert (await self.next(layer, "full"))["number"] == 0
        await layer.send("full", {"type": "count", "number": 4})
        numbers = [(await self.next(layer, "full"))["number"] for _ in range(3)]
        assert numbers == [1, 2, 4]

    @_test
    async def test_some_channels_have_capacities_of_their_own(self) -> None:
        layer = await self.layer(
            capacity=3, channel_capacity={"small": 1, "big.*": 5, re.compile(r"^re\d$"): 2}
        )
        for channel, capacity in (("small", 1), ("big.x", 5), ("re7", 2), ("other", 3)):
            assert layer.get_capacity(channel) == capacity
            for _ in range(capacity):
                await layer.send(channel, {"type": "fill"})
            with _refused(ChannelFull, f"{channel} after {capacity}"):
                await layer.send(channel, {"type": "fill"})

    @_test
    async def test_a_full_member_does_not_keep_a_group_from_its_message(self) -> None:
        layer = await self.layer(capacity=2)
        full, free = await layer.new_channel(), await layer.new_channel()
        for channel in (full, free):
            await layer.group_add("room", channel)
        for _ in range(2):
            await layer.send(full, {"type": "fill"})
        await layer.group_send("room", {"type": "news"})
        assert await self.next(layer, free) == {"type": "news"}
        assert [(await self.next(layer, full))["type"] for _ in range(2)] == ["fill", "fill"]
        await self.nothing(layer, full)

    # Expiry

    @_test
    async def test_messages_that_nobody_fetches_expire(self) -> None:
        layer = await self.layer(expiry=self.shortest_expiry_s)
        channel = await layer.new_channel()
        await layer.send(channel, {"type": "old"})
        await asyncio.sleep(self.shortest_expiry_s * 1.5)
        await self.nothing(layer, channel)

    @_test
    async def test_what_has_expired_leaves_room(self) -> None:
        layer = await self.layer(expiry=self.shortest_expiry_s, capacity=1)
        channel = await layer.new_channel()
        await layer.send(channel, {"type": "old"})
        await asyncio.sleep(self.shortest_expiry_s * 1.5)
        await layer.send(channel, {"type": "new"})
        assert await self.next(layer, channel) == {"type": "new"}

    @_test
    async def test_memberships_expire(self) -> None:
        layer = await self.layer(group_expiry=self.shortest_expiry_s)
        channel = await layer.new_channel()
        await layer.group_add("room", channel)
        await layer.group_send("room", {"type": "in.time"})
        assert await self.next(layer, channel) == {"type": "in.time"}
        await asyncio.sleep(self.shortest_expiry_s * 2.5)
        await layer.group_send("room", {"type": "too.late"})
        await self.nothing(layer, channel)

    # Groups

    @_test
    async def test_a_group_reaches_its_members_and_nobody_else(self) -> None:
        layer = await self.layer()
        members = [await layer.new_channel() for _ in range(3)]
        stranger = await layer.new_channel()
        for member in members:
            await layer.group_add("room", member)
        await layer.group_add("another", stranger)
        await layer.group_send("room", {"type": "news"})
        for member in members:
            assert await self.next(layer, member) == {"type": "news"}
        await self.nothing(layer, stranger, *members)

    @_test
    async def test_who_joins_twice_hears_once_and_leaves_once(self) -> None:
        layer = await self.layer()
        channel = await layer.new_channel()
        await layer.group_add("room", channel)
        await layer.group_add("room", channel)
        await layer.group_send("room", {"type": "news"})
        assert await self.next(layer, channel) == {"type": "news"}
        await self.nothing(layer, channel)
        await layer.group_discard("room", channel)
        await layer.group_send("room", {"type": "news"})
        await self.nothing(layer, channel)

    @_test
    async def test_nobody_to_leave_and_nobody_to_hear_is_no_error(self) -> None:
        layer = await self.layer()
        channel = await layer.new_channel()
        await layer.group_discard("room", channel)
        await layer.group_send("room", {"type": "news"})
        await layer.group_add("other", channel)
        await layer.group_discard("room", channel)
        await layer.group_send("other", {"type": "news"})
        assert await self.next(layer, channel) == {"type": "news"}

    @_test
    async def test_a_channel_may_be_in_many_groups(self) -> None:
        layer = await self.layer()
        channel = await layer.new_channel()
        for number in range(5):
            await layer.group_add(f"room.{number}", channel)
        await layer.group_discard("room.2", channel)
        for number in range(5):
            await layer.group_send(f"room.{number}", {"type": "news", "number": number})
        heard = [(await self.next(layer, channel))["number"] for _ in range(4)]
        assert heard == [0, 1, 3, 4]
        await self.nothing(layer, channel)

    @_test
    async def test_a_sender_is_heard_in_order_by_every_member(self) -> None:
        layer = await self.layer()
        members = [await layer.new_channel() for _ in range(5)]
        for member in members:
            await layer.group_add("room", member)
        for number in range(30):
            await layer.group_send("room", {"type": "count", "number": number})
        for member in members:
            heard = [(await self.next(layer, member))["number"] for _ in range(30)]
            assert heard == list(range(30))

    @_test
    async def test_a_member_that_leaves_during_sends_disturbs_nobody(self) -> None:
        layer = await self.layer()
        members = [await layer.new_channel() for _ in range(20)]
        for member in members:
            await layer.group_add("room", member)

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
            heard = [(await self.next(layer, member))["number"] for _ in range(20)]
            assert heard == list(range(20))

    @_test
    async def test_a_group_may_be_big(self) -> None:
        layer = await self.layer()
        members = [await layer.new_channel() for _ in range(self.many_members)]
        for member in members:
            await layer.group_add("crowd", member)
        await layer.group_send("crowd", {"type": "news"})
        for member in members:
            assert await layer.receive(member) == {"type": "news"}
        for member in members:
            await layer.group_discard("crowd", member)
        await layer.group_send("crowd", {"type": "news"})
        await self.nothing(layer, members[0], members[-1])

    # Messages

    @_test
    async def test_messages_arrive_as_they_went(self) -> None:
        layer = await self.layer()
        channel = await layer.new_channel()
        message: Event = {
            "type": "all.sorts",
            "texts": ["", "text", "naïve ☃ 🦦", "nul \0 and \u2028", "x" * 1000],
            "bytes": [b"", b"\x00\xff" * 500],
            "integers": [0, -1, 2**63 - 1, -(2**63), 127, 128, 255, 256, 65535, 65536],
            "floats": [0.0, -0.5, 1e300, 5e-324],
            "constants": [True, False, None],
            "nested": {"a": {"b": [{"c": [[], {}]}]}},
            "ключ": "a name",
            "": "no name",
        }
        await layer.send(channel, message)
        received = await self.next(layer, channel)
        assert received == message
        assert [type(item) for item in received["constants"]] == [bool, bool, type(None)]
        if self.carries_datetimes:
            message = {
                "type": "times",
                "utc": datetime.datetime(2026, 2, 3, 4, 5, 6, 789, tzinfo=datetime.UTC),
            }
            await layer.send(channel, message)
            assert await self.next(layer, channel) == message

    @_test
    async def test_a_megabyte_passes(self) -> None:
        layer = await self.layer()
        channel = await layer.new_channel()
        await layer.group_add("room", channel)
        big = {"type": "big", "text": "x" * 1_000_000}
        await layer.send(channel, big)
        await layer.group_send("room", big)
        assert await self.next(layer, channel) == big
        assert await self.next(layer, channel) == big

    @_test
    async def test_a_message_is_a_dictionary(self) -> None:
        layer = await self.layer()
        channel = await layer.new_channel()
        await layer.group_add("room", channel)
        for wrong in (None, "text", ["type", "x"], 3):
            for send, name in ((layer.send, channel), (layer.group_send, "room")):
                with _refused(Exception, f"{wrong!r} as a message"):
                    await send(name, wrong)  # type: ignore[arg-type]
        await self.nothing(layer, channel)

    @_test
    async def test_every_reader_has_a_message_of_its_own(self) -> None:
        if not self.isolates_messages:
            return
        layer = await self.layer()
        members = [await layer.new_channel() for _ in range(3)]
        for member in members:
            await layer.group_add("room", member)
        sent = {"type": "news", "items": [{"n": 1}]}
        await layer.group_send("room", sent)
        sent["items"][0]["n"] = 0  # type: ignore[index]
        for member in members:
            message = await self.next(layer, member)
            assert message == {"type": "news", "items": [{"n": 1}]}
            message["items"].append({"n": 2})
            message["items"][0]["n"] = 3
            del message["type"]

    # Names

    @_test
    async def test_illegal_names_are_refused_by_whoever_takes_them(self) -> None:
        layer = await self.layer()
        good = await layer.new_channel()
        wrong: list[Any] = ["", "a b", "naïve", "канал", "a/b", "a:b", "x" * 100, "a\n", None, b"a"]
        for name in wrong:
            message = {"type": "x"}
            calls: list[tuple[Callable[..., Awaitable[Any]], *tuple[Any, ...]]] = [
                (layer.send, name, message),
                (layer.receive, name),
                (layer.group_add, name, good),
                (layer.group_add, "room", name),
                (layer.group_discard, name, good),
                (layer.group_discard, "room", name),
                (layer.group_send, name, message),
            ]
            for call, *arguments in calls:
                with _refused(TypeError, f"{name!r} as a name in {call.__name__}"):
                    async with asyncio.timeout(self.patience_s):
                        await call(*arguments)
        for name in ("group!local", "a!b"):
            with _refused(TypeError, f"{name!r} as the name of a group"):
                await layer.group_send(name, {"type": "x"})

    @_test
    async def test_the_longest_and_oddest_names_are_taken(self) -> None:
        layer = await self.layer()
        for name in ("x" * 99, "A-z_0.9", "-", "...", "prefix.x!y-1"):
            await layer.send(name, {"type": "x", "to": name})
            assert await self.next(layer, name) == {"type": "x", "to": name}
        for name in ("g" * 99, "A-z_0.9", "-"):
            channel = await layer.new_channel()
            await layer.group_add(name, channel)
            await layer.group_send(name, {"type": "x", "to": name})
            assert await self.next(layer, channel) == {"type": "x", "to": name}

    # A blank state

    @_test
    async def test_flush_forgets_messages_and_groups(self) -> None:
        layer = await self.layer()
        if "flush" not in layer.extensions:
            return
        channel = await layer.new_channel()
        await layer.group_add("room", channel)
        await layer.send(channel, {"type": "old"})
        await layer.send("named", {"type": "old"})
        await layer.flush()
        await layer.group_send("room", {"type": "news"})
        await self.nothing(layer, channel, "named")
        await layer.group_add("room", channel)
        await layer.group_send("room", {"type": "news"})
        assert await self.next(layer, channel) == {"type": "news"}

    # Two processes

    @_test
    async def test_groups_and_channels_reach_across_processes(self) -> None:
        if not self.shared:
            return
        here, there = await self.layer(), await self.layer()
        mine, yours = await here.new_channel(), await there.new_channel()
        await here.group_add("room", mine)
        await here.group_add("room", yours)  # whoever knows a channel may add it
        await there.group_send("room", {"type": "news"})
        assert await self.next(here, mine) == {"type": "news"}
        assert await self.next(there, yours) == {"type": "news"}
        await here.send(yours, {"type": "direct"})
        assert await self.next(there, yours) == {"type": "direct"}
        await there.group_discard("room", mine)
        await here.group_send("room", {"type": "more"})
        assert await self.next(there, yours) == {"type": "more"}
        await self.nothing(here, mine)

    # Push delivery

    @_test
    async def test_a_sink_is_pushed_to_in_order(self) -> None:
        layer = await self.layer()
        if not getattr(layer, "pushes", False):
            return
        channel, sink = await layer.new_channel(), RecordingSink()
        layer.attach(channel, sink)
        await layer.group_add("room", channel)
        for number in range(10):
            await layer.group_send("room", {"type": "group", "number": number})
            await layer.send(channel, {"type": "direct", "number": number})
        await sink.until(lambda: len(sink.events) == 20)
        for kind in ("group", "direct"):
            heard = [event["number"] for event in sink.events if event["type"] == kind]
            assert heard == list(range(10))

    @_test
    async def test_an_event_for_clients_is_one_event_with_one_set_of_frames(self) -> None:
        layer = await self.layer()
        if not getattr(layer, "pushes", False):
            return
        sinks = [RecordingSink() for _ in range(3)]
        for sink in sinks:
            channel = await layer.new_channel()
            layer.attach(channel, sink)
            await layer.group_add("room", channel)
        event = {"type": "websocket.send", "text": "hello"}
        await layer.group_send("room", event)
        for sink in sinks:
            await sink.until(lambda sink=sink: bool(sink.transmitted))  # type: ignore[misc]
            assert not sink.events
        assert [sink.transmitted[0][0] for sink in sinks] == [event] * 3
        assert len({id(sink.transmitted[0][1]) for sink in sinks}) == 1

    @_test
    async def test_what_cannot_be_sent_to_a_client_is_told_to_the_sender(self) -> None:
        layer = await self.layer()
        if not getattr(layer, "pushes", False):
            return
        channel, sink = await layer.new_channel(), RecordingSink()
        layer.attach(channel, sink)
        await layer.group_add("room", channel)
        for wrong in (
            {"type": "websocket.send"},
            {"type": "websocket.send", "text": "x", "bytes": b"x"},
            {"type": "websocket.send", "text": 3},
            {"type": "websocket.send", "text": "\ud800"},
            {"type": "websocket.close", "code": 1005},
            {"type": "websocket.close", "reason": "x" * 124},
        ):
            for send, name in ((layer.send, channel), (layer.group_send, "room")):
                with _refused(ValueError, repr(wrong)):
                    await send(name, wrong)
        assert not sink.transmitted

    @_test
    async def test_a_sink_without_room_is_a_full_channel(self) -> None:
        layer = await self.layer()
        if not getattr(layer, "pushes", False):
            return
        full, free = RecordingSink(room=1), RecordingSink()
        channels = {}
        for sink in (full, free):
            channel = channels[sink] = await layer.new_channel()
            layer.attach(channel, sink)
            await layer.group_add("room", channel)
        for _ in range(3):
            await layer.group_send("room", {"type": "news"})
        await free.until(lambda: len(free.events) == 3)
        assert len(full.events) == 1

    @_test
    async def test_the_sender_is_told_of_what_is_dropped_on_arrival_and_of_nothing_else(
        self,
    ) -> None:
        layer = await self.layer()
        if not getattr(layer, "pushes", False):
            return
        for overflow in Overflow:
            channel, sink = await layer.new_channel(), RecordingSink(1, overflow)
            layer.attach(channel, sink)
            await layer.send(channel, {"type": "first"})
            await sink.until(lambda sink=sink: bool(sink.events))  # type: ignore[misc]
            if overflow is Overflow.DROP_NEWEST:
                with _refused(ChannelFull, f"a full channel whose consumer has {overflow}"):
                    await layer.send(channel, {"type": "second"})
                assert [event["type"] for event in sink.events] == ["first"]
            else:
                await layer.send(channel, {"type": "second"})
                await sink.until(lambda sink=sink: sink.events[-1]["type"] == "second")  # type: ignore[misc]
            assert sink.closed is (overflow is Overflow.CLOSE)

    @_test
    async def test_a_full_member_is_counted_whatever_its_policy_and_raises_nothing(self) -> None:
        layer = await self.layer()
        if not getattr(layer, "pushes", False):
            return
        for overflow in Overflow:
            full, free = RecordingSink(1, overflow), RecordingSink()
            for sink in (full, free):
                channel = await layer.new_channel()
                layer.attach(channel, sink)
                await layer.group_add(f"room.{overflow}", channel)
            before = layer.overflows
            for _ in range(2):
                await layer.group_send(f"room.{overflow}", {"type": "news"})
            await free.until(lambda free=free: len(free.events) == 2)  # type: ignore[misc]
            assert full.closed is (overflow is Overflow.CLOSE)
            for policy, count in layer.overflows.items():
                assert count - before[policy] == (policy is overflow), policy

    @_test
    async def test_what_waited_is_pushed_first(self) -> None:
        layer = await self.layer()
        if not getattr(layer, "pushes", False):
            return
        channel, sink = await layer.new_channel(), RecordingSink()
        await layer.group_add("room", channel)
        await layer.send(channel, {"type": "first"})
        await layer.group_send("room", {"type": "second"})
        layer.attach(channel, sink)
        await layer.group_send("room", {"type": "third"})
        await sink.until(lambda: len(sink.events) == 3)
        assert [event["type"] for event in sink.events] == ["first", "second", "third"]

    @_test
    async def test_membership_leaves_with_its_channel(self) -> None:
        layer = await self.layer()
        if not getattr(layer, "pushes", False):
            return
        gone, stays = RecordingSink(), RecordingSink()
        channels = [await layer.new_channel() for _ in range(2)]
        for channel, sink in zip(channels, (gone, stays), strict=True):
            layer.attach(channel, sink)
            for group in ("room", "other"):
                await layer.group_add(group, channel)
        layer.detach(channels[0])
        layer.detach(channels[0])  # once more is nothing
        for group in ("room", "other"):
            await layer.group_send(group, {"type": "news"})
        await stays.until(lambda: len(stays.events) == 2)
        assert not gone.events
