"""How much one account may ask of one process: requests, and what it may leave open."""

import time
from collections import Counter, OrderedDict
from contextlib import contextmanager

from live.limits import Allowance, Refused

__all__ = ["Known", "Visitors"]


class Visitors:
    """The accounts that have asked last, ``most`` of them."""

    def __init__(
        self, *, burst: int, per_second: float, open_at_once: int, most: int = 1000
    ) -> None:
        self._limits = {"burst": burst, "per_second": per_second}
        self._open_at_once = open_at_once
        self._most = most
        self._allowances: OrderedDict[int, Allowance] = OrderedDict()
        self._open: Counter[int] = Counter()

    def ask(self, user_id: int, now: float | None = None) -> None:
        """Count a request, or raise :class:`Refused`."""
        allowance = self._allowances.get(user_id)
        if allowance is None:
            allowance = self._allowances[user_id] = Allowance(**self._limits)
            if len(self._allowances) > self._most:
                self._allowances.popitem(last=False)
        self._allowances.move_to_end(user_id)
        wait = allowance.take(time.monotonic() if now is None else now)
        if wait:
            raise Refused("rate", "Too much at once.", retry_after_s=wait)

    @contextmanager
    def open(self, user_id: int):
        """Count what stays open meanwhile, or raise :class:`Refused`."""
        if self._open[user_id] >= self._open_at_once:
            raise Refused(
                "too_many",
                f"You have {self._open_at_once} of these open already. Close another page first.",
            )
        self._open[user_id] += 1
        try:
            yield
        finally:
            self._open[user_id] -= 1
            if not self._open[user_id]:
                del self._open[user_id]


class Known:
    """Whose sessions those are that came lately, so that not each poll asks the database.

    Who logs out is told of the gauge for ``lasts_s`` yet, at most.
    """

    def __init__(self, *, lasts_s: float = 2.0, most: int = 1000) -> None:
        self._lasts_s = lasts_s
        self._most = most
        self._users: OrderedDict[str, tuple[float, object]] = OrderedDict()

    def get(self, session: str | None, now: float) -> object | None:
        until, user = self._users.get(session, (now, None))
        return user if now < until else None

    def put(self, session: str, user: object, now: float) -> None:
        self._users[session] = now + self._lasts_s, user
        self._users.move_to_end(session)
        if len(self._users) > self._most:
            self._users.popitem(last=False)
