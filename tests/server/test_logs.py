"""Lines of the log: one JSON object each, and each knows its connection."""

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys

import pytest

from headrace.instruments import process
from headrace.server.http import RequestLine
from headrace.server.identity import peer_of
from headrace.server.logs import ConnectionFilter, JsonFormatter, LogFormat, formatter_for

from .clients import connected, connection_of, respond, serving

PEER = peer_of(("10.0.0.1", 5), worker=2, number=7)


def record(message="hello", *arguments, level=logging.INFO, **extra):
    return logging.getLogger("some.where").makeRecord(
        "some.where", level, __file__, 1, message, arguments, None, extra=extra
    )


def written(made):
    line = JsonFormatter().format(made)
    assert "\n" not in line
    assert line.isascii()
    return json.loads(line)


class TestJson:
    def test_what_is_always_there(self):
        made = record("%d of %s", 3, "them")
        made.created = 1_900_000_000.25
        assert written(made) == {
            "time": "2030-03-17T17:46:40.250Z",
            "level": "INFO",
            "logger": "some.where",
            "message": "3 of them",
        }

    def test_a_line_of_the_server_names_its_connection(self):
        fields = written(record("%s: the application raised", PEER))
        assert fields["connection"] == "2-7"
        assert fields["client"] == "10.0.0.1:5"

    def test_the_worker(self, monkeypatch):
        monkeypatch.setattr(process, "worker", 3)
        assert written(record())["worker"] == 3

    def test_an_exception_is_one_field(self):
        try:
            raise ValueError("first\nsecond")
        except ValueError:
            made = record()
            made.exc_info = sys.exc_info()
        fields = written(made)
        assert fields["exception"].startswith("Traceback")
        assert fields["exception"].endswith("ValueError: first\nsecond")
        assert made.exc_text is None

    def test_an_exception_that_was_written_before(self):
        made = record()
        made.exc_text = "as text"
        made.stack_info = "Stack (most recent call last)"
        assert written(made)["exception"] == "as text"
        assert written(made)["stack"].startswith("Stack")

    @pytest.mark.parametrize(
        "text",
        [
            '"}\n{"level": "CRITICAL"',
            "\x1b[2J\r\x00",
            "\u2028 \u202e",
            "\ud800",
            "é" * 3,
            "\x7f\x9b",
        ],
    )
    def test_nothing_gets_out_of_its_field(self, text):
        fields = written(record("%s", text, who=text))
        assert fields["message"] == text
        assert fields["who"] == text
        assert fields["level"] == "INFO"

    def test_what_the_application_adds(self):
        fields = written(record(order=17, items=["a"], level_="x", level=logging.ERROR))
        assert fields["order"] == 17
        assert fields["items"] == ["a"]

    def test_it_takes_no_name_of_ours(self):
        made = record()
        made.status, made.level = "mine", "mine, too"
        fields = written(made)
        assert fields["_status"] == "mine"
        assert fields["_level"] == "mine, too"
        assert fields["level"] == "INFO"

    def test_what_is_no_json(self):
        circle = []
        circle.append(circle)

        class Mute:
            def __str__(self):
                raise LookupError

        fields = written(record(circle=circle, number=1))
        assert fields["circle"] == "[[...]]"
        assert fields["number"] == 1
        assert written(record(number=float("nan")))["number"] == "nan"
        made = record()
        vars(made)["a", "b"] = 1
        assert written(made)["('a', 'b')"] == 1
        assert written(record(keys={(1, 2): 3}))["keys"] == "{(1, 2): 3}"
        assert written(record(what=Mute()))["what"] == (
            "<Mute: LookupError when it was to be written>"
        )

    def test_a_message_whose_arguments_do_not_fit(self):
        assert written(record("%d", "three"))["message"].startswith("%d ('three',) (not formatted")

    def test_arguments_by_name(self):
        made = record("%(who)s came", {"who": "somebody"})
        assert written(made)["message"] == "somebody came"


class TestText:
    def test_a_format_that_names_the_connection(self):
        formatter, [completes] = formatter_for(
            LogFormat.TEXT, "%(connection)s %(worker)s %(message)s"
        )
        made = record("%s: slow", PEER)
        assert completes.filter(made)
        assert formatter.format(made) == "2-7 0 10.0.0.1:5: slow"

    def test_no_connection(self):
        made = record()
        ConnectionFilter().filter(made)
        assert made.connection == "-"

    def test_a_format_that_does_not(self):
        assert formatter_for(LogFormat.TEXT, "%(message)s")[1] == []
        assert isinstance(formatter_for(LogFormat.JSON, "")[0], JsonFormatter)

    def test_no_format(self):
        with pytest.raises(ValueError, match="%"):
            formatter_for(LogFormat.TEXT, "nothing")


@pytest.fixture
def lines():
    """What is logged, through a formatter of ours, on the root logger and on that of the server."""
    kept = []

    class Keeping(logging.Handler):
        def emit(self, record):
            kept.append(json.loads(self.format(record)))

    handler = Keeping()
    handler.setFormatter(JsonFormatter())
    loggers = [logging.getLogger("headrace"), logging.getLogger("application")]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel("INFO")
    yield kept
    for logger in loggers:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)


async def test_a_request_in_its_parts(lines):
    async def application(scope, receive, send):
        logging.getLogger("application").info("at work")
        await asyncio.to_thread(logging.getLogger("application").warning, "in a thread")
        await respond(send, status=404)

    async with serving(application) as server, connected(server) as client:
        assert (await client.get("/a?b='c'")).status == 404
        id_ = connection_of(server).peer.connection
        host, port = client.sock.getsockname()
    at_work, in_a_thread, access = lines[:3]
    assert at_work["connection"] == in_a_thread["connection"] == access["connection"] == id_
    assert access["logger"] == "headrace.access"
    assert access["client"] == f"{host}:{port}"
    assert access["method"] == "GET"
    assert access["path"] == "/a?b='c'"
    assert access["http_version"] == "1.1"
    assert access["status"] == 404
    assert 0 < access["duration_ms"] < 10_000
    assert "\"GET /a?b='c' HTTP/1.1\" 404" in access["message"]


async def test_a_handshake_has_no_duration(lines):
    async def application(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        raise RuntimeError("on purpose")

    async with serving(application) as server, connected(server) as client:
        await client.open_websocket("/ws")
        await client.read_close()
    [access] = [line for line in lines if line["logger"] == "headrace.access"]
    [error] = [line for line in lines if "exception" in line]
    assert access["status"] == 101
    assert "duration_ms" not in access
    assert error["connection"] == access["connection"]
    assert error["exception"].endswith("RuntimeError: on purpose")


def test_a_line_for_people():
    class Request:
        method, target, http_version = "GET", b"/\r\nx", "1.1"

    assert str(RequestLine(Request, 200)) == "GET /\\r\\nx HTTP/1.1"


def test_the_command_writes_json_and_nothing_else(tmp_path):
    (tmp_path / "site_of_json.py").write_text(
        "import logging, threading\n"
        "async def application(scope, receive, send):\n"
        "    if scope['type'] == 'lifespan':\n"
        "        raise NotImplementedError\n"
        "    logging.getLogger('shop').warning('sold\\n%s', scope['path'], extra={'price': 3})\n"
        "    await send({'type': 'http.response.start', 'status': 200, 'headers': []})\n"
        "    await send({'type': 'http.response.body', 'body': b''})\n"
    )
    command = [sys.executable, "-m", "headrace", "serve", "site_of_json", "--port", "0"]
    environment = os.environ | {"HEADRACE_LOG_FORMAT": "json"}
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True
    ) as served:
        try:
            lines = []
            for line in served.stderr:
                lines.append(json.loads(line))
                if "listens on" in lines[-1]["message"]:
                    break
            port = int(lines[-1]["message"].rpartition(":")[2])
            asyncio.run(_ask(port))
            for line in served.stderr:
                lines.append(json.loads(line))
                if lines[-1]["logger"] == "headrace.access":
                    break
        finally:
            served.send_signal(signal.SIGTERM)
        lines += map(json.loads, served.stderr)
        assert served.wait() == 0
    [sold] = [line for line in lines if line["logger"] == "shop"]
    [access] = [line for line in lines if line["logger"] == "headrace.access"]
    assert sold["message"] == "sold\n/things"
    assert sold["price"] == 3
    assert sold["connection"] == access["connection"]
    assert access["status"] == 200


async def _ask(port):
    async with connected(("127.0.0.1", port)) as client:
        assert (await client.get("/things")).status == 200
