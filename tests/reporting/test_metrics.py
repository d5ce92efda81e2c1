import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from kit.reporting import metrics


@pytest.fixture
def rng():
    return np.random.default_rng(1)


def by_writer(rng, accuracies, rows=100):
    """Right or wrong of writers who are read with these accuracies, and the writer of each row."""
    writers = np.repeat(np.arange(len(accuracies)), rows)
    return rng.random(len(writers)) < np.array(accuracies)[writers], writers


# -- accuracy -------------------------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_is_scipys(hits_of_n):
    hits, n = hits_of_n
    expected = binomtest(hits, n).proportion_ci(method="wilson")
    assert metrics.wilson_interval(hits, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_of_no_rows_nothing_is_known():
    assert metrics.wilson_interval(0, 0) == (0, 1)


def test_without_writers_the_interval_is_wilsons(rng):
    right = rng.random(500) < 0.9
    assert metrics.accuracy_interval(right) == metrics.wilson_interval(int(right.sum()), 500)
    assert metrics.accuracy_interval(right, np.zeros(500)) == metrics.wilson_interval(int(right.sum()), 500)


def test_unequal_writers_widen_the_interval(rng):
    right, writers = by_writer(rng, [0.5, 0.6, 0.99, 0.99, 0.99, 0.99], 1000)
    low, high = metrics.accuracy_interval(right, writers)
    narrow_low, narrow_high = metrics.wilson_interval(int(right.sum()), len(right))
    assert low < right.mean() < high
    assert high - low > 5 * (narrow_high - narrow_low)


def test_flawless_writers_leave_some_doubt():
    low, high = metrics.accuracy_interval(np.ones(200, bool), np.repeat([0, 1], 100))
    assert low < 0.99 and high == 1


def test_the_bootstrap_of_the_same_run_always_reads_the_same(rng):
    right, writers = by_writer(rng, [0.7, 0.8, 0.9, 0.95])
    assert metrics.accuracy_interval(right, writers) == metrics.accuracy_interval(right, writers)


def test_the_interval_over_writers_holds_about_as_often_as_it_says():
    rng = np.random.default_rng(5)
    held = 0
    for _ in range(25):
        right, writers = by_writer(rng, np.clip(rng.normal(0.9, 0.05, 40), 0, 1), 50)
        low, high = metrics.accuracy_interval(right, writers)
        held += low <= 0.8995 <= high  # the mean of that clipped normal, to three digits
    assert held >= 21


def test_cv_scores_by_hand():
    probs = np.eye(10, dtype=np.float32)[[0, 1, 2, 3, 4, 0]]
    block = metrics.cv_scores(probs, np.array([0, 1, 2, 3, 9, 9]), np.array([0, 0, 0, 1, 1, 1]), None)
    assert block["fold_accuracy"] == [1.0, pytest.approx(1 / 3)]
    assert block["mean"] == pytest.approx(2 / 3)
    assert block["std"] == pytest.approx(np.std([1, 1 / 3], ddof=1))
    assert (block["oof_accuracy"], block["mistakes"], block["rows"]) == (pytest.approx(4 / 6), 2, 6)
    assert block["ci95_over"] == "rows"


def test_one_scored_fold_has_no_spread():
    block = metrics.cv_scores(np.eye(10)[:4], np.arange(4), np.full(4, 3), None)
    assert block["std"] is None and block["fold"] == [3]


# -- by writer, by class --------------------------------------------------------------------------------------------


def test_per_writer_counts_every_row_once_and_hardest_sorts(rng):
    right, writers = by_writer(rng, [0.9, 0.2, 0.6], 50)
    entries = metrics.per_writer(right, writers, writers % 2)
    assert sum(entry["rows"] for entry in entries) == 150
    assert sum(entry["mistakes"] for entry in entries) == (~right).sum()
    assert [entry["writer"] for entry in metrics.hardest_first(entries)[:2]] == [1, 2]
    assert entries[1]["fold"] == [1]


def test_per_class_is_sklearns(rng):
    labels = rng.integers(10, size=2000)
    predicted = np.where(rng.random(2000) < 0.8, labels, rng.integers(10, size=2000))
    matrix = confusion_matrix(labels, predicted)
    theirs = np.array(precision_recall_fscore_support(labels, predicted)[:3])
    ours = [[entry[name] for entry in metrics.per_class(matrix)] for name in ("precision", "recall", "f1")]
    assert np.allclose(ours, theirs)


def test_a_class_that_nobody_read_has_no_precision():
    zero, one = metrics.per_class(np.array([[0, 0], [2, 1]]))
    assert zero["recall"] is None and zero["precision"] == 0
    assert one["mistaken_for"] == {"class": 0, "rows": 2} and zero["mistaken_for"] is None


# -- calibration ----------------------------------------------------------------------------------------------------


def test_a_model_that_is_80_percent_sure_and_right_half_the_time_is_off_by_30_points():
    probs = np.tile([0.8, 0.2], (100, 1))
    found = metrics.calibration(probs, np.repeat([0, 1], 50))
    assert found["ece"] == pytest.approx(0.3)
    assert found["log_loss"] == pytest.approx(-(np.log(0.8) + np.log(0.2)) / 2)
    assert [entry["rows"] for entry in found["bins"]] == [100]


def test_a_certain_and_wrong_row_does_not_make_the_loss_infinite():
    assert np.isfinite(metrics.calibration(np.eye(2), np.array([1, 0]))["log_loss"])


# -- paired tests ---------------------------------------------------------------------------------------------------


def test_mcnemar_golden():
    a = np.repeat([True, True, False, False], [80, 9, 1, 10])
    b = np.repeat([True, False, True, False], [80, 9, 1, 10])
    test = metrics.mcnemar_test(a, b)
    assert (test["only_a_right"], test["only_b_right"]) == (9, 1)
    assert test["p"] == pytest.approx(0.021484375)  # 2 · (1 + 10) / 2¹⁰
    assert test["difference"] == pytest.approx(0.08)
    assert test["ci95"][0] < 0.08 < test["ci95"][1]


def test_nothing_differs_between_a_run_and_itself(rng):
    right, writers = by_writer(rng, [0.8, 0.9, 0.7])
    found = metrics.paired_tests(right, right, writers)
    for kind in ("rows", "writers", "hardest"):
        assert found[kind]["difference"] == 0 and found[kind]["p"] == 1
    assert found["writers"]["ci95"] == [0, 0]


def test_turning_the_two_around_turns_the_sign_around(rng):
    a, writers = by_writer(rng, np.linspace(0.7, 0.95, 12))
    b = rng.random(len(a)) < 0.85
    there, back = metrics.paired_tests(a, b, writers), metrics.paired_tests(b, a, writers)
    for kind in ("rows", "writers", "hardest"):
        assert there[kind]["difference"] == pytest.approx(-back[kind]["difference"])
        assert there[kind]["ci95"] == pytest.approx([-bound for bound in back[kind]["ci95"][::-1]])
        assert there[kind]["p"] == pytest.approx(back[kind]["p"])


def test_a_gain_on_every_writer_is_certain_and_one_writers_gain_is_not(rng):
    _, writers = by_writer(rng, [0.5] * 20)
    b = np.arange(len(writers)) % 10 != 0
    everywhere, once = b.copy(), b.copy()
    everywhere[np.arange(len(writers)) % 20 == 0] = True
    once[writers == 3] = True
    assert metrics.writer_bootstrap_test(everywhere, b, writers)["p"] < 0.001
    assert metrics.writer_bootstrap_test(once, b, writers)["p"] > 0.3
    assert metrics.mcnemar_test(once, b)["p"] < 0.01  # rows alone would have been fooled


def test_the_hardest_eight_are_those_that_both_find_hard(rng):
    a, writers = by_writer(rng, [0.3] * 8 + [0.95] * 10)
    b, _ = by_writer(rng, [0.3] * 8 + [0.95] * 10)
    hardest = metrics.paired_tests(a, b, writers)["hardest"]
    assert sorted(hardest["names"]) == list(range(8))
    assert hardest["rows"] == 800 and hardest["accuracy_a"] == a[:800].mean()


def test_unknown_writers_leave_the_test_over_rows():
    found = metrics.paired_tests(np.array([True, False]), np.array([False, False]), None)
    assert found["writers"] is None and found["hardest"] is None and found["rows"]["p"] == 1


# -- the test file --------------------------------------------------------------------------------------------------


def test_class_balance_expects_the_training_shares():
    rows = metrics.class_balance(np.array([0] * 60 + [1] * 40), np.array([0, 0, 0, 1]), 2)
    assert [row["expected"] for row in rows] == [75, 25]
    assert not rows[0]["low"] <= rows[0]["predicted"] <= rows[0]["high"]


def test_votes_are_counted_by_row_and_class():
    votes = metrics.count_votes(np.array([[1, 2], [1, 3], [1, 2], [1, 4]]))
    assert votes.tolist() == [[0, 4, 0, 0, 0], [0, 0, 2, 1, 1]]


def test_everything_is_json(rng):
    right, writers = by_writer(rng, [0.9, 0.8])
    labels = rng.integers(10, size=200)
    probs = rng.dirichlet(np.ones(10), 200).astype(np.float32)
    json.dumps([metrics.cv_scores(probs, labels, writers, writers), metrics.per_writer(right, writers, writers),
                metrics.calibration(probs, labels), metrics.paired_tests(right, ~right, writers),
                metrics.class_balance(labels, labels, 10)], allow_nan=False)
