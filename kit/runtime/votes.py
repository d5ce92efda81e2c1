"""What can be handed in right now: the best labels that the finished folds give.

In go a run folder, finished or not, and the ids of the test file; out come probs for exactly those ids, and what they
were made of. The one idea: this is asked after every fold, by a process that must not fail, so a fold that cannot be
read is left out and named, and so is one that did not learn (it reads its held-out part worse than the baseline does).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from kit.core import storage
from kit.core.errors import KitError
from kit.core.run_folder import RunFolder, finished_folds
from kit.data.table import Table
from kit.ensembling.blend import aligned
from kit.ensembling.blend import vote as vote_of
from kit.training.models import BASELINE
from kit.training.records import read_probs

MARGIN = 0.05  # of accuracy: a fold that is worse than the baseline by more has not learnt


@dataclass
class Vote:
    """Probs `(n, n_classes)` float32, and where they come from: `ensemble`, `baseline` or nothing yet."""

    probs: np.ndarray | None = None
    used: str = "fallback"
    folds: list[str] = field(default_factory=list)  # whose mean it is
    accuracy: dict[str, float] = field(default_factory=dict)  # of every finished fold on its held-out part
    left_out: dict[str, str] = field(default_factory=dict)  # finished folds that do not vote, and why
    complete: bool = False  # all planned folds vote


def take(run: RunFolder, planned: Sequence[str], ids: np.ndarray, n_classes: int) -> Vote:
    """The vote of the `planned` folds (keys) that are finished, else of the baseline's."""
    vote, probs = Vote(), {}
    for key in sorted(finished_folds(run.path)):
        try:
            path = run.path / key / "test.npz"
            probs[key] = aligned(*read_probs(path, "id", n_classes), ids, path)
            vote.accuracy[key] = float(storage.read_json(run.path / key / "done.json")["val_accuracy"])
        except (KitError, KeyError, TypeError, ValueError) as error:
            probs.pop(key, None)
            vote.left_out[key] = error.message if isinstance(error, KitError) else f"unreadable: {error!r}"
    for key in [key for key in probs if key in planned and not _has_learnt(key, vote.accuracy)]:
        vote.left_out[key] = f"has not learnt: it reads {vote.accuracy[key]:.4f} of its held-out part"
        del probs[key]
    for used, keys in (("ensemble", [key for key in planned if key in probs]),
                       ("baseline", [key for key in probs if key.startswith(f"{BASELINE}/")])):
        if keys:
            members: dict[str, list[np.ndarray]] = {key.rpartition("/")[0]: [] for key in keys}
            for key in keys:
                members[key.rpartition("/")[0]].append(probs[key])
            vote.probs, vote.used, vote.folds = vote_of(members.values()), used, keys
            break
    vote.complete = vote.used == "ensemble" and set(vote.folds) == set(planned)
    return vote


def _has_learnt(key: str, accuracy: dict[str, float]) -> bool:
    """Compared with the baseline on the same held-out part, where that is known."""
    same_part = f"/{key.rpartition('/')[2]}"
    baseline = [value for other, value in accuracy.items()
                if other.startswith(f"{BASELINE}/") and other.endswith(same_part)]
    return key.startswith(f"{BASELINE}/") or not baseline or accuracy[key] >= max(baseline) - MARGIN


def nearest_centroid(train: Table, test: Table, n_classes: int) -> np.ndarray:
    """Probs of 0 and 1 `(n_test, n_classes)`: the class whose mean image is nearest. What is left if nothing trains."""
    pixels, labels = np.asarray(train.pixels, "float32"), np.asarray(train.labels)
    means = np.stack([pixels[labels == c].mean(0) if (labels == c).any() else np.full(pixels.shape[1], 1e6, "float32")
                      for c in range(n_classes)])
    distance = (means**2).sum(1) - 2 * np.asarray(test.pixels, "float32") @ means.T
    return np.eye(n_classes, dtype="float32")[distance.argmin(1)]
