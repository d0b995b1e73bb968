"""What is traded, what somebody watches, and who makes the market.

Prices are whole numbers of the instrument's smallest step: 12345 with two decimals is 123.45.
"""

from datetime import timedelta

from django.conf import settings
from django.db import models, transaction
from django.urls import reverse
from django.utils import timezone

from headrace.db import group_send_on_commit
from live.events import for_browsers
from notifications import notify
from quotes.groups import watcher_group

__all__ = ["Alert", "Candle", "Instrument", "Lease", "Watch"]


class Instrument(models.Model):
    """A stock or a fund, and how it behaves."""

    class Kind(models.TextChoices):
        STOCK = "stock"
        FUND = "fund"

    symbol = models.CharField(max_length=8, unique=True)
    name = models.CharField(max_length=60)
    kind = models.CharField(max_length=5, choices=Kind)
    decimals = models.PositiveSmallIntegerField()
    # What it cost when the day began: changes are counted from here.
    opening = models.PositiveIntegerField()
    # How far the price goes in a second: the standard deviation, as a share of the price.
    volatility = models.FloatField()
    # Trades a second, on the average.
    activity = models.FloatField()

    class Meta:
        ordering = ("symbol",)

    def __str__(self):
        return f"{self.symbol} {self.name}"

    def show(self, price: int) -> str:
        return f"{price / 10**self.decimals:,.{self.decimals}f}"


class WatchManager(models.Manager):
    def begin(self, user, instrument_id: int) -> None:
        """Put an instrument into somebody's watch list, where it stands once."""
        self.bulk_create([Watch(user=user, instrument_id=instrument_id)], ignore_conflicts=True)

    def end(self, user, instrument_id: int) -> None:
        self.filter(user=user, instrument=instrument_id).delete()


class Watch(models.Model):
    """A line of somebody's watch list."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="watches")
    instrument = models.ForeignKey(Instrument, models.CASCADE, related_name="+")

    objects = WatchManager()

    class Meta:
        constraints = (models.UniqueConstraint(fields=("user", "instrument"), name="watched_once"),)

    def __str__(self):
        return f"{self.user} watches {self.instrument}"


class Alert(models.Model):
    """What somebody wants to hear of: a price that is reached from below, or from above."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="alerts")
    instrument = models.ForeignKey(Instrument, models.CASCADE, related_name="+")
    above = models.BooleanField()
    price = models.PositiveIntegerField()
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    fired_at = models.DateTimeField(null=True, editable=False)

    class Meta:
        ordering = ("-pk",)

    def __str__(self):
        sign = "≥" if self.above else "≤"
        return f"{self.instrument.symbol} {sign} {self.instrument.show(self.price)}"

    def public(self) -> dict:
        return {
            "id": self.pk,
            "instrument": self.instrument_id,
            "above": self.above,
            "price": self.price,
            "fired": self.fired_at is not None,
        }


class CandleQuerySet(models.QuerySet):
    def latest_of(self, instrument_id: int) -> list[list[int]]:
        """Return the last candles of an instrument, the oldest first."""
        newest = self.filter(instrument=instrument_id).order_by("-time")
        fields = ("time", "open", "high", "low", "close", "volume")
        return [list(row) for row in newest.values_list(*fields)[: settings.QUOTES_CANDLES]][::-1]


class Candle(models.Model):
    """The trades of an instrument in ``QUOTES_CANDLE_S`` seconds."""

    instrument = models.ForeignKey(Instrument, models.CASCADE, related_name="+", db_index=False)
    # Unix seconds, when it began.
    time = models.PositiveBigIntegerField()
    open = models.PositiveIntegerField()
    high = models.PositiveIntegerField()
    low = models.PositiveIntegerField()
    close = models.PositiveIntegerField()
    volume = models.PositiveBigIntegerField()

    objects = CandleQuerySet.as_manager()

    class Meta:
        constraints = (models.UniqueConstraint(fields=("instrument", "time"), name="one_candle"),)
        indexes = (models.Index(fields=("time",)),)

    def __str__(self):
        return f"{self.instrument_id} at {self.time}"


class LeaseManager(models.Manager):
    """All that concerns the lease happens in one transaction, and under its row's lock."""

    def acquire(self, holder: str) -> tuple[int, dict] | None:
        """Return the term and what the market was like, if nobody else holds it; or None."""
        now = timezone.now()
        with transaction.atomic():
            self.get_or_create(pk=1, defaults={"until": now})
            lease = self.select_for_update().get(pk=1)
            if lease.until > now and lease.holder != holder:
                return None
            lease.holder, lease.until = holder, now + timedelta(seconds=settings.QUOTES_LEASE_S)
            lease.term += 1
            lease.save()
            return lease.term, lease.state

    def renew(self, holder: str, *, state: dict, candles: list[Candle], hits: list[Alert]) -> bool:
        """Keep the market for another while, with what it has made meanwhile.

        Returns False, and writes nothing, if it is somebody else's by now.
        """
        now = timezone.now()
        with transaction.atomic():
            until = now + timedelta(seconds=settings.QUOTES_LEASE_S)
            if not self.filter(pk=1, holder=holder).update(until=until, state=state):
                return False
            if candles:
                Candle.objects.bulk_create(candles, ignore_conflicts=True)
                kept_s = settings.QUOTES_CANDLES * settings.QUOTES_CANDLE_S
                Candle.objects.filter(time__lt=now.timestamp() - kept_s).delete()
            for alert in hits:
                self.fire(alert, now)
            return True

    def fire(self, alert: Alert, now) -> None:
        """Tell the alert's owner once the transaction is committed, and once for all."""
        if Alert.objects.filter(pk=alert.pk, fired_at=None).update(fired_at=now):
            alert.fired_at = now
            notify([alert.user], "price", f"{alert} · {alert.instrument.name}", reverse("quotes"))
            group_send_on_commit(
                watcher_group(alert.user_id),
                for_browsers({"type": "alert", "alert": alert.public()}),
            )

    def release(self, holder: str) -> None:
        """Let another one have it at once."""
        self.filter(pk=1, holder=holder).update(until=timezone.now())


class Lease(models.Model):
    """Who makes the market: the process that holds the only row, until it expires.

    A process that dies renews it no more, and another one takes it over with the state in it.
    """

    holder = models.CharField(max_length=100)
    until = models.DateTimeField()
    # Goes up by one with each new holder: it stands in front of the sequence numbers.
    term = models.PositiveIntegerField(default=0)
    state = models.JSONField(default=dict)

    objects = LeaseManager()

    def __str__(self):
        return f"term {self.term}, {self.holder}"
