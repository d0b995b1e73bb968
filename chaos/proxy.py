"""A network that can fail: what stands between an application and a server.

Rules of this file:

- It runs on a thread of its own, and any thread may let it fail.
- While it *holds*, bytes wait on either side and come later, as on a network that stalls. While
  it *swallows*, bytes are gone; whoever lost some is cut off afterwards, for the rest of a stream
  with a hole makes no sense.
"""

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from typing import Self

__all__ = ["Proxy"]

#: ``SO_LINGER`` for a close without farewell: the other side sees a reset.
ABORT = struct.pack("ii", 1, 0)


class Proxy:
    """Forwards connections from a free port of the loopback to a port."""

    def __init__(self, target_port: int) -> None:
        self.target_port = target_port
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="proxy")
        self._listening = threading.Event()
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._flowing: asyncio.Event
        self._end: asyncio.Event
        self._swallowing = False

    def __enter__(self) -> Self:
        self._thread.start()
        self._listening.wait()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._call(self._end.set)
        self._thread.join()

    def cut(self) -> None:
        """Reset every connection."""
        self._call(self._cut)

    def hold(self) -> None:
        """Let nothing through until ``release``."""
        self._call(self._flowing.clear)

    def swallow(self) -> None:
        """Let bytes vanish until ``release``."""
        self._call(self._swallow, True)

    def release(self) -> None:
        """Let everything through again."""
        self._call(self._release)

    def _call(self, function: Callable[..., None], *args: object) -> None:
        done = threading.Event()

        def call() -> None:
            function(*args)
            done.set()

        self._loop.call_soon_threadsafe(call)
        done.wait()

    def _swallow(self, swallowing: bool) -> None:
        self._swallowing = swallowing

    def _release(self) -> None:
        if self._swallowing:
            self._cut()
        self._swallowing = False
        self._flowing.set()

    def _cut(self) -> None:
        for writer in self._writers:
            connection: socket.socket = writer.get_extra_info("socket")
            with contextlib.suppress(OSError):
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
            writer.transport.abort()

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        self._flowing, self._end = asyncio.Event(), asyncio.Event()
        self._flowing.set()
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._listening.set()
        await self._end.wait()
        server.close()
        self._cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        ends = {writer}
        self._writers |= ends
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self.target_port)
            ends.add(back)
            self._writers |= ends
            pumps = [
                asyncio.ensure_future(self._pump(reader, back)),
                asyncio.ensure_future(self._pump(there, writer)),
            ]
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
        except (OSError, asyncio.CancelledError):
            pass  # nobody listens there, or this is the end: either way the connection is over
        finally:
            self._writers -= ends
            for end in ends:
                end.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            await self._flowing.wait()
            if not self._swallowing:
                writer.write(data)
                await writer.drain()
