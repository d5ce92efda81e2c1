"""Say in words how good a run is, how sure that is, and what to try next.

Whatever makes a score worth less (a sample, untrained folds, a flattering split) is a banner above
it, so that a reader who reads no further is not misled. `percent`, `points` and `p_value` write the
numbers of all pages and terminals.
"""

from typing import Any

from kit.reporting.numerals import plain_names
from kit.training import models


def percent(share: float, digits: int = 2) -> str:
    """0.98765 → '98.77 %', with a no-break space."""
    return f"{100 * share:.{digits}f}\u00a0%"


def points(difference: float) -> str:
    """0.0123 → '+1.23 points' (of a hundred)."""
    return f"{100 * difference:+.2f}\u00a0points".replace("-", "\u2212")


def p_value(p: float) -> str:
    """0.0421 → 'p = 0.042'; never as small as zero."""
    if p < 0.001:
        return "p\u00a0<\u00a00.001"
    return f"p\u00a0=\u00a0{p:.3f}" if p < 0.1 else f"p\u00a0=\u00a0{p:.2f}"


def paired_verdict(paired: dict[str, Any]) -> tuple[str, str]:
    """Whether A is `better` or `worse` than B or the `same`, and the numbers in words.

    `same` means that no difference is shown: p is .05 or more, or the interval contains zero. The
    test over writers decides, or the one over rows where no writers are known. paired: the result
    of `metrics.paired_tests`.
    """
    test, over = (paired["writers"], "writers") if paired["writers"] else (paired["rows"], "rows")
    low, high = test["ci95"]
    numbers = (f"{points(test['difference'])} (95\u00a0% interval over {over} {points(low)} to "
               f"{points(high)}, {p_value(test['p'])})")
    if test["p"] < 0.05 and low * high > 0:
        return "better" if test["difference"] > 0 else "worse", numbers
    return "same", numbers


def against_baseline(report: dict[str, Any]) -> str | None:
    """The word of `paired_verdict`; None if the run is the baseline itself, or there is none."""
    base = report["baseline"]
    if base is None or all(member["model"] == base["model"] for member in report["members"]):
        return None
    return paired_verdict(base["paired"])[0]


def verdict(report: dict[str, Any]) -> dict[str, Any]:
    """`headline` (the result, plainly), `banners` (warnings), `points`, `next` (sentences)."""
    return {"headline": _headline(report), "banners": _banners(report), "points": _findings(report),
            "next": _next(report)}


def _headline(report: dict[str, Any]) -> str:
    """For somebody who has never heard of folds or intervals."""
    accuracy, estimate = report["cv"]["oof_accuracy"], report["leaderboard_estimate"]
    of = 1_000 if round(1_000 * accuracy) < 1_000 else 10_000  # nearly perfect is not perfect
    kind = ("by harder writers than any it was trained on" if report["cv"]["split"] == "harder" else
            "by writers it has never seen" if report["cv"]["keeps_writers_apart"] else
            "it was not trained on")
    blend, items = report["blend"], report["competition"]["items"]
    words = (f"Of {of:,} {items} {kind}, this {'blend' if blend else 'run'} reads about "
             f"{round(of * accuracy):,} correctly")
    if blend:
        best = next(run for run in blend["runs"] if run["name"] == blend["best"])
        words += (f"; {best['name']}, the best run in it, reads "
                  f"{round(of * best['oof_accuracy']):,}")
        words += ", which is no clear difference" * (paired_verdict(blend["paired"])[0] == "same")
    if against := against_baseline(report):
        words += f"; the baseline reads {round(of * report['baseline']['oof_accuracy']):,}"
        words += ", which is no clear difference" * (against == "same")
    words += "."
    if report["data"]["is_sample"]:
        return f"It works. {words} The digits were drawn: a score that counts needs real data."
    if estimate and estimate["value"] is not None:
        words += (f" Expect about {percent(estimate['value'], 1)} on the leaderboard "
                  f"({percent(estimate['low'], 1)} to {percent(estimate['high'], 1)}).")
    elif estimate and not blend:
        words += " The run is hardly trained, so there is no estimate of its leaderboard score."
    return words


def _banners(report: dict[str, Any]) -> list[str]:
    cv, banners = report["cv"], []
    if report["data"]["is_sample"]:
        banners.append("Drawn sample: these scores say nothing about the competition. "
                       "The digits were drawn by the kit, not written by people.")
    if not report["complete"]:
        rows = (f", so {cv['rows_missing']:,} of {report['data']['rows_used']:,} training rows "
                "have no score" if cv["rows_missing"] else "")
        if _ended_by_comparison(report):
            banners.append(f"Not complete: compared with {report['against']['run']}, and trained "
                           f"no further than that needs{rows}. To finish the run, --resume.")
        else:
            what = "folds or rounds of self-training" if report["config"].get("self_train") \
                else "folds"
            banners.append(f"Not complete: the time budget left {what} untrained{rows}. "
                           "To finish the run, give it more time and --resume.")
    if not cv["keeps_writers_apart"]:
        items = report["competition"]["items"]
        banners.append(
            f"Flattering split: the models may have been trained on {items} of the very writers "
            "that they are scored on, so the score is higher than it would be on new writers. "
            "--split writer keeps them apart." if report["per_writer"] else
            f"Flattering split: the file does not show which {items} come from the same person. "
            "Where the test file is by other people, the score is higher than it will be there.")
    return banners


def _ended_by_comparison(report: dict[str, Any]) -> bool:
    """Whether folds are missing since `kit cv --against` was decided, not for want of time."""
    against = report["against"]
    return against is not None and against["outcome"] != "undecided" \
        and against["folds"] == len(report["cv"]["fold"])


def _findings(report: dict[str, Any]) -> list[str]:
    """The findings, a sentence or two each: held-out score, baseline, leaderboard, Dig-MNIST."""
    cv, base, estimate = report["cv"], report["baseline"], report["leaderboard_estimate"]
    low, high = cv["ci95"]
    sentences = [f"{percent(cv['oof_accuracy'])} of {cv['rows']:,} training "
                 f"{report['competition']['items']} were read correctly by models that had not "
                 f"seen them. On other {cv['ci95_over']} like these, expect {percent(low)} to "
                 f"{percent(high)}."]
    word = {"better": "Better than", "worse": "Worse than", "same": "Not shown to differ from"}
    if blend := report["blend"]:
        runs = ", ".join(f"{run['name']} {percent(run['oof_accuracy'])} (weight "
                         f"{run['weight']:.2f})" for run in blend["runs"])
        stands, numbers = paired_verdict(blend["paired"])
        sentences.append(f"The blended runs alone: {runs}. {word[stands]} the best of them, "
                         f"{blend['best']}: {numbers}.")
        if blend["fit"]:
            sentences.append(_fitted_weights(blend["fit"]))
    elif base is None:
        sentences.append("No fold of the baseline was trained, so there is nothing to compare.")
    elif against := against_baseline(report):
        numbers = paired_verdict(base["paired"])[1]
        sentences.append(f"{word[against]} the baseline {base['model']}: {numbers}.")
    else:
        sentences.append(f"This run is the baseline, {base['model']}, itself.")

    if estimate is None:
        sentences.append("There is no estimate of the leaderboard score for this run.")
    elif estimate["value"] is None:
        sentences.append(estimate["method"])
    else:
        place = ("the sample's own test file" if report["data"]["is_sample"] else
                 "the leaderboard")
        check = estimate["cross_check"]
        held = (" The same method was right for "
                f"{check['held']} of {check['of']} groups of training writers."
                if check and check["of"] else "")
        sentences.append(f"On {place}, expect about {percent(estimate['value'], 1)} "
                         f"({percent(estimate['low'], 1)} to {percent(estimate['high'], 1)})."
                         f"{held}")

    if report["against"]:
        sentences.append(f"Fold by fold, {report['against']['verdict']}.")
    if extra := report["dig_mnist"]:
        sentences.append(f"On {extra['file']}, which has other writers and other paper: "
                         f"{percent(extra['accuracy'])}. It is not used to choose anything.")
    return sentences


def _fitted_weights(fit: dict[str, Any]) -> str:
    """What the fitted weights of a blend gained over equal ones, where anything."""
    saved = fit["log_loss_saved"]
    gains = ["more right answers"] * (paired_verdict(fit["paired"])[0] == "better")
    if saved and paired_verdict({"writers": saved})[0] == "better":
        gains.append("a lower log loss")
    gained = f"brought {' and '.join(gains)} than equal weights" if gains else \
        "gained nothing that shows over equal weights, so --weights equal is as good"
    return (f"Weights fitted to some {fit['over']} and tried on the others {gained}: "
            f"{percent(fit['accuracy'])} against {percent(fit['equal_accuracy'])}, log loss "
            f"{fit['log_loss']:.4f} against {fit['equal_log_loss']:.4f}.")


def _next(report: dict[str, Any]) -> list[str]:
    """Advice, at most four pieces, the most promising first; each names the number behind it."""
    cv, ideas, items = report["cv"], [], report["competition"]["items"]
    if report["data"]["is_sample"]:
        ideas.append("Get the real data: kit download --from kaggle (or --from a zip that you "
                     "have), then run the same command again.")
    if not report["complete"] and not _ended_by_comparison(report):
        ideas.append("Finish what is missing: the same command with --resume and a longer "
                     "--time-budget.")
    if not cv["keeps_writers_apart"] and report["per_writer"]:
        ideas.append("Measure honestly: --split writer keeps each writer on one side.")

    # From the learning curves: do the models overfit?
    own = {member["model"] for member in report["members"] if not member["is_baseline"]}
    gaps = [curve["accuracy"][-1] - curve["val_accuracy"][-1]
            for curve in report["learning_curves"] if curve["model"] in own]
    gap = sum(gaps) / len(gaps) if gaps else 0.0  # a blend has no curves of its own
    if gap > 0.005:
        ideas.append(f"The models know their training {items} better than new ones (by "
                     f"{points(gap)} at the end): more augmentation (cnn_aug) or a longer decay "
                     "should help.")
    elif gap < 0 and (longer := _cut_short(report)):
        ideas.append(f"In training (on augmented {items}, or with dropout) the models do no better "
                     f"than on new {items}, so more epochs may help: {longer}.")

    if sum(not member["is_baseline"] for member in report["members"]) == 1:
        ideas.append("This run has one recipe with one seed: --seeds 3, or a second --model, makes "
                     "an ensemble of it.")

    matrix, classes = report["confusion"], range(len(report["confusion"]))
    rows, true, read = max((matrix[i][j], i, j) for i in classes for j in classes if i != j)
    if rows and cv["mistakes"] >= 20:
        names = plain_names(report["competition"]["class_names"])
        these = f"{names[true]}s" if len(names[true]) == 1 else f"{items} of {names[true]}"
        ideas.append(f"Look at the {these} that are read as {names[read]}: {rows:,} of "
                     f"{cv['mistakes']:,} mistakes.")
    worst = report["hardest_writers"]
    if worst and cv["mistakes"]:
        share = sum(entry["mistakes"] for entry in worst) / cv["mistakes"]
        ideas.append(f"The {len(worst)} hardest writers make {percent(share, 0)} of the mistakes. "
                     "What helps on them should help on the test file, whose writers are even "
                     "harder.")
    return ideas[:4]


def _cut_short(report: dict[str, Any]) -> str:
    """The run's models with fewer epochs than they have by themselves, in words; else nothing.

    From there on, more epochs or a larger network gained nothing on the hardest writers
    (docs/lab-log.md, 2026-11-29).
    """
    cut = {member["model"]: models.RECIPES[member["model"]].epochs for member in report["members"]
           if not member["is_baseline"] and member["model"] in models.RECIPES
           and member["epochs"] < models.RECIPES[member["model"]].epochs}
    return " and ".join(f"{model} has {epochs} by itself" for model, epochs in cut.items())
