import asyncio
import concurrent.futures
import gc
import json
import socket
import threading
import urllib.error
import urllib.request
import warnings
from pathlib import Path

import pytest
import websockets.sync.client
from asgiref.sync import async_to_sync, sync_to_async
from django.contrib.auth.models import User
from django.core.exceptions import ImproperlyConfigured
from django.db import connections, transaction
from django.test import override_settings
from playwright.sync_api import expect, sync_playwright

from headrace.exceptions import ConfigurationError
from headrace.layers import get_channel_layer
from headrace.server import server as server_module
from headrace.testing import ChannelsLiveServerTestCase
from headrace.testing import live as live_module
from headrace.testing.live import LiveServer
from tests.chromium import chromium

SITE = {
    "ASGI_APPLICATION": "tests.testing.site.application",
    "ROOT_URLCONF": "tests.testing.site",
    "STATIC_URL": "/static/",
    "STATICFILES_DIRS": [Path(__file__).parent / "static"],
    "ALLOWED_HOSTS": [],
}
IN_MEMORY = {"default": {"BACKEND": "headrace.layers.InMemoryChannelLayer"}}


def fetch(url, data=None):
    with urllib.request.urlopen(url, data, timeout=5) as response:
        return response.read().decode()


def connect(server_url, path):
    origin = server_url.replace("ws", "http")
    return websockets.sync.client.connect(server_url + path, origin=origin, open_timeout=5)


@override_settings(**SITE)
class TheSite(ChannelsLiveServerTestCase):
    def test_pages_and_static_files(self):
        assert self.live_server_url == f"http://localhost:{self._port}"
        assert "<p id=" in fetch(f"{self.live_server_url}/")
        assert "new WebSocket" in fetch(f"{self.live_server_url}/static/page.js")
        with pytest.raises(urllib.error.HTTPError, match="404"):
            fetch(f"{self.live_server_url}/static/absent.js")

    def test_the_database_is_the_tests_own(self):
        User.objects.create(username="ada")
        users = json.loads(fetch(f"{self.live_server_url}/users/", b"grace"))
        assert users == {"users": ["ada", "grace"]}
        assert User.objects.count() == 2

    def test_it_is_empty_again(self):
        assert json.loads(fetch(f"{self.live_server_url}/users/")) == {"users": []}

    def test_an_asynchronous_consumer(self):
        User.objects.create(username="ada")
        with connect(self.live_server_ws_url, "/ws/members/") as socket:
            socket.send('"grace"')
            assert json.loads(socket.recv(5)) == ["ada", "grace"]
        assert User.objects.count() == 2

    def test_a_synchronous_consumer(self):
        User.objects.create(username="ada")
        with connect(self.live_server_ws_url, "/ws/sync-members/") as socket:
            socket.send("grace")
            assert socket.recv(5) == "ada,grace"

    def test_the_test_speaks_to_the_consumers_through_the_channel_layer(self):
        with connect(self.live_server_ws_url, "/ws/members/") as socket:
            layer = get_channel_layer()
            async_to_sync(layer.group_send)("members", {"type": "members.changed"})
            assert json.loads(socket.recv(5)) == []
            with override_settings(CHANNEL_LAYERS=IN_MEMORY):
                assert get_channel_layer() is not layer
                with connect(self.live_server_ws_url, "/ws/members/") as other:
                    async_to_sync(get_channel_layer().group_send)(
                        "members", {"type": "websocket.send", "text": "hello"}
                    )
                    assert other.recv(5) == "hello"

    async def test_an_asynchronous_test(self):
        async with websockets.connect(
            f"{self.live_server_ws_url}/ws/members/", origin=self.live_server_url
        ) as socket:
            await socket.send('"ada"')
            assert json.loads(await socket.recv()) == ["ada"]
        assert await User.objects.acount() == 1

    def test_errors_of_the_application_are_in_the_log_of_this_process(self):
        with (
            self.assertLogs("headrace.server", "ERROR") as logged,
            connect(self.live_server_ws_url, "/ws/stuck/") as socket,
        ):
            socket.send('"fail"')
            with pytest.raises(websockets.ConnectionClosedError, match="1011"):
                socket.recv(5)
        assert "on purpose" in logged.output[0]

    def test_a_writer_waits_for_the_transaction_of_another(self):
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            with transaction.atomic():
                User.objects.create(username="ada")
                posting = pool.submit(fetch, f"{self.live_server_url}/users/", b"grace")
                with pytest.raises(concurrent.futures.TimeoutError):
                    posting.result(timeout=0.2)
            assert json.loads(posting.result()) == {"users": ["ada", "grace"]}

    def test_many_threads_write_at_the_same_time(self):
        def browse(number):
            fetch(f"{self.live_server_url}/users/", b"http %d" % number)
            with connect(self.live_server_ws_url, "/ws/sync-members/") as socket:
                socket.send(f"sync {number}")
                socket.recv(5)
            with connect(self.live_server_ws_url, "/ws/members/") as socket:
                socket.send(f'"async {number}"')
                while f"async {number}" not in socket.recv(5):
                    pass  # somebody else's

        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            browsing = [pool.submit(browse, number) for number in range(24)]
            for number in range(24):
                with transaction.atomic():
                    User.objects.create(username=f"here {number}")
                    User.objects.filter(username=f"here {number}").update(first_name="x")
            for each in browsing:
                each.result()
        assert User.objects.count() == 24 * 4

    @pytest.mark.browser
    def test_a_browser(self):
        User.objects.create(username="ada")
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
            page = browser.new_page()
            page.goto(f"{self.live_server_url}/")
            expect(page.locator("#said")).to_have_text('["ada","browser"]')
            browser.close()


@override_settings(**SITE)
class WithoutStaticFiles(ChannelsLiveServerTestCase):
    serve_static = False

    def test_static_files_are_the_applications_affair(self):
        with pytest.raises(urllib.error.HTTPError, match="404"):
            fetch(f"{self.live_server_url}/static/page.js")


async def plain(scope, receive, send):
    assert scope["type"] == "http"
    body = b"plain"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


class WithAnApplicationOfItsOwn(ChannelsLiveServerTestCase):
    """Neither ASGI_APPLICATION nor STATIC_URL is set, and the host is an address."""

    host = "::1"

    @classmethod
    def get_application(cls):
        return plain

    def test_the_application(self):
        assert self.live_server_url == f"http://[::1]:{self._port}"
        assert self.live_server_ws_url == f"ws://[::1]:{self._port}"
        assert fetch(self.live_server_url) == "plain"


# The start and the end


def run_class(case):
    """Do what a test runner does around the tests of a class."""
    case.setUpClass()
    try:
        return case
    finally:
        case.tearDownClass()
        case.doClassCleanups()


def test_what_is_wrong_with_the_application_is_the_error_of_the_class(transactional_db):
    class Missing(ChannelsLiveServerTestCase):
        pass

    with pytest.raises(ImproperlyConfigured, match="ASGI_APPLICATION"):
        run_class(Missing)


def test_an_application_that_cannot_start():
    async def application(scope, receive, send):
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no coffee"})

    with (
        pytest.raises(ConfigurationError, match="no coffee"),
        LiveServer("localhost", lambda: application),
    ):
        pass


def test_a_port_that_is_taken():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = LiveServer("localhost", lambda: plain, port=taken.getsockname()[1])
        with pytest.raises(ConfigurationError, match="another program is there"):
            server.start()
    server.start()
    server.stop()
    server.stop()  # once more is nothing


def site_server():
    from tests.testing.site import application

    return LiveServer("localhost", lambda: application)


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(live_module, "SHUTDOWN_S", 0.1)
    monkeypatch.setattr(live_module, "THREAD_END_S", 0.5)
    monkeypatch.setattr(server_module, "CANCELLED_S", 0.1)


@pytest.fixture
def release():
    from tests.testing.site import release

    release.clear()
    yield release
    release.set()


@pytest.mark.parametrize("what", ["nothing", "await"])
def test_open_websockets_and_waiting_handlers_end_with_the_server(impatient, what):
    server = site_server()
    server.start()
    with connect(server.ws_url, "/ws/stuck/") as client:
        client.send(json.dumps(what))
        server.stop()
        with pytest.raises(websockets.ConnectionClosed):
            client.recv(5)
    assert "headrace live server" not in {thread.name for thread in threading.enumerate()}


def test_a_handler_that_refuses_to_end_is_named(impatient, release, caplog):
    server = site_server()
    server.start()
    with connect(server.ws_url, "/ws/stuck/") as client:
        client.send('"stubborn"')
        assert client.recv(5) == '"here"'
        with pytest.raises(RuntimeError, match=r"1 handlers go on(.|\n)*headrace application"):
            server.stop()
    release.set()


def test_a_handler_that_blocks_the_loop_is_named(impatient, release):
    server = site_server()
    server.start()
    with connect(server.ws_url, "/ws/stuck/") as client:
        client.send('"sleep"')
        assert client.recv(5) == '"sleeping"'
        thread = server._thread
        with pytest.raises(RuntimeError, match=r"blocks its event loop(.|\n)*release.wait"):
            server.stop()
        release.set()
        thread.join()


def test_no_connection_to_the_database_is_left(transactional_db):
    server = site_server()
    opened = []
    with server, override_settings(ROOT_URLCONF="tests.testing.site"):
        for name in (b"ada", b"grace"):
            fetch(f"{server.url}/users/", name)
        with connect(server.ws_url, "/ws/sync-members/") as client:
            client.send("sync")
            client.recv(5)
        opened = [*server._connections]
        assert opened
        assert connections["default"] not in opened
    assert {connection.connection for connection in opened} == {None}
    assert User.objects.count() == 3, "the test's own is open"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gc.collect()


async def test_inside_of_a_running_loop(transactional_db):
    with site_server() as server, override_settings(ROOT_URLCONF="tests.testing.site"):
        assert await asyncio.to_thread(fetch, f"{server.url}/users/", b"ada")
    assert await User.objects.acount() == 1
    await sync_to_async(connections.close_all)()
