"""Read the folds of a run and average their probs into one `RunResults`.

All that the report and the submission know of a run is in it. Alignment is by row and id, never by
position. A missing fold is an error unless the run has a time budget: then the rows that no model
predicted are NaN, and `complete` is false.
"""

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from kit.core import storage
from kit.core.config import RunConfig
from kit.core.errors import KitError
from kit.core.run_folder import RunFolder, finished_folds
from kit.data.competition import Competition
from kit.data.folds import Folds, load_folds
from kit.data.source import DataFolder
from kit.ensembling.prior import ClassPrior, class_prior
from kit.training import records
from kit.training.jobs import extra_predicted
from kit.training.models import BASELINE

if TYPE_CHECKING:
    from kit.ensembling.blend_runs import Blend

# What the labels of the test file go through, as `RunResults.labels_by_step` names it
ROW_BY_ROW, READ = "row by row", "read"
SPREADING, SELF_TRAINING, CLASS_PRIOR = "label spreading", "self-training", "class prior"


@dataclass(frozen=True, eq=False)
class Member:
    """One model from one seed: float32 probs, and lists with one entry per finished fold."""

    model: str
    seed: int
    oof: np.ndarray  # (m, n_classes), rows as in Folds.rows; NaN where the fold is missing
    test: list[np.ndarray]  # each (n_test, n_classes)
    extra: list[np.ndarray]
    history: list[pd.DataFrame]
    done: list[dict[str, Any]]  # each fold's done.json
    # As `test`, before label spreading; without the folds of older kits, which did not keep them
    before_spreading: list[np.ndarray] = field(default_factory=list)


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
    against: dict[str, Any] | None = None  # the run that it was compared with while it trained
    blended: "Blend | None" = None  # of kit blend, which has runs instead of members
    # (n_test, n_classes) float32: test probs of the networks' first reading, each row by itself,
    # before label spreading and self-training; None where not all folds have kept them
    row_by_row: np.ndarray | None = None

    @property
    def voters(self) -> list[np.ndarray]:
        """Test probs of all that vote: each fold of each member, or each run of a blend."""
        if self.blended is not None:
            return [each.test for each in self.blended.runs]
        return [probs for member in self.members for probs in member.test]

    @functools.cached_property
    def class_prior(self) -> ClassPrior | None:
        """What is assumed of the test file's class counts; None without test probs."""
        if self.test is None:
            return None
        return class_prior(self.config["class_prior"], self.competition, self.test)

    @functools.cached_property
    def submitted(self) -> Any:
        """The test probs under the class prior, from which labels are chosen; None without them."""
        if self.class_prior is None or self.test is None:
            return None
        return self.class_prior.apply(self.test)

    @property
    def labels_by_step(self) -> dict[str, np.ndarray]:
        """The ensemble's test labels `(n_test,)` after each step that was taken, in their order.

        The first entry is what they began with: `ROW_BY_ROW` where that is known, else the labels
        after the first steps, under the name `READ`. Empty without test probs.
        """
        if self.test is None or self.class_prior is None:
            return {}
        first: Any = (self.before_self_training or self).test
        probs: dict[str, Any] = {READ: first}
        if self.row_by_row is not None:
            probs = {ROW_BY_ROW: self.row_by_row}
            if not np.array_equal(self.row_by_row, first):  # in a short file nothing spreads
                probs[SPREADING] = first
        if self.before_self_training:
            probs[SELF_TRAINING] = self.test
        if self.class_prior.spread is not None:
            probs[CLASS_PRIOR] = self.submitted
        return {step: each.argmax(1) for step, each in probs.items()}


def gather(run: RunFolder, data: DataFolder, timing: dict[str, Any], rounds: int | None = None,
           folds: Folds | None = None,
           done: Mapping[str, dict[str, Any]] | None = None) -> RunResults:
    """Read all folds of a run, and blend them. KitError for a missing, misaligned or damaged fold.

    rounds: use the folds as they were after this many rounds of self-training; by default after all
    that every fold has finished. folds, done: what is known already of folds.csv and, by the jobs'
    keys, of the done.json files; what is not is read.
    """
    config = records.read_config(run.path)
    about = storage.read_json(run.config, "command", "environment")
    folds = folds or checked_folds(run, data, config)
    if rounds is None:
        voting = records.voting_keys(config, finished_folds(run.path))
        rounds = records.finished_rounds(run.path, voting, config.self_train)
    members = [_member(run, folds, config, model, seed, data, rounds, done or {})
               for model, seed in config.members]
    baseline = None
    if BASELINE not in config.models:
        baseline = _member(run, folds, config, BASELINE, config.seed, data, rounds, done or {})
    present = [member for member in members if member.done]
    if not present:
        raise KitError(f"{run.path} has no finished fold of {', '.join(config.models)}",
                       f"give it more time: {run.resume_command} --time-budget 2h")
    jobs = [fold["job"] for member in present for fold in member.done]
    self_trained = rounds > 0 and any(job["guesses"] for job in jobs)
    before = gather(run, data, timing, 0, folds, done) if self_trained else None
    tests, extras = [member.test for member in present], [member.extra for member in present]
    row_by_row = None
    if before is not None:
        row_by_row = before.row_by_row
    elif all(len(member.before_spreading) == len(member.test) for member in present):
        row_by_row = vote(member.before_spreading for member in present)
    return RunResults(
        run.name, {**config.to_dict(), "models": list(config.models),
                   "code": about.get("own_files"),  # their SHA-256
                   "command": about["command"], "environment": about["environment"],
                   "parameters": {member.model: member.done[0]["parameters"]
                                  for member in present}},
        data.competition, data, folds, present, baseline if baseline and baseline.done else None,
        oof=mean_probs([member.oof for member in present]),
        test=vote(tests) if all(tests) else None,
        extra=vote(extras) if all(extras) else None,
        complete=all(len(member.done) == config.n_folds for member in members)
        and all(job["guesses"] >= config.self_train for job in jobs), timing=timing,
        before_self_training=before, against=read_against(run), row_by_row=row_by_row)


def read_against(run: RunFolder) -> dict[str, Any] | None:
    """A run's against.json: run, folder, difference, rounds, judgement; None if it has none.

    It says what `kit cv --against` compares the run with (`kit.reporting.against`), and what was
    found.
    """
    if not run.against.is_file():
        return None
    return storage.read_json(run.against, "run", "folder", "difference", "rounds", "judgement")


def checked_folds(run: RunFolder, data: DataFolder, config: RunConfig) -> Folds:
    """A run's folds.csv.

    KitError unless it splits this training file into as many folds as the config says.
    """
    folds, labels = load_folds(run.folds), data.train().labels
    if folds.n_folds != config.n_folds or folds.rows[-1] >= len(labels) \
            or not np.array_equal(labels[folds.rows], folds.labels):
        raise storage.damaged(run.folds, f"it does not split {data.competition.train} into "
                                         f"{config.n_folds} folds")
    return folds


def mean_probs(parts: Iterable[np.ndarray]) -> np.ndarray:
    """Mean of `(n, n_classes)` probs, float32; parts where a row is NaN do not count for it."""
    stacked = np.stack([np.asarray(part, "float64") for part in parts])
    known = np.isfinite(stacked)
    total = np.where(known, stacked, 0).sum(0)
    with np.errstate(invalid="ignore"):
        return (total / known.sum(0)).astype("float32")


def vote(folds_of_members: Iterable[list[np.ndarray]]) -> np.ndarray:
    """Each member's mean over its folds, then the mean of those: all members weigh the same."""
    return mean_probs([mean_probs(folds) for folds in folds_of_members])


def _member(run: RunFolder, folds: Folds, config: RunConfig, model: str, seed: int,
            data: DataFolder, most: int, known: Mapping[str, dict[str, Any]]) -> Member:
    """One model of one seed, after at most `most` rounds of self-training.

    known: the done.json of folds, by their keys; the others' are read.
    """
    n_classes, test_ids = data.competition.n_classes, data.test().ids
    extra = extra_predicted(config, data)
    oof = np.full((len(folds.rows), n_classes), np.nan, "float32")
    member = Member(model, seed, oof, [], [], [], [])

    def probs(path: Path, key: str, wanted: np.ndarray) -> np.ndarray:
        return aligned(*records.read_probs(path, key, n_classes), wanted, path)

    for k in range(config.n_folds):
        folder, held_out = run.fold(model, seed, k), folds.fold == k
        if not (folder / "done.json").is_file():
            if config.time_budget is not None or run.against.is_file():
                continue
            raise KitError(f"fold {k} of {model} (seed {seed}) is missing in {run.path}",
                           f"train it: {run.resume_command}")
        # The last round of self-training votes; its seconds and its curve are those of all rounds.
        rounds = records.rounds(folder, most)
        done = [known.get(part.relative_to(run.path).as_posix()) or records.read_done(part)
                for part in rounds]
        member.done.append(
            {**done[-1], "train_seconds": sum(part["train_seconds"] for part in done)})
        history = pd.concat([storage.read_csv(part / "history.csv") for part in rounds],
                            ignore_index=True)
        history["epoch"] = np.arange(1, len(history) + 1)
        member.history.append(history)
        oof[held_out] = probs(rounds[-1] / "val.npz", "row", folds.rows[held_out])
        ids, *test = records.read_test_probs(rounds[-1], model, n_classes)
        for each, found in zip((member.test, member.before_spreading), test, strict=True):
            if found is not None:
                each.append(aligned(ids, found, test_ids, rounds[-1] / "test.npz"))
        if extra:
            member.extra.append(probs(rounds[-1] / "extra.npz", "row", np.arange(len(extra))))
    return member


def aligned(ids: np.ndarray, probs: np.ndarray, wanted: np.ndarray, path: Path) -> np.ndarray:
    """Rows of `probs` in the order of `wanted`.

    KitError unless `ids` and `wanted` are the same set, without repeats.
    """
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
