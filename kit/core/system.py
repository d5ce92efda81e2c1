"""Find out which cores and how much memory this process may use, and handle process trees.

In a container the container's limits count, not what the machine has: a process that uses more is
slowed down or killed. Both versions of Linux' control groups are read, for the process' own group
and all groups above it.
"""

import contextlib
import math
import os
import signal
from collections.abc import Iterator
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
PROC = Path("/proc")


def cores() -> list[int]:
    """The numbers of the cores to use: as many of the process' affinity as the quota allows."""
    quotas = []  # in cores, of each control group that has one
    for folder in _groups("cpu"):
        version_1 = _words(folder / "cpu.cfs_quota_us") + _words(folder / "cpu.cfs_period_us")
        for words in (_words(folder / "cpu.max"), version_1):
            # An error: there is no such file, or no limit ("max"); -1 is no limit, either.
            with contextlib.suppress(ValueError, ZeroDivisionError):
                quota, period = map(int, words)
                quotas += [quota / period] if quota > 0 else []
    return _affinity()[:max(1, math.ceil(min(quotas))) if quotas else None]


def is_throttled() -> bool:
    """Whether a CPU quota gives this process less time than its cores have.

    Such a process gets a share of all its cores instead of some whole cores, and the system should
    choose which.
    """
    return len(cores()) < len(_affinity())


def _affinity() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def free_memory() -> int | None:
    """Free memory of the machine or the container, whichever is less, in bytes; None if unknown."""
    try:
        lines = (PROC / "meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines
                    if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        return None
    for folder in _groups("memory"):
        for limit_name, used_name, cached_name in (  # control groups, version 2 and 1
                ("memory.max", "memory.current", "inactive_file"),
                ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")):
            try:
                limit, used = (int((folder / name).read_text()) for name in (limit_name, used_name))
                lines = (folder / "memory.stat").read_text().splitlines()
            except (OSError, ValueError):
                continue
            # The page cache is given up when memory is needed.
            cached = next((int(line.split()[1]) for line in lines
                           if line.startswith(f"{cached_name} ")), 0)
            free = min(free, max(0, limit - used + cached))
    return free


def memory_limit() -> int | None:
    """Memory of the machine or the container, whichever is less, in bytes; None if unknown."""
    limits = []
    for folder in _groups("memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):  # control groups, version 2 and 1
            # No number ("max"): no limit
            limits += [int(word) for word in _words(folder / name) if word.isdigit()]
    with contextlib.suppress(OSError, ValueError, AttributeError):  # Windows has no sysconf
        limits.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return min(limits, default=None)


def _groups(controller: str) -> Iterator[Path]:
    """The folders of this process' control groups, its own first and then those above it.

    In most containers the own group is mounted as the top one, and the path in /proc does not
    exist.
    """
    own = {"": "/", controller: "/"}
    for line in _text(PROC / "self" / "cgroup").splitlines():
        # In version 2 "0::/a/b", in version 1 "4:cpu,cpuacct:/a/b"
        names, _, path = line.partition(":")[2].partition(":")
        own.update({name: path for name in names.split(",") if name in own and ".." not in path})
    for name, path in own.items():
        top = CGROUP / name
        inside = top / path.strip("/")
        for folder in (inside, *inside.parents):
            if folder.is_relative_to(top) and folder.is_dir():
                yield folder


def _words(path: Path) -> list[str]:
    return _text(path).split()


def _text(path: Path) -> str:
    """The text of a file below /proc or /sys; "" if it does not exist."""
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError):
        return ""


# -- process trees. Without /proc (macOS) a tree is its first process alone, and its memory 0 ------


def process_tree(pid: int) -> list[int]:
    """`pid` and all its descendants, parents first."""
    children: dict[int, list[int]] = {}
    for entry in PROC.glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):  # it may end while we look
            parent = int(entry.read_text("utf-8", "replace").rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(entry.parent.name))
    found = [pid]
    for member in found:
        found.extend(children.get(member, ()))
    return found


def tree_memory(pid: int) -> int:
    """Resident memory of the tree, in bytes. Pages that two processes share count twice."""
    pages = 0
    for member in process_tree(pid):
        with contextlib.suppress(OSError, ValueError, IndexError):
            pages += int((PROC / str(member) / "statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def kill_tree(pid: int) -> None:
    """Kill (SIGKILL) the session that `pid` began, and its process tree, deepest first.

    The session includes processes whose parents have ended, and the tree those that have begun a
    session of their own.
    """
    members = process_tree(pid)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    for member in reversed(members):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(member, signal.SIGKILL)
