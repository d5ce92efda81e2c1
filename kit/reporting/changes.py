"""Which labels of the test file changed because of what: label spreading, self-training, the prior.

No label of that file is known, so none of this says whether a change is right.
"""

from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from kit.ensembling.blend import ROW_BY_ROW

if TYPE_CHECKING:
    from kit.ensembling.blend import RunResults

EXAMPLES = 10  # changed rows pictured, of each step


def changes(results: "RunResults") -> dict[str, Any]:
    """The `test.changes` of report.json: each step's changes, and how many are left of them.

    `rows` counts the submitted labels that differ from what the networks read of each row by
    itself. It is None where that is not known, and then label spreading is not among the steps. A
    step may take back what an earlier one did, so it is not the sum.
    """
    labels, ids = list(results.labels_by_step.items()), results.data.test().ids
    (begun_with, first), (_, last) = labels[0], labels[-1]
    return {"rows": int((first != last).sum()) if begun_with == ROW_BY_ROW else None,
            "steps": [{"step": step, **_changed(before, after, ids)}
                      for (_, before), (step, after) in pairwise(labels)]}


def _changed(before: np.ndarray, after: np.ndarray, ids: np.ndarray) -> dict[str, Any]:
    """How many labels differ, which class became which, and some of the rows.

    before, after: classes `(n,)`. The examples are of as many pairs of classes as there is room
    for, the most frequent first.
    """
    rows: dict[tuple[int, int], list[int]] = {}
    for i in np.flatnonzero(before != after).tolist():
        rows.setdefault((int(before[i]), int(after[i])), []).append(i)
    pairs = sorted(rows, key=lambda pair: (-len(rows[pair]), pair))
    in_turn = [pair for turn in range(EXAMPLES) for pair in pairs if turn < len(rows[pair])]
    shown = Counter(in_turn[:EXAMPLES])
    return {"rows": sum(map(len, rows.values())),
            "pairs": [{"from": a, "to": b, "rows": len(rows[a, b])} for a, b in pairs],
            "examples": [{"index": i, "id": ids[i].item(), "from": pair[0], "to": pair[1]}
                         for pair in pairs for i in rows[pair][:shown[pair]]]}
