"""Events that are sent after a commit."""

import asyncio
import contextlib
import logging
import sqlite3

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.db import connection, connections, transaction
from django.test import TestCase
from django.utils.functional import SimpleLazyObject

from headrace.db import (
    agroup_send_on_commit,
    asend_on_commit,
    group_send_on_commit,
    on_commit_metrics,
    send_on_commit,
)
from headrace.exceptions import InvalidChannelLayerError
from headrace.generic.websocket import AsyncWebsocketConsumer
from headrace.layers import InMemoryChannelLayer, channel_layers
from headrace.layers.base import BaseChannelLayer
from headrace.testing import WebsocketCommunicator
from tests.layers.plain import GeneralLayer, PlainLayer

pytestmark = pytest.mark.django_db(transaction=True)


class Log(BaseChannelLayer):
    """A layer that keeps what it is given, and can be out of order."""

    def __init__(self):
        super().__init__()
        self.sent = []
        self.broken = set()

    def send_sync(self, channel, message):
        if channel in self.broken:
            raise ConnectionError("no way to the server")
        self.sent.append((channel, message))

    def group_send_sync(self, group, message):
        self.send_sync(group, message)

    @property
    def numbers(self):
        return [message["n"] for _, message in self.sent]


@pytest.fixture
def log():
    log = Log()
    old = channel_layers.set("default", log)
    yield log
    channel_layers.set("default", old)


@pytest.fixture
def ledger(tmp_path):
    """A database in a file, under an alias of its own."""
    settings = {**connection.settings_dict, "NAME": str(tmp_path / "ledger.sqlite3")}
    # "default" by its own name, which is what tests may use.
    ledger = connections["ledger"] = type(connections["default"])(settings, "default")
    with ledger.cursor() as cursor:
        cursor.execute("CREATE TABLE entry (n integer)")
    yield ledger
    ledger.close()
    del connections["ledger"]


def post(n, group="room", **options):
    group_send_on_commit(group, {"type": "entry", "n": n}, **options)


def enter(ledger, n):
    with ledger.cursor() as cursor:
        cursor.execute("INSERT INTO entry VALUES (%s)", [n])


@contextlib.contextmanager
def rolled_back():
    class Undone(Exception):
        pass

    with contextlib.suppress(Undone), transaction.atomic("ledger"):
        yield
        raise Undone


# The transaction


def test_after_the_commit_who_hears_of_it_finds_it(ledger, log):
    seen = []

    class Reading(Log):
        def group_send_sync(self, group, message):
            with sqlite3.connect(ledger.settings_dict["NAME"]) as other:
                seen.append(other.execute("SELECT n FROM entry").fetchall())
            other.close()

    with transaction.atomic("ledger"):
        enter(ledger, 7)
        post(7, using="ledger", layer=Reading())
        assert seen == []
    assert seen == [[(7,)]]


def test_nothing_after_a_rollback(ledger, log):
    with rolled_back():
        post(1, using="ledger")
    with transaction.atomic("ledger"):
        post(2, using="ledger")
        transaction.set_rollback(True, "ledger")
    assert log.sent == []


def test_savepoints_decide_for_what_was_sent_within(ledger, log):
    with transaction.atomic("ledger"):
        post(1, using="ledger")
        with transaction.atomic("ledger"):
            post(2, using="ledger")
            with rolled_back():
                post(3, using="ledger")
        with rolled_back(), transaction.atomic("ledger"):
            post(4, using="ledger")
        post(5, using="ledger")
        assert log.sent == []
    assert log.numbers == [1, 2, 5]


def test_groups_and_channels_are_sent_to_in_the_order_of_the_calls(ledger, log):
    with transaction.atomic("ledger"):
        for n in range(10):
            post(n, f"room.{n % 3}", using="ledger")
            send_on_commit(f"work.{n}", {"type": "entry", "n": n}, using="ledger")
    assert [to for to, _ in log.sent] == [
        name for n in range(10) for name in (f"room.{n % 3}", f"work.{n}")
    ]
    assert log.numbers == [n for n in range(10) for _ in range(2)]


def test_each_database_has_transactions_of_its_own(ledger, log):
    with transaction.atomic("ledger"), transaction.atomic():
        post(1, using="ledger")
        post(2)
    assert log.numbers == [2, 1]
    with transaction.atomic("ledger"):
        post(3)
        assert log.numbers == [2, 1, 3]


def test_outside_of_a_transaction_at_once(ledger, log):
    post(1, using="ledger")
    send_on_commit("work", {"type": "entry", "n": 2}, using="ledger")
    assert log.numbers == [1, 2]


def test_nobody_connects_to_a_database_for_it(ledger, log):
    ledger.close()
    post(1, using="ledger")
    assert log.numbers == [1]
    assert ledger.connection is None


def test_transactions_by_hand_have_no_such_moment(ledger, log):
    ledger.set_autocommit(False)
    with pytest.raises(transaction.TransactionManagementError, match="on_commit"):
        post(1, using="ledger")
    ledger.rollback()
    ledger.set_autocommit(True)
    assert log.sent == []


class TestInATestCase(TestCase):
    def test_callbacks_are_captured(self):
        layer = Log()
        with self.captureOnCommitCallbacks() as callbacks:
            post(1, layer=layer)
            with transaction.atomic():
                post(2, layer=layer)
        assert len(callbacks) == 2
        assert layer.sent == []
        with self.captureOnCommitCallbacks(execute=True):
            post(3, layer=layer)
        assert layer.numbers == [3]


# The message


@pytest.mark.parametrize("layer", [InMemoryChannelLayer(), PlainLayer(), GeneralLayer()])
def test_what_is_sent_is_the_message_as_it_was(ledger, layer):
    message = {"type": "entry", "n": 1, "tags": ["a"]}
    with transaction.atomic("ledger"):
        send_on_commit("work", message, using="ledger", layer=layer)
        message["n"] = 2
        message["tags"].append("b")
    assert async_to_sync(layer.receive)("work") == {"type": "entry", "n": 1, "tags": ["a"]}


@pytest.mark.parametrize("layer", [InMemoryChannelLayer(), Log(), PlainLayer()])
def test_mistakes_are_told_at_the_call(ledger, layer):
    good = {"type": "entry"}
    with transaction.atomic("ledger"):
        for send, name in ((group_send_on_commit, "room"), (send_on_commit, "work")):
            with pytest.raises(TypeError):
                send("no name", good, using="ledger", layer=layer)
            with pytest.raises(TypeError, match="a message is a dict, not str"):
                send(name, "text", using="ledger", layer=layer)
            with pytest.raises(ValueError, match="text"):
                send(name, {"type": "websocket.send"}, using="ledger", layer=layer)
        assert ledger.run_on_commit == []


def test_the_layer_says_what_it_can_take(ledger):
    class Picky(Log):
        def prepared(self, message):
            raise TypeError("a list at $.tags can't travel")

    with transaction.atomic("ledger"):
        with pytest.raises(TypeError, match=r"\$\.tags"):
            post(1, using="ledger", layer=Picky())
        assert ledger.run_on_commit == []


def test_layers_have_aliases(ledger, log):
    other = Log()
    channel_layers.set("other", other)
    try:
        post(1, using="ledger", layer="other")
        assert (other.numbers, log.numbers) == ([1], [])
    finally:
        channel_layers.set("other", None)
    with pytest.raises(InvalidChannelLayerError, match="no layer 'another'"):
        post(1, using="ledger", layer="another")


def test_a_layer_that_derives_from_nothing_has_no_names_to_check(ledger):
    class Bare:
        async def group_send(self, group, message):
            sent.append((group, message))

    sent = []
    with transaction.atomic("ledger"):
        post(1, "any name", using="ledger", layer=Bare())
    assert sent == [("any name", {"type": "entry", "n": 1})]


# After the commit


def test_a_layer_that_fails_fails_nobody_else(ledger, log, caplog):
    log.broken = {"room", "full"}
    done = []
    before = on_commit_metrics()
    with transaction.atomic("ledger"):
        transaction.on_commit(lambda: done.append(1), "ledger")
        post(1, using="ledger")
        send_on_commit("full", {"type": "entry", "n": 2}, using="ledger")
        transaction.on_commit(lambda: done.append(2), "ledger")
        post(3, "other", using="ledger")
    assert (done, log.numbers) == ([1, 2], [3])
    after = on_commit_metrics()
    assert {name: after[name] - before[name] for name in after} == {
        "sent_total": 1,
        "failed_total": 2,
    }
    assert [record.getMessage() for record in caplog.records] == [
        "group room: an event of type 'entry' was not sent after the commit",
        "channel full: an event of type 'entry' was not sent after the commit",
    ]
    assert {record.name for record in caplog.records} == {"headrace.db"}
    assert "no way to the server" in caplog.text


def test_it_is_the_same_where_there_is_no_transaction(ledger, log, caplog):
    log.broken = {"room"}
    with caplog.at_level(logging.ERROR):
        post(1, using="ledger")
    assert "was not sent after the commit" in caplog.text


# From asynchronous code


async def test_on_the_thread_of_a_loop_it_says_what_to_do(log):
    with pytest.raises(RuntimeError, match=r"await agroup_send_on_commit\(\) instead"):
        post(1)
    with pytest.raises(RuntimeError, match=r"await asend_on_commit\(\) instead"):
        send_on_commit("work", {"type": "entry"})


async def test_a_coroutine_without_a_transaction_sends_at_once(log):
    await agroup_send_on_commit("room", {"type": "entry", "n": 1})
    await asend_on_commit("work", {"type": "entry", "n": 2})
    assert log.sent == [("room", {"type": "entry", "n": 1}), ("work", {"type": "entry", "n": 2})]
    with pytest.raises(TypeError):
        await agroup_send_on_commit("no name", {"type": "entry"})


def test_a_coroutine_belongs_to_the_transaction_of_whoever_called_it(ledger, log):
    async def work(n):
        message = {"type": "entry", "n": n}
        sending = asyncio.ensure_future(agroup_send_on_commit("room", message, using="ledger"))
        await asyncio.sleep(0)
        message["n"] = "changed"
        await sending

    with rolled_back():
        async_to_sync(work)(1)
    with transaction.atomic("ledger"):
        async_to_sync(work)(2)
        assert log.sent == []
    assert log.numbers == [2]


async def test_consumers_hear_of_what_a_thread_has_committed(channel_layer):
    class RoomConsumer(AsyncWebsocketConsumer):
        groups = ("room",)

        async def entry(self, event):
            await self.send(str(event["n"]))

    def work():
        with transaction.atomic():
            for n in range(20):
                post(n)
                group_send_on_commit("room", {"type": "websocket.send", "text": f"to all: {n}"})

    communicator = WebsocketCommunicator(RoomConsumer.as_asgi(), "/")
    await communicator.connect()
    await sync_to_async(work)()
    heard = [await communicator.receive_from() for _ in range(40)]
    await communicator.disconnect()
    assert [text for text in heard if text.isdigit()] == [str(n) for n in range(20)]
    assert [text for text in heard if not text.isdigit()] == [f"to all: {n}" for n in range(20)]


def test_a_lazy_value_is_copied_as_well(ledger, log):
    with transaction.atomic("ledger"):
        group_send_on_commit("room", {"type": "entry", "n": SimpleLazyObject(lambda: 5)})
    assert log.numbers == [5]
