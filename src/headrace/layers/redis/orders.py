"""What is asked of Redis, whoever carries it out: the commands, and what becomes of the replies.

Rules of this file:

- An order knows no loop, thread or connection.
- What a server has refused it has not done: that can be asked again, there or elsewhere. An
  order whose connection broke before the answer is *uncertain*: only its very same words may be
  sent again, and whoever gets them twice knows by their number.
"""

from collections.abc import Mapping, Sequence
from enum import Enum, auto
from typing import Any, NamedTuple

from ...exceptions import ChannelLayerUnavailable, InvalidChannelLayerError
from .client import Command, Refusal, Reply
from .config import Endpoint
from .envelopes import Envelopes
from .scripts import PUBLISH, Script

__all__ = [
    "Call",
    "Order",
    "Plain",
    "Publication",
    "Redirection",
    "ScriptedPublication",
    "Sender",
    "ShardedPublication",
    "Verdict",
    "failure",
    "judge",
    "unavailable",
]


class Sender:
    """Where orders go out one after the other: it numbers what it sends.

    Args:
        number: Which of its process's senders it is.
    """

    __slots__ = ("_envelopes", "_last", "id", "number")

    def __init__(self, envelopes: Envelopes, process: str, number: int) -> None:
        self._envelopes = envelopes
        self.number = number
        self._last = 0
        #: As it stands in the names of keys.
        self.id = f"{process}.{number}"

    def next(self) -> int:
        """Return a number that it has not used."""
        self._last += 1
        return self._last

    def envelope(self, frame: bytes) -> bytes:
        """Return the frame in the next envelope."""
        return self._envelopes.put(self.number, self.next(), frame)


class Order:
    """Commands for the node that has a tag.

    Args:
        tag: See ``names``.
    """

    __slots__ = ("asking", "done", "problem", "result", "sender", "tag", "uncertain")

    #: About how many bytes it holds.
    weight = 256
    #: Whether to carry it out twice is not the same as once.
    once = False

    def __init__(self, tag: str) -> None:
        self.tag = tag
        self.result: Any = None
        #: Told of the result or the error, once; None as soon as it has been.
        self.done: Any = None
        #: Why it was not carried out so far.
        self.problem: Exception | None = None
        #: Whether it may have been carried out already, and by whom it was sent then.
        self.uncertain = False
        self.sender: Sender | None = None
        #: Whether the node is only about to get the slot (Redis Cluster, "ASK redirection").
        self.asking = False

    def commands(self, sender: Sender) -> Sequence[Command]:
        """Return what to send; the same as before if it is uncertain."""
        raise NotImplementedError

    def take(self, replies: Sequence[Reply]) -> Refusal | None:
        """Keep the result; return what was refused instead."""
        self.result = replies
        return next((reply for reply in replies if isinstance(reply, Refusal)), None)

    def reword(self, refusal: Refusal) -> bool:
        """Tell whether it can be sent anew at once, in other words."""
        del refusal
        return False


class Plain(Order):
    """Commands as they are, which may be carried out any number of times."""

    __slots__ = ("_commands",)

    def __init__(self, tag: str, *commands: Command) -> None:
        super().__init__(tag)
        self._commands = commands

    def commands(self, sender: Sender) -> Sequence[Command]:
        """See ``Order``."""
        del sender
        return self._commands


class Publication(Order):
    """A frame for whoever listens. Its result: how many do, and the named channels in the group.

    Args:
        channel: Where it is published.
        frame: What is published.
        members: The key of the named channels, if there may be some.
    """

    once = True

    __slots__ = ("_channel", "_envelope", "_frame", "_members", "weight")

    def __init__(self, tag: str, channel: str, frame: bytes, members: str | None = None) -> None:
        super().__init__(tag)
        self._channel = channel
        self._frame = frame
        self._members = members
        self._envelope = b""
        self.weight = 256 + len(frame)

    def _enveloped(self, sender: Sender) -> bytes:
        if not (self.uncertain and self.sender is sender):
            self.sender, self._envelope = sender, sender.envelope(self._frame)
        return self._envelope

    def _keep(self, reached: int, members: Sequence[bytes]) -> None:
        self.result = reached, [channel.decode() for channel in members]


class ScriptedPublication(Publication):
    """By a script, which a server that was the primary, and is not any more, refuses.

    PUBLISH itself it would carry out, for nobody.
    """

    __slots__ = ("by_text",)

    def __init__(self, tag: str, channel: str, frame: bytes, members: str | None = None) -> None:
        super().__init__(tag, channel, frame, members)
        self.by_text = False

    def commands(self, sender: Sender) -> Sequence[Command]:
        """See ``Order``."""
        keys = () if self._members is None else (self._members,)
        rest = (len(keys), *keys, self._channel, self._enveloped(sender))
        if self.by_text:
            return (("EVAL", PUBLISH.text, *rest),)
        return (("EVALSHA", PUBLISH.sha, *rest),)

    def take(self, replies: Sequence[Reply]) -> Refusal | None:
        """See ``Order``."""
        (reply,) = replies
        if isinstance(reply, Refusal):
            return reply
        if isinstance(reply, int):
            self._keep(reply, ())
        else:
            self._keep(reply[0], reply[1:])
        return None

    def reword(self, refusal: Refusal) -> bool:
        """See ``Order``."""
        return _by_text(self, refusal)


class ShardedPublication(Publication):
    """In a cluster, where a node that is no primary any more says who is.

    No script: while a slot moves, one that names a key is sent ahead to where nobody listens yet.

    Args:
        now: The time (s), for memberships that have ended.
    """

    __slots__ = ("_now", "_reached")

    def __init__(
        self, tag: str, channel: str, frame: bytes, members: str | None = None, *, now: float
    ) -> None:
        super().__init__(tag, channel, frame, members)
        self._now = now
        self._reached: int | None = None

    def commands(self, sender: Sender) -> Sequence[Command]:
        """See ``Order``."""
        commands: list[Command] = []
        if self._reached is None:
            commands.append(("SPUBLISH", self._channel, self._enveloped(sender)))
        if self._members is not None:
            commands.append(("ZRANGEBYSCORE", self._members, f"({self._now:.3f}", "+inf"))
        return commands

    def take(self, replies: Sequence[Reply]) -> Refusal | None:
        """See ``Order``. What is published stays so, even where the rest was refused."""
        rest = list(replies)
        if self._reached is None:
            reached = rest.pop(0)
            if isinstance(reached, Refusal):
                return reached
            self._reached = reached
        members = rest[0] if rest else []
        if isinstance(members, Refusal):
            return members
        self._keep(self._reached, members)
        return None


class Call(Order):
    """A script; its result is the script's.

    With ``numbered`` its first argument is a number that stays the same when it is repeated, and
    its last key has the sender at its end: by these the script knows a repetition.
    """

    __slots__ = ("_args", "_keys", "_number", "_numbered", "_script", "by_text", "once", "weight")

    def __init__(
        self,
        tag: str,
        script: Script,
        keys: Sequence[str],
        *args: str | bytes | int,
        numbered: bool = False,
    ) -> None:
        super().__init__(tag)
        self._script = script
        self._keys = keys
        self._args = args
        self._numbered = self.once = numbered
        self._number = 0
        self.by_text = False
        self.weight = 256 + sum(len(arg) for arg in args if isinstance(arg, bytes))

    def commands(self, sender: Sender) -> Sequence[Command]:
        """See ``Order``."""
        keys, args = self._keys, self._args
        if self._numbered:
            if not (self.uncertain and self.sender is sender):
                self.sender, self._number = sender, sender.next()
            keys, args = (*keys[:-1], keys[-1] + sender.id), (self._number, *args)
        if self.by_text:
            return (("EVAL", self._script.text, len(keys), *keys, *args),)
        return (("EVALSHA", self._script.sha, len(keys), *keys, *args),)

    def take(self, replies: Sequence[Reply]) -> Refusal | None:
        """See ``Order``."""
        (self.result,) = replies
        return self.result if isinstance(self.result, Refusal) else None

    def reword(self, refusal: Refusal) -> bool:
        """See ``Order``: a server that was started anew knows no script."""
        return _by_text(self, refusal)


def _by_text(order: Call | ScriptedPublication, refusal: Refusal) -> bool:
    """Say the script at length where the server does not know it by name."""
    if refusal.code == "NOSCRIPT" and not order.by_text:
        order.by_text = True
        return True
    return False


class Verdict(Enum):
    """What a refusal means for an order."""

    #: The server is not ready, or not the one it was: again, in a moment.
    LATER = auto()
    #: The connection leads to the wrong server.
    ELSEWHERE = auto()
    #: It will not do it.
    NO = auto()


class Redirection(NamedTuple):
    """Another node of the cluster that has the slot, or (asking) is about to."""

    slot: int
    host: str
    port: int
    asking: bool


_VERDICTS: Mapping[str, Verdict] = {
    "LOADING": Verdict.LATER,
    "TRYAGAIN": Verdict.LATER,
    "CLUSTERDOWN": Verdict.LATER,
    "MASTERDOWN": Verdict.LATER,
    "BUSY": Verdict.LATER,
    "NOREPLICAS": Verdict.LATER,
    "READONLY": Verdict.ELSEWHERE,
}


def judge(refusal: Refusal) -> Verdict | Redirection:
    """Return what the refusal means."""
    if refusal.code in ("MOVED", "ASK"):
        slot, _, address = refusal.text.partition(" ")
        host, _, port = address.rpartition(":")
        return Redirection(int(slot), host, int(port), refusal.code == "ASK")
    return _VERDICTS.get(refusal.code, Verdict.NO)


def failure(endpoint: Endpoint | str, refusal: Refusal) -> Exception:
    """Return the error that tells a sender that the server will not do it."""
    # What a script may not do is an error of the script: in the words of Redis, and of Valkey.
    forbidden = "user executing" in refusal.text or "No permissions" in refusal.text
    if refusal.code in ("NOPERM", "NOAUTH", "WRONGPASS") or forbidden:
        return InvalidChannelLayerError(
            f"hosts in the CONFIG of CHANNEL_LAYERS: {endpoint} does not let us do this: "
            f"{refusal.text}; the user needs +@pubsub, +@scripting, +@read, +@write, +@connection, "
            "+time, in a cluster +cluster|slots, and the prefix among its keys and channels"
        )
    if refusal.code == "OOM":
        return ChannelLayerUnavailable(
            f"{endpoint} has no memory left for this ({refusal.text}); raise its maxmemory, "
            "or lower capacity and expiry"
        )
    return ChannelLayerUnavailable(f"{endpoint} refuses: {refusal}")


def unavailable(order: Order, problem: object, waited_s: float) -> ChannelLayerUnavailable:
    """Return the error for an order whose time is over."""
    known = "it may have arrived all the same" if order.uncertain else "it was not sent"
    if order.problem is not None:
        return ChannelLayerUnavailable(
            f"Redis was not ready for it ({order.problem}); after {waited_s:g} s {known}"
        )
    return ChannelLayerUnavailable(
        f"Redis can't be reached ({problem or 'no answer'}); after {waited_s:g} s {known}. "
        "Is the server up? See hosts and send_timeout in the CONFIG of CHANNEL_LAYERS"
    )
