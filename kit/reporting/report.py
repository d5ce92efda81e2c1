"""report.json with every number of a run, and report.html, a self-contained page that shows them.

The page looks its numbers up in the dict by name, so the two cannot differ.
"""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from kit.reporting import figures, metrics, page, verdict
from kit.reporting.estimate import estimate
from kit.reporting.numerals import is_kannada
from kit.reporting.pictures import data_uri
from kit.training import models
from kit.training.models import BASELINE

if TYPE_CHECKING:  # reading a submission's report needs no pandas
    from kit.ensembling.blend import Member, RunResults

MAX_MISTAKES = 600  # rows listed in report.json and pictured on the page: some 200 KB of the page's 2 MB
PER_CELL = 6  # mistakes kept for each cell of the confusion matrix, whatever their confidence
DOUBTFUL = 8  # right answers with the least confidence, of each class
SAMPLES = 8  # training digits, of each class
GRID = 36  # test digits, 6 by 6
DISPUTED = 24  # test digits on which the members disagree most
SOURCES = {"kaggle": "Downloaded from Kaggle", "keras": "From keras.datasets", "path": "From files on this machine",
           "sample": "Drawn by the kit"}
NAMES = {"n_folds": "folds", "n_seeds": "seeds", "tta": "test-time views", "cpu_cores": "CPU cores",
         "cpu_bfloat16": "CPU computes bfloat16", "gpus": "GPUs"}
BESIDE_CONFIG = ("command", "environment", "parameters")  # in `results.config`, but no field of the RunConfig


# -- report.json ----------------------------------------------------------------------------------------------------


def build_report(results: "RunResults") -> dict[str, Any]:
    """Every number of the report: plain numbers, strings, lists and dicts, none of them NaN.

    Rows that no fold has scored (a run cut short by its budget) are left out of all scores and counted in
    `cv.rows_missing`. KitError where the data cannot be read, or where not a single row was scored.
    """
    from sklearn.metrics import confusion_matrix

    scored = np.isfinite(results.oof).all(axis=1)
    probs, folds = results.oof[scored], results.folds
    labels, fold = folds.labels[scored].astype(np.int64), folds.fold[scored]
    writers = None if folds.writers is None else folds.writers[scored]
    predicted = probs.argmax(axis=1)
    matrix = confusion_matrix(labels, predicted, labels=range(results.competition.n_classes))
    by_writer = [] if writers is None else metrics.per_writer(predicted == labels, writers, fold)
    report = {
        "format": 1, "run": results.name, "complete": bool(results.complete),
        "competition": {"slug": results.competition.slug, "title": results.competition.title,
                        "url": results.competition.url, "class_names": list(results.competition.class_names)},
        "data": _data(results),
        "cv": {"split": folds.split, "keeps_writers_apart": bool(folds.keeps_writers_apart),
               "n_folds": int(results.config.get("n_folds", len(np.unique(folds.fold)))),
               **metrics.cv_scores(probs, labels, fold, writers),
               "rows_missing": int((~scored).sum())},
        "baseline": _baseline(results, scored),
        "dig_mnist": _extra(results),
        "leaderboard_estimate": estimate(results),
        "members": [_member(results, member) for member in (*results.members, results.baseline) if member],
        "per_class": metrics.per_class(matrix), "confusion": matrix.tolist(),
        "per_writer": by_writer, "hardest_writers": metrics.hardest(by_writer),
        "calibration": metrics.calibration(probs, labels),
        "mistakes": _mistakes(folds.rows[scored], labels, probs, writers),
        "doubtful": _doubtful(folds.rows[scored], labels, probs),
        "samples": _samples(folds.rows[scored], labels),
        "test": _test(results), "disagreement": _disagreement(results),
        "learning_curves": [curve for member in (*results.members, results.baseline) if member
                            for curve in _curves(member)],
        "timing": {**results.timing, "images_per_second": _pace(results)}, "environment": results.config["environment"],
        "config": {name: value for name, value in results.config.items() if name not in BESIDE_CONFIG},
        "command": results.config["command"], "notes": _notes(results),
    }
    return {**report, "verdict": verdict.verdict(report)}


def _data(results: "RunResults") -> dict[str, Any]:
    data, competition = results.data, results.competition
    tables = {competition.train: data.train(), competition.test: data.test()}
    extra = data.extra()
    if extra is not None:
        tables[str(competition.extra)] = extra
    return {"source": data.source, "is_sample": bool(data.is_sample),
            "sha256": {name: table.sha256 for name, table in tables.items()},
            "rows": {name: len(table.pixels) for name, table in tables.items()},
            "rows_used": len(results.folds.rows), "per_class": np.bincount(
                results.folds.labels, minlength=competition.n_classes).tolist()}


def _baseline(results: "RunResults", scored: np.ndarray) -> dict[str, Any] | None:
    """The baseline's scores on the rows that both have scored, and the paired tests: run minus baseline."""
    folds, base = results.folds, _baseline_member(results)
    if base is None:
        return None
    both = scored & np.isfinite(base.oof).all(axis=1)
    if not both.any():
        return None
    writers, labels = None if folds.writers is None else folds.writers[both], folds.labels[both]
    ours, theirs = results.oof[both].argmax(axis=1) == labels, base.oof[both].argmax(axis=1) == labels
    scores = metrics.cv_scores(base.oof[both], labels, folds.fold[both], writers)
    return {"model": base.model, **scores, "paired": metrics.paired(ours, theirs, writers)}


def _baseline_member(results: "RunResults") -> "Member | None":
    """The baseline trained beside the run, or the run's own member that is it."""
    own = [member for member in results.members if member.model == BASELINE]
    return results.baseline or next(iter(own), None)


def _extra(results: "RunResults") -> dict[str, Any] | None:
    """Accuracy on the labelled out-of-domain file; null without one. Nothing is chosen by it."""
    table = results.data.extra()
    if results.extra is None or table is None:
        return None
    right = results.extra.argmax(axis=1) == table.labels
    return {"file": results.competition.extra, "rows": len(right), "accuracy": float(right.mean()),
            "ci95": list(metrics.accuracy_interval(right))}


def _member(results: "RunResults", member: "Member") -> dict[str, Any]:
    """One model of one seed: what it scores alone, how large it is and what its folds cost in sum."""
    scored = np.isfinite(member.oof).all(axis=1)
    right = member.oof[scored].argmax(axis=1) == results.folds.labels[scored]
    return {"model": member.model, "seed": int(member.seed), "is_baseline": member is results.baseline,
            "folds": len(member.done), "rows": len(right), "oof_accuracy": float(right.mean()),
            "parameters": member.done[0]["parameters"],
            "mflops_per_image": models.RECIPES[member.model].mflops if member.model in models.RECIPES else None,
            "epochs": len(member.history[0]),
            "seconds_per_epoch": float(np.mean([line["seconds"].mean() for line in member.history])),
            "train_seconds": sum(done["train_seconds"] for done in member.done),
            "images_per_second": float(np.median([done["images_per_second"] for done in member.done]))}


def _pace(results: "RunResults") -> dict[str, float]:
    """Images a second of training, for each model: the median over its folds and seeds."""
    folds: dict[str, list[float]] = {}
    for member in (*results.members, results.baseline):
        if member:
            folds.setdefault(member.model, []).extend(done["images_per_second"] for done in member.done)
    return {model: float(np.median(pace)) for model, pace in folds.items()}


def _curves(member: "Member") -> list[dict[str, Any]]:
    columns = ("epoch", "loss", "val_loss", "accuracy", "val_accuracy")
    return [{"model": member.model, "seed": int(member.seed), "fold": int(done["job"]["fold"]),
             **{name: [round(float(value), 6) for value in history[name]] for name in columns}}
            for done, history in zip(member.done, member.history, strict=True)]


def _notes(results: "RunResults") -> list[str]:
    tables = (results.data.train(), results.data.test(), results.data.extra())
    notes = [note for table in tables if table is not None for note in table.notes]
    if results.class_prior is not None and results.test is not None:
        changed = int((results.submitted.argmax(axis=1) != results.test.argmax(axis=1)).sum())
        effect = "" if results.class_prior.spread is None else \
            f"; {changed} of {len(results.test):,} rows have another label for it (--class-prior none leaves that out)"
        notes.append(f"Class prior of the test file: {results.class_prior.why}{effect}")
    rounds = max(done["job"].get("guesses", 0) for member in results.members for done in member.done)
    if rounds:
        notes.append(f"Self-training, {rounds} round{'s' if rounds > 1 else ''}: each trained fold went on with the "
                     "test rows as well, labelled as the ensemble guessed them (--self-train); what that gains on the "
                     "test file, held-out writers do not show")
    members = [*results.members, *([results.baseline] if results.baseline else [])]
    jobs = [fold["job"] for member in members for fold in member.done]
    return notes + [f"{job['model']}, fold {job['fold']} was trained a second time: {job['why']}"
                    for job in jobs if job["attempt"]]


# -- which rows are pictured ----------------------------------------------------------------------------------------


def _mistakes(rows: np.ndarray, labels: np.ndarray, probs: np.ndarray, writers: np.ndarray | None) -> list[dict]:
    """MAX_MISTAKES, the most confident first; PER_CELL of each cell of the matrix in any case."""
    predicted, confidence = probs.argmax(axis=1), probs.max(axis=1)
    wrong = np.flatnonzero(predicted != labels)
    wrong = wrong[np.argsort(-confidence[wrong], kind="stable")]
    seen: dict[tuple[int, int], int] = {}
    rank = []
    for i in wrong:
        cell = int(labels[i]), int(predicted[i])
        seen[cell] = seen.get(cell, 0) + 1
        rank.append(seen[cell])
    urgency = np.where(np.array(rank) <= PER_CELL, -1, np.arange(len(wrong)))
    kept = np.sort(np.argsort(urgency, kind="stable")[:MAX_MISTAKES])
    return [{"row": int(rows[i]), "true": int(labels[i]), "predicted": int(predicted[i]),
             "confidence": round(float(confidence[i]), 4), "p_true": round(float(probs[i, labels[i]]), 4),
             "writer": None if writers is None else int(writers[i])} for i in wrong[kept]]


def _doubtful(rows: np.ndarray, labels: np.ndarray, probs: np.ndarray) -> list[dict]:
    """Of each class, the right predictions with the least confidence."""
    predicted, confidence = probs.argmax(axis=1), probs.max(axis=1)
    chosen = [i for k in np.unique(labels) for i in
              sorted(np.flatnonzero((labels == k) & (predicted == k)), key=lambda i: confidence[i])[:DOUBTFUL]]
    return [{"row": int(rows[i]), "true": int(labels[i]), "confidence": round(float(confidence[i]), 4)} for i in chosen]


def _samples(rows: np.ndarray, labels: np.ndarray) -> list[dict]:
    """Training digits of each class, the same ones for the same rows."""
    rng = np.random.default_rng(0)
    return [{"class": int(k), "rows": np.sort(rng.permutation(rows[labels == k])[:SAMPLES]).tolist()}
            for k in np.unique(labels)]


def _test(results: "RunResults") -> dict[str, Any] | None:
    """Class balance of the labels handed in, and the first rows of the test file; null where none were predicted."""
    if results.test is None or results.class_prior is None:
        return None
    predicted = results.submitted.argmax(axis=1)
    confidence = results.test[np.arange(len(predicted)), predicted]
    ids = results.data.test().ids
    balance = metrics.class_balance(predicted, results.folds.labels, results.competition.n_classes)
    return {"rows": len(predicted), "class_prior": asdict(results.class_prior),
            "relabelled": int((predicted != results.test.argmax(axis=1)).sum()),
            "mean_confidence": float(confidence.mean()), "balance": balance,
            "grid": [{"index": i, "id": ids[i].item(), "predicted": int(predicted[i]),
                      "confidence": round(float(confidence[i]), 4)} for i in range(min(GRID, len(predicted)))]}


def _disagreement(results: "RunResults") -> dict[str, Any] | None:
    """The test rows on which the models (of all members and folds) disagree; null for one model."""
    votes = np.array([probs.argmax(axis=1) for member in results.members for probs in member.test])
    if results.test is None or len(votes) < 2:
        return None
    share, predicted = metrics.agreement(votes), results.submitted.argmax(axis=1)
    parted = np.flatnonzero(share < 1)
    parted = parted[np.argsort(share[parted], kind="stable")]
    ids = results.data.test().ids
    return {"models": len(votes), "rows": len(share), "rows_disputed": len(parted),
            "mean_agreement": float(share.mean()), "most_disputed": [
                {"index": int(i), "id": ids[i].item(), "predicted": int(predicted[i]), "votes": _votes(votes[:, i])}
                for i in parted[:DISPUTED]]}


def _votes(votes: np.ndarray) -> list[dict[str, int]]:
    counts = np.bincount(votes)
    return [{"class": int(k), "models": int(counts[k])} for k in np.argsort(-counts, kind="stable") if counts[k]]


# -- report.html ----------------------------------------------------------------------------------------------------


def render_report(report: dict[str, Any], results: "RunResults") -> str:
    """The page: `report`'s numbers, and the pictures of the rows that it lists, from the data of `results`."""
    names = [name if not is_kannada(name) else str(k) for k, name in enumerate(report["competition"]["class_names"])]
    folds = [{"name": f"fold {k}", "value": value, "ci95": ci95} for k, value, ci95 in
             zip(*(report["cv"][key] for key in ("fold", "fold_accuracy", "fold_ci95")), strict=True)]
    writers = [{"name": str(entry["writer"]), "value": entry["accuracy"], "ci95": entry["ci95"],
                "note": f"{entry['mistakes']} of {entry['rows']} wrong"}
               for entry in metrics.hardest(report["per_writer"], len(report["per_writer"]))]
    return page.render(
        "report.html", report, report["competition"]["class_names"], report=report, figures=figures, labels=names,
        pictures=_pictures(report, results), folds=folds, writers=writers, scale=_scale(report),
        groups=_groups(report), settings=_settings(report), sources=SOURCES, of_writer=_of_writer(report),
        least_accuracy=verdict.percent(metrics.LEAST_ACCURACY, 0),
        against=verdict.standing(report), weight=page.shades(report["confusion"]))


def _pictures(report: dict[str, Any], results: "RunResults") -> dict[str, Any]:
    """Data URIs in the order of the report's lists."""
    train, test, shape = results.data.train().pixels, results.data.test().pixels, results.competition.shape
    on_test, parted = report["test"] or {"grid": []}, report["disagreement"] or {"most_disputed": []}
    return {**{name: [data_uri(train[entry["row"]], shape) for entry in report[name]]
               for name in ("mistakes", "doubtful")},
            "samples": [[data_uri(train[row], shape) for row in entry["rows"]] for entry in report["samples"]],
            "grid": [data_uri(test[entry["index"]], shape) for entry in on_test["grid"]],
            "disputed": [data_uri(test[entry["index"]], shape) for entry in parted["most_disputed"]]}


def _scale(report: dict[str, Any]) -> list[dict[str, Any]]:
    """The scores to draw on one scale of accuracy, with the keys of their numbers."""
    rows = [("this run, held out", "cv", "oof_accuracy", ("ci95.0", "ci95.1")),
            ("leaderboard estimate", "leaderboard_estimate", "value", ("low", "high")),
            ("baseline", "baseline", "oof_accuracy", ("ci95.0", "ci95.1")),
            (report["dig_mnist"] and report["dig_mnist"]["file"], "dig_mnist", "accuracy", ("ci95.0", "ci95.1"))]
    if not verdict.standing(report):  # the run is the baseline: once is enough
        rows = [row for row in rows if row[1] != "baseline"]
    number = page.value_at
    return [{"name": name, "value": number(report, f"{block}.{value}"), "key": f"{block}.{value}",
             "ci95": [number(report, f"{block}.{bound}") for bound in bounds],
             "ci_keys": [f"{block}.{bound}" for bound in bounds], "kind": "" if block == "cv" else "other"}
            for name, block, value, bounds in rows if report[block] and report[block].get(value) is not None]


def _groups(report: dict[str, Any]) -> list[dict[str, Any]]:
    """The groups of writers that the leaderboard estimate was checked on: estimate, interval, and what came true."""
    check = (report["leaderboard_estimate"] or {}).get("cross_check") or {"groups": []}
    return [{"name": ", ".join(map(str, group["writers"])), "value": group["estimate"], "actual": group["actual"],
             "ci95": [group["low"], group["high"]], "note": f"came true: {verdict.percent(group['actual'])}"}
            for group in check["groups"]]


def _settings(report: dict[str, Any]) -> list[tuple[str, str]]:
    """Config and environment as rows of a table; settings left to the recipe are not repeated."""
    return [(NAMES.get(name, name.replace("_", " ")), _setting(value)) for block in ("config", "environment")
            for name, value in report[block].items() if value is not None]


def _setting(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{name} {version}" for name, version in value.items())
    return (", ".join(map(str, value)) or "none") if isinstance(value, list | tuple) else str(value)


def _of_writer(report: dict[str, Any], at_most: int = 8) -> dict[int, list[int]]:
    """Positions in `mistakes` of the most confident ones of each of the hardest writers."""
    found: dict[int, list[int]] = {entry["writer"]: [] for entry in report["hardest_writers"]}
    for index, mistake in enumerate(report["mistakes"]):
        if len(found.get(mistake["writer"], range(at_most))) < at_most:
            found[mistake["writer"]].append(index)
    return found
