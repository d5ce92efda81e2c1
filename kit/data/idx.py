"""Read images and labels in the idx format, as MNIST and Fashion-MNIST are published.

The four files (`train-images-idx3-ubyte`, `train-labels-idx1-ubyte`, and the same of `t10k` or
`test`) lie in a folder or a zip, each plain or as .gz. A file begins with two zero bytes, the type
of its values (8: unsigned bytes), the number of its dimensions, and their sizes as big-endian
32-bit numbers (http://yann.lecun.com/exdb/mnist/).
"""

import contextlib
import gzip
import math
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np

from kit.core.errors import KitError
from kit.data.csvfile import list_names, open_csv
from kit.data.packed import open_zip, unpacking_errors

MAX_BYTES = 1 << 30  # of one file, unpacked
DIMENSIONS = {"images": 3, "labels": 1}
_NAME = re.compile(r"(?:.*[-_])?(train|t10k|test)[-_](images|labels)[-.]idx([0-9])[-.]ubyte(\.gz)?",
                   re.IGNORECASE)
_FIX = ("it must hold train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and "
        "t10k-labels-idx1-ubyte, each plain or as .gz")


def is_source(source: Path) -> bool:
    """Whether a folder or zip holds files with such names."""
    with contextlib.suppress(KitError, OSError, ValueError), _entries(source) as names:
        return any(map(_part_of, names))
    return False


def read_arrays(source: Path) -> dict[str, np.ndarray]:
    """`x_train`, `x_test` uint8 (n, h, w) and `y_train`, `y_test` uint8 (n,).

    KitError where a file is missing, there more than once, cut off, or of another kind.
    """
    with _entries(source) as names:
        arrays = {}
        for part in ("x_train", "y_train", "x_test", "y_test"):
            found = sorted((name for name in names if _part_of(name) == part),
                           key=lambda name: (name.count("/"), name))
            # Some zips have the same file a second time, in a folder of its name
            top = [name for name in found if name.count("/") == found[0].count("/")]
            if not found:
                raise KitError(f"{source} has no file of {part}; it holds "
                               f"{list_names(sorted(names)) or 'nothing'}", _FIX)
            if len(top) > 1:
                raise KitError(f"{source} has more than one file of {part}: {list_names(top)}",
                               "leave only those of one data set there")
            with names[top[0]]() as stream:
                arrays[part] = _read(stream, f"{source} → {top[0]}", part)
    return arrays


def _part_of(name: str) -> str | None:
    """The array that a file of this name holds; None if it is no name of an idx file."""
    match = _NAME.fullmatch(name.rsplit("/", 1)[-1])
    if not match:
        return None
    kind = "x" if match[2].lower() == "images" else "y"
    return f"{kind}_{'train' if match[1].lower() == 'train' else 'test'}"


@contextlib.contextmanager
def _entries(source: Path) -> Iterator[dict]:
    """The names of the files in a folder or a zip, and for each what opens it."""
    if source.is_dir():
        yield {path.name: lambda path=path: open_csv(path, "file")
               for path in source.iterdir() if path.is_file()}
        return
    with open_zip(source, str(source)) as archive:
        yield {info.filename: lambda info=info: archive.open(info)
               for info in archive.infolist() if not info.is_dir()}


def _read(stream: IO[bytes], called: str, part: str) -> np.ndarray:
    """One array. KitError where the bytes are not those of such a file, no more and no fewer."""
    with unpacking_errors(called):
        plain = gzip.GzipFile(fileobj=stream) if called.lower().endswith(".gz") else stream
        data = plain.read(MAX_BYTES + 1)
    again = "get the file again from where it came"
    if len(data) > MAX_BYTES:
        raise KitError(f"{called} has more than {MAX_BYTES >> 20} MiB", "give the right file")
    kind = "images" if part.startswith("x") else "labels"
    wanted = DIMENSIONS[kind]
    if data[:3] != b"\0\0\x08" or len(data) < 4 + 4 * data[3]:
        raise KitError(f"{called} is no idx file of unsigned bytes: it begins with "
                       f"{data[:4].hex(' ') or 'nothing'}",
                       f"{again}; one of {kind} begins with 00 00 08 0{wanted}")
    if data[3] != wanted:
        raise KitError(f"{called} has {data[3]} dimensions, and {kind} have {wanted}",
                       "give the files their own names: idx3 are images, idx1 are labels")
    sizes = struct.unpack_from(f">{wanted}I", data, 4)
    values = np.frombuffer(data, np.uint8, offset=4 + 4 * wanted)
    if len(values) != math.prod(sizes):
        raise KitError(f"{called} has {len(values):,} bytes of values, and its head says "
                       f"{' × '.join(map(str, sizes))}", f"it is cut off, or has too much: {again}")
    return values.reshape(sizes)
