"""Who is in which room, counted in connections and told in users, whichever process has them.

Each connection is a row (``Visit``) that belongs to its process, and a process is a row with a
lease (``Process``), which it renews while it has connections. A process that dies renews it no
more: the next that looks takes it out of the table with all its connections, and tells the rooms.
So there are as many rows as connections, and however many those are, one row is written for each
process and ``CHAT_LEASE_S / 3`` seconds.

Why the database, and not the channel layer: whoever comes must be told at once who is there.
Processes that only told each other would each have to keep what all others said, and to find out
what they have missed; a table is asked. And it needs nothing of the layer, so that it is the same
with one process, with workers of one host and over Redis.

A person with three tabs is one person: the room is told when the first comes and the last goes.
Each time the revision of the room's presence goes up, so that who is told of two changes in the
wrong order can tell the newer one.
"""

import asyncio
import logging
from contextvars import Context
from uuid import uuid4

from django.conf import settings
from django.contrib.auth import get_user_model
from django.db import DatabaseError, transaction
from django.utils import timezone

from chat.groups import room_group
from chat.models import Process, Room, Visit
from headrace.db import database_sync_to_async, group_send_on_commit
from live.events import for_browsers

__all__ = ["Presence"]

logger = logging.getLogger(__name__)


class Presence:
    """The connections of this process, as the others know them."""

    def __init__(self) -> None:
        self._key = ""
        self._here: dict[str, tuple[int, int]] = {}  # channel: room and user
        self._task: asyncio.Task | None = None

    async def enter(self, room_id: int, user_id: int, channel: str) -> None:
        """Count a connection, and tell the room if a person comes with it."""
        # Not before there is a connection: a process that forks has not begun yet.
        self._key = self._key or uuid4().hex
        self._here[channel] = room_id, user_id
        if self._task is None:
            # In a context of its own: it outlives the connection that began it.
            self._task = asyncio.create_task(self._keep(), context=Context())
        await database_sync_to_async(come)(self._key, channel, room_id, user_id)

    async def leave(self, channel: str) -> None:
        """Forget a connection, and tell the room if a person goes with it."""
        if self._here.pop(channel, None) is None:
            return
        try:
            await database_sync_to_async(go)({channel})
        except DatabaseError:
            logger.warning("that somebody left will be told later", exc_info=True)
            return
        if not self._here and self._task is not None:
            self._task.cancel()
            self._task = None

    async def _keep(self) -> None:
        """Renew the lease, and see that the table agrees with what is here."""
        while True:
            await asyncio.sleep(settings.CHAT_LEASE_S / 3)
            try:
                kept = await database_sync_to_async(renew)(self._key)
                here = self._here.copy()
                # Who left while the database could not be written.
                if stray := kept - here.keys():
                    await database_sync_to_async(go)(stray)
                # This process was held up for so long that it was taken for dead.
                for channel in here.keys() - kept:
                    await database_sync_to_async(come)(self._key, channel, *here[channel])
            except DatabaseError:
                logger.warning("the lease of those present could not be renewed", exc_info=True)


def come(key: str, channel: str, room_id: int, user_id: int) -> None:
    with transaction.atomic():
        # Here and in renew(): first the process, then its rooms.
        until = Process.objects.next_until()
        process, _ = Process.objects.update_or_create(pk=key, defaults={"until": until})
        room = Room.objects.select_for_update().filter(pk=room_id).first()
        if room is None:
            return
        is_here = Visit.objects.of(room_id, user_id).exists()
        Visit.objects.get_or_create(
            channel=channel, defaults={"process": process, "room_id": room_id, "user_id": user_id}
        )
        if not is_here:
            tell(room, user_id, here=True)


def go(channels: set[str]) -> None:
    with transaction.atomic():
        part(list(Visit.objects.filter(channel__in=channels)))


def renew(key: str) -> set[str]:
    """Renew the lease, clear away processes that died, and return the channels that are kept."""
    with transaction.atomic():
        Process.objects.filter(pk=key).update(until=Process.objects.next_until())
        dead = Process.objects.select_for_update().filter(until__lte=timezone.now())
        dead = list(dead.values_list("pk", flat=True))
        part(list(Visit.objects.filter(process__in=dead)))
        Process.objects.filter(pk__in=dead).delete()
        return set(Visit.objects.filter(process=key).values_list("channel", flat=True))


def part(visits: list[Visit]) -> None:
    """End these visits, and tell the rooms whom nobody else has any more."""
    Visit.objects.filter(pk__in=[visit.pk for visit in visits]).delete()
    # In one order everywhere, so that two transactions don't wait for each other.
    for room_id, user_id in sorted({(visit.room_id, visit.user_id) for visit in visits}):
        room = Room.objects.select_for_update().get(pk=room_id)
        if not Visit.objects.of(room_id, user_id).exists():
            tell(room, user_id, here=False)


def tell(room: Room, user_id: int, *, here: bool) -> None:
    room.presence_revision += 1
    room.save(update_fields=["presence_revision"])
    user = get_user_model().objects.get(pk=user_id)
    event = {
        "type": "presence",
        "user": user.public(),
        "here": here,
        "revision": room.presence_revision,
    }
    group_send_on_commit(room_group(room.pk), for_browsers(event))
