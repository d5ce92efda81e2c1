"""Plan how many epochs and folds fit into the time at hand, before a run's own models are trained.

A few steps of each model are timed by the very processes that will train, all of them at once; the
time of a whole run follows from that. A learning rate that decays to zero must know its end, and
folds can be averaged and compared only if all had the same schedule. So time is saved on epochs
first, by a common share of each model's own, then (under a time budget) on whole folds, and never
in the middle of a fold.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, replace
from pathlib import Path

import numpy as np

from kit.core import backend, storage
from kit.core.config import RunConfig
from kit.core.errors import KitError
from kit.core.progress import Progress, makespan
from kit.data.source import DataFolder
from kit.training import executors, fit, models, predict
from kit.training.executors import Executor
from kit.training.jobs import GUESSES_TIMES, FoldJob, make_jobs
from kit.training.settings import SETTINGS, Setting
from kit.training.trainer import trainer_for
from kit.training.workers import WaitForOthers

SCHEDULE = "schedule.json"
MARGIN = 0.94  # of the time that a setting promises: the pace of a minute is not that of an hour
SAFETY = 0.85  # of a time budget: past its end, what is not done is lost
FEWEST = 0.5  # of a model's epochs where no least is stated: with less, another fold is worth less than longer training
MEASURING = 3.0  # seconds of timed steps of each model, at most
MEASURING_SHARE = 0.1  # of a fold's own training, at most: a quick look must stay quick
PATIENCE = 60.0, 60.0  # seconds until workers must have started, and for each model, to compile and to be timed
PATIENCE_SHARE = 0.15  # of a time budget, at most
MARGIN_EPOCH = 1.02  # checkpoints and the display (docs/benchmarks.md)
SAVING = 0.5  # seconds of a fold's end: its model and its files
CLOSING = 4.0  # seconds from the last fold to the end of the command: blend, report, submission
FLOAT32_TIMES = 3.5  # a recipe's stated cost on a CPU, in float32 instead of bfloat16 (docs/benchmarks.md)


@dataclass(frozen=True)
class Cost:
    """Seconds that a worker needs for one fold of a model, with all other workers busy, too."""

    epoch: float  # each epoch
    rest: float  # beside its epochs: predicting the val, test and extra rows, and saving
    round: float = 0.0  # a round of self-training

    def of(self, epochs: int) -> float:
        return self.epoch * epochs + self.rest


@dataclass(frozen=True)
class TimeTarget:
    """How long a run may take by its setting, and what is already known for planning it."""

    setting: Setting | None = None
    minutes: float | None = None  # that the setting promises for the whole command
    named: bool = False  # the setting is the user's choice: where it does not fit, it is refused
    keep_epochs: bool = False  # the epochs are the user's choice
    began: float | None = None  # of time.time: when the command began; None: now
    costs: Mapping[str, Cost] | None = None  # of models that have been measured already


@dataclass(frozen=True)
class Schedule:
    """What is trained: the epochs of each of the run's own models, and the keys of the folds that are left out."""

    epochs: dict[str, int]
    left_out: tuple[str, ...] = ()
    seconds: float = 0.0  # of all training that is still to be done
    fits: bool = True  # into the time that there is
    predicted: float = 0.0  # seconds of the whole command, as they were said before it trained

    def apply(self, jobs: Sequence[FoldJob]) -> tuple[FoldJob, ...]:
        """The jobs with their epochs as planned."""
        return tuple(replace(job, epochs=self.epochs.get(job.model, job.epochs)) for job in jobs)


def seconds_of(jobs: Sequence[FoldJob], costs: Mapping[str, Cost], n_workers: int,
               rounds: Sequence[str] = (), n_rounds: int = 0) -> float:
    """Seconds of wall time of `jobs`, each begun by the next of `n_workers` workers that is free.

    `n_rounds` of self-training follow for the models named in `rounds`; a round begins when the one before has ended.
    """
    again = [costs[job.model].round for job in jobs if job.model in rounds]
    first = [costs[job.model].of(job.epochs) for job in jobs]
    return makespan(first, n_workers) + n_rounds * makespan(again, n_workers)


def plan(jobs: Sequence[FoldJob], costs: Mapping[str, Cost], seconds: float, n_workers: int,
         named: Sequence[str], *, least: Mapping[str, int] | None = None, keep_epochs: bool = False,
         may_leave_out: bool = True, n_rounds: int = 0) -> Schedule:
    """The schedule of `jobs` that takes at most `seconds` on `n_workers` workers.

    `named`: the run's own models; the baseline's epochs are never cut. `least`: their fewest epochs, by default a half.
    Where even those do not fit, folds are left out if they may be; else the schedule says that it does not fit.
    """
    full = {job.model: job.epochs for job in jobs if job.model in named}
    fewest = {model: min(epochs, (least or {}).get(model, max(1, round(epochs * FEWEST))))
              for model, epochs in full.items()}

    def schedule(epochs: dict[str, int], kept: Sequence[FoldJob], fits: bool = True) -> Schedule:
        planned = Schedule(epochs, tuple(job.key for job in jobs if job not in kept))
        needed = seconds_of(planned.apply(kept), costs, n_workers, named, n_rounds)
        return replace(planned, seconds=needed, fits=fits)

    most = max(full.values(), default=0)
    shares = range(most, 0, -1) if most and not keep_epochs else (most,)
    for share in shares:
        epochs = {model: max(fewest[model], own * share // most) for model, own in full.items()}
        planned = schedule(full if keep_epochs else epochs, jobs)
        if planned.seconds <= seconds:
            return planned
        if epochs == fewest:
            break
    epochs = full if keep_epochs else fewest
    if not may_leave_out:
        return schedule(epochs, jobs, fits=False)
    ours = [job for job in jobs if job.model in named]
    kept: list[FoldJob] = [job for job in jobs if job.model not in named]
    for job in sorted(ours, key=lambda job: (job.seed, job.fold)):  # a fold of each model before the next fold
        more = [other for other in jobs if other in kept or other == job]
        if schedule(epochs, more).seconds <= seconds:
            kept = more
    if any(job in kept for job in ours) or not ours:
        return schedule(epochs, kept)
    first, cost = ours[0], costs[ours[0].model]
    left = seconds - schedule(epochs, kept).seconds
    if not keep_epochs:
        epochs = epochs | {first.model: min(fewest[first.model], max(1, int((left - cost.rest) / cost.epoch)))}
    kept = [job for job in jobs if job in kept or job == first]
    return schedule(epochs, kept, fits=schedule(epochs, kept).seconds <= seconds)


# -- the pace of this machine ---------------------------------------------------------------------------------------


def measure(executor: Executor, config: RunConfig, jobs: Sequence[FoldJob],
            data: DataFolder, progress: Progress, patience: float) -> dict[str, Cost] | None:
    """What a fold of each model costs here; None if that is not known in `patience` seconds.

    `config` is settled: with the precision, the executor and the threads of the training.
    """
    samples = tuple({job.model: job for job in jobs}.values())
    patience = min(patience, PATIENCE[0] + PATIENCE[1] * len(samples))
    results = executor.run_on_all(_measure_here, (config, data, samples), patience)
    if not results:
        return None
    return {job.model: Cost(*np.mean([astuple(result[job.model]) for result in results], axis=0).tolist())
            for job in samples}


def _measure_here(config: RunConfig, data: DataFolder, jobs: Sequence[FoldJob],
                  wait_for_others: WaitForOthers) -> dict[str, Cost]:
    """In a process that will train: the costs of the jobs' models."""
    return {job.model: _measure_model(config, data, job, wait_for_others) for job in jobs}


def _measure_model(config: RunConfig, data: DataFolder, job: FoldJob,
                   wait_for_others: WaitForOthers) -> Cost:
    """Time some steps and some predicting on the run's own rows; the weights are then useless."""
    train, test, extra = data.train(), data.test(), data.extra()
    rows = len(train) if config.limit is None else min(len(train), config.limit * data.competition.n_classes)
    val_rows = rows // config.n_folds
    train_rows = rows - val_rows
    trainer = trainer_for(models.get(job.model), data.competition.slug, job.precision,
                          min(job.batch_size, train_rows))
    per_epoch = train_rows // trainer.batch_size
    chunk = len(fit.chunks(0, per_epoch, trainer.batch_size)[0])
    images, labels = fit.on_device(train.pixels, trainer.shape), np.asarray(train.labels).astype("int32")
    trainer.reset(job)

    def steps(n: int) -> float:
        """Seconds of n steps."""
        began = time.perf_counter()
        order, transforms = fit.draw_epoch(trainer, job, np.arange(train_rows), 0, n)
        trainer.seed_dropout(job, 0)
        trainer.train(images, labels, order, transforms, np.zeros(n, "float32"))
        return time.perf_counter() - began

    def predicting(n_views: int) -> float:
        """Seconds of predicting one batch of images with `n_views` views of each."""
        began = time.perf_counter()
        predict.predict_probs(trainer, train.pixels[:predict.BATCH], n_views)
        return time.perf_counter() - began

    # A compiled scan has its length in it, so there it must be that of the training; elsewhere it is short.
    size = chunk if backend.compiles_per_step_count() else 1
    steps(size), predicting(1), predicting(job.tta)  # compile
    wait_for_others()
    one = steps(size) / size
    enough = min(MEASURING, MEASURING_SHARE * one * per_epoch * job.epochs)
    size = size if backend.compiles_per_step_count() else min(chunk, max(1, int(enough / 3 / max(one, 1e-6))))
    n, began = 0, time.perf_counter()
    while n == 0 or time.perf_counter() - began < enough:
        steps(size)
        n += size
    step = (time.perf_counter() - began) / n
    plain, viewed = (np.median([predicting(views) for _ in range(2)]) for views in (1, job.tta))

    def batches(n: int) -> int:
        return -(-n // predict.BATCH)

    epoch = MARGIN_EPOCH * per_epoch * step + batches(min(val_rows, fit.CURVE_ROWS)) * plain
    looking = sum(map(batches, (val_rows, len(test), len(extra) if extra else 0))) * viewed
    rest = looking + batches(max(0, val_rows - fit.CURVE_ROWS)) * plain + SAVING  # the last point is of all val rows
    again = (train_rows + GUESSES_TIMES * len(test)) / max(1, train_rows) * epoch * models.GUESSES_EPOCHS + rest
    return Cost(float(epoch), float(rest), float(again))


def stated_costs(config: RunConfig, jobs: Sequence[FoldJob], data: DataFolder,
                 n_workers: int) -> dict[str, Cost]:
    """The costs by what the recipes state, for where this machine could not be measured."""
    rows = len(data.train()) if config.limit is None else config.limit * data.competition.n_classes
    times = FLOAT32_TIMES if config.precision == "float32" and not backend.gpus() else 1.0
    costs = {}
    for job in jobs:
        each = models.get(job.model).cost / 60_000 * min(n_workers, 2) * times  # seconds an image
        epoch = each * rows * (config.n_folds - 1) / config.n_folds
        rest = each / 3 * job.tta * (rows / config.n_folds + len(data.test()))  # forward alone: a third of a step
        costs[job.model] = Cost(epoch, rest, epoch * models.GUESSES_EPOCHS + rest)
    return costs


# -- the plan of a run ----------------------------------------------------------------------------------------------


def choose_setting(configs: Mapping[Setting, RunConfig], data: DataFolder, time_target: TimeTarget,
                   why: str, progress: Progress) -> tuple[Setting, TimeTarget, str]:
    """The first setting that keeps its promised time on this machine, or the last one.

    With it come the time target, which then holds what was measured, and the reason for the choice.
    `configs`: the settings, the best first, each with the config that a run would have.
    """
    *better, last = configs
    for setting in better:
        config, *_ = executors.settle(configs[setting])
        jobs = make_jobs(config, config.precision)
        with Executor(config) as executor:
            costs = None if executor.kind == "ray" else \
                measure(executor, config, jobs, data, progress, np.inf)
            time_target = replace(time_target, costs={**(time_target.costs or {}), **(costs or {})})
            known = stated_costs(config, jobs, data, executor.n_parallel)
            known |= time_target.costs or {}
            promised = replace(time_target, setting=setting, minutes=setting.minutes)
            planned = fit_to_time(jobs, known, executor.n_parallel, config, promised, None)
        full = {job.model: job.epochs for job in jobs}
        names = " and ".join(f"{epochs} of {full[model]} epochs of {model}"
                             for model, epochs in planned.epochs.items())
        if planned.fits:
            why = f"since {names} fit into its {setting.minutes:g} minutes here"
            return setting, time_target, why
        why = f"since {names} take {duration(planned.seconds)} here"
    return last, time_target, why


def decide(executor: Executor, config: RunConfig, jobs: Sequence[FoldJob], data: DataFolder,
           time_target: TimeTarget, progress: Progress, deadline: float | None,
           measured: bool = True) -> tuple[Schedule, dict[str, Cost]]:
    """Plan `jobs`, say in one line what is trained and until when; the schedule and its costs.

    `config` is settled. `measured`: False where this machine's pace must not be measured (again).
    KitError where a setting that the user has named cannot keep its promised time.
    """
    if executor.kind == "ray":
        progress.say(f"{_summary(config, jobs, jobs)}: nobody knows how long, since a cluster's "
                     "pace is not measured")
        return Schedule({job.model: job.epochs for job in jobs if job.model in config.models}), {}
    costs = dict(time_target.costs or {})
    unknown = [job for job in jobs if job.model not in costs]
    patience = np.inf if deadline is None else (deadline - time.time()) * PATIENCE_SHARE
    if unknown and measured and patience > 0:
        found = measure(executor, config, unknown, data, progress, patience)
        if found is None:
            progress.say("this machine's pace could not be measured in time: planned by what the recipes state")
        costs |= found or {}
    if any(job.model not in costs for job in jobs):
        costs = stated_costs(config, jobs, data, executor.n_parallel) | costs
    schedule = fit_to_time(jobs, costs, executor.n_parallel, config, time_target, deadline)
    if not schedule.fits and deadline is None and time_target.named and not time_target.keep_epochs:
        raise _refusal(executor, config, jobs, data, time_target, progress, costs, schedule)
    kept = [job for job in schedule.apply(jobs) if job.key not in schedule.left_out]
    longer = "" if schedule.fits or deadline else \
        f", more than the {time_target.minutes:g} min that it should take"
    return _announce(progress, _summary(config, jobs, kept), schedule, time_target, longer), costs


def resume(executor: Executor, config: RunConfig, todo: Sequence[FoldJob], stored: Schedule,
           costs: Mapping[str, Cost], progress: Progress, deadline: float | None) -> Schedule:
    """The schedule of a resumed run: its epochs, and those of the folds `todo` that fit `deadline`.

    `costs`: as measured when the run began.
    """
    if any(job.model not in costs for job in todo):  # they were never measured
        return replace(stored, left_out=())
    rest = fit_to_time(todo, costs, executor.n_parallel, config, TimeTarget(keep_epochs=True),
                       deadline)
    if todo:
        kept = [job for job in todo if job.key not in rest.left_out]
        _announce(progress, f"still to do: {_summary(config, todo, kept)}", rest, TimeTarget(), "")
    return replace(stored, left_out=rest.left_out)


def _announce(progress: Progress, what: str, schedule: Schedule, time_target: TimeTarget,
              longer: str) -> Schedule:
    """Say what is trained and until when; the schedule with the seconds that this promises."""
    now = time.time()
    ends = now + schedule.seconds + CLOSING
    total = ends - (time_target.began or now)
    progress.say(f"{what}: about {duration(total)}{longer} (until {time.strftime('%H:%M', time.localtime(ends))})")
    return replace(schedule, predicted=round(total, 1))


def fit_to_time(jobs: Sequence[FoldJob], costs: Mapping[str, Cost], n_workers: int,
                config: RunConfig, time_target: TimeTarget, deadline: float | None) -> Schedule:
    """The schedule by the time budget if there is one, else by the setting's promise, else all that is asked for."""
    seconds, now = np.inf, time.time()
    if deadline is not None:
        seconds = (deadline - now) * SAFETY
    elif time_target.minutes is not None:
        seconds = time_target.minutes * 60 * MARGIN - (now - (time_target.began or now)) - CLOSING
    least = time_target.setting.least_epochs if time_target.setting else None
    return plan(jobs, costs, seconds, n_workers, config.models, least=least,
                keep_epochs=time_target.keep_epochs, may_leave_out=deadline is not None,
                n_rounds=config.self_train)


def _refusal(executor: Executor, config: RunConfig, jobs: Sequence[FoldJob], data: DataFolder,
             time_target: TimeTarget, progress: Progress, costs: Mapping[str, Cost],
             least: Schedule) -> KitError:
    """The error that says how long the named setting would take here, and what would fit."""
    assert time_target.setting is not None and time_target.minutes is not None

    def takes(schedule: Schedule) -> str:
        elapsed = time.time() - (time_target.began or time.time())
        return f"about {duration(schedule.seconds + CLOSING + elapsed)}"

    ways = []
    for other in SETTINGS.values():
        if other.minutes is None or other is time_target.setting or other.models == config.models:
            continue
        theirs = replace(config, models=other.models, epochs=other.epochs)
        other_jobs = make_jobs(theirs, config.precision)
        unknown = [job for job in other_jobs if job.model not in costs]
        known = dict(costs) | (measure(executor, theirs, unknown, data, progress, np.inf) or {})
        if all(job.model in known for job in other_jobs):
            target = replace(time_target, setting=other, minutes=other.minutes)
            schedule = fit_to_time(other_jobs, known, executor.n_parallel, theirs, target, None)
            if schedule.fits:
                ways.append(f"choose --setting {other.name} ({takes(schedule)})")
    epochs, n_parallel = max(least.epochs.values()), executor.n_parallel
    for n in range(epochs - 1, 0, -1):
        fewer = plan(least.apply(jobs), costs, np.inf, n_parallel, config.models, keep_epochs=True)
        fewer = replace(fewer, epochs=dict.fromkeys(fewer.epochs, n))
        seconds = seconds_of(fewer.apply(jobs), costs, n_parallel, config.models, config.self_train)
        if seconds <= time_target.minutes * 60 * MARGIN - CLOSING:
            ways.append(f"train shorter with --epochs {n} ({takes(replace(fewer, seconds=seconds))})")
            break
    ways.append(f"take the time: --epochs {epochs} ({takes(least)})")
    names = " and ".join(f"{n} epochs of {model}" for model, n in least.epochs.items())
    return KitError(f"{time_target.setting.name} is to end within {time_target.minutes:g} minutes, "
                    f"and its least, {config.n_folds} folds with {names}, would take "
                    f"{takes(least)} on this machine", ", or ".join(ways))


def _summary(config: RunConfig, jobs: Sequence[FoldJob], kept: Sequence[FoldJob]) -> str:
    """`5 folds of strong, 9 of 16 epochs, and the baseline`; `kept`: those of the jobs that are trained, as planned."""
    parts = []
    for model in config.models:
        ours = [job for job in kept if job.model == model]
        if ours:
            folds, seeds = len({job.fold for job in ours}), len({job.seed for job in ours})
            most = max(job.epochs for job in jobs if job.model == model)
            epochs = f"{ours[0].epochs} of {most}" if ours[0].epochs < most else f"{most}"
            parts.append(f"{folds} fold{'s' if folds > 1 else ''} of {model}"
                         f"{f' from {seeds} seeds' if seeds > 1 else ''}, {epochs} epoch{'s' if most > 1 else ''}")
    if any(job.model not in config.models for job in kept):
        parts.append("and the baseline")
    if config.self_train:
        parts.append(f"then {config.self_train} round{'s' if config.self_train > 1 else ''} of self-training")
    return ", ".join(parts) or "nothing"


def duration(seconds: float) -> str:
    """For a person: `50 s`, `41 min`, `2 h 10 min`."""
    minutes = round(seconds / 60)
    if seconds < 100:
        return f"{max(1, round(seconds)):d} s"
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"


# -- schedule.json --------------------------------------------------------------------------------------------------


def save(path: Path, schedule: Schedule, costs: Mapping[str, Cost]) -> None:
    """Write what was decided; a run that is resumed reads it instead of deciding again."""
    storage.write_json(path, {"epochs": schedule.epochs, "left_out": list(schedule.left_out),
                              "predicted_seconds": schedule.predicted,
                              "costs": {model: asdict(cost) for model, cost in costs.items()}})


def load(path: Path, named: Sequence[str]) -> tuple[Schedule, dict[str, Cost]]:
    """What `save` wrote for a run of the models `named`.

    KitError where it is damaged, another run's, or written by another version of the kit.
    """
    stored = storage.read_json(path, "epochs", "left_out", "predicted_seconds", "costs")
    epochs, predicted = stored["epochs"], stored["predicted_seconds"]
    try:
        costs = {model: Cost(**cost) for model, cost in stored["costs"].items()}
    except TypeError as error:
        raise storage.damaged(path, "it is no schedule of a run") from error
    if set(epochs) != set(named):
        raise storage.damaged(path, "it is no schedule of this run")
    return Schedule(epochs, tuple(stored["left_out"]), predicted=predicted), costs
