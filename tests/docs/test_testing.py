"""The page about tests: its own tests pass, and what it tells of the fixtures is so."""

import re

from headrace.testing import plugin
from tests.documented import DOCS, documented

page = documented("testing.md")

RoomTests = page.RoomTests
OrdinaryTests = page.OrdinaryTests
LiveTests = page.LiveTests
test_everyone_hears_who_joined = page.test_everyone_hears_who_joined
test_who_is_logged_in = page.test_who_is_logged_in


class LayerTests(page.LayerTests):
    def test_it_is_the_default_one(self):
        from headrace.layers import get_channel_layer

        assert get_channel_layer() is self.channel_layer


def test_the_fixtures_are_named():
    named = set(re.findall(r"`(\w+)`", (DOCS / "testing.md").read_text()))
    fixtures = {"asgi_live_server", "async_db", "channel_layer", "websocket_connect"}
    assert fixtures <= named
    assert fixtures <= set(plugin.__all__)
