"""The process tree below one process: how much memory it holds, and how to end all of it.

In goes a process id; out come numbers from /proc. Where there is no /proc (macOS), the tree is the process alone and
its memory reads 0: limits on memory then do not bind, limits on time do.
"""

import contextlib
import os
import signal
from pathlib import Path

PROC = Path("/proc")


def tree(pid: int) -> list[int]:
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


def memory(pid: int) -> int:
    """Bytes of resident memory of the whole tree; pages that two of its processes share count twice."""
    pages = 0
    for member in tree(pid):
        with contextlib.suppress(OSError, ValueError, IndexError):
            pages += int((PROC / str(member) / "statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def memory_limit() -> int | None:
    """Bytes that this machine or its container lets us use, the smaller of the two; None if nothing tells."""
    limits = []
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):  # "max": no limit
            limits.append(int(Path(path).read_text()))
    with contextlib.suppress(OSError, ValueError):
        limits.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return min(limits, default=None)


def kill(pid: int) -> None:
    """SIGKILL for the whole tree, deepest first, so that no child outlives its parent unseen."""
    for member in reversed(tree(pid)):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(member, signal.SIGKILL)
