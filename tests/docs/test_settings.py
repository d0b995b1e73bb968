"""The page about settings: it names all that is read, and its example is accepted."""

import dataclasses
import re

from django.conf import settings
from django.test import override_settings

from headrace import conf
from headrace.layers import get_channel_layer
from tests.docs.pages import ROOT
from tests.documented import documented

PAGE = (ROOT / "docs/settings.md").read_text()
SOURCES = [path.read_text() for path in (ROOT / "src/headrace").rglob("*.py")]


def test_the_example_is_accepted():
    page = documented("settings.md")
    with override_settings(HEADRACE=page.HEADRACE, CHANNEL_LAYERS=page.CHANNEL_LAYERS):
        assert conf.problems() == []
        assert page.threads() == 16
        assert get_channel_layer().capacity == 100
    assert page.INSTALLED_APPS[0] in settings.INSTALLED_APPS


def test_each_key_is_on_the_page_with_its_default():
    rows = dict(re.findall(r"^\| `([A-Z_]+)` \| (.+?) \|", PAGE, re.MULTILINE))
    for field in dataclasses.fields(conf.Settings):
        assert field.name.upper() in rows
    assert rows["CLOSE_ON_LOGOUT"] == f"`{conf.Settings().close_on_logout}`"
    assert conf.Settings().sync_threads == min(32, (conf.os.cpu_count() or 1) + 4)


def test_every_setting_that_is_read_is_on_the_page():
    read = set()
    for source in SOURCES:
        read.update(re.findall(r"\bsettings\.([A-Z][A-Z_]+)", source))
        read.update(re.findall(r'getattr\((?:django_)?settings, "([A-Z_]+)"', source))
    assert {"ASGI_APPLICATION", "CHANNEL_LAYERS", "ALLOWED_HOSTS"} <= read
    assert {name for name in read if f"`{name}`" not in PAGE and f"## {name}" not in PAGE} == set()


def test_every_logger_is_on_the_page():
    named = {
        name for source in SOURCES for name in re.findall(r'getLogger\("(headrace\.\w+)"', source)
    }
    assert {name for name in named if f"`{name}`" not in PAGE} == set()
