"""A trained run on another test file.

In go a run folder and a CSV of any number of rows; out come its labels or probs, by the same models, views and
arithmetic that made the run's own test probs: on the run's own test file they are the same numbers.
"""

from pathlib import Path
from typing import Any

import numpy as np

from kit import storage
from kit.config import RunConfig
from kit.data import competition as competitions
from kit.data.table import read_table
from kit.ensembling import submission
from kit.ensembling.blend import vote
from kit.ensembling.prior import class_prior
from kit.errors import KitError
from kit.progress import Progress
from kit.runfolder import RunFolder
from kit.training import backend, fit, models, predict, records


def predict_file(run: RunFolder, test: Path, out: Path, progress: Progress | None = None) -> int:
    """Label `test` with every finished fold of `run`; write `out` (.csv: labels, .npz: id and probs); the row count."""
    out = Path(out)
    if out.suffix not in (".csv", ".npz"):
        raise KitError(f"--out {out} is neither .csv nor .npz", "name a .csv for labels or a .npz for probs")
    if out.exists() and out.resolve() == Path(test).resolve():
        raise KitError(f"--out {out} is the test file itself", "name another file")
    config = records.read_config(run.path)
    competition = competitions.get(config.competition)
    table = read_table(Path(test), competition, labelled=False)
    progress = progress or Progress()
    probs = predict_probs(run, config, table.pixels, progress)
    if out.suffix == ".csv":
        prior = class_prior(config.class_prior, competition, probs)
        progress.say(f"class prior: {prior.why}")
        probs = prior.apply(probs)
        submission.write_submission(out, table.ids, probs, competition, record=False)
    else:
        storage.write_bytes(out, storage.npz_bytes(id=table.ids, probs=probs), record=False)
    return len(table)


def predict_probs(run: RunFolder, config: RunConfig, pixels: np.ndarray, progress: Progress) -> np.ndarray:
    """Probs `(n, n_classes)` float32 of the run's ensemble, folds and members weighing as in `kit.ensembling.blend`."""
    backend.prepare(config.threads)
    members = []
    for model, seed in config.members:
        folders = [run.fold(model, seed, k) for k in range(config.n_folds)]
        missing = [k for k, folder in enumerate(folders) if not fit.is_done(folder)]
        if missing and config.time_budget is None:
            raise KitError(f"fold {missing[0]} of {model} (seed {seed}) is missing in {run.path}",
                           f"train it: {run.resume}")
        finished = [records.rounds(folder, config.self_train)[-1] for folder in folders if fit.is_done(folder)]
        progress.say(f"{model}, seed {seed}: {len(finished)} folds")
        members.append([_fold_probs(folder, competitions.get(config.competition), pixels) for folder in finished])
    if not any(members):
        raise KitError(f"{run.path} has no finished fold", f"train it: {run.resume}")
    return vote(folds for folds in members if folds)


def _fold_probs(folder: Path, competition: Any, pixels: np.ndarray) -> np.ndarray:
    job = fit.FoldJob(**records.read_done(folder)["job"])
    trainer = fit.trainer_for(models.get(job.model), competition.slug, job.precision, job.batch_size)
    records.load_weights(trainer.model, folder / "model.keras")
    probs = predict.predict_probs(trainer, pixels, job.tta)
    if not np.isfinite(probs).all():
        raise storage.damaged(folder / "model.keras", "what it predicts is no number")
    return probs
