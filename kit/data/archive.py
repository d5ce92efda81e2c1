"""Somebody else's zip or folder → the CSV files in it, and nothing else.

In go a path and the names wanted; out come those files in a folder of ours. The one idea: only names that we ask for
are ever written, under names of our own, chunk by chunk with a limit, so neither a path in the archive nor a lie about
its size does harm. An archive that tries (links, `../`, two files of one name) is refused as a whole.
"""

import contextlib
import errno
import os
import stat
import struct
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from kit import transfer
from kit.data.csvfile import MAX_LINE_BYTES, named, shown, too_long
from kit.errors import KitError

MAX_BYTES = 4 << 30  # unpacked, all files of a zip together; ten times the competition's training rows take 1 GB
MAX_ENTRIES = 1000
_CHUNK = 2 * MAX_LINE_BYTES  # a chunk without a line end therefore shows a line that is too long
_END, _END_64, _LOCATOR_64 = b"PK\5\6", b"PK\6\6", b"PK\6\7"  # what stands at the end of a zip's directory
_WHOLE = "get the archive from the competition again, or unpack it yourself and give the folder"


def unpack(source: Path, required: Sequence[str], optional: Sequence[str], target: Path) -> None:
    """Copy `required`, and what there is of `optional`, from a zip or a folder into `target`; each may be a `.zip` too.

    KitError where a file is missing or the archive is damaged or hostile; some files may have been copied by then.
    """
    try:
        if source.is_dir():
            _from_folder(source, required, optional, target)
        elif source.is_file():
            _from_zip(source, required, optional, target)
        elif source.exists():
            raise KitError(f"{source} is neither a zip nor a folder",
                           "give the competition's zip, or the folder of its CSV files")
        else:
            raise KitError(f"there is no {source}", "check the path: kaggle, sample, or that of a zip or a folder")
    except OSError as error:
        raise KitError(f"cannot unpack {source} into {target.parent}: {error.strerror or error}",
                       "check that one may be read and the other written, then run the same command again") from error


def _from_folder(source: Path, required: Sequence[str], optional: Sequence[str], target: Path) -> None:
    there = {path.name: path for path in source.iterdir() if path.is_file()}
    for name in _wanted(str(source), list(there), required, optional):
        path = there[name]
        if name.endswith(".zip"):
            _from_inner(path, str(path), target / name.removesuffix(".zip"))
        else:
            with path.open("rb") as stream:
                _copy(stream, target / name, str(path))


def _from_zip(source: Path, required: Sequence[str], optional: Sequence[str], target: Path) -> None:
    with _open(source, str(source)) as archive:
        members = [(info.filename.rsplit("/", 1)[-1], info) for info in archive.infolist() if not info.is_dir()]
        names = _wanted(str(source), [name for name, _ in members], required, optional)
        for name, info in members:
            if name in names:
                _extract(archive, info, target / name, f"{source} → {name}")
                if name.endswith(".zip"):
                    _from_inner(target / name, f"{source} → {name}", target / name.removesuffix(".zip"))
                    (target / name).unlink()


def _from_inner(path: Path, called: str, target: Path) -> None:
    """The one file of a `.csv.zip`, whatever folder it lies in there."""
    with _open(path, called) as archive:
        members = [info for info in archive.infolist() if info.filename.rsplit("/", 1)[-1] == target.name]
        if len(members) != 1:
            raise KitError(f"{called} holds {named(archive.namelist()) or 'nothing'}, not {target.name}", _WHOLE)
        _extract(archive, members[0], target, f"{called} → {target.name}")


def _extract(archive: zipfile.ZipFile, info: zipfile.ZipInfo, target: Path, called: str) -> None:
    transfer.check_space(target.parent, info.file_size)
    with _reading(called), archive.open(info) as stream:
        _copy(stream, target, called)
    if target.stat().st_size != info.file_size:
        raise KitError(f"{called} has not the size that the archive says: it is damaged", _WHOLE)


def _wanted(called: str, there: list[str], required: Sequence[str], optional: Sequence[str]) -> list[str]:
    """The names to copy, each with or without `.zip`; KitError for one that is missing or there twice."""
    names = []
    for name in (*required, *optional):
        found = [other for other in there if other in (name, f"{name}.zip")]
        if len(found) > 1:
            raise KitError(f"{called} has more than one {name}: {named(sorted(found))}", "keep the one that is right")
        if not found and name in required:
            raise KitError(f"{called} has no {name}; it holds {named(sorted(there)) or 'nothing'}",
                           f"it must hold {', '.join(required)}, each as .csv or .csv.zip")
        names += found
    return names


@contextlib.contextmanager
def _open(path: Path, called: str) -> Iterator[zipfile.ZipFile]:
    """The zip at `path`, once all of its names, kinds and sizes have been looked at; errors speak of it as `called`."""
    with _reading(called):
        check_directory(path, called)
        archive = zipfile.ZipFile(path)
    with archive:
        seen: set[str] = set()
        for info in archive.infolist():
            problem = _problem(info)
            if info.filename.lower() in seen:
                problem = "is there twice (upper and lower case count the same)"
            if problem:
                raise KitError(f"{called}: {shown(info.filename)} {problem}", _WHOLE)
            seen.add(info.filename.lower())
        total = sum(info.file_size for info in archive.infolist())
        if total > MAX_BYTES:
            raise KitError(f"{called} unpacks to {total:,} bytes; more than {MAX_BYTES:,} are never unpacked", _WHOLE)
        yield archive


def _problem(info: zipfile.ZipInfo) -> str | None:
    parts = info.filename.replace("\\", "/").split("/")
    if ".." in parts or not parts[0] or ":" in parts[0]:
        return "names a place outside of the folder that it is unpacked into"
    if stat.S_ISLNK(info.external_attr >> 16):
        return "is a link, not a file"
    if info.flag_bits & 1:
        return "is encrypted"
    return None


def check_directory(path: Path, called: str) -> None:
    """KitError for more entries than a competition's zip ever has: Python would keep hundreds of bytes for each."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - (1 << 16) - 22))
        tail = file.read()
    end = len(tail) - 22 if tail[-22:-18] == _END and tail[-2:] == b"\0\0" else tail.rfind(_END)
    if end < 0 or len(tail) < end + 22:
        return
    counts = [struct.unpack_from("<HL", tail, end + 10)]
    if tail[max(0, end - 20):end].startswith(_LOCATOR_64):  # then Python believes the larger fields, whatever these say
        at = tail.rfind(_END_64, 0, end)
        counts.append(struct.unpack_from("<QQ", tail, at + 32) if 0 <= at <= end - 76 else (MAX_ENTRIES + 1, 0))
    if any(entries > MAX_ENTRIES or min(n_bytes, size) > MAX_ENTRIES << 16 for entries, n_bytes in counts):
        raise KitError(f"{called} has more than {MAX_ENTRIES:,} entries", _WHOLE)


@contextlib.contextmanager
def _reading(called: str) -> Iterator[None]:
    try:
        yield
    except (KitError, MemoryError):
        raise
    except Exception as error:  # zipfile and the decompressors raise a dozen kinds on damaged bytes
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):  # EINVAL: a place before the file
            raise
        raise KitError(f"{called} is no zip, or a damaged one: {_said(error)}", _WHOLE) from error


def _said(error: Exception) -> str:
    """What a library says of damaged bytes, which it may quote."""
    return shown(str(error) or type(error).__name__, 100)


def _copy(stream: IO[bytes], target: Path, called: str) -> None:
    """Write `stream` to `target`, as far as it looks like a CSV file of a size that can be."""
    lines, written = 1, 0
    with target.open("wb") as file:
        while chunk := stream.read(_CHUNK):
            found = chunk.count(b"\n")
            if target.suffix == ".csv" and not found and len(chunk) == _CHUNK:
                raise too_long(called, lines)
            lines, written = lines + found, written + len(chunk)
            if written > MAX_BYTES:
                raise KitError(f"{called} unpacks to more than {MAX_BYTES:,} bytes", _WHOLE)
            file.write(chunk)
