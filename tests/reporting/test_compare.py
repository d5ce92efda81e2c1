import json
import re
from dataclasses import replace

import numpy as np
import pytest

from kit.core import storage
from kit.core.errors import KitError
from kit.reporting import compare as comparing


def test_submissions_compare_without_their_data(compared, pair):
    better, worse = (results.oof.argmax(axis=1) == results.folds.labels for results in pair)
    assert compared["rows"] == len(better)
    assert compared["a"]["accuracy"] == pytest.approx(better.mean(), abs=0.002)  # float16 ties
    assert compared["b"]["accuracy"] == pytest.approx(worse.mean(), abs=0.002)
    for kind in ("rows", "writers", "hardest"):
        assert compared["paired"][kind]["difference"] > 0 and compared["paired"][kind]["p"] < 0.05
        low, high = compared["paired"][kind]["ci95"]
        assert 0 < low <= compared["paired"][kind]["difference"] <= high
    assert compared["verdict"].startswith("strong is better than weak: +")
    assert compared["notes"] == []
    assert json.loads(json.dumps(compared, allow_nan=False)) == compared


def test_a_run_folder_and_its_submission_say_the_same(pair, tmp_path, compared, submission, run):
    a, b = run(tmp_path / "strong", pair[0]), submission(tmp_path / "weak", pair[1])
    found = comparing.compare(a, b)
    assert found["paired"]["rows"]["difference"] == pytest.approx(compared["paired"]["rows"]["difference"], abs=0.002)
    assert found["a"]["keeps_writers_apart"]


def test_the_same_comparison_always_reads_the_same(pair, tmp_path, compared, submission):
    again = comparing.compare(*(submission(tmp_path / results.name, results) for results in pair))
    assert again == compared


def test_rows_align_by_number_on_what_both_have(pair, tmp_path, submission):
    shuffled = np.random.default_rng(0).permutation(600)
    found = comparing.compare(submission(tmp_path / "a", pair[0], shuffled),
                              submission(tmp_path / "b", pair[0], slice(300, None)))
    assert found["rows"] == 300 and found["paired"]["rows"]["difference"] == 0
    assert found["a"]["rows"] == 600 and "300 that both have" in found["notes"][0]


def test_folds_that_were_left_out_are_not_compared(make_results, pair, tmp_path, submission, run):
    cut = make_results(name="strong", skill=8.0, missing=(1,))
    found = comparing.compare(run(tmp_path / "a", cut), submission(tmp_path / "b", pair[1]))
    assert found["rows"] == np.isfinite(cut.oof).all(axis=1).sum() < len(cut.oof)
    assert found["sequential"] is None


def test_a_flattering_split_and_other_folds_are_named(make_results, pair, tmp_path, submission):
    n = len(pair[0].folds.rows)
    mixed = submission(tmp_path / "mixed", pair[1], fold=(np.arange(n) // 10 % 5).astype(np.int8))
    assert "mixed was scored on writers that it had been trained on" in comparing.compare(
        submission(tmp_path / "a", pair[0]), mixed)["notes"][0]
    other = submission(tmp_path / "other", pair[1], fold=((pair[1].folds.fold + 1) % 5).astype(np.int8))
    found = comparing.compare(tmp_path / "a", other)
    assert "not scored in the same folds" in found["notes"][0] and found["sequential"] is None


def test_unknown_writers_leave_the_test_over_rows(pair, tmp_path, submission):
    a, b = (submission(tmp_path / results.name, results, writer=None) for results in pair)
    found = comparing.compare(a, b)
    assert found["paired"]["writers"] is None and found["per_writer"] == []
    assert "over rows" in found["verdict"]
    assert "Writer by writer" not in comparing.render_compare(found)


# -- what cannot be compared ----------------------------------------------------------------------------------------


def test_no_common_row(pair, tmp_path, submission):
    a = submission(tmp_path / "a", pair[0], slice(0, 300))
    b = submission(tmp_path / "b", pair[1], slice(300, 600))
    with pytest.raises(KitError, match="a and b have no row in common"):
        comparing.compare(a, b)


def test_other_data(make_results, pair, tmp_path, submission):
    sample = make_results(name="sample", is_sample=True, n_writers=13)
    with pytest.raises(KitError, match="trained on the drawn sample"):
        comparing.compare(submission(tmp_path / "sample", sample), submission(tmp_path / "b", pair[1]))


def test_other_labels(pair, tmp_path, submission):
    labels = pair[1].folds.labels.copy()
    labels[5] = (labels[5] + 1) % 10
    with pytest.raises(KitError, match="different labels to the same rows"):
        comparing.compare(submission(tmp_path / "a", pair[0]), submission(tmp_path / "b", pair[1], label=labels))


def test_a_folder_without_predictions(pair, tmp_path, submission):
    with pytest.raises(KitError, match=r"oof\.npz is missing"):
        comparing.compare(submission(tmp_path / "a", pair[0]), tmp_path)


@pytest.mark.parametrize("about", [{}, {"config": [], "data": []}, {
    "config": {"competition": "kannada-mnist", "models": []}, "data": {"sha256": {}}}])
def test_a_config_of_another_version_is_named(pair, tmp_path, submission, about):
    storage.write_json(submission(tmp_path / "a", pair[0]) / "config.json", about)
    with pytest.raises(KitError, match=r"config\.json is damaged"):
        comparing.compare(tmp_path / "a", tmp_path / "a")


@pytest.mark.parametrize("forged", [
    {"label": lambda a: a[:5]}, {"fold": lambda a: None}, {"row": lambda a: a // 2},
    {"writer": lambda a: a[:5]}, {"probs": lambda a: a[:, :3]}])
def test_arrays_that_do_not_fit_together_are_named(pair, tmp_path, submission, forged):
    path = submission(tmp_path / "a", pair[0]) / "oof.npz"
    there = storage.read_npz(path)
    there |= {name: change(there[name]) for name, change in forged.items()}
    storage.write_npz(path, **{name: array for name, array in there.items() if array is not None})
    with pytest.raises(KitError, match=r"oof\.npz is damaged"):
        comparing.compare(tmp_path / "a", tmp_path / "a")


def test_a_side_that_is_hardly_trained_is_named(make_results, pair, tmp_path, submission):
    untrained = submission(tmp_path / "untrained", make_results(name="untrained", skill=0.3))
    notes = " ".join(comparing.compare(submission(tmp_path / "a", pair[0]), untrained)["notes"])
    assert "untrained is hardly trained: it reads" in notes and "gets no estimate" in notes
    assert "a is hardly trained" not in notes


# -- how it is shown ------------------------------------------------------------------------------------------------


def test_lines_name_every_test(compared):
    said = comparing.lines(compared)
    assert said[0] == compared["verdict"]
    assert [line.split(":")[0] for line in said[1:]] == [
        "strong", "weak", "over rows", "over writers", "over the hardest eight", "fold by fold"]
    assert all(re.search(r"p.[<=].0\.\d+", line) for line in said[3:6])
    assert "strong is better than weak" in said[6] and "decided after 3 of 5 folds" in said[6]


def test_the_page_pictures_the_rows_where_they_differ_if_the_data_is_there(compared, pair):
    page = comparing.render_compare(compared, pair[0].data.train())
    assert page.count("<img") == len(compared["different"]) > 20
    assert comparing.render_compare(compared).count("<img") == 0
    assert "which is not here" in comparing.render_compare(compared)


def test_the_page_pictures_nothing_from_another_file(compared, pair):
    other = replace(pair[0].data.train(), sha256="0" * 64)
    assert "<img" not in comparing.render_compare(compared, other)


def test_the_pages_numbers_are_the_comparisons(compared):
    from kit.reporting.page import value_at

    found = re.findall(r'<data value="([^"]*)" data-key="([^"]*)">', comparing.render_compare(compared))
    assert {"a.accuracy", "b.accuracy", "paired.writers.p", "paired.hardest.difference"} <= {key for _, key in found}
    assert all(value == str(value_at(compared, key)) for value, key in found)


def test_a_run_named_like_a_script_is_harmless(compared):
    named = {**compared, "a": {**compared["a"], "name": "<script>alert(1)</script>"}}
    assert "<script>alert" not in comparing.render_compare(named)
