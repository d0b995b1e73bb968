"""Which connection is which, in the log and in whatever runs for it.

Rules of this file:

- An idle connection keeps one number. Its id, ``worker-number``, is made when somebody asks.
- The application's task begins in a context in which its connection's number stands: what it
  starts, in tasks and in threads, finds it there (``headrace.instruments.connection_id``).
- What the server says of a connection names its client; that name knows the id.
"""

from .bounded_log import printable
from .endpoint import Address

__all__ = ["Peer", "peer_of"]


class Peer(str):
    """A client, as the log names it; what formats the line finds the connection's id here."""

    __slots__ = ("number", "worker")

    number: int
    worker: int

    @property
    def connection(self) -> str:
        """The id."""
        return f"{self.worker}-{self.number}"


def peer_of(client: Address | None, worker: int, number: int) -> Peer:
    """Return the client of this connection as the log names it."""
    name = "{}:{}".format(*client) if client else "unix"
    if client is not None and client[1] is None:
        name = printable(name)  # the path of a Unix socket, which its client may have chosen
    peer = Peer(name)
    peer.worker, peer.number = worker, number
    return peer
