"""What a page asks for, in whichever way: ``?run=…&after=…&rate=…``.

- ``run``: a UUID that the page has made; under it, and to it alone, is told what it costs
- ``after``: the number of the last message that it has; without it the feed begins now
- ``rate``: messages a second
"""

from typing import NamedTuple
from uuid import UUID

from django.http import QueryDict

from live.limits import Refused, number_of, uuid_of
from polling.feed import HZ, RATES

__all__ = ["Order", "run_of"]


class Order(NamedTuple):
    run: UUID
    after: int | None
    #: Of ten messages a second: every first, second, fifth or tenth.
    every: int

    @classmethod
    def of(cls, query: QueryDict, *, last_event_id: str | None = None) -> "Order":
        """Read a query, or raise :class:`Refused`. A stream that goes on says so in a header."""
        rate = whole_number(query.get("rate", str(RATES[0])), "rate")
        if rate not in RATES:
            raise Refused("bad_rate", f"rate is one of {', '.join(map(str, RATES))}.")
        after = last_event_id or query.get("after")
        return cls(
            uuid_of(query.get("run"), "run"),
            None if after is None else whole_number(after, "after"),
            HZ // rate,
        )

    @classmethod
    def of_scope(cls, scope: dict) -> "Order":
        headers = dict(scope["headers"])
        last_event_id = headers.get(b"last-event-id", b"").decode("latin-1")
        return cls.of(QueryDict(scope["query_string"]), last_event_id=last_event_id)


def run_of(scope: dict) -> UUID:
    return uuid_of(QueryDict(scope["query_string"]).get("run"), "run")


def whole_number(text: str, name: str) -> int:
    # int() takes more: signs, spaces, underscores, the digits of all scripts.
    is_number = text.isascii() and text.isdigit() and len(text) <= 16
    return number_of(int(text) if is_number else None, name)
