"""Connections that a proxy passes on: whose word is taken, and that not a byte is lost."""

import asyncio
import contextlib
import logging
import socket
import ssl

import pytest

from headrace.exceptions import ConfigurationError
from headrace.server.config import Config
from headrace.server.endpoint import Endpoint
from headrace.server.limits import ClientLimits
from headrace.server.proxy import ProxyHeaders
from headrace.server.proxy_protocol import ProxyProtocol
from headrace.server.tls import Tls

from .certificates import Authority
from .clients import TIMEOUT_S, connected, handshake, runtime_of, serving, until
from .test_tls import keeping, trusting

V1 = b"PROXY TCP4 192.0.2.1 198.51.100.2 51234 443\r\n"
V2 = (
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"
    + socket.inet_aton("192.0.2.1")
    + socket.inet_aton("198.51.100.2")
    + b"\xc8\x22\x01\xbb"
)
LOCAL = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\0\0"
GET = b"GET / HTTP/1.1\r\nHost: here\r\n\r\n"


@pytest.mark.parametrize("header", [V1, V2])
@pytest.mark.parametrize("step", [1, 1000])
async def test_both_ends_are_those_that_the_proxy_names(header, step, caplog):
    caplog.set_level(logging.INFO, "headrace.access")
    scopes = []
    async with serving(keeping(scopes), proxied=True) as server, connected(server) as client:
        data = header + GET
        client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(0, len(data), step):
            await client.send(data[at : at + step])
            await asyncio.sleep(0)
        assert (await client.read_response()).status == 200
        assert (await client.get()).status == 200
    for scope in scopes:
        assert scope["client"] == ("192.0.2.1", 51234)
        assert scope["server"] == ("198.51.100.2", 443)
        assert scope["scheme"] == "http"
        assert "tls" not in scope["extensions"]
    assert len(scopes) == 2
    assert '192.0.2.1:51234 "GET / HTTP/1.1" 200' in caplog.text


async def test_a_websocket():
    scopes = []
    async with serving(keeping(scopes), proxied=True) as server, connected(server) as client:
        await client.send(V1 + handshake("/"))
        assert (await client.read_response()).status == 101
        await client.send_text("hello")
        assert await client.read_text() == "hello"
    assert scopes[0]["client"] == ("192.0.2.1", 51234)


@pytest.mark.parametrize("header", [LOCAL, b"PROXY UNKNOWN\r\n"])
async def test_a_proxy_that_names_nobody(header):
    scopes = []
    async with serving(keeping(scopes), proxied=True) as server, connected(server) as client:
        await client.send(header + GET)
        assert (await client.read_response()).status == 200
        own = client.sock.getsockname()
    assert scopes[0]["client"] == own


@pytest.mark.parametrize("step", [1, 1000])
async def test_tls_comes_after_the_header(tmp_path, step):
    authority = Authority(tmp_path)
    files = authority.issue()
    tls = Tls(certificate=files.certificate, key=files.key)
    scopes = []
    to_us, to_them = ssl.MemoryBIO(), ssl.MemoryBIO()
    side = trusting(authority).wrap_bio(to_us, to_them, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        side.do_handshake()
    async with serving(keeping(scopes), proxied=True, tls=tls) as server:
        assert server.url.startswith("https://")
        async with connected(server) as client:
            # The hello arrives with the header, or in the middle of a byte-wise trickle.
            data = V2 + to_them.read()
            for at in range(0, len(data), step):
                await client.send(data[at : at + step])
                await asyncio.sleep(0)
            while True:
                to_us.write(await client.reader.read(65536))
                try:
                    side.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    pass
            side.write(GET)
            await client.send(to_them.read())
            answer = b""
            while b"\r\n\r\n" not in answer:
                to_us.write(await client.reader.read(65536))
                with contextlib.suppress(ssl.SSLWantReadError):
                    answer += side.read(65536)
            assert answer.startswith(b"HTTP/1.1 200")
    [scope] = scopes
    assert (scope["client"], scope["scheme"]) == (("192.0.2.1", 51234), "https")
    assert scope["extensions"]["tls"]["tls_version"] == 0x0304


async def test_on_a_unix_socket(tmp_path):
    path = str(tmp_path / "app.sock")
    scopes = []
    async with serving(keeping(scopes), uds=path, proxied=True), connected(path) as client:
        await client.send(V1 + GET)
        assert (await client.read_response()).status == 200
    assert scopes[0]["client"] == ("192.0.2.1", 51234)


async def test_one_place_with_it_and_one_without():
    scopes = []
    also = [Endpoint.from_twisted("haproxy:tcp:0:interface=127.0.0.1")]
    async with serving(keeping(scopes), also=also) as server:
        plain, proxied = (int(each.rpartition(":")[2]) for each in server.addresses)
        async with connected(("127.0.0.1", plain)) as client:
            assert (await client.request(GET)).status == 200
        async with connected(("127.0.0.1", proxied)) as client:
            assert (await client.request(V1 + GET)).status == 200
    assert [scope["client"][0] for scope in scopes] == ["127.0.0.1", "192.0.2.1"]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (GET, "the connection begins with no PROXY header"),
        (b"PROXY TCP4 1.1.1.1 2.2.2.2 99999 1\r\n" + GET, "a PROXY header can't be read: b'PROXY"),
    ],
)
async def test_what_is_no_header_ends_the_connection(caplog, data, says):
    caplog.set_level(logging.INFO, "headrace.server")
    scopes = []
    async with serving(keeping(scopes), proxied=True) as server, connected(server) as client:
        await client.send(data)
        with contextlib.suppress(ConnectionError):
            assert await client.read_to_end() == b""
        await until(lambda: server.counters.refused == 1)
    assert scopes == []
    assert f"refused, proxy_header: {says}" in caplog.text


async def test_a_proxy_takes_its_time(caplog):
    caplog.set_level(logging.INFO, "headrace.server")
    settings = {"proxied": True, "proxy_protocol": ProxyProtocol(timeout_s=0.2)}
    async with serving(keeping([]), **settings) as server, connected(server) as client:
        await client.send(V1[:20])
        assert await client.read_to_end() == b""
    said = "arrival_timeout: no PROXY header was said in time (see --proxy-protocol)"
    assert said in caplog.text


@pytest.mark.parametrize("said", [V1[:20], V1])
async def test_the_header_and_the_handshake_have_a_time_each(tmp_path, caplog, said):
    caplog.set_level(logging.INFO, "headrace.server")
    files = Authority(tmp_path).issue()
    whole = said is V1
    # Neither may use up the time of the other.
    settings = {
        "proxied": True,
        "proxy_protocol": ProxyProtocol(timeout_s=60.0 if whole else 0.2),
        "tls": Tls(
            certificate=files.certificate,
            key=files.key,
            handshake_timeout_s=0.2 if whole else 60.0,
        ),
    }
    async with serving(keeping([]), **settings) as server, connected(server) as client:
        await client.send(said)
        async with asyncio.timeout(TIMEOUT_S):
            assert await client.read_to_end() == b""
    option = "--tls-handshake-timeout" if whole else "--proxy-protocol"
    assert f"in time (see {option})" in caplog.text


@pytest.mark.parametrize("data", [b"", V1[:20]])
async def test_a_health_check_that_says_nothing_is_no_matter(data, caplog):
    caplog.set_level(logging.INFO, "headrace.server")
    async with serving(keeping([]), proxied=True) as server, connected(server) as client:
        await client.send(data)
        client.end()
        assert await client.read_to_end() == b""
        assert server.counters.refused == 0
    assert "refused" not in caplog.text


async def test_a_proxy_that_resets_its_connection():
    async with (
        serving(keeping([]), proxied=True) as server,
        connected(server) as client,
    ):
        await client.send(V1[:20])
        await until(lambda: runtime_of(server).connections)
        client.reset()
        await until(lambda: not runtime_of(server).connections)


async def test_only_our_proxies_are_let_in(caplog, monkeypatch):
    caplog.set_level(logging.INFO, "headrace.server")
    # Every address of this host is believed: here, some other host's stands in for one.
    monkeypatch.setattr("headrace.server.proxy_protocol.LOOPBACK", ("::1/128",))
    stranger, proxy = ProxyProtocol(), ProxyProtocol(trusted=["127.0.0.0/8"])
    async with serving(keeping([]), proxied=True, proxy_protocol=stranger) as server:
        async with connected(server) as client:
            with contextlib.suppress(ConnectionError):
                await client.send(V1 + GET)
                assert await client.read_to_end() == b""
        assert server.counters.refused == 1
    assert "refused, proxy_untrusted: only proxies may connect here (see --trusted-p" in caplog.text
    async with (
        serving(keeping([]), proxied=True, proxy_protocol=proxy) as server,
        connected(server) as client,
    ):
        assert (await client.request(V1 + GET)).status == 200


def test_whose_word_is_taken():
    proxies = ProxyProtocol(trusted=["10.0.0.0/8", "192.0.2.7"])
    for believed in [("127.0.0.1", 1), ("::1", 1), ("10.9.9.9", 1), ("192.0.2.7", 1)]:
        assert proxies.believes(believed)
    assert proxies.believes(("::ffff:10.0.0.1", 1))
    assert not proxies.believes(("192.0.2.8", 1))
    # A Unix socket: its file says who may.
    assert proxies.believes(None)
    assert proxies.believes(("/run/proxy", None))
    assert ProxyProtocol(trusted=["*"]).believes(("192.0.2.8", 1))
    with pytest.raises(ConfigurationError, match="a trusted proxy is an address, a network or"):
        ProxyProtocol(trusted=["here"])


async def test_headers_are_believed_of_proxies_that_the_header_names():
    scopes = []
    headers = "X-Forwarded-For: 203.0.113.9", "X-Forwarded-Proto: https"
    settings = {"proxied": True, "proxy_headers": ProxyHeaders(trusted=["192.0.2.1"])}
    async with serving(keeping(scopes), **settings) as server:
        async with connected(server) as client:
            await client.send(V1)
            await client.get("/", *headers)
        async with connected(server) as client:
            await client.send(V1.replace(b"192.0.2.1", b"192.0.2.3"))
            await client.get("/", *headers)
    assert [scope["client"][0] for scope in scopes] == ["203.0.113.9", "192.0.2.3"]
    assert [scope["scheme"] for scope in scopes] == ["https", "http"]


async def test_a_stop_waits_for_a_header_no_longer_than_for_a_request():
    async with (
        serving(keeping([]), proxied=True, shutdown_timeout_s=60.0) as server,
        connected(server) as silent,
        connected(server) as slow,
    ):
        await slow.send(V1[:20])
        await until(lambda: len(runtime_of(server).connections) == 2)
        async with asyncio.timeout(TIMEOUT_S):
            await server.stop()
        for client in (silent, slow):
            assert await client.read_to_end() == b""


def test_the_configuration_says_it_of_the_first_place():
    first, second = Config(proxied=True, also=[Endpoint(port=1)]).endpoints()
    assert (first.proxy_protocol, second.proxy_protocol) == (True, False)


async def test_the_limits_by_address_are_those_of_the_client(caplog):
    caplog.set_level(logging.INFO, "headrace.server")
    clients = ClientLimits(connections_per_address=1, shared_networks=())
    async with (
        serving(keeping([]), proxied=True, clients=clients) as server,
        connected(server) as first,
        connected(server) as other,
    ):
        assert (await first.request(V1 + GET)).status == 200
        more = V1.replace(b"192.0.2.1", b"192.0.2.3")
        assert (await other.request(more + GET)).status == 200
        async with connected(server) as second:
            assert (await second.request(V1 + GET)).status == 429
    assert "192.0.2.1:51234" in caplog.text


async def test_who_has_chosen_http2_is_turned_away_without_words_of_http1(tmp_path, caplog):
    caplog.set_level(logging.INFO, "headrace.server")
    authority = Authority(tmp_path)
    files = authority.issue()
    tls = Tls(certificate=files.certificate, key=files.key)
    context = trusting(authority)
    context.set_alpn_protocols(["h2"])
    clients = ClientLimits(connections_per_address=1, shared_networks=())

    def come(port, sockets):
        sock = socket.create_connection(("127.0.0.1", port), TIMEOUT_S)
        sock.sendall(V1)
        sockets.append(context.wrap_socket(sock, server_hostname="localhost"))
        assert sockets[-1].selected_alpn_protocol() == "h2"
        return sockets[-1]

    sockets: list[ssl.SSLSocket] = []
    async with serving(keeping([]), proxied=True, tls=tls, clients=clients) as server:
        first = await asyncio.to_thread(come, server.port, sockets)
        assert await asyncio.to_thread(first.recv, 9), "its SETTINGS"
        second = await asyncio.to_thread(come, server.port, sockets)
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            assert await asyncio.to_thread(second.recv, 100) == b""
        assert server.counters.refusals["connections_per_address"].value == 1
        for sock in sockets:
            sock.close()
    assert "192.0.2.1:51234: refused, connections_per_address" in caplog.text
