"""The pictures of the tutorials, and the score of a submission where the test labels are known.

One digit by its row, samples of each class, class balance, a grid of predictions: as text for a
terminal, or as one self-contained SVG in colours that suit light and dark pages.
"""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from kit.core import storage
from kit.core.errors import KitError
from kit.data.competition import Competition
from kit.data.source import DataFolder
from kit.data.table import Table
from kit.ensembling import submission
from kit.reporting import metrics
from kit.reporting.numerals import is_kannada
from kit.reporting.pictures import data_uri, png
from kit.reporting.verdict import percent

INK = 96  # grey levels from here on are ink where there are only two
SHOWN = 20  # rows that are listed, predicted against actual
CELL = 48  # side of a digit in a gallery, in the drawing's own units
MISTAKE = "#d8412f"  # contrast with white 4.5, with #111 4.3
PNG_SCALE = 10  # pixels for each pixel of the digit


# -- one digit ------------------------------------------------------------------------------------------------------


def write_digit(image: np.ndarray, name: str, title: str, out: Path) -> None:
    """A digit as a picture file: .png, ten times as large, or .svg with its name. KitError for another kind."""
    if out.suffix == ".png":
        storage.write_bytes(out, png(np.kron(255 - image, np.ones((PNG_SCALE, PNG_SCALE), np.uint8))), record=False)
    elif out.suffix == ".svg":
        storage.write_text(out, gallery([image], [name], 1, title) + "\n", record=False)
    else:
        raise KitError(f"--out {out} is neither .png nor .svg", "name a file that ends in .png or .svg")


def read_digit(row: int, data: DataFolder) -> tuple[np.ndarray, int]:
    """Image uint8 (h, w), 0 is paper, and label of a row of the training file."""
    table = data.train()
    if not 0 <= row < len(table) or table.labels is None:
        raise KitError(f"{table.path} has no row {row}: it has {len(table):,}, counted from 0",
                       f"give a row from 0 to {len(table) - 1}: kit show 298")
    return np.asarray(table.pixels[row]).reshape(data.competition.shape), int(table.labels[row])


def half_blocks(image: np.ndarray, colours: bool = False) -> str:
    """Two rows of pixels a line: ▀ in 24 greys where there are colours, else ink and paper as ▀, ▄, █ and space."""
    height, width = image.shape
    rows = np.zeros((height + height % 2, width), np.uint8)
    rows[:height] = image
    pairs = np.stack([rows[::2], rows[1::2]], axis=2).tolist()
    if not colours:
        return "\n".join("".join(" ▄▀█"[2 * (a >= INK) + (b >= INK)] for a, b in line).rstrip() for line in pairs)
    return "\n".join("".join(f"\x1b[38;5;{232 + a // 11};48;5;{232 + b // 11}m▀" for a, b in line) + "\x1b[0m"
                     for line in pairs)


# -- many -----------------------------------------------------------------------------------------------------------


def class_names(competition: Competition) -> list[str]:
    """What the classes are called in a picture; the digit where few machines have the font."""
    return [str(k) if is_kannada(name) else name for k, name in enumerate(competition.class_names)]


def samples(table: Table, competition: Competition) -> Markup:
    """A row of digits: the first of each class in the training file."""
    labels = np.asarray(table.labels)
    names = class_names(competition)
    rows = [int(np.flatnonzero(labels == k)[0]) for k in np.unique(labels)]
    return gallery([table.pixels[row].reshape(competition.shape) for row in rows],
                   [names[labels[row]] for row in rows], min(len(rows), 10), "the first digit of each class")


def predictions(pixels: np.ndarray, predicted: Sequence[int], competition: Competition,
                actual: Sequence[int] | None = None, columns: int = 6) -> Markup:
    """Digits (n, h·w) with what they were read as, six to a row; where the truth is known, mistakes stand out."""
    names = class_names(competition)
    truth = predicted if actual is None else actual
    captions = [names[k] if k == t else f"{names[k]}, not {names[t]}" for k, t in zip(predicted, truth, strict=True)]
    return gallery([row.reshape(competition.shape) for row in pixels], captions, columns,
                   f"{len(pixels)} digits and what they were read as",
                   wrong=[k != t for k, t in zip(predicted, truth, strict=True)])


def gallery(images: Sequence[np.ndarray], captions: Sequence[str], columns: int, label: str,
            wrong: Sequence[bool] | None = None) -> Markup:
    """Images uint8 (h, w), 0 is paper, with a caption each, as one SVG."""
    parts = []
    for i, (image, caption) in enumerate(zip(images, captions, strict=True)):
        x, y = i % columns * (CELL + 24), i // columns * (CELL + 24)
        paint = MISTAKE if wrong is not None and wrong[i] else "currentColor"
        parts.append(Markup(
            '<g><title>{0}</title><image x="{1}" y="{2}" width="{3}" height="{3}" href="{4}"/>'
            '<text x="{5}" y="{6}" text-anchor="middle" fill="{7}">{0}</text></g>').format(
            caption, x + 12, y, CELL, data_uri(255 - np.asarray(image).reshape(-1), image.shape),
            x + 12 + CELL / 2, y + CELL + 15, paint))
    return _drawing(min(columns, len(parts)) * (CELL + 24), -(-len(parts) // columns) * (CELL + 24), label, parts)


def balance(labels: np.ndarray, competition: Competition) -> Markup:
    """How many rows each class has, as bars with their numbers."""
    counts = np.bincount(labels, minlength=competition.n_classes)
    parts = []
    for k, (name, count) in enumerate(zip(class_names(competition), counts.tolist(), strict=True)):
        width = 260 * count / max(counts.max(), 1)
        parts.append(Markup(
            '<g><title>{0}: {1} rows</title><text x="74" y="{2}" text-anchor="end" fill="currentColor">{0}</text>'
            '<rect x="82" y="{3}" width="{4:.1f}" height="14" fill="#2f7fb8"/>'
            '<text x="{5:.1f}" y="{2}" fill="currentColor">{1}</text></g>').format(
            name, f"{count:,}", 20 * k + 14, 20 * k + 3, width, 90 + width))
    return _drawing(410, 20 * len(counts) + 4, "rows of each class", parts)


def _drawing(width: float, height: float, label: str, parts: Sequence[Markup]) -> Markup:
    return Markup('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {0} {1}" width="{0}" height="{1}" role="img" '
                  'aria-label="{2}" font-family="system-ui, sans-serif" font-size="12" style="max-width:100%">{3}</svg>'
                  ).format(width, height, label, Markup("").join(parts))


# -- a finished submission against the truth ------------------------------------------------------------------------


def score(file: Path, data: DataFolder) -> dict[str, Any]:
    """Accuracy of a submission, its 95 % interval, and the first 20 rows, predicted against actual.

    KitError where the labels of the test file are not known, or the file is no acceptable submission.
    """
    actual, competition = data.test_labels(), data.competition
    if actual is None:
        raise KitError(f"nobody knows the labels of {data.path / competition.test} here",
                       "hand the submission in; or get data that has them: kit download --from mnist.npz (or keras)")
    test = data.test()
    problems = submission.validate(file, competition, test.ids)
    if problems:
        typed = shlex.join(["kit", "validate", str(file), "--competition", competition.slug,
                            "--data-dir", str(data.path.parent)])
        raise KitError(f"{file} is not acceptable: {problems[0]}", f"see all that is wrong: {typed}")
    predicted = submission.read_labels(file, competition, test.ids)
    right = predicted == actual
    return {"rows": len(right), "right": int(right.sum()), "accuracy": float(right.mean()),
            "ci95": list(metrics.accuracy_interval(right)), "is_sample": data.is_sample,
            "shown": [{"id": test.ids[i].item(), "predicted": int(predicted[i]), "actual": int(actual[i])}
                      for i in range(min(SHOWN, len(right)))]}


def score_lines(result: dict[str, Any], competition: Competition) -> list[str]:
    """The score for a terminal."""
    names = class_names(competition)
    low, high = result["ci95"]
    lines = [f"{percent(result['accuracy'])} right: {result['right']:,} of {result['rows']:,} "
             f"(95 % interval {percent(low)} to {percent(high)})", "",
             f"{'id':>8}  {'predicted':>10}  {'actual':>10}"]
    return lines + [f"{row['id']:>8}  {names[row['predicted']]:>10}  {names[row['actual']]:>10}"
                    f"{'' if row['predicted'] == row['actual'] else '  wrong'}" for row in result["shown"]]
