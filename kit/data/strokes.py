"""The ways in which people write the ten Kannada digits, as strokes of a few control points each.

`GLYPHS` has several habits for each digit. A habit is a list of strokes, a stroke a list of (x, y)
points that a smooth curve passes through; `make_curve` gives that curve as a matrix, because it is
linear in the points: so the digits of many writers are one matrix product.

The digit's height is about 1, y points down, x has the same scale. A point given twice in a row is
a corner. The numbers were written by hand from what the digits look like; no font and no data file
went into them.
"""

from dataclasses import dataclass

import numpy as np

POINTS_PER_HEIGHT = 40  # two points per pixel of the 20-pixel box, so that the pen leaves no gaps

Stroke = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Habit:
    """One way to write a digit, and how common it is among writers (a relative weight)."""

    weight: float
    strokes: tuple[Stroke, ...]


@dataclass(frozen=True)
class Curve:
    """A habit as a smooth line: its points are `basis` @ `control`.

    basis (p, k); control (k, 2). group (k,): the same number for control points that must move
    together, as those of a corner. arc_length (p,): the length of the line up to each point, in
    digit heights, over all strokes.
    """

    basis: np.ndarray
    control: np.ndarray
    group: np.ndarray
    arc_length: np.ndarray


def make_curve(habit: Habit) -> Curve:
    """Uniform Catmull-Rom splines (Catmull and Rom 1974) through the points of each stroke."""
    from scipy.linalg import block_diag

    strokes = [np.array(stroke, dtype=np.float64) for stroke in habit.strokes]
    control = np.concatenate(strokes)
    basis = block_diag(*map(_basis, strokes))
    steps = np.hypot(*np.diff(basis @ control, axis=0, prepend=control[:1]).T)
    moved = np.any(np.diff(control, axis=0, prepend=control[:1]) != 0, axis=1)
    return Curve(basis, control, np.cumsum(moved), np.cumsum(steps))


def _basis(stroke: np.ndarray) -> np.ndarray:
    """(points on the line, control points): the weight of each control point in each point on the
    line.
    """
    lengths = np.hypot(*np.diff(stroke, axis=0).T)
    counts = np.maximum(1, np.ceil(lengths * POINTS_PER_HEIGHT)).astype(int)
    segment = np.repeat(np.arange(len(counts)), counts)
    u = np.concatenate([np.arange(count) / count for count in counts])
    segment, u = np.append(segment, len(counts) - 1), np.append(u, 1.0)
    weights = 0.5 * np.stack([-u + 2 * u**2 - u**3, 2 - 5 * u**2 + 3 * u**3,
                              u + 4 * u**2 - 3 * u**3, -(u**2) + u**3])
    basis = np.zeros((len(u), len(stroke)))
    for offset in range(4):
        column = np.clip(segment + offset - 1, 0, len(stroke) - 1)
        np.add.at(basis, (np.arange(len(u)), column), weights[offset])
    return basis


def _habit(weight: float, *strokes: str) -> Habit:
    """A habit whose strokes are written as points `x,y` in hundredths of the digit's height."""
    return Habit(weight, tuple(tuple((int(x) / 100, int(y) / 100) for x, y in
                                     (point.split(",") for point in stroke.split()))
                               for stroke in strokes))


GLYPHS: tuple[tuple[Habit, ...], ...] = (
    (  # ೦, a ring
        _habit(5, "30,2 11,15 1,50 10,85 30,100 50,85 59,50 50,15 30,0 22,5"),
        # Begins with a tick inside
        _habit(3, "36,30 30,12 24,2 9,18 0,50 9,84 30,100 50,84 58,50 50,16 36,2 20,6"),
        _habit(2, "26,22 18,8 5,35 2,65 18,95 36,98 54,75 56,40 42,8 24,0 10,12"),
        _habit(1, "5,6 3,50 6,95 6,95 35,98 55,80 57,40 45,8 20,0 0,4"),  # a D
        _habit(1, "22,3 6,30 3,70 20,98 40,95 56,65 53,25 40,5"),
        _habit(.7, "3,28 22,2 48,10 58,45 50,85 28,100 8,82 3,55"),
    ),
    (  # ೧, an arch
        _habit(6, "2,100 1,60 8,18 27,0 46,18 54,60 55,100"),
        _habit(2, "12,86 2,90 0,60 8,20 27,0 46,18 53,60 54,100"),
        _habit(2, "0,100 10,50 24,0 24,0 42,45 50,100"),  # pointed
        _habit(2, "0,100 2,50 3,6 3,6 25,0 46,5 50,12 52,50 52,100"),  # square
        _habit(1.5, "0,92 10,78 3,55 10,15 30,0 50,20 52,60 50,90 58,100"),
        _habit(1, "16,72 5,74 0,45 10,12 28,0 44,12 50,50 50,100"),
        _habit(1, "0,100 4,40 14,6 30,2 38,20 42,60 42,96 56,98"),
    ),
    (  # ೨, a loop whose tail sweeps to the left
        _habit(4, "80,50 60,60 44,42 50,16 66,4 82,18 86,46 80,72 60,88 32,95 0,97"),
        # The loop sits on the line
        _habit(4, "62,64 56,40 64,16 80,8 96,24 95,50 82,64 50,67 25,68 0,69"),
        _habit(2, "70,42 60,50 46,38 50,15 68,4 85,20 89,50 80,77 52,92 0,94"),
        _habit(1.5, "44,32 50,10 70,3 86,25 84,60 66,84 40,92 12,95 0,102"),  # no loop
        _habit(2, "60,94 52,60 56,18 74,0 90,20 92,60 90,93 90,93 45,97 0,98"),  # a tall loop
        _habit(1.5, "50,50 70,46 92,36 92,22 72,16 52,30 50,50 38,62 0,64"),
        _habit(1, "88,5 74,4 52,20 56,46 76,56 90,40 93,20 93,50 86,82 60,95 0,98"),
        _habit(1.5, "82,52 58,58 48,36 60,6 78,8 86,40 84,80 70,100 45,100 18,86 0,72"),
    ),
    (  # ೩, a 2 with a loop at the lower left
        _habit(4, "6,25 11,7 28,0 43,10 44,28 34,48 31,72 20,93 5,90 0,75 10,63 26,70 40,88 "
               "53,100"),
        _habit(3, "30,22 17,27 10,13 24,0 41,6 47,25 40,45 30,70 17,92 3,88 0,73 12,62 27,70 "
               "40,88 52,98"),
        _habit(2, "4,16 20,0 36,8 36,28 24,55 10,92 0,90 2,78 16,76 34,92 50,98"),  # a small loop
        # With a waist
        _habit(2, "7,20 20,2 42,8 44,28 28,45 28,45 42,55 38,80 20,95 3,90 0,75 14,68 30,80 "
               "50,100"),
        _habit(2, "2,8 20,0 40,8 42,30 32,50 10,60 0,80 12,97 30,90 36,68 30,55 40,80 62,96"),
        _habit(1, "4,30 8,6 26,0 42,12 42,38 36,70 12,96 0,84 10,72 32,84 46,96 70,96"),
    ),
    (  # ೪, an 8 whose right arm stays open
        _habit(4, "24,25 32,12 19,0 4,10 4,30 20,47 37,65 41,85 28,100 13,88 18,68 38,42 60,5"),
        _habit(2, "8,0 3,20 14,42 34,62 40,85 27,100 12,88 20,66 39,40 54,2"),  # no curl
        _habit(2, "40,10 25,0 6,10 6,30 24,46 40,65 40,88 25,100 10,88 15,66 33,48 46,30 50,4"),
        # A wide arm
        _habit(2, "20,30 31,20 25,3 7,4 0,22 10,42 34,60 45,82 32,100 16,88 24,66 52,40 86,14"),
        _habit(1.2, "2,10 16,3 22,22 34,55 52,100", "66,0 42,38 20,72 6,100"),  # a cross
        _habit(1, "4,2 5,22 24,40 30,62 22,95 10,92 14,72 30,46 50,2"),
        _habit(1.2, "30,16 20,20 16,8 30,0 40,12 30,30 14,40 20,52 42,66 48,86 34,100 18,90 22,70 "
               "50,44 72,16"),
    ),
    (  # ೫, ೩'s hook and loop, then a bar to a stem on the right
        _habit(4, "4,22 12,5 28,3 36,20 32,45 30,75 18,95 3,90 2,74 15,62 40,60 60,55 76,35 79,10 "
               "71,2 65,20 65,55 67,100"),
        _habit(3, "3,24 11,6 28,3 36,22 31,50 27,80 12,93 1,82 8,66 30,60 66,52",
               "68,4 65,50 68,100"),
        _habit(2.5, "27,24 15,28 8,14 20,0 36,10 36,35 29,70 15,93 2,86 4,70 20,61 45,58 63,48 "
               "76,25 76,5 66,5 62,30 63,65 70,98"),
        # The right side an S
        _habit(1.5, "4,20 14,3 30,3 36,22 30,50 22,85 8,92 1,78 12,64 38,62 56,48 71,26 66,6 "
               "54,14 57,40 74,66 75,90 60,100"),
        _habit(1.5, "2,18 16,2 32,10 32,34 20,62 5,84 0,72 12,64 28,76 45,74 58,50 62,8 62,8 "
               "60,50 62,100"),
        _habit(1.5, "0,34 8,10 26,2 38,16 36,50 28,84 14,98 2,90 12,72 36,58 60,42 84,4",
               "70,22 60,50 68,80 78,100"),
        _habit(1, "8,12 10,26 24,24 34,6 36,40 26,74 8,80 6,62 30,56 62,56",
               "52,10 56,2 70,4 72,40 72,100"),
        _habit(2, "4,20 14,2 32,6 34,30 26,60 12,86 1,82 6,68 24,74 40,82 56,66 72,30 72,6 62,6 "
               "58,35 62,80 78,98"),
        _habit(2, "26,26 14,30 6,16 18,2 34,8 36,36 30,74 16,96 4,88 8,70 30,58 62,48",
               "70,2 58,20 56,50 60,80 56,100"),
    ),
    (  # ೬, an epsilon with a long foot to the right
        _habit(4, "42,0 22,4 12,22 20,38 40,42 40,42 18,52 4,75 12,95 40,98 78,92"),
        _habit(2.5, "36,0 20,10 15,24 36,43 36,43 3,93 3,93 40,94 78,92"),  # a sigma
        _habit(2, "22,0 12,20 15,40 35,45 35,45 12,55 5,80 16,97 70,93"),
        # Curls at the top
        _habit(2, "32,18 40,5 22,1 10,20 20,38 36,42 36,42 16,52 4,74 12,95 36,97 60,88"),
        _habit(1.2, "26,0 10,25 16,44 34,46 34,34 20,40 10,62 6,84 18,98 52,92"),
        _habit(1.5, "34,3 16,6 10,24 18,42 30,44 30,44 12,56 6,78 18,96 44,92"),
        _habit(1.2, "60,0 24,6 16,22 26,36 52,38 52,38 18,48 4,70 16,90 50,92 85,80"),
        _habit(1, "10,0 8,30 22,46 22,46 6,60 4,90 4,90 30,95 72,98"),
    ),
    (  # ೭, a 2
        _habit(4, "2,22 10,5 28,0 43,10 42,32 22,68 5,95 5,95 35,94 68,92"),
        _habit(3, "0,16 12,2 34,4 37,28 29,60 20,95 20,95 40,95 64,90"),
        _habit(2, "22,20 10,20 10,5 28,0 42,14 35,42 16,80 12,97 30,99 62,90"),  # curls at the top
        _habit(2, "4,10 26,0 42,12 34,36 12,56 5,80 20,97 55,92"),
        _habit(1, "0,4 20,4 42,5 42,5 22,50 0,95 0,95 70,93"),  # a Z
        _habit(1.5, "4,26 12,4 30,2 38,20 30,42 30,42 22,70 16,96 16,96 50,92"),
        # A whole loop on top
        _habit(1, "6,14 22,0 36,12 30,32 12,30 14,12 34,20 32,48 14,82 22,98 54,90"),
        _habit(2.5, "20,26 8,24 6,8 22,0 38,8 36,30 24,52 14,74 10,95 10,95 40,95 72,92"),
    ),
    (  # ೮, a U with a curl on the left and an arm to the right
        _habit(4, "6,40 22,32 26,14 14,4 3,25 2,60 14,92 33,100 49,85 54,50 54,18 54,18 72,17 "
               "92,14"),
        _habit(2, "5,5 2,40 11,82 28,100 46,86 51,50 53,16 53,16 90,15"),  # no curl
        _habit(2.5, "5,36 20,28 22,10 10,6 1,35 6,78 24,98 42,86 48,50 55,16 75,6"),
        _habit(2, "6,42 24,36 26,18 12,12 2,38 7,78 27,98 46,84 52,50 53,20", "40,20 60,17 95,12"),
        # Wide and flat
        _habit(1.5, "6,56 28,46 30,26 14,22 2,50 12,84 36,92 58,72 64,36 64,36 82,32 102,28"),
        _habit(1.2, "10,14 3,30 4,65 18,96 36,94 47,66 54,30 70,0"),
        _habit(1.2, "8,24 16,18 18,8 8,4 3,18 5,60 12,95 12,95 40,95 50,80 52,24 44,16 58,12 "
               "88,12"),
    ),
    (  # ೯, a long arm on top and an epsilon below it
        _habit(4, "72,0 38,4 14,12 7,30 16,44 38,49 38,49 13,60 6,80 16,97 34,96 42,86"),
        # A square corner
        _habit(3, "82,2 45,3 10,6 10,6 8,30 18,46 34,48 34,48 12,58 6,80 20,98 42,92"),
        _habit(2, "60,0 32,10 14,26 20,42 34,46 34,46 14,58 6,80 14,97 36,94"),
        _habit(2, "0,6 35,4 72,2", "18,5 16,24 38,42 38,42 22,54 20,76 36,90 28,100"),  # a T
        _habit(1.2, "78,0 40,6 10,18 10,18 40,46 40,46 4,74 10,94 44,92"),
        _habit(1.2, "66,4 36,0 16,8 10,34 20,50 36,46 26,42 12,62 10,86 24,98 38,88"),
        _habit(1, "72,0 34,6 22,20 16,55 4,78 12,95 28,92 28,78"),
    ),
)
