"""Download files completely or not at all, resuming after lost connections.

A file is downloaded into a scratch folder beside its target. The process that made the folder holds
a lock in it, so that later downloads can tell the leftovers of a killed process from work in
progress, and remove them.
"""

import contextlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from kit.core import locks, storage
from kit.core.errors import KitError

CHUNK = 1 << 13  # bytes, the most that a lost connection costs
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


def open_url(url: str, headers: dict[str, str], timeout: tuple[float, float]) -> Any:
    """An open streaming response. Raises requests' HTTPError for a status of 400 or above."""
    import requests

    response = requests.get(url, headers=headers, stream=True, timeout=timeout)
    response.raise_for_status()
    return response


@contextlib.contextmanager
def scratch_folder(folder: Path, prefix: str = SCRATCH) -> Iterator[Path]:
    """A temporary folder below `folder`.

    Also removes those of the same prefix that killed processes left.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(f"{prefix}*"):
            if _is_abandoned(left):
                _remove(left)
        temporary = tempfile.TemporaryDirectory(dir=folder, prefix=prefix,
                                                ignore_cleanup_errors=True)
    except OSError as error:
        raise unwritable(folder, error) from error
    with temporary as path, contextlib.ExitStack() as held:
        try:
            held.enter_context(locks.acquire(Path(path) / HELD))
        except OSError as error:
            raise unwritable(folder, error) from error
        yield Path(path)


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


def _remove(left: Path) -> None:
    """Remove a folder, even if folders in it are read-only."""
    with contextlib.suppress(OSError):
        for path in left.rglob("*"):
            if path.is_dir() and not path.is_symlink():
                path.chmod(0o700)
    shutil.rmtree(left, ignore_errors=True)


# -- one file --------------------------------------------------------------------------------------


def download_file(first: Callable[[], Any], again: Callable[[str, dict[str, str]], Any], path: Path,
                  say: Callable[[str], None], attempts: int,
                  backoff: Callable[[int], float]) -> Path:
    """Write the response of `first()` to `path`; after a lost connection, resume with `again(url,
    headers)`.

    backoff: seconds to wait before the n-th retry. KitError after `attempts` tries in a row without
    a new byte, or if the disk is full.
    """
    response, done, best, tries = first(), 0, 0, 0
    size = _size(response)
    try:
        check_disk_space(path.parent, size or 0)
    except KitError:
        response.close()
        raise
    say(f"downloading {path.name}" + (f" ({size / 1e6:,.1f} MB)" if size else ""))
    while True:
        done, lost = _receive(response, path, done)
        if not lost and size in (None, done):
            return path
        tries = 1 if done > best else tries + 1
        best = max(best, done)
        announced = f"{done:,} of {size:,} bytes" if size else f"{done:,} bytes"
        if tries >= attempts:
            raise KitError(f"cannot download {path.name}: it ended after {announced}, {attempts} "
                           "times: the connection was lost, or the announced length is wrong",
                           "check the network, then run the same command again (nothing "
                           "half-written was left behind); where a proxy cuts large files off, "
                           "fetch it in a browser: kit download --from FILE.zip")
        say(f"{path.name}: the connection was lost after {announced}; going on")
        time.sleep(backoff(tries))
        response, done = _reopen(response, first, again, done, size)
        size = size if done else _size(response)


def _receive(response: Any, path: Path, done: int) -> tuple[int, bool]:
    """Write the body to `path` from byte `done` on: (new length of the file, whether the connection
    was lost).
    """
    import requests

    with response, path.open("r+b" if done else "wb") as file:
        file.seek(done)
        file.truncate()
        chunks = response.iter_content(CHUNK)
        while True:
            try:
                chunk = next(chunks, b"")
            except (requests.RequestException, OSError):
                return done, True
            if not chunk:
                return done, False
            _write(file, path, chunk)
            done += len(chunk)


def _reopen(response: Any, first: Callable[[], Any], again: Callable[[str, dict[str, str]], Any],
            done: int, size: int | None) -> tuple[Any, int]:
    """(response, offset): the rest of the file from byte `done` on if the server can send it,
    otherwise all of it.
    """
    if done and size and done < size:
        headers = {"Range": f"bytes={done}-", "Accept-Encoding": "identity"}
        validator = response.headers.get("ETag") or response.headers.get("Last-Modified")
        if validator and not validator.startswith("W/"):
            # If-Range must not have a weak ETag; without it, the zip's own checksums must do
            headers["If-Range"] = validator
        with contextlib.suppress(KitError):  # the signed address has expired: get a new one below
            rest = again(response.url, headers)
            part = rest.headers.get("Content-Range", "")
            if rest.status_code == 206 and part.startswith(f"bytes {done}-") \
                    and part.endswith((f"/{size}", "/*")):
                return rest, done
            rest.close()
    return first(), 0


def _size(response: Any) -> int | None:
    """The length of the body in bytes; None if the server does not say it, or compresses the body."""
    length = response.headers.get("Content-Length", "")
    return int(length) if re.fullmatch(r"\d+",
                                       length) and not response.headers.get("Content-Encoding") else None


def check_disk_space(folder: Path, needed: int) -> None:
    """KitError if `needed` bytes do not fit on the disk of `folder`."""
    free = shutil.disk_usage(folder).free
    if needed + RESERVED_BYTES > free:
        raise KitError(f"not enough disk space for {folder}: "
                       f"{(needed + RESERVED_BYTES) / 1e6:,.0f} MB needed, {free / 1e6:,.0f} MB "
                       "free", "free some space, or choose another disk with --data-dir")


def _write(file: IO[bytes], path: Path, chunk: bytes) -> None:
    try:
        file.write(chunk)
    except OSError as error:
        raise unwritable(path, error) from error


def unwritable(path: Path, error: OSError) -> KitError:
    """The KitError for a failed write to `path`."""
    return storage.explain_os_error(error, path, "write")
