"""Which consumer a WebSocket or a stream meets: each application says it for its own."""

from arena.routing import websocket_urlpatterns as arena
from chat.routing import websocket_urlpatterns as chat
from danmaku.routing import websocket_urlpatterns as danmaku
from documents.routing import websocket_urlpatterns as documents
from headrace.operations.routing import websocket_urlpatterns as operations
from notifications.routing import websocket_urlpatterns as notifications
from polling.routing import http_urlpatterns
from polling.routing import websocket_urlpatterns as polling
from quotes.routing import websocket_urlpatterns as quotes

__all__ = ["http_urlpatterns", "websocket_urlpatterns"]

websocket_urlpatterns = [
    *arena,
    *chat,
    *danmaku,
    *documents,
    *notifications,
    *operations,
    *polling,
    *quotes,
]
