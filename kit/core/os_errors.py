"""Turn what the operating system refuses into a KitError: what was refused, and how to mend it.

Full and read-only disks, modes, names that a disk does not take, network disks, Windows.
"""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from kit.core.errors import KitError


@contextlib.contextmanager
def disk_errors(path: Path, verb: str) -> Iterator[None]:
    """Turn an OSError in the with block into a KitError: "cannot `verb` `path`: …"."""
    try:
        yield
    except OSError as error:
        raise explain_os_error(error, path, verb) from error
    except ValueError as error:  # a NUL in the name
        raise KitError(f"cannot {verb} {str(path)!r}: {error}", "choose another name") from error


AGAIN = "then run the same command again (training: with --resume)"
FIXES = {
    "ENOSPC": f"free some space on that disk, {AGAIN}",
    "EDQUOT": f"free some of your quota on that disk, {AGAIN}",
    "EFBIG": "that disk, or ulimit -f, does not take files of this size: choose a folder on "
             "another disk",
    "EROFS": "it is mounted read-only: choose a folder on another disk",
    "EISDIR": "a folder is in the place of the file: name a file, or move the folder away",
    "ENOTDIR": "a file is in the place of one of its folders: name another folder, or move the "
               "file away",
    "EEXIST": "something is in its place: move that away, or choose another name",
    "ENOENT": "one of its folders is missing, or was removed meanwhile: check the path",
    "ENOTEMPTY": "another process still writes into that folder, or has a file of it open: end it, "
                 "and try again",
    "ENAMETOOLONG": "its name or path is too long for that disk: choose a shorter one",
    "EILSEQ": "that disk does not take such a name: use plain letters and digits",
    "EINVAL": "that disk does not take such a name, or such a request: choose a plain name, or "
              "another disk",
    "ELOOP": "its links lead in a circle: correct them, or choose another folder",
    "EMFILE": "this process may not open more files: raise the limit with ulimit -n 4096, and try "
              "again",
    "ENFILE": "this machine has too many files open: close other programs, and try again",
    "EBUSY": "another program, or a mount, holds it: close that, and try again",
    "ETXTBSY": "it is a program that is running: end it, or choose another name",
    "EXDEV": "it would have to move to another disk: choose a folder on the same one",
    "EIO": "the disk, or the connection to it, fails: look at the system's log, and choose another "
           "disk",
    "ENODEV": "that file system cannot do this: choose a folder on a local disk",
    "ENXIO": "that file system cannot do this: choose a folder on a local disk",
    "ESTALE": "the network disk was mounted anew or has lost the folder: change into it again, "
              f"{AGAIN}",
    "ENOTCONN": f"the network disk is no longer connected: mount it again, {AGAIN}",
    "ETIMEDOUT": f"the network disk does not answer: see that its server is up, {AGAIN}",
    "EHOSTDOWN": f"the network disk does not answer: see that its server is up, {AGAIN}",
    "ENOLCK": "that disk has no lock left (NFS: its lock service is down or full): try again, or "
              "use a local disk",
    "ENOTSUP": "that file system cannot do this: choose a folder on a local disk",
    "EOPNOTSUPP": "that file system cannot do this: choose a folder on a local disk",
    "ENOSYS": "that file system, or this container, cannot do this: choose a folder on a local "
              "disk",
    "ENOMEM": f"close other programs, or raise the container's memory, {AGAIN}",
    "EAGAIN": f"the system has no process or memory left for you: close other programs, {AGAIN}",
}
# By number; Windows and macOS lack some of the names
_FIX_OF_ERRNO = {getattr(errno, name): fix for name, fix in FIXES.items() if hasattr(errno, name)}
_NFS_UNSUPPORTED = 524  # Linux' ENOTSUPP, which has no name outside the kernel
ON_WINDOWS = {32: "another program has it open: close it there, and try again",
              33: "another program has locked a part of it: close it there, and try again"}


def explain_os_error(error: OSError, path: Path | str, verb: str) -> KitError:
    """The KitError "cannot `verb` `path`: …" for `error`, with a fix for its cause."""
    number = error.errno or 0
    words = "the file system does not support it" if number == _NFS_UNSUPPORTED \
        else error.strerror or str(error)
    if (winerror := getattr(error, "winerror", None)) in ON_WINDOWS:
        fix = ON_WINDOWS[winerror]
    elif number in (errno.EACCES, errno.EPERM):
        fix = _permission(Path(error.filename if isinstance(error.filename, str) else path), verb)
    else:
        fix = _FIX_OF_ERRNO.get(errno.ENOTSUP if number == _NFS_UNSUPPORTED else number,
                                "see that the folder exists and is yours, or choose another one")
    return KitError(f"cannot {verb} {path}: {words}", fix)


def _permission(path: Path, verb: str) -> str:
    """The fix for EACCES or EPERM, caused by the mode of the file or folder, or by neither."""
    if verb == "read":
        return f"allow it, e.g. chmod u+r '{path}'; if it is somebody else's, ask them"
    folder = path if path.is_dir() else path.parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not os.access(folder, os.W_OK | os.X_OK):
        return (f"make the folder writable (chmod u+wx '{folder}', if it is yours), or choose "
                "another one")
    if path.is_file() and not os.access(path, os.W_OK):
        return (f"make the file writable (chmod u+w '{path}', if it is yours), or choose another "
                "name")
    return ("its modes would allow it, so the mount, a security policy or another program that has "
            "it open does not: close such programs, or choose a folder on another disk")
