"""The ways from this process to the others: one socket to each, written to at once.

Rules of this file:

- A frame is in the kernel's hands when ``send`` returns: what happens to this process
  afterwards can't lose it. No event loop is needed, and none is blocked.
- What the kernel does not take, because the other process reads slowly, waits in a bounded
  buffer, which a thread empties as room comes. Nothing overtakes it. While anything waits, a
  file in the directory says so: the other process finds it when this one is killed, and
  knows that something may be missing.
- A sender may wait for the buffer of a slow process, but not for long: each has a *credit* of
  time, which it gets back as it reads. Who has used it up is waited for by nobody.
- Beyond the bound, a frame is refused: its sender is told, or the other process is as soon as
  it reads again, by a frame that names the groups.
"""

import asyncio
import contextlib
import os
import secrets
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from enum import Enum, auto

from ...private import require_same_user
from . import wire
from .directory import Directory

__all__ = ["Flusher", "Outcome", "Peer", "new_waiter", "wait_for", "wait_for_sync"]

#: How many bytes the kernel is asked to hold for a process that is busy; it may grant less.
_KERNEL_BYTES = 1024 * 1024
#: Whatever a program does about SIGPIPE, a process that is gone is no reason to end.
_FLAGS = getattr(socket, "MSG_NOSIGNAL", 0)
#: For how long a process that reads slowly may be waited for, and the part of the time since
#: then by which that grows again.
_CREDIT_S, _CREDIT_GROWTH = 0.5, 0.5
#: Beyond so many groups, a gap is one of everything.
_MOST_GROUPS = 1000


class Outcome(Enum):
    """What has become of a frame."""

    #: The kernel has it.
    SENT = auto()
    #: It waits in this process for room.
    KEPT = auto()
    #: There was no room for it.
    REFUSED = auto()
    #: The other process is gone, or will not take frames of this one.
    GONE = auto()


def new_waiter() -> "Future[None]":
    """Return a future that is waited for and not cancelled."""
    waiter: Future[None] = Future()
    waiter.set_running_or_notify_cancel()
    return waiter


class Peer:
    """The way to one process.

    Args:
        process: Whose way it is.
        own: The process that sends.
        directory: Where the sockets are.
        flusher: Who empties the buffer.
        buffer_bytes: How much may wait in it; one frame may, whatever its size.
    """

    def __init__(
        self, process: str, own: str, directory: Directory, flusher: "Flusher", buffer_bytes: int
    ) -> None:
        self.process = process
        self._own = own
        self._directory = directory
        self._flusher = flusher
        self._bound = buffer_bytes
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._closed = False
        # What waits, each with its length before it; of the first, so much is written.
        self._frames: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._written = 0
        self._note = ""
        self._said = False
        self._waiters: list[Future[None]] = []
        self._credit_s = _CREDIT_S
        self._credit_at = time.monotonic()
        # What was refused since there was room: groups (None: too many), and a frame each.
        self._missed: set[str] | None = set()
        self._refused = 0
        self._at_last: dict[bytes, None] = {}

    # Senders

    def send(self, frame: bytes, group: str | None = None, *, at_last: bool = False) -> Outcome:
        """Write the frame.

        Args:
            frame: What to send.
            group: The group whose members miss something if the frame is refused.
            at_last: Send it, when it is refused now, as soon as there is room again.
        """
        data = wire.prefixed(frame)
        with self._lock:
            if self._closed:
                return Outcome.GONE
            if self._frames:
                return self._keep(data, group, at_last=at_last)
            for _ in range(2):
                try:
                    if self._socket is None:
                        self._connect()
                    assert self._socket is not None
                    written = self._socket.send(data, _FLAGS)
                except BlockingIOError:
                    written = 0
                except OSError:
                    # Gone since the last frame. It may have come again, by the same name.
                    self._hang_up()
                    continue
                if written == len(data):
                    return Outcome.SENT
                return self._keep(data, group, written=written, at_last=at_last)
        return Outcome.GONE

    @contextlib.contextmanager
    def waiting(self, until: float | None = None) -> Iterator[tuple["Future[None]", float]]:
        """Give what is done when nothing waits here any more, and how long to wait for it.

        Args:
            until: Wait so long (monotonic seconds), and not as long as the credit is.
        """
        waiter = new_waiter()
        began = time.monotonic()
        with self._lock:
            if self._frames:
                self._waiters.append(waiter)
            else:
                waiter.set_result(None)
            patience_s = self._credit_s if until is None else max(until - began, 0.0)
        try:
            yield waiter, patience_s
        finally:
            with self._lock:
                self._credit_s = max(self._credit_s - (time.monotonic() - began), 0.0)
                if waiter in self._waiters:
                    self._waiters.remove(waiter)

    def close(self) -> None:
        """Hang up; what waits is lost."""
        with self._lock:
            self._closed = True
            self._hang_up()
            self._empty()

    def abandon(self) -> None:
        """Let go in a forked child: the files and locks are the parent's."""
        if self._socket is not None:
            self._socket.close()

    # The flusher

    def fileno(self) -> int:
        """Return the socket's descriptor, or -1 where there is none."""
        connection = self._socket
        return -1 if connection is None else connection.fileno()

    def flush(self) -> None:
        """Write what waits, as far as it goes."""
        with self._lock:
            while self._frames:
                try:
                    if self._socket is None:
                        self._connect()
                        self._say()
                        self._written = 0
                    assert self._socket is not None
                    with memoryview(self._frames[0]) as first:
                        self._written += self._socket.send(first[self._written :], _FLAGS)
                except BlockingIOError:
                    return
                except OSError:
                    if not self._hang_up():
                        self._frames.clear()
                        break
                    continue
                if self._written == len(self._frames[0]):
                    self._waiting_bytes -= len(self._frames.popleft())
                    self._written = 0
                    if not self._frames:
                        self._make_up()
            self._empty()

    # Within the lock

    def _connect(self) -> None:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.setblocking(False)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _KERNEL_BYTES)
            try:
                connection.connect(self._directory / f"p-{self.process}")
            except BlockingIOError:
                raise ConnectionRefusedError("too many connections wait there") from None
            require_same_user(connection)
            number = secrets.token_hex(8)
            connection.send(wire.greeting(self._own, number), _FLAGS)
        except BaseException:
            connection.close()
            raise
        self._socket = connection
        self._note = self._directory / f"b-{self.process}-{number}"

    def _hang_up(self) -> bool:
        """Close the socket; tell whether there was one."""
        connection, self._socket = self._socket, None
        if connection is not None:
            connection.close()
        self._unsay()
        return connection is not None

    def _keep(
        self, data: bytes, group: str | None, *, written: int = 0, at_last: bool = False
    ) -> Outcome:
        if self._refused or (self._frames and self._waiting_bytes + len(data) > self._bound):
            # Once something was refused, nothing behind it is taken until all has gone.
            if at_last:
                self._at_last[data] = None
            if group is not None:
                if self._missed is not None:
                    self._missed.add(group)
                    if len(self._missed) > _MOST_GROUPS:
                        self._missed = None
                self._refused += 1
            return Outcome.REFUSED
        if not self._frames:
            self._say()
            self._written = written
        self._add(data)
        self._flusher.watch(self)
        return Outcome.KEPT

    def _add(self, data: bytes) -> None:
        self._frames.append(data)
        self._waiting_bytes += len(data)

    def _make_up(self) -> None:
        """Add what is left of the frames that were refused."""
        if self._refused:
            reason = f"process {self._own} had no room for {self._refused} messages to this one"
            self._add(wire.prefixed(self._flusher.gap_frame(reason, self._missed)))
        for frame in self._at_last:
            self._add(frame)
        self._forgive()

    def _forgive(self) -> None:
        self._refused, self._missed, self._at_last = 0, set(), {}

    def _empty(self) -> None:
        """Nothing waits any more: say so to whoever waited for that."""
        self._frames.clear()
        self._waiting_bytes = self._written = 0
        self._forgive()
        self._unsay()
        self._flusher.forget(self)
        now = time.monotonic()
        grown = self._credit_s + (now - self._credit_at) * _CREDIT_GROWTH
        self._credit_s, self._credit_at = min(grown, _CREDIT_S), now
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.set_result(None)

    def _say(self) -> None:
        """Leave word that something waits here."""
        with contextlib.suppress(OSError):
            os.close(os.open(self._note, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
            self._said = True

    def _unsay(self) -> None:
        if self._said:
            self._said = False
            with contextlib.suppress(OSError):
                os.unlink(self._note)


class Flusher:
    """The thread that writes what waits for slow processes. It runs while something does.

    Args:
        gap_frame: Makes the frame that tells of a gap: its reason, the groups (None: all).
    """

    #: How long the thread stays when there is nothing to do.
    LINGER_S = 1.0

    def __init__(self, gap_frame: Callable[[str, Iterable[str] | None], bytes]) -> None:
        self.gap_frame = gap_frame
        self._lock = threading.Lock()
        self._peers: set[Peer] = set()
        self._bell: tuple[int, int] | None = None
        self._thread: threading.Thread | None = None

    def watch(self, peer: Peer) -> None:
        """Write what waits there as room comes."""
        with self._lock:
            if peer in self._peers:
                return
            self._peers.add(peer)
            if self._bell is None:
                self._bell = os.pipe()
                self._thread = threading.Thread(
                    target=self._run, args=self._bell, name="headrace flusher", daemon=True
                )
                self._thread.start()
            else:
                os.write(self._bell[1], b"!")

    def forget(self, peer: Peer) -> None:
        """Look there no more."""
        with self._lock:
            self._peers.discard(peer)

    def _run(self, hearing: int, ringing: int) -> None:
        while True:
            with self._lock:
                peers = [peer for peer in self._peers if peer.fileno() >= 0]
            poll = select.poll()
            poll.register(hearing, select.POLLIN)
            for peer in peers:
                with contextlib.suppress(OSError, ValueError):  # it has just hung up
                    poll.register(peer.fileno(), select.POLLOUT)
            if any(descriptor == hearing for descriptor, _ in poll.poll(self.LINGER_S * 1000)):
                os.read(hearing, 4096)
            with self._lock:
                peers = list(self._peers)
                if not peers:
                    self._bell = self._thread = None
                    break
            for peer in peers:
                peer.flush()
        os.close(hearing)
        os.close(ringing)


async def wait_for(peers: list[Peer], at_most_s: float | None = None) -> None:
    """Wait for processes that read slowly: each as long as its credit, or so long in all."""
    began = time.monotonic()
    for peer in peers:
        with (
            peer.waiting(at_most_s and began + at_most_s) as (waiter, patience_s),
            contextlib.suppress(TimeoutError),
        ):
            if patience_s > 0:
                await asyncio.wait_for(asyncio.wrap_future(waiter), patience_s)


def wait_for_sync(peers: list[Peer], at_most_s: float | None = None) -> None:
    """Do what ``wait_for`` does, without an event loop."""
    began = time.monotonic()
    for peer in peers:
        with (
            peer.waiting(at_most_s and began + at_most_s) as (waiter, patience_s),
            contextlib.suppress(TimeoutError),
        ):
            if patience_s > 0:
                waiter.result(patience_s)
