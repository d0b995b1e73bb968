"""The channel layer of all processes of one host, without a server.

Rules of this file:

- Whoever has a frame for another process writes it to that process's socket before the send
  returns; whoever wants to hear of a group has said so in the shared table before
  ``group_add`` returns. There is nothing between them: no broker, no gossip.
- A process that only sends has no slot and listens to nobody.
- The directory, the table, a socket may be gone at any time, with what was in them: then
  all is made anew, and that is a gap.
"""

import asyncio
import atexit
import contextlib
import logging
import os
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar, ParamSpec, TypeVar

from ...codecs import encode_event
from ...exceptions import ChannelFull, InvalidChannelLayerError
from ..base import Capacities, Sink
from ..spanning import MAX_MESSAGE_BYTES, SpanningChannelLayer
from .directory import Directory, default_path
from .holdings import Holdings
from .inlets import Door
from .interest import QUEUE, Interest, bucket_of
from .named import NamedChannels
from .peers import Flusher, Outcome, Peer, wait_for, wait_for_sync
from .queue import Queue

__all__ = ["LocalChannelLayer"]

P = ParamSpec("P")
T = TypeVar("T")

logger = logging.getLogger("headrace.layers")

#: A frame of this layer alone: something waits for a named channel.
_NUDGE = 32

#: How long a process that ends waits for others to read what it has sent.
_FAREWELL_S = 2.0
#: What a frame may be longer than the largest event: one that tells of a gap names the groups.
_HEAD_BYTES = 256 * 1024
#: The prefix for which a directory that is given needs no part of its own.
_PREFIX = "asgi"


class LocalChannelLayer(SpanningChannelLayer):
    """A channel layer for all processes of one project on one host. It needs no server.

    Args:
        expiry: Seconds that a message waits for a reader.
        group_expiry: Seconds after which a channel that is pulled leaves a group, and a named
            channel does. A consumer's membership has no end but the consumer's.
        capacity: Messages that a channel holds.
        channel_capacity: See ``BaseChannelLayer``.
        directory: Where the processes meet: a path, the same for all. It is made if it is not
            there; its parent has to be. By default it follows from the project.
        prefix: Layers with different ones do not hear each other.
        max_message_bytes: The largest event, as it travels, that may be sent.
        buffer_bytes: What may wait in this process for one that reads slowly.
    """

    #: How often it is looked whether the directory is still there.
    LOOK_INTERVAL_S = 5.0

    def __init__(
        self,
        expiry: float = 60,
        group_expiry: float = 86400,
        capacity: int = 100,
        channel_capacity: Capacities | None = None,
        *,
        directory: str | os.PathLike[str] | None = None,
        prefix: str = _PREFIX,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        buffer_bytes: int = 32 * 1024 * 1024,
    ) -> None:
        if directory is not None and (
            not isinstance(directory, str | os.PathLike) or not os.path.isabs(directory)
        ):
            raise InvalidChannelLayerError(
                f"directory is an absolute path, or None, not {directory!r}"
            )
        if not self._is_name(prefix, self.group_name_regex):
            raise InvalidChannelLayerError(
                f"prefix is made of ASCII letters, digits, hyphens, underscores and periods, "
                f"not {prefix!r}"
            )
        if not isinstance(buffer_bytes, int) or isinstance(buffer_bytes, bool) or buffer_bytes < 0:
            raise InvalidChannelLayerError(
                f"buffer_bytes is a number of bytes from 0, not {buffer_bytes!r}"
            )
        self._given_directory = None if directory is None else Path(directory)
        self.prefix = prefix
        self.buffer_bytes = buffer_bytes
        super().__init__(
            expiry=expiry,
            group_expiry=group_expiry,
            capacity=capacity,
            channel_capacity=channel_capacity,
            max_message_bytes=max_message_bytes,
        )
        _open_layers.add(self)

    def _begin(self) -> None:
        self._own = Holdings()
        # For one that nobody closes. Not at the end of the process: see below.
        self._finalizer = weakref.finalize(self, self._own.shut)
        self._finalizer.atexit = False
        self._flusher = Flusher(_weakly(self.gap_frame, b""))
        # What this process wants to hear of: how many names in each bucket.
        self._wanted: Counter[int] = Counter()
        self._named = NamedChannels(self._queue_files, want=self._want, nudge=self._nudge)
        self._next_look = 0.0
        # Stands for the timer of the loop on which frames are read.
        self._look: object = None
        # Whether it has sent anything since it last looked.
        self._has_sent = False
        super()._begin()

    @property
    def directory(self) -> Path:
        """Where the processes meet."""
        given = self._given_directory
        if given is None:
            return default_path(self.prefix)
        return given if self.prefix == _PREFIX else given / f"prefix-{self.prefix}"

    async def close(self) -> None:
        """Let go of everything: sockets, slot, files. What is used again opens again."""
        await super().close()
        await wait_for(list(self._own.peers.values()), at_most_s=_FAREWELL_S)
        if self._own.door is not None:
            await self._own.door.close()
        self._own.shut()

    def attach(self, channel: str, sink: Sink) -> None:
        """Push the channel's messages to the sink, beginning with those that waited.

        Raises ValueError for a channel that this process has not given.
        """
        super().attach(channel, sink)
        self._listen()

    # The table, the directory, the sockets

    def _open(self) -> Interest:
        """Return the table; it is looked now and then whether it is still the one."""
        table = self._own.table
        if table is not None and time.monotonic() < self._next_look and not table.abandoned:
            return table
        with self._own.lock:
            self._next_look = time.monotonic() + self.LOOK_INTERVAL_S
            if self._own.table is not None:
                if self._intact():
                    self._has_sent = False
                else:
                    self._reopen(self._own.table)
            if self._own.table is None:
                path = self.directory
                with_parent = path != self._given_directory
                self._own.directory = Directory(path, with_parent=with_parent)
                try:
                    self._own.table = Interest(self._own.directory)
                except BaseException:
                    self._own.directory.close()
                    self._own.directory = None
                    raise
            if self._own.peers:
                living = set(self._own.table.processes())
                for process in [process for process in self._own.peers if process not in living]:
                    self._own.peers.pop(process).close()
            return self._own.table

    def _intact(self) -> bool:
        assert self._own.directory is not None
        assert self._own.table is not None
        if self._own.table.abandoned:
            return False
        files = [("table", self._own.table.inode)]
        if self._own.door is not None:
            files.append((self._own.door.name, self._own.door.inode))
        return self._own.directory.intact(*files)

    def _reopen(self, old: Interest) -> None:
        """Begin again where the directory, or what we need in it, was removed.

        What has connected to us stays connected: nothing that is under way is lost. But since
        then this process has not been seen by those who began after that, nor seen them.
        """
        reason = f"directory {self.directory} was removed, or files in it"
        logger.warning("%s: it is made anew", reason)
        has_sent, self._has_sent = self._has_sent, False
        self._own.close_files()
        table = self._open()
        if table.inode != old.inode:
            # Whoever has it still sees it at once, and need not wait until it looks.
            old.abandon()
        if self._own.door is not None:
            self._appear(table, self._own.door)
            if (seat := self._own.door.seat) is not None:
                with contextlib.suppress(RuntimeError):
                    seat.call_soon_threadsafe(self.tell_gap, reason)
        if has_sent:
            gap = self.gap_frame(reason)
            for process in table.processes():
                if process != self.process:
                    self._send_to(process, gap)
        self._named.wake()

    def _listen(self) -> None:
        """See to it that this process is reached: on a loop that is running, best on the hub's."""
        here = asyncio.get_running_loop()
        door = self._own.door
        if door is not None and self._own.slot is not None and time.monotonic() < self._next_look:
            seat = door.seat
            if seat is here or (seat is not None and self._here.home is not here):
                return
        with self._own.lock:
            table = self._open()
            if self._own.door is None:
                self._own.door = self._new_door()
            if self._own.slot is None:
                self._appear(table, self._own.door)
            seat = self._own.door.seat
            if seat is None or (seat is not here and self._here.home is here):
                self._own.door.sit(here)
                self._look = object()
                self._look_later()

    def _new_door(self) -> Door:
        return Door(
            self.process,
            longest_bytes=self.max_message_bytes + _HEAD_BYTES,
            take=_weakly(self.received, None),
            gap=_weakly(self.tell_gap, None),
            refuse=_weakly(self.note_undecodable, None),
        )

    def _appear(self, table: Interest, door: Door) -> None:
        """Listen, take a slot, say what is wanted: from now on others see this process."""
        assert self._own.directory is not None
        door.open(self._own.directory)
        self._own.slot = table.take_slot(self.process)
        for bucket in self._wanted:
            self._own.slot.set(bucket, wanted=True)
        self._own.slot.show()

    def _look_later(self) -> None:
        """Look now and then whether all is there still, for a process that only listens."""
        look = _weakly(self._look_now, None)
        asyncio.get_running_loop().call_later(self.LOOK_INTERVAL_S, look, self._look)

    def _look_now(self, look: object) -> None:
        if look is not self._look or self._own.door is None:
            return  # the timer of a loop that was left
        self._look_later()
        self._next_look = 0.0
        try:
            self._listen()
        except (OSError, InvalidChannelLayerError):
            logger.exception("directory %s can't be used: it will be tried again", self.directory)

    def _forked(self) -> None:
        self._finalizer.detach()
        self._own.abandon()
        super()._forked()

    # Interest

    def _want(self, name: str, wanted: bool) -> None:
        bucket = bucket_of(name)
        with self._own.lock:
            if wanted:
                self._wanted[bucket] += 1
                if self._wanted[bucket] > 1:
                    return
            else:
                self._wanted[bucket] -= 1
                if self._wanted[bucket]:
                    return
                del self._wanted[bucket]
            if self._own.slot is not None:
                self._own.slot.set(bucket, wanted=wanted)

    def _interest_changed(self, group: str, here: bool) -> None:
        self._want(group, here)

    async def _interest_settled(self, group: str) -> None:
        del group  # whoever looks at the table sees it
        self._listen()

    async def _listening(self) -> None:
        self._listen()

    # To other processes

    def _peer(self, process: str) -> Peer:
        peer = self._own.peers.get(process)
        if peer is None:
            with self._own.lock:
                self._open()
                assert self._own.directory is not None
                peer = Peer(
                    process, self.process, self._own.directory, self._flusher, self.buffer_bytes
                )
                peer = self._own.peers.setdefault(process, peer)
        return peer

    def _send_to(
        self, process: str, frame: bytes, group: str | None = None, *, at_last: bool = False
    ) -> tuple[Outcome, Peer]:
        """Write a frame to another process, and find out if that is gone."""
        peer = self._peer(process)
        outcome = peer.send(frame, group, at_last=at_last)
        if outcome is Outcome.GONE:
            self._hang_up(process)
        return outcome, peer

    def _hang_up(self, process: str) -> None:
        with self._own.lock:
            peer = self._own.peers.pop(process, None)
        if peer is not None:
            peer.close()
        if not self._open().bury(process) and self._may_report():
            logger.warning(
                "process %s can't be reached, and is not dead: it may have stopped, or run "
                "another version of Headrace",
                process,
            )

    def _spread(self, group: str, frame: bytes) -> tuple[int, bool, list[Peer]]:
        """Write a frame for a group.

        Returns to how many processes, whether named channels may be members, and the processes
        that read slowly.
        """
        table = self._open()
        self._has_sent = True
        slots = table.slots_of(bucket_of(group))
        if not slots:
            return 0, False, []
        own, reached, slow = self.process, 0, []
        for slot in slots:
            process = table.process_in(slot)
            if slot == QUEUE or process is None or process == own:
                continue
            outcome, peer = self._send_to(process, frame, group)
            if outcome is Outcome.REFUSED:
                self._note_refused(process)
            elif outcome is not Outcome.GONE:
                reached += 1
                if outcome is Outcome.KEPT:
                    slow.append(peer)
        return reached, slots[0] == QUEUE, slow

    def _note_refused(self, process: str) -> None:
        self._count("refused")
        if self._may_report():
            logger.warning(
                "process %s does not read, or too slowly: a message for its members of a group "
                "is lost (%d so far from this process), which it will be told",
                process,
                self._counts["refused"],
            )

    async def _publish(self, group: str, frame: bytes) -> int:
        reached, named, slow = self._spread(group, frame)
        if slow:
            await wait_for(slow)
        if named:
            for channel in await self._named.patiently(self._named.members, group):
                with self._full_is_noted(channel):
                    await self._enqueue(channel, self.message_in(frame))
        return reached

    def _publish_sync(self, group: str, frame: bytes) -> int:
        reached, named, slow = self._spread(group, frame)
        if slow:
            wait_for_sync(slow)
        if named:
            for channel in self._named.patiently_sync(self._named.members, group):
                with self._full_is_noted(channel):
                    self._enqueue_sync(channel, self.message_in(frame))
        return reached

    @contextlib.contextmanager
    def _full_is_noted(self, channel: str) -> Iterator[None]:
        try:
            yield
        except ChannelFull:
            self.note_full(channel)

    def _post_now(self, process: str, frame: bytes) -> tuple[bool, list[Peer]]:
        outcome, peer = self._send_to(process, frame)
        if outcome is Outcome.REFUSED:
            raise ChannelFull(
                f"process {process} does not read, or too slowly: {self.buffer_bytes} bytes wait "
                "for it; send less, or raise buffer_bytes in the CONFIG of CHANNEL_LAYERS"
            )
        return outcome is not Outcome.GONE, [peer] if outcome is Outcome.KEPT else []

    async def _post(self, process: str, frame: bytes) -> bool:
        there, slow = self._post_now(process, frame)
        if slow:
            await wait_for(slow)
        return there

    def _post_sync(self, process: str, frame: bytes) -> bool:
        there, slow = self._post_now(process, frame)
        if slow:
            wait_for_sync(slow)
        return there

    async def _broadcast(self, frame: bytes) -> None:
        for process in self._open().processes():
            if process != self.process:
                self._send_to(process, frame)

    def shut_sync(self) -> None:
        """Do what ``close`` does, where no event loop is left: at the end of the process."""
        wait_for_sync(list(self._own.peers.values()), at_most_s=_FAREWELL_S)
        self._own.shut()

    # Named channels

    def _queue_files(self) -> tuple[Queue, Interest]:
        with self._own.lock:
            table = self._open()
            if self._own.queue is None:
                assert self._own.directory is not None
                queue = Queue(self._own.directory / "queue")
                for bucket in queue.buckets():
                    table.set(QUEUE, bucket, wanted=True)
                self._own.queue = queue
            return self._own.queue, table

    def _nudge(self, channel: str) -> None:
        table = self._open()
        frame = encode_event([_NUDGE, channel])
        for slot in table.slots_of(self._named.bucket_of(channel)):
            process = table.process_in(slot)
            if process is not None and process != self.process:
                self._send_to(process, frame, at_last=True)

    def _take_nudge(self, channel: str) -> None:
        self.require_valid_channel_name(channel)
        self._named.wake(channel)

    TAKERS: ClassVar = {**SpanningChannelLayer.TAKERS, _NUDGE: _take_nudge}

    def _put(self, channel: str, data: bytes) -> None:
        capacity = self.get_capacity(channel)
        if not self._named.put(channel, data, capacity=capacity, expiry_s=self.expiry):
            raise self._full(channel)

    async def _enqueue(self, channel: str, data: bytes) -> None:
        await self._named.patiently(self._put, channel, data)

    def _enqueue_sync(self, channel: str, data: bytes) -> None:
        self._named.patiently_sync(self._put, channel, data)

    async def _fetch(self, channel: str) -> bytes:
        self._listen()
        return await self._named.get(channel)

    async def _join_named(self, group: str, channel: str) -> None:
        named = self._named
        await named.patiently(named.join, group, channel, expiry_s=self.group_expiry)

    async def _leave_named(self, group: str, channel: str) -> None:
        await self._named.patiently(self._named.leave, group, channel)

    async def _clear(self) -> None:
        await self._named.patiently(self._named.clear)


def _weakly(method: Callable[P, T], otherwise: T) -> Callable[P, T]:
    """Return a call of the layer's method that does not keep the layer: one nobody has may go."""
    weak_method = weakref.WeakMethod(method)

    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        method = weak_method()
        return otherwise if method is None else method(*args, **kwargs)

    return call


_open_layers: "weakref.WeakSet[LocalChannelLayer]" = weakref.WeakSet()


@atexit.register
def _leave() -> None:
    """Let a process that ends send what it has to, and take its files with it."""
    for layer in list(_open_layers):
        with contextlib.suppress(Exception):
            layer.shut_sync()
