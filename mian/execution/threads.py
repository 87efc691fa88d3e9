"""How many threads a rank computes with."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

ROWS_A_THREAD = 512
"""Of a batch with fewer, operators take less time than threads to meet: see ``docs/benchmarks.md``."""


CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUPS = Path("/proc/self/cgroup")


def usable_cores() -> int:
    """How many cores this process may use: those that it may run on, but no more than its container's processor quota pays for."""
    # not on every system; there all cores may be run on
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min([cores, *_quotas()])))


def _quotas() -> Iterator[float]:
    """The quotas of this process's control groups and of those that they lie in, in cores; version 1 and 2."""
    with suppress(OSError):
        for line in OWN_CGROUPS.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and "cpu" not in controllers.split(","):
                continue
            root = CGROUPS if not controllers else CGROUPS / "cpu"
            folder = root / path.lstrip("/")  # in a container it may be that of the host, which is not there
            for group in [folder, *folder.parents]:
                if group != root and root not in group.parents:
                    break
                with suppress(OSError, ValueError):  # the word max, or no such file
                    if controllers:
                        quota, period = ((group / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
                    else:
                        quota, period = (group / "cpu.max").read_text().split()
                    if int(quota) > 0:
                        yield int(quota) / int(period)


def default_threads(rows: int, cores: int) -> int:
    """As many threads as there are cores, but one for every :data:`ROWS_A_THREAD` rows of a batch at most; at least one."""
    return max(1, min(cores, rows // ROWS_A_THREAD))


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Compute with so many threads, and then with as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
