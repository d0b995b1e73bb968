"""A server without supervisor: it answers, and hears SIGHUP, as one of many workers does."""

import os
import signal

import pytest

from headrace.exceptions import ConfigurationError, ControlError
from headrace.server import control
from headrace.server.control import ENVIRONMENT, ControlServer

from .clients import connected, until
from .supervised import service
from .test_supervisor import get, in_one_loop


@in_one_loop
async def test_it_answers_as_a_server_of_many_workers_does(tmp_path):
    async with service(tmp_path) as running:
        address = await running.address()
        assert (await get(running, "/environment")).split() == [ENVIRONMENT]
        await until(lambda: os.path.exists(running.control))
        async with connected(address) as client:
            await client.open_websocket("/ws")
            await client.read_frame()
            snapshot = await running.ask("snapshot")
            assert snapshot["server"] == {
                "pid": running.pid,
                "started": snapshot["server"]["started"],
                "workers": 0,
                "addresses": ["http://{}:{}".format(*address)],
                "reloading": False,
                "restarts": {},
            }
            [worker] = snapshot["workers"]
            assert (worker["worker"], worker["pid"]) == (0, running.pid)
            assert snapshot["ended"] is None
            [row] = (await running.ask("connections"))["connections"]
            assert row["id"].startswith("0-")
            await running.ask("close", connection=row["id"], code=1013, reason="later")
            assert await client.read_close() == (1013, "later")
            await client.send_close(1013)
        with pytest.raises(ControlError, match="there are snapshot, connections, close, reload, s"):
            await running.ask("dance")
        await running.ask("reload")
        await running.logged("SIGHUP: certificates are read anew; code and settings stay")
        running.process.send_signal(signal.SIGHUP)
        await until(lambda: running.count("certificates are read anew") == 2)
        assert await get(running) == str(running.pid)
        await running.ask("stop")
        await running.logged("asked to stop")
        assert await running.end() == 0
        assert not os.path.exists(running.control)  # noqa: ASYNC240


@in_one_loop
async def test_a_control_socket_that_is_taken(tmp_path):
    async with service(tmp_path) as running:
        await running.address()
        async with service(tmp_path) as other:
            assert await other.status() == 2
            assert other.count("a server answers there; choose another path") == 1
        assert await get(running) == str(running.pid)


def test_without_a_private_folder_it_serves_all_the_same(monkeypatch, caplog):
    async def answer(do, arguments):
        return {}

    def no_folder():
        raise ConfigurationError("directory /x lets others in")

    monkeypatch.setattr(control, "runtime_directory", no_folder)
    assert ControlServer.open(None, answer) is None
    assert "directory /x lets others in; until then nobody can ask this server" in caplog.text
    with pytest.raises(ConfigurationError, match="cannot have the control socket /no/such/x"):
        ControlServer.open("/no/such/x", answer)


@in_one_loop
async def test_an_application_that_can_not_start_leaves_nothing(tmp_path):
    async with service(tmp_path, app="tests.server.apps:can_not_start") as running:
        assert await running.status() == 1
        assert running.log[-1].endswith("could not start: the well is dry")
        assert not os.path.exists(running.control)  # noqa: ASYNC240
