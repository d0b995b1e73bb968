"""Fixtures for pytest, there as soon as Headrace is installed.

Rules of this file:

- Nothing happens until a test asks for it. Django is imported by the fixtures only.
- What is open is closed when the test function has returned, not by the teardown of a
  fixture: pytest-asyncio has closed the test's event loop by then.
- The fixtures are ordinary functions: they serve synchronous tests as well as those of
  pytest-asyncio and of anyio's plugin.
- Those that need a database need pytest-django, whose fixtures they build on.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Generator, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from .application import Application
from .websocket import WebsocketCommunicator

if TYPE_CHECKING:
    from django.test import Client

    from ..layers import BaseChannelLayer
    from .live import LiveServer

__all__ = [
    "WebsocketConnect",
    "asgi_live_server",
    "async_db",
    "channel_layer",
    "websocket_connect",
]


@pytest.fixture
def channel_layer() -> Iterator["BaseChannelLayer"]:
    """Return a new default channel layer, which consumers and ``get_channel_layer`` use too.

    See ``fresh_channel_layer``.
    """
    from .channel_layers import fresh_channel_layer

    with fresh_channel_layer() as layer:
        yield layer


#: What ``websocket_connect`` has opened for a test.
_opened = pytest.StashKey[list[WebsocketCommunicator]]()


class WebsocketConnect(Protocol):
    """What ``websocket_connect`` is."""

    def __call__(
        self,
        path: str,
        application: Application | None = None,
        *,
        client: "Client | None" = None,
        headers: Iterable[tuple[bytes, bytes]] = (),
        subprotocols: Iterable[str] = (),
        **scope: Any,
    ) -> Awaitable[WebsocketCommunicator]:
        """Open a WebSocket as a page of this site would; AssertionError when it is refused.

        Args:
            path: With its query string.
            application: What ``ASGI_APPLICATION`` names, if nothing else is given.
            client: A Django test client, whose cookies (and with them its login) are sent.
            headers: More headers. Host and Origin are there unless they are given.
            subprotocols: What the client offers.
            scope: What to put into the scope, such as ``user=user``.
        """
        ...


@pytest.fixture
def websocket_connect(request: pytest.FixtureRequest) -> WebsocketConnect:
    """Return a coroutine function that opens a WebSocket and returns its communicator.

    Behind the test each of them is disconnected, and what its application fails with then is
    the test's failure. See ``WebsocketConnect``.
    """
    asked_for = set(request.fixturenames)
    if "channel_layer" in asked_for:  # it is the last to end
        request.getfixturevalue("channel_layer")
    if asked_for & {"db", "transactional_db"} or request.node.get_closest_marker("django_db"):
        request.getfixturevalue("async_db")
    opened = request.node.stash[_opened] = []

    async def connect(
        path: str,
        application: Application | None = None,
        *,
        client: "Client | None" = None,
        headers: Iterable[tuple[bytes, bytes]] = (),
        subprotocols: Iterable[str] = (),
        **scope: Any,
    ) -> WebsocketCommunicator:
        if application is None:
            from ..routing import get_default_application

            application = get_default_application()
        communicator = WebsocketCommunicator(
            application, path, _like_a_browser(headers, client), subprotocols
        )
        communicator.scope.update(scope)
        opened.append(communicator)
        accepted, answer = await communicator.connect()
        assert accepted, f"the WebSocket {path} was refused: {answer}"
        return communicator

    return connect


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """Disconnect what the test has opened; its fixtures, and with them its loop, still stand."""
    try:
        result = yield
    except BaseException:
        with contextlib.suppress(Exception):  # the test's own failure is the one to tell
            _leave_all(item)
        raise
    _leave_all(item)
    return result


def _leave_all(item: pytest.Item) -> None:
    with contextlib.ExitStack() as stack:  # whatever fails, all of them are left
        for communicator in item.stash.get(_opened, ()):
            stack.callback(_leave, communicator)


def _like_a_browser(
    headers: Iterable[tuple[bytes, bytes]], client: "Client | None"
) -> list[tuple[bytes, bytes]]:
    complete = list(headers)
    given = {name for name, _ in complete}
    if client is not None and client.cookies:
        cookies = "; ".join(f"{name}={each.coded_value}" for name, each in client.cookies.items())
        complete.append((b"cookie", cookies.encode("ascii")))
    # The host that Django's test runner lets in.
    for name, value in ((b"host", b"testserver"), (b"origin", b"http://testserver")):
        if name not in given:
            complete.append((name, value))
    return complete


def _leave(communicator: WebsocketCommunicator) -> None:
    """Disconnect, on the loop of the test, which has paused; a closed loop has ended it all."""
    future = communicator._task  # noqa: SLF001 - not ``future``, which begins it
    if future is None or future.done():
        return
    loop: asyncio.AbstractEventLoop = future.get_loop()
    if not loop.is_closed():
        loop.run_until_complete(communicator.disconnect())


@pytest.fixture
def async_db(db: None) -> Iterator[None]:
    """Let the ORM work in the test's own transaction from asynchronous code as well.

    Without it, what a test writes by ``await Model.objects.acreate()``, or a consumer writes,
    goes through a connection of another thread: past the transaction that is rolled back
    after the test. ``websocket_connect`` brings it in where a test has a database.
    """
    from django.conf import settings
    from django.test import override_settings

    from .connections import share_connections

    del db
    # One thread for consumers too: two would mix their transactions on the one connection.
    one_thread = {**getattr(settings, "HEADRACE", {}), "SYNC_THREADS": 0}
    with override_settings(HEADRACE=one_thread), share_connections():
        yield


@pytest.fixture
def asgi_live_server(transactional_db: None) -> Iterator["LiveServer"]:
    """Serve the project on a free port; its ``url`` and ``ws_url`` say where.

    Static files are served as ``runserver`` does.
    """
    del transactional_db
    from django.test import modify_settings

    from ..routing import get_default_application
    from .live import LiveServer, with_static_files

    host = "localhost"
    with (
        modify_settings(ALLOWED_HOSTS={"append": host}),
        LiveServer(host, lambda: with_static_files(get_default_application())) as server,
    ):
        yield server
