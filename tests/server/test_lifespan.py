"""Start and stop, as an application is told of them."""

import asyncio
import gc
import logging
import sys

import pytest

from headrace.exceptions import LocalProtocolError
from headrace.server.config import Config
from headrace.server.lifespan import LifespanFailed
from headrace.server.server import Server

from .clients import connected, respond, serving, until

STARTED = {"type": "lifespan.startup.complete"}
STOPPED = {"type": "lifespan.shutdown.complete"}


class Application:
    """Tells what it heard; ``lifespan`` is how it takes part."""

    def __init__(self, lifespan):
        self.lifespan = lifespan
        self.heard = []
        self.states = []

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            assert scope["asgi"] == {"version": "3.0", "spec_version": "2.0"}
            self.state = scope["state"]

            async def hear():
                message = await receive()
                self.heard.append(message["type"])
                return message

            await self.lifespan(scope, hear, send)
        else:
            self.heard.append(scope["type"])
            self.states.append(scope.get("state"))
            await respond(send)


async def polite(scope, receive, send):
    await receive()
    await send(STARTED)
    await receive()
    await send(STOPPED)


@pytest.fixture
def log(caplog):
    caplog.set_level(logging.DEBUG, "headrace.server")
    return caplog


def errors(log):
    return [record for record in log.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("mode", ["auto", "on"])
async def test_the_application_hears_of_start_and_stop(mode, log):
    app = Application(polite)
    async with serving(app, lifespan=mode) as server:
        assert app.heard == ["lifespan.startup"]
        async with connected(server) as client:
            await client.get()
    assert app.heard == ["lifespan.startup", "http", "lifespan.shutdown"]
    assert errors(log) == []


async def test_the_state_is_copied_for_each_connection():
    async def lifespan(scope, receive, send):
        scope["state"]["list"] = []
        scope["state"]["number"] = 1
        await polite(scope, receive, send)

    app = Application(lifespan)
    async with serving(app, lifespan="on") as server, connected(server) as client:
        await client.get()
        app.states[0]["number"] = 2
        app.states[0]["list"].append("shared")
        await client.get()
    assert app.states[1] == {"number": 1, "list": ["shared"]}


async def test_off_tells_nothing_and_gives_no_state():
    app = Application(polite)
    async with serving(app, lifespan="off") as server, connected(server) as client:
        await client.get()
    assert app.heard == ["http"]
    assert app.states == [None]


async def raises_unheard(scope, receive, send):
    raise ValueError("no lifespan here")


async def raises_heard(scope, receive, send):
    await receive()
    raise ZeroDivisionError("no database")


async def returns(scope, receive, send):
    await receive()


async def answers_with_something_else(scope, receive, send):
    await receive()
    await send({"type": "http.response.start", "status": 200})


async def cancels_itself(scope, receive, send):
    asyncio.current_task().cancel()
    await receive()


@pytest.mark.parametrize(
    ("lifespan", "warnings"),
    [
        (raises_unheard, 0),
        (raises_heard, 1),
        (returns, 0),
        (answers_with_something_else, 0),
        (cancels_itself, 0),
    ],
)
async def test_an_application_without_lifespan_is_served_all_the_same(lifespan, warnings, log):
    app = Application(lifespan)
    async with serving(app, lifespan="auto") as server, connected(server) as client:
        assert (await client.get()).status == 200
    assert app.states == [None]
    assert len(errors(log)) == warnings
    if warnings:
        assert "no database" in log.text


@pytest.mark.parametrize("lifespan", [raises_unheard, returns, cancels_itself])
async def test_on_insists(lifespan):
    server = Server(Application(lifespan), Config(port=0, lifespan="on"))
    with pytest.raises(LifespanFailed, match=r"does not support lifespan: .*auto or off"):
        await server.start()
    await server.stop()


@pytest.mark.parametrize("then", ["returns", "raises", "hangs"])
@pytest.mark.parametrize("mode", ["auto", "on"])
async def test_an_application_that_can_not_start_is_not_served(then, mode, monkeypatch):
    monkeypatch.setattr("headrace.server.lifespan.GRACE_S", 0.1)
    ended = []

    async def lifespan(scope, receive, send):
        try:
            await receive()
            await send({"type": "lifespan.startup.failed", "message": "the well is dry"})
            if then == "raises":
                raise ZeroDivisionError
            if then == "hangs":
                await asyncio.Event().wait()
        finally:
            ended.append(True)

    server = Server(Application(lifespan), Config(port=0, lifespan=mode))
    with pytest.raises(LifespanFailed, match="could not start: the well is dry"):
        await server.start()
    assert ended
    assert server.addresses == []
    gc.collect()  # a task whose exception nobody has seen would complain here


@pytest.mark.parametrize("mode", ["auto", "on"])
async def test_an_exit_is_a_reason_not_to_start(mode):
    async def app(scope, receive, send):
        sys.exit("no database")

    with pytest.raises(LifespanFailed, match="could not start: it called sys"):
        await Server(app, Config(port=0, lifespan=mode)).start()


async def test_an_exit_while_stopping_is_logged(log):
    async def lifespan(scope, receive, send):
        await receive()
        await send(STARTED)
        await receive()
        sys.exit(3)

    async with serving(Application(lifespan), lifespan="on"):
        pass
    [record] = errors(log)
    assert record.message == "the application raised while stopping"
    assert "it called sys.exit(3)" in log.text


async def test_a_failure_without_a_reason():
    async def lifespan(scope, receive, send):
        await receive()
        await send({"type": "lifespan.startup.failed"})

    with pytest.raises(LifespanFailed, match="it gives no reason"):
        await Server(Application(lifespan), Config(port=0)).start()


async def test_a_start_that_is_cancelled_cancels_the_application():
    ended = asyncio.Event()

    async def lifespan(scope, receive, send):
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    app = Application(lifespan)
    server = Server(app, Config(port=0))
    start = asyncio.create_task(server.start())
    await until(lambda: hasattr(app, "state"))
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    assert ended.is_set()
    assert server.addresses == []


async def test_a_lifespan_that_fails_while_serving_is_logged_at_once(log):
    gate = asyncio.Event()

    async def lifespan(scope, receive, send):
        await receive()
        await send(STARTED)
        await gate.wait()
        raise ZeroDivisionError("background work")

    async with serving(Application(lifespan), lifespan="auto"):
        gate.set()
        await until(lambda: errors(log))
        assert "the application's lifespan has failed" in log.text
    assert len(errors(log)) == 1


async def test_a_lifespan_that_returns_early_is_left_alone(log):
    async def lifespan(scope, receive, send):
        await receive()
        await send(STARTED)

    app = Application(lifespan)
    async with serving(app, lifespan="auto") as server, connected(server) as client:
        assert (await client.get()).status == 200
    assert errors(log) == []


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ({"type": "lifespan.shutdown.failed", "message": "still dirty"}, "failed to stop: still d"),
        (ZeroDivisionError("oops"), "the application raised while stopping"),
        (None, ""),
    ],
)
async def test_how_an_application_may_stop(answer, says, log):
    async def lifespan(scope, receive, send):
        await receive()
        await send(STARTED)
        await receive()
        if isinstance(answer, Exception):
            raise answer
        if answer is not None:
            await send(answer)

    async with serving(Application(lifespan), lifespan="auto"):
        pass
    assert says in log.text
    assert len(errors(log)) == bool(says)


@pytest.mark.parametrize("answers", [False, True])
async def test_an_application_that_does_not_stop_is_cancelled(answers, log, monkeypatch):
    monkeypatch.setattr("headrace.server.server.CANCELLED_S", 0.1)
    cancelled = []

    async def lifespan(scope, receive, send):
        await receive()
        await send(STARTED)
        await receive()
        if answers:
            await send(STOPPED)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    async with serving(Application(lifespan), lifespan="auto", shutdown_timeout_s=0.1):
        pass
    assert cancelled
    assert "has not stopped in" in log.text


async def test_an_application_that_does_not_stop_is_cancelled_at_once_in_a_hurry():
    cancelled = []

    async def lifespan(scope, receive, send):
        await receive()
        await send(STARTED)
        await receive()
        stopping.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    stopping = asyncio.Event()
    async with serving(Application(lifespan), lifespan="auto", shutdown_timeout_s=60) as server:
        stop = asyncio.create_task(server.stop())
        await stopping.wait()
        await server.stop()
        await stop
    assert cancelled


@pytest.mark.parametrize(
    ("messages", "says"),
    [
        ([STOPPED], "state=lifespan.startup"),
        ([STARTED, STARTED], "state=ANSWERED"),
        ([{}], "a dict with a 'type'"),
    ],
)
async def test_what_may_not_be_sent(messages, says):
    refused = []

    async def lifespan(scope, receive, send):
        await receive()
        for message in messages:
            try:
                await send(message)
            except LocalProtocolError as error:
                refused.append(str(error))
        if STARTED not in messages:
            await send(STARTED)

    async with serving(Application(lifespan), lifespan="on"):
        pass
    [text] = refused
    assert says in text
