"""Read what a finished run has scored: its OOF probs with their labels, folds and writers.

A run's folder and the folder of its submission hold the same in two forms; everything that looks at
several runs (`kit compare`, `kit blend`) reads them here.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kit.core import storage
from kit.core.config import matches_type
from kit.core.errors import KitError
from kit.core.run_folder import RunFolder, resume_submission_command
from kit.data.competition import Competition
from kit.data.folds import load_folds
from kit.ensembling.blend import RunResults
from kit.training.records import read_competition, read_data_record

# Of an oof.npz: its probs, and of a self-trained run also those from before that
PROBS, PROBS_BEFORE = "probs", "probs_before_self_training"
MOST_ROWS = 1 << 40  # rows are counted in int64


@dataclass(frozen=True, eq=False)
class ScoredRun:
    """The rows that a run has scored, in ascending order, and its config."""

    name: str
    row: np.ndarray
    probs: np.ndarray  # float32
    label: np.ndarray
    fold: np.ndarray
    writer: np.ndarray | None
    config: dict[str, Any]
    competition: Competition

    def take(self, rows: np.ndarray) -> "ScoredRun":
        """The same with `rows` alone, all of which it must have."""
        at = np.searchsorted(self.row, rows)
        return ScoredRun(self.name, rows, self.probs[at], self.label[at], self.fold[at],
                         None if self.writer is None else self.writer[at], self.config,
                         self.competition)

    @property
    def right(self) -> np.ndarray:
        return self.probs.argmax(axis=1) == self.label

    @property
    def keeps_writers_apart(self) -> bool:
        if self.writer is None:
            return False
        pairs = np.unique(np.stack([self.writer, self.fold]), axis=1)
        return len(np.unique(pairs[0])) == pairs.shape[1]


def oof_probs(results: RunResults) -> dict[str, Any]:
    """The OOF probs `(n, n_classes)` that an oof.npz holds, by name."""
    found = {PROBS: results.oof}
    if results.config.get("self_train"):  # also where there was no time for a round
        found[PROBS_BEFORE] = (results.before_self_training or results).oof
    return found


def read_scored_run(folder: Path, before_self_training: bool = False) -> ScoredRun:
    """What a run or a submission has scored. KitError where an artifact is missing or damaged.

    A run's labels, writers and folds are in its folds.csv. before_self_training: what a run that
    was self-trained had scored before that.
    """
    arrays = storage.read_npz(folder / "oof.npz", "row", PROBS)
    config, competition = _read_config(folder), read_competition(folder)
    if before_self_training and config.get("self_train"):
        if PROBS_BEFORE not in arrays:
            raise KitError(f"{folder.resolve().name} was self-trained, and its oof.npz does not "
                           "hold what it had read before that",
                           f"if its run is still there, write it again: kit report "
                           f"{folder.resolve().name}")
        arrays[PROBS] = arrays[PROBS_BEFORE]
    if "label" not in arrays:
        folds = load_folds(folder / "folds.csv")
        if not np.array_equal(arrays["row"], folds.rows):
            raise storage.damaged(folder / "oof.npz", "its rows are not those of folds.csv")
        arrays |= {"label": folds.labels, "fold": folds.fold}
        if folds.writers is not None:
            arrays["writer"] = folds.writers
    _check_rows(folder / "oof.npz", arrays, competition.n_classes)
    scored = np.flatnonzero(np.isfinite(arrays["probs"]).all(axis=1))
    order = scored[np.argsort(arrays["row"][scored], kind="stable")]
    return ScoredRun(folder.resolve().name, arrays["row"][order],
                     arrays["probs"][order].astype(np.float32),
                     arrays["label"][order].astype(np.int64), arrays["fold"][order],
                     arrays["writer"][order] if "writer" in arrays else None, config, competition)


def resume_command(folder: Path, name: str) -> str:
    """The command that trains the missing folds of the run `name`, by its folder or submission."""
    if (folder / "folds.csv").is_file():
        return RunFolder(folder).resume_command
    return resume_submission_command(name, folder.parent)


def _read_config(folder: Path) -> dict[str, Any]:
    """Its config, with `data` and `command` in the same dict. KitError where it is not one."""
    path = folder / "config.json"
    about = storage.read_json(path, "config")
    config = about["config"]
    if not isinstance(config, dict) or not matches_type(config.get("competition"), str) \
            or not matches_type(config.get("models"), tuple[str, ...]):
        raise storage.damaged(path, "it does not say which models were trained for what")
    return {**config, "data": read_data_record(folder), "command": about.get("command")}


def _check_rows(path: Path, arrays: dict[str, np.ndarray], n_classes: int) -> None:
    """KitError unless these are probs of whole rows, each row once, with a label and a fold."""
    rows, probs, label = arrays["row"], arrays["probs"], arrays["label"]
    columns = [arrays[name] for name in ("row", "label", "fold", "writer") if name in arrays]
    if "fold" not in arrays or any(column.dtype.kind not in "iu" or column.shape != rows.shape
                                   for column in columns) \
            or rows.ndim != 1 or not len(rows) or len(np.unique(rows)) < len(rows) \
            or min(rows.min(), label.min()) < 0 or rows.max() > MOST_ROWS \
            or label.max() >= n_classes:
        raise storage.damaged(path, "its rows, labels, folds and writers do not fit together")
    if probs.dtype.kind != "f" or probs.shape != (len(rows), n_classes) \
            or ((probs < 0) | (probs > 1)).any():
        raise storage.damaged(path, f"its probs are not probabilities of {n_classes} classes")
    if (arrays["fold"][np.isfinite(probs).all(axis=1)] < 0).any():  # what is scored was held out
        raise storage.damaged(path, "its rows, labels, folds and writers do not fit together")
