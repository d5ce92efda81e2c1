"""What a report says of a blend: its runs beside it, the fit of its weights, and its estimate.

The comparison that counts is with the best of its runs alone. That one is chosen by its score on
the same rows, which flatters it a little, so the test is rather too strict than too lenient.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from kit.ensembling.blend_runs import OOF, Blend, as_one_run
from kit.reporting import metrics
from kit.reporting.verdict import percent, points

if TYPE_CHECKING:
    from kit.ensembling.blend import RunResults

# Standard deviation of what a blend really gained over one of its runs around what `estimate`
# expects, on eight hard writers (docs/lab-log.md, 2026-11-29).
GAIN_SPREAD = 0.0015
NO_GAIN_ROWS = 20  # rows without gain, added to those where a run and the blend differ


# -- the estimate of the leaderboard score ---------------------------------------------------------


def estimate(results: "RunResults", blend: Blend) -> dict[str, Any] | None:
    """As `kit.reporting.estimate`, from the estimates of the blend's runs; None without test probs.

    A run's estimate is that of its own report. What the blend gains over it shows in how often the
    two differ on the test file, and in how often the blend was right where they differed, on
    held-out writers. The confidence of the blend's own test probs is not used: they are means over
    each run's folds, and doubt more than the single models whose OOF confidence says how errors
    grow with doubts. By them `cnn-5fold` would get .965, where its folds say .978.
    """
    if results.test is None:
        return None
    numbers = {"single_model": None, "cross_check": None,
               "oof_accuracy": float(_right(results.oof, results).mean())}
    guesses = [each.run.report["leaderboard_estimate"] or {} for each in blend.runs]
    lacking = [each.name for each, guess in zip(blend.runs, guesses, strict=True)
               if guess.get("value") is None]
    if lacking:
        return {"value": None, "low": None, "high": None, **numbers,
                "method": "There is no estimate of the leaderboard score: it would come from those "
                          f"of the blended runs, and {' and '.join(lacking)} "
                          f"{'has' if len(lacking) == 1 else 'have'} none."}
    read, gains, widths = results.oof.argmax(1), [], []
    for each, guess in zip(blend.runs, guesses, strict=True):
        on_test = (each.test.argmax(1) != results.test.argmax(1)).mean()
        gains.append(expected_gain(read, each.oof.argmax(1), results.folds.labels, on_test))
        widths.append(np.hypot([guess["value"] - guess["low"], guess["high"] - guess["value"]],
                               metrics.Z95 * GAIN_SPREAD))
    # Weighted by how sure each is. They are about the same unseen writers, so the mean of their
    # intervals is taken, and not one that gets narrower with each run.
    trust = 1 / np.square(np.sum(widths, axis=1))
    trust /= trust.sum()
    value = float(np.clip(trust @ [guess["value"] + gain for guess, gain
                                   in zip(guesses, gains, strict=True)], 0, 1))
    below, above = trust @ np.array(widths)
    words = "; ".join(f"{each.name} {percent(guess['value'])} and {points(gain)}"
                      for each, guess, gain in zip(blend.runs, guesses, gains, strict=True))
    return {"value": value, "low": max(0.0, value - float(below)),
            "high": min(1.0, value + float(above)), **numbers,
            "method": "What each run's own report expects, and what the blend gains over that run, "
            "by how often the two differ on the test file and how often the blend was right where "
            f"they differed on held-out writers: {words}. The surer a run's estimate is, the more "
            "it counts here, and the interval is as wide as theirs."}


def expected_gain(blend: np.ndarray, run: np.ndarray, labels: np.ndarray, share: float) -> float:
    """Accuracy that a blend gains over one of its runs on rows of which it reads `share` otherwise.

    blend, run, labels: classes (m,) of rows whose labels are known. It is the share, times how much
    more often the blend was right than the run where the two differ.
    """
    differ = blend != run
    won = (blend == labels)[differ].sum() - (run == labels)[differ].sum()
    return float(share * won / (differ.sum() + NO_GAIN_ROWS))


# -- report.json -----------------------------------------------------------------------------------


def numbers(results: "RunResults") -> dict[str, Any] | None:
    """The `blend` of report.json; None for a run that was trained."""
    blend = results.blended
    if blend is None:
        return None
    folds, runs = results.folds, []
    for each in blend.runs:
        right = _right(each.oof, results)
        guess = each.run.report["leaderboard_estimate"] or {}
        runs.append({"name": each.name, "weight": each.weight, "oof_accuracy": float(right.mean()),
                     "models": list(each.run.scored.config["models"]),
                     "ci95": list(metrics.accuracy_interval(right, folds.writers)),
                     "log_loss": float(metrics.log_losses(each.oof, folds.labels).mean()),
                     "estimate": guess.get("value"),
                     "same_folds": bool(np.array_equal(each.run.scored.fold, folds.fold)),
                     "sha256": each.run.sha256})
    best = max(blend.runs, key=lambda each: float(_right(each.oof, results).mean()))
    return {"how": blend.how, "runs": runs, "best": best.name,
            "paired": metrics.paired_tests(_right(results.oof, results),
                                           _right(best.oof, results), folds.writers),
            "fit": _gain_of_fit(results, blend)}


def _gain_of_fit(results: "RunResults", blend: Blend) -> dict[str, Any] | None:
    """What fitted weights gained over equal ones, on rows that they had not been fitted to."""
    if blend.fitted is None:
        return None
    equal, writers = np.mean([each.oof for each in blend.runs], axis=0), results.folds.writers
    ours, theirs = (metrics.log_losses(probs, results.folds.labels)
                    for probs in (results.oof, equal))
    right, right_equal = _right(results.oof, results), _right(equal, results)
    return {"weights": blend.fitted.tolist(), "over": "rows" if writers is None else "writers",
            "accuracy": float(right.mean()), "log_loss": float(ours.mean()),
            "equal_accuracy": float(right_equal.mean()), "equal_log_loss": float(theirs.mean()),
            "paired": metrics.paired_tests(right, right_equal, writers),
            "log_loss_saved": metrics.writer_bootstrap_test(theirs, ours, writers)}


def _right(probs: np.ndarray, results: "RunResults") -> np.ndarray:
    return probs.argmax(axis=1) == results.folds.labels


def notes(results: "RunResults") -> list[str]:
    """What a reader must know of how the blend was made."""
    blend, extra = results.blended, results.data.extra()
    if blend is None:
        return []
    said = []
    others = [each.name for each in blend.runs
              if not np.array_equal(each.run.scored.fold, results.folds.fold)]
    if others:
        said.append(f"The runs had different folds. Every row is out-of-fold in each of them; the "
                    f"scores fold by fold go by those of one run, not by those of "
                    f"{', '.join(others)}.")
    if extra is not None and results.extra is None:
        without = [each.run for each in blend.runs if each.extra is None]
        learned = [run.name for run in without if run.scored.config.get("train_extra")]
        rest = [run for run in without if run.name not in learned]
        submitted = [run.name for run in rest if run.is_submission]
        began = [run.name for run in rest if not run.is_submission]
        why = [f"{', '.join(learned)} learned from it"] * bool(learned) \
            + ["the folder of a submission has no probs of it "
               f"({', '.join(submitted)})"] * bool(submitted) \
            + [f"it was not in the data folder when {', '.join(began)} began"] * bool(began)
        said.append(f"{results.competition.extra} is left out: {'; '.join(why)}.")
    if results.competition.code_only:
        said.append(f"{results.competition.title} takes notebooks, and a blend has no models that "
                    "a notebook could run. What is worth handing in is trained as one run: "
                    f"{as_one_run([each.run for each in blend.runs])}.")
    if blend.how == OOF:
        said.append("Each writer's held-out rows are read with weights that were fitted to other "
                    "writers; the test file gets those fitted to all.")
    return said
