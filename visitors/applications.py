"""What a visitor of each application does, as its page does it, and what of it is measured.

To add an application, write a class with the face of :class:`Application`, and name it in
:func:`site`: the visitors are spread over all of them alike.
"""

import asyncio
import contextlib
import json
import math
import re
import struct
import time
import uuid
from collections import deque
from collections.abc import Iterator
from typing import Any, ClassVar

from .ledger import Delays, Ledger
from .peer import Peer
from .visitor import PATIENCE_S, Visitor

__all__ = ["Application", "Bell", "Documents", "Measured", "site"]


class Measured:
    """One line of the report: durations, and the bound that 99 of 100 keep."""

    def __init__(self, what: str, delays: Delays, bound_s: float = 0.2) -> None:
        self.what = what
        self.delays = delays
        self.bound_s = bound_s


class Application:
    """One application, for all of its visitors."""

    title: ClassVar[str]

    def __init__(self) -> None:
        #: What is sent here and has to be seen.
        self.ledger = Ledger()
        #: What was lost and is in no ledger.
        self.lost = 0

    async def visit(self, visitor: Visitor) -> None:
        """Be there until the visitors' run closes."""
        raise NotImplementedError

    def measured(self) -> list[Measured]:
        return [Measured("sent → seen by another", self.ledger.delays)]

    def begin(self) -> None:
        """Forget what was measured while the visitors were still coming."""
        for each in self.measured():
            each.delays.clear()


class Bell(Application):
    """The bell of every page: this one has no visitors of its own, and all of them."""

    title = "Bell"

    @contextlib.asynccontextmanager
    async def of(self, visitor: Visitor) -> Any:
        """Show a page's bell."""

        def told(event: dict[str, Any]) -> None:
            if event["type"] == "notification":
                self.ledger.seen(token_in(event["notification"]["text"]), visitor.number)

        async with visitor.live("/ws/bell/", told):
            yield


class Board(Application):
    """A post and its comments, each of which rings the bells of those who commented before."""

    title = "Board"
    #: To read what others think, and to write fifty characters, at forty words a minute.
    EVERY_S = 20.0
    POSTS = 3

    def __init__(self, bell: Bell) -> None:
        super().__init__()
        self._bell = bell
        self._present: dict[int, set[int]] = {}
        self._followers: dict[int, set[int]] = {}

    async def visit(self, visitor: Visitor) -> None:
        post = 1 + visitor.chance.randrange(self.POSTS)
        path = f"/notifications/posts/{post}/"
        page = await visitor.open(path)
        seen = max((int(number) for number in re.findall(r'data-number="(\d+)"', page)), default=0)
        present = self._present.setdefault(post, set())
        followers = self._followers.setdefault(post, set())

        def told(event: dict[str, Any]) -> None:
            if event["type"] == "welcome":
                present.add(visitor.number)
            elif event["type"] == "comment":
                self.ledger.seen(token_in(event["comment"]["text"]), visitor.number)

        async with visitor.live(f"/ws/board/{post}/?seen={seen}", told):
            while await visitor.pause(self.EVERY_S):
                token = uuid.uuid4().hex
                self.ledger.sent(token, present - {visitor.number})
                self._bell.ledger.sent(token, followers - {visitor.number})
                await visitor.post(path, page, text=f"{token} is what I think.")
                followers.add(visitor.number)
                page = await visitor.open(path)
            await visitor.run.closing.wait()


class Chat(Application):
    """A room: who writes is seen to type, what was read is marked."""

    title = "Chat"
    #: A line has fifty characters: whoever writes forty words a minute takes as long.
    EVERY_S = 15.0
    WRITING_S = 1.5
    READ_AFTER_S = 0.3
    ROOMS = ("mill-pond", "workshop", "reading-room")

    def __init__(self) -> None:
        super().__init__()
        self._present: dict[str, set[int]] = {room: set() for room in self.ROOMS}

    async def visit(self, visitor: Visitor) -> None:
        room = visitor.chance.choice(self.ROOMS)
        present = self._present[room]
        page = await visitor.open(f"/chat/rooms/{room}/")
        changes = Changes(int(re.findall(r'<main [^>]*data-change="(\d+)"', page)[0]))
        newest = max(
            (int(each) for each in re.findall(r'class="message[^>]* data-number="(\d+)"', page)),
            default=0,
        )
        news, gap = asyncio.Event(), asyncio.Event()
        told_read = 0
        is_asking = True  # the welcome answers, unasked

        def told(event: dict[str, Any]) -> None:
            nonlocal is_asking, told_read
            match event["type"]:
                case "welcome" | "changes":
                    for message in event["messages"]:
                        show(message)
                    is_asking = False
                    note(changes.reach(event["change"]))
                    if event["type"] == "welcome":
                        present.add(visitor.number)
                        told_read = event["read"]
                        news.set()
                case "message" | "changed":
                    show(event["message"])
                    note(changes.add(event["message"]["change"]))

        def show(message: dict[str, Any]) -> None:
            nonlocal newest
            newest = max(newest, message["number"])
            news.set()
            self.ledger.seen(message["client_id"], visitor.number)

        def note(is_whole: bool) -> None:
            nonlocal is_asking
            if not (is_whole or is_asking):
                is_asking = True
                gap.set()

        async def read() -> None:
            nonlocal told_read
            while True:
                await news.wait()
                await asyncio.sleep(self.READ_AFTER_S)  # once for a burst of messages
                news.clear()
                if newest > told_read:
                    told_read = newest
                    await socket.send(json.dumps({"type": "read", "number": newest}))

        async def ask() -> None:
            while True:
                await gap.wait()
                gap.clear()
                await socket.send(json.dumps({"type": "changes", "after": changes.whole}))

        async with visitor.live(f"/ws/rooms/{room}/?seen={changes.whole}", told) as socket:
            tasks = [asyncio.create_task(each) for each in (read(), ask())]
            try:
                while await visitor.pause(self.EVERY_S):
                    await socket.send('{"type": "typing", "typing": true}')
                    await visitor.pause(self.WRITING_S)
                    said = {"client_id": str(uuid.uuid4()), "text": "Is anybody there? " * 3}
                    self.ledger.sent(said["client_id"], present - {visitor.number})
                    await socket.send(json.dumps({"type": "message", **said}))
                await visitor.run.closing.wait()
            finally:
                for task in tasks:
                    task.cancel()


class Changes:
    """The numbers of a room's changes that were told: all up to ``whole``, and some ahead."""

    def __init__(self, whole: int) -> None:
        self.whole = whole
        self._ahead: set[int] = set()

    def add(self, number: int) -> bool:
        """Note one; return whether all before it were told, too."""
        if number > self.whole:
            self._ahead.add(number)
        return self.reach(self.whole)

    def reach(self, number: int) -> bool:
        """Note that all were told up to a number; return whether none is ahead of a gap."""
        self.whole = max(self.whole, number)
        while self.whole + 1 in self._ahead:
            self.whole += 1
        self._ahead = {each for each in self._ahead if each > self.whole}
        return not self._ahead


class Danmaku(Application):
    """The film: comments of people, and now and then a crowd of a thousand a second.

    In a crowd a batch leaves comments out, and says how many: those are not lost.
    """

    title = "Danmaku"
    EVERY_S = 8.0
    CROWD_EVERY_S = 15.0
    FILM_MS = 16_000

    def __init__(self) -> None:
        super().__init__()
        self._present: set[int] = set()
        self._caller: int | None = None
        self.left_out = 0

    async def visit(self, visitor: Visitor) -> None:
        await visitor.open("/danmaku/")
        if self._caller is None:
            self._caller = visitor.number

        def told(event: dict[str, Any]) -> None:
            if event["type"] == "welcome":
                self._present.add(visitor.number)
            elif event["type"] == "comments":
                for comment in event["comments"]:
                    self.ledger.seen(comment["client_id"], visitor.number)
                # Any of those on their way may be among them.
                if event["left_out"]:
                    self.left_out += event["left_out"]
                    for key in self.ledger.unseen(visitor.number):
                        self.ledger.excuse(key, visitor.number)

        async with visitor.live("/ws/danmaku/", told) as socket:
            next_crowd = time.monotonic()
            while await visitor.pause(self.EVERY_S):
                at_ms = int(time.time() * 1000) % self.FILM_MS
                if self._caller == visitor.number and time.monotonic() >= next_crowd:
                    next_crowd = time.monotonic() + self.CROWD_EVERY_S
                    await socket.send(json.dumps({"type": "crowd", "at_ms": at_ms}))
                said = {"client_id": str(uuid.uuid4()), "text": "Look at the ducks", "at_ms": at_ms}
                self.ledger.sent(said["client_id"], self._present - {visitor.number})
                await socket.send(json.dumps({"type": "comment", **said}))
            await visitor.run.closing.wait()


class Arena(Application):
    """The game: an input for each tick while the duck is steered, a frame for each tick."""

    title = "Ducks"
    TICK_S = 0.05
    TURN_EVERY_S = 1.5
    # js/wire.js says the same: kind, number, direction; kind, reign, tick, the last number taken.
    INPUT = struct.Struct("<BIbb")
    FRAME = struct.Struct("<BIII")

    def __init__(self) -> None:
        super().__init__()
        self.intervals = Delays()

    def measured(self) -> list[Measured]:
        return [
            Measured("one frame → the next (50 ms)", self.intervals, bound_s=0.1),
            Measured("input → in a frame", self.ledger.delays),
        ]

    async def visit(self, visitor: Visitor) -> None:
        await visitor.open("/arena/")
        under_way: deque[int] = deque()
        last_at = 0.0
        phase_s = visitor.chance.uniform(0, self.TICK_S)  # no two pages are in step

        def told(_: dict[str, Any]) -> None:
            """Take the scores: nothing is done with them."""

        def framed(data: bytes) -> None:
            nonlocal last_at
            _, _, _, taken = self.FRAME.unpack_from(data)
            now = time.perf_counter()
            if last_at:
                self.intervals.add(now - last_at)
            last_at = now
            while under_way and under_way[0] <= taken:
                self.ledger.seen((visitor.number, under_way.popleft()), visitor.number)

        async with visitor.live("/ws/arena/", told, framed) as socket:
            number = 0
            for dx, dy in self._directions(visitor):
                number += 1
                if visitor.run.last_orders.is_set():
                    break
                if last_at:  # before the first frame a page knows no duck to steer
                    under_way.append(number)
                    self.ledger.sent((visitor.number, number), [visitor.number])
                    await socket.send(self.INPUT.pack(1, number, dx, dy))
                await asyncio.sleep(self.TICK_S - (time.monotonic() + phase_s) % self.TICK_S)
            # The keys are let go: a page goes on until its duck rests.
            while under_way and not visitor.run.closing.is_set():
                number += 1
                await socket.send(self.INPUT.pack(1, number, 0, 0))
                await asyncio.sleep(self.TICK_S)
            await visitor.run.closing.wait()

    def _directions(self, visitor: Visitor) -> Iterator[tuple[int, int]]:
        while True:
            angle = visitor.chance.uniform(0, math.tau)
            direction = round(127 * math.cos(angle)), round(127 * math.sin(angle))
            ticks = visitor.chance.expovariate(self.TICK_S / self.TURN_EVERY_S)
            yield from (direction for _ in range(1 + int(ticks)))


class Quotes(Application):
    """The market: every page follows it at its rate, looks at charts, and keeps its watch list."""

    title = "Quotes"
    EVERY_S = 8.0
    RATES = (4, 4, 10)
    TERM = 10**9

    def __init__(self) -> None:
        super().__init__()
        self.ages = Delays()

    def measured(self) -> list[Measured]:
        return [
            Measured("a price is made → seen", self.ages),
            Measured("watch list → marked", self.ledger.delays),
        ]

    async def visit(self, visitor: Visitor) -> None:
        page = await visitor.open("/quotes/")
        instruments = [int(number) for number in re.findall(r'<tr data-id="(\d+)"', page)]
        watching: set[int] = set()
        seq = 0
        asking: asyncio.Task[None] | None = None

        def told(event: dict[str, Any]) -> None:
            nonlocal seq, asking
            if event["type"] == "welcome":
                watching.update(event["watching"])
            elif event["type"] == "snapshot":
                seq, asking = event["seq"], None
            elif event["type"] == "delta":
                self.ages.add(time.time() - event["at"])
                if asking is None and event["from"] > seq:
                    # Whoever takes the market over begins anew; anything else was lost.
                    self.lost += event["from"] // self.TERM == seq // self.TERM
                    asking = asyncio.create_task(socket.send('{"type": "snapshot"}'))
                elif asking is None:
                    seq = event["seq"]
            elif event["type"] == "watching":
                self.ledger.seen((visitor.number, event["instrument"]), visitor.number)

        async with visitor.live("/ws/quotes/", told) as socket:
            rate = self.RATES[visitor.number % len(self.RATES)]
            await socket.send(json.dumps({"type": "rate", "per_second": rate}))
            while await visitor.pause(self.EVERY_S):
                instrument = visitor.chance.choice(instruments)
                await socket.send(json.dumps({"type": "look", "instrument": instrument}))
                watching ^= {instrument}
                self.ledger.sent((visitor.number, instrument), [visitor.number])
                marked = {"instrument": instrument, "watching": instrument in watching}
                await socket.send(json.dumps({"type": "watch", **marked}))
            await visitor.run.closing.wait()


class FourWays(Application):
    """One feed in four ways at once: a page starts them now and then, and looks for a while.

    Most of the time a page is open with nothing started: then its own WebSocket is all it has. One
    in eight of these pages has all four ways on at any time, at ten messages a second: that is up
    to fifteen requests a second, each of which Django answers.
    """

    title = "Four ways"
    REST_S = 56.0
    WATCH_S = 8.0
    POLL_EVERY_S = 0.2
    QUESTIONS = 5

    def __init__(self) -> None:
        super().__init__()
        self.socket, self.stream, self.wait, self.poll = (Delays() for _ in range(4))

    def measured(self) -> list[Measured]:
        return [
            Measured("born → seen over the WebSocket", self.socket),
            Measured("born → seen as a server-sent event", self.stream),
            Measured("born → seen by long polling", self.wait),
            Measured("born → seen by polling (200 ms)", self.poll, bound_s=0.2 + self.POLL_EVERY_S),
        ]

    async def visit(self, visitor: Visitor) -> None:
        await visitor.open("/polling/")
        query = f"run={uuid.uuid4()}"

        def told(_: dict[str, Any]) -> None:
            """Take what the ways cost: it is drawn, and nothing else is done with it."""

        async with visitor.live(f"/ws/polling/?{query}", told) as socket:
            for _ in range(self.QUESTIONS):
                asked = {"type": "clock", "asked": time.monotonic() * 1000}
                await socket.send(json.dumps(asked))
                await asyncio.sleep(0.2)
            while await visitor.pause(self.REST_S):
                await self._watch(visitor, f"{query}&rate=10")
            await visitor.run.closing.wait()

    async def _watch(self, visitor: Visitor, query: str) -> None:
        """Start all four, look, and stop them when each has come as far as any had."""
        socket, stream, wait, poll = ways = [
            Heard(delays) for delays in (self.socket, self.stream, self.wait, self.poll)
        ]
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(each)
                for each in (
                    self._connect(visitor, f"/ws/polling/feed/?{query}", socket),
                    visitor.hear(f"/polling/stream/?{query}", stream.take),
                    self._ask(visitor, f"/polling/wait/?{query}", wait, 0),
                    self._ask(visitor, f"/polling/poll/?{query}", poll, self.POLL_EVERY_S),
                )
            ]
            await visitor.pause(self.WATCH_S)
            last = max(way.last or 0 for way in ways)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE_S):
                    while any((way.last or 0) < last for way in ways):  # noqa: ASYNC110
                        await asyncio.sleep(0.05)
            for task in tasks:
                task.cancel()
        self.lost += sum(way.lost(last) for way in ways)

    @staticmethod
    async def _connect(visitor: Visitor, path: str, way: "Heard") -> None:
        async with visitor.live(path, way.take, asks=False):
            await asyncio.Event().wait()

    @staticmethod
    async def _ask(visitor: Visitor, path: str, way: "Heard", every_s: float) -> None:
        after = ""
        while True:
            began = time.monotonic()
            answer = await visitor.ask(path + after)
            for message in answer["messages"]:
                way.take(message)
            after = f"&after={answer['last']}"
            await asyncio.sleep(max(0, every_s - (time.monotonic() - began)))


class Heard:
    """What has come in one of the four ways: every number from the first, or some are lost."""

    def __init__(self, delays: Delays) -> None:
        self._delays = delays
        #: The number of the last message; None before the first.
        self.last: int | None = None
        self._left_out = 0

    def take(self, message: dict[str, Any]) -> None:
        if message.get("missed"):
            return  # the next number tells how many
        if self.last is not None:
            self._left_out += message["id"] - self.last - 1
        self.last = message["id"]
        self._delays.add(time.time() - message["born"])

    def lost(self, last: int) -> int:
        """Return how many have not come, up to the number ``last``."""
        if self.last is None:
            return int(last > 0)
        return self._left_out + max(0, last - self.last)


class Documents(Application):
    """A text of several: a few words now and then, a key at a time, and the cursor with each.

    Once nobody writes any more, all pages of a document have the same text, or one is lost.
    """

    title = "Documents"
    #: What they are called, and how many there are.
    NAME = "Written together"
    COUNT = 3
    EVERY_S = 8.0
    KEY_EVERY_S = 0.2
    TYPOS = 0.05
    WORDS = ("who brings plums? ", "not before noon. ", "soup for forty, ", "ask Edith first. ")

    def __init__(self) -> None:
        super().__init__()
        self._here: dict[str, dict[int, Peer]] = {}

    def measured(self) -> list[Measured]:
        return [Measured("a key → in the text of another", self.ledger.delays)]

    async def visit(self, visitor: Visitor) -> None:
        found = rf'href="/documents/(\d+)/".* dir="auto">{self.NAME} '
        number = visitor.chance.choice(re.findall(found, await visitor.open("/documents/")))
        await visitor.open(f"/documents/{number}/")
        here = self._here.setdefault(number, {})
        peer = Peer(lambda client, step: self.ledger.seen((client, step), visitor.number))

        def told(_: Any) -> None:
            raise ValueError("the y-protocols are binary")

        path = f"/ws/documents/{number}"
        async with (
            visitor.live(path, told, peer.hear, asks=False) as socket,
            asyncio.TaskGroup() as group,
        ):
            speaking = group.create_task(peer.speak(socket))
            async with asyncio.timeout(PATIENCE_S):
                await peer.synced.wait()
            here[visitor.number] = peer
            try:
                while await visitor.pause(self.EVERY_S):
                    await self._write(visitor, peer, here)
                await visitor.run.closing.wait()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(PATIENCE_S):
                        while any(each.text != peer.text for each in here.values()):  # noqa: ASYNC110
                            await asyncio.sleep(0.05)
                self.lost += next(iter(here.values())).text != peer.text
            finally:
                del here[visitor.number]
                speaking.cancel()

    async def _write(self, visitor: Visitor, peer: Peer, here: dict[int, Peer]) -> None:
        """Go somewhere in the text, and write a few words there; some keys are wrong ones."""
        peer.point(visitor.chance.random())
        for right in visitor.chance.choice(self.WORDS):
            is_typo = visitor.chance.random() < self.TYPOS
            for character in "#" * is_typo + right:
                if not await visitor.pause(self.KEY_EVERY_S):
                    return
                self.ledger.sent((peer.client, peer.steps + 1), here.keys() - {visitor.number})
                peer.type(character)
                if character == "#" and await visitor.pause(self.KEY_EVERY_S):
                    peer.erase()


def token_in(text: str) -> str:
    """Return the 32 hexadecimal digits in a text, by which it is known again."""
    found = re.search("[0-9a-f]{32}", text)
    return found[0] if found else ""


def site() -> tuple[Bell, list[Application]]:
    """Return the bell, which is on every page, and the applications with pages of their own."""
    bell = Bell()
    others = [Danmaku(), Arena(), Quotes(), FourWays(), Documents()]
    return bell, [Chat(), Board(bell), *others]
