"""What a run trains: its jobs, and the data of each.

In go a config, a data folder and a run folder; out come jobs in their order, and for each the arrays that it learns
from and is asked about. A worker makes them anew from the same few words, so a plan is small and picklable.
"""

import functools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from kit.core.config import RunConfig
from kit.core.run_folder import RunFolder
from kit.data import cache, competition
from kit.data import folds as folds_module
from kit.data.source import DataFolder
from kit.training import models, records
from kit.training.jobs import FoldData, FoldJob

GUESSES_TIMES = 3  # the test rows in an epoch of self-training: once gained less (docs/lab-log.md, 2026-11-22)


@dataclass(frozen=True)
class Plan:
    """All that a worker needs to train any job of a run; small, and picklable."""

    config: RunConfig
    data: DataFolder
    run: Path
    jobs: tuple[FoldJob, ...]

    def folder(self, job: FoldJob) -> Path:
        return self.run / job.key


def make_jobs(config: RunConfig, precision: str) -> tuple[FoldJob, ...]:
    """The baseline's folds first, once; then every model, seed and fold of the run."""
    baseline = [] if models.BASELINE in config.models else [(models.BASELINE, config.seed)]
    return tuple(_job(config, precision, models.get(model), seed, fold)
                 for model, seed in baseline + config.members for fold in range(config.n_folds))


def _job(config: RunConfig, precision: str, recipe: models.Recipe, seed: int, fold: int) -> FoldJob:
    named = recipe.name in config.models
    views = 1 if config.limit else recipe.tta  # a quick look would spend most of its time on looking thrice
    return FoldJob(recipe.name, seed, fold, (config.epochs if named else None) or recipe.epochs,
                   (config.batch_size if named else None) or recipe.batch_size, precision,
                   (config.tta if named else None) or views)


def self_training(plan: Plan) -> tuple[FoldJob, ...]:
    """The next round after the plan's: each of the run's own models once more, from where it ended."""
    return tuple(replace(job, guesses=job.guesses + 1, epochs=models.GUESSES_EPOCHS)
                 for job in plan.jobs if job.model in plan.config.models)


# -- the data of a job ----------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=1)
def _tables(path: Path, slug: str, stamps: tuple[tuple[int, ...], ...]) -> tuple[Any, Any, Any]:
    data = DataFolder(path, competition.get(slug))
    return data.train(), data.test(), data.extra()


def read_tables(data: DataFolder) -> tuple[Any, Any, Any]:
    """The training, test and extra tables; read once in a process, until a file of the folder changes."""
    return _tables(data.path.resolve(), data.competition.slug, _stamps(data))


def _stamps(data: DataFolder) -> tuple[tuple[int, ...], ...]:
    """What changes when a file of the folder does: a notebook may train on new data of the same name."""
    return tuple(tuple(cache.file_stamp(path.stat())) for path in sorted(data.path.glob("*.csv")))


def fold_data(plan: Plan, job: FoldJob) -> FoldData:
    """What the job trains on, read from the cached tables, the run's folds.csv, and its guesses for self-training."""
    data, run = plan.data, RunFolder(plan.run)
    train, test, extra = read_tables(data)
    folds = folds_module.load_folds(run.folds)
    held_out = folds.fold == job.fold
    fold = FoldData(train.pixels, np.asarray(train.labels), folds.rows[~held_out], folds.rows[held_out],
                    test.pixels, test.ids, extra.pixels if extra else None)
    if not job.guesses:
        return fold
    return _with_guesses(fold, records.read_guesses(run.guesses(job.guesses), test.ids, data.competition.n_classes))


def _with_guesses(fold: FoldData, labels: np.ndarray) -> FoldData:
    """The test rows behind the training rows, each `GUESSES_TIMES` in an epoch; what is held out stays out."""
    rows = len(fold.labels) + np.arange(len(labels))
    return replace(fold, pixels=np.concatenate([fold.pixels, fold.test_pixels]),
                   labels=np.concatenate([fold.labels, labels.astype(fold.labels.dtype)]),
                   train_rows=np.concatenate([fold.train_rows, *[rows] * GUESSES_TIMES]))
