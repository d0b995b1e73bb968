"""A log that no client can flood, and in which none can write a line of its own.

Rules of this file:

- A kind of line has so many in a while; what was left out is counted, and told.
- What comes from elsewhere is escaped and cut off: a line is always one line.
"""

import logging
import time
from collections.abc import Callable
from typing import Any

__all__ = ["BoundedLog", "printable"]

#: Lines of one kind, and in how many seconds.
LINES, WINDOW_S = 10, 10.0


class BoundedLog:
    """Lines of a log, so many of one kind; then how many more there were.

    Args:
        logger: Where the lines go.
        lines: Of one kind, in ``window_s`` seconds.
        clock: Tells the seconds.
        later: Calls a function after so many seconds, as ``loop.call_later`` does. Without it
            the number of those left out stands before the next line of their kind.
    """

    def __init__(
        self,
        logger: logging.Logger,
        *,
        lines: int = LINES,
        window_s: float = WINDOW_S,
        clock: Callable[[], float] = time.monotonic,
        later: Callable[[float, Callable[[], None]], Any] | None = None,
    ) -> None:
        self._logger = logger
        self._lines = lines
        self._window_s = window_s
        self._clock = clock
        self._later = later
        self._timer: Any = None
        #: Of each kind: when its window ends, and the lines in it, those left out included.
        self._kinds: dict[str, tuple[float, int]] = {}

    def __call__(
        self, kind: str, message: str, *arguments: object, level: int = logging.INFO
    ) -> None:
        """Write a line, if there is room for one of this kind.

        Kinds are few, and none is made of what a client sends. The arguments may come from
        anywhere: text of theirs is cut off and escaped.
        """
        logger = self._logger
        if not logger.isEnabledFor(level):
            return
        now = self._clock()
        ends, count = self._kinds.get(kind, (0.0, 0))
        if now >= ends:
            self._tell(kind, count)
            ends, count = now + self._window_s, 0
        self._kinds[kind] = (ends, count + 1)
        if count < self._lines:
            shown = (printable(each) if type(each) is str else each for each in arguments)
            logger.log(level, message, *shown)
        elif self._timer is None and self._later is not None:
            self._timer = self._later(max(0.0, ends - now), self._due)

    def close(self) -> None:
        """Say how many were left out so far, and forget them."""
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        kinds, self._kinds = self._kinds, {}
        for kind, (_, count) in kinds.items():
            self._tell(kind, count)

    def _due(self) -> None:
        self._timer = None
        now = self._clock()
        for kind, (ends, count) in list(self._kinds.items()):
            if now >= ends:
                del self._kinds[kind]
                self._tell(kind, count)
        open_ = [ends for ends, count in self._kinds.values() if count > self._lines]
        if open_ and self._later is not None:
            self._timer = self._later(max(0.0, min(open_) - now), self._due)

    def _tell(self, kind: str, count: int) -> None:
        if count > self._lines:
            more = f"{count - self._lines:,}"
            self._logger.warning("%s: … and %s more in %g s", kind, more, self._window_s)


def printable(text: str, limit: int = 500) -> str:
    """Return text from elsewhere as it may stand in a log or a plain answer: one short line."""
    shown = text[:limit].encode("unicode_escape").decode("ascii")
    return f"{shown}..." if len(text) > limit else shown
