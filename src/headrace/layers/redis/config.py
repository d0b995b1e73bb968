"""What ``hosts`` and the other keys of the Redis layer's CONFIG say, as data.

Rules of this file:

- Every form that channels_redis takes for a host is taken, and one more for a cluster.
- Nothing is connected to here, and nothing needs redis-py.
- An error names the key, what is wrong with it, and what to write.
- A password is in no text that is made of these classes.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias
from urllib.parse import parse_qsl, unquote, urlsplit

from django.utils.module_loading import import_string

from ...exceptions import InvalidChannelLayerError

__all__ = [
    "Cluster",
    "Endpoint",
    "Hook",
    "Host",
    "SentinelSet",
    "read_hook",
    "read_hosts",
    "read_keys",
    "read_prefix",
    "read_seconds",
]

DEFAULT_HOST, DEFAULT_PORT, DEFAULT_SENTINEL_PORT = "localhost", 6379, 26379

#: Called with the name of a host, when its connection is lost or there again.
Hook: TypeAlias = Callable[[str], object]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0


def _anything(value: object) -> bool:
    del value
    return True


def _is_bool(value: object) -> bool:
    return isinstance(value, bool)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_text(value: object) -> bool:
    return value is None or isinstance(value, str)


#: What may be said of a server besides where it is: what is accepted, and that in words.
_OPTIONS: Mapping[str, tuple[Callable[[object], bool], str]] = {
    "db": (_is_count, "the number of a database"),
    "username": (_is_text, "a str"),
    "password": (lambda value: _is_text(value) or isinstance(value, bytes), "a str"),
    "credential_provider": (_anything, ""),
    "client_name": (_is_text, "a str"),
    "socket_timeout": (_is_number, "a number of seconds"),
    "socket_connect_timeout": (_is_number, "a number of seconds"),
    "socket_keepalive": (_is_bool, "True or False"),
    "socket_keepalive_options": (_anything, ""),
    "health_check_interval": (_is_number, "a number of seconds"),
    "ssl": (_is_bool, "True or False"),
    "ssl_keyfile": (_is_text, "a path"),
    "ssl_certfile": (_is_text, "a path"),
    "ssl_cert_reqs": (_anything, ""),
    "ssl_ca_certs": (_is_text, "a path"),
    "ssl_ca_data": (_is_text, "a str"),
    "ssl_check_hostname": (_is_bool, "True or False"),
    "ssl_min_version": (_anything, ""),
    "ssl_ciphers": (_is_text, "a str"),
}
#: Options of redis-py that would work against the layer, or not at all.
_POINTLESS = dict.fromkeys(
    ("retry", "retry_on_timeout", "retry_on_error"),
    "the layer connects again by itself",
) | dict.fromkeys(
    ("max_connections", "connection_class", "connection_pool", "single_connection_client"),
    "the layer needs few connections and keeps them itself",
)
_POINTLESS |= dict.fromkeys(
    ("decode_responses", "encoding", "encoding_errors", "protocol"),
    "what is on the wire is the layer's own",
)
_WHERE = ("host", "port", "path")


@dataclasses.dataclass(frozen=True, slots=True)
class Endpoint:
    """One server: where it is, and how to get in."""

    #: The setting that it comes from, for messages: ``hosts[0]``.
    setting: str
    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    #: The path of a Unix socket, in the place of host and port.
    path: str | None = None
    #: Of redis-py's connections.
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict, repr=False)

    def at(self, host: str, port: int) -> "Endpoint":
        """Return another server that one gets into in the same way."""
        return dataclasses.replace(self, host=host, port=port, path=None)

    def option(self, name: str, default: float) -> float:
        """Return a number of seconds that the setting may give."""
        value: float = self.options.get(name, default)
        return value

    def __str__(self) -> str:
        user = self.options.get("username")
        login = f"{user}@" if user else ""
        if self.path is not None:
            return f"unix://{login}{self.path}"
        scheme = "rediss" if self.options.get("ssl") else "redis"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{scheme}://{login}{host}:{self.port}"


@dataclasses.dataclass(frozen=True, slots=True)
class SentinelSet:
    """Servers of which one is the primary, and Sentinels that know which."""

    setting: str
    master_name: str
    sentinels: tuple[Endpoint, ...]
    #: How to get into whichever server is the primary.
    primary: Endpoint

    def __str__(self) -> str:
        return f"{self.master_name} at {', '.join(map(str, self.sentinels))}"


@dataclasses.dataclass(frozen=True, slots=True)
class Cluster:
    """A Redis Cluster; ``nodes`` are those that are asked for the others."""

    setting: str
    nodes: tuple[Endpoint, ...]

    def __str__(self) -> str:
        return f"the cluster of {', '.join(map(str, self.nodes))}"


Host: TypeAlias = Endpoint | SentinelSet | Cluster


def _error(setting: str, what: str) -> InvalidChannelLayerError:
    return InvalidChannelLayerError(f"{setting} in the CONFIG of CHANNEL_LAYERS: {what}")


def read_hosts(hosts: object) -> tuple[Host, ...]:
    """Return the servers of the setting, in its order; a cluster is there alone.

    Raises InvalidChannelLayerError.
    """
    if hosts is None:
        return (Endpoint("hosts"),)
    if isinstance(hosts, str | bytes | Mapping) or not isinstance(hosts, Iterable):
        raise _error("hosts", f"it is a list, such as [{hosts!r:.100}]")
    found = tuple(_read_host(f"hosts[{index}]", entry) for index, entry in enumerate(hosts))
    if not found:
        raise _error("hosts", "it is empty: name a server, or leave it out for localhost")
    if len(found) > 1 and any(isinstance(host, Cluster) for host in found):
        raise _error(
            "hosts", "a cluster stands alone: it spreads channels and groups over its nodes itself"
        )
    return found


def _read_host(setting: str, entry: object) -> Host:
    if not isinstance(entry, Mapping):
        return _read_endpoint(setting, entry, {})
    options = dict(entry)
    if "cluster" in options:
        nodes = options.pop("cluster")
        if options.get("db"):
            raise _error(f"{setting}['db']", "a cluster has one database: leave it out")
        return Cluster(setting, _read_several(f"{setting}['cluster']", nodes, options))
    if "sentinels" in options or "master_name" in options:
        return _read_sentinels(setting, options)
    if "address" in options:
        return _read_endpoint(setting, options.pop("address"), options)
    return _read_endpoint(setting, None, options)


def _read_sentinels(setting: str, options: dict[str, Any]) -> SentinelSet:
    master_name = options.pop("master_name", None)
    if not isinstance(master_name, str) or not master_name:
        raise _error(
            f"{setting}['master_name']", "it is the name under which the Sentinels know the primary"
        )
    sentinel_options = options.pop("sentinel_kwargs", None) or {}
    if not isinstance(sentinel_options, Mapping):
        raise _error(f"{setting}['sentinel_kwargs']", "it is a dict of options, such as 'password'")
    where = f"{setting}['sentinels']"
    sentinels = _read_several(
        where, options.pop("sentinels", None), sentinel_options, port=DEFAULT_SENTINEL_PORT
    )
    for name in _WHERE:
        if name in options:
            raise _error(f"{setting}[{name!r}]", "the Sentinels say where the primary is")
    return SentinelSet(setting, master_name, sentinels, _read_endpoint(setting, None, options))


def _read_several(
    setting: str, entries: object, options: Mapping[str, Any], port: int = DEFAULT_PORT
) -> tuple[Endpoint, ...]:
    if isinstance(entries, str | bytes | Mapping) or not isinstance(entries, Iterable):
        raise _error(setting, f"it is a list, such as [('10.0.0.1', {port})]")
    endpoints = []
    for index, entry in enumerate(entries):
        where = f"{setting}[{index}]"
        given = dict(entry) if isinstance(entry, Mapping) else {}
        address = given.pop("address", None) if isinstance(entry, Mapping) else entry
        endpoints.append(_read_endpoint(where, address, {**options, **given}, port=port))
    if not endpoints:
        raise _error(setting, "it is empty")
    return tuple(endpoints)


def _read_endpoint(
    setting: str, address: object, options: Mapping[str, Any], port: int = DEFAULT_PORT
) -> Endpoint:
    values: dict[str, Any] = {"port": port, **options}
    if isinstance(address, str):
        values |= _read_url(setting, address)
    elif isinstance(address, Sequence) and not isinstance(address, bytes) and len(address) == 2:
        values |= {"host": address[0], "port": address[1]}
    elif address is not None:
        raise _error(
            setting,
            "a host is 'redis://…', ('10.0.0.1', 6379) or a dict with 'address', 'host', "
            f"'sentinels' or 'cluster', not {address!r:.100}",
        )
    for name, value in values.items():
        _check_option(setting, name, value)
    host, path = values.pop("host", DEFAULT_HOST), values.pop("path", None)
    return Endpoint(setting, host, values.pop("port"), path, values)


def _check_option(setting: str, name: str, value: object) -> None:
    where = f"{setting}[{name!r}]"
    if name == "port":
        if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 65536:
            raise _error(where, f"a port is a number from 1 to 65535, not {value!r:.50}")
    elif name in _WHERE:
        if not isinstance(value, str) or not value:
            raise _error(where, f"it is a str, not {value!r:.50}")
    elif name in _POINTLESS:
        raise _error(where, f"leave it out: {_POINTLESS[name]}")
    elif name not in _OPTIONS:
        known = ", ".join(("address", *_WHERE, *_OPTIONS))
        raise _error(where, f"there is no such key; there are {known}")
    else:
        accepts, wanted = _OPTIONS[name]
        if not accepts(value):
            shown = "this" if name == "password" else f"{value!r:.50}"
            raise _error(where, f"it is {wanted}, not {shown}")


#: What the text of a URL's query is turned into.
_FROM_TEXT: Mapping[str, Callable[[str], Any]] = {
    "db": int,
    **dict.fromkeys(("socket_timeout", "socket_connect_timeout", "health_check_interval"), float),
    **dict.fromkeys(
        ("socket_keepalive", "ssl_check_hostname"), lambda text: text.lower() in ("1", "true")
    ),
}


def _read_url(setting: str, url: str) -> dict[str, Any]:
    """Return what a URL says, in the words of a dict."""
    try:
        parts = urlsplit(url)
        values: dict[str, Any] = {
            name: _FROM_TEXT.get(name, str)(text)
            for name, text in parse_qsl(parts.query, keep_blank_values=True)
        }
        port = parts.port
    except ValueError as error:
        raise _error(setting, f"this URL can't be read: {error}") from None
    if parts.username:
        values["username"] = unquote(parts.username)
    if parts.password:
        values["password"] = unquote(parts.password)
    if parts.scheme == "unix":
        return values | {"path": unquote(parts.path)}
    if parts.scheme not in ("redis", "rediss"):
        raise _error(
            setting,
            "a URL begins with redis://, rediss:// or unix://, not with "
            f"{url.partition(':')[0]!r:.50}",
        )
    if parts.scheme == "rediss":
        values["ssl"] = True
    if parts.hostname:
        values["host"] = unquote(parts.hostname)
    if port:
        values["port"] = port
    if database := parts.path.strip("/"):
        if not database.isdecimal():
            raise _error(setting, f"the path of a URL is the number of a database, not {database}")
        values.setdefault("db", int(database))
    return values


def read_prefix(prefix: object) -> str:
    """Return the prefix of all names in Redis."""
    if not isinstance(prefix, str) or not prefix or set("{}") & set(prefix):
        raise _error("prefix", f"it is a str of one or more characters but braces, not {prefix!r}")
    return prefix


def read_seconds(name: str, value: object) -> float:
    """Return a number of seconds that is more than none."""
    if not _is_number(value):
        raise _error(name, f"it is a number of seconds, not {value!r:.50}")
    return value  # type: ignore[return-value]


def read_keys(keys: object) -> tuple[bytes, ...]:
    """Return the symmetric encryption keys; the first one encrypts, each may decrypt."""
    name = "symmetric_encryption_keys"
    if keys is None:
        return ()
    if isinstance(keys, str | bytes) or not isinstance(keys, Iterable):
        raise _error(name, "it is a list of keys, the newest first")
    found = tuple(key.encode() if isinstance(key, str) else key for key in keys)
    if not all(isinstance(key, bytes) and key for key in found):
        raise _error(name, "a key is a str or bytes, and not empty")
    return found


def read_hook(name: str, hook: object) -> Hook | None:
    """Return the function that is to be called; a dotted path names one."""
    if isinstance(hook, str):
        try:
            hook = import_string(hook)
        except ImportError as error:
            raise _error(name, f"it can't be imported: {error}") from error
    if hook is not None and not callable(hook):
        raise _error(name, f"it is a function or the dotted path of one, not {hook!r:.50}")
    return hook
