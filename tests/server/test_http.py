"""HTTP/1.1 over real sockets: the request, the response, and what ASGI makes of them."""

import asyncio
import contextvars
import hashlib
import logging

import pytest

from headrace.exceptions import LocalProtocolError
from headrace.protocols.http1 import Http1Limits
from headrace.server.asgi import ClientDisconnected
from headrace.server.turn import Turn
from headrace.server.websocket import EXTENSION

from .clients import (
    Crowded,
    connected,
    connection_of,
    echo,
    handshake,
    hello,
    read_body,
    respond,
    runtime_of,
    serving,
    until,
)

MEGABYTE = 1024 * 1024


class Recorded:
    """An application that can be watched: it does what it is told, and notes how it ended."""

    def __init__(self, behave):
        self.behave = behave
        self.scopes = []
        self.ended = asyncio.Event()
        self.error = None

    async def __call__(self, scope, receive, send):
        self.scopes.append(scope)
        try:
            await self.behave(scope, receive, send)
        except BaseException as error:
            self.error = error
            raise
        finally:
            self.ended.set()


# The scope


async def test_the_scope_says_what_was_asked():
    app = Recorded(hello)
    async with serving(app) as server, connected(server) as client:
        await client.get("/caf%C3%A9/a%2Fb?x=%20&y", "X-One: 1", "x-one: 2", "Cookie: a=b")
        mine = client.sock.getsockname()
    [scope] = app.scopes
    assert scope == {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.5"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/café/a/b",
        "raw_path": b"/caf%C3%A9/a%2Fb",
        "query_string": b"x=%20&y",
        "root_path": "",
        "headers": [
            (b"host", b"here"),
            (b"x-one", b"1"),
            (b"x-one", b"2"),
            (b"cookie", b"a=b"),
        ],
        "client": ("127.0.0.1", mine[1]),
        "server": ("127.0.0.1", int(server_port(scope))),
        "extensions": {"http.response.early_hint": {}, "headrace": EXTENSION},
    }


def server_port(scope):
    return scope["server"][1]


async def test_the_path_begins_with_the_root_path():
    app = Recorded(hello)
    async with serving(app, root_path="/mü") as server, connected(server) as client:
        await client.get("/x%20y")
        await client.request(b"OPTIONS * HTTP/1.1\r\nHost: here\r\n\r\n")
    first, second = app.scopes
    assert first["root_path"] == "/mü"
    assert first["path"] == "/mü/x y"
    assert first["raw_path"] == b"/m%C3%BC/x%20y"
    assert second["path"] == "*"


async def test_what_an_application_does_to_its_scope_stays_there():
    async def app(scope, receive, send):
        assert "mark" not in scope["extensions"]
        scope["extensions"]["mark"] = {}
        await respond(send)

    async with serving(app) as server, connected(server) as client:
        for _ in range(2):
            assert (await client.get()).status == 200


# Connections that stay


async def test_requests_follow_each_other_on_one_connection():
    async with serving(echo) as server, connected(server) as client:
        for body in (b"one", b"", b"three" * 1000):
            head = b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: %d\r\n\r\n" % len(body)
            response = await client.request(head + body)
            assert (response.status, response.body) == (200, body)
        assert server.counters.connections == 1
        assert server.counters.requests == 3


async def test_pipelined_requests_are_answered_in_order_one_at_a_time():
    running = []
    gate = asyncio.Event()

    async def app(scope, receive, send):
        running.append(scope["path"])
        assert len(running) == 1
        if scope["path"] == "/0":
            await gate.wait()
        await receive()
        running.clear()
        await respond(send, scope["path"].encode())

    requests = b"".join(b"GET /%d HTTP/1.1\r\nHost: here\r\n\r\n" % n for n in range(50))
    async with serving(app) as server, connected(server) as client:
        await client.send(requests)
        await until(lambda: running)
        gate.set()
        assert [(await client.read_response()).body for _ in range(50)] == [
            b"/%d" % number for number in range(50)
        ]


async def test_a_pipeline_is_bounded():
    gate = asyncio.Event()

    async def app(scope, receive, send):
        await gate.wait()
        await respond(send)

    count = 400_000
    requests = b"GET /0123456789 HTTP/1.1\r\nHost: here\r\n\r\n" * count
    async with serving(app) as server, connected(server) as client:
        client.writer.write(requests)
        await until(lambda: server.counters.requests)
        connection = connection_of(server)
        await until(lambda: connection._reading_paused)
        assert len(connection._engine._buffer) <= MEGABYTE
        assert client.writer.transport.get_write_buffer_size() > 0
        client.reset()
        gate.set()


async def test_whoever_is_new_waits_in_line_where_many_begin_at_once(monkeypatch):
    crowded = False
    lined = []

    class CrowdedLater(Turn):
        def later(self, work):
            lined.append(work)
            super().later(work)

        def has_time(self):
            return not crowded

    monkeypatch.setattr("headrace.server.server.Turn", CrowdedLater)
    async with (
        serving(hello) as server,
        connected(server) as known,
        connected(server) as new,
        connected(server) as upgrading,
    ):
        assert (await known.get()).status == 200
        crowded = True
        lined.clear()
        # Who has been served before is none of the crowd.
        assert (await known.get()).status == 200
        assert not lined
        assert (await new.get()).status == 200
        assert len(lined) == 1
        assert (await new.get()).status == 200
        assert len(lined) == 1
        upgrade = b"Upgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
        await upgrading.send(b"GET / HTTP/1.1\r\nHost: here\r\n" + upgrade)
        assert (await upgrading.read_response()).status == 400
        assert len(lined) == 2


async def test_a_websocket_that_begins_where_many_do_is_read(monkeypatch):
    monkeypatch.setattr("headrace.server.server.Turn", Crowded)
    async with serving(echo) as server, connected(server) as client:
        await client.open_websocket()
        await client.send_text("hello")
        assert await client.read_text() == "hello"
        await client.close()


async def test_a_websocket_behind_a_request_of_the_same_pipeline_is_read():
    async with serving(echo) as server, connected(server) as client:
        await client.send(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n" + handshake("/"))
        assert (await client.read_response()).status == 200
        assert (await client.read_response()).status == 101
        await client.send_text("hello")
        assert await client.read_text() == "hello"
        await client.close()


async def test_who_ends_its_side_while_it_waits_in_line_is_answered(monkeypatch):
    monkeypatch.setattr("headrace.server.server.Turn", Crowded)
    async with serving(hello) as server, connected(server) as client:
        await client.send(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
        client.end()
        assert (await client.read_response()).status == 200


async def test_nothing_is_served_after_connection_close():
    app = Recorded(hello)
    async with serving(app) as server, connected(server) as client:
        response = await client.request(
            b"GET /1 HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n"
            b"GET /2 HTTP/1.1\r\nHost: here\r\n\r\n"
        )
        assert response[b"connection"] == b"close"
        assert await client.read_to_end() == b""
    assert [scope["path"] for scope in app.scopes] == ["/1"]


async def test_an_application_can_close_the_connection():
    async def app(scope, receive, send):
        await respond(send, b"bye", headers=[(b"connection", b"close")])

    async with serving(app) as server, connected(server) as client:
        assert (await client.get())[b"connection"] == b"close"
        assert await client.read_to_end() == b""


async def test_an_old_client_gets_an_old_answer():
    async def app(scope, receive, send):
        assert scope["http_version"] == "1.0"
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        await send({"type": "http.response.body", "body": b"b"})

    async with serving(app) as server, connected(server) as client:
        response = await client.request(b"GET / HTTP/1.0\r\n\r\n")
        assert not response.all(b"transfer-encoding")
        assert response.body == b"ab"


async def test_an_idle_connection_ends_in_silence():
    limits = Http1Limits(keep_alive_s=0.2)
    async with serving(hello, http=limits) as server, connected(server) as client:
        await client.get()
        assert await client.read_to_end() == b""
        async with connected(server) as silent:
            assert await silent.read_to_end() == b""


# What one request leaves behind


async def test_one_request_sees_nothing_that_another_has_set():
    secret = contextvars.ContextVar("secret", default=None)
    seen = []

    async def app(scope, receive, send):
        seen.append(secret.get())
        secret.set(scope["path"])
        await read_body(receive)
        await respond(send, b"x" * 1000)

    async with serving(app) as server, connected(server) as client:
        # Pipelined, and with bodies that pause the reading: both go on from inside the
        # application's own task.
        body = b"x" * 300_000
        head = b"POST /a HTTP/1.1\r\nHost: here\r\nContent-Length: %d\r\n\r\n" % len(body)
        client.writer.write((head + body) * 4)
        for _ in range(4):
            await client.read_response()
        await client.get("/b")
    assert seen == [None] * 5


async def test_work_after_the_response_does_not_hold_up_the_next_request():
    gate = asyncio.Event()
    finished = []

    async def app(scope, receive, send):
        await respond(send, scope["path"].encode())
        if scope["path"] == "/first":
            await gate.wait()
            assert (await receive()) == {"type": "http.disconnect"}
            finished.append("first")

    async with serving(app) as server, connected(server) as client:
        assert (await client.get("/first")).body == b"/first"
        assert (await client.get("/second")).body == b"/second"
        gate.set()
        await until(lambda: finished)


# The body of a request


async def test_a_body_arrives_whole_however_it_is_framed_and_cut():
    async with serving(echo) as server, connected(server) as client:
        response = await client.request(
            b"POST / HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n"
            b'3;a="b"\r\nabc\r\n10\r\n0123456789abcdef\r\n0\r\nTrailer: x\r\n\r\n'
        )
        assert response.body == b"abc0123456789abcdef"
        for byte in b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 4\r\n\r\nslow":
            await client.send(bytes([byte]))
        assert (await client.read_response()).body == b"slow"


async def test_parts_that_the_application_has_not_fetched_become_one():
    gate = asyncio.Event()
    parts = []

    async def app(scope, receive, send):
        await gate.wait()
        message = await receive()
        parts.append(message)
        await respond(send)

    async with serving(app) as server, connected(server) as client:
        await client.send(b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 6\r\n\r\nab")
        await until(lambda: connection_of(server)._exchange)
        exchange = connection_of(server)._exchange
        for piece, total in [(b"cd", 4), (b"ef", 6)]:
            await client.send(piece)
            await until(lambda total=total: exchange.waiting_bytes == total)
        gate.set()
        assert (await client.read_response()).status == 200
    assert parts == [{"type": "http.request", "body": b"abcdef", "more_body": False}]


async def test_a_client_that_uploads_to_an_application_that_does_not_read_is_paused():
    gate = asyncio.Event()

    async def app(scope, receive, send):
        await gate.wait()
        digest = hashlib.sha256()
        more = True
        while more:
            message = await receive()
            digest.update(message["body"])
            more = message["more_body"]
        await respond(send, digest.digest())

    body = bytes(range(256)) * 4096 * 40
    async with serving(app) as server, connected(server) as client:
        head = b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: %d\r\n\r\n" % len(body)
        client.writer.write(head + body)
        await until(lambda: server.counters.requests)
        connection = connection_of(server)
        await until(lambda: connection._reading_paused)
        exchange = connection._exchange
        assert exchange.waiting_bytes + len(connection._engine._buffer) <= MEGABYTE
        assert client.writer.transport.get_write_buffer_size() > 20 * MEGABYTE
        gate.set()
        response = await client.read_response()
        assert response.body == hashlib.sha256(body).digest()


async def test_the_rest_of_an_unwanted_body_is_not_waited_for():
    async def app(scope, receive, send):
        await respond(send, b"no", status=403)

    async with serving(app) as server, connected(server) as client:
        response = await client.request(
            b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 1000000\r\n\r\nabc"
        )
        assert (response.status, response.body) == (403, b"no")
        assert response[b"connection"] == b"close"
        assert await client.read_to_end() == b""
    async with serving(app) as server, connected(server) as client:
        # All of it is there: the connection goes on.
        for _ in range(2):
            response = await client.request(
                b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 3\r\n\r\nabc"
            )
            assert not response.all(b"connection")


async def test_an_answer_may_come_in_the_middle_of_what_arrives():
    async def app(scope, receive, send):
        if scope["method"] == "POST":
            await receive()
            await receive()
        await respond(send, scope["method"].encode())

    async with serving(app) as server, connected(server) as client:
        for _ in range(3):
            await client.send(b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 4\r\n\r\nab")
            await until(lambda: connection_of(server)._exchange)
            await until(lambda: connection_of(server)._exchange._wake)
            await client.send(b"cd")
            assert (await client.read_response()).body == b"POST"
            assert (await client.get()).body == b"GET"


async def test_continue_is_said_when_the_application_reads():
    gate = asyncio.Event()

    async def app(scope, receive, send):
        await gate.wait()
        await echo(scope, receive, send)

    head = b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n"
    async with serving(app) as server, connected(server) as client:
        await client.send(head)
        await until(lambda: server.counters.requests)
        gate.set()
        assert (await client.read_head()).status == 100
        await client.send(b"body")
        assert (await client.read_response()).body == b"body"
        # A client that doesn't wait for it hears nothing of it.
        gate.clear()
        await client.send(head + b"body")
        await until(lambda: server.counters.requests == 2)
        gate.set()
        assert (await client.read_response()).body == b"body"


async def test_continue_is_not_said_when_the_application_does_not_read():
    async with serving(hello) as server, connected(server) as client:
        response = await client.request(
            b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n"
        )
        assert response.status == 200
        assert response[b"connection"] == b"close"


# The response


async def test_a_response_in_parts_is_chunked_and_each_part_leaves_at_once():
    gate = asyncio.Event()

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"X-A", b"1")]})
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        await gate.wait()
        await send({"type": "http.response.body", "body": bytearray(b"sec"), "more_body": True})
        await send({"type": "http.response.body", "body": memoryview(b"ond")})

    async with serving(app) as server, connected(server) as client:
        await client.send(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
        head = await client.read_head()
        assert head[b"transfer-encoding"] == b"chunked"
        assert head[b"x-a"] == b"1"
        chunks = client.chunks()
        assert await anext(chunks) == b"first"
        gate.set()
        assert b"".join([chunk async for chunk in chunks]) == b"second"
        assert (await client.get()).status == 200


async def test_a_length_that_is_given_is_kept():
    async def app(scope, receive, send):
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [(b"content-length", b"4")],
            }
        )
        await send({"type": "http.response.body", "body": b"ab", "more_body": True})
        await send({"type": "http.response.body", "body": b"cd"})

    async with serving(app) as server, connected(server) as client:
        response = await client.get()
        assert (response[b"content-length"], response.body) == (b"4", b"abcd")


@pytest.mark.parametrize("status", [200, 204, 304])
async def test_a_response_without_a_body_has_none(status):
    async def app(scope, receive, send):
        await respond(send, b"" if status == 204 else b"body", status=status)

    async with serving(app) as server, connected(server) as client:
        method = b"HEAD" if status == 200 else b"GET"
        for _ in range(2):
            response = await client.request(
                method + b" / HTTP/1.1\r\nHost: here\r\n\r\n", bodiless=True
            )
            assert response.status == status
            assert response.all(b"content-length") == ([b"4"] if status != 204 else [])


async def test_date_and_server_are_added_unless_given():
    async def app(scope, receive, send):
        headers = [(b"date", b"today"), (b"server", b"mine")] if scope["path"] == "/own" else []
        await respond(send, headers=headers)

    async with serving(app) as server, connected(server) as client:
        response = await client.get()
        assert response[b"server"] == b"headrace"
        assert response[b"date"].endswith(b" GMT")
        own = await client.get("/own")
        assert (own[b"server"], own[b"date"]) == (b"mine", b"today")
    async with serving(app, server_header="") as server, connected(server) as client:
        assert (await client.get()).all(b"server") == []


async def test_early_hints():
    async def app(scope, receive, send):
        await send({"type": "http.response.early_hint", "links": [b"</a.css>; rel=preload"]})
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.early_hint", "links": [b"</b>", b"</c>"]})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        await send({"type": "http.response.early_hint", "links": [b"</late>"]})
        await send({"type": "http.response.body"})

    async with serving(app) as server, connected(server) as client:
        await client.send(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
        first = await client.read_head()
        assert (first.status, first.headers) == (103, [(b"link", b"</a.css>; rel=preload")])
        second = await client.read_head()
        assert (second.status, second.all(b"link")) == (103, [b"</b>", b"</c>"])
        assert (await client.read_response()).body == b"x"
    async with serving(app) as server, connected(server) as client:
        assert (await client.request(b"GET / HTTP/1.0\r\n\r\n")).status == 200


async def test_an_application_that_streams_to_a_client_that_reads_nothing_is_stopped():
    sent = 0

    async def behave(scope, receive, send):
        nonlocal sent
        await send({"type": "http.response.start", "status": 200})
        for _ in range(200 * 16):
            await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
            sent += 65536

    app = Recorded(behave)
    async with serving(app) as server, connected(server, receive_buffer=65536) as client:
        client.writer.transport.pause_reading()
        await client.send(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
        await until(lambda: sent)
        connection = connection_of(server)
        await until(lambda: connection._outbox.paused and connection._exchange._started)
        held = connection._transport.get_write_buffer_size() + len(connection._outbox._control)
        assert held < MEGABYTE
        # What the kernel took is not ours to bound; the rest of 200 MB is.
        assert sent < 20 * MEGABYTE
        assert not app.ended.is_set()
        client.reset()
        await app.ended.wait()
    assert isinstance(app.error, ClientDisconnected)


async def test_a_slow_reader_gets_all_of_it():
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200})
        for number in range(256):
            part = bytes([number]) * 65536
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body"})

    async with serving(app) as server, connected(server, receive_buffer=65536) as client:
        response = await client.get()
        assert response.body == b"".join(bytes([number]) * 65536 for number in range(256))


async def test_a_long_response_reaches_a_slow_reader_although_the_connection_closes():
    body = bytes(range(256)) * 4096 * 8

    async def app(scope, receive, send):
        await respond(send, body[:MEGABYTE])
        await receive()

    async def parts(scope, receive, send):
        headers = [(b"content-length", b"%d" % len(body)), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body[:-1], "more_body": True})
        await send({"type": "http.response.body", "body": body[-1:]})

    async def check(application, expected):
        async with (
            serving(application) as server,
            connected(server, receive_buffer=65536) as client,
        ):
            await client.send(b"GET / HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")
            await client.read_head()
            connection = connection_of(server)
            await until(lambda: connection._lingering or connection._outbox.paused)
            # However often the server looks: as long as the client takes something, it waits.
            got = b""
            now = asyncio.get_running_loop().time()
            while len(got) < len(expected):
                got += await client.read(min(len(expected) // 4, len(expected) - len(got)))
                for _ in range(20):
                    await asyncio.sleep(0)
                now += 61
                if not connection._transport.is_closing() and connection._outbox.paused:
                    connection.expire(now)
            assert got == expected
            assert await client.read_to_end() == b""

    await check(app, body[:MEGABYTE])
    await check(parts, body)


async def test_a_client_that_takes_no_response_gets_no_further_ones():
    async def app(scope, receive, send):
        await respond(send, scope["path"].encode() + b"x" * MEGABYTE)

    count = 100
    requests = b"".join(b"GET /%02d HTTP/1.1\r\nHost: here\r\n\r\n" % n for n in range(count - 1))
    requests += b"GET /99 HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n"
    async with (
        serving(app, http=Http1Limits(keep_alive_s=0.1)) as server,
        connected(server, receive_buffer=65536) as client,
    ):
        client.writer.transport.pause_reading()
        await client.send(requests)
        await until(lambda: server.counters.requests)
        connection = connection_of(server)
        await until(lambda: connection._outbox.paused and connection._exchange is None)
        for _ in range(100):
            await asyncio.sleep(0)
        held = connection._transport.get_write_buffer_size() + len(connection._outbox._control)
        assert held < 3 * MEGABYTE
        assert server.counters.requests < 30  # what the kernel takes is a matter of its own
        # It is busy taking its response, not idle.
        now = asyncio.get_running_loop().time()
        assert connection.expire(now + 1) == connection._write_by
        client.writer.transport.resume_reading()
        for number in range(count):
            response = await client.read_response()
            assert response.body[:3] == b"/%02d" % number
            assert len(response.body) == MEGABYTE + 3
        assert await client.read_to_end() == b""


async def test_a_client_that_takes_nothing_is_cut_off(caplog):
    caplog.set_level(logging.INFO, "headrace.server")

    async def behave(scope, receive, send):
        await send({"type": "http.response.start", "status": 200})
        while True:
            await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})

    app = Recorded(behave)
    async with (
        serving(app, write_timeout_s=0.3) as server,
        connected(server, receive_buffer=65536) as client,
    ):
        client.writer.transport.pause_reading()
        await client.send(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
        await app.ended.wait()
    assert isinstance(app.error, ClientDisconnected)
    assert "the client has taken nothing for 0.3 s" in caplog.text


async def test_a_client_that_takes_nothing_of_the_end_is_cut_off():
    async def app(scope, receive, send):
        await respond(send, b"x" * 32 * MEGABYTE, headers=[(b"connection", b"close")])

    async with (
        serving(app, write_timeout_s=0.3) as server,
        connected(server, receive_buffer=65536) as client,
    ):
        client.writer.transport.pause_reading()
        await client.send(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
        await until(lambda: server.counters.requests)
        await until(lambda: not server._runtime.connections)


async def test_what_is_cancelled_before_it_begins_is_not_waited_for():
    async def app(scope, receive, send):
        await respond(send, b"late")

    async with serving(app) as server:
        runtime = server._runtime
        # A task that the loop has not begun never gets to its own last act.
        task = runtime.run(app({}, None, None), number=1)
        runtime.cancel(task)
        await until(lambda: not runtime.tasks)
        assert task.cancelled()


async def test_an_application_that_never_waits_leaves_room_for_others():
    stop = False

    async def app(scope, receive, send):
        if scope["path"] == "/short":
            await respond(send, b"short")
            return
        await send({"type": "http.response.start", "status": 200})
        while not stop:
            await send({"type": "http.response.body", "body": b"x" * 1024, "more_body": True})
        await send({"type": "http.response.body"})

    async with serving(app) as server, connected(server) as greedy, connected(server) as other:
        await greedy.send(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
        reader = asyncio.create_task(greedy.read_response())
        for _ in range(5):
            assert (await other.get("/short")).body == b"short"
        stop = True
        await reader


# The application's mistakes


@pytest.fixture
def errors(caplog):
    caplog.set_level(logging.INFO, "headrace")
    return caplog


async def test_an_application_that_raises_is_answered_for_at_once(errors):
    async def app(scope, receive, send):
        raise ZeroDivisionError("by design")

    async with serving(app) as server, connected(server) as client:
        response = await client.get("/some/path")
        assert response.status == 500
        assert response[b"content-type"] == b"text/plain; charset=utf-8"
        assert b"design" not in response.body
        assert await client.read_to_end() == b""
        peer = "{}:{}".format(*client.sock.getsockname())
        assert server.counters.application_errors == 1
    assert f"{peer}: the application raised ZeroDivisionError on GET /some/path" in errors.text
    assert "by design" in errors.text
    assert "Traceback" in errors.text


async def test_an_application_that_raises_before_its_body_is_answered_for():
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200})
        raise ZeroDivisionError

    async with serving(app) as server, connected(server) as client:
        assert (await client.get()).status == 500


async def test_a_response_that_breaks_off_is_seen_to_be_broken():
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"part", "more_body": True})
        raise ZeroDivisionError

    async with serving(app) as server, connected(server) as client:
        await client.send(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
        assert (await client.read_head()).status == 200
        assert await client.read_to_end() == b"4\r\npart\r\n"


@pytest.mark.parametrize("started", [False, True])
async def test_an_application_that_returns_too_early_is_answered_for(errors, started):
    async def app(scope, receive, send):
        if started:
            await send({"type": "http.response.start", "status": 200})

    async with serving(app) as server, connected(server) as client:
        assert (await client.get()).status == 500
    assert "the application returned without a complete response to GET /" in errors.text


async def test_sys_exit_in_an_application_ends_no_server(errors):
    async def app(scope, receive, send):
        if scope["path"] == "/exit":
            raise SystemExit(3)
        await respond(send)

    async with serving(app) as server, connected(server) as client:
        assert (await client.get("/exit")).status == 500
        async with connected(server) as other:
            assert (await other.get()).status == 200
    assert "raised SystemExit" in errors.text


async def test_an_application_that_cancels_itself_is_answered_for(errors):
    async def app(scope, receive, send):
        asyncio.current_task().cancel()
        await asyncio.sleep(0)

    async with serving(app) as server, connected(server) as client:
        assert (await client.get()).status == 500
    assert "the application was cancelled, on GET /" in errors.text


class NoSuchPath(ValueError):
    status = 404


class UpstreamError(Exception):
    def __init__(self):
        self.status = 404


async def test_an_exception_of_a_class_with_a_status_is_the_clients_mistake(errors):
    async def app(scope, receive, send):
        raise NoSuchPath("nothing at\n" + scope["path"] + "!" * 1000)

    async with serving(app) as server, connected(server) as client:
        response = await client.get("/x%0Ay")
        assert response.status == 404
        assert response.body.startswith(b"nothing at\\n/x\\ny!!!")
        assert len(response.body) < 600
        assert server.counters.application_errors == 0
    [record] = [r for r in errors.records if r.name == "headrace.server" and "refused" in r.msg]
    assert record.exc_info is None
    assert "\n" not in record.getMessage()


async def test_the_status_of_somebody_elses_answer_is_not_ours(errors):
    async def app(scope, receive, send):
        raise UpstreamError

    async with serving(app) as server, connected(server) as client:
        assert (await client.get()).status == 500
    assert "Traceback" in errors.text


START = {"type": "http.response.start", "status": 200}
BODY = {"type": "http.response.body", "body": b"x"}


@pytest.mark.parametrize(
    ("messages", "says"),
    [
        ([BODY], "state=WAITING, expected http.response.start"),
        ([START, START], "state=STARTED, expected http.response.body"),
        ([START, BODY, BODY], "state=COMPLETE, expected nothing more"),
        ([{"type": "http.response.trailers"}], "state=WAITING"),
        ([{"type": "websocket.accept"}], "cannot send 'websocket.accept'"),
        ([{}], "a dict with a 'type'"),
        (["http.response.start"], "a dict with a 'type'"),
        ([{"type": 3}], "'type' of an ASGI message is a str"),
        ([{"type": "http.response.start"}], "an int as its status"),
        ([{"type": "http.response.start", "status": 99}], "status"),
        ([{**START, "headers": [b"abc"]}], "a header is a pair of bytes"),
        ([{**START, "headers": [("a", "b")]}], "header name and value are bytes"),
        ([{**START, "headers": [3]}], "a header is a pair of bytes"),
        ([{**START, "headers": [(b"a b", b"c")]}], "not a token"),
        ([{**START, "headers": [(b"a", b"b\r\nc: d")]}], "control character"),
        ([{**START, "headers": [(b"content-length", b"2")]}, BODY], "content-length=2, sent=1"),
        ([START, {**BODY, "body": "text"}], "a body is bytes, not str"),
    ],
)
async def test_what_may_not_be_sent_is_refused_to_the_application(messages, says):
    async def behave(scope, receive, send):
        for message in messages:
            await send(message)

    app = Recorded(behave)
    async with serving(app) as server, connected(server) as client:
        response = await client.get()
        assert response.status == (200 if "COMPLETE" in says else 500)
        await app.ended.wait()
    assert isinstance(app.error, LocalProtocolError)
    assert says in str(app.error)


async def test_an_application_may_go_on_after_a_refused_message():
    async def app(scope, receive, send):
        with pytest.raises(LocalProtocolError):
            await send({**START, "headers": [(b"bad name", b"")]})
        await respond(send, b"fine")

    async with serving(app) as server, connected(server) as client:
        assert (await client.get()).body == b"fine"


async def test_two_tasks_must_not_read_one_request():
    async def behave(scope, receive, send):
        await receive()
        async with asyncio.TaskGroup() as group:
            group.create_task(receive())
            group.create_task(receive())

    app = Recorded(behave)
    async with serving(app) as server, connected(server) as client:
        assert (await client.get()).status == 500
    assert isinstance(app.error, ExceptionGroup)
    assert "one task at a time" in str(app.error.exceptions[0])


# A client that leaves


@pytest.fixture
def half_closed(monkeypatch):
    monkeypatch.setattr("headrace.server.connection.HALF_CLOSED_S", 0.2)


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_an_application_that_waits_hears_of_a_client_that_left(how, errors, half_closed):
    heard = []

    async def behave(scope, receive, send):
        assert (await receive())["type"] == "http.request"
        heard.append("request")
        heard.append(await receive())
        heard.append(await receive())
        await send(START)

    app = Recorded(behave)
    async with serving(app) as server, connected(server) as client:
        await client.send(b"GET /long HTTP/1.1\r\nHost: here\r\n\r\n")
        await until(lambda: heard)
        if how == "reset":
            client.reset()
        else:
            await client.close()
        await app.ended.wait()
    assert heard[1:] == [{"type": "http.disconnect"}, {"type": "http.disconnect"}]
    assert isinstance(app.error, OSError)
    assert "the client is gone" in str(app.error)
    # It is no error: nobody is to be told.
    assert all(record.levelno <= logging.INFO for record in errors.records)
    assert '"GET /long HTTP/1.1" 499' in errors.text


async def test_a_framework_may_put_its_own_error_in_the_place_of_ours(errors):
    class Left(Exception):
        pass

    async def app(scope, receive, send):
        await receive()
        await receive()
        if scope["path"] == "/bug":
            raise ZeroDivisionError
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(send(START))
                group.create_task(send(START))
        except ExceptionGroup as error:
            raise Left from error

    async with serving(app) as server:
        for path in ("/", "/bug"):
            async with connected(server) as client:
                await client.send(f"GET {path} HTTP/1.1\r\nHost: here\r\n\r\n".encode())
                await until(lambda: runtime_of(server).tasks)
                client.reset()
                await until(lambda: not runtime_of(server).tasks)
        assert server.counters.application_errors == 1
    assert "raised ZeroDivisionError on GET /bug" in errors.text
    assert "Left" not in errors.text


async def test_a_client_that_leaves_inside_its_body_is_heard_of():
    heard = []

    async def behave(scope, receive, send):
        while not heard or heard[-1]["type"] == "http.request":
            heard.append(await receive())

    app = Recorded(behave)
    async with serving(app) as server, connected(server) as client:
        await client.send(b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 9\r\n\r\nabc")
        await until(lambda: heard)
        client.reset()
        await app.ended.wait()
    assert heard == [
        {"type": "http.request", "body": b"abc", "more_body": True},
        {"type": "http.disconnect"},
    ]


async def test_a_client_that_ended_its_side_still_gets_its_answers():
    gate = asyncio.Event()

    async def app(scope, receive, send):
        await gate.wait()
        await respond(send, scope["path"].encode())

    async with serving(app) as server, connected(server) as client:
        await client.send(b"GET /1 HTTP/1.1\r\nHost: here\r\n\r\n")
        await client.send(b"GET /2 HTTP/1.1\r\nHost: here\r\n\r\n")
        client.end()
        await until(lambda: server.counters.requests)
        await until(
            lambda: connection_of(server)._heard_all or connection_of(server)._reading_paused
        )
        gate.set()
        assert (await client.read_response()).body == b"/1"
        assert (await client.read_response()).body == b"/2"
        assert await client.read_to_end() == b""


async def test_a_stream_to_a_client_that_ended_its_side_goes_on(half_closed):
    gate = asyncio.Event()

    async def app(scope, receive, send):
        await send(START)
        while not gate.is_set():
            await send({**BODY, "more_body": True})
            await asyncio.sleep(0.05)
        await send({"type": "http.response.body"})

    async with serving(app) as server, connected(server) as client:
        await client.send(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
        client.end()
        await until(lambda: server.counters.requests)
        connection = connection_of(server)
        await until(lambda: connection._gone_by)
        seen = connection._gone_by
        await until(lambda: connection._gone_by != seen)
        gate.set()
        assert set((await client.read_response()).body) == {ord("x")}


async def test_a_body_that_ends_too_early_is_told_so():
    heard = []

    async def app(scope, receive, send):
        while not heard or heard[-1]["type"] == "http.request":
            heard.append(await receive())

    async with serving(app) as server, connected(server) as client:
        await client.send(b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 9\r\n\r\nabc")
        client.end()
        response = await client.read_response()
        assert response.status == 400
        assert b"ended inside the body" in response.body
    assert heard[-1] == {"type": "http.disconnect"}


# Requests that are refused


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET  / HTTP/1.1\r\nHost: here\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"GET / HTTP/1.1\r\nHost: here\r\nA: \x0b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: here\r\nContent-Length: +5\r\n\r\n", 400),
        (b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: here\r\n" + b"a: b\r\n" * 101 + b"\r\n", 431),
        (b"POST / HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
        (b"GET / HTTP/1.1\r\nHost: here\r\nExpect: tea\r\n\r\n", 417),
    ],
)
async def test_a_request_that_can_not_be_served_gets_a_plain_answer(request_bytes, status, errors):
    app = Recorded(hello)
    async with serving(app) as server, connected(server) as client:
        response = await client.request(request_bytes)
        assert response.status == status
        assert response[b"content-type"] == b"text/plain; charset=utf-8"
        assert response[b"server"] == b"headrace"
        assert response.body.endswith(b"\n")
        assert await client.read_to_end() == b""
        assert server.counters.refused == 1
    assert app.scopes == []
    assert f"refused with {status}" in errors.text
    assert "Traceback" not in errors.text


@pytest.mark.parametrize("framing", [b"Content-Length: 10000000", b"Transfer-Encoding: chunked"])
async def test_a_client_that_uploads_too_much_sees_the_413(framing):
    app = Recorded(echo)
    limits = Http1Limits(body_bytes=100_000)
    async with serving(app, http=limits) as server, connected(server) as client:
        client.writer.write(b"POST / HTTP/1.1\r\nHost: here\r\n" + framing + b"\r\n\r\n")
        # More than the kernel holds: it arrives only if somebody goes on reading.
        client.writer.write((b"8000\r\n" + b"x" * 0x8000 + b"\r\n") * 400)
        response = await client.read_response()
        assert response.status == 413
        assert response[b"connection"] == b"close"
        assert await client.read_to_end() == b""
    if framing.startswith(b"T"):
        assert isinstance(app.error, AssertionError)  # http.disconnect instead of the rest


@pytest.mark.parametrize(
    ("sent", "what"),
    [
        (b"GET / HTTP/1.1\r\nHost: he", b"head"),
        (b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 9\r\n\r\nabc", b"body"),
    ],
)
async def test_a_request_that_takes_too_long_gets_408(sent, what):
    limits = Http1Limits(head_s=0.2, body_idle_s=0.2, body_grace_s=0.2)
    async with serving(echo, http=limits) as server, connected(server) as client:
        response = await client.request(sent)
        assert response.status == 408
        assert what in response.body


async def test_a_body_that_trickles_gets_408():
    limits = Http1Limits(body_idle_s=10, body_grace_s=0.3, body_rate_bytes=1000)

    async def trickle(client):
        while True:
            await client.send(b"x")
            await asyncio.sleep(0.02)

    async with serving(echo, http=limits) as server, connected(server) as client:
        await client.send(b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 900\r\n\r\n")
        sender = asyncio.create_task(trickle(client))
        assert (await client.read_response()).status == 408
        sender.cancel()
        await asyncio.wait([sender])


async def test_a_body_that_waits_for_us_is_not_too_slow():
    gate = asyncio.Event()
    limits = Http1Limits(body_idle_s=0.2, body_grace_s=0.2)
    looks = []

    async def app(scope, receive, send):
        await gate.wait()
        await echo(scope, receive, send)

    body = b"x" * MEGABYTE
    async with serving(app, http=limits) as server, connected(server) as client:
        head = b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: %d\r\n\r\n" % len(body)
        client.writer.write(head + body)
        await until(lambda: server.counters.requests)
        connection = connection_of(server)
        await until(lambda: connection._reading_paused)
        looks = connection.expire(asyncio.get_running_loop().time() + 100)
        assert looks is None
        gate.set()
        response = await client.read_response()
        assert response.body == body
        # And from here on the clock runs again.
        await client.send(b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 9\r\n\r\nabc")
        assert (await client.read_response()).status == 408


async def test_a_stalled_body_is_noticed_after_a_pause_of_ours():
    limits = Http1Limits(body_idle_s=0.2, body_grace_s=30, keep_alive_s=30)
    gate = asyncio.Event()

    async def app(scope, receive, send):
        await gate.wait()
        while (await receive())["type"] == "http.request":
            pass

    async with serving(app, http=limits) as server, connected(server) as client:
        client.writer.write(
            b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 900000\r\n\r\n" + b"x" * 800_000
        )
        await until(lambda: server.counters.requests)
        await until(lambda: connection_of(server)._reading_paused)
        gate.set()
        assert (await client.read_response()).status == 408


# The access log


async def test_the_access_log_has_a_short_printable_line_for_each_request(caplog):
    caplog.set_level(logging.INFO, "headrace.access")
    async with serving(hello) as server, connected(server) as client:
        await client.get("/a%0Ab?c=d")
        await client.request(
            b"HEAD /" + b"y" * 5000 + b" HTTP/1.1\r\nHost: here\r\n\r\n", bodiless=True
        )
        peer = "{}:{}".format(*client.sock.getsockname())
    first, second = [record.getMessage() for record in caplog.records]
    assert first.startswith(f'{peer} "GET /a%0Ab?c=d HTTP/1.1" 200 ')
    assert first.endswith(" ms")
    assert len(second) < 700
    assert all(line.isascii() and line.isprintable() for line in (first, second))


async def test_the_access_log_can_be_off(caplog):
    caplog.set_level(logging.INFO, "headrace.access")
    async with serving(hello, access_log=False) as server, connected(server) as client:
        await client.get()
    assert caplog.records == []
    caplog.set_level(logging.WARNING, "headrace.access")
    async with serving(hello) as server, connected(server) as client:
        await client.get()
    assert caplog.records == []


async def test_an_error_is_logged_with_the_target_as_it_was_sent(errors):
    async def app(scope, receive, send):
        raise ZeroDivisionError

    async with serving(app) as server, connected(server) as client:
        await client.get("/a%0Ainjected")
    [record] = [record for record in errors.records if record.exc_info]
    assert "\n" not in record.getMessage()
    assert "/a%0Ainjected" in record.getMessage()
