"""WebSocket consumers: text and bytes, or JSON, in asynchronous and in ordinary functions.

Rules of this file:

- ``connect()`` accepts unless the class says otherwise; ``disconnect()`` runs once for every
  connection, whether the client left, the server closed or stopped, or a handler raised.
- ``groups`` are left in every case, and one that can't be left holds up nothing else.
- The asynchronous and the synchronous classes promise the same, method by method.
"""

import contextlib
import logging
from collections.abc import Iterable
from typing import Any

from asgiref.sync import async_to_sync

from ..codecs import decode_json, encode_json
from ..consumer import AsyncConsumer, SyncConsumer
from ..exceptions import (
    AcceptConnection,
    CloseCode,
    DenyConnection,
    InvalidChannelLayerError,
    StopConsumer,
)
from ..layers.base import BaseChannelLayer, Event

__all__ = [
    "AsyncJsonWebsocketConsumer",
    "AsyncWebsocketConsumer",
    "JsonWebsocketConsumer",
    "WebsocketConsumer",
]

logger = logging.getLogger("headrace.consumer")

Headers = Iterable[tuple[bytes, bytes]]


def _accept_event(subprotocol: str | None, headers: Headers | None) -> Event:
    event: Event = {"type": "websocket.accept", "subprotocol": subprotocol}
    if headers:
        event["headers"] = list(headers)
    return event


def _send_event(text_data: str | None, bytes_data: bytes | None) -> Event:
    if text_data is not None:
        return {"type": "websocket.send", "text": text_data}
    if bytes_data is not None:
        return {"type": "websocket.send", "bytes": bytes_data}
    raise ValueError("send() needs text_data or bytes_data")


def _close_event(code: int | bool | None, reason: str | None) -> Event:
    event: Event = {"type": "websocket.close"}
    # True is what ``send(..., close=True)`` passes on: close, with the default code.
    if code is not None and code is not True:
        event["code"] = code
    if reason:
        event["reason"] = reason
    return event


class _WebsocketMixin(AsyncConsumer):
    """What the asynchronous and the synchronous consumer share."""

    groups: Iterable[str] | None = None

    # A class attribute until it is needed: thousands of idle consumers pay for each one.
    _disconnected = False

    def __init__(self, *args: Any, **initkwargs: Any) -> None:
        super().__init__(*args, **initkwargs)
        if self.groups is None:
            self.groups = []

    def _layer_with_groups(self) -> BaseChannelLayer:
        layer = self.channel_layer
        if layer is None or "groups" not in getattr(layer, "extensions", ()):
            raise InvalidChannelLayerError(
                f"{type(self).__name__}.groups needs a channel layer with groups: "
                f"CHANNEL_LAYERS has none under the alias {self.channel_layer_alias!r}"
            )
        return layer

    def _groups_to_leave(self) -> list[str]:
        # Once, however the end comes; and none that could not be joined.
        if self._disconnected:
            return []
        self._disconnected = True
        if self.channel_layer is None or "groups" not in getattr(
            self.channel_layer, "extensions", ()
        ):
            return []
        return list(self.groups or ())

    def _log_not_left(self, group: str) -> None:
        logger.exception("%s could not leave the group %s", type(self).__name__, group)


class AsyncWebsocketConsumer(_WebsocketMixin):
    """A WebSocket consumer in asynchronous functions.

    Override ``connect``, ``receive`` and ``disconnect``. ``groups`` names the groups that
    each connection joins by itself.
    """

    async def websocket_connect(self, message: Event) -> None:
        """Join ``groups`` and call ``connect()``."""
        del message
        if self.groups:
            layer = self._layer_with_groups()
            for group in self.groups:
                await layer.group_add(group, self.channel_name)
        try:
            await self.connect()
        except AcceptConnection:
            await self.accept()
        except DenyConnection:
            await self.close()

    async def connect(self) -> None:
        """Accept the connection. Override to ask who is there first."""
        await self.accept()

    async def accept(self, subprotocol: str | None = None, headers: Headers | None = None) -> None:
        """Accept the connection, with one of the subprotocols that the client offered."""
        await super().send(_accept_event(subprotocol, headers))

    async def websocket_receive(self, message: Event) -> None:
        """Call ``receive()`` with what the client sent."""
        text = message.get("text")
        if text is not None:
            await self.receive(text_data=text)
        else:
            await self.receive(bytes_data=message["bytes"])

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Handle a message of the client: exactly one of the two is given."""

    async def send(  # type: ignore[override]
        self,
        text_data: str | None = None,
        bytes_data: bytes | None = None,
        close: int | bool = False,
    ) -> None:
        """Send a message to the client, and close behind it with ``close`` (True or a code)."""
        await super().send(_send_event(text_data, bytes_data))
        if close:
            await self.close(close)

    async def close(self, code: int | bool | None = None, reason: str | None = None) -> None:
        """Close the connection; before it is accepted: refuse it."""
        if isinstance(self.channel_layer, BaseChannelLayer):
            # What a group was sent just now comes before our own goodbye.
            self.channel_layer.settle()
        await super().send(_close_event(code, reason))

    async def websocket_disconnect(self, message: Event) -> None:
        """Leave ``groups``, call ``disconnect()``, and end the consumer."""
        try:
            for group in self._groups_to_leave():
                try:
                    await self.channel_layer.group_discard(group, self.channel_name)  # type: ignore[union-attr]
                except Exception:
                    self._log_not_left(group)
        finally:
            await self.disconnect(message.get("code", CloseCode.NO_STATUS_RECEIVED))
        raise StopConsumer

    async def disconnect(self, code: int) -> None:
        """Clean up after the connection; it is gone already."""

    async def _finish(self, code: int) -> None:
        if not self._disconnected:
            with contextlib.suppress(StopConsumer):
                await self.websocket_disconnect({"type": "websocket.disconnect", "code": code})


class AsyncJsonWebsocketConsumer(AsyncWebsocketConsumer):
    """A WebSocket consumer whose messages are JSON, in asynchronous functions.

    Override ``receive_json``; ``decode_json`` and ``encode_json`` change the format.
    """

    async def receive(
        self, text_data: str | None = None, bytes_data: bytes | None = None, **kwargs: Any
    ) -> None:
        """Decode the text and call ``receive_json()``; ValueError for bytes."""
        del bytes_data
        if text_data is None:
            raise ValueError("this consumer takes JSON in text messages, not bytes")
        await self.receive_json(await self.decode_json(text_data), **kwargs)

    async def receive_json(self, content: Any, **kwargs: Any) -> None:
        """Handle a decoded message."""

    async def send_json(self, content: Any, close: int | bool = False) -> None:
        """Encode the content and send it."""
        await self.send(text_data=await self.encode_json(content), close=close)

    @classmethod
    async def decode_json(cls, text_data: str) -> Any:
        """Return the value that the text stands for."""
        return decode_json(text_data)

    @classmethod
    async def encode_json(cls, content: Any) -> str:
        """Return the content as JSON text."""
        return encode_json(content)


class WebsocketConsumer(_WebsocketMixin, SyncConsumer):
    """A WebSocket consumer in ordinary functions, which run in a thread.

    Override ``connect``, ``receive`` and ``disconnect``. ``groups`` names the groups that
    each connection joins by itself.
    """

    def websocket_connect(self, message: Event) -> None:
        """Join ``groups`` and call ``connect()``."""
        del message
        if self.groups:
            layer = self._layer_with_groups()
            for group in self.groups:
                async_to_sync(layer.group_add)(group, self.channel_name)
        try:
            self.connect()
        except AcceptConnection:
            self.accept()
        except DenyConnection:
            self.close()

    def connect(self) -> None:
        """Accept the connection. Override to ask who is there first."""
        self.accept()

    def accept(self, subprotocol: str | None = None, headers: Headers | None = None) -> None:
        """Accept the connection, with one of the subprotocols that the client offered."""
        super().send(_accept_event(subprotocol, headers))

    def websocket_receive(self, message: Event) -> None:
        """Call ``receive()`` with what the client sent."""
        text = message.get("text")
        if text is not None:
            self.receive(text_data=text)
        else:
            self.receive(bytes_data=message["bytes"])

    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Handle a message of the client: exactly one of the two is given."""

    def send(  # type: ignore[override]
        self,
        text_data: str | None = None,
        bytes_data: bytes | None = None,
        close: int | bool = False,
    ) -> None:
        """Send a message to the client, and close behind it with ``close`` (True or a code)."""
        super().send(_send_event(text_data, bytes_data))
        if close:
            self.close(close)

    def close(self, code: int | bool | None = None, reason: str | None = None) -> None:
        """Close the connection; before it is accepted: refuse it."""
        super().send(_close_event(code, reason))

    def websocket_disconnect(self, message: Event) -> None:
        """Leave ``groups``, call ``disconnect()``, and end the consumer."""
        try:
            for group in self._groups_to_leave():
                try:
                    async_to_sync(self.channel_layer.group_discard)(group, self.channel_name)  # type: ignore[union-attr]
                except Exception:
                    self._log_not_left(group)
        finally:
            self.disconnect(message.get("code", CloseCode.NO_STATUS_RECEIVED))
        raise StopConsumer

    def disconnect(self, code: int) -> None:
        """Clean up after the connection; it is gone already."""

    async def _finish(self, code: int) -> None:
        if not self._disconnected:
            message = {"type": "websocket.disconnect", "code": code}
            with contextlib.suppress(StopConsumer):
                await self._call_in_thread(self.websocket_disconnect, message)


class JsonWebsocketConsumer(WebsocketConsumer):
    """A WebSocket consumer whose messages are JSON, in ordinary functions.

    Override ``receive_json``; ``decode_json`` and ``encode_json`` change the format.
    """

    def receive(
        self, text_data: str | None = None, bytes_data: bytes | None = None, **kwargs: Any
    ) -> None:
        """Decode the text and call ``receive_json()``; ValueError for bytes."""
        del bytes_data
        if text_data is None:
            raise ValueError("this consumer takes JSON in text messages, not bytes")
        self.receive_json(self.decode_json(text_data), **kwargs)

    def receive_json(self, content: Any, **kwargs: Any) -> None:
        """Handle a decoded message."""

    def send_json(self, content: Any, close: int | bool = False) -> None:
        """Encode the content and send it."""
        self.send(text_data=self.encode_json(content), close=close)

    @classmethod
    def decode_json(cls, text_data: str) -> Any:
        """Return the value that the text stands for."""
        return decode_json(text_data)

    @classmethod
    def encode_json(cls, content: Any) -> str:
        """Return the content as JSON text."""
        return encode_json(content)
