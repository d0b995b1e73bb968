"""What a server holds its clients to: each limit with a real socket, its answer and its counter."""

import asyncio
import contextlib
import socket
import time

import pytest

from headrace.exceptions import CloseCode, ConfigurationError
from headrace.protocols.http1 import Http1Limits
from headrace.protocols.websocket import Limits
from headrace.server import limits
from headrace.server.config import Config
from headrace.server.limits import (
    ADDRESS,
    CONNECTIONS,
    DESCRIPTORS,
    PRIVATE,
    ClientLimits,
    Gate,
    Pace,
    Refusal,
    Refusals,
    address_key,
)
from headrace.server.options import OPTIONS
from headrace.server.proxy import ProxyHeaders

from .clients import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    connected,
    connection_of,
    echo,
    frame,
    handshake,
    hello,
    runtime_of,
    serving,
    until,
)


def clients(**given):
    """Limits for clients of this host, which are none of the private networks here."""
    return ClientLimits(**{"shared_networks": ()} | given)


def refused(server):
    """How much was refused, by reason."""
    return {reason: cell.value for reason, cell in server.counters.refusals.items()}


def gate_of(server):
    return runtime_of(server).gate


async def outcome(server, request=b"GET / HTTP/1.1\r\nHost: here\r\n\r\n"):
    """The status that one more connection gets; None where it just ends."""
    try:
        async with connected(server) as client:
            return (await client.request(request)).status
    except (ConnectionError, asyncio.IncompleteReadError):
        return None


# Settings


def test_every_refusal_names_an_option_that_there_is():
    names = {f"--{option.name}" for group in OPTIONS.values() for option in group}
    refusals = [value for value in vars(limits).values() if isinstance(value, Refusal)]
    assert len(refusals) >= 8
    for refusal in refusals:
        assert refusal.setting in names | {"ulimit -n"}, refusal
        assert refusal.reason.isidentifier()


def test_every_limit_on_clients_is_an_option():
    fields = {name for name in ClientLimits.__dataclass_fields__ if name != "networks"}
    to = {option.to for group in OPTIONS.values() for option in group}
    assert {f"clients.{name}" for name in fields} <= to


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ({"connections": -1}, "connections must be 0 (off) or more"),
        ({"messages_per_s": -0.1}, "messages_per_s must be 0 (off) or more"),
        ({"messages_per_s": float("nan")}, "messages_per_s must be 0 (off) or more"),
        ({"burst_s": 0}, "burst_s must be more than 0, not 0"),
        ({"shared_networks": ["10.0.0.1/8"]}, "must be an address or a network: 10.0.0.1/8"),
    ],
)
def test_what_can_not_be_says_why(setting, says):
    with pytest.raises(ConfigurationError) as caught:
        ClientLimits(**setting)
    assert says in str(caught.value)


# Connections


async def test_one_connection_too_many_gets_503_and_harms_no_other(caplog):
    caplog.set_level("INFO", "headrace.server")
    async with serving(echo, clients=clients(connections=2)) as server:
        async with connected(server) as first, connected(server) as second:
            await first.open_websocket()
            assert (await second.get()).status == 200
            async with connected(server) as third:
                # Without a request: it is told at once.
                response = await third.read_response()
                assert response.status == 503
                assert 1 <= int(response[b"retry-after"]) <= 5
                assert await third.read_to_end() == b""
            await first.send_text("unharmed")
            assert await first.read_text() == "unharmed"
            assert (await second.get()).status == 200
        await until(lambda: not runtime_of(server).connections)
        assert await outcome(server) == 200
        assert refused(server) == {"connections": 1}
        assert gate_of(server).refusing == 0
    [line] = [line for line in caplog.messages if "refused" in line]
    assert line.endswith("come again (see --max-connections)")


async def test_in_a_crowd_refusals_are_short():
    async with serving(hello, clients=clients(connections=1)) as server:
        async with connected(server) as first, contextlib.AsyncExitStack() as stack:
            assert (await first.get()).status == 200
            crowd = [await stack.enter_async_context(connected(server)) for _ in range(100)]
            await until(lambda: refused(server).get("connections") == 100)
            answers = []
            for client in crowd:
                with contextlib.suppress(ConnectionError):
                    answers.append(await client.read_to_end())
            told = [answer for answer in answers if answer.startswith(b"HTTP/1.1 503 ")]
            assert len(told) == limits.REFUSING
            assert (await first.get()).status == 200
        await until(lambda: not runtime_of(server).connections)
        assert gate_of(server).refusing == 0


async def test_connections_of_one_address_are_bounded_whatever_ends_them():
    async with serving(echo, clients=clients(connections_per_address=3)) as server:
        for end in ("close", "reset", "websocket"):
            async with connected(server) as a, connected(server) as b, connected(server) as c:
                assert (await a.get()).status == 200
                await b.open_websocket()
                if end == "websocket":
                    await c.open_websocket()
                async with connected(server) as fourth:
                    response = await fourth.read_response()
                    assert response.status == 429
                    assert response[b"retry-after"]
                if end == "reset":
                    for client in (a, b, c):
                        client.reset()
            await until(lambda: not runtime_of(server).connections)
            assert len(gate_of(server)._places) == 0
        assert refused(server) == {"connections_per_address": 3}


async def test_another_address_has_places_of_its_own():
    async with (
        serving(hello, host="::", clients=clients(connections_per_address=1)) as server,
        connected(("127.0.0.1", server.port)) as first,
    ):
        assert (await first.get()).status == 200
        assert await outcome(("127.0.0.1", server.port)) == 429
        assert await outcome(("::1", server.port)) == 200
        assert (await first.get()).status == 200


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("192.0.2.1", "192.0.2.2"),
        ("2001:db8:0:1::1", "2001:db8:0:2::1"),
        ("192.0.2.1", "2001:db8::1"),
    ],
)
def test_addresses_that_are_told_apart(one, other):
    assert address_key(one) != address_key(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("2001:db8:0:1::1", "2001:db8:0:1:ffff:ffff:ffff:ffff"),
        ("192.0.2.1", "::ffff:192.0.2.1"),
        ("fe80::1%eth0", "fe80::2"),
    ],
)
def test_addresses_that_are_one_customers(one, other):
    assert address_key(one) == address_key(other) is not None


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "10.1.2.3", "::ffff:192.168.0.1", "/a.sock"])
def test_addresses_that_have_no_limit_of_their_own(host):
    assert address_key(host, ClientLimits().networks) is None


def test_the_public_internet_is_not_private():
    networks = ClientLimits(shared_networks=PRIVATE).networks
    for host in ("192.0.2.1", "172.32.0.1", "8.8.8.8", "2001:db8::1"):
        assert address_key(host, networks) is not None


async def test_a_unix_socket_has_no_limit_by_address(tmp_path):
    path = str(tmp_path / "s")
    given = clients(connections_per_address=1, handshakes_per_address_per_s=0.001)
    async with (
        serving(echo, uds=path, clients=given),
        connected(path) as first,
        connected(path) as second,
        connected(path) as third,
    ):
        for client in (first, second, third):
            await client.open_websocket()


async def test_behind_a_proxy_each_of_its_clients_has_places_of_its_own():
    class Slow:
        def __init__(self):
            self.begun = asyncio.Semaphore(0)
            self.go_on = asyncio.Event()

        async def __call__(self, scope, receive, send):
            if scope["path"] == "/slow":
                self.begun.release()
                await self.go_on.wait()
            await echo(scope, receive, send)

    app = Slow()
    given = clients(connections_per_address=1)
    async with serving(app, proxy_headers=ProxyHeaders(), clients=given) as server:
        one, other = "X-Forwarded-For: 192.0.2.1", "X-Forwarded-For: 192.0.2.2"
        async with connected(server) as a, connected(server) as b, connected(server) as c:
            # As many requests as it likes, one after the other.
            for _ in range(3):
                assert (await a.get("/", one)).status == 200
            slow = asyncio.create_task(a.get("/slow", one))
            await app.begun.acquire()
            assert (await b.get("/", other)).status == 200
            assert (await b.get("/", one)).status == 429
            app.go_on.set()
            assert (await slow).status == 200
            await c.open_websocket("/", one)
            assert (await a.get("/", one)).status == 429
        async with connected(server) as again:
            await until(lambda: not len(gate_of(server)._places))
            await again.open_websocket("/", one)
            async with connected(server) as too_many:
                response = await too_many.request(handshake("/", one))
                assert response.status == 429
        await until(lambda: not len(gate_of(server)._places))
        assert refused(server) == {"connections_per_address": 3}


async def test_a_request_that_is_given_up_gives_its_place_back():
    begun = asyncio.Event()

    async def app(scope, receive, send):
        begun.set()
        while (await receive())["type"] != "http.disconnect":
            pass

    given = clients(connections_per_address=1)
    async with (
        serving(app, proxy_headers=ProxyHeaders(), clients=given) as server,
        connected(server) as client,
    ):
        await client.send(b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n")
        await begun.wait()
        assert len(gate_of(server)._places) == 1
        client.reset()
        await until(lambda: not len(gate_of(server)._places))


async def test_a_limit_that_is_off_keeps_nothing():
    off = clients(
        connections_per_address=0,
        handshakes_per_s=0,
        handshakes_per_address_per_s=0,
        messages_per_s=0,
        bytes_per_s=0,
    )
    async with serving(echo, clients=off) as server, connected(server) as client:
        await client.open_websocket()
        await client.send_text("hello")
        assert await client.read_text() == "hello"
        gate = gate_of(server)
        assert gate._places is gate._handshakes is gate._of_address is None
        assert runtime_of(server).pace is None
        stream = connection_of(server)
        assert (stream.place, stream._pressure, stream._due) == (None, None, 0.0)


# Descriptors


def test_the_last_descriptors_are_kept():
    gate = Gate(ClientLimits(connections=0), 1024)
    assert gate.most == 824
    assert gate.connect(823, 0.0) is None
    assert gate.connect(824, 0.0) is CONNECTIONS
    gate.look(991, 0.0)
    assert gate.connect(0, 0.0) is None
    gate.look(992, 0.0)
    assert gate.connect(0, 0.9) is DESCRIPTORS
    assert gate.connect(0, 1.0) is None


@pytest.mark.parametrize(("descriptors", "most"), [(20, 10), (256, 128), (-1, 943_719), (2, 1)])
def test_however_many_there_are(descriptors, most):
    assert Gate(ClientLimits(connections=0), descriptors).most == most
    assert Gate(ClientLimits(connections=7), descriptors).most == min(7, most)


async def test_a_server_that_is_short_of_descriptors_lets_nobody_in_for_a_moment(caplog):
    async with serving(hello, clients=clients()) as server:
        gate = gate_of(server)
        gate._last_descriptor = 1  # every descriptor is one of the last
        async with connected(server) as first:
            assert (await first.get()).status == 200
            statuses = [await outcome(server) for _ in range(limits.LOOK_EVERY)]
            assert set(statuses) == {200, None}
            assert refused(server) == {"descriptors": statuses.count(None)}
            assert (await first.get()).status == 200
        gate._last_descriptor = 1 << 20
        await until(lambda: not runtime_of(server).connections)
        await until(lambda: gate.connect(0, asyncio.get_running_loop().time()) is None)
        assert await outcome(server) == 200
        await until(lambda: not len(gate._places))


# Handshakes


async def test_handshakes_of_all_clients_have_a_rate():
    given = clients(handshakes_per_s=0.5, burst_s=4, handshakes_per_address_per_s=0)
    async with serving(echo, clients=given) as server:
        for _ in range(2):
            async with connected(server) as client:
                await client.open_websocket()
        async with connected(server) as client:
            response = await client.request(handshake())
            assert response.status == 503
            assert 3 <= int(response[b"retry-after"]) <= 7  # in two seconds, and a spread
        assert await outcome(server) == 200  # other requests are none
        assert refused(server) == {"handshakes": 1}


async def test_handshakes_of_one_address_have_a_rate(caplog):
    caplog.set_level("INFO", "headrace.server")
    given = clients(handshakes_per_address_per_s=10, burst_s=0.2)
    async with serving(echo, host="::", clients=given) as server:
        statuses = []
        for _ in range(30):
            async with connected(("127.0.0.1", server.port)) as client:
                statuses.append((await client.request(handshake())).status)
        assert statuses[:2] == [101, 101]
        assert statuses.count(429) == refused(server)["handshakes_per_address"] > 10
        async with connected(("::1", server.port)) as client:
            await client.open_websocket()
    lines = [line for line in caplog.messages if "handshakes_per_address" in line]
    assert len(lines) == 11
    assert lines[-1] == f"handshakes_per_address: … and {statuses.count(429) - 10} more in 10 s"


# What a request may have


@pytest.mark.parametrize(
    ("given", "request_", "status", "reason"),
    [
        ({"request_line_bytes": 100}, f"GET /{'a' * 100} HTTP/1.1\r\n", 414, "uri_too_long"),
        ({"header_count": 5}, "GET / HTTP/1.1\r\nHost: a\r\n" + "A: b\r\n" * 5 + "\r\n", 431, ""),
        ({"header_bytes": 100}, f"GET / HTTP/1.1\r\nHost: a\r\nA: {'b' * 100}\r\n\r\n", 431, ""),
        ({"field_bytes": 100}, f"GET / HTTP/1.1\r\nHost: a\r\nA: {'b' * 100}\r\n\r\n", 431, ""),
        (
            {"body_bytes": 10},
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\n",
            413,
            "content_too_large",
        ),
        ({"head_s": 0.1}, "GET / HTTP/1.1\r\nHost: a\r\n", 408, "request_timeout"),
        (
            {"body_idle_s": 0.1},
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\nhello",
            408,
            "request_timeout",
        ),
    ],
)
async def test_a_request_beyond_its_limit_is_refused(given, request_, status, reason, caplog):
    caplog.set_level("INFO", "headrace.server")
    async with serving(echo, http=Http1Limits(**given)) as server, connected(server) as client:
        response = await client.request(request_.encode())
        assert response.status == status
        await until(lambda: refused(server))
        assert list(refused(server)) == [reason or "request_header_fields_too_large"]
    assert f"refused with {status}" in caplog.text


async def test_a_body_that_trickles_is_given_up():
    given = Http1Limits(body_grace_s=0.3, body_rate_bytes=1000)

    async def trickle(client):
        with contextlib.suppress(ConnectionError):
            while True:
                await client.send(b"a")
                await asyncio.sleep(0.02)

    async with serving(echo, http=given) as server, connected(server) as client:
        await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n")
        sender = asyncio.create_task(trickle(client))
        assert (await client.read_response()).status == 408
        sender.cancel()
        await asyncio.wait([sender])
        assert refused(server) == {"request_timeout": 1}


async def test_refused_requests_do_not_flood_the_log(caplog):
    caplog.set_level("INFO", "headrace.server")
    async with serving(hello) as server:
        for _ in range(30):
            assert await outcome(server, b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n") == 400
        assert refused(server) == {"bad_request": 30}
    lines = [line for line in caplog.messages if "refused" in line or "more" in line]
    assert len(lines) == 11
    assert lines[-1] == "bad_request: … and 20 more in 10 s"


async def test_bad_handshakes_do_not_flood_the_log(caplog):
    caplog.set_level("INFO", "headrace.server")
    async with serving(hello) as server:
        for _ in range(12):
            bad = handshake().replace(b"Version: 13", b"Version: 12")
            assert await outcome(server, bad) == 426
        assert refused(server) == {"bad_handshake": 12}
    lines = [line for line in caplog.messages if "handshake" in line]
    assert len(lines) == 11
    assert lines[-1] == "bad_handshake: … and 2 more in 10 s"


# What a WebSocket may have


async def test_a_client_that_sends_too_fast_is_read_slowly_and_loses_nothing():
    given = ClientLimits(messages_per_s=100, burst_s=0.5, patience_s=0)
    async with serving(echo, clients=given) as server, connected(server) as client:
        await client.open_websocket()
        began = time.monotonic()
        client.writer.write(b"".join(frame(TEXT, b"%d" % number) for number in range(150)))
        for number in range(150):
            assert await client.read_text() == str(number)
        # Fifty at once, and the others at their rate; 64 are read in one go.
        assert 0.3 <= time.monotonic() - began < 5
        assert refused(server) == {}
        # And then it has a burst again, as anybody.
        await asyncio.sleep(0.6)
        began = time.monotonic()
        client.writer.write(frame(TEXT, b"again") * 40)
        for _ in range(40):
            assert await client.read_text() == "again"
        assert time.monotonic() - began < 0.3


async def flood(client, data):
    """Send as fast as it goes, until the connection ends."""
    with contextlib.suppress(ConnectionError):
        while True:
            client.writer.write(data)
            await client.writer.drain()


@contextlib.asynccontextmanager
async def flooded(client, data):
    flooding = asyncio.create_task(flood(client, data))
    try:
        yield
    finally:
        flooding.cancel()
        await asyncio.wait([flooding])


@pytest.mark.parametrize(
    ("given", "data", "reason"),
    [
        ({"messages_per_s": 500}, frame(TEXT, b"a") * 100, "message_rate"),
        ({"messages_per_s": 500}, frame(PING) * 100, "message_rate"),
        ({"messages_per_s": 500}, frame(PONG) * 100, "message_rate"),
        (
            {"messages_per_s": 500},
            (frame(TEXT, fin=False) + frame(0, fin=False) * 998 + frame(0)) * 5,
            "message_rate",
        ),
        ({"bytes_per_s": 100_000}, frame(BINARY, b"a" * 60_000), "byte_rate"),
    ],
)
async def test_a_client_that_goes_on_sending_too_fast_is_closed_with_1008(
    given, data, reason, caplog
):
    caplog.set_level("INFO", "headrace.server")
    given = {"messages_per_s": 0, "bytes_per_s": 0} | given | {"burst_s": 0.1, "patience_s": 0.3}

    async def sink(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        while (await receive())["type"] == "websocket.receive":
            pass

    async with serving(sink, clients=ClientLimits(**given)) as server:
        async with connected(server) as client, connected(server) as good:
            await client.open_websocket()
            await good.open_websocket()
            async with flooded(client, data):
                code, says = await client.read_close()
                assert code == CloseCode.POLICY_VIOLATION
                assert says.startswith("too many ")
                # Nothing more of it is heard; the others are.
                [stream] = [
                    each for each in runtime_of(server).connections if each._pressure is not None
                ]
                assert stream._reading_paused
                await good.send_frame(PING, b"there?")
                assert await good.read_frame() == (PONG, b"there?")
            await client.close()
        assert refused(server) == {reason: 1}
    [line] = [line for line in caplog.messages if "refused" in line]
    assert f"refused, {reason}: {says} (see --" in line


async def test_a_pause_is_no_reason_to_close():
    """One who sends too fast now and then, and minds it, is never closed."""
    given = ClientLimits(messages_per_s=100, burst_s=0.1, patience_s=0.5)
    async with serving(echo, clients=given) as server, connected(server) as client:
        await client.open_websocket()
        stream = connection_of(server)
        for _ in range(2):
            client.writer.write(frame(TEXT, b"a") * 30)
            for _ in range(30):
                await client.read_text()
            since = stream._pressure.since
            await asyncio.sleep(1.3)
        assert stream._pressure.since == since
        client.writer.write(frame(TEXT, b"a") * 30)
        for _ in range(30):
            await client.read_text()
        assert stream._pressure.since > since
        await client.send_close()
        assert (await client.read_close())[0] == 1000


async def test_the_end_of_a_connection_that_is_held_back_is_heard():
    given = ClientLimits(messages_per_s=1, burst_s=1, patience_s=0)
    async with serving(echo, clients=given) as server:
        async with connected(server) as client:
            await client.open_websocket()
            client.writer.write(frame(TEXT, b"a") * 200)
            stream = connection_of(server)
            await until(lambda: stream._held_back)
        # It is gone, and the timer with it, although nobody reads.
        for connection in list(runtime_of(server).connections):
            connection.abort()
        await until(lambda: not runtime_of(server).connections)
        assert stream._pressure.timer.cancelled()


async def test_a_stop_closes_a_connection_that_is_held_back():
    given = ClientLimits(messages_per_s=1, burst_s=1, patience_s=0)
    async with serving(echo, clients=given) as server, connected(server) as client:
        await client.open_websocket()
        client.writer.write(frame(TEXT, b"a") * 200)
        await until(lambda: connection_of(server)._held_back)
        stopping = asyncio.create_task(server.stop())
        assert (await client.read_close())[0] == CloseCode.GOING_AWAY
        await stopping


def test_a_pace_is_what_is_asked_for():
    assert Pace.of(ClientLimits(messages_per_s=0, bytes_per_s=0)) is None
    pace = Pace.of(ClientLimits(messages_per_s=0.01, bytes_per_s=0, burst_s=1, patience_s=0))
    assert (pace.message_s, pace.byte_s) == (100, 0)
    assert pace.burst_s == 100  # one message there is in any case
    assert pace.patience_s == float("inf")


@pytest.mark.parametrize(
    ("given", "data"),
    [
        ({"message_bytes": 10}, frame(TEXT, b"a" * 11)),
        ({"frame_bytes": 10}, frame(TEXT, b"a" * 11)),
        ({"fragments": 3}, frame(TEXT, fin=False) + frame(0, fin=False) * 3),
    ],
    ids=["message", "frame", "fragments"],
)
async def test_a_message_beyond_its_limit_gets_1009(given, data):
    async with serving(echo, websocket=Limits(**given)) as server, connected(server) as client:
        await client.open_websocket()
        await client.send(data)
        assert (await client.read_close())[0] == CloseCode.MESSAGE_TOO_BIG
        assert refused(server) == {"message_too_big": 1}


async def test_a_message_that_begins_and_never_ends_gets_1008():
    given = {"message_timeout_s": 0.3, "ping_interval_s": 0.1, "accept_timeout_s": 0}
    async with serving(echo, **given) as server, connected(server) as client:
        await client.open_websocket()
        await client.send(frame(TEXT, b"hello")[:8])
        code, says = await client.read_close()
        assert (code, says) == (1008, "message takes too long to arrive")
        assert refused(server) == {"slow_message": 1}


async def test_without_pings_too():
    given = {"message_timeout_s": 0.3, "ping_interval_s": 0, "accept_timeout_s": 0}
    async with serving(echo, **given) as server, connected(server) as client:
        await client.open_websocket()
        await client.send(frame(TEXT, b"hello", fin=False))
        assert (await client.read_close())[0] == 1008


async def test_a_client_that_says_nothing_for_too_long_gets_3008():
    async with (
        serving(echo, clients=ClientLimits(idle_s=0.5)) as server,
        connected(server) as client,
    ):
        await client.open_websocket()
        began = time.monotonic()
        await asyncio.sleep(0.3)
        await client.send_text("here")
        assert await client.read_text() == "here"
        while time.monotonic() - began < 0.7:
            # Pings are nothing said.
            await client.send_frame(PING)
            assert (await client.read_frame())[0] == PONG
            await asyncio.sleep(0.05)
        assert await client.read_close() == (3008, "nothing was sent for too long")
        assert 0.75 < time.monotonic() - began < 2
        assert refused(server) == {"idle": 1}


async def test_who_is_not_heard_is_not_idle():
    go_on = asyncio.Event()

    async def slow(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        await go_on.wait()
        while (await receive())["type"] == "websocket.receive":
            pass

    given = {"clients": ClientLimits(idle_s=0.2), "inbox_limit": 2}
    async with serving(slow, **given) as server, connected(server) as client:
        await client.open_websocket()
        client.writer.write(frame(TEXT, b"a") * 10)
        stream = connection_of(server)
        await until(lambda: stream._reading_paused)
        await asyncio.sleep(0.5)
        assert refused(server) == {}
        go_on.set()
        assert (await client.read_close())[0] == 3008


async def test_a_ping_without_an_answer_gets_1011():
    given = {"ping_interval_s": 0.1, "ping_timeout_s": 0.1, "accept_timeout_s": 0}
    async with serving(echo, **given) as server, connected(server) as client:
        await client.open_websocket()
        assert (await client.read_close())[0] == CloseCode.INTERNAL_ERROR
        assert refused(server) == {"ping_timeout": 1}


async def test_a_client_that_takes_nothing_is_cut_off_and_counted():
    async def large(scope, receive, send):
        await send({"type": "http.response.start", "status": 200})
        with contextlib.suppress(OSError):
            while True:
                await send({"type": "http.response.body", "body": b"a" * 65536, "more_body": True})

    async with (
        serving(large, write_timeout_s=0.3) as server,
        connected(server, receive_buffer=65536) as client,
    ):
        client.writer.transport.pause_reading()
        await client.send(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
        await until(lambda: refused(server) == {"write_timeout": 1})


# Saying no


def test_a_refusal_counts_answers_and_tells():
    counted, told, answered = [], [], []

    def log(kind, message, *arguments):
        told.append((kind, message % arguments))

    refusals = Refusals(counted.append, log)
    refusals.request(ADDRESS, "192.0.2.1:5", lambda *answer: answered.append(answer), wait_s=2.1)
    [(status, says, [(name, value)])] = answered
    assert (status, says, name) == (429, ADDRESS.says, b"retry-after")
    assert 4 <= int(value) <= 8
    refusals.close(limits.IDLE, "192.0.2.1:5", lambda *answer: answered.append(answer))
    assert answered[1] == (3008, "nothing was sent for too long")
    refusals.note(Refusal("odd", "it is odd"), "192.0.2.1:5", "very odd")
    assert counted == ["connections_per_address", "idle", "odd"]
    assert [kind for kind, _ in told] == counted
    assert told[2][1] == "192.0.2.1:5: refused, odd: very odd"
    assert told[0][1].endswith("(see --max-connections-per-address)")


async def test_the_defaults_let_a_browser_and_a_busy_client_be():
    assert Config().clients == ClientLimits()
    async with serving(echo, clients=clients()) as server:
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(20):
                client = await stack.enter_async_context(connected(server))
                await client.open_websocket()
            client.writer.write(frame(TEXT, b"a") * 5000)
            for _ in range(5000):
                await client.read_text()
            await client.send_close()
            opcode, _ = await client.read_frame()
            assert opcode == CLOSE
        assert refused(server) == {}


async def test_a_client_of_a_unix_socket_writes_no_line_of_the_log(tmp_path, caplog):
    caplog.set_level("INFO", "headrace")
    path, own = str(tmp_path / "s"), str(tmp_path / "a\nERROR forged")
    async with serving(hello, uds=path):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.setblocking(False)
            sock.bind(own)
            await asyncio.get_running_loop().sock_connect(sock, path)
            reader, writer = await asyncio.open_connection(sock=sock)
            writer.write(b"GET / HTTP/1.1\r\nHost: here\r\n\r\nGET / HTTP/1.1\r\nHost: a b\r\n\r\n")
            writer.write_eof()
            assert (await reader.read()).count(b"HTTP/1.1 ") == 2
            writer.close()
    lines = [line for line in caplog.messages if "forged" in line]
    assert len(lines) == 2
    assert all(r"a\nERROR forged" in line and "\n" not in line for line in lines)
