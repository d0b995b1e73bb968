import logging
from urllib.parse import urlparse

import pytest
import websockets
from django.core.exceptions import ImproperlyConfigured

from headrace.auth import AuthMiddlewareStack
from headrace.generic.websocket import AsyncWebsocketConsumer
from headrace.security.websocket import (
    AllowedHostsOriginValidator,
    OriginValidator,
    WebsocketDenier,
)
from headrace.server.config import Config
from headrace.server.server import Server
from tests.foreign import uvicorn_serves


async def application(scope, receive, send):
    await send({"type": "websocket.accept"})
    return "let in"


async def attempt(validator, *origins, path="/"):
    """Open a WebSocket; return what the client is told."""
    sent = []

    async def receive():
        return {"type": "websocket.connect"}

    async def send(event):
        sent.append(event)

    headers = [(b"host", b"here.example"), *((b"origin", origin) for origin in origins)]
    await validator({"type": "websocket", "path": path, "headers": headers}, receive, send)
    (event,) = sent
    return event["type"]


LET_IN, REFUSED = "websocket.accept", "websocket.close"


@pytest.mark.parametrize(
    ("origin", "allowed", "outcome"),
    [
        (b"http://a.example", "a.example", LET_IN),
        (b"https://a.example:8443", "a.example", LET_IN),
        (b"http://A.Example", "a.EXAMPLE", LET_IN),
        (b"http://b.example", "a.example", REFUSED),
        (b"http://x.a.example", "a.example", REFUSED),
        (b"http://xa.example", "a.example", REFUSED),
        (b"http://a.example.evil.example", "a.example", REFUSED),
        (b"http://a.example@evil.example", "a.example", REFUSED),
        (b"http://evil.example/a.example", "a.example", REFUSED),
        (b"http://evil.example#a.example", "a.example", REFUSED),
        # A host and all below it
        (b"http://a.example", ".a.example", LET_IN),
        (b"http://x.y.a.example", ".a.example", LET_IN),
        (b"http://xa.example", ".a.example", REFUSED),
        # With a port
        (b"http://a.example:8000", "a.example:8000", LET_IN),
        (b"http://a.example:8001", "a.example:8000", REFUSED),
        (b"https://a.example", "a.example:443", LET_IN),
        # With a scheme, whose port is meant where none is written
        (b"http://a.example", "http://a.example", LET_IN),
        (b"http://a.example:80", "http://a.example", LET_IN),
        (b"http://a.example", "http://a.example:80", LET_IN),
        (b"http://a.example:8000", "http://a.example", REFUSED),
        (b"https://a.example", "http://a.example", REFUSED),
        (b"https://a.example", "https://a.example:8443", REFUSED),
        (b"https://x.a.example:8443", "https://.a.example:8443", LET_IN),
        (b"app://a.example", "app://a.example", LET_IN),
        # With any port
        (b"https://a.example", "https://a.example:*", LET_IN),
        (b"https://a.example:8443", "https://a.example:*", LET_IN),
        (b"http://a.example:8443", "https://a.example:*", REFUSED),
        (b"https://b.example:8443", "https://a.example:*", REFUSED),
        (b"http://x.a.example:8443", ".a.example:*", LET_IN),
        (b"http://[::1]:8000", "http://[::1]:*", LET_IN),
        (b"http://[::1]:8000", "[::1]:8000", LET_IN),
        (b"http://[::1]:8000", "[::1]:8001", REFUSED),
        (b"http://[2001:db8::1]:8000", "http://[2001:db8::1]:8000", LET_IN),
        (b"app://a.example:1", "http://a.example:1", REFUSED),
        # Addresses
        (b"http://127.0.0.1:8000", "127.0.0.1", LET_IN),
        (b"http://[::1]:8000", "[::1]", LET_IN),
        (b"http://[::1]:8000", "http://[::1]:8000", LET_IN),
        (b"http://[::2]", "[::1]", REFUSED),
        # What is no origin of a page
        (b"null", "a.example", REFUSED),
        (b"", "a.example", REFUSED),
        (b"a.example", "a.example", REFUSED),
        (b"//a.example", "http://a.example", REFUSED),
        (b"http://", "a.example", REFUSED),
        (b"http://[a.example", "a.example", REFUSED),
        (b"http://a.example:99999", "a.example", REFUSED),
        (b"http://a.example:x", "a.example", REFUSED),
        (b"http://\xe4.example", "\xe4.example", REFUSED),
        # Any
        (b"http://evil.example", "*", LET_IN),
        (b"null", "*", LET_IN),
        (b"http://[a.example", "*", LET_IN),
    ],
)
async def test_an_origin_against_an_allowed_one(origin, allowed, outcome):
    assert (
        await attempt(OriginValidator(application, ["other.example", allowed]), origin) == outcome
    )


async def test_a_missing_origin_is_denied_unless_any_is_allowed():
    assert await attempt(OriginValidator(application, ["a.example"])) == REFUSED
    assert await attempt(OriginValidator(application, ["a.example", "*"])) == LET_IN


async def test_two_origins_are_none():
    origins = [b"http://evil.example", b"http://a.example"]
    assert await attempt(OriginValidator(application, ["a.example"]), *origins) == REFUSED
    assert await attempt(OriginValidator(application, ["*"]), *origins) == LET_IN


async def test_an_empty_list_lets_nobody_in():
    assert await attempt(OriginValidator(application, []), b"http://a.example") == REFUSED


async def test_only_websockets_are_looked_at():
    with pytest.raises(ValueError, match="OriginValidator got a scope of type 'http'"):
        await OriginValidator(application, ["*"])({"type": "http"}, None, None)


async def test_who_is_let_in_meets_the_application_itself():
    async def whoami(scope, receive, send):
        return scope["path"], receive, send

    validator, receive, send = OriginValidator(whoami, ["*"]), object(), object()
    scope = {"type": "websocket", "path": "/x"}
    assert await validator(scope, receive, send) == ("/x", receive, send)


def test_the_questions_it_asks():
    validator = OriginValidator(application, ["http://a.example"])
    good, bad = urlparse("http://a.example"), urlparse("http://b.example")
    assert validator.valid_origin(good)
    assert validator.validate_origin(good)
    assert validator.match_allowed_origin(good, ".a.example")
    assert not validator.valid_origin(bad)
    assert not validator.valid_origin(None)
    assert not validator.match_allowed_origin(None, "a.example")
    ports = ["http://a", "https://a", "ws://a", "wss://a", "app://a", "http://a:5"]
    expected = [80, 443, 80, 443, None, 5]
    assert [validator.get_origin_port(urlparse(origin)) for origin in ports] == expected


async def test_a_validator_of_ones_own():
    class Tenants(OriginValidator):
        def valid_origin(self, parsed_origin):
            return parsed_origin is not None and parsed_origin.hostname == "tenant.example"

    validator = Tenants(application, [])
    assert await attempt(validator, b"http://tenant.example") == LET_IN
    assert await attempt(validator, b"http://other.example") == REFUSED


# The log


async def test_a_denial_is_logged_with_its_reason(caplog):
    validator = OriginValidator(application, ["a.example"])
    await attempt(validator, b"http://evil.example", path="/ws/")
    await attempt(validator, b"null", path="/ws/")
    await attempt(validator, path="/ws/")
    await attempt(validator, b"http://a.example", b"http://evil.example", path="/ws/")
    assert {record.name for record in caplog.records} == {"headrace.security"}
    assert {record.levelno for record in caplog.records} == {logging.WARNING}
    assert caplog.messages == [
        "WebSocket '/ws/' denied: the origin 'http://evil.example' is not allowed",
        "WebSocket '/ws/' denied: the origin 'null' is not allowed",
        "WebSocket '/ws/' denied: it has no Origin header",
        "WebSocket '/ws/' denied: it has 2 Origin headers, the first 'http://a.example'",
    ]


async def test_a_denial_is_one_bounded_printable_line(caplog):
    validator = OriginValidator(application, ["a.example"])
    hostile = b"http://evil.example/\r\n\x1b[31m\xe2\x80\xa8" + b"x" * 100_000
    await attempt(validator, hostile, path="/\n\u2028\U0001f4a3" + "y" * 100_000)
    (message,) = caplog.messages
    assert message.isprintable()
    assert len(message) < 600


async def test_who_is_let_in_is_not_logged(caplog):
    await attempt(OriginValidator(application, ["a.example"]), b"http://a.example")
    assert not caplog.records


# The site's own hosts


@pytest.mark.parametrize(
    ("hosts", "debug", "origin", "outcome"),
    [
        (["a.example"], False, b"https://a.example", LET_IN),
        (["a.example"], True, b"http://localhost:8000", REFUSED),
        ([".a.example"], False, b"https://www.a.example", LET_IN),
        (["*"], False, b"http://evil.example", LET_IN),
        ([], False, b"http://localhost:8000", REFUSED),
        ([], True, b"http://localhost:8000", LET_IN),
        ([], True, b"http://127.0.0.1:8000", LET_IN),
        ([], True, b"http://[::1]:8000", LET_IN),
        ([], True, b"http://evil.example", REFUSED),
    ],
)
async def test_the_allowed_hosts(settings, hosts, debug, origin, outcome):
    settings.ALLOWED_HOSTS, settings.DEBUG = hosts, debug
    assert await attempt(AllowedHostsOriginValidator(application), origin) == outcome


async def test_the_allowed_hosts_are_those_of_the_moment(settings):
    settings.ALLOWED_HOSTS = []
    validator = AllowedHostsOriginValidator(application)
    settings.ALLOWED_HOSTS = ["a.example"]
    assert await attempt(validator, b"https://a.example") == LET_IN


def test_a_text_is_no_list_of_origins():
    with pytest.raises(ValueError, match=r"write \['a\.example'\]"):
        OriginValidator(application, "a.example")
    assert OriginValidator(application, "*").valid_origin(None)


@pytest.mark.parametrize("lead_to", [AllowedHostsOriginValidator, AuthMiddlewareStack])
def test_a_consumer_class_is_refused_with_what_to_write_instead(lead_to):
    with pytest.raises(ImproperlyConfigured, match=r"write Greeting\.as_asgi\(\)"):
        lead_to(Greeting)


@pytest.mark.parametrize("pattern", ["http://[::1", "http://a.example:http", "a.example:99999"])
def test_an_allowed_origin_that_can_not_be_read(pattern):
    with pytest.raises(ValueError, match="is no origin to be allowed"):
        OriginValidator(application, [pattern])

    class Patterns(OriginValidator):
        """Has a syntax of its own."""

        def match_allowed_origin(self, parsed_origin, pattern):
            return True

    Patterns(application, [pattern])


async def test_what_a_subclass_overrides_is_asked_of_every_origin():
    class AnyPort(OriginValidator):
        """Takes no account of ports, whoever wrote one."""

        def get_origin_port(self, origin):
            return None

    class Below(OriginValidator):
        """Asks nothing of an origin that isn't there."""

        def match_allowed_origin(self, parsed_origin, pattern):
            return parsed_origin.hostname.endswith(pattern)

    any_port = AnyPort(application, ["http://a.example:1"])
    assert await attempt(any_port, b"http://a.example:2") == LET_IN
    assert await attempt(any_port, b"https://a.example:1") == REFUSED
    assert await attempt(Below(application, [".a.example"]), b"http://x.a.example") == LET_IN
    assert await attempt(Below(application, [".a.example"])) == REFUSED


# The denier


async def test_the_denier_refuses_before_the_accept():
    for denier in (WebsocketDenier(), WebsocketDenier.as_asgi()):
        assert await attempt(denier) == REFUSED


async def test_the_denier_waits_for_the_connection():
    events = []

    async def receive():
        events.append("received")
        return {"type": "websocket.connect"}

    async def send(event):
        events.append(event["type"])

    await WebsocketDenier()({"type": "websocket"}, receive, send)
    assert events == ["received", "websocket.close"]


async def test_a_denier_that_says_why():
    class Talkative(WebsocketDenier):
        async def connect(self):
            assert self.scope["path"] == "/"
            await self.accept()
            await self.close(4003, "not from there")

    async with (
        Server(Talkative.as_asgi(), Config(port=0)) as server,
        websockets.connect(f"ws://127.0.0.1:{server.port}/") as socket,
    ):
        await socket.wait_closed()
    assert (socket.close_code, socket.close_reason) == (4003, "not from there")


# On servers


class Greeting(AsyncWebsocketConsumer):
    async def connect(self):
        await self.accept()
        await self.send(text_data="hello")


@pytest.mark.parametrize("foreign", [True, False])
async def test_pages_of_other_sites_are_answered_with_403(foreign):
    validator = OriginValidator(Greeting.as_asgi(), ["http://a.example"])

    async def check(port):
        address = f"ws://127.0.0.1:{port}/"
        async with websockets.connect(address, origin="http://a.example") as socket:
            assert await socket.recv() == "hello"
        for origin in ("http://evil.example", "null", None):
            with pytest.raises(websockets.InvalidStatus) as e:
                await websockets.connect(address, origin=origin)
            assert e.value.response.status_code == 403

    if foreign:
        async with uvicorn_serves(validator) as port:
            await check(port)
    else:
        async with Server(validator, Config(port=0)) as server:
            await check(server.port)
