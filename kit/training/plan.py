"""What a run trains: its jobs in their order, and the arrays of each.

A worker makes the arrays anew from the plan's paths, so a plan is small and can be sent to any
process.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from kit.core.config import RunConfig
from kit.core.run_folder import RunFolder
from kit.data import folds as folds_module
from kit.data.source import DataFolder
from kit.training import models, records
from kit.training.jobs import FoldData, FoldJob

GUESSES_TIMES = 3  # the test rows in an epoch of self-training: once gained less (docs/lab-log.md, 2026-11-22)


@dataclass(frozen=True)
class Plan:
    """All that a worker needs to train any job of a run."""

    config: RunConfig
    data: DataFolder
    run: Path
    jobs: tuple[FoldJob, ...]

    def folder(self, job: FoldJob) -> Path:
        return self.run / job.key


def make_jobs(config: RunConfig, precision: str) -> tuple[FoldJob, ...]:
    """The baseline's folds first, once; then every model, seed and fold of the run."""
    baseline = [] if models.BASELINE in config.models else [(models.BASELINE, config.seed)]
    jobs = []
    for model, seed in baseline + config.members:
        recipe = models.get(model)
        named = model in config.models  # the options do not apply to the baseline beside them
        epochs = (config.epochs if named else None) or recipe.epochs
        batch_size = (config.batch_size if named else None) or recipe.batch_size
        # With --limit, a quick look, three test-time views would take most of the time.
        tta = (config.tta if named else None) or (1 if config.limit else recipe.tta)
        jobs += [FoldJob(model, seed, fold, epochs, batch_size, precision, tta)
                 for fold in range(config.n_folds)]
    return tuple(jobs)


def self_training_jobs(plan: Plan) -> tuple[FoldJob, ...]:
    """The jobs of the next round: each fold of the run's own models goes on from where it ended."""
    return tuple(replace(job, guesses=job.guesses + 1, epochs=models.GUESSES_EPOCHS)
                 for job in plan.jobs if job.model in plan.config.models)


# -- the data of a job ----------------------------------------------------------------------------------------------


def fold_data(plan: Plan, job: FoldJob) -> FoldData:
    """The job's arrays: the tables' rows, split by folds.csv; in self-training test rows, too."""
    data, run = plan.data, RunFolder(plan.run)
    train, test, extra = data.train(), data.test(), data.extra()
    folds = folds_module.load_folds(run.folds)
    held_out = folds.fold == job.fold
    fold = FoldData(train.pixels, np.asarray(train.labels), folds.rows[~held_out], folds.rows[held_out],
                    test.pixels, test.ids, extra.pixels if extra else None)
    if not job.guesses:
        return fold
    # The test rows follow the training rows, each GUESSES_TIMES in an epoch; what is held out stays
    # out.
    labels = records.read_guesses(run.guesses(job.guesses), test.ids, data.competition.n_classes)
    rows = len(fold.labels) + np.arange(len(labels))
    return replace(fold, pixels=np.concatenate([fold.pixels, fold.test_pixels]),
                   labels=np.concatenate([fold.labels, labels.astype(fold.labels.dtype)]),
                   train_rows=np.concatenate([fold.train_rows, *[rows] * GUESSES_TIMES]))
