import asyncio
import contextlib
import uuid
from functools import partial

import pytest
import websockets
from asgiref.sync import async_to_sync, sync_to_async
from django.contrib.auth import user_logged_out
from django.contrib.auth.models import AnonymousUser, User
from django.contrib.contenttypes.models import ContentType
from django.contrib.sessions.backends.cache import SessionStore as CacheStore
from django.contrib.sessions.backends.db import SessionStore
from django.db import transaction
from django.db.models.signals import post_delete, pre_save
from django.http import HttpRequest
from django.test import AsyncClient
from django.utils.functional import SimpleLazyObject

from headrace.auth import (
    AuthMiddleware,
    AuthMiddlewareStack,
    BearerTokenMiddleware,
    UserLazyObject,
    aclose_user_sockets,
    close_user_sockets,
    get_user,
    login,
    logout,
    sockets,
)
from headrace.exceptions import CloseCode, InvalidChannelLayerError
from headrace.generic.websocket import AsyncWebsocketConsumer
from headrace.layers import BaseChannelLayer, InMemoryChannelLayer, channel_layers
from headrace.middleware import MEMBERSHIP
from headrace.server.config import Config
from headrace.server.server import Server
from headrace.sessions import SessionMiddlewareStack
from headrace.testing.websocket import WebsocketCommunicator
from headrace.views import websocket_view
from tests.foreign import uvicorn_serves

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def on(settings):
    settings.HEADRACE = {"CLOSE_ON_LOGOUT": True}
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": "headrace.layers.InMemoryChannelLayer"}}


@pytest.fixture
async def ada():
    return await User.objects.acreate_user("ada", password="engine")


@pytest.fixture
async def bob():
    return await User.objects.acreate_user("bob", password="builder")


class Parlour(AsyncWebsocketConsumer):
    """Says who came, and does as it is told."""

    ended = None
    awake = None

    async def connect(self):
        await self.accept()
        await self.send(text_data=self.scope["user"].username or "nobody")

    async def receive(self, text_data=None, bytes_data=None):
        word, _, name = text_data.partition(" ")
        if word == "in":
            await login(self.scope, await User.objects.aget(username=name))
            await self.scope["session"].asave()
        elif word == "out":
            await logout(self.scope)
        elif word == "sleep":
            await self.awake.wait()
        await self.send(text_data=f"done: {text_data}")

    async def disconnect(self, code):
        if self.ended is not None:
            self.ended.append(code)


class Browser(AsyncClient):
    """Somebody's browser: it logs in on a page, and opens WebSockets."""

    port = None

    @contextlib.asynccontextmanager
    async def open(self, greeting):
        cookies = "; ".join(f"{name}={morsel.value}" for name, morsel in self.cookies.items())
        async with websockets.connect(
            f"ws://127.0.0.1:{self.port}/", additional_headers={"cookie": cookies}
        ) as socket:
            assert await socket.recv() == greeting
            yield socket


@pytest.fixture
async def browsers(ada, bob):
    """A browser of Bob's and two of Ada's, which the server of this test knows."""

    @contextlib.asynccontextmanager
    async def serve(application=None, serving=None):
        application = application or AuthMiddlewareStack(Parlour.as_asgi())
        opened = []
        for user in (ada, ada, bob):
            opened.append(Browser())
            await opened[-1].aforce_login(user)
        async with serving or Server(application, Config(port=0)) as server:
            for browser in opened:
                browser.port = getattr(server, "port", server)
            yield opened

    return serve


async def end_of(socket):
    """How the WebSocket is closed."""
    async with asyncio.timeout(10):
        await socket.wait_closed()
    return socket.close_code


async def is_open(socket):
    await socket.send("still here?")
    return await socket.recv() == "done: still here?"


# What ends a login


async def test_a_logout_closes_the_sockets_of_that_session(browsers):
    ended = []
    application = AuthMiddlewareStack(Parlour.as_asgi(ended=ended))
    async with (
        browsers(application) as (laptop, phone, of_bob),
        laptop.open("ada") as one,
        laptop.open("ada") as two,
        phone.open("ada") as three,
        of_bob.open("bob") as four,
    ):
        await laptop.alogout()
        assert await end_of(one) == await end_of(two) == CloseCode.LOGGED_OUT == 4401
        assert await is_open(three)
        assert await is_open(four)
        assert ended == [4401, 4401]
        async with laptop.open("nobody"):
            pass


async def change_password(user):
    user.set_password("difference")
    await user.asave()


async def deactivate(user):
    user.is_active = False
    await user.asave(update_fields=["is_active"])


async def delete(user):
    await user.adelete()


@pytest.mark.parametrize("end", [change_password, deactivate, delete])
async def test_what_ends_every_login_of_a_user_closes_every_socket(browsers, ada, end):
    async with (
        browsers() as (laptop, phone, of_bob),
        laptop.open("ada") as one,
        phone.open("ada") as two,
        of_bob.open("bob") as three,
    ):
        await end(ada)
        assert await end_of(one) == await end_of(two) == 4401
        assert await is_open(three)
        async with laptop.open("nobody"):
            pass


async def test_what_ends_no_login_closes_nothing(browsers, ada, django_assert_num_queries):
    async with browsers() as (laptop, _, _), laptop.open("ada") as socket:
        ada.email = "ada@example.com"
        await ada.asave()

        def log_in():
            with django_assert_num_queries(1):
                ada.save(update_fields=["last_login"])

        await sync_to_async(log_in)()
        await sync_to_async(ada.save_base)(raw=True)
        await User.objects.acreate_user("eve")
        await User(pk=uuid.uuid4().int >> 80, username="new").asave()
        await User.objects.filter(username="eve").adelete()
        assert await is_open(socket)


async def test_a_proxy_of_the_user_model_is_heard_too(browsers, ada, monkeypatch):
    class Member(User):
        class Meta:
            proxy = True
            app_label = "auth"

    try:
        sockets.follow_setting()  # as when the project starts
        async with browsers() as (laptop, _, _), laptop.open("ada") as socket:
            member = await Member.objects.aget(pk=ada.pk)
            await deactivate(member)
            assert await end_of(socket) == 4401
    finally:
        apps = Member._meta.apps
        del apps.all_models["auth"]["member"]
        apps.clear_cache()
        sockets.follow_setting()


async def test_a_busy_handler_holds_nothing_up(browsers, ada):
    awake = asyncio.Event()
    application = AuthMiddlewareStack(Parlour.as_asgi(awake=awake))
    async with browsers(application) as (laptop, _, _), laptop.open("ada") as socket:
        await socket.send("sleep")
        await deactivate(ada)
        assert await end_of(socket) == 4401
        awake.set()


async def test_a_socket_that_is_not_accepted_yet_is_closed_then(ada):
    arrived, let_in = asyncio.Event(), asyncio.Event()

    class Slow(AsyncWebsocketConsumer):
        async def connect(self):
            arrived.set()
            await let_in.wait()
            await self.accept()

    browser = Browser()
    await browser.aforce_login(ada)
    cookie = f"sessionid={browser.cookies['sessionid'].value}"
    async with Server(AuthMiddlewareStack(Slow.as_asgi()), Config(port=0)) as server:
        opening = asyncio.create_task(
            websockets.connect(
                f"ws://127.0.0.1:{server.port}/", additional_headers={"cookie": cookie}
            ).__aenter__()
        )
        await arrived.wait()
        await deactivate(ada)
        let_in.set()
        assert await end_of(await opening) == 4401


@websocket_view
async def view(socket):
    await socket.send(socket.user.username)
    async for message in socket:
        await socket.send(f"done: {message}")


class Handling(Parlour):
    """Sees what is sent to its client: nothing bypasses it."""

    async def websocket_send(self, event):
        raise AssertionError


class Elsewhere(Parlour):
    channel_layer_alias = "other"


class Pulled(InMemoryChannelLayer):
    """A layer that has to be asked, as those of other projects."""

    pushes = False


@pytest.mark.parametrize(
    "application",
    [view, Handling.as_asgi(), Elsewhere.as_asgi(), Parlour.as_asgi(channel_layer_alias="pulled")],
    ids=["view", "handled", "another layer", "a layer that can't push"],
)
@pytest.mark.parametrize("foreign", [True, False])
async def test_whatever_the_application_and_the_server(
    browsers, ada, settings, application, foreign
):
    settings.CHANNEL_LAYERS = {
        "default": {"BACKEND": "headrace.layers.InMemoryChannelLayer"},
        "other": {"BACKEND": "headrace.layers.InMemoryChannelLayer"},
        "pulled": {"BACKEND": "tests.test_auth_sockets.Pulled"},
        "plain": {"BACKEND": "headrace.layers.BaseChannelLayer"},
    }
    application = AuthMiddlewareStack(application)
    serving = uvicorn_serves(application) if foreign else None
    async with (
        browsers(application, serving) as (laptop, phone, _),
        laptop.open("ada") as one,
        phone.open("ada") as two,
    ):
        await laptop.alogout()
        assert await end_of(one) == 4401
        assert await is_open(two)
        await deactivate(ada)
        assert await end_of(two) == 4401
        await asyncio.sleep(0)
    for layer in channel_layers.backends.values():
        groups = getattr(layer, "groups", {})
        async with asyncio.timeout(5):
            while groups:  # noqa: ASYNC110 - the consumer leaves them after its client has gone
                await asyncio.sleep(0.001)


# When it closes them


async def test_the_login_is_gone_before_a_socket_is_closed(browsers, ada, monkeypatch):
    """A client that is closed comes back at once, before Django has deleted the session."""
    at_the_close = []

    def note(layer, group, event):
        at_the_close.append(SessionStore().exists(key))

    data = []

    def hear(request, **_):
        data.append(request.session["colour"])

    async with browsers() as (laptop, _, _):
        key = laptop.cookies["sessionid"].value
        session = SessionStore(key)
        await session.aset("colour", "red")
        await session.asave()
        monkeypatch.setattr(InMemoryChannelLayer, "group_send_sync", note)
        user_logged_out.connect(hear)
        try:
            await laptop.alogout()
        finally:
            user_logged_out.disconnect(hear)
    assert at_the_close == [False]
    assert data == ["red"], "who hears the signal finds in the session what was there"


async def leave_the_session(scope):
    await type(scope["session"])().adelete(scope["session"].session_key)


async def leave_the_site(scope):
    await User.objects.filter(username="ada").aupdate(is_active=False)


async def leave_for_good(scope):
    await User.objects.filter(username="ada").adelete()


async def let_in_meanwhile(leave, stack, headers):
    """Between the look at the database and the group is a moment in which nobody is told."""

    async def meanwhile(scope, receive, send):
        await leave(scope)
        return await Parlour.as_asgi()(scope, receive, send)

    async with WebsocketCommunicator(stack(meanwhile), "/", headers=headers) as communicator:
        assert await communicator.connect() == (True, None)
        return [await communicator.receive_output() for _ in range(2)]


@pytest.mark.parametrize("leave", [leave_the_session, leave_the_site, leave_for_good])
async def test_a_session_that_ends_while_the_socket_is_let_in(ada, leave):
    browser = Browser()
    await browser.aforce_login(ada)
    cookie = f"sessionid={browser.cookies['sessionid'].value}".encode()
    events = await let_in_meanwhile(leave, AuthMiddlewareStack, [(b"cookie", cookie)])
    assert CLOSE in events


@pytest.mark.parametrize("leave", [leave_the_site, leave_for_good])
async def test_a_user_who_goes_while_the_socket_is_let_in_by_a_token(ada, leave):
    async def verify(token):
        return await User.objects.aget(username=token)

    events = await let_in_meanwhile(
        leave,
        partial(BearerTokenMiddleware, verify=verify),
        [(b"authorization", b"Bearer ada")],
    )
    assert CLOSE in events


async def test_a_middleware_may_log_in_and_save_later(ada):
    """What is in the scope is newer than what is stored."""
    browser = Browser()
    session = await browser.asession()
    await session.aset("colour", "red")
    await session.asave()
    cookie = f"sessionid={session.session_key}".encode()

    async def application(scope, receive, send):
        await login(scope, ada)
        return await Parlour.as_asgi()(scope, receive, send)

    async with WebsocketCommunicator(
        AuthMiddlewareStack(application), "/", headers=[(b"cookie", cookie)]
    ) as communicator:
        await communicator.connect()
        assert await communicator.receive_from() == "ada"
        assert await communicator.receive_nothing(0.01)


async def test_in_a_transaction_it_waits_for_the_commit(browsers, ada):
    async with browsers() as (laptop, _, _), laptop.open("ada") as socket:

        def change_in_a_transaction(then):
            with transaction.atomic():
                User.objects.get(username="ada").save()
                user = User.objects.get(username="ada")
                user.set_password(str(then))
                user.save()
                then()

        def change_their_mind():
            raise RuntimeError

        with pytest.raises(RuntimeError):
            await sync_to_async(change_in_a_transaction)(change_their_mind)
        assert await is_open(socket)
        await sync_to_async(change_in_a_transaction)(lambda: async_to_sync(is_open)(socket))
        assert await end_of(socket) == 4401


async def test_layers_that_fail_fail_no_logout(browsers, ada, monkeypatch, caplog):
    async def failing(self, group, message):
        raise ConnectionError("the layer's server is down")

    async with browsers() as (laptop, _, _), laptop.open("ada") as socket:
        monkeypatch.setattr(InMemoryChannelLayer, "group_send", failing)
        monkeypatch.setattr(InMemoryChannelLayer, "group_send_sync", async_to_sync(failing))
        await laptop.alogout()
        assert "'websocket.close' was not sent after the commit" in caplog.text
        assert await is_open(socket)
        with pytest.raises(ConnectionError):
            await aclose_user_sockets(ada)


async def test_a_session_that_can_not_be_deleted_fails_no_logout(ada, monkeypatch, caplog):
    def failing(self, key=None):
        raise ConnectionError("the store is down")

    session = CacheStore()
    await session.acreate()
    monkeypatch.setattr(CacheStore, "delete", failing)
    request = HttpRequest()
    request.session = session
    await user_logged_out.asend(sender=User, request=request, user=ada)
    assert "could not be deleted" in caplog.text


async def test_a_logout_on_the_loops_own_thread(ada):
    """A store without a database lets ``django.contrib.auth.logout`` run anywhere."""
    session = CacheStore()
    await session.acreate()
    request = HttpRequest()
    request.session = session
    communicator = WebsocketCommunicator(with_user(ada), "/")
    communicator.scope["session"] = session
    await communicator.connect()
    assert await communicator.receive_from() == "ada"
    user_logged_out.send(sender=User, request=request, user=ada)
    assert await communicator.receive_output() == CLOSE
    communicator.stop()


async def test_logouts_that_end_nothing(ada):
    request = HttpRequest()
    user_logged_out.send(sender=User, request=None, user=ada)
    user_logged_out.send(sender=User, request=request, user=ada)
    request.session = SessionStore()
    user_logged_out.send(sender=User, request=request, user=ada)
    user_logged_out.send(sender=User, request=request, user=None)


async def test_signed_cookies_have_nothing_to_delete(ada, settings):
    """Their keys are all that there is of them: a logout finds its sockets, and they can return."""
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"
    browser = Browser()
    await browser.aforce_login(ada)
    cookie = browser.cookies["sessionid"].value.encode()
    application = AuthMiddlewareStack(Parlour.as_asgi())
    communicator = WebsocketCommunicator(application, "/", [(b"cookie", b"sessionid=" + cookie)])
    await communicator.connect()
    assert await communicator.receive_from() == "ada"
    await browser.alogout()
    assert (await communicator.receive_output())["code"] == 4401
    communicator.stop()


# Over the socket


async def test_a_login_over_the_socket_can_be_ended(browsers, bob):
    async with browsers() as (laptop, _, _), laptop.open("ada") as socket:
        await socket.send("in bob")
        assert await socket.recv() == "done: in bob"
        await deactivate(await User.objects.aget(username="ada"))
        assert await is_open(socket), "it is Bob's now"
        await deactivate(bob)
        assert await end_of(socket) == 4401


async def test_a_login_of_nobody_before(ada):
    async with Server(AuthMiddlewareStack(Parlour.as_asgi()), Config(port=0)) as server:
        browser = Browser()
        browser.port = server.port
        async with browser.open("nobody") as socket:
            assert channel_layers["default"].groups == {}
            await socket.send("in ada")
            assert await socket.recv() == "done: in ada"
            assert len(channel_layers["default"].groups) == 2
            await delete(ada)
            assert await end_of(socket) == 4401


async def test_a_logout_over_the_socket_closes_the_session_s_sockets(browsers):
    async with (
        browsers() as (laptop, phone, _),
        laptop.open("ada") as one,
        laptop.open("ada") as two,
        phone.open("ada") as three,
    ):
        await one.send("out")
        assert await end_of(one) == await end_of(two) == 4401
        assert await is_open(three)


async def test_a_logout_of_nobody_closes_nothing():
    scope = {"session": SessionStore(), "user": AnonymousUser()}
    await logout(scope)
    assert isinstance(await get_user(scope), AnonymousUser)


# By hand


CLOSE = {"type": "websocket.close", "code": 4401, "reason": ""}


def with_user(user, application=None):
    """A stack whose user is known without a session."""

    class Known(AuthMiddleware):
        def populate_scope(self, scope):
            scope["user"] = user

    return Known(application or Parlour.as_asgi())


async def test_sockets_are_closed_by_hand(ada, bob):
    for close in (
        partial(aclose_user_sockets, ada),
        partial(aclose_user_sockets, ada.pk),
        partial(aclose_user_sockets, str(ada.pk)),
        partial(aclose_user_sockets, SimpleLazyObject(lambda: ada)),
        partial(sync_to_async(close_user_sockets), ada),
    ):
        of_ada = WebsocketCommunicator(with_user(ada), "/")
        of_bob = WebsocketCommunicator(with_user(bob), "/")
        async with of_ada, of_bob:
            await of_ada.connect()
            await of_bob.connect()
            assert await of_ada.receive_from() == "ada"
            assert await of_bob.receive_from() == "bob"
            await close(code=4999, reason="bye")
            expected = {"type": "websocket.close", "code": 4999, "reason": "bye"}
            assert await of_ada.receive_output() == expected
            assert await of_bob.receive_nothing(0.01)


async def test_the_sockets_of_one_session_are_closed_by_hand(browsers, ada):
    async with (
        browsers() as (laptop, phone, _),
        laptop.open("ada") as one,
        phone.open("ada") as two,
    ):
        await aclose_user_sockets(ada, session_key=laptop.cookies["sessionid"].value)
        assert await end_of(one) == 4401
        assert await is_open(two)


async def test_a_code_that_may_not_be_sent(ada):
    communicator = WebsocketCommunicator(with_user(ada), "/")
    async with communicator:
        await communicator.connect()
        with pytest.raises(ValueError, match="a code that may be sent"):
            await aclose_user_sockets(ada, code=1006)


async def test_the_user_of_a_bearer_token(ada):
    async def verify(token):
        return await User.objects.aget(username=token)

    application = BearerTokenMiddleware(Parlour.as_asgi(), verify)
    communicator = WebsocketCommunicator(application, "/", [(b"authorization", b"Bearer ada")])
    async with communicator:
        await communicator.connect()
        assert await communicator.receive_from() == "ada"
        await change_password(ada)
        assert await communicator.receive_output() == CLOSE


# Who is in no group


class Robot:
    is_authenticated, username = True, "robot"


@(
    pytest.mark.parametrize(
        "user", [AnonymousUser(), Robot(), UserLazyObject(), SimpleLazyObject(Robot)], ids=repr
    )
    if False
    else pytest.mark.parametrize("kind", ["anonymous", "robot", "unknown", "lazy"])
)
async def test_who_is_not_in_the_database_is_in_no_group(kind):
    user = {
        "anonymous": AnonymousUser(),
        "robot": Robot(),
        "unknown": UserLazyObject(),
        "lazy": SimpleLazyObject(Robot),
    }[kind]

    @websocket_view
    async def view(socket):
        await socket.send(f"groups: {len(channel_layers['default'].groups)}")

    class Careless(AuthMiddleware):
        def populate_scope(self, scope):
            scope["user"] = user

        async def resolve_scope(self, scope):
            pass

    communicator = WebsocketCommunicator(Careless(view), "/")
    await communicator.connect()
    assert await communicator.receive_from() == "groups: 0"
    communicator.stop()


async def test_http_has_no_membership(ada):
    async def show(scope, receive, send):
        return scope

    assert MEMBERSHIP not in await with_user(ada, show)({"type": "http"}, None, None)
    assert MEMBERSHIP in await with_user(ada, show)({"type": "websocket"}, None, None)


@pytest.mark.parametrize(
    "layers", [{}, {"default": {"BACKEND": "headrace.layers.BaseChannelLayer"}}]
)
async def test_without_groups_it_can_not_be_kept(ada, settings, layers, monkeypatch):
    async def new_channel(self, prefix="specific"):
        return "specific!x"

    async def receive(self, channel):
        await asyncio.Event().wait()

    monkeypatch.setattr(BaseChannelLayer, "new_channel", new_channel)
    monkeypatch.setattr(BaseChannelLayer, "receive", receive)
    settings.CHANNEL_LAYERS = layers
    communicator = WebsocketCommunicator(with_user(ada), "/")
    with pytest.raises(InvalidChannelLayerError, match="needs a channel layer with groups"):
        await communicator.connect()


async def test_a_group_that_can_not_be_left_holds_nothing_up(ada, monkeypatch, caplog):
    async def failing(self, group, channel):
        raise ConnectionError("the layer's server is down")

    communicator = WebsocketCommunicator(with_user(ada), "/")
    await communicator.connect()
    monkeypatch.setattr(InMemoryChannelLayer, "group_discard", failing)
    await communicator.disconnect()
    assert caplog.text.count("a WebSocket could not leave the group headrace.user.") == 1


async def test_names_of_groups_are_legal_and_tell_nothing(ada):
    layer = BaseChannelLayer()
    names = [
        sockets._user_group(ada),
        sockets._user_group(User(pk=ada.pk + 1)),
        sockets._user_group(ContentType(pk=ada.pk)),
        sockets._session_group("a" * 4000),
        sockets._session_group("key"),
    ]
    assert len(set(names)) == len(names), "another table has keys of its own"
    assert all(map(layer.require_valid_group_name, names))
    assert not any("key" in name for name in names)


# When it is off


@pytest.mark.parametrize("setting", [{}, {"CLOSE_ON_LOGOUT": False}, {"CLOSE_ON_LOGUT": True}])
async def test_when_it_is_off_nothing_is_heard_and_nobody_joins(settings, ada, setting):
    assert pre_save.has_listeners(User)
    settings.HEADRACE = setting
    assert not pre_save.has_listeners(User)
    assert not post_delete.has_listeners(User)
    if "CLOSE_ON_LOGUT" not in setting:
        scope = {"type": "websocket"}
        sockets.register(scope)
        assert scope == {"type": "websocket"}
        await sockets.move(scope)
        with pytest.raises(ValueError, match=r"set HEADRACE\['CLOSE_ON_LOGOUT'\] to True"):
            await aclose_user_sockets(ada)


async def test_a_scope_without_a_consumer_changes_its_user(ada):
    """Nobody joined: there is no channel to be put anywhere."""
    scope = {}

    async def keep(inner, receive, send):
        scope.update(inner)

    await SessionMiddlewareStack(AuthMiddleware(keep))(
        {"type": "websocket", "headers": []}, None, None
    )
    await login(scope, ada)
    assert channel_layers["default"].groups == {}
