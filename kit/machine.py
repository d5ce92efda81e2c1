"""What this machine, or the container on it, lets this process use: cores and memory.

In goes nothing; out come numbers from the system. The one idea: in a container they are what it may use, not what the
machine has, since a process that takes the others' share is slowed down or killed.
"""

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
        limit, used = ((CGROUP / name).read_text().strip() for name in ("memory.max", "memory.current"))
        return min(free, max(0, int(limit) - int(used)))
    except (OSError, ValueError):
        return free
