"""A document as one process has it: once, however many connections show it.

No process owns a document. Each that shows it has a replica, and that is enough, for updates of
Yjs commute: replicas that have the same updates say the same, in whatever order they got
them. What makes the replicas one document is the table of updates. An update is

1. applied to the replica, so that nothing is kept which can't be read again. One that builds on
   what is not here is not taken; its page is asked for all that is missing;
2. kept, under the next number of the document, by one task of the replica: what comes while it
   writes, and within ``DOCUMENTS_BATCH_S`` of the batch before, is the next batch, and where that
   is long, who sends more waits. Whoever writes alone, and slowly, waits for nothing;
3. told to the document's group, with its number. The pages get it by the fast lane, as the bytes
   they speak; the replicas by :class:`Ears`, a consumer without a client, once for each process.

A replica that finds a number missing reads it from the table, and tells it to the group: so what
was kept by a process that died before it could tell it is told all the same. It looks, too,
whenever a page comes, and when the channel layer has missed something (``layer.gap``).

If the table can't be written, the replica is given up, and its pages are closed with a code after
which they come back, with all that they have.
"""

import asyncio
import contextlib
import logging
import time
from contextvars import Context
from dataclasses import dataclass, field

from django.conf import settings
from django.db import DatabaseError
from pycrdt import Doc, create_update_message

from documents import wire
from documents.groups import document_group, replicas_group
from documents.models import Document, Update, is_incomplete
from documents.presence import Presence
from headrace.consumer import AsyncConsumer, Overflow
from headrace.db import database_sync_to_async
from headrace.exceptions import (
    ChannelFull,
    ChannelLayerUnavailable,
    CloseCode,
    MessageTooLarge,
    StopConsumer,
)
from headrace.layers import get_channel_layer

__all__ = ["FAILURES", "Full", "GivenUp", "Incomplete", "Replica", "replicas"]

logger = logging.getLogger(__name__)

# What passes: a page comes back, and finds it passed.
LAYER_FAILURES = (ChannelFull, ChannelLayerUnavailable, MessageTooLarge)
FAILURES = (DatabaseError, *LAYER_FAILURES)

# How long a number may be missing: it is on its way, as a rule.
GRACE_S = 0.5

# Updates and cursors that may wait for the table.
WAITING = 200


class Full(Exception):
    """The document is as long as it may be."""


class GivenUp(Exception):
    """This replica is over, and its pages are closed."""


class Incomplete(Exception):
    """An update builds on others, which are not here."""


@dataclass(slots=True)
class News:
    """What everyone is to be told."""

    message: bytes
    #: What is in it, and kept before it is told.
    update: bytes | None = None
    #: Whose cursor it is instead: of two that wait the later will do.
    client: int | None = None
    details: dict = field(default_factory=dict)


class Numbers:
    """Which updates are known: all up to ``whole``, and some after it."""

    def __init__(self) -> None:
        self.whole = 0
        self._beyond: set[int] = set()

    def __contains__(self, number: int) -> bool:
        return number <= self.whole or number in self._beyond

    def add(self, number: int) -> None:
        if number > self.whole:
            self._beyond.add(number)
        self._close_ranks()

    def reach(self, number: int) -> None:
        """Take everything up to a number for known."""
        self.whole = max(self.whole, number)
        self._beyond = {each for each in self._beyond if each > self.whole}
        self._close_ranks()

    @property
    def are_missing(self) -> bool:
        return bool(self._beyond)

    def _close_ranks(self) -> None:
        while self.whole + 1 in self._beyond:
            self.whole += 1
            self._beyond.remove(self.whole)


class Ears(AsyncConsumer):
    """What a process hears of a document."""

    # What is dropped shows in the numbers.
    overflow = Overflow.DROP_OLDEST
    capacity = 1000
    replica: "Replica"

    async def replica_open(self, event):
        for group in (document_group, replicas_group):
            await self.channel_layer.group_add(group(self.replica.number), self.channel_name)
        self.replica.listening.set_result(self.channel_name)

    async def replica_close(self, event):
        raise StopConsumer

    async def websocket_send(self, event):
        """Hear what the pages are told. Without this handler it would go to the client."""
        await self.replica.hear(event)

    async def websocket_close(self, event):
        """Pass over that the pages are closed: the document is gone, and they leave."""

    async def document_access(self, event):
        """Pass over what concerns the pages."""

    async def replica_welcome(self, event):
        """Tell a page who is there, with all that was heard before the page heard of everything."""
        message = self.replica.who_is_here()
        with contextlib.suppress(*LAYER_FAILURES):  # the page is told again every 15 s
            await self.channel_layer.send(
                event["channel"], {"type": "websocket.send", "bytes": message}
            )

    async def replica_call(self, event):
        """Tell a new replica who is here. To all: who knows it already passes over it."""
        await self.replica.tell_who_is_here()

    async def layer_gap(self, event):
        await self.replica.refresh()

    async def on_error(self, error, message):
        """Go on: what was missed is found out later."""
        if not self.replica.listening.done():
            self.replica.listening.set_exception(error)
        logger.error("a document has failed at %s", message["type"], exc_info=error)


class Replica:
    """One document in this process."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.presence = Presence()
        #: The channel of its ears.
        self.listening: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        #: The channels of the connections that show it here.
        self.channels: set[str] = set()
        self.is_over = False
        self._layer = get_channel_layer()
        self._is_read = False
        self._has_changed = False
        self._use(Doc(allow_multithreading=True))  # the collector may run in another thread
        self._numbers = Numbers()
        self._snapshot_number = 0
        # Bytes: what is kept, as the table says, and what waits for it.
        self._size = self._unkept = 0
        self._waiting: list[News] = []
        self._has_room = asyncio.Event()
        self._writer: asyncio.Task | None = None
        #: When the next batch may be kept, on the loop's clock.
        self._next_at = 0.0
        self._look: asyncio.Task | None = None
        self._refreshing = asyncio.Lock()
        self._events: asyncio.Queue[dict] = asyncio.Queue()
        self._ears: asyncio.Task | None = None

    # From the first page to the last

    async def open(self) -> None:
        """Listen, and read. Raises what is in FAILURES, and Document.DoesNotExist."""
        app = Ears.as_asgi(replica=self)
        self._events.put_nowait({"type": "replica.open"})
        self._ears = asyncio.create_task(app({"type": "document"}, self._events.get, _nobody))
        await self.listening
        await self.refresh()
        await self._layer.group_send(replicas_group(self.number), {"type": "replica.call"})

    async def close(self) -> None:
        if self._look is not None:
            self._look.cancel()
        if self._writer is not None:
            await asyncio.wait([self._writer])
        if self._ears is not None:
            self._events.put_nowait({"type": "replica.close"})
            await asyncio.wait([self._ears])

    async def give_up(self, why: str) -> None:
        """Close every page with a code after which it comes back, to a replica that is new."""
        if self.is_over:
            return
        self.is_over = True
        replicas.forget(self)
        event = {"type": "websocket.close", "code": CloseCode.TRY_AGAIN_LATER, "reason": why}
        for channel in self.channels:
            with contextlib.suppress(*LAYER_FAILURES):
                await self._layer.send(channel, event)

    # Reading

    def state(self) -> bytes:
        """Return which updates are here, as a state vector."""
        return self._doc.get_state()

    def lacking(self, state: bytes) -> bytes:
        """Return what one who has this state lacks. Raises Malformed."""
        try:
            return self._doc.get_update(state)
        except ValueError as error:
            raise wire.Malformed(str(error)) from None

    async def refresh(self) -> None:
        """Read what was kept and not heard, and tell it to everyone: others may lack it, too."""
        async with self._refreshing:
            is_first, self._is_read = not self._is_read, True
            known, before = self._numbers.whole, self._doc.get_state()
            updates, whole, self._snapshot_number, self._size = await database_sync_to_async(
                Update.objects.since
            )(self.number, known)
            heard = all(number in self._numbers for number in range(known + 1, whole + 1))
            for update in filter(None, updates):
                self._doc.apply_update(update)
            self._numbers.reach(whole)
            if heard or is_first:
                return
        await self._tell(create_update_message(self._doc.get_update(before)))

    async def _read_anew(self) -> None:
        """Make the document again of what is kept: it has taken in what it should not have."""
        async with self._refreshing:
            updates, whole, *_ = await database_sync_to_async(Update.objects.since)(self.number, 0)
            doc = Doc(allow_multithreading=True)
            for update in filter(None, updates):
                doc.apply_update(update)
            self._use(doc)
            self._numbers.reach(whole)

    def _use(self, doc: Doc) -> None:
        self._doc = doc
        doc.observe(self._note_change)

    def _note_change(self, event) -> None:
        self._has_changed = True

    async def hear(self, event: dict) -> None:
        """Take in what was told to the pages, here or elsewhere."""
        kind, data = wire.read(event["bytes"])
        if kind is wire.Kind.AWARENESS:
            for client, clock, state in wire.read_awareness(data):
                self.presence.note(
                    client,
                    clock,
                    state,
                    user=event["user"],
                    channel=event["channel"],
                    now=time.monotonic(),
                )
            return
        number = event.get("number")
        if number is None or number not in self._numbers:
            self._doc.apply_update(data)
            self._size += len(data)
        if number is not None:
            self._numbers.add(number)
            if self._numbers.are_missing and self._look is None:
                self._look = asyncio.create_task(self._look_for_what_is_missing())

    async def _look_for_what_is_missing(self) -> None:
        try:
            await asyncio.sleep(GRACE_S)
            if self._numbers.are_missing:
                await self.refresh()
        except FAILURES:
            logger.warning("updates of document %s can't be read", self.number, exc_info=True)
        except Document.DoesNotExist:
            pass  # its pages are told
        finally:
            self._look = None

    # Writing

    async def store(self, update: bytes) -> None:
        """Take an update of a page, to keep and to tell it.

        If it can't be kept, the replica is given up. Raises Malformed, Incomplete, Full,
        GivenUp, and DatabaseError.
        """
        is_deletion = update[:1] == b"\0"  # which makes a document shorter, in the end
        if not (is_deletion or self._has_place_for(update)):
            if self._writer is not None:
                await asyncio.wait([self._writer])  # with what was deleted just now
            await self._compact(beyond=0)
            if not self._has_place_for(update):
                raise Full
        if self.is_over:
            raise GivenUp
        self._has_changed = False
        try:
            self._doc.apply_update(update)
        except ValueError as error:  # it can't be decoded, and has changed nothing
            raise wire.Malformed(str(error)) from None
        except BaseException as error:
            # A panic in Rust is no Exception, and its class has no name that could be imported.
            if not isinstance(error, RuntimeError) and type(error).__name__ != "PanicException":
                raise
            await self._read_anew()
            raise wire.Malformed(str(error)) from None
        has_changed = self._has_changed
        if is_incomplete(update, self._doc.get_state()):
            await self._read_anew()
            raise Incomplete
        if not has_changed:
            return  # a page that comes back tells all that it has deleted, every time
        self._unkept += len(update)
        self._wait(News(create_update_message(update), update))
        while len(self._waiting) >= WAITING:
            self._has_room.clear()
            await self._has_room.wait()

    def _has_place_for(self, update: bytes) -> bool:
        return self._size + self._unkept + len(update) <= settings.DOCUMENTS_BYTES

    def _wait(self, news: News) -> None:
        self._waiting.append(news)
        if self._writer is None:
            # In a context of its own: it may outlive the connection that began it.
            self._writer = asyncio.create_task(self._write(), context=Context())

    async def _write(self) -> None:
        """Keep what waits, and tell it, until nothing waits."""
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                if (pause_s := self._next_at - loop.time()) > 0:
                    await asyncio.sleep(pause_s)
                self._next_at = loop.time() + settings.DOCUMENTS_BATCH_S
                batch, self._waiting = self._waiting, []
                self._has_room.set()
                await self._keep(batch)
        except Exception as error:
            # What is applied here is kept nowhere: this replica says more than there is.
            if not isinstance(error, Document.DoesNotExist):
                logger.exception("document %s can't be written", self.number)
            self._waiting = []
            self._has_room.set()
            await self.give_up("The document can't be written just now.")
        finally:
            self._writer = None

    async def _keep(self, batch: list[News]) -> None:
        updates = [news.update for news in batch if news.update is not None]
        last = 0
        if updates:
            append = database_sync_to_async(Update.objects.append)
            last, self._size = await append(self.number, updates)
            self._unkept -= sum(map(len, updates))
        number = last - len(updates)
        latest = {news.client: news for news in batch}
        for news in batch:
            if news.update is not None:
                number += 1
                self._numbers.add(number)
                self._doc.apply_update(news.update)  # again, in case it was read anew meanwhile
                await self._tell(news.message, number=number)
            elif latest[news.client] is news:
                await self._tell(news.message, **news.details)
        if last - self._snapshot_number >= settings.DOCUMENTS_COMPACT_AFTER:
            try:
                await self._compact(beyond=settings.DOCUMENTS_COMPACT_AFTER - 1)
            except DatabaseError:  # nothing hangs on it: the next update tries again
                logger.warning("document %s can't be folded", self.number, exc_info=True)

    async def _compact(self, *, beyond: int) -> None:
        done = await database_sync_to_async(Update.objects.compact)(self.number, beyond=beyond)
        if done is not None:
            self._snapshot_number, self._size = done

    async def _tell(self, message: bytes, **details) -> None:
        """Tell every page and every replica."""
        event = {"type": "websocket.send", "bytes": message, **details}
        try:
            await self._layer.group_send(document_group(self.number), event)
        except LAYER_FAILURES:
            # It is kept: others find its number missing, or hear of the gap.
            logger.warning("an update of document %s is told late", self.number, exc_info=True)

    # Who is there

    async def tell_of(self, client: int, clock: int, state: dict | None, *, user, channel) -> None:
        """Tell everyone what a connection says of itself."""
        self.presence.note(client, clock, state, user=user, channel=channel, now=time.monotonic())
        message = wire.awareness([(client, clock, state)])
        details = {"user": user, "channel": channel}
        if self._writer is None or self.is_over:
            await self._tell(message, **details)
        else:  # behind what it wrote: a cursor stands where there is text
            self._wait(News(message, client=client, details=details))

    async def welcome(self, channel: str) -> None:
        """Tell a page who is there: by the ears, behind what they have not taken in yet."""
        self._layer.settle()  # what the group is sent in this turn is on its way: it goes first
        event = {"type": "replica.welcome", "channel": channel}
        await self._layer.send(self.listening.result(), event)

    def who_is_here(self) -> bytes:
        """Return the message that tells a page who is there."""
        here = self.presence.here(time.monotonic())
        return wire.awareness([(client, known.clock, known.state) for client, known in here])

    async def tell_who_is_here(self) -> None:
        for client, known in self.presence.here(time.monotonic(), self.channels):
            await self._tell(
                wire.awareness([(client, known.clock, known.state)]),
                user=known.user,
                channel=known.channel,
            )


class Replicas:
    """The documents that this process shows."""

    def __init__(self) -> None:
        self._open: dict[int, Replica] = {}
        self._opening: dict[Replica, asyncio.Task] = {}

    def __len__(self) -> int:
        return len(self._open)

    async def enter(self, number: int, channel: str) -> Replica:
        """Return the replica of a document, for a connection that shows it from here on."""
        replica = self._open.get(number)
        if replica is None:
            replica = self._open[number] = Replica(number)
            self._opening[replica] = asyncio.create_task(replica.open(), context=Context())
        replica.channels.add(channel)
        try:
            await asyncio.shield(self._opening[replica])
        except BaseException:
            opening = self._opening.get(replica)
            if opening is not None and opening.done():
                self.forget(replica)
            await self.leave(replica, channel)
            raise
        return replica

    async def leave(self, replica: Replica, channel: str) -> None:
        """Let a connection go, and after the last one the replica."""
        replica.channels.discard(channel)
        if not replica.channels and replica in self._opening:
            opening = self._opening.pop(replica)
            self.forget(replica)
            await asyncio.wait([opening])
            await replica.close()

    def forget(self, replica: Replica) -> None:
        """Have those who come from here on make a new one."""
        if self._open.get(replica.number) is replica:
            del self._open[replica.number]


async def _nobody(message):
    """Take what a consumer sends to its client: there is none."""


replicas = Replicas()
