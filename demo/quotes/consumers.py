"""The quotes of one page, as often as it wants them.

Every message both ways is a JSON object with a ``type``. Prices are whole numbers of an
instrument's smallest step.

From the page:

- ``rate``: ``per_second``, how many updates it wants
- ``snapshot``: it has missed something, and wants everything
- ``look``: ``instrument``, whose candles and orders it shows
- ``watch``: ``instrument`` and ``watching``, true or false
- ``alert``: ``instrument``, ``above`` (true or false) and ``price``
- ``forget``: ``alert``, its id
- ``ping``

From the server: ``welcome`` (its lists), ``snapshot`` (every quote), ``delta`` (the quotes that
have changed since ``from``, up to ``seq``), ``candles``, ``watching``, ``alert``, ``forgotten``,
``pong``, ``error``. Of a snapshot and a delta, ``at`` says when the newest price in it was made, in
seconds since 1970.

A page is never sent what is out of date. A delta is made in the moment in which the connection
takes it, out of what has changed since the one before; a slow client gets fewer and longer ones,
and no queue grows anywhere.
"""

import asyncio
from contextlib import suppress

from django.conf import settings

from headrace.db import database_sync_to_async
from live.consumers import LiveConsumer
from live.events import for_browsers
from live.limits import Refused, number_of
from quotes.groups import FLOOR, watcher_group
from quotes.market import market, mirror
from quotes.models import Alert, Candle, Instrument, Watch

__all__ = ["RATES", "QuotesConsumer"]

#: Updates a second, as a page may choose.
RATES = (1, 4, 10)


class QuotesConsumer(LiveConsumer):
    """One page with quotes."""

    commands = {
        "rate": "set_rate",
        "snapshot": "snapshot",
        "look": "look",
        "watch": "watch",
        "alert": "add_alert",
        "forget": "forget_alert",
    }
    user_group = staticmethod(watcher_group)
    rate = 4
    looked_at = None
    stream_task = None
    entered = False

    async def enter(self):
        # How its lists change, the page is told from here on.
        await self.welcome()
        await market.enter()
        self.entered = True
        self.stream_task = asyncio.create_task(self.stream())

    async def disconnect(self, code):
        if self.stream_task is not None:
            self.stream_task.cancel()
        if self.entered:
            await market.leave()

    async def welcome(self):
        await self.send_json(await database_sync_to_async(self.lists)())

    async def layer_gap(self, event):
        """Tell the lists again: a change of them may have been lost. Quotes heal by themselves."""
        await self.welcome()

    def lists(self):
        watched = Watch.objects.filter(user=self.user).values_list("instrument", flat=True)
        alerts = Alert.objects.filter(user=self.user).select_related("instrument")
        return {
            "type": "welcome",
            "you": self.user.pk,
            "watching": list(watched),
            "alerts": [alert.public() for alert in alerts],
        }

    # Quotes

    async def stream(self):
        """Tell the page what has changed, at its rate, for as long as it is there."""
        loop = asyncio.get_running_loop()
        with suppress(OSError):  # the client is gone; disconnect() follows
            await self.snapshot()
            while True:
                period = 1 / self.rate
                await asyncio.sleep(period - loop.time() % period)
                if mirror.seq > self.told and not mirror.stale:
                    await self.delta()

    async def snapshot(self, content=None):
        """Tell everything."""
        await mirror.fresh.wait()
        self.told = mirror.seq
        await self.send_json(
            {
                "type": "snapshot",
                "seq": mirror.seq,
                "at": mirror.at,
                "trades": mirror.trades,
                "quotes": mirror.quotes(),
                "detail": mirror.detail(self.looked_at),
            }
        )

    async def delta(self):
        # Where this process itself has missed something, the page sees a gap, and asks.
        since = max(self.told, mirror.begins)
        self.told = mirror.seq
        await self.send_json(
            {
                "type": "delta",
                "from": since,
                "seq": mirror.seq,
                "at": mirror.at,
                "trades": mirror.trades,
                "quotes": mirror.changes(since),
                "detail": mirror.detail(self.looked_at, since),
            }
        )

    async def set_rate(self, content):
        if content.get("per_second") not in RATES:
            rates = ", ".join(map(str, RATES))
            raise Refused("bad_rate", f"per_second is one of {rates}.")
        self.rate = content["per_second"]

    async def look(self, content):
        self.looked_at = instrument = await self.instrument(content)
        candles = await database_sync_to_async(Candle.objects.latest_of)(instrument)
        await self.send_json(
            {
                "type": "candles",
                "instrument": instrument,
                "candles": candles,
                "detail": mirror.detail(instrument),
            }
        )

    @staticmethod
    async def instrument(content):
        """Return the instrument that a command names."""
        number = number_of(content.get("instrument"), "instrument")
        # Where the market has begun, it knows them all.
        if number in mirror.rows or await Instrument.objects.filter(pk=number).aexists():
            return number
        raise Refused("unknown_instrument", "There is no such instrument.")

    # Lists

    async def watch(self, content):
        instrument = await self.instrument(content)
        watching = content.get("watching") is True
        keep = Watch.objects.begin if watching else Watch.objects.end
        await database_sync_to_async(keep)(self.user, instrument)
        await self.tell_pages(type="watching", instrument=instrument, watching=watching)

    async def add_alert(self, content):
        instrument = await self.instrument(content)
        price = number_of(content.get("price"), "price", most=10**9)
        above = content.get("above")
        if not isinstance(above, bool):
            raise Refused("bad_message", "above is true or false.")
        if price == 0:
            raise Refused("bad_price", "An alert needs a price above zero.")
        waiting = Alert.objects.filter(user=self.user, fired_at=None)
        if await waiting.acount() >= settings.QUOTES_ALERTS:
            raise Refused(
                "too_many", f"You wait for {settings.QUOTES_ALERTS} prices. Forget one first."
            )
        alert = await Alert.objects.acreate(
            user=self.user, instrument_id=instrument, above=above, price=price
        )
        await self.tell_pages(type="alert", alert=alert.public())
        await self.channel_layer.group_send(FLOOR, {"type": "floor.alerts"})

    async def forget_alert(self, content):
        number = number_of(content.get("alert"), "alert")
        deleted, _ = await Alert.objects.filter(pk=number, user=self.user).adelete()
        if not deleted:
            raise Refused("unknown_alert", "You have no such alert.")
        await self.tell_pages(type="forgotten", alert=number)
        await self.channel_layer.group_send(FLOOR, {"type": "floor.alerts"})

    async def tell_pages(self, **event):
        """Tell all quotes pages of this user, this one included."""
        await self.channel_layer.group_send(self.user_group(self.user.pk), for_browsers(event))
