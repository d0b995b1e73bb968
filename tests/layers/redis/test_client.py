"""Connections to Redis, and to what is not quite one."""

import asyncio
import contextlib

import pytest
from redis import exceptions

from headrace.exceptions import InvalidChannelLayerError
from headrace.layers.redis.client import (
    Refusal,
    SyncWire,
    Unreachable,
    Wire,
    _refusal,
    find_primary,
    find_primary_sync,
)
from headrace.layers.redis.config import read_hosts
from headrace.layers.redis.orders import Redirection, Verdict, failure, judge

OLD = b"-ERR unknown command `HELLO`, with args beginning with:\r\n"


def hello(**said):
    said = {"server": "redis", "version": "7.2.4", "mode": "standalone", "role": "master"} | said
    words = [word.encode() for pair in said.items() for word in pair]
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words)


@contextlib.asynccontextmanager
async def pretending(greeting, *others):
    """A server that gives these answers, one to each command but CLIENT, and then ends."""
    answers = [greeting, *others]

    async def serve(reader, writer):
        left = list(answers)
        try:
            while (line := await reader.readline()).startswith(b"*"):
                words = []
                for _ in range(int(line[1:])):
                    await reader.readline()
                    words.append((await reader.readline()).strip())
                if words[0] == b"CLIENT":
                    writer.write(b"+OK\r\n")
                    continue
                if not left:
                    break
                answer = left.pop(0)
                if answer is not None:
                    writer.write(answer)
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        (endpoint,) = read_hosts(
            [{"host": "127.0.0.1", "port": port, "socket_connect_timeout": 0.1}]
        )
        yield endpoint


async def open_both(endpoint, mode="standalone"):
    """Open a connection of each kind; return what was raised, if both agree."""
    errors = []
    wire = Wire(endpoint, mode)
    try:
        await wire.open()
    except (Unreachable, InvalidChannelLayerError) as error:
        errors.append(error)
    finally:
        await wire.close()
    sync = SyncWire(endpoint, 0.2, mode)
    try:
        await asyncio.to_thread(sync.open)
    except (Unreachable, InvalidChannelLayerError) as error:
        errors.append(error)
    finally:
        sync.close()
    assert not errors or [type(error) for error in errors] == [type(errors[0])] * 2
    return errors[0] if errors else None


@pytest.mark.parametrize(
    ("greeting", "mode", "said"),
    [
        (OLD, "standalone", "older than 6; the layer needs Redis 7.0 or later"),
        (hello(version="6.2.14"), "standalone", "has version 6.2.14"),
        (hello(version="6.2.14", mode="cluster"), "cluster", "has version 6.2.14"),
        (hello(mode="cluster"), "standalone", "write {'cluster'"),
        (hello(), "cluster", "no cluster"),
        (hello(mode="sentinel"), "standalone", "write {'sentinels'"),
        (hello(), "sentinel", "no Sentinel"),
        (
            b"-NOAUTH HELLO must be called with the client authenticated\r\n",
            "standalone",
            "wants a",
        ),
    ],
)
async def test_a_server_that_can_not_be_used(greeting, mode, said):
    async with pretending(greeting) as endpoint:
        error = await open_both(endpoint, mode)
    assert isinstance(error, InvalidChannelLayerError)
    assert said in str(error)
    assert "hosts[0]" in str(error)


@pytest.mark.parametrize(
    ("greeting", "mode"),
    [
        (hello(), "standalone"),
        (hello(version="8.0"), "standalone"),
        (hello(server="valkey", version="7.2.4"), "standalone"),
        (hello(version="unstable"), "standalone"),
        (hello(mode="cluster", role="replica"), "cluster"),
        (hello(mode="sentinel"), "sentinel"),
        (b"-NOPERM this user has no permissions to run the 'hello' command\r\n", "standalone"),
    ],
)
async def test_a_server_that_can(greeting, mode):
    async with pretending(greeting) as endpoint:
        assert await open_both(endpoint, mode) is None


@pytest.mark.parametrize(
    ("greeting", "said"),
    [
        (hello(role="slave"), "is a replica"),
        (None, ""),
        (b"+what is this?", ""),
        (b"\xff\xff\r\n", ""),
    ],
)
async def test_a_server_that_may_do_later(greeting, said):
    async with pretending(greeting) as endpoint:
        error = await open_both(endpoint)
    assert isinstance(error, Unreachable)
    assert said in str(error)


async def test_a_connection_that_ends_has_ended():
    async with pretending(hello(), b"+PONG\r\n") as endpoint:
        wire = Wire(endpoint)
        await wire.open()
        assert await wire.exchange([("PING",)]) == [b"PONG"]
        with pytest.raises(Unreachable, match=r"hosts\[0\]"):
            await wire.exchange([("PING",)])
        await wire.close()
        with pytest.raises(Unreachable, match="closed"):
            await wire.send([("PING",)])
        await wire.close()
        sync = SyncWire(endpoint, 0.2)
        await asyncio.to_thread(sync.open)
        assert await asyncio.to_thread(sync.exchange, [("PING",)]) == [b"PONG"]
        with pytest.raises(Unreachable, match=r"hosts\[0\]"):
            await asyncio.to_thread(sync.exchange, [("PING",)])


async def test_whatever_fails_in_the_transport_is_the_end_of_the_connection(server, monkeypatch):
    (endpoint,) = read_hosts([server.url])
    wire = Wire(endpoint)
    await wire.open()

    async def fail(*args, **options):
        raise RuntimeError("unable to perform operation on a closed transport")

    monkeypatch.setattr(wire._connection, "send_packed_command", fail)
    with pytest.raises(Unreachable, match="closed transport"):
        await wire.send([("PING",)])
    monkeypatch.setattr(wire._connection, "read_response", fail)
    with pytest.raises(Unreachable, match="closed transport"):
        await wire.read()
    await wire.close()


async def test_errors_are_values_with_a_code(server, prefix):
    (endpoint,) = read_hosts([server.url])
    wire, sync = Wire(endpoint), SyncWire(endpoint, 1)
    await wire.open()
    sync.open()
    key = f"{prefix}:key"
    commands = [("SET", key, b"x"), ("LPUSH", key, 1), ("EVALSHA", "0" * 40, 0), ("NO",)]
    for replies in (await wire.exchange(commands), sync.exchange(commands)):
        assert replies[0] == b"OK"
        assert [reply.code for reply in replies[1:]] == ["WRONGTYPE", "NOSCRIPT", "ERR"]
    await wire.exchange([("DEL", key)])
    await wire.close()
    sync.close()


SAID = exceptions.ResponseError
MOVED, ASKED = (
    Redirection(7, host, 7001, asking) for host, asking in (("h", False), ("::1", True))
)


@pytest.mark.parametrize(
    ("error", "code", "verdict"),
    [
        (SAID("MOVED 7 h:7001"), "MOVED", MOVED),
        (SAID("ASK 7 ::1:7001"), "ASK", ASKED),
        (SAID("CLUSTERDOWN Hash slot not served"), "CLUSTERDOWN", Verdict.LATER),
        (SAID("TRYAGAIN Multiple keys"), "TRYAGAIN", Verdict.LATER),
        (exceptions.BusyLoadingError("Redis is loading"), "LOADING", Verdict.LATER),
        (exceptions.ReadOnlyError("You can't write"), "READONLY", Verdict.ELSEWHERE),
        (exceptions.OutOfMemoryError("command not allowed"), "OOM", Verdict.NO),
        (exceptions.NoPermissionError("no"), "NOPERM", Verdict.NO),
        (SAID("wrong number of arguments"), "ERR", Verdict.NO),
        (SAID("MISCONF Redis is configured to save"), "MISCONF", Verdict.NO),
    ],
)
def test_what_an_error_means(error, code, verdict):
    refusal = _refusal(error)
    assert refusal.code == code
    assert judge(refusal) == verdict


def test_what_a_sender_is_told():
    assert "maxmemory" in str(failure("redis://h", Refusal("OOM", "command not allowed")))
    assert "+@pubsub" in str(failure("redis://h", Refusal("NOPERM", "no")))
    assert "redis://h refuses: MISCONF x" in str(failure("redis://h", Refusal("MISCONF", "x")))


async def test_the_next_sentinel_is_asked_when_one_does_not_know(sentinels):
    async with (
        pretending(hello(mode="sentinel"), b"*-1\r\n") as ignorant,
        pretending(hello(mode="sentinel"), None) as silent,
        pretending(hello(mode="sentinel")) as dying,
    ):
        strange = [(each.host, each.port) for each in (ignorant, silent, dying)]
        asked = [*strange, sentinels.sentinels[0].address]
        options = {"socket_connect_timeout": 0.1}
        (host,) = read_hosts(
            [{"master_name": sentinels.name, "sentinels": asked, "sentinel_kwargs": options}]
        )
        port = sentinels.primary().port
        assert (await find_primary(host)).port == port
        assert (await asyncio.to_thread(find_primary_sync, host)).port == port
        (nobody,) = read_hosts(
            [{"master_name": sentinels.name, "sentinels": strange, "sentinel_kwargs": options}]
        )
        for find in (find_primary, lambda host: asyncio.to_thread(find_primary_sync, host)):
            with pytest.raises(Unreachable, match="knows of none"):
                await find(nobody)
