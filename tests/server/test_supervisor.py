"""The supervisor and its workers: processes that die, hang, grow old, and can't start."""

import asyncio
import json
import os
import shutil
import signal
import time

import pytest

from headrace.exceptions import ConfigurationError, ControlError
from headrace.server import supervisor as module
from headrace.server.config import Config, Workers
from headrace.server.supervisor import Supervisor, backoff, command_of
from headrace.server.worker_process import VARIABLE, Post
from tests.documented import documented

from .clients import connected, until
from .supervised import is_alive, service
from .test_cli import ROOT

in_one_loop = pytest.mark.asyncio(loop_factories=["asyncio"])


async def get(running, path="/"):
    async with connected(await running.address()) as client:
        response = await client.get(path)
        assert response.status == 200
        return response.body.decode()


# Workers


@in_one_loop
async def test_workers_serve_on_one_socket(tmp_path):
    async with service(tmp_path, "--workers", "2") as running:
        workers = await running.workers()
        assert set(workers) == {1, 2}
        served = set()
        while len(served) < 2:
            served |= set(await asyncio.gather(*(get(running) for _ in range(8))))
        assert served == {str(pid) for pid in workers.values()}
        # They are one: what one sends to a group is for all.
        assert await get(running, "/layer") == "local"
        # And the application finds its server, and nothing that is for its worker.
        names = (await get(running, "/environment")).split()
        assert names == ["HEADRACE_CONTROL", "HEADRACE_DEFAULT_LAYER"]
        running.process.terminate()
        assert await running.end() == 0
        assert running.log[-1].endswith("Headrace has stopped")
        assert running.count("Headrace listens on") == 1
        assert not any(is_alive(pid) for pid in workers.values())
        assert not os.path.exists(running.control)  # noqa: ASYNC240


@in_one_loop
async def test_metrics_and_health_are_those_of_all_workers(tmp_path):
    options = ["--workers", "2", "--metrics-port", "0"]
    async with service(tmp_path, *options) as running:
        await running.workers()
        line = await running.logged("metrics and health checks are at")
        port = int(line.rpartition("/metrics")[0].rpartition(":")[2])
        await asyncio.gather(*(get(running) for _ in range(20)))
        async with connected(("127.0.0.1", port)) as client:
            numbers = (await client.get("/metrics")).body.decode()
            assert "\nheadrace_requests_total 20.0\n" in numbers
            assert "\nheadrace_workers 2.0\n" in numbers
            assert (await client.get("/readyz")).status == 200
        running.process.terminate()
        assert await running.end() == 0


@in_one_loop
async def test_a_layer_that_is_chosen_stays(tmp_path):
    environment = {"HEADRACE_DEFAULT_LAYER": "memory"}
    async with service(tmp_path, "--workers", "1", **environment) as running:
        assert await get(running, "/layer") == "memory"


@in_one_loop
async def test_auto_is_one_for_each_core(tmp_path, monkeypatch):
    cores = len(os.sched_getaffinity(0))
    async with service(tmp_path, HEADRACE_WORKERS="auto") as running:
        assert len(await running.workers(cores)) == cores


@in_one_loop
@pytest.mark.parametrize(
    ("number", "says"),
    [(signal.SIGKILL, "was ended by SIGKILL"), (None, "has ended with status 7")],
)
async def test_a_worker_that_dies_is_replaced(tmp_path, number, says):
    async with service(tmp_path, "--workers", "2") as running:
        before = await running.workers()
        async with connected(await running.address()) as client:
            if number is None:
                await client.send(b"GET /exit HTTP/1.1\r\nHost: here\r\n\r\n")
                assert await client.read_to_end() == b""
            else:
                os.kill(before[1], number)
        line = await running.logged(says)
        assert "ERROR headrace.server worker " in line
        # The other one goes on meanwhile, and nobody is refused.
        await asyncio.gather(*(get(running) for _ in range(10)))
        await until(lambda: running._serving() != before)
        assert running.count(says) == 1
        snapshot = await running.ask("snapshot")
        assert snapshot["server"]["restarts"] == {"died": 1}
        assert sorted(worker["restarts"] for worker in snapshot["workers"]) == [0, 1]
        running.process.terminate()
        assert await running.end() == 0


@in_one_loop
async def test_what_a_worker_has_counted_stays_counted(tmp_path):
    async with service(tmp_path, "--workers", "2") as running:
        before = await running.workers()
        await asyncio.gather(*(get(running) for _ in range(20)))
        running.process.send_signal(signal.SIGHUP)
        await until(lambda: running.count("is done") == 2)
        snapshot = await running.ask("snapshot")
        assert snapshot["ended"]["counters"]["headrace_requests_total"] == {"": 20}
        assert {worker["pid"] for worker in snapshot["workers"]}.isdisjoint(before.values())
        assert snapshot["server"]["workers"] == 2
        assert snapshot["server"]["restarts"] == {"reload": 2}
        assert snapshot["server"]["addresses"] == ["http://{}:{}".format(*await running.address())]
        await get(running)
        running.process.send_signal(signal.SIGHUP)
        await until(lambda: running.count("is done") == 4)
        ended = (await running.ask("snapshot"))["ended"]
        assert ended["counters"]["headrace_requests_total"] == {"": 21}


@in_one_loop
async def test_workers_end_with_a_supervisor_that_is_killed(tmp_path):
    async with service(tmp_path, "--workers", "2") as running:
        workers = await running.workers()
        async with connected(await running.address()) as client:
            await client.open_websocket("/ws")
            await client.read_frame()
            running.process.kill()
            # Its clients are told.
            assert await client.read_close() == (1012, "the server restarts")
            await client.send_close(1012)
        await until(lambda: not any(map(is_alive, workers.values())))


@in_one_loop
async def test_a_worker_that_hangs_is_ended_and_shows_where(tmp_path):
    options = ["--workers", "2", "--worker-timeout", "3"]
    async with service(tmp_path, *options) as running:
        before = await running.workers()
        async with connected(await running.address()) as client:
            await client.send(b"GET /hang HTTP/1.1\r\nHost: here\r\n\r\n")
            await running.logged("has not been heard of for 3 s: it is ended")
            await running.logged("was ended by SIGABRT")
            assert await client.read_to_end() == b""
        assert running.count("Fatal Python error: Aborted") == 1
        assert any("deployed.py" in line for line in running.log)
        await until(lambda: running._serving() != before)
        assert (await running.ask("snapshot"))["server"]["restarts"] == {"hung": 1}
        await get(running)


@in_one_loop
async def test_a_worker_that_is_stopped_is_killed(tmp_path):
    options = ["--workers", "2", "--worker-timeout", "3"]
    async with service(tmp_path, *options) as running:
        before = await running.workers()
        os.kill(before[2], signal.SIGSTOP)
        await running.logged(f"worker 2 (process {before[2]}) has not been heard of for 3 s")
        # It has connections in its hands; others are served meanwhile.
        await get(running)
        await running.logged(f"worker 2 (process {before[2]}) was ended by SIGKILL")
        await until(lambda: running._serving()[2] != before[2])
        assert running._serving()[1] == before[1]


@in_one_loop
@pytest.mark.parametrize(
    ("options", "path", "says", "reason"),
    [
        (["--worker-max-requests", "10"], "/", "it has served 1", "requests"),
        (["--worker-max-memory-bytes", "200000000"], "/grow", "bytes of memory", "memory"),
        (["--worker-max-age", "2"], "/", " s old", "age"),
    ],
)
async def test_a_worker_is_replaced_before_it_is_too_old(tmp_path, options, path, says, reason):
    # Such a setting alone asks for a supervisor.
    async with service(tmp_path, *options) as running:
        before = (await running.workers(1))[1]
        async with connected(await running.address()) as kept:
            assert (await kept.get(path)).body == str(before).encode()
            for _ in range(11):
                await get(running)
            await running.logged(says)
            await until(lambda: running._serving()[1] != before)
            # Who is connected still has its answer, and is told that it was the last.
            last = False
            while not last:
                response = await kept.get("/")
                assert response.body == str(before).encode()
                last = response.all(b"connection") == [b"close"]
            assert await kept.read_to_end() == b""
        await running.logged(f"worker 1 (process {before}) is done")
        assert (await running.ask("snapshot"))["server"]["restarts"][reason] >= 1
        assert running.count("ERROR") == 0


# What can't start


@in_one_loop
async def test_an_application_that_can_not_start_ends_the_command(tmp_path):
    async with service(tmp_path, "--workers", "2", EXIT_AT_IMPORT="5") as running:
        assert await running.status() == 5
        assert running.count("the application can't start: worker 1 (process") == 1
        assert running.count("has ended with status 5 before it served") == 1
        assert running.count("is started again") == 0


@in_one_loop
@pytest.mark.parametrize(
    ("app", "says", "status"),
    [
        ("no_such_module", "there is no module 'no_such_module'", 2),
        ("tests.server.apps:can_not_start", "could not start: the well is dry", 1),
    ],
)
async def test_what_keeps_it_from_starting_is_told_once(tmp_path, app, says, status):
    async with service(tmp_path, "--workers", "3", app=app) as running:
        assert await running.status() == status
        assert running.count(says) == 1
        assert running.count("ERROR") == 1


@in_one_loop
async def test_an_application_that_does_not_come_to_start(tmp_path):
    options = ["--workers", "2", "--worker-start-timeout", "3"]
    async with service(tmp_path, *options, HANG_AT_IMPORT="1") as running:
        assert await running.status() == 1
        assert running.count("has not started in 3 s") == 1
        assert any("deployed.py" in line for line in running.log)


@in_one_loop
async def test_a_stop_while_it_starts(tmp_path):
    async with service(tmp_path, "--workers", "2", HANG_AT_IMPORT="1") as running:
        await until(lambda: os.path.exists(running.control))
        await until(lambda: len(children_of(running.pid)) == 1)
        running.process.terminate()
        assert await running.end() == 0


def children_of(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return file.read().split()


SITE = """
async def application(scope, receive, send):
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"VERSION"})
"""


def site(folder, version):
    (folder / "site_to_reload.py").write_text(SITE.replace("VERSION", version))
    shutil.rmtree(folder / "__pycache__", ignore_errors=True)


@in_one_loop
async def test_a_reload_loads_code_anew_and_keeps_the_old_where_the_new_is_broken(tmp_path):
    site(tmp_path, "one")
    options = ["--workers", "2", "--app-dir", str(tmp_path)]
    async with service(tmp_path, *options, app="site_to_reload") as running:
        assert await get(running) == "one"
        before = (await running.workers()).values()
        (tmp_path / "site_to_reload.py").write_text("this is no Python")
        assert await running.ask("reload") == {}
        await running.logged("nothing is reloaded, the workers that serve stay")
        assert running.count("SyntaxError") == 1
        assert await get(running) == "one"
        site(tmp_path, "two")
        running.process.send_signal(signal.SIGHUP)
        await running.logged("reloaded: 2 new workers serve")
        await until(lambda: not any(map(is_alive, before)))
        assert {await get(running) for _ in range(6)} == {"two"}
        site(tmp_path, "three")
        # Asked several times while it is under way, it begins once more.
        for _ in range(5):
            await running.ask("reload")
        await until(lambda: running.count("reloaded:") == 3)
        assert await get(running) == "three"
        await until(lambda: running.count("is done") == 6)
        assert running.count("reloaded:") == 3
        running.process.terminate()
        await running.status()


ONE_BY_ONE = """
import os, pathlib, time
from tests.server.deployed import application

folder = pathlib.Path(__file__).parent
while (folder / "hold").exists():
    try:
        (folder / "hold" / "first").mkdir()
    except FileExistsError:
        time.sleep(0.02)
    except FileNotFoundError:  # it is over in this moment
        pass
    else:
        break
"""


@in_one_loop
@pytest.mark.parametrize(
    ("number", "says"),
    [(signal.SIGKILL, "was ended by SIGKILL"), (signal.SIGTERM, "asked by somebody else")],
)
async def test_a_new_worker_that_ends_before_the_others_serve_fails_the_reload(
    tmp_path, number, says
):
    (tmp_path / "one_by_one.py").write_text(ONE_BY_ONE)
    options = ["--workers", "2", "--app-dir", str(tmp_path)]
    async with service(tmp_path, *options, app="one_by_one", PYTHONPATH=str(ROOT)) as running:
        before = set((await running.workers()).values())
        (tmp_path / "hold").mkdir()
        await running.ask("reload")
        new = set()
        while not new:  # the first serves, the second is held
            workers = (await running.ask("snapshot"))["workers"]
            new = {worker["pid"] for worker in workers} - before
        os.kill(new.pop(), number)
        await running.logged(says)
        (tmp_path / "hold" / "first").rmdir()
        await running.logged("before the others served: nothing is reloaded")
        (tmp_path / "hold").rename(tmp_path / "over")
        workers = (await running.ask("snapshot"))["workers"]
        assert {worker["pid"] for worker in workers if worker["stage"] == "serving"} == before
        await running.ask("reload")
        await running.logged("reloaded: 2 new workers serve")
        await until(lambda: not any(map(is_alive, before)))
        workers = (await running.ask("snapshot"))["workers"]
        assert [worker["stage"] for worker in workers] == ["serving"] * 2
        assert (await running.ask("snapshot"))["server"]["restarts"] == {"reload": 2}


@in_one_loop
async def test_a_reload_that_is_asked_for_at_the_start_waits_for_its_end(tmp_path):
    (tmp_path / "one_by_one.py").write_text(ONE_BY_ONE)
    (tmp_path / "hold").mkdir()
    options = ["--workers", "2", "--app-dir", str(tmp_path)]
    async with service(tmp_path, *options, app="one_by_one", PYTHONPATH=str(ROOT)) as running:
        await until((tmp_path / "hold" / "first").exists)
        while not (await running.ask("snapshot"))["workers"]:  # the first serves
            pass
        running.process.send_signal(signal.SIGHUP)
        await running.logged("SIGHUP: reloading")
        answer = await running.ask("snapshot")
        assert answer["server"]["reloading"] is False
        (tmp_path / "hold").rename(tmp_path / "over")
        await running.logged("2 workers serve")
        first = set((await running.workers()).values())
        await running.logged("reloaded: 2 new workers serve")
        await until(lambda: not any(map(is_alive, first)))
        answer = await running.ask("snapshot")
        assert answer["server"]["restarts"] == {"reload": 2}
        assert [worker["stage"] for worker in answer["workers"]] == ["serving"] * 2


@in_one_loop
async def test_a_worker_that_can_not_be_replaced_is_tried_again_and_again(tmp_path):
    site(tmp_path, "one")
    options = ["--workers", "2", "--app-dir", str(tmp_path)]
    async with service(tmp_path, *options, app="site_to_reload") as running:
        before = await running.workers()
        (tmp_path / "site_to_reload.py").write_text("1 / 0")
        os.kill(before[1], signal.SIGKILL)
        await until(lambda: running.count("before it served") == 2)
        # Each time it takes longer, and the others go on meanwhile.
        assert running.count("worker 1 is started again in 0.") >= 2
        assert await get(running) == "one"
        site(tmp_path, "two")
        await until(lambda: running._serving()[1] != before[1])
        assert running._serving()[2] == before[2]


@in_one_loop
async def test_a_stop_does_not_wait_for_a_reload(tmp_path):
    site(tmp_path, "one")
    options = ["--workers", "2", "--app-dir", str(tmp_path)]
    async with service(tmp_path, *options, app="site_to_reload") as running:
        await running.workers()
        hang = "import time; print('here', flush=True); time.sleep(600)"
        (tmp_path / "site_to_reload.py").write_text(hang)
        running.process.send_signal(signal.SIGHUP)
        await running.has_told("here")
        running.process.terminate()
        assert await running.end() == 0


@in_one_loop
async def test_new_workers_start_in_the_release_that_is_current(tmp_path):
    for version in ("one", "two"):
        (tmp_path / version).mkdir()
        site(tmp_path / version, version)
    current = tmp_path / "current"
    current.symlink_to("one")
    source = str(module.__file__).removesuffix("/headrace/server/supervisor.py")
    async with service(
        tmp_path, "--workers", "1", app="site_to_reload", folder=current, PYTHONPATH=source
    ) as running:
        assert await get(running) == "one"
        current.unlink()
        current.symlink_to("two")
        running.process.send_signal(signal.SIGHUP)
        await running.logged("reloaded: 1 new worker")
        async with asyncio.timeout(30):
            # The old one may have taken a connection yet, before it has stopped to accept.
            while await get(running) != "two":
                pass


@in_one_loop
async def test_a_reload_can_not_change_where_it_listens(tmp_path):
    (tmp_path / "pyproject.toml").write_text("[tool.headrace]\nport = 0\n")
    site(tmp_path, "one")
    options = ["--workers", "1", "--app-dir", str(tmp_path), "--no-port"]
    async with service(tmp_path, *options, app="site_to_reload") as running:
        assert await get(running) == "one"
        (tmp_path / "pyproject.toml").write_text('[tool.headrace]\nport = 0\nuds = "/x"\n')
        await running.ask("reload")
        await running.logged("the settings name 2 places to listen now, and 1 when the server st")
        await running.logged("the workers that serve stay")
        assert await get(running) == "one"


# Stops


@in_one_loop
async def test_a_second_signal_ends_it_at_once(tmp_path):
    options = ["--workers", "2", "--shutdown-timeout", "60"]
    async with service(tmp_path, *options) as running:
        workers = await running.workers()
        async with connected(await running.address()) as client:
            await client.send(b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 1\r\n\r\n")
            await running.ask("snapshot")
            os.kill(running.pid, signal.SIGINT)
            await running.logged("SIGINT: stopping; once more ends it at once")
            os.kill(running.pid, signal.SIGINT)
            assert await running.end() == 0
            assert await client.read_to_end() == b""
        assert not any(map(is_alive, workers.values()))


@in_one_loop
async def test_a_worker_that_does_not_end_is_killed(tmp_path):
    options = ["--workers", "2", "--shutdown-timeout", "0.1", "--worker-timeout", "0"]
    async with service(tmp_path, *options) as running:
        workers = await running.workers()
        os.kill(workers[1], signal.SIGSTOP)
        running.process.terminate()
        await running.logged(f"worker 1 (process {workers[1]}) has not ended in time: it is killed")
        assert await running.end() == 0


@in_one_loop
async def test_ctrl_c_of_a_terminal_is_for_the_supervisor(tmp_path):
    async with service(tmp_path, "--workers", "2") as running:
        workers = await running.workers()
        async with connected(await running.address()) as client:
            await client.open_websocket("/ws")
            await client.read_frame()
            # A terminal sends it to all processes of the group.
            for pid in (*workers.values(), running.pid):
                os.kill(pid, signal.SIGINT)
            assert await client.read_close() == (1001, "the server is stopping")
            await client.send_close(1001)
        assert await running.end() == 0
        assert running.count("SIGINT") == 1


# What it is asked


@in_one_loop
async def test_connections_of_all_workers_are_listed_and_closed(tmp_path):
    async with service(tmp_path, "--workers", "2") as running:
        address = await running.address()
        async with connected(address) as one, connected(address) as two, connected(address) as web:
            for client in (one, two):
                await client.open_websocket("/ws?x=1")
                await client.read_frame()
            await web.get("/")
            answer = await running.ask("connections")
            assert answer["total"] == 3
            rows = [row for row in answer["connections"] if row["protocol"] == "websocket"]
            assert len({row["id"] for row in rows}) == 2
            assert {row["peer"] for row in rows} == {
                "{}:{}".format(*client.sock.getsockname()) for client in (one, two)
            }
            for row in rows:
                assert row["path"] == "/ws"
                assert row["worker"] in (1, 2)
                assert row["id"].startswith(f"{row['worker']}-")
                assert row["sent"] > 0
                assert abs(row["since"] - time.time()) < 30
            assert len((await running.ask("connections", limit=1))["connections"]) == 1
            [first] = (await running.ask("connections", limit=1, order="sent"))["connections"]
            assert first["sent"] == max(row["sent"] for row in answer["connections"])
            peer = "{}:{}".format(*one.sock.getsockname())
            [wanted] = [row["id"] for row in rows if row["peer"] == peer]
            closed = await running.ask("close", connection=wanted, code=4000, reason="enough")
            assert closed == {"closed": wanted}
            assert await one.read_close() == (4000, "enough")
            [row] = [
                row
                for row in (await running.ask("connections"))["connections"]
                if row["protocol"] == "http/1.1"
            ]
            await running.ask("close", connection=row["id"])
            assert await web.read_to_end() == b""
        for do, arguments, says in [
            ("dance", {}, "there is no request 'dance'; there are snapshot, connections"),
            ("close", {"connection": "1-77"}, "there is no connection '1-77'"),
            ("close", {"connection": wanted, "code": 1005}, "a close code that may be sent, not"),
            ("close", {"connection": wanted, "code": "x"}, "code must be a number"),
            ("close", {"connection": wanted, "reason": "ü" * 70}, "at most 123 bytes"),
            ("connections", {"limit": 0}, "limit must be a whole number, 1 or more"),
            ("connections", {"order": "beauty"}, "order must be one of since, newest"),
        ]:
            with pytest.raises(ControlError, match=says):
                await running.ask(do, **arguments)
        await running.ask("stop")
        assert await running.end() == 0


@in_one_loop
async def test_a_worker_that_is_busy_is_known_by_what_it_said_last(tmp_path):
    async with service(tmp_path, "--workers", "2", "--worker-timeout", "0") as running:
        workers = await running.workers()
        await until(lambda: running.count("2 workers serve"))
        await asyncio.gather(*(get(running) for _ in range(10)))
        os.kill(workers[2], signal.SIGSTOP)
        try:
            snapshot = await running.ask("snapshot")
        finally:
            os.kill(workers[2], signal.SIGCONT)
        assert [worker["pid"] for worker in snapshot["workers"]] == list(workers.values())


@in_one_loop
async def test_the_example_of_a_deploy(tmp_path):
    async with service(tmp_path, "--workers", "2") as running:
        await running.workers()
        deploy = documented("server.md").deploy
        assert await asyncio.to_thread(deploy, running.control) == 2
        await running.logged("reloaded: 2 new workers serve")


# In this process


def test_restarts_wait_longer_each_time_but_not_for_ever():
    waits = [[backoff(failures) for _ in range(50)] for failures in (1, 2, 3, 30)]
    assert all(0.05 <= wait <= 0.1 for wait in waits[0])
    assert all(0.1 <= wait <= 0.2 for wait in waits[1])
    assert all(15 <= wait <= 30 for wait in waits[3])
    assert len(set(waits[3])) > 40  # they don't come together


def test_the_command_of_a_worker():
    command = command_of(["serve", "x", "--port", "1"])
    assert command[-6:] == ["-m", "headrace", "serve", "x", "--port", "1"]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"count": -1}, "workers.count must be 0 or more, or auto, not -1"),
        ({"timeout_s": 1}, "workers.timeout_s must be 0 .off., or 3 or more"),
        ({"max_age_s": -1}, "workers.max_age_s must be 0"),
        ({"max_requests": -1}, "workers.max_requests must be 0"),
    ],
)
def test_workers_that_can_not_be(settings, says):
    with pytest.raises(ConfigurationError, match=says):
        Workers(**settings)


@in_one_loop
async def test_a_command_that_can_not_be_run(tmp_path, caplog):
    config = Config(port=0, control_socket=str(tmp_path / "control.sock"))
    assert await Supervisor(["/no/such/program"], config).run() == 1
    assert "worker 1 can't be started: " in caplog.text


@in_one_loop
async def test_no_descriptor_is_left_for_a_worker(tmp_path, caplog, monkeypatch):
    def none_left():
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(module.socket, "socketpair", none_left)
    config = Config(port=0, control_socket=str(tmp_path / "control.sock"))
    assert await Supervisor(["x"], config).run() == 1
    assert "worker 1 can't be started: [Errno 24] Too many open files" in caplog.text


class Ended:
    """A process that is over."""

    pid = 4711

    def __init__(self, returncode):
        self.returncode = returncode


def a_worker(returncode=0):
    return module._Worker(1, Ended(returncode), 0.0, print)


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (0, "has ended with status 0"),
        (3, "has ended with status 3"),
        (-9, "was ended by SIGKILL"),
        (-99, "was ended by signal 99"),
    ],
)
def test_how_a_worker_ended(status, words):
    assert a_worker(status).how_it_ended() == words


async def test_it_is_ready_as_long_as_one_worker_is():
    supervisor = Supervisor(["x"], Config())
    assert await supervisor._why_unready() == "no worker serves"
    one, two = a_worker(), a_worker()
    supervisor._all = {one, two}
    assert await supervisor._why_unready() == "no worker serves"
    for worker in (one, two):
        worker.told({"what": "ready"})
        worker.told({"what": "alive", "snapshot": {}, "unready": "no database"})
    assert await supervisor._why_unready() == "no database"
    two.told({"what": "alive", "snapshot": {}, "unready": None})
    assert await supervisor._why_unready() is None
    supervisor.stop()
    assert await supervisor._why_unready() == "the server is stopping"
    supervisor.reload()
    assert supervisor._reloading is None


async def test_who_was_away_itself_blames_no_worker(caplog):
    supervisor = Supervisor(["x"], Config(workers=Workers(count=1, timeout_s=5)))
    worker = a_worker()
    worker.told({"what": "ready"})
    supervisor._all = {worker}
    worker.heard -= 60
    supervisor._looked -= 60
    assert supervisor._why_not_well() is not None
    supervisor._look()
    assert supervisor._why_not_well() is None
    assert caplog.messages == []


async def test_who_waits_for_others_to_serve_is_not_too_old_yet():
    supervisor = Supervisor(["/no/such/program"], Config(workers=Workers(count=1, max_age_s=1)))
    worker = a_worker()
    worker.started -= 60
    worker.told({"what": "ready"})
    supervisor._all = {worker}
    supervisor._look()
    assert not supervisor._replacing
    supervisor._install(worker)
    supervisor._look()
    replacing = supervisor._replacing.pop(1)
    replacing.cancel()
    await asyncio.wait([replacing])


async def test_a_look_that_fails_is_not_the_last(monkeypatch, caplog):
    supervisor = Supervisor(["x"], Config())
    looks = []

    def look():
        looks.append(1)
        raise ZeroDivisionError

    monkeypatch.setattr(module, "LOOK_S", 0.001)
    monkeypatch.setattr(supervisor, "_look", look)
    looking = asyncio.create_task(supervisor._look_around())
    await until(lambda: len(looks) > 2)
    looking.cancel()
    await asyncio.wait([looking])
    assert "the supervisor has failed to look after its workers" in caplog.text


def test_the_folder_has_the_name_it_is_known_by(tmp_path, monkeypatch):
    (tmp_path / "release").mkdir()
    (tmp_path / "current").symlink_to("release")
    monkeypatch.chdir(tmp_path / "current")
    for known_as, folder in [
        (str(tmp_path / "current"), "current"),
        (str(tmp_path), "release"),
        ("/no/such/folder", "release"),
        (".", "release"),
    ]:
        monkeypatch.setenv("PWD", known_as)
        assert module._folder() == str(tmp_path / folder)


def test_what_asks_for_a_supervisor():
    assert not Workers().supervised
    assert Workers(count=1).supervised
    assert Workers(count="auto").supervised
    assert Workers(max_requests=5).supervised
    assert Supervisor(["x"], Config(workers=Workers(max_age_s=5))).count == 1


def test_a_post_and_its_variable(monkeypatch):
    post = Post(number=2, before=1, supervisor=os.getppid(), link=0, sockets=[], timeout_s=3)
    environment = {VARIABLE: post.as_text()}
    was_inheritable = os.get_inheritable(0)
    try:
        assert Post.take(environment) == post
    finally:
        os.set_inheritable(0, was_inheritable)
    assert environment == {}
    assert Post.take({}) is None
    for text in ("x", "[]", json.dumps({"number": 1})):
        with pytest.raises(ConfigurationError, match="set by nobody but it: leave it out"):
            Post.take({VARIABLE: text})
