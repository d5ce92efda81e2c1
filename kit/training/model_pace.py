"""What five folds of each model take on this machine, as `kit cv` would plan them.

The accuracy of a model on writers harder than all that it has learned from is stated by its recipe;
the seconds depend on the machine. Side by side they say what to train in the time at hand.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from kit.core.config import RunConfig
from kit.core.durations import rounded_duration
from kit.core.progress import Progress
from kit.data.competition import Competition
from kit.data.source import DataFolder
from kit.data.table import Table
from kit.training import executors, models, pace, planning
from kit.training.executors import Executor
from kit.training.jobs import make_jobs

# Kannada-MNIST's training, test and out-of-domain rows
TRAIN_ROWS, TEST_ROWS, EXTRA_ROWS = 60_000, 5_000, 10_240
# Seconds until the training processes are ready, and then for each model to be compiled and timed;
# a run's two models take 13 to 17 s (`timing` of the committed reports)
STARTING, EACH = 5.0, 7.0


class Noise(DataFolder):
    """Random images in place of a competition's files, for which a step takes as long."""

    def train(self) -> Table:
        return _noise(TRAIN_ROWS, self.competition)

    def test(self) -> Table:
        return _noise(TEST_ROWS, self.competition)

    def extra(self) -> Table | None:
        return _noise(EXTRA_ROWS, self.competition) if self.competition.extra else None


@functools.lru_cache(maxsize=3)
def _noise(n: int, competition: Competition) -> Table:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (n, competition.shape[0] * competition.shape[1]), dtype=np.uint8)
    labels = rng.integers(0, competition.n_classes, n, dtype=np.uint8)
    return Table(Path("noise"), pixels, labels, np.arange(n), "", ())


@dataclass(frozen=True)
class Pace:
    """A model's speed on this machine."""

    images_per_second: float  # of all workers together, while training, with the learning curve
    seconds: float  # of its folds with all its epochs and their predicting; without the baseline's


def measure(names: Sequence[str], code: Mapping[str, str], competition: Competition,
            progress: Progress) -> tuple[dict[str, Pace | None], RunConfig, int]:
    """The pace of each model, measured and planned as before a run; None where it was not measured.

    With it come the config that it is measured with, settled, and how many folds train at a time.
    `names`, `code`: as in a RunConfig. It takes some seconds for each model.
    """
    progress.say(f"timing {', '.join(names)} on this machine: about "
                 f"{rounded_duration(STARTING + EACH * len(names))} if nothing else runs on it")
    # As for a run of one model: the number of its folds says how the cores are shared.
    config = RunConfig(competition=competition.slug, models=tuple(names[:1]), code=dict(code))
    config, _, note = executors.settle(config)
    if note:
        progress.say(note)
    data = Noise(Path("noise"), competition)
    paces = dict[str, Pace | None]()
    with Executor(config) as executor:
        n_workers = executor.n_parallel
        for name in names:
            own = replace(config, models=(name,))
            jobs = [job for job in make_jobs(own, config.precision) if job.model == name]
            costs = pace.measure(executor, own, jobs, data, np.inf)
            if costs is None:
                paces[name] = None
                progress.say(f"{name}: not measured, as the training processes did not answer in "
                             "time")
                continue
            n_workers = executor.n_parallel
            speed = n_workers * pace.fold_rows(own, data) / costs[name].epoch
            paces[name] = Pace(speed, planning.seconds_of(jobs, costs, n_workers))
            progress.say(f"{name}: {speed:,.0f} images/s")
    return paces, config, n_workers


def curve(rows: Sequence[Mapping[str, Any]], paces: Mapping[str, Pace | None]
          ) -> list[dict[str, Any]]:
    """The models' rows (see `models.row`) with their paces, the fastest first.

    `better`: the fastest model that is at least as accurate on hard writers and takes no longer;
    None where there is none, or its accuracy is not known.
    """
    unknown = {"images_per_second": None, "seconds": None}
    both = [{**row, **(asdict(found) if (found := paces[row["model"]]) else unknown)}
            for row in rows]
    both.sort(key=lambda row: np.inf if row["seconds"] is None else row["seconds"])
    for i, row in enumerate(both):
        row["better"] = next((faster["model"] for faster in both[:i]
                              if row["hard_accuracy"] and row["seconds"]
                              and (faster["hard_accuracy"] or 0) >= row["hard_accuracy"]), None)
    return both


def lines(rows: Sequence[Mapping[str, Any]], config: RunConfig, n_workers: int) -> list[str]:
    """The curve for a terminal."""
    width = models.name_width(rows)
    head = (f"{'model':<{width}}{'images/s':>14}{'epochs':>8}{f'{config.n_folds} folds':>14}"
            f"{'hard writers*':>15}{'accuracy*':>11}  in this time")
    body = []
    for row in rows:
        speed, takes = ("not measured",) * 2
        if row["seconds"] is not None:
            speed, takes = f"{row['images_per_second']:,.0f}", rounded_duration(row["seconds"])
        judged = f"{row['better']} is better" if row["better"] else \
            "the best" if row["hard_accuracy"] and row["seconds"] else ""
        body.append(f"{row['model']:<{width}}{speed:>14}{row['epochs']:>8}{takes:>14}"
                    f"{models.cell(row['hard_accuracy'], 4):>15}"
                    f"{models.cell(row['accuracy'], 4):>11}  {judged}".rstrip())
    return [head, *body,
            f"measured on this machine: {n_workers} fold{'s' if n_workers > 1 else ''} at a time, "
            f"{config.precision}, {TRAIN_ROWS:,} rows; a run also trains the baseline, "
            f"{models.BASELINE}", *models.FOOTNOTES]
