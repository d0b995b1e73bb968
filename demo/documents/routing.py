"""Which consumer a WebSocket meets."""

from django.urls import path

from documents.consumers import DocumentConsumer

__all__ = ["websocket_urlpatterns"]

# Without a slash at its end: y-websocket makes it of an address and the name of a room.
websocket_urlpatterns = [
    path("ws/documents/<int:number>", DocumentConsumer.as_asgi()),
]
