"""The layer as a whole: what it leaves behind, where it can be called, what it lets through."""

import asyncio
import gc
import logging
import os
import subprocess
import sys
import threading
import weakref

import pytest
from asgiref.sync import async_to_sync
from django.test import override_settings

from headrace.exceptions import ChannelFull, ChannelLayerUnavailable, MessageTooLarge
from headrace.layers import channel_layers, get_channel_layer
from headrace.layers.redis import (
    RedisChannelLayer,
)
from headrace.layers.redis import (
    layer as layer_module,
)
from headrace.layers.redis import (
    network as network_module,
)
from headrace.layers.redis.names import Names, shard_of

from .members import Member, eventually, news
from .servers import RedisServer, until

#: `make test` is to be quick; CONNECTIONS=100000 takes minutes.
CONNECTIONS = int(os.environ.get("CONNECTIONS", "3000"))


def memory_kib():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGESIZE") // 1024


# What is left behind


async def test_connections_come_and_go_and_leave_nothing(own_server, layer_of):
    here, there = layer_of(own_server), layer_of(own_server)
    await Member.of(here)
    await Member.of(there)
    names = Names(here._plan.names.prefix)
    sizes = []
    for _ in range(10):
        for start in range(0, CONNECTIONS // 10, 100):
            members = await asyncio.gather(
                *(
                    Member.of(
                        here, "lobby", f"room{(start + number) % 50}", f"user{start}.{number}"
                    )
                    for number in range(100)
                )
            )
            await there.send(members[0].channel, {"type": "news", "number": 1})
            await news(there, 1, "lobby")
            await asyncio.gather(*(member.hears(1) for member in members))
            for member in members:
                here.detach(member.channel)
            del members
        with own_server.client() as client:
            await eventually(lambda client=client: len(client.pubsub_channels("*")) == 3)
            assert set(client.pubsub_channels("*")) == {
                names.everyone(),
                names.process(here.process),
                names.process(there.process),
            }
            assert client.dbsize() == 0
        assert not here.groups
        assert len(here.channels) == 1
        network = here._network
        assert len(network._places) == 2
        assert not network._waiters
        assert not network._unsettled
        (node,) = network._nodes.values()
        assert len(node.subscription.wanted) == len(node.subscription.heard) == 2
        # The last answers may still be on their way.
        await eventually(lambda heard=node.subscription: not heard._unanswered)
        gc.collect()
        sizes.append(memory_kib())
    assert sizes[-1] - sizes[2] < 3_000 + CONNECTIONS // 50


async def test_many_who_join_at_once_share_round_trips(own_server, layer_of):
    layer = layer_of(own_server)
    channels = [await layer.new_channel() for _ in range(1_000)]
    before = own_server.calls()["subscribe"]
    await asyncio.gather(
        *(layer.group_add(f"room{number}", channel) for number, channel in enumerate(channels))
    )
    # How many depends on how two threads take turns; a command for each would be a thousand.
    assert own_server.calls()["subscribe"] - before < 100
    assert len(own_server.ask("PUBSUB", "CHANNELS", "*group*")) == 1_000


async def test_a_layer_that_nobody_closes_goes_all_the_same(server, prefix):
    layer = RedisChannelLayer([server.url], prefix=prefix)
    await layer.new_channel()
    network = weakref.ref(layer._network)
    thread = layer._network.thread
    del layer
    gc.collect()
    await eventually(lambda: thread.ended.done())
    gc.collect()
    thread = None
    await eventually(lambda: gc.collect() >= 0 and network() is None)


def test_a_program_that_ends_without_closing_says_nothing(server):
    program = f"""
import asyncio
from django.conf import settings
settings.configure()
from headrace.layers.redis import RedisChannelLayer
layer = RedisChannelLayer([{server.url!r}])
async def main():
    channel = await layer.new_channel()
    await layer.group_add("room", channel)
    waiting = asyncio.ensure_future(layer.receive("work"))
    await asyncio.sleep(0.1)
asyncio.run(main())
layer.send_sync("other", {{"type": "x"}})
"""
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        timeout=30,
    )
    # On a busy machine the development mode says what has taken long.
    said = [line for line in done.stderr.splitlines() if not line.startswith("Executing ")]
    assert (done.returncode, done.stdout, said) == (0, "", [])


async def test_it_can_be_used_after_it_was_closed(server, layer_of):
    layer, other = layer_of(server), layer_of(server)
    member = await Member.of(layer, "room")
    await layer.close()
    await layer.close()
    assert await news(other, 1) == 0
    assert await news(layer, 2) == 0
    # Its groups are listened to again.
    await layer.new_channel()
    await eventually(lambda: layer._network.hears("room"))
    assert await news(other, 3) == 1
    await member.hears(3)
    assert member.numbers == [2, 3]


async def test_who_waits_while_it_is_closed_gets_an_error(own_server, layer_of):
    layer = layer_of(own_server)
    await layer.new_channel()
    reading = asyncio.ensure_future(layer.receive("work"))
    await eventually(lambda: own_server.ask("KEYS", "*readers*"))
    own_server.pause()
    sending = asyncio.ensure_future(layer.send("work", {"type": "x"}))
    joining = asyncio.ensure_future(Member.of(layer, "room"))
    await asyncio.sleep(0.05)
    await layer.close()
    own_server.resume()
    for waiting in (reading, sending, joining):
        with pytest.raises(ChannelLayerUnavailable, match="closed"):
            await waiting


# From where it can be called


def test_a_loop_for_each_call(own_server, prefix):
    """Synchronous code without the calls for it: 10,000 loops, and not one connection more."""
    layer = RedisChannelLayer([own_server.url], prefix=prefix)
    channel = async_to_sync(layer.new_channel)()
    async_to_sync(layer.group_add)("room", channel)
    for number in range(500):
        async_to_sync(layer.group_send)("room", {"type": "news", "number": number})
        if number % 50 == 49:
            for expected in range(number - 49, number + 1):
                assert async_to_sync(layer.receive)(channel)["number"] == expected
    for number in range(100):
        async_to_sync(layer.send)("work", {"type": "job", "number": number})
    for number in range(100):
        assert async_to_sync(layer.receive)("work")["number"] == number
    for number in range(2_000):
        layer.group_send_sync("room2", {"type": "news", "number": number})
    layer.send_sync("work", {"type": "job"})
    with own_server.client() as client:
        assert len(client.client_list()) <= 4  # listens, sends, sends synchronously; and this one
    async_to_sync(layer.close)()
    with own_server.client() as client:
        until_alone = threading.Event()
        for _ in range(500):
            if len(client.client_list()) == 1:
                until_alone.set()
                break
        assert until_alone.is_set()


def test_messages_wait_between_the_loops_of_a_program(server, prefix):
    """A loop ends, another begins: what came meanwhile is there."""
    here, there = (RedisChannelLayer([server.url], prefix=prefix) for _ in range(2))
    channel = asyncio.run(here.new_channel())
    asyncio.run(here.group_add("room", channel))
    assert there.group_send_sync("room", {"type": "news"}) == 1
    there.send_sync(channel, {"type": "direct"})
    assert asyncio.run(here.receive(channel)) == {"type": "news"}
    assert asyncio.run(here.receive(channel)) == {"type": "direct"}
    for layer in (here, there):
        asyncio.run(layer.close())


def test_many_threads_and_loops_at_once(server, prefix):
    layer = RedisChannelLayer([server.url], prefix=prefix)
    other = RedisChannelLayer([server.url], prefix=prefix)
    heard, errors = [], []

    def run(number):
        try:
            asyncio.run(listen(number))
        except BaseException as error:
            errors.append(error)

    ready = threading.Barrier(5)

    async def listen(number):
        channel = await layer.new_channel()
        await layer.group_add("room", channel)
        await asyncio.to_thread(ready.wait)
        for _ in range(20):
            async with asyncio.timeout(10):
                heard.append((number, (await layer.receive(channel))["number"]))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    ready.wait()
    for number in range(20):
        other.group_send_sync("room", {"type": "news", "number": number})
    for thread in threads:
        thread.join()
    assert not errors
    for each in range(4):
        assert [number for thread, number in heard if thread == each] == list(range(20))
    for each in (layer, other):
        asyncio.run(each.close())


def test_a_forked_child_is_another_process(server, prefix):
    layer = RedisChannelLayer([server.url], prefix=prefix)
    channel = asyncio.run(layer.new_channel())
    asyncio.run(layer.group_add("room", channel))
    layer.group_send_sync("other", {"type": "x"})
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        status = 1
        try:
            assert not layer.channels
            assert layer.group_send_sync("room", {"type": "from.child"}) == 1
            asyncio.run(from_child(layer, channel))
            os.write(writing, layer.process.encode())
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    assert status == 0
    assert os.read(reading, 100).decode() != layer.process
    os.close(reading)
    os.close(writing)

    async def rest():
        async with asyncio.timeout(10):
            kinds = [(await layer.receive(channel))["type"] for _ in range(2)]
            assert kinds == ["from.child", "direct"]
            # Nothing that the child did has harmed the connections.
            other = RedisChannelLayer([server.url], prefix=prefix)
            await news(other, 1)
            assert (await layer.receive(channel))["number"] == 1
            assert not layer.stats["disconnects"]
            await other.close()
            await layer.close()

    asyncio.run(rest())


async def from_child(layer, channel):
    own = await layer.new_channel()
    await layer.group_add("children", own)
    await layer.send(channel, {"type": "direct"})
    await layer.group_send("children", {"type": "x"})
    async with asyncio.timeout(5):
        assert await layer.receive(own) == {"type": "x"}
    await layer.close()


async def test_a_consumer_that_blocks_its_loop_cuts_no_connection(own_server, layer_of):
    hosts = [{"address": own_server.url, "health_check_interval": 0.05, "socket_timeout": 0.1}]
    here, there = layer_of(own_server, hosts=hosts), layer_of(own_server)
    member = await Member.of(here, "room")
    import time

    time.sleep(0.5)  # noqa: ASYNC251 - as handlers do that should not
    await news(there, 1)
    await member.hears(1)
    assert not here.stats["disconnects"]


# What it lets through


async def test_what_is_no_message_is_counted_and_dropped(server, layer_of, caplog):
    here, there = layer_of(server), layer_of(server, symmetric_encryption_keys=["key"])
    member = await Member.of(here, "room")
    names = here._plan.names
    for number, name in enumerate((names.group("room"), names.process(here.process)), 1):
        no_frame = b"\x01" + bytes(8 + 4 + 7) + bytes([number]) + b"\xc1"
        for data in (b"no envelope", b"\x01" + bytes(8), no_frame, b"\x09" * 30):
            server.ask("PUBLISH", name, data)
    await news(there, 1)  # sealed
    server.ask("RPUSH", names.queue("work"), f"{10**13:014d}".encode() + b"rubbish")
    await here.send("work", {"type": "job"})
    async with asyncio.timeout(5):
        assert await here.receive("work") == {"type": "job"}
    await here.group_send("room", {"type": "news", "number": 2})
    await member.hears(2)
    await eventually(lambda: here.stats["undecodable"] == 10)
    lines = [record for record in caplog.records if "is no message" in record.message]
    assert 1 <= len(lines) <= 3


async def test_everything_is_sealed_with_keys(server, layer_of):
    old, new = (layer_of(server, symmetric_encryption_keys=keys) for keys in (["a"], ["b", "a"]))
    without = layer_of(server)
    member, stranger = await Member.of(new, "room"), await Member.of(without, "room")
    with server.client(decode_responses=False) as client:
        listening = client.pubsub()
        listening.psubscribe("*")
        await news(old, 1)
        await old.send("work", {"type": "secret.job"})
        item = client.lindex(old._plan.names.queue("work"), 0)
        assert b"secret" not in item
        while (message := listening.get_message(timeout=1)) is not None:
            assert b"news" not in bytes(message["data"] if message["type"] == "pmessage" else b"")
        listening.close()
    async with asyncio.timeout(5):
        assert await new.receive("work") == {"type": "secret.job"}
    await member.hears(1)
    assert not stranger.events
    assert without.stats["undecodable"] == 1


async def test_two_databases_are_two_worlds(server, layer_of):
    one, two, two_again = (layer_of(None, hosts=[f"{server.url}/{number}"]) for number in (0, 2, 2))
    member = await Member.of(one, "room")
    other = await Member.of(two, "room")
    assert await news(two_again, 1) == 1
    assert await news(one, 2) == 0
    await member.hears(2)
    await other.hears(1)
    assert (member.numbers, other.numbers) == ([2], [1])


async def test_json_for_the_eyes(server, layer_of):
    here, there = (layer_of(server, serializer_format=name) for name in ("json", "msgpack"))
    members = [await Member.of(layer, "room") for layer in (here, there)]
    await news(here, 1)
    await news(there, 2)
    await here.send("work", {"type": "job", "text": "naïve"})
    item = server.ask("LINDEX", here._plan.names.queue("work"), 0)
    assert item[14:].endswith('{"type":"job","text":"na\\u00efve"}')
    async with asyncio.timeout(5):
        assert await there.receive("work") == {"type": "job", "text": "naïve"}
    for member in members:
        await member.until(lambda member=member: sorted(member.numbers) == [1, 2])
    with pytest.raises(TypeError, match="serializer_format"):
        await here.group_send("room", {"type": "x", "data": b"bytes"})


async def test_a_message_may_be_too_large(server, layer_of):
    layer = layer_of(server, max_message_bytes=1_000)
    for send, name in ((layer.group_send, "room"), (layer.send, "work")):
        with pytest.raises(MessageTooLarge, match="max_message_bytes=1000"):
            await send(name, {"type": "x", "text": "x" * 1_000})


async def test_too_much_may_wait_for_redis(own_server, layer_of, monkeypatch):
    monkeypatch.setattr(network_module, "_WAITING_BYTES", 100_000)
    layer = layer_of(own_server, send_timeout=1)
    await layer.group_send("room", {"type": "x"})
    own_server.pause()
    sending = [
        asyncio.ensure_future(layer.group_send("room", {"type": "x", "text": "x" * 40_000}))
        for _ in range(2)
    ]
    await asyncio.sleep(0.05)
    with pytest.raises(ChannelFull, match="bytes wait for Redis"):
        await layer.group_send("room", {"type": "x", "text": "x" * 40_000})
    own_server.resume()
    await asyncio.gather(*sending)


# Roads


async def test_a_unix_socket(layer_of, tmp_path):
    path = tmp_path / "redis.sock"
    with RedisServer(unixsocket=path):
        hosts = [{"path": str(path), "socket_keepalive": True}]
        here, there = (layer_of(None, hosts=hosts) for _ in range(2))
        member = await Member.of(here, "room")
        await news(there, 1)
        await asyncio.to_thread(there.group_send_sync, "room", {"type": "news", "number": 2})
        await member.hears(2)
        await here.close()
        await there.close()


async def test_tls(layer_of, tmp_path, certificate):
    key, cert = certificate
    with RedisServer(
        tls_cert_file=cert, tls_key_file=key, tls_auth_clients="no", tls=True
    ) as server:
        url = f"rediss://127.0.0.1:{server.port}"
        here, there = (
            layer_of(None, hosts=[{"address": url, "ssl_ca_certs": str(cert)}]) for _ in range(2)
        )
        member = await Member.of(here, "room")
        await news(there, 1)
        await asyncio.to_thread(there.group_send_sync, "room", {"type": "news", "number": 2})
        await member.hears(2)
        strict = layer_of(None, hosts=[url], send_timeout=0.5)
        with pytest.raises(ChannelLayerUnavailable, match=r"(?i)certificate"):
            await strict.new_channel()
        for layer in (here, there, strict):
            await layer.close()


async def test_several_servers_share_the_groups(server, own_server, layer_of):
    hosts = [server.url, own_server.url]
    here, there = (layer_of(None, hosts=hosts) for _ in range(2))
    groups = [f"room{number}" for number in range(40)]
    member = await Member.of(here, *groups)
    for number, group in enumerate(groups):
        assert await news(there, number, group) == 1
    await member.until(lambda: len(member.numbers) == 40)
    names = here._plan.names
    for index, each in enumerate((server, own_server)):
        there_now = set(each.ask("PUBSUB", "CHANNELS", f"{names.prefix}:group:*"))
        assert there_now == {names.group(group) for group in groups if shard_of(group, 2) == index}
        assert len(there_now) > 10
    for channel in ("work", "play", "sleep", "eat"):
        await there.send(channel, {"type": "job"})
        await there.group_add("room0", channel)
        async with asyncio.timeout(5):
            assert await here.receive(channel) == {"type": "job"}


# Django's setting


async def test_the_setting(server, prefix):
    config = {"hosts": [server.url], "prefix": prefix}
    for path in ("headrace.layers.redis.RedisChannelLayer", "headrace.layers.RedisChannelLayer"):
        with override_settings(CHANNEL_LAYERS={"default": {"BACKEND": path, "CONFIG": config}}):
            layer = get_channel_layer()
            assert isinstance(layer, RedisChannelLayer)
            await layer.send("work", {"type": "x"})
            assert await layer.receive("work") == {"type": "x"}
            await layer.close()
    assert "default" not in channel_layers.backends


def test_without_redis_py_it_says_what_to_install():
    program = """
import sys
sys.modules["redis"] = None
from django.conf import settings
settings.configure(CHANNEL_LAYERS={
    "default": {"BACKEND": "headrace.layers.redis.RedisChannelLayer"}})
from headrace.layers import *
try:
    get_channel_layer()
except InvalidChannelLayerError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=30
    )
    assert "pip install 'headrace[redis]'" in done.stdout, done


async def test_a_lost_reply_is_no_secret(own_server, layer_of, caplog):
    """The log says once what is wrong, and once that it is over."""
    caplog.set_level(logging.INFO, "headrace")
    here = layer_of(own_server)
    member = await Member.of(here, "room")
    own_server.restart()
    await member.told()
    texts = [record.message for record in caplog.records]
    assert sum("the connection to Redis is lost" in text for text in texts) == 1
    assert sum("is there again" in text for text in texts) == 1
    assert sum("may have been missed" in text for text in texts) == 1


async def test_closing_does_not_wait_for_ever(own_server, layer_of, monkeypatch):
    monkeypatch.setattr(layer_module, "_STOP_S", 0.01)
    layer = layer_of(own_server)
    await layer.new_channel()
    own_server.pause()
    async with asyncio.timeout(3):
        await layer.close()
    own_server.resume()


async def test_a_named_channel_without_room_is_counted_by_a_group_send(server, layer_of):
    here, there = layer_of(server, capacity=1), layer_of(server, capacity=1)
    await here.group_add("room", "work")
    await news(there, 1)
    await news(there, 2)
    await asyncio.to_thread(there.group_send_sync, "room", {"type": "news", "number": 3})
    assert there.dropped == 2
    async with asyncio.timeout(5):
        assert (await here.receive("work"))["number"] == 1
    assert here.stats["dropped"] == 0


async def test_what_fails_for_reasons_of_its_own_begins_anew(own_server, layer_of, caplog):
    here, there = layer_of(own_server), layer_of(own_server)
    member = await Member.of(here, "room")
    await news(there, 0)
    (node,) = there._network._nodes.values()
    failures = 2

    def carry_out(wire, original=node.lane._carry_out):
        nonlocal failures
        if failures:
            failures -= 1
            raise ZeroDivisionError("a mistake of ours")
        return original(wire)

    node.lane._carry_out = carry_out
    await news(there, 1)
    await member.hears(1)
    assert "and begins anew" in caplog.text


async def test_a_thread_that_has_died_has_a_successor(own_server, layer_of, monkeypatch):
    layer = layer_of(own_server)
    member = await Member.of(layer, "room")
    dead = layer._network.thread
    dead.stop()
    await asyncio.wrap_future(dead.ended)
    await layer.group_send("room", {"type": "news", "number": 1})
    other = layer_of(own_server)
    await layer.new_channel()
    await eventually(lambda: layer._network.hears("room"))
    assert await news(other, 2) == 1
    await member.hears(2)


def test_a_reader_whose_loop_is_gone_takes_nothing_with_it(server, prefix):
    layer = RedisChannelLayer([server.url], prefix=prefix)

    async def begin():
        task = asyncio.ensure_future(layer.receive("work"))
        await asyncio.to_thread(server_has_reader)
        return task

    def server_has_reader():
        until(lambda: server.ask("LLEN", layer._plan.names.readers("work")), "a reader")

    stopped, closed = asyncio.new_event_loop(), asyncio.new_event_loop()
    waiting = [stopped.run_until_complete(begin()), closed.run_until_complete(begin())]
    closed.close()
    layer.send_sync("work", {"type": "job"})
    assert async_to_sync(layer.receive)("work") == {"type": "job"}
    waiting[0].cancel()
    stopped.run_until_complete(asyncio.wait(waiting[:1]))
    stopped.close()
    waiting[1]._log_destroy_pending = False
    async_to_sync(layer.close)()
