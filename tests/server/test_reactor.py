"""Transports: a protocol can't tell whether the reactor, uvloop or asyncio has its socket.

Only what the reactor does in its own way is asked of it alone.
"""

import asyncio
import contextlib
import os
import resource
import select
import socket
import struct

import pytest

from .clients import until

reactor = pytest.importorskip(
    "headrace.server.reactor", reason="compiled nowhere but on Linux", exc_type=ImportError
)

PATIENCE_S = 20.0
#: More than the buffers of two sockets hold.
LONG = b"0123456789abcdef" * (512 * 1024)


def has_ipv6():
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this host has no IPv6")


class Told(asyncio.Protocol):
    """Writes down what it is told."""

    def __init__(self, *, stays=False):
        self.told = []
        self.data = b""
        self.stays = stays
        self.changed = asyncio.Event()

    def note(self, what):
        self.told.append(what)
        self.changed.set()

    def connection_made(self, transport):
        self.transport = transport
        self.note("made")

    def data_received(self, data):
        assert type(data) is bytes
        self.data += data
        self.note("data")

    def eof_received(self):
        self.note("eof")
        return self.stays

    def pause_writing(self):
        self.note("pause")

    def resume_writing(self):
        self.note("resume")

    def connection_lost(self, error):
        self.error = error
        self.note("lost")

    async def until(self, condition):
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    async def until_told(self, what):
        await self.until(lambda: what in self.told)


@pytest.fixture(params=["reactor", "loop"])
async def listen(request):
    """Returns where the protocols of a factory are talked to."""
    async with contextlib.AsyncExitStack() as stack:

        async def begin(factory, family=socket.AF_INET, address=("127.0.0.1", 0)):
            sock = socket.socket(family)
            sock.bind(address)
            sock.listen(100)
            if request.param == "reactor":
                ours = reactor.Reactor(asyncio.get_running_loop())
                listener = ours.listen(sock, factory)
                stack.callback(ours.close)
                stack.callback(listener.close)
            else:
                loop = asyncio.get_running_loop()
                unix = family == socket.AF_UNIX
                create = loop.create_unix_server if unix else loop.create_server
                stack.callback((await create(factory, sock=sock)).close)
            return sock.getsockname()

        yield begin


@pytest.fixture
async def client(listen):
    """Returns a protocol, and a blocking socket that is connected with it."""
    sockets, protocols = [], []

    async def connect(protocol=None, **options):
        protocol = protocol or Told()
        address = await listen(lambda: protocol, **options)
        sock = socket.socket(options.get("family", socket.AF_INET))
        sockets.append(sock)
        protocols.append(protocol)
        sock.settimeout(PATIENCE_S)
        sock.connect(address)
        await protocol.until_told("made")
        return protocol, sock

    yield connect
    for sock in sockets:
        sock.close()
    for protocol in protocols:
        if not protocol.transport.is_closing():
            protocol.transport.abort()
        await protocol.until_told("lost")


async def read(sock, size):
    """Read so much of a blocking socket, beside the loop."""

    def read_on():
        pieces, left = [], size
        while left and (piece := sock.recv(left)):
            pieces.append(piece)
            left -= len(piece)
        return b"".join(pieces)

    return await asyncio.to_thread(read_on)


async def read_all(sock):
    """Read to the end."""

    def read_on():
        pieces = []
        while piece := sock.recv(1 << 20):
            pieces.append(piece)
        return b"".join(pieces)

    return await asyncio.to_thread(read_on)


def reset(sock):
    """Close it by a reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


# Reading


async def test_bytes_arrive_in_order(client):
    protocol, sock = await client()
    sending = asyncio.create_task(asyncio.to_thread(sock.sendall, LONG))
    await protocol.until(lambda: len(protocol.data) == len(LONG))
    await sending
    assert protocol.data == LONG


async def test_a_paused_connection_is_not_read(client):
    protocol, sock = await client()
    assert protocol.transport.is_reading()
    protocol.transport.pause_reading()
    assert not protocol.transport.is_reading()
    sock.sendall(b"later")
    for _ in range(20):
        await asyncio.sleep(0)
    assert protocol.data == b""
    protocol.transport.resume_reading()
    await protocol.until_told("data")
    assert protocol.data == b"later"


async def test_a_pause_that_is_over_at_once_loses_nothing(client):
    protocol, sock = await client()
    for number in range(10):
        protocol.transport.pause_reading()
        sock.sendall(b"%d" % number)
        protocol.transport.resume_reading()
        await protocol.until(lambda number=number: len(protocol.data) == number + 1)
    assert protocol.data == b"0123456789"


async def test_an_end_closes_where_the_protocol_does_not_stay(client):
    protocol, sock = await client()
    protocol.transport.write(b"last")
    sock.shutdown(socket.SHUT_WR)
    await protocol.until_told("lost")
    assert protocol.told == ["made", "eof", "lost"]
    assert protocol.error is None
    assert await read_all(sock) == b"last"


async def test_who_stays_may_write_and_is_told_of_the_end_once(client):
    protocol, sock = await client(Told(stays=True))
    sock.shutdown(socket.SHUT_WR)
    await protocol.until_told("eof")
    protocol.transport.write(b"answer")
    assert await read(sock, 6) == b"answer"
    assert not protocol.transport.is_closing()
    protocol.transport.close()
    await protocol.until_told("lost")
    assert protocol.told == ["made", "eof", "lost"]


async def test_a_reset_is_told_as_the_reason(client):
    protocol, sock = await client()
    reset(sock)
    await protocol.until_told("lost")
    assert isinstance(protocol.error, ConnectionResetError)
    assert protocol.told == ["made", "lost"]


# Writing


async def test_what_the_socket_does_not_take_waits_in_order(client):
    protocol, sock = await client()
    transport = protocol.transport
    transport.write(LONG)
    assert protocol.told == ["made", "pause"]
    assert 0 < transport.get_write_buffer_size() < len(LONG) + 1
    transport.write(b"behind")
    transport.writelines([b" ", bytearray(b"it"), memoryview(b"!")])
    assert await read(sock, len(LONG) + 10) == LONG + b"behind it!"
    await protocol.until_told("resume")
    assert protocol.told == ["made", "pause", "resume"]
    assert transport.get_write_buffer_size() == 0


async def test_a_close_sends_all_that_waits(client):
    protocol, sock = await client()
    protocol.transport.write(LONG)
    protocol.transport.close()
    assert protocol.transport.is_closing()
    assert await read_all(sock) == LONG
    await protocol.until_told("lost")
    assert protocol.error is None


async def test_a_close_reads_no_more(client):
    protocol, sock = await client()
    protocol.transport.write(LONG)
    protocol.transport.close()
    sock.sendall(b"too late")
    with contextlib.suppress(ConnectionResetError):
        await read_all(sock)
    await protocol.until_told("lost")
    assert protocol.data == b""


async def test_an_abort_sends_nothing_more(client):
    protocol, sock = await client()
    protocol.transport.write(LONG)
    protocol.transport.abort()
    protocol.transport.abort()
    assert "lost" not in protocol.told
    await protocol.until_told("lost")
    assert protocol.told.count("lost") == 1
    assert protocol.transport.get_write_buffer_size() == 0
    with contextlib.suppress(ConnectionResetError):
        assert len(await read_all(sock)) < len(LONG)


@pytest.mark.parametrize("data", [b"short", LONG], ids=["short", "long"])
async def test_our_side_ends_alone(client, data):
    protocol, sock = await client(Told(stays=True))
    transport = protocol.transport
    assert transport.can_write_eof()
    transport.write(data)
    transport.write_eof()
    assert await read_all(sock) == data
    with pytest.raises(RuntimeError):
        transport.write(b"more")
    sock.sendall(b"still heard")
    await protocol.until_told("data")
    assert not transport.is_closing()


async def test_a_peer_that_is_gone_is_told_while_much_waits(client):
    protocol, sock = await client()
    protocol.transport.pause_reading()
    protocol.transport.write(LONG)
    reset(sock)
    await protocol.until_told("lost")
    assert isinstance(protocol.error, OSError)


async def test_the_limits_say_when_to_pause_and_to_go_on(client):
    protocol, sock = await client()
    transport = protocol.transport
    transport.set_write_buffer_limits(high=1_000_000)
    assert transport.get_write_buffer_limits() == (250_000, 1_000_000)
    transport.set_write_buffer_limits(low=10)
    assert transport.get_write_buffer_limits() == (10, 40)
    with pytest.raises(ValueError, match="low"):
        transport.set_write_buffer_limits(high=10, low=20)
    transport.set_write_buffer_limits(high=len(LONG) * 2)
    transport.write(LONG)
    assert protocol.told == ["made"]
    transport.set_write_buffer_limits(high=1000)
    transport.write(b"x")
    assert protocol.told == ["made", "pause"]
    assert len(await read(sock, len(LONG) + 1)) == len(LONG) + 1
    await protocol.until_told("resume")


# The end


async def test_nobody_is_told_of_the_end_within_the_call_that_ends_it(client):
    class Quick(Told):
        def data_received(self, data):
            self.transport.close()
            assert "lost" not in self.told
            self.note("data")

    protocol, sock = await client(Quick())
    sock.sendall(b"x")
    await protocol.until_told("lost")
    assert protocol.told == ["made", "data", "lost"]


async def test_after_the_end_nothing_raises_and_nothing_is_told(client):
    protocol, _ = await client()
    transport = protocol.transport
    transport.close()
    await protocol.until_told("lost")
    with contextlib.suppress(RuntimeError):  # uvloop's word for it
        transport.write(b"late")
    transport.close()
    transport.abort()
    await asyncio.sleep(0)
    assert protocol.told == ["made", "lost"]
    assert transport.is_closing()


async def test_another_protocol_takes_over(client):
    protocol, sock = await client()
    transport, other = protocol.transport, Told()
    other.transport = transport
    transport.set_protocol(other)
    assert transport.get_protocol() is other
    sock.sendall(b"for the other")
    await other.until_told("data")
    transport.abort()
    await other.until_told("lost")
    assert protocol.told == ["made"]
    transport.set_protocol(protocol)
    protocol.note("lost")


@pytest.mark.parametrize("where", ["data_received", "eof_received", "pause_writing"])
async def test_what_a_protocol_raises_is_reported(client, where):
    class Broken(Told):
        pass

    def fail(self, *args):
        raise ZeroDivisionError

    setattr(Broken, where, fail)
    reports = []
    asyncio.get_running_loop().set_exception_handler(lambda _, report: reports.append(report))
    protocol, sock = await client(Broken(stays=True))
    if where == "pause_writing":
        protocol.transport.write(LONG)
        assert await read(sock, len(LONG)) == LONG
    else:
        sock.sendall(b"x")
        sock.shutdown(socket.SHUT_WR)
        await protocol.until_told("lost")
    assert [type(report["exception"]) for report in reports] == [ZeroDivisionError]
    assert reports[0]["message"]


# Who it is


async def test_it_knows_both_ends(client):
    protocol, sock = await client()
    transport = protocol.transport
    assert transport.get_extra_info("peername") == sock.getsockname()
    assert transport.get_extra_info("sockname") == sock.getpeername()
    assert transport.get_extra_info("sslcontext") is None
    assert transport.get_extra_info("unheard of", "default") == "default"
    assert transport.get_extra_info("socket").getpeername() == sock.getsockname()


@pytest.mark.parametrize(
    ("family", "address", "ask"),
    [
        (socket.AF_INET, ("0.0.0.0", 0), "127.0.0.1"),
        pytest.param(socket.AF_INET6, ("::1", 0), "::1", marks=needs_ipv6),
        pytest.param(socket.AF_INET6, ("::", 0), "::1", marks=needs_ipv6),
    ],
)
async def test_it_knows_both_ends_whatever_is_listened_on(listen, family, address, ask):
    protocol = Told()
    port = (await listen(lambda: protocol, family, address))[1]
    with socket.create_connection((ask, port)) as sock:
        await protocol.until_told("made")
        assert protocol.transport.get_extra_info("peername") == sock.getsockname()
        assert protocol.transport.get_extra_info("sockname") == sock.getpeername()
    await protocol.until_told("lost")


@pytest.mark.parametrize("named", [False, True])
async def test_a_unix_socket_is_known_by_its_path(listen, tmp_path, named):
    protocol = Told()
    await listen(lambda: protocol, socket.AF_UNIX, str(tmp_path / "here.sock"))
    with socket.socket(socket.AF_UNIX) as sock:
        if named:
            sock.bind(str(tmp_path / "there.sock"))
        sock.connect(str(tmp_path / "here.sock"))
        await protocol.until_told("made")
        assert protocol.transport.get_extra_info("peername") == sock.getsockname()
        assert protocol.transport.get_extra_info("sockname") == sock.getpeername()
    await protocol.until_told("lost")


# What is the reactor's alone


@pytest.fixture
async def ours():
    """A reactor with one listener; returns a function that connects."""
    own = reactor.Reactor(asyncio.get_running_loop())
    sock = socket.create_server(("127.0.0.1", 0))
    protocols, sockets = [], []

    def factory():
        protocols.append(Told())
        return protocols[-1]

    async def connect():
        count = len(protocols)
        client = socket.create_connection(sock.getsockname())
        sockets.append(client)
        client.settimeout(PATIENCE_S)
        await until(lambda: len(protocols) > count)
        return protocols[-1], client

    connect.listener = own.listen(sock, factory)
    connect.reactor = own
    connect.address = sock.getsockname()
    yield connect
    own.close()
    connect.listener.close()
    for client in sockets:
        client.close()
    for protocol in protocols:
        protocol.transport.abort()
        await protocol.until_told("lost")


def watched(sock):
    """Whether this loop's process has an epoll that knows the descriptor."""
    for name in os.listdir("/proc/self/fdinfo"):
        with contextlib.suppress(OSError), open(f"/proc/self/fdinfo/{name}") as file:
            for line in file:
                if line.startswith("tfd:") and int(line.split()[1]) == sock.fileno():
                    return True
    return False


async def test_small_writes_are_not_held_back(ours):
    protocol, _ = await ours()
    own = protocol.transport.get_extra_info("socket")
    assert own.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert not own.get_inheritable()
    assert not os.get_blocking(own.fileno())


async def test_a_hang_up_that_nobody_waits_for_is_told_once(ours):
    protocol, client = await ours()
    own = protocol.transport.get_extra_info("socket")
    protocol.transport.pause_reading()
    assert watched(own)  # until there is something to tell
    reset(client)
    await until(lambda: not watched(own))
    assert "lost" not in protocol.told
    protocol.transport.resume_reading()
    await protocol.until_told("lost")
    assert isinstance(protocol.error, ConnectionResetError)


async def test_a_child_process_that_keeps_a_socket_disturbs_nobody(ours):
    protocol, client = await ours()
    kept = os.dup(protocol.transport.get_extra_info("socket").fileno())
    try:
        protocol.transport.abort()
        await protocol.until_told("lost")
        client.sendall(b"to whom it may concern")
        assert select.select([kept], [], [], PATIENCE_S)[0]
        with socket.socket(fileno=os.dup(kept)) as sock:
            assert not watched(sock)
    finally:
        os.close(kept)


async def test_an_event_of_one_that_went_in_the_same_turn_hurts_nobody(ours):
    first, one = await ours()
    second, other = await ours()
    endings = {first: second, second: first}
    for protocol, opposite in endings.items():
        protocol.data_received = lambda data, opposite=opposite: opposite.transport.abort()
    one.sendall(b"x")
    other.sendall(b"x")  # both are ready in one turn, and each ends the other
    await until(lambda: any("lost" in protocol.told for protocol in endings))
    third, another = await ours()
    another.sendall(b"x")
    await third.until_told("data")
    assert third.data == b"x"


async def test_connection_made_may_close(ours):
    protocols = []

    class Unwilling(Told):
        def connection_made(self, transport):
            super().connection_made(transport)
            protocols.append(self)
            transport.close()

    sock = socket.create_server(("127.0.0.1", 0))
    listener = ours.reactor.listen(sock, Unwilling)
    with socket.create_connection(sock.getsockname()) as client:
        assert await read_all(client) == b""
    await protocols[0].until_told("lost")
    listener.close()


async def test_what_connection_made_raises_is_reported_and_ends_the_connection(ours):
    reports = []
    asyncio.get_running_loop().set_exception_handler(lambda _, report: reports.append(report))

    class Broken(Told):
        def connection_made(self, transport):
            raise ZeroDivisionError

    sock = socket.create_server(("127.0.0.1", 0))
    listener = ours.reactor.listen(sock, Broken)
    client = socket.create_connection(sock.getsockname())
    with client, contextlib.suppress(ConnectionResetError):
        assert await read_all(client) == b""
    assert [type(report["exception"]) for report in reports] == [ZeroDivisionError]
    listener.close()


async def test_who_waits_behind_a_closed_listener_is_not_accepted(ours):
    assert ours.listener.sockets
    ours.listener.close()
    ours.listener.close()
    assert ours.listener.sockets == ()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(ours.address)


async def test_it_rests_where_no_descriptor_is_left(ours, caplog, monkeypatch):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    client = socket.socket()
    free = os.dup(0)
    os.close(free)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
        client.connect(ours.address)
        await until(lambda: caplog.messages)
        assert caplog.messages == [
            "cannot accept: [Errno 24] Too many open files; trying again in 1 s"
        ]
        for _ in range(100):
            await asyncio.sleep(0)
        assert len(caplog.messages) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        client.close()
    protocol, client = await ours()  # once it has rested
    client.sendall(b"x")
    await protocol.until_told("data")


async def test_it_leaves_the_loop_with_the_last_of_its_connections(ours):
    protocol, client = await ours()
    before = set(os.listdir("/proc/self/fd"))
    ours.reactor.close()
    ours.listener.close()
    client.sendall(b"still here")
    await protocol.until_told("data")
    protocol.transport.close()
    await protocol.until_told("lost")
    await asyncio.sleep(0)
    # The listener, the connection and the epoll itself.
    gone = before - set(os.listdir("/proc/self/fd"))
    assert len(gone) == 3


def test_a_transport_is_made_by_a_listener():
    with pytest.raises(TypeError, match="Listener"):
        reactor.Transport()
