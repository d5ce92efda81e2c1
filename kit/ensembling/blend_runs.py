"""Blend several finished runs into one: `kit blend`.

The runs may differ in models, folds, seeds, machines and precisions, but not in their data. Their
probs are aligned by row and id. Each row's OOF probs come, in every run, from models that had not
seen the row, so their mean is out-of-fold as well, whatever folds each run had.

Weights come from OOF probs alone. Fitted to rows and scored on the same rows they would flatter
themselves, so a `--weights oof` blend reads each writer with weights that were fitted to other
writers; only the test file gets those fitted to all.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kit.core import storage
from kit.core.config import model_spec
from kit.core.errors import KitError
from kit.core.run_folder import RunFolder
from kit.data.folds import HARDER_NOTE, Folds
from kit.data.source import DataFolder, changed_files
from kit.ensembling.blend import RunResults, aligned, gather
from kit.ensembling.scored_run import ScoredRun, read_scored_run, resume_command
from kit.training import records

EQUAL, OOF, GIVEN = "equal", "oof", "given"
FILES = ("oof.npz", "test.npz")  # what a blend takes from a run
FIT_GROUPS = 5  # of writers: each is read with weights that were fitted to the four others
LEAST_PROB = 1e-7  # of the true class, so that one sure mistake does not decide the weights
DECIMALS = 4  # of a weight: config.json then has the very weights that were used


@dataclass(frozen=True, eq=False)
class FinishedRun:
    """A finished run, read from its own folder or from that of its submission."""

    folder: Path
    scored: ScoredRun
    ids: np.ndarray  # of the test file, in any order
    test: np.ndarray  # (n_test, n_classes)
    report: dict[str, Any]  # its report.json

    @property
    def name(self) -> str:
        return self.scored.name

    @property
    def is_submission(self) -> bool:
        """Whether it was read from the folder of its submission, which has no folds.csv."""
        return not RunFolder(self.folder).folds.is_file()

    @property
    def sha256(self) -> dict[str, str]:
        """Of the files that a blend takes from it."""
        return {name: storage.sha256_file(self.folder / name) for name in FILES}


@dataclass(frozen=True, eq=False)
class BlendedRun:
    """A run as a blend has it, in the blend's own order of rows and ids; float32 probs."""

    run: FinishedRun
    weight: float
    oof: np.ndarray  # (m, n_classes)
    test: np.ndarray  # (n_test, n_classes)
    extra: np.ndarray | None  # of the out-of-domain file, where the run's folder has them

    @property
    def name(self) -> str:
        return self.run.name


@dataclass(frozen=True, eq=False)
class Blend:
    """What a blend was made of."""

    runs: tuple[BlendedRun, ...]
    how: str  # EQUAL, OOF or GIVEN
    fitted: np.ndarray | None  # (groups, n_runs): with which each group of writers is read


def read_runs(folders: Sequence[Path]) -> tuple[FinishedRun, ...]:
    """The runs in these folders. KitError unless they are complete, and of the same data.

    A run that its time budget left incomplete is refused even where all rows have a score: its test
    probs come from fewer models than its OOF probs promise.
    """
    if len(folders) < 2:
        raise KitError("a blend needs at least two runs", "name another one: kit blend RUN RUN")
    scored = [read_scored_run(folder) for folder in folders]
    for i, run in enumerate(scored):
        if run.name in [other.name for other in scored[:i]]:
            raise KitError(f"{run.name!r} is given twice",
                           "name each run once; where two runs have one name, rename a folder")
    reports = [storage.read_json(folder / "report.json", "complete", "cv", "leaderboard_estimate")
               for folder in folders]
    for folder, run, report in zip(folders, scored, reports, strict=True):
        if report["complete"] is not True:
            why = "its time budget left folds, or rounds of self-training, out"
            longer = " --time-budget 2h"
            if against := report.get("against"):
                why, longer = (f"it was compared with {against['run']} (kit cv --against), and "
                               "its other folds are not trained"), ""
            raise KitError(f"{run.name} is not complete: {why}",
                           f"train them: {resume_command(folder, run.name)}{longer}, or leave it "
                           "out")
        if report["cv"].get("split") == "harder":
            raise KitError(f"{run.name}: {HARDER_NOTE}",
                           "leave it out, or make it again without --split")
        if what := _other_data(scored[0], run):
            raise KitError(f"{run.name} was made from other data than {scored[0].name}: {what}",
                           f"leave it out, or make it again from the same data{_command(run)}")
        if not np.array_equal(scored[0].row, run.row):
            raise KitError(f"{run.name} has scored {len(run.row):,} training rows, and not the "
                           f"same {len(scored[0].row):,} as {scored[0].name}",
                           "leave one out, or make both with the same --limit, or without")
    return tuple(FinishedRun(folder, run, *_read_test(folder, run), report)
                 for folder, run, report in zip(folders, scored, reports, strict=True))


def place_of(run: Path, blend: Path) -> str | None:
    """Where a run lies, from the folder that holds the blend's submissions/; None outside of it.

    It is committed with the blend, so it must not tell of the machine.
    """
    project, place = project_of(blend), Path(os.path.abspath(run))  # noqa: PTH100
    inside = place.is_relative_to(project) and project != project.parent
    return place.relative_to(project).as_posix() if inside else None


def project_of(blend: Path) -> Path:
    """The folder that holds submissions/, in which the folder of a blend lies."""
    return Path(os.path.abspath(blend)).parents[1]  # noqa: PTH100  (links keep their names)


def _other_data(a: ScoredRun, b: ScoredRun) -> str:
    """In what the data of two runs differ, in words; empty where it is the same."""
    about, other = a.competition, b.competition
    data, others = a.config["data"], b.config["data"]
    if about.slug != other.slug:
        return f"{other.slug}, not {about.slug}"
    if about.class_labels != other.class_labels:
        return f"the labels of {about.slug} were others"
    if data["is_sample"] != others["is_sample"]:
        return "the drawn sample, not real data" if others["is_sample"] else \
            "real data, not the drawn sample"
    return changed_files(*({name: each["sha256"].get(name) for name in (about.train, about.test)}
                           for each in (data, others)))


def _command(run: ScoredRun) -> str:
    command = run.config.get("command")
    return f": {command}" if isinstance(command, str) else ""


def _read_test(folder: Path, run: ScoredRun) -> tuple[np.ndarray, np.ndarray]:
    """The ids and probs of a run's test.npz, which old submissions lack."""
    if not (folder / "test.npz").is_file():
        raise KitError(f"{folder} has no test.npz: what {run.name} reads in the test file is not "
                       "known",
                       f"leave it out, or make it again{_command(run)}; where its own run folder "
                       f"is still there, kit report {run.name} is enough")
    ids, test = records.read_probs(folder / "test.npz", "id", run.probs.shape[1])
    return ids, test.astype("float32")


def models_of(runs: Sequence[FinishedRun]) -> list[str]:
    """The models of the runs, each once."""
    return list(dict.fromkeys(model for run in runs for model in run.scored.config["models"]))


def as_one_run(runs: Sequence[FinishedRun]) -> str:
    """The command that trains the models of these runs as one run, which a notebook can run."""
    configs = [run.scored.config for run in runs]
    files = [file for config in configs for file in config.get("code") or ()]
    models = ",".join(model_spec(model, files) for model in models_of(runs))
    seeds = max(sum(config.get("n_seeds", 1) for config in configs if model in config["models"])
                for model in models_of(runs))
    rounds = max(config.get("self_train") or 0 for config in configs)
    return f"kit submit --model {models}" + f" --seeds {seeds}" * (seeds > 1) \
        + f" --self-train {rounds}" * bool(rounds) \
        + " --train-extra" * any(config.get("train_extra") for config in configs)


def check_weights(asked: str | Sequence[float], n_runs: int) -> tuple[str, list[float] | None]:
    """How the weights are chosen, and where they are given themselves, their values (sum 1)."""
    if asked in (EQUAL, OOF):
        return str(asked), None
    fix = f"write --weights equal, --weights oof, or one number above 0 for each of the {n_runs} " \
          f"runs: --weights {','.join(['2', *['1'] * (n_runs - 1)])}"
    try:
        values = [float(part) for part in (asked.split(",") if isinstance(asked, str) else asked)]
    except (TypeError, ValueError):
        raise KitError(f"--weights {asked} is neither equal nor oof nor a list of numbers",
                       fix) from None
    if len(values) != n_runs:
        raise KitError(f"--weights has {len(values)} numbers for {n_runs} runs", fix)
    if not all(0 < value < 1e9 for value in values):
        raise KitError(f"--weights {asked} has a weight that is not above 0",
                       f"leave the run out that should have none; {fix}")
    return GIVEN, [value / sum(values) for value in values]


def blend_runs(name: str, runs: Sequence[FinishedRun], weights: str | Sequence[float],
               data: DataFolder, config: dict[str, Any], timing: dict[str, Any]) -> RunResults:
    """The runs as one. config: as in `RunResults`. weights: as for `check_weights`.

    KitError where ids or labels are not those of `data`.
    """
    how, given = check_weights(weights, len(runs))
    folds = _folds(runs)
    if not np.array_equal(data.train().labels[folds.rows], folds.labels):
        raise storage.damaged(runs[0].folder / "oof.npz", "its labels are not those of the data")
    oof = np.stack([run.scored.probs for run in runs])  # read_runs: they have the same rows
    test_ids = data.test().ids
    tests = [aligned(run.ids, run.test, test_ids, run.folder / "test.npz") for run in runs]
    extras = [_extra(run, data) for run in runs]
    fitted = None
    if how == OOF:
        chosen, groups = fit_weights(oof, folds.labels), fit_groups(folds)
        fitted = np.stack([fit_weights(oof[:, groups != k], folds.labels[groups != k])
                           for k in np.unique(groups)])
        blended = np.einsum("mr,rmk->mk", fitted[groups], oof)
    else:
        chosen = np.array(given or [1 / len(runs)] * len(runs))
        blended = np.tensordot(chosen, oof, 1)
    parts = zip(runs, chosen, oof, tests, extras, strict=True)
    blend = Blend(tuple(BlendedRun(run, float(weight), *probs) for run, weight, *probs in parts),
                  how, fitted)
    return RunResults(
        name, {**config, "n_folds": folds.n_folds}, data.competition, data, folds, members=[],
        baseline=None, oof=blended.astype("float32"), test=_weighted(chosen, tests),
        extra=_weighted(chosen, extras), complete=True, timing=timing, blended=blend)


def _folds(runs: Sequence[FinishedRun]) -> Folds:
    """The folds by which the blend is scored: of the first run, or of one that mixed writers.

    A blend keeps writers apart only if all of its runs do. Other folds would change no row's probs,
    only which rows are shown together as a fold.
    """
    run = next((run.scored for run in runs if not run.scored.keeps_writers_apart), runs[0].scored)
    apart = run.keeps_writers_apart
    return Folds(run.row, run.label.astype("uint8"), run.writer, run.fold,
                 "writer" if apart else "stratified", apart)


def _extra(run: FinishedRun, data: DataFolder) -> np.ndarray | None:
    """Probs of the out-of-domain file.

    None in a submission's folder, and of a run that learned from this file or began without it.
    """
    extra, name = data.extra(), data.competition.extra
    if extra is None or run.is_submission \
            or run.scored.config["data"]["sha256"].get(name) != extra.sha256:
        return None
    return gather(RunFolder(run.folder), data, {}).extra


def _weighted(weights: np.ndarray, parts: list[Any]) -> np.ndarray | None:
    """The weighted mean, float32; None where a part is missing."""
    if any(part is None for part in parts):
        return None
    return np.tensordot(weights, np.stack(parts), 1).astype("float32")


# -- weights from OOF probs ------------------------------------------------------------------------


def fit_weights(oof: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Weights `(n_runs,)`, none below 0, sum 1, of the least log loss.

    oof: (n_runs, m, n_classes). The log loss of a weighted mean is convex in its weights, so there
    is one least value and any start leads to it.
    """
    from scipy.optimize import minimize

    true = np.maximum(oof[:, np.arange(len(labels)), labels].astype("float64"), LEAST_PROB)

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        mixed = weights @ true
        return -float(np.log(mixed).mean()), -(true / mixed).mean(1)

    n = len(oof)
    found = minimize(loss, np.full(n, 1 / n), jac=True, method="SLSQP", bounds=[(0, 1)] * n,
                     constraints={"type": "eq", "fun": lambda weights: weights.sum() - 1,
                                  "jac": lambda _: np.ones(n)}, options={"ftol": 1e-10}).x
    found = np.round(np.clip(found, 0, 1), DECIMALS)
    return found / found.sum()


def fit_groups(folds: Folds) -> np.ndarray:
    """The group `(m,)` of each row for the check of fitted weights: whole writers where known.

    Writers are dealt out in turn, since they may be sorted by how hard they are; rows at random,
    since their labels cycle.
    """
    if folds.writers is not None and len(np.unique(folds.writers)) > 1:
        return np.unique(folds.writers, return_inverse=True)[1] % FIT_GROUPS
    return np.random.RandomState(0).permutation(len(folds.rows)) % FIT_GROUPS
