"""One connection that listens to one server, for as long as anything there is wanted.

Rules of this file:

- One task reads. It ends with the process's interest and with nothing else; a consumer has no
  hand on it.
- What is wanted and what the server was told are two sets. The difference goes out in as few
  commands as it takes, and a name counts as heard when the server has said so.
- A connection that is silent is asked (PING), and given up when it does not answer.
- When a connection is lost, every name that was heard is *missed* until it is heard again. Then,
  and once for all of them, somebody is told.
"""

import asyncio
import contextlib
import itertools
import logging
import random
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Protocol

from ...exceptions import InvalidChannelLayerError
from .client import Command, Refusal, Unreachable, Wire
from .config import Endpoint
from .lane import delays
from .names import slot_of, tag_of
from .orders import Verdict, failure, judge

__all__ = ["Listener", "Subscription"]

logger = logging.getLogger("headrace.layers.redis")

#: How many names one command holds.
_NAMES = 500
#: After so many messages in a row, whoever else has work gets a turn.
_IN_A_ROW = 200
#: The pause before a name that is not heard is tried again: that will pass, or perhaps not.
_LATER_S, _AFTER_NO_S = (0.1, 0.3), 5.0


class Listener(Protocol):
    """Who is told what is heard. All of it on the loop's thread; nothing may raise."""

    async def room(self) -> None:
        """Return when one more message may be taken."""

    def message(self, name: str, data: bytes) -> None:
        """Take a message."""

    def heard(self, subscription: "Subscription", name: str) -> None:
        """Take note: what is published there from now on is heard."""

    def unheard(self, subscription: "Subscription", name: str) -> None:
        """Take note: that is so no longer."""

    def refused(self, name: str, error: Exception) -> None:
        """Take note: the server won't have it."""

    def moved(self) -> None:
        """Take note: something is on another server now."""

    def lost(self, subscription: "Subscription", reason: str) -> None:
        """Take note: the connection broke, after it worked."""

    def back(self, names: list[str], reason: str) -> None:
        """Take note: after that, these are heard again, and something may have been missed."""

    def failed(self, error: Exception) -> None:
        """Take note: an attempt to connect has failed."""


class Subscription:
    """What is heard from one server.

    Args:
        dial: Makes a connection; raises Unreachable or InvalidChannelLayerError.
        listener: Who hears.
        sharded: Whether the server is a node of a cluster.
        interval_s: How long a connection may be silent before it is asked.
        reply_timeout_s: How long its answer may take.
        missed: What is to be heard from the start, where something may have been missed.
    """

    def __init__(
        self,
        dial: Callable[[], Awaitable[Wire]],
        listener: Listener,
        *,
        sharded: bool,
        interval_s: float,
        reply_timeout_s: float,
        missed: Mapping[str, str] | None = None,
    ) -> None:
        self._dial = dial
        self._listener = listener
        self._sharded = sharded
        self._interval_s = interval_s
        self._reply_timeout_s = reply_timeout_s
        letter = "S" if sharded else ""
        self._subscribe, self._unsubscribe = f"{letter}SUBSCRIBE", f"{letter}UNSUBSCRIBE"
        self._kinds = {
            b"smessage" if sharded else b"message": self._take_message,
            self._subscribe.lower().encode(): self._take_subscribed,
            self._unsubscribe.lower().encode(): self._take_unsubscribed,
        }
        #: What was heard before, is wanted still and not heard again yet, and why.
        self._missed = dict(missed or {})
        self.wanted: set[str] = set(self._missed)
        self.heard: set[str] = set()
        #: Where the connection leads, while there is one.
        self.endpoint: Endpoint | None = None
        #: Whether another one has taken its place: its connection is its last.
        self.former = False
        # Of this connection:
        self._told: set[str] = set()
        #: Commands without an answer yet: which, and the names that are still to come.
        self._asked: deque[tuple[str, set[str]]] = deque()
        self._unanswered: Counter[str] = Counter()
        self._last_read = 0.0
        #: Names whose state may be another than the server was told.
        self._changed: set[str] = set()
        self._news = asyncio.Event()
        self._hurry = asyncio.Event()

    # What is wanted

    def want(self, name: str, missed: str | None = None) -> None:
        """Listen to the name; ``missed`` says why something there may have been missed."""
        if missed is not None:
            self._missed[name] = missed
        if name in self.wanted:
            return
        self.wanted.add(name)
        if name in self._told and not self._unanswered[name]:
            # It was dropped a moment ago, and the server has not been told so yet.
            self._note_heard(name)
        else:
            self._change(name)

    def drop(self, name: str) -> str | None:
        """Listen to the name no more; return why something may have been missed, if so."""
        self.wanted.discard(name)
        reason = self._missed.pop(name, None)
        if name in self.heard:
            self.heard.discard(name)
            self._listener.unheard(self, name)
            reason = reason or "it is on another server now"
        self._change(name)
        self._tell_if_back()
        return reason

    def miss(self, names: Iterable[str], reason: str) -> None:
        """Take note: something there may have been missed, whether it is heard now or not."""
        self._missed |= dict.fromkeys(self.wanted.intersection(names), reason)
        self._tell_if_back()

    @property
    def missed(self) -> dict[str, str]:
        """What is wanted, was heard before and is not now, and why."""
        return self._missed.copy()

    def hurry(self) -> None:
        """Try to connect now: the server was just seen alive."""
        self._hurry.set()

    def _change(self, name: str) -> None:
        self._changed.add(name)
        self._news.set()

    # The connection

    async def run(self) -> None:
        """Listen until this is cancelled, or has lost its connection as a former one."""
        pauses = delays()
        while not self.former:
            if not self.wanted:
                self._news.clear()
                await self._news.wait()
                continue
            self._hurry.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(next(pauses)):
                    await self._hurry.wait()
            try:
                wire = await self._dial()
            except (Unreachable, InvalidChannelLayerError) as error:
                self._listener.failed(error)
                continue
            began = time.monotonic()
            try:
                reason = await self._listen(wire)
            finally:
                self.endpoint = None
                self._forget()
                await wire.close()
            self._listener.lost(self, reason)
            # One that breaks at once is no reason to try without a pause.
            if time.monotonic() - began > 1.0:
                pauses = delays()

    async def _listen(self, wire: Wire) -> str:
        """Serve one connection until it breaks; return why."""
        self.endpoint = wire.endpoint
        self._last_read = time.monotonic()
        self._changed = set(self.wanted)
        self._news.set()
        tasks = [
            asyncio.create_task(each, name=f"headrace redis {name}")
            for name, each in (
                ("reader", self._read(wire)),
                ("writer", self._write(wire)),
                ("watch", self._watch(wire)),
            )
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for task in done:
            if not isinstance(error := task.exception(), Unreachable):
                raise error or AssertionError("a task has ended")
        return str(error)

    def _forget(self) -> None:
        """What the connection knew is gone with it."""
        for name in self.heard:
            self._listener.unheard(self, name)
            if name in self.wanted:
                self._missed.setdefault(name, "the connection to Redis was lost")
        self.heard.clear()
        self._told.clear()
        self._asked.clear()
        self._unanswered.clear()

    async def _watch(self, wire: Wire) -> None:
        while True:
            await asyncio.sleep(self._interval_s)
            if time.monotonic() - self._last_read < self._interval_s:
                continue
            asked = time.monotonic()
            await wire.send([("PING",)])
            await asyncio.sleep(self._reply_timeout_s)
            if self._last_read < asked:
                raise Unreachable(f"{wire.endpoint} did not answer for {self._reply_timeout_s:g} s")

    async def _write(self, wire: Wire) -> None:
        while True:
            self._news.clear()
            if self._changed:
                changed, self._changed = self._changed, set()
                await wire.send(self._difference(changed))
            else:
                await self._news.wait()

    def _difference(self, changed: Iterable[str]) -> list[Command]:
        told, wanted = self._told, self.wanted
        commands: list[Command] = []
        for verb, names in (
            (self._subscribe, [name for name in changed if name in wanted and name not in told]),
            (self._unsubscribe, [name for name in changed if name in told and name not in wanted]),
        ):
            (told.update if verb == self._subscribe else told.difference_update)(names)
            self._unanswered.update(names)
            for several in self._portions(names):
                self._asked.append((verb, set(several)))
                commands.append((verb, *several))
        return commands

    def _portions(self, names: list[str]) -> Iterable[list[str]]:
        if not self._sharded:
            for start in range(0, len(names), _NAMES):
                yield names[start : start + _NAMES]
            return

        # Redis Cluster: the names of one command are in one slot.
        def slot(name: str) -> int:
            return slot_of(tag_of(name))

        for _, several in itertools.groupby(sorted(names, key=slot), slot):
            yield list(several)

    async def _read(self, wire: Wire) -> None:
        listener, kinds = self._listener, self._kinds
        in_a_row = 0
        while True:
            await listener.room()
            reply = await wire.read()
            self._last_read = time.monotonic()
            if type(reply) is list and (take := kinds.get(reply[0])) is not None:
                take(*reply[1:])
            elif isinstance(reply, Refusal):
                self._take_refusal(wire, reply)
            in_a_row += 1
            if in_a_row == _IN_A_ROW:
                in_a_row = 0
                await asyncio.sleep(0)

    # What comes

    def _take_message(self, name: bytes, data: bytes) -> None:
        self._listener.message(name.decode(), data)

    def _take_subscribed(self, raw: bytes, _: Any) -> None:
        name = raw.decode()
        self._answered(self._subscribe, name)
        if name in self._told and name in self.wanted and not self._unanswered[name]:
            self._note_heard(name)

    def _note_heard(self, name: str) -> None:
        self.heard.add(name)
        self._listener.heard(self, name)
        self._tell_if_back()

    def _take_unsubscribed(self, raw: bytes | None, _: Any) -> None:
        name = (raw or b"").decode()
        if not self._answered(self._unsubscribe, name):
            # Nobody asked: in a cluster, the slot is another node's now, or was for a moment.
            self._told.discard(name)
            if name in self.heard:
                self.heard.discard(name)
                self._listener.unheard(self, name)
                self._missed[name] = "it is on another server now"
            self._listener.moved()
            self._try_again({name})

    def _answered(self, verb: str, name: str) -> bool:
        """Take note of an answer; False if it is none."""
        if not self._asked or self._asked[0][0] != verb or name not in self._asked[0][1]:
            return False
        names = self._asked[0][1]
        names.discard(name)
        if not names:
            self._asked.popleft()
        self._unanswered[name] -= 1
        if not self._unanswered[name]:
            del self._unanswered[name]
        return True

    def _take_refusal(self, wire: Wire, refusal: Refusal) -> None:
        if not self._asked:
            return  # to a PING
        verb, names = self._asked.popleft()
        self._unanswered.subtract(names)
        self._unanswered += Counter()  # what is zero goes
        if verb == self._unsubscribe:
            return
        self._told.difference_update(names)
        verdict = judge(refusal)
        if verdict is Verdict.NO:
            error = failure(str(wire.endpoint), refusal)
            for name in names:
                self._missed.pop(name, None)
                self._listener.refused(name, error)
            self._tell_if_back()
        elif verdict is not Verdict.LATER:
            self._listener.moved()
        self._try_again(names, _AFTER_NO_S if verdict is Verdict.NO else None)

    def _try_again(self, names: set[str], pause_s: float | None = None) -> None:
        """Ask for the names once more, later, if they are wanted here by then."""
        if pause_s is None:
            pause_s = random.uniform(*_LATER_S)  # noqa: S311 - nothing depends on a guess
        asyncio.get_running_loop().call_later(pause_s, self._again, names)

    def _again(self, names: set[str]) -> None:
        self._changed |= names
        self._news.set()

    def _tell_if_back(self) -> None:
        if self._missed and self.endpoint is not None and self._missed.keys() <= self.heard:
            missed, self._missed = self._missed, {}
            self._listener.back(list(missed), next(iter(missed.values())))
