"""Label spreading: what it mends, what it leaves alone, and where it comes in."""

import dataclasses

import numpy as np
import pytest

from kit.core import storage
from kit.core.errors import KitError
from kit.data import competition as competitions
from kit.training import fit, models, predict, records, spreading
from kit.training.jobs import FoldJob

N_CELLS = 80  # of eight writers and ten digits


def _pages(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, probs and features of digits by eight writers.

    Each writer's digits lie around a centre of their own. A fifth of the first writer's sevens are
    read as threes, with .6 to .4.
    """
    rng = np.random.default_rng(seed)
    cell = rng.permutation(np.arange(n) % N_CELLS)
    labels = cell % 10
    centres = np.abs(rng.normal(size=(N_CELLS, 64))) ** 4
    features = centres[cell] * rng.uniform(0.7, 1.3, (n, 64))
    probs = np.full((n, 10), 0.01)
    probs[np.arange(n), labels] = 0.91
    misread = (cell == 7) & (rng.random(n) < 0.2)
    probs[misread] = 0.0
    probs[misread, 3], probs[misread, 7] = 0.6, 0.4
    return labels, probs.astype("float32"), features.astype("float32")


def test_what_is_misread_among_rows_alike_is_read_right():
    labels, probs, features = _pages(4_000)
    wrong = probs.argmax(1) != labels
    assert 5 <= wrong.sum() <= 15
    spread = spreading.spread(probs, features)
    assert (spread.argmax(1) == labels).all()
    assert spread.dtype == "float32" and spread.shape == probs.shape
    assert np.allclose(spread.sum(1), 1, atol=1e-6)


def test_a_short_file_is_left_as_it_is():
    _, probs, features = _pages(spreading.LEAST_ROWS - 1)
    assert spreading.spread(probs, features) is probs


def test_the_order_of_rows_changes_nothing():
    _, probs, features = _pages(800)
    order = np.random.default_rng(1).permutation(800)
    assert np.allclose(spreading.spread(probs[order], features[order]),
                       spreading.spread(probs, features)[order], atol=1e-5)


@pytest.mark.parametrize("features", [np.zeros((600, 8), "float32"), np.ones((600, 8), "float32")],
                         ids=["all blank", "all alike"])
def test_rows_without_a_difference_keep_numbers(features):
    probs = np.random.default_rng(0).dirichlet(np.ones(10), 600).astype("float32")
    assert np.isfinite(spreading.spread(probs, features)).all()


@pytest.fixture
def alike(tiny, monkeypatch, fold_data):
    """The tiny recipe, which spreads from 20 rows on, trained for an epoch by `train`."""
    recipe = dataclasses.replace(tiny, label_spreading=True)
    monkeypatch.setitem(models.RECIPES, "tiny", recipe)
    monkeypatch.setattr(spreading, "LEAST_ROWS", 20)
    return recipe


def test_a_file_is_read_together_and_its_parts_are_bounded(alike, fold_data, monkeypatch):
    predictor = predict.Predictor(alike, competitions.get("kannada-mnist"), "float32")
    alone = predict.predict_probs(predictor, fold_data.pixels)
    together = predict.predict_with_spreading(predictor, fold_data.pixels)
    features = predictor.features_of(fold_data.pixels[:5].reshape(-1, 28, 28, 1))
    assert features.shape == (5, 13 * 13 * 4) and features.dtype == "float32"
    assert np.abs(alone - together).max() > 1e-3
    both = predict.predict_file(predictor, fold_data.pixels)
    assert all(map(np.array_equal, both, (alone, together)))
    sizes = []
    monkeypatch.setattr(predict, "MOST_ROWS", 100)
    monkeypatch.setattr(predict, "spread",
                        lambda probs, features: sizes.append(len(features)) or probs)
    assert np.array_equal(predict.predict_with_spreading(predictor, fold_data.pixels), alone)
    assert sizes == [90] * 4


def test_a_recipe_that_does_not_spread_reads_each_row_by_itself(tiny, fold_data, monkeypatch):
    monkeypatch.setattr(predict, "spread", None)
    predictor = predict.Predictor(tiny, competitions.get("kannada-mnist"), "float32")
    assert np.array_equal(predict.predict_with_spreading(predictor, fold_data.pixels),
                          predict.predict_probs(predictor, fold_data.pixels))


def test_val_rows_are_read_in_parts_as_long_as_the_test_file(alike, fold_data, tmp_path,
                                                             monkeypatch):
    """All together would have nearer neighbours than the test rows have."""
    sizes = []
    monkeypatch.setattr(predict, "spread", lambda probs, features:
                        sizes.append(len(probs)) or np.roll(probs, 1, axis=1))
    job = FoldJob("tiny", 0, 0, 1, 50, "float32", 1)
    data = dataclasses.replace(fold_data, extra_pixels=None)  # 60 val rows, 30 test rows
    fit.train_fold(job, alike, competitions.get("kannada-mnist"), data, tmp_path / "fold")
    assert sizes == [30, 30, 30]
    kept = storage.read_npz(tmp_path / "fold" / "test.npz")
    assert list(kept) == ["id", "probs", "probs_before_spreading"]
    assert np.array_equal(kept["probs"], np.roll(kept["probs_before_spreading"], 1, axis=1))
    read = records.read_test_probs(tmp_path / "fold", "tiny", 10)
    assert all(map(np.array_equal, read, kept.values()))


@pytest.mark.parametrize(("model", "known"), [("mlp", True), ("my_model-build", True),
                                              ("light", False), ("strong", False)])
def test_a_fold_of_an_older_kit_does_not_say_what_label_spreading_changed(tmp_path, model, known):
    """It has not kept the probs before it; a model that reads row by row has them anyway."""
    probs = np.full((4, 10), 0.1, "float32")
    storage.write_npz(tmp_path / "test.npz", id=np.arange(4), probs=probs)
    before = records.read_test_probs(tmp_path, model, 10)[2]
    assert np.array_equal(before, probs) if known else before is None


def test_probs_before_spreading_that_are_none_are_damage(tmp_path):
    probs = np.full((4, 10), 0.1, "float32")
    storage.write_npz(tmp_path / "test.npz", id=np.arange(4), probs=probs,
                      probs_before_spreading=probs[:, :9])
    with pytest.raises(KitError, match="not probabilities of 10 classes"):
        records.read_test_probs(tmp_path, "light", 10)
