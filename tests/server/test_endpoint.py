"""Places to listen, and the words that Twisted has for them."""

import os
import stat

import pytest

from headrace.exceptions import ConfigurationError
from headrace.server.endpoint import Endpoint
from headrace.server.tls import Tls

from .clients import connected, hello, serving


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("tcp:8000", Endpoint(host="0.0.0.0", port=8000)),
        ("tcp:port=8000", Endpoint(host="0.0.0.0", port=8000)),
        ("tcp:8000:interface=127.0.0.1", Endpoint(host="127.0.0.1", port=8000)),
        ("tcp:8000:127.0.0.1:10", Endpoint(host="127.0.0.1", port=8000)),
        (r"tcp:8000:interface=\:\:1:backlog=9", Endpoint(host="::1", port=8000)),
        ("tcp6:8000", Endpoint(host="::", port=8000)),
        ("unix:/run/a.sock", Endpoint(uds="/run/a.sock", uds_mode=0o666)),
        ("unix:address=/run/a.sock:mode=660", Endpoint(uds="/run/a.sock", uds_mode=0o660)),
        (r"unix:/run/a\:b.sock:lockfile=0", Endpoint(uds="/run/a:b.sock", uds_mode=0o666)),
        ("fd:fileno=4", Endpoint(fd=4)),
        ("fd:4", Endpoint(fd=4)),
        ("systemd:domain=INET:index=1", Endpoint(fd=4)),
        (
            "ssl:443:privateKey=key.pem:certKey=crt.pem:interface=127.0.0.1",
            Endpoint(port=443, tls=Tls(certificate="crt.pem", key="key.pem")),
        ),
        ("haproxy:tcp:80", Endpoint(host="0.0.0.0", port=80, proxy_protocol=True)),
        (
            "ssl:443:both.pem",
            Endpoint(host="0.0.0.0", port=443, tls=Tls(certificate="both.pem", key="both.pem")),
        ),
    ],
)
def test_what_twisted_writes(text, endpoint):
    assert Endpoint.from_twisted(text) == endpoint


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("ssl:443:privateKey=a:certKey=b:extraCertChain=c", "append it to the certificate"),
        ("ssl:443:privateKey=a:certKey=b:dhParameters=c", "can't be read: "),
        ("ssl:443", "privateKey=FILE"),
        ("le:/certs:tcp\\:443", "can't be had: certificates are got and renewed by a program"),
        ("onion:80", "can't be had: write tcp:PORT"),
        ("", "can't be had: write tcp:PORT"),
        ("tcp", "can't be read: "),
        ("tcp:http", "invalid literal for int"),
        ("tcp:99999", "port must be from 0 to 65535"),
        ("tcp:80:nterface=::1", "can't be read: "),
        ("unix:/a:mode=9", "can't be read: invalid literal"),
        ("unix:/a:mode=7777", "uds_mode must be from 0o0 to 0o777"),
    ],
)
def test_what_can_not_be_had(text, says):
    with pytest.raises(ConfigurationError) as caught:
        Endpoint.from_twisted(text)
    assert says in str(caught.value)


def test_its_name():
    assert str(Endpoint()) == "127.0.0.1 port 8000"
    assert str(Endpoint(uds="/run/a.sock")) == "/run/a.sock"
    assert str(Endpoint(fd=4)) == "file descriptor 4"


async def test_a_server_listens_at_all_of_them(tmp_path):
    paths = [str(tmp_path / name) for name in ("a.sock", "b.sock")]
    also = [Endpoint(uds=paths[0], uds_mode=0o660), Endpoint(uds=paths[1]), Endpoint(port=0)]
    before = os.umask(0o077)
    try:
        async with serving(hello, also=also) as server:
            assert len(server.addresses) == 4
            for address in (server, *paths, ("127.0.0.1", int(server.addresses[3].split(":")[2]))):
                async with connected(address) as client:
                    assert (await client.get()).body == b"hello"
            modes = [stat.S_IMODE(os.stat(path).st_mode) for path in paths]
            assert modes == [0o660, 0o700]
    finally:
        os.umask(before)
    assert list(tmp_path.iterdir()) == []


async def test_a_place_that_can_not_be_had_keeps_none_of_the_others(tmp_path):
    path = str(tmp_path / "a.sock")
    with pytest.raises(ConfigurationError, match="cannot listen on /no/such/a"):
        async with serving(hello, uds=path, also=[Endpoint(uds="/no/such/a.sock")]):
            pass
    assert list(tmp_path.iterdir()) == []


async def test_a_server_without_tcp_has_no_port(tmp_path):
    async with serving(hello, uds=str(tmp_path / "a.sock")) as server:
        with pytest.raises(RuntimeError, match="listens on no TCP port"):
            _ = server.port
