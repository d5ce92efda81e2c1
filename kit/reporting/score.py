"""Score a submission where the labels of the test file are known, as for mnist.npz."""

import shlex
from pathlib import Path
from typing import Any

from kit.core.errors import KitError
from kit.data.competition import Competition
from kit.data.source import DataFolder
from kit.ensembling import submission
from kit.reporting import metrics
from kit.reporting.numerals import plain_names
from kit.reporting.verdict import percent

SHOWN = 20  # rows that are listed, predicted against actual


def score(file: Path, data: DataFolder) -> dict[str, Any]:
    """Accuracy of a submission, its 95 % interval, and the first rows, predicted against actual.

    KitError where the labels of the test file are not known, or the file is no acceptable
    submission.
    """
    actual, competition = data.test_labels(), data.competition
    if actual is None:
        raise KitError(f"nobody knows the labels of {data.path / competition.test} here",
                       "submit the file for its score; or get data that has the labels: "
                       "kit download --from mnist.npz (or keras)")
    ids = data.test().ids
    if problems := submission.validate(file, competition, ids).problems:
        typed = shlex.join(["kit", "validate", str(file), *competition.option,
                            "--data-dir", str(data.path.parent)])
        raise KitError(f"{file} is not acceptable: {problems[0]}",
                       f"see all that is wrong: {typed}")
    predicted = submission.read_labels(file, competition, ids)
    right = predicted == actual
    return {"rows": len(right), "right": int(right.sum()), "accuracy": float(right.mean()),
            "ci95": list(metrics.accuracy_interval(right)), "is_sample": data.is_sample,
            "shown": [{"id": ids[i].item(), "predicted": competition.label(predicted[i]),
                       "actual": competition.label(actual[i])}
                      for i in range(min(SHOWN, len(right)))]}


def score_lines(result: dict[str, Any], competition: Competition) -> list[str]:
    """The score for a terminal."""
    (low, high), names = map(percent, result["ci95"]), {
        competition.label(k): name for k, name in enumerate(plain_names(competition.class_names))}
    lines = [f"{percent(result['accuracy'])} right: {result['right']:,} of {result['rows']:,} "
             f"(95 % interval {low} to {high})", "",
             f"{'id':>8}  {'predicted':>10}  {'actual':>10}"]
    for row in result["shown"]:
        mark = "" if row["predicted"] == row["actual"] else "  wrong"
        lines.append(f"{row['id']:>8}  {names[row['predicted']]:>10}  "
                     f"{names[row['actual']]:>10}{mark}")
    return lines
