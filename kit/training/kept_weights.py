"""The weights that a submission keeps of its run: float16, so that they are small enough to commit.

`submissions/<run>/weights/` has one `.npz` for each fold that votes, and `folds.json`, by which
`kit.training.records.trained_folds` finds them. An `.npz` has the model's arrays by their layers,
and a check: some rows of the run's test file with the probs that the fold gives them. So a model
that has become another one since is refused, whatever has changed: the kit's recipe of that name,
what it does to pixels, Keras.
"""

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from kit.core import backend, os_errors, storage
from kit.core.errors import KitError
from kit.core.run_folder import RunFolder
from kit.training import records
from kit.training.jobs import FoldJob
from kit.training.own_models import recipe_of
from kit.training.predict import Predictor, predict_probs, predictor_for

MAX_BYTES = 20_000_000  # of all folds together, before they are compressed
BYTES = 2  # of a float16
PIXELS, PROBS, COMMIT = "check_pixels", "check_probs", "commit"
CHECK_ROWS = 64
# The share of the check's probs that may lie elsewhere. Of a fold of `light` (four epochs on the
# sample, 68 % right) rounding moved .003, rounding and another precision .005, and gelu in place of
# relu .19.
MAX_DIFFERENCE = 0.05


def check_size(parameters: int) -> None:
    """KitError if so many parameters, those of all folds, are more than a submission keeps."""
    if BYTES * parameters > MAX_BYTES:
        raise KitError(f"the weights of all folds have {BYTES * parameters / 1e6:.0f} MB as "
                       f"float16, and a submission keeps {MAX_BYTES / 1e6:.0f} MB at most",
                       "leave --keep-weights out, or train fewer models, folds or seeds; the run "
                       "in runs/ has its weights in any case")


def keep(run: RunFolder, submission: RunFolder, test_pixels: np.ndarray) -> int:
    """Write the weights of a run's folds into its submission; the number of bytes.

    test_pixels: uint8 `(n, h·w)`, of the run's own test file. KitError where they are too many, or
    where the rounded ones give other probs; the submission then keeps none.
    """
    backend.configure_devices()
    from keras import ops

    config, competition = records.read_config_and_competition(run.path)
    commit = re.match("[0-9a-f]{40}", str(storage.read_json(run.config).get("git_commit")))
    folds = records.trained_folds(run, config)
    remove(submission)
    check_size(sum(int(fold.done["parameters"]) for fold in folds))
    files = {}
    for fold in folds:
        job = fold.job
        precision, _ = backend.prediction_precision(job.precision)
        predictor = predictor_for(recipe_of(config, job.model), competition, precision)
        load(predictor, fold.weights, job)
        rows = np.asarray(test_pixels[:CHECK_ROWS])
        check = {PIXELS: rows, PROBS: predict_probs(predictor, rows, job.tta),
                 COMMIT: np.array(commit[0] if commit else "")}
        rounded = {name: _round(ops.convert_to_numpy(weight))
                   for name, weight in _weights(predictor).items()}
        _assign(predictor, rounded)
        if not _difference(predictor, job, check) <= MAX_DIFFERENCE:
            raise KitError(f"{fold.key}: with its weights rounded to float16, the model gives "
                           "other probs", "leave --keep-weights out; kit predict takes the run in "
                           "runs/ as it was trained")
        files[fold.key] = storage.npz_bytes(True, **rounded, **check)
    for key, data in files.items():
        storage.write_bytes(records.kept_file(submission, key), data)
    storage.write_json(submission.kept_folds, {"folds": {fold.key: fold.done for fold in folds}})
    return sum(map(len, files.values()))


def remove(submission: RunFolder) -> None:
    """Remove the weights that a submission keeps, if it does."""
    if submission.keeps_weights:
        with os_errors.disk_errors(submission.weights, "remove"):
            shutil.rmtree(submission.weights)


def remove_others(submission: RunFolder, run: RunFolder) -> None:
    """Remove the weights that a submission keeps, unless they are those of the run as it is now."""
    if submission.keeps_weights:
        config = records.read_config(run.path)
        # Both read alike: what an older kit wrote lacks what a fold records today
        now, kept = ({fold.key: fold.done for fold in records.trained_folds(each, config)}
                     for each in (run, submission))
        if kept != now:
            remove(submission)


def load(predictor: Predictor, path: Path, job: FoldJob) -> None:
    """Load a fold's weights, a run's `model.keras` or a submission's `.npz`, into a predictor.

    KitError for a damaged file, or one whose model is no longer the kit's of that name.
    """
    if path.suffix != ".npz":
        records.load_weights(predictor.model, path)
        return
    try:
        arrays = storage.read_npz(path, PIXELS, PROBS, COMMIT)
    except KitError as error:
        raise KitError(error.message, "get it again from where it was committed (git checkout), or "
                       "keep the run's weights again: kit report NAME --keep-weights") from error
    there = {name: array.shape for name, array in arrays.items() if "/" in name}
    here = {name: tuple(weight.shape) for name, weight in _weights(predictor).items()}
    if there == here:
        _assign(predictor, arrays)
        share = _difference(predictor, job, arrays)
        if share <= MAX_DIFFERENCE:
            return
        what = f"{share:.2f} of the probs of its test file's first rows lie elsewhere now"
    else:
        what = "; ".join(f"{name}: {_shape(there, name)} → {_shape(here, name)}"
                         for name in sorted({*there, *here})
                         if there.get(name) != here.get(name))
    commit = str(arrays[COMMIT])
    raise KitError(f"{path} has the weights of another {job.model} than the kit's of today: {what}",
                   f"predict with the kit's commit {commit or 'of then'}, or train the run again "
                   "and keep its weights: kit submit --keep-weights")


def _shape(shapes: dict[str, tuple], name: str) -> str:
    return "×".join(map(str, shapes[name])) if name in shapes else "none"


def _weights(predictor: Predictor) -> dict[str, Any]:
    """The model's variables by their layers, counted as they lie: `03_Conv2D/0_kernel`.

    Keras' own paths count the layers of the whole process.
    """
    layers = [layer for layer in predictor.model.layers if layer.weights]
    return {f"{n:02d}_{type(layer).__name__}/{i}_{weight.name}": weight
            for n, layer in enumerate(layers) for i, weight in enumerate(layer.weights)}


def _assign(predictor: Predictor, arrays: dict[str, np.ndarray]) -> None:
    for name, weight in _weights(predictor).items():
        weight.assign(arrays[name].astype("float32") if arrays[name].dtype.kind == "f"
                      else arrays[name])


def _round(values: np.ndarray) -> np.ndarray:
    """As float16, unless one of them is too large for that, or they are no floats."""
    with np.errstate(over="ignore"):
        rounded = values.astype("float16")
    return rounded if values.dtype.kind == "f" and np.isfinite(rounded).all() else values


def _difference(predictor: Predictor, job: FoldJob, check: dict[str, np.ndarray]) -> float:
    """The share of the check's probs, on average over its rows, that the model sees elsewhere."""
    probs = predict_probs(predictor, check[PIXELS], job.tta)
    return total_variation(probs, check[PROBS])


def total_variation(probs: np.ndarray, others: np.ndarray) -> float:
    """The share of the probs, on average over rows, that lies elsewhere in `others`: 0 to 1."""
    return float(np.abs(probs - others).sum(1).mean() / 2)
