"""Delivery inside one process: group -> channels -> sinks. Every layer delivers through it.

Rules of this file:

- No operation of the hub awaits. A lock makes each change whole, so any thread may add,
  discard, attach and detach; it is never held while a sink is called.
- Sinks live on an event loop and are called on its thread only. The hub has one *home*, the
  loop that attached first: from there a publication calls the sinks directly. Whoever is on
  another loop has the call carried to the home (``abroad`` says so, ``carry`` does it).
- Cost is what an operation touches: adding, discarding and sending to one channel are
  constant; a publication is linear in the members of its group, and in nothing else.
- Membership leaves with its channel, whatever ended the consumer.
- Client-bound events to one group in one turn of the loop leave together, as a *burst*: the
  members are walked once for all of them. Whatever could tell the difference (another group,
  another channel, a change of members) ends the burst first.
- Where the members are thousands the walk goes on in the turns that follow, so that it holds up
  nobody. Of a burst, whatever could overtake it lets it come to its end first; of an event for
  handlers, it lets those have it whom it would reach before.
- What a sink does not take is counted and logged, never lost in silence.
- A thread does not wait for the home to publish, unless much is on its way there: in a
  transaction's dozen of events it would wait for a dozen turns of the loop. It waits for
  deliveries to one channel, for their sender is told of what had no room.
"""

import asyncio
import concurrent.futures
import copy
import datetime
import decimal
import functools
import logging
import threading
import uuid
from collections.abc import Callable, Collection, Iterable
from typing import Any, ParamSpec, TypeVar

from .accounts import waits
from .base import (
    Bounds,
    Bursts,
    Event,
    Frames,
    Overflow,
    Sink,
    check_client_event,
    is_client_event,
)
from .losses import Losses

__all__ = ["Hub", "ThreadSafeSink", "carry", "carry_sync", "copier_for", "hand_over"]

P = ParamSpec("P")
T = TypeVar("T")

logger = logging.getLogger("headrace.layers")

#: Members that are served one after the other without a pause. To write their sockets takes 2 ms
#: at the most, to run their handlers about as long.
AT_ONCE = 256
#: Publications of threads that may be on their way to the home, and nobody waits for them.
AHEAD = 64
#: Who waits for another loop looks so often whether it still runs.
LOOK_INTERVAL_S = 1.0

_IMMUTABLE = (
    str,
    bytes,
    int,
    float,
    type(None),
    datetime.date,
    datetime.time,
    datetime.timedelta,
    decimal.Decimal,
    uuid.UUID,
)


def _copier(value: Any) -> Callable[[], Any] | None:
    """Return what makes one more copy of a value; None: a reader can't change it."""
    if isinstance(value, _IMMUTABLE):
        return None
    if type(value) is dict:
        return _container_copier(value, value.items())
    if type(value) is list:
        return _container_copier(value, enumerate(value))
    return functools.partial(copy.deepcopy, value)


def _container_copier(container: Any, items: Iterable[tuple[Any, Any]]) -> Callable[[], Any]:
    changeable = [(key, copier) for key, item in items if (copier := _copier(item)) is not None]
    copy_of_container: Callable[[], Any] = container.copy
    if not changeable:
        return copy_of_container

    def copy_all() -> Any:
        new = copy_of_container()
        for key, copy_of_item in changeable:
            new[key] = copy_of_item()
        return new

    return copy_all


def copier_for(event: Event) -> Callable[[], Event]:
    """Return the cheapest function that makes one more copy of this event.

    Each handler gets an event of its own, for handlers do change them
    (``event.pop("type")``). The event is looked through once, here; after that a flat one,
    as most are, costs one ``dict.copy`` a copy, and what nobody can change is shared.
    """
    return _container_copier(event, event.items())


def hand_over(sink: Sink, event: Event) -> bool | Overflow:
    """Give one sink an event of its own, by the lane for its type."""
    return sink.transmit(event, {}) if is_client_event(event) else sink.put(event)


class ThreadSafeSink:
    """The base of a sink that may be called on any thread, whatever the hub's home."""

    __slots__ = ()

    def put(self, event: Event, /) -> bool | Overflow:
        """See ``Sink``."""
        raise NotImplementedError

    def transmit(self, event: Event, frames: Frames, /) -> bool | Overflow:
        """See ``Sink``."""
        raise NotImplementedError


class _Distant(ThreadSafeSink):
    """A sink on another loop than the hub's home: events are carried there one by one.

    Not more than ``LIMIT`` are on their way at a time; a loop that takes none refuses them.
    """

    LIMIT = 100

    __slots__ = ("_channel", "_hub", "_loop", "_sink", "_under_way")

    def __init__(
        self, hub: "Hub", channel: str, loop: asyncio.AbstractEventLoop, sink: Sink
    ) -> None:
        self._hub = hub
        self._channel = channel
        self._loop = loop
        self._sink = sink
        self._under_way = 0

    @property
    def bounds(self) -> Bounds | None:
        bounds: Bounds | None = getattr(self._sink, "bounds", None)
        return bounds

    def put(self, event: Event, /) -> bool:
        return self._carry(self._sink.put, event)

    def transmit(self, event: Event, frames: Frames, /) -> bool:
        del frames  # they belong to the publishing thread
        return self._carry(self._sink.transmit, event, {})

    def _carry(self, take: Callable[..., bool | Overflow], *args: Any) -> bool:
        with self._hub.lock:
            if self._under_way >= self.LIMIT:
                return False
            self._under_way += 1
        try:
            self._loop.call_soon_threadsafe(self._arrive, take, args)
        except RuntimeError:  # the loop is closed, and with it the consumer
            self._hub.detach(self._channel)
        return True

    def _arrive(self, take: Callable[..., bool | Overflow], args: tuple[Any, ...]) -> None:
        with self._hub.lock:
            self._under_way -= 1
        if (taken := take(*args)) is not True:
            where = f"channel {self._channel}, on another loop"
            self._hub.losses.note(where, args[0], [(self, taken)], 1)


class _Burst:
    """The client-bound events of one group in one turn of the loop."""

    LIMIT = 256

    __slots__ = ("begun", "changes", "events", "group", "sinks")

    def __init__(self, group: str, sinks: list[Sink], changes: int) -> None:
        self.group = group
        #: Those that do not have the events yet.
        self.sinks = sinks
        #: Some have: no event can join.
        self.begun = False
        self.changes = changes
        self.events: list[Event] = []


class _Walk:
    """An event for the handlers of a large group, on its way to them."""

    __slots__ = ("copy_of_event", "event", "full", "group", "left", "members")

    def __init__(self, group: str, members: dict[str, Sink], event: Event) -> None:
        self.group = group
        self.members = len(members)
        #: Those that do not have it yet.
        self.left = members
        # The sender may change its own as soon as it is sent.
        self.event = copier_for(event)()
        self.copy_of_event = copier_for(self.event)
        #: Those that had no room, each with what it answered.
        self.full: list[tuple[Sink | None, bool | Overflow]] = []

    def some(self) -> list[Sink]:
        """Take out those that are next."""
        left = self.left
        return [left.popitem()[1] for _ in range(min(AT_ONCE, len(left)))]


class _Ahead:
    """How many publications of threads are on their way to one home."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


class Hub:
    """The channels and groups of this process."""

    __slots__ = (
        "_ahead",
        "_burst",
        "_changes",
        "_home",
        "_memberships",
        "_walk",
        "channels",
        "groups",
        "lock",
        "losses",
        "watcher",
    )

    def __init__(self) -> None:
        #: Held for each change of what follows, and for no longer.
        self.lock = threading.Lock()
        self.channels: dict[str, Sink] = {}
        self.groups: dict[str, dict[str, Sink]] = {}
        # Most channels are in one group, and 10,000 sets of one name take 2 MB: the name
        # stands for itself until there is a second.
        self._memberships: dict[str, str | set[str]] = {}
        self._home: asyncio.AbstractEventLoop | None = None
        self._ahead = _Ahead()
        #: What the members had no room for.
        self.losses = Losses()
        #: Told of each group that comes into being here (True) or is gone (False), in the order
        #: in which that happens: within the lock, so that it must not come back to the hub.
        self.watcher: Callable[[str, bool], None] | None = None
        self._burst: _Burst | None = None
        self._walk: _Walk | None = None
        self._changes = 0  # of memberships, so that a burst knows when its sinks are stale

    @property
    def dropped(self) -> int:
        """How many events found no room, those aside whose sender was told."""
        return self.losses.total

    @property
    def home(self) -> asyncio.AbstractEventLoop | None:
        """The loop on which sinks are called, unless there is none or it has stopped."""
        home = self._home
        return home if home is not None and home.is_running() else None

    # What exists

    def attach(self, channel: str, sink: Sink) -> None:
        """Let the channel deliver to the sink, on the loop that runs here.

        Memberships that the channel had stay.
        """
        if not isinstance(sink, ThreadSafeSink):
            here = asyncio.get_running_loop()
            if self._home is not here:
                if self._home is None or not self._home.is_running():
                    self._settle(here)
                else:
                    sink = _Distant(self, channel, here, sink)
        with self.lock:
            self.channels[channel] = sink
            for group in self._groups_of(channel):
                self.groups[group][channel] = sink
                self._changes += 1

    def detach(self, channel: str) -> None:
        """Forget the channel and all its memberships."""
        with self.lock:
            self.channels.pop(channel, None)
            self._leave_all(channel)

    def add(self, group: str, channel: str, sink: Sink) -> bool:
        """Put the channel into the group; False: it delivers to that sink no more."""
        with self.lock:
            if self.channels.get(channel) is not sink:
                return False
            members = self.groups.get(group)
            if members is None:
                members = self.groups[group] = {}
                if self.watcher is not None:
                    self.watcher(group, True)
            members[channel] = sink
            self._changes += 1
            held = self._memberships.get(channel)
            if held is None:
                self._memberships[channel] = group
            elif type(held) is set:
                held.add(group)
            elif held != group:
                self._memberships[channel] = {str(held), group}
        return True

    def discard(self, group: str, channel: str) -> None:
        """Take the channel out of the group, if it is there."""
        with self.lock:
            held = self._memberships.get(channel)
            if held == group:
                del self._memberships[channel]
            elif type(held) is set and group in held:
                held.remove(group)
                if not held:
                    del self._memberships[channel]
            else:
                return
            self._leave(group, channel)

    def leave_all(self, channel: str) -> None:
        """Take the channel out of every group."""
        with self.lock:
            self._leave_all(channel)

    def joined_any(self, channel: str) -> bool:
        """Tell whether the channel is in a group."""
        return channel in self._memberships

    # Delivery

    def abroad(self, channel: str | None = None) -> asyncio.AbstractEventLoop | None:
        """Return the loop to which a delivery has to be carried; None: call it right here.

        With a channel: for the delivery of an event for a handler to that channel alone.
        """
        home = self._home
        if home is None:
            return None
        try:
            if home is asyncio.get_running_loop():
                return None
        except RuntimeError:  # a thread without a loop
            pass
        if not home.is_running():
            self._settle(None)
            return None
        if channel is not None and isinstance(self.channels.get(channel), ThreadSafeSink):
            return None
        return home

    def deliver(self, channel: str, event: Event) -> bool:
        """Hand the event to one channel; False: it had no room, or is not there any more."""
        sink = self.channels.get(channel)
        if sink is None:
            return False
        if is_client_event(event):
            check_client_event(event)
            self.end_burst()
        if self._walk is not None:
            self._reach_first((channel,))
        taken = hand_over(sink, copier_for(event)())
        if isinstance(taken, Overflow):
            self.losses.note(f"channel {channel}", event, [(sink, taken)], 1)
        return taken is not False

    def publish(self, group: str, event: Event) -> None:
        """Hand the event to every member of the group.

        A client-bound event is encoded once per wire format, by the first member that
        needs it, at the end of this turn. Any other event is copied for each member, now; where
        they are very many, for some of them in the turns that follow.
        """
        members = self.groups.get(group)
        if not members:
            return
        if is_client_event(event):
            check_client_event(event)
            self._join_burst(group, members, event.copy())
            return
        # What waits for the end of the turn was sent before.
        self.end_burst()
        # A snapshot: taking an event may end a consumer, and other threads come and go.
        members = members.copy()
        if self._walk is not None:
            self._reach_first(members)
        if len(members) > AT_ONCE and self._home is not None:
            self._begin_walk(group, members, event)
        else:
            self._put(group, list(members.values()), event)

    def _put(self, group: str, sinks: list[Sink], event: Event) -> None:
        if full := self._put_each(group, sinks, copier_for(event)):
            self.losses.note(f"group {group}", event, full, len(sinks))

    def _put_each(
        self, group: str, sinks: list[Sink], copy_of_event: Callable[[], Event]
    ) -> list[tuple[Sink | None, bool | Overflow]]:
        """Give each its own copy; return those that had no room, with what they answered."""
        full: list[tuple[Sink | None, bool | Overflow]] = []
        copy_for_sink: Event | None = None
        for sink in sinks:
            copy_for_sink = copy_of_event()  # what can't be copied is an error of the sender
            try:
                if (taken := sink.put(copy_for_sink)) is not True:
                    full.append((sink, taken))
            except Exception:
                # A member that breaks its promise must not silence those behind it.
                logger.exception("group %s: a member failed to take an event", group)
        if copy_for_sink is not None:
            waits.put(copy_for_sink)
        return full

    def _begin_walk(self, group: str, members: dict[str, Sink], event: Event) -> None:
        """Give the event to the first of many, and to the others in the turns that follow."""
        walk = _Walk(group, members, event)
        # Other threads send to such a sink without a turn of the loop.
        apart = [channel for channel, sink in members.items() if isinstance(sink, ThreadSafeSink)]
        self._walk = walk
        self._put_walk(walk, [members.pop(channel) for channel in apart])
        self._walk_on(walk)

    def _walk_on(self, walk: _Walk) -> None:
        if self._walk is not walk:
            return  # it was brought to its end
        sinks = walk.some()
        if not walk.left:
            self._end_walk(sinks)
            return
        if (home := self._home) is not None:
            home.call_soon(self._walk_on, walk)
        self._put_walk(walk, sinks)

    def _put_walk(self, walk: _Walk, sinks: list[Sink]) -> None:
        walk.full += self._put_each(walk.group, sinks, walk.copy_of_event)

    def _reach_first(self, channels: Collection[str]) -> None:
        """Let what is on its way to many handlers reach those of these channels now.

        They are about to get something that was sent later.
        """
        walk = self._walk
        if walk is None:
            return
        if len(channels) > AT_ONCE:
            self._end_walk(list(walk.left.values()))
            return
        left = walk.left
        found = (left.pop(channel, None) for channel in channels)
        self._put_walk(walk, [sink for sink in found if sink is not None])

    def _end_walk(self, sinks: list[Sink]) -> None:
        """Give the event to the last ones, and settle what there is to tell."""
        walk, self._walk = self._walk, None
        assert walk is not None
        self._put_walk(walk, sinks)
        if walk.full:
            self.losses.note(f"group {walk.group}", walk.event, walk.full, walk.members)

    def deliver_sync(self, channel: str, event: Event) -> bool:
        """Do what ``deliver`` does, on a thread without an event loop, wherever the sink lives."""
        alone: str | None = channel
        if is_client_event(event):
            check_client_event(event)
            alone = None  # it joins the queue of such events, wherever it goes
        elif self._ahead.count:
            alone = None  # it stays behind what this thread may have published
        while (home := self.abroad(alone)) is None:
            sink = self.channels.get(channel)
            if sink is None:
                return False
            if isinstance(sink, ThreadSafeSink):
                return hand_over(sink, copier_for(event)()) is not False
            # A consumer has come with its loop just now.
        return carry_sync(home, self.deliver, channel, event) is not False

    def publish_sync(self, group: str, event: Event) -> None:
        """Do what ``publish`` does, on a thread without an event loop, wherever the sinks live.

        The event is copied, and on its way when this returns: whoever hears of it on the home's
        loop, by whatever this thread does next, finds it delivered.
        """
        if for_clients := is_client_event(event):
            check_client_event(event)
        while (home := self.abroad()) is None:
            with self.lock:
                if self._home is not None:
                    continue  # as above
                sinks = list(self.groups.get(group, {}).values())
            if for_clients:
                self._transmit(group, sinks, [event])
            else:
                self._put(group, sinks, event)
            return
        own = event.copy() if for_clients else copier_for(event)()
        with self.lock:
            ahead = self._ahead
            if has_room := ahead.count < AHEAD:
                ahead.count += 1
        if not has_room:
            carry_sync(home, self.publish, group, own)  # with all that are before it
        elif _hand_to(home, self._publish_ahead, ahead, group, own) is None:
            self._arrived(ahead)  # nowhere: the loop was closed just now

    def _publish_ahead(self, ahead: _Ahead, group: str, event: Event) -> None:
        """Publish what a thread does not wait for."""
        self._arrived(ahead)
        try:
            self.publish(group, event)
        except Exception:  # nobody is there to handle it
            logger.exception("group %s: an event was not published", group)

    def _arrived(self, ahead: _Ahead) -> None:
        with self.lock:
            ahead.count -= 1

    def tell_gap(self, reason: str, groups: Iterable[str] | None = None) -> int:
        """Tell each channel whose consumer wants to know that it may have missed something.

        It gets one event, with those of the groups (None: of all) that it is in. Returns how
        many were told. A channel in no group is told only where ``groups`` is None.
        """
        self.end_burst()
        if self._walk is not None:
            self._end_walk(list(self._walk.left.values()))
        concerned: dict[str, list[str]] = {}
        with self.lock:
            if groups is None:
                concerned = {channel: sorted(self._groups_of(channel)) for channel in self.channels}
            else:
                for group in sorted(groups):
                    for channel in self.groups.get(group, ()):
                        concerned.setdefault(channel, []).append(group)
            sinks = [(channel, self.channels[channel]) for channel in concerned]
        told = 0
        for channel, sink in sinks:
            if getattr(getattr(sink, "bounds", None), "hears_gaps", False):
                told += 1
                event = {"type": "layer.gap", "reason": reason, "groups": concerned[channel]}
                try:
                    if (taken := sink.put(event)) is not True:
                        self.losses.note(f"channel {channel}", event, [(sink, taken)], 1)
                except Exception:
                    # As in ``publish``: the others are told all the same.
                    logger.exception("channel %s failed to take an event", channel)
        return told

    def _join_burst(self, group: str, members: dict[str, Sink], event: Event) -> None:
        home = self._home
        # A close stands by itself: what comes behind it meets a closed connection. And without
        # a home there is no turn to wait for.
        if home is None or event["type"] == "websocket.close":
            self.end_burst()
            if self._walk is not None:
                self._reach_first(tuple(members))
            self._transmit(group, list(members.values()), [event])
            return
        burst = self._burst
        if (
            burst is None
            or burst.group != group
            or burst.begun
            or burst.changes != self._changes
            or len(burst.events) >= burst.LIMIT
        ):
            self.end_burst()
            burst = self._burst = _Burst(group, list(members.values()), self._changes)
            home.call_soon(self._end_turn, burst)
        burst.events.append(event)

    def end_burst(self) -> None:
        """Hand over the client-bound events that wait for the end of this turn."""
        burst, self._burst = self._burst, None
        if burst is not None:
            self._transmit(burst.group, burst.sinks, burst.events)

    def _end_turn(self, burst: _Burst) -> None:
        """End the burst at the end of its turn, unless something has: nothing else will follow.

        What many members are sent is written to so many of them a turn.
        """
        if self._burst is not burst:
            return
        sinks = burst.sinks[-AT_ONCE:]
        del burst.sinks[-AT_ONCE:]
        if not burst.sinks:
            self._burst = None
        elif (home := self._home) is not None:
            burst.begun = True
            home.call_soon(self._end_turn, burst)
        self._transmit(burst.group, sinks, burst.events, at_once=True)

    def _transmit(
        self, group: str, sinks: list[Sink], events: list[Event], *, at_once: bool = False
    ) -> None:
        full: list[tuple[Sink | None, bool | Overflow]] = []
        closes = events[0]["type"] == "websocket.close"  # alone, then
        bursts: Bursts = {}
        frames: list[Frames] = [{} for _ in events]
        for sink in sinks:
            try:
                take = getattr(sink, "transmit_burst", None)
                if take is not None and not closes:
                    if refused := take(events, bursts, at_once):
                        full += [(sink, False)] * refused
                else:
                    taken = map(sink.transmit, events, frames)
                    full += [(sink, each) for each in taken if each is not True]
            except Exception:
                # A member that breaks its promise must not silence those behind it.
                logger.exception("group %s: a member failed to take an event", group)
        if full:
            self.losses.note(f"group {group}", events[-1], full, len(sinks) * len(events))

    def _settle(self, home: asyncio.AbstractEventLoop | None) -> None:
        """Move to another home. The old one has stopped.

        If it is closed, what lived there is gone. If not, as with a loop that a test runner keeps
        from test to test, it may run again: until then, events for what lives there wait.
        """
        distant: dict[int, _Distant] = {}
        with self.lock:
            old, self._home = self._home, home
            self._ahead = _Ahead()
            burst, self._burst = self._burst, None
            walk, self._walk = self._walk, None
            for channel, sink in list(self.channels.items()):
                if isinstance(sink, ThreadSafeSink):
                    continue
                if old is None or old.is_closed():
                    del self.channels[channel]
                    self._leave_all(channel)
                    continue
                self.channels[channel] = distant[id(sink)] = _Distant(self, channel, old, sink)
                for group in self._groups_of(channel):
                    self.groups[group][channel] = distant[id(sink)]
            self._changes += 1
        if burst is not None:
            # Its turn has not come to an end, and will not.
            sinks = [distant.get(id(sink), sink) for sink in burst.sinks]
            reached: list[Sink] = [sink for sink in sinks if isinstance(sink, ThreadSafeSink)]
            self._transmit(burst.group, reached, burst.events)
        if walk is not None:
            # Its turns will not come either.
            sinks = [distant.get(id(sink), sink) for sink in walk.left.values()]
            reached = [sink for sink in sinks if isinstance(sink, ThreadSafeSink)]
            self._walk = walk
            self._end_walk(reached)

    # Within the lock

    def _groups_of(self, channel: str) -> tuple[str, ...] | set[str]:
        held = self._memberships.get(channel, ())
        return (held,) if isinstance(held, str) else held

    def _leave_all(self, channel: str) -> None:
        for group in self._groups_of(channel):
            self._leave(group, channel)
        self._memberships.pop(channel, None)

    def _leave(self, group: str, channel: str) -> None:
        members = self.groups[group]
        del members[channel]
        self._changes += 1
        if not members:
            del self.groups[group]
            if self.watcher is not None:
                self.watcher(group, False)


async def carry(
    home: asyncio.AbstractEventLoop, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs
) -> T | None:
    """Run the call on the thread of another loop, and wait for what it returns.

    None when that loop has stopped: it will make the call if it ever runs again.
    """
    outcome = _hand_to(home, call, *args, **kwargs)
    if outcome is None:
        return None
    waiter = asyncio.wrap_future(outcome)
    while home.is_running():
        # A loop can stop before it gets to us; nothing tells, so look now and then.
        done, _ = await asyncio.wait({waiter}, timeout=LOOK_INTERVAL_S)
        if done:
            return waiter.result()
    return waiter.result() if waiter.done() else None


def carry_sync(
    home: asyncio.AbstractEventLoop, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs
) -> T | None:
    """Do what ``carry`` does, on a thread without an event loop: the thread waits."""
    outcome = _hand_to(home, call, *args, **kwargs)
    if outcome is None:
        return None
    while home.is_running():
        if concurrent.futures.wait({outcome}, LOOK_INTERVAL_S).done:
            break
    return outcome.result() if outcome.done() else None


def _hand_to(
    home: asyncio.AbstractEventLoop, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs
) -> concurrent.futures.Future[T] | None:
    outcome: concurrent.futures.Future[T] = concurrent.futures.Future()

    def make() -> None:
        try:
            outcome.set_result(call(*args, **kwargs))
        except BaseException as error:  # it is raised where the call came from
            outcome.set_exception(error)

    try:
        home.call_soon_threadsafe(make)
    except RuntimeError:  # closed meanwhile
        return None
    return outcome
