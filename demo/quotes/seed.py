"""Companies and funds that do not exist, what they did in the last half hour, and a watch list."""

import random
import time

from django.conf import settings

from quotes.models import Candle, Instrument, Watch

__all__ = ["seed"]

PLACES = (
    "Aldern", "Brookmere", "Calloway", "Dunmarsh", "Elverton", "Fernhill", "Garrick", "Hollin",
    "Ironbeck", "Juniper", "Kestrel", "Larkfield", "Marrow", "Nettleby", "Osprey", "Pinehurst",
    "Quarrel", "Rushford", "Silverlea", "Tarn", "Umber", "Vellum", "Wexcombe", "Yarrow",
)  # fmt: skip
TRADES = (
    "Foundry", "Waterways", "Grain", "Optics", "Timber", "Robotics", "Canals", "Biologics",
)  # fmt: skip
FUNDS = ("Balanced Fund", "Small Caps")

WATCHED = 6
SEEDED_CANDLES = 60


def seed(people):
    """List what isn't listed; what is stays as it is."""
    if Instrument.objects.exists():
        return f"{Instrument.objects.count()} instruments (0 new)"
    rng = random.Random(60)  # noqa: S311 - the same market on every machine
    Instrument.objects.bulk_create(listed(rng))
    instruments = list(Instrument.objects.all())
    Candle.objects.bulk_create(
        candle for instrument in instruments for candle in history(instrument, rng)
    )
    for person in people.values():
        Watch.objects.bulk_create(
            Watch(user=person, instrument=each) for each in rng.sample(instruments, WATCHED)
        )
    return f"{len(instruments)} instruments"


def listed(rng):
    for place in PLACES:
        for number, trade in enumerate(TRADES):
            yield Instrument(
                symbol=f"{place[:3]}{trade[:1]}".upper(),
                name=f"{place} {trade}",
                kind=Instrument.Kind.STOCK,
                decimals=2,
                opening=round(rng.lognormvariate(8.6, 0.8)),
                volatility=rng.uniform(1.2e-4, 4e-4),
                activity=rng.paretovariate(1.5) / (2 + number / 4),
            )
        for trade in FUNDS:
            yield Instrument(
                symbol=f"{place[:3]}{trade[0]}F".upper(),
                name=f"{place} {trade}",
                kind=Instrument.Kind.FUND,
                decimals=3,
                opening=round(rng.uniform(900, 4800)),
                volatility=rng.uniform(0.8e-4, 2e-4),
                activity=rng.uniform(0.2, 0.8),
            )


def history(instrument, rng):
    """Return candles that lead to the opening price, made backwards from it."""
    step_s = settings.QUOTES_CANDLE_S
    deviation = instrument.opening * instrument.volatility * step_s**0.5
    now = int(time.time()) // step_s * step_s
    close = instrument.opening
    for number in range(1, SEEDED_CANDLES + 1):
        opened = max(20, round(close + rng.gauss(0, deviation)))
        yield Candle(
            instrument=instrument,
            time=now - number * step_s,
            open=opened,
            close=close,
            high=max(opened, close) + round(abs(rng.gauss(0, deviation / 2))),
            low=max(10, min(opened, close) - round(abs(rng.gauss(0, deviation / 2)))),
            volume=100 * round(1 + instrument.activity * rng.lognormvariate(3.4, 0.6)),
        )
        close = opened
