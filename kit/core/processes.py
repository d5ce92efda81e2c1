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


def kill(pid: int) -> None:
    """SIGKILL for the session that `pid` began, and for the tree below it, deepest first.

    The session holds those whose parents ended before them, and the tree those who began a session of their own.
    """
    members = tree(pid)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    for member in reversed(members):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(member, signal.SIGKILL)
