"""``python3 -m attack.bystander HOST PORT WEBSOCKET PATH``: a good client, that measures.

It speaks steadily by a WebSocket that echoes (``-``: by none), and asks for a path.

Rules of this file:

- It runs in a process of its own, so that an attacker's work is not taken for the server's.
- It asks when it is time to, whether the last answer has come or not, and an answer is timed from
  when its question was due: what a stall kept from being asked is counted, too.
- A line says that each of its connections has had an answer, for until then the server's
  descriptors grow by them.
- The end of its standard input is its own; then it prints what it has measured, as JSON.
"""

import itertools
import json
import select
import socket
import sys
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator

from .enemy import frame, handshake, request

__all__ = ["main"]

#: Questions of each kind in a second.
RATE = 80.0
#: Connections that take turns with requests.
VISITORS = 16
#: An answer that takes longer has failed.
PATIENCE_S = 10.0
WORDS = b"a steady voice " * 6


class Way(ABC):
    """One connection, its questions, and when the answers came."""

    name: str

    def __init__(self, address: tuple[str, int], path: str) -> None:
        self._address = address
        self.path = path
        self.sock: socket.socket | None = None
        self._read = b""
        #: When those questions were due that have no answer yet.
        self._asked: deque[float] = deque()
        #: When a question was due, and how long its answer took; None: there was none.
        self.samples: list[tuple[str, float, float | None]] = []
        self.problems: list[str] = []

    def ask(self, due: float) -> None:
        self._asked.append(due)
        try:
            if self.sock is None:
                self.sock = socket.create_connection(self._address, PATIENCE_S)
                self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.open(self.sock)
            if self._asked[0] < due - PATIENCE_S:
                raise OSError(f"no answer in {PATIENCE_S:g} s")
            self.sock.sendall(self.question())
        except OSError as error:
            self.fail(error)

    def hear(self) -> None:
        assert self.sock is not None
        try:
            data = self.sock.recv(65536)
            if not data:
                raise OSError(f"the connection ended after {self._read[:80]!r}")
            self._read += data
            while length := self.answered(self._read):
                self._read = self._read[length:]
                due = self._asked.popleft()
                self.samples.append((self.name, due, time.monotonic() - due))
        except OSError as error:
            self.fail(error)

    def fail(self, error: OSError) -> None:
        self.samples += [(self.name, due, None) for due in self._asked]
        self._asked.clear()
        self._read = b""
        if self.sock is not None:
            self.sock.close()
            self.sock = None
        if len(self.problems) < 10:
            self.problems.append(f"{self.name}: {error!r}")

    def end(self) -> None:
        """What is still to come has had no time to."""
        if self._asked and self._asked[0] < time.monotonic() - PATIENCE_S:
            self.fail(OSError(f"no answer in {PATIENCE_S:g} s"))

    @abstractmethod
    def open(self, sock: socket.socket) -> None: ...

    @abstractmethod
    def question(self) -> bytes: ...

    @abstractmethod
    def answered(self, data: bytes) -> int:
        """The length of the answer that the bytes begin with; 0: it is not complete."""


class Requests(Way):
    """A connection that is asked for a path."""

    name = "http"

    def open(self, sock: socket.socket) -> None:
        pass

    def question(self) -> bytes:
        return request(f"GET {self.path} HTTP/1.1")

    def answered(self, data: bytes) -> int:
        head, end, _ = data.partition(b"\r\n\r\n")
        if not end:
            return 0
        if not head.startswith(b"HTTP/1.1 200 "):
            raise OSError(f"the answer was {head[:80]!r}")
        length = int(head.lower().partition(b"\r\ncontent-length: ")[2].split(b"\r\n")[0])
        whole = len(head) + 4 + length
        return whole if len(data) >= whole else 0


class Voice(Way):
    """A WebSocket that echoes."""

    name = "websocket"
    answer = bytes([0x81, len(WORDS)]) + WORDS

    def open(self, sock: socket.socket) -> None:
        sock.sendall(handshake(self.path))
        head = b""
        while b"\r\n\r\n" not in head:
            more = sock.recv(65536)
            if not more:
                break
            head += more
        if not head.startswith(b"HTTP/1.1 101 "):
            raise OSError(f"the handshake was answered by {head[:80]!r}")

    def question(self) -> bytes:
        return frame(1, WORDS)

    def answered(self, data: bytes) -> int:
        if data[:1] == b"\x88":
            raise OSError(f"the server closed with {data[2:60]!r}")
        if len(data) < len(self.answer):
            return 0
        if not data.startswith(self.answer):
            raise OSError(f"the echo was {data[:80]!r}")
        return len(self.answer)


def speak(ways: list[Way], turns: Iterator[list[Way]]) -> None:
    """Ask until the standard input ends."""
    due = time.monotonic()
    settled = False
    while True:
        if not settled and all(way.samples for way in ways):
            settled = True
            print(flush=True)
        now = time.monotonic()
        if now >= due:
            for way in next(turns):
                way.ask(due)
            due += 1 / RATE
            if due < now - PATIENCE_S:  # it was asleep itself
                due = now
            continue
        socks = {way.sock: way for way in ways if way.sock is not None}
        readable, _, _ = select.select([sys.stdin, *socks], [], [], due - now)
        for one in readable:
            if one is sys.stdin:
                return
            socks[one].hear()


def main() -> int:
    host, port, websocket, path = sys.argv[1:]
    address = host, int(port)
    # Visitors don't wait for each other: their requests come by connections of their own.
    visitors: list[Way] = [Requests(address, path) for _ in range(VISITORS)]
    voices: list[Way] = [Voice(address, websocket)] if websocket != "-" else []
    ways = [*visitors, *voices]
    speak(ways, ([visitor, *voices] for visitor in itertools.cycle(visitors)))
    for way in ways:
        way.end()
    samples = [sample for way in ways for sample in way.samples]
    problems = [problem for way in ways for problem in way.problems]
    json.dump({"samples": samples, "problems": problems}, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
