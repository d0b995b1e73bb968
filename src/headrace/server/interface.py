"""Which interface an application speaks, told by how it wants to be called.

Rules of this file:

- Nothing is called to find out: the signature decides, and where it leaves both open, the names.
- ASGI is the answer where there is none: this is an ASGI server.
"""

import inspect
from collections.abc import Callable
from enum import StrEnum
from inspect import Parameter
from typing import Any

from asgiref.sync import iscoroutinefunction

from .runtime import ASGIApplication, Receive, Scope, Send

__all__ = ["Interface", "as_asgi", "interface_of"]


class Interface(StrEnum):
    """How an application is called."""

    #: ``await app(scope, receive, send)``.
    ASGI = "asgi"
    #: ``await app(scope)(receive, send)``, as ASGI 2 had it.
    ASGI2 = "asgi2"
    #: ``app(environ, start_response)`` (PEP 3333).
    WSGI = "wsgi"


#: By the number of arguments.
_BY_NUMBER = {1: Interface.ASGI2, 2: Interface.WSGI, 3: Interface.ASGI}
#: By the name of the first one, what is likely first.
_NAMED = {
    "scope": (Interface.ASGI, Interface.ASGI2),
    "environ": (Interface.WSGI,),
    "env": (Interface.WSGI,),
}


def interface_of(app: Callable[..., Any]) -> Interface:
    """Tell which interface an application speaks.

    Functions, classes, instances, methods and partials are all told apart. What takes whatever
    it is given (``*args``), and names nothing, is taken for ASGI.
    """
    if not inspect.isclass(app) and any(
        map(iscoroutinefunction, (app, getattr(app, "__call__", None)))  # noqa: B004
    ):
        return Interface.ASGI
    try:
        parameters = inspect.signature(app).parameters.values()
    except (TypeError, ValueError):
        return Interface.ASGI
    positional = [
        parameter
        for parameter in parameters
        if parameter.kind in (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
    ]
    least = sum(parameter.default is Parameter.empty for parameter in positional)
    whatever = any(parameter.kind is Parameter.VAR_POSITIONAL for parameter in parameters)
    most = len(_BY_NUMBER) if whatever else len(positional)
    possible = [interface for number, interface in _BY_NUMBER.items() if least <= number <= most]
    if not possible:
        return Interface.ASGI
    named = _NAMED.get(positional[0].name, ()) if positional else ()
    for interface in named:
        if interface in possible:
            return interface
    return Interface.ASGI if whatever and least < len(_BY_NUMBER) - 1 else possible[0]


def as_asgi(app: Callable[..., Any], interface: Interface) -> ASGIApplication:
    """Return an ASGI application of either version as one of version 3."""
    if interface is not Interface.ASGI2:
        return app

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await app(scope)(receive, send)

    return application
