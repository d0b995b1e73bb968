"""Which consumer a WebSocket meets."""

from django.urls import path

from arena.consumers import ArenaConsumer

__all__ = ["websocket_urlpatterns"]

websocket_urlpatterns = [path("ws/arena/", ArenaConsumer.as_asgi())]
