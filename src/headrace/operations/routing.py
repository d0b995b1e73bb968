"""Where the page's socket is.

::

    from headrace.operations.routing import websocket_urlpatterns as operations

    URLRouter([*operations, *my_own])

The route brings its own guards, and may stand behind others, or behind none.
"""

from typing import Any

from django.urls import path

from ..auth import AuthMiddlewareStack
from ..middleware import ASGIApplication
from .admin import SOCKET_PATH
from .consumer import OperationsConsumer
from .origin import SameOriginValidator

__all__ = ["socket", "websocket_urlpatterns"]


def socket(**options: Any) -> ASGIApplication:
    """Return the page's socket as an ASGI application.

    ``site=`` names another admin site than ``django.contrib.admin.site``.
    """
    return SameOriginValidator(AuthMiddlewareStack(OperationsConsumer.as_asgi(**options)))


websocket_urlpatterns = [path(SOCKET_PATH, socket())]  # type: ignore[arg-type]
