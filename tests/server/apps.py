"""Applications for a server in a process of its own; what they have to tell goes to stdout."""

import asyncio
import os
import signal
import sys
import threading

from .clients import echo, respond


def tell(what):
    print(what, flush=True)


async def lifespan(receive, send):
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    tell("lifespan.shutdown")
    await send({"type": "lifespan.shutdown.complete"})


async def application(scope, receive, send):
    """HTTP: says that it began, waits for half a body, answers. WebSocket: tells of its end."""
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
    elif scope["type"] == "http":
        if scope["path"] == "/for-ever":
            tell("begun")
            await asyncio.Event().wait()
        if scope["path"] == "/thread":
            tell("begun")
            await asyncio.to_thread(threading.Event().wait)
        if scope["path"] == "/body":
            tell("begun")
        await echo(scope, receive, send)
    else:
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({**message, "type": "websocket.send"})
        tell(f"disconnect {message['code']}")


async def whether_http2_is_imported(scope, receive, send):
    await respond(send, b"yes" if "headrace.server.http2" in sys.modules else b"no")


async def can_not_start(scope, receive, send):
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "the well is dry"})


async def never_starts(scope, receive, send):
    tell("starting")
    await asyncio.Event().wait()


async def stops_itself(scope, receive, send):
    """What a supervisor does, from inside: for tests that run the command in their own process."""
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        os.kill(os.getpid(), signal.SIGTERM)
        await receive()
        await send({"type": "lifespan.shutdown.complete"})


async def hello(scope, receive, send):
    await respond(send, b"hello")


class Holder:
    inner = staticmethod(hello)


class Factory:
    name = "x-nothing"

    def negotiate(self, parameters):
        return None


factory = Factory()
NOT_A_FACTORY = object()


def wsgi(environ, start_response):
    """HTTP: says in which thread; waits for ever where it is asked to."""
    if environ["PATH_INFO"] == "/thread":
        tell("begun")
        threading.Event().wait()
    start_response("200 OK", [])
    return [threading.current_thread().name.encode()]


class Asgi2:
    """What ASGI was before its third version."""

    def __init__(self, scope):
        pass

    async def __call__(self, receive, send):
        await respond(send, b"hello")
