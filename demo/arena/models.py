"""Who runs the pond, and how it was when that was written last."""

import os
import socket

from django.db import models
from django.db.models import F

__all__ = ["LEASE_S", "Pond"]

LEASE_S = 1.5


class Pond(models.Model):
    """The only row: a lease, by which one process of all runs the pond, and its snapshot.

    Times are those of the processes' clocks (``time.time()``): on several hosts they have to agree
    within a part of ``LEASE_S``.
    """

    reign = models.PositiveIntegerField(default=0)  # grows with each taking; see wire.py
    holder = models.CharField(max_length=255, blank=True)  # host:process, for people
    until = models.FloatField(default=0)
    world = models.JSONField(null=True)
    saved_at = models.FloatField(default=0)

    def __str__(self):
        return f"reign {self.reign} of {self.holder}"

    @classmethod
    def take(cls, now: float) -> "Pond | None":
        """Return the pond if nobody runs it, which is from now on the caller's to run."""
        pond, _ = cls.objects.get_or_create(pk=1)
        if pond.until > now:
            return None
        # Of two that come this far, the second finds another reign than it has read.
        mine = cls.objects.filter(pk=1, reign=pond.reign, until=pond.until)
        if not mine.update(
            reign=F("reign") + 1,
            holder=f"{socket.gethostname()}:{os.getpid()}",
            until=now + LEASE_S,
        ):
            return None
        pond.reign += 1
        return pond

    @classmethod
    def keep(cls, reign: int, world: dict, now: float, lease_s: float = LEASE_S) -> bool:
        """Write a snapshot and go on for ``lease_s``; False if another runs the pond by now."""
        mine = cls.objects.filter(pk=1, reign=reign, until__gt=0)
        return bool(mine.update(world=world, saved_at=now, until=lease_s and now + lease_s))

    @classmethod
    def release(cls, reign: int, world: dict, now: float) -> None:
        """Write the last snapshot, and let whoever wants take over at once."""
        cls.keep(reign, world, now, lease_s=0)
