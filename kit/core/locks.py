"""Lock a folder or a file against other processes, also on file systems that have no locks.

Where the file system has locks, the system's own is used (through filelock); it ends with its
process. Elsewhere (NFS without its lock service, some cloud and FUSE mounts) a soft lock is used:
the file `<lock>.holder`, created exclusively, says which process holds it. That file stays when the
process is killed. If the process ran on this machine, the file is then replaced; if it ran on
another machine, only on request (`break_lock`), because nobody here can tell if it still runs.

filelock's SoftFileLock is not used: before 3.22 it never replaces a dead holder, and since 4.0 it
does so by a system call that NFS does not have.
"""

import contextlib
import json
import os
import socket
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from kit.core.errors import KitError

POLL_SECONDS = 0.1
# Removing a stale holder takes milliseconds; an older .breaking file is a killed process'
BREAKING_SECONDS = 10.0


@dataclass(frozen=True)
class Holder:
    """The process that holds a lock, as written in the holder file."""

    process: int
    host: str
    since: float  # time.time()
    machine: str  # boot id and process namespace, within which the process id is valid
    born: str  # start time of the process, in clock ticks: process ids are reused
    soft: bool
    token: str

    def __str__(self) -> str:
        return f"process {self.process} on {self.host}, since {_age(time.time() - self.since)} ago"

    @property
    def is_here(self) -> bool:
        """Whether this machine can tell if the process still runs."""
        return self.host == socket.gethostname() and self.machine == _machine_id()

    @property
    def is_dead(self) -> bool:
        """Whether the process ran on this machine and has ended."""
        return self.is_here and (not _is_running(self.process)
                                 or _start_time(self.process) != self.born)


class AlreadyLocked(Exception):
    """Another process has the lock. `holder` is None if it is not known which."""

    def __init__(self, path: Path, holder: Holder | None, soft: bool) -> None:
        super().__init__(path, holder)
        self.path, self.holder, self.soft = path, holder, soft

    @property
    def holder_is_unknown(self) -> bool:
        """Whether this machine cannot tell if the holder still runs, so that the user has to."""
        return self.soft and not (self.holder and self.holder.is_here)

    def error(self, what: Path, fix: str, state: str = "is in use by",
              option: str = "") -> KitError:
        """The KitError "`what` is in use by …", or in another `state`.

        If this machine cannot tell whether the holder still runs, the fix also says how to break
        the lock. option: the command's option for that, if it has one.
        """
        if self.holder_is_unknown:
            fix = (f"if that process is gone, rm '{_holder_file(self.path)}'{option}; if it still "
                   f"runs, {fix}")
        return KitError(f"{what} {state} {self.holder or 'another process'}", fix)


def supports_locks(folder: Path) -> bool:
    """Whether the file system of `folder` has locks. OSError if nothing can be written there.

    It is tried on a new file, which no other process can have locked: so any error (ENOLCK,
    EOPNOTSUPP, ENOSYS, Linux' 524 for an NFS server's refusal, …) means that there are no locks.
    filelock 3.13 would take such an error for a lock that is held.
    """
    try:
        import fcntl
    except ImportError:  # Windows, where every file system has the locks that filelock uses
        return True
    with tempfile.TemporaryFile(dir=folder) as file:
        try:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
    return True


@contextlib.contextmanager
def acquire(path: Path, timeout: float = 0.0, break_lock: bool = False) -> Iterator[None]:
    """Hold the lock `path`, in an existing folder, during the with block.

    AlreadyLocked if another process still has it after `timeout` seconds. `break_lock`: take over a
    soft lock whose holder is on another machine; a process that runs on this machine always keeps
    its lock. OSError if the system refuses to write.
    """
    path = Path(path)
    if supports_locks(path.parent):
        with _native(path, timeout, break_lock):
            yield
        return
    me = _this_process(soft=True)
    deadline = time.monotonic() + timeout
    while not _create_holder_file(_holder_file(path), me):
        holder = read_holder(path)
        held = AlreadyLocked(path, holder, soft=True)
        is_stale = (holder and holder.is_dead) or (break_lock and held.holder_is_unknown)
        if is_stale and _remove_stale_holder(path, holder):
            continue
        if time.monotonic() >= deadline:
            raise held
        time.sleep(POLL_SECONDS)
    try:
        yield
    finally:
        _release(path, me)


@contextlib.contextmanager
def _native(path: Path, timeout: float, break_lock: bool) -> Iterator[None]:
    import filelock

    lock, me = filelock.FileLock(path), _this_process(soft=False)
    try:
        lock.acquire(timeout=timeout)
    except filelock.Timeout:
        raise AlreadyLocked(path, read_holder(path), soft=False) from None
    try:
        # Another machine may have mounted this folder without locks: its soft lock counts here as
        # well.
        held = AlreadyLocked(path, holder := read_holder(path), soft=True)
        may_break = break_lock and held.holder_is_unknown
        if holder and holder.soft and not holder.is_dead and not may_break:
            raise held
        file = _holder_file(path)
        # Left by a killed process; or a pipe, which write_text would wait for
        file.unlink(missing_ok=True)
        file.write_text(_text(me), "utf-8")
        try:
            yield
        finally:
            _release(path, me)
    finally:
        lock.release()


def read_holder(path: Path) -> Holder | None:
    """The process that holds the lock `path`, or was killed holding it; None if not known."""
    file = _holder_file(path)
    try:
        if file.is_file():  # opening a pipe would wait for its writer
            return Holder(**json.loads(file.read_text("utf-8")))
    except (OSError, ValueError, TypeError, RecursionError):
        # Gone, still being written, or of an older version
        pass
    return None


# -- the holder's file -----------------------------------------------------------------------------


def _holder_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.holder")


def _create_holder_file(file: Path, me: Holder) -> bool:
    """Create the holder file, which only one process can; whether this process was the one."""
    try:
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        return False
    with os.fdopen(handle, "w", encoding="utf-8") as written:
        written.write(_text(me))
    return True


def _remove_stale_holder(path: Path, holder: Holder | None) -> bool:
    """Remove the holder file of a process that is gone.

    False if another process is doing so right now. A second file, `.breaking`, lets one process at
    a time do this, and only while the holder file is still that holder's: otherwise a slower
    process would remove the file of a quicker one that has taken the lock meanwhile.
    """
    guard = path.with_name(f"{path.name}.breaking")
    try:
        os.close(os.open(guard, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))
    except FileExistsError:
        with contextlib.suppress(OSError):
            if time.time() - guard.stat().st_mtime > BREAKING_SECONDS:
                guard.unlink()
        return False
    try:
        if read_holder(path) == holder:
            _holder_file(path).unlink(missing_ok=True)
    finally:
        guard.unlink(missing_ok=True)
    return True


def _release(path: Path, me: Holder) -> None:
    with contextlib.suppress(OSError):
        if read_holder(path) == me:  # otherwise somebody has broken the lock
            _holder_file(path).unlink()


def _text(holder: Holder) -> str:
    return json.dumps(asdict(holder)) + "\n"


# -- processes -------------------------------------------------------------------------------------


def _this_process(soft: bool) -> Holder:
    own = os.getpid()
    return Holder(own, socket.gethostname(), time.time(), _machine_id(), _start_time(own), soft,
                  uuid.uuid4().hex)


def _machine_id() -> str:
    """Boot id and process namespace, within which process ids are unique; "" without /proc."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"  # noqa: PTH115  no path, but pid:[n]
    except OSError:
        return ""


def _start_time(process: int) -> str:
    """Start time in clock ticks after boot (field 22 of /proc/<pid>/stat); "" without /proc."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def _is_running(process: int) -> bool:
    if sys.platform == "win32":  # there os.kill with signal 0 sends Ctrl-C
        import ctypes

        windows = ctypes.WinDLL("kernel32", use_last_error=True)
        handle = windows.OpenProcess(0x10_0000, False, process)  # SYNCHRONIZE: to wait for it
        if not handle:
            return ctypes.get_last_error() == 5  # access denied: it runs, as another user
        ended = windows.WaitForSingleObject(handle, 0) == 0  # else WAIT_TIMEOUT: it runs
        windows.CloseHandle(handle)
        return not ended
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # not permitted: it runs, as another user
        pass
    return True


def _age(seconds: float) -> str:
    for unit, size in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"
