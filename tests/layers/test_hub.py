import asyncio
import datetime
import decimal
import enum
import gc
import sys
import threading
import uuid

import pytest
from django.utils.safestring import mark_safe

from headrace.layers.base import Bounds, Overflow
from headrace.layers.hub import Hub, ThreadSafeSink, carry, copier_for
from headrace.testing.layers import RecordingSink


@pytest.fixture
def hub():
    return Hub()


def join(hub, group, channel, sink=None):
    sink = sink or RecordingSink()
    hub.attach(channel, sink)
    assert hub.add(group, channel, hub.channels[channel])
    return sink


async def turn():
    for _ in range(3):
        await asyncio.sleep(0)


# Cost


def steps(call):
    """Count the lines of Python that a call runs, which is its work, whatever the clock says."""
    count = 0

    def trace(frame, event, argument):
        nonlocal count
        count += event == "line"
        return trace

    # What the garbage of other tests has to do when it is collected is no work of this call.
    before, collects = sys.gettrace(), gc.isenabled()
    gc.disable()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
        if collects:
            gc.enable()
    return count


class Nobody:
    """A sink that costs nothing."""

    def put(self, event):
        return True

    def transmit(self, event, frames):
        return True


async def work(members):
    hub = Hub()
    for number in range(members):
        join(hub, "crowd", f"member.{number}", Nobody())
        join(hub, f"group.{number}", f"other.{number}", Nobody())
    new = "new"
    hub.attach(new, Nobody())
    return {
        "add": steps(lambda: hub.add("crowd", new, hub.channels[new])),
        "deliver": steps(lambda: hub.deliver(new, {"type": "a"})),
        "discard": steps(lambda: hub.discard("crowd", new)),
        "attach": steps(lambda: hub.attach("newer", Nobody())),
        "detach": steps(lambda: hub.detach("member.7")),
        "publish to one": steps(lambda: hub.publish("group.3", {"type": "a"})),
        "publish to nobody": steps(lambda: hub.publish("nobody", {"type": "a"})),
        "publish": steps(lambda: publish_to_the_last(hub, "crowd", {"type": "a"})),
    }


def publish_to_the_last(hub, group, event):
    hub.publish(group, event)
    hub.tell_gap("tells nobody, and ends what is under way", ())


async def test_operations_cost_what_they_touch():
    few, many = await work(500), await work(10_000)
    crowd_few, crowd_many = few.pop("publish"), many.pop("publish")
    assert many == few, "not one line more with twenty times the members"
    assert 17 < crowd_many / crowd_few < 22, "linear in the members, and in nothing else"


# Copies


class Colour(enum.Enum):
    RED = 1


def test_a_flat_event_is_copied_flat():
    event = {
        "type": "flat",
        "text": mark_safe("<b>"),
        "when": datetime.datetime(2026, 1, 1),
        "id": uuid.uuid4(),
        "price": decimal.Decimal(1),
        "none": None,
    }
    assert copier_for(event) == event.copy, "at the cost of one copy of a dictionary"
    assert copier_for(event)() == event


class Custom:
    def __init__(self):
        self.items = []


@pytest.mark.parametrize(
    "value", [[1, [2]], {"a": {"b": []}}, {1, 2}, bytearray(b"x"), (1, [2]), Colour.RED]
)
def test_what_a_reader_could_change_is_copied(value):
    event = {"type": "deep", "value": value, "shared": "text"}
    copy = copier_for(event)()
    assert copy == event
    assert copy is not event
    assert copy["shared"] is event["shared"]
    if not isinstance(value, enum.Enum):
        assert copy["value"] is not value


def test_an_object_of_ones_own_is_copied_too():
    event = {"type": "custom", "value": [Custom()]}
    copy = copier_for(event)()
    copy["value"][0].items.append(1)
    assert event["value"][0].items == []


# Memberships


async def test_memberships_are_kept_for_one_group_as_for_many(hub):
    sink = join(hub, "a", "channel")
    attached = hub.channels["channel"]
    hub.add("a", "channel", attached)
    assert hub.joined_any("channel")
    for group in ("b", "c", "b"):
        hub.add(group, "channel", attached)
    hub.discard("b", "channel")
    hub.discard("b", "channel")
    hub.discard("nowhere", "channel")
    assert {group: set(members) for group, members in hub.groups.items()} == {
        "a": {"channel"},
        "c": {"channel"},
    }
    hub.discard("a", "channel")
    hub.discard("c", "channel")
    assert not hub.groups
    assert not hub.joined_any("channel")
    hub.publish("a", {"type": "x"})
    assert not sink.events


async def test_a_channel_that_is_not_there_joins_nothing(hub):
    sink = join(hub, "a", "channel")
    hub.detach("channel")
    assert not hub.add("a", "channel", sink)
    assert not hub.deliver("channel", {"type": "x"})
    assert not hub.groups
    hub.discard("a", "channel")
    hub.leave_all("channel")


async def test_another_sink_keeps_the_memberships(hub):
    first = join(hub, "a", "channel")
    hub.add("b", "channel", first)
    second = RecordingSink()
    hub.attach("channel", second)
    for group in ("a", "b"):
        hub.publish(group, {"type": "x"})
    assert not first.events
    assert len(second.events) == 2


async def test_a_member_may_leave_while_it_is_served(hub):
    class Leaves(RecordingSink):
        def put(self, event):
            for number in range(5):
                hub.detach(f"member.{number}")
            return super().put(event)

        def transmit(self, event, frames):
            hub.detach("member.7")
            return super().transmit(event, frames)

    sinks = [join(hub, "room", f"member.{number}", Leaves()) for number in range(10)]
    hub.publish("room", {"type": "first"})
    assert [len(sink.events) for sink in sinks] == [1] * 10
    hub.publish("room", {"type": "second"})
    assert [len(sink.events) for sink in sinks] == [1] * 5 + [2] * 5
    hub.publish("room", {"type": "websocket.send", "text": "x"})
    await turn()
    assert [len(sink.transmitted) for sink in sinks] == [0] * 5 + [1] * 5


async def test_who_leaves_in_the_same_turn_has_heard_what_was_said_before(hub):
    sinks = [join(hub, "room", f"member.{number}") for number in range(3)]
    hub.publish("room", {"type": "websocket.send", "text": "1"})
    hub.discard("room", "member.0")
    late = join(hub, "room", "late")
    hub.publish("room", {"type": "websocket.send", "text": "2"})
    await turn()
    heard = [[event["text"] for event, _ in sink.transmitted] for sink in (*sinks, late)]
    assert heard == [["1"], ["1", "2"], ["1", "2"], ["2"]]


async def test_events_for_clients_keep_their_order_whatever_their_group(hub):
    sink = join(hub, "a", "channel")
    hub.add("b", "channel", sink)
    for number in range(600):
        match number % 3:
            case 0:
                hub.publish("a", {"type": "websocket.send", "text": str(number)})
            case 1:
                hub.publish("b", {"type": "websocket.send", "text": str(number)})
            case 2:
                hub.deliver("channel", {"type": "websocket.send", "text": str(number)})
    hub.publish("a", {"type": "websocket.close"})
    await turn()
    texts = [event.get("text") for event, _ in sink.transmitted]
    assert texts == [*map(str, range(600)), None]


async def test_an_event_for_clients_may_be_changed_once_it_is_sent(hub):
    sink = join(hub, "room", "member")
    event = {"type": "websocket.send", "text": "before"}
    hub.publish("room", event)
    event["text"] = "after"
    await turn()
    assert sink.transmitted[0][0]["text"] == "before"


async def test_a_member_that_fails_does_not_silence_the_others(hub, caplog):
    class Broken(RecordingSink):
        def put(self, event):
            raise LookupError

        def transmit(self, event, frames):
            raise LookupError

    for number in range(3):
        join(hub, "room", f"broken.{number}", Broken())
    sink = join(hub, "room", "sound")
    hub.publish("room", {"type": "news"})
    for text in "ab":
        hub.publish("room", {"type": "websocket.send", "text": text})
    await turn()
    hub.publish("room", {"type": "websocket.send", "text": "c"})
    await turn()
    assert len(sink.events) == 1
    assert [event["text"] for event, _ in sink.transmitted] == ["a", "b", "c"]
    assert len(caplog.records) == 9


async def test_what_cannot_be_copied_is_an_error_of_its_sender(hub, caplog):
    sinks = [join(hub, "room", f"a!{number}") for number in range(2)]
    for send in (hub.publish, hub.deliver):
        with pytest.raises(TypeError, match="generator"):
            send("room" if send == hub.publish else "a!1", {"type": "x", "n": (n for n in "abc")})
    assert [sink.events for sink in sinks] == [[], []]
    assert not caplog.records


async def test_a_burst_is_one_walk(hub):
    class Takes(RecordingSink):
        def __init__(self):
            super().__init__()
            self.bursts = []

        def transmit_burst(self, events, bursts, at_once):
            self.bursts.append((list(events), bursts))
            return 1

    sinks = [join(hub, "room", f"member.{number}", Takes()) for number in range(3)]
    for number in range(300):
        hub.publish("room", {"type": "websocket.send", "text": str(number)})
    await turn()
    for sink in sinks:
        assert [len(events) for events, _ in sink.bursts] == [256, 44]
    assert sinks[0].bursts[0][1] is sinks[1].bursts[0][1]
    assert hub.dropped == 6


# Drops


async def test_a_full_member_is_counted_and_the_others_get_theirs(hub, caplog):
    for number, overflow in enumerate(Overflow):
        join(hub, "room", f"full.{number}", RecordingSink(0, overflow, "Chat"))
    free = join(hub, "room", "free")
    for _ in range(10):
        hub.publish("room", {"type": "news"})
    assert len(free.events) == 10
    assert hub.losses.counts == {
        Overflow.DROP_NEWEST: 10,
        Overflow.DROP_OLDEST: 10,
        Overflow.CLOSE: 1,
    }
    assert hub.dropped == 21
    [record] = caplog.records
    assert record.getMessage().startswith("group room: 3 of 4 members had no room for an event")


async def test_a_sender_to_one_full_channel_is_told_or_it_is_counted(hub):
    for overflow, taken in zip(Overflow, (False, True, True), strict=True):
        join(hub, "room", overflow, RecordingSink(0, overflow))
        assert hub.deliver(overflow, {"type": "news"}) is taken
    assert list(hub.losses.counts.values()) == [0, 1, 1]


# Threads and loops


class ElsewhereLoop:
    """An event loop that runs in a thread of its own."""

    def __enter__(self):
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()
        return self

    def run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(5)

    def call(self, function, *arguments):
        async def call():
            return function(*arguments)

        return self.run(call())

    def stop(self):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(5)

    def __exit__(self, *error):
        if self.thread.is_alive():
            self.stop()
        self.loop.close()


async def test_the_loop_that_attaches_first_is_home(hub):
    assert hub.abroad() is None
    join(hub, "room", "here")
    assert hub.abroad() is None
    with ElsewhereLoop() as elsewhere:
        assert elsewhere.call(hub.abroad) is asyncio.get_running_loop()
        assert elsewhere.call(hub.abroad, "here") is asyncio.get_running_loop()


async def test_a_sink_on_another_loop_is_called_there_and_in_order(hub):
    join(hub, "room", "here")
    with ElsewhereLoop() as elsewhere:
        threads = []
        done = threading.Event()

        class There(RecordingSink):
            def put(self, event):
                threads.append(threading.current_thread())
                if event["number"] == 49:
                    done.set()
                return super().put(event)

        there = elsewhere.call(join, hub, "room", "there", There())
        for number in range(50):
            hub.publish("room", {"type": "count", "number": number})
        hub.publish("room", {"type": "websocket.send", "text": "x"})
        await turn()
        assert await asyncio.to_thread(done.wait, 5)
        elsewhere.call(lambda: None)
        assert [event["number"] for event in there.events] == list(range(50))
        assert [event["text"] for event, _ in there.transmitted] == ["x"]
        assert set(threads) == {elsewhere.thread}
        elsewhere.call(hub.detach, "there")
        assert set(hub.groups["room"]) == {"here"}


async def test_a_busy_loop_has_a_bound(hub, caplog):
    join(hub, "room", "here")
    with ElsewhereLoop() as elsewhere:
        there = elsewhere.call(join, hub, "room", "there", RecordingSink(room=60))
        held, let_go = threading.Event(), threading.Event()

        def hold():
            held.set()
            let_go.wait(5)

        elsewhere.loop.call_soon_threadsafe(hold)
        held.wait(5)
        for number in range(150):
            hub.publish("room", {"type": "count", "number": number})
        assert hub.dropped == 50
        let_go.set()
        elsewhere.call(lambda: None)
        assert len(there.events) == 60
        assert hub.dropped == 50 + 40  # and what had no room there


async def test_a_policy_is_kept_on_another_loop(hub, caplog):
    with ElsewhereLoop() as elsewhere:
        join(hub, "room", "here")
        sink = RecordingSink(1, Overflow.DROP_OLDEST, "Chat")
        there = elsewhere.call(join, hub, "room", "there", sink)
        for number in range(3):
            hub.publish("room", {"type": "count", "number": number})
        elsewhere.call(lambda: None)
        assert [event["number"] for event in there.events] == [2]
        assert hub.losses.counts[Overflow.DROP_OLDEST] == 2
        assert "channel there, on another loop: " in caplog.text
        assert "most of them Chat" in caplog.text


async def test_a_loop_that_is_closed_takes_its_consumers_with_it(hub):
    join(hub, "room", "here")
    with ElsewhereLoop() as elsewhere:
        elsewhere.call(join, hub, "room", "there")
    hub.publish("room", {"type": "news"})
    assert set(hub.groups["room"]) == {"here"}
    assert set(hub.channels) == {"here"}


class Anywhere(ThreadSafeSink):
    def __init__(self):
        self.events = []

    def put(self, event):
        self.events.append(event)
        return True

    def transmit(self, event, frames):
        return self.put(event)


async def test_when_the_home_is_closed_the_next_loop_is_home(hub):
    with ElsewhereLoop() as elsewhere:
        elsewhere.call(join, hub, "room", "gone")
        anywhere = elsewhere.call(join, hub, "room", "anywhere", Anywhere())
        assert hub.abroad() is elsewhere.loop
        assert hub.abroad("anywhere") is None
    assert hub.abroad() is None
    assert set(hub.groups["room"]) == {"anywhere"}
    join(hub, "room", "here")
    assert hub.abroad() is None
    hub.publish("room", {"type": "news"})
    assert anywhere.events == [{"type": "news"}]


async def test_attaching_after_the_home_is_closed_settles_anew(hub):
    with ElsewhereLoop() as elsewhere:
        elsewhere.call(join, hub, "room", "gone")
    here = join(hub, "room", "here")
    hub.publish("room", {"type": "news"})
    assert here.events
    assert "gone" not in hub.channels


def test_a_home_that_pauses_is_not_waited_for_and_hears_of_everything_later(hub):
    """As with loops that a test runner keeps from test to test."""
    with asyncio.Runner() as first, asyncio.Runner() as second:

        async def attach(channel):
            return join(hub, "room", channel)

        async def publish(event):
            hub.publish("room", event)
            await turn()

        paused = first.run(attach("paused"))
        here = second.run(attach("here"))
        second.run(publish({"type": "news"}))
        second.run(publish({"type": "websocket.send", "text": "hello"}))
        assert here.events == [{"type": "news"}]
        assert [event["text"] for event, _ in here.transmitted] == ["hello"]
        assert not paused.events
        first.run(turn())
        assert paused.events == here.events
        assert [event["text"] for event, _ in paused.transmitted] == ["hello"]


def test_a_turn_that_a_home_did_not_end_is_ended_for_it(hub):
    with asyncio.Runner() as first, asyncio.Runner() as second:
        paused, anywhere = RecordingSink(), Anywhere()

        def burst():
            join(hub, "room", "paused", paused)
            join(hub, "room", "anywhere", anywhere)
            for text in "ab":
                hub.publish("room", {"type": "websocket.send", "text": text})
            first.get_loop().stop()

        async def visit():
            return hub.abroad()

        first.get_loop().call_soon(burst)
        first.get_loop().run_forever()
        assert not paused.transmitted
        assert second.run(visit()) is None
        assert [event["text"] for event in anywhere.events] == ["a", "b"]
        first.run(turn())
        assert [event["text"] for event, _ in paused.transmitted] == ["a", "b"]


def test_a_thread_safe_sink_has_to_do_the_work():
    for call in (ThreadSafeSink().put, lambda event: ThreadSafeSink().transmit(event, {})):
        with pytest.raises(NotImplementedError):
            call({})


# Carrying


async def test_a_call_is_carried_to_its_loop_and_its_result_back():
    with ElsewhereLoop() as elsewhere:
        assert await carry(elsewhere.loop, threading.current_thread) is elsewhere.thread
        with pytest.raises(ZeroDivisionError):
            await carry(elsewhere.loop, lambda: 1 / 0)


async def test_a_call_to_a_closed_or_a_stopped_loop_is_given_up():
    with ElsewhereLoop() as elsewhere:
        elsewhere.stop()
        assert await carry(elsewhere.loop, threading.current_thread) is None
    assert await carry(elsewhere.loop, threading.current_thread) is None


async def test_a_loop_that_stops_meanwhile_is_noticed():
    with ElsewhereLoop() as elsewhere:
        elsewhere.loop.call_soon_threadsafe(elsewhere.loop.stop)
        assert await carry(elsewhere.loop, lambda: "made") in (None, "made")


# What comes into being, and what may be missing


async def test_the_watcher_hears_of_each_groups_first_and_last_member(hub):
    heard = []
    hub.watcher = lambda group, here: heard.append((group, here))
    join(hub, "room", "a")
    join(hub, "room", "b")
    hub.discard("room", "a")
    assert heard == [("room", True)]
    hub.detach("b")
    assert heard == [("room", True), ("room", False)]


async def test_a_gap_comes_behind_what_was_sent_before(hub):
    sink = join(hub, "room", "a")
    sink.bounds = Bounds(10, hears_gaps=True)
    hub.publish("room", {"type": "websocket.send", "text": "before"})
    assert hub.tell_gap("it broke") == 1
    assert [event["text"] for event, _ in sink.transmitted] == ["before"]
    assert sink.events == [{"type": "layer.gap", "reason": "it broke", "groups": ["room"]}]


async def test_a_gap_is_for_consumers_that_handle_it(hub):
    join(hub, "room", "a")
    assert hub.tell_gap("it broke") == 0
