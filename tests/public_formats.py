"""Tiny public data sets in the formats in which people have them, and the page's TOML files."""

import gzip
import re
import struct
import zipfile
from pathlib import Path

import numpy as np

from kit.data.competition import Competition, from_text
from tests.test_docs import ROOT, blocks

PAGE = ROOT / "docs" / "competitions.md"


def write_toml_files(folder: Path = Path()) -> None:
    """Each TOML block of the page, under the name in its first line."""
    for block in blocks(PAGE.read_text("utf-8"), "toml"):
        name = re.match(r"# (\S+\.toml)\n", block)[1]
        (folder / name).write_text(block, "utf-8")


def on_the_page(name: str) -> Competition:
    """The competition of the TOML block `name`."""
    return next(
        from_text(block, name)
        for block in blocks(PAGE.read_text("utf-8"), "toml")
        if block.startswith(f"# {name}\n")
    )


def easy(shape, n_classes, n, seed):
    """Images uint8 (n, h, w) whose class is where the ink is, with noise; and their classes."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) % n_classes)
    images = rng.integers(0, 60, (n, *shape), np.uint8)
    flat = images.reshape(n, -1)
    width = flat.shape[1] // n_classes
    for image, label in zip(flat, labels, strict=True):
        image[label * width : (label + 1) * width] += 190
    return images, labels


def csv_text(names: list[str] | None, rows) -> str:
    return "".join(
        ",".join(map(str, row)) + "\n" for row in ([names] if names else []) + list(rows)
    )


def draw_sign_language(path: Path, n_train: int = 240, n_test: int = 48) -> None:
    """A zip with each file twice; the labels are 0 to 24 without 9."""
    labels = [k for k in range(25) if k != 9]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("amer_sign2.png", b"\x89PNG")
        for kind, n in (("train", n_train), ("test", n_test)):
            images, classes = easy((28, 28), 24, n, n)
            text = csv_text(
                ["label", *(f"pixel{i}" for i in range(1, 785))],
                ([labels[k], *image.ravel()] for image, k in zip(images, classes, strict=True)),
            )
            archive.writestr(f"sign_mnist_{kind}.csv", text)
            archive.writestr(f"sign_mnist_{kind}/sign_mnist_{kind}.csv", text)


def idx_bytes(array: np.ndarray) -> bytes:
    return (
        bytes([0, 0, 8, array.ndim])
        + struct.pack(f">{array.ndim}I", *array.shape)
        + array.astype(np.uint8).tobytes()
    )


def draw_fashion_idx(
    folder: Path, n_train: int = 100, n_test: int = 30, packed: bool = True
) -> None:
    folder.mkdir()
    for kind, n in (("train", n_train), ("t10k", n_test)):
        for name, array in zip(
            (f"{kind}-images-idx3-ubyte", f"{kind}-labels-idx1-ubyte"),
            easy((28, 28), 10, n, n),
            strict=True,
        ):
            data = idx_bytes(array)
            (folder / (name + ".gz" * packed)).write_bytes(gzip.compress(data) if packed else data)


def draw_fashion_csv(folder: Path, n_train: int = 100, n_test: int = 30) -> None:
    folder.mkdir()
    for kind, n in (("train", n_train), ("test", n_test)):
        images, labels = easy((28, 28), 10, n, n)
        text = csv_text(
            ["label", *(f"pixel{i}" for i in range(1, 785))],
            ([k, *image.ravel()] for image, k in zip(images, labels, strict=True)),
        )
        (folder / f"fashion-mnist_{kind}.csv").write_text(text)


def draw_devanagari(folder: Path = Path(), rows_per_class: int = 20) -> None:
    """data.csv, sorted by class; then the files that the page's code makes of it here."""
    about = on_the_page("devanagari.toml")
    images, classes = easy((32, 32), 46, 46 * rows_per_class, 0)
    order = np.argsort(classes, kind="stable")
    (folder / "data.csv").write_text(
        csv_text(
            [*(f"pixel_{i:04}" for i in range(1024)), "character"],
            ([*images[i].ravel(), about.class_labels[classes[i]]] for i in order),
        )
    )
    exec(blocks(PAGE.read_text("utf-8"), "python")[0], {})


def draw_shapes(folder: Path) -> None:
    folder.mkdir()
    for kind, first, n in (("train", "label", 60), ("test", "id", 20)):
        images, labels = easy((28, 28), 3, n, n)
        names = labels if first == "label" else range(n)
        (folder / f"{kind}.csv").write_text(
            csv_text(
                [first, *(f"pixel{i}" for i in range(784))],
                ([name, *image.ravel()] for image, name in zip(images, names, strict=True)),
            )
        )
