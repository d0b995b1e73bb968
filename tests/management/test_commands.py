"""The commands as processes of their own: reloads, signals, and messages between processes."""

import asyncio
import signal

import pytest
import websockets

from tests.management.datagrams import DatagramLayer
from tests.management.project import Project
from tests.server.clients import connected

pytestmark = pytest.mark.timeout(240)  # each step has a limit of its own


@pytest.fixture
def project(tmp_path):
    return Project(tmp_path)


async def get(address, target="/"):
    async with connected(address) as client:
        return await client.get(target)


def websocket(address):
    host, port = address
    return websockets.connect(f"ws://{host}:{port}/ws/")


async def ask(socket):
    await socket.send("which?")
    return await socket.recv()


async def goodbye(socket):
    with pytest.raises(websockets.ConnectionClosed):
        await asyncio.wait_for(socket.recv(), 10)
    return socket.close_code, socket.close_reason


async def test_a_change_of_the_code_restarts_the_server_and_its_clients_come_again(project):
    async with project.manage("runserver", "0") as running:
        await running.says("System check identified no issues")
        await running.says("Django version .*, using settings 'settings'")
        address = await running.listens()
        await running.says(r"Quit the server with CONTROL-C\.")
        async with websocket(address) as socket:
            assert await ask(socket) == "first"
            await running.says(r"\] WebSocket HANDSHAKING /ws/ \[127.0.0.1:\d+\]")
            await running.says(r"\] WebSocket CONNECT /ws/ \[127.0.0.1:\d+\]")
            await running.watches("consumers.py")
            project.change("consumers.py", "first", "second")
            assert await goodbye(socket) == (1012, "the development server restarts")
        await running.says(r"\] WebSocket DISCONNECT /ws/ 1012 \[127.0.0.1:\d+\]")

        async with websocket(await running.listens()) as socket:
            assert await ask(socket) == "second"
            await running.watches("consumers.py", 2)
            # Two mistakes, one behind the other, in files that no import has got through.
            project.write("consumers.py", "from nowhere import Answering, Working")
            assert (await goodbye(socket))[0] == 1012
        await running.says("ModuleNotFoundError: No module named 'nowhere'")
        await running.says("ImproperlyConfigured: ASGI_APPLICATION")
        await running.watches("asgi.py", 3)
        project.change(
            "asgi.py", "from consumers import Answering, Working", "from consumers import"
        )
        await running.says("SyntaxError")
        await running.watches("asgi.py", 4)
        project.write("consumers.py", project.original("consumers.py"))
        project.write("asgi.py", project.original("asgi.py"))

        async with websocket(await running.listens()) as socket:
            assert await ask(socket) == "first"
            # As a container is stopped: the signal reaches the parent process alone.
            running.process.terminate()
            assert (await goodbye(socket))[0] == 1001
        assert await running.ends() == 0


async def test_without_the_reloader_and_in_one_process(project):
    async with project.manage("runserver", "127.0.0.1:0", "--noreload") as running:
        address = await running.listens()
        page = await get(address, "/?x=1")
        assert page.body == b"ASGIRequest"
        await running.says(r"^\[\d\d/\w+/\d+ \d+:\d+:\d+\] HTTP GET /\?x=1 200 \[0\.\d\d, 127\.")
        style = await get(address, "/static/page.css")
        assert (style.status, style.body.strip()) == (200, b"body { color: teal }")
        missing = await get(address, "/nothing")
        assert missing.status == 404
        assert b"DEBUG = True" in missing.body
        await running.says("HTTP GET /nothing 404")
        async with websocket(address) as socket:
            assert await ask(socket) == "first"
            running.process.send_signal(signal.SIGINT)
            assert (await goodbye(socket))[0] == 1001
        assert await running.ends() == 0
        assert "Traceback" not in running.text


async def test_without_asgi(project):
    async with project.manage("runserver", "0", "--noreload", "--noasgi") as running:
        address = await running.listens()
        assert (await get(address)).body == b"WSGIRequest"
        assert (await get(address, "/static/page.css")).status == 200


async def test_a_port_that_is_taken(project):
    listener = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    async with listener:
        port = listener.sockets[0].getsockname()[1]
        arguments = ["runserver", str(port), "--noreload", "--skip-checks"]
        async with project.manage(*arguments) as running:
            await running.says("^Error: That port is already in use.$")
            assert await running.ends() == 1


async def test_a_worker_handles_what_another_process_sends(project, tmp_path, monkeypatch):
    monkeypatch.setenv("DATAGRAMS", str(tmp_path))
    layer = DatagramLayer()
    layer.open("news")

    async def news():
        return await asyncio.wait_for(layer.receive("news"), 10)

    try:
        async with project.manage(
            "runworker", "jobs", LAYER="tests.management.datagrams.DatagramLayer"
        ) as running:
            await running.says("^Listening on jobs of the channel layer 'default'.$")
            await _there(layer, "jobs", {"type": "job.do", "job": 1})
            assert await news() == {"type": "begun"}
            await _there(layer, "gate", {"type": "go"})
            assert await news() == {"type": "done", "job": 1}
            # What it has begun when it is told to stop, it finishes.
            await layer.send("jobs", {"type": "job.do", "job": 2})
            assert await news() == {"type": "begun"}
            running.process.terminate()
            await _there(layer, "gate", {"type": "go"})
            assert await news() == {"type": "done", "job": 2}
            assert await running.ends() == 0
            assert "Traceback" not in running.text
    finally:
        layer.close()


async def _there(layer, channel, message):
    """Send to a channel as soon as somebody reads it."""
    async with asyncio.timeout(10):
        while True:
            try:
                return await layer.send(channel, message)
            except (FileNotFoundError, ConnectionRefusedError):
                await asyncio.sleep(0.01)


async def test_a_worker_on_a_layer_in_memory_says_that_it_is_alone(project):
    async with project.manage("runworker", "jobs") as running:
        await running.says("WARNING: the layer 'default' is in memory")
        await running.says("Quit the worker with CONTROL-C.")
        running.process.send_signal(signal.SIGINT)
        assert await running.ends() == 0
        assert "Traceback" not in running.text
