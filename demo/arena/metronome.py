"""A beat that does not drift. Time is passed in."""

__all__ = ["Metronome"]


class Metronome:
    """Beats ``hz`` times a second, counted from ``start`` and never from the beat before.

    So the time that a tick takes, or that the loop was busy, shortens the next wait. After a
    standstill of more than ``most`` beats the rest is left out, for making up for it would be one
    more.
    """

    def __init__(self, hz: float, start: float, most: int = 5) -> None:
        self._hz = hz
        self._start = start
        self._most = most
        self._beats = 0
        self.skipped = 0

    def due(self, now: float) -> int:
        """Return how many beats are to be made now."""
        beats = int((now - self._start) * self._hz) - self._beats
        if beats <= 0:
            return 0
        self._beats += beats
        self.skipped += max(0, beats - self._most)
        return min(beats, self._most)

    def wait(self, now: float) -> float:
        """Return the seconds until the next beat."""
        return max(0.0, self._start + (self._beats + 1) / self._hz - now)
