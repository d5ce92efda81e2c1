"""The same seed gives the same fold, however often it was interrupted."""

import json

import numpy as np
import pytest

from kit.core import storage
from kit.core.errors import KitError
from kit.data.competition import KANNADA
from kit.data.folds import make_folds
from kit.training import checkpoints, fit, models
from kit.training.jobs import FoldJob
from kit.training.trainer import trainer_for


def job(**changes):
    return FoldJob(**{"model": "tiny", "seed": 0, "fold": 0, "epochs": 3, "batch_size": 32,
                          "precision": "float32", "tta": 2} | changes)


def train(job, data, folder, report=lambda event: None):
    fit.train_fold(job, models.get(job.model), KANNADA, data, folder, report)
    return storage.read_npz(folder / "test.npz", "id", "probs")["probs"]


@pytest.fixture(scope="module")
def undisturbed(fold_data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("fold")
    return folder, train(job(), fold_data, folder)


def test_the_artifacts_of_a_fold(undisturbed, fold_data):
    folder, probs = undisturbed
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        ["model.keras", "history.csv", "val.npz", "test.npz", "extra.npz", "done.json", storage.CHECKSUMS])
    assert probs.shape == (30, 10) and probs.dtype == np.float32
    np.testing.assert_allclose(probs.sum(1), 1, atol=1e-6)
    test = storage.read_npz(folder / "test.npz")
    assert list(test) == ["id", "probs"]  # tiny does not spread labels
    np.testing.assert_array_equal(test["id"], np.arange(100, 130))
    np.testing.assert_array_equal(storage.read_npz(folder / "val.npz")["row"], fold_data.val_rows)
    history = storage.read_csv(folder / "history.csv")
    assert list(history) == ["epoch", "loss", "accuracy", "val_loss", "val_accuracy", "learning_rate", "seconds",
                             "images_per_second"]
    assert history["epoch"].tolist() == [1, 2, 3]
    assert storage.read_json(folder / "done.json")["val_rows"] == 60


def test_the_same_seed_gives_the_same_probs_and_another_one_others(undisturbed, fold_data, tmp_path):
    np.testing.assert_array_equal(train(job(), fold_data, tmp_path / "again"), undisturbed[1])
    assert np.abs(train(job(seed=1), fold_data, tmp_path / "seed") - undisturbed[1]).max() > 1e-3
    assert np.abs(train(job(attempt=1), fold_data, tmp_path / "attempt") - undisturbed[1]).max() > 1e-3


@pytest.mark.parametrize("steps", [1, 5, 13])
def test_killed_anywhere_and_resumed_the_result_is_the_same(undisturbed, fold_data, tmp_path, monkeypatch, steps):
    """Nine steps an epoch, one a chunk, a checkpoint after each: in the first, at the middle of one, in the second."""
    monkeypatch.setattr(fit, "CHUNK_ROWS", 1)
    monkeypatch.setattr(checkpoints, "INTERVAL_SECONDS", 0.0)
    monkeypatch.setattr(checkpoints, "MAX_TIME_SHARE", 1e9)
    seen = []

    def kill(event):
        if event["event"] == "step":
            seen.append(event)
        if len(seen) > steps:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(job(), fold_data, tmp_path, kill)
    assert (tmp_path / "checkpoint.npz").is_file() and not fit.is_done(tmp_path)
    resumed = []
    np.testing.assert_array_equal(train(job(), fold_data, tmp_path, resumed.append), undisturbed[1])
    assert resumed[0]["done"] == pytest.approx((steps + 1) / 27)
    assert not (tmp_path / "checkpoint.npz").exists()


@pytest.fixture
def killed(fold_data, tmp_path, monkeypatch):
    """Trains a job in tmp_path up to its second epoch, and leaves the checkpoint."""
    def kill(event):
        if event["epoch"] == 2:
            raise KeyboardInterrupt

    def until_killed(job):
        with pytest.raises(KeyboardInterrupt):
            train(job, fold_data, tmp_path, kill)

    monkeypatch.setattr(checkpoints, "MAX_TIME_SHARE", 1e9)
    return until_killed


def test_the_checkpoint_of_another_job_is_not_continued_from(fold_data, tmp_path, killed, undisturbed):
    killed(job(seed=5))
    np.testing.assert_array_equal(train(job(), fold_data, tmp_path), undisturbed[1])


def test_a_damaged_checkpoint_is_an_error_with_the_fix(fold_data, tmp_path):
    (tmp_path / "checkpoint.npz").write_bytes(b"PK\x03\x04 nonsense")
    with pytest.raises(KitError, match=r"checkpoint\.npz is damaged"):
        train(job(), fold_data, tmp_path)


def altered_checkpoint(folder, course):
    """The arrays of the folder's checkpoint, with some other values in its training state."""
    arrays = storage.read_npz(folder / "checkpoint.npz")
    about = json.loads(str(arrays["about"]))
    return arrays | {"about": np.array(json.dumps(about | {"course": about["course"] | course}))}


@pytest.mark.parametrize("forged", [{"step": "x"}, {"step": -1}, {"seconds": float("nan")}, {"sums": [0.0]},
                                    {"sums": ["a"] * 4}, {"history": [{"epoch": 1}]}, {"history": "none"},
                                    {"step": 27, "history": []}, {"sums": [-1.0, 0.0, 0.0, 0.0]}, {"seconds": -1e300}])
def test_a_checkpoint_that_was_never_the_kits_is_an_error_with_the_fix(fold_data, tmp_path, killed, forged):
    killed(job(model="mlp"))
    np.savez(tmp_path / "checkpoint.npz", **altered_checkpoint(tmp_path, forged))
    with pytest.raises(KitError, match=r"checkpoint\.npz is damaged"):
        train(job(model="mlp"), fold_data, tmp_path)


def test_a_checkpoint_of_another_version_is_an_error(fold_data, tmp_path, killed):
    killed(job(model="mlp"))
    storage.write_npz(tmp_path / "checkpoint.npz", **altered_checkpoint(tmp_path, {"moment": 1}))
    with pytest.raises(KitError, match=r"checkpoint\.npz is damaged"):
        train(job(model="mlp"), fold_data, tmp_path)


def test_a_done_fold_is_left_alone(undisturbed, fold_data):
    folder, _ = undisturbed
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    train(job(), fold_data, folder)
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_a_loss_that_is_no_number_ends_the_fold(fold_data, tmp_path, monkeypatch):
    trainer = trainer_for(models.get("mlp"), KANNADA, "float32", 32)
    monkeypatch.setattr(trainer, "train", lambda *_: (float("nan"), 0.1))
    with pytest.raises(fit.Diverged, match="mlp/seed_0/fold_0: the loss is nan in epoch 1"):
        train(job(model="mlp"), fold_data, tmp_path)
    assert not fit.is_done(tmp_path)


def test_fewer_rows_than_a_batch(fold_data, tmp_path):
    assert train(job(model="mlp", batch_size=4096, epochs=1), fold_data, tmp_path).shape == (30, 10)


def test_learning_rates():
    constant, cosine = models.get("cnn"), models.get("cnn_aug")
    np.testing.assert_array_equal(fit.learning_rates(constant, 4), np.float32([1e-3] * 4))
    rates = fit.learning_rates(cosine, 1000)
    assert rates[0] == pytest.approx(cosine.learning_rate, rel=1e-5) and (np.diff(rates) < 0).all()
    assert rates[499:501].mean() == pytest.approx(cosine.learning_rate / 2) and 0 < rates[-1] < rates[0] / 1000


def test_every_row_is_trained_on_at_most_once_an_epoch_and_orders_differ(fold_data):
    trainer = trainer_for(models.get("mlp"), KANNADA, "float32", 32)
    first, _ = fit.draw_epoch(trainer, job(model="mlp"), fold_data.train_rows, 0, 9)
    second, _ = fit.draw_epoch(trainer, job(model="mlp"), fold_data.train_rows, 1, 9)
    assert len(np.unique(first)) == first.size == 288
    assert set(first.ravel()) <= set(fold_data.train_rows)
    assert not np.array_equal(first, second)


def test_the_checkpoint_says_whose_it_is(fold_data, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "MAX_TIME_SHARE", 1e9)
    kept = []

    def look(event):
        if (tmp_path / "checkpoint.npz").is_file():
            kept.append(json.loads(str(storage.read_npz(tmp_path / "checkpoint.npz")["about"])))

    train(job(model="mlp"), fold_data, tmp_path, look)
    assert kept[0]["job"]["model"] == "mlp" and kept[0]["course"]["step"] == 9
    assert len(kept[0]["course"]["history"]) == 1


def test_the_folds_of_a_run_share_their_pixels_on_the_device():
    first, second = (np.full((3, 4), grey, "uint8") for grey in (1, 2))
    images = fit.on_device(first, (2, 2))
    assert fit.on_device(first, (2, 2)) is images and tuple(images.shape) == (3, 2, 2, 1)
    assert [int(np.asarray(fit.on_device(pixels, (2, 2))).max()) for pixels in (second, first)] == [2, 1]


@pytest.mark.parametrize("fold", range(5))
def test_the_curve_sees_every_digit_of_the_real_file(fold):
    """60,000 labels that cycle 0-9: every n-th row showed two or five of the ten digits."""
    labels = (np.arange(60_000) % 10).astype("uint8")
    held_out = np.flatnonzero(make_folds(labels, KANNADA, 5, "auto", seed=0).fold == fold)
    rows = fit.curve_rows(job(fold=fold), held_out, epoch=0)
    assert len(rows) == fit.CURVE_ROWS and (np.diff(rows) > 0).all() and np.isin(rows, held_out).all()
    counts = np.bincount(labels[rows], minlength=10)
    assert counts.min() > 150 and counts.max() < 250
    writers = np.bincount(rows // 1280)[np.unique(held_out // 1280)]
    assert writers.min() > 100
    np.testing.assert_array_equal(rows, fit.curve_rows(job(fold=fold), held_out, epoch=1))
    np.testing.assert_array_equal(fit.curve_rows(job(fold=fold), held_out, epoch=2), held_out)


def test_the_last_point_of_the_curve_is_the_folds_accuracy(fold_data, tmp_path, monkeypatch):
    monkeypatch.setattr(fit, "CURVE_ROWS", 7)
    train(job(tta=1), fold_data, tmp_path)
    history, done = storage.read_csv(tmp_path / "history.csv"), storage.read_json(tmp_path / "done.json")
    assert history["val_accuracy"].iloc[-1] == pytest.approx(done["val_accuracy"])
