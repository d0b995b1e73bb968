"""Who answers what, by its path: the four ways, each with a meter around it, and the page."""

from django.urls import path

from headrace.auth import AuthMiddlewareStack
from polling.consumers import FeedSocket, FeedStream, PageConsumer
from polling.ledger import metered
from polling.meter import MeteredHandler

__all__ = ["http_urlpatterns", "websocket_urlpatterns"]

django = MeteredHandler()

http_urlpatterns = [
    path("polling/poll/", metered("poll", django)),
    path("polling/wait/", metered("wait", django)),
    path("polling/stream/", metered("stream", AuthMiddlewareStack(FeedStream.as_asgi()))),
]

websocket_urlpatterns = [
    path("ws/polling/feed/", metered("socket", FeedSocket.as_asgi())),
    path("ws/polling/", PageConsumer.as_asgi()),
]
