"""Write a submission file, validate one, and read its labels.

The validator knows nothing of how the file was made and compares it with the ids of the test file,
so that whatever Kaggle would answer with "Scoring Error" an hour later is reported here, with the
line to correct. What Kaggle accepts although it looks odd is a note: it matches rows by id, so
their order is free; line ends may be those of Windows; and where it takes files, they may be
zipped. A byte order mark is a problem: Kaggle says that the header must match exactly, and nowhere
that it skips a mark before it.
"""

import csv
import hashlib
import io
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np

from kit.core import storage
from kit.core.errors import KitError
from kit.data.competition import Competition
from kit.data.csvfile import BOM, columns_problem, line_blocks, list_names, quoted, read_header
from kit.data.packed import is_packed, open_packed

MAX_BYTES = 64 << 20  # 5,000 rows take 34 KB, 200,000 rows with ids of 256 characters 52 MB
SHOWN_OF_A_KIND = 5


def write_submission(path: Path, ids: np.ndarray, probs: np.ndarray, competition: Competition,
                     record: bool = True) -> None:
    """Write the class of the highest probability for each id, in the order given; atomically.

    ids: int64 or str (n,), those of the test file in its order. probs: (n, n_classes). Where the
    two do not fit, an id comes twice or a probability is not a number, it raises a KitError and
    writes nothing. record: see `storage.write_bytes`.
    """
    if probs.shape != (len(ids), competition.n_classes):
        raise KitError(f"probs of shape {probs.shape} do not fit {len(ids)} ids and "
                       f"{competition.n_classes} classes", "predict the test file again")
    if not np.isfinite(probs).all():
        row = int(np.flatnonzero(~np.isfinite(probs).all(axis=1))[0])
        raise KitError(f"the probs of id {quoted(str(ids[row]))} are not numbers",
                       "train a new run with another --seed")
    if len(np.unique(ids)) < len(ids):
        raise KitError("an id comes twice",
                       "give the ids of the test file, as read_table returns them")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(competition.submission_columns)
    class_labels = competition.class_labels
    labels = [class_labels[k] for k in probs.argmax(axis=1).tolist()]
    writer.writerows(zip(ids.tolist(), labels, strict=True))
    storage.write_text(path, text.getvalue(), record)


def read_labels(path: Path, competition: Competition, ids: np.ndarray) -> np.ndarray:
    """The numbers of the classes (n,) that a valid submission gives `ids`, in their order, whatever
    its own order.
    """
    class_of = {label: k for k, label in enumerate(competition.class_labels)}
    with open_packed(Path(path)) as file:
        rows = csv.DictReader(io.TextIOWrapper(file, "utf-8", newline=""))
        id_column, label_column = competition.submission_columns
        label_of = {row[id_column]: class_of[row[label_column]] for row in rows}
    return np.array([label_of[str(name)] for name in ids.tolist()])


# -- validation ------------------------------------------------------------------------------------


class Validation(NamedTuple):
    """The problems for which Kaggle would refuse a file, and notes on what is odd but accepted."""

    problems: list[str]  # each with its line and what to do; empty: acceptable
    notes: list[str]

    def lines(self, path: Path) -> list[str]:
        """The same for a terminal."""
        return [*(self.problems or [f"{path}: acceptable"]),
                *(f"note: {note}" for note in self.notes)]


def validate(path: Path, competition: Competition, test_ids: np.ndarray) -> Validation:
    """Whether a file, plain or packed as .zip or .gz, is an acceptable submission.

    test_ids: int64 or str (n,), of the test file in its order. KitError for a file that cannot be
    read as text at all.
    """
    path = Path(path)
    columns = ",".join(competition.submission_columns)
    found, notes = _Problems(), []
    if is_packed(path):
        notes.append("the file is packed, and what it holds was checked; "
                     + (f"{competition.title} takes it only unpacked, as a kernel's submission.csv"
                        if competition.code_only else "Kaggle takes it so, too"))
    too_large = KitError(f"{path} has more than {MAX_BYTES >> 20} MiB, as no submission has",
                         "give the right file")
    with open_packed(path) as file:
        if path.stat().st_size > MAX_BYTES:
            raise too_large
        first = file.readline(MAX_BYTES)
        if not first:
            return Validation([f"the file is empty: it needs a first line {columns} and the rows"],
                              notes)
        if first.startswith(BOM):
            found.add("byte order mark", "line 1: the file begins with a byte order mark; save it "
                                         "as UTF-8 without one (Kaggle wants the header to match "
                                         "exactly)")
        file.seek(0)
        names = read_header(file, path)
        if problem := columns_problem(names, competition.submission_columns):
            found.add("columns", f"line 1: {problem}; it must read {columns}")
        if not set(competition.submission_columns) <= set(names):
            return Validation(found.summary(), notes)
        rows = _RowChecker(names, competition, test_ids, found)
        rows.windows += first.endswith(b"\r\n")
        for line, block in line_blocks(file, path, hashlib.sha256()):
            if file.tell() > MAX_BYTES:
                raise too_large
            if b"\0" in block:
                line += block[: block.index(b"\0")].count(b"\n")
                raise KitError(f"{path}, line {line}: a NUL byte; this is not a text file",
                               "give the CSV file itself")
            for number, text in enumerate(block[:-1].split(b"\n"), line):
                rows.check(number, text)
            if len(rows.line_of) + rows.others > rows.most:
                return Validation([*found.summary(), f"there are more than {rows.most:,} rows; "
                                                     "write one for each id"], notes)
    rows.finish()
    return Validation(found.summary(), notes + rows.notes())


class _Problems:
    """Collects messages by kind: all are counted, the first few of each kind are kept."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.messages: dict[str, list[str]] = {}

    def add(self, kind: str, message: str) -> None:
        self.counts[kind] += 1
        if self.counts[kind] <= SHOWN_OF_A_KIND:
            self.messages.setdefault(kind, []).append(message)

    def summary(self) -> list[str]:
        lines = []
        for kind, messages in self.messages.items():
            more = self.counts[kind] - len(messages)
            lines += messages + ([f"… and {more:,} more like that ({kind})"] if more else [])
        return lines


class _RowChecker:
    """Checks the rows below line 1, one after the other, against the ids of the test file."""

    def __init__(self, names: list[str], competition: Competition, test_ids: np.ndarray,
                 found: _Problems) -> None:
        self.found = found
        self.n_cells = len(names)
        self.id_at, self.label_at = map(names.index, competition.submission_columns)
        self.labels = set(competition.class_labels)
        self.allowed = (f"a whole number from 0 to {competition.n_classes - 1} in plain digits"
                        if competition.labels_are_indices else
                        f"one of the labels {list_names(competition.class_labels)}")
        self.wanted = [str(name) for name in test_ids.tolist()]
        self.known = set(self.wanted)
        self.line_of: dict[str, int] = {}  # of each id, in the order of the file
        self.others = 0  # rows without a new id
        self.windows = 0  # lines that end in CR LF
        self.moved = ""  # the first row that stands elsewhere than in the test file
        self.most = 2 * len(self.wanted) + 1000

    def check(self, line: int, raw: bytes) -> None:
        if raw.endswith(b"\r"):
            self.windows += 1
            raw = raw[:-1]
        cells = self._cells(line, raw)
        if cells is None:
            self.others += 1
            return
        name, label = cells[self.id_at], cells[self.label_at]
        if name in self.line_of:
            self.found.add("duplicate id", f"line {line}: the id {quoted(name)} is there already, "
                                           f"on line {self.line_of[name]}; keep one of the two")
            self.others += 1
        else:
            self.line_of[name] = line
            if not name.strip():
                self.found.add("missing id", f"line {line}: the id is empty; write that of the "
                                             "test file")
            elif name not in self.known:
                self.found.add("unknown id", f"line {line}: there is no id {quoted(name)} in the "
                                             "test file; delete the line or write the right id")
        if label not in self.labels:
            what = f"the label {quoted(label)} is not" if label else \
                "the label is empty: it must be"
            self.found.add("label", f"line {line}: {what} {self.allowed}")

    def _cells(self, line: int, raw: bytes) -> list[str] | None:
        """The cells of a line; None, and a problem added, for a line that is not readable."""
        if not raw.strip():
            self.found.add("empty line", f"line {line}: the line is empty; delete it")
            return None
        try:
            text = raw.decode("utf-8")
            cells = next(csv.reader([text], strict=True)) if '"' in text else text.split(",")
        except UnicodeDecodeError as error:
            self.found.add("encoding", f"line {line}: {quoted(raw)} is not UTF-8 at byte "
                                       f"{error.start + 1}; save it as UTF-8")
            return None
        except csv.Error as error:
            self.found.add("cells", f"line {line}: {quoted(raw)} is not readable as CSV ({error}); "
                                    "write the id and the label")
            return None
        if len(cells) != self.n_cells:
            self.found.add("cells", f"line {line}: {quoted(raw)} has {len(cells)} cells, line 1 "
                                    f"has {self.n_cells}; write as many in each line")
            return None
        return cells

    def finish(self) -> None:
        """The checks that need all rows: too few or too many, missing ids, another order."""
        n_rows = len(self.line_of) + self.others
        missing = [name for name in self.wanted if name not in self.line_of]
        if missing:
            self.found.add("ids", f"rows of {len(missing):,} of the {len(self.wanted):,} ids are "
                                  f"missing: {list_names(missing)}; add them")
        if n_rows != len(self.wanted):
            self.found.add("rows", f"there are {n_rows:,} rows below line 1; the test file has "
                                   f"{len(self.wanted):,}")
        there = [name for name in self.line_of if name in self.known]
        if not missing and there != self.wanted:
            place = next(i for i, (name, other) in enumerate(zip(there, self.wanted, strict=True))
                         if name != other)
            self.moved = f"line {self.line_of[there[place]]}, the id {quoted(there[place])}"

    def notes(self) -> list[str]:
        """What is odd, but accepted."""
        notes = []
        if self.windows:
            lines = f"{self.windows:,} lines end" if self.windows > 1 else "a line ends"
            notes.append(f"{lines} in \\r\\n (Windows), which Kaggle takes")
        if self.moved:
            notes.append("the rows are in another order than those of the test file, from "
                         f"{self.moved} on: Kaggle matches rows by id, and takes any order")
        return notes
