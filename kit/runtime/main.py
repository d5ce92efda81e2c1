"""The kernel's main process on Kaggle: it always leaves a submission, in time.

It writes `submission.csv`, `report.json` and `kernel.log` into the working folder. Kaggle accepts
no submission from a kernel that fails or runs over its time. So this process does nothing that can
fail: it writes a fallback submission within seconds, leaves all training to child processes that
may die, and writes a better submission after every fold and every round of self-training.
"""

import contextlib
import itertools
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import kit
from kit.core import provenance, storage, system
from kit.core.errors import KitError
from kit.core.run_folder import RunFolder, fold_keys, round_key
from kit.data.competition import Competition
from kit.data.source import MANIFEST
from kit.ensembling.prior import class_prior
from kit.kernel import weights
from kit.kernel.builder import packed_competition
from kit.runtime.current_probs import (
    CurrentProbs,
    count_folds,
    lenient_ids,
    nearest_centroid,
    read_current_probs,
)
from kit.runtime.mounts import find_data, find_weights, kaggle_root
from kit.runtime.supervisor import Limits, Outcome, supervise
from kit.runtime.worker import ENVIRONMENT, WorkerArgs

SUBMISSION = "submission.csv"
LIMIT_SHARE = 0.92  # of the time limit in KIT_TIME_LIMIT, if any; as 110 minutes of 2 hours
CLOSING_SHARE, CLOSING_SECONDS = 0.05, (5.0, 120.0)  # of the budget, kept for blending and reports
MEMORY_SHARE = 0.9  # of the machine's memory: beyond it the kernel itself would be killed
# A child hangs if it shows no progress for this share of the budget
STALL_SHARE, STALL_SECONDS = 0.15, (600.0, 900.0)


def main(settings: dict[str, Any],
         child_command: Callable[[WorkerArgs], list[str]] = WorkerArgs.command) -> int:
    """Run the kernel; returns 0 whatever happens. `settings`: those of the kernel's code file."""
    kernel = KernelRun(settings, child_command)
    with kernel.handle_signals():
        for step in (kernel.open, kernel.fallback, kernel.work, kernel.close):
            try:
                step()
            except Exception as error:  # whatever it is, the next step may still succeed
                reason = traceback.format_exc().strip()
                if isinstance(error, KitError):
                    reason = f"{error.message}; {error.fix}"
                kernel.say(f"{step.__name__} failed: {reason}")
                kernel.events.append(f"{step.__name__} failed: {reason.splitlines()[-1]}")
    return 0


class KernelRun:
    """One run of the kernel, from its start to its report."""

    def __init__(self, settings: dict[str, Any],
                 child_command: Callable[[WorkerArgs], list[str]]) -> None:
        self.settings, self.child_command = settings, child_command
        self.began = time.monotonic()
        limit = float(os.environ.get("KIT_TIME_LIMIT", "inf"))  # set by a rehearsal
        self.budget = min(float(settings["minutes"]) * 60, limit * LIMIT_SHARE)  # seconds
        self.competition: Competition = packed_competition(settings)
        self.root = kaggle_root()
        self.working = self.root / "working"
        self.log = self.working / "kernel.log"
        self.echoed = 0
        self.data: Path | None = None
        self.mounted = ""  # where Kaggle mounted what `data` links to
        self.ids: np.ndarray = np.zeros(0, np.int64)
        self.run = RunFolder(self.working / "run")
        self.current, self.outcome = CurrentProbs(), Outcome()
        self.events: list[str] = []
        self.stop = False

    # -- its steps ---------------------------------------------------------------------------------

    def open(self) -> None:
        """Find the data, and link it into a temporary folder, where the cache can be written."""
        self.say(f"kit {kit.__version__}, {self.settings['mode']}, {self.budget:.0f} s: "
                 f"{self.settings}")
        mounted = find_data(self.root / "input", self.competition)
        self.mounted = str(mounted)
        self.say(f"data: {mounted}")
        self.data = Path(tempfile.mkdtemp(prefix="kit-data-"))
        for path in (*mounted.glob("*.csv"), *mounted.glob(MANIFEST)):
            (self.data / path.name).symlink_to(path)

    def fallback(self) -> None:
        """Write a submission within seconds: nearest class mean, or if that fails, one class."""
        from kit.data.table import read_table

        if self.data is None:
            return
        test = self.data / self.competition.test
        try:
            table = read_table(test, self.competition, labelled=False)
            self.ids = np.asarray(table.ids)
            train = read_table(self.data / self.competition.train, self.competition, labelled=True)
            probs = nearest_centroid(train, table, self.competition.n_classes)
        except Exception as error:  # the ids may still be readable
            self.say(str(error))
            self.events.append(error.message if isinstance(error, KitError) else repr(error))
            self.ids = self.ids if len(self.ids) else lenient_ids(test, self.competition)
            probs = np.zeros((len(self.ids), self.competition.n_classes), "float32")
            probs[:, 0] = 1
        self.write_submission(probs)
        self.say(f"a first submission for {len(self.ids):,} ids is written")

    def work(self) -> None:
        """Let children train or predict until all is done or the time is over."""
        if self.data is None:
            return
        if self.settings["mode"] == "predict":
            digest = self.settings["manifest_sha256"]
            source = find_weights(self.root / "input", self.settings["weights"], digest)
            manifest = weights.unpack(source, self.run.path, digest)
            self.say(f"weights: {count_folds(manifest['files'])} of {manifest['run']}, in {source}")
        closing = min(max(self.budget * CLOSING_SHARE, CLOSING_SECONDS[0]), CLOSING_SECONDS[1])
        stall = min(max(self.budget * STALL_SHARE, STALL_SECONDS[0]), STALL_SECONDS[1])
        memory = system.memory_limit()
        limits = Limits(self.began + self.budget - closing / 2, stall,
                        memory and int(memory * MEMORY_SHARE))
        deadline = time.time() + (self.began + self.budget - closing - time.monotonic())

        def command(left_out: frozenset[str], one_at_a_time: bool) -> list[str]:
            return self.child_command(WorkerArgs(self.settings, str(self.data), str(self.run.path),
                                                 deadline, sorted(left_out), one_at_a_time))

        # Children import the packed kit, and on a TPU Keras runs on JAX.
        path = filter(None, [str(Path(kit.__file__).parents[1]), os.environ.get("PYTHONPATH")])
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path), "PYTHONUNBUFFERED": "1"}
        if self.settings.get("backend"):
            environment["KERAS_BACKEND"] = self.settings["backend"]
        wanted = frozenset([*self.planned(), *itertools.chain(*self.planned_rounds().values())])
        self.outcome = supervise(command, self.run.path, wanted, limits, self.update_submission,
                                 self.on_poll, self.log, environment)
        for event in self.outcome.events:
            self.say(event)

    def close(self) -> None:
        """Update the submission a last time, and report what was used."""
        self.echo_log()
        self.update_submission()
        report = self.report()
        storage.write_json(self.working / "report.json", report)
        complete = "complete" if self.current.complete else "not complete"
        self.say(f"done after {time.monotonic() - self.began:.0f} s: {self.current.used}, "
                 f"{self.current.about}, {complete}")

    # -- what they share ---------------------------------------------------------------------------

    def planned(self) -> list[str]:
        """The keys of the folds that the settings ask for."""
        if self.settings["mode"] == "predict":
            return fold_keys(self.run.path, weights.TRAINED)
        first, folds = self.settings["seed"], range(self.settings["folds"])
        return [f"{model}/seed_{seed}/fold_{fold}" for model in self.settings["models"]
                for seed in range(first, first + self.settings["seeds"]) for fold in folds]

    def planned_rounds(self) -> dict[int, list[str]]:
        """The keys of the folds' rounds of self-training, by round; none in predict mode."""
        return {n: [round_key(key, n) for key in self.planned()]
                for n in range(1, self.settings.get("self_train", 0) + 1)}

    def update_submission(self) -> None:
        """Write the submission again, from all folds and rounds that are finished by now."""
        if not len(self.ids):
            return
        try:
            current = read_current_probs(self.run, self.planned(), self.ids,
                                         self.competition.n_classes, len(self.planned_rounds()))
            if current.probs is not None and (current.folds, current.rounds) != (
                    self.current.folds, self.current.rounds):
                prior = class_prior(self.settings["class_prior"], self.competition, current.probs)
                self.write_submission(prior.apply(current.probs))
                self.say(f"the submission is now the {current.used}'s, of {current.about}; "
                         f"class prior: {prior.why}")
            for key in sorted(current.left_out.keys() - self.current.left_out.keys()):
                self.say(f"{key} is left out: {current.left_out[key]}")
            self.current = current  # only once it is written: otherwise the next update tries again
        except Exception as error:  # the submission that is there stays, and the children go on
            self.say(f"could not update the submission: {error}")

    def write_submission(self, probs: np.ndarray) -> None:
        from kit.ensembling.submission import write_submission

        write_submission(self.working / SUBMISSION, self.ids, probs, self.competition)

    def report(self) -> dict[str, Any]:
        """The content of report.json: the run's own if there is one, and what this kernel used."""
        report = {}
        with contextlib.suppress(KitError):
            report = storage.read_json(self.run.path / "report.json")
        if "environment" not in report:
            report["environment"] = {"python": provenance.installed_version("python")}
            with contextlib.suppress(KitError):
                report["environment"] = storage.read_json(self.run.path / ENVIRONMENT)
        rounds = self.current.rounds
        accuracy = {key: self.current.accuracy[round_key(key, rounds) if rounds else key]
                    for key in self.current.folds}
        mean = float(np.mean(list(accuracy.values()))) if accuracy else None
        report.setdefault("cv", {"fold_accuracy": list(accuracy.values()), "mean": mean})
        sent = self.working / SUBMISSION
        missing = {key: "failed" if key in self.outcome.left_out else "no time"
                   for key in self.planned() if key not in self.current.folds}
        missing |= {key: why for key, why in self.current.left_out.items() if key in missing}
        # A round that is missing leaves those after it out, too.
        missing_rounds, why = {}, "folds are missing" if missing else ""
        for n, keys in self.planned_rounds().items():
            failed = "failed" if set(keys) & set(self.outcome.left_out) else ""
            unused = next((self.current.left_out[key] for key in keys
                           if key in self.current.left_out), "")
            if n > self.current.rounds:
                why = missing_rounds[n] = why or failed or unused or "no time"
        return report | {
            "complete": self.current.complete, "used": self.current.used,
            "kernel": {"version": kit.__version__, "settings": self.settings, "data": self.mounted,
                       "versions": provenance.installed_versions(), "test_rows": len(self.ids),
                       "folds": accuracy, "missing_folds": missing,
                       "rounds": self.current.rounds, "missing_rounds": missing_rounds,
                       "children": self.outcome.starts,
                       "events": [*self.events, *self.outcome.events],
                       "seconds": round(time.monotonic() - self.began, 1),
                       "budget_seconds": self.budget,
                       "submission_sha256": storage.sha256_file(sent) if sent.is_file() else None}}

    def say(self, text: str) -> None:
        """Write a line to kernel.log, and echo it for Kaggle's own log."""
        with contextlib.suppress(OSError):
            self.working.mkdir(parents=True, exist_ok=True)
            with self.log.open("a", encoding="utf-8") as log:
                log.write(f"[{time.monotonic() - self.began:7.1f} s] {text}\n")
        self.echo_log()

    def echo_log(self) -> None:
        """Print the new lines of kernel.log, this process' and the children's."""
        with contextlib.suppress(OSError), self.log.open("rb") as log:
            log.seek(self.echoed)
            new = log.read()
            self.echoed += len(new)
            sys.stdout.write(new.decode("utf-8", "replace"))
            sys.stdout.flush()

    def on_poll(self) -> bool:
        """Called by the supervisor at every poll; whether to stop."""
        self.echo_log()
        return self.stop

    @contextlib.contextmanager
    def handle_signals(self) -> Iterator[None]:
        """A context in which SIGTERM and SIGINT end the work early, with submission and report."""
        def stop(number: int, frame: object) -> None:
            self.stop = True
            self.events.append(f"asked to stop by {signal.Signals(number).name}")

        before = {}
        for number in (signal.SIGTERM, signal.SIGINT):
            with contextlib.suppress(ValueError):  # not in the main thread
                before[number] = signal.signal(number, stop)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
