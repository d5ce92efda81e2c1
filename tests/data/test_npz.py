"""Keras' layout becomes the competition's files; the test labels stay beside them; nothing in an .npz is believed."""

import dataclasses
import io
import re
import resource
import sys
import types
import zipfile

import numpy as np
import pytest

from kit.core.errors import KitError
from kit.data import npz
from kit.data.competition import DIGIT_RECOGNIZER, KANNADA
from kit.data.source import download, find_data
from tests.data.tiny import TINY, write_folder

SMALL = dataclasses.replace(DIGIT_RECOGNIZER, shape=(2, 3))


def arrays(n_train=30, n_test=7, seed=0):
    rng = np.random.default_rng(seed)
    return {"x_train": rng.integers(0, 256, (n_train, 2, 3), np.uint8), "y_train": np.arange(n_train) % 10,
            "x_test": rng.integers(0, 256, (n_test, 2, 3), np.uint8), "y_test": rng.integers(0, 10, n_test)}


@pytest.fixture
def given(tmp_path):
    np.savez_compressed(tmp_path / "mnist.npz", **arrays())
    return tmp_path / "mnist.npz"


@pytest.fixture
def root(tmp_path):
    return tmp_path / "data"


def test_an_npz_becomes_the_files_of_the_competition(given, root):
    data, digits = download(SMALL, given, root), arrays()
    assert data.path == root / "digit-recognizer" and data.source == "path" and not data.is_sample
    lines = {name: (data.path / name).read_text().splitlines() for name in (*SMALL.files, npz.TEST_LABELS)}
    assert lines["train.csv"][0] == "label,pixel0,pixel1,pixel2,pixel3,pixel4,pixel5" and len(lines["train.csv"]) == 31
    assert lines["test.csv"][0] == "pixel0,pixel1,pixel2,pixel3,pixel4,pixel5"
    assert lines["sample_submission.csv"] == ["ImageId,Label", *(f"{i},0" for i in range(1, 8))]
    assert lines["test_labels.csv"] == ["ImageId,Label", *(f"{i},{k}" for i, k in enumerate(digits["y_test"], 1))]
    np.testing.assert_array_equal(data.train().pixels, digits["x_train"].reshape(30, 6))
    np.testing.assert_array_equal(data.train().labels, digits["y_train"])
    np.testing.assert_array_equal(data.test().pixels, digits["x_test"].reshape(7, 6))
    np.testing.assert_array_equal(data.test().ids, np.arange(1, 8))
    np.testing.assert_array_equal(data.test_labels(), digits["y_test"])
    assert data.test_labels().dtype == np.uint8


def test_a_competition_with_ids_gets_them(given, root):
    data = download(dataclasses.replace(TINY, extra=None), given, root)
    assert (data.path / "test.csv").read_text().startswith("id,pixel0")
    np.testing.assert_array_equal(data.test().ids, np.arange(7))


def test_the_same_npz_is_not_read_again_and_another_is(given, root):
    path = download(SMALL, given, root).path / "train.csv"
    written = path.stat().st_mtime_ns
    assert download(SMALL, given, root) and path.stat().st_mtime_ns == written
    np.savez(given, **arrays(seed=1))
    np.testing.assert_array_equal(download(SMALL, given, root).test_labels(), arrays(seed=1)["y_test"])


def test_keras_datasets(root, monkeypatch, capsys):
    digits = arrays()

    def load_data():
        print("a progress bar")
        return (digits["x_train"], digits["y_train"]), (digits["x_test"], digits["y_test"])

    monkeypatch.setattr("kit.core.backend.load", lambda: "tensorflow")
    for name in ("keras", "keras.datasets"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    module = types.ModuleType("keras.datasets.mnist")
    module.load_data = load_data
    monkeypatch.setitem(sys.modules, "keras.datasets.mnist", module)
    data = download(SMALL, "keras", root)
    assert data.source == "keras" and len(data.train()) == 30 and len(data.test_labels()) == 7
    assert capsys.readouterr().out == ""

    def fail():
        raise Exception("URL fetch failure")  # what Keras raises

    module.load_data = fail
    with pytest.raises(KitError, match="URL fetch failure") as caught:
        download(SMALL, "keras", root, force=True)
    assert "mnist.npz" in caught.value.fix
    assert len(find_data(SMALL, root).train()) == 30


def test_keras_has_no_kannada_digits(root):
    with pytest.raises(KitError, match="no digits of kannada-mnist"):
        download(KANNADA, "keras", root)


# -- the labels of the test file ------------------------------------------------------------------------------------


def test_without_them_nobody_knows(root, tmp_path):
    assert download(TINY, write_folder(tmp_path / "given"), root).test_labels() is None


def test_they_are_copied_along(given, root, tmp_path):
    first = download(SMALL, given, root)
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as file:
        for path in first.path.glob("*.csv"):
            file.write(path, path.name)
    again = download(SMALL, tmp_path / "all.zip", tmp_path / "other")
    np.testing.assert_array_equal(again.test_labels(), arrays()["y_test"])


def test_labels_that_are_too_long_for_the_test_file_are_not_read(tmp_path):
    path = tmp_path / npz.TEST_LABELS
    path.write_text("ImageId,Label\n1," + "x" * 10_000 + "\n")
    with pytest.raises(KitError, match="too long for the 7 labels"):
        npz.read_test_labels(path, SMALL, np.arange(7))


def test_those_of_earlier_data_are_not_taken_for_this_data_s(given, root, tmp_path):
    first = download(SMALL, given, root)
    with zipfile.ZipFile(tmp_path / "without.zip", "w") as file:
        for name in SMALL.files:
            file.write(first.path / name, name)
    data = download(SMALL, tmp_path / "without.zip", root)
    assert not (data.path / npz.TEST_LABELS).exists() and data.test_labels() is None
    (data.path / npz.TEST_LABELS).write_text("ImageId,Label\n1,1\n")  # put there by hand
    assert data.test_labels() is None


def test_changed_ones_are_refused(given, root):
    data = download(SMALL, given, root)
    path = data.path / npz.TEST_LABELS
    path.write_text(path.read_text().replace("\n1,", "\n2,", 1))
    with pytest.raises(KitError, match=r"test_labels\.csv is not the file that manifest\.json records"):
        data.test_labels()


@pytest.mark.parametrize(("old", "new", "pattern"), [
    ("ImageId,", "id,", "its columns are not ImageId,Label"), ("\n3,", "\n9,", "its ids are not those of test.csv"),
    ("\n7,", "\n7,1", "not whole numbers from 0 to 9"), ("\n7,", "\n7,x", "not whole numbers from 0 to 9")])
def test_those_of_another_file_are_refused(given, root, tmp_path, old, new, pattern):
    folder = download(SMALL, given, root).path
    text = (folder / npz.TEST_LABELS).read_text()
    assert old in text
    (folder / npz.TEST_LABELS).write_text(text.replace(old, new, 1))
    (folder / "manifest.json").unlink()
    (folder / "checksums.json").unlink()
    with pytest.raises(KitError, match=pattern):
        download(SMALL, folder, tmp_path / "other")


# -- what is no such file -------------------------------------------------------------------------------------------


def lying(shape):
    """An .npy whose header announces much more than there is."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return buffer.getvalue() + b"\0" * 100


BAD = {
    "missing": (lambda a: a.pop("y_test"), "has no y_test"),
    "another size": (lambda a: a.update(x_test=np.zeros((7, 3, 3), np.uint8)), r"x_test is uint8 \(7, 3, 3\)"),
    "fractions": (lambda a: a.update(x_train=a["x_train"] / 255), r"x_train has values .*save \(x_train \* 255\)"),
    "above 255": (lambda a: a.update(x_train=a["x_train"].astype(np.int64) + 256), "x_train has values that"),
    "negative": (lambda a: a.update(x_train=-a["x_train"].astype(float)), "that are not whole numbers from 0"),
    "not a number": (lambda a: a.update(x_train=a["x_train"] * np.nan), "x_train has values that"),
    "objects": (lambda a: a.update(y_train=np.array([{}] * 30)), "y_train holds Python objects, which are never"),
    "complex numbers": (lambda a: a.update(x_train=a["x_train"] + 0j), "x_train is complex128 .* no whole numbers"),
    "a column for each class": (lambda a: a.update(y_train=np.eye(10)[a["y_train"]]), r"y_train\.argmax\(axis=1\)"),
    "one label too few": (lambda a: a.update(y_train=a["y_train"][:-1]), "30 images"),
    "no images": (lambda a: a.update(x_test=a["x_test"][:0], y_test=a["y_test"][:0]), "0 images"),
    "a label of 10": (lambda a: a.update(y_train=a["y_train"] + 1), "not whole numbers from 0 to 9"),
    "a negative label": (lambda a: a.update(y_test=a["y_test"] - 5), "not whole numbers from 0 to 9"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_such_set_is_refused(root, tmp_path, name):
    digits = arrays()
    change, pattern = BAD[name]
    change(digits)
    np.savez(tmp_path / "bad.npz", **digits)
    with pytest.raises(KitError) as caught:
        download(SMALL, tmp_path / "bad.npz", root)
    assert re.search(pattern, f"{caught.value.message} {caught.value.fix}")
    assert not (root / "digit-recognizer").exists()


@pytest.mark.parametrize("shape", [(10**15, 2, 3), (30, 2, 3), (10**6, 2, 3), (10**8, 2, 3)])
def test_a_header_that_lies_costs_no_memory(root, given, shape):
    """NumPy reserves what the header says, and the system gives memory only for what is read."""
    with zipfile.ZipFile(given, "w") as file:
        for name in npz.LAYOUT:
            file.writestr(f"{name}.npy", lying(shape))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(KitError, match=r"is damaged: .EOF.*got 100|x_train does not fit into memory"):
        download(SMALL, given, root)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000


def test_an_array_that_is_too_large_is_refused_before_it_is_read(root, given, monkeypatch):
    """A gigabyte of zeros takes a megabyte in the file."""
    digits = arrays()
    np.savez_compressed(given, **digits | {"x_train": digits["x_train"].astype(np.int64)})
    monkeypatch.setattr(npz, "MAX_BYTES", 1000)
    monkeypatch.setattr(np.lib.format, "read_array", lambda *_, **__: pytest.fail("was read"))
    with pytest.raises(KitError, match="x_train has 1,568 bytes; more than 1,000 are never read"):
        download(SMALL, given, root)


def test_an_npz_of_many_entries_is_refused_unread(root, given):
    with zipfile.ZipFile(given, "a") as file:
        for i in range(1100):
            file.writestr(f"{i}", b"")
    with pytest.raises(KitError, match="more than 1,000 entries"):
        download(SMALL, given, root)


@pytest.mark.parametrize(("data", "pattern"), [
    (b"", "is empty"), (b"PK\3\4 not a zip", "is cut off"), (b"\0" * 5000, "is not a zip.*give an .npz"),
    (b"\x93NUMPY\1\0", "is one array, as numpy.save writes it.*give an .npz"), (b"<html>", "is a web page")])
def test_what_is_no_npz_is_refused(root, given, data, pattern):
    given.write_bytes(data)
    with pytest.raises(KitError) as caught:
        download(SMALL, given, root)
    assert re.search(pattern, f"{caught.value.message} {caught.value.fix}")


LAID_DOWN = {
    "Fortran order": lambda a: {name: np.asfortranarray(array) for name, array in a.items()},
    "big-endian": lambda a: {name: array.astype(">i4") for name, array in a.items()},
    "int64": lambda a: {name: array.astype(np.int64) for name, array in a.items()},
    "whole floats": lambda a: {name: array.astype(np.float32) for name, array in a.items()},
    "one channel, last": lambda a: {name: array[..., None] for name, array in a.items()},
    "one channel, first": lambda a: {name: array[:, None] for name, array in a.items()},
    "flat": lambda a: {name: array.reshape(len(array), -1) for name, array in a.items()},
    "flat, in Fortran order and big-endian": lambda a: {
        name: np.asfortranarray(array.reshape(len(array), -1)).astype(">u2") for name, array in a.items()},
    "compressed": lambda a: a,
}


@pytest.mark.parametrize("name", LAID_DOWN)
def test_the_same_numbers_are_read_however_they_are_laid_down(root, tmp_path, name):
    digits = arrays()
    (np.savez_compressed if name == "compressed" else np.savez)(tmp_path / "mine.npz", **LAID_DOWN[name](digits))
    data = download(SMALL, tmp_path / "mine.npz", root)
    np.testing.assert_array_equal(data.train().pixels, digits["x_train"].reshape(30, -1))
    np.testing.assert_array_equal(data.train().labels, digits["y_train"])
    np.testing.assert_array_equal(data.test().pixels, digits["x_test"].reshape(7, -1))
    np.testing.assert_array_equal(data.test_labels(), digits["y_test"])


@pytest.mark.parametrize(("error", "fix"), [
    (Exception("URL fetch failure on https://..."), "check the network"), (OSError(28, "No space left"), "make room"),
    (zipfile.BadZipFile("File is not a zip file"), "delete its file in ~/.keras/datasets"),
    (ImportError("No module named 'h5py'"), "install what it names")])
def test_why_keras_datasets_cannot_be_loaded(root, monkeypatch, error, fix):
    module = types.ModuleType("keras.datasets.mnist")
    module.load_data = lambda: (_ for _ in ()).throw(error)
    monkeypatch.setattr("kit.core.backend.load", lambda: "tensorflow")
    monkeypatch.setattr("importlib.import_module", lambda name: module)
    with pytest.raises(KitError, match=r"cannot load keras\.datasets\.mnist") as caught:
        download(SMALL, "keras", root)
    assert fix in caught.value.fix


def test_a_damaged_npz_is_refused(root, given):
    data = bytearray(given.read_bytes())
    data[60:90] = b"\xff" * 30
    given.write_bytes(data)
    with pytest.raises(KitError, match="is damaged"):
        download(SMALL, given, root)


def test_a_file_that_is_not_there(root, tmp_path):
    with pytest.raises(KitError, match="there is no file"):
        download(SMALL, tmp_path / "none.npz", root)
