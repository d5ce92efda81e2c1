"""Measure what the class prior is worth, on OOF rows that are drawn as a test file is.

    python scripts/class_prior.py [submissions/cnn-5fold …] [--draws 20] [--power 1.5]

They are labelled as read, with the prior, and with equal counts. Only training rows take part, each
read by models that never saw its writer. Two ways of drawing, 20 times each:

random halves   the pool is all rows of the eight hardest writers; half of them, at random, the file
whole pages     eight of the sixteen hardest writers, at random, are the pool, and the file as well

Hardest are those of whose rows the run misreads most. A table in Markdown: mean errors, their mean
difference to the labels as read with its standard error over the draws, and the worst draw.
"""

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from kit.core import storage
from kit.data.competition import KANNADA
from kit.ensembling import prior

SEED = 0
WRITERS = 8


def draws(hardest: np.ndarray, writers: np.ndarray,
          n: int) -> Iterator[tuple[str, np.ndarray, int]]:
    """The way of drawing, the file's rows, and the size of the pool, `n` times for each way."""
    rng = np.random.default_rng(SEED)
    pool = np.flatnonzero(np.isin(writers, hardest[:WRITERS]))
    for _ in range(n):
        yield "random halves", rng.permutation(pool)[:len(pool) // 2], len(pool)
    for _ in range(n):
        chosen = rng.choice(hardest[:2 * WRITERS], WRITERS, replace=False)
        pages = np.flatnonzero(np.isin(writers, chosen))
        yield "whole pages", pages, len(pages)


def measure(folder: Path, n: int) -> Iterator[str]:
    """The lines of the table for one run."""
    oof = storage.read_npz(folder / "oof.npz", "probs", "label", "writer")
    probs, labels = oof["probs"].astype("float32"), oof["label"]
    names, index = np.unique(oof["writer"], return_inverse=True)
    misread = np.bincount(index, probs.argmax(1) != labels) / np.bincount(index)
    hardest = names[np.argsort(-misread, kind="stable")]
    found: dict[str, list[list[int]]] = {}
    for way, rows, pool in draws(hardest, oof["writer"], n):
        competition = replace(KANNADA, test_pool=pool)
        priors = [prior.class_prior(asked, competition, probs[rows])
                  for asked in ("none", "auto", "equal")]
        errors = [int((each.apply(probs[rows]).argmax(1) != labels[rows]).sum()) for each in priors]
        found.setdefault(way, []).append([*errors, priors[1].spread is None])
    for way, counts in found.items():
        read, *others, refused = np.array(counts).T
        cells = [f"{read.mean():.1f}"]
        for errors in others:
            gap = errors - read
            spread = gap.std(ddof=1) / np.sqrt(n)
            cells += [f"{errors.mean():.1f}", f"{gap.mean():+.1f} ± {spread:.1f}",
                      f"{gap.max():+d}"]
        yield f"| {folder.name} | {way} | {' | '.join(cells)} | {refused.sum()} of {n} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    names = ("cnn-5fold", "cnn-aug-5fold", "strong-cpu")
    parser.add_argument("folders", nargs="*", type=Path,
                        default=[Path("submissions") / name for name in names])
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--power", type=float, default=prior.POWER,
                        help="instead of the kit's own sharpening")
    asked = parser.parse_args()
    prior.POWER = asked.power
    print("| run | drawn | errors as read | with the prior | difference | worst draw "
          "| equal forced | difference | worst draw | prior refused |")
    print("|" + "---|" * 10)
    for folder in asked.folders:
        print("\n".join(measure(folder, asked.draws)), flush=True)


if __name__ == "__main__":
    main()
