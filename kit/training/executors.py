"""Run many folds: in this process, or in several, one fold a core group or a GPU.

Executors differ only in who trains: at equal threads per fold the probs are the same, bit for bit.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from kit.core import backend, system
from kit.core.config import RunConfig
from kit.core.errors import KitError
from kit.core.progress import Progress
from kit.training import fit, models, records, workers
from kit.training.plan import Plan, fold_data

FAR_BELOW = 0.2  # of the median accuracy: the hardest writers of a fold may cost a tenth


class OutOfTime(Exception):
    """The time budget ended while a fold was training; its checkpoint stays."""


def run_jobs(plan: Plan, progress: Progress, deadline: float | None = None, crew: "Crew | None" = None,
             seconds: Mapping[str, float] | None = None) -> bool:
    """Train what is not done yet. `deadline` (of time.time) may leave folds out: then False comes back.

    `crew`: who trains; by default one for these jobs alone. `seconds`: what each job takes here, by its
    key, where that was measured; it serves to say how long the rest takes.
    """
    if crew is None:
        with Crew(plan.config) as crew:
            return run_jobs(plan, progress, deadline, crew, seconds)
    todo = [job for job in plan.jobs if not fit.is_done(plan.folder(job))]
    stated = {job.key: job.epochs * models.get(job.model).cost for job in plan.jobs}
    known = seconds and all(job.key in seconds for job in plan.jobs)
    progress.start({key: seconds[key] for key in stated} if seconds and known else stated, crew.lanes)
    try:
        for job in plan.jobs:
            if job not in todo:
                progress.handle(_done_event(plan, job))
        complete = crew.train(plan, todo, progress, deadline)
        again = stragglers(plan)
        for job in again:
            progress.say(f"{job.key}: {job.why}; trying once more with other random numbers")
            (plan.folder(job) / "done.json").unlink()
        return crew.train(plan, again, progress, deadline) and complete if again else complete
    finally:
        progress.stop()


def settle(config: RunConfig) -> tuple[RunConfig, str]:
    """`config` with what it leaves open as this machine has it: precision, and why that; executor; threads of a fold.

    It is settled once for all jobs: with another number of threads the same job has other bits. The cores are shared
    among the folds of the run's own models. KitError where this machine cannot train as the config asks.
    """
    precision, why = backend.resolve_precision(config.precision)
    executor, threads = choose_executor(config), config.threads
    if executor == "ray":
        from kit.training import cluster

        cluster.load_ray()
    if executor == "processes":
        threads = threads or len(workers.worker_places(config.n_jobs, threads)[0].cores) or None
    if executor == "local":
        if system.is_throttled():  # TensorFlow's own number of threads would be that of the machine's cores
            threads = threads or len(system.cores())
        backend.configure_devices(threads)
    return replace(config, precision=precision, executor=executor, threads=threads), why


def stragglers(plan: Plan) -> list[fit.FoldJob]:
    """Second tries for folds that ended far below the others of their model: collapsed, not just harder writers."""
    again = []
    for model in {job.model for job in plan.jobs}:
        jobs = [job for job in plan.jobs if job.model == model and fit.is_done(plan.folder(job))]
        done = [records.read_done(plan.folder(job)) for job in jobs]
        median = float(np.median([fold["val_accuracy"] for fold in done])) if done else 0.0
        for job, fold in zip(jobs, done, strict=True):
            chance = np.sqrt(median * (1 - median) / fold["val_rows"])
            if median - fold["val_accuracy"] > max(FAR_BELOW, 6 * chance) and not fold["job"]["attempt"]:
                why = f"val accuracy {fold['val_accuracy']:.4f}, where the median of the folds is {median:.4f}"
                again.append(replace(job, attempt=1, why=why))
    return again


def choose_executor(config: RunConfig) -> str:
    """What `auto` means here: a process per GPU or core where there are several, and processes can work together.

    Two processes of one thread trained 1.2 to 2.1 times as many images a second as one process of two threads
    (docs/lab-log.md, 2026-11-21): layers this small spend their time waiting for the other thread.
    """
    if config.executor == "processes" and (why := no_processes()):
        raise KitError(f"--executor processes cannot work here: {why}", f"{SHM}, or use --executor local")
    if config.executor != "auto":
        return config.executor
    if backend.has_tpu():
        return "local"
    several = len(workers.worker_places(config.n_jobs, config.threads)) > 1
    return "processes" if several and not no_processes() else "local"


SHM = "in a container, start it with a writable /dev/shm (docker: --shm-size 1g)"


def no_processes() -> str:
    """Why several processes cannot work together here; empty where they can.

    Some containers have no /dev/shm, or none that may be written, or a full one; some systems have no semaphores.
    """
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    context = multiprocessing.get_context("spawn")
    try:
        context.Queue().close()
        context.Value("i", 0)
        ProcessPoolExecutor(1, context).shutdown()
    except (OSError, ImportError, NotImplementedError) as error:
        words = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return f"the system refuses the semaphores that processes share ({words})"
    return ""


def fallback(config: RunConfig) -> str:
    """What is to be said of what `auto` had to do without; empty where it did not."""
    if config.executor != "auto" or backend.has_tpu() or len(workers.worker_places(config.n_jobs, config.threads)) == 1:
        return ""
    why = no_processes()
    return f"one fold after another in this process (--executor local): {why}; to train several at once, {SHM}" \
        if why else ""


# -- one job --------------------------------------------------------------------------------------------------------


def train_job(plan: Plan, job: fit.FoldJob, report: fit.Report, data: fit.FoldData) -> None:
    """Train one job; a fold that diverges is tried once more with other random numbers, and its done.json says so."""
    recipe, folder = models.get(job.model), plan.folder(job)
    recipe = recipe.self_training() if job.guesses else recipe
    try:
        fit.train_fold(job, recipe, plan.data.competition, data, folder, report, plan.folder(job.before))
    except fit.Diverged as error:
        if job.attempt:
            raise KitError(f"{error}, for the second time",
                           "lower the learning rate or use --precision float32") from error
        report({"event": "say", "text": f"{error}: trying once more with other random numbers"})
        train_job(plan, replace(job, attempt=1, why=str(error)), report, data)
        return
    report(_done_event(plan, job))


def _done_event(plan: Plan, job: fit.FoldJob) -> dict[str, Any]:
    done = records.read_done(plan.folder(job))
    return {"event": "done", "job": job.key, "val_accuracy": done["val_accuracy"], "seconds": done["train_seconds"]}


# -- the executors --------------------------------------------------------------------------------------------------


def _local(plan: Plan, jobs: list[fit.FoldJob], progress: Progress, deadline: float | None) -> bool:
    backend.configure_devices(plan.config.threads)
    clock = Clock(deadline)
    return all([timely(plan, job, clock, relay(progress)) for job in jobs])


def relay(progress: Progress) -> fit.Report:
    def report(event: dict[str, Any]) -> None:
        if event["event"] == "say":
            progress.say(event["text"])
        elif event["event"] == "epoch":
            progress.on_epoch_end(event)
        else:
            progress.handle(event)

    return report


class Clock:
    """Keeps a deadline: no job is begun that will not end in time, and none runs past it."""

    def __init__(self, deadline: float | None) -> None:
        self.deadline = deadline
        self.pace: dict[str, float] = {}  # seconds per epoch of each model's slowest finished job

    def fits(self, job: fit.FoldJob) -> bool:
        expected = self.pace.get(job.model, 0.0) * job.epochs
        return self.deadline is None or time.time() + expected < self.deadline

    def watch(self, report: fit.Report) -> fit.Report:
        def watched(event: dict[str, Any]) -> None:
            report(event)
            if self.deadline and event["event"] == "step" and time.time() > self.deadline:
                raise OutOfTime

        return watched


def timely(plan: Plan, job: fit.FoldJob, clock: Clock, report: fit.Report, data: fit.FoldData | None = None) -> bool:
    """Train a job if it fits before the deadline; whether it is done. `data`: where this machine's disk has none."""
    if not clock.fits(job):
        return False
    try:
        train_job(plan, job, clock.watch(report), data or fold_data(plan, job))
    except OutOfTime:
        return False
    done = records.read_done(plan.folder(job))  # with the seconds before it was interrupted
    seconds = done["train_seconds"] + done["predict_seconds"]
    clock.pace[job.model] = max(seconds / job.epochs, clock.pace.get(job.model, 0.0))
    return True


class Crew:
    """Who trains a run's jobs: this process, worker processes that stay until all is done, or a Ray cluster."""

    def __init__(self, config: RunConfig) -> None:
        """`config` as it was settled."""
        self.config, self.executor = config, choose_executor(config)
        self.workers = workers.Workers(config.n_jobs, config.threads) if self.executor == "processes" else None

    def __enter__(self) -> "Crew":
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        if self.workers:
            self.workers.dismiss(at_once=kind is not None)

    @property
    def lanes(self) -> int:
        """How many jobs it trains at a time."""
        return len(self.workers.places) if self.workers else 1

    def train(self, plan: Plan, jobs: list[fit.FoldJob], progress: Progress, deadline: float | None) -> bool:
        """Whether all of them got done."""
        if not jobs:
            return True
        if self.executor == "ray":
            return _ray(plan, jobs, progress, deadline)
        if self.workers is None:
            return _local(plan, jobs, progress, deadline)
        self.workers.report = relay(progress)
        return all(self.workers.work(_in_a_worker, [(plan, job, deadline) for job in jobs]))

    def everywhere(self, task: Callable[..., Any], arguments: tuple, patience: float) -> list[Any] | None:
        """What `task(*arguments, together)` returns in each process that trains, all of them at work at once.

        None where they are not ready after `patience` seconds: then they are ended, and others take their place. (This
        process cannot be ended so.) `together` lets a process wait for the others.
        """
        if self.workers:
            return self.workers.everywhere(task, arguments, patience)
        backend.configure_devices(self.config.threads)
        return [task(*arguments, lambda: None)]


_clock = Clock(None)  # of a worker process: how long it has, and the pace that it has seen


def _in_a_worker(plan: Plan, job: fit.FoldJob, deadline: float | None, report: fit.Report) -> bool:
    """In a worker process: whether the job is done."""
    _clock.deadline = deadline
    return timely(plan, job, _clock, report)


def _ray(plan: Plan, jobs: list[fit.FoldJob], progress: Progress, deadline: float | None) -> bool:
    from kit.training import cluster

    return cluster.run(plan, jobs, progress, deadline)
