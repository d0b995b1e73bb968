"""Headrace, the real-time stack for Django.

Some modules are compiled at install, where that is possible: see ``setup.py``. With HEADRACE_PURE=1
in the environment all of them run as the plain Python that they are.
"""

import os
import sys
from collections.abc import Sequence
from importlib.machinery import SOURCE_SUFFIXES, FileFinder, ModuleSpec, SourceFileLoader
from types import ModuleType

__version__ = "0.1.0"

#: The alias of the channel layer that is meant where none is named.
DEFAULT_CHANNEL_LAYER = "default"


class _Sources:
    """Finds the sources of this package's modules, and nothing that was compiled of them."""

    @classmethod
    def find_spec(
        cls, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        del target
        if name.startswith(f"{__name__}.") and path is not None:
            for folder in path:
                finder = FileFinder(folder, (SourceFileLoader, SOURCE_SUFFIXES))
                if (spec := finder.find_spec(name)) is not None:
                    return spec
            if name == f"{__name__}.server.reactor":
                raise ModuleNotFoundError(f"{name} is there only as compiled code", name=name)
        return None


if os.environ.get("HEADRACE_PURE"):
    sys.meta_path.insert(0, _Sources)
