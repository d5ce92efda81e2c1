"""Read a CSV file of the competition as uint8 arrays, checking every cell.

Reading the same file again is a memory map (`kit.data.cache`).

`read_table` takes a training, test or out-of-domain file of any number of rows, plain or packed.
The columns must have the right names and order, pixels must be 0 to 255 in plain decimal digits,
labels those of the competition, and ids unique: anything else is a KitError with file, line and
column. A UTF-8 BOM, CRLF and quoted numbers are accepted, since they cannot be misunderstood.
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from kit.core import storage
from kit.core.errors import KitError
from kit.data import cache as table_cache
from kit.data.cells import parse_cells, raise_bad_cell, split_texts
from kit.data.competition import Competition, Layout
from kit.data.csvfile import (
    AGAIN,
    BOM,
    NUMBERS,
    check_columns,
    columns_problem,
    line_blocks,
    list_names,
    quoted,
    read_header,
)
from kit.data.packed import open_packed

MAX_ID_BYTES = 256
_WHOLE_NUMBER = re.compile(rb"0|-?[1-9][0-9]{0,17}")  # fits into int64, and str(int(text)) == text
_MISSING = {b"", b"nan", b"na", b"n/a", b"null", b"none", b"<na>"}


@dataclass(frozen=True, eq=False)
class Table:
    """One file's rows in its order. The arrays are read-only; pixels may be a memory map."""

    path: Path
    pixels: np.ndarray  # uint8 (n, 784), 0 is paper
    labels: Any  # uint8 (n,), the numbers of the classes; None for a test file
    ids: np.ndarray  # int64 or str (n,), unique; numbered if the file has no id column
    sha256: str  # of the CSV file, plain or packed
    notes: tuple[str, ...]  # what is unusual about the file, but allowed

    def __len__(self) -> int:
        return len(self.pixels)


def read_table(path: Path, competition: Competition, labelled: bool, cache: bool = True) -> Table:
    """Read and check one CSV file, or take it from its cache.

    labelled: whether it is a training or out-of-domain file, or a test file. cache: use `.cache/`
    beside the file, if that can be written. KitError for anything invalid.
    """
    path = Path(path)
    key = competition.layout(labelled).columns
    if not competition.labels_are_indices:
        key = (*key, "", *competition.class_labels)
    if not competition.header:
        key = (*key, "", "no header")
    found = table_cache.load(path, key, competition.n_classes) if cache else None
    if found is None:
        layout = _layout(path, competition, labelled)
        stamp, found = _read(path, competition, layout, labelled)
        if cache:
            table_cache.save(path, key, competition.n_classes, stamp, found)
    pixels, names, sha256 = found
    for array in (pixels, names):
        array.flags.writeable = False
    labels, ids = (names, np.arange(len(names))) if labelled else (None, names)
    return Table(path, pixels, labels, ids, sha256, _notes(path, competition, labels, ids))


def read_test_labels(path: Path, competition: Competition) -> np.ndarray | None:
    """The labels uint8 (n,) in a test file, of which `read_table` takes no notice; None if it has
    none.

    For scoring a finished submission only.
    """
    layout = _layout(path, competition, labelled=False)
    if layout.index_beside_pixels(competition.label_column) is None:
        return None
    return _read(path, competition, layout, labelled=True)[1][1]


def write_table(path: Path, competition: Competition, labelled: bool, pixels: np.ndarray,
                labels: np.ndarray | None = None, ids: np.ndarray | None = None,
                record: bool = True) -> None:
    """Write a CSV file that `read_table` reads. Columns that are not given are left out where they
    may be (a test file's labels), or empty.

    labels: the numbers of the classes (n,). record: see `storage.write_bytes`. Several times as
    fast as pandas, which is slow with so many columns.
    """
    layout = competition.layout(labelled)
    if labels is None:
        layout = _without_labels(layout, competition)
    class_labels = competition.class_labels
    beside = {name: [""] * len(pixels) for name in layout.before + layout.after}
    if labels is not None:
        beside[competition.label_column] = [class_labels[k] for k in labels.tolist()]
    if ids is not None and competition.id_column in beside:
        beside[competition.id_column] = quote_cells(map(str, ids.tolist()))
    texts = list(beside.values())
    greys = [str(grey) for grey in range(256)]
    rows = (",".join([greys[grey] for grey in row]) for row in np.asarray(pixels).tolist())
    before = len(layout.before)
    lines = [",".join(quote_cells(layout.columns))] if competition.header else []
    lines += [",".join(row) for row in zip(*texts[:before], rows, *texts[before:], strict=True)]
    storage.write_text(path, "\n".join(lines) + "\n", record)


def quote_cells(texts: Iterable[str]) -> list[str]:
    """Texts as cells of a CSV file, in quotes where they must be."""
    return [f'"{text.replace(chr(34), chr(34) * 2)}"' if re.search(r'[,"\r\n]', text) else text
            for text in texts]


def is_labelled(path: Path, competition: Competition) -> bool:
    """Whether a file has the columns of a training file, and not those of a test file."""
    with open_packed(path) as file:
        columns = read_header(file, path)
    found = [competition.layout(labelled) for labelled in (True, False)]
    if competition.header:
        return columns == list(found[0].columns) or competition.label_column in columns
    return len(columns) == len(found[0].columns) != len(found[1].columns)


def _layout(path: Path, competition: Competition, labelled: bool) -> Layout:
    """The columns that a file should have; a test file may lack the labels that others have."""
    layout = competition.layout(labelled)
    if labelled or not competition.test_has_labels:
        return layout
    without = _without_labels(layout, competition)
    with open_packed(path) as file:
        columns = read_header(file, path)
    lacks = columns == list(without.columns) if competition.header \
        else len(columns) == len(without.columns)
    return without if lacks else layout


def _read(path: Path, competition: Competition, layout: Layout,
          labelled: bool) -> tuple[list[int], table_cache.Arrays]:
    """The file's stamp, and (pixels, labels or ids, SHA-256), of a file with these columns.

    Needs at most two bytes of memory per pixel.
    """
    label_at = layout.index_beside_pixels(competition.label_column) if labelled else None
    id_at = None if labelled else layout.index_beside_pixels(competition.id_column)
    columns, texts = layout.columns, (len(layout.before), len(layout.after))
    # The quick way: labels that are the classes' numbers are read as the pixels are
    plain = label_at is not None and texts == (1, 0) and competition.labels_are_indices
    texts = (0, 0) if plain else texts
    n_classes = competition.n_classes if plain else None
    class_of = {label.encode(): k for k, label in enumerate(competition.class_labels)}
    shown = list_names(competition.class_labels)
    allowed = (label_at, class_of, f"the labels are {shown}: correct the cell"
               f"{competition.or_write('all that there are as labels')}; or {AGAIN}") \
        if label_at is not None and not plain else None
    parts: list[np.ndarray] = []
    labels: list[int] = []
    names: list[bytes] = []
    digest = hashlib.sha256()
    stamp = _stamp(path)
    with open_packed(path) as file:
        first_line = _begin(file, path, competition, layout)
        for line, block in line_blocks(file, path, digest, first_line):
            beside, rest = split_texts(block, *texts) if any(texts) else ([], block)
            cells = parse_cells(rest, len(columns) - sum(texts))
            unknown = allowed and any(label not in class_of for label in beside[allowed[0]])
            if cells is None or unknown or (n_classes and (cells[:, 0] >= n_classes).any()):
                raise_bad_cell(path, line, block, columns, n_classes, texts, allowed,
                               competition.or_write("the labels that the files have as labels"))
            if allowed:
                labels += [class_of[label] for label in beside[allowed[0]]]
            if id_at is not None:
                for number, name in enumerate(beside[id_at], line):  # now, or a small .csv.gz
                    if len(name) > MAX_ID_BYTES:  # fills the memory
                        raise _bad_id(path, number,
                                      f"the id {quoted(name)} has more than {MAX_ID_BYTES} bytes")
                names += beside[id_at]
            parts.append(cells)
    if _stamp(path)[:2] != stamp[:2]:
        raise KitError(f"{path} changed while it was read", "run this again once nobody writes it")
    if not parts:
        raise KitError(f"{path} has a line of column names and no rows", AGAIN)
    pixels = np.concatenate([cells[:, int(plain):] for cells in parts])
    if plain:
        first = np.concatenate([cells[:, 0] for cells in parts])
    elif labelled:
        first = np.array(labels, np.uint8)
    else:
        first = _ids(path, names, first_line) if id_at is not None \
            else np.arange(len(pixels)) + competition.first_id
    return stamp, (pixels, first, digest.hexdigest())


def _begin(file: BinaryIO, path: Path, competition: Competition, layout: Layout) -> int:
    """Go to the first row, past the line of column names if there is one, and return its line.

    KitError where the names are not those of `layout`, or there are names and should be none.
    """
    found = read_header(file, path)
    if competition.header:
        try:
            check_columns(path, found, layout.columns)
        except KitError as error:
            hint = competition.or_write("header = false") \
                if columns_problem(found, layout.columns) == NUMBERS else \
                competition.or_write("label_column, id_column, first_pixel, shape and the list of "
                                     "columns as they are")
            raise KitError(error.message, error.fix + hint) from error
        return 2
    pixels = found[len(layout.before):][:competition.n_pixels]
    if len(found) == len(layout.columns) and not any(cell.isdigit() for cell in pixels):
        raise KitError(f"{path}, line 1: column names, and the file should have none",
                       f"delete the line{competition.or_write('header = true')}")
    file.seek(0)
    file.seek(len(BOM) if file.read(len(BOM)) == BOM else 0)
    return 1


def _without_labels(layout: Layout, competition: Competition) -> Layout:
    """The columns of a test file that lacks the labels."""
    before, after = (tuple(name for name in names if name != competition.label_column)
                     for names in (layout.before, layout.after))
    return Layout(before, layout.pixels, after)


def _stamp(path: Path) -> list[int]:
    try:
        return table_cache.file_stamp(path.stat())
    except (OSError, ValueError):  # open_packed says why
        return [0]


def _ids(path: Path, names: list[bytes], first_line: int) -> np.ndarray:
    """The ids as int64 if all are plain whole numbers, otherwise as text.

    KitError for one that is missing, unusable, or there twice. None is longer than MAX_ID_BYTES.
    """
    line_of: dict[bytes, int] = {}
    for line, name in enumerate(names, first_line):
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
            missing = ", ".join(competition.class_labels[k] for k in absent)
            notes.append(f"{path.name} has no row of class {missing}")
    if ids.dtype.kind == "U":
        notes.append(f"the ids of {path.name} are text, such as {quoted(str(ids[0]))}")
    return tuple(notes)
