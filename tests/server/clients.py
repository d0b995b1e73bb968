"""What the tests of the server hold in their hands: a server in this process, and raw sockets."""

import asyncio
import contextlib
import os
import socket
import struct
from dataclasses import dataclass

from headrace.server.config import Config
from headrace.server.limits import ClientLimits
from headrace.server.server import Server
from headrace.server.turn import Turn

TIMEOUT_S = 20

#: For clients that send as fast as they can, in tests of something else.
FREE = ClientLimits(messages_per_s=0, bytes_per_s=0)


class Crowded(Turn):
    """What a server has for a turn where more has come than can be begun at once."""

    def has_time(self):
        return False


TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA


@contextlib.asynccontextmanager
async def serving(application, **settings):
    """Serve the application here; nothing may be left of it, and the loop hears no complaint."""
    settings = {
        "port": 0,
        "lifespan": "off",
        "close_timeout_s": 0.3,
        "shutdown_timeout_s": 3.0,
    } | settings
    complaints = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    server = Server(application, Config(**settings))
    async with server:
        runtime = runtime_of(server)
        yield server
    assert not runtime.connections
    assert not runtime.tasks
    assert not complaints


def runtime_of(server):
    return server._runtime


def connection_of(server):
    """The one connection of this server."""
    [connection] = runtime_of(server).connections
    return connection


async def until(predicate):
    """Wait for what nothing announces, such as a buffer that has filled up."""
    async with asyncio.timeout(TIMEOUT_S):
        while not predicate():  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.001)


@dataclass
class Response:
    status: int
    reason: str
    headers: list[tuple[bytes, bytes]]
    body: bytes = b""

    def __getitem__(self, name):
        """The one header of this name."""
        [value] = self.all(name)
        return value

    def all(self, name):
        return [value for key, value in self.headers if key == name]


class Client:
    """A socket, and the bytes on it."""

    def __init__(self, reader, writer):
        self.reader = reader
        self.writer = writer

    @property
    def sock(self):
        return self.writer.get_extra_info("socket")

    async def send(self, data):
        self.writer.write(data)
        async with asyncio.timeout(TIMEOUT_S):
            await self.writer.drain()

    async def read(self, count):
        async with asyncio.timeout(TIMEOUT_S):
            return await self.reader.readexactly(count)

    async def read_to_end(self):
        async with asyncio.timeout(TIMEOUT_S):
            return await self.reader.read()

    async def read_head(self):
        async with asyncio.timeout(TIMEOUT_S):
            head = await self.reader.readuntil(b"\r\n\r\n")
        first, *lines = head[:-4].split(b"\r\n")
        version, status, reason = first.split(b" ", 2)
        assert version == b"HTTP/1.1"
        headers = []
        for line in lines:
            name, value = line.split(b": ", 1)
            headers.append((name.lower(), value))
        return Response(int(status), reason.decode(), headers)

    async def read_response(self, *, bodiless=False):
        response = await self.read_head()
        if bodiless or response.status < 200 or response.status in (204, 304):
            return response
        if response.all(b"transfer-encoding"):
            response.body = b"".join([chunk async for chunk in self.chunks()])
        elif response.all(b"content-length"):
            response.body = await self.read(int(response[b"content-length"]))
        else:
            response.body = await self.read_to_end()
        return response

    async def chunks(self):
        async with asyncio.timeout(TIMEOUT_S):
            while size := int(await self.reader.readuntil(b"\r\n"), 16):
                yield await self.reader.readexactly(size)
                assert await self.reader.readexactly(2) == b"\r\n"
            assert await self.reader.readexactly(2) == b"\r\n"

    async def request(self, data, **options):
        await self.send(data)
        return await self.read_response(**options)

    def get(self, target="/", *headers):
        lines = [f"GET {target} HTTP/1.1", "Host: here", *headers, "", ""]
        return self.request("\r\n".join(lines).encode())

    async def open_websocket(self, target="/", *headers):
        await self.send(handshake(target, *headers))
        response = await self.read_response(bodiless=False)
        assert response.status == 101, response
        return response

    async def read_frame(self):
        """The next frame of the server: opcode (with the bits before it) and payload."""
        head, length = await self.read(2)
        assert not length & 0x80
        if length == 126:
            [length] = struct.unpack("!H", await self.read(2))
        elif length == 127:
            [length] = struct.unpack("!Q", await self.read(8))
        return head & 0x7F, await self.read(length)

    async def read_text(self):
        opcode, payload = await self.read_frame()
        assert opcode == TEXT
        return payload.decode()

    async def read_close(self):
        """Skip to the close frame: code and reason."""
        while True:
            opcode, payload = await self.read_frame()
            if opcode == CLOSE:
                return int.from_bytes(payload[:2], "big"), payload[2:].decode()

    async def send_frame(self, opcode, payload=b"", *, fin=True):
        await self.send(frame(opcode, payload, fin=fin))

    async def send_text(self, text):
        await self.send_frame(TEXT, text.encode())

    async def send_close(self, code=1000, reason=""):
        await self.send_frame(CLOSE, code.to_bytes(2, "big") + reason.encode())

    def end(self):
        """Say that no more is sent, and read on."""
        self.writer.write_eof()

    def reset(self):
        """Vanish: the other side gets a reset."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def close(self):
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


@contextlib.asynccontextmanager
async def connected(server, *, receive_buffer=None, limit=2**16):
    """A raw connection to a server, or to a TCP address, or to the path of a Unix socket."""
    if isinstance(server, str):
        reader, writer = await asyncio.open_unix_connection(server, limit=limit)
    else:
        address = server if isinstance(server, tuple) else ("127.0.0.1", server.port)
        sock = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET)
        sock.setblocking(False)
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        await asyncio.get_running_loop().sock_connect(sock, address)
        reader, writer = await asyncio.open_connection(sock=sock, limit=limit)
    client = Client(reader, writer)
    try:
        yield client
    finally:
        await client.close()


def handshake(target="/", *headers):
    lines = [
        f"GET {target} HTTP/1.1",
        "Host: here",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        *headers,
        "",
        "",
    ]
    return "\r\n".join(lines).encode()


def frame(opcode, payload=b"", *, fin=True):
    """A masked frame, as a client sends it."""
    length = len(payload)
    head = bytes([opcode | (0x80 if fin else 0)])
    if length < 126:
        head += bytes([0x80 | length])
    elif length < 2**16:
        head += b"\xfe" + struct.pack("!H", length)
    else:
        head += b"\xff" + struct.pack("!Q", length)
    mask = os.urandom(4)
    key = int.from_bytes((mask * (length // 4 + 1))[:length], "big")
    masked = (int.from_bytes(payload, "big") ^ key).to_bytes(length, "big")
    return head + mask + masked


# Small applications


async def respond(send, body=b"", *, status=200, headers=()):
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})
    await send({"type": "http.response.body", "body": body})


async def read_body(receive):
    body = b""
    while True:
        message = await receive()
        assert message["type"] == "http.request"
        body += message["body"]
        if not message["more_body"]:
            return body


async def hello(scope, receive, send):
    await respond(send, b"hello")


async def echo(scope, receive, send):
    """What was sent: the body of a request, or each message of a WebSocket."""
    if scope["type"] == "http":
        await respond(send, await read_body(receive))
        return
    assert (await receive())["type"] == "websocket.connect"
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({**message, "type": "websocket.send"})
