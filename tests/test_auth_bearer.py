import asyncio
import base64
import contextlib
import json
import logging

import pytest
import websockets
from django.contrib.auth.models import AnonymousUser, User
from django.core.exceptions import PermissionDenied
from django.core.signing import BadSignature, SignatureExpired, TimestampSigner
from playwright.async_api import async_playwright

from headrace.auth import (
    AuthMiddlewareStack,
    AuthorizationHeader,
    BearerTokenMiddleware,
    FirstMessage,
    QueryString,
    Subprotocol,
)
from headrace.db import cleanup_due
from headrace.exceptions import CloseCode
from headrace.generic.websocket import AsyncWebsocketConsumer
from headrace.routing import ProtocolTypeRouter
from headrace.server.config import Config
from headrace.server.server import Server
from headrace.testing.websocket import WebsocketCommunicator
from headrace.views import websocket_view
from tests.chromium import chromium
from tests.foreign import uvicorn_serves

SECRET = "c2VjcmV0.dG9rZW4"


class Somebody:
    """A user who is no model's."""

    def __init__(self, name="ada", **attributes):
        self.username = name
        vars(self).update(attributes)


async def verify(token):
    return Somebody() if token == SECRET else None


async def show(scope, receive, send):
    return scope


async def ask(middleware, type_="websocket", **scope):
    """Return the scope that arrives behind the middleware, or what it answers instead."""
    sent = []

    async def receive():
        return {"type": "websocket.connect"}

    async def send(event):
        sent.append(event)

    scope = {"type": type_, "path": "/", "headers": [], "extensions": EXTENSIONS, **scope}
    arrived = await middleware(scope, receive, send)
    return arrived or sent


EXTENSIONS = {"websocket.http.response": {}}


def bearer(*values):
    return [(b"authorization", value.encode("latin-1")) for value in values]


def offers(*entries):
    """The scope of a client that offers these subprotocols."""
    header = ", ".join(entries).encode()
    return {
        "subprotocols": list(entries),
        "headers": [(b"host", b"x"), (b"sec-websocket-protocol", header)],
    }


def challenge(events):
    start, body = events
    assert body["body"]
    return start["status"], dict(start["headers"])[b"www-authenticate"].decode()


# Where tokens are found


@pytest.mark.parametrize("type_", ["http", "websocket"])
@pytest.mark.parametrize("value", [f"Bearer {SECRET}", f"bearer   {SECRET} ", f"BEARER {SECRET}"])
async def test_a_token_in_the_authorization_header(type_, value):
    scope = await ask(BearerTokenMiddleware(show, verify), type_, headers=bearer(value))
    assert scope["user"].username == "ada"
    assert scope["headers"] == bearer(value), "what else reads the header finds it"


@pytest.mark.parametrize("value", ["Basic YTpi", "Bearer2 x", SECRET, ""])
async def test_another_scheme_is_no_token(value):
    events = await ask(BearerTokenMiddleware(show, verify), headers=bearer(value))
    assert challenge(events) == (401, "Bearer")


async def test_a_token_among_the_subprotocols_is_not_seen_behind():
    given = offers("chat", f"bearer.{SECRET}", "chat.v2")
    scope = await ask(BearerTokenMiddleware(show, verify), **given)
    assert scope["user"].username == "ada"
    assert scope["subprotocols"] == ["chat", "chat.v2"]
    assert scope["headers"] == [(b"host", b"x"), (b"sec-websocket-protocol", b"chat, chat.v2")]
    assert SECRET not in repr(scope)
    assert given == offers("chat", f"bearer.{SECRET}", "chat.v2"), "the server's own stays"


async def test_a_token_that_is_the_only_subprotocol():
    scope = await ask(BearerTokenMiddleware(show, verify), **offers(f"bearer.{SECRET}"))
    assert scope["subprotocols"] == []
    assert scope["headers"] == [(b"host", b"x")]


async def test_a_prefix_of_ones_own():
    middleware = BearerTokenMiddleware(show, verify, sources=[Subprotocol("auth-")])
    assert (await ask(middleware, **offers(f"auth-{SECRET}")))["user"].username == "ada"
    assert challenge(await ask(middleware, **offers(f"bearer.{SECRET}"))) == (401, "Bearer")


async def test_the_query_string_is_read_on_request_only():
    query = {"query_string": f"a=b&token={SECRET}&c".encode()}
    assert challenge(await ask(BearerTokenMiddleware(show, verify), **query)) == (401, "Bearer")
    middleware = BearerTokenMiddleware(show, verify, sources=[QueryString()])
    scope = await ask(middleware, **query)
    assert scope["user"].username == "ada"
    assert scope["query_string"] == b"a=b&c"


async def test_a_token_in_the_query_string_is_decoded():
    seen = []

    async def note(token):
        seen.append(token)

    middleware = BearerTokenMiddleware(show, note, sources=[QueryString("to ken")])
    await ask(middleware, query_string=b"to+ken=a%2Fb%3D")
    await ask(middleware, query_string=b"x=y")
    await ask(middleware)
    assert seen == ["a/b="]


@pytest.mark.parametrize(
    "given",
    [
        {"headers": bearer(f"Bearer {SECRET}", f"Bearer {SECRET}")},
        offers(f"bearer.{SECRET}", "bearer.other"),
        {**offers(f"bearer.{SECRET}"), "headers": bearer(f"Bearer {SECRET}")},
    ],
    ids=["headers", "subprotocols", "one of each"],
)
async def test_two_tokens_are_none(given):
    events = await ask(BearerTokenMiddleware(show, verify), **given)
    assert challenge(events) == (400, 'Bearer error="invalid_request"')


# What is verified


@pytest.mark.parametrize("token", ["", "forged", f"{SECRET} x", "\xe4", "a\x7fb"])
async def test_a_token_that_is_not_good_is_refused_whoever_else_may_pass(token):
    for required in (True, False):
        middleware = BearerTokenMiddleware(show, verify, required=required)
        events = await ask(middleware, headers=bearer(f"Bearer {token}"))
        assert challenge(events) == (401, 'Bearer error="invalid_token"')


@pytest.mark.parametrize(
    "user",
    [None, AnonymousUser(), Somebody(is_active=False), Somebody(is_authenticated=False)],
    ids=["nobody", "anonymous", "inactive", "not logged in"],
)
async def test_who_may_not_pass(user):
    middleware = BearerTokenMiddleware(show, lambda token: user)
    assert challenge(await ask(middleware, headers=bearer("Bearer x")))[0] == 401


@pytest.mark.parametrize(
    "error", [BadSignature("x"), SignatureExpired("x"), PermissionDenied("x")], ids=repr
)
async def test_errors_that_say_that_a_token_is_not_good(error):
    def raising(token):
        raise error

    middleware = BearerTokenMiddleware(show, raising)
    assert challenge(await ask(middleware, headers=bearer("Bearer x")))[0] == 401


class Verifier:
    async def __call__(self, token):
        return await verify(token)


@pytest.mark.parametrize(
    "hook",
    [
        verify,
        Verifier(),
        lambda token: verify(token),
        lambda token: Somebody() if token == SECRET else None,
    ],
    ids=["coroutine function", "object", "returns a coroutine", "function"],
)
async def test_the_hook_is_any_callable(hook):
    middleware = BearerTokenMiddleware(show, hook)
    scope = await ask(middleware, headers=bearer(f"Bearer {SECRET}"))
    assert scope["user"].username == "ada"
    assert challenge(await ask(middleware, headers=bearer("Bearer x")))[0] == 401


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("asynchronous", [True, False])
async def test_a_hook_may_use_the_orm(asynchronous):
    await User.objects.acreate_user("ada")

    async def find_asynchronously(name):
        return await User.objects.aget(username=name)

    def find(name):
        return User.objects.get(username=name)

    middleware = BearerTokenMiddleware(show, find_asynchronously if asynchronous else find)
    scope = await ask(middleware, headers=bearer("Bearer ada"))
    assert scope["user"].username == "ada"
    assert not cleanup_due(), "the database was cleaned up after"


def test_a_hook_that_is_none():
    with pytest.raises(ValueError, match="verify is a function of the token"):
        BearerTokenMiddleware(show, "secret")


async def test_a_scope_that_has_no_headers():
    with pytest.raises(ValueError, match="a scope of type 'lifespan'"):
        await ask(BearerTokenMiddleware(show, verify), "lifespan")


# Without a token


async def test_without_a_token_nobody_is_let_in():
    for type_, kind in (("http", "http.response"), ("websocket", "websocket.http.response")):
        events = await ask(BearerTokenMiddleware(show, verify), type_)
        assert [event["type"] for event in events] == [f"{kind}.start", f"{kind}.body"]
        assert challenge(events) == (401, "Bearer")


async def test_a_server_without_denials_closes():
    events = await ask(BearerTokenMiddleware(show, verify), extensions=None)
    assert events == [{"type": "websocket.close", "code": 3000}]


async def test_the_challenge_names_the_realm():
    middleware = BearerTokenMiddleware(show, verify, realm='the "chat"')
    assert challenge(await ask(middleware)) == (401, 'Bearer realm="the \\"chat\\""')
    _, text = challenge(await ask(middleware, headers=bearer("Bearer x")))
    assert text == 'Bearer realm="the \\"chat\\"", error="invalid_token"'


async def test_who_needs_no_token_is_who_they_were():
    middleware = BearerTokenMiddleware(show, verify, required=False)
    assert isinstance((await ask(middleware))["user"], AnonymousUser)
    bob = Somebody("bob")
    assert (await ask(middleware, user=bob))["user"] is bob
    scope = await ask(middleware, user=bob, headers=bearer(f"Bearer {SECRET}"))
    assert scope["user"].username == "ada"


@pytest.mark.django_db(transaction=True)
async def test_a_token_or_a_session():
    """Whoever has a token needs no session, and the other way round."""
    token_or_session = AuthMiddlewareStack(BearerTokenMiddleware(show, verify, required=False))
    assert (await ask(token_or_session))["user"].is_anonymous
    scope = await ask(token_or_session, headers=bearer(f"Bearer {SECRET}"))
    assert scope["user"].username == "ada"


# Nothing of it is written anywhere


async def test_a_hook_that_fails_does_not_quote_the_token(caplog):
    async def failing(token):
        raise LookupError(f"no such token: {token}")

    async with Server(BearerTokenMiddleware(show, failing), Config(port=0)) as server:
        with pytest.raises(websockets.InvalidStatus) as e:
            await connect(server.port, f"bearer.{SECRET}")
    assert e.value.response.status_code == 500
    assert "verify raised LookupError" in caplog.text
    assert "in failing" in caplog.text, "where it was raised is told"
    assert SECRET not in caplog.text
    assert SECRET.encode() not in e.value.response.body


@pytest.mark.parametrize(
    "given", [offers("bearer.forged-1"), {"headers": bearer("Bearer forged-1")}]
)
async def test_a_refusal_is_one_line_without_the_token(caplog, given):
    caplog.set_level(logging.DEBUG)
    await ask(BearerTokenMiddleware(show, verify), path="/r\n" + "x" * 1000, **given)
    (record,) = caplog.records
    assert record.name == "headrace.auth"
    assert record.getMessage().startswith("websocket '/r\\nxxx")
    assert record.getMessage().endswith("refused: invalid_token")
    assert len(record.getMessage()) < 300
    assert "forged" not in caplog.text


async def test_a_consumer_that_accepts_what_was_not_offered_does_not_tell_the_token(caplog):
    class Wishful(AsyncWebsocketConsumer):
        async def connect(self):
            await self.accept(subprotocol="graphql")

    async with Server(BearerTokenMiddleware(Wishful.as_asgi(), verify), Config(port=0)) as server:
        with pytest.raises(websockets.InvalidStatus):
            await connect(server.port, "chat", f"bearer.{SECRET}")
    assert "cannot accept the subprotocol 'graphql'" in caplog.text
    assert SECRET not in caplog.text


# On servers


class Chat(AsyncWebsocketConsumer):
    async def connect(self):
        name = self.scope["user"].username
        if name == "eve":
            await self.close()
            return
        await self.accept(subprotocol=next(iter(self.scope["subprotocols"]), None))
        await self.send(text_data=f"Welcome, {name}.")

    async def receive(self, text_data=None, bytes_data=None):
        await self.send(text_data=text_data)


async def page(scope, receive, send):
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": scope["user"].username.encode()})


APPLICATION = BearerTokenMiddleware(
    ProtocolTypeRouter({"websocket": Chat.as_asgi(), "http": page}), verify
)


def connect(port, *subprotocols, **headers):
    address = f"ws://127.0.0.1:{port}/"
    return websockets.connect(
        address, subprotocols=subprotocols or None, additional_headers=headers
    )


@contextlib.asynccontextmanager
async def connected(application, *subprotocols):
    async with (
        Server(application, Config(port=0)) as server,
        connect(server.port, *subprotocols) as socket,
    ):
        yield socket


async def get(port, **headers):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    lines = [f"{name}: {value}" for name, value in {"Host": "x", **headers}.items()]
    request = ["GET / HTTP/1.1", *lines, "Connection: close", "", ""]
    writer.write("\r\n".join(request).encode())
    answer = (await reader.read()).decode()
    writer.close()
    return answer


@pytest.mark.parametrize("foreign", [True, False])
async def test_tokens_on_a_server(foreign):
    async def check(port):
        async with connect(port, "chat", f"bearer.{SECRET}") as socket:
            assert socket.subprotocol == "chat"
            assert await socket.recv() == "Welcome, ada."
        async with connect(port, Authorization=f"Bearer {SECRET}") as socket:
            assert await socket.recv() == "Welcome, ada."
        with pytest.raises(websockets.InvalidStatus) as e:
            await connect(port, "chat", "bearer.forged")
        assert e.value.response.status_code == 401
        assert e.value.response.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'
        assert "ada" in await get(port, Authorization=f"Bearer {SECRET}")
        answer = await get(port)
        assert answer.startswith("HTTP/1.1 401 ")
        assert "www-authenticate: bearer\r\n" in answer.lower()

    if foreign:
        async with uvicorn_serves(APPLICATION) as port:
            await check(port)
    else:
        async with Server(APPLICATION, Config(port=0)) as server:
            await check(server.port)


async def test_the_fast_lane_stays_open():
    lanes = []

    async def application(scope, receive, send):
        lanes.append(scope["extensions"]["headrace"]["lane"](receive, send))
        await send({"type": "websocket.accept"})

    async with connected(BearerTokenMiddleware(application, verify), f"bearer.{SECRET}"):
        pass
    assert lanes[0] is not None


# The first message


def with_first_message(application=None, **options):
    source = FirstMessage(subprotocols=("chat.v2", "chat"), **options)
    return BearerTokenMiddleware(
        application or Chat.as_asgi(),
        lambda token: {SECRET: Somebody(), "eve": Somebody("eve")}.get(token),
        sources=[AuthorizationHeader(), Subprotocol(), source],
    )


@pytest.mark.parametrize("foreign", [True, False])
async def test_a_token_in_the_first_message(foreign):
    async def check(port):
        for message in (SECRET, json.dumps({"token": SECRET, "type": "auth"})):
            async with connect(port, "chat") as socket:
                assert socket.subprotocol == "chat"
                await socket.send(message)
                await socket.send("hello")
                assert await socket.recv() == "Welcome, ada."
                assert await socket.recv() == "hello"
        async with connect(port, f"bearer.{SECRET}") as socket:
            assert await socket.recv() == "Welcome, ada.", "no message is waited for"

    application = with_first_message()
    if foreign:
        async with uvicorn_serves(application) as port:
            await check(port)
    else:
        async with Server(application, Config(port=0)) as server:
            await check(server.port)


@pytest.mark.parametrize(
    "message",
    [
        "forged",
        "",
        b"bytes",
        SECRET.encode(),
        "x" * 9000,
        "{",
        '{"a": ' + "[" * 8000,
        '{"token": 7}',
        '{"to": "x"}',
        f'["{SECRET}"]',
    ],
)
async def test_a_first_message_without_a_good_token_closes(message):
    arrived = []

    async def application(scope, receive, send):
        arrived.append(scope)

    async with connected(with_first_message(application)) as socket:
        await socket.send(message)
        with pytest.raises(websockets.ConnectionClosed) as e:
            await socket.recv()
    assert (e.value.rcvd.code, e.value.rcvd.reason) == (CloseCode.UNAUTHORIZED, "invalid_token")
    assert arrived == []


async def test_who_sends_no_first_message_is_closed_in_time():
    async with connected(with_first_message(timeout_s=0.05)) as socket:
        with pytest.raises(websockets.ConnectionClosed) as e:
            await socket.recv()
    assert e.value.rcvd.code == CloseCode.TIMEOUT


async def test_who_leaves_before_the_first_message_leaves_no_trace(caplog):
    caplog.set_level(logging.INFO, "headrace.auth")
    communicator = WebsocketCommunicator(with_first_message(), "/")
    assert await communicator.connect() == (True, None)
    await communicator.disconnect()
    assert "the client left without a token" in caplog.text
    communicator = WebsocketCommunicator(with_first_message(), "/")
    await communicator.disconnect()
    assert "refused: the client left" in caplog.text


async def test_a_failing_hook_behind_the_first_message(caplog):
    def failing(token):
        raise LookupError(token)

    application = BearerTokenMiddleware(show, failing, sources=[FirstMessage()])
    async with connected(application) as socket:
        await socket.send(SECRET)
        with pytest.raises(websockets.ConnectionClosed) as e:
            await socket.recv()
    assert e.value.rcvd.code == CloseCode.INTERNAL_ERROR
    assert SECRET not in caplog.text


async def test_a_message_format_of_ones_own():
    def of_graphql(text):
        return json.loads(text)["payload"]["token"]

    async with Server(with_first_message(token_of=of_graphql), Config(port=0)) as server:
        async with connect(server.port) as socket:
            await socket.send(json.dumps({"payload": {"token": SECRET}}))
            assert await socket.recv() == "Welcome, ada."
        for malformed in ("[", "{}", '{"payload": 7}', "[7]", '{"payload": {"token": 7}}'):
            async with connect(server.port) as socket:
                await socket.send(malformed)
                with pytest.raises(websockets.ConnectionClosed) as e:
                    await socket.recv()
                assert e.value.rcvd.code == CloseCode.UNAUTHORIZED


async def answered(application, text=SECRET):
    """What the client gets once its first message was taken."""
    async with connected(with_first_message(application), "chat") as socket:
        await socket.send(text)
        with pytest.raises(websockets.ConnectionClosed) as e:
            await socket.recv()
    return e.value.rcvd.code, e.value.rcvd.reason


async def test_a_consumer_that_refuses_closes():
    assert await answered(Chat.as_asgi(), "eve") == (CloseCode.FORBIDDEN, "")


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([{"type": "websocket.close", "code": 1000}], (CloseCode.FORBIDDEN, "")),
        ([{"type": "websocket.close", "code": 4000, "reason": "full"}], (4000, "full")),
        (
            [
                {"type": "websocket.http.response.start", "status": 404, "headers": []},
                {"type": "websocket.http.response.body", "body": b"no"},
            ],
            (4404, ""),
        ),
    ],
)
async def test_how_a_refusal_after_the_handshake_is_told(events, expected):
    async def application(scope, receive, send):
        assert "websocket.http.response" not in scope["extensions"]
        assert await receive() == {"type": "websocket.connect"}
        for event in events:
            await send(event)

    assert await answered(application) == expected


async def test_a_view_that_refuses():
    @websocket_view
    async def view(socket):
        await socket.close()

    assert await answered(view) == (CloseCode.FORBIDDEN, "")


async def test_nothing_is_sent_before_the_accept(caplog):
    async def application(scope, receive, send):
        await send({"type": "websocket.send", "text": "too early"})

    assert (await answered(application))[0] == CloseCode.INTERNAL_ERROR
    assert "before the WebSocket is accepted" in caplog.text


async def test_an_event_to_the_group_waits_for_the_consumers_own_accept():
    """The socket is open by then, and yet nobody is let in before ``connect()`` says so."""

    class Late(AsyncWebsocketConsumer):
        groups = ("news",)

        async def connect(self):
            await self.channel_layer.group_send("news", {"type": "websocket.send", "text": "1"})
            await self.close(4003)

    assert await answered(Late.as_asgi()) == (4003, "")


async def test_a_subprotocol_is_agreed_upon_before_the_application_is_asked(caplog):
    class Wishful(AsyncWebsocketConsumer):
        async def connect(self):
            await self.accept(subprotocol="graphql")

    assert (await answered(Wishful.as_asgi()))[0] == CloseCode.INTERNAL_ERROR
    assert "name it in FirstMessage(subprotocols=...)" in caplog.text


async def test_headers_of_an_accept_come_too_late(caplog):
    class Baker(AsyncWebsocketConsumer):
        async def connect(self):
            await self.accept(subprotocol="chat", headers=[(b"set-cookie", b"a=b")])
            await self.close(4000)

    assert await answered(Baker.as_asgi()) == (4000, "")
    assert "the headers of an accept are lost" in caplog.text


def test_with_a_first_message_a_token_is_required():
    with pytest.raises(ValueError, match="with FirstMessage a token is required"):
        BearerTokenMiddleware(show, verify, sources=[FirstMessage()], required=False)


async def test_the_first_message_is_for_websockets():
    middleware = BearerTokenMiddleware(show, verify, sources=[FirstMessage()])
    assert challenge(await ask(middleware, "http")) == (401, "Bearer")


# Signed tokens


def test_a_signers_token_fits_into_every_source():
    """The separator that Django's signers have by default does not, in a subprotocol."""
    letters = set("!#$%&'*+-.^_`|~")  # RFC 9110 §5.6.2, beside letters and digits
    signer = TimestampSigner(salt="test", sep=".")
    for token in (
        signer.sign_object({"user": "a" * 50}),
        signer.sign_object({"user": "a" * 500}, compress=True),
        base64.urlsafe_b64encode(TimestampSigner().sign("ä").encode()).rstrip(b"=").decode(),
    ):
        assert all(c.isascii() and (c.isalnum() or c in letters) for c in token)
    assert ":" in TimestampSigner().sign("1")


# In a browser


@pytest.mark.browser
async def test_a_page_shows_its_token_as_a_subprotocol():
    """Chromium gives up where it offered subprotocols and none was accepted."""
    talk = """([url, subprotocols]) => new Promise((resolve) => {
        const socket = new WebSocket(url, subprotocols);
        socket.onmessage = (event) => resolve([socket.protocol, event.data]);
        socket.onclose = (event) => resolve(event.code);
    })"""
    token = TimestampSigner(sep=".").sign_object({"user": "1"})

    def unsign(shown):
        return Somebody(str(TimestampSigner(sep=".").unsign_object(shown, max_age=60)["user"]))

    application = BearerTokenMiddleware(
        ProtocolTypeRouter({"websocket": Chat.as_asgi()}), unsign, sources=[Subprotocol()]
    )
    async with (
        async_playwright() as playwright,
        await playwright.chromium.launch(
            executable_path=chromium(), args=["--no-sandbox"]
        ) as browser,
        Server(application, Config(port=0)) as server,
    ):
        page = await browser.new_page()
        url = f"ws://127.0.0.1:{server.port}/"
        assert await page.evaluate(talk, [url, ["chat", f"bearer.{token}"]]) == [
            "chat",
            "Welcome, 1.",
        ]
        assert await page.evaluate(talk, [url, ["chat", f"bearer.{token}x"]]) == 1006
        assert await page.evaluate(talk, [url, [f"bearer.{token}"]]) == 1006
