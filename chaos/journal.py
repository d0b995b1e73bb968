"""What each process writes down of what it did and what happened to it, while it happens.

Rules of this file:

- A journal is a file of lines, each a list in JSON: the time, the kind, its fields. The time is
  that of the one monotonic clock of the machine, so that journals of several processes compare.
- A line is written before the writer goes on, by one system call: a process that is killed in the
  next moment has told all that it did. Only the last line may be cut short.
"""

import json
import os
import time
from pathlib import Path
from typing import Any

__all__ = ["Entry", "Journal", "read"]

#: Time in nanoseconds, kind, and the fields of that kind (see ``Journal``).
Entry = list[Any]


class Journal:
    """The journal of one process.

    A *target* is where a message was sent: ``group:NAME``, ``channel:NAME`` or ``queue:NAME``
    (a named channel, whose messages each go to one reader). A *member* is a consumer, or a
    connection, or a reader of a queue. A *sender* awaits each of its sends before the next.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def _write(self, kind: str, *fields: object) -> None:
        line = json.dumps([time.monotonic_ns(), kind, *fields], separators=(",", ":"))
        os.write(self._file, line.encode() + b"\n")

    # A sender's

    def trying(self, sender: str, target: str, number: int) -> None:
        self._write("try", sender, target, number)

    def accepted(self, sender: str, target: str, number: int) -> None:
        self._write("ok", sender, target, number)

    def refused(self, sender: str, target: str, number: int, why: str) -> None:
        self._write("no", sender, target, number, why)

    def hung(self, sender: str, target: str, number: int) -> None:
        """The call neither returned nor raised in all the time that it had."""
        self._write("hung", sender, target, number)

    # A receiver's

    def joined(self, member: str, target: str) -> None:
        """What is sent to the target from now on has to reach the member."""
        self._write("join", member, target)

    def got(self, member: str, target: str, sender: str, number: int) -> None:
        self._write("got", member, target, sender, number)

    def gap(self, member: str, groups: list[str] | None, reason: str) -> None:
        """The member was told that it may have missed something, of all its groups or of these."""
        self._write("gap", member, groups, reason)

    def ended(self, member: str, why: str) -> None:
        """The member's connection is over, and it knows."""
        self._write("end", member, why)

    # Everybody's

    def stats(self, counters: dict[str, int]) -> None:
        self._write("stats", counters)

    def over(self) -> None:
        """The process ends as it was asked to."""
        self._write("over")


def read(path: Path) -> list[Entry]:
    """Return the entries of a journal; a last line that was cut short is none."""
    *lines, _ = path.read_bytes().split(b"\n")
    return [json.loads(line) for line in lines]
