import asyncio
import contextlib
import datetime

import pytest

from headrace.codecs import encode_event
from headrace.exceptions import InvalidChannelLayerError, MessageTooLarge
from headrace.layers.base import Bounds, Overflow
from headrace.layers.spanning import SpanningChannelLayer, _after_fork
from headrace.testing.layers import ChannelLayerConformance, RecordingSink

from .network import Network, NetworkedLayer


class TestConformance(ChannelLayerConformance):
    one_process = True
    shared = False
    several_loops = False
    sync_sends = False
    many_members = 1000

    async def make_layer(self, **options):
        return NetworkedLayer(Network(), **options)


class TestConformanceOfTwo(TestConformance):
    shared = True
    many_members = 10

    async def make_layer(self, **options):
        if not self.made:
            type(self).network = Network()
        return NetworkedLayer(self.network, **options)


@pytest.fixture
async def network():
    network = Network()
    yield network
    for layer in list(network.processes.values()):
        await layer.close()


@pytest.fixture
def here(network):
    return NetworkedLayer(network)


@pytest.fixture
def there(network):
    return NetworkedLayer(network)


async def next_of(layer, channel):
    async with asyncio.timeout(5):
        return await layer.receive(channel)


async def member(layer, *groups, hears_gaps=False, **options):
    """Let a consumer of this layer be in the groups."""
    channel, sink = await layer.new_channel(), RecordingSink(**options)
    sink.bounds = Bounds(sink.room, consumer="Chat", hears_gaps=hears_gaps)
    layer.attach(channel, sink)
    for group in groups:
        await layer.group_add(group, channel)
    sink.channel = channel
    return sink


class TestNames:
    async def test_a_channel_tells_its_owner(self, here, there):
        channel = await here.new_channel("mine")
        assert channel.startswith(f"mine.{here.process}!")
        assert there.owner(channel) == here.process != there.process

    @pytest.mark.parametrize("name", ["work", "a.b!c", "x.0123456789abcdef", "a!1.0123456789abcde"])
    def test_a_name_that_tells_no_owner_is_a_named_channel(self, here, name):
        assert here.owner(name) is None

    async def test_only_its_owner_reads_and_attaches_a_channel(self, here, there):
        channel = await there.new_channel()
        with pytest.raises(ValueError, match="another process"):
            await here.receive(channel)
        with pytest.raises(ValueError, match="another process"):
            here.attach(channel, RecordingSink())
        with pytest.raises(ValueError, match="named channel"):
            here.attach("work", RecordingSink())

    async def test_a_consumers_channel_is_not_received_from(self, here):
        sink = await member(here)
        with pytest.raises(ValueError, match="pushed to"):
            await here.receive(sink.channel)


class TestGroups:
    async def test_one_frame_for_any_number_of_members(self, network, here, there):
        sinks = [await member(there, "room") for _ in range(20)]
        mine = await member(here, "room")
        assert await here.group_send("room", {"type": "news", "on": datetime.date(2026, 1, 2)}) == 1
        assert mine.events
        await sinks[-1].until(lambda: bool(sinks[-1].events))
        for sink in sinks:
            assert sink.events == [{"type": "news", "on": datetime.date(2026, 1, 2)}]
        assert network.frames == {there.process: 1}

    async def test_nothing_is_sent_to_a_process_without_members(self, network, here, there):
        await member(there, "other")
        assert await here.group_send("room", {"type": "news"}) == 0
        assert not network.frames
        assert here.stats["sent"] == 0

    async def test_interest_comes_with_the_first_member_and_goes_with_the_last(self, here):
        first, second = await member(here, "room"), await member(here, "room", "other")
        await here.group_discard("room", first.channel)
        here.detach(second.channel)
        assert here.interests == [("room", True), ("other", True), *here.interests[2:]]
        assert sorted(here.interests[2:]) == [("other", False), ("room", False)]
        assert not here.has_members("room")

    async def test_events_for_clients_are_encoded_once_in_each_process(self, here, there):
        sinks = [await member(there, "room") for _ in range(3)]
        await here.group_send("room", {"type": "websocket.send", "text": "x"})
        await sinks[2].until(lambda: bool(sinks[2].transmitted))
        assert len({id(sink.transmitted[0][1]) for sink in sinks}) == 1

    async def test_a_member_elsewhere_without_room_is_counted_there(self, here, there, caplog):
        sink = await member(there, "room", room=1)
        other = await member(there, "room")
        for _ in range(2):
            await here.group_send("room", {"type": "news"})
        await other.until(lambda: len(other.events) == 2)
        assert len(sink.events) == 1
        assert there.dropped == there.stats["dropped"] == 1
        assert there.overflows[Overflow.DROP_NEWEST] == 1
        assert here.dropped == 0

    async def test_any_process_adds_and_discards_a_channel(self, here, there):
        sink = await member(there)
        await here.group_add("room", sink.channel)
        assert sink.channel in there.groups["room"]
        await here.group_send("room", {"type": "news"})
        await sink.until(lambda: bool(sink.events))
        await here.group_discard("room", sink.channel)
        assert not there.groups
        assert not here.groups

    async def test_an_owner_that_does_not_answer_is_an_error(self, network, here, there):
        channel = await there.new_channel()
        network.stopped.add(there.process)
        here.ANSWER_DEADLINE_S = 0.01
        for change in (here.group_add, here.group_discard):
            with pytest.raises(TimeoutError, match="not answered within"):
                await change("room", channel)
        # And the answer that comes too late has nobody who waits.
        here.received(encode_event([5, 1, None]))
        assert here.stats["undecodable"] == 0

    async def test_an_owner_that_fails_is_an_error(self, here, there, monkeypatch):
        channel = await there.new_channel()

        async def fail(group):
            raise OSError("no way")

        monkeypatch.setattr(there, "_interest_settled", fail)
        with pytest.raises(RuntimeError, match="OSError: no way"):
            await here.group_add("room", channel)

    async def test_a_process_that_is_gone_has_nothing_to_add(self, network, here, there):
        channel = await there.new_channel()
        await there.close()
        await here.group_add("room", channel)
        await here.send(channel, {"type": "late"})
        here.send_sync_in_thread = await asyncio.to_thread(here._post_sync, there.process, b"")
        assert here.stats["unreachable"] == 2

    async def test_who_cannot_be_answered_is_logged(
        self, network, here, there, monkeypatch, caplog
    ):
        channel = await there.new_channel()

        async def fail(process, frame):
            raise OSError("no way")

        monkeypatch.setattr(there, "_post", fail)
        here.ANSWER_DEADLINE_S = 0.05
        with pytest.raises(TimeoutError):
            await here.group_add("room", channel)
        assert "can't be answered" in caplog.text


class TestNamedChannels:
    async def test_each_message_goes_to_one_reader_in_any_process(self, here, there):
        readers = [asyncio.ensure_future(next_of(layer, "work")) for layer in (here, there)]
        await asyncio.sleep(0)
        for number in range(2):
            await here.send("work", {"type": "job", "number": number})
        assert sorted([(await reader)["number"] for reader in readers]) == [0, 1]

    async def test_they_are_members_of_groups(self, here, there):
        await here.group_add("room", "work")
        await there.group_add("room", "work")  # once however often
        await here.group_send("room", {"type": "news"})
        assert await next_of(there, "work") == {"type": "news"}
        await here.group_discard("room", "work")
        await here.group_send("room", {"type": "news"})
        await here.send("work", {"type": "marker"})
        assert (await next_of(there, "work"))["type"] == "marker"

    async def test_what_is_no_message_is_passed_over(self, network, here, caplog):
        await here._enqueue("work", b"\xc1")
        await here._enqueue("work", encode_event(["no", "message"]))
        await here.send("work", {"type": "job"})
        assert await next_of(here, "work") == {"type": "job"}
        assert here.stats["undecodable"] == 2


class TestWhatTravels:
    @pytest.mark.parametrize("name", ["room", "work"])
    async def test_what_cannot_is_an_error_at_the_sender_whoever_listens(self, here, name):
        for send in (here.send, here.group_send):
            with pytest.raises(TypeError, match=r"user\.avatar"):
                await send(name, {"type": "x", "user": {"avatar": object()}})

    async def test_what_is_too_large_is_an_error_at_the_sender(self, network):
        layer = NetworkedLayer(network, max_message_bytes=1000)
        channel = await layer.new_channel()
        await layer.send(channel, {"type": "x", "text": "x" * 900})
        for send, name in ((layer.send, channel), (layer.send, "w"), (layer.group_send, "room")):
            with pytest.raises(MessageTooLarge, match="max_message_bytes=1000"):
                await send(name, {"type": "x", "text": "x" * 1000})

    @pytest.mark.parametrize("bound", [0, -1, "1", True, 1.5])
    def test_a_bound_that_is_none_is_refused(self, network, bound):
        with pytest.raises(InvalidChannelLayerError, match="max_message_bytes"):
            NetworkedLayer(network, max_message_bytes=bound)


class TestWhatIsNoFrame:
    @pytest.mark.parametrize(
        "frame",
        [
            b"",
            b"\xc1",
            encode_event(3),
            encode_event({}),
            encode_event([]),
            encode_event([99]),
            encode_event([{}]),
            encode_event([1, "work", {"type": "x"}]),
            encode_event([1, "specific.0123456789abcdef!1", {"type": "x"}]),
            encode_event([1, "no name", {"type": "x"}]),
            encode_event([1]),
            encode_event([2, "room", "text"]),
            encode_event([2, "room!", {"type": "x"}]),
            encode_event([2, "room", {"type": "websocket.close", "code": 3}]),
            encode_event([3, "room", "specific.0123456789abcdef!1", 1, "x"]),
            encode_event([5, {}, None]),
            encode_event([7, 3, None]),
            encode_event([7, "x", [3]]),
        ],
    )
    async def test_it_is_counted_and_dropped(self, here, frame, caplog):
        here.received(frame)
        assert here.stats["undecodable"] == 1
        assert "no message" in caplog.text
        assert not here.channels

    async def test_a_question_without_an_asker(self, here):
        channel = await here.new_channel()
        here.received(encode_event([3, "room", channel, 1, 2]))
        here.received(encode_event([3, "room", channel, "1", here.process]))
        assert here.stats["undecodable"] == 2

    async def test_the_log_is_not_filled(self, here, caplog):
        for _ in range(100):
            here.received(b"")
        assert here.stats["undecodable"] == 100
        assert len(caplog.records) == 1

    async def test_a_sink_that_breaks_its_promise_does_not_end_the_reader(self, here, caplog):
        channel = await here.new_channel()

        class Broken(RecordingSink):
            def put(self, event):
                raise TypeError("broken")

        here.attach(channel, Broken())
        here.received(encode_event([1, channel, {"type": "x"}]))
        assert "could not be delivered" in caplog.text
        assert here.stats["undecodable"] == 0


class TestMailboxes:
    async def test_what_comes_for_one_waits_within_its_capacity(self, here, network):
        there = NetworkedLayer(network, capacity=2)
        channel = await there.new_channel()
        for number in range(3):
            await here.send(channel, {"type": "x", "number": number})
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert [(await next_of(there, channel))["number"] for _ in range(2)] == [0, 1]
        assert there.dropped == 1

    async def test_a_channel_that_goes_as_its_event_comes(self, here, monkeypatch):
        """The event is for what takes its place."""
        sink = await member(here)
        put = sink.put

        def leave_first(event):
            monkeypatch.setattr(sink, "put", put)
            here.detach(sink.channel)
            return False

        monkeypatch.setattr(sink, "put", leave_first)
        here.received(encode_event([1, sink.channel, {"type": "x"}]))
        assert await next_of(here, sink.channel) == {"type": "x"}


class TestGaps:
    async def test_those_who_want_to_know_are_told_of_their_groups(self, here, caplog):
        wants = await member(here, "a", "b", "c", hears_gaps=True)
        does_not = await member(here, "a")
        elsewhere = await member(here, "c", hears_gaps=True)
        here.tell_gap("it broke", ["b", "a", "a", "empty"])
        assert wants.events == [{"type": "layer.gap", "reason": "it broke", "groups": ["a", "b"]}]
        assert not does_not.events
        assert not elsewhere.events
        assert here.stats["gaps"] == 1
        assert "3 groups may have been missed: it broke" in caplog.text

    async def test_everybody_is_told_where_anything_may_be_missing(self, here):
        in_one = await member(here, "a", hears_gaps=True)
        in_none = await member(here, hears_gaps=True)
        here.tell_gap("it broke")
        assert in_one.events[0]["groups"] == ["a"]
        assert in_none.events[0]["groups"] == []

    async def test_a_process_tells_another(self, here, there):
        sink = await member(there, "a", hears_gaps=True)
        await here._post(there.process, here.gap_frame("no room", {"a"}))
        await sink.until(lambda: bool(sink.events))
        await here._post(there.process, here.gap_frame("no room"))
        await sink.until(lambda: len(sink.events) == 2)
        assert there.stats["gaps"] == 2

    async def test_a_full_or_broken_member_does_not_keep_it_from_the_others(self, here, caplog):
        class Broken(RecordingSink):
            def put(self, event):
                raise TypeError("broken")

        broken = Broken()
        broken.bounds = Bounds(1, hears_gaps=True)
        here.attach(await here.new_channel(), broken)
        await member(here, "a", hears_gaps=True, room=0)
        last = await member(here, "a", hears_gaps=True)
        here.tell_gap("it broke")
        assert last.events
        assert here.dropped == 1
        assert "failed to take an event" in caplog.text

    async def test_a_frame_tells_its_group(self, here):
        assert here.group_of(here._frame({"type": "x"}, 2, "room")) == "room"
        assert here.group_of(here._frame({"type": "x"}, 1, "channel")) is None


class TestFlush:
    async def test_it_is_heard_elsewhere(self, here, there):
        sink = await member(there, "room")
        mailbox = await there.new_channel()
        await there.send(mailbox, {"type": "x"})
        await here.flush()
        for _ in range(2):
            await asyncio.sleep(0)
        assert not there.groups
        await here.send(mailbox, {"type": "marker"})
        assert (await next_of(there, mailbox))["type"] == "marker"
        assert sink.channel in there.channels


class TestSeveralLoops:
    async def test_what_comes_on_another_loop_is_carried_to_the_consumers(self, here):
        sink = await member(here, "room")

        async def come():
            here.received(encode_event([2, "room", {"type": "news"}]))

        await asyncio.to_thread(asyncio.run, come())
        await sink.until(lambda: bool(sink.events))

    def test_a_home_that_closes_meanwhile_is_passed_over(self, monkeypatch):
        async def settle():
            layer = NetworkedLayer(Network())
            return layer, await member(layer, "room")

        loop = asyncio.new_event_loop()
        layer, _ = loop.run_until_complete(settle())
        loop.close()
        homes = [loop, None]
        monkeypatch.setattr(type(layer._here._hub), "abroad", lambda *_: homes.pop(0))
        layer._here.at_home(homes.append, "called")
        assert homes == ["called"]


class TestSynchronousCallers:
    async def test_they_reach_who_is_here(self, here):
        sink = await member(here, "room")
        await asyncio.to_thread(here.send_sync, sink.channel, {"type": "direct"})
        await asyncio.to_thread(here.group_send_sync, "room", {"type": "news"})
        assert [event["type"] for event in sink.events] == ["direct", "news"]

    async def test_they_reach_who_is_elsewhere(self, here, there, monkeypatch):
        sent = []
        monkeypatch.setattr(here, "_post_sync", lambda *args: bool(sent.append(args)) or None)
        monkeypatch.setattr(here, "_publish_sync", lambda *args: sent.append(args))
        monkeypatch.setattr(here, "_enqueue_sync", lambda *args: sent.append(args))
        channel = await there.new_channel()
        await asyncio.to_thread(here.send_sync, channel, {"type": "direct"})
        await asyncio.to_thread(here.send_sync, "work", {"type": "job"})
        await asyncio.to_thread(here.group_send_sync, "room", {"type": "news"})
        assert [to for to, _ in sent] == [there.process, "work", "room"]
        monkeypatch.setattr(here, "_post_sync", lambda *args: False)
        await asyncio.to_thread(here.send_sync, channel, {"type": "direct"})
        assert here.stats["unreachable"] == 1

    async def test_they_are_not_called_where_a_loop_would_have_to_wait(self, here):
        for send, name in ((here.send_sync, "work"), (here.group_send_sync, "room")):
            with pytest.raises(RuntimeError, match="instead"):
                send(name, {"type": "x"})

    def test_a_message_for_later_is_a_copy_that_can_travel(self, here):
        message = {"type": "x", "items": [(1, 2)]}
        prepared = here.prepared(message)
        assert prepared == message
        assert prepared["items"] is not message["items"]
        with pytest.raises(TypeError, match=r"\$\.item"):
            here.prepared({"type": "x", "item": object()})


class TestItsEnd:
    async def test_a_question_that_waits_is_given_up(self, network, here, there):
        channel = await there.new_channel()
        network.stopped.add(there.process)
        asking = asyncio.ensure_future(here.group_add("room", channel))
        await asyncio.sleep(0)
        await here.close()
        with pytest.raises(asyncio.CancelledError):
            await asking

    async def test_an_answer_under_way_is_given_up(self, here, there, monkeypatch):
        started = asyncio.Event()

        async def wait(group):
            started.set()
            await asyncio.Event().wait()

        channel = await there.new_channel()
        monkeypatch.setattr(there, "_interest_settled", wait)
        asking = asyncio.ensure_future(here.group_add("room", channel))
        await started.wait()
        (task,) = there._tasks
        await there.close()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        asking.cancel()


async def test_a_forked_child_is_another_process(here):
    """As Python calls it in the child; in a real one, see the layers that have a transport."""
    await member(here, "room")
    parent = here.process
    _after_fork()
    assert here.process != parent
    assert not here.channels
    assert not here.groups
    assert here.interested == {"room"}  # to be forgotten by whoever overrides it


async def test_what_a_subclass_has_to_say():
    class Bare(SpanningChannelLayer):
        pass

    layer = Bare()
    for call in (
        layer._listening(),
        layer._interest_settled("g"),
        layer._publish("g", b""),
        layer._post("p", b""),
        layer._broadcast(b""),
        layer._enqueue("c", b""),
        layer._fetch("c"),
        layer._join_named("g", "c"),
        layer._leave_named("g", "c"),
        layer._clear(),
    ):
        with pytest.raises(NotImplementedError):
            await call
    for sync_call in (
        lambda: layer._interest_changed("g", True),
        lambda: layer._publish_sync("g", b""),
        lambda: layer._post_sync("p", b""),
        lambda: layer._enqueue_sync("c", b""),
    ):
        with pytest.raises(NotImplementedError):
            sync_call()
