"""A pool of worker processes that work side by side: one per GPU, else one per group of cores.

They are started for the first task and stay until they are shut down, so that what was compiled to
measure the pace serves the training, too. Nothing here knows what the tasks do.
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
from kit.training.jobs import EventCallback

KILLED, ENDED = -9, -15  # exit codes: by SIGKILL from outside, by the pool itself

WaitForOthers = Callable[[], None]  # blocks until every process of the pool has called it


class WorkerPool:
    """A process per GPU, else per core group; started for the first task, kept until `shutdown`."""

    def __init__(self, n_jobs: int, threads: int | None) -> None:
        self.threads, self.slots = threads, worker_slots(n_jobs, threads)
        self.report: EventCallback = lambda event: None  # receives what the tasks report
        self.pool: Any = None
        self.sent = self.received = 0  # events: reported in the processes, and passed on here
        self.processes: list[Any] = []
        self.unsaid: list[str] = []  # what the next call of `run` reports

    def run(self, task: Callable[..., Any], calls: list[tuple]) -> list[Any]:
        """What `task(*call, report)` returns for each of the calls.

        A process that is free takes the next call. All events that the tasks `report` are passed on
        before this returns. If a process is killed, as by a system whose memory is short, what is
        not done is called once more, in half as many processes. KitError if the only one is killed,
        or one ends by itself.
        """
        from concurrent.futures.process import BrokenProcessPool

        results: dict[int, tuple[Any, int]] = {}
        while len(results) < len(calls):
            self._start()
            while self.unsaid:
                self.report({"event": "say", "text": self.unsaid.pop(0)})
            futures: dict[int, Any] = {}
            try:
                for i, call in enumerate(calls):
                    if i not in results:
                        futures[i] = self._submit(_run_reporting, task, call)
                for i, future in futures.items():
                    results[i] = future.result()
                    self.sent += results[i][1]
            except BrokenProcessPool as error:
                results |= {i: future.result() for i, future in futures.items()
                            if future.done() and not future.exception()}
                self._go_on_with_fewer(error)
        patience = time.monotonic() + 5.0  # a display may be slow, but not for ever
        while self.received < self.sent and time.monotonic() < patience:
            time.sleep(0.01)
        return [results[i][0] for i in range(len(calls))]

    def run_on_all(self, task: Callable[..., Any], arguments: tuple,
                   patience: float) -> list[Any] | None:
        """What `task(*arguments, wait_for_others)` returns in each process, all working at once.

        None where they are not ready after `patience` seconds, or one has died: then they are
        ended, and the next task starts new ones. `wait_for_others()` blocks until all processes
        have called it.
        """
        from concurrent.futures import wait
        from concurrent.futures.process import BrokenProcessPool

        self._start()
        futures = [self._submit(_run_with_others, task, arguments, patience) for _ in self.slots]
        try:
            if not wait(futures, patience).not_done:
                return [future.result() for future in futures]
        except BrokenProcessPool:
            with contextlib.suppress(KitError):  # the training will say it, if it dies as well
                self._go_on_with_fewer()
        self.shutdown(at_once=True)
        return None

    def _go_on_with_fewer(self, cause: BaseException | None = None) -> None:
        """After a process has died: end the others, and let half as many take their place.

        KitError where it was not killed, so that fewer would not help, or was the only one.
        """
        self.shutdown(at_once=True)
        self.sent = self.received = 0
        codes = [process.exitcode for process in self.processes]
        if KILLED not in codes:
            code = next((code for code in codes if code not in (None, 0, ENDED)), "unknown")
            raise KitError(f"a training process died (exit code {code})",
                           "run the same command with --resume; with --executor local if memory is "
                           "short") from cause
        if len(self.slots) == 1:
            raise KitError("the only training process was killed, as the system does when memory "
                           "is short",
                           "end other programs or give the container more memory, then run the "
                           "same command with --resume --executor local, which needs one process "
                           "less; or train with less in a new run: --batch-size 64 or --model "
                           "light") from cause
        before = len(self.slots)
        self.slots = self.slots[:before // 2]
        self.unsaid.append(f"one of {before} training processes was killed, as the system does "
                           f"when memory is short: going on with {len(self.slots)} at a time")

    def shutdown(self, at_once: bool = False) -> None:
        """End the processes; `at_once`: without waiting for their tasks."""
        if self.pool is None:
            return
        if at_once:  # the pool itself would wait for their folds to end
            for worker in list((self.pool._processes or {}).values()):
                worker.terminate()
        self.pool.shutdown(cancel_futures=True)
        self.events.put(None)
        # A worker that was terminated may have left half an event in the queue
        self.listener.join(timeout=5)
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
        self.events.cancel_join_thread()  # a worker that is killed may keep the queue's lock
        self.listener = threading.Thread(target=self._listen, daemon=True)
        self.listener.start()
        self.pool = ProcessPoolExecutor(len(self.slots), context, _start_worker,
                                        (self.slots, self.threads, context.Value("i", 0),
                                         context.Barrier(len(self.slots)), self.events))

    def _submit(self, task: Callable[..., Any], *arguments: Any) -> Any:
        """The future of a task; the first ones start the processes."""
        try:
            future = self.pool.submit(task, *arguments)
            self.processes = list((self.pool._processes or {}).values())
            return future
        except OSError as error:
            raise KitError(f"cannot start a training process: {error.strerror or error}",
                           "close other programs or raise ulimit -u, or use --executor local"
                           ) from error

    def _listen(self) -> None:
        """Pass the events on; an error of the display must not keep the workers waiting."""
        while (event := self.events.get()) is not None:
            with contextlib.suppress(Exception):
                self.report(event)
            self.received += 1


# For the workers' C library: keep freed tensors instead of giving them back to the system and
# asking anew at the next step. 7–10 % more images a second per one-thread process (docs/lab-log.md,
# 2026-11-21).
KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": "4000000000", "MALLOC_TRIM_THRESHOLD_": "8000000000",
               "MALLOC_TOP_PAD_": "268435456", "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}


@dataclass(frozen=True)
class WorkerSlot:
    """Where a worker runs: its cores, or its GPU."""

    cores: tuple[int, ...] = ()
    gpu: int | None = None


# A training process with all 60,000 rows, and a little room (docs/benchmarks.md)
WORKER_BYTES = 1_250_000_000


def worker_slots(n_jobs: int, threads: int | None) -> list[WorkerSlot]:
    """A slot per GPU where there are any, else per group of `threads` cores; at most one per job.

    Without `threads`, the cores are shared among as many workers as there are jobs and memory
    allows.
    """
    n_gpus = len(backend.gpus())
    if n_gpus:
        return [WorkerSlot(gpu=i) for i in range(min(n_gpus, n_jobs))]
    cores, free = system.cores(), system.free_memory()
    n_jobs = min(n_jobs, max(1, free // WORKER_BYTES)) if free is not None else n_jobs
    size = min(threads or max(1, len(cores) // n_jobs), len(cores))
    groups = [tuple(cores[start:start + size]) for start in range(0, len(cores) - size + 1, size)]
    return [WorkerSlot(cores=group) for group in groups[:n_jobs]]


_events: Any = None  # of a worker process: the queue for its events,
_barrier: Any = None  # and where it waits for the others


def _start_worker(slots: list[WorkerSlot], threads: int | None, turn: Any, barrier: Any,
                  events: Any) -> None:
    """In a new worker process: take the next slot, and prepare the backend for its cores or GPU."""
    global _events, _barrier
    _events, _barrier = events, barrier
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    with turn.get_lock():
        slot = slots[turn.value % len(slots)]
        turn.value += 1
    if slot.gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = _gpu_name(slot.gpu)
    elif hasattr(os, "sched_setaffinity") and (backend.load() == "jax"
                                               or not system.is_throttled()):
        with contextlib.suppress(OSError):  # a sandbox may forbid it; it is for speed alone
            os.sched_setaffinity(0, slot.cores)  # JAX takes its number of threads from here
    backend.configure_devices(threads or len(slot.cores) or None)


def refuse_if_starting() -> None:
    """KitError where this process is a worker that is being started.

    Python's `spawn` runs the user's script again in each worker: one without a guard would start a
    run in each.
    """
    import multiprocessing

    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise KitError("this script trains as soon as it is imported, as each training process "
                       "does", 'put what it does below: if __name__ == "__main__":')


def _gpu_name(i: int) -> str:
    """The `i`-th GPU of those that the user left visible, as CUDA knows it."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",")[i].strip() if visible else str(i)


def _exit_with_parent() -> None:
    """A killed run must not go on writing behind the back of the one that resumes it.

    On Windows a parent's id stays when it has ended, so this waits for the process itself.
    """
    import multiprocessing

    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)


def _run_reporting(task: Callable[..., Any], arguments: tuple) -> tuple[Any, int]:
    """In a worker process: what the task returns, and how many events it has sent."""
    sent = 0

    def report(event: dict[str, Any]) -> None:
        nonlocal sent
        _events.put(event)
        sent += 1

    return task(*arguments, report), sent


def _run_with_others(task: Callable[..., Any], arguments: tuple, patience: float) -> Any:
    """In a worker process. The barrier keeps one that is done early from taking another's turn."""

    def wait_for_others() -> None:
        with contextlib.suppress(threading.BrokenBarrierError):
            _barrier.wait(patience)

    wait_for_others()
    return task(*arguments, wait_for_others)
