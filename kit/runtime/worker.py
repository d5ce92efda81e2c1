"""The child process that trains or predicts on Kaggle.

It is started as `python -m kit.runtime.worker '{"settings": …}'`, its arguments as JSON. It fills
the run folder through `kit.pipeline`, which continues what an earlier child has left. Every event
updates the heartbeat file, which names the folds under way.
"""

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kit.core import backend, progress, storage
from kit.core.config import RunConfig
from kit.core.run_folder import RunFolder, finished_folds, fold_keys
from kit.data.source import DataFolder
from kit.kernel import weights
from kit.kernel.builder import packed_competition, packed_own_files
from kit.runtime.supervisor import HEARTBEAT

ENVIRONMENT = "environment.json"  # versions and machine, for the report of a kernel without folds


@dataclass(frozen=True)
class WorkerArgs:
    """The arguments of a child process."""

    settings: dict[str, Any]  # the kernel's
    data: str
    run: str
    deadline: float  # of time.time: stop training by then
    left_out: Sequence[str] = ()  # jobs not to train
    one_at_a_time: bool = False  # memory was short, or it is not known which fold failed

    def command(self) -> list[str]:
        """The command that starts a child with these arguments."""
        return [sys.executable, "-m", "kit.runtime.worker", json.dumps(asdict(self))]


class HeartbeatProgress(progress.PlainProgress):
    """Plain lines, and a heartbeat file with the unfinished folds that are trained now."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path, self.at_once = path, 1
        self.todo: list[str] = []

    def start(self, costs: dict[str, float], at_once: int = 1) -> None:
        self.todo, self.at_once = list(costs), at_once
        self._beat()
        super().start(costs, at_once)

    def say(self, text: str) -> None:
        self._beat()
        super().say(text)

    def handle(self, event: dict[str, Any]) -> None:
        if event["event"] == "done" and event["job"] in self.todo:
            self.todo.remove(event["job"])
        self._beat()
        super().handle(event)

    def _beat(self) -> None:
        self.path.write_text(json.dumps({"jobs": self.todo[:self.at_once]}), "utf-8")


def main(argument: str) -> None:
    """Train or predict as the arguments (JSON) say; an exception ends the process."""
    args = WorkerArgs(**json.loads(argument))
    data = DataFolder(Path(args.data), packed_competition(args.settings))
    run = RunFolder(Path(args.run))
    heartbeat = HeartbeatProgress(run.path / HEARTBEAT)
    storage.write_json(run.path / ENVIRONMENT, backend.describe())
    if args.settings["mode"] == "predict":
        _predict(data, run, heartbeat, args)
    else:
        _train(data, run, heartbeat, args)


def _train(data: DataFolder, run: RunFolder, heartbeat: HeartbeatProgress,
           args: WorkerArgs) -> None:
    from kit import pipeline

    settings = args.settings
    code = {name: text for name, text in packed_own_files().items() if name.endswith(".py")}
    config = RunConfig(competition=settings["competition"], models=tuple(settings["models"]),
                       n_folds=settings["folds"], epochs=settings["epochs"], seed=settings["seed"],
                       n_seeds=settings["seeds"], class_prior=settings["class_prior"],
                       self_train=settings["self_train"], train_extra=settings["train_extra"],
                       augment=settings.get("augment"), code=code,
                       executor="local" if args.one_at_a_time else "auto",
                       time_budget=max(args.deadline - time.time(), 0.0))
    pipeline.cv(config, data, run, heartbeat, resume=True, leave_out=frozenset(args.left_out),
                baseline_first=True)


def _predict(data: DataFolder, run: RunFolder, heartbeat: HeartbeatProgress,
             args: WorkerArgs) -> None:
    """Predict the test file with every fold that was packed with the kernel."""
    from kit.ensembling import predict
    from kit.training.jobs import FoldJob
    from kit.training.records import read_config

    config, test, done = read_config(run.path), data.test(), finished_folds(run.path)
    todo = [key for key in fold_keys(run.path, weights.TRAINED)
            if key not in args.left_out and key not in done]
    facts = {key: storage.read_json(run.path / key / weights.TRAINED) for key in todo}
    jobs = {key: FoldJob(**facts[key]["job"]) for key in todo}
    backend.configure_devices()
    heartbeat.start(dict.fromkeys(todo, 1.0))
    for note in {predict.precision_note(job) for job in jobs.values()} - {""}:
        heartbeat.say(note)
    for key in todo:
        began, fold = time.perf_counter(), run.path / key
        probs = predict.fold_probs(weights.model_file(fold), jobs[key], config, data.competition,
                                   test.pixels, heartbeat.say)
        storage.write_npz(fold / "test.npz", id=np.asarray(test.ids), probs=probs)
        seconds = time.perf_counter() - began
        storage.write_json(fold / "done.json", facts[key] | {"predict_seconds": seconds})
        heartbeat.handle({"event": "done", "job": key, "val_accuracy": facts[key]["val_accuracy"],
                          "seconds": seconds})


if __name__ == "__main__":
    main(sys.argv[1])
