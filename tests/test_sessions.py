import datetime
from http.cookies import SimpleCookie
from importlib import import_module

import pytest
import websockets
from asgiref.sync import sync_to_async
from django.contrib.sessions.exceptions import SessionInterrupted
from django.core.exceptions import SuspiciousOperation

from headrace.generic.websocket import AsyncWebsocketConsumer
from headrace.server.config import Config
from headrace.server.server import Server
from headrace.sessions import (
    CookieMiddleware,
    InstanceSessionWrapper,
    SessionMiddleware,
    SessionMiddlewareStack,
)
from tests.foreign import uvicorn_serves

STORES = ["db", "cache", "cached_db", "file", "signed_cookies"]


@pytest.fixture(params=STORES)
def store(request, settings, tmp_path):
    """Every session store that Django has, one after the other."""
    settings.SESSION_ENGINE = f"django.contrib.sessions.backends.{request.param}"
    settings.SESSION_FILE_PATH = str(tmp_path)
    return import_module(settings.SESSION_ENGINE).SessionStore


def scope_of(type_="http", **cookies):
    header = "; ".join(f"{name}={value}" for name, value in cookies.items())
    return {"type": type_, "path": "/", "headers": [(b"cookie", header.encode())]}


class Client:
    """One browser: what it was sent, and the cookies that it keeps."""

    def __init__(self):
        self.cookies = {}
        self.sent = []

    async def send(self, message):
        self.sent.append(message)
        for name, value in message.get("headers", ()):
            if name.lower() == b"set-cookie":
                for key, morsel in SimpleCookie(value.decode()).items():
                    self.cookies[key] = morsel
                    if morsel["max-age"] == "0":
                        del self.cookies[key]

    async def open(self, application, type_="http"):
        self.sent.clear()
        values = {name: morsel.value for name, morsel in self.cookies.items()}
        return await application(scope_of(type_, **values), None, self.send)


def changing(status=200, type_="http.response.start", **changes):
    """An application that changes its session, and answers with what it was."""

    async def application(scope, receive, send):
        def work():
            for name, value in changes.items():
                scope["session"][name] = value
            return dict(scope["session"].items())

        seen = await sync_to_async(work)()
        await send({"type": type_, "status": status})
        return seen

    return application


def answering(**arguments):
    return SessionMiddlewareStack(changing(**arguments))


# Cookies


async def cookies_of(headers):
    async def application(scope, receive, send):
        return scope["cookies"]

    return await CookieMiddleware(application)({"type": "http", "headers": headers}, None, None)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([], {}),
        ([(b"cookie", b"")], {}),
        ([(b"cookie", b"a=b; c=d")], {"a": "b", "c": "d"}),
        ([(b"cookie", b"a=b"), (b"x", b"y"), (b"cookie", b"c=d")], {"a": "b", "c": "d"}),
        ([(b"cookie", b'name="Jos\xe9 \\"M\\""')], {"name": 'José "M"'}),
        ([(b"cookie", b"; =; alone ;;a=b=c")], {"": "alone", "a": "b=c"}),
    ],
)
async def test_cookies_are_parsed_as_django_does(headers, expected):
    assert await cookies_of(headers) == expected


async def test_a_scope_without_headers_is_refused():
    with pytest.raises(ValueError, match="scope of type 'lifespan' has no headers"):
        await CookieMiddleware(None)({"type": "lifespan"}, None, None)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, "K=v; Path=/; SameSite=lax"),
        ({"httponly": True, "secure": True}, "K=v; HttpOnly; Path=/; SameSite=lax; Secure"),
        ({"samesite": None}, "K=v; Path=/"),
        ({"samesite": False}, "K=v; Path=/"),
        ({"samesite": "Strict"}, "K=v; Path=/; SameSite=Strict"),
        ({"domain": "d.example", "path": "/x"}, "K=v; Domain=d.example; Path=/x; SameSite=lax"),
        ({"expires": "soon"}, "K=v; expires=soon; Path=/; SameSite=lax"),
        ({"value": "a b"}, 'K="a b"; Path=/; SameSite=lax'),
    ],
)
def test_set_cookie(arguments, expected):
    message = {"type": "http.response.start"}
    CookieMiddleware.set_cookie(message, "K", **{"value": "v", **arguments})
    assert message["headers"] == [(b"Set-Cookie", expected.encode())]


@pytest.mark.parametrize("zone", [None, datetime.UTC])
def test_set_cookie_with_a_date(zone):
    message = {"headers": ((b"x", b"y"),)}
    CookieMiddleware.set_cookie(
        message, "K", "v", expires=datetime.datetime(2130, 1, 1, tzinfo=zone)
    )
    other, (_, value) = message["headers"]
    assert other == (b"x", b"y")
    assert b"expires=Sun, 01 Jan 2130 00:00:00 GMT; Max-Age=" in value


def test_set_cookie_with_an_age():
    message = {}
    CookieMiddleware.set_cookie(message, "K", "v", max_age=datetime.timedelta(minutes=1))
    ((_, value),) = message["headers"]
    assert b"Max-Age=60" in value
    assert b"expires=" in value


def test_set_cookie_refuses_what_browsers_do():
    for kind in (ValueError, AssertionError):
        with pytest.raises(kind, match="samesite"):
            CookieMiddleware.set_cookie({}, "K", "v", samesite="sometimes")


def test_delete_cookie():
    message = {}
    CookieMiddleware.delete_cookie(message, "K", path="/x", domain="d.example")
    ((name, value),) = message["headers"]
    assert name == b"Set-Cookie"
    morsel = SimpleCookie(value.decode())["K"]
    assert morsel.value == ""
    assert (morsel["max-age"], morsel["path"], morsel["domain"]) == ("0", "/x", "d.example")
    assert "1970" in morsel["expires"]


# Sessions over HTTP


@pytest.mark.django_db(transaction=True)
async def test_a_session_lasts_from_one_request_to_the_next(store):
    client = Client()
    assert await client.open(answering(colour="red")) == {"colour": "red"}
    assert set(client.cookies) == {"sessionid"}
    assert await client.open(answering(shape="round")) == {"colour": "red", "shape": "round"}
    assert await client.open(answering()) == {"colour": "red", "shape": "round"}
    assert "headers" not in client.sent[0], "nothing changed, nothing to tell"


@pytest.mark.django_db(transaction=True)
async def test_the_cookie_follows_the_settings(settings):
    settings.SESSION_COOKIE_NAME = "sid"
    settings.SESSION_COOKIE_DOMAIN = "d.example"
    settings.SESSION_COOKIE_PATH = "/app"
    settings.SESSION_COOKIE_SECURE = True
    settings.SESSION_COOKIE_SAMESITE = "Strict"
    settings.SESSION_COOKIE_AGE = 100
    client = Client()
    await client.open(answering(colour="red"))
    morsel = client.cookies["sid"]
    assert (morsel["domain"], morsel["path"], morsel["max-age"]) == ("d.example", "/app", "100")
    assert (morsel["secure"], morsel["httponly"], morsel["samesite"]) == (True, True, "Strict")


@pytest.mark.django_db(transaction=True)
async def test_a_session_that_ends_with_the_browser(settings):
    settings.SESSION_EXPIRE_AT_BROWSER_CLOSE = True
    client = Client()
    await client.open(answering(colour="red"))
    morsel = client.cookies["sessionid"]
    assert (morsel["max-age"], morsel["expires"]) == ("", "")


@pytest.mark.django_db(transaction=True)
async def test_an_answer_to_an_error_saves_nothing(store):
    client = Client()
    await client.open(answering(status=503, colour="red"))
    assert client.cookies == {}


@pytest.mark.django_db(transaction=True)
async def test_saving_with_every_request(store, settings):
    client = Client()
    await client.open(answering(colour="red"))
    settings.SESSION_SAVE_EVERY_REQUEST = True
    await client.open(answering())
    assert b"sessionid=" in client.sent[0]["headers"][0][1]


@pytest.mark.django_db(transaction=True)
async def test_a_session_that_was_flushed_takes_its_cookie_along(store):
    async def flush(scope, receive, send):
        await scope["session"].aflush()
        await send({"type": "http.response.start", "status": 200})
        return scope["session"].session_key

    client = Client()
    await client.open(answering(colour="red"))
    assert client.cookies
    assert await client.open(SessionMiddlewareStack(flush)) in (None, "")
    assert client.cookies == {}
    await client.open(SessionMiddlewareStack(flush))
    assert "headers" not in client.sent[0], "no cookie came, none has to go"


@pytest.mark.django_db(transaction=True)
async def test_a_session_that_was_deleted_meanwhile():
    async def outlive(scope, receive, send):
        session = scope["session"]
        await session.aget("colour")
        await type(session)().adelete(session.session_key)
        await session.aset("colour", "blue")
        await send({"type": "http.response.start", "status": 200})

    client = Client()
    await client.open(answering(colour="red"))
    with pytest.raises(SessionInterrupted, match="deleted while") as e:
        await client.open(SessionMiddlewareStack(outlive))
    assert isinstance(e.value, SuspiciousOperation)
    assert e.value.status == 400
    assert client.sent == []


# Sessions over WebSocket


@pytest.mark.django_db(transaction=True)
async def test_a_websocket_reads_the_session_and_saves_it_by_itself(store):
    async def application(scope, receive, send):
        session = scope["session"]
        colour = await session.aget("colour")
        await session.aset("colour", "blue")
        await send({"type": "websocket.accept"})
        await session.asave()
        return colour

    client = Client()
    await client.open(answering(colour="red"))
    assert await client.open(SessionMiddlewareStack(application), "websocket") == "red"
    assert client.sent == [{"type": "websocket.accept"}]
    if store.__module__.endswith("signed_cookies"):
        return  # there the cookie is the session, and a WebSocket sets no cookie
    assert await client.open(answering()) == {"colour": "blue"}


@pytest.mark.parametrize("cookie", ["short", "x" * 32, "\x00" * 32, "'; DROP TABLE"])
@pytest.mark.django_db(transaction=True)
async def test_a_made_up_key_finds_an_empty_session(store, cookie):
    async def application(scope, receive, send):
        return await scope["session"].aget("colour")

    scope = scope_of("websocket", sessionid=cookie)
    assert await SessionMiddlewareStack(application)(scope, None, None) is None


async def test_nothing_is_read_until_somebody_looks():
    """No database is available to this test."""

    async def application(scope, receive, send):
        return scope["session"].session_key

    scope = scope_of("websocket", sessionid="x" * 32)
    assert await SessionMiddlewareStack(application)(scope, None, None) == "x" * 32


async def test_a_websockets_send_stays_the_servers_own():
    async def application(scope, receive, send):
        return send

    async def send(message): ...

    stack = SessionMiddlewareStack(application)
    assert await stack(scope_of("websocket"), None, send) is send
    assert await stack(scope_of("http"), None, send) is not send


# The parts


async def test_a_session_from_above_is_left_alone():
    async def application(scope, receive, send):
        await send({"type": "http.response.start", "status": 200})
        return scope["session"]

    class NotOurs:
        modified = True

    client, session = Client(), NotOurs()
    scope = {"type": "http", "headers": [], "session": session}
    assert await SessionMiddleware(application)(scope, None, client.send) is session
    assert client.sent == [{"type": "http.response.start", "status": 200}]


async def test_a_session_needs_cookies():
    with pytest.raises(ValueError, match="put CookieMiddleware in front of SessionMiddleware"):
        await SessionMiddleware(None)({"type": "http", "headers": []}, None, None)


async def test_the_wrapper_has_a_scope_of_its_own():
    scope = {"type": "http", "cookies": {"sessionid": "x" * 32}}
    wrapper = InstanceSessionWrapper(scope, None)
    await wrapper.resolve_session()
    assert wrapper.scope["session"].session_key == "x" * 32
    assert "session" not in scope


async def test_a_wrapper_that_finds_the_session_another_way():
    """It may fill the placeholder that it finds in the scope, or put a session there."""

    class ByHeader(InstanceSessionWrapper):
        async def resolve_session(self):
            key = dict(self.scope["headers"])[b"x-session"].decode()
            self.scope["session"]._wrapped = self.session_store(key)

    class Sessions(SessionMiddleware):
        wrapper_class = ByHeader

    async def application(scope, receive, send):
        return scope["session"].session_key

    scope = {"type": "websocket", "headers": [(b"x-session", b"x" * 32)]}
    assert await CookieMiddleware(Sessions(application))(scope, None, None) == "x" * 32


@pytest.mark.django_db(transaction=True)
async def test_a_wrapper_that_sets_the_cookie_when_it_accepts():
    class OnAccept(InstanceSessionWrapper):
        save_message_types = ("http.response.start", "websocket.accept")
        cookie_response_message_types = save_message_types

    class Sessions(SessionMiddleware):
        wrapper_class = OnAccept

    stack = CookieMiddleware(Sessions(changing(type_="websocket.accept", colour="red")))
    client = Client()
    await client.open(stack, "websocket")
    assert await client.open(answering()) == {"colour": "red"}


@pytest.mark.django_db(transaction=True)
async def test_a_wrapper_that_saves_where_no_cookie_goes():
    class Silent(InstanceSessionWrapper):
        cookie_response_message_types = ()

    class Sessions(SessionMiddleware):
        wrapper_class = Silent

    client = Client()
    await client.open(CookieMiddleware(Sessions(changing(colour="red"))))
    assert client.cookies == {}


async def test_a_wrapper_with_a_send_of_its_own_is_always_asked():
    class Counting(InstanceSessionWrapper):
        async def send(self, message):
            await super().send({**message, "counted": True})

    class Sessions(SessionMiddleware):
        wrapper_class = Counting

    async def application(scope, receive, send):
        await send({"type": "websocket.accept"})

    client = Client()
    await client.open(CookieMiddleware(Sessions(application)), "websocket")
    assert client.sent == [{"type": "websocket.accept", "counted": True}]


# On servers


class Remembering(AsyncWebsocketConsumer):
    async def receive(self, text_data=None, bytes_data=None):
        session = self.scope["session"]
        await self.send(text_data=str(await session.aget("word")))
        await session.aset("word", text_data)
        await session.asave()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("foreign", [True, False])
async def test_a_consumer_changes_the_session_on_a_server(foreign):
    client = Client()
    await client.open(answering(word="first"))
    headers = {"cookie": f"sessionid={client.cookies['sessionid'].value}"}

    async def talk(port):
        address = f"ws://127.0.0.1:{port}/"
        for word, answer in [("second", "first"), ("third", "second")]:
            async with websockets.connect(address, additional_headers=headers) as socket:
                await socket.send(word)
                assert await socket.recv() == answer

    application = SessionMiddlewareStack(Remembering.as_asgi())
    if foreign:
        async with uvicorn_serves(application) as port:
            await talk(port)
    else:
        async with Server(application, Config(port=0)) as server:
            await talk(server.port)
    assert await client.open(answering()) == {"word": "third"}
