"""HTTP/2 over TLS: it is agreed upon by ALPN, and a browser opens its WebSockets through it."""

import asyncio
import ssl

import httpx
import pytest
from playwright.async_api import async_playwright

from headrace.server.tls import Tls
from tests.chromium import chromium

from .certificates import Authority
from .clients import echo, respond, runtime_of, serving, until
from .h2_client import H2Client


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def tls(authority):
    files = authority.issue("localhost")
    return Tls(certificate=files.certificate, key=files.key)


def trusting(authority, *protocols):
    context = ssl.create_default_context(cafile=authority.file)
    context.set_alpn_protocols(list(protocols))
    return context


async def tells(scope, receive, send):
    line = f"{scope['http_version']} {scope['scheme']} {scope['extensions']['tls']['tls_version']}"
    await respond(send, line.encode())


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [(("h2", "http/1.1"), "h2"), (("http/1.1",), "http/1.1"), ((), None)],
)
async def test_clients_choose(authority, tls, offered, chosen):
    async with serving(tells, tls=tls) as server:
        reader, writer = await asyncio.open_connection(
            "localhost", server.port, ssl=trusting(authority, *offered)
        )
        assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == chosen
        client = type("Speaker", (), {"reader": reader})()
        client.send = lambda data: (writer.write(data), writer.drain())[1]
        if chosen == "h2":
            speaker = await H2Client(client).start()
            assert (await speaker.get().answer()).body.startswith(b"2 https ")
        else:
            await client.send(b"GET / HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")
            assert b"\r\n\r\n1.1 https " in await reader.read()
        writer.close()
        await writer.wait_closed()


async def test_off_is_not_offered(authority, tls):
    async with serving(tells, tls=tls, http2="off") as server:
        _, writer = await asyncio.open_connection(
            "localhost", server.port, ssl=trusting(authority, "h2", "http/1.1")
        )
        assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
        writer.close()
        await writer.wait_closed()


async def test_httpx_over_tls(authority, tls):
    async with serving(echo, tls=tls) as server:
        verify = ssl.create_default_context(cafile=authority.file)
        async with httpx.AsyncClient(http2=True, verify=verify) as client:
            url = f"https://localhost:{server.port}/"
            responses = await asyncio.gather(
                *(client.post(url, content=bytes(size)) for size in (10, 300_000, 1_000_000))
            )
        assert [len(response.content) for response in responses] == [10, 300_000, 1_000_000]
        assert {response.http_version for response in responses} == {"HTTP/2"}
        assert server.counters.connections == 1


async def test_the_connection_ends_as_tls_should(authority, tls):
    async with serving(tells, tls=tls) as server:
        reader, writer = await asyncio.open_connection(
            "localhost", server.port, ssl=trusting(authority, "h2")
        )
        writer.write(b"not HTTP/2 at all, and long enough to be sure of it")
        answer = await reader.read()
        # SETTINGS may stand before it; the GOAWAY is there, whole, and says why.
        assert b"the preface of HTTP/2 is malformed" in answer
        writer.close()
        await writer.wait_closed()


TALK = """async ([url, count]) => {
    const open = () => new Promise((resolve, reject) => {
        const socket = new WebSocket(url);
        socket.onopen = () => resolve(socket);
        socket.onerror = reject;
    });
    const sockets = [];
    for (let at = 0; at < count; at++) sockets.push(await open());
    const say = (socket, text) => new Promise((resolve) => {
        socket.onmessage = (event) => resolve(event.data);
        socket.send(text);
    });
    const large = "x".repeat(300000);
    const heard = await Promise.all(sockets.map((socket, at) => say(socket, large + at)));
    const whole = heard.every((text, at) => text === large + at);
    const closed = await Promise.all(sockets.map((socket) => new Promise((resolve) => {
        socket.onclose = (event) => resolve([event.code, event.wasClean]);
        socket.close(4000, "enough");
    })));
    const page = await (await fetch("/body", {method: "POST", body: "over it, too"})).text();
    return [whole, closed, page];
}"""


@pytest.mark.browser
async def test_chromium_opens_ten_websockets_over_one_connection(tls):
    versions = []
    codes = []

    async def application(scope, receive, send):
        versions.append((scope["type"], scope["http_version"], scope["scheme"]))
        if scope["path"] == "/":
            headers = [(b"content-type", b"text/html")]
            await respond(send, b"<!doctype html><title>here</title>", headers=headers)
        elif scope["type"] == "http":
            await echo(scope, receive, send)
        else:
            await receive()
            await send({"type": "websocket.accept"})
            while (message := await receive())["type"] == "websocket.receive":
                await send({**message, "type": "websocket.send"})
            codes.append(message["code"])

    async with (
        async_playwright() as playwright,
        await playwright.chromium.launch(
            executable_path=chromium(),
            args=["--no-sandbox", "--ignore-certificate-errors"],
        ) as browser,
        serving(application, tls=tls) as server,
    ):
        page = await browser.new_page(ignore_https_errors=True)
        await page.goto(f"https://localhost:{server.port}/")
        before = server.counters.connections
        url = f"wss://localhost:{server.port}/ws"
        whole, closed, body = await page.evaluate(TALK, [url, 10])
        assert whole
        assert closed == [[4000, True]] * 10
        assert body == "over it, too"
        # One connection, which was there before: all ten are streams of it.
        assert server.counters.connections == before
        assert server.counters.websockets == 10
        assert [seen for seen in versions if seen[0] == "websocket"] == [
            ("websocket", "2", "wss")
        ] * 10
        assert {version for _, version, _ in versions} == {"2"}
        await until(lambda: codes == [4000] * 10)
        [connection] = [c for c in runtime_of(server).connections if c.protocol == "http/2"]
        assert connection.received_bytes > 10 * 300
        await page.close()


@pytest.mark.browser
async def test_chromium_is_refused_a_websocket_by_the_application(tls):
    async def application(scope, receive, send):
        if scope["type"] == "http":
            await respond(send, b"page")
        else:
            await receive()
            await send({"type": "websocket.close"})

    refused = """(url) => new Promise((resolve) => {
        const socket = new WebSocket(url);
        socket.onclose = (event) => resolve(event.code);
    })"""
    async with (
        async_playwright() as playwright,
        await playwright.chromium.launch(
            executable_path=chromium(),
            args=["--no-sandbox", "--ignore-certificate-errors"],
        ) as browser,
        serving(application, tls=tls) as server,
    ):
        page = await browser.new_page(ignore_https_errors=True)
        await page.goto(f"https://localhost:{server.port}/")
        assert await page.evaluate(refused, f"wss://localhost:{server.port}/ws") == 1006
        # The connection goes on.
        assert await page.evaluate("async () => (await fetch('/')).status") == 200
        await page.close()
