"""The kinds of test that a project has, under the runners that it may use, warnings as errors."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

SETTINGS = """
from tests.settings import *

ASGI_APPLICATION = "tests.testing.site.application"
ROOT_URLCONF = "tests.testing.site"
ALLOWED_HOSTS = []
"""

ON_DISK = """
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": "db.sqlite3",
        "TEST": {"NAME": "test.sqlite3"},
    }
}
"""

# Each test begins with an empty table, so that what one leaves behind fails the next.
CASES = """
import urllib.request

import websockets.sync.client
from asgiref.sync import async_to_sync
from django.contrib.auth.models import User
from django.test import SimpleTestCase, TestCase, TransactionTestCase

from headrace.db import database_sync_to_async
from headrace.generic.http import AsyncHttpConsumer
from headrace.generic.websocket import AsyncWebsocketConsumer
from headrace.testing import ChannelsLiveServerTestCase, HttpCommunicator, WebsocketCommunicator
from tests.testing.site import application


class Counting(AsyncWebsocketConsumer):
    async def connect(self):
        await self.accept(subprotocol=str(await self.count()))

    @database_sync_to_async
    def count(self):
        return User.objects.count()


class CountingOverHttp(AsyncHttpConsumer):
    async def handle(self, body):
        await self.send_response(200, str(await User.objects.acount()).encode())


class Modes:
    async def test_an_asynchronous_consumer_without_a_disconnect(self):
        await User.objects.acreate(username="ada")
        socket = WebsocketCommunicator(application, "/ws/members/", HEADERS)
        self.assertEqual(await socket.connect(), (True, None))
        await socket.send_json_to("grace")
        self.assertEqual(await socket.receive_json_from(), ["ada", "grace"])

    async def test_a_synchronous_consumer(self):
        await User.objects.acreate(username="ada")
        socket = WebsocketCommunicator(application, "/ws/sync-members/", HEADERS)
        await socket.connect()
        await socket.send_to("grace")
        self.assertEqual(await socket.receive_from(), "ada,grace")
        await socket.disconnect()
        self.assertEqual(await User.objects.acount(), 2)

    async def test_database_sync_to_async(self):
        await User.objects.acreate(username="ada")
        socket = WebsocketCommunicator(Counting.as_asgi(), "/")
        self.assertEqual(await socket.connect(), (True, "1"))

    async def test_http(self):
        await User.objects.acreate(username="ada")
        response = await HttpCommunicator(CountingOverHttp.as_asgi(), "GET", "/").get_response()
        self.assertEqual(response["body"], b"1")

    async def test_a_view(self):
        await User.objects.acreate(username="ada")
        http = HttpCommunicator(application, "POST", "/users/", b"grace", [HOST])
        response = await http.get_response()
        self.assertEqual(response["body"], b'{"users": ["ada", "grace"]}')
        self.assertEqual(await User.objects.acount(), 2)

    def test_a_synchronous_test(self):
        User.objects.create(username="ada")
        async_to_sync(self.chat)()
        self.assertEqual(User.objects.count(), 2)

    async def chat(self):
        async with WebsocketCommunicator(application, "/ws/members/", HEADERS) as socket:
            await socket.connect()
            await socket.send_json_to("grace")
            self.assertEqual(await socket.receive_json_from(), ["ada", "grace"])


HEADERS = [(b"origin", b"http://testserver")]
HOST = (b"host", b"testserver")


class InATestCase(Modes, TestCase):
    pass


class InATransactionTestCase(Modes, TransactionTestCase):
    pass


class WithoutADatabase(SimpleTestCase):
    async def test_a_refusal(self):
        socket = WebsocketCommunicator(application, "/ws/members/")
        self.assertEqual(await socket.connect(), (False, 1000))


class Live(ChannelsLiveServerTestCase):
    def test_both_sides_of_the_database(self):
        User.objects.create(username="ada")
        url = f"{self.live_server_ws_url}/ws/sync-members/"
        origin = self.live_server_url
        with websockets.sync.client.connect(url, origin=origin) as socket:
            socket.send("grace")
            self.assertEqual(socket.recv(5), "ada,grace")
        with urllib.request.urlopen(f"{self.live_server_url}/users/") as response:
            self.assertEqual(response.read(), b'{"users": ["ada", "grace"]}')
"""


@pytest.fixture
def project(tmp_path):
    (tmp_path / "settings.py").write_text(SETTINGS)
    return tmp_path


def run(folder, *arguments):
    # Warnings are errors; what is only written to the log while the loop goes down counts too.
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", *arguments],
        cwd=folder,
        env={
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "settings",
            "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT), str(ROOT / "src")]),
        },
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    for complaint in ("Task was destroyed", "never awaited", "never retrieved", "ResourceWarning"):
        assert complaint not in output, output
    return output


@pytest.mark.parametrize(
    ("database", "options"),
    [("", ()), ("", ("--parallel", "2")), (ON_DISK, ("--keepdb",))],
    ids=["in memory", "in parallel", "on disk"],
)
def test_djangos_runner(project, database, options):
    with (project / "settings.py").open("a") as settings:
        settings.write(database)
    (project / "test_cases.py").write_text(CASES)
    assert "Ran 14 tests" in run(project, "django", "test", "--noinput", *options)


PYTEST = """
import pytest
from django.contrib.auth.models import User
from django.db import connection, transaction

from headrace.layers import get_channel_layer
from headrace.testing import HttpCommunicator, WebsocketCommunicator


@pytest.mark.PLUGIN
@pytest.mark.parametrize("time", [1, 2])
@pytest.mark.django_db
async def test_in_a_transaction(websocket_connect, time):
    await User.objects.acreate(username="ada")
    socket = await websocket_connect("/ws/members/")
    await socket.send_json_to("grace")
    assert await socket.receive_json_from() == ["ada", "grace"]
    socket = await websocket_connect("/ws/sync-members/")
    await socket.send_to("joan")
    assert await socket.receive_from() == "ada,grace,joan"


@pytest.mark.PLUGIN
@pytest.mark.parametrize("time", [1, 2])
@pytest.mark.django_db
async def test_a_view(async_db, time):
    await User.objects.acreate(username="ada")
    headers = [(b"host", b"testserver")]
    http = HttpCommunicator(application(), "POST", "/users/", b"grace", headers)
    assert (await http.get_response())["body"] == b'{"users": ["ada", "grace"]}'


@pytest.mark.PLUGIN
@pytest.mark.parametrize("time", [1, 2])
@pytest.mark.django_db(transaction=True)
async def test_without_a_transaction(websocket_connect, time):
    await User.objects.acreate(username="ada")
    socket = await websocket_connect("/ws/members/")
    await socket.send_json_to("grace")
    assert await socket.receive_json_from() == ["ada", "grace"]


@pytest.mark.PLUGIN
@pytest.mark.parametrize("time", [1, 2])
@pytest.mark.django_db(transaction=True)
async def test_by_hand_and_without_a_disconnect(time):
    socket = WebsocketCommunicator(application(), "/ws/sync-members/", HEADERS)
    assert await socket.connect() == (True, None)
    await socket.send_to("grace")
    assert await socket.receive_from() == "grace"


HEADERS = [(b"origin", b"http://testserver")]


def application():
    from tests.testing.site import application

    return application


@pytest.mark.django_db
def test_a_synchronous_test(channel_layer):
    assert get_channel_layer() is channel_layer
    assert not User.objects.exists()


def test_a_live_server(asgi_live_server):
    import urllib.request

    User.objects.create(username="ada")
    with urllib.request.urlopen(f"{asgi_live_server.url}/users/") as response:
        assert response.read() == b'{"users": ["ada"]}'
"""


@pytest.mark.parametrize(
    ("plugin", "database"),
    [("asyncio", ON_DISK), ("anyio", "")],
    ids=["pytest-asyncio", "anyio"],
)
def test_pytest(project, plugin, database):
    with (project / "settings.py").open("a") as settings:
        settings.write(database)
    (project / "conftest.py").write_text(
        "import pytest\n\n@pytest.fixture\ndef anyio_backend():\n    return 'asyncio'\n"
    )
    (project / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    (project / "test_all.py").write_text(PYTEST.replace("PLUGIN", plugin))
    options = {
        "anyio": ["-p", "no:asyncio"],
        "asyncio": ["-p", "no:anyio", "-o", "asyncio_default_fixture_loop_scope=function"],
    }
    output = run(project, "pytest", "-p", "no:cacheprovider", "-q", *options[plugin])
    assert "10 passed" in output


def test_a_project_that_has_no_django(tmp_path):
    """The fixtures are there, and neither Django nor a server is imported."""
    (tmp_path / "test_it.py").write_text(
        "import sys\n\n"
        "def test_it(pytestconfig):\n"
        "    assert pytestconfig.pluginmanager.hasplugin('headrace')\n"
        "    heavy = ('django', 'httptools', 'msgspec', 'uvloop', 'headrace.server')\n"
        "    assert not [name for name in sys.modules if name.startswith(heavy)]\n"
    )
    without = [f"-pno:{name}" for name in ("django", "asyncio", "cacheprovider")]
    run(tmp_path, "pytest", "-q", "-W", "error", *without)


def test_the_package_needs_neither_pytest_nor_a_server(tmp_path):
    blocked = ["pytest", "django", "httptools", "msgspec", "uvloop", "websockets", "playwright"]
    (tmp_path / "blocked.py").write_text(
        f"import sys\nsys.modules.update(dict.fromkeys({blocked}))\n"
        "import headrace.testing\n"
        "headrace.testing.WebsocketCommunicator, headrace.testing.HttpCommunicator\n"
    )
    run(tmp_path, "blocked")
