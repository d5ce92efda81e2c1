"""The child process that trains or predicts on Kaggle: `python -m kit.runtime.worker '{"settings": ...}'`.

It gets the supervisor's request as JSON and fills the run folder by way of the kit's own pipeline, which continues
whatever an earlier child has left. Every sign of progress touches the heartbeat, which names the folds under way.
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
from kit.data import competition as competitions
from kit.data.source import DataFolder
from kit.kernel import weights
from kit.runtime.supervisor import HEARTBEAT

ENVIRONMENT = "environment.json"  # versions and machine, for the kernel's report even where no fold gets done


@dataclass(frozen=True)
class Wish:
    """What the supervisor asks of a child."""

    settings: dict[str, Any]  # the kernel's
    data: str
    run: str
    deadline: float  # of time.time: stop training by then
    left_out: Sequence[str] = ()  # jobs not to train
    one_at_a_time: bool = False  # an earlier child took too much memory, or nobody knows which fold took it down

    def command(self) -> list[str]:
        return [sys.executable, "-m", "kit.runtime.worker", json.dumps(asdict(self))]


class Beat(progress.PlainProgress):
    """Plain lines, and a heartbeat file that names the first `lanes` folds that are not done: those are under way."""

    def __init__(self, path: Path, lanes: int = 1) -> None:
        super().__init__()
        self.path, self.lanes = path, lanes
        self.todo: list[str] = []

    def start(self, costs: dict[str, float], at_once: int = 1) -> None:
        self.todo = list(costs)
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
        self.path.write_text(json.dumps({"jobs": self.todo[:self.lanes]}), "utf-8")


def main(argument: str) -> None:
    """Do what the wish says; exceptions end the process, and its supervisor sees to the rest."""
    wish = Wish(**json.loads(argument))
    data = DataFolder(Path(wish.data), competitions.get(wish.settings["competition"]))
    run = RunFolder(Path(wish.run))
    beat = Beat(run.path / HEARTBEAT)
    storage.write_json(run.path / ENVIRONMENT, backend.describe())
    if wish.settings["mode"] == "predict":
        _predict(data, run, beat, wish)
    else:
        _train(data, run, beat, wish)


def _train(data: DataFolder, run: RunFolder, beat: Beat, wish: Wish) -> None:
    from kit import pipeline

    settings = wish.settings
    config = RunConfig(competition=settings["competition"], models=tuple(settings["models"]),
                       n_folds=settings["folds"], epochs=settings["epochs"], seed=settings["seed"],
                       n_seeds=settings["seeds"], class_prior=settings["class_prior"],
                       executor="local" if wish.one_at_a_time else "auto",
                       time_budget=max(wish.deadline - time.time(), 0.0))
    beat.lanes = _lanes(config)
    pipeline.cv(config, data, run, beat, resume=True, leave_out=frozenset(wish.left_out), baseline_first=True)


def _lanes(config: RunConfig) -> int:
    """How many folds the pipeline will train at a time, at most."""
    from kit.training import executors, workers
    from kit.training.plan import make_jobs

    settled, _ = executors.settle(config)
    n_jobs = len(make_jobs(settled, settled.precision))
    return len(workers.worker_slots(n_jobs, settled.threads)) if settled.executor == "processes" else 1


def _predict(data: DataFolder, run: RunFolder, beat: Beat, wish: Wish) -> None:
    """Label the test file with every model that came along, one after the other."""
    from kit.ensembling import predict
    from kit.training.jobs import FoldJob

    test, done = data.test(), finished_folds(run.path)
    todo = [key for key in fold_keys(run.path, weights.TRAINED) if key not in wish.left_out and key not in done]
    facts = {key: storage.read_json(run.path / key / weights.TRAINED) for key in todo}
    jobs = {key: FoldJob(**facts[key]["job"]) for key in todo}
    backend.configure_devices()
    beat.start(dict.fromkeys(todo, 1.0))
    for note in {predict.precision_note(job) for job in jobs.values()} - {""}:
        beat.say(note)
    for key in todo:
        began, fold = time.perf_counter(), run.path / key
        probs = predict.fold_probs(fold / "model.keras", jobs[key], data.competition, test.pixels)
        storage.write_npz(fold / "test.npz", id=np.asarray(test.ids), probs=probs)
        seconds = time.perf_counter() - began
        storage.write_json(fold / "done.json", facts[key] | {"predict_seconds": seconds})
        beat.handle({"event": "done", "job": key, "val_accuracy": facts[key]["val_accuracy"], "seconds": seconds})


if __name__ == "__main__":
    main(sys.argv[1])
