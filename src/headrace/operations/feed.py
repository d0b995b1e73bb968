"""The one reader of this process that asks the server for all pages which watch.

Rules of this file:

- It reads while somebody watches, and not a moment longer.
- Who is slow to take the news gets the latest, and misses those between; nobody waits for it.
- That the server can't be asked is news as well, and the reader goes on asking.
- Only the server that this application runs in is asked, never another one of the same user.
"""

import asyncio
import contextlib
import logging
import os
import threading
import time
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from ..codecs import encode_json
from ..exceptions import ControlError
from ..figures import Meter
from ..instruments import process
from ..server import control
from ..server.snapshot import descriptors, rss_bytes

__all__ = ["Feed", "Listed", "News", "feed", "server_path"]

logger = logging.getLogger("headrace.operations")

#: Between two snapshots.
INTERVAL_S = 1.0
#: An answer that takes longer says that there is none.
TIMEOUT_S = 5.0
#: Connections that a page may go through.
LISTED = 500
#: Points that who comes later finds in the plots.
KEPT = 300


@dataclass(frozen=True, slots=True)
class News:
    """What all pages are told: a message as JSON, encoded once."""

    number: int
    text: str


@dataclass(frozen=True, slots=True)
class Listed:
    """Connections of the server, and how many it has, of which these may be a part."""

    rows: list[dict[str, Any]]
    total: int


def server_path() -> str | None:
    """Return the control socket of the server of this application; None: it is another's."""
    return os.environ.get(control.ENVIRONMENT) or None


class Feed:
    """What the server says, for everybody on this event loop who watches."""

    def __init__(self) -> None:
        self._watching = 0
        self._reader: asyncio.Task[None] | None = None
        self._link: control.Link | None = None
        self._connecting = asyncio.Lock()
        self._listing = asyncio.Lock()
        self._changed = asyncio.Event()
        self._begin()

    def _begin(self) -> None:
        self._news: News | None = None
        self._meter = Meter()
        self._now: deque[dict[str, Any]] = deque(maxlen=KEPT)
        self._listed: dict[tuple[str, str], tuple[float, Listed]] = {}

    @property
    def history(self) -> list[dict[str, Any]]:
        """The figures of all workers since somebody watches, the oldest first."""
        return list(self._now)

    @contextlib.asynccontextmanager
    async def watch(self) -> AsyncIterator["Feed"]:
        """Have news for the time of the context."""
        self._watching += 1
        if self._reader is None:
            self._begin()
            self._reader = asyncio.create_task(self._read(), name="headrace operations")
        try:
            yield self
        finally:
            self._watching -= 1
            if not self._watching:
                reader, self._reader = self._reader, None
                reader.cancel()
                self._let_go()

    async def news(self, after: int) -> News:
        """Return the latest news, once there are any beyond this number."""
        while self._news is None or self._news.number <= after:
            await self._changed.wait()
        return self._news

    async def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Ask the server; ControlError where it says no, or there is none."""
        link = await self._connected()
        return await link.ask(do, timeout_s=TIMEOUT_S, **arguments)

    async def connections(self, *, order: str, search: str, max_age_s: float) -> Listed:
        """Return the server's connections, or what another page was told so recently."""
        async with self._listing:
            now, key = time.monotonic(), (order, search)
            for old in [each for each, (at, _) in self._listed.items() if now - at >= max_age_s]:
                del self._listed[old]
            if key not in self._listed:
                answer = await self.ask("connections", limit=LISTED, order=order, search=search)
                rows = answer["connections"]
                listed = Listed(rows, answer.get("total", len(rows)))
                self._listed[key] = now, listed
            return self._listed[key][1]

    async def _connected(self) -> control.Link:
        path = server_path()
        if path is None:
            raise ControlError("this application is not run by “headrace serve”")
        async with self._connecting:
            if self._link is None or not self._link.is_open:
                self._link = await control.connect(path)
            return self._link

    def _let_go(self) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None

    async def _read(self) -> None:
        while True:
            try:
                answer = await self._snapshot()
                figures = self._meter.take(answer, at=time.time(), clock_s=time.monotonic())
            except ControlError as error:
                self._publish({"type": "trouble", "text": str(error)})
            except Exception:
                logger.exception("the server's snapshot could not be read")
                text = "the server's snapshot could not be read: see the log"
                self._publish({"type": "trouble", "text": text})
            else:
                self._now.append({"at": figures.at, "now": figures.now})
                self._publish({"type": "figures", "figures": figures})
            await asyncio.sleep(INTERVAL_S)

    async def _snapshot(self) -> dict[str, Any]:
        if server_path() is None:
            return {"server": {}, "workers": [_of_this_process()]}
        return await self.ask("snapshot")

    def _publish(self, message: dict[str, Any]) -> None:
        number = 1 if self._news is None else self._news.number + 1
        self._news = News(number, encode_json(message))
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


_STARTED = time.time()


def _of_this_process() -> dict[str, Any]:
    """Return what can be known without a server of ours: this process, and what it counts."""
    return {
        "worker": None,
        "pid": os.getpid(),
        "started": _STARTED,
        "cpu_s": time.process_time(),
        "rss_bytes": rss_bytes(),
        "descriptors": descriptors(),
        "tasks": len(asyncio.all_tasks()),
        "threads": threading.active_count(),
        **process.read().as_dict(),
    }


_feeds: WeakKeyDictionary[asyncio.AbstractEventLoop, Feed] = WeakKeyDictionary()


def feed() -> Feed:
    """Return the feed of the running loop, of which a process has one, as a rule."""
    return _feeds.setdefault(asyncio.get_running_loop(), Feed())
