"""A project on disk: which files are looked at, and how a changed one is written.

Rules of this file:

- Looked at is what belongs to the project: what git doesn't ignore, and no environments, packages
  of other languages, caches and database migrations.
- A file is decoded as Python decodes it, and written back in the same encoding, with the same
  mark, line endings and permissions.
- A file is replaced by a complete new one, or stays. One that changed since it was read stays.
"""

import contextlib
import io
import os
import re
import shutil
import subprocess
import tempfile
import tokenize
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from ..exceptions import ConfigurationError
from . import others
from .edits import Remark
from .python import Migrated, Unreadable, migrate

__all__ = ["Change", "Survey", "dependants", "survey", "write"]

_SKIPPED = frozenset(
    {"__pycache__", "bower_components", "migrations", "node_modules", "site-packages", "venv"}
)
#: Folders that begin with a dot, and nevertheless hold what people wrote.
_HIDDEN_BUT_LOOKED_AT = frozenset({".circleci", ".docker", ".github", ".gitlab"})

#: Beside one of these, a module can be imported by its name alone.
_MARKS_OF_A_ROOT = ("manage.py", "pyproject.toml", "setup.cfg", "setup.py")


@dataclass(frozen=True, slots=True)
class Change:
    """A file, as it is and as it will be."""

    path: Path
    old: str
    new: str
    encoding: str


@dataclass(slots=True)
class Survey:
    """What is to be done in a project."""

    changes: list[Change] = field(default_factory=list)
    #: To be changed by hand.
    remarks: list[tuple[Path, Remark]] = field(default_factory=list)
    #: Files that are left alone, and why.
    unread: list[tuple[Path, str]] = field(default_factory=list)


def survey(paths: Sequence[Path]) -> Survey:
    """Look through files and folders. ConfigurationError for a path that isn't there."""
    files = list(dict.fromkeys(file for path in paths for file in _files(path)))
    _refuse_a_channels_of_its_own(files)
    own = frozenset(name for path in paths for name in _top_level(path))
    found = Survey()
    apps: list[tuple[Path, Migrated]] = []
    for file in files:
        try:
            if file.suffix in (".py", ".pyi"):
                migrated = _python(found, file, own=own)
                if migrated.apps:
                    apps.append((file, migrated))
            else:
                text = file.read_bytes().decode(errors="replace")
                found.remarks += [(file, remark) for remark in others.remarks(file, text)]
        except (OSError, SyntaxError, UnicodeError, Unreadable) as error:
            found.unread.append((file, str(error).partition("\n")[0]))
    _remark_apps_of_several_files(found, apps)
    return found


def write(change: Change) -> None:
    """Replace the file by its new form; OSError if that can't be, and then it stays as it is."""
    path = change.path.resolve()
    if path.read_bytes() != change.old.encode(change.encoding):
        raise OSError(f"{change.path} was changed by somebody else meanwhile")
    if not os.access(path, os.W_OK):
        raise PermissionError(f"{change.path} may not be written")
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(change.new.encode(change.encoding))
            file.flush()
            os.fsync(file.fileno())
        shutil.copymode(path, temporary)
        status = path.stat()
        with contextlib.suppress(PermissionError):  # only root may give files away
            os.chown(temporary, status.st_uid, status.st_gid)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def dependants() -> list[str]:
    """Return the installed packages that need Channels, by what they declare."""
    found = set()
    for distribution in metadata.distributions():
        needed = {
            re.split(r"[^\w.-]", requirement)[0].lower()
            for requirement in distribution.requires or ()
            if "extra ==" not in requirement
        }
        if "channels" in needed:
            found.add(distribution.name)
    return sorted(found)


def _python(found: Survey, file: Path, *, own: frozenset[str]) -> Migrated:
    data = file.read_bytes()
    encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
    source = data.decode(encoding)
    migrated = migrate(source, name=file.name, own=own)
    if migrated.source != source:
        found.changes.append(Change(file, source, migrated.source, encoding))
    found.remarks += [(file, remark) for remark in migrated.remarks]
    return migrated


def _remark_apps_of_several_files(found: Survey, apps: list[tuple[Path, Migrated]]) -> None:
    """Say where settings that build on other ones would list the same app again."""
    for file, migrated in apps:
        elsewhere = [path for path, _ in apps if path != file]
        if elsewhere:
            found.remarks += [
                (
                    file,
                    Remark(
                        app.line,
                        f"'headrace' is in {elsewhere[0]}, too: an app may be listed once only, so "
                        "take it out here if these settings build on those",
                    ),
                )
                for app in migrated.apps
                if app.adds
            ]


def _files(path: Path) -> Iterator[Path]:
    """Yield the files to look at: the one that is named, or those of a folder, in order."""
    if path.is_file():
        yield path
        return
    if not path.is_dir():
        raise ConfigurationError(f"there is no file or folder {str(path)!r}")
    found = list(_walk(path))
    known = _known_to_git(path)
    # Where git knows no Python, the folder as such is ignored; it was named, nevertheless.
    if known is not None and any(file.suffix == ".py" and file in known for file in found):
        found = [file for file in found if file in known]
    yield from found


def _walk(root: Path) -> Iterator[Path]:
    for folder, names, files in os.walk(root):
        here = Path(folder)
        names[:] = sorted(name for name in names if not _is_skipped(here / name))
        for name in sorted(files):
            file = here / name
            concerned = file.suffix in (".py", ".pyi") or others.concerns(file)
            # What a link leads to is looked at where it is, or isn't the project's.
            if concerned and file.is_file() and not file.is_symlink():
                yield file


def _is_skipped(folder: Path) -> bool:
    name = folder.name
    return (
        name in _SKIPPED
        or name.endswith(".egg-info")
        or (name.startswith(".") and name not in _HIDDEN_BUT_LOOKED_AT)
        or (folder / "pyvenv.cfg").exists()
    )


def _known_to_git(root: Path) -> set[Path] | None:
    """Return the files that git doesn't ignore; None where there is no git, or no repository."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, cwd=root, capture_output=True, check=True)  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        return None
    return {root / os.fsdecode(name) for name in listed.stdout.split(b"\0") if name}


def _refuse_a_channels_of_its_own(files: Iterable[Path]) -> None:
    """Stop where ``import channels`` means a module of the project's own."""
    for file in files:
        home = {"channels.py": file.parent}.get(file.name)
        if file.name == "__init__.py" and file.parent.name == "channels":
            home = file.parent.parent
        if home is None or (home / "__init__.py").exists():
            continue
        if any((home / mark).exists() for mark in _MARKS_OF_A_ROOT) or home.name == "src":
            raise ConfigurationError(
                f"{file} is a module channels of your own, so nobody can tell which imports mean "
                "Django Channels: rename it first, or name the files to look at"
            )


def _top_level(path: Path) -> Iterator[str]:
    """Yield the names of the modules that a project's folder holds."""
    for folder in (path, path / "src"):
        if folder.is_dir():
            yield from (entry.stem for entry in folder.iterdir())
    if (path / "__init__.py").exists():
        yield path.resolve().name
