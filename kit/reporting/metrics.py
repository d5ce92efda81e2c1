"""Compute the report's statistics: accuracy with intervals, calibration, and paired tests.

The rows of one writer are not independent, so wherever writers are known, it is writers that are
resampled, not rows. All results are plain numbers, lists and dicts, ready for JSON.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from kit.data.folds import TEST_WRITERS

Interval = tuple[float, float]

Z95 = 1.959963984540054  # the 97.5 % point of the normal distribution
DRAWS = 10_000  # of the bootstrap: its 2.5 % point varies by under a tenth of the half-width
SEED = 0  # of the bootstrap, so that the same run always gives the same numbers
# OOF accuracy below which a run gets no estimate of its leaderboard score: it is hardly trained,
# and an interval for harder writers would be a fifth of the whole scale wide, or more
# (docs/lab-log.md, 2026-11-25).
LEAST_ACCURACY = 0.8


# -- accuracy --------------------------------------------------------------------------------------


def wilson_interval(hits: int, n: int) -> Interval:
    """95 % score interval of a proportion of `hits` in `n` independent rows (Wilson 1927).

    (0, 1) for no rows.
    """
    from scipy.stats import binomtest

    if n == 0:
        return 0.0, 1.0
    interval = binomtest(hits, n).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def accuracy_interval(right: np.ndarray, writers: np.ndarray | None = None) -> Interval:
    """95 % interval of the accuracy of `right` (n,) bool.

    Over writers where `writers` (n,) names at least two: the percentile interval of a bootstrap
    that resamples whole writers (Field & Welsh 2007, "cluster bootstrap"), never narrower than
    Wilson's for independent rows, since with few or flawless writers the bootstrap alone is too
    narrow. Otherwise Wilson's.
    """
    low, high = wilson_interval(int(right.sum()), len(right))
    if writers is None or len(np.unique(writers)) < 2:
        return low, high
    hits, rows = sum_by_writer(right, writers)
    draws = _resampled(len(rows))
    means = hits[draws].sum(axis=1) / rows[draws].sum(axis=1)
    low_w, high_w = np.quantile(means, [0.025, 0.975])
    return min(low, float(low_w)), max(high, float(high_w))


def sum_by_writer(values: np.ndarray, writers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sum of `values` (n,) and number of rows of each writer, as np.unique(writers) sorts them."""
    _, index = np.unique(writers, return_inverse=True)
    return np.bincount(index, weights=values), np.bincount(index)


@lru_cache(maxsize=4)
def _resampled(n: int) -> np.ndarray:
    """(DRAWS, n) indices below n, drawn with replacement; always the same ones for the same n."""
    return np.random.default_rng(SEED).integers(n, size=(DRAWS, n))


def cv_scores(probs: np.ndarray, labels: np.ndarray, fold: np.ndarray,
              writers: np.ndarray | None) -> dict[str, Any]:
    """The `cv` of report.json: OOF `probs` (m, n_classes) against `labels` (m,), by `fold` (m,).

    `std` is the sample standard deviation over folds (null for one fold); `ci95` is that of
    `oof_accuracy`.
    """
    right = probs.argmax(axis=1) == labels
    names = [int(k) for k in np.unique(fold)]
    scores = [float(right[fold == k].mean()) for k in names]
    intervals = [accuracy_interval(right[fold == k],
                                   None if writers is None else writers[fold == k])
                 for k in names]
    return {
        "fold": names,
        "fold_rows": [int((fold == k).sum()) for k in names],
        "fold_accuracy": scores,
        "fold_ci95": [list(interval) for interval in intervals],
        "mean": float(np.mean(scores)),
        "std": float(np.std(scores, ddof=1)) if len(scores) > 1 else None,
        "oof_accuracy": float(right.mean()),
        "ci95": list(accuracy_interval(right, writers)),
        "ci95_over": "writers" if writers is not None and len(np.unique(writers)) > 1 else "rows",
        "rows": len(labels),
        "mistakes": int((~right).sum()),
    }


# -- by writer, by class ---------------------------------------------------------------------------


def per_writer(right: np.ndarray, writers: np.ndarray, fold: np.ndarray) -> list[dict[str, Any]]:
    """Rows, mistakes, accuracy, its 95 % interval and folds of each writer, in the file's order."""
    entries = []
    for writer in np.unique(writers):
        own = writers == writer
        hits, n = int(right[own].sum()), int(own.sum())
        entries.append({"writer": int(writer), "fold": [int(k) for k in np.unique(fold[own])],
                        "rows": n, "mistakes": n - hits, "accuracy": hits / n,
                        "ci95": list(wilson_interval(hits, n))})
    return entries


def hardest_first(entries: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The entries of `per_writer`, lowest accuracy first; ties go to the earlier writer."""
    return sorted(entries, key=lambda entry: (entry["accuracy"], entry["writer"]))


def per_class(matrix: np.ndarray) -> list[dict[str, Any]]:
    """Precision, recall and F1 of each class, from scikit-learn's `confusion_matrix`.

    They are null where there is nothing to divide by. `mistaken_for` is the wrong class that it is
    most often read as, with the number of rows; null for none.
    """
    def ratio(part: int, whole: int) -> float | None:
        return part / whole if whole else None

    entries = []
    for k, row in enumerate(matrix):
        hits, n, predicted = int(row[k]), int(row.sum()), int(matrix[:, k].sum())
        wrong = np.where(np.arange(len(row)) == k, 0, row)
        most = {"class": int(wrong.argmax()), "rows": int(wrong.max())} if wrong.any() else None
        entries.append({
            "class": k, "rows": n, "predicted": predicted, "precision": ratio(hits, predicted),
            "recall": ratio(hits, n), "f1": ratio(2 * hits, n + predicted),
            "recall_ci95": list(wilson_interval(hits, n)), "mistaken_for": most})
    return entries


# -- calibration -----------------------------------------------------------------------------------


def calibration(probs: np.ndarray, labels: np.ndarray, n_bins: int = 15) -> dict[str, Any]:
    """How well confidence matches accuracy: `probs` (n, n_classes) against `labels` (n,).

    `ece` is the expected calibration error over equal-width bins (Guo et al. 2017, arXiv
    1706.04599); `log_loss` is the mean of `log_losses`; `bins` leaves out the empty ones.
    """
    confidence, right = probs.max(axis=1), probs.argmax(axis=1) == labels
    index = np.minimum((confidence * n_bins).astype(int), n_bins - 1)
    bins: list[dict[str, Any]] = []
    for k in np.unique(index):
        hits, n = int(right[index == k].sum()), int((index == k).sum())
        bins.append({"low": float(k / n_bins), "high": float((k + 1) / n_bins), "rows": n,
                     "confidence": float(confidence[index == k].mean()), "accuracy": hits / n,
                     "ci95": list(wilson_interval(hits, n))})
    gaps = [entry["rows"] * abs(entry["accuracy"] - entry["confidence"]) for entry in bins]
    return {"ece": float(sum(gaps) / len(labels)), "confidence": float(confidence.mean()),
            "log_loss": float(log_losses(probs, labels).mean()), "bins": bins}


def log_losses(probs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """`(n,)`: -ln p(true) of each row, p clipped at 1e-7. probs: (n, n_classes), labels: (n,)."""
    return -np.log(np.clip(probs[np.arange(len(labels)), labels], 1e-7, 1))


# -- is A better than B? ---------------------------------------------------------------------------


def mcnemar_test(a: np.ndarray, b: np.ndarray) -> dict[str, Any]:
    """McNemar's exact test of A against B: difference A - B of the accuracies, interval, p.

    a, b: (n,) bool, whether each row was right. The interval is Wald's with half a row added to
    each kind of disagreement (Agresti & Min 2005). It treats rows as independent, so it is too
    narrow where the rows of a writer are right or wrong together; see `writer_bootstrap_test`.
    """
    from scipy.stats import binomtest

    n, only_a, only_b = len(a), int((a & ~b).sum()), int((b & ~a).sum())
    plus_a, plus_b, n_plus = only_a + 0.5, only_b + 0.5, n + 2
    middle = (plus_a - plus_b) / n_plus
    half = Z95 * np.sqrt((plus_a + plus_b) - (plus_a - plus_b) ** 2 / n_plus) / n_plus
    p = binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
    return {"test": "McNemar, exact", "rows": n, "only_a_right": only_a, "only_b_right": only_b,
            "difference": float(a.mean() - b.mean()),
            "ci95": [float(middle - half), float(middle + half)], "p": float(p)}


def writer_bootstrap_test(a: np.ndarray, b: np.ndarray,
                          writers: np.ndarray | None) -> dict[str, Any] | None:
    """A against B by a bootstrap that resamples writers: difference A - B, percentile interval, p.

    a, b: (n,), whether each row was right, or a loss. p is two-sided, and at least 2 / (DRAWS + 1),
    the least that DRAWS can show. None where fewer than two writers are known.
    """
    if writers is None or len(np.unique(writers)) < 2:
        return None
    gain, rows = sum_by_writer(a.astype(float) - b, writers)
    draws = _resampled(len(rows))
    differences = gain[draws].sum(axis=1) / rows[draws].sum(axis=1)
    low, high = np.quantile(differences, [0.025, 0.975])
    tail = min((differences <= 0).sum(), (differences >= 0).sum())
    return {"test": "bootstrap over writers", "writers": len(rows), "rows": len(a),
            "writers_a_better": int((gain > 0).sum()), "writers_b_better": int((gain < 0).sum()),
            "difference": float(gain.sum() / rows.sum()), "ci95": [float(low), float(high)],
            "p": float(min(1.0, 2 * (tail + 1) / (DRAWS + 1)))}


def paired_tests(a: np.ndarray, b: np.ndarray, writers: np.ndarray | None) -> dict[str, Any]:
    """Whether A is better than B: over rows, over writers, and over the hardest eight writers.

    The hardest are those with the lowest accuracy of both together; if one of the two chose them,
    that one would look worse by chance.
    """
    over_writers = writer_bootstrap_test(a, b, writers)
    if writers is None or over_writers is None:
        return {"rows": mcnemar_test(a, b), "writers": None, "hardest": None}
    hits, rows = sum_by_writer(a.astype(float) + b, writers)
    chosen = np.unique(writers)[np.argsort(hits / rows, kind="stable")[:TEST_WRITERS]]
    own = np.isin(writers, chosen)
    worst = writer_bootstrap_test(a[own], b[own], writers[own]) or {}
    return {"rows": mcnemar_test(a, b), "writers": over_writers, "hardest": {
        **worst, "names": [int(name) for name in chosen], "accuracy_a": float(a[own].mean()),
        "accuracy_b": float(b[own].mean())}}


# -- the test file, which has no labels ------------------------------------------------------------


def class_balance(predicted: np.ndarray, labels: np.ndarray,
                  n_classes: int) -> list[dict[str, Any]]:
    """How often each class was predicted on the test file, against the training file's share of it.

    `low`, `high`: where 95 of 100 test files of this size would lie if their rows were drawn at
    that share.
    """
    n = len(predicted)
    counts = np.bincount(predicted, minlength=n_classes)
    shares = np.bincount(labels, minlength=n_classes) / len(labels)
    half = Z95 * np.sqrt(n * shares * (1 - shares))
    return [{"class": k, "predicted": int(counts[k]), "expected": float(n * shares[k]),
             "low": max(0.0, float(n * shares[k] - half[k])),
             "high": float(n * shares[k] + half[k])}
            for k in range(n_classes)]


def count_votes(votes: np.ndarray) -> np.ndarray:
    """(n, n_classes) how many models predict each class; `votes` (models, n) int."""
    return (votes[:, :, None] == np.arange(votes.max(initial=0) + 1)).sum(axis=0)
