"""Run a run's jobs: in this process, in a process per core group or GPU, or on a Ray cluster.

Executors differ only in who trains: at equal threads per fold the probs are the same, bit for bit.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from kit.core import backend, system
from kit.core.config import RunConfig
from kit.core.errors import KitError
from kit.core.progress import Progress
from kit.training import fit, models, records, workers
from kit.training.job_runner import Clock, done_event, events_to, train_in_time
from kit.training.jobs import EventCallback, FoldJob
from kit.training.plan import Plan

FAR_BELOW = 0.2  # of the median accuracy: the hardest writers of a fold may cost a tenth


def run_jobs(plan: Plan, progress: Progress, deadline: float | None = None,
             executor: "Executor | None" = None,
             seconds: Mapping[str, float] | None = None) -> bool:
    """Train what is not done yet; False where `deadline` (of time.time) left folds out.

    executor: by default one for these jobs alone. seconds: what each job takes here, by its key,
    where that was measured; it serves to say how long the rest takes.
    """
    if executor is None:
        with Executor(plan.config) as executor:
            return run_jobs(plan, progress, deadline, executor, seconds)
    todo = [job for job in plan.jobs if not fit.is_done(plan.folder(job))]
    costs = {job.key: job.epochs * models.get(job.model).cost for job in plan.jobs}
    if seconds and costs.keys() <= seconds.keys():
        costs = {key: seconds[key] for key in costs}
    progress.start(costs, executor.n_parallel)
    try:
        for job in plan.jobs:
            if job not in todo:
                progress.handle(done_event(plan, job))
        complete = executor.train(plan, todo, progress, deadline)
        again = retries_of_collapsed(plan)
        for job in again:
            progress.say(f"{job.key}: {job.why}; trying once more with other random numbers")
            (plan.folder(job) / "done.json").unlink()
        return executor.train(plan, again, progress, deadline) and complete if again else complete
    finally:
        progress.stop()


def settle(config: RunConfig) -> tuple[RunConfig, str]:
    """`config` with precision, executor and threads chosen for this machine; why that precision.

    This is done once for all jobs of a run: with another number of threads the same job has other
    bits. The cores are shared among the folds of the run's own models. KitError where this machine
    cannot train as the config asks.
    """
    precision, why = backend.resolve_precision(config.precision)
    executor, threads = choose_executor(config), config.threads
    if executor == "ray":
        from kit.training import cluster

        cluster.load_ray()
    if executor == "processes":
        threads = threads or len(workers.worker_slots(config.n_jobs, threads)[0].cores) or None
    if executor == "local":
        if system.is_throttled():  # TensorFlow's own number of threads would be that of the machine's cores
            threads = threads or len(system.cores())
        backend.configure_devices(threads)
    return replace(config, precision=precision, executor=executor, threads=threads), why


def retries_of_collapsed(plan: Plan) -> list[FoldJob]:
    """Second tries of folds that collapsed: far below the others of their model."""
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
    """What `auto` means here: a process per GPU or core group, if there are several and it works.

    Two processes of one thread trained 1.2 to 2.1 times as many images a second as one process of two threads
    (docs/lab-log.md, 2026-11-21): layers this small spend their time waiting for the other thread.
    """
    if config.executor == "processes" and (why := why_no_processes()):
        raise KitError(f"--executor processes cannot work here: {why}", f"{SHM}, or use --executor local")
    if config.executor != "auto":
        return config.executor
    if backend.has_tpu():
        return "local"
    several = len(workers.worker_slots(config.n_jobs, config.threads)) > 1
    return "processes" if several and not why_no_processes() else "local"


SHM = "in a container, start it with a writable /dev/shm (docker: --shm-size 1g)"


def why_no_processes() -> str:
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


def fallback_note(config: RunConfig) -> str:
    """What to tell the user where `auto` fell back to one process; empty where it did not."""
    if config.executor != "auto" or backend.has_tpu() \
            or len(workers.worker_slots(config.n_jobs, config.threads)) == 1:
        return ""
    why = why_no_processes()
    return f"one fold after another in this process (--executor local): {why}; to train several at once, {SHM}" \
        if why else ""


# -- the executors --------------------------------------------------------------------------------


class Executor:
    """Trains a run's jobs: in this process, in a pool of worker processes, or on a Ray cluster.

    Used in a with block, from measuring the pace to the last fold.
    """

    def __init__(self, config: RunConfig) -> None:
        """`config` as `settle` returned it."""
        self.config, self.kind = config, choose_executor(config)
        self.pool: workers.WorkerPool | None = None
        if self.kind == "processes":
            self.pool = workers.WorkerPool(config.n_jobs, config.threads)

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
              deadline: float | None) -> bool:
        """Train `jobs`; whether all of them got done."""
        if not jobs:
            return True
        if self.kind == "ray":
            from kit.training import cluster

            return cluster.run(plan, jobs, progress, deadline)
        if self.pool is None:
            backend.configure_devices(plan.config.threads)
            clock = Clock(deadline)
            return all([train_in_time(plan, job, clock, events_to(progress)) for job in jobs])
        self.pool.report = events_to(progress)
        return all(self.pool.run(_train_in_worker, [(plan, job, deadline) for job in jobs]))

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
                     report: EventCallback) -> bool:
    """In a worker process: train the job; whether it is done."""
    _clock.deadline = deadline
    return train_in_time(plan, job, _clock, report)
