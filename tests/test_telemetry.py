"""Spans, as the SDK's own exporter keeps them: for requests, for handlers, for sends."""

import asyncio
import os
import subprocess
import sys

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from headrace import telemetry
from headrace.consumer import AsyncConsumer, SyncConsumer
from headrace.exceptions import ConfigurationError
from headrace.generic.http import AsyncHttpConsumer
from headrace.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from headrace.layers import channel_layers, get_channel_layer
from tests.server.clients import connected, respond, serving

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
TRACEPARENT = f"traceparent: 00-{TRACE}-{PARENT}-01"


class Spans:
    def __init__(self, *, events=False):
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        tracer = self.provider.get_tracer("test")
        self.telemetry = telemetry.install(tracer, events=events)

    def all(self):
        return list(self.exporter.get_finished_spans())

    def named(self, name):
        return [span for span in self.all() if span.name == name]


@pytest.fixture(autouse=True)
def layers():
    channel_layers.backends = {}
    yield
    telemetry.uninstall()
    channel_layers.backends = {}


@pytest.fixture
def spans():
    spans = Spans()
    yield spans
    spans.provider.shutdown()


def hexadecimal(number, digits):
    return f"{number:0{digits}x}"


class Room(AsyncWebsocketConsumer):
    groups = ("room",)

    async def receive(self, text_data=None, bytes_data=None):
        if text_data == "fail":
            raise LookupError("on purpose")
        await self.channel_layer.group_send("room", {"type": "chat.message", "text": text_data})

    async def chat_message(self, event):
        assert set(event) == {"type", "text"}
        await self.send(event["text"])


class SyncRoom(WebsocketConsumer):
    def receive(self, text_data=None, bytes_data=None):
        self.send(text_data)


class Page(AsyncHttpConsumer):
    async def handle(self, body):
        await self.send_response(503, b"later")


class TestRequests:
    async def test_a_request_is_a_span(self, spans):
        async def application(scope, receive, send):
            await respond(send, status=404)

        async with serving(spans.telemetry.traced(application)) as server:
            port = server.port
            async with connected(server) as client:
                await client.get("/a/?b=1", TRACEPARENT, "User-Agent: test")
            [span] = spans.all()
        assert span.name == "GET"
        assert span.kind is SpanKind.SERVER
        assert hexadecimal(span.context.trace_id, 32) == TRACE
        assert hexadecimal(span.parent.span_id, 16) == PARENT
        attributes = dict(span.attributes)
        assert attributes["http.request.method"] == "GET"
        assert attributes["http.response.status_code"] == 404
        assert attributes["url.path"] == "/a/"
        assert attributes["url.scheme"] == "http"
        assert attributes["client.address"] == "127.0.0.1"
        assert attributes["server.port"] == port
        assert attributes["network.protocol.version"] == "1.1"
        assert attributes["user_agent.original"] == "test"
        assert attributes["headrace.connection"] == "0-1"
        assert span.status.status_code is StatusCode.UNSET

    async def test_a_failure(self, spans):
        async def application(scope, receive, send):
            raise LookupError("on purpose")

        app = spans.telemetry.traced(application)
        async with serving(app) as server, connected(server) as client:
            await client.request(b"PROPFIND / HTTP/1.1\r\nHost: here\r\n\r\n")
        [span] = spans.all()
        assert span.name == "HTTP"
        assert span.attributes["http.request.method"] == "_OTHER"
        assert span.status.status_code is StatusCode.ERROR
        assert span.events[0].name == "exception"

    async def test_a_consumer_is_inside_the_span_of_its_request(self, spans):
        app = spans.telemetry.traced(Page.as_asgi())
        async with serving(app) as server, connected(server) as client:
            assert (await client.get()).status == 503
        [request], [handler] = spans.named("GET"), spans.named("Page.http_request")
        assert handler.parent.span_id == request.context.span_id
        assert request.status.status_code is StatusCode.ERROR
        assert request.attributes["error.type"] == "503"
        assert handler.status.status_code is StatusCode.UNSET  # StopConsumer is no error

    def test_what_is_wrapped_can_be_found(self, spans):
        def application():
            pass

        assert spans.telemetry.traced(application).__wrapped__ is application


class TestWebSockets:
    async def test_handlers_are_linked_to_the_handshake(self, spans):
        app = spans.telemetry.traced(Room.as_asgi())
        async with serving(app) as server, connected(server) as client:
            await client.open_websocket("/rooms/1", TRACEPARENT)
            await client.send_text("hello")
            assert await client.read_text() == "hello"
            await client.send_close()
            await client.read_close()
        [handshake] = spans.named("Room.websocket_connect")
        assert hexadecimal(handshake.context.trace_id, 32) == TRACE
        assert hexadecimal(handshake.parent.span_id, 16) == PARENT
        assert handshake.kind is SpanKind.SERVER
        assert handshake.attributes["url.path"] == "/rooms/1"
        assert handshake.attributes["network.protocol.name"] == "websocket"
        assert handshake.attributes["headrace.connection"].startswith("0-")
        for name in ("Room.websocket_receive", "Room.chat_message", "Room.websocket_disconnect"):
            [span] = spans.named(name)
            [link] = span.links
            assert link.context.span_id == handshake.context.span_id
            assert span.parent is None
            assert span.context.trace_id != handshake.context.trace_id
            assert span.kind is SpanKind.CONSUMER
            assert span.status.status_code is StatusCode.UNSET

    async def test_a_send_is_inside_its_handler(self, spans):
        async with serving(Room.as_asgi()) as server, connected(server) as client:
            await client.open_websocket()
            await client.send_text("hello")
            await client.read_text()
        [handler], [sent] = spans.named("Room.websocket_receive"), spans.named("send chat.message")
        assert sent.parent.span_id == handler.context.span_id
        assert sent.kind is SpanKind.PRODUCER
        assert sent.attributes["headrace.group"] == "room"

    async def test_an_error_of_a_handler(self, spans):
        async with serving(Room.as_asgi()) as server, connected(server) as client:
            await client.open_websocket()
            await client.send_text("fail")
            await client.read_close()
        [span] = spans.named("Room.websocket_receive")
        assert span.status.status_code is StatusCode.ERROR
        assert span.attributes["error.type"] == "LookupError"
        assert span.events[0].name == "exception"

    async def test_synchronous_handlers(self, spans):
        async with serving(SyncRoom.as_asgi()) as server, connected(server) as client:
            await client.open_websocket()
            await client.send_text("hello")
            await client.read_text()
        assert spans.named("SyncRoom.websocket_connect")
        assert spans.named("SyncRoom.websocket_receive")

    async def test_the_lane_is_not_bypassed(self, spans):
        lanes = []

        async def application(scope, receive, send):
            lanes.append(scope["extensions"]["headrace"]["lane"](receive, send))
            await send({"type": "websocket.close"})

        app = spans.telemetry.traced(application)
        async with serving(app) as server, connected(server) as client:
            await client.send(
                b"GET / HTTP/1.1\r\nHost: here\r\nUpgrade: websocket\r\n"
                b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            )
            await client.read_response()
        assert lanes[0] is not None


class TestEvents:
    async def test_they_carry_the_trace_where_it_is_asked_for(self):
        spans = Spans(events=True)
        async with serving(Room.as_asgi()) as server, connected(server) as client:
            await client.open_websocket()
            await client.send_text("hello")
            assert await client.read_text() == "hello"  # the handler sees type and text alone
        [sent], [handler] = spans.named("send chat.message"), spans.named("Room.chat_message")
        assert handler.parent.span_id == sent.context.span_id
        assert handler.context.trace_id == sent.context.trace_id

    async def test_they_are_as_they_were_sent_otherwise(self, spans):
        layer = get_channel_layer()
        message = {"type": "something", "n": 1}
        await layer.send("here", message)
        assert await layer.receive("here") == {"type": "something", "n": 1}

    async def test_what_is_for_a_client_carries_nothing(self):
        Spans(events=True)
        layer = get_channel_layer()
        await layer.send("here", {"type": "websocket.send", "text": "x"})
        assert await layer.receive("here") == {"type": "websocket.send", "text": "x"}
        message = {"type": "something"}
        await layer.send("here", message)
        assert set(await layer.receive("here")) == {"type", telemetry.CARRIER}
        assert message == {"type": "something"}

    async def test_from_threads(self, spans):
        layer = get_channel_layer()
        await asyncio.to_thread(layer.send_sync, "here", {"type": "something"})
        [span] = spans.named("send something")
        assert span.attributes["headrace.channel"] == "here"

    async def test_a_layer_that_was_there_before(self):
        layer = get_channel_layer()
        spans = Spans()
        await layer.send("here", {"type": "something"})
        assert spans.named("send something")

    async def test_what_is_no_event_is_refused_as_ever(self, spans):
        layer = get_channel_layer()
        with pytest.raises(TypeError):
            await layer.send("here", "text")


class TestSwitch:
    def test_off_nothing_is_there(self):
        dispatches = AsyncConsumer.dispatch, SyncConsumer.dispatch
        layer = get_channel_layer()
        Spans()
        assert telemetry.installed() is not None
        assert AsyncConsumer.dispatch is not dispatches[0]
        assert "send" in vars(layer)
        telemetry.uninstall()
        assert telemetry.installed() is None
        assert (AsyncConsumer.dispatch, SyncConsumer.dispatch) == dispatches
        assert "send" not in vars(layer)
        telemetry.uninstall()

    def test_what_comes_later_is_wrapped_at_once(self, spans):
        seen = []
        telemetry.when_installed(seen.append)
        assert seen == [spans.telemetry]
        telemetry._waiting.remove(seen.append)

    def test_without_the_extra(self, monkeypatch):
        monkeypatch.setattr(telemetry, "find_spec", lambda name: None)
        with pytest.raises(ConfigurationError, match=r"pip install 'headrace\[otel\]'"):
            telemetry.install()

    @pytest.mark.parametrize(
        ("environ", "exporters"),
        [
            ({"OTEL_TRACES_EXPORTER": "none"}, []),
            ({"OTEL_TRACES_EXPORTER": "console"}, ["ConsoleSpanExporter"]),
            ({}, ["OTLPSpanExporter"]),
            ({"OTEL_TRACES_EXPORTER": "console,otlp"}, ["ConsoleSpanExporter", "OTLPSpanExporter"]),
        ],
    )
    def test_the_environment_says_where_they_go(self, environ, exporters):
        provider = telemetry._provider(environ)
        processors = provider._active_span_processor._span_processors
        assert [type(each.span_exporter).__name__ for each in processors] == exporters
        provider.shutdown()

    def test_an_exporter_that_is_not_there(self):
        with pytest.raises(ConfigurationError, match="'carrier-pigeon'"):
            telemetry._provider({"OTEL_TRACES_EXPORTER": "carrier-pigeon"})

    def test_off_opentelemetry_is_not_imported(self):
        code = (
            "import sys, django; from django.conf import settings; settings.configure();"
            "import headrace.consumer, headrace.layers, headrace.server.server, headrace.cli;"
            "assert not [name for name in sys.modules if name.startswith('opentelemetry')]"
        )
        subprocess.run([sys.executable, "-c", code], check=True)

    def test_the_command(self, tmp_path):
        """One request, by a server that ends itself, writes its span to the standard output."""
        (tmp_path / "traced_site.py").write_text(
            "import os, signal, urllib.request, threading\n"
            "async def application(scope, receive, send):\n"
            "    if scope['type'] == 'lifespan':\n"
            "        raise NotImplementedError\n"
            "    await send({'type': 'http.response.start', 'status': 200, 'headers': []})\n"
            "    await send({'type': 'http.response.body', 'body': b''})\n"
            "    os.kill(os.getpid(), signal.SIGTERM)\n"
        )
        command = [sys.executable, "-m", "headrace", "serve", "traced_site", "--port", "0"]
        environment = os.environ | {"OTEL_TRACES_EXPORTER": "console", "HEADRACE_OTEL": "1"}
        with subprocess.Popen(
            command,
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as served:
            for line in served.stderr:
                if "listens on" in line:
                    port = int(line.rpartition(":")[2])
                    break
            asyncio.run(_ask(port))
            out, _ = served.communicate()
        assert served.returncode == 0
        assert '"name": "GET"' in out
        assert '"url.path": "/things"' in out


async def _ask(port):
    async with connected(("127.0.0.1", port)) as client:
        assert (await client.get("/things")).status == 200
