"""One feed in four ways, over real HTTP and WebSockets: the same messages, and what they cost."""

import asyncio
import base64
import contextlib
import hashlib
import json
import shutil
import signal
import uuid

import pytest
from websockets.exceptions import InvalidStatus

from .site import PATIENCE_S, Site, Tab

pytestmark = pytest.mark.asyncio(loop_scope="session")

# As pages do, which may ask fifty times a second at most.
POLL_EVERY_S = 0.05

GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 §1.3


class Page:
    """A page that hears the feed in whichever way, and what that costs."""

    def __init__(self, visitor, tab, run):
        self.visitor = visitor
        self.tab = tab
        self.run = run
        self.processes = {}

    def query(self, **more):
        return "&".join(f"{name}={value}" for name, value in {"run": self.run, **more}.items())

    async def ask(self, way, **query):
        answer = await self.visitor.get(f"/polling/{way}/?{self.query(**query)}")
        assert answer.status == 200, answer.text
        return json.loads(answer.text)

    async def collect(self, way, until, **query):
        """Ask as often as it takes for all messages up to a number; return their texts by it."""
        found = {}
        after = query.pop("after")
        while after < until:
            answer = await self.ask(way, after=after, **query)
            if way == "poll" and not answer["messages"]:
                await asyncio.sleep(POLL_EVERY_S)
            news = answer["messages"]
            found |= {message["id"]: message for message in news if message["id"] <= until}
            assert answer["missed"] is False
            after = answer["last"]
        return found

    def socket(self, **query):
        return self.visitor.websocket(f"/ws/polling/feed/?{self.query(**query)}")

    async def from_socket(self, until, **query):
        found = {}
        async with self.socket(**query) as socket, asyncio.timeout(PATIENCE_S):
            async for text in socket:
                message = json.loads(text)
                found[message["id"]] = message
                if message["id"] >= until:
                    break
        return found

    @contextlib.asynccontextmanager
    async def stream(self, *headers, **query):
        """Open an event stream as a browser does, and come back with its head and its lines."""
        host, _, port = self.visitor.site.url.removeprefix("http://").partition(":")
        reader, writer = await asyncio.open_connection(host, port)
        cookies = "; ".join(f"{cookie.name}={cookie.value}" for cookie in self.visitor.cookies)
        lines = [f"GET /polling/stream/?{self.query(**query)} HTTP/1.1", f"Host: {host}:{port}"]
        lines += [f"Cookie: {cookies}", *headers, "", ""]
        request = "\r\n".join(lines).encode()
        writer.write(request)
        try:
            async with asyncio.timeout(PATIENCE_S):
                head = await reader.readuntil(b"\r\n\r\n")
            yield request, head, events_of(reader)
        finally:
            writer.close()

    async def from_stream(self, until, *headers, **query):
        found = {}
        async with self.stream(*headers, **query) as (_, _, events), asyncio.timeout(PATIENCE_S):
            async for event in events:
                if "data" in event and "event" not in event:
                    found[int(event["id"])] = json.loads(event["data"])
                    if int(event["id"]) >= until:
                        break
        return found

    async def costs(self, is_it):
        """Wait for an account of which that is true: requests, bytes in and out, processor."""

        def take(event):
            if event["type"] == "costs":
                self.processes[event["process"]] = event["ways"]
            return event["type"] == "costs" and is_it(self.totals())

        await self.tab.wait_until(take)
        return self.totals()

    def totals(self):
        totals = {way: [0, 0, 0, 0.0] for way in ("poll", "wait", "stream", "socket")}
        for ways in self.processes.values():
            for way, sums in ways.items():
                totals[way] = [one + other for one, other in zip(totals[way], sums, strict=True)]
        return totals


async def events_of(reader):
    """Read chunks (RFC 9112 §7.1) of whole events."""
    while size := int(await reader.readuntil(b"\r\n"), 16):
        chunk = (await reader.readexactly(size)).decode()
        assert await reader.readexactly(2) == b"\r\n"
        assert chunk.endswith("\n\n")
        for event in chunk.removesuffix("\n\n").split("\n\n"):
            yield dict(line.split(": ", 1) for line in event.split("\n") if ": " in line)


@contextlib.asynccontextmanager
async def page_of(site, username):
    visitor = await site.visitor().log_in(username)
    run = uuid.uuid4()
    async with visitor.websocket(f"/ws/polling/?run={run}") as socket:
        tab = Tab(socket)
        tab.welcome = await tab.wait_for("welcome")
        yield Page(visitor, tab, run)


async def in_all_ways(page, *, count, **query):
    """Return the messages of each way, from the same number on and up to the same."""
    after = (await page.ask("poll"))["last"]
    until = after + count
    found = await asyncio.gather(
        page.collect("poll", until, after=after, **query),
        page.collect("wait", until, after=after, **query),
        page.from_stream(until, after=after, **query),
        page.from_socket(until, after=after, **query),
    )
    return [
        {number: message for number, message in each.items() if number <= until} for each in found
    ]


# --- The same feed ---


async def test_the_same_messages_in_all_four_ways(site):
    async with page_of(site, "maya") as page:
        poll, wait, stream, socket = await in_all_ways(page, count=10)
        numbers = list(socket)
        assert numbers == list(range(numbers[0], numbers[0] + 10))
        assert poll == wait == stream == socket
        born = [message["born"] for message in socket.values()]
        assert born == sorted(born)


async def test_at_the_rate_that_was_asked_for(site):
    async with page_of(site, "maya") as page:
        after = (await page.ask("poll"))["last"]
        until = after - after % 5 + 10
        ways = await asyncio.gather(
            page.collect("wait", until, after=after, rate=2),
            page.from_stream(until, after=after, rate=2),
            page.from_socket(until, after=after, rate=2),
        )
        assert [list(each) for each in ways] == [[until - 5, until]] * 3


async def test_two_visitors_hear_the_same(site):
    async with page_of(site, "maya") as maya, page_of(site, "jonas") as jonas:
        after = (await maya.ask("poll"))["last"]
        one, other = await asyncio.gather(
            maya.from_socket(after + 5, after=after), jonas.from_stream(after + 5, after=after)
        )
        assert len(one) == 5
        assert one == other


async def test_whoever_comes_again_gets_what_was_missed(site):
    async with page_of(site, "maya") as page:
        after = (await page.ask("poll"))["last"]
        await page.from_socket(after + 3, after=after)
        first = after + 3
        # The others go on from there, though that is over: as a browser does with an event stream.
        header = f"Last-Event-ID: {first}"
        stream = await page.from_stream(first + 5, header, after=after)
        assert list(stream) == list(range(first + 1, first + 6))
        assert await page.from_socket(first + 5, after=first) == stream
        answer = await page.ask("wait", after=first)
        assert [message["id"] for message in answer["messages"]][:5] == list(stream)


async def test_what_is_not_kept_any_more_is_said_to_be_missed(site):
    async with page_of(site, "maya") as page:
        last = (await page.ask("poll"))["last"]
        # The first of all was given by another run of this site, or it is still kept.
        answer = await page.ask("poll", after=0)
        begins = answer["messages"][0]["id"]
        assert answer["missed"] is (begins > 1)
        assert [message["id"] for message in answer["messages"]] == list(
            range(begins, answer["last"] + 1)
        )
        assert answer["last"] >= last


async def test_a_long_poll_waits_for_its_message(site):
    async with page_of(site, "maya") as page:
        last = (await page.ask("poll", rate=1))["last"]
        polled = await page.ask("poll", after=last + 20, rate=1)
        assert polled == {"last": last + 20, "missed": False, "messages": []}
        last -= last % 10
        answer = await page.ask("wait", after=last, rate=1)
        assert [message["id"] for message in answer["messages"]][:1] == [last + 10]


# --- What it costs ---


async def test_bytes_are_those_on_the_wire_and_time_is_spent(site):
    async with page_of(site, "maya") as page:
        last = (await page.ask("poll"))["last"]
        first = await page.costs(lambda totals: totals["poll"][0] == 1)
        assert first["poll"][1] > len("GET /polling/poll/?run= HTTP/1.1\r\n") + len(str(page.run))
        assert first["poll"][3] > 0
        for _ in range(3):
            await page.ask("poll", after=last)
        await page.ask("wait", after=last)
        async with page.stream(after=last) as (request, head, events):
            body = await anext(events)
            assert body["retry"] == "1000"
            async for event in events:
                if event["id"] == str(last + 2):
                    break
        totals = await page.costs(lambda totals: totals["stream"][0] == 1)
        assert totals["stream"][1] == len(request)
        assert totals["stream"][2] > len(head) + 2 * len('data: {"id": 1, "born": 1}')
        assert [totals[way][0] for way in ("poll", "wait", "socket")] == [4, 1, 0]
        for way in ("poll", "wait", "stream"):
            assert totals[way][3] > 0, way
        # Each answer: the status, four headers, and what is in it at least.
        assert totals["poll"][2] > 4 * len('HTTP/1.1 200 \r\n\r\n{"last": 1, "missed": false}')


async def test_a_websocket_costs_its_handshake_and_its_frames(site):
    async with page_of(site, "maya") as page:
        after = (await page.ask("poll"))["last"]
        async with page.socket(after=after) as socket:
            handshake = await page.tab.wait_for("handshake")
            sizes = [len(await socket.recv()) for _ in range(5)]
            request, answer = socket.request, socket.response
            asked = f"GET {request.path} HTTP/1.1\r\n{request.headers.serialize().decode()}"
            told = f"HTTP/1.1 101 Switching Protocols\r\n{answer.headers.serialize().decode()}"
            assert handshake["request_bytes"] == len(asked)
            assert handshake["answer_bytes"] == len(told)
            least = len(told) + sum(sizes) + 2 * len(sizes)
            totals = await page.costs(lambda totals: totals["socket"][2] >= least)
            assert totals["socket"][:2] == [1, len(asked)]
            assert totals["socket"][3] > 0


async def test_the_handshake_is_the_one_that_was_made(site):
    async with page_of(site, "maya") as page, page.socket() as socket:
        told = await page.tab.wait_for("handshake")
        key = socket.request.headers["Sec-WebSocket-Key"]
        digest = hashlib.sha1((key + GUID).encode(), usedforsecurity=False).digest()
        accept = base64.b64encode(digest).decode()
        assert accept == socket.response.headers["Sec-WebSocket-Accept"]
        assert told["accept"] == {
            "key": key,
            "guid": GUID,
            "sha1": digest.hex(),
            "accept": accept,
        }
        agreed = socket.response.headers["Sec-WebSocket-Extensions"]
        assert "permessage-deflate" in agreed
        assert told["extensions"] == agreed
        shown = dict(told["request"])
        sent = {name.lower(): value for name, value in socket.request.headers.raw_items()}
        size = len(sent.pop("cookie"))
        assert shown.pop("cookie") == f"… ({size} bytes)"
        assert shown == sent


async def test_frames_are_shown_as_they_passed(site):
    async with page_of(site, "maya") as page, page.socket() as socket:
        await socket.recv()

        def frames(to):
            events = [event for event in page.tab.heard if event["type"] == "costs"]
            return [frame for event in events for frame in event["frames"] if frame["to"] == to]

        # Of one that comes while another is sent the bytes can't be told: then there is a next.
        came = None
        while came is None or came["bytes"] is None:
            known = len(frames("server"))
            await socket.send("Hello")
            await page.tab.wait_until(lambda _, known=known: len(frames("server")) > known)
            came = frames("server")[-1]
        await page.tab.wait_until(lambda _: frames("page"))
        # This client compresses whatever it sends (RFC 7692 §7.2.3.1 has the bytes).
        assert came["bytes"] == "c187" + "????????" + "f248cdc9c90700"
        for frame in frames("page"):
            payload = frame["text"].encode()
            assert bytes.fromhex(frame["bytes"]) == bytes((0x81, len(payload))) + payload


# --- What makes no sense, and who may not ---

BAD = [
    ({"run": "mine"}, "bad_message"),
    ({"run": ""}, "bad_message"),
    ({"after": "-1"}, "bad_message"),
    ({"after": "1_0"}, "bad_message"),
    ({"after": "٣"}, "bad_message"),
    ({"after": "9" * 30}, "bad_message"),
    ({"rate": "3"}, "bad_rate"),
    ({"rate": "fast"}, "bad_message"),
]


@pytest.mark.parametrize(("query", "code"), BAD)
async def test_what_makes_no_sense_is_refused_in_each_way(site, query, code):
    visitor = await site.visitor().log_in("maya")
    query = {"run": str(uuid.uuid4()), **query}
    text = "&".join(f"{name}={value}" for name, value in query.items()).replace("٣", "%D9%A3")
    for way in ("poll", "wait", "stream"):
        answer = await visitor.get(f"/polling/{way}/?{text}")
        assert (answer.status, json.loads(answer.text)["code"]) == (400, code), way
    with pytest.raises(InvalidStatus) as refused:
        await visitor.websocket(f"/ws/polling/feed/?{text}").__aenter__()
    assert refused.value.response.status_code == 400
    assert json.loads(refused.value.response.body)["code"] == code


async def test_the_page_s_own_websocket_knows_its_run_and_its_questions(site):
    visitor = await site.visitor().log_in("maya")
    with pytest.raises(InvalidStatus) as refused:
        await visitor.websocket("/ws/polling/?run=1").__aenter__()
    assert refused.value.response.status_code == 400
    async with page_of(site, "maya") as page:
        assert page.tab.welcome["rates"] == [10, 5, 2, 1]
        await page.tab.send(type="clock", asked="now")
        assert (await page.tab.wait_for("error"))["code"] == "bad_message"
        await page.tab.send(type="clock", asked=12.5)
        answer = await page.tab.wait_for("clock")
        assert answer["asked"] == 12.5
        message = json.loads(await anext(aiter(await page.socket().__aenter__())))
        assert abs(answer["now"] - message["born"]) < 60


async def test_strangers_are_told_to_log_in(site):
    visitor = site.visitor()
    run = uuid.uuid4()
    for way in ("poll", "wait", "stream"):
        answer = await visitor.get(f"/polling/{way}/?run={run}")
        assert answer.status == 401
    async with visitor.websocket(f"/ws/polling/feed/?run={run}") as socket:
        assert await Tab(socket).closed() == 4401
    async with visitor.websocket(f"/ws/polling/?run={run}") as socket:
        assert await Tab(socket).closed() == 4401


async def test_nobody_holds_more_open_than_a_few(site):
    visitor = await site.visitor().log_in("wen")
    path = f"/ws/polling/feed/?run={uuid.uuid4()}&rate=1"
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(24):
            await stack.enter_async_context(visitor.websocket(path))
        async with visitor.websocket(path) as socket:
            assert await Tab(socket).closed() == 4429
        answer = await visitor.get(path.replace("ws/polling/feed", "polling/stream"))
        assert answer.status == 429
        assert json.loads(answer.text)["code"] == "too_many"


# --- Several processes ---


async def test_another_process_goes_on_where_one_dies(seeded, tmp_path, monkeypatch):
    monkeypatch.setenv("DEMO_LAYER", "local")
    data = shutil.copytree(seeded, tmp_path / "data")
    owner, other = Site(data), Site(data)
    await asyncio.gather(owner.start(), other.start())
    try:
        async with page_of(owner, "maya") as maya, page_of(other, "jonas") as jonas:
            after = (await maya.ask("poll"))["last"]
            one = await maya.from_socket(after + 5, after=after)
            assert await jonas.collect("poll", after + 5, after=after) == one
            # A page is told what it costs by each process that has served it.
            polls = (await jonas.costs(lambda totals: totals["poll"][0]))["poll"][0]
            jonas.visitor.site = owner
            await jonas.ask("poll", after=after)
            await jonas.costs(lambda totals: totals["poll"][0] > polls)
            assert len(jonas.processes) == 2
            jonas.visitor.site = other
            async with jonas.socket(after=after) as socket:
                numbers = [json.loads(await socket.recv())["id"] for _ in range(5)]
                await owner.stop(signal.SIGKILL)
                async with asyncio.timeout(PATIENCE_S):
                    while numbers[-1] == numbers[-2] + 1:
                        numbers.append(json.loads(await socket.recv())["id"])
            # Nobody knows how many had been given: some are left out, and none is given twice.
            assert numbers == sorted(set(numbers))
            assert numbers[-1] - numbers[-2] > 20
            answer = await jonas.ask("wait", after=numbers[-2])
            assert answer["missed"] is False
            assert answer["messages"][0]["id"] == numbers[-1]
    finally:
        await other.stop()
