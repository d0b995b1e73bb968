"""``python3 -m attack.bystander HOST PORT WEBSOCKET PATH``: a good client, that measures.

It speaks steadily by a WebSocket that echoes (``-``: by none), and asks for a path.

Rules of this file:

- It runs in a process of its own, so that an attacker's work is not taken for the server's.
- An operation is timed from when it was due, not from when it began: what a stall kept from
  beginning is counted, too.
- The end of its standard input is its own; then it prints what it has measured, as JSON.
"""

import json
import select
import socket
import sys
import time
from typing import Any

from .enemy import frame, handshake, request

__all__ = ["main"]

#: Both operations, so often in a second.
RATE = 80.0
#: An answer that takes longer has failed.
PATIENCE_S = 10.0
WORDS = b"a steady voice " * 6
ANSWER = bytes([0x81, len(WORDS)]) + WORDS


class Bystander:
    """A WebSocket that says something and hears it, and a connection for requests."""

    def __init__(self, address: tuple[str, int], websocket: str, path: str) -> None:
        self._address = address
        self._websocket = websocket
        self._path = path
        self._operations = {"http": self._get}
        if websocket != "-":
            self._operations["websocket"] = self._echo
        self._socks: dict[str, socket.socket] = {}
        #: (operation, when it was due, how long it took; None: it failed)
        self.samples: list[tuple[str, float, float | None]] = []
        self.problems: list[str] = []

    def run(self) -> None:
        due = time.monotonic()
        while not select.select([sys.stdin], [], [], max(0.0, due - time.monotonic()))[0]:
            for name, operation in self._operations.items():
                self._measure(name, operation, due)
            due += 1 / RATE
            if due < time.monotonic() - PATIENCE_S:  # it was asleep itself
                due = time.monotonic()

    def _measure(self, name: str, operation: Any, due: float) -> None:
        try:
            operation()
        except OSError as error:
            took_s = None
            self._forget(name)
            if len(self.problems) < 20:
                self.problems.append(f"{name}: {error!r}")
        else:
            took_s = time.monotonic() - due
        self.samples.append((name, due, took_s))

    def _echo(self) -> None:
        sock = self._socks.get("websocket")
        if sock is None:
            sock = self._connect("websocket")
            sock.sendall(handshake(self._websocket))
            head = self._read(sock, until=b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 101 "):
                raise OSError(f"the handshake was answered by {head[:80]!r}")
        sock.sendall(frame(1, WORDS))
        answer = self._read(sock, size=len(ANSWER))
        if answer != ANSWER:
            raise OSError(f"the echo was {answer[:80]!r}")

    def _get(self) -> None:
        sock = self._socks.get("http") or self._connect("http")
        sock.sendall(request(f"GET {self._path} HTTP/1.1"))
        answer = self._read(sock, until=b"\r\n\r\n")
        if not answer.startswith(b"HTTP/1.1 200 "):
            raise OSError(f"the answer was {answer[:80]!r}")
        head, _, body = answer.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"\r\ncontent-length: ")[2].split(b"\r\n")[0])
        self._read(sock, size=length - len(body))

    def _connect(self, name: str) -> socket.socket:
        sock = socket.create_connection(self._address, PATIENCE_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socks[name] = sock
        return sock

    def _forget(self, name: str) -> None:
        sock = self._socks.pop(name, None)
        if sock is not None:
            sock.close()

    def _read(self, sock: socket.socket, *, until: bytes = b"", size: int = 0) -> bytes:
        data = b""
        while until not in data if until else len(data) < size:
            more = sock.recv(65536)
            if not more:
                raise OSError(f"the connection ended after {data[:80]!r}")
            data += more
            if data[:1] == b"\x88":
                raise OSError(f"the server closed with {data[2:]!r}")
            while data[:1] == b"\x89" and len(data) >= 2 + data[1]:  # it asks whether we are there
                sock.sendall(frame(0xA, data[2 : 2 + data[1]]))
                data = data[2 + data[1] :]
        return data


def main() -> int:
    host, port, websocket, path = sys.argv[1:]
    bystander = Bystander((host, int(port)), websocket, path)
    bystander.run()
    json.dump({"samples": bystander.samples, "problems": bystander.problems}, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
