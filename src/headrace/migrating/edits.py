"""Changes to a text, and remarks about its lines.

Rules of this file:

- A text is changed by replacing spans of it, never by printing it anew: what no edit covers
  is the same bytes afterwards.
- Spans are counted in the bytes of the text's UTF-8 form, as libcst counts them.
"""

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Edit", "Remark", "apply"]


@dataclass(frozen=True, slots=True, order=True)
class Edit:
    """Put ``text`` where the bytes from ``start`` to ``end`` are."""

    start: int
    end: int
    text: str


@dataclass(frozen=True, slots=True, order=True)
class Remark:
    """What somebody has to look at; ``line`` counts from 1."""

    line: int
    text: str


def apply(source: str, edits: Iterable[Edit]) -> str:
    """Return the text with all edits made; they must not overlap."""
    data = source.encode()
    parts = []
    position = 0
    for edit in sorted(set(edits)):
        assert position <= edit.start <= edit.end, f"edits overlap: {edit}"
        parts += [data[position : edit.start], edit.text.encode()]
        position = edit.end
    parts.append(data[position:])
    return b"".join(parts).decode()
