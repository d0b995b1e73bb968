"""What an attack is, and the connections that it is made of.

Rules of this file:

- An attack is a class: how the server runs, what the enemy does, what it deserves for it.
- Whatever the server does to an enemy is an *outcome*: ``408`` (a status), ``close 1009`` (a close
  frame), ``end`` (the connection ended without either), ``reset``, ``held`` (still open when the
  attack was over). An outcome that is not deserved is a violation, and so is none at all.
- Enemies come from other addresses of loopback than the good client does.
"""

import asyncio
import contextlib
import random
import resource
import socket
import struct
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from typing import ClassVar, Self

__all__ = [
    "END",
    "HELD",
    "RESET",
    "Attack",
    "Enemy",
    "Field",
    "frame",
    "handshake",
    "raise_descriptor_limit",
    "request",
]

HELD, END, RESET = "held", "end", "reset"
MIB = 2**20


class Attack:
    """One thing that hostile clients do."""

    #: Its name on the command line; the first sentence of its docstring is its title.
    key: ClassVar[str]
    #: Options of ``headrace serve`` for it: mostly shorter times, so that their end is seen.
    serve: ClassVar[tuple[str, ...]] = ()
    #: What is served; the word PORT in a command stands for the port.
    application: ClassVar[str] = "attack.target:application"
    command: ClassVar[tuple[str, ...] | None] = None
    #: What the good client asks for: the path of its WebSocket, that of its requests, and how
    #: an answer begins.
    paths: ClassVar[tuple[str, str]] = ("/echo", "/")
    #: What the server may do to these enemies. It must do one of these.
    deserves: ClassVar[frozenset[str]]
    #: What the server's memory may grow by meanwhile.
    memory_bytes: ClassVar[int] = 48 * MIB
    #: How long descriptors may be kept beyond what the judge allows.
    lingers_s: ClassVar[float] = 0.0
    #: The attack goes on for as long as it is told to, but this in any case.
    least_s: ClassVar[float] = 0.0

    @classmethod
    def title(cls) -> str:
        return (cls.__doc__ or cls.key).split(".")[0].replace("\n    ", " ")

    async def assail(self, field: "Field") -> None:
        """Attack until ``field.over``; outcomes are noted there."""
        raise NotImplementedError


class Field:
    """Where it happens: the server's address, the time that is left, and what came of it."""

    def __init__(self, address: tuple[str, int], seconds: float, seed: str) -> None:
        self.address = address
        self.until = time.monotonic() + seconds
        self.chance = random.Random(seed)
        self.outcomes: Counter[str] = Counter()
        #: What was done so often: requests, frames, connections.
        self.blows = 0
        #: What the outcome alone does not say, such as a header that got through.
        self.violations: list[str] = []
        self._source = 0

    @property
    def over(self) -> bool:
        return time.monotonic() >= self.until

    @property
    def left_s(self) -> float:
        return max(0.0, self.until - time.monotonic())

    def wrong(self, violation: str) -> None:
        if violation not in self.violations and len(self.violations) < 20:
            self.violations.append(violation)

    async def connect(self, *, receive_buffer: int | None = None) -> "Enemy":
        """Come from the next of a few hundred addresses."""
        self._source = self._source % 250 + 1
        sock = socket.socket()
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        try:
            sock.bind((f"127.0.1.{self._source}", 0))
            await asyncio.get_running_loop().sock_connect(sock, self.address)
        except BaseException:
            sock.close()
            raise
        return Enemy(sock)

    async def crowd(
        self, number: int, each: Callable[["Enemy"], Awaitable[str | None]], *, again: bool = True
    ) -> None:
        """Let so many enemies do it at once, each as often as there is time."""

        async def one() -> None:
            while not self.over:
                try:
                    enemy = await self.connect()
                except OSError:  # the server, or the system, has no room: that is an answer
                    self.outcomes[END] += 1
                    await asyncio.sleep(0.05)
                    continue
                async with enemy:
                    outcome = await enemy.outcome_of(each(enemy), self.left_s)
                if outcome:
                    self.outcomes[outcome] += 1
                if not again:
                    return

        await asyncio.gather(*(one() for _ in range(number)))


class Enemy:
    """One connection, of the kind that does as it likes."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._loop = asyncio.get_running_loop()
        self._read = b""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.reset()

    async def send(self, data: bytes) -> None:
        await self._loop.sock_sendall(self.sock, data)
        await asyncio.sleep(0)  # who is never made to wait would hear nothing

    async def drip(self, data: Iterable[bytes], every_s: float) -> None:
        for piece in data:
            await self.send(piece)
            await asyncio.sleep(every_s)

    async def read(self) -> bytes:
        """Some bytes; none: the end."""
        if self._read:
            data, self._read = self._read, b""
            return data
        return await self._loop.sock_recv(self.sock, 65536)

    async def read_until(self, end: bytes) -> bytes:
        data = b""
        while end not in data:
            more = await self.read()
            if not more:
                raise EOFError(data)
            data += more
        head, end, self._read = data.partition(end)
        return head + end

    async def read_to_end(self) -> bytes:
        data = b""
        with contextlib.suppress(ConnectionError):
            while more := await self.read():
                data += more
        return data

    async def status(self) -> str:
        """The status of the next response, or that there is none."""
        try:
            head = await self.read_until(b"\r\n\r\n")
        except EOFError:
            return END
        return head.split(b" ", 2)[1].decode()

    async def open_websocket(self, path: str = "/echo", *headers: str) -> str | None:
        """None where it is open, else what came instead."""
        await self.send(handshake(path, *headers))
        status = await self.status()
        return None if status == "101" else status

    async def close_code(self) -> str:
        """Read on until a close frame, or the end."""
        while True:
            head = await self.exactly(2)
            if not head:
                return END
            length = head[1] & 0x7F
            if length >= 126:
                length = int.from_bytes(await self.exactly(2 if length == 126 else 8))
            payload = await self.exactly(length)
            if head[0] & 0x0F == 8:
                return f"close {int.from_bytes(payload[:2])}"

    async def exactly(self, count: int) -> bytes:
        """So many bytes; none: the connection ended before."""
        data = b""
        while len(data) < count:
            more = await self.read()
            if not more:
                return b""
            data += more
        data, self._read = data[:count], data[count:] + self._read
        return data

    async def outcome_of(self, doing: Awaitable[str | None], within_s: float) -> str | None:
        """What it returns; where it goes on for longer, that the connection was held."""
        try:
            async with asyncio.timeout(within_s):
                return await doing
        except TimeoutError:
            return HELD
        except EOFError:
            return END
        except (ConnectionError, BrokenPipeError):
            return RESET

    async def while_sending(self, sending: Awaitable[None], reading: Awaitable[str]) -> str:
        """Send for as long as it is taken; what counts is what is read."""
        sender = asyncio.ensure_future(sending)
        try:
            return await reading
        finally:
            sender.cancel()
            await asyncio.wait([sender])
            if not sender.cancelled():
                sender.exception()

    def reset(self) -> None:
        """Vanish: the other side gets a reset."""
        with contextlib.suppress(OSError):
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


def request(first: str, *fields: str, host: str | None = "localhost", body: bytes = b"") -> bytes:
    lines = [first, *([f"Host: {host}"] if host is not None else []), *fields, "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


def handshake(path: str, *fields: str) -> bytes:
    return request(
        f"GET {path} HTTP/1.1",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        *fields,
    )


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0) -> bytes:
    """A frame under a mask of zeroes, which is as good as any other."""
    length = len(payload)
    head = bytes([opcode | (0x80 if fin else 0) | rsv])
    if length < 126:
        head += bytes([0x80 | length])
    elif length < 2**16:
        head += b"\xfe" + struct.pack("!H", length)
    else:
        head += b"\xff" + struct.pack("!Q", length)
    return head + bytes(4) + payload


def raise_descriptor_limit() -> int:
    """Take as many descriptors as the system allows, and say how many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
