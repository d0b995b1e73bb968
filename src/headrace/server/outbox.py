"""The only writer of a connection.

Rules of this file:

- What is pushed in one turn of the loop leaves in one write at its end.
- Bytes leave in this order: control frames and heads (``write``), messages (``push``), the
  end (``finish``). A control frame may overtake messages, never the other way round.
- The bytes that wait here are bounded. A message past the bound meets the policy for slow
  clients; only whole messages are ever dropped, and each is counted.
- What the transport holds beside that is one write and its high-water mark at most.
"""

import asyncio
import fcntl
import struct
import termios
from enum import StrEnum
from typing import Protocol

from .inbox import breathe
from .turn import Turn

__all__ = ["HIGH_WATER_BYTES", "Outbox", "Owner", "SlowClientPolicy", "unwritten_bytes"]

#: A sender that can wait lets the socket catch up beyond this.
HIGH_WATER_BYTES = 64 * 1024


class SlowClientPolicy(StrEnum):
    """What happens to messages that a client does not read fast enough."""

    #: Close the connection with 1013 and a reason: the client may come again.
    CLOSE = "close"
    #: Drop the oldest messages that wait, as many as the bound asks.
    DROP_OLDEST = "drop-oldest"
    #: While the socket takes no more, keep the newest message only.
    LATEST_ONLY = "latest-only"


class Owner(Protocol):
    """The connection that the outbox writes for."""

    def overflowed(self) -> None:
        """React to ``SlowClientPolicy.CLOSE``; the messages that waited are gone."""
        ...

    def dropped(self, messages: int) -> None:
        """Count messages that were dropped."""
        ...


class _Nobody:
    """The owner of what will never be written."""

    def overflowed(self) -> None:
        """Do nothing."""

    def dropped(self, messages: int) -> None:
        """Do nothing."""


_NOBODY = _Nobody()


def unwritten_bytes(transport: asyncio.Transport) -> int:
    """Return how many bytes still wait for the client, at the end of a connection.

    A transport of TLS does not count what it has encrypted. As long as there is some of that, the
    system has its own part of it full: that is counted instead.
    """
    waiting = transport.get_write_buffer_size()
    if transport.get_extra_info("sslcontext") is None:
        return waiting
    sock = transport.get_extra_info("socket")
    if sock is None or sock.fileno() < 0:
        return waiting
    try:
        queued = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4))
    except OSError:  # a Unix socket of some systems
        return waiting
    return waiting + int(struct.unpack("i", queued)[0])


class Outbox:
    """The bytes on their way to one socket.

    Args:
        transport: Where they go.
        turn: Notes that there is something to write.
        limit_bytes: Bytes that may wait here.
        policy: What happens to messages past that.
    """

    __slots__ = (
        "_control",
        "_end",
        "_messages",
        "_noted",
        "_plain",
        "_room_bytes",
        "_waiters",
        "limit_bytes",
        "owner",
        "paused",
        "policy",
        "sent_bytes",
        "transport",
        "turn",
        "waiting_bytes",
    )

    def __init__(
        self,
        transport: asyncio.WriteTransport,
        turn: Turn,
        owner: Owner,
        *,
        limit_bytes: int,
        policy: SlowClientPolicy = SlowClientPolicy.CLOSE,
    ) -> None:
        self.transport = transport
        self.turn = turn
        self.owner = owner
        self.limit_bytes = limit_bytes
        self.policy = policy
        self._control = b""
        self._messages: list[bytes] = []
        self._end: bytes | None = None
        self._noted = False
        #: Whether messages alone wait, for a socket that takes them.
        self._plain = True
        #: What may wait before the policy is asked: nothing while the socket takes no more.
        self._room_bytes = limit_bytes
        self._waiters: list[asyncio.Future[None]] | None = None
        #: Whether the socket takes no more for now.
        self.paused = False
        #: Bytes of the messages that wait here.
        self.waiting_bytes = 0
        #: Bytes that were handed to the transport.
        self.sent_bytes = 0

    def push(self, message: bytes) -> None:
        """Send a whole message; the policy decides when too much waits. Never raises or blocks."""
        self._messages.append(message)
        waiting = self.waiting_bytes = self.waiting_bytes + len(message)
        if not self._noted:
            self._noted = True
            self.turn.write(self)
        if waiting > self._room_bytes:
            self._bound()

    def push_burst(self, burst: tuple[bytes, list[bytes]], at_once: bool, /) -> None:
        """Send whole messages, given in one piece and each by itself, as ``push`` does.

        ``at_once``: the turn is at its end, so write them now unless something waits already.
        """
        joined, messages = burst
        if self._plain and at_once and not self._messages:
            self._write(joined, len(messages))
        elif self.paused:
            for message in messages:
                self.push(message)
        else:
            # Each by itself, for each may be dropped and is counted then.
            self._messages += messages
            self.waiting_bytes += len(joined)
            self._note()
            if self.waiting_bytes > self._room_bytes:
                self._bound()

    def write(self, data: bytes) -> None:
        """Send what must not be dropped, before the messages that wait."""
        if data:
            self._control += data
            self._plain = False
            self._note()

    def finish(self, data: bytes = b"", *, at_once: bool = False) -> None:
        """Send this behind all that waits; whatever comes later is ignored.

        ``at_once``: now, not at the end of the turn.
        """
        first = self._end is None
        if first:
            self._end = data
            self._plain = False
        if at_once:
            self.flush()
        elif first:
            self._note()
        if first:
            self.release()

    @property
    def finished(self) -> bool:
        """Whether the end was sent, or waits for its turn."""
        return self._end is not None

    @property
    def empty(self) -> bool:
        """Whether nothing waits here."""
        return not (self._messages or self._control or self._end)

    @property
    def offered_bytes(self) -> int:
        """Bytes that were handed to the transport, and those that wait here for it."""
        return self.sent_bytes + self.waiting_bytes + len(self._control) + len(self._end or b"")

    @property
    def full(self) -> bool:
        """Whether a sender that can wait should."""
        return self.paused or self.waiting_bytes + len(self._control) > HIGH_WATER_BYTES

    def flush(self) -> None:
        """Hand all that waits to the socket, in one write."""
        self._noted = False
        messages = self._messages
        count = len(messages)
        if self._plain:
            # The straight way: messages, and nothing before or behind them.
            if count == 1:
                data = messages.pop()
            elif count:
                data = b"".join(messages)
                messages.clear()
            else:
                return
        elif self.paused:
            return
        else:
            if not messages and not self._end:
                data = self._control  # a response, perhaps a long one: not to be copied
            else:
                data = b"".join((self._control, *messages, self._end or b""))
                messages.clear()
            self._control = b""
            self._end = b"" if self._end is not None else None
            self._plain = True
            if not data:
                return
        self.waiting_bytes = 0
        self._write(data, count)

    def _write(self, data: bytes, messages: int) -> None:
        size = len(data)
        self.sent_bytes += size
        counters = self.turn.counters
        counters.messages_sent += messages
        counters.bytes_sent += size
        try:
            self.transport.write(data)
        except RuntimeError:
            # uvloop's word for a transport that was closed since; the owner hears of it.
            if not self.transport.is_closing():
                raise

    async def drained(self) -> None:
        """Wait until the socket takes more, if it does not; or until the end is on its way."""
        while self.full and not self.paused:
            # It is written when it is its turn; others want the loop, too.
            await breathe(self.turn)
        while self.paused and self._end is None and not self.transport.is_closing():
            waiter = asyncio.get_running_loop().create_future()
            if self._waiters is None:
                self._waiters = []
            self._waiters.append(waiter)
            await waiter
        if self.paused and self._end is None:
            # It is closing, which senders hear of in a turn to come: one that goes on without a
            # pause would take this turn for itself, and it would never end.
            await breathe(self.turn)

    def pause(self) -> None:
        """Learn that the socket takes no more."""
        self.paused = True
        self._plain = False
        self._room_bytes = 0

    def resume(self) -> None:
        """Learn that the socket takes more again."""
        self.paused = False
        self._room_bytes = self.limit_bytes
        self.flush()
        if not self.paused:
            self.release()

    def lost(self) -> None:
        """Learn that the transport is gone: forget what waits, and never write again."""
        self.paused = True
        self._plain = False
        self._control = self._end = b""
        # Whose it was is freed by it, at once, and not by the next garbage collection.
        self.owner = _NOBODY
        self.drop_messages()
        self.release()

    def release(self) -> None:
        """Let every waiting sender go on."""
        waiters, self._waiters = self._waiters, None
        for waiter in waiters or ():
            if not waiter.done():
                waiter.set_result(None)

    def drop_messages(self) -> int:
        """Forget the messages that wait; return how many there were."""
        count = len(self._messages)
        self._messages.clear()
        self.waiting_bytes = 0
        return count

    def _note(self) -> None:
        if not self._noted:
            self._noted = True
            self.turn.write(self)

    def _bound(self) -> None:
        if not self.paused:
            # A burst, not a slow client: the socket has not been asked yet.
            self.flush()
            return
        messages = self._messages
        if self.policy is SlowClientPolicy.LATEST_ONLY:
            if len(messages) > 1:
                dropped = len(messages) - 1
                del messages[:-1]
                self.waiting_bytes = len(messages[0])
                self.owner.dropped(dropped)
        elif self.waiting_bytes <= self.limit_bytes:
            return
        elif self.policy is SlowClientPolicy.DROP_OLDEST:
            dropped = 0
            while self.waiting_bytes > self.limit_bytes and dropped < len(messages) - 1:
                self.waiting_bytes -= len(messages[dropped])
                dropped += 1
            del messages[:dropped]
            self.owner.dropped(dropped)
        else:
            self.owner.dropped(self.drop_messages())
            self.owner.overflowed()
