"""CSS and JavaScript under addresses that change with them, so that browsers keep them for good.

The address of every file has the version of all of them: ``/static/<version>/chat/chat.css``.
Scripts import one another by relative paths, so that these are of the same version, and no file has
to be rewritten or collected before it is served.
"""

import os
import re
import time
from hashlib import blake2b

from django.contrib.staticfiles.finders import AppDirectoriesFinder
from django.contrib.staticfiles.storage import StaticFilesStorage

__all__ = ["Finder", "Storage", "Version", "version"]

#: Whoever edits a file sees it on a page that is loaded so much later.
LOOK_EVERY_S = 1.0
_VERSIONED = re.compile("([0-9a-f]{16})/(.*)", re.DOTALL)


class Version:
    """The version of all files, as their sizes and times of change give it."""

    def __init__(self) -> None:
        self._current = ""
        self._known: dict[str, tuple[int, int]] = {}
        self._look_at = 0.0

    def current(self) -> str:
        """Return it; any thread may ask. A new file counts once one that is known has changed."""
        now = time.monotonic()
        if now >= self._look_at:
            if not self._known or self._known != stats(self._known):
                files = [storage.path(path) for path, storage in AppDirectoriesFinder().list(None)]
                self._known = stats(sorted(files))
                self._current = blake2b(repr(self._known).encode(), digest_size=8).hexdigest()
            self._look_at = now + LOOK_EVERY_S
        return self._current

    def kept(self, path: str) -> bool:
        """Tell whether what is at a path now stays what it is there."""
        match = _VERSIONED.match(path)
        return match is not None and match[1] == self.current()


version = Version()


def stats(files) -> dict[str, tuple[int, int]]:
    found = {}
    for path in files:
        try:
            stat = os.stat(path)
        except OSError:  # it was deleted
            continue
        found[path] = stat.st_size, stat.st_mtime_ns
    return found


class Storage(StaticFilesStorage):
    """What ``{% static %}`` asks for the address of a file."""

    def url(self, name):
        return super().url(f"{version.current()}/{name}")


class Finder(AppDirectoriesFinder):
    """Finds the files of the applications with a version before their paths, and without."""

    def find(self, path, *args, **kwargs):
        match = _VERSIONED.match(path)
        return super().find(match[2] if match else path, *args, **kwargs)
