"""What a process has open for a layer. It does not know the layer, and so can outlive it.

Rules of this file:

- The lock guards what is held here. It is held for the shortest time, never while the hub is
  called, and taken within the hub's.
- A forked child closes what it has inherited, and touches nothing that is its parent's.
"""

import threading

from .directory import Directory
from .inlets import Door
from .interest import Interest, Slot
from .peers import Peer
from .queue import Queue

__all__ = ["Holdings"]

#: SQLite: a connection is neither used nor closed in a forked child.
_inherited: list[Queue] = []


class Holdings:
    """Files and sockets, each None until it is needed."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.directory: Directory | None = None
        self.table: Interest | None = None
        self.slot: Slot | None = None
        self.queue: Queue | None = None
        self.door: Door | None = None
        self.peers: dict[str, Peer] = {}

    def close_files(self) -> None:
        """Let go of what is in the directory; connections stay."""
        slot, queue, directory = self.slot, self.queue, self.directory
        # The table is let go of when the last sender that looks at it has.
        self.slot = self.queue = self.directory = self.table = None
        if slot is not None:
            slot.release()
        if queue is not None:
            queue.close()
        if directory is not None:
            directory.close()

    def shut(self) -> None:
        """Close everything, at once, on any thread."""
        with self.lock:
            door, self.door = self.door, None
            peers, self.peers = self.peers, {}
            self.close_files()
        if door is not None:
            door.shut()
        for peer in peers.values():
            peer.close()

    def abandon(self) -> None:
        """Close everything in a forked child."""
        # Without the locks: threads that are not here may hold them.
        if self.door is not None:
            self.door.shut(forked=True)
        for peer in self.peers.values():
            peer.abandon()
        if self.slot is not None:
            self.slot.abandon()
        if self.queue is not None:
            _inherited.append(self.queue)
        if self.directory is not None:
            self.directory.close()
