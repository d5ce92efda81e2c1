"""How many epochs and folds fit into a time budget, decided once, before anything is trained.

In go what an epoch of each model takes on this machine, measured, and the seconds that there are; out comes one number
of epochs for all folds, and the folds to leave out. The one idea: a schedule that decays to zero must know its end, and
folds can be averaged and compared only where all had the same one; so time is saved on epochs first, down to a half,
then on folds, and never in the middle of a fold.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kit.config import RunConfig
from kit.training.fit import FoldJob

SAFETY = 0.8  # of the time is planned with: a shared machine may slow down
OVERHEAD = 1.15  # val curve, checkpoints, drawing of the augmentation
PREDICTING = 0.3  # epochs' worth of predicting val, test and extra rows, for each test-time view
FEWEST = 0.5  # of a recipe's epochs: with less, another fold is worth less than longer training
STEPS = 8  # of a measurement


@dataclass(frozen=True)
class Schedule:
    """`epochs`: None where all that was asked for fit; `left_out`: keys of jobs that do not."""

    epochs: int | None
    left_out: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        return {"epochs": self.epochs, "left_out": list(self.left_out)}


def plan(jobs: Sequence[FoldJob], pace: dict[str, float], seconds: float, lanes: int,
         named: tuple[str, ...]) -> Schedule:
    """The schedule of `jobs` at `pace` (seconds per epoch of each model), `lanes` of them at a time.

    `named`: the models whose epochs may be cut (the baseline's may not).
    """
    have = seconds * SAFETY * lanes
    ours = [job for job in jobs if job.model in named]
    have -= sum(_cost(job, job.epochs, pace) for job in jobs if job.model not in named)
    full = sum(_cost(job, job.epochs, pace) for job in ours)
    if full <= have:
        return Schedule(None, ())
    most = min(job.epochs for job in ours)
    fewest = max(1, round(most * FEWEST))
    for epochs in range(most, fewest - 1, -1):
        if sum(_cost(job, epochs, pace) for job in ours) <= have:
            return Schedule(epochs, ())
    kept: list[FoldJob] = []
    for job in sorted(ours, key=lambda job: (job.seed, job.fold)):  # a fold of each model before the next fold
        cost = _cost(job, fewest, pace)
        if cost <= have:
            have -= cost
            kept.append(job)
    if kept:
        return Schedule(fewest, tuple(job.key for job in ours if job not in kept))
    first = ours[0]
    epochs = max(1, int(have / pace[first.model] / OVERHEAD - PREDICTING * first.tta))
    return Schedule(epochs, tuple(job.key for job in ours[1:]))


def _cost(job: FoldJob, epochs: int, pace: dict[str, float]) -> float:
    """Seconds of one fold."""
    return pace[job.model] * (epochs * OVERHEAD + PREDICTING * job.tta)


def measure(config: RunConfig, job: FoldJob, rows: int) -> float:
    """Seconds that an epoch of `rows` rows takes here for the job's model: a few steps on blank images, timed."""
    import numpy as np

    from kit.data import competition
    from kit.training import fit, models

    recipe = models.get(job.model)
    batch = min(job.batch_size, rows)
    trainer = fit.trainer_for(recipe, config.competition, job.precision, batch)
    images = np.zeros((batch, *competition.get(config.competition).shape, 1), "uint8")
    order = np.tile(np.arange(batch, dtype="int32"), (STEPS, 1))
    transforms = np.zeros((STEPS, 0, 8), "float32")
    if recipe.augment is not None:
        transforms = recipe.augment.draw(job.rng(99), STEPS * batch, trainer.shape).reshape(STEPS, batch, 8)
    arrays = images, np.zeros(batch, "int32"), order, transforms, np.zeros(STEPS, "float32")
    trainer.train(*arrays)  # compiles
    began = time.perf_counter()
    trainer.train(*arrays)
    return (time.perf_counter() - began) / STEPS * (rows / batch)
