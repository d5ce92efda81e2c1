"""Read what training left in a run folder: its config, and a fold's done.json, probs and weights.

The weights may also be those that a submission keeps. Checksums show damage. A folder may also come
from another version of the kit: what this one cannot use is a KitError.
"""

import re
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kit.core import os_errors, storage
from kit.core.config import RunConfig, matches_type
from kit.core.errors import KitError
from kit.core.run_folder import RunFolder, finished_folds, round_key
from kit.data import competition as competitions
from kit.data.competition import Competition
from kit.training import models
from kit.training.jobs import FoldJob
from kit.training.own_models import check_known

SETTLED = ("precision", "executor", "threads")  # kept when a run is resumed, wherever
BEFORE_SPREADING = "probs_before_spreading"  # in the test.npz of a fold that spreads labels
NUMBERS = ("val_accuracy", "val_rows", "parameters", "train_seconds", "predict_seconds",
           "images_per_second")


@dataclass(frozen=True)
class TrainedFold:
    """A trained fold that votes in the ensemble."""

    key: str  # model/seed_s/fold_k
    weights: Path  # model.keras in a run, an .npz in a submission
    done: dict[str, Any]  # its done.json

    @property
    def job(self) -> FoldJob:
        return FoldJob(**self.done["job"])


def read_config(run: Path) -> RunConfig:
    """The config of a run. KitError as for `read_config_and_competition`."""
    return read_config_and_competition(run)[0]


def read_config_and_competition(run: Path) -> tuple[RunConfig, Competition]:
    """The config of a run, and its competition as its file said when the run began.

    KitError where the config is missing, damaged, or names unknown models or competitions.

    The config of an older version of the kit is read as one of today's (`RunConfig.from_dict`). If
    that is not possible, the KitError names the commit of the version that wrote it.
    """
    path = RunFolder(run).config
    stored = storage.read_json(path, "config")
    try:
        config = RunConfig.from_dict(stored["config"])
        competition = competitions.from_record(stored, config.competition)
        check_known(config)
    except KitError as error:
        commit = re.match("[0-9a-f]{12}", str(stored.get("git_commit")))
        wrote = f" (written by the kit's commit {commit[0]})" if commit else ""
        raise KitError(f"{path}: {error.message}{wrote}", error.fix) from error
    return config, competition


def read_competition(run: Path) -> Competition:
    """The competition of a run, a submission or a blend: as its file said when it was made.

    KitError where it is missing, damaged or unknown.
    """
    path = RunFolder(run).config
    stored = storage.read_json(path, "config")
    slug = stored["config"].get("competition", RunConfig.competition) \
        if isinstance(stored["config"], dict) else None
    if not isinstance(slug, str):
        raise storage.damaged(path, "it does not say which competition it is for")
    try:
        return competitions.from_record(stored, slug)
    except KitError as error:
        raise KitError(f"{path}: {error.message}", error.fix) from error


def read_data_record(run: Path) -> dict[str, Any]:
    """Which data a run was trained on: `is_sample`, and `sha256` of its tables by their names."""
    path = RunFolder(run).config
    data = storage.read_json(path, "data")["data"]
    if not isinstance(data, dict) or not isinstance(data.get("sha256"), dict) \
            or not matches_type(data.get("is_sample"), bool):
        raise storage.damaged(path, "it does not say which data the run was trained on")
    return data


def read_settled(run: Path) -> dict[str, Any]:
    """The precision, executor, threads and backend that a run trains with.

    KitError without them: a run of a kit from before 2026-11-22 has not recorded them.
    """
    path = RunFolder(run).config
    stored = storage.read_json(path, "config")
    if "settled" not in stored:
        raise KitError(
            f"{path} was written by a kit from before 2026-11-22, which did not record the "
            "precision and the threads of the training, so the run cannot be continued",
            "it can be reported, compared and predicted with; to train, start a new run with --run")
    settled = stored["settled"]
    if not isinstance(settled, dict) or set(settled) != {*SETTLED, "backend"}:
        raise storage.damaged(path, "it does not say how the run was trained")
    try:
        RunConfig(**{name: settled[name] for name in SETTLED})
    except KitError as error:
        raise storage.damaged(path, f"it was not trained so: {error.message}") from error
    return settled


def read_done(folder: Path) -> dict[str, Any]:
    """A fold's done.json, with a `job` that makes a FoldJob.

    KitError if it is missing or damaged, or its job is one of another version of the kit.
    """
    path = folder / "done.json"
    return _checked_done(storage.read_json(path, "job", *NUMBERS), path)


def _checked_done(done: dict[str, Any], path: Path) -> dict[str, Any]:
    try:
        job = FoldJob(**done["job"])
    except TypeError as error:
        raise storage.damaged(path, "its job has other fields than the kit's") from error
    if job.model not in models.RECIPES and "-" not in job.model:  # as those of one's own are named
        raise storage.damaged(path, "its job is none of the kit's")
    return {**done, "job": asdict(job)}


def untrained(run: RunFolder, config: RunConfig) -> str:
    """How many folds of a run's members are not trained, in words; empty where all are."""
    there = _kept(run) if run.keeps_weights else finished_folds(run.path)
    if not (left := config.n_jobs - len(voting_keys(config, there))):
        return ""
    return f"{left} of {config.n_jobs} folds {'is' if left == 1 else 'are'} not trained"


def trained_folds(run: RunFolder, config: RunConfig) -> list[TrainedFold]:
    """The trained folds of a run's members, or those whose weights a submission keeps.

    After self-training, each as it was after the last round that the config asks for and that all
    of them have finished.
    """
    if run.keeps_weights:
        kept = _kept(run)
        return [TrainedFold(key, kept_file(run, key), _checked_done(kept[key], run.kept_folds))
                for key in voting_keys(config, kept)]
    keys = voting_keys(config, finished_folds(run.path))
    most = finished_rounds(run.path, keys, config.self_train)
    voters = {key: rounds(run.path / key, most)[-1] for key in keys}
    return [TrainedFold(key, voter / "model.keras", read_done(voter))
            for key, voter in voters.items()]


def kept_file(submission: RunFolder, key: str) -> Path:
    """The weights that a submission keeps of the fold `key`."""
    return submission.weights / f"{key.replace('/', '-')}.npz"


def _kept(submission: RunFolder) -> dict[str, dict[str, Any]]:
    """The done.json of each fold whose weights a submission keeps."""
    return storage.read_json(submission.kept_folds, "folds")["folds"]


def voting_keys(config: RunConfig, there: Iterable[str]) -> list[str]:
    """Those of the folds `there` that are of a member, not of the baseline, in order."""
    keys = (f"{model}/seed_{seed}/fold_{k}" for model, seed in config.members
            for k in range(config.n_folds))
    there = set(there)
    return [key for key in keys if key in there]


def read_probs(path: Path, key: str, n_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Ids or rows `(n,)`, and probs `(n, n_classes)`.

    KitError if the file is missing or damaged, or of another number of classes.
    """
    arrays = storage.read_npz(path, key, "probs")
    return arrays[key], _checked_probs(arrays["probs"], n_classes, path)


def read_test_probs(fold: Path, model: str, n_classes: int
                    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Ids `(n,)` of a fold of `model`, its test probs `(n, n_classes)`, and those before spreading.

    These are the probs themselves where the model does not spread labels. They are None where it
    does and the fold has not kept them, as with kits from before 2026-11-30. KitError as of
    `read_probs`.
    """
    path = fold / "test.npz"
    arrays = storage.read_npz(path, "id", "probs")
    probs = _checked_probs(arrays["probs"], n_classes, path)
    if BEFORE_SPREADING in arrays:
        return arrays["id"], probs, _checked_probs(arrays[BEFORE_SPREADING], n_classes, path)
    recipe = models.RECIPES.get(model)  # the user's own models do not spread labels
    return arrays["id"], probs, None if recipe and recipe.label_spreading else probs


def _checked_probs(probs: np.ndarray, n_classes: int, path: Path) -> np.ndarray:
    if probs.shape[1:] != (n_classes,) or not ((probs >= 0) & (probs <= 1)).all():
        raise storage.damaged(path, f"its probs are not probabilities of {n_classes} classes")
    return probs


def finished_rounds(run: Path, folds: Sequence[str], most: int) -> int:
    """How many of the first `most` rounds of self-training all of the `folds` (keys) have finished.

    A round that some have not finished counts for none: an ensemble is of one age.
    """
    finished = [n for n in range(1, most + 1)
                if all((run / round_key(fold, n) / "done.json").is_file() for fold in folds)]
    return max(finished, default=0) if folds else 0


def rounds(folder: Path, most: int) -> list[Path]:
    """A finished fold's folder, then those of its first `most` rounds of self-training.

    The last one's model is the one that votes.
    """
    return [folder, *sorted(done.parent for done in folder.glob("guesses_*/done.json"))][:most + 1]


def load_weights(model: Any, path: Path) -> None:
    """Load the weights of a `model.keras` into `model`; nothing else in the file is used."""
    data = storage.read_bytes(path)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "model.keras"
        with os_errors.disk_errors(copy, "write"):
            copy.write_bytes(data)
        try:
            model.load_weights(copy)
        # zipfile, h5py, json and Keras raise a dozen kinds on damaged files
        except Exception as error:
            raise storage.damaged(path, f"its weights do not fit {model.name} "
                                        f"({type(error).__name__})") from error
