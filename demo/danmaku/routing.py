"""Which consumer a WebSocket meets."""

from django.urls import path

from danmaku.consumers import FilmConsumer

__all__ = ["websocket_urlpatterns"]

websocket_urlpatterns = [path("ws/danmaku/", FilmConsumer.as_asgi())]
