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
from typing import Any, ClassVar

from asgiref.sync import async_to_sync

from ..codecs import decode_json, encode_json
from ..consumer import AsyncConsumer, SyncConsumer, concurrent
from ..exceptions import (
    AcceptConnection,
    CloseCode,
    DenyConnection,
    InvalidChannelLayerError,
    LocalProtocolError,
    StopConsumer,
)
from ..layers.base import BaseChannelLayer, Event

__all__ = [
    "AsyncJsonWebsocketConsumer",
    "AsyncWebsocketConsumer",
    "JsonWebsocketConsumer",
    "WebsocketConsumer",
    "concurrent",
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


def denial_events(
    scope: dict[str, Any], status: int, body: str | bytes, headers: Headers | None
) -> list[Event]:
    """Return what refuses a WebSocket with an HTTP response; a plain close where that can't be."""
    if not isinstance(status, int) or not 200 <= status <= 599:
        raise ValueError(f"deny() takes a status from 200 to 599, not {status!r:.50}")
    if isinstance(body, str):
        content_type, body = b"text/plain; charset=utf-8", body.encode()
    elif isinstance(body, bytes):
        content_type = b"application/octet-stream"
    else:
        raise TypeError(f"a body is a str or bytes, not {type(body).__name__}")
    # ASGI, "WebSocket Denial Response": an extension, which not every server has.
    if "websocket.http.response" not in (scope.get("extensions") or {}):
        return [_close_event(None, None)]
    pairs = list(headers or ())
    names = {name.lower() for name, _ in pairs}
    if b"content-type" not in names:
        pairs.append((b"content-type", content_type))
    if b"content-length" not in names:
        pairs.append((b"content-length", b"%d" % len(body)))
    return [
        {"type": "websocket.http.response.start", "status": status, "headers": pairs},
        {"type": "websocket.http.response.body", "body": body},
    ]


class _WebsocketMixin(AsyncConsumer):
    """What the asynchronous and the synchronous consumer share."""

    groups: Iterable[str] | None = None

    _hr_handled_by: ClassVar = {"receive": "websocket_receive"}

    # A class attribute until it is needed: thousands of idle consumers pay for each one.
    _hr_disconnected = False

    def __init__(self, *args: Any, **initkwargs: Any) -> None:
        super().__init__(*args, **initkwargs)
        if self.groups is None:
            self.groups = []

    def _hr_layer_with_groups(self) -> BaseChannelLayer:
        layer = self.channel_layer
        if isinstance(self.groups, str):
            raise TypeError(
                f"{type(self).__name__}.groups is a list of names: write [{self.groups!r}]"
            )
        if layer is None or not _has_groups(layer):
            raise InvalidChannelLayerError(
                f"{type(self).__name__}.groups needs a channel layer with groups: "
                f"CHANNEL_LAYERS has none under the alias {self.channel_layer_alias!r}"
            )
        return layer

    def _hr_groups_to_leave(self) -> list[str]:
        # Once, however the end comes; and none that could not be joined.
        if self._hr_disconnected:
            return []
        self._hr_disconnected = True
        if not self.groups or not _has_groups(self.channel_layer):
            return []
        return list(self.groups)

    def _hr_denial(self, status: int, body: str | bytes, headers: Headers | None) -> list[Event]:
        lane = self._hr_lane
        if not lane.connecting and not lane.over:
            raise LocalProtocolError(
                "deny() stands in the place of accept(): this WebSocket is accepted, close() it"
            )
        return denial_events(self.scope, status, body, headers)

    def _hr_log_not_left(self, group: str) -> None:
        logger.exception("%s could not leave the group %s", type(self).__name__, group)


def _has_groups(layer: object) -> bool:
    if isinstance(layer, BaseChannelLayer):
        return "groups" in layer.extensions
    # Another's, or what stands for one in a test: what it does not say, its methods do.
    return hasattr(layer, "group_add")


class AsyncWebsocketConsumer(_WebsocketMixin):
    """A WebSocket consumer in asynchronous functions.

    Override ``connect``, ``receive`` and ``disconnect``. ``groups`` names the groups that
    each connection joins by itself.
    """

    async def websocket_connect(self, message: Event) -> None:
        """Join ``groups`` and call ``connect()``."""
        del message
        if self.groups:
            layer = self._hr_layer_with_groups()
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

    async def deny(
        self, status: int = 403, body: str | bytes = "", headers: Headers | None = None
    ) -> None:
        """Refuse the connection with an HTTP response, in the place of ``accept()``.

        A str is sent as ``text/plain``, bytes as ``application/octet-stream``, unless ``headers``
        say otherwise. A server without the ASGI extension ``websocket.http.response`` answers
        with a plain 403. ``disconnect()`` follows, as after every refusal.

        Raises LocalProtocolError once the WebSocket is accepted.
        """
        for event in self._hr_denial(status, body, headers):
            await super().send(event)

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
            for group in self._hr_groups_to_leave():
                try:
                    await self.channel_layer.group_discard(group, self.channel_name)  # type: ignore[union-attr]
                except Exception:
                    self._hr_log_not_left(group)
        finally:
            await self.disconnect(message.get("code", CloseCode.NO_STATUS_RECEIVED))
        raise StopConsumer

    async def disconnect(self, code: int) -> None:
        """Clean up after the connection; it is gone already."""

    async def _hr_finish(self, code: int) -> None:
        if not self._hr_disconnected:
            with contextlib.suppress(StopConsumer):
                await self.websocket_disconnect({"type": "websocket.disconnect", "code": code})


class AsyncJsonWebsocketConsumer(AsyncWebsocketConsumer):
    """A WebSocket consumer whose messages are JSON, in asynchronous functions.

    Override ``receive_json``; ``decode_json`` and ``encode_json`` change the format.
    """

    _hr_handled_by: ClassVar = {"receive": "websocket_receive", "receive_json": "websocket_receive"}

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
        # Not ``self.send``: a subclass may have made that one call this.
        await super().send(text_data=await self.encode_json(content), close=close)

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
            layer = self._hr_layer_with_groups()
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

    def deny(
        self, status: int = 403, body: str | bytes = "", headers: Headers | None = None
    ) -> None:
        """Refuse the connection with an HTTP response, in the place of ``accept()``.

        A str is sent as ``text/plain``, bytes as ``application/octet-stream``, unless ``headers``
        say otherwise. A server without the ASGI extension ``websocket.http.response`` answers
        with a plain 403. ``disconnect()`` follows, as after every refusal.

        Raises LocalProtocolError once the WebSocket is accepted.
        """
        for event in self._hr_denial(status, body, headers):
            super().send(event)

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
            for group in self._hr_groups_to_leave():
                try:
                    async_to_sync(self.channel_layer.group_discard)(group, self.channel_name)  # type: ignore[union-attr]
                except Exception:
                    self._hr_log_not_left(group)
        finally:
            self.disconnect(message.get("code", CloseCode.NO_STATUS_RECEIVED))
        raise StopConsumer

    def disconnect(self, code: int) -> None:
        """Clean up after the connection; it is gone already."""

    async def _hr_finish(self, code: int) -> None:
        if not self._hr_disconnected:
            message = {"type": "websocket.disconnect", "code": code}
            with contextlib.suppress(StopConsumer):
                await self._hr_call_in_thread(self.websocket_disconnect, message)


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
        # Not ``self.send``: a subclass may have made that one call this.
        super().send(text_data=self.encode_json(content), close=close)

    @classmethod
    def decode_json(cls, text_data: str) -> Any:
        """Return the value that the text stands for."""
        return decode_json(text_data)

    @classmethod
    def encode_json(cls, content: Any) -> str:
        """Return the content as JSON text."""
        return encode_json(content)
