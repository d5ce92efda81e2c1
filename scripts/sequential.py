"""How often does kit cv --against decide wrongly, and how many folds does it save? A simulation.

    python scripts/sequential.py [submissions/cnn-5fold submissions/quick …] [--draws 500]

Two networks are drawn from each pair of runs that have read the same rows, 47 writers at random in
five folds. A row is right where the network's margin, log p(true) minus the best other log p, is
above zero; a constant, added to one network's margins and taken from the other's, makes the
difference in accuracy that is asked for, mostly on hard writers and doubtful digits, as a real
improvement does.

alike     for each writer by chance one run or the other is network A: beside the difference
          that is asked for, the two differ by luck alone, as two trainings of one network do
unlike    A is the one run and B the other, made equal on average: each has writers of its own

A table in Markdown: what the sequential test says, after how many of five folds, and beside it
a t-test over writers (p < .05), once at the end and after each fold.
"""

import argparse
from itertools import combinations
from pathlib import Path

import numpy as np
from scipy.optimize import brentq
from scipy.special import stdtr

from kit.ensembling.scored_run import ScoredRun, read_scored_run
from kit.reporting import sequential

RUNS = ("cnn-5fold", "quick", "cnn-aug-5fold", "strong-cpu")
FOLDS = np.repeat(np.arange(5), (10, 10, 9, 9, 9))  # of the 47 writers, as kit.data.folds has it
DIFFERENCES = (0, 0.001, 0.002, 0.005)
LEAST = 1e-6  # of a prob, so that its logarithm is finite


def margins(run: ScoredRun) -> np.ndarray:
    """(n,) log p(true) - log p of the best other class: above zero where the run is right."""
    logs, true = np.log(np.clip(run.probs, LEAST, 1)), np.arange(len(run.label))
    own = logs[true, run.label]
    logs[true, run.label] = -np.inf
    margin = own - logs.max(axis=1)
    return np.where(run.right, np.maximum(margin, LEAST), np.minimum(margin, -LEAST))


class Pair:
    """Two networks, made to differ by `difference` in accuracy, of which comparisons are drawn."""

    def __init__(self, a: np.ndarray, b: np.ndarray, writers: np.ndarray, difference: float,
                 alike: bool) -> None:
        """a, b: margins (n,) of the same rows."""
        def gap(shift: float) -> float:
            one = np.mean(a + shift > 0) - np.mean(b - shift > 0)
            other = np.mean(b + shift > 0) - np.mean(a - shift > 0)
            return float((one + other) / 2 if alike else one) - difference

        shift, self.alike = brentq(gap, -9, 9), alike
        self.rows = [np.flatnonzero(writers == writer) for writer in np.unique(writers)]
        self.ways = [(a + shift > 0, b - shift > 0), (b + shift > 0, a - shift > 0)]

    def draw(self, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
        """Which rows A and B read right, their folds and their writers."""
        parts = []
        for n, fold in enumerate(FOLDS):
            rows = self.rows[rng.integers(len(self.rows))]
            right, wrong = self.ways[rng.integers(2) if self.alike else 0]
            parts.append((right[rows], wrong[rows], np.full(len(rows), fold),
                          np.full(len(rows), n)))
        a, b, folds, writers = (np.concatenate(part) for part in zip(*parts, strict=True))
        return a, b, folds, writers


def t_tests(gains: np.ndarray) -> np.ndarray:
    """Two-sided p that the writers' mean gain is zero, after each fold: Student's t-test."""
    parts = [gains[k >= FOLDS] for k in range(5)]
    scores = [part.mean() / (part.std(ddof=1) / np.sqrt(len(part)) or 1) for part in parts]
    return 2 * stdtr([len(part) - 1 for part in parts], -np.abs(scores))


def simulate(pairs: list[Pair], draws: int) -> dict[str, float]:
    """Shares of the verdicts over `draws` comparisons of each pair, and the mean of the folds."""
    counts: list[tuple[float, ...]] = []
    for number, pair in enumerate(pairs):
        rng = np.random.default_rng(number)
        for _ in range(draws):
            a, b, folds, writers = pair.draw(rng)
            judgement = sequential.judge(a, b, folds, writers, [[k] for k in range(5)])
            gains = np.bincount(writers, a.astype(int) - b)
            p = t_tests(gains)
            outcome = judgement.outcome
            counts.append((outcome == "better", outcome == "worse", outcome == "none",
                           judgement.looks[-1].folds, p[-1] < 0.05 and gains.sum() > 0,
                           p[-1] < 0.05 and gains.sum() < 0, min(p) < 0.05))
    names = ("better", "worse", "none", "folds", "once_better", "once_worse", "each")
    return dict(zip(names, np.mean(counts, axis=0), strict=True))


def make_pairs(runs: list[ScoredRun], difference: float, alike: bool) -> list[Pair]:
    """Every pair of runs; unlike ones in both orders."""
    pairs = list(combinations(runs, 2))
    pairs += [] if alike else [(b, a) for a, b in pairs]
    return [Pair(margins(a), margins(b), np.asarray(a.writer), difference, alike)
            for a, b in pairs]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", type=Path,
                        default=[Path("submissions") / name for name in RUNS])
    parser.add_argument("--draws", type=int, default=500, help="of each pair of runs")
    arguments = parser.parse_args()
    runs = [read_scored_run(folder, before_self_training=True) for folder in arguments.runs]
    print("| the two are | true difference | better | worse | no difference | folds of 5 | saved "
          "| t-test at the end: better | worse | t-test after each fold |\n"
          "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|")
    for alike in (True, False):
        for difference in DIFFERENCES:
            found = simulate(make_pairs(runs, difference, alike),
                             arguments.draws // (1 if alike else 2))
            shares = {name: f"{share:.1%}" for name, share in found.items()}
            print("|", " | ".join([
                "alike" if alike else "unlike", f"{difference:.3f}", shares["better"],
                shares["worse"], shares["none"], f"{found['folds']:.2f}",
                f"{1 - found['folds'] / 5:.0%}", shares["once_better"], shares["once_worse"],
                shares["each"]]), "|", flush=True)


if __name__ == "__main__":
    main()
