import asyncio
import functools
import inspect
import json
import logging
from unittest.mock import AsyncMock

import pytest
import uvicorn
import websockets
from asgiref.compatibility import is_double_callable
from django.core.asgi import get_asgi_application
from django.core.exceptions import ImproperlyConfigured
from django.urls import Resolver404, include, path, re_path
from django.utils.translation import gettext_lazy, override

from headrace.generic.websocket import AsyncWebsocketConsumer
from headrace.middleware import BaseMiddleware
from headrace.routing import (
    ChannelNameRouter,
    NoApplicationError,
    NoRouteError,
    ProtocolTypeRouter,
    URLRouter,
    get_default_application,
)
from headrace.server.config import Config
from headrace.server.server import Server
from tests.documented import documented
from tests.foreign import uvicorn_serves


class Echo(AsyncWebsocketConsumer):
    async def receive(self, text_data=None, bytes_data=None):
        await self.send(text_data=text_data)


class Foreign:
    """A middleware that we know nothing of."""

    def __init__(self, app):
        self.hidden = [app]

    async def __call__(self, scope, receive, send):
        return await self.hidden[0]({**scope, "foreign": True}, receive, send)


def named(name):
    async def application(scope, receive, send):
        return name, scope

    return application


def consumer(name):
    """An application that has the marks of a consumer's."""
    application = named(name)
    application.consumer_class = Echo
    return application


async def route(router, path, **scope):
    """Return what took the path, and with what arguments."""
    name, routed = await router({"type": "websocket", "path": path, **scope}, None, None)
    url_route = routed["url_route"]
    assert routed["path"] == path
    return name, url_route["args"], url_route["kwargs"]


async def remaining(router, path, **scope):
    _, routed = await router({"type": "websocket", "path": path, **scope}, None, None)
    return routed["path_remaining"]


# The default application


def test_the_default_application_is_imported_by_its_name(settings):
    settings.ASGI_APPLICATION = "tests.test_routing.Echo"
    assert get_default_application() is Echo


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        (None, "ASGI_APPLICATION is None"),
        ("application", "dotted path"),
        (Echo, "dotted path"),
        ("tests.nowhere.application", "No module named 'tests.nowhere'"),
        ("tests.test_routing.application", "has no 'application'"),
    ],
)
def test_a_default_application_that_is_not_there(settings, name, complaint):
    settings.ASGI_APPLICATION = name
    with pytest.raises(ImproperlyConfigured, match=complaint):
        get_default_application()


def test_an_unset_default_application(settings):
    settings.ASGI_APPLICATION = "soon gone"
    del settings.ASGI_APPLICATION
    with pytest.raises(ImproperlyConfigured, match=r"project\.asgi\.application"):
        get_default_application()


def test_an_error_inside_the_module_is_not_hidden(settings, tmp_path, monkeypatch):
    (tmp_path / "broken_asgi.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    settings.ASGI_APPLICATION = "broken_asgi.application"
    with pytest.raises(ZeroDivisionError):
        get_default_application()


# By protocol type and by channel


async def test_the_protocol_type_chooses_the_application():
    router = ProtocolTypeRouter({"http": named("pages"), "websocket": named("sockets")})
    assert (await router({"type": "websocket"}, None, None))[0] == "sockets"
    assert (await router({"type": "http"}, None, None))[0] == "pages"


async def test_an_unknown_protocol_type_is_told_what_to_add():
    router = ProtocolTypeRouter({"http": named("pages")})
    with pytest.raises(ValueError, match="add the key 'websocket' to the ProtocolTypeRouter") as e:
        await router({"type": "websocket"}, None, None)
    assert isinstance(e.value, NoApplicationError)
    assert e.value.status == 404


async def test_the_channel_name_chooses_the_application():
    router = ChannelNameRouter({"thumbnails": named("resize"), "mail": named("post")})
    assert (await router({"type": "channel", "channel": "mail"}, None, None))[0] == "post"
    with pytest.raises(ValueError, match="add the key 'print' to the ChannelNameRouter"):
        await router({"type": "channel", "channel": "print"}, None, None)
    with pytest.raises(ValueError, match="a scope with a 'channel'"):
        await router({"type": "http"}, None, None)


# By path


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/plain/", ("plain", (), {})),
        ("plain/", ("plain", (), {})),
        ("//plain/", ("plain", (), {})),
        ("/room/lobby/7/", ("room", (), {"name": "lobby", "number": 7})),
        ("/number/12/", ("number", ("12",), {})),
        ("/named/x/", ("named", (), {"letter": "x"})),
        ("/optional/", ("optional", (), {})),
        ("/defaults/3/", ("defaults", (), {"page": 3, "flavour": "plain"})),
        ("/overridden/a/", ("overridden", (), {"flavour": "b"})),
    ],
)
async def test_a_route_takes_its_path(path, expected):
    assert await route(ROUTER, path) == expected
    assert await remaining(ROUTER, path) == ""


ROUTER = URLRouter(
    [
        path("plain/", named("plain")),
        path("room/<slug:name>/<int:number>/", named("room")),
        re_path(r"^number/(\d+)/$", named("number")),
        re_path(r"^named/(?P<letter>\w)/$", named("named")),
        re_path(r"^optional/(?P<letter>\w)?$", named("optional")),
        path("defaults/<int:page>/", named("defaults"), {"flavour": "plain"}),
        path("overridden/<flavour>/", named("overridden"), {"flavour": "b"}),
        path("plain/", named("too late")),
    ]
)


@pytest.mark.parametrize(
    "path", ["/", "", "/plain", "/plain/more/", "/room/lobby/x/", "/room/lobby/7/8/", "/number/x/"]
)
async def test_a_path_that_nothing_takes_is_a_value_error_with_a_status(path):
    with pytest.raises(ValueError, match="No route found for path") as e:
        await route(ROUTER, path)
    assert isinstance(e.value, NoRouteError)
    assert e.value.status == 404


async def test_an_error_shows_the_path_escaped_and_bounded():
    with pytest.raises(NoRouteError) as e:
        await route(ROUTER, "/\r\n\x1b\u2028" + "x" * 100_000)
    assert str(e.value).isprintable()
    assert len(str(e.value)) < 300
    assert r"\r\n\x1b\u2028xxx" in str(e.value)


async def test_a_scope_without_a_path():
    with pytest.raises(ValueError, match="a scope with a 'path'"):
        await ROUTER({"type": "lifespan"}, None, None)


async def test_the_routers_scope_is_a_copy():
    scope = {"type": "websocket", "path": "/plain/"}
    await ROUTER(scope, None, None)
    assert scope == {"type": "websocket", "path": "/plain/"}


@pytest.mark.parametrize("root_path", ["/app", "/app/", ""])
async def test_the_root_path_is_taken_off(root_path):
    prefix = root_path.rstrip("/")
    assert await route(ROUTER, f"{prefix}/plain/", root_path=root_path) == ("plain", (), {})


@pytest.mark.parametrize("path", ["/plain/", "/appplain/", "/other/plain/", "/app"])
async def test_a_path_outside_of_the_root_path(path):
    with pytest.raises(NoRouteError):
        await route(ROUTER, path, root_path="/app")


async def test_the_root_path_itself_is_the_empty_path():
    router = URLRouter([path("", named("home"))])
    assert await route(router, "/app", root_path="/app") == ("home", (), {})


async def test_a_path_that_another_framework_has_shortened_is_not_shortened_again():
    assert await route(ROUTER, "/app/x/plain/", path_remaining="/plain/", root_path="/app")
    with pytest.raises(Resolver404):
        await route(ROUTER, "/app/x/plane/", path_remaining="/plane/", root_path="/app")


async def test_a_translated_route_follows_the_language():
    router = URLRouter([path(gettext_lazy("Yes"), URLRouter([path("", named("yes"))]))])
    with override("en"):
        assert (await route(router, "/Yes"))[0] == "yes"
    with override("de"):
        assert (await route(router, "/Ja"))[0] == "yes"


# Routers in routers


NESTED = URLRouter(
    [
        path(
            "forum/<int:forum>/",
            URLRouter(
                [
                    path("topic/<slug:topic>/", named("topic")),
                    path("page/<int:forum>/", named("inner wins")),
                    re_path(r"^(\w+)/(\w+)/$", named("pair")),
                ]
            ),
            {"level": 1},
        ),
        re_path(r"^shelf/(\d+)/", URLRouter([re_path(r"^book/(\d+)/$", named("book"))])),
        path("forum/7/search/", named("search")),
        path("", URLRouter([path("deep/", URLRouter([path("", named("deep"))]))])),
    ]
)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/forum/7/topic/news/", ("topic", (), {"forum": 7, "level": 1, "topic": "news"})),
        ("/forum/7/page/8/", ("inner wins", (), {"forum": 8, "level": 1})),
        ("/forum/7/a/b/", ("pair", ("a", "b"), {"forum": 7, "level": 1})),
        ("/shelf/3/book/4/", ("book", ("3", "4"), {})),
        ("/forum/7/search/", ("search", (), {})),
        ("/deep/", ("deep", (), {})),
    ],
)
async def test_captures_add_up_through_nested_routers(path, expected):
    assert await route(NESTED, path) == expected


async def test_where_no_nested_router_has_a_route_the_outermost_owes_a_value_error():
    with pytest.raises(ValueError, match=r"No route found for path 'forum/7/nothing/'\."):
        await route(NESTED, "/forum/7/nothing/")


async def test_a_route_of_a_router_stays_what_it_was():
    inner = path("room/", URLRouter([path("", named("room"))]))
    URLRouter([inner])
    assert inner.pattern.match("room/more") is None, "Django's own object isn't touched"


@pytest.mark.parametrize("middleware", [BaseMiddleware, Foreign])
async def test_where_a_router_behind_middleware_finds_nothing_the_next_route_is_tried(middleware):
    router = URLRouter(
        [
            re_path(r"^live/", middleware(URLRouter([path("chat/", named("chat"))]))),
            re_path(r"^live/", middleware(URLRouter([path("news/", named("news"))]))),
            path("live/other/", named("other")),
        ]
    )
    assert (await route(router, "/live/chat/"))[0] == "chat"
    assert (await route(router, "/live/news/"))[0] == "news"
    assert (await route(router, "/live/other/"))[0] == "other"
    with pytest.raises(ValueError, match="'live/nothing/'"):
        await route(router, "/live/nothing/")


async def test_a_route_that_was_tried_leaves_no_trace_in_the_scope():
    class Staining(Foreign):
        async def __call__(self, scope, receive, send):
            scope["stained"] = True
            return await super().__call__(scope, receive, send)

    router = URLRouter(
        [
            re_path(r"^(\w+)/", Staining(URLRouter([path("never/", named("never"))]))),
            path("live/other/", named("other")),
        ]
    )
    _, scope = await router({"type": "http", "path": "/live/other/"}, None, None)
    assert scope["url_route"] == {"args": (), "kwargs": {}}
    assert "stained" not in scope


async def test_path_matches_a_prefix_where_a_router_stands_behind_known_middleware():
    router = URLRouter([path("live/", BaseMiddleware(URLRouter([path("chat/", named("chat"))])))])
    assert (await route(router, "/live/chat/"))[0] == "chat"


async def test_a_router_of_third_parties_gets_a_prefix_too():
    class Mount:
        _path_routing = True

        async def __call__(self, scope, receive, send):
            return "mounted", scope

    router = URLRouter([path("files/", Mount())])
    assert await route(router, "/files/a/b") == ("mounted", (), {})
    assert await remaining(router, "/files/a/b") == "a/b"


async def test_a_pattern_of_ones_own_is_left_as_it_is():
    class Anything:
        name = None

        def match(self, path):
            return path[1:], (), {}

    odd = path("x", URLRouter([path("bc", named("odd"))]))
    odd.pattern = Anything()
    assert (await route(URLRouter([odd]), "/abc"))[0] == "odd"


async def test_middleware_that_leads_to_itself_is_no_trap():
    loop = BaseMiddleware(named("never"))
    loop.inner = loop
    URLRouter([path("loop/", loop)])


async def test_a_consumer_never_hands_back():
    """Nothing waits behind a consumer, so nothing is tried after it."""

    async def confused(scope, receive, send):
        raise Resolver404("from the consumer's own code")

    confused.consumer_class = Echo
    router = URLRouter([path("a/", confused), path("a/", named("next"))])
    with pytest.raises(Resolver404, match="own code"):
        await route(router, "/a/")


async def test_no_frame_waits_behind_a_router():
    class Parked:
        def __await__(self):
            yield

    async def chat(scope, receive, send):
        await Parked()

    inner = URLRouter([path("chat/", chat)])
    router = ProtocolTypeRouter({"websocket": BaseMiddleware(URLRouter([path("", inner)]))})
    coroutine = router({"type": "websocket", "path": "/chat/"}, None, None)
    coroutine.send(None)
    assert coroutine.cr_await.cr_code is chat.__code__
    coroutine.close()


def test_include_is_refused_with_what_to_write_instead():
    with pytest.raises(ImproperlyConfigured, match=r"include\(\) is not supported in URLRouter"):
        URLRouter([path("x/", include([path("y/", named("y"))]))])


def test_a_consumer_class_is_refused_with_what_to_write_instead():
    with pytest.raises(ImproperlyConfigured, match=r"write Echo.as_asgi\(\)"):
        URLRouter([path("echo/", Echo)])
    with pytest.raises(ImproperlyConfigured, match="'websocket' of the ProtocolTypeRouter leads"):
        ProtocolTypeRouter({"websocket": Echo})
    with pytest.raises(ImproperlyConfigured, match="'thumbnails' of the ChannelNameRouter leads"):
        ChannelNameRouter({"thumbnails": Echo})


@pytest.mark.parametrize(
    "callback",
    [
        functools.partial(named("any")),
        lambda scope, receive, send: named("any")(scope, receive, send),
        AsyncMock(side_effect=named("any")),
    ],
    ids=["partial", "lambda", "mock"],
)
async def test_whatever_returns_an_awaitable_is_an_application(callback):
    assert await route(URLRouter([path("any/", callback)]), "/any/") == ("any", (), {})


async def test_routes_that_come_after_the_router_count_too():
    routes = [path("early/", named("early"))]
    router = URLRouter(routes)
    routes.append(path("late/", named("late")))
    assert (await route(router, "/late/"))[0] == "late"
    assert (await route(router, "/early/"))[0] == "early"


async def test_what_no_other_route_takes_goes_to_the_last():
    router = URLRouter([path("chat/", consumer("chat")), re_path(r"", named("pages"))])
    assert (await route(router, "/chat/"))[0] == "chat"
    assert (await route(router, "/any/thing"))[0] == "pages"


async def test_an_asgi_2_application_is_called_in_two_steps():
    class Old:
        def __init__(self, scope):
            self.scope = scope

        async def __call__(self, receive, send):
            return "old", self.scope

    assert await route(URLRouter([path("old/", Old)]), "/old/") == ("old", (), {})


# On servers


@pytest.mark.parametrize(
    "application",
    [ProtocolTypeRouter({}), URLRouter([]), ChannelNameRouter({})],
    ids=lambda application: type(application).__name__,
)
def test_foreign_servers_take_a_router_for_an_asgi_3_application(application):
    assert inspect.iscoroutinefunction(application.__call__)
    assert not is_double_callable(application)
    config = uvicorn.Config(application, lifespan="off", ws="none", log_config=None)
    config.load()
    assert config.interface == "asgi3"


APPLICATION = ProtocolTypeRouter(
    {
        "http": URLRouter([re_path("^pages/", get_asgi_application())]),
        "websocket": URLRouter([path("echo/", Echo.as_asgi())]),
    }
)


async def test_a_router_under_uvicorn():
    async with (
        uvicorn_serves(APPLICATION) as port,
        websockets.connect(f"ws://127.0.0.1:{port}/echo/") as socket,
    ):
        await socket.send("hello")
        assert await socket.recv() == "hello"


async def refusal(port, path):
    """The status and the text with which a WebSocket is refused."""
    with pytest.raises(websockets.InvalidStatus) as e:
        await websockets.connect(f"ws://127.0.0.1:{port}{path}")
    return e.value.response.status_code, e.value.response.body.decode()


async def get(port, path):
    """The status and the text with which a page is answered."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
    writer.close()
    return int(head.split()[1]), body


async def test_our_server_answers_404_where_there_is_no_route(caplog):
    caplog.set_level(logging.INFO, "headrace")
    async with Server(APPLICATION, Config(port=0)) as server:
        async with websockets.connect(f"ws://127.0.0.1:{server.port}/echo/") as socket:
            await socket.send("hello")
            assert await socket.recv() == "hello"
        caplog.clear()
        for ask in (refusal, get):
            status, text = await ask(server.port, "/nowhere/")
            assert (status, "No route found for path 'nowhere/'." in text) == (404, True)
    refusals = [record for record in caplog.records if "'nowhere/'" in record.getMessage()]
    assert [(record.levelno, record.exc_info) for record in refusals] == [(logging.INFO, None)] * 2


@pytest.mark.parametrize("ask", [refusal, get])
async def test_a_protocol_that_nobody_serves_is_a_warning(caplog, ask):
    caplog.set_level(logging.INFO, "headrace")
    async with Server(ProtocolTypeRouter({}), Config(port=0)) as server:
        caplog.clear()
        status, _ = await ask(server.port, "/")
        assert status == 404
        (record,) = [r for r in caplog.records if "no application" in r.getMessage()]
    assert (record.levelno, record.exc_info) == (logging.WARNING, None)


async def test_an_error_with_a_level_that_is_none(caplog):
    class OddError(Exception):
        status, log_level = 410, "loud"

    async def application(scope, receive, send):
        raise OddError("gone")

    caplog.set_level(logging.INFO, "headrace")
    application = ProtocolTypeRouter({"http": application})
    async with Server(application, Config(port=0)) as server:
        assert (await get(server.port, "/"))[0] == 410
    assert [r.levelname for r in caplog.records if "refused with 410" in r.getMessage()] == ["INFO"]


# The documentation


async def test_the_examples_of_the_page():
    page = documented("routing.md")
    await page.test_unknown_path()
    async with Server(page.application, Config(port=0)) as server:
        address, origin = f"ws://127.0.0.1:{server.port}", "http://localhost:8000"
        async with websockets.connect(f"{address}/rooms/lobby/", origin=origin) as socket:
            assert json.loads(await socket.recv()) == {"room": "lobby"}
        async with websockets.connect(f"{address}/archive/2030-01/", origin=origin) as socket:
            assert json.loads(await socket.recv()) == {"room": "2030-01"}
        with pytest.raises(websockets.InvalidStatus) as e:
            await websockets.connect(f"{address}/rooms/lobby/", origin="http://evil.example")
        assert e.value.response.status_code == 403
    async with Server(page.routes, Config(port=0)) as server:
        address = f"ws://127.0.0.1:{server.port}"
        for path in ("/support/7/lobby/", "/rooms/lobby/"):
            async with websockets.connect(address + path) as socket:
                assert json.loads(await socket.recv()) == {"room": "lobby"}
    with pytest.raises(ValueError, match="'mail'"):
        await page.background({"type": "channel", "channel": "mail"}, None, None)
