"""``headrace top``: text and JSON for scripts, and the live view in a real terminal."""

import argparse
import asyncio
import contextlib
import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
from textual.widgets import DataTable, OptionList, Static
from websockets.asyncio.client import connect

from headrace import cli
from headrace.exceptions import ConfigurationError, ControlError
from headrace.figures import Meter
from headrace.server import control
from headrace.top import command, screen, words
from headrace.top.screen import Choice, Help, Top
from tests.operations.double import Double, connection, snapshot

PATIENCE_S = 15
HEADRACE = Path(sys.executable).with_name("headrace")


@pytest.fixture
async def double(tmp_path):
    async with Double(tmp_path / "control.sock") as server:
        server.answer = {
            "server": {"pid": 4711, "addresses": ["http://127.0.0.1:8000"]},
            "workers": [snapshot(1, 11, sockets=3, http=1), snapshot(2, 12, sockets=2)],
        }
        first = server.answer["workers"][0]
        first["groups"] = [["room.1", 3]]
        first["consumers"] = [["chat.consumers.Room", "receive", 10, 0.5, 0.2]]
        yield server


@pytest.fixture
def directory(tmp_path, monkeypatch):
    """A runtime directory of this test's own."""
    folder = tmp_path / "servers"
    folder.mkdir(0o700)
    monkeypatch.setattr(control, "runtime_directory", lambda: folder)
    monkeypatch.delenv(control.ENVIRONMENT, raising=False)
    return folder


async def top(*arguments):
    """Run the command in a thread; return its exit status."""

    def run():
        with pytest.raises(SystemExit) as ended:
            cli.main(["top", "--interval", "0.1", *arguments])
        return ended.value.code

    return await asyncio.to_thread(run)


# Text and JSON


async def test_once_prints_all_of_it_as_text(double, capsys):
    assert await top("--once", "--server", double.path) == 0
    text = capsys.readouterr().out
    assert text.startswith("headrace  http://127.0.0.1:8000  pid 4711  2 workers  up 1m00s\n")
    assert "connections 6   websockets 5   http 1" in text
    assert re.search(r"^1 +11 +1m00s +4 +0% +50.0M +20 +3 +4 +2.0 ms +-$", text, re.MULTILINE)
    assert re.search(r"^1-2 +websocket +127.0.0.1:40002 ", text, re.MULTILINE)
    assert re.search(r"^room.1 +3$", text, re.MULTILINE)
    assert re.search(r"^Room.receive +10 +50 ms +200 ms$", text, re.MULTILINE)


async def test_json_is_one_object_with_rates(double, capsys):
    assert await top("--json", "--server", double.path) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["now"]["connections"] == 6
    assert said["now"]["messages_in"] == 0
    assert [each["pid"] for each in said["workers"]] == [11, 12]
    assert [each["user"] for each in said["connections"]] == ["user0", "user1", "user2"]


async def test_an_output_that_is_no_terminal_gets_it_once(double, capsys):
    assert await top("--server", double.path) == 0
    assert "websockets 5" in capsys.readouterr().out


async def test_who_has_seen_enough_ends_the_output(double):
    process = await asyncio.create_subprocess_shell(
        f"{HEADRACE} top --interval 0.1 --server {double.path} | true",
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await asyncio.wait_for(process.communicate(), PATIENCE_S)
    assert said == b""


async def test_a_terminal_is_told_no_command(double, capsys):
    double.connections = [connection(1, path="/\x1b]0;mine\x07\u202e", user="a" * 300)]
    assert await top("--once", "--server", double.path) == 0
    text = capsys.readouterr().out
    assert "/·]0;mine··" in text
    assert re.search(r"a{199}…", text)
    assert "\x1b" not in text


# Which server


async def test_the_only_server_is_found(directory, capsys):
    async with Double(directory / "77.sock"):
        assert await top("--once") == 0
        assert await top("--once", "--server", "77") == 0
    assert capsys.readouterr().out.count("headrace  pid") == 2


async def test_several_servers_are_named(directory, capsys):
    async with Double(directory / "77.sock"), Double(directory / "78.sock"):
        assert await top("--once") == 2
        said = capsys.readouterr().err
        assert "name one with --server" in said
        assert "77.sock" in said
        assert await top("--once", "--server", "79") == 2
        assert "those that run: 77, 78" in capsys.readouterr().err


async def test_no_server_is_said_to_be_none(directory, tmp_path, capsys):
    assert await top() == 2
    assert capsys.readouterr().err.startswith("headrace: no server of this user runs here")
    assert await top("--server", "79") == 2
    assert "those that run: none" in capsys.readouterr().err
    assert await top("--server", str(tmp_path / "none.sock")) == 2
    assert "no server answers at" in capsys.readouterr().err


async def test_a_server_that_refuses_is_quoted(double, capsys):
    double.refuses = ControlError("not now")
    assert await top("--server", double.path) == 2
    assert capsys.readouterr().err == "headrace: not now\n"


@pytest.mark.parametrize("text", ["0", "-1", "x", "nan", "1e9"])
def test_an_interval_is_a_number_of_seconds(text):
    with pytest.raises(argparse.ArgumentTypeError, match="a number of seconds"):
        command._seconds(text)


def test_without_the_extra_the_command_says_how_to_get_it(directory, monkeypatch):
    monkeypatch.setattr(command, "_is_terminal", lambda: True)
    monkeypatch.setattr(command, "_servers", lambda named: ["/nowhere"])
    monkeypatch.setitem(sys.modules, "textual", None)
    monkeypatch.setitem(sys.modules, "textual.app", None)
    monkeypatch.delitem(sys.modules, "headrace.top.screen")
    options = cli.parser().parse_args(["top"])
    with pytest.raises(ConfigurationError, match=r'pip install "headrace\[top\]"'):
        command.run(options)


def test_another_import_that_fails_is_not_blamed_on_the_extra(monkeypatch):
    monkeypatch.delitem(sys.modules, "headrace.top.screen")
    monkeypatch.setitem(sys.modules, "headrace.top.words", None)
    with pytest.raises(ImportError):
        command._watch(["/nowhere"], 1.0)


def test_scripts_pay_nothing_for_the_live_view():
    code = "import sys, headrace.cli; print('textual' in sys.modules or 'rich' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


# How figures are written


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "-"), (0, "0s"), (61, "1m01s"), (3600, "1h00m"), (90_000, "1d01h")],
)
def test_ages(seconds, text):
    assert words.age(seconds) == text


def test_what_is_not_known_is_a_dash():
    figures = Meter().take({"workers": [{"pid": 3}]}, at=1.0, clock_s=0)
    states, rates = words.summary(figures)
    assert dict(states)["connections"] == "-"
    assert [value for _, value in rates] == ["-"] * 7
    assert words.title(figures) == "headrace  1 worker  up -"
    assert words.WORKERS.cells(figures.workers[0])[:4] == ["-", "3", "-", "-"]
    leaving = {"workers": [{"worker": 2, "stage": "leaving"}, {"worker": 3, "stage": "serving"}]}
    rows = Meter().take(leaving, at=1.0, clock_s=0).workers
    assert [words.WORKERS.cells(each)[0] for each in rows] == ["2 leaving", "3"]
    since = Meter().take({"server": {"started": 40}, "workers": []}, at=100.0, clock_s=0)
    assert words.title(since) == "headrace  0 workers  up 1m00s"


def test_numbers_are_as_short_as_they_can_be():
    assert [words._bytes(n) for n in (512, 2048, 300 * 1024, 5 << 40, 9 << 50)] == [
        "512B", "2.0K", "300K", "5.0T", "9216T",
    ]  # fmt: skip
    assert [words._rate(n) for n in (1.25, 1234.5)] == ["1.2", "1,234"]
    assert words._milliseconds(None) == words._share(None) == "-"


# The live view, as Textual drives it


@contextlib.asynccontextmanager
async def viewing(*paths, size=(120, 40)):
    app = Top(list(paths), 0.05)
    async with app.run_test(size=size) as pilot:
        yield app, pilot


async def until(pilot, is_so):
    async with asyncio.timeout(PATIENCE_S):
        while not is_so():
            await pilot.pause(0.02)


def column(app, table, number):
    widget = app.query_one(f"#{table}", DataTable)
    return [str(widget.get_row_at(row)[number]) for row in range(widget.row_count)]


def said(app, name):
    return str(app.screen_stack[0].query_one(f"#{name}", Static).render())


async def test_the_view_shows_what_there_is_and_follows_it(double):
    async with viewing(double.path) as (app, pilot):
        await until(pilot, lambda: column(app, "connections", 0) == ["1-0", "1-1", "1-2"])
        assert column(app, "workers", 1) == ["11", "12"]
        assert column(app, "groups", 0) == ["room.1"]
        assert column(app, "handlers", 0) == ["Room.receive"]
        assert said(app, "title").startswith("headrace  http://127.0.0.1:8000")
        assert "websockets 5" in said(app, "summary")
        double.connections = [connection(9)]
        double.answer["workers"].pop()
        await until(pilot, lambda: column(app, "connections", 0) == ["1-9"])
        await until(pilot, lambda: column(app, "workers", 1) == ["11"])


async def test_keys_sort_and_reverse(double):
    double.connections[1]["user"] = None
    async with viewing(double.path) as (app, pilot):
        await until(pilot, lambda: column(app, "connections", 0))
        table = app.query_one("#connections", DataTable)
        assert table.border_title == "Connections, by age ▼"
        await pilot.press("s")
        assert table.border_title == "Connections, by received ▼"
        assert column(app, "connections", 0) == ["1-2", "1-1", "1-0"]
        await pilot.press("r")
        assert column(app, "connections", 0) == ["1-0", "1-1", "1-2"]
        await pilot.press("S", "S", "S")
        assert "by protocol" in table.border_title
        await pilot.press("S", "S")
        assert table.border_title == "Connections, by user ▲"
        assert column(app, "connections", 0) == ["1-0", "1-2", "1-1"]


async def test_a_pause_holds_still(double):
    async with viewing(double.path) as (app, pilot):
        await until(pilot, lambda: column(app, "connections", 0))
        await pilot.press("p")
        assert "paused" in said(app, "state")
        asked = double.count("snapshot")
        await asyncio.sleep(0.2)
        assert double.count("snapshot") <= asked + 1
        double.connections = []
        await pilot.press("p")
        await until(pilot, lambda: not column(app, "connections", 0))
        assert "live" in said(app, "state")


async def test_help_comes_and_goes(double):
    async with viewing(double.path) as (app, pilot):
        await pilot.press("question_mark")
        assert isinstance(app.screen, Help)
        await pilot.press("x")
        assert not isinstance(app.screen, Help)
        await pilot.press("q")
    assert app.return_code == 0


async def test_a_server_that_is_gone_is_looked_for(double, tmp_path):
    async with viewing(double.path) as (app, pilot):
        await until(pilot, lambda: "live" in said(app, "state"))
        double.server.close()
        await until(pilot, lambda: "trying again" in said(app, "state"))
        assert app.query_one("#state").has_class("trouble")
        async with Double(tmp_path / "control.sock"):
            await until(pilot, lambda: "live" in said(app, "state"))
            assert not app.query_one("#state").has_class("trouble")


async def test_a_choice_of_several_says_what_they_are(double, tmp_path):
    double.answer["server"]["addresses"] = ["http://[::1]:80"]
    gone = str(tmp_path / "gone.sock")
    async with viewing(gone, double.path) as (app, pilot):
        await until(pilot, lambda: isinstance(app.screen, Choice))
        options = app.screen.query_one(OptionList)
        await until(pilot, lambda: "pid 4711" in str(options.get_option_at_index(1).prompt))
        assert gone in str(options.get_option_at_index(0).prompt)
        await pilot.press("down", "enter")
        await until(pilot, lambda: column(app, "workers", 1) == ["11", "12"])


# The live view, in a terminal


#: What would say that a terminal has another size than it has.
SIZELESS = {name: os.environ[name] for name in os.environ.keys() - {"COLUMNS", "LINES"}}


class Terminal:
    """A pseudo-terminal with the command in it."""

    def __init__(self, *arguments, **environment):
        self.heard = b""
        primary, secondary = pty.openpty()
        self.primary = primary
        self.resize(30, 110)
        self.before = termios.tcgetattr(primary)
        self.process = subprocess.Popen(
            [HEADRACE, "top", "--interval", "0.1", *arguments],
            stdin=secondary,
            stdout=secondary,
            stderr=secondary,
            env=SIZELESS | {"TERM": "xterm-256color"} | environment,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(secondary)
        os.set_blocking(primary, False)

    def resize(self, rows, columns):
        fcntl.ioctl(self.primary, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, keys):
        os.write(self.primary, keys)

    @property
    def text(self):
        """What was written, without what a terminal takes for commands."""
        text = re.sub(rb"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07]*\x07|.)", b"", self.heard)
        return text.decode(errors="ignore")  # what was read last may end within a character

    async def read(self):
        with contextlib.suppress(BlockingIOError, OSError):
            while data := os.read(self.primary, 1 << 16):
                self.heard += data
        await asyncio.sleep(0.02)

    async def until(self, is_so):
        ends_at = time.monotonic() + PATIENCE_S
        while not is_so():
            assert time.monotonic() < ends_at, self.text
            await self.read()

    async def shows(self, text):
        await self.until(lambda: text in self.text)

    async def ended(self):
        await self.until(lambda: self.process.poll() is not None)
        await self.read()
        return self.process.returncode

    @property
    def is_as_before(self):
        """Whether the terminal echoes, shows a cursor, and is back on its first screen."""
        return (
            termios.tcgetattr(self.primary) == self.before
            and self.heard.rindex(b"\x1b[?1049l") > self.heard.rindex(b"\x1b[?1049h")
            and self.heard.rindex(b"\x1b[?25h") > self.heard.rindex(b"\x1b[?25l")
        )

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.primary)


@pytest.fixture
async def terminal():
    opened = []

    def run(*arguments, **environment):
        opened.append(Terminal(*arguments, **environment))
        return opened[-1]

    yield run
    for each in opened:
        each.close()


async def test_in_a_terminal_it_shows_is_resized_and_quits(double, terminal):
    there = terminal("--server", double.path)
    await there.shows("/ws/rooms/2/")
    there.heard = there.heard[-1:]
    there.resize(40, 90)
    await there.shows("Slowest handlers")
    there.type(b"q")
    assert await there.ended() == 0
    assert termios.tcgetattr(there.primary) == there.before


@pytest.mark.parametrize(
    ("end", "status"), [(b"\x03", 0), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
async def test_whatever_ends_it_the_terminal_is_as_before(double, terminal, end, status):
    there = terminal("--server", double.path)
    await there.shows("live, every 0.1 s")
    if isinstance(end, bytes):
        there.type(end)
    else:
        there.process.send_signal(end)
    assert await there.ended() == status
    assert there.is_as_before


async def test_an_error_of_ours_leaves_the_terminal_as_before(double, terminal):
    double.answer = {"workers": 3}
    there = terminal("--server", double.path)
    assert await there.ended() == 1
    assert there.is_as_before


async def test_no_color_means_none(double, terminal):
    there = terminal("--server", double.path, NO_COLOR="1", COLORTERM="truecolor")
    await there.shows("live, every 0.1 s")
    there.type(b"q")
    await there.ended()
    colours = re.findall(rb"\x1b\[(?:[\d;]*;)?[34]8;2;(\d+);(\d+);(\d+)", there.heard)
    assert colours
    assert all(red == green == blue for red, green, blue in colours)


async def test_a_terminal_that_can_do_nothing_gets_text(double, terminal):
    there = terminal("--server", double.path, TERM="dumb")
    assert await there.ended() == 0
    assert "websockets 5" in there.text
    assert b"\x1b" not in there.heard


def test_the_view_returns_how_it_ended(monkeypatch):
    monkeypatch.setattr(Top, "run", lambda self: 143)
    assert screen.watch(["/nowhere"], 1.0) == 143


# Against a real server

APPLICATION = '''
async def application(scope, receive, send):
    """Answer, and echo."""
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"hello"})
        return
    while (event := await receive())["type"] != "websocket.disconnect":
        if event["type"] == "websocket.connect":
            await send({"type": "websocket.accept"})
        else:
            await send({"type": "websocket.send", "text": event["text"]})
'''


@pytest.fixture
async def served(tmp_path):
    """A server with two workers: the path of its control socket, and its address."""
    (tmp_path / "echo.py").write_text(APPLICATION)
    path = str(tmp_path / "real.sock")
    process = await asyncio.create_subprocess_exec(
        HEADRACE,
        *("serve", "echo:application", "--lifespan", "off", "--port", "0"),
        *("--workers", "2", "--control-socket", path),
        cwd=tmp_path,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(30):
        lines = []
        while "workers serve" not in (lines or [""])[-1]:
            lines.append((await process.stderr.readline()).decode())
            assert lines[-1], lines
    (address,) = re.findall(r"listens on http://(\S+)", "".join(lines))
    reading = asyncio.create_task(process.stderr.read())
    yield path, address
    process.terminate()
    await asyncio.wait_for(process.wait(), 30)
    await reading


async def test_a_real_server_is_shown_as_it_is(served, terminal, capsys):
    path, address = served
    async with contextlib.AsyncExitStack() as stack:
        sockets = [
            await stack.enter_async_context(connect(f"ws://{address}/ws/{n}/", proxy=None))
            for n in range(3)
        ]
        there = terminal("--server", path)
        await there.shows("2 workers")
        await there.shows("/ws/2/")
        await there.shows("websockets 3")

        async def talk():
            while True:
                await sockets[0].send("x")
                await sockets[0].recv()

        talking = asyncio.create_task(talk())
        assert await top("--json", "--server", path) == 0
        talking.cancel()
        said = json.loads(capsys.readouterr().out)
        assert said["now"]["websockets"] == 3
        assert said["now"]["messages_in"] > 10
        assert said["now"]["messages_out"] > 10
        assert len(said["workers"]) == 2
        assert sum(each["connections"] for each in said["workers"]) == 3
        assert {each["path"] for each in said["connections"]} == {f"/ws/{n}/" for n in range(3)}
        assert said["server"]["addresses"] == [f"http://{address}"]
        there.type(b"ssssq")
        assert await there.ended() == 0
