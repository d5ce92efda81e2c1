"""Model → probs, with test-time views.

In go uint8 pixels; out come float32 probs whose rows sum to 1. Batches always have the same size, the last one padded,
so that an image gets the same probs whatever the length of the file that it comes in.
"""

from typing import Any

import numpy as np

from kit.training.augment import views

BATCH = 500  # the largest divisor of the official files near what two cores like


def predict_probs(trainer: Any, pixels: np.ndarray, n_views: int = 1) -> np.ndarray:
    """Probs `(n, n_classes)` float32 of pixels `(n, h·w)` uint8: the mean over `n_views` views of each image."""
    transforms = [None, *views(n_views, trainer.shape)[1:]]
    batches = [_predict_batch(trainer, pixels[start:start + BATCH], transforms)
               for start in range(0, len(pixels), BATCH)]
    probs = np.concatenate(batches)
    return (probs / probs.sum(1, keepdims=True)).astype("float32")


def _predict_batch(trainer: Any, pixels: np.ndarray, transforms: list[np.ndarray | None]) -> np.ndarray:
    n = len(pixels)
    images = np.zeros((BATCH, *trainer.shape, 1), "uint8")
    images[:n] = np.asarray(pixels).reshape(n, *trainer.shape, 1)
    return np.mean([trainer.predict_batch(images, transform)[:n] for transform in transforms], axis=0, dtype="float64")
