"""Read a CSV file of the competition as uint8 arrays, checking every cell.

Reading the same file again is a memory map (`kit.data.cache`).

`read_table` takes a training, test or out-of-domain file of any number of rows, plain or packed.
The columns must have the right names and order, pixels must be 0 to 255 and labels below the number
of classes, in plain decimal digits, and ids unique: anything else is a KitError with file, line and
column. A UTF-8 BOM, CRLF and quoted numbers are accepted, since they cannot be misunderstood.
"""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kit.core import storage
from kit.core.errors import KitError
from kit.data import cache as table_cache
from kit.data.cells import parse_cells, raise_bad_cell, split_ids
from kit.data.competition import Competition
from kit.data.csvfile import AGAIN, check_columns, line_blocks, quoted, read_header
from kit.data.packed import open_packed

MAX_ID_BYTES = 256
_WHOLE_NUMBER = re.compile(rb"0|-?[1-9][0-9]{0,17}")  # fits into int64, and str(int(text)) == text
_MISSING = {b"", b"nan", b"na", b"n/a", b"null", b"none", b"<na>"}


@dataclass(frozen=True, eq=False)
class Table:
    """One file's rows in its order. The arrays are read-only; pixels may be a memory map."""

    path: Path
    pixels: np.ndarray  # uint8 (n, 784), 0 is paper
    labels: Any  # uint8 (n,); None for a test file
    ids: np.ndarray  # int64 or str (n,), unique; numbered if the file has no id column
    sha256: str  # of the CSV file, plain or packed
    notes: tuple[str, ...]  # what is unusual about the file, but allowed

    def __len__(self) -> int:
        return len(self.pixels)


def read_table(path: Path, competition: Competition, labelled: bool, cache: bool = True) -> Table:
    """Read and check one CSV file, or take it from its cache.

    labelled: whether its first column is the label (training and out-of-domain files), or the id,
    if the competition has one (test file). cache: use `.cache/` beside the file, if that can be
    written. KitError for anything invalid.
    """
    path = Path(path)
    first = competition.label_column if labelled else competition.id_column
    columns = ((first,) if first else ()) + competition.pixel_columns
    found = table_cache.load(path, columns, competition.n_classes) if cache else None
    if found is None:
        stamp, found = _read(path, competition, labelled, columns)
        if cache:
            table_cache.save(path, columns, competition.n_classes, stamp, found)
    pixels, names, sha256 = found
    for array in (pixels, names):
        array.flags.writeable = False
    labels, ids = (names, np.arange(len(names))) if labelled else (None, names)
    return Table(path, pixels, labels, ids, sha256, _notes(path, competition, labels, ids))


def write_table(path: Path, competition: Competition, pixels: np.ndarray,
                first_column: str | None = None, first: np.ndarray | None = None) -> None:
    """Write a CSV file that `read_table` reads: the column `first_column` with `first` (n,), if
    given, then the pixels.

    Several times as fast as pandas, which is slow with so many columns.
    """
    greys = [str(grey) for grey in range(256)]
    names = [] if first_column is None else [first_column]
    lines = [",".join((*names, *competition.pixel_columns))]
    rows = (",".join([greys[grey] for grey in row]) for row in np.asarray(pixels).tolist())
    if first is None:
        lines += rows
    else:
        lines += [f"{name},{row}" for name, row in zip(first.tolist(), rows, strict=True)]
    storage.write_text(path, "\n".join(lines) + "\n")


def _read(path: Path, competition: Competition, labelled: bool,
          columns: tuple[str, ...]) -> tuple[list[int], table_cache.Arrays]:
    """The file's stamp, and (pixels, labels or ids, SHA-256).

    Needs at most two bytes of memory per pixel.
    """
    has_id = not labelled and competition.id_column is not None
    n_classes = competition.n_classes if labelled else None
    parts: list[np.ndarray] = []
    names: list[bytes] = []
    digest = hashlib.sha256()
    stamp = _stamp(path)
    with open_packed(path) as file:
        check_columns(path, read_header(file, path), columns)
        for line, block in line_blocks(file, path, digest):
            ids, rest = split_ids(block) if has_id else ([], block)
            cells = parse_cells(rest, len(columns) - has_id)
            if cells is None or (n_classes and (cells[:, 0] >= n_classes).any()):
                raise_bad_cell(path, line, block, columns, n_classes, has_id)
            for number, name in enumerate(ids, line):  # now, or a small .csv.gz fills the memory
                if len(name) > MAX_ID_BYTES:
                    raise _bad_id(path, number,
                                  f"the id {quoted(name)} has more than {MAX_ID_BYTES} bytes")
            names += ids
            parts.append(cells)
    if _stamp(path)[:2] != stamp[:2]:
        raise KitError(f"{path} changed while it was read", "run this again once nobody writes it")
    if not parts:
        raise KitError(f"{path} has a line of column names and no rows", AGAIN)
    pixels = np.concatenate([cells[:, int(labelled):] for cells in parts])
    if labelled:
        first = np.concatenate([cells[:, 0] for cells in parts])
    else:
        first = _ids(path, names) if has_id else np.arange(len(pixels)) + competition.first_id
    return stamp, (pixels, first, digest.hexdigest())


def _stamp(path: Path) -> list[int]:
    try:
        return table_cache.file_stamp(path.stat())
    except (OSError, ValueError):  # open_packed says why
        return [0]


def _ids(path: Path, names: list[bytes]) -> np.ndarray:
    """The ids as int64 if all are plain whole numbers, otherwise as text.

    KitError for one that is missing, unusable, or there twice. None is longer than MAX_ID_BYTES.
    """
    line_of: dict[bytes, int] = {}
    for line, name in enumerate(names, 2):
        problem = None
        if name.strip().lower() in _MISSING:
            problem = "the id is missing"
        elif name.strip() != name or min(name) < 32 or b"\x7f" in name or b'"' in name:
            problem = (f"the id {quoted(name)} has spaces around it, control characters or quotes "
                       "in it")
        elif name.decode("utf-8", "replace").encode() != name:
            problem = f"the id {quoted(name)} is not UTF-8"
        elif line_of.setdefault(name, line) != line:
            problem = f"the id {quoted(name)} is there already, on line {line_of[name]}"
        if problem:
            raise _bad_id(path, line, problem)
    if all(map(_WHOLE_NUMBER.fullmatch, names)):
        return np.array([int(name) for name in names], np.int64)
    return np.array([name.decode("utf-8") for name in names])


def _bad_id(path: Path, line: int, problem: str) -> KitError:
    return KitError(f"{path}, line {line}: {problem}",
                    f"give each row an id of its own; or {AGAIN}")


def _notes(path: Path, competition: Competition, labels: np.ndarray | None,
           ids: np.ndarray) -> tuple[str, ...]:
    notes, n = [], len(ids)
    official = competition.official_rows.get(path.name.removesuffix(".zip").removesuffix(".gz"))
    if official and n != official:
        notes.append(f"{path.name} has {n:,} rows; the competition's own has {official:,}")
    if labels is not None:
        absent = np.flatnonzero(np.bincount(labels, minlength=competition.n_classes) == 0)
        if absent.size:
            notes.append(f"{path.name} has no row of class {', '.join(map(str, absent))}")
    if ids.dtype.kind == "U":
        notes.append(f"the ids of {path.name} are text, such as {quoted(str(ids[0]))}")
    return tuple(notes)
