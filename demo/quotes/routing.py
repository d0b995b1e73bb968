"""Which consumer a WebSocket meets."""

from django.urls import path

from quotes.consumers import QuotesConsumer

__all__ = ["websocket_urlpatterns"]

websocket_urlpatterns = [
    path("ws/quotes/", QuotesConsumer.as_asgi()),
]
