"""Imports, and what is done with the names that they bind."""

from itertools import pairwise

import pytest

from tests.migrating.moving import becomes, moved, stays

#: Pairs of lines: what is written, and what it becomes.
STATEMENTS = """\
import channels
import headrace
import channels.layers
import headrace.layers
import os, channels.db, sys
import os, headrace.db, sys
import channels.layers as layers
import headrace.layers as layers
from channels import layers
from headrace import layers
from channels import layers as l, db
from headrace import layers as l, db
from channels import DEFAULT_CHANNEL_LAYER
from headrace import DEFAULT_CHANNEL_LAYER
from channels.db import *
from headrace.db import *
from  channels . db  import  database_sync_to_async
from  headrace.db  import  database_sync_to_async
from channels.generic.websocket import WebsocketConsumer as W; x = 1
from headrace.generic.websocket import WebsocketConsumer as W; x = 1
from channels.consumer import StopConsumer
from headrace.exceptions import StopConsumer
from channels.auth import get_user_model
from django.contrib.auth import get_user_model
from channels.apps import ChannelsConfig
from headrace.apps import HeadraceConfig as ChannelsConfig
from channels.apps import ChannelsConfig as C
from headrace.apps import HeadraceConfig as C
""".splitlines()


@pytest.mark.parametrize(("old", "new"), list(pairwise(STATEMENTS))[::2])
@pytest.mark.parametrize("end", ["", "\n"], ids=["", "newline"])
def test_one_statement(old, new, end):
    after, _ = moved(old + end)
    assert after == new + end


def test_comments_and_formatting_stay():
    becomes(
        """\
        #!/usr/bin/env python
        # The imports.
        from channels.generic.websocket import (  # noqa: F401
              AsyncWebsocketConsumer as Base,   # the first
              # and one more
            WebsocketConsumer ,
        )  ; import  os
        if  True :
        \tfrom channels.db   import\\
        \t\tdatabase_sync_to_async
        """,
        """\
        #!/usr/bin/env python
        # The imports.
        from headrace.generic.websocket import (  # noqa: F401
              AsyncWebsocketConsumer as Base,   # the first
              # and one more
            WebsocketConsumer ,
        )  ; import  os
        if  True :
        \tfrom headrace.db   import\\
        \t\tdatabase_sync_to_async
        """,
    )


def test_uses_of_a_dotted_import():
    becomes(
        """\
        import channels.layers
        import channels.generic.websocket

        class Chat(channels.generic.websocket.WebsocketConsumer):
            layer = channels.layers.get_channel_layer()

            def connect(self):
                print(self.channels.layers, {"channels": channels . layers}, f(channels=1))
                return [channels.layers.channel_layers["default"] for _ in channels.layers.x()]
        """.replace("channels.layers.x()", "range(2)"),
        """\
        import headrace.layers
        import headrace.generic.websocket

        class Chat(headrace.generic.websocket.WebsocketConsumer):
            layer = headrace.layers.get_channel_layer()

            def connect(self):
                print(self.channels.layers, {"channels": headrace . layers}, f(channels=1))
                return [headrace.layers.channel_layers["default"] for _ in range(2)]
        """,
    )


def test_names_that_only_look_like_it():
    becomes(
        """\
        import channels.layers

        def parameter(channels):
            return channels.layers

        def local():
            channels = Channels()
            return channels.layers

        async def use():
            def inner():
                return channels.layers.get_channel_layer()
            return inner

        class Room:
            channels = []
            first = channels
            lookup = lambda self: channels.layers.channel_layers
        """,
        """\
        import headrace.layers

        def parameter(channels):
            return channels.layers

        def local():
            channels = Channels()
            return channels.layers

        async def use():
            def inner():
                return headrace.layers.get_channel_layer()
            return inner

        class Room:
            channels = []
            first = channels
            lookup = lambda self: headrace.layers.channel_layers
        """,
    )


def test_local_and_conditional_imports():
    becomes(
        """\
        from typing import TYPE_CHECKING

        if TYPE_CHECKING:
            from channels.layers import BaseChannelLayer

        def layer() -> "BaseChannelLayer":
            import channels.layers
            return channels.layers.get_channel_layer()

        def other():
            channels = 1
            return channels
        """,
        """\
        from typing import TYPE_CHECKING

        if TYPE_CHECKING:
            from headrace.layers import BaseChannelLayer

        def layer() -> "BaseChannelLayer":
            import headrace.layers
            return headrace.layers.get_channel_layer()

        def other():
            channels = 1
            return channels
        """,
    )


def test_an_optional_import():
    becomes(
        """\
        try:
            import channels
            from channels.layers import get_channel_layer
        except ImportError:
            channels = None
            get_channel_layer = None

        if channels is not None:
            print(channels)
        """,
        """\
        try:
            import headrace
            from headrace.layers import get_channel_layer
        except ImportError:
            headrace = None
            get_channel_layer = None

        if headrace is not None:
            print(headrace)
        """,
    )


def test_a_module_under_a_name_of_its_own():
    becomes(
        """\
        import channels.apps as a
        from channels import apps, layers
        a.ChannelsConfig, apps.ChannelsConfig, layers.get_channel_layer
        """,
        """\
        import headrace.apps as a
        from headrace import apps, layers
        a.HeadraceConfig, apps.HeadraceConfig, layers.get_channel_layer
        """,
    )


def test_not_ours():
    stays("from . import channels\nfrom .channels import x\nfrom ..channels.db import y\n")
    stays("import myapp.channels\nfrom myapp.channels import db\nimport channelsx\n")


def test_nothing_to_read():
    stays("")
    stays("x = 1")


@pytest.mark.parametrize(
    ("source", "advice"),
    [
        ("from channels.http import AsgiHandler\n", "Channels 2"),
        ("from channels.handler import AsgiHandler\n", "Channels 1"),
        ("from channels.handler import *\n", "Channels 1"),
        ("from channels import Group\n", "Channels 1"),
        ("from channels import __version__\n", "version"),
        ("from channels.layers import _private\n", "private"),
        ("from channels.layers import unknown, get_channel_layer\n", "channels.layers.unknown"),
        ("import channels.staticfiles\n", "Channels 3"),
        ("import channels.handler as h\n", "Channels 1"),
        ("import daphne.server\n", "Daphne"),
        ("from daphne.testing import DaphneProcess\n", "Daphne"),
        ("from daphne.server import *\n", "Daphne"),
        ("import channels_redis\n", "headrace[redis]"),
        ("from strawberry.channels import GraphQLWSConsumer\n", "strawberry.channels"),
    ],
)
def test_what_is_left_to_people(source, advice):
    stays("x = 1\n" + source, (2, advice))


def test_a_star_import_brings_public_names_only():
    _, remarks = moved("from channels.layers import *\n")
    assert len(remarks) == 1
    assert "public names only" in remarks[0][1]


def test_names_of_one_statement_that_live_apart():
    stays(
        "from channels.auth import login, get_user_model\n",
        (1, "import it from django.contrib.auth"),
    )


def test_all_or_nothing():
    stays(
        """\
        import channels
        import channels.layers

        print(channels.__version__)
        print(channels.layers.get_channel_layer())
        """,
        (4, "version"),
    )
    stays("import channels.http\nimport channels.layers\n", (1, "Channels 2"))
    stays("from channels import layers\nlayers._private\n", (1, "private"))
    stays("import channels.layers as c\nc.unknown\n", (1, "channels.layers.unknown"))


def test_a_use_of_what_is_defined_elsewhere():
    stays(
        "import channels.consumer\nraise channels.consumer.StopConsumer\n",
        (2, "it is in headrace.exceptions"),
    )


def test_private_parts_of_a_class_do_not_hold_up_its_import():
    after, remarks = moved(
        """\
        from channels.layers import InMemoryChannelLayer
        InMemoryChannelLayer._clean_expired
        """
    )
    assert after.startswith("from headrace.layers")
    assert "private" in remarks[0][1]


@pytest.mark.parametrize(
    "source",
    [
        "import channels.layers\ndef f():\n    global channels\n    channels = 1\n",
        "import channels.layers\nfrom myapp import channels\n",
        "import channels.layers\ndef channels(): pass\n",
        "import channels.layers\nwith x as channels: pass\n",
        "import channels.layers\nfor channels in y: pass\n",
    ],
)
def test_a_name_that_stands_for_two_things(source):
    stays(source, (1, "the name channels"))


def test_a_name_that_is_taken():
    stays("import channels.layers\nheadrace = 1\n", (1, "the name headrace"))
    becomes(
        "import headrace.db\nimport channels.layers\n",
        "import headrace.db\nimport headrace.layers\n",
    )


def test_own_packages_are_nobodys_dependency():
    stays("import channels_presence.models\n", own=frozenset({"channels_presence"}))


def test_a_name_may_be_called_channels_after_import_from():
    becomes(
        "from channels.layers import channel_layers as channels\nchannels['default']\n",
        "from headrace.layers import channel_layers as channels\nchannels['default']\n",
    )
