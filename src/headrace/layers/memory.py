"""The in-memory channel layer: the hub alone, one process.

Rules of this file:

- Any thread and any event loop may call the layer; what one sender sends arrives in order.
- A channel that nobody attached is a ``Mailbox``: bounded, first in first out, and gone
  when it is empty and in no group, or when all that it held has expired.
- Nothing is done on a timer. What has expired is not delivered, and its memory is taken
  back by whoever calls next, each channel looked at once in ``expiry`` seconds.
"""

import asyncio
import itertools
import secrets
import threading
import time
from collections import deque

from .base import (
    BaseChannelLayer,
    Capacities,
    Event,
    Frames,
    Overflow,
    Sink,
    is_client_event,
    require_message,
    running_loop,
)
from .hub import Hub, ThreadSafeSink, carry, copier_for, hand_over

__all__ = ["InMemoryChannelLayer", "Mailbox"]


class Retired(Exception):
    """The mailbox is no longer the channel's: it was forgotten, or a consumer came in its place."""


class Mailbox(ThreadSafeSink):
    """A channel that waits to be pulled: the sink behind ``receive()``.

    It drops the newest when it is full, so that the sender is told: whoever pulls has no
    client who could come again, and no say in what is lost.

    Args:
        capacity: Messages that it holds before ``put`` says no.
        expiry_s: Seconds after which a message that nobody fetched is forgotten.
    """

    __slots__ = (
        "_capacity",
        "_events",
        "_expiry_s",
        "_lock",
        "_readers",
        "joined",
        "lapsed",
        "retired",
    )

    def __init__(self, capacity: int, expiry_s: float) -> None:
        self._capacity = capacity
        self._expiry_s = expiry_s
        self._lock = threading.Lock()
        self._events: deque[tuple[float, Event]] = deque()
        # An ordered set: a reader that is cancelled leaves in constant time.
        self._readers: dict[asyncio.Future[None], None] = {}
        #: Whether it takes nothing any more.
        self.retired = False
        #: Whether a message has expired since one was last fetched.
        self.lapsed = False
        #: When each membership ends (monotonic seconds), by group.
        self.joined: dict[str, float] = {}

    def put(self, event: Event, /) -> bool:
        """Keep the event for a reader; False when there is no room."""
        now = time.monotonic()
        with self._lock:
            self._expire(now)
            if self.retired or len(self._events) >= self._capacity:
                return False
            self._events.append((now + self._expiry_s, event))
            self._wake_one()
        return True

    def transmit(self, event: Event, frames: Frames, /) -> bool:
        """Keep a client-bound event like any other: a reader has no socket."""
        del frames
        return self.put(event.copy())

    async def get(self) -> Event:
        """Wait for the oldest event. A cancelled reader takes none with it.

        Raises Retired when the channel is no longer this mailbox.
        """
        loop = asyncio.get_running_loop()
        while True:
            with self._lock:
                self._expire(time.monotonic())
                if self._events:
                    self.lapsed = False
                    return self._events.popleft()[1]
                if self.retired:
                    raise Retired
                reader = loop.create_future()
                self._readers[reader] = None
            try:
                await reader
            except asyncio.CancelledError:
                with self._lock:
                    if reader in self._readers:
                        del self._readers[reader]
                    else:
                        # Woken and cancelled in one turn: another reader goes in its place.
                        self._wake_one()
                raise

    def expire(self, now: float) -> None:
        """Forget what has waited too long."""
        with self._lock:
            self._expire(now)

    def clear(self) -> None:
        """Forget what waits."""
        with self._lock:
            self._events.clear()
            self.lapsed = False

    def retire(self) -> list[Event]:
        """Take nothing from now on; hand over what waits, oldest first."""
        with self._lock:
            self._expire(time.monotonic())
            events = [event for _, event in self._events]
            self._events.clear()
            self.retired = True
            while self._readers:
                self._wake(self._pop_reader())
        return events

    def retire_if_idle(self) -> bool:
        """Take nothing from now on, unless something is kept or somebody waits."""
        with self._lock:
            if not self._events and not self._readers:
                self.retired = True
            return self.retired

    def __len__(self) -> int:
        return len(self._events)

    # Within the lock

    def _expire(self, now: float) -> None:
        events = self._events
        while events and events[0][0] <= now:
            events.popleft()
            self.lapsed = True

    def _wake_one(self) -> None:
        while self._readers and self._events:
            if self._wake(self._pop_reader()):
                return

    def _pop_reader(self) -> asyncio.Future[None]:
        reader = next(iter(self._readers))
        del self._readers[reader]
        return reader

    def _wake(self, reader: asyncio.Future[None]) -> bool:
        loop = reader.get_loop()
        try:
            if running_loop() is loop:
                self._woken(reader)
            else:
                loop.call_soon_threadsafe(self._woken, reader)
        except RuntimeError:  # its loop is closed: it waits no more
            return False
        return True

    @staticmethod
    def _woken(reader: asyncio.Future[None]) -> None:
        # One that was cancelled meanwhile passes its turn on by itself.
        if not reader.done():
            reader.set_result(None)


class InMemoryChannelLayer(BaseChannelLayer):
    """A channel layer that lives in this process, and reaches no other.

    Args:
        expiry: Seconds that a message waits for a reader.
        group_expiry: Seconds after which a channel that nobody attached leaves a group; it
            leaves all its groups as soon as one of its messages has expired. A consumer's
            membership has no end but the consumer's.
        capacity: Messages that a channel holds.
        channel_capacity: See ``BaseChannelLayer``.
    """

    extensions = ("groups", "flush")
    pushes = True

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
        self._prefix = secrets.token_hex(8)
        self._numbers = itertools.count(1)
        # The mailboxes, by when to look at each (monotonic seconds), the earliest first:
        # every look is booked at the end, and for the same time ahead.
        self._looks: dict[str, float] = {}
        self._look_interval_s = min(expiry, group_expiry)

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
        """How many events found no room, those aside whose sender was told (ChannelFull)."""
        return self._hub.dropped

    @property
    def overflows(self) -> dict[Overflow, int]:
        """The same, by what was done about it."""
        return self._hub.losses.counts.copy()

    async def new_channel(self, prefix: str = "specific") -> str:
        """Return a name that this process has not given before."""
        # A counter behind a random prefix: unique without asking, and never reused.
        return f"{prefix}.{self._prefix}!{next(self._numbers):x}"

    async def send(self, channel: str, message: Event) -> None:
        """Send to one channel; ChannelFull when it has no room."""
        self.require_valid_channel_name(channel)
        _require_message(message)
        hub = self._hub
        # What is for a client joins the queue of such events, wherever it goes.
        alone = None if is_client_event(message) else channel
        while True:
            sink = self._open(channel)
            home = hub.abroad(alone)
            if home is None:
                taken = hub.deliver(channel, message)
            else:
                taken = await carry(home, hub.deliver, channel, message) is not False
            if taken:
                return
            if hub.channels.get(channel) is sink:
                raise self._full(channel, sink)
            # What was there has just gone: begin again.

    def send_sync(self, channel: str, message: Event) -> None:
        """Do what ``send`` does, on a thread without an event loop.

        The thread waits until consumers that live on a loop have the message, on that loop.
        """
        self._require_no_loop("send")
        self.require_valid_channel_name(channel)
        _require_message(message)
        hub = self._hub
        while True:
            sink = self._open(channel)
            if hub.deliver_sync(channel, message):
                return
            if hub.channels.get(channel) is sink:
                raise self._full(channel, sink)

    async def receive(self, channel: str) -> Event:
        """Wait for the channel's next message.

        Raises ValueError when the channel is attached to a sink: it is pushed to.
        """
        self.require_valid_channel_name(channel)
        while True:
            self._sweep()
            mailbox = self._open(channel)
            if not isinstance(mailbox, Mailbox):
                raise ValueError(f"channel {channel} belongs to a consumer, which is pushed to")
            try:
                return await mailbox.get()
            except Retired:
                continue
            finally:
                self._forget_if_idle(channel, mailbox)

    async def group_add(self, group: str, channel: str) -> None:
        """Put the channel into the group, in constant time."""
        self.require_valid_group_name(group)
        self.require_valid_channel_name(channel)
        while True:
            sink = self._open(channel)
            if self._hub.add(group, channel, sink):
                break
        if isinstance(sink, Mailbox):
            sink.joined[group] = time.monotonic() + self.group_expiry

    async def group_discard(self, group: str, channel: str) -> None:
        """Take the channel out of the group, in constant time."""
        self.require_valid_group_name(group)
        self.require_valid_channel_name(channel)
        self._hub.discard(group, channel)
        sink = self._hub.channels.get(channel)
        if isinstance(sink, Mailbox):
            sink.joined.pop(group, None)
            self._forget_if_idle(channel, sink)

    async def group_send(self, group: str, message: Event) -> int | None:
        """Send to every member; what finds no room is counted and logged, and does not raise."""
        self.require_valid_group_name(group)
        _require_message(message)
        if self._looks:
            self._sweep()
        hub = self._hub
        home = hub.abroad()
        if home is None:
            hub.publish(group, message)
        else:
            await carry(home, hub.publish, group, message)
        return None

    def group_send_sync(self, group: str, message: Event) -> int | None:
        """Do what ``group_send`` does, on a thread without an event loop.

        The event is sent as it is now. The thread does not wait until the consumers have it,
        unless many events of threads are on their way: they are there before anything that the
        thread tells their loop later.
        """
        self._require_no_loop("group_send")
        self.require_valid_group_name(group)
        _require_message(message)
        if self._looks:
            self._sweep()
        self._hub.publish_sync(group, message)
        return None

    def prepared(self, message: Event) -> Event:
        """Return the message as it is to be sent later. See ``BaseChannelLayer``."""
        require_message(message)
        return copier_for(message)()

    async def flush(self) -> None:
        """Forget every channel, group and message; attached consumers stay attached."""
        self.flush_now()

    def flush_now(self) -> None:
        """Do what ``flush`` does, on any thread."""
        hub = self._hub
        for channel, sink in list(hub.channels.items()):
            hub.leave_all(channel)
            if isinstance(sink, Mailbox):
                sink.joined.clear()
                sink.clear()
                self._forget_if_idle(channel, sink)

    def attach(self, channel: str, sink: Sink) -> None:
        """Push the channel's messages to the sink, beginning with those that waited."""
        waiting = self._hub.channels.get(channel)
        if isinstance(waiting, Mailbox):
            # Before the sink can be seen: what comes meanwhile from another thread is later.
            for event in waiting.retire():
                if (taken := hand_over(sink, event)) is not True:
                    self._hub.losses.note(f"channel {channel}", event, [(sink, taken)], 1)
        self._hub.attach(channel, sink)

    def detach(self, channel: str) -> None:
        """Forget the channel and all its memberships."""
        self._hub.detach(channel)

    def settle(self) -> None:
        """Hand over, now, the client-bound events that wait for the end of this turn."""
        if self._hub.abroad() is None:
            self._hub.end_burst()

    def _open(self, channel: str) -> Sink:
        """Return the channel's sink: a new mailbox unless it has one."""
        hub = self._hub
        sink = hub.channels.get(channel)
        if sink is None:
            # What is overdue for long, so that channels which nobody reads don't pile up. A
            # send that opens one sees the others as they were left.
            self._sweep(overdue_s=self._look_interval_s)
            mailbox = Mailbox(self.get_capacity(channel), self.expiry)
            with hub.lock:
                # Another thread may have been first.
                sink = hub.channels.setdefault(channel, mailbox)
                if sink is mailbox:
                    self._looks.pop(channel, None)
                    self._looks[channel] = time.monotonic() + self._look_interval_s
        return sink

    def _forget_if_idle(self, channel: str, mailbox: Mailbox) -> None:
        hub = self._hub
        with hub.lock:
            if (
                hub.channels.get(channel) is mailbox
                and not hub.joined_any(channel)
                and mailbox.retire_if_idle()
            ):
                del hub.channels[channel]
                self._looks.pop(channel, None)

    def _sweep(self, overdue_s: float = 0.0) -> None:
        """Look at the mailboxes whose time has come, at least so long ago."""
        now = time.monotonic()
        while self._looks:
            with self._hub.lock:
                channel = next(iter(self._looks), None)
                if channel is None or self._looks[channel] > now - overdue_s:
                    return
                del self._looks[channel]
                mailbox = self._hub.channels.get(channel)
            if isinstance(mailbox, Mailbox):
                self._look(channel, mailbox, now)

    def _look(self, channel: str, mailbox: Mailbox, now: float) -> None:
        mailbox.expire(now)
        if mailbox.lapsed:
            # Nobody reads it, so it is taken to be gone (the channel-layer specification of
            # Channels, "Persistence").
            mailbox.joined.clear()
            self._hub.leave_all(channel)
        for group in [group for group, until in mailbox.joined.items() if until <= now]:
            del mailbox.joined[group]
            self._hub.discard(group, channel)
        self._forget_if_idle(channel, mailbox)
        with self._hub.lock:
            if self._hub.channels.get(channel) is mailbox:
                self._looks[channel] = now + self._look_interval_s


def _require_message(message: object) -> None:
    if not isinstance(message, dict):
        raise TypeError(f"a message is a dict, not {type(message).__name__}")
