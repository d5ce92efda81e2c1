import html
import json
import re
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from kit.data.folds import NEVER_HELD_OUT
from kit.ensembling.prior import ClassPrior
from kit.reporting import report as reporting
from kit.reporting.page import value_at


@pytest.fixture(scope="module")
def page(report, results):
    return reporting.render_report(report, results)


# -- the dict -------------------------------------------------------------------------------------------------------


def test_the_class_prior_is_in_the_report_and_in_its_words(make_results, monkeypatch):
    results = make_results()
    assert reporting.build_report(results)["test"]["class_prior"] == {
        "spread": None, "why": "none: the file has fewer than 1,000 rows"}
    monkeypatch.setattr("kit.ensembling.prior.LEAST_ROWS", 10)
    monkeypatch.setattr("kit.ensembling.prior.ClassPrior.apply",
                        lambda prior, probs: probs if prior.spread is None
                        else np.roll(probs, 1, axis=1))
    results = replace(results)  # without what the first one has kept
    report = reporting.build_report(results)
    np.testing.assert_array_equal(results.submitted, np.roll(results.test, 1, axis=1))
    assert report["test"]["class_prior"]["spread"] == pytest.approx(30 * 9700 / 9999)
    assert report["test"]["relabelled"] == 300
    words = "Class prior of the test file: a random 300 of 10,000 rows with equal classes"
    effect = "because of it 300 of 300 labels differ (--class-prior none turns it off)"
    assert f"{words}: each class 30\u00a0±\u00a05 times; {effect}" in report["notes"]
    assert "with a prior on its class counts" in reporting.render_report(report, results)


def test_a_run_that_is_hardly_trained_says_that_there_is_no_estimate(make_results):
    results = make_results(skill=0.3)
    report = reporting.build_report(results)
    page = reporting.render_report(report, results)
    assert report["leaderboard_estimate"]["value"] is None
    assert "There is no estimate of the leaderboard score: the run reads" in " ".join(report["verdict"]["points"])
    assert report["verdict"]["headline"].endswith("there is no estimate of its leaderboard score.")
    assert '<p class="big">none</p>' in page and "a run is hardly trained" in page
    assert "expect about" not in page


def test_the_report_has_what_the_plan_promises(report):
    assert set(report) >= {"data", "cv", "baseline", "dig_mnist", "leaderboard_estimate", "complete", "per_class",
                           "confusion", "per_writer", "timing", "environment"}
    assert set(report["data"]) >= {"source", "is_sample", "sha256", "rows"}
    assert set(report["cv"]) >= {"split", "keeps_writers_apart", "n_folds", "fold_accuracy", "mean", "std",
                                 "oof_accuracy", "ci95"}
    assert set(report["baseline"]) >= {"fold_accuracy", "mean", "std", "oof_accuracy", "ci95", "paired"}
    assert set(report["dig_mnist"]) >= {"accuracy", "ci95"}
    assert set(report["leaderboard_estimate"]) >= {"value", "low", "high", "method"}


def test_the_report_survives_json_as_it_is(report):
    assert json.loads(json.dumps(report, allow_nan=False)) == report


def test_the_numbers_agree_with_each_other(report, results):
    right = results.oof.argmax(axis=1) == results.folds.labels
    assert report["cv"]["oof_accuracy"] == right.mean()
    matrix = np.array(report["confusion"])
    assert matrix.sum() == len(right) and matrix.trace() == right.sum()
    assert report["cv"]["mistakes"] == (~right).sum() == sum(entry["mistakes"] for entry in report["per_writer"])
    assert report["cv"]["ci95"][0] < report["cv"]["oof_accuracy"] < report["cv"]["ci95"][1]
    assert len(report["hardest_writers"]) == 8
    assert report["baseline"]["paired"]["rows"]["difference"] == pytest.approx(
        report["cv"]["oof_accuracy"] - report["baseline"]["oof_accuracy"])


def test_mistakes_are_mistakes_surest_first(report, results):
    mistakes = report["mistakes"]
    assert len(mistakes) == report["cv"]["mistakes"]
    confidence = [mistake["confidence"] for mistake in mistakes]
    assert confidence == sorted(confidence, reverse=True)
    for mistake in mistakes:
        assert results.folds.labels[mistake["row"]] == mistake["true"] != mistake["predicted"]
        assert results.oof[mistake["row"]].argmax() == mistake["predicted"]


def test_too_many_mistakes_keep_some_of_every_confusion(make_results, build):
    numbers = build(make_results(n_writers=30, rows=120, skill=1.5))
    assert numbers["cv"]["mistakes"] > reporting.MAX_MISTAKES == len(numbers["mistakes"])
    listed = {(mistake["true"], mistake["predicted"]) for mistake in numbers["mistakes"]}
    matrix = np.array(numbers["confusion"])
    assert listed == {(i, j) for i in range(10) for j in range(10) if i != j and matrix[i, j]}


def test_rows_that_no_fold_scored_are_left_out_and_counted(make_results, build):
    numbers = build(make_results(missing=(2, 4)))
    assert numbers["complete"] is False and numbers["cv"]["fold"] == [0, 1, 3]
    assert numbers["cv"]["rows"] + numbers["cv"]["rows_missing"] == numbers["data"]["rows_used"] == 720
    assert [curve["fold"] for curve in numbers["learning_curves"]] == [0, 1, 3] * 2
    assert numbers["verdict"]["banners"][0].startswith("Not complete")


def test_a_run_of_the_baseline_alone_is_its_own_baseline(make_results, build):
    alone = replace(make_results(models=("mlp",)), baseline=None)
    numbers = build(alone)
    assert numbers["baseline"]["oof_accuracy"] == numbers["cv"]["oof_accuracy"]
    assert "is the baseline" in numbers["verdict"]["points"][1]
    page = reporting.render_report(numbers, alone)
    assert "is the baseline" in page and "Against the baseline" not in page


def test_disagreement_counts_votes_of_every_model(report):
    found = report["disagreement"]
    assert found["models"] == 10 and 0 < found["rows_disputed"] < found["rows"] == 300
    for row in found["most_disputed"]:
        assert sum(vote["models"] for vote in row["votes"]) == 10 and len(row["votes"]) > 1


# -- what changed a label of the test file ---------------------------------------------------------


@pytest.fixture(scope="module")
def stepwise(results):
    """The results after label spreading, self-training and a class prior.

    Each step gives its own rows' labels to the class after: 20 rows, 3 of them back, 1 row.
    """
    def moved(probs, rows, by):
        probs = probs.copy()
        probs[rows] = np.roll(probs[rows], by, axis=1)
        return probs

    spread = moved(results.test, slice(0, 20), 1)
    learnt = moved(spread, slice(0, 3), -1)
    stepwise = replace(results, test=learnt, row_by_row=results.test,
                       before_self_training=replace(results, test=spread))
    # Cached properties: as if the prior had chosen
    vars(stepwise)["class_prior"] = ClassPrior(0.0, "each class equally often")
    vars(stepwise)["submitted"] = moved(learnt, slice(50, 51), 1)
    return stepwise


def test_each_step_says_which_labels_it_changed(stepwise, build):
    changes = build(stepwise)["test"]["changes"]
    assert changes["rows"] == 20 - 3 + 1
    assert [(step["step"], step["rows"]) for step in changes["steps"]] == [
        ("label spreading", 20), ("self-training", 3), ("class prior", 1)]
    first, ids = stepwise.row_by_row.argmax(1), stepwise.data.test().ids
    spreading, learning, _ = changes["steps"]
    counts = [pair["rows"] for pair in spreading["pairs"]]
    assert counts == sorted(counts, reverse=True) and sum(counts) == 20
    assert {(pair["from"], pair["to"]): pair["rows"] for pair in spreading["pairs"]} == Counter(
        (int(k), int(k + 1) % 10) for k in first[:20])
    assert len(spreading["examples"]) == 10 and len(learning["examples"]) == 3
    for example in spreading["examples"]:
        assert example["id"] == ids[example["index"]] and example["index"] < 20
        assert example["from"] == first[example["index"]] == (example["to"] - 1) % 10
    pictured = {(example["from"], example["to"]) for example in spreading["examples"]}
    assert len(pictured) == len(spreading["pairs"])  # each kind of change is seen
    assert all(step["from"] == (step["to"] + 1) % 10 for step in learning["pairs"])


def test_the_page_shows_the_changed_labels_and_judges_none(stepwise, build):
    report = build(stepwise)
    page = reporting.render_report(report, stepwise)
    shown = page[page.index("Which labels changed"):page.index("Where the models disagree")]
    for words in ("Labels that differ from", "Label spreading changed", "Self-training changed", "Class prior changed",
                  "nothing says whether a change is right"):
        assert words in shown
    assert shown.count("<img") == 10 + 3 + 1
    for value, key in re.findall(r'<data value="([^"]*)" data-key="([^"]*)">', shown):
        assert value == str(value_at(report, key)), key


def test_what_is_not_known_of_the_steps_is_left_out(stepwise, build, report, page):
    """Of folds of older kits, and where no step was taken."""
    old = replace(stepwise, row_by_row=None)
    vars(old)["class_prior"] = ClassPrior(None, "none, as asked for")
    of_old = build(old)
    changes = of_old["test"]["changes"]
    assert changes["rows"] is None
    assert [step["step"] for step in changes["steps"]] == ["self-training"]
    page_of_old = reporting.render_report(of_old, old)
    assert "Self-training changed" in page_of_old
    assert "Labels that differ from" not in page_of_old

    assert report["test"]["changes"] == {"rows": None, "steps": []}
    assert "Which labels changed" not in page


def test_networks_that_read_row_by_row_and_nothing_else_are_the_submission(results):
    alone = replace(results, row_by_row=results.test)
    assert list(alone.labels_by_step) == ["row by row"]
    np.testing.assert_array_equal(alone.labels_by_step["row by row"], results.test.argmax(1))
    assert list(replace(results, test=None).labels_by_step) == []


# -- the page -------------------------------------------------------------------------------------------------------


def test_every_number_of_the_page_is_the_reports(report, page):
    found = re.findall(r'<data value="([^"]*)" data-key="([^"]*)">', page)
    assert len(found) > 300
    for value, key in found:
        assert value == str(value_at(report, key)), key
    shown = {key for _, key in found}
    assert {"cv.oof_accuracy", "cv.ci95.0", "leaderboard_estimate.value", "baseline.oof_accuracy", "dig_mnist.accuracy",
            "baseline.paired.writers.p", "cv.fold_accuracy.4", "per_class.9.recall", "confusion.0.0",
            "per_writer.11.accuracy", "calibration.ece", "test.balance.9.predicted"} <= shown


def test_the_page_needs_nothing_from_outside(page):
    assert not re.search(r'(?:src|href|url|action)\s*[=(]\s*["\']?(?:https?:|//|file:)', page)
    assert "@import" not in page and "default-src 'none'" in page
    assert all(source.startswith("data:image/png;base64,") for source in re.findall(r'<img[^>]* src="([^"]*)"', page))


def test_headings_go_down_one_level_at_a_time(page):
    levels = [int(level) for level in re.findall(r"<h([1-6])[ >]", page)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))


def test_every_picture_has_words_and_every_table_has_headers(page):
    pictures = re.findall(r"<img[^>]*>", page)
    assert pictures and all(re.search(r' alt="[^"]+"', picture) for picture in pictures)
    for table in re.findall(r"<table.*?</table>", page, re.S):
        assert 'scope="col"' in table and 'scope="row"' in table


def test_fragments_lead_somewhere(page):
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert {target for target in re.findall(r'href="#([^"]+)"', page)} <= set(ids)


def test_the_name_of_a_cell_begins_as_it_looks(report, results):
    """Who speaks to the browser says what they see: 5,928, not 5928."""
    matrix = [[5928, *report["confusion"][0][1:]], *report["confusion"][1:]]
    page = reporting.render_report({**report, "confusion": matrix}, results)
    cells = re.findall(r'<a href="#mistakes"[^>]*aria-label="([^"]*)"><data[^>]*>([^<]*)<', page)
    assert cells[0] == ("0 read as 0: 5,928 rows, show pictures", "5,928")
    assert all(f": {shown} rows" in name for name, shown in cells)


def test_a_run_named_like_a_script_is_harmless(make_results, build):
    name = '<script>alert("x")</script>'
    results = make_results(name=name)
    page = reporting.render_report(build(results), results)
    assert name not in page and html.escape(name, quote=False).replace('"', "&#34;") in page
    assert page.count("<script") == 1


@pytest.mark.parametrize(("options", "banner"), [
    ({"is_sample": True}, "Drawn sample"), ({"missing": (1,)}, "Not complete"),
    ({"split": "stratified"}, "Flattering")])
def test_what_makes_a_score_worth_less_is_loud(make_results, build, options, banner):
    results = make_results(**options)
    page = reporting.render_report(build(results), results)
    assert re.search(rf'<p class="banner"[^>]*><strong>{banner}', page)


def test_a_sound_run_has_no_banner(page):
    assert '<p class="banner"' not in page


def test_a_competition_without_writers_extra_file_and_kannada_digits(make_results, build):
    results = make_results(models=("mlp",), slug="digit-recognizer", with_writers=False, split="stratified",
                           extra=False)
    numbers = build(results, estimate=None)
    page = reporting.render_report(numbers, results)
    assert numbers["dig_mnist"] is None and numbers["per_writer"] == []
    assert "#numeral-" not in page and 'id="writers"' not in page and "Leaderboard estimate" not in page


def test_a_page_of_other_pictures_than_digits_does_not_call_them_so(make_results, build):
    """Classes with long names get a wider confusion matrix, and their samples more room."""
    results = make_results(models=("cnn", "cnn_aug"), slug="digit-recognizer", with_writers=False, split="stratified",
                           extra=False)
    names = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Boot")
    clothes = replace(results.competition, class_names=names, items="clothes", title="Fashion")
    results = replace(results, competition=clothes)
    page = reporting.render_report(build(results), results)
    said = re.sub(r"<(script|style).*?</\1>|<[^>]*>", " ", page, flags=re.DOTALL)
    assert "digit" not in said.lower().replace("digit-recognizer", "") and "clothes it was not trained on" in said
    assert "held-out clothes and training clothes" in " ".join(said.split()) and "built-in" not in said
    assert '<main id="main" class="wide" style="--name:11ch">' in page


def test_kannada_numerals_are_drawn(page):
    assert all(f'<use href="#numeral-{k}"/>' in page and f'<symbol id="numeral-{k}"' in page for k in range(10))


def test_the_fullest_page_stays_under_two_megabytes(make_results, build):
    """As many pictures as ever, and as much noise on them as the real scans have."""
    results = make_results(n_writers=47, rows=100, skill=1.5)
    pixels = results.data.train().pixels
    pixels[pixels > 0] = np.random.default_rng(0).integers(40, 256, (pixels > 0).sum())
    numbers = build(results)
    assert len(numbers["mistakes"]) == reporting.MAX_MISTAKES
    assert len(reporting.render_report(numbers, results).encode()) < 2_000_000


def test_rows_that_the_split_harder_never_holds_out_are_not_missing(make_results):
    results = make_results()
    easy = results.folds.fold == 4
    fold = np.where(easy, NEVER_HELD_OUT, results.folds.fold).astype(np.int8)
    oof = np.where(easy[:, None], np.nan, results.oof).astype(np.float32)
    report = reporting.build_report(replace(results, oof=oof, members=[replace(results.members[0], oof=oof)],
                                  folds=replace(results.folds, fold=fold, split="harder")))
    assert report["cv"]["rows_missing"] == 0 and report["cv"]["rows"] == (~easy).sum()
    assert report["cv"]["fold"] == [0, 1, 2, 3]
    assert report["leaderboard_estimate"] is None
    assert "harder writers than any it was trained on" in report["verdict"]["headline"]


def test_the_page_shows_the_precision_that_was_used_not_the_one_asked_for(report, results):
    asked = report | {"config": report["config"] | {"precision": "auto"}}
    assert "<td>auto</td>" in reporting.render_report(asked | {"trained_with": []}, results)
    folds = {"device": "", "software": "", "folds": []}
    for used, shown in ((["bfloat16"], "bfloat16"), (["float32", "bfloat16"], "bfloat16, float32")):
        groups = [{"precision": precision, **folds} for precision in used]
        page = reporting.render_report(asked | {"trained_with": groups}, results)
        assert re.search(rf">precision</th><td>{shown}</td>", page)


def test_the_page_says_which_epochs_are_of_self_training(report, results):
    words = "The last epochs are those of self-training"
    asked_for = report | {"config": report["config"] | {"self_train": 2}}
    assert words not in reporting.render_report(asked_for, results)  # there was no time for a round
    trained_so = replace(results, before_self_training=results)
    assert words in reporting.render_report(asked_for, trained_so)
