import asyncio
import gc
import os
import shutil
import subprocess
import sys
import threading

import pytest

from headrace.exceptions import ChannelFull, InvalidChannelLayerError, MessageTooLarge
from headrace.layers.base import Bounds
from headrace.layers.local import LocalChannelLayer, holdings
from headrace.layers.local import layer as layer_module
from headrace.layers.local.interest import Interest
from headrace.layers.local.peers import Outcome, Peer
from headrace.testing.layers import ChannelLayerConformance, RecordingSink


class TestConformance(ChannelLayerConformance):
    many_members = 1000

    @pytest.fixture(autouse=True)
    def _directory(self, tmp_path):
        self.directory = tmp_path / "local"

    async def make_layer(self, **options):
        return LocalChannelLayer(directory=self.directory, **options)

    def in_another_process(self, **options):
        return LocalChannelLayer, {"directory": self.directory, **options}


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "local"


@pytest.fixture
async def make(directory):
    made = []

    def make(**options):
        made.append(LocalChannelLayer(directory=directory, **options))
        return made[-1]

    yield make
    for layer in made:
        await layer.close()


@pytest.fixture
def here(make):
    return make()


@pytest.fixture
def there(make):
    return make()


async def member(layer, *groups):
    channel, sink = await layer.new_channel(), RecordingSink()
    sink.bounds = Bounds(sink.room, consumer="Chat", hears_gaps=True)
    layer.attach(channel, sink)
    for group in groups:
        await layer.group_add(group, channel)
    sink.channel = channel
    return sink


async def next_of(layer, channel):
    async with asyncio.timeout(5):
        return await layer.receive(channel)


class TestItsOptions:
    @pytest.mark.parametrize(
        ("options", "told"),
        [
            ({"directory": "relative"}, "directory is an absolute path, or None, not 'relative'"),
            ({"directory": 3}, "directory is an absolute path"),
            ({"prefix": "a/b"}, "prefix is made of"),
            ({"prefix": None}, "prefix is made of"),
            ({"buffer_bytes": -1}, "buffer_bytes is a number of bytes from 0, not -1"),
            ({"buffer_bytes": "1"}, "buffer_bytes"),
            ({"buffer_bytes": True}, "buffer_bytes"),
            ({"max_message_bytes": 0}, "max_message_bytes"),
        ],
    )
    def test_one_that_makes_no_sense_is_named(self, options, told):
        with pytest.raises(InvalidChannelLayerError, match=told):
            LocalChannelLayer(**options)

    def test_the_default_directory_is_asked_for_when_it_is_needed(self, settings):
        layer = LocalChannelLayer()
        before = layer.directory
        settings.SECRET_KEY = "another"
        assert layer.directory != before

    async def test_layers_with_different_prefixes_do_not_hear_each_other(
        self, monkeypatch, tmp_path
    ):
        monkeypatch.setattr(layer_module, "default_path", lambda prefix: tmp_path / "top" / prefix)
        places = {"directory": None}, {"directory": tmp_path / "given"}
        layers = [
            LocalChannelLayer(prefix=prefix, **place)
            for place in places
            for prefix in ("asgi", "b")
        ]
        for layer in layers:
            assert await layer.group_send("room", {"type": "x"}) == 0
            await member(layer, "room")
        assert len({layer.directory for layer in layers}) == 4
        for layer in layers:
            await layer.close()

    async def test_what_is_too_large_is_told(self, make):
        with pytest.raises(MessageTooLarge):
            await make(max_message_bytes=100).group_send("room", {"type": "x", "text": "x" * 100})


class TestSending:
    async def test_who_only_sends_takes_no_slot(self, here, there, directory):
        sink = await member(there, "room")
        assert await here.group_send("room", {"type": "x"}) == 1
        await sink.until(lambda: bool(sink.events))
        assert here._own.slot is None
        assert [name for name in os.listdir(directory) if name.startswith("p-")] == [
            f"p-{there.process}"
        ]

    async def test_a_group_that_shares_a_bucket_is_dropped_on_arrival(
        self, here, there, monkeypatch
    ):
        monkeypatch.setattr(layer_module, "bucket_of", lambda name: 7)
        sink = await member(there, "room")
        assert await here.group_send("another", {"type": "x"}) == 1
        assert await here.group_send("room", {"type": "y"}) == 1
        await sink.until(lambda: bool(sink.events))
        assert sink.events == [{"type": "y"}]
        await member(there, "more")
        there.detach(sink.channel)
        assert await here.group_send("room", {"type": "y"}) == 1  # for "more", which is there still

    async def test_from_a_thread(self, here, there):
        sink, mine = await member(there, "room"), await member(here, "room")
        assert await asyncio.to_thread(here.group_send_sync, "room", {"type": "x"}) == 1
        await asyncio.to_thread(here.send_sync, sink.channel, {"type": "y"})
        await sink.until(lambda: len(sink.events) == 2)
        await mine.until(lambda: bool(mine.events))

    async def test_to_a_process_that_has_ended(self, here, there, directory):
        channel = (await member(there, "room")).channel
        await there.close()
        await here.send(channel, {"type": "x"})
        assert here.stats["unreachable"] == 1
        assert await here.group_send("room", {"type": "x"}) == 0

    async def test_to_one_that_is_alive_and_cannot_be_reached(self, here, there, directory, caplog):
        await member(there, "room")
        os.unlink(directory / f"p-{there.process}")
        for _ in range(2):
            assert await here.group_send("room", {"type": "x"}) == 0
        assert caplog.text.count("can't be reached, and is not dead") == 1

    async def test_what_waits_is_waited_for(self, here, there):
        sink = await member(there, "room")
        big = {"type": "x", "text": "x" * 3_000_000}
        await here.group_send("room", big)
        await here.send(sink.channel, big)
        await asyncio.to_thread(here.group_send_sync, "room", big)
        await asyncio.to_thread(here.send_sync, sink.channel, big)
        await sink.until(lambda: len(sink.events) == 4)

    async def test_no_room_is_told(self, here, there, monkeypatch, caplog):
        sink = await member(there, "room")
        monkeypatch.setattr(Peer, "send", lambda *args, **kwargs: Outcome.REFUSED)
        with pytest.raises(ChannelFull, match="raise buffer_bytes"):
            await here.send(sink.channel, {"type": "x"})
        for _ in range(2):
            assert await here.group_send("room", {"type": "x"}) == 0
        assert here.stats["refused"] == 2
        assert caplog.text.count("does not read, or too slowly: a message for its members") == 1

    async def test_a_slot_without_a_process_is_passed_over(self, here, there, monkeypatch):
        await member(there, "room")
        monkeypatch.setattr(Interest, "process_in", lambda table, slot: None)
        assert await here.group_send("room", {"type": "x"}) == 0
        await here.send("work", {"type": "x"})

    async def test_a_gap_of_many_groups_fits_whatever_the_bound(self, make):
        here, there = make(max_message_bytes=100), make(max_message_bytes=100)
        sink = await member(there, "room")
        groups = ["room", *(f"{number:099}" for number in range(1000))]
        assert await here._post(there.process, here.gap_frame("no room", groups))
        await sink.until(lambda: bool(sink.events))


class TestNamedChannels:
    async def test_in_groups(self, here, there, caplog):
        await here.group_add("room", "work")
        assert await there.group_send("room", {"type": "x"}) == 0
        assert await asyncio.to_thread(there.group_send_sync, "room", {"type": "y"}) == 0
        for kind in "xy":
            assert (await next_of(here, "work"))["type"] == kind
        await there.group_discard("room", "work")
        await there.group_send("room", {"type": "z"})
        await there.send("work", {"type": "last"})
        assert (await next_of(here, "work"))["type"] == "last"

    async def test_that_are_full(self, make):
        here = make(capacity=1)
        await here.group_add("room", "work")
        for _ in range(2):
            await here.group_send("room", {"type": "x"})
        await asyncio.to_thread(here.group_send_sync, "room", {"type": "x"})
        assert here.dropped == 2
        with pytest.raises(ChannelFull, match="channel work is full"):
            await here.send("work", {"type": "x"})
        with pytest.raises(ChannelFull):
            await asyncio.to_thread(here.send_sync, "work", {"type": "x"})

    async def test_a_reader_elsewhere_is_nudged(self, here, there):
        reading = asyncio.create_task(next_of(there, "work"))
        for _ in range(3):
            await asyncio.sleep(0)
        await here.send("work", {"type": "x"})
        assert await reading == {"type": "x"}
        assert there.stats["received"] == 2

    async def test_a_nudge_for_no_name_is_none(self, here):
        here.received(b"\x92\x20\x03")
        assert here.stats["undecodable"] == 1


class TestLoops:
    def test_one_after_the_other(self, directory):
        here = LocalChannelLayer(directory=directory)
        there = LocalChannelLayer(directory=directory)

        async def once():
            sink = await member(there, "room")
            channel = await there.new_channel()
            await here.send(channel, {"type": "x"})
            assert await next_of(there, channel) == {"type": "x"}
            await here.group_send("room", {"type": "y"})
            await sink.until(lambda: bool(sink.events))

        for _ in range(3):
            asyncio.run(once())
        asyncio.run(here.close())
        asyncio.run(there.close())

    async def test_frames_are_read_where_the_consumers_are(self, here, there):
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        channel = await asyncio.wrap_future(
            asyncio.run_coroutine_threadsafe(there.new_channel(), loop)
        )
        assert there._own.door.seat is loop
        sink = await member(there, "room")
        await here.group_send("room", {"type": "x"})
        await sink.until(lambda: bool(sink.events))
        assert there._own.door.seat is asyncio.get_running_loop()
        await here.send(channel, {"type": "y"})
        assert await next_of(there, channel) == {"type": "y"}
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()

    async def test_a_timer_looks_and_there_is_one(self, here):
        here.LOOK_INTERVAL_S = 0.01
        await here.new_channel()
        first = here._look
        for _ in range(3):
            here._next_look = 0
            await here.new_channel()
        assert here._look is first
        looked = []
        here._listen = lambda: looked.append(here._look)
        here._look_now(object())  # the timer of another loop
        assert not looked
        await asyncio.sleep(0.03)
        assert set(looked) == {first}


class TestRemoved:
    async def test_all_begin_anew(self, make, directory, caplog):
        here, there = make(), make()
        sink = await member(there, "room")
        await here.group_send("room", {"type": "x"})
        await sink.until(lambda: bool(sink.events))
        shutil.rmtree(directory)
        there._next_look = 0
        await there.new_channel()
        await sink.until(lambda: len(sink.events) == 2)
        # The other sees it at once, and says that it had sent.
        assert await here.group_send("room", {"type": "y"}) == 1
        await sink.until(lambda: len(sink.events) == 4)
        assert [event["type"] for event in sink.events] == ["x", "layer.gap", "layer.gap", "y"]
        assert "was removed, or files in it: it is made anew" in caplog.text

    async def test_a_socket_alone(self, make, directory):
        here, there = make(), make()
        sink = await member(there, "room")
        os.unlink(directory / f"p-{there.process}")
        there._next_look = 0
        await there.new_channel()
        assert await here.group_send("room", {"type": "x"}) == 1
        await sink.until(lambda: len(sink.events) == 2)
        assert not here._own.table.abandoned

    async def test_a_reader_waits_on(self, make, directory):
        here, there = make(), make()
        reading = asyncio.create_task(next_of(there, "work"))
        await asyncio.sleep(0)
        shutil.rmtree(directory)
        there._next_look = 0
        await there.new_channel()
        await here.group_add("room", "work")
        await here.send("work", {"type": "x"})
        assert await reading == {"type": "x"}
        # Who opens the queue sees to it that its groups can be seen.
        os.unlink(directory / "table")
        there._next_look = here._next_look = 0
        await there.send("other", {"type": "x"})
        await here.group_send("room", {"type": "y"})
        assert await next_of(there, "work") == {"type": "y"}

    async def test_one_that_cannot_be_made_is_tried_again(self, here, directory, caplog):
        sink = await member(here, "room")
        shutil.rmtree(directory)
        directory.touch()
        here._look_now(here._look)
        assert "can't be used: it will be tried again" in caplog.text
        directory.unlink()
        here._look_now(here._look)
        assert here._own.slot is not None
        assert await here.group_send("room", {"type": "x"}) == 0
        assert sink.events[-1] == {"type": "x"}

    async def test_a_table_that_cannot_be_made_leaves_nothing_open(
        self, here, monkeypatch, directory
    ):
        def fail(directory):
            raise OSError("no space left")

        with monkeypatch.context() as context:
            context.setattr(layer_module, "Interest", fail)
            with pytest.raises(OSError, match="no space left"):
                await here.new_channel()
        assert here._own.directory is None
        await here.new_channel()


SEND_AND_END = """
import sys
from headrace.layers.local import LocalChannelLayer
layer = LocalChannelLayer(directory=sys.argv[1])
layer.group_send_sync("room", {"type": "x", "text": "x" * 20_000_000})
"""


class TestItsEnd:
    async def test_what_is_closed_opens_again_when_it_is_used(self, here, there, directory):
        sink = await member(there, "room")
        await there.close()
        await there.close()
        assert [name for name in os.listdir(directory) if name.startswith("p-")] == []
        await there.group_add("room", sink.channel)
        await here.group_send("room", {"type": "x"})
        await sink.until(lambda: bool(sink.events))

    async def test_ways_to_the_dead_are_closed(self, here, there):
        await member(there, "room")
        await here.group_send("room", {"type": "x"})
        assert list(here._own.peers) == [there.process]
        await there.close()
        here._next_look = 0
        await here.group_send("room", {"type": "x"})
        assert not here._own.peers

    def test_one_that_nobody_closes_is_closed_with_its_loop(self, directory):
        layer = LocalChannelLayer(directory=directory)
        asyncio.run(layer.new_channel())
        assert [name for name in os.listdir(directory) if name.startswith("p-")]
        del layer
        gc.collect()
        assert not [name for name in os.listdir(directory) if name.startswith("p-")]

    async def test_one_that_nobody_has_any_more_is_not_kept_by_its_loop(self, directory, here):
        layer = LocalChannelLayer(directory=directory)
        layer.LOOK_INTERVAL_S = 0.01
        await layer.new_channel()
        door = layer._own.door
        layer._own.shut = None
        del layer
        gc.collect()
        assert not [name for name in os.listdir(directory) if name.startswith("p-")]
        for call in (door._take, door._gap, door._refuse):
            call(b"x")
        await asyncio.sleep(0.02)

    async def test_a_process_that_ends_sends_what_it_has(self, here, there):
        sink = await member(there, "room")
        await asyncio.to_thread(
            subprocess.run,
            [
                sys.executable,
                "-c",
                SEND_AND_END,
                str(there.directory),
            ],
            check=True,
        )
        await sink.until(lambda: bool(sink.events))
        assert not here.stats["gaps"]

    async def test_in_a_forked_child(self, here, there):
        """As Python calls it there; in a real one, see the processes."""
        sink = await member(here, "room")
        await member(there, "room")
        await here.group_send("room", {"type": "x"})
        await here.send("work", {"type": "x"})
        before = here.process
        slot = here._own.slot
        here._forked()
        assert here.process != before
        assert not here.groups
        assert (here._own.door, here._own.slot, here._own.peers) == (None, None, {})
        assert len(sink.events) == 1
        slot._table.bury(before)  # here nobody has the lock any more
        here._forked()  # nothing is open
        holdings._inherited.pop().close()
