"""Read what a finished fold left: done.json, history.csv, probs and weights, checked on the way.

A run folder may come from another version of the kit. Checksums show damage; these checks find what
this version cannot use, and raise a KitError for it.
"""

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from kit.core import storage
from kit.core.config import PRECISIONS, RunConfig
from kit.core.errors import KitError
from kit.core.run_folder import RunFolder
from kit.data import competition
from kit.training import models
from kit.training.jobs import FoldJob

NUMBERS = ("val_accuracy", "val_rows", "parameters", "train_seconds", "predict_seconds", "images_per_second")
HISTORY = ("epoch", "loss", "accuracy", "val_loss", "val_accuracy", "learning_rate", "seconds", "images_per_second")


def read_config(run: Path) -> RunConfig:
    """The config of a run. KitError where it is missing, damaged, or names unknown models."""
    path = RunFolder(run).config
    values = storage.read_json(path, "config")["config"]
    try:
        config = RunConfig.from_dict(values)
        competition.get(config.competition)
        for model in config.models:
            models.get(model)
    except KitError as error:
        raise KitError(f"{path}: {error.message}", error.fix) from error
    return config


def read_done(folder: Path) -> dict[str, Any]:
    """A fold's done.json, with a `job` that makes a FoldJob.

    KitError if it is missing or damaged, or its job is one of another version of the kit.
    """
    path = folder / "done.json"
    done = storage.read_json(path, "job", *NUMBERS)
    try:
        job = FoldJob(**done["job"])
    except TypeError as error:
        raise storage.damaged(path, "its job has other fields than the kit's") from error
    if job.model not in models.RECIPES or job.precision not in PRECISIONS[1:]:
        raise storage.damaged(path, "its job is none of the kit's")
    return {**done, "job": asdict(job)}


def read_history(folder: Path) -> Any:
    """A fold's learning curve as a pandas frame. KitError if it is missing or damaged."""
    path = folder / "history.csv"
    history = storage.read_csv(path)
    if not set(HISTORY) <= set(history) or any(history[name].dtype.kind not in "if" for name in HISTORY):
        raise storage.damaged(path, f"not a table of numbers {','.join(HISTORY)}")
    return history


def read_fold(parts: list[Path]) -> tuple[dict[str, Any], Any]:
    """done.json and history of a fold from its `rounds`: the last one's, with all their time."""
    import pandas as pd

    done, history = [read_done(part) for part in parts], pd.concat(map(read_history, parts), ignore_index=True)
    history["epoch"] = np.arange(1, len(history) + 1)
    return {**done[-1], "train_seconds": sum(part["train_seconds"] for part in done)}, history


def read_probs(path: Path, key: str, n_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Ids or rows `(n,)`, and probs `(n, n_classes)`, each from 0 to 1. KitError if missing or damaged."""
    arrays = storage.read_npz(path, key, "probs")
    ids, probs = arrays[key], arrays["probs"]
    if ids.ndim != 1 or ids.dtype.kind not in "iuU" or probs.dtype.kind != "f" or probs.ndim != 2 \
            or probs.shape[1] != n_classes or not ((probs >= 0) & (probs <= 1)).all():
        raise storage.damaged(path, f"its probs are not probabilities of {n_classes} classes")
    return ids, probs


def read_guesses(path: Path, ids: np.ndarray, n_classes: int) -> np.ndarray:
    """Labels `(n,)` uint8 that the run has guessed for the test rows `ids`.

    KitError if they are missing, damaged, or of another test file.
    """
    arrays = storage.read_npz(path, "id", "label")
    labels = arrays["label"]
    if not np.array_equal(arrays["id"], ids) or labels.shape != ids.shape or labels.dtype != np.uint8 \
            or (labels >= n_classes).any():
        raise storage.damaged(path, "its labels are not those of the test file")
    return labels


def rounds(folder: Path, most: int) -> list[Path]:
    """A finished fold's folder and those of its first `most` rounds of self-training, the last of which votes."""
    return [folder, *sorted(done.parent for done in folder.glob("guesses_*/done.json"))][:most + 1]


def load_weights(model: Any, path: Path) -> None:
    """Load the weights of a `model.keras` into `model`; nothing else in the file is used."""
    data = storage.read_bytes(path)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "model.keras"
        with storage.disk_errors(copy, "write"):
            copy.write_bytes(data)
        try:
            model.load_weights(copy)
        except Exception as error:  # zipfile, h5py, json and Keras raise a dozen kinds on damaged files
            raise storage.damaged(path, f"its weights do not fit {model.name} ({type(error).__name__})") from error
