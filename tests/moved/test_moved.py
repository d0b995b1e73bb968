"""A project written for Django Channels: moved by the command, and nothing else done to it.

``project/`` is what its users have. Each test works on the moved copy.
"""

import asyncio
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import pytest_asyncio
import websockets
from playwright.async_api import async_playwright, expect
from tests.chromium import chromium
from tests.docs.pages import environment
from tests.docs.served import Served
from websockets.exceptions import InvalidStatus

PROJECT = Path(__file__).parent / "project"

in_one_loop = pytest.mark.asyncio(loop_scope="module")


def run(folder, *command, code=0):
    """Run a command in the folder; return what it printed."""
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=50,
    )
    assert done.returncode == code, done.stdout
    return done.stdout


def migrate_imports(folder, *options, code):
    return run(folder, "-m", "headrace", "migrate-imports", ".", *options, code=code)


@pytest.fixture(scope="module")
def moved(tmp_path_factory):
    folder = shutil.copytree(PROJECT, tmp_path_factory.mktemp("moved") / "project")
    migrate_imports(folder, "--write", code=0)
    run(folder, "manage.py", "migrate", "--verbosity", "0")
    return folder


class Folder:
    """What ``Served`` asks of a project."""

    def __init__(self, folder):
        self.folder = folder


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(moved):
    server = Served(Folder(moved), "headrace serve mysite.asgi:application")
    await server.start()
    yield server
    await server.stop()
    assert not server.complaints(), "".join(server.log)


@pytest.fixture
def connect(site):
    def connect(path, **options):
        options = {"origin": site.url} | options
        return websockets.connect(f"ws://127.0.0.1:{site.port}{path}", **options)

    return connect


async def hear(socket):
    async with asyncio.timeout(5):
        return await socket.recv()


def test_the_command_shows_what_it_would_do_and_does_nothing_unasked(tmp_path):
    folder = shutil.copytree(PROJECT, tmp_path / "project")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    shown = migrate_imports(folder, code=1)
    assert "-from channels.generic.websocket import AsyncWebsocketConsumer" in shown
    assert "+from headrace.generic.websocket import AsyncWebsocketConsumer" in shown
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_nothing_is_left_of_the_old_names(moved):
    left = [
        f"{path.relative_to(moved)}: {line}"
        for path in moved.rglob("*.py")
        for line in path.read_text().splitlines()
        if re.search(r"\b(channels|daphne)\b", line)
    ]
    assert not left
    migrate_imports(moved, code=0)  # there is nothing more to do


def test_its_own_tests_pass(moved):
    printed = run(moved, "-W", "error", "manage.py", "test", "--noinput")
    assert "Ran 11 tests" in printed
    run(moved, "manage.py", "check", "--fail-level", "INFO")


@in_one_loop
async def test_the_chat_of_the_tutorial_in_two_browsers(site):
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=chromium(), args=["--no-sandbox"]
        )
        pages = [await (await browser.new_context()).new_page() for _ in range(3)]
        rooms = ["lobby", "lobby", "cellar"]
        for page, room in zip(pages, rooms, strict=True):
            await page.goto(f"{site.url}/chat/")
            await page.get_by_label("Room").fill(room)
            await page.get_by_role("button", name="Enter").click()
            await page.locator("body[data-open=yes]").wait_for()
        await pages[0].get_by_label("Message", exact=True).fill("hello from the first")
        await pages[0].keyboard.press("Enter")
        for page in pages[:2]:
            await expect(page.get_by_label("Messages")).to_have_value("hello from the first\n")
        await pages[2].get_by_label("Message", exact=True).fill("all alone")
        await pages[2].keyboard.press("Enter")
        await expect(pages[2].get_by_label("Messages")).to_have_value("all alone\n")
        await browser.close()


@in_one_loop
async def test_the_chat_in_threads(connect):
    path = "/ws/chat-in-threads/lobby/"
    async with connect(path) as first, connect(path) as second:
        await first.send(json.dumps({"message": "hello"}))
        for socket in (first, second):
            assert json.loads(await hear(socket)) == {"message": "hello"}


@in_one_loop
async def test_sync_consumers_use_the_orm_and_hear_from_a_view(site, connect):
    async with connect("/ws/notices/") as socket:
        await socket.send("kept for later")
        assert await hear(socket) == "kept"
        reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
        body = b"text=posted"
        writer.write(
            b"POST /notices/post/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            b"Content-Type: application/x-www-form-urlencoded\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        )
        assert (await reader.read()).startswith(b"HTTP/1.1 200")
        writer.close()
        assert await hear(socket) == "posted"
    async with connect("/ws/notices/") as socket:
        assert [await hear(socket), await hear(socket)] == ["kept for later", "posted"]
        await socket.send("bye")
        assert await hear(socket) == "bye"
        await socket.wait_closed()
        assert socket.close_code == 4000


@in_one_loop
async def test_json_consumers(connect):
    async with connect("/ws/quiz/1/", subprotocols=["quiz"]) as socket:
        assert socket.subprotocol == "quiz"
        assert json.loads(await hear(socket))["round"] == 1
        await socket.send(json.dumps({"question": "6 x 7", "answer": "41"}))
        assert json.loads(await hear(socket)) == {"right": False, "on": "2026-01-02"}
    with pytest.raises(InvalidStatus) as refusal:
        await connect("/ws/quiz/4/")
    assert refusal.value.response.status_code == 403


@in_one_loop
async def test_a_theme_is_kept_in_the_session(connect):
    async with connect("/ws/theme/") as socket:
        await socket.send(json.dumps({"theme": "dark"}))
        assert json.loads(await hear(socket))["key"]


@in_one_loop
async def test_the_pages_of_others_are_refused(site, connect):
    site.expect("the origin 'https://elsewhere.example' is not allowed")
    with pytest.raises(InvalidStatus) as refusal:
        await connect("/ws/notices/", origin="https://elsewhere.example")
    assert refusal.value.response.status_code == 403
