"""The pages about commands and workers: what they list is what there is, and the examples run."""

import asyncio
import re

import pytest
from django.core.checks import registry
from django.core.management import load_command_class

from headrace import checks
from tests.docs.pages import ROOT
from tests.documented import DOCS, documented

COMMANDS = (DOCS / "commands.md").read_text()


async def test_the_worker_of_the_page(layer):
    workers = documented("workers.md")
    await layer.group_add("pictures", "page")
    async for _ in workers.make_all(["abc", "de"]):
        async with asyncio.timeout(10):
            ready = [await layer.receive("page") for _ in range(2)]
    assert [(event["picture"], event["size"]) for event in ready] == [("abc", 3), ("de", 2)]


def test_the_settings_of_the_page_are_settings():
    settings = documented("commands.md")
    assert settings.INSTALLED_APPS[0] == "headrace"
    assert set(settings.SILENCED_SYSTEM_CHECKS) <= set(re.findall(r"`(headrace\.\w+)`", COMMANDS))


def test_every_check_is_listed_wherever_they_are_listed():
    source = (ROOT / "src/headrace/checks.py").read_text()
    given = set(re.findall(r'id="headrace\.([EW]\d+)"', source))
    assert set(re.findall(r"^\| `headrace\.([EW]\d+)`", COMMANDS, re.MULTILINE)) == given
    assert set(re.findall(r"^([EW]\d+) ", checks.__doc__, re.MULTILINE)) == given


def test_what_is_marked_as_for_deployment_is():
    deploy = re.findall(r"^\| `headrace\.([EW]\d+)` .*\| deploy \|$", COMMANDS, re.MULTILINE)
    listed = re.findall(r"^([EW]\d+) .*?\(``--deploy``\)$", checks.__doc__, re.MULTILINE)
    assert sorted(deploy) == sorted(listed)
    assert {checks.check_application, checks.check_processes} <= set(
        registry.registry.deployment_checks
    )


@pytest.mark.parametrize("command", ["runserver", "runworker"])
def test_the_options_of_the_page_exist(command):
    parser = load_command_class("headrace", command).create_parser("manage.py", command)
    options = {option for action in parser._actions for option in action.option_strings}
    section = re.search(rf"^## {command}$(.*?)^## ", COMMANDS, re.MULTILINE | re.DOTALL)[1]
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z0-9_-]+", section)) - {"--deploy"} <= options
