"""Files that aren't Python and name Channels or Daphne: what to change in them by hand.

Rules of this file:

- Nothing is rewritten here: a version pin, an image that is built elsewhere or a process manager
  may stand behind such a line, and only its owner knows. Each line comes with a suggestion.
- Lines that are comments say nothing.
"""

import re
from pathlib import PurePath

from .edits import Remark

__all__ = ["concerns", "remarks"]

_REQUIREMENT_FILES = re.compile(
    r"(.*requirements.*|constraints.*|requirements/.*)\.(txt|in)|pyproject\.toml|setup\.cfg|Pipfile"
    r"|tox\.ini|environment\.ya?ml",
    re.IGNORECASE,
)
_COMMAND_FILES = re.compile(
    r"(.*[.-])?(dockerfile|containerfile)([.-].*)?|procfile.*|makefile|justfile|tox\.ini|.*\.mk"
    r"|.*\.(ya?ml|sh|bash|service|conf|ini|nomad|hcl)|pyproject\.toml|package\.json",
    re.IGNORECASE,
)

# A name as a requirement: what follows ends it, or says which version.
_REQUIREMENT = re.compile(
    r"(?<![\w./\[-])(?P<name>channels|daphne|channels[-_]redis)(?P<extras>\[[^]]*\])?"
    r"(?=\s*([<>=!~;,@#\"'\\]|$))",
    re.IGNORECASE,
)
_INSTALL = re.compile(r"\b(pip3?|uv|poetry|pdm|pipenv)\b.*\b(install|add)\b(?P<what>.*)")
_INSTALLED = re.compile(
    r"(?<![\w./\[-])(?P<name>channels|daphne|channels[-_]redis)(?P<extras>\[[^]]*\])?(?![\w./-])",
    re.IGNORECASE,
)
_COMMAND = re.compile(
    r"(?P<python>\bpython[\d.]*\s+-m\s+)?(?<![\w./-])(?P<folder>\S*/)?daphne"
    r"(?=\s+(-|\$|[\w.]+:\w))"
)
_COMMAND_LIST = re.compile(
    r"(?P<quote>[\"'])(?P<folder>[^\"'\s]*/)?daphne(?P=quote)(?=\s*,.*([\"']-|[\w.]+:\w))"
)
_COMMAND_ITEM = re.compile(r"\s*-\s+(?P<quote>[\"']?)(?P<folder>[^\"'\s]*/)?daphne(?P=quote)\s*")
_TLS = re.compile(r"(-e|--endpoint)\b.*\b(ssl|tls|le|txacme):")


def concerns(path: PurePath) -> bool:
    """Tell whether a file of this name may hold requirements or commands."""
    return _has_requirements(path) or _COMMAND_FILES.fullmatch(path.name) is not None


def remarks(path: PurePath, text: str) -> tuple[Remark, ...]:
    """Say what to change in the file, line by line."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith(("#", "//", ";")):
            continue
        if _has_requirements(path):
            found += [Remark(number, _of(match)) for match in _REQUIREMENT.finditer(line)]
        installing = _INSTALL.search(line)
        if installing is not None:
            found += [
                Remark(number, _of(match)) for match in _INSTALLED.finditer(installing["what"])
            ]
        command = _suggested(line)
        if command is not None and not _has_requirements(path):
            found.append(Remark(number, command))
    return tuple(dict.fromkeys(found))


def _has_requirements(path: PurePath) -> bool:
    name = f"requirements/{path.name}" if path.parent.name == "requirements" else path.name
    return _REQUIREMENT_FILES.fullmatch(name) is not None


def _of(match: re.Match[str]) -> str:
    written = match["name"] + (match["extras"] or "")
    name = match["name"].lower().replace("_", "-")
    if name == "channels":
        return f"{written}: require headrace in its place"
    if name == "daphne":
        return f"{written}: headrace has a server, so nothing comes in its place"
    return f"{written}: require headrace[redis] in its place"


def _suggested(line: str) -> str | None:
    """Return what a line that runs Daphne becomes."""
    if _COMMAND.search(line):
        new = _COMMAND.sub(
            lambda found: (found["python"] or "") + (found["folder"] or "") + "headrace serve",
            line,
        )
    elif _COMMAND_LIST.search(line):
        new = _COMMAND_LIST.sub(
            lambda found: "{0}{1}headrace{0}, {0}serve{0}".format(
                found["quote"], found["folder"] or ""
            ),
            line,
        )
    elif _COMMAND_ITEM.fullmatch(line):
        new = "two items, headrace and serve"
    else:
        return None
    suggestion = f"Daphne is started here: {new.strip()}"
    if _TLS.search(line):
        suggestion += " (but the server speaks no TLS: let a proxy do that)"
    return suggestion
