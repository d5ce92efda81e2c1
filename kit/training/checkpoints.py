"""Checkpoints: what a fold has learnt so far, written often enough to lose little, and seldom enough to cost little.

In goes a trainer and how far it has come; out comes `checkpoint.npz`, from which the same job goes on to the same bits,
as if nothing had happened.
"""

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kit.core import storage
from kit.core.config import matches_type
from kit.training import records
from kit.training.jobs import FoldJob

if TYPE_CHECKING:
    from kit.training.fit import Trainer

SECONDS = 60.0  # between two within an epoch; there is one after each epoch, too
SHARE = 0.02  # of the time, at most
N_SUMS = 4


@dataclass
class Course:
    """How far a fold has come: what a checkpoint holds beside the variables."""

    step: int  # of all epochs
    seconds: float  # spent on training so far, checkpoints and curve included
    history: list[dict[str, float]]
    sums: list[float]  # N_SUMS, of the epoch under way: steps, loss × steps, accuracy × steps, seconds

    @classmethod
    def read(cls, stored: dict[str, Any], epochs: int, per_epoch: int) -> "Course":
        """What a checkpoint says. ValueError, TypeError, AttributeError where that is no course of such a training."""
        course = cls(**stored)
        numbers = [course.seconds, *course.sums, *(value for line in course.history for value in line.values())]
        if not matches_type(course.step, int) or not 0 <= course.step <= epochs * per_epoch \
                or len(course.history) != course.step // per_epoch or len(course.sums) != N_SUMS \
                or not all(matches_type(value, float) and 0 <= value < records.MOST for value in numbers) \
                or any(set(line) != set(records.HISTORY) for line in course.history):
            raise ValueError("no course of a training")
        return course


class Keeper:
    """Writes a checkpoint when one is due and when it costs at most `SHARE` of the time."""

    def __init__(self, path: Path) -> None:
        self.path, self.last, self.cost = path, time.perf_counter(), 0.0

    def maybe(self, trainer: "Trainer", job: FoldJob, course: Course, after: float) -> None:
        """Write if `after` seconds have passed since the last one, and enough to pay for it."""
        now = time.perf_counter()
        if now - self.last < max(after, self.cost / SHARE):
            return
        arrays = {f"v{i}": value for i, value in enumerate(trainer.state())}
        about = json.dumps({"job": asdict(job), "course": asdict(course)})
        storage.write_npz(self.path, compress=False, about=np.array(about), **arrays)
        self.last = time.perf_counter()
        self.cost = self.last - now
        course.seconds += self.cost


def load(trainer: "Trainer", job: FoldJob, per_epoch: int, path: Path, start: Path) -> Course:
    """Continue where the checkpoint of this very job left off, or start. KitError where it is damaged."""
    if path.is_file():
        arrays = storage.read_npz(path, "about")
        try:
            about = json.loads(str(arrays.pop("about")))
            if about["job"] == asdict(job) and len(arrays) == len(trainer.variables):
                trainer.restore([arrays[f"v{i}"] for i in range(len(arrays))])
                return Course.read(about["course"], job.epochs, per_epoch)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise storage.damaged(path, "it is no checkpoint of this model") from error
    trainer.reset(job)
    if job.guesses:
        records.load_weights(trainer.model, start / "model.keras")
    return Course(step=0, seconds=0.0, history=[], sums=[0.0] * N_SUMS)
