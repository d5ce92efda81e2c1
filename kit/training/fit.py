"""Train one fold: schedule, checkpoints, resume.

In go a fold's job and the data; out comes a fold folder: model, history, and the probs of what the model never saw.
The one idea: everything random is a function of (seed, fold, step). The order of rows and the augmentation are drawn
with NumPy for each epoch, and dropout's generators are set to the step before each chunk, so a run that was killed and
one that was not go through the same numbers.
"""

import contextlib
import functools
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from kit.core import backend, storage
from kit.data.competition import Competition
from kit.training import checkpoints, loops, predict
from kit.training.augment import warp
from kit.training.checkpoints import Course
from kit.training.jobs import FoldData, FoldJob
from kit.training.models import Recipe

CURVE_ROWS = 2_000  # val rows, drawn once a fold, behind each epoch's point of the learning curve; after the last, all
CHUNK_ROWS = 12_800  # rows between two looks at the clock: some seconds on two cores

Report = Callable[[dict[str, Any]], None]


class Diverged(Exception):
    """The loss of a fold is no longer a number."""


WEIGHTS, DROPOUT, ORDER, WARPS, CURVE = range(5)  # the streams


class Trainer:
    """A compiled model that is trained again and again: building Keras models anew would leak some 10 MB each time."""

    def __init__(self, recipe: Recipe, competition: Competition, precision: str, batch_size: int) -> None:
        import keras

        self.recipe, self.shape, self.batch_size = recipe, competition.shape, batch_size
        outside = keras.config.dtype_policy()
        keras.config.set_dtype_policy(backend.dtype_policy(precision))
        try:
            self.model = recipe.build(competition)
        finally:
            keras.config.set_dtype_policy(outside)
        self.net = keras.Model(self.model.input, self.model.get_layer("logits").output)
        self.optimizer = _optimizer(recipe, precision)
        self.optimizer.build(self.net.trainable_variables)
        self.variables = [*self.net.variables, *self.optimizer.variables]
        self._blank = self.state()
        self.train = loops.training_loop(self)
        self.predict_batch = loops.prediction(self.model, self.shape)

    def state(self) -> list[np.ndarray]:
        """Every variable of network and optimizer, in a fixed order."""
        values = [variable.value for variable in self.variables]
        return [np.asarray(value.numpy() if hasattr(value, "numpy") else value) for value in values]

    def restore(self, state: list[np.ndarray]) -> None:
        for variable, value in zip(self.variables, state, strict=True):
            variable.assign(value)

    def reset(self, job: FoldJob) -> None:
        """Fresh weights from the job's seed, and an optimizer that has seen nothing."""
        self.restore(self._blank)
        for i, layer in enumerate(layer for layer in self.net.layers if hasattr(layer, "kernel_initializer")):
            settings = layer.kernel_initializer.get_config() | {"seed": int(job.rng(WEIGHTS, i).integers(2**31))}
            layer.kernel.assign(type(layer.kernel_initializer)(**settings)(layer.kernel.shape))

    def seed_dropout(self, job: FoldJob, step: int) -> None:
        """Set dropout's generators to what they are before `step`: Keras adds one to the second word at each use."""
        for i, layer in enumerate(layer for layer in self.net.layers if hasattr(layer, "seed_generator")):
            layer.seed_generator.state.assign([int(job.rng(DROPOUT, i).integers(2**31)), step])

    def augmented(self, images: Any, transforms: Any) -> Any:
        """uint8 images → float32 0–255, warped where the recipe asks for it."""
        from keras import ops

        images = ops.cast(images, "float32")
        return warp(images, transforms) if self.recipe.augment else images

    def cross_entropy(self, logits: Any, labels: Any) -> tuple[Any, Any]:
        """Mean cross-entropy of a batch, and how many of its rows are right; float32 scalars."""
        from keras import ops

        loss = -ops.mean(ops.sum(ops.one_hot(labels, logits.shape[-1]) * ops.log_softmax(logits), -1))
        hits = ops.cast(ops.argmax(logits, -1), "int32") == ops.cast(labels, "int32")
        return loss, ops.sum(ops.cast(hits, "float32"))


def _optimizer(recipe: Recipe, precision: str) -> Any:
    import keras

    optimizer = keras.optimizers.get({"class_name": recipe.optimizer,
                                      "config": {"learning_rate": recipe.learning_rate}})
    return keras.optimizers.LossScaleOptimizer(optimizer) if precision == "float16" else optimizer


@functools.lru_cache(maxsize=8)
def trainer_for(recipe: Recipe, competition_slug: str, precision: str, batch_size: int) -> Trainer:
    """The one trainer of these settings in this process."""
    from kit.data import competition

    return Trainer(recipe, competition.get(competition_slug), precision, batch_size)


def learning_rates(recipe: Recipe, total_steps: int) -> np.ndarray:
    """`(total_steps,)` float32: constant, or half a cosine down to zero."""
    if recipe.schedule == "constant":
        return np.full(total_steps, recipe.learning_rate, "float32")
    done = (np.arange(total_steps) + 0.5) / total_steps
    return (recipe.learning_rate * 0.5 * (1 + np.cos(np.pi * done))).astype("float32")


# -- one fold -------------------------------------------------------------------------------------------------------


def is_done(folder: Path) -> bool:
    return (folder / "done.json").is_file()


def train_fold(job: FoldJob, recipe: Recipe, competition: Competition, data: FoldData, folder: Path,
               report: Report = lambda event: None, start: Path = Path()) -> None:
    """Train one fold and leave its artifacts in `folder`; nothing to do where they are. Raises `Diverged`.

    A checkpoint in the folder is continued from, and gone once the fold is done. A round of self-training begins with
    the model in the folder `start`.
    """
    if is_done(folder):
        return
    trainer = trainer_for(recipe, competition.slug, job.precision, min(job.batch_size, len(data.train_rows)))
    per_epoch = len(data.train_rows) // trainer.batch_size
    course = checkpoints.load(trainer, job, per_epoch, folder / "checkpoint.npz", start)
    _train(trainer, job, data, folder, course, report)
    _write_artifacts(trainer, job, data, folder, course)
    (folder / "checkpoint.npz").unlink(missing_ok=True)


def _train(trainer: Trainer, job: FoldJob, data: FoldData, folder: Path, course: Course, report: Report) -> None:
    from keras import ops

    images = on_device(data.pixels, trainer.shape)
    labels = ops.convert_to_tensor(data.labels.astype("int32"))
    per_epoch = len(data.train_rows) // trainer.batch_size
    rates = learning_rates(trainer.recipe, per_epoch * job.epochs)
    keeper = checkpoints.Keeper(folder / "checkpoint.npz")
    for epoch in range(course.step // per_epoch, job.epochs):
        order, transforms = draw_epoch(trainer, job, data.train_rows, epoch, per_epoch)
        for steps in chunks(course.step - epoch * per_epoch, per_epoch, trainer.batch_size):
            began = time.perf_counter()
            trainer.seed_dropout(job, course.step)
            ahead = slice(course.step, course.step + len(steps))
            loss, accuracy = trainer.train(images, labels, order[steps], transforms[steps], rates[ahead])
            if not np.isfinite(loss):
                raise Diverged(f"{job.key}: the loss is {loss} in epoch {epoch + 1}")
            course.step = ahead.stop
            seconds = time.perf_counter() - began
            course.sums = [a + b for a, b in zip(course.sums, _sums(len(steps), loss, accuracy, seconds), strict=True)]
            course.seconds += seconds
            report(_event(job, course, per_epoch, trainer.batch_size))
            if ahead.stop % per_epoch:
                keeper.maybe(trainer, job, course, checkpoints.SECONDS)
        report(_close_epoch(trainer, job, data, course, epoch, float(rates[course.step - 1])))
        keeper.maybe(trainer, job, course, 0.0)


_latest: dict[str, Any] = {}


def on_device(pixels: np.ndarray, shape: tuple[int, int]) -> Any:
    """Pixels `(n, h·w)` as a tensor `(n, h, w, 1)`; the latest stays for the next fold, which has the same.

    TensorFlow frees a tensor late, and needs a second copy to make one: anew for each fold, four bytes a pixel would be
    in use at once, the file's own among them; so it is three (docs/lab-log.md, 2026-11-22).
    """
    from keras import ops

    if _latest.get("pixels") is not pixels:
        _latest.clear()
        _latest.update(pixels=pixels, images=ops.convert_to_tensor(pixels.reshape(-1, *shape, 1)))
    return _latest["images"]


def draw_epoch(trainer: Trainer, job: FoldJob, rows: np.ndarray, epoch: int,
                steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers `(steps, batch)` int32 and transforms `(steps, batch, 8)`; rows left over wait for another epoch."""
    batch = trainer.batch_size
    order = job.rng(ORDER, epoch).permutation(rows)[:steps * batch].reshape(steps, batch).astype("int32")
    if trainer.recipe.augment is None:
        return order, np.zeros((steps, 0, 8), "float32")
    transforms = trainer.recipe.augment.draw(job.rng(WARPS, epoch), steps * batch, trainer.shape)
    return order, transforms.reshape(steps, batch, 8)


def chunks(start: int, stop: int, batch_size: int) -> list[np.ndarray]:
    """The steps of an epoch from `start` on, in runs of about `CHUNK_ROWS` rows."""
    size = max(1, CHUNK_ROWS // batch_size)
    return [np.arange(first, min(first + size, stop)) for first in range(start, stop, size)]


def _sums(steps: int, loss: float, accuracy: float, seconds: float) -> list[float]:
    return [steps, loss * steps, accuracy * steps, seconds]


def _event(job: FoldJob, course: Course, per_epoch: int, batch_size: int) -> dict[str, Any]:
    steps, loss, accuracy, seconds = course.sums
    return {"event": "step", "job": job.key, "epoch": (course.step - 1) // per_epoch + 1, "epochs": job.epochs,
            "done": course.step / (per_epoch * job.epochs), "loss": loss / steps, "accuracy": accuracy / steps,
            "images_per_second": steps * batch_size / seconds}


def curve_rows(job: FoldJob, val_rows: np.ndarray, epoch: int) -> np.ndarray:
    """The val rows behind the point of the learning curve after `epoch`, ascending; after the last one, all.

    They are drawn, not every n-th: labels cycle 0-9 from row to row, so every fifth row shows two of the ten digits.
    """
    if epoch + 1 == job.epochs or len(val_rows) <= CURVE_ROWS:
        return val_rows
    return np.sort(job.rng(CURVE).choice(val_rows, CURVE_ROWS, replace=False))


def _close_epoch(trainer: Trainer, job: FoldJob, data: FoldData, course: Course, epoch: int,
                 rate: float) -> dict[str, Any]:
    """Turn the epoch's sums into a line of the history, with the curve's val loss and accuracy; returns its event.

    Raises `Diverged` where the network's answers are no numbers any more.
    """
    began = time.perf_counter()
    rows = curve_rows(job, data.val_rows, epoch)
    probs = predict.predict_probs(trainer, data.pixels[rows])
    if not np.isfinite(probs).all():
        raise Diverged(f"{job.key}: the probs are no numbers after epoch {epoch + 1}")
    right = np.maximum(probs[np.arange(len(rows)), data.labels[rows]], 1e-7)
    steps, loss, accuracy, seconds = course.sums
    course.history.append({
        "epoch": epoch + 1, "loss": loss / steps, "accuracy": accuracy / steps,
        "val_loss": float(-np.log(right).mean()), "val_accuracy": float((probs.argmax(1) == data.labels[rows]).mean()),
        "learning_rate": rate, "seconds": seconds, "images_per_second": steps * trainer.batch_size / seconds})
    course.sums = [0.0] * checkpoints.N_SUMS
    course.seconds += time.perf_counter() - began
    return {"event": "epoch", "job": job.key, "settings": asdict(job), **course.history[-1], "rows": rows,
            "probs": probs}


def _write_artifacts(trainer: Trainer, job: FoldJob, data: FoldData, folder: Path, course: Course) -> None:
    import pandas as pd

    began = time.perf_counter()
    val = predict.predict_probs(trainer, data.pixels[data.val_rows], job.tta)
    storage.write_npz(folder / "val.npz", row=data.val_rows, probs=val)
    if data.test_pixels is not None and data.test_ids is not None:
        test = predict.predict_probs(trainer, data.test_pixels, job.tta)
        storage.write_npz(folder / "test.npz", id=data.test_ids, probs=test)
    if data.extra_pixels is not None:
        extra = predict.predict_probs(trainer, data.extra_pixels, job.tta)
        storage.write_npz(folder / "extra.npz", row=np.arange(len(extra)), probs=extra)
    storage.write_csv(folder / "history.csv", pd.DataFrame(course.history))
    storage.write_bytes(folder / "model.keras", _model_bytes(trainer.model, folder))
    storage.write_json(folder / "done.json", {
        "job": asdict(job), "train_rows": len(data.train_rows), "val_rows": len(data.val_rows),
        "val_accuracy": float((val.argmax(1) == data.labels[data.val_rows]).mean()),
        "parameters": trainer.model.count_params(), "train_seconds": course.seconds,
        "predict_seconds": time.perf_counter() - began,
        "images_per_second": float(np.median([line["images_per_second"] for line in course.history]))})


def _model_bytes(model: Any, folder: Path) -> bytes:
    """What Keras saves, by way of a folder below `folder`, where what a killed process leaves is swept away."""
    with storage.disk_errors(folder / "model.keras", "write"), \
            tempfile.TemporaryDirectory(dir=folder, prefix=".model.", suffix=".tmp",
                                        ignore_cleanup_errors=True) as scratch:  # NFS keeps what is still open
        path = Path(scratch) / "model.keras"
        with _temporary_files_in(scratch):
            model.save(path)
        return path.read_bytes()


@contextlib.contextmanager
def _temporary_files_in(folder: str) -> Iterator[None]:
    """Keras makes folders of its own while it saves: let them lie in `folder`."""
    outside, tempfile.tempdir = tempfile.tempdir, folder
    try:
        yield
    finally:
        tempfile.tempdir = outside
