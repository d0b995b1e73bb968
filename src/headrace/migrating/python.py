"""One Python module: its source in, its new source and remarks out. Knows no file system.

Rules of this file:

- What comes out is Python again, or an error: the new source is parsed before anyone sees it.
- A second pass finds nothing more to change.
- The order of imports is the affair of isort and its like.
"""

import ast
import re
from dataclasses import dataclass

from .edits import Remark, apply
from .idioms import remark_idioms
from .imports import rewrite_imports
from .installed_apps import App
from .module import Module, Unreadable, check_syntax
from .names import advice_for_import
from .strings import rewrite_strings

__all__ = ["Migrated", "Unreadable", "migrate"]

# First by the text, which is quick; then by what the text is, which libcst takes much longer for.
_MENTIONS = re.compile(r"channels|daphne|asgi_|asgiref\.inmemory|DAPHNE_")
_STRING = re.compile(
    r"\bchannels(\.|_redis\b)|(django\.)?channels\b|\bdaphne\b|asgi_|asgiref\.inmemory"
)
_NAME = re.compile(r"ProtocolTypeRouter|DAPHNE_\w+|\w*Consumer")


@dataclass(frozen=True, slots=True)
class Migrated:
    """The new source, and what is left to do by hand, in the order of the lines of the old one."""

    source: str
    remarks: tuple[Remark, ...] = ()
    apps: tuple[App, ...] = ()


def migrate(source: str, *, name: str = "", own: frozenset[str] = frozenset()) -> Migrated:
    """Move one module from Channels to Headrace.

    ``name`` is that of its file, ``own`` are the top-level modules of the project. Raises
    Unreadable for what is no Python that can be given back to the byte.
    """
    if not _MENTIONS.search(source) or not _is_concerned(
        check_syntax(source.removeprefix("\ufeff"))
    ):
        return Migrated(source)
    module = Module(source)
    rewrite_imports(module, own=own)
    apps = rewrite_strings(module, script=name in ("setup.py", "noxfile.py"))
    remark_idioms(module, name=name)
    new = apply(source, module.edits)
    if new != source:
        check_syntax(new.removeprefix("\ufeff"))
    return Migrated(new, tuple(sorted(module.remarks)), tuple(apps))


def _is_concerned(tree: ast.Module) -> bool:
    """Tell whether there is anything that one of the rewriters looks at."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                found = any(_is_looked_at(alias.name) for alias in names)
            case ast.ImportFrom(module=str(package), names=names, level=0):
                found = any(_is_looked_at(f"{package}.{alias.name}") for alias in names)
            case ast.Constant(value=str(text)):
                found = _STRING.search(text) is not None
            case ast.Name(id=name) | ast.Attribute(attr=name):
                found = _NAME.fullmatch(name) is not None
            case _:
                found = False
        if found:
            return True
    return False


def _is_looked_at(module: str) -> bool:
    return module.partition(".")[0] == "channels" or advice_for_import(module) is not None
