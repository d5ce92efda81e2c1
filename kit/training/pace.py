"""How long a fold of each model takes on this machine, measured before the run's own training.

Some steps of each model are timed by the very processes that will train, all of them at once. What
they have compiled for it then serves the training, too.
"""

import functools
import time
from collections.abc import Sequence
from dataclasses import astuple, dataclass

import numpy as np

from kit.core import backend
from kit.core.config import RunConfig
from kit.data.source import DataFolder
from kit.training import fit, memory, models, predict
from kit.training.executors import Executor
from kit.training.jobs import GUESSES_TIMES, FoldJob, extra_learned, extra_predicted
from kit.training.own_models import recipe_of
from kit.training.trainer import trainer_for
from kit.training.workers import WaitForOthers

MEASURING = 3.0  # seconds of timed steps of each model, at most
MEASURING_SHARE = 0.1  # of a fold's own training, at most: a quick look must stay quick
# Seconds until workers must have started, and for each model, to compile and to be timed
PATIENCE = 60.0, 60.0
MARGIN_EPOCH = 1.02  # checkpoints and the display (docs/benchmarks.md)
SAVING = 0.5  # seconds of a fold's end: its model and its files
# A recipe's stated cost on a CPU, in float32 instead of bfloat16 (docs/benchmarks.md)
FLOAT32_TIMES = 3.5


@dataclass(frozen=True)
class Cost:
    """Seconds that a worker needs for one fold of a model, with all other workers busy, too."""

    epoch: float  # each epoch
    rest: float  # beside its epochs: predicting the val, test and extra rows, and saving
    round: float = 0.0  # a round of self-training

    def of(self, epochs: int) -> float:
        return self.epoch * epochs + self.rest


def measure(executor: Executor, config: RunConfig, jobs: Sequence[FoldJob], data: DataFolder,
            patience: float) -> dict[str, Cost] | None:
    """What a fold of each model costs here; None if that is not known in `patience` seconds.

    Below zero there was no time left, and no process is started for it. `config` is settled: with
    the precision, the executor and the threads of the training.
    """
    if patience <= 0:
        return None
    samples = tuple({job.model: job for job in jobs}.values())
    patience = min(patience, PATIENCE[0] + PATIENCE[1] * len(samples))
    results = executor.run_on_all(_measure_here, (config, data, samples), patience)
    if not results:
        return None
    costs = {job.model: [astuple(result[job.model]) for result in results] for job in samples}
    return {model: Cost(*np.mean(measured, axis=0).tolist()) for model, measured in costs.items()}


def _measure_here(config: RunConfig, data: DataFolder, jobs: Sequence[FoldJob],
                  wait_for_others: WaitForOthers) -> dict[str, Cost]:
    """In a process that will train: the costs of the jobs' models.

    Where memory is short, with the batch that fits, as the process will train then.
    """
    costs: dict[str, Cost] = {}
    for job in jobs:
        wait_once = functools.cache(wait_for_others)  # the others wait for a model once, too
        while job.model not in costs:
            try:
                costs[job.model] = _measure_model(config, data, job, wait_once)
            except Exception as error:  # each library has its own
                if not memory.is_short(error):
                    raise
                job = memory.halve(job, fold_rows(config, data), error)
    return costs


def _measure_model(config: RunConfig, data: DataFolder, job: FoldJob,
                   wait_for_others: WaitForOthers) -> Cost:
    """Time some steps and some predicting on the run's own rows; the weights are then useless."""
    train, test, asked = data.train(), data.test(), extra_predicted(config, data)
    train_rows = fold_rows(config, data)
    val_rows = _rows_used(config, data) // config.n_folds
    job = memory.fitting(job, train_rows)
    trainer = trainer_for(recipe_of(config, job.model), data.competition, job.precision,
                          min(job.batch_size, train_rows))
    per_epoch = train_rows // trainer.batch_size
    images = fit.on_device(train.pixels, trainer.shape)
    labels = np.asarray(train.labels).astype("int32")
    trainer.reset(job)

    def steps(n: int) -> float:
        """Seconds of n steps."""
        began = time.perf_counter()
        rows = np.resize(np.arange(len(train)), train_rows)
        order, transforms = fit.draw_epoch(trainer, job, rows, 0, n)
        trainer.seed_dropout(job, 0)
        trainer.train(images, labels, order, transforms, np.zeros(n, "float32"))
        return time.perf_counter() - began

    def predicting(n_views: int) -> float:
        """Seconds of predicting one batch of images with `n_views` views of each."""
        began = time.perf_counter()
        predict.predict_probs(trainer, train.pixels[:predict.BATCH], n_views)
        return time.perf_counter() - began

    # A compiled scan has its length in it, so there it must be that of the training; elsewhere it
    # is short.
    chunk = len(fit.chunks(0, per_epoch, trainer.batch_size)[0])
    size = chunk if backend.compiles_per_step_count() else 1
    steps(size), predicting(1), predicting(job.tta)  # compile
    wait_for_others()
    one = steps(size) / size
    enough = min(MEASURING, MEASURING_SHARE * one * per_epoch * job.epochs)
    if not backend.compiles_per_step_count():
        size = min(chunk, max(1, int(enough / 3 / max(one, 1e-6))))
    n, began = 0, time.perf_counter()
    while n == 0 or time.perf_counter() - began < enough:
        steps(size)
        n += size
    step = (time.perf_counter() - began) / n
    plain, viewed = (np.median([predicting(views) for _ in range(2)]) for views in (1, job.tta))

    def batches(n: int) -> int:
        return -(-n // predict.BATCH)

    epoch = MARGIN_EPOCH * per_epoch * step + batches(min(val_rows, fit.CURVE_ROWS)) * plain
    looking = sum(map(batches, (val_rows, len(test), len(asked or ())))) * viewed
    # The curve's last point is of all val rows.
    rest = looking + batches(max(0, val_rows - fit.CURVE_ROWS)) * plain + SAVING
    times = (train_rows + GUESSES_TIMES * len(test)) / max(1, train_rows)
    return Cost(float(epoch), float(rest), float(times * epoch * models.GUESSES_EPOCHS + rest))


def _rows_used(config: RunConfig, data: DataFolder) -> int:
    """How many rows of the training file a run takes."""
    rows = len(data.train())
    return rows if config.limit is None else min(rows, config.limit * data.competition.n_classes)


def fold_rows(config: RunConfig, data: DataFolder) -> int:
    """How many rows a fold of a run trains on."""
    rows = _rows_used(config, data)
    return rows - rows // config.n_folds + len(extra_learned(config, data) or ())


def stated_costs(config: RunConfig, jobs: Sequence[FoldJob], data: DataFolder,
                 n_workers: int) -> dict[str, Cost]:
    """The costs by what the recipes state, for where this machine could not be measured."""
    rows = _rows_used(config, data)
    times = FLOAT32_TIMES if config.precision == "float32" and not backend.gpus() else 1.0
    costs = {}
    for job in jobs:
        # Seconds an image
        each = recipe_of(config, job.model).cost / 60_000 * min(n_workers, 2) * times
        epoch = each * fold_rows(config, data)
        # Forward alone: a third of a step
        rest = each / 3 * job.tta * (rows / config.n_folds + len(data.test()))
        costs[job.model] = Cost(epoch, rest, epoch * models.GUESSES_EPOCHS + rest)
    return costs
