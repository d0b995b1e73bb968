"""Headrace, the real-time stack for Django.

Some modules are compiled at install, where that is possible: see ``setup.py``. With HEADRACE_PURE=1
in the environment all of them run as the plain Python that they are.
"""

import os
import sys
from importlib.machinery import SOURCE_SUFFIXES, FileFinder, SourceFileLoader

__version__ = "0.1.0"

#: The alias of the channel layer that is meant where none is named.
DEFAULT_CHANNEL_LAYER = "default"


def _finder_of_sources(folder: str) -> FileFinder:
    """Return what finds the sources in a folder of this package, and nothing compiled of them."""
    if not f"{folder}{os.sep}".startswith(tuple(f"{each}{os.sep}" for each in __path__)):
        raise ImportError("a folder of somebody else's")
    return FileFinder(folder, (SourceFileLoader, SOURCE_SUFFIXES))


if os.environ.get("HEADRACE_PURE"):
    # Not before the other finders, but in the place of one: what instruments the code that is
    # imported, a fuzzer say, asks those that come behind its own.
    sys.path_hooks.insert(0, _finder_of_sources)
    for folder in __path__:
        sys.path_importer_cache.pop(folder, None)
