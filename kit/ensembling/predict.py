"""Predict another test file with a trained run: for `kit predict`, and for kernels with weights.

Models, test-time views and arithmetic are those of the run's own test probs, so on the machine that
trained the run its own test file gives the same numbers. Another machine may have to use another
precision; `precision_note` says so.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from kit.core import backend, storage
from kit.core.config import RunConfig
from kit.core.errors import KitError
from kit.core.progress import Progress
from kit.core.run_folder import RunFolder
from kit.data.competition import Competition
from kit.data.folds import HARDER_NOTE
from kit.data.table import read_table
from kit.ensembling import submission
from kit.ensembling.blend import vote
from kit.ensembling.prior import class_prior
from kit.training import kept_weights, records
from kit.training.jobs import FoldJob
from kit.training.own_models import recipe_of
from kit.training.predict import Predictor, predict_with_spreading, predictor_for


def predict_file(run: RunFolder, test: Path, out: Path, progress: Progress | None = None) -> int:
    """Label `test` with every finished fold of `run`; returns the number of rows.

    `out` gets labels where it is a .csv, ids and probs where it is a .npz. Of a run that is partial
    or has the split `harder` it is said that it is.
    """
    out = Path(out)
    if out.suffix not in (".csv", ".npz"):
        raise KitError(f"--out {out} is neither .csv nor .npz",
                       "name a .csv for labels or a .npz for probs")
    if out.exists() and out.resolve() == Path(test).resolve():
        raise KitError(f"--out {out} is the test file itself", "name another file")
    config, competition = records.read_config_and_competition(run.path)
    table = read_table(Path(test), competition, labelled=False)
    progress = progress or Progress()
    probs = ensemble_probs(run, config, competition, table.pixels, progress)
    if config.split == "harder":
        progress.say(f"{run.name}: {HARDER_NOTE}")
    if left := records.untrained(run, config):
        progress.say(f"{run.name} is partial: {left}; to train them: {run.resume_command}")
    if out.suffix == ".csv":
        prior = class_prior(config.class_prior, competition, probs)
        progress.say(f"class prior: {prior.why}")
        probs = prior.apply(probs)
        submission.write_submission(out, table.ids, probs, competition, record=False)
    else:
        storage.write_bytes(out, storage.npz_bytes(id=table.ids, probs=probs), record=False)
    return len(table)


def ensemble_probs(run: RunFolder, config: RunConfig, competition: Competition,
                   pixels: np.ndarray, progress: Progress) -> np.ndarray:
    """Probs `(n, n_classes)` float32 of the run's ensemble, averaged by `blend.vote`.

    run: of a run, or of a submission that keeps its weights. KitError where a fold is missing that
    neither a time budget nor a comparison left out.
    """
    backend.configure_devices(config.threads)
    trained, members = records.trained_folds(run, config), []
    may_lack = config.time_budget is not None or run.against.is_file() or run.keeps_weights
    for model, seed in config.members:
        folds = [fold for fold in trained if (fold.job.model, fold.job.seed) == (model, seed)]
        missing = sorted(set(range(config.n_folds)) - {fold.job.fold for fold in folds})
        if missing and not may_lack:
            raise KitError(f"fold {missing[0]} of {model} (seed {seed}) is missing in {run.path}",
                           f"train it: {run.resume_command}")
        progress.say(f"{model}, seed {seed}: {len(folds)} folds")
        for note in {precision_note(fold.job) for fold in folds} - {""}:
            progress.say(note)
        members.append([fold_probs(fold.weights, fold.job, config, competition, pixels,
                                   progress.say) for fold in folds])
    if not any(members):
        raise KitError(f"{run.path} has no finished fold", f"train it: {run.resume_command}")
    return vote(folds for folds in members if folds)


def precision_note(job: FoldJob) -> str:
    """A note if `fold_probs` must use another precision than the training did; else empty."""
    precision, why = backend.prediction_precision(job.precision)
    if not why:
        return ""
    return f"predicting in {precision}: {why}; probs differ a little from the training machine's"


def fold_probs(weights: Path, job: FoldJob, config: RunConfig, competition: Competition,
               pixels: np.ndarray, say: Callable[[str], None] = lambda text: None) -> np.ndarray:
    """Probs `(n, n_classes)` float32 of the trained fold whose weights these are.

    weights: a run's `model.keras`, or the `.npz` that a submission keeps. config, competition: the
    run's. pixels: uint8 `(n, h·w)`. say: is told where memory is short. The precision is that of
    `kit.core.backend.prediction_precision`. KitError where the file is damaged, or of another
    model.
    """
    predictor = _predictor(weights, job, config, competition)
    predictor.say = say
    probs = predict_with_spreading(predictor, pixels, job.tta)
    if not np.isfinite(probs).all():
        raise storage.damaged(weights, "what it predicts are not numbers")
    return probs


def check_kept_weights(submission: RunFolder, config: RunConfig) -> None:
    """KitError if the weights that a submission keeps are of other models than the kit's today."""
    backend.configure_devices(config.threads)
    competition = records.read_competition(submission.path)
    for fold in records.trained_folds(submission, config):
        _predictor(fold.weights, fold.job, config, competition)


def _predictor(weights: Path, job: FoldJob, config: RunConfig,
               competition: Competition) -> Predictor:
    """The job's predictor with these weights."""
    precision, _ = backend.prediction_precision(job.precision)
    predictor = predictor_for(recipe_of(config, job.model), competition, precision)
    kept_weights.load(predictor, weights, job)
    return predictor
