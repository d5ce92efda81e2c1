"""Make the hidden test file of a rehearsal: another length, other ids, unseen writers.

It is made like the competition's own test file: a random half of the rows of whole writers, here
the last ones of the training file, whom the kernel's own training file then lacks; where a
competition has no writers, of every fourth row. Their labels are known, so the rehearsal can score
what Kaggle would score. The training rows that stay are copied byte for byte.
"""

import itertools
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kit.data.competition import Competition
from kit.data.npz import write_labels
from kit.data.packed import open_packed
from kit.data.source import MANIFEST, DataFolder
from kit.data.table import is_labelled, read_table, write_table

# One writer in so many is held out: 8 of the 47 in the real training file; the test file has 8
SHARE_OF_WRITERS = 6
SHARE_OF_ROWS = 4  # where nobody knows who wrote what, one row in so many
FIRST_ID = 10_000


@dataclass(frozen=True)
class HiddenTest:
    """The hidden test file: ids in the file's order, and labels where they are known."""

    ids: np.ndarray  # int64, or str where the caller's file has text for ids
    labels: list[int] | None
    train_rows: int
    held_out: bool  # the rows were taken out of the kernel's training file


def write_with_hidden_test(source: Path, target: Path, competition: Competition,
                           hidden: Path | None = None) -> HiddenTest:
    """Write the competition's files of `source` into `target`, with a hidden test file.

    hidden: a test file to use for it, with ids like a test file or with labels like a training
    file. KitError for a file that is missing or not as it should be.
    """
    target.mkdir(parents=True, exist_ok=True)
    data = DataFolder(Path(source), competition)
    train = data.train()
    rng = np.random.default_rng(0)
    held = np.zeros(len(train), bool)
    if hidden is None:
        block = data.writer_block or competition.writer_block
        if block is None:  # the file may be sorted by label, so the last rows may be of one class
            held[SHARE_OF_ROWS - 1::SHARE_OF_ROWS] = True
            rows = _half(np.flatnonzero(held), len(data.test()), rng)
        else:
            kept, rows = _last_writers(len(train), block, len(data.test()), rng)
            held[kept:] = True
        ids, labels = _new_ids(len(rows), competition, rng), train.labels[rows]
        pixels = train.pixels[rows]
    else:
        labelled = is_labelled(hidden, competition)
        # No cache, as it would lie beside the caller's file
        given = read_table(hidden, competition, labelled, cache=False)
        ids = given.ids if given.labels is None else _new_ids(len(given), competition, rng)
        labels, pixels = given.labels, given.pixels
    with open_packed(train.path) as file:
        head = list(itertools.islice(file, int(competition.header)))
        lines = [line for line, out in zip(file, held, strict=False) if not out]
    (target / competition.train).write_bytes(b"".join([*head, *lines]))
    write_table(target / competition.test, competition, False, pixels, ids=ids,
                record=False)
    write_labels(target / competition.sample_submission, competition, ids,
                 np.zeros(len(ids), np.uint8), record=False)
    if competition.extra and (extra := data.file(competition.extra)):
        with open_packed(extra) as packed, (target / competition.extra).open("wb") as file:
            shutil.copyfileobj(packed, file)
    if data.is_sample:
        (target / MANIFEST).write_text(json.dumps({**data.manifest, "sha256": {}}), "utf-8")
    known = None if labels is None else labels.tolist()
    return HiddenTest(ids, known, int((~held).sum()), held_out=hidden is None)


def _last_writers(train_rows: int, block: int | None, test_rows: int,
                  rng: np.random.Generator) -> tuple[int, np.ndarray]:
    """How many training rows stay, and a random half of the last writers' rows, shuffled."""
    keep = train_rows - max(train_rows // SHARE_OF_ROWS, 1)
    if block and train_rows > block:
        writers = -(-train_rows // block)
        keep = block * (writers - max(round(writers / SHARE_OF_WRITERS), 1))
    return keep, _half(np.arange(keep, train_rows), test_rows, rng)


def _half(rows: np.ndarray, test_rows: int, rng: np.random.Generator) -> np.ndarray:
    """A random half of `rows`, shuffled.

    Their number is never that of the test file: a kernel must not rely on its length.
    """
    n = max(len(rows) // 2, 1)
    n -= n == test_rows and n > 1
    return rng.permutation(rows)[:n]


def _new_ids(n: int, competition: Competition, rng: np.random.Generator) -> np.ndarray:
    """Ids with gaps, in no order, none of them 0; without an id column, row numbers."""
    if not competition.id_column:
        return np.arange(competition.first_id, competition.first_id + n)
    return FIRST_ID + rng.permutation(3 * n)[:n]
