"""How well is it known what a blend gains over each of its runs on writers that are harder still?

    python scripts/blend_gain.py submissions/cnn-5fold submissions/quick …

Blends all pairs and triples of the runs with equal weights. The hardest 24 writers of each blend,
eight at a time, stand for the test file: the gain there is expected from all other writers, as
`kit.reporting.blended` does, and compared with what it was. Only OOF probs are needed.
"""

import itertools
import sys
from pathlib import Path

import numpy as np

from kit.ensembling.scored_run import read_scored_run
from kit.reporting.blended import expected_gain

GROUPS, GROUP_WRITERS = 3, 8

runs = [read_scored_run(Path(name)) for name in sys.argv[1:]]
labels, writers = runs[0].label, runs[0].writer
expected, actual = [], []
for blended in (*itertools.combinations(runs, 2), *itertools.combinations(runs, 3)):
    blend = np.mean([run.probs for run in blended], axis=0).argmax(1)
    names, index = np.unique(writers, return_inverse=True)
    accuracy = np.bincount(index, blend == labels) / np.bincount(index)
    hardest = names[np.argsort(accuracy, kind="stable")]
    for start in range(0, GROUPS * GROUP_WRITERS, GROUP_WRITERS):
        asked = np.isin(writers, hardest[start:start + GROUP_WRITERS])
        for run in blended:
            read = run.probs.argmax(1)
            share = (blend != read)[asked].mean()
            expected.append(expected_gain(blend[~asked], read[~asked], labels[~asked], share))
            right = (blend == labels)[asked].mean()
            actual.append(right - (read == labels)[asked].mean())
off = np.array(expected) - actual
print(f"{len(off)} gains: expected {np.mean(expected):+.4f} on average, came to "
      f"{np.mean(actual):+.4f}; off by {np.sqrt((off**2).mean()):.4f} (root mean square), "
      f"{np.sqrt(np.square(actual).mean()):.4f} if none is expected")
