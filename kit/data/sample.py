"""Draw Kannada digits by simulated writers, for using the kit without the competition's data.

`draw_sample` writes train.csv, test.csv, Dig-MNIST.csv and sample_submission.csv as the competition
lays them out: blocks of one writer each, labels cycling 0-9, the hardest writers first, still
harder ones in the test file, and other writers on other paper in Dig-MNIST. A writer is a set of
numbers (`Handwriting`), whose spread grows with the writer's difficulty; a digit is the writer's
usual shape for it with small random changes. The spreads were chosen by eye, by comparing with real
digits. A score on the sample shows that the kit works; it says nothing about the competition.

The same seed gives the same digits everywhere, up to one grey level: only PCG64's raw bits are
taken from NumPy, as those alone are promised never to change (NEP 19).
"""

import shlex
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from kit.core import storage
from kit.core.errors import KitError
from kit.data import pen, strokes
from kit.data.competition import KANNADA, Competition
from kit.data.table import write_table

# 4,800 digits: five folds of the tutorial's CNN take about a minute on two cores, and writers still
# differ clearly.
N_WRITERS = 30
ROWS_PER_WRITER = 160
N_TEST_WRITERS = 8
N_EXTRA_WRITERS = 10
ROWS_PER_OTHER_WRITER = 100
TRAIN_DIFFICULTY = (0.75, 0.0)  # of the first writer and of the last
TEST_DIFFICULTY = (1.0, 0.8)
EXTRA_DIFFICULTY = (0.9, 0.3)
N_DIGITS = len(strokes.GLYPHS)


class Digits(NamedTuple):
    """pixels uint8 (n, 784), labels uint8 (n,), writers int32 (n,): who wrote each row, counted
    from 0.
    """

    pixels: np.ndarray
    labels: np.ndarray
    writers: np.ndarray


@dataclass(frozen=True)
class Paper:
    """The paper, the pens and the scanner."""

    pen: float = 0.70  # median radius of the pens, in pixels of the 20-pixel box
    pens: float = 0.20  # their spread: standard deviation of the logarithm
    grain: float = 0.0  # what paper and scanner add to the raggedness of edges
    ruled: float = 0.0  # chance that a digit is cut out together with a ruled line
    specks: float = 0.01  # chance of a speck beside the digit


TRAIN_PAPER = Paper()
EXTRA_PAPER = Paper(pen=1.15, pens=0.32, grain=0.25, ruled=0.10, specks=0.12)


def draw_sample(folder: Path, seed: int = 0, n_writers: int = N_WRITERS,
                rows_per_writer: int = ROWS_PER_WRITER,
                n_test_writers: int = N_TEST_WRITERS, n_extra_writers: int = N_EXTRA_WRITERS,
                competition: Competition = KANNADA) -> None:
    """Write the four CSV files of a sample into `folder`.

    Test and Dig-MNIST writers have ROWS_PER_OTHER_WRITER rows each, training writers
    `rows_per_writer`, which the data folder's manifest must record as its writer block. KitError if
    the competition's digits are not Kannada, if the rows per writer are not a multiple of ten, or
    if the disk refuses.
    """
    if not is_drawable(competition):
        place = "keras" if competition.keras_dataset else "kaggle"
        command = shlex.join(["kit", "download", "--from", place, *competition.option])
        raise KitError(f"there is no sample for {competition.slug}: the kit draws Kannada digits "
                       "only", f"{command}; or give the path of its files to --from")
    folder = Path(folder)
    train = draw_digits(n_writers, rows_per_writer, seed)
    write_table(folder / competition.train, competition, True, train.pixels, train.labels)
    test = draw_test_digits(n_test_writers, seed)
    ids = np.arange(competition.first_id, competition.first_id + len(test.labels))
    write_table(folder / competition.test, competition, False, test.pixels, ids=ids)
    if competition.extra is not None:
        extra = draw_digits(n_extra_writers, ROWS_PER_OTHER_WRITER, seed, EXTRA_DIFFICULTY,
                            EXTRA_PAPER, stream=2)
        write_table(folder / competition.extra, competition, True, extra.pixels, extra.labels)
    lines = [",".join(competition.submission_columns), *(f"{number},0" for number in ids)]
    storage.write_text(folder / competition.sample_submission, "\n".join(lines) + "\n")


def is_drawable(competition: Competition) -> bool:
    """Whether the digits of the sample are those of this competition."""
    return competition.class_names == KANNADA.class_names \
        and competition.shape == (pen.SIDE, pen.SIDE)


def draw_digits(n_writers: int = N_WRITERS, rows_per_writer: int = ROWS_PER_WRITER, seed: int = 0,
                difficulty: tuple[float, float] = TRAIN_DIFFICULTY, paper: Paper = TRAIN_PAPER,
                stream: int = 0) -> Digits:
    """Digits in writer blocks, labels cycling 0-9.

    difficulty: that of the first and of the last writer (0 easy, 1 hardest), evenly spaced in
    between. stream: independent digits from the same seed. A writer's digits depend on the number
    of writers only through the difficulty. KitError if `rows_per_writer` is not a multiple of ten.
    """
    if n_writers < 1 or rows_per_writer < N_DIGITS or rows_per_writer % N_DIGITS:
        raise KitError(f"{n_writers} writers of {rows_per_writer} rows each cannot write every "
                       "digit equally often",
                       f"ask for at least one writer, and for a multiple of {N_DIGITS} rows")
    labels = np.arange(rows_per_writer) % N_DIGITS
    blocks = []
    for writer, hard in enumerate(np.linspace(*difficulty, n_writers)):
        random = PortableRandom(seed, stream, writer)
        blocks.append(_write_digits(_draw_handwriting(random, float(hard), paper), labels, paper,
                                    random))
    return Digits(np.concatenate(blocks), np.tile(labels, n_writers).astype(np.uint8),
                  np.repeat(np.arange(n_writers), rows_per_writer).astype(np.int32))


def draw_test_digits(n_writers: int = N_TEST_WRITERS, seed: int = 0) -> Digits:
    """The digits of a sample's test.csv, in its shuffled order, with the labels that the file does
    not have.
    """
    digits = draw_digits(n_writers, ROWS_PER_OTHER_WRITER, seed, TEST_DIFFICULTY, stream=1)
    order = np.argsort(PortableRandom(seed, 3).uniform(len(digits.labels)), kind="stable")
    return Digits(*(column[order] for column in digits))


class PortableRandom:
    """Random numbers made of PCG64's raw bits alone, so that every NumPy version gives the same."""

    def __init__(self, *seed: int) -> None:
        self._bits = np.random.PCG64(np.random.SeedSequence(seed))

    def uniform(self, *shape: int) -> np.ndarray:
        """In [0, 1), float64, 53 random bits."""
        raw = np.asarray(self._bits.random_raw(int(np.prod(shape))), dtype=np.uint64)
        return (raw >> np.uint64(11)).astype(np.float64).reshape(shape) * 2.0**-53

    def normal(self, *shape: int) -> np.ndarray:
        """Standard normal (Box and Muller 1958)."""
        radius = np.sqrt(-2 * np.log1p(-self.uniform(*shape)))
        return radius * np.cos(2 * np.pi * self.uniform(*shape))


# -- a writer --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Handwriting:
    """One writer: lengths in digit heights, angles in radians, the pen in pixels."""

    slant: float
    turn: float
    width: float
    taper: float  # how much wider the foot is than the head
    bend: float
    shake: float  # how much two digits of this writer differ
    wobble: float
    pen: float
    nib: float  # how much thicker lines along `nib_angle` are than those across it
    nib_angle: float
    pressure: float
    gaps: float  # how many times the ink runs out in one digit, on average
    ragged: float
    odd: float  # chance of another way to write the digit than the usual one
    # Per digit, per habit: this writer's own control points
    shapes: tuple[tuple[np.ndarray, ...], ...]
    usual: tuple[int, ...]  # per digit: the index of the usual habit


def _draw_handwriting(random: PortableRandom, hard: float, paper: Paper) -> Handwriting:
    """A random writer of the difficulty `hard`, which only scales the random numbers, not how many
    are drawn.
    """
    n = random.normal(11)
    own = 0.018 + 0.030 * hard
    shapes, usual = [], []
    for label in range(N_DIGITS):
        usual.append(int(_choose(random, label, 1, sharpness=1.0 - 0.6 * hard)[0]))
        stretch = np.exp(random.normal(2) * (0.08 + 0.10 * hard))
        shapes.append(tuple(line.control * stretch + own * _moves(random, line, 1)[0]
                            for line in _curves(label)))
    return Handwriting(
        slant=n[0] * (0.09 + 0.09 * hard) + 0.03, turn=n[1] * (0.04 + 0.03 * hard),
        width=float(np.exp(n[2] * (0.12 + 0.14 * hard))), taper=n[3] * (0.08 + 0.12 * hard),
        bend=n[4] * (0.05 + 0.10 * hard), shake=0.014 + 0.024 * hard,
        wobble=0.004 + 0.012 * hard * abs(n[5]), pen=paper.pen * float(np.exp(n[6] * paper.pens)),
        nib=min(0.35, 0.18 * abs(n[7])), nib_angle=0.5 * n[8],
        pressure=0.08 + 0.10 * hard * abs(n[9]),
        gaps=(0.2 + hard) * abs(n[10]), ragged=0.35 + 0.2 * hard + paper.grain,
        odd=0.10 + 0.20 * hard, shapes=tuple(shapes), usual=tuple(usual))


def _choose(random: PortableRandom, label: int, n: int, sharpness: float = 1.0) -> np.ndarray:
    """The indices (n,) of n random habits for a digit, by weight; a lower sharpness makes them more
    equal.
    """
    weights = np.array([habit.weight for habit in strokes.GLYPHS[label]]) ** sharpness
    chosen = np.searchsorted(np.cumsum(weights) / weights.sum(), random.uniform(n), side="right")
    return np.minimum(chosen, len(weights) - 1)


def _moves(random: PortableRandom, line: strokes.Curve, n: int) -> np.ndarray:
    """Random shifts of the control points (n, k, 2); the points of a corner get the same shift."""
    return random.normal(n, int(line.group[-1]) + 1, 2)[:, line.group]


@cache
def _curves(label: int) -> tuple[strokes.Curve, ...]:
    return tuple(strokes.make_curve(habit) for habit in strokes.GLYPHS[label])


# -- the digits of a writer ------------------------------------------------------------------------


def _write_digits(hand: Handwriting, labels: np.ndarray, paper: Paper,
                  random: PortableRandom) -> np.ndarray:
    """Pixels uint8 (n, 784) of one writer's digits."""
    points, arc_length, down = _draw_strokes(hand, labels, random)
    points = _warp(hand, points, arc_length, random)
    radius = np.where(down, _pen_radius(hand, points, arc_length, random), pen.UNSEEN)
    points, radius = _add_marks(paper, points, radius, random)
    box = pen.rasterize(pen.fit_to_box(points, radius), radius)
    edge = box * (1 - box) * 4  # 0 on paper and on ink: only edges are ragged
    box = np.clip(box + hand.ragged * edge * (2 * random.uniform(*box.shape) - 1), 0.0, 1.0)
    frame = pen.center_by_mass(box / np.maximum(box.max(axis=(1, 2), keepdims=True), 1e-9))
    return np.rint(frame * 255).astype(np.uint8).reshape(len(labels), -1)


def _draw_strokes(hand: Handwriting, labels: np.ndarray,
                  random: PortableRandom) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The line of each digit, padded to the longest: points (n, 2, p), arc length (n, p) and pen
    down (n, p).
    """
    longest = max(len(line.arc_length) for label in range(N_DIGITS) for line in _curves(label))
    points, arc_length = np.zeros((len(labels), 2, longest)), np.zeros((len(labels), longest))
    down = np.zeros((len(labels), longest), dtype=bool)
    for label in range(N_DIGITS):
        rows = np.flatnonzero(labels == label)
        other = _choose(random, label, len(rows), sharpness=0.7)
        habits = np.where(random.uniform(len(rows)) < hand.odd, other, hand.usual[label])
        for habit in np.unique(habits):
            line, mine = _curves(label)[habit], rows[habits == habit]
            control = hand.shapes[label][habit] + hand.shake * _moves(random, line, len(mine))
            points[mine, :, :len(line.arc_length)] = (line.basis @ control).transpose(0, 2, 1)
            arc_length[mine, :len(line.arc_length)] = line.arc_length
            down[mine, :len(line.arc_length)] = True
    return points, arc_length, down


def _warp(hand: Handwriting, points: np.ndarray, arc_length: np.ndarray,
          random: PortableRandom) -> np.ndarray:
    """`points` (n, 2, p) with the writer's width, taper, bend, slant, turn and wobble."""
    n = len(points)
    loose = random.normal(5, n, 1)
    x, y = points[:, 0] - 0.3, points[:, 1] - 0.5
    x = x * hand.width * np.exp(2.5 * hand.shake * loose[0])
    x = x * (1 + (hand.taper + 3 * hand.shake * loose[1]) * y)
    x = x + (hand.bend + hand.shake * loose[2]) * y**2
    x = x - (hand.slant + 2.5 * hand.shake * loose[3]) * y
    angle = hand.turn + 2 * hand.shake * loose[4]
    x, y = x * np.cos(angle) - y * np.sin(angle), x * np.sin(angle) + y * np.cos(angle)
    warped = np.stack([x, y], axis=1)
    for waves in (1.1, 2.3):  # periods per digit height of line
        phase = 2 * np.pi * random.uniform(n, 2, 1)
        warped += hand.wobble / waves * np.sin(2 * np.pi * waves * arc_length[:, None] + phase)
    return warped


def _pen_radius(hand: Handwriting, points: np.ndarray, arc_length: np.ndarray,
                random: PortableRandom) -> np.ndarray:
    """The pen radius at each point (n, p), in pixels; UNSEEN where the ink runs out."""
    n = len(points)
    step = np.gradient(points, axis=2)
    direction = np.arctan2(step[:, 1], step[:, 0])
    thick = 1 + hand.nib * np.cos(2 * (direction - hand.nib_angle))
    phase = 2 * np.pi * random.uniform(n, 1)
    press = 1 + hand.pressure * np.sin(2 * np.pi * 0.8 * arc_length + phase)
    radius = hand.pen * np.exp(0.08 * random.normal(n, 1)) * thick * press
    length = arc_length.max(axis=1, keepdims=True)
    for share in (0.6, 0.4):  # at most two places where the ink runs out
        here = random.uniform(n, 1) < hand.gaps * share
        place, depth = random.uniform(n, 1) * length, 0.6 + 1.2 * random.uniform(n, 1)
        distance = (arc_length - place) / (0.03 + 0.05 * random.uniform(n, 1))
        radius = radius - here * depth * np.exp(-(distance**2))
    return np.clip(radius, pen.UNSEEN, pen.MAX_RADIUS)


def _add_marks(paper: Paper, points: np.ndarray, radius: np.ndarray,
               random: PortableRandom) -> tuple[np.ndarray, np.ndarray]:
    """Append a ruled line and a speck to the points of each digit; for most they are UNSEEN."""
    n, line = len(points), np.linspace(-1.2, 1.2, 50)
    low, high = pen.bounds(points, radius)
    middle, reach = (low + high) / 2, (high - low).max(axis=1, keepdims=True) / 2
    side = np.where(random.uniform(n, 1) < 0.5, -1.0, 1.0) * (1.15 + 0.3 * random.uniform(n, 1))
    # A horizontal line below or above the digit, or a vertical one beside it
    level = random.uniform(n) < 0.5
    across, under = line + 0 * side, side + 0 * line  # both (n, 50)
    rule = np.where(level[:, None, None], np.stack([across, under], axis=1),
                    np.stack([under, across], axis=1))
    speck = 1.2 * (2 * random.uniform(n, 2, 1) - 1)
    marks = middle[:, :, None] + reach[:, :, None] * np.concatenate([rule, speck], axis=2)
    ruled = np.where(random.uniform(n, 1) < paper.ruled, 0.5, pen.UNSEEN)
    size = 0.3 + 0.5 * random.uniform(n, 1)
    speckled = np.where(random.uniform(n, 1) < paper.specks, size, pen.UNSEEN)
    return (np.concatenate([points, marks], axis=2),
            np.concatenate([radius, np.repeat(ruled, len(line), axis=1), speckled], axis=1))
