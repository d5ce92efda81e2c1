"""Write what `--tensorboard` shows: scalars, confusion matrix and mistakes of each epoch.

`TensorBoardProgress` wraps the progress display in the process that runs the command, and writes
event files into `<run>/tensorboard/<model>/seed_<s>/fold_<k>/` (`tensorboard --logdir runs`). So it
works alike with every executor and backend, and costs nothing where it was not asked for.
"""

import time
from pathlib import Path
from typing import Any

import numpy as np

from kit.core import installation
from kit.core.config import RunConfig
from kit.core.errors import KitError
from kit.core.progress import ForwardingProgress, Progress
from kit.data.competition import Competition
from kit.data.table import Table
from kit.reporting.pictures import png
from kit.training.jobs import FoldJob
from kit.training.own_models import recipe_of

SCALARS = {"loss": "loss/train", "val_loss": "loss/val", "accuracy": "accuracy/train",
           "val_accuracy": "accuracy/val", "learning_rate": "learning_rate",
           "images_per_second": "images_per_second"}
COLUMNS = 6  # of the picture of mistakes, which has as many rows
CELL = 16  # pixels, of the confusion matrix


class TensorBoardProgress(ForwardingProgress):
    """Passes progress on, and writes each epoch for TensorBoard. KitError without tensorboard."""

    def __init__(self, progress: Progress, folder: Path, train: Table, competition: Competition,
                 config: RunConfig) -> None:
        try:
            from tensorboard.summary.writer.event_file_writer import EventFileWriter
        except ModuleNotFoundError as error:
            raise KitError(f"--tensorboard needs a package that is missing: {error.name}",
                           f"{installation.how_to_install('tensorboard')}, or leave "
                           "--tensorboard out") from error
        super().__init__(progress)
        self.folder, self.train, self.competition = folder, train, competition
        self.config = config
        self._open: Any = EventFileWriter
        self._writers: dict[str, Any] = {}

    def on_epoch_end(self, event: dict[str, Any]) -> None:
        """Write an epoch: its history, and `probs` (n, n_classes) of the val rows `rows` (n,)."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        self.progress.on_epoch_end(event)
        labels = np.asarray(self.train.labels)[event["rows"]]
        summary = Summary(value=[
            *(Summary.Value(tag=tag, simple_value=event[name]) for name, tag in SCALARS.items()),
            *_confusion(labels, event["probs"]),
            *self._mistakes(labels, event["rows"], event["probs"])])
        job = FoldJob(**event["settings"])
        try:
            if job.key not in self._writers:
                self._writers[job.key] = self._open(str(self.folder / job.key))
                self._writers[job.key].add_event(
                    Event(wall_time=time.time(), step=0,
                          summary=_hyperparameters(job, self.config)))
            self._writers[job.key].add_event(
                Event(wall_time=time.time(), step=event["epoch"], summary=summary))
            self._writers[job.key].flush()
        except OSError as error:  # a full disk, say: no reason to end a training
            self.say(f"TensorBoard: {event['job']}: {error}")

    def stop(self) -> None:
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()
        self.progress.stop()

    def _mistakes(self, labels: np.ndarray, rows: np.ndarray, probs: np.ndarray) -> list[Any]:
        """The most confident mistakes as a picture, with a table of them in the same order."""
        predicted, confidence = probs.argmax(axis=1), probs.max(axis=1)
        wrong = np.flatnonzero(predicted != labels)
        wrong = wrong[np.argsort(-confidence[wrong], kind="stable")][:COLUMNS**2]
        if not len(wrong):
            return [_text("mistakes", "none")]
        height, width = self.competition.shape
        cells = np.full((-(-len(wrong) // COLUMNS) * COLUMNS, height, width), 255, np.uint8)
        cells[:len(wrong)] = 255 - self.train.pixels[rows[wrong]].reshape(-1, height, width)
        sheet = cells.reshape(-1, COLUMNS, height, width).swapaxes(1, 2)
        lines = ["| row | true | read as | confidence |", "|---|---|---|---|",
                 *(f"| {rows[i]} | {labels[i]} | {predicted[i]} | {confidence[i]:.3f} |"
                   for i in wrong)]
        return [_image("mistakes", sheet.reshape(-1, COLUMNS * width)),
                _text("mistakes", "\n".join(lines))]


def _confusion(labels: np.ndarray, probs: np.ndarray) -> list[Any]:
    """The confusion matrix as a picture and as a table."""
    from sklearn.metrics import confusion_matrix

    classes = range(probs.shape[1])
    matrix = confusion_matrix(labels, probs.argmax(axis=1), labels=classes)
    # The shares of each row in grey; logarithmic, so that a mistake in a thousand still shows
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    ink = np.clip(1 + np.log10(np.maximum(shares, 1e-9)) / 3, 0, 1)
    greys = 255 - np.rint(255 * ink).astype(np.uint8)
    lines = [f"| true \\ read as | {' | '.join(map(str, classes))} |",
             f"|---{'|---' * len(classes)}|",
             *(f"| **{k}** | {' | '.join(map(str, matrix[k]))} |" for k in classes)]
    return [_image("confusion", np.kron(greys, np.ones((CELL, CELL), np.uint8))),
            _text("confusion", "\n".join(lines))]


def _hyperparameters(job: FoldJob, config: RunConfig) -> Any:
    """Those of a job but seed and fold: TensorBoard groups the jobs that share them."""
    from tensorboard.plugins.hparams import summary_v2

    recipe = recipe_of(config, job.model)
    return summary_v2.hparams_pb({
        "model": job.model, "epochs": job.epochs, "batch_size": job.batch_size,
        "precision": job.precision, "tta": job.tta, "augment": recipe.augment is not None,
        "optimizer": recipe.optimizer, "learning_rate": recipe.learning_rate,
        "schedule": recipe.schedule})


def _image(tag: str, image: np.ndarray) -> Any:
    from tensorboard.compat.proto.summary_pb2 import Summary

    height, width = image.shape
    return Summary.Value(tag=tag, image=Summary.Image(
        height=height, width=width, colorspace=1, encoded_image_string=png(image)))


def _text(tag: str, words: str) -> Any:
    """Markdown, as the text plugin wants it."""
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
    from tensorboard.compat.proto.tensor_pb2 import TensorProto

    plugin = SummaryMetadata.PluginData(plugin_name="text")
    return Summary.Value(
        tag=f"{tag}/text", metadata=SummaryMetadata(plugin_data=plugin),
        tensor=TensorProto(dtype="DT_STRING", string_val=[words.encode()]))
