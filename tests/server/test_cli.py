"""The command, in this process for its arguments, and in one of its own for its signals."""

import asyncio
import contextlib
import logging
import os
import re
import signal
import socket
import sys
from pathlib import Path

import pytest

from headrace.cli import main, parser
from headrace.exceptions import ConfigurationError
from headrace.protocols.deflate import DeflateFactory
from headrace.server import cli, handover
from headrace.server.config import Config, Lifespan
from headrace.server.endpoint import Endpoint
from headrace.server.outbox import SlowClientPolicy
from headrace.server.proxy import ProxyHeaders
from headrace.server.settings import resolve

from . import apps
from .clients import TIMEOUT_S, connected, until

ROOT = Path(__file__).parent.parent.parent
COMMAND = [sys.executable, "-m", "headrace"]

# In this process


@pytest.fixture(autouse=True)
def process_as_it_was():
    loggers = logging.getLogger("headrace"), logging.getLogger("headrace.access")
    before = [(logger.handlers[:], logger.level, logger.propagate) for logger in loggers]
    path, interval_s = sys.path[:], sys.getswitchinterval()
    yield
    sys.setswitchinterval(interval_s)
    for logger, was in zip(loggers, before, strict=True):
        logger.handlers[:], logger.level, logger.propagate = was
    sys.path[:] = path


def run(capsys, *arguments):
    """Run the command; return its status, and what it wrote."""
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    written = capsys.readouterr()
    return exit_.value.code, written.out + written.err


def serve(capsys, app, *options):
    """Serve an application of the test until it stops."""
    apps.application_of_the_test = app
    run(capsys, "serve", "tests.server.apps:application_of_the_test", "--port", "0", *options)
    del apps.application_of_the_test


def test_serves_until_it_is_told_to_stop(capsys):
    status, written = run(capsys, "serve", "tests.server.apps:stops_itself", "--port", "0")
    assert status == 0
    assert re.search(r"INFO headrace.server Headrace listens on http://127.0.0.1:\d+\n", written)
    assert "SIGTERM: stopping; once more ends it at once" in written
    assert written.endswith("Headrace has stopped\n")


def test_the_verbosity_of_the_log(capsys):
    arguments = ["serve", "tests.server.apps.stops_itself", "--port", "0"]
    assert run(capsys, *arguments, "-v", "0") == (0, "")
    assert run(capsys, *arguments, "--log-level", "warning") == (0, "")
    assert "DEBUG" not in run(capsys, *arguments, "-v", "1")[1]
    assert logging.getLogger("headrace").level == logging.INFO
    run(capsys, *arguments, "-v", "2")
    assert logging.getLogger("headrace").level == logging.DEBUG


@pytest.mark.parametrize(("verbosity", "debug"), [("2", False), ("3", True)])
def test_the_most_verbose_is_the_debug_mode_of_the_loop(capsys, verbosity, debug):
    told = []

    async def app(scope, receive, send):
        told.append(asyncio.get_running_loop().get_debug())
        await apps.stops_itself(scope, receive, send)

    serve(capsys, app, "-v", verbosity)
    assert told == [debug]


def test_threads_that_compute_let_the_loop_in_soon(capsys):
    told = []

    async def app(scope, receive, send):
        told.append(sys.getswitchinterval())
        await apps.stops_itself(scope, receive, send)

    serve(capsys, app)
    assert told == [pytest.approx(0.0005)]


def test_a_busy_loop_is_not_interrupted_by_threads_that_run_errands(capsys, monkeypatch):
    monkeypatch.setattr(handover, "PERIOD_S", 0.01)
    told = []

    async def app(scope, receive, send):
        async with asyncio.timeout(TIMEOUT_S):
            while sys.getswitchinterval() < 0.004:  # noqa: ASYNC110 - the loop is to be busy
                await asyncio.sleep(0)
        told.append(sys.getswitchinterval())
        await apps.stops_itself(scope, receive, send)

    serve(capsys, app)
    assert told == [pytest.approx(0.005)]


def test_the_format_of_the_log(capsys):
    format_ = "<%(levelname)s> %(message)s"
    _, written = run(
        capsys, "serve", "tests.server.apps:stops_itself", "--port", "0", "--log-fmt", format_
    )
    assert written.endswith("<INFO> Headrace has stopped\n")


def test_serves_a_wsgi_application(capsys):
    arguments = ["tests.server.apps:wsgi", "--websockets", "tests.server.apps:stops_itself"]
    status, written = run(capsys, "serve", *arguments, "--port", "0", "--wsgi-threads", "2")
    assert status == 0
    assert "tests.server.apps:wsgi is a WSGI application, served in 2 threads" in written


def test_serves_without_uvloop(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvloop", None)
    status, _ = run(capsys, "serve", "tests.server.apps:stops_itself", "--port", "0")
    assert status == 0


def test_an_application_that_can_not_start(capsys):
    status, written = run(capsys, "serve", "tests.server.apps:can_not_start", "--port", "0")
    assert status == 1
    assert written == "headrace: the application could not start: the well is dry\n"


def test_a_port_in_use(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, written = run(capsys, "serve", "tests.server.apps", "--port", str(port))
    assert status == 2
    assert written.startswith(f"headrace: cannot listen on 127.0.0.1 port {port}: address already")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["serve"], "usage: headrace serve [OPTIONS] MODULE:APP"),
        (["serve", "tests.server.apps", "--websockets", "x"], "leave out --websockets"),
        (["serve", "tests.server.apps:wsgi", "--websockets", "no.such"], "no module 'no'"),
        (
            ["serve", "tests.server.apps:wsgi", "--websockets", "tests.server.apps:wsgi"],
            "--websockets tests.server.apps:wsgi: that is a WSGI application",
        ),
        (
            ["serve", "tests.server.apps", "--wsgi-threads", "0"],
            "--wsgi-threads: must be a whole number, 1 or more, not '0'",
        ),
        (
            ["serve", "tests.server.apps", "--websocket-max-message-size", "0"],
            "--max-message-bytes/--websocket-max-message-size: must be a whole number, 1 or more",
        ),
        (
            ["serve", "tests.server.apps", "--prot", "1"],
            "unrecognized arguments: --prot 1; did you mean --port?",
        ),
        (["serve", "tests.server.apps", "--wxyz=1"], "unrecognized arguments: --wxyz=1\n"),
        (["serve", "no.such.module:app"], "there is no module 'no'"),
        (["serve", "tests.server.nothing:app"], "there is no module 'tests.server.nothing'"),
        (["serve", "tests.server.apps:nothing"], "module 'tests.server.apps' has no 'nothing'"),
        (["serve", "tests.server.apps:__name__"], "is no ASGI or WSGI application, it is str"),
        (
            ["serve", "headrace.generic.websocket:AsyncWebsocketConsumer"],
            "is a consumer's class: name what AsyncWebsocketConsumer.as_asgi() returns",
        ),
        (["serve", "tests/server/apps.py"], "'tests/server/apps.py' is a file"),
        (["serve", "tests.server.apps.nothing"], "'tests.server.apps' has no 'nothing'"),
        (["serve", "no.such.module.app"], "there is no module 'no'"),
        (["serve", "..app"], "'..app' names no application"),
        (["serve", ":app"], "':app' names no application"),
        (["serve", ".relative:app"], "'.relative:app' names no application"),
        (["serve", "tests.server.apps", "--port", "70000"], "port must be from 0 to 65535"),
        (
            ["serve", "tests.server.apps", "--port", "http"],
            "argument --port/-p: must be a whole number, not 'http'",
        ),
        (
            ["serve", "tests.server.apps", "--slow-client", "x"],
            "must be one of close, drop-oldest,",
        ),
        (["serve", "tests.server.apps", "--lifespan", "maybe"], "must be one of auto, on, off"),
        (["serve", "tests.server.apps", "--root-path", "x"], "root_path must begin with '/'"),
        (
            ["serve", "tests.server.apps", "--websocket-timeout", "-2"],
            "must be a number of seconds, 0 or more",
        ),
        (
            ["serve", "tests.server.apps", "--uds-mode", "rw"],
            "must be text of octal digits, as \"660\", not 'rw'",
        ),
        (["serve", "tests.server.apps", "--keep-alive", "x"], "must be a number of seconds"),
        (
            ["serve", "tests.server.apps", "-t", "x"],
            "--http-timeout/-t: must be a number of seconds, 0 or more, not 'x'",
        ),
        (["serve", "tests.server.apps", "-v", "4"], "must be one of 0, 1, 2, 3, not '4'"),
        (["serve", "tests.server.apps", "--log-fmt", "%(x"], "--log-fmt '%(x'"),
        (["serve", "tests.server.apps", "--access-log", "/no/such/f"], "no such file or directory"),
        (["serve", "tests.server.apps", "-e", "ssl:443"], "privateKey=FILE"),
        (["serve", "tests.server.apps", "--trusted-proxies", "*"], "how --proxy-headers works"),
        (["serve", "tests.server.apps", "--proxy-headers-host", "X"], "how --proxy-headers works"),
        (
            ["serve", "tests.server.apps", "--proxy-headers", "--trusted-proxies", "here"],
            "a trusted proxy is an address, a network or *",
        ),
        (
            ["serve", "tests.server.apps", "--extension", "tests.server.apps:NOT_A_FACTORY"],
            "an extension factory has a name and a method negotiate()",
        ),
    ],
)
def test_a_mistake_in_the_arguments(capsys, arguments, says):
    status, written = run(capsys, *arguments)
    assert status == 2
    assert says in written
    assert "Traceback" not in written


@pytest.mark.parametrize("error", [TypeError, ValueError, ModuleNotFoundError])
def test_what_the_application_s_module_raises_is_its_own(tmp_path, monkeypatch, error):
    (tmp_path / "raises_at_import.py").write_text(f"raise {error.__name__}('at import')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(error, match="at import"):
        cli.load("raises_at_import:application")


def test_help(capsys):
    status, written = run(capsys, "serve", "--help")
    assert status == 0
    assert "--slow-client {close,drop-oldest,latest-only}" in written


def test_an_application_is_named_by_module_and_attribute():
    assert cli.load("tests.server.apps:hello") is apps.hello
    assert cli.load("tests.server.apps:Holder.inner") is apps.hello
    assert cli.load("tests.server.apps") is apps.application
    # As Django's settings have it.
    assert cli.load("tests.server.apps.hello") is apps.hello
    assert cli.load("tests.server.apps.application") is apps.application


def test_a_module_that_fails_to_import_says_so_itself(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "lacks_something.py").write_text("import no_such_thing")
    (tmp_path / "broken.py").write_text("1 / 0")
    with pytest.raises(ModuleNotFoundError, match="no_such_thing"):
        cli.load("lacks_something:app")
    with pytest.raises(ZeroDivisionError):
        cli.load("broken:app")


def config_of(*arguments):
    options = parser().parse_args(["serve", "module:app", *arguments])
    return cli._config(resolve(options, {}))


def test_without_options_the_defaults_hold():
    config = config_of()
    extensions = config.extensions
    assert [type(extension) for extension in extensions] == [DeflateFactory]
    assert config == Config(extensions=extensions)


def test_every_option_arrives():
    arguments = """
        --bind 0.0.0.0 --port 1 --backlog 2 --root-path /app --lifespan on --no-access-log
        --server-name me --shutdown-timeout 3 --max-body-bytes 4 --head-timeout 5
        --keep-alive 6 --write-timeout 7 --max-message-bytes 8 --accept-timeout 9
        --ping-interval 10 --ping-timeout 11 --close-timeout 12 --inbox-limit 13
        --outbox-limit-bytes 14 --slow-client drop-oldest --no-compression
        --extension tests.server.apps:Factory --extension tests.server.apps:factory
    """
    config = config_of(*arguments.split())
    assert (config.host, config.port, config.backlog) == ("0.0.0.0", 1, 2)
    assert (config.root_path, config.lifespan) == ("/app", Lifespan.ON)
    assert (config.access_log, config.server_header) == (False, "me")
    assert config.shutdown_timeout_s == 3
    assert (config.http.body_bytes, config.http.head_s, config.http.keep_alive_s) == (4, 5, 6)
    assert config.write_timeout_s == 7
    assert (config.websocket.message_bytes, config.websocket.frame_bytes) == (8, 8)
    assert (config.accept_timeout_s, config.ping_interval_s) == (9, 10)
    assert (config.ping_timeout_s, config.close_timeout_s) == (11, 12)
    assert (config.inbox_limit, config.outbox_limit_bytes) == (13, 14)
    assert config.slow_client is SlowClientPolicy.DROP_OLDEST
    made, given = config.extensions
    assert isinstance(made, apps.Factory)
    assert given is apps.factory
    assert config_of("--uds", "/x").uds == "/x"
    assert config_of("--fd", "3").fd == 3


@pytest.mark.parametrize("name", ["accept", "websocket-connect", "websocket_connect"])
def test_names_of_daphne(name):
    arguments = f"""
        -e tcp:1 -u /run/a.sock --uds-mode 660 --fd 4 -s me -t 5 --{name}-timeout 6
        --websocket_timeout 7 --websocket-max-message-size 8 --websocket-max-frame-size 9
        --application-close-timeout 10 --proxy-headers --proxy-headers-host X-Real-IP
        --proxy-headers-port X-Real-Port --trusted-proxies 10.0.0.0/8,192.0.2.1
    """
    config = config_of(*arguments.replace(f"{name}-timeout 6", _spelled(name)).split())
    assert config.endpoints() == [
        Endpoint(fd=4),
        Endpoint(uds="/run/a.sock", uds_mode=0o660),
        Endpoint(host="0.0.0.0", port=1),
    ]
    assert (config.server_header, config.http_timeout_s, config.accept_timeout_s) == ("me", 5, 6)
    assert (config.websocket_timeout_s, config.application_close_timeout_s) == (7, 10)
    assert (config.websocket.message_bytes, config.websocket.frame_bytes) == (8, 9)
    assert config.proxy_headers == ProxyHeaders(
        address="X-Real-IP", port="X-Real-Port", trusted=("10.0.0.0/8", "192.0.2.1")
    )
    assert config_of("--no-server-name").server_header == ""
    assert config_of("--unix-socket", "/x").endpoints() == [Endpoint(uds="/x")]


def _spelled(name):
    return f"{name}_timeout 6" if "_" in name else f"{name}-timeout 6"


def test_minus_one_is_for_ever():
    config = config_of("--websocket_timeout", "-1", "--websocket_connect_timeout", "-1")
    assert (config.websocket_timeout_s, config.accept_timeout_s) == (0, 0)
    assert config_of("--ping-interval", "0.5").ping_interval_s == 0.5


def test_it_listens_at_each_place_that_is_named():
    assert config_of().endpoints() == [Endpoint(host="127.0.0.1", port=8000)]
    assert config_of("--port", "1").endpoints() == [Endpoint(port=1)]
    assert config_of("--bind", "::1").endpoints() == [Endpoint(host="::1")]
    assert config_of("--uds", "/x").endpoints() == [Endpoint(uds="/x")]
    both = config_of("--uds", "/x", "--port", "1").endpoints()
    assert both == [Endpoint(port=1), Endpoint(uds="/x")]


def test_an_extension_that_is_not_there():
    with pytest.raises(ConfigurationError, match="has no 'nothing'"):
        config_of("--extension", "tests.server.apps:nothing")


def test_the_application_is_imported_from_its_folder(capsys, tmp_path):
    (tmp_path / "site_of_its_own.py").write_text(
        "from tests.server.apps import can_not_start as app"
    )
    arguments = ["serve", "site_of_its_own:app", "--port", "0"]
    assert run(capsys, *arguments)[0] == 2
    assert run(capsys, *arguments, "--app-dir", str(tmp_path))[0] == 1


# In a process of its own

in_one_loop = pytest.mark.asyncio(loop_factories=["asyncio"])


class Process:
    """The command, as a supervisor sees it."""

    def __init__(self, process):
        self.process = process
        self.pid = process.pid
        self.log = []
        self.told = []
        self._readers = [
            asyncio.create_task(self._read(process.stderr, self.log)),
            asyncio.create_task(self._read(process.stdout, self.told)),
        ]

    async def _read(self, stream, lines):
        async for line in stream:
            lines.append(line.decode().rstrip("\n"))

    async def logged(self, text):
        await until(lambda: any(text in line for line in self.log))
        return next(line for line in self.log if text in line)

    async def has_told(self, text):
        await until(lambda: text in self.told)

    async def address(self):
        line = await self.logged("listens on ")
        return "127.0.0.1", int(line.rpartition(":")[2])

    async def end(self):
        """Wait for the end: the status. Nothing may have been left to complain about."""
        async with asyncio.timeout(TIMEOUT_S):
            await asyncio.wait(self._readers)
            status = await self.process.wait()
        text = "\n".join(self.log)
        for noise in ("Traceback", "never retrieved", "Task was destroyed", "Warning"):
            assert noise not in text, text
        return status


@contextlib.asynccontextmanager
async def command(name, *arguments, pass_fds=()):
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        "serve",
        f"tests.server.apps:{name}",
        *([] if {"--fd", "--uds"} & set(arguments) else ["--port", "0"]),
        *arguments,
        cwd=ROOT,
        env=os.environ | {"PYTHONWARNINGS": "default", "PYTHONASYNCIODEBUG": "0"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        pass_fds=pass_fds,
    )
    running = Process(process)
    try:
        yield running
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        await asyncio.wait(running._readers)


POST = b"POST /body HTTP/1.1\r\nHost: here\r\nContent-Length: 4\r\n\r\n"


@in_one_loop
@pytest.mark.parametrize(
    ("number", "code", "reason"),
    [
        (signal.SIGTERM, 1012, "the server restarts"),
        (signal.SIGINT, 1001, "the server is stopping"),
    ],
)
async def test_a_signal_stops_gracefully(number, code, reason):
    async with command("application") as running:
        address = await running.address()
        async with (
            connected(address) as socket_,
            connected(address) as request,
            connected(address) as idle,
        ):
            await socket_.open_websocket("/ws")
            assert (await idle.get()).status == 200
            await request.send(POST + b"ha")
            await running.has_told("begun")
            running.process.send_signal(number)
            assert await socket_.read_close() == (code, reason)
            await socket_.send_close(code)
            assert await socket_.read_to_end() == b""
            assert await idle.read_to_end() == b""
            with pytest.raises(ConnectionError):
                await asyncio.open_connection(*address)
            # What is under way finishes.
            await request.send(b"lf")
            response = await request.read_response()
            assert (response.status, response.body) == (200, b"half")
        assert await running.end() == 0
        assert running.told == ["begun", f"disconnect {code}", "lifespan.shutdown"]
        assert f"{number.name}: stopping" in "\n".join(running.log)
        assert running.log[-1].endswith("Headrace has stopped")


@in_one_loop
async def test_a_stop_has_a_deadline():
    async with command("application", "--shutdown-timeout", "0.2") as running:
        async with connected(await running.address()) as client:
            await client.send(b"GET /for-ever HTTP/1.1\r\nHost: here\r\n\r\n")
            await running.has_told("begun")
            running.process.terminate()
            assert await running.end() == 0
        assert "have not ended in 0.2 s: they are cut off" in "\n".join(running.log)
        assert running.told[-1] == "lifespan.shutdown"


@in_one_loop
@pytest.mark.parametrize("path", ["/for-ever", "/thread"])
async def test_a_second_signal_ends_it_at_once(path):
    async with command("application") as running:
        async with connected(await running.address()) as client:
            await client.send(f"GET {path} HTTP/1.1\r\nHost: here\r\n\r\n".encode())
            await running.has_told("begun")
            running.process.terminate()
            await running.logged("SIGTERM: stopping")
            running.process.send_signal(signal.SIGINT)
            await running.logged("SIGINT again: ending at once")
            assert await running.end() == 0
        threads = "threads of the application are still at work" in "\n".join(running.log)
        assert threads == (path == "/thread")


@in_one_loop
async def test_a_signal_ends_a_start_that_hangs():
    async with command("never_starts") as running:
        await running.has_told("starting")
        running.process.terminate()
        assert await running.end() == 0


@in_one_loop
async def test_the_socket_file_is_gone_after_the_end(tmp_path):
    path = str(tmp_path / "app.sock")
    async with command("application", "--uds", path) as running:
        await running.logged(f"listens on unix:{path}")
        async with connected(path) as client:
            assert (await client.get("/x")).status == 200
        await running.logged('unix "GET /x HTTP/1.1" 200')
        running.process.terminate()
        assert await running.end() == 0
    assert list(tmp_path.iterdir()) == []


@in_one_loop
async def test_an_inherited_socket():
    with socket.create_server(("127.0.0.1", 0)) as inherited:
        number = inherited.fileno()
        async with command("application", "--fd", str(number), pass_fds=[number]) as running:
            assert await running.address() == inherited.getsockname()
            async with connected(inherited.getsockname()) as client:
                assert (await client.get()).status == 200
            running.process.terminate()
            assert await running.end() == 0


@in_one_loop
async def test_the_log_goes_to_stderr_in_lines():
    async with command("application") as running:
        async with connected(await running.address()) as client:
            await client.get("/some/path?a=b")
            peer = "{}:{}".format(*client.sock.getsockname())
        line = await running.logged("GET")
        assert re.fullmatch(
            r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} INFO headrace\.access "
            + re.escape(peer)
            + r' "GET /some/path\?a=b HTTP/1\.1" 200 \d+\.\d ms',
            line,
        )
        running.process.terminate()
        await running.end()


@in_one_loop
@pytest.mark.parametrize(
    ("options", "place"),
    [
        (["--access-log"], "stderr"),
        ([], "stderr"),
        (["--access-log", "-"], "stdout"),
        (["--access-log", "FILE"], "file"),
        (["--access-log", "FILE", "-v", "0"], "file"),
        (["--access-log", "--log-level", "warning"], "stderr"),
        (["--log-level", "warning"], "nowhere"),
        (["--no-access-log"], "nowhere"),
        (["-v", "0"], "nowhere"),
    ],
)
async def test_where_the_access_log_goes(tmp_path, options, place):
    file = tmp_path / "access.log"
    options = [str(file) if option == "FILE" else option for option in options]
    with socket.create_server(("127.0.0.1", 0)) as inherited:
        number = inherited.fileno()
        options += ["--fd", str(number)]
        async with command("application", *options, pass_fds=[number]) as running:
            async with connected(inherited.getsockname()) as client:
                assert (await client.get("/some/path")).status == 200
            running.process.terminate()
            assert await running.end() == 0
    written = {
        "stderr": "\n".join(running.log),
        "stdout": "\n".join(running.told),
        "file": file.read_text() if file.exists() else "",
    }
    for where, text in written.items():
        assert text.count('"GET /some/path HTTP/1.1" 200') == (where == place), where


@in_one_loop
async def test_a_wsgi_application_and_its_websockets():
    options = ["--websockets", "tests.server.apps:application", "--wsgi-threads", "3"]
    async with command("wsgi", *options) as running:
        line = await running.logged("is a WSGI application")
        assert "tests.server.apps:wsgi is a WSGI application, served in 3 threads; W" in line
        assert line.endswith("WebSockets go to tests.server.apps:application")
        async with connected(await running.address()) as client:
            assert (await client.get()).body.startswith(b"headrace wsgi")
            await client.open_websocket()
            await client.send_text("hello")
            assert await client.read_text() == "hello"
        await running.has_told("disconnect 1006")
        running.process.terminate()
        assert await running.end() == 0
        assert running.told[-1] == "lifespan.shutdown"


@in_one_loop
async def test_a_wsgi_thread_that_blocks_does_not_keep_the_process():
    async with command("wsgi", "--shutdown-timeout", "0.2") as running:
        async with connected(await running.address()) as client:
            await client.send(b"GET /thread HTTP/1.1\r\nHost: here\r\n\r\n")
            await running.has_told("begun")
            running.process.terminate()
            assert await running.end() == 0
        assert "threads of the application are still at work" in "\n".join(running.log)


@in_one_loop
async def test_the_interface_may_be_said():
    async with command("wsgi", "--interface", "wsgi") as running:
        assert "WebSockets go to nobody (--websockets" in await running.logged("is a WSGI")
        async with connected(await running.address()) as client:
            assert (await client.get()).body.startswith(b"headrace wsgi")
        running.process.terminate()
        assert await running.end() == 0


@in_one_loop
async def test_an_application_of_asgi_2():
    async with command("Asgi2", "--lifespan", "off") as running:
        async with connected(await running.address()) as client:
            assert (await client.get()).body == b"hello"
        running.process.terminate()
        assert await running.end() == 0


@in_one_loop
@pytest.mark.parametrize(("http2", "answer"), [("auto", b"yes"), ("off", b"no")])
async def test_nobody_waits_for_the_import_of_http2(http2, answer):
    options = ("--lifespan", "off", "--http2", http2)
    async with command("whether_http2_is_imported", *options) as running:
        async with connected(await running.address()) as client:
            assert (await client.get()).body == answer
        running.process.terminate()
        assert await running.end() == 0
