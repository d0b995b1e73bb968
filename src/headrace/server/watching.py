"""Development: which files have changed, and a server that starts anew when some have.

Rules of this file:

- Files are looked at, time and again: that works in containers, on network drives and in
  virtual machines, where the system tells of no change. It takes a small part of one processor,
  however many files there are.
- What is written in several steps is one change: it is told when nothing has changed for a moment.
- A folder of the machinery (hidden ones, virtual environments, caches, packages of npm) is none
  of the application's.
"""

import asyncio
import fnmatch
import logging
import os
import time
from collections.abc import AsyncIterator, Sequence

from ..exceptions import ConfigurationError
from .supervisor import Supervisor

__all__ = ["Watch", "keep_current"]

logger = logging.getLogger("headrace.server")

#: So often files are looked at; less often where a look takes long.
INTERVAL_S = 0.25
#: A look may take this part of the time.
SHARE = 0.05
#: What a change is waited out for.
SETTLED_S = 0.05

PATTERNS = ("*.py",)
_MACHINERY = frozenset({"__pycache__", "node_modules", "site-packages"})

#: Time of the last change and size.
_State = tuple[int, int]


class Watch:
    """Looks for changed files.

    Args:
        folders: Where, and below.
        include: Patterns of more files than ``*.py``: of a name, or of a path in the folder.
        exclude: Patterns of files and folders that are left out.
    """

    def __init__(
        self, folders: Sequence[str], include: Sequence[str] = (), exclude: Sequence[str] = ()
    ) -> None:
        for folder in folders:
            if not os.path.isdir(folder):
                raise ConfigurationError(f"--reload-dir {folder}: there is no such folder")
        self.folders = [os.path.abspath(folder) for folder in folders]
        self._include = (*PATTERNS, *include)
        self._exclude = tuple(exclude)

    def look(self) -> dict[str, _State]:
        """Return the state of each file."""
        found: dict[str, _State] = {}
        for folder in self.folders:
            self._look_into(folder, "", found)
        return found

    def _look_into(self, folder: str, place: str, found: dict[str, _State]) -> None:
        try:
            with os.scandir(folder) as entries:
                listed = list(entries)
        except OSError:
            return  # it is gone, or not ours to read
        if place and any(entry.name == "pyvenv.cfg" for entry in listed):
            return
        for entry in listed:
            path = place + entry.name
            if _matches(entry.name, path, self._exclude):
                continue
            try:
                if entry.is_dir():
                    # A link may lead back to where it is.
                    machinery = entry.name in _MACHINERY or entry.name.startswith(".")
                    if not machinery and not entry.is_symlink():
                        self._look_into(entry.path, f"{path}/", found)
                elif _matches(entry.name, path, self._include):
                    state = entry.stat()
                    found[entry.path] = (state.st_mtime_ns, state.st_size)
            except OSError:
                continue  # it has just gone

    async def changes(self) -> AsyncIterator[list[str]]:
        """Yield the paths that have changed, appeared or gone, each time some have."""
        known, took_s = await self._timed_look()
        while True:
            await asyncio.sleep(max(INTERVAL_S, took_s / SHARE))
            now, took_s = await self._timed_look()
            if now == known:
                continue
            before, known = known, now
            while True:
                await asyncio.sleep(SETTLED_S)
                now, took_s = await self._timed_look()
                if now == known:
                    break
                known = now
            differing = before.items() ^ known.items()
            if differing:
                yield sorted({path for path, _ in differing})

    async def _timed_look(self) -> tuple[dict[str, _State], float]:
        start = time.perf_counter()
        found = await asyncio.to_thread(self.look)
        return found, time.perf_counter() - start


async def keep_current(supervisor: Supervisor, watch: Watch) -> None:
    """Start the application, and anew each time its files have changed."""
    logger.info("watching %s for changes", ", ".join(watch.folders))
    restart = asyncio.create_task(supervisor.restart())
    try:
        async for paths in watch.changes():
            logger.info("%s changed: reloading", _named(paths))
            restart.cancel()
            await asyncio.wait([restart])
            restart = asyncio.create_task(supervisor.restart())
    finally:
        restart.cancel()
        await asyncio.wait([restart])


def _named(paths: Sequence[str]) -> str:
    shown = ", ".join(os.path.relpath(path) for path in paths[:3])
    return shown if len(paths) <= 3 else f"{shown} and {len(paths) - 3} more"


def _matches(name: str, path: str, patterns: Sequence[str]) -> bool:
    return any(
        fnmatch.fnmatch(name, pattern) or fnmatch.fnmatch(path, pattern) for pattern in patterns
    )
