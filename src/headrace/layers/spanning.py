"""The base of every channel layer that spans processes: what is here, what is elsewhere, frames.

Rules of this file:

- A process has an id, 16 hexadecimal digits, which stands in each channel name that it gives
  (``specific.<process>!<n>``): whoever has a name knows the owner. A forked child is another
  process: it has another id, and none of its parent's channels.
- What is here (this process's channels and groups) is a layer in memory, and nothing leaves the
  process for it. What is elsewhere is reached by a few abstract methods: one frame to one
  process, one publication for a group whatever the number of its members, one queue for each
  *named* channel (one whose name tells no owner).
- ``group_add`` returns when a ``group_send`` that begins afterwards, in any process, reaches the
  channel. A membership is kept by the owner of the channel and ends with the channel or the
  process; that of a named channel is kept where its queue is, and ends after ``group_expiry``.
- A frame is an encoded ``[kind, ...]``. It is made before anything is delivered, so that what
  can't travel is an error at the sender whoever listens. What comes from outside is checked,
  counted and dropped when it is no frame, and never raises at the reader.
- What may have been missed is told (``tell_gap``): an event ``layer.gap`` to the consumers that
  define its handler, a counter, a line of the log. Never silence.

A subclass promises:

- It calls ``received(frame)`` for each frame that comes, on the thread of a running event loop,
  and the frames of one sender in the order in which they were sent.
- Its abstract methods may be called on any event loop of the process, those whose name ends with
  ``_sync`` on any thread, and ``_interest_changed`` with a lock held: it must not block, raise or
  call the layer.
- What it can't deliver it says: by ChannelFull or an error at the sender, or by ``tell_gap`` at
  the receiver, or both.
"""

import asyncio
import concurrent.futures
import itertools
import logging
import os
import re
import threading
import time
import weakref
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, ClassVar

from ..codecs import decode_event, encode_event
from ..exceptions import InvalidChannelLayerError, MessageTooLarge
from .base import (
    BaseChannelLayer,
    Capacities,
    Event,
    Overflow,
    Sink,
    check_client_event,
    is_client_event,
)
from .memory import InMemoryChannelLayer

__all__ = ["MAX_MESSAGE_BYTES", "SpanningChannelLayer"]

logger = logging.getLogger("headrace.layers")

#: The bound of a frame, unless a layer is given another: far above what is sensible, and far
#: below what would hurt.
MAX_MESSAGE_BYTES = 32 * 1024 * 1024

# The kinds of frames.
_MESSAGE, _GROUP, _JOIN, _LEAVE, _ANSWER, _FLUSH, _GAP = range(1, 8)

#: Something to do about a group and a channel of this process.
_Change = Callable[[str, str], Coroutine[Any, Any, None]]

_OWNED = re.compile(r".*\.([0-9a-f]{16})![0-9a-f]+", re.DOTALL)


class _Here(InMemoryChannelLayer):
    """What is in this process."""

    def __init__(self, watcher: Callable[[str, bool], None], **options: Any) -> None:
        super().__init__(**options)
        self._hub.watcher = watcher

    @property
    def process(self) -> str:
        return self._prefix

    @property
    def home(self) -> asyncio.AbstractEventLoop | None:
        return self._hub.home

    def has_members(self, group: str) -> bool:
        return group in self._hub.groups

    def note_full(self, channel: str) -> None:
        self._hub.losses.note(f"channel {channel}", {}, [(None, False)], 1)

    def at_home(self, call: Callable[..., object], *args: Any) -> None:
        """Make the call where deliveries are made: at once if that is here, else soon."""
        while (home := self._hub.abroad()) is not None:
            try:
                home.call_soon_threadsafe(self._deliver, call, *args)
            except RuntimeError:  # closed meanwhile: there will be another home, or none
                continue
            return
        self._deliver(call, *args)

    def _deliver(self, call: Callable[..., object], *args: Any) -> None:
        try:
            call(*args)
        except Exception:
            # A sink that breaks its promise must not end whoever reads for all of them.
            logger.exception("an event from another process could not be delivered")

    def take(self, channel: str, event: Event) -> None:
        """Deliver an event from elsewhere to one channel: its sender is not there to be told."""
        hub = self._hub
        while True:
            sink = self._open(channel)
            if hub.deliver(channel, event):
                return
            if hub.channels.get(channel) is sink:
                hub.losses.note(f"channel {channel}", event, [(sink, False)], 1)
                return
            # What was there has just gone: begin again.

    def take_for_group(self, group: str, event: Event) -> None:
        """Deliver an event from elsewhere to the members of a group."""
        if self._looks:
            self._sweep()
        self._hub.publish(group, event)

    def tell_gap(self, reason: str, groups: list[str] | None) -> None:
        self._hub.tell_gap(reason, groups)


class SpanningChannelLayer(BaseChannelLayer):
    """A channel layer of several processes: all of it but the ways between them.

    A subclass implements the methods under "Between processes", and calls ``received``.

    Args:
        expiry: Seconds that a message waits for a reader.
        group_expiry: Seconds after which a channel that is pulled leaves a group, and a named
            channel does. A consumer's membership has no end but the consumer's.
        capacity: Messages that a channel holds.
        channel_capacity: See ``BaseChannelLayer``.
        max_message_bytes: The largest event, as it travels, that may be sent.
    """

    extensions = ("groups", "flush")
    pushes = True

    #: How what travels is written and read; these raise TypeError and ValueError.
    _encode: Callable[[Any], bytes] = staticmethod(encode_event)
    _decode: Callable[[bytes], Any] = staticmethod(decode_event)

    #: How long the owner of a channel may take to answer that it has joined or left a group.
    ANSWER_DEADLINE_S = 5.0
    #: At most one line of the log in so many seconds tells of frames that are none.
    REPORT_INTERVAL_S = 1.0

    def __init__(
        self,
        expiry: float = 60,
        group_expiry: float = 86400,
        capacity: int = 100,
        channel_capacity: Capacities | None = None,
        *,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
    ) -> None:
        super().__init__(expiry=expiry, capacity=capacity, channel_capacity=channel_capacity)
        self.group_expiry = group_expiry
        if (
            not isinstance(max_message_bytes, int)
            or isinstance(max_message_bytes, bool)
            or max_message_bytes < 1
        ):
            raise InvalidChannelLayerError(
                f"max_message_bytes is a number of bytes from 1, not {max_message_bytes!r}"
            )
        self.max_message_bytes = max_message_bytes
        self._begin()
        _spanning.add(self)

    def _begin(self) -> None:
        """Begin as a process of its own, with nothing in it."""
        self._here = _Here(
            self._interest_changed,
            expiry=self.expiry,
            group_expiry=self.group_expiry,
            capacity=self.capacity,
            channel_capacity=self.channel_capacity,
        )
        self._counting = threading.Lock()
        self._counts = dict.fromkeys(("sent", "received", "undecodable", "unreachable", "gaps"), 0)
        self._next_report = 0.0
        self._requests = itertools.count(1)
        self._answers: dict[int, concurrent.futures.Future[str | None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    # What can be seen

    @property
    def process(self) -> str:
        """The id of this process, as it stands in its channels' names."""
        return self._here.process

    @property
    def channels(self) -> dict[str, Sink]:
        """The channels of this process that exist now, by name."""
        return self._here.channels

    @property
    def groups(self) -> dict[str, dict[str, Sink]]:
        """The groups that have members in this process now, by name."""
        return self._here.groups

    @property
    def dropped(self) -> int:
        """How many events found no room here, those aside whose sender was told (ChannelFull)."""
        return self._here.dropped

    @property
    def overflows(self) -> dict[Overflow, int]:
        """The same, by what was done about it."""
        return self._here.overflows

    @property
    def stats(self) -> dict[str, int]:
        """What this process has counted since it began.

        ``sent`` and ``received``: frames to and from other processes and queues; ``undecodable``:
        what came and was no frame; ``unreachable``: frames for processes that are gone; ``gaps``:
        how often something may have been missed; ``dropped``: see there. A subclass has more.
        """
        with self._counting:
            return {**self._counts, "dropped": self.dropped}

    def has_members(self, group: str) -> bool:
        """Tell whether the group has members in this process."""
        return self._here.has_members(group)

    def owner(self, channel: str) -> str | None:
        """Return the process whose channel this is; None for a named channel."""
        found = _OWNED.fullmatch(channel) if "!" in channel else None
        return found[1] if found else None

    # The layer

    async def new_channel(self, prefix: str = "specific") -> str:
        """Return a name that no process has given before."""
        await self._listening()
        return await self._here.new_channel(prefix)

    async def send(self, channel: str, message: Event) -> None:
        """Send to one channel; ChannelFull when it has no room.

        Whether a consumer of another process has room its owner finds out, which counts and
        logs what is lost; ChannelFull, then, says that the way there is full.
        """
        self.require_valid_channel_name(channel)
        owner = self.owner(channel)
        if owner is None:
            await self._enqueue(channel, self._frame(message))
            self._count("sent")
            return
        frame = self._frame(message, _MESSAGE, channel)
        if owner == self.process:
            await self._here.send(channel, message)
        elif await self._post(owner, frame) is False:
            self._note_unreachable(owner, channel)
        else:
            self._count("sent")

    def send_sync(self, channel: str, message: Event) -> None:
        """Do what ``send`` does, on a thread without an event loop."""
        self._require_no_loop("send")
        self.require_valid_channel_name(channel)
        owner = self.owner(channel)
        if owner is None:
            self._enqueue_sync(channel, self._frame(message))
            self._count("sent")
            return
        frame = self._frame(message, _MESSAGE, channel)
        if owner == self.process:
            self._here.send_sync(channel, message)
        elif self._post_sync(owner, frame) is False:
            self._note_unreachable(owner, channel)
        else:
            self._count("sent")

    async def receive(self, channel: str) -> Event:
        """Wait for the channel's next message. A cancelled reader takes none with it.

        Raises ValueError for the channel of another process or of a consumer.
        """
        self.require_valid_channel_name(channel)
        owner = self.owner(channel)
        if owner is not None:
            self._require_own(channel, owner)
            await self._listening()
            return await self._here.receive(channel)
        while True:
            data = await self._fetch(channel)
            event = self._event_in(data)
            if event is not None:
                self._count("received")
                return event

    async def group_add(self, group: str, channel: str) -> None:
        """Put the channel into the group, whichever process has it.

        Raises TimeoutError when the process that has it does not answer.
        """
        self.require_valid_group_name(group)
        self.require_valid_channel_name(channel)
        owner = self.owner(channel)
        if owner is None:
            await self._join_named(group, channel)
        elif owner == self.process:
            await self._here.group_add(group, channel)
            await self._interest_settled(group)
        else:
            await self._ask(owner, _JOIN, group, channel)

    async def group_discard(self, group: str, channel: str) -> None:
        """Take the channel out of the group, whichever process has it.

        Raises TimeoutError when the process that has it does not answer.
        """
        self.require_valid_group_name(group)
        self.require_valid_channel_name(channel)
        owner = self.owner(channel)
        if owner is None:
            await self._leave_named(group, channel)
        elif owner == self.process:
            await self._here.group_discard(group, channel)
        else:
            await self._ask(owner, _LEAVE, group, channel)

    async def group_send(self, group: str, message: Event) -> int | None:
        """Send to every member; what finds no room is counted and logged, and does not raise.

        Returns how many other processes it went to, where that is known.
        """
        self.require_valid_group_name(group)
        frame = self._frame(message, _GROUP, group)
        await self._here.group_send(group, message)
        reached = await self._publish(group, frame)
        self._count("sent", 1 if reached is None else reached)
        return reached

    def group_send_sync(self, group: str, message: Event) -> int | None:
        """Do what ``group_send`` does, on a thread without an event loop."""
        self._require_no_loop("group_send")
        self.require_valid_group_name(group)
        frame = self._frame(message, _GROUP, group)
        self._here.group_send_sync(group, message)
        reached = self._publish_sync(group, frame)
        self._count("sent", 1 if reached is None else reached)
        return reached

    def prepared(self, message: Event) -> Event:
        """Return the message as it will arrive. See ``BaseChannelLayer``."""
        event: Event = self._decode(self._frame(message))
        return event

    async def flush(self) -> None:
        """Forget every group and message; attached consumers stay attached. For tests.

        Other processes take it up when they get to it.
        """
        await self._here.flush()
        await self._clear()
        await self._broadcast(self._encode([_FLUSH]))

    async def close(self) -> None:
        """Let go of what the layer holds. A subclass that overrides it calls it first."""
        for task in list(self._tasks):
            task.cancel()
        for answer in list(self._answers.values()):
            answer.cancel()

    def attach(self, channel: str, sink: Sink) -> None:
        """Push the channel's messages to the sink, beginning with those that waited.

        Raises ValueError for a channel that this process has not given.
        """
        if (owner := self.owner(channel)) is None:
            raise ValueError(f"{channel} is a named channel: receive() from it")
        self._require_own(channel, owner)
        self._here.attach(channel, sink)

    def detach(self, channel: str) -> None:
        """Forget the channel and all its memberships."""
        self._here.detach(channel)

    def settle(self) -> None:
        """Hand over, now, the client-bound events that wait for the end of this turn."""
        self._here.settle()

    # Between processes: what a subclass implements

    async def _listening(self) -> None:
        """Return when frames that are posted to this process from now on will be received.

        Asked for each new channel: let it cost nothing when it is so already.
        """
        raise NotImplementedError

    def _interest_changed(self, group: str, here: bool) -> None:
        """Take note that the group now has members in this process, or none any more.

        Called on any thread, in the order of the changes, with the hub's lock held: it must not
        block, raise, or call the layer.
        """
        raise NotImplementedError

    async def _interest_settled(self, group: str) -> None:
        """Return when what is published to the group from now on, anywhere, comes here.

        The group may have lost its members again meanwhile: then there is nothing to wait for.
        """
        raise NotImplementedError

    async def _publish(self, group: str, frame: bytes) -> int | None:
        """Send the frame, once, to each other process that has members of the group.

        And put the message in it (``message_in(frame)``) into the queue of each named channel
        that is a member; one that is full is counted and logged. Returns how many processes it
        went to, where that is known. What can't be sent at all raises.
        """
        raise NotImplementedError

    def _publish_sync(self, group: str, frame: bytes) -> int | None:
        """Do what ``_publish`` does, without an event loop."""
        raise NotImplementedError

    async def _post(self, process: str, frame: bytes) -> bool | None:
        """Send the frame to one process, never this one; False: there is no such process.

        ChannelFull when the way there has no room.
        """
        raise NotImplementedError

    def _post_sync(self, process: str, frame: bytes) -> bool | None:
        """Do what ``_post`` does, without an event loop."""
        raise NotImplementedError

    async def _broadcast(self, frame: bytes) -> None:
        """Send the frame to every other process."""
        raise NotImplementedError

    async def _enqueue(self, channel: str, data: bytes) -> None:
        """Put the data into the queue of a named channel, for ``expiry`` seconds.

        ChannelFull beyond ``get_capacity(channel)``.
        """
        raise NotImplementedError

    def _enqueue_sync(self, channel: str, data: bytes) -> None:
        """Do what ``_enqueue`` does, without an event loop."""
        raise NotImplementedError

    async def _fetch(self, channel: str) -> bytes:
        """Wait for the oldest data in the queue of a named channel, and take it out.

        Each goes to one reader in one process. A reader that is cancelled takes none with it.
        """
        raise NotImplementedError

    async def _join_named(self, group: str, channel: str) -> None:
        """Make a named channel a member of the group, for ``group_expiry`` seconds."""
        raise NotImplementedError

    async def _leave_named(self, group: str, channel: str) -> None:
        """Take a named channel out of the group, if it is there."""
        raise NotImplementedError

    async def _clear(self) -> None:
        """Forget what waits for named channels, and their memberships."""
        raise NotImplementedError

    # What a subclass calls

    def received(self, frame: bytes) -> None:
        """Take a frame that has come from another process.

        To be called on the thread of a running event loop. Never raises: what is no frame is
        counted and logged.
        """
        try:
            kind, *fields = self._decode(frame)
            take = self.TAKERS[kind]
            take(self, *fields)
        except (ValueError, TypeError, KeyError) as error:
            self.note_undecodable(str(error))
        else:
            self._count("received")

    def message_in(self, frame: bytes) -> bytes:
        """Return what a queue keeps of a frame that was made for a group."""
        return self._encode(self._decode(frame)[2])

    def note_undecodable(self, reason: str) -> None:
        """Count what has come and is no frame, and log it, but not each one."""
        self._count("undecodable")
        if self._may_report():
            logger.warning(
                "the channel layer received what is no message: %.200s (%d so far in this "
                "process); are versions of Headrace, or keys, different?",
                reason,
                self._counts["undecodable"],
            )

    def note_full(self, channel: str) -> None:
        """Count and log that a named channel had no room for a message to a group."""
        self._here.note_full(channel)

    def tell_gap(self, reason: str, groups: Iterable[str] | None = None) -> None:
        """Tell consumers that messages may have been missed: in the groups, or (None) in all.

        To be called on the thread of a running event loop.
        """
        concerned = None if groups is None else sorted(set(groups))
        self._count("gaps")
        logger.warning(
            "messages of %s may have been missed: %s",
            "any channel or group" if concerned is None else f"{len(concerned)} groups",
            reason,
        )
        self._here.at_home(self._here.tell_gap, reason, concerned)

    def gap_frame(self, reason: str, groups: Iterable[str] | None = None) -> bytes:
        """Return the frame that makes another process ``tell_gap``."""
        return self._encode([_GAP, reason, None if groups is None else sorted(groups)])

    def group_of(self, frame: bytes) -> str | None:
        """Return the group for which the frame was made, or None if it is for one process."""
        kind, *fields = self._decode(frame)
        return fields[0] if kind == _GROUP else None

    def _count(self, name: str, number: int = 1) -> None:
        with self._counting:
            self._counts[name] = self._counts.get(name, 0) + number

    def _may_report(self) -> bool:
        """Tell whether a line may be logged now about what could fill the log."""
        now = time.monotonic()
        with self._counting:
            if now < self._next_report:
                return False
            self._next_report = now + self.REPORT_INTERVAL_S
            return True

    # Frames

    def _frame(self, message: object, *head: Any) -> bytes:
        """Return the message as it travels, behind what says where it goes."""
        if not isinstance(message, dict):
            raise TypeError(f"a message is a dict, not {type(message).__name__}")
        if is_client_event(message):
            check_client_event(message)
        frame = self._encode([*head, message] if head else message)
        if len(frame) > self.max_message_bytes:
            raise MessageTooLarge(
                f"a message of {len(frame)} bytes, where max_message_bytes="
                f"{self.max_message_bytes}: send a reference to it, or raise max_message_bytes "
                "in the CONFIG of CHANNEL_LAYERS"
            )
        return frame

    def _event_in(self, data: bytes) -> Event | None:
        """Return the event that a queue has kept, or None for what is none."""
        try:
            event = self._decode(data)
            _require_event(event)
        except (ValueError, TypeError) as error:
            self.note_undecodable(str(error))
            return None
        return event  # type: ignore[no-any-return]

    def _take_message(self, channel: str, event: Event) -> None:
        self._require_mine(channel)
        _require_event(event)
        self._here.at_home(self._here.take, channel, event)

    def _take_group(self, group: str, event: Event) -> None:
        self.require_valid_group_name(group)
        _require_event(event)
        self._here.at_home(self._here.take_for_group, group, event)

    def _take_flush(self) -> None:
        self._here.at_home(self._here.flush_now)

    def _take_gap(self, reason: str, groups: list[str] | None) -> None:
        if not isinstance(reason, str):
            raise TypeError("the reason of a gap is a str")
        for group in groups or ():
            self.require_valid_group_name(group)
        self.tell_gap(reason, groups)

    def _require_mine(self, channel: str) -> None:
        self.require_valid_channel_name(channel)
        if self.owner(channel) != self.process:
            raise ValueError(f"channel {channel} is not of process {self.process}")

    # Questions to the owner of a channel, and its answers

    async def _ask(self, owner: str, kind: int, group: str, channel: str) -> None:
        await self._listening()
        number = next(self._requests)
        answer = self._answers[number] = concurrent.futures.Future()
        try:
            frame = self._encode([kind, group, channel, number, self.process])
            if await self._post(owner, frame) is False:
                self._note_unreachable(owner, channel)
                return
            self._count("sent")
            try:
                async with asyncio.timeout(self.ANSWER_DEADLINE_S):
                    refusal = await asyncio.wrap_future(answer)
            except TimeoutError:
                raise TimeoutError(
                    f"the process that has channel {channel} has not answered within "
                    f"{self.ANSWER_DEADLINE_S:g} s: it is stopped or overloaded"
                ) from None
        finally:
            del self._answers[number]
        if refusal is not None:
            raise RuntimeError(f"the process that has channel {channel} failed: {refusal}")

    def _take_join(self, group: str, channel: str, number: int, asker: str) -> None:
        self._start_answer(self._add_here, group, channel, number, asker)

    def _take_leave(self, group: str, channel: str, number: int, asker: str) -> None:
        self._start_answer(self._here.group_discard, group, channel, number, asker)

    async def _add_here(self, group: str, channel: str) -> None:
        await self._here.group_add(group, channel)
        await self._interest_settled(group)

    def _start_answer(
        self, change: _Change, group: str, channel: str, number: int, asker: str
    ) -> None:
        self.require_valid_group_name(group)
        self._require_mine(channel)
        if not isinstance(number, int) or not isinstance(asker, str):
            raise TypeError("a question has a number and an asker")
        task = asyncio.get_running_loop().create_task(
            self._answer(change, group, channel, number, asker),
            name="headrace channel layer answer",
        )
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(
        self, change: _Change, group: str, channel: str, number: int, asker: str
    ) -> None:
        refusal: str | None = None
        try:
            await change(group, channel)
        except Exception as error:
            refusal = f"{type(error).__name__}: {error}"
        try:
            await self._post(asker, self._encode([_ANSWER, number, refusal]))
        except Exception:
            logger.exception("process %s can't be answered", asker)

    def _take_answer(self, number: int, refusal: str | None) -> None:
        answer = self._answers.get(number)
        # One that comes too late has nobody who waits.
        if answer is not None and not answer.done():
            answer.set_result(refusal)

    #: What is done with each kind of frame. A subclass may add kinds of its own, from 32 on.
    TAKERS: ClassVar[dict[int, Callable[..., None]]] = {
        _MESSAGE: _take_message,
        _GROUP: _take_group,
        _JOIN: _take_join,
        _LEAVE: _take_leave,
        _ANSWER: _take_answer,
        _FLUSH: _take_flush,
        _GAP: _take_gap,
    }

    # Processes that are not there

    def _require_own(self, channel: str, owner: str) -> None:
        if owner != self.process:
            raise ValueError(f"channel {channel} belongs to another process: send to it")

    def _note_unreachable(self, process: str, channel: str) -> None:
        # As with a consumer that is gone: its sender is not to blame, and can do nothing.
        self._count("unreachable")
        logger.debug("channel %s is gone, with its process %s", channel, process)

    def _forked(self) -> None:
        """Begin anew in a forked child. A subclass closes what it has inherited, first."""
        self._begin()


def _require_event(event: object) -> None:
    if not isinstance(event, dict):
        raise TypeError(f"an event is a dict, not {type(event).__name__}")
    if is_client_event(event):
        check_client_event(event)


#: The layers of this process, to tell them when it is another.
_spanning: "weakref.WeakSet[SpanningChannelLayer]" = weakref.WeakSet()


def _after_fork() -> None:
    for layer in list(_spanning):
        layer._forked()  # noqa: SLF001


os.register_at_fork(after_in_child=_after_fork)
