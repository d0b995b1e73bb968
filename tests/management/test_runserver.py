"""The parts of ``runserver`` in this process; whole, it runs in ``test_commands``."""

import contextlib
import io
import os
import signal
import socket
import sys
import threading
from functools import partial

import pytest
from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler, StaticFilesHandler
from django.core.exceptions import ImproperlyConfigured
from django.core.handlers.wsgi import WSGIHandler
from django.core.management import CommandError, call_command
from django.http import Http404
from django.test import RequestFactory
from django.utils import autoreload
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from headrace import __version__
from headrace.management.commands import runserver
from headrace.management.commands.runserver import Command, DjangoCommand
from headrace.management.development import DevelopmentServer
from headrace.server.proxy import ProxyHeaders
from tests.management import apps
from tests.server.clients import handshake

TIMEOUT_S = 10


@pytest.fixture(autouse=True)
def project(settings, monkeypatch):
    settings.ASGI_APPLICATION = "tests.management.apps.application"
    settings.STATIC_URL = "static/"
    settings.DEBUG = True
    # There is no database here to be asked.
    monkeypatch.setattr(Command, "check_migrations", lambda self: None)
    monkeypatch.setenv("DJANGO_RUNSERVER_HIDE_WARNING", "true")
    # This process is not the command's own.
    monkeypatch.setattr(runserver, "give_way", lambda: None)


@pytest.fixture
def staticfiles(settings):
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "django.contrib.staticfiles"]


def options(*arguments):
    """What the command makes of these arguments."""
    return vars(Command().create_parser("manage.py", "runserver").parse_args(arguments))


@pytest.fixture(autouse=True)
def left(monkeypatch):
    """With which status the process was left at once."""
    statuses = []
    monkeypatch.setattr(os, "_exit", statuses.append)
    return statuses


class Serving:
    """The command, as the autoreloader runs it: in a thread, until the main thread is left."""

    def __init__(self, monkeypatch, *arguments, reason=None):
        self.command = Command(stdout=io.StringIO(), stderr=io.StringIO())
        self.ready = threading.Event()
        self.leave = threading.Event()
        on_bind = self.command.on_bind
        self.command.on_bind = lambda port: (on_bind(port), self.ready.set())
        monkeypatch.setattr(DjangoCommand, "run", self.run)
        self.reason = reason
        self.raised = None
        self.thread = threading.Thread(target=self.main, args=arguments)

    def run(self, **options):
        serving = threading.Thread(target=self.command.inner_run, args=(None,), kwargs=options)
        serving.start()
        assert self.leave.wait(TIMEOUT_S)
        self.serving = serving
        if self.reason is not None:
            raise self.reason

    def main(self, *arguments):
        try:
            call_command(self.command, *arguments)
        except SystemExit as exit_:
            self.raised = exit_.code

    def __enter__(self):
        self.thread.start()
        assert self.ready.wait(TIMEOUT_S)
        return self.command._server.server_port

    def __exit__(self, *_):
        self.leave.set()
        self.thread.join(TIMEOUT_S)
        self.serving.join(TIMEOUT_S)
        assert not self.thread.is_alive()
        assert not self.serving.is_alive()

    @property
    def written(self):
        return self.command.stdout._out.getvalue()


# The whole of it


@pytest.mark.parametrize(
    ("reason", "status", "goodbye"),
    [
        (SystemExit(3), 3, (1012, "the development server restarts")),
        (SystemExit(0), 0, (1001, "the server is stopping")),
        (None, None, (1001, "the server is stopping")),
    ],
)
def test_clients_are_told_why_the_server_goes(monkeypatch, left, reason, status, goodbye):
    serving = Serving(monkeypatch, "127.0.0.1:0", "--noreload", reason=reason)
    with contextlib.ExitStack() as stack:
        with serving as port:
            client = stack.enter_context(connect(f"ws://127.0.0.1:{port}/"))
            client.send("hello")
            assert client.recv(TIMEOUT_S) == "hello"
        with pytest.raises(ConnectionClosed):
            client.recv(TIMEOUT_S)
        assert (client.close_code, client.close_reason) == goodbye
    assert serving.raised == status
    assert left == []
    assert f"Starting ASGI/Headrace version {__version__} development server" in serving.written
    assert f" at http://127.0.0.1:{port}/\nQuit the server with CONTROL-C.\n" in serving.written
    assert "WARNING" not in serving.written


@pytest.mark.parametrize(
    ("address", "shown"), [("0:8000", "0.0.0.0"), ("[::1]:8000", "[::1]"), ("here:8000", "here")]
)
def test_it_says_where_it_listens(monkeypatch, capsys, address, shown):
    monkeypatch.delenv("DJANGO_RUNSERVER_HIDE_WARNING")
    command = Command()
    command._server = object()
    monkeypatch.setattr(Command, "run", lambda self, **_: self.on_bind(8000))
    call_command(command, address)
    assert f"ASGI/Headrace version {__version__} development server at http://{shown}:8000/\n" in (
        capsys.readouterr().out
    )
    command._server = None
    call_command(command, address, "--noasgi")
    written = capsys.readouterr().out
    assert f" at http://{shown}:8000/\n" in written
    assert "Headrace" not in written


def test_a_client_that_does_not_answer_holds_nobody_up_for_long(monkeypatch, left, caplog):
    monkeypatch.setattr("headrace.management.development._PATIENCE_S", 0.1)
    serving = Serving(monkeypatch, "0", "--noreload", reason=SystemExit(3))
    with serving as port:
        silent = socket.create_connection(("127.0.0.1", port))
        silent.sendall(handshake())
        assert b"101" in silent.recv(1024)
    silent.close()
    assert serving.raised == 3
    assert left == [3], "there may be threads that would keep the process"
    assert "they are cut off" in caplog.text


def test_who_is_in_a_hurry_does_not_wait(monkeypatch, left):
    def interrupted(self, *, restarting):
        DevelopmentServer.end(self, restarting=restarting)
        raise KeyboardInterrupt

    serving = Serving(monkeypatch, "0", "--noreload")
    with serving:
        server = serving.command._server
        monkeypatch.setattr(server, "end", partial(interrupted, server))
    assert left == [0]


def test_a_process_without_threads_of_its_own_just_ends(monkeypatch, left):
    monkeypatch.setattr(threading, "enumerate", lambda: [threading.main_thread()])
    runserver._leave_at_once(3)
    assert left == []
    busy = threading.Thread(daemon=False)
    monkeypatch.setattr(threading, "enumerate", lambda: [threading.main_thread(), busy])
    runserver._leave_at_once("words")
    assert left == [1]


def test_where_nothing_listens_there_is_nothing_to_end(monkeypatch, capsys, left):
    monkeypatch.setattr(os, "_exit", sys.exit)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SystemExit):
            call_command("runserver", f"127.0.0.1:{port}", "--noreload")
    assert "Error: That port is already in use." in capsys.readouterr().err


def test_in_the_main_thread_it_hears_signals(settings, capsys):
    settings.ASGI_APPLICATION = "tests.management.apps.interrupted"
    with pytest.raises(SystemExit) as exit_:
        call_command("runserver", "0", "--noreload", shutdown_message="Until then.")
    assert exit_.value.code == 0
    assert capsys.readouterr().out.endswith("Until then.\n")


# What it serves


def test_an_application_is_needed(settings):
    settings.ASGI_APPLICATION = None
    with pytest.raises(CommandError, match=r'ASGI_APPLICATION = "project.asgi.application"'):
        call_command("runserver")


def test_without_asgi_no_asgi_application_is_needed(settings, monkeypatch):
    settings.ASGI_APPLICATION = None
    ran = []
    monkeypatch.setattr(DjangoCommand, "inner_run", lambda self, *_, **options: ran.append(self))
    call_command("runserver", "--noasgi", "--noreload")
    assert ran[0].server_cls is DjangoCommand.server_cls


@pytest.mark.parametrize(
    ("arguments", "debug", "static"),
    [
        ([], True, True),
        ([], False, False),
        (["--insecure"], False, True),
        (["--nostatic"], True, False),
        (["--nostatic", "--insecure"], False, False),
    ],
)
def test_static_files_are_served_as_django_does(settings, staticfiles, arguments, debug, static):
    settings.DEBUG = debug
    handler = Command().get_handler(**options(*arguments))
    assert isinstance(handler, ASGIStaticFilesHandler) == static
    assert (handler.application if static else handler) is apps.application
    handler = Command().get_handler(**options("--noasgi", *arguments))
    assert isinstance(handler, StaticFilesHandler) == static
    assert isinstance(handler, WSGIHandler)


def test_a_path_that_climbs_out_is_the_clients_mistake(settings, staticfiles, tmp_path):
    settings.DEBUG, settings.ROOT_URLCONF, settings.STATICFILES_DIRS = False, (), [tmp_path]
    handler = Command().get_handler(**options("--insecure"))
    request = RequestFactory().get("/static/..%2f..%2fetc/passwd")
    assert handler.serve(request).status_code == 400
    with pytest.raises(Http404):  # as ever
        handler.serve(RequestFactory().get("/static/nothing"))


def test_static_files_need_their_application():
    assert Command().get_handler(**options()) is apps.application
    assert not isinstance(Command().get_handler(**options("--noasgi")), StaticFilesHandler)


def test_the_files_of_a_failed_import_are_watched(settings, tmp_path, monkeypatch):
    (tmp_path / "outer_asgi.py").write_text("import inner_asgi")
    (tmp_path / "inner_asgi.py").write_text("def broken(")
    monkeypatch.syspath_prepend(tmp_path)
    settings.ASGI_APPLICATION = "outer_asgi.application"
    command = Command()
    with pytest.raises(SyntaxError):
        command.get_handler(**options())
    reloader = autoreload.StatReloader()
    command._reloader_started(reloader)
    expected = {tmp_path / "outer_asgi.py", tmp_path / "inner_asgi.py"}
    assert expected <= reloader.extra_files

    (tmp_path / "inner_asgi.py").write_text("import no_such_module")
    (tmp_path / "outer_asgi.py").write_text("import inner_asgi  # again")
    reloader.extra_files = set()
    with pytest.raises(ImproperlyConfigured, match="no_such_module"):
        command.get_handler(**options())
    assert expected <= reloader.extra_files


# Its options


def config_of(monkeypatch, *arguments):
    seen = {}
    monkeypatch.setattr(
        runserver, "DevelopmentServer", lambda *_, **settings: seen.update(settings)
    )
    Command()._listen(options(*arguments), ("127.0.0.1", 0), object, ipv6=False)
    return seen


def test_the_options_of_daphnes_command_are_taken(monkeypatch):
    assert config_of(monkeypatch) == {"ipv6": False}
    assert config_of(
        monkeypatch,
        *("--http_timeout", "1", "--websocket_handshake_timeout", "2"),
        *("--application-close-timeout", "3", "--nothreading"),
    ) == {
        "ipv6": False,
        "http_timeout_s": 1,
        "accept_timeout_s": 2,
        "application_close_timeout_s": 3,
    }
    headers = config_of(monkeypatch, "--proxy-headers", "--proxy-headers-host", "X-Real-IP")[
        "proxy_headers"
    ]
    assert headers == ProxyHeaders(trusted=("*",), address="X-Real-IP")


@pytest.mark.parametrize(
    "arguments", [["--http-timeout", "1"], ["--websocket-handshake-timeout", "2"]]
)
def test_they_may_be_written_with_hyphens(monkeypatch, arguments):
    assert len(config_of(monkeypatch, *arguments)) == 2


def test_a_value_that_can_not_be(monkeypatch):
    with pytest.raises(CommandError, match="http_timeout_s must be 0"):
        call_command("runserver", "--http-timeout=-1")


# The parent of the autoreloader's process


@pytest.fixture
def child(monkeypatch):
    """Let the parent run a script instead of itself."""

    def run(script):
        command = [sys.executable, "-c", script]
        monkeypatch.setattr(autoreload, "get_child_arguments", lambda: command)

    before = signal.getsignal(signal.SIGTERM)
    yield run
    signal.signal(signal.SIGTERM, before)


def test_a_child_is_begun_anew_as_often_as_it_asks(monkeypatch, tmp_path, child):
    monkeypatch.delenv(autoreload.DJANGO_AUTORELOAD_ENV, raising=False)
    child(ASKS_TWICE.format(file=tmp_path / "times"))
    with pytest.raises(SystemExit) as exit_:
        call_command("runserver")
    assert exit_.value.code == 7


def test_the_child_is_told_of_a_signal_that_reaches_its_parent_alone(child):
    child(TELLS_PARENT.format(signal="SIGTERM", own="lambda *_: sys.exit(0)"))
    assert runserver._supervise() == 0


def test_a_child_that_lingers_is_told_and_in_the_end_killed(monkeypatch, child):
    monkeypatch.setattr(runserver, "_GOODBYE_S", 0.1)
    child(TELLS_PARENT.format(signal="SIGINT", own="signal.SIG_IGN"))
    assert runserver._supervise() == 0


ASKS_TWICE = """
import os, sys
with open("{file}", "a+") as file:
    file.write("x")
    times = file.tell()
assert os.environ["RUN_MAIN"] == "true"
sys.exit(3 if times <= 2 else 7)
"""
TELLS_PARENT = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, {own})
os.kill(os.getppid(), signal.{signal})
time.sleep(30)
"""
