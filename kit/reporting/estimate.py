"""What the leaderboard will say of this submission, and how sure that is, before the leaderboard does.

In goes a run; out come `value`, `low`, `high`: the accuracy to expect on the rows of the test file. A plain CV mean is
far too high there: the test writers are harder than any in the training file. The one idea: a model's own doubt shows
how hard a page is, without its labels. So

1. from the OOF rows, how often a model is wrong at each margin between its best and its second class;
2. from the OOF writers, how the errors counted grow with the errors expected from the margins, since models are more
   wrong than they doubt on writers far from those they know;
3. the margins on the test file then say how many errors to expect there of a single model;
4. the ensemble makes fewer: by how much shows in how often its members disagree with it on the test file, and in how
   often it was right when they did, on the labelled out-of-domain file;
5. where the classes are known to be equally frequent, a class that is predicted too often shows errors outright, and
   what choosing equal classes mends is measured on held-out writers.

The interval comes from resampling writers and from the spread between writers that step 2 leaves unexplained.
Sources: Garg et al. 2022, arXiv 2201.04234 (confidence under shift); Jiang et al. 2022, arXiv 2106.13799
(disagreement).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from kit.ensembling.balance import balanced
from kit.ensembling.blend import Member, RunResults, mean_probs

DRAWS = 2_000  # of writers
SEED = 0
TEST_WRITERS = 8  # as in the official test file; the fewer, the more one of them can move the score
STEEPNESS = 0.2  # a priori standard deviation of how much faster or slower errors grow than the doubts
SPREAD = 0.35  # a priori standard deviation of a writer's log error around what the doubts say
RIGHT_WHEN_OUTVOTED = 0.45  # ensemble right minus member right, where they differ; used without an out-of-domain file
MOST_GAIN = 0.5
LEAST_CHANGED = 5  # rows: fewer tell nothing
GROUP, GROUPS = 3, 8  # of the cross-check: writers a group, and groups


def estimate(results: RunResults) -> dict[str, Any] | None:
    """`value, low, high` (accuracies), `method` (in words), `cross_check`; None without test probs.

    After self-training the models doubt their own guesses no longer: the estimate is then that of the run before it.
    """
    if results.before is not None:
        return _before_self_training(results, results.before)
    if results.test is None:
        return None
    scored = np.isfinite(results.oof).all(1)
    labels = results.folds.labels[scored].astype(int)
    wrong = results.oof[scored].argmax(1) != labels
    margins = log_margin(results.oof[scored])
    committees = _committees(results)
    writers = None if results.folds.writers is None else results.folds.writers[scored]
    if writers is None or not results.folds.keeps_writers_apart:
        doubts = Doubts.fit(margins, wrong)
        single = float(np.mean([doubts.expected(log_margin(probs)) for probs in committees]))
        draws = single * np.exp(np.random.default_rng(SEED).normal(0, SPREAD, DRAWS))
        words = ("A rough guess: writers were not kept apart, so these are the doubts of models that knew the writers. "
                 "By them")
        check = None
    else:
        margins_test = [log_margin(probs) for probs in committees]
        single, draws = _extrapolate(margins, wrong, writers, margins_test, TEST_WRITERS)
        words = ("The models' doubts on the test file show how hard it is, and how errors grow with doubts is known "
                 "from held-out writers. By that")
        check = cross_check(margins, wrong, writers)
    gain = _ensemble_gain(results, committees, single)
    value, draws = single * (1 - gain), draws * (1 - gain)
    words += (f" one model alone would misread {100 * single:.1f}\u00a0% of it; together they make "
              f"{100 * gain:.0f}\u00a0% fewer mistakes.")
    if results.is_balanced:
        wins = BalanceWins.fit(results.oof[scored], labels, writers)
        value, draws, more = _balanced(results.test, results.submitted, value, draws, wins)
        words += more
    value = float(np.clip(value, 0, 1))
    low, high = _interval(draws, len(results.test))
    return {"value": 1 - value, "low": low, "high": high, "single_model": 1 - single,
            "oof_accuracy": float(1 - wrong.mean()), "method": words, "cross_check": check}


def _before_self_training(results: RunResults, before: RunResults) -> dict[str, Any] | None:
    found = estimate(before)
    moved = int((results.submitted.argmax(1) != before.submitted.argmax(1)).sum())
    words = f" That is before self-training, which changed {moved} labels; what they gain is not in it."
    return found and {**found, "method": found["method"] + words}


def _balanced(test: np.ndarray, submitted: np.ndarray, value: float, draws: np.ndarray,
              wins: "BalanceWins") -> tuple[float, np.ndarray, str]:
    """Error and its draws where each digit is handed in equally often, and why, in words."""
    least = _excess(test.argmax(1), 1 / test.shape[1], test.shape[1])
    value, draws = max(value, least, 1e-9), np.maximum(draws, max(least, 1e-9))
    changed = float((submitted.argmax(1) != test.argmax(1)).mean())
    mended = changed * wins.at(least / value)
    words = (f" Of the {100 * value:.1f}\u00a0% that remain, {100 * least:.1f}\u00a0% must be there, since some "
             f"digits are read too often; handing in each digit equally often mends {100 * mended:.1f}\u00a0%.")
    return value - mended, draws - changed * wins.draws(least / draws), words


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
    expected, rows, errors = _by_writer(doubts, margins, wrong, writers)
    target = np.log(np.mean([doubts.expected(each) for each in unseen]))
    rng = np.random.default_rng(SEED)
    everybody = np.ones((1, len(rows)))
    picks = rng.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), DRAWS)
    (level,), (slope,) = _fit(expected, rows, errors, everybody)
    levels, slopes = _fit(expected, rows, errors, picks)
    spread = _spread(rows * np.exp(level + (1 + slope) * np.log(expected)), errors)
    of_writers = np.exp(rng.normal(-spread**2 / 2, spread, (DRAWS, n_writers))).mean(1)
    return float(np.exp(level + (1 + slope) * target)), np.exp(levels + (1 + slopes) * target) * of_writers


def _by_writer(doubts: Doubts, margins: np.ndarray, wrong: np.ndarray,
               writers: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Per writer: share of errors expected from the margins, number of rows, number of errors."""
    _, index = np.unique(writers, return_inverse=True)
    rows = np.bincount(index)
    shares = np.interp(margins, doubts.margins, doubts.shares)
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
    """The same method, asked for groups of the hardest writers from easier ones only; how often the interval held.

    Hardest by the models' doubts, as the test writers are known to us: choosing by the errors themselves would pick the
    writers on whom the doubts fall short, and find them falling short.
    """
    names, index = np.unique(writers, return_inverse=True)
    doubts = Doubts.fit(margins, wrong)
    hardest = np.argsort(-_by_writer(doubts, margins, wrong, writers)[0], kind="stable")
    groups = []
    for k in range(min(GROUPS, len(names) // GROUP - 1)):
        asked, known = np.isin(index, hardest[k * GROUP:][:GROUP]), np.isin(index, hardest[(k + 1) * GROUP:])
        if not wrong[known].any():
            break
        single, draws = _extrapolate(margins[known], wrong[known], writers[known], [margins[asked]], GROUP)
        low, high = _interval(draws, int(asked.sum()))
        actual = float(1 - wrong[asked].mean())
        groups.append({"writers": [int(name) for name in names[hardest[k * GROUP:(k + 1) * GROUP]]],
                       "estimate": 1 - single, "low": low, "high": high, "actual": actual,
                       "held": bool(low <= actual <= high)})
    return {"groups": groups, "held": sum(group["held"] for group in groups), "of": len(groups)}


def _interval(draws: np.ndarray, rows: int) -> tuple[float, float]:
    """95 % interval of the accuracy on so many rows, from draws of the share of errors."""
    noise = np.random.default_rng(SEED + 1).binomial(rows, np.clip(draws, 0, 1)) / rows
    low, high = 1 - np.quantile(noise, [0.975, 0.025])
    return float(low), float(high)


# -- from a single model to the ensemble ----------------------------------------------------------------------------


def _committees(results: RunResults) -> list[np.ndarray]:
    """Test probs of each fold, all members together: what an OOF row's prediction is made of."""
    return _by_fold(results, lambda member: member.test)


def _by_fold(results: RunResults, probs_of: Callable[[Member], list[np.ndarray]]) -> list[np.ndarray]:
    """The mean probs of each fold's members; a run that its time budget cut short lacks some."""
    folds: dict[int, list[np.ndarray]] = {}
    for member in results.members:
        for done, probs in zip(member.done, probs_of(member), strict=True):
            folds.setdefault(done["job"]["fold"], []).append(probs)
    return [mean_probs(probs) for _, probs in sorted(folds.items())]


def _ensemble_gain(results: RunResults, committees: list[np.ndarray], single: float) -> float:
    """Share of a single model's errors that the ensemble does not make on the test file, at most `MOST_GAIN`.

    Where they differ, the ensemble wins more often than the member; how much more, the out-of-domain labels tell.
    """
    wins = RIGHT_WHEN_OUTVOTED
    extra = results.data.extra()
    if results.extra is not None and extra is not None:
        members = [probs.argmax(1) for probs in _by_fold(results, lambda member: member.extra)]
        ensemble, labels = results.extra.argmax(1), np.asarray(extra.labels)
        differ = np.mean([(labels_k != ensemble).mean() for labels_k in members])
        better = (ensemble == labels).mean() - np.mean([(labels_k == labels).mean() for labels_k in members])
        wins = float(np.clip(better / differ, 0, 1)) if differ > 0 else wins
    handed_in = mean_probs(committees).argmax(1)
    differ = np.mean([(probs.argmax(1) != handed_in).mean() for probs in committees])
    return min(float(differ) * wins / single, MOST_GAIN)


def _excess(predicted: np.ndarray, share: Any, n_classes: int) -> float:
    """Share of rows that must be wrong, given the true share of each class: what some are predicted too often."""
    counts = np.bincount(predicted, minlength=n_classes)
    return float(np.maximum(counts / len(predicted) - share, 0).sum())


@dataclass(frozen=True)
class BalanceWins:
    """How often a label that equal classes change is changed for the better, net of those for the worse.

    On held-out writers in eights it is `flat`; on single writers, whose errors lean to few classes, it grows with the
    share of the errors that the lean explains, at `slope`. The truth for the test file is somewhere between the two.
    """

    flat: float
    slope: float
    spread: float

    @classmethod
    def fit(cls, probs: np.ndarray, labels: np.ndarray, writers: np.ndarray | None) -> "BalanceWins":
        groups = _groups(writers, labels, probs)
        won = [[_won(probs[group], labels[group]) for group in part] for part in groups]
        eights, everything = ([point for point in part if point] for part in (won[0], won[0] + won[1]))
        if not eights:
            return cls(0.5, 0.5, 0.25)
        lean, wins, changed = np.array(everything).T
        slope = (changed * lean * wins).sum() / (changed * lean**2).sum() if lean.any() else 0.0
        spread = np.sqrt((changed * (wins - slope * lean) ** 2).sum() / changed.sum())
        flat = np.average([w for _, w, _ in eights], weights=[c for *_, c in eights])
        return cls(float(flat), float(slope), float(spread))

    def at(self, lean: float) -> float:
        """The middle, where that share of the errors is lean."""
        return float(np.clip((self.flat + self.slope * lean) / 2, 0, 1))

    def draws(self, lean: np.ndarray) -> np.ndarray:
        """Anywhere between the two, and as far beside them as single writers are."""
        rng = np.random.default_rng(SEED + 2)
        between = rng.uniform(size=len(lean))
        middle = self.flat + between * (self.slope * lean - self.flat)
        return (middle + rng.normal(0, self.spread, len(lean)) * between).clip(0, 1)


def _won(probs: np.ndarray, labels: np.ndarray) -> tuple[float, float, int] | None:
    """Lean over errors, net wins over changed rows, and changed rows, of some rows; None where too few change, or
    none is wrong."""
    before, after = probs.argmax(1), balanced(probs).argmax(1)
    changed, wrong = int((before != after).sum()), before != labels
    if changed < LEAST_CHANGED or not wrong.any():
        return None
    n_classes = probs.shape[1]
    lean = _excess(before, np.bincount(labels, minlength=n_classes) / len(labels), n_classes) / wrong.mean()
    return lean, ((after == labels).sum() - (before == labels).sum()) / changed, changed


def _groups(writers: np.ndarray | None, labels: np.ndarray, probs: np.ndarray) -> tuple[list, list]:
    """Masks: eights of writers, the hardest first, and each writer alone; all rows where writers are unknown."""
    if writers is None:
        return [np.ones(len(labels), bool)], []
    _, index = np.unique(writers, return_inverse=True)
    hardest = np.argsort(-np.bincount(index, probs.argmax(1) != labels) / np.bincount(index), kind="stable")
    eights = [hardest[start:start + TEST_WRITERS] for start in range(0, len(hardest), TEST_WRITERS)]
    return [np.isin(index, names) for names in eights], [index == name for name in hardest]
