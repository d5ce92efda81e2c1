"""Keep a training child going until its work is done or its time is over, whatever happens to it.

In go the command of a child that resumes where the last one stopped, and the run folder that it fills; out comes how it
ended. The one idea: the child is judged by what it leaves behind (a heartbeat, finished folds, its memory), never by
what it says, and the answer to every trouble is the same: end it, and start a new one for the folds that are left. A
fold that took its child down is not tried again: what did it once (memory, its data, a driver) would most likely do it
again, and worse, and the time is better spent on the others.
"""

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from kit.delivery import processes

HEARTBEAT = "heartbeat.json"  # {"job": key}; written by the child at every sign of progress
IDLE_FAILURES = 2  # children that die without a fold to blame, before we give up

Command = Callable[[frozenset[str], bool], list[str]]  # (jobs to leave out, memory was short) → a child's command


@dataclass(frozen=True)
class Limits:
    """What a child may use. Seconds and bytes."""

    deadline: float  # of time.monotonic
    stall: float = 600.0  # without a heartbeat
    memory: int | None = None  # of its whole process tree
    poll: float = 0.5


@dataclass
class Outcome:
    """How the child's work ended."""

    finished: bool = False  # the last child ended well
    starts: int = 0
    left_out: list[str] = field(default_factory=list)  # jobs that took their child down
    events: list[str] = field(default_factory=list)  # every trouble, in words


def supervise(command: Command, run: Path, wanted: frozenset[str], limits: Limits, changed: Callable[[], None],
              tick: Callable[[], bool] = lambda: False, output: Path | None = None,
              environment: dict[str, str] | None = None) -> Outcome:
    """Run children until one ends well, the `wanted` folds are done, nothing is left to blame, or the time is over.

    Never raises for what children do. `changed` is called after each newly finished fold, `tick` at every poll: True
    ends everything, as the deadline does. What the children say is appended to `output`.
    """
    outcome, idle_failures, memory_was_short = Outcome(), 0, False
    heart = run / HEARTBEAT
    run.mkdir(parents=True, exist_ok=True)
    while not outcome.finished and idle_failures < IDLE_FAILURES:
        outcome.starts += 1
        heart.unlink(missing_ok=True)
        child = command(frozenset(outcome.left_out), memory_was_short)
        why = _follow(child, run, limits, changed, tick, output, environment)
        outcome.finished = not why
        if why:
            outcome.events.append(why)
        if tick() or time.monotonic() >= limits.deadline or wanted <= finished(run):
            break
        memory_was_short = memory_was_short or "memory" in why
        job = _last_job(heart)
        if why and job and job not in finished(run):
            outcome.left_out.append(job)
            outcome.events.append(f"{job} is left out")
        elif why:
            idle_failures += 1
    return outcome


def _follow(command: list[str], run: Path, limits: Limits, changed: Callable[[], None], tick: Callable[[], bool],
            output: Path | None, environment: dict[str, str] | None) -> str:
    """One child from start to end; empty where it ended well, else what went wrong."""
    with open(output or os.devnull, "ab") as log:  # noqa: PTH123  os.devnull is no Path
        process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log,
                                   stderr=subprocess.STDOUT, start_new_session=True)
    known, last = finished(run), time.monotonic()
    heart = None
    try:
        while process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(limits.poll)
            now = time.monotonic()
            if finished(run) != known:
                known = finished(run)
                changed()
            if (beat := _stamp(run / HEARTBEAT)) != heart:
                heart, last = beat, now
            why = _trouble(process.pid, limits, now, last, tick())
            if why and process.poll() is None:
                return why
        return _ending(process.returncode)
    finally:
        processes.kill(process.pid)
        process.wait()
        if finished(run) != known:
            changed()


def _trouble(pid: int, limits: Limits, now: float, last: float, stopped: bool) -> str:
    """Why the child must end now, if it must."""
    if stopped:
        return "asked to stop: the child was ended"
    if now >= limits.deadline:
        return "the time is over: the child was ended"
    if now - last > limits.stall:
        return f"the child hung: no sign of progress for {limits.stall:.0f} s"
    if limits.memory and (used := processes.memory(pid)) > limits.memory:
        return f"the child took {used / 2**30:.1f} GiB of memory, more than {limits.memory / 2**30:.1f}"
    return ""


def _ending(code: int) -> str:
    if code == 0:
        return ""
    return f"the child was killed by signal {-code}" if code < 0 else f"the child failed with exit code {code}"


def finished(run: Path) -> frozenset[str]:
    """The keys `<model>/seed_<s>/fold_<k>` of the folds that are done."""
    return frozenset(done.parent.relative_to(run).as_posix() for done in run.glob("*/seed_*/fold_*/done.json"))


def _stamp(path: Path) -> int | None:
    with contextlib.suppress(OSError):
        return path.stat().st_mtime_ns
    return None


def _last_job(heart: Path) -> str:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return str(json.loads(heart.read_text("utf-8"))["job"])
    return ""
