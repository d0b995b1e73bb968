"""The command itself; what a subcommand does is tested with its own room."""

import subprocess
import sys
from importlib.metadata import entry_points

import pytest

from headrace import __version__, cli
from headrace.exceptions import ConfigurationError


def run(capsys, *arguments):
    """Run the command; return its status, and what it wrote."""
    with pytest.raises(SystemExit) as exit_:
        cli.main(arguments)
    written = capsys.readouterr()
    return exit_.value.code, written.out + written.err


@pytest.fixture
def pour(monkeypatch):
    """A subcommand ``pour`` that does what is put into the list."""
    does = []

    def register(commands):
        parser = commands.add_parser("pour")
        parser.add_argument("cup")
        parser.set_defaults(run=lambda options: does[0](options.cup))

    monkeypatch.setattr(cli, "COMMANDS", (*cli.COMMANDS, register))
    return does


def test_without_arguments_it_says_what_there_is(capsys):
    status, written = run(capsys)
    assert status == 2
    assert "serve an ASGI or a WSGI application" in written
    assert "migrate-imports" in written


def test_arguments_are_those_of_the_process_unless_given(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["headrace", "--version"])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    assert exit_.value.code == 0
    assert capsys.readouterr().out == f"headrace {__version__}\n"


def test_a_subcommand_that_is_not_there(capsys):
    status, written = run(capsys, "sevre")
    assert status == 2
    assert "invalid choice: 'sevre'" in written


@pytest.mark.parametrize(
    ("option", "hint"),
    [
        ("--workres=2", "; did you mean --workers?"),
        ("--no-such-thing", ""),
    ],
)
def test_an_option_that_is_not_there(capsys, option, hint):
    status, written = run(capsys, "serve", option, "mysite.asgi:application")
    assert status == 2
    assert written.endswith(f"headrace serve: error: unrecognized arguments: {option}{hint}\n")


@pytest.mark.parametrize(("returned", "status"), [(None, 0), (0, 0), (3, 3)])
def test_a_subcommand_gives_the_status(capsys, pour, returned, status):
    cups = []
    pour.append(lambda cup: cups.append(cup) or returned)
    assert run(capsys, "pour", "blue") == (status, "")
    assert cups == ["blue"]


def test_a_mistake_is_one_line(capsys, pour):
    def fail(cup):
        raise ConfigurationError(f"there is no cup {cup!r}: take a red one")

    pour.append(fail)
    assert run(capsys, "pour", "blue") == (2, "headrace: there is no cup 'blue': take a red one\n")


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        ("blue", ("blue", None)),
        ("blue --into", ("blue", "here")),
        ("blue --into sink", ("blue", "sink")),
        ("--into sink blue", ("blue", "sink")),
        ("--into=sink blue", ("blue", "sink")),
        ("--into blue", ("blue", "")),
        ("--into blue --gently", ("blue", "")),
    ],
)
def test_an_option_with_an_optional_value_leaves_the_positional_its_own(arguments, options):
    parser = cli.Parser()
    parser.add_argument("cup")
    parser.add_argument("--gently", action="store_true")
    parser.add_argument("--into", nargs="?", const="here")
    found = parser.parse_args(arguments.split())
    assert (found.cup, found.into) == options


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("--into", "the following arguments are required: cup"),
        ("--into blue --depth x", "argument --depth: invalid int value: 'x'"),
    ],
)
def test_an_option_with_an_optional_value_hides_no_mistake(capsys, arguments, says):
    parser = cli.Parser()
    parser.add_argument("cup")
    parser.add_argument("--depth", type=int)
    parser.add_argument("--into", nargs="?", const="here")
    with pytest.raises(SystemExit):
        parser.parse_args(arguments.split())
    assert says in capsys.readouterr().err


def test_the_command_is_installed():
    [command] = entry_points(group="console_scripts", name="headrace")
    assert command.load() is cli.main


def test_python_runs_the_package():
    command = [sys.executable, "-m", "headrace", "--version"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, f"headrace {__version__}\n", "")
