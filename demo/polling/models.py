"""Who makes the feed's messages, and the number of the last one that is known here."""

from django.db import models, transaction

__all__ = ["LEASE_S", "Lease"]

LEASE_S = 1.5


class LeaseManager(models.Manager):
    def take(self, holder: str, now: float) -> "Lease | None":
        """Return the lease, which is the caller's from now on; None while somebody has it."""
        with transaction.atomic():
            lease, _ = self.select_for_update().get_or_create(pk=1)
            if lease.until > now:
                return None
            # Who gave it back has written the last number. Who died may have gone a bit further.
            lease.exact = lease.until == 0
            lease.term += 1
            lease.holder, lease.until = holder, now + LEASE_S
            lease.save()
            return lease

    def renew(self, term: int, last: int, now: float) -> bool:
        """Go on for another while; False if it is somebody else's by now."""
        return bool(self.filter(pk=1, term=term).update(last=last, until=now + LEASE_S))

    def give_back(self, term: int, last: int) -> None:
        """Let another one have it at once."""
        self.filter(pk=1, term=term).update(last=last, until=0)


class Lease(models.Model):
    """The only row. Times are those of ``time.time()``, in the processes of all hosts."""

    term = models.PositiveIntegerField(default=0)
    holder = models.CharField(max_length=200, blank=True)
    until = models.FloatField(default=0)
    last = models.PositiveBigIntegerField(default=0)

    objects = LeaseManager()

    #: Whether ``last`` is the last number that was given, or one of the last.
    exact = True

    def __str__(self):
        return f"term {self.term} of {self.holder}"
