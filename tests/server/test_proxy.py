"""Where a request came from: what the proxies say, and what they only pass on."""

import json

import pytest

from headrace.exceptions import ConfigurationError
from headrace.server.proxy import ProxyHeaders

from .clients import connected, respond, serving

HERE = ("127.0.0.1", 1)
PROXY = ("10.0.0.1", 2)
STRANGER = ("203.0.113.9", 3)


def origin(*lines, peer=HERE, **settings):
    headers = [
        (name.encode(), value.encode("latin-1"))
        for name, value in (line.split(": ", 1) for line in lines)
    ]
    return ProxyHeaders(**settings).origin(headers, peer)


# In order: the hops, the client


@pytest.mark.parametrize(
    ("hops", "client"),
    [
        (["198.51.100.7"], ("198.51.100.7", 0)),
        (["198.51.100.7:5000"], ("198.51.100.7", 5000)),
        (["2001:db8::7"], ("2001:db8::7", 0)),
        (["[2001:db8::7]"], ("2001:db8::7", 0)),
        (['"[2001:db8::7]:5000"'], ("2001:db8::7", 5000)),
        (["::ffff:198.51.100.7"], ("198.51.100.7", 0)),
        # What stands left of the right-most stranger, he may have written himself.
        (["192.0.2.66, 198.51.100.7"], ("198.51.100.7", 0)),
        (["127.0.0.1, 198.51.100.7"], ("198.51.100.7", 0)),
        (["192.0.2.66", "198.51.100.7"], ("198.51.100.7", 0)),
        # Our own proxies are passed by.
        (["192.0.2.66, 198.51.100.7, 10.0.0.2,127.0.0.1"], ("198.51.100.7", 0)),
        (["10.0.0.3, 10.0.0.2"], ("10.0.0.3", 0)),
        # What is no address says nothing, and neither does what is left of it.
        (["unknown"], HERE),
        (["_hidden, _secret"], HERE),
        (["198.51.100.7, <script>"], HERE),
        (["198.51.100.7, unknown, 10.0.0.2"], ("10.0.0.2", 0)),
        (["198.51.100.7:99999"], ("198.51.100.7", 0)),
        (["198.51.100.7:port"], HERE),
        (["198.51.100.7 203.0.113.9"], HERE),
        (["[198.51.100.7"], HERE),
        (["\xb9.2.3.4"], HERE),
        (["fe80::1%eth0"], HERE),
        (["[fe80::1%\xa0" + "x" * 9000 + "]"], HERE),
        (["198.51.100.7:\xb9"], HERE),
        ([""], HERE),
        ([","], HERE),
        ([], HERE),
        (["192.0.2.66," + "10.0.0.2," * 60 + "10.0.0.2"], ("10.0.0.2", 0)),
    ],
)
def test_the_client_is_the_last_hop_that_is_not_ours(hops, client):
    lines = [f"x-forwarded-for: {value}" for value in hops]
    assert origin(*lines, trusted=["10.0.0.0/8"])[0] == client


@pytest.mark.parametrize(
    ("port", "known"),
    [("5000", 5000), ("x", 0), ("-1", 0), ("65536", 0), ("9" * 5000, 0), ("\xb2", 0), ("", 0)],
)
def test_the_port_of_the_client(port, known):
    line = f"x-forwarded-port: {port}"
    assert origin("x-forwarded-for: 198.51.100.7", line)[0] == ("198.51.100.7", known)
    assert origin("x-forwarded-for: 198.51.100.7:6", line)[0] == ("198.51.100.7", 6)
    # A port alone is of nobody.
    assert origin(line)[0] == HERE


@pytest.mark.parametrize(
    ("lines", "scheme"),
    [
        (["x-forwarded-proto: https"], "https"),
        (["x-forwarded-proto: HTTPS "], "https"),
        (["x-forwarded-proto: wss"], "https"),
        (["x-forwarded-proto: http"], "http"),
        (["x-forwarded-proto: gopher"], "http"),
        (["x-forwarded-proto: "], "http"),
        ([], "http"),
        # One for each hop: that of the client counts.
        (["x-forwarded-for: 1.2.3.4, 10.0.0.2", "x-forwarded-proto: https, http"], "https"),
        (["x-forwarded-for: 6.6.6.6, 1.2.3.4", "x-forwarded-proto: https, http"], "http"),
        (["x-forwarded-for: 1.2.3.4", "x-forwarded-proto: https, http"], "http"),
        (["x-forwarded-for: x, y", "x-forwarded-proto: https, https"], "http"),
        (["x-forwarded-proto: https", "x-forwarded-proto: https"], "http"),
    ],
)
def test_the_scheme(lines, scheme):
    assert origin(*lines, trusted=["10.0.0.0/8"])[1] == scheme


FORGED = ("x-forwarded-for: 198.51.100.7", "x-forwarded-port: 4", "x-forwarded-proto: https")


@pytest.mark.parametrize("peer", [STRANGER, PROXY, ("no-address", 1), ("::ffff:10.0.0.1", 1)])
def test_a_stranger_is_not_believed(peer):
    assert origin(*FORGED, peer=peer) == (peer, "http")


@pytest.mark.parametrize(
    ("peer", "trusted"),
    [
        (HERE, []),
        (("127.8.8.8", 1), []),
        (("::1", 1), []),
        (("::ffff:127.0.0.1", 1), []),
        (None, []),
        (("/run/a.sock", None), []),
        (PROXY, ["10.0.0.1"]),
        (PROXY, ["192.0.2.0/24", "10.0.0.0/8"]),
        (("::ffff:10.0.0.1", 1), ["10.0.0.0/8"]),
        (("2001:db8::1", 1), ["2001:db8::/32"]),
        (STRANGER, ["*"]),
    ],
)
def test_a_proxy_of_ours_is_believed(peer, trusted):
    assert origin(*FORGED, peer=peer, trusted=trusted) == (("198.51.100.7", 4), "https")


def test_where_everybody_is_believed_the_first_hop_is_the_client():
    client, _ = origin("x-forwarded-for: 192.0.2.66, 198.51.100.7", peer=STRANGER, trusted=["*"])
    assert client == ("192.0.2.66", 0)


def test_other_names():
    settings = {"address": "X-Real-IP", "port": "X-Real-Port", "scheme": "X-Scheme"}
    real = ("x-real-ip: 1.2.3.4", "x-real-port: 5", "x-scheme: https")
    assert origin(*FORGED, **settings) == (HERE, "http")
    assert origin(*FORGED, *real, **settings) == (("1.2.3.4", 5), "https")


@pytest.mark.parametrize("text", ["", "localhost", "10.0.0.0/33", "10.0.0.1/8", "10.0.0.*"])
def test_what_is_no_network(text):
    with pytest.raises(ConfigurationError, match="a trusted proxy is an address, a network or"):
        ProxyHeaders(trusted=[text])


# On a socket


async def told(scope, receive, send):
    """Answer with what the scope says of the client."""
    text = json.dumps([scope["client"], scope["scheme"]])
    if scope["type"] == "http":
        await respond(send, text.encode())
    else:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": text})
        await receive()


LINES = ("X-Forwarded-For: 192.0.2.66, 198.51.100.7", "X-Forwarded-Proto: https")


async def test_requests_of_one_connection_come_from_different_clients(caplog):
    caplog.set_level("INFO", "headrace.access")
    async with serving(told, proxy_headers=ProxyHeaders()) as server, connected(server) as client:
        port = client.sock.getsockname()[1]
        bodies = [(await client.get("/", *lines)).body for lines in (LINES, (), LINES)]
    forwarded = [["198.51.100.7", 0], "https"]
    assert [json.loads(body) for body in bodies] == [
        forwarded,
        [["127.0.0.1", port], "http"],
        forwarded,
    ]
    peers = [record.args[0] for record in caplog.records]
    assert peers == ["198.51.100.7:0", f"127.0.0.1:{port}", "198.51.100.7:0"]


async def test_a_websocket_comes_from_its_client(caplog):
    caplog.set_level("INFO", "headrace.access")
    async with serving(told, proxy_headers=ProxyHeaders()) as server, connected(server) as client:
        await client.open_websocket("/", *LINES)
        assert json.loads(await client.read_text()) == [["198.51.100.7", 0], "wss"]
    assert caplog.records[0].args[0] == "198.51.100.7:0"


async def test_a_handshake_that_is_refused_names_its_client(caplog):
    caplog.set_level("INFO", "headrace.access")
    async with serving(told, proxy_headers=ProxyHeaders()) as server, connected(server) as client:
        assert (await client.get("/", "Sec-WebSocket-Key: x", *LINES)).status == 426
    assert caplog.records[-1].args[0] == "198.51.100.7:0"


async def test_over_a_unix_socket(tmp_path):
    path = str(tmp_path / "a.sock")
    async with serving(told, uds=path, proxy_headers=ProxyHeaders()), connected(path) as client:
        response = await client.get("/", *LINES)
        assert json.loads(response.body) == [["198.51.100.7", 0], "https"]


async def test_without_the_setting_nobody_is_believed():
    async with serving(told) as server, connected(server) as client:
        client_address = list(client.sock.getsockname())
        assert json.loads((await client.get("/", *LINES)).body) == [client_address, "http"]
