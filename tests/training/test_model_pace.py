"""`kit models --measure`: this machine's pace, and what five folds of each model take."""

import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import kit
from kit.core.config import RunConfig
from kit.core.progress import Progress
from kit.data.competition import KANNADA
from kit.training import executors, model_pace, models, pace, planning
from kit.training.jobs import make_jobs
from kit.training.model_pace import Noise, Pace
from kit.training.pace import Cost

COSTS = {"mlp": Cost(2.0, 3.0), "cnn": Cost(60.0, 8.0), "strong": Cost(48.0, 50.0)}  # invented


class Said(Progress):
    def __init__(self):
        self.lines = []

    def say(self, text):
        self.lines.append(text)


class TwoWorkers:
    n_parallel = 2

    def __init__(self, config):
        assert config.n_jobs == 5  # so the cores are shared as in a run of one model

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


@pytest.fixture
def two_workers(monkeypatch):
    monkeypatch.setattr(model_pace, "Executor", TwoWorkers)
    monkeypatch.setattr(executors, "settle",
                        lambda config: (replace(config, precision="float32"), "asked for", ""))
    monkeypatch.setattr(pace, "measure", lambda executor, config, jobs, data, patience:
                        {job.model: COSTS[job.model] for job in jobs})


def test_five_folds_take_what_a_run_is_planned_with(two_workers):
    said = Said()
    paces, config, n_workers = model_pace.measure(["mlp", "strong"], {}, KANNADA, said)
    assert paces["strong"].seconds == pytest.approx(3 * (16 * 48 + 50))  # the third pair of folds
    assert paces["strong"].images_per_second == pytest.approx(2 * 48_000 / 48)
    jobs = [job for job in make_jobs(RunConfig(models=("strong",)), "float32")
            if job.model == "strong"]
    assert paces["strong"].seconds == planning.seconds_of(jobs, COSTS, 2)
    assert "mlp, strong" in said.lines[0] and "about 19 s" in said.lines[0]
    assert said.lines[1:] == ["mlp: 48,000 images/s", "strong: 2,000 images/s"]
    text = model_pace.lines(model_pace.curve([row("mlp"), row("strong")], paces), config, n_workers)
    assert text[2].split()[:6] == ["strong", "2,000", "16", "41", "min", "0.9920"]
    assert text[3] == ("measured on this machine: 2 folds at a time, float32, 60,000 rows; a run "
                       "also trains the baseline, mlp")


def row(name):
    return models.row(models.get(name))


def test_the_fastest_come_first_and_what_a_faster_one_beats_is_said():
    rows = [row(name) for name in ("strong", "cnn", "mlp", "light")]
    own = row("cnn") | {"model": "my_model-build", "accuracy": None, "hard_accuracy": None}
    seconds = {"mlp": 20, "light": 150, "cnn": 370, "my_model-build": 400, "strong": 990}
    curve = model_pace.curve([*rows, own], {name: Pace(1.0, t) for name, t in seconds.items()})
    assert [each["model"] for each in curve] == list(seconds)
    better = {each["model"]: each["better"] for each in curve}
    assert better == dict.fromkeys(seconds) | {"cnn": "light"}
    text = model_pace.lines(curve, RunConfig(precision="bfloat16"), 2)
    assert text[3].endswith("light is better") and text[2].endswith("the best")
    assert text[4].endswith("not known  not known")
    # Alike in accuracy, only the faster one is worth its time
    twin = row("light") | {"model": "twin"}
    curve = model_pace.curve([twin, row("light")], {"twin": Pace(1, 3), "light": Pace(1, 2)})
    assert curve[1]["model"] == "twin" and curve[1]["better"] == "light"


def test_a_model_that_could_not_be_measured_comes_last_and_the_others_stand(two_workers,
                                                                           monkeypatch):
    monkeypatch.setattr(pace, "measure", lambda executor, config, jobs, *_:
                        COSTS if jobs[0].model == "strong" else None)
    said = Said()
    paces, config, n_workers = model_pace.measure(["mlp", "strong"], {}, KANNADA, said)
    curve = model_pace.curve([row("mlp"), row("strong")], paces)
    assert [each["model"] for each in curve] == ["strong", "mlp"] and curve[0]["better"] is None
    assert curve[1]["seconds"] is None and "not answer in time" in said.lines[1]
    assert "not measured" in model_pace.lines(curve, config, n_workers)[2]


def test_the_noise_has_the_competition_s_size_and_travels_without_its_pixels():
    data = Noise(Path("noise"), KANNADA)
    assert pace.fold_rows(RunConfig(), data) == 48_000 and len(data.test()) == 5_000
    assert data.train().pixels.shape == (60_000, 784) and len(np.unique(data.train().labels)) == 10
    assert len(pickle.dumps(data)) < 20_000


def test_the_command_measures_without_any_data(tmp_path, monkeypatch):
    """In this process, with few rows and the smallest network; no stand-in otherwise."""
    monkeypatch.chdir(tmp_path)
    settle = executors.settle
    monkeypatch.setattr(executors, "settle",
                        lambda config: settle(replace(config, executor="local")))
    for name, rows in (("TRAIN_ROWS", 600), ("TEST_ROWS", 50), ("EXTRA_ROWS", 50)):
        monkeypatch.setattr(model_pace, name, rows)
    monkeypatch.setattr(pace, "MEASURING", 0.1)
    model_pace._noise.cache_clear()
    result = kit.models(model="tiny", measure=True, quiet=True)
    model_pace._noise.cache_clear()
    [tiny] = json.loads(result.to_json())["models"]
    assert tiny["model"] == "tiny" and tiny["images_per_second"] > 0 < tiny["seconds"]
    assert (result["n_folds"], result["n_workers"], result["rows"]) == (5, 1, 600)
    assert list(tmp_path.iterdir()) == []
