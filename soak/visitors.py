"""Who comes to the site: WebSockets that stay for a while and leave in every way, and requests.

Rules of this file:

- There are always as many visitors: who leaves is followed by another, in another room.
- Everything that is said must come back. What does not within ``PATIENCE_S`` is a failure; so is
  an end that neither the visitor nor a drain of the server asked for.
- What is random comes from the seed.
"""

import asyncio
import contextlib
import random
import time
from collections import Counter
from dataclasses import dataclass, field

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

__all__ = ["Crowd", "Load"]

#: How long an answer may take on a machine that does other things too.
PATIENCE_S = 20.0
#: Close codes of a server that lets its clients go in peace: they come again.
FAREWELLS = {1001, 1012}
#: So many kinds of failures are kept in words; all are counted.
DESCRIBED = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How much of everything; the defaults cost server and clients a tenth of a core each."""

    visitors: int = 100
    #: They come one by one for so long, not all in one instant.
    arrive_s: float = 5.0
    stay_s: float = 20.0
    say_every_s: float = 2.0
    requests_per_s: float = 10.0
    rooms: int = 12
    #: After so long all rooms have other names: groups form and dissolve.
    rooms_last_s: float = 30.0


@dataclass(slots=True)
class Crowd:
    """All clients together, and what they have seen."""

    address: tuple[str, int]
    load: Load
    seed: str
    seen: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    #: The slowest answer since this was last set to 0.
    slowest_s: float = 0.0
    _chance: random.Random = field(init=False)
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)
    _sockets: int = 0

    def __post_init__(self) -> None:
        self._chance = random.Random(self.seed)

    @property
    def failures(self) -> int:
        return self.seen["failures"]

    async def run(self, until: float) -> None:
        """Be there until then (of ``time.monotonic()``)."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self.load.visitors):
                group.create_task(self._seat(until))
            group.create_task(self._requests(until))

    async def _seat(self, until: float) -> None:
        """One visitor after the other, without a break."""
        await asyncio.sleep(self._chance.uniform(0, self.load.arrive_s))
        while time.monotonic() < until:
            stays_s = self._chance.expovariate(1 / self.load.stay_s)
            try:
                await self._visit(min(time.monotonic() + stays_s, until))
            except ConnectionClosed as error:
                code = error.rcvd.code if error.rcvd else 1006
                if code in FAREWELLS:
                    self.seen["farewells"] += 1
                    await asyncio.sleep(self._chance.uniform(0, 1))
                else:
                    self._fail(f"a connection ended with {code}")
            except (TimeoutError, OSError, EOFError) as error:
                self._fail(f"a visitor failed: {error!r}")
                await asyncio.sleep(1)

    async def _visit(self, until: float) -> None:
        chance = self._chance
        epoch = int(time.monotonic() / self.load.rooms_last_s)
        kind = "sync" if chance.random() < 0.2 else "room"
        room = f"{kind}/{epoch}.{chance.randrange(self.load.rooms)}"
        url = f"ws://{self.address[0]}:{self.address[1]}/{room}"
        compression = chance.choice(["deflate", None])
        async with asyncio.timeout(PATIENCE_S):
            connection = await connect(url, compression=compression, ping_interval=None)
        self.seen["websockets"] += 1
        self._sockets += 1
        try:
            while time.monotonic() < until:
                await self._say(connection)
                pause_s = chance.expovariate(1 / self.load.say_every_s)
                await self._listen(connection, min(pause_s, until - time.monotonic()))
            await self._leave(connection)
        finally:
            self._sockets -= 1
            connection.transport.abort()

    async def _say(self, connection: ClientConnection) -> None:
        """Say something, and hear it."""
        text = f"{self._chance.choice(' !')}{self._chance.getrandbits(64):x} "
        text += "and so on " * int(self._chance.expovariate(1 / 20))
        said: str | bytes = text if self._chance.random() < 0.8 else text.encode()
        began = time.monotonic()
        async with asyncio.timeout(PATIENCE_S):
            await connection.send(said)
            while await self._hear(connection) != said:
                pass
        self.slowest_s = max(self.slowest_s, time.monotonic() - began)
        self.seen["said"] += 1

    async def _listen(self, connection: ClientConnection, for_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(for_s):
                while True:
                    await self._hear(connection)

    async def _hear(self, connection: ClientConnection) -> str | bytes:
        message = await connection.recv()
        self.seen["heard"] += 1
        return message

    async def _leave(self, connection: ClientConnection) -> None:
        """Politely, by the end of the stream, or by a reset."""
        manner = self._chance.random()
        if manner < 0.7:
            async with asyncio.timeout(PATIENCE_S):
                await connection.close()
        elif manner < 0.85:
            connection.transport.write_eof()
            await asyncio.sleep(0.05)
        # Else it vanishes: the caller aborts the transport.

    async def _requests(self, until: float) -> None:
        while time.monotonic() < until:
            try:
                await self._request_some(until)
            except (TimeoutError, OSError, EOFError, ValueError) as error:
                self._fail(f"a request failed: {error!r}")
                await asyncio.sleep(1)

    async def _request_some(self, until: float) -> None:
        """A connection and some requests on it."""
        reader, writer = await asyncio.open_connection(*self.address)
        try:
            for _ in range(self._chance.randrange(1, 30)):
                if time.monotonic() >= until:
                    return
                body = self._chance.randbytes(self._chance.randrange(0, 4096))
                head = "POST / HTTP/1.1\r\nHost: localhost\r\n"
                head += f"Content-Length: {len(body)}\r\n\r\n"
                began = time.monotonic()
                async with asyncio.timeout(PATIENCE_S):
                    writer.write(head.encode() + body)
                    answer, closes = await _read_response(reader)
                if answer != body:
                    raise ValueError(f"{len(body)} bytes came back as {len(answer)} others")
                self.slowest_s = max(self.slowest_s, time.monotonic() - began)
                self.seen["requests"] += 1
                await asyncio.sleep(self._chance.expovariate(self.load.requests_per_s))
                if closes or reader.at_eof():  # a drain
                    return
        finally:
            writer.close()

    def _fail(self, problem: str) -> None:
        self.seen["failures"] += 1
        if len(self.problems) < DESCRIBED:
            self.problems.append(f"{time.strftime('%H:%M:%S')} {problem}")


async def _read_response(reader: asyncio.StreamReader) -> tuple[bytes, bool]:
    """The body of one response with a length, and whether it is the connection's last."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    first, *lines = head.decode("latin-1").split("\r\n")
    if first.split()[1] != "200":
        raise ValueError(f"the answer was {first!r}")
    fields = dict(line.split(": ", 1) for line in lines if line)
    body = await reader.readexactly(int(fields["content-length"]))
    return body, fields.get("connection") == "close"
