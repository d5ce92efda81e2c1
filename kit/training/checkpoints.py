"""Checkpoints of a fold in training, from which the same job continues to bit-identical results.

A checkpoint is written after each epoch and every `INTERVAL_SECONDS` within one, but less often
where writing would take more than `MAX_TIME_SHARE` of the time.
"""

import contextlib
import json
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from kit.core import storage
from kit.training import records
from kit.training.jobs import FoldJob
from kit.training.trainer import Trainer

INTERVAL_SECONDS = 60.0  # between two within an epoch
MAX_TIME_SHARE = 0.02  # of the training time
N_SUMS = 4


@dataclass
class TrainingState:
    """How far a fold has come: what a checkpoint holds beside the variables."""

    step: int  # of all epochs
    seconds: float  # spent on training so far, checkpoints and learning curve included
    history: list[dict[str, float]]
    sums: list[float]  # of the current epoch: steps, loss × steps, accuracy × steps, seconds


class CheckpointWriter:
    """Writes `checkpoint.npz` when one is due and costs at most `MAX_TIME_SHARE` of the time."""

    def __init__(self, path: Path) -> None:
        self.path, self.last, self.cost = path, time.perf_counter(), 0.0

    def write_if_due(self, trainer: Trainer, job: FoldJob, state: TrainingState,
                     interval: float) -> None:
        """Write if `interval` seconds have passed since the last one, and enough to pay for it."""
        now = time.perf_counter()
        if now - self.last < max(interval, self.cost / MAX_TIME_SHARE):
            return
        arrays = {f"v{i}": value for i, value in enumerate(trainer.snapshot())}
        about = json.dumps({"job": asdict(job), "course": asdict(state)})
        storage.write_npz(self.path, compress=False, about=np.array(about), **arrays)
        self.last = time.perf_counter()
        self.cost = self.last - now
        state.seconds += self.cost


def resumed_job(job: FoldJob, path: Path) -> FoldJob:
    """The job as the checkpoint at `path` was trained: with a smaller batch, if memory was short.

    Else, or without a checkpoint of this job, the job itself. KitError where it is damaged.
    """
    if not path.is_file():
        return job
    about = storage.read_npz(path, "about")["about"]
    with contextlib.suppress(ValueError, KeyError, TypeError):  # `load` says what is wrong with it
        begun = FoldJob(**json.loads(str(about))["job"])
        if begun.asked_batch_size and job == replace(
                begun, batch_size=job.batch_size, asked_batch_size=job.asked_batch_size):
            return begun
    return job


def load(trainer: Trainer, job: FoldJob, path: Path, start: Path) -> TrainingState:
    """Restore the trainer from this job's checkpoint at `path`, else reset it for the first step.

    start: the fold folder whose model a round of self-training begins with. KitError where the
    checkpoint is damaged, or another version of the kit wrote it.
    """
    if path.is_file():
        arrays = storage.read_npz(path, "about")
        try:
            about = json.loads(str(arrays.pop("about")))
            if about["job"] == asdict(job) and len(arrays) == len(trainer.variables):
                trainer.restore([arrays[f"v{i}"] for i in range(len(arrays))])
                return TrainingState(**about["course"])
        except (ValueError, KeyError, TypeError) as error:
            raise storage.damaged(path, "it is no checkpoint of this model") from error
    trainer.reset(job)
    if job.guesses:
        records.load_weights(trainer.model, start / "model.keras")
    return TrainingState(step=0, seconds=0.0, history=[], sums=[0.0] * N_SUMS)
