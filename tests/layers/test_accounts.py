"""What a snapshot says of the channel layers of a process, and how long events wait."""

import asyncio

import pytest

from headrace.instruments import LARGEST, Instruments, Reading, conditions, process
from headrace.layers import InMemoryChannelLayer, accounts, channel_layers, get_channel_layer
from headrace.layers.accounts import Accounts, Waits, waits
from headrace.layers.base import Bounds, Overflow


class Sink:
    bounds = Bounds(1, Overflow.DROP_OLDEST)

    def __init__(self):
        self.events = []

    def put(self, event):
        self.events.append(event)
        return True if len(self.events) == 1 else Overflow.DROP_OLDEST

    def transmit(self, event, frames):
        return True


def read(layers):
    into = Reading()
    Accounts(lambda: layers)(into)
    return into


@pytest.fixture
async def layer():
    layer = InMemoryChannelLayer()
    for number in range(5):
        channel = await layer.new_channel()
        layer.attach(channel, Sink())
        await layer.group_add("all", channel)
        await layer.group_add(f"g{number % 2}", channel)
    return layer


class TestAccounts:
    async def test_groups_and_channels(self, layer):
        reading = read({"default": layer})
        assert reading.gauges["headrace_layer_groups"] == {'layer="default"': 3}
        assert reading.gauges["headrace_layer_channels"] == {'layer="default"': 5}
        assert reading.gauges["headrace_layer_group_members_max"] == {'layer="default"': 5}
        assert sorted(reading.groups) == [("all", 5), ("g0", 3), ("g1", 2)]

    async def test_what_found_no_room(self, layer):
        for _ in range(3):
            await layer.group_send("g1", {"type": "tick"})
        overflows = read({"a": layer}).counters["headrace_layer_overflows_total"]
        assert overflows['layer="a",policy="drop-oldest"'] == 4
        assert overflows['layer="a",policy="close"'] == 0

    async def test_the_largest_of_many_groups_a_piece_at_a_time(self, monkeypatch):
        monkeypatch.setattr(accounts, "LOOKED_AT", 10)
        layer = InMemoryChannelLayer()
        channels = []
        for _ in range(8):
            channels.append(await layer.new_channel())
            layer.attach(channels[-1], Sink())
        for number in range(65):
            await layer.group_add(f"g{number}", channels[0])
        for channel in channels:
            await layer.group_add("the-last", channel)
        reader = Accounts(lambda: {"default": layer})
        for _ in range(7):
            found = Reading()
            reader(found)
        assert found.groups[0] == ("the-last", 8)
        assert len(found.groups) == LARGEST
        layer._hub.detach(channels[0])
        for _ in range(7):
            found = Reading()
            reader(found)
        assert found.groups == [("the-last", 7)]

    def test_what_a_layer_of_several_processes_counts(self):
        class Spanning(InMemoryChannelLayer):
            stats = {"sent": 3, "gaps": 1, "of its own": 5}  # noqa: RUF012

        counters = read({"default": Spanning()}).counters
        assert counters["headrace_layer_sent_total"] == {'layer="default"': 3}
        assert counters["headrace_layer_gaps_total"] == {'layer="default"': 1}
        assert "headrace_layer_reconnects_total" not in counters

    def test_a_layer_of_somebody_else(self):
        class Foreign:
            groups = "of another kind"

        assert read({"default": Foreign()}).gauges == {}

    def test_the_layers_of_this_process_are_read(self):
        get_channel_layer()
        assert 'layer="default"' in process.read().gauges["headrace_layer_groups"]


class TestReadiness:
    def test_a_layer_that_has_lost_its_server_is_told_and_takes_no_host_out(self, monkeypatch):
        class Lost(InMemoryChannelLayer):
            unready = "no connection"

        layers = {"default": InMemoryChannelLayer(), "other": Lost()}
        ready = read(layers).gauges["headrace_layer_ready"]
        assert ready == {'layer="default"': 1, 'layer="other"': 0}
        monkeypatch.setattr(channel_layers, "backends", layers)
        assert conditions.unmet() is None


class TestWaits:
    def make(self, monkeypatch):
        instruments = Instruments()
        monkeypatch.setattr(accounts, "process", instruments)
        return Waits(), instruments

    def test_one_event_in_many_is_looked_at(self, monkeypatch):
        made, instruments = self.make(monkeypatch)
        events = [{"type": "tick", "n": number} for number in range(2 * made.ONE_IN)]
        looked_at = []
        for event in events:
            made.put(event)
            if made.event is event:
                looked_at.append(event)
                made.begun()
        assert looked_at == [events[made.ONE_IN - 1], events[-1]]
        [data] = instruments.read().histograms["headrace_layer_wait_seconds"].values()
        assert sum(data["counts"]) == 2
        assert made.event is None

    def test_an_event_that_nobody_handles_is_let_go(self, monkeypatch):
        made, _ = self.make(monkeypatch)
        for _ in range(made.ONE_IN):
            made.put({"type": "tick"})
        made.forget(Reading())
        assert made.event is not None
        monkeypatch.setattr(accounts, "FORGOTTEN_S", -1.0)
        made.forget(Reading())
        assert made.event is None

    async def test_from_a_send_to_its_handler(self):
        from headrace.consumer import AsyncConsumer

        handled = asyncio.Event()

        class Slow(AsyncConsumer):
            async def slow_tick(self, event):
                if event["n"] == waits.ONE_IN:
                    handled.set()

        async def receive():
            await asyncio.Event().wait()

        layer = get_channel_layer()
        consumer = Slow()
        task = asyncio.ensure_future(consumer({"type": "test"}, receive, None))
        while not hasattr(consumer, "channel_receive"):  # noqa: ASYNC110 - it has begun then
            await asyncio.sleep(0)
        await layer.group_add("ticks", consumer.channel_name)
        before = waits._seconds.count
        for number in range(1, waits.ONE_IN + 1):
            await layer.group_send("ticks", {"type": "slow.tick", "n": number})
            await asyncio.sleep(0)
        await handled.wait()
        assert waits._seconds.count == before + 1
        task.cancel()
        await asyncio.wait({task})
