"""Split the training rows into stratified folds that keep writers apart: folds.csv.

Folds are made once per run and read by every later stage. The test file's writers wrote no training
row, so all rows of a writer are held out together. Each writer wrote every digit equally often, so
such folds are stratified as well. Who wrote a row follows from its place in the file, if the labels
cycle 0-9 as on the sheets that the writers filled in; otherwise folds are stratified by label
alone.

The split `harder` is a validation as hard as the test: its models are asked about writers who are
harder to read than all whom they were trained on.

scikit-learn's StratifiedGroupKFold is not used, because its versions 1.5 to 1.7 (Kaggle's image)
and 1.8 make different writer folds from the same seed.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kit.core.config import BOUNDS, SPLITS
from kit.core.errors import KitError
from kit.core.storage import damaged, read_csv, write_csv
from kit.data.competition import Competition

MAX_FOLDS = BOUNDS["n_folds"][1]
_NO_WRITER = -1  # in folds.csv, if the writer of a row is not known
# The fold of a row that is trained on and never held out: the easiest writers of the split `harder`
NEVER_HELD_OUT = -1
# Said wherever such models would be handed in
HARDER_NOTE = ("--split harder trains on the easier writers alone, to choose between recipes: its "
               "models are not to be handed in")
# Wrote the official test file, and are harder to read than all in the training file. A fold of the
# split `harder` holds out as many
TEST_WRITERS = 8
HARDER_FOLDS = 3  # if none are asked for


@dataclass(frozen=True, eq=False)
class Folds:
    """One entry per training row that takes part. Fold k holds out the rows where `fold == k`.

    Its model is trained on all others; with the split `harder` on those of easier writers alone.
    """

    rows: np.ndarray  # int64 (m,), ascending: row numbers of the training file, from 0
    labels: np.ndarray  # uint8 (m,)
    writers: np.ndarray | None  # int32 (m,), from 0 in the file's order; None where unknown
    fold: np.ndarray  # int8 (m,)
    split: str  # "writer", "stratified" (what `auto` came to) or "harder"
    keeps_writers_apart: bool

    @property
    def n_folds(self) -> int:
        return int(self.fold.max()) + 1

    def trained_on(self, k: int) -> np.ndarray:
        """bool (m,): whether fold k's model is trained on a row."""
        if self.split != "harder":
            return self.fold != k
        return (self.fold > k) | (self.fold == NEVER_HELD_OUT)


def make_folds(labels: np.ndarray, competition: Competition, n_folds: int, split: str, seed: int,
               limit: int | None = None, writer_block: int | None = None) -> Folds:
    """Split the training rows into `n_folds` parts. The same arguments give the same parts.

    labels: uint8 (n,), of the whole training file. split: `writer` keeps writers apart,
    `stratified` does not, `auto` does if they are known; `harder` holds out the eight hardest in
    fold 0, the next eight in fold 1, and so on, each trained on easier ones alone. limit: use only
    that many rows of each class, spread over the writers. writer_block: rows per writer, if not the
    competition's number (the sample has its own). KitError if such folds are impossible.
    """
    if split not in SPLITS:
        raise KitError(f"there is no split {split!r}", f"choose one of: {', '.join(SPLITS)}")
    if n_folds < 2:
        raise KitError("1 fold cannot hold anything out" if n_folds == 1
                       else f"there cannot be {n_folds} folds",
                       "ask for at least 2, e.g. --folds 5")
    if limit is not None and limit < 1:
        raise KitError(f"a limit of {limit} rows leaves nothing",
                       f"ask for at least as many rows of each class as folds: --limit {n_folds}")
    writers = find_writers(labels, competition, writer_block)
    if split == "writer" and writers is None:
        raise KitError("this training file does not show who wrote what, so writers cannot be kept "
                       "apart", "use --split auto or --split stratified")
    # A single writer cannot be split: `auto` then stratifies by label, `writer` is refused below.
    by_writer = writers is not None and (split == "writer" or (split == "auto" and writers[-1] > 0))
    harder = _harder(writers, competition.writers_by_difficulty, n_folds, writer_block) \
        if split == "harder" else None
    rows = np.arange(len(labels)) if limit is None else _limited(labels, limit)
    without_limit = _most_folds(labels, writers if by_writer else None)[0]
    labels, writers = labels[rows], None if writers is None else writers[rows]
    if harder is not None:
        if any(len(np.unique(labels[harder[rows] == k])) < competition.n_classes
               for k in range(n_folds)):
            raise KitError(f"--limit {limit} leaves a fold of --split harder without some class",
                           f"use --limit {2 * len(competition.writers_by_difficulty)} or more")
        return Folds(rows, labels, writers, harder[rows], "harder", True)
    _check_enough(labels, writers if by_writer else None, n_folds, without_limit)
    fold = _assign(labels, writers if by_writer else None, n_folds, seed)
    return Folds(rows, labels, writers, fold, "writer" if by_writer else "stratified", by_writer)


def find_writers(labels: np.ndarray, competition: Competition,
                 writer_block: int | None = None) -> np.ndarray | None:
    """The writer of each row, int32 (n,), from 0; None if unknown.

    Known if the file has no more rows than the competition's and its labels cycle 0–9 from row to
    row, as on the sheets that the writers filled in: then each `writer_block` rows are one
    writer's. The last block may be shorter.
    """
    block = writer_block or competition.writer_block
    if not block or len(labels) > competition.writer_rows:
        return None
    if not np.array_equal(labels, np.arange(len(labels)) % competition.n_classes):
        return None
    return (np.arange(len(labels)) // block).astype(np.int32)


def _limited(labels: np.ndarray, limit: int) -> np.ndarray:
    """`limit` rows of each class (or all of a smaller class), evenly spaced in the file, so evenly
    over the writers.
    """
    rows_of = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    evenly = [rows[np.arange(min(limit, len(rows))) * len(rows) // min(limit, len(rows))]
              for rows in rows_of]
    return np.sort(np.concatenate(evenly))


def _most_folds(labels: np.ndarray, writers: np.ndarray | None) -> tuple[int, str]:
    """(n, reason): the most folds of which each has a row of every class and, with `writers`, a
    writer.
    """
    classes, counts = np.unique(labels, return_counts=True)
    rarest = int(counts.min())
    if writers is not None and len(np.unique(writers)) <= rarest:
        n = len(np.unique(writers))
        return n, f"only {n} writer{'s' * (n != 1)} to keep apart"
    return rarest, f"class {classes[counts.argmin()]} has only {rarest} row{'s' * (rarest != 1)}"


def _check_enough(labels: np.ndarray, writers: np.ndarray | None, n_folds: int,
                  without_limit: int) -> None:
    """KitError if the rows are too few for `n_folds`. without_limit: the most folds without
    --limit.
    """
    most, why = _most_folds(labels, writers)
    if n_folds > MAX_FOLDS and most >= MAX_FOLDS:
        raise KitError(f"{n_folds} folds are too many", f"use --folds {MAX_FOLDS} or fewer")
    if n_folds <= most:
        return
    problem = f"{n_folds} folds, but {why}{' left by --limit' * (without_limit > most)}"
    ways = [f"use --folds {most} or fewer"] if most > 1 else []
    if n_folds <= without_limit:
        # Spread over the writers, so many rows reach enough of them
        ways.append(f"use --limit {2 * n_folds} or more")
    elif writers is not None and n_folds <= _most_folds(labels, None)[0]:
        ways.append("use --split stratified")
    raise KitError(problem, ", or ".join(ways)
                   or "two folds need two rows of each class, and two writers: get more")


def _assign(labels: np.ndarray, writers: np.ndarray | None, n_folds: int, seed: int) -> np.ndarray:
    """The fold of each row, int8 (n,), stratified by label; with `writers`, all rows of a writer in
    one fold.
    """
    # RandomState's streams are frozen (NumPy's NEP 19), those of default_rng may change with a
    # version.
    random = np.random.RandomState(seed)
    fold = np.empty(len(labels), np.int8)
    if writers is None:
        # The rows are dealt out to the folds in turn, class after class: sizes differ by one at
        # most
        dealt = 0
        for label in np.unique(labels):
            rows = random.permutation(np.flatnonzero(labels == label))
            fold[rows] = (dealt + np.arange(len(rows))) % n_folds
            dealt += len(rows)
        return fold
    names, index = np.unique(writers, return_inverse=True)
    classes, label_index = np.unique(labels, return_inverse=True)
    wrote = np.zeros((len(names), len(classes)), np.int64)
    np.add.at(wrote, (index, label_index), 1)
    held = np.zeros((n_folds, len(classes)), np.int64)
    shuffled = random.permutation(len(names))
    for writer in shuffled[np.argsort(-wrote[shuffled].sum(1), kind="stable")]:
        # Next to whom are this writer's digits rarest? That fold keeps the squares of all counts
        # smallest.
        k = np.lexsort((held.sum(1), held @ wrote[writer]))[0]
        held[k] += wrote[writer]
        fold[index == writer] = k
    return fold


def _harder(writers: np.ndarray | None, by_difficulty: tuple[int, ...], n_folds: int,
            writer_block: int | None) -> np.ndarray:
    """The fold of each row, int8 (n,), of the split `harder`. KitError where it cannot be made."""
    # The sample's writers, with a block of their own, are others than those who were ranked.
    if writers is None or writer_block or writers[-1] + 1 != len(by_difficulty):
        raise KitError("it is not known how hard the writers of this training file are to read, so "
                       "--split harder cannot be made", "use --split writer")
    most = len(by_difficulty) // TEST_WRITERS // 2 + 1
    if n_folds > most:
        raise KitError(f"{n_folds} folds of {TEST_WRITERS} hard writers would leave too few easier "
                       "ones to train on", f"use --folds {most} or fewer with --split harder")
    fold = np.argsort(by_difficulty)[writers] // TEST_WRITERS  # argsort: the rank of each writer
    return np.where(fold < n_folds, fold, NEVER_HELD_OUT).astype(np.int8)


def save_folds(path: Path, folds: Folds) -> None:
    """Write folds.csv with the columns row,label,writer,fold; writer is -1 if unknown."""
    import pandas as pd

    writers = np.full(len(folds.rows), _NO_WRITER) if folds.writers is None else folds.writers
    write_csv(path, pd.DataFrame({"row": folds.rows, "label": folds.labels, "writer": writers,
                                  "fold": folds.fold}))


def load_folds(path: Path) -> Folds:
    """Read folds.csv.

    KitError if it is missing or damaged. The split is inferred from the writers' folds.
    """
    frame = read_csv(path)
    columns = ["row", "label", "writer", "fold"]
    if list(frame.columns) != columns or frame.empty \
            or any(frame[name].dtype.kind != "i" for name in columns):
        raise damaged(path, f"not a table of whole numbers {','.join(columns)}")
    rows, labels, writers, fold = (frame[name].to_numpy() for name in columns)
    if rows[0] < 0 or (np.diff(rows) <= 0).any():
        raise damaged(path, "its row numbers do not ascend")
    split_by_difficulty = fold.min() == NEVER_HELD_OUT
    if not 1 <= fold.max() < MAX_FOLDS \
            or not np.array_equal(np.unique(fold), np.arange(fold.min(), fold.max() + 1)) \
            or fold.min() not in (0, NEVER_HELD_OUT):
        raise damaged(path, "its folds are not numbered 0, 1, …")
    known = bool((writers != _NO_WRITER).all())
    apart = known and bool((frame.groupby("writer")["fold"].nunique() == 1).all())
    return Folds(rows, labels.astype(np.uint8), writers.astype(np.int32) if known else None,
                 fold.astype(np.int8),
                 "harder" if split_by_difficulty else "writer" if apart else "stratified", apart)
