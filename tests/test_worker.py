"""The worker, in this process; the command that runs it is tested as a process of its own."""

import asyncio
import contextlib
import os
import signal
import threading

import pytest
from asgiref.sync import async_to_sync

from headrace.consumer import AsyncConsumer, SyncConsumer, concurrent
from headrace.exceptions import StopConsumer
from headrace.layers import InMemoryChannelLayer, channel_layers
from headrace.routing import ChannelNameRouter, ProtocolTypeRouter
from headrace.worker import Worker
from tests.layers.plain import PlainLayer
from tests.server.clients import until

TIMEOUT_S = 10


@pytest.fixture(params=["a layer that pushes", "a layer that is pulled"])
def layer(request):
    layer = InMemoryChannelLayer() if request.param == "a layer that pushes" else PlainLayer()
    old = channel_layers.set("default", layer)
    yield layer
    channel_layers.set("default", old)


@pytest.fixture
def short_pauses(monkeypatch):
    monkeypatch.setattr("headrace.worker._PAUSE_S", 0.001)


class Log(list):
    """What happened, in order, for tests to wait for."""

    def __init__(self):
        super().__init__()
        self._news = asyncio.Event()

    def note(self, what):
        self.append(what)
        self._news.set()

    async def has(self, *what):
        async with asyncio.timeout(TIMEOUT_S):
            while not all(item in self for item in what):
                self._news.clear()
                await self._news.wait()
        return list(self)


@pytest.fixture
def log():
    return Log()


@contextlib.asynccontextmanager
async def working(application, *channels, layer, **options):
    """Run a worker, and stop it gracefully; nothing may be left of it."""
    worker = Worker(application, channels, layer, **options)
    before = asyncio.all_tasks()
    running = asyncio.create_task(worker.arun())
    try:
        yield worker
    finally:
        worker.stop()
        async with asyncio.timeout(TIMEOUT_S):
            await running
    assert asyncio.all_tasks() == before


def message(number, kind="work.do"):
    return {"type": kind, "number": number}


async def send(layer, channel, *numbers, **options):
    for number in numbers:
        await layer.send(channel, message(number, **options))


def consumer_of(log, layer, base=AsyncConsumer):
    """A consumer that notes what it handles, and does what a message's number says."""

    class Consumer(base):
        async def work_do(self, event):
            number = event["number"]
            log.note((self.scope["channel"], number))
            if number == "fail":
                raise LookupError("as told")
            if number == "stop":
                raise StopConsumer
            if number == "join":
                await self.channel_layer.group_add("gang", self.channel_name)
                log.note("joined")

        async def work_name(self, event):
            log.note(self)

    return Consumer


# What it does


async def test_a_consumer_handles_what_is_sent_to_its_channel(layer, log):
    scopes = []

    class Thumbnails(AsyncConsumer):
        async def thumbnails_make(self, event):
            scopes.append(self.scope)
            log.note(event["number"])

    application = ProtocolTypeRouter(
        {"channel": ChannelNameRouter({"thumbnails": Thumbnails.as_asgi()})}
    )
    async with working(application, "thumbnails", layer=layer):
        await send(layer, "thumbnails", 1, 2, 3, kind="thumbnails.make")
        assert await log.has(3) == [1, 2, 3]
    assert all(scope == {"type": "channel", "channel": "thumbnails"} for scope in scopes)
    assert all(scope is scopes[0] for scope in scopes), "one instance for all"


async def test_a_synchronous_consumer_sends_from_its_handler(layer, log):
    loop = asyncio.get_running_loop()

    class Doubling(SyncConsumer):
        def work_do(self, event):
            loop.call_soon_threadsafe(log.note, threading.current_thread() is main)
            reply = {"type": "answer", "number": 2 * event["number"]}
            async_to_sync(self.channel_layer.send)("answers", reply)

    main = threading.current_thread()
    async with working(Doubling.as_asgi(), "numbers", layer=layer):
        await send(layer, "numbers", 21)
        async with asyncio.timeout(TIMEOUT_S):
            assert (await layer.receive("answers"))["number"] == 42
    assert log == [False]


async def test_each_channel_has_an_instance_of_its_own(layer, log):
    application = consumer_of(log, layer).as_asgi()
    async with working(application, "a", "b", "a", layer=layer):
        for channel in ("a", "b", "a"):
            await layer.send(channel, {"type": "work.name"})
        await until(lambda: len(log) == 3)
    assert len(set(log)) == 2


async def test_a_consumer_in_a_group_hears_the_group_too(layer, log):
    application = consumer_of(log, layer).as_asgi()
    async with working(application, "jobs", layer=layer):
        await send(layer, "jobs", "join")
        await log.has("joined")
        await layer.group_send("gang", message("to all"))
        await log.has(("jobs", "to all"))
        await send(layer, "jobs", "to one")
        await log.has(("jobs", "to one"))


async def test_a_plain_application_is_served_as_well(layer, log):
    async def application(scope, receive, send):
        while True:
            log.note((await receive())["number"])

    async with working(application, "jobs", layer=layer):
        await send(layer, "jobs", 1, 2)
        await log.has(1, 2)


async def test_there_is_no_client_to_send_to(layer, caplog):
    failure = asyncio.get_running_loop().create_future()

    async def application(scope, receive, send):
        await receive()
        try:
            await send({"type": "websocket.send", "text": "hello?"})
        except NotImplementedError as error:
            failure.set_result(str(error))

    async with working(application, "jobs", layer=layer):
        await send(layer, "jobs", 1)
        assert "a worker has no client" in await failure


@pytest.mark.parametrize(
    "channels", [["a b"], ["fine", "x" * 100], [7]], ids=["characters", "length", "type"]
)
async def test_a_name_that_no_channel_can_have(layer, channels):
    with pytest.raises(TypeError):
        await Worker(None, channels, layer).arun()


def test_there_has_to_be_a_layer():
    with pytest.raises(ValueError, match="CHANNEL_LAYERS"):
        Worker(None, ["jobs"], None)


async def test_a_layer_that_does_not_check_names_is_taken_as_it_is(layer, log):
    class Lax:
        receive = layer.receive

    async with working(consumer_of(log, layer).as_asgi(), "jobs", layer=Lax()):
        await send(layer, "jobs", 1)
        await log.has(("jobs", 1))


# What goes wrong


async def test_an_error_costs_its_own_message_and_no_other(layer, log, caplog):
    application = consumer_of(log, layer).as_asgi()
    async with working(application, "jobs", layer=layer):
        await send(layer, "jobs", 1, "fail", 2, "fail", 3)
        assert await log.has(("jobs", 3)) == [("jobs", n) for n in (1, "fail", 2, "fail", 3)]
    errors = [record for record in caplog.records if record.levelname == "ERROR"]
    assert [error.getMessage() for error in errors] == [
        "channel jobs: the application raised LookupError"
    ] * 2
    assert all("as told" in str(error.exc_info[1]) for error in errors)


async def test_a_consumer_that_stops_is_followed_by_another(layer, log, caplog):
    application = consumer_of(log, layer).as_asgi()
    async with working(application, "jobs", layer=layer):
        await layer.send("jobs", {"type": "work.name"})
        await send(layer, "jobs", "stop")
        await layer.send("jobs", {"type": "work.name"})
        await send(layer, "jobs", "end")
        first, _, second, _ = await log.has(("jobs", "end"))
    assert first != second
    assert not caplog.records


async def test_a_message_that_nothing_takes_is_dropped_with_an_error(layer, log, caplog):
    application = ChannelNameRouter({"jobs": consumer_of(log, layer).as_asgi()})
    async with working(application, "jobs", "typo", layer=layer):
        await send(layer, "typo", 1)
        await until(lambda: len(caplog.records) == 2)
        await send(layer, "jobs", 2)
        await log.has(("jobs", 2))
    raised, lost = [record.getMessage() for record in caplog.records]
    assert raised == "channel typo: the application raised NoApplicationError"
    assert lost == "channel typo: a message is lost: nothing has taken it"


async def test_a_message_outlives_an_instance_that_fails_over_something_else(layer, log, caplog):
    instances = []
    go = asyncio.Event()

    async def application(scope, receive, send):
        instances.append(asyncio.current_task())
        log.note((await receive())["number"])
        if len(instances) == 1:
            # It asks, and gives up asking: what comes meanwhile waits for whoever asks next.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(receive(), 0.001)
            log.note("tired")
            await go.wait()
            raise LookupError("something else")
        await receive()

    async with working(application, "jobs", layer=layer):
        await send(layer, "jobs", 1)
        await log.has(1, "tired")
        await send(layer, "jobs", 2)
        await until(lambda: is_fetched(layer, "jobs"))
        go.set()
        assert await log.has(2) == [1, "tired", 2]
    assert "LookupError" in caplog.text


def is_fetched(layer, channel):
    if isinstance(layer, PlainLayer):
        return layer.queues[channel].empty()
    return channel not in layer.channels or not len(layer.channels[channel])


async def test_an_application_that_is_cancelled_by_somebody(layer, log, caplog):
    async def application(scope, receive, send):
        log.note((await receive())["number"])
        raise asyncio.CancelledError

    async with working(application, "jobs", layer=layer):
        await send(layer, "jobs", 1, 2)
        await log.has(1, 2)
    assert "channel jobs: the application was cancelled" in caplog.text


async def test_a_message_without_a_type_is_dropped(layer, log, caplog, short_pauses):
    async with working(consumer_of(log, layer).as_asgi(), "jobs", layer=layer):
        await layer.send("jobs", {"number": 1})
        await send(layer, "jobs", 2)
        assert await log.has(("jobs", 2)) == [("jobs", 2)]
    assert "message with no type" in str(caplog.records[0].exc_info[1])


async def test_a_layer_that_fails_is_asked_again(layer, log, caplog, short_pauses):
    failures = [ConnectionError("gone"), ConnectionError("still gone")]

    class Shaky:
        async def receive(self, channel):
            if failures:
                raise failures.pop()
            return await layer.receive(channel)

    async with working(consumer_of(log, layer).as_asgi(), "jobs", layer=Shaky()):
        await send(layer, "jobs", 1)
        await log.has(("jobs", 1))
    assert caplog.messages == [
        "the worker has failed: it begins again in 0.001 s",
        "the worker has failed: it begins again in 0.002 s",
    ]


async def test_after_a_calm_time_a_pause_is_short_again(layer, caplog, monkeypatch, short_pauses):
    monkeypatch.setattr("headrace.worker._CALM_S", 0)
    failures = [ConnectionError("gone"), ConnectionError("gone again")]
    recovered = asyncio.Event()

    class Shaky:
        async def receive(self, channel):
            if failures:
                raise failures.pop()
            recovered.set()
            return await layer.receive(channel)

    async with working(None, "jobs", layer=Shaky()):
        await recovered.wait()
    assert caplog.messages == ["the worker has failed: it begins again in 0.001 s"] * 2


async def test_a_stop_does_not_wait_for_a_layer_that_fails(layer, log, caplog):
    class Broken:
        async def receive(self, channel):
            log.note("asked")
            raise ConnectionError

    async with working(None, "jobs", layer=Broken()):
        await log.has("asked")
        await until(lambda: caplog.messages)


async def test_a_layer_that_is_cancelled_is_asked_again(layer, log):
    async def cancelled(channel):
        raise asyncio.CancelledError

    calls = [cancelled, layer.receive, layer.receive]

    class Odd:
        def receive(self, channel):
            return calls.pop(0)(channel)

    async with working(consumer_of(log, layer).as_asgi(), "jobs", layer=Odd()):
        await send(layer, "jobs", 1)
        await log.has(("jobs", 1))


# How many, and in what order


async def test_nothing_is_fetched_ahead_of_the_application(layer, log):
    gate = asyncio.Event()

    class Slow(AsyncConsumer):
        async def work_do(self, event):
            log.note(event["number"])
            await gate.wait()

    async with working(Slow.as_asgi(), "jobs", layer=layer):
        await send(layer, "jobs", 1, 2)
        await log.has(1)
        # What this worker is too busy for, another one gets.
        async with asyncio.timeout(TIMEOUT_S):
            assert (await layer.receive("jobs"))["number"] == 2
        gate.set()


async def test_the_instance_that_was_idle_for_longest_makes_room(layer, log):
    class Counted(AsyncConsumer):
        async def __call__(self, scope, receive, send):
            log.note(f"begin {scope['channel']}")
            try:
                await super().__call__(scope, receive, send)
            finally:
                log.note(f"end {scope['channel']}")

        async def work_do(self, event):
            log.note((self.scope["channel"], event["number"]))

    async with working(Counted.as_asgi(), "a", "b", "c", layer=layer, max_applications=2):
        for channel, number in (("a", 1), ("b", 2), ("a", 3)):
            await send(layer, channel, number)
            await log.has((channel, number))
        log.clear()
        await send(layer, "c", 4)
        await log.has("end b", ("c", 4))
        await send(layer, "b", 5)
        await log.has("end a", ("b", 5))
    assert sorted(log[-2:]) == ["end b", "end c"]


async def test_an_instance_at_work_is_not_ended_for_another(layer, log):
    gate = asyncio.Event()

    class Slow(AsyncConsumer):
        async def work_do(self, event):
            log.note(self.scope["channel"])
            await gate.wait()
            log.note(f"{self.scope['channel']} done")

    async with working(Slow.as_asgi(), "a", "b", layer=layer, max_applications=1):
        await send(layer, "a", 1)
        await log.has("a")
        await send(layer, "b", 2)
        await log.has("b")
        gate.set()
        await log.has("a done", "b done")


async def test_a_message_for_an_instance_that_is_just_ending_waits_for_its_end(layer, log):
    ending, gate = asyncio.Event(), asyncio.Event()

    async def application(scope, receive, send):
        channel = scope["channel"]
        with contextlib.suppress(StopConsumer):
            while True:
                log.note((channel, (await receive())["number"]))
        log.note(f"ending {channel}")
        if channel == "a" and not ending.is_set():
            ending.set()
            await gate.wait()
        log.note(f"ended {channel}")

    async with working(application, "a", "b", layer=layer, max_applications=1):
        await send(layer, "a", 1)
        await log.has(("a", 1))
        await send(layer, "b", 2)
        await log.has(("b", 2), "ending a")
        await send(layer, "a", 3)
        await until(lambda: is_fetched(layer, "a"))
        gate.set()
        await log.has(("a", 3))
    assert log.index("ended a") < log.index(("a", 3))


# Its end


async def test_what_was_fetched_is_handled_before_the_end(layer, log):
    gate = asyncio.Event()

    class Slow(AsyncConsumer):
        async def work_do(self, event):
            log.note(f"begin {event['number']}")
            await gate.wait()
            log.note(f"end {event['number']}")

    worker = Worker(Slow.as_asgi(), ["jobs"], layer)
    running = asyncio.create_task(worker.arun())
    await send(layer, "jobs", 1, 2)
    await log.has("begin 1")
    worker.stop()
    await asyncio.sleep(0)
    assert not running.done()
    gate.set()
    async with asyncio.timeout(TIMEOUT_S):
        await running
        assert log == ["begin 1", "end 1"]
        assert (await layer.receive("jobs"))["number"] == 2, "it is left for another worker"


async def test_what_runs_beside_other_messages_is_finished_too(layer, log):
    gate = asyncio.Event()

    class Parallel(AsyncConsumer):
        @concurrent(limit=2)
        async def work_do(self, event):
            log.note(f"begin {event['number']}")
            await gate.wait()
            log.note(f"end {event['number']}")

    async with working(Parallel.as_asgi(), "jobs", layer=layer) as worker:
        await send(layer, "jobs", 1, 2)
        await log.has("begin 1", "begin 2")
        worker.stop()
        await asyncio.sleep(0.01)
        assert len(log) == 2
        gate.set()
    assert sorted(log[2:]) == ["end 1", "end 2"]


async def test_what_takes_too_long_is_cancelled(layer, log, caplog):
    async def application(scope, receive, send):
        await receive()
        log.note("begun")
        await asyncio.Event().wait()

    async with working(application, "jobs", layer=layer, shutdown_timeout_s=0.01):
        await send(layer, "jobs", 1)
        await log.has("begun")
    assert caplog.messages == ["channel jobs: the application is cancelled at work"]


async def test_an_application_that_does_not_listen_to_the_end_is_cancelled(layer, log):
    async def application(scope, receive, send):
        while True:
            with contextlib.suppress(StopConsumer):
                log.note((await receive())["number"])
            await asyncio.sleep(0)

    async with working(application, "jobs", layer=layer, shutdown_timeout_s=0.01):
        await send(layer, "jobs", 1)
        await log.has(1)


async def test_it_may_be_stopped_before_it_runs_and_run_again(layer, log):
    worker = Worker(consumer_of(log, layer).as_asgi(), ["jobs"], layer)
    worker.stop()
    await worker.arun()
    running = asyncio.create_task(worker.arun())
    await send(layer, "jobs", 1)
    await log.has(("jobs", 1))
    worker.stop()
    await running
    worker.stop()


async def test_cancelled_it_cancels_the_application(layer, log):
    async def application(scope, receive, send):
        await receive()
        log.note("begun")
        try:
            await asyncio.Event().wait()
        finally:
            log.note("cancelled")

    worker = Worker(application, ["jobs"], layer)
    running = asyncio.create_task(worker.arun())
    await send(layer, "jobs", 1)
    await log.has("begun")
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert log == ["begun", "cancelled"]


# ``handle()`` and ``listener()``, for who has a loop and supervision of their own


async def test_handle_raises_the_error_of_a_listener_once_all_have_finished(layer, log):
    gate = asyncio.Event()

    class Slow(AsyncConsumer):
        async def work_do(self, event):
            log.note("begun")
            await gate.wait()
            log.note("done")

    class Shaky:
        async def receive(self, channel):
            if channel == "broken":
                await log.has("begun")
                raise ConnectionError("gone")
            return await layer.receive(channel)

    worker = Worker(Slow.as_asgi(), ["jobs", "broken"], Shaky())
    handling = asyncio.create_task(worker.handle())
    await send(layer, "jobs", 1, 2)
    await log.has("begun")
    await until(lambda: not worker._may_fetch)
    gate.set()
    with pytest.raises(ConnectionError):
        await handling
    assert log == ["begun", "done"]
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_handle_ends_with_its_cancellation_and_so_does_the_application(layer, log):
    async def application(scope, receive, send):
        await receive()
        log.note("begun")
        try:
            await receive()
        finally:
            log.note("cancelled")

    handling = asyncio.create_task(Worker(application, ["jobs"], layer).handle())
    await send(layer, "jobs", 1)
    await log.has("begun")
    await asyncio.sleep(0)
    handling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await handling
    assert log == ["begun", "cancelled"]
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_handle_returns_when_all_listeners_have(layer, log):
    class Two(Worker):
        async def listener(self, channel):
            log.note(channel)

    await Two(None, ["a", "b"], layer).handle()
    assert sorted(log) == ["a", "b"]


async def test_a_listener_puts_each_message_where_its_scope_is_handled(layer):
    asked = []
    queue = asyncio.Queue()

    class Watched(Worker):
        def get_or_create_application_instance(self, scope_id, scope):
            asked.append((scope_id, scope))
            return queue

    listening = asyncio.create_task(Watched(None, [], layer).listener("jobs"))
    await send(layer, "jobs", 1, 2)
    await until(lambda: queue.qsize() == 2)
    assert asked == [("jobs", {"type": "channel", "channel": "jobs"})] * 2
    await layer.send("jobs", {"number": 3})
    with pytest.raises(ValueError, match="message with no type"):
        await listening


async def test_a_subclass_learns_what_an_application_raised(layer, log):
    class Watched(Worker):
        async def application_exception(self, exception, application_details):
            log.note((str(exception), application_details["scope"]["channel"]))

    worker = Watched(consumer_of(log, layer).as_asgi(), ["jobs"], layer)
    running = asyncio.create_task(worker.arun())
    await send(layer, "jobs", "fail")
    await log.has(("as told", "jobs"))
    worker.stop()
    await running


# ``run()``


def test_it_runs_in_a_thread_and_is_stopped_from_another():
    layer = InMemoryChannelLayer()
    handled = threading.Event()

    async def application(scope, receive, send):
        await receive()
        handled.set()

    worker = Worker(application, ["jobs"], layer)
    thread = threading.Thread(target=worker.run)
    thread.start()
    asyncio.run(send(layer, "jobs", 1))
    assert handled.wait(TIMEOUT_S)
    worker.stop()
    thread.join(TIMEOUT_S)
    assert not thread.is_alive()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_and_a_second_one_at_once(number, caplog):
    caplog.set_level("INFO", "headrace.worker")
    layer = InMemoryChannelLayer()
    seen = []

    async def application(scope, receive, send):
        await receive()
        os.kill(os.getpid(), number)
        await asyncio.sleep(0.01)
        seen.append("still at work")
        os.kill(os.getpid(), number)
        await asyncio.Event().wait()

    asyncio.run(send(layer, "jobs", 1))
    Worker(application, ["jobs"], layer).run()
    assert seen == ["still at work"]
    assert [
        f"{number.name}: stopping; once more ends it at once",
        f"{number.name} again: ending at once",
        "channel jobs: the application is cancelled at work",
    ] == caplog.messages


async def test_run_needs_a_loop_of_its_own(layer):
    with pytest.raises(RuntimeError, match="await arun"):
        Worker(None, [], layer).run()


def test_run_raises_what_makes_it_end():
    with pytest.raises(TypeError):
        Worker(None, ["no name"], InMemoryChannelLayer()).run()
