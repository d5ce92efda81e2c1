"""Files in the idx format: read whole, or refused with what is wrong."""

import gzip
import zipfile

import numpy as np
import pytest

from kit.core.errors import KitError
from kit.data import idx
from tests.public_formats import draw_fashion_idx, easy, idx_bytes


def test_a_zip_with_each_file_twice_and_dots_in_the_names(tmp_path):
    with zipfile.ZipFile(tmp_path / "mnist.zip", "w") as archive:
        for kind, n in (("train", 20), ("t10k", 10)):
            images, labels = easy((28, 28), 10, n, n)
            for name, array in (
                (f"{kind}-images.idx3-ubyte", images),
                (f"{kind}-labels.idx1-ubyte", labels),
            ):
                archive.writestr(name, idx_bytes(array))
                folder = name.replace(".", "-")
                archive.writestr(f"{folder}/{folder}", idx_bytes(array))
    arrays = idx.read_arrays(tmp_path / "mnist.zip")
    assert idx.is_source(tmp_path / "mnist.zip")
    assert (arrays["x_test"] == easy((28, 28), 10, 10, 10)[0]).all() and arrays[
        "y_train"
    ].shape == (20,)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: data[:-1], "has 23,519 bytes of values, and its head says 30 × 28 × 28"),
        (lambda data: data + b"\0", "has 23,521 bytes of values"),
        (
            lambda data: b"\0\0\x0d" + data[3:],
            "no idx file of unsigned bytes: it begins with 00 00 0d 03",
        ),
        (lambda data: b"", "it begins with nothing"),
        (lambda data: b"<html>", "no idx file of unsigned bytes"),
        (lambda data: idx_bytes(np.zeros(30)), "has 1 dimensions, and images have 3"),
    ],
)
def test_damaged_files_are_refused(change, said, tmp_path):
    draw_fashion_idx(tmp_path / "idx")
    path = tmp_path / "idx" / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(change(gzip.decompress(path.read_bytes()))))
    with pytest.raises(KitError) as caught:
        idx.read_arrays(tmp_path / "idx")
    assert said in caught.value.message and path.name in caught.value.message


def test_a_gzip_that_is_cut_off_and_files_that_are_missing_or_of_two_sets(tmp_path):
    draw_fashion_idx(tmp_path / "idx")
    path = tmp_path / "idx" / "train-labels-idx1-ubyte.gz"
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    with pytest.raises(KitError, match="is cut off"):
        idx.read_arrays(tmp_path / "idx")
    path.unlink()
    with pytest.raises(KitError, match="has no file of y_train"):
        idx.read_arrays(tmp_path / "idx")
    for name in ("train-labels-idx1-ubyte.gz", "emnist-letters-train-labels-idx1-ubyte.gz"):
        (tmp_path / "idx" / name).write_bytes(whole)
    with pytest.raises(KitError, match="more than one file of y_train"):
        idx.read_arrays(tmp_path / "idx")
