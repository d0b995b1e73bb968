"""The conformance suite, on our own layer and on one that is not."""

import asyncio

import pytest

from headrace.layers import InMemoryChannelLayer
from headrace.testing.layers import ChannelLayerConformance, RecordingSink

from .plain import PlainLayer


class TestInMemoryLayer(ChannelLayerConformance):
    async def make_layer(self, **options):
        return InMemoryChannelLayer(**options)


class TestTwoHandlesOfOneLayer(ChannelLayerConformance):
    """Two processes, as far as one can tell without a second."""

    shared = True
    many_members = 10

    async def make_layer(self, **options):
        if not self.made:
            type(self).one = InMemoryChannelLayer(**options)
        return self.one


class TestPlainLayer(ChannelLayerConformance):
    """What a third party writes passes too, without a base class and by pulling only."""

    many_members = 200

    async def make_layer(self, **options):
        return PlainLayer(**options)


class Lossy(InMemoryChannelLayer):
    async def group_send(self, group, message):
        if message.get("number") != 3:
            await super().group_send(group, message)


class TestASuiteThatFindsNothingIsWorthNothing:
    """The suite fails for layers that break what it tests."""

    def conformance(self, layer_class, **attributes):
        class Suite(ChannelLayerConformance):
            async def make_layer(self, **options):
                return layer_class(**options)

        suite = Suite()
        suite.patience_s = 0.1
        for name, value in attributes.items():
            setattr(suite, name, value)
        return suite

    def test_a_lost_message_is_found(self):
        with pytest.raises(TimeoutError):
            self.conformance(Lossy).test_a_sender_is_heard_in_order_by_every_member()

    def test_a_shared_message_is_found(self):
        class Sharing(PlainLayer):
            async def group_send(self, group, message):
                for channel in self.groups[group]:
                    self.queues.setdefault(channel, asyncio.Queue()).put_nowait((1e12, message))

        with pytest.raises(AssertionError):
            self.conformance(Sharing).test_every_reader_has_a_message_of_its_own()

    def test_a_reader_that_takes_its_message_with_it_is_found(self):
        class Taking(PlainLayer):
            async def receive(self, channel):
                message = await super().receive(channel)
                await asyncio.sleep(0)
                return message

        with pytest.raises((AssertionError, TimeoutError)):
            self.conformance(Taking).test_a_cancelled_reader_takes_no_message_with_it()

    def test_a_layer_without_bounds_is_found(self):
        class Boundless(PlainLayer):
            def get_capacity(self, channel):
                return 10**9

        with pytest.raises(AssertionError, match="no ChannelFull"):
            self.conformance(Boundless).test_a_full_channel_says_so_to_its_sender()

    def test_unchecked_names_are_found(self):
        class Unchecked(PlainLayer):
            def valid_group_name(self, name):
                return True

        with pytest.raises(AssertionError, match="as a name"):
            self.conformance(Unchecked).test_illegal_names_are_refused_by_whoever_takes_them()

    def test_what_a_layer_need_not_do_is_not_asked(self):
        class Modest(PlainLayer):
            extensions = ("groups",)

        suite = self.conformance(
            Modest,
            several_readers=False,
            isolates_messages=False,
            carries_datetimes=False,
        )
        suite.test_readers_of_one_channel_share_its_messages()
        suite.test_a_cancelled_reader_gives_its_turn_to_another()
        suite.test_every_reader_has_a_message_of_its_own()
        suite.test_messages_arrive_as_they_went()
        suite.test_flush_forgets_messages_and_groups()


async def test_a_recording_sink_has_the_room_that_it_says():
    sink = RecordingSink(room=1)
    assert sink.put({"type": "a"})
    assert not sink.put({"type": "b"})
    assert sink.transmit({"type": "websocket.send"}, {})
    assert not sink.transmit({"type": "websocket.send"}, {})


async def test_the_base_of_a_suite_has_no_layer():
    with pytest.raises(NotImplementedError):
        await ChannelLayerConformance().layer()
