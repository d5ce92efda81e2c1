"""Train jobs as Ray tasks: on the cluster that RAY_ADDRESS names, else on one started here.

The nodes share no disk. Arrays reach them as Ray objects, a task works in a temporary folder, and
what it makes comes back as bytes: events and checkpoints through a queue on the driver's node,
artifacts as the task's result. So this process alone writes the run folder, which is then the same
as any other executor's, and a job whose node dies goes on elsewhere from the last checkpoint that
arrived.
"""

import collections
import contextlib
import functools
import os
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import kit
from kit.core import backend, installation, storage, system
from kit.core.errors import KitError
from kit.core.progress import Progress
from kit.training import checkpoints, memory
from kit.training.job_runner import Clock, events_to, train_job
from kit.training.jobs import FoldData, FoldJob, Plan, fold_data
from kit.training.workers import KEEP_MEMORY

RETRIES = 3  # of one job; a node that dies takes one try from each job that it was training
POLL_SECONDS = 0.2
GRACE_SECONDS = 60.0  # past the deadline, for tasks to end by themselves
CONNECT_SECONDS = 10.0  # for a cluster's address to answer
CHECKPOINT = "checkpoint.npz"


def run(plan: Plan, jobs: list[FoldJob], progress: Progress,
        deadline: float | None) -> dict[str, dict[str, Any]]:
    """Train `jobs` as Ray tasks; the done.json of each that got done in time, by its key.

    KitError without Ray, where the cluster cannot be reached or lacks what a job needs, and for a
    job that failed on a node or was lost more than RETRIES times.
    """
    ray = load_ray()
    with _connected(ray), contextlib.redirect_stdout(sys.stderr):  # Ray prints about nodes that die
        try:
            return Driver(ray, plan, progress, deadline).run(jobs)
        except ray.exceptions.RayError as error:
            raise KitError(f"the Ray cluster is gone: {_first_line(error)}",
                           "see that its head is up and has memory, then run the same command with "
                           "--resume") from error


# -- the cluster ----------------------------------------------------------------------------------


def load_ray() -> Any:
    """The library, without its usage statistics. KitError where it is not installed."""
    # Ray reads these at its import: no usage statistics, and the GPU settings that its next version
    # has anyway.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ModuleNotFoundError as error:
        raise KitError(f"--executor ray needs Ray, which is not installed ({error})",
                       f"{installation.how_to_install('ray')}, or use --executor "
                       "processes") from error
    return ray


@contextlib.contextmanager
def _connected(ray: Any) -> Iterator[None]:
    """A connection for the time of a run; one that exists (a notebook's) is used and left open."""
    if ray.is_initialized():
        yield
        return
    address = os.environ.get("RAY_ADDRESS")
    # The workers get this copy of the kit, the Keras backend, and settings for memory.
    settings: dict[str, Any] = {
        "log_to_driver": False, "logging_level": "ERROR", "runtime_env": {
            "py_modules": [str(Path(kit.__file__).parent)],
            "env_vars": {**KEEP_MEMORY, "KERAS_BACKEND": backend.load()}}}
    if not address:
        settings.update(num_cpus=len(system.cores()), include_dashboard=False)
    try:
        _check_reachable(address or "")
        ray.init(address or "local", **settings)
    # ConnectionError, RuntimeError, ValueError and more, by what is wrong with the address
    except Exception as error:
        raise KitError(f"no Ray cluster at {address or 'this machine'}: {_first_line(error)}",
                       "start one (ray start --head), set RAY_ADDRESS to its host:port, with the "
                       "same versions of Ray and Python here and there; or unset RAY_ADDRESS for "
                       "one on this machine") from error
    try:
        yield
    finally:
        ray.shutdown()


def _check_reachable(address: str) -> None:
    """OSError if nothing listens at host:port; Ray itself would try for ten minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if port.isdigit():
        socket.create_connection((host, int(port)), CONNECT_SECONDS).close()


def _resources(ray: Any, n_jobs: int, threads: int | None) -> tuple[dict[str, float], int | None]:
    """What Ray gives each task, and its CPU threads.

    A GPU where the cluster has any, else a share of the cores.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if any(min(node.get("GPU", 0), node.get("CPU", 0)) >= 1 for node in nodes):
        return {"num_gpus": 1, "num_cpus": 1}, None
    cores = [int(node.get("CPU", 0)) for node in nodes]
    if not any(cores):
        raise KitError("the Ray cluster has no core to offer, which every task needs beside its "
                       "GPU", "add a node to it: ray start --address")
    size = min(threads or max(1, sum(cores) // n_jobs), max(cores))
    return {"num_cpus": size}, size


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


# -- this process ---------------------------------------------------------------------------------


class EventQueue:
    """An actor that holds the tasks' events until the driver takes them, on the driver's node."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def put(self, event: dict[str, Any]) -> None:
        self.events.append(event)

    def take(self) -> list[dict[str, Any]]:
        events, self.events = self.events, []
        return events


class Driver:
    """Submits the jobs, passes on their events, writes their files, and resubmits lost jobs."""

    def __init__(self, ray: Any, plan: Plan, progress: Progress, deadline: float | None) -> None:
        self.ray, self.plan, self.progress, self.deadline = ray, plan, progress, deadline
        self.on_event = events_to(progress)
        self.jobs = {job.key: job for job in plan.jobs}
        self.lost: collections.Counter[str] = collections.Counter()

    def run(self, jobs: list[FoldJob]) -> dict[str, dict[str, Any]]:
        """Train `jobs`; the done.json of each that got done, by its key."""
        self._prepare(jobs)
        running = {self._submit(job): job for job in jobs}
        finished = {}
        try:
            while running:
                if self.deadline and time.time() > self.deadline + GRACE_SECONDS:
                    break
                ready, _ = self.ray.wait(list(running), timeout=POLL_SECONDS)
                self._handle_events()
                for task in ready:
                    job = running.pop(task)
                    try:
                        result = self._result(job, task)
                    except _TaskLost as error:
                        job = self._next_try(job, error)
                        running[self._submit(job)] = job
                        continue
                    if result is None:
                        continue
                    finished[job.key], files = result
                    folder = self.plan.folder(job)
                    for name in sorted(files, key=lambda name: (name == "done.json", name)):
                        storage.write_bytes(folder / name, files[name])  # done.json is the last
                    (folder / CHECKPOINT).unlink(missing_ok=True)
        finally:
            for task in running:
                self.ray.cancel(task, force=True)
        return finished

    def _prepare(self, jobs: list[FoldJob]) -> None:
        """Read the data once; put the queue and the shared arrays on the driver's node."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        config = self.plan.config
        options, self.threads = _resources(self.ray, config.n_jobs, config.threads)
        # No retries by Ray: this class retries lost jobs itself.
        self.train = self.ray.remote(_train).options(max_retries=0, **options)
        here = NodeAffinitySchedulingStrategy(
            self.ray.get_runtime_context().get_node_id(), soft=False)
        queue = self.ray.remote(EventQueue).options(num_cpus=0, scheduling_strategy=here)
        self.queue = queue.remote()
        folds = {job.fold: fold_data(self.plan, job) for job in jobs}
        self.rows = {fold: (data.train_rows, data.val_rows) for fold, data in folds.items()}
        # The arrays that all folds share, copied: a memory map of this disk cannot be sent.
        none = np.zeros(0, np.int64)
        plain = {name: np.asarray(value) for name, value in vars(folds[jobs[0].fold]).items()
                 if value is not None}
        self.arrays = self.ray.put(FoldData(**{**plain, "train_rows": none, "val_rows": none}))

    def _submit(self, job: FoldJob) -> Any:
        """Start a task for the job with the checkpoint or model to begin with; its reference."""
        needed = [self.plan.folder(job) / CHECKPOINT]
        if job.guesses:
            needed.append(self.plan.folder(job.previous_round) / "model.keras")
        files = {path.relative_to(self.plan.run).as_posix(): storage.read_bytes(path)
                 for path in needed if path.is_file()}
        return self.train.remote(self.plan, job, self.arrays, self.rows[job.fold], files,
                                 self.threads, self.deadline, self.queue)

    def _handle_events(self) -> None:
        for event in self.ray.get(self.queue.take.remote()):
            if event["event"] == "checkpoint":
                folder = self.plan.folder(self.jobs[event["job"]])
                storage.write_bytes(folder / CHECKPOINT, event["data"])
            else:
                self.on_event(event)

    def _result(self, job: FoldJob, task: Any) -> "FoldResult | None":
        """The task's result. `_TaskLost` if its node or process died, KitError if it failed."""
        errors = self.ray.exceptions
        try:
            return self.ray.get(task)
        except errors.RayTaskError as error:
            cause = error.cause
            if isinstance(cause, KitError):
                raise KitError(f"{job.key}, on a node of the cluster: {cause.message}",
                               cause.fix) from None
            raise KitError(f"{job.key} failed on a node of the cluster: {type(cause).__name__}: "
                           f"{_first_line(cause)}",
                           "check that its nodes have the same TensorFlow and Keras as this "
                           "machine (kit doctor), then run the same command with --resume"
                           ) from error
        except errors.RuntimeEnvSetupError as error:
            raise KitError(f"a node could not set up the kit: {_first_line(error)}",
                           "see the cluster's log; its nodes need room on their disks") from error
        except errors.RayError as error:
            # Ray ends tasks of a node whose memory is nearly used up.
            short = type(error).__name__ == "OutOfMemoryError"
            raise _TaskLost(_first_line(error), short) from error

    def _next_try(self, job: FoldJob, error: "_TaskLost") -> FoldJob:
        """A lost job, with half the batch if memory was short; what is lost and why is said.

        KitError once it was lost more than RETRIES times, or the batch is the least already.
        """
        self.lost[job.key] += 1
        if self.lost[job.key] > RETRIES:
            raise KitError(f"{job.key} was lost {self.lost[job.key]} times; the last time: {error}",
                           "see if its nodes run out of memory, then run the same command with "
                           "--resume") from error
        if error.memory_short:
            job = memory.halve(job, len(self.rows[job.fold][0]), error)
            self.progress.say(f"{job.key}: memory was short on its node, so Ray ended it; trying "
                              f"again from the start with batch size {job.batch_size}")
            return job
        start = "its last checkpoint" if (self.plan.folder(job) / CHECKPOINT).is_file() \
            else "the start"
        self.progress.say(f"{job.key}: the node that trained it died; trying again from {start}")
        return job


class _TaskLost(Exception):
    """A task's process or node is gone, and its result with it."""

    def __init__(self, why: str, memory_short: bool) -> None:
        super().__init__(why)
        self.memory_short = memory_short


# -- on a node ------------------------------------------------------------------------------------


FoldResult = tuple[dict[str, Any], dict[str, bytes]]  # a fold's done.json, and all of its files


def _train(plan: Plan, job: FoldJob, arrays: FoldData, rows: tuple[np.ndarray, np.ndarray],
           files: dict[str, bytes], threads: int | None, deadline: float | None,
           queue: Any) -> FoldResult | None:
    """Train one job in a worker process of Ray's; None if the deadline came first.

    files: those of the run folder that it begins with, by their relative path.
    """
    backend.configure_devices(threads)
    with tempfile.TemporaryDirectory(prefix="kit-") as scratch:
        plan = replace(plan, run=Path(scratch))
        folder = plan.folder(job)
        for name, data in files.items():
            storage.write_bytes(plan.run / name, data)
        sender = EventSender(job.key, folder / CHECKPOINT, queue)
        fold = replace(arrays, train_rows=rows[0], val_rows=rows[1])
        done = train_job(plan, job, _clock(deadline), sender.report, fold)
        if done is None:
            sender.send_checkpoint()
            return None
        return done, {path.name: storage.read_bytes(path) for path in folder.iterdir()
                      if path.name != storage.CHECKSUMS}


@functools.cache
def _clock(deadline: float | None) -> Clock:
    """This worker's clock, which remembers the pace of its jobs."""
    return Clock(deadline)


class EventSender:
    """Sends a task's events to the driver, and checkpoints as often as MAX_TIME_SHARE allows."""

    def __init__(self, key: str, path: Path, queue: Any) -> None:
        import ray

        self.key, self.path, self.queue, self.ray = key, path, queue, ray
        self.node = ray.get_runtime_context().get_node_id()
        self.sent, self.last, self.cost = self._stamp(), time.perf_counter(), 0.0

    def report(self, event: dict[str, Any]) -> None:
        """Send an event, and wait until it arrives, so that none comes after the task's result."""
        self._send({**event, "node": self.node})
        if time.perf_counter() - self.last >= self.cost / checkpoints.MAX_TIME_SHARE:
            self.send_checkpoint()

    def send_checkpoint(self) -> None:
        """Send the checkpoint if there is a new one."""
        stamp, began = self._stamp(), time.perf_counter()
        if stamp in (None, self.sent):
            return
        self._send({"event": "checkpoint", "job": self.key, "data": storage.read_bytes(self.path)})
        self.sent, self.last = stamp, time.perf_counter()
        self.cost = self.last - began

    def _send(self, event: dict[str, Any]) -> None:
        self.ray.get(self.queue.put.remote(event))

    def _stamp(self) -> int | None:
        """When the checkpoint was written; None if there is none."""
        try:
            return self.path.stat().st_mtime_ns
        except FileNotFoundError:
            return None
