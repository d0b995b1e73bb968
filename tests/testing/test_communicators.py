import asyncio
import contextvars
import subprocess
import sys

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import ImproperlyConfigured
from django.test import SimpleTestCase, TestCase, TransactionTestCase

from headrace import testing
from headrace.generic.websocket import (
    AsyncJsonWebsocketConsumer,
    AsyncWebsocketConsumer,
    WebsocketConsumer,
)
from headrace.testing import ApplicationCommunicator, HttpCommunicator, WebsocketCommunicator


async def echo(scope, receive, send):
    while True:
        message = await receive()
        match message["type"]:
            case "say":
                await send({"type": "said", "what": message["what"]})
            case "stop":
                return
            case "fail":
                raise LookupError(message["what"])
            case "say and fail":
                await send({"type": "said", "what": message["what"]})
                raise LookupError(message["what"])


@pytest.fixture
def communicator():
    return ApplicationCommunicator(echo, {"type": "test"})


def test_the_testing_package_needs_no_server():
    """Neither the server nor its parsers are imported with it."""
    code = (
        "import sys, headrace.testing\n"
        "print([n for n in sys.modules if n.startswith(('headrace.server', 'headrace.protocols',"
        " 'httptools', 'uvloop', 'websockets'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# ApplicationCommunicator


async def test_messages_go_in_and_come_out_in_order(communicator):
    for what in range(3):
        await communicator.send_input({"type": "say", "what": what})
    assert [(await communicator.receive_output())["what"] for _ in range(3)] == [0, 1, 2]
    await communicator.send_input({"type": "stop"})
    await communicator.wait()


async def test_a_timeout_does_not_cancel_the_application(communicator):
    with pytest.raises(TimeoutError, match=r"sent nothing in 0\.01 s; it is still running"):
        await communicator.receive_output(timeout=0.01)
    await communicator.send_input({"type": "say", "what": 1})
    assert await communicator.receive_output() == {"type": "said", "what": 1}
    communicator.stop()


async def test_a_cancelled_test_loses_no_output(communicator):
    receiving = asyncio.ensure_future(communicator.receive_output())
    await asyncio.sleep(0)
    await communicator.send_input({"type": "say", "what": 1})
    await asyncio.sleep(0)
    receiving.cancel()
    await asyncio.wait({receiving})
    if receiving.cancelled():
        assert await communicator.receive_output() == {"type": "said", "what": 1}
    communicator.stop()


async def test_the_applications_error_is_raised_by_whatever_comes_next(communicator):
    await communicator.send_input({"type": "fail", "what": "why"})
    with pytest.raises(LookupError, match="why"):
        await communicator.receive_output()
    with pytest.raises(LookupError):
        await communicator.send_input({"type": "say"})
    with pytest.raises(LookupError):
        await communicator.wait()
    with pytest.raises(LookupError):
        communicator.stop()
    communicator.stop(exceptions=False)


async def test_what_was_sent_before_the_error_is_received_before_it(communicator):
    await communicator.send_input({"type": "say and fail", "what": "x"})
    assert (await communicator.receive_output())["what"] == "x"
    with pytest.raises(LookupError):
        await communicator.receive_output()


async def test_an_application_that_has_ended_sends_nothing(communicator):
    await communicator.send_input({"type": "stop"})
    await communicator.wait()
    with pytest.raises(TimeoutError, match="has ended"):
        await communicator.receive_output(timeout=60)
    assert await communicator.receive_nothing(timeout=60)


async def test_receive_nothing_waits_and_takes_nothing(communicator):
    assert await communicator.receive_nothing(timeout=0.01, interval=0.001)
    await communicator.send_input({"type": "say", "what": 1})
    await communicator.send_input({"type": "say", "what": 2})
    assert not await communicator.receive_nothing(timeout=5)
    assert not communicator.output_queue.empty()
    assert communicator.input_queue.empty()
    assert [(await communicator.receive_output())["what"] for _ in range(2)] == [1, 2]
    communicator.stop()


async def test_waiting_in_vain_cancels(communicator):
    await communicator.wait(timeout=0.01)
    assert communicator.future.cancelled()
    await communicator.wait()
    communicator.stop()


async def test_an_error_on_being_cancelled_is_raised():
    async def stubborn(scope, receive, send):
        try:
            await receive()
        finally:
            raise LookupError("while cleaning up")

    communicator = ApplicationCommunicator(stubborn, {})
    assert await communicator.receive_nothing(timeout=0.01)
    with pytest.raises(LookupError):
        await communicator.wait(timeout=0)


async def test_it_is_a_context():
    async with ApplicationCommunicator(echo, {"type": "test"}) as communicator:
        await communicator.send_input({"type": "say", "what": 1})
        await communicator.receive_output()
        future = communicator.future
    assert future.cancelled()
    async with ApplicationCommunicator(echo, {"type": "test"}) as communicator:
        pass  # nothing was begun, nothing is ended
    communicator.stop()


async def test_the_scope_can_be_changed_until_the_application_begins():
    async def application(scope, receive, send):
        await send({"type": "user", "user": scope["user"]})

    communicator = ApplicationCommunicator(application, {"type": "test"})
    communicator.scope["user"] = "ada"
    assert (await communicator.receive_output())["user"] == "ada"


async def test_an_application_in_the_old_style_works_too():
    class Old:
        def __init__(self, scope):
            self.scope = scope

        async def __call__(self, receive, send):
            await send({"type": "old"})

    assert await ApplicationCommunicator(Old, {}).receive_output() == {"type": "old"}


# HttpCommunicator


async def test_an_http_request_and_its_response():
    seen = []

    async def application(scope, receive, send):
        seen.append((scope, await receive()))
        await send({"type": "http.response.start", "status": 202})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        await send({"type": "http.response.body"})

    communicator = HttpCommunicator(
        application, "post", "/caf%C3%A9?q=%20x", body=b"body", headers=[(b"a", b"b")]
    )
    response = await communicator.get_response()
    assert response == {"status": 202, "headers": [], "body": b"a"}
    [(scope, message)] = seen
    assert message == {"type": "http.request", "body": b"body"}
    assert {key: scope[key] for key in ("type", "method", "path", "query_string", "headers")} == {
        "type": "http",
        "method": "POST",
        "path": "/café",
        "query_string": b"q=%20x",
        "headers": [(b"a", b"b")],
    }
    with pytest.raises(TypeError, match="a body is bytes"):
        HttpCommunicator(application, "GET", "/", body="text")


@pytest.mark.parametrize(
    ("messages", "text"),
    [
        ([{"type": "websocket.accept"}], "not the start of a response"),
        ([{"type": "http.response.start", "status": 200}, {"type": "x"}], "not a part of a body"),
        (
            [
                {"type": "http.response.start", "status": 200},
                {"type": "http.response.body", "body": "text"},
            ],
            "a body is bytes",
        ),
    ],
)
async def test_a_response_that_is_none(messages, text):
    async def application(scope, receive, send):
        for message in messages:
            await send(message)

    with pytest.raises(AssertionError, match=text):
        await HttpCommunicator(application, "GET", "/").get_response()


# WebsocketCommunicator


class Room(AsyncWebsocketConsumer):
    async def connect(self):
        match self.scope["path"]:
            case "/closed":
                await self.close(4003)
            case "/subprotocol":
                await self.accept(self.scope["subprotocols"][0], headers=[(b"x", b"y")])
            case "/denied":
                await self.base_send(
                    {"type": "websocket.http.response.start", "status": 404, "headers": []}
                )
            case _:
                await self.accept()

    async def receive(self, text_data=None, bytes_data=None):
        if text_data == "close":
            await self.close()
        elif text_data == "fail":
            raise LookupError
        else:
            await self.send(text_data, bytes_data)


async def test_the_client_side_of_a_websocket():
    communicator = WebsocketCommunicator(
        Room.as_asgi(), "/subprotocol?a=%31", headers=[(b"h", b"v")], subprotocols=["one", "two"]
    )
    assert await communicator.connect() == (True, "one")
    assert communicator.response_headers == [(b"x", b"y")]
    assert communicator.scope["query_string"] == b"a=%31"
    assert communicator.scope["headers"] == [(b"h", b"v")]
    for text in ("hello", ""):
        await communicator.send_to(text_data=text)
        assert await communicator.receive_from() == text
    for data in (b"\x00", b""):
        await communicator.send_to(bytes_data=data)
        assert await communicator.receive_from() == data
    await communicator.send_json_to({"a": [1]})
    assert await communicator.receive_json_from() == {"a": [1]}
    await communicator.disconnect()


async def test_refusals():
    assert await WebsocketCommunicator(Room.as_asgi(), "/closed").connect() == (False, 4003)
    assert await WebsocketCommunicator(Room.as_asgi(), "/denied").connect() == (False, 404)


async def test_the_specification_can_be_an_older_one():
    communicator = WebsocketCommunicator(Room.as_asgi(), "/", spec_version="2.3")
    assert communicator.scope["spec_version"] == "2.3"
    assert communicator.scope["asgi"]["spec_version"] == "2.3"


async def test_what_a_test_gets_wrong_is_told():
    communicator = WebsocketCommunicator(Room.as_asgi(), "/")
    await communicator.connect()
    for wrong in ({}, {"text_data": "a", "bytes_data": b"a"}):
        with pytest.raises(AssertionError, match="either text_data or bytes_data"):
            await communicator.send_to(**wrong)
    with pytest.raises(AssertionError, match="text_data is a str"):
        await communicator.send_to(b"a")
    with pytest.raises(AssertionError, match="bytes_data is bytes"):
        await communicator.send_to(bytes_data="a")
    with pytest.raises(TypeError, match="a path is a str"):
        WebsocketCommunicator(Room.as_asgi(), b"/")
    with pytest.raises(ImproperlyConfigured, match=r"leads to a class: write Room\.as_asgi\(\)"):
        WebsocketCommunicator(Room, "/")
    await communicator.send_to(bytes_data=b"{}")
    with pytest.raises(AssertionError, match="JSON comes in text"):
        await communicator.receive_json_from()
    await communicator.send_to("close")
    with pytest.raises(AssertionError, match=r"'websocket.send', but was 'websocket.close'"):
        await communicator.receive_from()
    await communicator.disconnect()


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"text": "a", "bytes": b"a"}, "either 'text' or 'bytes'"),
        ({}, "either 'text' or 'bytes'"),
        ({"text": b"a"}, "'text' is a str"),
        ({"bytes": "a"}, "'bytes' is bytes"),
    ],
)
async def test_what_an_application_gets_wrong_is_told(message, text):
    async def application(scope, receive, send):
        await send({"type": "websocket.send", **message})

    with pytest.raises(AssertionError, match=text):
        await WebsocketCommunicator(application, "/").receive_from()


async def test_something_else_than_an_answer_to_the_handshake():
    async def application(scope, receive, send):
        await send({"type": "websocket.send", "text": "too early"})

    with pytest.raises(AssertionError, match="not an answer to a handshake"):
        await WebsocketCommunicator(application, "/").connect()


async def test_a_failing_consumer_is_known_by_its_error_and_not_by_its_close():
    communicator = WebsocketCommunicator(Room.as_asgi(), "/")
    await communicator.connect()
    await communicator.send_to("fail")
    with pytest.raises(LookupError):
        await communicator.receive_from()
    with pytest.raises(LookupError):
        await communicator.disconnect()


async def test_the_error_is_waited_for_behind_a_middleware_that_cleans_up():
    async def slow(scope, receive, send):
        try:
            await Room.as_asgi()(scope, receive, send)
        finally:
            for _ in range(10):
                await asyncio.sleep(0)

    communicator = WebsocketCommunicator(slow, "/")
    await communicator.connect()
    await communicator.send_to("fail")
    with pytest.raises(LookupError):
        await communicator.receive_output()


async def test_an_application_may_close_with_that_code_and_go_on():
    async def application(scope, receive, send):
        await send({"type": "websocket.close", "code": 1011})
        await receive()

    async with WebsocketCommunicator(application, "/") as communicator:
        assert await communicator.connect() == (False, 1011)


async def test_what_the_test_has_set_in_its_context_is_not_seen_by_the_application():
    async def application(scope, receive, send):
        await send({"type": "seen", "value": setting.get("the default")})

    setting = contextvars.ContextVar("setting")
    setting.set("the test's")
    output = await ApplicationCommunicator(application, {}).receive_output()
    assert output["value"] == "the default"


async def test_an_error_from_before_is_raised_by_receive_nothing(communicator):
    await communicator.send_input({"type": "say and fail", "what": 1})
    await asyncio.wait({communicator.future})
    assert not await communicator.receive_nothing(), "the output comes first"
    await communicator.receive_output()
    with pytest.raises(LookupError):
        await communicator.receive_nothing()


# With Django's test cases


class Members(WebsocketConsumer):
    def receive(self, text_data=None, bytes_data=None):
        User.objects.create(username=text_data)
        self.send(",".join(User.objects.order_by("id").values_list("username", flat=True)))


class AsyncMembers(AsyncJsonWebsocketConsumer):
    async def receive_json(self, content, **kwargs):
        await User.objects.acreate(username=content)
        await self.send_json([user.username async for user in User.objects.order_by("id")])


class Both:
    async def test_a_synchronous_consumer_sees_the_tests_database(self):
        await User.objects.acreate(username="ada")
        communicator = WebsocketCommunicator(Members.as_asgi(), "/")
        await communicator.connect()
        await communicator.send_to("grace")
        assert await communicator.receive_from() == "ada,grace"
        await communicator.disconnect()
        assert await User.objects.acount() == 2

    async def test_an_asynchronous_consumer_sees_the_tests_database(self):
        await User.objects.acreate(username="ada")
        communicator = WebsocketCommunicator(AsyncMembers.as_asgi(), "/")
        await communicator.connect()
        await communicator.send_json_to("grace")
        assert await communicator.receive_json_from() == ["ada", "grace"]
        await communicator.disconnect()
        assert await User.objects.acount() == 2


class InATestCase(Both, TestCase):
    pass


class InATransactionTestCase(Both, TransactionTestCase):
    pass


class WithoutADatabase(SimpleTestCase):
    async def test_a_consumer_that_needs_none(self):
        communicator = WebsocketCommunicator(Room.as_asgi(), "/")
        await communicator.connect()
        await communicator.send_to("hello")
        assert await communicator.receive_from() == "hello"
        await communicator.disconnect()


def test_the_package_has_what_it_names():
    for name in testing.__all__:
        assert getattr(testing, name)
    with pytest.raises(AttributeError, match="has no attribute 'unknown'"):
        testing.unknown  # noqa: B018
