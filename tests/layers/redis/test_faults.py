"""What can happen to Redis, done to real servers: nothing is lost in silence, and all recovers."""

import asyncio
import signal

import pytest

from headrace.exceptions import ChannelLayerUnavailable, InvalidChannelLayerError
from headrace.layers.redis.names import Names, slot_of

from .members import Member, eventually, news
from .servers import Cluster, RedisServer, free_port

GAP = "layer.gap"


async def test_a_lost_connection_is_made_again_and_told(own_server, layer_of, caplog):
    calls = []
    here = layer_of(
        own_server,
        on_disconnect=lambda host: calls.append(("lost", host)),
        on_reconnect=lambda host: calls.append(("back", host)),
    )
    there = layer_of(own_server)
    member = await Member.of(here, "room", "lobby")
    other = await Member.of(here, "room", hears_gaps=False)
    assert await news(there, 1) == 1
    await member.hears(1)
    own_server.drop_connections()
    gap = await member.told()
    assert gap["groups"] == ["lobby", "room"]
    assert f"lost (redis://127.0.0.1:{own_server.port} (hosts[0]))" in gap["reason"]
    assert not other.of_type(GAP)
    assert await news(there, 2) == 1
    await member.hears(2)
    await other.hears(2)
    assert member.numbers == other.numbers == [1, 2]
    stats = here.stats
    assert (stats["gaps"], stats["disconnects"], stats["reconnects"]) == (1, 1, 1)
    await eventually(lambda: len(calls) == 2)
    assert calls == [(what, f"{own_server.url} (hosts[0])") for what in ("lost", "back")]
    assert sum("may have been missed" in record.message for record in caplog.records) == 1


async def test_hooks_may_be_coroutines_and_may_fail(own_server, layer_of, caplog):
    called = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def on_disconnect(host):
        loop.call_soon_threadsafe(called.set)

    def on_reconnect(host):
        raise RuntimeError("a hook's mistake")

    here = layer_of(own_server, on_disconnect=on_disconnect, on_reconnect=on_reconnect)
    member = await Member.of(here, "room")
    own_server.drop_connections()
    await member.told()
    async with asyncio.timeout(5):
        await called.wait()
    await eventually(lambda: "on_reconnect of the channel layer failed" in caplog.text)
    await news(here, 1)
    await member.hears(1)


async def test_a_server_that_restarts(own_server, layer_of):
    here, there = layer_of(own_server), layer_of(own_server)
    member = await Member.of(here, "room")
    await news(there, 1)
    own_server.kill()
    waiting = asyncio.create_task(news(there, 2))
    sync = asyncio.create_task(
        asyncio.to_thread(there.group_send_sync, "room", {"type": "news", "number": 3})
    )
    await asyncio.sleep(0)
    own_server.start()
    # Both have waited, and arrived or are within what is told to be missing.
    await asyncio.gather(waiting, sync)
    await member.told()
    await news(there, 4)
    await member.hears(4)
    assert len(member.numbers) == len(set(member.numbers))


async def test_while_there_is_no_server_senders_wait_and_then_get_an_error(own_server, layer_of):
    here, there = (layer_of(own_server, send_timeout=0.4) for _ in range(2))
    member = await Member.of(here, "room")
    other = await Member.of(there)
    own_server.kill()
    await eventually(lambda: here.stats["disconnects"])
    calls = [
        here.group_send("room", {"type": "news", "number": 1}),
        here.send(other.channel, {"type": "news"}),
        here.send("work", {"type": "job"}),
        here.group_add("new", member.channel),
        here.group_add("room", "work"),
        asyncio.to_thread(here.group_send_sync, "room", {"type": "news", "number": 2}),
        asyncio.to_thread(here.send_sync, "work", {"type": "job"}),
    ]
    began = asyncio.get_running_loop().time()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert asyncio.get_running_loop().time() - began < 4
    for result in results:
        assert isinstance(result, ChannelLayerUnavailable), result
        assert f"127.0.0.1:{own_server.port}" in str(result)
        assert "hosts" in str(result)
    # Who is here hears what is sent here, all the same.
    assert member.numbers[0] == 1
    # And a connection is still taken, for it will be told that it may have missed something.
    late = await Member.of(here)
    own_server.start()
    assert (await late.told())["groups"] == []
    await member.told()
    await news(there, 3)
    await member.hears(3)


async def test_a_server_that_is_paused(own_server, layer_of):
    hosts = [{"address": own_server.url, "health_check_interval": 0.1, "socket_timeout": 0.3}]
    here, there = (layer_of(own_server, hosts=hosts, send_timeout=0.8) for _ in range(2))
    member = await Member.of(here, "room")
    await news(there, 1)
    own_server.pause()
    try:
        with pytest.raises(ChannelLayerUnavailable, match="may have arrived"):
            await news(there, 2)
        with pytest.raises(ChannelLayerUnavailable):
            await asyncio.to_thread(there.group_send_sync, "room", {"type": "news", "number": 3})
        # The one who listens finds out by himself.
        await eventually(lambda: here.stats["disconnects"])
    finally:
        own_server.resume()
    await member.told()
    await news(there, 4)
    await member.hears(4)
    assert len(member.numbers) == len(set(member.numbers))


async def test_a_short_pause_is_no_loss(own_server, layer_of):
    here, there = layer_of(own_server), layer_of(own_server)
    member = await Member.of(here, "room")
    own_server.pause()
    sending = [asyncio.create_task(news(there, number)) for number in range(20)]
    await asyncio.sleep(0.2)
    own_server.resume()
    assert await asyncio.gather(*sending) == [1] * 20
    await member.hears(19)
    assert member.numbers == list(range(20))
    assert not member.of_type(GAP)


async def test_what_is_sent_again_because_the_answer_was_lost_arrives_once(own_server, layer_of):
    hosts = [{"address": own_server.url, "socket_timeout": 0.2}]
    here, there = layer_of(own_server), layer_of(own_server, hosts=hosts)
    member = await Member.of(here, "room")
    await news(there, 0)
    await asyncio.to_thread(there.group_send_sync, "room", {"type": "news", "number": 1})
    await there.send("work", {"type": "job", "number": 0})
    for number in (2, 3):
        # It takes the words, and says nothing for longer than the sender waits for an answer.
        own_server.pause()
        sending = [
            asyncio.create_task(news(there, 10 * number)),
            asyncio.create_task(
                asyncio.to_thread(
                    there.group_send_sync, "room", {"type": "news", "number": 10 * number + 1}
                )
            ),
            asyncio.create_task(there.send("work", {"type": "job", "number": number})),
        ]
        await asyncio.sleep(0.35)
        own_server.resume()
        await asyncio.gather(*sending)
    await news(there, 40)
    await member.hears(40)
    assert sorted(member.numbers) == [0, 1, 20, 21, 30, 31, 40]
    assert here.stats["repeated"] >= 2
    async with asyncio.timeout(5):
        jobs = [(await here.receive("work"))["number"] for _ in range(3)]
    assert jobs == [0, 2, 3]
    assert own_server.ask("LLEN", Names(here._plan.names.prefix).queue("work")) == 0


async def test_another_primary_by_a_failover_that_was_asked_for(own_sentinels, layer_of):
    hosts = [{**own_sentinels.hosts[0], "health_check_interval": 0.2}]
    here, there = (layer_of(own_sentinels, hosts=hosts) for _ in range(2))
    member = await Member.of(here, "room")
    await news(there, 1)
    sending = asyncio.create_task(keep_sending(there, 2))
    sync = asyncio.create_task(keep_sending(there, 100_000, synchronously=True))
    try:
        await asyncio.to_thread(own_sentinels.fail_over)
        await member.told()
        former, primary = own_sentinels.servers
        assert own_sentinels.primary() is primary
        # Until the former one is told to be a replica, both are listened to.
        for server in (former, primary):
            assert len(server.ask("PUBSUB", "CHANNELS")) > 1
        gaps = here.stats["gaps"]
        former.drop_connections()
        await member.until(lambda: len(member.of_type(GAP)) > 1)
        assert "former primary" in (await member.told())["reason"]
        assert here.stats["gaps"] == gaps + 1
        assert not here.stats["disconnects"]
        await here.group_add("late", member.channel)
        assert await news(there, 0, "late") == 1
    finally:
        last, last_sync = await stop(sending), await stop(sync)
    await member.hears(last)
    await member.hears(last_sync)
    for heard in (
        [number for number in member.numbers if 0 < number < 100_000],
        [number for number in member.numbers if number >= 100_000],
    ):
        assert heard == sorted(set(heard))


async def test_another_primary_because_the_old_one_is_dead(own_sentinels, layer_of):
    here, there = layer_of(own_sentinels), layer_of(own_sentinels)
    member = await Member.of(here, "room")
    await news(there, 1)
    own_sentinels.primary().kill()
    # It takes the Sentinels a second or so, and the sender waits.
    await news(there, 2)
    await member.told()
    await news(there, 3)
    await member.hears(3)
    await asyncio.to_thread(there.group_send_sync, "room", {"type": "news", "number": 4})
    await member.hears(4)


async def test_no_sentinel_knows_the_name(sentinels, layer_of):
    hosts = [{**sentinels.hosts[0], "master_name": "nobody"}]
    layer = layer_of(sentinels, hosts=hosts, send_timeout=0.3)
    for call in (layer.new_channel, lambda: asyncio.to_thread(layer.send_sync, "w", {"type": "x"})):
        with pytest.raises(ChannelLayerUnavailable, match=r"hosts\[0\].*'nobody'.*knows of none"):
            await call()


async def test_no_sentinel_is_there(layer_of):
    hosts = [{"sentinels": [("127.0.0.1", free_port())], "master_name": "m"}]
    layer = layer_of(None, hosts=hosts, send_timeout=0.3)
    for call in (layer.new_channel, lambda: asyncio.to_thread(layer.send_sync, "w", {"type": "x"})):
        with pytest.raises(ChannelLayerUnavailable, match=r"hosts\[0\]\['sentinels'\]\[0\]"):
            await call()


async def keep_sending(layer, number, *, synchronously=False):
    """Send numbers until this is stopped; return the last."""
    while not keep_sending.stop:
        event = {"type": "news", "number": number}
        if synchronously:
            await asyncio.to_thread(layer.group_send_sync, "room", event)
        else:
            await layer.group_send("room", event)
        number += 1
        await asyncio.sleep(0.002)
    return number - 1


@pytest.fixture(autouse=True)
def _begin_sending():
    keep_sending.stop = False


async def stop(task):
    keep_sending.stop = True
    return await task


async def test_a_node_of_a_cluster_that_goes_and_comes(layer_of):
    with Cluster(cluster_require_full_coverage="no") as cluster:
        here, there = (layer_of(cluster, send_timeout=1) for _ in range(2))
        groups = {}
        number = 0
        while len(groups) < 3:
            group = f"room{number}"
            groups.setdefault(cluster.owner(slot_of(group)), group)
            number += 1
        member = await Member.of(here, *groups.values())
        # Not one that our own channel is on.
        own = {cluster.owner(slot_of(tag)) for tag in (here.process, there.process, "everyone")}
        node = next((node for node in cluster.nodes if node not in own), cluster.nodes[0])
        gone = groups.pop(node)
        node.kill()
        await eventually(lambda: here.stats["disconnects"])
        for group in groups.values():
            await news(there, 1, group)
        await member.until(lambda: member.numbers == [1, 1])
        with pytest.raises(ChannelLayerUnavailable):
            await news(there, 2, gone)
        with pytest.raises(ChannelLayerUnavailable):
            await asyncio.to_thread(there.group_send_sync, gone, {"type": "news", "number": 2})
        node.start()
        gap = await member.told()
        assert gone in gap["groups"]
        await eventually(cluster.is_well)
        await news(there, 3, gone)
        await member.hears(3)


async def test_a_slot_that_moves_to_another_node(own_cluster, layer_of):
    here, there = layer_of(own_cluster), layer_of(own_cluster)
    member = await Member.of(here, "room", "other")
    await here.group_add("room", "work")
    await there.send("work", {"type": "job", "number": 0})
    await news(there, 1)
    await member.hears(1)
    slots = {slot_of("room"), slot_of("work")}
    for slot in slots:
        await asyncio.to_thread(own_cluster.move, slot)
    gap = await member.told()
    assert gap["groups"] == ["room"]
    await news(there, 2)
    await asyncio.to_thread(there.group_send_sync, "room", {"type": "news", "number": 3})
    await member.hears(3)
    assert member.numbers == [1, 2, 3]
    async with asyncio.timeout(5):
        jobs = [await here.receive("work") for _ in range(4)]
    assert [job["number"] for job in jobs] == [0, 1, 2, 3]


async def test_a_slot_that_is_given_to_the_node_that_has_it(own_cluster, layer_of):
    """The node ends the subscriptions, as it does when the slot goes and comes back at once."""
    here, there = layer_of(own_cluster), layer_of(own_cluster)
    member = await Member.of(here, "room")
    slot = slot_of("room")
    owner = own_cluster.owner(slot)
    await asyncio.to_thread(
        owner.ask, "CLUSTER", "SETSLOT", slot, "NODE", owner.ask("CLUSTER", "MYID")
    )
    assert (await member.told())["groups"] == ["room"]
    await news(there, 1)
    await member.hears(1)


async def test_a_slot_that_is_about_to_move(own_cluster, layer_of):
    """Half of it is there, half here: Redis Cluster, "ASK redirection"."""
    here, there = layer_of(own_cluster), layer_of(own_cluster)
    member = await Member.of(here, "room")
    slots = [slot_of(group) for group in ("room", "work")]
    moves = [own_cluster.begin_move(slot) for slot in slots]
    await news(there, 1)
    await asyncio.to_thread(there.group_send_sync, "room", {"type": "news", "number": 2})
    await member.hears(2)
    # A queue of which a part may be elsewhere waits until that is over.
    sending = [
        asyncio.create_task(there.send("work", {"type": "job", "number": 1})),
        asyncio.create_task(
            asyncio.to_thread(there.send_sync, "work", {"type": "job", "number": 2})
        ),
    ]
    await asyncio.sleep(0.1)
    assert not any(task.done() for task in sending)
    for slot, move in zip(slots, moves, strict=True):
        own_cluster.end_move(slot, *move)
    await asyncio.gather(*sending)
    async with asyncio.timeout(5):
        assert sorted([(await here.receive("work"))["number"] for _ in range(2)]) == [1, 2]


async def test_a_queue_whose_slot_moves_for_too_long(own_cluster, layer_of):
    layer = layer_of(own_cluster, send_timeout=0.5)
    await layer.new_channel()
    own_cluster.begin_move(slot_of("work"))
    for call in (layer.send, lambda *args: asyncio.to_thread(layer.send_sync, *args)):
        with pytest.raises(ChannelLayerUnavailable, match="TRYAGAIN"):
            await call("work", {"type": "job"})


async def test_a_cluster_of_which_no_node_is_there(layer_of):
    layer = layer_of(None, hosts=[{"cluster": [("127.0.0.1", free_port())]}], send_timeout=0.3)
    for call in (layer.new_channel, lambda: asyncio.to_thread(layer.send_sync, "w", {"type": "x"})):
        with pytest.raises(ChannelLayerUnavailable, match=r"hosts\[0\]"):
            await call()
    with pytest.raises(ChannelLayerUnavailable, match=r"hosts\[0\]"):
        await layer.send("work", {"type": "x"})


async def test_memory_that_is_used_up(layer_of):
    with RedisServer(maxmemory="2mb", maxmemory_policy="noeviction") as server:
        here, there = layer_of(server), layer_of(server)
        member = await Member.of(here, "room")
        big = {"type": "job", "text": "x" * 200_000}
        filling = asyncio.gather(*(there.send("work", big) for _ in range(50)))
        with pytest.raises(ChannelLayerUnavailable, match="maxmemory"):
            await filling
        with pytest.raises(ChannelLayerUnavailable, match="maxmemory"):
            await asyncio.to_thread(there.send_sync, "work", big)
        # What needs no memory in Redis goes on.
        await news(there, 1)
        await member.hears(1)
        async with asyncio.timeout(5):
            assert await here.receive("work") == big


async def test_a_wrong_password(layer_of):
    with RedisServer(user=["default off", "app on >secret ~* &* +@all"]) as server:
        for login, said in (
            ("", "wants a password"),
            ("app:wrong@", "does not let us in"),
            ("nobody:secret@", "does not let us in"),
        ):
            url = f"redis://{login}127.0.0.1:{server.port}"
            layer = layer_of(None, hosts=[url])
            for call in (
                layer.new_channel,
                lambda layer=layer: layer.send("work", {"type": "x"}),
                lambda layer=layer: layer.receive("work"),
                lambda layer=layer: asyncio.to_thread(layer.send_sync, "work", {"type": "x"}),
            ):
                with pytest.raises(
                    InvalidChannelLayerError, match=rf"hosts\[0\].*{said}"
                ) as caught:
                    async with asyncio.timeout(4):
                        await call()
                assert "secret" not in str(caught.value)
        right = layer_of(None, hosts=[f"redis://app:secret@127.0.0.1:{server.port}"])
        await right.send("work", {"type": "x"})
        assert await right.receive("work") == {"type": "x"}


async def test_a_user_who_may_not_do_it(layer_of):
    with RedisServer(user=["default off", "app on >secret ~* resetchannels +@all"]) as server:
        layer = layer_of(None, hosts=[f"redis://app:secret@127.0.0.1:{server.port}"])
        with pytest.raises(InvalidChannelLayerError, match=r"does not let us do this.*\+@pubsub"):
            await layer.new_channel()
        with pytest.raises(InvalidChannelLayerError, match="does not let us do this"):
            await layer.group_send("room", {"type": "x"})


async def test_a_user_who_may_do_what_the_page_says(layer_of, prefix):
    rights = "-@all +@connection +@pubsub +@read +@write +@scripting +time"
    user = ["default off", f"app on >secret ~{prefix}* &{prefix}* {rights}"]
    with RedisServer(user=user) as server:
        hosts = [f"redis://app:secret@127.0.0.1:{server.port}"]
        here, there = (layer_of(None, hosts=hosts) for _ in range(2))
        member = await Member.of(here, "room")
        await there.group_add("room", "work")
        await news(there, 1)
        await member.hears(1)
        async with asyncio.timeout(5):
            assert (await here.receive("work"))["number"] == 1
        await there.group_discard("room", "work")
        await there.flush()
        for layer in (here, there):
            await layer.close()


async def test_a_password_that_is_changed_while_we_run(own_server, layer_of):
    here = layer_of(own_server)
    member = await Member.of(here, "room")
    own_server.ask("CONFIG", "SET", "requirepass", "new")
    with own_server.client(password="new") as client:
        client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        with pytest.raises(InvalidChannelLayerError, match="wants a password"):
            await news(here, 1)
        client.config_set("requirepass", "")
    await member.told()
    await news(here, 2)
    assert member.numbers[-1] == 2


async def test_a_server_that_is_not_there_at_the_start(layer_of):
    layer = layer_of(None, hosts=[("127.0.0.1", free_port())], send_timeout=0.3)
    began = asyncio.get_running_loop().time()
    with pytest.raises(ChannelLayerUnavailable, match=r"hosts\[0\].*Is the server up\?"):
        await layer.new_channel()
    assert asyncio.get_running_loop().time() - began < 2


async def test_a_server_of_another_kind(server, sentinels, cluster, layer_of):
    replica = next(each for each in sentinels.servers if each is not sentinels.primary())
    for hosts, error, said in (
        ([cluster.nodes[0].url], InvalidChannelLayerError, r"write \{'cluster'"),
        ([{"cluster": [server.url]}], InvalidChannelLayerError, "no cluster"),
        ([sentinels.sentinels[0].address], InvalidChannelLayerError, r"write \{'sentinels'"),
        (
            [{"sentinels": [server.url], "master_name": "m"}],
            InvalidChannelLayerError,
            "no Sentinel",
        ),
        ([replica.url], ChannelLayerUnavailable, "is a replica: name the primary"),
    ):
        layer = layer_of(None, hosts=hosts, send_timeout=0.3)
        for call in (
            layer.new_channel,
            lambda layer=layer: asyncio.to_thread(layer.send_sync, "work", {"type": "x"}),
        ):
            with pytest.raises(error, match=said):
                await call()


async def test_a_server_that_ends_politely(own_server, layer_of):
    here = layer_of(own_server)
    member = await Member.of(here, "room")
    own_server.kill(signal.SIGTERM)
    own_server.start()
    await member.told()
    await news(here, 1)
    assert member.numbers == [1]


async def test_shards_fail_one_by_one(server, own_server, layer_of):
    hosts = [server.url, own_server.url]
    here, there = (layer_of(None, hosts=hosts, send_timeout=0.5) for _ in range(2))
    from headrace.layers.redis.names import shard_of

    groups = {shard_of(f"room{number}", 2): f"room{number}" for number in range(20)}
    member = await Member.of(here, *groups.values())
    for number, group in groups.items():
        assert await news(there, number, group) == 1
    await member.until(lambda: sorted(member.numbers) == [0, 1])
    own_server.kill()
    await eventually(lambda: here.stats["disconnects"])
    assert await news(there, 2, groups[0]) == 1
    await member.hears(2)
    with pytest.raises(ChannelLayerUnavailable, match=r"hosts\[1\]"):
        await news(there, 3, groups[1])
    own_server.start()
    gap = await member.told()
    assert groups[1] in gap["groups"]
    await news(there, 4, groups[1])
    await member.hears(4)
