"""The page about views: its examples do what it says."""

import pytest
from django.contrib.auth.models import AnonymousUser, User

from headrace.testing import WebsocketCommunicator
from tests.documented import documented

pytestmark = pytest.mark.usefixtures("layer")


@pytest.fixture(scope="module")
def page():
    return documented("views.md")


def enter(page, room, user):
    communicator = WebsocketCommunicator(page.application, f"/chat/{room}/")
    communicator.scope["user"] = user
    communicator.scope["session"] = {}
    return communicator


async def test_the_chat(page):
    ada, grace = (enter(page, "tea", User(username=name)) for name in ("ada", "grace"))
    await ada.connect()
    assert await ada.receive_json_from() == {"joined": "ada"}
    await grace.connect()
    for communicator in (ada, grace):
        assert await communicator.receive_json_from() == {"joined": "grace"}
    await ada.send_to("hello")
    for communicator in (ada, grace):
        assert await communicator.receive_json_from() == {"from": "ada", "text": "hello"}
        await communicator.disconnect()


async def test_the_chat_refuses_who_has_not_logged_in(page):
    communicator = enter(page, "tea", AnonymousUser())
    assert (await communicator.connect())[0] is False
    await communicator.wait()


async def test_the_ticker_stops_with_its_client(page):
    communicator = WebsocketCommunicator(page.ticker, "/")
    await communicator.connect()
    assert await communicator.receive_json_from() == {"tick": 0}
    await communicator.disconnect()


async def test_the_orders(page, layer):
    communicator = WebsocketCommunicator(page.orders, "/")
    await communicator.connect()
    await communicator.send_to("hello")
    assert await communicator.receive_from() == "this feed takes no messages"
    await layer.group_send("orders", {"type": "order.changed", "number": 7, "status": "sent"})
    assert await communicator.receive_from() == "order 7 is sent"
    await communicator.disconnect()
    await page.test_the_feed()
