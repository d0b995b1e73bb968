"""How long handlers take is known by consumer and handler, however they end."""

import asyncio

import pytest

from headrace._timing import QUICK_S, Times
from headrace.consumer import AsyncConsumer, concurrent
from headrace.generic.http import AsyncHttpConsumer
from headrace.instruments import LABELS, process
from headrace.layers import get_channel_layer

from .server.clients import connected, serving


def handlers(cls):
    """Calls of each handler of the class."""
    name = f"{cls.__module__}.{cls.__qualname__}"
    found = {}
    for key, histogram in list(process._histograms["headrace_handler_seconds"].items()):
        if key[0] == name:
            found[key[1]] = histogram
    return found


def failures(cls, handler):
    family = process._families["headrace_handler_failures_total"]
    return family[f"{cls.__module__}.{cls.__qualname__}", handler].value


async def talk(application, *texts):
    async with serving(application) as server, connected(server) as client:
        await client.open_websocket()
        for text in texts:
            await client.send_text(text)
        await client.send_close()
        await client.read_close()


@pytest.fixture(autouse=True)
def histograms():
    """The other tests of this process are to find room for their own."""
    family = process._histograms["headrace_handler_seconds"]
    held = dict(family)
    family.clear()
    yield
    family.clear()
    family.update(held)


async def test_each_handler_is_timed():
    class Timed(AsyncConsumer):
        async def websocket_connect(self, event):
            await self.send({"type": "websocket.accept"})

        async def websocket_receive(self, event):
            if event["text"] == "slow":
                await asyncio.sleep(2 * QUICK_S)

    await talk(Timed.as_asgi(), "quick", "slow", "quick")
    found = handlers(Timed)
    assert found["websocket_connect"].count == 1
    assert found["websocket_receive"].count == 3
    assert found["websocket_receive"].sum >= 2 * QUICK_S
    assert found["websocket_receive"].largest >= 2 * QUICK_S
    slowest = {(row[0], row[1]): row[2:] for row in process.read().as_dict()["consumers"]}
    calls, seconds, longest = slowest[Times(Timed).consumer, "websocket_receive"]
    assert calls == 3
    assert seconds >= longest >= 2 * QUICK_S


async def test_a_handler_that_raises_is_timed_and_counted():
    class Failing(AsyncConsumer):
        async def websocket_connect(self, event):
            await self.send({"type": "websocket.accept"})

        async def websocket_receive(self, event):
            raise LookupError

        async def on_error(self, error, message):
            pass

    await talk(Failing.as_asgi(), "a", "b")
    assert handlers(Failing)["websocket_receive"].count == 2
    assert failures(Failing, "websocket_receive") == 2


async def test_one_that_ends_the_consumer_is_no_failure():
    from headrace.exceptions import StopConsumer

    class Ending(AsyncConsumer):
        async def websocket_connect(self, event):
            await self.send({"type": "websocket.accept"})

        async def websocket_disconnect(self, event):
            raise StopConsumer

    await talk(Ending.as_asgi())
    assert handlers(Ending)["websocket_disconnect"].count == 1
    assert failures(Ending, "websocket_disconnect") == 0


async def test_concurrent_handlers_are_timed():
    class Beside(AsyncConsumer):
        async def websocket_connect(self, event):
            await self.send({"type": "websocket.accept"})

        @concurrent(limit=2)
        async def websocket_receive(self, event):
            await self.send({"type": "websocket.send", "text": event["text"]})

    async with serving(Beside.as_asgi()) as server, connected(server) as client:
        await client.open_websocket()
        await client.send_text("a")
        await client.read_text()
        await client.send_close()
        await client.read_close()
    assert handlers(Beside)["websocket_receive"].count == 1


async def test_events_of_a_request_are_timed():
    class Page(AsyncHttpConsumer):
        async def handle(self, body):
            self.ticked = asyncio.Event()
            await get_channel_layer().send(self.channel_name, {"type": "tick"})
            await self.ticked.wait()
            await self.send_response(200, b"")

        async def tick(self, event):
            self.ticked.set()

    async with serving(Page.as_asgi()) as server, connected(server) as client:
        assert (await client.get()).status == 200
    assert handlers(Page)["tick"].count == 1
    assert handlers(Page)["http_request"].count == 1


def test_types_are_bounded():
    class Wide(AsyncConsumer):
        pass

    times = Times(Wide)
    for number in range(LABELS + 10):
        times.note({"type": f"t{number}"}, 0.0)
    assert len(times) <= LABELS + 1
    times.note(None, 0.0)
    assert times["other"].count >= 1


def test_what_was_only_quick_has_a_longest_all_the_same():
    class Quick(AsyncConsumer):
        pass

    histogram = Times(Quick)["only_quick"]
    histogram.counts[0] += 1
    histogram.sum += QUICK_S / 2
    [row] = process.read().as_dict()["consumers"]
    assert row == [Times(Quick).consumer, "only_quick", 1, QUICK_S / 2, QUICK_S / 2]
