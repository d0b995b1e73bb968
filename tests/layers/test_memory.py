import asyncio
import contextlib
import threading
import time

import pytest
from asgiref.sync import async_to_sync, sync_to_async

from headrace.exceptions import ChannelFull
from headrace.layers import InMemoryChannelLayer
from headrace.layers import memory as memory_module
from headrace.layers.memory import Mailbox, Retired
from headrace.testing.layers import RecordingSink

from .test_hub import ElsewhereLoop, steps


@pytest.fixture
def layer():
    return InMemoryChannelLayer()


@pytest.fixture
def clock(monkeypatch):
    """Time that passes when it is told to."""

    class Clock:
        now = 1000.0

        def __iadd__(self, seconds):
            self.now += seconds
            return self

    clock = Clock()
    monkeypatch.setattr(memory_module.time, "monotonic", lambda: clock.now)
    return clock


async def attached(layer, *groups, room=1_000_000):
    channel, sink = await layer.new_channel(), RecordingSink(room)
    layer.attach(channel, sink)
    for group in groups:
        await layer.group_add(group, channel)
    return channel, sink


# What is left


async def test_a_channel_is_gone_once_it_is_empty(layer):
    await layer.send("work", {"type": "a"})
    await layer.send("work", {"type": "b"})
    assert set(layer.channels) == {"work"}
    assert len(layer.channels["work"]) == 2
    await layer.receive("work")
    assert set(layer.channels) == {"work"}
    await layer.receive("work")
    assert not layer.channels


async def test_a_reader_that_gives_up_leaves_nothing(layer):
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0):
            await layer.receive("work")
    assert not layer.channels


async def test_a_member_that_leaves_its_last_group_leaves_nothing(layer):
    await layer.group_add("room", "work")
    await layer.group_discard("room", "work")
    assert not layer.channels
    assert not layer.groups


async def test_many_come_and_go_and_nothing_stays(layer):
    for number in range(2000):
        channel, _ = await attached(layer, "room", f"own.{number}")
        await layer.group_send("room", {"type": "news"})
        layer.detach(channel)
        await layer.send(f"work.{number}", {"type": "job"})
        await layer.receive(f"work.{number}")
    assert not layer.channels
    assert not layer.groups
    assert not layer._looks
    assert not layer._hub._memberships


async def test_flush_leaves_attached_consumers_and_waiting_readers(layer):
    channel, sink = await attached(layer, "room")
    reader = asyncio.ensure_future(layer.receive("work"))
    await asyncio.sleep(0)
    await layer.send("other", {"type": "old"})
    await layer.flush()
    assert set(layer.channels) == {channel, "work"}
    assert not layer.groups
    await layer.send(channel, {"type": "new"})
    await layer.send("work", {"type": "new"})
    assert sink.events == [{"type": "new"}]
    assert await reader == {"type": "new"}


# Expiry


async def test_a_send_that_opens_a_channel_leaves_the_others_for_a_while(clock):
    """What waits too long is taken back by a reader, or by a sender after twice the time."""
    layer = InMemoryChannelLayer(expiry=60)
    await layer.send("first", {"type": "expires"})
    clock += 60
    await layer.send("second", {"type": "x"})
    assert set(layer.channels) == {"first", "second"}
    clock += 60
    await layer.send("third", {"type": "x"})
    assert set(layer.channels) == {"second", "third"}
    await layer.receive("third")
    assert not layer.channels


async def test_what_has_expired_takes_its_channel_with_it(clock):
    layer = InMemoryChannelLayer(expiry=60)
    for number in range(10):
        await layer.send(f"old.{number}", {"type": "a"})
    clock += 61
    await layer.send("new", {"type": "b"})
    await layer.group_send("room", {"type": "c"})
    assert set(layer.channels) == {"new"}


async def test_a_channel_that_goes_on_being_used_stays(clock):
    layer = InMemoryChannelLayer(expiry=60)
    for number in range(5):
        await layer.send("busy", {"type": "a", "number": number})
        clock += 40
        await layer.send("another", {"type": "b"})
    assert len(layer.channels["busy"]) == 2 or len(layer.channels["busy"]) == 1
    assert (await layer.receive("busy"))["number"] == 4


async def test_a_member_that_fetches_nothing_is_taken_to_be_gone(clock):
    """A consumer that died without a word does not stay in its groups for a day."""
    layer = InMemoryChannelLayer(expiry=60)
    await layer.group_add("room", "dead")
    await layer.group_add("room", "alive")
    await layer.group_send("room", {"type": "a"})
    await layer.receive("alive")
    clock += 61
    await layer.group_send("room", {"type": "b"})
    assert set(layer.groups["room"]) == {"alive"}
    assert set(layer.channels) == {"alive"}


async def test_a_member_that_comes_back_in_time_stays(clock):
    layer = InMemoryChannelLayer(expiry=60)
    await layer.group_add("room", "slow")
    clock += 30
    await layer.group_send("room", {"type": "expires"})
    clock += 61 - 30  # the look at the channel comes first
    await layer.group_send("room", {"type": "stays"})
    clock += 31
    assert await layer.receive("slow") == {"type": "stays"}
    clock += 30
    await layer.group_send("room", {"type": "more"})
    assert await layer.receive("slow") == {"type": "more"}


async def test_memberships_of_those_who_pull_end_after_group_expiry(clock):
    layer = InMemoryChannelLayer(group_expiry=100)
    await layer.group_add("first", "member")
    clock += 70
    await layer.group_add("second", "member")
    channel, _ = await attached(layer, "first")
    clock += 70
    await layer.group_send("first", {"type": "a"})
    assert {group: set(members) for group, members in layer.groups.items()} == {
        "first": {channel},
        "second": {"member"},
    }
    clock += 100
    await layer.group_send("first", {"type": "a"})
    assert set(layer.channels) == {channel}


async def test_a_consumer_stays_in_its_groups_for_as_long_as_it_lives(clock):
    layer = InMemoryChannelLayer(group_expiry=100)
    _, sink = await attached(layer, "room")
    clock += 10**9
    await layer.group_send("room", {"type": "a"})
    assert sink.events


# Cost


async def test_operations_cost_the_same_with_ten_thousand_channels():
    async def work(members):
        layer = InMemoryChannelLayer()
        for number in range(members):
            await attached(layer, "crowd")
            await layer.send(f"work.{number}", {"type": "job"})
            await layer.group_add("pulled", f"work.{number}")
        channel, _ = await attached(layer)

        def cost(operation, *arguments):
            coroutine = operation(*arguments)

            def run():
                with contextlib.suppress(StopIteration):
                    coroutine.send(None)

            return steps(run)

        return {
            "new_channel": cost(layer.new_channel),
            "send": cost(layer.send, channel, {"type": "a"}),
            "send, pulled": cost(layer.send, "work.5", {"type": "a"}),
            "receive": cost(layer.receive, "work.5"),
            "group_add": cost(layer.group_add, "crowd", channel),
            "group_discard": cost(layer.group_discard, "crowd", channel),
            "group_send": cost(layer.group_send, "small", {"type": "a"}),
        }

    assert await work(100) == await work(10_000)


# Push and pull


async def test_a_consumers_channel_is_not_pulled(layer):
    channel, _ = await attached(layer)
    with pytest.raises(ValueError, match="belongs to a consumer"):
        await layer.receive(channel)


async def test_who_pulls_a_channel_that_a_consumer_takes_is_told(layer):
    reader = asyncio.ensure_future(layer.receive("work"))
    await asyncio.sleep(0)
    layer.attach("work", RecordingSink())
    with pytest.raises(ValueError, match="belongs to a consumer"):
        await reader


async def test_what_waited_and_finds_no_room_is_counted(layer, caplog):
    for _ in range(3):
        await layer.send("work", {"type": "job"})
    sink = RecordingSink(room=1)
    layer.attach("work", sink)
    assert len(sink.events) == 1
    assert layer.dropped == 2
    assert "channel work" in caplog.text


async def test_a_consumer_without_room_is_a_full_channel(layer):
    channel, _ = await attached(layer, room=1)
    await layer.send(channel, {"type": "a"})
    with pytest.raises(ChannelFull, match="raise capacity in CHANNEL_LAYERS"):
        await layer.send(channel, {"type": "b"})


async def test_events_for_clients_are_pulled_like_others(layer):
    await layer.group_add("room", "work")
    event = {"type": "websocket.send", "text": "x"}
    await layer.group_send("room", event)
    assert await layer.receive("work") == event


async def test_a_retired_mailbox_takes_and_gives_nothing():
    mailbox = Mailbox(10, 60)
    mailbox.put({"type": "a"})
    assert not mailbox.retire_if_idle()
    assert mailbox.retire() == [{"type": "a"}]
    assert not mailbox.put({"type": "b"})
    with pytest.raises(Retired):
        await mailbox.get()


async def test_who_was_in_between_begins_again(layer, monkeypatch):
    """A mailbox is forgotten between the look-up and the use: nothing is lost with it."""
    opened = layer._open
    forgotten = []

    def open_and_forget(channel):
        mailbox = opened(channel)
        if len(forgotten) < 1:
            forgotten.append(mailbox)
            layer._forget_if_idle(channel, mailbox)
        return mailbox

    monkeypatch.setattr(layer, "_open", open_and_forget)
    for operation in (
        lambda: layer.send("work", {"type": "a"}),
        lambda: layer.group_add("room", "work"),
        lambda: layer.receive("work"),
    ):
        forgotten.clear()
        if operation is not None:
            await operation()
    assert set(layer.groups["room"]) == {"work"}
    forgotten.clear()
    reader = asyncio.ensure_future(layer.receive("fresh"))
    await asyncio.sleep(0)
    await layer.send("fresh", {"type": "b"})
    assert await reader == {"type": "b"}


# Threads and loops


async def test_from_a_thread_of_the_orm(layer):
    channel, sink = await attached(layer, "room")

    def view():
        for number in range(100):
            async_to_sync(layer.group_send)("room", {"type": "count", "number": number})
            async_to_sync(layer.send)(channel, {"type": "direct", "number": number})
        async_to_sync(layer.group_add)("room", "work")
        async_to_sync(layer.group_discard)("room", channel)

    await sync_to_async(view)()
    for kind in ("count", "direct"):
        heard = [event["number"] for event in sink.events if event["type"] == kind]
        assert heard == list(range(100))
    assert set(layer.groups["room"]) == {"work"}


async def test_from_a_thread_that_has_no_part_in_the_loop(layer):
    """A management thread: ``async_to_sync`` makes a loop for each call there."""
    channel, sink = await attached(layer, "room")
    outcomes = []

    def manage():
        for number in range(50):
            async_to_sync(layer.group_send)("room", {"type": "count", "number": number})
            async_to_sync(layer.group_send)("room", {"type": "websocket.send", "text": f"{number}"})
        sink.room = 50
        try:
            async_to_sync(layer.send)(channel, {"type": "full"})
        except ChannelFull as error:
            outcomes.append(error)
        async_to_sync(layer.send)("work", {"type": "job"})

    thread = threading.Thread(target=manage)
    thread.start()
    assert await layer.receive("work") == {"type": "job"}
    thread.join()
    assert [event["number"] for event in sink.events] == list(range(50))
    assert [event["text"] for event, _ in sink.transmitted] == [*map(str, range(50))]
    assert len(outcomes) == 1


async def test_what_is_for_clients_is_pulled_in_order_from_another_thread(layer):
    await attached(layer, "room")
    await layer.group_add("room", "work")

    def manage():
        for number in range(30):
            event = {"type": "websocket.send", "text": str(number)}
            if number % 2:
                async_to_sync(layer.group_send)("room", event)
            else:
                async_to_sync(layer.send)("work", event)

    thread = threading.Thread(target=manage)
    thread.start()
    texts = [(await asyncio.wait_for(layer.receive("work"), 5))["text"] for _ in range(30)]
    thread.join()
    assert texts == [*map(str, range(30))]


async def test_a_reader_on_another_loop_is_woken(layer):
    with ElsewhereLoop() as elsewhere:
        reading = asyncio.wrap_future(
            asyncio.run_coroutine_threadsafe(layer.receive("work"), elsewhere.loop)
        )
        elsewhere.call(lambda: None)  # it waits now
        await layer.send("work", {"type": "job"})
        assert await asyncio.wait_for(reading, 5) == {"type": "job"}


async def test_a_reader_whose_loop_is_closed_takes_nothing(layer):
    with ElsewhereLoop() as elsewhere:
        asyncio.run_coroutine_threadsafe(layer.receive("work"), elsewhere.loop)
        elsewhere.call(lambda: None)  # it waits now
        elsewhere.stop()
        elsewhere.loop.close()
        await layer.send("work", {"type": "job"})
        assert await layer.receive("work") == {"type": "job"}


async def test_a_reader_elsewhere_that_is_cancelled_as_it_is_woken(layer):
    with ElsewhereLoop() as elsewhere:

        async def read_and_give_up():
            task = asyncio.ensure_future(layer.receive("work"))
            await asyncio.sleep(0)
            waiting.set()
            time.sleep(0.05)  # noqa: ASYNC251 - the loop is busy while the message comes
            task.cancel()
            await asyncio.wait({task})

        waiting = threading.Event()
        giving_up = asyncio.run_coroutine_threadsafe(read_and_give_up(), elsewhere.loop)
        await asyncio.to_thread(waiting.wait, 5)
        await layer.send("work", {"type": "job"})
        await asyncio.wrap_future(giving_up)
        assert await asyncio.wait_for(layer.receive("work"), 5) == {"type": "job"}


async def test_threads_that_do_everything_at_once(layer):
    """Nothing is lost, doubled or left, and nobody fails."""
    sinks = [await attached(layer, "room") for _ in range(5)]
    each, failures = 100, []

    def sender(name):
        try:
            for number in range(each):
                async_to_sync(layer.group_send)("room", {"type": name, "number": number})
                while True:
                    try:
                        async_to_sync(layer.send)("work", {"type": name, "number": number})
                        break
                    except ChannelFull:
                        time.sleep(0.001)
        except BaseException as error:
            failures.append(error)

    def restless(name):
        try:
            for number in range(each):
                async_to_sync(layer.group_add)("room", f"{name}.{number}")
                async_to_sync(layer.group_discard)("room", f"{name}.{number}")
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=sender, args=(f"sender.{n}",)) for n in range(3)]
    threads += [threading.Thread(target=restless, args=(f"restless.{n}",)) for n in range(2)]
    for thread in threads:
        thread.start()
    jobs = [await asyncio.wait_for(layer.receive("work"), 20) for _ in range(3 * each)]
    for thread in threads:
        await asyncio.to_thread(thread.join)
    assert not failures
    for events in (jobs, *(sink.events for _, sink in sinks)):
        for n in range(3):
            heard = [event["number"] for event in events if event["type"] == f"sender.{n}"]
            assert heard == list(range(each))


async def test_names_are_unique_whoever_asks(layer):
    names = []

    def ask():
        names.extend([async_to_sync(layer.new_channel)() for _ in range(100)])

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        await asyncio.to_thread(thread.join)
    assert len(set(names)) == 400
