"""One Python module: its source in, its new source and remarks out. Knows no file system.

Rules of this file:

- What comes out is Python again, or an error: the new source is parsed before anyone sees it.
- A second pass finds nothing more to change.
- The order of imports is the affair of isort and its like.
"""

import re
from dataclasses import dataclass

from .edits import Remark, apply
from .idioms import remark_idioms
from .imports import rewrite_imports
from .installed_apps import App
from .module import Module, Unreadable, check_syntax
from .strings import rewrite_strings

__all__ = ["Migrated", "Unreadable", "migrate"]

_CONCERNED = re.compile(r"channels|daphne|asgi_redis|asgiref\.inmemory|DAPHNE_")


@dataclass(frozen=True, slots=True)
class Migrated:
    """The new source, and what is left to do by hand, in the order of the lines of the old one."""

    source: str
    remarks: tuple[Remark, ...] = ()
    apps: tuple[App, ...] = ()


def migrate(
    source: str, *, name: str = "", redis: bool = False, own: frozenset[str] = frozenset()
) -> Migrated:
    """Move one module from Channels to Headrace.

    ``name`` is that of its file, ``redis`` says that Headrace's Redis layer is there, ``own``
    are the top-level modules of the project. Raises Unreadable for what is no Python that can
    be given back to the byte.
    """
    if not _CONCERNED.search(source):
        return Migrated(source)
    module = Module(source)
    rewrite_imports(module, own=own)
    apps = rewrite_strings(module, redis=redis, script=name in ("setup.py", "noxfile.py"))
    remark_idioms(module, name=name)
    new = apply(source, module.edits)
    if new != source:
        check_syntax(new.removeprefix("\ufeff"))
    return Migrated(new, tuple(sorted(module.remarks)), tuple(apps))
