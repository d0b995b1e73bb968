"""How far everyone has read, kept for many readers at once.

Whoever is in a busy room reads on with every message, and everyone else with them. So marks are
collected, and what has come together while the last ones were written (``EVERY_S`` at least) is
one transaction. A reader's own is waited for when they leave.
"""

import asyncio
import logging
from contextvars import Context

from django.db import DatabaseError

from chat.models import ReadMark
from headrace.db import database_sync_to_async

__all__ = ["EVERY_S", "Marks", "marks"]

logger = logging.getLogger(__name__)

EVERY_S = 0.5


class Marks:
    """The marks of this process that are to be kept."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[int, int], int] = {}  # room and user: number
        self._keeping: asyncio.Task | None = None
        self._writing = asyncio.Lock()

    def note(self, room_id: int, user_id: int, number: int) -> None:
        """Keep a mark soon, unless there is a later one by then. The number may be any."""
        key = room_id, user_id
        self._waiting[key] = max(number, self._waiting.get(key, 0))
        if self._keeping is None:
            # In a context of its own: it is of many connections.
            self._keeping = asyncio.create_task(self._keep(), context=Context())

    async def kept(self) -> None:
        """Wait until everything that was noted so far is kept, or will be later."""
        if self._waiting or self._writing.locked():
            await self._write()

    async def _keep(self) -> None:
        try:
            while self._waiting:
                await self._write()
                await asyncio.sleep(EVERY_S)
        finally:
            self._keeping = None

    async def _write(self) -> None:
        async with self._writing:
            batch, self._waiting = self._waiting, {}
            if not batch:
                return
            try:
                await database_sync_to_async(ReadMark.objects.advance)(batch)
            except BaseException as error:
                for key, number in batch.items():
                    self._waiting[key] = max(number, self._waiting.get(key, 0))
                if not isinstance(error, DatabaseError):
                    raise
                logger.warning("how far some have read will be kept later", exc_info=True)


marks = Marks()
