"""From data to a submission through the command line, on files that are looked at afterwards."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from kit.commands import cli
from kit.core import storage
from kit.data.competition import KANNADA
from kit.ensembling.prior import class_prior

QUICK = ["--model", "mlp", "--epochs", "1", "--limit", "20", "--folds", "2", "--quiet"]


def kit(capsys, *arguments):
    code = cli.run([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_submit_leaves_a_submission_that_validates_and_its_report(workplace, capsys):
    code, out, _ = kit(capsys, "submit", *QUICK, "--run", "first", "--executor", "local")
    assert code == 0
    assert "Drawn sample" in out and "submissions/first/submission.csv" in out
    folder = workplace / "submissions" / "first"
    for name in ("submission.csv", "report.json", "report.html", "config.json", "oof.npz", "test.npz"):
        assert (folder / name).stat().st_size > 0
    submission = pd.read_csv(folder / "submission.csv")
    test = pd.read_csv(workplace / "data" / "kannada-mnist-sample" / "test.csv", usecols=["id"])
    assert list(submission) == ["id", "label"] and submission["id"].tolist() == test["id"].tolist()
    with np.load(workplace / "runs" / "first" / "test.npz") as probs, np.load(folder / "test.npz") as handed_in:
        labels = class_prior("auto", KANNADA, probs["probs"]).apply(probs["probs"]).argmax(1)
        np.testing.assert_array_equal(labels, submission["label"])
        assert handed_in["probs"].dtype == np.float16 and handed_in["id"].tolist() == test["id"].tolist()
        np.testing.assert_array_equal(handed_in["probs"], probs["probs"].astype("float16"))  # before any prior
    report = json.loads((folder / "report.json").read_text())
    assert report["data"]["is_sample"] and report["complete"] and report["cv"]["keeps_writers_apart"]
    assert report["cv"]["n_folds"] == 2 and len(report["cv"]["fold_accuracy"]) == 2
    (alike,) = report["trained_with"]
    assert len(alike["folds"]) == 2 and alike["device"] and "keras" in alike["software"]
    with np.load(folder / "oof.npz") as oof:
        assert oof["probs"].dtype == np.float16
        assert (oof["probs"].argmax(1) == oof["label"]).mean() == pytest.approx(report["cv"]["oof_accuracy"], abs=0.02)
    assert kit(capsys, "validate", folder / "submission.csv")[0] == 0
    (folder / "submission.csv").write_text((folder / "submission.csv").read_text().replace("\n0,", "\n0,1", 1))
    code, out, _ = kit(capsys, "validate", folder / "submission.csv")
    assert code == 1 and "line 2" in out


@pytest.mark.slow  # a quicker one is in tests/training/test_executors.py
def test_the_same_run_by_processes_gives_the_same_probs(workplace):
    """Bit for bit, at equal threads per fold; each in a Python of its own, since TensorFlow fixes its threads once."""
    environment = {**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[2])}
    for name in ("local", "processes"):
        command = [sys.executable, "-m", "kit", "cv", *QUICK, "--run", name, "--executor", name, "--threads", "1"]
        subprocess.run(command, cwd=workplace, env=environment, check=True, capture_output=True)
    for file, array in (("test.npz", "id"), ("test.npz", "probs"), ("oof.npz", "probs")):
        a, b = (np.load(workplace / "runs" / name / file)[array] for name in ("local", "processes"))
        np.testing.assert_array_equal(a, b)


def test_a_run_is_neither_overwritten_nor_changed_under_its_name(workplace, capsys):
    assert kit(capsys, "cv", *QUICK, "--run", "a", "--executor", "local")[0] == 0
    before = (workplace / "runs" / "a" / "test.npz").read_bytes()
    code, _, err = kit(capsys, "cv", *QUICK, "--run", "a")
    assert code == 2 and "exists" in err and "--resume" in err
    code, _, err = kit(capsys, "cv", *QUICK, "--run", "a", "--resume", "--seed", "3")
    assert code == 2 and "seed: 0 → 3" in err
    assert (workplace / "runs" / "a" / "test.npz").read_bytes() == before
    assert kit(capsys, "cv", *QUICK, "--run", "a", "--resume")[0] == 0
    code, _, err = kit(capsys, "cv", *QUICK, "--run", "b", "--resume")
    assert code == 2 and "no run 'b'" in err


def test_the_command_in_a_report_names_no_folder_of_this_machine(workplace, capsys, monkeypatch):
    runs, options = workplace / "home" / "ada", ["cv", *QUICK, "--run", "a", "--executor", "local"]
    words = [*options[:1], "--runs-dir", str(runs), *options[1:], f"--data-dir={workplace / 'data'}"]
    monkeypatch.setattr(sys, "argv", ["kit", *words])
    assert kit(capsys, *words)[0] == 0
    assert storage.read_json(runs / "a" / "config.json")["command"] == shlex.join(["kit", *options])


def test_a_run_by_an_odd_path_has_its_own_submission(workplace, capsys):
    assert kit(capsys, "submit", *QUICK, "--run", "a", "--executor", "local")[0] == 0
    before = {path: path.read_bytes() for path in workplace.rglob("*") if path.is_file() and "runs" not in path.parts}
    assert kit(capsys, "report", "runs/a/mlp/..")[0] == 0
    after = {path: path.read_bytes() for path in workplace.rglob("*") if path.is_file() and "runs" not in path.parts}
    assert after.keys() == before.keys()


def test_a_run_from_before_the_class_prior_is_reported_and_resumed(workplace, capsys):
    """Its config has `balanced` instead, and its submission no test.npz."""
    assert kit(capsys, "submit", *QUICK, "--run", "a", "--executor", "local")[0] == 0
    for folder in ("runs/a", "submissions/a"):
        about = storage.read_json(workplace / folder / "config.json")
        del about["config"]["class_prior"]
        storage.write_json(workplace / folder / "config.json", about | {"config": about["config"] | {"balanced": None}})
    (workplace / "submissions/a/test.npz").unlink()
    assert kit(capsys, "report", "a")[0] == 0
    assert (workplace / "submissions/a/test.npz").is_file()
    assert kit(capsys, "cv", *QUICK, "--run", "a", "--resume")[0] == 0


def test_predict_reproduces_the_runs_own_test_probs(workplace, capsys):
    assert kit(capsys, "submit", *QUICK, "--run", "a", "--executor", "local")[0] == 0
    test = workplace / "data" / "kannada-mnist-sample" / "test.csv"
    assert kit(capsys, "predict", "a", "--test", test, "--out", "probs.npz")[0] == 0
    np.testing.assert_array_equal(np.load("probs.npz")["probs"], np.load("runs/a/test.npz")["probs"])
    lines = test.read_text().splitlines()
    (workplace / "other.csv").write_text("\n".join([lines[0], *lines[11:18]]) + "\n")
    assert kit(capsys, "predict", "a", "--test", "other.csv", "--out", "labels.csv")[0] == 0
    expected = pd.read_csv("submissions/a/submission.csv").iloc[10:17].reset_index(drop=True)
    pd.testing.assert_frame_equal(pd.read_csv("labels.csv"), expected)
    assert not Path("checksums.json").exists()  # this folder is the user's
    for out, said in (("other.csv", "is the test file itself"), ("runs/a/folds.csv", "an artifact of the kit's own")):
        code, _, err = kit(capsys, "predict", "a", "--test", "other.csv", "--out", out)
        assert code == 2 and said in err
    code, _, err = kit(capsys, "predict", "a", "--test", "other.csv", "--out", "labels.txt")
    assert code == 2 and "neither .csv nor .npz" in err


def test_a_budget_that_is_too_short_leaves_a_partial_ensemble_that_says_so(workplace, capsys):
    code, _, err = kit(capsys, "cv", *QUICK, "--run", "none", "--executor", "local", "--time-budget", "0s")
    assert code == 2 and "no finished fold" in err
    assert kit(capsys, "cv", *QUICK, "--run", "none", "--executor", "local", "--time-budget", "1h", "--resume")[0] == 0
    assert json.loads((workplace / "runs" / "none" / "report.json").read_text())["complete"]


@pytest.mark.parametrize(("arguments", "words"), [
    (["cv", "--model", "resnet"], "no model 'resnet'"),
    (["cv", "--model", "mlp", "--folds", "1"], "--folds 1"),
    (["cv", "--model", "mlp", "--folds", "31"], "30 writers"),
    (["cv", "--model", "mlp", "--time-budget", "soon"], "no duration"),
    (["cv", "--model", "mlp", "--run", "../x"], "is a path, not the name of a run"),
    (["cv", "--data-dir", "nowhere"], "nowhere"),
    (["cv", "--competition", "imagenet"], "no competition 'imagenet'"),
    (["cv", "--flods", "3"], "--flods"),
    (["frobnicate"], "frobnicate"),
    (["download", "--from", "no-such.zip"], "no-such.zip"),
    (["validate", "no-such.csv"], "no-such.csv"),
    (["report", "nothing"], "no run 'nothing'"),
    (["predict", "nothing", "--test", "a", "--out", "b.csv"], "no run 'nothing'"),
])
def test_wrong_input_is_two_lines_and_exit_2(workplace, capsys, arguments, words):
    code, out, err = kit(capsys, *arguments)
    assert code == 2 and out == ""
    lines = [line for line in err.splitlines() if line.startswith(("error: ", "fix: "))]
    assert len(lines) == 2 and words in err
    assert "Traceback" not in err
    assert not (workplace / "runs").exists() or not any((workplace / "runs").iterdir())


def test_a_cell_that_is_no_pixel_is_found_and_nothing_is_started(workplace, capsys):
    path = workplace / "data" / "kannada-mnist-sample" / "train.csv"
    lines = path.read_text().splitlines()
    cells = lines[4].split(",")
    cells[7] = "256"
    lines[4] = ",".join(cells)
    path.write_text("\n".join(lines) + "\n")
    code, _, err = kit(capsys, "cv", *QUICK, "--run", "a")
    assert code == 2 and "line 5" in err and "pixel6" in err and "256" in err
