"""Train one fold: its schedule, its steps with checkpoints, and the artifacts of the finished fold.

Everything random is a function of (seed, fold, step): the order of rows and the augmentation are
drawn with NumPy for each epoch, and dropout's generators are set to the step before each chunk. So
a run that was killed and resumed computes the same numbers as one that was not.
"""

import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from kit.core import backend, os_errors, storage
from kit.data.competition import Competition
from kit.training import checkpoints, memory, models, records
from kit.training.augment import N_NUMBERS
from kit.training.checkpoints import CheckpointWriter, TrainingState
from kit.training.jobs import CURVE, ORDER, PARTS, WARPS, EventCallback, FoldData, FoldJob
from kit.training.models import Recipe
from kit.training.predict import predict_file, predict_probs, predict_with_spreading
from kit.training.trainer import Trainer, trainer_for

CURVE_ROWS = 2_000  # val rows, drawn once a fold, for each point of the learning curve but the last
CHUNK_ROWS = 12_800  # rows between two looks at the clock: some seconds on two cores


class Diverged(Exception):
    """The loss of a fold is no longer a number."""


def learning_rates(recipe: Recipe, total_steps: int) -> np.ndarray:
    """`(total_steps,)` float32: constant, or half a cosine down to zero."""
    if recipe.schedule == "constant":
        return np.full(total_steps, recipe.learning_rate, "float32")
    done = (np.arange(total_steps) + 0.5) / total_steps
    return (recipe.learning_rate * 0.5 * (1 + np.cos(np.pi * done))).astype("float32")


def is_done(folder: Path) -> bool:
    return (folder / "done.json").is_file()


def train_fold(job: FoldJob, recipe: Recipe, competition: Competition, data: FoldData, folder: Path,
               report: EventCallback = lambda event: None, start: Path = Path()) -> dict[str, Any]:
    """Train one fold, write its artifacts into `folder`, and return its done.json.

    Continues from a checkpoint in the folder, and removes it at the end; a finished fold is left as
    it is. `report` is called with each event of the training. start: the fold folder whose model a
    round of self-training begins with. Raises `Diverged`, or what the backend raises where memory
    is short for a training step; KitError where it is short for predicting.
    """
    from keras import ops

    if is_done(folder):
        return records.read_done(folder)
    batch_size = min(job.batch_size, len(data.train_rows))
    trainer = trainer_for(recipe, competition, job.precision, batch_size)
    trainer.say = lambda text: report({"event": "say", "text": text, "once": True})
    state = checkpoints.load(trainer, job, folder / "checkpoint.npz", start)
    checkpoint = CheckpointWriter(folder / "checkpoint.npz")
    images = on_device(data.pixels, trainer.shape)
    labels = ops.convert_to_tensor(data.labels.astype("int32"))
    per_epoch = len(data.train_rows) // batch_size
    rates = learning_rates(recipe, per_epoch * job.epochs) * np.float32(job.rate_factor)
    for epoch in range(state.step // per_epoch, job.epochs):
        order, transforms = draw_epoch(trainer, job, data.train_rows, epoch, per_epoch)
        for steps in chunks(state.step - epoch * per_epoch, per_epoch, batch_size):
            began, n = time.perf_counter(), len(steps)
            trainer.seed_dropout(job, state.step)
            loss, accuracy = trainer.train(images, labels, order[steps], transforms[steps],
                                           rates[state.step:state.step + n])
            if not np.isfinite(loss):
                raise Diverged(f"{job.key}: the loss is {loss} in epoch {epoch + 1}")
            seconds = time.perf_counter() - began
            state.step += n
            state.seconds += seconds
            state.sums = [a + b for a, b in zip(
                state.sums, (n, loss * n, accuracy * n, seconds), strict=True)]
            total, loss, accuracy, seconds = state.sums  # of the epoch so far
            report({"event": "step", "job": job.key, "epoch": epoch + 1, "epochs": job.epochs,
                    "done": state.step / (per_epoch * job.epochs), "loss": loss / total,
                    "accuracy": accuracy / total,
                    "images_per_second": total * batch_size / seconds})
            if state.step % per_epoch:
                checkpoint.write_if_due(trainer, job, state, checkpoints.INTERVAL_SECONDS)
        report(_end_epoch(trainer, job, data, state, epoch, float(rates[state.step - 1])))
        checkpoint.write_if_due(trainer, job, state, 0.0)
    try:
        done = _write_artifacts(trainer, job, data, folder, state)
    except Exception as error:  # each library has its own
        if not memory.is_short(error):
            raise
        # A smaller batch, with which the fold would be trained anew, does not help here.
        raise memory.too_short(f"{job.key} is trained, but memory is short for its predictions",
                               error) from error
    (folder / "checkpoint.npz").unlink(missing_ok=True)
    return done


_latest: dict[str, Any] = {}


def on_device(pixels: np.ndarray, shape: tuple[int, int]) -> Any:
    """Pixels `(n, h·w)` as a tensor `(n, h, w, 1)`; kept for the next fold, which has the same.

    TensorFlow frees a tensor late, and needs a second copy to make one: made anew for each fold,
    four bytes a pixel would be in use at once, the file's own among them; so it is three
    (docs/lab-log.md, 2026-11-22).
    """
    from keras import ops

    if _latest.get("pixels") is not pixels:
        _latest.clear()
        _latest.update(pixels=pixels, images=ops.convert_to_tensor(pixels.reshape(-1, *shape, 1)))
    return _latest["images"]


def draw_epoch(trainer: Trainer, job: FoldJob, rows: np.ndarray, epoch: int,
               steps: int) -> tuple[np.ndarray, np.ndarray]:
    """An epoch's row numbers `(steps, batch)` int32, and transforms `(steps, batch, N_NUMBERS)`.

    Rows that fill no whole batch are left out of this epoch; the next one draws another order.
    """
    batch = trainer.batch_size
    order = job.rng(ORDER, epoch).permutation(rows)[:steps * batch]
    order = order.reshape(steps, batch).astype("int32")
    if trainer.recipe.augment is None:
        return order, np.zeros((steps, 0, N_NUMBERS), "float32")
    transforms = trainer.recipe.augment.draw(job.rng(WARPS, epoch), steps * batch, trainer.shape)
    return order, transforms.reshape(steps, batch, N_NUMBERS)


def chunks(start: int, stop: int, batch_size: int) -> list[np.ndarray]:
    """The steps of an epoch from `start` on, split into pieces of about `CHUNK_ROWS` rows."""
    size = max(1, CHUNK_ROWS // batch_size)
    return [np.arange(first, min(first + size, stop)) for first in range(start, stop, size)]


def curve_rows(job: FoldJob, val_rows: np.ndarray, epoch: int) -> np.ndarray:
    """The val rows scored for the learning curve after `epoch`, ascending; after the last one, all.

    They are drawn at random, not every n-th: labels cycle 0-9 from row to row, so every fifth row
    shows two of the ten digits.
    """
    if epoch + 1 == job.epochs or len(val_rows) <= CURVE_ROWS:
        return val_rows
    return np.sort(job.rng(CURVE).choice(val_rows, CURVE_ROWS, replace=False))


def _end_epoch(trainer: Trainer, job: FoldJob, data: FoldData, state: TrainingState, epoch: int,
               rate: float) -> dict[str, Any]:
    """Append the epoch to the history, with val loss and accuracy of its `curve_rows`; its event.

    Raises `Diverged` where the network's probs are no longer numbers.
    """
    began = time.perf_counter()
    rows = curve_rows(job, data.val_rows, epoch)
    probs = predict_probs(trainer, data.pixels[rows])
    if not np.isfinite(probs).all():
        raise Diverged(f"{job.key}: the probs are no numbers after epoch {epoch + 1}")
    p_true = np.maximum(probs[np.arange(len(rows)), data.labels[rows]], 1e-7)
    steps, loss, accuracy, seconds = state.sums
    state.history.append({
        "epoch": epoch + 1, "loss": loss / steps, "accuracy": accuracy / steps,
        "val_loss": float(-np.log(p_true).mean()),
        "val_accuracy": float((probs.argmax(1) == data.labels[rows]).mean()),
        "learning_rate": rate, "seconds": seconds,
        "images_per_second": steps * trainer.batch_size / seconds})
    state.sums = [0.0] * checkpoints.N_SUMS
    state.seconds += time.perf_counter() - began
    return {"event": "epoch", "job": job.key, "settings": asdict(job), **state.history[-1],
            "rows": rows, "probs": probs}


def _write_artifacts(trainer: Trainer, job: FoldJob, data: FoldData, folder: Path,
                     state: TrainingState) -> dict[str, Any]:
    """Predict the val, test and extra rows, write the fold folder, and return its done.json."""
    import pandas as pd

    began = time.perf_counter()
    val = _predict_val(trainer, job, data)
    storage.write_npz(folder / "val.npz", row=data.val_rows, probs=val)
    if data.test_pixels is not None and data.test_ids is not None:
        before, test = predict_file(trainer, data.test_pixels, job.tta)
        arrays: dict[str, Any] = {"id": data.test_ids, "probs": test}
        if before is not test:
            arrays[records.BEFORE_SPREADING] = before
        storage.write_npz(folder / "test.npz", **arrays)
    if data.extra_pixels is not None:
        extra = predict_with_spreading(trainer, data.extra_pixels, job.tta)
        storage.write_npz(folder / "extra.npz", row=np.arange(len(extra)), probs=extra)
    storage.write_csv(folder / "history.csv", pd.DataFrame(state.history))
    storage.write_bytes(folder / "model.keras", _model_bytes(trainer.model, folder))
    pace = [line["images_per_second"] for line in state.history]
    done = {"job": asdict(job), "train_rows": len(data.train_rows), "val_rows": len(data.val_rows),
            "val_accuracy": float((val.argmax(1) == data.labels[data.val_rows]).mean()),
            "parameters": int(trainer.model.count_params()),
            "mflops": models.flops(trainer.model) / 1e6, "train_seconds": state.seconds,
            "predict_seconds": time.perf_counter() - began,
            "images_per_second": float(np.median(pace)),
            "trained_with": {"device": backend.device(), "versions": backend.versions()}}
    storage.write_json(folder / "done.json", done)  # the last: it says that the fold is finished
    return done


def _predict_val(trainer: Trainer, job: FoldJob, data: FoldData) -> np.ndarray:
    """Probs `(n_val, n_classes)` float32 of the val rows, read in parts as long as the test file.

    The parts are drawn at random. In a longer file a row has nearer neighbours, so all val rows
    together would promise what the test file does not keep.
    """
    rows = data.val_rows
    if not trainer.recipe.label_spreading or data.test_pixels is None:
        return predict_with_spreading(trainer, data.pixels[rows], job.tta)
    n_parts = max(1, round(len(rows) / len(data.test_pixels)))
    part = job.rng(PARTS).permutation(np.arange(len(rows)) % n_parts)
    probs = np.empty((len(rows), trainer.model.output.shape[-1]), "float32")
    for k in range(n_parts):
        probs[part == k] = predict_with_spreading(trainer, data.pixels[rows[part == k]], job.tta)
    return probs


def _model_bytes(model: Any, folder: Path) -> bytes:
    """The model as Keras saves it to a file, here one in a temporary folder below `folder`.

    There, unlike in /tmp, what a killed process leaves is removed when the run is resumed. Keras
    makes temporary folders of its own while it saves; they are led to the same place.
    """
    with os_errors.disk_errors(folder / "model.keras", "write"), \
            tempfile.TemporaryDirectory(  # whose clean-up fails on NFS, which keeps open files
                dir=folder, prefix=".model.", suffix=".tmp",
                ignore_cleanup_errors=True) as scratch:
        path = Path(scratch) / "model.keras"
        outside, tempfile.tempdir = tempfile.tempdir, scratch
        try:
            model.save(path)
        finally:
            tempfile.tempdir = outside
        return path.read_bytes()
