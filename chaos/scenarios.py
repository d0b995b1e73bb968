"""What is broken, and what a layer may do about it: one scenario for each fault.

Rules of this file:

- A scenario breaks things for as long as it is given, once at least, and leaves everything whole.
- ``may`` is the promise: whatever is not in it must not happen under that fault. Nothing may be
  lost untold, arrive twice or out of order under any.
"""

import contextlib
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .account import Account
from .proxy import Proxy
from .stage import Part, Stage

__all__ = ["SCENARIOS", "Scenario", "World"]

LOCAL = "headrace.layers.local.LocalChannelLayer"
REDIS = "headrace.layers.redis.RedisChannelLayer"

SERVER = Part(members=3, senders=1, reads=("jobs",))
VIEWS = Part(threads=1, senders=1)


@dataclass(slots=True)
class World:
    """What a layer stands on."""

    layer: Mapping[str, Any]
    environment: dict[str, str] = field(default_factory=dict)
    #: A server, or what several of them are to their tests.
    servers: Any = None
    proxy: Proxy | None = None
    replicas: list[Any] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A fault: the world in which it happens, and what happens there."""

    key: str
    title: str
    world: Callable[[Path], contextlib.AbstractContextManager[World]]
    play: Callable[[Stage, World], None]
    may: frozenset[str]
    parts: Mapping[str, Part] = field(
        default_factory=lambda: {"one": SERVER, "two": SERVER, "views": VIEWS}
    )

    def run(
        self,
        *,
        seed: str,
        seconds: float,
        directory: Path,
        layer: Callable[[Mapping[str, Any]], Mapping[str, Any]] = lambda layer: layer,
    ) -> Account:
        """Play it, and return the account; ``layer`` may change the configuration."""
        with (
            self.world(directory) as world,
            Stage(
                layer=layer(world.layer),
                seed=f"{self.key} {seed}",
                directory=directory,
                seconds=seconds,
                environment=world.environment,
            ) as stage,
        ):
            stage.cast(**self.parts)
            self.play(stage, world)
            account = stage.finish()
        for name in ("refused", "told", "counted", "gone"):
            if name not in self.may and (number := getattr(account, name)):
                account.fail(f"{number} {name}, where none may be")
        if account.gaps and "told" not in self.may:
            account.fail(f"{account.gaps} gaps told, where nothing may be missed")
        return account


# Worlds


@contextlib.contextmanager
def _local(directory: Path) -> Iterator[World]:
    del directory  # the path of a Unix socket is short
    with tempfile.TemporaryDirectory(prefix="chaos-") as place:
        yield World({"BACKEND": LOCAL, "CONFIG": {"directory": f"{place}/run"}})


@contextlib.contextmanager
def _narrow(directory: Path) -> Iterator[World]:
    """Let hardly anything wait for a process that reads slowly."""
    with _local(directory) as world:
        world.layer["CONFIG"]["buffer_bytes"] = 100_000
        yield world


def _redis_layer(hosts: list[Any]) -> Mapping[str, Any]:
    return {"BACKEND": REDIS, "CONFIG": {"hosts": hosts}}


@contextlib.contextmanager
def _redis(directory: Path) -> Iterator[World]:
    from tests.layers.redis.servers import RedisServer

    del directory
    # What waits for a worker survives the server if the server keeps it.
    with RedisServer(appendonly="yes") as server:
        yield World(_redis_layer([server.url]), servers=server)


@contextlib.contextmanager
def _impatient(directory: Path) -> Iterator[World]:
    """A server that cuts off who does not read."""
    from tests.layers.redis.servers import RedisServer

    del directory
    with RedisServer(appendonly="yes", client_output_buffer_limit="pubsub 512kb 256kb 1") as server:
        yield World(_redis_layer([server.url]), servers=server)


@contextlib.contextmanager
def _proxied(directory: Path) -> Iterator[World]:
    with _redis(directory) as world, Proxy(world.servers.port) as proxy:
        world.layer = _redis_layer([f"redis://127.0.0.1:{proxy.port}"])
        world.proxy = proxy
        yield world


@contextlib.contextmanager
def _sentinel(directory: Path) -> Iterator[World]:
    from tests.layers.redis.servers import SentinelSet

    del directory
    with SentinelSet() as servers:
        yield World(_redis_layer(servers.hosts), servers=servers)


@contextlib.contextmanager
def _cluster(directory: Path) -> Iterator[World]:
    from tests.layers.redis.servers import Cluster

    del directory
    with Cluster(appendonly="yes", repl_diskless_sync_delay=0) as servers:
        yield World(_redis_layer(servers.hosts), servers=servers)


@contextlib.contextmanager
def _replicated_cluster(directory: Path) -> Iterator[World]:
    """A cluster each of whose primaries has a replica that takes over."""
    from tests.layers.redis.servers import RedisServer, free_port, until

    with _cluster(directory) as world, contextlib.ExitStack() as stack:
        cluster = world.servers
        for primary in cluster.nodes:
            port = free_port()
            replica = stack.enter_context(
                RedisServer(
                    cluster_enabled="yes",
                    cluster_port=port,
                    cluster_node_timeout=1000,
                    repl_diskless_sync_delay=0,
                )
            )
            replica.ask("CLUSTER", "MEET", *primary.address, primary.options["cluster_port"])
            name = primary.ask("CLUSTER", "MYID")
            until(
                lambda replica=replica, name=name: name in replica.ask("CLUSTER", "NODES"), "a node"
            )
            replica.ask("CLUSTER", "REPLICATE", name)
            until(
                lambda replica=replica: replica.info("replication")["master_link_status"] == "up",
                "a replica",
            )
            world.replicas.append(replica)
        yield world


# Faults of any layer


def calm(stage: Stage, world: World) -> None:
    del world
    for _ in stage.acts():
        stage.sleep(1)


def workers_are_killed(stage: Stage, world: World) -> None:
    del world
    for _ in stage.acts():
        victim = stage.chance.choice([actor for actor in stage.living() if "two" in actor.name])
        stage.kill(victim)
        stage.sleep(stage.chance.uniform(0, 0.5))
        stage.replace(victim)


def a_receiver_is_stopped(stage: Stage, world: World) -> None:
    del world
    for _ in stage.acts():
        with stage.paused(stage.living("two")[0]):
            stage.sleep(stage.chance.uniform(0.5, 3))


def a_client_reads_nothing(stage: Stage, world: World) -> None:
    del world
    stage.serve()
    for number in stage.acts():
        if number == 0:
            stage.visit(members=3, silent=20)
        stage.sleep(1)


def a_site_is_killed(stage: Stage, world: World) -> None:
    del world
    site = stage.serve()
    stage.visit(members=5)
    for _ in stage.acts():
        site.send_signal(signal.SIGKILL)
        site.wait()
        stage.sleep(stage.chance.uniform(0, 0.5))
        site = stage.serve()


# Faults of the local layer


def a_sender_is_killed_that_has_something_left(stage: Stage, world: World) -> None:
    """Its messages for a receiver that is stopped wait in its own memory, and go with it."""
    del world
    for _ in stage.acts():
        victim = stage.chance.choice(stage.living("views"))
        with stage.paused(stage.living("two")[0]):
            stage.sleep(stage.chance.uniform(1, 3))
            stage.kill(victim)
        stage.replace(victim)


def the_directory_is_removed(stage: Stage, world: World) -> None:
    for _ in stage.acts():
        shutil.rmtree(world.layer["CONFIG"]["directory"], ignore_errors=True)
        stage.sleep(8)


# Faults of Redis


def the_server_is_killed(stage: Stage, world: World) -> None:
    for _ in stage.acts():
        world.servers.kill()
        stage.sleep(stage.chance.choice((0.0, 0.3, 1.5)))
        world.servers.start()


def the_server_is_paused(stage: Stage, world: World) -> None:
    for _ in stage.acts():
        world.servers.pause()
        try:
            stage.sleep(stage.chance.choice((0.2, 1.0, 4.0, 7.0)))
        finally:
            world.servers.resume()


def memory_runs_out(stage: Stage, world: World) -> None:
    for _ in stage.acts():
        world.servers.ask("CONFIG", "SET", "maxmemory", "1")
        stage.sleep(stage.chance.uniform(0.3, 1.5))
        world.servers.ask("CONFIG", "SET", "maxmemory", "0")


def connections_are_killed(stage: Stage, world: World) -> None:
    for _ in stage.acts():
        kind = stage.chance.choice(("pubsub", "normal", "both"))
        for each in ("pubsub", "normal") if kind == "both" else (kind,):
            world.servers.ask("CLIENT", "KILL", "TYPE", each, "SKIPME", "yes")


def the_network_fails(stage: Stage, world: World) -> None:
    proxy = world.proxy
    assert proxy is not None
    for _ in stage.acts():
        match stage.chance.choice(("cut", "hold", "swallow")):
            case "cut":
                proxy.cut()
            case "hold":
                proxy.hold()
                stage.sleep(stage.chance.choice((0.3, 1.0, 4.0, 7.0)))
                proxy.release()
            case "swallow":
                proxy.swallow()
                stage.sleep(stage.chance.choice((0.1, 1.0, 4.0, 7.0)))
                proxy.release()


def the_primary_is_lost(stage: Stage, world: World) -> None:
    for number in stage.acts():
        before = world.servers.primary()
        if number % 2 == 0:
            before.kill()
            _until_another_leads(stage, world, before)
            before.start()
        else:
            world.servers.fail_over()
        stage.sleep(2)
        _until_replicated(stage, world)


def _until_another_leads(stage: Stage, world: World, before: Any) -> None:
    while world.servers.primary() is before:
        stage.sleep(0.1)


def _until_replicated(stage: Stage, world: World) -> None:
    """Wait until the other server follows the primary: there is none to fail over to before."""
    for _ in range(100):
        primary = world.servers.primary()
        replication = primary.info("replication")
        if replication["role"] == "master" and replication["connected_slaves"] == 1:
            return
        stage.sleep(0.1)


def a_node_is_lost(stage: Stage, world: World) -> None:
    for _ in stage.acts():
        node = stage.chance.choice(world.servers.nodes)
        node.kill()
        stage.sleep(stage.chance.choice((0.3, 2.5)))
        node.start()
        while not world.servers.is_well():
            stage.sleep(0.1)


def a_replica_takes_over(stage: Stage, world: World) -> None:
    nodes = [*world.servers.nodes, *world.replicas]
    for _ in stage.acts():
        _until_each_is_followed(stage, nodes)
        node = stage.chance.choice([node for node in nodes if _followers(node)])
        node.kill()
        stage.sleep(stage.chance.choice((2.0, 4.0)))
        node.start()
    _until_each_is_followed(stage, nodes)


def _followers(node: Any) -> int:
    replication = node.info("replication")
    leads = replication["role"] == "master"
    return int(replication["connected_slaves"]) if leads else 0


def _until_each_is_followed(stage: Stage, nodes: list[Any]) -> None:
    for _ in range(200):
        well = all("cluster_state:ok" in node.ask("CLUSTER", "INFO") for node in nodes)
        if well and sum(map(_followers, nodes)) == len(nodes) // 2:
            return
        stage.sleep(0.1)


NOTHING: frozenset[str] = frozenset()
OUTAGE = frozenset({"refused", "told"})

SCENARIOS = (
    Scenario(
        key="local-calm", title="local: nothing happens", world=_local, play=calm, may=NOTHING
    ),
    Scenario(
        key="local-churn",
        title="local: members come and go",
        world=_local,
        play=calm,
        may=frozenset({"gone"}),
        parts={
            "one": Part(members=4, senders=1, churn_s=0.2),
            "two": Part(members=4, senders=1, churn_s=0.2),
        },
    ),
    Scenario(
        key="local-kill",
        title="local: processes are killed",
        world=_local,
        play=workers_are_killed,
        may=frozenset({"gone"}),
        parts={"one": SERVER, "two": SERVER, "another-two": SERVER, "views": VIEWS},
    ),
    Scenario(
        key="local-stop",
        title="local: a receiver is stopped for a while",
        world=_local,
        play=a_receiver_is_stopped,
        may=OUTAGE,
    ),
    Scenario(
        key="local-full",
        title="local: the same, and hardly anything may wait for it",
        world=_narrow,
        play=a_receiver_is_stopped,
        may=OUTAGE,
    ),
    Scenario(
        key="local-left",
        title="local: a sender is killed that others have not read all of",
        world=_local,
        play=a_sender_is_killed_that_has_something_left,
        may=frozenset({"gone", "told"}),
        parts={"one": SERVER, "two": SERVER, "views": Part(senders=3, rate=300)},
    ),
    Scenario(
        key="local-removed",
        title="local: the directory where processes meet is removed",
        world=_local,
        play=the_directory_is_removed,
        may=OUTAGE,
        parts={"one": Part(members=3, senders=1), "two": Part(members=3, senders=1)},
    ),
    Scenario(
        key="local-slow",
        title="local: consumers are too slow",
        world=_local,
        play=calm,
        may=frozenset({"counted", "refused"}),
        parts={"one": Part(members=2, capacity=10, handling_s=0.02), "views": VIEWS},
    ),
    Scenario(
        key="local-silent",
        title="local: clients read nothing",
        world=_local,
        play=a_client_reads_nothing,
        may=NOTHING,
    ),
    Scenario(
        key="local-site",
        title="local: a server with its clients is killed",
        world=_local,
        play=a_site_is_killed,
        may=frozenset({"gone"}),
    ),
    Scenario(
        key="redis-calm", title="redis: nothing happens", world=_redis, play=calm, may=NOTHING
    ),
    Scenario(
        key="redis-churn",
        title="redis: members come and go",
        world=_redis,
        play=calm,
        may=frozenset({"gone"}),
        parts={
            "one": Part(members=4, senders=1, churn_s=0.2),
            "two": Part(members=4, senders=1, churn_s=0.2),
        },
    ),
    Scenario(
        key="redis-kill",
        title="redis: the server is killed and comes again",
        world=_redis,
        play=the_server_is_killed,
        may=OUTAGE,
    ),
    Scenario(
        key="redis-pause",
        title="redis: the server is paused",
        world=_redis,
        play=the_server_is_paused,
        may=OUTAGE,
    ),
    Scenario(
        key="redis-memory",
        title="redis: the server has no memory left",
        world=_redis,
        play=memory_runs_out,
        may=frozenset({"refused"}),
    ),
    Scenario(
        key="redis-cut",
        title="redis: the server drops connections",
        world=_redis,
        play=connections_are_killed,
        may=OUTAGE,
    ),
    Scenario(
        key="redis-network",
        title="redis: the network stalls, swallows and resets",
        world=_proxied,
        play=the_network_fails,
        may=OUTAGE,
    ),
    Scenario(
        key="redis-workers",
        title="redis: processes are killed",
        world=_redis,
        play=workers_are_killed,
        may=frozenset({"gone"}),
        parts={"one": SERVER, "two": SERVER, "another-two": SERVER, "views": VIEWS},
    ),
    Scenario(
        key="redis-stop",
        title="redis: a receiver is stopped for a while",
        world=_redis,
        play=a_receiver_is_stopped,
        may=OUTAGE,
    ),
    Scenario(
        key="redis-full",
        title="redis: the same, and the server cuts off who does not read",
        world=_impatient,
        play=a_receiver_is_stopped,
        may=OUTAGE,
        parts={
            "one": Part(members=2, senders=1),
            "two": Part(members=2, senders=1),
            "views": Part(senders=4, rate=300),
        },
    ),
    Scenario(
        key="redis-slow",
        title="redis: consumers are too slow",
        world=_redis,
        play=calm,
        may=frozenset({"counted", "refused"}),
        parts={"one": Part(members=2, capacity=10, handling_s=0.02), "views": VIEWS},
    ),
    Scenario(
        key="redis-silent",
        title="redis: clients read nothing",
        world=_redis,
        play=a_client_reads_nothing,
        may=NOTHING,
    ),
    Scenario(
        key="redis-site",
        title="redis: a server with its clients is killed",
        world=_redis,
        play=a_site_is_killed,
        may=frozenset({"gone"}),
    ),
    # A replica lags behind its primary, which may take accepted messages with it: those of
    # queues nobody could tell of, so that there are none here.
    Scenario(
        key="redis-failover",
        title="redis: the primary is lost, Sentinel fails over",
        world=_sentinel,
        play=the_primary_is_lost,
        may=OUTAGE,
        parts={
            "one": Part(members=3, senders=1),
            "two": Part(members=3, senders=1),
            "views": VIEWS,
        },
    ),
    Scenario(
        key="redis-cluster",
        title="redis: a node of a cluster is lost and comes again",
        world=_cluster,
        play=a_node_is_lost,
        may=OUTAGE,
        parts={
            "one": Part(members=3, senders=1, groups=("lobby", "stairs", "attic", "cellar")),
            "two": Part(members=3, senders=1, groups=("lobby", "stairs", "attic", "cellar")),
            "views": VIEWS,
        },
    ),
    Scenario(
        key="redis-takeover",
        title="redis: a node of a cluster is lost, its replica takes over",
        world=_replicated_cluster,
        play=a_replica_takes_over,
        may=OUTAGE,
        parts={
            "one": Part(members=3, senders=1, groups=("lobby", "stairs", "attic", "cellar")),
            "two": Part(members=3, senders=1, groups=("lobby", "stairs", "attic", "cellar")),
            "views": VIEWS,
        },
    ),
)
