"""How much one connection may ask for, and what a command may hold."""

import re
from uuid import UUID

__all__ = ["Allowance", "Refused", "number_of", "text_of", "uuid_of"]

# What no keyboard types and no page can show: control characters but tab and newline, and halves
# of surrogate pairs, which JSON can spell and UTF-8 can't.
UNSHOWABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")


class Refused(Exception):
    """A command that can't be done: ``code`` for the program, the text for who reads it."""

    def __init__(self, code: str, text: str, **details: object) -> None:
        super().__init__(text)
        self.code = code
        self.details = details


class Allowance:
    """A bucket of tokens: ``burst`` at once, refilled at ``per_second``. Time is passed in."""

    def __init__(self, *, burst: int, per_second: float) -> None:
        self.burst = burst
        self.per_second = per_second
        self._tokens = float(burst)
        self._at = 0.0

    def take(self, now: float) -> float:
        """Take a token and return 0, or return the seconds until there is one."""
        self._tokens = min(self.burst, self._tokens + (now - self._at) * self.per_second)
        self._at = now
        if self._tokens < 1:
            return (1 - self._tokens) / self.per_second
        self._tokens -= 1
        return 0.0


def text_of(value: object, *, length: int, what: str = "A message") -> str:
    """Return a text as it is kept, or raise :class:`Refused`."""
    if not isinstance(value, str):
        raise Refused("bad_message", f"{what} needs a text.")
    text = value.replace("\r\n", "\n").replace("\r", "\n").strip()
    if not text:
        raise Refused("empty", "Write something first.")
    if len(text) > length:
        raise Refused(
            "too_long",
            f"{what} has at most {length:,} characters; this one has {len(text):,}.",
            most=length,
            length=len(text),
        )
    if UNSHOWABLE.search(text):
        raise Refused("bad_message", "The text holds characters that can't be shown.")
    return text


def uuid_of(value: object, name: str = "client_id") -> UUID:
    """Return the browser's own name for something, or raise :class:`Refused`."""
    try:
        return UUID(value)  # type: ignore[arg-type] - what is no string fails as it should
    except (TypeError, ValueError, AttributeError):
        raise Refused("bad_message", f"It needs a {name}, which is a UUID.") from None


def number_of(value: object, name: str, most: int = 2**53 - 1) -> int:
    """Return a number that is 0 or more, or raise :class:`Refused`."""
    if type(value) is not int or not 0 <= value <= most:
        raise Refused("bad_message", f"{name} is a whole number from 0 to {most}.")
    return value
