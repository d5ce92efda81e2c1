"""Estimate the leaderboard score of a submission, with an interval.

A plain CV mean is far too high: the test writers are harder than any in the training file. But the
models' confidence on the test file shows how hard it is, without its labels. So

1. from the OOF rows, how often a model is wrong at each margin between its best and its second class;
2. from the OOF writers, how the errors counted grow with the errors expected from the margins, since models are more
   wrong than they doubt on writers far from those they know;
3. the margins on the test file then say how many errors to expect there of a single model;
4. the ensemble makes fewer: by how much shows in how often its members disagree with it on the test file, and in how
   often it was right when they did, on the labelled out-of-domain file;
5. where a class prior changed labels (kit.ensembling.prior), what such changes win is measured on held-out writers, of
   whom rows are drawn as the test file is.

The interval comes from resampling writers and from the spread between writers that step 2 leaves unexplained.
Sources: Garg et al. 2022, arXiv 2201.04234 (confidence under shift); Jiang et al. 2022, arXiv 2106.13799
(disagreement).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from kit.ensembling.blend import Member, RunResults, mean_probs
from kit.ensembling.prior import ClassPrior
from kit.reporting.metrics import LEAST_ACCURACY

DRAWS = 2_000  # of writers
SEED = 0
TEST_WRITERS = 8  # as in the official test file; the fewer, the more one of them can move the score
STEEPNESS = 0.2  # a priori standard deviation of how much faster errors grow than expected
SPREAD = 0.35  # a priori standard deviation of a writer's log error around what the margins say
# Standard deviation of the log error that all writers of a file have in common: without it the interval held for 12 of
# 15 groups of eight writers, with it for 14 (docs/lab-log.md, 2026-11-25).
SHARED_SPREAD = 0.2
# Ensemble right minus member right, where they differ; used without an out-of-domain file.
ENSEMBLE_WINS = 0.45
MAX_GAIN = 0.5
DRAWS_PER_GROUP = 5  # of rows of each eight writers, to measure what a class prior gains there
PRIOR_CHANGED = 20  # rows without gain, added to those counted, so that few changes count little
GROUP_WRITERS, N_GROUPS = 3, 8  # of the cross-check: writers in a group, and groups


def estimate(results: RunResults) -> dict[str, Any] | None:
    """`value, low, high` (accuracies), `method` (in words), `cross_check`; None without test probs.

    The numbers are None, and `method` says why, where the run reads less than `LEAST_ACCURACY` of its
    OOF rows. After self-training the models doubt their own guesses no longer: the estimate is then
    that of the run before it.
    """
    if results.before_self_training is not None:
        return _before_self_training(results, results.before_self_training)
    if results.test is None:
        return None
    scored = np.isfinite(results.oof).all(1)
    labels = results.folds.labels[scored].astype(int)
    wrong = results.oof[scored].argmax(1) != labels
    accuracy = float(1 - wrong.mean())
    if accuracy < LEAST_ACCURACY:
        return {"value": None, "low": None, "high": None, "single_model": None, "oof_accuracy": accuracy,
                "method": "There is no estimate of the leaderboard score: the run reads "
                          f"{100 * accuracy:.0f}\u00a0% of the held-out digits, and below "
                          f"{100 * LEAST_ACCURACY:.0f}\u00a0% nothing useful can be said of harder writers. "
                          "Train it longer, or on more rows.", "cross_check": None}
    margins = log_margin(results.oof[scored])
    fold_ensembles = _fold_ensembles(results)
    writers = None if results.folds.writers is None else results.folds.writers[scored]
    if writers is None or not results.folds.keeps_writers_apart:
        error_curve = ErrorCurve.fit(margins, wrong)
        expected = [error_curve.expected(log_margin(probs)) for probs in fold_ensembles]
        single = float(np.mean(expected))
        draws = single * np.exp(np.random.default_rng(SEED).normal(0, SPREAD, DRAWS))
        words = ("A rough guess: writers were not kept apart, so these are the doubts of models that knew the writers. "
                 "By them")
        check = None
    else:
        margins_test = [log_margin(probs) for probs in fold_ensembles]
        single, draws = _extrapolate(margins, wrong, writers, margins_test, TEST_WRITERS)
        words = ("The models' doubts on the test file show how hard it is, and how errors grow with doubts is known "
                 "from held-out writers. By that")
        check = cross_check(margins, wrong, writers)
    gain = _ensemble_gain(results, fold_ensembles, single)
    value, draws = single * (1 - gain), draws * (1 - gain)
    words += (f" one model alone would misread {100 * single:.1f}\u00a0% of it; together they make "
              f"{100 * gain:.0f}\u00a0% fewer mistakes.")
    changed = float((results.submitted.argmax(1) != results.test.argmax(1)).mean())
    if changed and results.class_prior and results.class_prior.spread is not None:
        won, spread = prior_gain(results.oof[scored], labels, writers, results.class_prior,
                                 min(1.0, len(results.test) / (results.competition.test_pool or len(results.test))))
        rng = np.random.default_rng(SEED + 2)
        value, draws = value - changed * won, draws - changed * rng.normal(won, spread, DRAWS).clip(-1, 1)
        words += (f" The class prior changed {100 * changed:.1f}\u00a0% of the labels; on held-out writers "
                  f"100 such changes mended {100 * won:.0f} errors net.")
    value = float(np.clip(value, 0, 1))
    low, high = _interval(draws, len(results.test))
    return {"value": 1 - value, "low": low, "high": high, "single_model": 1 - single,
            "oof_accuracy": accuracy, "method": words, "cross_check": check}


def _before_self_training(results: RunResults, before: RunResults) -> dict[str, Any] | None:
    found = estimate(before)
    if found is None or found["value"] is None:
        return found
    moved = int((results.submitted.argmax(1) != before.submitted.argmax(1)).sum())
    words = f" That is before self-training, which changed {moved} labels; what they gain is not in it."
    return {**found, "method": found["method"] + words}


def log_margin(probs: np.ndarray) -> np.ndarray:
    """`(n,)`: log of the best class's prob over the second's, at most 12 (float16 probs tell no more)."""
    best = np.sort(np.asarray(probs, "float64"), 1)[:, -2:]
    return np.minimum(np.log(best[:, 1] + 1e-6) - np.log(best[:, 0] + 1e-6), 12.0)


@dataclass(frozen=True)
class ErrorCurve:
    """The share of errors at each margin of the probs: falling, by isotonic regression."""

    margins: np.ndarray
    shares: np.ndarray

    @classmethod
    def fit(cls, margins: np.ndarray, wrong: np.ndarray) -> "ErrorCurve":
        from sklearn.isotonic import IsotonicRegression

        model = IsotonicRegression(increasing=False).fit(margins, wrong.astype(float))
        floor = 0.5 / (1 + len(wrong))  # the most confident rows may be wrong too
        return cls(model.X_thresholds_, np.maximum(model.y_thresholds_, floor))

    def expected(self, margins: np.ndarray) -> float:
        """Mean share of errors to expect at these margins."""
        return float(np.interp(margins, self.margins, self.shares).mean())


def _extrapolate(margins: np.ndarray, wrong: np.ndarray, writers: np.ndarray, unseen: list[np.ndarray],
                 n_writers: int) -> tuple[float, np.ndarray]:
    """Share of errors to expect on unseen writers with these margins (one array per model), and draws of it."""
    error_curve = ErrorCurve.fit(margins, wrong)
    expected, rows, errors = _by_writer(error_curve, margins, wrong, writers)
    target = np.log(np.mean([error_curve.expected(each) for each in unseen]))
    rng = np.random.default_rng(SEED)
    everybody = np.ones((1, len(rows)))
    picks = rng.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), DRAWS)
    (level,), (slope,) = _fit(expected, rows, errors, everybody)
    levels, slopes = _fit(expected, rows, errors, picks)
    spread = _spread(rows * np.exp(level + (1 + slope) * np.log(expected)), errors)
    of_writers = np.exp(rng.normal(-spread**2 / 2, spread, (DRAWS, n_writers))).mean(1)
    of_writers *= np.exp(rng.normal(0, SHARED_SPREAD, DRAWS))
    return float(np.exp(level + (1 + slope) * target)), np.exp(levels + (1 + slopes) * target) * of_writers


def _by_writer(error_curve: ErrorCurve, margins: np.ndarray, wrong: np.ndarray,
               writers: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Per writer: share of errors expected from the margins, number of rows, number of errors."""
    _, index = np.unique(writers, return_inverse=True)
    rows = np.bincount(index)
    shares = np.interp(margins, error_curve.margins, error_curve.shares)
    return np.bincount(index, shares) / rows, rows, np.bincount(index, wrong)


def _fit(expected: np.ndarray, rows: np.ndarray, errors: np.ndarray,
         weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Level and slope `(b,)` of log errors = level + (1 + slope) · log expected, for weights `(b, writers)`.

    Poisson regression with extra spread between writers, by Newton's method; priors (slope 0 ± STEEPNESS, level 0 ± 1
    at the centre) keep it from running away where there are few errors.
    """
    x = np.log(expected)
    centre = np.average(x, weights=errors + 0.5)
    design = np.stack([np.ones_like(x), x - centre], 1)
    prior = np.diag([1.0, 1 / STEEPNESS**2])
    beta = np.zeros((len(weights), 2))
    for _ in range(15):
        mean = rows * np.exp(x + beta @ design.T)
        precision = weights / (1 + SPREAD**2 * mean)  # a writer with many errors is still one writer
        gradient = (precision * (errors - mean)) @ design - beta @ prior
        curvature = np.einsum("bw,wi,wj->bij", precision * mean, design, design) + prior
        beta += np.clip(np.linalg.solve(curvature, gradient[:, :, None])[:, :, 0], -1, 1)
    return beta[:, 0] - beta[:, 1] * centre, beta[:, 1]


def _spread(mean: np.ndarray, errors: np.ndarray) -> float:
    """Standard deviation of a writer's log error around the fit beyond chance, drawn half-way to the prior's."""
    variance = ((errors - mean) ** 2 - mean).sum() / (mean**2).sum()
    return float(np.sqrt((max(variance, 0.0) + SPREAD**2) / 2))


def cross_check(margins: np.ndarray, wrong: np.ndarray, writers: np.ndarray) -> dict[str, Any]:
    """How often the interval holds for groups of the hardest writers, estimated from easier ones.

    Hardest by the margins, which is all that is known of the test writers. Chosen by their errors,
    they would be the very writers on whom the margins promise too much.
    """
    names, index = np.unique(writers, return_inverse=True)
    error_curve = ErrorCurve.fit(margins, wrong)
    hardest = np.argsort(-_by_writer(error_curve, margins, wrong, writers)[0], kind="stable")
    groups = []
    for k in range(min(N_GROUPS, len(names) // GROUP_WRITERS - 1)):
        group, easier = np.split(hardest[k * GROUP_WRITERS:], [GROUP_WRITERS])
        asked, known = np.isin(index, group), np.isin(index, easier)
        if not wrong[known].any():
            break
        single, draws = _extrapolate(margins[known], wrong[known], writers[known], [margins[asked]],
                                     GROUP_WRITERS)
        low, high = _interval(draws, int(asked.sum()))
        actual = float(1 - wrong[asked].mean())
        groups.append({"writers": [int(name) for name in names[group]],
                       "estimate": 1 - single, "low": low, "high": high, "actual": actual,
                       "held": bool(low <= actual <= high)})
    return {"groups": groups, "held": sum(group["held"] for group in groups), "of": len(groups)}


def _interval(draws: np.ndarray, rows: int) -> tuple[float, float]:
    """95 % interval of the accuracy on so many rows, from draws of the share of errors."""
    noise = np.random.default_rng(SEED + 1).binomial(rows, np.clip(draws, 0, 1)) / rows
    low, high = 1 - np.quantile(noise, [0.975, 0.025])
    return float(low), float(high)


# -- from a single model to the ensemble ----------------------------------------------------------------------------


def _fold_ensembles(results: RunResults) -> list[np.ndarray]:
    """Test probs of each fold, the mean over the members, as for an OOF row."""
    return _by_fold(results, lambda member: member.test)


def _by_fold(results: RunResults, probs_of: Callable[[Member], list[np.ndarray]]) -> list[np.ndarray]:
    """The mean probs of each fold's members; a run that its time budget cut short lacks some."""
    folds: dict[int, list[np.ndarray]] = {}
    for member in results.members:
        for done, probs in zip(member.done, probs_of(member), strict=True):
            folds.setdefault(done["job"]["fold"], []).append(probs)
    return [mean_probs(probs) for _, probs in sorted(folds.items())]


def _ensemble_gain(results: RunResults, fold_ensembles: list[np.ndarray], single: float) -> float:
    """Share of a single model's errors that the ensemble avoids on the test file; at most MAX_GAIN.

    Where the two differ, the ensemble is right more often; how much more is measured on the
    labelled out-of-domain file.
    """
    wins = ENSEMBLE_WINS
    extra = results.data.extra()
    if results.extra is not None and extra is not None:
        members = [probs.argmax(1) for probs in _by_fold(results, lambda member: member.extra)]
        ensemble, labels = results.extra.argmax(1), np.asarray(extra.labels)
        differ = np.mean([(labels_k != ensemble).mean() for labels_k in members])
        better = (ensemble == labels).mean() - np.mean([(labels_k == labels).mean() for labels_k in members])
        wins = float(np.clip(better / differ, 0, 1)) if differ > 0 else wins
    handed_in = mean_probs(fold_ensembles).argmax(1)
    differ = np.mean([(probs.argmax(1) != handed_in).mean() for probs in fold_ensembles])
    return min(float(differ) * wins / single, MAX_GAIN)


def prior_gain(probs: np.ndarray, labels: np.ndarray, writers: np.ndarray | None, prior: ClassPrior,
               share: float) -> tuple[float, float]:
    """Errors that `prior` corrects, less those it makes, per changed label: mean and deviation.

    Counted on the OOF rows of eight writers at a time, of whom a random `share` is drawn, as the
    test file is drawn from its pool; where writers are unknown, on all rows.
    """
    rng, n_classes = np.random.default_rng(SEED + 3), probs.shape[1]
    groups = [np.arange(len(labels))]
    if writers is not None:
        _, index = np.unique(writers, return_inverse=True)
        hardest = np.argsort(-np.bincount(index, probs.argmax(1) != labels) / np.bincount(index), kind="stable")
        groups = [np.flatnonzero(np.isin(index, hardest[start:start + TEST_WRITERS]))
                  for start in range(0, len(hardest), TEST_WRITERS)]
    counts = []
    for group in groups:
        n = max(1, round(share * len(group)))
        spread = prior.spread and n / n_classes * (len(group) - n) / max(1, len(group) - 1)
        for _ in range(DRAWS_PER_GROUP if share < 1 else 1):
            rows = rng.permutation(group)[:n]
            read, told = probs[rows].argmax(1), ClassPrior(spread, prior.why).apply(probs[rows]).argmax(1)
            counts.append(((read != told).sum(), (told == labels[rows]).sum() - (read == labels[rows]).sum()))
    changed, won = np.array(counts, float).T
    rate = won.sum() / (changed.sum() + PRIOR_CHANGED)
    if not changed.any():
        return float(rate), 1.0
    spread = np.sqrt((((won - rate * changed) ** 2).sum() + PRIOR_CHANGED) / (changed**2).sum())
    return float(rate), float(min(spread, 1.0))
