"""Where the servers are: the primary that Sentinels know, the nodes that have a cluster's slots.

Rules of this file:

- Whoever is asked may be wrong or gone: then the next one is asked, and the error names each.
- A node that gives no address of its own is the one that was asked.
"""

import asyncio
from collections.abc import Sequence
from typing import TypeAlias

from .client import Refusal, Reply, SyncWire, Unreachable, Wire, find_primary, find_primary_sync
from .config import Cluster, Endpoint, SentinelSet
from .names import SLOTS, slot_of

__all__ = [
    "Address",
    "SlotMap",
    "address_of",
    "ask_cluster",
    "ask_cluster_sync",
    "locate",
    "locate_sync",
]

#: A node of a cluster.
Address: TypeAlias = tuple[str, int]


def address_of(endpoint: Endpoint) -> Address:
    """Return what tells this node from the others."""
    return (endpoint.host, endpoint.port)


async def locate(host: Endpoint | SentinelSet) -> Endpoint:
    """Return the server that is the primary now."""
    return await find_primary(host) if isinstance(host, SentinelSet) else host


def locate_sync(host: Endpoint | SentinelSet) -> Endpoint:
    """Do what ``locate`` does, on a thread."""
    return find_primary_sync(host) if isinstance(host, SentinelSet) else host


class SlotMap:
    """Which node of a cluster has which slot."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._slots: list[Endpoint | None] = [None] * SLOTS
        self._template = cluster.nodes[0]

    def node_of(self, tag: str) -> Endpoint | None:
        """Return the node that has the tag, where that is known."""
        return self._slots[slot_of(tag)]

    def nodes(self) -> list[Endpoint]:
        """Return the nodes that have slots."""
        return list({address_of(node): node for node in self._slots if node is not None}.values())

    def seeds(self) -> list[Endpoint]:
        """Return whom to ask: the nodes that are known, then those of the setting."""
        found = {address_of(node): node for node in (*self.nodes(), *self._cluster.nodes)}
        return list(found.values())

    def node_at(self, host: str, port: int) -> Endpoint:
        """Return the node that is there."""
        return self._template.at(host, port)

    def moved(self, slot: int, host: str, port: int) -> None:
        """Take note that another node has the slot."""
        self._slots[slot] = self.node_at(host, port)

    def update(self, asked: Endpoint, reply: Reply) -> bool:
        """Take the answer to CLUSTER SLOTS; False if it is none."""
        if isinstance(reply, Refusal) or not isinstance(reply, list):
            return False
        slots: list[Endpoint | None] = [None] * SLOTS
        nodes: dict[Address, Endpoint] = {}
        for first, last, (host, port, *_), *_ in reply:
            name = host.decode() if host else asked.host
            node = nodes.setdefault((name, port), self.node_at(name, port))
            slots[first : last + 1] = [node] * (last + 1 - first)
        if not nodes:
            return False
        self._slots = slots
        return True


def _nobody(cluster: Cluster, errors: Sequence[str]) -> Unreachable:
    return Unreachable(f"no node of {cluster.setting} says who has which slot: {'; '.join(errors)}")


async def ask_cluster(cluster: Cluster, slots: SlotMap, timeout_s: float) -> None:
    """Bring the map up to date. Raises Unreachable or InvalidChannelLayerError."""
    errors = []
    for node in slots.seeds():
        wire = Wire(node, "cluster")
        try:
            await wire.open()
            async with asyncio.timeout(timeout_s):
                (reply,) = await wire.exchange([("CLUSTER", "SLOTS")])
            if slots.update(node, reply):
                return
            errors.append(f"{node}: {reply if isinstance(reply, Refusal) else 'no slots'}")
        except (Unreachable, TimeoutError) as error:
            errors.append(str(error) or f"{node}: no answer")
        finally:
            await wire.close()
    raise _nobody(cluster, errors)


def ask_cluster_sync(cluster: Cluster, slots: SlotMap, timeout_s: float) -> None:
    """Do what ``ask_cluster`` does, on a thread."""
    errors = []
    for node in slots.seeds():
        wire = SyncWire(node, timeout_s, "cluster")
        try:
            wire.open()
            (reply,) = wire.exchange([("CLUSTER", "SLOTS")])
            if slots.update(node, reply):
                return
            errors.append(f"{node}: {reply if isinstance(reply, Refusal) else 'no slots'}")
        except Unreachable as error:
            errors.append(str(error))
        finally:
            wire.close()
    raise _nobody(cluster, errors)
