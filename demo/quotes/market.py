"""The market's one place, and how every process hears of it.

In each process that shows quotes runs one :class:`MarketConsumer`, a consumer without a client. It
listens for the whole process and keeps the :data:`mirror`; and one of them, whoever gets the
lease, makes the market: steps the simulation, tells everyone, and writes down once a second
what must outlive it. The lease is a row that expires. When its process ends, or dies, or hangs,
another one goes on from that row, at a higher term; what the former one may still say counts for
nothing.
"""

import asyncio
import logging
import random
import time
from contextlib import suppress

from django.conf import settings
from django.db import DatabaseError

from headrace.consumer import AsyncConsumer, Overflow
from headrace.db import database_sync_to_async
from headrace.exceptions import ChannelFull, ChannelLayerUnavailable, StopConsumer
from headrace.shared import SharedTask
from quotes.groups import FLOOR, TICKS
from quotes.mirror import Mirror, sequence
from quotes.models import Alert, Candle, Instrument, Lease
from quotes.simulation import Book, Simulation

__all__ = ["market", "mirror"]

logger = logging.getLogger(__name__)

STEPS_PER_SECOND = 10

# What passes: the lease is tried again a second later.
FAILURES = (DatabaseError, ChannelFull, ChannelLayerUnavailable, TimeoutError)

mirror = Mirror()


class Floor:
    """Where the trades are made, as long as the lease holds."""

    def __init__(self, term: int, simulation: Simulation) -> None:
        self.term = term
        self.simulation = simulation
        self.event = 0
        self.alerts: dict[int, list[Alert]] = {}
        self.hits: list[Alert] = []

    @classmethod
    def acquire(cls, holder: str) -> "Floor | None":
        """Return the market as it was left, if it is to be had."""
        lease = Lease.objects.acquire(holder)
        if lease is None:
            return None
        term, state = lease
        books = []
        for each in Instrument.objects.all():
            last, volume, candle = state.get(str(each.pk), (None, 0, None))
            books.append(
                Book(
                    each.pk,
                    opening=each.opening,
                    volatility=each.volatility,
                    activity=each.activity,
                    last=last,
                    volume=volume,
                    candle=candle,
                )
            )
        rng = random.Random()  # noqa: S311 - it makes a market, and no secret
        simulation = Simulation(books, candle_s=settings.QUOTES_CANDLE_S, rng=rng)
        return cls(term, simulation)

    def set_alerts(self, alerts: list[Alert]) -> None:
        hit = {alert.pk for alert in self.hits}
        self.alerts = {}
        for alert in alerts:
            if alert.pk not in hit:
                self.alerts.setdefault(alert.instrument_id, []).append(alert)

    def step(self) -> dict:
        """Make what trades are due, and return the event that tells of them."""
        changed = self.simulation.step(time.time())
        for book in changed:
            for alert in self.alerts.get(book.pk, ())[:]:
                if book.last >= alert.price if alert.above else book.last <= alert.price:
                    self.alerts[book.pk].remove(alert)
                    self.hits.append(alert)
        self.event += 1
        return self.told(changed, whole=False)

    def whole(self) -> dict:
        """Return the event that tells everything."""
        return self.told(self.simulation.books.values(), whole=True)

    def told(self, books, *, whole):
        return {
            "type": "market.ticks",
            "seq": sequence(self.term, self.event),
            "whole": whole,
            "at": time.time(),
            "trades": self.simulation.trades,
            "rows": [book.row() for book in books],
        }

    async def write_down(self, holder: str) -> bool:
        """Renew the lease with what must outlive this process; return False if it is lost."""
        closed, hits = self.simulation.closed, self.hits[:]
        self.simulation.closed = []
        fields = ("time", "open", "high", "low", "close", "volume")
        try:
            return await database_sync_to_async(Lease.objects.renew)(
                holder,
                state=self.simulation.state(),
                candles=[
                    Candle(instrument_id=pk, **dict(zip(fields, candle, strict=True)))
                    for pk, candle in closed
                ],
                hits=hits,
            )
        except DatabaseError:
            self.simulation.closed = closed + self.simulation.closed
            hits = []
            raise
        finally:
            self.hits = [alert for alert in self.hits if alert not in hits]


class MarketConsumer(AsyncConsumer):
    """What one process hears of the market, and the market itself where the lease is."""

    # Ten events a second; one that is missing shows in the numbers, and all is asked for.
    overflow = Overflow.DROP_OLDEST
    floor = None

    async def market_open(self, event):
        self.closing = asyncio.Event()
        self.keeping = asyncio.create_task(self.keep())
        self.trading = asyncio.create_task(self.trade())

    async def market_close(self, event):
        self.trading.cancel()
        self.closing.set()
        await asyncio.gather(self.trading, self.keeping, return_exceptions=True)
        raise StopConsumer

    async def on_error(self, error, message):
        """Go on: what was lost on its way shows in the numbers."""
        logger.error("the market has failed at %s", message["type"], exc_info=error)

    # Every process

    async def market_ticks(self, event):
        if not mirror.take(event):
            await self.ask()

    async def layer_gap(self, event):
        """Ask for everything: the channel layer may have lost something on its way here."""
        mirror.miss()
        await self.ask()

    async def ask(self):
        await self.channel_layer.group_send(FLOOR, {"type": "floor.ask"})

    # The one that holds the lease

    async def floor_ask(self, event):
        # To all: so it has its place in the order of the ticks. Who has missed nothing ignores it.
        if self.floor is not None:
            await self.channel_layer.group_send(TICKS, self.floor.whole())

    async def floor_alerts(self, event):
        """Read again who waits for what: somebody has changed it."""
        waiting = Alert.objects.filter(fired_at=None).select_related("instrument", "user")
        alerts = [alert async for alert in waiting]
        if self.floor is not None:
            self.floor.set_alerts(alerts)

    async def keep(self):
        """Keep the lease, or try to get it; in the end, leave it to another."""
        while not self.closing.is_set():
            began = asyncio.get_running_loop().time()
            try:
                if mirror.stale:
                    await self.channel_layer.group_add(TICKS, self.channel_name)
                    await self.ask()
                if self.floor is None:
                    await self.take_over(began)
                elif await self.floor.write_down(self.channel_name):
                    self.holds_until = began + settings.QUOTES_LEASE_S
                else:
                    await self.give_up()
            except FAILURES:
                logger.exception("the market can't be kept just now")
            with suppress(TimeoutError):
                await asyncio.wait_for(self.closing.wait(), settings.QUOTES_LEASE_S / 3)
        if self.floor is not None:
            await self.floor.write_down(self.channel_name)
            await database_sync_to_async(Lease.objects.release)(self.channel_name)

    async def take_over(self, began):
        floor = await database_sync_to_async(Floor.acquire)(self.channel_name)
        if floor is None:
            return
        self.holds_until = began + settings.QUOTES_LEASE_S
        self.floor = floor
        await self.channel_layer.group_add(FLOOR, self.channel_name)
        await self.floor_alerts({})  # after the group: one that is set from here on is told
        await self.channel_layer.group_send(TICKS, floor.whole())

    async def give_up(self):
        self.floor = None
        await self.channel_layer.group_discard(FLOOR, self.channel_name)

    async def trade(self):
        """Step at a fixed rate, and not for a moment longer than the lease holds."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(1 / STEPS_PER_SECOND - loop.time() % (1 / STEPS_PER_SECOND))
            if self.floor is None:
                continue
            if loop.time() > self.holds_until:
                self.floor = None
                continue
            try:
                await self.channel_layer.group_send(TICKS, self.floor.step())
            except (ChannelFull, ChannelLayerUnavailable) as error:
                logger.warning("a step of the market got lost: %s", error)


class Market:
    """Runs the consumer of this process while somebody looks."""

    def __init__(self) -> None:
        self._attending = SharedTask(self._attend)

    async def enter(self) -> None:
        if not self._attending.running:
            mirror.miss()  # what happened since somebody looked last
        await self._attending.enter()

    async def leave(self) -> None:
        await self._attending.leave()

    async def _attend(self) -> None:
        inbox: asyncio.Queue[dict] = asyncio.Queue()
        inbox.put_nowait({"type": "market.open"})
        application = MarketConsumer.as_asgi()
        consumer = asyncio.create_task(application({"type": "market"}, inbox.get, self._nobody))
        try:
            await asyncio.shield(consumer)
        except asyncio.CancelledError:
            inbox.put_nowait({"type": "market.close"})
            await consumer
            raise

    @staticmethod
    async def _nobody(message):
        """Take what the consumer sends to its client: there is none."""


market = Market()
