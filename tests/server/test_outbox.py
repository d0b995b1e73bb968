import asyncio

import pytest

from headrace.server.counters import Counters
from headrace.server.outbox import HIGH_WATER_BYTES, Outbox, SlowClientPolicy


class Transport:
    """A socket that takes ``room_bytes`` before it wants a pause."""

    def __init__(self, room_bytes=10**9):
        self.outbox = None
        self.room_bytes = room_bytes
        self.writes = []
        self.closing = False
        self.broken = False

    def write(self, data):
        if self.closing or self.broken:
            raise RuntimeError("the handler is closed")
        self.writes.append(bytes(data))
        self.room_bytes -= len(data)
        if self.room_bytes <= 0:
            self.outbox.pause()

    def is_closing(self):
        return self.closing

    def take_all(self):
        """The client has read everything."""
        self.room_bytes = 10**9
        self.outbox.resume()


class Turn:
    def __init__(self):
        self.noted = []
        self.counters = Counters()

    def write(self, writable):
        self.noted.append(writable)

    @property
    def loop(self):
        return asyncio.get_running_loop()

    def later(self, work):
        self.loop.call_soon(self.end)
        self.loop.call_soon(work)

    def end(self):
        noted, self.noted = self.noted, []
        for writable in noted:
            writable.flush()


class Owner:
    def __init__(self):
        self.overflows = 0
        self.drops = []

    def overflowed(self):
        self.overflows += 1

    def dropped(self, messages):
        self.drops.append(messages)


def make(policy=SlowClientPolicy.CLOSE, *, limit_bytes=100, room_bytes=10**9):
    transport, turn, owner = Transport(room_bytes), Turn(), Owner()
    outbox = Outbox(transport, turn, owner, limit_bytes=limit_bytes, policy=policy)
    transport.outbox = outbox
    return outbox, transport, turn, owner


def paused(policy, *, limit_bytes=100):
    """An outbox whose socket takes no more."""
    outbox, transport, turn, owner = make(policy, limit_bytes=limit_bytes, room_bytes=1)
    outbox.push(b"!")
    turn.end()
    assert outbox.paused
    transport.writes.clear()
    return outbox, transport, turn, owner


def test_what_is_pushed_in_one_turn_leaves_in_one_write():
    outbox, transport, turn, _ = make()
    for message in (b"a", b"b", b"c"):
        outbox.push(message)
    assert transport.writes == []
    assert len(turn.noted) == 1
    turn.end()
    assert transport.writes == [b"abc"]
    outbox.push(b"d")
    turn.end()
    assert transport.writes == [b"abc", b"d"]


def test_control_leaves_before_messages_and_the_end_behind():
    outbox, transport, turn, _ = make()
    outbox.push(b"message")
    outbox.finish(b"end")
    outbox.write(b"control")
    assert not outbox.empty
    assert outbox.finished
    turn.end()
    assert transport.writes == [b"controlmessageend"]
    assert outbox.empty


def test_control_alone():
    outbox, transport, turn, _ = make()
    outbox.write(b"")
    assert turn.noted == []
    outbox.write(b"a")
    outbox.write(b"b")
    turn.end()
    outbox.flush()
    assert transport.writes == [b"ab"]


def test_there_is_one_end():
    outbox, transport, turn, _ = make()
    assert not outbox.finished
    outbox.finish()
    assert outbox.finished
    outbox.finish(b"late")
    turn.end()
    assert transport.writes == []


def test_nothing_is_written_while_the_socket_takes_no_more():
    outbox, transport, turn, _ = paused(SlowClientPolicy.CLOSE)
    outbox.push(b"a")
    outbox.write(b"!")
    outbox.push(b"b")
    turn.end()
    assert transport.writes == []
    transport.take_all()
    assert transport.writes == [b"!ab"]


def test_a_burst_is_not_a_slow_client():
    outbox, transport, _, owner = make(limit_bytes=100)
    for _ in range(10):
        outbox.push(b"x" * 30)
    assert owner.overflows == 0
    assert sum(map(len, transport.writes)) >= 200
    assert outbox.waiting_bytes <= 100


def test_policy_close_drops_all_and_says_so_once():
    outbox, transport, _, owner = paused(SlowClientPolicy.CLOSE)
    for _ in range(4):
        outbox.push(b"x" * 25)
    assert owner.overflows == 0
    outbox.push(b"x")
    assert owner.overflows == 1
    assert owner.drops == [5]
    assert outbox.waiting_bytes == 0
    outbox.finish(b"end")
    transport.take_all()
    assert transport.writes == [b"end"]


def test_policy_drop_oldest_keeps_the_newest_within_the_bound():
    outbox, transport, _, owner = paused(SlowClientPolicy.DROP_OLDEST)
    for number in range(10):
        outbox.push(b"%d" % number * 25)
        assert outbox.waiting_bytes <= 100
    assert sum(owner.drops) == 6
    assert owner.overflows == 0
    transport.take_all()
    assert transport.writes == [b"".join(b"%d" % number * 25 for number in range(6, 10))]


def test_policy_drop_oldest_keeps_a_message_longer_than_the_bound():
    outbox, transport, _, owner = paused(SlowClientPolicy.DROP_OLDEST)
    outbox.push(b"a")
    outbox.push(b"b" * 200)
    assert owner.drops == [1]
    transport.take_all()
    assert transport.writes == [b"b" * 200]


def test_policy_latest_only_keeps_one():
    outbox, transport, _, owner = paused(SlowClientPolicy.LATEST_ONLY)
    for number in range(10):
        outbox.push(b"%d" % number)
        assert outbox.waiting_bytes == 1
    assert sum(owner.drops) == 9
    transport.take_all()
    assert transport.writes == [b"9"]


def test_policy_latest_only_drops_nothing_while_the_socket_takes_all():
    outbox, transport, turn, owner = make(SlowClientPolicy.LATEST_ONLY)
    for number in range(10):
        outbox.push(b"%d" % number)
    turn.end()
    assert transport.writes == [b"0123456789"]
    assert owner.drops == []


async def test_a_sender_waits_until_the_socket_takes_more():
    outbox, transport, _, _ = paused(SlowClientPolicy.CLOSE)
    assert outbox.full
    senders = [asyncio.create_task(outbox.drained()) for _ in range(2)]
    await asyncio.sleep(0)
    assert not any(sender.done() for sender in senders)
    senders.pop().cancel()
    transport.take_all()
    await senders[0]
    assert not outbox.full


async def test_a_sender_waits_again_when_what_waited_fills_the_socket():
    outbox, transport, _, _ = paused(SlowClientPolicy.CLOSE)
    outbox.push(b"x" * 50)
    sender = asyncio.create_task(outbox.drained())
    await asyncio.sleep(0)
    transport.room_bytes = 10
    outbox.resume()
    assert outbox.paused
    await asyncio.sleep(0)
    assert not sender.done()
    transport.take_all()
    await sender


@pytest.mark.parametrize("add", ["push", "write"])
async def test_a_sender_that_is_ahead_of_the_turn_lets_others_run(add):
    outbox, transport, _, _ = make(limit_bytes=10**9)
    getattr(outbox, add)(b"x" * HIGH_WATER_BYTES)
    assert not outbox.full
    getattr(outbox, add)(b"x")
    assert outbox.full
    others = asyncio.create_task(asyncio.sleep(0))
    await outbox.drained()
    assert sum(map(len, transport.writes)) == HIGH_WATER_BYTES + 1
    await others
    outbox, transport, _, _ = make()
    await outbox.drained()
    assert transport.writes == []


@pytest.mark.parametrize("end", ["lost", "finish", "close"])
async def test_no_sender_waits_beyond_the_end(end):
    outbox, transport, _, _ = paused(SlowClientPolicy.CLOSE)
    sender = asyncio.create_task(outbox.drained())
    await asyncio.sleep(0)
    if end == "lost":
        outbox.lost()
        transport.closing = True
    elif end == "finish":
        outbox.finish(b"end")
    else:
        transport.closing = True
        outbox.release()
    await sender


async def test_a_sender_to_a_socket_that_is_closing_lets_others_run():
    outbox, transport, _, _ = paused(SlowClientPolicy.CLOSE)
    transport.closing = True
    asyncio.get_running_loop().call_soon(outbox.lost)
    while not outbox.finished:
        # As an application does that streams, and has not heard of it yet.
        outbox.write(b"x")
        await outbox.drained()
    assert outbox.empty


def test_nothing_is_written_once_the_transport_is_gone():
    outbox, transport, turn, _ = make()
    outbox.push(b"a")
    outbox.write(b"b")
    outbox.lost()
    transport.closing = True
    turn.end()
    outbox.flush()
    assert outbox.empty
    assert transport.writes == []


def test_a_transport_that_closed_meanwhile_is_no_error():
    outbox, transport, turn, _ = make()
    outbox.push(b"a")
    transport.closing = True
    turn.end()


def test_another_error_of_the_transport_is_one():
    outbox, transport, turn, _ = make()
    outbox.push(b"a")
    transport.broken = True
    with pytest.raises(RuntimeError):
        turn.end()


def burst(*messages):
    return b"".join(messages), list(messages)


def test_a_burst_at_the_end_of_the_turn_is_written_at_once():
    outbox, transport, turn, _ = make()
    outbox.push_burst(burst(b"a", b"b"), True)
    assert transport.writes == [b"ab"]
    assert not turn.noted


def test_a_burst_waits_behind_what_waits():
    outbox, transport, turn, _ = make()
    outbox.push(b"first")
    outbox.push_burst(burst(b"a", b"b"), True)
    assert not transport.writes
    turn.end()
    assert transport.writes == [b"firstab"]


def test_a_burst_inside_the_turn_joins_its_one_write():
    outbox, transport, turn, _ = make()
    outbox.push_burst(burst(b"a", b"b"), False)
    outbox.push_burst(burst(b"c", b"d"), False)
    assert len(turn.noted) == 1
    turn.end()
    assert transport.writes == [b"abcd"]


def test_a_burst_beyond_the_bound_is_offered_to_the_socket_first():
    outbox, transport, _, owner = make(limit_bytes=3)
    outbox.push_burst(burst(b"ab", b"cd"), False)
    assert transport.writes == [b"abcd"]
    assert not owner.overflows


@pytest.mark.parametrize("before_the_pause", [True, False])
def test_each_message_of_a_burst_is_dropped_and_counted_by_itself(before_the_pause):
    outbox, transport, _, owner = make(SlowClientPolicy.DROP_OLDEST, limit_bytes=4)
    if before_the_pause:
        outbox.push_burst(burst(b"a", b"b", b"c", b"d"), False)
        outbox.pause()
        outbox.push(b"e")
    else:
        outbox.pause()
        outbox.push_burst(burst(b"a", b"b", b"c", b"d", b"e"), False)
    assert owner.drops == [1]
    transport.take_all()
    assert transport.writes == [b"bcde"]
