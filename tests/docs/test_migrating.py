"""The page on moving: its examples run, and its tables name what exists."""

import re

import pytest

from headrace import as_channels
from headrace.migrating.python import migrate
from tests.documented import DOCS, documented

PAGE = (DOCS / "migrating.md").read_text()


@pytest.fixture
def no_alias():
    yield
    as_channels.uninstall()


def test_the_examples(no_alias):
    examples = documented("migrating.md")
    assert examples.channels.__version__ == as_channels.CHANNELS_VERSION
    assert f'"{as_channels.CHANNELS_VERSION}"' in PAGE


def test_what_is_said_to_be_rewritten_is():
    table = re.search(r"\| it rewrites .*?\n\n", PAGE, re.DOTALL)[0].strip().splitlines()[2:]
    codes = [
        [code.replace("\\|", "|") for code in re.findall(r"`([^`]+)`", row.split(" | ", 1)[1])]
        for row in table
    ]
    (statement,), (use, plain), strings, redis, (*apps, app), loggers, (annotated,) = codes
    migrated = migrate(
        "\n".join(
            [
                statement,
                plain,
                use,
                *(f"x = {string}" for string in (*strings, redis[0])),
                f"INSTALLED_APPS = [{', '.join(apps)}]",
                *(f"getLogger({logger})" for logger in loggers[::2]),
                f"def f({annotated}): ...",
            ]
        )
    )
    assert migrated.remarks == ()
    assert "channels." not in migrated.source.replace("django.channels", "")
    assert f"x = {redis[1]}" in migrated.source
    assert f"INSTALLED_APPS = [{app}]" in migrated.source
    assert all(f"getLogger({logger})" in migrated.source for logger in loggers[1::2])
