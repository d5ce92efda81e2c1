"""Choose a test file's labels with a prior on its class counts.

A test file of n rows is a random part of a pool of N rows in which each class is equally frequent
(`Competition.test_pool`; Kannada-MNIST: half of 10,000). Its class counts are then multivariate
hypergeometric: mean n/k, variance v · (1 − 1/k) and covariance −v/k with v = n/k · (N − n)/(N − 1).
At n = N the counts are known exactly, which is worth .001 to .006 of accuracy; at half they are
known to ± 15 in 500, which is worth next to nothing, and to assume equal counts can cost .006
(docs/lab-log.md, 2026-11-25; `python scripts/class_prior.py` makes the table again).

The labels minimise Σ KL(q_i ‖ p_i^POWER) + ½ (c(q) − n/k)ᵀ V⁻¹ (c(q) − n/k) over the probs q,
where c(q) are their column sums. The dual is convex, with one bias per class: it is that of fixed
class masses (Saerens et al. 2002, "Adjusting the outputs of a classifier to new a priori
probabilities"; Cuturi 2013, arXiv 1306.0895) plus ½ v |bias|².
"""

from dataclasses import dataclass

import numpy as np

from kit.data.competition import Competition

# Sharpens the probs first: of .5 to 3, 1 to 2 were alike over all OOF draws (docs/lab-log.md,
# 2026-11-25)
POWER = 1.5
LEAST_ROWS = 1_000  # in a smaller file the counts tell too little
IMPLAUSIBLE = 0.001  # p-value below which the prior is not used
# Standard deviation of a class's count from misreading, as a share of all rows in doubt
DOUBTS_SHARE = 0.4


@dataclass(frozen=True)
class ClassPrior:
    """What is assumed of the class counts of one file."""

    spread: float | None  # v above, in rows; 0: all counts are equal; None: nothing is assumed
    why: str  # in words

    def apply(self, probs: np.ndarray) -> np.ndarray:
        """Probs `(n, k)` float32 whose best class is the label; the same if nothing is assumed.

        They minimise the sum in the module's docstring.
        """
        from scipy.optimize import minimize
        from scipy.special import log_softmax, logsumexp

        if self.spread is None:
            return probs
        logs, spread = _log_sharpened(probs), self.spread
        n, k = logs.shape

        def dual(bias: np.ndarray) -> tuple[float, np.ndarray]:
            """The dual function and its gradient."""
            shares, off = np.exp(log_softmax(logs + bias, axis=1)).mean(0), bias - bias.mean()
            value = (logsumexp(logs + bias, axis=1).mean() - bias.mean()
                     + 0.5 * spread * (off @ off) / n)
            return value, shares - 1 / k + spread * off / n

        bias = minimize(dual, np.zeros(k), jac=True, method="L-BFGS-B", bounds=[(-12, 12)] * k,
                        options={"ftol": 0, "gtol": 1e-6}).x
        return np.exp(log_softmax(logs + bias, axis=1)).astype("float32")


def class_prior(asked: str, competition: Competition, probs: np.ndarray) -> ClassPrior:
    """What to assume of the file whose probs, before any prior, are `probs` `(n, k)`.

    `asked` is a config's `class_prior`: `none`, `equal` (all counts are equal, whatever is known)
    or `auto` (what the competition's settings say, unless the labels as read are implausible under
    it).
    """
    n, k = probs.shape
    pool = competition.test_pool
    if asked == "none":
        return ClassPrior(None, "none, as asked for")
    if n < LEAST_ROWS:
        return ClassPrior(None, f"none: the file has fewer than {LEAST_ROWS:,} rows")
    if asked == "equal":
        return ClassPrior(0.0, "each class equally often, as asked for")
    if pool is None:
        return ClassPrior(None, "none: nothing is known of this competition's classes")
    if n > pool:
        return ClassPrior(None, f"none: the file has more rows than the {pool:,} of which "
                                "something is known")
    spread = count_variance(n, k, pool)
    p = _plausibility(probs, spread)
    if p < IMPLAUSIBLE:
        return ClassPrior(None, f"none: the labels as read are not those of a random part of "
                                f"{pool:,} rows with equal classes (p\u00a0=\u00a0{p:.1g})")
    if spread == 0:
        return ClassPrior(0.0, f"each class equally often, since these are all {pool:,} rows of "
                               "the pool")
    return ClassPrior(spread, f"a random {n:,} of {pool:,} rows with equal classes: each class "
                              f"{n / k:,.0f}\u00a0±\u00a0{np.sqrt(spread * (1 - 1 / k)):.0f} times")


def count_variance(n: int, k: int, pool: int) -> float:
    """v of the module's docstring, in rows: of n rows out of a pool in which k classes are alike.

    0 where they are the whole pool.
    """
    return n / k * (pool - n) / (pool - 1)


def _plausibility(probs: np.ndarray, spread: float) -> float:
    """P-value of the class counts of the labels without a prior.

    They differ from the prior's mean by chance, with v as above, and by misreading: a network that
    takes one class for another does so on many rows. Over groups of eight hard held-out writers,
    that bias (the length of the vector of excess counts) was at most twice the number of rows in
    doubt; where the counts are known exactly, the test refuses at 2.1 times.
    """
    from scipy.stats import chi2

    n, k = probs.shape
    sharpened = np.exp(_log_sharpened(probs))
    in_doubt = 1 + float((1 - sharpened.max(1)).sum())
    off = np.bincount(probs.argmax(1), minlength=k) - n / k
    return float(chi2.sf((off**2).sum() / (spread + (DOUBTS_SHARE * in_doubt) ** 2), k - 1))


def _log_sharpened(probs: np.ndarray) -> np.ndarray:
    from scipy.special import log_softmax

    return log_softmax(POWER * np.log(np.asarray(probs, "float64") + 1e-9), axis=1)
