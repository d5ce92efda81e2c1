"""Keep a training child process going until its work is done or its time is over.

The child is watched by its heartbeat file, its finished folds and its memory, not by its output.
Whatever goes wrong, it is ended, and a new one is started for the folds that are left. A fold that
took its child down is not tried again: the cause (memory, its data, a driver) would most likely do
the same again, and the time is better spent on the other folds. If several folds were under way,
the next child trains them one at a time, to find out which it was.
"""

import contextlib
import json
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from kit.core import system
from kit.core.config import matches_type
from kit.core.run_folder import finished_jobs

HEARTBEAT = "heartbeat.json"  # {"jobs": keys under way}; written by the child at every event
IDLE_FAILURES = 2  # children that die without a fold under way, until the supervisor gives up

# (jobs to leave out, one fold at a time) → the command of a child
Command = Callable[[frozenset[str], bool], list[str]]


@dataclass(frozen=True)
class Limits:
    """What a child may use: seconds and bytes."""

    deadline: float  # of time.monotonic
    stall: float = 600.0  # without a heartbeat
    memory: int | None = None  # of its whole process tree
    poll: float = 0.5


@dataclass
class Outcome:
    """How the child's work ended."""

    starts: int = 0
    left_out: list[str] = field(default_factory=list)  # jobs that took their child down
    events: list[str] = field(default_factory=list)  # every trouble, in words


def supervise(command: Command, run: Path, wanted: frozenset[str], limits: Limits,
              on_job_finished: Callable[[], None], on_poll: Callable[[], bool], output: Path,
              environment: dict[str, str]) -> Outcome:
    """Run children until one ends well, the `wanted` jobs are done, or time or tries are used up.

    wanted: the keys of folds and of their rounds of self-training. Nothing that children do raises
    here. `on_job_finished` is called after each newly finished job, `on_poll` at every poll: if
    that returns True, everything ends, as at the deadline. The children's output is appended to
    `output`.
    """
    outcome, idle_failures, memory_was_short = Outcome(), 0, False
    suspects: frozenset[str] = frozenset()  # one of these took the last child down
    heartbeat = run / HEARTBEAT
    run.mkdir(parents=True, exist_ok=True)
    while idle_failures < IDLE_FAILURES:
        outcome.starts += 1
        heartbeat.unlink(missing_ok=True)
        alone = memory_was_short or bool(suspects)
        child = command(frozenset(outcome.left_out), alone)
        why = _run_child(child, run, limits, on_job_finished, on_poll, output, environment,
                         suspects)
        done = finished_jobs(run)
        outcome.events += filter(None, [why])
        if not why or on_poll() or time.monotonic() >= limits.deadline or wanted <= done:
            break
        memory_was_short = memory_was_short or "memory" in why
        cleared = bool(suspects) and suspects <= done
        under_way = sorted(_under_way(heartbeat) - done)
        suspects = frozenset()
        if len(under_way) == 1 and not cleared:
            outcome.left_out += under_way
            outcome.events.append(f"{under_way[0]} is left out")
        elif under_way and not alone:
            suspects = frozenset() if memory_was_short else frozenset(under_way)
            outcome.events.append(f"one of {', '.join(under_way)} did it: now one at a time")
        elif not cleared:
            idle_failures += 1
    return outcome


def _run_child(command: list[str], run: Path, limits: Limits, on_job_finished: Callable[[], None],
               on_poll: Callable[[], bool], output: Path, environment: dict[str, str],
               suspects: frozenset[str]) -> str:
    """Run one child to its end, or until all `suspects` are done; why it failed, or empty."""
    with output.open("ab") as log:
        process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log,
                                   stderr=subprocess.STDOUT, start_new_session=True)
    known, last, beat = finished_jobs(run), time.monotonic(), 0
    try:
        while process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(limits.poll)
            now = time.monotonic()
            if finished_jobs(run) != known:
                known = finished_jobs(run)
                on_job_finished()
            if suspects and suspects <= known:
                return "none of them did it again: now several at a time"
            with contextlib.suppress(OSError):  # there is no heartbeat yet
                if (latest := (run / HEARTBEAT).stat().st_mtime_ns) != beat:
                    beat, last = latest, now
            used = system.tree_memory(process.pid) if limits.memory else 0
            why = ""
            if on_poll():
                why = "asked to stop: the child was ended"
            elif now >= limits.deadline:
                why = "the time is over: the child was ended"
            elif now - last > limits.stall:
                why = f"the child hung: no sign of progress for {limits.stall:.0f} s"
            elif limits.memory and used > limits.memory:
                why = (f"the child took {used / 2**30:.1f} GiB of memory, more than "
                       f"{limits.memory / 2**30:.1f}")
            if why and process.poll() is None:
                return why
        code = process.returncode
        if code == 0:
            return ""
        return f"the child was killed by signal {-code}" if code < 0 \
            else f"the child failed with exit code {code}"
    finally:
        system.kill_tree(process.pid)
        process.wait()
        if finished_jobs(run) != known:
            on_job_finished()


def _under_way(heartbeat: Path) -> frozenset[str]:
    """The keys of the jobs in the heartbeat file; none where it is missing or broken."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        jobs = json.loads(heartbeat.read_text("utf-8"))["jobs"]
        return frozenset(jobs) if matches_type(jobs, tuple[str, ...]) else frozenset()
    return frozenset()
