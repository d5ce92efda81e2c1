"""One writer at a time, also where the file system has no locks.

Where it has them, a lock is the system's own (filelock), which ends with its process. Elsewhere (NFS without its lock
service, some cloud and FUSE mounts) it is a soft lock: the file `<lock>.holder`, made exclusively, says who holds it.
That file outlives a process that is killed: a holder that has died on this machine is replaced, and one on another
machine only on request (`break_lock`), since nobody here can tell whether it still runs.

filelock's own SoftFileLock is not used: before 3.22 it never replaces a dead holder, and since 4.0 it does so by a
system call that NFS does not have.
"""

import contextlib
import json
import os
import socket
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from kit.core.errors import KitError

POLL_SECONDS = 0.1
BREAKING_SECONDS = 10.0  # replacing a holder takes milliseconds: what is older was left by a process that was killed


@dataclass(frozen=True)
class Holder:
    """Who holds a lock, as its file says."""

    process: int
    host: str
    since: float  # of time.time
    machine: str  # boot and process namespace, in which the process has this number
    born: str  # when the process began, as the system counts: numbers of processes are used again
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
        return self.is_here and (not _is_running(self.process) or _start_time(self.process) != self.born)


class AlreadyLocked(Exception):
    """Somebody else has the lock. `holder`: None where that is not known."""

    def __init__(self, path: Path, holder: Holder | None, soft: bool) -> None:
        super().__init__(path, holder)
        self.path, self.holder, self.soft = path, holder, soft

    @property
    def holder_is_unknown(self) -> bool:
        """Whether only the user can tell if the holder still runs."""
        return self.soft and not (self.holder and self.holder.is_here)

    def error(self, what: Path, fix: str, state: str = "is in use by", option: str = "") -> KitError:
        """`what` is in use, and by whom; where this machine cannot tell if that one still runs, how to free it.

        option: what does that, where a command has one.
        """
        if self.holder_is_unknown:
            fix = f"if that process is gone, rm '{_holder_file(self.path)}'{option}; if it still runs, {fix}"
        return KitError(f"{what} {state} {self.holder or 'another process'}", fix)


def supports_locks(folder: Path) -> bool:
    """Whether the file system of `folder` has locks. OSError where nothing can be written there.

    Asked with a new file, which nobody else can hold: whatever error comes back (ENOLCK, EOPNOTSUPP, ENOSYS, Linux' 524
    for an NFS server's refusal, …), it has none. filelock 3.13 takes such an answer for a lock that is held.
    """
    try:
        import fcntl
    except ImportError:  # Windows, where filelock uses what every file system has
        return True
    with tempfile.TemporaryFile(dir=folder) as file:
        try:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
    return True


@contextlib.contextmanager
def acquire(path: Path, timeout: float = 0.0, break_lock: bool = False) -> Iterator[None]:
    """Hold the lock at `path`, whose folder exists, for one process. `Held` if it is another's after `timeout` seconds.

    `break_lock`: replace the holder of a soft lock that is on another machine; never one that runs on this one. OSError
    where the system refuses to write.
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
        # The same folder may be mounted elsewhere without locks: a soft holder there counts here as well.
        held = AlreadyLocked(path, holder := read_holder(path), soft=True)
        if holder and holder.soft and not holder.is_dead and not (break_lock and held.holder_is_unknown):
            raise held
        file = _holder_file(path)
        file.unlink(missing_ok=True)  # what a killed process left, or no file at all but a pipe
        file.write_text(_text(me), "utf-8")
        try:
            yield
        finally:
            _release(path, me)
    finally:
        lock.release()


def read_holder(path: Path) -> Holder | None:
    """Who holds the lock at `path`, or left it when killed; None where nobody says so."""
    file = _holder_file(path)
    try:
        if file.is_file():  # a pipe would be waited for
            return Holder(**json.loads(file.read_text("utf-8")))
    except (OSError, ValueError, TypeError, RecursionError):  # gone, being written, or of an older kit
        pass
    return None


# -- the holder's file ----------------------------------------------------------------------------------------------


def _holder_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.holder")


def _create_holder_file(file: Path, me: Holder) -> bool:
    """Whether the soft lock is ours now: only one process can make the file."""
    try:
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        return False
    with os.fdopen(handle, "w", encoding="utf-8") as written:
        written.write(_text(me))
    return True


def _remove_stale_holder(path: Path, holder: Holder | None) -> bool:
    """Remove the file of a holder that is gone; whether that may be tried again at once.

    One process at a time may do so (those that do make a second file), and only while the file is still that holder's:
    else one that is late would remove the file of the process that was quicker.
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
        if read_holder(path) == me:  # else somebody was told to break it
            _holder_file(path).unlink()


def _text(holder: Holder) -> str:
    return json.dumps(asdict(holder)) + "\n"


# -- processes ------------------------------------------------------------------------------------------------------


def _this_process(soft: bool) -> Holder:
    own = os.getpid()
    return Holder(own, socket.gethostname(), time.time(), _machine_id(), _start_time(own), soft, uuid.uuid4().hex)


def _machine_id() -> str:
    """In which boot and which container this process has its number; empty where the system does not say."""
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {os.readlink('/proc/self/ns/pid')}"  # noqa: PTH115
    except OSError:
        return ""


def _start_time(process: int) -> str:
    """Field 22 of Linux' /proc/<pid>/stat, clock ticks after boot; empty where there is none."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it runs, as somebody else's
        pass
    return True


def _age(seconds: float) -> str:
    for unit, size in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"
