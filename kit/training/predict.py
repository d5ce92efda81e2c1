"""A compiled model that predicts: uint8 pixels in, probs out, averaged over test-time views.

Every batch has the same size, the last one padded, so that an image gets the same probs whatever
the length of the file that it comes in; until, where the recipe says so, the rows of a file are
read together.
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from kit.core import backend
from kit.data.competition import Competition
from kit.training import memory
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
        self.predict_batch = _compile_probs(self.model, self.shape)
        self.batch = BATCH  # images at a time; fewer where memory is short, which `say` is told
        self.say: Callable[[str], None] = lambda text: None

    @functools.cached_property
    def features_of(self) -> Callable[[np.ndarray], np.ndarray]:
        """Features `(n, d)` float32 of uint8 images `(n, h, w, 1)`, for label spreading alone."""
        return _compile_features(self.model, self.shape)

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

    They are the mean over `n_views` views of each image. Where memory is short, fewer images are
    predicted at a time from then on; KitError where even few are too many.
    """
    transforms = [None, *views(n_views, predictor.shape)[1:]]

    def mean_of_views(images: np.ndarray) -> np.ndarray:
        by_view = [predictor.predict_batch(images, transform) for transform in transforms]
        return np.mean(by_view, axis=0, dtype="float64")

    probs = _in_batches(predictor, pixels, mean_of_views)
    return (probs / probs.sum(1, keepdims=True)).astype("float32")


def predict_with_spreading(predictor: Predictor, pixels: np.ndarray,
                           n_views: int = 1) -> np.ndarray:
    """Probs as of `predict_probs`, of the rows of one file, of which each may help to read others.

    They do where the recipe spreads labels (`kit.training.spreading`), by what the network says of
    each image as it is.
    """
    return predict_file(predictor, pixels, n_views)[1]


def predict_file(predictor: Predictor, pixels: np.ndarray,
                 n_views: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Probs as of `predict_probs`, and those of `predict_with_spreading`, which are made of them.

    Both are one array where the recipe does not spread labels.
    """
    if not predictor.recipe.label_spreading:
        probs = predict_probs(predictor, pixels, n_views)
        return probs, probs
    n_parts = -(-len(pixels) // MOST_ROWS)
    before, after = [], []
    for part in np.array_split(np.arange(len(pixels)), n_parts):
        rows = pixels[part[0]:part[-1] + 1]
        before.append(predict_probs(predictor, rows, n_views))
        after.append(spread(before[-1], predict_features(predictor, rows)))
    return np.concatenate(before), np.concatenate(after)


def predict_features(predictor: Predictor, pixels: np.ndarray) -> np.ndarray:
    """Features `(n, d)` float32 of pixels `(n, h·w)` uint8, by which `spread` finds neighbours."""
    return _in_batches(predictor, pixels, predictor.features_of)


def _in_batches(predictor: Predictor, pixels: np.ndarray,
                ask: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """What `ask` returns for images `(batch, h, w, 1)`, of all pixels; in half as large batches
    where memory is short.
    """
    while True:
        size, answers = predictor.batch, []
        try:
            for start in range(0, len(pixels), size):
                batch = np.asarray(pixels[start:start + size])
                images = np.zeros((size, *predictor.shape, 1), "uint8")
                images[:len(batch)] = batch.reshape(len(batch), *predictor.shape, 1)
                answers.append(ask(images)[:len(batch)])
            return np.concatenate(answers)
        except Exception as error:  # each library has its own
            if not memory.is_short(error):
                raise
            if size // 2 < memory.LEAST:
                raise memory.too_short(
                    f"memory is short even for predicting {size} images at a time",
                    error) from error
        predictor.batch = size // 2
        predictor.say(f"predicting {predictor.batch} images at a time instead of {BATCH}, as "
                      "memory is short")


# -- on TensorFlow and on JAX ----------------------------------------------------------------------


def _compile_probs(model: Any, shape: tuple[int, int]
                   ) -> Callable[[np.ndarray, np.ndarray | None], np.ndarray]:
    """The model as a function of uint8 images `(n, h, w, 1)` and one transform `(8,)`, or None.

    It returns float32 probs `(n, n_classes)`.
    """
    from keras import ops

    def straight(images):
        return model(ops.cast(images, "float32"), training=False)

    def viewed(images, transform):
        transforms = ops.broadcast_to(transform, (ops.shape(images)[0], 8))
        return model(warp(ops.cast(images, "float32"), transforms), training=False)

    by_itself, by_view = _compile(model, straight, shape), _compile(model, viewed, shape, (8,))

    def predict(images: np.ndarray, transform: np.ndarray | None) -> np.ndarray:
        probs = by_itself(images) if transform is None else by_view(images, transform)
        return ops.convert_to_numpy(probs)

    return predict


def _compile_features(model: Any, shape: tuple[int, int]) -> Callable[[np.ndarray], np.ndarray]:
    """What the last layer whose output is still an image says of uint8 images `(n, h, w, 1)`.

    The function returns float32 features `(n, d)`.
    """
    import keras
    from keras import ops

    maps = [layer.output for layer in model.layers
            if len(getattr(layer.output, "shape", ())) == 4][-1]
    features = keras.Model(model.input, keras.layers.Flatten(dtype="float32")(maps))

    def featured(images):
        return features(ops.cast(images, "float32"), training=False)

    compiled = _compile(model, featured, shape)
    return lambda images: ops.convert_to_numpy(compiled(images))


def _compile(model: Any, function: Callable, shape: tuple[int, int],
             *others: tuple[int, ...]) -> Callable:
    """`function` of uint8 images `(n, h, w, 1)` and float32 arrays of `others`' shapes, compiled.

    Once per n. It uses the model's variables as they are when it is called.
    """
    import keras

    if keras.backend.backend() == "jax":
        import jax

        return _jax_stateless(jax, model, function)
    import tensorflow as tf

    signature = [tf.TensorSpec((None, *shape, 1), tf.uint8), *map(tf.TensorSpec, others)]
    return tf.function(function, autograph=False, input_signature=signature)


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
