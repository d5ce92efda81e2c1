"""What a run trains: its plan and jobs, and the arrays and random numbers of each job.

Plan, job and data can be sent to any process. Everything random in a fold is drawn from its job, so
it does not matter which process trains it.
"""

import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from kit.core import storage
from kit.core.config import RunConfig
from kit.core.run_folder import RunFolder, round_key
from kit.data.folds import Folds
from kit.data.source import DataFolder
from kit.data.table import Table
from kit.training import models
from kit.training.own_models import recipe_of

WEIGHTS, DROPOUT, ORDER, WARPS, CURVE, PARTS = range(6)  # the streams of `FoldJob.rng`
# How often each test row is in an epoch of self-training; once gained less (docs/lab-log.md,
# 2026-11-22)
GUESSES_TIMES = 3

EventCallback = Callable[[dict[str, Any]], None]  # called with each event of a training job


@dataclass(frozen=True)
class FoldJob:
    """One model to train: what, on which held-out part, from which seed, and for how long."""

    model: str
    seed: int
    fold: int
    epochs: int
    batch_size: int
    precision: str
    tta: int
    attempt: int = 0  # 1: the second try of a fold that went wrong, with other random numbers
    why: str = ""  # the reason for a second try
    guesses: int = 0  # round of self-training; it goes on from the round before
    asked_batch_size: int = 0  # where memory was short for it (kit.training.memory); else 0

    @property
    def key(self) -> str:
        """Its folder in a run folder: model/seed_s/fold_k, in self-training with /guesses_n."""
        fold = f"{self.model}/seed_{self.seed}/fold_{self.fold}"
        return round_key(fold, self.guesses) if self.guesses else fold

    @property
    def previous_round(self) -> "FoldJob":
        """The job whose trained model a round of self-training begins with."""
        return replace(self, guesses=self.guesses - 1)

    @property
    def rate_factor(self) -> float:
        """By what the recipe's learning rate is multiplied: 1 with the batch that was asked for.

        Where memory was short for that, the square root of the share of it that fits. So Adam and
        RMSprop take the path that they would have taken with the whole batch (Malladi et al. 2022,
        arXiv 2205.10287), and folds of unlike batches stay comparable.
        """
        return math.sqrt(self.batch_size / (self.asked_batch_size or self.batch_size))

    def rng(self, *stream: int) -> np.random.Generator:
        """The generator of one purpose of this job, the same on every machine."""
        entropy = [self.seed, self.fold, self.attempt, zlib.crc32(self.model.encode()), *stream]
        return np.random.default_rng([*entropy, 1_000 + self.guesses] if self.guesses else entropy)


@dataclass(frozen=True)
class FoldData:
    """What a fold trains on and predicts: uint8 pixels `(n, h·w)`, uint8 labels `(n,)`, row
    numbers, ids.
    """

    pixels: np.ndarray
    labels: np.ndarray
    train_rows: np.ndarray
    val_rows: np.ndarray
    test_pixels: np.ndarray | None = None
    test_ids: np.ndarray | None = None
    extra_pixels: np.ndarray | None = None


@dataclass(frozen=True)
class Plan:
    """All that a worker needs to train any job of a run; it reads the tables itself."""

    config: RunConfig  # settled (kit.training.executors.settle)
    data: DataFolder
    run: Path
    folds: Folds
    jobs: tuple[FoldJob, ...]

    def folder(self, job: FoldJob) -> Path:
        return self.run / job.key


def make_jobs(config: RunConfig, precision: str) -> tuple[FoldJob, ...]:
    """Every model, seed and fold of the run, and the baseline's folds, once, in order of training.

    The longest first, as the recipes state their costs: whoever is free at the end then has short
    ones to fill the time with, while another trains the last long one. Computed for two workers,
    that saves 1 to 11 % of a run's wall time (docs/lab-log.md, 2026-11-29). Under a time budget the
    baseline goes first, as there must be something to hand in, and the rest is as it was named.
    """
    baseline = [] if models.BASELINE in config.models else [(models.BASELINE, config.seed)]
    jobs = []
    for model, seed in baseline + config.members:
        recipe = recipe_of(config, model)
        named = model in config.models  # the options do not apply to the baseline beside them
        epochs = (config.epochs if named else None) or recipe.epochs
        batch_size = (config.batch_size if named else None) or recipe.batch_size
        # With --limit, a quick look, three test-time views would take most of the time.
        tta = (config.tta if named else None) or (1 if config.limit else recipe.tta)
        jobs += [FoldJob(model, seed, fold, epochs, batch_size, precision, tta)
                 for fold in range(config.n_folds)]
    if config.time_budget is None:
        jobs.sort(key=lambda job: recipe_of(config, job.model).cost * job.epochs, reverse=True)
    return tuple(jobs)


def self_training_jobs(plan: Plan) -> tuple[FoldJob, ...]:
    """The jobs of the next round: each fold of the run's own models goes on from where it ended."""
    return tuple(replace(job, guesses=job.guesses + 1, epochs=models.GUESSES_EPOCHS)
                 for job in plan.jobs if job.model in plan.config.models)


def extra_learned(config: RunConfig, data: DataFolder) -> Table | None:
    """The out-of-domain file, where the run learns from it; None elsewhere, or without one."""
    return data.extra() if config.train_extra else None


def extra_predicted(config: RunConfig, data: DataFolder) -> Table | None:
    """The out-of-domain file, where the run only predicts it; None elsewhere, or without one."""
    return None if config.train_extra else data.extra()


def fold_data(plan: Plan, job: FoldJob) -> FoldData:
    """The job's arrays: the training file's rows, split by the folds, and what is learned beside.

    That is the out-of-domain file, where the run trains on it, and in self-training the test rows.
    KitError where the labels that the run has guessed for the test rows are of another test file.
    """
    train, test, folds = plan.data.train(), plan.data.test(), plan.folds
    pixels, labels = [train.pixels], [np.asarray(train.labels)]
    rows = [folds.rows[folds.trained_on(job.fold)]]

    def learn_also(more_pixels: np.ndarray, more_labels: np.ndarray, times: int) -> None:
        """Add rows after those that are there, each `times` in an epoch."""
        first = sum(map(len, labels))
        rows.extend([first + np.arange(len(more_labels))] * times)
        pixels.append(more_pixels)
        labels.append(more_labels)

    if extra := extra_learned(plan.config, plan.data):
        learn_also(extra.pixels, np.asarray(extra.labels), 1)
    if job.guesses:
        path = RunFolder(plan.run).guesses(job.guesses)
        guesses = storage.read_npz(path, "id", "label")
        if not np.array_equal(guesses["id"], test.ids):
            raise storage.damaged(path, "its labels are not those of the test file")
        learn_also(test.pixels, guesses["label"], GUESSES_TIMES)
    predicted = extra_predicted(plan.config, plan.data)
    return FoldData(_joined(pixels), np.concatenate(labels), np.concatenate(rows),
                    folds.rows[folds.fold == job.fold], test.pixels, test.ids,
                    predicted.pixels if predicted else None)


_latest: dict[str, Any] = {}


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    """Images of several files in one array; kept for the next fold, which has the same.

    So they are put on the device once for all folds (`kit.training.fit.on_device`).
    """
    if len(parts) == 1:
        return parts[0]
    if list(map(id, _latest.get("parts", ()))) != list(map(id, parts)):
        _latest.clear()
        _latest.update(parts=parts, images=np.concatenate(parts))
    return _latest["images"]
