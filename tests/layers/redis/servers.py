"""Real Redis (or Valkey) servers for tests: single ones, a Sentinel set, a cluster.

Rules of this file:

- Every server is started on a free port of the loopback, in a directory of its own that goes
  with it, keeps nothing on disk unless asked to, and is stopped by its own process id.
- What a test waits for is a line of a server's log or a state that it asks for, never a time.
- A program that is missing fails the test. It does not skip it.
- ``REDIS_SERVER`` names another program that speaks as Redis does: ``make test-valkey``.
"""

import collections
import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import redis

__all__ = ["Cluster", "RedisServer", "SentinelSet", "free_port", "until"]

PATIENCE_S = 20.0


def free_port() -> int:
    """Return a port that nobody listens on, nor on the one of a cluster's bus."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until(condition, what, patience_s=PATIENCE_S):
    """Ask until it is so: for states of servers, which tell nobody when they change."""
    deadline = time.monotonic() + patience_s
    while True:
        with contextlib.suppress(redis.RedisError, OSError):
            if found := condition():
                return found
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {patience_s} s: {what}")
        time.sleep(0.02)


class Process:
    """One program of Redis, its log, and its end."""

    program = os.environ.get("REDIS_SERVER", "redis-server")
    arguments = ()
    ready = "Ready to accept connections"

    def __init__(self, *, port=None, **options):
        if shutil.which(self.program) is None:
            raise AssertionError(f"{self.program} is missing: tools/test-packages installs it")
        self.directory = Path(tempfile.mkdtemp(prefix="headrace-redis-"))
        self.options = options
        self.port = port or free_port()
        self.log = collections.deque(maxlen=2000)
        self._news = threading.Condition()
        self._process = None

    def __enter__(self):
        return self.start()

    def __exit__(self, *exc):
        self.end()

    def configuration(self):
        raise NotImplementedError

    @property
    def address(self):
        return ("127.0.0.1", self.port)

    def start(self):
        for _ in range(5):
            if self._begin():
                return self
            if any("Address already in use" in line for line in self.log) and not self.began:
                self.port = free_port()
                continue
            break
        raise AssertionError(f"{self.program} did not start:\n" + "\n".join(self.log))

    #: Whether it has run once: then it has to come back on the same port.
    began = False

    def _begin(self):
        self.log.clear()
        file = self.directory / "redis.conf"
        if not self.began or not file.exists():
            file.write_text("\n".join(self.configuration()) + "\n")
        self._process = subprocess.Popen(
            [self.program, str(file), *self.arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            cwd=self.directory,
        )
        self._reader = threading.Thread(target=self._read, args=(self._process,), daemon=True)
        self._reader.start()
        self.began |= self.logged(self.ready, fail=False)
        return self.began and self._process.poll() is None

    def _read(self, process):
        for line in process.stdout:
            with self._news:
                self.log.append(line.rstrip())
                self._news.notify_all()
        process.stdout.close()
        with self._news:
            self._news.notify_all()

    def logged(self, text, *, patience_s=PATIENCE_S, fail=True):
        """Wait for a line of the log; False, or a failure, when none comes."""
        deadline = time.monotonic() + patience_s
        with self._news:
            while not any(text in line for line in self.log):
                left = deadline - time.monotonic()
                if left <= 0 or self._process.poll() is not None:
                    if fail:
                        raise AssertionError(f"no {text!r} in:\n" + "\n".join(self.log))
                    return False
                self._news.wait(min(left, 0.1))
        return True

    def kill(self, number=signal.SIGKILL):
        """End it as a crash does."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self._process.send_signal(number)
        if self._process is not None:
            self._process.wait(PATIENCE_S)
            self._reader.join(PATIENCE_S)
            self._process = None

    def restart(self):
        """End it, and start it again where it was."""
        self.kill()
        return self.start()

    def pause(self):
        """Let it do nothing, with its connections open."""
        self._process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WNOWAIT)

    def resume(self):
        self._process.send_signal(signal.SIGCONT)

    def end(self):
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    @contextlib.contextmanager
    def client(self, **options):
        """A client of the test's own."""
        client = redis.Redis(*self.address, **{"decode_responses": True, **options})
        try:
            yield client
        finally:
            client.close()

    def ask(self, *command):
        """Ask it one thing."""
        with self.client() as client:
            return client.execute_command(*command)


class RedisServer(Process):
    """A single redis-server. Options are lines of its configuration, ``_`` for ``-``."""

    def __init__(self, *, tls=False, **options):
        super().__init__(**options)
        self.tls = tls

    def configuration(self):
        options = {
            **({"port": 0, "tls_port": self.port} if self.tls else {"port": self.port}),
            "bind": "127.0.0.1",
            "dir": self.directory,
            "save": '""',
            "appendonly": "no",
            "enable_debug_command": "local",
            **self.options,
        }
        for name, value in options.items():
            for each in value if isinstance(value, list) else [value]:
                yield f"{name.replace('_', '-')} {each}"

    @property
    def url(self):
        return f"redis://127.0.0.1:{self.port}"

    def info(self, section):
        with self.client() as client:
            return client.info(section)

    def calls(self):
        """How often each command was called, by name."""
        stats = self.info("commandstats")
        return {name.removeprefix("cmdstat_"): stat["calls"] for name, stat in stats.items()}

    def drop_connections(self):
        """Cut off every client, as a network does."""
        with self.client() as client:
            for kind in ("pubsub", "normal"):
                client.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")


class _Sentinel(Process):
    arguments = ("--sentinel",)
    ready = "+monitor master"

    def configuration(self):
        yield f"port {self.port}"
        yield "bind 127.0.0.1"
        yield f"dir {self.directory}"
        yield from self.options["lines"]


class SentinelSet:
    """A primary, a replica and three Sentinels that know each other from the start."""

    name = "the-primary"

    def __init__(self, **options):
        self.options = options

    def __enter__(self):
        self._stack = contextlib.ExitStack()
        with self._stack:
            first = self._stack.enter_context(
                RedisServer(repl_diskless_sync_delay=0, **self.options)
            )
            second = self._stack.enter_context(
                RedisServer(replicaof=f"127.0.0.1 {first.port}", repl_diskless_sync_delay=0)
            )
            self.servers = [first, second]
            until(lambda: second.info("replication")["master_link_status"] == "up", "a replica")
            ids = [secrets.token_hex(20) for _ in range(3)]
            ports = [free_port() for _ in range(3)]
            self.sentinels = []
            for number, port in enumerate(ports):
                lines = [
                    f"sentinel monitor {self.name} 127.0.0.1 {first.port} 2",
                    f"sentinel down-after-milliseconds {self.name} 400",
                    f"sentinel failover-timeout {self.name} 3000",
                    f"sentinel myid {ids[number]}",
                    f"sentinel known-replica {self.name} 127.0.0.1 {second.port}",
                    *(
                        f"sentinel known-sentinel {self.name} 127.0.0.1 {ports[other]} {ids[other]}"
                        for other in range(3)
                        if other != number
                    ),
                ]
                sentinel = _Sentinel(port=port, lines=lines)
                self.sentinels.append(self._stack.enter_context(sentinel))
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *exc):
        self._stack.close()

    @property
    def hosts(self):
        return [{"sentinels": [each.address for each in self.sentinels], "master_name": self.name}]

    def primary(self):
        """The server that is the primary now, as the Sentinels say."""
        with self.sentinels[0].client() as client:
            _, port = client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.name)
        return next(server for server in self.servers if server.port == int(port))

    def fail_over(self):
        """Let the replica take over while the primary lives."""
        before = self.primary()
        until(
            lambda: self.sentinels[0].ask("SENTINEL", "FAILOVER", self.name), "a failover to begin"
        )
        until(lambda: self.primary() is not before, "another primary")
        return self.primary()


class Cluster:
    """Three primaries that share the slots."""

    def __init__(self, **options):
        self.options = {"cluster_require_full_coverage": "yes", **options}

    def __enter__(self):
        self._stack = contextlib.ExitStack()
        with self._stack:
            self.nodes = [
                self._stack.enter_context(
                    RedisServer(
                        cluster_enabled="yes",
                        cluster_port=free_port(),
                        cluster_node_timeout=1000,
                        **self.options,
                    )
                )
                for _ in range(3)
            ]
            bounds = [0, 5461, 10923, 16384]
            for number, node in enumerate(self.nodes):
                node.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
                first, last = bounds[number], bounds[number + 1] - 1
                node.ask("CLUSTER", "ADDSLOTSRANGE", first, last)
            one = self.nodes[0]
            for node in self.nodes[1:]:
                node.ask("CLUSTER", "MEET", *one.address, one.options["cluster_port"])
            until(self.is_well, "a cluster that is well")
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *exc):
        self._stack.close()

    def is_well(self):
        return all(
            "cluster_state:ok" in info and "cluster_known_nodes:3" in info
            for info in (node.ask("CLUSTER", "INFO") for node in self.nodes)
        )

    @property
    def hosts(self):
        return [{"cluster": [node.address for node in self.nodes]}]

    def owner(self, slot):
        """The node that has the slot now."""
        for first, last, (_, port, *_), *_ in self.nodes[0].ask("CLUSTER", "SLOTS"):
            if first <= slot <= last:
                return next(node for node in self.nodes if node.port == port)
        raise AssertionError(f"nobody has slot {slot}")

    def move(self, slot):
        """Give one slot, with what is in it, to another node."""
        self.end_move(slot, *self.begin_move(slot))

    def begin_move(self, slot):
        """Begin with that: what is new in the slot is to be at its next node."""
        source = self.owner(slot)
        target = next(node for node in self.nodes if node is not source)
        target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", source.ask("CLUSTER", "MYID"))
        source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", target.ask("CLUSTER", "MYID"))
        return source, target

    def end_move(self, slot, source, target):
        while keys := source.ask("CLUSTER", "GETKEYSINSLOT", slot, 100):
            source.ask("MIGRATE", *target.address, "", 0, 5000, "KEYS", *keys)
        for node in (target, source, *self.nodes):
            node.ask("CLUSTER", "SETSLOT", slot, "NODE", target.ask("CLUSTER", "MYID"))
