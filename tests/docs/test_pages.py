"""Every page: the commands that it names exist."""

import re
import shlex

import pytest

from headrace import cli
from tests.docs.pages import PAGES, ROOT, blocks

_MAKE = re.compile(r"\bmake (?:[A-Z]+=\S+ )*([a-z][a-z-]*)")
_CODE = re.compile(r"^```.*?^```$|`[^`\n]+`", re.MULTILINE | re.DOTALL)
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


@pages
def test_make_targets_exist(page):
    named = {target for code in _CODE.findall(page.read_text()) for target in _MAKE.findall(code)}
    assert named <= TARGETS


@pages
def test_commands_exist(page):
    for block in blocks(page):
        if block.language != "console":
            continue
        for line in block.lines:
            command, *arguments = shlex.split(line, comments=True) or [""]
            assert command != "$", f"{block.place}: commands are written without a prompt"
            if command == "headrace":
                cli.parser().parse_args(arguments)
