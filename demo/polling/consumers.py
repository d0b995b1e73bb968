"""The feed in the four ways, and the page's own WebSocket.

The page's own is none of the four ways and is not measured. Over it the page hears

- ``welcome``: who it is, and the ``rates``
- ``costs``: what its ways have cost so far in one process (see ``polling.ledger``)
- ``handshake``: that of its feed's WebSocket (see ``polling.handshake``)
- ``clock``: the server's time in seconds since 1970, and what the page had said with its question

and asks for ``clock``.
"""

import asyncio
import io
import json
import time
from contextlib import ExitStack, suppress
from functools import partial
from importlib import import_module

from django.conf import settings
from django.contrib.auth import get_user
from django.core.handlers.asgi import ASGIRequest

from headrace.db import database_sync_to_async
from headrace.generic.http import AsyncHttpConsumer
from headrace.generic.websocket import AsyncWebsocketConsumer
from live.consumers import LOGGED_OUT, LiveConsumer
from live.events import for_browsers
from live.limits import Allowance, Refused
from polling.feed import RATES, feed
from polling.groups import page_group
from polling.handshake import explained, frame_from_client, frame_to_client
from polling.meter import METER
from polling.order import Order, run_of
from polling.visitors import Known, Visitors

__all__ = ["FeedAnswer", "FeedSocket", "FeedStream", "PageConsumer", "visitors"]

SessionStore = import_module(settings.SESSION_ENGINE).SessionStore

#: The close code for what an account may not have more of.
TOO_MANY = 4429

#: A longer message of the page is taken, and not shown.
FRAME_LENGTH = 200

JSON = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]

visitors = Visitors(
    burst=settings.POLLING_BURST,
    per_second=settings.POLLING_PER_SECOND,
    open_at_once=settings.POLLING_OPEN,
)

known = Known()

STATUSES = {"rate": 429, "too_many": 429, "unavailable": 503}


def status_of(refused: Refused) -> int:
    return STATUSES.get(refused.code, 400)


def as_json(refused: Refused) -> bytes:
    return json.dumps({"code": refused.code, "text": str(refused), **refused.details}).encode()


class FeedRequest(AsyncHttpConsumer):
    """A request for the feed: who asks, whether they may, and what becomes of it."""

    body_limit_bytes = 0

    async def handle(self, body):
        # In a task of its own, beside the one that hears whether the client leaves.
        meter = METER.get()  # None: what it asks for makes no sense, and that is the answer
        await (self.answer() if meter is None else meter.run(self.answer()))

    async def answer(self):
        try:
            user = await self.who()
            if not user.is_authenticated:
                raise Refused("not_logged_in", "You are not logged in.")
            order = Order.of_scope(self.scope)
            visitors.ask(user.pk)
            with visitors.open(user.pk):
                async with feed.looking():
                    await self.tell_all(order)
        except Refused as refused:
            status = 401 if refused.code == "not_logged_in" else status_of(refused)
            headers = list(JSON)
            if wait := refused.details.get("retry_after_s"):
                headers.append((b"retry-after", b"%d" % max(1, round(wait))))
            await self.send_response(status, as_json(refused), headers=headers)

    async def who(self):
        request = ASGIRequest(self.scope, io.BytesIO())
        key = request.COOKIES.get(settings.SESSION_COOKIE_NAME)
        now = time.monotonic()
        user = known.get(key, now)
        if user is None:
            user = await database_sync_to_async(user_of)(request, key, METER.get())
            if user.is_authenticated:
                known.put(key, user, now)
        return user

    async def tell_all(self, order):
        """Answer with what there is for an order."""
        raise NotImplementedError


def user_of(request, key, meter):
    """Return whose session it is. Polls do this again and again: it belongs to what they cost."""
    began = time.thread_time()
    try:
        request.session = SessionStore(key)
        return get_user(request)
    finally:
        if meter is not None:
            meter.cpu_s += time.thread_time() - began


class FeedAnswer(FeedRequest):
    """One answer: with what there is after a number, be it nothing; or with patience, later.

    As a Django view a poll would go through all middleware of the site, in a thread, and cost three
    times as much; and behind middleware that is synchronous, a long poll would keep its thread.
    """

    #: How long it waits for a message, in seconds.
    patience_s = 0.0

    async def tell_all(self, order):
        if order.after is None:
            await self.give([], feed.last, missed=False)
            return
        messages = feed.since(order.after, order.every)
        if self.patience_s and not messages:
            messages = await feed.wait(order.after, order.every, self.patience_s)
        await self.give(messages, order.after, missed=feed.has_missed(order.after))

    async def give(self, messages, after, *, missed):
        last = messages[-1].number if messages else after
        # The text of a message is JSON already, and the same in all four ways.
        body = (
            f'{{"last": {last}, "missed": {str(missed).lower()}, '
            f'"messages": [{", ".join(message.text for message in messages)}]}}'
        )
        await self.send_response(200, body.encode(), headers=JSON)


class FeedStream(FeedRequest):
    """The feed as server-sent events (HTML Standard, "Server-sent events")."""

    async def tell_all(self, order):
        await self.send_headers(
            headers={
                b"content-type": b"text/event-stream",
                b"cache-control": b"no-store",
                b"x-accel-buffering": b"no",  # nginx would keep it back
            }
        )
        told = feed.last if order.after is None else order.after
        # The browser comes again by itself, and says the last id that it has seen.
        first = f"retry: {settings.POLLING_RETRY_MS}\nid: {told}\n"
        if feed.has_missed(told):
            first += "event: missed\ndata:\n"
        await self.tell(first)
        meter = METER.get()
        while not meter.draining():
            messages = await feed.wait(told, order.every, settings.POLLING_WAIT_S)
            if messages:
                told = messages[-1].number
                await self.tell("\n".join(f"id: {m.number}\ndata: {m.text}\n" for m in messages))
            else:
                await self.tell(": nothing new\n")  # or a proxy takes it for dead
        # The server stops, and would wait. The browser comes again, to whoever serves then.
        await self.send_body(b"")

    async def tell(self, text):
        await self.send_body(f"{text}\n".encode(), more_body=True)


class FeedSocket(AsyncWebsocketConsumer):
    """The feed over a WebSocket, a message in a frame.

    What the page sends is taken, and shown to it as the frame that came. The consumer reads the
    feed as the other ways do, so that what it takes can be measured. Elsewhere on this site events
    for everyone take the fast lane, past the consumers, and cost less (see the chat).
    """

    streaming = None

    async def connect(self):
        self.places = ExitStack()
        try:
            order = Order.of_scope(self.scope)
        except Refused as refused:
            await self.deny(400, as_json(refused), JSON)
            return
        await self.accept()
        self.meter = METER.get()
        self.allowance = Allowance(
            burst=settings.POLLING_BURST, per_second=settings.POLLING_PER_SECOND
        )
        user = self.scope["user"]
        try:
            if not user.is_authenticated:
                await self.close(LOGGED_OUT)
                return
            visitors.ask(user.pk)
            self.places.enter_context(visitors.open(user.pk))
        except Refused as refused:
            await self.close(TOO_MANY, str(refused))
            return
        if self.meter.traffic:
            await self.tell_page({"type": "handshake", **self.handshake()})
        self.counted_bytes = self.meter.received_bytes
        self.streaming = asyncio.create_task(self.meter.run(self.stream(order)))

    def handshake(self):
        traffic = self.meter.traffic
        return explained(
            self.scope,
            extensions=traffic.extensions,
            received_bytes=traffic.received_bytes,
            sent_bytes=traffic.sent_bytes,
        )

    async def tell_page(self, event):
        group = page_group(self.meter.run_id)
        await self.channel_layer.group_send(group, for_browsers(event))

    async def disconnect(self, code):
        if self.streaming is not None:
            self.streaming.cancel()
            with suppress(asyncio.CancelledError):
                await self.streaming
        self.places.close()

    async def stream(self, order):
        try:
            # An OSError: the client is gone; disconnect() follows.
            with suppress(OSError):
                async with feed.looking():
                    await self.tell(order)
        except Refused as refused:
            await self.close(1013, str(refused))

    async def tell(self, order):
        told = feed.last if order.after is None else order.after
        if feed.has_missed(told):
            await self.send(text_data='{"missed": true}')
        while True:
            for message in await feed.wait(told, order.every, settings.POLLING_WAIT_S):
                told = message.number
                await self.send_frame(message.text)

    async def send_frame(self, text):
        before = self.meter.sent_bytes
        await self.send(text_data=text)
        self.note_frame(frame_to_client, text, wire_bytes=self.meter.sent_bytes - before)
        # Pongs have come, too, and are not to be taken for a part of the next message.
        self.counted_bytes = self.meter.received_bytes

    async def receive(self, text_data=None, bytes_data=None):
        before, self.counted_bytes = self.counted_bytes, self.meter.received_bytes
        traffic = self.meter.traffic
        if traffic is None or text_data is None or self.allowance.take(time.monotonic()):
            return
        if len(text_data) > FRAME_LENGTH:
            return
        self.note_frame(
            frame_from_client,
            text_data,
            wire_bytes=self.counted_bytes - before,
            extensions=traffic.extensions,
        )

    def note_frame(self, explain, text, **known):
        # Explained when the page is told: that is no cost of the WebSocket.
        self.meter.frames[explain] = partial(explain, text, **known)


class PageConsumer(LiveConsumer):
    """The page itself: what its four ways cost, and what the time is here."""

    commands = {"clock": "tell_time"}

    async def connect(self):
        try:
            self.run = run_of(self.scope)
        except Refused as refused:
            await self.deny(400, as_json(refused), JSON)
            return
        await super().connect()

    def user_group(self, user_id):
        return page_group(self.run)

    async def enter(self):
        await self.send_json({"type": "welcome", "you": self.user.pk, "rates": RATES})

    async def tell_time(self, content):
        asked = content.get("asked")
        if not isinstance(asked, int | float):
            raise Refused("bad_message", "asked is a number, the page's time.")
        await self.send_json({"type": "clock", "asked": asked, "now": time.time()})
