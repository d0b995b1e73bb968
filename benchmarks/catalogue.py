"""What is measured: the workloads, the servers, and the figures Headrace has set itself.

Everything here is data. A row is one server in one configuration; its ``paths`` say which
workloads it takes part in, and under which path it serves them.
"""

# ruff: noqa: RUF001 - a multiplication sign is meant

from dataclasses import dataclass

__all__ = ["REFERENCES", "ROWS", "TARGETS", "WORKLOADS", "Row", "Target", "Workload"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """One column of the comparison; ``arguments`` are the load generator's."""

    key: str
    title: str
    head: str  # the title in few words
    unit: str
    arguments: tuple[str, ...]
    logged_in: bool = False

    @property
    def is_memory(self) -> bool:
        return self.arguments[0] == "hold"

    @property
    def is_across(self) -> bool:
        """Whether it has two processes and a channel layer, and no clients."""
        return self.arguments[0] == "across"

    @property
    def is_latency(self) -> bool:
        return self.is_crowd or (self.is_across and "--rate" in self.arguments)

    @property
    def is_crowd(self) -> bool:
        """Whether thousands of idle connections are sent one message."""
        return self.arguments[0] == "crowd"

    @property
    def less_is_better(self) -> bool:
        return self.is_memory or self.is_latency


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One server as it is started; ``needs`` are the distributions that must be installed."""

    key: str
    label: str
    command: str
    paths: dict[str, str]
    needs: tuple[str, ...]
    quick: bool = True  # takes part in a --quick run too
    all_cores: bool = False  # the load generator's as well


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A figure to reach: a row's rate beside another's, or its bytes."""

    text: str
    row: str
    workload: str
    limit: float
    beside: str | None = None  # a row, or one of REFERENCES: the best of its rows
    beside_workload: str | None = None  # where the reference is another workload of a row
    figure: str = "rate"  # of a cell, where it is compared with the limit alone
    by_cpu: bool = False  # what it costs is meant, not how fast it is

    @property
    def is_ratio(self) -> bool:
        return self.beside is not None


WORKLOADS = (
    Workload(
        key="echo",
        title="Echo, 50 connections",
        head="echo",
        unit="messages/s",
        arguments=("echo", "--connections", "50"),
    ),
    Workload(
        key="group-1",
        title="A group of 200, one message in flight",
        head="group, 1 in flight",
        unit="deliveries/s",
        arguments=("group", "--connections", "200", "--window", "1"),
    ),
    Workload(
        key="group-32",
        title="A group of 200, 32 messages in flight",
        head="group, 32 in flight",
        unit="deliveries/s",
        arguments=("group", "--connections", "200", "--window", "32"),
    ),
    Workload(
        key="handshake",
        title="Handshakes",
        head="handshakes",
        unit="connections/s",
        arguments=("handshake", "--connections", "32"),
    ),
    Workload(
        key="plain",
        title="Plain text over HTTP/1.1, 50 connections kept alive",
        head="plain text",
        unit="requests/s",
        arguments=("http1", "--connections", "50"),
    ),
    Workload(
        key="pipelined",
        title="Plain text over HTTP/1.1, 50 connections with 16 requests in the pipeline",
        head="pipelined",
        unit="requests/s",
        arguments=("http1", "--connections", "50", "--window", "16"),
    ),
    Workload(
        key="django",
        title="A Django view, 50 connections kept alive",
        head="Django view",
        unit="requests/s",
        arguments=("http1", "--connections", "50"),
    ),
    Workload(
        key="http2",
        title="Plain text over HTTP/2, 10 connections with 10 streams each",
        head="HTTP/2",
        unit="requests/s",
        arguments=("http2", "--connections", "10", "--window", "10"),
    ),
    Workload(
        key="idle",
        title="An idle connection in one group",
        head="idle connection",
        unit="bytes",
        arguments=("hold",),
    ),
    Workload(
        key="idle-user",
        title="An idle connection in one group, logged in",
        head="idle, logged in",
        unit="bytes",
        arguments=("hold",),
        logged_in=True,
    ),
    Workload(
        key="crowd",
        title="15,000 idle connections in one group, and then a message to all",
        head="15,000, to the last",
        unit="µs",
        arguments=("crowd",),
    ),
    Workload(
        key="paced",
        title="Echo at an offered load of 30,000 messages a second, 200 connections",
        head="echo, 30,000/s offered",
        unit="messages/s",
        arguments=("echo", "--connections", "200", "--rate", "30000"),
    ),
    Workload(
        key="carried",
        title="Echo, 200 connections, every core",
        head="echo, every core",
        unit="messages/s",
        arguments=("echo", "--connections", "200"),
    ),
    Workload(
        key="across",
        title="A group of 200 in each of two processes, 8 messages in flight",
        head="two processes, 8 in flight",
        unit="deliveries/s",
        arguments=("across", "--window", "8"),
    ),
    Workload(
        key="across-rate",
        title="A group of 200 in each of two processes, 10 messages a second",
        head="two processes, 99th percentile",
        unit="µs",
        arguments=("across", "--rate", "10"),
    ),
)

_BARE = {
    "echo": "/echo/",
    "group-1": "/group/",
    "group-32": "/group/",
    "handshake": "/echo/",
    "idle": "/group/",
    "crowd": "/group/",
}
_CONSUMERS = {
    "echo": "/echo/",
    "group-1": "/room/",
    "group-32": "/room/",
    "handshake": "/echo/",
    "idle": "/room/",
    "idle-user": "/private/",
}
_PACED = {"paced": "/echo/", "carried": "/echo/"}
_ACROSS = {"across": "", "across-rate": ""}
_HELLO = {"plain": "/hello/", "pipelined": "/hello/"}
_HELLO_2 = {"http2": "/hello/"}
_VIEW = {"django": "/hello/"}
_UVICORN = (
    "{bin}/uvicorn {application} --host 127.0.0.1 --port {port} "
    "--no-access-log --log-level warning --ws {ws} --ws-per-message-deflate false"
)
_HEADRACE = (
    "{bin}/headrace serve {application} --bind 127.0.0.1 --port {port} "
    "--no-access-log --log-level warning --no-compression "
    # Limits of what the load generator does on purpose: they are looked at all the same.
    "--handshakes-per-second 1000000 --messages-per-second 1000000"
)
_HYPERCORN = "{bin}/hypercorn -c hypercorn.toml --bind 127.0.0.1:{port} hello:application"


def _uvicorn(ws: str, application: str = "bare_asgi:application") -> str:
    return _UVICORN.replace("{ws}", ws).replace("{application}", application)


def _headrace(application: str) -> str:
    return _HEADRACE.replace("{application}", application)


ROWS = (
    Row(
        key="channels-daphne",
        label="Channels + Daphne",
        command="{bin}/daphne -b 127.0.0.1 -p {port} -v 0 channels_site:application",
        paths={name: path for name, path in _CONSUMERS.items() if name != "idle-user"},
        needs=("channels", "daphne"),
    ),
    Row(
        key="channels-uvicorn",
        label="Channels + Uvicorn",
        command=_uvicorn("auto", "channels_site:application"),
        paths=_CONSUMERS,
        needs=("channels", "uvicorn"),
    ),
    Row(
        key="uvicorn-sansio",
        label="Uvicorn, bare ASGI (websockets-sansio)",
        command=_uvicorn("websockets-sansio"),
        paths=_BARE,
        needs=("uvicorn", "websockets"),
    ),
    Row(
        key="uvicorn-wsproto",
        label="Uvicorn, bare ASGI (wsproto)",
        command=_uvicorn("wsproto"),
        paths=_BARE,
        needs=("uvicorn", "wsproto"),
        quick=False,
    ),
    Row(
        key="uvicorn-legacy",
        label="Uvicorn, bare ASGI (websockets)",
        command=_uvicorn("websockets"),
        paths=_BARE,
        needs=("uvicorn", "websockets"),
        quick=False,
    ),
    Row(
        key="websockets",
        label="websockets, broadcast()",
        command="{bin}/python on_websockets.py {port}",
        paths=_BARE,
        needs=("websockets", "uvloop"),
    ),
    Row(
        key="picows",
        label="picows on uvloop",
        command="{bin}/python on_picows.py {port}",
        paths=_BARE,
        needs=("picows", "uvloop"),
    ),
    Row(
        key="socketify",
        label="uWebSockets through socketify",
        command="{bin}/python on_socketify.py {port}",
        # Its loop is none of Python's: nobody could ask it how long it was held.
        paths={name: path for name, path in _BARE.items() if name != "crowd"},
        needs=("socketify",),
    ),
    Row(
        key="headrace-bare",
        label="Headrace, bare ASGI",
        command=_headrace("bare_asgi:application"),
        paths=_BARE,
        needs=("headrace",),
    ),
    Row(
        key="headrace",
        label="Headrace, consumer",
        command=_headrace("headrace_site:application"),
        paths={**_CONSUMERS, "crowd": "/room/"},
        needs=("headrace",),
    ),
    Row(
        key="headrace-fast",
        label="Headrace, fast lane",
        command=_headrace("headrace_site:application"),
        paths={"group-1": "/fast/", "group-32": "/fast/", "crowd": "/fast/"},
        needs=("headrace",),
    ),
    Row(
        key="headrace-alone",
        label="Headrace, consumer, one worker",
        command=_headrace("headrace_site:application") + " --workers 1",
        paths=_PACED,
        needs=("headrace",),
        all_cores=True,
    ),
    Row(
        key="headrace-pair",
        label="Headrace, consumer, two workers",
        command=_headrace("headrace_site:application") + " --workers 2",
        paths=_PACED,
        needs=("headrace",),
        all_cores=True,
    ),
    Row(
        key="uvicorn-http",
        label="Uvicorn, bare ASGI (httptools)",
        command=_uvicorn("none", "hello:application"),
        paths=_HELLO,
        needs=("uvicorn", "httptools", "uvloop"),
    ),
    Row(
        key="hypercorn",
        label="Hypercorn, bare ASGI",
        command=_HYPERCORN,
        paths={**_HELLO, **_HELLO_2},
        needs=("hypercorn", "uvloop"),
    ),
    Row(
        key="headrace-http",
        label="Headrace, bare ASGI over HTTP",
        command=_headrace("hello:application"),
        paths={**_HELLO, **_HELLO_2},
        needs=("headrace",),
    ),
    Row(
        key="uvicorn-django",
        label="Uvicorn, Django",
        command=_uvicorn("none", "django_view:application"),
        paths=_VIEW,
        needs=("uvicorn", "httptools", "uvloop", "Django"),
    ),
    Row(
        key="headrace-django",
        label="Headrace, Django",
        command=_headrace("django_view:application"),
        paths=_VIEW,
        needs=("headrace", "Django"),
    ),
    Row(
        key="channels-redis",
        label="Channels, channels_redis core",
        command="{bin}/python across.py channels-redis",
        paths=_ACROSS,
        needs=("channels", "channels_redis"),
    ),
    Row(
        key="channels-pubsub",
        label="Channels, channels_redis pub/sub",
        command="{bin}/python across.py channels-pubsub",
        paths=_ACROSS,
        needs=("channels", "channels_redis"),
    ),
    Row(
        key="headrace-redis",
        label="Headrace, Redis",
        command="{bin}/python across.py headrace-redis",
        paths=_ACROSS,
        needs=("headrace", "redis"),
    ),
    Row(
        key="headrace-local",
        label="Headrace, local",
        command="{bin}/python across.py headrace-local",
        paths=_ACROSS,
        needs=("headrace",),
    ),
)

# What stands for several rows: whichever of them is the best in the workload at hand.
REFERENCES = {
    "uvicorn": (
        "uvicorn-sansio",
        "uvicorn-wsproto",
        "uvicorn-legacy",
        "uvicorn-http",
        "uvicorn-django",
    ),
    "channels_redis": ("channels-redis", "channels-pubsub"),
}

TARGETS = (
    Target(
        text="echo through a consumer ≥ 1.3 × bare Uvicorn",
        row="headrace",
        workload="echo",
        limit=1.3,
        beside="uvicorn",
    ),
    Target(
        text="group, one in flight, by handler ≥ 0.8 × bare Uvicorn",
        row="headrace",
        workload="group-1",
        limit=0.8,
        beside="uvicorn",
    ),
    Target(
        text="group, one in flight, fast lane ≥ 0.9 × picows",
        row="headrace-fast",
        workload="group-1",
        limit=0.9,
        beside="picows",
    ),
    Target(
        text="group, 32 in flight, fast lane ≥ 8 × one in flight",
        row="headrace-fast",
        workload="group-32",
        limit=8,
        beside="headrace-fast",
        beside_workload="group-1",
    ),
    Target(
        text="group, 32 in flight, fast lane ≥ 0.6 × uWebSockets",
        row="headrace-fast",
        workload="group-32",
        limit=0.6,
        beside="socketify",
    ),
    Target(
        text="handshakes ≥ 3 × Uvicorn, bare on bare",
        row="headrace-bare",
        workload="handshake",
        limit=3,
        beside="uvicorn",
    ),
    Target(
        text="handshakes with routing and a consumer ≥ 2 × bare Uvicorn",
        row="headrace",
        workload="handshake",
        limit=2,
        beside="uvicorn",
    ),
    Target(
        text="plain text over HTTP/1.1 ≥ Uvicorn",
        row="headrace-http",
        workload="plain",
        limit=1,
        beside="uvicorn",
    ),
    Target(
        text="the same, pipelined ≥ Uvicorn",
        row="headrace-http",
        workload="pipelined",
        limit=1,
        beside="uvicorn",
    ),
    Target(
        text="a Django view ≥ Uvicorn",
        row="headrace-django",
        workload="django",
        limit=1,
        beside="uvicorn",
    ),
    Target(
        text="plain text over HTTP/2 ≥ Hypercorn",
        row="headrace-http",
        workload="http2",
        limit=1,
        beside="hypercorn",
    ),
    Target(
        text="idle connection, consumer in one group ≤ 6,000 bytes",
        row="headrace",
        workload="idle",
        limit=6_000,
    ),
    Target(
        text="the same behind AuthMiddlewareStack, logged in ≤ 10,000 bytes",
        row="headrace",
        workload="idle-user",
        limit=10_000,
    ),
    Target(
        text="15,000 connections sent one message: no stall of the loop beyond 20 ms (µs)",
        row="headrace-fast",
        workload="crowd",
        limit=20_000,
        figure="stall_us",
    ),
    Target(
        text="the same where each handler sends it",
        row="headrace",
        workload="crowd",
        limit=20_000,
        figure="stall_us",
    ),
    Target(
        text="two workers cost ≤ 1.1 × the CPU of one for a message (≥ 0.91 × as cheap)",
        row="headrace-pair",
        workload="paced",
        limit=0.91,
        beside="headrace-alone",
        by_cpu=True,
    ),
    Target(
        text="a group over two processes, Redis ≥ 8 × channels_redis",
        row="headrace-redis",
        workload="across",
        limit=8,
        beside="channels_redis",
    ),
    Target(
        text="the same at one rate, 99th percentile ≤ a third (≥ 3 × as fast)",
        row="headrace-redis",
        workload="across-rate",
        limit=3,
        beside="channels_redis",
    ),
    Target(
        text="a group over two processes, local costs no more CPU than Redis",
        row="headrace-local",
        workload="across",
        limit=1,
        beside="headrace-redis",
        by_cpu=True,
    ),
)
