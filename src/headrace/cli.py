"""The command ``headrace``, and what its subcommands share.

Rules of this file:

- ``COMMANDS`` is the table of subcommands. Each one registers its own parser, and sets ``run``:
  a function that takes the options and returns the exit status.
- What the user got wrong is one line that says what to do, and the status 2: never a traceback.
"""

import argparse
import difflib
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from . import __version__
from .exceptions import ConfigurationError
from .migrating import command as migrating
from .server import cli as serving
from .top import command as watching

__all__ = ["COMMANDS", "main", "parser"]


#: What registers each subcommand, in the order of the help.
COMMANDS: tuple[Callable[[Any], object], ...] = (
    serving.register,
    watching.register,
    migrating.register,
)


class _Mistake(Exception):
    """What a parser has to say against its arguments."""


class Parser(argparse.ArgumentParser):
    """The parser of a subcommand.

    An option whose value may be left out (``--access-log [FILE]``) leaves a positional argument
    what it needs: where that is missing, the option is taken to stand without a value.
    """

    _trying = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse, as argparse does."""
        options = {
            option
            for action in self._actions
            if action.nargs == argparse.OPTIONAL
            for option in action.option_strings
        }
        if options.isdisjoint(args):
            return self._parse(args, namespace)
        without_values = [f"{text}=" if text in options else text for text in args]
        try:
            self._trying = True
            try:
                return self._parse(args, namespace)
            except _Mistake as mistake:
                try:
                    return self._parse(without_values, namespace)
                except _Mistake:
                    self._trying = False
                    self.error(str(mistake))
        finally:
            self._trying = False

    def _parse(self, args: Any, namespace: Any) -> Any:
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            known = [option for action in self._actions for option in action.option_strings]
            near = [
                option
                for text in unknown
                for option in difflib.get_close_matches(text.partition("=")[0], known, 2, 0.75)
            ]
            hint = f"; did you mean {' or '.join(near)}?" if near else ""
            self.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
        return found, unknown

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and exit with 2."""
        if self._trying:
            raise _Mistake(message)
        super().error(message)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command with these arguments, or with those of the process; exit with its status."""
    command = parser()
    if not (sys.argv[1:] if arguments is None else arguments):
        command.print_help(sys.stderr)
        command.exit(2)
    options = command.parse_args(arguments)
    #: For those who run the same command once more, in another process.
    options.arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        status = options.run(options)
    except ConfigurationError as error:
        command.exit(2, f"headrace: {error}\n")
    command.exit(status or 0)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command and of all its subcommands."""
    command = argparse.ArgumentParser(
        prog="headrace", description="The real-time stack for Django."
    )
    command.add_argument("--version", action="version", version=f"headrace {__version__}")
    commands = command.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)
    for register in COMMANDS:
        register(commands)
    return command
