"""Development: files that change, and a server that starts anew."""

import asyncio
import os
import signal
import time

import pytest

from headrace.exceptions import ConfigurationError
from headrace.server import watching
from headrace.server.watching import Watch

from .clients import connected, until
from .supervised import service
from .test_supervisor import get, in_one_loop

# The files


def write(path, text="x"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def seen(watch):
    return sorted(os.path.relpath(path, watch.folders[0]) for path in watch.look())


def test_what_is_watched(tmp_path):
    for name in [
        "a.py",
        "deep/er/b.py",
        "page.html",
        "deep/page.html",
        ".hidden/c.py",
        "__pycache__/d.py",
        "node_modules/e.py",
        "site-packages/f.py",
        "env/pyvenv.cfg",
        "env/lib/g.py",
        "generated/h.py",
    ]:
        write(tmp_path / name)
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "gone.py").symlink_to(tmp_path / "nowhere")
    assert seen(Watch([str(tmp_path)])) == ["a.py", "deep/er/b.py", "generated/h.py"]
    more = Watch([str(tmp_path)], ["*.html"], ["generated"])
    assert seen(more) == ["a.py", "deep/er/b.py", "deep/page.html", "page.html"]
    assert seen(Watch([str(tmp_path)], [], ["deep/*", "generated/*.py"])) == ["a.py"]
    # Where the application itself is in such a folder somebody says so.
    assert seen(Watch([str(tmp_path / "env")])) == ["lib/g.py"]


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(ConfigurationError, match=r"--reload-dir .*x: there is no such folder"):
        Watch([str(tmp_path / "x")])
    watch = Watch([str(tmp_path)])
    tmp_path.rmdir()
    assert watch.look() == {}


@in_one_loop
async def test_changes(tmp_path, monkeypatch):
    monkeypatch.setattr(watching, "INTERVAL_S", 0.01)
    first, second = write(tmp_path / "a.py"), tmp_path / "b.py"
    found = []

    async def listen():
        async for paths in Watch([str(tmp_path)]).changes():
            found.append([os.path.basename(path) for path in paths])  # noqa: PERF401 - one by one

    looks = []
    look = Watch.look
    monkeypatch.setattr(Watch, "look", lambda watch: looks.append(1) or look(watch))
    listening = asyncio.create_task(listen())
    for change, expected in [
        (lambda: write(first, "longer"), ["a.py"]),
        (lambda: (write(second), write(first)), ["a.py", "b.py"]),
        (second.unlink, ["b.py"]),
        (lambda: os.utime(first, (1, 1)), ["a.py"]),
    ]:
        count = len(looks)
        await until(lambda count=count: len(looks) > count + 1)
        change()
        await until(lambda: found)
        seen_names = sorted({name for names in found for name in names})
        assert seen_names == expected
        found.clear()
    listening.cancel()
    await asyncio.wait([listening])


@in_one_loop
async def test_what_is_there_again_has_not_changed(tmp_path, monkeypatch):
    """An editor that writes a file by taking it away first."""
    monkeypatch.setattr(watching, "INTERVAL_S", 0.0)
    states = iter([{"a": (1, 1)}, {}, {"a": (1, 1)}, {"a": (1, 1)}, {"a": (2, 1)}, {"a": (2, 1)}])
    last = {"a": (2, 1)}
    watch = Watch([str(tmp_path)])
    monkeypatch.setattr(watch, "look", lambda: next(states, last))
    async for paths in watch.changes():
        assert paths == ["a"]
        break


def test_how_changes_are_named(monkeypatch):
    monkeypatch.chdir("/")
    assert watching._named(["/x/a.py"]) == "x/a.py"
    assert watching._named(["/a", "/b", "/c", "/d", "/e"]) == "a, b, c and 2 more"


# The server

SITE = """
import asyncio, os, sys

async def application(scope, receive, send):
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
        return
    if scope["path"] == "/exit":
        os._exit(3)
    if scope["path"] == "/slow":
        await asyncio.sleep(600)
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"VERSION"})
"""


def site(folder, version):
    write(folder / "site_to_reload.py", SITE.replace("VERSION", version))


def watched(tmp_path, *options):
    options = ["--reload", "--app-dir", str(tmp_path / "site"), *options]
    return service(tmp_path, *options, app="site_to_reload", PYTHONDONTWRITEBYTECODE="1")


@in_one_loop
async def test_a_change_is_served_at_once(tmp_path):
    site(tmp_path / "site", "one")
    async with watched(tmp_path, "--reload-include", "*.txt") as running:
        address = await running.address()
        assert await get(running) == "one"
        async with connected(address) as socket, connected(address) as slow:
            await socket.open_websocket("/ws")
            await slow.send(b"GET /slow HTTP/1.1\r\nHost: here\r\n\r\n")
            site(tmp_path / "site", "another")
            begun = time.monotonic()
            assert await socket.read_close() == (1012, "reloading")
            await socket.send_close(1012)
            assert await get(running) == "another"
            # Nobody waits for what the old one still had to do.
            assert time.monotonic() - begun < 10
            await slow.read_to_end()
        assert running.count("site_to_reload.py changed: reloading") == 1
        before = running._serving()
        write(tmp_path / "site" / "words.txt")
        await running.logged("words.txt changed: reloading")
        await until(lambda: running._serving() != before)
        running.process.send_signal(signal.SIGINT)
        assert await running.end() == 0


@in_one_loop
async def test_what_is_broken_is_shown_and_waited_for(tmp_path):
    site(tmp_path / "site", "one")
    write(tmp_path / "site" / "site_to_reload.py", "this is no Python")
    async with watched(tmp_path) as running:
        # Broken at the start, it waits as well.
        await running.logged("waiting for the next change")
        assert running.count("SyntaxError") == 1
        # Who asks meanwhile has its answer when there is one.
        asking = asyncio.create_task(get(running))
        site(tmp_path / "site", "two")
        assert await asking == "two"
        write(tmp_path / "site" / "site_to_reload.py", "1 / 0")
        await running.logged("ZeroDivisionError")
        await until(lambda: running.count("waiting for the next change") == 2)
        site(tmp_path / "site", "three")
        assert await get(running) == "three"
        # And so it does where the application ends by itself.
        async with connected(await running.address()) as client:
            await client.send(b"GET /exit HTTP/1.1\r\nHost: here\r\n\r\n")
            assert await client.read_to_end() == b""
        await until(lambda: running.count("waiting for the next change") == 3)
        running.process.send_signal(signal.SIGINT)
        assert await running.status() == 0


@in_one_loop
async def test_a_change_while_it_starts_begins_anew(tmp_path):
    write(
        tmp_path / "site" / "site_to_reload.py",
        "import time; print('here', flush=True)\ntime.sleep(600)",
    )
    async with watched(tmp_path) as running:
        await running.has_told("here")
        site(tmp_path / "site", "one")
        assert await get(running) == "one"
        running.process.send_signal(signal.SIGINT)
        assert await running.end() == 0


@in_one_loop
async def test_a_folder_to_watch_that_is_not_there(tmp_path):
    site(tmp_path / "site", "one")
    async with watched(tmp_path, "--reload-dir", str(tmp_path / "no")) as running:
        assert await running.status() == 2
        assert running.count("there is no such folder") == 1
