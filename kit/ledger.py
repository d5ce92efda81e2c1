"""Record every submission with its estimate and its leaderboard scores in `submissions/ledger.csv`.

Rows are identified by Kaggle's reference, so adding one twice changes nothing. Users may edit and
merge the file by hand, so it has no checksum, and every cell is checked.
"""

import codecs
import csv
import io
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kit.core import locks, os_errors, storage
from kit.core.config import matches_type
from kit.core.errors import KitError
from kit.data.competition import Competition
from kit.data.csvfile import open_csv, quoted
from kit.kaggle import client as kaggle_client
from kit.kaggle import submissions
from kit.kaggle.client import Client, Say, silent
from kit.kaggle.submissions import Submission
from kit.reporting import figures

LEDGER = Path("submissions/ledger.csv")
EXPECTED = ("cv_accuracy", "estimate", "estimate_low", "estimate_high")  # before it was scored
NUMBERS = (*EXPECTED, "public_score", "private_score")
COLUMNS = ("run", "created", "data", "split", *NUMBERS, "kaggle_ref")
IDENTITY = ("run", "data", "split", *EXPECTED)  # the same if a run was resumed, not if made again
LOCK_TIMEOUT = 60.0
MAX_BYTES = 16 << 20  # a row has some 100 bytes
MOST_DRAWN = 200  # submissions in a picture
SCORES = {"public_score": ("ring public", "public score"),  # how a picture shows each: class, words
          "private_score": ("ring private", "private score")}
MAX_SCORE = 1e9  # larger ones, in whatever metric, are damage

Row = dict[str, str]


def make_row(run: str, report: dict[str, Any], ref: str = "") -> Row:
    """The row of a submission with the numbers of its `report.json`.

    Missing or invalid values are empty.
    """
    # A kernel's report comes from Kaggle, so nothing is sure to be in it
    data, cv, estimate = (part if isinstance(part, dict) else {} for part in
                          map(report.get, ("data", "cv", "leaderboard_estimate")))
    numbers: dict[str, Any] = {
        "cv_accuracy": cv.get("oof_accuracy", cv.get("mean")), "estimate": estimate.get("value"),
        "estimate_low": estimate.get("low"), "estimate_high": estimate.get("high")}
    words = {"run": run, "created": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
             "data": data.get("source"), "split": cv.get("split"), "kaggle_ref": ref}
    row = {name: number for name, number in numbers.items()
           if matches_type(number, float) and abs(number) < MAX_SCORE}
    row |= {name: word for name, word in words.items()
            if isinstance(word, str) and word.isprintable()}
    return {column: _text(row.get(column)) for column in COLUMNS}


def upsert_row(row: Row, path: Path = LEDGER) -> None:
    """Append `row`, or enter it into the row that stands for it already.

    The same submission (by its reference; where `row` has none, of the same work; or the same run,
    not handed in yet) keeps its date, and what it lacked is filled in. A run that was made again
    before it had a reference or a score has the new date and numbers.
    """
    with _locked(path):
        rows = read_rows(path)
        for known in rows:
            same = known["kaggle_ref"] == row["kaggle_ref"] if row["kaggle_ref"] else \
                all(known[column] == row[column] for column in IDENTITY)
            waits = known["run"] == row["run"] and not known["kaggle_ref"]
            made_again = any(known[column] and row[column] and known[column] != row[column]
                             for column in IDENTITY)
            if same or (waits and not made_again):
                known |= {column: text for column, text in row.items()
                          if text and column != "created"}
                break
            if waits and not any(known[score] for score in SCORES):
                known |= row
                break
        else:
            rows.append({column: row.get(column, "") for column in COLUMNS})
        _write(path, rows)


def record_submission(submission: Path, report: dict[str, Any]) -> None:
    """Add the row of a submission folder, whose report this is, to the ledger beside it.

    Submissions of a drawn sample are left out.
    """
    if not report["data"]["is_sample"]:
        upsert_row(make_row(report["run"], report), ledger_beside(submission))


def sync_command(competition: Competition, path: Path = LEDGER) -> str:
    """The command that fetches scores into the ledger at `path`."""
    words = ["kit", "ledger", "sync"]
    words += competition.option
    words += ["--ledger", str(path)] if path != LEDGER else []
    return shlex.join(words)


def ledger_beside(submission: Path) -> Path:
    """The path of the ledger in the parent folder of a submission's folder."""
    return Path(submission).parent / LEDGER.name


def set_scores(scores: dict[str, tuple[float | None, float | None]], path: Path = LEDGER) -> int:
    """Enter (public, private) scores by Kaggle's reference; returns how many rows changed."""
    with _locked(path):
        rows, changed = read_rows(path), 0
        for row in rows:
            found = map(_text, scores.get(row["kaggle_ref"], (None, None)))
            new = {column: text for column, text in zip(SCORES, found, strict=True)
                   if text and text != row[column]}
            row |= new
            changed += bool(new)
        if changed:
            _write(path, rows)
    return changed


def wait_for_score(client: Client, competition: Competition, ref: str, path: Path,
                   timeout: float) -> Submission:
    """Wait for the scores of the submission `ref`, enter them, and return the submission."""
    entry = submissions.wait_for_score(client, competition.slug, ref, timeout,
                                       sync_command(competition, path))
    set_scores({ref: (entry.public_score, entry.private_score)}, path)
    return entry


def sync(competition: Competition, path: Path = LEDGER, progress: Say = silent) -> int:
    """Fetch the scores of all submitted rows; returns how many rows changed."""
    wanted = {row["kaggle_ref"] for row in read_rows(path) if row["kaggle_ref"]}
    if not wanted:
        return 0
    connected = kaggle_client.connect(progress, competition.rules_url)
    scores: dict[str, tuple[float | None, float | None]] = {}
    for entry in submissions.list_submissions(connected, competition.slug):
        if entry.ref in wanted:
            scores[entry.ref] = (entry.public_score, entry.private_score)
            if entry.status == "ERROR":
                progress(f"submission {entry.ref} has no score: "
                         f"{entry.error or 'Kaggle does not say why'}")
        if len(scores) == len(wanted):  # the rest of the list may be many pages
            break
    if missing := sorted(wanted - set(scores)):
        progress(f"not among the submissions of {connected.user} to {competition.slug}: "
                 f"{', '.join(missing)}; those of another competition are fetched with "
                 "--competition, those of another account with its credential")
    return set_scores(scores, path)


def read_rows(path: Path = LEDGER) -> list[Row]:
    """The rows, oldest first; [] if there is no file.

    KitError if a line is damaged, with its number.
    """
    path = Path(path)
    if not path.exists():
        return []
    with open_csv(path) as file:
        text = file.read(MAX_BYTES + 1)
    if len(text) > MAX_BYTES:
        raise _damaged(path, f"it has more than {MAX_BYTES >> 20} MiB")
    if text.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise _damaged(path, "it is UTF-16", 'save it as "CSV UTF-8", not as "Unicode text"')
    if mark := re.search(rb"^(<{7}|={7}|>{7})", text, re.MULTILINE):
        line = len(text[:mark.start()].splitlines()) + 1
        raise _damaged(path, f"line {line} is a conflict mark of git's",
                       "keep the rows of both sides, each is a submission of its own, and delete "
                       "the lines of <, = and >")
    try:
        reader = csv.DictReader(io.StringIO(text.decode("utf-8-sig"), newline=""), strict=True)
        rows = [dict(row) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise _damaged(path, str(error)) from error
    names = list(reader.fieldnames or [""])
    if missing := set(COLUMNS) - set(names):
        for sign in ";\t":
            if len(missing) > 1 and sign in names[0]:
                raise _damaged(path, f"its cells are separated by {sign!r}",
                               "save it again with commas between the cells")
        raise _damaged(path, f"it has no column {', '.join(sorted(missing))}",
                       f"begin it with the line {','.join(COLUMNS)}, or take it back from git")
    for number, row in enumerate(rows, 2):
        if None in row or None in row.values():
            raise _damaged(path, f"line {number} does not have {len(names)} cells")
        if re.search(r"[\x00-\x1f\x7f-\x9f]", "".join(row.values())):
            raise _damaged(path, f"line {number} has control characters in it")
        for column in NUMBERS:
            if row[column] and _number(row[column]) is None:
                raise _damaged(path, f"line {number}: {column} is {quoted(row[column])}, which is "
                                     "no score",
                               "write a number such as 0.985, with a point, or leave it empty")
    return rows


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with locks.acquire(path.with_name(f".{path.name}.lock"), timeout=LOCK_TIMEOUT):
            yield
    except locks.AlreadyLocked as held:
        raise held.error(path, "run the same command again once it has ended") from None
    except OSError as error:
        raise os_errors.explain_os_error(error, path, "write") from error


def _write(path: Path, rows: list[Row]) -> None:
    # Keep columns that users have added
    columns = list(dict.fromkeys([*COLUMNS, *(column for row in rows for column in row)]))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    storage.write_text(Path(path), text.getvalue())


def _damaged(path: Path, why: str,
             fix: str = "correct that line, or take the file back from git") -> KitError:
    return KitError(f"{path} is damaged: {why}", fix)


def _text(value: Any) -> str:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if abs(value) < MAX_SCORE else None  # False for NaN, too


# -- estimates against scores ----------------------------------------------------------------------


@dataclass(frozen=True)
class Agreement:
    """How well the estimates agree with the public or the private scores."""

    n: int
    mean_gap: float | None  # estimate − score, positive if too high
    inside: int  # number of scores within the estimate's interval

    def __str__(self) -> str:
        if self.mean_gap is None:
            return "no score beside an estimate yet"
        return (f"estimate − score is {self.mean_gap:+.4f} on average over {self.n}; "
                f"{self.inside} of {self.n} scores lie inside the interval")


@dataclass(frozen=True)
class Summary:
    """The ledger's rows, and how well the estimates predicted each half of the leaderboard."""

    rows: list[Row]
    public: Agreement
    private: Agreement

    def to_dict(self) -> dict[str, Any]:
        return {"rows": self.rows, "public": vars(self.public), "private": vars(self.private)}

    def lines(self) -> list[str]:
        """The same for a terminal: the table, then a line for each half of the leaderboard."""
        if not self.rows:
            return ["the ledger is empty: kit submit, or kit kernel push --submit, writes its "
                    "first row"]
        widths = {column: max(len(column), *(len(row[column]) for row in self.rows))
                  for column in COLUMNS}
        table = [dict(zip(COLUMNS, COLUMNS, strict=True)), *self.rows]
        return [*("  ".join(row[column].ljust(widths[column]) for column in COLUMNS).rstrip()
                  for row in table), "",
                *(f"{row['run']}: no estimate was made; its report says why"
                  for row in self.rows if row["cv_accuracy"] and not row["estimate"]),
                f"public leaderboard:  {self.public}", f"private leaderboard: {self.private}"]


def summary(path: Path = LEDGER) -> Summary:
    """Read the ledger and summarise it."""
    rows = read_rows(path)
    return Summary(rows, _agreement(rows, "public_score"), _agreement(rows, "private_score"))


def _agreement(rows: list[Row], column: str) -> Agreement:
    gaps, inside = [], 0
    for row in rows:
        score, estimate = _number(row[column]), _number(row["estimate"])
        if score is not None and estimate is not None:
            gaps.append(estimate - score)
            low, high = _number(row["estimate_low"]), _number(row["estimate_high"])
            inside += low is not None and high is not None and low <= score <= high
    return Agreement(len(gaps), sum(gaps) / len(gaps) if gaps else None, inside)


def plot(path: Path = LEDGER) -> str:
    """The last `MOST_DRAWN` submissions as an SVG file, one row each, the oldest first.

    A row shows the estimate with its interval, and the leaderboard scores that there are.
    """
    rows = [row for row in read_rows(path) if _number(row["estimate"]) is not None][-MOST_DRAWN:]
    drawn = [column for column in NUMBERS if column != "cv_accuracy"]
    known = [{column: value for column in drawn if (value := _number(row[column])) is not None}
             for row in rows]
    values = [value for numbers in known for value in numbers.values()] or [0.0, 1.0]
    ticks = figures.nice_ticks(min(values), max(values))
    gutter = 20 + 7 * max((len(row["run"]) for row in rows), default=0)  # a letter is 7 wide
    top, width = 58, gutter + 380
    bottom = top + 26 * len(rows)
    x = figures.linear(ticks[0], ticks[-1], gutter + 24, width - 30)

    # The title, the legend, and the axis
    parts = [figures.text(width / 2, 16, "estimate and leaderboard", "middle", "name")]
    for place, (kind, words) in enumerate((("dot", "estimate"), *SCORES.values())):
        left = 20 + 120 * place
        parts += [figures.dot(left, 36, 4, kind), figures.text(left + 10, 40, words)]
    parts += figures.percent_axis(ticks, x, bottom, top - 4)
    parts.append(figures.text(width - 30, bottom + 36, "accuracy", "end"))

    for place, (row, numbers) in enumerate(zip(rows, known, strict=True)):
        y = top + 26 * (place + 0.5)
        title = [row["run"], *(f"{column.replace('_', ' ')} {row[column]}" for column in numbers)]
        marks = [figures.text(gutter, y + 4, row["run"], "end", "name")]
        if "estimate_low" in numbers and "estimate_high" in numbers:
            low, high = numbers["estimate_low"], numbers["estimate_high"]
            marks.append(figures.line(x(low), y, x(high), y, "whisker"))
        marks.append(figures.dot(x(numbers["estimate"]), y))
        marks += [figures.dot(x(numbers[column]), y, 5, kind)
                  for column, (kind, _) in SCORES.items() if column in numbers]
        parts.append(figures.titled("; ".join(title), *marks))
    return figures.svg_file(width, bottom + 46, "estimate and leaderboard", *parts)
