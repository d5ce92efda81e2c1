"""Label a whole test file at once, knowing that each class is in it as often as any other.

In go the ensemble's probs; out come probs whose mean is the same for every class. Every writer of this dataset wrote
each digit equally often, so a test file made of whole pages has equal classes, and a model that reads broken zeros as
ones hands in too many ones. It is done where the competition's settings say so (`equal_classes`) or `--balanced` does,
for files large enough; the report names it. Where classes are not equal it harms: at 6 % difference by up to .003
(docs/lab-log.md, 2026-11-21), hence `--no-balanced`.

Source: Saerens et al. 2002, "Adjusting the outputs of a classifier to new a priori probabilities". The biases minimise
the convex dual of optimal transport with equal class masses (Cuturi 2013, arXiv 1306.0895).
"""

import numpy as np

from kit.data.competition import Competition

POWER = 2.0  # probs are sharpened by it first: on writers never seen that mends more (docs/lab-log.md, 2026-11-22)
LEAST_ROWS = 1_000  # with fewer, chance alone makes classes differ by more than the models' leaning does


def applies(asked: bool | None, competition: Competition, rows: int) -> bool:
    """Whether a file of so many rows is labelled as one with equal classes; `asked` None: as the competition says."""
    return (competition.equal_classes if asked is None else asked) and rows >= LEAST_ROWS


def balanced(probs: np.ndarray) -> np.ndarray:
    """Probs `(n, n_classes)` float32, each class's odds scaled by a factor, so that all have the same mean."""
    from scipy.optimize import minimize
    from scipy.special import log_softmax, logsumexp

    logs = POWER * np.log(np.asarray(probs, "float64") + 1e-9)
    n_classes = logs.shape[1]

    def dual(bias: np.ndarray) -> tuple[float, np.ndarray]:
        shares = np.exp(log_softmax(logs + bias, axis=1)).mean(0)
        return logsumexp(logs + bias, axis=1).mean() - bias.mean(), shares - 1 / n_classes

    bias = minimize(dual, np.zeros(n_classes), jac=True, method="L-BFGS-B", bounds=[(-12, 12)] * n_classes,
                    options={"ftol": 0, "gtol": 1e-6}).x
    return np.exp(log_softmax(logs + bias, axis=1)).astype("float32")
