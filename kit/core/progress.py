"""Show the progress of a run: live bars in a terminal, plain lines elsewhere, or JSON lines.

Everything goes to stderr, so that stdout is free for results. One Progress shows all jobs of a run,
of which several may train at once, also in other processes; their events are dicts, described in
`Progress.handle`.
"""

import json
import sys
import time
from collections.abc import Iterable
from typing import Any

from kit.core.durations import rounded_duration

MIN_SHARE_FOR_ESTIMATE = 0.02  # of the work done before the time left is shown


class Progress:
    """Receives what a run reports, and shows none of it (`--quiet`). The subclasses show it."""

    def say(self, text: str) -> None:
        """One sentence for a person."""

    def start(self, costs: dict[str, float], at_once: int = 1) -> None:
        """Training begins.

        costs: of each job, by its key, in the order of training. They may be in any unit, as they
        only serve to estimate the time left. at_once: how many jobs train at a time.
        """

    def handle(self, event: dict[str, Any]) -> None:
        """An event of a job: `event["event"]` is "step" or "done", `event["job"]` the job's key."""

    def on_epoch_end(self, event: dict[str, Any]) -> None:
        """A job has ended an epoch.

        event: its line of history.csv, and the probs of some val rows for TensorBoard.
        """

    def stop(self) -> None:
        """The jobs have ended."""


class ForwardingProgress(Progress):
    """Forwards every call to `progress`. Subclasses do something more with some of the calls."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress

    def say(self, text: str) -> None:
        self.progress.say(text)

    def start(self, costs: dict[str, float], at_once: int = 1) -> None:
        self.progress.start(costs, at_once)

    def handle(self, event: dict[str, Any]) -> None:
        self.progress.handle(event)

    def on_epoch_end(self, event: dict[str, Any]) -> None:
        self.progress.on_epoch_end(event)

    def stop(self) -> None:
        self.progress.stop()


class JsonProgress(Progress):
    """Writes one JSON object per line."""

    def say(self, text: str) -> None:
        self.handle({"event": "say", "text": text})

    def handle(self, event: dict[str, Any]) -> None:
        print(json.dumps(event), file=sys.stderr, flush=True)


class PlainProgress(Progress):
    """Writes a line per message and per epoch, at most one per job every `pause` seconds."""

    def __init__(self, pause: float = 10.0) -> None:
        self.pause = pause
        self._workload = _Workload({})
        self._said: dict[str, tuple[int, float]] = {}

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def start(self, costs: dict[str, float], at_once: int = 1) -> None:
        self._workload = _Workload(costs, at_once)

    def handle(self, event: dict[str, Any]) -> None:
        self._workload.update(event)
        now, key = time.monotonic(), event["job"]
        epoch, last = self._said.get(key, (0, now - self.pause))
        if event["event"] == "done":
            self.say(f"{key}: done, val accuracy {event['val_accuracy']:.4f} "
                     f"({event['seconds']:.0f} s){self._left()}")
        elif event["epoch"] != epoch and now - last >= self.pause:
            self._said[key] = (event["epoch"], now)
            self.say(f"{key}: {_numbers(event)}{self._left()}")

    def _left(self) -> str:
        left = self._workload.seconds_left()
        return f", {rounded_duration(left)} left" if left else ""


class LiveProgress(Progress):
    """Draws progress bars: one for the whole run, and one for each job that is training."""

    def __init__(self) -> None:
        from rich.console import Console

        self.console = Console(stderr=True)
        self._bars: Any = None
        self._tasks: dict[str, Any] = {}
        self._workload = _Workload({})

    def say(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False)

    def start(self, costs: dict[str, float], at_once: int = 1) -> None:
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Bars

        self._workload = _Workload(costs, at_once)
        self._bars = Bars(TextColumn("{task.fields[name]}"), BarColumn(bar_width=24),
                          TextColumn("{task.percentage:>3.0f} %  {task.description}"),
                          console=self.console, transient=True)
        self._total = self._bars.add_task("", total=1.0, name=f"all {len(costs)} trainings")
        self._bars.start()

    def handle(self, event: dict[str, Any]) -> None:
        self._workload.update(event)
        left = self._workload.seconds_left()
        self._bars.update(self._total, completed=self._workload.done(),
                          description=f"{rounded_duration(left)} left" if left else "")
        if event["event"] == "done":
            if event["job"] in self._tasks:
                self._bars.remove_task(self._tasks.pop(event["job"]))
            self.say(f"{event['job']}: val accuracy {event['val_accuracy']:.4f} "
                     f"({event['seconds']:.0f} s)")
            return
        if event["job"] not in self._tasks:
            self._tasks[event["job"]] = self._bars.add_task("", total=1.0, name=event["job"])
        self._bars.update(self._tasks[event["job"]], completed=event["done"],
                          description=_numbers(event))

    def stop(self) -> None:
        if self._bars is not None:
            self._bars.stop()
        self._tasks.clear()


def makespan(durations: Iterable[float], at_once: int) -> float:
    """The time until all jobs have ended, if `at_once` run at a time, started in this order."""
    ends = [0.0] * at_once
    for duration in durations:
        ends[ends.index(min(ends))] += duration
    return max(ends)


class _Workload:
    """How much of the work of all jobs is done, and how long the rest takes at the pace so far."""

    def __init__(self, costs: dict[str, float], at_once: int = 1) -> None:
        self.costs, self.parts = costs, dict.fromkeys(costs, 0.0)
        self.at_once = max(1, min(at_once, len(costs)))
        self.began = time.monotonic()
        self.before: dict[str, float] = {}  # the part of each job that was done before this start

    def update(self, event: dict[str, Any]) -> None:
        part = 1.0 if event["event"] == "done" else event["done"]
        self.before.setdefault(event["job"], part)
        self.parts[event["job"]] = part

    def done(self) -> float:
        return self._weigh(self.parts) / (sum(self.costs.values()) or 1.0)

    def seconds_left(self) -> float:
        """The time left; 0.0 while it is unknown.

        The first steps are slow, as they compile and read: their pace would predict hours.
        """
        before = self._weigh(self.before)
        here = self._weigh(self.parts) - before
        if here <= MIN_SHARE_FOR_ESTIMATE * (sum(self.costs.values()) - before):
            return 0.0
        # Of five folds, two at a time, the last one trains alone: so the time left is more than the
        # sum of what is left, divided by two.
        rest = [self.costs[key] * (1 - part) for key, part in
                sorted(self.parts.items(), key=lambda item: item[1] == 0) if key in self.costs]
        pace = here / self.at_once / (time.monotonic() - self.began)
        return makespan(rest, self.at_once) / pace

    def _weigh(self, parts: dict[str, float]) -> float:
        return sum(self.costs.get(key, 0.0) * part for key, part in parts.items())


def _numbers(event: dict[str, Any]) -> str:
    return (f"epoch {event['epoch']}/{event['epochs']}, loss {event['loss']:.3f}, accuracy "
            f"{event['accuracy']:.4f}, "
            f"{event['images_per_second']:,.0f} images/s")


def choose_progress(quiet: bool = False, as_json: bool = False) -> Progress:
    """The Progress for these options: live bars if stderr is a terminal, otherwise plain lines."""
    if as_json:
        return JsonProgress()
    if quiet:
        return Progress()
    return LiveProgress() if sys.stderr.isatty() else PlainProgress()
