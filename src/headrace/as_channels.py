"""Headrace's modules under the name ``channels``, for packages that import Django Channels.

Rules of this file:

- Nothing happens on import. ``install()`` says that the alias is wanted, in words that no
  linter takes for an unused import.
- ``channels.layers`` *is* ``headrace.layers``: one module object, one set of classes. Only the
  top-level ``channels`` is a module of its own, because its ``__version__`` says which
  Channels the names behind it stand for.
- A module is imported when somebody asks for it, under either name, and once.
- Where the real Channels is installed too, it is shadowed. Where it was imported already,
  nothing can be put right: some module holds its classes. That is an error.
"""

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType

from .exceptions import ConfigurationError

__all__ = ["CHANNELS_VERSION", "install", "uninstall"]

#: The Channels whose names Headrace has; ``channels.__version__`` for who asks.
CHANNELS_VERSION = "4.3.2"

_ALIAS = "channels"
_HOME = __name__.rpartition(".")[0]


def install() -> None:
    """Let ``import channels`` mean Headrace, from here on and in the whole process.

    To be called before anything imports ``channels``: first in the settings module, or, where
    something is imported before the settings, in manage.py, asgi.py and conftest.py. A second
    call does nothing. ConfigurationError if Channels itself has been imported.
    """
    if _finder in sys.meta_path:
        return
    imported = sys.modules.get(_ALIAS)
    if imported is not None:
        raise ConfigurationError(
            f"channels was imported already, from {_origin(imported)}: call "
            f"{__name__}.install() before that, at the top of the settings module or of manage.py"
        )
    sys.meta_path.insert(0, _finder)


def uninstall() -> None:
    """Take the alias away again; what was imported through it stays what it is."""
    if _finder in sys.meta_path:
        sys.meta_path.remove(_finder)
        for name in [name for name in sys.modules if _is_alias(name)]:
            del sys.modules[name]


def _is_alias(name: str) -> bool:
    return name.partition(".")[0] == _ALIAS


def _origin(module: ModuleType) -> str:
    return getattr(module, "__file__", None) or str(list(getattr(module, "__path__", [])))


class _Finder(MetaPathFinder):
    """Finds ``channels`` and all below it, and nothing else."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        del path, target
        if fullname == _ALIAS:
            return ModuleSpec(fullname, _TopLevel(), is_package=True)
        if not _is_alias(fullname):
            return None
        home = _HOME + fullname.removeprefix(_ALIAS)
        return ModuleSpec(fullname, _Same(home)) if find_spec(home) else None


class _TopLevel(Loader):
    """Makes the module ``channels``, which has a version and what is imported below it."""

    def exec_module(self, module: ModuleType) -> None:
        home = import_module(_HOME)
        module.__doc__ = home.__doc__
        vars(module).update(
            __version__=CHANNELS_VERSION, DEFAULT_CHANNEL_LAYER=home.DEFAULT_CHANNEL_LAYER
        )


class _Same(Loader):
    """Puts a module of Headrace's where the import system expects the one it asked for."""

    def __init__(self, home: str) -> None:
        self.home = home

    def exec_module(self, module: ModuleType) -> None:
        # A module may replace itself while it is loaded, and the import system returns what
        # it finds then. Returning the real one from create_module() would be shorter, but
        # would leave it with the __spec__ of its alias.
        sys.modules[module.__name__] = import_module(self.home)


_finder = _Finder()
