"""What the comparison says of the folds it sees."""

from pathlib import Path

import numpy as np

from kit.data.competition import KANNADA
from kit.data.folds import Folds
from kit.ensembling.scored_run import ScoredRun
from kit.reporting.against import Against


def test_a_lone_fold_that_may_have_collapsed_waits_for_a_second_one():
    rows, right, wrong = np.arange(500), np.eye(10)[np.zeros(500, int)], np.eye(10)[[1] * 500]
    label, fold, writer = np.zeros(500, int), rows % 5, rows // 10
    other = ScoredRun("before", rows, right, label, fold, writer, {}, KANNADA)
    folds = Folds(rows, label, writer, fold, "writer", False)
    against = Against(Path("before"), other, 0.001)
    assert "100.00\u00a0%" in against.look([0], wrong, folds, "after")
    assert not against.is_decided and against.rounds == []
    against.look([0, 1], right, folds, "after")  # trained again, as well as the other run
    assert against.rounds == [[0, 1]] and against.judgement.outcome == "none"

    # A second one as far below: then it is no accident.
    against = Against(Path("before"), other, 0.001)
    against.look([0], wrong, folds, "after")
    against.look([0, 1], wrong, folds, "after")
    assert against.judgement.outcome == "worse" and against.judgement.looks[0].folds == 2

    # A fold that is merely worse is judged at once.
    against = Against(Path("before"), other, 0.001)
    against.look([0], np.where((rows % 50 < 5)[:, None], wrong, right), folds, "after")
    assert against.rounds == [[0]]
