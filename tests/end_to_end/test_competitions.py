"""Other competitions than Kannada-MNIST, from an .npz to a submission that validates and is scored."""

import dataclasses
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from kit.commands import cli
from kit.data import competition as competitions
from kit.data.competition import DIGIT_RECOGNIZER, Competition
from tests import public_formats as public
from tests.public_formats import easy
from tests.test_docs import ROOT

TINY_IMAGES = Competition(slug="arrows", title="Arrows", url="https://example.org/arrows", shape=(12, 10),
                          class_names=("up", "right", "down", "left"), id_column="picture",
                          submission_columns=("picture", "direction"), label_column="direction")


def kit(*arguments):
    """Run a command on the files here; its JSON."""
    return cli.run([*arguments, "--json"])


def test_every_setting_is_explained():
    page = (ROOT / "docs" / "competitions.md").read_text("utf-8")
    named = set(re.findall(r"`(\w+)`", page))
    assert {field.name for field in dataclasses.fields(Competition)} - {"file"} <= named


@pytest.mark.slow
@pytest.mark.parametrize("which", ["digit-recognizer", "arrows"])
def test_from_an_npz_to_a_scored_submission(which, tmp_path, monkeypatch, capsys):
    competition = {"digit-recognizer": DIGIT_RECOGNIZER, "arrows": TINY_IMAGES}[which]
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


SIGNS = ("--competition", "sign-language.toml")


@pytest.mark.slow
def test_a_competition_of_one_s_own_goes_the_whole_way(tmp_path, monkeypatch, capsys):
    """Sign Language MNIST as it is on Kaggle, by its TOML file alone."""
    def said(*arguments):
        capsys.readouterr()
        assert kit(*arguments) == 0
        return json.loads(capsys.readouterr().out.splitlines()[-1])

    monkeypatch.chdir(tmp_path)
    public.write_toml_files()
    public.draw_sign_language(Path("signs.zip"))
    said("download", *SIGNS, "--from", "signs.zip")
    findings = said("doctor", *SIGNS)["findings"]
    assert "sign-language-mnist" in next(each["found"] for each in findings
                                         if each["name"] == "data")
    data = competitions.get("sign-language.toml")
    assert said("show", *SIGNS, "5")["label"] == data.label(int(easy((28, 28), 24, 240, 240)[1][5]))

    trained = said("submit", *SIGNS, "--model", "mlp", "--folds", "2", "--epochs", "20",
                   "--batch-size", "20", "--precision", "float32", "--executor", "local",
                   "--run", "first")
    assert trained["competition"]["labels"] == [k for k in range(25) if k != 9]
    assert trained["cv"]["split"] == "stratified" and trained["test"]["class_prior"]["spread"] is None
    rows = Path("submissions/first/submission.csv").read_text().splitlines()
    labels = {row.split(",")[1] for row in rows[1:]}
    assert rows[0] == "id,label" and len(rows) == 49 and "24" in labels and "9" not in labels
    assert said("validate", *SIGNS, "submissions/first/submission.csv")["ok"]
    score = said("score", *SIGNS, "submissions/first/submission.csv")
    assert score["accuracy"] > 0.8 and max(row["actual"] for row in score["shown"]) > 20
    page = Path("submissions/first/report.html").read_text("utf-8")
    assert '<span>Y</span></span> <span class="soft">24</span>' in page and "Sign Language MNIST" in page

    # What is recorded is enough, and a changed file is named.
    about = json.loads(Path("submissions/first/config.json").read_text("utf-8"))
    file = Path("sign-language.toml")
    assert about["competition_file"]["text"] == file.read_text("utf-8")
    assert about["competition_file"]["path"] == "sign-language.toml"
    before = file.read_text("utf-8")
    file.write_text(before.replace("title = \"Sign", "title = \"My sign"), "utf-8")
    capsys.readouterr()
    assert cli.run(["report", "first"]) == 0
    assert "note: sign-language.toml has another title than when first began; what it was then is " \
        "shown" in capsys.readouterr().out
    assert cli.run(["cv", "--resume", "--run", "first"]) == 2
    assert "the run 'first' was made differently: sign-language.toml has another title" \
        in capsys.readouterr().err
    predicts = ("--mode", "predict", "--run", "first", "--out", "k")
    assert cli.run(["kernel", "build", *SIGNS, *predicts]) == 2
    assert "trained for another title of sign-language-mnist" in capsys.readouterr().err
    file.unlink()
    assert said("report", "first")["competition"]["title"] == "Sign Language MNIST"
    test = "data/sign-language-mnist/sign_mnist_test.csv"
    assert said("predict", "first", "--test", test, "--out", "labels.csv")["rows"] == 48
    assert Path("labels.csv").read_text().splitlines() == rows
    file.write_text(before, "utf-8")

    # To Kaggle: both kernels have the file with them.
    assert cli.run(["kernel", "build", *predicts]) == 2
    assert f"build it with {shlex.join(SIGNS)}" in capsys.readouterr().err
    said("kernel", "build", *SIGNS, *predicts)
    said("kernel", "build", *SIGNS, "--model", "mlp", "--folds", "2", "--epochs", "20",
         "--time-budget", "5m", "--out", "trains", "--kind", "notebook")
    file.unlink()
    for folder in ("k", "trains"):
        verdict = said("kernel", "rehearse", folder, "--time-limit", "8m")
        assert verdict["ok"] and verdict["accuracy"] > 0.5, verdict
        assert verdict["report"]["used"] == "ensemble"
