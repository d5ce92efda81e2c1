"""What this machine, or the container on it, lets this process use: cores and memory.

In goes nothing; out come numbers from the system. The one idea: in a container they are what it may use, not what the
machine has, since a process that takes the others' share is slowed down or killed.
"""

import contextlib
import math
import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
PROC = Path("/proc")


def cores() -> list[int]:
    """Numbers of the cores to use: those of this process' affinity, no more of them than the container's quota."""
    own = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    return own[:_quota()]


def _quota() -> int | None:
    """Whole cores' worth of time that the container gets, at least one; None without a limit."""
    try:
        microseconds, period = (CGROUP / "cpu.max").read_text().split()
        return max(1, math.ceil(int(microseconds) / int(period)))
    except (OSError, ValueError, ZeroDivisionError):  # no such limit: the file says "max", or is not there
        return None


def free_memory() -> int | None:
    """Bytes that may still be used: what the system has left, or the container where that is less; None if unknown."""
    try:
        lines = (PROC / "meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        return None
    try:
        limit, used = (int((CGROUP / name).read_text()) for name in ("memory.max", "memory.current"))
        lines = (CGROUP / "memory.stat").read_text().splitlines()
        cached = next((int(line.split()[1]) for line in lines if line.startswith("inactive_file ")), 0)
        return min(free, max(0, limit - used + cached))  # what files have left in memory is given up when it is needed
    except (OSError, ValueError):
        return free


def memory_limit() -> int | None:
    """Bytes that this machine or its container lets us use, the smaller of the two; None if nothing tells."""
    limits = []
    for name in ("memory.max", "memory/memory.limit_in_bytes"):  # cgroups of today, and before
        with contextlib.suppress(OSError, ValueError):  # "max": no limit
            limits.append(int((CGROUP / name).read_text()))
    with contextlib.suppress(OSError, ValueError):
        limits.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return min(limits, default=None)
