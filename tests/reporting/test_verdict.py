import copy

import pytest

from kit.reporting.verdict import p_value, percent, points, verdict


def said(report, **changes):
    """The verdict of `report` with other values at dotted keys."""
    changed = copy.deepcopy(report)
    for key, value in changes.items():
        place = changed
        *path, last = key.split("__")
        for part in path:
            place = place[part]
        place[last] = value
    return verdict(changed)


def test_numbers_in_words():
    assert percent(0.98765) == "98.77\u00a0%" and percent(0.98765, 1) == "98.8\u00a0%"
    assert points(0.0123) == "+1.23\u00a0points" and points(-0.0123) == "\u22121.23\u00a0points"
    assert [p_value(p).replace("\u00a0", " ") for p in (0.0001, 0.042, 0.5)] == ["p < 0.001", "p = 0.042", "p = 0.50"]


@pytest.mark.parametrize(("difference", "ci95", "p", "words"), [
    (0.01, [0.005, 0.015], 0.001, "Better than the baseline mlp"),
    (-0.01, [-0.015, -0.005], 0.001, "Worse than the baseline mlp"),
    (0.01, [-0.005, 0.025], 0.2, "Not shown to differ from the baseline mlp"),
])
def test_against_the_baseline(report, difference, ci95, p, words):
    test = {"difference": difference, "ci95": ci95, "p": p}
    assert said(report, baseline__paired__writers=test)["points"][1].startswith(words)


def test_the_leaderboard_is_not_promised_for_a_sample(report):
    assert said(report)["points"][2].startswith("On the leaderboard, expect about 95.2\u00a0% (93.1\u00a0% to")
    assert said(report, data__is_sample=True)["points"][2].startswith("On the sample's own test file, expect")
    assert "no estimate" in said(report, leaderboard_estimate=None)["points"][2]


def test_what_is_missing_comes_first_among_what_to_try(report):
    tips = said(report, data__is_sample=True, complete=False, cv__keeps_writers_apart=False)
    assert "kit download" in tips["next"][0] and "--resume" in tips["next"][1] and "--split writer" in tips["next"][2]
    assert [banner.split(":")[0] for banner in tips["banners"]] == ["Drawn sample", "Not complete", "Flattering split"]
    assert len(tips["next"]) <= 4


def test_what_a_time_budget_left_out_is_not_laid_to_a_comparison(report):
    n = len(report["cv"]["fold"])
    for outcome, folds, decided in (("better", n, True), ("undecided", n, False),
                                    ("better", n - 1, False)):
        found = {"run": "before", "outcome": outcome, "verdict": "…", "folds": folds}
        words = said(report, complete=False, against=found)
        (banner,) = [each for each in words["banners"] if each.startswith("Not complete")]
        assert ("compared with before" in banner) == decided
        assert ("time budget" in banner) != decided
        assert any("longer --time-budget" in tip for tip in words["next"]) != decided


@pytest.mark.parametrize(("epochs", "advised"), [(6, True), (14, False), (18, False)])
def test_more_epochs_are_advised_where_a_model_had_fewer_than_its_own(report, epochs, advised):
    """Augmentation always leaves training behind validation: a whole training was told to go on, against the log."""
    members = [member | {"model": "cnn_aug", "epochs": epochs} for member in report["members"]
               if not member["is_baseline"]]
    curves = [curve | {"model": "cnn_aug", "accuracy": [.9], "val_accuracy": [.95]}
              for curve in report["learning_curves"]]
    tips = said(report, members=members, learning_curves=curves)["next"]
    assert any("more epochs may help: cnn_aug has 14 by itself." in tip for tip in tips) == advised
    assert not any("larger network" in tip for tip in tips)


def test_a_single_recipe_is_told_of_ensembles_and_an_ensemble_is_not(report):
    one = [member for member in report["members"] if member["is_baseline"] or member["model"] == "cnn_aug"]
    assert any("--seeds 3" in tip for tip in said(report, members=one)["next"])
    assert not any("--seeds 3" in tip for tip in said(report)["next"])


def test_the_most_common_confusion_is_named(report):
    matrix = [[0] * 10 for _ in range(10)]
    matrix[7][6] = 33
    tips = said(report, confusion=matrix, cv__mistakes=40)["next"]
    assert any("Look at the 7s that are read as 6: 33 of 40 mistakes" in tip for tip in tips)


def test_other_pictures_than_digits_are_called_what_they_are(report):
    """By their classes' names, which are not their numbers where a letter has no picture."""
    matrix = [[0] * 10 for _ in range(10)]
    matrix[7][6] = 33
    clothes = {"items": "clothes", "class_names": [f"cloth {k}" for k in "abcdefghij"]}
    words = said(report, confusion=matrix, cv__mistakes=40, cv__keeps_writers_apart=False,
                 per_writer=[], competition=clothes)
    assert "Look at the clothes of cloth h that are read as cloth g: 33 of 40 mistakes." in words["next"]
    assert "Of 1,000 clothes it was not trained on" in words["headline"]
    assert any("does not show which clothes come from the same person" in each for each in words["banners"])
    assert "digit" not in str(words)
    letters = {"items": "letters", "class_names": list("ABCDEFGHIK")}
    tips = said(report, confusion=matrix, cv__mistakes=40, competition=letters)["next"]
    assert "Look at the Hs that are read as G: 33 of 40 mistakes." in tips


def test_the_headline_is_plain_and_promises_no_leaderboard_for_a_sample(report):
    better = {"difference": 0.02, "ci95": [0.015, 0.025], "p": 0.0}
    same = {"difference": 0.001, "ci95": [-0.01, 0.012], "p": 0.8}
    real = said(report, cv__oof_accuracy=0.9951, baseline__oof_accuracy=0.9755, baseline__paired__writers=better)
    assert real["headline"].replace("\u00a0", " ") == (
        "Of 1,000 digits by writers it has never seen, this run reads about 995 correctly; "
        "the baseline reads 976. "
        "Expect about 95.2 % on the leaderboard (93.1 % to 96.8 %).")
    drawn = said(report, data__is_sample=True, baseline__paired__writers=same)["headline"]
    assert drawn.startswith("It works. ") and "leaderboard" not in drawn and "no clear difference" in drawn
    assert "it was not trained on" in said(report, cv__keeps_writers_apart=False)["headline"]


def test_nearly_perfect_is_not_called_perfect(report):
    assert "Of 10,000 digits" in (headline := said(report, cv__oof_accuracy=0.9997)["headline"])
    assert "about 9,997 correctly" in headline
