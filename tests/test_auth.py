import asyncio
import time
from unittest.mock import patch

import pytest
import websockets
from asgiref.sync import async_to_sync, sync_to_async
from django.contrib.auth import HASH_SESSION_KEY, SESSION_KEY, user_logged_in, user_logged_out
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.models import AnonymousUser, User
from django.contrib.sessions.backends import cache, cached_db, db, signed_cookies
from django.core.signing import b62_encode
from django.test import AsyncClient

from headrace.auth import (
    AuthMiddleware,
    AuthMiddlewareStack,
    UserLazyObject,
    get_user,
    login,
    logout,
)
from headrace.db import aclose_old_connections, cleanup_due
from headrace.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from headrace.server.config import Config
from headrace.server.server import Server
from headrace.sessions import SessionMiddlewareStack
from tests.documented import documented
from tests.foreign import uvicorn_serves

pytestmark = pytest.mark.django_db(transaction=True)

MODEL_BACKEND = "django.contrib.auth.backends.ModelBackend"


@pytest.fixture
async def ada():
    return await User.objects.acreate_user("ada", password="engine")


@pytest.fixture
async def bob():
    return await User.objects.acreate_user("bob", password="builder")


@pytest.fixture(params=[db, cache, cached_db, signed_cookies], ids=lambda m: m.__name__)
def store(request, settings):
    settings.SESSION_ENGINE = request.param.__name__
    return request.param.SessionStore


@pytest.fixture
def signals():
    """Who logged in and out, as the receivers of Django's signals hear of it."""
    heard = []

    def note_in(sender, request, user, **_):
        heard.append(("in", sender, user.username))

    def note_out(sender, request, user, **_):
        heard.append(("out", sender, user and user.username))

    user_logged_in.connect(note_in)
    user_logged_out.connect(note_out)
    yield heard
    user_logged_in.disconnect(note_in)
    user_logged_out.disconnect(note_out)


async def logged_in(user, store=db.SessionStore):
    """A scope whose session was opened, and saved, by a login."""
    scope = {"type": "websocket", "session": store()}
    await login(scope, user)
    await scope["session"].asave()
    return scope


async def again(scope):
    """The scope of the same browser's next connection."""
    session = scope["session"]
    return {"type": "websocket", "session": type(session)(session.session_key)}


async def key_exists(session):
    return await type(session)().aexists(session.session_key)


# get_user


async def test_the_user_of_a_session(ada, store):
    scope = await logged_in(ada, store)
    assert await get_user(await again(scope)) == ada


async def test_there_must_be_a_session():
    for function in (get_user, login, logout):
        with pytest.raises(ValueError, match="no session in the scope"):
            await function({"type": "websocket"})


async def test_an_empty_session_is_nobodys(store):
    assert isinstance(await get_user({"session": store()}), AnonymousUser)


async def test_a_session_of_which_nobody_logged_in(store):
    session = store()
    session["colour"] = "red"
    await session.asave()
    scope = {"session": store(session.session_key)}
    assert isinstance(await get_user(scope), AnonymousUser)
    assert await scope["session"].aget("colour") == "red"


async def test_a_user_who_was_deleted_or_deactivated(ada, bob):
    of_ada, of_bob = await logged_in(ada), await logged_in(bob)
    await ada.adelete()
    bob.is_active = False
    await bob.asave()
    assert isinstance(await get_user(await again(of_ada)), AnonymousUser)
    assert isinstance(await get_user(await again(of_bob)), AnonymousUser)


async def test_a_backend_that_is_no_longer_configured(ada, settings):
    scope = await logged_in(ada)
    settings.AUTHENTICATION_BACKENDS = ["django.contrib.auth.backends.RemoteUserBackend"]
    assert isinstance(await get_user(await again(scope)), AnonymousUser)


async def test_a_changed_password_ends_the_session(ada, store):
    scope = await logged_in(ada, store)
    ada.set_password("difference")
    await ada.asave()
    scope = await again(scope)
    assert isinstance(await get_user(scope), AnonymousUser)
    assert await scope["session"].aget(SESSION_KEY) is None
    assert not scope["session"].session_key


async def test_a_session_from_before_the_keys_of_users_changed_their_type(ada):
    scope = await logged_in(ada)
    scope["session"][SESSION_KEY] = "a-name-where-a-number-is-due"
    assert isinstance(await get_user(scope), AnonymousUser)


async def test_a_session_of_a_tests_own(ada):
    """Any mapping that has what ``get_user`` reads."""
    assert isinstance(await get_user({"session": {}}), AnonymousUser)
    session = dict((await logged_in(ada))["session"].items())
    assert await get_user({"session": session}) == ada


async def test_a_session_without_a_hash_is_not_trusted(ada):
    scope = await logged_in(ada)
    await scope["session"].apop(HASH_SESSION_KEY)
    assert isinstance(await get_user(scope), AnonymousUser)


async def test_a_rotated_key_ends_no_session(ada, store, settings):
    scope = await logged_in(ada, store)
    old, key = settings.SECRET_KEY, scope["session"].session_key
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "new", ["older", old]
    scope = await again(scope)
    assert await get_user(scope) == ada
    assert scope["session"].session_key == key
    await login(scope, ada)
    assert scope["session"].session_key == key, "the same user: data and key are kept"
    await scope["session"].asave()
    settings.SECRET_KEY_FALLBACKS = []
    assert await get_user(await again(scope)) == ada, "and the hash is one of the new key"


async def test_a_rotated_key_is_no_excuse_for_an_old_password(ada, settings):
    scope = await logged_in(ada)
    ada.set_password("difference")
    await ada.asave()
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "new", [settings.SECRET_KEY]
    assert isinstance(await get_user(await again(scope)), AnonymousUser)


async def test_a_key_that_is_gone_for_good_leaves_the_stored_session_alone(ada, settings):
    scope = await logged_in(ada)
    settings.SECRET_KEY = "new"
    fresh = await again(scope)
    assert isinstance(await get_user(fresh), AnonymousUser)
    assert await key_exists(scope["session"])


async def test_who_has_no_cookie_costs_no_thread(monkeypatch):
    monkeypatch.setattr("headrace.auth._get_user", None)
    assert isinstance(await get_user({"session": db.SessionStore()}), AnonymousUser)


async def test_a_user_model_without_hashes(ada, monkeypatch):
    scope = await logged_in(ada)
    monkeypatch.delattr(AbstractBaseUser, "get_session_auth_hash")
    assert await get_user(await again(scope)) == ada
    scope = await logged_in(ada)
    assert await scope["session"].aget(HASH_SESSION_KEY) == ""


# login and logout


async def test_login_gives_the_session_a_new_key_and_keeps_its_data(ada, store, signals):
    session = store()
    session["basket"] = ["apple"]
    await session.asave()
    key = session.session_key
    scope = {"session": session}
    await login(scope, ada)
    await session.asave()
    assert scope["user"] == ada
    assert session.session_key != key
    assert not await store().aexists(key) or store is signed_cookies.SessionStore
    assert await session.aget("basket") == ["apple"]
    assert signals == [("in", User, "ada")]


async def test_login_of_the_user_in_the_scope(ada):
    scope = {"session": db.SessionStore(), "user": ada}
    await login(scope)
    assert await get_user(scope) == ada


async def test_login_without_a_user():
    with pytest.raises(ValueError, match=r"login\(\) needs a user"):
        await login({"session": db.SessionStore()}, None)


async def test_login_of_somebody_else_takes_nothing_over(ada, bob):
    scope = await logged_in(ada)
    scope["session"]["secret"] = "ada's"
    await login(scope, bob)
    assert scope["user"] == bob
    assert await get_user(scope) == bob
    assert "secret" not in scope["session"]


async def test_login_after_the_password_changed_takes_nothing_over(ada):
    scope = await logged_in(ada)
    scope["session"]["secret"] = "of an older login"
    ada.set_password("difference")
    await login(scope, ada)
    assert "secret" not in scope["session"]


async def test_login_chooses_the_backend(ada, settings):
    settings.AUTHENTICATION_BACKENDS = [
        MODEL_BACKEND,
        "django.contrib.auth.backends.AllowAllUsersModelBackend",
    ]
    scope = {"session": db.SessionStore()}
    with pytest.raises(ValueError, match="several authentication backends"):
        await login(scope, ada)
    with pytest.raises(TypeError, match="dotted path"):
        await login(scope, ada, backend=object())
    with pytest.raises(ValueError, match="several authentication backends"):
        await login(scope, ada, backend="")
    await login(scope, ada, backend=settings.AUTHENTICATION_BACKENDS[1])
    assert await get_user(scope) == ada
    ada.backend = MODEL_BACKEND
    await login(scope, ada)
    assert scope["session"]["_auth_user_backend"] == MODEL_BACKEND


async def test_logout_deletes_the_session(ada, store, signals):
    scope = await logged_in(ada, store)
    key = scope["session"].session_key
    await logout(scope)
    assert isinstance(scope["user"], AnonymousUser)
    assert scope["session"].is_empty()
    assert not await store().aexists(key)
    assert signals == [("in", User, "ada"), ("out", User, "ada")]


async def test_logout_of_nobody(signals):
    scope = {"session": db.SessionStore()}
    await logout(scope)
    assert "user" not in scope
    scope["user"] = AnonymousUser()
    await logout(scope)
    assert signals == []


def test_login_and_logout_from_synchronous_code(transactional_db):
    user = User.objects.create_user("ada")
    scope = {"session": db.SessionStore()}
    async_to_sync(login)(scope, user)
    assert async_to_sync(get_user)(scope) == user
    async_to_sync(logout)(scope)
    assert scope["user"].is_anonymous


# The middleware


async def show(scope, receive, send):
    return scope


def websocket(session=None):
    cookie = f"sessionid={session.session_key}" if session else ""
    return {"type": "websocket", "path": "/", "headers": [(b"cookie", cookie.encode())]}


async def test_the_stack_puts_the_user_into_the_scope(ada, store):
    session = (await logged_in(ada, store))["session"]
    await aclose_old_connections()
    scope = await AuthMiddlewareStack(show)(websocket(session), None, None)
    assert scope["user"] == ada
    assert isinstance(scope["user"], User)
    assert scope["session"].session_key == session.session_key
    assert not cleanup_due(), "the database was cleaned up after"


async def test_the_stack_without_a_cookie():
    scope = await AuthMiddlewareStack(show)(websocket(), None, None)
    assert scope["user"].is_anonymous


async def test_the_middleware_needs_a_session():
    with pytest.raises(ValueError, match="put SessionMiddleware in front of AuthMiddleware"):
        await AuthMiddleware(show)({"type": "websocket"}, None, None)


async def test_a_user_who_is_not_known_yet():
    scope = {"session": db.SessionStore()}
    AuthMiddleware(show).populate_scope(scope)
    assert isinstance(scope["user"], UserLazyObject)
    with pytest.raises(ValueError, match="isn't known yet"):
        str(scope["user"].username)


async def test_a_user_from_above_stays(ada, bob):
    """A middleware in front of the stack has already said who it is."""

    async def as_bob(scope, receive, send):
        return await AuthMiddlewareStack(show)({**scope, "user": bob}, receive, send)

    session = (await logged_in(ada))["session"]
    assert (await as_bob(websocket(session), None, None))["user"] is bob


async def test_another_kind_of_identity(ada):
    class ByHeader(AuthMiddleware):
        async def resolve_scope(self, scope):
            name = dict(scope["headers"])[b"x-user"].decode()
            scope["user"]._wrapped = await User.objects.aget(username=name)

    scope = {"type": "websocket", "headers": [(b"x-user", b"ada")]}
    assert (await SessionMiddlewareStack(ByHeader(show))(scope, None, None))["user"] == ada


async def test_the_lane_stays_open_behind_the_stack(ada):
    """Nothing wraps ``send`` or ``receive`` of a WebSocket."""
    session = (await logged_in(ada))["session"]

    class Lane:
        async def send(self, event): ...
        async def receive(self): ...

    lane = Lane()

    async def application(scope, receive, send):
        return lane.send == send and lane.receive == receive

    stack = AuthMiddlewareStack(application)
    assert await stack(websocket(session), lane.receive, lane.send)


async def test_connections_at_the_same_time_keep_their_users_apart(ada, bob):
    """Also where some of them are cancelled while their user is being looked up."""
    sessions = {user: (await logged_in(user))["session"] for user in (ada, bob)}
    stack = AuthMiddlewareStack(show)
    users = [ada, bob, None, bob, ada] * 5
    tasks = [
        asyncio.create_task(stack(websocket(sessions.get(user)), None, None)) for user in users
    ]
    await asyncio.sleep(0)
    for task in tasks[::3]:
        task.cancel()
    scopes = await asyncio.gather(*tasks, return_exceptions=True)
    seen = [
        (user, scope["user"])
        for user, scope in zip(users, scopes, strict=True)
        if not isinstance(scope, asyncio.CancelledError)
    ]
    assert 10 < len(seen) < len(users)
    assert all((user or AnonymousUser()) == found for user, found in seen)


async def test_one_frame_waits_behind_the_stack(ada):
    session = (await logged_in(ada))["session"]
    arrived, leave = asyncio.Event(), asyncio.Event()

    async def consumer(scope, receive, send):
        arrived.set()
        await leave.wait()

    coroutine = AuthMiddlewareStack(consumer)(websocket(session), None, None)
    task = asyncio.create_task(coroutine)
    await arrived.wait()
    assert coroutine.cr_await.cr_code is consumer.__code__
    leave.set()
    await task


# On servers


class WhoAmI(AsyncWebsocketConsumer):
    async def connect(self):
        await self.accept()
        await self.send(text_data=str(self.scope["user"].username))


class Door(AsyncWebsocketConsumer):
    """Logs in and out over the socket."""

    async def receive(self, text_data=None, bytes_data=None):
        if text_data == "out":
            await logout(self.scope)
        else:
            await login(self.scope, await User.objects.aget(username=text_data))
            await self.scope["session"].asave()
        user = await get_user(self.scope)
        await self.send(text_data=f"{user.username}/{self.scope['session'].session_key}")


class SyncDoor(WebsocketConsumer):
    def receive(self, text_data=None, bytes_data=None):
        async_to_sync(login)(self.scope, User.objects.get(username=text_data))
        self.scope["session"].save()
        self.send(text_data=f"{self.scope['user'].username}/{self.scope['session'].session_key}")


@pytest.fixture
async def cookie(ada):
    """The cookie of a browser that logged in through Django's own view of it."""
    client = AsyncClient()
    await client.aforce_login(ada)
    return {"cookie": f"sessionid={client.cookies['sessionid'].value}"}


async def test_who_logged_in_on_a_page_is_known_on_the_websocket(cookie):
    application = AuthMiddlewareStack(WhoAmI.as_asgi())
    async with Server(application, Config(port=0)) as server:
        address = f"ws://127.0.0.1:{server.port}/"
        async with websockets.connect(address, additional_headers=cookie) as socket:
            assert await socket.recv() == "ada"
        async with websockets.connect(address) as socket:
            assert await socket.recv() == ""
    async with uvicorn_serves(application) as port:
        address = f"ws://127.0.0.1:{port}/"
        async with websockets.connect(address, additional_headers=cookie) as socket:
            assert await socket.recv() == "ada"


async def test_login_and_logout_from_a_consumer(ada, bob):
    async with (
        Server(AuthMiddlewareStack(Door.as_asgi()), Config(port=0)) as server,
        websockets.connect(f"ws://127.0.0.1:{server.port}/") as socket,
    ):
        await socket.send("bob")
        name, key = (await socket.recv()).split("/")
        assert name == "bob"
        assert await get_user({"session": db.SessionStore(key)}) == bob
        await socket.send("out")
        assert (await socket.recv()).startswith("/")
        assert not await db.SessionStore().aexists(key)


async def test_login_from_a_synchronous_consumer(bob):
    async with (
        Server(AuthMiddlewareStack(SyncDoor.as_asgi()), Config(port=0)) as server,
        websockets.connect(f"ws://127.0.0.1:{server.port}/") as socket,
    ):
        await socket.send("bob")
        name, key = (await socket.recv()).split("/")
        assert name == "bob"
        assert await get_user({"session": db.SessionStore(key)}) == bob


# The documentation


async def test_the_examples_of_the_page(ada, cookie, settings):
    page = documented("auth.md")
    settings.HEADRACE = page.HEADRACE
    origin = "http://localhost:8000"

    def connect(path, subprotocols=None, **headers):
        return websockets.connect(
            f"ws://127.0.0.1:{server.port}{path}",
            origin=origin,
            subprotocols=subprotocols,
            additional_headers=headers,
        )

    async def first_words(path, subprotocols=None, **headers):
        async with connect(path, subprotocols, **headers) as socket:
            return await socket.recv()

    async def refusal(path, subprotocols=None, **headers):
        with pytest.raises(websockets.InvalidStatus) as e:
            await first_words(path, subprotocols, **headers)
        return e.value.response.status_code

    async with Server(page.application, Config(port=0)) as server:
        assert await first_words("/inbox/", **cookie) == "Welcome, ada."
        assert await refusal("/inbox/") == 403

        token = page.make_token(ada)
        assert await first_words("/api/", authorization=f"Bearer {token}") == "Hello, ada."
        assert await first_words("/api/", ["chat", f"bearer.{token}"]) == "Hello, ada."
        assert await refusal("/api/", authorization=f"Bearer {token}x") == 401
        assert await refusal("/api/", **cookie) == 401
        with patch.object(page.signer, "timestamp", lambda: b62_encode(int(time.time()) - 601)):
            expired = page.make_token(ada)
        assert await refusal("/api/", authorization=f"Bearer {expired}") == 401
        assert await first_words("/either/", **cookie) == "Welcome, ada."
        assert await first_words("/either/", authorization=f"Bearer {token}") == "Welcome, ada."
        assert await refusal("/either/") == 403

        assert await first_words("/lobby/", **cookie) == "You are ada."
        assert await first_words("/lobby/") == "You are somebody."

        async with connect("/door/") as socket:
            await socket.send("ada engine")
            assert await socket.recv() == "Hello, ada."
            await socket.send("ada wrong")
            assert await socket.recv() == "No."
        assert await first_words("/count/", **cookie) == "1"
        assert await first_words("/count/", **cookie) == "2"

        async with connect("/inbox/", **cookie) as socket:
            await sync_to_async(page.ban)(ada)
            await socket.wait_closed()
            assert (socket.close_code, socket.close_reason) == (4401, "banned")
        assert await refusal("/inbox/", **cookie) == 403
        assert await refusal("/api/", authorization=f"Bearer {token}") == 401

    settings.HEADRACE = {}
    async with Server(page.application, Config(port=0)) as server, connect("/door/") as socket:
        await socket.send("bye")
        assert await socket.recv() == "Goodbye."
