"""The table of connections: what a page asks for, and the rows that it gets.

Rules of this file:

- What is asked for comes from a browser: anything but these fields, within these bounds, is an
  error that names what is wrong.
- A page of the table is as long as a screen, however many connections there are.
"""

from collections.abc import Iterable
from typing import Annotated, Any, Literal

import msgspec

from ..server.desk import ORDERS

__all__ = ["ROWS", "Close", "Table", "page_of", "parse"]

#: Rows on one page.
ROWS = 25

Column = Literal[
    "id", "worker", "protocol", "peer", "path", "user", "consumer",
    "since", "received", "sent", "inbox", "outbox_bytes",
]  # fmt: skip
_SEARCHED = ("id", "protocol", "peer", "path", "user", "consumer")
#: What a WebSocket's close frame has room for.
_REASON_BYTES = 123


class Table(msgspec.Struct, tag_field="type", tag="table", forbid_unknown_fields=True):
    """What a page wants to see of the connections."""

    search: Annotated[str, msgspec.Meta(max_length=200)] = ""
    sort: Column = "since"
    descending: bool = True
    page: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 1

    @property
    def order(self) -> str:
        """What a server that has more than it lists is asked for the first of."""
        if self.sort not in ORDERS:
            return "since"
        return "newest" if self.sort == "since" and self.descending else self.sort


class Close(msgspec.Struct, tag_field="type", tag="close", forbid_unknown_fields=True):
    """Close this connection."""

    connection: Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
    code: int = 1001
    reason: Annotated[str, msgspec.Meta(max_length=_REASON_BYTES)] = ""

    def __post_init__(self) -> None:
        # RFC 6455 §7.4: those that may be sent, and mean something to a client.
        if self.code not in (1000, 1001, 1008, 1011, 1012, 1013) and not 3000 <= self.code <= 4999:
            raise ValueError(
                f"{self.code} is no code to close with: take 1000, 1001, 1008, 1011, 1012, 1013, "
                "or one from 3000 to 4999"
            )
        if len(self.reason.encode(errors="replace")) > _REASON_BYTES:
            raise ValueError(f"the reason is longer than the {_REASON_BYTES} bytes that there are")


_decoder = msgspec.json.Decoder(Table | Close)


def parse(text: str) -> Table | Close:
    """Return what a page asks for; ValueError, in a sentence, for anything else."""
    try:
        wanted: Table | Close = _decoder.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise ValueError(f"this page's socket was sent what it can't read: {error}") from None
    return wanted


def page_of(
    rows: Iterable[dict[str, Any]], wanted: Table, *, total: int, now: float
) -> dict[str, Any]:
    """Return the message with the page of the table that is wanted, or the last that there is."""
    rows = list(rows)
    words = wanted.search.casefold().split()
    matching = [row for row in rows if _matches(row, words)] if words else list(rows)
    # What has no value stands at the end, in either direction; the id settles the rest.
    matching.sort(key=lambda row: str(row.get("id")))
    valued = [row for row in matching if row.get(wanted.sort) is not None]
    valued.sort(key=lambda row: _order(row[wanted.sort]), reverse=wanted.descending)
    matching = valued + [row for row in matching if row.get(wanted.sort) is None]
    pages = max(1, -(-len(matching) // ROWS))
    page = min(wanted.page, pages)
    return {
        "type": "connections",
        "rows": [
            {**row, "age_s": _age(row.get("since"), now)}
            for row in matching[(page - 1) * ROWS : page * ROWS]
        ],
        "matching": len(matching),
        "listed": len(rows),
        "partial": total > len(rows),
        "page": page,
        "pages": pages,
        "sort": wanted.sort,
        "descending": wanted.descending,
        "search": wanted.search,
    }


def _matches(row: dict[str, Any], words: list[str]) -> bool:
    text = " ".join(str(row.get(name) or "") for name in _SEARCHED).casefold()
    return all(word in text for word in words)


def _order(value: Any) -> tuple[int, Any]:
    return (1, value) if isinstance(value, int | float) else (0, str(value).casefold())


def _age(since: Any, now: float) -> float | None:
    return max(0.0, now - since) if isinstance(since, int | float) else None
