"""What passed for one request or one WebSocket: held to what a client has sent and read."""

import asyncio

import pytest

from tests.documented import documented

from .clients import connected, handshake, respond, serving


class Account:
    """An application that asks for the account of each connection, and answers by another."""

    def __init__(self, application):
        self.application = application
        self.traffic = []
        self.extensions = []

    async def __call__(self, scope, receive, send):
        behind = scope["extensions"]["headrace"]["traffic"]
        self.traffic.append(behind(receive, send))
        assert behind(receive, send) is self.traffic[-1]
        await self.application(scope, receive, send)


async def whole(scope, receive, send):
    while (await receive()).get("more_body"):
        pass
    await respond(send, b"x" * 1000)


async def in_parts(scope, receive, send):
    await send({"type": "http.response.start", "status": 200})
    for more in (True, True, False):
        await send({"type": "http.response.body", "body": b"part", "more_body": more})


async def failing(scope, receive, send):
    raise ValueError("on purpose")


def head_of(response):
    lines = b"".join(name + b": " + value + b"\r\n" for name, value in response.headers)
    return f"HTTP/1.1 {response.status} {response.reason}\r\n".encode() + lines + b"\r\n"


async def test_each_request_of_a_connection_has_its_own():
    app = Account(whole)
    requests = [
        b"GET / HTTP/1.1\r\nHost: here\r\nCookie: " + b"c" * 500 + b"\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 4\r\n\r\nbody",
        (
            b"POST / HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"4\r\nbody\r\n0\r\n\r\n"
        ),
        b"GET /again HTTP/1.1\r\nHost: here\r\n\r\n",
    ]
    async with serving(app) as server, connected(server) as client:
        for request in requests:
            response = await client.request(request)
            assert app.traffic[-1].received_bytes == len(request)
            assert app.traffic[-1].sent_bytes == len(head_of(response)) + 1000
    assert [each.received_bytes for each in app.traffic] == list(map(len, requests))
    assert app.traffic[0].extensions == ""


async def test_requests_in_one_packet_are_told_apart():
    app = Account(whole)
    first = b"GET / HTTP/1.1\r\nHost: here\r\nX: one\r\n\r\n"
    second = b"GET / HTTP/1.1\r\nHost: here\r\nX: another\r\n\r\n"
    async with serving(app) as server, connected(server) as client:
        await client.request(first + second)
        await client.read_response()
    assert [each.received_bytes for each in app.traffic] == [len(first), len(second)]


async def test_chunks_are_counted_as_they_are_framed():
    app = Account(in_parts)
    async with serving(app) as server, connected(server) as client:
        response = await client.get()
        assert app.traffic[0].sent_bytes == len(head_of(response)) + 3 * 9 + 5


async def test_what_the_server_answers_for_an_application_counts(caplog):
    app = Account(failing)
    async with serving(app) as server, connected(server) as client:
        response = await client.get()
        assert app.traffic[0].sent_bytes == len(head_of(response)) + len(response.body)
    assert "on purpose" in caplog.text


async def test_a_request_that_is_over_has_none():
    asked = []

    async def application(scope, receive, send):
        await whole(scope, receive, send)
        asked.append(scope["extensions"]["headrace"]["traffic"](receive, send))

    async with serving(application) as server, connected(server) as client:
        await client.get()
    assert asked == [None]


async def test_behind_a_middleware_there_is_none():
    asked = []

    async def application(scope, receive, send):
        async def other(message):
            await send(message)

        asked.append(scope["extensions"]["headrace"]["traffic"](receive, other))
        asked.append(scope["extensions"]["headrace"]["traffic"](other, send))
        await whole(scope, receive, send)

    async with serving(application) as server, connected(server) as client:
        await client.get()
    assert asked == [None, None]


async def test_a_response_without_an_end_learns_that_the_server_stops():
    asked = []

    async def stream(scope, receive, send):
        async def other(message):
            await send(message)

        draining = scope["extensions"]["headrace"]["draining"]
        await send({"type": "http.response.start", "status": 200})
        while not draining(receive, send):
            asked.append(draining(receive, other))
            await send({"type": "http.response.body", "body": b"more", "more_body": True})
            await asyncio.sleep(0.01)
        await send({"type": "http.response.body", "body": b"last"})

    async with serving(stream, shutdown_timeout_s=15) as server, connected(server) as client:
        await client.send(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
        await client.read_head()
        chunks = client.chunks()
        assert await anext(chunks) == b"more"
        stopping = asyncio.create_task(server.stop())
        assert [chunk async for chunk in chunks][-1] == b"last"
        await stopping
    assert set(asked) == {False}


async def test_a_websocket_learns_it_too():
    answers = []

    async def application(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        answers.append(scope["extensions"]["headrace"]["draining"](receive, send))
        await receive()
        answers.append(scope["extensions"]["headrace"]["draining"](receive, send))

    async with serving(application) as server, connected(server) as client:
        await client.open_websocket()
        await server.stop()
    assert answers == [False, True]


@pytest.mark.parametrize(
    ("offer", "agreed"),
    [
        ((), ""),
        (
            ("Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",),
            (
                "permessage-deflate; server_no_context_takeover; client_no_context_takeover; "
                "server_max_window_bits=12"
            ),
        ),
    ],
    ids=["plain", "deflate"],
)
async def test_a_websocket_has_its_handshake_and_its_frames(offer, agreed):
    steps = []

    async def echo(scope, receive, send):
        traffic = scope["extensions"]["headrace"]["traffic"](receive, send)
        await receive()
        steps.append((traffic.received_bytes, traffic.sent_bytes, traffic.extensions))
        await send({"type": "websocket.accept"})
        steps.append((traffic.received_bytes, traffic.sent_bytes, traffic.extensions))
        await send({"type": "websocket.send", "text": (await receive())["text"]})
        steps.append((traffic.received_bytes, traffic.sent_bytes, traffic.extensions))
        await receive()

    async with serving(echo) as server, connected(server) as client:
        response = await client.open_websocket("/", *offer)
        await client.send_text("abcd")
        await client.read_text()
    request, answer = len(handshake("/", *offer)), len(head_of(response))
    assert steps == [
        (request, 0, ""),
        (request, answer, agreed),
        (request + 10, answer + 6, agreed),
    ]
    assert dict(response.headers).get(b"sec-websocket-extensions", b"").decode() == agreed


async def test_the_middleware_that_the_documentation_shows():
    told = []
    counting = documented("observing.md").counting
    app = counting(whole, lambda *account: told.append(account))
    async with serving(app, lifespan="auto") as server, connected(server) as client:
        response = await client.get("/shown")
    assert told == [
        ("/shown", len(b"GET /shown HTTP/1.1\r\nHost: here\r\n\r\n"), len(head_of(response)) + 1000)
    ]
