"""An HTTP consumer: a response that may take its time, and be fed by the channel layer.

Rules of this file:

- ``handle()`` runs in a task of its own, so that events of the channel layer reach their
  handlers meanwhile; the consumer awaits it, cancels it when the client leaves, and never
  outlives it.
- A response that was begun and not completed keeps the consumer alive after ``handle()``.
- ``disconnect()`` runs once, however it ended.
"""

import asyncio
import logging
from collections.abc import Iterable, Mapping
from enum import Enum, auto
from typing import Any

from ..consumer import AsyncConsumer, concurrent
from ..db import aclose_old_connections, cleanup_due
from ..exceptions import StopConsumer
from ..layers.base import Event

__all__ = ["AsyncHttpConsumer", "concurrent"]

logger = logging.getLogger("headrace.consumer")

Headers = Mapping[bytes, bytes] | Iterable[tuple[bytes, bytes]]


class _Response(Enum):
    """How far the response has come."""

    NONE = auto()
    BEGUN = auto()
    COMPLETE = auto()


class AsyncHttpConsumer(AsyncConsumer):
    """An HTTP consumer in asynchronous functions. Override ``handle``.

    Events of the channel layer reach their handlers while ``handle`` runs, and after it for
    as long as a response that it began has no end. A client that leaves before the response
    is complete cancels ``handle``.
    """

    #: A longer body is answered with 413; None: there is no limit.
    body_limit_bytes: int | None = 16 * 1024 * 1024

    _hr_response = _Response.NONE
    _hr_disconnected = False

    def __init__(self, *args: Any, **initkwargs: Any) -> None:
        super().__init__(*args, **initkwargs)
        self.body: list[bytes] = []

    async def send(self, message: Event) -> None:
        """Send an ASGI event to the server; an OSError when the client is gone."""
        match message.get("type"):
            case "http.response.start":
                self._hr_response = _Response.BEGUN
            case "http.response.body" if not message.get("more_body"):
                self._hr_response = _Response.COMPLETE
        await super().send(message)

    async def send_headers(self, *, status: int = 200, headers: Headers | None = None) -> None:
        """Begin the response. ``headers`` is a list of pairs or a dictionary, of bytes.

        The server sends them together with the first part of the body.
        """
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
        """Clean up: the response is complete, or the client has left. Send nothing from here."""

    async def http_request(self, message: Event) -> None:
        """Gather the body; when it is whole, run ``handle``, and other handlers beside it."""
        if message.get("body"):
            self.body.append(message["body"])
        limit = self.body_limit_bytes
        if limit is not None and sum(map(len, self.body)) > limit:
            await self.send_response(413, b"The body of this request is too long.\n")
            raise StopConsumer
        if message.get("more_body"):
            return
        body = b"".join(self.body)
        self.body = [body]
        try:
            await self._hr_serve(body)
        except OSError as error:
            if not self._hr_excuses(error):
                raise
        raise StopConsumer

    async def http_disconnect(self, message: Event) -> None:
        """Call ``disconnect()`` and end the consumer: the client left before its body was whole."""
        del message
        await self._hr_finish(0)
        raise StopConsumer

    async def _hr_finish(self, code: int) -> None:
        del code
        if not self._hr_disconnected:
            self._hr_disconnected = True
            await self.disconnect()

    def _hr_goes_on_after(self, message: Event) -> bool:
        if message.get("type") != "http.request":
            return True
        if self._hr_response is _Response.COMPLETE:
            raise StopConsumer
        # The client waits for an answer that nobody is going to give.
        return False

    async def _hr_handle_event(self, event: Event) -> None:
        """Handle an event of the channel layer while ``handle`` runs, or after it."""
        beside = self._hr_beside
        if beside is not None and await beside.take(event):
            return
        try:
            await self._hr_dispatch(event)
        except StopConsumer:
            raise
        except Exception as error:
            if not await self._hr_survives(error, event):
                raise

    async def _hr_serve(self, body: bytes) -> None:
        """Run ``handle``, and the handlers of what arrives, until there is no more to do."""
        handling = asyncio.ensure_future(self.handle(body))
        arrival: asyncio.Future[Event] | None = None
        try:
            while not (handling.done() and self._hr_response is not _Response.BEGUN):
                if arrival is None:
                    arrival = asyncio.ensure_future(self.channel_receive())
                under_way: set[asyncio.Future[Any]] = {arrival}
                if not handling.done():
                    under_way.add(handling)
                await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
                if handling.done():
                    handling.result()
                if arrival.done():
                    event, arrival = arrival.result(), None
                    if event.get("type") == "http.disconnect":
                        break
                    await self._hr_handle_event(event)
                    if cleanup_due():
                        await aclose_old_connections()
            if self._hr_response is _Response.COMPLETE:
                # It may have work left that the client need not wait for.
                await handling
        finally:
            await _stop(handling)
            if arrival is not None:
                await _stop(arrival)


async def _stop(future: asyncio.Future[Any]) -> None:
    """Cancel what still runs, and wait for its end."""
    if future.done():
        return
    future.cancel()
    await asyncio.wait({future})
    if not future.cancelled() and (error := future.exception()) is not None:
        logger.error("an HTTP handler failed while it was cancelled", exc_info=error)
