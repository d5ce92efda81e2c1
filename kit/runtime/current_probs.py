"""The best probs that the folds finished so far give, and a fallback where there are none.

They are read after every fold, by a process that must not fail. So a fold that cannot be read is
left out and named, and so is one that has not learnt: its val accuracy is below the baseline's.
A round of self-training counts once all folds have finished it; else the round before does.
"""

import csv
from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from kit.core import storage
from kit.core.errors import KitError
from kit.core.run_folder import RunFolder, finished_folds, round_key
from kit.data.competition import Competition
from kit.data.table import Table
from kit.ensembling.blend import aligned, vote
from kit.training.models import BASELINE
from kit.training.records import finished_rounds, read_probs

MARGIN = 0.05  # of accuracy: a fold that is worse than the baseline by more has not learnt


@dataclass
class CurrentProbs:
    """The probs and the folds that they come from."""

    probs: np.ndarray | None = None  # float32 (n, n_classes); None where no fold is finished
    used: str = "fallback"  # or whose they are: ensemble, baseline
    folds: list[str] = field(default_factory=list)  # whose mean it is
    rounds: int = 0  # of self-training, after which the folds are used
    accuracy: dict[str, float] = field(default_factory=dict)  # of finished folds, held out
    # Finished folds and rounds of folds that are not used, and why
    left_out: dict[str, str] = field(default_factory=dict)
    complete: bool = False  # all planned folds are used, after all planned rounds

    @property
    def about(self) -> str:
        """What votes: `5 folds after 2 rounds of self-training`."""
        after = f" after {self.rounds} round{'s' * (self.rounds > 1)} of self-training"
        return f"{count_folds(self.folds)}{after * (self.rounds > 0)}"


def count_folds(folds: Sized) -> str:
    """How many there are, as text."""
    return f"{len(folds)} fold{'s' * (len(folds) != 1)}"


def read_current_probs(run: RunFolder, planned: Sequence[str], ids: np.ndarray, n_classes: int,
                       n_rounds: int = 0) -> CurrentProbs:
    """The mean probs of the finished ones of the `planned` folds (keys), else of the baseline's.

    n_rounds: of self-training, which are planned for all of them.
    """
    current, probs = CurrentProbs(), {}
    for key in sorted(finished_folds(run.path)):
        if (found := _read(run, key, ids, n_classes, current)) is not None:
            probs[key] = found
    for key in [key for key in probs if key in planned and not _has_learnt(key, key, current)]:
        del probs[key]
    for used, keys in (("ensemble", [key for key in planned if key in probs]),
                       ("baseline", [key for key in probs if key.startswith(f"{BASELINE}/")])):
        if keys:
            current.probs, current.used, current.folds = _vote(probs, keys), used, keys
            break
    if current.used != "ensemble" or set(current.folds) != set(planned):
        return current
    for n in range(finished_rounds(run.path, planned, n_rounds), 0, -1):
        again = {key: _read(run, round_key(key, n), ids, n_classes, current) for key in planned}
        learnt = [_has_learnt(round_key(key, n), key, current)
                  for key, found in again.items() if found is not None]
        if len(learnt) == len(planned) and all(learnt):
            current.probs, current.rounds = _vote(again, planned), n
            break
    current.complete = current.rounds == n_rounds
    return current


def _read(run: RunFolder, key: str, ids: np.ndarray, n_classes: int,
          current: CurrentProbs) -> np.ndarray | None:
    """Test probs of a job, whose accuracy is entered into `current`; None, named there, if broken.
    """
    try:
        path = run.path / key / "test.npz"
        probs = aligned(*read_probs(path, "id", n_classes), ids, path)
        done = storage.read_json(run.path / key / "done.json")
        current.accuracy[key] = float(done["val_accuracy"])
    except (KitError, KeyError, TypeError, ValueError) as error:
        current.left_out[key] = error.message if isinstance(error, KitError) \
            else f"unreadable: {error!r}"
        return None
    return probs


def _vote(probs: Mapping[str, Any], keys: Sequence[str]) -> np.ndarray:
    """The vote of the folds `keys`, each fold's probs by its key."""
    members: dict[str, list[np.ndarray]] = {key.rpartition("/")[0]: [] for key in keys}
    for key in keys:
        members[key.rpartition("/")[0]].append(probs[key])
    return vote(members.values())


def _has_learnt(key: str, fold: str, current: CurrentProbs) -> bool:
    """Whether a job of `fold` reads its held-out part about as well as the baseline, if that is
    known; otherwise it is named in `current`.
    """
    same_part, accuracy = f"/{fold.rpartition('/')[2]}", current.accuracy
    baseline = [value for other, value in accuracy.items()
                if other.startswith(f"{BASELINE}/") and other.endswith(same_part)]
    if fold.startswith(f"{BASELINE}/") or not baseline or accuracy[key] >= max(baseline) - MARGIN:
        return True
    current.left_out[key] = f"has not learnt: it reads {accuracy[key]:.4f} of its held-out part"
    return False


def nearest_centroid(train: Table, test: Table, n_classes: int) -> np.ndarray:
    """Probs of 0 and 1 `(n_test, n_classes)`: the class whose mean image is nearest."""
    pixels, labels = np.asarray(train.pixels, "float32"), np.asarray(train.labels)
    far = np.full(pixels.shape[1], 1e6, "float32")  # for a class that no row has
    means = np.stack([pixels[labels == c].mean(0) if (labels == c).any() else far
                      for c in range(n_classes)])
    distance = (means**2).sum(1) - 2 * np.asarray(test.pixels, "float32") @ means.T
    return np.eye(n_classes, dtype="float32")[distance.argmin(1)]


def lenient_ids(path: Path, competition: Competition) -> np.ndarray:
    """The ids of a test file that the strict reader refuses: its column of ids, or row numbers."""
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        rows = [row for row in csv.reader(file) if row]
    names, rows = (rows[0], rows[1:]) if competition.header else ([], rows)
    if competition.id_column:
        columns = names if competition.id_column in names else \
            list(competition.layout(labelled=False).columns)
        at = columns.index(competition.id_column)
        return np.array([row[min(at, len(row) - 1)] for row in rows])
    return competition.first_id + np.arange(len(rows))
