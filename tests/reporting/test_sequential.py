"""A comparison looked at after each round of folds ends when it is decided, rarely wrongly."""

import importlib
from pathlib import Path

import numpy as np
import pytest

from kit.reporting import sequential

ROOT = Path(__file__).resolve().parents[2]
ROUNDS = [[0], [1], [2], [3], [4]]
ROWS = 60  # of each writer


def compared(gains, rows=ROWS):
    """Rows that A and B read right, their folds and writers; gains: A's rows more, by writer."""
    a, b = np.ones((2, len(gains), rows), bool)
    for writer, gain in enumerate(gains):
        (b if gain > 0 else a)[writer, :abs(gain)] = False
    fold, writers = np.arange(len(gains)) % 5, np.arange(len(gains))
    return a.ravel(), b.ravel(), np.repeat(fold, rows), np.repeat(writers, rows)


def judge(gains, rounds=ROUNDS, **options):
    return sequential.judge(*compared(gains), rounds, **options)


def test_a_clear_difference_is_decided_early_and_named_from_both_sides():
    gains = np.random.default_rng(0).integers(0, 5, 47)
    better, worse = judge(gains), judge(-gains)
    assert (better.outcome, worse.outcome) == ("better", "worse")
    assert len(better.looks) == len(worse.looks) == 1
    assert better.looks[0].difference == -worse.looks[0].difference
    assert better.looks[0].difference == pytest.approx(gains[::5].mean() / ROWS)
    assert better.looks[0].needed <= better.looks[0].difference


def test_two_runs_that_read_alike_are_given_up_before_the_end():
    found = judge(np.random.default_rng(1).permutation(np.resize([1, -1], 47)))
    assert found.outcome == "none" and 1 < len(found.looks) < 5
    assert found.looks[-1].chance < sequential.UNLIKELY <= found.looks[0].chance
    assert judge(np.zeros(47, int)).looks[0].chance == 0


def test_a_larger_difference_that_matters_ends_it_sooner():
    gains = np.random.default_rng(1).permutation(np.resize([3, -2], 47))
    assert len(judge(gains, difference=0.05).looks) < len(judge(gains).looks)


def test_it_goes_on_where_it_was_and_says_what_would_decide_it():
    gains = np.random.default_rng(4).integers(-4, 7, 47)
    two, more = judge(gains, ROUNDS[:2]), judge(gains, ROUNDS)
    assert two.outcome == "undecided" and more.looks[:2] == two.looks and len(more.looks) > 2
    assert "would decide it now" in sequential.verdict(two, "a", "b")
    a, b, fold, writers = compared(gains)
    a[fold > 1] = b[fold > 1] = False  # not scored yet, so of no account
    assert sequential.judge(a, b, fold, writers, ROUNDS[:2]) == two


def test_folds_that_train_at_once_are_one_look():
    found = judge(np.random.default_rng(4).integers(-4, 7, 47), [[0, 1], [2, 3], [4]])
    assert len(found.looks) > 1
    assert [look.folds for look in found.looks] == [2, 4, 5][:len(found.looks)]


def test_two_writers_decide_nothing_and_one_says_nothing():
    assert judge([5, 5], [[0], [1]]).outcome == "none"
    assert judge([5, 5], [[0]]).looks[0].chance == 1


def test_without_writers_rows_are_grouped():
    a, b, fold, _ = compared(np.full(47, 3))
    fold = np.arange(len(fold)) % 5
    assert sequential.judge(a, b, fold, None, ROUNDS).outcome == "better"
    assert sequential.judge(b, a, fold, None, ROUNDS).outcome == "worse"
    assert sequential.judge(a, a, fold, None, ROUNDS).outcome == "none"


def test_every_outcome_has_its_sentence():
    gains = np.random.default_rng(1).permutation(np.resize([1, -1], 47))
    said = [sequential.verdict(judge(each, rounds), "new", "old") for each, rounds in (
        (gains + 3, ROUNDS), (gains - 3, ROUNDS), (gains, ROUNDS), (gains, [[0, 1, 2, 3, 4]]),
        (gains, ROUNDS[:1]))]
    assert said[0].startswith("new is better than old: +")
    assert said[0].endswith("decided after 1 of 5 folds")
    assert said[1].startswith("new is worse than old: −")
    assert said[2].startswith("no difference that matters between new and old: ")
    assert "a chance of" in said[2]
    assert said[3].startswith("no difference shown between new and old: ")
    assert said[3].endswith("after 5 of 5 folds")
    assert said[4].startswith("after 1 of 5 folds: new against old ") and "not decided" in said[4]


def test_writers_of_very_unlike_weight_do_not_make_it_err():
    """Nothing differs: each writer's gain has its sign by chance, and a few outweigh all others."""
    rng, draws = np.random.default_rng(0), 400
    found = [judge(rng.choice([-1, 1], 47) * np.minimum(rng.geometric(0.4, 47) ** 2, ROWS)).outcome
             for _ in range(draws)]
    wrong = found.count("better") + found.count("worse")
    assert 0 < wrong <= draws * (sequential.ERROR + 3 * np.sqrt(sequential.ERROR / draws))


def test_a_few_writers_whom_one_run_misreads_do_not_make_it_err():
    """Nothing differs: A is a little better for most, and much worse for the few who may be absent.
    """
    rng, draws = np.random.default_rng(0), 200
    found = [sequential.judge(*compared(np.where(rng.random(47) < 0.04, -24, 1), rows=1280),
                              ROUNDS).outcome for _ in range(draws)]
    assert found.count("better") + found.count("worse") <= 0.05 * draws


@pytest.mark.slow
def test_the_committed_runs_show_how_often_it_errs_and_what_it_saves(monkeypatch):
    """As docs/improve.md says, with fewer draws: scripts/sequential.py."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    script = importlib.import_module("sequential")
    runs = [script.read_scored_run(ROOT / "submissions" / name, before_self_training=True)
            for name in script.RUNS]
    nothing, much = (script.simulate(script.make_pairs(runs, difference, alike=True), 60)
                     for difference in (0, 0.005))
    unlike = script.simulate(script.make_pairs(runs, 0, alike=False), 30)
    chance = np.sqrt(sequential.ERROR / 360)
    assert nothing["better"] + nothing["worse"] <= sequential.ERROR + 2 * chance
    assert nothing["each"] > sequential.ERROR + 2 * chance  # an ordinary test, again and again
    assert nothing["folds"] < 3.5
    # Of two kinds, with a few writers who outweigh the others: a t-test at the end errs more often.
    assert unlike["better"] + unlike["worse"] <= sequential.ERROR + 2 * chance
    assert much["better"] > max(0.8, much["once_better"] - 0.05)
    assert much["worse"] == 0 and much["folds"] < 3.5
