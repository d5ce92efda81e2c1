"""Build report.json with every number of a run, and report.html, a page that shows them.

The page looks its numbers up in the dict by name, so the two cannot differ.
"""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from kit.data.folds import NEVER_HELD_OUT, TEST_WRITERS
from kit.data.source import SOURCES
from kit.reporting import blended, figures, machines, metrics, numerals, page, verdict
from kit.reporting.changes import changes
from kit.reporting.estimate import estimate
from kit.reporting.handwriting import handwriting
from kit.reporting.pictures import data_uri
from kit.training import models
from kit.training.fit import CURVE_ROWS
from kit.training.models import BASELINE

if TYPE_CHECKING:  # reading a submission's report needs no pandas
    from kit.ensembling.blend import Member, RunResults

MAX_MISTAKES = 600  # rows listed in report.json and pictured: some 200 KB of the page's 2 MB
PER_CELL = 6  # mistakes kept for each cell of the confusion matrix, whatever their confidence
DOUBTFUL = 8  # right answers with the least confidence, of each class
SAMPLES = 8  # training digits, of each class
GRID = 36  # test digits, 6 by 6
DISPUTED = 24  # test digits on which the models disagree most
OF_WRITER = 8  # mistakes of each of the hardest writers
NAMES = {"n_folds": "folds", "n_seeds": "seeds", "tta": "test-time views", "cpu_cores": "CPU cores",
         "cpu_bfloat16": "CPU computes bfloat16", "gpus": "GPUs",
         "code": "own files (SHA-256)"}
# In `results.config`, but no field of the RunConfig
BESIDE_CONFIG = ("command", "environment", "parameters")


# -- report.json -----------------------------------------------------------------------------------


def build_report(results: "RunResults") -> dict[str, Any]:
    """Every number of the report: plain numbers, strings, lists and dicts, none of them NaN.

    Rows that no fold has scored (a run cut short by its time budget) are left out of all scores and
    counted in `cv.rows_missing`. KitError where the data cannot be read.
    """
    from sklearn.metrics import confusion_matrix

    competition, data, folds = results.competition, results.data, results.folds
    scored = np.isfinite(results.oof).all(axis=1)
    rows, probs, labels = folds.rows[scored], results.oof[scored], folds.labels[scored].astype(int)
    fold, predicted = folds.fold[scored], probs.argmax(axis=1)
    writers = None if folds.writers is None else folds.writers[scored]
    matrix = confusion_matrix(labels, predicted, labels=range(competition.n_classes))
    by_writer = [] if writers is None else metrics.per_writer(predicted == labels, writers, fold)
    members = [member for member in (*results.members, results.baseline) if member]
    groups = machines.trained_with(members)

    tables = {competition.train: data.train(), competition.test: data.test()}
    extra = data.extra()
    if extra is not None:
        tables[str(competition.extra)] = extra

    # Accuracy on the labelled out-of-domain file
    dig_mnist = None
    if results.extra is not None and extra is not None:
        right = results.extra.argmax(axis=1) == extra.labels
        dig_mnist = {"file": competition.extra, "rows": len(right), "accuracy": float(right.mean()),
                     "ci95": list(metrics.accuracy_interval(right))}

    # Of each class, the right predictions with the least confidence
    confidence = probs.max(axis=1)
    doubtful = [i for k in np.unique(labels)
                for i in sorted(np.flatnonzero((labels == k) & (predicted == k)),
                                key=lambda i: confidence[i])[:DOUBTFUL]]
    rng = np.random.default_rng(0)
    test = _test(results)
    against = None  # the run that this one was compared with while it trained, and the judgement
    if results.against and results.against["judgement"]:
        against = {"run": results.against["run"], **results.against["judgement"]}
    report = {
        "format": 1, "run": results.name, "complete": bool(results.complete),
        "competition": {"slug": competition.slug, "title": competition.title,
                        "url": competition.url, "class_names": list(competition.class_names),
                        "items": competition.items,
                        "labels": [competition.label(k) for k in range(competition.n_classes)]},
        "data": {
            "source": data.source, "is_sample": bool(data.is_sample),
            "sha256": {name: table.sha256 for name, table in tables.items()},
            "rows": {name: len(table.pixels) for name, table in tables.items()},
            "rows_used": len(folds.rows),
            "per_class": np.bincount(folds.labels, minlength=competition.n_classes).tolist()},
        "cv": {"split": folds.split, "keeps_writers_apart": bool(folds.keeps_writers_apart),
               "n_folds": results.config["n_folds"],
               **metrics.cv_scores(probs, labels, fold, writers),
               "rows_missing": int((~scored & (folds.fold != NEVER_HELD_OUT)).sum())},
        "baseline": _baseline(results, scored), "blend": blended.numbers(results),
        "against": against,
        "dig_mnist": dig_mnist,
        "leaderboard_estimate": estimate(results),
        "members": [_member(results, member) for member in members],
        "per_class": metrics.per_class(matrix), "confusion": matrix.tolist(),
        "per_writer": by_writer,
        "hardest_writers": metrics.hardest_first(by_writer)[:TEST_WRITERS],
        "calibration": metrics.calibration(probs, labels),
        "mistakes": _mistakes(rows, labels, probs, writers),
        "doubtful": [{"row": int(rows[i]), "true": int(labels[i]),
                      "confidence": round(float(confidence[i]), 4)} for i in doubtful],
        "samples": [{"class": int(k),
                     "rows": np.sort(rng.permutation(rows[labels == k])[:SAMPLES]).tolist()}
                    for k in np.unique(labels)],
        "test": test, "disagreement": _disagreement(results),
        "learning_curves": [
            {"model": member.model, "seed": int(member.seed), "fold": int(done["job"]["fold"]),
             **{name: [round(float(value), 6) for value in history[name]]
                for name in ("epoch", "loss", "val_loss", "accuracy", "val_accuracy")}}
            for member in members
            for done, history in zip(member.done, member.history, strict=True)],
        "timing": {**results.timing, "images_per_second": {
            model: float(np.median([done["images_per_second"] for member in members
                                    if member.model == model for done in member.done]))
            for model in dict.fromkeys(member.model for member in members)}},
        "environment": results.config["environment"],
        "config": {name: value for name, value in results.config.items()
                   if name not in BESIDE_CONFIG},
        "trained_with": groups, "command": results.config["command"],
        "notes": _notes(results, members, test) + blended.notes(results) + machines.notes(groups),
    }
    return {**report, "verdict": verdict.verdict(report)}


def _baseline(results: "RunResults", scored: np.ndarray) -> dict[str, Any] | None:
    """The baseline's scores on the rows that both scored, and the tests of run minus baseline."""
    folds, own = results.folds, [each for each in results.members if each.model == BASELINE]
    base = results.baseline or next(iter(own), None)
    if base is None:
        return None
    both = scored & np.isfinite(base.oof).all(axis=1)
    if not both.any():
        return None
    writers, labels = None if folds.writers is None else folds.writers[both], folds.labels[both]
    ours, theirs = (oof[both].argmax(axis=1) == labels for oof in (results.oof, base.oof))
    return {"model": base.model,
            **metrics.cv_scores(base.oof[both], labels, folds.fold[both], writers),
            "paired": metrics.paired_tests(ours, theirs, writers)}


def _member(results: "RunResults", member: "Member") -> dict[str, Any]:
    """One model of one seed: what it scores alone, how large it is, and what its folds cost."""
    scored = np.isfinite(member.oof).all(axis=1)
    right = member.oof[scored].argmax(axis=1) == results.folds.labels[scored]
    return {"model": member.model, "seed": int(member.seed),
            "is_baseline": member is results.baseline,
            "folds": len(member.done), "rows": len(right), "oof_accuracy": float(right.mean()),
            "parameters": member.done[0]["parameters"],
            # Folds from before 2026-11-29 do not state it.
            "mflops_per_image": member.done[0].get("mflops") or models.get(member.model).mflops,
            "epochs": len(member.history[0]),
            "seconds_per_epoch": float(np.mean([each["seconds"].mean()
                                                for each in member.history])),
            "train_seconds": sum(done["train_seconds"] for done in member.done),
            "images_per_second": float(np.median([done["images_per_second"]
                                                  for done in member.done]))}


def _mistakes(rows: np.ndarray, labels: np.ndarray, probs: np.ndarray,
              writers: np.ndarray | None) -> list[dict]:
    """The MAX_MISTAKES most confident, but PER_CELL of each cell of the matrix in any case."""
    import pandas as pd

    predicted, confidence = probs.argmax(axis=1), probs.max(axis=1)
    wrong = np.flatnonzero(predicted != labels)
    wrong = wrong[np.argsort(-confidence[wrong], kind="stable")]
    cells = pd.DataFrame({"true": labels[wrong], "predicted": predicted[wrong]})
    rank = cells.groupby(["true", "predicted"]).cumcount().to_numpy()
    kept = np.sort(np.argsort(rank >= PER_CELL, kind="stable")[:MAX_MISTAKES])
    return [{"row": int(rows[i]), "true": int(labels[i]), "predicted": int(predicted[i]),
             "confidence": round(float(confidence[i]), 4),
             "p_true": round(float(probs[i, labels[i]]), 4),
             "writer": None if writers is None else int(writers[i])} for i in wrong[kept]]


def _test(results: "RunResults") -> dict[str, Any] | None:
    """The labels submitted: their balance, and the first rows; None where none were predicted."""
    if results.test is None or results.class_prior is None:
        return None
    predicted = results.submitted.argmax(axis=1)
    confidence = results.test[np.arange(len(predicted)), predicted]
    ids = results.data.test().ids
    balance = metrics.class_balance(predicted, results.folds.labels, results.competition.n_classes)
    return {"rows": len(predicted), "class_prior": asdict(results.class_prior),
            "relabelled": int((predicted != results.test.argmax(axis=1)).sum()),
            "changes": changes(results), "handwriting": handwriting(results),
            "mean_confidence": float(confidence.mean()), "balance": balance,
            "grid": [{"index": i, "id": ids[i].item(), "predicted": int(predicted[i]),
                      "confidence": round(float(confidence[i]), 4)}
                     for i in range(min(GRID, len(predicted)))]}


def _disagreement(results: "RunResults") -> dict[str, Any] | None:
    """The test rows on which the voters disagree; None for a single one."""
    read = np.array([probs.argmax(axis=1) for probs in results.voters])
    if results.test is None or len(read) < 2:
        return None
    votes, predicted = metrics.count_votes(read), results.submitted.argmax(axis=1)
    agreement, ids = votes.max(axis=1) / len(read), results.data.test().ids
    disputed = np.flatnonzero(agreement < 1)
    disputed = disputed[np.argsort(agreement[disputed], kind="stable")]
    return {"models": len(read), "rows": len(agreement), "rows_disputed": len(disputed),
            "mean_agreement": float(agreement.mean()), "most_disputed": [
                {"index": int(i), "id": ids[i].item(), "predicted": int(predicted[i]), "votes": [
                    {"class": int(k), "models": int(votes[i, k])}
                    for k in np.argsort(-votes[i], kind="stable") if votes[i, k]]}
                for i in disputed[:DISPUTED]]}


def _notes(results: "RunResults", members: list["Member"],
           test: dict[str, Any] | None) -> list[str]:
    """Sentences on what is special: the files, the class prior, self-training, second attempts."""
    tables = (results.data.train(), results.data.test(), results.data.extra())
    notes = [note for table in tables if table is not None for note in table.notes]
    if test:
        effect = "" if test["class_prior"]["spread"] is None else \
            (f"; because of it {test['relabelled']} of {test['rows']:,} labels "
             f"{'differs' if test['relabelled'] == 1 else 'differ'} (--class-prior none turns it "
             "off)")
        notes.append(f"Class prior of the test file: {test['class_prior']['why']}{effect}")
    if results.config.get("train_extra") and (extra := results.data.extra()) is not None:
        notes.append(f"The models learned from {results.competition.extra} as well, {len(extra):,} "
                     "rows (--train-extra), so it is no test of them")
    jobs = [done["job"] for member in members for done in member.done]
    if rounds := max((job.get("guesses", 0) for job in jobs), default=0):
        notes.append(f"Self-training, {rounds} round{'s' if rounds > 1 else ''}: each trained fold "
                     "was trained further on the test rows as well, labelled by the ensemble "
                     "(--self-train); held-out writers do not show what that gains on the test "
                     "file")
    return notes + [f"{job['model']}, fold {job['fold']} was trained a second time: {job['why']}"
                    for job in jobs if job["attempt"]]


# -- report.html -----------------------------------------------------------------------------------


def render_report(report: dict[str, Any], results: "RunResults") -> str:
    """The page: `report`'s numbers, and pictures of the rows that it lists, from `results.data`."""
    train, test = results.data.train().pixels, results.data.test().pixels

    def picture(pixels: np.ndarray) -> str:
        return data_uri(pixels, results.competition.shape)

    on_test = report["test"] or {"grid": [], "changes": {"steps": []}, "handwriting": None}
    hands = (on_test["handwriting"] or {"groups": []})["groups"]
    disputed = report["disagreement"] or {}
    pictures = {
        "mistakes": [picture(train[entry["row"]]) for entry in report["mistakes"]],
        "doubtful": [picture(train[entry["row"]]) for entry in report["doubtful"]],
        "samples": [[picture(train[row]) for row in entry["rows"]] for entry in report["samples"]],
        "grid": [picture(test[entry["index"]]) for entry in on_test["grid"]],
        "changed": [[picture(test[entry["index"]]) for entry in step["examples"]]
                    for step in on_test["changes"]["steps"]],
        "hands": [[[picture(test[entry["index"]]) for entry in group["examples"]]
                   for group in groups] for groups in hands],
        "disputed": [picture(test[entry["index"]])
                     for entry in disputed.get("most_disputed", [])]}

    # The rows of the charts
    cv = report["cv"]
    folds = [{"name": f"fold {k}", "value": value, "ci95": ci95} for k, value, ci95 in
             zip(cv["fold"], cv["fold_accuracy"], cv["fold_ci95"], strict=True)]
    writers = [{"name": str(entry["writer"]), "value": entry["accuracy"], "ci95": entry["ci95"],
                "note": f"{entry['mistakes']} of {entry['rows']} wrong"}
               for entry in metrics.hardest_first(report["per_writer"])]
    check = (report["leaderboard_estimate"] or {}).get("cross_check") or {"groups": []}
    groups = [{"name": ", ".join(map(str, group["writers"])), "value": group["estimate"],
               "ci95": [group["low"], group["high"]], "actual": group["actual"],
               "note": f"actual accuracy {verdict.percent(group['actual'])}"}
              for group in check["groups"]]

    # Positions in `mistakes` of the most confident ones of each of the hardest writers
    of_writer = {entry["writer"]: [i for i, mistake in enumerate(report["mistakes"])
                                   if mistake["writer"] == entry["writer"]][:OF_WRITER]
                 for entry in report["hardest_writers"]}
    shown = {**report["config"], **report["environment"]}
    if used := sorted({group["precision"] for group in report["trained_with"]} - {""}):
        shown["precision"] = used  # not the `auto` that was asked for
    settings = [(NAMES.get(name, name.replace("_", " ")), _in_words(value))
                for name, value in shown.items() if value is not None]
    class_names = report["competition"]["class_names"]
    return page.render(
        "report.html", report, class_names, report=report, figures=figures,
        labels=numerals.plain_names(class_names), own_labels=_own_labels(report),
        pictures=pictures, folds=folds, writers=writers, scale=_scale(report), groups=groups,
        settings=settings, sources=SOURCES, of_writer=of_writer, curve_rows=CURVE_ROWS,
        self_trained=results.before_self_training is not None,
        least_accuracy=verdict.percent(metrics.LEAST_ACCURACY, 0),
        against=verdict.against_baseline(report), weight=page.shades(report["confusion"]))


def _own_labels(report: dict[str, Any]) -> list[str]:
    """How each class is labelled in the competition's files, where its name does not say so."""
    about = report["competition"]
    names, labels = about["class_names"], list(map(str, about["labels"]))
    if labels in (names, list(map(str, range(len(names))))):
        return []
    return labels


def _scale(report: dict[str, Any]) -> list[dict[str, Any]]:
    """The scores to draw on one scale of accuracy, with the keys of their numbers."""
    ci95 = ("ci95.0", "ci95.1")
    blend = report["blend"]
    rows = [(f"this {'blend' if blend else 'run'}, held out", "cv", "oof_accuracy", ci95),
            ("leaderboard estimate", "leaderboard_estimate", "value", ("low", "high"))]
    if verdict.against_baseline(report):  # a run that is the baseline itself is shown once
        rows.append(("baseline", "baseline", "oof_accuracy", ci95))
    if report["dig_mnist"]:
        rows.append((report["dig_mnist"]["file"], "dig_mnist", "accuracy", ci95))
    rows += [(f"{run['name']} alone", f"blend.runs.{i}", "oof_accuracy", ci95)
             for i, run in enumerate(blend["runs"] if blend else [])]
    number = page.value_at
    return [{"name": name, "value": number(report, f"{block}.{value}"), "key": f"{block}.{value}",
             "ci95": [number(report, f"{block}.{bound}") for bound in bounds],
             "ci_keys": [f"{block}.{bound}" for bound in bounds],
             "kind": "" if block == "cv" else "other"}
            for name, block, value, bounds in rows
            if (number(report, block) or {}).get(value) is not None]


def _in_words(value: Any) -> str:
    """A setting as the table of settings shows it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{name} {version}" for name, version in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    return str(value)
