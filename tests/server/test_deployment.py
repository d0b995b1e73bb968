"""The configurations of the page about deployment, in front of a real server."""

import asyncio
import contextlib
import os
import re
import shutil
import socket
import subprocess
import tomllib
from pathlib import Path

import pytest

from headrace.cli import parser
from headrace.instruments import conditions
from headrace.layers import InMemoryChannelLayer
from headrace.server.proxy import ProxyHeaders
from headrace.server.settings import resolve
from headrace.server.tls import Tls
from tests.documented import DOCS, documented

from .certificates import Authority
from .clients import PING, PONG, TIMEOUT_S, handshake, serving
from .test_tls import keeping, secure, trusting

PAGE = (DOCS / "deployment.md").read_text()
# Each of these starts a process of its own: one loop is enough.
in_one_loop = pytest.mark.asyncio(loop_factories=["uvloop"])


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def test_a_host_may_leave_its_balancer_with_its_layer(monkeypatch):
    documented("deployment.md")
    assert conditions.unmet() is None
    lost = property(lambda layer: "the channel layer has no connection to Redis")
    monkeypatch.setattr(InMemoryChannelLayer, "unready", lost)
    assert conditions.unmet() == "the channel layer has no connection to Redis"


def replaced(text, *pairs):
    for old, new in pairs:
        assert old in text, old
        text = text.replace(old, new)
    return text


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path)


@pytest.fixture
def files(authority):
    return authority.issue()


@pytest.fixture
def static(tmp_path):
    folder = tmp_path / "static"
    folder.mkdir()
    (folder / "style.css").write_text("/* from a file */")
    return folder


@pytest.fixture
def port():
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


@contextlib.asynccontextmanager
async def running(port, *command):
    """Run a proxy until the block ends; it has a port."""
    program = shutil.which(command[0], path=f"{os.environ['PATH']}:/usr/sbin")
    assert program, f"{command[0]} is not installed: tools/test-packages does it"
    process = await asyncio.create_subprocess_exec(
        program, *command[1:], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    said = asyncio.ensure_future(process.stdout.read())
    try:
        async with asyncio.timeout(TIMEOUT_S):
            while True:
                assert not said.done(), said.result().decode()
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.close()
                    break
                await asyncio.sleep(0.02)
        yield
    finally:
        if process.returncode is None:
            process.terminate()
        async with asyncio.timeout(TIMEOUT_S):
            await said
            await process.wait()


def nginx(tmp_path, inside):
    """Write a configuration around what the page has."""
    modules = Path("/usr/lib/nginx/modules/ngx_stream_module.so")
    path = tmp_path / "nginx.conf"
    path.write_text(
        f"{f'load_module {modules};' if 'stream {' in inside else ''}\n"
        f"{'user root;' if os.geteuid() == 0 else ''} daemon off;\n"
        f"pid {tmp_path}/nginx.pid; error_log stderr;\n"
        f"events {{ worker_connections 64; }}\n{inside}\n"
    )
    return "nginx", "-p", str(tmp_path), "-c", str(path), "-e", "stderr"


def temporary(tmp_path):
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    return "access_log off;" + "".join(f"{kind}_temp_path {tmp_path}/{kind};" for kind in kinds)


def get(client, target):
    return client.request(f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())


async def speaks(port, authority, scopes):
    """See that requests and WebSockets get through, and from where they are said to come."""
    async with secure(port, trusting(authority)) as client:
        response = await client.request(
            b"POST /some/path HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello"
        )
        assert (response.status, response.body) == (200, b"hello")
        # A second one by the same connection, and by the proxy's.
        assert (await get(client, "/second")).status == 200
    async with secure(port, trusting(authority)) as client:
        request = handshake("/ws/").replace(b"Host: here", b"Host: localhost")
        assert (await client.request(request)).status == 101
        await client.send_text("x" * 100_000)
        assert await client.read_text() == "x" * 100_000
        # It is quiet for longer than the proxy waits; the server's pings keep it.
        for _ in range(5):
            opcode, payload = await client.read_frame()
            assert opcode == PING
            await client.send_frame(PONG, payload)
        await client.send_text("still there")
        assert await client.read_text() == "still there"
        await client.send_close()
        await client.read_close()
    http, second, websocket = scopes
    assert (http["scheme"], second["scheme"], websocket["scheme"]) == ("https", "https", "wss")
    assert {scope["client"][0] for scope in scopes} == {"127.0.0.1"}
    return http


BEHIND = {"proxy_headers": ProxyHeaders(), "ping_interval_s": 0.3}


@in_one_loop
async def test_behind_nginx(tmp_path, authority, files, static, port):
    [page] = blocks("nginx")
    inside = replaced(
        page,
        ("/run/mysite/mysite.sock", f"{tmp_path}/mysite.sock"),
        ("listen 443", f"listen 127.0.0.1:{port}"),
        ("mysite.example", "localhost"),
        ("/etc/ssl/mysite/fullchain.pem", files.certificate),
        ("/etc/ssl/mysite/privkey.pem", files.key),
        ("/srv/mysite/static/", f"{static}/"),
        ("proxy_read_timeout 60s", "proxy_read_timeout 1s"),
    )
    command = nginx(tmp_path, f"http {{ {temporary(tmp_path)} {inside} }}")
    scopes = []
    async with (
        serving(keeping(scopes), uds=str(tmp_path / "mysite.sock"), **BEHIND),
        running(port, *command),
    ):
        http = await speaks(port, authority, scopes)
        assert dict(http["headers"])[b"host"] == b"localhost"
        async with secure(port, trusting(authority)) as client:
            assert (await get(client, "/static/style.css")).body == b"/* from a file */"


@in_one_loop
async def test_behind_caddy(tmp_path, authority, files, static, port, monkeypatch):
    [page] = blocks("caddyfile")
    inside = replaced(
        page,
        (
            "mysite.example {",
            f"https://localhost:{port} {{\n    tls {files.certificate} {files.key}",
        ),
        ("//run/mysite/mysite.sock", f"/{tmp_path}/mysite.sock"),
        ("/srv/mysite/static", str(static)),
    )
    path = tmp_path / "Caddyfile"
    path.write_text(f"{{\n    admin off\n    auto_https disable_redirects\n}}\n{inside}")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    scopes = []
    command = "caddy", "run", "--config", str(path), "--adapter", "caddyfile"
    async with (
        serving(keeping(scopes), uds=str(tmp_path / "mysite.sock"), **BEHIND),
        running(port, *command),
    ):
        await speaks(port, authority, scopes)
        async with secure(port, trusting(authority)) as client:
            assert (await get(client, "/static/style.css")).body == b"/* from a file */"


@in_one_loop
@pytest.mark.parametrize("balancer", ["haproxy", "nginx-stream"])
async def test_behind_a_balancer_of_connections(tmp_path, authority, files, port, balancer, caplog):
    [page] = blocks(balancer)
    tls = Tls(certificate=files.certificate, key=files.key)
    scopes = []
    async with serving(keeping(scopes), tls=tls, proxied=True, ping_interval_s=0.3) as server:
        backend = f"127.0.0.1:{server.port}"
        if balancer == "haproxy":
            inside = replaced(
                page,
                ("bind :443", f"bind 127.0.0.1:{port}"),
                ("127.0.0.1:8443", backend),
                ("send-proxy-v2 check", "send-proxy-v2 check inter 100"),
            )
            path = tmp_path / "haproxy.cfg"
            path.write_text(inside)
            command = "haproxy", "-db", "-f", str(path)
        else:
            inside = replaced(
                page, ("listen 443", f"listen 127.0.0.1:{port}"), ("127.0.0.1:8443", backend)
            )
            command = nginx(tmp_path, f"stream {{ {inside} }}")
        async with running(port, *command):
            async with secure(port, trusting(authority)) as client:
                assert (await client.get()).status == 200
                own = client.sock.getsockname()
            assert scopes.pop()["client"] == own
            http = await speaks(port, authority, scopes)
            # By PROXY header it is the balancer's own address that the client asked for.
            assert http["server"] == ("127.0.0.1", port)
            # Its own look at whether the connection can be had is no matter.
            if balancer == "haproxy":
                counted = server.counters.refused
                await asyncio.sleep(0.3)
                assert server.counters.refused == counted == 0


def test_the_commands_of_containers_and_units_are_commands(monkeypatch):
    monkeypatch.chdir("/")
    [docker] = blocks("dockerfile")
    [command] = re.findall(r"^CMD (\[.*\])$", docker, re.MULTILINE)
    [variables] = re.findall(r"^ENV (.*)$", docker, re.MULTILINE)
    arguments = tomllib.loads(f"command = {command}")["command"]
    environment = dict(pair.split("=") for pair in variables.split())
    found = resolve(parser().parse_args(arguments[1:]), environment)
    assert found["bind"] == "0.0.0.0"
    assert found["health-path"] == "/-/health"
    assert found["trusted-proxies"] == ("10.0.0.0/8",)
    service, unit = blocks("systemd")
    [line] = re.findall(r"^ExecStart=\S+/headrace (.*)$", service, re.MULTILINE)
    found = resolve(parser().parse_args(line.split()), {})
    assert found["proxy-headers"]
    # Shorter than what systemd waits.
    [stop] = re.findall(r"^TimeoutStopSec=(\d+)$", service, re.MULTILINE)
    assert found["shutdown-timeout"] < int(stop)
    assert f"Backlog={found['backlog']}" in unit
