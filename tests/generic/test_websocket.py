"""The WebSocket consumers without a server: what each method promises."""

import asyncio
import json
from unittest.mock import AsyncMock, Mock

import pytest

from headrace.exceptions import InvalidChannelLayerError, StopConsumer
from headrace.generic.websocket import (
    AsyncJsonWebsocketConsumer,
    AsyncWebsocketConsumer,
    JsonWebsocketConsumer,
    WebsocketConsumer,
)
from headrace.layers import InMemoryChannelLayer
from headrace.testing import ApplicationCommunicator, WebsocketCommunicator

from .probes import AsyncProbe, Diary, SyncProbe, Trouble

BOTH = pytest.mark.parametrize("consumer_class", [AsyncWebsocketConsumer, WebsocketConsumer])
BOTH_JSON = pytest.mark.parametrize(
    "consumer_class", [AsyncJsonWebsocketConsumer, JsonWebsocketConsumer]
)


@pytest.fixture
def talk():
    """Connect to a consumer; the communicator."""

    async def connect(consumer_class, **options):
        communicator = WebsocketCommunicator(consumer_class.as_asgi(), "/", **options)
        assert (await communicator.connect())[0]
        return communicator

    return connect


@BOTH
async def test_the_plainest_consumer_accepts_and_listens(consumer_class, talk, layer):
    communicator = await talk(consumer_class)
    await communicator.send_to("hello")
    await communicator.send_to(bytes_data=b"hello")
    assert await communicator.receive_nothing(timeout=0.02)
    await communicator.disconnect()
    assert not layer.channels


@BOTH_JSON
async def test_json_goes_both_ways(consumer_class, talk, layer):
    if consumer_class is AsyncJsonWebsocketConsumer:

        class Echo(AsyncJsonWebsocketConsumer):
            async def receive_json(self, content, **kwargs):
                await self.send_json({"echo": content}, close=content == "bye" and 4009)
    else:

        class Echo(JsonWebsocketConsumer):
            def receive_json(self, content, **kwargs):
                self.send_json({"echo": content}, close=content == "bye" and 4009)

    communicator = await talk(Echo)
    for value in ({"a": [1, 2.5, None, True, "ü"]}, [], "", 0):
        await communicator.send_json_to(value)
        assert await communicator.receive_json_from() == {"echo": value}
    await communicator.send_json_to("bye")
    assert await communicator.receive_json_from() == {"echo": "bye"}
    assert await communicator.receive_output() == {"type": "websocket.close", "code": 4009}
    await communicator.disconnect()


@BOTH_JSON
async def test_what_is_no_json_ends_the_consumer_with_an_error(consumer_class, talk, layer):
    communicator = await talk(consumer_class)
    await communicator.send_to("{")
    with pytest.raises(json.JSONDecodeError):
        await communicator.wait()
    communicator = await talk(consumer_class)
    await communicator.send_to(bytes_data=b"{}")
    with pytest.raises(ValueError, match="not bytes"):
        await communicator.wait()


@BOTH_JSON
async def test_json_without_a_handler_is_heard_and_forgotten(consumer_class, talk, layer):
    communicator = await talk(consumer_class)
    await communicator.send_json_to({"a": 1})
    assert await communicator.receive_nothing(timeout=0.02)
    await communicator.disconnect()


@BOTH_JSON
async def test_the_format_can_be_another(consumer_class, talk, layer):
    if consumer_class is AsyncJsonWebsocketConsumer:

        class Loud(AsyncJsonWebsocketConsumer):
            async def receive_json(self, content, **kwargs):
                await self.send_json(content)

            @classmethod
            async def decode_json(cls, text_data):
                return {"was": text_data}

            @classmethod
            async def encode_json(cls, content):
                return content["was"].upper()
    else:

        class Loud(JsonWebsocketConsumer):
            def receive_json(self, content, **kwargs):
                self.send_json(content)

            @classmethod
            def decode_json(cls, text_data):
                return {"was": text_data}

            @classmethod
            def encode_json(cls, content):
                return content["was"].upper()

    communicator = await talk(Loud)
    await communicator.send_to("no json")
    assert await communicator.receive_from() == "NO JSON"
    await communicator.disconnect()


@BOTH
async def test_the_events_are_those_of_asgi(consumer_class, talk, layer):
    if consumer_class is AsyncWebsocketConsumer:

        class Sends(AsyncWebsocketConsumer):
            async def receive(self, text_data=None, bytes_data=None):
                await self.send("text")
                await self.send(bytes_data=b"bytes", close=True)

        class Closes(AsyncWebsocketConsumer):
            async def receive(self, text_data=None, bytes_data=None):
                await self.close(4001, "a reason")
    else:

        class Sends(WebsocketConsumer):
            def receive(self, text_data=None, bytes_data=None):
                self.send("text")
                self.send(bytes_data=b"bytes", close=True)

        class Closes(WebsocketConsumer):
            def receive(self, text_data=None, bytes_data=None):
                self.close(4001, "a reason")

    communicator = await talk(Sends)
    await communicator.send_to("")
    assert [await communicator.receive_output() for _ in range(3)] == [
        {"type": "websocket.send", "text": "text"},
        {"type": "websocket.send", "bytes": b"bytes"},
        {"type": "websocket.close"},
    ]
    await communicator.disconnect()
    communicator = await talk(Closes)
    await communicator.send_to("")
    assert await communicator.receive_output() == {
        "type": "websocket.close",
        "code": 4001,
        "reason": "a reason",
    }
    await communicator.disconnect()


@BOTH
async def test_to_send_nothing_is_an_error(consumer_class, talk, layer):
    if consumer_class is AsyncWebsocketConsumer:

        class Silent(AsyncWebsocketConsumer):
            async def receive(self, text_data=None, bytes_data=None):
                await self.send(close=True)
    else:

        class Silent(WebsocketConsumer):
            def receive(self, text_data=None, bytes_data=None):
                self.send(close=True)

    communicator = await talk(Silent)
    await communicator.send_to("")
    with pytest.raises(ValueError, match="text_data or bytes_data"):
        await communicator.wait()


@pytest.fixture
async def prober(request):
    async def connect(probe_class, connecting, **scope):
        probe = type("Probe", (probe_class,), {"connecting": connecting, "diary": Diary()})
        communicator = WebsocketCommunicator(probe.as_asgi(), "/")
        communicator.scope.update(scope)
        return communicator, await communicator.connect()

    return connect


PROBES = pytest.mark.parametrize("probe_class", [AsyncProbe, SyncProbe])


@PROBES
async def test_a_server_without_denials_gets_a_plain_close(probe_class, prober, layer):
    for extensions in ({}, {"tls": {}}):
        communicator, answer = await prober(probe_class, "deny", extensions=extensions)
        assert answer == (False, 1000)
        await communicator.disconnect(1006)


@PROBES
async def test_the_events_of_a_denial_are_those_of_asgi(probe_class, prober, layer):
    extensions = {"websocket.http.response": {}}
    communicator, answer = await prober(probe_class, "deny", extensions=extensions)
    assert answer == (False, 404)
    assert await communicator.receive_output() == {
        "type": "websocket.http.response.body",
        "body": b"no such room",
    }
    await communicator.disconnect(1006)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((99, ""), ValueError),
        ((600, ""), ValueError),
        (("404", ""), ValueError),
        ((404, {"a": 1}), TypeError),
        ((404, None), TypeError),
    ],
)
async def test_what_cannot_be_denied_with(arguments, error, layer):
    class Denies(AsyncWebsocketConsumer):
        async def connect(self):
            await self.deny(*arguments)

    with pytest.raises(error):
        await WebsocketCommunicator(Denies.as_asgi(), "/").connect()


async def test_a_denial_to_somebody_who_is_gone_is_no_error(layer):
    gate = asyncio.Event()

    class Late(AsyncWebsocketConsumer):
        async def connect(self):
            await gate.wait()
            await self.deny(404, "late")

    communicator = WebsocketCommunicator(Late.as_asgi(), "/")
    communicator.scope["extensions"] = {"websocket.http.response": {}}
    await communicator.send_input({"type": "websocket.connect"})
    await communicator.send_input({"type": "websocket.disconnect", "code": 1006})
    await asyncio.sleep(0)
    gate.set()
    await communicator.wait()


@BOTH_JSON
async def test_a_send_of_ones_own_may_be_made_of_send_json(consumer_class, talk, layer):
    """As applications do: send_json() does not come back to it."""
    if consumer_class is AsyncJsonWebsocketConsumer:

        class Own(AsyncJsonWebsocketConsumer):
            async def receive_json(self, content, **kwargs):
                await self.send(content, "reply")

            async def send(self, content, kind):
                await self.send_json({"kind": kind, "content": content})
    else:

        class Own(JsonWebsocketConsumer):
            def receive_json(self, content, **kwargs):
                self.send(content, "reply")

            def send(self, content, kind):
                self.send_json({"kind": kind, "content": content})

    communicator = await talk(Own)
    await communicator.send_json_to(1)
    assert await communicator.receive_json_from() == {"kind": "reply", "content": 1}
    await communicator.disconnect()


async def test_a_consumer_can_be_tried_without_a_connection():
    """With what stands for the server and the layer, as many applications test theirs."""

    class Grouped(AsyncWebsocketConsumer):
        groups = ("room",)

    consumer = Grouped()
    consumer.channel_layer, consumer.channel_name = AsyncMock(), "name"
    consumer.base_send = AsyncMock()
    await consumer.websocket_connect({})
    consumer.channel_layer.group_add.assert_awaited_once_with("room", "name")
    await consumer.send("text", close=True)
    with pytest.raises(StopConsumer):
        await consumer.websocket_disconnect({"code": 1000})
    consumer.channel_layer.group_discard.assert_awaited_once_with("room", "name")
    assert [call.args[0]["type"] for call in consumer.base_send.await_args_list] == [
        "websocket.accept",
        "websocket.send",
        "websocket.close",
    ]


def test_a_synchronous_consumer_can_be_tried_without_a_connection():
    consumer = WebsocketConsumer()
    consumer.base_send = Mock()
    consumer.channel_layer = Mock()
    consumer.websocket_connect({})
    consumer.send("text", close=True)
    with pytest.raises(StopConsumer):
        consumer.websocket_disconnect({"code": 1000})
    assert [call.args[0]["type"] for call in consumer.base_send.call_args_list] == [
        "websocket.accept",
        "websocket.send",
        "websocket.close",
    ]


@BOTH
async def test_the_groups_of_a_class_and_of_an_instance(consumer_class, talk, layer):
    class InClass(consumer_class):
        groups = ("one", "two")

    class InInstance(consumer_class):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.groups.append("three")

    assert consumer_class.groups is None
    assert consumer_class().groups == []
    first, second = await talk(InClass), await talk(InInstance)
    assert set(layer.groups) == {"one", "two", "three"}
    await first.disconnect()
    assert set(layer.groups) == {"three"}
    await second.disconnect()
    assert not layer.groups


@BOTH
@pytest.mark.parametrize("settings_value", [{}, {"default": None}], ids=["no layer", "no groups"])
async def test_groups_need_a_layer_that_has_them(consumer_class, settings, settings_value):
    if settings_value:
        settings.CHANNEL_LAYERS = {
            "default": {"BACKEND": "tests.generic.test_websocket.LayerWithoutGroups"}
        }
    else:
        settings.CHANNEL_LAYERS = {}

    class Grouped(consumer_class):
        groups = ("room",)

    communicator = WebsocketCommunicator(Grouped.as_asgi(), "/")
    with pytest.raises(InvalidChannelLayerError, match=r"Grouped\.groups needs"):
        await communicator.connect()
    # Without groups it works without a layer.
    communicator = WebsocketCommunicator(consumer_class.as_asgi(), "/")
    assert (await communicator.connect())[0]
    await communicator.disconnect()


@BOTH
async def test_a_text_is_no_list_of_groups(consumer_class):
    class Lettered(consumer_class):
        groups = "room"  # as a list it would be four groups

    communicator = WebsocketCommunicator(Lettered.as_asgi(), "/")
    with pytest.raises(TypeError, match=r"Lettered\.groups is a list of names: write \['room'\]"):
        await communicator.connect()


class LayerWithoutGroups(InMemoryChannelLayer):
    extensions = ()


@BOTH
async def test_a_group_that_cannot_be_left_holds_up_nothing(
    consumer_class, talk, layer, caplog, monkeypatch
):
    class Grouped(consumer_class):
        groups = ("one", "two")

    async def group_discard(group, channel, discard=layer.group_discard):
        if group == "one":
            raise ConnectionResetError("the broker is away")
        await discard(group, channel)

    communicator = await talk(Grouped)
    monkeypatch.setattr(layer, "group_discard", group_discard)
    await communicator.disconnect()
    assert not layer.groups  # the channel took its membership with it
    assert [record.getMessage() for record in caplog.records] == [
        "Grouped could not leave the group one"
    ]


@BOTH
async def test_a_server_may_leave_out_the_code(consumer_class, layer):
    diary = Diary()
    if consumer_class is AsyncWebsocketConsumer:

        class Notes(AsyncWebsocketConsumer):
            async def disconnect(self, code):
                diary.note("disconnect", code)
    else:

        class Notes(WebsocketConsumer):
            def disconnect(self, code):
                diary.note("disconnect", code)

    communicator = WebsocketCommunicator(Notes.as_asgi(), "/")
    await communicator.connect()
    await communicator.send_input({"type": "websocket.disconnect"})
    await communicator.wait()
    assert diary.all("disconnect") == [1005]


async def test_a_consumer_may_end_itself_as_a_disconnect_would(layer):
    """Someone calls the handler by hand: disconnect() does not run a second time."""
    diary = Diary()

    class Leaves(AsyncWebsocketConsumer):
        groups = ("room",)

        async def receive(self, text_data=None, bytes_data=None):
            await self.websocket_disconnect({"code": 4010})

        async def disconnect(self, code):
            diary.note("disconnect", code)

    communicator = WebsocketCommunicator(Leaves.as_asgi(), "/")
    await communicator.connect()
    await communicator.send_to("go")
    await communicator.wait()
    assert diary.all("disconnect") == [4010]


async def test_an_overridden_handler_of_the_disconnect_is_called_once(layer):
    diary = Diary()

    class Own(AsyncWebsocketConsumer):
        async def websocket_disconnect(self, message):
            diary.note("disconnect", message["code"])
            raise StopConsumer

    communicator = WebsocketCommunicator(Own.as_asgi(), "/")
    await communicator.connect()
    await communicator.disconnect(4011)
    assert diary.all("disconnect") == [4011]


async def test_a_cancellation_while_disconnecting_does_not_begin_it_again(layer):
    diary = Diary()

    class Slow(AsyncWebsocketConsumer):
        groups = ("room",)

        async def disconnect(self, code):
            diary.note("disconnect", code)
            await asyncio.Event().wait()

    communicator = WebsocketCommunicator(Slow.as_asgi(), "/")
    await communicator.connect()
    await communicator.disconnect(4012, timeout=0.05)
    assert diary.all("disconnect") == [4012]
    assert not layer.channels


async def test_a_cancellation_before_anything_has_begun_ends_nothing(layer):
    diary = Diary()

    class Notes(AsyncWebsocketConsumer):
        async def disconnect(self, code):
            diary.note("disconnect", code)

    async with ApplicationCommunicator(Notes.as_asgi(), {"type": "websocket"}) as communicator:
        assert await communicator.receive_nothing(timeout=0.02)
    assert not diary.entries
    assert not layer.channels


async def test_after_the_close_a_message_is_met_as_if_the_client_were_gone(layer):
    """On every server alike: the handler is given up, and that is no error."""
    diary = Diary()

    class Talkative(AsyncWebsocketConsumer):
        async def receive(self, text_data=None, bytes_data=None):
            await self.close(4013)
            await self.close(4014)  # once more is nothing
            try:
                await self.send("one more thing")
            except OSError as error:
                diary.note("refused", str(error))
                raise

        async def disconnect(self, code):
            diary.note("disconnect", code)

    communicator = WebsocketCommunicator(Talkative.as_asgi(), "/")
    await communicator.connect()
    await communicator.send_to("go")
    assert await communicator.receive_output() == {"type": "websocket.close", "code": 4013}
    await communicator.disconnect(4013)
    assert diary.all("refused") == ["cannot send 'websocket.send': the WebSocket is closed"]
    assert diary.all("disconnect") == [4013]
    assert await communicator.receive_nothing(timeout=0.01)


@BOTH
async def test_an_oserror_of_the_application_is_an_error(consumer_class, talk, layer):
    """Only what ``send`` raised is taken for the client's leaving."""
    if consumer_class is AsyncWebsocketConsumer:

        class Reads(AsyncWebsocketConsumer):
            async def receive(self, text_data=None, bytes_data=None):
                raise FileNotFoundError(text_data)
    else:

        class Reads(WebsocketConsumer):
            def receive(self, text_data=None, bytes_data=None):
                raise FileNotFoundError(text_data)

    communicator = await talk(Reads)
    await communicator.send_to("the file")
    with pytest.raises(FileNotFoundError, match="the file"):
        await communicator.wait()


async def test_the_end_after_an_error_may_meet_that_the_client_is_gone(layer, caplog):
    class Fails(AsyncWebsocketConsumer):
        async def receive(self, text_data=None, bytes_data=None):
            await self.close()
            raise Trouble

        async def disconnect(self, code):
            await self.send("sorry")

    communicator = WebsocketCommunicator(Fails.as_asgi(), "/")
    await communicator.connect()
    await communicator.send_to("go")
    with pytest.raises(Trouble):
        await communicator.wait()
    assert not caplog.records
