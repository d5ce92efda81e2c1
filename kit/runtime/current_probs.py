"""The best probs that the folds finished so far give, and a fallback where there are none.

They are read after every fold, by a process that must not fail. So a fold that cannot be read is
left out and named, and so is one that has not learnt: its val accuracy is below the baseline's.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from kit.core import storage
from kit.core.errors import KitError
from kit.core.run_folder import RunFolder, finished_folds
from kit.data.competition import Competition
from kit.data.table import Table
from kit.ensembling.blend import aligned, vote
from kit.training.models import BASELINE
from kit.training.records import read_probs

MARGIN = 0.05  # of accuracy: a fold that is worse than the baseline by more has not learnt


@dataclass
class CurrentProbs:
    """The probs and the folds that they come from."""

    probs: np.ndarray | None = None  # float32 (n, n_classes); None where no fold is finished
    used: str = "fallback"  # or whose they are: ensemble, baseline
    folds: list[str] = field(default_factory=list)  # whose mean it is
    accuracy: dict[str, float] = field(default_factory=dict)  # of finished folds, held out
    left_out: dict[str, str] = field(default_factory=dict)  # finished folds not used, and why
    complete: bool = False  # all planned folds are used


def read_current_probs(run: RunFolder, planned: Sequence[str], ids: np.ndarray,
                       n_classes: int) -> CurrentProbs:
    """The mean probs of the finished ones of the `planned` folds (keys), else of the baseline's."""
    current, probs = CurrentProbs(), {}
    for key in sorted(finished_folds(run.path)):
        try:
            path = run.path / key / "test.npz"
            probs[key] = aligned(*read_probs(path, "id", n_classes), ids, path)
            done = storage.read_json(run.path / key / "done.json")
            current.accuracy[key] = float(done["val_accuracy"])
        except (KitError, KeyError, TypeError, ValueError) as error:
            probs.pop(key, None)
            current.left_out[key] = error.message if isinstance(error, KitError) \
                else f"unreadable: {error!r}"
    for key in [key for key in probs if key in planned and not _has_learnt(key, current.accuracy)]:
        current.left_out[key] = (f"has not learnt: it reads {current.accuracy[key]:.4f} of its "
                                 "held-out part")
        del probs[key]
    for used, keys in (("ensemble", [key for key in planned if key in probs]),
                       ("baseline", [key for key in probs if key.startswith(f"{BASELINE}/")])):
        if keys:
            members: dict[str, list[np.ndarray]] = {key.rpartition("/")[0]: [] for key in keys}
            for key in keys:
                members[key.rpartition("/")[0]].append(probs[key])
            current.probs, current.used, current.folds = vote(members.values()), used, keys
            break
    current.complete = current.used == "ensemble" and set(current.folds) == set(planned)
    return current


def _has_learnt(key: str, accuracy: dict[str, float]) -> bool:
    """Compared with the baseline on the same held-out part, where that is known."""
    same_part = f"/{key.rpartition('/')[2]}"
    baseline = [value for other, value in accuracy.items()
                if other.startswith(f"{BASELINE}/") and other.endswith(same_part)]
    return key.startswith(f"{BASELINE}/") or not baseline or accuracy[key] >= max(baseline) - MARGIN


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
