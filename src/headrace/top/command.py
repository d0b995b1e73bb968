"""The subcommand ``headrace top``: which server, and whether live or once.

Rules of this file:

- What a script needs (``--once``, ``--json``) needs no extra, and no terminal.
- What keeps it from showing anything is one line that says what to do, and the status 2.
"""

import argparse
import json
import math
import os
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

from ..exceptions import ConfigurationError, ControlError
from ..figures import Figures, Meter
from ..server import control
from .words import SHOWN, lines, with_age

__all__ = ["register", "run"]


def register(commands: Any) -> None:
    """Add the subcommand."""
    command: argparse.ArgumentParser = commands.add_parser(
        "top",
        help="watch a running server",
        description="Watch a running server of this user: workers, connections, rates, the largest "
        "groups, the slowest handlers. Keys: ? lists them, q quits.",
    )
    command.add_argument(
        "--server",
        "--control-socket",
        metavar="SERVER",
        help="which server, where several run: its process id, or the path of its control socket",
    )
    command.add_argument(
        "--interval", type=_seconds, default=1.0, metavar="SECONDS", help="between two looks (1)"
    )
    command.add_argument(
        "--once",
        action="store_true",
        help="print it once, as text: what is done as well where the output is no terminal",
    )
    command.add_argument("--json", action="store_true", help="print it once, as JSON")
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Show it; return the exit status."""
    try:
        found = _servers(options.server)
        live = not (options.once or options.json) and _is_terminal()
        if len(found) > 1 and not live:
            listed = ", ".join(found)
            raise ControlError(f"several servers run, name one with --server: {listed}")
        if live:
            return _watch(found, options.interval)
        figures, connections = look_twice(found[0], options.interval)
    except ControlError as error:
        raise ConfigurationError(str(error)) from None
    if options.json:
        said = [json.dumps({**msgspec.to_builtins(figures), "connections": connections})]
    else:
        said = list(lines(figures, connections))
    try:
        print(*said, sep="\n", flush=True)
    except BrokenPipeError:  # "| head" has seen enough; nor is there more to say at the exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def look_twice(path: str, interval_s: float) -> tuple[Figures, list[dict[str, Any]]]:
    """Return the figures of a server, and its connections: two looks, for the rates."""
    meter = Meter()
    with control.BlockingClient(path) as server:
        meter.take(server.ask("snapshot"), at=time.time(), clock_s=time.monotonic())
        time.sleep(interval_s)
        answer = server.ask("snapshot")
        figures = meter.take(answer, at=time.time(), clock_s=time.monotonic())
        return figures, with_age(server.ask("connections", limit=SHOWN), figures.at)


def _servers(named: str | None) -> list[str]:
    """Return the control sockets that may be meant, at least one."""
    if named is None:
        found = control.servers()
        return found or [control.find()]
    if named.isascii() and named.isdigit():
        path = control.runtime_directory() / f"{named}.sock"
        if not path.exists():
            running = ", ".join(Path(each).stem for each in control.servers()) or "none"
            raise ControlError(
                f"no server of this user has the process id {named}; those that run: {running}"
            )
        return [str(path)]
    return [os.path.abspath(named)]


def _watch(servers: list[str], interval_s: float) -> int:
    try:
        from .screen import watch
    except ImportError as error:
        if not (error.name or "").startswith(("textual", "rich")):
            raise
        raise ControlError(
            'the live view needs Textual: pip install "headrace[top]"; '
            "headrace top --once does without it"
        ) from None
    return watch(servers, interval_s)


def _is_terminal() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0.1 <= value <= 3600:
        raise argparse.ArgumentTypeError(f"a number of seconds from 0.1 to 3600, not {text!r}")
    return value
