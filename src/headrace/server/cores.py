"""How many processors this process may use."""

import math
import os
from pathlib import Path

__all__ = ["usable_cores"]

_CGROUP = Path("/sys/fs/cgroup")
_OWN_CGROUP = Path("/proc/self/cgroup")


def usable_cores() -> int:
    """Return the processors that are ours: by affinity, and by the quota of the control group.

    A container with ``--cpus 1.5`` on a host of 64 has two.
    """
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        cores = os.cpu_count() or 1
    quota = _quota()
    return max(1, cores if quota is None else min(cores, math.ceil(quota)))


def _quota() -> float | None:
    """Return the least number of processors that a control group of ours allows."""
    quotas = [quota for folder in _folders() if (quota := _quota_of(folder)) is not None]
    return min(quotas, default=None)


def _folders() -> list[Path]:
    """Return the folders of our control groups: our own, and those that it is in."""
    folders = [_CGROUP, _CGROUP / "cpu"]
    try:
        lines = _OWN_CGROUP.read_text().splitlines()
    except OSError:
        return folders
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = _CGROUP / "cpu" if controllers else _CGROUP
        folder = root / path.lstrip("/")
        while folder != root:
            folders.append(folder)
            folder = folder.parent
    return folders


def _quota_of(folder: Path) -> float | None:
    try:
        if (new := folder / "cpu.max").exists():
            quota, period = new.read_text().split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text()
            period = (folder / "cpu.cfs_period_us").read_text()
        return int(quota) / int(period) if int(quota) > 0 else None
    except (OSError, ValueError, ZeroDivisionError):
        return None  # "max": there is no quota
