"""What a submission keeps of its run predicts as the run does, and a model that has changed is refused."""

import dataclasses
import shutil

import numpy as np
import pytest

from kit.core import storage
from kit.core.errors import KitError
from kit.core.progress import Progress
from kit.core.run_folder import RunFolder
from kit.data.competition import KANNADA
from kit.ensembling.predict import ensemble_probs
from kit.training import fit, kept_weights, models, records
from kit.training.jobs import FoldJob
from kit.training.predict import predict_probs, predictor_for

COMMIT = "0123456789abcdef" * 2 + "01234567"


def normed_layers(filters=4, activation="relu"):
    from keras import layers

    from kit.training.layers import BatchNorm

    return [layers.Conv2D(filters, 5, strides=2, use_bias=False), BatchNorm(), layers.Activation(activation),
            layers.Flatten(), layers.Dense(16, activation="relu")]


def change(monkeypatch, **changes):
    """Another recipe of the same name, as of another version of the kit."""
    layers = lambda: normed_layers(**changes)  # noqa: E731
    monkeypatch.setitem(models.RECIPES, "normed", dataclasses.replace(models.get("normed"), layers=layers))


@pytest.fixture(scope="module", autouse=True)
def normed(tiny):
    models.RECIPES["normed"] = dataclasses.replace(tiny, name="normed", layers=normed_layers, augment=None,
                                                   learning_rate=5e-3)
    yield
    del models.RECIPES["normed"]


@pytest.fixture(scope="module")
def run(normed, fold_data, tmp_path_factory):
    """A run of two folds of a model with normalisation, and one of the baseline's."""
    folder = RunFolder(tmp_path_factory.mktemp("runs") / "a-run")
    storage.write_json(folder.config, {"config": {"models": ["normed"], "n_folds": 2}, "git_commit": COMMIT})
    for model, k in (("normed", 0), ("normed", 1), ("mlp", 0)):
        job = FoldJob(model, 0, k, 15, 32, "float32", 2)
        fit.train_fold(job, models.get(model), KANNADA, fold_data, folder.fold(model, 0, k))
    return folder


@pytest.fixture
def submission(run, fold_data, tmp_path):
    """Its submission's folder, with the weights and the config.json alone."""
    folder = RunFolder(tmp_path / "submissions" / "a-run")
    storage.write_bytes(folder.config, storage.read_bytes(run.config))
    kept_weights.keep(run, folder, fold_data.test_pixels)
    return folder


def test_what_is_kept_are_the_voting_folds_as_float16_with_their_checksums(run, submission):
    names = {"normed-seed_0-fold_0.npz", "normed-seed_0-fold_1.npz", "folds.json"}
    assert {path.name for path in submission.weights.iterdir()} == {*names, "checksums.json"}
    assert set(storage.read_json(submission.weights / "checksums.json")) == names
    with np.load(submission.weights / "normed-seed_0-fold_0.npz", allow_pickle=False) as file:
        arrays = dict(file)
    weights = {name: (array.shape, str(array.dtype)) for name, array in arrays.items() if "/" in name}
    assert weights == {name: (shape, "float16") for name, shape in {
        "00_Conv2D/0_kernel": (5, 5, 1, 4), "01_BatchNorm/0_gamma": (4,), "01_BatchNorm/1_beta": (4,),
        "01_BatchNorm/2_mean": (4,), "01_BatchNorm/3_variance": (4,), "02_Dense/0_kernel": (576, 16),
        "02_Dense/1_bias": (16,), "03_Dense/0_kernel": (16, 10), "03_Dense/1_bias": (10,)}.items()}
    assert np.abs(arrays["01_BatchNorm/2_mean"]).min() > 0  # not as a new model has it
    assert arrays["check_pixels"].shape == (30, 784) and str(arrays["commit"]) == COMMIT
    config = records.read_config(run.path)
    assert [fold.done for fold in records.trained_folds(submission, config)] \
        == [fold.done for fold in records.trained_folds(run, config)]
    assert records.untrained(submission, config) == ""


def test_rounding_changes_hardly_a_label(run, submission, fold_data):
    """On 360 digits: one label at most, probs by a hundredth at most."""
    read = records.read_config_and_competition(run.path)
    trained, rounded = (ensemble_probs(folder, *read, fold_data.pixels, Progress())
                        for folder in (run, submission))
    assert 0 < np.abs(trained - rounded).max() < 0.01
    assert (trained.argmax(1) != rounded.argmax(1)).sum() <= 1
    assert (rounded.argmax(1) == fold_data.labels).mean() > 0.5  # it has learnt something


@pytest.mark.parametrize(("changes", "words"), [
    ({"filters": 8}, "00_Conv2D/0_kernel: 5×5×1×4 → 5×5×1×8; "), ({"activation": "sigmoid"}, "of the probs")])
def test_weights_of_another_recipe_of_that_name_are_refused(submission, fold_data, monkeypatch, changes, words):
    change(monkeypatch, **changes)
    with pytest.raises(KitError) as caught:
        ensemble_probs(submission, *records.read_config_and_competition(submission.path), fold_data.pixels,
                       Progress())
    assert "normed-seed_0-fold_0.npz has the weights of another normed than the kit's of today" in caught.value.message
    assert words in caught.value.message and f"the kit's commit {COMMIT}" in caught.value.fix


@pytest.mark.parametrize("damage", ["flipped", "missing"])
def test_damaged_weights_are_refused_with_where_to_get_them(submission, fold_data, damage):
    path = submission.weights / "normed-seed_0-fold_1.npz"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.unlink()
    if damage == "flipped":
        path.write_bytes(bytes(data))
    with pytest.raises(KitError, match=r"fold_1\.npz is (damaged|missing)") as caught:
        ensemble_probs(submission, *records.read_config_and_competition(submission.path), fold_data.pixels,
                       Progress())
    assert "git checkout" in caught.value.fix and "--keep-weights" in caught.value.fix


def test_a_value_that_float16_cannot_hold_keeps_its_array_as_it_is():
    for values, dtype in ((np.array([1.0, 1e5], "float32"), "float32"), (np.array([1.0, 6e4], "float32"), "float16"),
                          (np.array([1, 2], "int32"), "int32")):
        rounded = kept_weights._round(values)
        assert rounded.dtype == dtype
        np.testing.assert_allclose(rounded, values, rtol=1e-3)


@pytest.mark.parametrize(("limit", "value", "words"), [
    ("MAX_BYTES", 1000, "a submission keeps 0 MB at most"), ("MAX_DIFFERENCE", -1.0, "rounded to float16")])
def test_what_is_too_large_or_does_not_bear_rounding_is_not_kept(run, submission, fold_data, monkeypatch, limit,
                                                                 value, words):
    monkeypatch.setattr(kept_weights, limit, value)
    with pytest.raises(KitError, match=words):
        kept_weights.keep(run, submission, fold_data.test_pixels)
    assert not submission.weights.exists()


def test_weights_of_other_folds_than_the_run_s_are_removed(run, submission, tmp_path):
    kept_weights.remove_others(submission, run)
    assert submission.keeps_weights
    folds = storage.read_json(submission.kept_folds)["folds"]  # kept by a kit whose jobs said less
    older = {key: {**done, "job": {name: value for name, value in done["job"].items() if name != "guesses"}}
             for key, done in folds.items()}
    storage.write_json(submission.kept_folds, {"folds": older})
    kept_weights.remove_others(submission, run)
    assert submission.keeps_weights
    again = RunFolder(tmp_path / "runs" / "a-run")
    shutil.copytree(run.path, again.path)
    done = again.fold("normed", 0, 1) / "done.json"
    storage.write_json(done, {**storage.read_json(done), "train_seconds": 3.5})
    kept_weights.remove_others(submission, again)
    assert not submission.weights.exists()


def test_the_check_hardly_sees_the_rounding(run, submission):
    """Rounding by a factor of ten at least; a changed layer: see above."""
    fold = records.trained_folds(submission, records.read_config(run.path))[0]
    arrays = storage.read_npz(fold.weights)
    predictor = predictor_for(models.get("normed"), KANNADA, "float32")
    kept_weights.load(predictor, fold.weights, fold.job)
    assert kept_weights._difference(predictor, fold.job, arrays) < kept_weights.MAX_DIFFERENCE / 10
    np.testing.assert_allclose(predict_probs(predictor, arrays["check_pixels"], 2), arrays["check_probs"], atol=0.01)
