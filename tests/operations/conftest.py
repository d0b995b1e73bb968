"""A site with the operations page, and people with and without rights."""

import asyncio
import contextlib
import json

import pytest
import websockets
from django.contrib import admin
from django.contrib.auth.models import Permission, User
from django.test import AsyncClient
from django.urls import path
from websockets.exceptions import ConnectionClosed

from headrace.operations import consumer, feed
from headrace.operations.admin import SOCKET_PATH
from headrace.operations.routing import socket
from headrace.routing import URLRouter
from headrace.server.config import Config
from headrace.server.control import ENVIRONMENT
from headrace.server.server import Server
from tests.operations.double import Double

PATIENCE_S = 10

urlpatterns = [path("admin/", admin.site.urls)]


@pytest.fixture(autouse=True)
def urls(settings):
    settings.ROOT_URLCONF = __name__


@pytest.fixture
async def people(transactional_db):
    """The names that may come: a superuser, two of the staff, and a guest."""
    await User.objects.acreate_superuser("root", password="x")
    closer = await User.objects.acreate_user("closer", password="x", is_staff=True)
    await closer.user_permissions.aadd(await Permission.objects.aget(codename="close_connection"))
    await User.objects.acreate_user("staff", password="x", is_staff=True)
    await User.objects.acreate_user("guest", password="x")


@pytest.fixture
async def double(tmp_path, monkeypatch):
    """The server of this process, as far as the application can tell."""
    async with Double(tmp_path / "control.sock") as server:
        monkeypatch.setenv(ENVIRONMENT, server.path)
        monkeypatch.setattr(feed, "INTERVAL_S", 0.02)
        yield server


class Page:
    """An operations page that is open somewhere."""

    def __init__(self, socket):
        self.socket = socket

    async def tell(self, **message):
        await self.socket.send(json.dumps(message))

    async def hear(self, kind, wanted=lambda message: True):
        """Return the next message of this kind that is wanted."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                message = json.loads(await self.socket.recv())
                if message["type"] == kind and wanted(message):
                    return message

    async def closed(self):
        async with asyncio.timeout(PATIENCE_S):
            with contextlib.suppress(ConnectionClosed):
                while True:
                    await self.socket.recv()
        return self.socket.close_code


class Door:
    """Where pages are opened."""

    def __init__(self, port):
        self.port = port

    @contextlib.asynccontextmanager
    async def page(self, name, *, origin=None):
        headers = {}
        if name is not None:
            browser = AsyncClient()
            await browser.aforce_login(await User.objects.aget(username=name))
            headers["cookie"] = "; ".join(
                f"{key}={morsel.value}" for key, morsel in browser.cookies.items()
            )
        async with websockets.connect(
            f"ws://127.0.0.1:{self.port}/{SOCKET_PATH}",
            origin=origin or f"http://127.0.0.1:{self.port}",
            additional_headers=headers,
            proxy=None,
        ) as opened:
            yield Page(opened)


@pytest.fixture
async def serve(people, monkeypatch):
    """Return a function that serves the page's socket."""
    monkeypatch.setattr(consumer.OperationsConsumer, "recheck_s", 0.05)
    monkeypatch.setattr(consumer.OperationsConsumer, "list_s", 0.05)

    @contextlib.asynccontextmanager
    async def opened(**options):
        application = URLRouter([path(SOCKET_PATH, socket(**options))])
        async with Server(application, Config(port=0, lifespan="off")) as server:
            yield Door(server.port)

    return opened


@pytest.fixture
async def door(serve, double):
    async with serve() as opened:
        yield opened
