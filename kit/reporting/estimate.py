"""Estimate the leaderboard score of a submission, with an interval.

The CV mean is far too high, because the test writers are harder than any in the training file. But
the models' confidence on the test file shows how hard it is, without its labels:

1. The OOF rows show how often a model is wrong at each margin between its best and its second
   class.
2. The OOF writers show how their actual errors grow with the errors expected from the margins: on
   writers unlike the ones they know, models are wrong more often than their confidence suggests.
3. The margins on the test file then give the errors to expect there of a single model.
4. The ensemble makes fewer errors. How many fewer follows from how often its members disagree with
   it on the test file, and how often it was right when they disagreed on the labelled out-of-domain
   file; of a run that learned from that file, as often as other runs' ensembles were.
5. Where a class prior changed labels (kit.ensembling.prior), what such changes gain is measured on
   the OOF rows of held-out writers, sampled the way the test file was.

The interval comes from resampling writers, and from the spread between writers that step 2 leaves
unexplained. Sources: Garg et al. 2022, arXiv 2201.04234 (confidence under shift); Jiang et al.
2022, arXiv 2106.13799 (disagreement).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from kit.data.folds import TEST_WRITERS
from kit.ensembling.blend import Member, RunResults, mean_probs
from kit.ensembling.prior import ClassPrior
from kit.reporting import blended
from kit.reporting.metrics import LEAST_ACCURACY, sum_by_writer

DRAWS = 2_000  # of writers
SEED = 0
STEEPNESS = 0.2  # a priori standard deviation of how much faster errors grow than expected
SPREAD = 0.35  # a priori standard deviation of a writer's log error around what the margins say
# Standard deviation of the log error that all writers of a file have in common: without it the
# interval held for 12 of 15 groups of eight writers, with it for 14 (docs/lab-log.md, 2026-11-25).
SHARED_SPREAD = 0.2
# Where ensemble and member differ: how often the ensemble is right minus how often the member is.
# Used where no out-of-domain file was predicted; with one, four runs had .21 to .30
# (docs/lab-log.md, 2026-11-30).
ENSEMBLE_WINS = 0.25
MAX_GAIN = 0.5
DRAWS_PER_GROUP = 5  # of rows of each eight writers, to measure what a class prior gains there
PRIOR_CHANGED = 20  # rows without gain, added to those counted, so that few changes count little
GROUP_WRITERS, N_GROUPS = 3, 8  # of the cross-check: writers in a group, and groups


def estimate(results: RunResults) -> dict[str, Any] | None:
    """`value, low, high` (accuracies), `method` (in words), `cross_check`; None without test probs,
    and for the split `harder`, whose models are not to be handed in.

    The numbers are None, and `method` says why, where the run's OOF accuracy is below
    `LEAST_ACCURACY`. After self-training the models are sure of their own guesses, so the estimate
    is then that of the run before it.
    """
    if results.blended is not None:
        return blended.estimate(results, results.blended)
    if before := results.before_self_training:
        found = estimate(before)
        if found is not None and found["value"] is not None and results.test is not None \
                and before.test is not None:
            moved = int((results.test.argmax(1) != before.test.argmax(1)).sum())
            found["method"] += (" All this is before self-training, which then changed "
                                f"{moved} label{'s' * (moved != 1)}; what that gains is not "
                                "included.")
        return found
    if results.test is None or results.folds.split == "harder":
        return None
    scored = np.isfinite(results.oof).all(1)
    labels = results.folds.labels[scored].astype(int)
    wrong = results.oof[scored].argmax(1) != labels
    accuracy = float((~wrong).mean())
    if accuracy < LEAST_ACCURACY:
        return {"value": None, "low": None, "high": None, "single_model": None,
                "oof_accuracy": accuracy, "cross_check": None, "method":
                "There is no estimate of the leaderboard score: the run reads "
                f"{100 * accuracy:.0f}\u00a0% of the held-out rows correctly, and below "
                f"{100 * LEAST_ACCURACY:.0f}\u00a0% nothing useful can be said about a "
                "harder test file. Train it longer, or on more rows."}

    # Steps 1 to 3: a single model's errors on the test file. `fold_probs` are its probs by the
    # models of one fold, which is how an OOF row was predicted.
    fold_probs = _mean_by_fold(results, lambda member: member.test)
    margins, test_margins = log_margin(results.oof[scored]), [log_margin(p) for p in fold_probs]
    writers = None if results.folds.writers is None else results.folds.writers[scored]
    if writers is None or not results.folds.keeps_writers_apart:
        error_curve = ErrorCurve.fit(margins, wrong)
        single = float(np.mean([error_curve.at(each).mean() for each in test_margins]))
        draws = single * np.exp(np.random.default_rng(SEED).normal(0, SPREAD, DRAWS))
        words = ("This is a rough guess: writers were not kept apart, so the models' confidence is "
                 "that of models which knew the writers. By it")
        check = None
    else:
        single, draws = extrapolate(margins, wrong, writers, test_margins, TEST_WRITERS)
        words = ("The models' confidence on the test file shows how hard it is; how errors grow "
                 "as confidence falls was measured on held-out writers. By this")
        check = cross_check(margins, wrong, writers)

    # Step 4
    gain = _ensemble_gain(results, fold_probs, single)
    value, draws = single * (1 - gain), draws * (1 - gain)
    words += (f", one model alone would misread {100 * single:.1f}\u00a0% of the file; the "
              f"ensemble makes {100 * gain:.0f}\u00a0% fewer mistakes.")

    # Step 5
    relabelled = int((results.submitted.argmax(1) != results.test.argmax(1)).sum())
    changed = relabelled / len(results.test)
    if changed and results.class_prior and results.class_prior.spread is not None:
        pool = results.competition.test_pool or len(results.test)
        won, spread = prior_gain(results.oof[scored], labels, writers, results.class_prior,
                                 min(1.0, len(results.test) / pool))
        won_draws = np.random.default_rng(SEED + 2).normal(won, spread, DRAWS).clip(-1, 1)
        value, draws = value - changed * won, draws - changed * won_draws
        count = round(100 * abs(won))
        effect = f"{count} {'fewer' if won > 0 else 'more'}" if count else "no fewer and no more"
        words += (f" The class prior changed {relabelled:,} label{'s' * (relabelled != 1)}; on "
                  f"held-out writers, 100 such changes made {effect} mistakes.")

    value = float(np.clip(value, 0, 1))
    low, high = accuracy_bounds(draws, len(results.test))
    return {"value": 1 - value, "low": low, "high": high, "single_model": 1 - single,
            "oof_accuracy": accuracy, "method": words, "cross_check": check}


# -- from margins to errors ------------------------------------------------------------------------


def log_margin(probs: np.ndarray) -> np.ndarray:
    """`(n,)`: log of the best class's prob over the second's; at most 12, where float16 ends."""
    best = np.sort(np.asarray(probs, "float64"), 1)[:, -2:]
    return np.minimum(np.log(best[:, 1] + 1e-6) - np.log(best[:, 0] + 1e-6), 12.0)


@dataclass(frozen=True)
class ErrorCurve:
    """The share of errors at each margin: falling, by isotonic regression."""

    margins: np.ndarray
    shares: np.ndarray

    @classmethod
    def fit(cls, margins: np.ndarray, wrong: np.ndarray) -> "ErrorCurve":
        from sklearn.isotonic import IsotonicRegression

        model = IsotonicRegression(increasing=False).fit(margins, wrong.astype(float))
        floor = 0.5 / (1 + len(wrong))  # the most confident rows may be wrong too
        return cls(model.X_thresholds_, np.maximum(model.y_thresholds_, floor))

    def at(self, margins: np.ndarray) -> np.ndarray:
        """`(n,)`: the share of errors to expect at each of these margins."""
        return np.interp(margins, self.margins, self.shares)


def extrapolate(margins: np.ndarray, wrong: np.ndarray, writers: np.ndarray,
                unseen: list[np.ndarray], n_writers: int) -> tuple[float, np.ndarray]:
    """The share of errors to expect on `n_writers` unseen writers, and DRAWS draws of it.

    margins, wrong, writers: `(m,)`, of rows with labels. unseen: the margins of the unseen writers'
    rows, one array per model.
    """
    error_curve = ErrorCurve.fit(margins, wrong)
    predicted, rows = sum_by_writer(error_curve.at(margins), writers)
    errors, _ = sum_by_writer(wrong, writers)
    expected = predicted / rows
    target = np.log(np.mean([error_curve.at(each).mean() for each in unseen]))
    rng = np.random.default_rng(SEED)
    picks = rng.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), DRAWS)
    (level,), (slope,) = _fit_growth(expected, rows, errors, np.ones((1, len(rows))))
    levels, slopes = _fit_growth(expected, rows, errors, picks)

    # The spread of the writers' log errors around the fit, beyond chance: half-way between the one
    # measured and the prior, since it is measured on few errors.
    fitted = rows * np.exp(level + (1 + slope) * np.log(expected))
    variance = ((errors - fitted) ** 2 - fitted).sum() / (fitted**2).sum()
    spread = float(np.sqrt((max(variance, 0.0) + SPREAD**2) / 2))
    factors = np.exp(rng.normal(-spread**2 / 2, spread, (DRAWS, n_writers))).mean(1)
    factors *= np.exp(rng.normal(0, SHARED_SPREAD, DRAWS))
    return (float(np.exp(level + (1 + slope) * target)),
            np.exp(levels + (1 + slopes) * target) * factors)


def _fit_growth(expected: np.ndarray, rows: np.ndarray, errors: np.ndarray,
                weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How errors grow with those expected: level and slope `(b,)` for weights `(b, writers)`.

    log errors = level + (1 + slope) · log expected, by Poisson regression with extra spread
    between writers, in 15 Newton steps. Priors (slope 0 ± STEEPNESS, level 0 ± 1 at the centre)
    keep the fit near `expected` where there are few errors.
    """
    x = np.log(expected)
    centre = np.average(x, weights=errors + 0.5)
    design = np.stack([np.ones_like(x), x - centre], 1)
    prior = np.diag([1.0, 1 / STEEPNESS**2])
    beta = np.zeros((len(weights), 2))
    for _ in range(15):
        mean = rows * np.exp(x + beta @ design.T)
        precision = weights / (1 + SPREAD**2 * mean)  # a writer with many errors is still one
        gradient = (precision * (errors - mean)) @ design - beta @ prior
        curvature = np.einsum("bw,wi,wj->bij", precision * mean, design, design) + prior
        beta += np.clip(np.linalg.solve(curvature, gradient[:, :, None])[:, :, 0], -1, 1)
    return beta[:, 0] - beta[:, 1] * centre, beta[:, 1]


def accuracy_bounds(draws: np.ndarray, rows: int) -> tuple[float, float]:
    """95 % interval of the accuracy on so many rows, from draws of the share of errors."""
    noise = np.random.default_rng(SEED + 1).binomial(rows, np.clip(draws, 0, 1)) / rows
    low, high = 1 - np.quantile(noise, [0.975, 0.025])
    return float(low), float(high)


def cross_check(margins: np.ndarray, wrong: np.ndarray, writers: np.ndarray) -> dict[str, Any]:
    """How often the interval holds for groups of the hardest writers, estimated from easier ones.

    Hardest by the margins, which is all that is known of the test writers. Chosen by their errors,
    they would be the very writers for whom the margins promise too much.
    """
    names, index = np.unique(writers, return_inverse=True)
    expected, rows = sum_by_writer(ErrorCurve.fit(margins, wrong).at(margins), writers)
    hardest = np.argsort(-expected / rows, kind="stable")
    groups = []
    for k in range(min(N_GROUPS, len(names) // GROUP_WRITERS - 1)):
        group, easier = np.split(hardest[k * GROUP_WRITERS:], [GROUP_WRITERS])
        asked, known = np.isin(index, group), np.isin(index, easier)
        if not wrong[known].any():
            break
        single, draws = extrapolate(margins[known], wrong[known], writers[known],
                                    [margins[asked]], GROUP_WRITERS)
        low, high = accuracy_bounds(draws, int(asked.sum()))
        actual = float(1 - wrong[asked].mean())
        groups.append({"writers": [int(name) for name in names[group]],
                       "estimate": 1 - single, "low": low, "high": high, "actual": actual,
                       "held": bool(low <= actual <= high)})
    return {"groups": groups, "held": sum(group["held"] for group in groups), "of": len(groups)}


# -- from a single model to what is submitted ------------------------------------------------------


def _mean_by_fold(results: RunResults,
                  probs_of: Callable[[Member], list[np.ndarray]]) -> list[np.ndarray]:
    """The mean probs of each fold's members; a run that its time budget cut short lacks some."""
    folds: dict[int, list[np.ndarray]] = {}
    for member in results.members:
        for done, probs in zip(member.done, probs_of(member), strict=True):
            folds.setdefault(done["job"]["fold"], []).append(probs)
    return [mean_probs(probs) for _, probs in sorted(folds.items())]


def _ensemble_gain(results: RunResults, fold_probs: list[np.ndarray], single: float) -> float:
    """Share of a single model's errors that the ensemble avoids on the test file, up to MAX_GAIN.

    Where the two differ, the ensemble is right more often; how much more is measured on the
    labelled out-of-domain file, where that was predicted; else it is ENSEMBLE_WINS.
    """
    wins = ENSEMBLE_WINS
    extra = results.data.extra()
    if results.extra is not None and extra is not None:
        members = [probs.argmax(1) for probs in _mean_by_fold(results, lambda each: each.extra)]
        ensemble, labels = results.extra.argmax(1), np.asarray(extra.labels)
        differ = np.mean([(read != ensemble).mean() for read in members])
        better = (ensemble == labels).mean() - np.mean([(read == labels).mean()
                                                        for read in members])
        wins = float(np.clip(better / differ, 0, 1)) if differ > 0 else wins
    ensemble = mean_probs(fold_probs).argmax(1)
    differ = np.mean([(probs.argmax(1) != ensemble).mean() for probs in fold_probs])
    return min(float(differ) * wins / single, MAX_GAIN)


def prior_gain(probs: np.ndarray, labels: np.ndarray, writers: np.ndarray | None,
               prior: ClassPrior, share: float) -> tuple[float, float]:
    """Errors that `prior` corrects, less those it makes, per changed label: mean and deviation.

    Counted on the OOF rows of eight writers at a time, of which a random `share` is drawn, as the
    test file is drawn from its pool; where writers are unknown, on all rows.
    """
    rng, n_classes = np.random.default_rng(SEED + 3), probs.shape[1]
    groups = [np.arange(len(labels))]
    if writers is not None:
        wrong, rows = sum_by_writer(probs.argmax(1) != labels, writers)
        hardest = np.unique(writers)[np.argsort(-wrong / rows, kind="stable")]
        groups = [np.flatnonzero(np.isin(writers, hardest[start:start + TEST_WRITERS]))
                  for start in range(0, len(hardest), TEST_WRITERS)]
    counts = []
    for group in groups:
        n = max(1, round(share * len(group)))
        spread = prior.spread and n / n_classes * (len(group) - n) / max(1, len(group) - 1)
        for _ in range(DRAWS_PER_GROUP if share < 1 else 1):
            rows = rng.permutation(group)[:n]
            before = probs[rows].argmax(1)
            after = ClassPrior(spread, prior.why).apply(probs[rows]).argmax(1)
            counts.append(((before != after).sum(), (after == labels[rows]).sum()
                           - (before == labels[rows]).sum()))
    changed, won = np.array(counts, float).T
    rate = won.sum() / (changed.sum() + PRIOR_CHANGED)
    if not changed.any():
        return float(rate), 1.0
    squares = ((won - rate * changed) ** 2).sum() + PRIOR_CHANGED
    return float(rate), float(min(np.sqrt(squares / (changed**2).sum()), 1.0))
