"""Processes that train side by side: one per GPU, else one per group of cores.

They are started when there is something to do and stay until they are dismissed, so that what was compiled to measure
the pace serves the training, too. Nothing here knows what it is that they do.
"""

import contextlib
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kit.core import backend, system
from kit.core.errors import KitError
from kit.training.fit import Report

Together = Callable[[], None]


class Workers:
    """A process per GPU, else per core group: started when there is something to do, and kept until `dismiss`."""

    def __init__(self, n_jobs: int, threads: int | None) -> None:
        self.threads, self.places = threads, worker_places(n_jobs, threads)
        self.report: Report = lambda event: None  # for the news of the jobs
        self.pool: Any = None
        self.said = self.heard = 0  # pieces of news, by the processes and here

    def work(self, task: Callable[..., Any], calls: list[tuple]) -> list[Any]:
        """What `task(*call, report)` returns for each of the calls; a process takes the next one when it is free.

        All that they `report` is passed on before this returns.
        """
        from concurrent.futures.process import BrokenProcessPool

        self._start()
        try:
            results = [future.result() for future in [self._submit(_reporting, task, call) for call in calls]]
            self.said += sum(said for _, said in results)
            patience = time.monotonic() + 5.0
            while self.heard < self.said and time.monotonic() < patience:  # a display may be slow, but not for ever
                time.sleep(0.01)
            return [result for result, _ in results]
        except BrokenProcessPool as error:
            raise KitError("a training process died (out of memory, killed, or at its start)",
                           "run the same command with --resume; with --executor local if memory is short") from error

    def everywhere(self, task: Callable[..., Any], arguments: tuple, patience: float) -> list[Any] | None:
        """What `task(*arguments, together)` returns in each process, all of them at work at once.

        None where they are not ready after `patience` seconds: then they are ended, and others take their place.
        `together` lets a process wait for the others.
        """
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
    cores, free = system.cores(), system.free_memory()
    n_jobs = min(n_jobs, max(1, free // WORKER_BYTES)) if free is not None else n_jobs
    size = min(threads or max(1, len(cores) // n_jobs), len(cores))
    groups = [tuple(cores[start:start + size]) for start in range(0, len(cores) - size + 1, size)]
    return [Place(cores=group) for group in groups[:n_jobs]]


_events: Any = None  # of a worker process: where its news goes,
_barrier: Any = None  # and where it waits for the others


def _start_worker(places: list[Place], threads: int | None, turn: Any, barrier: Any, events: Any, parent: int) -> None:
    global _events, _barrier
    _events, _barrier = events, barrier
    threading.Thread(target=_die_with, args=(parent,), daemon=True).start()
    with turn.get_lock():
        place = places[turn.value % len(places)]
        turn.value += 1
    if place.gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = _gpu_name(place.gpu)
    elif hasattr(os, "sched_setaffinity") and (not system.is_throttled() or backend.load() == "jax"):
        with contextlib.suppress(OSError):  # a sandbox may forbid it; it is for speed alone
            os.sched_setaffinity(0, place.cores)  # JAX takes its number of threads from here
    backend.configure_devices(threads or len(place.cores) or None)


def _gpu_name(i: int) -> str:
    """The `i`-th GPU of those that the user left visible, as CUDA knows it."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",")[i].strip() if visible else str(i)


def _die_with(parent: int) -> None:
    """A killed run must not go on writing behind the back of the one that resumes it."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _reporting(task: Callable[..., Any], arguments: tuple) -> tuple[Any, int]:
    """In a worker process: what the task returns, and how many pieces of news were sent meanwhile."""
    said = 0

    def report(event: dict[str, Any]) -> None:
        nonlocal said
        _events.put(event)
        said += 1

    return task(*arguments, report), said


def _together_with_all(task: Callable[..., Any], arguments: tuple, patience: float) -> Any:
    """In a worker process. The barrier keeps one that is done early from taking another's turn."""

    def together() -> None:
        with contextlib.suppress(threading.BrokenBarrierError):
            _barrier.wait(patience)

    together()
    return task(*arguments, together)
