"""The way to Redis for threads without an event loop: blocking connections, kept for the next call.

Rules of this file:

- A call takes a connection that is idle, or makes one, and puts it back. There are never more
  than calls at a time, and few are kept.
- It waits for Redis as long as any sender does, trying again, and then raises.
- A connection is a sender of its own: what it repeats, because an answer was lost, is known as a
  repetition, also when it was made anew meanwhile.
"""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from ...exceptions import ChannelLayerUnavailable
from .client import Refusal, SyncWire, Unreachable
from .config import Cluster, Endpoint, SentinelSet
from .lane import delays
from .names import shard_of
from .network import Plan
from .orders import Order, Redirection, Sender, Verdict, failure, judge, unavailable
from .topology import Address, SlotMap, address_of, ask_cluster_sync, locate_sync

__all__ = ["Direct"]

#: How many idle connections to a server are kept.
_KEPT = 8


class _Way:
    """A connection, or the place of one: it may be made again."""

    def __init__(self, place: Address | int, find: Callable[[], Endpoint], sender: Sender) -> None:
        self.place = place
        self._find = find
        self.sender = sender
        self.wire: SyncWire | None = None

    def open(self, timeout_s: float, mode: str) -> SyncWire:
        if self.wire is None:
            wire = SyncWire(self._find(), timeout_s, mode)
            wire.open()
            self.wire = wire
        return self.wire

    def close(self) -> None:
        wire, self.wire = self.wire, None
        if wire is not None:
            wire.close()


class Direct:
    """The connections of synchronous code in this process. Any thread may call it."""

    def __init__(self, plan: Plan, new_sender: Callable[[], Sender]) -> None:
        self._plan = plan
        self._new_sender = new_sender
        self._mode = "cluster" if plan.cluster is not None else "standalone"
        self._timeout_s = plan.reply_timeout_s(plan.hosts[0])
        self._slots = SlotMap(plan.cluster) if plan.cluster is not None else None
        self._lock = threading.Lock()
        self._idle: dict[Address | int, list[_Way]] = {}

    def carry_out(self, order: Order) -> Any:
        """Carry the order out, and return what came of it.

        Raises ChannelLayerUnavailable or InvalidChannelLayerError.
        """
        deadline = time.monotonic() + self._plan.patience_s
        problem: object = None
        way: _Way | None = None
        target: Endpoint | None = None
        try:
            for pause_s in delays(self._plan.patience_s / 5):
                if time.monotonic() + pause_s > deadline:
                    break
                time.sleep(pause_s)
                try:
                    way = self._way(order, way, target)
                    refusal = self._exchange(order, way)
                    if refusal is not None and order.reword(refusal):
                        refusal = self._exchange(order, way)
                except Unreachable as error:
                    problem, target = error, None
                    continue
                if refusal is None:
                    return order.result
                problem, target = refusal, self._consider(order, refusal, way)
        finally:
            if way is not None:
                self._put_back(way)
        raise unavailable(order, problem, self._plan.patience_s)

    def _exchange(self, order: Order, way: _Way) -> Refusal | None:
        wire = way.open(self._timeout_s, self._mode)
        asking = [("ASKING",)] if order.asking else []
        commands = [each for command in order.commands(way.sender) for each in (*asking, command)]
        try:
            replies = wire.exchange(commands)
        except BaseException:
            order.uncertain = True
            way.close()
            raise
        return order.take(replies[1::2] if asking else replies)

    def _consider(self, order: Order, refusal: Refusal, way: _Way) -> Endpoint | None:
        """Raise what the refusal means for good, or return where the slot is about to be."""
        verdict = judge(refusal)
        if verdict is Verdict.NO:
            raise failure(str(way.wire.endpoint) if way.wire else "Redis", refusal)
        if order.uncertain and order.once:
            raise unavailable(order, refusal, self._plan.patience_s)
        order.uncertain = order.asking = False
        if verdict is Verdict.LATER:
            order.problem = refusal
        elif verdict is Verdict.ELSEWHERE:
            way.close()
        elif isinstance(verdict, Redirection):
            if self._slots is None:
                raise ChannelLayerUnavailable("a node of a cluster answers: see hosts")
            order.asking = verdict.asking
            if verdict.asking:
                return self._slots.node_at(verdict.host, verdict.port)
            self._slots.moved(verdict.slot, verdict.host, verdict.port)
        return None

    # Connections

    def _way(self, order: Order, old: _Way | None, target: Endpoint | None) -> _Way:
        """Return a connection to where the order belongs: the old one, if that is right."""
        if target is None:
            again = old is not None and old.wire is None
            place, find = self._place(order.tag, again=again)
        else:
            place, find = address_of(target), lambda: target
        if old is not None:
            if old.place == place:
                return old
            if order.uncertain and order.once:
                raise unavailable(order, "its node is gone", self._plan.patience_s)
            self._put_back(old)
        with self._lock:
            idle = self._idle.get(place)
            if idle:
                return idle.pop()
        return _Way(place, find, self._new_sender())

    def _place(self, tag: str, *, again: bool) -> tuple[Address | int, Callable[[], Endpoint]]:
        if self._slots is None:
            index = shard_of(tag, len(self._plan.hosts))
            host = self._plan.hosts[index]
            assert not isinstance(host, Cluster)
            return index, lambda: locate_sync(host)
        node = self._slots.node_of(tag)
        if node is None or again:
            assert self._plan.cluster is not None
            ask_cluster_sync(self._plan.cluster, self._slots, self._timeout_s)
            node = self._slots.node_of(tag)
            if node is None:
                raise Unreachable("no node of the cluster has its slot")
        found = node
        return address_of(found), lambda: found

    def _put_back(self, way: _Way) -> None:
        with self._lock:
            idle = self._idle.setdefault(way.place, [])
            if way.wire is not None and len(idle) < _KEPT:
                idle.append(way)
                return
        way.close()

    def close(self) -> None:
        """Close what is idle."""
        with self._lock:
            ways = [way for idle in self._idle.values() for way in idle]
            self._idle.clear()
        for way in ways:
            way.close()

    #: In a forked child: the connections stay the parent's, for redis-py shuts none of them down.
    abandon = close

    # A blank state

    def clear(self, pattern: str, is_ours: Callable[[str], bool]) -> None:
        """Delete, on every server, the keys that match."""
        for endpoint in self._everywhere():
            wire = SyncWire(endpoint, self._timeout_s, self._mode)
            try:
                wire.open()
                cursor: bytes | None = b"0"
                while cursor is not None:
                    ((cursor, keys),) = wire.exchange(
                        [("SCAN", cursor, "MATCH", pattern, "COUNT", 1000)]
                    )
                    wire.exchange([("DEL", key) for key in keys if is_ours(key.decode())])
                    cursor = None if cursor == b"0" else cursor
            except Unreachable as error:
                raise ChannelLayerUnavailable(str(error)) from error
            finally:
                wire.close()

    def _everywhere(self) -> Iterator[Endpoint]:
        if self._plan.cluster is not None:
            assert self._slots is not None
            ask_cluster_sync(self._plan.cluster, self._slots, self._timeout_s)
            yield from self._slots.nodes()
            return
        for host in self._plan.hosts:
            if isinstance(host, SentinelSet | Endpoint):
                yield locate_sync(host)
