"""Plan how many epochs and folds fit into the time at hand, before a run's own models are trained.

A learning rate that decays to zero must know its end, and folds can be averaged and compared only
if all had the same schedule. So time is saved on epochs first, by a common share of each model's
own, then (under a time budget) on rounds of self-training, which need all folds, then on whole
folds, and never in the middle of a fold. What a fold costs is measured by `kit.training.pace`.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from kit.core import storage
from kit.core.config import RunConfig
from kit.core.durations import rounded_duration
from kit.core.errors import KitError
from kit.core.progress import Progress, makespan
from kit.core.run_folder import finished_folds
from kit.data.source import DataFolder
from kit.training import executors, fit, pace
from kit.training.executors import DoneFolds, Executor
from kit.training.jobs import GUESSES_TIMES, FoldJob, Plan, make_jobs
from kit.training.pace import Cost
from kit.training.settings import SETTINGS, Setting

SCHEDULE = "schedule.json"
MARGIN = 0.94  # of the time that a setting promises: the pace of a minute is not that of an hour
SAFETY = 0.85  # of a time budget: past its end, what is not done is lost
# Of a model's epochs where no least is stated: with less, another fold is worth less than longer
# training
FEWEST = 0.5
PATIENCE_SHARE = 0.15  # of a time budget, for measuring the pace, at most
CLOSING = 4.0  # seconds from the last fold to the end of the command: blend, report, submission


@dataclass(frozen=True)
class TimeTarget:
    """How long a run may take, by its time budget or its setting, and what is known to plan it."""

    setting: Setting | None = None
    named: bool = False  # the setting is the user's choice: where it does not fit, it is refused
    keep_epochs: bool = False  # the epochs are the user's choice
    began: float | None = None  # of time.time: when the command began; None: now
    deadline: float | None = None  # of time.time: where a time budget ends
    costs: Mapping[str, Cost] = field(default_factory=dict)  # of models that have been measured
    given: Mapping[str, Any] = field(default_factory=dict)  # options that go before any setting's

    @property
    def minutes(self) -> float | None:
        """That the setting promises for the whole command."""
        return self.setting.minutes if self.setting else None

    @property
    def elapsed(self) -> float:
        """Seconds since the command began."""
        return time.time() - self.began if self.began else 0.0

    @property
    def patience(self) -> float:
        """Seconds that measuring the pace may take."""
        return np.inf if self.deadline is None else (self.deadline - time.time()) * PATIENCE_SHARE

    @property
    def seconds_left(self) -> float:
        """For training: by the time budget, else by the setting's promise; else without end."""
        if self.deadline is not None:
            return (self.deadline - time.time()) * SAFETY
        if self.minutes is not None:
            return self.minutes * 60 * MARGIN - self.elapsed - CLOSING
        return np.inf


@dataclass(frozen=True)
class Schedule:
    """What is trained: each of the run's own models' epochs, and the keys of the folds left out."""

    epochs: dict[str, int]
    left_out: tuple[str, ...] = ()
    rounds: int = 0  # of self-training, as foreseen; `why_no_round` decides when its time has come
    seconds: float = 0.0  # of all training that is still to be done
    fits: bool = True  # into the time that there is
    predicted: float = 0.0  # seconds of the whole command, as they were said before it trained
    costs: Mapping[str, Cost] = field(default_factory=dict)  # by which it was planned, if by any

    def apply(self, jobs: Sequence[FoldJob]) -> tuple[FoldJob, ...]:
        """The jobs with their epochs as planned."""
        return tuple(replace(job, epochs=self.epochs.get(job.model, job.epochs)) for job in jobs)


def seconds_of(jobs: Sequence[FoldJob], costs: Mapping[str, Cost], n_workers: int,
               rounds: Sequence[str] = (), n_rounds: int = 0,
               trained: Sequence[FoldJob] = ()) -> float:
    """Seconds of wall time of `jobs`, each begun by the next of `n_workers` workers that is free.

    `n_rounds` of self-training follow for the models named in `rounds`, in which the jobs that were
    `trained` before take part; a round begins when the one before has ended.
    """
    again = [costs[job.model].round for job in [*jobs, *trained] if job.model in rounds]
    first = [costs[job.model].of(job.epochs) for job in jobs]
    return makespan(first, n_workers) + n_rounds * makespan(again, n_workers)


def plan(jobs: Sequence[FoldJob], costs: Mapping[str, Cost], seconds: float, n_workers: int,
         named: Sequence[str], *, least: Mapping[str, int] | None = None, keep_epochs: bool = False,
         may_leave_out: bool = True, n_rounds: int = 0,
         trained: Sequence[FoldJob] = ()) -> Schedule:
    """The schedule of `jobs` that takes at most `seconds` on `n_workers` workers.

    `named`: the run's own models; the baseline's epochs are never cut. `least`: their fewest
    epochs, by default a half. `n_rounds`: of self-training, which follow, also of the jobs that
    were `trained` before. Where even those epochs do not fit, rounds, then folds are left out if
    they may be; else the schedule says that it does not fit.
    """
    full = {job.model: job.epochs for job in jobs if job.model in named}
    fewest = {model: min(epochs, (least or {}).get(model, max(1, round(epochs * FEWEST))))
              for model, epochs in full.items()}

    def schedule(epochs: dict[str, int], kept: Sequence[FoldJob], rounds: int = 0,
                 fits: bool = True) -> Schedule:
        planned = Schedule(epochs, tuple(job.key for job in jobs if job not in kept), rounds)
        needed = seconds_of(planned.apply(kept), costs, n_workers, named, rounds, trained)
        return replace(planned, seconds=needed, fits=fits)

    # Fewer epochs, by a common share; then fewer rounds
    most = max(full.values(), default=0)
    shares = range(most, 0, -1) if most and not keep_epochs else (most,)
    for rounds in range(n_rounds, -1 if may_leave_out else n_rounds - 1, -1):
        for share in shares:
            epochs = {model: max(fewest[model], own * share // most) for model, own in full.items()}
            planned = schedule(full if keep_epochs else epochs, jobs, rounds)
            if planned.seconds <= seconds:
                return planned
            if epochs == fewest:
                break
    epochs = full if keep_epochs else fewest
    if not may_leave_out:
        return schedule(epochs, jobs, n_rounds, fits=False)

    # Fewer folds: a fold of each model before the next fold
    ours = [job for job in jobs if job.model in named]
    kept: list[FoldJob] = [job for job in jobs if job.model not in named]
    for job in sorted(ours, key=lambda job: (job.seed, job.fold)):
        more = [other for other in jobs if other in kept or other == job]
        if schedule(epochs, more).seconds <= seconds:
            kept = more
    if any(job in kept for job in ours) or not ours:
        return schedule(epochs, kept)

    # Not even one: then that one, with the epochs for which there is time
    first, cost = ours[0], costs[ours[0].model]
    left = seconds - schedule(epochs, kept).seconds
    if not keep_epochs:
        affordable = max(1, int((left - cost.rest) / cost.epoch))
        epochs = epochs | {first.model: min(fewest[first.model], affordable)}
    kept = [job for job in jobs if job in kept or job == first]
    return schedule(epochs, kept, fits=schedule(epochs, kept).seconds <= seconds)


# -- the plan of a run -----------------------------------------------------------------------------


def choose_setting(configs: Mapping[Setting, RunConfig], data: DataFolder, time_target: TimeTarget,
                   why: str) -> tuple[Setting, TimeTarget, str]:
    """The first setting of which all fits into the time on this machine, or the last one.

    The time is the budget, or where there is none, what each setting promises. With the setting
    come the time target, which then holds what was measured, and the reason for the choice.
    `configs`: the settings, the best first, each with the config that a run would have.
    """
    *better, last = configs
    for setting in better:
        config, *_ = executors.settle(configs[setting])
        jobs = make_jobs(config, config.precision)
        with Executor(config) as executor:
            measured = None if executor.kind == "ray" else \
                pace.measure(executor, config, jobs, data, time_target.patience)
            time_target = replace(time_target, costs={**time_target.costs, **(measured or {})})
            costs = {**pace.stated_costs(config, jobs, data, executor.n_parallel),
                     **time_target.costs}
            planned = fit_to_time(jobs, costs, executor.n_parallel, config,
                                  replace(time_target, setting=setting))
        full = {job.model: job.epochs for job in jobs}
        names = " and ".join(f"{epochs} of {full[model]} epochs of {model}"
                             for model, epochs in planned.epochs.items())
        limit = "the time budget" if time_target.deadline else f"its {setting.minutes:g} minutes"
        if planned.fits and not planned.left_out and planned.rounds == config.self_train:
            return setting, time_target, f"since {names} fit into {limit} here"
        why = f"since all of {setting.name} does not fit into the time budget here" \
            if time_target.deadline else \
            f"since {names} take {rounded_duration(planned.seconds)} here"
    return last, time_target, why


def decide(executor: Executor, config: RunConfig, jobs: Sequence[FoldJob], data: DataFolder,
           time_target: TimeTarget, progress: Progress, measured: bool = True) -> Schedule:
    """Plan `jobs`, and say in one line what is trained and until when.

    `config` is settled. `measured`: False where this machine's pace must not be measured (again).
    KitError where a setting that the user has named cannot keep its promised time.
    """
    if executor.kind == "ray":
        said = what_is_trained(config, jobs, jobs, config.self_train)
        progress.say(f"{said}: nobody knows how long, since a cluster's pace is not measured")
        return Schedule({job.model: job.epochs for job in jobs if job.model in config.models},
                        rounds=config.self_train)
    costs, deadline = dict(time_target.costs), time_target.deadline
    unknown = [job for job in jobs if job.model not in costs]
    if unknown and measured:
        found = pace.measure(executor, config, unknown, data, time_target.patience)
        if found is None:
            progress.say("this machine's pace could not be measured in time: planned by what the "
                         "recipes state")
        costs |= found or {}
    if any(job.model not in costs for job in jobs):
        costs = pace.stated_costs(config, jobs, data, executor.n_parallel) | costs
    schedule = fit_to_time(jobs, costs, executor.n_parallel, config, time_target)
    if not schedule.fits and deadline is None and time_target.named and not time_target.keep_epochs:
        raise _refusal(executor, config, jobs, data, time_target, schedule)
    kept = [job for job in schedule.apply(jobs) if job.key not in schedule.left_out]
    said = what_is_trained(config, jobs, kept, schedule.rounds)
    return _announce(progress, said, schedule, time_target)


def resume(executor: Executor, plan: Plan, time_target: TimeTarget, progress: Progress,
           measured: bool) -> Schedule:
    """The schedule of a run that has begun: its epochs, and its folds that fit the time budget.

    A run that has not been planned, or that has not begun any fold within its time budget, is
    planned now (see `decide`).
    """
    path, config, done = plan.run / SCHEDULE, plan.config, finished_folds(plan.run)
    deadline = time_target.deadline
    todo: Sequence[FoldJob] = [job for job in plan.jobs if job.key not in done]
    begun = any(plan.folder(job).is_dir() for job in plan.jobs)
    if not path.is_file() or not (deadline is None or begun):
        schedule = decide(executor, config, todo, plan.data, time_target, progress, measured)
        save(path, schedule)
        return schedule
    stored = load(path, config.models)
    trained = [job for job in plan.jobs if job.key in done and job.model in config.models]
    if any(job.model not in stored.costs for job in [*todo, *trained]):  # they were never measured
        return replace(stored, left_out=())
    todo, rest_of_time = stored.apply(todo), TimeTarget(keep_epochs=True, deadline=deadline)
    rest = fit_to_time(todo, stored.costs, executor.n_parallel, config, rest_of_time, trained)
    if todo:
        kept = [job for job in todo if job.key not in rest.left_out]
        said = what_is_trained(config, todo, kept, rest.rounds)
        _announce(progress, f"still to do: {said}", rest, rest_of_time)
    return replace(stored, left_out=rest.left_out, rounds=rest.rounds)


def why_no_round(executor: Executor, plan: Plan, done: DoneFolds,
                 deadline: float | None) -> str:
    """Why the round of self-training whose jobs are `plan.jobs` must not begin, or empty.

    It begins if what is left of it fits into the time, by the pace of the same folds before it.
    done: the done.json of all folds and earlier rounds, by key.
    """
    todo = [job for job in plan.jobs if not fit.is_done(plan.folder(job))]
    if not todo or deadline is None or executor.kind == "ray":  # whose nodes are not known
        return ""
    seconds = seconds_of_round(todo, done, len(plan.data.test()), executor.n_parallel)
    if seconds <= TimeTarget(deadline=deadline).seconds_left:
        return ""
    left = max(0.0, deadline - time.time())
    return f"it would take about {rounded_duration(seconds)}, and {left:.0f} s are left"


def seconds_of_round(jobs: Sequence[FoldJob], done: DoneFolds, n_test: int,
                     n_workers: int) -> float:
    """Seconds of wall time of a round's `jobs`, by what the same folds took before it.

    done: the done.json of all folds and earlier rounds, by key. n_test: the test file's rows.
    """
    seconds = []
    for job in jobs:
        before = done[job.previous_round.key]
        rows = before["train_rows"] + (GUESSES_TIMES * n_test if job.guesses == 1 else 0)
        each = before["train_seconds"] / (before["job"]["epochs"] * before["train_rows"])
        seconds.append(each * rows * job.epochs + before["predict_seconds"])
    return makespan(seconds, n_workers)


def _announce(progress: Progress, what: str, schedule: Schedule,
              time_target: TimeTarget) -> Schedule:
    """Say what is trained and until when; the schedule with the seconds that this promises."""
    ends = time.time() + schedule.seconds + CLOSING
    total = time_target.elapsed + schedule.seconds + CLOSING
    longer = "" if schedule.fits or time_target.deadline else \
        f", more than the {time_target.minutes:g} min that it should take"
    progress.say(f"{what}: about {rounded_duration(total)}{longer} (until "
                 f"{time.strftime('%H:%M', time.localtime(ends))})")
    return replace(schedule, predicted=round(total, 1))


def fit_to_time(jobs: Sequence[FoldJob], costs: Mapping[str, Cost], n_workers: int,
                config: RunConfig, time_target: TimeTarget,
                trained: Sequence[FoldJob] = ()) -> Schedule:
    """The schedule of `jobs` that fits `time_target`; only a time budget leaves folds out.

    trained: jobs that were trained before, which take part in self-training.
    """
    least = time_target.setting.least_epochs if time_target.setting else None
    schedule = plan(jobs, costs, time_target.seconds_left, n_workers, config.models, least=least,
                    keep_epochs=time_target.keep_epochs,
                    may_leave_out=time_target.deadline is not None, n_rounds=config.self_train,
                    trained=trained)
    return replace(schedule, costs=costs)


def _refusal(executor: Executor, config: RunConfig, jobs: Sequence[FoldJob], data: DataFolder,
             time_target: TimeTarget, least: Schedule) -> KitError:
    """The error that says how long the named setting would take here, and what would fit."""
    assert time_target.setting is not None and time_target.minutes is not None

    def takes(seconds: float) -> str:
        return f"about {rounded_duration(seconds + CLOSING + time_target.elapsed)}"

    # Another setting that keeps its promise here
    ways = []
    for other in SETTINGS.values():
        if other.minutes is None or other is time_target.setting:
            continue
        theirs = replace(config, **{name: time_target.given.get(name, value)
                                    for name, value in other.options().items()})
        other_jobs = make_jobs(theirs, config.precision)
        unknown = [job for job in other_jobs if job.model not in least.costs]
        costs = {**least.costs, **(pace.measure(executor, theirs, unknown, data, np.inf) or {})}
        if all(job.model in costs for job in other_jobs):
            schedule = fit_to_time(other_jobs, costs, executor.n_parallel, theirs,
                                   replace(time_target, setting=other))
            if schedule.fits:
                ways.append(f"choose --setting {other.name} ({takes(schedule.seconds)})")

    # The same models with the most epochs that fit, or without a promise
    epochs = max(least.epochs.values())
    for n in range(epochs - 1, 0, -1):
        fewer = replace(least, epochs=dict.fromkeys(least.epochs, n))
        seconds = seconds_of(fewer.apply(jobs), least.costs, executor.n_parallel, config.models,
                             config.self_train)
        if seconds <= time_target.seconds_left:
            ways.append(f"train shorter with --epochs {n} ({takes(seconds)})")
            break
    ways.append(f"take the time: --epochs {epochs} ({takes(least.seconds)})")
    names = " and ".join(f"{n} epochs of {model}" for model, n in least.epochs.items())
    return KitError(f"{time_target.setting.name} is to end within {time_target.minutes:g} minutes, "
                    f"and its least, {config.n_folds} folds with {names}, would take "
                    f"{takes(least.seconds)} on this machine", ", or ".join(ways))


def what_is_trained(config: RunConfig, jobs: Sequence[FoldJob], kept: Sequence[FoldJob],
                    rounds: int) -> str:
    """`5 folds of strong, 9 of 16 epochs, and the baseline`.

    `kept`: those of the jobs that are trained, with their epochs as planned; `rounds` of
    self-training follow.
    """

    def count(n: int, what: str) -> str:
        return f"{n} {what}{'s' if n > 1 else ''}"

    parts = []
    for model in config.models:
        ours = [job for job in kept if job.model == model]
        if ours:
            folds, seeds = len({job.fold for job in ours}), len({job.seed for job in ours})
            most = max(job.epochs for job in jobs if job.model == model)
            cut = f"{ours[0].epochs} of " if ours[0].epochs < most else ""
            parts.append(f"{count(folds, 'fold')} of {model}"
                         f"{f' from {seeds} seeds' if seeds > 1 else ''}, "
                         f"{cut}{count(most, 'epoch')}")
    if any(job.model not in config.models for job in kept):
        parts.append("and the baseline")
    if config.self_train:
        cut = f"{rounds} of " if rounds < config.self_train else ""
        parts.append(f"then {cut}{count(config.self_train, 'round')} of self-training")
    return ", ".join(parts) or "nothing"


# -- schedule.json ---------------------------------------------------------------------------------


def save(path: Path, schedule: Schedule) -> None:
    """Write what was decided; a run that is resumed reads it instead of deciding again."""
    storage.write_json(path, {
        "epochs": schedule.epochs, "left_out": list(schedule.left_out),
        "predicted_seconds": schedule.predicted,
        "costs": {model: asdict(cost) for model, cost in schedule.costs.items()}})


def load(path: Path, named: Sequence[str]) -> Schedule:
    """What `save` wrote for a run of the models `named`.

    KitError where it is damaged, another run's, or written by another version of the kit.
    """
    stored = storage.read_json(path, "epochs", "left_out", "predicted_seconds", "costs")
    try:
        costs = {model: Cost(**cost) for model, cost in stored["costs"].items()}
    except TypeError as error:
        raise storage.damaged(path, "it is no schedule of a run") from error
    if set(stored["epochs"]) != set(named):
        raise storage.damaged(path, "it is no schedule of this run")
    return Schedule(stored["epochs"], tuple(stored["left_out"]),
                    predicted=stored["predicted_seconds"], costs=costs)
