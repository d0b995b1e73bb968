"""Which word of a list a text holds, however it is written."""

import re
import unicodedata
from collections.abc import Iterable

__all__ = ["first_word_of"]

# Scripts that put no space between words.
UNSPACED = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\u0e00-\u0e7f]")


def fold(text: str) -> str:
    """Return a text without what hides a word: case, width, accents, characters of no width."""
    decomposed = unicodedata.normalize("NFKD", text).casefold()
    return "".join(
        character for character in decomposed if unicodedata.category(character) not in {"Cf", "Mn"}
    )


def first_word_of(words: Iterable[str], text: str) -> str | None:
    """Return the first of ``words`` that is in ``text``, or None.

    A word is found as a whole: ``ass`` is not in ``classic``. In scripts that put no space between
    words it is found anywhere.
    """
    folded = fold(text)
    for word in words:
        part = re.escape(fold(word))
        if not UNSPACED.search(word):
            part = rf"(?<!\w){part}(?!\w)"
        if re.search(part, folded):
            return word
    return None
