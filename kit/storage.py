"""Atomic, checksummed writes. Nothing else in the kit writes artifacts.

In goes what a stage made; out comes a file that is there whole or not at all. The one idea: each folder carries a
`checksums.json` that names the SHA-256 of every artifact in it. The new digest is recorded *before* the file is
renamed into place, beside the digest of the file that it replaces, so that whenever a process dies, the file that is
there matches one of the two.
"""

import contextlib
import errno
import hashlib
import io
import json
import math
import os
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from kit.errors import KitError

CHECKSUMS = "checksums.json"
MAX_ARTIFACT_BYTES = 1 << 28  # an artifact of the kit is at most some 100 MB; what is larger is not ours
MAX_CSV_BYTES = 48 << 20  # folds.csv of two million rows; as text in pandas it takes some fifty times that


# -- writing --------------------------------------------------------------------------------------------------------


def write_bytes(path: Path, data: bytes, record: bool = True) -> None:
    """Write `data` to `path` whole or not at all. KitError where the disk refuses.

    record: its SHA-256 in the folder's checksums.json; not for what the user names, which must be no artifact.
    """
    path = Path(path)
    with disk_errors(path, "write"):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not record and _is_recorded(path):
            raise KitError(f"{path} is an artifact of the kit's own", "choose another place with --out")
        if record:
            _record(path, hashlib.sha256(data).hexdigest())
        replace(path, data)


def write_text(path: Path, text: str, record: bool = True) -> None:
    write_bytes(path, text.encode("utf-8", "backslashreplace"), record)  # a path may hold bytes that are no UTF-8


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON. NumPy numbers become numbers; NaN is an error, as JSON has none."""
    write_text(path, json.dumps(value, indent=2, default=_plain, allow_nan=False, ensure_ascii=False) + "\n")


def write_npz(path: Path, compress: bool = True, **arrays: np.ndarray) -> None:
    write_bytes(path, npz_bytes(compress, **arrays))


def npz_bytes(compress: bool = True, **arrays: np.ndarray) -> bytes:
    """Named arrays as an `.npz` whose bytes depend on the arrays alone."""
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


def replace(path: Path, data: bytes) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(temporary).unlink()
        raise


def _record(path: Path, digest: str) -> None:
    """Accept `digest` for `path` from now on, and the one that is there until the rename."""
    sums = _checksums(path.parent)
    sums[path.name] = [digest, *sums.get(path.name, [])][:2]
    replace(path.parent / CHECKSUMS, (json.dumps(sums, indent=1, sort_keys=True) + "\n").encode())


def remove(path: Path) -> None:
    """Remove an artifact, where it is one and is there; a file of the user's own stays."""
    if not path.is_file() or not _is_recorded(path):
        return
    with disk_errors(path, "remove"):
        path.unlink()
        sums = {name: digests for name, digests in _checksums(path.parent).items() if name != path.name}
        replace(path.parent / CHECKSUMS, (json.dumps(sums, indent=1, sort_keys=True) + "\n").encode())


def _is_recorded(path: Path) -> bool:
    """Whether the table beside `path` names it; a file of that name that is no table of ours does not."""
    with contextlib.suppress(KitError):
        return path.name in _checksums(path.parent)
    return False


@contextlib.contextmanager
def disk_errors(path: Path, verb: str) -> Iterator[None]:
    """What the system refuses inside is a KitError: it cannot `verb` `path`."""
    try:
        yield
    except OSError as error:
        raise refused(error, path, verb) from error
    except ValueError as error:  # a NUL in its name
        raise KitError(f"cannot {verb} {str(path)!r}: {error}", "choose another name") from error


def refused(error: OSError, path: Path | str, verb: str) -> KitError:
    """What the system would not do, as a KitError with what helps."""
    fixes = {errno.ENOSPC: "free some space, then run the same command with --resume",
             errno.EDQUOT: "free some of your quota, then run the same command with --resume",
             errno.EISDIR: "name a file",
             errno.EROFS: "the disk is read-only: choose a folder on another one",
             errno.EACCES: "make the folder writable, or choose another one"}
    return KitError(f"cannot {verb} {path}: {error.strerror or error}",
                    fixes.get(error.errno or 0, "check that the folder exists and is yours"))


# -- reading --------------------------------------------------------------------------------------------------------


def read_bytes(path: Path) -> bytes:
    """An artifact's bytes, checked against `checksums.json` where that names it. KitError if missing or damaged."""
    path = Path(path)
    if not path.is_file():
        raise KitError(f"{path} is missing", _again(path).removeprefix("delete it and "))
    with disk_errors(path, "read"):
        if path.stat().st_size > MAX_ARTIFACT_BYTES:
            raise KitError(f"{path} is larger than any artifact of the kit", "put the original file back")
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
    """What a JSON file holds; with `names`, an object in which all of them are. KitError if damaged."""
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
    """A number as JSON has it: not NaN, and none too large to be anything but infinite."""
    if not math.isfinite(value := float(text)):
        raise ValueError(f"{text} is no number")
    return value


def read_npz(path: Path, *names: str) -> dict[str, np.ndarray]:
    """The arrays of an `.npz`, none of them pickled; `names` must all be there. KitError if damaged."""
    data = read_bytes(path)
    try:
        check_unpacked(path, data)
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        if not all(isinstance(array, np.ndarray) for array in arrays.values()):
            raise ValueError("a member is no array")
    except KitError:
        raise
    except Exception as error:  # zipfile, zlib, numpy and struct raise a dozen kinds on damaged bytes
        raise damaged(path, f"not a readable .npz ({type(error).__name__})") from error
    missing = [name for name in names if name not in arrays]
    if missing:
        raise damaged(path, f"it has no array named {', '.join(missing)}")
    return arrays


def check_unpacked(path: Path, data: bytes) -> None:
    """KitError where a zip (.npz, .keras) would unpack to more than any artifact of the kit."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        total = sum(info.file_size for info in archive.infolist())
    if total > MAX_ARTIFACT_BYTES:
        raise damaged(path, f"it unpacks to {total:,} bytes, more than any artifact of the kit has")


def read_csv(path: Path) -> Any:
    """An artifact of the kit's own (folds.csv, history.csv) as a pandas frame. Competition files: `kit.data.table`."""
    import pandas as pd

    data = read_bytes(path)
    if len(data) > MAX_CSV_BYTES:
        raise damaged(path, f"it has {len(data):,} bytes, more than the rows of any competition need")
    try:
        return pd.read_csv(io.BytesIO(data), low_memory=False)  # else it warns of columns with text among numbers
    except (ValueError, pd.errors.ParserError) as error:
        raise damaged(path, f"not readable as CSV: {error}") from error


def sha256_file(path: Path) -> str:
    """SHA-256 of a file of any size, in hex."""
    if not Path(path).is_file():  # a pipe or a device would be waited for
        raise KitError(f"{path} is missing, or no file", "put the file there")
    with disk_errors(Path(path), "read"), Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def damaged(path: Path, why: str) -> KitError:
    return KitError(f"{path} is damaged: {why}", _again(Path(path)))


def _again(path: Path) -> str:
    """How to come by an artifact that is missing or damaged."""
    if path.name == "config.json":
        return "put the original file back, or make the run again with --force"
    beside = path.parent if path.name != "done.json" and (path.parent / "done.json").is_file() else path
    return f"delete {'it' if beside == path else beside} and run the command that makes it again, with --resume"


def _checksums(folder: Path) -> dict[str, list[str]]:
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
                   "delete it; the files beside it are then read unchecked, or run the command that makes them again")
