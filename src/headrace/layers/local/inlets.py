"""The way from the others into this process: a socket that listens, and one for each sender.

Rules of this file:

- All is read on one event loop at a time, the *seat*, on which the consumers live where there
  are any. It can move: between two turns of the old loop, or when that has ended.
- No call waits. What has not been read waits in the kernel, where a sender's end can't lose it.
- One turn reads a bounded piece of each connection.
- An end in the midst of a frame, or one that leaves a note of unsent frames (``peers.py``), is
  a gap.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable

from ...private import require_same_user
from .directory import Directory
from .wire import FrameReader, WireError

__all__ = ["Door"]

#: Connections that may wait to be accepted: as many as the system allows.
_BACKLOG = 4096
#: The piece that is read in one turn.
_PIECE_BYTES = 64 * 1024
#: How long nothing is accepted after that has failed.
_PAUSE_S = 1.0


class Door:
    """Where this process is reached.

    Args:
        process: This process.
        longest_bytes: The longest frame that is taken.
        take: Called for each frame.
        gap: Called with the reason why frames may be missing.
        refuse: Called with the reason why what came is no frame.
    """

    def __init__(
        self,
        process: str,
        *,
        longest_bytes: int,
        take: Callable[[bytes], None],
        gap: Callable[[str], None],
        refuse: Callable[[str], None],
    ) -> None:
        self._process = process
        self._longest_bytes = longest_bytes
        self._take = take
        self._gap = gap
        self._refuse = refuse
        self._seat: asyncio.AbstractEventLoop | None = None
        self._listener: socket.socket | None = None
        self._inlets: dict[int, _Inlet] = {}
        self.name = f"p-{process}"
        self.inode = 0

    def open(self, directory: Directory) -> None:
        """Listen in the directory; in the place of another, from which connections stay."""
        self._path = directory.path
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.setblocking(False)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(directory / self.name)
            listener.bind(directory / self.name)
            listener.listen(_BACKLOG)
            self.inode = os.lstat(directory / self.name).st_ino
        except BaseException:
            listener.close()
            raise
        seat = self.seat
        if seat is None:
            self._replace(listener)
        else:
            with contextlib.suppress(RuntimeError):
                seat.call_soon_threadsafe(self._replace, listener)

    def _replace(self, listener: socket.socket) -> None:
        old, seat = self._listener, self._seat
        if old is not None:
            if seat is not None and not seat.is_closed():
                if seat.is_running():
                    self._accept()
                seat.remove_reader(old.fileno())
            old.close()
        self._listener = listener
        if seat is not None and not seat.is_closed():
            seat.add_reader(listener.fileno(), self._accept)

    @property
    def seat(self) -> asyncio.AbstractEventLoop | None:
        """The loop on which frames are read, unless it has stopped."""
        seat = self._seat
        return seat if seat is not None and seat.is_running() else None

    def sit(self, here: asyncio.AbstractEventLoop) -> None:
        """Read on the loop that is running here, from now on or very soon."""
        seat = self.seat
        if seat is here:
            return
        if seat is None:
            self._leave(self._seat)
            self._enter(here)
        else:
            # What it is reading it reads to the end, so that the order stays.
            with contextlib.suppress(RuntimeError):  # closed meanwhile: whoever asks next sits
                seat.call_soon_threadsafe(self._move, seat, here)

    def _move(self, old: asyncio.AbstractEventLoop, new: asyncio.AbstractEventLoop) -> None:
        if self._seat is old:
            self._leave(old)
            try:
                new.call_soon_threadsafe(self._enter, new)
            except RuntimeError:
                self._enter(old)

    def _enter(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._seat is not None or self._listener is None:
            return
        self._seat = loop
        loop.add_reader(self._listener.fileno(), self._accept)
        for descriptor, inlet in self._inlets.items():
            loop.add_reader(descriptor, self._read, inlet)

    def _leave(self, loop: asyncio.AbstractEventLoop | None) -> None:
        self._seat = None
        if loop is not None and not loop.is_closed():
            for connection in self._connections():
                loop.remove_reader(connection.fileno())

    async def close(self) -> None:
        """Close all sockets, on the loop on which they are read."""
        seat = self.seat
        if seat is None or seat is asyncio.get_running_loop():
            self.shut()
            return
        closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        here = asyncio.get_running_loop()

        def close_there() -> None:
            self.shut()
            here.call_soon_threadsafe(tell)

        def tell() -> None:
            if not closed.done():
                closed.set_result(None)

        with contextlib.suppress(RuntimeError, TimeoutError):
            seat.call_soon_threadsafe(close_there)
            await asyncio.wait_for(closed, 1.0)
        self.shut()

    def shut(self, *, forked: bool = False) -> None:
        """Close all sockets: on their loop, or where it has stopped.

        Args:
            forked: Whether this is a child, and the loop is the parent's.
        """
        seat, self._seat = self._seat, None
        for connection in self._connections():
            if seat is not None and not seat.is_closed() and not forked:
                seat.remove_reader(connection.fileno())
            connection.close()
        self._listener = None
        self._inlets.clear()

    def _connections(self) -> list[socket.socket]:
        listener = [] if self._listener is None else [self._listener]
        return listener + [inlet.connection for inlet in self._inlets.values()]

    # On the seat

    def _accept(self) -> None:
        assert self._listener is not None
        while True:
            try:
                connection, _ = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:  # no descriptors left, for instance: it waits in the backlog
                self._refuse(f"a connection can't be accepted: {error}")
                self._pause()
                return
            try:
                require_same_user(connection)
            except PermissionError as error:
                self._refuse(str(error))
                connection.close()
                continue
            connection.setblocking(False)
            inlet = _Inlet(connection, FrameReader(self._longest_bytes))
            self._inlets[connection.fileno()] = inlet
            assert self._seat is not None
            self._seat.add_reader(connection.fileno(), self._read, inlet)

    def _pause(self) -> None:
        """Accept nothing for a while."""
        listener, seat = self._listener, self._seat
        assert listener is not None
        assert seat is not None

        def resume() -> None:
            if self._listener is listener and self._seat is seat:
                seat.add_reader(listener.fileno(), self._accept)

        seat.remove_reader(listener.fileno())
        seat.call_later(_PAUSE_S, resume)

    def _read(self, inlet: "_Inlet") -> None:
        try:
            data = inlet.connection.recv(_PIECE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._end(inlet)
            return
        try:
            frames = inlet.reader.receive(data)
        except WireError as error:
            self._refuse(str(error))
            self._end(inlet, broken=inlet.reader.process is not None)
            return
        for frame in frames:
            self._take(frame)

    def _end(self, inlet: "_Inlet", *, broken: bool = False) -> None:
        descriptor = inlet.connection.fileno()
        if self._inlets.pop(descriptor, None) is None:
            return
        assert self._seat is not None
        self._seat.remove_reader(descriptor)
        inlet.connection.close()
        reader = inlet.reader
        try:
            os.unlink(self._path / f"b-{self._process}-{reader.connection}")
            unsent = True
        except OSError:
            unsent = False
        if broken:
            self._gap("what came from another process was broken")
        elif unsent or (reader.process is not None and reader.amid):
            self._gap("a process has ended before all it had sent was under way")


class _Inlet:
    """One sender's connection."""

    __slots__ = ("connection", "reader")

    def __init__(self, connection: socket.socket, reader: FrameReader) -> None:
        self.connection = connection
        self.reader = reader
