"""Read the folds of a run and average their probs into one `RunResults`.

All that the report and the submission know of a run is in it. Alignment is by row and id, never by
position. A missing fold is an error unless the run has a time budget: then the rows that no model
predicted are NaN, and `complete` is false.
"""

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from kit.core import storage
from kit.core.config import RunConfig
from kit.core.errors import KitError
from kit.core.run_folder import RunFolder
from kit.data.competition import Competition
from kit.data.folds import Folds, load_folds
from kit.data.source import DataFolder
from kit.ensembling.prior import ClassPrior, class_prior
from kit.training import records
from kit.training.models import BASELINE

if TYPE_CHECKING:
    from kit.ensembling.blend_runs import Blend

MAX_CURVE_VALUE = 1e100  # a larger loss cannot be drawn


@dataclass(frozen=True, eq=False)
class Member:
    """One model from one seed, all of its folds. float32 probs; lists have one entry per finished fold."""

    model: str
    seed: int
    oof: np.ndarray  # (m, n_classes), rows as in Folds.rows; NaN where the fold is missing
    test: list[np.ndarray]  # each (n_test, n_classes)
    extra: list[np.ndarray]
    history: list[pd.DataFrame]
    done: list[dict[str, Any]]  # each fold's done.json


@dataclass(frozen=True, eq=False)
class RunResults:
    """All that there is to know of a finished run."""

    name: str
    config: dict[str, Any]  # the RunConfig's fields, and command, environment, parameters
    competition: Competition
    data: DataFolder
    folds: Folds
    members: list[Member]
    baseline: Member | None
    oof: np.ndarray  # (m, n_classes) float32, NaN where no member has a row's fold
    test: np.ndarray | None  # (n_test, n_classes) float32
    extra: np.ndarray | None
    complete: bool
    timing: dict[str, Any]
    before_self_training: "RunResults | None" = None  # the same run without it, if it had any
    blended: "Blend | None" = None  # of kit blend, which has runs instead of members

    @property
    def voters(self) -> list[np.ndarray]:
        """Test probs of all that vote: each fold of each member, or each run of a blend."""
        if self.blended is not None:
            return [each.test for each in self.blended.runs]
        return [probs for member in self.members for probs in member.test]

    @functools.cached_property
    def class_prior(self) -> ClassPrior | None:
        """What is assumed of the test file's class counts; None without test probs."""
        return None if self.test is None else class_prior(self.config["class_prior"], self.competition, self.test)

    @functools.cached_property
    def submitted(self) -> Any:
        """The test probs under the class prior, from which labels are chosen; None without them."""
        return None if self.class_prior is None or self.test is None else self.class_prior.apply(self.test)


def gather(run: RunFolder, data: DataFolder, timing: dict[str, Any],
           rounds: int | None = None) -> RunResults:
    """Read all folds of a run, and blend them. KitError for a missing, misaligned or damaged fold.

    rounds: use the folds as they were after this many rounds of self-training; by default after
    all.
    """
    config, about = records.read_config(run.path), storage.read_json(run.config, "command", "environment")
    if not isinstance(about["command"], str) or not isinstance(about["environment"], dict):
        raise storage.damaged(run.config, "its command is no text, or its environment no table")
    folds = checked_folds(run, data, config)
    partial = config.time_budget is not None
    rounds = config.self_train if rounds is None else rounds
    members = [_member(run, folds, config, model, seed, data, partial, rounds) for model, seed in config.members]
    baseline = None
    if BASELINE not in config.models:
        baseline = _member(run, folds, config, BASELINE, config.seed, data, partial, rounds)
    present = [member for member in members if member.done]
    if not present:
        raise KitError(f"{run.path} has no finished fold of {', '.join(config.models)}",
                       f"give it more time: {run.resume_command} --time-budget 2h")
    parameters = {member.model: member.done[0]["parameters"] for member in present}
    self_trained = rounds > 0 and any(done["job"].get("guesses") for member in present for done in member.done)
    return RunResults(
        run.name, {**config.to_dict(), "command": about["command"], "environment": about["environment"],
                   "parameters": parameters},
        data.competition, data, folds, present, baseline if baseline and baseline.done else None,
        oof=mean_probs([member.oof for member in present]),
        test=_vote_of_all([member.test for member in present]),
        extra=_vote_of_all([member.extra for member in present]),
        complete=all(_is_complete(member, config) for member in members), timing=timing,
        before_self_training=gather(run, data, timing, rounds=0) if self_trained else None)


def checked_folds(run: RunFolder, data: DataFolder, config: RunConfig) -> Folds:
    """A run's folds.csv. KitError unless it splits this training file into as many folds as the config says."""
    folds, labels = load_folds(run.folds), data.train().labels
    if folds.n_folds != config.n_folds or folds.rows[-1] >= len(labels) \
            or not np.array_equal(labels[folds.rows], folds.labels):
        raise storage.damaged(run.folds, f"it does not split {data.competition.train} into {config.n_folds} folds")
    return folds


def mean_probs(parts: Iterable[np.ndarray]) -> np.ndarray:
    """Mean of `(n, n_classes)` probs, float32; parts where a row is NaN do not count for it."""
    stacked = np.stack([np.asarray(part, "float64") for part in parts])
    known = np.isfinite(stacked)
    total = np.where(known, stacked, 0).sum(0)
    with np.errstate(invalid="ignore"):
        return (total / known.sum(0)).astype("float32")


def _is_complete(member: Member, config: RunConfig) -> bool:
    rounds = [done["job"].get("guesses", 0) for done in member.done]
    return len(rounds) == config.n_folds and min(rounds) >= config.self_train


def vote(folds_of_members: Iterable[list[np.ndarray]]) -> np.ndarray:
    """Each member's mean over its folds, then the mean of those: all members weigh the same."""
    return mean_probs([mean_probs(folds) for folds in folds_of_members])


def _vote_of_all(folds_of_members: list[list[np.ndarray]]) -> np.ndarray | None:
    return vote(folds_of_members) if all(folds_of_members) else None


def _member(run: RunFolder, folds: Folds, config: RunConfig, model: str, seed: int, data: DataFolder,
            partial: bool, most: int) -> Member:
    n_classes = data.competition.n_classes
    oof = np.full((len(folds.rows), n_classes), np.nan, "float32")
    test_ids = data.test().ids
    extra_table = data.extra()
    member = Member(model, seed, oof, [], [], [], [])
    for k in range(config.n_folds):
        folder = run.fold(model, seed, k)
        if not (folder / "done.json").is_file():
            if partial:
                continue
            raise KitError(f"fold {k} of {model} (seed {seed}) is missing in {run.path}",
                           f"train it: {run.resume_command}")
        rounds = records.rounds(folder, most)
        voting = rounds[-1]
        done, history = records.read_fold(rounds)
        _check_history(voting, history)
        member.done.append(done)
        member.history.append(history)
        oof[folds.fold == k] = _read_aligned(voting / "val.npz", "row", folds.rows[folds.fold == k], n_classes)
        member.test.append(_read_aligned(voting / "test.npz", "id", test_ids, n_classes))
        if extra_table is not None:
            member.extra.append(_read_aligned(voting / "extra.npz", "row", np.arange(len(extra_table)), n_classes))
    return member


def _check_history(folder: Path, history: pd.DataFrame) -> None:
    """KitError for a learning curve that is empty or cannot be drawn."""
    numbers = history[list(records.HISTORY)].abs()
    if not len(history) or not (numbers < MAX_CURVE_VALUE).all(axis=None):
        raise storage.damaged(folder / "history.csv", "not all of its numbers can be drawn")


def _read_aligned(path: Path, key: str, wanted: np.ndarray, n_classes: int) -> np.ndarray:
    return aligned(*records.read_probs(path, key, n_classes), wanted, path)


def aligned(ids: np.ndarray, probs: np.ndarray, wanted: np.ndarray, path: Path) -> np.ndarray:
    """Rows of `probs` in the order of `wanted`. KitError unless ids and wanted are the same set, without repeats."""
    if len(ids) != len(probs) or len(ids) != len(wanted):
        raise KitError(f"{path} has {len(probs)} rows for {len(ids)} ids; {len(wanted)} are wanted",
                       "it was made from other data: start a new run, or put the old data back")
    if np.array_equal(ids, wanted):
        return probs
    order, place = np.argsort(ids, kind="stable"), np.argsort(wanted, kind="stable")
    if not np.array_equal(ids[order], wanted[place]):
        raise KitError(f"{path} holds predictions for other ids than the data",
                       "it was made from other data: start a new run, or put the old data back")
    result = np.empty_like(probs)
    result[place] = probs[order]
    return result
