"""How many processors are ours, by affinity and by the quota of control groups."""

import os

import pytest

from headrace.server import cores
from headrace.server.cores import usable_cores


@pytest.fixture
def host(tmp_path, monkeypatch):
    """A host of eight processors, and control groups that the test writes."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    monkeypatch.setattr(cores, "_CGROUP", tmp_path / "cgroup")
    monkeypatch.setattr(cores, "_OWN_CGROUP", tmp_path / "own")

    def write(path, text):
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    return write


def test_without_control_groups(host):
    assert usable_cores() == 8


def test_affinity_is_less_than_the_host(host, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3})
    assert usable_cores() == 1


def test_where_there_is_no_affinity(host, monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 5)
    assert usable_cores() == 5
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert usable_cores() == 1


@pytest.mark.parametrize(
    ("quota", "count"),
    [
        ("max 100000", 8),
        ("150000 100000", 2),
        ("200000 100000", 2),
        ("1000 100000", 1),
        ("9900000 100000", 8),
        ("0 0", 8),
        ("nonsense", 8),
    ],
)
def test_a_container_sees_its_own_quota_at_the_top(host, quota, count):
    host("cgroup/cpu.max", quota)
    host("own", "0::/\n")
    assert usable_cores() == count


def test_the_least_of_all_that_it_is_in_counts(host):
    host("own", "0::/system.slice/mysite.service\n")
    host("cgroup/system.slice/mysite.service/cpu.max", "600000 100000")
    host("cgroup/system.slice/cpu.max", "300000 100000")
    assert usable_cores() == 3


def test_control_groups_of_the_first_version(host):
    host("own", "12:memory:/x\n4:cpu,cpuacct:/docker/1\n")
    host("cgroup/cpu/docker/1/cpu.cfs_quota_us", "250000")
    host("cgroup/cpu/docker/1/cpu.cfs_period_us", "100000")
    assert usable_cores() == 3
    host("cgroup/cpu/docker/1/cpu.cfs_quota_us", "-1")
    assert usable_cores() == 8
