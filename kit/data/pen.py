"""From lines to pictures: a round pen on 28×28 pixels, framed the way MNIST frames its digits.

In go, for each digit, points with a pen radius each; out comes how much ink each pixel holds. The one idea: a pixel's
grey is how far it lies inside the nearest dab of the pen, so a picture is the maximum over small windows around the
points. That takes the digits all at once, one point at a time.
"""

import numpy as np

SIDE = 28
BOX = 20  # the longer side of the digit, in pixels (LeCun et al., the MNIST page)
REACH = 2  # pixels of the window on each side of a point
MAX_RADIUS = 2.0  # what that window can hold: radius + 1/2 <= REACH + 1/2
UNSEEN = 0.0  # the radius of a lifted pen


def fit_to_box(points: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """Scale and move each digit so that its ink fits BOX×BOX, tightly on the longer side.

    points (n, 2, p), x before y, in any unit; radius (n, p) in pixels; returns points in pixels, the box from 0 to BOX.
    Only what the pen shows counts. The shorter side is put in the middle, to the whole pixel.
    """
    low, high = bounds(points, radius)
    scale = BOX / np.maximum((high - low).max(axis=1), 1e-9)
    for _ in range(4):  # the pen adds its radius at each edge: correct for what it added there
        low, high = bounds(points * scale[:, None, None], radius, share=1.0)
        scale *= 1 + (BOX - (high - low).max(axis=1)) / BOX
    points = points * scale[:, None, None]
    low, high = bounds(points, radius, share=1.0)
    margin = np.floor(np.maximum(BOX - (high - low), 0.0) / 2 + 1e-6)
    return points + (margin - low)[:, :, None]


def bounds(points: np.ndarray, radius: np.ndarray, share: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest x and y (n, 2) of what the pen shows, with that share of its radius."""
    reach = np.where(radius > UNSEEN, share * radius, -np.inf)[:, None]
    return (points - reach).min(axis=2), (points + reach).max(axis=2)


def rasterize(points: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """The cover of each pixel of the box, 0 to 1: float64 (n, BOX, BOX). Points as `place_in_box` leaves them."""
    n, margin = len(points), REACH + 1
    side = BOX + 2 * margin
    canvas = np.zeros(n * side * side)
    window = np.arange(-REACH, REACH + 1)
    for (x, y), r in zip(points.transpose(2, 1, 0), radius.T, strict=True):
        seen = np.flatnonzero(r > UNSEEN)
        columns = np.floor(x[seen, None]).astype(np.int64) + window
        rows = np.floor(y[seen, None]).astype(np.int64) + window
        dx, dy = columns + 0.5 - x[seen, None], rows + 0.5 - y[seen, None]
        distance = np.sqrt(dy[:, :, None] ** 2 + dx[:, None, :] ** 2)
        cover = np.clip(r[seen, None, None] + 0.5 - distance, 0.0, 1.0)
        cell = (seen[:, None, None] * side + rows[:, :, None] + margin) * side + columns[:, None, :] + margin
        canvas[cell] = np.maximum(canvas[cell], cover)
    return canvas.reshape(n, side, side)[:, margin:-margin, margin:-margin]


def center_by_mass(box: np.ndarray) -> np.ndarray:
    """Put each box (n, BOX, BOX) into (n, SIDE, SIDE), moved by whole pixels, its centre of mass nearest to index 14.

    There the competition's own files have it, within half a pixel. A box that would leave the frame stops at its edge.
    """
    n, at = len(box), np.arange(BOX)
    mass = np.maximum(box.sum(axis=(1, 2)), 1e-9)
    top = _offset((box.sum(axis=2) @ at) / mass)
    left = _offset((box.sum(axis=1) @ at) / mass)
    frame = np.zeros((n, SIDE, SIDE))
    frame[np.arange(n)[:, None, None], top[:, None, None] + at[:, None], left[:, None, None] + at] = box
    return frame


def _offset(middle: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(SIDE // 2 - middle), 0, SIDE - BOX).astype(np.int64)
