"""A market made up of chance: no input or output, and time is passed in.

Prices walk at random on a logarithmic scale, drawn gently back to where the day began. A trade that
moves a price makes the next ones more likely to move it, which calms down again: that is what
gives real markets their quiet hours and sudden storms. Orders wait on whole ticks on both sides of
the price, and a trade eats from the best of them.
"""

import math
import random
from collections.abc import Iterable

__all__ = ["DEPTH", "Book", "Simulation"]

DEPTH = 10
# How strongly a price is drawn back, by the second.
PULL = 1 / 3600
# How much of an excitement is left at the next trade, and how much a move of one deviation adds.
CALM, EXCITEMENT = 0.94, 0.05
# After a longer pause the price goes on as if it had been so long.
LONGEST_PAUSE_S = 30.0


class Book:
    """One instrument: its last price, the orders that wait, and the candle of now.

    Prices count ticks. ``bids[0]`` is the size that waits at ``bid``, ``bids[1]`` one tick below;
    ``asks[0]`` waits at ``ask``, ``asks[1]`` one tick above.
    """

    def __init__(self, pk, *, opening, volatility, activity, last=None, volume=0, candle=None):
        self.pk = pk
        self.opening = opening
        self.volatility = volatility
        self.activity = activity
        self.last = last or opening
        self.size = 0
        self.volume = volume
        self.candle = candle
        self.fair = float(self.last)
        self.excitement = 1.0
        self.traded_at = None
        self.lot = 100 * max(1, round(2000 / self.last))
        self.bid = self.last
        self.ask = self.last + 1
        self.bids = None
        self.asks = None

    def open(self, rng):
        self.bids = [self.order(rng, level) for level in range(DEPTH)]
        self.asks = [self.order(rng, level) for level in range(DEPTH)]

    def order(self, rng, level):
        """Return the size that waits at one price: the more, the further from the middle."""
        return self.lot * max(1, round(rng.lognormvariate(1.6, 0.6) * (1 + level / 4)))

    def trade(self, now, rng):
        pause = min(LONGEST_PAUSE_S, now - self.traded_at) if self.traded_at else 1 / self.activity
        self.traded_at = now
        step = rng.gauss(0, 1)
        self.excitement = CALM * self.excitement + EXCITEMENT * (abs(step) + 0.2)
        spread = self.volatility * self.excitement * math.sqrt(pause)
        drift = PULL * pause * math.log(self.opening / self.fair)
        self.fair = max(DEPTH + 1.0, self.fair * math.exp(drift + spread * step))
        self.move_to(round(self.fair), rng)
        # The buyer or the seller is in a hurry, and takes what the other side offers.
        buys = rng.random() < 0.5 + 0.2 * math.tanh(step)
        side = self.asks if buys else self.bids
        self.last = self.ask if buys else self.bid
        self.size = min(side[0], self.lot * max(1, round(rng.lognormvariate(0.4, 0.9))))
        self.volume += self.size
        side[0] = side[0] - self.size or self.order(rng, 0)
        for orders in (self.bids, self.asks):
            level = rng.randrange(DEPTH)
            orders[level] = self.order(rng, level)

    def move_to(self, price, rng):
        """Move both sides: an order stays at its price while the price is among the shown ones."""
        by = price - self.bid
        self.bid, self.ask = price, price + 1
        if by > 0:
            self.bids = self.nearer(self.bids, by, rng)
            self.asks = self.further(self.asks, by, rng)
        elif by < 0:
            self.bids = self.further(self.bids, -by, rng)
            self.asks = self.nearer(self.asks, -by, rng)

    def nearer(self, orders, by, rng):
        by = min(by, DEPTH)
        return [self.order(rng, level) for level in range(by)] + orders[: DEPTH - by]

    def further(self, orders, by, rng):
        by = min(by, DEPTH)
        return orders[by:] + [self.order(rng, level) for level in range(DEPTH - by, DEPTH)]

    def draw(self, time):
        """Put the last trade into the candle that began at ``time``; return one that is over."""
        price, candle = self.last, self.candle
        if candle is not None and candle[0] == time:
            candle[2] = max(candle[2], price)
            candle[3] = min(candle[3], price)
            candle[4] = price
            candle[5] += self.size
            return None
        self.candle = [time, price, price, price, price, self.size]
        return candle

    def row(self):
        """Return all that others may know: see :class:`quotes.mirror.Mirror`."""
        return [
            self.pk,
            self.last,
            self.volume,
            self.bid,
            self.ask,
            list(self.bids),
            list(self.asks),
            self.candle and list(self.candle),
        ]


class Simulation:
    """All books, and which of them trade when."""

    def __init__(self, books: Iterable[Book], *, candle_s: int, rng: random.Random) -> None:
        self.books = {book.pk: book for book in books}
        self.candle_s = candle_s
        self.trades = 0
        self.closed: list[tuple[int, list[int]]] = []
        self._rng = rng
        self._order = list(self.books.values())
        self._weights = [book.activity for book in self._order]
        self._per_second = sum(self._weights)
        self._now: float | None = None
        for book in self._order:
            book.open(rng)

    def step(self, now: float) -> list[Book]:
        """Trade until ``now``, and return the books that have changed."""
        elapsed = min(1.0, now - self._now) if self._now is not None else 0.1
        self._now = now
        if not self._order:
            return []
        expected = self._per_second * elapsed
        count = max(0, round(self._rng.gauss(expected, math.sqrt(expected))))
        time = int(now) // self.candle_s * self.candle_s
        changed = {}
        for book in self._rng.choices(self._order, self._weights, k=count):
            book.trade(now, self._rng)
            if (over := book.draw(time)) is not None:
                self.closed.append((book.pk, over))
            changed[book.pk] = book
        self.trades += count
        return list(changed.values())

    def state(self) -> dict[str, list]:
        """Return what the next one needs to go on from here, ready for JSON."""
        return {str(book.pk): [book.last, book.volume, book.candle] for book in self._order}
