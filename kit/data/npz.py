"""Write digits in Keras' layout (`x_train y_train x_test y_test`) as the competition's CSV files.

They come from an `.npz`, from `keras.datasets` or from idx files (`kit.data.idx`). Whole numbers
are accepted in any dtype, byte order and memory order, with or without a channel axis. The labels
of the test file go into a file of their own, which only scores a finished submission: nothing that
trains, splits or blends ever opens it.
"""

import contextlib
import errno
import importlib
import sys
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from kit.core import storage
from kit.core.errors import KitError
from kit.data import archive, idx
from kit.data.competition import Competition
from kit.data.csvfile import list_names, open_csv
from kit.data.packed import open_zip, unpacking_errors
from kit.data.table import quote_cells, write_table

TEST_LABELS = "test_labels.csv"
PARTS = ("train", "test")
LAYOUT = ("x_train", "y_train", "x_test", "y_test")
MAX_ROW_BYTES = 200  # more than an id and its label need
MAX_BYTES = 1 << 30  # of one array; MNIST's largest has 47 MB, EMNIST's 0.6 GB
_FIX = ("give an .npz with x_train, x_test (n, h, w) and y_train, y_test (n,), as numpy.savez "
        "writes it")


class Part(NamedTuple):
    """pixels uint8 (n, h·w), labels uint8 (n,)."""

    pixels: np.ndarray
    labels: np.ndarray


def is_source(source: str | Path, competition: Competition) -> bool:
    """Whether `source` is for this module: the word `keras`, the path of an .npz, or that of a
    folder or zip with idx files and without the competition's CSV files.
    """
    if str(source) == "keras" or str(source).lower().endswith(".npz"):
        return True
    return not archive.has_file(Path(source), competition.train) and idx.is_source(Path(source))


def write_files(folder: Path, source: str | Path, competition: Competition) -> None:
    """Write train, test, sample submission and test labels into `folder`.

    KitError if the arrays don't fit.
    """
    if str(source) == "keras":
        arrays = _from_keras(competition)
    elif str(source).lower().endswith(".npz"):
        arrays = _from_npz(Path(source))
    else:
        arrays = idx.read_arrays(Path(source))
    train, test = (_to_part(arrays, kind, str(source), competition) for kind in PARTS)
    ids = np.arange(len(test.labels)) + competition.first_id
    write_table(folder / competition.train, competition, True, train.pixels, train.labels)
    write_table(folder / competition.test, competition, False, test.pixels, ids=ids)
    write_labels(folder / competition.sample_submission, competition, ids, np.zeros_like(ids))
    write_labels(folder / TEST_LABELS, competition, ids, test.labels)


def write_labels(path: Path, competition: Competition, ids: np.ndarray, labels: np.ndarray,
                 record: bool = True) -> None:
    """Write a file in the form of a submission: `ids` (n,) and the labels of the classes (n,).

    record: see `storage.write_bytes`.
    """
    class_labels = competition.class_labels
    names = quote_cells(map(str, ids.tolist()))
    rows = [",".join(quote_cells(competition.submission_columns)),
            *(f"{name},{class_labels[k]}" for name, k in zip(names, labels.tolist(), strict=True))]
    storage.write_text(path, "\n".join(rows) + "\n", record)


def read_test_labels(path: Path, competition: Competition, ids: np.ndarray) -> np.ndarray:
    """The labels, uint8 (n,), of the test file.

    KitError unless the file has exactly these ids, in this order.
    """
    if path.stat().st_size > MAX_ROW_BYTES * (len(ids) + 1):
        raise storage.damaged(path,
                              f"it is too long for the {len(ids):,} labels of {competition.test}")
    frame = storage.read_csv(path)
    if list(frame) != list(competition.submission_columns):
        raise storage.damaged(path,
                              f"its columns are not {','.join(competition.submission_columns)}")
    found, labels = (frame[name].to_numpy() for name in competition.submission_columns)
    if not np.array_equal(found.astype(str), ids.astype(str)):
        raise storage.damaged(path, f"its ids are not those of {competition.test}")
    return _classes(labels, str(path), competition)


def _from_keras(competition: Competition) -> dict[str, np.ndarray]:
    """The arrays of `keras.datasets.<name>.load_data()`, which downloads them or has them in
    ~/.keras.
    """
    if competition.keras_dataset is None:
        raise KitError(f"keras.datasets has no {competition.items} of {competition.slug}",
                       f"kit download --from kaggle --competition {competition.slug}; or give "
                       "--from a zip, a folder or an .npz")
    from kit.core import backend

    backend.load()
    try:
        with contextlib.redirect_stdout(sys.stderr):  # its progress bar; stdout is for results
            module = importlib.import_module(f"keras.datasets.{competition.keras_dataset}")
            parts = module.load_data()
    except Exception as error:  # Keras wraps what the network raises into bare Exceptions
        if isinstance(error, ImportError):
            fix = "install what it names"
        elif isinstance(error, OSError) \
                and error.errno in (errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT):
            fix = ("it is kept in ~/.keras: make room there, or set KERAS_HOME to a folder that "
                   "can be written")
        elif isinstance(error, zipfile.BadZipFile | EOFError) or "hash" in str(error):
            fix = ("a download was cut off: delete its file in ~/.keras/datasets, then run the "
                   "same command again")
        else:
            fix = "check the network; or give the file itself: kit download --from mnist.npz"
        raise KitError(f"cannot load keras.datasets.{competition.keras_dataset}: {error}",
                       fix) from error
    return dict(zip(LAYOUT, (array for part in parts for array in part), strict=True))


def _from_npz(path: Path) -> dict[str, np.ndarray]:
    """The four arrays of an .npz. Nothing is unpickled, and no more than MAX_BYTES read of each."""
    with open_csv(path) as file:
        if file.read(6) == b"\x93NUMPY":
            raise KitError(f"{path} is one array, as numpy.save writes it", _FIX)
    arrays = {}
    with open_zip(path, str(path), _FIX) as archive, unpacking_errors(str(path)):
        there = archive.namelist()
        missing = [name for name in LAYOUT if f"{name}.npy" not in there]
        if missing:
            raise KitError(f"{path} has no {', '.join(missing)}; it holds "
                           f"{list_names(there) or 'nothing'}", _FIX)
        for name in LAYOUT:
            info = archive.getinfo(f"{name}.npy")
            if info.file_size > MAX_BYTES:  # zipfile reads no more than the size that is declared
                raise KitError(f"{path}: {name} has {info.file_size:,} bytes; more than "
                               f"{MAX_BYTES:,} are never read",
                               f"save it as bytes: {name}.astype('uint8')")
            try:
                with archive.open(info) as member:
                    array = np.lib.format.read_array(member, allow_pickle=False)
            except MemoryError as error:  # of a shape that is not in the file
                raise KitError(f"{path}: {name} does not fit into memory: {error}", _FIX) from error
            except ValueError as error:
                if "Object arrays" not in str(error):
                    raise
                raise KitError(f"{path}: {name} holds Python objects, which are never loaded",
                               f"save it as numbers: {name}.astype('uint8')") from error
            if array.dtype.kind not in ("uifU" if name.startswith("y") else "uif"):
                raise KitError(f"{path}: {name} is {array.dtype} {array.shape}, which are no whole "
                               "numbers", _FIX)
            arrays[name] = array
    return arrays


def _to_part(arrays: dict[str, np.ndarray], kind: str, called: str,
             competition: Competition) -> Part:
    """The images and labels of one file. KitError unless they are the competition's in shape and
    values, with one label for each image.
    """
    images, labels = arrays[f"x_{kind}"], arrays[f"y_{kind}"]
    n = images.shape[0] if images.shape else 0
    shape = [size for size in images.shape[1:] if size != 1]
    if shape not in ([size for size in competition.shape if size != 1], [competition.n_pixels]):
        raise KitError(f"{called}: x_{kind} is {images.dtype} {images.shape}; {competition.slug} "
                       f"has images of {competition.shape}",
                       f"give x_{kind} in the shape (n, {', '.join(map(str, competition.shape))})"
                       + competition.or_write(f"shape = {shape}" if len(shape) == 2 else "shape"))
    if labels.shape == (n, competition.n_classes):
        raise KitError(f"{called}: y_{kind} has a column for each class, not a label for each "
                       "image", f"save y_{kind}.argmax(axis=1)")
    if not n or labels.shape not in ((n,), (n, 1)):
        raise KitError(f"{called}: y_{kind} has the shape {labels.shape} for {n:,} images",
                       "give as many labels as images, at least one")
    if not _whole(images, 255):
        fraction = images.dtype.kind == "f" and images.min() >= 0 and images.max() <= 1
        raise KitError(f"{called}: x_{kind} has values that are not whole numbers from 0 to 255",
                       f"save (x_{kind} * 255).round().astype('uint8')" if fraction
                       else "give the original grey values")
    return Part(np.ascontiguousarray(images.reshape(n, -1), np.uint8),
                _classes(labels.reshape(-1), f"{called}: y_{kind}", competition))


def _whole(array: np.ndarray, most: int) -> bool:
    """Whether all values are whole numbers from 0 to `most`, of any dtype."""
    return array.dtype.kind in "uif" and bool(((array >= 0) & (array <= most)).all()) \
        and (array.dtype.kind != "f" or bool((array == np.floor(array)).all()))


def _classes(labels: np.ndarray, called: str, competition: Competition) -> np.ndarray:
    """The numbers of the classes, uint8 (n,), of labels as they stand in the competition's files.

    KitError for a label that is none of them.
    """
    if competition.labels_are_indices:
        if not _whole(labels, competition.n_classes - 1):
            raise KitError(f"{called}: the labels are not whole numbers from 0 to "
                           f"{competition.n_classes - 1}",
                           f"number the classes from 0 to {competition.n_classes - 1}, in the "
                           "order of the competition"
                           + competition.or_write("labels = those that it has"))
        return labels.astype(np.uint8)
    if labels.dtype.kind == "f" and _whole(labels, 1 << 53):
        labels = labels.astype(np.int64)
    class_of = {label: k for k, label in enumerate(competition.class_labels)}
    there, place = np.unique(labels.astype(str), return_inverse=True)
    if unknown := [label for label in there.tolist() if label not in class_of]:
        raise KitError(f"{called}: no label of the competition: {list_names(unknown)}",
                       f"the labels are {list_names(competition.class_labels)}: correct them"
                       f"{competition.or_write('all that there are as labels')}")
    return np.array([class_of[label] for label in there.tolist()], np.uint8)[place.reshape(-1)]
