"""How many processors this process may use: a container or a batch job is often given fewer than the machine has."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

CONTROL_GROUPS = Path("/sys/fs/cgroup")
OWN_GROUPS = Path("/proc/self/cgroup")
SLURM = ("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE")


def count_cpus() -> int:
    """How many processors this process may use, at least 1.

    The least of: those it is bound to; what its control group and those above it allow (Linux, version 1 and 2; a
    part of a processor counts as one); what SLURM gave each task and the job on this machine, since not every
    cluster binds its jobs.
    """
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cpus, *_quotas(), *_slurm_cpus(), sys.maxsize))


def limited_cpus() -> int | None:
    """`count_cpus` where it is less than the machine has; None where nothing limits this process."""
    cpus = count_cpus()
    return cpus if cpus < (os.cpu_count() or 1) else None


def _slurm_cpus() -> Iterator[int]:
    for name in SLURM:
        value = os.environ.get(name, "")
        if value.isdecimal() and int(value):
            yield int(value)


def _quotas() -> Iterator[int]:
    """The shares of processors that control groups set, rounded up."""
    for folder in _group_folders():
        for names in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
            try:
                quota, period = (int(word) for name in names for word in (folder / name).read_text().split())
            except (OSError, ValueError):  # no such file, or "max"
                continue
            if quota > 0 and period > 0:  # -1: none
                yield -(-quota // period)


def _group_folders() -> Iterator[Path]:
    """Where limits of this process may stand: its group and those above it, by controller.

    Inside a container the paths are often those outside, and only the topmost folder is there.
    """
    try:
        lines = OWN_GROUPS.read_text().splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, controllers, name = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        mounts = {CONTROL_GROUPS / controllers, CONTROL_GROUPS / "cpu"} if controllers else {CONTROL_GROUPS}
        path = PurePosixPath(name)
        for mount in sorted(mounts):
            for group in (path, *path.parents):
                yield mount / str(group).lstrip("/")
