import asyncio
import gc
import logging
import socket
import struct

import pytest

from headrace.exceptions import StopConsumer
from headrace.generic.http import AsyncHttpConsumer
from headrace.testing import HttpCommunicator

from ..foreign import uvicorn_serves
from .conftest import headrace_serves
from .probes import Diary, Trouble

SERVERS = pytest.mark.parametrize("serves", [headrace_serves, uvicorn_serves])


@pytest.fixture(autouse=True)
def _layer(layer):
    return layer


@pytest.fixture
def diary_of():
    """Give the class a diary, which notes its disconnect()."""

    def give(consumer_class):
        diary = consumer_class.diary = Diary()

        async def disconnect(self):
            diary.note("disconnect")

        consumer_class.disconnect = disconnect
        return diary

    return give


class Answers(AsyncHttpConsumer):
    async def handle(self, body):
        await self.send_response(201, b"got " + body, headers=[(b"content-type", b"text/plain")])


async def test_a_whole_response(diary_of):
    class Noted(Answers):
        pass

    diary = diary_of(Noted)
    communicator = HttpCommunicator(Noted.as_asgi(), "post", "/path", body=b"this")
    assert await communicator.get_response() == {
        "status": 201,
        "headers": [(b"content-type", b"text/plain")],
        "body": b"got this",
    }
    await communicator.wait()
    assert diary.entries == [("disconnect",)]


async def test_headers_may_be_a_dictionary_and_a_body_may_come_in_parts():
    class Parts(AsyncHttpConsumer):
        async def handle(self, body):
            await self.send_headers(headers={b"x-a": b"1"})
            await self.send_body(b"one ", more_body=True)
            await self.send_body(b"two")

    response = await HttpCommunicator(Parts.as_asgi(), "GET", "/").get_response()
    assert response == {"status": 200, "headers": [(b"x-a", b"1")], "body": b"one two"}


async def test_the_body_of_a_request_is_gathered():
    communicator = HttpCommunicator(Answers.as_asgi(), "POST", "/")
    communicator.sent_request = True
    for part in (b"a", b"", b"b"):
        await communicator.send_input({"type": "http.request", "body": part, "more_body": True})
    await communicator.send_input({"type": "http.request"})
    assert (await communicator.get_response())["body"] == b"got ab"


async def test_a_body_is_bounded():
    class Small(Answers):
        body_limit_bytes = 10

    communicator = HttpCommunicator(Small.as_asgi(), "POST", "/")
    communicator.sent_request = True
    for _ in range(3):
        await communicator.send_input({"type": "http.request", "body": b"1234", "more_body": True})
    assert (await communicator.get_response())["status"] == 413
    await communicator.wait()

    class Boundless(Answers):
        body_limit_bytes = None

    communicator = HttpCommunicator(Boundless.as_asgi(), "POST", "/", body=b"x" * 20_000_000)
    assert len((await communicator.get_response())["body"]) == 20_000_004


async def test_a_body_is_bytes():
    class Text(AsyncHttpConsumer):
        async def handle(self, body):
            await self.send_response(200, "text")

    with pytest.raises(TypeError, match="a body is bytes, not str"):
        await HttpCommunicator(Text.as_asgi(), "GET", "/").get_response()


async def test_a_consumer_needs_a_handle():
    communicator = HttpCommunicator(AsyncHttpConsumer.as_asgi(), "GET", "/")
    with pytest.raises(NotImplementedError, match="needs an async def handle"):
        await communicator.get_response()


async def test_an_error_in_handle_is_raised_and_disconnect_runs(diary_of):
    class Fails(AsyncHttpConsumer):
        async def handle(self, body):
            raise Trouble

    diary = diary_of(Fails)
    with pytest.raises(Trouble):
        await HttpCommunicator(Fails.as_asgi(), "GET", "/").get_response()
    assert diary.entries == [("disconnect",)]


async def test_a_client_that_leaves_before_its_body_is_whole(diary_of):
    class Noted(Answers):
        pass

    diary = diary_of(Noted)
    communicator = HttpCommunicator(Noted.as_asgi(), "POST", "/")
    await communicator.send_input({"type": "http.request", "body": b"a", "more_body": True})
    await communicator.send_input({"type": "http.disconnect"})
    await communicator.wait()
    assert diary.entries == [("disconnect",)]


async def test_events_reach_their_handlers_while_handle_runs(layer, diary_of):
    class Streams(AsyncHttpConsumer):
        async def handle(self, body):
            self.done = asyncio.Event()
            await self.channel_layer.group_add("news", self.channel_name)
            await self.send_headers()
            await self.send_body(b"begin ", more_body=True)
            self.diary.note("waiting")
            await self.done.wait()
            await self.send_body(b"end")

        async def news_item(self, event):
            await self.send_body(event["text"].encode() + b" ", more_body=True)
            if event["text"] == "last":
                self.done.set()

    diary = diary_of(Streams)
    communicator = HttpCommunicator(Streams.as_asgi(), "GET", "/")
    responding = asyncio.ensure_future(communicator.get_response())
    await diary.until("waiting")
    for text in ("first", "last"):
        await layer.group_send("news", {"type": "news.item", "text": text})
    assert (await responding)["body"] == b"begin first last end"
    await communicator.wait()
    assert not layer.groups


async def test_a_long_poll_lives_until_its_response_is_complete(layer, diary_of):
    class LongPoll(AsyncHttpConsumer):
        async def handle(self, body):
            await self.channel_layer.group_add("chat", self.channel_name)
            await self.send_headers()
            await self.send_body(b"", more_body=True)
            self.diary.note("waiting")

        async def chat_message(self, event):
            await self.send_body(event["text"].encode())

    diary = diary_of(LongPoll)
    communicator = HttpCommunicator(LongPoll.as_asgi(), "GET", "/")
    responding = asyncio.ensure_future(communicator.get_response())
    await diary.until("waiting")
    for _ in range(5):
        await asyncio.sleep(0)
    assert diary.entries == [("waiting",)]
    await layer.group_send("chat", {"type": "chat.message", "text": "at last"})
    assert (await responding)["body"] == b"at last"
    await communicator.wait()
    assert diary.entries == [("waiting",), ("disconnect",)]


async def test_a_client_that_leaves_a_long_poll(layer, diary_of):
    class LongPoll(AsyncHttpConsumer):
        async def handle(self, body):
            await self.send_headers()
            await self.send_body(b"", more_body=True)

    diary = diary_of(LongPoll)
    communicator = HttpCommunicator(LongPoll.as_asgi(), "GET", "/")
    await communicator.send_input({"type": "http.request"})
    await communicator.receive_output()
    await communicator.send_input({"type": "http.disconnect"})
    await communicator.wait()
    assert diary.entries == [("disconnect",)]


async def test_an_error_in_a_handler_ends_handle_and_is_raised(layer, diary_of):
    class Streams(AsyncHttpConsumer):
        async def handle(self, body):
            await self.channel_layer.group_add("news", self.channel_name)
            await self.send_headers()
            try:
                await asyncio.Event().wait()
            finally:
                self.diary.note("handle ended")

        async def news_item(self, event):
            raise Trouble

    diary = diary_of(Streams)
    communicator = HttpCommunicator(Streams.as_asgi(), "GET", "/")
    await communicator.send_input({"type": "http.request"})
    await communicator.receive_output()
    await layer.group_send("news", {"type": "news.item"})
    with pytest.raises(Trouble):
        await communicator.wait()
    assert diary.entries == [("handle ended",), ("disconnect",)]


async def test_what_is_left_to_do_after_the_response_is_done(layer, diary_of):
    """A server says http.disconnect as soon as the response is complete: no reason to stop."""

    class Thorough(AsyncHttpConsumer):
        async def handle(self, body):
            await self.send_response(200, b"done")
            for _ in range(10):
                await asyncio.sleep(0)
            self.diary.note("afterwards")

    diary = diary_of(Thorough)
    communicator = HttpCommunicator(Thorough.as_asgi(), "GET", "/")
    await communicator.get_response()
    await communicator.send_input({"type": "http.disconnect"})
    await communicator.wait()
    assert diary.entries == [("afterwards",), ("disconnect",)]


async def test_a_handle_that_fails_when_it_is_cancelled_is_logged(layer, caplog):
    class Stubborn(AsyncHttpConsumer):
        async def handle(self, body):
            await self.send_headers()
            try:
                await asyncio.Event().wait()
            finally:
                raise Trouble("while cleaning up")

    communicator = HttpCommunicator(Stubborn.as_asgi(), "GET", "/")
    await communicator.send_input({"type": "http.request"})
    await communicator.receive_output()
    await communicator.send_input({"type": "http.disconnect"})
    await communicator.wait()
    assert "while it was cancelled" in caplog.text


async def test_stop_consumer_in_a_handler_ends_handle(layer, diary_of):
    class Stops(AsyncHttpConsumer):
        async def handle(self, body):
            await self.channel_layer.group_add("news", self.channel_name)
            await self.send_headers()
            await asyncio.Event().wait()

        async def news_stop(self, event):
            raise StopConsumer

    diary = diary_of(Stops)
    communicator = HttpCommunicator(Stops.as_asgi(), "GET", "/")
    await communicator.send_input({"type": "http.request"})
    await communicator.receive_output()
    await layer.group_send("news", {"type": "news.stop"})
    await communicator.wait()
    assert diary.entries == [("disconnect",)]
    assert not layer.channels


async def request(port, path="/", body=b""):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        b"POST %s HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%s"
        % (path.encode(), len(body), body)
    )
    # An end by reset, which no server waits for.
    linger = struct.pack("ii", 1, 0)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    return reader, writer


@SERVERS
async def test_a_stream_of_events_over_a_real_server(serves, layer, diary_of, caplog):
    class Streams(AsyncHttpConsumer):
        async def handle(self, body):
            await self.channel_layer.group_add("news", self.channel_name)
            await self.send_headers(headers=[(b"content-type", b"text/event-stream")])
            await self.send_body(b"data: hello " + body + b"\n\n", more_body=True)
            await asyncio.Event().wait()

        async def news_item(self, event):
            await self.send_body(b"data: %d\n\n" % event["number"], more_body=True)

    diary = diary_of(Streams)
    async with serves(Streams.as_asgi()) as port:
        reader, writer = await request(port, body=b"you")
        async with asyncio.timeout(5):
            assert await reader.readuntil(b"data: hello you\n\n")
            for number in range(3):
                await layer.group_send("news", {"type": "news.item", "number": number})
            assert await reader.readuntil(b"data: 2\n\n")
            writer.transport.abort()
            await diary.until("disconnect")
    assert diary.entries == [("disconnect",)]
    assert not layer.channels
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.fixture
def quiet_log(caplog):
    """What is logged from here on; what other tests have left to the collector is out of it."""
    gc.collect()
    caplog.clear()
    return caplog


@SERVERS
async def test_a_stream_to_nobody_ends(serves, layer, diary_of, quiet_log):
    class Talks(AsyncHttpConsumer):
        async def handle(self, body):
            await self.send_headers()
            while True:
                await self.send_body(b"x" * 100, more_body=True)
                await asyncio.sleep(0)

    diary = diary_of(Talks)
    async with serves(Talks.as_asgi()) as port:
        reader, writer = await request(port)
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.abort()
        await diary.until("disconnect")
    assert diary.entries == [("disconnect",)]
    assert not [record for record in quiet_log.records if record.levelno >= logging.WARNING]


async def test_a_send_that_meets_a_client_who_is_gone_is_no_error(diary_of):
    class Late(AsyncHttpConsumer):
        async def handle(self, body):
            await self.send_response(200, b"too late")

    diary = diary_of(Late)
    inputs = iter([{"type": "http.request"}])

    async def receive():
        for event in inputs:
            return event
        return await asyncio.Event().wait()

    async def send(message):
        raise BrokenPipeError

    await Late.as_asgi()({"type": "http", "path": "/"}, receive, send)
    assert diary.entries == [("disconnect",)]
