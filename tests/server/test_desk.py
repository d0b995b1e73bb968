"""What one server answers: its connections, who they are of, and since when."""

import contextlib
import time

import pytest

from headrace.exceptions import ControlError
from headrace.server.desk import ArrivalTimes, Desk, largest

from .clients import connected, echo, handshake, respond, serving, until


class User:
    def __init__(self, name):
        self.username = name


class Lazy:
    """As Django's SimpleLazyObject: asked for anything else it would go to the database."""

    def __init__(self, wrapped):
        self.__dict__["_wrapped"] = wrapped

    def __getattr__(self, name):
        raise AssertionError(f"{name} was asked for")


class Chat:
    """A consumer, as frames see it."""

    def __init__(self, scope):
        self.scope = scope

    async def run(self, receive, send):
        await echo(self.scope, receive, send)


def site(user=None):
    async def application(scope, receive, send):
        if user is not None:
            scope["user"] = user
        await Chat(scope).run(receive, send)

    return application


async def rows_of(server, **arguments):
    desk = Desk(server)
    desk.look()
    return (await desk.answer("connections", arguments))["connections"]


@pytest.mark.parametrize(
    ("user", "name"),
    [
        (User("ada"), "ada"),
        (Lazy(User("grace")), "grace"),
        (Lazy(object()), None),
        (User(""), None),
        (None, None),
    ],
    ids=["known", "lazy", "not asked for yet", "nameless", "nobody"],
)
async def test_who_a_connection_is_of(user, name):
    async with serving(site(user)) as server, connected(server) as client:
        await client.open_websocket("/rooms/1/?x")
        [row] = await rows_of(server)
        assert row["consumer"] == "Chat"
        assert row["user"] == name
        assert row["path"] == "/rooms/1/"
        assert (row["worker"], row["protocol"]) == (0, "websocket")


async def test_a_request_under_way_and_one_that_is_over(tmp_path):
    path = str(tmp_path / "a.sock")

    async def application(scope, receive, send):
        if scope["path"] == "/wait":
            while (await receive())["type"] != "http.disconnect":
                pass
        await respond(send, b"x")

    async with (
        serving(application, uds=path) as server,
        connected(path) as waiting,
        connected(path) as idle,
    ):
        await waiting.send(b"GET /wait HTTP/1.1\r\nHost: here\r\n\r\n")
        assert (await idle.get("/")).status == 200
        await until(lambda: server.counters.requests == 2)
        rows = await rows_of(server)
        assert sorted(row["path"] or "" for row in rows) == ["", "/wait"]
        assert {row["peer"] for row in rows} == {"unix"}
        [row] = await rows_of(server, search="/WAIT http")
        assert row["path"] == "/wait"
        assert await rows_of(server, search="nobody") == []
        answer = await Desk(server).answer("close", {"connection": row["id"]})
        assert answer == {"closed": row["id"]}
        assert await waiting.read_to_end() == b""


async def test_many_connections_in_slices(monkeypatch):
    monkeypatch.setattr("headrace.server.desk._SLICE", 2)
    async with serving(site()) as server, contextlib.AsyncExitStack() as clients:
        for n in range(5):
            client = await clients.enter_async_context(connected(server))
            await client.open_websocket(f"/{n}")
        rows = await rows_of(server, limit=3)
        assert len(rows) == 3
        assert len({row["id"] for row in rows}) == 3


async def test_before_the_start_and_after_the_stop():
    async with serving(site()) as server:
        desk = Desk(server)
        assert (await desk.answer("snapshot", {}))["worker"] == 0
    desk.look()
    with pytest.raises(ControlError, match="has not started yet, or has stopped"):
        await desk.answer("snapshot", {})


async def test_a_websocket_that_is_not_accepted_yet_is_ended():
    async def application(scope, receive, send):
        await receive()
        await receive()

    async with serving(application) as server, connected(server) as client:
        await client.send(handshake("/"))
        await until(lambda: server.counters.websockets == 1)
        [row] = await rows_of(server)
        await Desk(server).answer("close", {"connection": row["id"], "code": 4000})
        assert await client.read_to_end() == b""


# Since when


def test_when_a_connection_came():
    arrivals = ArrivalTimes()
    assert arrivals.when(1, 50.0) == 50.0
    for number, moment in [(0, 10.0), (3, 11.0), (3, 12.0), (7, 13.0)]:
        arrivals.look(number, moment)
    assert [arrivals.when(n, 50.0) for n in (1, 3, 4, 7, 8)] == [11.0, 11.0, 13.0, 13.0, 50.0]


def test_what_is_kept_of_it_is_bounded():
    arrivals = ArrivalTimes()
    for n in range(100_000):
        arrivals.look(n, float(n))
    assert len(arrivals._numbers) <= ArrivalTimes.LOOKS
    # A moment after, never before.
    assert all(n <= arrivals.when(n, 1e6) for n in range(0, 100_000, 997))
    assert arrivals.when(99_999, 1e6) == 99_999


def test_orders():
    now = time.time()
    rows = [{"since": now - n, "sent": n} for n in range(5)]
    assert [row["sent"] for row in largest(rows, 2, "since")] == [4, 3]
    assert [row["sent"] for row in largest(rows, 2, "newest")] == [0, 1]
    assert [row["sent"] for row in largest(rows, 2, "sent")] == [4, 3]
