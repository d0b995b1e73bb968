"""The pages about consumers and channel layers: their examples do what they say."""

import ast
import asyncio
import re

import pytest
import websockets
from asgiref.sync import async_to_sync
from django.contrib.auth.models import User
from django.test import RequestFactory, override_settings

from headrace.layers import InMemoryChannelLayer, channel_layers
from headrace.server.config import Config
from headrace.server.server import Server
from headrace.testing import HttpCommunicator, WebsocketCommunicator
from headrace.testing.layers import LayerSuite
from tests.documented import DOCS, documented

pytestmark = pytest.mark.usefixtures("layer")

layers_page = documented("layers.md")
#: What the class of a conformance suite says about its layer.
ATTRIBUTES = {
    name: value
    for name, value in vars(LayerSuite).items()
    if not name.startswith("_") and isinstance(value, int | float | dict)
}


@pytest.fixture(scope="module")
def consumers():
    return documented("consumers.md")


@pytest.fixture(scope="module")
def layers():
    return layers_page


async def test_the_tests_of_the_page(consumers):
    await consumers.test_everyone_hears()
    await consumers.test_a_page()


@pytest.mark.parametrize("name", ["RoomConsumer", "SyncRoomConsumer"])
async def test_the_rooms_over_a_server(consumers, layer, name):
    async with Server(getattr(consumers, name).as_asgi(), Config(port=0)) as server:
        address = f"ws://127.0.0.1:{server.port}"
        async with websockets.connect(address) as ada, websockets.connect(address) as grace:
            await ada.send("hello")
            assert [await ada.recv(), await grace.recv()] == ["hello", "hello"]
            await consumers.announce(layer, "to all")
            assert [await ada.recv(), await grace.recv()] == ["to all", "to all"]
            await consumers.close_the_lobby(layer)
            await ada.wait_closed()
            assert ada.close_code == 4001


async def test_the_clock(consumers):
    communicator = WebsocketCommunicator(consumers.ClockConsumer.as_asgi(), "/")
    await communicator.connect()
    await communicator.send_json_to({"hours": 2})
    assert await communicator.receive_json_from() == {"time": "2026-01-01T00:00:00+02:00"}
    await communicator.disconnect()


async def test_the_pulse_beats_while_somebody_listens(consumers):
    communicators = [
        WebsocketCommunicator(consumers.PulseConsumer.as_asgi(), "/") for _ in range(2)
    ]
    for communicator in communicators:
        await communicator.connect()
    assert consumers.beating.holders == 2
    assert await communicators[0].receive_json_from() == {"type": "beat"}
    await communicators[0].disconnect()
    assert await communicators[1].receive_json_from(timeout=5) == {"type": "beat"}
    await communicators[1].disconnect()
    assert not consumers.beating.running


async def test_members_only(consumers):
    async with Server(consumers.MembersConsumer.as_asgi(), Config(port=0)) as server:
        with pytest.raises(websockets.exceptions.InvalidStatus) as caught:
            await websockets.connect(f"ws://127.0.0.1:{server.port}").__aenter__()
    response = caught.value.response
    assert (response.status_code, response.body) == (401, b'{"error": "log in first"}')
    assert response.headers["content-type"] == "application/json"


async def test_the_ticker_shows_the_last(consumers, layer):
    communicator = WebsocketCommunicator(consumers.TickerConsumer.as_asgi(), "/")
    await communicator.connect()
    for price in range(30):
        await layer.group_send("ticker", {"type": "ticker.price", "price": price})
    assert [await communicator.receive_from() for _ in range(10)] == [*map(str, range(20, 30))]
    await communicator.disconnect()
    assert layer.overflows["drop-oldest"] == 20


async def test_searches_run_beside_one_another(consumers):
    communicator = WebsocketCommunicator(consumers.SearchConsumer.as_asgi(), "/")
    await communicator.connect()
    for number, seconds in enumerate((0.05, 0)):
        await communicator.send_json_to({"id": number, "seconds": seconds})
    assert [await communicator.receive_json_from() for _ in range(2)] == [
        {"answer": 1},
        {"answer": 0},
    ]
    await communicator.disconnect()


async def test_some_errors_are_forgiven(consumers, caplog):
    communicator = WebsocketCommunicator(consumers.ForgivingConsumer.as_asgi(), "/")
    await communicator.connect()
    for text in ("{", "{}", '{"number": "x"}'):
        await communicator.send_to(text)
        assert await communicator.receive_json_from() == {"error": "this makes no sense"}
    await communicator.send_json_to({"number": 4})
    assert await communicator.receive_json_from() == {"half": 2.0}
    await communicator.disconnect()
    assert len(caplog.records) == 3


async def test_the_stream_of_news(consumers, layer):
    communicator = HttpCommunicator(consumers.NewsConsumer.as_asgi(), "GET", "/")
    responding = asyncio.ensure_future(communicator.get_response())
    async with asyncio.timeout(5):
        while "news" not in layer.groups:  # noqa: ASYNC110 - the example has no event to wait for
            await asyncio.sleep(0)
    await layer.group_send("news", {"type": "news.item", "title": "one"})
    await layer.group_send("news", {"type": "news.item", "title": "two", "last": True})
    assert (await responding)["body"] == b": hello\n\ndata: one\n\ndata: two\n\n"
    await communicator.wait()


async def test_the_plain_echo(consumers):
    communicator = WebsocketCommunicator(consumers.EchoConsumer.as_asgi(), "/")
    await communicator.connect()
    await communicator.send_to("hello")
    assert await communicator.receive_from() == "hello"
    await communicator.disconnect()


async def test_from_a_view_and_from_a_coroutine(layers, consumers):
    communicator = WebsocketCommunicator(consumers.RoomConsumer.as_asgi(), "/")
    await communicator.connect()
    await layers.tell_everyone("one")
    request = RequestFactory().post("/announce/", {"text": "two"})
    response = await asyncio.to_thread(layers.announce, request)
    assert response.status_code == 204
    assert [await communicator.receive_from() for _ in range(2)] == ["one", "two"]
    await communicator.disconnect()


def configurations():
    """Return the layers that the page configures, in its order."""
    text = (DOCS / "layers.md").read_text()
    blocks = re.findall(r"^```python\nCHANNEL_LAYERS = (.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [ast.literal_eval(block) for block in blocks]


async def test_the_configuration(layers):
    with override_settings(CHANNEL_LAYERS=configurations()[0]):
        layer = layers.get_channel_layer()
        assert isinstance(layer, InMemoryChannelLayer)
        assert layer.get_capacity("thumbnails.make") == 1000
        await layers.test_work_is_done()


@pytest.mark.parametrize("configuration", configurations())
def test_each_configuration_makes_a_layer(configuration):
    with override_settings(CHANNEL_LAYERS=configuration):
        for alias, config in configuration.items():
            layer = channel_layers[alias]
            assert type(layer).__name__ == config["BACKEND"].rpartition(".")[2]
            for name, value in config.get("CONFIG", {}).items():
                if name in ("capacity", "expiry", "directory", "prefix"):
                    assert getattr(layer, name) == value


async def test_a_consumer_tells_its_client_of_a_gap(layers):
    layer = layers.get_channel_layer()
    client = WebsocketCommunicator(layers.ScoresConsumer.as_asgi(), "/")
    await client.connect()
    layer._hub.tell_gap("it broke", ["scores"])
    assert await client.receive_json_from() == {
        "stale": True,
        "groups": ["scores"],
        "why": "it broke",
    }
    await layer.group_send("scores", {"type": "scores.changed", "scores": [1]})
    assert await client.receive_json_from() == [1]
    await client.disconnect()


def test_the_suites_of_the_page(layers, tmp_path):
    spanning = layers.TestMySpanningLayer()
    spanning.where = {"directory": tmp_path / "layer"}
    for suite in (layers.TestMyLayer(), spanning):
        suite.test_messages_come_in_the_order_in_which_they_were_sent()
    spanning.test_any_process_may_add_and_discard_any_channel()
    layers.TestMySpanningLayer.teardown_class()


def test_the_attributes_of_the_suites():
    """The table of the page has them all, with their defaults."""
    text = (DOCS / "layers.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| `?([^`|]+?)`? \| .* \|$", text, re.MULTILINE))
    told = {name: ast.literal_eval(rows[name].replace(",", "")) for name in ATTRIBUTES}
    assert told == ATTRIBUTES


class TestRenaming(layers_page.RenamingTests):
    def test_from_a_coroutine(self):
        async def rename():
            await layers_page.rename_from_a_coroutine(user, "Ada")

        user = User.objects.create(username="ada")
        with self.captureOnCommitCallbacks() as callbacks:
            async_to_sync(rename)()
        assert len(callbacks) == 1
        assert User.objects.get().first_name == "Ada"


async def test_the_figures_of_the_threads(consumers):
    class Report:
        def total(self):
            return 7

    before = consumers.thread_metrics()["calls_total"]
    assert await consumers.totals([Report(), Report()]) == [7, 7]
    assert consumers.thread_metrics()["calls_total"] == before + 2
