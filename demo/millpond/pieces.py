"""Pieces of a page that are the same for everyone, such as what somebody said: made once.

Django's ``{% cache %}`` keeps the same, and wants the object for it: to read a hundred comments
with their authors takes longer than everything else on their page.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from django.core.cache import cache
from django.template.loader import get_template
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import get_language

__all__ = ["KEPT_S", "pieces"]

KEPT_S = 600


def pieces(
    template: str,
    name: str,
    rows: Iterable[tuple],
    objects: Callable[[list], Mapping[Any, object]],
) -> list[SafeString]:
    """Return what a template makes of each row, in the reader's language and in their order.

    Args:
        template: Its path. All that it is given is the object.
        name: What the template calls it.
        rows: Of each the key of its object, and behind that whatever may change the piece.
        objects: Returns by their keys the objects of which no piece is kept. One that is gone
            meanwhile has none.
    """
    kind = f"{template} {get_language()}"
    keys = {row[0]: f"piece.{digest(kind, *row)}" for row in rows}
    kept = cache.get_many(keys.values())
    if lacking := [pk for pk, key in keys.items() if key not in kept]:
        make = get_template(template).render
        found = objects(lacking)
        made = {keys[pk]: str(make({name: found[pk]})) for pk in lacking if pk in found}
        cache.set_many(made, KEPT_S)
        kept |= made
    return [mark_safe(kept[key]) for key in keys.values() if key in kept]  # noqa: S308 - templates escape


def digest(*values: object) -> str:
    return hashlib.sha256(repr(values).encode()).hexdigest()
