"""What one process answers of its own server: its snapshot, its connections, and their end.

Rules of this file:

- Whoever asks can't hold the server up: a list is read in slices, between which the loop goes on.
- A connection that nobody asks about keeps nothing for this: when it came is known from its
  number, and what it is for from the frames of the application's task.
- A name that is not known is refused with those that are.
"""

import asyncio
import bisect
import gc
import heapq
import logging
import time
from array import array
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any

from ..exceptions import CloseCode, ControlError
from .connection import Connection
from .runtime import Drainable, Runtime
from .server import Server
from .websocket import WebSocketStream

__all__ = ["LIMIT", "ORDERS", "ArrivalTimes", "Desk", "largest", "order_of"]

logger = logging.getLogger("headrace.server")

#: Connections that are listed unless somebody asks for more.
LIMIT = 100
#: So many connections are looked at in one turn of the loop; and so many, to see what each is for.
_SLICE = 500
_PURPOSES = 100
#: What a list may be ordered by: the largest first. ``since``: the oldest.
ORDERS = ("since", "newest", "received", "sent", "inbox", "outbox_bytes")
#: What a search looks into.
_SEARCHED = ("id", "protocol", "peer", "path", "user", "consumer")

Answer = Mapping[str, Any]


def order_of(arguments: Mapping[str, Any]) -> tuple[int, str]:
    """Return limit and order of a list of connections; ControlError where they can't be."""
    limit, order = arguments.get("limit", LIMIT), arguments.get("order", "since")
    if type(limit) is not int or limit < 1:
        raise ControlError(f"limit must be a whole number, 1 or more, not {limit!r:.50}")
    if order not in ORDERS:
        raise ControlError(f"order must be one of {', '.join(ORDERS)}, not {order!r:.50}")
    return limit, order


def largest(rows: list[dict[str, Any]], limit: int, order: str) -> list[dict[str, Any]]:
    """Return the first rows of a list in this order."""
    if order == "since":
        return heapq.nsmallest(limit, rows, key=lambda row: row["since"])
    column = "since" if order == "newest" else order
    return heapq.nlargest(limit, rows, key=lambda row: row[column])


class ArrivalTimes:
    """When connections came: the number of the last one, now and then.

    Numbers rise, so a connection came between the look before and the one after. With more than
    ``LOOKS`` of them every other is forgotten.
    """

    LOOKS = 4096

    def __init__(self) -> None:
        self._numbers = array("q")
        self._times = array("d")

    def look(self, number: int, now: float) -> None:
        """Take note of the number that was given last."""
        if self._numbers and self._numbers[-1] == number:
            return
        if len(self._numbers) >= self.LOOKS:
            del self._numbers[::2], self._times[::2]
        self._numbers.append(number)
        self._times.append(now)

    def when(self, number: int, now: float) -> float:
        """Return when this one came, or a moment after."""
        at = bisect.bisect_left(self._numbers, number)
        return self._times[at] if at < len(self._times) else now


class Desk:
    """Answers for the server of this process.

    Args:
        server: Whose.
        more: What is answered beside that.
    """

    def __init__(
        self, server: Server, **more: Callable[[Mapping[str, Any]], Awaitable[Answer]]
    ) -> None:
        self._server = server
        self._arrivals = ArrivalTimes()
        self._answers = {
            "snapshot": self._snapshot,
            "connections": self._connections,
            "close": self._close,
            **more,
        }

    def look(self) -> None:
        """Take note of who has come; to be called every second or so."""
        if self._server.has_started:
            self._arrivals.look(self._server.runtime.numbered, time.time())

    async def answer(self, do: str, arguments: Mapping[str, Any]) -> Answer:
        """Answer a request; ControlError where that can't be."""
        answer = self._answers.get(do)
        if answer is None:
            raise ControlError(
                f"there is no request {do!r:.50}; there are {', '.join(self._answers)}"
            )
        if not self._server.has_started:
            raise ControlError("the server has not started yet, or has stopped")
        return await answer(arguments)

    async def _snapshot(self, arguments: Mapping[str, Any]) -> Answer:
        del arguments
        return self._server.snapshot()

    async def _connections(self, arguments: Mapping[str, Any]) -> Answer:
        limit, order = order_of(arguments)
        words = str(arguments.get("search", "")).casefold().split()
        runtime = self._server.runtime
        found: list[dict[str, Any]] = []
        total = 0
        connections = list(runtime.connections)
        now = time.time()
        step = _PURPOSES if words else _SLICE
        for start in range(0, len(connections), step):
            rows = [self._row(runtime, each, now) for each in connections[start : start + step]]
            if words:
                rows = [row for row in map(_complete, rows) if _has(row, words)]
            total += len(rows)
            found = largest(found + rows, limit, order)
            await asyncio.sleep(0)
        for start in range(0, len(found), _PURPOSES):
            found[start : start + _PURPOSES] = map(_complete, found[start : start + _PURPOSES])
            await asyncio.sleep(0)
        return {"connections": found, "total": total}

    def _row(self, runtime: Runtime, connection: Drainable, now: float) -> dict[str, Any]:
        inbox, outbox_bytes, _ = connection.waiting()
        sent, task = 0, None
        if isinstance(connection, WebSocketStream):
            sent, task = connection.outbox.sent_bytes, connection.task
        elif isinstance(connection, Connection):
            sent, task = connection.sent_bytes, connection.task
        return {
            "id": _id(runtime, connection),
            "worker": runtime.worker,
            "protocol": connection.protocol,
            "peer": str(connection.peer),  # of a class of its own, which no codec knows
            "since": self._arrivals.when(connection.number, now),
            "received": getattr(connection, "received_bytes", 0),
            "sent": sent,
            "inbox": inbox,
            "outbox_bytes": outbox_bytes,
            "task": task,
        }

    async def _close(self, arguments: Mapping[str, Any]) -> Answer:
        id_, code = arguments.get("connection"), arguments.get("code", CloseCode.POLICY_VIOLATION)
        reason = arguments.get("reason", "")
        if type(code) is not int and not isinstance(code, CloseCode):
            raise ControlError(f"code must be a number, not {code!r:.50}")
        if code not in _SENDABLE and not 3000 <= code <= 4999:
            raise ControlError(f"code must be a close code that may be sent, not {code}")
        if not isinstance(reason, str) or len(reason.encode()) > 123:
            raise ControlError(f"reason must be text of at most 123 bytes, not {reason!r:.200}")
        runtime = self._server.runtime
        for connection in list(runtime.connections):
            if _id(runtime, connection) == id_:
                logger.info("%s is closed with %d %r, as somebody asked for", id_, code, reason)
                connection.dismiss(code, reason)
                return {"closed": id_}
        raise ControlError(f"there is no connection {id_!r:.50}: it may have ended")


def _id(runtime: Runtime, connection: Drainable) -> str:
    return f"{runtime.worker}-{connection.number}"


# What a connection is for


def _complete(row: dict[str, Any]) -> dict[str, Any]:
    """Add what has to be looked for, which is done for as few rows as can be."""
    return row if "task" not in row else row | _purpose(row.pop("task"))


def _has(row: dict[str, Any], words: list[str]) -> bool:
    text = " ".join(str(row.get(name) or "") for name in _SEARCHED).casefold()
    return all(word in text for word in words)


def _purpose(task: "asyncio.Task[None] | None") -> dict[str, Any]:
    """Return path, user and consumer, as far as the frames of the application's task tell."""
    found: dict[str, Any] = {"path": None, "user": None, "consumer": None}
    for names in _frames(task):
        scope = names.get("scope")
        owner = names.get("self")
        if not isinstance(scope, dict):
            scope = getattr(owner, "scope", None)
        if isinstance(scope, dict) and isinstance(scope.get("path"), str):
            found["path"] = found["path"] or scope["path"]
            if (user := scope.get("user")) is not None:
                found["user"] = _name_of(user)
            if owner is not None and hasattr(owner, "scope"):
                found["consumer"] = type(owner).__name__
    return found


def _frames(task: "asyncio.Task[None] | None") -> Iterator[dict[str, Any]]:
    """Yield the local names of each frame of a task, the outermost first."""
    coroutine: Any = None if task is None else task.get_coro()
    while (frame := getattr(coroutine, "cr_frame", None)) is not None:
        yield frame.f_locals
        awaited = coroutine.cr_await
        if not hasattr(awaited, "cr_frame"):
            # What is compiled awaits a coroutine through a wrapper, which refers to nothing else.
            awaited = next(iter(gc.get_referents(awaited)), None)
        coroutine = awaited


def _name_of(user: Any) -> str | None:
    """Return the name of a user that is known already: one that a query would have to find isn't.

    Django's lazy object is looked into, not asked.
    """
    wrapped = getattr(user, "__dict__", {}).get("_wrapped", user)
    name = getattr(wrapped, "__dict__", {}).get("username")
    return name if isinstance(name, str) and name else None


#: Of those below 3000 (RFC 6455 §7.4).
_SENDABLE = frozenset(CloseCode) - {
    CloseCode.NO_STATUS_RECEIVED,
    CloseCode.ABNORMAL_CLOSURE,
    CloseCode.TLS_HANDSHAKE,
}
