"""A run that looks real and takes a moment: drawn digits, writers of their own difficulty, plausible probs."""

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from kit.core import storage
from kit.data import competition as competitions
from kit.data.folds import Folds
from kit.data.strokes import GLYPHS, make_curve
from kit.data.table import Table
from kit.ensembling.blend import Member, RunResults, mean_probs
from kit.reporting import compare as comparing
from kit.reporting.report import build_report

CONFUSABLE = {0: 1, 1: 0, 2: 5, 3: 5, 4: 8, 5: 3, 6: 7, 7: 6, 8: 4, 9: 6}


@dataclass(frozen=True)
class FakeData:
    """What the report asks of a DataFolder."""

    tables: dict[str, Table | None]
    is_sample: bool = False
    source: str = "kaggle"
    manifest: dict = field(default_factory=dict)
    competition: competitions.Competition = competitions.KANNADA

    def train(self):
        return self.tables["train"]

    def test(self):
        return self.tables["test"]

    def extra(self):
        return self.tables["extra"]


@cache
def shapes(k):
    """(6, 784) uint8: six ways to draw the Kannada digit k, sheared and scaled."""
    rng, (y, x) = np.random.default_rng(k), np.mgrid[:28, :28].astype(np.float32)
    glyph = make_curve(GLYPHS[k][0])
    points = (glyph.basis @ glyph.control)[::2] - [0.35, 0.5]
    images = []
    for shear, width, height in rng.normal([0, 17, 18], [0.15, 2, 1], (6, 3)):
        px, py = 14 + width * (points[:, 0] + shear * points[:, 1]), 14 + height * points[:, 1]
        nearest = np.sqrt(((x[..., None] - px) ** 2 + (y[..., None] - py) ** 2).min(-1))
        images.append((255 * np.clip(1.9 - nearest, 0, 1)).ravel())
    return np.array(images).astype(np.uint8)


def digits(labels, rng):
    """(n, 784) uint8 pictures of Kannada digits."""
    return np.stack([shapes(k) for k in range(10)])[labels, rng.integers(6, size=len(labels))]


def fake_probs(labels, skill, rng):
    """(n, 10) float32 probs that are right about as often as `skill` (n,) in logits says, wrong the way people are."""
    logits = rng.normal(0, 1.2, (len(labels), 10))
    logits[np.arange(len(labels)), labels] += skill
    rival = np.array([CONFUSABLE[int(k)] for k in labels])
    logits[np.arange(len(labels)), rival] += rng.exponential(1.5, len(labels))
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)


def history(epochs, best, rng):
    at = np.arange(1, epochs + 1)
    wobble = np.exp(rng.normal(0, 0.06, epochs))
    val, train = (best + 0.25 * np.exp(-at / 2)) * wobble, 0.6 * best + 0.4 * np.exp(-at / 2)
    return pd.DataFrame({"epoch": at, "loss": 3 * train, "accuracy": 1 - train, "val_loss": 3.4 * val,
                         "val_accuracy": 1 - val, "learning_rate": 1e-3, "seconds": 9.5, "images_per_second": 4200.0})


def table(name, labels, rng, labelled):
    return Table(Path(name), digits(labels, rng), labels if labelled else None,
                 None if labelled else np.arange(len(labels)), f"{len(labels):064x}", ())


def fake_member(model, seed, skill, folds, ease, test_labels, extra_labels, rng, missing=()):
    oof = fake_probs(folds.labels, skill + ease, rng)
    finished = [k for k in np.unique(folds.fold) if k not in missing]
    oof[np.isin(folds.fold, missing)] = np.nan
    done = [{"job": {"model": model, "fold": int(k), "attempt": 0, "why": ""}, "parameters": 887_530,
             "train_seconds": 95.0, "images_per_second": 4200.0} for k in finished]
    return Member(model, seed, oof, [fake_probs(test_labels, skill - 1.5, rng) for _ in finished],
                  [fake_probs(extra_labels, skill - 3.5, rng) for _ in finished],
                  [history(12, 0.02, rng) for _ in finished], done)


def make_results(name="cnn-aug", models=("cnn_aug",), n_writers=12, rows=60, with_writers=True, is_sample=False,
                 missing=(), slug="kannada-mnist", extra=True, split="writer", skill=7.0, seed=7):
    """A RunResults of 5 folds over `n_writers` × `rows` digits; writer 0 is the hardest."""
    rng, competition = np.random.default_rng(seed), competitions.get(slug)
    labels = np.tile(np.arange(10, dtype=np.uint8), n_writers * rows // 10)
    writers = np.repeat(np.arange(n_writers, dtype=np.int32), rows)
    test_labels, extra_labels = rng.permutation(np.tile(np.arange(10), 30)), np.tile(np.arange(10), 20)
    folds = Folds(np.arange(len(labels)), labels, writers if with_writers else None, (writers % 5).astype(np.int8),
                  split, split == "writer")
    ease = np.linspace(-2, 1.5, n_writers)[writers]
    data = FakeData({"train": table("train.csv", labels, rng, True), "test": table("test.csv", test_labels, rng, False),
                     "extra": table("Dig-MNIST.csv", extra_labels, rng, True) if extra else None},
                    is_sample, "sample" if is_sample else "kaggle", competition=competition)
    rest = (folds, ease, test_labels, extra_labels, rng, missing)
    members = [fake_member(model, 0, skill, *rest) for model in models]
    config = {"competition": slug, "models": list(models), "n_folds": 5, "split": split, "seed": 0, "epochs": None,
              "class_prior": "auto",
              "command": f"kit submit --model {','.join(models)} --folds 5 --run {name}",
              "environment": {"python": "3.11.7", "platform": "Linux", "versions": {"keras": "3.12.0"}},
              "parameters": {}}
    return RunResults(
        name, config, competition, data, folds, members, fake_member("mlp", 0, skill - 2.5, *rest),
        oof=mean_probs([member.oof for member in members]),
        test=mean_probs([mean_probs(member.test) for member in members]),
        extra=mean_probs([mean_probs(member.extra) for member in members]) if extra else None,
        complete=not missing, timing={"seconds": {"reading": 1.2, "training": 475.0, "report": 2.0},
                                      "images_per_second": {model: 4200.0 for model in (*models, "mlp")}})


ESTIMATE = {"value": 0.952, "low": 0.931, "high": 0.968, "method": "Extrapolated from the writers' results.",
            "cross_check": {"held": 7, "of": 8, "groups": [
                {"writers": [k, k + 1, k + 2], "estimate": 0.95 + k / 500, "low": 0.93 + k / 500,
                 "high": 0.965 + k / 500, "actual": 0.945 + k / 300, "held": k < 7} for k in range(8)]}}


def build(results, estimate=ESTIMATE):
    """The report's dict, with a leaderboard estimate that is known beforehand (the true one has its own tests)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kit.reporting.report.estimate", lambda results: estimate)
        return build_report(results)


@pytest.fixture(name="make_results", scope="session")
def _make_results():
    return make_results


@pytest.fixture(name="build", scope="session")
def _build():
    return build


@pytest.fixture(scope="session")
def results():
    return make_results(models=("cnn_aug", "cnn"))


@pytest.fixture(scope="session")
def report(results):
    return build(results)


# -- two runs to compare --------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def pair(make_results):
    """Two runs on the same digits in the same folds, the first of them better."""
    return make_results(name="strong", skill=8.0), make_results(name="weak", skill=5.5)


def scored_submission(folder, results, rows=slice(None), **changes):
    """What `kit submit` leaves: oof.npz with everything that a comparison needs, and config.json."""
    arrays = {"row": results.folds.rows, "probs": results.oof.astype(np.float16), "label": results.folds.labels,
              "fold": results.folds.fold, "writer": results.folds.writers} | changes
    storage.write_npz(folder / "oof.npz", **{name: array[rows] for name, array in arrays.items() if array is not None})
    return written_config(folder, results)


def scored_run(folder, results):
    """What `kit cv` leaves: oof.npz with NaN for missing folds, folds.csv, and config.json."""
    folds = results.folds
    storage.write_npz(folder / "oof.npz", row=folds.rows, probs=results.oof)
    storage.write_csv(folder / "folds.csv", pd.DataFrame(
        {"row": folds.rows, "label": folds.labels, "writer": folds.writers, "fold": folds.fold}))
    return written_config(folder, results)


def written_config(folder, results):
    digest = results.data.train().sha256
    storage.write_json(folder / "config.json", {
        "config": results.config, "data": {"source": results.data.source, "is_sample": results.data.is_sample,
                                           "sha256": {"train.csv": digest}}})
    return folder


@pytest.fixture(scope="session")
def compared(pair, tmp_path_factory):
    folder = tmp_path_factory.mktemp("submissions")
    return comparing.compare(*(scored_submission(folder / results.name, results) for results in pair))


@pytest.fixture(scope="session")
def submission():
    return scored_submission


@pytest.fixture(scope="session")
def run():
    return scored_run
