"""``headrace migrate-imports``: shows what would change, and changes it with ``--write``.

Rules of this file:

- libcst is imported when the command runs, and not before.
- The difference goes to standard output, ready for ``patch``; all that is said about it goes to
  standard error.
- The status is for scripts: 0 when nothing is left to be written, 1 when something is, 2 when
  the command was called wrongly.
"""

import argparse
import difflib
import io
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from ..exceptions import ConfigurationError

if TYPE_CHECKING:
    from .project import Change, Survey

__all__ = ["register"]

_COLOURS = {"+": "\x1b[32m", "-": "\x1b[31m", "@": "\x1b[36m"}
_BOLD, _PLAIN = "\x1b[1m", "\x1b[0m"


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to those of ``headrace``."""
    parser = commands.add_parser(
        "migrate-imports",
        help="move a project from Django Channels to Headrace",
        description=(
            "Rewrite the imports, the settings and INSTALLED_APPS of a project that uses Django "
            "Channels. Shows the difference; writes it with --write. What it can't change is "
            "listed with its place."
        ),
        epilog="Exit status: 0 nothing (left) to change, 1 something would change, 2 wrong usage.",
    )
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="a folder or a file")
    parser.add_argument("--write", action="store_true", help="change the files")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command, and return its exit status."""
    try:
        from . import project
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "libcst":
            raise
        raise ConfigurationError(
            "migrate-imports reads Python with libcst, which is not installed: "
            "pip install 'headrace[migrate]'"
        ) from None
    found = project.survey(options.paths)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # for a terminal that knows no Unicode
    _show(found.changes, sys.stdout)
    failed: list[tuple[Path, str]] = []
    if options.write:
        for change in found.changes:
            try:
                project.write(change)
            except OSError as error:
                failed.append((change.path, str(error)))
    _list(found, [*found.unread, *failed], project.dependants())
    left = len(failed) if options.write else len(found.changes)
    _say(_summary(len(found.changes), len(failed), write=options.write))
    return 1 if left else 0


def _show(changes: Iterable["Change"], stream: TextIO) -> None:
    coloured = stream.isatty() and not os.environ.get("NO_COLOR")
    for change in changes:
        for line in _difference(change):
            colour = _BOLD if line.startswith(("---", "+++")) else _COLOURS.get(line[0])
            if coloured and colour is not None:
                text = line.rstrip("\r\n")
                line = f"{colour}{text}{_PLAIN}{line[len(text) :]}"
            stream.write(line)
    stream.flush()


def _difference(change: "Change") -> Iterator[str]:
    name = Path(os.path.relpath(change.path)).as_posix()
    for line in difflib.unified_diff(
        _lines(change.old), _lines(change.new), f"a/{name}", f"b/{name}"
    ):
        yield line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"


def _lines(text: str) -> list[str]:
    """Split at line feeds only, as ``patch`` does."""
    return list(io.StringIO(text, newline="\n"))


def _list(found: "Survey", unread: list[tuple[Path, str]], dependants: list[str]) -> None:
    if found.remarks:
        _say("To change by hand:")
        seen: dict[str, list[str]] = {}
        for path, remark in found.remarks:
            seen.setdefault(remark.text, []).append(f"{os.path.relpath(path)}:{remark.line}")
        for text, places in seen.items():
            further = f" (and {', '.join(places[1:])})" if len(places) > 1 else ""
            _say(f"  {places[0]}: {text}{further}")
    if dependants:
        _say(
            f"Installed packages that import channels themselves: {', '.join(dependants)}. Call "
            "headrace.as_channels.install() at the top of the settings module."
        )
    if unread:
        _say("Left alone:")
        for path, reason in unread:
            _say(f"  {os.path.relpath(path)}: {reason}")


def _summary(changed: int, failed: int, *, write: bool) -> str:
    if not changed:
        return "Nothing to change."
    if not write:
        return f"{_files(changed)} would change. Nothing is written without --write."
    return f"{_files(changed - failed)} changed." + (
        f" {_files(failed)} could not be." * bool(failed)
    )


def _files(number: int) -> str:
    return "1 file" if number == 1 else f"{number} files"


def _say(text: str) -> None:
    print(text, file=sys.stderr)
