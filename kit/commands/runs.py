"""`kit runs`: list the runs and submissions that are here, and remove those that are named.

A run of another version of the kit is listed as well, with what this version can do with it: see
`kit.training.records`.
"""

import contextlib
import os
import shutil
import sys
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kit import ledger
from kit.commands.command import expand_home
from kit.commands.find_runs import names_with, nearest_name
from kit.core import os_errors, storage
from kit.core.errors import KitError
from kit.core.run_folder import RunFolder, check_run_name, finished_folds
from kit.reporting.verdict import percent
from kit.training.models import BASELINE
from kit.training.records import read_config, read_data_record, read_settled

RUN, SUBMISSION = "run", "submission"
# What a folder's state can be
FINISHED, PARTIAL, UNFINISHED, TRAINING, UNREADABLE = (
    "finished", "partial", "unfinished", "training", "unreadable")
SCORES = ("cv_accuracy", "estimate", "estimate_low", "estimate_high")  # columns of the ledger
HEADINGS = ("name", "data", "models", "score", "estimate", "size", "state", "made (UTC)")


@dataclass(frozen=True)
class Entry:
    """A run or a submission. A field that cannot be read is empty or None; `notes` say why."""

    name: str  # what `kit runs remove` takes: a run's name, a submission's path
    kind: str  # RUN or SUBMISSION
    path: Path
    state: str
    bytes: int
    created: str = ""  # ISO 8601, UTC
    competition: str = ""
    is_sample: bool = False
    models: tuple[str, ...] = ()
    folds: tuple[int, int] | None = None  # done, of how many; None for a submission
    cv_accuracy: float | None = None
    estimate: float | None = None  # of the leaderboard's score
    estimate_low: float | None = None
    estimate_high: float | None = None
    keeps_weights: bool = False  # of a submission
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "path": str(self.path)}

    def cells(self) -> tuple[str, ...]:
        """Its row of the table, below HEADINGS."""
        state = self.state
        if self.folds and state in (UNFINISHED, TRAINING):
            state += f", {self.folds[0]} of {self.folds[1]} folds"
        state += ", with weights" * self.keeps_weights
        score, estimate = ("" if share is None else percent(share)
                           for share in (self.cv_accuracy, self.estimate))
        data = self.competition + " (sample)" * self.is_sample
        return (self.name, data, ",".join(self.models), score, estimate, format_size(self.bytes),
                state, self.created[:16].replace("T", " "))


def format_size(n_bytes: int) -> str:
    """`n_bytes` for a person: 123456789 → '123.5 MB'."""
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.1f} MB"


def list_runs(runs_dir: Path, submissions: Path) -> list[Entry]:
    """The runs in `runs_dir`, then the submissions in `submissions`, each the newest first."""
    runs = [read_entry(path, path.name, RUN) for path in sorted(runs_dir.glob("*"))
            if (path / "config.json").is_file() or finished_folds(path)]
    handed_in = [read_entry(path, path.as_posix(), SUBMISSION)
                 for path in sorted(submissions.glob("*")) if (path / "submission.csv").is_file()]
    return [entry for entries in (runs, handed_in)
            for entry in sorted(entries, key=lambda entry: entry.created, reverse=True)]


def read_entry(path: Path, name: str, kind: str) -> Entry:
    """What there is to know of the run or submission in the folder `path`. Raises no KitError."""
    known: dict[str, Any] = {"state": UNFINISHED, "bytes": 0, "notes": [],
                             "keeps_weights": RunFolder(path).keeps_weights}
    for folder, _, files in os.walk(path):  # unlike Path.rglob it bears files that vanish meanwhile
        for file in files:
            with contextlib.suppress(OSError):
                known["bytes"] += Path(folder, file).lstat().st_size
    try:
        stored = storage.read_json(path / "config.json", "config")
        known["created"] = str(stored.get("created") or "")
        config = read_config(path)
        known |= {"competition": config.competition, "models": config.models,
                  "is_sample": read_data_record(path)["is_sample"]}
        if kind == RUN:
            jobs = config.n_jobs + config.n_folds * (BASELINE not in config.models)
            known["folds"] = len(finished_folds(path)), jobs
            try:
                read_settled(path)
            except KitError as error:
                known["notes"].append(f"{error.message}; {error.fix}")
    except KitError as error:
        known["state"] = UNREADABLE
        known["notes"].append(f"{error.message}; {error.fix}")
    try:
        if (path / "report.json").is_file():
            report = storage.read_json(path / "report.json", "complete")
            row = ledger.make_row(name, report)
            known |= {column: float(row[column]) for column in SCORES if row[column]}
            if known["state"] == UNFINISHED:
                known["state"] = FINISHED if report["complete"] else PARTIAL
    except KitError as error:
        known["notes"].append(f"{error.message}; {error.fix}")
    if kind == RUN and RunFolder(path).is_in_use:
        known["state"] = TRAINING
    if not known.get("created"):
        known["created"] = datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat(
            timespec="seconds")
    return Entry(name, kind, path, **known)


def lines(entries: list[Entry]) -> list[str]:
    """The table for a terminal, and below it the notes."""
    if not entries:
        return ["no runs yet: kit cv, or kit submit, makes one"]
    rows = [HEADINGS, *(entry.cells() for entry in entries)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    notes = [f"{entry.name}: {note}" for entry in entries for note in entry.notes]
    total = format_size(sum(entry.bytes for entry in entries))
    return [*("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
              for row in rows), "", *notes, f"{total} in all"]


# -- removing --------------------------------------------------------------------------------------


def find_named(names: list[str], runs_dir: Path, submissions: Path) -> list[Entry]:
    """The runs and submissions of these names, none of them in use. KitError otherwise.

    A plain name is that of a run; a submission is named by its path, such as submissions/first.
    """
    found: dict[Path, Entry] = {}
    for name in names:
        path = Path(expand_home(name))
        if path.name == name:
            path = runs_dir / check_run_name(name)
            if not path.is_dir() and (submissions / name).is_dir():
                handed_in = submissions / name
                raise KitError(
                    f"there is no run {name!r} in {runs_dir}; {handed_in} is a submission",
                    f"to remove that, name it so: kit runs remove {handed_in}")
        kinds = {runs_dir.resolve(): RUN, submissions.resolve(): SUBMISSION}
        kind = kinds.get(path.parent.resolve())
        if kind is None or not path.is_dir():
            near = nearest_name(name, names_with("config.json", runs_dir))
            raise KitError(f"there is no {name!r} in {runs_dir} or {submissions}",
                           f"did you mean {near}?" if near else
                           "name it as kit runs does, with the same --runs-dir and --submissions")
        check_run_name(path.name)
        if kind == SUBMISSION and not (path / "submission.csv").is_file():
            raise KitError(f"{path} is no submission: it has no submission.csv",
                           "remove that folder yourself")
        entry = read_entry(path, name, kind)
        if entry.state == TRAINING:
            raise KitError(f"{path} is training", "wait until it has ended, or end it")
        found[path.resolve()] = entry
    return list(found.values())


def confirm(entries: list[Entry]) -> bool:
    """Ask on stderr whether to remove these. KitError if there is nobody to answer."""
    for entry in entries:
        print(f"{entry.path}: {entry.kind}, {entry.state}, {format_size(entry.bytes)}",
              file=sys.stderr)
    print("remove? [y/N] ", end="", file=sys.stderr, flush=True)
    try:
        return input().strip().lower() in ("y", "yes")
    except (EOFError, NotImplementedError) as error:  # the second in a notebook run without a user
        print(file=sys.stderr)
        raise KitError("kit runs remove asks first, and there is nobody to answer",
                       "give --yes (in a notebook yes=True)") from error


def remove(entry: Entry) -> None:
    """Remove a run or a submission. KitError if a process has begun to train in it."""
    if entry.kind == RUN:
        RunFolder(entry.path).remove()
        return
    with os_errors.disk_errors(entry.path, "remove"):
        shutil.rmtree(entry.path)
