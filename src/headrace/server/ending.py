"""The end of writing to one client, whichever HTTP it speaks.

Rules of this file:

- Our side ends when everything is with the transport; then the client is read on for a moment, so
  that a reset does not overtake the last bytes.
- A client that takes nothing for ``write_timeout_s`` is cut off, whether the end has come or not.
"""

import asyncio

from .identity import Peer
from .outbox import unwritten_bytes
from .runtime import Runtime

__all__ = ["Ending"]

#: How long a connection that was closed by us is read on.
LINGER_S = 2.0


class Ending:
    """What every connection does about writing that stops, and about its own end.

    It is no ``asyncio.Protocol``, though it is one's base: what is compiled inherits from nothing
    that is not.
    """

    __slots__ = (
        "_heard_all",
        "_lingering",
        "_reading_paused",
        "_runtime",
        "_transport",
        "_unwritten_bytes",
        "_write_by",
        "tick",
    )

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._transport: asyncio.Transport
        #: The wheel's note.
        self.tick: int | None = None
        #: Nothing of the client can be on its way to us.
        self._heard_all = False
        self._reading_paused = False
        #: The last byte has been said; what is left is to see that it arrives.
        self._lingering = False
        #: When a client that takes nothing is cut off, and what waited for it at the last look.
        self._write_by: float | None = None
        self._unwritten_bytes = 0

    @property
    def peer(self) -> Peer:
        """The client, as the log names it."""
        raise NotImplementedError

    @property
    def _handed_over(self) -> bool:
        """Whether everything is with the transport."""
        raise NotImplementedError

    def _expire(self, now: float) -> float | None:
        """Act on a deadline of what is spoken here; return the next one."""
        raise NotImplementedError

    def _begin_waiting(self) -> None:
        """Learn that the client has to take something before we go on."""
        self._unwritten_bytes = unwritten_bytes(self._transport)
        self._write_by = self._runtime.loop.time() + self._runtime.config.write_timeout_s

    def _finish_writing(self) -> None:
        """End our side: everything is with the transport."""
        transport = self._transport
        if transport.is_closing():
            return
        self._begin_waiting()
        if self._heard_all or not transport.can_write_eof():
            transport.close()
        else:
            self._resume_reading()
            transport.write_eof()
        self._runtime.wheel.schedule(self, self._runtime.loop.time() + self._linger_s)

    def _finish_writing_soon(self) -> None:
        """Do that in a turn to come: asyncio's transports end twice, closed in resume_writing."""
        self._runtime.loop.call_soon(self._finish_writing)

    @property
    def _linger_s(self) -> float:
        return min(LINGER_S, self._runtime.config.write_timeout_s)

    def expire(self, now: float) -> float | None:
        """Act on a deadline: a client that takes nothing, the end of lingering, any other."""
        if self._lingering and self._handed_over and not unwritten_bytes(self._transport):
            self._transport.abort()
            return None
        if self._write_by is not None and not self._takes_bytes(now):
            runtime = self._runtime
            what = "%s: the client has taken nothing for %g s: it is cut off"
            runtime.refusals.count("write_timeout")
            runtime.log("write_timeout", what, self.peer, runtime.config.write_timeout_s)
            self._transport.abort()
            return None
        return now + self._linger_s if self._lingering else self._expire(now)

    def _takes_bytes(self, now: float) -> bool:
        """Say whether the client has taken any of what waits for it, while there is time."""
        assert self._write_by is not None
        if now < self._write_by:
            return True
        waiting = unwritten_bytes(self._transport)
        if waiting >= self._unwritten_bytes:
            return False
        self._unwritten_bytes = waiting
        self._write_by = now + self._runtime.config.write_timeout_s
        return True

    def dismiss(self, code: int, reason: str) -> None:
        """End, by the wish of somebody who looks after the server; HTTP has no word for it."""
        del code, reason
        self.abort()

    def abort(self) -> None:
        """Close at once."""
        self._transport.abort()

    # Reading

    def _pass_over(self) -> None:
        """Drop what comes behind the end: a flood of it is taken in line with what others sent."""
        if not self._reading_paused:
            self._pause_reading()
            self._runtime.turn.later(self._resume_reading)

    def _pause_reading(self) -> None:
        if not self._reading_paused and not self._transport.is_closing():
            self._reading_paused = True
            self._transport.pause_reading()

    def _resume_reading(self) -> None:
        if self._reading_paused:
            self._reading_paused = False
            if not self._transport.is_closing():
                self._transport.resume_reading()
