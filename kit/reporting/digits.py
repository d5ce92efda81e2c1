"""Show digits and class counts: as text for a terminal, as an SVG for a notebook, as a file.

An SVG is self-contained, in colours that suit light and dark pages.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from markupsafe import Markup

from kit.core import storage
from kit.core.errors import KitError
from kit.data.competition import Competition
from kit.data.source import DataFolder
from kit.data.table import Table
from kit.reporting.numerals import plain_names
from kit.reporting.pictures import data_uri, png

INK = 96  # grey levels from here on are ink where there are only two
CELL = 48  # side of a digit in a gallery, in the drawing's own units
GAP = 24  # between digits; also the room for a caption
MISTAKE = "#d8412f"  # contrast with white 4.5, with #111 4.3
PNG_SCALE = 10  # pixels for each pixel of the digit


# -- one digit -------------------------------------------------------------------------------------


def read_digit(row: int, data: DataFolder) -> tuple[np.ndarray, int]:
    """Image uint8 (h, w), 0 is paper, and label of a row of the training file."""
    table = data.train()
    if not 0 <= row < len(table) or table.labels is None:
        raise KitError(f"{table.path} has no row {row}: it has {len(table):,}, counted from 0",
                       f"give a row from 0 to {len(table) - 1}: kit show 298")
    return np.asarray(table.pixels[row]).reshape(data.competition.shape), int(table.labels[row])


def write_digit(image: np.ndarray, name: str, title: str, out: Path) -> None:
    """A digit as a picture file: .png, ten times as large, or .svg with its name below."""
    if out.suffix == ".png":
        large = np.kron(255 - image, np.ones((PNG_SCALE, PNG_SCALE), np.uint8))
        storage.write_bytes(out, png(large), record=False)
    elif out.suffix == ".svg":
        storage.write_text(out, gallery([image], [name], 1, title) + "\n", record=False)
    else:
        raise KitError(f"--out {out} is neither .png nor .svg",
                       "name a file that ends in .png or .svg")


def digit_as_text(image: np.ndarray, colours: bool = False) -> str:
    """A digit in half blocks, two rows of pixels a line.

    With colours: ▀ in 24 greys. Without: ink and paper alone, as ▀, ▄, █ and space.
    """
    height, width = image.shape
    rows = np.zeros((height + height % 2, width), np.uint8)
    rows[:height] = image
    lines = []
    for pairs in np.stack([rows[::2], rows[1::2]], axis=2).tolist():
        if colours:
            blocks = (f"\x1b[38;5;{232 + a // 11};48;5;{232 + b // 11}m▀" for a, b in pairs)
            lines.append("".join(blocks) + "\x1b[0m")
        else:
            blocks = (" ▄▀█"[2 * (a >= INK) + (b >= INK)] for a, b in pairs)
            lines.append("".join(blocks).rstrip())
    return "\n".join(lines)


# -- many ------------------------------------------------------------------------------------------


def class_gallery(table: Table, competition: Competition) -> Markup:
    """The first digit of each class in the training file."""
    labels, names = np.asarray(table.labels), plain_names(competition.class_names)
    rows = [int(np.flatnonzero(labels == k)[0]) for k in np.unique(labels)]
    return gallery([table.pixels[row].reshape(competition.shape) for row in rows],
                   [names[labels[row]] for row in rows], min(len(rows), 10),
                   f"the first of the {competition.items} of each class")


def prediction_gallery(pixels: np.ndarray, predicted: Sequence[int], competition: Competition,
                       actual: Sequence[int] | None = None, columns: int = 6) -> Markup:
    """Digits (n, h·w) with what they were read as; mistakes stand out, given `actual`."""
    names = plain_names(competition.class_names)
    pairs = list(zip(predicted, predicted if actual is None else actual, strict=True))
    captions = [names[k] if k == true else f"{names[k]}, not {names[true]}" for k, true in pairs]
    return gallery([row.reshape(competition.shape) for row in pixels], captions, columns,
                   f"{len(pixels)} {competition.items} and what they were read as",
                   wrong=[k != true for k, true in pairs])


def gallery(images: Sequence[np.ndarray], captions: Sequence[str], columns: int, label: str,
            wrong: Sequence[bool] | None = None) -> Markup:
    """Images uint8 (h, w), 0 is paper, with a caption each, as one SVG."""
    parts, step = [], CELL + GAP
    for i, (image, caption) in enumerate(zip(images, captions, strict=True)):
        x, y = i % columns * step, i // columns * step
        paint = MISTAKE if wrong is not None and wrong[i] else "currentColor"
        parts.append(Markup(
            '<g><title>{0}</title><image x="{1}" y="{2}" width="{3}" height="{3}" href="{4}"/>'
            '<text x="{5}" y="{6}" text-anchor="middle" fill="{7}">{0}</text></g>').format(
            caption, x + GAP // 2, y, CELL, data_uri(255 - np.asarray(image).ravel(), image.shape),
            x + step / 2, y + CELL + 15, paint))
    return _drawing(min(columns, len(parts)) * step, -(-len(parts) // columns) * step, label, parts)


def class_count_chart(labels: np.ndarray, competition: Competition) -> Markup:
    """How many rows each class has, as bars with their numbers."""
    counts = np.bincount(labels, minlength=competition.n_classes)
    parts = []
    for k, (name, count) in enumerate(zip(plain_names(competition.class_names), counts.tolist(),
                                          strict=True)):
        width = 260 * count / counts.max()
        parts.append(Markup(
            '<g><title>{0}: {1} rows</title>'
            '<text x="74" y="{2}" text-anchor="end" fill="currentColor">{0}</text>'
            '<rect x="82" y="{3}" width="{4:.1f}" height="14" fill="#2f7fb8"/>'
            '<text x="{5:.1f}" y="{2}" fill="currentColor">{1}</text></g>').format(
            name, f"{count:,}", 20 * k + 14, 20 * k + 3, width, 90 + width))
    return _drawing(410, 20 * len(counts) + 4, "rows of each class", parts)


def _drawing(width: float, height: float, label: str, parts: Sequence[Markup]) -> Markup:
    return Markup(
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {0} {1}" width="{0}" height="{1}" '
        'role="img" aria-label="{2}" font-family="system-ui, sans-serif" font-size="12" '
        'style="max-width:100%">{3}</svg>').format(width, height, label, Markup("").join(parts))
