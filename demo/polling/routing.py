"""Who answers what, by its path: the four ways, each with a meter around it, and the page."""

from django.conf import settings
from django.urls import path

from polling.consumers import FeedAnswer, FeedSocket, FeedStream, PageConsumer
from polling.ledger import metered

__all__ = ["http_urlpatterns", "websocket_urlpatterns"]

http_urlpatterns = [
    path("polling/poll/", metered("poll", FeedAnswer.as_asgi())),
    path("polling/wait/", metered("wait", FeedAnswer.as_asgi(patience_s=settings.POLLING_WAIT_S))),
    path("polling/stream/", metered("stream", FeedStream.as_asgi())),
]

websocket_urlpatterns = [
    path("ws/polling/feed/", metered("socket", FeedSocket.as_asgi())),
    path("ws/polling/", PageConsumer.as_asgi()),
]
