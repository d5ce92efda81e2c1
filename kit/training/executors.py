"""Run a run's jobs: in this process, in a process per core group or GPU, or on a Ray cluster.

Executors differ only in who trains: at equal threads per fold the probs are the same, bit for bit.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from kit.core import backend, system
from kit.core.config import RunConfig
from kit.core.errors import KitError
from kit.core.progress import Progress
from kit.training import fit, job_runner, memory, records, workers
from kit.training.job_runner import Clock, done_event, events_to
from kit.training.jobs import EventCallback, FoldJob, Plan
from kit.training.own_models import recipe_of

DoneFolds = dict[str, dict[str, Any]]  # the done.json of finished jobs, by the jobs' keys

FAR_BELOW = 0.2  # of the median accuracy: the hardest writers of a fold may cost a tenth


def run_jobs(executor: "Executor", plan: Plan, progress: Progress, deadline: float | None = None,
             seconds: Mapping[str, float] | None = None,
             is_enough: Callable[[DoneFolds], bool] | None = None) -> DoneFolds:
    """Train what is not done yet; the done.json of each finished job of the plan, by its key.

    Past `deadline` (of time.time) no job is begun, so some may be missing. seconds: what each job
    takes here, by its key, where that was measured; it serves to say how long the rest takes.
    is_enough: asked before the first round of whole folds and after each; once it says yes, the
    others are left out.
    """
    costs = {job.key: job.epochs * recipe_of(plan.config, job.model).cost for job in plan.jobs}
    if seconds and costs.keys() <= seconds.keys():
        costs = {key: seconds[key] for key in costs}
    progress.start(costs, executor.n_parallel)
    try:
        done = {job.key: records.read_done(plan.folder(job)) for job in plan.jobs
                if fit.is_done(plan.folder(job))}
        todo = [job for job in plan.jobs if job.key not in done]
        for job in plan.jobs:
            if job.key in done:
                progress.handle(done_event(job, done[job.key]))
        rounds = [todo]
        if is_enough:
            if executor.kind != "ray":  # whose nodes would wait for each other after every fold
                rounds = rounds_of_folds(plan, todo, executor.n_parallel)
            folds = {job.fold for job in todo}
            if len(rounds) == 1 < len(folds) and folds == {job.fold for job in plan.jobs}:
                progress.say("all folds train at once here, so stopping early saves none of them")
            rounds = [[], *rounds]
        for jobs in rounds:
            done |= executor.train(plan, jobs, progress, deadline)
            again = retries_of_collapsed(plan.jobs, done)
            for job in again:
                progress.say(f"{job.key}: {job.why}; trying once more with other random numbers")
                (plan.folder(job) / "done.json").unlink()
                del done[job.key]
            done |= executor.train(plan, again, progress, deadline)
            if is_enough and is_enough(done):
                break
        return done
    finally:
        progress.stop()


def rounds_of_folds(plan: Plan, todo: list[FoldJob], n_parallel: int) -> list[list[FoldJob]]:
    """`todo` in rounds of whole folds, each as few as keep `n_parallel` workers busy."""
    members = {(job.model, job.seed) for job in plan.jobs if job.model in plan.config.models}
    size, folds = max(1, n_parallel // len(members)), sorted({job.fold for job in todo})
    return [[job for job in todo if job.fold in folds[start:start + size]]
            for start in range(0, len(folds), size)]


def retries_of_collapsed(jobs: Iterable[FoldJob],
                         done: Mapping[str, dict[str, Any]]) -> list[FoldJob]:
    """Second tries of the jobs that collapsed: far below the others of their model.

    done: the done.json of each finished one, by its key.
    """
    again = []
    finished = [job for job in jobs if job.key in done]
    for job in finished:
        fold = done[job.key]
        median = float(np.median([done[other.key]["val_accuracy"] for other in finished
                                  if other.model == job.model]))
        if is_far_below(fold["val_accuracy"], median, fold["val_rows"]) \
                and not fold["job"]["attempt"]:
            why = (f"val accuracy {fold['val_accuracy']:.4f}, where the median of the folds is "
                   f"{median:.4f}")
            again.append(replace(job, attempt=1, why=why))
    return again


def is_far_below(accuracy: float, usual: float, rows: int) -> bool:
    """Whether the accuracy on so many `rows` is so far below the `usual` one that a fold collapsed.
    """
    return usual - accuracy > max(FAR_BELOW, 6 * np.sqrt(usual * (1 - usual) / rows))


# -- on which executor -----------------------------------------------------------------------------


def settle(config: RunConfig, begun_with: str | None = None) -> tuple[RunConfig, str, str]:
    """`config` with precision, executor and threads chosen for this machine.

    This is done once for all jobs of a run: with another number of threads the same job has other
    bits. The cores are shared among the folds of the run's own models. With the config come the
    reason for its precision, and a note where `auto` fell back to one process. begun_with: the
    executor of the run that is resumed, which `auto` then means. KitError where this machine cannot
    train as the config asks.
    """
    precision, why = backend.resolve_precision(config.precision)
    executor, note = choose_executor(config, begun_with)
    threads = config.threads
    if executor == "ray":
        from kit.training import cluster

        cluster.load_ray()
    if executor == "processes":
        slots = workers.worker_slots(config.n_jobs, threads)
        threads = threads or len(slots[0].cores) or None
    if executor == "local":
        if system.is_throttled():  # TensorFlow itself would take a thread for each of all cores
            threads = threads or len(system.cores())
        backend.configure_devices(threads)
    return replace(config, precision=precision, executor=executor, threads=threads), why, note


SHM = "in a container, start it with a writable /dev/shm (docker: --shm-size 1g)"


def choose_executor(config: RunConfig, begun_with: str | None = None) -> tuple[str, str]:
    """The executor of a run, and a note where `auto` fell back to one process.

    `auto`: what the run was begun with, if it is resumed; else a process per GPU or core group if
    there are several. Two processes of one thread trained 1.2 to 2.1 times as many images a second
    as one process of two threads (docs/lab-log.md, 2026-11-21): layers this small spend their time
    waiting for the other thread.
    """
    executor = config.executor
    if executor == "auto":
        executor = begun_with or (
            "processes" if not backend.has_tpu()
            and len(workers.worker_slots(config.n_jobs, config.threads)) > 1 else "local")
    if executor != "processes" or not (why := why_no_processes()):
        return executor, ""
    if config.executor == "processes":
        raise KitError(f"--executor processes cannot work here: {why}",
                       f"{SHM}, or use --executor local")
    return "local", (f"one fold after another in this process (--executor local): {why}; to train "
                     f"several at once, {SHM}")


def why_no_processes() -> str:
    """Why several processes cannot work together here; empty where they can.

    Some containers have no /dev/shm, or none that may be written, or a full one; some systems have
    no semaphores.
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


# -- the executors --------------------------------------------------------------------------------


class Executor:
    """Trains a run's jobs: in this process, in a pool of worker processes, or on a Ray cluster.

    Used in a with block, from measuring the pace to the last fold.
    """

    def __init__(self, config: RunConfig) -> None:
        """`config` as `settle` returned it."""
        self.config, self.kind = config, config.executor
        self.pool: workers.WorkerPool | None = None
        if self.kind == "processes":
            self.pool = workers.WorkerPool(config.n_jobs, config.threads)
        memory.forget()
        self.said: set[str] = set()  # see job_runner.events_to

    def __enter__(self) -> "Executor":
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        if self.pool:
            self.pool.shutdown(at_once=kind is not None)

    @property
    def n_parallel(self) -> int:
        """How many jobs it trains at a time."""
        return len(self.pool.slots) if self.pool else 1

    def train(self, plan: Plan, jobs: list[FoldJob], progress: Progress,
              deadline: float | None) -> dict[str, dict[str, Any]]:
        """Train `jobs`; the done.json of each that got done, by its key."""
        if not jobs:
            return {}
        if self.kind == "ray":
            from kit.training import cluster

            return cluster.run(plan, jobs, progress, deadline)
        report = events_to(progress, self.said)
        if self.pool:
            self.pool.report = report
            results = self.pool.run(_train_in_worker, [(plan, job, deadline) for job in jobs])
        else:
            backend.configure_devices(plan.config.threads)
            clock = Clock(deadline)
            results = [job_runner.train_job(plan, job, clock, report) for job in jobs]
        return {job.key: done for job, done in zip(jobs, results, strict=True) if done}

    def run_on_all(self, task: Callable[..., Any], arguments: tuple,
                   patience: float) -> list[Any] | None:
        """What `task(*arguments, wait_for_others)` returns in each training process, all at once.

        None where the worker processes are not ready after `patience` seconds: then they are ended
        and replaced. (This process cannot be ended so.) `wait_for_others()` blocks until all have
        called it.
        """
        if self.pool:
            return self.pool.run_on_all(task, arguments, patience)
        backend.configure_devices(self.config.threads)
        return [task(*arguments, lambda: None)]


_clock = Clock(None)  # of a worker process: remembers the pace of the jobs that it has trained


def _train_in_worker(plan: Plan, job: FoldJob, deadline: float | None,
                     report: EventCallback) -> dict[str, Any] | None:
    """In a worker process: train the job; its done.json, or None if the deadline came first."""
    _clock.deadline = deadline
    return job_runner.train_job(plan, job, _clock, report)
