"""The run that a new one is compared with while it trains: `kit cv --against RUN`.

The new run trains in RUN's folds. After each round of folds its rows are compared with RUN's
(`kit.reporting.sequential`), and once that is decided the other folds aren't trained. The run's
against.json says what was asked and what was found, so that a killed run goes on with the
comparison; `--resume` of a decided one that has its report trains the other folds, and asks nothing
any more.

A RUN that was self-trained is compared as it was before that: the new run, which may end with some
of its folds, is not self-trained.
"""

import contextlib
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from kit.core import storage
from kit.core.config import RunConfig, option_name
from kit.core.errors import KitError
from kit.core.run_folder import RunFolder
from kit.data.folds import Folds
from kit.data.source import DataFolder
from kit.ensembling.blend import checked_folds, read_against
from kit.ensembling.scored_run import ScoredRun, read_scored_run, resume_command
from kit.reporting import sequential
from kit.reporting.sequential import Judgement
from kit.reporting.verdict import percent
from kit.training.executors import is_far_below

# Of a RunConfig; the new run takes RUN's. The split is first: `harder` also means a number of folds
OF_THE_FOLDS = ("split", "n_folds", "limit")


@dataclass(eq=False)
class Against:
    """RUN, and how the new run compares with it so far."""

    folder: Path
    other: ScoredRun
    difference: float  # the least that matters
    rounds: list[list[int]] = field(default_factory=list)  # the folds scored between two looks
    judgement: Judgement | None = None

    def fold_options(self, given: dict[str, Any]) -> dict[str, Any]:
        """The options of RUN's folds. KitError where one of `given` asks for other folds."""
        theirs = {name: self.other.config[name] for name in OF_THE_FOLDS
                  if name in self.other.config}
        for name in OF_THE_FOLDS:
            if name in given and given[name] != theirs.get(name):
                raise KitError(
                    f"{option_name(name)} {given[name]}, but {self.other.name} has "
                    f"{option_name(name)} {theirs.get(name)}: other folds cannot be compared one "
                    "by one", f"leave {option_name(name)} out, or compare them when both are "
                    "trained: kit compare")
        return theirs

    def folds(self, data: DataFolder) -> Folds:
        """RUN's folds. KitError if they don't split `data`, or RUN has not scored all of them."""
        other, labels, competition = self.other, data.train().labels, data.competition
        trained_on = other.config["data"]["sha256"].get(competition.train)
        if not other.competition.is_like(competition) or trained_on != data.train().sha256:
            theirs, ours = other.config["data"]["is_sample"], data.is_sample
            kind = "another file" if theirs == ours else \
                "the drawn sample" if theirs else "real data"
            fix = "compare with a run of the same training file"
            if kind == "real data":
                fix += "; or get the real data first: kit download --from kaggle, or with --from " \
                       "and the zip or folder that you have"
            raise KitError(f"{other.name} was trained on {kind}, not on {data.path}", fix)
        if other.config.get("split") == "harder":
            raise KitError(f"{other.name} has the split harder, whose folds are not alike: an "
                           "early look would be at the hardest writers alone",
                           "train all folds, then compare: kit compare")
        scored, n_folds = np.unique(other.fold), other.config.get("n_folds")
        if len(scored) != n_folds or not np.array_equal(scored, np.arange(n_folds)):
            raise KitError(f"{other.name} has scored {len(scored)} of {n_folds} folds, so not all "
                           "can be compared",
                           f"finish it first: {resume_command(self.folder, other.name)}")
        if other.row[-1] >= len(labels) or not np.array_equal(labels[other.row], other.label):
            raise storage.damaged(self.folder / "oof.npz", f"its labels are not {data.path}'s")
        apart = other.keeps_writers_apart
        writers = None if other.writer is None else other.writer.astype(np.int32)
        return Folds(other.row.astype(np.int64), other.label.astype(np.uint8), writers,
                     other.fold.astype(np.int8), "writer" if apart else "stratified", apart)

    @property
    def is_decided(self) -> bool:
        return self.judgement is not None and self.judgement.outcome != "undecided"

    def look(self, finished: Collection[int], oof: np.ndarray, folds: Folds, name: str) -> str:
        """Judge the run `name` by the folds that are `finished`; the verdict, in words.

        oof: its probs (m, n_classes) of the rows of `folds`, which are RUN's. A lone fold that may
        have collapsed isn't judged: whether it has shows in the next one, and then it is trained
        again (`kit.training.executors.retries_of_collapsed`).
        """
        right, theirs = oof.argmax(axis=1) == folds.labels, self.other.right
        if len(finished) == 1:
            held_out = np.isin(folds.fold, list(finished))
            ours, usual = float(right[held_out].mean()), float(theirs[held_out].mean())
            if is_far_below(ours, usual, int(held_out.sum())):
                return (f"the first fold reads {percent(ours)}, where {self.other.name} reads "
                        f"{percent(usual)}: a second one will show whether its training went wrong")
        seen = [k for folds_of_round in self.rounds for k in folds_of_round]
        self.rounds.append(sorted(set(finished) - set(seen)))
        self.judgement = sequential.judge(right, theirs, folds.fold, folds.writers, self.rounds,
                                          self.difference)
        return sequential.verdict(self.judgement, name, self.other.name)

    def save(self, run: RunFolder) -> None:
        found = self.judgement.to_dict(run.name, self.other.name) if self.judgement else None
        storage.write_json(run.against, {
            "run": self.other.name, "folder": str(self.folder.resolve()),
            "difference": self.difference, "rounds": self.rounds, "judgement": found})


def open_against(folder: Path, difference: float | None = None) -> Against:
    """The run or submission in `folder`, to compare a new one with; difference: what matters."""
    difference = sequential.DIFFERENCE if difference is None else difference
    if not 0 <= difference < 1:
        raise KitError(f"--difference {difference:g} is no difference in accuracy",
                       "write half a point as --difference 0.005")
    return Against(folder, read_scored_run(folder, before_self_training=True), difference)


def resume_against(run: RunFolder, data: DataFolder, config: RunConfig) -> Against | None:
    """The comparison that `run` was begun with; None without one, or once its end is reported.

    config: the run's. KitError where RUN is gone, or has other folds than when `run` began.
    """
    stored = read_against(run)
    if stored is None:
        return None
    judgement = Judgement.from_dict(stored["judgement"]) if stored["judgement"] else None
    folder = Path(stored["folder"])
    if judgement and judgement.outcome != "undecided" and (run.path / "report.html").is_file():
        with contextlib.suppress(KitError):  # a damaged one, which is then written again
            reported = storage.read_json(run.path / "report.json", "against")["against"]
            if reported and reported["outcome"] == judgement.outcome:
                return None
    try:
        other = read_scored_run(folder, before_self_training=True)
        begun = Against(folder, other, stored["difference"], stored["rounds"], judgement)
        begun.fold_options({name: getattr(config, name) for name in OF_THE_FOLDS})
        theirs = begun.folds(data)
        if run.folds.is_file():
            ours = checked_folds(run, data, config)
            if not (np.array_equal(ours.rows, theirs.rows)
                    and np.array_equal(ours.fold, theirs.fold)):
                raise KitError("it was made again since, with other folds", "")
    except KitError as error:
        raise KitError(f"{run.name} cannot be compared with {stored['run']} any more: "
                       f"{error.message}", f"put {stored['run']} back into {folder} as it was, or "
                       f"remove {run.against} to train all folds without the comparison: "
                       f"{run.resume_command}") from error
    return begun
