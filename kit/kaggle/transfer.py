"""What downloads need: time-outs, a scratch folder beside the target, and enough disk space.

The process that made a scratch folder holds a lock in it, so that later downloads can tell the
leftovers of a killed process from work in progress, and remove them.
"""

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kit.core import locks, os_errors
from kit.core.errors import KitError

RESERVED_BYTES = 50 << 20  # bytes to leave free on the disk
SCRATCH, HELD = ".download-", ".held"
STALE = 3600.0  # seconds after which a scratch folder without a lock was left by a killed process


@contextlib.contextmanager
def timed_sessions(connect: float, read: float, *modules: Any) -> Iterator[None]:
    """Give all `requests` sessions that are created in the with block default time-outs, in
    seconds.

    modules: modules whose own HTTPAdapter is to be replaced, too.
    """
    import requests

    class Timed(requests.adapters.HTTPAdapter):
        def send(self, request: Any, **options: Any) -> Any:  # type: ignore[override]
            return super().send(request,
                                **{**options, "timeout": options.get("timeout") or (connect, read)})

    places: list[Any] = [requests.sessions,
                         *(module for module in modules if hasattr(module, "HTTPAdapter"))]
    before = [place.HTTPAdapter for place in places]
    for place in places:
        place.HTTPAdapter = Timed
    try:
        yield
    finally:
        for place, adapter in zip(places, before, strict=True):
            place.HTTPAdapter = adapter


@contextlib.contextmanager
def scratch_folder(folder: Path, prefix: str = SCRATCH) -> Iterator[Path]:
    """A temporary folder below `folder`.

    Also removes those of the same prefix that killed processes left.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(f"{prefix}*"):
            if _is_abandoned(left):
                with contextlib.suppress(OSError):
                    for path in left.rglob("*"):  # a folder in it may be read-only
                        if path.is_dir() and not path.is_symlink():
                            path.chmod(0o700)
                shutil.rmtree(left, ignore_errors=True)
        temporary = tempfile.TemporaryDirectory(dir=folder, prefix=prefix,
                                                ignore_cleanup_errors=True)
    except OSError as error:
        raise os_errors.explain_os_error(error, folder, "write") from error
    with temporary as name, contextlib.ExitStack() as held:
        try:
            held.enter_context(locks.acquire(Path(name) / HELD))
        except OSError as error:
            raise os_errors.explain_os_error(error, folder, "write") from error
        yield Path(name)


def _is_abandoned(left: Path) -> bool:
    """Whether the process that made this scratch folder has ended."""
    try:
        if hasattr(os, "getuid") and left.lstat().st_uid != os.getuid():
            # Another user's, in a shared folder
            return False
        if not locks.read_holder(left / HELD) and not (left / HELD).is_file():
            # Just created, not locked yet
            return time.time() - left.stat().st_mtime > STALE
        with locks.acquire(left / HELD):
            return True
    except (OSError, locks.AlreadyLocked):  # held, or gone in the meantime
        return False


def check_disk_space(folder: Path, needed: int) -> None:
    """KitError if `needed` bytes do not fit on the disk of `folder`."""
    free = shutil.disk_usage(folder).free
    if needed + RESERVED_BYTES > free:
        raise KitError(f"not enough disk space for {folder}: "
                       f"{(needed + RESERVED_BYTES) / 1e6:,.0f} MB needed, {free / 1e6:,.0f} MB "
                       "free", "free some space, or choose another disk with --data-dir")
