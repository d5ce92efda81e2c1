"""Cache the checked arrays of a CSV file in `.cache/` beside it, as a memory map.

The cache is used only if it belongs to the unchanged file (same size, times and inode, or else the
same SHA-256) and is undamaged (CRC-32). Whatever is wrong with it, the CSV file is simply read
again.
"""

import contextlib
import hashlib
import json
import os
import tempfile
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from kit.core.storage import sha256_file

# Raise it when the reader accepts other files or the layout changes: older caches are then ignored
VERSION = 1
Arrays = tuple[np.ndarray, np.ndarray, str]  # pixels, labels or ids, SHA-256 of the CSV file


def file_stamp(info: os.stat_result) -> list[int]:
    """Size, mtime and ctime in nanoseconds, and inode: one changes whenever the file does."""
    return [info.st_size, info.st_mtime_ns, info.st_ctime_ns, info.st_ino]


def load(path: Path, columns: tuple[str, ...], n_classes: int) -> Arrays | None:
    """The cached arrays of `path`, pixels as a memory map. None without a valid cache."""
    if not all(_file(path, kind).is_file() for kind in ("json", "pixels.npy", "names.npy")):
        return None
    try:
        about = json.loads(_file(path, "json").read_text("utf-8"))
        if about["layout"] != _layout(columns, n_classes):
            return None
        now = file_stamp(path.stat())
        if about["stamp"] != now:
            if about["size"] != now[0] or sha256_file(path) != about["sha256"] \
                    or file_stamp(path.stat()) != now:
                return None
            with contextlib.suppress(OSError):
                # In a read-only folder the file is hashed again each time
                _write_about(path, about | {"stamp": trusted(now)})
        try:
            pixels = np.load(_file(path, "pixels.npy"), mmap_mode="r", allow_pickle=False)
        except OSError:  # a mount that cannot map files
            pixels = np.load(_file(path, "pixels.npy"), allow_pickle=False)
        names = np.load(_file(path, "names.npy"), allow_pickle=False)
        if [_crc(pixels), _crc(names)] != about["crc32"]:
            return None
        return np.asarray(pixels), names, about["sha256"]
    except Exception:  # a damaged cache can raise anything; it is treated as missing
        return None


def save(path: Path, columns: tuple[str, ...], n_classes: int, before: list[int],
         arrays: Arrays) -> None:
    """Cache `arrays`, unless `path` has changed since the stamp `before` or its folder is
    read-only.
    """
    pixels, names, sha256 = arrays
    with contextlib.suppress(OSError):
        if file_stamp(path.stat()) != before:
            return
        _file(path, "json").parent.mkdir(exist_ok=True)
        for kind, array in (("pixels.npy", pixels), ("names.npy", names)):
            _replace(_file(path, kind),
                     lambda file, array=array: np.save(file, array, allow_pickle=False))
        _write_about(path, {"layout": _layout(columns, n_classes), "stamp": trusted(before),
                            "size": before[0],
                            "sha256": sha256, "crc32": [_crc(pixels), _crc(names)]})


def trusted(stamp: list[int]) -> list[int] | None:
    """The stamp; None if the file changed so recently that another change might leave the same
    times.
    """
    return stamp if time.time_ns() - stamp[2] > 2_000_000_000 else None


def _layout(columns: tuple[str, ...], n_classes: int) -> str:
    return hashlib.sha256(json.dumps([VERSION, columns, n_classes]).encode()).hexdigest()


def _crc(array: np.ndarray) -> list[Any]:
    return [array.dtype.str, list(array.shape),
            zlib.crc32(np.ascontiguousarray(array).view(np.uint8).data)]


def _file(path: Path, kind: str) -> Path:
    return path.parent / ".cache" / f"{path.name}.{kind}"


def _write_about(path: Path, about: dict[str, Any]) -> None:
    _replace(_file(path, "json"), lambda file: file.write(json.dumps(about).encode()))


def _replace(path: Path, write: Any) -> None:
    """Write a file atomically, without fsync: a cache that is lost in a crash is made again."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
        Path(temporary).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(temporary).unlink()
        raise
