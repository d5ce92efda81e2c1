"""Class counts: exact where all is known, weak at half, none where nothing is known or the labels say otherwise."""

from dataclasses import replace

import numpy as np
import pytest

from kit.data.competition import DIGIT_RECOGNIZER, KANNADA
from kit.ensembling.prior import ClassPrior, class_prior


def read(labels, rng, lean=0.0):
    """Probs of a network that is sure but for 4 rows in 100, and takes the share `lean` of the 0s for 1s, unsurely."""
    logits = rng.normal(0, 1, (len(labels), 10))
    logits[np.arange(len(labels)), labels] += 10
    unsure = np.flatnonzero(rng.uniform(size=len(labels)) < 0.04)
    rival = (labels[unsure] + rng.integers(1, 10, len(unsure))) % 10
    logits[unsure, rival] = logits[unsure, labels[unsure]] + rng.normal(-1.5, 1.5, len(unsure))
    taken = np.flatnonzero(labels == 0)[:round(lean * (labels == 0).sum())]
    logits[taken, 1] = logits[taken, 0] + rng.uniform(0, 1, len(taken))
    probs = np.exp(logits)
    return (probs / probs.sum(1, keepdims=True)).astype("float32")


@pytest.fixture
def pool():
    """Labels of 10,000 rows, 1,000 of each class, and probs that lean: 70 zeros look like ones."""
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.repeat(np.arange(10), 1000))
    return labels, read(labels, rng, 0.07)


def errors(labels, probs):
    return int((probs.argmax(1) != labels).sum())


def test_the_whole_pool_has_exactly_equal_classes_and_a_lean_is_mended(pool):
    labels, probs = pool
    prior = class_prior("auto", KANNADA, probs)
    result = prior.apply(probs)
    assert prior.spread == 0 and "each class equally often" in prior.why
    np.testing.assert_allclose(result.mean(0), 0.1, atol=1e-4)
    np.testing.assert_allclose(result.sum(1), 1, atol=1e-5)
    assert result.dtype == np.float32
    assert errors(labels, result) < errors(labels, probs) - 20


def test_the_spread_of_half_a_pool_is_that_of_the_hypergeometric_distribution(pool):
    labels, probs = pool
    prior = class_prior("auto", KANNADA, probs[:5000])
    rng = np.random.default_rng(1)
    counts = np.stack([np.bincount(rng.permutation(labels)[:5000], minlength=10) for _ in range(2000)])
    covariance = np.cov(counts.T)
    np.testing.assert_allclose(np.diag(covariance), prior.spread * 0.9, rtol=0.15)
    assert covariance[~np.eye(10, dtype=bool)].mean() == pytest.approx(-prior.spread / 10, rel=0.05)
    assert "500\u00a0±\u00a015 times" in prior.why


def test_at_half_it_is_never_much_worse_than_the_labels_as_read_where_equality_is():
    """Without any lean, random halves of a pool: equal counts make errors, the prior makes none to speak of."""
    rng = np.random.default_rng(2)
    labels = np.repeat(np.arange(10), 1000)
    probs = read(labels, rng)
    with_prior, equal = [], []
    for _ in range(8):
        rows = rng.permutation(10_000)[:5000]
        as_read = errors(labels[rows], probs[rows])
        with_prior.append(errors(labels[rows], class_prior("auto", KANNADA, probs[rows]).apply(probs[rows])) - as_read)
        equal.append(errors(labels[rows], class_prior("equal", KANNADA, probs[rows]).apply(probs[rows])) - as_read)
    assert np.mean(with_prior) <= 1 and max(with_prior) <= 5
    assert np.mean(equal) > 5


def test_a_wide_spread_leaves_the_labels_as_read(pool):
    _, probs = pool
    np.testing.assert_array_equal(ClassPrior(1e6, "").apply(probs).argmax(1), probs.argmax(1))


def test_the_exact_prior_is_the_limit_of_a_narrow_one(pool):
    _, probs = pool
    np.testing.assert_allclose(ClassPrior(1e-6, "").apply(probs), ClassPrior(0.0, "").apply(probs), atol=1e-3)


@pytest.mark.parametrize(("asked", "competition", "rows", "words"), [
    ("none", KANNADA, 10_000, "as asked for"), ("auto", DIGIT_RECOGNIZER, 10_000, "nothing is known"),
    ("auto", KANNADA, 999, "fewer than 1,000"), ("equal", KANNADA, 1, "fewer than 1,000"),
    ("auto", replace(KANNADA, test_pool=9_999), 10_000, "more rows than the 9,999")])
def test_where_nothing_is_known_the_labels_stay_as_read(pool, asked, competition, rows, words):
    probs = pool[1][:rows]
    prior = class_prior(asked, competition, probs)
    assert prior.spread is None and words in prior.why
    assert prior.apply(probs) is probs


@pytest.mark.parametrize(("n", "shares"), [(5000, 0.15), (10_000, 0.1), (2000, 0.3)])
def test_the_prior_steps_aside_where_the_labels_as_read_are_implausible(n, shares):
    rng = np.random.default_rng(3)
    labels = rng.choice(10, n, p=0.1 * (1 + np.linspace(-shares, shares, 10)))
    probs = read(labels, rng)
    assert class_prior("auto", KANNADA, probs).spread is None
    assert "not those of a random part" in class_prior("auto", KANNADA, probs).why
    assert class_prior("equal", KANNADA, probs).spread == 0


def test_a_training_file_in_order_or_a_single_class_is_no_random_part_of_the_pool():
    for labels in (np.repeat(np.arange(5), 1000), np.zeros(2000, int)):
        assert class_prior("auto", KANNADA, read(labels, np.random.default_rng(4))).spread is None


def test_rows_that_are_sure_keep_their_label(pool):
    _, probs = pool
    sure = probs.max(1) > 0.99
    result = ClassPrior(0.0, "").apply(probs)
    np.testing.assert_array_equal(result[sure].argmax(1), probs[sure].argmax(1))
