"""Download a file whole or not at all, going on where a connection was lost.

A download happens in a scratch folder beside its target. Whoever owns that folder holds a lock in it, so that the next
download can tell a killed one's leftovers from another's work.
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

CHUNK = 1 << 13  # bytes; what a lost connection loses at most
RESERVED_BYTES = 50 << 20  # bytes that stay free on the disk
SCRATCH, HELD = ".download-", ".held"
STALE = 3600.0  # seconds after which a scratch folder without a lock is a killed download's


@contextlib.contextmanager
def timed_sessions(connect: float, read: float, *modules: Any) -> Iterator[None]:
    """Every session of `requests` that is made inside gives each request without a time-out this one (seconds).

    Also those to which one of the `modules` gives an HTTPAdapter of its own.
    """
    import requests

    class Timed(requests.adapters.HTTPAdapter):
        def send(self, request: Any, **options: Any) -> Any:  # type: ignore[override]
            return super().send(request, **{**options, "timeout": options.get("timeout") or (connect, read)})

    places: list[Any] = [requests.sessions, *(module for module in modules if hasattr(module, "HTTPAdapter"))]
    before = [place.HTTPAdapter for place in places]
    for place in places:
        place.HTTPAdapter = Timed
    try:
        yield
    finally:
        for place, adapter in zip(places, before, strict=True):
            place.HTTPAdapter = adapter


def open_url(url: str, headers: dict[str, str], timeout: tuple[float, float]) -> Any:
    """An open response; raises what `requests` raises for a status of 400 and above."""
    import requests

    response = requests.get(url, headers=headers, stream=True, timeout=timeout)
    response.raise_for_status()
    return response


@contextlib.contextmanager
def scratch_folder(folder: Path, prefix: str = SCRATCH) -> Iterator[Path]:
    """A folder below `folder` that is gone afterwards, and with it those of that prefix whose processes were killed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(f"{prefix}*"):
            if _is_abandoned(left):
                _remove(left)
        temporary = tempfile.TemporaryDirectory(dir=folder, prefix=prefix, ignore_cleanup_errors=True)
    except OSError as error:
        raise unwritable(folder, error) from error
    with temporary as path, contextlib.ExitStack() as held:
        try:
            held.enter_context(locks.acquire(Path(path) / HELD))
        except OSError as error:
            raise unwritable(folder, error) from error
        yield Path(path)


def _is_abandoned(left: Path) -> bool:
    """Whether nobody holds this scratch folder any more: a killed process' lock is gone, or its holder seen to be."""
    try:
        if hasattr(os, "getuid") and left.lstat().st_uid != os.getuid():  # in a folder that several people share
            return False
        if not locks.read_holder(left / HELD) and not (left / HELD).is_file():  # its owner may be about to make it
            return time.time() - left.stat().st_mtime > STALE
        with locks.acquire(left / HELD):
            return True
    except (OSError, locks.AlreadyLocked):  # held, or gone in the meantime
        return False


def _remove(left: Path) -> None:
    """Remove a folder, and the folders in it that are read-only."""
    with contextlib.suppress(OSError):
        for path in left.rglob("*"):
            if path.is_dir() and not path.is_symlink():
                path.chmod(0o700)
    shutil.rmtree(left, ignore_errors=True)


# -- one file -------------------------------------------------------------------------------------------------------


def download_file(first: Callable[[], Any], again: Callable[[str, dict[str, str]], Any], path: Path,
                  say: Callable[[str], None], attempts: int, backoff: Callable[[int], float]) -> Path:
    """Write what `first()` opens to `path`; where the connection is lost, go on with `again(url, headers)`.

    Gives up after `attempts` tries in a row that brought nothing new. KitError: that, no space, the wrong length.
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
            raise KitError(f"cannot download {path.name}: it ended after {announced}, {attempts} times: the connection "
                           "was lost, or the announced length is wrong",
                           "check the network, then run the same command again (nothing half-written was left behind); "
                           "where a proxy cuts large files off, fetch it in a browser: kit download --from FILE.zip")
        say(f"{path.name}: the connection was lost after {announced}; going on")
        time.sleep(backoff(tries))
        response, done = _reopen(response, first, again, done, size)
        size = size if done else _size(response)


def _receive(response: Any, path: Path, done: int) -> tuple[int, bool]:
    """Write the body at byte `done` of `path`: where the file then ends, and whether the connection was lost."""
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


def _reopen(response: Any, first: Callable[[], Any], again: Callable[[str, dict[str, str]], Any], done: int,
            size: int | None) -> tuple[Any, int]:
    """The rest of the file from byte `done` on, or all of it where the server cannot or has another file by now."""
    if done and size and done < size:
        headers = {"Range": f"bytes={done}-", "Accept-Encoding": "identity"}
        validator = response.headers.get("ETag") or response.headers.get("Last-Modified")
        if validator and not validator.startswith("W/"):  # If-Range takes strong ones only; the zip's checksums decide
            headers["If-Range"] = validator
        with contextlib.suppress(KitError):  # the address was signed for a short while: ask for a new one below
            rest = again(response.url, headers)
            if rest.status_code == 206 and rest.headers.get("Content-Range", "").startswith(f"bytes {done}-") \
                    and rest.headers["Content-Range"].endswith((f"/{size}", "/*")):
                return rest, done
            rest.close()
    return first(), 0


def _size(response: Any) -> int | None:
    """Bytes of the body, where the server says so and does not compress it on the way."""
    length = response.headers.get("Content-Length", "")
    return int(length) if re.fullmatch(r"\d+", length) and not response.headers.get("Content-Encoding") else None


def check_disk_space(folder: Path, needed: int) -> None:
    """KitError where `needed` bytes do not fit on the disk of `folder`."""
    free = shutil.disk_usage(folder).free
    if needed + RESERVED_BYTES > free:
        raise KitError(f"not enough disk space for {folder}: {(needed + RESERVED_BYTES) / 1e6:,.0f} MB needed, "
                       f"{free / 1e6:,.0f} MB free", "free some space, or choose another disk with --data-dir")


def _write(file: IO[bytes], path: Path, chunk: bytes) -> None:
    try:
        file.write(chunk)
    except OSError as error:
        raise unwritable(path, error) from error


def unwritable(path: Path, error: OSError) -> KitError:
    """Why nothing can be written to `path`."""
    return storage.explain_os_error(error, path, "write")
