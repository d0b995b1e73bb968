"""The page about the server names what there is, and its example runs."""

import re

from headrace import cli
from tests.documented import DOCS, documented

from .clients import connected

PAGE = (DOCS / "server.md").read_text()


def options():
    [commands] = [a for a in cli.parser()._actions if a.dest != "help" and a.choices]
    for action in commands.choices["serve"]._actions:
        if action.option_strings and action.dest != "help":
            yield action


def test_every_option_has_a_row_with_its_default():
    rows = dict(re.findall(r"^\| `(--[a-z-]+)`[^|]*\| ([^|]*)\|", PAGE, re.MULTILINE))
    for option in options():
        name = option.option_strings[0]
        if name == "--slow-client":
            del rows[name]
            assert f"| `{option.default}` (the default) |" in PAGE
            continue
        default = rows.pop(name).strip(" `")
        if isinstance(option.default, bool):
            assert default == "on"
        elif isinstance(option.default, float):
            assert float(default) == option.default
        else:
            assert default == ("" if option.default in (None, []) else str(option.default)) or (
                name,
                default,
            ) == ("--max-body-bytes", "none")
    assert rows == {}


async def test_the_example_serves():
    page = documented("server.md")

    async def use(port):
        async with connected(("127.0.0.1", port)) as client:
            assert (await client.get()).body == b"hello"

    assert await page.serve_for_a_while(use) == 1
