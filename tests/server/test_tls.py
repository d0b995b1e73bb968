"""TLS with real handshakes: what is spoken, who is let in, and what the application hears of it."""

import asyncio
import contextlib
import logging
import os
import re
import signal
import socket
import ssl
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from headrace.exceptions import ConfigurationError
from headrace.protocols.http1 import Http1Limits
from headrace.server import tls as tls_room
from headrace.server.endpoint import Endpoint
from headrace.server.limits import ClientLimits
from headrace.server.outbox import unwritten_bytes
from headrace.server.tls import Credentials, Tls

from .certificates import _DAY, Authority
from .clients import (
    CLOSE,
    TIMEOUT_S,
    Client,
    connected,
    connection_of,
    echo,
    frame,
    handshake,
    respond,
    runtime_of,
    serving,
    until,
)
from .test_cli import command, in_one_loop


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path)


@pytest.fixture
def files(authority):
    return authority.issue()


@pytest.fixture
def tls(files):
    return Tls(certificate=files.certificate, key=files.key)


def trusting(authority, *, maximum=None, own=None):
    context = ssl.create_default_context(cafile=authority.file)
    if maximum is not None:
        context.maximum_version = maximum
    if own is not None:
        context.load_cert_chain(*own)
    return context


@contextlib.asynccontextmanager
async def secure(server, context, **options):
    address = ("127.0.0.1", server if isinstance(server, int) else server.port)
    async with asyncio.timeout(TIMEOUT_S):
        reader, writer = await asyncio.open_connection(
            *address, ssl=context, server_hostname="localhost", **options
        )
    client = Client(reader, writer)
    try:
        yield client
    finally:
        writer.transport.abort()


def read(path):
    return Path(path).read_text()


def keeping(scopes):
    async def application(scope, receive, send):
        scopes.append(scope)
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            while (message := await receive())["type"] == "websocket.receive":
                await send({**message, "type": "websocket.send"})
        else:
            await echo(scope, receive, send)

    return application


# What is spoken


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_request(authority, files, tls, version):
    scopes = []
    async with serving(keeping(scopes), tls=tls) as server:
        assert server.url.startswith("https://127.0.0.1:")
        assert server.websocket_url.startswith("wss://127.0.0.1:")
        assert server.addresses == [server.url]
        async with secure(server, trusting(authority, maximum=version)) as client:
            assert client.writer.get_extra_info("ssl_object").selected_alpn_protocol() is None
            response = await client.request(
                b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 5\r\n\r\nhello"
            )
            assert (response.status, response.body) == (200, b"hello")
            assert (await client.get()).status == 200
            name, *_ = client.writer.get_extra_info("cipher")
        assert server.counters.tls_connections == 1
    first, second = scopes
    assert first["scheme"] == "https"
    assert first["client"][0] == "127.0.0.1"
    said = first["extensions"]["tls"]
    assert second["extensions"]["tls"] == said
    assert said["server_cert"] == read(files.certificate)
    assert said["client_cert_chain"] == []
    assert said["client_cert_name"] is None
    assert said["client_cert_error"] is None
    assert said["tls_version"] == {"TLSv1_2": 0x0303, "TLSv1_3": 0x0304}[version.name]
    # RFC 8446 B.4 and RFC 5289 §3.2.
    numbers = {"TLS_AES_256_GCM_SHA384": 0x1302, "ECDHE-ECDSA-AES256-GCM-SHA384": 0xC02C}
    assert said["cipher_suite"] == numbers[name]


async def test_a_websocket(authority, tls):
    scopes = []
    async with (
        serving(keeping(scopes), tls=tls) as server,
        secure(server, trusting(authority)) as client,
    ):
        await client.open_websocket()
        await client.send_text("x" * 100_000)
        assert await client.read_text() == "x" * 100_000
        await client.send_close()
        assert await client.read_close() == (1000, "")
        assert await client.read_to_end() == b""
    [scope] = scopes
    assert scope["scheme"] == "wss"
    assert scope["extensions"]["tls"]["tls_version"] == 0x0304


async def test_without_tls_there_is_no_extension():
    scopes = []
    async with serving(keeping(scopes)) as server, connected(server) as client:
        await client.get()
    assert "tls" not in scopes[0]["extensions"]


@pytest.mark.parametrize("http2", ["auto", "off"])
async def test_the_protocol_is_agreed_upon(authority, tls, http2):
    async with serving(keeping([]), tls=tls, http2=http2) as server:
        context = trusting(authority)
        context.set_alpn_protocols(["h2", "http/1.1"])
        async with secure(server, context) as client:
            agreed = client.writer.get_extra_info("ssl_object").selected_alpn_protocol()
            assert agreed == ("http/1.1" if http2 == "off" else "h2")
        context = trusting(authority)
        context.set_alpn_protocols(["http/1.1"])
        async with secure(server, context) as client:
            agreed = client.writer.get_extra_info("ssl_object").selected_alpn_protocol()
            assert agreed == "http/1.1"
            assert (await client.get()).status == 200


async def test_places_with_and_without_it(authority, tls, files, tmp_path):
    path = str(tmp_path / "app.sock")
    scopes = []
    also = [
        Endpoint(port=0),
        Endpoint.from_twisted(f"ssl:0:privateKey={files.key}:certKey={files.certificate}"),
        Endpoint(uds=path, tls=tls),
    ]
    async with serving(keeping(scopes), tls=tls, also=also) as server:
        kinds = [address.split(":")[0] for address in server.addresses]
        assert kinds == ["https", "http", "https", "unix"]
        ports = [int(address.rpartition(":")[2]) for address in server.addresses[:3]]
        for port in (ports[0], ports[2]):
            async with secure(port, trusting(authority)) as client:
                assert (await client.get()).status == 200
        async with connected(("127.0.0.1", ports[1])) as client:
            assert (await client.get()).status == 200
        reader, writer = await asyncio.open_unix_connection(
            path, ssl=trusting(authority), server_hostname="localhost"
        )
        assert (await Client(reader, writer).get()).status == 200
        writer.transport.abort()
    assert [scope["scheme"] for scope in scopes] == ["https", "https", "http", "https"]
    assert scopes[3]["client"] is None


# Who is let in


def in_words(kind, value):
    return x509.NameAttribute(kind, value)


async def test_a_client_with_a_certificate(authority, files, tmp_path):
    subject = x509.Name(
        [
            in_words(NameOID.COUNTRY_NAME, "CH"),
            in_words(NameOID.ORGANIZATION_NAME, "Mill, Pond & Sons"),
            in_words(NameOID.COMMON_NAME, "#1 miller "),
        ]
    )
    miller = authority.issue("miller", subject=subject)
    tls = Tls(
        certificate=files.certificate,
        key=files.key,
        client_ca=authority.file,
        client_certificates="optional",
    )
    scopes = []
    async with serving(keeping(scopes), tls=tls) as server:
        async with secure(server, trusting(authority, own=miller)) as client:
            assert (await client.get()).status == 200
        async with secure(server, trusting(authority)) as client:
            assert (await client.get()).status == 200
    known, unknown = (scope["extensions"]["tls"] for scope in scopes)
    # RFC 4514: the last attribute first, and what means something escaped.
    assert known["client_cert_name"] == r"CN=\#1 miller\ ,O=Mill\, Pond & Sons,C=CH"
    assert known["client_cert_chain"][0] == read(miller.certificate)
    assert unknown["client_cert_name"] is None
    assert unknown["client_cert_chain"] == []


@pytest.mark.parametrize(
    ("stranger", "says"),
    [
        (None, "peer did not return a certificate"),
        ("other", "certificate verify failed: self-signed certificate in certificate chain"),
        ("expired", "certificate verify failed: certificate has expired"),
    ],
)
async def test_a_client_that_has_to_have_one(authority, files, tmp_path, caplog, stranger, says):
    tls = Tls(
        certificate=files.certificate,
        key=files.key,
        client_ca=authority.file,
        client_certificates="required",
    )
    own = None
    if stranger == "other":
        (tmp_path / "other").mkdir()
        other = Authority(tmp_path / "other", "another")
        own = other.issue("stranger", chain=[other])
    elif stranger == "expired":
        own = authority.issue("stranger", ends_in=-_DAY / 2)
    caplog.set_level(logging.INFO, "headrace.server")
    scopes = []
    async with serving(keeping(scopes), tls=tls) as server:
        # With TLS 1.3 the client is done before the server has looked at its certificate.
        with pytest.raises((OSError, asyncio.IncompleteReadError)):
            async with secure(server, trusting(authority, own=own)) as client:
                await client.get()
        await until(lambda: "tls_handshake" in caplog.text)
        assert server.counters.refused == 1
    assert scopes == []
    assert re.search(rf"127.0.0.1:\d+: refused, tls_handshake: .*{says}", caplog.text)


async def test_an_old_version_is_refused(authority, files, caplog):
    caplog.set_level(logging.INFO, "headrace.server")
    tls = Tls(certificate=files.certificate, key=files.key, minimum_version="1.3")
    async with serving(keeping([]), tls=tls) as server:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            async with secure(server, trusting(authority, maximum=ssl.TLSVersion.TLSv1_2)):
                pass
        await until(lambda: "tls_handshake" in caplog.text)
    assert "unsupported protocol" in caplog.text


async def test_ciphers(authority, tmp_path):
    files = authority.issue("rsa", rsa_key=True)
    tls = Tls(certificate=files.certificate, key=files.key, ciphers="ECDHE-RSA-CHACHA20-POLY1305")
    async with serving(keeping([]), tls=tls) as server:
        context = trusting(authority, maximum=ssl.TLSVersion.TLSv1_2)
        async with secure(server, context) as client:
            assert client.writer.get_extra_info("cipher")[0] == "ECDHE-RSA-CHACHA20-POLY1305"


async def test_a_chain_leads_to_the_root(authority, tmp_path):
    between = Authority(tmp_path, "between", signed_by=authority)
    files = between.issue("leaf", chain=[between])
    async with (
        serving(keeping([]), tls=Tls(certificate=files.certificate, key=files.key)) as server,
        secure(server, trusting(authority)) as client,
    ):
        assert (await client.get()).status == 200


# What goes wrong


async def test_plain_http_gets_an_answer(tls, caplog):
    caplog.set_level(logging.INFO, "headrace.server")
    async with serving(keeping([]), tls=tls) as server:
        async with connected(server) as client:
            response = await client.get()
            assert response.status == 400
            assert response.body == b"This port speaks TLS: ask for it by https:// or wss://.\n"
            assert await client.read_to_end() == b""
        async with connected(server) as client:
            await client.send(b"\0\0\0 what else")
            with contextlib.suppress(ConnectionError):
                assert await client.read_to_end() == b""
        async with connected(server) as client:
            await client.send(b"\x16\x03\x01\xff\xff" + b"no hello " * 100)
            with contextlib.suppress(ConnectionError):
                await client.read_to_end()
        await until(lambda: server.counters.refused == 3)
    assert "tls_plain: it speaks HTTP where https:// is meant" in caplog.text
    assert "tls_plain: no TLS is spoken" in caplog.text
    assert "tls_handshake: the TLS handshake failed: " in caplog.text


async def test_tls_where_none_is_spoken_is_told_in_the_log(authority, caplog):
    caplog.set_level(logging.INFO, "headrace.server")
    async with serving(keeping([])) as server:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            async with secure(server, trusting(authority)):
                pass
        await until(lambda: "is this TLS, to a port for HTTP?" in caplog.text)
        async with connected(server) as client:
            response = await client.request(b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\n\r\n")
            assert response.status == 400
            assert b"see --proxy-protocol" in response.body


async def test_who_asks_in_plain_and_leaves_at_once(tls):
    async with serving(keeping([]), tls=tls) as server:
        for data in (b"GET / HTTP/1.1\r\n\r\n", b""):
            async with connected(server) as client:
                client.writer.write(data)
                client.reset()
        await until(lambda: server.counters.refused == 1 or not runtime_of(server).connections)


HALF_A_HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"


@pytest.mark.parametrize("said", [b"", HALF_A_HELLO])
async def test_a_handshake_that_takes_too_long(tls, files, caplog, said):
    caplog.set_level(logging.INFO, "headrace.server")
    tls = Tls(certificate=files.certificate, key=files.key, handshake_timeout_s=0.2)
    async with serving(keeping([]), tls=tls) as server:
        async with connected(server) as client:
            await client.send(said)
            with contextlib.suppress(ConnectionError):
                assert await client.read_to_end() == b""
        await until(lambda: not runtime_of(server).connections)
        assert server.counters.refused == 1
    assert "arrival_timeout: too little was said in time (see --tls-handshake-timeout)" in (
        caplog.text
    )


async def test_a_client_that_leaves_during_its_handshake(tls):
    async with (
        serving(keeping([]), tls=tls) as server,
        connected(server) as client,
    ):
        await client.send(HALF_A_HELLO)
        await until(lambda: runtime_of(server).connections)
        client.reset()
        await until(lambda: not runtime_of(server).connections)


async def test_no_more_connections_than_there_may_be(authority, tls, caplog):
    caplog.set_level(logging.INFO, "headrace.server")
    async with serving(keeping([]), tls=tls) as server:
        runtime_of(server).gate.most = 1
        async with secure(server, trusting(authority)) as client:
            assert (await client.get()).status == 200
            with pytest.raises((ssl.SSLError, ConnectionError)):
                async with secure(server, trusting(authority)):
                    pass
            assert (await client.get()).status == 200
    assert "refused, connections" in caplog.text


async def test_handshakes_that_are_never_finished_take_a_place_of_their_address(
    authority, tls, caplog
):
    caplog.set_level(logging.INFO, "headrace.server")
    clients = ClientLimits(connections_per_address=2, shared_networks=())
    async with serving(keeping([]), tls=tls, clients=clients) as server:
        async with connected(server) as first, connected(server) as second:
            await first.send(HALF_A_HELLO)
            await until(lambda: len(runtime_of(server).connections) == 2)
            async with connected(server) as third:
                with contextlib.suppress(ConnectionError):
                    assert await third.read_to_end() == b""
            second.reset()
            await until(lambda: len(runtime_of(server).connections) == 1)
            async with secure(server, trusting(authority)) as client:
                assert (await client.get()).status == 200
        await until(lambda: not runtime_of(server).connections)
        assert len(runtime_of(server).gate._places) == 0
    assert "refused, connections_per_address" in caplog.text


async def test_nothing_left_to_accept_with(authority, tls, caplog, monkeypatch):
    monkeypatch.setattr("headrace.server.arrival.PAUSE_S", 0.05)
    async with serving(keeping([]), tls=tls) as server:
        [listener] = server._listeners
        real, failures = listener._sock, [OSError(24, "too many open files")]

        class Failing:
            def accept(self):
                if failures:
                    raise failures.pop()
                return real.accept()

            def fileno(self):
                return real.fileno()

        listener._sock = Failing()
        async with secure(real.getsockname()[1], trusting(authority)) as client:
            assert (await client.get()).status == 200
        listener._sock = real
    assert "cannot accept: [Errno 24] too many open files; trying again in" in caplog.text


async def test_a_stop_while_nobody_can_be_accepted(tls):
    async with serving(keeping([]), tls=tls) as server:
        [listener] = server._listeners
        runtime_of(server).loop.remove_reader(listener._sock)
        listener._pause = runtime_of(server).loop.call_later(60, listener._go_on)
    assert listener._pause.cancelled()
    listener._go_on()
    assert listener.sockets == ()


# Much data, and none


async def test_a_large_upload(authority, tls):
    async def application(scope, receive, send):
        size = 0
        more = True
        while more:
            message = await receive()
            size += len(message["body"])
            more = message["more_body"]
        await respond(send, b"%d" % size)

    body = bytes(range(256)) * 4096
    async with (
        serving(application, tls=tls) as server,
        secure(server, trusting(authority)) as client,
    ):
        await client.send(
            b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: %d\r\n\r\n" % (len(body) * 20)
        )
        for _ in range(20):
            await client.send(body)
        assert (await client.read_response()).body == b"%d" % (len(body) * 20)


async def test_a_body_that_is_refused_is_answered(authority, tls):
    async with (
        serving(keeping([]), tls=tls, http=Http1Limits(body_bytes=10)) as server,
        secure(server, trusting(authority)) as client,
    ):
        head = b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 1000000\r\n\r\n"
        response = await client.request(head + b"x" * 100_000)
        assert response.status == 413
        assert await client.read_to_end() == b""


async def test_a_client_that_never_reads(authority, tls):
    sent, ended = [], asyncio.Event()

    async def application(scope, receive, send):
        await send({"type": "http.response.start", "status": 200})
        try:
            while True:
                await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
                sent.append(65536)
        except OSError:
            ended.set()
            raise

    async with serving(application, tls=tls, write_timeout_s=0.5) as server:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", server.port))
        _, writer = await asyncio.open_connection(
            sock=sock, ssl=trusting(authority), server_hostname="localhost", limit=1024
        )
        writer.transport.pause_reading()
        writer.write(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
        async with asyncio.timeout(TIMEOUT_S):
            await ended.wait()
        # The kernel's buffers and ours, and no more.
        assert 0 < sum(sent) < 16 * 1024 * 1024
        writer.transport.abort()


async def test_a_client_that_reads_slowly_gets_all(authority, tls):
    body = bytes(range(256)) * 16384

    async def application(scope, receive, send):
        await respond(send, body)

    async with (
        serving(application, tls=tls) as server,
        secure(server, trusting(authority), limit=4096) as client,
    ):
        await client.send(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
        await client.read_head()
        taken = bytearray()
        while len(taken) < len(body):
            taken += await client.read(min(50_000, len(body) - len(taken)))
        assert taken == body


async def test_the_end_of_a_response_waits_for_a_slow_client(authority, tls, monkeypatch):
    """A pause of the client, wherever it comes, is longer than a connection lingers."""
    monkeypatch.setattr("headrace.server.ending.LINGER_S", 0.1)
    body = bytes(range(256)) * 65536

    async def application(scope, receive, send):
        await respond(send, body)

    async with serving(application, tls=tls) as server:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", server.port))
        sock.setblocking(True)
        sock.settimeout(TIMEOUT_S)
        taken = await asyncio.to_thread(slowly, sock, trusting(authority), len(body))
        assert taken.endswith(body)


async def test_what_the_system_still_has_is_not_written_yet(authority, tls):
    async def application(scope, receive, send):
        await respond(send, b"x" * 1_000_000)

    async with (
        serving(application, tls=tls) as server,
        secure(server, trusting(authority)) as client,
    ):
        await until(lambda: [c for c in runtime_of(server).connections if c.protocol != "arriving"])
        transport = connection_of(server)._transport
        client.writer.transport.pause_reading()
        await client.send(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
        await until(lambda: unwritten_bytes(transport) > transport.get_write_buffer_size())
        client.writer.transport.resume_reading()
        assert len((await client.read_response()).body) == 1_000_000
        await until(lambda: unwritten_bytes(transport) == 0)


def test_a_system_that_can_not_say_what_it_has(tmp_path):
    class Transport:
        def __init__(self, sock):
            self.sock = sock

        def get_write_buffer_size(self):
            return 5

        def get_extra_info(self, name):
            return {"sslcontext": "there is one", "socket": self.sock}[name]

    closed = socket.socket()
    closed.close()
    with (tmp_path / "no socket").open("wb") as file:
        for sock in (None, closed, file):
            assert unwritten_bytes(Transport(sock)) == 5


def slowly(sock, context, size):
    """Read an answer with pauses, up to the end of TLS."""
    with context.wrap_socket(
        sock, server_hostname="localhost", suppress_ragged_eofs=False
    ) as wrapped:
        wrapped.sendall(b"GET / HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")
        taken, pause_at = bytearray(), 0
        while part := wrapped.recv(65536):
            taken += part
            if len(taken) >= pause_at:
                pause_at += size // 8
                time.sleep(0.25)
        return taken


# The end


def blocking(port, context, request=b""):
    """Ask, and read to the end of TLS: an end without close_notify is an error."""
    with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S) as plain:
        wrapped = context.wrap_socket(
            plain, server_hostname="localhost", suppress_ragged_eofs=False
        )
        with wrapped:
            wrapped.sendall(request)
            answer = b""
            while part := wrapped.recv(65536):
                answer += part
            return answer


@pytest.mark.parametrize("what", ["request", "websocket"])
async def test_a_client_that_never_ends_tls_is_left(authority, tls, monkeypatch, what):
    monkeypatch.setattr("headrace.server.ending.LINGER_S", 0.2)
    to_us, to_them = ssl.MemoryBIO(), ssl.MemoryBIO()
    side = trusting(authority).wrap_bio(to_us, to_them, server_hostname="localhost")
    async with (
        serving(keeping([]), tls=tls, write_timeout_s=60.0) as server,
        connected(server) as client,
    ):

        async def run(act):
            async with asyncio.timeout(TIMEOUT_S):
                while True:
                    try:
                        return act()
                    except ssl.SSLWantReadError:
                        await client.send(to_them.read())
                        to_us.write(await client.reader.read(65536))
                    finally:
                        await client.send(to_them.read())

        await run(side.do_handshake)
        if what == "request":
            await run(lambda: side.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"))
            assert (await run(lambda: side.read(65536))).startswith(b"HTTP/1.1 200")
        else:
            await run(lambda: side.write(handshake("/")))
            assert (await run(lambda: side.read(65536))).startswith(b"HTTP/1.1 101")
            await run(lambda: side.write(frame(CLOSE, b"\x03\xe8")))
            assert (await run(lambda: side.read(65536))).startswith(b"\x88")
        # It says nothing more, and stays.
        await until(lambda: not runtime_of(server).connections)


async def test_the_server_ends_tls_as_it_should(authority, tls):
    async with serving(keeping([]), tls=tls) as server:
        request = b"GET / HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n"
        answer = await asyncio.to_thread(blocking, server.port, trusting(authority), request)
        assert answer.startswith(b"HTTP/1.1 200")
        await until(lambda: not runtime_of(server).connections)
        # And so it does where the connection waits for a request, at a stop.
        idle = asyncio.ensure_future(asyncio.to_thread(blocking, server.port, trusting(authority)))
        await until(lambda: [c for c in runtime_of(server).connections if c.protocol != "arriving"])
        await server.stop()
        assert await idle == b""


@pytest.mark.parametrize("ends", ["with close_notify", "without"])
async def test_a_client_that_leaves(authority, tls, ends, caplog):
    left = asyncio.Event()

    async def application(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        assert (await receive())["type"] == "websocket.disconnect"
        left.set()

    async with (
        serving(application, tls=tls) as server,
        secure(server, trusting(authority)) as client,
    ):
        await client.open_websocket()
        if ends == "without":
            client.reset()
        else:
            client.writer.close()
        async with asyncio.timeout(TIMEOUT_S):
            await left.wait()
    assert "eof_received" not in caplog.text


async def test_a_request_whose_client_ends_tls_is_given_up(authority, tls, caplog):
    left = asyncio.Event()

    async def application(scope, receive, send):
        while (await receive())["type"] != "http.disconnect":
            pass
        left.set()

    async with (
        serving(application, tls=tls) as server,
        secure(server, trusting(authority)) as client,
    ):
        await client.send(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
        client.writer.close()
        async with asyncio.timeout(TIMEOUT_S):
            await left.wait()
    # Python's TLS has no half-closed connections, and warns those who want one.
    assert "eof_received" not in caplog.text


async def test_a_stop_ends_who_has_said_nothing(tls):
    async with (
        serving(keeping([]), tls=tls, shutdown_timeout_s=60.0) as server,
        connected(server) as client,
    ):
        await until(lambda: runtime_of(server).connections)
        async with asyncio.timeout(TIMEOUT_S):
            await server.stop()
        assert await client.read_to_end() == b""


async def test_a_stop_cuts_a_handshake_off(tls):
    async with (
        serving(keeping([]), tls=tls, shutdown_timeout_s=0.2) as server,
        connected(server) as client,
    ):
        await client.send(HALF_A_HELLO)
        await until(lambda: [c for c in runtime_of(server).connections if c._task])
        async with asyncio.timeout(TIMEOUT_S):
            await server.stop()
        with contextlib.suppress(ConnectionError):
            assert await client.read_to_end() == b""


async def test_a_stop_lets_a_handshake_finish(authority, tls):
    async with serving(keeping([]), tls=tls) as server:
        server.idle_grace_s = 1.0
        context = trusting(authority)
        to_us, to_them = ssl.MemoryBIO(), ssl.MemoryBIO()
        side = context.wrap_bio(to_us, to_them, server_hostname="localhost")
        async with connected(server) as client:
            with pytest.raises(ssl.SSLWantReadError):
                side.do_handshake()
            hello = to_them.read()
            await client.send(hello[:100])
            await until(lambda: [c for c in runtime_of(server).connections if c._task])
            stop = asyncio.ensure_future(server.stop())
            await until(lambda: runtime_of(server).draining)
            await client.send(hello[100:])
            while True:
                to_us.write(await client.reader.read(65536))
                try:
                    side.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    pass
            side.write(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
            await client.send(to_them.read())
            to_us.write(await client.read_to_end())
            answer = side.read(65536)
            assert answer.startswith(b"HTTP/1.1 200")
            assert b"connection: close" in answer
            await stop


# A renewed certificate


def shown(client):
    return ssl.DER_cert_to_PEM_cert(
        client.writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    )


async def test_a_renewed_certificate(authority, files, tls, caplog):
    caplog.set_level(logging.INFO, "headrace.server")
    old = read(files.certificate)
    scopes = []
    async with (
        serving(keeping(scopes), tls=tls, also=[Endpoint(port=0)]) as server,
        secure(server, trusting(authority)) as before,
    ):
        assert shown(before) == old
        authority.issue()
        new = read(files.certificate)
        assert new != old
        assert server.renew_certificates()
        assert f"the certificate {files.certificate} is renewed" in caplog.text
        async with secure(server, trusting(authority)) as after:
            assert shown(after) == new
            assert (await after.get()).status == 200
        # Nobody was dropped, and each keeps what it began with.
        assert (await before.get()).status == 200
        assert [scope["extensions"]["tls"]["server_cert"] for scope in scopes] == [new, old]
        authority.issue("other", stem="localhost-of-another")
        os.replace(f"{authority.folder}/localhost-of-another.key", files.key)
        assert not server.renew_certificates()
        assert "the certificate is not renewed, the old one stays: --tls-key" in caplog.text
        async with secure(server, trusting(authority)) as after:
            assert shown(after) == new


@in_one_loop
async def test_sighup_renews_it(authority, files, capsys):
    options = ["--tls-certificate", files.certificate, "--tls-key", files.key]
    async with command("application", *options) as running:
        line = await running.logged("listens on https://127.0.0.1:")
        port = int(line.rpartition(":")[2])
        async with secure(port, trusting(authority)) as before:
            authority.issue()
            running.process.send_signal(signal.SIGHUP)
            await running.logged("is renewed")
            async with secure(port, trusting(authority)) as after:
                assert shown(after) == read(files.certificate)
                assert shown(before) != shown(after)
            assert (await before.get()).status == 200
        running.process.terminate()
        assert await running.end() == 0


# What is checked at the start


def test_a_certificate_that_works(files, caplog):
    identity = Credentials(Tls(certificate=files.certificate, key=files.key)).identity
    assert identity.certificate == read(files.certificate)
    assert caplog.text == ""


def test_certificate_and_key_in_one_file(files):
    with open(files.certificate, "a") as file:
        file.write(read(files.key))
    Credentials(Tls(certificate=files.certificate))


def test_the_password_of_a_key(authority, tmp_path):
    files = authority.issue(password="open sesame")
    tls = Tls(certificate=files.certificate, key=files.key, password="open sesame")
    assert "sesame" not in repr(tls)
    Credentials(tls)
    (tmp_path / "password").write_text("open sesame\n")
    path = str(tmp_path / "password")
    Credentials(Tls(certificate=files.certificate, key=files.key, password_file=path))
    with pytest.raises(ConfigurationError) as caught:
        Credentials(Tls(certificate=files.certificate, key=files.key, password="sesame, open"))
    assert str(caught.value) == (
        f"--tls-key {files.key}: the key can't be decrypted: the password is wrong"
    )


asking = {"client_certificates": "optional"}


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"certificate": "/no/such"}, "--tls-certificate /no/such can't be read: no such file"),
        ({"key": "/no/such"}, "--tls-key /no/such can't be read: no such file or directory"),
        ({"key": "other.key"}, "other.key is not the key of --tls-certificate localhost.crt"),
        ({"key": "locked.key"}, "give its password by HEADRACE_TLS_PASSWORD or --tls-password-f"),
        ({"certificate": "localhost.key"}, "--tls-certificate localhost.key holds no certificate:"),
        ({"key": "localhost.crt"}, "--tls-key localhost.crt can't be used: it has to be a key in"),
        ({"key": None}, "--tls-certificate localhost.crt holds no key: name the file that does wi"),
        ({"ciphers": "ROT13"}, "--tls-ciphers 'ROT13' names no cipher that there is"),
        ({"password_file": "/no/such", "key": "locked.key"}, "--tls-password-file /no/such can't"),
        (asking | {"client_ca": "/no/such"}, "--tls-client-ca /no/such can't be read"),
        (asking | {"client_ca": "localhost.key"}, "--tls-client-ca localhost.key holds no certif"),
    ],
)
def test_a_mistake_names_the_option(authority, files, monkeypatch, settings, says):
    monkeypatch.chdir(authority.folder)
    authority.issue("other")
    authority.issue("locked", password="x", stem="locked")
    good = {"certificate": "localhost.crt", "key": "localhost.key"}
    with pytest.raises(ConfigurationError) as caught:
        Credentials(Tls(**good | settings))
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"client_certificates": "perhaps"}, "client_certificates must be one of none, optional"),
        ({"minimum_version": "1.1"}, "minimum_version must be one of 1.2, 1.3, not '1.1'"),
        ({"client_certificates": "required"}, "name the file of certificates with --tls-client-ca"),
        (
            {"client_ca": "x"},
            "none is asked for one: say --tls-client-certificates required, or opt",
        ),
        ({"password": "x", "password_file": "y"}, "leave out --tls-password or --tls-password-f"),
        ({"handshake_timeout_s": 0}, "--tls-handshake-timeout must be more than 0, not 0"),
    ],
)
def test_what_can_not_be(settings, says):
    with pytest.raises(ConfigurationError) as caught:
        Tls(certificate="x", **settings)
    assert says in str(caught.value)


def test_ciphers_that_do_not_fit_the_key(files, monkeypatch):
    tls = Tls(certificate=files.certificate, key=files.key, ciphers="ECDHE-RSA-AES128-GCM-SHA256")
    Credentials(tls)  # TLS 1.3 has ciphers of its own
    make = tls_room._context

    def without_tls_1_3(*arguments):
        """As where the policy of a host forbids it."""
        context = make(*arguments)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        return context

    monkeypatch.setattr(tls_room, "_context", without_tls_1_3)
    with pytest.raises(ConfigurationError, match="no client can shake hands with it: "):
        Credentials(tls)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"ends_in": -_DAY / 2}, "clients will refuse it: certificate has expired"),
        ({"begins_in": _DAY}, "clients will refuse it: certificate is not yet valid"),
        ({"ends_in": 3 * _DAY}, "localhost.crt expires soon: "),
        (
            {"usage": [ExtendedKeyUsageOID.CLIENT_AUTH]},
            "clients will refuse it: unsuitable certificate purpose",
        ),
    ],
)
def test_what_clients_will_not_like_is_a_warning(authority, caplog, options, says):
    files = authority.issue(**options)
    Credentials(Tls(certificate=files.certificate, key=files.key))
    assert says in caplog.text


async def test_a_start_that_can_not_be_leaves_nothing(files):
    tls = Tls(certificate=files.certificate, key="/no/such")
    with pytest.raises(ConfigurationError, match="--tls-key /no/such can't be read"):
        async with serving(keeping([]), tls=tls):
            pass
