"""Compare two runs or submissions: is A better than B?

Both have predicted the same rows, so the tests are paired: over rows, over writers, and over the
hardest eight writers. Folders with OOF probs are enough; the data is only needed for pictures. The
result is a dict, which is shown as a few lines or as a page.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kit.core.errors import KitError
from kit.data import competition as competitions
from kit.ensembling.scored_run import ScoredRun, read_scored_run
from kit.reporting import figures, metrics, page
from kit.reporting.pictures import data_uri
from kit.reporting.verdict import is_shown, p_value, percent, points

if TYPE_CHECKING:
    from kit.data.table import Table

MAX_DIFFERENT = 300  # rows listed and pictured: where one is right and the other wrong
FIRST_DIFFERENT = 36  # of them, for A and for B, that the page shows before they are expanded


def compare(a: Path, b: Path) -> dict[str, Any]:
    """A against B on the rows that both have scored; differences are A - B.

    KitError where a folder lacks its artifacts, where the two were made from different training files, or where no
    row is common to both.
    """
    sides = read_scored_run(a), read_scored_run(b)
    _same_file(*sides)
    rows = np.intersect1d(sides[0].row, sides[1].row, assume_unique=True)
    if not len(rows):
        raise KitError(f"{sides[0].name} and {sides[1].name} have no row in common",
                       "compare runs of the same training file; with --limit, give both the same limit")
    one, two = (side.take(rows) for side in sides)
    if not np.array_equal(one.label, two.label):
        raise KitError(f"{one.name} and {two.name} give different labels to the same rows",
                       "compare runs that were made from the same training file")
    writers = one.writer if one.writer is not None else two.writer
    competition = competitions.get(one.config["competition"])
    comparison = {
        "format": 1, "competition": competition.slug, "class_names": list(competition.class_names),
        "train_sha256": _train_digest(one),
        "a": _about(one, len(sides[0].row), writers), "b": _about(two, len(sides[1].row), writers),
        "rows": len(rows), "paired": metrics.paired(one.right, two.right, writers),
        "both_wrong": int((~one.right & ~two.right).sum()), "notes": _notes(sides, one, two),
        "per_writer": _per_writer(one.right, two.right, writers), "per_class": _per_class(one, two),
        "different": _different(one, two, writers)}
    return {**comparison, "verdict": verdict(comparison)}


def _train_digest(side: ScoredRun) -> str | None:
    return side.config["data"]["sha256"].get(competitions.get(side.config["competition"]).train)


def _same_file(a: ScoredRun, b: ScoredRun) -> None:
    if a.config["competition"] != b.config["competition"] or _train_digest(a) != _train_digest(b):
        kinds = ["the drawn sample" if side.config["data"]["is_sample"] else f"a {side.config['competition']} file"
                 for side in (a, b)]
        raise KitError(f"{a.name} was trained on {kinds[0]}, {b.name} on another file ({kinds[1]})",
                       "compare runs that were made from the same training file")


def _about(side: ScoredRun, rows: int, writers: np.ndarray | None) -> dict[str, Any]:
    return {"name": side.name, "rows": rows, "models": list(side.config["models"]),
            "is_sample": bool(side.config["data"]["is_sample"]), "keeps_writers_apart": side.keeps_writers_apart,
            "accuracy": float(side.right.mean()), "ci95": list(metrics.accuracy_interval(side.right, writers)),
            "mistakes": int((~side.right).sum())}


def _notes(sides: tuple[ScoredRun, ScoredRun], a: ScoredRun, b: ScoredRun) -> list[str]:
    """Warnings: what makes the comparison less reliable than it seems."""
    notes = []
    if a.config["data"]["is_sample"]:
        notes.append("Drawn sample: these scores say nothing about the competition.")
    notes += [f"{side.name} is hardly trained: it reads {percent(side.right.mean(), 0)} of the held-out digits, and "
              "gets no estimate of the leaderboard score."
              for side in sides if side.right.mean() < metrics.LEAST_ACCURACY]
    if len(a.row) < max(len(side.row) for side in sides):
        notes.append(f"Aligned by row: {a.name} scored {len(sides[0].row):,} rows, {b.name} {len(sides[1].row):,}; "
                     f"compared are the {len(a.row):,} that both have.")
    if a.keeps_writers_apart != b.keeps_writers_apart:
        flattered = b.name if a.keeps_writers_apart else a.name
        notes.append(f"Not a fair comparison: {flattered} was scored on writers that it had been trained on.")
    elif not np.array_equal(a.fold, b.fold):
        notes.append("The two were not scored in the same folds, so part of the difference is the split's.")
    return notes


def _per_writer(a: np.ndarray, b: np.ndarray, writers: np.ndarray | None) -> list[dict[str, Any]]:
    if writers is None:
        return []
    return [{"writer": int(writer), "rows": int((writers == writer).sum()),
             "accuracy_a": float(a[writers == writer].mean()), "accuracy_b": float(b[writers == writer].mean())}
            for writer in np.unique(writers)]


def _per_class(a: ScoredRun, b: ScoredRun) -> list[dict[str, Any]]:
    return [{"class": int(k), "rows": int((a.label == k).sum()), "recall_a": float(a.right[a.label == k].mean()),
             "recall_b": float(b.right[b.label == k].mean())} for k in np.unique(a.label)]


def _different(a: ScoredRun, b: ScoredRun, writers: np.ndarray | None) -> list[dict[str, Any]]:
    """Rows that one predicts right and the other wrong, by how much their p(true) differ."""
    truth = np.arange(len(a.label)), a.label
    gap = a.probs[truth] - b.probs[truth]
    parted = np.flatnonzero(a.right != b.right)
    parted = parted[np.argsort(-np.abs(gap[parted]), kind="stable")][:MAX_DIFFERENT]
    return [{"row": int(a.row[i]), "true": int(a.label[i]), "writer": None if writers is None else int(writers[i]),
             "a": int(a.probs[i].argmax()), "b": int(b.probs[i].argmax()),
             "confidence_a": round(float(a.probs[i].max()), 4), "confidence_b": round(float(b.probs[i].max()), 4)}
            for i in parted]


# -- in words -------------------------------------------------------------------------------------------------------


def verdict(comparison: dict[str, Any]) -> str:
    """One sentence: better, worse, or not shown to differ; over writers where they are known."""
    a, b, paired = comparison["a"]["name"], comparison["b"]["name"], comparison["paired"]
    test = paired["writers"] or paired["rows"]
    low, high = test["ci95"]
    numbers = (f"{points(test['difference'])} (95\u00a0% interval over {'writers' if paired['writers'] else 'rows'} "
               f"{points(low)} to {points(high)}, {p_value(test['p'])})")
    if is_shown(test):
        return f"{a} is {'better' if test['difference'] > 0 else 'worse'} than {b}: {numbers}."
    return f"{a} is not shown to differ from {b}: {numbers}."


def lines(comparison: dict[str, Any]) -> list[str]:
    """The comparison for a terminal: notes, verdict, both scores, and a line for each test."""
    said = [*comparison["notes"], comparison["verdict"]]
    said += [f"{side['name']}: {percent(side['accuracy'])} ({percent(side['ci95'][0])} to {percent(side['ci95'][1])})"
             for side in (comparison["a"], comparison["b"])]
    for kind, words in (("rows", "over rows"), ("writers", "over writers"), ("hardest", "over the hardest eight")):
        test = comparison["paired"][kind]
        if test:
            low, high = (points(bound) for bound in test["ci95"])
            said.append(f"{words}: {points(test['difference'])}, {low} to {high}, {p_value(test['p'])} "
                        f"({test['test']})")
    return said


# -- as a page ------------------------------------------------------------------------------------------------------


def render_compare(comparison: dict[str, Any], train: "Table | None" = None) -> str:
    """The comparison as one self-contained page; with pictures where `train` is the file that both were made from."""
    shape = competitions.get(comparison["competition"]).shape
    at_hand = train is not None and train.sha256 == comparison["train_sha256"] and all(
        entry["row"] < len(train) for entry in comparison["different"])
    pictures = [data_uri(train.pixels[entry["row"]], shape) if train is not None and at_hand else None
                for entry in comparison["different"]]
    only = {letter: [i for i, entry in enumerate(comparison["different"]) if entry[letter] == entry["true"]]
            for letter in "ab"}
    return page.render("compare.html", comparison, comparison["class_names"], comparison=comparison, figures=figures,
                       pictures=pictures, at_hand=at_hand, only=only, first=FIRST_DIFFERENT,
                       gains=[{"name": str(entry["writer"]), **entry} for entry in sorted(
                           comparison["per_writer"], key=lambda entry: entry["accuracy_a"] - entry["accuracy_b"])])
