"""Copy the competition's CSV files out of an untrusted zip or folder, and nothing else.

Only files that are asked for are written, under names of our own and up to a size limit. So neither
a path in the archive nor a false size does harm.
"""

import contextlib
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from kit.core import os_errors
from kit.core.errors import KitError
from kit.data.csvfile import MAX_LINE_BYTES, list_names, open_csv, too_long, unreadable
from kit.data.packed import DOWNLOAD_AGAIN, MAX_BYTES, open_packed, open_zip, unpacking_errors
from kit.kaggle import transfer

PACKED_SUFFIXES = (".zip", ".gz")
_CHUNK = 2 * MAX_LINE_BYTES  # so a chunk without a line end means that a line is too long


def has_file(source: Path, name: str) -> bool:
    """Whether a folder or a zip has the file `name`, plain or packed."""
    names: list[str] = []
    with contextlib.suppress(KitError, OSError, ValueError):
        if source.is_dir():
            names = [path.name for path in source.iterdir()]
        elif source.is_file():
            with open_zip(source, str(source)) as archive:
                names = [info.filename.rsplit("/", 1)[-1] for info in archive.infolist()]
    return any(name + suffix in names for suffix in ("", *PACKED_SUFFIXES))


def unpack(source: Path, required: Sequence[str], optional: Sequence[str], target: Path,
           hint: str = "") -> None:
    """Copy the files `required`, and those of `optional` that exist, from a zip or folder into
    `target`, unpacked.

    In the source each file may be a .zip or .gz itself. hint: what else may correct a missing file.
    KitError if a required file is missing, or the archive is damaged or hostile; some files may
    have been copied by then.
    """
    try:
        if source.is_dir():
            there = {path.name: path for path in source.iterdir() if path.is_file()}
            for name in _wanted(str(source), list(there), required, optional, hint):
                if name.endswith(PACKED_SUFFIXES):
                    _from_inner(there[name], str(there[name]), target / name.rsplit(".", 1)[0])
                else:
                    with open_csv(there[name]) as stream:
                        _copy(stream, target / name, str(there[name]))
        elif source.is_file():
            with open_zip(source, str(source)) as archive:
                # Some zips have the same file a second time, in a folder of its name
                files = sorted((info for info in archive.infolist() if not info.is_dir()),
                               key=lambda info: info.filename.count("/"), reverse=True)
                same = {(info.filename.rsplit("/", 1)[-1], info.CRC, info.file_size): info
                        for info in files}
                members = [(name, info) for (name, _, _), info in same.items()]
                names = _wanted(str(source), [name for name, _ in members], required, optional,
                                hint)
                for name, info in members:
                    if name in names:
                        _extract(archive, info, target / name, f"{source} → {name}")
                        if name.endswith(PACKED_SUFFIXES):
                            _from_inner(target / name, f"{source} → {name}",
                                        target / name.rsplit(".", 1)[0])
                            (target / name).unlink()
        elif source.exists():
            raise KitError(f"{source} is neither a zip nor a folder",
                           "give the competition's zip, or the folder of its CSV files")
        else:
            missing = unreadable(FileNotFoundError(), source, never=(".toml",))
            raise KitError(missing.message, f"{missing.fix} (--from takes kaggle, sample, keras, "
                                            "or the path of a zip, a folder or an .npz)")
    except OSError as error:
        raise unreadable(error, source) from error


def _from_inner(path: Path, called: str, target: Path) -> None:
    """Unpack a `.csv.gz`, or a `.csv.zip` that holds this one CSV file, in whatever folder."""
    if path.suffix == ".gz":
        with open_packed(path, called) as stream:
            _copy(stream, target, called)
        return
    with open_zip(path, called) as archive:
        members = [info for info in archive.infolist()
                   if info.filename.rsplit("/", 1)[-1] == target.name]
        if len(members) != 1:
            raise KitError(f"{called} holds {list_names(archive.namelist()) or 'nothing'}, not "
                           f"{target.name}", f"put {target.name} itself in its place")
        _extract(archive, members[0], target, f"{called} → {target.name}")


def _extract(archive: zipfile.ZipFile, info: zipfile.ZipInfo, target: Path, called: str) -> None:
    transfer.check_disk_space(target.parent, info.file_size)
    with unpacking_errors(called), archive.open(info) as stream:
        _copy(stream, target, called)
    if target.stat().st_size != info.file_size:
        raise KitError(f"{called} does not have the size that the archive says: it is damaged",
                       DOWNLOAD_AGAIN)


def _wanted(called: str, there: list[str], required: Sequence[str],
            optional: Sequence[str], hint: str) -> list[str]:
    """The names to copy, plain or packed. KitError for a name that is missing or found twice."""
    names = []
    for name in (*required, *optional):
        found = [other for other in there
                 if other in (name, *(name + suffix for suffix in PACKED_SUFFIXES))]
        if len(found) > 1:
            raise KitError(f"{called} has more than one {name}: {list_names(sorted(found))}",
                           "keep the one that is right")
        if not found and name in required:
            raise KitError(f"{called} has no {name}; it holds "
                           f"{list_names(sorted(there)) or 'nothing'}",
                           f"it must hold {', '.join(required)}, each as .csv, .csv.zip or .csv.gz"
                           + hint)
        names += found
    return names


def _copy(stream: IO[bytes], target: Path, called: str) -> None:
    """Write `stream` to `target`. KitError if it is too long, or has a CSV line that is."""
    lines, written = 1, 0
    try:
        with target.open("wb") as file:
            while True:
                try:
                    chunk = stream.read(_CHUNK)
                except OSError as error:
                    if error.errno is None:  # raised by a decompressor, not by the system
                        raise ValueError(str(error)) from error
                    raise unreadable(error, Path(called)) from error
                if not chunk:
                    return
                found = chunk.count(b"\n")
                if target.suffix == ".csv" and not found and len(chunk) == _CHUNK:
                    raise too_long(called, lines)
                lines, written = lines + found, written + len(chunk)
                if written > MAX_BYTES:
                    raise KitError(f"{called} unpacks to more than {MAX_BYTES:,} bytes",
                                   "give the right file")
                file.write(chunk)
    except OSError as error:
        raise os_errors.explain_os_error(error, target.parent, "write") from error
