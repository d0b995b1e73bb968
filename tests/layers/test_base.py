import re

import pytest

from headrace.layers import BaseChannelLayer
from headrace.layers.base import check_client_event, is_client_event


@pytest.fixture
def layer():
    return BaseChannelLayer(capacity=7, channel_capacity={"a.*": 1, re.compile("b+$"): 2, "c": 3})


def test_defaults():
    layer = BaseChannelLayer()
    assert (layer.expiry, layer.capacity, layer.channel_capacity) == (60, 100, [])
    assert not layer.pushes
    assert not layer.extensions


def test_the_first_pattern_that_matches_gives_the_capacity(layer):
    names = ["a.b", "a", "bb", "bbc", "c", "cc", "ab"]
    assert [layer.get_capacity(name) for name in names] == [1, 7, 2, 7, 3, 7, 7]


def test_capacities_may_be_compiled_once_more(layer):
    """As layers written for Channels do, whose base leaves it to them."""
    assert layer.compile_capacities(layer.channel_capacity) == layer.channel_capacity


@pytest.mark.parametrize("name", ["a", "A-z_0.9", "x" * 99, "prefix!", "prefix!local-1"])
def test_legal_names_of_channels(layer, name):
    assert layer.require_valid_channel_name(name) is True
    assert layer.valid_channel_names([name, "b"]) is True


@pytest.mark.parametrize(
    "name",
    ["", "!", "!a", "a!b!c", "x" * 100, "a b", "naïve", "٣", "a\n", "a/b", None, 3, b"bytes"],
)
def test_illegal_names_of_channels(layer, name):
    with pytest.raises(TypeError, match="Channel name: a str of 1 to 99 ASCII letters"):
        layer.require_valid_channel_name(name)
    with pytest.raises(TypeError):
        layer.valid_channel_names(["good", name])


@pytest.mark.parametrize("name", ["a b", "naïve", "a\n", "a!b!c"])
def test_the_patterns_of_names_match_whole_ones_only(layer, name):
    """As layers and applications written for Channels ask."""
    assert layer.channel_name_regex.match("prefix!local")
    assert layer.group_name_regex.match("group")
    assert not layer.channel_name_regex.match(name)
    assert not layer.group_name_regex.match(name)


@pytest.mark.parametrize("name", ["a", "A-z_0.9", "x" * 99])
def test_legal_names_of_groups(layer, name):
    assert layer.require_valid_group_name(name) is True


@pytest.mark.parametrize("name", ["", "a!", "a!b", "x" * 100, "a b", "naïve", "٣", "a\n", None, 3])
def test_illegal_names_of_groups(layer, name):
    with pytest.raises(TypeError, match=layer.invalid_name_error.format("Group")):
        layer.require_valid_group_name(name)


def test_the_local_part_is_not_received(layer):
    assert layer.require_valid_channel_name("prefix!", receive=True)
    with pytest.raises(TypeError, match="up to and including"):
        layer.require_valid_channel_name("prefix!local", receive=True)
    assert layer.non_local_name("prefix!local") == "prefix!"
    assert layer.non_local_name("named") == "named"


def test_a_layer_has_names_of_a_length_of_its_own():
    class Short(BaseChannelLayer):
        MAX_NAME_LENGTH = 5

    layer = Short()
    assert layer.match_type_and_length("four")
    assert not layer.match_type_and_length("five!")
    assert not layer.match_type_and_length(b"four")
    with pytest.raises(TypeError, match="Group name"):
        layer.require_valid_group_name("fives")


def test_the_old_names_of_the_checks_say_so(layer):
    with pytest.warns(DeprecationWarning, match="valid_channel_name is deprecated"):
        assert layer.valid_channel_name("a") is True
    with pytest.warns(DeprecationWarning, match="valid_group_name is deprecated"):
        assert layer.valid_group_name("a") is True


async def test_a_subclass_has_to_do_the_work(layer):
    for call in (
        layer.send("a", {}),
        layer.receive("a"),
        layer.new_channel(),
        layer.group_add("a", "a"),
        layer.group_discard("a", "a"),
        layer.group_send("a", {}),
        layer.flush(),
    ):
        with pytest.raises(NotImplementedError):
            await call
    for call, arguments in ((layer.attach, ("a", None)), (layer.detach, ("a",))):
        with pytest.raises(NotImplementedError):
            call(*arguments)
    with pytest.raises(NotImplementedError):
        _ = layer.overflows
    await layer.close()


def test_events_for_the_client():
    assert is_client_event({"type": "websocket.send"})
    assert is_client_event({"type": "websocket.close"})
    assert not is_client_event({"type": "websocket.accept"})
    assert not is_client_event({})


@pytest.mark.parametrize(
    "event",
    [
        {"type": "websocket.send", "text": "x"},
        {"type": "websocket.send", "text": "", "bytes": None},
        {"type": "websocket.send", "text": "naïve 🦦"},
        {"type": "websocket.send", "bytes": b"x"},
        {"type": "websocket.send", "bytes": bytearray(b"x"), "text": None},
        {"type": "websocket.send", "bytes": memoryview(b"x")},
        {"type": "websocket.close"},
        {"type": "websocket.close", "code": 1000, "reason": None},
        {"type": "websocket.close", "code": 4999, "reason": "x" * 123},
    ],
)
def test_what_can_be_sent_to_a_client(event):
    check_client_event(event)


@pytest.mark.parametrize(
    "event",
    [
        {"type": "websocket.send"},
        {"type": "websocket.send", "text": None, "bytes": None},
        {"type": "websocket.send", "text": "x", "bytes": b"x"},
        {"type": "websocket.send", "text": b"x"},
        {"type": "websocket.send", "bytes": "x"},
        {"type": "websocket.send", "text": "\udfff"},
        *(
            {"type": "websocket.close", "code": code}
            for code in (0, 999, 1004, 1005, 1006, 1015, 2999, 5000, "1000")
        ),
        {"type": "websocket.close", "reason": "ü" * 62},
        {"type": "websocket.close", "reason": b"bytes"},
    ],
)
def test_what_can_not_be_sent_to_a_client(event):
    with pytest.raises(ValueError):  # noqa: PT011 - a UnicodeEncodeError is one, with its own text
        check_client_event(event)
