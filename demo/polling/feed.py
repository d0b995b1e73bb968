"""The feed: what a gauge at the weir reads, ten times a second, for all processes.

One process of all makes the messages, whoever holds the lease in the database; another goes on when
it ends or dies. It sends each to the group ``FEED``, in which every process is once that has
somebody who wants them, however many those are. What came last is kept there, so that whoever comes
again gets what was missed, and a process that has missed something asks for it.

A number is given to one message only, and numbers go up. After a crash the next ones are left out:
nobody knows how many of them have been given.
"""

import asyncio
import json
import logging
import math
import os
import socket
import time
from contextlib import asynccontextmanager, suppress

from django.conf import settings
from django.db import DatabaseError

from headrace.db import database_sync_to_async
from headrace.exceptions import ChannelFull, ChannelLayerUnavailable
from headrace.layers import get_channel_layer
from headrace.shared import SharedTask
from live.limits import Refused
from polling.groups import FEED
from polling.kept import Kept, Message
from polling.models import LEASE_S, Lease

__all__ = ["RATES", "Feed", "Message", "feed", "reading"]

logger = logging.getLogger(__name__)

HZ = 10
#: Messages a second, as a visitor may choose: of ten there is every first, second, fifth or tenth.
RATES = (10, 5, 2, 1)
#: How long a process looks for the lease, renews it, and listens for nobody.
LOOK_S = 0.25
RENEW_S = 0.4
LINGER_S = 5.0
#: How long a process may need to hear of the feed for the first time.
FIRST_S = 5.0
#: Numbers that may have been given by one who has died, and have not been written down.
UNKNOWN = math.ceil((LEASE_S + 1) * HZ)

FAILURES = (DatabaseError, ChannelFull, ChannelLayerUnavailable, OSError)


def reading(number: int, now: float) -> Message:
    """Return what the gauge reads, in millimetres, at a time in seconds since 1970."""
    level_mm = 1200 + 180 * math.sin(now / 41) + 40 * math.sin(now / 7.3) + 6 * math.sin(now * 2.1)
    born = round(now, 4)
    text = json.dumps({"id": number, "born": born, "gauge": "weir", "level_mm": round(level_mm)})
    return Message(number, text)


class Feed(Kept):
    """The feed as one process has it."""

    def __init__(self, most: int) -> None:
        super().__init__(most, (HZ // rate for rate in RATES))
        # Requests come and go: the next one is likely to be on its way.
        self._following = SharedTask(self._follow, linger_s=LINGER_S)
        #: Whether this process makes the messages, and until when it may, on the loop's clock.
        self._makes = False
        self._until = 0.0
        #: In which term this process has given a number last, and which.
        self._given = 0, 0

    # For whoever wants messages

    @asynccontextmanager
    async def looking(self):
        """Hear of the feed meanwhile, and a little longer; Refused if it can't be had."""
        if not self._following.running:
            self.fresh.clear()
        async with self._following:
            try:
                await asyncio.wait_for(self.fresh.wait(), FIRST_S)
            except TimeoutError:
                raise Refused(
                    "unavailable", "There is no feed just now. Try again.", retry_after_s=2
                ) from None
            yield

    # The process's part in it

    async def _follow(self):
        layer = get_channel_layer()
        channel = await layer.new_channel("polling")
        listening = asyncio.create_task(self._listen(layer, channel))
        try:
            while True:
                try:
                    await layer.group_add(FEED, channel)
                    if not self.fresh.is_set():
                        await layer.group_send(FEED, {"type": "feed.ask"})
                    await self._make_if_nobody_does(layer, channel)
                except FAILURES:
                    logger.exception("the feed can't be had just now")
                await asyncio.sleep(LOOK_S)
        finally:
            listening.cancel()
            with suppress(asyncio.CancelledError):
                await listening
            await layer.group_discard(FEED, channel)

    async def _listen(self, layer, channel):
        while True:
            try:
                event = await layer.receive(channel)
                if event["type"] == "feed.ask":
                    if self._makes:
                        await layer.group_send(FEED, self._whole())
                elif not self.take(event):
                    await layer.group_send(FEED, {"type": "feed.ask"})
            except FAILURES:
                logger.exception("the feed can't be heard just now")
                self.fresh.clear()
                await asyncio.sleep(LOOK_S)

    def _whole(self):
        return {
            "type": "feed.whole",
            "term": self.term,
            "begins": self.begins,
            "messages": list(self.messages),
        }

    async def _make_if_nobody_does(self, layer, holder):
        began = asyncio.get_running_loop().time()
        lease = await database_sync_to_async(Lease.objects.take)(
            f"{socket.gethostname()}:{os.getpid()}:{holder}"[:200], time.time()
        )
        if lease is None:
            return
        self.term = lease.term
        if not lease.exact and self._given[0] == lease.term - 1:
            # It was ours, and ran out while this process stood still: then we know.
            lease.exact, lease.last = True, self._given[1]
        if not lease.exact:
            lease.last = max(lease.last, self.last) + UNKNOWN
        self.begin_at(lease.last, exact=lease.exact)
        self._until = began + LEASE_S
        self._makes = True
        renewing = asyncio.create_task(self._renew(lease))
        try:
            await layer.group_send(FEED, self._whole())
            await self._make(layer, lease)
        finally:
            self._makes = False
            renewing.cancel()
            with suppress(asyncio.CancelledError):
                await renewing
            try:
                await database_sync_to_async(Lease.objects.give_back)(lease.term, lease.last)
            except DatabaseError:  # then it runs out
                logger.warning("the lease of the feed could not be given back", exc_info=True)

    async def _renew(self, lease):
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(RENEW_S)
            began = loop.time()
            try:
                renewed = await database_sync_to_async(Lease.objects.renew)(
                    lease.term, lease.last, time.time()
                )
            except DatabaseError:
                logger.warning("the lease of the feed could not be renewed", exc_info=True)
                continue
            self._until = began + LEASE_S if renewed else 0.0

    async def _make(self, layer, lease):
        """Make messages at a steady rate, and not for a moment longer than the lease holds."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(1 / HZ - loop.time() % (1 / HZ))
            if loop.time() >= self._until or self.term != lease.term:
                return
            message = reading(lease.last + 1, time.time())
            event = {
                "type": "feed.message",
                "term": lease.term,
                "before": self.last,
                "messages": [message],
            }
            lease.last = message.number
            self._given = lease.term, lease.last
            self.keep([message])  # whatever becomes of the event on its way round
            try:
                await layer.group_send(FEED, event)
            except (ChannelFull, ChannelLayerUnavailable) as error:
                logger.warning("a message of the feed got lost on its way: %s", error)


feed = Feed(settings.POLLING_KEPT)
