"""The control link: frames, both ends of a link, and the Unix socket of a server."""

import asyncio
import contextlib
import os
import socket
import stat
import subprocess
import sys
import threading

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace import private
from headrace.exceptions import ConfigurationError, ControlError
from headrace.server import control
from headrace.server.control import (
    ENVIRONMENT,
    BlockingClient,
    ControlServer,
    Frames,
    Link,
    connect,
    encode,
    find,
    runtime_directory,
    servers,
)

from .clients import until


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """Servers of this test meet in a folder of its own."""
    monkeypatch.setattr(private, "ROOTS", (str(tmp_path / "first"), str(tmp_path)))
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    return tmp_path


# Frames

MESSAGES = [{"id": 1, "do": "snapshot"}, {}, {"id": 2, "ok": {"a": [1, 2.5, None, "ü", b"\0"]}}]


def test_frames_byte_by_byte():
    frames = Frames()
    data = b"".join(map(encode, MESSAGES))
    assert [message for byte in data for message in frames.feed(bytes([byte]))] == MESSAGES


def test_many_frames_at_once():
    assert Frames().feed(b"".join(map(encode, MESSAGES))) == MESSAGES


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"\xff\xff\xff\xff", "a frame of 4294967295 bytes"),
        (b"\0\0\0\1\xc1", "no map in MessagePack"),
        (b"\0\0\0\1\x90", "no map in MessagePack"),
        (b"\0\0\0\2\x81\x01", "no map in MessagePack"),
        (b"\0\0\0\5\x81\xa1\xffa\1", "no map in MessagePack"),
        (b"\0\1\x86\xa4\x81\xa1a" + b"\x91" * 100_001, "no map in MessagePack"),
    ],
)
def test_what_is_no_frame(data, says):
    with pytest.raises(ControlError, match=says):
        Frames().feed(data)


@given(st.binary())
def test_any_bytes_are_frames_or_refused(data):
    with contextlib.suppress(ControlError):
        for message in Frames().feed(data):
            assert isinstance(message, dict)


# A link over a socket pair


async def answer(do, arguments):
    match do:
        case "echo":
            return arguments
        case "slow":
            await asyncio.sleep(60)
        case "no":
            raise ControlError("not today")
        case "unspeakable":
            return {"what": object()}
    raise ZeroDivisionError("oh")


@contextlib.asynccontextmanager
async def linked(handler=answer, **options):
    ours, theirs = socket.socketpair()
    here = await Link.over(ours, **options)
    there = await Link.over(theirs, handler)
    try:
        yield here, there
    finally:
        here.close()
        there.close()
        await until(lambda: not here._tasks and not there._tasks)


async def test_a_question_and_its_answer():
    async with linked() as (here, _):
        assert await here.ask("echo", text="ü", data=b"\0", n=[1, None]) == {
            "text": "ü",
            "data": b"\0",
            "n": [1, None],
        }


async def test_many_questions_at_once_and_large_ones():
    async with linked() as (here, _):
        asked = [here.ask("echo", n=n, data=b"x" * 100_000) for n in range(50)]
        assert [answer["n"] for answer in await asyncio.gather(*asked)] == list(range(50))


@pytest.mark.parametrize(
    ("do", "says"),
    [
        ("no", "^not today$"),
        ("fails", "^fails has failed: ZeroDivisionError: oh$"),
        ("unspeakable", "^unspeakable has failed: TypeError: "),
    ],
)
async def test_an_answer_that_says_no(do, says, caplog):
    async with linked() as (here, _):
        with pytest.raises(ControlError, match=says):
            await here.ask(do)
        assert await here.ask("echo") == {}
    assert ("has failed" in caplog.text) == (do != "no")


async def test_nobody_answers_where_there_is_no_handler():
    async with linked() as (here, there):
        with pytest.raises(ControlError, match="nobody here does 'echo'"):
            await there.ask("echo")
        here._transport.write(encode({"id": 50, "do": 7}))
        here._transport.write(encode({"id": 99, "ok": {}}))
        assert await here.ask("echo") == {}


async def test_an_answer_that_takes_too_long():
    async with linked() as (here, _):
        with pytest.raises(ControlError, match=r"slow: no answer in 0\.01 s"):
            await here.ask("slow", timeout_s=0.01)
        assert here._waiting == {}


async def test_notices():
    heard = []
    async with linked(on_notice=heard.append) as (here, there):
        there.tell(now="alive")
        await until(lambda: heard)
        assert heard == [{"now": "alive"}]
        here.tell(now="nobody listens")
        assert await here.ask("echo") == {}


async def test_the_end_of_a_link():
    lost = []
    async with linked(on_lost=lambda: lost.append(1)) as (here, there):
        asked = [asyncio.ensure_future(here.ask("slow")) for _ in range(2)]
        asked[1].cancel()
        await until(lambda: there._tasks)
        there.close()
        with pytest.raises(ControlError, match="has ended before it answered"):
            await asked[0]
        await until(lambda: lost)
        assert lost == [1]
        assert not here.is_open
        with pytest.raises(ControlError, match="the server is gone"):
            await here.ask("echo")
        here.tell(now="nobody")


async def test_a_link_that_has_not_begun():
    link = Link()
    assert not link.is_open
    link.close()
    with pytest.raises(ControlError, match="gone"):
        await link.ask("echo")


async def test_nonsense_ends_the_link(caplog):
    ours, theirs = socket.socketpair()
    lost = asyncio.Event()
    link = await Link.over(ours, on_lost=lost.set)
    with theirs:
        theirs.sendall(b"GET / HTTP/1.1\r\n")
        await lost.wait()
    assert not link.is_open
    assert "the control link is closed: a frame of" in caplog.text


# The Unix socket of a server


@contextlib.asynccontextmanager
async def controlled(path=None, handler=answer):
    server = ControlServer(path, handler)
    await server.start()
    try:
        yield server
    finally:
        server.close()


def in_thread(function, *arguments):
    return asyncio.get_running_loop().run_in_executor(None, function, *arguments)


async def test_asking_a_server(place):
    async with controlled() as server:
        assert server.path == str(place / f"headrace-{os.geteuid()}/servers/{os.getpid()}.sock")
        assert stat.S_IMODE(os.stat(server.path).st_mode) == 0o600
        assert stat.S_IMODE(os.stat(os.path.dirname(server.path)).st_mode) == 0o700
        link = await connect()
        assert await link.ask("echo", a=1) == {"a": 1}
        server.close()
        await until(lambda: not link.is_open)
    assert not place.joinpath(server.path).exists()
    with pytest.raises(ControlError, match="no server of this user runs here"):
        await connect()


async def test_asking_without_a_loop():
    def talk(path):
        with BlockingClient(path) as client:
            assert client.ask("echo", a=1) == {"a": 1}
            with pytest.raises(ControlError, match="not today"):
                client.ask("no")
            assert client.ask("echo", data=b"x" * 500_000)["data"] == b"x" * 500_000

    async with controlled() as server:
        await in_thread(talk, None)
        await in_thread(talk, server.path)


async def test_a_server_that_does_not_answer():
    def talk(path):
        with BlockingClient(path, timeout_s=0.05) as client:
            with pytest.raises(ControlError, match=r"slow: no answer in 0\.05 s"):
                client.ask("slow")
            # The late answer to another question is not this one's.
            client._socket.settimeout(10)
            assert client.ask("late", given=True) == {"given": True}

    late = asyncio.Event()

    async def handler(do, arguments):
        if do == "slow":
            await late.wait()
        late.set()
        return arguments

    async with controlled(handler=handler) as server:
        await in_thread(talk, server.path)


def test_a_server_that_ends_before_it_answers(place):
    path = str(place / "a.sock")
    with socket.create_server(path, family=socket.AF_UNIX) as listener:

        def serve(reset):
            sock, _ = listener.accept()
            if not reset:
                sock.recv(100)
            sock.close()  # what is left unread makes a reset of it

        for reset in (False, True):
            thread = threading.Thread(target=serve, args=(reset,))
            with BlockingClient(path) as client:
                if reset:
                    client._socket.sendall(b"x")
                thread.start()
                if reset:
                    thread.join()
                with pytest.raises(ControlError, match=r"has ended|is gone"):
                    client.ask("echo")
                thread.join()


async def test_nobody_answers(place):
    path = str(place / "nobody.sock")
    with pytest.raises(ControlError, match=r"no server answers at .*: no such file"):
        await connect(path)
    with pytest.raises(ControlError, match=r"no server answers at .*: no such file"):
        BlockingClient(path)


async def test_the_one_that_is_meant(place, monkeypatch):
    first, second = str(runtime_directory() / "1.sock"), str(runtime_directory() / "2.sock")
    async with controlled(first), controlled(second):
        assert servers() == [first, second]
        with pytest.raises(ControlError, match=r"several servers run, name one .*1\.sock, .*2\.s"):
            find()
        monkeypatch.setenv(ENVIRONMENT, "/its/own.sock")
        assert find() == "/its/own.sock"


async def test_what_a_killed_server_left_behind(place):
    def leave(path):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(str(path))

    named, other = place / "named.sock", runtime_directory() / "1.sock"
    leave(named)
    leave(other)
    async with controlled(str(named)), controlled() as server:
        assert servers() == [server.path]
        assert not other.exists()
        link = await connect(str(named))
        assert await link.ask("echo") == {}
        link.close()
        with pytest.raises(ConfigurationError, match=r"cannot have .*: a server answers there; ch"):
            ControlServer(str(named), answer)
        # A server that is too busy to be asked is one, too.
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(control, "_answers", lambda path: None)
            control._remove_stale(runtime_directory())
        assert place.joinpath(server.path).exists()


def test_one_that_begins_is_not_taken_for_one_that_was_left_behind(place, monkeypatch):
    class Watched(socket.socket):
        def listen(self, *args):
            control._remove_stale(runtime_directory())
            super().listen(*args)

    monkeypatch.setattr(control.socket, "socket", Watched)
    server = ControlServer(None, answer)
    assert servers() == [server.path]
    server.close()
    assert not any(runtime_directory().iterdir())


def test_the_file_of_a_successor_stays(place):
    server = ControlServer(str(place / "a.sock"), answer)
    os.unlink(server.path)
    successor = ControlServer(server.path, answer)
    server.close()
    assert os.path.exists(server.path)
    os.unlink(server.path)
    successor.close()


def test_a_path_that_can_not_be_had(place):
    with pytest.raises(ConfigurationError, match="no such file or directory; choose another path"):
        ControlServer(str(place / "no/such/a.sock"), answer)
    (place / "file").write_text("mine")
    with pytest.raises(ConfigurationError, match="there is a file that is no socket"):
        ControlServer(str(place / "file"), answer)
    assert (place / "file").read_text() == "mine"
    with pytest.raises(ConfigurationError, match="too long"):
        ControlServer(str(place / ("x" * 200)), answer)


def test_who_can_not_be_asked_may_be_there(place):
    path = place / "a.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(path))
        assert control._answers(str(path)) is None


def test_a_directory_that_is_not_private(place, monkeypatch):
    directory = runtime_directory()
    directory.chmod(0o755)
    with pytest.raises(ConfigurationError, match=r"lets others in \(mode 0755\)"):
        runtime_directory()
    directory.rmdir()
    directory.write_text("")
    with pytest.raises(ConfigurationError, match="is no directory"):
        runtime_directory()
    directory.unlink()
    user = os.geteuid()
    root = place / f"headrace-{user + 1}"
    root.mkdir(0o700)
    monkeypatch.setattr(os, "geteuid", lambda: user + 1)
    with pytest.raises(ConfigurationError, match=f"belongs to user {user}, and this process runs"):
        runtime_directory()


async def test_another_user_is_not_let_in(monkeypatch, caplog):
    async with controlled() as server:
        monkeypatch.setattr(private, "require_same_user", refuse)
        link = await connect(server.path)
        with pytest.raises(ControlError):
            await link.ask("echo")
    assert "let nobody in: process 1 of user 2" in caplog.text


def refuse(connection, also):
    raise PermissionError("process 1 of user 2 is at the other end")


def test_another_program_speaks_it(place):
    """A client that knows nothing of ours but the format."""
    script = """
import socket, struct, sys, msgspec
sock = socket.socket(socket.AF_UNIX)
sock.connect(sys.argv[1])
body = msgspec.msgpack.encode({"id": 7, "do": "echo", "a": [1]})
sock.sendall(struct.pack("!I", len(body)) + body)
length, = struct.unpack("!I", sock.recv(4))
print(msgspec.msgpack.decode(sock.recv(length)))
"""

    async def talk():
        async with controlled(str(place / "a.sock")) as server:
            command = [sys.executable, "-c", script, server.path]
            return await in_thread(lambda: subprocess.run(command, capture_output=True, text=True))

    told = asyncio.run(talk())
    assert told.stdout == "{'id': 7, 'ok': {'a': [1]}}\n", told.stderr
    assert msgspec.msgpack.decode(encode({"a": 1})[4:]) == {"a": 1}
