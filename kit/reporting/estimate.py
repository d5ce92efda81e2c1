"""What the leaderboard will say of this submission, and how sure that is, before the leaderboard does.

In goes a run; out come `value`, `low`, `high`: the accuracy to expect on the rows of the test file. A plain CV mean is
far too high there: the test writers are harder than any in the training file. The one idea: a model's own doubt shows
how hard a page is, without its labels. So

1. from the OOF rows, how often a model is wrong at each margin between its best and its second class;
2. from the OOF writers, how the errors counted grow with the errors expected from the margins, since models are more
   wrong than they doubt on writers far from those they know;
3. the margins on the test file then say how many errors to expect there of a single model;
4. the ensemble makes fewer: by how much shows in how often its members disagree with it on the test file, and in how
   often it was right when they did, on the labelled out-of-domain file.

The interval comes from resampling writers and from the spread between writers that step 2 leaves unexplained.
Sources: Garg et al. 2022, arXiv 2201.04234 (confidence under shift); Jiang et al. 2022, arXiv 2106.13799
(disagreement).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from kit.ensembling.balance import balanced
from kit.ensembling.blend import RunResults, mean_probs

DRAWS = 2_000  # of writers
SEED = 0
TEST_WRITERS = 8  # as in the official test file; the fewer, the more one of them can move the score
STEEPNESS = 0.35  # how far, a priori, errors may grow faster or slower than the doubts: standard deviation of the slope
SPREAD = 0.35  # a priori standard deviation of a writer's log error around what the doubts say
RIGHT_WHEN_OUTVOTED = 0.45  # ensemble right minus member right, where they differ; used without an out-of-domain file
MOST_GAIN = 0.5
GROUP, GROUPS = 3, 8  # of the cross-check: writers a group, and groups


def estimate(results: RunResults) -> dict[str, Any] | None:
    """`value, low, high` (accuracies), `method` (a sentence), `cross_check`; None without test probs."""
    if results.test is None:
        return None
    scored = np.isfinite(results.oof).all(1)
    labels = results.folds.labels[scored].astype(int)
    wrong = results.oof[scored].argmax(1) != labels
    margins = log_margin(results.oof[scored])
    committees = _committees(results)
    if results.folds.writers is None or not results.folds.keeps_writers_apart:
        doubts = Doubts.fit(margins, wrong)
        single = float(np.mean([doubts.expected(log_margin(probs)) for probs in committees]))
        draws = single * np.exp(np.random.default_rng(SEED).normal(0, SPREAD, DRAWS))
        words = "writers are not kept apart, so the doubts are those of models that knew the writer: a rough guess"
        check = None
    else:
        writers = results.folds.writers[scored]
        margins_test = [log_margin(probs) for probs in committees]
        single, draws = _extrapolate(margins, wrong, writers, margins_test, TEST_WRITERS)
        words = "errors of held-out writers, extrapolated by the models' doubts on the test file"
        check = cross_check(margins, wrong, writers)
    gain = _ensemble_gain(results, committees, single)
    if results.config.get("balanced") and results.folds.writers is not None:
        mended = _balance_gain(results.oof[scored], labels, results.folds.writers[scored])
        gain = 1 - (1 - gain) * (1 - mended)
    n = len(results.test)
    noise = np.random.default_rng(SEED + 1).binomial(n, np.clip(draws * (1 - gain), 0, 1)) / n
    low, high = (float(1 - quantile) for quantile in np.quantile(noise, [0.975, 0.025]))
    return {"value": 1 - single * (1 - gain), "low": low, "high": high,
            "single_model": 1 - single, "ensemble_gain": single * gain, "oof_accuracy": float(1 - wrong.mean()),
            "method": f"{words}; then {100 * gain:.0f} % fewer for the ensemble as handed in", "cross_check": check}


def log_margin(probs: np.ndarray) -> np.ndarray:
    """`(n,)`: log of the best class's prob over the second's, at most 12 (float16 probs tell no more)."""
    best = np.sort(np.asarray(probs, "float64"), 1)[:, -2:]
    return np.minimum(np.log(best[:, 1] + 1e-6) - np.log(best[:, 0] + 1e-6), 12.0)


@dataclass(frozen=True)
class Doubts:
    """How often a model is wrong at each margin: falling, from isotonic regression."""

    margins: np.ndarray
    shares: np.ndarray

    @classmethod
    def fit(cls, margins: np.ndarray, wrong: np.ndarray) -> "Doubts":
        from sklearn.isotonic import IsotonicRegression

        model = IsotonicRegression(increasing=False).fit(margins, wrong.astype(float))
        floor = 0.5 / (1 + len(wrong))  # the surest rows may be wrong too
        return cls(model.X_thresholds_, np.maximum(model.y_thresholds_, floor))

    def expected(self, margins: np.ndarray) -> float:
        """Mean share of errors to expect at these margins."""
        return float(np.interp(margins, self.margins, self.shares).mean())


def _extrapolate(margins: np.ndarray, wrong: np.ndarray, writers: np.ndarray, unseen: list[np.ndarray],
                 n_writers: int) -> tuple[float, np.ndarray]:
    """Share of errors to expect on unseen writers with these margins (one array per model), and draws of it."""
    doubts = Doubts.fit(margins, wrong)
    expected, counted, rows = _by_writer(doubts, margins, wrong, writers)
    target = float(np.mean([doubts.expected(each) for each in unseen]))
    rng = np.random.default_rng(SEED)
    slope, level = _fit(expected, counted)
    spread = _spread(expected, counted, slope, level)
    single = np.exp(level + (1 + slope) * np.log(target))
    picks = rng.integers(len(rows), size=(DRAWS, len(rows)))
    fits = np.array([_fit(expected[pick], counted[pick]) for pick in picks[:200]])
    fits = fits[rng.integers(len(fits), size=DRAWS)]
    middle = np.exp(fits[:, 1] + (1 + fits[:, 0]) * np.log(target))
    of_writers = np.exp(rng.normal(-spread**2 / 2, spread, (DRAWS, n_writers))).mean(1)
    return float(single), middle * of_writers


def _by_writer(doubts: Doubts, margins: np.ndarray, wrong: np.ndarray,
               writers: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Per writer: share of errors expected from the margins, `(rows, errors)` counted, rows."""
    _, index = np.unique(writers, return_inverse=True)
    rows = np.bincount(index)
    expected = np.bincount(index, np.interp(margins, doubts.margins, doubts.shares)) / rows
    return expected, np.stack([rows, np.bincount(index, wrong)], 1), rows


def _fit(expected: np.ndarray, counted: np.ndarray) -> tuple[float, float]:
    """`(slope, level)`: log errors = level + (1 + slope) · log expected, Poisson, the slope held near 0 by its prior.

    Newton's method; the two priors (slope 0 ± STEEPNESS, level at the centre 0 ± 1) keep it from running away.
    """
    x = np.log(expected)
    centre = np.average(x, weights=counted[:, 1] + 0.5)
    design = np.stack([np.ones_like(x), x - centre], 1)
    prior = np.diag([1.0, 1 / STEEPNESS**2])
    beta = np.zeros(2)
    for _ in range(25):
        mean = counted[:, 0] * np.exp(x + design @ beta)
        weight = mean / (1 + SPREAD**2 * mean)  # a writer with many errors is still one writer
        residual = (counted[:, 1] - mean) * weight / np.maximum(mean, 1e-9)
        step = np.linalg.solve(design.T @ (design * weight[:, None]) + prior, design.T @ residual - prior @ beta)
        beta += np.clip(step, -1, 1)
    return float(beta[1]), float(beta[0] - beta[1] * centre)


def _spread(expected: np.ndarray, counted: np.ndarray, slope: float, level: float) -> float:
    """Standard deviation of a writer's log error around the fit beyond chance, drawn half-way to the prior's."""
    mean = counted[:, 0] * np.exp(level + (1 + slope) * np.log(expected))
    variance = ((counted[:, 1] - mean) ** 2 - mean).sum() / (mean**2).sum()
    return float(np.sqrt((max(variance, 0.0) + SPREAD**2) / 2))


def cross_check(margins: np.ndarray, wrong: np.ndarray, writers: np.ndarray) -> dict[str, Any]:
    """The same method, asked for groups of the hardest writers from easier ones only; how often the interval held.

    Hardest as measured here: by errors, so that every group is harder than all that the method may see.
    """
    names, index = np.unique(writers, return_inverse=True)
    hardest = np.argsort(-np.bincount(index, wrong) / np.bincount(index), kind="stable")
    groups = []
    for k in range(min(GROUPS, len(names) // GROUP - 1)):
        asked = np.isin(index, hardest[k * GROUP:(k + 1) * GROUP])
        known = np.isin(index, hardest[(k + 1) * GROUP:])
        if not wrong[known].any():
            break
        single, draws = _extrapolate(margins[known], wrong[known], writers[known], [margins[asked]], GROUP)
        noise = np.random.default_rng(SEED + 1).binomial(asked.sum(), np.clip(draws, 0, 1)) / asked.sum()
        low, high = np.quantile(1 - noise, [0.025, 0.975])
        actual = 1 - wrong[asked].mean()
        groups.append({"writers": [int(name) for name in names[hardest[k * GROUP:(k + 1) * GROUP]]],
                       "estimate": 1 - single, "low": float(low), "high": float(high), "actual": float(actual),
                       "held": bool(low <= actual <= high)})
    return {"groups": groups, "held": sum(group["held"] for group in groups), "of": len(groups)}


# -- from a single model to the ensemble ----------------------------------------------------------------------------


def _committees(results: RunResults) -> list[np.ndarray]:
    """Test probs of each fold, all members together: what an OOF row's prediction is made of."""
    return [mean_probs(folds) for folds in zip(*(member.test for member in results.members), strict=False)]


def _ensemble_gain(results: RunResults, committees: list[np.ndarray], single: float) -> float:
    """Share of a single model's errors that the ensemble does not make on the test file, at most `MOST_GAIN`.

    Where they differ, the ensemble wins more often than the member; how much more, the out-of-domain labels tell.
    """
    wins = RIGHT_WHEN_OUTVOTED
    extra = results.data.extra()
    if results.extra is not None and extra is not None:
        members = [mean_probs(folds).argmax(1) for folds in zip(*(m.extra for m in results.members), strict=False)]
        ensemble, labels = results.extra.argmax(1), np.asarray(extra.labels)
        differ = np.mean([(labels_k != ensemble).mean() for labels_k in members])
        better = (ensemble == labels).mean() - np.mean([(labels_k == labels).mean() for labels_k in members])
        wins = float(np.clip(better / differ, 0, 1)) if differ > 0 else wins
    handed_in = mean_probs(committees).argmax(1)
    differ = np.mean([(probs.argmax(1) != handed_in).mean() for probs in committees])
    return min(float(differ) * wins / single, MOST_GAIN)


def _balance_gain(probs: np.ndarray, labels: np.ndarray, writers: np.ndarray) -> float:
    """Share of the errors that equal classes mend, on the hardest held-out writers, as many as in the test file."""
    wrong = probs.argmax(1) != labels
    _, index = np.unique(writers, return_inverse=True)
    hardest = np.argsort(-np.bincount(index, wrong) / np.bincount(index), kind="stable")
    before, after = 0, 0
    for start in (0, TEST_WRITERS):
        asked = np.isin(index, hardest[start:start + TEST_WRITERS])
        before += int(wrong[asked].sum())
        after += int((balanced(probs[asked]).argmax(1) != labels[asked]).sum())
    return max(0.0, 1 - after / before) if before else 0.0
