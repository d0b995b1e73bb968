"""The market as one process knows it: the last word on each instrument, and which word it was.

Sequence numbers go up by one with each event of the market, and jump when another process takes
it over: a number is ``term * TERM + event``. Nothing is queued here. A page is owed whatever has
changed since the number up to which it was told; what changed twice meanwhile is told once.
"""

import asyncio
from operator import itemgetter

__all__ = ["TERM", "Mirror", "sequence"]

TERM = 10**9

ID, LAST, VOLUME, BID, ASK, BIDS, ASKS, CANDLE = range(8)
QUOTE = itemgetter(ID, LAST, VOLUME, BID, ASK)


def sequence(term: int, event: int) -> int:
    return term * TERM + event


class Mirror:
    """What was told last. ``take`` is fed with the market's events, in their order."""

    def __init__(self) -> None:
        self.seq = 0
        #: How many trades there were, in all.
        self.trades = 0
        #: When the market said it, in seconds since 1970.
        self.at = 0.0
        #: The number from which on every change is known.
        self.begins = 0
        #: Something was missed: what is here is not what the market says, until all of it is told.
        self.stale = True
        self.fresh = asyncio.Event()
        self.rows: dict[int, list] = {}
        self._changed: dict[int, int] = {}

    def take(self, event: dict) -> bool:
        """Take an event in; return False if something before it is missing."""
        seq = event["seq"]
        if event["whole"]:
            if seq > self.seq or (self.stale and seq == self.seq):
                if seq > self.seq:
                    self.begins = seq
                    self._changed.clear()
                self._note(event)
                self.stale = False
                self.fresh.set()
            return True
        if seq <= self.seq:
            return True  # from a market whose time is over, or told a second time
        if self.stale or seq != self.seq + 1:
            self.miss()
            return False
        self._note(event)
        return True

    def miss(self) -> None:
        self.stale = True
        self.fresh.clear()

    def _note(self, event):
        self.seq = event["seq"]
        self.trades = event["trades"]
        self.at = event["at"]
        for row in event["rows"]:
            self.rows[row[ID]] = row
            self._changed[row[ID]] = self.seq

    def quotes(self) -> list[tuple]:
        return [QUOTE(row) for row in self.rows.values()]

    def changes(self, since: int) -> list[tuple]:
        """Return what is new since a number, each instrument once."""
        rows, changed = self.rows, self._changed
        return [QUOTE(rows[pk]) for pk, seq in changed.items() if seq > since]

    def detail(self, pk: int | None, since: int = -1) -> dict | None:
        """Return the orders and the candle of an instrument, if they have changed."""
        if self._changed.get(pk, -1) <= since:
            return None
        row = self.rows[pk]
        return {
            "id": pk,
            "bid": row[BID],
            "ask": row[ASK],
            "bids": row[BIDS],
            "asks": row[ASKS],
            "candle": row[CANDLE],
        }
