"""When is a comparison decided? A paired test that looks after each round of folds, and may stop.

Looking five times at an ordinary test finds a difference where there is none about three times as
often as it admits. Here the looks share its error: by the time that a third of the rows is scored,
a third of the 5 % may be spent (Lan & DeMets 1983, "Discrete sequential boundaries for clinical
trials", with a linear spending function).

Ten writers a fold are too few for a t-test, and a hard writer can outweigh the others. So the
boundaries come from the writers themselves: if nothing differs, each writer could as well have
favoured the other run, and all ways to flip those signs are equally likely. That is exact for any
number of writers and any distribution.

Two networks that are equal on average, because one gains a little on most writers and loses a lot
on a few, break that assumption: where the few are not among the writers seen, nothing shows them.
So a decision must also stand if one more writer came, of whom `UNSEEN` of the digits speak against
it. `scripts/sequential.py` measures how often it errs and what it saves; docs/improve.md has the
table.
"""

from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from kit.reporting import metrics
from kit.reporting.verdict import percent, points

ERROR = 0.05  # chance of "better" or "worse" over all looks, where nothing differs
# Below this chance that all folds would show a difference, the rest isn't worth its time. At .1,
# .7 of a fold less is saved where nothing differs, and 2 % more of all differences of .002 are
# shown (docs/lab-log.md, 2026-11-29).
UNLIKELY = 0.2
DIFFERENCE = 0.001  # the least that matters, by default
UNSEEN = 0.02  # of a writer's rows, see above
FLIPS = 10_000  # ways to flip the writers' signs that are tried, the one that came true among them
SEED = 0  # of the flips, so that the same runs always get the same judgement
GROUPS = 50  # of rows, in place of writers where those aren't known


@dataclass(frozen=True)
class Look:
    """What is known after a round of folds; differences are A - B, in accuracy."""

    folds: int  # scored so far
    difference: float
    needed: float | None  # the least difference that decides now; None where none would
    chance: float  # that all folds together will show a difference that matters


@dataclass(frozen=True)
class Judgement:
    """The looks until it was decided, and what was decided."""

    outcome: str  # better, worse, none (no difference that matters will show), or undecided
    n_folds: int  # of the whole comparison
    difference: float  # the least that matters
    looks: tuple[Look, ...]

    def to_dict(self, a: str, b: str) -> dict[str, Any]:
        """As JSON has it, with the verdict of `verdict` on the runs named `a` and `b`."""
        return {"outcome": self.outcome, "verdict": verdict(self, a, b),
                "folds": self.looks[-1].folds, "n_folds": self.n_folds,
                "difference": self.difference, "looks": [asdict(look) for look in self.looks]}

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> "Judgement":
        """The judgement that `to_dict` wrote."""
        return cls(stored["outcome"], stored["n_folds"], stored["difference"],
                   tuple(Look(**look) for look in stored["looks"]))


def judge(a: np.ndarray, b: np.ndarray, fold: np.ndarray, writers: np.ndarray | None,
          rounds: list[list[int]], difference: float = DIFFERENCE) -> Judgement:
    """Whether A is better than B, looked at after each of `rounds`, until it is decided.

    a, b: (n,) bool, which rows each read right; those of folds not in `rounds` don't count. fold,
    writers: (n,) int, of all rows. rounds: the folds that were scored between two looks, in order;
    all folds are in them once the comparison is finished.
    """
    groups = writers
    if groups is None:
        groups = np.random.default_rng(SEED).permutation(len(fold)) % GROUPS
    names, index = np.unique(groups, return_inverse=True)
    gain = a.astype(int) - b
    signs, unseen = _signs(len(names)), UNSEEN * len(fold) / len(names)
    spent = np.zeros(FLIPS, bool)  # flips that would have been called a difference at a look so far
    n_folds, looks, scored = len(np.unique(fold)), [], np.zeros(len(fold), bool)
    for n in range(1, len(rounds) + 1):
        finished = [k for folds in rounds[:n] for k in folds]
        scored = np.isin(fold, finished)
        sums = np.bincount(index[scored], gain[scored], len(names)).astype(np.float32)
        flipped = np.abs(signs @ sums)
        budget = int(ERROR * scored.mean() * FLIPS) - int(spent.sum())
        boundary = np.sort(flipped[~spent])[-budget - 1] + unseen if budget > 0 else None
        if boundary is not None:
            spent |= flipped > boundary
        chance = _chance(sums[np.unique(index[scored])], scored.mean(), len(fold), difference)
        needed = None if boundary is None else float((np.floor(boundary) + 1) / scored.sum())
        looks.append(Look(len(finished), float(gain[scored].mean()), needed, chance))
        if spent[0]:
            return Judgement("better" if sums.sum() > 0 else "worse", n_folds, difference,
                             tuple(looks))
        if chance < UNLIKELY or scored.all():
            return Judgement("none", n_folds, difference, tuple(looks))
    return Judgement("undecided", n_folds, difference, tuple(looks))


@lru_cache(maxsize=4)
def _signs(n: int) -> np.ndarray:
    """(FLIPS, n) of -1 and 1; the first row, all 1, is what came true."""
    signs = np.random.default_rng(SEED).choice(np.array([-1, 1], np.float32), (FLIPS, n))
    signs[0] = 1
    return signs


def _chance(sums: np.ndarray, share: float, n_rows: int, difference: float) -> float:
    """The chance that all rows will show a difference that matters, given the writers' `sums`.

    That is: a sum beyond its ordinary 95 % bound, and of `difference` of accuracy or more. The
    writers to come are taken to be like those so far, whose mean and spread are estimates (the
    predictive distribution under a flat prior, Student's t); share: of the rows, scored so far.
    """
    from scipy.special import stdtr

    n = len(sums)
    if n < 2:
        return 1.0
    left = n * (1 / share - 1)  # writers to come
    spread = float(sums.std(ddof=1))
    bound = max(metrics.Z95 * spread * np.sqrt(n + left), difference * n_rows)
    expected = float(sums.sum() + left * sums.mean())
    scale = spread * np.sqrt(left * (1 + left / n))
    if not scale:
        return float(abs(expected) >= bound)
    return float(stdtr(n - 1, (expected - bound) / scale)
                 + stdtr(n - 1, (-expected - bound) / scale))


def verdict(judgement: Judgement, a: str, b: str) -> str:
    """One sentence: what was decided of runs `a` and `b` and when, or what would decide it."""
    look = judgement.looks[-1]
    after, found = f"after {look.folds} of {judgement.n_folds} folds", points(look.difference)
    chance = percent(look.chance, 0)
    if judgement.outcome in ("better", "worse"):
        return f"{a} is {judgement.outcome} than {b}: {found}, decided {after}"
    if judgement.outcome == "undecided":
        decides = f"{points(look.needed)} would decide it now" if look.needed else "too early"
        return (f"{after}: {a} against {b} {found}, not decided ({decides}); all folds would show "
                f"a difference with a chance of {chance}")
    if look.folds == judgement.n_folds:
        return f"no difference shown between {a} and {b}: {found} {after}"
    return (f"no difference that matters between {a} and {b}: {found} {after}, and a chance of "
            f"{chance} that all folds would show one")
