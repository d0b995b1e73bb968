"""What was said about a server: flags, environment and ``[tool.headrace]``, as one.

Rules of this file:

- A flag beats the environment, the environment the table, the table the default.
- Nothing wrong is passed over: whatever can't be is an error that says where it was written, and
  what to write instead.
- What is secret is never shown.
"""

import argparse
import dataclasses
import difflib
import json
import os
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ..exceptions import ConfigurationError
from .config import Config
from .option import NOTHING, TRUTH, Option
from .options import OPTIONS, OTHER_VARIABLES

__all__ = ["Settings", "add_options", "resolve"]

PREFIX = "HEADRACE_"
TABLE = "tool.headrace"
FILE = "pyproject.toml"
_DEFAULTS = Config()


def _all() -> Iterator[Option]:
    for group in OPTIONS.values():
        yield from group


# Flags


def add_options(parser: argparse.ArgumentParser) -> None:
    """Let a parser know every setting; what is given ends up in its namespace, and only that."""
    for title, options in OPTIONS.items():
        group = parser.add_argument_group(title)
        for option in options:
            if option.name == "application":
                parser.add_argument(
                    option.dest,
                    nargs="?",
                    default=argparse.SUPPRESS,
                    metavar=option.metavar,
                    help=option.help,
                )
            else:
                _add_option(group, option)


def _add_option(group: "argparse._ArgumentGroup", option: Option) -> None:
    def read(text: str) -> Any:
        try:
            return option.read_one(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    described: dict[str, Any] = {"dest": option.dest, "default": argparse.SUPPRESS}
    value: dict[str, Any] = {
        "type": read,
        "metavar": option.metavar or option.kind.metavar,
        "help": _help(option),
    }
    names = (f"--{option.name}", *option.flags)
    if option.kind is TRUTH:
        group.add_argument(
            *names, action="store_const", const=True, help=_help(option), **described
        )
    elif option.repeatable:
        group.add_argument(*names, action="append", **value, **described)
    elif option.alone is NOTHING:
        group.add_argument(*names, **value, **described)
    else:
        group.add_argument(*names, nargs="?", const=option.alone, **value, **described)
    if option.without is not NOTHING:
        group.add_argument(
            f"--no-{option.name}",
            action="store_const",
            const=option.without,
            help=f"not --{option.name}",
            **described,
        )


def _help(option: Option) -> str:
    text, default = option.help, option.default
    if "default:" not in text and default not in (None, "", ()):
        shown = _toml(option.kind.write(default)).strip('"')
        text = f"{text} (default: {shown})"
    return text.replace("%", "%%")


# What was said


class _Said(NamedTuple):
    value: Any
    #: The flag, the variable, or the key and its file, as errors name it.
    where: str


class Settings:
    """The settings of one start."""

    def __init__(self, said: Mapping[str, _Said], warnings: Sequence[str] = ()) -> None:
        self._said = said
        #: What is not wrong for sure, a sentence each.
        self.warnings = warnings

    def __getitem__(self, name: str) -> Any:
        """Return a setting's value."""
        said = self._said.get(name)
        return _BY_NAME[name].default if said is None else said.value

    def given(self, name: str) -> bool:
        """Say whether somebody set it, be it to its default."""
        return name in self._said

    def where(self, name: str) -> str:
        """Return where it was written, for an error; the flag, where nobody wrote it."""
        said = self._said.get(name)
        return f"--{name}" if said is None else said.where

    def config(self, more: Mapping[str, Any]) -> Config:
        """Return the Config of all that was said.

        Args:
            more: Values of fields, by their path (``websocket.frame_bytes``); they come first.
        """
        values = {_BY_NAME[name].to: said.value for name, said in self._said.items()}
        return _config({path: value for path, value in values.items() if path} | dict(more))

    def as_toml(self) -> str:
        """Return the table that says the same, and in comments where each value comes from."""
        lines = []
        for title, options in OPTIONS.items():
            lines.append(("", ""))
            lines.append((f"# {title}", ""))
            for option in options:
                said = self._said.get(option.name)
                value = self[option.name]
                if value is None or self._is_idle(option.name):
                    line = f"# {option.name} ="
                elif option.secret:
                    line = f"# {option.name} = (not shown)"
                else:
                    line = f"{option.name} = {_toml(option.kind.write(value))}"
                lines.append((line, "default" if said is None else said.where))
        width = min(48, max(len(line) for line, _ in lines))
        shown = (f"{line:<{width}}  # {where}" if where else line for line, where in lines)
        return "\n".join((f"[{TABLE}]", *shown)) + "\n"

    def _is_idle(self, name: str) -> bool:
        """Say whether it is a default that nothing will use: the port, where other places are."""
        others = any(map(self.given, ("uds", "fd", "endpoint")))
        return (
            name in ("bind", "port") and others and not (self.given("bind") or self.given("port"))
        )


def _config(values: Mapping[str, Any]) -> Config:
    """Return the Config with these fields, each named by its path."""
    fields: dict[str, Any] = {}
    inner: dict[str, dict[str, Any]] = {}
    for path, value in values.items():
        name, _, field = path.partition(".")
        if field:
            inner.setdefault(name, {})[field] = value
        else:
            fields[name] = value
    for name, changed in inner.items():
        fields[name] = dataclasses.replace(getattr(_DEFAULTS, name), **changed)
    return Config(**fields)


def resolve(options: argparse.Namespace, environment: Mapping[str, str]) -> Settings:
    """Return the settings of these flags, this environment, and the table of the folder.

    Raises ConfigurationError for what can't be, naming where it was written.
    """
    flags = vars(options)
    said, warnings = _said_in_environment(environment)
    said |= {
        option.name: _Said(
            tuple(flags[option.dest]) if option.repeatable else flags[option.dest],
            f"--{'no-' if flags[option.dest] == option.without else ''}{option.name}",
        )
        for option in _all()
        if option.dest in flags
    }
    folder = said["app-dir"].value if "app-dir" in said else "."
    said = _said_in_table(folder) | said
    for name, (value, where) in said.items():
        path = _BY_NAME[name].to
        if path is not None and value is not None:
            try:
                _config({path: value})
            except ConfigurationError as error:
                raise ConfigurationError(f"{where}: {error}") from None
    return Settings(said, warnings)


def _said_in_environment(environment: Mapping[str, str]) -> tuple[dict[str, _Said], list[str]]:
    pairs, warnings = [], []
    for name, value in sorted(environment.items()):
        # A variable without a value is one that somebody, a compose file say, left unset.
        if not name.startswith(PREFIX) or not value or name in OTHER_VARIABLES:
            continue
        if _OF_KUBERNETES.fullmatch(f"{name}={value}"):
            continue
        key = name[len(PREFIX) :].lower().replace("_", "-")
        if key in _BY_KEY or _near(key):
            pairs.append((name, key, value))
        else:  # it may be the application's own
            warnings.append(f"{name} in the environment is no setting of the server; {_LISTED}")
    return _read(pairs, "{} in the environment", _variable), warnings


#: What it tells of a service named headrace, in each container of its namespace.
_OF_KUBERNETES = re.compile(r"HEADRACE_(SERVICE_(HOST|PORT\w*)=.*|PORT\w*=\w+://.*|PORT_\d+_.*)")


def _variable(key: str) -> str:
    return PREFIX + key.upper().replace("-", "_")


def _said_in_table(folder: str) -> dict[str, _Said]:
    """Read the table of the folder to import from, or else of the folder where this was started."""
    for path in dict.fromkeys((os.path.join(folder, FILE), FILE)):
        path = os.path.normpath(path)
        try:
            with open(path, "rb") as file:
                content = tomllib.load(file)
        except FileNotFoundError:
            continue
        except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"{path} can't be read: {error}") from None
        tool = content.get("tool")
        table = tool.get("headrace") if isinstance(tool, dict) else None
        if table is None:
            continue
        if not isinstance(table, dict):
            raise ConfigurationError(f"{path}: [{TABLE}] must be a table, not {table!r}")
        pairs = ((key, key.replace("_", "-"), value) for key, value in table.items())
        return _read(pairs, f"{path}: {{}} of [{TABLE}]", str)
    return {}


def _read(
    pairs: Iterable[tuple[str, str, Any]], place: str, spelled: Callable[[str], str]
) -> dict[str, _Said]:
    """Read what was written at one place: names as they stand there, their keys, and values."""
    said: dict[str, _Said] = {}
    for name, key, written in pairs:
        where = place.format(name)
        if key not in _BY_KEY:
            near = " or ".join(map(spelled, _near(key)))
            hint = f"did you mean {near}?" if near else _LISTED
            raise ConfigurationError(f"{where}: there is no such setting; {hint}")
        option, negated = _BY_KEY[key]
        try:
            value = _negated(option, written) if negated else option.read(written)
        except ValueError as error:
            raise ConfigurationError(f"{where}: {error}") from None
        if value is NOTHING:
            continue
        if option.name in said:
            raise ConfigurationError(
                f"{where}: {said[option.name].where} says it already: leave one of them out"
            )
        said[option.name] = _Said(value, where)
    return said


def _negated(option: Option, written: Any) -> Any:
    """Return what ``no-NAME = true`` says."""
    if _NEGATION.read(written):
        return option.without
    return True if option.kind is TRUTH else NOTHING


def _near(key: str) -> list[str]:
    return difflib.get_close_matches(key, _BY_KEY, n=3, cutoff=0.75)


_LISTED = "`headrace serve --print-config` lists them all"
_NEGATION = Option("no", TRUTH, "", default=False)
_BY_NAME = {option.name: option for option in _all()}
#: Each name in the table or the environment, and whether it says the opposite (``no-compression``).
_BY_KEY = {key: (option, False) for option in _all() for key in option.keys} | {
    f"no-{option.name}": (option, True) for option in _all() if option.without is not NOTHING
}


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return repr(value)
