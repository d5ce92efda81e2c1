"""Digits in Keras' layout (`x_train y_train x_test y_test`) → the competition's CSV files, and the test file's labels.

In goes an `.npz`, or the name `keras` for `keras.datasets`; out come the files that Kaggle would give, and
`test_labels.csv`, which it keeps to itself. The one idea: the labels of the test file lie in a file of their own, which
nothing that trains, splits or blends ever opens; it is there to score a finished submission.
"""

import contextlib
import importlib
import math
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from kit import storage
from kit.data.competition import Competition
from kit.data.csvfile import named, shown
from kit.data.packed import check_directory
from kit.data.table import write_table
from kit.errors import KitError

TEST_LABELS = "test_labels.csv"
PARTS = ("train", "test")
LAYOUT = ("x_train", "y_train", "x_test", "y_test")
MAX_ROW_BYTES = 200  # of an id and its label
MAX_BYTES = 1 << 30  # of one array; MNIST's largest has 47 MB, EMNIST's 0.6 GB
_FIX = "give an .npz with x_train, x_test (n, h, w) uint8 and y_train, y_test (n,), as numpy.savez writes it"


class Part(NamedTuple):
    """pixels uint8 (n, h·w), labels uint8 (n,)."""

    pixels: np.ndarray
    labels: np.ndarray


class Header(NamedTuple):
    """What an array says of itself before it is read."""

    shape: tuple[int, ...]
    dtype: np.dtype


def is_source(source: str | Path) -> bool:
    """Whether `--from` names such a set: `keras`, or the path of an .npz."""
    return str(source) == "keras" or str(source).lower().endswith(".npz")


def write_files(folder: Path, source: str | Path, competition: Competition) -> None:
    """Write the set's two parts into `folder` as the competition lays its files out. KitError for what is none."""
    arrays = _from_keras(competition) if str(source) == "keras" else _from_npz(Path(source), competition)
    train, test = (_part(arrays, kind, str(source), competition) for kind in PARTS)
    ids = np.arange(len(test.labels)) + competition.first_id
    write_table(folder / competition.train, competition, train.pixels, competition.label_column, train.labels)
    if competition.id_column is None:
        write_table(folder / competition.test, competition, test.pixels)
    else:
        write_table(folder / competition.test, competition, test.pixels, competition.id_column, ids)
    for name, labels in ((competition.sample_submission, np.zeros_like(ids)), (TEST_LABELS, test.labels)):
        rows = [",".join(competition.submission_columns), *map("{},{}".format, ids.tolist(), labels.tolist())]
        storage.write_text(folder / name, "\n".join(rows) + "\n")


def read_test_labels(path: Path, competition: Competition, ids: np.ndarray) -> np.ndarray:
    """Labels uint8 (n,) of the test file with these ids. KitError where the file is not of just these."""
    if path.stat().st_size > MAX_ROW_BYTES * (len(ids) + 1):
        raise storage.damaged(path, f"it is too long for the {len(ids):,} labels of {competition.test}")
    frame = storage.read_csv(path)
    if list(frame) != list(competition.submission_columns):
        raise storage.damaged(path, f"its columns are not {','.join(competition.submission_columns)}")
    found, labels = (frame[name].to_numpy() for name in competition.submission_columns)
    if not np.array_equal(found.astype(str), ids.astype(str)):
        raise storage.damaged(path, f"its ids are not those of {competition.test}")
    return _labels(labels, str(path), competition)


def _from_keras(competition: Competition) -> dict[str, np.ndarray]:
    """What `keras.datasets.<name>.load_data()` downloads, or has in ~/.keras."""
    if competition.keras_dataset is None:
        raise KitError(f"keras.datasets has no digits of {competition.slug}",
                       "kit download --from kaggle, or the path of a zip, a folder or an .npz")
    from kit.training import backend

    backend.load()
    try:
        with contextlib.redirect_stdout(sys.stderr):  # its progress bar; stdout is for results
            parts = importlib.import_module(f"keras.datasets.{competition.keras_dataset}").load_data()
    except Exception as error:  # Keras wraps what the network raises into bare Exceptions
        raise KitError(f"cannot load keras.datasets.{competition.keras_dataset}: {error}",
                       "check the network; or give the file itself: kit download --from mnist.npz") from error
    return dict(zip(LAYOUT, (array for part in parts for array in part), strict=True))


def _from_npz(path: Path, competition: Competition) -> dict[str, np.ndarray]:
    """The four arrays of an .npz; nothing in it is unpickled, and no more read than its headers may say."""
    if not path.is_file():
        raise KitError(f"there is no file {path}", "check the path")
    try:
        check_directory(path, str(path))
        with zipfile.ZipFile(path) as archive:
            there = archive.namelist()
            missing = [name for name in LAYOUT if f"{name}.npy" not in there]
            if missing:
                raise KitError(f"{path} has no {', '.join(missing)}; it holds {named(there) or 'nothing'}", _FIX)
            headers = {name: _header(archive, name) for name in LAYOUT}
            for kind in PARTS:
                _check(headers, kind, str(path), competition)
            return {name: _array(archive, name) for name in LAYOUT}
    except (KitError, MemoryError):
        raise
    except Exception as error:  # zipfile, zlib and numpy raise a dozen kinds on damaged bytes
        raise KitError(f"{path} cannot be read: {shown(str(error) or type(error).__name__, 100)}", _FIX) from error


def _header(archive: zipfile.ZipFile, name: str) -> Header:
    """What an .npy says of itself: so much of it may be read before it is known to be of use."""
    with archive.open(f"{name}.npy") as file:
        return _read_header(file)


def _read_header(file: IO[bytes]) -> Header:
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    shape, in_columns, dtype = read[np.lib.format.read_magic(file)](file)
    if dtype.kind not in "ui" or in_columns or not shape or dtype.itemsize * math.prod(shape) > MAX_BYTES:
        raise ValueError(f"an array of {dtype} {shape} is neither images nor labels")
    return Header(shape, dtype)


def _array(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """One .npy of whole numbers; its header is believed only as far as its bytes bear it out."""
    with archive.open(f"{name}.npy") as file:
        shape, dtype = _read_header(file)
        n_bytes = dtype.itemsize * math.prod(shape)
        data = file.read(n_bytes + 1)
    if len(data) != n_bytes:
        raise ValueError(f"an array of {n_bytes:,} bytes holds {len(data):,}")
    return np.frombuffer(data, dtype).reshape(shape)


def _check(arrays: Mapping[str, Header | np.ndarray], kind: str, called: str, competition: Competition) -> None:
    """KitError unless there are images of the competition's shape, and as many labels."""
    images, labels = arrays[f"x_{kind}"], arrays[f"y_{kind}"]
    if images.dtype != np.uint8 or images.shape[1:] not in (competition.shape, (*competition.shape, 1)):
        raise KitError(f"{called}: x_{kind} is {images.dtype} {images.shape}; {competition.slug} has images of "
                       f"uint8 {competition.shape}", _FIX)
    if labels.shape != images.shape[:1] or not images.shape[0]:
        raise KitError(f"{called}: y_{kind} has the shape {labels.shape} for {images.shape[0]:,} images", _FIX)


def _part(arrays: dict[str, np.ndarray], kind: str, called: str, competition: Competition) -> Part:
    _check(arrays, kind, called, competition)
    images, labels = arrays[f"x_{kind}"], arrays[f"y_{kind}"]
    return Part(images.reshape(len(images), -1), _labels(labels, f"{called}: y_{kind}", competition))


def _labels(labels: np.ndarray, called: str, competition: Competition) -> np.ndarray:
    if labels.dtype.kind not in "ui" or labels.min() < 0 or labels.max() >= competition.n_classes:
        raise KitError(f"{called}: the labels are not whole numbers from 0 to {competition.n_classes - 1}", _FIX)
    return labels.astype(np.uint8)
