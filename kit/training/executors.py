"""Run many folds: in this process, or in several, one fold a core group or a GPU.

Executors differ only in who trains: at equal threads per fold the probs are the same, bit for bit.
"""

import contextlib
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from kit import machine
from kit.config import RunConfig
from kit.errors import KitError
from kit.progress import Progress
from kit.training import backend, fit, models, records
from kit.training.plan import Plan, fold_data

FAR_BELOW = 0.2  # of the median accuracy: the hardest writers of a fold may cost a tenth


class OutOfTime(Exception):
    """The time budget ended while a fold was training; its checkpoint stays."""


def run_jobs(plan: Plan, progress: Progress, deadline: float | None = None, crew: "Crew | None" = None) -> bool:
    """Train what is not done yet. `deadline` (of time.time) may leave folds out: then False comes back.

    `crew`: who trains; by default one for these jobs alone.
    """
    if crew is None:
        with Crew(plan.config) as crew:
            return run_jobs(plan, progress, deadline, crew)
    todo = [job for job in plan.jobs if not fit.is_done(plan.folder(job))]
    progress.start({job.key: job.epochs * models.get(job.model).cost for job in plan.jobs})
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
        threads = threads or len(worker_places(config.n_jobs, threads)[0].cores) or None
    if executor == "local":
        if machine.is_throttled():  # TensorFlow's own number of threads would be that of the machine's cores
            threads = threads or len(machine.cores())
        backend.prepare(threads)
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
    several = len(worker_places(config.n_jobs, config.threads)) > 1
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
    if config.executor != "auto" or backend.has_tpu() or len(worker_places(config.n_jobs, config.threads)) == 1:
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
    backend.prepare(plan.config.threads)
    clock = Clock(deadline)
    return all([timely(plan, job, clock, relay(progress)) for job in jobs])


def relay(progress: Progress) -> fit.Report:
    def report(event: dict[str, Any]) -> None:
        if event["event"] == "say":
            progress.say(event["text"])
        elif event["event"] == "epoch":
            progress.epoch(event)
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
        self.workers = Workers(config.n_jobs, config.threads) if self.executor == "processes" else None

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
        return all(self.workers.work([(plan, job, deadline) for job in jobs]))

    def everywhere(self, task: Callable[..., Any], arguments: tuple, patience: float) -> list[Any] | None:
        """What `task(*arguments, together)` returns in each process that trains, all of them at work at once.

        None where they are not ready after `patience` seconds: then they are ended, and others take their place. (This
        process cannot be ended so.) `together` lets a process wait for the others.
        """
        if self.workers:
            return self.workers.everywhere(task, arguments, patience)
        backend.prepare(self.config.threads)
        return [task(*arguments, lambda: None)]


Together = Callable[[], None]


class Workers:
    """A process per GPU, else per core group: started when there is something to do, and kept until `dismiss`."""

    def __init__(self, n_jobs: int, threads: int | None) -> None:
        self.threads, self.places = threads, worker_places(n_jobs, threads)
        self.report: fit.Report = lambda event: None  # for the news of the jobs
        self.pool: Any = None
        self.said = self.heard = 0  # pieces of news, by the processes and here

    def work(self, tasks: list[tuple]) -> list[bool]:
        """Whether each job (of plan, job and deadline) got done; a process takes the next one when it is free.

        All that the processes have to say of the jobs is passed on before it returns.
        """
        from concurrent.futures.process import BrokenProcessPool

        self._start()
        try:
            results = [future.result() for future in [self._submit(_work, *task) for task in tasks]]
            self.said += sum(said for _, said in results)
            patience = time.monotonic() + 5.0
            while self.heard < self.said and time.monotonic() < patience:  # a display may be slow, but not for ever
                time.sleep(0.01)
            return [done for done, _ in results]
        except BrokenProcessPool as error:
            raise KitError("a training process died (out of memory, killed, or at its start)",
                           "run the same command with --resume; with --executor local if memory is short") from error

    def everywhere(self, task: Callable[..., Any], arguments: tuple, patience: float) -> list[Any] | None:
        """See `Crew.everywhere`."""
        from concurrent.futures import wait
        from concurrent.futures.process import BrokenProcessPool

        self._start()
        futures = [self._submit(_together_with_all, task, arguments, patience) for _ in self.places]
        try:
            if not wait(futures, patience).not_done:
                return [future.result() for future in futures]
        except BrokenProcessPool:
            pass
        self.dismiss(at_once=True)
        return None

    def dismiss(self, at_once: bool = False) -> None:
        """End the processes; `at_once`, whatever they are doing."""
        if self.pool is None:
            return
        if at_once:  # the pool itself would wait for their folds to end
            for worker in list((self.pool._processes or {}).values()):
                worker.terminate()
        self.pool.shutdown(cancel_futures=True)
        self.events.put(None)
        self.listener.join(timeout=5)  # a worker that was terminated may have left half an event in the queue
        self.pool = None

    def _start(self) -> None:
        import multiprocessing
        from concurrent.futures import ProcessPoolExecutor

        if self.pool is not None:
            return
        for name, value in KEEP_MEMORY.items():
            os.environ.setdefault(name, value)
        context = multiprocessing.get_context("spawn")
        self.events = context.Queue()
        self.events.cancel_join_thread()  # a worker killed in mid-sentence keeps the queue's lock: this one must end
        self.listener = threading.Thread(target=self._listen, daemon=True)
        self.listener.start()
        self.pool = ProcessPoolExecutor(len(self.places), context, _start_worker,
                                        (self.places, self.threads, context.Value("i", 0),
                                         context.Barrier(len(self.places)), self.events, os.getpid()))

    def _submit(self, task: Callable[..., Any], *arguments: Any) -> Any:
        """The future of a task; the first ones start the processes."""
        try:
            return self.pool.submit(task, *arguments)
        except OSError as error:
            raise KitError(f"cannot start a training process: {error.strerror or error}",
                           "close other programs or raise ulimit -u, or use --executor local") from error

    def _listen(self) -> None:
        """Pass the news on; a display that is gone (a closed terminal) must not keep workers waiting."""
        while (event := self.events.get()) is not None:
            with contextlib.suppress(Exception):
                self.report(event)
            self.heard += 1


# For the workers' C library: keep freed tensors instead of giving them back to the system and asking anew at the next
# step. 7–10 % more images a second per one-thread process (docs/lab-log.md, 2026-11-21).
KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": "4000000000", "MALLOC_TRIM_THRESHOLD_": "8000000000",
               "MALLOC_TOP_PAD_": "268435456", "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}


@dataclass(frozen=True)
class Place:
    """Where a worker runs: its cores, or its GPU."""

    cores: tuple[int, ...] = ()
    gpu: int | None = None


WORKER_BYTES = 1_250_000_000  # a training process with all 60,000 rows, and a little room (docs/benchmarks.md)


def worker_places(n_jobs: int, threads: int | None) -> list[Place]:
    """A place per GPU where there are any, else core groups of `threads` cores (by default: as many workers as fit)."""
    n_gpus = len(backend.gpus())
    if n_gpus:
        return [Place(gpu=i) for i in range(min(n_gpus, n_jobs))]
    cores, free = machine.cores(), machine.free_memory()
    n_jobs = min(n_jobs, max(1, free // WORKER_BYTES)) if free is not None else n_jobs
    size = min(threads or max(1, len(cores) // n_jobs), len(cores))
    groups = [tuple(cores[start:start + size]) for start in range(0, len(cores) - size + 1, size)]
    return [Place(cores=group) for group in groups[:n_jobs]]


_events: Any = None  # of a worker process: where its news goes,
_barrier: Any = None  # where it waits for the others,
_clock = Clock(None)  # and how long it has


def _start_worker(places: list[Place], threads: int | None, turn: Any, barrier: Any, events: Any, parent: int) -> None:
    global _events, _barrier
    _events, _barrier = events, barrier
    threading.Thread(target=_die_with, args=(parent,), daemon=True).start()
    with turn.get_lock():
        place = places[turn.value % len(places)]
        turn.value += 1
    if place.gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = _gpu_name(place.gpu)
    elif hasattr(os, "sched_setaffinity") and (not machine.is_throttled() or backend.load() == "jax"):
        with contextlib.suppress(OSError):  # a sandbox may forbid it; it is for speed alone
            os.sched_setaffinity(0, place.cores)  # JAX takes its number of threads from here
    backend.prepare(threads or len(place.cores) or None)


def _gpu_name(i: int) -> str:
    """The `i`-th GPU of those that the user left visible, as CUDA knows it."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",")[i].strip() if visible else str(i)


def _die_with(parent: int) -> None:
    """A killed run must not go on writing behind the back of the one that resumes it."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _work(plan: Plan, job: fit.FoldJob, deadline: float | None) -> tuple[bool, int]:
    """In a worker process: whether the job is done, and how many pieces of news were sent meanwhile."""
    said = 0

    def report(event: dict[str, Any]) -> None:
        nonlocal said
        _events.put(event)
        said += 1

    _clock.deadline = deadline
    return timely(plan, job, _clock, report), said


def _together_with_all(task: Callable[..., Any], arguments: tuple, patience: float) -> Any:
    """In a worker process. The barrier keeps one that is done early from taking another's turn."""

    def together() -> None:
        with contextlib.suppress(threading.BrokenBarrierError):
            _barrier.wait(patience)

    together()
    return task(*arguments, together)


def _ray(plan: Plan, jobs: list[fit.FoldJob], progress: Progress, deadline: float | None) -> bool:
    from kit.training import cluster

    return cluster.run(plan, jobs, progress, deadline)
