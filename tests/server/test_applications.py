"""Frameworks on our server; our consumers on our server and on another."""

import asyncio
import contextlib
import hashlib
import json

import pytest
import websockets
from django.core.asgi import get_asgi_application
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocketDisconnect
from websockets.exceptions import ConnectionClosedError, ConnectionClosedOK, InvalidStatus

from headrace.generic.websocket import (
    AsyncJsonWebsocketConsumer,
    AsyncWebsocketConsumer,
    JsonWebsocketConsumer,
    WebsocketConsumer,
)
from headrace.layers import channel_layers, get_channel_layer
from headrace.layers.memory import InMemoryChannelLayer
from tests.foreign import uvicorn_serves

from . import django_site
from .clients import connected, runtime_of, serving, until

# Django


@pytest.fixture
def site(settings):
    settings.ROOT_URLCONF = "tests.server.django_site"
    settings.MIDDLEWARE = []
    django_site.events.clear()
    return get_asgi_application()


def request(target, method="GET", *headers, body=b""):
    lines = [f"{method} {target} HTTP/1.1", "Host: 127.0.0.1", *headers]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


async def test_django_views(site):
    async with serving(site, root_path="/mounted") as server, connected(server) as client:
        response = await client.request(request("/plain/?q=%C3%BC"))
        assert json.loads(response.body) == {
            "path": "/mounted/plain/",
            "query": "ü",
            "host": "127.0.0.1",
        }
        response = await client.request(request("/async/"))
        assert (response.body, response[b"x-view"]) == (b"async GET", b"async")
        response = await client.request(request("/async/", "HEAD"), bodiless=True)
        assert response[b"content-length"] == b"10"
        response = await client.request(request("/stream/"))
        assert response.body == b"".join(b"%d\n" % n * 100 for n in range(100))
        assert (await client.request(request("/nowhere/"))).status == 404


async def test_django_takes_an_upload(site):
    content = bytes(range(256)) * 16384
    body = (
        b'--b\r\nContent-Disposition: form-data; name="title"\r\n\r\nphotos\r\n'
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.bin"\r\n\r\n'
        + content
        + b"\r\n--b--\r\n"
    )
    async with serving(site) as server, connected(server) as client:
        head = "Content-Type: multipart/form-data; boundary=b"
        response = await client.request(request("/upload/", "POST", head, body=body))
        assert json.loads(response.body) == {
            "name": "a.bin",
            "title": "photos",
            "sha256": hashlib.sha256(content).hexdigest(),
        }


async def test_a_view_of_django_that_fails(site, caplog):
    async with serving(site) as server, connected(server) as client:
        assert (await client.request(request("/broken/"))).status == 500
        assert (await client.request(request("/async/"))).status == 200


async def test_django_hears_of_a_client_that_left(site):
    async with serving(site) as server:
        async with connected(server) as client:
            await client.send(request("/wait/"))
            await until(lambda: django_site.events)
            client.reset()
            await until(lambda: "cancelled" in django_site.events)
        async with connected(server) as client:
            await client.send(request("/endless/"))
            assert (await client.read_head()).status == 200
            client.reset()
            await until(lambda: "stream closed" in django_site.events)


# Starlette


async def test_starlette():
    done = asyncio.Event()
    closed = []

    async def page(request):
        return PlainTextResponse(request.path_params["name"], background=BackgroundTask(done.set))

    async def endless(request):
        async def ticks():
            while True:
                yield b"tick"
                await asyncio.sleep(0.005)

        return StreamingResponse(ticks())

    async def talk(websocket):
        await websocket.accept(subprotocol="talk")
        try:
            while True:
                await websocket.send_json({"echo": await websocket.receive_text()})
        except WebSocketDisconnect as left:
            closed.append((left.code, left.reason))

    @contextlib.asynccontextmanager
    async def lifespan(app):
        yield {"greeting": "hello"}

    async def greet(request):
        return PlainTextResponse(request.state.greeting)

    app = Starlette(
        routes=[
            Route("/page/{name}", page),
            Route("/endless", endless),
            Route("/greet", greet),
            WebSocketRoute("/talk", talk),
        ],
        lifespan=lifespan,
    )
    async with serving(app, lifespan="on") as server:
        async with connected(server) as client:
            assert (await client.get("/page/one")).body == b"one"
            await done.wait()
            assert (await client.get("/greet")).body == b"hello"
            assert (await client.get("/nowhere")).status == 404
            await client.send(request("/endless"))
            await client.read_head()
            assert runtime_of(server).tasks
            client.reset()
            await until(lambda: not runtime_of(server).tasks)
            # It ends with an exception of its own, which is no error all the same.
            assert server.counters.application_errors == 0
        address = f"ws://127.0.0.1:{server.port}"
        async with websockets.connect(f"{address}/talk", subprotocols=["talk"]) as client:
            assert client.subprotocol == "talk"
            await client.send("hi")
            assert json.loads(await client.recv()) == {"echo": "hi"}
            await client.close(4000, "enough")
        await until(lambda: closed)
        assert closed == [(4000, "enough")]
        with pytest.raises(InvalidStatus) as refused:
            await websockets.connect(f"{address}/nowhere")
        assert refused.value.response.status_code == 403


# Our consumers, here and there


@contextlib.asynccontextmanager
async def headrace_serves(application):
    async with serving(application) as server:
        yield server.port


@pytest.fixture(params=[headrace_serves, uvicorn_serves])
def served(request):
    """A function that serves a consumer on one of the two servers: an address to connect to."""

    @contextlib.asynccontextmanager
    async def serve(consumer):
        async with request.param(consumer.as_asgi()) as port:
            yield f"ws://127.0.0.1:{port}/"

    return serve


@pytest.fixture(autouse=True)
def layer():
    """A channel layer of this test's own."""
    before = channel_layers.set("default", InMemoryChannelLayer())
    yield
    channel_layers.set("default", before)


async def test_a_consumer_echoes(served):
    class Echo(AsyncWebsocketConsumer):
        async def connect(self):
            await self.accept(subprotocol="echo", headers=[(b"x-consumer", b"yes")])

        async def receive(self, text_data=None, bytes_data=None):
            await self.send(text_data, bytes_data)

    async with (
        served(Echo) as address,
        websockets.connect(address, subprotocols=["other", "echo"]) as client,
    ):
        assert client.subprotocol == "echo"
        assert client.response.headers["x-consumer"] == "yes"
        for message in ("text", b"bytes", "x" * 100_000):
            await client.send(message)
            assert await client.recv() == message


@pytest.mark.parametrize("base", [AsyncJsonWebsocketConsumer, JsonWebsocketConsumer])
async def test_a_consumer_speaks_json(served, base):
    if base is AsyncJsonWebsocketConsumer:

        class Consumer(base):
            async def receive_json(self, content):
                await self.send_json({"got": content}, close=content == "last")

    else:

        class Consumer(base):
            def receive_json(self, content):
                self.send_json({"got": content}, close=content == "last")

    async with served(Consumer) as address, websockets.connect(address) as client:
        for content in ([1, 2], "last"):
            await client.send(json.dumps(content))
            assert json.loads(await client.recv()) == {"got": content}
        with pytest.raises(ConnectionClosedOK):
            await client.recv()


@pytest.mark.parametrize("base", [AsyncWebsocketConsumer, WebsocketConsumer])
async def test_a_consumer_refuses(served, base):
    if base is AsyncWebsocketConsumer:

        class Consumer(base):
            async def connect(self):
                await self.close()

    else:

        class Consumer(base):
            def connect(self):
                self.close()

    async with served(Consumer) as address:
        with pytest.raises(InvalidStatus) as refused:
            await websockets.connect(address)
        assert refused.value.response.status_code == 403


async def test_a_consumer_hears_why_it_ended(served):
    codes = []

    class Consumer(AsyncWebsocketConsumer):
        async def receive(self, text_data=None, bytes_data=None):
            await self.close(4321, "as you wish")

        async def disconnect(self, code):
            codes.append(code)

    async with served(Consumer) as address:
        async with websockets.connect(address) as client:
            await client.close(4000)
        await until(lambda: codes == [4000])
        async with websockets.connect(address) as client:
            await client.send("close")
            with pytest.raises(ConnectionClosedError) as closed:
                await client.recv()
            assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4321, "as you wish")
        await until(lambda: len(codes) == 2)


async def test_a_consumer_that_raises(served, caplog):
    codes = []

    class Consumer(AsyncWebsocketConsumer):
        async def receive(self, text_data=None, bytes_data=None):
            raise ZeroDivisionError

        async def disconnect(self, code):
            codes.append(code)

    async with served(Consumer) as address, websockets.connect(address) as client:
        await client.send("x")
        with pytest.raises(ConnectionClosedError) as closed:
            await client.recv()
        assert closed.value.rcvd.code == 1011
        assert codes == [1011]
    assert "ZeroDivisionError" in caplog.text


async def test_a_group_by_both_lanes(served):
    class Consumer(AsyncWebsocketConsumer):
        groups = ("room",)

        async def chat_message(self, event):
            await self.send(text_data="handled " + event["text"])

    async with (
        served(Consumer) as address,
        websockets.connect(address) as one,
        websockets.connect(address) as two,
    ):
        layer = get_channel_layer()
        for client in (one, two):
            # Whoever answers a ping has been accepted, and is in its groups.
            await (await client.ping())
        await layer.group_send("room", {"type": "websocket.send", "text": "straight"})
        await layer.group_send("room", {"type": "chat.message", "text": "by hand"})
        for client in (one, two):
            # The lanes promise no order between them.
            received = {await client.recv(), await client.recv()}
            assert received == {"straight", "handled by hand"}
        await layer.group_send("room", {"type": "websocket.close", "code": 4004})
        for client in (one, two):
            with pytest.raises(ConnectionClosedError) as closed:
                await client.recv()
            assert closed.value.rcvd.code == 4004


async def test_a_consumer_of_ordinary_functions_in_a_group(served):
    class Consumer(WebsocketConsumer):
        groups = ("room",)

        def receive(self, text_data=None, bytes_data=None):
            self.send(text_data=text_data.upper())

        def chat_message(self, event):
            self.send(text_data=event["text"])

    async with served(Consumer) as address, websockets.connect(address) as client:
        await client.send("abc")
        assert await client.recv() == "ABC"
        await get_channel_layer().group_send("room", {"type": "chat.message", "text": "hello"})
        assert await client.recv() == "hello"
