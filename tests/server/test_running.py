"""A server in a thread, as a program without an event loop has it."""

import asyncio
import contextlib
import contextvars
import gc
import http.client
import platform
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from headrace.exceptions import ConfigurationError
from headrace.server.config import Config
from headrace.server.handover import SHORT_S
from headrace.server.running import ThreadedServer, ending_at_once, give_way
from headrace.server.server import Server

from . import apps
from .clients import TIMEOUT_S, echo, hello, respond


def served(application, **settings):
    return ThreadedServer(application, Config(**{"port": 0, "lifespan": "off"} | settings))


def get(server, target="/"):
    address = urlsplit(server.url)
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=TIMEOUT_S)
    with contextlib.closing(connection):
        connection.request("GET", target)
        return connection.getresponse().read()


def test_a_process_of_our_own_keeps_its_loop_waiting_for_little(monkeypatch):
    told = []
    monkeypatch.setattr(gc, "collect", lambda: told.append("collect"))
    monkeypatch.setattr(gc, "freeze", lambda: told.append("freeze"))
    monkeypatch.setattr(sys, "setswitchinterval", told.append)
    monkeypatch.setattr(sys, "getswitchinterval", lambda: 0.005)
    give_way()
    # Who wants it to be even less has it so.
    monkeypatch.setattr(sys, "getswitchinterval", lambda: 0.0001)
    give_way()
    assert told == ["collect", "freeze", SHORT_S, "collect", "freeze", 0.0001]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="that is of glibc's allocator")
def test_memory_of_large_writes_is_kept_for_the_next():
    program = """if True:
        import resource
        from headrace.server.running import give_way

        give_way()
        for turn in range(101):
            if turn == 1:  # what is had once is had now
                before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            del (data := [bytes(300_000), bytes(300_000)])[:]
        print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=TIMEOUT_S)
    # 80 here; had page by page each time, 3,600.
    assert int(done.stdout) < 1000


def test_until_a_loop_takes_the_signals_an_interrupt_ends_the_process_in_silence():
    program = """if True:
        import os, signal
        from headrace.server.running import ending_at_once

        class Importing:
            def __del__(self):  # where a KeyboardInterrupt gets lost
                os.kill(os.getpid(), signal.SIGINT)

        with ending_at_once():
            Importing()
            print("it goes on")
    """
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=TIMEOUT_S)
    assert (ended.returncode, ended.stdout, ended.stderr) == (-signal.SIGINT, b"", b"")


def test_the_handler_of_before_is_there_again():
    before = signal.getsignal(signal.SIGINT)
    with ending_at_once():
        assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) is before


def test_in_another_thread_signals_are_left_alone():
    before = signal.getsignal(signal.SIGINT)  # a shell's background job ignores it
    with ThreadPoolExecutor(1) as thread:
        thread.submit(ending_at_once().__enter__).result()
    assert signal.getsignal(signal.SIGINT) is before


def test_it_serves_until_it_is_stopped():
    with served(echo) as server:
        assert server.url == f"http://127.0.0.1:{server.port}"
        assert server.addresses == [server.url]
        with connect(f"{server.websocket_url}/chat") as client:
            client.send("hello")
            assert client.recv() == "hello"
        assert get(server) == b""
        assert server.counters.requests == 1
        address = ("127.0.0.1", server.port)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)


@pytest.mark.parametrize(("host", "shown"), [("0.0.0.0", "127.0.0.1"), ("::1", "[::1]")])
def test_its_url_leads_to_it(host, shown):
    with served(hello, host=host) as server:
        assert server.url == f"http://{shown}:{server.port}"
        assert server.websocket_url == f"ws://{shown}:{server.port}"
        assert get(server) == b"hello"


def test_a_unix_socket_has_no_url(tmp_path):
    path = str(tmp_path / "app.sock")
    with served(hello, uds=path) as server:
        assert server.addresses == [f"unix:{path}"]
        with pytest.raises(RuntimeError, match="no TCP port"):
            _ = server.url


def test_it_runs_without_uvloop(monkeypatch):
    monkeypatch.setitem(sys.modules, "uvloop", None)
    loops = []

    async def app(scope, receive, send):
        loops.append(asyncio.get_running_loop())
        await respond(send)

    with served(app) as server:
        get(server)
    assert type(loops[0]).__module__.startswith("asyncio.")


def test_several_at_once():
    with served(hello) as one, served(echo) as other:
        assert one.port != other.port
        assert get(one) == b"hello"
        assert get(other) == b""


def test_it_starts_again_after_a_stop():
    server = served(hello)
    for _ in range(2):
        server.start()
        with pytest.raises(RuntimeError, match="stop\\(\\) it first"):
            server.start()
        assert get(server) == b"hello"
        server.stop()
        server.stop()
        with pytest.raises(RuntimeError, match="start\\(\\) it first"):
            _ = server.url


def test_what_keeps_it_from_starting_is_raised_at_the_caller():
    with served(hello) as server, pytest.raises(ConfigurationError, match="another program"):
        served(hello, port=server.port).start()
    with pytest.raises(ConfigurationError, match="the well is dry"):
        served(apps.can_not_start, lifespan="auto").start()
    assert "headrace server" not in [thread.name for thread in threading.enumerate()]


def test_a_start_that_is_interrupted_leaves_no_thread(monkeypatch):
    """Ctrl-C while the application starts."""
    server = served(apps.never_starts, lifespan="on")
    started = threading.Event()

    async def never_starts(scope, receive, send):
        started.set()
        await asyncio.Event().wait()

    class Interrupted:
        def result(self):
            assert started.wait(TIMEOUT_S)
            raise KeyboardInterrupt

        def done(self):
            return False

        def set_exception(self, error):
            assert isinstance(error, asyncio.CancelledError)

    server.app = never_starts
    monkeypatch.setattr("headrace.server.running.Future", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        server.start()
    assert "headrace server" not in [thread.name for thread in threading.enumerate()]


def test_what_is_around_it_happens_in_its_thread():
    name = contextvars.ContextVar("name", default="nobody")
    seen = []

    @contextlib.contextmanager
    def around():
        name.set("somebody")
        seen.append(threading.current_thread().name)
        yield
        seen.append("over")

    async def app(scope, receive, send):
        await respond(send, name.get().encode())

    with ThreadedServer(app, Config(port=0, lifespan="off"), around=around) as server:
        assert get(server) == b"somebody"
        assert seen == ["headrace server"]
    assert seen == ["headrace server", "over"]
    assert name.get() == "nobody"


def test_what_is_around_it_may_fail():
    @contextlib.contextmanager
    def fails():
        raise LookupError("no database")
        yield

    @contextlib.contextmanager
    def fails_at_the_end():
        yield
        raise LookupError("no database")

    with pytest.raises(LookupError):
        ThreadedServer(hello, Config(port=0), around=fails).start()
    server = ThreadedServer(hello, Config(port=0, lifespan="off"), around=fails_at_the_end)
    server.start()
    with pytest.raises(LookupError):
        server.stop()
    server.stop()


def test_a_stop_waits_for_what_is_under_way():
    begun, gate = threading.Event(), threading.Event()

    async def app(scope, receive, send):
        begun.set()
        await asyncio.to_thread(gate.wait)
        await respond(send, b"finished")

    bodies = []
    with served(app) as server:
        client = threading.Thread(target=lambda: bodies.append(get(server)))
        client.start()
        assert begun.wait(TIMEOUT_S)
        stopping = threading.Thread(target=server.stop)
        stopping.start()
        gate.set()
        stopping.join(TIMEOUT_S)
        client.join(TIMEOUT_S)
    assert bodies == [b"finished"]


def test_a_stop_has_a_deadline():
    begun = threading.Event()

    async def app(scope, receive, send):
        begun.set()
        await asyncio.Event().wait()

    with served(app) as server, socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
        assert begun.wait(TIMEOUT_S)
        server.stop(timeout_s=0.1)
        assert client.recv(100) == b""


def test_an_application_that_blocks_the_loop_is_named(monkeypatch):
    monkeypatch.setattr("headrace.server.running.CANCELLED_S", 0.01)
    begun, gate = threading.Event(), threading.Event()

    async def app(scope, receive, send):
        begun.set()
        gate.wait()

    server = served(app)
    server.start()
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
        assert begun.wait(TIMEOUT_S)
        with pytest.raises(TimeoutError, match="blocks the event loop"):
            server.stop(timeout_s=0.01)
        gate.set()
        server.stop()


def test_the_application_can_not_stop_its_own_thread():
    errors = []

    async def app(scope, receive, send):
        try:
            server.stop()
        except RuntimeError as error:
            errors.append(str(error))
        await respond(send)

    with served(app) as server:
        get(server)
    assert "call it from another one" in errors[0]


# sys.exit() in an application


@pytest.fixture(params=["uvloop", "asyncio"])
def loop(request, monkeypatch):
    if request.param == "asyncio":
        monkeypatch.setitem(sys.modules, "uvloop", None)


async def exits(scope, receive, send):
    """Do what a message says: exit at once, or after a turn of the loop."""
    if scope["path"] == "/at-once":
        sys.exit(3)
    if scope["type"] == "http":
        await respond(send, b"still here")
        return
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        if message["text"] == "later":
            await asyncio.sleep(0.001)
            sys.exit(3)
        if message["text"] == "now":
            sys.exit(3)
        await send({**message, "type": "websocket.send"})


def exits_in_the_call(scope, receive, send):
    sys.exit(3)


@pytest.mark.parametrize("when", ["now", "later"])
def test_an_exit_in_a_handler_ends_its_websocket(loop, caplog, when):
    with served(exits) as server, connect(server.websocket_url) as other:
        with connect(server.websocket_url) as client:
            client.send(when)
            with pytest.raises(ConnectionClosed):
                client.recv()
            assert (client.close_code, client.close_reason) == (1011, "the application failed")
        other.send("still here")
        assert other.recv() == "still here"
        assert server.counters.application_errors == 1
    assert "the application raised SystemExit on a WebSocket (open)" in caplog.text


@pytest.mark.parametrize("app", [exits, exits_in_the_call])
def test_an_exit_before_the_answer_is_a_500(loop, caplog, app):
    with served(app) as server:
        with pytest.raises(InvalidStatus) as refused:
            connect(f"{server.websocket_url}/at-once")
        assert refused.value.response.status_code == 500
        assert get(server, "/at-once") == b"the application could not answer\n"
        assert server.counters.application_errors == 2
    assert "the application raised SystemExit on GET /at-once" in caplog.text


def test_an_exit_in_a_task_of_the_applications_own_stops_the_server(loop, caplog):
    tasks = []

    async def leave():
        sys.exit(4)

    async def app(scope, receive, send):
        tasks.append(asyncio.create_task(leave()))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await respond(send, b"finished")

    server = served(app)
    server.start()
    # What is under way finishes.
    assert get(server) == b"finished"
    with pytest.raises(SystemExit) as exit_:
        server.stop()
    assert exit_.value.code == 4
    assert tasks[0].exception() is exit_.value
    assert "sys.exit() in a task of the application: stopping" in caplog.text


def test_an_exit_when_nothing_runs_is_not_the_servers():
    assert not Server(hello).owns(SystemExit())
