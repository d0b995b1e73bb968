"""What a setting is: its names, the values it may have, and what text or TOML stands for them.

Rules of this file:

- A value is read in the same way wherever it was written; what can't be read says what it must be.
- No kind takes a number that is none (``nan``), or the truth for one.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from .config import Config

__all__ = [
    "COUNT",
    "LIMIT",
    "LIST",
    "LOG",
    "MODE",
    "NOTHING",
    "NUMBER",
    "PROCESSES",
    "RATE",
    "TEXT",
    "TIME",
    "TRUTH",
    "Kind",
    "Option",
    "choice",
]

# What a value may be


class Kind(NamedTuple):
    """A kind of value."""

    #: In words, after "must be".
    wanted: str
    #: Takes the text of a flag or a variable, or a value of TOML; raises ValueError.
    read: Callable[[Any], Any]
    metavar: str | None = None
    #: Gives what TOML can say, for ``--print-config``.
    write: Callable[[Any], Any] = lambda value: value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError
    return value


def _whole(value: Any, least: int | None = None) -> int:
    if not isinstance(value, int | str) or isinstance(value, bool):
        raise ValueError
    number = int(value)
    if least is not None and number < least:
        raise ValueError
    return number


def _number(value: Any) -> float:
    if not isinstance(value, int | float | str) or isinstance(value, bool):
        raise ValueError
    number = float(value)
    if not math.isfinite(number) or number < 0:
        raise ValueError
    return number


def _time(value: Any) -> float:
    # Daphne's -1, for ever, is our 0.
    return 0.0 if value in ("-1", -1) else _number(value)


_WORDS = dict.fromkeys(("true", "yes", "on", "1"), True) | dict.fromkeys(
    ("false", "no", "off", "0"), False
)


def _truth(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    word = _WORDS.get(_text(value).lower())
    if word is None:
        raise ValueError
    return word


def _mode(value: Any) -> int:
    return int(_text(value), 8)


def _list(value: Any) -> tuple[str, ...]:
    parts = value if isinstance(value, list) else _text(value).split(",")
    return tuple(part for text in parts if (part := _text(text).strip()))


def _place_of_a_log(value: Any) -> bool | str:
    if isinstance(value, bool):
        return value
    return _WORDS.get(text := _text(value), text)


TEXT = Kind("text", _text, "TEXT")
NUMBER = Kind("a whole number", _whole, "N")
COUNT = Kind("a whole number, 1 or more", lambda value: _whole(value, 1), "N")
#: 0 turns it off.
LIMIT = Kind("a whole number, 0 or more", lambda value: _whole(value, 0), "N")
RATE = Kind("a number, 0 or more", _number, "N")
TIME = Kind("a number of seconds, 0 or more", _time, "S")
TRUTH = Kind("true or false", _truth)
MODE = Kind('text of octal digits, as "660"', _mode, "MODE", "{:o}".format)
LIST = Kind("text with commas between, or a list of text", _list)
#: In the log (true), nowhere (false), on a standard stream ('' and -), or in a file.
LOG = Kind("a file, -, true or false", _place_of_a_log, "FILE")


def _processes(value: Any) -> int | str:
    return "auto" if value == "auto" else _whole(value, 0)


PROCESSES = Kind("a whole number, 0 or more, or auto", _processes, "N")


def choice(of: type[StrEnum] | Sequence[Any], others: Mapping[str, Any] | None = None) -> Kind:
    """Return the kind of which there are just these; ``others`` are further names for them."""
    values: dict[str, Any] = {str(value): value for value in of} | dict(others or {})

    def read(value: Any) -> Any:
        if isinstance(value, bool) or str(value) not in values:
            raise ValueError
        return values[str(value)]

    def write(value: Any) -> Any:
        return str(value) if isinstance(value, StrEnum) else value

    return Kind(f"one of {', '.join(map(str, of))}", read, f"{{{','.join(map(str, of))}}}", write)


# What it is called, and where it goes


class _Nothing:
    """What was not said."""

    def __repr__(self) -> str:
        return "nothing"


NOTHING: Any = _Nothing()
_DEFAULTS = Config()


@dataclass(frozen=True, slots=True)
class Option:
    """A setting of ``headrace serve``.

    Args:
        name: Of the flag without its hyphens, of the key, and of the variable.
        kind: What it may be.
        help: For ``--help``; its default is told there of itself.
        to: The field of Config that it goes to.
        default: Where nobody says anything; that of ``to``, unless given.
        flags: Further names: ``-p``, ``--unix-socket``. Long ones do as keys and variables, too.
        metavar: What stands for the value in the help.
        without: What ``--no-NAME`` stands for; False of itself where the kind is TRUTH.
        alone: What the flag stands for without a value.
        repeatable: Whether the flag may be given again; then the value is a list.
        secret: Whether the value is never shown.
    """

    name: str
    kind: Kind
    help: str
    to: str | None = None
    default: Any = NOTHING
    _: dataclasses.KW_ONLY
    flags: tuple[str, ...] = ()
    metavar: str | None = None
    without: Any = NOTHING
    alone: Any = NOTHING
    repeatable: bool = False
    secret: bool = False

    def __post_init__(self) -> None:
        if self.kind is TRUTH:
            object.__setattr__(self, "without", False)
        if self.default is NOTHING:
            object.__setattr__(self, "default", _default_of(self.to) if self.to else None)

    @property
    def dest(self) -> str:
        """The name of it among the parsed arguments."""
        return self.name.replace("-", "_")

    @property
    def keys(self) -> list[str]:
        """The names by which the table and the environment may call it, the first the best."""
        more = (flag[2:].replace("_", "-") for flag in self.flags if flag.startswith("--"))
        return list(dict.fromkeys((self.name, *more)))

    def read(self, value: Any) -> Any:
        """Return the value that this stands for; raise ValueError, saying what it must be."""
        if not self.repeatable:
            return self.read_one(value)
        if not isinstance(value, list | str):
            raise ValueError(f"must be {self.kind.wanted}, or a list of such, not {value!r}")
        parts = _list(value) if isinstance(value, str) else value
        return tuple(self.read_one(part) for part in parts)

    def read_one(self, value: Any) -> Any:
        """Do so for one of the values of what is repeatable."""
        try:
            return self.kind.read(value)
        except (ValueError, TypeError):
            shown = "what was given" if self.secret else repr(value)
            raise ValueError(f"must be {self.kind.wanted}, not {shown}") from None


def _default_of(path: str) -> Any:
    value: Any = _DEFAULTS
    for name in path.split("."):
        value = getattr(value, name)
    return value
