"""The page about the server names what there is, and its example runs."""

import argparse
import re

from headrace import cli
from headrace.server.config import Config
from tests.documented import DOCS, documented

from .clients import connected

PAGE = (DOCS / "server.md").read_text()
OPTIONS, _, DAPHNE = PAGE.partition("## Coming from Daphne")


def options():
    [commands] = [a for a in cli.parser()._actions if a.dest != "help" and a.choices]
    for action in commands.choices["serve"]._actions:
        if action.option_strings and action.dest != "help":
            yield action


#: What holds where the option is not given, and the parser can't say.
UNSAID = {
    "--bind": Config().host,
    "--port": str(Config().port),
    "--max-body-bytes": "none",
    "--proxy-headers": "off",
    "--wsgi-threads": "processors + 4, at most 32",
}


def test_every_option_has_a_row_with_its_default():
    rows = dict(re.findall(r"^\| `(--[a-z-]+)`[^|]*\| ([^|]*)\|", OPTIONS, re.MULTILINE))
    for option in options():
        name = option.option_strings[0]
        if name == "--slow-client":
            del rows[name]
            assert f"| `{option.default}` (the default) |" in PAGE
            continue
        default = rows.pop(name).strip(" `")
        if name in UNSAID:
            assert default == UNSAID[name]
        elif isinstance(option.default, bool):
            assert default == "on"
        elif isinstance(option.default, float):
            assert float(default) == option.default
        elif option.default in (None, [], argparse.SUPPRESS):
            assert default == ""
        else:
            assert default == str(option.default)
    assert rows == {}


def test_every_name_of_daphnes_options_is_there():
    named = {name for option in options() for name in option.option_strings}
    daphnes = set(re.findall(r"(?<![-\w])--?[a-z][-a-z_]*", DAPHNE))
    assert daphnes <= named
    assert len(daphnes) > 20


async def test_the_example_serves():
    page = documented("server.md")

    async def use(port):
        async with connected(("127.0.0.1", port)) as client:
            assert (await client.get()).body == b"hello"

    assert await page.serve_for_a_while(use) == 1


def test_the_example_of_a_thread_serves():
    assert documented("server.md").fetch("/") == b"hello"
