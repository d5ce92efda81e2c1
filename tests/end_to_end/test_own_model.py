"""A model and an augmentation of one's own go the whole way: cv, submit, predict, report, kernel, rehearsal."""

import json
from pathlib import Path

import numpy as np
import pytest

import kit
from kit.commands import cli
from kit.core import storage
from kit.core.errors import KitError
from kit.rehearsal.rehearse import rehearse

TEXT = """
from keras import layers
import kit

@kit.recipe(epochs=1, batch_size=32, optimizer="sgd", learning_rate=0.1, augment=kit.Augment(shift=0.1))
def build():
    return [layers.AveragePooling2D(4), layers.Flatten(), layers.Dropout(0.1)]

@kit.recipe(epochs=6, batch_size=32, learning_rate=0.004)
def better():
    return [layers.Conv2D(8, 5, strides=2, activation="relu"), layers.Flatten(), layers.Dense(32, activation="relu")]

def flipped(images, numbers):
    return images[:, :, ::-1]

def faded(images, numbers):
    return images * (1 - 0.1 * numbers[:, :1, None, None])
"""
OPTIONS = ["--model", "my_model.py:build", "--folds", "2", "--limit", "16", "--precision", "float32", "--quiet"]


def kit_fails(capsys, *words):
    assert cli.run(list(words)) == 2
    return capsys.readouterr().err


def probs(path):
    return storage.read_npz(Path(path))["probs"]


@pytest.fixture
def folder(workplace):
    (workplace / "my_model.py").write_text(TEXT)
    return workplace


@pytest.mark.slow
def test_the_whole_way(folder, capsys):
    run = folder / "runs" / "mine"
    assert cli.run(["cv", *OPTIONS, "--run", "mine", "--executor", "processes"]) == 0
    config = json.loads((run / "config.json").read_text())
    digest = storage.sha256_file(folder / "my_model.py")
    assert config["own_files"] == {"my_model.py": digest}
    assert (run / "my_model.py").read_text() == config["config"]["code"]["my_model.py"] == TEXT
    assert (run / "my_model-build" / "seed_0" / "fold_1" / "model.keras").is_file()

    # Another process, or another augmentation
    assert cli.run(["cv", *OPTIONS, "--run", "again", "--executor", "local"]) == 0
    assert cli.run(["cv", *OPTIONS, "--augment", "my_model.py:flipped", "--run", "flipped", "--executor", "local"]) == 0
    again, flipped = (probs(folder / "runs" / name / "oof.npz") for name in ("again", "flipped"))
    np.testing.assert_allclose(probs(run / "oof.npz"), again, atol=1e-5)
    assert np.abs(flipped - again).max() > 1e-4

    # A changed file is refused by name, a missing one is not needed
    (folder / "my_model.py").write_text(TEXT.replace("Dropout(0.1)", "Dropout(0.2)"))
    capsys.readouterr()
    for words in (["--run", "mine"], [*OPTIONS[:2], "--run", "mine"]):
        said = kit_fails(capsys, "submit", "--resume", *words)
        assert "my_model.py has changed since the run 'mine' began" in said
        assert "cp runs/mine/my_model.py my_model.py" in said
    (folder / "my_model.py").unlink()
    assert cli.run(["submit", "--resume", "--run", "mine", "--quiet"]) == 0
    submission = folder / "submissions" / "mine"
    assert cli.run(["validate", str(submission / "submission.csv")]) == 0

    # Predicting and reporting take the code from the run
    test = folder / "data" / "kannada-mnist-sample" / "test.csv"
    assert cli.run(["predict", "mine", "--test", str(test), "--out", "probs.npz", "--quiet"]) == 0
    np.testing.assert_allclose(probs("probs.npz"), probs(run / "test.npz"), atol=1e-5)
    capsys.readouterr()
    assert cli.run(["report", "mine", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["config"]["code"] == {"my_model.py": digest}
    own = report["members"][0]
    assert (own["model"], own["parameters"], own["mflops_per_image"]) == ("my_model-build", 500, 980 / 1e6)
    page = (submission / "report.html").read_text()
    assert "my_model-build" in page and f"my_model.py {digest}" in page
    assert cli.run(["compare", "mine", "flipped"]) == 0
    blended = kit.blend(["again", "flipped"], run="both", quiet=True)
    assert [each["models"] for each in blended["blend"]["runs"]] == [["my_model-build"]] * 2


@pytest.mark.slow
def test_kernels_take_the_file_along(folder):
    """One trains it there, one predicts with the weights of a run."""
    words = ["kernel", "build", "--user", "me", "--accelerator", "none"]
    assert cli.run([*words, "--model", "my_model.py:better", "--augment", "my_model.py:faded", "--folds", "2",
                    "--out", "trains"]) == 0
    assert cli.run(["cv", *OPTIONS, "--run", "mine", "--executor", "local"]) == 0
    (folder / "my_model.py").unlink()
    assert cli.run([*words, "--mode", "predict", "--run", "mine", "--out", "predicts"]) == 0
    for name, model in (("trains", "my_model-better"), ("predicts", "my_model-build")):
        verdict = rehearse(folder / name, folder / "data" / "kannada-mnist-sample", time_limit=1200)
        assert verdict.ok and verdict.reasons == []
        assert verdict.report["used"] == "ensemble"
        assert f"{model}/seed_0/fold_1" in verdict.report["kernel"]["folds"]


def test_a_model_that_fails_leaves_no_run(folder):
    (folder / "my_model.py").write_text(TEXT.replace("layers.Flatten(), ", ""))
    with pytest.raises(KitError, match=r"my_model.py:build ends in 7 × 7 × 1 for each image"):
        kit.cv(model="my_model.py:build", limit=16, folds=2, run="mine", executor="local", quiet=True)
    assert not (folder / "runs" / "mine" / "config.json").exists()
