"""Predict with a trained model: uint8 pixels in, probs out, averaged over test-time views.

Every batch has the same size, the last one padded, so that an image gets the same probs whatever
the length of the file that it comes in.
"""

import functools

import numpy as np

from kit.core import backend
from kit.data import competition as competitions
from kit.data.competition import Competition
from kit.training import loops
from kit.training.augment import views
from kit.training.models import Recipe

BATCH = 500  # the largest divisor of the official files near what two cores like


class Predictor:
    """A recipe's model and its compiled prediction. Load weights into `.model` before use."""

    def __init__(self, recipe: Recipe, competition: Competition, precision: str) -> None:
        import keras

        self.recipe, self.shape = recipe, competition.shape
        outside = keras.config.dtype_policy()
        keras.config.set_dtype_policy(backend.dtype_policy(precision))
        try:
            self.model = recipe.build(competition)
        finally:
            keras.config.set_dtype_policy(outside)
        self.predict_batch = loops.prediction(self.model, self.shape)


@functools.lru_cache(maxsize=8)
def predictor_for(recipe: Recipe, competition_slug: str, precision: str) -> Predictor:
    """The predictor of these settings, built once in a process."""
    return Predictor(recipe, competitions.get(competition_slug), precision)


def predict_probs(predictor: Predictor, pixels: np.ndarray, n_views: int = 1) -> np.ndarray:
    """Probs `(n, n_classes)` float32 of pixels `(n, h·w)` uint8: the mean over `n_views` views of each image."""
    transforms = [None, *views(n_views, predictor.shape)[1:]]
    batches = []
    for start in range(0, len(pixels), BATCH):
        batch = np.asarray(pixels[start:start + BATCH])
        images = np.zeros((BATCH, *predictor.shape, 1), "uint8")
        images[:len(batch)] = batch.reshape(len(batch), *predictor.shape, 1)
        by_view = [predictor.predict_batch(images, transform)[:len(batch)]
                   for transform in transforms]
        batches.append(np.mean(by_view, axis=0, dtype="float64"))
    probs = np.concatenate(batches)
    return (probs / probs.sum(1, keepdims=True)).astype("float32")
