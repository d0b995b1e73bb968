"""The in-memory channel layer: the hub alone, one process.

Rules of this file:

- The hub belongs to one event loop, its *home*: the loop that runs when the layer is
  first used. A call from another thread is carried over to it and waited for there, so
  that a view in a thread and a consumer on the loop see one layer.
- A channel that nobody attached is a ``Mailbox``: bounded, first in first out, and gone
  when it is empty and in no group, or when all that it held has expired.
"""

import asyncio
import secrets
import time
from collections import deque
from collections.abc import Coroutine
from typing import Any, TypeVar

from .base import BaseChannelLayer, Capacities, Event, Frames, Sink
from .hub import Hub

__all__ = ["InMemoryChannelLayer", "Mailbox"]

T = TypeVar("T")


class Mailbox:
    """A channel that waits to be pulled: the sink behind ``receive()``.

    Args:
        capacity: Messages that it holds before ``put`` says no.
        expiry_s: Seconds after which a message that nobody fetched is forgotten.
    """

    __slots__ = ("_capacity", "_events", "_expiry_s", "_readers", "joined")

    def __init__(self, capacity: int, expiry_s: float) -> None:
        self._capacity = capacity
        self._expiry_s = expiry_s
        self._events: deque[tuple[float, Event]] = deque()
        self._readers: deque[asyncio.Future[None]] = deque()
        #: When the channel last joined a group (monotonic seconds); None: never.
        self.joined: float | None = None

    def put(self, event: Event) -> bool:
        """Keep the event for a reader; False when there is no room."""
        self.expire(time.monotonic())
        if len(self._events) >= self._capacity:
            return False
        self._events.append((time.monotonic() + self._expiry_s, event))
        self._wake()
        return True

    def transmit(self, event: Event, frames: Frames) -> bool:
        """Keep a client-bound event like any other: a reader has no socket."""
        del frames
        return self.put(event.copy())

    async def get(self) -> Event:
        """Wait for the oldest event. A cancelled reader takes none with it."""
        while True:
            self.expire(time.monotonic())
            if self._events:
                return self._events.popleft()[1]
            reader = asyncio.get_running_loop().create_future()
            self._readers.append(reader)
            try:
                await reader
            except asyncio.CancelledError:
                # Woken and cancelled in one turn: the wake-up belongs to the next reader.
                if reader.done() and not reader.cancelled():
                    self._wake()
                raise
            finally:
                if reader in self._readers:
                    self._readers.remove(reader)

    def take(self) -> list[Event]:
        """Hand over all that waits, oldest first."""
        self.expire(time.monotonic())
        events = [event for _, event in self._events]
        self._events.clear()
        return events

    def expire(self, now: float) -> None:
        """Forget what has waited too long."""
        events = self._events
        while events and events[0][0] <= now:
            events.popleft()

    @property
    def idle(self) -> bool:
        """Whether nothing is kept and nobody waits."""
        return not self._events and not self._readers

    def __len__(self) -> int:
        return len(self._events)

    def _wake(self) -> None:
        while self._readers and self._events:
            reader = self._readers.popleft()
            if not reader.done():
                reader.set_result(None)
                return


class InMemoryChannelLayer(BaseChannelLayer):
    """A channel layer that lives in this process, and reaches no other.

    Args:
        expiry: Seconds that a message waits for a reader.
        group_expiry: Seconds after which a channel that nobody attached leaves its groups.
            A consumer's membership has no end but the consumer's.
        capacity: Messages that a channel holds.
        channel_capacity: See ``BaseChannelLayer``.
    """

    extensions = ("groups", "flush")

    def __init__(
        self,
        expiry: float = 60,
        group_expiry: float = 86400,
        capacity: int = 100,
        channel_capacity: Capacities | None = None,
    ) -> None:
        super().__init__(expiry=expiry, capacity=capacity, channel_capacity=channel_capacity)
        self.group_expiry = group_expiry
        self._hub = Hub()
        self._home: asyncio.AbstractEventLoop | None = None
        self._prefix = secrets.token_hex(8)
        self._opened = 0
        self._next_sweep = time.monotonic() + expiry

    @property
    def channels(self) -> dict[str, Sink]:
        """The channels that exist now, by name."""
        return self._hub.channels

    @property
    def groups(self) -> dict[str, dict[str, Sink]]:
        """The groups that have members now, by name."""
        return self._hub.groups

    @property
    def dropped(self) -> int:
        """How many events of group sends found no room."""
        return self._hub.dropped

    async def new_channel(self, prefix: str = "specific") -> str:
        """Return a name that this process has not given before."""
        # A counter behind a random prefix: unique without asking, and never reused.
        self._opened += 1
        return f"{prefix}.{self._prefix}!{self._opened:x}"

    async def send(self, channel: str, message: Event) -> None:
        """Send to one channel; ChannelFull when it has no room."""
        self.require_valid_channel_name(channel)
        self._require_message(message)
        if (home := self._elsewhere()) is not None:
            return await self._carry(home, self.send(channel, message))
        self._channel(channel)
        if not self._hub.deliver(channel, message):
            raise self._full(channel)
        return None

    async def receive(self, channel: str) -> Event:
        """Wait for the channel's next message.

        Raises ValueError when the channel is attached to a sink: it is pushed to.
        """
        self.require_valid_channel_name(channel)
        if (home := self._elsewhere()) is not None:
            return await self._carry(home, self.receive(channel))
        mailbox = self._channel(channel)
        if not isinstance(mailbox, Mailbox):
            raise ValueError(f"channel {channel} belongs to a consumer, which gets its messages")
        try:
            return await mailbox.get()
        finally:
            self._forget_if_idle(channel, mailbox)

    async def group_add(self, group: str, channel: str) -> None:
        """Put the channel into the group, in constant time."""
        self.require_valid_group_name(group)
        self.require_valid_channel_name(channel)
        if (home := self._elsewhere()) is not None:
            return await self._carry(home, self.group_add(group, channel))
        sink = self._channel(channel)
        if isinstance(sink, Mailbox):
            sink.joined = time.monotonic()
        self._hub.add(group, channel)
        return None

    async def group_discard(self, group: str, channel: str) -> None:
        """Take the channel out of the group, in constant time."""
        self.require_valid_group_name(group)
        self.require_valid_channel_name(channel)
        if (home := self._elsewhere()) is not None:
            return await self._carry(home, self.group_discard(group, channel))
        self._hub.discard(group, channel)
        return None

    async def group_send(self, group: str, message: Event) -> None:
        """Send to every member; what finds no room is counted and logged, and does not raise."""
        self.require_valid_group_name(group)
        self._require_message(message)
        if (home := self._elsewhere()) is not None:
            return await self._carry(home, self.group_send(group, message))
        self._sweep()
        self._hub.publish(group, message)
        return None

    async def flush(self) -> None:
        """Forget every channel, group and message; attached consumers stay attached."""
        if (home := self._elsewhere()) is not None:
            return await self._carry(home, self.flush())
        attached = {
            name: sink
            for name, sink in self._hub.channels.items()
            if not isinstance(sink, Mailbox) or not sink.idle
        }
        self._hub.clear()
        for name, sink in attached.items():
            if isinstance(sink, Mailbox):
                sink.take()
            self._hub.attach(name, sink)
        return None

    def attach(self, channel: str, sink: Sink) -> None:
        """Push the channel's messages to the sink, beginning with those that waited."""
        self._elsewhere()
        waiting = self._hub.channels.get(channel)
        self._hub.attach(channel, sink)
        if isinstance(waiting, Mailbox):
            for event in waiting.take():
                self._hub.deliver(channel, event)

    def detach(self, channel: str) -> None:
        """Forget the channel and all its memberships."""
        self._hub.detach(channel)

    def _channel(self, name: str) -> Sink:
        sink = self._hub.channels.get(name)
        if sink is None:
            self._sweep()
            sink = Mailbox(self.get_capacity(name), self.expiry)
            self._hub.attach(name, sink)
        return sink

    def _forget_if_idle(self, name: str, mailbox: Mailbox) -> None:
        if mailbox.idle and mailbox.joined is None and self._hub.channels.get(name) is mailbox:
            self._hub.detach(name)

    def _sweep(self) -> None:
        """Forget mailboxes whose messages and memberships have all expired; rarely."""
        now = time.monotonic()
        if now < self._next_sweep:
            return
        self._next_sweep = now + max(1.0, min(self.expiry, self.group_expiry) / 2)
        for name, sink in list(self._hub.channels.items()):
            if isinstance(sink, Mailbox):
                sink.expire(now)
                if sink.joined is not None and sink.joined + self.group_expiry <= now:
                    sink.joined = None
                self._forget_if_idle(name, sink)

    def _require_message(self, message: object) -> None:
        if not isinstance(message, dict):
            raise TypeError(f"a message is a dict, not {type(message).__name__}")

    def _elsewhere(self) -> asyncio.AbstractEventLoop | None:
        """Return the home loop if it is another than the one that runs here."""
        here = asyncio.get_running_loop()
        home = self._home
        if home is here:
            return None
        if home is None or not home.is_running():
            self._home = here
            return None
        return home

    async def _carry(self, home: asyncio.AbstractEventLoop, call: Coroutine[Any, Any, T]) -> T:
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(call, home))
