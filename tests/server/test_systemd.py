"""systemd, spoken with by what it speaks: descriptors, variables and datagrams."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time

import pytest

from headrace.exceptions import ConfigurationError
from headrace.server.endpoint import Endpoint
from headrace.server.systemd import Notifier, listening_fds

from .clients import connected, until
from .supervised import service
from .test_supervisor import get, in_one_loop


class Manager:
    """The service manager's end of NOTIFY_SOCKET."""

    def __init__(self, path):
        self.path = path
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.setblocking(False)
        self.sock.bind("\0" + path[1:] if path.startswith("@") else path)
        self.told = []

    def hear(self):
        with contextlib.suppress(BlockingIOError):
            while True:
                self.told.append(self.sock.recv(4096).decode().split("\n"))
        return self.told

    async def hears(self, line):
        await until(lambda: any(line in lines for lines in self.hear()))
        return next(lines for lines in self.told if line in lines)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()


# Notices


@pytest.mark.parametrize("abstract", [False, True])
def test_notices(tmp_path, abstract):
    path = f"@headrace-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with Manager(path) as manager:
        environment = {"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "3000000", "OTHER": "x"}
        notifier = Notifier(environment)
        assert environment == {"OTHER": "x"}
        assert notifier.watchdog_interval_s == 1.5
        notifier.ready("all\nis well")
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        notifier.reloading("again")
        notifier.alive()
        notifier.stopping("the end")
        ready, reloading, alive, stopping = manager.hear()
    assert ready == ["READY=1", "STATUS=all is well", f"MAINPID={os.getpid()}"]
    assert reloading[0] == "RELOADING=1"
    assert reloading[2] == "STATUS=again"
    name, _, moment = reloading[1].partition("=")
    assert name == "MONOTONIC_USEC"
    assert before <= int(moment) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    assert (alive, stopping) == (["WATCHDOG=1"], ["STOPPING=1", "STATUS=the end"])


def test_nobody_is_told_where_nobody_asks(tmp_path):
    with Manager(str(tmp_path / "notify")) as manager:
        Notifier({}).ready("x")
        notifier = Notifier({"NOTIFY_SOCKET": manager.path})
        assert notifier.watchdog_interval_s is None
        notifier.alive()
        assert manager.hear() == []


def test_a_manager_that_is_gone_is_a_line_of_the_log(tmp_path, caplog):
    notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "nobody")})
    notifier.ready("x")
    notifier.ready("x")
    [line] = caplog.messages
    assert line.startswith(f"NOTIFY_SOCKET {tmp_path}/nobody can't be told: ")


@pytest.mark.parametrize(
    ("environment", "interval_s"),
    [
        ({"WATCHDOG_USEC": "2000000", "WATCHDOG_PID": str(os.getpid())}, 1.0),
        ({"WATCHDOG_USEC": "2000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdog(environment, interval_s, caplog):
    assert Notifier(environment).watchdog_interval_s == interval_s
    assert environment == {}
    assert ("is no time" in caplog.text) == (
        interval_s is None and "WATCHDOG_PID" not in caplog.text and bool(caplog.records)
    )


# Sockets


def test_sockets_for_somebody_else():
    assert listening_fds({}) == []
    environment = {"LISTEN_PID": "1", "LISTEN_FDS": "2"}
    assert listening_fds(environment) == []
    assert len(environment) == 2


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({"LISTEN_PID": "x", "LISTEN_FDS": "1"}, "must be numbers, not 'x' and '1'"),
        ({"LISTEN_FDS": "many"}, "must be numbers, not None and 'many'"),
        (
            {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "9999"},
            r"LISTEN_FDS is 9999, but descriptor \d+ can't be had: Bad file descriptor",
        ),
    ],
)
def test_sockets_that_can_not_be(environment, says, monkeypatch):
    monkeypatch.setattr(os, "set_inheritable", lambda fd, _: os.fstat(fd))
    with pytest.raises(ConfigurationError, match=says):
        listening_fds(environment)


def test_sockets_and_their_names(monkeypatch):
    closed_in_children = []
    monkeypatch.setattr(os, "set_inheritable", lambda fd, yes: closed_in_children.append((fd, yes)))
    environment = {
        "LISTEN_PID": str(os.getpid()),
        "LISTEN_FDS": "3",
        "LISTEN_FDNAMES": "web:admin",
    }
    assert listening_fds(environment) == [("web", 3), ("admin", 4), ("unknown", 5)]
    assert environment == {"LISTEN_FDNAMES": "web:admin"}
    assert closed_in_children == [(3, False), (4, False), (5, False)]
    monkeypatch.setenv("LISTEN_FDNAMES", "web:admin")
    assert Endpoint.from_twisted("systemd:name=admin") == Endpoint(fd=4)
    with pytest.raises(ConfigurationError, match="no socket named 'x', but"):
        Endpoint.from_twisted("systemd:name=x")


# The whole


@contextlib.asynccontextmanager
async def unit(tmp_path, *options, listeners, **environment):
    """Run the service as systemd does: sockets from 3 on, and variables that name the process."""
    count = len(listeners)
    # What becomes the service has the number that the variables name.
    wrapper = (
        "import os, sys\n"
        f"for n in range({count}): os.dup2(int(sys.argv[1 + n]), 3 + n)\n"
        f"os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='{count}')\n"
        f"os.execv(sys.executable, [sys.executable, *sys.argv[{1 + count}:]])\n"
    )
    script = tmp_path / "systemd.py"
    script.write_text(wrapper)
    high = [os.dup2(sock.fileno(), 100 + n) for n, sock in enumerate(listeners)]
    from . import supervised

    command = [sys.executable, str(script), *map(str, high), "-m", "headrace"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(supervised, "COMMAND", command)
        async with service(
            tmp_path, "--no-port", *options, pass_fds=high, **environment
        ) as running:
            for fd in high:
                os.close(fd)
            yield running


@in_one_loop
@pytest.mark.parametrize("options", [[], ["--workers", "2"]])
async def test_a_service_with_sockets_of_systemd(tmp_path, options):
    with (
        Manager(str(tmp_path / "notify")) as manager,
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.create_server(str(tmp_path / "web.sock"), family=socket.AF_UNIX) as unix,
    ):
        environment = {
            "NOTIFY_SOCKET": manager.path,
            "WATCHDOG_USEC": "200000",
            "LISTEN_FDNAMES": "web:local",
        }
        async with unit(tmp_path, *options, listeners=[tcp, unix], **environment) as running:
            ready = await manager.hears("READY=1")
            assert f"MAINPID={running.pid}" in ready
            for place in (tcp.getsockname(), unix.getsockname()):
                async with connected(place) as client:
                    names = (await client.get("/environment")).body.decode().split()
                    assert not {"LISTEN_PID", "LISTEN_FDS", "NOTIFY_SOCKET"} & set(names)
            await manager.hears("WATCHDOG=1")
            manager.told.clear()
            running.process.send_signal(signal.SIGHUP)
            reloading = await manager.hears("RELOADING=1")
            assert any(line.startswith("MONOTONIC_USEC=") for line in reloading)
            await manager.hears("READY=1")
            told = [lines[0] for lines in manager.told]
            assert told.index("RELOADING=1") < told.index("READY=1")
            running.process.terminate()
            await manager.hears("STOPPING=1")
            assert await running.end() == 0
        # The sockets stay with systemd: who comes now waits for the next start.
        async with connected(tcp.getsockname()) as client:
            await client.send(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
            async with unit(tmp_path, *options, listeners=[tcp]) as running:
                assert (await client.read_response()).status == 200


@in_one_loop
async def test_the_watchdog_hears_nothing_while_a_worker_hangs(tmp_path):
    with Manager(str(tmp_path / "notify")) as manager:
        environment = {"NOTIFY_SOCKET": manager.path, "WATCHDOG_USEC": "100000"}
        options = ["--workers", "1", "--worker-timeout", "3"]
        async with service(tmp_path, *options, **environment) as running:
            pid = (await running.workers(1))[1]
            await manager.hears("WATCHDOG=1")
            os.kill(pid, signal.SIGSTOP)
            # Until it is killed there are moments in which it is known to hang.
            await running.logged("has not been heard of for 3 s")
            manager.hear()
            manager.told.clear()
            await asyncio.sleep(0.5)
            assert ["WATCHDOG=1"] not in manager.hear()
            await running.logged("was ended by SIGKILL")
            await manager.hears("WATCHDOG=1")
            await get(running)


@in_one_loop
async def test_a_reload_that_fails_is_told(tmp_path):
    with Manager(str(tmp_path / "notify")) as manager:
        site = tmp_path / "site_to_reload.py"
        site.write_text("from tests.server.deployed import application\n")
        options = ["--workers", "1", "--app-dir", str(tmp_path)]
        environment = {"NOTIFY_SOCKET": manager.path}
        async with service(tmp_path, *options, app="site_to_reload", **environment) as running:
            await manager.hears("READY=1")
            manager.told.clear()
            site.write_text("1 / 0\n")
            running.process.send_signal(signal.SIGHUP)
            ready = await manager.hears("READY=1")
            assert "the last reload has failed: worker 1" in ready[1]
