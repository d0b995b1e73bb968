"""What the four ways of each page have cost in this process, told to that page.

What is told are sums since the page began, by way, and never differences: what gets lost on its
way is made up for by the next. A page adds up those of all processes that have served it.
"""

import asyncio
import logging
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable
from contextlib import contextmanager
from contextvars import Context
from functools import partial
from uuid import UUID

from headrace.exceptions import ChannelFull, ChannelLayerUnavailable
from headrace.layers import get_channel_layer
from live.events import for_browsers
from live.limits import Refused
from polling.groups import page_group
from polling.meter import METER, Meter
from polling.order import run_of

__all__ = ["Ledger", "ledger", "metered"]

logger = logging.getLogger(__name__)

REPORT_S = 0.5
#: After so long without anything new a page is forgotten; and so many are known at most.
FORGET_S = 60.0
MOST = 500
#: Frames that are told of at once.
FRAMES = 8
# What another server says: it knows neither what has passed nor that it stops.
NOTHING = {"traffic": lambda *of_whom: None, "draining": lambda *of_whom: False}


class Account:
    """One page's."""

    def __init__(self, now: float) -> None:
        self.sums: dict[str, list] = {}
        self.open: set[Meter] = set()
        self.frames: list[Callable[[], dict]] = []
        self.told: dict = {}
        self.changed_at = now

    def totals(self) -> dict[str, list]:
        """Return by way: requests, bytes received, bytes sent, seconds of processor time."""
        totals = {way: sums.copy() for way, sums in self.sums.items()}
        for meter in self.open:
            add(totals, meter)
        return totals

    def close(self, meter: Meter) -> None:
        self.open.discard(meter)
        self.frames += meter.frames.values()
        add(self.sums, meter)


def add(totals, meter):
    sums = totals.setdefault(meter.way, [0, 0, 0, 0.0])
    sums[0] += 1
    sums[1] += meter.received_bytes
    sums[2] += meter.sent_bytes
    sums[3] += meter.cpu_s


class Ledger:
    """All pages that this process has served lately."""

    def __init__(self) -> None:
        self.accounts: OrderedDict[UUID, Account] = OrderedDict()
        #: Of this process, in its life.
        self.process = uuid.uuid4().hex[:12]
        self._reporting: asyncio.Task | None = None

    @contextmanager
    def entry(self, meter: Meter):
        """Count what is measured meanwhile, and for good."""
        account = self.accounts.get(meter.run_id)
        if account is None:
            account = self.accounts[meter.run_id] = Account(time.monotonic())
            self._make_room()
        account.open.add(meter)
        if self._reporting is None:
            # In a context of its own: it outlives what it began with, and is not measured.
            self._reporting = asyncio.create_task(self._report(), context=Context())
        try:
            yield meter
        finally:
            account.close(meter)

    def _make_room(self):
        if len(self.accounts) > MOST:
            idle = (run for run, account in self.accounts.items() if not account.open)
            oldest = next(idle, None)
            if oldest is not None:
                del self.accounts[oldest]

    async def _report(self):
        layer = get_channel_layer()
        while self.accounts:
            await asyncio.sleep(REPORT_S)
            now = time.monotonic()
            for run, account in list(self.accounts.items()):
                event = self.news(account, now)
                if event is not None:
                    try:
                        await layer.group_send(page_group(run), for_browsers(event))
                    except (ChannelFull, ChannelLayerUnavailable) as error:
                        logger.warning("a page is not told what it costs: %s", error)
                elif not account.open and now - account.changed_at > FORGET_S:
                    self.accounts.pop(run, None)
        self._reporting = None

    def news(self, account: Account, now: float) -> dict | None:
        """Return what is to be told of an account; None if nothing has changed."""
        frames, account.frames = account.frames, []
        for meter in account.open:
            frames += meter.frames.values()
            meter.frames.clear()
        totals = account.totals()
        if totals == account.told and not frames:
            return None
        account.told, account.changed_at = totals, now
        return {
            "type": "costs",
            "process": self.process,
            "process_cpu_s": round(time.process_time(), 4),
            "ways": totals,
            "frames": [explain() for explain in frames[-FRAMES:]],
        }


ledger = Ledger()


def metered(way, application):
    """Wrap an ASGI application that serves one of the four ways."""

    async def app(scope, receive, send):
        try:
            run = run_of(scope)
        except Refused:  # whoever answers says so
            await application(scope, receive, send)
            return
        extension = scope.get("extensions", {}).get("headrace") or NOTHING
        traffic = extension["traffic"](receive, send)
        draining = partial(extension["draining"], receive, send)
        with ledger.entry(Meter(run, way, traffic, draining)) as meter:
            token = METER.set(meter)
            try:
                await meter.run(application(scope, receive, send))
            finally:
                METER.reset(token)

    return app
