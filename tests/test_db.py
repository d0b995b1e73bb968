import asyncio
import contextvars
import os
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from asgiref.sync import SyncToAsync, ThreadSensitiveContext, async_to_sync, sync_to_async
from django.contrib.auth.models import User
from django.db import OperationalError, connection, connections, transaction

from headrace import db
from headrace.consumer import AsyncConsumer
from headrace.db import (
    DatabaseSyncToAsync,
    ThreadConnections,
    aclose_old_connections,
    cleanup_due,
    database_sync_to_async,
    track_database_use,
)
from headrace.exceptions import StopConsumer

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
async def clean_slate():
    await aclose_old_connections()
    yield
    await aclose_old_connections()


@pytest.fixture
async def file_database(tmp_path):
    """A database whose connections really close, in the ORM's own thread."""

    def use(path):
        connection.close()
        before = dict(connection.settings_dict)
        connection.settings_dict.update(NAME=path, CONN_MAX_AGE=0)
        return before

    def restore(before):
        connection.close()
        connection.settings_dict.update(before)

    before = await sync_to_async(use)(str(tmp_path / "db.sqlite3"))
    yield
    await sync_to_async(restore)(before)


def ask():
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        return cursor.fetchone()


def is_open():
    return connection.connection is not None


def set_max_age(seconds):
    connection.settings_dict["CONN_MAX_AGE"] = seconds


@pytest.fixture
def threads(monkeypatch):
    """The threads that closed old connections, in order."""
    seen = []
    monkeypatch.setattr(db, "close_old_connections", lambda: seen.append(threading.get_ident()))
    return seen


async def test_a_function_runs_in_a_thread_and_returns_its_result():
    assert await database_sync_to_async(ask)() == (1,)
    assert await database_sync_to_async(threading.get_ident)() != threading.get_ident()


async def test_it_is_a_decorator_with_and_without_arguments():
    @database_sync_to_async
    def plain(number):
        """Double."""
        return number * 2

    @database_sync_to_async(thread_sensitive=False)
    def elsewhere():
        return threading.get_ident()

    class Repository:
        @database_sync_to_async
        def owner(self):
            return self

    repository = Repository()
    assert isinstance(plain, DatabaseSyncToAsync)
    assert issubclass(DatabaseSyncToAsync, SyncToAsync)
    assert plain.__doc__ == "Double."
    assert await plain(2) == 4
    assert await elsewhere() != await sync_to_async(threading.get_ident)()
    assert await repository.owner() is repository


async def test_connections_are_closed_before_and_after_in_the_thread_of_the_call(threads):
    def work():
        assert threads == [threading.get_ident()]
        return threading.get_ident()

    thread = await database_sync_to_async(work)()
    assert threads == [thread, thread]


async def test_connections_are_closed_after_a_call_that_raises(threads):
    def fail():
        raise LookupError("no such thing")

    with pytest.raises(LookupError):
        await database_sync_to_async(fail)()
    assert len(threads) == 2


async def test_a_call_leaves_no_connection_past_its_age_and_nothing_to_do(file_database):
    assert await database_sync_to_async(ask)() == (1,)
    assert not await sync_to_async(is_open)()
    assert not cleanup_due()


async def test_a_call_inside_a_call_does_not_end_the_outer_ones_promise(file_database):
    def outer():
        async_to_sync(database_sync_to_async(ask))()
        return ask()

    assert await database_sync_to_async(outer)() == (1,)
    assert not cleanup_due()
    assert not await sync_to_async(is_open)()


async def test_a_connection_inside_a_transaction_stays_open(file_database):
    def inside():
        with transaction.atomic():
            async_to_sync(database_sync_to_async(ask))()
            return ask()

    assert await database_sync_to_async(inside)() == (1,)
    assert not await sync_to_async(is_open)()


def test_a_test_case_keeps_its_transaction_in_a_database_that_could_be_closed(tmp_path):
    """With a file for its database, a test and the handlers share one open connection."""
    (tmp_path / "settings.py").write_text(
        textwrap.dedent(
            """
            from tests.settings import *

            DATABASES = {
                "default": {
                    "ENGINE": "django.db.backends.sqlite3",
                    "NAME": "db.sqlite3",
                    "TEST": {"NAME": "test.sqlite3"},
                }
            }
            """
        )
    )
    (tmp_path / "test_counting.py").write_text(
        textwrap.dedent(
            """
            from django.contrib.auth.models import User
            from django.test import TestCase

            from headrace.db import database_sync_to_async
            from headrace.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
            from headrace.testing import WebsocketCommunicator

            class Counting(WebsocketConsumer):
                def receive(self, text_data=None, bytes_data=None):
                    self.send(text_data=str(User.objects.count()))

            class AsyncCounting(AsyncWebsocketConsumer):
                async def receive(self, text_data=None, bytes_data=None):
                    await self.send(text_data=str(await self.count()))

                @database_sync_to_async
                def count(self):
                    return User.objects.count()

            class CountingTest(TestCase):
                @classmethod
                def setUpTestData(cls):
                    User.objects.create(username="ada")

                async def test_all_see_one_user(self):
                    for consumer in (Counting, AsyncCounting):
                        communicator = WebsocketCommunicator(consumer.as_asgi(), "/")
                        await communicator.connect()
                        await communicator.send_to(text_data="?")
                        self.assertEqual(await communicator.receive_from(), "1")
                        await communicator.disconnect()
                    self.assertEqual(await User.objects.acount(), 1)
            """
        )
    )
    done = subprocess.run(
        [sys.executable, "-m", "django", "test", "--noinput"],
        cwd=tmp_path,
        env={
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "settings",
            "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path]),
        },
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Ran 1 test" in done.stderr


async def test_nothing_is_due_until_the_database_is_used():
    assert not cleanup_due()


async def test_a_query_awaited_in_place_is_noticed_and_cleaned_up(file_database):
    assert await sync_to_async(ask)() == (1,)
    assert await sync_to_async(is_open)()
    assert cleanup_due()
    await aclose_old_connections()
    assert not cleanup_due()
    assert not await sync_to_async(is_open)()
    await sync_to_async(ask)()
    assert cleanup_due(), "the mark is set again by the next query"


async def test_the_asynchronous_orm_is_noticed():
    assert await User.objects.acount() == 0
    assert cleanup_due()


async def test_another_context_is_not_bothered():
    await User.objects.acount()
    await aclose_old_connections()

    async def neighbour():
        await User.objects.acount()
        return cleanup_due()

    assert await asyncio.create_task(neighbour())
    assert not cleanup_due()


def test_a_query_at_start_up_marks_no_connection_that_comes_later(transactional_db):
    User.objects.count()
    assert not cleanup_due()


async def test_child_tasks_share_the_mark_when_asked_to():
    track_database_use()
    await asyncio.gather(User.objects.acount(), User.objects.acount())
    assert cleanup_due()
    await aclose_old_connections()
    assert not cleanup_due()


async def test_a_connection_is_watched_once(file_database):
    await sync_to_async(ask)()
    await aclose_old_connections()
    await sync_to_async(ask)()

    def watchers():
        return connection.execute_wrappers.count(db._mark_use)

    assert await sync_to_async(watchers)() == 1


async def test_a_kept_connection_falls_due_when_it_is_past_its_age(file_database, monkeypatch):
    await sync_to_async(set_max_age)(60)
    await sync_to_async(ask)()
    await aclose_old_connections()
    assert await sync_to_async(is_open)(), "young enough to be kept"
    assert not cleanup_due()

    later = db.time.monotonic() + 61
    monkeypatch.setattr(db.time, "monotonic", lambda: later)
    assert cleanup_due()
    await aclose_old_connections()
    assert not await sync_to_async(is_open)()
    assert not cleanup_due()


async def test_a_connection_without_an_age_never_falls_due(file_database, monkeypatch):
    await sync_to_async(set_max_age)(None)
    await sync_to_async(ask)()
    await aclose_old_connections()
    monkeypatch.setattr(db.time, "monotonic", lambda: float(10**9))
    assert not cleanup_due()


async def test_a_connection_that_can_not_close_does_not_fall_due_for_ever():
    # An in-memory SQLite database stays open whatever its age.
    await User.objects.acount()
    await aclose_old_connections()
    assert await sync_to_async(is_open)()
    assert not cleanup_due()


async def test_connections_of_a_thread_sensitive_context_are_its_own(file_database):
    async with ThreadSensitiveContext():
        await sync_to_async(ask)()
        await aclose_old_connections()
        assert not await sync_to_async(is_open)()
    assert not cleanup_due()


async def test_a_fresh_context_knows_of_no_use():
    await User.objects.acount()
    assert contextvars.Context().run(cleanup_due) is False
    assert connections["default"] is not None


# A thread that is taken care of


def in_a_thread(func):
    """Run the function in a thread of its own; return its result."""
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(func).result()


def test_a_thread_that_is_cared_for_marks_nothing_and_tidies_up(file_database_of_threads):
    def work():
        cares = ThreadConnections()
        ask()
        seen = [is_open(), cleanup_due()]
        cares.tidy()
        seen.append(is_open())
        cares.tidy()  # there is nothing to do
        return seen

    assert in_a_thread(work) == [True, False, False]


def test_it_knows_when_the_first_connection_expires(file_database_of_threads):
    file_database_of_threads["CONN_MAX_AGE"] = 60

    def work():
        cares = ThreadConnections()
        before = cares.next_expiry()
        ask()
        expiry = cares.next_expiry()
        async_to_sync(database_sync_to_async(ask))()
        cares.close()
        return before, expiry - db.time.monotonic(), cares.next_expiry(), is_open()

    before, remaining_s, after, still_open = in_a_thread(work)
    assert before is None
    assert after is None
    assert 50 < remaining_s <= 60
    assert not still_open
    assert not cleanup_due(), "its connections are nobody else's business"


def test_a_connection_that_can_not_be_closed_is_logged(file_database_of_threads, caplog):
    def work():
        cares = ThreadConnections()
        ask()
        opened = connection.connection
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(connections["default"], "_close", fail)
            cares.close_old()
        opened.close()

    def fail():
        raise OperationalError("the network is gone")

    in_a_thread(work)
    (record,) = caplog.records
    assert record.message == "a database connection could not be closed"
    assert record.exc_info[0] is OperationalError


@pytest.fixture
def file_database_of_threads(tmp_path):
    """The settings of a database whose connections really close, in any new thread."""
    before = dict(connection.settings_dict)
    connection.settings_dict.update(NAME=str(tmp_path / "db.sqlite3"), CONN_MAX_AGE=0)
    yield connection.settings_dict
    connection.settings_dict.clear()
    connection.settings_dict.update(before)


# A database in memory


@pytest.fixture
def writing():
    """A transaction of another thread, which ends when told to."""
    begun, end = threading.Event(), threading.Event()

    def write():
        cares = ThreadConnections()
        with transaction.atomic():
            User.objects.create(username="ada")
            begun.set()
            assert end.wait(10)
        cares.close()

    with ThreadPoolExecutor(1) as executor:
        written = executor.submit(write)
        assert begun.wait(10)
        yield end
        end.set()
        written.result()


def test_who_reads_does_not_wait_for_a_transaction(writing):
    assert User.objects.count() == 1


def test_who_writes_waits_for_the_transaction_of_another_thread(writing):
    def write():
        cares = ThreadConnections()
        User.objects.create(username="grace")
        cares.close()

    def slept(duration_s):
        writing.set()
        sleep(duration_s)

    sleep = db.time.sleep
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(db.time, "sleep", slept)
        in_a_thread(write)
    assert User.objects.count() == 2


def test_who_waits_too_long_is_told(writing, monkeypatch):
    (in_turn,) = (w for w in connection.execute_wrappers if isinstance(w, db._InTurn))
    monkeypatch.setattr(in_turn, "_timeout_s", 0.01)
    with pytest.raises(OperationalError, match="locked"):
        User.objects.create(username="grace")


def test_what_is_done_many_times_is_not_repeated(writing):
    with connection.cursor() as cursor, pytest.raises(OperationalError, match="locked"):
        cursor.executemany("DELETE FROM auth_user WHERE id = %s", [[1], [2]])


def test_another_error_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(db.time, "sleep", None)
    with connection.cursor() as cursor, pytest.raises(OperationalError, match="no such table"):
        cursor.execute("SELECT * FROM nowhere")


# Behind a consumer


class Counting(AsyncConsumer):
    """Uses the database where it is told to."""

    async def count(self, event):
        await sync_to_async(ask)()
        if event.get("fail"):
            raise LookupError("after the query")

    async def idle(self, event): ...

    async def stop(self, event):
        await sync_to_async(ask)()
        raise StopConsumer


async def consume(*events):
    """Run a consumer over these events, in a task as a server does."""
    pending = [*events, {"type": "stop"}]

    async def receive():
        return pending.pop(0)

    scope = {"type": "test"}
    await asyncio.create_task(Counting.as_asgi()(scope, receive, None))


async def test_a_consumer_cleans_up_after_a_handler_that_used_the_database(
    file_database, monkeypatch
):
    cleanups = []
    close = db.close_old_connections

    def note():
        cleanups.append(threading.get_ident())
        close()

    monkeypatch.setattr(db, "close_old_connections", note)
    await consume({"type": "idle"}, {"type": "count"}, {"type": "idle"}, {"type": "idle"})
    assert len(cleanups) == 2, "after count and after stop, and for no idle event"
    assert not await sync_to_async(is_open)()


async def test_a_consumer_cleans_up_after_a_handler_that_fails(file_database):
    with pytest.raises(LookupError):
        await consume({"type": "count", "fail": True})
    assert not await sync_to_async(is_open)()


async def test_a_consumer_finds_no_connection_past_its_age(file_database, monkeypatch):
    await sync_to_async(set_max_age)(60)
    await sync_to_async(ask)()
    await aclose_old_connections()
    later = db.time.monotonic() + 61
    monkeypatch.setattr(db.time, "monotonic", lambda: later)
    was_open = []

    class Looking(AsyncConsumer):
        async def look(self, event):
            was_open.append(await sync_to_async(is_open)())
            raise StopConsumer

    async def receive():
        return {"type": "look"}

    await Looking.as_asgi()({"type": "test"}, receive, None)
    assert was_open == [False]
