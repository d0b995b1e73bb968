"""The CONFIG of the Redis layer: every form of a host, and what is said of a wrong one."""

import pytest

from headrace.exceptions import InvalidChannelLayerError
from headrace.layers.redis import RedisChannelLayer
from headrace.layers.redis.config import (
    Cluster,
    Endpoint,
    SentinelSet,
    read_hook,
    read_hosts,
    read_keys,
    read_prefix,
    read_seconds,
)


def only(entry):
    (host,) = read_hosts([entry])
    return host


@pytest.mark.parametrize(
    ("entry", "shown", "options"),
    [
        ("redis://10.0.0.1", "redis://10.0.0.1:6379", {}),
        ("redis://10.0.0.1:6380/2", "redis://10.0.0.1:6380", {"db": 2}),
        ("redis://[::1]:6380", "redis://[::1]:6380", {}),
        (
            "rediss://ann:p%40ss@cache.example:6380/1?ssl_check_hostname=false&socket_timeout=1.5",
            "rediss://ann@cache.example:6380",
            {
                "ssl": True,
                "username": "ann",
                "password": "p@ss",
                "db": 1,
                "ssl_check_hostname": False,
                "socket_timeout": 1.5,
            },
        ),
        ("redis://:secret@h", "redis://h:6379", {"password": "secret"}),
        ("redis://h/1?db=3&socket_keepalive=1", "redis://h:6379", {"db": 3, "socket_keepalive": 1}),
        ("unix:///run/redis.sock?db=1", "unix:///run/redis.sock", {"db": 1}),
        ("unix://ann:x@/run/redis.sock", "unix://ann@/run/redis.sock", None),
        (("10.0.0.1", 6380), "redis://10.0.0.1:6380", {}),
        (["10.0.0.1", 6380], "redis://10.0.0.1:6380", {}),
        ({"address": "redis://h:1", "password": "x"}, "redis://h:1", {"password": "x"}),
        ({"address": ("h", 1), "db": 1}, "redis://h:1", {"db": 1}),
        ({"host": "h", "port": 6380, "db": 4}, "redis://h:6380", {"db": 4}),
        ({"host": "h", "ssl": True}, "rediss://h:6379", {"ssl": True}),
        ({"path": "/run/redis.sock"}, "unix:///run/redis.sock", {}),
        ({}, "redis://localhost:6379", {}),
    ],
)
def test_a_server(entry, shown, options):
    host = only(entry)
    assert isinstance(host, Endpoint)
    assert str(host) == shown
    assert options is None or host.options == options
    assert host.setting == "hosts[0]"


def test_nothing_is_a_server_on_this_host():
    assert [str(host) for host in read_hosts(None)] == ["redis://localhost:6379"]


def test_sentinels():
    host = only(
        {
            "sentinels": [("10.0.0.1", 26379), {"host": "10.0.0.2"}, "redis://10.0.0.3:5000"],
            "master_name": "primary",
            "sentinel_kwargs": {"password": "s"},
            "password": "p",
            "db": 1,
        }
    )
    assert isinstance(host, SentinelSet)
    assert [str(each) for each in host.sentinels] == [
        "redis://10.0.0.1:26379",
        "redis://10.0.0.2:26379",
        "redis://10.0.0.3:5000",
    ]
    assert all(each.options == {"password": "s"} for each in host.sentinels)
    assert host.primary.options == {"password": "p", "db": 1}
    assert str(host.primary.at("10.0.0.9", 7000)) == "redis://10.0.0.9:7000"
    assert str(host).startswith("primary at redis://10.0.0.1:26379, ")


def test_a_cluster():
    host = only({"cluster": ["redis://a:1", ("b", 2), {"host": "c", "port": 3}], "password": "p"})
    assert isinstance(host, Cluster)
    assert [str(node) for node in host.nodes] == ["redis://a:1", "redis://b:2", "redis://c:3"]
    assert all(node.options == {"password": "p"} for node in host.nodes)
    assert str(host) == "the cluster of redis://a:1, redis://b:2, redis://c:3"


@pytest.mark.parametrize(
    ("hosts", "said"),
    [
        ("redis://h", "hosts .*it is a list"),
        ({"host": "h"}, "hosts .*it is a list"),
        (6379, "hosts .*it is a list"),
        ([], "hosts .*empty"),
        ([6379], r"hosts\[0\].*a host is"),
        ([("h", 1), ("h",)], r"hosts\[1\].*a host is"),
        (["http://h"], r"hosts\[0\].*begins with redis://.*'http'"),
        (["redis://h:port"], r"hosts\[0\].*can't be read"),
        (["redis://h/zero"], r"hosts\[0\].*number of a database, not zero"),
        (["redis://h?db=x"], r"hosts\[0\].*can't be read"),
        (["redis://h?tls=1"], r"hosts\[0\]\['tls'\].*no such key; there are address, host"),
        ([{"host": "h", "prot": 1}], r"hosts\[0\]\['prot'\].*no such key"),
        ([{"host": ""}], r"hosts\[0\]\['host'\].*a str"),
        ([{"host": "h", "port": "6379"}], r"hosts\[0\]\['port'\].*1 to 65535, not '6379'"),
        ([("h", 0)], r"hosts\[0\]\['port'\]"),
        ([{"host": "h", "db": "1"}], r"hosts\[0\]\['db'\].*number of a database, not '1'"),
        ([{"host": "h", "password": 3}], r"hosts\[0\]\['password'\].*a str, not this"),
        ([{"host": "h", "socket_timeout": 0}], r"hosts\[0\]\['socket_timeout'\].*seconds"),
        ([{"host": "h", "max_connections": 5}], r"hosts\[0\]\['max_connections'\].*leave it out"),
        ([{"host": "h", "retry_on_timeout": True}], "connects again by itself"),
        ([{"host": "h", "decode_responses": True}], "the layer's own"),
        ([{"sentinels": [("h", 1)]}], r"hosts\[0\]\['master_name'\]"),
        ([{"master_name": "m"}], r"hosts\[0\]\['sentinels'\].*a list"),
        ([{"master_name": "m", "sentinels": []}], r"hosts\[0\]\['sentinels'\].*empty"),
        (
            [{"master_name": "m", "sentinels": [("h", 1)], "host": "h"}],
            r"hosts\[0\]\['host'\].*Sentinels say",
        ),
        (
            [{"master_name": "m", "sentinels": [("h", 1)], "sentinel_kwargs": ["x"]}],
            r"hosts\[0\]\['sentinel_kwargs'\]",
        ),
        ([{"cluster": "redis://h"}], r"hosts\[0\]\['cluster'\].*a list"),
        ([{"cluster": [("h", 1)], "db": 1}], r"hosts\[0\]\['db'\].*one database"),
        ([{"cluster": [("h", 1)]}, "redis://h"], "a cluster stands alone"),
        ([{"cluster": ["redis://h?x=1"]}], r"hosts\[0\]\['cluster'\]\[0\]\['x'\]"),
    ],
)
def test_a_wrong_host_is_told_by_its_key(hosts, said):
    with pytest.raises(InvalidChannelLayerError, match=said):
        read_hosts(hosts)


def test_no_password_is_shown():
    hosts = read_hosts(["redis://ann:hidden@h", {"cluster": ["redis://:hidden@h"]}][:1])
    hosts += read_hosts(
        [
            {
                "master_name": "m",
                "sentinels": ["redis://:hidden@h"],
                "password": "hidden",
                "sentinel_kwargs": {"password": "hidden"},
            }
        ]
    )
    assert "hidden" not in f"{hosts!r} {' '.join(map(str, hosts))}"
    with pytest.raises(InvalidChannelLayerError) as caught:
        read_hosts([{"host": "h", "password": ["hidden"]}])
    assert "hidden" not in str(caught.value)


def test_the_other_keys():
    assert read_prefix("chat") == "chat"
    assert read_seconds("expiry", 0.5) == 0.5
    assert read_keys(None) == ()
    assert read_keys(["a", b"b"]) == (b"a", b"b")
    assert read_hook("on_disconnect", None) is None
    assert read_hook("on_disconnect", print) is print
    assert read_hook("on_disconnect", "os.path.join").__name__ == "join"
    for read, wrong in (
        (read_prefix, ["", None, "a{b"]),
        (read_keys, ["key", b"key", [""], [3], 3]),
        (lambda value: read_seconds("expiry", value), [0, -1, "60", None, True]),
        (lambda value: read_hook("on_disconnect", value), [3, "no.such.function"]),
    ):
        for value in wrong:
            with pytest.raises(InvalidChannelLayerError):
                read(value)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"host": ["redis://h"]}, "host in the CONFIG.*there are hosts, prefix"),
        ({"random_prefix_length": 12}, "random_prefix_length in the CONFIG.*leave it out"),
        ({"expiry": 0}, "expiry in the CONFIG"),
        ({"group_expiry": -1}, "group_expiry in the CONFIG"),
        ({"capacity": 0}, "capacity in the CONFIG"),
        ({"send_timeout": "5"}, "send_timeout in the CONFIG"),
        ({"serializer_format": "pickle"}, "serializer_format in the CONFIG.*'msgpack' or 'json'"),
        ({"serializer_format": ["json"]}, "serializer_format in the CONFIG"),
        ({"max_message_bytes": 0}, "max_message_bytes"),
    ],
)
def test_a_layer_that_can_not_be(config, said):
    with pytest.raises(InvalidChannelLayerError, match=said):
        RedisChannelLayer(**config)
