"""An HTTP consumer: a response that may take its time, and be fed by the channel layer."""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

from ..consumer import AsyncConsumer
from ..exceptions import StopConsumer
from ..layers.base import Event

__all__ = ["AsyncHttpConsumer"]

Headers = Mapping[bytes, bytes] | Iterable[tuple[bytes, bytes]]


class AsyncHttpConsumer(AsyncConsumer):
    """An HTTP consumer in asynchronous functions. Override ``handle``.

    While ``handle`` runs, events of the channel layer go on reaching their handlers, and a
    client that leaves cancels it.
    """

    def __init__(self, **initkwargs: Any) -> None:
        super().__init__(**initkwargs)
        self.body: list[bytes] = []

    async def send_headers(self, *, status: int = 200, headers: Headers | None = None) -> None:
        """Begin the response. ``headers`` is a list of pairs or a dictionary, of bytes."""
        if isinstance(headers, Mapping):
            headers = list(headers.items())
        await self.send(
            {"type": "http.response.start", "status": status, "headers": list(headers or ())}
        )

    async def send_body(self, body: bytes, *, more_body: bool = False) -> None:
        """Send a part of the body; the response ends with the first part without ``more_body``.

        Raises TypeError for anything but bytes.
        """
        if not isinstance(body, bytes):
            raise TypeError(f"a body is bytes, not {type(body).__name__}")
        await self.send({"type": "http.response.body", "body": body, "more_body": more_body})

    async def send_response(self, status: int, body: bytes, **kwargs: Any) -> None:
        """Send a whole response."""
        await self.send_headers(status=status, **kwargs)
        await self.send_body(body)

    async def handle(self, body: bytes) -> None:
        """Answer the request, whose whole body is given."""
        raise NotImplementedError(f"{type(self).__name__} needs an async def handle(self, body)")

    async def disconnect(self) -> None:
        """Clean up: the response is complete, or the client has left."""

    async def http_request(self, message: Event) -> None:
        """Gather the body; when it is whole, run ``handle``, and other handlers beside it."""
        if "body" in message:
            self.body.append(message["body"])
        if message.get("more_body"):
            return
        handling = asyncio.ensure_future(self.handle(b"".join(self.body)))
        try:
            await self._dispatch_until(handling)
        finally:
            await _stop(handling)
            await self.disconnect()
        raise StopConsumer

    async def http_disconnect(self, message: Event) -> None:
        """Call ``disconnect()`` and end the consumer: the client left before its body was whole."""
        del message
        await self.disconnect()
        raise StopConsumer

    async def _dispatch_until(self, handling: asyncio.Future[None]) -> None:
        arrival: asyncio.Future[Event] = asyncio.ensure_future(self.channel_receive())
        try:
            while True:
                pending: set[asyncio.Future[Any]] = {handling, arrival}
                await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                if handling.done():
                    return handling.result()
                event = arrival.result()
                if event["type"] == "http.disconnect":
                    return None
                await self.dispatch(event)
                arrival = asyncio.ensure_future(self.channel_receive())
        finally:
            await _stop(arrival)


async def _stop(future: asyncio.Future[Any]) -> None:
    future.cancel()
    await asyncio.wait({future})
