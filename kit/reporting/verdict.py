"""The verdict of a report in words: how good, how certain, better than the baseline, what next.

Whatever makes a score worth less (a sample, folds left out, a flattering split) is a banner above
it, so that a reader who reads no further is not misled.
"""

from typing import Any


def verdict(report: dict[str, Any]) -> dict[str, Any]:
    """`headline` (the result, plainly), `banners` (warnings), `points`, `next` (sentences)."""
    return {"headline": _headline(report), "banners": _banners(report), "points": _points(report),
            "next": _next(report)}


def percent(share: float, digits: int = 2) -> str:
    """0.98765 → '98.77 %', with a no-break space."""
    return f"{100 * share:.{digits}f}\u00a0%"


def points(difference: float) -> str:
    """0.0123 → '+1.23 points' (of a hundred)."""
    return f"{100 * difference:+.2f}\u00a0points".replace("-", "\u2212")


def p_value(p: float) -> str:
    return "p\u00a0<\u00a00.001" if p < 0.001 else f"p\u00a0=\u00a0{p:.3f}" if p < 0.1 else f"p\u00a0=\u00a0{p:.2f}"


def _headline(report: dict[str, Any]) -> str:
    """For somebody who has never heard of folds or intervals."""
    accuracy, guess = report["cv"]["oof_accuracy"], report["leaderboard_estimate"]
    of = 1_000 if round(1_000 * accuracy) < 1_000 else 10_000
    kind = "by writers it had never seen" if report["cv"]["keeps_writers_apart"] else "it had not been trained on"
    said = f"Of {of:,} digits {kind}, this run reads about {round(of * accuracy):,} right"
    against = standing(report)
    if against:
        said += f"; the baseline reads {round(of * report['baseline']['oof_accuracy']):,}"
        said += ", which is no clear difference" * (against == "same")
    said += "."
    if report["data"]["is_sample"]:
        return f"It works. {said} These are drawn digits: a score that counts needs the real data."
    if guess and guess.get("value") is not None:
        said += (f" Expect about {percent(guess['value'], 1)} on the leaderboard "
                 f"({percent(guess['low'], 1)} to {percent(guess['high'], 1)}).")
    elif guess:
        said += " That is hardly trained, so there is no estimate of its score on the leaderboard."
    return said


def _banners(report: dict[str, Any]) -> list[str]:
    cv, banners = report["cv"], []
    if report["data"]["is_sample"]:
        banners.append("Drawn sample: these scores say nothing about the competition. "
                       "The digits were drawn by the kit, not written by people.")
    if not report["complete"]:
        rows = (f", so {cv['rows_missing']:,} of {report['data']['rows_used']:,} training rows have no score"
                if cv["rows_missing"] else "")
        banners.append(f"Not complete: the time budget left trainings out{rows}. "
                       "More time, and --resume, finish the run.")
    if not cv["keeps_writers_apart"]:
        cure = ("--split writer keeps them apart." if report["per_writer"] else
                "The file does not show who wrote what, so they cannot be kept apart.")
        banners.append("Flattering split: the same writers may stand on both sides of a fold, so the score is higher "
                       f"than new writers will allow. {cure}")
    return banners


def _points(report: dict[str, Any]) -> list[str]:
    cv, extra = report["cv"], report["dig_mnist"]
    low, high = cv["ci95"]
    sentences = [f"{percent(cv['oof_accuracy'])} of {cv['rows']:,} training digits were read right by models that had "
                 f"not seen them; over other {cv['ci95_over']} like these, between {percent(low)} and {percent(high)}.",
                 _against_baseline(report), _leaderboard(report)]
    if extra:
        sentences.append(f"On {extra['file']}, other writers on other paper: {percent(extra['accuracy'])}. "
                         "Nothing is chosen by it.")
    return [sentence for sentence in sentences if sentence]


def _against_baseline(report: dict[str, Any]) -> str:
    base = report["baseline"]
    if base is None:
        return "No fold of the baseline was trained, so there is nothing to compare with."
    if all(member["model"] == base["model"] for member in report["members"]):
        return f"This run is the baseline, {base['model']}, itself."
    test, over = base["paired"]["writers"] or base["paired"]["rows"], "writers" if base["paired"]["writers"] else "rows"
    low, high = test["ci95"]
    word = {"better": "Better than", "worse": "Worse than"}.get(standing(report) or "", "Not shown to differ from")
    return (f"{word} the baseline {base['model']}: {points(test['difference'])} (95\u00a0% interval over {over} "
            f"{points(low)} to {points(high)}, {p_value(test['p'])}).")


def standing(report: dict[str, Any]) -> str | None:
    """Against the baseline: `better`, `worse` or `same` (no shown difference); None without one."""
    base = report["baseline"]
    if base is None or all(member["model"] == base["model"] for member in report["members"]):
        return None
    test = base["paired"]["writers"] or base["paired"]["rows"]
    return ("better" if test["difference"] > 0 else "worse") if is_shown(test) else "same"


def is_shown(test: dict[str, Any]) -> bool:
    """Whether a paired test shows a difference: p below .05, and its interval on one side of zero."""
    low, high = test["ci95"]
    return bool(test["p"] < 0.05 and low * high > 0)


def _leaderboard(report: dict[str, Any]) -> str:
    guess = report["leaderboard_estimate"]
    if not guess or guess.get("value") is None:
        return (guess or {}).get("method") or "There is no estimate of the leaderboard score for this run."
    subject = ("On the sample's own test file it would be" if report["data"]["is_sample"] else
               "The leaderboard will say")
    check = guess.get("cross_check") or {}
    held = f" The same method held for {check['held']} of {check['of']} groups of writers." if check.get("of") else ""
    return (f"{subject} about {percent(guess['value'], 1)}, "
            f"between {percent(guess['low'], 1)} and {percent(guess['high'], 1)}.{held}")


def _next(report: dict[str, Any]) -> list[str]:
    """Advice: at most four sentences, the most promising first; each names the number behind it."""
    cv, data = report["cv"], report["data"]
    ideas = []
    if data["is_sample"]:
        ideas.append("Get the real data: kit download --from kaggle (or --from a zip that you have), "
                     "then run the same command again.")
    if not report["complete"]:
        ideas.append("Finish the folds that are missing: the same command with --resume and a longer --time-budget.")
    if not cv["keeps_writers_apart"] and report["per_writer"]:
        ideas.append("Measure honestly: --split writer keeps each writer on one side.")
    ideas += _from_curves(report) + _from_members(report) + _from_mistakes(report)
    return ideas[:4]


def _from_curves(report: dict[str, Any]) -> list[str]:
    ours = {member["model"] for member in report["members"] if not member["is_baseline"]}
    last = [(curve["accuracy"][-1], curve["val_accuracy"][-1]) for curve in report["learning_curves"]
            if curve["model"] in ours]
    gaps = [train - val for train, val in last if train is not None and val is not None]
    if not gaps:
        return []
    gap = sum(gaps) / len(gaps)
    if gap > 0.005:
        return [f"The models know their training digits better than new ones (by {points(gap)} at the end): more "
                "augmentation (cnn_aug) or a longer decay should help."]
    if gap < 0:
        return ["The models do no better on their own training digits than on new ones: "
                "they may have room for more epochs or a larger network."]
    return []


def _from_members(report: dict[str, Any]) -> list[str]:
    if sum(not member["is_baseline"] for member in report["members"]) > 1:
        return []
    return ["This run has one recipe with one seed: --seeds 3, or a second --model, makes an ensemble of it."]


def _from_mistakes(report: dict[str, Any]) -> list[str]:
    matrix, names = report["confusion"], range(len(report["confusion"]))
    rows, true, read = max((matrix[i][j], i, j) for i in names for j in names if i != j)
    ideas = []
    if rows and report["cv"]["mistakes"] >= 20:
        ideas.append(f"Look at the {true}s that are read as {read}: {rows:,} of {report['cv']['mistakes']:,} mistakes.")
    worst = report["hardest_writers"]
    if worst and report["cv"]["mistakes"]:
        share = sum(entry["mistakes"] for entry in worst) / report["cv"]["mistakes"]
        ideas.append(f"The {len(worst)} hardest writers make {percent(share, 0)} of the mistakes: what helps them, "
                     "helps on the test file, whose writers are harder still.")
    return ideas
