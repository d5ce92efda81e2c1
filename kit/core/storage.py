"""Write the kit's artifacts atomically, and check their SHA-256 when they are read.

Each folder has a `checksums.json` with the SHA-256 of every artifact in it. The new digest is
recorded *before* the file is renamed into place, beside the digest of the file that it replaces. So
whenever a process dies, the file that is there matches one of the two. File systems need not have
modes or fsync, nor allow renaming onto a mounted file.
"""

import contextlib
import errno
import hashlib
import io
import json
import math
import os
import shutil
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from kit.core.errors import KitError
from kit.core.os_errors import disk_errors

CHECKSUMS = "checksums.json"
MAX_ARTIFACT_BYTES = 1 << 28  # artifacts have at most some 100 MB: a larger file is not one
MAX_CSV_BYTES = 48 << 20  # folds.csv of two million rows; pandas may need fifty times as much


# -- writing ---------------------------------------------------------------------------------------


def write_bytes(path: Path, data: bytes, record: bool = True) -> None:
    """Write `data` to `path` atomically. KitError if the disk refuses.

    record: write the SHA-256 into the folder's checksums.json. False for a file that the user
    named, which is no artifact and must not replace one.
    """
    path = Path(path)
    with disk_errors(path, "write"):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not record and _is_recorded(path):
            raise KitError(f"{path} is an artifact of the kit's own",
                           "choose another place with --out")
        if record:
            sums = _checksums(path.parent)
            # The old digest stays, since it is right until the file is renamed.
            sums[path.name] = [hashlib.sha256(data).hexdigest(), *sums.get(path.name, [])][:2]
            _write_checksums(path.parent, sums)
        write_atomically(path, data)


def write_text(path: Path, text: str, record: bool = True) -> None:
    # A path may have bytes that are not UTF-8
    write_bytes(path, text.encode("utf-8", "backslashreplace"), record)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON.

    NumPy values are converted; NaN is an error, since JSON has none.
    """
    text = json.dumps(value, indent=2, default=_plain, allow_nan=False, ensure_ascii=False)
    write_text(path, text + "\n")


def write_npz(path: Path, compress: bool = True, **arrays: np.ndarray) -> None:
    write_bytes(path, npz_bytes(compress, **arrays))


def npz_bytes(compress: bool = True, **arrays: np.ndarray) -> bytes:
    """The bytes of an `.npz` of these arrays. The same arrays give the same bytes."""
    buffer = io.BytesIO()
    (np.savez_compressed if compress else np.savez)(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def write_csv(path: Path, frame: Any) -> None:
    """Write a pandas frame without its index, UTF-8, `\\n` line ends."""
    write_text(path, frame.to_csv(index=False, lineterminator="\n"))


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} does not belong into JSON")


# errno of fsync where the file system has none
NO_FSYNC = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
# errno of a rename onto a file that another program has open
IN_USE = {errno.EBUSY, errno.EACCES, errno.EPERM, errno.ETXTBSY}
RENAME_TRIES, RENAME_PAUSE = 5, 0.1  # virus scanners and indexers open a new file for a moment


def write_atomically(path: Path, data: bytes) -> None:
    """Replace the file `path` by `data`, flushed to the disk.

    On an OSError the old file is unchanged.
    """
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            try:
                os.fsync(file.fileno())
            except OSError as error:
                if error.errno not in NO_FSYNC:
                    raise
        with contextlib.suppress(OSError):
            # OneDrive and many mounts have no modes; no artifact is a secret
            Path(temporary).chmod(0o644)
        move(Path(temporary), path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(temporary).unlink()
        raise


def move(source: Path, target: Path) -> None:
    """Rename `source` to `target`, replacing it; copy it if they are on different disks.

    Raises OSError. If nothing can be renamed onto `target`, its content is overwritten. That is not
    atomic, but after a write that was cut off the recorded checksum does not match.
    """
    for tries_left in reversed(range(RENAME_TRIES)):
        try:
            source.replace(target)
            return
        except OSError as error:
            if error.errno == errno.EXDEV or (error.errno == errno.EBUSY and not tries_left):
                # Another disk; or a single mounted file, which can be written but not replaced
                break
            if error.errno not in IN_USE or not tries_left:
                raise
            time.sleep(RENAME_PAUSE)
    if source.parent == target.parent:
        shutil.copyfile(source, target)
    else:
        handle, beside = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.",
                                          suffix=".tmp")
        os.close(handle)
        try:
            shutil.copyfile(source, beside)
            move(Path(beside), target)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(beside).unlink()
            raise
    source.unlink()


def remove_artifact(path: Path) -> None:
    """Remove `path` if it exists and checksums.json lists it; other files are the user's."""
    if not path.is_file() or not _is_recorded(path):
        return
    with disk_errors(path, "remove"):
        path.unlink()
        sums = _checksums(path.parent)
        del sums[path.name]
        _write_checksums(path.parent, sums)


def _is_recorded(path: Path) -> bool:
    """Whether the checksums.json beside `path` lists it; False if that file cannot be read."""
    with contextlib.suppress(KitError):
        return path.name in _checksums(path.parent)
    return False


def copy_tree(source: Path, target: Path) -> None:
    """Copy a folder without its modes, which shutil.copytree copies and some mounts refuse.

    Raises OSError.
    """

    def stop(error: OSError) -> None:
        raise error

    for folder, _, names in os.walk(source, onerror=stop, followlinks=True):
        copies = target / Path(folder).relative_to(source)
        copies.mkdir(parents=True, exist_ok=True)
        for name in names:
            shutil.copyfile(Path(folder) / name, copies / name)


# -- reading ---------------------------------------------------------------------------------------


def read_bytes(path: Path) -> bytes:
    """The bytes of an artifact. KitError if it is missing, or not what checksums.json says."""
    path = Path(path)
    if not path.is_file():
        raise KitError(f"{path} is missing", _again(path, is_there=False))
    with disk_errors(path, "read"):
        if path.stat().st_size > MAX_ARTIFACT_BYTES:
            raise KitError(f"{path} is larger than any artifact of the kit",
                           "put the original file back")
        data = path.read_bytes()
        accepted = _checksums(path.parent).get(path.name)
    if accepted and hashlib.sha256(data).hexdigest() not in accepted:
        raise damaged(path, "its SHA-256 is not the recorded one")
    return data


def read_text(path: Path) -> str:
    try:
        return read_bytes(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise damaged(path, f"byte {error.start} is not UTF-8") from error


def read_json(path: Path, *names: str) -> Any:
    """The value of a JSON file; with `names`, an object that has these keys. KitError if not."""
    text = read_text(path)
    try:
        value = json.loads(text, parse_constant=_finite, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise damaged(path, f"not JSON: {error}") from error
    missing = [name for name in names if not isinstance(value, dict) or name not in value]
    if missing:
        raise damaged(path, f"it does not say: {', '.join(missing)}")
    return value


def _finite(text: str) -> float:
    """A finite float; Python's JSON reader would accept NaN, Infinity and 1e999."""
    if not math.isfinite(value := float(text)):
        raise ValueError(f"{text} is not a number")
    return value


def read_npz(path: Path, *names: str) -> dict[str, np.ndarray]:
    """The arrays of an `.npz`, read without pickles.

    KitError if it is damaged, or has no array of one of `names`.
    """
    data = read_bytes(path)
    try:
        check_unpacked_size(path, data)
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        if not all(isinstance(array, np.ndarray) for array in arrays.values()):
            raise ValueError("a member is no array")
    except KitError:
        raise
    except Exception as error:
        # Zipfile, zlib, numpy and struct raise a dozen kinds on damaged bytes
        raise damaged(path, f"not a readable .npz ({type(error).__name__})") from error
    missing = [name for name in names if name not in arrays]
    if missing:
        raise damaged(path, f"it has no array named {', '.join(missing)}")
    return arrays


def check_unpacked_size(path: Path, data: bytes) -> None:
    """KitError if a zip (.npz, .keras) would unpack to more than MAX_ARTIFACT_BYTES."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        total = sum(info.file_size for info in archive.infolist())
    if total > MAX_ARTIFACT_BYTES:
        raise damaged(path,
                      f"it unpacks to {total:,} bytes, more than any artifact of the kit has")


def read_csv(path: Path) -> Any:
    """An artifact (folds.csv, history.csv) as a pandas frame.

    For competition files see `kit.data.table`.
    """
    import pandas as pd

    data = read_bytes(path)
    if len(data) > MAX_CSV_BYTES:
        raise damaged(path,
                      f"it has {len(data):,} bytes, more than the rows of any competition need")
    try:
        # low_memory warns of columns with text among numbers
        return pd.read_csv(io.BytesIO(data), low_memory=False)
    except (ValueError, pd.errors.ParserError) as error:
        raise damaged(path, f"not readable as CSV: {error}") from error


def sha256_file(path: Path) -> str:
    """The SHA-256 of a file of any size, in hex. KitError if it is missing or cannot be read."""
    if not Path(path).is_file():  # opening a pipe would wait for its writer
        raise KitError(f"{path} is missing, or not a file", "put the file there")
    with disk_errors(Path(path), "read"), Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Damaged(KitError):
    """An artifact is not what was written."""


def damaged(path: Path, why: str) -> Damaged:
    """The error for an artifact that is damaged, with the way to make it again."""
    return Damaged(f"{path} is damaged: {why}", _again(Path(path)))


@contextlib.contextmanager
def fix_of_damage(fix: str) -> Iterator[None]:
    """Give `fix` with what is found damaged in the with block: there it is not made by a run."""
    try:
        yield
    except Damaged as error:
        raise Damaged(error.message, fix) from error


def _again(path: Path, is_there: bool = True) -> str:
    """The fix for an artifact that is damaged, or missing (not `is_there`)."""
    if path.name == "config.json":
        return "put the original file back, or make the run again with --force"
    # A fold is made again as a whole.
    in_a_fold = path.name != "done.json" and (path.parent / "done.json").is_file()
    delete = f"delete {path.parent} and " * in_a_fold or "delete it and " * is_there
    again = f"{delete}run the command that makes it again"
    if any((folder / "folds.csv").is_file() for folder in path.parents):  # a run's
        return f"{again}, with --resume"
    return f"put the original file back, or {again}"


def _write_checksums(folder: Path, sums: dict[str, list[str]]) -> None:
    write_atomically(folder / CHECKSUMS,
                     (json.dumps(sums, indent=1, sort_keys=True) + "\n").encode())


def _checksums(folder: Path) -> dict[str, list[str]]:
    """The accepted digests of each file in `folder`; {} if none are recorded."""
    path = folder / CHECKSUMS
    if not path.is_file():
        return {}
    try:
        sums = json.loads(path.read_text("utf-8"))
        if all(isinstance(digests, list) for digests in sums.values()):
            return dict(sums)
    except (ValueError, AttributeError, RecursionError):
        pass
    raise KitError(f"{path} is damaged: not a table of checksums",
                   "delete it; the files beside it are then read unchecked, or run the command "
                   "that makes them again")
