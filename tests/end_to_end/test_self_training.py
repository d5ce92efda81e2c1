"""`--self-train 2`: every fold goes on with the guessed test rows; killed and resumed, it ends the same."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from kit.commands import cli
from kit.core import storage
from kit.ensembling.scored_run import read_scored_run
from kit.kernel import weights
from kit.training import job_runner, jobs, pace, planning
from kit.training.pace import Cost

COMMON = ["--model", "mlp", "--epochs", "1", "--limit", "20", "--folds", "2", "--quiet", "--executor", "local"]
GUESSED = "mlp/seed_0/fold_{}/guesses_{}"


def probs(path):
    return storage.read_npz(Path(path))["probs"]


@pytest.fixture(scope="module")
def trained(sample_data, tmp_path_factory):
    """A folder with a self-trained run in it."""
    here = tmp_path_factory.mktemp("self")
    shutil.copytree(sample_data, here / "data")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        assert cli.run(["submit", *COMMON, "--self-train", "2", "--run", "first"]) == 0
    return here


@pytest.fixture
def run(trained, tmp_path, monkeypatch):
    """A copy of its run folder, in a working folder with the same data."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs" / "first"


def test_the_folds_learn_what_the_ensemble_of_their_first_halves_guessed(run):
    alone = [probs(run / f"mlp/seed_0/fold_{k}/test.npz") for k in (0, 1)]
    guesses = storage.read_npz(run / "guesses_1.npz")
    np.testing.assert_array_equal(guesses["label"], np.mean(alone, 0).argmax(1))
    first, second = ([probs(run / GUESSED.format(k, n) / "test.npz") for k in (0, 1)] for n in (1, 2))
    np.testing.assert_array_equal(storage.read_npz(run / "guesses_2.npz")["label"], np.mean(first, 0).argmax(1))
    np.testing.assert_array_equal(probs(run / "test.npz"), np.mean(np.array(second, "float64"), 0).astype("float32"))
    before, after = (np.mean([each.argmax(1) == guesses["label"] for each in part]) for part in (alone, first))
    assert after > before + 0.02  # the folds have learnt from each other


def test_a_new_run_is_compared_with_what_it_read_before(run, capsys):
    """`kit cv --against first`: the new run has no self-training, so the old one's doesn't count."""
    plain = [storage.read_npz(run / f"mlp/seed_0/fold_{k}/val.npz") for k in (0, 1)]
    oof = storage.read_npz(run / "oof.npz")
    for held_out in plain:
        of_fold = np.isin(oof["row"], held_out["row"])
        np.testing.assert_array_equal(oof["probs_before_self_training"][of_fold], held_out["probs"])
    submission = run.parents[1] / "submissions" / "first"
    for folder in (run, submission):
        compared, final = (read_scored_run(folder, before) for before in (True, False))
        assert (compared.probs != final.probs).any()
        np.testing.assert_allclose(compared.probs, oof["probs_before_self_training"], atol=1e-3)

    # Of a run of an older kit, and written again.
    storage.write_npz(run / "oof.npz", row=oof["row"], probs=oof["probs"])
    assert cli.run(["cv", "--model", "mlp", "--quiet", "--run", "next", "--against", "first"]) == 2
    err = capsys.readouterr().err
    assert "first was self-trained" in err and "kit report first" in err
    assert cli.run(["report", "first"]) == 0
    assert (storage.read_npz(run / "oof.npz")["probs_before_self_training"]
            == oof["probs_before_self_training"]).all()


def test_without_time_for_a_round_what_it_read_before_is_what_it_reads(run, monkeypatch):
    """`kit cv --against` once refused such a run, and the `kit report` that it advised could not help."""
    for done in run.glob("mlp/seed_0/fold_*/guesses_*/done.json"):
        done.unlink()
    assert cli.run(["report", "first", "--quiet"]) == 0
    assert not storage.read_json(run / "report.json")["complete"]
    before, final = (read_scored_run(run, before) for before in (True, False))
    np.testing.assert_array_equal(before.probs, final.probs)


def test_what_is_held_out_stays_held_out(run):
    for k in (0, 1):
        done = json.loads((run / GUESSED.format(k, 1) / "done.json").read_text())
        plain = json.loads((run / f"mlp/seed_0/fold_{k}/done.json").read_text())
        n_test = len(storage.read_npz(run / "guesses_1.npz")["id"])
        assert done["train_rows"] == plain["train_rows"] + jobs.GUESSES_TIMES * n_test
        np.testing.assert_array_equal(*[storage.read_npz(folder / "val.npz")["row"] for folder in
                                        (run / GUESSED.format(k, 1), run / f"mlp/seed_0/fold_{k}")])


def test_the_report_says_so_and_shows_the_whole_curve(run):
    report = json.loads((run / "report.json").read_text())
    assert any("Self-training" in note for note in report["notes"]) and report["complete"]
    assert report["members"][0]["epochs"] == 1 + 2 + 2
    assert "Self-training" in (run / "report.html").read_text()
    before, after = (np.mean([probs(run / f"mlp/seed_0/fold_{k}" / part / "test.npz")
                              for k in (0, 1)], 0).argmax(1) for part in ("", "guesses_2"))
    changed = int((before != after).sum())
    step, = report["test"]["changes"]["steps"]  # the mlp reads row by row
    assert (step["step"], step["rows"]) == ("self-training", changed)
    assert changed == report["test"]["changes"]["rows"] > 0


def test_the_report_says_what_label_spreading_changed_before_it(run):
    """Of folds that have kept what their networks read before it; here of one, by ten rows."""
    fold = run / "mlp/seed_0/fold_0/test.npz"
    arrays = storage.read_npz(fold)
    turned = arrays["probs"].copy()
    turned[:10] = np.eye(10, dtype="float32")[(turned[:10].argmax(1) + 1) % 10]
    storage.write_npz(fold, **arrays, probs_before_spreading=turned)
    before = json.loads((run / "report.json").read_text())["test"]["changes"]
    assert cli.run(["report", "first"]) == 0
    after = json.loads((run / "report.json").read_text())["test"]["changes"]
    assert [step["step"] for step in after["steps"]] == ["label spreading", "self-training"]
    assert 0 < after["steps"][0]["rows"] <= 10 and after["steps"][1:] == before["steps"]


def test_killed_while_it_learns_from_guesses_it_ends_the_same(run, monkeypatch):
    whole = probs(run / "test.npz")
    for name in ("oof.npz", "test.npz", "report.json", "guesses_2.npz", f"{GUESSED.format(1, 1)}/done.json"):
        (run / name).unlink()
    for k in (0, 1):
        shutil.rmtree(run / GUESSED.format(k, 2))
    trained_again = []
    train_job = job_runner.train_job

    def watched(plan, job, *rest):
        trained_again.append(job.key)
        return train_job(plan, job, *rest)

    monkeypatch.setattr(job_runner, "train_job", watched)
    assert cli.run(["submit", *COMMON, "--self-train", "2", "--run", "first", "--resume"]) == 0
    assert trained_again == [GUESSED.format(1, 1), GUESSED.format(0, 2), GUESSED.format(1, 2)]
    np.testing.assert_array_equal(probs(run / "test.npz"), whole)


@pytest.mark.parametrize(("unfinished", "rounds"), [
    ("mlp/seed_0/fold_1", []), (GUESSED.format(1, 1), [1]), ("planned", []), ("paced", [])])
def test_where_the_time_ends_no_round_learns_from_a_part_of_the_ensemble(
        workplace, trained, monkeypatch, unfinished, rounds):
    """A round's guesses are kept, so a resumed run would go on with what half a run had guessed."""
    command = ["cv", *COMMON, "--self-train", "2", "--run", "short"]
    run = Path("runs/short")
    with monkeypatch.context() as patch:
        if unfinished == "planned":  # two folds take 2,002 s
            patch.setattr(pace, "measure", lambda *_: {"mlp": Cost(1000.0, 1.0, 300.0)})
        if unfinished == "paced":
            patch.setattr(planning, "seconds_of_round", lambda *_: 1000.0)
        patch.setattr(job_runner.Clock, "has_time_for", lambda _, job: job.key != unfinished)
        assert cli.run([*command, "--time-budget", "900s"]) == 0
    report = json.loads((run / "report.json").read_text())
    assert not report["complete"] and not any("Self-training" in note for note in report["notes"])
    assert sorted(run.glob("guesses_*.npz")) == [run / f"guesses_{n}.npz" for n in rounds]
    assert cli.run([*command, "--resume", "--time-budget", "2h"]) == 0
    assert json.loads((run / "report.json").read_text())["complete"]
    whole = trained / "runs" / "first"
    for name in ("guesses_1.npz", "guesses_2.npz"):
        np.testing.assert_array_equal(*[storage.read_npz(folder / name)["label"]
                                        for folder in (run, whole)])
    for name in ("oof.npz", "test.npz"):
        np.testing.assert_array_equal(probs(run / name), probs(whole / name))


def test_a_finished_run_can_go_on_with_it(workplace, trained):
    assert cli.run(["submit", *COMMON, "--run", "later"]) == 0
    plain = probs("runs/later/test.npz")
    assert cli.run(["submit", *COMMON, "--run", "later", "--resume", "--self-train", "2"]) == 0
    np.testing.assert_array_equal(probs("runs/later/test.npz"), probs(trained / "runs" / "first" / "test.npz"))
    assert np.abs(plain - probs("runs/later/test.npz")).max() > 1e-3


def test_fewer_rounds_than_there_are_means_fewer(workplace, trained):
    """A resume may leave self-training out: no round of a part of the folds is mixed with the others' first halves."""
    assert cli.run(["submit", *COMMON, "--run", "less"]) == 0
    plain = probs("runs/less/test.npz")
    assert cli.run(["submit", *COMMON, "--run", "less", "--resume", "--self-train", "1"]) == 0
    (Path("runs/less") / GUESSED.format(1, 1) / "done.json").unlink()
    assert cli.run(["submit", *COMMON, "--run", "less", "--resume", "--self-train", "0"]) == 0
    np.testing.assert_array_equal(probs("runs/less/test.npz"), plain)
    report = json.loads(Path("runs/less/report.json").read_text())
    assert report["complete"] and not any("Self-training" in note for note in report["notes"])


def test_prediction_and_the_kernels_weights_use_what_has_learnt_from_guesses(run, tmp_path):
    test = tmp_path / "data" / "kannada-mnist-sample" / "test.csv"
    assert cli.run(["predict", "first", "--test", str(test), "--out", "again.npz", "--quiet"]) == 0
    np.testing.assert_array_equal(probs("again.npz"), probs(run / "test.npz"))
    weights.pack(run, tmp_path / "weights", "me/some-weights")
    packed = (tmp_path / "weights" / "mlp-seed_0-fold_0.keras").read_bytes()
    assert packed == (run / GUESSED.format(0, 2) / "model.keras").read_bytes()


def test_guesses_for_other_rows_are_refused(run, capsys):
    storage.write_npz(run / "guesses_2.npz", id=np.arange(3), label=np.zeros(3, "uint8"))
    (run / GUESSED.format(1, 2) / "done.json").unlink()
    capsys.readouterr()
    assert cli.run(["submit", *COMMON, "--self-train", "2", "--run", "first", "--resume"]) == 2
    assert "guesses_2.npz" in capsys.readouterr().err
