"""WSGI applications on real sockets: Django's, and functions that do what PEP 3333 allows."""

import asyncio
import contextlib
import contextvars
import hashlib
import io
import json
import sys
import threading
import time
import wsgiref.validate

import pytest
from django.core.signals import request_finished
from django.core.wsgi import get_wsgi_application

from headrace.server.proxy import ProxyHeaders
from headrace.server.wsgi import MEMORY_BYTES, WsgiApplication

from .clients import connected, echo, handshake, runtime_of, serving, until

OK = "200 OK"


@contextlib.asynccontextmanager
async def wsgi(app, *, threads=4, websockets=None, **settings):
    """Serve a WSGI application; nothing may be left of its threads."""
    adapter = WsgiApplication(app, threads=threads, websockets=websockets)
    try:
        async with serving(adapter, **settings) as server:
            yield server
    finally:
        adapter.close()


def environ_as_json(environ, start_response):
    start_response(OK, [("Content-Type", "application/json")])
    shown = {key: value for key, value in environ.items() if isinstance(value, str | int | tuple)}
    return [json.dumps(shown | {"body": environ["wsgi.input"].read().decode()}).encode()]


def post(target, body, *headers):
    lines = [f"POST {target} HTTP/1.1", "Host: here", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


GET = b"GET / HTTP/1.1\r\nHost: here\r\n\r\n"

# The environment


async def test_the_environment():
    async with wsgi(environ_as_json) as server, connected(server) as client:
        port = client.sock.getsockname()[1]
        response = await client.request(
            post("/a%20b/%C3%BC/%2F?q=%C3%BC", b"hello", "Content-Type: text/x", "X-A-B: 1")
        )
        assert json.loads(response.body) == {
            "REQUEST_METHOD": "POST",
            "SCRIPT_NAME": "",
            "PATH_INFO": "/a b/\xc3\xbc//",
            "QUERY_STRING": "q=%C3%BC",
            "SERVER_NAME": "127.0.0.1",
            "SERVER_PORT": str(server.port),
            "SERVER_PROTOCOL": "HTTP/1.1",
            "REMOTE_ADDR": "127.0.0.1",
            "REMOTE_PORT": str(port),
            "CONTENT_TYPE": "text/x",
            "CONTENT_LENGTH": "5",
            "HTTP_HOST": "here",
            "HTTP_X_A_B": "1",
            "wsgi.version": [1, 0],
            "wsgi.url_scheme": "http",
            "wsgi.input_terminated": True,
            "wsgi.multithread": True,
            "wsgi.multiprocess": True,
            "wsgi.run_once": False,
            "body": "hello",
        }


async def test_bytes_that_are_no_text_stay_what_they_are():
    async with wsgi(environ_as_json) as server, connected(server) as client:
        environ = json.loads((await client.get("/%FF%00")).body)
        assert environ["PATH_INFO"].encode("latin-1") == b"/\xff\x00"


async def test_a_header_can_not_pass_for_another():
    lines = ["X_Forwarded_For: 6.6.6.6", "X-User: a", "X_User: b", "Proxy: evil"]
    async with wsgi(environ_as_json) as server, connected(server) as client:
        environ = json.loads((await client.get("/", *lines)).body)
    assert environ["HTTP_X_USER"] == "a"
    assert "HTTP_X_FORWARDED_FOR" not in environ


async def test_headers_that_come_twice():
    lines = ["Accept: a", "Accept: b", "Cookie: a=1", "Cookie: b=2"]
    async with wsgi(environ_as_json) as server, connected(server) as client:
        environ = json.loads((await client.get("/", *lines)).body)
    assert (environ["HTTP_ACCEPT"], environ["HTTP_COOKIE"]) == ("a,b", "a=1; b=2")
    assert "CONTENT_LENGTH" not in environ


async def test_where_it_is_mounted():
    async with wsgi(environ_as_json, root_path="/m\u00fc") as server, connected(server) as client:
        environ = json.loads((await client.get("/a")).body)
        assert (environ["SCRIPT_NAME"], environ["PATH_INFO"]) == ("/m\xc3\xbc", "/a")
        response = await client.request(b"OPTIONS * HTTP/1.1\r\nHost: here\r\n\r\n")
        assert json.loads(response.body)["PATH_INFO"] == "*"


async def test_behind_a_proxy():
    lines = ["X-Forwarded-For: 198.51.100.7", "X-Forwarded-Proto: https"]
    async with (
        wsgi(environ_as_json, proxy_headers=ProxyHeaders()) as server,
        connected(server) as client,
    ):
        environ = json.loads((await client.get("/", *lines)).body)
    assert (environ["wsgi.url_scheme"], environ["HTTPS"]) == ("https", "on")
    assert (environ["REMOTE_ADDR"], environ["REMOTE_PORT"]) == ("198.51.100.7", "0")


async def test_over_a_unix_socket(tmp_path):
    path = str(tmp_path / "a.sock")
    async with wsgi(environ_as_json, uds=path), connected(path) as client:
        environ = json.loads((await client.get("/")).body)
    assert (environ["REMOTE_ADDR"], environ["REMOTE_PORT"]) == ("", "")
    assert (environ["SERVER_NAME"], environ["SERVER_PORT"]) == ("localhost", "80")


async def test_what_the_validator_of_python_says():
    def app(environ, start_response):
        environ["wsgi.input"].read(1)
        start_response(OK, [("Content-Type", "text/plain")])
        return [b"valid"]

    async with wsgi(wsgiref.validate.validator(app)) as server, connected(server) as client:
        assert (await client.request(post("/?a=b", b"x"))).body == b"valid"


# The body of a request


@pytest.mark.parametrize("size", [0, 1, MEMORY_BYTES, 3 * MEMORY_BYTES + 17])
async def test_bodies_of_every_size(size):
    def app(environ, start_response):
        digest = hashlib.sha256(environ["wsgi.input"].read()).hexdigest()
        start_response(OK, [])
        return [f"{environ['CONTENT_LENGTH']} {digest}".encode()]

    body = bytes(range(256)) * (size // 256 + 1)
    body = body[:size]
    async with wsgi(app) as server, connected(server) as client:
        response = await client.request(post("/", body))
    assert response.body.decode() == f"{size} {hashlib.sha256(body).hexdigest()}"


async def test_a_body_in_chunks_has_a_length():
    async with wsgi(environ_as_json) as server, connected(server) as client:
        response = await client.request(
            b"POST / HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
        )
        environ = json.loads(response.body)
    assert (environ["CONTENT_LENGTH"], environ["body"]) == ("5", "abcde")
    assert "HTTP_TRANSFER_ENCODING" not in environ


async def test_a_slow_upload_takes_no_thread():
    async with (
        wsgi(environ_as_json, threads=1) as server,
        connected(server) as slow,
        connected(server) as quick,
    ):
        await slow.send(post("/", b"x" * 10)[:-5])
        await until(lambda: server.counters.requests == 1)
        assert (await quick.get()).status == 200
        await slow.send(b"x" * 5)
        assert (await slow.read_response()).status == 200


async def test_a_client_that_leaves_while_it_uploads():
    called = []

    def app(environ, start_response):
        called.append(True)
        return environ_as_json(environ, start_response)

    async with wsgi(app) as server:
        async with connected(server) as client:
            await client.send(post("/", b"x" * 10)[:-5])
            await until(lambda: server.counters.requests == 1)
        await until(lambda: not runtime_of(server).tasks)
    assert not called


# The response


async def test_one_block_has_its_length():
    def app(environ, start_response):
        start_response("201 Whatever", [("X-A", "\xfc")])
        return (b"one block",)

    async with wsgi(app) as server, connected(server) as client:
        response = await client.get()
        assert (response.status, response[b"x-a"]) == (201, b"\xfc")
        assert (response[b"content-length"], response.body) == (b"9", b"one block")


@pytest.mark.parametrize("headers", [[], [("Content-Length", "6")]])
async def test_a_block_is_sent_before_the_next_is_made(headers):
    gate = threading.Event()

    def app(environ, start_response):
        start_response(OK, headers)
        yield b""
        yield b"one"
        assert gate.wait(10)
        yield b"two"

    async with wsgi(app) as server, connected(server) as client:
        await client.send(GET)
        head = await client.read_head()
        if headers:
            assert await client.read(3) == b"one"
        else:
            assert await client.read(8) == b"3\r\none\r\n"
        gate.set()
        if headers:
            assert await client.read(3) == b"two"
        else:
            assert await client.read(13) == b"3\r\ntwo\r\n0\r\n\r\n"
        assert head.status == 200


async def test_a_thread_waits_for_a_slow_client():
    made = []

    def app(environ, start_response):
        start_response(OK, [])
        for _ in range(1000):
            made.append(1)
            yield bytes(64 * 1024)

    async with wsgi(app) as server, connected(server, receive_buffer=4096) as client:
        await client.send(GET)
        await client.read_head()
        before = -1
        while len(made) != before:  # until nothing more is made
            before = len(made)
            await asyncio.sleep(0.1)
        assert len(made) < 500


async def test_no_more_than_was_announced():
    closed = []

    class Response:
        def __iter__(self):
            yield b"one"
            yield b"two"
            yield b"three"

        def close(self):
            closed.append(True)

    def app(environ, start_response):
        start_response(OK, [("Content-Length", "5")])
        return Response()

    async with wsgi(app) as server, connected(server) as client:
        assert (await client.get()).body == b"onetw"
        assert (await client.get()).body == b"onetw"  # the connection goes on
        head = await client.request(b"HEAD / HTTP/1.1\r\nHost: here\r\n\r\n", bodiless=True)
        assert head[b"content-length"] == b"5"
    assert closed == [True] * 3


async def test_less_than_was_announced_is_a_mistake(caplog):
    def app(environ, start_response):
        start_response(OK, [("Content-Length", "5")])
        return [b"one"]

    async with wsgi(app) as server, connected(server) as client:
        assert (await client.get()).status == 500
    assert "the body is not as long as announced" in caplog.text


async def test_what_start_response_returns_writes():
    def app(environ, start_response):
        write = start_response(OK, [])
        write(b"one")
        write(b"")
        write(b"two")
        return [b"three"]

    async with wsgi(app) as server, connected(server) as client:
        assert (await client.get()).body == b"onetwothree"


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
async def test_a_response_without_a_body(status):
    def app(environ, start_response):
        start_response(status, [])
        return []

    async with wsgi(app) as server, connected(server) as client:
        assert (await client.get()).status == int(status[:3])
        assert (await client.get()).status == int(status[:3])


async def test_a_file():
    closed = []

    class File(io.BytesIO):
        def close(self):
            closed.append(True)
            super().close()

    content = bytes(range(256)) * 1024

    def app(environ, start_response):
        start_response(OK, [])
        return environ["wsgi.file_wrapper"](File(content), 4096)

    def app_without_close(environ, start_response):
        class Plain:
            read = io.BytesIO(content).read

        start_response(OK, [])
        return environ["wsgi.file_wrapper"](Plain())

    for each in app, app_without_close:
        async with wsgi(each) as server, connected(server) as client:
            assert (await client.get()).body == content
    assert closed == [True]


async def test_work_after_the_response_does_not_keep_the_client_waiting():
    gate, finished = threading.Event(), []

    class Response(list):
        def close(self):
            assert gate.wait(10)
            finished.append(True)

    def app(environ, start_response):
        start_response(OK, [])
        return Response([b"done"])

    async with wsgi(app) as server, connected(server) as client:
        assert (await client.get()).body == b"done"
        assert not finished
        gate.set()
    # And the stop has waited for it.
    assert finished


# Errors


def raises(environ, start_response):
    raise ZeroDivisionError


def raises_late(environ, start_response):
    start_response(OK, [])
    yield b"begun"
    raise ZeroDivisionError


def exits(environ, start_response):
    sys.exit(3)


def stops(environ, start_response):
    raise StopIteration


def never_starts(environ, start_response):
    return [b"body"]


def starts_twice(environ, start_response):
    start_response(OK, [])
    start_response(OK, [])
    return []


def gives_no_status(environ, start_response):
    start_response("OK", [])
    return []


def gives_nothing(environ, start_response):
    start_response(OK, [])


def gives_text(environ, start_response):
    start_response(OK, [])
    return ["text"]


@pytest.mark.parametrize(
    ("app", "says"),
    [
        (raises, "raised ZeroDivisionError on GET /"),
        (exits, "raised SystemExit on GET /"),
        (stops, "the application raised StopIteration"),
        (never_starts, "has not called start_response()"),
        (starts_twice, "pass exc_info to replace it"),
        (gives_no_status, "a status begins with three digits, as '200 OK', not 'OK'"),
        (gives_nothing, "'NoneType' object is not iterable"),
        (gives_text, "a body is bytes, not str"),
    ],
)
async def test_an_application_that_fails(app, says, caplog):
    async with wsgi(app, threads=1) as server:
        for _ in range(2):  # the thread goes on
            async with connected(server) as client:
                assert (await client.get()).status == 500
    assert says in caplog.text


async def test_an_application_that_fails_late(caplog):
    async with wsgi(raises_late) as server, connected(server) as client:
        await client.send(GET)
        assert (await client.read_to_end()).endswith(b"5\r\nbegun\r\n")
    assert "raised ZeroDivisionError on GET /" in caplog.text


async def test_an_error_page_replaces_the_response():
    def app(environ, start_response):
        start_response(OK, [("X-A", "1")])
        try:
            raise ZeroDivisionError
        except ZeroDivisionError:
            start_response("500 Oh", [("X-B", "1")], sys.exc_info())
        return [b"sorry"]

    async with wsgi(app) as server, connected(server) as client:
        response = await client.get()
        assert (response.status, response.body) == (500, b"sorry")
        assert not response.all(b"x-a")


async def test_it_is_too_late_for_an_error_page(caplog):
    def app(environ, start_response):
        start_response(OK, [])
        yield b"begun"
        try:
            raise ZeroDivisionError
        except ZeroDivisionError:
            start_response("500 Oh", [], sys.exc_info())

    async with wsgi(app) as server, connected(server) as client:
        await client.send(GET)
        assert (await client.read_to_end()).endswith(b"5\r\nbegun\r\n")
    assert "raised ZeroDivisionError on GET /" in caplog.text


async def test_a_close_that_fails(caplog):
    class Response(list):
        def close(self):
            raise AttributeError("close")

    def app(environ, start_response):
        start_response(OK, [])
        return Response([b"body"])

    async with wsgi(app) as server, connected(server) as client:
        assert (await client.get()).body == b"body"
    assert "raised AttributeError on GET /" in caplog.text


# Threads


async def test_one_slow_request_does_not_block_the_others():
    gate = threading.Event()

    def app(environ, start_response):
        if environ["PATH_INFO"] == "/slow":
            assert gate.wait(10)
        return environ_as_json(environ, start_response)

    async with wsgi(app, threads=2) as server, connected(server) as slow:
        await slow.send(b"GET /slow HTTP/1.1\r\nHost: here\r\n\r\n")
        await until(lambda: server.counters.requests)
        async with connected(server) as client:
            for _ in range(3):
                assert (await client.get()).status == 200
        gate.set()
        assert (await slow.read_response()).status == 200


async def test_they_work_side_by_side_and_no_more_than_so_many():
    lock, at_work, most = threading.Lock(), [], []
    barrier = threading.Barrier(3)

    def app(environ, start_response):
        assert threading.current_thread().name.startswith("headrace wsgi")
        with lock:
            at_work.append(1)
            most.append(len(at_work))
        barrier.wait(10)
        with lock:
            at_work.pop()
        return environ_as_json(environ, start_response)

    async with wsgi(app, threads=3) as server, contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connected(server)) for _ in range(6)]
        responses = await asyncio.gather(*(client.get() for client in clients))
        assert [response.status for response in responses] == [200] * 6
    assert max(most) == 3


async def test_a_context_variable_of_one_request_is_not_seen_by_the_next():
    name = contextvars.ContextVar("name", default="nobody")

    def app(environ, start_response):
        start_response(OK, [])
        seen = name.get()
        name.set("somebody")
        return [seen.encode()]

    async with wsgi(app, threads=1) as server, connected(server) as client:
        assert (await client.get()).body == b"nobody"
        assert (await client.get()).body == b"nobody"


async def test_a_request_whose_client_left_gets_no_thread():
    gate, paths = threading.Event(), []

    def app(environ, start_response):
        paths.append(environ["PATH_INFO"])
        assert gate.wait(10)
        return environ_as_json(environ, start_response)

    async with wsgi(app, threads=1) as server, connected(server) as first:
        await first.send(GET)
        await until(lambda: paths)
        async with connected(server) as second:
            await second.send(b"GET /second HTTP/1.1\r\nHost: here\r\n\r\n")
            await until(lambda: server.counters.requests == 2)
        await until(lambda: len(runtime_of(server).tasks) == 1)
        gate.set()
        assert (await first.read_response()).status == 200
    assert paths == ["/"]


async def test_a_client_that_leaves_ends_a_stream(caplog):
    closed = threading.Event()

    class Endless:
        def __iter__(self):
            while True:
                yield b"tick"
                time.sleep(0.001)

        def close(self):
            closed.set()

    def app(environ, start_response):
        start_response(OK, [])
        return Endless()

    async with wsgi(app) as server:
        async with connected(server) as client:
            await client.send(GET)
            await client.read_head()
        assert await asyncio.to_thread(closed.wait, 10)
    assert not caplog.records


async def test_a_thread_that_is_given_up_fails_in_silence(caplog):
    gate, closed = threading.Event(), threading.Event()

    class Late:
        def __iter__(self):
            assert gate.wait(10)
            yield b"late"

        def close(self):
            closed.set()
            raise ZeroDivisionError

    def app(environ, start_response):
        start_response(OK, [])
        return Late()

    async with wsgi(app, http_timeout_s=0.05, application_close_timeout_s=0.05) as server:
        async with connected(server) as client:
            assert (await client.get()).status == 503
        await until(lambda: not runtime_of(server).tasks)
        gate.set()
        assert await asyncio.to_thread(closed.wait, 10)
    assert "ZeroDivisionError" not in caplog.text


# WebSockets, and the lifespan


async def test_websockets_go_to_their_own_application():
    async with wsgi(environ_as_json, websockets=echo) as server, connected(server) as client:
        assert (await client.get("/a")).status == 200
        await client.open_websocket("/ws")
        await client.send_text("hello")
        assert await client.read_text() == "hello"


async def test_a_websocket_that_nobody_takes(caplog):
    caplog.set_level("INFO", "headrace.server")
    async with wsgi(environ_as_json) as server:
        for _ in range(2):
            async with connected(server) as client:
                response = await client.request(handshake("/ws%0A"))
                assert (response.status, response.body) == (501, b"no WebSockets here\n")
    said = [record for record in caplog.records if "--websockets MODULE:APP" in record.message]
    assert [record.levelname for record in said] == ["WARNING", "INFO"]
    assert "a WebSocket for /ws\\n is refused" in said[0].message


async def test_the_lifespan_is_that_of_the_websockets():
    heard = []

    async def app(scope, receive, send):
        assert scope["type"] == "lifespan"
        for answer in "startup", "shutdown":
            heard.append((await receive())["type"])
            await send({"type": f"lifespan.{answer}.complete"})

    async with wsgi(environ_as_json, websockets=app, lifespan="on"):
        pass
    assert heard == ["lifespan.startup", "lifespan.shutdown"]


async def test_without_them_there_is_no_lifespan(caplog):
    async with wsgi(environ_as_json, lifespan="auto") as server, connected(server) as client:
        assert (await client.get()).status == 200
    assert not caplog.records


# Django


@pytest.fixture
def site(settings):
    settings.ROOT_URLCONF = "tests.server.django_site"
    settings.MIDDLEWARE = ["django.middleware.common.CommonMiddleware"]
    settings.ALLOWED_HOSTS = ["127.0.0.1", "here"]
    return get_wsgi_application()


async def test_django(site):
    finished = []

    def note(**_):
        finished.append(threading.current_thread().name)

    request_finished.connect(note)
    try:
        async with wsgi(site, root_path="/mounted") as server, connected(server) as client:
            response = await client.get("/plain/?q=%C3%BC")
            assert json.loads(response.body) == {
                "path": "/mounted/plain/",
                "query": "\u00fc",
                "host": "here",
            }
            assert (await client.get("/async/")).body == b"async GET"
            assert (await client.get("/nowhere/")).status == 404
    finally:
        request_finished.disconnect(note)
    assert len(finished) == 3
    assert all(name.startswith("headrace wsgi") for name in finished)


async def test_django_takes_an_upload(site):
    content = bytes(range(256)) * 16384
    body = (
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.bin"\r\n\r\n'
        + content
        + b"\r\n--b--\r\n"
    )
    async with wsgi(site) as server, connected(server) as client:
        head = "Content-Type: multipart/form-data; boundary=b"
        response = await client.request(post("/upload/", body, head))
        assert json.loads(response.body) == {
            "name": "a.bin",
            "sha256": hashlib.sha256(content).hexdigest(),
        }


async def test_django_answers_for_a_view_that_fails(site, caplog):
    async with wsgi(site) as server, connected(server) as client:
        assert (await client.get("/broken/")).status == 500
