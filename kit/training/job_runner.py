"""Train one job in whichever process it was given to: second try, deadline, events.

The executors and the Ray cluster both build on this, so that a fold is treated the same wherever it
is trained.
"""

import time
from dataclasses import replace
from typing import Any

from kit.core.errors import KitError
from kit.core.progress import Progress
from kit.training import checkpoints, fit, memory
from kit.training.jobs import EventCallback, FoldData, FoldJob, Plan, fold_data
from kit.training.own_models import recipe_of


class OutOfTime(Exception):
    """The time budget ended while a fold was training; its checkpoint stays."""


class Clock:
    """Keeps a deadline: begins no job that would end after it, and stops one that runs past it."""

    def __init__(self, deadline: float | None) -> None:
        """`deadline` of time.time(); None: there is none."""
        self.deadline = deadline
        self.pace: dict[str, float] = {}  # seconds per epoch of each model's slowest finished job

    def has_time_for(self, job: FoldJob) -> bool:
        """Whether the job would end in time, at the pace of the jobs before it."""
        expected = self.pace.get(job.model, 0.0) * job.epochs
        return self.deadline is None or time.time() + expected < self.deadline

    def watch(self, report: EventCallback) -> EventCallback:
        """`report`, which then raises `OutOfTime` at the first training step past the deadline."""
        def watched(event: dict[str, Any]) -> None:
            report(event)
            if self.deadline and event["event"] == "step" and time.time() > self.deadline:
                raise OutOfTime

        return watched


def train_job(plan: Plan, job: FoldJob, clock: Clock, report: EventCallback,
              data: FoldData | None = None) -> dict[str, Any] | None:
    """Train a job; its done.json, or None if the clock's deadline came first.

    A job that diverges is tried once more, with other random numbers, and one for which memory is
    short with half the batch; its done.json says so. KitError where it then diverges again, or
    where no batch is small enough. data: the job's arrays, where this machine cannot read
    them from the plan's folders.
    """
    if not clock.has_time_for(job):
        return None
    recipe, data = recipe_of(plan.config, job.model), data or fold_data(plan, job)
    recipe = recipe.self_training() if job.guesses else recipe
    folder, start = plan.folder(job), plan.folder(job.previous_round)
    n_rows = len(data.train_rows)
    job = memory.fitting(checkpoints.resumed_job(job, folder / "checkpoint.npz"), n_rows)
    while True:
        if job.asked_batch_size:
            note = memory.batch_note(job.batch_size, job.asked_batch_size)
            report({"event": "say", "once": True, "text": f"{job.model}: {note}; the learning rate "
                    f"is {job.rate_factor:.2f} of the recipe's"})
        try:
            done = fit.train_fold(job, recipe, plan.data.competition, data, folder,
                                  clock.watch(report), start)
            break
        except OutOfTime:
            return None
        except fit.Diverged as error:
            if job.attempt:
                raise KitError(f"{error}, for the second time",
                               "lower the learning rate or use --precision float32") from error
            report({"event": "say",
                    "text": f"{error}: trying once more with other random numbers"})
            job = replace(job, attempt=1, why=str(error))
        except Exception as error:  # TensorFlow, JAX and Python each have their own
            if not memory.is_short(error):
                raise
            job = memory.halve(job, n_rows, error)
    report(done_event(job, done))
    seconds = done["train_seconds"] + done["predict_seconds"]  # also those before an interruption
    clock.pace[job.model] = max(seconds / job.epochs, clock.pace.get(job.model, 0.0))
    return done


def done_event(job: FoldJob, done: dict[str, Any]) -> dict[str, Any]:
    """The event of a finished job. done: its done.json."""
    return {"event": "done", "job": job.key, "val_accuracy": done["val_accuracy"],
            "seconds": done["train_seconds"]}


def events_to(progress: Progress, said: set[str] | None = None) -> EventCallback:
    """A callback that shows the events of jobs on `progress`.

    said: what several jobs may say, but need not be read twice (events with `once`), so far.
    """
    said = set() if said is None else said

    def report(event: dict[str, Any]) -> None:
        if event["event"] == "say":
            if event["text"] not in said:
                progress.say(event["text"])
            if event.get("once"):
                said.add(event["text"])
        elif event["event"] == "epoch":
            progress.on_epoch_end(event)
        else:
            progress.handle(event)

    return report
