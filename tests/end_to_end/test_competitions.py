"""Other competitions than Kannada-MNIST, from an .npz to a submission that validates and is scored."""

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest

from kit.commands import cli
from kit.data import competition as competitions
from kit.data.competition import DIGIT_RECOGNIZER, KANNADA, Competition
from tests.test_docs import ROOT, blocks

TINY_IMAGES = Competition(slug="arrows", title="Arrows", url="https://example.org/arrows", shape=(12, 10),
                          class_names=("up", "right", "down", "left"), id_column="picture",
                          submission_columns=("picture", "direction"), label_column="direction")


def easy(shape, n_classes, n, seed):
    """Images whose class is where the ink is, with noise; uint8 (n, h, w), and labels."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) % n_classes)
    images = rng.integers(0, 60, (n, *shape), np.uint8)
    flat = images.reshape(n, -1)
    width = flat.shape[1] // n_classes
    for image, label in zip(flat, labels, strict=True):
        image[label * width:(label + 1) * width] += 190
    return images, labels


def fashion() -> Competition:
    """The competition that the page on competitions describes, by running its code."""
    code = blocks((ROOT / "docs" / "competitions.md").read_text("utf-8"), "python")[0]
    names = {"Competition": Competition, "KANNADA": KANNADA, "DIGIT_RECOGNIZER": DIGIT_RECOGNIZER}
    exec(code, names)
    assert set(names["COMPETITIONS"]) == {"kannada-mnist", "digit-recognizer", "fashion-mnist"}
    return names["COMPETITIONS"]["fashion-mnist"]


def kit(*arguments):
    """Run a command on the files here; its JSON."""
    return cli.run([*arguments, "--json"])


def test_every_setting_is_explained():
    page = (ROOT / "docs" / "competitions.md").read_text("utf-8")
    named = set(re.findall(r"`(\w+)`", page))
    assert {field.name for field in dataclasses.fields(Competition)} <= named


@pytest.mark.slow
@pytest.mark.parametrize("which", ["digit-recognizer", "fashion-mnist", "arrows"])
def test_from_an_npz_to_a_scored_submission(which, tmp_path, monkeypatch, capsys):
    competition = {"digit-recognizer": lambda: DIGIT_RECOGNIZER, "fashion-mnist": fashion,
                   "arrows": lambda: TINY_IMAGES}[which]()
    monkeypatch.setitem(competitions.COMPETITIONS, which, competition)
    monkeypatch.chdir(tmp_path)
    (x_train, y_train), (x_test, y_test) = (easy(competition.shape, competition.n_classes, n, n) for n in (400, 50))
    np.savez("digits.npz", x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)

    assert kit("download", "--competition", which, "--from", "digits.npz") == 0
    assert kit("submit", "--competition", which, "--model", "mlp", "--folds", "2", "--epochs", "8",
               "--batch-size", "20", "--precision", "float32", "--executor", "local", "--tensorboard",
               "--run", "first") == 0
    for fold in ("fold_0", "fold_1"):
        assert len(list(Path("runs/first/tensorboard/mlp/seed_0", fold).glob("*.tfevents.*"))) == 1
    file = Path("submissions") / "first" / "submission.csv"
    lines = file.read_text().splitlines()
    assert lines[0] == ",".join(competition.submission_columns) and len(lines) == 51
    assert lines[1].startswith(f"{competition.first_id},")

    capsys.readouterr()
    assert kit("validate", "--competition", which, str(file)) == 0
    assert json.loads(capsys.readouterr().out) == {"ok": True, "problems": [], "notes": []}
    assert kit("score", "--competition", which, str(file)) == 0
    score = json.loads(capsys.readouterr().out)
    predicted = np.array([int(line.split(",")[1]) for line in lines[1:]])
    assert score["accuracy"] == (predicted == y_test).mean() > 0.9
    assert [row["actual"] for row in score["shown"]] == y_test[:20].tolist()

    report = json.loads((file.parent / "report.json").read_text())
    assert report["competition"]["slug"] == which and len(report["confusion"]) == competition.n_classes
    assert report["cv"]["split"] == "stratified" and report["dig_mnist"] is None and not report["data"]["is_sample"]
    assert competition.title in (file.parent / "report.html").read_text()
