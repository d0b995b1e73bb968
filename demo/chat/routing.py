"""Which consumer a WebSocket meets."""

from django.urls import path

from chat.consumers import LobbyConsumer, RoomConsumer

__all__ = ["websocket_urlpatterns"]

websocket_urlpatterns = [
    path("ws/lobby/", LobbyConsumer.as_asgi()),
    path("ws/rooms/<slug:slug>/", RoomConsumer.as_asgi()),
]
