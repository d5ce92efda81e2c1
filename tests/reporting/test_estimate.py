"""The estimate knows harder writers from their margins, and its interval holds where the answers are known."""

import dataclasses
from itertools import pairwise

import numpy as np
import pytest

from kit.ensembling.prior import ClassPrior
from kit.reporting import estimate as estimates
from kit.reporting.changes import changes


def test_log_margins_are_the_odds_of_the_two_best():
    probs = np.array([[0.7, 0.2, 0.1], [0.5, 0.5, 0.0], [1.0, 0.0, 0.0]])
    np.testing.assert_allclose(estimates.log_margin(probs), [np.log(3.5), 0.0, 12.0], atol=1e-4)


def test_the_error_curve_falls_with_the_margin_and_matches_the_errors_counted():
    rng = np.random.default_rng(0)
    margins = rng.uniform(0, 12, 20_000)
    wrong = rng.uniform(size=20_000) < 0.5 * np.exp(-margins)
    curve = estimates.ErrorCurve.fit(margins, wrong)
    assert (np.diff(curve.shares) <= 0).all()
    assert curve.at(margins).mean() == pytest.approx(wrong.mean(), rel=0.05)


def writers_like(rng, n, hardness, rows=500):
    """Margins and errors of n writers: the share of rows with a small margin is each writer's hardness."""
    small = rng.uniform(size=(n, rows)) < np.asarray(hardness)[:, None]
    margins = np.where(small, rng.uniform(0, 2, (n, rows)), 12.0)
    wrong = small & (rng.uniform(size=(n, rows)) < 0.4)
    return margins.ravel(), wrong.ravel(), np.repeat(np.arange(n), rows)


def test_harder_writers_are_expected_to_be_harder():
    rng = np.random.default_rng(1)
    margins, wrong, writers = writers_like(rng, 30, np.linspace(0.002, 0.03, 30))
    unseen, truth, _ = writers_like(rng, 8, np.full(8, 0.06))
    single, draws = estimates.extrapolate(margins, wrong, writers, [unseen], 8)
    assert 1.5 * wrong.mean() < single
    low, high = estimates.accuracy_bounds(draws, len(truth))
    assert low <= 1 - truth.mean() <= high
    assert high - low < 0.04


def simulated_writers(rng, hardness, rows=1280):
    """Margins, errors and writers at the real file's size: a row is wrong as often as its margin says, times
    a factor of its writer's own, which nobody can see in the margins.
    """
    n = len(hardness)
    margins = np.minimum(rng.exponential(40 / np.asarray(hardness)[:, None], (n, rows)), 12)
    share = 0.45 * np.exp(-margins) * np.exp(rng.normal(0, 0.35, n))[:, None]
    wrong = rng.uniform(size=(n, rows)) < share
    return margins.ravel(), wrong.ravel(), np.repeat(np.arange(n), rows)


def test_the_interval_holds_in_nine_of_ten_simulated_competitions_of_the_real_size():
    """47 training writers of 1,280 rows each, a test file of eight that are harder than most of them."""
    held, widths, expected, true = [], [], [], []
    for world in range(40):
        rng = np.random.default_rng(world)
        known = simulated_writers(rng, np.exp(rng.normal(0, 0.4, 47)))
        margins, wrong, _ = simulated_writers(rng, np.exp(rng.normal(0.6, 0.2, 8)), rows=625)
        single, draws = estimates.extrapolate(*known, [margins], 8)
        low, high = estimates.accuracy_bounds(draws, len(wrong))
        expected.append(single)
        true.append(wrong.mean())
        held.append(low <= 1 - wrong.mean() <= high)
        widths.append(high - low)
    assert sum(held) >= 36
    assert np.mean(widths) < 0.03  # an interval from 0 to 1 would hold as well
    assert 0.015 < np.mean(true) < 0.03 and np.mean(expected) == pytest.approx(np.mean(true), rel=0.1)


def test_the_cross_check_never_shows_a_group_its_own_answers():
    rng = np.random.default_rng(2)
    margins, wrong, writers = writers_like(rng, 40, np.linspace(0.04, 0.005, 40))
    check = estimates.cross_check(margins, wrong, writers)
    assert check["of"] == estimates.N_GROUPS and check["held"] >= 6
    named = [name for group in check["groups"] for name in group["writers"]]
    assert len(named) == len(set(named)) == estimates.N_GROUPS * estimates.GROUP_WRITERS


def test_a_run_that_is_hardly_trained_gets_no_estimate(make_results):
    """`--limit 200 --epochs 1` reads 16 %: "the leaderboard will say about 69 %" is what it was told once."""
    found = estimates.estimate(make_results(skill=0.3))
    assert found["oof_accuracy"] < 0.5
    assert [found[name] for name in ("value", "low", "high", "cross_check")] == [None] * 4
    assert found["method"].startswith("There is no estimate") and "held-out rows" in found["method"]


def test_after_self_training_the_estimate_is_that_of_the_run_before_it(make_results):
    """Models no longer doubt what they have guessed and learnt themselves."""
    before = make_results()
    after = dataclasses.replace(before, before_self_training=before)
    plain, found = estimates.estimate(before), estimates.estimate(after)
    assert found["value"] == plain["value"]
    assert found["method"].endswith(
        "All this is before self-training, which then changed 0 labels; what that gains is not included.")


def test_self_training_changed_as_many_labels_as_the_report_s_list_of_changes_says(make_results, monkeypatch):
    """The class prior, which is applied again after it, is another step: 8 labels and 9 stood on one page once."""
    before = make_results()
    test = before.test.copy()
    test[:3] = np.roll(test[:3], 1, axis=1)
    after = dataclasses.replace(before, before_self_training=before, test=test)
    vars(after)["submitted"] = np.roll(test, 1, axis=1)  # as if the prior had changed all
    steps = changes(after)["steps"]
    assert steps[0] | {"pairs": [], "examples": []} == {"step": "self-training", "rows": 3, "pairs": [], "examples": []}
    assert "which then changed 3 labels" in estimates.estimate(after)["method"]


def leaning_writers(n):
    """Probs, labels and writers: 64 of each digit each, and 0s that are taken for 1s, without conviction."""
    rng = np.random.default_rng(3)
    labels = np.tile(np.arange(10), 64 * n)
    logits = rng.normal(0, 1, (len(labels), 10))
    logits[np.arange(len(labels)), labels] += 7
    taken = np.flatnonzero(labels == 0)[::5]
    logits[taken, 1] = logits[taken, 0] + rng.normal(0.3, 0.5, len(taken))
    probs = np.exp(logits)
    return (probs / probs.sum(1, keepdims=True)).astype("float32"), labels, np.repeat(np.arange(n), 640)


def test_what_a_class_prior_gain_is_measured_on_rows_drawn_as_the_test_file_is():
    probs, labels, writers = leaning_writers(16)
    whole, _ = estimates.prior_gain(probs, labels, writers, ClassPrior(0.0, ""), 1.0)
    assert 0.3 < whole < 1
    labels[:] = probs.argmax(1)  # every label as it was read: nothing can be mended
    nothing, _ = estimates.prior_gain(probs, labels, writers, ClassPrior(0.0, ""), 1.0)
    assert -1 <= nothing < -0.8


def test_at_half_a_file_no_mended_errors_are_counted_where_equality_makes_some():
    """Sure, calibrated probs and random halves: forcing equal classes makes errors, and the estimate says so."""
    rng = np.random.default_rng(4)
    labels = np.tile(np.arange(10), 64 * 16)
    probs = np.full((len(labels), 10), 0.002 / 9, "float32")
    probs[np.arange(len(labels)), labels] = 0.998
    unsure = rng.permutation(len(labels))[:800]
    second = (labels[unsure] + rng.integers(1, 10, 800)) % 10
    probs[unsure, labels[unsure]], probs[unsure, second] = 0.7, 0.299
    writers = np.repeat(np.arange(16), 640)
    forced, _ = estimates.prior_gain(probs, labels, writers, ClassPrior(0.0, ""), 0.5)
    assert forced < -0.5


@pytest.mark.parametrize(("gain", "words"), [
    (0.04, "4 fewer"), (-0.11, "11 more"), (0.001, "no fewer and no more")])
def test_what_the_class_prior_changed_is_said_in_labels_and_mistakes(make_results, monkeypatch,
                                                                     gain, words):
    monkeypatch.setattr("kit.ensembling.prior.LEAST_ROWS", 10)
    monkeypatch.setattr(ClassPrior, "apply", lambda prior, probs: np.roll(probs, 1, axis=1))
    monkeypatch.setattr(estimates, "prior_gain", lambda *_: (gain, 0.01))
    method = estimates.estimate(make_results())["method"]
    assert f"changed 300 labels; on held-out writers, 100 such changes made {words} mistakes." \
        in method


@pytest.mark.parametrize("options", [{}, {"with_writers": False, "split": "stratified"}, {"extra": False},
                                     {"n_writers": 3}])
def test_every_kind_of_run_gets_an_interval_around_its_value(make_results, options):
    found = estimates.estimate(make_results(**options))
    assert 0 <= found["low"] <= found["high"] <= 1
    assert found["low"] - 0.01 <= found["value"] <= found["high"] + 0.01
    assert found["value"] >= found["single_model"]  # the ensemble is no worse than its members
    assert (found["cross_check"] is None) == (not options.get("with_writers", True))


# -- what must not change the estimate, and what must -----------------------------------------------------------------


def with_test(results, probs_of):
    """The same run on another test file: its probs made of those that were there."""
    members = [dataclasses.replace(member, test=[probs_of(probs) for probs in member.test])
               for member in results.members]
    return dataclasses.replace(results, members=members, test=probs_of(results.test))


def of_rows(results, rows):
    """The same run with its training rows in another order."""
    folds = dataclasses.replace(
        results.folds, rows=results.folds.rows[rows], labels=results.folds.labels[rows],
        writers=results.folds.writers[rows], fold=results.folds.fold[rows])
    return dataclasses.replace(results, folds=folds, oof=results.oof[rows])


NUMBERS = ("value", "low", "high", "single_model")


def numbers(results):
    found = estimates.estimate(results)
    return [found[name] for name in NUMBERS]


def test_the_order_of_rows_does_not_matter(make_results):
    results, rng = make_results(), np.random.default_rng(0)
    expected = pytest.approx(numbers(results), abs=1e-9)
    assert numbers(of_rows(results, rng.permutation(len(results.oof)))) == expected
    order = rng.permutation(len(results.test))
    assert numbers(with_test(results, lambda probs: probs[order])) == expected


def test_the_less_sure_the_models_are_of_the_test_file_the_lower_it_is(make_results):
    def flatter(power):
        def flattened(probs):
            return probs**power / (probs**power).sum(1, keepdims=True)
        return flattened

    results = make_results()
    found = [numbers(with_test(results, flatter(power))) for power in (1.5, 1.0, 0.7, 0.5)]
    for surer, less_sure in pairwise(found):
        assert all(a > b for a, b in zip(surer, less_sure, strict=True)), (surer, less_sure)


def test_fewer_errors_on_held_out_writers_raise_it(make_results):
    results = make_results()
    wrong = np.flatnonzero(results.oof.argmax(1) != results.folds.labels)
    better = results.folds.labels.copy()
    better[wrong[::2]] = results.oof[wrong[::2]].argmax(1)
    folds = dataclasses.replace(results.folds, labels=better)
    value, low, high, single = numbers(results)
    raised = numbers(dataclasses.replace(results, folds=folds))
    assert raised[0] > value and raised[1] > low and raised[2] >= high and raised[3] > single


def test_a_longer_test_file_of_the_same_kind_narrows_the_interval_alone(make_results):
    results = make_results()
    value, low, high, single = numbers(results)
    longer = numbers(with_test(results, lambda probs: np.tile(probs, (20, 1))))
    assert (longer[0], longer[3]) == (pytest.approx(value), pytest.approx(single))
    assert longer[2] - longer[1] < high - low
