"""A compiled model that predicts: uint8 pixels in, probs out, averaged over test-time views.

Every batch has the same size, the last one padded, so that an image gets the same probs whatever
the length of the file that it comes in; until, where the recipe says so, the rows of a file are
read together.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from kit.core import backend
from kit.data.competition import Competition
from kit.training.augment import views, warp
from kit.training.models import Recipe
from kit.training.spreading import MOST_ROWS, spread

BATCH = 500  # the largest divisor of the official files near what two cores like


class Predictor:
    """A recipe's model and its compiled prediction. Load weights into `.model` before use."""

    def __init__(self, recipe: Recipe, competition: Competition, precision: str) -> None:
        self.recipe, self.shape = recipe, competition.shape
        self.competition, self.precision = competition, precision
        self.model = self.build_model()
        self.predict_batch, self.features_of = _compile(self.model, self.shape)

    def build_model(self) -> Any:
        """A new model of the recipe."""
        import keras

        outside = keras.config.dtype_policy()
        keras.config.set_dtype_policy(backend.dtype_policy(self.precision))
        try:
            return self.recipe.build(self.competition)
        finally:
            keras.config.set_dtype_policy(outside)


@functools.lru_cache(maxsize=8)
def predictor_for(recipe: Recipe, competition: Competition, precision: str) -> Predictor:
    """The predictor of these settings, built once in a process."""
    return Predictor(recipe, competition, precision)


def predict_probs(predictor: Predictor, pixels: np.ndarray, n_views: int = 1) -> np.ndarray:
    """Probs `(n, n_classes)` float32 of pixels `(n, h·w)` uint8, each row by itself.

    They are the mean over `n_views` views of each image.
    """
    transforms = [None, *views(n_views, predictor.shape)[1:]]
    batches = []
    for rows, images in _batches(predictor, pixels):
        by_view = [predictor.predict_batch(images, transform)[:rows] for transform in transforms]
        batches.append(np.mean(by_view, axis=0, dtype="float64"))
    probs = np.concatenate(batches)
    return (probs / probs.sum(1, keepdims=True)).astype("float32")


def predict_together(predictor: Predictor, pixels: np.ndarray, n_views: int = 1) -> np.ndarray:
    """Probs as of `predict_probs`, of the rows of one file, of which each may help to read others.

    They do where the recipe spreads labels (`kit.training.spreading`), by what the network says of
    each image as it is.
    """
    if not predictor.recipe.spread:
        return predict_probs(predictor, pixels, n_views)
    n_parts = -(-len(pixels) // MOST_ROWS)
    parts = []
    for part in np.array_split(np.arange(len(pixels)), n_parts):
        rows = pixels[part[0]:part[-1] + 1]
        features = [predictor.features_of(images)[:n] for n, images in _batches(predictor, rows)]
        parts.append(spread(predict_probs(predictor, rows, n_views), np.concatenate(features)))
    return np.concatenate(parts)


def _batches(predictor: Predictor, pixels: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Pixels in batches of `BATCH` images `(BATCH, h, w, 1)`; how many of them are rows."""
    for start in range(0, len(pixels), BATCH):
        batch = np.asarray(pixels[start:start + BATCH])
        images = np.zeros((BATCH, *predictor.shape, 1), "uint8")
        images[:len(batch)] = batch.reshape(len(batch), *predictor.shape, 1)
        yield len(batch), images


# -- on TensorFlow and on JAX ----------------------------------------------------------------------


def _compile(model: Any, shape: tuple[int, int]
             ) -> tuple[Callable[[np.ndarray, np.ndarray | None], np.ndarray],
                        Callable[[np.ndarray], np.ndarray]]:
    """The model as two functions of uint8 images `(n, h, w, 1)`, compiled once per n.

    The first also takes one transform `(8,)`, or None, and returns float32 probs `(n, n_classes)`;
    the second returns float32 features `(n, d)`: the last layer's output that still is an image.
    """
    import keras
    from keras import ops

    maps = [layer.output for layer in model.layers
            if len(getattr(layer.output, "shape", ())) == 4][-1]
    features = keras.Model(model.input, keras.layers.Flatten(dtype="float32")(maps))

    def featured(images):
        return features(ops.cast(images, "float32"), training=False)

    def straight(images):
        return model(ops.cast(images, "float32"), training=False)

    def viewed(images, transform):
        transforms = ops.broadcast_to(transform, (ops.shape(images)[0], 8))
        return model(warp(ops.cast(images, "float32"), transforms), training=False)

    if keras.backend.backend() == "jax":
        import jax

        compiled = tuple(_jax_stateless(jax, model, function)
                         for function in (straight, viewed, featured))
    else:
        import tensorflow as tf

        images = tf.TensorSpec((None, *shape, 1), tf.uint8)
        compiled = (tf.function(straight, autograph=False, input_signature=[images]),
                    tf.function(viewed, autograph=False,
                                input_signature=[images, tf.TensorSpec((8,))]),
                    tf.function(featured, autograph=False, input_signature=[images]))

    def predict(images: np.ndarray, transform: np.ndarray | None) -> np.ndarray:
        probs = compiled[0](images) if transform is None else compiled[1](images, transform)
        return ops.convert_to_numpy(probs)

    return predict, lambda images: ops.convert_to_numpy(compiled[2](images))


def _jax_stateless(jax: Any, model: Any, function: Callable) -> Callable:
    """`function`, jitted with the model's variables as arguments.

    Otherwise jit would keep their first values as constants.
    """
    import keras

    @jax.jit
    def pure(values, *arrays):
        with keras.StatelessScope(state_mapping=list(zip(model.variables, values, strict=True))):
            return function(*arrays)

    return lambda *arrays: pure([variable.value for variable in model.variables], *arrays)
