"""Finished runs as one: aligned by row and id, weighted by OOF probs alone, of the same data."""

from dataclasses import replace

import numpy as np
import pytest

from kit import pipeline
from kit.core import storage
from kit.core.errors import KitError
from kit.core.run_folder import RunFolder
from kit.ensembling import blend_runs as blending
from kit.ensembling.blend_runs import check_weights, fit_weights, read_runs
from kit.reporting import report as reporting
from tests.reporting.conftest import build, make_results


@pytest.fixture(scope="module")
def results():
    """Two runs of the same digits in the same folds, the second of them worse."""
    return make_results(name="strong", skill=8.0), make_results(name="weak", skill=5.5, seed=8)


def written(root, results, **report):
    """The submission folder of a run, as `kit submit` writes it."""
    run, data = RunFolder(root / "runs" / results.name), results.data
    sha256 = {"train.csv": data.train().sha256, "test.csv": data.test().sha256}
    storage.write_json(run.config, {
        "config": results.config, "command": f"kit submit --run {results.name}",
        "data": {"source": data.source, "is_sample": data.is_sample, "sha256": sha256}})
    storage.write_text(run.path / "report.html", "")
    trained = pipeline.TrainedRun(run, results, build(results) | report)
    return pipeline.submit(trained, root / "submissions")


@pytest.fixture
def folders(results, tmp_path):
    return [written(tmp_path, one) for one in results]


def blend(folders, results, weights="equal"):
    config = results.config | {"command": "kit blend"}
    return blending.blend_runs("both", read_runs(folders), weights, results.data, config, {})


def shuffle(path, key):
    """Put the rows of an .npz into another order."""
    arrays = storage.read_npz(path)
    order = np.random.default_rng(1).permutation(len(arrays[key]))
    storage.write_npz(path, **{name: array[order] for name, array in arrays.items()})


# -- what is blended -------------------------------------------------------------------------------


def test_probs_are_aligned_by_row_and_id_never_by_position(folders, results):
    expected = blend(folders, results[0])
    shuffle(folders[1] / "oof.npz", "row")
    shuffle(folders[1] / "test.npz", "id")
    found = blend(folders, results[0])
    np.testing.assert_array_equal(found.oof, expected.oof)
    np.testing.assert_array_equal(found.test, expected.test)
    for name in ("oof", "test"):
        mean = (getattr(results[0], name) + getattr(results[1], name)) / 2
        np.testing.assert_allclose(getattr(found, name), mean, atol=0.001)  # float16
    assert found.oof.dtype == found.test.dtype == np.float32
    assert found.extra is None and found.complete and len(found.voters) == 2


def test_given_weights_are_shares(folders, results):
    found = blend(folders, results[0], "3,1")
    mean = 0.75 * results[0].test + 0.25 * results[1].test
    np.testing.assert_allclose(found.test, mean, atol=0.001)
    assert [each.weight for each in found.blended.runs] == [0.75, 0.25]
    assert check_weights([2, 1, 1], 3) == check_weights("2,1,1", 3) == ("given", [0.5, 0.25, 0.25])
    assert check_weights("oof", 2) == ("oof", None)


def test_a_blend_keeps_writers_apart_only_if_all_of_its_runs_do(results, tmp_path):
    folds = results[1].folds
    mixed = replace(folds, fold=(np.arange(len(folds.rows)) // 10 % 3).astype(np.int8))
    folders = [written(tmp_path, results[0]), written(tmp_path, replace(results[1], folds=mixed))]
    found = blend(folders, results[0])
    assert not found.folds.keeps_writers_apart and found.folds.split == "stratified"
    assert found.config["n_folds"] == 3
    notes = build(found)["notes"]
    assert any("different folds" in note and "strong" in note for note in notes)


def test_a_blend_can_be_blended_again(folders, results):
    first = written(folders[0].parents[1], replace(blend(folders, results[0]), name="both"))
    again = blend([first, folders[0]], results[0])
    mean = 0.75 * results[0].test + 0.25 * results[1].test
    np.testing.assert_allclose(again.test, mean, atol=0.002)


# -- weights from OOF probs ------------------------------------------------------------------------


def probs(rng, n, labels, skill):
    logits = rng.normal(0, 1, (n, 10))
    logits[np.arange(n), labels] += skill
    powers = np.exp(logits)
    return powers / powers.sum(1, keepdims=True)


def test_fitted_weights_lie_on_the_simplex_and_lose_to_no_others():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 3000)
    oof = np.stack([probs(rng, 3000, labels, skill) for skill in (3.0, 2.5, 0.0)])
    true = oof[:, np.arange(3000), labels]
    found = fit_weights(oof, labels)
    assert found.min() >= 0 and found.sum() == pytest.approx(1)
    others = np.concatenate([np.eye(3), rng.dirichlet(np.ones(3), 300)])
    least = np.log(found @ true).mean()
    assert (np.log(others @ true).mean(1) <= least + 1e-4).all()
    assert found[2] < 0.1 and found[1] < found[0]
    np.testing.assert_allclose(fit_weights(oof[::-1], labels), found[::-1], atol=0.002)


def test_one_sure_mistake_does_not_decide_the_weights():
    labels = np.zeros(1000, int)
    good, bad = np.full((1000, 10), 0.01), np.full((1000, 10), 0.05)
    good[:, 0], bad[:, 0] = 0.91, 0.55
    good[0] = np.eye(10)[1]  # p(true) is exactly 0
    assert fit_weights(np.stack([good, bad]), labels)[0] > 0.9


def test_a_writer_is_read_with_weights_that_were_fitted_to_others(folders, results):
    """Whatever happens to a writer's probs, the weights for that writer stay the same."""
    before = blend(folders, results[0], "oof")
    groups = blending.fit_groups(before.folds)
    assert (np.bincount(before.folds.writers[groups == 0], minlength=12) > 0).sum() == 3  # 0, 5, 10
    arrays = storage.read_npz(folders[0] / "oof.npz")
    arrays["probs"][groups == 0] = 0.1
    storage.write_npz(folders[0] / "oof.npz", **arrays)
    after = blend(folders, results[0], "oof")
    np.testing.assert_array_equal(after.blended.fitted[0], before.blended.fitted[0])
    assert not np.array_equal(after.blended.fitted[1], before.blended.fitted[1])
    rows = groups == 1
    weights, parts = before.blended.fitted[1], [each.oof[rows] for each in before.blended.runs]
    np.testing.assert_allclose(before.oof[rows], weights[0] * parts[0] + weights[1] * parts[1],
                               atol=1e-6)
    assert before.blended.runs[0].weight > before.blended.runs[1].weight


def test_where_writers_are_unknown_rows_are_dealt_out_at_random(results):
    folds = replace(results[0].folds, writers=None)
    groups = blending.fit_groups(folds)
    assert set(np.bincount(groups)) == {len(groups) // 5}
    for k in range(5):
        assert len(np.unique(folds.labels[groups == k])) == 10  # labels cycle, so groups must not


# -- what is refused -------------------------------------------------------------------------------


def refused(folders):
    with pytest.raises(KitError) as caught:
        read_runs(folders)
    return f"{caught.value.message} | {caught.value.fix}"


def changed_config(folder, **changes):
    about = storage.read_json(folder / "config.json")
    about["data"] |= changes.pop("data", {})
    about["config"] |= changes
    storage.write_json(folder / "config.json", about)


def test_another_test_file_is_named_with_the_command_that_makes_the_run_again(folders, results):
    changed_config(folders[1], data={"sha256": {"train.csv": results[0].data.train().sha256,
                                                "test.csv": "0" * 64}})
    said = refused(folders)
    assert "weak was made from other data than strong: test.csv is another file" in said
    assert "kit submit --run weak" in said


def test_both_files_are_named(folders):
    changed_config(folders[1], data={"sha256": {"train.csv": "1" * 64, "test.csv": "0" * 64}})
    assert "test.csv, train.csv are other files" in refused(folders)


def test_the_sample_is_not_blended_with_real_data(folders):
    changed_config(folders[1], data={"is_sample": True})
    assert "other data than strong: the drawn sample, not real data" in refused(folders)


def test_another_competition(folders):
    changed_config(folders[1], competition="digit-recognizer")
    assert "digit-recognizer, not kannada-mnist" in refused(folders)


def test_another_number_of_rows(folders):
    arrays = storage.read_npz(folders[1] / "oof.npz")
    few = {name: array[:600] for name, array in arrays.items()}
    storage.write_npz(folders[1] / "oof.npz", **few)
    said = refused(folders)
    assert "weak has scored 600 training rows, and not the same 720 as strong" in said


def test_a_run_that_is_not_complete(results, tmp_path):
    folders = [written(tmp_path, results[0]), written(tmp_path, results[1], complete=False)]
    said = refused(folders)
    assert "weak is not complete: its time budget" in said and "--resume" in said


def test_a_run_that_was_stopped_by_a_comparison(results, tmp_path):
    folders = [written(tmp_path, results[0]),
               written(tmp_path, results[1], complete=False, against={"run": "other"})]
    said = refused(folders)
    assert "weak is not complete: it was compared with other" in said and "time" not in said
    assert f"kit submit --resume --run weak --submissions {tmp_path}" in said


def test_a_run_of_the_split_harder(results, tmp_path):
    folders = [written(tmp_path, run) for run in results]
    report = storage.read_json(folders[1] / "report.json")
    storage.write_json(folders[1] / "report.json",
                       {**report, "cv": {**report["cv"], "split": "harder"}})
    assert "weak: --split harder trains on the easier" in refused(folders)


def test_a_submission_without_test_probs(folders):
    (folders[1] / "test.npz").unlink()
    said = refused(folders)
    assert "no test.npz" in said and "kit submit --run weak" in said and "kit report weak" in said


def test_one_run_alone_and_one_run_twice(folders):
    assert "at least two" in refused(folders[:1])
    assert "'strong' is given twice" in refused([folders[0], folders[1], folders[0]])


def test_test_probs_of_other_ids_are_an_error(folders, results):
    arrays = storage.read_npz(folders[1] / "test.npz")
    storage.write_npz(folders[1] / "test.npz", id=arrays["id"] + 1, probs=arrays["probs"])
    with pytest.raises(KitError, match="other ids"):
        blend(folders, results[0])


@pytest.mark.parametrize(("asked", "words"), [
    ("best", "neither equal nor oof"), ("1,x", "neither equal nor oof"), ("", "neither equal"),
    ("1,2,3", "3 numbers for 2 runs"), ("1", "1 numbers"), ("1,0", "not above 0"),
    ("1,-1", "not above 0"), ("nan,1", "not above 0"), ("inf,1", "not above 0"),
    ([1, None], "neither equal"), ([1], "1 numbers")])
def test_weights_that_are_none(asked, words):
    with pytest.raises(KitError, match=words) as caught:
        check_weights(asked, 2)
    assert "--weights 2,1" in caught.value.fix


# -- its report ------------------------------------------------------------------------------------


def test_the_report_has_the_runs_beside_the_blend(folders, results):
    found = blend(folders, results[0])
    report = reporting.build_report(found)
    said = report["blend"]
    assert [run["name"] for run in said["runs"]] == ["strong", "weak"] and said["best"] == "strong"
    for run, one in zip(said["runs"], results, strict=True):
        right = one.oof.argmax(1) == one.folds.labels
        assert run["oof_accuracy"] == pytest.approx(right.mean(), abs=0.003)
        assert run["weight"] == 0.5
    gain = report["cv"]["oof_accuracy"] - said["runs"][0]["oof_accuracy"]
    assert said["paired"]["rows"]["difference"] == pytest.approx(gain)
    assert said["fit"] is None and report["members"] == [] and report["baseline"] is None
    assert any("Dig-MNIST.csv is left out" in note for note in report["notes"])
    page = reporting.render_report(report, found)
    for words in ("What was blended", "Against strong, the best run in it", "runs vote"):
        assert words in page
    assert "How the training went" not in page
    assert report["test"]["changes"] == {"rows": None, "steps": []}


def test_the_report_of_a_blend_says_what_the_class_prior_changed(folders, results, monkeypatch):
    monkeypatch.setattr("kit.ensembling.prior.LEAST_ROWS", 10)
    monkeypatch.setattr("kit.ensembling.prior.IMPLAUSIBLE", 0)
    found = blend(folders, results[0])
    changes = reporting.build_report(found)["test"]["changes"]
    step, = changes["steps"]
    assert changes["rows"] is None and step["step"] == "class prior"
    assert step["rows"] == (found.test.argmax(1) != found.submitted.argmax(1)).sum()
    assert "Class prior changed" in reporting.render_report(reporting.build_report(found), found)


def test_the_report_says_what_the_fit_was_worth(folders, results):
    report = reporting.build_report(blend(folders, results[0], "oof"))
    fit = report["blend"]["fit"]
    assert fit["accuracy"] == report["cv"]["oof_accuracy"] and len(fit["weights"]) == 5
    saved = fit["equal_log_loss"] - fit["log_loss"]
    assert fit["log_loss_saved"]["difference"] == pytest.approx(saved)
    said = " ".join(report["verdict"]["points"])
    assert "Weights fitted to some writers and tried on the others brought" in said
    assert "a lower log loss" in said  # one run is far worse, so weights matter


def test_a_fit_that_gained_nothing_is_said_to(results, tmp_path):
    twin = replace(results[0], name="twin")
    folders = [written(tmp_path, results[0]), written(tmp_path, twin)]
    points = reporting.build_report(blend(folders, results[0], "oof"))["verdict"]["points"]
    assert any("gained nothing that shows over equal weights" in point for point in points)
    assert any("Not shown to differ from the best of them" in point for point in points)


def test_the_estimate_comes_from_those_of_the_runs(results, tmp_path):
    guess = {"value": 0.5, "low": 0.48, "high": 0.52}
    folders = [written(tmp_path, one, leaderboard_estimate=guess) for one in results]
    found = blend(folders, results[0])
    estimate = reporting.build_report(found)["leaderboard_estimate"]
    gains = []
    for each in found.blended.runs:
        labels, ours, theirs = found.folds.labels, found.oof.argmax(1), each.oof.argmax(1)
        differ = ours != theirs
        won = (ours == labels)[differ].sum() - (theirs == labels)[differ].sum()
        on_test = (each.test.argmax(1) != found.test.argmax(1)).mean()
        gains.append(won / (differ.sum() + 20) * on_test)
    assert estimate["value"] == pytest.approx(0.5 + np.mean(gains))
    assert gains[1] > 0.01  # the worse run is the one that the blend improves
    assert estimate["low"] <= estimate["value"] - 0.02
    assert estimate["high"] >= estimate["value"] + 0.02
    assert "strong 50.00" in estimate["method"]


def test_there_is_no_estimate_where_a_run_has_none(results, tmp_path):
    none = {"value": None, "low": None, "high": None, "method": "hardly trained"}
    folders = [written(tmp_path, results[0]),
               written(tmp_path, results[1], leaderboard_estimate=none)]
    report = reporting.build_report(found := blend(folders, results[0]))
    assert report["leaderboard_estimate"]["value"] is None
    assert "weak has none" in report["leaderboard_estimate"]["method"]
    assert "weak has none" in reporting.render_report(report, found)
