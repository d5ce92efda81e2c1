"""`--train-extra`: the folds learn from Dig-MNIST.csv as well, which is then no test, and the report says so."""

import dataclasses
import shutil

import numpy as np
import pytest

from kit.commands import cli, request
from kit.core import storage
from kit.core.errors import KitError
from kit.core.progress import Progress
from kit.data import source
from kit.data.competition import COMPETITIONS, KANNADA
from kit.data.folds import load_folds
from kit.kernel import builder
from kit.training import jobs, pace
from kit.training.jobs import Plan, make_jobs, self_training_jobs
from kit.training.records import read_config
from tests.data.tiny import TINY, write_folder

COMMON = ["--model", "mlp", "--epochs", "1", "--limit", "20", "--folds", "2", "--quiet", "--executor", "local"]
FOLD = "runs/first/mlp/seed_0/fold_0"


@pytest.fixture(scope="module")
def trained(sample_data, tmp_path_factory):
    here = tmp_path_factory.mktemp("extra")
    shutil.copytree(sample_data, here / "data")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        assert cli.run(["submit", *COMMON, "--train-extra", "--self-train", "1", "--run", "first"]) == 0
        assert cli.run(["submit", *COMMON, "--run", "plain"]) == 0
    return here


@pytest.fixture
def here(trained, tmp_path, monkeypatch):
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def data_of(here):
    return source.find_data(KANNADA, here / "data")


def test_a_fold_learns_from_its_rows_and_from_that_file_and_no_held_out_row(here):
    config, data = read_config(here / "runs/first"), data_of(here)
    folds, train, extra = load_folds(here / "runs/first/folds.csv"), data.train(), data.extra()
    plan = Plan(config, data, here / "runs/first", folds, make_jobs(config, "float32"))
    for job in (plan.jobs[0], self_training_jobs(plan)[0]):
        fold = jobs.fold_data(plan, job)
        assert fold.extra_pixels is None and not np.isin(fold.val_rows, fold.train_rows).any()
        learned = fold.train_rows[fold.train_rows >= len(train)]
        rows, times = np.unique(learned, return_counts=True)
        of_extra = rows < len(train) + len(extra)
        assert of_extra.sum() == len(extra) and (times[of_extra] == 1).all()
        np.testing.assert_array_equal(fold.pixels[rows[of_extra]], extra.pixels)
        np.testing.assert_array_equal(fold.labels[rows[of_extra]], extra.labels)
        guessed = rows[~of_extra]
        assert len(guessed) == (len(data.test()) if job.guesses else 0)
        assert (times[~of_extra] == jobs.GUESSES_TIMES).all()
        np.testing.assert_array_equal(fold.pixels[guessed], data.test().pixels[:len(guessed)])
    done = storage.read_json(here / FOLD / "done.json")
    assert done["train_rows"] == (folds.fold != 0).sum() + len(extra) == pace.fold_rows(config, data)


def test_the_report_does_not_take_it_for_a_test(here, capsys):
    assert not list(here.glob("runs/first/**/extra.npz")) and list(here.glob("runs/plain/**/extra.npz"))
    report = storage.read_json(here / "submissions/first/report.json")
    assert report["config"]["train_extra"] and report["dig_mnist"] is None
    note, = [note for note in report["notes"] if "--train-extra" in note]
    assert "learned from Dig-MNIST.csv as well" in note and "no test of them" in note
    page = (here / "submissions/first/report.html").read_text("utf-8")
    assert "learned from Dig-MNIST.csv as well" in page and "It is not used to choose anything" not in page
    assert cli.run(["report", "first", "--quiet"]) == 0
    assert "Dig-MNIST" not in capsys.readouterr().out
    plain = storage.read_json(here / "submissions/plain/report.json")
    assert plain["dig_mnist"]["rows"] and not any("--train-extra" in note for note in plain["notes"])


def test_it_goes_on_as_it_began(here, capsys):
    again = ["cv", "--resume", "--run", "first", "--quiet", "--executor", "local"]
    assert cli.run([*again, "--no-train-extra"]) == 2
    assert "train_extra: True → False" in capsys.readouterr().err
    shutil.rmtree(here / FOLD)
    assert cli.run(again) == 0
    assert storage.read_json(here / FOLD / "done.json")["train_rows"] \
        > storage.read_json(here / "runs/plain/mlp/seed_0/fold_0/done.json")["train_rows"]


def test_a_blend_says_why_it_is_left_out(here):
    assert cli.run(["blend", "first", "plain", "--run", "both", "--quiet"]) == 0
    report = storage.read_json(here / "submissions/both/report.json")
    assert report["dig_mnist"] is None
    assert "Dig-MNIST.csv is left out: first learned from it." in report["notes"]
    shutil.rmtree(here / "runs")
    assert cli.run(["blend", "first", "plain", "--run", "again", "--quiet"]) == 0
    note, = [note for note in storage.read_json(here / "submissions/again/report.json")["notes"] if "left out" in note]
    assert "first learned from it; the folder of a submission has no probs of it (plain)." in note
    assert any("kit submit --model mlp --seeds 2 --self-train 1 --train-extra." in note
               for note in storage.read_json(here / "submissions/again/report.json")["notes"])


def test_a_kernel_learns_from_it_as_its_setting_says(tmp_path):
    said = []
    for asked, wanted in (({}, "True"), ({"train_extra": False}, "False"), ({"models": ("cnn",)}, "False"),
                          ({"models": ("cnn",), "train_extra": True}, "True")):
        text = (builder.build(tmp_path, KANNADA, user="me", say=said.append, **asked) / "kernel.py").read_text()
        assert f'"train_extra": {wanted},' in text
    assert "from Dig-MNIST.csv as well" in said[0] and "Dig-MNIST" not in said[1]


def ask(about, folder, **options):
    given = request.TrainingOptions(data_dir=folder, runs_dir=folder / "runs", **options)
    return request.open_request(about, given, Progress()).config.train_extra


@pytest.mark.parametrize(("extra", "words", "fix"), [
    ("extra.csv", "there is no extra.csv in", "put extra.csv there, or leave --train-extra out"),
    (None, "Tiny has no labelled file of other origin", "leave --train-extra out")])
def test_it_is_refused_where_there_is_no_such_file(tmp_path, monkeypatch, extra, words, fix):
    about = dataclasses.replace(TINY, extra=extra)
    monkeypatch.setitem(COMPETITIONS, "tiny", about)
    source.download(about, write_folder(tmp_path / "given", extra=False), tmp_path)
    with pytest.raises(KitError, match=words) as error:
        ask(about, tmp_path, model="mlp", train_extra=True)
    assert fix in error.value.fix
    assert not ask(about, tmp_path, setting="cpu-45min")  # or the command that it records would be refused
    if extra is None:
        with pytest.raises(KitError, match=words):
            builder.build(tmp_path / "kernel", about, user="me", train_extra=True)
        text = (builder.build(tmp_path / "kernel", about, user="me") / "kernel.py").read_text()
        assert '"train_extra": False,' in text


def test_a_setting_does_not_bring_its_writers_among_the_easier_ones(here):
    """`--split harder` asks about writers harder than any that is trained on; that file's are harder still."""
    assert not ask(KANNADA, here / "data", setting="cpu-45min", split="harder")
    assert ask(KANNADA, here / "data", setting="cpu-45min", split="harder", train_extra=True)


def test_resumed_with_its_limit_it_keeps_what_was_asked_for(here, capsys):
    """`--limit` turns a setting's self-training and extra file off; typed again, it once turned off the user's."""
    assert cli.run(["cv", "--resume", "--run", "first", "--limit", "20", "--quiet", "--executor", "local"]) == 0
    config = storage.read_json(here / "runs/first/config.json")["config"]
    assert config["self_train"] == 1 and config["train_extra"]


def test_the_folds_have_the_same_images_in_memory(here, monkeypatch):
    monkeypatch.setattr("kit.data.cache.trusted", lambda stamp: stamp)  # else files of this minute are read anew
    config, data = read_config(here / "runs/first"), data_of(here)
    folds = load_folds(here / "runs/first/folds.csv")
    plan = Plan(config, data, here / "runs/first", folds, make_jobs(config, "float32"))
    for some in (plan.jobs, self_training_jobs(plan)):
        images = [jobs.fold_data(plan, job).pixels for job in some[:2]]
        assert images[0] is images[1]


def test_a_quick_look_does_not_learn_from_a_whole_file_unless_it_is_asked_to(here):
    assert not ask(KANNADA, here / "data", setting="cpu-45min", limit=20)
    assert ask(KANNADA, here / "data", setting="cpu-45min", limit=20, train_extra=True)
