"""Draw lines with a round pen as 28×28 images, framed the way MNIST frames its digits.

A line is a row of points, each with a pen radius. A pixel's grey is how far it lies inside the
nearest of these discs, so an image is the maximum over small windows around the points. All digits
are drawn at once, one point at a time.
"""

import numpy as np

SIDE = 28
BOX = 20  # the longer side of the digit, in pixels (LeCun et al., the MNIST page)
REACH = 2  # pixels of the window on each side of a point
MAX_RADIUS = 2.0  # so that a disc fits into the window: radius + 1/2 <= REACH + 1/2
UNSEEN = 0.0  # the radius of a lifted pen


def fit_to_box(points: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """Scale and move each digit so that the longer side of its ink is BOX pixels and the shorter
    one is in the middle.

    points (n, 2, p), x before y, in any unit; radius (n, p) in pixels. Returns the points in
    pixels, from 0 to BOX. Points with radius UNSEEN don't count. The shorter side is centred to the
    whole pixel.
    """
    low, high = bounds(points, radius)
    scale = BOX / np.maximum((high - low).max(axis=1), 1e-9)
    for _ in range(4):
        # The pen adds its radius at each edge, which scaling does not change: approach the size
        low, high = bounds(points * scale[:, None, None], radius, radius_factor=1.0)
        scale *= 1 + (BOX - (high - low).max(axis=1)) / BOX
    points = points * scale[:, None, None]
    low, high = bounds(points, radius, radius_factor=1.0)
    margin = np.floor(np.maximum(BOX - (high - low), 0.0) / 2 + 1e-6)
    return points + (margin - low)[:, :, None]


def bounds(points: np.ndarray, radius: np.ndarray,
           radius_factor: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest x and y, each (n, 2), of the visible points, with `radius_factor` times
    the radius around them.
    """
    reach = np.where(radius > UNSEEN, radius_factor * radius, -np.inf)[:, None]
    return (points - reach).min(axis=2), (points + reach).max(axis=2)


def rasterize(points: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """How much of each pixel is inked, 0 to 1: float64 (n, BOX, BOX).

    `points` as `fit_to_box` returns them.
    """
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
        cell = (seen[:, None, None] * side + rows[:, :, None]
                + margin) * side + columns[:, None, :] + margin
        canvas[cell] = np.maximum(canvas[cell], cover)
    return canvas.reshape(n, side, side)[:, margin:-margin, margin:-margin]


def center_by_mass(box: np.ndarray) -> np.ndarray:
    """Put each box (n, BOX, BOX) into a frame (n, SIDE, SIDE) with its centre of mass as near as
    possible to index 14.

    Boxes move by whole pixels and stay inside the frame. In the competition's files the centre of
    mass is there within half a pixel.
    """
    n, at = len(box), np.arange(BOX)
    mass = np.maximum(box.sum(axis=(1, 2)), 1e-9)
    top = _offset((box.sum(axis=2) @ at) / mass)
    left = _offset((box.sum(axis=1) @ at) / mass)
    frame = np.zeros((n, SIDE, SIDE))
    rows, columns = top[:, None, None] + at[:, None], left[:, None, None] + at
    frame[np.arange(n)[:, None, None], rows, columns] = box
    return frame


def _offset(middle: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(SIDE // 2 - middle), 0, SIDE - BOX).astype(np.int64)
