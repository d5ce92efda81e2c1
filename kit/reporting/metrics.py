"""Accuracy with intervals, per writer and per class, calibration, and paired tests.

The rows of one writer are not independent. So wherever writers are known, it is writers that are
resampled, not rows. All results are plain numbers, lists and dicts that JSON can hold.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

Interval = tuple[float, float]

Z95 = 1.959963984540054  # the 97.5 % point of the normal distribution
DRAWS = 10_000  # of the bootstrap: its 2.5 % point varies by under a tenth of the half-width
SEED = 0  # of the bootstrap, so that the same run always gives the same numbers
# OOF accuracy below which a run gets no estimate of its leaderboard score: it is hardly trained, and an interval for
# harder writers would be a fifth of the whole scale wide, or more (docs/lab-log.md, 2026-11-25).
LEAST_ACCURACY = 0.8


# -- accuracy -------------------------------------------------------------------------------------------------------


def wilson(hits: int, n: int) -> Interval:
    """95 % score interval of a proportion of `hits` in `n` independent rows (Wilson 1927); (0, 1) for none at all."""
    from scipy.stats import binomtest

    if n == 0:
        return 0.0, 1.0
    interval = binomtest(hits, n).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def accuracy_interval(right: np.ndarray, writers: np.ndarray | None = None) -> Interval:
    """95 % interval of the accuracy of `right` (n,) bool; over writers where `writers` (n,) names at least two.

    The percentile interval of a bootstrap that resamples whole writers (Field & Welsh 2007,
    "cluster bootstrap"), never narrower than Wilson's for independent rows: with few or flawless
    writers the bootstrap alone is too narrow.
    """
    low, high = wilson(int(right.sum()), len(right))
    if writers is None or len(np.unique(writers)) < 2:
        return low, high
    hits, rows = _per_group(right, writers)
    draws = _draws(len(rows))
    low_w, high_w = np.quantile(hits[draws].sum(axis=1) / rows[draws].sum(axis=1), [0.025, 0.975])
    return min(low, float(low_w)), max(high, float(high_w))


def _per_group(values: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sum of `values` and number of rows of each group, in the order of `np.unique(groups)`."""
    _, index = np.unique(groups, return_inverse=True)
    return np.bincount(index, weights=values), np.bincount(index)


@lru_cache(maxsize=4)
def _draws(n_groups: int) -> np.ndarray:
    """(DRAWS, n_groups) indices of groups, drawn with replacement; the same ones for the same number of groups."""
    return np.random.default_rng(SEED).integers(n_groups, size=(DRAWS, n_groups))


def cv_scores(probs: np.ndarray, labels: np.ndarray, fold: np.ndarray,
              writers: np.ndarray | None) -> dict[str, Any]:
    """The `cv` of report.json: OOF `probs` (m, 10) against `labels` (m,), in the folds `fold` (m,).

    `std` is the sample standard deviation over folds (null for one fold); `ci95` is that of `oof_accuracy`.
    """
    right = probs.argmax(axis=1) == labels
    names = [int(k) for k in np.unique(fold)]
    scores = [float(right[fold == k].mean()) for k in names]
    return {
        "fold": names,
        "fold_rows": [int((fold == k).sum()) for k in names],
        "fold_accuracy": scores,
        "fold_ci95": [list(accuracy_interval(right[fold == k], _of(writers, fold == k))) for k in names],
        "mean": float(np.mean(scores)),
        "std": float(np.std(scores, ddof=1)) if len(scores) > 1 else None,
        "oof_accuracy": float(right.mean()),
        "ci95": list(accuracy_interval(right, writers)),
        "ci95_over": "writers" if writers is not None and len(np.unique(writers)) > 1 else "rows",
        "rows": len(labels),
        "mistakes": int((~right).sum()),
    }


def _of(values: np.ndarray | None, chosen: np.ndarray) -> np.ndarray | None:
    return None if values is None else values[chosen]


# -- by writer, by class --------------------------------------------------------------------------------------------


def per_writer(right: np.ndarray, writers: np.ndarray, fold: np.ndarray) -> list[dict[str, Any]]:
    """One entry for each writer, in the order of the file: rows, mistakes, accuracy, its 95 % interval, folds."""
    entries = []
    for writer in np.unique(writers):
        own = writers == writer
        hits, n = int(right[own].sum()), int(own.sum())
        entries.append({"writer": int(writer), "fold": [int(k) for k in np.unique(fold[own])], "rows": n,
                        "mistakes": n - hits, "accuracy": hits / n, "ci95": list(wilson(hits, n))})
    return entries


def hardest(entries: Sequence[dict[str, Any]], n: int = 8) -> list[dict[str, Any]]:
    """The `n` entries of `per_writer` with the lowest accuracy, worst first; ties go to the earlier writer."""
    return sorted(entries, key=lambda entry: (entry["accuracy"], entry["writer"]))[:n]


def per_class(matrix: np.ndarray) -> list[dict[str, Any]]:
    """Precision, recall and F1 of each class of scikit-learn's `confusion_matrix`.

    They are null where there is nothing to divide by. `mistaken_for` is the wrong class that it is
    most often read as, with the number of rows; null for none.
    """
    entries = []
    for k, row in enumerate(matrix):
        hits, n, claimed = int(row[k]), int(row.sum()), int(matrix[:, k].sum())
        wrong = np.where(np.arange(len(row)) == k, 0, row)
        entries.append({
            "class": k, "rows": n, "predicted": claimed,
            "precision": _ratio(hits, claimed), "recall": _ratio(hits, n), "f1": _ratio(2 * hits, n + claimed),
            "recall_ci95": list(wilson(hits, n)),
            "mistaken_for": {"class": int(wrong.argmax()), "rows": int(wrong.max())} if wrong.any() else None,
        })
    return entries


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


# -- calibration ----------------------------------------------------------------------------------------------------


def calibration(probs: np.ndarray, labels: np.ndarray, n_bins: int = 15) -> dict[str, Any]:
    """How well confidence matches accuracy: `probs` (n, 10) against `labels` (n,).

    `ece` is the expected calibration error over equal-width bins (Guo et al. 2017, arXiv 1706.04599); `log_loss` is
    the mean of -ln p(true), p clipped at 1e-7; `bins` leaves out the empty ones.
    """
    confidence, right = probs.max(axis=1), probs.argmax(axis=1) == labels
    index = np.minimum((confidence * n_bins).astype(int), n_bins - 1)
    bins = [_bin(k, n_bins, confidence[index == k], right[index == k]) for k in np.unique(index)]
    gaps = [entry["rows"] * abs(entry["accuracy"] - entry["confidence"]) for entry in bins]
    true = np.clip(probs[np.arange(len(labels)), labels], 1e-7, 1)
    return {"ece": float(sum(gaps) / len(labels)), "confidence": float(confidence.mean()),
            "log_loss": float(-np.log(true).mean()), "bins": bins}


def _bin(k: int, n_bins: int, confidence: np.ndarray, right: np.ndarray) -> dict[str, Any]:
    hits, n = int(right.sum()), len(right)
    return {"low": float(k / n_bins), "high": float((k + 1) / n_bins), "rows": n,
            "confidence": float(confidence.mean()), "accuracy": hits / n, "ci95": list(wilson(hits, n))}


# -- is A better than B? --------------------------------------------------------------------------------------------


def paired_rows(a: np.ndarray, b: np.ndarray) -> dict[str, Any]:
    """McNemar's exact test on `a` and `b` (n,) bool, whether each row was right: difference A - B, interval, p.

    The interval is Wald's with half a row added to each kind of disagreement (Agresti & Min 2005). It takes rows for
    independent, so it is too narrow where the rows of a writer are right or wrong together; see
    `paired_writers`.
    """
    from scipy.stats import binomtest

    n, only_a, only_b = len(a), int((a & ~b).sum()), int((b & ~a).sum())
    plus_a, plus_b, n_plus = only_a + 0.5, only_b + 0.5, n + 2
    middle = (plus_a - plus_b) / n_plus
    half = Z95 * np.sqrt((plus_a + plus_b) - (plus_a - plus_b) ** 2 / n_plus) / n_plus
    p = binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
    return {"test": "McNemar, exact", "rows": n, "only_a_right": only_a, "only_b_right": only_b,
            "difference": float(a.mean() - b.mean()), "ci95": [float(middle - half), float(middle + half)],
            "p": float(p)}


def paired_writers(a: np.ndarray, b: np.ndarray, writers: np.ndarray | None) -> dict[str, Any] | None:
    """A bootstrap that resamples writers: difference A - B of `a`, `b` (n,) bool, percentile interval, two-sided p.

    None where fewer than two writers are known. p is at least 2 / (DRAWS + 1), the least that DRAWS
    can show.
    """
    if writers is None or len(np.unique(writers)) < 2:
        return None
    gain, rows = _per_group(a.astype(float) - b, writers)
    draws = _draws(len(rows))
    differences = gain[draws].sum(axis=1) / rows[draws].sum(axis=1)
    low, high = np.quantile(differences, [0.025, 0.975])
    tail = min((differences <= 0).sum(), (differences >= 0).sum())
    return {"test": "bootstrap over writers", "writers": len(rows), "rows": len(a),
            "writers_a_better": int((gain > 0).sum()), "writers_b_better": int((gain < 0).sum()),
            "difference": float(gain.sum() / rows.sum()), "ci95": [float(low), float(high)],
            "p": float(min(1.0, 2 * (tail + 1) / (DRAWS + 1)))}


def paired(a: np.ndarray, b: np.ndarray, writers: np.ndarray | None) -> dict[str, Any]:
    """Whether A is better than B: over rows, over writers, and over the hardest eight writers.

    The hardest are those with the lowest accuracy of both together; chosen by one of the two, they
    would make that one look worse by chance.
    """
    over_writers = paired_writers(a, b, writers)
    if writers is None or over_writers is None:
        return {"rows": paired_rows(a, b), "writers": None, "hardest": None}
    names = np.unique(writers)
    hits, rows = _per_group(a.astype(float) + b, writers)
    chosen = names[np.argsort(hits / rows, kind="stable")[:8]]
    own = np.isin(writers, chosen)
    worst = paired_writers(a[own], b[own], writers[own]) or {}
    return {"rows": paired_rows(a, b), "writers": over_writers, "hardest": {
        **worst, "names": [int(name) for name in chosen], "accuracy_a": float(a[own].mean()),
        "accuracy_b": float(b[own].mean())}}


# -- the test file, which has no labels -----------------------------------------------------------------------------


def class_balance(predicted: np.ndarray, labels: np.ndarray, n_classes: int) -> list[dict[str, Any]]:
    """How often each class was predicted on the test file, against the training file's share of it.

    `low`, `high`: where 95 of 100 test files of this size would lie if their rows were drawn at that share.
    """
    n = len(predicted)
    counts = np.bincount(predicted, minlength=n_classes)
    shares = np.bincount(labels, minlength=n_classes) / len(labels)
    return [{"class": k, "predicted": int(counts[k]), "expected": float(n * share),
             "low": max(0.0, float(n * share - _spread(n, share))), "high": float(n * share + _spread(n, share))}
            for k, share in enumerate(shares)]


def _spread(n: int, share: float) -> float:
    return Z95 * float(np.sqrt(n * share * (1 - share)))


def agreement(votes: np.ndarray) -> np.ndarray:
    """(n,) share of the models that predict the most common class; `votes` (models, n) int."""
    counts = (votes[:, :, None] == np.arange(votes.max(initial=0) + 1)).sum(axis=0)
    return counts.max(axis=1) / len(votes)
