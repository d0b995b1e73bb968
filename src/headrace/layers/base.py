"""The contract of a channel layer: names, capacities, and what a channel delivers to.

Rules of this file:

- A *channel* is the mailbox of one consumer, a *group* a named set of channels.
- A channel whose name has a ``!`` is local to the process that opened it.
- A layer delivers in one of two ways: whoever calls ``receive()`` pulls, or a ``Sink``
  that was given to ``attach()`` is pushed to. A channel has one of the two, never both.
- A caller's mistake (a name, a message) is a TypeError or ValueError at the sender; that
  a channel is full or gone is never an error of the one who reads.
"""

import asyncio
import copy
import fnmatch
import re
import warnings
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal, Protocol, TypeAlias

from asgiref.sync import async_to_sync

from ..exceptions import ChannelFull

__all__ = [
    "BaseChannelLayer",
    "Bounds",
    "BurstSink",
    "Bursts",
    "Capacities",
    "Event",
    "Frames",
    "Overflow",
    "Sink",
    "check_client_event",
    "is_client_event",
    "require_message",
    "running_loop",
]

#: What travels through a layer: a dictionary of plain values with a ``type``.
Event: TypeAlias = dict[str, Any]
#: The encodings of one client-bound event, by the wire format of the connection.
Frames: TypeAlias = dict[Hashable, bytes]
#: The same for several events: all their frames in one piece, and each by itself.
Bursts = dict[Hashable, tuple[bytes, list[bytes]]]
#: Per-channel capacities: name, glob or compiled pattern -> number of messages.
Capacities: TypeAlias = Mapping[str | re.Pattern[str], int]

_CLIENT_EVENTS = frozenset({"websocket.send", "websocket.close"})


class Overflow(StrEnum):
    """What happens to an event for a handler whose consumer has as many waiting as it may.

    Whichever it is, the event is counted, and the log says so.
    """

    #: It is lost. ``send`` raises ChannelFull for it, ``group_send`` does not.
    DROP_NEWEST = "drop-newest"
    #: It is kept, and the one that has waited longest is lost.
    DROP_OLDEST = "drop-oldest"
    #: The consumer is given up: its client is closed with 1013, and may come again.
    CLOSE = "close"


@dataclass(frozen=True, slots=True)
class Bounds:
    """How many events may wait for a consumer's handlers, and what happens to one more."""

    capacity: int
    overflow: Overflow = Overflow.DROP_NEWEST
    #: The name of the consumer's class, for the log.
    consumer: str | None = None
    #: Whether the consumer has a handler for ``layer.gap``; one that has none is not told.
    hears_gaps: bool = False


def is_client_event(event: Mapping[str, Any]) -> bool:
    """Tell whether the event is an ASGI event for the client, which needs no handler."""
    return event.get("type") in _CLIENT_EVENTS


def check_client_event(event: Mapping[str, Any]) -> None:
    """Raise ValueError unless a client can be sent this: one mistake, told once, at the sender.

    ASGI, "Send" and "Close": ``websocket.send`` carries ``text`` or ``bytes``;
    ``websocket.close`` a ``code`` (RFC 6455 §7.4) and a ``reason``, or neither.
    """
    if event["type"] == "websocket.send":
        text, data = event.get("text"), event.get("bytes")
        if (text is None) == (data is None) or not (
            isinstance(text, str) or isinstance(data, bytes | bytearray | memoryview)
        ):
            raise ValueError(
                "websocket.send carries either 'text' (a str) or 'bytes', "
                f"not text={text!r:.50} and bytes={data!r:.50}"
            )
        if text is not None and not text.isascii():
            text.encode()  # UnicodeEncodeError, a ValueError, for half a surrogate pair
        return
    code = event.get("code")
    # RFC 6455 §7.4.1: 1004 is reserved; 1005 and 1006 say that there was no code.
    if code is not None and not (
        isinstance(code, int)
        and (1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999)
    ):
        raise ValueError(f"websocket.close has a code that may be sent, not {code!r:.50}")
    reason = event.get("reason") or ""
    if not isinstance(reason, str) or len(reason.encode(errors="replace")) > 123:
        raise ValueError(f"a close reason is a str of 123 bytes at most, not {reason!r:.150}")


def require_message(message: object) -> None:
    """Raise TypeError for what is no message, ValueError for one that no client can be sent."""
    if not isinstance(message, dict):
        raise TypeError(f"a message is a dict, not {type(message).__name__}")
    if is_client_event(message):
        check_client_event(message)


class Sink(Protocol):
    """What a process-local channel delivers to.

    Both methods are called on the event loop's thread, return at once, and never raise for
    a full or closed sink. ``False`` says that there was no room: the event is lost, and its
    sender or the log will hear of it. A sink whose client is gone takes everything, for there
    is nobody to miss it.

    One that has ``bounds`` (a ``Bounds``) is named in the log by its consumer.
    """

    def put(self, event: Event, /) -> bool | Overflow:
        """Take an event for the consumer's handler. The event belongs to the sink from now on.

        An ``Overflow`` says that there was no room, and what the sink has done about it:
        the log will hear of that, and for the sender the event is delivered.
        """
        ...

    def transmit(self, event: Event, frames: Frames, /) -> bool | Overflow:
        """Take an ASGI event for the client.

        The event is shared between all members of a group and must not be changed.
        ``frames`` lives as long as one broadcast: the first member of each wire format
        leaves its encoding there for the others.
        """
        ...


class BurstSink(Sink, Protocol):
    """A sink that takes several client-bound events at once."""

    def transmit_burst(self, events: Sequence[Event], bursts: Bursts, at_once: bool, /) -> int:
        """Take messages for the client (``websocket.send``), in their order.

        Returns how many had no room. Events and ``bursts`` are shared as ``transmit`` says.
        ``at_once``: there is nothing to wait for before they are written.
        """
        ...


def running_loop() -> asyncio.AbstractEventLoop | None:
    """Return the event loop that runs on this thread; None on a thread without one."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _warn_of(name: str) -> None:
    warnings.warn(f"{name} is deprecated: call require_{name}", DeprecationWarning, stacklevel=3)


class BaseChannelLayer:
    """The base of every channel layer, ours or a third party's.

    A subclass implements the asynchronous methods; names and capacities come from here. One
    that can push to a ``Sink`` says so by ``pushes`` and implements ``attach``, ``detach`` and
    ``overflows``; from any other, a consumer pulls with ``receive()``.

    Args:
        expiry: Seconds after which an undelivered message may be forgotten.
        capacity: Messages that one channel holds before it is full.
        channel_capacity: Other capacities for some channels, by name, glob or compiled
            pattern; the first that matches counts.
    """

    MAX_NAME_LENGTH = 100
    #: What a whole name looks like, to ``match``, too, by which subclasses may ask.
    channel_name_regex = re.compile(r"^[a-zA-Z0-9._-]+(![a-zA-Z0-9._-]*)?\Z", re.ASCII)
    group_name_regex = re.compile(r"^[a-zA-Z0-9._-]+\Z", re.ASCII)
    #: What the TypeError for another name begins with; to be formatted with the kind of name.
    invalid_name_error = (
        f"{{}} name: a str of 1 to {MAX_NAME_LENGTH - 1} ASCII letters, digits, hyphens, "
        "underscores or periods"
    )

    extensions: Iterable[str] = ()
    #: Whether ``attach`` and ``detach`` work.
    pushes = False

    def __init__(
        self,
        expiry: float = 60,
        capacity: int = 100,
        channel_capacity: Capacities | None = None,
    ) -> None:
        self.expiry = expiry
        self.capacity = capacity
        self.channel_capacity = self.compile_capacities(channel_capacity or {})

    # Capacities

    def compile_capacities(
        self, channel_capacity: Capacities | Iterable[tuple[str | re.Pattern[str], int]]
    ) -> list[tuple[re.Pattern[str], int]]:
        """Turn names and globs into patterns, in their order."""
        # A subclass may do it once more, with what came of the first time.
        pairs = (
            channel_capacity.items() if isinstance(channel_capacity, Mapping) else channel_capacity
        )
        return [
            (re.compile(fnmatch.translate(name)) if isinstance(name, str) else name, capacity)
            for name, capacity in pairs
        ]

    def get_capacity(self, channel: str) -> int:
        """Return how many messages the channel holds."""
        for pattern, capacity in self.channel_capacity:
            if pattern.match(channel):
                return capacity
        return self.capacity

    # Names

    def require_valid_channel_name(self, name: object, receive: bool = False) -> Literal[True]:
        """Return True for a legal channel name, or raise TypeError that says what is legal.

        With ``receive``, a process-local name has to end with its ``!``.
        """
        if not self._is_name(name, self.channel_name_regex):
            raise TypeError(self._name_error("Channel", name))
        if receive and isinstance(name, str) and "!" in name and not name.endswith("!"):
            raise TypeError(
                f"a process-local channel is received up to and including its '!', not {name!r}"
            )
        return True

    def require_valid_group_name(self, name: object) -> Literal[True]:
        """Return True for a legal group name, or raise TypeError that says what is legal."""
        if not self._is_name(name, self.group_name_regex):
            raise TypeError(self._name_error("Group", name))
        return True

    def valid_channel_names(self, names: Iterable[object], receive: bool = False) -> Literal[True]:
        """Check each of the names as ``require_valid_channel_name`` does."""
        for name in names:
            self.require_valid_channel_name(name, receive)
        return True

    def valid_channel_name(self, name: object, receive: bool = False) -> Literal[True]:
        """Deprecated, in Channels too: ``require_valid_channel_name`` under its old name."""
        _warn_of("valid_channel_name")
        return self.require_valid_channel_name(name, receive)

    def valid_group_name(self, name: object) -> Literal[True]:
        """Deprecated, in Channels too: ``require_valid_group_name`` under its old name."""
        _warn_of("valid_group_name")
        return self.require_valid_group_name(name)

    def non_local_name(self, name: str) -> str:
        """Return the name up to and including its ``!``; a name without one as it is."""
        prefix, mark, _ = name.partition("!")
        return prefix + mark

    def match_type_and_length(self, name: object) -> bool:
        """Tell whether this is a str that is short enough for a name."""
        return isinstance(name, str) and len(name) < self.MAX_NAME_LENGTH

    def _is_name(self, name: object, pattern: re.Pattern[str]) -> bool:
        return (
            self.match_type_and_length(name)
            and isinstance(name, str)
            and pattern.fullmatch(name) is not None
        )

    def _name_error(self, kind: str, name: object) -> str:
        return f"{self.invalid_name_error.format(kind)}, not {name!r:.120}"

    # What a subclass implements

    async def send(self, channel: str, message: Event) -> None:
        """Send the message to one channel; ChannelFull when it has no room."""
        raise NotImplementedError

    def send_sync(self, channel: str, message: Event) -> None:
        """Do what ``send`` does, on a thread without an event loop.

        A subclass that has a way without an event loop for each call takes that; this one
        works for each layer whose ``send`` may be called on any loop.
        """
        self._require_no_loop("send")
        async_to_sync(self.send)(channel, message)

    async def receive(self, channel: str) -> Event:
        """Wait for the channel's next message; first in, first out for one reader."""
        raise NotImplementedError

    async def new_channel(self, prefix: str = "specific") -> str:
        """Return the name of a new channel, local to this process."""
        raise NotImplementedError

    async def group_add(self, group: str, channel: str) -> None:
        """Put the channel into the group; once however often it is called."""
        raise NotImplementedError

    async def group_discard(self, group: str, channel: str) -> None:
        """Take the channel out of the group; nothing happens if it was not there."""
        raise NotImplementedError

    async def group_send(self, group: str, message: Event) -> int | None:
        """Send the message to every channel of the group; a full one does not raise.

        Returns how many other processes it went to, where the layer knows.
        """
        raise NotImplementedError

    def group_send_sync(self, group: str, message: Event) -> int | None:
        """Do what ``group_send`` does, on a thread without an event loop. See ``send_sync``."""
        self._require_no_loop("group_send")
        return async_to_sync(self.group_send)(group, message)

    async def flush(self) -> None:
        """Forget every channel, group and message."""
        raise NotImplementedError

    async def close(self) -> None:
        """Let go of what the layer holds (connections, tasks)."""

    # Push delivery, where ``pushes`` says that the layer does it

    def attach(self, channel: str, sink: Sink) -> None:
        """Push the channel's messages to the sink from now on.

        Called on the loop on which the sink lives.
        """
        raise NotImplementedError

    def detach(self, channel: str) -> None:
        """Forget the channel and all its memberships."""
        raise NotImplementedError

    @property
    def unready(self) -> str | None:
        """Why the layer can't do its work now; None: it can, as far as it knows.

        Asked on an event loop, it answers at once.
        """
        return None

    @property
    def overflows(self) -> dict[Overflow, int]:
        """How many events found no room, by what was done about it.

        What raised ChannelFull is not among them: its sender knows.
        """
        raise NotImplementedError

    def settle(self) -> None:
        """Hand over, now, the client-bound events that wait for the end of this turn.

        A consumer that closes its connection calls it, for a group may have been sent
        something the moment before. A layer that holds nothing back has nothing to do.
        """

    def prepared(self, message: Event) -> Event:
        """Return the message as it is to be sent later: a copy, which is nobody else's.

        Raises what ``send`` would raise for this message, whatever the channel.
        """
        require_message(message)
        return copy.deepcopy(message)

    # For subclasses

    def _require_no_loop(self, method: str) -> None:
        """Raise RuntimeError on the thread of an event loop, which must not be kept waiting."""
        if running_loop() is not None:
            raise RuntimeError(
                f"{method}_sync() was called on the thread of an event loop: "
                f"await {method}() instead"
            )

    def _full(self, channel: str, sink: object = None) -> ChannelFull:
        bounds = getattr(sink, "bounds", None) or Bounds(self.get_capacity(channel))
        return ChannelFull(
            f"channel {channel} is full: {bounds.capacity} messages wait for its "
            f"{bounds.consumer or 'consumer'}; raise capacity in CHANNEL_LAYERS or of the "
            "consumer, or send less"
        )
