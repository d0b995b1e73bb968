"""How an application wants to be called."""

import functools

import pytest
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint

from headrace.generic.websocket import AsyncWebsocketConsumer
from headrace.routing import ProtocolTypeRouter, URLRouter
from headrace.server.interface import Interface, as_asgi, interface_of

from .clients import connected, hello, respond, serving


def wsgi(environ, start_response):
    start_response("200 OK", [])
    return [b"wsgi"]


def wsgi_of_other_names(e, s, /):
    return wsgi(e, s)


def wsgi_with_an_option(environ, start_response, encoding="utf-8"):
    return wsgi(environ, start_response)


def wsgi_with_a_setting(environ, start_response, *, encoding):
    return wsgi(environ, start_response)


def wsgi_that_takes_more(environ, *rest):
    return wsgi(environ, *rest)


class LikeFlask:
    """An object whose class says how it is called, and which has a method for it, too."""

    def wsgi_app(self, environ, start_response):
        return wsgi(environ, start_response)

    def __call__(self, environ, start_response):
        return self.wsgi_app(environ, start_response)


class Generated:
    """A class whose instances are the responses."""

    def __init__(self, environ, start_response):
        self.start_response = start_response

    def __iter__(self):
        self.start_response("200 OK", [])
        yield b"wsgi"


def decorated(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)

    return wrapper


def with_settings(settings, environ, start_response):
    return wsgi(environ, start_response)


def asgi_without_async(scope, receive, send):
    return hello(scope, receive, send)


def asgi_with_an_option(scope, receive, send, option=None):
    return hello(scope, receive, send)


class Asgi:
    async def __call__(self, scope, receive, send):
        await respond(send, b"hello")


class AsgiInOneGo:
    def __init__(self, scope, receive, send):
        self.send = send

    def __await__(self):
        return respond(self.send, b"hello").__await__()


class Asgi2:
    def __init__(self, scope):
        pass

    async def __call__(self, receive, send):
        await respond(send, b"hello")


class Asgi2WithAnOption:
    def __init__(self, scope, option=None):
        pass

    async def __call__(self, receive, send):
        await respond(send, b"hello")


def asgi2(scope):
    return Asgi2(scope)


def takes_anything(*args, **kwargs):
    return None


def takes_names_alone(**kwargs):
    return None


def takes_four(scope_, receive, send, more):
    return None


WSGI = [
    wsgi,
    wsgi_of_other_names,
    wsgi_with_an_option,
    wsgi_with_a_setting,
    wsgi_that_takes_more,
    LikeFlask(),
    LikeFlask().wsgi_app,
    Generated,
    decorated(wsgi),
    functools.partial(with_settings, {}),
    functools.partial(wsgi_with_a_setting, encoding="utf-8"),
    lambda environ, start_response: wsgi(environ, start_response),
    lambda a, b: wsgi(a, b),
]
ASGI = [
    hello,
    asgi_without_async,
    asgi_with_an_option,
    Asgi(),
    AsgiInOneGo,
    decorated(hello),
    functools.partial(hello),
    takes_anything,
    takes_names_alone,
    takes_four,
    Starlette(),
    HTTPEndpoint,
    AsyncWebsocketConsumer.as_asgi(),
    ProtocolTypeRouter({"http": URLRouter([])}),
    min,
]


@pytest.mark.parametrize("app", WSGI)
def test_wsgi(app):
    assert interface_of(app) is Interface.WSGI


@pytest.mark.parametrize("app", ASGI)
def test_asgi(app):
    assert interface_of(app) is Interface.ASGI


@pytest.mark.parametrize("app", [Asgi2, Asgi2WithAnOption, asgi2, functools.partial(asgi2)])
def test_asgi_2(app):
    assert interface_of(app) is Interface.ASGI2


def test_django():
    assert interface_of(get_wsgi_application()) is Interface.WSGI
    assert interface_of(get_asgi_application()) is Interface.ASGI


@pytest.mark.parametrize("app", [hello, Asgi(), AsgiInOneGo, Asgi2, asgi2])
async def test_each_kind_of_asgi_is_served(app):
    async with serving(as_asgi(app, interface_of(app))) as server, connected(server) as client:
        assert (await client.get()).body == b"hello"
