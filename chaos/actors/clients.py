"""Browsers, as a site sees them: some read what they are sent, some read nothing at all.

Rules of this file:

- One that reads comes again when its connection has ended, as another member. Its time begins
  when the handshake is through: the server's consumer has joined its groups by then.
- One that does not read keeps its socket open, and a small buffer, until it is cut off.
"""

import asyncio
import contextlib
import itertools
import json
import logging
import socket
from pathlib import Path

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from ..journal import Journal
from .directions import directions, part, say

PART = part()
NAME: str = PART["name"]
URL = f"ws://127.0.0.1:{PART['port']}/"
#: Who was turned away comes again after so long.
PAUSE_S = 0.1
REQUEST = (
    f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{PART['port']}\r\nUpgrade: websocket\r\n"
    "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    "Sec-WebSocket-Version: 13\r\n\r\n"
)

journal = Journal(Path(PART["journal"]))
numbers = itertools.count(1)


async def visit(opened: asyncio.Semaphore) -> None:
    """Keep a connection, and write down what it brings."""
    while True:
        member = f"{NAME}/{next(numbers)}"
        try:
            async with connect(URL, max_size=None, max_queue=None, compression=None) as socket:
                for group in PART["groups"]:
                    journal.joined(member, f"group:{group}")
                opened.release()
                await listen(member, socket)
        except (OSError, InvalidHandshake) as error:
            logging.getLogger("chaos").info("%s: %r", member, error)
        await asyncio.sleep(PAUSE_S)


async def listen(member: str, socket: object) -> None:
    try:
        async for text in socket:  # type: ignore[attr-defined]
            event = json.loads(text)
            if event["type"] == "layer.gap":
                journal.gap(member, event.get("groups"), event["reason"])
            else:
                journal.got(member, event["target"], event["sender"], event["number"])
        why = "closed"
    except ConnectionClosed as closed:
        why = str(closed)
    journal.ended(member, why)
    logging.getLogger("chaos").info("%s: %s", member, why)


def ignore() -> socket.socket:
    """Open a connection that nobody reads."""
    client = socket.create_connection(("127.0.0.1", PART["port"]), timeout=10)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.sendall(REQUEST.encode())
    head = b""
    while b"\r\n\r\n" not in head:
        head += client.recv(1)
    return client


async def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    opened = asyncio.Semaphore(0)
    visits = [asyncio.create_task(visit(opened)) for _ in range(PART["members"])]
    for _ in visits:
        await opened.acquire()
    with contextlib.ExitStack() as silent:
        for _ in range(PART["silent"]):
            silent.enter_context(await asyncio.to_thread(ignore))
        say(ready=True)
        async for direction in directions():
            if "stop" in direction:
                break
        for task in visits:
            task.cancel()
        await asyncio.gather(*visits, return_exceptions=True)
    journal.over()


if __name__ == "__main__":
    asyncio.run(main())
