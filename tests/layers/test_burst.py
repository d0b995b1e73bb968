"""Bursts and large groups: what leaves together or in slices, so that only the clock can tell."""

import asyncio
from typing import Any

import pytest

from headrace.layers.hub import AT_ONCE, Hub, _Burst


class Socket:
    """A sink that takes bursts, as a WebSocket of the server does."""

    def __init__(self, hub: Hub, name: str, *groups: str) -> None:
        self.got: list[str] = []
        self.walks = 0
        self.at_once: list[bool] = []
        hub.attach(name, self)
        for group in groups:
            hub.add(group, name, self)

    def put(self, event: dict[str, Any], /) -> bool:
        self.got.append(event["type"])
        return True

    def transmit(self, event: dict[str, Any], frames: dict[Any, bytes], /) -> bool:
        self.walks += 1
        self.got.append(event.get("text") or event["type"])
        return True

    def transmit_burst(
        self, events: list[dict[str, Any]], bursts: dict[Any, Any], at_once: bool, /
    ) -> int:
        self.walks += 1
        self.at_once.append(at_once)
        self.got += [event["text"] for event in events]
        return 0


class Plain:
    """A sink that takes one event at a time, and has room for so many."""

    def __init__(self, hub: Hub, name: str, *groups: str, room: int = 100) -> None:
        self.got: list[str] = []
        self.room = room
        hub.attach(name, self)
        for group in groups:
            hub.add(group, name, self)

    def put(self, event: dict[str, Any], /) -> bool:
        raise AssertionError("no event for a handler is sent here")

    def transmit(self, event: dict[str, Any], frames: dict[Any, bytes], /) -> bool:
        if len(self.got) >= self.room:
            return False
        self.got.append(event["text"])
        return True


def text(value: object) -> dict[str, Any]:
    return {"type": "websocket.send", "text": str(value)}


@pytest.fixture
async def hub() -> Hub:
    return Hub()


async def turn() -> None:
    """Let the callbacks that are due run."""
    await asyncio.sleep(0)


async def test_the_events_of_one_turn_walk_the_members_once(hub: Hub) -> None:
    sockets = [Socket(hub, str(number), "g") for number in range(5)]
    for number in range(32):
        hub.publish("g", text(number))
    await turn()
    assert [socket.walks for socket in sockets] == [1] * 5
    assert [socket.got for socket in sockets] == [[str(number) for number in range(32)]] * 5


async def test_the_end_of_the_turn_is_the_time_to_write(hub: Hub) -> None:
    socket = Socket(hub, "a", "g", "h")
    hub.publish("g", text(1))
    hub.publish("h", text(2))
    await turn()
    assert socket.got == ["1", "2"]
    assert socket.at_once == [False, True]


async def test_what_many_members_are_sent_is_written_to_so_many_of_them_a_turn(hub: Hub) -> None:
    sockets = [Socket(hub, str(number), "g") for number in range(2 * AT_ONCE + 1)]
    hub.publish("g", text(1))
    reached = []
    for _ in range(4):
        await turn()
        reached.append(sum(bool(socket.got) for socket in sockets))
    assert reached == [AT_ONCE, 2 * AT_ONCE, 2 * AT_ONCE + 1, 2 * AT_ONCE + 1]
    assert {tuple(socket.at_once) for socket in sockets} == {(True,)}


@pytest.mark.parametrize("group", ["g", "h"])
async def test_nothing_overtakes_what_many_members_are_being_sent(hub: Hub, group: str) -> None:
    sockets = [Socket(hub, str(number), "g", "h") for number in range(3 * AT_ONCE)]
    hub.publish("g", text(1))
    await turn()
    hub.publish(group, text(2))
    hub.publish(group, {"type": "websocket.close"})
    assert {tuple(socket.got) for socket in sockets} == {("1", "2", "websocket.close")}
    await turn()
    await turn()
    assert {tuple(socket.got) for socket in sockets} == {("1", "2", "websocket.close")}


async def test_an_event_for_one_of_many_comes_behind_what_all_are_being_sent(hub: Hub) -> None:
    sockets = [Socket(hub, str(number), "g") for number in range(2 * AT_ONCE)]
    hub.publish("g", text(1))
    await turn()
    for number in (0, 2 * AT_ONCE - 1):
        hub.deliver(str(number), text(2))
        assert sockets[number].got == ["1", "2"]
    assert all(socket.got[0] == "1" for socket in sockets)


CHAT = {"type": "chat"}


def reached(sockets: list[Socket], *events: str) -> int:
    return sum(socket.got == list(events) for socket in sockets)


async def test_the_handlers_of_many_members_are_given_an_event_so_many_a_turn(hub: Hub) -> None:
    sockets = [Socket(hub, str(number), "g") for number in range(2 * AT_ONCE + 1)]
    hub.publish("g", CHAT)
    counts = []
    for _ in range(4):
        counts.append(reached(sockets, "chat"))
        await turn()
    assert counts == [AT_ONCE, 2 * AT_ONCE, 2 * AT_ONCE + 1, 2 * AT_ONCE + 1]


@pytest.mark.parametrize("group", ["g", "h"])
async def test_nothing_overtakes_what_many_handlers_are_being_given(hub: Hub, group: str) -> None:
    sockets = [Socket(hub, str(number), "g", "h") for number in range(3 * AT_ONCE)]
    hub.publish("g", CHAT)
    hub.publish(group, {"type": "later"})
    assert reached(sockets, "chat", "later") == AT_ONCE
    hub.publish(group, {"type": "websocket.close"})
    await turn()
    await turn()
    assert reached(sockets, "chat", "later", "websocket.close") == 3 * AT_ONCE


async def test_an_event_for_a_few_comes_behind_what_many_handlers_are_being_given(hub: Hub) -> None:
    sockets = [Socket(hub, str(number), "g") for number in range(3 * AT_ONCE)]
    for number in (0, 1):
        hub.add("few", str(number), sockets[number])
    hub.publish("g", CHAT)
    hub.publish("few", {"type": "later"})
    hub.deliver("2", {"type": "later"})
    assert reached(sockets, "chat", "later") == 3
    assert reached(sockets, "chat") == AT_ONCE, "nobody else was hurried"
    await turn()
    await turn()
    assert reached(sockets, "chat") == 3 * AT_ONCE - 3
    hub.publish("g", CHAT)
    hub.tell_gap("the connection was lost")
    assert reached(sockets, "chat", "chat") == 3 * AT_ONCE - 3


async def test_handlers_are_given_what_was_sent_whatever_the_sender_does_then(hub: Hub) -> None:
    sockets = [Socket(hub, str(number), "g") for number in range(2 * AT_ONCE)]
    event = {"type": "as.sent", "list": []}
    hub.publish("g", event)
    event["type"] = "changed"
    await turn()
    assert reached(sockets, "as.sent") == 2 * AT_ONCE


async def test_what_finds_no_room_among_many_is_told_once(
    hub: Hub, caplog: pytest.LogCaptureFixture
) -> None:
    class Full(Socket):
        def put(self, event: dict[str, Any], /) -> bool:
            return False

    for number in range(2 * AT_ONCE):
        Full(hub, str(number), "g")
    hub.publish("g", CHAT)
    assert hub.dropped == 0
    await turn()
    assert hub.dropped == 2 * AT_ONCE
    assert f"group g: {2 * AT_ONCE} of {2 * AT_ONCE}" in caplog.text


def test_what_many_handlers_were_to_be_given_waits_for_a_loop_that_stands_still() -> None:
    hub = Hub()
    home = asyncio.new_event_loop()

    async def publish() -> list[Socket]:
        sockets = [Socket(hub, str(number), "g") for number in range(5 * AT_ONCE)]
        hub.publish("g", CHAT)
        return sockets

    async def attach() -> None:
        Socket(hub, "elsewhere")

    sockets = home.run_until_complete(publish())
    assert AT_ONCE <= reached(sockets, "chat") < 5 * AT_ONCE
    asyncio.run(attach())
    home.run_until_complete(turn())
    assert reached(sockets, "chat") == 5 * AT_ONCE
    home.close()


async def test_the_sender_may_change_its_event_at_once(hub: Hub) -> None:
    socket = Socket(hub, "a", "g")
    event = text("as sent")
    hub.publish("g", event)
    event["text"] = "changed"
    await turn()
    assert socket.got == ["as sent"]


async def test_order_is_kept_across_groups(hub: Hub) -> None:
    both = Socket(hub, "both", "g", "h")
    for number in range(6):
        hub.publish("gh"[number % 2], text(number))
    await turn()
    assert both.got == list("012345")


async def test_order_is_kept_between_a_group_and_a_channel(hub: Hub) -> None:
    socket = Socket(hub, "a", "g")
    hub.publish("g", text(1))
    hub.deliver("a", text(2))
    hub.publish("g", text(3))
    await turn()
    assert socket.got == ["1", "2", "3"]


async def test_an_event_for_handlers_does_not_overtake(hub: Hub) -> None:
    socket = Socket(hub, "a", "g")
    hub.publish("g", text(1))
    hub.publish("g", {"type": "chat.message"})
    assert socket.got == ["1", "chat.message"]


async def test_who_joins_between_two_events_gets_the_second(hub: Hub) -> None:
    first = Socket(hub, "first", "g")
    hub.publish("g", text(1))
    second = Socket(hub, "second", "g")
    hub.publish("g", text(2))
    await turn()
    assert (first.got, second.got) == (["1", "2"], ["2"])


async def test_who_leaves_between_two_events_gets_the_first(hub: Hub) -> None:
    leaver, stayer = Socket(hub, "leaver", "g"), Socket(hub, "stayer", "g")
    hub.publish("g", text(1))
    hub.discard("g", "leaver")
    hub.publish("g", text(2))
    await turn()
    assert (leaver.got, stayer.got) == (["1"], ["1", "2"])


async def test_a_close_stands_behind_what_was_sent_before_it(hub: Hub) -> None:
    socket = Socket(hub, "a", "g")
    hub.publish("g", text(1))
    hub.publish("g", text(2))
    hub.publish("g", {"type": "websocket.close", "code": 1000})
    assert socket.got == ["1", "2", "websocket.close"]


async def test_a_burst_is_bounded(hub: Hub) -> None:
    socket = Socket(hub, "a", "g")
    for number in range(_Burst.LIMIT + 1):
        hub.publish("g", text(number))
    assert len(socket.got) == _Burst.LIMIT
    await turn()
    assert len(socket.got) == _Burst.LIMIT + 1


async def test_a_sink_that_takes_one_at_a_time_gets_each(
    hub: Hub, caplog: pytest.LogCaptureFixture
) -> None:
    plain, narrow = Plain(hub, "plain", "g"), Plain(hub, "narrow", "g", room=2)
    for number in range(5):
        hub.publish("g", text(number))
    await turn()
    assert plain.got == list("01234")
    assert narrow.got == list("01")
    assert hub.dropped == 3
    assert "group g: 3 of 10" in caplog.text


def test_without_a_home_nothing_waits_for_a_turn_that_may_not_come() -> None:
    hub = Hub()

    async def attach() -> Plain:
        return Plain(hub, "a", "g")

    # The loop that was home is closed: what lived there is gone, and nothing is held back.
    asyncio.run(attach())

    async def publish() -> None:
        assert hub.abroad() is None
        hub.publish("g", text(1))

    asyncio.run(publish())
    assert hub._burst is None
