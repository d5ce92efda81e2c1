"""The hidden test file: another length, other ids, writers whom the kernel never trains on.

In goes a data folder; out comes the folder that a kernel sees at its hidden rerun, and the labels that it does not
see. The rows come from the end of the training file, whose last writers the kernel's own training file then lacks: what
Kaggle scores with writers of its own can so be scored here. Rows are moved as text, so no cell changes on the way.
"""

import csv
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kit.data.competition import Competition
from kit.errors import KitError

ROWS = 7_321  # with the real training file; an eighth of a small one
FIRST_ID = 10_000


@dataclass(frozen=True)
class Hidden:
    """What was swapped in: ids in the file's order, and the labels where they are known."""

    ids: np.ndarray  # int64, or str where the caller's file has text for ids
    labels: list[int] | None
    train_rows: int
    held_out: bool  # the rows are of writers whom the kernel's training file lacks


def swap_in(source: Path, target: Path, competition: Competition, hidden: Path | None = None, seed: int = 0) -> Hidden:
    """Write the competition's files as the hidden rerun has them into `target`; `hidden`: a test file of the caller's.

    That file may have ids, labels or both. KitError if a file is missing or has other columns.
    """
    target.mkdir(parents=True, exist_ok=True)
    header, train = _lines(source / competition.train)
    rng = np.random.default_rng(seed)
    if hidden is None:
        kept, rows = _last_writers(train, _block(source, competition), _rows_in(source / competition.test), rng)
        labels, pixels = zip(*(row.split(",", 1) for row in rows), strict=True)
        found = Hidden(_new_ids(len(rows), competition, rng), list(map(int, labels)), len(kept), held_out=True)
    else:
        kept = train
        ids, given, pixels = _given(hidden, competition)
        ids = _new_ids(len(pixels), competition, rng) if ids is None else ids
        found = Hidden(ids, given, len(train), held_out=False)
    _write(target / competition.train, header, kept)
    _write_test(target, competition, found.ids, pixels)
    if competition.extra and (source / competition.extra).is_file():
        shutil.copyfile(source / competition.extra, target / competition.extra)
    return found


def _last_writers(train: list[str], block: int | None, test_rows: int,
                  rng: np.random.Generator) -> tuple[list[str], list[str]]:
    """The training rows that stay, and rows of the last writers in a random order: not as many as the test file has."""
    n = ROWS if len(train) >= 4 * ROWS else max(len(train) // 8, 1)
    n -= n == test_rows
    keep = len(train) - n
    if block and keep > block:
        keep -= keep % block
    order = keep + rng.permutation(len(train) - keep)[:n]
    return train[:keep], [train[i] for i in order]


def _block(source: Path, competition: Competition) -> int | None:
    """Rows per writer: the sample says it in its manifest."""
    manifest = source / "manifest.json"
    told = json.loads(manifest.read_text("utf-8")).get("writer_block") if manifest.is_file() else None
    return told or competition.writer_block


def _new_ids(n: int, competition: Competition, rng: np.random.Generator) -> np.ndarray:
    """Ids that neither start at 0 nor are in order, with gaps; without an id column rows count from the first id."""
    if not competition.id_column:
        return np.arange(competition.first_id, competition.first_id + n)
    return FIRST_ID + rng.permutation(3 * n)[:n]


def _given(path: Path, competition: Competition
           ) -> tuple[np.ndarray | None, list[int] | None, tuple[str, ...]]:
    """Ids, labels and pixel cells of a test file that the caller brought."""
    header, rows = _lines(path)
    names = next(csv.reader([header]))
    first = len(names) - competition.n_pixels
    if tuple(names[max(first, 0):]) != competition.pixel_columns:
        raise KitError(f"{path} has other columns than {competition.test}",
                       f"it must end in {competition.pixel_columns[0]} to {competition.pixel_columns[-1]}")
    split = [row.split(",", first) for row in rows]

    def column(name: str | None) -> list[str] | None:
        return [cells[names.index(name)] for cells in split] if name in names[:first] else None

    ids, labels = column(competition.id_column), column(competition.label_column)
    numbers = ids is not None and all(name.isdecimal() for name in ids)
    return (None if ids is None else np.array(ids).astype(np.int64) if numbers else np.array(ids),
            None if labels is None else list(map(int, labels)), tuple(cells[-1] for cells in split))


def _write_test(target: Path, competition: Competition, ids: np.ndarray, pixels: tuple[str, ...]) -> None:
    header = ",".join(competition.pixel_columns)
    if competition.id_column:
        header = f"{competition.id_column},{header}"
        pixels = tuple(f"{i},{cells}" for i, cells in zip(ids, pixels, strict=True))
    _write(target / competition.test, header, list(pixels))
    _write(target / competition.sample_submission, ",".join(competition.submission_columns), [f"{i},0" for i in ids])


def _lines(path: Path) -> tuple[str, list[str]]:
    if not path.is_file():
        raise KitError(f"{path} is missing", "get the data first: kit download")
    header, *rows = path.read_text("utf-8-sig").splitlines()
    return header, [row for row in rows if row.strip()]


def _rows_in(path: Path) -> int:
    return len(_lines(path)[1])


def _write(path: Path, header: str, rows: list[str]) -> None:
    path.write_text("\n".join([header, *rows]) + "\n", "utf-8")
