"""Augmentation and test-time views: an affine warp per image, drawn on the host.

Drawing the eight numbers of a warp with NumPy makes them the same on every backend and at every
thread count, and lets a resumed run draw them again.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

N_NUMBERS = 8  # of an image's augmentation: the training loops are compiled for so many


@dataclass(frozen=True)
class Augment:
    """Half-widths of uniform distributions; all zero: no augmentation."""

    rotation: float = 0.0  # degrees
    shear: float = 0.0  # degrees, of the vertical
    zoom: float = 0.0  # fraction; each axis its own
    shift: float = 0.0  # fraction of the image's side

    def draw(self, rng: np.random.Generator, n: int, shape: tuple[int, int]) -> np.ndarray:
        """`(n, N_NUMBERS)` float32, what `apply` does to each of `n` images.

        They are projective transforms, output pixel → input pixel, as `keras.ops.image` wants them.
        """
        u = rng.uniform(-1.0, 1.0, (6, n))
        cos, sin = np.cos(np.deg2rad(self.rotation) * u[0]), \
            np.sin(np.deg2rad(self.rotation) * u[0])
        slant = np.tan(np.deg2rad(self.shear) * u[1])
        zoom_x, zoom_y = 1.0 + self.zoom * u[2], 1.0 + self.zoom * u[3]
        return affine(cos * zoom_x, (cos * slant - sin) * zoom_y,
                      sin * zoom_x, (sin * slant + cos) * zoom_y,
                      self.shift * shape[1] * u[4], self.shift * shape[0] * u[5], shape)

    def apply(self, images: Any, numbers: Any) -> Any:
        """Images `(n, h, w, 1)` float32 0–255 as a training step sees them; numbers: as drawn."""
        return warp(images, numbers)


def affine(a: Any, b: Any, c: Any, d: Any, shift_x: Any, shift_y: Any,
           shape: tuple[int, int]) -> np.ndarray:
    """`(n, 8)` transforms: the matrix [[a, b], [c, d]] about the image's centre, then a shift.

    The shift is in pixels.
    """
    x, y = (shape[1] - 1) / 2, (shape[0] - 1) / 2
    a, b, c, d, shift_x, shift_y = np.broadcast_arrays(
        *map(np.atleast_1d, (a, b, c, d, shift_x, shift_y)))
    zero = np.zeros_like(a, dtype=float)
    rows = [a, b, x - a * x - b * y + shift_x, c, d, y - c * x - d * y + shift_y, zero, zero]
    return np.stack(rows, 1).astype("float32")


def warp(images: Any, transforms: Any) -> Any:
    """Images `(n, h, w, 1)` float32 warped bilinearly, background 0; transforms `(n, 8)`."""
    from keras import ops

    return ops.image.affine_transform(images, transforms, interpolation="bilinear",
                                      fill_mode="constant", fill_value=0.0,
                                      data_format="channels_last")


# Test-time views, the best first: (zoom, shift in pixels in x, in y). Three gained .0005 to .001 on
# the hardest writers, seven and sixteen no more than three (docs/lab-log.md, 2026-11-21).
VIEWS = ((1.0, 0, 0), (0.9, 0, 0), (1.1, 0, 0), (1.0, 1, 0), (1.0, -1, 0), (1.0, 0, 1),
         (1.0, 0, -1))


def views(n: int, shape: tuple[int, int]) -> np.ndarray:
    """`(n, 8)` transforms of the first `n` views, the image itself first."""
    zoom, shift_x, shift_y = np.array(VIEWS[:n]).T
    return affine(zoom, 0, 0, zoom, shift_x, shift_y, shape)
