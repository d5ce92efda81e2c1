"""A submission that keeps its weights predicts without its run: at once, and in a kernel."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import kit
from kit.commands import cli
from kit.core import storage
from kit.core.errors import KitError
from kit.rehearsal.rehearse import rehearse

QUICK = ["--epochs", "1", "--limit", "20", "--folds", "2", "--executor", "local", "--quiet"]
TEST = Path("data/kannada-mnist-sample/test.csv")


def said(capsys, *words):
    code = cli.run([str(word) for word in words])
    return code, "".join(capsys.readouterr())


def test_weights_are_kept_when_asked_and_go_with_the_folds_that_they_are_of(workplace, capsys):
    command = ["submit", "--model", "mlp", *QUICK, "--run", "a"]
    assert said(capsys, *command)[0] == 0
    code, text = said(capsys, "predict", "submissions/a", "--test", TEST, "--out", "p.npz")
    assert code == 2 and "submissions/a is a submission that does not keep its run's weights" in text
    assert "name its run a in its place, or" in text and "kit report a --keep-weights" in text
    assert said(capsys, "submit", "--resume", "--run", "a", "--keep-weights", "--quiet")[0] == 0
    shutil.rmtree("submissions/a/weights")
    code, text = said(capsys, "report", "a", "--keep-weights")
    assert code == 0 and "weights: submissions/a/weights, 2." in text
    assert "kit predict submissions/a --test FILE --out FILE" in text
    assert said(capsys, "report", "a")[0] == 0  # writes the submission again, and leaves the weights there
    assert "finished, with weights" in said(capsys, "runs")[1]
    shutil.move("runs", "elsewhere")
    assert said(capsys, "predict", "submissions/a", "--test", TEST, "--out", "p.npz", "--quiet")[0] == 0
    assert said(capsys, "predict", "a", "--test", TEST, "--out", "labels.csv", "--quiet")[0] == 0
    kept = storage.read_npz(Path("submissions/a/test.npz"))
    predicted = np.load("p.npz")
    np.testing.assert_array_equal(predicted["id"], kept["id"])
    np.testing.assert_allclose(predicted["probs"], kept["probs"], atol=2e-3)
    labels, submitted = (Path(name).read_text().splitlines() for name in ("labels.csv", "submissions/a/submission.csv"))
    assert sum(a != b for a, b in zip(labels, submitted, strict=True)) <= 2  # of 800 rows
    code, text = said(capsys, *command)  # trained anew: other folds
    assert code == 0 and "the weights in submissions/a/weights were those of other folds" in text
    assert not Path("submissions/a/weights").exists()
    shutil.rmtree("runs")
    code, text = said(capsys, "kernel", "build", "--mode", "predict", "--run", "submissions/a")
    assert code == 2 and "train it again and keep them: kit submit" in text


def test_what_would_be_too_large_is_refused_before_anything_is_trained(workplace, capsys):
    code, text = said(capsys, "submit", "--model", "mlp", "--folds", "20", "--run", "a", "--keep-weights", "--quiet")
    assert code == 2 and "22 MB as float16, and a submission keeps 20 MB at most" in text
    assert not Path("runs/a").exists()


@pytest.mark.slow
def test_a_fresh_clone_predicts_and_builds_a_kernel_from_what_was_kept(workplace, capsys, monkeypatch):
    code, text = said(capsys, "submit", "--model", "light", "--epochs", "12", "--folds", "2", "--executor", "local",
                      "--run", "a", "--keep-weights")
    assert code == 0, text
    shutil.rmtree("runs")
    assert said(capsys, "validate", "submissions/a/submission.csv")[0] == 0
    code, text = said(capsys, "compare", "a", "a")
    assert code == 0 and "a is compared with itself." in text
    result = kit.predict("a", TEST, "p.npz", quiet=True)
    kept = storage.read_npz(Path("submissions/a/test.npz"))
    probs = np.load("p.npz")["probs"]
    assert result["rows"] == len(kept["id"])
    # Label spreading follows a row's nearest neighbours, and rounding changes some of these.
    assert np.abs(probs - kept["probs"]).sum(1).mean() / 2 < 0.01
    assert (probs.argmax(1) == kept["probs"].argmax(1)).mean() >= 0.99
    total = sum(path.stat().st_size for path in Path("submissions/a/weights").iterdir())
    assert total < 2 * 2 * 145_882 * 1.1 + 50_000  # of light: two folds, two bytes a number

    assert said(capsys, "kernel", "build", "--mode", "predict", "--run", "submissions/a", "--user", "me")[0] == 0
    assert sorted(path.name for path in Path("kernel/weights").iterdir()) == [
        "config.json", "dataset-metadata.json", "light-seed_0-fold_0.npz", "light-seed_0-fold_1.npz", "manifest.json"]
    verdict = rehearse(Path("kernel"), Path("data/kannada-mnist-sample"), time_limit=600, out=Path("out"))
    assert verdict.reasons == []
    assert (verdict.report["complete"], verdict.report["used"]) == (True, "ensemble")
    assert len(verdict.report["kernel"]["folds"]) == 2 and verdict.accuracy > 0.8

    # A clone whose recipe is another one by now says so, when it predicts and before a kernel is pushed.
    monkeypatch.setitem(kit.training.models.RECIPES, "light", kit.training.models.get("strong"))
    stored = json.loads(Path("submissions/a/config.json").read_text())
    storage.write_json(Path("submissions/a/config.json"), {**stored, "code": "of then"})
    for call in (lambda: kit.predict("a", TEST, "q.npz", quiet=True),
                 lambda: kit.commands.actions_kaggle.build(mode="predict", run="a", out="k")):
        with pytest.raises(KitError, match="has the weights of another light than the kit's of today"):
            call()
    assert not Path("k").exists()
