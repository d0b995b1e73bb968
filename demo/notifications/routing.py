"""Which consumer a WebSocket meets."""

from django.urls import path

from notifications.consumers import BellConsumer, PostConsumer

__all__ = ["websocket_urlpatterns"]

websocket_urlpatterns = [
    path("ws/bell/", BellConsumer.as_asgi()),
    path("ws/board/<int:number>/", PostConsumer.as_asgi()),
]
