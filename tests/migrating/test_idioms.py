"""What is of Channels 2 and 3, and the settings of Daphne."""

import pytest

from tests.migrating.moving import stays


def test_routes_to_bare_consumers():
    stays(
        """\
        # channels
        routes = [
            path("ws/", consumers.ChatConsumer),
            re_path("ws/", ChatConsumer, name="chat"),
            path("ws/", ChatConsumer.as_asgi()),
            path("page/", views.page),
            path("alone/"),
            other("ws/", ChatConsumer),
        ]
        """,
        (3, "consumers.ChatConsumer.as_asgi()"),
        (4, "ChatConsumer.as_asgi()"),
    )


@pytest.mark.parametrize("name", ["asgi.py", "routing.py"])
def test_a_router_without_pages(name):
    source = "# channels\napplication = ProtocolTypeRouter({'websocket': x})\n"
    stays(source, (2, '"http": get_asgi_application()'), name=name)
    stays(source, name="test_chat.py")


@pytest.mark.parametrize(
    "table",
    ["{'http': y, 'websocket': x}", "{**more, 'websocket': x}", "{'channel': x}", "table", ""],
)
def test_routers_that_are_complete_or_unknown(table):
    stays(f"# channels\napplication = ProtocolTypeRouter({table})\n", name="asgi.py")


def test_settings_of_daphne():
    stays(
        "DAPHNE_WEBSOCKET_MAX_MESSAGE_SIZE = 1\nDAPHNE_WEBSOCKET_MAX_FRAME_SIZE = 2\n",
        (1, "--websocket-max-message-size"),
        (2, "--websocket-max-frame-size"),
    )
