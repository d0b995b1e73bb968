"""The conformance suite, on our own layer and on one that is not."""

import asyncio
import itertools
import logging
import os
import pickle
from typing import ClassVar
from unittest import SkipTest

import pytest

from headrace.exceptions import ChannelFull
from headrace.layers import InMemoryChannelLayer, LocalChannelLayer
from headrace.testing.layers import KINDS, ChannelLayerConformance, RecordingSink
from headrace.testing.layers._processes import Processes
from headrace.testing.layers.peer import OtherLayer, OtherProcess, serve

from . import broken
from .plain import PlainLayer


class TestInMemoryLayer(ChannelLayerConformance):
    one_process = True
    shared = False

    async def make_layer(self, **options):
        return InMemoryChannelLayer(**options)


class TestTwoHandlesOfOneLayer(ChannelLayerConformance):
    """Two processes, as far as one can tell without a second."""

    one_process = True
    many_members = 10

    async def make_layer(self, **options):
        if not self.made:
            type(self).one = InMemoryChannelLayer(**options)
        return self.one


class TestPlainLayer(ChannelLayerConformance):
    """What a third party writes passes too, without a base class and by pulling only."""

    one_process = True
    shared = False
    several_loops = False
    sync_sends = False
    many_members = 200

    async def make_layer(self, **options):
        return PlainLayer(**options)


# A suite that finds nothing is worth nothing


#: Each broken layer, and the tests that it fails.
IN_ONE_PROCESS = {
    broken.Losing: """
        a channel may be in many groups
        a layer works on one loop after another
        a layer works on several loops at once
        a member that leaves during sends disturbs nobody
        a sender is heard in order by every member
        a sink is pushed to in order
        many who send join and leave at once are kept apart
        what waited is pushed first
    """,
    broken.Repeating: """
        a layer works on one loop after another
        a layer works on several loops at once
        a reader that is cancelled at any time takes no message with it
        a sink is pushed to in order
        each of several senders is heard in its order
        messages come in the order in which they were sent
        readers of one channel share its messages
    """,
    broken.Reordering: """
        a channel may be in many groups
        a full channel says so to its sender
        a member that leaves during sends disturbs nobody
        a sender is heard in order by every member
        each of several senders is heard in its order
        many who send join and leave at once are kept apart
        messages come in the order in which they were sent
        who comes again hears again
    """,
    broken.Everlasting: """
        messages that nobody fetches expire
        what has expired leaves room
    """,
    broken.Faithful: """
        memberships expire
    """,
    broken.Leaking: """
        a channel may be in many groups
        a group may be big
        a named channel may be a member
        who comes again hears again
        who joins twice hears once and leaves once
    """,
    broken.Counting: """
        who joins twice hears once and leaves once
    """,
    broken.Boundless: """
        a full channel says so to its sender
        a full member does not keep a group from its message
        some channels have capacities of their own
    """,
    broken.Silent: """
        a full channel says so to its sender
        some channels have capacities of their own
    """,
    broken.Uniform: """
        some channels have capacities of their own
    """,
    broken.Raising: """
        a full member does not keep a group from its message
    """,
    broken.Unchecked: """
        illegal names are refused by whoever takes them
    """,
    broken.Narrow: """
        the longest and oddest names are taken
    """,
    broken.Taking: """
        a cancelled reader gives its turn to another
        a reader that is cancelled at any await takes no message with it
        a reader that is cancelled at any time takes no message with it
    """,
    broken.Forgetting: """
        a cancelled reader gives its turn to another
        a reader that is cancelled at any await takes no message with it
        a reader that is cancelled at any time takes no message with it
    """,
    broken.Sharing: """
        every reader has a message of its own
    """,
    broken.Crossing: """
        a channel may be in many groups
    """,
    broken.Repetitive: """
        a full member does not keep a group from its message
        a group may be big
        a group reaches its members and nobody else
        a member that leaves during sends disturbs nobody
        a sender is heard in order by every member
        channels do not hear each other
        every reader has a message of its own
        many who send join and leave at once are kept apart
        new channels are local legal and different
    """,
    broken.Keeping: """
        flush forgets messages and groups
    """,
    broken.Ending: """
        after a flush all goes on
    """,
    broken.Untidy: """
        closing leaves no task no thread and nothing open
    """,
    broken.Fragile: """
        closing once more is no error
    """,
    broken.Stringent: """
        what msgpack knows arrives as it went
        what python has beside that arrives as it went
    """,
    broken.Small: """
        a big message passes
    """,
    broken.Swallowing: """
        a message is a dictionary
        illegal names are refused by whoever takes them
        what cannot travel is told to the sender and harms nobody
    """,
    broken.LateAttaching: """
        what waited is pushed first
    """,
    broken.Encoding: """
        an event for clients is one event with one set of frames
    """,
    broken.Staying: """
        membership leaves with its channel
    """,
    broken.Uncounted: """
        a full member is counted whatever its policy and raises nothing
    """,
    broken.Careless: """
        on the thread of a loop a synchronous send says what to do
    """,
    broken.Deferring: """
        a prepared message is a copy and is checked
    """,
    broken.Mute: """
        synchronous code sends to channels and groups in order
        threads that send at once are each heard in order
    """,
    broken.OneLoop: """
        a layer works on one loop after another
        a layer works on several loops at once
    """,
}
IN_TWO_PROCESSES = {
    broken.Alone: """
        a channel of another process gets what is sent to it in order
        readers in two processes share a named channel
        a group has members in both processes each of whom hears in order
        processes that send at once are each heard in order
        any process may add and discard any channel
        who has joined hears what another process sends from then on
        who has left does not hear what another process sends from then on
        a named channel that is a member gets a groups message once
        whatever travels arrives in another process as it went
        a big message passes from process to process
        consumers of another process are pushed to in order
        synchronous code reaches another process
        a process that is killed takes nobody with it
    """,
    broken.LosingFrames: """
        a channel of another process gets what is sent to it in order
        a group has members in both processes each of whom hears in order
        processes that send at once are each heard in order
        who has joined hears what another process sends from then on
        whatever travels arrives in another process as it went
        consumers of another process are pushed to in order
        synchronous code reaches another process
        a process that is killed takes nobody with it
    """,
    broken.RepeatingFrames: """
        a channel of another process gets what is sent to it in order
        a group has members in both processes each of whom hears in order
        processes that send at once are each heard in order
        any process may add and discard any channel
        who has left does not hear what another process sends from then on
        whatever travels arrives in another process as it went
        consumers of another process are pushed to in order
        synchronous code reaches another process
        a process that is killed takes nobody with it
    """,
    broken.ReorderingFrames: """
        a channel of another process gets what is sent to it in order
        a group has members in both processes each of whom hears in order
        processes that send at once are each heard in order
        consumers of another process are pushed to in order
        synchronous code reaches another process
        a process that is killed takes nobody with it
    """,
    broken.LeakingAcross: """
        any process may add and discard any channel
        who has left does not hear what another process sends from then on
    """,
    broken.Hasty: """
        who has joined hears what another process sends from then on
    """,
    broken.Apart: """
        readers in two processes share a named channel
        a named channel that is a member gets a groups message once
    """,
    broken.Boasting: """
        a group send tells how many other processes it reached or none
    """,
    broken.Waiting: """
        a send to the dead ends
    """,
}


def names_in(chapter):
    return [name for name in dir(chapter) if name.startswith("test_")]


def named(words):
    return {f"test_{line.strip().replace(' ', '_')}" for line in words.split("\n") if line.strip()}


def failures(suite_class, tests, expected, impatience_s):
    """Run the tests, and return those that fail, each with its explanation."""
    failed = {}
    for name in tests:
        suite = suite_class()
        if name in expected:
            suite.patience_s = impatience_s  # for what will not come
        try:
            getattr(suite, name)()
        except SkipTest:
            continue
        except Exception as error:
            failed[name] = f"{type(error).__name__}: {error}"
    suite_class.teardown_class()
    return failed


@pytest.fixture
def _silence(caplog):
    caplog.set_level(logging.CRITICAL, "headrace")
    caplog.set_level(logging.CRITICAL, "asyncio")


class TestASuiteThatFindsNothingIsWorthNothing:
    @pytest.mark.usefixtures("_silence")
    @pytest.mark.parametrize("layer_class", IN_ONE_PROCESS, ids=lambda each: each.__name__)
    def test_a_broken_promise_fails_its_own_tests(self, layer_class):
        class Suite(ChannelLayerConformance):
            one_process = True
            shared = False
            several_loops = sync_sends = issubclass(layer_class, InMemoryChannelLayer)
            shortest_expiry_s = 0.02
            many_members = 20
            big_message = 200_000

            async def make_layer(self, **options):
                return layer_class(**options)

        expected = named(IN_ONE_PROCESS[layer_class])
        failed = failures(Suite, names_in(Suite), expected, 0.02)
        assert set(failed) == expected, failed

    @pytest.mark.usefixtures("_silence")
    @pytest.mark.parametrize("layer_class", IN_TWO_PROCESSES, ids=lambda each: each.__name__)
    def test_so_does_one_that_is_broken_between_processes(self, layer_class, tmp_path):
        numbers = itertools.count()

        class Suite(ChannelLayerConformance):
            shared = False
            big_message = 200_000

            def __init__(self):
                spans = issubclass(layer_class, LocalChannelLayer)
                self.where = {"directory": tmp_path / str(next(numbers))} if spans else {}

            async def make_layer(self, **options):
                return layer_class(**self.where, **options)

            def in_another_process(self, **options):
                return layer_class, {**self.where, **options}

        expected = named(IN_TWO_PROCESSES[layer_class])
        failed = failures(Suite, names_in(Processes), expected, 0.1)
        assert set(failed) == expected, failed

    def test_what_a_layer_need_not_do_is_not_asked(self):
        class Modest(PlainLayer):
            extensions = ("groups",)

        class Suite(ChannelLayerConformance):
            one_process = True
            shared = several_loops = sync_sends = False
            several_readers = isolates_messages = False
            many_members = 5

            async def make_layer(self, **options):
                return Modest(**options)

        suite = Suite()
        for name, why in (
            ("test_readers_of_one_channel_share_its_messages", "several_readers = False"),
            ("test_every_reader_has_a_message_of_its_own", "isolates_messages = False"),
            ("test_many_synchronous_sends_leave_nothing_behind", "sync_sends = False"),
            ("test_a_layer_works_on_several_loops_at_once", "several_loops = False"),
            ("test_two_layers_of_one_process_reach_each_other", "shared = False"),
            ("test_two_processes_give_no_channel_twice", "one_process = True"),
            ("test_a_send_to_the_dead_ends", "one_process = True"),
            ("test_flush_forgets_messages_and_groups", "'flush' is not among the extensions"),
            ("test_a_sink_is_pushed_to_in_order", "does not push"),
        ):
            with pytest.raises(SkipTest, match=why):
                getattr(suite, name)()

    def test_who_says_nothing_of_another_process_is_asked_to(self):
        class Suite(ChannelLayerConformance):
            async def make_layer(self, **options):
                return InMemoryChannelLayer(**options)

        with pytest.raises(
            NotImplementedError, match=r"Suite: implement in_another_process\(\), or"
        ):
            Suite().test_two_processes_give_no_channel_twice()

    @pytest.mark.parametrize("declared", [True, False])
    def test_what_a_layer_changes_is_declared(self, declared):
        class Textual(broken.Stringent):
            """Bytes are refused, and what JSON doesn't have becomes text."""

            async def send(self, channel, message):
                if isinstance(message.get("value"), bytes):
                    raise TypeError("bytes")
                await super().send(channel, message)

        class Suite(ChannelLayerConformance):
            one_process = True
            if declared:
                arrives_as: ClassVar = {
                    **{kind: str for kind in KINDS if kind not in SAME_AS_TEXT},
                    "bytes": None,
                }

            async def make_layer(self, **options):
                return Textual(**options)

        for name in ("what_msgpack_knows", "what_python_has_beside_that"):
            test = getattr(Suite(), f"test_{name}_arrives_as_it_went")
            if declared:
                test()
            else:
                with pytest.raises((AssertionError, TypeError)):
                    test()


SAME_AS_TEXT = {
    *("str", "int", "float", "bool", "None", "list", "dict"),
    *("big unsigned int", "huge int", "special float", "dict with other keys"),
}


class TestTheOtherProcess:
    @pytest.fixture
    def other(self):
        process = OtherProcess()
        yield process
        process.stop()

    async def begin(self, process, make=InMemoryChannelLayer, **options):
        layer = OtherLayer(process, 5)
        await layer.begin(make, options)
        return layer

    async def test_it_does_with_its_layer_what_it_is_asked(self, other):
        layer = await self.begin(other, capacity=2)
        channel = await layer.call("new_channel")
        await layer.call("group_add", "room", channel)
        waiting = layer.start("receive", channel)
        await layer.call_sync("group_send_sync", "room", {"type": "x"})
        assert await waiting == {"type": "x"}
        await layer.attach(channel)
        await layer.send_many("group_send", "room", "count", 2)
        await layer.call("group_send", "room", {"type": "websocket.send", "text": "x"})
        events, transmitted = await layer.heard(channel, 2, 1)
        assert [event["number"] for event in events] == [0, 1]
        assert transmitted == [{"type": "websocket.send", "text": "x"}]
        await layer.end()

    async def test_its_errors_come_here(self, other):
        layer = await self.begin(other, capacity=1)
        await layer.call("send", "work", {"type": "x"})
        with pytest.raises(ChannelFull):
            await layer.call("send", "work", {"type": "x"})
        with pytest.raises(AttributeError):
            await layer.call("no_such_method")
        with pytest.raises(RuntimeError, match="Hub"):  # what can't be pickled
            await layer.call_sync("__getattribute__", "_hub")

    async def test_what_it_cannot_import_it_says(self, other):
        class Here(InMemoryChannelLayer):
            pass

        with pytest.raises(AttributeError, match="Here"):
            await self.begin(other, Here)

    async def test_its_end_is_that_of_its_input(self):
        """What the child does, here: both ends of its pipes are ours."""
        requests, asking = map(os.fdopen, os.pipe(), ("rb", "wb"), (0, 0))
        answering, answers = map(os.fdopen, os.pipe(), ("rb", "wb"), (0, 0))

        def ask(number, *request):
            asking.write(pickle.dumps((number, pickle.dumps(request))))

        with requests, answering, answers:
            serving = asyncio.ensure_future(serve(requests, answers))
            ask(1, "call", "new_channel")
            ask(2, "begin", InMemoryChannelLayer, {"capacity": 1})
            ask(3, "call_sync", "__getattribute__", "_hub")
            ask(4, "attach", "specific.a!1")
            ask(5, "send_many", "send", "specific.a!1", "count", 2)
            ask(6, "heard", "specific.a!1", 2, 0, 5)
            ask(7, "heard", "specific.a!1", 3, 0, 0.01)
            ask(8, "call", "receive", "work")
            answered = {}
            while len(answered) < 7:
                number, error, value = await asyncio.to_thread(pickle.load, answering)
                answered[number] = value if error is None else error
            asking.close()
            await serving
        assert isinstance(answered.pop(1), AttributeError)
        assert isinstance(answered.pop(3), RuntimeError)
        events = [{"type": "count", "number": number} for number in range(2)]
        assert answered == {2: None, 4: None, 5: None, 6: (events, []), 7: (events, [])}

    async def test_who_is_killed_answers_nobody(self, other):
        layer = await self.begin(other)
        waiting = layer.start("receive", "work")
        other.kill()
        with pytest.raises(ProcessLookupError):
            await waiting
        with pytest.raises(ProcessLookupError):
            await layer.call("new_channel")
        assert other.ended
        await layer.end()


async def test_a_recording_sink_has_the_room_that_it_says():
    sink = RecordingSink(room=1)
    assert sink.put({"type": "a"})
    assert not sink.put({"type": "b"})
    assert sink.transmit({"type": "websocket.send"}, {})
    assert not sink.transmit({"type": "websocket.send"}, {})


async def test_the_base_of_a_suite_has_no_layer():
    with pytest.raises(NotImplementedError):
        await ChannelLayerConformance().layer()
