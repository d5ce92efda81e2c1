"""Compare two runs or submissions: is A better than B?

Both have predicted the same rows, so the tests are paired: over rows, over writers, and over the
hardest eight writers. Folders with OOF probs are enough; the data is only needed for pictures. The
result is a dict, which is shown as a few lines or as a page.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kit.core.errors import KitError
from kit.ensembling.scored_run import ScoredRun, read_scored_run
from kit.reporting import figures, metrics, page, sequential
from kit.reporting.pictures import data_uri
from kit.reporting.verdict import p_value, paired_verdict, percent, points

if TYPE_CHECKING:
    from kit.data.table import Table

MAX_DIFFERENT = 300  # rows listed and pictured: where one is right and the other wrong
FIRST_DIFFERENT = 36  # of them, for A and for B, that the page shows before they are expanded


def compare(folder_a: Path, folder_b: Path) -> dict[str, Any]:
    """A against B on the rows that both have scored; differences are A - B.

    KitError where a folder lacks its artifacts, where the two were made from different training
    files, or where no row is common to both.
    """
    sides = read_scored_run(folder_a), read_scored_run(folder_b)
    competition, other = (side.competition for side in sides)
    digests = [side.config["data"]["sha256"].get(competition.train) for side in sides]
    if not competition.is_like(other) or digests[0] != digests[1]:
        kinds = ["the drawn sample" if side.config["data"]["is_sample"] else
                 f"real data of {side.config['competition']}" for side in sides]
        raise KitError(f"{sides[0].name} was trained on {kinds[0]}, {sides[1].name} on another "
                       f"file ({kinds[1]})",
                       "compare runs that were made from the same training file")
    rows = np.intersect1d(sides[0].row, sides[1].row, assume_unique=True)
    if not len(rows):
        raise KitError(f"{sides[0].name} and {sides[1].name} have no row in common",
                       "compare runs with the same --limit")
    a, b = (side.take(rows) for side in sides)
    if not np.array_equal(a.label, b.label):
        raise KitError(f"{a.name} and {b.name} give different labels to the same rows",
                       "compare runs that were made from the same training file")

    writers, labels = a.writer if a.writer is not None else b.writer, a.label
    by_writer, by_class = [], []
    for writer in [] if writers is None else np.unique(writers):
        own = writers == writer
        by_writer.append({"writer": int(writer), "rows": int(own.sum()),
                          "accuracy_a": float(a.right[own].mean()),
                          "accuracy_b": float(b.right[own].mean())})
    for k in np.unique(labels):
        by_class.append({"class": int(k), "rows": int((labels == k).sum()),
                         "recall_a": float(a.right[labels == k].mean()),
                         "recall_b": float(b.right[labels == k].mean())})

    # Rows that one predicts right and the other wrong, by how much their p(true) differ
    p_true = [side.probs[np.arange(len(labels)), labels] for side in (a, b)]
    parted = np.flatnonzero(a.right != b.right)
    order = np.argsort(-np.abs(p_true[0] - p_true[1])[parted], kind="stable")
    different = [{"row": int(rows[i]), "true": int(labels[i]),
                  "writer": None if writers is None else int(writers[i]),
                  "a": int(a.probs[i].argmax()), "b": int(b.probs[i].argmax()),
                  "confidence_a": round(float(a.probs[i].max()), 4),
                  "confidence_b": round(float(b.probs[i].max()), 4)}
                 for i in parted[order][:MAX_DIFFERENT]]

    comparison = {
        "format": 1, "competition": competition.slug,
        "class_names": list(competition.class_names), "shape": list(competition.shape),
        "train_sha256": digests[0],
        **{letter: {
            "name": side.name, "rows": len(whole.row), "models": list(side.config["models"]),
            "is_sample": side.config["data"]["is_sample"],
            "keeps_writers_apart": side.keeps_writers_apart,
            "accuracy": float(side.right.mean()),
            "ci95": list(metrics.accuracy_interval(side.right, writers)),
            "mistakes": int((~side.right).sum())}
           for letter, side, whole in zip("ab", (a, b), sides, strict=True)},
        "rows": len(rows), "paired": metrics.paired_tests(a.right, b.right, writers),
        "both_wrong": int((~a.right & ~b.right).sum()),
        "notes": [f"{a.name} is compared with itself."] * (folder_a.resolve() == folder_b.resolve())
        + _notes(sides, a, b),
        "per_writer": by_writer, "per_class": by_class, "different": different, "sequential": None}
    # When would it have been decided? The folds must be whole, and of like writers.
    names = np.unique(a.fold)
    if np.array_equal(a.fold, b.fold) and len(names) == a.config.get("n_folds") \
            and len(rows) == len(sides[0].row) and a.config.get("split") != "harder":
        judgement = sequential.judge(a.right, b.right, a.fold, writers, [[int(k)] for k in names])
        comparison["sequential"] = judgement.to_dict(a.name, b.name)
    return {**comparison, "verdict": verdict(comparison)}


def _notes(sides: tuple[ScoredRun, ScoredRun], a: ScoredRun, b: ScoredRun) -> list[str]:
    """Warnings: what makes the comparison less reliable than it seems."""
    notes = []
    if a.config["data"]["is_sample"]:
        notes.append("Drawn sample: these scores say nothing about the competition.")
    notes += [f"{side.name} is hardly trained: it reads {percent(side.right.mean(), 0)} of the "
              "held-out rows correctly, and gets no estimate of the leaderboard score."
              for side in sides if side.right.mean() < metrics.LEAST_ACCURACY]
    if len(a.row) < max(len(side.row) for side in sides):
        notes.append(f"Aligned by row: {a.name} scored {len(sides[0].row):,} rows, {b.name} "
                     f"{len(sides[1].row):,}; compared are the {len(a.row):,} that both have.")
    if a.keeps_writers_apart != b.keeps_writers_apart:
        flattered = b.name if a.keeps_writers_apart else a.name
        notes.append(f"Not a fair comparison: {flattered} was scored on writers that it had been "
                     "trained on.")
    elif not np.array_equal(a.fold, b.fold):
        notes.append("The two were not scored in the same folds, so part of the difference comes "
                     "from the split.")
    return notes


# -- in words --------------------------------------------------------------------------------------


def verdict(comparison: dict[str, Any]) -> str:
    """One sentence: better, worse, or not shown to differ; over writers where they are known."""
    a, b = comparison["a"]["name"], comparison["b"]["name"]
    word, numbers = paired_verdict(comparison["paired"])
    if word == "same":
        return f"{a} is not shown to differ from {b}: {numbers}."
    return f"{a} is {word} than {b}: {numbers}."


def lines(comparison: dict[str, Any]) -> list[str]:
    """The comparison for a terminal: notes, verdict, both scores, and a line for each test."""
    said = [*comparison["notes"], comparison["verdict"]]
    for side in (comparison["a"], comparison["b"]):
        low, high = map(percent, side["ci95"])
        said.append(f"{side['name']}: {percent(side['accuracy'])} ({low} to {high})")
    for kind, words in (("rows", "over rows"), ("writers", "over writers"),
                        ("hardest", "over the hardest eight")):
        if test := comparison["paired"][kind]:
            low, high = map(points, test["ci95"])
            said.append(f"{words}: {points(test['difference'])}, {low} to {high}, "
                        f"{p_value(test['p'])} ({test['test']})")
    if comparison["sequential"]:
        said.append(f"fold by fold: {comparison['sequential']['verdict']}")
    return said


# -- as a page -------------------------------------------------------------------------------------


def render_compare(comparison: dict[str, Any], train: "Table | None" = None) -> str:
    """The comparison as one self-contained page.

    It has pictures if `train` is the file that both were made from.
    """
    shape = tuple(comparison["shape"])
    different, pictures = comparison["different"], None
    if train is not None and train.sha256 == comparison["train_sha256"]:
        pictures = [data_uri(train.pixels[entry["row"]], shape) for entry in different]
    only = {letter: [i for i, entry in enumerate(different) if entry[letter] == entry["true"]]
            for letter in "ab"}
    gains = sorted(({"name": str(entry["writer"]), **entry} for entry in comparison["per_writer"]),
                   key=lambda entry: entry["accuracy_a"] - entry["accuracy_b"])
    return page.render("compare.html", comparison, comparison["class_names"],
                       comparison=comparison, figures=figures, pictures=pictures, only=only,
                       first=FIRST_DIFFERENT, gains=gains)
