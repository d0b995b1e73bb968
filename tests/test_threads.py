import asyncio
import contextvars
import gc
import logging
import os
import re
import sqlite3
import subprocess
import sys
import textwrap
import threading
import traceback
import tracemalloc
import types
import weakref

import pytest
import websockets
from asgiref.sync import ThreadSensitiveContext, async_to_sync, sync_to_async
from django.contrib.auth.models import User
from django.core.handlers.asgi import ASGIHandler
from django.db import connection, transaction
from django.http import HttpResponse
from django.test import SimpleTestCase, TestCase, override_settings
from django.urls import path

from headrace import threads
from headrace.db import database_sync_to_async
from headrace.generic.websocket import WebsocketConsumer
from headrace.server import server as server_module
from headrace.server.config import Config, Lifespan
from headrace.server.server import Server
from headrace.testing import HttpCommunicator, WebsocketCommunicator
from headrace.threads import (
    ThreadPoolMiddleware,
    pool_stats,
    run_in_connection_thread,
    thread_context,
)

#: How long a thread of these tests waits for another before the test has failed.
PATIENCE_S = 10


@pytest.fixture(autouse=True)
def pool(monkeypatch):
    """A pool of this test's own."""
    pool = threads._Pool()
    monkeypatch.setattr(threads, "_pool", pool)
    yield pool
    pool.end()
    assert not [worker for worker in pool._workers if worker.is_alive()]


@pytest.fixture
def size(settings):
    def set_size(number):
        settings.HEADRACE = {"SYNC_THREADS": number}

    set_size(4)
    return set_size


class Gate:
    """Holds the threads that come to it, and tells the test of each."""

    def __init__(self):
        self.loop = asyncio.get_running_loop()
        self.arrived = asyncio.Semaphore(0)
        self.opened = threading.Event()
        self.inside = 0

    def __call__(self):
        self.inside += 1
        self.loop.call_soon_threadsafe(self.arrived.release)
        assert self.opened.wait(PATIENCE_S)
        return threading.current_thread().name

    async def arrivals(self, number):
        async with asyncio.timeout(PATIENCE_S):
            for _ in range(number):
                await self.arrived.acquire()


@pytest.fixture
async def gate():
    gate = Gate()
    yield gate
    gate.opened.set()


def start(func, *args, context=None):
    context = context or thread_context()
    return asyncio.create_task(run_in_connection_thread(context, func, *args))


async def turns(number=5):
    for _ in range(number):
        await asyncio.sleep(0)


def thread_name():
    return threading.current_thread().name


async def connected(consumer_class, number):
    """Return so many communicators that have been accepted."""
    communicators = [WebsocketCommunicator(consumer_class.as_asgi(), "/") for _ in range(number)]
    for communicator in communicators:
        assert await communicator.connect() == (True, None)
    return communicators


async def disconnect(communicators):
    for communicator in communicators:
        await communicator.disconnect()


# Contexts


async def test_connections_run_in_parallel(size):
    size(6)
    meeting = threading.Barrier(6, timeout=PATIENCE_S)

    class Meeting(WebsocketConsumer):
        def receive(self, text_data=None, bytes_data=None):
            meeting.wait()  # until all six are here
            self.send(text_data=thread_name())

    communicators = await connected(Meeting, 6)
    for communicator in communicators:
        await communicator.send_to(text_data="go")
    names = {await communicator.receive_from(PATIENCE_S) for communicator in communicators}
    assert len(names) == 6
    assert all(name.startswith("headrace-sync-") for name in names)
    await disconnect(communicators)


async def test_calls_of_one_context_run_one_at_a_time_and_in_order(size):
    context = thread_context()
    inside = []
    order = []

    def call(number):
        inside.append(number)
        assert inside == [number]
        order.append(number)
        inside.remove(number)

    await asyncio.gather(*(start(call, number, context=context) for number in range(50)))
    assert order == list(range(50))


async def test_no_more_run_at_once_than_the_setting_says(size, gate):
    size(2)
    calls = [start(gate) for _ in range(5)]
    await gate.arrivals(2)
    await turns()
    assert gate.inside == 2
    stats = pool_stats()
    assert (stats.size, stats.threads, stats.busy, stats.waiting) == (2, 2, 2, 3)
    gate.opened.set()
    assert len(set(await asyncio.gather(*calls))) == 2


async def test_a_context_with_many_calls_lets_others_in_between(size, gate):
    size(1)
    order = []
    first = start(gate)
    await gate.arrivals(1)
    busy, other = thread_context(), thread_context()
    calls = [start(order.append, number, context=busy) for number in range(3)]
    calls.append(start(order.append, "other", context=other))
    await turns()
    gate.opened.set()
    await asyncio.gather(first, *calls)
    assert order == [0, "other", 1, 2]


async def test_the_setting_may_change_at_any_time(size, gate):
    size(1)
    calls = [start(gate) for _ in range(3)]
    await gate.arrivals(1)
    size(3)
    calls.append(start(gate))  # the next one to come finds out
    await gate.arrivals(2)
    size(2)
    assert (pool_stats().busy, pool_stats().waiting) == (3, 1)
    gate.opened.set()
    await asyncio.gather(*calls)
    again = Gate()
    calls = [start(again) for _ in range(3)]
    await again.arrivals(2)
    await turns()
    assert pool_stats().busy == 2
    again.opened.set()
    await asyncio.gather(*calls)


async def test_a_smaller_pool_takes_no_more_work_than_it_has_threads_for(size):
    first, second = Gate(), Gate()
    size(2)
    calls = [start(first), start(second)]
    await first.arrivals(1)
    await second.arrivals(1)
    third = Gate()
    calls += [start(third), start(third)]
    await turns()
    size(1)
    first.opened.set()
    await calls[0]
    assert pool_stats().busy == 1
    second.opened.set()
    await third.arrivals(1)
    third.opened.set()
    await asyncio.gather(*calls)


async def test_without_a_pool_all_share_asgirefs_thread(size):
    size(0)
    shared = await sync_to_async(thread_name)()
    assert await start(thread_name) == shared
    assert pool_stats().calls == 0


async def test_an_idle_consumer_costs_no_thread(size):
    communicators = await connected(WebsocketConsumer, 20)
    assert pool_stats().threads <= 4
    await disconnect(communicators)


def test_an_idle_context_costs_little_memory():
    contexts = [thread_context() for _ in range(1000)]  # what is allocated once is, by now
    tracemalloc.start()
    try:
        before_bytes, _ = tracemalloc.get_traced_memory()
        contexts = [thread_context() for _ in range(1000)]
        after_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (after_bytes - before_bytes) / len(contexts) < 700


async def test_a_context_that_is_gone_leaves_nothing():
    registered = threads.SyncToAsync.context_to_thread_executor
    before = len(registered)
    context = thread_context()
    assert len(registered) == before + 1
    del context
    assert len(registered) == before


# Code below a call


async def test_asynchronous_code_below_comes_back_to_the_thread_of_its_call(size):
    size(1)  # whoever went elsewhere would never come back

    def call():
        async def below():
            by_task = asyncio.create_task(sync_to_async(thread_name)())
            return {
                await sync_to_async(thread_name)(),
                await database_sync_to_async(thread_name)(),
                await sync_to_async(deeper)(),
                await by_task,
            }

        return async_to_sync(below)() | {thread_name()}

    def deeper():
        return async_to_sync(sync_to_async(thread_name))()

    async with asyncio.timeout(PATIENCE_S):
        (name,) = await start(call)
    assert name.startswith("headrace-sync-")


async def test_thread_sensitive_code_of_a_task_that_outlives_its_call_keeps_to_the_line(size, gate):
    context = thread_context()

    async def in_the_context(func):
        token = threads.SyncToAsync.thread_sensitive_context.set(context)
        try:
            return await sync_to_async(func)()
        finally:
            threads.SyncToAsync.thread_sensitive_context.reset(token)

    calls = [start(gate, context=context), asyncio.create_task(in_the_context(thread_name))]
    await gate.arrivals(1)
    assert not calls[1].done()
    gate.opened.set()
    assert (await asyncio.gather(*calls))[1].startswith("headrace-sync-")


async def test_handlers_may_send_to_groups(size):
    size(1)

    class Room(WebsocketConsumer):
        groups = ("room",)

        def receive(self, text_data=None, bytes_data=None):
            async_to_sync(self.channel_layer.group_send)("room", {"type": "say", "what": text_data})

        def say(self, event):
            self.send(text_data=event["what"])

    communicators = await connected(Room, 12)
    for number, communicator in enumerate(communicators):
        await communicator.send_to(text_data=str(number))
    said = {str(number) for number in range(12)}
    for communicator in communicators:
        assert {await communicator.receive_from(PATIENCE_S) for _ in said} == said
    await disconnect(communicators)


async def test_handlers_may_wait_for_each_other_as_long_as_there_are_threads(size):
    """A handler that holds its thread until another has run needs a thread for that one."""
    size(2)

    class Asking(WebsocketConsumer):
        def receive(self, text_data=None, bytes_data=None):
            layer = self.channel_layer
            reply = async_to_sync(layer.new_channel)()
            question = {"type": "question", "reply": reply}
            async_to_sync(layer.send)(text_data, question)
            self.send(text_data=async_to_sync(layer.receive)(reply)["answer"])

        def question(self, event):
            async_to_sync(self.channel_layer.send)(
                event["reply"], {"type": "answer", "answer": "yes"}
            )

    class Named(Asking):
        def connect(self):
            self.accept()
            self.send(text_data=self.channel_name)

    askers = await connected(Asking, 8)
    (answerer,) = await connected(Named, 1)
    name = await answerer.receive_from()
    for asker in askers:  # two at once would leave no thread for the answer
        await asker.send_to(text_data=name)
        assert await asker.receive_from(PATIENCE_S) == "yes"
    await disconnect([*askers, answerer])


# What passes between the two sides


async def test_an_exception_passes_with_its_traceback(size):
    def fail():
        raise LookupError("no such room")

    with pytest.raises(LookupError, match="no such room") as caught:
        await start(fail)
    assert traceback.extract_tb(caught.value.__traceback__)[-1].name == "fail"


def test_an_exception_leaves_no_cycle_behind(size, pool):
    class Gone(Exception):
        pass

    def fail():
        raise Gone

    size(1)
    line = threads._Line(pool)
    gc.disable()
    try:
        gone = weakref.ref(line.submit(fail).exception(PATIENCE_S))
        line.submit(thread_name).result(PATIENCE_S)  # by now the thread is done with the first
        assert gone() is None
    finally:
        gc.enable()


async def test_even_one_that_ends_programs(size):
    def leave():
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await run_in_connection_thread(thread_context(), leave)
    assert await start(thread_name), "the thread goes on"


async def test_context_variables_pass_from_one_handler_to_the_next(size):
    language = contextvars.ContextVar("language", default="none")

    class Speaking(WebsocketConsumer):
        def receive(self, text_data=None, bytes_data=None):
            self.send(text_data=language.get())
            language.set(text_data)

    one, other = await connected(Speaking, 2)
    for text, before in (("de", "none"), ("fr", "de"), ("en", "fr")):
        await one.send_to(text_data=text)
        assert await one.receive_from() == before
    await other.send_to(text_data="it")
    assert await other.receive_from() == "none"
    await disconnect([one, other])


async def test_the_callers_own_thread_context_is_in_force_again_afterwards(size):
    shared = await sync_to_async(thread_name)()
    await run_in_connection_thread(thread_context(), thread_name)
    assert await sync_to_async(thread_name)() == shared


# An application in the pool


async def test_an_application_runs_its_synchronous_code_in_the_pool(size):
    size(1)

    async def app(scope, receive, send):
        names = [await sync_to_async(thread_name)() for _ in range(2)]
        await send((names, await receive(), scope["type"]))
        return "done"

    sent = []

    async def send(message):
        sent.append(message)

    async def receive():
        return "received"

    pooled = ThreadPoolMiddleware(app)
    for _ in range(2):
        assert await pooled({"type": "http"}, receive, send) == "done"
    assert sent == [([sent[0][0][0]] * 2, "received", "http")] * 2
    assert pool_stats().calls == 4
    assert await sync_to_async(thread_name)() != sent[0][0][0], "behind it all is as before"
    async with ThreadSensitiveContext():  # whose word comes first
        await pooled({"type": "http"}, receive, send)
    size(0)
    await pooled({"type": "http"}, receive, send)
    assert pool_stats().calls == 4


@pytest.mark.django_db(transaction=True)
async def test_requests_of_django_share_the_connections_of_the_pool(size, pool, file_database):
    size(1)
    seen = []

    def view(request):
        ask()
        seen.append((thread_name(), connection.connection))
        return HttpResponse("seen")

    urls = types.ModuleType("urls_of_this_test")
    urls.urlpatterns = [path("", view)]
    with override_settings(ROOT_URLCONF=urls, MIDDLEWARE=[]):
        application = ThreadPoolMiddleware(ASGIHandler())
        for _ in range(2):
            communicator = HttpCommunicator(application, "GET", "/")
            assert (await communicator.get_response())["body"] == b"seen"
            await communicator.wait()
    assert seen[0] == seen[1]
    assert seen[0][1] is not None
    await in_the_worker(pool, close)


# Whose word comes first


async def test_a_thread_sensitive_context_of_the_application_is_respected(size):
    async with ThreadSensitiveContext():
        own = await sync_to_async(thread_name)()
        assert await start(thread_name) == own
    assert pool_stats().calls == 0


def test_below_a_synchronous_caller_code_runs_in_its_thread(size):
    async def both():
        context = thread_context()
        here = await run_in_connection_thread(context, threading.current_thread)
        # A task that was started from a callback of the loop, as a server's are.
        task = asyncio.get_running_loop().create_task(
            run_in_connection_thread(context, threading.current_thread),
            context=contextvars.Context(),
        )
        return {here, await task}

    assert async_to_sync(both)() == {threading.current_thread()}
    assert pool_stats().calls == 0


class Counting(WebsocketConsumer):
    def receive(self, text_data=None, bytes_data=None):
        User.objects.create(username=text_data)
        self.send(text_data=str(User.objects.count()))


class InTheTransactionOfATest(TestCase):
    @classmethod
    def setUpTestData(cls):
        User.objects.create(username="grace")

    async def test_handlers_see_it(self):
        (communicator,) = await connected(Counting, 1)
        await communicator.send_to(text_data="ada")
        assert await communicator.receive_from() == "2"
        await communicator.disconnect()
        assert await User.objects.acount() == 2


class WithoutADatabase(SimpleTestCase):
    async def test_handlers_run_in_the_tests_thread(self):
        class Naming(WebsocketConsumer):
            def receive(self, text_data=None, bytes_data=None):
                self.send(text_data=str(threading.get_ident() == main))

        main = threading.main_thread().ident
        (communicator,) = await connected(Naming, 1)
        await communicator.send_to(text_data="")
        assert await communicator.receive_from() == "True"
        await communicator.disconnect()


# Cancellation


async def test_what_is_cancelled_before_it_began_never_runs(size, gate):
    size(1)
    ran = []
    running = start(gate)
    await gate.arrivals(1)
    waiting = start(ran.append, 1)
    await turns()
    waiting.cancel()
    await asyncio.wait({waiting})
    assert waiting.cancelled()
    gate.opened.set()
    await running
    await start(ran.append, 2)
    assert ran == [2]


async def test_what_runs_is_left_alone_and_the_next_call_waits_for_it(size, gate):
    context = thread_context()
    running = start(gate, context=context)
    await gate.arrivals(1)
    running.cancel()
    await asyncio.wait({running})
    assert running.cancelled()
    following = start(thread_name, context=context)
    other = await start(thread_name)
    assert other, "another context goes on meanwhile"
    await turns()
    assert not following.done()
    gate.opened.set()
    assert await following
    assert (pool_stats().busy, pool_stats().waiting) == (0, 0)


async def test_asynchronous_code_that_a_call_waits_for_is_cancelled_with_it(size):
    began, never = asyncio.Event(), asyncio.Event()
    ended = []

    async def wait():
        began.set()
        try:
            await never.wait()
        finally:
            ended.append("asynchronous")

    def call():
        try:
            async_to_sync(wait)()
        finally:
            ended.append("synchronous")

    task = start(call)
    await began.wait()
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()
    assert ended == ["asynchronous", "synchronous"]


async def test_disconnect_waits_for_the_handler_that_was_cancelled(size, gate):
    diary = []

    class Busy(WebsocketConsumer):
        def receive(self, text_data=None, bytes_data=None):
            gate()
            diary.append("received")

        def disconnect(self, code):
            diary.append(code)

    (communicator,) = await connected(Busy, 1)
    await communicator.send_to(text_data="")
    await gate.arrivals(1)
    communicator.stop()
    await turns()
    gate.opened.set()
    await communicator.wait()
    assert diary == ["received", 1001]


async def test_a_server_stops_although_a_handler_blocks(size, gate, monkeypatch):
    monkeypatch.setattr(server_module, "CANCELLED_S", 0.05)

    class Blocking(WebsocketConsumer):
        def receive(self, text_data=None, bytes_data=None):
            gate()

    config = Config(
        port=0,
        access_log=False,
        lifespan=Lifespan.OFF,
        close_timeout_s=0.05,
        shutdown_timeout_s=0.05,
    )
    async with Server(Blocking.as_asgi(), config) as server:
        client = await websockets.connect(f"ws://127.0.0.1:{server.port}/")
        await client.send("go")
        await gate.arrivals(1)
        server.hurry()
    await client.wait_closed()
    assert pool_stats().busy == 1
    gate.opened.set()


# The pool


async def test_the_last_thread_to_fall_idle_is_the_first_to_work_again(size, gate):
    calls = [start(gate) for _ in range(3)]
    await gate.arrivals(3)
    gate.opened.set()
    await asyncio.gather(*calls)
    assert len({await start(thread_name) for _ in range(10)}) == 1


async def test_a_thread_without_work_ends(size, pool, monkeypatch):
    monkeypatch.setattr(threads, "_IDLE_S", 0.01)
    workers = []

    def work():
        workers.append(threading.current_thread())

    await start(work)
    await asyncio.to_thread(workers[0].join, PATIENCE_S)
    assert pool_stats().threads == 0
    assert await start(thread_name)


async def test_a_thread_that_just_got_work_does_not_end(size, pool):
    await start(thread_name)
    (worker,) = pool._workers
    pool._idle.clear()  # as if somebody had taken it for an order that is on its way
    assert not pool.dismiss(worker)
    pool._idle.append(worker)


async def test_a_thread_that_works_ends_after_its_call_when_the_pool_does(size, gate, pool):
    call = start(gate)
    await gate.arrivals(1)
    (worker,) = pool._workers
    ending = asyncio.create_task(asyncio.to_thread(pool.end))
    gate.opened.set()
    await asyncio.gather(call, ending)
    assert not worker.is_alive()


async def test_it_counts_calls_and_how_long_they_waited(size, gate):
    size(1)
    await start(thread_name)
    before = pool_stats()
    assert before.calls == 1
    calls = [start(gate) for _ in range(2)]
    await gate.arrivals(1)
    assert pool_stats().waiting == 1
    gate.opened.set()
    await asyncio.gather(*calls)
    stats = pool_stats()
    assert stats.calls == 3
    assert stats.wait_s_total > before.wait_s_total
    assert 0 < stats.wait_s_longest <= stats.wait_s_total
    assert stats.waiting == 0


class Warnings(logging.Handler):
    def __init__(self):
        super().__init__(logging.WARNING)
        self.messages = asyncio.Queue()

    def emit(self, record):
        self.messages.put_nowait(record.getMessage())


@pytest.fixture
async def warned():
    """The warnings of the pool, to be awaited."""
    handler = Warnings()
    logging.getLogger("headrace.threads").addHandler(handler)
    yield handler.messages
    logging.getLogger("headrace.threads").removeHandler(handler)


async def test_a_long_wait_is_logged_with_the_setting_to_raise(size, gate, monkeypatch, warned):
    monkeypatch.setattr(threads, "_LONG_WAIT_S", 0.02)
    size(1)
    calls = [start(gate) for _ in range(3)]
    async with asyncio.timeout(PATIENCE_S):
        message = await warned.get()
    assert re.match(r"2 connections wait for a thread, the first for \d+\.\d s: all 1 ", message)
    assert "Raise HEADRACE['SYNC_THREADS']" in message
    gate.opened.set()
    await asyncio.gather(*calls)


async def test_the_warning_does_not_flood_the_log(size, gate, monkeypatch, warned, pool):
    monkeypatch.setattr(threads, "_LONG_WAIT_S", 0.01)
    monkeypatch.setattr(threads, "_WARNING_INTERVAL_S", 0.05)
    size(1)
    loop = asyncio.get_running_loop()
    calls = [start(gate) for _ in range(2)]
    async with asyncio.timeout(PATIENCE_S):
        await warned.get()
        began = loop.time()
        await warned.get()
    assert loop.time() - began >= 0.04
    gate.opened.set()
    await asyncio.gather(*calls)
    assert pool._watching_loop is loop
    pool._look(loop)
    assert pool._watching_loop is None, "nothing waits: nothing to watch"


async def test_a_call_from_no_loop_is_not_watched(size, gate, pool):
    size(1)
    first = start(gate)
    await gate.arrivals(1)
    waiting = []

    def submit():
        waiting.append(threads._Line(pool).submit(thread_name))

    thread = threading.Thread(target=submit)
    thread.start()
    thread.join()
    assert pool._watching_loop is None
    gate.opened.set()
    await first
    assert await asyncio.wrap_future(waiting[0])


async def test_a_system_without_threads_fails_the_call(size, monkeypatch, gate):
    def refuse(self):
        raise RuntimeError("can't start new thread")

    context = thread_context()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            await run_in_connection_thread(context, thread_name)
    assert await run_in_connection_thread(context, thread_name), "the context is none the worse"
    assert pool_stats().waiting == 0


async def test_a_system_without_more_threads_makes_the_call_wait(size, monkeypatch, gate):
    def refuse(self):
        raise RuntimeError("can't start new thread")

    first = start(gate)
    await gate.arrivals(1)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    second = start(thread_name)
    await turns()
    assert pool_stats().waiting == 1
    gate.opened.set()
    assert await first == await second


# Databases


def ask():
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        return cursor.fetchone()


@pytest.fixture
def file_database(tmp_path):
    """A database whose connections really close."""
    before = dict(connection.settings_dict)
    connection.settings_dict.update(NAME=str(tmp_path / "db.sqlite3"), CONN_MAX_AGE=60)
    yield connection.settings_dict
    connection.settings_dict.clear()
    connection.settings_dict.update(before)


@pytest.mark.django_db(transaction=True)
async def test_handlers_share_a_database_in_memory(size):
    """Each transaction reads and then writes, what SQLite alone would refuse at once."""
    size(6)

    class Writing(WebsocketConsumer):
        def receive(self, text_data=None, bytes_data=None):
            for number in range(10):
                with transaction.atomic():
                    User.objects.count()
                    User.objects.create(username=f"{text_data}-{number}")
                    list(User.objects.iterator(chunk_size=2))
            self.send(text_data="written")

    communicators = await connected(Writing, 6)
    for name, communicator in zip("abcdef", communicators, strict=True):
        await communicator.send_to(text_data=name)
    for number in range(10):
        await User.objects.acreate(username=f"test-{number}")
    for communicator in communicators:
        assert await communicator.receive_from(PATIENCE_S) == "written"
    assert await User.objects.acount() == 70
    await disconnect(communicators)


async def in_the_worker(pool, func):
    """Run the function in the pool's one thread, with nothing before or after it."""
    return await asyncio.wrap_future(threads._Line(pool).submit(func))


def is_open():
    return connection.connection is not None


def close():
    connection.close()


@pytest.mark.django_db(transaction=True)
async def test_a_call_leaves_no_connection_past_its_age(size, pool, file_database):
    size(1)
    assert await start(ask) == (1,)
    assert await in_the_worker(pool, is_open), "young enough to be kept"
    file_database["CONN_MAX_AGE"] = 0
    await in_the_worker(pool, close)
    assert await start(ask) == (1,)
    assert not await in_the_worker(pool, is_open)


@pytest.mark.django_db(transaction=True)
async def test_queries_of_other_code_in_the_context_are_tidied_up_by_the_thread(
    size, pool, file_database
):
    size(1)
    file_database["CONN_MAX_AGE"] = 0
    assert await in_the_worker(pool, ask) == (1,)
    assert not await in_the_worker(pool, is_open)


@pytest.mark.django_db(transaction=True)
async def test_an_idle_thread_closes_its_connections_in_time(size, pool, file_database):
    size(1)
    closed = threading.Event()
    seen = []

    class Watched:
        def __init__(self, connection):
            self._connection = connection

        def __getattr__(self, name):
            return getattr(self._connection, name)

        def close(self):
            seen.append(thread_name())
            self._connection.close()
            closed.set()

    def watched_ask():
        file_database["CONN_MAX_AGE"] = 0.05
        connection.close()
        ask()
        connection.connection = Watched(connection.connection)
        return thread_name()

    name = await in_the_worker(pool, watched_ask)
    assert await asyncio.to_thread(closed.wait, PATIENCE_S)
    assert seen == [name]
    assert not await in_the_worker(pool, is_open)
    assert pool_stats().threads == 1


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("in_memory", [True, False])
async def test_a_thread_that_ends_closes_its_connections(size, pool, in_memory, request):
    size(1)
    if not in_memory:
        request.getfixturevalue("file_database")

    def use():
        ask()
        return connection.connection

    opened = await in_the_worker(pool, use)
    (worker,) = pool._workers
    await asyncio.to_thread(pool.end)
    assert not worker.is_alive()
    with pytest.raises(sqlite3.ProgrammingError, match="closed database"):
        opened.execute("SELECT 1")


# The process


def run_python(code):
    """Run a program with Django set up; return what it printed."""
    preamble = """
        import asyncio, os, sys, threading, time
        import django
        from django.conf import settings
        settings.configure(
            DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
            INSTALLED_APPS=["headrace"],
        )
        django.setup()
        from django.db import connection
        from headrace.threads import pool_stats, run_in_connection_thread, thread_context
    """
    program = textwrap.dedent(preamble) + textwrap.dedent(code)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.stderr == ""
    assert done.returncode == 0
    return done.stdout


def test_a_handler_that_blocks_does_not_hold_up_the_exit():
    out = run_python(
        """
        began = threading.Event()

        def block():
            began.set()
            threading.Event().wait()

        async def main():
            task = asyncio.create_task(run_in_connection_thread(thread_context(), block))
            await asyncio.to_thread(began.wait)
            task.cancel()
            await asyncio.wait({task})

        asyncio.run(main())
        print("over")
        """
    )
    assert out == "over\n"


def test_a_handler_that_is_nearly_done_is_waited_for_at_the_exit():
    out = run_python(
        """
        began = threading.Event()

        def work():
            began.set()
            time.sleep(0.1)
            print("done", flush=True)

        async def main():
            task = asyncio.create_task(run_in_connection_thread(thread_context(), work))
            await asyncio.to_thread(began.wait)
            task.cancel()
            await asyncio.wait({task})

        asyncio.run(main())
        print("over", flush=True)
        """
    )
    assert out == "over\ndone\n"


def test_idle_threads_end_with_the_process_and_close_their_connections():
    out = run_python(
        """
        def ask():
            connection.ensure_connection()
            return threading.current_thread().name

        print(asyncio.run(run_in_connection_thread(thread_context(), ask)))
        """
    )
    assert out == "headrace-sync-1\n"


def test_a_forked_process_has_a_pool_of_its_own():
    out = run_python(
        """
        def name():
            return threading.current_thread().name

        def run():
            return asyncio.run(run_in_connection_thread(thread_context(), name))

        run()
        child = os.fork()
        if child:
            _, status = os.waitpid(child, 0)
            print(os.waitstatus_to_exitcode(status), pool_stats().calls)
        else:
            run()
            print(pool_stats().threads, pool_stats().calls, flush=True)
            os._exit(0)
        """
    )
    assert out == "1 1\n0 1\n"
