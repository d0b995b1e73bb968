"""The channel layer over Redis and Valkey: one server, several, Sentinels, a cluster.

Rules of this file:

- What is here is the base's (``SpanningChannelLayer``); what is between processes is the
  network's, which lives on a thread of its own; synchronous code has connections of its own.
- In Redis there is nothing of a consumer or a group but a subscription of its process. Only
  named channels are kept there: what waits in them, who reads them, and their groups.
"""

import asyncio
import contextlib
import itertools
import re
import threading
import time
import weakref
from typing import Any

from ...exceptions import ChannelFull, ChannelLayerUnavailable, InvalidChannelLayerError
from ..base import Capacities
from ..spanning import MAX_MESSAGE_BYTES, SpanningChannelLayer
from .config import (
    Endpoint,
    SentinelSet,
    read_hook,
    read_hosts,
    read_keys,
    read_prefix,
    read_seconds,
)
from .direct import Direct
from .envelopes import Envelopes
from .formats import decode, encoder
from .names import Names, tag_of
from .network import Network, Plan
from .orders import Call, Publication, ScriptedPublication, Sender, ShardedPublication
from .queues import Queues, Reader
from .scripts import JOIN, LEAVE, PUT, sharded

__all__ = ["RedisChannelLayer"]

#: Keys of others' CONFIG, and why they are not of this one's.
_FOREIGN = {
    "random_prefix_length": "messages are told apart without it: leave it out",
    "connection_kwargs": "write its options into the dict of each host",
}
_STOP_S = 2.0


class RedisChannelLayer(SpanningChannelLayer):
    """A channel layer for any number of hosts.

    Args:
        hosts: The servers: a list of URLs, ``(host, port)`` pairs or dicts. See the page on it.
        prefix: What all names in Redis begin with.
        expiry: Seconds that a message waits for a reader.
        group_expiry: Seconds after which a named channel leaves a group.
        capacity: Messages that a channel holds.
        channel_capacity: See ``BaseChannelLayer``.
        symmetric_encryption_keys: Encrypt and authenticate everything: the first key does, each
            one is understood.
        serializer_format: ``msgpack``, or ``json``: then what JSON doesn't have can't be sent.
        on_disconnect: Called with a server's name when the connection to it was lost.
        on_reconnect: The same, when everything is as before again.
        send_timeout: Seconds that a sender waits for Redis before it gets an error.
        max_message_bytes: The largest event, as it travels, that may be sent.

    Raises InvalidChannelLayerError for what can't be.
    """

    def __init__(
        self,
        hosts: object = None,
        prefix: str = "asgi",
        expiry: float = 60,
        group_expiry: float = 86400,
        capacity: int = 100,
        channel_capacity: Capacities | None = None,
        symmetric_encryption_keys: object = None,
        serializer_format: object = "msgpack",
        on_disconnect: object = None,
        on_reconnect: object = None,
        *,
        send_timeout: float = 5,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        **unknown: object,
    ) -> None:
        _refuse(unknown)
        found = read_hosts(hosts)
        databases = [_database(host) for host in found]
        # What is published in one database of Redis is heard in all others.
        suffix = "@" + ",".join(map(str, databases)) if any(databases) else ""
        self._plan = Plan(
            hosts=found,
            names=Names(read_prefix(prefix) + suffix),
            keys=read_keys(symmetric_encryption_keys),
            expiry_s=read_seconds("expiry", expiry),
            patience_s=read_seconds("send_timeout", send_timeout),
            on_disconnect=read_hook("on_disconnect", on_disconnect),
            on_reconnect=read_hook("on_reconnect", on_reconnect),
        )
        read_seconds("group_expiry", group_expiry)
        _check_capacity(capacity)
        self._encode = encoder(serializer_format)
        self._decode = decode
        in_cluster = self._plan.cluster is not None
        self._put_script = sharded(PUT) if in_cluster else PUT
        super().__init__(
            expiry=expiry,
            group_expiry=group_expiry,
            capacity=capacity,
            channel_capacity=channel_capacity,
            max_message_bytes=max_message_bytes,
        )

    def _begin(self) -> None:
        super()._begin()
        self._counts |= dict.fromkeys(("disconnects", "reconnects"), 0)
        self._opening = threading.Lock()
        self._network: Network | None = None
        self._queues: Queues | None = None
        self._envelopes = Envelopes(self.process, self._plan.keys, self._plan.expiry_s + 10)
        numbers = itertools.count(1)

        def new_sender(
            envelopes: Envelopes = self._envelopes, process: str = self.process
        ) -> Sender:
            return Sender(envelopes, process, next(numbers))

        self._new_sender = new_sender
        self._direct = Direct(self._plan, new_sender)

    @property
    def stats(self) -> dict[str, int]:
        """See ``SpanningChannelLayer``.

        And ``disconnects`` and ``reconnects``: of what listens to a server; ``repeated``: frames
        that came twice, because an answer was lost, and were taken once.
        """
        network = self._network
        repeated = network.arrivals.repeated if network is not None and network.listens else 0
        return {**super().stats, "repeated": repeated}

    @property
    def unready(self) -> str | None:
        """Why the layer can't do its work now: what is sent to this process would not come here."""
        network = self._network
        if network is None or not network.alive or network.listens:
            return None
        return "the channel layer has no connection to Redis"

    async def close(self) -> None:
        """Close the connections. The layer makes new ones when it is used again."""
        await super().close()
        with self._opening:
            network, self._network = self._network, None
            self._direct.close()
        if network is not None:
            network.stop()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_STOP_S):
                    await asyncio.wrap_future(network.thread.ended)
                    network.thread.join()

    def _forked(self) -> None:
        inherited, direct = self._network, self._direct
        if inherited is not None:
            inherited.abandon()
        super()._forked()
        direct.abandon()

    @property
    def home(self) -> asyncio.AbstractEventLoop | None:
        """The loop on which consumers of this process live, while it runs."""
        return self._here.home

    def counted(self, name: str) -> None:
        """Count something in ``stats``."""
        self._count(name)

    def _open(self) -> Network:
        network = self._network
        if network is None or not network.alive:
            with self._opening:
                network = self._network
                if network is None or not network.alive:
                    side = _Side(self)
                    network = Network(
                        self._plan, self.process, self._envelopes, self._new_sender, side
                    )
                    side.queues = self._queues = Queues(network, self.process)
                    self._network = network
                    weakref.finalize(self, network.stop).atexit = False
            for group in list(self.groups):
                network.note_interest(group)
        return network

    # Between processes

    async def _listening(self) -> None:
        network = self._network
        if network is None or not network.listens:
            await self._open().listening()

    def _interest_changed(self, group: str, here: bool) -> None:
        del here  # the network looks at how it is when it gets to it
        network = self._network
        if network is not None:
            network.note_interest(group)

    async def _interest_settled(self, group: str) -> None:
        network = self._open()
        if not network.hears(group):
            await network.group_heard(group)

    async def _publish(self, group: str, frame: bytes) -> int | None:
        network = self._open()
        reached, members = await network.submit(self._to_group(group, frame))
        for channel in members:
            try:
                await self._enqueue(channel, self.message_in(frame))
            except ChannelFull:
                self.note_full(channel)
        return self._others(reached, group)

    def _publish_sync(self, group: str, frame: bytes) -> int | None:
        reached, members = self._direct.carry_out(self._to_group(group, frame))
        for channel in members:
            try:
                self._enqueue_sync(channel, self.message_in(frame))
            except ChannelFull:
                self.note_full(channel)
        return self._others(reached, group)

    def _publication(
        self, tag: str, channel: str, frame: bytes, members: str | None = None
    ) -> Publication:
        if self._plan.cluster is not None:
            return ShardedPublication(tag, channel, frame, members, now=time.time())
        return ScriptedPublication(tag, channel, frame, members)

    def _to_group(self, group: str, frame: bytes) -> Publication:
        names = self._plan.names
        return self._publication(group, names.group(group), frame, names.members(group))

    def _to_process(self, process: str, frame: bytes) -> Publication:
        return self._publication(process, self._plan.names.process(process), frame)

    def _others(self, reached: int, group: str) -> int:
        """Return how many of those who were reached are other processes."""
        network = self._network
        return max(0, reached - (network is not None and network.hears(group)))

    async def _post(self, process: str, frame: bytes) -> bool | None:
        reached, _ = await self._open().submit(self._to_process(process, frame))
        return bool(reached)

    def _post_sync(self, process: str, frame: bytes) -> bool | None:
        reached, _ = self._direct.carry_out(self._to_process(process, frame))
        return bool(reached)

    async def _broadcast(self, frame: bytes) -> None:
        name = self._plan.names.everyone()
        await self._open().submit(self._publication(tag_of(name), name, frame))

    # Named channels

    async def _enqueue(self, channel: str, data: bytes) -> None:
        network = self._open()
        order = self._put(channel, self._envelopes.put_item(channel, data))
        if not await network.submit(order):
            raise self._full(channel)

    def _enqueue_sync(self, channel: str, data: bytes) -> None:
        order = self._put(channel, self._envelopes.put_item(channel, data))
        if not self._direct.carry_out(order):
            raise self._full(channel)

    def _put(self, channel: str, item: bytes) -> Call:
        names = self._plan.names
        return Call(
            channel,
            self._put_script,
            (names.queue(channel), names.readers(channel), names.put(channel, "")),
            item,
            _ms(self.expiry),
            self.get_capacity(channel),
            names.wake(channel, ""),
            _ms(4 * self._plan.patience_s),
            numbered=True,
        )

    async def _fetch(self, channel: str) -> bytes:
        network = self._open()
        queues = self._queues
        assert queues is not None
        while True:
            reader = Reader()
            if not network.thread.call(queues.read, channel, reader):
                raise ChannelLayerUnavailable("the channel layer was closed meanwhile")
            try:
                item = await reader.item
            except BaseException:
                network.thread.call(reader.decide, False)
                raise
            # From here on it is the caller's: nothing is awaited.
            network.thread.call(reader.decide, True)
            try:
                return self._envelopes.open_item(channel, item)
            except ValueError as error:
                self.note_undecodable(str(error))

    async def _join_named(self, group: str, channel: str) -> None:
        order = Call(
            group, JOIN, (self._plan.names.members(group),), channel, _ms(self.group_expiry)
        )
        await self._open().submit(order)

    async def _leave_named(self, group: str, channel: str) -> None:
        order = Call(group, LEAVE, (self._plan.names.members(group),), channel)
        await self._open().submit(order)

    async def _clear(self) -> None:
        names = self._plan.names
        ours = re.compile(re.escape(names.prefix) + r":(members|queue|taken|put):\{.*", re.DOTALL)
        await asyncio.to_thread(
            self._direct.clear, names.all_keys(), lambda key: ours.fullmatch(key) is not None
        )


class _Side:
    """What the network sees of the layer, which may go without closing it."""

    def __init__(self, layer: RedisChannelLayer) -> None:
        self._layer = weakref.ref(layer)
        self.queues: Queues | None = None

    def home(self) -> asyncio.AbstractEventLoop | None:
        layer = self._layer()
        return None if layer is None else layer.home

    def take(self, frames: list[bytes]) -> None:
        layer = self._layer()
        if layer is not None:
            for frame in frames:
                layer.received(frame)

    def has_members(self, group: str) -> bool:
        layer = self._layer()
        return layer is not None and layer.has_members(group)

    def woken(self, channel: str) -> None:
        if self.queues is not None:
            self.queues.woken(channel)

    def missed(self, groups: list[str] | None, reason: str) -> None:
        layer = self._layer()
        if layer is not None:
            layer.tell_gap(reason, groups)

    def undecodable(self, reason: str) -> None:
        layer = self._layer()
        if layer is not None:
            layer.note_undecodable(reason)

    def count(self, name: str) -> None:
        layer = self._layer()
        if layer is not None:
            layer.counted(name)


def _refuse(unknown: dict[str, object]) -> None:
    for name in unknown:
        known = (
            "hosts, prefix, expiry, group_expiry, capacity, channel_capacity, "
            "symmetric_encryption_keys, serializer_format, on_disconnect, on_reconnect, "
            "send_timeout, max_message_bytes"
        )
        raise InvalidChannelLayerError(
            f"{name} in the CONFIG of CHANNEL_LAYERS: "
            + _FOREIGN.get(name, f"there is no such key; there are {known}")
        )


def _check_capacity(capacity: Any) -> None:
    if not isinstance(capacity, int) or isinstance(capacity, bool) or capacity < 1:
        raise InvalidChannelLayerError(
            f"capacity in the CONFIG of CHANNEL_LAYERS: it is a number from 1, not {capacity!r}"
        )


def _database(host: Any) -> int:
    if isinstance(host, SentinelSet):
        host = host.primary
    return int(host.options.get("db", 0)) if isinstance(host, Endpoint) else 0


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))
