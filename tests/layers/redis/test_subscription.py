"""What is heard from one server: a model of the server that answers when the test says so."""

import asyncio
from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.exceptions import InvalidChannelLayerError
from headrace.layers.redis.client import Refusal, Unreachable
from headrace.layers.redis.config import Endpoint
from headrace.layers.redis.names import Names, slot_of, tag_of
from headrace.layers.redis.subscription import Subscription

from .members import eventually

NAMES = [Names("x").group(f"room{number}") for number in range(4)]


class Server:
    """It takes commands, and answers one when it is told to."""

    def __init__(self):
        self.commands = deque()
        self.replies = asyncio.Queue()
        self.subscribed = set()
        #: What it has been told so far, answered or not.
        self.told = set()
        self.closed = False
        self.endpoint = Endpoint("hosts[0]")
        self.pings = 0

    # The wire

    async def send(self, commands):
        for verb, *names in commands:
            if verb == "PING":
                self.pings += 1
                continue
            if verb.lstrip("S").startswith("UNSUB"):
                self.told.difference_update(names)
            else:
                self.told.update(names)
            self.commands.extend((verb, name) for name in names)

    async def read(self):
        reply = await self.replies.get()
        if isinstance(reply, Unreachable):
            raise reply
        return reply

    async def close(self):
        self.closed = True

    # The test

    def answer(self):
        verb, name = self.commands.popleft()
        (self.subscribed.add if "UNSUB" not in verb else self.subscribed.discard)(name)
        self.replies.put_nowait([verb.lower().encode(), name.encode(), 1])

    def break_off(self):
        self.replies.put_nowait(Unreachable("broken"))


class Ear:
    def __init__(self):
        self.messages = []
        self.gaps = []
        self.losses = []
        self.failures = []
        self.refusals = []
        self.names = set()
        self.moves = 0

    async def room(self):
        pass

    def message(self, name, data):
        self.messages.append((name, data))

    def heard(self, subscription, name):
        self.names.add(name)

    def unheard(self, subscription, name):
        self.names.discard(name)

    def refused(self, name, error):
        self.refusals.append((name, error))

    def moved(self):
        self.moves += 1

    def lost(self, subscription, reason):
        self.losses.append(reason)

    def back(self, names, reason):
        self.gaps.append((sorted(names), reason))

    def failed(self, error):
        self.failures.append(error)


class Stage:
    """A subscription, its servers one after the other, and who hears."""

    def __init__(self, **options):
        self.ear = Ear()
        self.servers = []
        self.refuse = deque()
        self.subscription = Subscription(
            self.dial,
            self.ear,
            **{"sharded": False, "interval_s": 60, "reply_timeout_s": 0.05, **options},
        )
        self.task = asyncio.create_task(self.subscription.run())

    async def dial(self):
        if self.refuse:
            raise self.refuse.popleft()
        self.servers.append(Server())
        return self.servers[-1]

    @property
    def server(self):
        return self.servers[-1]

    async def turn(self):
        for _ in range(12):
            await asyncio.sleep(0)

    async def connect(self):
        # A second attempt is made after a short pause.
        before = len(self.servers)
        await eventually(lambda: len(self.servers) > before)
        await self.turn()

    async def answer_all(self):
        await self.turn()
        while self.server.commands:
            self.server.answer()
            await self.turn()

    async def end(self):
        self.task.cancel()
        await asyncio.wait({self.task})
        if not self.task.cancelled():
            self.task.result()


@pytest.fixture
async def stage():
    stage = Stage()
    yield stage
    await stage.end()


actions = st.lists(
    st.tuples(st.sampled_from(["want", "drop"]), st.sampled_from(NAMES))
    | st.just(("turn", None))
    | st.just(("answer", None))
    | st.just(("break", None)),
    max_size=40,
)


@settings(max_examples=60)
@given(actions)
def test_it_hears_what_it_says_whatever_is_wanted_when(actions):
    async def run():
        stage = Stage()
        stage.subscription.want("always")
        await stage.turn()
        breaks = 0
        for action, name in actions:
            if action in ("want", "drop"):
                getattr(stage.subscription, action)(name)
            elif action == "turn":
                await stage.turn()
            elif action == "answer" and stage.server.commands:
                stage.server.answer()
                await stage.turn()
            elif action == "break" and breaks < 2:
                breaks += 1
                stage.server.break_off()
                await stage.connect()
            heard = stage.subscription.heard
            assert heard == stage.ear.names
            # It is subscribed to there, and no word under way says otherwise.
            assert heard <= stage.server.subscribed & stage.server.told
            assert heard <= stage.subscription.wanted
        await stage.answer_all()
        wanted = stage.subscription.wanted
        assert stage.subscription.heard == stage.server.subscribed == wanted
        assert not stage.subscription.missed
        await stage.end()
        assert stage.server.closed

    asyncio.run(run())


async def test_what_was_heard_and_is_again_was_missed_and_nothing_else(stage):
    one, two, three, _ = NAMES
    stage.subscription.want(one)
    stage.subscription.want(two)
    await stage.answer_all()
    stage.subscription.want(three)
    await stage.turn()
    stage.server.break_off()
    await stage.connect()
    assert stage.ear.losses == ["broken"]
    stage.subscription.drop(two)
    stage.server.answer()
    await stage.turn()
    await stage.answer_all()
    assert stage.ear.gaps == [([one], "the connection to Redis was lost")]


async def test_messages_come_as_they_are(stage):
    stage.subscription.want(NAMES[0])
    await stage.answer_all()
    for number in range(450):
        stage.server.replies.put_nowait([b"message", NAMES[0].encode(), b"%d" % number])
    stage.server.replies.put_nowait([b"pong", b""])
    stage.server.replies.put_nowait(b"PONG")
    await stage.turn()
    await stage.turn()
    assert [data for _, data in stage.ear.messages] == [b"%d" % n for n in range(450)]


async def test_a_silent_connection_is_asked_and_given_up():
    stage = Stage(interval_s=0.02, reply_timeout_s=0.02)
    stage.subscription.want(NAMES[0])
    await stage.answer_all()
    await stage.connect()
    assert stage.servers[0].pings == 1
    assert "did not answer for 0.02 s" in stage.ear.losses[0]
    # One that answers is kept, and one that talks is not asked.
    server = stage.server
    for _ in range(6):
        await asyncio.sleep(0.01)
        server.replies.put_nowait([b"pong", b""])
        await stage.turn()
    assert not server.closed
    await stage.end()


async def test_attempts_that_fail_are_told(stage):
    stage.refuse.extend([Unreachable("no"), InvalidChannelLayerError("never")])
    stage.subscription.want(NAMES[0])
    await stage.connect()
    assert [type(error) for error in stage.ear.failures] == [Unreachable, InvalidChannelLayerError]


async def test_what_is_refused_is_told_and_tried_again(stage, monkeypatch):
    monkeypatch.setattr("headrace.layers.redis.subscription._AFTER_NO_S", 0.01)
    monkeypatch.setattr("headrace.layers.redis.subscription._LATER_S", (0.01, 0.01))
    stage.subscription.want(NAMES[0])
    await stage.turn()
    for refusal, moves, refusals in (
        (Refusal("NOPERM", "not you"), 0, 1),
        (Refusal("CLUSTERDOWN", "not now"), 0, 1),
        (Refusal("MOVED", "1 127.0.0.1:1"), 1, 1),
    ):
        stage.server.commands.clear()
        stage.server.replies.put_nowait(refusal)
        await stage.turn()
        assert (stage.ear.moves, len(stage.ear.refusals)) == (moves, refusals)
        await eventually(lambda: stage.server.commands)
    await stage.answer_all()
    assert stage.subscription.heard == {NAMES[0]}
    # To something that was not asked, and to a word of goodbye.
    stage.server.replies.put_nowait(Refusal("ERR", "what?"))
    stage.subscription.drop(NAMES[0])
    await stage.turn()
    stage.server.commands.clear()
    stage.server.replies.put_nowait(Refusal("ERR", "no"))
    await stage.turn()
    assert not stage.subscription.heard


async def test_in_a_cluster_a_command_has_one_slot_and_slots_are_taken_away():
    stage = Stage(sharded=True)
    for name in NAMES:
        stage.subscription.want(name)
    sent = []
    await stage.turn()
    original = stage.server.send

    async def send(commands):
        sent.extend(commands)
        await original(commands)

    stage.server.send = send
    await stage.answer_all()
    assert stage.subscription.heard == set(NAMES)
    stage.server.replies.put_nowait([b"sunsubscribe", NAMES[0].encode(), 1])
    await stage.turn()
    assert stage.ear.moves == 1
    assert stage.subscription.heard == set(NAMES[1:])
    # It is told by whoever listens to it next.
    assert stage.subscription.drop(NAMES[0]) == "it is on another server now"
    for name in NAMES[1:]:
        stage.subscription.drop(name)
    await stage.answer_all()
    slots = [{slot_of(tag_of(name)) for name in names} for _, *names in sent]
    assert all(len(each) == 1 for each in slots)
    await stage.end()


async def test_a_former_one_ends_with_its_connection():
    stage = Stage()
    stage.subscription.want(NAMES[0])
    await stage.answer_all()
    stage.subscription.former = True
    stage.server.break_off()
    async with asyncio.timeout(5):
        await stage.task
    assert len(stage.servers) == 1
    assert stage.subscription.missed == {NAMES[0]: "the connection to Redis was lost"}


async def test_what_may_be_missed_is_told_once_it_is_heard(stage):
    one, two = NAMES[:2]
    stage.subscription.want(one, "because")
    stage.subscription.want(two)
    await stage.turn()
    assert not stage.ear.gaps
    await stage.answer_all()
    assert stage.ear.gaps == [([one], "because")]
    stage.subscription.miss([one, two, NAMES[2]], "again")  # which is not wanted
    assert stage.ear.gaps[1:] == [([one, two], "again")]


async def test_an_error_nobody_has_thought_of_is_not_kept_silent():
    stage = Stage()
    stage.subscription.want(NAMES[0])
    await stage.turn()
    stage.server.replies.put_nowait([b"message", b"\xff", b""])
    with pytest.raises(UnicodeDecodeError):
        await stage.task
