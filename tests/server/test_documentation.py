"""The pages about the server name what there is, and the examples run."""

import re

from headrace.server.option import TRUTH
from headrace.server.options import OPTIONS
from tests.documented import DOCS, documented

from .clients import connected

#: What follows these words is of other programs.
DAPHNE = "## Coming from Daphne"
PAGES = "".join(page.read_text().partition(DAPHNE)[0] for page in sorted(DOCS.glob("*.md")))

#: What holds where nobody says it, and the table of options doesn't know.
UNSAID = {
    "shared-networks": "the private ones",
    "wsgi-threads": "processors + 4, at most 32",
}


def options():
    return [
        option for group in OPTIONS.values() for option in group if option.name != "application"
    ]


def test_every_option_has_a_row_with_its_default():
    rows = dict(re.findall(r"^\| `--([a-z][a-z0-9-]*)`[^|]*\| ([^|]*)\|", PAGES, re.MULTILINE))
    for option in options():
        name, default = option.name, option.default
        assert name in rows, f"no page has a row for --{name}"
        documented_default = rows.pop(name).strip(" `")
        if name == "slow-client":
            assert f"| `{default}` (the default) |" in PAGES
        elif name in UNSAID:
            assert documented_default == UNSAID[name]
        elif option.kind is TRUTH or isinstance(default, bool):
            assert documented_default == ("on" if default else "off"), name
        elif isinstance(default, float):
            assert float(documented_default) == default, name
        elif default in (None, ()):
            assert documented_default == "", name
        else:
            assert documented_default == str(option.kind.write(default)), name


def test_every_name_of_daphnes_options_is_there():
    named = {name for option in options() for name in (f"--{option.name}", *option.flags)}
    named |= {f"--no-{option.name}" for option in options()}
    page = (DOCS / "server.md").read_text().partition(DAPHNE)[2]
    daphnes = set(re.findall(r"(?<![-\w])--?[a-z][-a-z_]*", page))
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
